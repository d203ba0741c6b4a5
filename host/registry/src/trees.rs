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
        let tree = stored
            .to_value()
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

impl Registry {
    /// The tree of an object of this collection (`pods`, `deployments.apps`), with resourceVersion. Shared.
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
