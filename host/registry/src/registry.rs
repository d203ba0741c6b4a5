//! `Registry`: what all verbs share. The verbs themselves: `read`, `watch`, `write`, `delete`, `sub`, `batch`.
//! Every verb is one function for all kinds; a kind differs by its row alone.

use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use oarlock_kinds::{Kinds, Row};
use oarlock_model::ApiResult;
use oarlock_store::Store;
use parking_lot::Mutex;

use crate::admission::policy::Authorize;
use crate::admission::{builtin, policy, webhook};
use crate::definitions::{self, Follower, KnownDefinitions};
use crate::meter::Meter;
use crate::remote::WebhookClient;
use crate::services::ServiceAllocators;
use crate::trees::TreeCache;
use crate::{Admission, Operation, Target, User};

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
    /// The table in force. Replaced as a whole by `custom`; who needs it for longer than a look-up takes a snapshot once.
    kinds: ArcSwap<Kinds>,
    admission: Vec<Arc<dyn Admission>>,
    meter: Meter,
    /// Whom the expressions of policies ask; set once by whoever authorizes requests.
    authorizer: OnceLock<Arc<dyn Authorize>>,
    /// Who asks webhooks; set once by whoever speaks HTTP.
    webhook_client: OnceLock<Arc<dyn WebhookClient>>,
    services: ServiceAllocators,
    trees: TreeCache,
    follower: Mutex<Follower>,
    definitions: Mutex<KnownDefinitions>,
}

impl Registry {
    /// Rebuilds what is kept in memory only (allocators, kinds that definitions make), and makes the objects that every cluster has.
    pub async fn open(config: Config, now: jiff::Timestamp) -> ApiResult<Arc<Self>> {
        let mut admission = builtin::plugins();
        let (store, kinds) = (&config.store, &config.kinds);
        admission.extend(policy::mutating(store, kinds));
        admission.extend(webhook::mutating(store, kinds));
        admission.extend(policy::validating(store, kinds));
        admission.extend(webhook::validating(store, kinds));
        admission.extend(config.admission);
        admission.push(builtin::last());
        let meter = Meter::default();
        let admission = meter.watch(admission);
        let registry = Self {
            store: config.store,
            kinds: ArcSwap::new(config.kinds),
            admission,
            meter,
            authorizer: OnceLock::new(),
            webhook_client: OnceLock::new(),
            services: ServiceAllocators::default(),
            trees: TreeCache::default(),
            follower: Mutex::default(),
            definitions: Mutex::default(),
        };
        if let Some(row) = registry.row("", "services") {
            registry.services.rebuild(&*registry.store, &row)?;
        }
        registry.bootstrap(now).await?;
        let registry = Arc::new(registry);
        definitions::start(&registry)?;
        Ok(registry)
    }

    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// The kinds served now. The table never changes; a CustomResourceDefinition makes a new one. Costs a reference count.
    pub fn kinds(&self) -> Arc<Kinds> {
        self.kinds.load_full()
    }

    /// Serves another table from now on.
    pub fn set_kinds(&self, kinds: Kinds) {
        self.kinds.store(Arc::new(kinds));
    }

    /// What `authorizer` is in expressions of policies, from now on. Only the first counts.
    pub fn set_authorizer(&self, authorizer: Arc<dyn Authorize>) {
        // A second one comes from a second server of the same registry, and says the same.
        let _ = self.authorizer.set(authorizer);
    }

    /// Who asks webhooks from now on. Only the first counts.
    pub fn set_webhook_client(&self, client: Arc<dyn WebhookClient>) {
        let _ = self.webhook_client.set(client);
    }

    pub(crate) fn webhook_client(&self) -> Option<&Arc<dyn WebhookClient>> {
        self.webhook_client.get()
    }

    /// Who answers what users may; `None`: there is no server yet.
    pub fn authorizer(&self) -> Option<&Arc<dyn Authorize>> {
        self.authorizer.get()
    }

    /// The plugins that look at such a write of such a user, in order.
    pub(crate) fn plugins<'a>(
        &'a self,
        user: &'a User,
        target: &'a Target,
        operation: Operation,
    ) -> impl Iterator<Item = &'a dyn Admission> {
        self.admission
            .iter()
            .filter(move |plugin| plugin.concerns(user) && plugin.handles(target, operation))
            .map(|plugin| &**plugin)
    }

    pub(crate) fn meter(&self) -> &Meter {
        &self.meter
    }

    pub(crate) fn services(&self) -> &ServiceAllocators {
        &self.services
    }

    pub(crate) fn follower(&self) -> &Mutex<Follower> {
        &self.follower
    }

    pub(crate) fn known_definitions(&self) -> &Mutex<KnownDefinitions> {
        &self.definitions
    }

    pub(crate) fn trees(&self) -> &TreeCache {
        &self.trees
    }

    /// The row of a built-in resource, all of which are `v1` here.
    pub(crate) fn row(&self, group: &str, resource: &str) -> Option<Arc<Row>> {
        self.kinds.load().resource(group, "v1", resource)
    }
}
