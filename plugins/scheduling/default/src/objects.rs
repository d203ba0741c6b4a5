//! The parts of v1.Node and v1.Pod that the plugins read, as typed structs: parsing those is several times faster than
//! parsing trees. Absent and null read as empty.

use std::collections::BTreeMap;

use oarlock_model::Quantity;
use serde::{Deserialize, Deserializer};

/// null reads as the default.
fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

#[derive(Debug, Default, Deserialize)]
pub struct Node {
    #[serde(default)]
    pub metadata: NodeMeta,
    #[serde(default)]
    pub spec: NodeSpec,
    #[serde(default)]
    pub status: NodeStatus,
}

#[derive(Debug, Default, Deserialize)]
pub struct NodeMeta {
    #[serde(default, deserialize_with = "or_default")]
    pub labels: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
pub struct NodeSpec {
    #[serde(default, deserialize_with = "or_default")]
    pub unschedulable: bool,
    #[serde(default, deserialize_with = "or_default")]
    pub taints: Vec<Taint>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
pub struct Taint {
    #[serde(default)]
    pub key: String,
    #[serde(default, deserialize_with = "or_default")]
    pub value: String,
    #[serde(default)]
    pub effect: String,
}

#[derive(Debug, Default, Deserialize)]
pub struct NodeStatus {
    #[serde(default, deserialize_with = "or_default")]
    pub allocatable: BTreeMap<String, Quantity>,
    #[serde(default, deserialize_with = "or_default")]
    pub images: Vec<Image>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Image {
    #[serde(default, deserialize_with = "or_default")]
    pub names: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    pub size_bytes: i64,
}

#[derive(Debug, Default, Deserialize)]
pub struct Pod {
    #[serde(default)]
    pub spec: PodSpec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodSpec {
    #[serde(default, deserialize_with = "or_default")]
    pub node_name: String,
    pub node_selector: Option<BTreeMap<String, String>>,
    pub affinity: Option<Affinity>,
    #[serde(default, deserialize_with = "or_default")]
    pub tolerations: Vec<Toleration>,
    #[serde(default, deserialize_with = "or_default")]
    pub containers: Vec<Container>,
    #[serde(default, deserialize_with = "or_default")]
    pub init_containers: Vec<Container>,
    #[serde(default, deserialize_with = "or_default")]
    pub scheduling_gates: Vec<Gate>,
    #[serde(default, deserialize_with = "or_default")]
    pub priority: i64,
}

#[derive(Debug, Default, Deserialize)]
pub struct Gate {
    #[serde(default)]
    pub name: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub struct Toleration {
    #[serde(default, deserialize_with = "or_default")]
    pub key: String,
    #[serde(default, deserialize_with = "or_default")]
    pub operator: String,
    #[serde(default, deserialize_with = "or_default")]
    pub value: String,
    #[serde(default, deserialize_with = "or_default")]
    pub effect: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Container {
    #[serde(default, deserialize_with = "or_default")]
    pub image: String,
    #[serde(default, deserialize_with = "or_default")]
    pub ports: Vec<ContainerPort>,
    #[serde(default, deserialize_with = "or_default")]
    pub restart_policy: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerPort {
    #[serde(default, deserialize_with = "or_default")]
    pub host_port: i64,
    #[serde(default, deserialize_with = "or_default", rename = "hostIP")]
    pub host_ip: String,
    #[serde(default, deserialize_with = "or_default")]
    pub protocol: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Affinity {
    pub node_affinity: Option<NodeAffinity>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeAffinity {
    #[serde(rename = "requiredDuringSchedulingIgnoredDuringExecution")]
    pub required: Option<NodeSelector>,
    #[serde(rename = "preferredDuringSchedulingIgnoredDuringExecution")]
    pub preferred: Option<Vec<PreferredTerm>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeSelector {
    #[serde(default, deserialize_with = "or_default")]
    pub node_selector_terms: Vec<NodeSelectorTerm>,
}

#[derive(Debug, Default, Deserialize)]
pub struct PreferredTerm {
    #[serde(default)]
    pub weight: i64,
    #[serde(default)]
    pub preference: NodeSelectorTerm,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeSelectorTerm {
    #[serde(default, deserialize_with = "or_default")]
    pub match_expressions: Vec<Expression>,
    #[serde(default, deserialize_with = "or_default")]
    pub match_fields: Vec<Expression>,
}

#[derive(Debug, Default, Deserialize)]
pub struct Expression {
    #[serde(default)]
    pub key: String,
    #[serde(default)]
    pub operator: String,
    #[serde(default, deserialize_with = "or_default")]
    pub values: Vec<String>,
}
