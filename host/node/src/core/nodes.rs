//! Nodes and leases: registration, renewal, status.

use jiff::Timestamp;
use oarlock_client::Object;
use oarlock_model::{ApiError, Reason, meta};

use super::{Action, Core, RETRY_MS, Ticket, Timer, is};
use crate::HEARTBEAT_ANNOTATION;
use crate::config::NodeSimConfig;
use crate::ids::{self, PodRange};
use crate::node_object::{self, NodeFacts};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Registration {
    /// The Node is being made.
    Wanted,
    /// The Node exists.
    Done,
    /// Someone deleted the Node: like a kubelet, we do not make it again until the process starts anew.
    Removed,
}

#[derive(Debug)]
pub(super) struct SimNode {
    pub facts: NodeFacts,
    pub range: PodRange,
    object: Option<Object>,
    registration: Registration,
    /// False while the annotation silences it.
    pub beating: bool,
    lease_made: bool,
    lease_timer: bool,
    lease_in_flight: bool,
    status_in_flight: bool,
    /// The status was disturbed while a write was under way.
    status_dirty: bool,
    /// Timers before this are out of date.
    status_at_ms: i64,
}

impl SimNode {
    pub fn new(config: &NodeSimConfig, index: usize) -> Self {
        let range = PodRange::new(index, config.capacity.pods);
        Self {
            facts: NodeFacts {
                name: format!("{}{index}", config.prefix),
                address: ids::node_address(index).to_string(),
                pod_cidr: range.cidr(),
            },
            range,
            object: None,
            registration: Registration::Wanted,
            beating: true,
            lease_made: false,
            lease_timer: false,
            lease_in_flight: false,
            status_in_flight: false,
            status_dirty: false,
            status_at_ms: 0,
        }
    }

    pub fn removed(&mut self) {
        self.registration = Registration::Removed;
        self.object = None;
        self.lease_made = false;
    }

    pub fn alive(&self) -> bool {
        self.registration == Registration::Done && self.beating
    }
}

impl Core {
    pub(super) fn create_node(&mut self, index: usize, now: Timestamp) {
        let node = &mut self.nodes[index];
        node.status_in_flight = true;
        let object = node_object::node(&node.facts, &self.config, now);
        self.actions
            .push((Ticket::Node(index), Action::CreateNode { object }));
    }

    pub(super) fn node_changed(&mut self, index: usize, object: Object, now: Timestamp) {
        let beating = meta::annotation(&object, HEARTBEAT_ANNOTATION) != Some("off");
        let node = &mut self.nodes[index];
        if node.registration == Registration::Removed {
            return;
        }
        let resumed = beating && !node.beating;
        node.beating = beating;
        let disturbed = !node_object::is_current(&object);
        node.object = Some(object);
        if node.registration == Registration::Done && beating && (disturbed || resumed) {
            self.write_status(index, now);
        }
        if resumed {
            self.write_lease(index, now);
            self.revisit_pods_of(index, now);
        }
    }

    pub(super) fn node_written(
        &mut self,
        index: usize,
        result: Result<Option<Object>, ApiError>,
        now: Timestamp,
    ) {
        let node = &mut self.nodes[index];
        node.status_in_flight = false;
        if node.registration == Registration::Wanted {
            let existed = is(&result, Reason::AlreadyExists);
            if result.is_err() && !existed {
                self.look_again(index, now.as_millisecond() + RETRY_MS);
                return;
            }
            node.registration = Registration::Done;
            // A create may have dropped the status, and a Node from before may carry an old one.
            let complete = result.ok().flatten().is_some_and(|object| {
                let complete = node_object::is_current(&object);
                node.object = Some(object);
                complete
            });
            if complete {
                self.look_again(index, now.as_millisecond() + self.config.status_period_ms);
            } else {
                self.write_status(index, now);
            }
            self.write_lease(index, now);
            self.revisit_pods_of(index, now);
            return;
        }
        let dirty = std::mem::take(&mut node.status_dirty);
        match result {
            Ok(object) => {
                node.object = object.or(node.object.take());
                if dirty {
                    self.write_status(index, now);
                } else {
                    self.look_again(index, now.as_millisecond() + self.config.status_period_ms);
                }
            }
            Err(_) => self.look_again(index, now.as_millisecond() + RETRY_MS),
        }
    }

    fn look_again(&mut self, index: usize, at_ms: i64) {
        self.nodes[index].status_at_ms = at_ms;
        self.timers.set(at_ms, Timer::Status(index));
    }

    pub(super) fn status_due(&mut self, index: usize, now: Timestamp) {
        let node = &mut self.nodes[index];
        if now.as_millisecond() < node.status_at_ms {
            return;
        }
        match node.registration {
            Registration::Wanted if !node.status_in_flight => self.create_node(index, now),
            Registration::Done if node.beating => self.write_status(index, now),
            _ => {}
        }
    }

    fn write_status(&mut self, index: usize, now: Timestamp) {
        let node = &mut self.nodes[index];
        if node.status_in_flight {
            node.status_dirty = true;
            return;
        }
        node.status_in_flight = true;
        let status = node_object::status(&node.facts, &self.config, node.object.as_deref(), now);
        let patch = serde_json::json!({ "status": status });
        self.actions.push((
            Ticket::Node(index),
            Action::PatchNodeStatus {
                name: node.facts.name.clone(),
                patch,
            },
        ));
    }

    pub(super) fn lease_due(&mut self, index: usize, now: Timestamp) {
        self.nodes[index].lease_timer = false;
        if self.nodes[index].alive() {
            self.write_lease(index, now);
        }
    }

    fn write_lease(&mut self, index: usize, now: Timestamp) {
        let node = &mut self.nodes[index];
        if node.lease_in_flight {
            return;
        }
        let uid = node.object.as_deref().map(meta::uid).unwrap_or_default();
        if !node.lease_made && uid.is_empty() {
            // The watch has not shown our Node yet, and a lease without owner would outlive it.
            if !std::mem::replace(&mut node.lease_timer, true) {
                self.timers
                    .set(now.as_millisecond() + RETRY_MS, Timer::Lease(index));
            }
            return;
        }
        node.lease_in_flight = true;
        let action = if node.lease_made {
            Action::RenewLease {
                name: node.facts.name.clone(),
                patch: node_object::lease_renewal(&node.facts, now),
            }
        } else {
            Action::CreateLease {
                object: node_object::lease(&node.facts, uid, &self.config, now),
            }
        };
        self.actions.push((Ticket::Lease(index), action));
    }

    pub(super) fn lease_written(
        &mut self,
        index: usize,
        result: Result<Option<Object>, ApiError>,
        now: Timestamp,
    ) {
        let period = self.config.lease_renew_ms;
        let count = self.nodes.len().max(1) as i64;
        let node = &mut self.nodes[index];
        node.lease_in_flight = false;
        if !node.alive() {
            return;
        }
        let now_ms = now.as_millisecond();
        if is(&result, Reason::AlreadyExists) {
            node.lease_made = true;
            self.write_lease(index, now);
            return;
        }
        let due = match result {
            Ok(_) if node.lease_made => now_ms + period,
            Ok(_) => {
                // The first renewal comes early by each node's share of the period: that spreads all later ones.
                node.lease_made = true;
                now_ms + period - period / 2 * index as i64 / count
            }
            Err(error) => {
                if error.reason == Reason::NotFound {
                    node.lease_made = false;
                }
                now_ms + RETRY_MS
            }
        };
        if !node.lease_timer {
            node.lease_timer = true;
            self.timers.set(due, Timer::Lease(index));
        }
    }
}
