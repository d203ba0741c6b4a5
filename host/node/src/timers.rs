//! One heap of deadlines. A deadline that is no longer wanted is recognised by whoever set it (by its generation).

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Deadlines are rounded up to this, so that work comes in batches.
pub const RESOLUTION_MS: i64 = 50;

#[derive(Debug)]
pub struct Timers<T> {
    heap: BinaryHeap<Reverse<(i64, u64, Entry<T>)>>,
    sequence: u64,
}

/// Never compared: the sequence number before it is unique.
#[derive(Debug)]
struct Entry<T>(T);

impl<T> PartialEq for Entry<T> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}
impl<T> Eq for Entry<T> {}
impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<T> Ord for Entry<T> {
    fn cmp(&self, _: &Self) -> std::cmp::Ordering {
        std::cmp::Ordering::Equal
    }
}

impl<T> Default for Timers<T> {
    fn default() -> Self {
        Self {
            heap: BinaryHeap::new(),
            sequence: 0,
        }
    }
}

impl<T> Timers<T> {
    /// `at_ms`: milliseconds since 1970.
    pub fn set(&mut self, at_ms: i64, what: T) {
        let rounded = (at_ms + RESOLUTION_MS - 1).div_euclid(RESOLUTION_MS) * RESOLUTION_MS;
        self.sequence += 1;
        self.heap
            .push(Reverse((rounded, self.sequence, Entry(what))));
    }

    pub fn next_ms(&self) -> Option<i64> {
        self.heap.peek().map(|Reverse((at, _, _))| *at)
    }

    /// The next deadline that has passed.
    pub fn pop(&mut self, now_ms: i64) -> Option<T> {
        if self.next_ms()? > now_ms {
            return None;
        }
        self.heap.pop().map(|Reverse((_, _, Entry(what)))| what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_order_and_rounded_up() {
        let mut timers = Timers::default();
        timers.set(1_020, "b");
        timers.set(990, "a");
        timers.set(1_030, "c");
        assert_eq!(timers.next_ms(), Some(1_000));
        assert_eq!(timers.pop(999), None);
        assert_eq!(timers.pop(1_000), Some("a"));
        assert_eq!(timers.pop(1_000), None);
        assert_eq!(timers.pop(1_050), Some("b"));
        assert_eq!(timers.pop(1_050), Some("c"));
        assert_eq!(timers.pop(9_999), None);
    }
}
