//! Which pods go first when there are too many.
//! https://kubernetes.io/docs/concepts/workloads/controllers/replicaset/#scaling-a-replicaset

use std::cmp::Ordering;
use std::collections::BTreeMap;

use controller_kit::workload::ReplicaSet;
use controller_kit::{Pod, time};
use oarlock_sdk::controller::{Cluster, Error, Query};

use crate::{PODS, REPLICA_SETS};

const COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// For each node, how many active pods of the same owner (its sets, if it is a Deployment) run there.
pub fn related(
    cluster: &Cluster<'_>,
    set: &ReplicaSet,
    active: &[Pod],
) -> Result<BTreeMap<String, usize>, Error> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let mut count = |pods: &[Pod]| {
        for pod in pods.iter().filter(|pod| pod.active()) {
            *counts.entry(pod.spec.node_name.clone()).or_default() += 1;
        }
    };
    count(active);
    let Some(owner) = set.metadata.controller() else {
        return Ok(counts);
    };
    let siblings: Vec<ReplicaSet> = cluster.list_as(
        REPLICA_SETS,
        &Query::namespace(&set.metadata.namespace)
            .owned_by(&owner.uid)
            .parts(&["/metadata/uid", "/status/replicas"]),
    )?;
    for sibling in siblings
        .iter()
        .filter(|s| s.metadata.uid != set.metadata.uid && s.status.replicas > 0)
    {
        let parts = [
            "/metadata/deletionTimestamp",
            "/spec/nodeName",
            "/status/phase",
        ];
        let query = Query::namespace(&set.metadata.namespace)
            .owned_by(&sibling.metadata.uid)
            .parts(&parts);
        count(&cluster.list_as::<Pod>(PODS, &query)?);
    }
    Ok(counts)
}

/// How often containers were restarted: asked for only when there is a choice, since it is the bulk of a status.
pub fn learn_restarts(
    cluster: &Cluster<'_>,
    set: &ReplicaSet,
    active: &mut [Pod],
    surplus: usize,
) -> Result<(), Error> {
    if surplus >= active.len() {
        return Ok(());
    }
    let query = Query::namespace(&set.metadata.namespace).owned_by(&set.metadata.uid);
    let parts = ["/metadata/name", "/status/containerStatuses"];
    let pods: Vec<Pod> = cluster.list_as(PODS, &query.parts(&parts))?;
    let mut statuses: BTreeMap<String, Pod> = pods
        .into_iter()
        .map(|pod| (pod.metadata.name.clone(), pod))
        .collect();
    for pod in active {
        if let Some(found) = statuses.remove(&pod.metadata.name) {
            pod.status.container_statuses = found.status.container_statuses;
        }
    }
    Ok(())
}

/// The `count` pods that go.
pub fn choose<'a>(
    active: &'a [Pod],
    count: usize,
    related: &BTreeMap<String, usize>,
) -> Vec<&'a Pod> {
    let mut ranked: Vec<Ranked<'a>> = active.iter().map(|pod| Ranked::of(pod, related)).collect();
    ranked.sort_by(Ranked::cmp);
    ranked
        .into_iter()
        .take(count)
        .map(|ranked| ranked.pod)
        .collect()
}

struct Ranked<'a> {
    pod: &'a Pod,
    assigned: bool,
    phase: u8,
    ready_ms: Option<u64>,
    cost: i64,
    crowd: usize,
    restarts: i64,
    created_ms: u64,
}

impl<'a> Ranked<'a> {
    fn of(pod: &'a Pod, related: &BTreeMap<String, usize>) -> Self {
        Self {
            pod,
            assigned: !pod.spec.node_name.is_empty(),
            phase: match pod.status.phase.as_str() {
                "Pending" | "" => 0,
                "Unknown" => 1,
                _ => 2,
            },
            ready_ms: pod
                .ready_since()
                .map(|since| time::parse_ms(since).unwrap_or(0)),
            cost: pod.metadata.number(COST).unwrap_or(0),
            crowd: related.get(&pod.spec.node_name).copied().unwrap_or(0),
            restarts: pod
                .status
                .container_statuses
                .iter()
                .map(|c| c.restart_count)
                .max()
                .unwrap_or(0),
            created_ms: time::parse_ms(&pod.metadata.creation_timestamp).unwrap_or(0),
        }
    }

    /// The lesser goes first.
    fn cmp(&self, other: &Self) -> Ordering {
        self.assigned
            .cmp(&other.assigned)
            .then(self.phase.cmp(&other.phase))
            .then(self.ready_ms.is_some().cmp(&other.ready_ms.is_some()))
            .then(self.cost.cmp(&other.cost))
            // More company on the node goes first; of ready pods the one that has been ready for less time;
            // ages in powers of two, so that a moment does not decide.
            .then(other.crowd.cmp(&self.crowd))
            .then(magnitude(other.ready_ms, self.ready_ms))
            .then(other.restarts.cmp(&self.restarts))
            .then(magnitude(Some(other.created_ms), Some(self.created_ms)))
            .then(self.pod.metadata.uid.cmp(&other.pod.metadata.uid))
    }
}

/// Times compared by the order of magnitude of their ages.
fn magnitude(a: Option<u64>, b: Option<u64>) -> Ordering {
    let now = oarlock_sdk::host::now_ms();
    let scale = |time: Option<u64>| {
        time.map_or(0, |t| 64 - (now.saturating_sub(t) / 1_000).leading_zeros())
    };
    // The younger (larger time) counts as the greater.
    scale(b).cmp(&scale(a))
}
