//! `Kinds`: all kinds served now, with hash look-ups. Immutable; a changed table is a new one (rows are shared).

use std::collections::HashMap;
use std::sync::Arc;

use oarlock_model::{GroupVersion, Gvk, Gvr};
use oarlock_schema::SchemaRef;

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

    /// A table of rows that other tables may have too.
    pub fn from_shared(rows: impl IntoIterator<Item = Arc<Row>>) -> Self {
        let mut kinds = Self::default();
        for row in rows {
            kinds.insert(row);
        }
        kinds
    }

    /// Every built-in kind, and the kinds of oarlock.dev.
    pub fn builtin() -> Self {
        Self::from_rows(crate::builtin::rows().into_iter().chain(crate::own::rows()))
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
        let known = self.by_resource.get(&gvr).map(Arc::clone);
        let place = known.and_then(|old| self.rows.iter_mut().find(|r| Arc::ptr_eq(r, &old)));
        match place {
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

/// The schema of a kind that has no row of its own, such as the bodies of subresources: `Eviction` of policy/v1, `Scale` of
/// autoscaling/v1, `TokenRequest` of authentication.k8s.io/v1, `DeleteOptions` and `Status` (by the meta group, version `v1`).
pub fn schema_of_kind(group: &str, version: &str, kind: &str) -> Option<SchemaRef> {
    let facts = crate::facts::facts();
    facts.schema(group, version, kind).or_else(|| {
        let meta = format!("io.k8s.apimachinery.pkg.apis.meta.v1.{kind}");
        facts
            .definition(&meta)
            .map(|definition| definition.schema.clone())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_as_discovery_shows_them() {
        let kinds = Kinds::builtin();
        let deployments = kinds
            .resource("apps", "v1", "deployments")
            .expect("deployments");
        assert_eq!(deployments.storage_version_hash(), "8aSe+NMegvE=");
        assert_eq!(deployments.storage_prefix, "deployments.apps");
        assert!(deployments.generation && deployments.status_subresource && deployments.namespaced);
        assert_eq!(
            deployments
                .subresource("scale")
                .map(|s| s.kind.group.as_str()),
            Some("autoscaling")
        );
        let events = kinds
            .resource("events.k8s.io", "v1", "events")
            .expect("events");
        assert_eq!(events.storage_version_hash(), "r2yiGXH7wu8=");
        assert_eq!(events.storage_prefix, "events");
        assert!(events.conversion.is_some());
        let endpoints = kinds.kind("", "v1", "Endpoints").expect("endpoints");
        assert_eq!(
            (endpoints.singular.as_str(), endpoints.verbs.len()),
            ("endpoints", 8)
        );
        let eviction = kinds
            .kind("", "v1", "Pod")
            .and_then(|r| r.subresource("eviction").cloned())
            .expect("eviction");
        assert_eq!(
            (eviction.kind, eviction.verbs),
            (
                Gvk::new("policy", "v1", "Eviction"),
                vec!["create".to_owned()]
            )
        );
        assert!(
            kinds
                .kind("oarlock.dev", "v1alpha1", "SchedulerProfile")
                .is_some()
        );
        assert!(schema_of_kind("policy", "v1", "Eviction").is_some());
        assert!(schema_of_kind("", "v1", "DeleteOptions").is_some());
    }

    #[test]
    fn tables_change_by_copy() {
        let kinds = Kinds::builtin();
        let gvr = Gvr::new("apps", "v1", "deployments");
        let fewer = kinds.without(&gvr);
        assert!(fewer.by_resource(&gvr).is_none() && kinds.by_resource(&gvr).is_some());
        assert_eq!(fewer.rows().len() + 1, kinds.rows().len());
        let row = Row::clone(&kinds.by_resource(&gvr).expect("deployments"));
        assert_eq!(fewer.with(row).rows().len(), kinds.rows().len());
    }
}
