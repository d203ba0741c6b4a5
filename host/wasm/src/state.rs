//! What an instance carries: the host's side of every interface that a guest may import.
//!
//! Invariant: the clock is read at most once a call, and nothing here outlives the instance.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use wasmtime::component::{HasSelf, Linker};

use crate::bindings::oarlock::controller::objects;
use crate::bindings::oarlock::host::{clock, log, random};
use crate::engine::TICK_MS;
use crate::limits::Limiter;
use crate::wasi::Wasi;
use crate::{HostEnv, Limits, Meter, ObjectsHost};

/// Longest log line (and panic text).
const MAX_LOG_BYTES: usize = 8 << 10;
/// Log lines that may come at once: so many seconds' worth.
const LOG_BURST_SECONDS: u64 = 4;
/// Panic texts kept of one call; a guest may hand over more than one.
const MAX_PANIC_TEXTS: usize = 4;

/// The state of one instance.
pub(crate) struct GuestState {
    pub(crate) plugin: Arc<str>,
    pub(crate) limiter: Limiter,
    pub(crate) env: Arc<dyn HostEnv>,
    pub(crate) objects: Option<Arc<dyn ObjectsHost>>,
    pub(crate) wasi: Option<Box<Wasi>>,
    pub(crate) panics: Vec<String>,
    /// Tick at which the call must have ended, but for what the host itself takes.
    pub(crate) deadline_tick: u64,
    /// Whether the call is a future that is pending at each tick.
    pub(crate) gives_way: bool,
    /// Ticks that the host has taken to answer this call's questions.
    pub(crate) host_ticks: u64,
    /// Shared with the WASI clocks.
    pub(crate) now_ms: Arc<CallClock>,
    ticks: Arc<AtomicU64>,
    log_rate: LogRate,
    meter: Arc<Meter>,
}

/// The time that a guest is told: read from the host when first asked for, and then constant until the call ends.
pub(crate) struct CallClock {
    env: Arc<dyn HostEnv>,
    now_ms: AtomicU64,
}

impl CallClock {
    const UNREAD: u64 = u64::MAX;

    pub(crate) fn now_ms(&self) -> u64 {
        let now = self.now_ms.load(Ordering::Relaxed);
        if now != Self::UNREAD {
            return now;
        }
        let now = self.env.now_ms();
        self.now_ms.store(now, Ordering::Relaxed);
        now
    }
}

impl GuestState {
    pub(crate) fn new(
        plugin: Arc<str>,
        limits: &Limits,
        env: Arc<dyn HostEnv>,
        objects: Option<Arc<dyn ObjectsHost>>,
        with_wasi: bool,
        ticks: Arc<AtomicU64>,
        meter: Arc<Meter>,
    ) -> Self {
        let now_ms = Arc::new(CallClock {
            env: Arc::clone(&env),
            now_ms: AtomicU64::new(CallClock::UNREAD),
        });
        let wasi = with_wasi.then(|| Box::new(Wasi::new(Arc::clone(&env), Arc::clone(&now_ms))));
        Self {
            plugin,
            limiter: Limiter::new(limits, Arc::clone(&meter)),
            env,
            objects,
            wasi,
            panics: Vec::new(),
            deadline_tick: 0,
            gives_way: false,
            host_ticks: 0,
            now_ms,
            log_rate: LogRate::new(limits.log_lines_per_second, ticks.load(Ordering::Relaxed)),
            ticks,
            meter,
        }
    }

    /// Before each call.
    pub(crate) fn begin(&mut self, deadline_ticks: u64, gives_way: bool) {
        self.gives_way = gives_way;
        self.panics.clear();
        self.limiter.memory_refused = false;
        self.host_ticks = 0;
        self.now_ms
            .now_ms
            .store(CallClock::UNREAD, Ordering::Relaxed);
        self.deadline_tick = self.tick().saturating_add(deadline_ticks);
    }

    pub(crate) fn tick(&self) -> u64 {
        self.ticks.load(Ordering::Relaxed)
    }

    /// Asks the cluster; the time that this takes is not the guest's.
    fn ask<R>(&mut self, question: impl FnOnce(&dyn ObjectsHost) -> R) -> wasmtime::Result<R> {
        let Some(objects) = self.objects.clone() else {
            wasmtime::bail!("objects may only be asked for by controllers");
        };
        let begun = self.tick();
        let answer = question(&*objects);
        self.host_ticks = self
            .host_ticks
            .saturating_add(self.tick().saturating_sub(begun));
        Ok(answer)
    }
}

pub(crate) fn add_to_linker(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    log::add_to_linker::<_, HasSelf<_>>(linker, |state| state)?;
    clock::add_to_linker::<_, HasSelf<_>>(linker, |state| state)?;
    random::add_to_linker::<_, HasSelf<_>>(linker, |state| state)?;
    objects::add_to_linker::<_, HasSelf<_>>(linker, |state| state)
}

fn cut(mut text: String) -> String {
    if text.len() > MAX_LOG_BYTES {
        let end = (0..=MAX_LOG_BYTES)
            .rev()
            .find(|&at| text.is_char_boundary(at))
            .unwrap_or(0);
        text.truncate(end);
    }
    text
}

impl log::Host for GuestState {
    fn write(&mut self, level: log::Level, message: String) -> wasmtime::Result<()> {
        let Some(dropped) = self.log_rate.take(self.tick()) else {
            self.meter.log_line_dropped();
            return Ok(());
        };
        let plugin = &*self.plugin;
        if dropped > 0 {
            tracing::warn!(target: "plugin", plugin, dropped, "log lines beyond the plugin's rate were dropped");
        }
        let message = cut(message);
        match level {
            log::Level::Error => tracing::error!(target: "plugin", plugin, "{message}"),
            log::Level::Warn => tracing::warn!(target: "plugin", plugin, "{message}"),
            log::Level::Info => tracing::info!(target: "plugin", plugin, "{message}"),
            log::Level::Debug => tracing::debug!(target: "plugin", plugin, "{message}"),
        }
        Ok(())
    }

    fn panicked(&mut self, message: String) -> wasmtime::Result<()> {
        if self.panics.len() < MAX_PANIC_TEXTS {
            self.panics.push(cut(message));
        }
        Ok(())
    }
}

impl clock::Host for GuestState {
    fn now(&mut self) -> wasmtime::Result<u64> {
        Ok(self.now_ms.now_ms())
    }
}

impl random::Host for GuestState {
    fn next(&mut self) -> wasmtime::Result<u64> {
        Ok(self.env.random())
    }
}

type Answer<T> = wasmtime::Result<Result<T, objects::Failure>>;

impl objects::Host for GuestState {
    fn get(&mut self, resource: String, key: objects::Key) -> Answer<String> {
        self.ask(|o| o.get(&resource, &key))
    }

    fn list(&mut self, resource: String, query: objects::Query) -> Answer<Vec<String>> {
        self.ask(|o| o.list(&resource, &query))
    }

    fn get_live(&mut self, resource: String, key: objects::Key) -> Answer<String> {
        self.ask(|o| o.get_live(&resource, &key))
    }

    fn create(&mut self, resource: String, namespace: String, object: String) -> Answer<String> {
        self.ask(|o| o.create(&resource, &namespace, object))
    }

    fn create_many(
        &mut self,
        resource: String,
        namespace: String,
        objects: Vec<String>,
    ) -> wasmtime::Result<Vec<Result<String, objects::Failure>>> {
        self.ask(|o| o.create_many(&resource, &namespace, objects))
    }

    fn update(&mut self, resource: String, subresource: String, object: String) -> Answer<String> {
        self.ask(|o| o.update(&resource, &subresource, object))
    }

    fn patch(
        &mut self,
        resource: String,
        key: objects::Key,
        subresource: String,
        kind: objects::PatchKind,
        body: String,
    ) -> Answer<String> {
        self.ask(|o| o.patch(&resource, &key, &subresource, kind, body))
    }

    fn delete(
        &mut self,
        resource: String,
        key: objects::Key,
        options: objects::DeleteOptions,
    ) -> Answer<()> {
        self.ask(|o| o.delete(&resource, &key, &options))
    }

    fn delete_many(
        &mut self,
        resource: String,
        keys: Vec<objects::Key>,
        options: objects::DeleteOptions,
    ) -> wasmtime::Result<Vec<Result<(), objects::Failure>>> {
        self.ask(|o| o.delete_many(&resource, &keys, &options))
    }

    fn create_sub(
        &mut self,
        resource: String,
        key: objects::Key,
        subresource: String,
        object: String,
    ) -> Answer<String> {
        self.ask(|o| o.create_sub(&resource, &key, &subresource, object))
    }

    fn discover(&mut self) -> wasmtime::Result<Vec<objects::ResourceInfo>> {
        self.ask(|o| o.discover())
    }

    fn event(
        &mut self,
        about: String,
        warning: bool,
        reason: String,
        message: String,
    ) -> wasmtime::Result<()> {
        self.ask(|o| o.event(&about, warning, &reason, &cut(message)))
    }
}

impl crate::bindings::oarlock::controller::types::Host for GuestState {}

/// A bucket of log lines that fills with time.
struct LogRate {
    per_second: u64,
    /// Lines left, in units of 1/1000.
    left_milli: u64,
    filled_tick: u64,
    dropped: u64,
}

impl LogRate {
    fn new(per_second: u32, tick: u64) -> Self {
        let per_second = u64::from(per_second);
        Self {
            per_second,
            left_milli: per_second * LOG_BURST_SECONDS * 1000,
            filled_tick: tick,
            dropped: 0,
        }
    }

    /// Whether one more line may be written, and how many were dropped since the last one.
    fn take(&mut self, tick: u64) -> Option<u64> {
        let gained = tick
            .saturating_sub(self.filled_tick)
            .saturating_mul(TICK_MS * self.per_second);
        self.filled_tick = tick;
        self.left_milli = (self.left_milli.saturating_add(gained))
            .min(self.per_second * LOG_BURST_SECONDS * 1000);
        if self.left_milli < 1000 {
            self.dropped += 1;
            return None;
        }
        self.left_milli -= 1000;
        Some(std::mem::take(&mut self.dropped))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_beyond_the_rate_are_dropped_and_told() {
        let mut rate = LogRate::new(10, 0);
        let written = (0..100).filter(|_| rate.take(0).is_some()).count();
        assert_eq!(written, 40);
        assert_eq!(rate.take(9), None);
        assert_eq!(rate.take(10), Some(61));
        assert_eq!(rate.take(10), None);
        assert_eq!(rate.take(1_000_000), Some(1));
    }

    #[test]
    fn long_lines_are_cut_between_characters() {
        let text = cut("é".repeat(MAX_LOG_BYTES));
        assert_eq!(text.len(), MAX_LOG_BYTES);
        assert_eq!(
            cut(format!("a{}", "é".repeat(MAX_LOG_BYTES))).len(),
            MAX_LOG_BYTES - 1
        );
    }
}
