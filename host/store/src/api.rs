//! The `Store` seam: what every backend offers.

use std::fmt;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use bytes::Bytes;

/// Counts commits; 0 is the empty store before its first commit. It is the resourceVersion.
pub type Revision = u64;

/// One key's state at a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub key: Arc<str>,
    pub value: Bytes,
    /// The revision that made the key (since it was last absent).
    pub created: Revision,
    /// The revision that last changed it.
    pub modified: Revision,
}

/// How many encodings an event keeps.
pub const MEMO_SLOTS: usize = 4;

/// One committed change of one key. `before` is absent for a creation, `after` for a deletion.
#[derive(Debug)]
pub struct Event {
    pub revision: Revision,
    pub key: Arc<str>,
    pub before: Option<Arc<Record>>,
    pub after: Option<Arc<Record>>,
    /// Encodings of this event, made once by whoever needs one first and shared by all watchers. What a slot means is
    /// the upper layer's affair.
    pub memo: [OnceLock<Bytes>; MEMO_SLOTS],
}

/// What must hold of a key for a transaction to be carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    Any,
    Absent,
    Exists,
    /// The key exists and was last changed at this revision.
    Revision(Revision),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    Put(Bytes),
    /// Deleting an absent key (with `Expect::Any`) changes nothing.
    Delete,
    /// Only the expectation is checked.
    Check,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Op {
    pub key: String,
    pub expect: Expect,
    pub action: Action,
}

/// What a committed transaction did. All its changes share one revision.
#[derive(Clone, Debug)]
pub struct Committed {
    pub revision: Revision,
    /// For each op: the new record of a put; the last record of a delete (`None` if it was absent); the record seen by a check.
    pub records: Vec<Option<Arc<Record>>>,
}

#[derive(Clone, Debug, thiserror::Error)]
pub enum TxnError {
    /// An expectation did not hold; nothing was changed.
    #[error("the expectation of operation {op} does not hold")]
    Conflict {
        op: usize,
        current: Option<Arc<Record>>,
    },
    /// Nothing was changed and nothing will be until the cause is gone (disk full, quorum lost). Later writes may succeed.
    #[error("the store cannot write: {0}")]
    Unavailable(String),
    /// The write queue is full; try again.
    #[error("the write queue is full")]
    Overloaded,
    #[error("the store is closed")]
    Closed,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The revision is older than what is kept. `oldest`: the oldest revision that can still be read.
    #[error("revision {wanted} has been compacted, the oldest kept is {oldest}")]
    Compacted { wanted: Revision, oldest: Revision },
    /// The revision has not been reached yet. `current`: the newest one.
    #[error("revision {wanted} is in the future, the newest is {current}")]
    Future { wanted: Revision, current: Revision },
}

/// A range within one collection, in key order. The prefix reaches at least to the first slash.
#[derive(Clone, Debug, Default)]
pub struct RangeQuery {
    /// Keys start with this (`pods/`, `pods/default/`).
    pub prefix: String,
    /// Only keys after this one (exclusive), to go on with a page.
    pub after: Option<String>,
    /// 0: no limit.
    pub limit: usize,
    /// The state at this revision; `None`: the newest.
    pub at: Option<Revision>,
}

#[derive(Clone, Debug)]
pub struct Page {
    pub records: Vec<Arc<Record>>,
    /// The revision that this is the state at.
    pub revision: Revision,
    /// How many more records there are behind the last one of this page.
    pub remaining: usize,
}

/// Why a watch ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WatchEnd {
    /// The watcher was too slow: events that it had not read are compacted.
    #[error("the watch fell behind: revision {oldest} is the oldest kept")]
    Compacted { oldest: Revision },
    #[error("the store is closed")]
    Closed,
}

/// What a watch hands out at once: events in revision order (never a part of a revision), and the revision up to
/// which all matching events have been handed out (for bookmarks).
#[derive(Clone, Debug, Default)]
pub struct WatchBatch {
    pub events: Vec<Arc<Event>>,
    pub progress: Revision,
}

/// A reader of committed events; dropping it ends the watch.
#[async_trait]
pub trait Watch: Send {
    /// Waits for at least one matching event; hands out at most `max` (but whole revisions). Cancel-safe.
    async fn next(&mut self, max: usize) -> Result<WatchBatch, WatchEnd>;

    /// The revision up to which every matching event has been handed out, moving it on past events that do not match.
    /// Cheap; for bookmarks of idle watches.
    fn progress(&mut self) -> Revision;
}

/// A revisioned, watchable key space. Reads never wait; see [`Store::barrier`].
#[async_trait]
pub trait Store: Send + Sync + fmt::Debug {
    /// The newest committed revision.
    fn revision(&self) -> Revision;

    /// Waits until reads see every write acknowledged (to anyone) before this call. Free for local backends.
    async fn barrier(&self) -> Result<(), TxnError>;

    /// Waits until `revision` has been reached, at most until the caller gives up. Cancel-safe.
    async fn reached(&self, revision: Revision);

    fn get(&self, key: &str) -> Option<Arc<Record>>;

    fn get_at(&self, key: &str, at: Revision) -> Result<Option<Arc<Record>>, ReadError>;

    fn range(&self, query: &RangeQuery) -> Result<Page, ReadError>;

    /// How many keys start with the prefix now.
    fn count(&self, prefix: &str) -> usize;

    /// Carries out all of the ops, or none. Returns when the change is durable and visible to readers. Expectations are about
    /// the state before the transaction; of several writes to one key the last counts. A transaction that changes nothing
    /// takes no revision. Giving up on the future does not call the transaction back.
    async fn commit(&self, ops: Vec<Op>) -> Result<Committed, TxnError>;

    /// Events of keys with this prefix after revision `after`, which must be readable (see [`Store::oldest`]).
    fn watch(&self, prefix: &str, after: Revision) -> Result<Box<dyn Watch>, ReadError>;

    /// Forgets history up to and including `revision`: events up to there are gone, the state at `revision` is the oldest that
    /// can be read. Not remembered by the disk: a store that is opened again may tell more.
    fn compact(&self, revision: Revision);

    /// The oldest revision whose state can still be read.
    fn oldest(&self) -> Revision;

    /// Finishes queued writes and lets go of files. Later writes get `Closed`.
    async fn close(&self);
}
