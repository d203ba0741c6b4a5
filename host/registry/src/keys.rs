//! Storage keys: `COLLECTION/NAMESPACE/NAME`, or `COLLECTION/NAME` for cluster-scoped kinds.

use oarlock_kinds::Row;

use crate::Target;

/// The key of one object.
pub fn key(row: &Row, namespace: &str, name: &str) -> String {
    let mut key = prefix(row, namespace);
    key.push_str(name);
    key
}

pub fn key_of(target: &Target) -> String {
    key(&target.row, &target.namespace, &target.name)
}

/// What all keys of a namespace (empty: all namespaces) start with.
pub fn prefix(row: &Row, namespace: &str) -> String {
    let mut prefix = String::with_capacity(64);
    prefix.push_str(&row.storage_prefix);
    prefix.push('/');
    if row.namespaced && !namespace.is_empty() {
        prefix.push_str(namespace);
        prefix.push('/');
    }
    prefix
}

/// (namespace, name) of a key.
pub fn split<'a>(row: &Row, key: &'a str) -> (&'a str, &'a str) {
    let rest = key.get(row.storage_prefix.len() + 1..).unwrap_or_default();
    if row.namespaced {
        rest.split_once('/').unwrap_or(("", rest))
    } else {
        ("", rest)
    }
}
