//! The best of many totals, kept while single ones change: a tournament tree over slots.
//!
//! Invariant: a slot that is not feasible holds `i64::MIN`, and is never the best.

const NONE: i64 = i64::MIN;

#[derive(Clone, Debug, Default)]
pub struct Ranking {
    /// Leaves start at `leaves`; a parent holds the greater of its two children; the root is at 1.
    tree: Vec<i64>,
    leaves: usize,
}

impl Ranking {
    /// Takes all totals anew.
    pub fn rebuild(&mut self, totals: impl ExactSizeIterator<Item = Option<i64>>) {
        self.leaves = totals.len().next_power_of_two().max(1);
        self.tree.clear();
        self.tree.resize(2 * self.leaves, NONE);
        for (slot, total) in totals.enumerate() {
            self.tree[self.leaves + slot] = total.unwrap_or(NONE);
        }
        for at in (1..self.leaves).rev() {
            self.tree[at] = self.tree[2 * at].max(self.tree[2 * at + 1]);
        }
    }

    /// Room for so many slots; new ones are not feasible. Totals are kept.
    pub fn grow(&mut self, slots: usize) {
        if slots > self.leaves {
            let old: Vec<i64> = self.tree.get(self.leaves..).unwrap_or_default().to_vec();
            let total = |slot: usize| old.get(slot).copied().filter(|t| *t != NONE);
            self.rebuild((0..slots).map(total));
        }
    }

    pub fn set(&mut self, slot: usize, total: Option<i64>) {
        let mut at = self.leaves + slot;
        let value = total.unwrap_or(NONE);
        if self.tree[at] == value {
            return;
        }
        self.tree[at] = value;
        while at > 1 {
            at /= 2;
            let greater = self.tree[2 * at].max(self.tree[2 * at + 1]);
            if self.tree[at] == greater {
                break;
            }
            self.tree[at] = greater;
        }
    }

    pub fn best_total(&self) -> Option<i64> {
        self.tree.get(1).copied().filter(|best| *best != NONE)
    }

    /// The first slot at or after `start` (going round) among those with the best total.
    pub fn best_from(&self, start: usize) -> Option<usize> {
        let best = self.best_total()?;
        self.first_with(best, start)
            .or_else(|| self.first_with(best, 0))
    }

    /// The first slot at or after `start` that holds `best`, which is the greatest of all.
    fn first_with(&self, best: i64, start: usize) -> Option<usize> {
        if start >= self.leaves {
            return None;
        }
        let mut at = self.leaves + start;
        // Up, until a subtree to the right of the path holds it; then down to its leftmost leaf.
        loop {
            if self.tree[at] == best {
                break;
            }
            while at % 2 == 1 {
                at /= 2;
                if at <= 1 {
                    return None;
                }
            }
            at += 1;
        }
        while at < self.leaves {
            at *= 2;
            if self.tree[at] != best {
                at += 1;
            }
        }
        Some(at - self.leaves)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rotates_among_equals() {
        let mut ranking = Ranking::default();
        assert_eq!(ranking.best_from(0), None);
        ranking.rebuild([Some(5), None, Some(9), Some(9), Some(1), Some(9)].into_iter());
        for (start, expect) in [(0, 2), (2, 2), (3, 3), (4, 5), (5, 5), (6, 2), (100, 2)] {
            assert_eq!(ranking.best_from(start), Some(expect), "{start}");
        }
        ranking.set(3, None);
        assert_eq!(ranking.best_from(3), Some(5));
    }

    proptest! {
        #[test]
        fn equals_a_scan(
            size in 1usize..70,
            changes in prop::collection::vec((0usize..70, prop::option::of(-3i64..4)), 0..60),
            start in 0usize..80,
        ) {
            let mut plain = vec![None; size];
            let mut ranking = Ranking::default();
            ranking.grow(size);
            for (slot, total) in changes {
                let slot = slot % size;
                plain[slot] = total;
                ranking.set(slot, total);
            }
            let best = plain.iter().flatten().max().copied();
            prop_assert_eq!(ranking.best_total(), best);
            let is_best = |slot: &usize| best.is_some() && plain[*slot] == best;
            let expect = (start.min(size)..size).find(is_best).or_else(|| (0..size).find(is_best));
            prop_assert_eq!(ranking.best_from(start), expect);
        }
    }
}
