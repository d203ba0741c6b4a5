//! Random histories, told to a store and to a simple model of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use oarlock_store::{
    Action, Expect, Op, RangeQuery, ReadError, Revision, Store, StoreOptions, TxnError,
};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

const DEADLINE: Duration = Duration::from_secs(30);
const KEYS: [&str; 7] = [
    "pods/a/1",
    "pods/a/2",
    "pods/b/1",
    "pods/ä/1",
    "podsets/a",
    "nodes/1",
    "nodes/2",
];
const PREFIXES: [&str; 6] = [
    "pods/", "pods/a/", "pods/ä/", "nodes/", "nodes/2", "podsets/",
];

#[derive(Clone, Debug)]
enum Wanted {
    Any,
    Absent,
    Exists,
    /// The right revision, if there is one.
    Current,
    Revision(Revision),
}

#[derive(Clone, Debug)]
enum Step {
    Transaction(Vec<(usize, Wanted, Option<Option<u8>>)>),
    /// Up to this share of history, in 256ths.
    Compact(u8),
    Reopen,
    Look {
        at: u8,
        prefix: usize,
        limit: usize,
    },
}

fn wanted() -> impl Strategy<Value = Wanted> {
    prop_oneof![
        4 => Just(Wanted::Any),
        1 => Just(Wanted::Absent),
        1 => Just(Wanted::Exists),
        2 => Just(Wanted::Current),
        1 => (0..20_u64).prop_map(Wanted::Revision),
    ]
}

/// A check, a deletion, or a put.
fn action() -> impl Strategy<Value = Option<Option<u8>>> {
    prop_oneof![1 => Just(None), 2 => Just(Some(None)), 5 => any::<u8>().prop_map(|value| Some(Some(value)))]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => prop::collection::vec((0..KEYS.len(), wanted(), action()), 0..4).prop_map(Step::Transaction),
        1 => any::<u8>().prop_map(Step::Compact),
        1 => Just(Step::Reopen),
        5 => (any::<u8>(), 0..PREFIXES.len(), 0..4_usize).prop_map(|(at, prefix, limit)| Step::Look { at, prefix, limit }),
    ]
}

/// Value, created, modified.
type State = BTreeMap<String, (Bytes, Revision, Revision)>;

/// The state at every revision.
struct Model {
    states: Vec<State>,
}

impl Model {
    fn revision(&self) -> Revision {
        self.states.len() as Revision - 1
    }

    /// The revision afterwards, or the first operation that is in conflict.
    fn commit(&mut self, ops: &[Op]) -> Result<Revision, usize> {
        let before = self.states.last().expect("revision 0");
        let revision = self.revision() + 1;
        for (i, op) in ops.iter().enumerate() {
            let current = before.get(&op.key);
            let holds = match op.expect {
                Expect::Any => true,
                Expect::Absent => current.is_none(),
                Expect::Exists => current.is_some(),
                Expect::Revision(wanted) => current.is_some_and(|state| state.2 == wanted),
            };
            if !holds {
                return Err(i);
            }
        }
        let mut after = before.clone();
        for op in ops {
            match &op.action {
                Action::Check => {}
                Action::Delete => {
                    after.remove(&op.key);
                }
                Action::Put(value) => {
                    let created = before.get(&op.key).map_or(revision, |state| state.1);
                    after.insert(op.key.clone(), (value.clone(), created, revision));
                }
            }
        }
        if after != *before {
            self.states.push(after);
        }
        Ok(self.revision())
    }

    fn ops(&self, ops: &[(usize, Wanted, Option<Option<u8>>)]) -> Vec<Op> {
        let newest = self.states.last().expect("revision 0");
        ops.iter()
            .map(|(key, wanted, action)| {
                let key = KEYS[*key].to_owned();
                let expect = match wanted {
                    Wanted::Any => Expect::Any,
                    Wanted::Absent => Expect::Absent,
                    Wanted::Exists => Expect::Exists,
                    Wanted::Current => newest
                        .get(&key)
                        .map_or(Expect::Absent, |state| Expect::Revision(state.2)),
                    Wanted::Revision(revision) => Expect::Revision(*revision),
                };
                let action = match action {
                    None => Action::Check,
                    Some(None) => Action::Delete,
                    Some(Some(value)) => Action::Put(vec![*value; usize::from(*value)].into()),
                };
                Op {
                    key,
                    expect,
                    action,
                }
            })
            .collect()
    }

    fn rows(&self, prefix: &str, at: Revision) -> Vec<(String, Bytes, Revision, Revision)> {
        let of_prefix = self.states[at as usize]
            .iter()
            .filter(|(key, _)| key.starts_with(prefix));
        of_prefix
            .map(|(key, (value, created, modified))| {
                (key.clone(), value.clone(), *created, *modified)
            })
            .collect()
    }
}

fn look(store: &Arc<dyn Store>, model: &Model, at: Revision, prefix: &str, limit: usize) {
    let expect = model.rows(prefix, at);
    let mut found = Vec::new();
    let mut after = None;
    loop {
        let query = RangeQuery {
            prefix: prefix.into(),
            after,
            limit,
            at: Some(at),
        };
        let page = match store.range(&query) {
            Ok(page) => page,
            Err(error) => {
                let oldest = store.oldest();
                assert!(at < oldest, "{error}");
                return assert_eq!(error, ReadError::Compacted { wanted: at, oldest });
            }
        };
        found.extend(
            page.records
                .iter()
                .map(|r| (r.key.to_string(), r.value.clone(), r.created, r.modified)),
        );
        assert_eq!(
            (page.revision, page.remaining),
            (at, expect.len() - found.len())
        );
        if page.remaining == 0 {
            break;
        }
        after = page.records.last().map(|record| record.key.to_string());
    }
    assert_eq!(found, expect, "{prefix} at {at}");
    if at == model.revision() {
        assert_eq!(store.count(prefix), expect.len());
    }
    for key in KEYS {
        let record = store.get_at(key, at).expect("readable, like the range");
        let row = record.map(|r| (r.value.clone(), r.created, r.modified));
        assert_eq!(
            row.as_ref(),
            model.states[at as usize].get(key),
            "{key} at {at}"
        );
    }
}

/// Plays a watch from a revision over the state there.
async fn replay(store: &Arc<dyn Store>, model: &Model, from: Revision, prefix: &str, max: usize) {
    let mut watch = match store.watch(prefix, from) {
        Ok(watch) => watch,
        Err(error) => return assert!(from < store.oldest(), "{error}"),
    };
    let mut rows: BTreeMap<_, _> = model
        .rows(prefix, from)
        .into_iter()
        .map(|row| (row.0.clone(), row))
        .collect();
    let mut at = from;
    while watch.progress() < model.revision() {
        let batch = tokio::time::timeout(DEADLINE, watch.next(max))
            .await
            .expect("in time")
            .expect("goes on");
        for event in &batch.events {
            assert!(event.revision >= at && event.key.starts_with(prefix));
            at = event.revision;
            match &event.after {
                Some(r) => rows.insert(
                    r.key.to_string(),
                    (r.key.to_string(), r.value.clone(), r.created, r.modified),
                ),
                None => rows.remove(&*event.key),
            };
        }
        at = batch.progress;
        assert!(
            rows.values().eq(&model.rows(prefix, at)),
            "{prefix} at {at}, from {from}"
        );
    }
    assert!(rows.values().eq(&model.rows(prefix, model.revision())));
}

async fn play(open: &dyn Fn() -> Arc<dyn Store>, reopens: bool, steps: &[Step]) {
    let mut store = open();
    let mut model = Model {
        states: vec![State::new()],
    };
    for step in steps {
        let revision = model.revision();
        match step {
            Step::Transaction(ops) => {
                let ops = model.ops(ops);
                let expect = model.commit(&ops);
                let newest = model.states.last().expect("revision 0");
                match store.commit(ops).await {
                    Ok(committed) => assert_eq!(Ok(committed.revision), expect),
                    Err(TxnError::Conflict { op, current }) => {
                        assert_eq!(Err(op), expect);
                        assert!(current.is_none_or(|r| {
                            newest
                                .get(&*r.key)
                                .is_some_and(|state| state.2 == r.modified)
                        }));
                    }
                    Err(other) => panic!("{other}"),
                }
            }
            Step::Compact(share) => store.compact(revision * Revision::from(*share) / 256),
            Step::Reopen if reopens => {
                store.close().await;
                store = open();
            }
            Step::Reopen => {}
            Step::Look { at, prefix, limit } => {
                let at = revision * Revision::from(*at) / 255;
                look(&store, &model, at, PREFIXES[*prefix], *limit);
                replay(&store, &model, at, PREFIXES[*prefix], *limit + 1).await;
            }
        }
        assert_eq!(store.revision(), model.revision());
    }
    store.close().await;
}

fn run(cases: u32, steps: usize, open: impl Fn() -> (Box<dyn Fn() -> Arc<dyn Store>>, bool)) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    let config = Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    };
    let outcome = TestRunner::new(config).run(&prop::collection::vec(step(), 1..steps), |steps| {
        let (open, reopens) = open();
        runtime.block_on(play(&open, reopens, &steps));
        Ok(())
    });
    outcome.expect("agrees with the model");
}

#[test]
fn memory_agrees_with_the_model() {
    run(300, 80, || {
        (
            Box::new(|| oarlock_store::open(StoreOptions::memory()).expect("opens")),
            false,
        )
    });
}

#[test]
fn redb_agrees_with_the_model() {
    run(60, 60, || {
        let folder = tempfile::tempdir().expect("a folder");
        let open = move || {
            let options = StoreOptions::redb(folder.path().join("store.redb"));
            oarlock_store::open(options).expect("opens")
        };
        (Box::new(open), true)
    });
}
