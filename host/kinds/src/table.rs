//! `Kinds`: all kinds served now, with hash look-ups. Immutable; a changed table is a new one (rows are shared).

use std::collections::HashMap;
use std::sync::Arc;

use oarlock_model::{GroupVersion, Gvk, Gvr};

use crate::Row;

/// All kinds served now. Adding a row at run time makes a new table (`with`), so readers hold a plain `Arc<Kinds>`.
#[derive(Clone, Debug, Default)]
pub struct Kinds {
    rows: Vec<Arc<Row>>,
    by_resource: HashMap<Gvr, Arc<Row>>,
    by_kind: HashMap<Gvk, Arc<Row>>,
}

impl Kinds {
    pub fn from_rows(rows: impl IntoIterator<Item = Row>) -> Self {
        let mut kinds = Self::default();
        for row in rows {
            kinds.insert(Arc::new(row));
        }
        kinds
    }

    /// This table with one more row; a row of the same group, version and resource is replaced.
    pub fn with(&self, row: Row) -> Self {
        let mut kinds = self.clone();
        kinds.insert(Arc::new(row));
        kinds
    }

    /// This table without the row of a resource.
    pub fn without(&self, gvr: &Gvr) -> Self {
        let mut kinds = Self::default();
        for row in self.rows.iter().filter(|row| row.gvr() != *gvr) {
            kinds.insert(Arc::clone(row));
        }
        kinds
    }

    fn insert(&mut self, row: Arc<Row>) {
        let gvr = row.gvr();
        match self.rows.iter_mut().find(|r| r.gvr() == gvr) {
            Some(old) => {
                self.by_kind.remove(&old.gvk());
                *old = Arc::clone(&row);
            }
            None => self.rows.push(Arc::clone(&row)),
        }
        self.by_kind.insert(row.gvk(), Arc::clone(&row));
        self.by_resource.insert(gvr, row);
    }

    pub fn rows(&self) -> &[Arc<Row>] {
        &self.rows
    }

    pub fn by_resource(&self, gvr: &Gvr) -> Option<Arc<Row>> {
        self.by_resource.get(gvr).map(Arc::clone)
    }

    pub fn by_kind(&self, gvk: &Gvk) -> Option<Arc<Row>> {
        self.by_kind.get(gvk).map(Arc::clone)
    }

    /// By texts: group (empty: core), version, plural resource.
    pub fn resource(&self, group: &str, version: &str, resource: &str) -> Option<Arc<Row>> {
        self.by_resource(&Gvr::new(group, version, resource))
    }

    pub fn kind(&self, group: &str, version: &str, kind: &str) -> Option<Arc<Row>> {
        self.by_kind(&Gvk::new(group, version, kind))
    }

    /// Group versions in the order of their first rows (core first).
    pub fn group_versions(&self) -> Vec<GroupVersion> {
        let mut all: Vec<GroupVersion> = Vec::new();
        for row in &self.rows {
            let gv = row.group_version();
            if !all.contains(&gv) {
                all.push(gv);
            }
        }
        all
    }
}
