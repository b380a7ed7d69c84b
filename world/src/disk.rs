//! A node's disk: plain files, with the promises a real disk makes and no more.
//!
//! What is written is durable only after [`DiskFile::sync`]; a created or
//! renamed name only after [`Disk::sync_dir`] of its directory. A failed sync
//! leaves it open whether the bytes are there. All calls block: async code
//! wraps them in [`crate::task::blocking`].

use std::{fmt, io, ops::Range, path::PathBuf, sync::Arc};

/// How to open a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// Must exist; only reads.
    Read,
    /// Must exist; reads and writes.
    Write,
    /// Must not exist; reads and writes.
    CreateNew,
    /// Made where it does not exist; reads and writes; keeps what is there.
    CreateOrWrite,
}

/// One name in a directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DirEntry {
    /// The last part of its path.
    pub name: String,
    /// Directories have no length of their own.
    pub is_dir: bool,
    /// Bytes.
    pub len: u64,
    /// Unix permission bits.
    pub mode: u32,
}

/// How [`Disk::share`] gave a file's bytes a second name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shared {
    /// By a file of its own, which lies in the same place of the disk until one
    /// of the two is written: neither is seen in the other.
    Cloned,
    /// By one more name of the same file: what is written by one name, and the
    /// mode that is set, is seen by all.
    Linked,
    /// Not at all: this disk cannot, or not with these two. Nothing was made;
    /// who needs it copies.
    Not,
}

/// Which file a path names, and the last change of its bytes: two stamps of one path
/// are equal where it is still that file with those bytes. The mode is no part of it:
/// who changes it has changed no byte yet, and a write after it shows by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub(crate) file: u64,
    pub(crate) len: u64,
    /// Of the bytes: nanoseconds, or a count.
    pub(crate) changed: i128,
}

/// The mode of what [`Disk::seal`] sealed.
pub const SEALED_MODE: u32 = 0o444;

/// Files below one root. Paths are relative, with `/` between parts; `..` and
/// absolute paths are refused with `InvalidInput`.
pub trait Disk: Send + Sync + fmt::Debug + 'static {
    /// Opens or makes a file.
    fn open(&self, path: &str, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>>;
    /// Moves a file or directory over another name, atomically.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &str) -> io::Result<()>;
    /// Removes a directory with all below it; no error where there is none.
    fn remove_dir_all(&self, path: &str) -> io::Result<()>;
    /// Makes a directory and its parents.
    fn create_dir_all(&self, path: &str) -> io::Result<()>;
    /// What is in a directory, by name in order.
    fn list(&self, path: &str) -> io::Result<Vec<DirEntry>>;
    /// The entry of one path; `NotFound` where there is none.
    fn entry(&self, path: &str) -> io::Result<DirEntry>;
    /// True for a directory with nothing at all in it.
    fn is_vacant(&self, path: &str) -> io::Result<bool>;
    /// Makes names in a directory durable.
    fn sync_dir(&self, path: &str) -> io::Result<()>;
    /// Sets permission bits (the simulated disk only remembers them).
    fn set_mode(&self, path: &str, mode: u32) -> io::Result<()>;
    /// Gives the bytes of a file to the fresh name `to`, with this mode, without
    /// writing them again: by a clone where the disk has clones, else by a hard
    /// link where the file has this very mode.
    fn share(&self, from: &str, to: &str, mode: u32) -> io::Result<Shared> {
        let _ = (from, to, mode);
        Ok(Shared::Not)
    }
    /// Makes a symbolic link at a fresh name; `target` is what it says, as seen from the
    /// directory it lies in. Whoever makes one sees to where it leads.
    fn symlink(&self, target: &str, path: &str) -> io::Result<()> {
        let _ = (target, path);
        Err(io::Error::new(io::ErrorKind::Unsupported, "this disk has no symbolic links"))
    }
    /// What a symbolic link says; an error where the path names anything else.
    fn read_link(&self, path: &str) -> io::Result<String> {
        let _ = path;
        Err(io::Error::new(io::ErrorKind::Unsupported, "this disk has no symbolic links"))
    }
    /// Makes a file [`SEALED_MODE`], and such that every later write of it changes
    /// its stamp, however coarse the clock of the disk; and tells the stamp. Its
    /// owner can still open it anew for writing: a stamp finds that out, a seal does
    /// not prevent it.
    fn seal(&self, path: &str) -> io::Result<Stamp> {
        self.set_mode(path, SEALED_MODE)?;
        self.stamp(path)
    }
    /// The stamp of a file now. It does not see a write of somebody who set the
    /// time of the file back on purpose, nor one that is still to come.
    fn stamp(&self, path: &str) -> io::Result<Stamp> {
        let DirEntry { len, .. } = self.entry(path)?;
        Ok(Stamp { file: 0, len, changed: 0 })
    }
    /// Where a process of this node finds this path.
    fn absolute(&self, path: &str) -> PathBuf;
}

/// An open file. A handle outlives a crash of its node only to fail: each
/// incarnation has handles of its own.
pub trait DiskFile: Send + Sync + fmt::Debug + 'static {
    /// Bytes.
    fn len(&self) -> io::Result<u64>;
    /// True at length 0.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Reads up to `buffer.len()` bytes; 0 at the end.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;
    /// Writes all of `data`, growing the file as needed.
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()>;
    /// Cuts or grows (with zeros).
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Returns once all written bytes are durable. After an error they may be
    /// there or not.
    fn sync(&self) -> io::Result<()>;
    /// Gives the room of these bytes back: they read as zeros then, and the file is as
    /// long as before. `Unsupported` where the disk cannot.
    fn punch(&self, range: Range<u64>) -> io::Result<()> {
        let _ = range;
        Err(io::ErrorKind::Unsupported.into())
    }
    /// Claims the file for this handle until it is dropped; false where another
    /// handle, of this process or another, has claimed it. The real side uses
    /// an advisory lock of the system; a disk nobody shares always says true.
    fn try_lock(&self) -> io::Result<bool> {
        Ok(true)
    }
    /// True where nobody else has the file open, in this process or another.
    /// False also where that cannot be told.
    fn is_sole(&self) -> bool {
        false
    }
}

/// Bytes in memory, to be read where an open file is.
#[derive(Debug)]
pub struct InMemory(pub bytes::Bytes);

impl DiskFile for InMemory {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(self.0.len());
        let read = buffer.len().min(self.0.len() - from);
        buffer[..read].copy_from_slice(&self.0[from..from + read]);
        Ok(read)
    }
    fn write_at(&self, _offset: u64, _data: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
    fn set_len(&self, _len: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

/// Parts of one path at most.
const PATH_PARTS_MAX: usize = 64;

/// The parts of a path as every disk understands it; `""` is the root.
/// Absolute paths, empty parts, `.`, `..` and NUL are refused.
pub(crate) fn parts(path: &str) -> io::Result<Parts<'_>> {
    // Of the part under way: how long it is, and how much of it is dots.
    let (mut count, mut len, mut dots, mut bad) = (0, 0, 0, false);
    for byte in path.bytes().chain((!path.is_empty()).then_some(b'/')) {
        if byte == b'/' {
            bad |= len == dots && len <= 2;
            (count, len, dots) = (count + 1, 0, 0);
        } else {
            bad |= byte == 0;
            (len, dots) = (len + 1, dots + u32::from(byte == b'.'));
        }
    }
    if bad || count > PATH_PARTS_MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{path:?} is not a path below the root of the disk"),
        ));
    }
    Ok(Parts { rest: (!path.is_empty()).then_some(path) })
}

/// See [`parts`]. They are short: looked for byte by byte they are found sooner.
#[derive(Clone)]
pub(crate) struct Parts<'a> {
    /// Those not told yet.
    rest: Option<&'a str>,
}

impl<'a> Iterator for Parts<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let rest = self.rest?;
        let end = rest.bytes().position(|byte| byte == b'/');
        self.rest = end.map(|end| &rest[end + 1..]);
        Some(&rest[..end.unwrap_or(rest.len())])
    }
}

impl<'a> DoubleEndedIterator for Parts<'a> {
    fn next_back(&mut self) -> Option<&'a str> {
        let rest = self.rest?;
        let begin = rest.bytes().rposition(|byte| byte == b'/');
        self.rest = begin.map(|begin| &rest[..begin]);
        Some(&rest[begin.map_or(0, |begin| begin + 1)..])
    }
}

/// Reads a whole file of at most `limit` bytes; `FileTooLarge` above it.
pub fn read_all(disk: &dyn Disk, path: &str, limit: u64) -> io::Result<Vec<u8>> {
    let file = disk.open(path, OpenMode::Read)?;
    let len = file.len()?;
    if len > limit {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("{path} has {len} bytes; at most {limit} are read"),
        ));
    }
    let mut data = vec![0; usize::try_from(len).map_err(io::Error::other)?];
    let mut at = 0;
    while at < data.len() {
        let read = file.read_at(at as u64, &mut data[at..])?;
        if read == 0 {
            break;
        }
        at += read;
    }
    data.truncate(at);
    Ok(data)
}

/// Replaces a file so that after a crash either the old or the new bytes are
/// there, whole: another name, sync, rename, sync of the directory.
pub fn replace(disk: &dyn Disk, path: &str, data: &[u8]) -> io::Result<()> {
    let fresh = format!("{path}.new");
    let file = disk.open(&fresh, OpenMode::CreateOrWrite)?;
    file.set_len(0)?;
    file.write_at(0, data)?;
    file.sync()?;
    drop(file);
    disk.rename(&fresh, path)?;
    disk.sync_dir(path.rsplit_once('/').map_or("", |(dir, _)| dir))
}
