//! The `objects` interface of one controller, over the shared caches and its own account.
//!
//! Invariants: every call is checked against the described permissions; a read from the cache is no older than this
//! controller's own last write of that kind (it waits for the cache, at most [`MAX_LAG_MS`]). Calls block: they run on
//! blocking threads only.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::RandomState;
use futures::StreamExt;
use jiff::Timestamp;
use oarlock_client::{self as client, Cluster, ListQuery, Object, Patch};
use oarlock_model::{ApiError, Gvr, LabelSelector, meta};
use oarlock_wasm::ObjectsHost;
use oarlock_wasm::controller::{
    DeleteOptions, Failure, Key, PatchKind, Propagation, Query, ResourceInfo,
};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::runtime::Handle;

use crate::Discover;
use crate::cache::{Caches, Depth, KindCache, Selection, project};
use crate::events::Recorder;
use crate::permissions::Permissions;
use crate::resource;

/// How long a read waits for the cache to catch up with the controller's own writes before it fails (and is retried).
pub const MAX_LAG_MS: u64 = 5_000;
/// Writes of one `create-many` or `delete-many` under way at once: they share commits of the store.
const MAX_CONCURRENT_WRITES: usize = 512;

pub struct ControllerObjects {
    /// `deployment-controller`; its field manager.
    pub name: String,
    pub cluster: Arc<dyn Cluster>,
    pub caches: Arc<Caches>,
    pub discover: Discover,
    pub permissions: Permissions,
    pub recorder: Recorder,
    pub runtime: Handle,
    written: Mutex<HashMap<Gvr, Written, RandomState>>,
}

/// Own writes that reads must show.
#[derive(Default)]
struct Written {
    revision: u64,
    /// Deleted objects that the cache may still show as alive: key and uid.
    deleted: Vec<(client::Key, String)>,
}

/// Everything but what the struct keeps for itself.
pub struct Parts {
    pub name: String,
    pub cluster: Arc<dyn Cluster>,
    pub caches: Arc<Caches>,
    pub discover: Discover,
    pub permissions: Permissions,
    pub recorder: Recorder,
    pub runtime: Handle,
}

impl ControllerObjects {
    pub fn new(parts: Parts) -> Self {
        Self {
            name: parts.name,
            cluster: parts.cluster,
            caches: parts.caches,
            discover: parts.discover,
            permissions: parts.permissions,
            recorder: parts.recorder,
            runtime: parts.runtime,
            written: Mutex::default(),
        }
    }

    fn allowed(&self, verb: &str, text: &str, subresource: &str) -> Result<Gvr, Failure> {
        let kind = resource::parse(text).ok_or_else(|| {
            failure(&ApiError::bad_request(format!(
                "{text:?} is no resource (GROUP/VERSION/RESOURCE)"
            )))
        })?;
        self.permissions.check(verb, &kind, subresource)?;
        Ok(kind)
    }

    /// The cache of a kind, if there is one that can answer, as new as it must be.
    fn cache(&self, kind: &Gvr, depth: Depth) -> Result<Option<Arc<KindCache>>, Failure> {
        let Some(cache) = self.caches.get(kind).filter(|cache| cache.depth >= depth) else {
            return Ok(None);
        };
        self.catch_up(&cache)?;
        Ok(Some(cache))
    }

    fn catch_up(&self, cache: &Arc<KindCache>) -> Result<(), Failure> {
        let (revision, deleted) = match self.written.lock().get(&cache.kind) {
            Some(written) => (written.revision.max(1), written.deleted.clone()),
            None => (1, Vec::new()),
        };
        let wait = async {
            cache.reached(revision).await;
            if !deleted.is_empty() {
                cache
                    .until(|store| {
                        deleted.iter().all(|(key, uid)| {
                            store.get(key).is_none_or(|o| {
                                meta::is_terminating(o) || (!uid.is_empty() && meta::uid(o) != uid)
                            })
                        })
                    })
                    .await;
            }
        };
        let limit = Duration::from_millis(MAX_LAG_MS);
        // The timer belongs to the runtime, so it is made inside of it.
        let in_time = self
            .runtime
            .block_on(async { tokio::time::timeout(limit, wait).await });
        if in_time.is_err() {
            let message = format!(
                "the cache of {} is behind this controller's own writes",
                cache.kind
            );
            return Err(Failure {
                code: 504,
                reason: "Timeout".to_owned(),
                message,
            });
        }
        if !deleted.is_empty()
            && let Some(written) = self.written.lock().get_mut(&cache.kind)
        {
            written.deleted.retain(|entry| !deleted.contains(entry));
        }
        Ok(())
    }

    fn wrote(&self, kind: &Gvr, object: &Value) {
        if let Ok(revision) = meta::resource_version(object).parse::<u64>() {
            let mut written = self.written.lock();
            let entry = written.entry(kind.clone()).or_default();
            entry.revision = entry.revision.max(revision);
        }
    }

    fn deleted(&self, kind: &Gvr, keys: impl Iterator<Item = client::Key>) {
        let Some(cache) = self.caches.get(kind) else {
            return;
        };
        let with_uid: Vec<_> = cache.read(|store| {
            keys.filter_map(|key| {
                store
                    .get(&key)
                    .map(|o| (key.clone(), meta::uid(o).to_owned()))
            })
            .collect()
        });
        self.written
            .lock()
            .entry(kind.clone())
            .or_default()
            .deleted
            .extend(with_uid);
    }

    fn run<T>(&self, work: impl Future<Output = Result<T, ApiError>>) -> Result<T, Failure> {
        self.runtime.block_on(work).map_err(|error| failure(&error))
    }

    fn stored(&self, kind: &Gvr, object: &Object) -> String {
        self.wrote(kind, object);
        object.to_string()
    }

    /// Metadata of objects of every kind that is cached, by owner; the answer to `list("*", …)`.
    fn list_everything(&self, query: &Query) -> Result<Vec<String>, Failure> {
        self.permissions
            .check("list", &Gvr::new("*", "*", "*"), "")?;
        let labels = selector(&query.labels)?;
        let fields = fields(&query.fields)?;
        let mut caches = self.caches.all();
        caches.sort_by(|a, b| a.kind.cmp(&b.kind));
        let mut out = Vec::new();
        for cache in caches {
            self.catch_up(&cache)?;
            let selection = Selection {
                namespace: &query.namespace,
                labels: labels.clone(),
                owner_uid: &query.owner_uid,
                controlled: false,
                fields: fields.clone(),
            };
            let found = cache.read(|store| store.select(&selection));
            out.extend(found.iter().map(|object| {
                let mut object = project(object, &pointers_or_metadata(&query.pointers));
                object["resource"] = Value::String(resource::format(&cache.kind));
                object.to_string()
            }));
        }
        Ok(out)
    }
}

fn pointers_or_metadata(pointers: &[String]) -> Vec<String> {
    if pointers.is_empty() {
        ["/apiVersion", "/kind", "/metadata"]
            .map(str::to_owned)
            .to_vec()
    } else {
        pointers.to_vec()
    }
}

fn failure(error: &ApiError) -> Failure {
    Failure {
        code: error.code(),
        reason: error.reason.as_str().to_owned(),
        message: error.message.clone(),
    }
}

fn selector(text: &str) -> Result<LabelSelector, Failure> {
    LabelSelector::parse(text).map_err(|e| failure(&ApiError::bad_request(e.to_string())))
}

/// `PATH=VALUE`, several separated by commas.
fn fields(text: &str) -> Result<Vec<(&str, &str)>, Failure> {
    text.split(',')
        .filter(|part| !part.is_empty())
        .map(|part| {
            part.split_once('=').ok_or_else(|| {
                failure(&ApiError::bad_request(format!(
                    "{part:?} is not PATH=VALUE"
                )))
            })
        })
        .collect()
}

fn parse(text: &str) -> Result<Value, ApiError> {
    serde_json::from_str(text)
        .map_err(|error| ApiError::bad_request(format!("the object is no JSON: {error}")))
}

fn client_key(key: &Key) -> client::Key {
    client::Key {
        namespace: key.namespace.clone(),
        name: key.name.clone(),
    }
}

fn options(options: &DeleteOptions) -> client::DeleteOptions {
    client::DeleteOptions {
        grace_period_seconds: options.grace_period,
        propagation: Some(match options.propagation {
            Propagation::Orphan => client::Propagation::Orphan,
            Propagation::Background => client::Propagation::Background,
            Propagation::Foreground => client::Propagation::Foreground,
        }),
        uid: options.uid.clone(),
        resource_version: options.resource_version.clone(),
    }
}

/// Whether metadata alone answers.
fn depth_of(pointers: &[String]) -> Depth {
    let shallow = |p: &String| {
        p == "/apiVersion"
            || p == "/kind"
            || (p.starts_with("/metadata/") && !p.starts_with("/metadata/annotations"))
    };
    if !pointers.is_empty() && pointers.iter().all(shallow) {
        Depth::Metadata
    } else {
        Depth::Full
    }
}

impl ObjectsHost for ControllerObjects {
    fn get(&self, resource: &str, key: &Key) -> Result<String, Failure> {
        let kind = self.allowed("get", resource, "")?;
        let key = client_key(key);
        match self.cache(&kind, Depth::Full)? {
            Some(cache) => cache
                .read(|store| store.get(&key).map(|object| object.to_string()))
                .ok_or_else(|| {
                    failure(&ApiError::not_found(&kind.group, &kind.resource, &key.name))
                }),
            None => self
                .run(self.cluster.get(&kind, &key))
                .map(|object| object.to_string()),
        }
    }

    fn list(&self, resource: &str, query: &Query) -> Result<Vec<String>, Failure> {
        if resource == "*" {
            return self.list_everything(query);
        }
        let kind = self.allowed("list", resource, "")?;
        let selection = Selection {
            namespace: &query.namespace,
            labels: selector(&query.labels)?,
            owner_uid: &query.owner_uid,
            controlled: true,
            fields: fields(&query.fields)?,
        };
        let found = match self.cache(&kind, depth_of(&query.pointers))? {
            Some(cache) => cache.read(|store| store.select(&selection)),
            None => {
                let namespace = Some(query.namespace.clone()).filter(|ns| !ns.is_empty());
                let live = ListQuery {
                    namespace,
                    ..ListQuery::default()
                };
                let list = self.run(self.cluster.list(&kind, &live))?;
                let mut store = crate::cache::ObjectStore::new(false);
                store.fill(list.items);
                store.select(&selection)
            }
        };
        Ok(found
            .iter()
            .map(|object| match query.pointers.is_empty() {
                true => object.to_string(),
                false => project(object, &query.pointers).to_string(),
            })
            .collect())
    }

    fn get_live(&self, resource: &str, key: &Key) -> Result<String, Failure> {
        let kind = self.allowed("get", resource, "")?;
        self.run(self.cluster.get(&kind, &client_key(key)))
            .map(|object| object.to_string())
    }

    fn create(&self, resource: &str, namespace: &str, object: String) -> Result<String, Failure> {
        let kind = self.allowed("create", resource, "")?;
        let object =
            self.run(async { self.cluster.create(&kind, namespace, parse(&object)?).await })?;
        Ok(self.stored(&kind, &object))
    }

    fn create_many(
        &self,
        resource: &str,
        namespace: &str,
        objects: Vec<String>,
    ) -> Vec<Result<String, Failure>> {
        let kind = match self.allowed("create", resource, "") {
            Ok(kind) => kind,
            Err(refusal) => return objects.iter().map(|_| Err(refusal.clone())).collect(),
        };
        let writes = objects.into_iter().map(|object| {
            let kind = &kind;
            async move { self.cluster.create(kind, namespace, parse(&object)?).await }
        });
        let results: Vec<_> = self.runtime.block_on(
            futures::stream::iter(writes)
                .buffered(MAX_CONCURRENT_WRITES)
                .collect(),
        );
        results
            .into_iter()
            .map(|result| {
                result
                    .map(|object| self.stored(&kind, &object))
                    .map_err(|error| failure(&error))
            })
            .collect()
    }

    fn update(&self, resource: &str, subresource: &str, object: String) -> Result<String, Failure> {
        let kind = self.allowed("update", resource, subresource)?;
        let object = self.run(async {
            self.cluster
                .update(&kind, subresource, parse(&object)?)
                .await
        })?;
        Ok(self.stored(&kind, &object))
    }

    fn patch(
        &self,
        resource: &str,
        key: &Key,
        subresource: &str,
        patch: PatchKind,
        body: String,
    ) -> Result<String, Failure> {
        let kind = self.allowed("patch", resource, subresource)?;
        let object = self.run(async {
            let body = parse(&body)?;
            let patch = match patch {
                PatchKind::Json => Patch::Json(body),
                PatchKind::Merge => Patch::Merge(body),
                PatchKind::Strategic => Patch::Strategic(body),
                PatchKind::Apply => Patch::Apply {
                    body,
                    manager: self.name.clone(),
                    force: true,
                },
            };
            self.cluster
                .patch(&kind, &client_key(key), subresource, patch)
                .await
        })?;
        Ok(self.stored(&kind, &object))
    }

    fn delete(&self, resource: &str, key: &Key, opts: &DeleteOptions) -> Result<(), Failure> {
        let kind = self.allowed("delete", resource, "")?;
        let key = client_key(key);
        self.run(self.cluster.delete(&kind, &key, options(opts)))?;
        self.deleted(&kind, std::iter::once(key));
        Ok(())
    }

    fn delete_many(
        &self,
        resource: &str,
        keys: &[Key],
        opts: &DeleteOptions,
    ) -> Vec<Result<(), Failure>> {
        let kind = match self.allowed("delete", resource, "") {
            Ok(kind) => kind,
            Err(refusal) => return keys.iter().map(|_| Err(refusal.clone())).collect(),
        };
        let keys: Vec<client::Key> = keys.iter().map(client_key).collect();
        let writes = keys.iter().map(|key| {
            let (kind, options) = (&kind, options(opts));
            async move { self.cluster.delete(kind, key, options).await }
        });
        let results: Vec<Result<(), ApiError>> = self.runtime.block_on(
            futures::stream::iter(writes)
                .buffered(MAX_CONCURRENT_WRITES)
                .collect(),
        );
        self.deleted(
            &kind,
            keys.iter()
                .zip(&results)
                .filter(|(_, r)| r.is_ok())
                .map(|(key, _)| key.clone()),
        );
        results
            .into_iter()
            .map(|result| result.map_err(|error| failure(&error)))
            .collect()
    }

    fn create_sub(
        &self,
        resource: &str,
        key: &Key,
        subresource: &str,
        object: String,
    ) -> Result<String, Failure> {
        let kind = self.allowed("create", resource, subresource)?;
        let answer = self.run(async {
            self.cluster
                .create_sub(&kind, &client_key(key), subresource, parse(&object)?)
                .await
        })?;
        Ok(answer.to_string())
    }

    fn discover(&self) -> Vec<ResourceInfo> {
        (self.discover)()
            .into_iter()
            .map(|served| ResourceInfo {
                resource: resource::format(&served.kind),
                kind: served.object_kind,
                namespaced: served.namespaced,
                deletable: served.deletable,
            })
            .collect()
    }

    fn event(&self, about: &str, warning: bool, reason: &str, message: &str) {
        match serde_json::from_str::<Value>(about) {
            Ok(about) => self
                .recorder
                .record(&about, warning, reason, message, Timestamp::now()),
            Err(error) => {
                tracing::warn!(controller = self.name, %error, "an event about something that is no JSON");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_enough_for_pointers_into_it() {
        let check = |pointers: &[&str], depth| {
            assert_eq!(
                depth_of(&pointers.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>()),
                depth
            );
        };
        check(&["/metadata/name", "/kind"], Depth::Metadata);
        check(&["/metadata/name", "/spec/x"], Depth::Full);
        check(&["/metadata/annotations/a"], Depth::Full);
        check(&[], Depth::Full);
    }

    #[test]
    fn field_queries() {
        assert_eq!(
            fields("spec.nodeName=n1,metadata.controller=").unwrap(),
            [("spec.nodeName", "n1"), ("metadata.controller", "")]
        );
        assert_eq!(fields("").unwrap(), []);
        assert_eq!(fields("x").unwrap_err().code, 400);
    }
}
