//! A process that is killed in the middle of writing loses nothing that it has acknowledged, and its successor goes on
//! counting where it was.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use oarlock_store::{Action, Expect, Op, RangeQuery, Revision, Store, StoreOptions};

/// Names the data file; set in the child only.
const DATA_FILE: &str = "OARLOCK_CRASH_TEST_DATA_FILE";
const KILLS: usize = 60;
const WRITERS: usize = 6;
const KEYS_PER_WRITER: u64 = 12;
const CHILD_DEADLINE: Duration = Duration::from_secs(60);

/// The child: several writers, each with keys of its own, which says what was acknowledged. The parent kills it.
#[test]
fn child() {
    let Ok(path) = std::env::var(DATA_FILE) else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .expect("a runtime");
    let store = oarlock_store::open(StoreOptions::redb(path)).expect("opens");
    println!("\nOPENED {} -", store.revision());
    let ended = runtime.block_on(async {
        for writer in 0..WRITERS {
            tokio::spawn(write_forever(Arc::clone(&store), writer));
        }
        tokio::time::timeout(CHILD_DEADLINE, std::future::pending::<()>()).await
    });
    ended.expect_err("nobody killed it");
}

async fn write_forever(store: Arc<dyn Store>, writer: usize) {
    for count in 0_u64.. {
        let key = format!("pods/{writer}/{}", count % KEYS_PER_WRITER);
        let action = match (count + writer as u64) % 5 {
            0 => Action::Delete,
            size => {
                // The successor must be able to tell which write this was.
                let previous = store.get(&key).map_or(0, |record| record.modified);
                let mut value = format!("{previous} {count} ").into_bytes();
                value.resize(value.len() + size as usize * 700, b'.');
                Action::Put(value.into())
            }
        };
        let text = match &action {
            Action::Put(value) => String::from_utf8_lossy(value)
                .trim_end_matches('.')
                .trim_end()
                .replace(' ', ":"),
            Action::Delete | Action::Check => "deleted".into(),
        };
        let existed = store.get(&key).is_some();
        let deletes = action == Action::Delete;
        let committed = store
            .commit(vec![Op {
                key: key.clone(),
                expect: Expect::Any,
                action,
            }])
            .await
            .expect("written");
        if deletes && !existed {
            continue;
        }
        let line = format!("ACK {} {key} {text}\n", committed.revision);
        std::io::stdout()
            .lock()
            .write_all(line.as_bytes())
            .expect("the parent reads");
    }
}

struct Acknowledged {
    key: String,
    text: String,
}

/// Runs a child until it has acknowledged so many writes, kills it, and returns all that it said.
fn run_and_kill(
    path: &Path,
    acknowledgements: usize,
) -> (Revision, HashMap<Revision, Acknowledged>) {
    let mut child = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "child", "--nocapture", "--test-threads=1"])
        .env(DATA_FILE, path)
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts");
    let (mut opened, mut acknowledged) = (None, HashMap::new());
    let output = BufReader::new(child.stdout.take().expect("piped"));
    for line in output.split(b'\n') {
        let Ok(line) = line else { break };
        let line = String::from_utf8_lossy(&line);
        let mut words = line.split(' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("OPENED"), Some(revision), Some(_), None) => opened = revision.parse().ok(),
            (Some("ACK"), Some(revision), Some(key), Some(text)) => {
                let entry = Acknowledged {
                    key: key.into(),
                    text: text.into(),
                };
                let twice = acknowledged.insert(revision.parse().expect("a number"), entry);
                assert!(twice.is_none(), "revision {revision} was given out twice");
                if acknowledged.len() == acknowledgements {
                    child.kill().expect("still there");
                }
            }
            _ => {}
        }
    }
    child.wait().expect("ended");
    assert!(
        acknowledged.len() >= acknowledgements,
        "the child ended by itself"
    );
    (opened.expect("said so"), acknowledged)
}

/// What the record's value says: which write it was.
fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value)
        .trim_end_matches('.')
        .trim_end()
        .replace(' ', ":")
}

#[test]
fn a_killed_process_loses_nothing_that_it_acknowledged() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("store.redb");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    let (mut newest, mut total) = (0, 0);
    let mut seed = std::process::id() as usize;
    for kill in 0..KILLS {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let (opened, acknowledged) = run_and_kill(&path, 1 + (seed >> 40) % 400);
        assert_eq!(
            opened, newest,
            "kill {kill}: the child began elsewhere than where the file was"
        );
        total += acknowledged.len();
        let store = oarlock_store::open(StoreOptions::redb(&path)).expect("opens again");
        let lowest = acknowledged.keys().min().copied().expect("some");
        let highest = acknowledged.keys().max().copied().expect("some");
        assert!(
            lowest > newest,
            "kill {kill}: revision {lowest} was given out before, {newest} had been reached"
        );
        assert!(
            store.revision() >= highest,
            "kill {kill}: went back from {highest} to {}",
            store.revision()
        );
        newest = store.revision();

        // Each key shows its last acknowledged write, or a later one that was not acknowledged any more.
        let mut last: HashMap<&str, (Revision, &str)> = HashMap::new();
        for (revision, entry) in &acknowledged {
            let slot = last.entry(&entry.key).or_insert((*revision, &entry.text));
            if slot.0 < *revision {
                *slot = (*revision, &entry.text);
            }
        }
        runtime.block_on(check_events(&store, &acknowledged));
        for (key, (revision, wanted)) in last {
            match store.get(key) {
                Some(record) if record.modified > revision => {
                    assert!(!acknowledged.contains_key(&record.modified));
                }
                Some(record) => assert_eq!(
                    (record.modified, &*text(&record.value)),
                    (revision, wanted),
                    "kill {kill}: {key}"
                ),
                None => assert!(
                    wanted == "deleted" || newest > revision,
                    "kill {kill}: {key} is gone"
                ),
            }
        }
        runtime.block_on(store.close());
    }
    println!("{KILLS} kills, {total} acknowledged writes, revision {newest}");
}

/// Every acknowledged write that is still in history is there with its revision.
async fn check_events(store: &Arc<dyn Store>, acknowledged: &HashMap<Revision, Acknowledged>) {
    let page = store
        .range(&RangeQuery {
            prefix: "pods/".into(),
            ..Default::default()
        })
        .expect("readable");
    assert!(
        page.records
            .iter()
            .all(|record| record.modified <= page.revision && record.created <= record.modified)
    );
    let mut watch = store.watch("pods/", store.oldest()).expect("readable");
    let mut events = HashMap::new();
    while watch.progress() < store.revision() {
        let batch = tokio::time::timeout(CHILD_DEADLINE, watch.next(1_000))
            .await
            .expect("in time");
        for event in batch.expect("goes on").events {
            let text = event
                .after
                .as_ref()
                .map_or("deleted".into(), |after| text(&after.value));
            events.insert(event.revision, (event.key.to_string(), text));
        }
    }
    for (revision, entry) in acknowledged
        .iter()
        .filter(|(revision, _)| **revision > store.oldest())
    {
        let (key, text) = events
            .get(revision)
            .expect("an acknowledged write is in history");
        assert_eq!(
            (key, text),
            (&entry.key, &entry.text),
            "revision {revision}"
        );
    }
}
