//! `Reflector`: a cache of one kind kept up to date by list and watch, and the deltas that it saw.
//!
//! The cache is always at least as new as the last delta handed out. A delta is sent exactly once for each change that
//! the cache went through; changes missed while the watch was down are found by comparing with a new list.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use oarlock_model::{ApiError, Gvr, Reason, meta};
use parking_lot::RwLock;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;

use crate::{Cluster, Key, ListQuery, Object, WatchEvent};

/// How many deltas may wait for their reader before the reflector stops reading events.
pub const MAX_WAITING_DELTAS: usize = 8192;
/// How many events are taken into the cache at once.
const MAX_BATCH: usize = 512;
const MIN_BACKOFF: Duration = Duration::from_millis(100);
const MAX_BACKOFF: Duration = Duration::from_secs(5);

#[derive(Clone, Debug)]
pub enum Delta {
    Added(Object),
    Updated {
        old: Object,
        new: Object,
    },
    /// The last state.
    Deleted(Object),
    /// Sent once, behind the `Added` of everything that the first list held.
    Synced,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Progress {
    synced: bool,
    revision: u64,
}

/// Objects by key. Reading copies an `Arc`.
#[derive(Debug)]
pub struct Cache {
    objects: RwLock<HashMap<Key, Object>>,
    progress: watch::Sender<Progress>,
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            objects: RwLock::default(),
            progress: watch::Sender::new(Progress::default()),
        }
    }
}

impl Cache {
    pub fn get(&self, key: &Key) -> Option<Object> {
        self.objects.read().get(key).map(Arc::clone)
    }

    /// In no order.
    pub fn list(&self) -> Vec<Object> {
        self.objects.read().values().map(Arc::clone).collect()
    }

    pub fn len(&self) -> usize {
        self.objects.read().len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The resourceVersion up to which events have been seen.
    pub fn revision(&self) -> u64 {
        self.progress.borrow().revision
    }

    pub fn is_synced(&self) -> bool {
        self.progress.borrow().synced
    }

    /// Waits until the first list is in.
    pub async fn synced(&self) {
        self.wait(|progress| progress.synced).await;
    }

    /// Waits until `revision` has been seen. Cancel-safe.
    pub async fn reached(&self, revision: u64) {
        self.wait(|progress| progress.synced && progress.revision >= revision)
            .await;
    }

    async fn wait(&self, met: impl FnMut(&Progress) -> bool) {
        // The sender lives in `self`, so waiting cannot fail.
        let mut progress = self.progress.subscribe();
        let _closed = progress.wait_for(met).await;
    }

    fn advance(&self, revision: u64, synced: bool) {
        self.progress.send_if_modified(|progress| {
            let next = Progress {
                synced: progress.synced || synced,
                revision: progress.revision.max(revision),
            };
            let changed = next != *progress;
            *progress = next;
            changed
        });
    }

    /// Makes the cache equal to a list; deltas in no order.
    fn replace(&self, items: Vec<Object>) -> Vec<Delta> {
        let mut deltas = Vec::new();
        let mut objects = self.objects.write();
        let mut listed: HashSet<Key> = HashSet::with_capacity(items.len());
        for new in items {
            let key = key_of(&new);
            listed.insert(key.clone());
            deltas.extend(put(&mut objects, key, new));
        }
        let gone: Vec<Key> = objects
            .keys()
            .filter(|key| !listed.contains(*key))
            .cloned()
            .collect();
        deltas.extend(
            gone.iter()
                .filter_map(|key| objects.remove(key))
                .map(Delta::Deleted),
        );
        deltas
    }

    fn apply(&self, events: Vec<WatchEvent>) -> (Vec<Delta>, u64) {
        let mut deltas = Vec::with_capacity(events.len());
        let mut revision = 0;
        let mut objects = self.objects.write();
        for event in events {
            match event {
                WatchEvent::Added(new) | WatchEvent::Modified(new) => {
                    revision = revision.max(revision_of(&new));
                    deltas.extend(put(&mut objects, key_of(&new), new));
                }
                WatchEvent::Deleted(last) => {
                    revision = revision.max(revision_of(&last));
                    if objects.remove(&key_of(&last)).is_some() {
                        deltas.push(Delta::Deleted(last));
                    }
                }
                WatchEvent::Bookmark(at) => revision = revision.max(at),
            }
        }
        (deltas, revision)
    }
}

fn put(objects: &mut HashMap<Key, Object>, key: Key, new: Object) -> Option<Delta> {
    match objects.insert(key, Arc::clone(&new)) {
        None => Some(Delta::Added(new)),
        Some(old) if meta::resource_version(&old) == meta::resource_version(&new) => None,
        // Deleted and made again while nobody looked.
        Some(old) => Some(Delta::Updated { old, new }),
    }
}

fn key_of(object: &Object) -> Key {
    Key {
        namespace: meta::namespace(object).to_owned(),
        name: meta::name(object).to_owned(),
    }
}

fn revision_of(object: &Object) -> u64 {
    meta::resource_version(object).parse().unwrap_or(0)
}

/// A running reflector; dropping it stops the task. Its parts may be taken out, but the task lives as long as `task`.
#[derive(Debug)]
pub struct Reflector {
    pub cache: Arc<Cache>,
    pub deltas: mpsc::Receiver<Delta>,
    pub task: ReflectorTask,
}

/// A running reflector without deltas; dropping it stops the task.
#[derive(Debug)]
pub struct CacheHandle {
    pub cache: Arc<Cache>,
    pub task: ReflectorTask,
}

/// Stops the reflector when it is dropped.
#[derive(Debug)]
pub struct ReflectorTask(AbortHandle);

impl Drop for ReflectorTask {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Reflector {
    /// Starts the task on the current tokio runtime. Deltas are best read with `deltas.recv_many`. Once `deltas` is
    /// dropped, only the cache goes on.
    pub fn start(cluster: Arc<dyn Cluster>, kind: Gvr, query: ListQuery) -> Self {
        let (sender, deltas) = mpsc::channel(MAX_WAITING_DELTAS);
        let CacheHandle { cache, task } = spawn(cluster, kind, query, Sink::Channel(sender));
        Self {
            cache,
            deltas,
            task,
        }
    }

    /// Only the cache.
    pub fn start_cache(cluster: Arc<dyn Cluster>, kind: Gvr, query: ListQuery) -> CacheHandle {
        spawn(cluster, kind, query, Sink::Nobody)
    }

    /// Calls `handler` with every delta, in order, from the reflector's task; it must not block.
    pub fn start_with(
        cluster: Arc<dyn Cluster>,
        kind: Gvr,
        query: ListQuery,
        handler: impl FnMut(Delta) + Send + 'static,
    ) -> CacheHandle {
        spawn(cluster, kind, query, Sink::Handler(Box::new(handler)))
    }
}

fn spawn(cluster: Arc<dyn Cluster>, kind: Gvr, query: ListQuery, sink: Sink) -> CacheHandle {
    let cache = Arc::new(Cache::default());
    let worker = Worker {
        cluster,
        kind,
        query,
        cache: Arc::clone(&cache),
        sink,
    };
    let task = ReflectorTask(tokio::spawn(worker.run()).abort_handle());
    CacheHandle { cache, task }
}

enum Sink {
    Channel(mpsc::Sender<Delta>),
    Handler(Box<dyn FnMut(Delta) + Send>),
    Nobody,
}

impl Sink {
    async fn send(&mut self, deltas: Vec<Delta>) {
        for delta in deltas {
            match self {
                Self::Channel(sender) => {
                    if sender.send(delta).await.is_err() {
                        *self = Self::Nobody;
                        return;
                    }
                }
                Self::Handler(handler) => handler(delta),
                Self::Nobody => return,
            }
        }
    }
}

struct Worker {
    cluster: Arc<dyn Cluster>,
    kind: Gvr,
    query: ListQuery,
    cache: Arc<Cache>,
    sink: Sink,
}

impl Worker {
    async fn run(mut self) {
        let mut backoff = MIN_BACKOFF;
        loop {
            match self.list().await {
                Ok(()) => {
                    backoff = MIN_BACKOFF;
                    self.follow().await;
                }
                Err(error) => {
                    tracing::warn!(resource = %self.kind, %error, "cannot list; trying again");
                    pause(&mut backoff).await;
                }
            }
        }
    }

    async fn list(&mut self) -> Result<(), ApiError> {
        let list = self.cluster.list(&self.kind, &self.query).await?;
        let mut deltas = self.cache.replace(list.items);
        if !self.cache.is_synced() {
            deltas.push(Delta::Synced);
        }
        self.cache.advance(list.revision, true);
        self.sink.send(deltas).await;
        Ok(())
    }

    /// Watches from where the cache is, again and again, until only a new list helps.
    async fn follow(&mut self) {
        let mut backoff = MIN_BACKOFF;
        loop {
            let error = match self
                .cluster
                .watch(&self.kind, &self.query, self.cache.revision())
                .await
            {
                Ok(events) => {
                    let mut chunks = events.ready_chunks(MAX_BATCH);
                    let mut failed = None;
                    while let Some(chunk) = chunks.next().await {
                        backoff = MIN_BACKOFF;
                        let mut good = Vec::with_capacity(chunk.len());
                        for event in chunk {
                            match event {
                                Ok(event) => good.push(event),
                                Err(error) => failed = Some(error),
                            }
                        }
                        let (deltas, revision) = self.cache.apply(good);
                        self.cache.advance(revision, false);
                        self.sink.send(deltas).await;
                        if failed.is_some() {
                            break;
                        }
                    }
                    failed
                }
                Err(error) => Some(error),
            };
            match error {
                Some(error) if matches!(error.reason, Reason::Expired | Reason::Gone) => {
                    tracing::debug!(resource = %self.kind, %error, "the watch cannot go on; listing again");
                    return;
                }
                Some(error) => {
                    tracing::debug!(resource = %self.kind, %error, "the watch failed; going on");
                }
                None => {}
            }
            pause(&mut backoff).await;
        }
    }
}

async fn pause(backoff: &mut Duration) {
    tokio::time::sleep(*backoff).await;
    *backoff = (*backoff * 2).min(MAX_BACKOFF);
}
