//! The kinds as this server looks them up: by the text of a group version and a resource, without allocating.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use oarlock_kinds::{Kinds, Row};
use oarlock_model::Gvr;
use parking_lot::Mutex;

use crate::discovery::Discovery;

/// A kind that is served, with its number in the metrics.
#[derive(Debug)]
pub(crate) struct ServedKind {
    pub row: Arc<Row>,
    /// Stays with the resource whatever table it is in.
    pub number: u32,
}

/// Made once for each table of kinds.
#[derive(Debug)]
pub(crate) struct Served {
    by_group_version: HashMap<String, HashMap<String, ServedKind>>,
    /// Those of built-in kinds: below them upstream answers what it does not know with a Status.
    groups: HashSet<String>,
    kinds: Arc<Kinds>,
    discovery: OnceLock<Discovery>,
}

impl Served {
    fn new(kinds: &Arc<Kinds>, numbers: &mut HashMap<Gvr, u32>) -> Self {
        let mut by_group_version: HashMap<String, HashMap<String, ServedKind>> = HashMap::new();
        let mut groups = HashSet::new();
        for row in kinds.rows() {
            let next = u32::try_from(numbers.len()).unwrap_or(u32::MAX);
            let number = *numbers.entry(row.gvr()).or_insert(next);
            if row.custom.is_none() {
                groups.insert(row.group.clone());
            }
            by_group_version
                .entry(row.api_version())
                .or_default()
                .insert(
                    row.resource.clone(),
                    ServedKind {
                        row: Arc::clone(row),
                        number,
                    },
                );
        }
        Self {
            by_group_version,
            groups,
            kinds: Arc::clone(kinds),
            discovery: OnceLock::new(),
        }
    }

    pub fn kinds(&self) -> &Arc<Kinds> {
        &self.kinds
    }

    pub fn kind(&self, group_version: &str, resource: &str) -> Option<&ServedKind> {
        self.by_group_version.get(group_version)?.get(resource)
    }

    pub fn has_group(&self, group: &str) -> bool {
        self.groups.contains(group)
    }

    pub fn discovery(&self) -> &Discovery {
        self.discovery.get_or_init(|| Discovery::new(&self.kinds))
    }
}

/// The look-ups of the newest table. A request takes them once; they are made anew when the table has changed.
#[derive(Debug)]
pub(crate) struct Newest {
    served: ArcSwap<Served>,
    numbers: Mutex<HashMap<Gvr, u32>>,
}

impl Newest {
    pub fn new(kinds: &Arc<Kinds>) -> Self {
        let mut numbers = HashMap::new();
        Self {
            served: ArcSwap::from_pointee(Served::new(kinds, &mut numbers)),
            numbers: Mutex::new(numbers),
        }
    }

    /// Costs two reference counts while the table is the same.
    pub fn of(&self, kinds: &Arc<Kinds>) -> Arc<Served> {
        let served = self.served.load_full();
        if Arc::ptr_eq(&served.kinds, kinds) {
            return served;
        }
        let mut numbers = self.numbers.lock();
        let served = self.served.load_full();
        if Arc::ptr_eq(&served.kinds, kinds) {
            return served;
        }
        let served = Arc::new(Served::new(kinds, &mut numbers));
        self.served.store(Arc::clone(&served));
        served
    }
}
