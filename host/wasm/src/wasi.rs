//! A WASI with nothing behind it, for guests whose language runtime insists on one.
//!
//! Invariant: no files, no network, no arguments, no waiting. Clocks and randomness are the host's [`HostEnv`], so a guest
//! stays deterministic; output goes nowhere; waiting traps, since a guest that sleeps in the host would evade its deadline.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use wasmtime::component::{Linker, Resource, ResourceTable};
use wasmtime_wasi::p2::DynPollable;
use wasmtime_wasi::{HostMonotonicClock, HostWallClock, WasiCtx, WasiCtxView, WasiView};

use crate::HostEnv;
use crate::state::{CallClock, GuestState};

/// The version of WASI whose waiting functions are replaced.
const POLL: &str = "wasi:io/poll@0.2.6";

/// The WASI state of one instance.
pub(crate) struct Wasi {
    ctx: WasiCtx,
    table: ResourceTable,
}

impl Wasi {
    pub(crate) fn new(env: Arc<dyn HostEnv>, clock: Arc<CallClock>) -> Self {
        let seed = u128::from(env.random()) << 64 | u128::from(env.random());
        let ctx = WasiCtx::builder()
            .secure_random(Chance(Arc::clone(&env)))
            .insecure_random(Chance(env))
            .insecure_random_seed(seed)
            .wall_clock(Clock(Arc::clone(&clock)))
            .monotonic_clock(Clock(clock))
            .allow_ip_name_lookup(false)
            .allow_tcp(false)
            .allow_udp(false)
            .build();
        Self {
            ctx,
            table: ResourceTable::new(),
        }
    }
}

impl WasiView for GuestState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let wasi = self
            .wasi
            .as_mut()
            .expect("only linked for guests that have a WASI");
        WasiCtxView {
            ctx: &mut wasi.ctx,
            table: &mut wasi.table,
        }
    }
}

pub(crate) fn add_to_linker(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    wasmtime_wasi::p2::add_to_linker_sync(linker)?;
    linker.allow_shadowing(true);
    let mut poll = linker.instance(POLL)?;
    poll.func_wrap(
        "poll",
        |_, (_,): (Vec<Resource<DynPollable>>,)| -> wasmtime::Result<(Vec<u32>,)> {
            wasmtime::bail!("a plugin may not wait")
        },
    )?;
    poll.func_wrap(
        "[method]pollable.block",
        |_, (_,): (Resource<DynPollable>,)| -> wasmtime::Result<()> {
            wasmtime::bail!("a plugin may not wait")
        },
    )?;
    linker.allow_shadowing(false);
    Ok(())
}

struct Clock(Arc<CallClock>);

impl HostWallClock for Clock {
    fn resolution(&self) -> Duration {
        Duration::from_millis(1)
    }

    fn now(&self) -> Duration {
        Duration::from_millis(self.0.now_ms())
    }
}

impl HostMonotonicClock for Clock {
    fn resolution(&self) -> u64 {
        1_000_000
    }

    fn now(&self) -> u64 {
        self.0.now_ms().saturating_mul(1_000_000)
    }
}

struct Chance(Arc<dyn HostEnv>);

impl rand_core::TryRng for Chance {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(self.0.random() as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.0.random())
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.0.random().to_le_bytes()[..chunk.len()]);
        }
        Ok(())
    }
}
