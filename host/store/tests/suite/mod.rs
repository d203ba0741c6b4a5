//! What every backend must do. Each function takes a fresh, empty store.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use oarlock_store::{
    Action, Event, Expect, Op, Page, RangeQuery, ReadError, Revision, Store, StoreOptions,
    TxnError, Watch, WatchEnd,
};

const DEADLINE: Duration = Duration::from_secs(30);

pub fn op(key: &str, expect: Expect, action: Action) -> Op {
    Op {
        key: key.into(),
        expect,
        action,
    }
}

pub fn put(key: &str, value: &str) -> Op {
    op(
        key,
        Expect::Any,
        Action::Put(Bytes::copy_from_slice(value.as_bytes())),
    )
}

pub fn delete(key: &str) -> Op {
    op(key, Expect::Any, Action::Delete)
}

async fn commit(store: &Arc<dyn Store>, op: Op) -> Revision {
    store.commit(vec![op]).await.expect("committed").revision
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future)
        .await
        .expect("in time")
}

fn texts(page: &Page) -> Vec<String> {
    page.records
        .iter()
        .map(|record| format!("{}={}", record.key, String::from_utf8_lossy(&record.value)))
        .collect()
}

fn list(store: &Arc<dyn Store>, prefix: &str, at: Option<Revision>) -> Vec<String> {
    texts(
        &store
            .range(&RangeQuery {
                prefix: prefix.into(),
                at,
                ..Default::default()
            })
            .expect("readable"),
    )
}

fn describe(event: &Event) -> String {
    let text = |record: &Option<Arc<oarlock_store::Record>>| {
        record.as_ref().map_or("-".to_owned(), |record| {
            String::from_utf8_lossy(&record.value).into_owned()
        })
    };
    format!(
        "{} {} {}>{}",
        event.revision,
        event.key,
        text(&event.before),
        text(&event.after)
    )
}

async fn next(watch: &mut Box<dyn Watch>, max: usize) -> Vec<String> {
    soon(watch.next(max))
        .await
        .expect("goes on")
        .events
        .iter()
        .map(|event| describe(event))
        .collect()
}

pub async fn counts_revisions(store: Arc<dyn Store>) {
    assert_eq!((store.revision(), store.oldest()), (0, 0));
    assert_eq!(commit(&store, put("pods/a", "1")).await, 1);
    assert_eq!(commit(&store, put("pods/b", "1")).await, 2);
    assert_eq!(commit(&store, put("pods/a", "2")).await, 3);
    let record = store.get("pods/a").expect("there");
    assert_eq!(
        (record.created, record.modified, &record.value[..]),
        (1, 3, &b"2"[..])
    );
    assert_eq!(commit(&store, delete("pods/nothing")).await, 3);
    assert_eq!(commit(&store, delete("pods/a")).await, 4);
    assert!(store.get("pods/a").is_none());
    commit(&store, put("pods/a", "3")).await;
    assert_eq!(store.get("pods/a").expect("again").created, 5);
    assert_eq!(store.revision(), 5);
    soon(store.reached(5)).await;
    let waiting = store.reached(6);
    let ((), ()) = soon(async {
        tokio::join!(waiting, async {
            assert_eq!(commit(&store, put("pods/c", "")).await, 6);
        })
    })
    .await;
    store.barrier().await.expect("open");
}

pub async fn checks_expectations(store: Arc<dyn Store>) {
    commit(&store, put("pods/a", "1")).await;
    let cases = [
        ("pods/a", Expect::Absent, false),
        ("pods/b", Expect::Absent, true),
        ("pods/a", Expect::Exists, true),
        ("pods/b", Expect::Exists, false),
        ("pods/a", Expect::Revision(1), true),
        ("pods/a", Expect::Revision(2), false),
        ("pods/b", Expect::Revision(1), false),
        ("pods/b", Expect::Any, true),
    ];
    for (key, expect, holds) in cases {
        let answer = store.commit(vec![op(key, expect, Action::Check)]).await;
        match answer {
            Ok(committed) => {
                assert!(holds, "{key} {expect:?}");
                assert_eq!(committed.revision, 1);
                assert_eq!(committed.records, [store.get(key)]);
            }
            Err(TxnError::Conflict { op: 0, current }) => {
                assert!(!holds, "{key} {expect:?}");
                assert_eq!(current, store.get(key));
            }
            Err(other) => panic!("{key} {expect:?}: {other}"),
        }
    }
    let deleted = store
        .commit(vec![op("pods/a", Expect::Revision(1), Action::Delete)])
        .await
        .expect("holds");
    assert_eq!(
        deleted.records[0].as_ref().map(|record| record.modified),
        Some(1)
    );
    assert_eq!(deleted.revision, 2);
}

pub async fn commits_all_or_nothing(store: Arc<dyn Store>) {
    let refused = store
        .commit(vec![
            put("pods/a", "1"),
            op("nodes/n", Expect::Exists, Action::Check),
        ])
        .await;
    assert!(matches!(
        refused,
        Err(TxnError::Conflict {
            op: 1,
            current: None
        })
    ));
    assert!(store.get("pods/a").is_none());
    let committed = store
        .commit(vec![put("pods/a", "1"), put("nodes/n", "1")])
        .await
        .expect("holds");
    assert_eq!(committed.revision, 1);
    let modified = |key: &str| store.get(key).map(|record| record.modified);
    assert_eq!(
        (modified("pods/a"), modified("nodes/n")),
        (Some(1), Some(1))
    );
}

pub async fn lists_in_pages(store: Arc<dyn Store>) {
    for key in [
        "pods/b/1",
        "pods/a/2",
        "pods/a/1",
        "podsets/x",
        "pods/c/1",
        "po/1",
    ] {
        commit(&store, put(key, "v")).await;
    }
    let check =
        |prefix: &str, after: Option<&str>, limit: usize, expect: &[&str], remaining: usize| {
            let query = RangeQuery {
                prefix: prefix.into(),
                after: after.map(str::to_owned),
                limit,
                at: None,
            };
            for at in [None, Some(6)] {
                let page = store
                    .range(&RangeQuery {
                        at,
                        ..query.clone()
                    })
                    .expect("readable");
                let keys: Vec<&str> = page.records.iter().map(|record| &*record.key).collect();
                assert_eq!(
                    (&keys[..], page.remaining, page.revision),
                    (expect, remaining, 6),
                    "{query:?}"
                );
            }
        };
    check(
        "pods/",
        None,
        0,
        &["pods/a/1", "pods/a/2", "pods/b/1", "pods/c/1"],
        0,
    );
    check("pods/", None, 3, &["pods/a/1", "pods/a/2", "pods/b/1"], 1);
    check("pods/", Some("pods/b/1"), 3, &["pods/c/1"], 0);
    check("pods/", Some("pods/a/1"), 1, &["pods/a/2"], 2);
    check("pods/", Some("pods/zzz"), 0, &[], 0);
    check("pods/", Some("q"), 0, &[], 0);
    check("pods/a/", None, 0, &["pods/a/1", "pods/a/2"], 0);
    check("pods/a/", None, 1, &["pods/a/1"], 1);
    check("pods/none/", None, 0, &[], 0);
    check("nothing/", None, 10, &[], 0);
    assert_eq!(
        (
            store.count("pods/"),
            store.count("pods/a/"),
            store.count("nothing/")
        ),
        (4, 2, 0)
    );
}

pub async fn reads_the_past(store: Arc<dyn Store>) {
    commit(&store, put("pods/a", "1")).await;
    commit(&store, put("pods/b", "1")).await;
    commit(&store, put("nodes/n", "1")).await;
    commit(&store, put("pods/a", "2")).await;
    commit(&store, delete("pods/b")).await;
    commit(&store, put("pods/c", "1")).await;
    commit(&store, put("pods/b", "2")).await;
    let check = |at: Revision, expect: &[&str]| {
        assert_eq!(list(&store, "pods/", Some(at)), expect, "at {at}");
        let mut paged = Vec::new();
        let mut after = None;
        loop {
            let query = RangeQuery {
                prefix: "pods/".into(),
                after,
                limit: 1,
                at: Some(at),
            };
            let page = store.range(&query).expect("readable");
            assert_eq!(
                page.remaining + paged.len() + page.records.len(),
                expect.len(),
                "at {at}"
            );
            let Some(last) = page.records.last() else {
                break;
            };
            after = Some(last.key.to_string());
            paged.extend(texts(&page));
        }
        assert_eq!(paged, expect, "in pages, at {at}");
        for key in ["pods/a", "pods/b", "pods/c"] {
            let found = store.get_at(key, at).expect("readable").map(|record| {
                assert!(record.modified <= at);
                format!("{key}={}", String::from_utf8_lossy(&record.value))
            });
            assert_eq!(
                found.as_deref(),
                expect.iter().copied().find(|text| text.starts_with(key)),
                "{key} at {at}"
            );
        }
    };
    check(0, &[]);
    check(1, &["pods/a=1"]);
    check(2, &["pods/a=1", "pods/b=1"]);
    check(3, &["pods/a=1", "pods/b=1"]);
    check(4, &["pods/a=2", "pods/b=1"]);
    check(5, &["pods/a=2"]);
    check(6, &["pods/a=2", "pods/c=1"]);
    check(7, &["pods/a=2", "pods/b=2", "pods/c=1"]);
    let future = Err(ReadError::Future {
        wanted: 8,
        current: 7,
    });
    assert_eq!(store.get_at("pods/a", 8), future);
    let query = RangeQuery {
        prefix: "pods/".into(),
        at: Some(8),
        ..Default::default()
    };
    assert!(matches!(
        store.range(&query),
        Err(ReadError::Future {
            wanted: 8,
            current: 7
        })
    ));
    assert!(matches!(
        store.watch("pods/", 8),
        Err(ReadError::Future {
            wanted: 8,
            current: 7
        })
    ));
}

pub async fn forgets_the_past(store: Arc<dyn Store>) {
    for value in ["1", "2", "3", "4"] {
        commit(&store, put("pods/a", value)).await;
    }
    store.compact(3);
    assert_eq!(store.oldest(), 3);
    store.compact(2);
    assert_eq!(store.oldest(), 3, "never goes back");
    assert_eq!(list(&store, "pods/", Some(3)), ["pods/a=3"]);
    assert_eq!(list(&store, "pods/", None), ["pods/a=4"]);
    let gone = ReadError::Compacted {
        wanted: 2,
        oldest: 3,
    };
    assert_eq!(store.get_at("pods/a", 2), Err(gone.clone()));
    let query = RangeQuery {
        prefix: "pods/".into(),
        at: Some(2),
        ..Default::default()
    };
    assert_eq!(store.range(&query).map(|_| ()), Err(gone.clone()));
    assert_eq!(store.watch("pods/", 2).map(|_| ()), Err(gone));
    let mut watch = store.watch("pods/", 3).expect("kept");
    assert_eq!(next(&mut watch, 10).await, ["4 pods/a 3>4"]);
    store.compact(Revision::MAX);
    assert_eq!(store.oldest(), 4, "not beyond the newest");
    assert_eq!(list(&store, "pods/", None), ["pods/a=4"]);
}

pub async fn watches(store: Arc<dyn Store>) {
    commit(&store, put("pods/a/1", "1")).await;
    commit(&store, put("pods/b/1", "1")).await;
    let mut all = store.watch("pods/", 0).expect("readable");
    let mut one = store.watch("pods/a/", 1).expect("readable");
    let mut other = store.watch("nodes/", 0).expect("readable");
    assert_eq!(next(&mut all, 1).await, ["1 pods/a/1 ->1"]);
    assert_eq!(all.progress(), 1, "revision 2 has not been handed out");
    assert_eq!(next(&mut all, 10).await, ["2 pods/b/1 ->1"]);
    assert_eq!(
        (one.progress(), other.progress()),
        (2, 2),
        "nothing of theirs happened"
    );

    store
        .commit(vec![
            put("pods/a/1", "2"),
            delete("pods/b/1"),
            put("nodes/n", "1"),
        ])
        .await
        .expect("holds");
    assert_eq!(
        next(&mut all, 1).await,
        ["3 pods/a/1 1>2", "3 pods/b/1 1>-"],
        "revisions come whole"
    );
    assert_eq!(next(&mut one, 10).await, ["3 pods/a/1 1>2"]);
    assert_eq!(next(&mut other, 10).await, ["3 nodes/n ->1"]);

    // A watch that is asked and given up on loses nothing.
    let waited = tokio::time::timeout(Duration::from_millis(1), one.next(1)).await;
    assert!(waited.is_err());
    let written = async { commit(&store, put("pods/a/2", "1")).await };
    let (events, _) = tokio::join!(next(&mut one, 10), written);
    assert_eq!(events, ["4 pods/a/2 ->1"]);
    commit(&store, put("pods/b/9", "1")).await;
    assert_eq!(one.progress(), 5);
}

/// Writers on several namespaces, watchers that begin at any time: nobody misses anything or sees it twice.
pub async fn watches_under_load(store: Arc<dyn Store>) {
    const WRITERS: usize = 8;
    const WRITES: usize = 150;
    commit(&store, put("pods/0/seed", "seed")).await;
    let writers = (0..WRITERS).map(|writer| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            for write in 0..WRITES {
                let key = format!("pods/{}/{}", writer % 4, (writer * 7 + write) % 13);
                let op = if write % 6 == 5 {
                    delete(&key)
                } else {
                    put(&key, &format!("{writer}-{write}"))
                };
                let marker = put(&format!("marks/{writer}"), &write.to_string());
                store.commit(vec![op, marker]).await.expect("committed");
            }
        })
    });
    let writers: Vec<_> = writers.collect();
    let watchers = (0..12).map(|watcher| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            let prefix = if watcher % 3 == 0 {
                "pods/".to_owned()
            } else {
                format!("pods/{}/", watcher % 4)
            };
            soon(store.reached(1 + watcher * 50)).await;
            let page = store
                .range(&RangeQuery {
                    prefix: prefix.clone(),
                    ..Default::default()
                })
                .expect("readable");
            let mut state: BTreeMap<_, _> = page
                .records
                .iter()
                .map(|record| (Arc::clone(&record.key), Arc::clone(record)))
                .collect();
            let mut watch = store.watch(&prefix, page.revision).expect("current");
            let mut seen = page.revision;
            let end = 1 + (WRITERS * WRITES) as Revision;
            while seen < end {
                // The others' last writes may not concern this watcher.
                let Ok(batch) =
                    tokio::time::timeout(Duration::from_millis(20), watch.next(7)).await
                else {
                    seen = watch.progress();
                    continue;
                };
                let batch = batch.expect("goes on");
                for event in &batch.events {
                    assert!(event.revision > seen && event.revision <= batch.progress);
                    assert!(
                        store.revision() >= event.revision,
                        "an event before its revision is readable"
                    );
                    let before = match &event.after {
                        Some(after) => state.insert(Arc::clone(&event.key), Arc::clone(after)),
                        None => state.remove(&event.key),
                    };
                    assert_eq!(
                        before,
                        event.before,
                        "missed something before {}",
                        describe(event)
                    );
                }
                seen = batch.progress;
            }
            let page = store
                .range(&RangeQuery {
                    prefix,
                    at: Some(end),
                    ..Default::default()
                })
                .expect("readable");
            assert!(state.values().eq(page.records.iter()));
        })
    });
    let watchers: Vec<_> = watchers.collect();
    for task in writers.into_iter().chain(watchers) {
        soon(task).await.expect("no panic");
    }
}

pub async fn cuts_off_slow_watchers(store: Arc<dyn Store>) {
    commit(&store, put("pods/a/1", "1")).await;
    let mut slow = store.watch("pods/a/", 0).expect("readable");
    let mut idle = store.watch("pods/b/", 1).expect("readable");
    let mut quick = store.watch("pods/a/", 0).expect("readable");
    assert_eq!(next(&mut quick, 10).await.len(), 1);
    for _ in 0..10 {
        commit(&store, put("pods/c/1", "1")).await;
    }
    store.compact(9);
    assert_eq!(
        soon(slow.next(10)).await.map(|_| ()),
        Err(WatchEnd::Compacted { oldest: 9 })
    );
    // The others have missed nothing, though what they have seen is compacted too.
    commit(&store, put("pods/b/1", "1")).await;
    commit(&store, put("pods/a/1", "2")).await;
    assert_eq!(next(&mut idle, 10).await, ["12 pods/b/1 ->1"]);
    assert_eq!(next(&mut quick, 10).await, ["13 pods/a/1 1>2"]);
}

pub async fn lets_go_of_watchers(store: Arc<dyn Store>) {
    for round in 0..3 {
        let watches: Vec<_> = (0..1_000)
            .map(|i| {
                store
                    .watch(&format!("pods/{}", i % 100), store.revision())
                    .expect("current")
            })
            .collect();
        drop(watches);
        assert_eq!(commit(&store, put("pods/1", "1")).await, round + 1);
    }
}

pub async fn closes(store: Arc<dyn Store>) {
    let mut watch = store.watch("pods/", 0).expect("readable");
    let writes: Vec<_> = (0..50)
        .map(|i| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.commit(vec![put(&format!("pods/{i}"), "1")]).await })
        })
        .collect();
    soon(store.reached(1)).await;
    soon(store.close()).await;
    let mut committed = 0;
    for write in writes {
        match soon(write).await.expect("no panic") {
            Ok(_) => committed += 1,
            Err(error) => assert!(matches!(error, TxnError::Closed), "{error}"),
        }
    }
    assert_eq!(
        (store.count("pods/"), store.revision()),
        (committed, committed as Revision)
    );
    assert!(matches!(
        store.commit(vec![put("pods/x", "1")]).await,
        Err(TxnError::Closed)
    ));
    let mut seen = 0;
    let end = loop {
        match soon(watch.next(7)).await {
            Ok(batch) => seen += batch.events.len(),
            Err(end) => break end,
        }
    };
    assert_eq!((seen, end), (committed, WatchEnd::Closed));
    soon(store.close()).await;
}

/// Options that [`limits_history`] wants.
pub fn small_history(options: StoreOptions) -> StoreOptions {
    StoreOptions {
        history_window: Duration::from_millis(100),
        max_history_bytes: 100_000,
        max_queued_bytes: 50_000,
        ..options
    }
}

pub async fn limits_history(store: Arc<dyn Store>) {
    let value = "x".repeat(10_000);
    for _ in 0..30 {
        commit(&store, put("pods/a", &value)).await;
    }
    assert!(store.oldest() >= 20, "bounded by bytes: {}", store.oldest());
    soon(async {
        while store.oldest() < 30 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let refused = store.commit(vec![put("pods/a", &"x".repeat(60_000))]).await;
    assert!(matches!(refused, Err(TxnError::Overloaded)));
    assert_eq!(commit(&store, put("pods/a", "1")).await, 31);
}
