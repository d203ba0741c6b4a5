//! Where batches become durable.
//!
//! The medium is a log of rows in one redb table, and everything that is live is also in memory; so the disk is written in
//! large sequential pieces only, and read when the store is opened. A batch is one transaction of a few rows, whatever it
//! changes. What old rows still hold of the live state is moved to the log's end before they are removed, and only when
//! the log has grown to about twice the live state (see [`log`]).

mod format;
mod log;

#[cfg(test)]
pub(crate) mod faults;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;

use crate::pipeline::Batch;
use crate::snapshot::Snapshot;
use crate::{Event, Revision};

pub(crate) use log::{PathFile, RowLog};

/// A batch is not (known to be) on the disk.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct WriteError(pub(crate) String);

/// Makes batches durable.
pub(crate) trait Disk: Send {
    /// Appends a batch, all of it or nothing. `published` is the state before the batch. After an error nothing more can be
    /// appended until [`Self::recover`] succeeds.
    fn append(&mut self, batch: &Batch, published: &Snapshot) -> Result<(), WriteError>;

    /// Comes back from an error, if its cause is gone: afterwards the disk holds the published state and no other.
    fn recover(&mut self) -> Result<(), WriteError>;

    /// Lets go of the file.
    fn close(&mut self);
}

/// The medium of the backend without one.
pub(crate) struct NoDisk;

impl Disk for NoDisk {
    fn append(&mut self, _: &Batch, _: &Snapshot) -> Result<(), WriteError> {
        Ok(())
    }

    fn recover(&mut self) -> Result<(), WriteError> {
        Ok(())
    }

    fn close(&mut self) {}
}

/// What a log says when it is opened.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    pub(crate) snapshot: Snapshot,
    /// The newest events, with the states that they replaced.
    pub(crate) history: VecDeque<Arc<Event>>,
    /// The revision before the oldest of these events.
    pub(crate) oldest: Revision,
}
