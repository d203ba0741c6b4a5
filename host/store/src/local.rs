//! The store of one process: memory in front, a committer behind, with or without a disk.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use crate::committer::{Clock, Committer, Queue, QueueLimits};
use crate::disk::{Disk, Loaded, NoDisk, PathFile, RowLog};
use crate::history::HistoryLimits;
use crate::memory::Memory;
use crate::{
    Backend, Committed, Op, OpenError, Page, RangeQuery, ReadError, Record, Revision, Store,
    StoreOptions, TxnError, Watch,
};

/// Opens a store. Reads the whole data file, so it may take a while: call it from a thread that may block.
pub fn open(options: StoreOptions) -> Result<Arc<dyn Store>, OpenError> {
    let limits = history_limits(&options);
    let (disk, loaded): (Box<dyn Disk>, Loaded) = match &options.backend {
        Backend::Memory => (Box::new(NoDisk), Loaded::default()),
        Backend::Redb { path } => {
            let (log, loaded) = RowLog::open(Box::new(PathFile(path.clone())), limits)?;
            (Box::new(log), loaded)
        }
    };
    Ok(Arc::new(LocalStore::start(&options, disk, loaded)?))
}

pub(crate) fn history_limits(options: &StoreOptions) -> HistoryLimits {
    HistoryLimits {
        window_ms: options.history_window.as_millis() as u64,
        bytes: options.max_history_bytes,
        events: options.max_history_events,
    }
}

pub(crate) struct LocalStore {
    memory: Arc<Memory>,
    queue: Arc<Queue>,
}

impl LocalStore {
    pub(crate) fn start(
        options: &StoreOptions,
        disk: Box<dyn Disk>,
        loaded: Loaded,
    ) -> Result<Self, OpenError> {
        let clock = Clock::start();
        let limits = history_limits(options);
        let memory = Arc::new(Memory::new(
            loaded.snapshot,
            loaded.history,
            loaded.oldest,
            limits,
            clock.now_ms(),
        ));
        let queue = Arc::new(Queue::new(QueueLimits {
            txns: options.max_queued_txns,
            bytes: options.max_queued_bytes,
        }));
        let committer = Committer::new(
            Arc::clone(&queue),
            Arc::clone(&memory),
            disk,
            clock,
            options.history_window,
        );
        std::thread::Builder::new()
            .name("store-committer".into())
            .spawn(move || committer.run())
            .map_err(|error| OpenError::Io(format!("cannot start the committer: {error}")))?;
        Ok(Self { memory, queue })
    }
}

impl fmt::Debug for LocalStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalStore")
            .field("revision", &self.memory.revision())
            .field("oldest", &self.memory.oldest())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Store for LocalStore {
    fn revision(&self) -> Revision {
        self.memory.revision()
    }

    async fn barrier(&self) -> Result<(), TxnError> {
        // A write is published before it is acknowledged.
        Ok(())
    }

    async fn reached(&self, revision: Revision) {
        self.memory.reached(revision).await;
    }

    fn get(&self, key: &str) -> Option<Arc<Record>> {
        self.memory.snapshot().get(key).cloned()
    }

    fn get_at(&self, key: &str, at: Revision) -> Result<Option<Arc<Record>>, ReadError> {
        self.memory.get_at(key, at)
    }

    fn range(&self, query: &RangeQuery) -> Result<Page, ReadError> {
        self.memory.range(query)
    }

    fn count(&self, prefix: &str) -> usize {
        self.memory.snapshot().count(prefix)
    }

    async fn commit(&self, ops: Vec<Op>) -> Result<Committed, TxnError> {
        let answer = self.queue.push(ops)?;
        answer.await.unwrap_or(Err(TxnError::Closed))
    }

    fn watch(&self, prefix: &str, after: Revision) -> Result<Box<dyn Watch>, ReadError> {
        Ok(Box::new(self.memory.watch(prefix, after)?))
    }

    fn compact(&self, revision: Revision) {
        self.memory.compact(revision);
    }

    fn oldest(&self) -> Revision {
        self.memory.oldest()
    }

    async fn close(&self) {
        self.queue.close();
        self.queue.finished().await;
    }
}

impl Drop for LocalStore {
    fn drop(&mut self) {
        self.queue.close();
    }
}
