//! What may lie where the data file should be.

use std::path::Path;
use std::sync::Arc;

use oarlock_store::{Action, Expect, Op, OpenError, Store, StoreOptions};

fn open(path: &Path) -> Result<Arc<dyn Store>, OpenError> {
    oarlock_store::open(StoreOptions::redb(path))
}

/// A closed store's file with some hundred records.
async fn written(path: &Path) {
    let store = open(path).expect("opens");
    for i in 0..300 {
        let action = Action::Put(vec![i as u8; 3_000].into());
        let op = Op {
            key: format!("pods/{i}"),
            expect: Expect::Absent,
            action,
        };
        store.commit(vec![op]).await.expect("written");
    }
    store.close().await;
}

#[tokio::test]
async fn one_process_at_a_time() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("store.redb");
    let store = open(&path).expect("opens");
    assert!(matches!(open(&path), Err(OpenError::InUse { path: used }) if used == path));
    store.close().await;
    open(&path).expect("let go of").close().await;
}

#[tokio::test]
async fn what_cannot_be_read_is_an_error() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("store.redb");
    assert!(matches!(
        open(&folder.path().join("missing/store.redb")),
        Err(OpenError::Io(_))
    ));
    assert!(matches!(open(folder.path()), Err(OpenError::Io(_))));
    std::fs::write(
        &path,
        "this is not a database, whatever its name says".repeat(500),
    )
    .expect("written");
    assert!(matches!(open(&path), Err(OpenError::Corrupt(_))));

    std::fs::remove_file(&path).expect("removed");
    written(&path).await;
    let whole = std::fs::read(&path).expect("readable");
    for part in [10, 4_096, whole.len() / 2] {
        std::fs::write(&path, &whole[..part]).expect("written");
        assert!(open(&path).is_err(), "the first {part} bytes of a file");
    }
}
