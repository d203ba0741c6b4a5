//! `Registry`: the verbs. Every verb is one function for all kinds; a kind differs by its row alone.

use std::sync::Arc;

use bytes::Bytes;
use oarlock_kinds::Kinds;
use oarlock_model::{ApiError, ApiResult};
use oarlock_store::Store;
use serde_json::Value;

use crate::{
    Admission, BindRequest, Body, Context, DeleteOptions, Deleted, List, ListOptions, PatchKind,
    Stored, Target, WatchItem, WatchOptions, Written,
};

#[derive(Debug)]
pub struct Config {
    pub store: Arc<dyn Store>,
    pub kinds: Arc<Kinds>,
    /// Run behind the built-in plugins.
    pub admission: Vec<Arc<dyn Admission>>,
}

#[derive(Debug)]
pub struct Registry {
    config: Config,
}

impl Registry {
    /// Rebuilds what is kept in memory only (allocators), and makes the objects that every cluster has.
    pub async fn open(config: Config, _now: jiff::Timestamp) -> ApiResult<Arc<Self>> {
        Ok(Arc::new(Self { config }))
    }

    pub fn store(&self) -> &Arc<dyn Store> {
        &self.config.store
    }

    pub fn kinds(&self) -> &Arc<Kinds> {
        &self.config.kinds
    }

    pub async fn create(&self, _ctx: &Context, _target: &Target, _body: Body) -> ApiResult<Stored> {
        Err(ApiError::internal("not built"))
    }

    /// POST to a subresource: `binding`, `eviction`; answers the body to send.
    pub async fn create_sub(
        &self,
        _ctx: &Context,
        _target: &Target,
        _body: Body,
    ) -> ApiResult<Value> {
        Err(ApiError::internal("not built"))
    }

    /// `resource_version`: empty, `0` or a revision. With subresource `scale`, the Scale object.
    pub async fn get(
        &self,
        _ctx: &Context,
        _target: &Target,
        _resource_version: &str,
    ) -> ApiResult<Stored> {
        Err(ApiError::internal("not built"))
    }

    pub async fn list(
        &self,
        _ctx: &Context,
        _target: &Target,
        _options: &ListOptions,
    ) -> ApiResult<List> {
        Err(ApiError::internal("not built"))
    }

    pub async fn watch(
        &self,
        _ctx: &Context,
        _target: &Target,
        _options: &WatchOptions,
    ) -> ApiResult<WatchStream> {
        Err(ApiError::internal("not built"))
    }

    /// PUT of an object or of a subresource (`status`, `scale`, `finalize`, …).
    pub async fn update(
        &self,
        _ctx: &Context,
        _target: &Target,
        _body: Body,
    ) -> ApiResult<Written> {
        Err(ApiError::internal("not built"))
    }

    /// `patch`: JSON text (YAML was turned into JSON by the caller).
    pub async fn patch(
        &self,
        _ctx: &Context,
        _target: &Target,
        _kind: PatchKind,
        _patch: Bytes,
    ) -> ApiResult<Written> {
        Err(ApiError::internal("not built"))
    }

    pub async fn delete(
        &self,
        _ctx: &Context,
        _target: &Target,
        _options: &DeleteOptions,
    ) -> ApiResult<Deleted> {
        Err(ApiError::internal("not built"))
    }

    /// Answers the objects that were deleted (as the collection's list).
    pub async fn delete_collection(
        &self,
        _ctx: &Context,
        _target: &Target,
        _list: &ListOptions,
        _options: &DeleteOptions,
    ) -> ApiResult<List> {
        Err(ApiError::internal("not built"))
    }

    /// Binds each pod, one store commit a pod, issued together; results in order.
    pub async fn bind_many(
        &self,
        _ctx: &Context,
        bindings: &[BindRequest],
    ) -> Vec<ApiResult<Stored>> {
        bindings
            .iter()
            .map(|_| Err(ApiError::internal("not built")))
            .collect()
    }

    /// Merge-patches the status of many objects of one kind, issued together; results in order.
    pub async fn patch_status_many(
        &self,
        _ctx: &Context,
        patches: Vec<(Target, Value)>,
    ) -> Vec<ApiResult<Stored>> {
        patches
            .iter()
            .map(|_| Err(ApiError::internal("not built")))
            .collect()
    }
}

/// Events of one watch, selectors applied. Dropping it ends the watch.
#[derive(Debug)]
pub struct WatchStream {}

impl WatchStream {
    /// Waits for the next events; never an empty list. An error (410 Expired, the store closed) ends the watch.
    /// Cancel-safe.
    pub async fn next_batch(&mut self) -> Result<Vec<WatchItem>, ApiError> {
        Err(ApiError::internal("not built"))
    }

    /// The bookmark to send when the watch's time is over; `None` if none were asked for.
    pub fn final_bookmark(&mut self) -> Option<WatchItem> {
        None
    }
}
