//! All simulated nodes as one state machine: watch events, write results and `now` in, writes to make out.
//!
//! Invariant: at most one write is under way for a pod and for a node, so writes of one object never overtake each other.
//! A write that failed is made again after [`RETRY_MS`].

mod nodes;
mod pods;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use foldhash::fast::RandomState;
use jiff::Timestamp;
use oarlock_client::{Key, Object};
use oarlock_model::{ApiError, Reason, meta};
use serde_json::Value;

use crate::config::NodeSimConfig;
use crate::timers::Timers;
use nodes::SimNode;
use pods::SimPod;

/// After a failed write.
pub const RETRY_MS: i64 = 1_000;

/// A write that the edge is to make; it reports back with the same [`Ticket`].
#[derive(Debug)]
pub enum Action {
    CreateNode { object: Value },
    CreateLease { object: Value },
    RenewLease { name: String, patch: Value },
    PatchNodeStatus { name: String, patch: Value },
    PatchPodStatus { key: Key, patch: Value },
    DeletePod { key: Key, uid: String },
}

/// Whose write it was.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Ticket {
    Node(usize),
    Lease(usize),
    PodStatus(Key),
    PodDelete(Key),
    /// A batch of the edge is over; means nothing to the core.
    Lane(usize),
}

/// A due time of ours.
#[derive(Debug)]
pub(crate) enum Timer {
    Lease(usize),
    Status(usize),
    /// Valid only if the pod's generation of timers is still this one.
    Pod(Key, u64),
}

pub struct Core {
    config: NodeSimConfig,
    nodes: Vec<SimNode>,
    by_name: HashMap<String, usize, RandomState>,
    pods: HashMap<Key, SimPod, RandomState>,
    timers: Timers<Timer>,
    actions: Vec<(Ticket, Action)>,
}

impl Core {
    /// Nodes are made at once; leases are spread over the renewal period.
    pub fn new(config: NodeSimConfig, now: Timestamp) -> Self {
        let mut core = Self {
            nodes: (0..config.count)
                .map(|index| SimNode::new(&config, index))
                .collect(),
            config,
            by_name: HashMap::default(),
            pods: HashMap::default(),
            timers: Timers::default(),
            actions: Vec::new(),
        };
        core.by_name = core
            .nodes
            .iter()
            .enumerate()
            .map(|(index, node)| (node.facts.name.clone(), index))
            .collect();
        for index in 0..core.nodes.len() {
            core.create_node(index, now);
        }
        core
    }

    /// When [`Core::tick`] wants to be called next (milliseconds since 1970).
    pub fn next_ms(&self) -> Option<i64> {
        self.timers.next_ms()
    }

    pub fn tick(&mut self, now: Timestamp) {
        while let Some(timer) = self.timers.pop(now.as_millisecond()) {
            match timer {
                Timer::Lease(node) => self.lease_due(node, now),
                Timer::Status(node) => self.status_due(node, now),
                Timer::Pod(key, generation) => self.pod_due(&key, generation, now),
            }
        }
    }

    pub fn take_actions(&mut self) -> Vec<(Ticket, Action)> {
        std::mem::take(&mut self.actions)
    }

    /// A Node was added or changed.
    pub fn node_seen(&mut self, object: Object, now: Timestamp) {
        if let Some(index) = self.by_name.get(meta::name(&object)).copied() {
            self.node_changed(index, object, now);
        }
    }

    pub fn node_gone(&mut self, object: &Value) {
        if let Some(index) = self.by_name.get(meta::name(object)).copied() {
            self.nodes[index].removed();
        }
    }

    /// A Pod was added or changed.
    pub fn pod_seen(&mut self, object: Object, now: Timestamp) {
        let Some(node) = object
            .pointer("/spec/nodeName")
            .and_then(Value::as_str)
            .and_then(|n| self.by_name.get(n))
        else {
            return;
        };
        self.pod_changed(*node, object, now);
    }

    pub fn pod_gone(&mut self, object: &Value) {
        let key = key_of(object);
        if self
            .pods
            .get(&key)
            .is_some_and(|pod| meta::uid(&pod.object) == meta::uid(object))
        {
            self.forget_pod(&key);
        }
    }

    /// A write came back: the object as stored (if the write gives one), or why not.
    pub fn done(
        &mut self,
        ticket: Ticket,
        result: Result<Option<Object>, ApiError>,
        now: Timestamp,
    ) {
        match ticket {
            Ticket::Node(index) => self.node_written(index, result, now),
            Ticket::Lease(index) => self.lease_written(index, result, now),
            Ticket::PodStatus(key) => self.pod_status_written(&key, result, now),
            Ticket::PodDelete(key) => self.pod_deleted(&key, result, now),
            Ticket::Lane(_) => {}
        }
    }
}

pub(crate) fn key_of(object: &Value) -> Key {
    Key {
        namespace: meta::namespace(object).to_owned(),
        name: meta::name(object).to_owned(),
    }
}

fn is(result: &Result<Option<Object>, ApiError>, reason: Reason) -> bool {
    result.as_ref().is_err_and(|e| e.reason == reason)
}
