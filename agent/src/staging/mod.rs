//! What a task finds in its directory, and what it leaves there.
//!
//! - [`stager`]: makes work directories and lays inputs in them.
//! - [`cache`]: inputs by digest, fetched once, used by many.
//! - [`shelf`]: what ended tasks left empty, for the next ones.
//! - [`collector`]: finds outputs, digests and uploads them.
//! - [`looker`]: takes checkpoints.
//! - [`upload`]: brings files to the server.
//! - [`glob`]: which files a pattern means.
//! - [`signer`]: signed URLs from the server, and transfers with them.

pub mod cache;
pub(crate) mod collector;
pub mod glob;
pub mod looker;
pub(crate) mod shelf;
pub(crate) mod signer;
pub(crate) mod stager;
pub(crate) mod upload;

use sha2::{Digest as _, Sha256};
use std::io;
use world::disk::{Disk, DiskFile, OpenMode};

/// Reads all of an open file in pieces.
pub(crate) fn read_pieces(
    file: &dyn DiskFile,
    mut take: impl FnMut(u64, &[u8]) -> io::Result<()>,
) -> io::Result<u64> {
    let len = usize::try_from(file.len()?).unwrap_or(usize::MAX);
    let mut buffer = vec![0; len.clamp(1, crate::limits::COPY_BYTES)];
    let mut at = 0;
    loop {
        let read = file.read_at(at, &mut buffer)?;
        if read == 0 {
            return Ok(at);
        }
        take(at, &buffer[..read])?;
        at += read as u64;
    }
}

/// Length and digest of a file.
pub(crate) fn digest(disk: &dyn Disk, path: &str) -> io::Result<(u64, String)> {
    let file = disk.open(path, OpenMode::Read)?;
    let mut hash = Sha256::new();
    let bytes = read_pieces(&*file, |_, data| {
        hash.update(data);
        Ok(())
    })?;
    let digest = proto::keys::hex_of(&hash.finalize());
    Ok((bytes, digest))
}

/// Copies a file to a name that is free; its length and digest.
pub(crate) fn copy_digested(disk: &dyn Disk, from: &str, to: &str) -> io::Result<(u64, String)> {
    let source = disk.open(from, OpenMode::Read)?;
    let target = disk.open(to, OpenMode::CreateNew)?;
    let mut hash = Sha256::new();
    let bytes = read_pieces(&*source, |at, data| {
        hash.update(data);
        target.write_at(at, data)
    })?;
    Ok((bytes, proto::keys::hex_of(&hash.finalize())))
}

/// The directory a path is in; the root for a bare name.
pub(crate) fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(directory, _)| directory)
}

/// Copies a file to a fresh name, making its directory.
pub(crate) fn copy(disk: &dyn Disk, from: &str, to: &str, mode: u32) -> io::Result<()> {
    let source = disk.open(from, OpenMode::Read)?;
    disk.create_dir_all(parent(to))?;
    let target = disk.open(to, OpenMode::CreateNew)?;
    read_pieces(&*source, |at, data| target.write_at(at, data))?;
    drop(target);
    // What has no mode is a plain file its owner may change.
    disk.set_mode(to, if mode == 0 { 0o644 } else { mode & 0o777 })
}
