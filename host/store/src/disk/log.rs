//! The log of rows in redb.
//!
//! Rows are numbered; replaying them in order gives the state. *Moving*: when the log has outgrown the live state, each
//! batch also takes the oldest rows away and writes what is still live of them again, in the same transaction, before the
//! batch's own rows. Only a prefix of the log is ever taken away, so a deletion's entry can go with it: nothing older is
//! left that it would have to hide.
//!
//! No reader is kept open (it would pin pages), and redb's quick repair is off: it would cost a second fsync a batch, to
//! save the reading of a file that opening reads anyway.

use std::collections::VecDeque;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use redb::{Database, DatabaseError, Durability, ReadableDatabase, ReadableTable, TableDefinition};

use super::format::{Entry, FormatError, RowKind, RowReader, RowWriter, entry_bytes};
use super::{Disk, Loaded, WriteError};
use crate::history::{HistoryLimits, retained_bytes};
use crate::pipeline::Batch;
use crate::snapshot::Snapshot;
use crate::{Event, OpenError, Record};

const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");

/// Nothing is read after opening, so the cache need only hold what one transaction touches.
const CACHE_BYTES: usize = 8 << 20;
/// Moving begins when the log is larger than twice the live state plus this ...
const MOVING_BEGINS_SLACK_BYTES: u64 = 32 << 20;
/// ... and ends when it is smaller than one and a half times the live state plus this.
const MOVING_ENDS_SLACK_BYTES: u64 = 16 << 20;
/// While moving, a batch clears this many times its own size from the log's old end: more than once, or the log would
/// never shrink.
const MOVING_FACTOR: u64 = 4;
const MIN_MOVING_BYTES: u64 = 256 << 10;
const MAX_MOVING_BYTES: u64 = 8 << 20;

/// Opens the file that holds the log: once at the start, and again to recover from an error.
pub(crate) trait DatabaseFile: Send {
    fn open(&self) -> Result<Database, DatabaseError>;
    fn path(&self) -> &Path;
}

pub(crate) struct PathFile(pub(crate) PathBuf);

impl DatabaseFile for PathFile {
    fn open(&self) -> Result<Database, DatabaseError> {
        let is_new = !self.0.exists();
        let database = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create(&self.0)?;
        if is_new && let Some(folder) = self.0.parent() {
            let folder = if folder.as_os_str().is_empty() {
                Path::new(".")
            } else {
                folder
            };
            File::open(folder)
                .and_then(|folder| folder.sync_all())
                .map_err(redb::StorageError::Io)?;
        }
        Ok(database)
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

/// How much larger than the live state the log may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slack {
    pub(crate) moving_begins: u64,
    pub(crate) moving_ends: u64,
}

impl Default for Slack {
    fn default() -> Self {
        Self {
            moving_begins: MOVING_BEGINS_SLACK_BYTES,
            moving_ends: MOVING_ENDS_SLACK_BYTES,
        }
    }
}

/// A step of work on the file: any error means that the file has to be opened again.
type Step<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

pub(crate) struct RowLog {
    file: Box<dyn DatabaseFile>,
    /// Absent after an error.
    database: Option<Database>,
    next_row: u64,
    size: Size,
    slack: Slack,
}

#[derive(Clone, Copy, Debug, Default)]
struct Size {
    log_bytes: u64,
    live_bytes: u64,
    moving: bool,
}

impl Size {
    fn update_moving(&mut self, slack: Slack) {
        if self.log_bytes > self.live_bytes * 2 + slack.moving_begins {
            self.moving = true;
        } else if self.log_bytes < self.live_bytes * 3 / 2 + slack.moving_ends {
            self.moving = false;
        }
    }
}

impl RowLog {
    pub(crate) fn open(
        file: Box<dyn DatabaseFile>,
        limits: HistoryLimits,
    ) -> Result<(Self, Loaded), OpenError> {
        Self::open_with_slack(file, limits, Slack::default())
    }

    pub(crate) fn open_with_slack(
        file: Box<dyn DatabaseFile>,
        limits: HistoryLimits,
        slack: Slack,
    ) -> Result<(Self, Loaded), OpenError> {
        let database = file.open().map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => OpenError::InUse {
                path: file.path().into(),
            },
            DatabaseError::Storage(redb::StorageError::Io(error))
                if error.kind() != std::io::ErrorKind::InvalidData =>
            {
                OpenError::Io(format!("{}: {error}", file.path().display()))
            }
            other => OpenError::Corrupt(format!("{}: {other}", file.path().display())),
        })?;
        let mut replay = Replay::new(limits);
        let rows = (|| -> Step<(u64, u64)> {
            let (mut next_row, mut log_bytes) = (0, 0);
            let transaction = database.begin_read()?;
            let table = match transaction.open_table(LOG) {
                Err(redb::TableError::TableDoesNotExist(_)) => return Ok((0, 0)),
                other => other?,
            };
            for row in table.iter()? {
                let (number, row) = row?;
                replay.row(row.value())?;
                next_row = number.value() + 1;
                log_bytes += row.value().len() as u64;
            }
            Ok((next_row, log_bytes))
        })();
        let (next_row, log_bytes) = rows
            .map_err(|error| OpenError::Corrupt(format!("{}: {error}", file.path().display())))?;
        let mut size = Size {
            log_bytes,
            live_bytes: replay.live_bytes,
            moving: false,
        };
        size.update_moving(slack);
        Ok((
            Self {
                file,
                database: Some(database),
                next_row,
                size,
                slack,
            },
            replay.loaded,
        ))
    }

    fn try_append(&self, batch: &Batch, published: &Snapshot) -> Step<(u64, Size)> {
        let database = self.database.as_ref().ok_or("the data file is not open")?;
        let (mut next_row, mut size) = (self.next_row, self.size);
        let mut events = RowWriter::new(RowKind::Events, batch.revision);
        for event in &batch.events {
            events.event(event);
            size.live_bytes += event.after.as_deref().map_or(0, entry_bytes);
            size.live_bytes -= event.before.as_deref().map_or(0, entry_bytes);
        }
        let events = events.finish();
        let mut transaction = database.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        {
            let mut table = transaction.open_table(LOG)?;
            let mut rows = Vec::new();
            if size.moving {
                let added: u64 = events.iter().map(|row| row.len() as u64).sum();
                let budget = (added * MOVING_FACTOR).clamp(MIN_MOVING_BYTES, MAX_MOVING_BYTES);
                let moved = move_oldest(&mut table, budget, published)?;
                rows = moved.rows;
                size.log_bytes -= moved.removed_bytes;
            }
            rows.extend(events);
            for row in rows {
                table.insert(next_row, &row[..])?;
                next_row += 1;
                size.log_bytes += row.len() as u64;
            }
        }
        transaction.commit()?;
        size.update_moving(self.slack);
        Ok((next_row, size))
    }

    fn try_recover(&mut self) -> Step<()> {
        let database = self.file.open()?;
        let (mut next_row, mut log_bytes) = (self.next_row, 0);
        let transaction = database.begin_write()?;
        {
            let mut table = transaction.open_table(LOG)?;
            let mut refused = Vec::new();
            for row in table.range(self.next_row..)? {
                let (number, row) = row?;
                next_row = number.value() + 1;
                // Moved states replace rows that are gone; events were refused, so they must not have happened.
                if RowReader::new(row.value())?.kind == RowKind::Events {
                    refused.push(number.value());
                }
            }
            for number in refused {
                table.remove(number)?;
            }
            if self.next_row > 0 && table.get(self.next_row - 1)?.is_none() {
                return Err(
                    "the data file has been replaced: it lacks rows that were written".into(),
                );
            }
            for row in table.iter()? {
                log_bytes += row?.1.value().len() as u64;
            }
        }
        transaction.commit()?;
        self.database = Some(database);
        self.next_row = next_row;
        self.size.log_bytes = log_bytes;
        Ok(())
    }

    #[cfg(test)]
    pub(crate) fn log_bytes(&self) -> u64 {
        self.size.log_bytes
    }
}

impl Disk for RowLog {
    fn append(&mut self, batch: &Batch, published: &Snapshot) -> Result<(), WriteError> {
        match self.try_append(batch, published) {
            Ok((next_row, size)) => {
                self.next_row = next_row;
                self.size = size;
                Ok(())
            }
            Err(error) => {
                self.database = None;
                Err(WriteError(error.to_string()))
            }
        }
    }

    fn recover(&mut self) -> Result<(), WriteError> {
        self.database = None;
        self.try_recover()
            .map_err(|error| WriteError(error.to_string()))
    }

    fn close(&mut self) {
        self.database = None;
    }
}

struct Moved {
    rows: Vec<Vec<u8>>,
    removed_bytes: u64,
}

/// Takes the oldest rows away and packs what is live of them into new ones, still to be written.
fn move_oldest(
    table: &mut redb::Table<'_, u64, &'static [u8]>,
    budget: u64,
    published: &Snapshot,
) -> Step<Moved> {
    let mut writer = RowWriter::new(RowKind::Moved, published.revision);
    let mut removed_bytes = 0;
    let mut through = None;
    for row in table.iter()? {
        if removed_bytes >= budget {
            break;
        }
        let (number, row) = row?;
        through = Some(number.value());
        removed_bytes += row.value().len() as u64;
        let mut entries = RowReader::new(row.value())?;
        while let Some(entry) = entries.next()? {
            let live = published
                .get(entry.key)
                .is_some_and(|record| record.modified == entry.modified);
            if live && !entry.deleted {
                writer.entry(&entry);
            }
        }
    }
    if let Some(through) = through {
        table.retain_in(..=through, |_, _| false)?;
    }
    Ok(Moved {
        rows: writer.finish(),
        removed_bytes,
    })
}

/// Builds the state, and as much of history as can be told, from rows in order.
struct Replay {
    loaded: Loaded,
    live_bytes: u64,
    limits: HistoryLimits,
    history_bytes: usize,
}

impl Replay {
    fn new(limits: HistoryLimits) -> Self {
        Self {
            loaded: Loaded::default(),
            live_bytes: 0,
            limits,
            history_bytes: 0,
        }
    }

    fn row(&mut self, row: &[u8]) -> Result<(), FormatError> {
        let mut reader = RowReader::new(row)?;
        let kind = reader.kind;
        if kind == RowKind::Moved {
            // Rows before this one may lack states that were replaced since, so what they replaced cannot be told.
            self.loaded.history.clear();
            self.history_bytes = 0;
            self.loaded.oldest = self.loaded.oldest.max(reader.revision);
        }
        self.loaded.snapshot.revision = self.loaded.snapshot.revision.max(reader.revision);
        while let Some(entry) = reader.next()? {
            let event = self.entry(&entry);
            if kind == RowKind::Events {
                self.history_bytes += retained_bytes(&event);
                self.loaded.history.push_back(Arc::new(event));
                self.trim();
            }
        }
        Ok(())
    }

    fn entry(&mut self, entry: &Entry<'_>) -> Event {
        let snapshot = &mut self.loaded.snapshot;
        let before = snapshot.get(entry.key).cloned();
        let key = before
            .as_ref()
            .map_or_else(|| Arc::from(entry.key), |before| Arc::clone(&before.key));
        let after = (!entry.deleted).then(|| {
            Arc::new(Record {
                key: Arc::clone(&key),
                value: Bytes::copy_from_slice(entry.value),
                created: entry.created,
                modified: entry.modified,
            })
        });
        let event = Event {
            revision: entry.modified,
            key,
            before,
            after,
            memo: Default::default(),
        };
        snapshot.apply(&event);
        self.live_bytes += event.after.as_deref().map_or(0, entry_bytes);
        self.live_bytes -= event.before.as_deref().map_or(0, entry_bytes);
        event
    }

    /// Forgets the oldest events beyond the limits, whole revisions at a time.
    fn trim(&mut self) {
        let history: &mut VecDeque<Arc<Event>> = &mut self.loaded.history;
        while history.len() > self.limits.events || self.history_bytes > self.limits.bytes {
            let Some(oldest) = history.front().map(|event| event.revision) else {
                break;
            };
            while let Some(event) = history.pop_front_if(|event| event.revision == oldest) {
                self.history_bytes -= retained_bytes(&event);
            }
            self.loaded.oldest = oldest;
        }
    }
}
