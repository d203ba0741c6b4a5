//! From the generated trait, which knows no `self`, to the one instance of a reconciler; and the cluster behind the imports.

use std::marker::PhantomData;

use super::{
    Cluster, DeleteOptions, Description, Exported, Failure, Key, Objects, Outcome, PatchKind,
    Query, ResourceInfo,
};
use crate::bindings::controlling::exports::oarlock::controller::reconciler;
use crate::bindings::controlling::oarlock::controller::objects;

/// Exports `reconciler`.
#[derive(Debug)]
pub struct ControllerComponent<R>(PhantomData<R>);

impl<R: Exported> reconciler::Guest for ControllerComponent<R> {
    fn describe() -> Description {
        R::with(|reconciler| reconciler.describe())
    }

    fn configure(config: String) -> Result<(), String> {
        R::with(|reconciler| reconciler.configure(&config))
    }

    fn reconcile(key: Key) -> Result<Outcome, String> {
        R::with(|reconciler| reconciler.reconcile(&Cluster::new(&TheCluster), &key))
            .map_err(|error| error.to_string())
    }

    fn keys_of(watch: u32, object: String, gone: bool) -> Vec<Key> {
        let object = serde_json::from_str(&object).unwrap_or_default();
        R::with(|reconciler| reconciler.keys_of(watch, &object, gone))
    }
}

/// The imports. Natively they are not there, and calling them aborts: tests use a fake.
struct TheCluster;

impl Objects for TheCluster {
    fn get(&self, resource: &str, key: &Key) -> Result<String, Failure> {
        objects::get(resource, key)
    }

    fn list(&self, resource: &str, query: &Query) -> Result<Vec<String>, Failure> {
        objects::list(resource, query)
    }

    fn get_live(&self, resource: &str, key: &Key) -> Result<String, Failure> {
        objects::get_live(resource, key)
    }

    fn create(&self, resource: &str, namespace: &str, object: &str) -> Result<String, Failure> {
        objects::create(resource, namespace, object)
    }

    fn create_many(
        &self,
        resource: &str,
        namespace: &str,
        all: &[String],
    ) -> Vec<Result<String, Failure>> {
        objects::create_many(resource, namespace, all)
    }

    fn update(&self, resource: &str, subresource: &str, object: &str) -> Result<String, Failure> {
        objects::update(resource, subresource, object)
    }

    fn patch(
        &self,
        resource: &str,
        key: &Key,
        subresource: &str,
        kind: PatchKind,
        body: &str,
    ) -> Result<String, Failure> {
        objects::patch(resource, key, subresource, kind, body)
    }

    fn delete(&self, resource: &str, key: &Key, options: &DeleteOptions) -> Result<(), Failure> {
        objects::delete(resource, key, options)
    }

    fn delete_many(
        &self,
        resource: &str,
        keys: &[Key],
        options: &DeleteOptions,
    ) -> Vec<Result<(), Failure>> {
        objects::delete_many(resource, keys, options)
    }

    fn create_sub(
        &self,
        resource: &str,
        key: &Key,
        subresource: &str,
        object: &str,
    ) -> Result<String, Failure> {
        objects::create_sub(resource, key, subresource, object)
    }

    fn discover(&self) -> Vec<ResourceInfo> {
        objects::discover()
    }

    fn event(&self, about: &str, warning: bool, reason: &str, message: &str) {
        objects::event(about, warning, reason, message);
    }
}
