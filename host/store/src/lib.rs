//! A revisioned, watchable key space; knows no kinds and no JSON.
//!
//! Keys are texts `COLLECTION/REST`; the collection is the first segment (`pods`, `deployments.apps`), and ranges and
//! watches stay within one collection. One global revision counter counts commits; a record carries the revision that
//! made it and the one that last changed it. Reads, lists at a revision and watches are served from memory, which is
//! fed only by committed (durable) writes.

mod api;
mod committer;
mod disk;
mod history;
mod key;
mod local;
mod memory;
mod options;
mod pipeline;
mod snapshot;
mod topic;
mod watcher;

pub use api::*;
pub use local::open;
pub use options::*;
