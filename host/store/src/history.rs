//! Past events: one log for each collection, and the ledger that says how far back they may reach.
//!
//! Both are plain state machines: time comes in as milliseconds since the store was opened.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::{Event, Record, Revision};

/// Encodings are kept on a log's newest events as long as their values come to this many bytes; a watcher further behind
/// makes its own. Without a bound, they would multiply what history costs.
const MEMO_WINDOW_BYTES: usize = 8 << 20;

/// What an event costs beside the value that it supersedes.
pub(crate) const EVENT_OVERHEAD_BYTES: usize = size_of::<Event>() + size_of::<Record>() + 64;

/// The retained events of one collection, in revision order.
#[derive(Debug, Default)]
pub(crate) struct Log {
    events: VecDeque<Arc<Event>>,
    /// The revision of the newest event ever, retained or not.
    newest: Revision,
    /// How many events at the front are outside of the memo window.
    plain: usize,
    memo_bytes: usize,
}

impl Log {
    pub(crate) fn newest(&self) -> Revision {
        self.newest
    }

    pub(crate) fn push(&mut self, event: Arc<Event>) {
        debug_assert!(
            event.revision >= self.newest,
            "events come in revision order"
        );
        self.newest = event.revision;
        self.memo_bytes += memo_cost(&event);
        self.events.push_back(event);
        while self.memo_bytes > MEMO_WINDOW_BYTES {
            let Some(event) = self.events.get_mut(self.plain) else {
                break;
            };
            self.memo_bytes -= memo_cost(event);
            if event.memo.iter().any(|slot| slot.get().is_some()) {
                *event = Arc::new(without_memo(event));
            }
            self.plain += 1;
        }
    }

    /// The events after a revision, oldest first. Those outside of the memo window come as copies, so that encodings made
    /// for a late reader live no longer than the reader needs them.
    pub(crate) fn after(&self, revision: Revision) -> impl Iterator<Item = LogEvent<'_>> {
        let start = self
            .events
            .partition_point(|event| event.revision <= revision);
        self.events
            .range(start..)
            .enumerate()
            .map(move |(offset, event)| LogEvent {
                event,
                plain: start + offset < self.plain,
            })
    }

    /// Takes out the events up to and including a revision.
    pub(crate) fn forget(&mut self, through: Revision) -> Vec<Arc<Event>> {
        let end = self
            .events
            .partition_point(|event| event.revision <= through);
        for event in self.events.range(self.plain.min(end)..end) {
            self.memo_bytes -= memo_cost(event);
        }
        self.plain = self.plain.saturating_sub(end);
        let forgotten = self.events.drain(..end).collect();
        if self.events.len() < self.events.capacity() / 4 {
            self.events.shrink_to(self.events.len() * 2);
        }
        forgotten
    }
}

pub(crate) struct LogEvent<'a> {
    event: &'a Arc<Event>,
    plain: bool,
}

impl LogEvent<'_> {
    pub(crate) fn event(&self) -> &Event {
        self.event
    }

    pub(crate) fn share(&self) -> Arc<Event> {
        if self.plain {
            Arc::new(without_memo(self.event))
        } else {
            Arc::clone(self.event)
        }
    }
}

fn memo_cost(event: &Event) -> usize {
    let record = event.after.as_ref().or(event.before.as_ref());
    EVENT_OVERHEAD_BYTES + record.map_or(0, |record| record.value.len())
}

fn without_memo(event: &Event) -> Event {
    Event {
        revision: event.revision,
        key: Arc::clone(&event.key),
        before: event.before.clone(),
        after: event.after.clone(),
        memo: Default::default(),
    }
}

/// What an event keeps in memory that would otherwise be free.
pub(crate) fn retained_bytes(event: &Event) -> usize {
    EVENT_OVERHEAD_BYTES + event.before.as_ref().map_or(0, |before| before.value.len())
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct HistoryLimits {
    pub(crate) window_ms: u64,
    pub(crate) bytes: usize,
    pub(crate) events: usize,
}

/// Stretches are at most one in this many of what may be retained, so compaction goes in small steps.
const STRETCHES: u64 = 256;

/// Decides how far back history reaches.
#[derive(Debug)]
pub(crate) struct Ledger {
    limits: HistoryLimits,
    stretches: VecDeque<Stretch>,
    bytes: usize,
    events: usize,
}

/// Consecutive revisions that are forgotten together.
#[derive(Debug)]
struct Stretch {
    through: Revision,
    began_ms: u64,
    ended_ms: u64,
    bytes: usize,
    events: usize,
}

impl Ledger {
    pub(crate) fn new(limits: HistoryLimits) -> Self {
        Self {
            limits,
            stretches: VecDeque::new(),
            bytes: 0,
            events: 0,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.stretches.is_empty()
    }

    /// Notes that a revision's events are retained.
    pub(crate) fn add(&mut self, through: Revision, bytes: usize, events: usize, now_ms: u64) {
        self.bytes += bytes;
        self.events += events;
        let limits = self.limits;
        if let Some(last) = self.stretches.back_mut()
            && now_ms - last.began_ms <= limits.window_ms / STRETCHES
            && last.bytes + bytes <= limits.bytes / STRETCHES as usize
            && last.events + events <= limits.events / STRETCHES as usize
        {
            last.through = through;
            last.ended_ms = now_ms;
            last.bytes += bytes;
            last.events += events;
            return;
        }
        self.stretches.push_back(Stretch {
            through,
            began_ms: now_ms,
            ended_ms: now_ms,
            bytes,
            events,
        });
    }

    /// The revision up to which history is to be forgotten now, if any.
    pub(crate) fn due(&mut self, now_ms: u64) -> Option<Revision> {
        let mut through = None;
        while let Some(first) = self.stretches.front() {
            let late = now_ms.saturating_sub(first.ended_ms) > self.limits.window_ms;
            if !late && self.bytes <= self.limits.bytes && self.events <= self.limits.events {
                break;
            }
            through = Some(first.through);
            self.drop_first();
        }
        through
    }

    /// Notes that history up to and including a revision is forgotten.
    pub(crate) fn forget(&mut self, through: Revision) {
        while self
            .stretches
            .front()
            .is_some_and(|first| first.through <= through)
        {
            self.drop_first();
        }
    }

    fn drop_first(&mut self) {
        if let Some(first) = self.stretches.pop_front() {
            self.bytes -= first.bytes;
            self.events -= first.events;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn event(revision: Revision, len: usize) -> Arc<Event> {
        let key: Arc<str> = format!("pods/{revision}").into();
        let after = Record {
            key: Arc::clone(&key),
            value: Bytes::from(vec![0; len]),
            created: revision,
            modified: revision,
        };
        Arc::new(Event {
            revision,
            key,
            before: None,
            after: Some(Arc::new(after)),
            memo: Default::default(),
        })
    }

    #[test]
    fn history_is_bounded_by_time_bytes_and_events() {
        let limits = HistoryLimits {
            window_ms: 1_000,
            bytes: 10_000,
            events: 500,
        };
        let check = |adds: &[(u64, usize, usize)], now_ms: u64, expect: Option<Revision>| {
            let mut ledger = Ledger::new(limits);
            for (i, &(at, bytes, events)) in adds.iter().enumerate() {
                ledger.add(i as u64 + 1, bytes, events, at);
            }
            assert_eq!(ledger.due(now_ms), expect, "{adds:?} at {now_ms}");
            assert_eq!(ledger.due(now_ms), None, "due twice");
        };
        check(&[(0, 100, 1), (500, 100, 1)], 1_000, None);
        check(&[(0, 100, 1), (500, 100, 1)], 1_001, Some(1));
        check(&[(0, 100, 1), (500, 100, 1)], 5_000, Some(2));
        check(&[(0, 6_000, 1), (0, 6_000, 1)], 0, Some(1));
        check(&[(0, 20_000, 1)], 0, Some(1));
        check(&[(0, 1, 300), (0, 1, 300), (0, 1, 100)], 0, Some(1));
        // Close together: one stretch, which goes as a whole and not too early.
        check(&[(0, 1, 0), (1, 1, 1)], 1_001, None);
        check(&[(0, 1, 0), (1, 1, 1)], 1_002, Some(2));
    }

    #[test]
    fn encodings_are_let_go_of_when_events_grow_old() {
        let mut log = Log::default();
        let size = 1 << 20;
        for revision in 1..=40 {
            let event = event(revision, size);
            event.memo[0].set(Bytes::from_static(b"x")).expect("fresh");
            log.push(event);
        }
        let memos: Vec<bool> = log
            .after(0)
            .map(|item| item.share().memo[0].get().is_some())
            .collect();
        let kept = memos.iter().filter(|kept| **kept).count();
        assert!(kept * size <= MEMO_WINDOW_BYTES && kept >= 7, "{kept} kept");
        assert!(memos[40 - kept..].iter().all(|kept| *kept));
        log.forget(38);
        assert_eq!(log.after(0).count(), 2);
        log.forget(40);
        assert_eq!((log.memo_bytes, log.plain, log.newest()), (0, 0, 40));
    }
}
