//! The kinds as this server looks them up: by the text of a group version and a resource, without allocating.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, OnceLock};

use oarlock_kinds::{Kinds, Row};

use crate::discovery::Discovery;

/// A kind that is served, with its number in the metrics.
#[derive(Debug)]
pub(crate) struct ServedKind {
    pub row: Arc<Row>,
    pub number: u32,
}

/// Made once for each table of kinds.
#[derive(Debug)]
pub(crate) struct Served {
    by_group_version: HashMap<String, HashMap<String, ServedKind>>,
    groups: HashSet<String>,
    kinds: Arc<Kinds>,
    discovery: OnceLock<Discovery>,
}

impl Served {
    pub fn new(kinds: &Arc<Kinds>) -> Self {
        let mut by_group_version: HashMap<String, HashMap<String, ServedKind>> = HashMap::new();
        let mut groups = HashSet::new();
        for (row, number) in kinds.rows().iter().zip(0..) {
            groups.insert(row.group.clone());
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
