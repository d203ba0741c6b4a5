//! One watch cache per kind, whoever asks: the objects, their indexes, and the revision that they are the state at.
//!
//! Invariant: listeners hear of a change after the cache shows it, so whoever is told can read at least that state.

mod store;
mod task;

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;
use oarlock_client::{Cluster, Object};
use oarlock_model::Gvr;
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

pub use store::{ObjectStore, Selection, project};

/// What a listener is told. `old` is absent for new objects, `new` for deleted ones.
#[derive(Clone, Debug)]
pub struct Change {
    pub old: Option<Object>,
    pub new: Option<Object>,
}

/// Called in the cache's own task: must be quick and must not block.
pub trait Listener: Send + Sync {
    fn changed(&self, kind: &Gvr, change: &Change);
}

/// How much of each object is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Depth {
    /// `apiVersion`, `kind` and `metadata` without managed fields.
    Metadata,
    Full,
}

pub struct KindCache {
    pub kind: Gvr,
    pub depth: Depth,
    store: RwLock<ObjectStore>,
    listeners: Mutex<Vec<Arc<dyn Listener>>>,
    /// The revision reached; 0 before the first list.
    revision: watch::Sender<u64>,
}

impl KindCache {
    fn new(kind: Gvr, depth: Depth) -> Self {
        let indexed = kind.group.is_empty() && kind.resource == "pods";
        Self {
            kind,
            depth,
            store: RwLock::new(ObjectStore::new(indexed)),
            listeners: Mutex::default(),
            revision: watch::Sender::new(0),
        }
    }

    /// Runs a read. Must not block.
    pub fn read<R>(&self, reader: impl FnOnce(&ObjectStore) -> R) -> R {
        reader(&self.store.read())
    }

    pub fn is_synced(&self) -> bool {
        *self.revision.borrow() > 0
    }

    /// Waits until the cache is at least as new as `revision` (1: until it has been filled).
    pub async fn reached(&self, revision: u64) {
        let mut receiver = self.revision.subscribe();
        // The sender lives as long as this cache.
        let _seen = receiver.wait_for(|at| *at >= revision).await;
    }

    /// Waits until `holds`, which is asked again after every change.
    pub async fn until(&self, holds: impl Fn(&ObjectStore) -> bool) {
        let mut receiver = self.revision.subscribe();
        loop {
            if self.read(&holds) {
                return;
            }
            if receiver.changed().await.is_err() {
                return;
            }
        }
    }

    /// Tells `listener` of everything that is here, and of every change from now on, without a gap.
    pub fn listen(&self, listener: Arc<dyn Listener>) {
        let mut listeners = self.listeners.lock();
        let objects = self.read(ObjectStore::all);
        for object in objects {
            listener.changed(
                &self.kind,
                &Change {
                    old: None,
                    new: Some(object),
                },
            );
        }
        listeners.push(listener);
    }

    pub fn unlisten(&self, listener: &Arc<dyn Listener>) {
        self.listeners
            .lock()
            .retain(|known| !Arc::ptr_eq(known, listener));
    }

    /// Takes in changes, in order, and tells the listeners.
    fn apply(&self, changes: Vec<task::Incoming>, revision: u64) {
        // Held over the whole step: a listener that joins meanwhile must hear of each object once.
        let listeners = self.listeners.lock();
        let changes: Vec<Change> = {
            let mut store = self.store.write();
            changes
                .into_iter()
                .filter_map(|incoming| store.apply(incoming))
                .collect()
        };
        for change in &changes {
            for listener in listeners.iter() {
                listener.changed(&self.kind, change);
            }
        }
        drop(listeners);
        self.revision.send_if_modified(|at| {
            let newer = revision > *at;
            *at = revision.max(*at);
            newer || !changes.is_empty()
        });
    }
}

/// All caches, started when first asked for.
pub struct Caches {
    cluster: Arc<dyn Cluster>,
    kinds: Mutex<HashMap<Gvr, Running, RandomState>>,
}

struct Running {
    cache: Arc<KindCache>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Caches {
    pub fn new(cluster: Arc<dyn Cluster>) -> Self {
        Self {
            cluster,
            kinds: Mutex::default(),
        }
    }

    /// The cache of a kind, of at least this depth. Must be called within a tokio runtime.
    /// A shallow cache is never deepened in place: ask for full ones first.
    pub fn open(&self, kind: &Gvr, depth: Depth) -> Arc<KindCache> {
        let mut kinds = self.kinds.lock();
        if let Some(running) = kinds.get(kind)
            && running.cache.depth >= depth
        {
            return Arc::clone(&running.cache);
        }
        let cache = Arc::new(KindCache::new(kind.clone(), depth));
        let task = tokio::spawn(task::run(Arc::clone(&self.cluster), Arc::clone(&cache)));
        let replaced = kinds.insert(
            kind.clone(),
            Running {
                cache: Arc::clone(&cache),
                task,
            },
        );
        if let Some(replaced) = replaced {
            // Listeners of the shallow cache go on with the full one; they hear of every object once more.
            let listeners = std::mem::take(&mut *replaced.cache.listeners.lock());
            for listener in listeners {
                cache.listen(listener);
            }
        }
        cache
    }

    /// The cache of a kind, if it runs.
    pub fn get(&self, kind: &Gvr) -> Option<Arc<KindCache>> {
        self.kinds
            .lock()
            .get(kind)
            .map(|running| Arc::clone(&running.cache))
    }

    pub fn all(&self) -> Vec<Arc<KindCache>> {
        self.kinds
            .lock()
            .values()
            .map(|running| Arc::clone(&running.cache))
            .collect()
    }
}
