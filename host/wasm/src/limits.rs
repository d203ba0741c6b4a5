//! What one instance of a plugin may use.
//!
//! Invariant: a limit is enforced by the engine while the guest runs, never only checked afterwards.

use std::sync::Arc;

use wasmtime::ResourceLimiter;

use crate::Meter;

/// The most linear memory that any limit may grant: the size of a slot in the pool.
pub const MAX_MEMORY_MIB: usize = 1024;
/// The most table elements that any limit may grant.
pub const MAX_TABLE_ELEMENTS: usize = 65_536;

/// Limits of one instance. The defaults suit a plugin for a cluster of 5,000 nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Linear memory, at most [`MAX_MEMORY_MIB`].
    pub memory_mib: usize,
    /// Elements in each table, at most [`MAX_TABLE_ELEMENTS`].
    pub table_elements: usize,
    /// Time for one call, without the time that the host itself takes to answer the guest. In steps of 10 ms.
    pub deadline_ms: u64,
    /// Bytes that one answer of the guest may make the host copy.
    pub answer_bytes: usize,
    /// Log lines a second, on average; the rest is counted and dropped.
    pub log_lines_per_second: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_mib: 256,
            table_elements: 20_000,
            deadline_ms: 1_000,
            answer_bytes: 64 << 20,
            log_lines_per_second: 50,
        }
    }
}

/// The engine asks this before it lets a guest grow.
pub(crate) struct Limiter {
    memory_bytes: usize,
    table_elements: usize,
    meter: Arc<Meter>,
    /// Whether memory was refused since the last call began: a trap that follows is blamed on it.
    pub(crate) memory_refused: bool,
}

impl Limiter {
    pub(crate) fn new(limits: &Limits, meter: Arc<Meter>) -> Self {
        Self {
            memory_bytes: limits.memory_mib.min(MAX_MEMORY_MIB) << 20,
            table_elements: limits.table_elements.min(MAX_TABLE_ELEMENTS),
            meter,
            memory_refused: false,
        }
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let granted = desired <= self.memory_bytes;
        if granted {
            self.meter.memory(desired);
        } else {
            self.memory_refused = true;
        }
        Ok(granted)
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(desired <= self.table_elements)
    }

    fn instances(&self) -> usize {
        MAX_CORE_INSTANCES
    }

    fn tables(&self) -> usize {
        MAX_CORE_INSTANCES
    }

    fn memories(&self) -> usize {
        MAX_MEMORIES
    }
}

/// Core instances (and tables) that one component may be made of.
pub(crate) const MAX_CORE_INSTANCES: usize = 32;
/// Linear memories that one component may have. Each is limited by itself, so there is one.
pub(crate) const MAX_MEMORIES: usize = 1;
