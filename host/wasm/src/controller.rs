//! Controllers: a component's instance, and the trait through which it reaches the cluster.
//!
//! Invariant: calls block, and so may the host's answers to the guest's questions; run both on a blocking thread. The time
//! that the host takes to answer does not count against the guest's deadline.

use std::sync::Arc;

use crate::bindings::exports::oarlock::controller::reconciler;
use crate::call::Guest;
use crate::{Error, ExtensionPoint, HostEnv, Limits, Loaded};

pub use crate::bindings::exports::oarlock::controller::reconciler::{
    Description, Mapping, Outcome, Permission, Watch,
};
pub use crate::bindings::oarlock::controller::objects::{
    DeleteOptions, Failure, PatchKind, Propagation, Query, ResourceInfo,
};
pub use crate::bindings::oarlock::controller::types::Key;

/// The cluster, as one controller may see it. Objects are JSON texts; see `wit/controller` for what each call promises.
pub trait ObjectsHost: Send + Sync {
    fn get(&self, resource: &str, key: &Key) -> Result<String, Failure>;
    fn list(&self, resource: &str, query: &Query) -> Result<Vec<String>, Failure>;
    fn get_live(&self, resource: &str, key: &Key) -> Result<String, Failure>;
    fn create(&self, resource: &str, namespace: &str, object: String) -> Result<String, Failure>;
    fn create_many(
        &self,
        resource: &str,
        namespace: &str,
        objects: Vec<String>,
    ) -> Vec<Result<String, Failure>>;
    fn update(&self, resource: &str, subresource: &str, object: String) -> Result<String, Failure>;
    fn patch(
        &self,
        resource: &str,
        key: &Key,
        subresource: &str,
        kind: PatchKind,
        body: String,
    ) -> Result<String, Failure>;
    fn delete(&self, resource: &str, key: &Key, options: &DeleteOptions) -> Result<(), Failure>;
    fn delete_many(
        &self,
        resource: &str,
        keys: &[Key],
        options: &DeleteOptions,
    ) -> Vec<Result<(), Failure>>;
    fn create_sub(
        &self,
        resource: &str,
        key: &Key,
        subresource: &str,
        object: String,
    ) -> Result<String, Failure>;
    fn discover(&self) -> Vec<ResourceInfo>;
    fn event(&self, about: &str, warning: bool, reason: &str, message: &str);
}

/// The most watches and permissions that a controller may describe.
const MAX_WATCHES: usize = 64;
/// The most keys that one object may map to.
const MAX_MAPPED_KEYS: usize = 10_000;

/// Controller components, as such.
#[derive(Debug)]
pub struct ControllerPlugin;

impl ControllerPlugin {
    /// A fresh instance.
    pub fn instantiate(
        loaded: &Loaded,
        limits: &Limits,
        env: Arc<dyn HostEnv>,
        objects: Arc<dyn ObjectsHost>,
    ) -> Result<ControllerInstance, Error> {
        loaded.demand(ExtensionPoint::Reconciler)?;
        let (mut guest, instance) = Guest::new(loaded, limits, env, Some(objects))?;
        let found = reconciler::GuestIndices::new(loaded.pre())
            .and_then(|found| found.load(guest.store(), &instance));
        let reconciler = found.map_err(|e| guest.unlinked(&e))?;
        Ok(ControllerInstance { guest, reconciler })
    }
}

/// One instance of a controller. Its calls block.
pub struct ControllerInstance {
    guest: Guest,
    reconciler: reconciler::Guest,
}

impl std::fmt::Debug for ControllerInstance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ControllerInstance")
            .field("plugin", &self.guest.loaded().name())
            .finish_non_exhaustive()
    }
}

impl ControllerInstance {
    /// What it is an instance of.
    pub fn loaded(&self) -> &Loaded {
        self.guest.loaded()
    }

    /// Whether it failed and must be replaced.
    pub fn is_dead(&self) -> bool {
        self.guest.is_dead()
    }

    /// A fresh instance of the same component with the same view of the cluster; it is not configured.
    pub fn respawn(&self) -> Result<Self, Error> {
        let objects = self
            .guest
            .objects()
            .expect("an instance of a controller has objects");
        ControllerPlugin::instantiate(
            self.guest.loaded(),
            self.guest.limits(),
            self.guest.env(),
            objects,
        )
    }

    /// Gives it its configuration (JSON); the inner error is its complaint.
    pub fn configure(&mut self, config: &str) -> Result<Result<(), String>, Error> {
        let guest = &self.reconciler;
        self.guest
            .call("configure", |store| guest.call_configure(store, config))
    }

    /// What it is.
    pub fn describe(&mut self) -> Result<Description, Error> {
        let guest = &self.reconciler;
        let about = self
            .guest
            .call("describe", |store| guest.call_describe(store))?;
        if about.watches.is_empty()
            || about.watches.len() > MAX_WATCHES
            || about.permissions.len() > MAX_WATCHES
        {
            let what = format!(
                "{} watches and {} permissions",
                about.watches.len(),
                about.permissions.len()
            );
            return Err(self.guest.lie("describe", what));
        }
        if about.name.is_empty() {
            return Err(self.guest.lie("describe", "no name".to_owned()));
        }
        Ok(about)
    }

    /// One step; the inner error is the controller's own, to be retried with back-off.
    pub fn reconcile(&mut self, key: &Key) -> Result<Result<Outcome, String>, Error> {
        let guest = &self.reconciler;
        self.guest
            .call("reconcile", |store| guest.call_reconcile(store, key))
    }

    /// The keys that a changed object of the watch numbered `watch` concerns.
    pub fn keys_of(&mut self, watch: u32, object: &str, gone: bool) -> Result<Vec<Key>, Error> {
        let guest = &self.reconciler;
        let keys = self.guest.call("keys-of", |store| {
            guest.call_keys_of(store, watch, object, gone)
        })?;
        if keys.len() > MAX_MAPPED_KEYS {
            return Err(self
                .guest
                .lie("keys-of", format!("{} keys for one object", keys.len())));
        }
        Ok(keys)
    }
}
