//! Parsed objects shared by everything in this process that watches: one parse a change, whoever looks at it.
//! Holds weak references only, so that it never keeps an object alive; a sweep drops dead entries as the map grows.

use std::sync::{Arc, Weak};

use oarlock_model::{ApiError, ApiResult};
use oarlock_store::Revision;
use parking_lot::Mutex;
use serde_json::Value;

use crate::{EventType, Registry, Stored, WatchItem, scan};

const SHARDS: usize = 16;
/// A shard smaller than that is not swept.
const MIN_SWEEP: usize = 256;

/// Kind, place and revision of an object; `last` tells the last state of a deleted object from a new one of the same revision.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct TreeKey {
    revision: Revision,
    last: bool,
    place: Box<str>,
}

#[derive(Debug, Default)]
struct Shard {
    trees: std::collections::HashMap<TreeKey, Weak<Value>>,
    sweep_at: usize,
}

#[derive(Debug, Default)]
pub struct TreeCache {
    shards: [Mutex<Shard>; SHARDS],
}

impl TreeCache {
    fn get_or_parse(&self, storage: &str, stored: &Stored, last: bool) -> ApiResult<Arc<Value>> {
        let namespace = scan::text(&stored.json, &["metadata", "namespace"]);
        let name = scan::text(&stored.json, &["metadata", "name"]);
        let key = TreeKey {
            revision: stored.revision,
            last,
            place: format!("{storage}/{namespace}/{name}").into_boxed_str(),
        };
        let shard = &self.shards[(stored.revision as usize) % SHARDS];
        if let Some(tree) = shard.lock().trees.get(&key).and_then(Weak::upgrade) {
            return Ok(tree);
        }
        // Parsed without the lock: two watchers may parse the same change at once, and share from then on.
        let tree = lean(stored)
            .map_err(|e| ApiError::internal(format!("a stored object cannot be read: {e}")))?;
        let tree = Arc::new(tree);
        let mut shard = shard.lock();
        if let Some(other) = shard.trees.get(&key).and_then(Weak::upgrade) {
            return Ok(other);
        }
        if shard.trees.len() >= shard.sweep_at.max(MIN_SWEEP) {
            shard.trees.retain(|_, tree| tree.strong_count() > 0);
            shard.sweep_at = shard.trees.len() * 2;
        }
        shard.trees.insert(key, Arc::downgrade(&tree));
        Ok(tree)
    }
}

/// The tree with resourceVersion and without managedFields: nobody in this process reads those from a cache, and in a pod's tree
/// they would take as much room as the rest.
fn lean(stored: &Stored) -> Result<Value, serde_json::Error> {
    let Some((from, to)) = managed_fields(&stored.json) else {
        return stored.to_value();
    };
    let json = [&stored.json[..from], &stored.json[to..]].concat();
    Stored {
        json: json.into(),
        hole: stored.hole,
        revision: stored.revision,
    }
    .to_value()
}

/// Where `metadata.managedFields` lies in an object's text, with the comma that goes with it.
fn managed_fields(json: &[u8]) -> Option<(usize, usize)> {
    const NAME: &[u8] = b"\"managedFields\":";
    let value = scan::at(json, &["metadata", "managedFields"])?;
    // A part of `json`, so that the distance is its place.
    let start = value.as_ptr() as usize - json.as_ptr() as usize;
    let (from, to) = (start.checked_sub(NAME.len())?, start + value.len());
    match (json.get(from.checked_sub(1)?)?, json.get(to)?) {
        (b',', _) => Some((from - 1, to)),
        (_, b',') => Some((from, to + 1)),
        _ => Some((from, to)),
    }
}

impl Registry {
    /// The tree of an object of this collection (`pods`, `deployments.apps`), with resourceVersion, without managedFields. Shared.
    pub fn tree(&self, storage_prefix: &str, stored: &Stored) -> ApiResult<Arc<Value>> {
        self.trees().get_or_parse(storage_prefix, stored, false)
    }

    /// The same for an object that came out of a watch (not of a bookmark).
    pub fn tree_of_event(&self, storage_prefix: &str, item: &WatchItem) -> ApiResult<Arc<Value>> {
        self.trees().get_or_parse(
            storage_prefix,
            &item.object,
            item.kind == EventType::Deleted,
        )
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn trees_are_without_managed_fields() {
        let managed = r#""managedFields":[{"fieldsV1":{"f:a,]":{}}}]"#;
        for metadata in [
            format!(r#"{{{managed}}}"#),
            format!(r#"{{"name":"a",{managed}}}"#),
            format!(r#"{{{managed},"name":"a"}}"#),
            format!(r#"{{"labels":{{}},{managed},"name":"a"}}"#),
            r#"{"name":"a"}"#.to_owned(),
        ] {
            let json = format!(r#"{{"kind":"Pod","metadata":{metadata},"spec":{{}}}}"#);
            let stored = Stored {
                hole: json.find(r#""metadata":{"#).unwrap() + 12,
                json: json.into(),
                revision: 7,
            };
            let mut whole = stored.to_value().unwrap();
            whole["metadata"]
                .as_object_mut()
                .unwrap()
                .remove("managedFields");
            assert_eq!(lean(&stored).unwrap(), whole, "{metadata}");
            assert_eq!(whole["metadata"]["resourceVersion"], json!("7"));
        }
    }
}
