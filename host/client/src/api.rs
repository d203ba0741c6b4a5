//! The `Cluster` seam. Objects travel as `Arc<Value>` with `apiVersion`, `kind` and `metadata.resourceVersion` set.

use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::BoxStream;
use oarlock_model::{ApiError, ApiResult, Gvr};
use serde_json::Value;

/// Without managedFields, which nothing that works from a cache reads; a write without them keeps those that are stored.
pub type Object = Arc<Value>;

#[derive(Clone, Debug, Default)]
pub struct ListQuery {
    /// `None`: all namespaces (or a cluster-scoped kind).
    pub namespace: Option<String>,
    /// Selector texts as in query parameters; empty: everything.
    pub labels: String,
    pub fields: String,
}

#[derive(Clone, Debug)]
pub struct ListResult {
    pub items: Vec<Object>,
    /// The list's revision: watch from here.
    pub revision: u64,
}

#[derive(Clone, Debug)]
pub enum WatchEvent {
    Added(Object),
    Modified(Object),
    /// The last state, at the deletion's revision.
    Deleted(Object),
    /// Everything up to this revision has been delivered.
    Bookmark(u64),
}

/// Name of one object. `namespace` is empty for a cluster-scoped kind.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    pub namespace: String,
    pub name: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Patch {
    /// RFC 6902
    Json(Value),
    /// RFC 7386
    Merge(Value),
    Strategic(Value),
    Apply {
        body: Value,
        manager: String,
        force: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Propagation {
    Orphan,
    #[default]
    Background,
    Foreground,
}

#[derive(Clone, Debug, Default)]
pub struct DeleteOptions {
    pub grace_period_seconds: Option<i64>,
    pub propagation: Option<Propagation>,
    /// Preconditions; empty: none.
    pub uid: String,
    pub resource_version: String,
}

/// A pod to be bound to a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    pub pod: Key,
    /// The pod must still have this uid; empty: any.
    pub uid: String,
    pub node: String,
}

/// `subresource`: `""` for the object itself, else `status`, `scale`, `eviction`, `token`, `finalize`, ….
#[async_trait]
pub trait Cluster: Send + Sync {
    async fn get(&self, kind: &Gvr, key: &Key) -> ApiResult<Object>;
    async fn list(&self, kind: &Gvr, query: &ListQuery) -> ApiResult<ListResult>;
    /// Events after `revision`. The stream ends with an `Err` (410 Expired: list again) or when the cluster goes away.
    async fn watch(
        &self,
        kind: &Gvr,
        query: &ListQuery,
        revision: u64,
    ) -> ApiResult<BoxStream<'static, Result<WatchEvent, ApiError>>>;
    async fn create(&self, kind: &Gvr, namespace: &str, object: Value) -> ApiResult<Object>;
    /// A `metadata.resourceVersion` in `object` must be current (409 otherwise).
    async fn update(&self, kind: &Gvr, subresource: &str, object: Value) -> ApiResult<Object>;
    async fn patch(
        &self,
        kind: &Gvr,
        key: &Key,
        subresource: &str,
        patch: Patch,
    ) -> ApiResult<Object>;
    async fn delete(&self, kind: &Gvr, key: &Key, options: DeleteOptions) -> ApiResult<()>;
    /// Creates a subresource object (`eviction`, `token`, …).
    async fn create_sub(
        &self,
        kind: &Gvr,
        key: &Key,
        subresource: &str,
        object: Value,
    ) -> ApiResult<Value>;
    /// Binds each pod; results in order. One call may be one durable commit for all.
    async fn bind(&self, bindings: Vec<Binding>) -> Vec<ApiResult<()>>;
    /// Writes many statuses (merge patches of `/status`) at once; results in order.
    async fn patch_statuses(
        &self,
        kind: &Gvr,
        patches: Vec<(Key, Value)>,
    ) -> Vec<ApiResult<Object>>;
    /// The same cluster seen as another user (a controller's service account).
    fn as_user(&self, user: &str) -> Arc<dyn Cluster>;
}
