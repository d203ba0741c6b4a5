//! The compiled policies of one kind, with their bindings. Follows the store's events: before each request what has been
//! committed since is taken in, so that a policy holds for every write that begins after its own write was acknowledged.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use futures::FutureExt as _;
use oarlock_kinds::Kinds;
use oarlock_store::{RangeQuery, Record, Store, Watch};
use parking_lot::Mutex;
use serde_json::Value;

use super::compiled::{Binding, Policy};
use super::is_judged;
use crate::admission::Operation;
use crate::codec::tree;
use crate::{Target, keys};

/// Which policies: the storage prefixes of policies and bindings.
#[derive(Debug)]
pub(super) struct Of {
    policies: String,
    bindings: String,
    compile: fn(&Value) -> Policy,
}

const GROUP: &str = "admissionregistration.k8s.io";

impl Of {
    /// `None`: there are no such kinds.
    fn new(kinds: &Kinds, names: [&str; 2], compile: fn(&Value) -> Policy) -> Option<Self> {
        let [policies, bindings] = names.map(|name| {
            let row = kinds.resource(GROUP, "v1", name)?;
            Some(keys::prefix(&row, ""))
        });
        Some(Self {
            policies: policies?,
            bindings: bindings?,
            compile,
        })
    }

    pub fn validating(kinds: &Kinds) -> Option<Self> {
        let names = [
            "validatingadmissionpolicies",
            "validatingadmissionpolicybindings",
        ];
        Self::new(kinds, names, Policy::validating)
    }

    pub fn mutating(kinds: &Kinds) -> Option<Self> {
        let names = [
            "mutatingadmissionpolicies",
            "mutatingadmissionpolicybindings",
        ];
        Self::new(kinds, names, Policy::mutating)
    }
}

/// Policies that have bindings, by name.
type Policies = Vec<(Arc<Policy>, Vec<Arc<Binding>>)>;

/// Events that are taken in at once.
const MAX_BATCH: usize = 64;

pub(super) struct Snapshot {
    store: Arc<dyn Store>,
    of: Of,
    feed: Mutex<Feed>,
    current: ArcSwap<Policies>,
    /// There is something in `current`.
    any: AtomicBool,
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshot").field("of", &self.of).finish()
    }
}

#[derive(Default)]
struct Feed {
    policies: BTreeMap<String, Arc<Policy>>,
    bindings: BTreeMap<String, Arc<Binding>>,
    /// Of policies and of bindings; `None`: everything is to be read anew.
    watches: Option<[Box<dyn Watch>; 2]>,
}

impl Snapshot {
    pub fn new(store: Arc<dyn Store>, of: Of) -> Self {
        Self {
            store,
            of,
            feed: Mutex::default(),
            current: ArcSwap::default(),
            any: AtomicBool::new(false),
        }
    }

    /// The policies as they are now.
    pub fn current(&self) -> Arc<Policies> {
        self.refresh();
        self.current.load_full()
    }

    /// Whether a policy may look at such a request.
    pub fn handles(&self, target: &Target, operation: Operation) -> bool {
        self.refresh();
        self.any.load(Ordering::Acquire)
            && is_judged(target)
            && self
                .current
                .load()
                .iter()
                .any(|(policy, _)| policy.matching.may_fit(target, operation))
    }

    fn refresh(&self) {
        let mut feed = self.feed.lock();
        if feed.take_in(&self.store, &self.of) {
            let current = feed.joined();
            self.any.store(!current.is_empty(), Ordering::Release);
            self.current.store(Arc::new(current));
        }
    }
}

impl Feed {
    /// True if something has changed.
    fn take_in(&mut self, store: &Arc<dyn Store>, of: &Of) -> bool {
        let mut changed = false;
        loop {
            let Some(watches) = &mut self.watches else {
                self.read_anew(store, of);
                return true;
            };
            let mut batches = Vec::new();
            for watch in watches.iter_mut() {
                match watch.next(MAX_BATCH).now_or_never() {
                    None => {}
                    Some(Ok(batch)) => batches.push(batch),
                    Some(Err(_)) => {
                        self.watches = None;
                        break;
                    }
                }
            }
            if self.watches.is_some() && batches.is_empty() {
                return changed;
            }
            for event in batches.iter().flat_map(|batch| &batch.events) {
                self.put(of, &event.key, event.after.as_deref());
                changed = true;
            }
        }
    }

    fn read_anew(&mut self, store: &Arc<dyn Store>, of: &Of) {
        self.policies.clear();
        self.bindings.clear();
        let after = store.revision();
        let watch = |prefix: &str| store.watch(prefix, after).ok();
        self.watches = watch(&of.policies)
            .zip(watch(&of.bindings))
            .map(|(policies, bindings)| [policies, bindings]);
        for prefix in [&of.policies, &of.bindings] {
            let query = RangeQuery {
                prefix: prefix.clone(),
                at: Some(after),
                ..RangeQuery::default()
            };
            for record in store
                .range(&query)
                .map(|page| page.records)
                .unwrap_or_default()
            {
                self.put(of, &record.key, Some(&record));
            }
        }
    }

    fn put(&mut self, of: &Of, key: &str, record: Option<&Record>) {
        let object = record.and_then(|record| tree(&record.value).ok());
        if let Some(name) = key.strip_prefix(&of.policies) {
            match object {
                Some(object) => {
                    let policy = Arc::new((of.compile)(&object));
                    self.policies.insert(name.to_owned(), policy);
                }
                None => drop(self.policies.remove(name)),
            }
        } else if let Some(name) = key.strip_prefix(&of.bindings) {
            match object {
                Some(object) => {
                    let binding = Arc::new(Binding::of(&object));
                    self.bindings.insert(name.to_owned(), binding);
                }
                None => drop(self.bindings.remove(name)),
            }
        }
    }

    fn joined(&self) -> Policies {
        let mut joined = Policies::new();
        for (name, policy) in &self.policies {
            let of = self.bindings.values().filter(|b| b.policy == *name);
            let bindings: Vec<Arc<Binding>> = of.map(Arc::clone).collect();
            if !bindings.is_empty() {
                joined.push((Arc::clone(policy), bindings));
            }
        }
        joined
    }
}
