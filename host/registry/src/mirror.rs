//! What is made of some kinds' objects and kept: before each look what has been committed since is taken in, so that it holds
//! for everything that begins after the objects' own writes were acknowledged.
//!
//! Cost of a look when nothing has changed: a lock and a poll of each kind's watch, well below a microsecond.

use std::sync::Arc;

use arc_swap::ArcSwap;
use futures::FutureExt as _;
use oarlock_store::{RangeQuery, Record, Store, Watch};
use parking_lot::Mutex;
use serde_json::Value;

use crate::codec::tree;

/// Events that are taken in at once.
const MAX_BATCH: usize = 64;

/// What is made of the objects.
pub(crate) trait Fold: Send {
    type Made: Default + Send + Sync;

    /// Everything is about to be told anew.
    fn clear(&mut self);
    /// An object of the kind at `of` in the list of prefixes; `None`: it is gone.
    fn put(&mut self, of: usize, name: &str, object: Option<Value>);
    fn made(&self) -> Self::Made;
}

pub(crate) struct Mirror<F: Fold> {
    store: Arc<dyn Store>,
    prefixes: Vec<String>,
    feed: Mutex<Feed<F>>,
    current: ArcSwap<F::Made>,
}

struct Feed<F> {
    fold: F,
    /// One for each prefix; none: everything is to be read anew.
    watches: Vec<Box<dyn Watch>>,
}

impl<F: Fold> std::fmt::Debug for Mirror<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mirror")
            .field("prefixes", &self.prefixes)
            .finish_non_exhaustive()
    }
}

impl<F: Fold> Mirror<F> {
    pub fn new(store: Arc<dyn Store>, prefixes: Vec<String>, fold: F) -> Self {
        Self {
            store,
            prefixes,
            feed: Mutex::new(Feed {
                fold,
                watches: Vec::new(),
            }),
            current: ArcSwap::default(),
        }
    }

    /// As things are now.
    pub fn current(&self) -> Arc<F::Made> {
        let mut feed = self.feed.lock();
        if self.take_in(&mut feed) {
            self.current.store(Arc::new(feed.fold.made()));
        }
        self.current.load_full()
    }

    /// True if something has changed.
    fn take_in(&self, feed: &mut Feed<F>) -> bool {
        let mut changed = false;
        loop {
            if feed.watches.is_empty() {
                self.read_anew(feed);
                return true;
            }
            let mut idle = true;
            let mut broken = false;
            for (of, watch) in feed.watches.iter_mut().enumerate() {
                match watch.next(MAX_BATCH).now_or_never() {
                    None => {}
                    Some(Ok(batch)) => {
                        idle = false;
                        for event in &batch.events {
                            let record = event.after.as_deref();
                            put(&mut feed.fold, of, &self.prefixes[of], &event.key, record);
                            changed = true;
                        }
                    }
                    Some(Err(_)) => broken = true,
                }
            }
            if broken {
                feed.watches.clear();
            } else if idle {
                return changed;
            }
        }
    }

    fn read_anew(&self, feed: &mut Feed<F>) {
        feed.fold.clear();
        let after = self.store.revision();
        let watches = self.prefixes.iter().map(|p| self.store.watch(p, after));
        feed.watches = watches.collect::<Result<_, _>>().unwrap_or_default();
        for (of, prefix) in self.prefixes.iter().enumerate() {
            let query = RangeQuery {
                prefix: prefix.clone(),
                at: Some(after),
                ..RangeQuery::default()
            };
            let page = self.store.range(&query).map(|page| page.records);
            for record in page.unwrap_or_default() {
                put(&mut feed.fold, of, prefix, &record.key, Some(&record));
            }
        }
    }
}

fn put<F: Fold>(fold: &mut F, of: usize, prefix: &str, key: &str, record: Option<&Record>) {
    if let Some(name) = key.strip_prefix(prefix) {
        let object = record.and_then(|record| tree(&record.value).ok());
        fold.put(of, name, object);
    }
}
