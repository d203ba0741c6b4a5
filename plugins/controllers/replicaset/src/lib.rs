//! Keeps as many pods of a ReplicaSet as it asks for: claims, creates, deletes, and counts.

mod claim;
mod rank;
mod status;
#[cfg(test)]
mod tests;

use controller_kit::workload::ReplicaSet;
use controller_kit::{Owner, Pod};
use oarlock_sdk::controller::{
    Cluster, DeleteOptions, Description, Error, Key, Mapping, Outcome, Permission, Reconciler,
    Watch,
};
use oarlock_sdk::host;
use serde_json::{Value, json};

pub const REPLICA_SETS: &str = "apps/v1/replicasets";
pub const PODS: &str = "v1/pods";
/// Pods created or deleted in one step.
const BURST: usize = 1_000;
/// The first batch of creations, and by how much the next ones grow: a quota or an admission that refuses all is asked
/// once, and not a thousand times.
const FIRST_BATCH: usize = 1;
const BATCH_GROWTH: usize = 8;
/// Keys that begin so name a pod without a controller. No object's name has a slash.
const ORPHAN: &str = "orphan/";
/// Events of one kind in one step.
const MAX_EVENTS: usize = 25;
/// What is needed of a pod.
const POD_PARTS: [&str; 10] = [
    "/metadata/name",
    "/metadata/namespace",
    "/metadata/uid",
    "/metadata/labels",
    "/metadata/annotations/controller.kubernetes.io~1pod-deletion-cost",
    "/metadata/creationTimestamp",
    "/metadata/deletionTimestamp",
    "/spec/nodeName",
    "/status/phase",
    "/status/conditions",
];

#[derive(Default)]
pub struct ReplicaSetController;

oarlock_sdk::export_controller!(ReplicaSetController);

impl Reconciler for ReplicaSetController {
    fn describe(&self) -> Description {
        let pods = Watch::of(PODS)
            .by(Mapping::ControllerOwner("ReplicaSet".to_owned()))
            .relevant(&[
                "/metadata/labels",
                "/metadata/ownerReferences",
                "/metadata/deletionTimestamp",
                "/status/phase",
                "/status/conditions",
            ]);
        Description::new(
            "replicaset-controller",
            vec![
                Watch::of(REPLICA_SETS).relevant(&[
                    "/metadata/generation",
                    "/metadata/deletionTimestamp",
                    "/metadata/labels",
                ]),
                pods,
                // Orphans concern every ReplicaSet that selects them.
                Watch::of(PODS)
                    .by(Mapping::Custom)
                    .relevant(&["/metadata/labels", "/metadata/ownerReferences"]),
            ],
            vec![
                Permission::to("get list watch", "apps", "replicasets"),
                Permission::to("patch", "apps", "replicasets/status"),
                Permission::to("get list watch create patch delete", "", "pods"),
            ],
        )
        .concurrent(4)
    }

    fn reconcile(&self, cluster: &Cluster<'_>, key: &Key) -> Result<Outcome, Error> {
        if let Some(pod) = key.name.strip_prefix(ORPHAN) {
            claim::find_owner(cluster, &Key::new(&key.namespace, pod))?;
            return Ok(Outcome::Done);
        }
        let Some(set) = cluster.get_as::<ReplicaSet>(REPLICA_SETS, key)? else {
            return Ok(Outcome::Done);
        };
        step(cluster, &set)
    }

    fn keys_of(&self, _watch: u32, object: &Value, gone: bool) -> Vec<Key> {
        let Ok(pod) = serde_json::from_value::<Pod>(object.clone()) else {
            return Vec::new();
        };
        if gone || pod.metadata.controller().is_some() || pod.metadata.labels.is_empty() {
            return Vec::new();
        }
        // Which set selects it is found out when the key is reconciled.
        vec![Key::new(
            &pod.metadata.namespace,
            format!("{ORPHAN}{}", pod.metadata.name),
        )]
    }
}

fn step(cluster: &Cluster<'_>, set: &ReplicaSet) -> Result<Outcome, Error> {
    let now_ms = host::now_ms();
    let (active, terminating) = claim::claim(cluster, set)?;
    let mut failure = None;
    if !set.metadata.terminating() {
        let wanted = set.spec.replicas.max(0) as usize;
        if active.len() < wanted {
            failure = create(cluster, set, wanted - active.len())?;
        } else if active.len() > wanted {
            failure = delete(cluster, set, &active, active.len() - wanted)?;
        }
    }
    let (new, wait_ms) = status::calculate(set, &active, &terminating, failure.as_ref(), now_ms);
    if new != set.status || set.status.observed_generation != set.metadata.generation {
        cluster.merge_status(REPLICA_SETS, &set.metadata.key(), &status::patch(set, &new))?;
    }
    match (failure, wait_ms) {
        (Some(Failure { message, .. }), _) => Err(Error::new(message)),
        (None, Some(wait_ms)) => Ok(Outcome::RequeueAfter(wait_ms.max(1))),
        (None, None) => Ok(Outcome::Done),
    }
}

/// Why pods could not be made or deleted.
pub struct Failure {
    reason: &'static str,
    message: String,
}

fn create(
    cluster: &Cluster<'_>,
    set: &ReplicaSet,
    missing: usize,
) -> Result<Option<Failure>, Error> {
    let mut left = missing.min(BURST);
    let text = serde_json::to_string(&pod_of(set))?;
    let about = reference(set);
    let (mut batch, mut told) = (FIRST_BATCH, 0);
    while left > 0 {
        let count = batch.min(left);
        let results =
            cluster
                .raw()
                .create_many(PODS, &set.metadata.namespace, &vec![text.clone(); count]);
        let mut failure = None;
        for result in results {
            match result {
                Ok(stored) if told < MAX_EVENTS => {
                    told += 1;
                    cluster.event(
                        &about,
                        "SuccessfulCreate",
                        &format!("Created pod: {}", name_in(&stored)),
                    )?;
                }
                Ok(_) => {}
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        if let Some(error) = failure {
            // A namespace on its way out takes no pods; its end is the set's.
            if error.code == 403 && error.message.contains("because it is being terminated") {
                return Ok(None);
            }
            cluster.warning(
                &about,
                "FailedCreate",
                &format!("Error creating: {}", error.message),
            )?;
            return Ok(Some(Failure {
                reason: "FailedCreate",
                message: error.message,
            }));
        }
        left -= count;
        batch *= BATCH_GROWTH;
    }
    Ok(None)
}

/// The name in a stored pod, without reading all of it.
fn name_in(stored: &str) -> String {
    #[derive(serde::Deserialize)]
    struct Named {
        metadata: Name,
    }
    #[derive(serde::Deserialize)]
    struct Name {
        name: String,
    }
    serde_json::from_str::<Named>(stored)
        .map(|named| named.metadata.name)
        .unwrap_or_default()
}

fn pod_of(set: &ReplicaSet) -> Value {
    let template = &set.spec.template;
    let mut metadata = json!({
        "generateName": format!("{}-", set.metadata.name),
        "namespace": set.metadata.namespace,
        "ownerReferences": [Owner::controlling("apps/v1", "ReplicaSet", &set.metadata)],
    });
    for part in ["labels", "annotations", "finalizers"] {
        if let Some(value) = template["metadata"]
            .get(part)
            .filter(|value| !value.is_null())
        {
            metadata[part] = value.clone();
        }
    }
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]})
}

fn delete(
    cluster: &Cluster<'_>,
    set: &ReplicaSet,
    active: &[Pod],
    surplus: usize,
) -> Result<Option<Failure>, Error> {
    let related = rank::related(cluster, set, active)?;
    let mut active = active.to_vec();
    rank::learn_restarts(cluster, set, &mut active, surplus)?;
    let doomed = rank::choose(&active, surplus.min(BURST), &related);
    let keys: Vec<Key> = doomed.iter().map(|pod| pod.metadata.key()).collect();
    let results = cluster
        .raw()
        .delete_many(PODS, &keys, &DeleteOptions::default());
    let about = reference(set);
    let mut failure = None;
    let mut told = 0;
    for (pod, result) in doomed.iter().zip(results) {
        match result {
            Ok(()) if told < MAX_EVENTS => {
                told += 1;
                cluster.event(
                    &about,
                    "SuccessfulDelete",
                    &format!("Deleted pod: {}", pod.metadata.name),
                )?;
            }
            Ok(()) => {}
            Err(error) if error.code == 404 => {}
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    let Some(error) = failure else {
        return Ok(None);
    };
    cluster.warning(
        &about,
        "FailedDelete",
        &format!("Error deleting: {}", error.message),
    )?;
    Ok(Some(Failure {
        reason: "FailedDelete",
        message: error.message,
    }))
}

fn reference(set: &ReplicaSet) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": {
            "name": set.metadata.name, "namespace": set.metadata.namespace, "uid": set.metadata.uid,
            "resourceVersion": set.metadata.resource_version,
        },
    })
}
