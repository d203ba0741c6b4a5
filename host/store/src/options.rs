//! What a store is opened with, and why opening can fail.

use std::path::PathBuf;
use std::time::Duration;

/// How long history is kept by default: the window in which a watch or a list may resume.
pub const DEFAULT_HISTORY_WINDOW: Duration = Duration::from_secs(5 * 60);
/// How many bytes history may pin by default: superseded values and the events themselves.
pub const DEFAULT_MAX_HISTORY_BYTES: usize = 64 << 20;
/// How many events are kept by default.
pub const DEFAULT_MAX_HISTORY_EVENTS: usize = 200_000;
/// How many transactions may wait for the committer by default.
pub const DEFAULT_MAX_QUEUED_TXNS: usize = 16_384;
/// How many bytes of keys and values may wait for the committer by default.
pub const DEFAULT_MAX_QUEUED_BYTES: usize = 64 << 20;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backend {
    /// Nothing outlives the process.
    Memory,
    /// One redb file; every acknowledged write is on the disk.
    Redb { path: PathBuf },
}

#[derive(Clone, Debug)]
pub struct StoreOptions {
    pub backend: Backend,
    /// Events older than this are forgotten.
    pub history_window: Duration,
    pub max_history_bytes: usize,
    pub max_history_events: usize,
    /// Beyond these two, commits are refused with `Overloaded`.
    pub max_queued_txns: usize,
    pub max_queued_bytes: usize,
}

impl StoreOptions {
    pub fn new(backend: Backend) -> Self {
        Self {
            backend,
            history_window: DEFAULT_HISTORY_WINDOW,
            max_history_bytes: DEFAULT_MAX_HISTORY_BYTES,
            max_history_events: DEFAULT_MAX_HISTORY_EVENTS,
            max_queued_txns: DEFAULT_MAX_QUEUED_TXNS,
            max_queued_bytes: DEFAULT_MAX_QUEUED_BYTES,
        }
    }

    pub fn memory() -> Self {
        Self::new(Backend::Memory)
    }

    pub fn redb(path: impl Into<PathBuf>) -> Self {
        Self::new(Backend::Redb { path: path.into() })
    }
}

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process (or another store of this one) has the file open.
    #[error("the data file {path} is in use by another process")]
    InUse { path: PathBuf },
    /// The file is no store of ours, or it is damaged, or a newer version wrote it.
    #[error("the data file cannot be read: {0}")]
    Corrupt(String),
    #[error("the data file cannot be opened: {0}")]
    Io(String),
}
