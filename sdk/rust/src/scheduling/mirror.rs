//! The mirror behind [`Plugin`](super::Plugin)s: nodes by slot, what their pods use, and those pods if anyone asks.
//!
//! Invariant: a slot is `None` from the moment its node is gone until another one takes it.

use std::collections::HashMap;

use super::objects::{NODE_POINTERS, POD_POINTERS};
use super::{Change, Interest, Node, Pod, Source, Usage};

/// A node as plugins see it.
#[derive(Debug, Clone)]
pub struct NodeInfo {
    /// Its slot.
    pub id: u32,
    /// The node's typed parts.
    pub node: Node,
    /// What the pods placed on it request, in all.
    pub usage: Usage,
    /// The pods placed on it, if a plugin [wants](super::Plugin::WANTS_PODS) them.
    pub pods: Vec<Pod>,
    /// The object's text, if a plugin names pointers of its own.
    text: String,
}

impl NodeInfo {
    /// A node on which there are no pods.
    pub fn new(id: u32, node: Node) -> Self {
        let usage = Usage {
            id,
            ..super::usage_of(0)
        };
        Self {
            id,
            node,
            usage,
            pods: Vec::new(),
            text: String::new(),
        }
    }

    /// `metadata.name`
    pub fn name(&self) -> &str {
        &self.node.metadata.name
    }

    /// A label's value.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.node.metadata.labels.get(key).map(String::as_str)
    }

    /// An annotation's value.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.node.metadata.annotations.get(key).map(String::as_str)
    }

    /// Some other part of the node: one of the plugin's own `NODE_POINTERS`. Parsed anew each time.
    pub fn part(&self, pointer: &str) -> Option<serde_json::Value> {
        let object: serde_json::Value = serde_json::from_str(&self.text).ok()?;
        object.pointer(pointer).cloned()
    }
}

/// Nodes by slot.
#[derive(Debug, Default)]
pub struct Mirror {
    slots: Vec<Option<NodeInfo>>,
    /// Where each placed pod is, by uid.
    places: HashMap<String, u32>,
    keep_text: bool,
    keep_pods: bool,
}

impl Mirror {
    /// A mirror of nodes and usage; of placed pods if `pods`; with these parts of nodes besides the typed ones.
    pub(super) fn interests(&mut self, pointers: &[&str], pods: bool) -> Vec<Interest> {
        self.keep_text = !pointers.is_empty();
        self.keep_pods = pods;
        let text = |pointers: &mut dyn Iterator<Item = &str>| pointers.map(str::to_owned).collect();
        let mut interests = vec![
            Interest {
                source: Source::Nodes,
                pointers: text(&mut NODE_POINTERS.iter().chain(pointers).copied()),
            },
            Interest {
                source: Source::Usage,
                pointers: Vec::new(),
            },
        ];
        if pods {
            interests.push(Interest {
                source: Source::Pods,
                pointers: text(&mut POD_POINTERS.iter().copied()),
            });
        }
        interests
    }

    /// Takes changes in.
    pub(super) fn apply(&mut self, changes: Vec<Change>) {
        for change in changes {
            match change {
                Change::NodeSet(set) => {
                    let node = match serde_json::from_str::<Node>(&set.object) {
                        Ok(node) => node,
                        Err(error) => {
                            crate::host::warn(&format!("node {}: {error}", set.name));
                            Node::default()
                        }
                    };
                    let slot = set.id as usize;
                    if self.slots.len() <= slot {
                        self.slots.resize_with(slot + 1, || None);
                    }
                    let info = self.slots[slot]
                        .get_or_insert_with(|| NodeInfo::new(set.id, Node::default()));
                    info.node = node;
                    info.node.metadata.name = set.name;
                    info.text = if self.keep_text {
                        set.object
                    } else {
                        String::new()
                    };
                }
                Change::NodeGone(id) => {
                    if let Some(slot) = self.slots.get_mut(id as usize) {
                        *slot = None;
                    }
                }
                Change::UsageSet(usage) => {
                    if let Some(info) = self.at_mut(usage.id) {
                        info.usage = usage;
                    }
                }
                Change::PodPlaced(placed) => {
                    self.forget(&placed.uid);
                    let keep = self.keep_pods;
                    let Some(info) = self.at_mut(placed.node).filter(|_| keep) else {
                        continue;
                    };
                    if let Ok(mut pod) = Pod::parse(&placed.object) {
                        pod.metadata.uid = placed.uid.clone();
                        info.pods.push(pod);
                        self.places.insert(placed.uid, placed.node);
                    }
                }
                Change::PodGone(uid) => self.forget(&uid),
                Change::ObjectSet(_) | Change::ObjectGone(_) => {}
            }
        }
    }

    fn forget(&mut self, uid: &str) {
        if let Some(info) = self.places.remove(uid).and_then(|id| self.at_mut(id)) {
            info.pods.retain(|pod| pod.metadata.uid != uid);
        }
    }

    /// The node in a slot.
    pub fn at(&self, id: u32) -> Option<&NodeInfo> {
        self.slots.get(id as usize)?.as_ref()
    }

    fn at_mut(&mut self, id: u32) -> Option<&mut NodeInfo> {
        self.slots.get_mut(id as usize)?.as_mut()
    }

    /// One more than the highest slot that was ever set.
    pub fn slots(&self) -> u32 {
        u32::try_from(self.slots.len()).unwrap_or(u32::MAX)
    }
}
