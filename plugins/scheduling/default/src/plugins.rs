//! The plugins: their names, and each one's test or score of a node. A plugin is a small struct, compiled from a pod when
//! the query is opened, that looks at the mirror by slot.
//!
//! The rules are kube-scheduler's (https://kubernetes.io/docs/reference/scheduling/config/#scheduling-plugins).

pub mod affinity;
pub mod balanced;
pub mod fit;
pub mod images;
pub mod ports;
pub mod taints;

/// Places of the plugins in the component's list. The order is that of kube-scheduler's default profile.
pub const SCHEDULING_GATES: u32 = 0;
pub const PRIORITY_SORT: u32 = 1;
pub const NODE_UNSCHEDULABLE: u32 = 2;
pub const NODE_NAME: u32 = 3;
pub const TAINT_TOLERATION: u32 = 4;
pub const NODE_AFFINITY: u32 = 5;
pub const NODE_PORTS: u32 = 6;
pub const NODE_RESOURCES_FIT: u32 = 7;
pub const BALANCED_ALLOCATION: u32 = 8;
pub const IMAGE_LOCALITY: u32 = 9;

pub const NAMES: [&str; 10] = [
    "SchedulingGates",
    "PrioritySort",
    "NodeUnschedulable",
    "NodeName",
    "TaintToleration",
    "NodeAffinity",
    "NodePorts",
    "NodeResourcesFit",
    "NodeResourcesBalancedAllocation",
    "ImageLocality",
];

pub const UNSCHEDULABLE_REASON: &str = "node(s) were unschedulable";
pub const NODE_NAME_REASON: &str = "node(s) didn't match the requested node name";

/// The best score of a node by one plugin.
pub const MAX_NODE_SCORE: i64 = 100;
