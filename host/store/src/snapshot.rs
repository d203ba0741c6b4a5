//! The state of all keys at one revision.
//!
//! Cloning is cheap (the trees are shared), so readers take a snapshot and never hold a lock while they walk it.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use imbl::OrdMap;

use crate::key::{self, KeyRange};
use crate::{Event, Page, RangeQuery, Record, Revision};

type Objects = OrdMap<Arc<str>, Arc<Record>>;

/// What keys were at an earlier revision, for those that have changed since.
pub(crate) type Undone = BTreeMap<Arc<str>, Option<Arc<Record>>>;

#[derive(Clone, Debug, Default)]
pub(crate) struct Snapshot {
    pub(crate) revision: Revision,
    /// By collection; none is empty.
    collections: OrdMap<Arc<str>, Objects>,
}

impl Snapshot {
    pub(crate) fn get(&self, key: &str) -> Option<&Arc<Record>> {
        self.collections.get(key::collection(key))?.get(key)
    }

    pub(crate) fn put(&mut self, record: &Arc<Record>) -> Option<Arc<Record>> {
        let (key, record) = (Arc::clone(&record.key), Arc::clone(record));
        let collection = key::collection(&key);
        if let Some(objects) = self.collections.get_mut(collection) {
            return objects.insert(key, record);
        }
        let collection = Arc::from(collection);
        self.collections
            .insert(collection, Objects::unit(key, record));
        None
    }

    pub(crate) fn remove(&mut self, key: &str) -> Option<Arc<Record>> {
        let collection = key::collection(key);
        let objects = self.collections.get_mut(collection)?;
        let removed = objects.remove(key);
        if objects.is_empty() {
            self.collections.remove(collection);
        }
        removed
    }

    pub(crate) fn apply(&mut self, event: &Event) {
        match &event.after {
            Some(record) => self.put(record),
            None => self.remove(&event.key),
        };
    }

    pub(crate) fn count(&self, prefix: &str) -> usize {
        let Some(objects) = self.collections.get(key::collection(prefix)) else {
            return 0;
        };
        if is_whole_collection(prefix) {
            return objects.len();
        }
        objects
            .range::<_, str>(KeyRange::new(prefix, None).bounds())
            .count()
    }

    /// A page of the newest state.
    pub(crate) fn page(&self, query: &RangeQuery) -> Page {
        let mut page = Page {
            records: Vec::new(),
            revision: self.revision,
            remaining: 0,
        };
        let keys = KeyRange::new(&query.prefix, query.after.as_deref());
        let Some(objects) = self.collections.get(key::collection(&query.prefix)) else {
            return page;
        };
        if keys.is_empty() {
            return page;
        }
        let whole = is_whole_collection(&query.prefix) && query.after.is_none();
        if whole {
            page.records.reserve(at_most(objects.len(), query.limit));
        }
        let mut rest = objects.range::<_, str>(keys.bounds());
        let limit = if query.limit == 0 {
            usize::MAX
        } else {
            query.limit
        };
        page.records.extend(
            rest.by_ref()
                .take(limit)
                .map(|(_, record)| Arc::clone(record)),
        );
        page.remaining = if whole {
            objects.len() - page.records.len()
        } else {
            rest.count()
        };
        page
    }

    /// A page of the state at an earlier revision, given what has changed since.
    pub(crate) fn page_before(&self, query: &RangeQuery, at: Revision, undone: &Undone) -> Page {
        let mut page = Page {
            records: Vec::new(),
            revision: at,
            remaining: 0,
        };
        let keys = KeyRange::new(&query.prefix, query.after.as_deref());
        if keys.is_empty() {
            return page;
        }
        let none = Objects::new();
        let objects = self
            .collections
            .get(key::collection(&query.prefix))
            .unwrap_or(&none);
        let mut now = objects
            .range::<_, str>(keys.bounds())
            .map(|(_, record)| record)
            .peekable();
        let mut then = undone.range::<str, _>(keys.bounds()).peekable();
        let limit = if query.limit == 0 {
            usize::MAX
        } else {
            query.limit
        };
        while page.records.len() < limit {
            let order = match (now.peek(), then.peek()) {
                (None, None) => break,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(record), Some((key, _))) => record.key.cmp(key),
            };
            let record = if order.is_lt() {
                now.next()
            } else {
                if order.is_eq() {
                    now.next();
                }
                then.next().and_then(|(_, before)| before.as_ref())
            };
            page.records.extend(record.cloned());
        }
        // The rest is counted without looking at each record: what there is now, without what came since, with what went.
        let came = then
            .clone()
            .filter(|(key, _)| objects.contains_key::<str>(key))
            .count();
        let were = then.filter(|(_, before)| before.is_some()).count();
        page.remaining = now.count() + were - came;
        page
    }

    /// All records, collection by collection, in key order within each.
    #[cfg(test)]
    pub(crate) fn records(&self) -> impl Iterator<Item = &Arc<Record>> {
        self.collections
            .values()
            .flat_map(|objects| objects.values())
    }
}

fn is_whole_collection(prefix: &str) -> bool {
    !prefix.is_empty() && key::collection(prefix) == prefix
}

fn at_most(available: usize, limit: usize) -> usize {
    if limit == 0 {
        available
    } else {
        available.min(limit)
    }
}
