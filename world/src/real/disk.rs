//! Files of this machine, below one root.
//!
//! No path leads out by its text; links that a task made are followed when
//! opened, so whoever opens paths a task could have written checks them first.
//! Only plain files are opened: a pipe would block for ever.
#![expect(clippy::disallowed_methods, reason = "the one door to the machine's files")]

use crate::disk::{DirEntry, Disk, DiskFile, OpenMode, SEALED_MODE, Shared, Stamp, parts};
use crate::time::Duration;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::libc;
use std::{
    fs::{self, File, Metadata, OpenOptions, Permissions, TryLockError},
    io,
    ops::Range,
    os::fd::AsRawFd,
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

/// The files below a directory of this machine.
#[derive(Debug)]
pub struct FsDisk {
    root: PathBuf,
    /// No clone was refused yet. Once one was, none is tried any more: on a file
    /// system without them each try would make a file and remove it.
    clones: AtomicBool,
}

/// Held for as long as nobody else may use what it names; freed by the kernel
/// with the process.
#[derive(Debug)]
pub struct DiskLock {
    _file: File,
}

impl FsDisk {
    /// Makes the root where there is none.
    pub fn open(root: PathBuf) -> io::Result<Arc<Self>> {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", root.display()));
        fs::create_dir_all(&root).map_err(named)?;
        let root = fs::canonicalize(&root).map_err(named)?;
        Ok(Arc::new(Self { root, clones: AtomicBool::new(true) }))
    }

    /// Takes an exclusive lock on a file, made where there is none.
    /// `WouldBlock` when another process (or another lock here) has it.
    pub fn lock(&self, name: &str) -> io::Result<DiskLock> {
        let path = self.resolve(name)?;
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path)?;
        match file.try_lock() {
            Ok(()) => Ok(DiskLock { _file: file }),
            Err(TryLockError::WouldBlock) => Err(io::Error::new(
                io::ErrorKind::WouldBlock,
                format!(
                    "{} is held by another running process; stop it or use another directory",
                    path.display()
                ),
            )),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn resolve(&self, path: &str) -> io::Result<PathBuf> {
        let _parts = parts(path)?;
        Ok(self.root.join(path))
    }
}

fn described(name: String, link: &Metadata, path: &Path) -> DirEntry {
    // A link to a file counts as that file; one to a directory is not entered,
    // so that walking a tree ends.
    let target = if link.is_symlink() { fs::metadata(path).ok().filter(Metadata::is_file) } else { None };
    let meta = target.as_ref().unwrap_or(link);
    DirEntry {
        name,
        is_dir: meta.is_dir(),
        len: if meta.is_dir() { 0 } else { meta.len() },
        mode: meta.permissions().mode() & 0o7777,
    }
}

impl Disk for FsDisk {
    fn open(&self, path: &str, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let full = self.resolve(path)?;
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(nix::libc::O_NONBLOCK);
        match mode {
            OpenMode::Read => {}
            OpenMode::Write => _ = options.write(true),
            OpenMode::CreateNew => _ = options.write(true).create_new(true),
            OpenMode::CreateOrWrite => _ = options.write(true).create(true).truncate(false),
        }
        let file = options.open(&full)?;
        let meta = file.metadata()?;
        if meta.is_dir() {
            return Err(io::Error::new(io::ErrorKind::IsADirectory, format!("{path} is a directory")));
        }
        if !meta.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{path} is not a plain file")));
        }
        Ok(Arc::new(FsFile { file }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.resolve(from)?, self.resolve(to)?)
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        fs::remove_file(self.resolve(path)?)
    }

    fn remove_dir_all(&self, path: &str) -> io::Result<()> {
        if path.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the root is not removed"));
        }
        match fs::remove_dir_all(self.resolve(path)?) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    fn create_dir_all(&self, path: &str) -> io::Result<()> {
        fs::create_dir_all(self.resolve(path)?)
    }

    fn list(&self, path: &str) -> io::Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(self.resolve(path)?)? {
            let entry = entry?;
            // A name that is no UTF-8 cannot be named by a path of ours.
            let Ok(name) = entry.file_name().into_string() else { continue };
            match entry.metadata() {
                Ok(meta) => entries.push(described(name, &meta, &entry.path())),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        entries.sort();
        Ok(entries)
    }

    fn entry(&self, path: &str) -> io::Result<DirEntry> {
        let full = self.resolve(path)?;
        let meta = fs::symlink_metadata(&full)?;
        let name = path.rsplit_once('/').map_or(path, |(_, name)| name);
        Ok(described(name.to_owned(), &meta, &full))
    }

    fn is_vacant(&self, path: &str) -> io::Result<bool> {
        match fs::read_dir(self.resolve(path)?)?.next() {
            None => Ok(true),
            Some(first) => first.map(|_| false),
        }
    }

    fn sync_dir(&self, path: &str) -> io::Result<()> {
        let full = self.resolve(path)?;
        let dir = File::open(&full)?;
        if !dir.metadata()?.is_dir() {
            return Err(io::Error::new(io::ErrorKind::NotADirectory, format!("{path} is not a directory")));
        }
        dir.sync_all()
    }

    fn set_mode(&self, path: &str, mode: u32) -> io::Result<()> {
        fs::set_permissions(self.resolve(path)?, Permissions::from_mode(mode))
    }

    fn share(&self, from: &str, to: &str, mode: u32) -> io::Result<Shared> {
        let (from, to) = (self.resolve(from)?, self.resolve(to)?);
        if self.clones.load(Ordering::Relaxed) {
            if clone(&from, &to, mode)? {
                return Ok(Shared::Cloned);
            }
            self.clones.store(false, Ordering::Relaxed);
        }
        let meta = fs::symlink_metadata(&from)?;
        if !meta.is_file() || meta.permissions().mode() & 0o7777 != mode {
            return Ok(Shared::Not);
        }
        match fs::hard_link(&from, &to) {
            Ok(()) => Ok(Shared::Linked),
            Err(error) if is_refusal(&error) => Ok(Shared::Not),
            Err(error) => Err(error),
        }
    }

    fn symlink(&self, target: &str, path: &str) -> io::Result<()> {
        std::os::unix::fs::symlink(target, self.resolve(path)?)
    }

    fn read_link(&self, path: &str) -> io::Result<String> {
        let target = fs::read_link(self.resolve(path)?)?.into_os_string().into_string();
        target.map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "the link says no UTF-8 text"))
    }

    fn seal(&self, path: &str) -> io::Result<Stamp> {
        let full = self.resolve(path)?;
        // First, since a file that nobody may read cannot be opened.
        fs::set_permissions(&full, Permissions::from_mode(SEALED_MODE))?;
        let file = File::open(&full)?;
        // The clock of a file system may stand still for some milliseconds: what is
        // written next could bear the time of what was written last.
        file.set_modified(sealed_time(file.metadata()?.modified()?))?;
        self.stamp(path)
    }

    fn stamp(&self, path: &str) -> io::Result<Stamp> {
        let meta = fs::symlink_metadata(self.resolve(path)?)?;
        // Not the time of the inode, which every link and unlink moves too.
        let changed = match meta.modified()?.duration_since(UNIX_EPOCH) {
            Ok(after) => after.as_nanos().cast_signed(),
            Err(before) => -before.duration().as_nanos().cast_signed(),
        };
        Ok(Stamp { file: meta.ino(), len: meta.len(), changed })
    }

    fn absolute(&self, path: &str) -> PathBuf {
        if path.is_empty() { self.root.clone() } else { self.root.join(path) }
    }
}

/// A reflink: false, with nothing made, where there is no such thing here.
#[expect(unsafe_code, reason = "nix has no clones of files")]
fn clone(from: &Path, to: &Path, mode: u32) -> io::Result<bool> {
    let source =
        OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(from)?;
    let target = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to)?;
    // SAFETY: both descriptors are open, and the call takes no memory of ours.
    let cloned = match unsafe { libc::ioctl(target.as_raw_fd(), libc::FICLONE, source.as_raw_fd()) } {
        0 => target.set_permissions(Permissions::from_mode(mode)).map(|()| true),
        _ => Err(io::Error::last_os_error()),
    };
    if cloned.is_err() {
        fs::remove_file(to)?;
    }
    match cloned {
        Err(error) if is_refusal(&error) => Ok(false),
        other => other,
    }
}

/// Says that two names cannot share their bytes here, and nothing worse: no such
/// call, other file systems, too many names, not ours.
fn is_refusal(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::EOPNOTSUPP
                | libc::ENOTTY
                | libc::ENOSYS
                | libc::EINVAL
                | libc::EXDEV
                | libc::EMLINK
                | libc::EPERM
        )
    )
}

/// What a seal sets the time of a file to. One that a task set to the beginning of all
/// times has none before it.
fn sealed_time(modified: SystemTime) -> SystemTime {
    modified.checked_sub(SEAL_BACK).unwrap_or(UNIX_EPOCH)
}

/// See `seal`: more than any clock of a file system stands still, but FAT's.
const SEAL_BACK: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct FsFile {
    file: File,
}

impl DiskFile for FsFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.file.read_at(buffer, offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_all_at(data, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        // Bytes and length; the times of the file are nobody's promise.
        self.file.sync_data()
    }

    fn punch(&self, range: Range<u64>) -> io::Result<()> {
        let number = |bytes: u64| libc::off_t::try_from(bytes).map_err(io::Error::other);
        let (from, len) = (number(range.start)?, number(range.end.saturating_sub(range.start))?);
        let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        Ok(fallocate(&self.file, flags, from, len)?)
    }

    /// A lock this process has just let go may be held for another instant: by a
    /// child that another thread forked, until it runs its own program.
    fn try_lock(&self) -> io::Result<bool> {
        for _ in 0..LOCK_TRIES {
            match self.file.try_lock() {
                Ok(()) => return Ok(true),
                Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
        Ok(false)
    }

    /// The kernel gives a write lease to the one who has a file open alone,
    /// and refuses it while any other descriptor of it is left anywhere.
    /// Whoever opens it in the instant of the lease makes the kernel signal
    /// its holder: let that be a signal that nobody minds, unlike SIGIO.
    #[expect(unsafe_code, reason = "nix has no leases")]
    fn is_sole(&self) -> bool {
        let fd = self.file.as_raw_fd();
        // SAFETY: the calls take plain numbers, and the descriptor is open.
        let set = |command, value: libc::c_int| unsafe { libc::fcntl(fd, command, value) == 0 };
        set(F_SETSIG, libc::SIGURG)
            && set(libc::F_SETLEASE, libc::F_WRLCK)
            && set(libc::F_SETLEASE, libc::F_UNLCK)
    }
}

/// How often a lock is asked for, and the pause between: see `try_lock`.
const LOCK_TRIES: u32 = 20;
const LOCK_PAUSE: Duration = Duration::from_millis(5);

/// Which signal tells of a lease; the binding lacks it.
const F_SETSIG: libc::c_int = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_with_none_before_it_is_sealed_too() {
        let first = UNIX_EPOCH.checked_sub(Duration::from_secs(1 << 63)).expect("seconds of this machine");
        assert_eq!(sealed_time(first), UNIX_EPOCH);
        assert_eq!(sealed_time(UNIX_EPOCH), UNIX_EPOCH - SEAL_BACK);
    }
}
