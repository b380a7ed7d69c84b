//! The supervisor's socket in the file system.
//!
//! A path too long for a Unix socket (107 bytes) is bound and reached as
//! `/proc/self/fd/<directory>/<name>`: the file lies where it was asked for,
//! however deep. What must hold: whoever holds the lock beside the socket is
//! its only supervisor, so a socket file found under the lock is a dead one's.
#![expect(clippy::disallowed_methods, reason = "the supervisor stands behind the world's traits")]

use super::limits::{SOCKET_NAME_BYTES_MAX, SOCKET_PATH_BYTES_MAX};
use nix::libc;
use nix::sys::stat::{Mode, umask};
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

/// A path that a socket may have, and what keeps it valid.
pub struct Address {
    pub path: PathBuf,
    _directory: Option<File>,
}

/// How the socket at this path is bound and reached.
pub fn address(path: &Path) -> io::Result<Address> {
    let invalid = |why: String| io::Error::new(io::ErrorKind::InvalidInput, why);
    let name = path.file_name().ok_or_else(|| invalid(format!("{} names no file", path.display())))?;
    if path.as_os_str().len() <= SOCKET_PATH_BYTES_MAX {
        return Ok(Address { path: path.to_owned(), _directory: None });
    }
    if name.len() > SOCKET_NAME_BYTES_MAX {
        let name = name.display();
        return Err(invalid(format!(
            "the socket's name {name} is longer than {SOCKET_NAME_BYTES_MAX} bytes"
        )));
    }
    let directory = path.parent().expect("what has a name has a parent");
    let directory =
        OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY).open(directory)?;
    let path = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name);
    Ok(Address { path, _directory: Some(directory) })
}

/// `path` with an ending added to its name.
pub fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(ending);
    PathBuf::from(name)
}

/// A bound socket with the lock that makes it this supervisor's.
#[derive(Debug)]
pub struct Socket {
    pub listener: UnixListener,
    path: PathBuf,
    inode: (u64, u64),
    _lock: File,
}

impl Socket {
    /// Takes the lock and replaces a dead supervisor's socket. `AddrInUse`
    /// where a living one has it.
    pub fn bind(path: &Path) -> io::Result<Self> {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        let lock = beside(path, ".lock");
        let lock = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(lock);
        let lock = lock.map_err(named)?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => io::Error::new(
                io::ErrorKind::AddrInUse,
                format!("{}: another supervisor has this socket", path.display()),
            ),
            TryLockError::Error(error) => named(error),
        })?;
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(named(error)),
            _ => {}
        }
        debug_assert!(path.as_os_str().as_bytes().starts_with(b"/"), "the supervisor changes its directory");
        let address = address(path)?;
        let before = umask(Mode::from_bits_truncate(0o177));
        let listener = UnixListener::bind(&address.path);
        umask(before);
        let listener = listener.map_err(named)?;
        listener.set_nonblocking(true)?;
        let meta = fs::symlink_metadata(path).map_err(named)?;
        Ok(Self { listener, path: path.to_owned(), inode: (meta.dev(), meta.ino()), _lock: lock })
    }

    /// Removes the socket's file, if it is still this one's.
    pub fn remove(&self) {
        let found = fs::symlink_metadata(&self.path);
        if found.is_ok_and(|meta| (meta.dev(), meta.ino()) == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}
