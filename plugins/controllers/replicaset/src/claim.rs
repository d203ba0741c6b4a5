//! Which pods are the set's: owned ones that it still selects, and orphans that it selects and takes in.

use controller_kit::workload::ReplicaSet;
use controller_kit::{Owner, Pod, owners_patch, selector_text, selects};
use oarlock_sdk::controller::{Cluster, Error, Key, Query};

use crate::{POD_PARTS, PODS, REPLICA_SETS};

/// (active, terminating but not finished)
pub fn claim(cluster: &Cluster<'_>, set: &ReplicaSet) -> Result<(Vec<Pod>, Vec<Pod>), Error> {
    let namespace = &set.metadata.namespace;
    let owned: Vec<Pod> = cluster.list_as(
        PODS,
        &Query::namespace(namespace)
            .owned_by(&set.metadata.uid)
            .parts(&POD_PARTS),
    )?;
    let mut pods = Vec::with_capacity(owned.len());
    for pod in owned {
        if selects(&set.spec.selector, &pod.metadata.labels) {
            pods.push(pod);
        } else if !set.metadata.terminating() {
            release(cluster, set, &pod)?;
        }
    }
    if !set.metadata.terminating() {
        pods.extend(adopt(cluster, set)?);
    }
    let (terminating, pods): (Vec<Pod>, Vec<Pod>) = pods
        .into_iter()
        .filter(|pod| !pod.finished())
        .partition(|pod| pod.metadata.terminating());
    Ok((pods, terminating))
}

fn adopt(cluster: &Cluster<'_>, set: &ReplicaSet) -> Result<Vec<Pod>, Error> {
    let Some(selector) = selector_text(&set.spec.selector).filter(|text| !text.is_empty()) else {
        return Ok(Vec::new());
    };
    let parts: Vec<&str> = POD_PARTS
        .iter()
        .copied()
        .chain(["/metadata/ownerReferences", "/metadata/resourceVersion"])
        .collect();
    let query = Query::namespace(&set.metadata.namespace)
        .labelled(&selector)
        .field("metadata.controller", "");
    let orphans: Vec<Pod> = cluster.list_as(PODS, &query.parts(&parts))?;
    let mut adopted = Vec::new();
    for pod in orphans
        .into_iter()
        .filter(|pod| pod.metadata.controller().is_none() && pod.active())
    {
        if take_in(cluster, set, &pod)? {
            adopted.push(pod);
        }
    }
    Ok(adopted)
}

/// False: the pod is gone.
fn take_in(cluster: &Cluster<'_>, set: &ReplicaSet, pod: &Pod) -> Result<bool, Error> {
    let mut owners = pod.metadata.owner_references.clone();
    owners.retain(|owner| owner.uid != set.metadata.uid);
    owners.push(Owner::controlling("apps/v1", "ReplicaSet", &set.metadata));
    match cluster.merge(
        PODS,
        &pod.metadata.key(),
        &owners_patch(&pod.metadata, &owners),
    ) {
        Ok(()) => Ok(true),
        Err(error) if error.is_not_found() => Ok(false),
        Err(error) => Err(error),
    }
}

/// Gives an orphan to a set that selects it. The set hears of it by its own watch, and counts it then.
pub fn find_owner(cluster: &Cluster<'_>, key: &Key) -> Result<(), Error> {
    let Some(pod) = cluster.get_as::<Pod>(PODS, key)? else {
        return Ok(());
    };
    if pod.metadata.controller().is_some() || !pod.active() {
        return Ok(());
    }
    let parts = [
        "/metadata/name",
        "/metadata/uid",
        "/metadata/deletionTimestamp",
        "/spec/selector",
    ];
    let sets: Vec<ReplicaSet> = cluster.list_as(
        REPLICA_SETS,
        &Query::namespace(&key.namespace).parts(&parts),
    )?;
    let fits = |set: &&ReplicaSet| {
        !set.metadata.terminating() && selects(&set.spec.selector, &pod.metadata.labels)
    };
    if let Some(set) = sets.iter().find(fits) {
        take_in(cluster, set, &pod)?;
    }
    Ok(())
}

fn release(cluster: &Cluster<'_>, set: &ReplicaSet, pod: &Pod) -> Result<(), Error> {
    let Some(whole) = cluster.get_as::<Pod>(PODS, &pod.metadata.key())? else {
        return Ok(());
    };
    let mut owners = whole.metadata.owner_references.clone();
    owners.retain(|owner| owner.uid != set.metadata.uid);
    match cluster.merge(
        PODS,
        &pod.metadata.key(),
        &owners_patch(&whole.metadata, &owners),
    ) {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}
