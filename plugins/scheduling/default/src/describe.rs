//! What the bundle says of its plugins: points, scopes, weights, and what may make a refused pod fit.

use crate::plugins as p;
use crate::plugins::NAMES;

/// The parts of a node that the plugins read.
pub const NODE_POINTERS: [&str; 5] = [
    "/metadata/labels",
    "/spec/taints",
    "/spec/unschedulable",
    "/status/allocatable",
    "/status/images",
];

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Normalization {
    #[default]
    None,
    ByMaximum,
    ByMaximumReversed,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Wakes {
    pub node_add: bool,
    pub allocatable: bool,
    pub label: bool,
    pub taint: bool,
    pub pod_delete: bool,
    pub pod_update: bool,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Description {
    pub name: &'static str,
    pub pre_enqueue: bool,
    pub queue_sort: bool,
    pub pre_filter: bool,
    pub filter: bool,
    pub pre_score: bool,
    pub score: bool,
    /// Its scores depend on how many nodes have an image.
    pub score_by_node_objects: bool,
    pub normalization: Normalization,
    pub weight: u32,
    pub wakes: Wakes,
}

/// In the plugins' order.
pub fn all() -> Vec<Description> {
    (0..NAMES.len() as u32).map(one).collect()
}

fn one(plugin: u32) -> Description {
    let base = Description {
        name: NAMES[plugin as usize],
        ..Description::default()
    };
    let none = Wakes::default();
    match plugin {
        p::SCHEDULING_GATES => Description {
            pre_enqueue: true,
            wakes: Wakes {
                pod_update: true,
                ..none
            },
            ..base
        },
        p::PRIORITY_SORT => Description {
            queue_sort: true,
            ..base
        },
        p::NODE_UNSCHEDULABLE => Description {
            filter: true,
            wakes: Wakes {
                node_add: true,
                taint: true,
                pod_update: true,
                ..none
            },
            ..base
        },
        p::NODE_NAME => Description {
            filter: true,
            wakes: Wakes {
                node_add: true,
                ..none
            },
            ..base
        },
        p::TAINT_TOLERATION => Description {
            filter: true,
            pre_score: true,
            score: true,
            normalization: Normalization::ByMaximumReversed,
            weight: 3,
            wakes: Wakes {
                node_add: true,
                taint: true,
                pod_update: true,
                ..none
            },
            ..base
        },
        p::NODE_AFFINITY => Description {
            pre_filter: true,
            filter: true,
            pre_score: true,
            score: true,
            normalization: Normalization::ByMaximum,
            weight: 2,
            wakes: Wakes {
                node_add: true,
                label: true,
                pod_update: true,
                ..none
            },
            ..base
        },
        p::NODE_PORTS => Description {
            pre_filter: true,
            filter: true,
            wakes: Wakes {
                node_add: true,
                pod_delete: true,
                ..none
            },
            ..base
        },
        p::NODE_RESOURCES_FIT => Description {
            pre_filter: true,
            filter: true,
            score: true,
            weight: 1,
            wakes: Wakes {
                node_add: true,
                allocatable: true,
                pod_delete: true,
                pod_update: true,
                ..none
            },
            ..base
        },
        p::BALANCED_ALLOCATION => Description {
            pre_score: true,
            score: true,
            weight: 1,
            ..base
        },
        p::IMAGE_LOCALITY => Description {
            score: true,
            score_by_node_objects: true,
            weight: 1,
            ..base
        },
        _ => base,
    }
}
