//! The mirror: nodes and their usage in columns by slot, so that a question over thousands of nodes runs over flat arrays.
//!
//! Invariant: every column is as long as `alive`; a slot without a node has empty values.

use std::collections::HashMap;

use oarlock_model::pod_requests as requests;

use crate::api::{HostPort, Usage};
use crate::objects::{self, Taint};

pub const NO_SCHEDULE: &str = "NoSchedule";
pub const NO_EXECUTE: &str = "NoExecute";
pub const PREFER_NO_SCHEDULE: &str = "PreferNoSchedule";

/// Whether two texts are equal, by words of 8 bytes: WebAssembly's own comparison goes byte by byte.
#[inline]
pub fn same(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    if a.len() != b.len() {
        return false;
    }
    let (words_a, words_b) = (a.chunks_exact(8), b.chunks_exact(8));
    let mut rest = words_a.remainder().iter().zip(words_b.remainder());
    words_a.zip(words_b).all(|(x, y)| word(x) == word(y)) && rest.all(|(x, y)| x == y)
}

#[inline]
fn word(bytes: &[u8]) -> u64 {
    bytes.try_into().map_or(0, u64::from_ne_bytes)
}

/// A node's labels. There are few, and most differ in length: looking at each is faster than a search.
#[derive(Debug, Default)]
pub struct Labels(Vec<(Box<str>, Box<str>)>);

impl Labels {
    pub fn get(&self, key: &str) -> Option<&str> {
        let found = self.0.iter().find(|(k, _)| same(k, key));
        found.map(|(_, value)| value.as_ref())
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
    name: Box<str>,
    pub size_bytes: i64,
    pub nodes: u32,
}

#[derive(Debug, Default)]
pub struct Mirror {
    pub alive: Vec<bool>,
    pub names: Vec<String>,
    pub labels: Vec<Labels>,
    pub unschedulable: Vec<bool>,
    /// Taints that keep pods away.
    pub taints: Vec<Vec<Taint>>,
    /// Taints that would rather not have them.
    pub soft_taints: Vec<Vec<Taint>>,
    /// Images by their places in `image_states`.
    pub images: Vec<Vec<u32>>,
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
    image_states: Vec<ImageState>,
    /// Of images that some node has.
    image_index: HashMap<Box<str>, u32>,
    free_images: Vec<u32>,
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

    /// The number by which nodes list the image, and the image.
    pub fn image(&self, name: &str) -> Option<(u32, &ImageState)> {
        let at = *self.image_index.get(name)?;
        Some((at, &self.image_states[at as usize]))
    }

    /// The number of an image, made if no node has had it.
    fn image_number(&mut self, name: String, size_bytes: i64) -> u32 {
        if let Some(&at) = self.image_index.get(name.as_str()) {
            return at;
        }
        let name = name.into_boxed_str();
        let state = ImageState {
            name: name.clone(),
            size_bytes,
            nodes: 0,
        };
        let at = match self.free_images.pop() {
            Some(at) => {
                self.image_states[at as usize] = state;
                at
            }
            None => {
                self.image_states.push(state);
                self.image_states.len() as u32 - 1
            }
        };
        self.image_index.insert(name, at);
        at
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
        self.soft_taints.resize_with(slots, Vec::new);
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
        let taints = node.spec.taints.into_iter();
        let (soft, hard): (Vec<_>, Vec<_>) = taints.partition(|t| t.effect == PREFER_NO_SCHEDULE);
        self.soft_taints[slot] = soft;
        self.taints[slot] = hard;
        self.taints[slot].retain(|t| t.effect == NO_SCHEDULE || t.effect == NO_EXECUTE);
        for image in node.status.images {
            for name in image.names {
                let number = self.image_number(name, image.size_bytes);
                if !self.images[slot].contains(&number) {
                    self.image_states[number as usize].nodes += 1;
                    self.images[slot].push(number);
                }
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
            let state = &mut self.image_states[image as usize];
            state.nodes -= 1;
            if state.nodes == 0 {
                self.image_index.remove(&state.name);
                self.free_images.push(image);
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
        self.soft_taints[index].clear();
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
