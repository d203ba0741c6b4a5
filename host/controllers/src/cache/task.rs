//! The task behind one cache: list, watch, and list again when the watch ends.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use oarlock_client::{Cluster, Key, ListQuery, Object, WatchEvent};
use oarlock_model::{ApiError, meta};
use serde_json::{Map, Value};

use super::{Depth, KindCache};

/// Events taken in at once.
const MAX_EVENTS: usize = 512;
const FIRST_RETRY_MS: u64 = 50;
const MAX_RETRY_MS: u64 = 10_000;

/// One piece of news.
pub(super) enum Incoming {
    Present(Object),
    /// With the last state, if it is known.
    Gone(Key, Option<Object>),
}

pub(super) async fn run(cluster: Arc<dyn Cluster>, cache: Arc<KindCache>) {
    let mut retry_ms = FIRST_RETRY_MS;
    loop {
        match follow(&*cluster, &cache, &mut retry_ms).await {
            Ok(()) => {}
            Err(error) => {
                tracing::debug!(kind = %cache.kind, %error, "a controllers' cache lists again");
            }
        }
        tokio::time::sleep(Duration::from_millis(retry_ms)).await;
        retry_ms = (retry_ms * 2).min(MAX_RETRY_MS);
    }
}

async fn follow(
    cluster: &dyn Cluster,
    cache: &KindCache,
    retry_ms: &mut u64,
) -> Result<(), ApiError> {
    let query = ListQuery::default();
    let list = cluster.list(&cache.kind, &query).await?;
    let listed: HashSet<Key> = list.items.iter().map(|o| key_of(o)).collect();
    let vanished: Vec<Key> = cache.read(|store| {
        store
            .keys()
            .filter(|key| !listed.contains(&***key))
            .map(|key| Key::clone(key))
            .collect()
    });
    let mut incoming: Vec<Incoming> = vanished
        .into_iter()
        .map(|key| Incoming::Gone(key, None))
        .collect();
    incoming.extend(
        list.items
            .into_iter()
            .map(|object| Incoming::Present(shape(object, cache.depth))),
    );
    // An empty store is at revision 0; "filled" must still be told.
    cache.apply(incoming, list.revision.max(1));
    let mut events = cluster
        .watch(&cache.kind, &query, list.revision)
        .await?
        .ready_chunks(MAX_EVENTS);
    while let Some(chunk) = events.next().await {
        let mut incoming = Vec::with_capacity(chunk.len());
        let (mut revision, mut end) = (0, None);
        for event in chunk {
            match event {
                Ok(WatchEvent::Added(object) | WatchEvent::Modified(object)) => {
                    revision = revision_of(&object).max(revision);
                    incoming.push(Incoming::Present(shape(object, cache.depth)));
                }
                Ok(WatchEvent::Deleted(object)) => {
                    revision = revision_of(&object).max(revision);
                    incoming.push(Incoming::Gone(
                        key_of(&object),
                        Some(shape(object, cache.depth)),
                    ));
                }
                Ok(WatchEvent::Bookmark(at)) => revision = at.max(revision),
                Err(error) => end = Some(error),
            }
        }
        cache.apply(incoming, revision);
        *retry_ms = FIRST_RETRY_MS;
        if let Some(error) = end {
            return Err(error);
        }
    }
    Ok(())
}

fn key_of(object: &Value) -> Key {
    Key {
        namespace: meta::namespace(object).to_owned(),
        name: meta::name(object).to_owned(),
    }
}

fn revision_of(object: &Value) -> u64 {
    meta::resource_version(object).parse().unwrap_or(0)
}

fn shape(object: Object, depth: Depth) -> Object {
    match depth {
        Depth::Full => object,
        Depth::Metadata => Arc::new(metadata_of(&object)),
    }
}

/// The envelope, without managed fields and without the copy that kubectl keeps.
fn metadata_of(object: &Value) -> Value {
    const KEPT: [&str; 10] = [
        "name",
        "namespace",
        "uid",
        "resourceVersion",
        "generation",
        "creationTimestamp",
        "deletionTimestamp",
        "labels",
        "finalizers",
        "ownerReferences",
    ];
    let mut metadata = Map::new();
    for field in KEPT {
        if let Some(value) = object.get("metadata").and_then(|m| m.get(field)) {
            metadata.insert(field.to_owned(), value.clone());
        }
    }
    let mut out = Map::new();
    for field in ["apiVersion", "kind"] {
        if let Some(value) = object.get(field) {
            out.insert(field.to_owned(), value.clone());
        }
    }
    out.insert("metadata".to_owned(), Value::Object(metadata));
    Value::Object(out)
}
