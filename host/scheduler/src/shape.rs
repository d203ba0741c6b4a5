//! The shape of a pod: a hash of everything that decides where it fits and how well. Pods of one shape share a query.
//!
//! Left out is only what tells apart the pods of one owner and no scheduling rule reads: names, the bound node, the
//! generated service-account volume, container mounts, and the identity labels that StatefulSets and Jobs give each pod.

use std::hash::{BuildHasher, Hash, Hasher};

use foldhash::fast::FixedState;
use serde_json::{Map, Value};

/// 128 bits, so that chance never mixes two shapes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Shape(u64, u64);

/// Labels and annotations that differ between the pods of one owner, and that no rule reads.
const IDENTITY_KEYS: [&str; 6] = [
    "statefulset.kubernetes.io/pod-name",
    "apps.kubernetes.io/pod-index",
    "batch.kubernetes.io/job-completion-index",
    "batch.kubernetes.io/job-index-failure-count",
    "kubectl.kubernetes.io/last-applied-configuration",
    "kubernetes.io/config.seen",
];
const SPEC_LEFT_OUT: [&str; 4] = ["nodeName", "hostname", "subdomain", "volumes"];
const CONTAINER_LEFT_OUT: [&str; 1] = ["volumeMounts"];
/// Volumes of these kinds have no say in where a pod can run, and may have generated names.
const PLAIN_VOLUMES: [&str; 5] = [
    "projected",
    "configMap",
    "secret",
    "emptyDir",
    "downwardAPI",
];

impl Shape {
    pub fn of(pod: &Value) -> Self {
        let hash = |seed: u64| {
            let mut hasher = FixedState::with_seed(seed).build_hasher();
            hash_pod(pod, &mut hasher);
            hasher.finish()
        };
        Self(hash(1), hash(0x9e37_79b9_7f4a_7c15))
    }
}

fn hash_pod(pod: &Value, hasher: &mut impl Hasher) {
    let metadata = &pod["metadata"];
    hash_value(&metadata["namespace"], hasher);
    for field in ["labels", "annotations"] {
        hash_map(metadata[field].as_object(), &IDENTITY_KEYS, hasher);
    }
    let Some(spec) = pod.get("spec").and_then(Value::as_object) else {
        return;
    };
    for (name, value) in spec
        .iter()
        .filter(|(name, _)| !SPEC_LEFT_OUT.contains(&name.as_str()))
    {
        name.hash(hasher);
        match name.as_str() {
            "containers" | "initContainers" => {
                for container in value.as_array().into_iter().flatten() {
                    hash_map(container.as_object(), &CONTAINER_LEFT_OUT, hasher);
                }
            }
            _ => hash_value(value, hasher),
        }
    }
    for volume in spec
        .get("volumes")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        let is_plain = volume
            .as_object()
            .is_some_and(|v| v.keys().any(|k| PLAIN_VOLUMES.contains(&k.as_str())));
        if !is_plain {
            hash_map(volume.as_object(), &["name"], hasher);
        }
    }
}

fn hash_map(map: Option<&Map<String, Value>>, left_out: &[&str], hasher: &mut impl Hasher) {
    for (key, value) in map
        .into_iter()
        .flatten()
        .filter(|(key, _)| !left_out.contains(&key.as_str()))
    {
        key.hash(hasher);
        hash_value(value, hasher);
    }
    0xffu8.hash(hasher);
}

fn hash_value(value: &Value, hasher: &mut impl Hasher) {
    match value {
        Value::Null => 0u8.hash(hasher),
        Value::Bool(b) => (1u8, b).hash(hasher),
        Value::Number(n) => {
            2u8.hash(hasher);
            n.hash(hasher);
        }
        Value::String(s) => {
            3u8.hash(hasher);
            s.hash(hasher);
        }
        Value::Array(items) => {
            (4u8, items.len()).hash(hasher);
            items.iter().for_each(|item| hash_value(item, hasher));
        }
        Value::Object(map) => {
            5u8.hash(hasher);
            hash_map(Some(map), &[], hasher);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn same_or_not() {
        let base = json!({
            "metadata": {"namespace": "a", "name": "x", "labels": {"app": "web"}},
            "spec": {"containers": [{"image": "i", "volumeMounts": [{"name": "kube-api-access-1"}]}],
                     "volumes": [{"name": "kube-api-access-1", "projected": {}}]},
        });
        let check = |same: bool, change: &dyn Fn(&mut Value)| {
            let mut other = base.clone();
            change(&mut other);
            assert_eq!(Shape::of(&base) == Shape::of(&other), same, "{other}");
        };
        check(true, &|p| p["metadata"]["name"] = json!("y"));
        check(true, &|p| {
            p["metadata"]["labels"]["apps.kubernetes.io/pod-index"] = json!("3");
        });
        check(true, &|p| {
            p["spec"]["volumes"][0]["name"] = json!("kube-api-access-2");
            p["spec"]["containers"][0]["volumeMounts"][0]["name"] = json!("kube-api-access-2");
        });
        check(true, &|p| p["status"] = json!({"phase": "Pending"}));
        check(false, &|p| p["metadata"]["labels"]["app"] = json!("db"));
        check(false, &|p| p["metadata"]["namespace"] = json!("b"));
        check(false, &|p| p["spec"]["priority"] = json!(7));
        check(false, &|p| p["spec"]["containers"][0]["image"] = json!("j"));
        check(false, &|p| {
            p["spec"]["volumes"] =
                json!([{"name": "d", "persistentVolumeClaim": {"claimName": "c"}}]);
        });
    }
}
