//! The work queue of one controller: a state machine over keys and an explicit `now` (milliseconds).
//!
//! Invariants: a key waits at most once; a key that is being worked on is not handed out again, but remembered and queued
//! when it is done. So reconciles of one key never overlap and no change is missed.
//! Back-off as client-go's: 5 ms doubled per failure up to 1,000 s, forgotten on success.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
use std::hash::Hash;

use foldhash::fast::RandomState;

pub const BASE_DELAY_MS: u64 = 5;
pub const MAX_DELAY_MS: u64 = 1_000_000;

#[derive(Debug)]
pub struct WorkQueue<K> {
    /// Keys to hand out, with the time at which they came.
    ready: VecDeque<(K, u64)>,
    /// Everything in `ready`, and keys in `working` that changed meanwhile.
    dirty: HashSet<K, RandomState>,
    working: HashMap<K, u64, RandomState>,
    delayed: BinaryHeap<Reverse<(u64, u64)>>,
    /// By the sequence number in `delayed`.
    delayed_keys: HashMap<u64, K, RandomState>,
    /// The earliest deadline of each delayed key; later entries in the heap are void.
    delayed_at: HashMap<K, (u64, u64), RandomState>,
    failures: HashMap<K, u32, RandomState>,
    sequence: u64,
    /// How often a key was added, and added for a retry.
    pub adds: u64,
    pub retries: u64,
}

impl<K> Default for WorkQueue<K> {
    fn default() -> Self {
        Self {
            ready: VecDeque::new(),
            dirty: HashSet::default(),
            working: HashMap::default(),
            delayed: BinaryHeap::new(),
            delayed_keys: HashMap::default(),
            delayed_at: HashMap::default(),
            failures: HashMap::default(),
            sequence: 0,
            adds: 0,
            retries: 0,
        }
    }
}

/// A key to work on.
#[derive(Debug, PartialEq, Eq)]
pub struct Taken<K> {
    pub key: K,
    /// How long it waited.
    pub waited_ms: u64,
}

impl<K: Clone + Eq + Hash> WorkQueue<K> {
    pub fn add(&mut self, key: K, now_ms: u64) {
        if !self.dirty.insert(key.clone()) {
            return;
        }
        self.adds += 1;
        if !self.working.contains_key(&key) {
            self.ready.push_back((key, now_ms));
        }
    }

    /// The key is added when `after_ms` have passed; of several deadlines of one key the earliest counts.
    pub fn add_after(&mut self, key: K, after_ms: u64, now_ms: u64) {
        if after_ms == 0 {
            self.add(key, now_ms);
            return;
        }
        let at = now_ms.saturating_add(after_ms);
        if self
            .delayed_at
            .get(&key)
            .is_some_and(|(earlier, _)| *earlier <= at)
        {
            return;
        }
        self.sequence += 1;
        if let Some((_, void)) = self.delayed_at.insert(key.clone(), (at, self.sequence)) {
            self.delayed_keys.remove(&void);
        }
        self.delayed_keys.insert(self.sequence, key);
        self.delayed.push(Reverse((at, self.sequence)));
    }

    /// The key failed, or wants to be tried again soon: later each time.
    pub fn add_rate_limited(&mut self, key: K, now_ms: u64) {
        let failures = self.failures.entry(key.clone()).or_default();
        let delay = BASE_DELAY_MS
            .saturating_mul(1u64.checked_shl(*failures).unwrap_or(u64::MAX))
            .min(MAX_DELAY_MS);
        *failures = failures.saturating_add(1).min(40);
        self.retries += 1;
        self.add_after(key, delay, now_ms);
    }

    /// The key has succeeded: its next failure starts from the shortest delay.
    pub fn forget(&mut self, key: &K) {
        self.failures.remove(key);
    }

    /// The next key to work on. It must be given back by [`WorkQueue::done`].
    pub fn take(&mut self, now_ms: u64) -> Option<Taken<K>> {
        self.mature(now_ms);
        let (key, since) = self.ready.pop_front()?;
        self.dirty.remove(&key);
        self.working.insert(key.clone(), now_ms);
        Some(Taken {
            key,
            waited_ms: now_ms.saturating_sub(since),
        })
    }

    /// Work on the key has ended; if it changed meanwhile, it is queued again.
    pub fn done(&mut self, key: &K, now_ms: u64) {
        if self.working.remove(key).is_some() && self.dirty.contains(key) {
            self.ready.push_back((key.clone(), now_ms));
        }
    }

    fn mature(&mut self, now_ms: u64) {
        while let Some(Reverse((at, sequence))) = self.delayed.peek().copied() {
            if at > now_ms {
                break;
            }
            self.delayed.pop();
            if let Some(key) = self.delayed_keys.remove(&sequence) {
                self.delayed_at.remove(&key);
                self.add(key, now_ms);
            }
        }
    }

    /// When a delayed key becomes due.
    pub fn next_ms(&self) -> Option<u64> {
        self.delayed.peek().map(|Reverse((at, _))| *at)
    }

    /// Keys ready to be taken.
    pub fn depth(&self) -> usize {
        self.ready.len()
    }

    pub fn working(&self) -> usize {
        self.working.len()
    }

    pub fn delayed(&self) -> usize {
        self.delayed_keys.len()
    }

    /// When the oldest work under way began.
    pub fn oldest_start_ms(&self) -> Option<u64> {
        self.working.values().min().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(queue: &mut WorkQueue<&'static str>, now: u64) -> Option<&'static str> {
        queue.take(now).map(|t| t.key)
    }

    #[test]
    fn a_key_waits_once_and_never_overlaps() {
        let mut queue = WorkQueue::default();
        queue.add("a", 0);
        queue.add("b", 0);
        queue.add("a", 1);
        assert_eq!(queue.depth(), 2);
        assert_eq!(
            queue.take(7),
            Some(Taken {
                key: "a",
                waited_ms: 7
            })
        );
        queue.add("a", 2);
        queue.add("a", 2);
        assert_eq!(take(&mut queue, 2), Some("b"));
        assert_eq!(take(&mut queue, 2), None);
        queue.done(&"a", 3);
        assert_eq!(take(&mut queue, 3), Some("a"));
        queue.done(&"a", 4);
        queue.done(&"b", 4);
        assert_eq!(take(&mut queue, 4), None);
        assert_eq!(queue.adds, 3);
    }

    #[test]
    fn back_off_doubles_and_is_forgotten() {
        let mut queue = WorkQueue::default();
        let delay = |queue: &mut WorkQueue<&'static str>| {
            queue.add_rate_limited("a", 0);
            let at = queue.next_ms().unwrap();
            assert_eq!(take(queue, at - 1), None);
            assert_eq!(take(queue, at), Some("a"));
            queue.done(&"a", at);
            at
        };
        assert_eq!(
            [delay(&mut queue), delay(&mut queue), delay(&mut queue)],
            [5, 10, 20]
        );
        for _ in 0..60 {
            delay(&mut queue);
        }
        assert_eq!(delay(&mut queue), MAX_DELAY_MS);
        queue.forget(&"a");
        assert_eq!(delay(&mut queue), 5);
    }

    #[test]
    fn the_earliest_deadline_counts() {
        let mut queue = WorkQueue::default();
        queue.add_after("a", 100, 0);
        queue.add_after("a", 50, 0);
        queue.add_after("a", 70, 0);
        assert_eq!(take(&mut queue, 49), None);
        assert_eq!(take(&mut queue, 50), Some("a"));
        queue.done(&"a", 50);
        assert_eq!(take(&mut queue, 200), None);
        assert_eq!(queue.delayed(), 0);
    }
}
