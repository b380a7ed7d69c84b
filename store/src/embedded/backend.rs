//! redb's storage over a [`DiskFile`], remembering what went wrong.
//!
//! redb itself refuses everything after the first error. What it cannot tell is
//! whether the disk was merely full or a sync failed; that decides whether the
//! store may open its file again and go on, so it is written down here. A failed
//! sync is also written down beside the file, for the next opening.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use world::disk::OpenMode;
use world::{Disk, DiskFile};

/// What the disk refused since the file was opened.
#[derive(Debug, Default)]
pub(crate) struct Faults(Mutex<FaultsSeen>);

#[derive(Debug, Default)]
struct FaultsSeen {
    full: bool,
    other: Option<String>,
}

impl Faults {
    /// True where the disk was full and nothing else went wrong. After a failed
    /// sync this is never true: what the system then still reads back may not
    /// be on the disk.
    pub fn only_full(&self) -> bool {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.full && seen.other.is_none()
    }

    /// What went wrong that opening the file again alone can mend.
    pub fn broken(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).other.clone()
    }

    fn note<T>(&self, what: &str, result: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &result {
            let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if is_full(error) && what != "sync" {
                seen.full = true;
            } else {
                seen.other.get_or_insert_with(|| format!("{what}: {error}"));
            }
        }
        result
    }
}

/// No space, or no quota for it.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// The adapter.
#[derive(Debug)]
pub(crate) struct Backend {
    pub file: Arc<dyn DiskFile>,
    pub faults: Arc<Faults>,
    pub mark: Mark,
}

/// The file beside the store's that says: a sync of it failed. What the system
/// reads back since then may never come to the disk, though later syncs
/// succeed. The mark itself needs no sync: once the power failed, what is read
/// is what the disk has.
#[derive(Clone, Debug)]
pub(crate) struct Mark {
    pub disk: Arc<dyn Disk>,
    pub path: String,
}

impl Mark {
    fn make(&self) {
        if let Err(error) = self.disk.open(&self.path, OpenMode::CreateOrWrite) {
            tracing::warn!(%error, path = self.path, "a failed sync cannot be written down");
        }
    }
}

impl redb::StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.faults.note("length", self.file.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.faults.note("read", read_exactly(self.file.as_ref(), offset, out))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.faults.note("resize", self.file.set_len(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        let synced = self.file.sync();
        if synced.is_err() {
            self.mark.make();
        }
        self.faults.note("sync", synced)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.faults.note("write", self.file.write_at(offset, data))
    }
}

fn read_exactly(file: &dyn DiskFile, offset: u64, out: &mut [u8]) -> io::Result<()> {
    let mut done = 0;
    while done < out.len() {
        let read = file.read_at(offset + done as u64, &mut out[done..])?;
        if read == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("the store's file ends before byte {}", offset + out.len() as u64),
            ));
        }
        done += read;
    }
    Ok(())
}
