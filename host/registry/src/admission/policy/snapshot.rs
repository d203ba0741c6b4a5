//! The compiled policies of one kind, with their bindings.

use std::collections::BTreeMap;
use std::sync::Arc;

use oarlock_kinds::Kinds;
use oarlock_store::Store;
use serde_json::Value;

use super::compiled::{Binding, Policy};
use super::is_judged;
use crate::admission::Operation;
use crate::mirror::{Fold, Mirror};
use crate::{Target, keys};

const GROUP: &str = "admissionregistration.k8s.io";

/// Policies that have bindings, by name.
type Policies = Vec<(Arc<Policy>, Vec<Arc<Binding>>)>;

#[derive(Debug)]
pub(super) struct Snapshot(Mirror<Feed>);

struct Feed {
    compile: fn(&Value) -> Policy,
    policies: BTreeMap<String, Arc<Policy>>,
    bindings: BTreeMap<String, Arc<Binding>>,
}

impl Snapshot {
    /// `None`: there are no such kinds.
    fn new(
        store: &Arc<dyn Store>,
        kinds: &Kinds,
        names: [&str; 2],
        compile: fn(&Value) -> Policy,
    ) -> Option<Self> {
        let prefixes = names.iter().map(|name| {
            let row = kinds.resource(GROUP, "v1", name)?;
            Some(keys::prefix(&row, ""))
        });
        let feed = Feed {
            compile,
            policies: BTreeMap::new(),
            bindings: BTreeMap::new(),
        };
        Some(Self(Mirror::new(
            Arc::clone(store),
            prefixes.collect::<Option<_>>()?,
            feed,
        )))
    }

    pub fn validating(store: &Arc<dyn Store>, kinds: &Kinds) -> Option<Self> {
        let names = [
            "validatingadmissionpolicies",
            "validatingadmissionpolicybindings",
        ];
        Self::new(store, kinds, names, Policy::validating)
    }

    pub fn mutating(store: &Arc<dyn Store>, kinds: &Kinds) -> Option<Self> {
        let names = [
            "mutatingadmissionpolicies",
            "mutatingadmissionpolicybindings",
        ];
        Self::new(store, kinds, names, Policy::mutating)
    }

    /// The policies as they are now.
    pub fn current(&self) -> Arc<Policies> {
        self.0.current()
    }

    /// Whether a policy may look at such a request.
    pub fn handles(&self, target: &Target, operation: Operation) -> bool {
        let policies = self.current();
        !policies.is_empty()
            && is_judged(target)
            && policies
                .iter()
                .any(|(policy, _)| policy.matching.may_fit(target, operation))
    }
}

impl Fold for Feed {
    type Made = Policies;

    fn clear(&mut self) {
        self.policies.clear();
        self.bindings.clear();
    }

    fn put(&mut self, of: usize, name: &str, object: Option<Value>) {
        match (of, object) {
            (0, Some(object)) => {
                let policy = Arc::new((self.compile)(&object));
                self.policies.insert(name.to_owned(), policy);
            }
            (0, None) => drop(self.policies.remove(name)),
            (_, Some(object)) => {
                let binding = Arc::new(Binding::of(&object));
                self.bindings.insert(name.to_owned(), binding);
            }
            (_, None) => drop(self.bindings.remove(name)),
        }
    }

    fn made(&self) -> Policies {
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
