//! Deletes what lost its owners, and finishes foreground and orphaning deletions.
//!
//! Keys name objects of any kind (`RESOURCE|NAMESPACE|NAME|UID`). A key of a gone object means its dependents.
//! Source: https://kubernetes.io/docs/concepts/architecture/garbage-collection/

use std::cell::RefCell;
use std::collections::BTreeMap;

use controller_kit::{Meta, Owner, owners_patch};
use oarlock_sdk::controller::{
    Cluster, DeleteOptions, Description, Error, Key, Mapping, Outcome, Permission, Propagation,
    Query, Reconciler, Watch,
};
use serde::Deserialize;
use serde_json::{Value, json};

const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";
/// How soon dependents that are still there are looked at again.
const RETRY_MS: u64 = 500;

#[derive(Debug, Default)]
pub struct GarbageCollector;

/// Metadata of an object, and which resource it is of.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Item {
    api_version: String,
    kind: String,
    metadata: Meta,
    /// Set in lists of everything.
    resource: String,
}

impl Item {
    fn has_finalizer(&self, name: &str) -> bool {
        self.metadata.finalizers.iter().any(|f| f == name)
    }

    fn deletes_dependents(&self) -> bool {
        self.metadata.terminating() && self.has_finalizer(FOREGROUND)
    }
}

/// What a key names.
#[derive(Clone, Debug, PartialEq)]
struct Name {
    resource: String,
    key: Key,
    uid: String,
}

impl Name {
    fn to_key(&self) -> Key {
        Key::new(
            "",
            format!(
                "{}|{}|{}|{}",
                self.resource, self.key.namespace, self.key.name, self.uid
            ),
        )
    }

    fn parse(key: &Key) -> Option<Self> {
        let mut parts = key.name.splitn(4, '|');
        let (resource, namespace, name, uid) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        Some(Self {
            resource: resource.to_owned(),
            key: Key::new(namespace, name),
            uid: uid.to_owned(),
        })
    }
}

thread_local! {
    /// Resource and whether it is namespaced, by `APIVERSION/KIND`. Learnt from the cluster.
    static RESOURCES: RefCell<BTreeMap<String, (String, bool)>> = const { RefCell::new(BTreeMap::new()) };
}

/// The resource of a kind, and whether it is namespaced.
fn resource_of(cluster: &Cluster<'_>, api_version: &str, kind: &str) -> Option<(String, bool)> {
    let name = format!("{api_version}/{kind}");
    let known = || RESOURCES.with_borrow(|all| all.get(&name).cloned());
    known().or_else(|| {
        RESOURCES.with_borrow_mut(|all| {
            for info in cluster.raw().discover() {
                let api_version = info
                    .resource
                    .rsplit_once('/')
                    .map_or("", |(api_version, _)| api_version);
                all.insert(
                    format!("{api_version}/{}", info.kind),
                    (info.resource.clone(), info.namespaced),
                );
            }
        });
        known()
    })
}

impl Reconciler for GarbageCollector {
    fn describe(&self) -> Description {
        let relevant = [
            "/metadata/ownerReferences",
            "/metadata/deletionTimestamp",
            "/metadata/finalizers",
        ];
        let watches = vec![Watch::of("*").by(Mapping::Custom).relevant(&relevant)];
        Description::new(
            "generic-garbage-collector",
            watches,
            vec![Permission::to("*", "*", "*")],
        )
        .concurrent(4)
    }

    /// Keys name kinds (`APIVERSION/KIND`), since a resource is known only with the cluster at hand.
    fn keys_of(&self, _watch: u32, object: &Value, gone: bool) -> Vec<Key> {
        let Ok(item) = Item::deserialize(object) else {
            return Vec::new();
        };
        let meta = &item.metadata;
        let concerned = gone
            || !meta.owner_references.is_empty()
            || (meta.terminating()
                && (item.has_finalizer(FOREGROUND) || item.has_finalizer(ORPHAN)));
        if !concerned {
            return Vec::new();
        }
        let own = Name {
            resource: format!("{}/{}", item.api_version, item.kind),
            key: meta.key(),
            uid: meta.uid.clone(),
        };
        let mut keys = vec![own.to_key()];
        // An owner that waits for this one looks again.
        for owner in meta.owner_references.iter().filter(|_| gone) {
            let name = Name {
                resource: format!("{}/{}", owner.api_version, owner.kind),
                key: Key::new(&meta.namespace, &owner.name),
                uid: owner.uid.clone(),
            };
            keys.push(name.to_key());
        }
        keys
    }

    fn reconcile(&self, cluster: &Cluster<'_>, key: &Key) -> Result<Outcome, Error> {
        let Some(mut name) = Name::parse(key) else {
            return Ok(Outcome::Done);
        };
        let Some((api_version, kind)) = name.resource.rsplit_once('/') else {
            return Ok(Outcome::Done);
        };
        let Some((resource, namespaced)) = resource_of(cluster, api_version, kind) else {
            return Ok(Outcome::Done);
        };
        if !namespaced {
            name.key.namespace.clear();
        }
        name.resource = resource;
        match live(cluster, &name)? {
            None => delete_dependents_of_gone(cluster, &name),
            Some(item) if item.deletes_dependents() => finish_foreground(cluster, &name, &item),
            Some(item) if item.metadata.terminating() && item.has_finalizer(ORPHAN) => {
                orphan(cluster, &name, &item)
            }
            Some(item) if item.metadata.terminating() => Ok(Outcome::Done),
            Some(item) => judge_owners(cluster, &name, &item),
        }
    }
}

/// The object as it is now, if it is still the same one.
fn live(cluster: &Cluster<'_>, name: &Name) -> Result<Option<Item>, Error> {
    let item: Option<Item> = match cluster.get_live_as(&name.resource, &name.key) {
        Err(error) if error.code() == 405 => None,
        other => other?,
    };
    Ok(item.filter(|item| item.metadata.uid == name.uid))
}

fn dependents(cluster: &Cluster<'_>, uid: &str) -> Result<Vec<Item>, Error> {
    let parts = [
        "/apiVersion",
        "/kind",
        "/metadata/name",
        "/metadata/namespace",
        "/metadata/uid",
        "/metadata/resourceVersion",
        "/metadata/generateName",
        "/metadata/deletionTimestamp",
        "/metadata/finalizers",
        "/metadata/ownerReferences",
    ];
    cluster.list_as("*", &Query::all().owned_by(uid).parts(&parts))
}

fn delete_options(uid: &str, propagation: Propagation) -> DeleteOptions {
    DeleteOptions {
        propagation,
        uid: uid.to_owned(),
        ..DeleteOptions::default()
    }
}

/// Deletes; what is gone or has become another object is fine.
fn delete(cluster: &Cluster<'_>, item: &Item, propagation: Propagation) -> Result<(), Error> {
    match cluster.delete(
        &item.resource,
        &item.metadata.key(),
        &delete_options(&item.metadata.uid, propagation),
    ) {
        Err(error) if !error.is_conflict() => Err(error),
        _ => Ok(()),
    }
}

/// The owner is gone: dependents that had no other go too, the others lose a reference.
fn delete_dependents_of_gone(cluster: &Cluster<'_>, name: &Name) -> Result<Outcome, Error> {
    let mut together: BTreeMap<String, Vec<Key>> = BTreeMap::new();
    for item in dependents(cluster, &name.uid)? {
        let meta = &item.metadata;
        if meta.terminating() {
            continue;
        }
        if meta.owner_references.len() == 1 && meta.namespace == name.key.namespace {
            // A name with a random end is never taken again, so these need no precondition and go in one call.
            if is_generated(&item) {
                together
                    .entry(item.resource.clone())
                    .or_default()
                    .push(meta.key());
            } else {
                delete(cluster, &item, Propagation::Background)?;
            }
        } else {
            let name = Name {
                resource: item.resource.clone(),
                key: meta.key(),
                uid: meta.uid.clone(),
            };
            judge_owners(cluster, &name, &item)?;
        }
    }
    for (resource, keys) in together {
        let results = cluster
            .raw()
            .delete_many(&resource, &keys, &DeleteOptions::default());
        if let Some(failure) = results
            .into_iter()
            .filter_map(Result::err)
            .find(|f| f.code != 404)
        {
            return Err(failure.into());
        }
    }
    Ok(Outcome::Done)
}

/// Pods of ReplicaSets and Jobs: names that are never used twice.
fn is_generated(item: &Item) -> bool {
    item.kind == "Pod"
        && item
            .metadata
            .owner_references
            .iter()
            .any(|o| matches!(o.kind.as_str(), "ReplicaSet" | "Job"))
}

/// Deletes dependents of an object in foreground deletion; without any that block it, it goes.
fn finish_foreground(cluster: &Cluster<'_>, name: &Name, item: &Item) -> Result<Outcome, Error> {
    let all = dependents(cluster, &name.uid)?;
    let blocks = |d: &Item| {
        d.metadata
            .owner_references
            .iter()
            .any(|o| o.uid == name.uid && o.block_owner_deletion)
    };
    for dependent in all.iter().filter(|d| !d.metadata.terminating()) {
        let propagation = if dependents(cluster, &dependent.metadata.uid)?.is_empty() {
            Propagation::Background
        } else {
            Propagation::Foreground
        };
        let others: Vec<Owner> = dependent
            .metadata
            .owner_references
            .iter()
            .filter(|o| o.uid != name.uid)
            .cloned()
            .collect();
        if others.is_empty() {
            delete(cluster, dependent, propagation)?;
        } else {
            let own = Name {
                resource: dependent.resource.clone(),
                key: dependent.metadata.key(),
                uid: dependent.metadata.uid.clone(),
            };
            judge_owners(cluster, &own, dependent)?;
        }
    }
    if dependents(cluster, &name.uid)?.iter().any(blocks) {
        return Ok(Outcome::RequeueAfter(RETRY_MS));
    }
    drop_finalizer(cluster, name, item, FOREGROUND)
}

/// Takes the object out of its dependents' owners, then lets it go.
fn orphan(cluster: &Cluster<'_>, name: &Name, item: &Item) -> Result<Outcome, Error> {
    for dependent in dependents(cluster, &name.uid)? {
        let rest: Vec<Owner> = dependent
            .metadata
            .owner_references
            .iter()
            .filter(|o| o.uid != name.uid)
            .cloned()
            .collect();
        let patch = owners_patch(&dependent.metadata, &rest);
        match cluster.merge(&dependent.resource, &dependent.metadata.key(), &patch) {
            Err(error) if error.is_not_found() => {}
            other => other?,
        }
    }
    drop_finalizer(cluster, name, item, ORPHAN)
}

fn drop_finalizer(
    cluster: &Cluster<'_>,
    name: &Name,
    item: &Item,
    finalizer: &str,
) -> Result<Outcome, Error> {
    let rest: Vec<&String> = item
        .metadata
        .finalizers
        .iter()
        .filter(|f| *f != finalizer)
        .collect();
    let meta = &item.metadata;
    let patch = json!({"metadata": {"uid": meta.uid, "resourceVersion": meta.resource_version, "finalizers": rest}});
    match cluster.merge(&name.resource, &name.key, &patch) {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(Outcome::Done),
    }
}

/// How an owner stands to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Solid,
    Gone,
    /// In foreground deletion, and this object blocks it.
    Waiting,
    /// A namespaced owner of a cluster-scoped object: never to be resolved.
    Invalid,
}

fn standing(cluster: &Cluster<'_>, owner: &Owner, namespace: &str) -> Result<Standing, Error> {
    let Some((resource, namespaced)) = resource_of(cluster, &owner.api_version, &owner.kind) else {
        // A kind that is not served (any more): nothing can be said of its objects.
        return Ok(Standing::Solid);
    };
    if namespaced && namespace.is_empty() {
        return Ok(Standing::Invalid);
    }
    let key = Key::new(if namespaced { namespace } else { "" }, &owner.name);
    let name = Name {
        resource,
        key,
        uid: owner.uid.clone(),
    };
    Ok(match live(cluster, &name)? {
        None => Standing::Gone,
        Some(found) if found.deletes_dependents() && owner.block_owner_deletion => {
            Standing::Waiting
        }
        Some(_) => Standing::Solid,
    })
}

/// Deletes an object whose owners are all gone; drops references to those that are, if one is left.
fn judge_owners(cluster: &Cluster<'_>, name: &Name, item: &Item) -> Result<Outcome, Error> {
    let meta = &item.metadata;
    let mut keep = Vec::new();
    let mut waiting = false;
    for owner in &meta.owner_references {
        match standing(cluster, owner, &meta.namespace)? {
            Standing::Solid => keep.push(owner.clone()),
            Standing::Waiting => waiting = true,
            Standing::Gone => {}
            Standing::Invalid => {
                let about = json!({"apiVersion": item.api_version, "kind": item.kind, "metadata": {"name": meta.name, "uid": meta.uid}});
                let message = format!(
                    "cluster-scoped object cannot have a namespaced owner {} {:?}",
                    owner.kind, owner.name
                );
                cluster.warning(&about, "OwnerRefInvalidNamespace", &message)?;
                keep.push(owner.clone());
            }
        }
    }
    if keep.len() == meta.owner_references.len() {
        return Ok(Outcome::Done);
    }
    let result = if keep.is_empty() {
        let foreground = item.has_finalizer(FOREGROUND)
            || (waiting && !dependents(cluster, &meta.uid)?.is_empty());
        let propagation = match (item.has_finalizer(ORPHAN), foreground) {
            (true, _) => Propagation::Orphan,
            (false, true) => Propagation::Foreground,
            (false, false) => Propagation::Background,
        };
        cluster
            .delete(
                &name.resource,
                &name.key,
                &delete_options(&meta.uid, propagation),
            )
            .map(|_| ())
    } else {
        cluster.merge(&name.resource, &name.key, &owners_patch(meta, &keep))
    };
    match result {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(Outcome::Done),
    }
}

oarlock_sdk::export_controller!(GarbageCollector);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys() {
        let check = |object: Value, gone: bool, expect: &[&str]| {
            let keys: Vec<String> = GarbageCollector
                .keys_of(0, &object, gone)
                .into_iter()
                .map(|k| k.name)
                .collect();
            assert_eq!(keys, expect, "{object}");
        };
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "n", "uid": "1",
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "2"}]}});
        check(pod.clone(), false, &["v1/Pod|n|p|1"]);
        check(pod, true, &["v1/Pod|n|p|1", "apps/v1/ReplicaSet|n|r|2"]);
        let free = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "n", "uid": "1"}});
        check(free.clone(), false, &[]);
        check(free, true, &["v1/Pod|n|p|1"]);
    }

    #[test]
    fn a_key_comes_back() {
        let name = Name {
            resource: "apps/v1/Deployment".into(),
            key: Key::new("n", "d"),
            uid: "u".into(),
        };
        assert_eq!(Name::parse(&name.to_key()), Some(name));
    }
}
