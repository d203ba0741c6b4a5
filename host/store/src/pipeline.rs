//! The commit pipeline: transactions in, batches out.
//!
//! A plain state machine. Transactions are judged against the published state with the current batch laid over it, so a
//! batch may write one key many times. A revision that went to the disk is never given out again, even if its batch
//! failed: after an error nobody knows what is on the disk.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use foldhash::fast::RandomState;

use crate::snapshot::Snapshot;
use crate::{Action, Committed, Event, Expect, Op, Record, Revision, TxnError};

/// Changes that become durable, and visible, together.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) first: Revision,
    pub(crate) revision: Revision,
    /// In revision order; at most one for each key and revision.
    pub(crate) events: Vec<Arc<Event>>,
}

#[derive(Debug)]
pub(crate) struct Pipeline {
    /// The newest revision that is published or in the batch.
    current: Revision,
    /// The newest revision that was ever given out.
    assigned: Revision,
    published: Revision,
    overlay: HashMap<Arc<str>, Option<Arc<Record>>, RandomState>,
    events: Vec<Arc<Event>>,
}

impl Pipeline {
    pub(crate) fn new(revision: Revision) -> Self {
        Self {
            current: revision,
            assigned: revision,
            published: revision,
            overlay: HashMap::default(),
            events: Vec::new(),
        }
    }

    /// Judges a transaction and, if its expectations hold, adds it to the batch. The answer is true once the batch has
    /// landed. Expectations are about the state before the transaction; of several writes to one key the last counts.
    pub(crate) fn apply(
        &mut self,
        ops: &[Op],
        published: &Snapshot,
    ) -> Result<Committed, TxnError> {
        debug_assert_eq!(
            published.revision, self.published,
            "judged against another state than the published one"
        );
        let before: Vec<Option<Arc<Record>>> =
            ops.iter().map(|op| self.see(&op.key, published)).collect();
        for (op, (wanted, current)) in ops.iter().zip(&before).enumerate() {
            if !holds(wanted.expect, current.as_deref()) {
                return Err(TxnError::Conflict {
                    op,
                    current: current.clone(),
                });
            }
        }
        let revision = self.assigned + 1;
        let mut last_write: HashMap<&str, usize, RandomState> = HashMap::default();
        if ops.len() > 1 {
            last_write = ops
                .iter()
                .enumerate()
                .filter(|(_, op)| op.action != Action::Check)
                .map(|(i, op)| (&*op.key, i))
                .collect();
        }
        let mut records = Vec::with_capacity(ops.len());
        let events = self.events.len();
        for (i, (op, before)) in ops.iter().zip(before).enumerate() {
            let counts = ops.len() == 1 || last_write.get(&*op.key) == Some(&i);
            let after = match &op.action {
                Action::Check => {
                    records.push(before);
                    continue;
                }
                Action::Delete => None,
                Action::Put(value) => Some(new_record(op, value, before.as_ref(), revision)),
            };
            records.push(if after.is_some() {
                after.clone()
            } else {
                before.clone()
            });
            if counts && (before.is_some() || after.is_some()) {
                self.stage(before, after, revision);
            }
        }
        if self.events.len() > events {
            self.assigned = revision;
            self.current = revision;
        }
        Ok(Committed {
            revision: self.current,
            records,
        })
    }

    fn see(&self, key: &str, published: &Snapshot) -> Option<Arc<Record>> {
        match self.overlay.get(key) {
            Some(staged) => staged.clone(),
            None => published.get(key).cloned(),
        }
    }

    fn stage(
        &mut self,
        before: Option<Arc<Record>>,
        after: Option<Arc<Record>>,
        revision: Revision,
    ) {
        let Some(key) = after
            .as_ref()
            .or(before.as_ref())
            .map(|record| Arc::clone(&record.key))
        else {
            return;
        };
        self.overlay.insert(Arc::clone(&key), after.clone());
        self.events.push(Arc::new(Event {
            revision,
            key,
            before,
            after,
            memo: Default::default(),
        }));
    }

    /// Closes the batch, if anything has changed. Until [`Self::landed`] or [`Self::failed`] no transaction may be applied.
    pub(crate) fn take(&mut self) -> Option<Batch> {
        let events = std::mem::take(&mut self.events);
        let first = events.first()?.revision;
        Some(Batch {
            first,
            revision: self.current,
            events,
        })
    }

    /// The batch is durable; it is published before the next transaction is applied.
    pub(crate) fn landed(&mut self) {
        self.overlay.clear();
        self.published = self.current;
    }

    /// The batch is not durable, or nobody knows: as if it had never been, but for the revisions that it used.
    pub(crate) fn failed(&mut self) {
        self.overlay.clear();
        self.current = self.published;
    }
}

fn holds(expect: Expect, current: Option<&Record>) -> bool {
    match expect {
        Expect::Any => true,
        Expect::Absent => current.is_none(),
        Expect::Exists => current.is_some(),
        Expect::Revision(revision) => current.is_some_and(|record| record.modified == revision),
    }
}

/// The value is copied: it may be a small part of a large request buffer, which must not live as long as the record.
fn new_record(
    op: &Op,
    value: &Bytes,
    before: Option<&Arc<Record>>,
    revision: Revision,
) -> Arc<Record> {
    Arc::new(Record {
        key: before.map_or_else(|| Arc::from(&*op.key), |before| Arc::clone(&before.key)),
        value: Bytes::copy_from_slice(value),
        created: before.map_or(revision, |before| before.created),
        modified: revision,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(key: &str, expect: Expect, action: Action) -> Op {
        Op {
            key: key.into(),
            expect,
            action,
        }
    }

    fn put(key: &str, expect: Expect, value: &'static str) -> Op {
        op(
            key,
            expect,
            Action::Put(Bytes::from_static(value.as_bytes())),
        )
    }

    fn land(
        pipeline: &mut Pipeline,
        snapshot: &mut Snapshot,
    ) -> Vec<(Revision, String, Option<Bytes>)> {
        let Some(batch) = pipeline.take() else {
            return Vec::new();
        };
        batch.events.iter().for_each(|event| snapshot.apply(event));
        snapshot.revision = batch.revision;
        pipeline.landed();
        let value = |event: &Arc<Event>| event.after.as_ref().map(|record| record.value.clone());
        batch
            .events
            .iter()
            .map(|event| (event.revision, event.key.to_string(), value(event)))
            .collect()
    }

    #[test]
    fn a_batch_sees_its_own_writes() {
        let (mut pipeline, mut snapshot) = (Pipeline::new(0), Snapshot::default());
        let first = pipeline
            .apply(&[put("a/x", Expect::Absent, "1")], &snapshot)
            .expect("absent");
        assert_eq!(first.revision, 1);
        let conflict = pipeline.apply(&[put("a/x", Expect::Absent, "2")], &snapshot);
        assert!(
            matches!(conflict, Err(TxnError::Conflict { op: 0, current: Some(record) }) if record.modified == 1)
        );
        let second = pipeline
            .apply(&[put("a/x", Expect::Revision(1), "2")], &snapshot)
            .expect("revision 1");
        assert_eq!(
            (
                second.revision,
                second.records[0].as_ref().expect("put").created
            ),
            (2, 1)
        );
        pipeline
            .apply(&[op("a/x", Expect::Exists, Action::Delete)], &snapshot)
            .expect("exists");
        pipeline
            .apply(&[put("a/x", Expect::Absent, "3")], &snapshot)
            .expect("absent again");
        let events = land(&mut pipeline, &mut snapshot);
        assert_eq!(
            events.iter().map(|event| event.0).collect::<Vec<_>>(),
            [1, 2, 3, 4]
        );
        let record = snapshot.get("a/x").expect("put last");
        assert_eq!((record.created, record.modified), (4, 4));
    }

    #[test]
    fn what_changes_nothing_takes_no_revision() {
        let (mut pipeline, mut snapshot) = (Pipeline::new(0), Snapshot::default());
        pipeline
            .apply(&[put("a/x", Expect::Any, "1")], &snapshot)
            .expect("any");
        land(&mut pipeline, &mut snapshot);
        let check = |pipeline: &mut Pipeline, ops: &[Op]| {
            assert_eq!(
                pipeline.apply(ops, &snapshot).expect("holds").revision,
                1,
                "{ops:?}"
            );
            assert!(pipeline.take().is_none());
        };
        check(&mut pipeline, &[op("a/x", Expect::Exists, Action::Check)]);
        check(&mut pipeline, &[op("a/y", Expect::Any, Action::Delete)]);
        check(
            &mut pipeline,
            &[
                put("a/y", Expect::Any, "1"),
                op("a/y", Expect::Any, Action::Delete),
            ],
        );
        check(&mut pipeline, &[]);
    }

    #[test]
    fn all_or_nothing_and_one_revision() {
        let (mut pipeline, mut snapshot) = (Pipeline::new(7), Snapshot::default());
        snapshot.revision = 7;
        let refused = pipeline.apply(
            &[
                put("a/x", Expect::Any, "1"),
                op("b/y", Expect::Exists, Action::Check),
            ],
            &snapshot,
        );
        assert!(matches!(
            refused,
            Err(TxnError::Conflict {
                op: 1,
                current: None
            })
        ));
        assert!(pipeline.take().is_none());
        let both = [
            put("a/x", Expect::Any, "0"),
            put("b/y", Expect::Absent, "2"),
            put("a/x", Expect::Any, "1"),
        ];
        assert_eq!(pipeline.apply(&both, &snapshot).expect("holds").revision, 8);
        let events = land(&mut pipeline, &mut snapshot);
        let expect = [
            (8, "b/y".to_owned(), Some(Bytes::from("2"))),
            (8, "a/x".to_owned(), Some(Bytes::from("1"))),
        ];
        assert_eq!(events, expect);
    }

    #[test]
    fn a_failed_batch_leaves_nothing_but_a_gap() {
        let (mut pipeline, mut snapshot) = (Pipeline::new(0), Snapshot::default());
        pipeline
            .apply(&[put("a/x", Expect::Any, "1")], &snapshot)
            .expect("any");
        pipeline
            .apply(&[put("a/y", Expect::Any, "1")], &snapshot)
            .expect("any");
        assert_eq!(pipeline.take().expect("two events").revision, 2);
        pipeline.failed();
        assert_eq!(
            pipeline
                .apply(&[op("a/x", Expect::Absent, Action::Check)], &snapshot)
                .expect("absent")
                .revision,
            0
        );
        assert_eq!(
            pipeline
                .apply(&[put("a/x", Expect::Absent, "2")], &snapshot)
                .expect("absent")
                .revision,
            3
        );
        land(&mut pipeline, &mut snapshot);
        assert_eq!(snapshot.revision, 3);
    }
}
