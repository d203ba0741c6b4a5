//! What the binary says about simulated nodes. Plain data.

use std::collections::BTreeMap;
use std::sync::Arc;

use oarlock_client::Cluster;

/// What each node offers.
#[derive(Clone, Debug)]
pub struct NodeCapacity {
    pub cpu: String,
    pub memory: String,
    pub ephemeral_storage: String,
    pub pods: u32,
    /// Extended resources, as in `nvidia.com/gpu`.
    pub extended: BTreeMap<String, String>,
}

impl Default for NodeCapacity {
    fn default() -> Self {
        Self {
            cpu: "32".to_owned(),
            memory: "128Gi".to_owned(),
            ephemeral_storage: "512Gi".to_owned(),
            pods: 110,
            extended: BTreeMap::new(),
        }
    }
}

#[derive(Clone)]
pub struct NodeSimConfig {
    pub cluster: Arc<dyn Cluster>,
    pub count: usize,
    /// Nodes are called `PREFIX0`, `PREFIX1`, ….
    pub prefix: String,
    pub capacity: NodeCapacity,
    /// Labels in addition to the usual ones.
    pub labels: BTreeMap<String, String>,
    /// How often a lease is renewed.
    pub lease_renew_ms: i64,
    pub lease_duration_seconds: i64,
    /// How often an unchanged node status is written again.
    pub status_period_ms: i64,
    /// From being bound to running.
    pub start_latency_ms: i64,
    /// From the deletion to the end of the containers (never longer than the grace period).
    pub stop_latency_ms: i64,
    pub kubelet_version: String,
}

impl NodeSimConfig {
    pub fn new(cluster: Arc<dyn Cluster>, count: usize) -> Self {
        Self {
            cluster,
            count,
            prefix: "oarlock-node-".to_owned(),
            capacity: NodeCapacity::default(),
            labels: BTreeMap::new(),
            lease_renew_ms: 10_000,
            lease_duration_seconds: 40,
            status_period_ms: 5 * 60_000,
            start_latency_ms: 0,
            stop_latency_ms: 0,
            kubelet_version: "v1.37.0".to_owned(),
        }
    }
}
