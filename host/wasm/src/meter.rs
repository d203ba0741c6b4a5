//! What guests cost, as plain counters that anyone may read at any time.

use std::sync::atomic::{AtomicU64, Ordering};

/// The counters of one plugin, shared by all its instances.
#[derive(Debug, Default)]
pub struct Meter {
    calls: AtomicU64,
    guest_ns: AtomicU64,
    traps: AtomicU64,
    deadlines: AtomicU64,
    lies: AtomicU64,
    instances: AtomicU64,
    memory_bytes: AtomicU64,
    log_lines_dropped: AtomicU64,
}

/// A reading of a [`Meter`].
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Reading {
    /// Calls into the guest.
    pub calls: u64,
    /// Nanoseconds spent in them (with what the guest asked of the host in the meantime).
    pub guest_ns: u64,
    /// Calls that ended in a trap, for whatever reason.
    pub traps: u64,
    /// Those of them that overran their deadline.
    pub deadlines: u64,
    /// Answers that could not be true.
    pub lies: u64,
    /// Instances made.
    pub instances: u64,
    /// The most linear memory that one instance ever had.
    pub memory_bytes: u64,
    /// Log lines beyond the rate limit.
    pub log_lines_dropped: u64,
}

impl Meter {
    /// The counters now. They are read one by one: a call that ends meanwhile may be in some of them only.
    pub fn read(&self) -> Reading {
        Reading {
            calls: self.calls.load(Ordering::Relaxed),
            guest_ns: self.guest_ns.load(Ordering::Relaxed),
            traps: self.traps.load(Ordering::Relaxed),
            deadlines: self.deadlines.load(Ordering::Relaxed),
            lies: self.lies.load(Ordering::Relaxed),
            instances: self.instances.load(Ordering::Relaxed),
            memory_bytes: self.memory_bytes.load(Ordering::Relaxed),
            log_lines_dropped: self.log_lines_dropped.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn call(&self, ns: u64) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.guest_ns.fetch_add(ns, Ordering::Relaxed);
    }

    pub(crate) fn trap(&self, deadline: bool) {
        self.traps.fetch_add(1, Ordering::Relaxed);
        self.deadlines
            .fetch_add(u64::from(deadline), Ordering::Relaxed);
    }

    pub(crate) fn lie(&self) {
        self.lies.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn instance(&self) {
        self.instances.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn memory(&self, bytes: usize) {
        self.memory_bytes.fetch_max(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn log_line_dropped(&self) {
        self.log_lines_dropped.fetch_add(1, Ordering::Relaxed);
    }
}
