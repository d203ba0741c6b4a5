//! Deletes pods of nodes that are gone, pods that were deleted before they got a node, and finished pods beyond a
//! threshold.
//! https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-garbage-collection

use std::collections::BTreeSet;

use controller_kit::{Meta, Pod, time};
use oarlock_sdk::controller::{
    Cluster, DeleteOptions, Description, Error, Key, Mapping, Outcome, Permission, Query,
    Reconciler, Watch,
};
use oarlock_sdk::host;
use serde::Deserialize;
use serde_json::{Value, json};

const PODS: &str = "v1/pods";
const NODES: &str = "v1/nodes";
/// Keys: one look at everything, and one node that is gone.
const SWEEP: &str = "sweep/";
const GONE: &str = "gone/";
const SWEEP_MS: u64 = 20_000;

#[derive(Default)]
pub struct PodGarbageCollector {
    config: Config,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct Config {
    /// Finished pods that may stay; 0: all.
    terminated_pod_threshold: usize,
    /// How long a node must be gone before its pods are deleted.
    quarantine_seconds: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            terminated_pod_threshold: 12_500,
            quarantine_seconds: 40,
        }
    }
}

oarlock_sdk::export_controller!(PodGarbageCollector);

impl Reconciler for PodGarbageCollector {
    fn configure(&mut self, config: &str) -> Result<(), String> {
        self.config = serde_json::from_str(config).map_err(|e| e.to_string())?;
        Ok(())
    }

    fn describe(&self) -> Description {
        let mut description = Description::new(
            "pod-garbage-collector",
            vec![
                Watch::of(NODES)
                    .by(Mapping::Custom)
                    .relevant(&["/metadata/uid"]),
                Watch::of(PODS)
                    .by(Mapping::Custom)
                    .relevant(&["/spec/nodeName", "/metadata/deletionTimestamp"]),
            ],
            vec![
                Permission::to("get list watch", "", "nodes"),
                Permission::to("get list watch delete", "", "pods"),
                Permission::to("patch", "", "pods/status"),
            ],
        );
        description.config_schema = json!({"type": "object", "properties": {
            "terminatedPodThreshold": {"type": "integer"}, "quarantineSeconds": {"type": "integer"}}})
        .to_string();
        description
    }

    fn keys_of(&self, watch: u32, object: &Value, gone: bool) -> Vec<Key> {
        let text = |pointer: &str| {
            object
                .pointer(pointer)
                .and_then(Value::as_str)
                .unwrap_or("")
        };
        let node = match (watch, gone) {
            // The periodic look begins with the first object that there is.
            (0, false) => return vec![Key::new("", SWEEP)],
            (0, true) => text("/metadata/name"),
            (_, false)
                if text("/spec/nodeName").is_empty()
                    && !text("/metadata/deletionTimestamp").is_empty() =>
            {
                return vec![Key::new("", SWEEP)];
            }
            _ => return Vec::new(),
        };
        vec![Key::new("", format!("{GONE}{node}"))]
    }

    fn reconcile(&self, cluster: &Cluster<'_>, key: &Key) -> Result<Outcome, Error> {
        match key.name.strip_prefix(GONE) {
            Some(node) => self.node_gone(cluster, node),
            None => {
                self.sweep(cluster)?;
                Ok(Outcome::RequeueAfter(SWEEP_MS))
            }
        }
    }
}

const PARTS: [&str; 7] = [
    "/metadata/name",
    "/metadata/namespace",
    "/metadata/uid",
    "/metadata/creationTimestamp",
    "/metadata/deletionTimestamp",
    "/spec/nodeName",
    "/status/phase",
];

impl PodGarbageCollector {
    /// A node that was deleted: after the quarantine, if it did not come back, its pods go.
    fn node_gone(&self, cluster: &Cluster<'_>, node: &str) -> Result<Outcome, Error> {
        let pods: Vec<Pod> = cluster.list_as(
            PODS,
            &Query::all().field("spec.nodeName", node).parts(&PARTS),
        )?;
        if pods.is_empty()
            || cluster
                .get_as::<Value>(NODES, &Key::new("", node))?
                .is_some()
        {
            return Ok(Outcome::Done);
        }
        // No state is kept here: the pods themselves carry the mark that says since when.
        let left = self.quarantine(cluster, &pods)?;
        if left > 0 {
            return Ok(Outcome::RequeueAfter(left));
        }
        if cluster
            .get_live_as::<Value>(NODES, &Key::new("", node))?
            .is_some()
        {
            return Ok(Outcome::Done);
        }
        for pod in &pods {
            force_delete(cluster, pod, "PodGC: node no longer exists")?;
        }
        Ok(Outcome::Done)
    }

    /// Milliseconds until the quarantine is over. It begins with the DisruptionTarget condition on the node's pods.
    fn quarantine(&self, cluster: &Cluster<'_>, pods: &[Pod]) -> Result<u64, Error> {
        let mut began = None;
        for pod in pods {
            let Some(whole) = cluster.get_as::<Pod>(PODS, &pod.metadata.key())? else {
                continue;
            };
            let mark = controller_kit::condition(&whole.status.conditions, "DisruptionTarget")
                .filter(|c| c.reason == "DeletionByPodGC");
            match mark.and_then(|c| time::parse_ms(c.last_transition_time.as_deref()?)) {
                Some(at) => began = Some(began.map_or(at, |b: u64| b.min(at))),
                None => {
                    let mut conditions: Vec<Value> =
                        serde_json::to_value(&whole.status.conditions)?
                            .as_array()
                            .cloned()
                            .unwrap_or_default();
                    conditions.retain(|c| c["type"] != "DisruptionTarget");
                    conditions.push(json!({
                        "type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC",
                        "message": "PodGC: node no longer exists", "lastTransitionTime": time::now(),
                    }));
                    let patch = json!({"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": conditions}});
                    ignore_absent(cluster.merge_status(PODS, &pod.metadata.key(), &patch))?;
                }
            }
        }
        let began = began.unwrap_or_else(host::now_ms);
        Ok((began + self.config.quarantine_seconds * 1_000).saturating_sub(host::now_ms()))
    }

    fn sweep(&self, cluster: &Cluster<'_>) -> Result<(), Error> {
        #[derive(Deserialize)]
        struct Node {
            metadata: Meta,
        }
        let nodes: Vec<Node> = cluster.list_as(NODES, &Query::all().parts(&["/metadata/name"]))?;
        let nodes: BTreeSet<&str> = nodes
            .iter()
            .map(|node| node.metadata.name.as_str())
            .collect();
        let pods: Vec<Pod> = cluster.list_as(PODS, &Query::all().parts(&PARTS))?;
        let orphaned: BTreeSet<&str> = pods
            .iter()
            .map(|pod| pod.spec.node_name.as_str())
            .filter(|n| !n.is_empty() && !nodes.contains(n))
            .collect();
        for node in orphaned {
            self.node_gone(cluster, node)?;
        }
        for pod in pods
            .iter()
            .filter(|pod| pod.spec.node_name.is_empty() && pod.metadata.terminating())
        {
            force_delete(cluster, pod, "PodGC: unscheduled terminating pod")?;
        }
        if self.config.terminated_pod_threshold == 0 {
            return Ok(());
        }
        let mut finished: Vec<&Pod> = pods
            .iter()
            .filter(|pod| pod.finished() && !pod.metadata.terminating())
            .collect();
        let surplus = finished
            .len()
            .saturating_sub(self.config.terminated_pod_threshold);
        finished.sort_by(|a, b| {
            a.metadata
                .creation_timestamp
                .cmp(&b.metadata.creation_timestamp)
        });
        for pod in finished.into_iter().take(surplus) {
            force_delete(cluster, pod, "")?;
        }
        Ok(())
    }
}

/// Deletes at once. A pod that did not finish is said to have failed, so that whoever counts on it knows.
fn force_delete(cluster: &Cluster<'_>, pod: &Pod, message: &str) -> Result<(), Error> {
    if !pod.finished() && !message.is_empty() {
        let patch = json!({"metadata": {"uid": pod.metadata.uid}, "status": {"phase": "Failed"}});
        ignore_absent(cluster.merge_status(PODS, &pod.metadata.key(), &patch))?;
    }
    let options = DeleteOptions {
        grace_period: Some(0),
        uid: pod.metadata.uid.clone(),
        ..DeleteOptions::default()
    };
    ignore_absent(
        cluster
            .delete(PODS, &pod.metadata.key(), &options)
            .map(drop),
    )
}

fn ignore_absent(result: Result<(), Error>) -> Result<(), Error> {
    result.or_else(|error| {
        if error.is_not_found() {
            Ok(())
        } else {
            Err(error)
        }
    })
}

#[cfg(test)]
mod tests {
    use oarlock_sdk::controller::testing::FakeCluster;

    use super::*;

    fn pod(fake: &FakeCluster, name: &str, node: &str, phase: &str) {
        fake.given(
            PODS,
            json!({"metadata": {"name": name, "namespace": "d"}, "spec": {"nodeName": node}, "status": {"phase": phase}}),
        );
    }

    #[test]
    fn pods_of_a_node_that_stays_away_go() {
        let fake = FakeCluster::new();
        let collector = PodGarbageCollector::default();
        host::set_now_ms(1_767_225_600_000);
        fake.given(NODES, json!({"metadata": {"name": "n1"}}));
        pod(&fake, "kept", "n1", "Running");
        pod(&fake, "lost", "n2", "Running");
        assert_eq!(
            collector.keys_of(0, &json!({"metadata": {"name": "n2"}}), true),
            [Key::new("", "gone/n2")]
        );
        assert_eq!(
            fake.reconcile(&collector, "", "gone/n2"),
            Ok(Outcome::RequeueAfter(40_000))
        );
        assert_eq!(fake.reconcile(&collector, "", "gone/n1"), Ok(Outcome::Done));
        host::set_now_ms(1_767_225_600_000 + 40_000);
        assert_eq!(fake.reconcile(&collector, "", "gone/n2"), Ok(Outcome::Done));
        assert_eq!(fake.all(PODS).len(), 1);
        assert!(fake.at(PODS, "d", "kept").is_some());
    }

    #[test]
    fn finished_pods_beyond_the_threshold_go_and_so_do_unscheduled_ones() {
        let fake = FakeCluster::new();
        let mut collector = PodGarbageCollector::default();
        collector
            .configure(r#"{"terminatedPodThreshold": 1}"#)
            .unwrap();
        assert!(
            collector
                .configure(r#"{"terminatedPodTreshold": 1}"#)
                .is_err()
        );
        collector
            .configure(r#"{"terminatedPodThreshold": 1}"#)
            .unwrap();
        fake.given(NODES, json!({"metadata": {"name": "n1"}}));
        pod(&fake, "a", "n1", "Succeeded");
        pod(&fake, "b", "n1", "Failed");
        pod(&fake, "c", "n1", "Running");
        pod(&fake, "d", "", "Pending");
        fake.change(PODS, "d", "d", |pod| {
            pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z")
        });
        assert_eq!(
            fake.reconcile(&collector, "", SWEEP),
            Ok(Outcome::RequeueAfter(SWEEP_MS))
        );
        assert_eq!(fake.all(PODS).len(), 2);
        assert!(fake.at(PODS, "d", "c").is_some());
    }
}
