//! The edge: watches, the clock, and writes in batches. All state is in [`Core`]; this task owns it.

use std::sync::Arc;

use futures::future::join_all;
use jiff::Timestamp;
use oarlock_client::{
    Cluster, DeleteOptions, Delta, Key, ListQuery, Object, Patch, Propagation, Reflector,
};
use oarlock_model::{ApiError, Gvr};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::SIMULATED_LABEL;
use crate::config::NodeSimConfig;
use crate::core::{Action, Core, Ticket};
use crate::node_object::LEASE_NAMESPACE;

/// Writes of one kind that go out together.
const MAX_BATCH: usize = 512;
/// Batches of one kind under way at once.
const MAX_BATCHES_IN_FLIGHT: usize = 3;
/// Deltas taken from a watch at once.
const MAX_DELTAS: usize = 1_024;
/// How long the loop sleeps when no timer is set.
const IDLE_MS: i64 = 60_000;

type Outcome = (Ticket, Result<Option<Object>, ApiError>);

/// Simulated nodes.
pub struct NodeSim;

/// Running simulated nodes. Dropping it without [`Handle::stop`] ends them too, but does not wait.
#[derive(Debug)]
pub struct Handle {
    stop: Option<oneshot::Sender<()>>,
    task: Option<JoinHandle<()>>,
}

impl NodeSim {
    /// Starts on the current tokio runtime.
    pub fn start(config: NodeSimConfig) -> Handle {
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(run(config, stopped));
        Handle {
            stop: Some(stop),
            task: Some(task),
        }
    }
}

impl Handle {
    /// Ends the simulation: nodes fall silent, their objects stay. Waits for the loop to end.
    pub async fn stop(mut self) {
        if let Some(stop) = self.stop.take() {
            let _gone = stop.send(());
        }
        if let Some(task) = self.task.take() {
            let _ended = task.await;
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }
}

struct Kinds {
    nodes: Gvr,
    pods: Gvr,
    leases: Gvr,
}

async fn run(config: NodeSimConfig, mut stopped: oneshot::Receiver<()>) {
    let kinds = Arc::new(Kinds {
        nodes: Gvr::new("", "v1", "nodes"),
        pods: Gvr::new("", "v1", "pods"),
        leases: Gvr::new("coordination.k8s.io", "v1", "leases"),
    });
    let cluster = Arc::clone(&config.cluster);
    let node_query = ListQuery {
        labels: format!("{SIMULATED_LABEL}=true"),
        ..ListQuery::default()
    };
    let pod_query = ListQuery {
        fields: "spec.nodeName!=".to_owned(),
        ..ListQuery::default()
    };
    let mut nodes = Reflector::start(Arc::clone(&cluster), kinds.nodes.clone(), node_query);
    let mut pods = Reflector::start(Arc::clone(&cluster), kinds.pods.clone(), pod_query);
    // Nodes of an earlier process must be known before ours are made, or a pause would be missed for a moment.
    tokio::select! {
        () = nodes.cache.synced() => {}
        _ = &mut stopped => return,
    }
    let mut core = Core::new(config, Timestamp::now());
    let (outcomes, mut finished) = mpsc::unbounded_channel::<Vec<Outcome>>();
    let mut lanes = [(); 5].map(|()| Lane::default());
    let (mut node_deltas, mut pod_deltas) = (Vec::new(), Vec::new());
    loop {
        for (ticket, action) in core.take_actions() {
            lanes[lane_of(&action)].waiting.push_back((ticket, action));
        }
        for (number, lane) in lanes.iter_mut().enumerate() {
            while lane.in_flight < MAX_BATCHES_IN_FLIGHT && !lane.waiting.is_empty() {
                lane.in_flight += 1;
                let batch: Vec<_> = lane
                    .waiting
                    .drain(..lane.waiting.len().min(MAX_BATCH))
                    .collect();
                let (cluster, kinds, outcomes) =
                    (Arc::clone(&cluster), Arc::clone(&kinds), outcomes.clone());
                tokio::spawn(async move {
                    let mut results = write(&*cluster, &kinds, batch).await;
                    if let Some(first) = results.iter().find_map(|(_, r)| r.as_ref().err()) {
                        tracing::debug!(lane = number, error = %first, "a simulated node's write failed");
                    }
                    results.push((Ticket::Lane(number), Ok(None)));
                    // The loop is gone only when the simulation ends.
                    let _ended = outcomes.send(results);
                });
            }
        }
        let now_ms = Timestamp::now().as_millisecond();
        let wait_ms = core
            .next_ms()
            .map_or(IDLE_MS, |at| (at - now_ms).clamp(0, IDLE_MS));
        tokio::select! {
            biased;
            _ = &mut stopped => return,
            Some(results) = finished.recv() => {
                let now = Timestamp::now();
                for (ticket, result) in results {
                    match ticket {
                        Ticket::Lane(number) => lanes[number].in_flight -= 1,
                        ticket => core.done(ticket, result, now),
                    }
                }
            }
            count = nodes.deltas.recv_many(&mut node_deltas, MAX_DELTAS) => {
                if count == 0 {
                    return;
                }
                let now = Timestamp::now();
                for delta in node_deltas.drain(..) {
                    match delta {
                        Delta::Added(object) | Delta::Updated { new: object, .. } => core.node_seen(object, now),
                        Delta::Deleted(object) => core.node_gone(&object),
                        Delta::Synced => {}
                    }
                }
            }
            count = pods.deltas.recv_many(&mut pod_deltas, MAX_DELTAS) => {
                if count == 0 {
                    return;
                }
                let now = Timestamp::now();
                for delta in pod_deltas.drain(..) {
                    match delta {
                        Delta::Added(object) | Delta::Updated { new: object, .. } => core.pod_seen(object, now),
                        Delta::Deleted(object) => core.pod_gone(&object),
                        Delta::Synced => {}
                    }
                }
            }
            () = tokio::time::sleep(std::time::Duration::from_millis(wait_ms as u64)) => core.tick(Timestamp::now()),
        }
    }
}

#[derive(Default)]
struct Lane {
    waiting: std::collections::VecDeque<(Ticket, Action)>,
    in_flight: usize,
}

/// Writes of one kind share a lane, so that a burst of one does not hold up leases.
fn lane_of(action: &Action) -> usize {
    match action {
        Action::CreateNode { .. } => 0,
        Action::PatchNodeStatus { .. } => 1,
        Action::CreateLease { .. } | Action::RenewLease { .. } => 2,
        Action::PatchPodStatus { .. } => 3,
        Action::DeletePod { .. } => 4,
    }
}

async fn write(cluster: &dyn Cluster, kinds: &Kinds, batch: Vec<(Ticket, Action)>) -> Vec<Outcome> {
    let mut statuses: Vec<(Ticket, Key, Value)> = Vec::new();
    let mut node_statuses: Vec<(Ticket, Key, Value)> = Vec::new();
    let mut singles = Vec::new();
    for (ticket, action) in batch {
        match action {
            Action::PatchPodStatus { key, patch } => statuses.push((ticket, key, patch)),
            Action::PatchNodeStatus { name, patch } => {
                node_statuses.push((
                    ticket,
                    Key {
                        namespace: String::new(),
                        name,
                    },
                    patch,
                ));
            }
            other => singles.push((ticket, other)),
        }
    }
    let mut outcomes = join_all(singles.into_iter().map(async |(ticket, action)| {
        let result = single(cluster, kinds, action).await;
        (ticket, result)
    }))
    .await;
    for (kind, patches) in [(&kinds.pods, statuses), (&kinds.nodes, node_statuses)] {
        if patches.is_empty() {
            continue;
        }
        let (tickets, patches): (Vec<_>, Vec<_>) = patches
            .into_iter()
            .map(|(t, key, patch)| (t, (key, patch)))
            .unzip();
        let results = cluster.patch_statuses(kind, patches).await;
        outcomes.extend(
            tickets
                .into_iter()
                .zip(results.into_iter().map(|r| r.map(Some))),
        );
    }
    outcomes
}

async fn single(
    cluster: &dyn Cluster,
    kinds: &Kinds,
    action: Action,
) -> Result<Option<Object>, ApiError> {
    match action {
        Action::CreateNode { object } => cluster.create(&kinds.nodes, "", object).await.map(Some),
        Action::CreateLease { object } => cluster
            .create(&kinds.leases, LEASE_NAMESPACE, object)
            .await
            .map(Some),
        Action::RenewLease { name, patch } => {
            let key = Key {
                namespace: LEASE_NAMESPACE.to_owned(),
                name,
            };
            cluster
                .patch(&kinds.leases, &key, "", Patch::Merge(patch))
                .await
                .map(Some)
        }
        Action::DeletePod { key, uid } => {
            let options = DeleteOptions {
                grace_period_seconds: Some(0),
                propagation: Some(Propagation::Background),
                uid,
                ..DeleteOptions::default()
            };
            cluster
                .delete(&kinds.pods, &key, options)
                .await
                .map(|()| None)
        }
        // Statuses are written in batches.
        Action::PatchPodStatus { .. } | Action::PatchNodeStatus { .. } => Ok(None),
    }
}
