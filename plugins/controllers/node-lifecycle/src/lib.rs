//! Marks nodes that stopped beating, taints nodes by their conditions, and evicts pods that do not tolerate it.
//! Source: https://kubernetes.io/docs/concepts/architecture/nodes/ and
//! https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/

use controller_kit::{Condition, Meta, Pod, Taint, condition, time};
use oarlock_sdk::controller::{
    Cluster, DeleteOptions, Description, Error, Key, Outcome, Permission, Query, Reconciler, Watch,
};
use oarlock_sdk::host;
use serde::Deserialize;
use serde_json::{Value, json};

const NODES: &str = "v1/nodes";
const PODS: &str = "v1/pods";
const LEASES: &str = "coordination.k8s.io/v1/leases";
const LEASE_NAMESPACE: &str = "kube-node-lease";
const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// Conditions that taint a node while they are True (NetworkUnavailable too).
const PRESSURES: [(&str, &str); 4] = [
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
    (
        "NetworkUnavailable",
        "node.kubernetes.io/network-unavailable",
    ),
];
/// Conditions that a silent node says nothing true of any more.
const BEATEN: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];
const DEFAULT_GRACE_SECONDS: u64 = 40;
/// A node that is about to be found silent is looked at no sooner than so.
const MIN_WAIT_MS: u64 = 1_000;
/// How often the pods of a node that evicts are looked at.
const EVICTION_MS: u64 = 5_000;

#[derive(Debug)]
pub struct NodeLifecycle {
    grace_ms: u64,
}

impl Default for NodeLifecycle {
    fn default() -> Self {
        Self {
            grace_ms: DEFAULT_GRACE_SECONDS * 1_000,
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Config {
    grace_period_seconds: Option<u64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Node {
    metadata: Meta,
    spec: NodeSpec,
    status: NodeStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct NodeSpec {
    taints: Vec<Taint>,
    unschedulable: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct NodeStatus {
    conditions: Vec<Condition>,
}

impl Node {
    fn is(&self, kind: &str, status: &str) -> bool {
        condition(&self.status.conditions, kind).is_some_and(|c| c.status == status)
    }

    /// The taints that its state asks for, besides those that others have set. The eviction taint keeps its time.
    fn wanted_taints(&self, now: &str) -> Vec<Taint> {
        let ours = |key: &str| {
            key == NOT_READY
                || key == UNREACHABLE
                || key == UNSCHEDULABLE
                || PRESSURES.iter().any(|(_, taint)| *taint == key)
        };
        let mut taints: Vec<Taint> = self
            .spec
            .taints
            .iter()
            .filter(|t| !ours(&t.key))
            .cloned()
            .collect();
        let mut add = |key: &str, effect: &str| {
            let old = self
                .spec
                .taints
                .iter()
                .find(|t| t.key == key && t.effect == effect);
            let fresh = || Taint {
                key: key.to_owned(),
                value: String::new(),
                effect: effect.to_owned(),
                time_added: Some(now.to_owned()),
            };
            taints.push(old.cloned().unwrap_or_else(fresh));
        };
        if self.is("Ready", "False") {
            add(NOT_READY, "NoSchedule");
            add(NOT_READY, "NoExecute");
        } else if !self.is("Ready", "True") {
            add(UNREACHABLE, "NoSchedule");
            add(UNREACHABLE, "NoExecute");
        }
        for (_, taint) in PRESSURES.iter().filter(|(kind, _)| self.is(kind, "True")) {
            add(taint, "NoSchedule");
        }
        if self.spec.unschedulable {
            add(UNSCHEDULABLE, "NoSchedule");
        }
        taints
    }
}

impl Reconciler for NodeLifecycle {
    fn describe(&self) -> Description {
        let relevant = ["/spec/taints", "/spec/unschedulable", "/status/conditions"];
        let permissions = vec![
            Permission::to("get list watch patch update", "", "nodes"),
            Permission::to("patch update", "", "nodes/status"),
            Permission::to("get list watch delete", "", "pods"),
            Permission::to("patch update", "", "pods/status"),
            Permission::to("get list watch", "coordination.k8s.io", "leases"),
        ];
        let mut description = Description::new(
            "node-controller",
            vec![Watch::of(NODES).relevant(&relevant)],
            permissions,
        )
        .concurrent(2);
        description.config_schema =
            r#"{"type":"object","properties":{"gracePeriodSeconds":{"type":"integer","minimum":1}}}"#.to_owned();
        description
    }

    fn configure(&mut self, config: &str) -> Result<(), String> {
        let config: Config = serde_json::from_str(config).map_err(|e| e.to_string())?;
        self.grace_ms = config.grace_period_seconds.unwrap_or(DEFAULT_GRACE_SECONDS) * 1_000;
        Ok(())
    }

    fn reconcile(&self, cluster: &Cluster<'_>, key: &Key) -> Result<Outcome, Error> {
        let Some(mut node) = cluster.get_as::<Node>(NODES, key)? else {
            return Ok(Outcome::Done);
        };
        let now_ms = host::now_ms();
        let now = time::format_ms(now_ms);
        let silent_at = last_beat(cluster, &node)?.saturating_add(self.grace_ms);
        if now_ms >= silent_at && !node.is("Ready", "Unknown") {
            mark_silent(cluster, key, &node, &now)?;
            let Some(marked) = cluster.get_as::<Node>(NODES, key)? else {
                return Ok(Outcome::Done);
            };
            node = marked;
        }
        let taints = node.wanted_taints(&now);
        if taints != node.spec.taints {
            let patch = json!({"metadata": {"resourceVersion": node.metadata.resource_version}, "spec": {"taints": taints}});
            cluster.merge(NODES, key, &patch)?;
        }
        let evicting: Vec<&Taint> = taints.iter().filter(|t| t.effect == "NoExecute").collect();
        if !evicting.is_empty() {
            let next = evict(cluster, &key.name, &evicting, now_ms)?;
            return Ok(Outcome::RequeueAfter(next.clamp(MIN_WAIT_MS, EVICTION_MS)));
        }
        Ok(Outcome::RequeueAfter(
            silent_at.saturating_sub(now_ms).max(MIN_WAIT_MS),
        ))
    }
}

/// When the node was last heard of.
fn last_beat(cluster: &Cluster<'_>, node: &Node) -> Result<u64, Error> {
    let lease: Option<Value> =
        cluster.get_live_as(LEASES, &Key::new(LEASE_NAMESPACE, &node.metadata.name))?;
    let renewed = lease
        .as_ref()
        .and_then(|l| l.pointer("/spec/renewTime"))
        .and_then(Value::as_str);
    let renewed = renewed.and_then(time::parse_ms);
    let created = time::parse_ms(&node.metadata.creation_timestamp);
    Ok(renewed.max(created).unwrap_or(0))
}

/// Writes that nothing is known of the node, and that its pods are not ready.
fn mark_silent(cluster: &Cluster<'_>, key: &Key, node: &Node, now: &str) -> Result<(), Error> {
    let silent = |kind: &str| {
        Condition::new(
            kind,
            "Unknown",
            "NodeStatusUnknown",
            "Kubelet stopped posting node status.",
            now,
        )
    };
    let changed: Vec<Condition> = BEATEN.iter().map(|kind| silent(kind)).collect();
    cluster.raw().patch(
        NODES,
        key,
        "status",
        oarlock_sdk::controller::PatchKind::Strategic,
        &json!({"status": {"conditions": changed}}).to_string(),
    )?;
    let about = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": key.name, "uid": node.metadata.uid}});
    cluster.event(
        &about,
        "NodeNotReady",
        &format!("Node {} status is now: NodeNotReady", key.name),
    )?;
    for pod in pods(cluster, &key.name)?.iter().filter(|pod| pod.ready()) {
        let ready = json!({"type": "Ready", "status": "False", "lastTransitionTime": now});
        let patch = json!({"status": {"conditions": [ready]}}).to_string();
        let strategic = oarlock_sdk::controller::PatchKind::Strategic;
        match cluster
            .raw()
            .patch(PODS, &pod.metadata.key(), "status", strategic, &patch)
        {
            Err(failure) if failure.code != 404 => return Err(failure.into()),
            _ => {}
        }
    }
    Ok(())
}

fn pods(cluster: &Cluster<'_>, node: &str) -> Result<Vec<Pod>, Error> {
    cluster.list_as(PODS, &Query::all().field("spec.nodeName", node))
}

/// Deletes pods that do not tolerate the taints (any more); gives how long until the next one is due, in milliseconds.
fn evict(cluster: &Cluster<'_>, node: &str, taints: &[&Taint], now_ms: u64) -> Result<u64, Error> {
    let mut next = u64::MAX;
    let mut due: Vec<Key> = Vec::new();
    for pod in pods(cluster, node)?
        .iter()
        .filter(|pod| !pod.metadata.terminating())
    {
        match taints
            .iter()
            .filter_map(|taint| evicted_at(pod, taint, now_ms))
            .min()
        {
            Some(at) if at <= now_ms => due.push(pod.metadata.key()),
            Some(at) => next = next.min(at - now_ms),
            None => {}
        }
    }
    let results = cluster
        .raw()
        .delete_many(PODS, &due, &DeleteOptions::default());
    match results
        .into_iter()
        .filter_map(Result::err)
        .find(|failure| failure.code != 404)
    {
        Some(failure) => Err(failure.into()),
        None => Ok(next),
    }
}

/// When this taint evicts the pod; never, if it is tolerated without limit.
fn evicted_at(pod: &Pod, taint: &Taint, now_ms: u64) -> Option<u64> {
    let tolerations: Vec<_> = pod
        .spec
        .tolerations
        .iter()
        .filter(|t| t.tolerates(taint))
        .collect();
    if tolerations.is_empty() {
        return Some(now_ms);
    }
    let seconds = tolerations
        .iter()
        .filter_map(|t| t.toleration_seconds)
        .min()?;
    let since = taint
        .time_added
        .as_deref()
        .and_then(time::parse_ms)
        .unwrap_or(now_ms);
    Some(since.saturating_add(seconds.max(0) as u64 * 1_000))
}

oarlock_sdk::export_controller!(NodeLifecycle);

#[cfg(test)]
mod tests {
    use super::*;

    fn node(ready: &str) -> Node {
        serde_json::from_value(json!({"spec": {"taints": [{"key": "own", "effect": "NoSchedule"}]},
            "status": {"conditions": [{"type": "Ready", "status": ready}, {"type": "DiskPressure", "status": "True"}]}}))
        .unwrap()
    }

    #[test]
    fn taints_follow_conditions() {
        let check = |ready: &str, expect: &[&str]| {
            let taints = node(ready).wanted_taints("2026-01-01T00:00:00Z");
            let keys: Vec<String> = taints
                .iter()
                .map(|t| format!("{}:{}", t.key, t.effect))
                .collect();
            assert_eq!(keys, expect, "{ready}");
        };
        let disk = "node.kubernetes.io/disk-pressure:NoSchedule";
        check("True", &["own:NoSchedule", disk]);
        check(
            "False",
            &[
                "own:NoSchedule",
                "node.kubernetes.io/not-ready:NoSchedule",
                "node.kubernetes.io/not-ready:NoExecute",
                disk,
            ],
        );
        check(
            "Unknown",
            &[
                "own:NoSchedule",
                "node.kubernetes.io/unreachable:NoSchedule",
                "node.kubernetes.io/unreachable:NoExecute",
                disk,
            ],
        );
    }

    #[test]
    fn evictions() {
        let taint = Taint {
            key: UNREACHABLE.into(),
            value: String::new(),
            effect: "NoExecute".into(),
            time_added: Some("1970-01-01T00:00:10Z".into()),
        };
        let check = |tolerations: Value, expect: Option<u64>| {
            let pod: Pod =
                serde_json::from_value(json!({"spec": {"tolerations": tolerations}})).unwrap();
            assert_eq!(evicted_at(&pod, &taint, 20_000), expect);
        };
        check(json!([]), Some(20_000));
        check(json!([{"key": UNREACHABLE, "operator": "Exists"}]), None);
        check(
            json!([{"key": UNREACHABLE, "operator": "Exists", "tolerationSeconds": 300}]),
            Some(310_000),
        );
    }
}
