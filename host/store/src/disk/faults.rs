//! A disk for tests that runs full, fails, is slow, or loses what was not synced.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use redb::{Database, DatabaseError, StorageBackend};

use super::log::DatabaseFile;

const NO_SPACE: i32 = 28;
const IO_ERROR: i32 = 5;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Fault {
    #[default]
    None,
    /// Writes fail after this many more.
    NoSpaceAfter(usize),
    /// Data arrives, but syncing says that it has not.
    SyncFails,
    /// Power is lost at this many more syncs: nothing works any more.
    PowerLossAfter(usize),
}

#[derive(Debug)]
enum Unsynced {
    Write(u64, Vec<u8>),
    Len(u64),
}

#[derive(Debug, Default)]
struct State {
    /// What reads see.
    bytes: Vec<u8>,
    /// What survives a power loss for sure.
    synced: Vec<u8>,
    unsynced: Vec<Unsynced>,
    fault: Fault,
    syncs: u64,
    sync_time: Duration,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct FaultyDisk(Arc<Mutex<State>>);

impl FaultyDisk {
    pub(crate) fn set_fault(&self, fault: Fault) {
        self.0.lock().fault = fault;
    }

    pub(crate) fn set_sync_time(&self, sync_time: Duration) {
        self.0.lock().sync_time = sync_time;
    }

    pub(crate) fn syncs(&self) -> u64 {
        self.0.lock().syncs
    }

    pub(crate) fn power_is_lost(&self) -> bool {
        self.0.lock().fault == Fault::PowerLossAfter(0)
    }

    /// The disk after a power loss: what was synced, and those of the other writes for which `survives` says so.
    pub(crate) fn after_power_loss(&self, mut survives: impl FnMut() -> bool) -> Self {
        let state = self.0.lock();
        let mut bytes = state.synced.clone();
        for change in &state.unsynced {
            if survives() {
                apply(&mut bytes, change);
            }
        }
        Self(Arc::new(Mutex::new(State {
            synced: bytes.clone(),
            bytes,
            ..State::default()
        })))
    }
}

impl DatabaseFile for FaultyDisk {
    fn open(&self) -> Result<Database, DatabaseError> {
        Database::builder().create_with_backend(self.clone())
    }

    fn path(&self) -> &Path {
        Path::new("faulty")
    }
}

fn apply(bytes: &mut Vec<u8>, change: &Unsynced) {
    match change {
        Unsynced::Len(len) => bytes.resize(*len as usize, 0),
        Unsynced::Write(offset, data) => {
            let (start, end) = (*offset as usize, *offset as usize + data.len());
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[start..end].copy_from_slice(data);
        }
    }
}

impl State {
    fn change(&mut self, change: Unsynced) -> io::Result<()> {
        match &mut self.fault {
            Fault::NoSpaceAfter(0) => return Err(io::Error::from_raw_os_error(NO_SPACE)),
            Fault::NoSpaceAfter(left) => *left -= 1,
            Fault::PowerLossAfter(0) => return Err(io::Error::from_raw_os_error(IO_ERROR)),
            Fault::None | Fault::SyncFails | Fault::PowerLossAfter(_) => {}
        }
        apply(&mut self.bytes, &change);
        self.unsynced.push(change);
        Ok(())
    }
}

impl StorageBackend for FaultyDisk {
    fn len(&self) -> Result<u64, io::Error> {
        Ok(self.0.lock().bytes.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        let state = self.0.lock();
        let bytes = state
            .bytes
            .get(offset as usize..offset as usize + out.len());
        out.copy_from_slice(bytes.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        self.0.lock().change(Unsynced::Len(len))
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.0.lock().change(Unsynced::Write(offset, data.to_vec()))
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "edge: stands for the time that a disk takes"
    )]
    fn sync_data(&self) -> Result<(), io::Error> {
        let sync_time = self.0.lock().sync_time;
        if !sync_time.is_zero() {
            std::thread::sleep(sync_time);
        }
        let mut state = self.0.lock();
        let state = &mut *state;
        match &mut state.fault {
            Fault::SyncFails | Fault::PowerLossAfter(0) => {
                return Err(io::Error::from_raw_os_error(IO_ERROR));
            }
            Fault::PowerLossAfter(left) => {
                *left -= 1;
                if *left == 0 {
                    return Err(io::Error::from_raw_os_error(IO_ERROR));
                }
            }
            Fault::None | Fault::NoSpaceAfter(_) => {}
        }
        for change in state.unsynced.drain(..) {
            apply(&mut state.synced, &change);
        }
        state.syncs += 1;
        Ok(())
    }
}
