//! The bytes of a row.
//!
//! Little-endian. A row: version `u8`, kind `u8`, the newest revision that its writer knew `u64`, then entries. An entry:
//! tag `u8` (0 deleted, 1 put), key length `u32`, value length `u32`, created `u64`, modified `u64`, key, value. Integrity
//! is redb's affair (it keeps checksums of its pages), so a row that does not decode was written by somebody else.

use crate::{Event, Record, Revision};

const VERSION: u8 = 1;
const ROW_HEADER_BYTES: usize = 2 + 8;
const ENTRY_HEADER_BYTES: usize = 1 + 4 + 4 + 8 + 8;
const DELETED: u8 = 0;
const PUT: u8 = 1;

/// A row holds whole entries and is closed before it would outgrow this: redb gives a row a power of two of pages, and
/// this fills 16 of them.
const ROW_BYTES: usize = (64 << 10) - 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RowKind {
    /// Committed events.
    Events,
    /// Live states that were moved from older rows. Together with the rows between, they are the whole state at the row's
    /// revision.
    Moved,
}

/// What an entry for this record takes in a row.
pub(crate) fn entry_bytes(record: &Record) -> u64 {
    (ENTRY_HEADER_BYTES + record.key.len() + record.value.len()) as u64
}

/// Packs entries into rows.
pub(crate) struct RowWriter {
    kind: RowKind,
    revision: Revision,
    rows: Vec<Vec<u8>>,
}

impl RowWriter {
    pub(crate) fn new(kind: RowKind, revision: Revision) -> Self {
        Self {
            kind,
            revision,
            rows: Vec::new(),
        }
    }

    pub(crate) fn event(&mut self, event: &Event) {
        let (tag, created, modified, value) = match &event.after {
            Some(record) => (PUT, record.created, record.modified, &record.value[..]),
            None => (DELETED, 0, event.revision, &[][..]),
        };
        self.entry(&Entry {
            deleted: tag == DELETED,
            created,
            modified,
            key: &event.key,
            value,
        });
    }

    pub(crate) fn entry(&mut self, entry: &Entry<'_>) {
        let bytes = ENTRY_HEADER_BYTES + entry.key.len() + entry.value.len();
        let row = self.row_for(bytes);
        row.push(if entry.deleted { DELETED } else { PUT });
        // Lengths beyond 4 GiB cannot occur: the write queue is smaller by far.
        row.extend_from_slice(&(entry.key.len() as u32).to_le_bytes());
        row.extend_from_slice(&(entry.value.len() as u32).to_le_bytes());
        row.extend_from_slice(&entry.created.to_le_bytes());
        row.extend_from_slice(&entry.modified.to_le_bytes());
        row.extend_from_slice(entry.key.as_bytes());
        row.extend_from_slice(entry.value);
    }

    pub(crate) fn finish(self) -> Vec<Vec<u8>> {
        self.rows
    }

    fn row_for(&mut self, bytes: usize) -> &mut Vec<u8> {
        let fits = self
            .rows
            .last()
            .is_some_and(|row| row.len() + bytes <= ROW_BYTES);
        if !fits {
            let mut row = Vec::with_capacity(ROW_HEADER_BYTES + bytes);
            row.push(VERSION);
            row.push(match self.kind {
                RowKind::Events => 0,
                RowKind::Moved => 1,
            });
            row.extend_from_slice(&self.revision.to_le_bytes());
            self.rows.push(row);
        }
        let last = self.rows.len() - 1;
        &mut self.rows[last]
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry<'a> {
    pub(crate) deleted: bool,
    pub(crate) created: Revision,
    pub(crate) modified: Revision,
    pub(crate) key: &'a str,
    pub(crate) value: &'a [u8],
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum FormatError {
    #[error("a row was written by a newer version (row format {0}, this one knows {VERSION})")]
    Newer(u8),
    #[error("a row cannot be decoded")]
    Malformed,
}

/// Reads a row's entries in order.
#[derive(Debug)]
pub(crate) struct RowReader<'a> {
    pub(crate) kind: RowKind,
    pub(crate) revision: Revision,
    rest: &'a [u8],
}

impl<'a> RowReader<'a> {
    pub(crate) fn new(row: &'a [u8]) -> Result<Self, FormatError> {
        let mut rest = row;
        let version = take_u8(&mut rest)?;
        if version != VERSION {
            return Err(FormatError::Newer(version));
        }
        let kind = match take_u8(&mut rest)? {
            0 => RowKind::Events,
            1 => RowKind::Moved,
            _ => return Err(FormatError::Malformed),
        };
        Ok(Self {
            kind,
            revision: take_u64(&mut rest)?,
            rest,
        })
    }

    pub(crate) fn next(&mut self) -> Result<Option<Entry<'a>>, FormatError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let deleted = match take_u8(&mut self.rest)? {
            DELETED => true,
            PUT => false,
            _ => return Err(FormatError::Malformed),
        };
        let key_len = take_u32(&mut self.rest)?;
        let value_len = take_u32(&mut self.rest)?;
        let created = take_u64(&mut self.rest)?;
        let modified = take_u64(&mut self.rest)?;
        let key = take(&mut self.rest, key_len as usize)?;
        let key = std::str::from_utf8(key).map_err(|_| FormatError::Malformed)?;
        let value = take(&mut self.rest, value_len as usize)?;
        Ok(Some(Entry {
            deleted,
            created,
            modified,
            key,
            value,
        }))
    }
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> Result<&'a [u8], FormatError> {
    let (taken, left) = rest.split_at_checked(len).ok_or(FormatError::Malformed)?;
    *rest = left;
    Ok(taken)
}

fn take_u8(rest: &mut &[u8]) -> Result<u8, FormatError> {
    Ok(take(rest, 1)?[0])
}

fn take_u32(rest: &mut &[u8]) -> Result<u32, FormatError> {
    let bytes = take(rest, 4)?
        .try_into()
        .map_err(|_| FormatError::Malformed)?;
    Ok(u32::from_le_bytes(bytes))
}

fn take_u64(rest: &mut &[u8]) -> Result<u64, FormatError> {
    let bytes = take(rest, 8)?
        .try_into()
        .map_err(|_| FormatError::Malformed)?;
    Ok(u64::from_le_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(row: &[u8]) -> Result<usize, FormatError> {
        let mut reader = RowReader::new(row)?;
        let mut entries = 0;
        while reader.next()?.is_some() {
            entries += 1;
        }
        Ok(entries)
    }

    #[test]
    fn entries_come_back_in_rows_of_bounded_size() {
        let mut writer = RowWriter::new(RowKind::Moved, 9);
        let big = vec![7; ROW_BYTES * 2];
        let values: [&[u8]; 5] = [b"1", &[0; 40_000], &[1; 30_000], &big, b""];
        for (i, value) in values.iter().enumerate() {
            let deleted = i == 4;
            writer.entry(&Entry {
                deleted,
                created: i as u64,
                modified: 10 + i as u64,
                key: "pods/a/x",
                value,
            });
        }
        let rows = writer.finish();
        assert_eq!(
            rows.iter()
                .map(|row| read(row).expect("well-formed"))
                .collect::<Vec<_>>(),
            [2, 1, 1, 1]
        );
        let mut last = RowReader::new(&rows[3]).expect("header");
        assert_eq!((last.kind, last.revision), (RowKind::Moved, 9));
        let expect = Entry {
            deleted: true,
            created: 4,
            modified: 14,
            key: "pods/a/x",
            value: b"",
        };
        assert_eq!(last.next().expect("entry"), Some(expect));
    }

    #[test]
    fn damaged_rows_are_errors() {
        let mut writer = RowWriter::new(RowKind::Events, 1);
        writer.entry(&Entry {
            deleted: false,
            created: 1,
            modified: 1,
            key: "a/ä",
            value: b"value",
        });
        let row = writer.finish().remove(0);
        for len in 0..row.len() {
            // The header alone is a row without entries.
            assert!(
                read(&row[..len]).is_err() || len == ROW_HEADER_BYTES,
                "cut at {len}"
            );
        }
        let mut newer = row.clone();
        newer[0] = 2;
        assert!(matches!(read(&newer), Err(FormatError::Newer(2))));
        let mut not_text = row;
        not_text[ROW_HEADER_BYTES + ENTRY_HEADER_BYTES] = 0xff;
        assert!(matches!(read(&not_text), Err(FormatError::Malformed)));
    }
}
