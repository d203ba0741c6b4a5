//! The preparation that FORMAT.md of the recordings asks for: what an API server would have filled in.

use oarlock_model::Quantity;
use oarlock_model::pod_requests::{Counting, PodResources};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// Quantities in thousandths, rounded up.
fn round(list: Option<&mut Value>) {
    let Some(Value::Object(map)) = list else {
        return;
    };
    for value in map.values_mut() {
        if let Ok(quantity) = Quantity::from_json(value) {
            *value = Value::String(quantity.rounded_to_milli().to_string());
        }
    }
}

pub fn node(mut node: Value) -> Value {
    let status = &mut node["status"];
    if status.get("allocatable").is_none()
        && let Some(capacity) = status.get("capacity").cloned()
    {
        status["allocatable"] = capacity;
    }
    round(status.get_mut("allocatable"));
    node
}

pub fn pod(mut pod: Value) -> Value {
    let metadata = pod["metadata"].as_object_mut().expect("a pod has metadata");
    let namespace = metadata
        .entry("namespace")
        .or_insert_with(|| json!("default"))
        .as_str()
        .unwrap_or("")
        .to_owned();
    let name = metadata["name"].as_str().unwrap_or("").to_owned();
    metadata
        .entry("uid")
        .or_insert_with(|| json!(format!("Pod/{namespace}/{name}")));
    let host_network = pod["spec"]["hostNetwork"] == true;
    for list in ["containers", "initContainers"] {
        for container in pod["spec"]
            .get_mut(list)
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            defaults_of_container(container, host_network);
        }
    }
    for list in ["containerStatuses", "initContainerStatuses"] {
        for status in pod
            .get_mut("status")
            .and_then(|s| s.get_mut(list))
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            round(status.get_mut("allocatedResources"));
            round(
                status
                    .get_mut("resources")
                    .and_then(|r| r.get_mut("requests")),
            );
        }
    }
    round(pod["spec"].get_mut("overhead"));
    pod_level_requests(&mut pod);
    pod
}

fn defaults_of_container(container: &mut Value, host_network: bool) {
    if let Some(resources) = container.get_mut("resources") {
        round(resources.get_mut("limits"));
        round(resources.get_mut("requests"));
        if let Some(limits) = resources.get("limits").and_then(Value::as_object).cloned() {
            let mut requests = resources
                .get("requests")
                .and_then(Value::as_object)
                .cloned()
                .unwrap_or_default();
            for (name, limit) in limits {
                requests.entry(name).or_insert(limit);
            }
            resources["requests"] = Value::Object(requests);
        }
    }
    for port in container
        .get_mut("ports")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        if host_network && port["hostPort"].as_i64().unwrap_or(0) == 0 {
            port["hostPort"] = port["containerPort"].clone();
        }
    }
}

fn pod_level_requests(pod: &mut Value) {
    let Some(resources) = pod["spec"].get_mut("resources") else {
        return;
    };
    round(resources.get_mut("limits"));
    round(resources.get_mut("requests"));
    let limits = resources
        .get("limits")
        .and_then(Value::as_object)
        .cloned()
        .unwrap_or_default();
    if limits.is_empty() {
        return;
    }
    let mut requests = resources
        .get("requests")
        .and_then(Value::as_object)
        .cloned()
        .unwrap_or_default();
    let mut plain = pod.clone();
    for field in ["resources", "overhead"] {
        plain["spec"]
            .as_object_mut()
            .map(|spec: &mut Map<String, Value>| spec.remove(field));
    }
    let of_containers = PodResources::deserialize(&plain)
        .unwrap_or_default()
        .requests(Counting::default());
    let is_pod_level =
        |name: &str| name == "cpu" || name == "memory" || name.starts_with("hugepages-");
    for (name, amount) in of_containers.iter().filter(|(name, _)| is_pod_level(name)) {
        requests
            .entry(name.clone())
            .or_insert_with(|| json!(amount.to_string()));
    }
    for (name, limit) in limits.iter().filter(|(name, _)| is_pod_level(name)) {
        requests
            .entry(name.clone())
            .or_insert_with(|| limit.clone());
    }
    if !requests.is_empty() {
        pod["spec"]["resources"]["requests"] = Value::Object(requests);
    }
}
