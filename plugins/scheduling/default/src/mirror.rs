//! The mirror: nodes and their usage in columns by slot, so that a question over thousands of nodes runs over flat arrays.
//!
//! Invariant: every column is as long as `alive`; a slot without a node has empty values.

use std::collections::HashMap;

use oarlock_model::pod_requests as requests;

use crate::api::{HostPort, Usage};
use crate::objects::{self, Taint};

/// A node's labels, sorted by key.
#[derive(Debug, Default)]
pub struct Labels(Vec<(Box<str>, Box<str>)>);

impl Labels {
    pub fn get(&self, key: &str) -> Option<&str> {
        let at = self.0.binary_search_by(|(k, _)| k.as_ref().cmp(key)).ok()?;
        Some(&self.0[at].1)
    }
}

/// Allocatable and used amounts of one extended resource, by slot.
#[derive(Debug, Default)]
pub struct Scalar {
    pub allocatable: Vec<i64>,
    pub used: Vec<i64>,
}

/// An image that some node has. Its size is what the first node to have it said, as upstream's cache keeps it.
#[derive(Debug)]
pub struct ImageState {
    pub size_bytes: i64,
    pub nodes: u32,
}

#[derive(Debug, Default)]
pub struct Mirror {
    pub alive: Vec<bool>,
    pub names: Vec<String>,
    pub labels: Vec<Labels>,
    pub unschedulable: Vec<bool>,
    pub taints: Vec<Vec<Taint>>,
    pub images: Vec<Vec<Box<str>>>,
    pub ports: Vec<Vec<HostPort>>,
    pub allocatable_cpu: Vec<i64>,
    pub allocatable_memory: Vec<i64>,
    pub allocatable_ephemeral: Vec<i64>,
    pub allocatable_pods: Vec<i64>,
    pub used_cpu: Vec<i64>,
    pub used_memory: Vec<i64>,
    pub used_ephemeral: Vec<i64>,
    pub used_pods: Vec<i64>,
    pub nonzero_cpu: Vec<i64>,
    pub nonzero_memory: Vec<i64>,
    scalars: Vec<Scalar>,
    scalar_index: HashMap<String, usize>,
    image_states: HashMap<Box<str>, ImageState>,
    node_count: usize,
}

impl Mirror {
    /// One more than the highest slot that was ever set.
    pub fn slots(&self) -> usize {
        self.alive.len()
    }

    pub fn node_count(&self) -> usize {
        self.node_count
    }

    pub fn image(&self, name: &str) -> Option<&ImageState> {
        self.image_states.get(name)
    }

    pub fn scalar(&self, name: &str) -> Option<&Scalar> {
        self.scalar_index.get(name).map(|&at| &self.scalars[at])
    }

    fn grow(&mut self, slots: usize) {
        if slots <= self.alive.len() {
            return;
        }
        self.alive.resize(slots, false);
        self.names.resize_with(slots, String::new);
        self.labels.resize_with(slots, Labels::default);
        self.unschedulable.resize(slots, false);
        self.taints.resize_with(slots, Vec::new);
        self.images.resize_with(slots, Vec::new);
        self.ports.resize_with(slots, Vec::new);
        for column in [
            &mut self.allocatable_cpu,
            &mut self.allocatable_memory,
            &mut self.allocatable_ephemeral,
            &mut self.allocatable_pods,
            &mut self.used_cpu,
            &mut self.used_memory,
            &mut self.used_ephemeral,
            &mut self.used_pods,
            &mut self.nonzero_cpu,
            &mut self.nonzero_memory,
        ] {
            column.resize(slots, 0);
        }
        for scalar in &mut self.scalars {
            scalar.allocatable.resize(slots, 0);
            scalar.used.resize(slots, 0);
        }
    }

    /// The columns of a resource, made if it is new.
    fn scalar_mut(&mut self, name: &str) -> &mut Scalar {
        let at = match self.scalar_index.get(name) {
            Some(&at) => at,
            None => {
                let slots = self.alive.len();
                self.scalars.push(Scalar {
                    allocatable: vec![0; slots],
                    used: vec![0; slots],
                });
                self.scalar_index
                    .insert(name.to_owned(), self.scalars.len() - 1);
                self.scalars.len() - 1
            }
        };
        &mut self.scalars[at]
    }

    pub fn set_node(&mut self, slot: u32, name: &str, node: objects::Node) {
        let slot = slot as usize;
        self.grow(slot + 1);
        if self.alive[slot] && self.names[slot] != name {
            self.remove_node(slot as u32);
        }
        if !self.alive[slot] {
            self.alive[slot] = true;
            self.node_count += 1;
            name.clone_into(&mut self.names[slot]);
        }
        self.forget_images(slot);
        let labels = node.metadata.labels.into_iter();
        self.labels[slot] = Labels(
            labels
                .map(|(k, v)| (k.into_boxed_str(), v.into_boxed_str()))
                .collect(),
        );
        self.unschedulable[slot] = node.spec.unschedulable;
        self.taints[slot] = node.spec.taints;
        for image in node.status.images {
            for name in image.names {
                let name = name.into_boxed_str();
                if self.images[slot].contains(&name) {
                    continue;
                }
                let new = ImageState {
                    size_bytes: image.size_bytes,
                    nodes: 0,
                };
                self.image_states.entry(name.clone()).or_insert(new).nodes += 1;
                self.images[slot].push(name);
            }
        }
        self.allocatable_cpu[slot] = 0;
        self.allocatable_memory[slot] = 0;
        self.allocatable_ephemeral[slot] = 0;
        self.allocatable_pods[slot] = 0;
        for scalar in &mut self.scalars {
            scalar.allocatable[slot] = 0;
        }
        for (name, amount) in &node.status.allocatable {
            match name.as_str() {
                requests::CPU => self.allocatable_cpu[slot] = amount.milli_value(),
                requests::MEMORY => self.allocatable_memory[slot] = amount.value(),
                requests::EPHEMERAL_STORAGE => self.allocatable_ephemeral[slot] = amount.value(),
                requests::PODS => self.allocatable_pods[slot] = amount.value(),
                other if requests::is_scalar_resource(other) => {
                    self.scalar_mut(other).allocatable[slot] = amount.value();
                }
                _ => {}
            }
        }
    }

    fn forget_images(&mut self, slot: usize) {
        for image in std::mem::take(&mut self.images[slot]) {
            if let Some(state) = self.image_states.get_mut(&image) {
                state.nodes -= 1;
                if state.nodes == 0 {
                    self.image_states.remove(&image);
                }
            }
        }
    }

    pub fn remove_node(&mut self, slot: u32) {
        let index = slot as usize;
        if !self.alive.get(index).copied().unwrap_or(false) {
            return;
        }
        self.set_usage(slot, Usage::default());
        self.forget_images(index);
        self.alive[index] = false;
        self.node_count -= 1;
        self.names[index].clear();
        self.labels[index] = Labels::default();
        self.taints[index].clear();
        self.unschedulable[index] = false;
        self.allocatable_cpu[index] = 0;
        self.allocatable_memory[index] = 0;
        self.allocatable_ephemeral[index] = 0;
        self.allocatable_pods[index] = 0;
        for scalar in &mut self.scalars {
            scalar.allocatable[index] = 0;
        }
    }

    pub fn set_usage(&mut self, slot: u32, usage: Usage) {
        let index = slot as usize;
        if index >= self.alive.len() {
            return;
        }
        self.used_pods[index] = i64::from(usage.pods);
        self.used_cpu[index] = usage.cpu_milli;
        self.used_memory[index] = usage.memory;
        self.used_ephemeral[index] = usage.ephemeral_storage;
        self.nonzero_cpu[index] = usage.nonzero_cpu_milli;
        self.nonzero_memory[index] = usage.nonzero_memory;
        for scalar in &mut self.scalars {
            scalar.used[index] = 0;
        }
        for (name, amount) in &usage.others {
            self.scalar_mut(name).used[index] = *amount;
        }
        self.ports[index] = usage.ports;
    }
}
