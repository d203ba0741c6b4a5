//! The log on disks that fail.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::faults::{Fault, FaultyDisk};
use super::log::{RowLog, Slack};
use super::{Disk, Loaded};
use crate::history::HistoryLimits;
use crate::local::{LocalStore, history_limits};
use crate::pipeline::{Batch, Pipeline};
use crate::snapshot::Snapshot;
use crate::{Action, Expect, Op, RangeQuery, Revision, Store, StoreOptions, TxnError};

const LIMITS: HistoryLimits = HistoryLimits {
    window_ms: u64::MAX,
    bytes: usize::MAX,
    events: usize::MAX,
};
const TINY: Slack = Slack {
    moving_begins: 20_000,
    moving_ends: 10_000,
};

/// Draws numbers that look random and are the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

fn put(key: String, value: impl Into<Bytes>) -> Op {
    Op {
        key,
        expect: Expect::Any,
        action: Action::Put(value.into()),
    }
}

fn delete(key: String) -> Op {
    Op {
        key,
        expect: Expect::Any,
        action: Action::Delete,
    }
}

fn store_on(disk: &FaultyDisk) -> LocalStore {
    let options = StoreOptions::memory();
    let (log, loaded) =
        RowLog::open(Box::new(disk.clone()), history_limits(&options)).expect("opens");
    LocalStore::start(&options, Box::new(log), loaded).expect("starts")
}

/// A pipeline with its disk, without a committer in between.
struct Rig {
    log: RowLog,
    pipeline: Pipeline,
    snapshot: Snapshot,
}

impl Rig {
    fn open(disk: &FaultyDisk) -> (Self, Loaded) {
        let (log, mut loaded) =
            RowLog::open_with_slack(Box::new(disk.clone()), LIMITS, TINY).expect("opens");
        let snapshot = std::mem::take(&mut loaded.snapshot);
        (
            Self {
                log,
                pipeline: Pipeline::new(snapshot.revision),
                snapshot,
            },
            loaded,
        )
    }

    fn commit(&mut self, ops: &[Op]) -> Result<Batch, super::WriteError> {
        self.pipeline
            .apply(ops, &self.snapshot)
            .expect("no expectations");
        let batch = self.pipeline.take().expect("something changes");
        match self.log.append(&batch, &self.snapshot) {
            Ok(()) => {
                batch
                    .events
                    .iter()
                    .for_each(|event| self.snapshot.apply(event));
                self.snapshot.revision = batch.revision;
                self.pipeline.landed();
                Ok(batch)
            }
            Err(error) => {
                self.pipeline.failed();
                Err(error)
            }
        }
    }
}

fn state(snapshot: &Snapshot) -> Vec<(String, Bytes, Revision, Revision)> {
    let row = |record: &Arc<crate::Record>| {
        (
            record.key.to_string(),
            record.value.clone(),
            record.created,
            record.modified,
        )
    };
    snapshot.records().map(row).collect()
}

/// Churns a small key space, so that the log is moved again and again; at random moments the power goes.
#[test]
fn a_power_loss_loses_nothing_that_was_acknowledged() {
    let mut dice = Dice(7);
    let mut disk = FaultyDisk::default();
    let mut acknowledged: Vec<(String, Bytes, Revision, Revision)> = Vec::new();
    let (mut newest, mut losses, mut moved) = (0, 0, false);
    while losses < 60 {
        let (mut rig, loaded) = Rig::open(&disk);
        assert!(
            rig.snapshot.revision >= newest,
            "went back from {newest} to {}",
            rig.snapshot.revision
        );
        if rig.snapshot.revision == newest {
            assert_eq!(state(&rig.snapshot), acknowledged);
        }
        // What was never acknowledged may have happened all the same, but then whole: see the batch below.
        let pairs = |prefix: &str| {
            rig.snapshot
                .page(&RangeQuery {
                    prefix: prefix.into(),
                    ..Default::default()
                })
                .records
        };
        let (left, right) = (pairs("left/"), pairs("right/"));
        assert_eq!(left.len(), right.len());
        assert!(left.iter().zip(&right).all(|(left, right)| (&left.value, left.modified) == (&right.value, right.modified)));
        let mut revisions = loaded.history.iter().map(|event| event.revision);
        assert!(revisions.all(|revision| revision > loaded.oldest));

        disk.set_fault(Fault::PowerLossAfter(1 + dice.roll(60) as usize));
        loop {
            let (number, size) = (dice.roll(40), dice.roll(900) as usize);
            let value = Bytes::from(vec![dice.roll(256) as u8; size]);
            let ops = match dice.roll(4) {
                0 => [
                    delete(format!("left/{number}")),
                    delete(format!("right/{number}")),
                ],
                _ => [
                    put(format!("left/{number}"), value.clone()),
                    put(format!("right/{number}"), value),
                ],
            };
            if rig.snapshot.get(&format!("left/{number}")).is_none()
                && ops[0].action == Action::Delete
            {
                continue;
            }
            let before = rig.log.log_bytes();
            if rig.commit(&ops).is_err() {
                break;
            }
            moved |= rig.log.log_bytes() < before;
            assert!(
                rig.log.log_bytes() < 300_000,
                "the log grows without bound: {}",
                rig.log.log_bytes()
            );
            newest = rig.snapshot.revision;
            acknowledged = state(&rig.snapshot);
        }
        assert!(disk.power_is_lost());
        drop(rig);
        losses += 1;
        let odds = dice.roll(3);
        disk = disk.after_power_loss(|| match odds {
            0 => false,
            1 => true,
            _ => dice.roll(2) == 0,
        });
    }
    assert!(moved, "the log was never moved");
}

#[test]
fn history_comes_back_with_what_was_replaced() {
    let disk = FaultyDisk::default();
    let (mut rig, _) = Rig::open(&disk);
    let mut events = Vec::new();
    for round in 0..200_u64 {
        let key = format!("pods/{}", round % 7);
        let op = if round % 5 == 4 && rig.snapshot.get(&key).is_some() {
            delete(key)
        } else {
            put(key, vec![1; 300])
        };
        events.extend(rig.commit(&[op]).expect("written").events);
    }
    let expect = state(&rig.snapshot);
    drop(rig);
    let (rig, loaded) = Rig::open(&disk);
    assert_eq!(state(&rig.snapshot), expect);
    assert!(!loaded.history.is_empty(), "no history at all");
    assert!(loaded.oldest > 0, "the log was never moved");
    let restored: HashMap<Revision, _> = loaded
        .history
        .iter()
        .map(|event| (event.revision, event))
        .collect();
    for event in events.iter().filter(|event| event.revision > loaded.oldest) {
        let back = restored.get(&event.revision).expect("in history");
        assert_eq!(
            (&back.key, &back.before, &back.after),
            (&event.key, &event.before, &event.after)
        );
    }
}

/// After an error, what was refused must not have happened, even if the disk did write it.
#[test]
fn a_refused_batch_is_taken_back_from_the_disk() {
    for fault in [
        Fault::SyncFails,
        Fault::NoSpaceAfter(0),
        Fault::NoSpaceAfter(1),
        Fault::NoSpaceAfter(3),
    ] {
        let disk = FaultyDisk::default();
        let (mut rig, _) = Rig::open(&disk);
        for round in 0..300 {
            rig.commit(&[put(format!("pods/{}", round % 20), vec![1; 400])])
                .expect("written");
        }
        let expect = state(&rig.snapshot);
        let revision = rig.snapshot.revision;
        disk.set_fault(fault);
        rig.commit(&[put("pods/refused".into(), "x")])
            .expect_err("cannot be written");
        rig.log.recover().expect_err("still broken");
        disk.set_fault(Fault::None);
        rig.log.recover().expect("well again");
        let batch = rig
            .commit(&[put("pods/next".into(), "y")])
            .expect("written");
        assert_eq!(
            batch.revision,
            revision + 2,
            "the refused revision is not given out again"
        );
        drop(rig);
        let (rig, _) = Rig::open(&disk);
        assert!(rig.snapshot.get("pods/refused").is_none(), "{fault:?}");
        let mut found = state(&rig.snapshot);
        found.retain(|row| row.0 != "pods/next");
        assert_eq!(found, expect, "{fault:?}");
    }
}

#[tokio::test]
async fn a_full_disk_refuses_writes_and_serves_reads_until_there_is_room() {
    let disk = FaultyDisk::default();
    let store = store_on(&disk);
    store
        .commit(vec![put("pods/a".into(), "1")])
        .await
        .expect("room");
    let mut watch = store.watch("pods/", 1).expect("current");
    disk.set_fault(Fault::NoSpaceAfter(2));
    for _ in 0..3 {
        let refused = store.commit(vec![put("pods/a".into(), "2")]).await;
        assert!(
            matches!(refused, Err(TxnError::Unavailable(_))),
            "{refused:?}"
        );
        assert_eq!(store.get("pods/a").expect("still there").value, "1");
        assert_eq!(store.revision(), 1);
    }
    // What writes nothing needs no room.
    let check = Op {
        key: "pods/a".into(),
        expect: Expect::Revision(1),
        action: Action::Check,
    };
    assert_eq!(store.commit(vec![check]).await.expect("holds").revision, 1);
    disk.set_fault(Fault::None);
    let committed = tokio::time::timeout(Duration::from_secs(10), async {
        loop {
            match store.commit(vec![put("pods/a".into(), "3")]).await {
                Ok(committed) => return committed,
                Err(TxnError::Unavailable(_)) => tokio::task::yield_now().await,
                Err(other) => panic!("{other}"),
            }
        }
    })
    .await
    .expect("recovers");
    let batch = watch.next(10).await.expect("goes on");
    assert_eq!(
        batch
            .events
            .iter()
            .map(|event| event.revision)
            .collect::<Vec<_>>(),
        [committed.revision]
    );
    store.close().await;
    let store = store_on(&disk);
    assert_eq!(store.get("pods/a").expect("there").value, "3");
    assert_eq!(store.revision(), committed.revision);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_writers_share_an_fsync() {
    const WRITERS: u64 = 64;
    const WRITES: u64 = 40;
    let disk = FaultyDisk::default();
    let store = Arc::new(store_on(&disk));
    disk.set_sync_time(Duration::from_millis(5));
    let before = disk.syncs();
    #[expect(
        clippy::disallowed_methods,
        reason = "edge: how long the whole took is worth telling"
    )]
    let began = std::time::Instant::now();
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                for write in 0..WRITES {
                    let op = put(format!("pods/{writer}/{write}"), vec![1; 2_400]);
                    store.commit(vec![op]).await.expect("written");
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.expect("no panic");
    }
    let syncs = disk.syncs() - before;
    let per_second = (WRITERS * WRITES) as f64 / began.elapsed().as_secs_f64();
    println!("{syncs} syncs of 5 ms, {per_second:.0} writes a second");
    assert!(
        syncs * WRITERS / 2 <= WRITERS * WRITES,
        "{syncs} syncs for {} writes",
        WRITERS * WRITES
    );
}
