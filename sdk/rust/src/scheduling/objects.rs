//! Lean typed views of pods and nodes: what scheduling plugins ask for, and no more (a typed parse is four times faster
//! than a tree).
//!
//! Invariant: unknown fields are skipped, missing ones are empty, and `null` counts as missing.

use std::collections::BTreeMap;

use oarlock_model::Quantity;
use serde::{Deserialize, Deserializer};

/// Labels or annotations.
pub type Texts = BTreeMap<String, String>;

fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    from: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// `metadata`
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Metadata {
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    #[serde(deserialize_with = "or_default")]
    pub namespace: String,
    #[serde(deserialize_with = "or_default")]
    pub uid: String,
    #[serde(deserialize_with = "or_default")]
    pub labels: Texts,
    #[serde(deserialize_with = "or_default")]
    pub annotations: Texts,
}

/// A v1.Pod.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Pod {
    #[serde(deserialize_with = "or_default")]
    pub metadata: Metadata,
    #[serde(deserialize_with = "or_default")]
    pub spec: PodSpec,
}

/// A pod's `spec`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PodSpec {
    #[serde(deserialize_with = "or_default")]
    pub node_name: String,
    #[serde(deserialize_with = "or_default")]
    pub priority: i64,
    #[serde(deserialize_with = "or_default")]
    pub priority_class_name: String,
    #[serde(deserialize_with = "or_default")]
    pub service_account_name: String,
    #[serde(deserialize_with = "or_default")]
    pub runtime_class_name: String,
    #[serde(deserialize_with = "or_default")]
    pub node_selector: Texts,
    #[serde(deserialize_with = "or_default")]
    pub tolerations: Vec<Toleration>,
    #[serde(deserialize_with = "or_default")]
    pub containers: Vec<Container>,
    #[serde(deserialize_with = "or_default")]
    pub init_containers: Vec<Container>,
}

/// A container.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Container {
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    #[serde(deserialize_with = "or_default")]
    pub image: String,
    #[serde(deserialize_with = "or_default")]
    pub resources: Resources,
}

/// A container's `resources`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Resources {
    #[serde(deserialize_with = "or_default")]
    pub requests: Amounts,
    #[serde(deserialize_with = "or_default")]
    pub limits: Amounts,
}

/// Quantities by resource name, as written.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct Amounts(BTreeMap<String, serde_json::Value>);

impl Amounts {
    /// The amount of a resource; none if it is not named (or is no quantity).
    pub fn get(&self, resource: &str) -> Option<Quantity> {
        Quantity::from_json(self.0.get(resource)?).ok()
    }

    /// Thousandths of a resource (of a CPU); 0 if it is not named.
    pub fn milli(&self, resource: &str) -> i64 {
        self.get(resource).map_or(0, Quantity::milli_value)
    }

    /// Whole units of a resource (bytes); 0 if it is not named.
    pub fn units(&self, resource: &str) -> i64 {
        self.get(resource).map_or(0, Quantity::value)
    }

    /// The names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

/// A toleration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Toleration {
    #[serde(deserialize_with = "or_default")]
    pub key: String,
    #[serde(deserialize_with = "or_default")]
    pub operator: String,
    #[serde(deserialize_with = "or_default")]
    pub value: String,
    #[serde(deserialize_with = "or_default")]
    pub effect: String,
}

impl Toleration {
    /// Whether it tolerates a taint (`Exists` and `Equal`).
    pub fn tolerates(&self, taint: &Taint) -> bool {
        (self.effect.is_empty() || self.effect == taint.effect)
            && (self.key.is_empty() || self.key == taint.key)
            && match self.operator.as_str() {
                "Exists" => true,
                "" | "Equal" => !self.key.is_empty() && self.value == taint.value,
                _ => false,
            }
    }
}

/// A v1.Node.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Node {
    #[serde(deserialize_with = "or_default")]
    pub metadata: Metadata,
    #[serde(deserialize_with = "or_default")]
    pub spec: NodeSpec,
    #[serde(deserialize_with = "or_default")]
    pub status: NodeStatus,
}

/// A node's `spec`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct NodeSpec {
    #[serde(deserialize_with = "or_default")]
    pub unschedulable: bool,
    #[serde(deserialize_with = "or_default")]
    pub taints: Vec<Taint>,
}

/// A taint.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Taint {
    #[serde(deserialize_with = "or_default")]
    pub key: String,
    #[serde(deserialize_with = "or_default")]
    pub value: String,
    #[serde(deserialize_with = "or_default")]
    pub effect: String,
}

/// A node's `status`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct NodeStatus {
    #[serde(deserialize_with = "or_default")]
    pub allocatable: Amounts,
    #[serde(deserialize_with = "or_default")]
    pub capacity: Amounts,
}

/// The parts of a node that [`Node`] has.
pub(super) const NODE_POINTERS: [&str; 7] = [
    "/metadata/name",
    "/metadata/labels",
    "/metadata/annotations",
    "/spec/taints",
    "/spec/unschedulable",
    "/status/allocatable",
    "/status/capacity",
];

/// The parts of a placed pod that [`Pod`] has.
pub(super) const POD_POINTERS: [&str; 5] = [
    "/metadata/name",
    "/metadata/namespace",
    "/metadata/uid",
    "/metadata/labels",
    "/metadata/annotations",
];

impl Pod {
    /// A label's value.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.metadata.labels.get(key).map(String::as_str)
    }

    /// An annotation's value.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.metadata.annotations.get(key).map(String::as_str)
    }

    /// Reads a v1.Pod.
    pub fn parse(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_and_null_parts_are_empty() {
        let check =
            |text: &str| assert_eq!(Pod::parse(text).expect(text), Pod::default(), "{text}");
        check("{}");
        check(
            r#"{"metadata":null,"spec":{"tolerations":null,"schedulerName":"x"},"status":{"phase":"Pending"}}"#,
        );
    }

    #[test]
    fn tolerations_match_as_kubernetes_has_it() {
        let taint = Taint {
            key: "k".into(),
            value: "v".into(),
            effect: "NoSchedule".into(),
        };
        let check = |text: &str, expect: bool| {
            let toleration: Toleration = serde_json::from_str(text).expect(text);
            assert_eq!(toleration.tolerates(&taint), expect, "{text}");
        };
        check(r#"{"operator":"Exists"}"#, true);
        check(
            r#"{"key":"k","operator":"Exists","effect":"NoExecute"}"#,
            false,
        );
        check(r#"{"key":"k","value":"v"}"#, true);
        check(r#"{"key":"k","value":"w"}"#, false);
        check("{}", false);
    }
}
