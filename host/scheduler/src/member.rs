//! A member of a profile: one engine, which of its plugins are enabled, and how far its mirror has come.
//!
//! Invariant: queries opened in one epoch are unknown to the engine in any other; a respawn starts a new epoch.

use std::collections::HashSet;
use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::fast::FixedState;
use oarlock_wasm::Error;
use oarlock_wasm::scheduler::{Change, Node, PlacedPod, PluginInfo, Points, Scope, Source};

use crate::engine::PlacementEngine;
use crate::project::project;
use crate::snapshot::{Slot, Snapshot, Uid};

/// What a profile says of one plugin of a member.
#[derive(Clone, Debug, PartialEq)]
pub struct Enabled {
    pub plugin: u32,
    /// Takes part where it decides on nodes (PreFilter, Filter).
    pub filters: bool,
    /// Takes part where nodes are scored, with this weight.
    pub weight: Option<i64>,
    /// Takes part in PreEnqueue.
    pub enqueues: bool,
    /// Decides the order of the queue.
    pub sorts: bool,
    /// JSON
    pub args: String,
}

/// What to do with a pod when this member fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum FailurePolicy {
    /// The pod is rejected, and tried again.
    #[default]
    Fail,
    /// The member is left out for this pod.
    Ignore,
}

/// Why a member could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    #[error(transparent)]
    Guest(#[from] Error),
    #[error("plugin {plugin}: {message}")]
    Args { plugin: String, message: String },
    #[error("mirroring {0} is not offered to plugins yet")]
    Source(String),
}

pub struct Member {
    pub engine: Box<dyn PlacementEngine>,
    pub infos: Vec<PluginInfo>,
    pub enabled: Vec<Enabled>,
    /// How errors and status name its component.
    pub component: Arc<str>,
    pub failure_policy: FailurePolicy,
    pub epoch: u64,
    /// Counts node objects sent.
    pub objects_epoch: u64,
    pub traps: u32,
    node_pointers: Vec<String>,
    pod_pointers: Vec<String>,
    wants: Wants,
    cursor: u64,
    /// By slot: the name and the hash of the projected object that the guest has.
    sent: Vec<Option<(Arc<str>, u64)>>,
    /// Uids that the guest mirrors.
    sent_pods: HashSet<Uid>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Wants {
    nodes: bool,
    usage: bool,
    pods: bool,
}

impl std::fmt::Debug for Member {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Member")
            .field("component", &self.component)
            .finish_non_exhaustive()
    }
}

impl Member {
    /// Configures a fresh engine and learns what it wants mirrored.
    pub fn new(
        engine: Box<dyn PlacementEngine>,
        component: Arc<str>,
        enabled: Vec<Enabled>,
        failure_policy: FailurePolicy,
    ) -> Result<Self, SetupError> {
        let mut member = Self {
            infos: engine.plugins().to_vec(),
            engine,
            enabled,
            component,
            failure_policy,
            epoch: 1,
            objects_epoch: 0,
            traps: 0,
            node_pointers: Vec::new(),
            pod_pointers: Vec::new(),
            wants: Wants::default(),
            cursor: 0,
            sent: Vec::new(),
            sent_pods: HashSet::new(),
        };
        member.set_up()?;
        Ok(member)
    }

    fn set_up(&mut self) -> Result<(), SetupError> {
        for enabled in &self.enabled {
            if let Err(message) = self.engine.configure(enabled.plugin, &enabled.args)? {
                let plugin = self.infos[enabled.plugin as usize].name.clone();
                return Err(SetupError::Args { plugin, message });
            }
        }
        for interest in self.engine.interests()? {
            match interest.source {
                Source::Nodes => {
                    self.wants.nodes = true;
                    self.node_pointers = interest.pointers;
                }
                Source::Usage => self.wants.usage = true,
                Source::Pods => {
                    self.wants.pods = true;
                    self.pod_pointers = interest.pointers;
                }
                Source::Objects(kind) => return Err(SetupError::Source(kind)),
            }
        }
        Ok(())
    }

    pub fn wants_pods(&self) -> bool {
        self.wants.pods
    }

    /// Replaces the engine after a failure. The mirror is empty until the next sync.
    pub fn respawn(&mut self) -> Result<(), SetupError> {
        self.engine = self.engine.respawn()?;
        self.epoch += 1;
        self.objects_epoch += 1;
        self.cursor = 0;
        self.sent.clear();
        self.sent_pods.clear();
        self.set_up()
    }

    /// What the mirror lacks, in order. The caller must apply it, or respawn.
    pub fn take_changes(&mut self, snapshot: &Snapshot) -> Vec<Change> {
        let since = self.cursor;
        let mut changes = Vec::new();
        if since == snapshot.stamp() {
            return changes;
        }
        if self.sent.len() < snapshot.slots() {
            self.sent.resize(snapshot.slots(), None);
        }
        let mut object_changes = 0;
        let mut new_slots = Vec::new();
        snapshot.changed_since(since, |change| {
            let (slot, sent) = (change.slot, &mut self.sent[change.slot as usize]);
            let Some(object) = snapshot.node(slot) else {
                if sent.take().is_some() {
                    object_changes += 1;
                    changes.push(Change::NodeGone(slot));
                }
                return;
            };
            let mut is_new = sent.is_none();
            if change.object || is_new {
                let name = snapshot.name(slot);
                let projected = if self.wants.nodes {
                    project(object, &self.node_pointers)
                } else {
                    "{}".to_owned()
                };
                let hash = FixedState::with_seed(7).hash_one(&projected);
                // The slot may have been another node's since.
                if sent.as_ref().is_some_and(|(had, _)| had != name) {
                    changes.push(Change::NodeGone(slot));
                    is_new = true;
                }
                if is_new || sent.as_ref().is_none_or(|(_, had)| *had != hash) {
                    *sent = Some((Arc::clone(name), hash));
                    object_changes += 1;
                    changes.push(Change::NodeSet(Node {
                        id: slot,
                        name: name.as_ref().to_owned(),
                        object: projected,
                    }));
                }
            }
            if self.wants.usage && (change.usage || is_new) {
                changes.push(Change::UsageSet(snapshot.usage(slot).to_guest(slot)));
            }
            if is_new {
                new_slots.push(slot);
            }
        });
        self.objects_epoch += object_changes;
        if self.wants.pods {
            self.pod_changes(snapshot, since, &new_slots, &mut changes);
        }
        self.cursor = snapshot.stamp();
        changes
    }

    fn pod_changes(
        &mut self,
        snapshot: &Snapshot,
        since: u64,
        new_slots: &[Slot],
        changes: &mut Vec<Change>,
    ) {
        let mut changed: Vec<Uid> = match snapshot.pods_changed_since(since) {
            Some(uids) => uids.map(Arc::clone).collect(),
            None => {
                let gone = self.sent_pods.iter().filter(|uid| !snapshot.is_placed(uid));
                gone.chain(snapshot.placed_uids()).map(Arc::clone).collect()
            }
        };
        // A node that is new to the guest has no pods there, though it may have had them for long.
        changed.extend(
            new_slots
                .iter()
                .flat_map(|slot| snapshot.pods_on(*slot))
                .map(Arc::clone),
        );
        let mut seen = HashSet::new();
        for uid in changed {
            if !seen.insert(Arc::clone(&uid)) {
                continue;
            }
            match snapshot.placed(&uid) {
                Some((node, object)) => {
                    let object = project(object, &self.pod_pointers);
                    changes.push(Change::PodPlaced(PlacedPod {
                        uid: uid.as_ref().to_owned(),
                        node,
                        object,
                    }));
                    self.sent_pods.insert(uid);
                }
                None => {
                    if self.sent_pods.remove(&uid) {
                        changes.push(Change::PodGone(uid.as_ref().to_owned()));
                    }
                }
            }
        }
    }

    /// Brings the mirror up to date.
    pub fn sync(&mut self, snapshot: &Snapshot) -> Result<(), Error> {
        let changes = self.take_changes(snapshot);
        if changes.is_empty() {
            Ok(())
        } else {
            self.engine.apply(&changes)
        }
    }

    /// Plugins enabled where nodes are filtered, and where they are scored.
    pub fn filtering(&self) -> Vec<u32> {
        let has =
            |e: &&Enabled| e.filters && self.has(e.plugin, Points::FILTER | Points::PRE_FILTER);
        self.enabled.iter().filter(has).map(|e| e.plugin).collect()
    }

    pub fn scoring(&self) -> Vec<u32> {
        let has =
            |e: &&Enabled| e.weight.is_some_and(|w| w != 0) && self.has(e.plugin, Points::SCORE);
        self.enabled.iter().filter(has).map(|e| e.plugin).collect()
    }

    pub fn enqueueing(&self) -> Vec<u32> {
        let has = |e: &&Enabled| e.enqueues && self.has(e.plugin, Points::PRE_ENQUEUE);
        self.enabled.iter().filter(has).map(|e| e.plugin).collect()
    }

    pub fn sorting(&self) -> Option<u32> {
        self.enabled
            .iter()
            .find(|e| e.sorts && self.has(e.plugin, Points::QUEUE_SORT))
            .map(|e| e.plugin)
    }

    /// Whether the plugin takes part in any of these points.
    pub fn has(&self, plugin: u32, points: Points) -> bool {
        self.infos
            .get(plugin as usize)
            .is_some_and(|info| info.points.intersects(points))
    }

    pub fn weight(&self, plugin: u32) -> i64 {
        self.enabled
            .iter()
            .find(|e| e.plugin == plugin)
            .and_then(|e| e.weight)
            .unwrap_or(0)
    }

    /// Whether the plugin has a say on nodes, wherever it is enabled.
    pub fn filtering_points(&self, plugin: u32) -> bool {
        self.has(plugin, Points::FILTER | Points::PRE_FILTER)
    }

    pub fn name_of(&self, plugin: u32) -> &str {
        self.infos
            .get(plugin as usize)
            .map_or("", |info| info.name.as_str())
    }

    /// The widest scope among plugins: node-local, node-objects, cluster-wide.
    pub fn widest(&self, plugins: &[u32], scope: impl Fn(&PluginInfo) -> Scope) -> Scope {
        let mut widest = Scope::NodeLocal;
        for info in plugins.iter().filter_map(|p| self.infos.get(*p as usize)) {
            match scope(info) {
                Scope::ClusterWide => return Scope::ClusterWide,
                Scope::NodeObjects => widest = Scope::NodeObjects,
                Scope::NodeLocal => {}
            }
        }
        widest
    }

    /// How far the mirror has come.
    pub fn cursor(&self) -> u64 {
        self.cursor
    }

    /// Whether the guest has this slot's node.
    pub fn mirrors(&self, slot: Slot) -> bool {
        self.sent.get(slot as usize).is_some_and(Option::is_some)
    }
}
