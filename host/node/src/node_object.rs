//! Node and Lease objects of simulated nodes. Pure.

use jiff::Timestamp;
use oarlock_model::time::{format_micro_time, format_time};
use serde_json::{Map, Value, json};

use crate::config::{NodeCapacity, NodeSimConfig};
use crate::{SIMULATED_LABEL, ids};

pub const LEASE_NAMESPACE: &str = "kube-node-lease";

/// What a node's objects are made from.
#[derive(Clone, Debug)]
pub struct NodeFacts {
    pub name: String,
    pub address: String,
    pub pod_cidr: String,
}

pub fn node(facts: &NodeFacts, config: &NodeSimConfig, now: Timestamp) -> Value {
    let mut labels = json!({
        "kubernetes.io/hostname": facts.name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
        "beta.kubernetes.io/os": "linux",
        "beta.kubernetes.io/arch": "amd64",
        "node-role.kubernetes.io/simulated": "",
        SIMULATED_LABEL: "true",
    });
    for (key, value) in &config.labels {
        labels[key] = json!(value);
    }
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": facts.name,
            "labels": labels,
            "annotations": {"node.alpha.kubernetes.io/ttl": "0"},
        },
        "spec": {
            "podCIDR": facts.pod_cidr,
            "podCIDRs": [facts.pod_cidr],
            "providerID": format!("oarlock-sim://{}", facts.name),
        },
        "status": status(facts, config, None, now),
    })
}

/// The whole status. Conditions of types that are not ours, and transition times of those that are, come from
/// `current` (the Node as last seen).
pub fn status(
    facts: &NodeFacts,
    config: &NodeSimConfig,
    current: Option<&Value>,
    now: Timestamp,
) -> Value {
    json!({
        "capacity": resources(&config.capacity),
        "allocatable": resources(&config.capacity),
        "conditions": conditions(current, now),
        "addresses": [
            {"type": "InternalIP", "address": facts.address},
            {"type": "Hostname", "address": facts.name},
        ],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
        "nodeInfo": {
            "machineID": ids::digest(&["machine", &facts.name])[..32],
            "systemUUID": ids::uuid_like(&["system", &facts.name]),
            "bootID": ids::uuid_like(&["boot", &facts.name]),
            "kernelVersion": "simulated",
            "osImage": "Oarlock simulated node",
            "containerRuntimeVersion": "oarlock-sim://0.1",
            "kubeletVersion": config.kubelet_version,
            "kubeProxyVersion": "",
            "operatingSystem": "linux",
            "architecture": "amd64",
        },
    })
}

fn resources(capacity: &NodeCapacity) -> Value {
    let mut map = Map::new();
    map.insert("cpu".to_owned(), json!(capacity.cpu));
    map.insert("memory".to_owned(), json!(capacity.memory));
    map.insert(
        "ephemeral-storage".to_owned(),
        json!(capacity.ephemeral_storage),
    );
    map.insert("pods".to_owned(), json!(capacity.pods.to_string()));
    for (name, amount) in &capacity.extended {
        map.insert(name.clone(), json!(amount));
    }
    Value::Object(map)
}

const CONDITIONS: [(&str, &str, &str, &str); 4] = [
    (
        "MemoryPressure",
        "False",
        "KubeletHasSufficientMemory",
        "kubelet has sufficient memory available",
    ),
    (
        "DiskPressure",
        "False",
        "KubeletHasNoDiskPressure",
        "kubelet has no disk pressure",
    ),
    (
        "PIDPressure",
        "False",
        "KubeletHasSufficientPID",
        "kubelet has sufficient PID available",
    ),
    (
        "Ready",
        "True",
        "KubeletReady",
        "kubelet is posting ready status",
    ),
];

fn conditions(current: Option<&Value>, now: Timestamp) -> Vec<Value> {
    let now = format_time(now);
    let seen: Vec<&Value> = current
        .and_then(|node| node.pointer("/status/conditions")?.as_array())
        .map(|list| list.iter().collect())
        .unwrap_or_default();
    let mut conditions: Vec<Value> = seen
        .iter()
        .filter(|c| !CONDITIONS.iter().any(|ours| c["type"] == ours.0))
        .map(|c| (*c).clone())
        .collect();
    for (kind, status, reason, message) in CONDITIONS {
        let since = seen
            .iter()
            .find(|c| c["type"] == kind && c["status"] == status)
            .and_then(|c| c["lastTransitionTime"].as_str())
            .unwrap_or(&now);
        conditions.push(json!({
            "type": kind, "status": status, "reason": reason, "message": message,
            "lastHeartbeatTime": now, "lastTransitionTime": since,
        }));
    }
    conditions
}

/// Whether the Node as last seen says what a healthy node says (so that nothing needs writing before the period is over).
pub fn is_current(node: &Value) -> bool {
    let Some(conditions) = node.pointer("/status/conditions").and_then(Value::as_array) else {
        return false;
    };
    CONDITIONS.iter().all(|(kind, status, ..)| {
        conditions
            .iter()
            .any(|c| c["type"] == *kind && c["status"] == *status)
    })
}

pub fn lease(facts: &NodeFacts, node_uid: &str, config: &NodeSimConfig, now: Timestamp) -> Value {
    json!({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {
            "name": facts.name,
            "namespace": LEASE_NAMESPACE,
            "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": facts.name, "uid": node_uid}],
        },
        "spec": {
            "holderIdentity": facts.name,
            "leaseDurationSeconds": config.lease_duration_seconds,
            "renewTime": format_micro_time(now),
        },
    })
}

/// The merge patch that renews a lease.
pub fn lease_renewal(facts: &NodeFacts, now: Timestamp) -> Value {
    json!({"spec": {"holderIdentity": facts.name, "renewTime": format_micro_time(now)}})
}
