//! `Registry`: what all verbs share. The verbs themselves: `read`, `watch`, `write`, `delete`, `sub`, `batch`.
//! Every verb is one function for all kinds; a kind differs by its row alone.

use std::sync::Arc;

use oarlock_kinds::{Kinds, Row};
use oarlock_model::ApiResult;
use oarlock_store::Store;

use crate::Admission;
use crate::admission::builtin;
use crate::services::ServiceAllocators;
use crate::trees::TreeCache;

#[derive(Debug)]
pub struct Config {
    pub store: Arc<dyn Store>,
    pub kinds: Arc<Kinds>,
    /// Run behind the built-in plugins.
    pub admission: Vec<Arc<dyn Admission>>,
}

/// Shared as an `Arc`; all methods take `&self`.
#[derive(Debug)]
pub struct Registry {
    store: Arc<dyn Store>,
    kinds: Arc<Kinds>,
    admission: Vec<Arc<dyn Admission>>,
    services: ServiceAllocators,
    trees: TreeCache,
}

impl Registry {
    /// Rebuilds what is kept in memory only (allocators), and makes the objects that every cluster has.
    pub async fn open(config: Config, now: jiff::Timestamp) -> ApiResult<Arc<Self>> {
        let mut admission = builtin::plugins();
        admission.extend(config.admission);
        let registry = Self {
            store: config.store,
            kinds: config.kinds,
            admission,
            services: ServiceAllocators::default(),
            trees: TreeCache::default(),
        };
        if let Some(row) = registry.row("", "services") {
            registry.services.rebuild(&*registry.store, &row)?;
        }
        registry.bootstrap(now).await?;
        Ok(Arc::new(registry))
    }

    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    pub fn kinds(&self) -> &Arc<Kinds> {
        &self.kinds
    }

    pub(crate) fn admission(&self) -> &[Arc<dyn Admission>] {
        &self.admission
    }

    pub(crate) fn services(&self) -> &ServiceAllocators {
        &self.services
    }

    pub(crate) fn trees(&self) -> &TreeCache {
        &self.trees
    }

    /// The row of a built-in resource, all of which are `v1` here.
    pub(crate) fn row(&self, group: &str, resource: &str) -> Option<Arc<Row>> {
        self.kinds.resource(group, "v1", resource)
    }
}
