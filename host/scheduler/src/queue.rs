//! The scheduling queue: pods that may be tried now, pods that back off, pods that nothing has changed for, and pods that
//! may not enter yet.
//!
//! Invariant: a pod is in one place only. Heaps are cleaned lazily: an item whose version is not its pod's is void.
//! Source: https://kubernetes.io/docs/concepts/scheduling-eviction/scheduling-framework/ and KEP-4247 (queueing hints).

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;

use oarlock_wasm::scheduler::Events;

use crate::pod::PodInfo;
use crate::snapshot::Uid;

/// The first back-off; it doubles with each attempt.
pub const INITIAL_BACKOFF_MS: u64 = 1_000;
pub const MAX_BACKOFF_MS: u64 = 10_000;
/// A pod that nothing woke is tried again after so long.
pub const MAX_UNSCHEDULABLE_MS: u64 = 5 * 60 * 1_000;
/// How often pods that waited too long are looked for.
const FLUSH_EVERY_MS: u64 = 30_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Active,
    /// Until then.
    Backoff(u64),
    /// Since then.
    Unschedulable(u64),
    Gated,
    /// Being tried, or bound.
    InFlight,
}

#[derive(Debug)]
struct Waiting {
    pod: Arc<PodInfo>,
    place: Place,
    version: u64,
    attempts: u32,
    key: (i64, u64),
    first_seen_ms: u64,
    backoff_until_ms: u64,
    wakes_on: Events,
    /// An event of these classes came while the pod was in flight.
    missed: Events,
}

/// A pod to be tried.
#[derive(Clone, Debug)]
pub struct Attempt {
    pub pod: Arc<PodInfo>,
    /// This one included.
    pub attempts: u32,
    pub first_seen_ms: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub active: usize,
    pub backoff: usize,
    pub unschedulable: usize,
    pub gated: usize,
}

/// A pod among the active ones: its sort key, its version, its uid.
type Ranked = ((i64, u64), u64, Uid);

#[derive(Debug, Default)]
pub struct Queue {
    pods: HashMap<Uid, Waiting>,
    active: BinaryHeap<Reverse<Ranked>>,
    backoff: BinaryHeap<Reverse<(u64, u64, Uid)>>,
    counts: Counts,
    next_version: u64,
    next_flush_ms: u64,
}

impl Queue {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn counts(&self) -> Counts {
        self.counts
    }

    pub fn contains(&self, uid: &str) -> bool {
        self.pods.contains_key(uid)
    }

    pub fn pod(&self, uid: &str) -> Option<&Arc<PodInfo>> {
        self.pods.get(uid).map(|w| &w.pod)
    }

    pub fn is_in_flight(&self, uid: &str) -> bool {
        self.pods
            .get(uid)
            .is_some_and(|w| w.place == Place::InFlight)
    }

    /// When a pod was first seen.
    pub fn first_seen_ms(&self, uid: &str) -> Option<u64> {
        self.pods.get(uid).map(|w| w.first_seen_ms)
    }

    /// Adds a new pod that may be tried.
    pub fn add(&mut self, pod: Arc<PodInfo>, key: (i64, u64), now_ms: u64) {
        self.enter(pod, key, now_ms, true);
    }

    /// Adds a new pod that may not be tried yet.
    pub fn add_gated(&mut self, pod: Arc<PodInfo>, now_ms: u64) {
        self.enter(pod, (0, 0), now_ms, false);
    }

    fn enter(&mut self, pod: Arc<PodInfo>, key: (i64, u64), now_ms: u64, may_be_tried: bool) {
        let uid = Arc::clone(&pod.uid);
        let known = self.pods.get(&uid).map(|w| (w.first_seen_ms, w.attempts));
        self.remove(&uid);
        let (first_seen_ms, attempts) = known.unwrap_or((now_ms, 0));
        let waiting = Waiting {
            pod,
            place: Place::Gated,
            version: 0,
            attempts,
            key,
            first_seen_ms,
            backoff_until_ms: 0,
            wakes_on: Events::empty(),
            missed: Events::empty(),
        };
        self.counts.gated += 1;
        self.pods.insert(Arc::clone(&uid), waiting);
        if may_be_tried {
            self.put(&uid, Place::Active);
        }
    }

    /// The pod changed while it waits: keeps its place with the new object. Says whether it was there.
    pub fn update(&mut self, pod: &Arc<PodInfo>) -> bool {
        match self.pods.get_mut(&pod.uid) {
            Some(waiting) => {
                waiting.pod = Arc::clone(pod);
                true
            }
            None => false,
        }
    }

    pub fn remove(&mut self, uid: &str) -> Option<Arc<PodInfo>> {
        let waiting = self.pods.remove(uid)?;
        if let Some(count) = self.count(waiting.place) {
            *count -= 1;
        }
        Some(waiting.pod)
    }

    fn count(&mut self, place: Place) -> Option<&mut usize> {
        match place {
            Place::Active => Some(&mut self.counts.active),
            Place::Backoff(_) => Some(&mut self.counts.backoff),
            Place::Unschedulable(_) => Some(&mut self.counts.unschedulable),
            Place::Gated => Some(&mut self.counts.gated),
            Place::InFlight => None,
        }
    }

    fn put(&mut self, uid: &Uid, place: Place) {
        self.next_version += 1;
        let version = self.next_version;
        let Some(waiting) = self.pods.get_mut(uid) else {
            return;
        };
        let before = std::mem::replace(&mut waiting.place, place);
        waiting.version = version;
        match place {
            Place::Active => self
                .active
                .push(Reverse((waiting.key, version, Arc::clone(uid)))),
            Place::Backoff(until) => self
                .backoff
                .push(Reverse((until, version, Arc::clone(uid)))),
            _ => {}
        }
        if let Some(count) = self.count(before) {
            *count -= 1;
        }
        if let Some(count) = self.count(place) {
            *count += 1;
        }
    }

    /// The next pod to be tried. It stays in flight until it is rejected, requeued or removed.
    pub fn pop(&mut self) -> Option<Attempt> {
        while let Some(Reverse((_, version, uid))) = self.active.pop() {
            if self.pods.get(&uid).is_none_or(|w| w.version != version) {
                continue;
            }
            self.put(&uid, Place::InFlight);
            let waiting = self.pods.get_mut(&uid)?;
            waiting.attempts += 1;
            waiting.missed = Events::empty();
            let pod = Arc::clone(&waiting.pod);
            return Some(Attempt {
                pod,
                attempts: waiting.attempts,
                first_seen_ms: waiting.first_seen_ms,
            });
        }
        None
    }

    /// The pod fits nowhere: it waits for events of these classes. One that came while it was tried counts.
    pub fn reject(&mut self, uid: &Uid, wakes_on: Events, now_ms: u64) {
        let Some(waiting) = self.pods.get_mut(uid) else {
            return;
        };
        waiting.wakes_on = wakes_on;
        waiting.backoff_until_ms = now_ms + backoff_ms(waiting.attempts);
        let is_woken = waiting.missed.intersects(wakes_on);
        let until = waiting.backoff_until_ms;
        self.put(
            uid,
            if is_woken {
                Place::Backoff(until)
            } else {
                Place::Unschedulable(now_ms)
            },
        );
    }

    /// Something went wrong with the attempt: the pod is tried again after its back-off.
    pub fn requeue(&mut self, uid: &Uid, now_ms: u64) {
        let Some(waiting) = self.pods.get_mut(uid) else {
            return;
        };
        waiting.backoff_until_ms = now_ms + backoff_ms(waiting.attempts);
        let until = waiting.backoff_until_ms;
        self.put(uid, Place::Backoff(until));
    }

    /// Something happened in the cluster: pods that wait for it move on.
    pub fn wake(&mut self, events: Events, now_ms: u64) {
        if events == Events::empty() {
            return;
        }
        let mut woken = Vec::new();
        for (uid, waiting) in &mut self.pods {
            match waiting.place {
                Place::Unschedulable(_) if waiting.wakes_on.intersects(events) => {
                    woken.push(Arc::clone(uid));
                }
                Place::InFlight => waiting.missed |= events,
                _ => {}
            }
        }
        for uid in woken {
            self.move_on(&uid, now_ms);
        }
    }

    /// Whether anyone could be interested in an event; `wake` looks at every pod.
    pub fn may_wake(&self) -> bool {
        self.counts.unschedulable > 0
            || self.pods.len() > self.counts.active + self.counts.backoff + self.counts.gated
    }

    /// To the active pods, or to those that back off if its time has not come.
    pub fn move_on(&mut self, uid: &Uid, now_ms: u64) {
        let Some(waiting) = self.pods.get(uid) else {
            return;
        };
        let until = waiting.backoff_until_ms;
        self.put(
            uid,
            if until > now_ms {
                Place::Backoff(until)
            } else {
                Place::Active
            },
        );
    }

    /// Moves pods whose time has come.
    pub fn flush(&mut self, now_ms: u64) {
        while let Some(Reverse((until, version, uid))) = self.backoff.peek() {
            if *until > now_ms {
                break;
            }
            let (version, uid) = (*version, Arc::clone(uid));
            self.backoff.pop();
            if self.pods.get(&uid).is_some_and(|w| w.version == version) {
                self.put(&uid, Place::Active);
            }
        }
        if now_ms >= self.next_flush_ms {
            self.next_flush_ms = now_ms + FLUSH_EVERY_MS;
            let too_long = |w: &Waiting| matches!(w.place, Place::Unschedulable(since) if now_ms - since >= MAX_UNSCHEDULABLE_MS);
            let late: Vec<Uid> = self
                .pods
                .iter()
                .filter(|(_, w)| too_long(w))
                .map(|(uid, _)| Arc::clone(uid))
                .collect();
            for uid in late {
                self.move_on(&uid, now_ms);
            }
        }
    }

    /// When `flush` has something to do next, if no pod can be tried before.
    pub fn next_timer_ms(&self) -> Option<u64> {
        let backoff = self.backoff.peek().map(|Reverse((until, _, _))| *until);
        let flush = (self.counts.unschedulable > 0).then_some(self.next_flush_ms);
        backoff.into_iter().chain(flush).min()
    }

    pub fn has_active(&self) -> bool {
        self.counts.active > 0
    }
}

fn backoff_ms(attempts: u32) -> u64 {
    let doublings = attempts.saturating_sub(1).min(16);
    (INITIAL_BACKOFF_MS << doublings).min(MAX_BACKOFF_MS)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str) -> Arc<PodInfo> {
        Arc::new(PodInfo::new(Arc::new(
            json!({"metadata": {"uid": name, "name": name, "namespace": "d"}, "spec": {}}),
        )))
    }

    fn popped(queue: &mut Queue) -> Vec<String> {
        std::iter::from_fn(|| queue.pop())
            .map(|a| a.pod.uid.to_string())
            .collect()
    }

    #[test]
    fn order_is_by_key() {
        let mut queue = Queue::new();
        for (name, key) in [
            ("late", (0, 9)),
            ("low", (5, 0)),
            ("high", (-5, 99)),
            ("early", (0, 1)),
        ] {
            queue.add(pod(name), key, 0);
        }
        queue.remove("early");
        assert_eq!(popped(&mut queue), ["high", "late", "low"]);
    }

    #[test]
    fn backs_off_longer_each_time() {
        for (attempts, expect) in [
            (1, 1_000),
            (2, 2_000),
            (4, 8_000),
            (5, 10_000),
            (400, 10_000),
        ] {
            assert_eq!(backoff_ms(attempts), expect, "{attempts}");
        }
    }

    #[test]
    fn wakes_by_class_after_back_off() {
        let mut queue = Queue::new();
        queue.add(pod("a"), (0, 0), 0);
        let uid = queue.pop().unwrap().pod.uid.clone();
        queue.reject(&uid, Events::NODE_ADD, 100);
        queue.wake(Events::POD_DELETE, 200);
        assert_eq!(
            queue.counts(),
            Counts {
                unschedulable: 1,
                ..Counts::default()
            }
        );
        queue.wake(Events::NODE_ADD | Events::NODE_LABEL, 300);
        assert_eq!(
            queue.counts(),
            Counts {
                backoff: 1,
                ..Counts::default()
            }
        );
        assert_eq!(queue.next_timer_ms(), Some(1_100));
        queue.flush(1_099);
        assert!(queue.pop().is_none());
        queue.flush(1_100);
        assert_eq!(queue.pop().unwrap().attempts, 2);
    }

    #[test]
    fn an_event_during_the_attempt_counts() {
        let mut queue = Queue::new();
        queue.add(pod("a"), (0, 0), 0);
        let uid = queue.pop().unwrap().pod.uid.clone();
        queue.wake(Events::NODE_ADD, 1);
        queue.reject(&uid, Events::NODE_ADD, 2);
        assert_eq!(queue.counts().backoff, 1);
    }

    #[test]
    fn nobody_waits_for_ever() {
        let mut queue = Queue::new();
        queue.add(pod("a"), (0, 0), 0);
        let uid = queue.pop().unwrap().pod.uid.clone();
        queue.reject(&uid, Events::empty(), 0);
        queue.flush(MAX_UNSCHEDULABLE_MS - 1);
        assert!(!queue.has_active());
        queue.flush(MAX_UNSCHEDULABLE_MS + FLUSH_EVERY_MS);
        assert!(queue.has_active());
    }

    #[test]
    fn gated_pods_wait_for_their_own_change() {
        let mut queue = Queue::new();
        queue.add_gated(pod("a"), 7);
        queue.wake(Events::all(), 8);
        assert!(queue.pop().is_none());
        queue.add(pod("a"), (0, 0), 9);
        assert_eq!(queue.pop().unwrap().first_seen_ms, 7);
        assert_eq!(queue.counts(), Counts::default());
    }
}
