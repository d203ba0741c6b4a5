//! What an object counts for in a quota, by kind.

use std::collections::{BTreeMap, BTreeSet};

use oarlock_model::Quantity;
use serde_json::Value;

use crate::admission::builtin::limits::{Amounts, amounts, of_whole_pod};
use crate::admission::builtin::list;
use crate::{Target, strategy};

const CLASS_SUFFIX: &str = ".storageclass.storage.k8s.io/";
/// What every container must say of itself where a quota counts it.
const TO_SAY: [&str; 6] = [
    "cpu",
    "memory",
    "requests.cpu",
    "requests.memory",
    "limits.cpu",
    "limits.memory",
];

fn is(target: &Target, kind: &str) -> bool {
    strategy::is(&target.row, "", kind)
}

/// Updates that may add to what is used.
pub(super) fn changes(target: &Target) -> bool {
    match target.subresource.as_str() {
        "" => is(target, "Service") || is(target, "PersistentVolumeClaim"),
        "resize" => is(target, "Pod"),
        _ => false,
    }
}

/// `count/deployments.apps`, `count/pods`
fn count_name(target: &Target) -> String {
    let row = &target.row;
    if row.group.is_empty() {
        format!("count/{}", row.resource)
    } else {
        format!("count/{}.{}", row.resource, row.group)
    }
}

/// Kinds that may be counted by their plain names.
fn plain_name(target: &Target) -> Option<&str> {
    const PLAIN: [&str; 7] = [
        "configmaps",
        "persistentvolumeclaims",
        "pods",
        "replicationcontrollers",
        "resourcequotas",
        "secrets",
        "services",
    ];
    let row = &target.row;
    (row.group.is_empty() && PLAIN.contains(&row.resource.as_str()))
        .then_some(row.resource.as_str())
}

fn is_extended(resource: &str) -> bool {
    oarlock_model::pod_requests::is_extended_resource(resource)
}

/// Whether a resource of a quota is one that objects of this kind use.
pub(super) fn counts(target: &Target, resource: &str) -> bool {
    if resource == count_name(target) || plain_name(target) == Some(resource) {
        return true;
    }
    if is(target, "Pod") {
        let request = resource.strip_prefix("requests.");
        return TO_SAY.contains(&resource)
            || matches!(
                resource,
                "ephemeral-storage" | "requests.ephemeral-storage" | "limits.ephemeral-storage"
            )
            || resource.starts_with("hugepages-")
            || request.is_some_and(|name| name.starts_with("hugepages-") || is_extended(name));
    }
    if is(target, "Service") {
        return matches!(resource, "services.nodeports" | "services.loadbalancers");
    }
    is(target, "PersistentVolumeClaim")
        && (resource == "requests.storage" || resource.contains(CLASS_SUFFIX))
}

/// What requests and limits count for.
fn computed(requests: &Amounts, limits: &Amounts) -> Amounts {
    let mut used = Amounts::new();
    for (name, amount) in requests {
        match name.as_str() {
            "cpu" | "memory" | "ephemeral-storage" => {
                used.insert(name.clone(), *amount);
                used.insert(format!("requests.{name}"), *amount);
            }
            other if other.starts_with("hugepages-") => {
                used.insert(name.clone(), *amount);
                used.insert(format!("requests.{name}"), *amount);
            }
            other if is_extended(other) => {
                used.insert(format!("requests.{name}"), *amount);
            }
            _ => {}
        }
    }
    for name in ["cpu", "memory", "ephemeral-storage"] {
        if let Some(amount) = limits.get(name) {
            used.insert(format!("limits.{name}"), *amount);
        }
    }
    used
}

/// `limits.memory for: c1; requests.cpu for: c1,c2`: what containers leave open that the quota must know.
pub(super) fn unsaid(target: &Target, object: &Value, ours: &BTreeSet<&str>) -> Option<String> {
    if !is(target, "Pod") {
        return None;
    }
    let wanted: Vec<&str> = TO_SAY.into_iter().filter(|r| ours.contains(r)).collect();
    let whole = computed(
        &amounts(object, "/spec/resources/requests"),
        &amounts(object, "/spec/resources/limits"),
    );
    let mut missing: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let containers = list(object, "/spec/containers")
        .iter()
        .chain(list(object, "/spec/initContainers"));
    for container in containers {
        let said = computed(
            &amounts(container, "/resources/requests"),
            &amounts(container, "/resources/limits"),
        );
        for resource in &wanted {
            if !said.contains_key(*resource) && !whole.contains_key(*resource) {
                let name = container["name"].as_str().unwrap_or_default();
                missing.entry(resource).or_default().insert(name);
            }
        }
    }
    if missing.is_empty() {
        return None;
    }
    let texts: Vec<String> = missing
        .into_iter()
        .map(|(resource, names)| {
            let names: Vec<&str> = names.into_iter().collect();
            format!("{resource} for: {}", names.join(","))
        })
        .collect();
    Some(texts.join("; "))
}

/// What the object uses in all.
pub(super) fn of(target: &Target, object: &Value) -> Amounts {
    let one = Quantity::from_units(1);
    let mut used = Amounts::new();
    used.insert(count_name(target), one);
    if let Some(name) = plain_name(target) {
        used.insert(name.to_owned(), one);
    }
    if is(target, "Pod") {
        let ended = matches!(
            object.pointer("/status/phase").and_then(Value::as_str),
            Some("Succeeded" | "Failed")
        );
        if ended {
            used.remove("pods");
        } else {
            used.extend(computed(
                &of_whole_pod(object, "requests"),
                &of_whole_pod(object, "limits"),
            ));
        }
    } else if is(target, "Service") {
        let spec = &object["spec"];
        let kind = spec["type"].as_str().unwrap_or_default();
        let ports = list(object, "/spec/ports");
        let nodes = match kind {
            "NodePort" => ports.len(),
            "LoadBalancer" if spec["allocateLoadBalancerNodePorts"] != false => ports.len(),
            "LoadBalancer" => ports
                .iter()
                .filter(|port| port["nodePort"].as_i64().is_some_and(|p| p != 0))
                .count(),
            _ => 0,
        };
        let balancers = i64::from(kind == "LoadBalancer");
        let nodes = i64::try_from(nodes).unwrap_or(i64::MAX);
        used.insert("services.nodeports".to_owned(), Quantity::from_units(nodes));
        used.insert(
            "services.loadbalancers".to_owned(),
            Quantity::from_units(balancers),
        );
    } else if is(target, "PersistentVolumeClaim") {
        let class = object
            .pointer("/spec/storageClassName")
            .and_then(Value::as_str)
            .filter(|class| !class.is_empty());
        let storage = amounts(object, "/spec/resources/requests").remove("storage");
        if let Some(class) = class {
            used.insert(format!("{class}{CLASS_SUFFIX}persistentvolumeclaims"), one);
        }
        if let Some(storage) = storage {
            used.insert("requests.storage".to_owned(), storage);
            if let Some(class) = class {
                used.insert(format!("{class}{CLASS_SUFFIX}requests.storage"), storage);
            }
        }
    }
    used
}

/// Whether a pod's affinity names namespaces other than by default.
pub(super) fn reaches_out(spec: &Value) -> bool {
    ["podAffinity", "podAntiAffinity"].iter().any(|kind| {
        let terms = &spec["affinity"][*kind];
        let required = list(terms, "/requiredDuringSchedulingIgnoredDuringExecution").iter();
        let preferred = list(terms, "/preferredDuringSchedulingIgnoredDuringExecution")
            .iter()
            .map(|weighted| &weighted["podAffinityTerm"]);
        required.chain(preferred).any(|term| {
            !list(term, "/namespaces").is_empty() || term["namespaceSelector"].is_object()
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use oarlock_kinds::Kinds;
    use serde_json::json;

    fn target(group: &str, resource: &str) -> Target {
        let row = Kinds::builtin()
            .resource(group, "v1", resource)
            .expect("a built-in kind");
        Target::new(&row, "n", "x")
    }

    #[test]
    fn pods_count_by_requests_and_limits() {
        let pods = target("", "pods");
        let pod = json!({"spec": {"containers": [{"name": "c", "resources": {
            "requests": {"cpu": "600m", "memory": "1Mi", "example.com/gpu": "2"}, "limits": {"memory": "2Mi"}}}]}});
        let used = of(&pods, &pod);
        let texts: Vec<String> = used
            .iter()
            .map(|(name, amount)| format!("{name}={amount}"))
            .collect();
        assert_eq!(
            texts.join(" "),
            "count/pods=1 cpu=600m limits.memory=2Mi memory=1Mi pods=1 requests.cpu=600m requests.example.com/gpu=2 \
             requests.memory=1Mi"
        );
        let ours = BTreeSet::from(["limits.cpu", "limits.memory", "pods"]);
        assert_eq!(
            unsaid(&pods, &pod, &ours).as_deref(),
            Some("limits.cpu for: c")
        );
        assert!(counts(&pods, "requests.example.com/gpu") && !counts(&pods, "requests.storage"));
    }

    #[test]
    fn any_kind_can_be_counted() {
        let deployments = target("apps", "deployments");
        assert!(counts(&deployments, "count/deployments.apps"));
        assert!(!counts(&deployments, "deployments.apps"));
        assert_eq!(of(&deployments, &json!({})).len(), 1);
    }
}
