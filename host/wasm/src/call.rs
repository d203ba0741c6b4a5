//! One instance and one way to call it: deadlines, metering, and what a failed call means.
//!
//! Invariant: after a failed call the store is never entered again, since a trap leaves its memory in any state.

use std::sync::Arc;
use std::time::Instant;

use wasmtime::component::Instance;
use wasmtime::{Store, Trap, UpdateDeadline, WasmBacktrace};

use crate::engine::TICK_MS;
use crate::state::GuestState;
use crate::{Error, HostEnv, Limits, Loaded, ObjectsHost};

/// Frames of a backtrace that are kept.
const MAX_FRAMES: usize = 32;

/// An instance.
pub(crate) struct Guest {
    store: Store<GuestState>,
    loaded: Loaded,
    limits: Limits,
    deadline_ticks: u64,
    dead: bool,
}

/// Raised when a call has overrun its deadline.
#[derive(Debug, thiserror::Error)]
#[error("deadline exceeded")]
struct Overrun;

impl Guest {
    /// A fresh instance. What the guest does while it starts counts as a call named `instantiate`.
    pub(crate) fn new(
        loaded: &Loaded,
        limits: &Limits,
        env: Arc<dyn HostEnv>,
        objects: Option<Arc<dyn ObjectsHost>>,
    ) -> Result<(Self, Instance), Error> {
        let engine = loaded.engine();
        let state = GuestState::new(
            Arc::clone(loaded.plugin()),
            limits,
            env,
            objects,
            loaded.imports_wasi(),
            engine.ticks(),
            Arc::clone(loaded.meter()),
        );
        let mut store = Store::new(engine.raw(), state);
        store.limiter(|state| &mut state.limiter);
        store.set_hostcall_fuel(limits.answer_bytes);
        store.epoch_deadline_callback(|context| {
            let state = context.data();
            let end = state.deadline_tick.saturating_add(state.host_ticks);
            match end.saturating_sub(state.tick()) {
                0 => Err(Overrun.into()),
                _ if state.gives_way => Ok(UpdateDeadline::Yield(1)),
                left => Ok(UpdateDeadline::Continue(left)),
            }
        });
        let mut guest = Self {
            store,
            loaded: loaded.clone(),
            limits: limits.clone(),
            // One more, since the present tick is already under way.
            deadline_ticks: limits.deadline_ms.div_ceil(TICK_MS).max(1) + 1,
            dead: false,
        };
        loaded.meter().instance();
        let pre = loaded.pre().clone();
        let instance = guest
            .call("instantiate", |store| pre.instantiate(store))
            .map_err(|error| match error {
                // Exhausted pools and ill-typed exports end here too, and are no trap.
                Error::Trap {
                    plugin,
                    message,
                    backtrace,
                    panic: None,
                    ..
                } if backtrace.is_empty() => Error::Load { plugin, message },
                other => other,
            })?;
        Ok((guest, instance))
    }

    /// Calls into the guest.
    pub(crate) fn call<R>(
        &mut self,
        call: &'static str,
        enter: impl FnOnce(&mut Store<GuestState>) -> wasmtime::Result<R>,
    ) -> Result<R, Error> {
        let begun = self.begin(false)?;
        let answer = enter(&mut self.store);
        self.end(call, begun, answer)
    }

    /// Before a call; [`Self::end`] must follow. `gives_way`: the call is a future, which is pending at each tick.
    pub(crate) fn begin(&mut self, gives_way: bool) -> Result<Instant, Error> {
        if self.dead {
            return Err(Error::Dead {
                plugin: self.plugin(),
            });
        }
        self.store.data_mut().begin(self.deadline_ticks, gives_way);
        self.store
            .set_epoch_deadline(if gives_way { 1 } else { self.deadline_ticks });
        #[expect(clippy::disallowed_methods, reason = "edge: metering")]
        Ok(Instant::now())
    }

    /// What became of a call.
    pub(crate) fn end<R>(
        &mut self,
        call: &'static str,
        begun: Instant,
        answer: wasmtime::Result<R>,
    ) -> Result<R, Error> {
        self.loaded
            .meter()
            .call(u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX));
        answer.map_err(|error| {
            self.dead = true;
            let error = self.judge(call, &error);
            self.loaded
                .meter()
                .trap(matches!(error, Error::Deadline { .. }));
            error
        })
    }

    /// Says that the guest lied, which it may not survive either: its state cannot be trusted.
    pub(crate) fn lie(&mut self, call: &'static str, what: String) -> Error {
        self.dead = true;
        self.loaded.meter().lie();
        Error::LyingAnswer {
            plugin: self.plugin(),
            call,
            what,
        }
    }

    /// For setting up bindings.
    pub(crate) fn store(&mut self) -> &mut Store<GuestState> {
        &mut self.store
    }

    /// A failure to find or type an export.
    pub(crate) fn unlinked(&self, error: &wasmtime::Error) -> Error {
        Error::Load {
            plugin: self.plugin(),
            message: format!("{error:#}"),
        }
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.dead
    }

    pub(crate) fn loaded(&self) -> &Loaded {
        &self.loaded
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(crate) fn env(&self) -> Arc<dyn HostEnv> {
        Arc::clone(&self.store.data().env)
    }

    pub(crate) fn objects(&self) -> Option<Arc<dyn ObjectsHost>> {
        self.store.data().objects.clone()
    }

    fn plugin(&self) -> String {
        self.loaded.name().to_owned()
    }

    fn judge(&mut self, call: &'static str, error: &wasmtime::Error) -> Error {
        let plugin = self.plugin();
        let state = self.store.data_mut();
        let texts = std::mem::take(&mut state.panics);
        let panic = (!texts.is_empty()).then(|| texts.join("; "));
        let backtrace = error
            .downcast_ref::<WasmBacktrace>()
            .map(frames)
            .unwrap_or_default();
        if error.downcast_ref::<Overrun>().is_some()
            || error.downcast_ref::<Trap>() == Some(&Trap::Interrupt)
        {
            return Error::Deadline {
                plugin,
                call,
                limit_ms: self.limits.deadline_ms,
                backtrace,
            };
        }
        if state.limiter.memory_refused {
            return Error::Memory {
                plugin,
                call,
                limit_mib: self.limits.memory_mib,
                panic,
            };
        }
        let message = match error.downcast_ref::<Trap>() {
            Some(trap) => trap.to_string(),
            None => error.root_cause().to_string(),
        };
        Error::Trap {
            plugin,
            call,
            message,
            backtrace,
            panic,
        }
    }
}

fn frames(backtrace: &WasmBacktrace) -> Vec<String> {
    let name = |frame: &wasmtime::FrameInfo| match frame.func_name() {
        Some(name) => wasmtime_demangle(name),
        None => format!("function {}", frame.func_index()),
    };
    backtrace
        .frames()
        .iter()
        .take(MAX_FRAMES)
        .map(name)
        .collect()
}

/// Rust's mangled names end in a hash and are full of escapes; the last path segments are what a reader looks for.
fn wasmtime_demangle(name: &str) -> String {
    rustc_demangle::try_demangle(name).map_or_else(|_| name.to_owned(), |name| format!("{name:#}"))
}
