//! A registry over the memory store, and short words for what tests do with it.

#![expect(clippy::unwrap_used, reason = "a test may fail here")]
#![allow(dead_code, reason = "each test file uses its part")]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use oarlock_kinds::Kinds;
use oarlock_model::{ApiError, ApiResult, meta};
use oarlock_registry::{
    Body, Config, Context, DeleteOptions, Deleted, EventType, PatchKind, Registry, Target, User,
    WatchItem, WatchOptions, WatchStream,
};
use oarlock_store::{Store, StoreOptions};
use serde_json::{Value, json};

pub const DEADLINE: Duration = Duration::from_secs(10);

pub struct House {
    pub registry: Arc<Registry>,
}

impl House {
    pub async fn new() -> Self {
        Self::over(oarlock_store::open(StoreOptions::memory()).unwrap()).await
    }

    pub async fn over(store: Arc<dyn Store>) -> Self {
        let config = Config {
            store,
            kinds: Arc::new(Kinds::builtin()),
            admission: Vec::new(),
        };
        let registry = Registry::open(config, now()).await.unwrap();
        let house = Self { registry };
        let account = house.target("", "serviceaccounts", "");
        // Made by a controller elsewhere.
        let made = house
            .registry
            .create(
                &ctx(),
                &account,
                Body::Value(json!({"metadata": {"name": "default"}})),
            )
            .await;
        assert!(made.is_ok() || made.is_err_and(|e| e.code() == 409));
        house
    }

    pub fn target(&self, group: &str, resource: &str, name: &str) -> Target {
        let row = self
            .registry
            .kinds()
            .resource(group, "v1", resource)
            .unwrap();
        Target::new(&row, if row.namespaced { "default" } else { "" }, name)
    }

    pub async fn create(&self, group: &str, resource: &str, object: Value) -> ApiResult<Value> {
        let target = self.target(group, resource, "");
        self.registry
            .create(&ctx(), &target, Body::Value(object))
            .await
            .map(|o| o.to_value().unwrap())
    }

    pub async fn pod(&self, name: &str) -> Value {
        self.create("", "pods", pod(name)).await.unwrap()
    }

    pub async fn get(&self, resource: &str, name: &str) -> ApiResult<Value> {
        let target = self.target("", resource, name);
        self.registry
            .get(&ctx(), &target, "")
            .await
            .map(|o| o.to_value().unwrap())
    }

    pub async fn merge(&self, resource: &str, name: &str, patch: Value) -> ApiResult<Value> {
        let target = self.target("", resource, name);
        let patch = Bytes::from(patch.to_string());
        self.registry
            .patch(&ctx(), &target, PatchKind::Merge, patch)
            .await
            .map(|w| w.object.to_value().unwrap())
    }

    pub async fn delete(&self, resource: &str, name: &str) -> ApiResult<Deleted> {
        self.registry
            .delete(
                &ctx(),
                &self.target("", resource, name),
                &DeleteOptions::default(),
            )
            .await
    }

    pub async fn watch(&self, resource: &str, options: WatchOptions) -> WatchStream {
        self.registry
            .watch(&ctx(), &self.target("", resource, ""), &options)
            .await
            .unwrap()
    }
}

pub fn now() -> jiff::Timestamp {
    "2026-11-23T21:00:00Z".parse().unwrap()
}

pub fn ctx() -> Context {
    let user = User {
        name: "admin".to_owned(),
        ..User::default()
    };
    let mut ctx = Context::new(Arc::new(user), now());
    ctx.field_manager = "test".to_owned();
    ctx
}

pub fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "registry.example/i:1"}]}})
}

pub fn config_map(name: &str, labels: Value) -> Value {
    json!({"metadata": {"name": name, "labels": labels}, "data": {"k": "v"}})
}

pub fn rv(object: &Value) -> u64 {
    meta::resource_version(object).parse().unwrap()
}

pub async fn events(stream: &mut WatchStream, count: usize) -> Vec<(EventType, Value)> {
    let mut out = Vec::new();
    while out.len() < count {
        let batch: Vec<WatchItem> = tokio::time::timeout(DEADLINE, stream.next_batch())
            .await
            .unwrap()
            .unwrap();
        out.extend(batch.into_iter().map(|item| {
            let object = match item.kind {
                EventType::Bookmark { .. } => Value::Null,
                _ => item.object.to_value().unwrap(),
            };
            (item.kind, object)
        }));
    }
    assert_eq!(out.len(), count);
    out
}

pub fn texts(error: ApiError) -> (u16, String) {
    (error.code(), error.message)
}
