//! The snapshot: nodes by slot, what their pods use, and a log of which slots changed.
//!
//! Invariants: a slot belongs to one node name while that node exists or pods are placed on it. Every change of a slot's
//! node or usage has a stamp of its own, greater than all before. An assumed pod counts as placed from the moment it is
//! assumed.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use oarlock_client::Object;
use oarlock_model::meta;
use oarlock_wasm::scheduler::Events;

use crate::node_events::changes_between;
use crate::usage::{NodeUsage, PodUsage};

pub type Slot = u32;
pub type Uid = Arc<str>;

/// So many changes are remembered one by one; who is further behind looks at every slot.
pub const MAX_LOG: usize = 8192;

#[derive(Debug, Default)]
struct Entry {
    name: Arc<str>,
    node: Option<Object>,
    usage: NodeUsage,
    pods: HashSet<Uid>,
    /// When the node object changed, came or went.
    object_stamp: u64,
    usage_stamp: u64,
}

#[derive(Debug)]
struct Placed {
    slot: Slot,
    usage: Arc<PodUsage>,
    object: Object,
    assumed: bool,
}

/// What happened to a slot since some stamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotChange {
    pub slot: Slot,
    pub object: bool,
    pub usage: bool,
}

#[derive(Debug, Default)]
pub struct Snapshot {
    entries: Vec<Entry>,
    by_name: HashMap<Arc<str>, Slot>,
    free: Vec<Slot>,
    pods: HashMap<Uid, Placed>,
    stamp: u64,
    node_count: usize,
    log: VecDeque<(u64, Slot)>,
    /// Placed pods that came, changed or went; only kept when a guest mirrors pods.
    pod_log: VecDeque<(u64, Uid)>,
    keep_pod_log: bool,
}

impl Snapshot {
    pub fn new() -> Self {
        Self::default()
    }

    /// The stamp of the last change.
    pub fn stamp(&self) -> u64 {
        self.stamp
    }

    /// One more than the highest slot ever used.
    pub fn slots(&self) -> usize {
        self.entries.len()
    }

    pub fn node_count(&self) -> usize {
        self.node_count
    }

    pub fn node(&self, slot: Slot) -> Option<&Object> {
        self.entries.get(slot as usize)?.node.as_ref()
    }

    pub fn name(&self, slot: Slot) -> &Arc<str> {
        &self.entries[slot as usize].name
    }

    pub fn slot_of(&self, name: &str) -> Option<Slot> {
        self.by_name.get(name).copied()
    }

    pub fn usage(&self, slot: Slot) -> &NodeUsage {
        &self.entries[slot as usize].usage
    }

    pub fn pods_on(&self, slot: Slot) -> impl Iterator<Item = &Uid> {
        self.entries[slot as usize].pods.iter()
    }

    pub fn is_placed(&self, uid: &str) -> bool {
        self.pods.contains_key(uid)
    }

    pub fn is_assumed(&self, uid: &str) -> bool {
        self.pods.get(uid).is_some_and(|p| p.assumed)
    }

    /// The slot and the object of a placed pod.
    pub fn placed(&self, uid: &str) -> Option<(Slot, &Object)> {
        self.pods.get(uid).map(|p| (p.slot, &p.object))
    }

    pub fn placed_uids(&self) -> impl Iterator<Item = &Uid> {
        self.pods.keys()
    }

    fn entry_of(&mut self, name: &str) -> Slot {
        if let Some(slot) = self.by_name.get(name) {
            return *slot;
        }
        let name: Arc<str> = name.into();
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                self.entries.push(Entry::default());
                (self.entries.len() - 1) as Slot
            }
        };
        let entry = &mut self.entries[slot as usize];
        debug_assert!(entry.node.is_none() && entry.pods.is_empty());
        entry.name = Arc::clone(&name);
        self.by_name.insert(name, slot);
        slot
    }

    fn touch(&mut self, slot: Slot, object: bool) {
        self.stamp += 1;
        let entry = &mut self.entries[slot as usize];
        if object {
            entry.object_stamp = self.stamp;
        } else {
            entry.usage_stamp = self.stamp;
        }
        self.log.push_back((self.stamp, slot));
        if self.log.len() > MAX_LOG {
            self.log.pop_front();
        }
    }

    fn release_if_unused(&mut self, slot: Slot) {
        let entry = &mut self.entries[slot as usize];
        if entry.node.is_none() && entry.pods.is_empty() {
            let name = std::mem::take(&mut entry.name);
            entry.usage = NodeUsage::default();
            self.by_name.remove(&name);
            self.free.push(slot);
        }
    }

    /// Adds or replaces a node, and says what that may mean for waiting pods.
    pub fn set_node(&mut self, object: Object) -> Events {
        let slot = self.entry_of(meta::name(&object));
        let entry = &mut self.entries[slot as usize];
        let events = match &entry.node {
            None => Events::NODE_ADD,
            Some(old) => changes_between(old, &object),
        };
        if entry.node.replace(object).is_none() {
            self.node_count += 1;
        }
        self.touch(slot, true);
        events
    }

    pub fn remove_node(&mut self, name: &str) {
        let Some(slot) = self.slot_of(name) else {
            return;
        };
        if self.entries[slot as usize].node.take().is_some() {
            self.node_count -= 1;
            self.touch(slot, true);
            self.release_if_unused(slot);
        }
    }

    /// A pod that is bound to a node, as the cluster says. Confirms an assumed pod. Says whether pods that wait for a placed
    /// pod may be interested.
    pub fn place(
        &mut self,
        uid: &Uid,
        node: &str,
        usage: &Arc<PodUsage>,
        object: &Object,
    ) -> Events {
        let slot = self.entry_of(node);
        let known = self
            .pods
            .get_mut(uid)
            .filter(|p| p.slot == slot && (Arc::ptr_eq(&p.usage, usage) || p.usage == *usage));
        if let Some(placed) = known {
            placed.assumed = false;
            let relabelled = meta::labels(&placed.object) != meta::labels(object);
            placed.object = Arc::clone(object);
            if relabelled {
                self.note_pod(uid);
            }
            return if relabelled {
                Events::POD_PLACED
            } else {
                Events::empty()
            };
        }
        self.insert(uid, slot, Arc::clone(usage), Arc::clone(object), false);
        Events::POD_PLACED
    }

    /// A pod that is on its way to a node.
    pub fn assume(&mut self, uid: &Uid, slot: Slot, usage: &Arc<PodUsage>, object: &Object) {
        self.insert(uid, slot, Arc::clone(usage), Arc::clone(object), true);
    }

    fn insert(
        &mut self,
        uid: &Uid,
        slot: Slot,
        usage: Arc<PodUsage>,
        object: Object,
        assumed: bool,
    ) {
        self.remove_pod(uid);
        let entry = &mut self.entries[slot as usize];
        entry.usage.add(&usage);
        entry.pods.insert(Arc::clone(uid));
        self.pods.insert(
            Arc::clone(uid),
            Placed {
                slot,
                usage,
                object,
                assumed,
            },
        );
        self.touch(slot, false);
        self.note_pod(uid);
    }

    /// Takes a pod off its node; false if it was on none.
    pub fn remove_pod(&mut self, uid: &str) -> bool {
        let Some((uid, placed)) = self.pods.remove_entry(uid) else {
            return false;
        };
        let entry = &mut self.entries[placed.slot as usize];
        entry.usage.remove(&placed.usage);
        entry.pods.remove(&uid);
        self.touch(placed.slot, false);
        self.note_pod(&uid);
        self.release_if_unused(placed.slot);
        true
    }

    fn note_pod(&mut self, uid: &Uid) {
        if self.keep_pod_log {
            self.stamp += 1;
            self.pod_log.push_back((self.stamp, Arc::clone(uid)));
            if self.pod_log.len() > MAX_LOG {
                self.pod_log.pop_front();
            }
        }
    }

    /// From now on changes of placed pods are logged too.
    pub fn keep_pod_log(&mut self) {
        self.keep_pod_log = true;
    }

    /// Slots with changes after `since`, each once.
    pub fn changed_since(&self, since: u64, mut each: impl FnMut(SlotChange)) {
        if since >= self.stamp {
            return;
        }
        let change = |slot: Slot| {
            let entry = &self.entries[slot as usize];
            SlotChange {
                slot,
                object: entry.object_stamp > since,
                usage: entry.usage_stamp > since,
            }
        };
        let reaches_back = since > 0
            && self
                .log
                .front()
                .is_none_or(|(first, _)| *first <= since + 1);
        if reaches_back {
            let start = self.log.partition_point(|(stamp, _)| *stamp <= since);
            for (stamp, slot) in self.log.range(start..) {
                let entry = &self.entries[*slot as usize];
                // A slot may be in the log often: it is reported at its last entry.
                if entry.object_stamp.max(entry.usage_stamp) == *stamp {
                    each(change(*slot));
                }
            }
        } else {
            for slot in 0..self.entries.len() as Slot {
                let change = change(slot);
                if change.object || change.usage {
                    each(change);
                }
            }
        }
    }

    /// Uids of placed pods with changes after `since` (with repeats); `None` if that is no longer known: take all.
    pub fn pods_changed_since(&self, since: u64) -> Option<impl Iterator<Item = &Uid>> {
        let reaches_back = since > 0
            && (self.pod_log.len() < MAX_LOG
                || self.pod_log.front().is_some_and(|f| f.0 <= since + 1));
        let start = self.pod_log.partition_point(|(stamp, _)| *stamp <= since);
        reaches_back.then(|| self.pod_log.range(start..).map(|(_, uid)| uid))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(name: &str) -> Object {
        Arc::new(json!({"metadata": {"name": name}}))
    }

    fn pod(cpu: &str) -> (Arc<PodUsage>, Object) {
        let object = json!({"spec": {"containers": [{"resources": {"requests": {"cpu": cpu}}}]}});
        (Arc::new(PodUsage::of(&object)), Arc::new(object))
    }

    fn changed(snapshot: &Snapshot, since: u64) -> Vec<Slot> {
        let mut slots = Vec::new();
        snapshot.changed_since(since, |change| slots.push(change.slot));
        slots.sort_unstable();
        slots
    }

    #[test]
    fn confirming_an_assumed_pod_changes_nothing() {
        let mut snapshot = Snapshot::new();
        snapshot.set_node(node("a"));
        let (usage, object) = pod("1");
        let uid: Uid = "u".into();
        snapshot.assume(&uid, 0, &usage, &object);
        assert!(snapshot.is_assumed("u"));
        let stamp = snapshot.stamp();
        snapshot.place(&uid, "a", &usage, &object);
        assert!(!snapshot.is_assumed("u"));
        assert_eq!((snapshot.stamp(), snapshot.usage(0).pods()), (stamp, 1));
    }

    #[test]
    fn pods_count_on_a_node_that_comes_later() {
        let mut snapshot = Snapshot::new();
        let (usage, object) = pod("1");
        snapshot.place(&"u".into(), "late", &usage, &object);
        let slot = snapshot.slot_of("late").unwrap();
        assert!(snapshot.node(slot).is_none());
        snapshot.set_node(node("late"));
        assert_eq!(
            (snapshot.slot_of("late"), snapshot.usage(slot).pods()),
            (Some(slot), 1)
        );
        snapshot.remove_node("late");
        assert_eq!(snapshot.slot_of("late"), Some(slot));
        snapshot.remove_pod("u");
        assert_eq!(snapshot.slot_of("late"), None);
        snapshot.set_node(node("other"));
        assert_eq!(
            (snapshot.slot_of("other"), snapshot.usage(slot).pods()),
            (Some(slot), 0)
        );
    }

    #[test]
    fn each_changed_slot_is_reported_once() {
        let mut snapshot = Snapshot::new();
        for name in ["a", "b", "c"] {
            snapshot.set_node(node(name));
        }
        let since = snapshot.stamp();
        assert_eq!(changed(&snapshot, 0), [0, 1, 2]);
        assert_eq!(changed(&snapshot, since), [0u32; 0]);
        let (usage, object) = pod("1");
        for n in 0..5 {
            snapshot.assume(&n.to_string().into(), 1, &usage, &object);
        }
        snapshot.set_node(node("c"));
        assert_eq!(changed(&snapshot, since), [1, 2]);
        for n in 0..MAX_LOG {
            snapshot.assume(&format!("x{n}").into(), 0, &usage, &object);
        }
        assert_eq!(changed(&snapshot, since), [0, 1, 2]);
    }
}
