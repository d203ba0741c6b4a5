//! The one engine: compiler settings, the pool that instances live in, and the ticker that deadlines count.
//!
//! Invariant: one ticker thread an engine, which ends when the last handle of the engine is dropped.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use wasmtime::component::{Component, Linker};
use wasmtime::{Config, InstanceAllocationStrategy, PoolingAllocationConfig};

use crate::cache::{self, Cache};
use crate::compile::compile;
use crate::limits::{MAX_CORE_INSTANCES, MAX_MEMORIES, MAX_MEMORY_MIB, MAX_TABLE_ELEMENTS};
use crate::state::{self, GuestState};
use crate::{Error, wasi};

/// Length of a tick, the unit of deadlines.
pub(crate) const TICK_MS: u64 = 10;
/// Stack that a guest's functions may use on the host's thread. Threads that call guests need at least twice as much.
const GUEST_STACK_BYTES: usize = 512 << 10;
/// Size of an instance's own tables of the engine; guests of ours need a few KiB, big ones from Go up to a hundred.
const MAX_INSTANCE_BYTES: usize = 1 << 20;

/// How an [`Engine`] is set up.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Where compiled code is kept; none: it is compiled at each start.
    pub cache_dir: Option<PathBuf>,
    /// A program that compiles in a process of its own (see [`crate::compile`]); none: compiled in this one.
    pub compiler: Option<PathBuf>,
    /// How many instances may live at once. Each reserves (not uses) some 4 GiB of address space.
    pub max_instances: u32,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            cache_dir: None,
            compiler: None,
            max_instances: 512,
        }
    }
}

/// Compiles and runs guests. Cheap to clone; all clones are one engine.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    engine: wasmtime::Engine,
    linker: Linker<GuestState>,
    linker_with_wasi: Linker<GuestState>,
    cache: Option<Cache>,
    compiler: Option<PathBuf>,
    /// Of the pool; 0: there is none.
    max_instances: u32,
    ticks: Arc<AtomicU64>,
    /// Dropped with the engine, which ends the ticker.
    _ticker: Sender<()>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").finish_non_exhaustive()
    }
}

impl Engine {
    /// An engine with its ticker running. Fails where the machine refuses what it needs (address space, a cache directory).
    pub fn new(config: EngineConfig) -> Result<Self, Error> {
        let failed = |what: &str, error: &dyn std::fmt::Display| Error::Load {
            plugin: "(engine)".to_owned(),
            message: format!("{what}: {error}"),
        };
        let pooled = wasmtime::Engine::new(&settings(Some(config.max_instances)));
        let (engine, max_instances) = match pooled {
            Ok(engine) => (engine, config.max_instances),
            Err(error) => {
                tracing::warn!(%error, "no room for a pool of instances; each is allocated by itself");
                let engine = wasmtime::Engine::new(&settings(None))
                    .map_err(|e| failed("cannot start the engine", &e))?;
                (engine, 0)
            }
        };
        let cache = match config.cache_dir {
            Some(dir) => Some(
                Cache::open(&dir, &engine).map_err(|e| failed("cannot open the code cache", &e))?,
            ),
            None => None,
        };
        let mut linker = Linker::new(&engine);
        state::add_to_linker(&mut linker)
            .map_err(|e| failed("cannot link the host's interfaces", &e))?;
        let mut linker_with_wasi = Linker::new(&engine);
        state::add_to_linker(&mut linker_with_wasi)
            .and_then(|()| wasi::add_to_linker(&mut linker_with_wasi))
            .map_err(|e| failed("cannot link WASI", &e))?;
        let ticks = Arc::new(AtomicU64::new(0));
        let ticker = start_ticker(engine.clone(), Arc::clone(&ticks))
            .map_err(|e| failed("cannot start the ticker", &e))?;
        Ok(Self {
            inner: Arc::new(Inner {
                engine,
                linker,
                linker_with_wasi,
                cache,
                compiler: config.compiler,
                max_instances,
                ticks,
                _ticker: ticker,
            }),
        })
    }

    pub(crate) fn raw(&self) -> &wasmtime::Engine {
        &self.inner.engine
    }

    pub(crate) fn linker(&self, wasi: bool) -> &Linker<GuestState> {
        if wasi {
            &self.inner.linker_with_wasi
        } else {
            &self.inner.linker
        }
    }

    /// The component with these bytes: from the cache, or compiled now (and kept there).
    pub(crate) fn component(&self, bytes: &[u8]) -> wasmtime::Result<Component> {
        let Inner {
            engine,
            cache,
            compiler,
            max_instances,
            ..
        } = &*self.inner;
        let compile = || compile(engine, compiler.as_deref(), *max_instances, bytes);
        match cache {
            Some(cache) => cache.component(engine, bytes, compile),
            None => cache::from_code(engine, &compile()?),
        }
    }

    pub(crate) fn ticks(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.inner.ticks)
    }
}

pub(crate) fn settings(pool: Option<u32>) -> Config {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .concurrency_support(false)
        // Threads that compile would live on and keep what the compiler used: components are compiled side by side instead.
        .parallel_compilation(false)
        .max_wasm_stack(GUEST_STACK_BYTES)
        .async_stack_size(GUEST_STACK_BYTES * 2)
        // Answers must be the same on every machine, for replays.
        .cranelift_nan_canonicalization(true)
        .relaxed_simd_deterministic(true);
    if let Some(instances) = pool {
        let parts = u32::try_from(MAX_CORE_INSTANCES).unwrap_or(u32::MAX);
        let memories = u32::try_from(MAX_MEMORIES).unwrap_or(u32::MAX);
        let mut slots = PoolingAllocationConfig::new();
        slots
            .total_component_instances(instances)
            .max_component_instance_size(MAX_INSTANCE_BYTES)
            .max_core_instances_per_component(parts)
            .total_core_instances(instances.saturating_mul(4))
            .max_core_instance_size(MAX_INSTANCE_BYTES)
            .max_memories_per_component(memories)
            .max_memories_per_module(memories)
            .total_memories(instances.saturating_mul(memories))
            .max_memory_size(MAX_MEMORY_MIB << 20)
            .max_tables_per_component(parts)
            .max_tables_per_module(4)
            .total_tables(instances.saturating_mul(4))
            .table_elements(MAX_TABLE_ELEMENTS)
            // Calls that give way have a stack of their own.
            .total_stacks(instances)
            .max_unused_warm_slots(16);
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(slots));
    }
    config
}

fn start_ticker(engine: wasmtime::Engine, ticks: Arc<AtomicU64>) -> std::io::Result<Sender<()>> {
    let (alive, gone) = channel::<()>();
    // The thread holds the engine only weakly through `alive`: when that is dropped, `recv_timeout` says so at once.
    std::thread::Builder::new()
        .name("wasm-ticker".to_owned())
        .spawn(move || {
            while let Err(RecvTimeoutError::Timeout) =
                gone.recv_timeout(Duration::from_millis(TICK_MS))
            {
                ticks.fetch_add(1, Ordering::Relaxed);
                engine.increment_epoch();
            }
        })?;
    Ok(alive)
}
