//! A real file system that runs full. (What a store does on a disk that fails is tried in the crate too, with a simulated
//! disk; that needs no privileges.)

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use oarlock_store::{Action, Committed, Expect, Op, Store, StoreOptions, TxnError};

const SIZE: &str = "size=6m";

/// A small file system in memory; unmounted when dropped.
struct Mount(PathBuf);

impl Mount {
    fn new(path: &Path) -> Option<Self> {
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", SIZE, "tmpfs"])
            .arg(path)
            .status();
        mounted
            .is_ok_and(|status| status.success())
            .then(|| Self(path.into()))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

async fn put(store: &Arc<dyn Store>, key: String, size: usize) -> Result<Committed, TxnError> {
    store
        .commit(vec![Op {
            key,
            expect: Expect::Any,
            action: Action::Put(vec![7; size].into()),
        }])
        .await
}

#[tokio::test]
async fn writes_go_on_when_there_is_room_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(_mount) = Mount::new(folder.path()) else {
        eprintln!("not allowed to mount a file system: only the simulated disk was tried");
        return;
    };
    let (path, ballast) = (
        folder.path().join("store.redb"),
        folder.path().join("ballast"),
    );
    std::fs::write(&ballast, vec![1; 2 << 20]).expect("room for the ballast");
    let store = oarlock_store::open(StoreOptions::redb(&path)).expect("opens");
    let mut written = Vec::new();
    let error = loop {
        match put(&store, format!("pods/{}", written.len()), 20_000).await {
            Ok(committed) => written.push(committed.revision),
            Err(error) => break error,
        }
        assert!(written.len() < 1_000, "the disk is never full");
    };
    assert!(matches!(error, TxnError::Unavailable(_)), "{error}");
    assert!(!written.is_empty());
    assert_eq!(
        (store.count("pods/"), store.revision()),
        (written.len(), *written.last().expect("some"))
    );

    std::fs::remove_file(&ballast).expect("removed");
    let committed = tokio::time::timeout(Duration::from_secs(10), async {
        loop {
            match put(&store, "pods/after".into(), 20_000).await {
                Ok(committed) => return committed,
                Err(TxnError::Unavailable(_)) => tokio::task::yield_now().await,
                Err(other) => panic!("{other}"),
            }
        }
    })
    .await
    .expect("there is room again");
    assert!(committed.revision > *written.last().expect("some"));
    store.close().await;

    let store = oarlock_store::open(StoreOptions::redb(&path)).expect("opens again");
    assert_eq!(store.revision(), committed.revision);
    for (i, revision) in written.iter().enumerate() {
        let record = store.get(&format!("pods/{i}")).expect("acknowledged");
        assert_eq!((record.modified, record.value.len()), (*revision, 20_000));
    }
    assert_eq!(store.count("pods/"), written.len() + 1);
    store.close().await;
}
