//! Amounts of resources: what a pod's quality of service is, and whether an amount may stand where it stands.

use oarlock_model::Quantity;
use serde_json::{Map, Value};

fn amounts<'a>(container: &'a Value, list: &str) -> Option<&'a Map<String, Value>> {
    container.get("resources")?.get(list)?.as_object()
}

/// The amount, if it is one and not zero.
fn positive(value: &Value) -> Option<Quantity> {
    Quantity::from_json(value)
        .ok()
        .filter(|q| !q.is_zero() && !q.is_negative())
}

/// `Guaranteed`: every container limits cpu and memory and requests as much; `BestEffort`: none asks for anything.
/// <https://kubernetes.io/docs/concepts/workloads/pods/pod-qos/>
pub fn qos_class(pod: &Value) -> &'static str {
    let mut containers: Vec<&Value> = ["initContainers", "containers"]
        .into_iter()
        .filter_map(|list| pod.get("spec")?.get(list)?.as_array())
        .flatten()
        .collect();
    // What is stated for the pod as a whole decides alone.
    let whole = pod.get("spec").filter(|spec| {
        spec.get("resources")
            .is_some_and(|r| r.as_object().is_some_and(|r| !r.is_empty()))
    });
    if let Some(whole) = whole {
        containers = vec![whole];
    }
    let (mut any, mut guaranteed) = (false, true);
    for container in containers {
        let mut limited = 0;
        for resource in ["cpu", "memory"] {
            let amount = |list| {
                amounts(container, list)
                    .and_then(|map| map.get(resource))
                    .and_then(positive)
            };
            let (limit, request) = (amount("limits"), amount("requests"));
            any |= limit.is_some() || request.is_some();
            if let Some(limit) = limit {
                limited += 1;
                guaranteed &= request.is_none_or(|r| r == limit);
            } else {
                guaranteed &= request.is_none();
            }
        }
        guaranteed &= limited == 2;
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}
