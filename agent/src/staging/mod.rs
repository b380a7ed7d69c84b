//! What a task finds in its directory, and what it leaves there.
//!
//! - [`stager`]: makes work directories and lays inputs in them.
//! - [`arrivals`]: how the inputs of attempts come.
//! - [`breaker`], [`sources`]: who is asked for files, and who is left alone for a while.
//! - [`trees`]: what an input that is a directory is made of.
//! - [`cache`]: inputs by digest, fetched once, used by many.
//! - [`shelf`]: what ended tasks left empty, for the next ones.
//! - [`collector`]: finds outputs, digests and uploads them.
//! - [`looker`]: takes checkpoints.
//! - [`places`]: which file is fetched next.
//! - [`progress`]: reads how far tasks say they have come.
//! - [`upload`]: brings files to the server.
//! - [`glob`]: which files a pattern means.
//! - [`signer`]: signed URLs from the server, and transfers with them.

pub(crate) mod arrivals;
pub(crate) mod breaker;
pub mod cache;
pub(crate) mod collector;
pub mod glob;
pub mod looker;
pub(crate) mod places;
pub(crate) mod progress;
pub(crate) mod shelf;
pub(crate) mod signer;
pub(crate) mod sources;
pub(crate) mod stager;
mod trees;
pub(crate) mod upload;

use sha2::{Digest as _, Sha256};
use std::io;
use std::sync::Arc;
use world::disk::{Disk, DiskFile, OpenMode, SEALED_MODE, Shared};
use world::pace::{Line, Pace};

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

/// Copies a file to a name that is free, below a first line; length and digest of both.
pub(crate) fn copy_under(head: &str, disk: &dyn Disk, from: &str, to: &str) -> io::Result<(u64, String)> {
    let source = disk.open(from, OpenMode::Read)?;
    let target = disk.open(to, OpenMode::CreateNew)?;
    let mut hash = Sha256::new();
    hash.update(head);
    target.write_at(0, head.as_bytes())?;
    let below = head.len() as u64;
    let bytes = read_pieces(&*source, |at, data| {
        hash.update(data);
        target.write_at(below + at, data)
    })?;
    Ok((below + bytes, proto::keys::hex_of(&hash.finalize())))
}

/// How fast files of a tenant move.
pub(crate) fn pace(line: Option<&Arc<Line>>, tenant: &str) -> Pace {
    line.map(|line| line.pace(tenant)).unwrap_or_default()
}

/// The directory a path is in; the root for a bare name.
pub(crate) fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(directory, _)| directory)
}

/// Lays a cached file at a fresh name, read-only, making its directory: without
/// writing the bytes again where the disk can, else by a copy.
pub(crate) fn lay(disk: &dyn Disk, from: &str, to: &str, mode: u32) -> io::Result<()> {
    let mode = read_only(mode);
    disk.create_dir_all(parent(to))?;
    match disk.share(from, to, mode)? {
        Shared::Cloned | Shared::Linked => {
            world::mark!("agent.stage.shared");
            Ok(())
        }
        Shared::Not => copy(disk, from, to, mode),
    }
}

/// Lays a file of a checkpoint, which is the task's own: a copy that it may write,
/// without the first line.
pub(crate) fn lay_own(disk: &dyn Disk, from: &str, to: &str, mode: u32) -> io::Result<()> {
    let source = disk.open(from, OpenMode::Read)?;
    let mut head = [0; proto::checkpoints::HEAD_BYTES_MAX];
    let read = source.read_at(0, &mut head)?;
    let line = head[..read].iter().position(|byte| *byte == b'\n');
    let below = line.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "it is of no checkpoint"))? + 1;
    disk.create_dir_all(parent(to))?;
    let target = disk.open(to, OpenMode::CreateNew)?;
    read_pieces(&*source, |at, data| {
        let head = below.saturating_sub(usize::try_from(at).unwrap_or(usize::MAX)).min(data.len());
        target.write_at((at + head as u64) - below as u64, &data[head..])
    })?;
    drop(target);
    disk.set_mode(to, mode & 0o777 | 0o600)
}

/// Nobody writes an input. Who may read and run it is as its maker had it, but that
/// its owner always may; what has no mode is a plain file.
fn read_only(mode: u32) -> u32 {
    if mode == 0 { SEALED_MODE } else { mode & 0o555 | 0o400 }
}

/// Copies a file to a fresh name.
fn copy(disk: &dyn Disk, from: &str, to: &str, mode: u32) -> io::Result<()> {
    let source = disk.open(from, OpenMode::Read)?;
    let target = disk.open(to, OpenMode::CreateNew)?;
    read_pieces(&*source, |at, data| target.write_at(at, data))?;
    drop(target);
    disk.set_mode(to, mode)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::disk_with;
    use world::disk::read_all;

    #[test]
    fn what_is_laid_is_read_only_and_another_mode_is_another_file() {
        let disk = disk_with(&["cached"]);
        disk.seal("cached").unwrap();
        let modes = [(0, 0o444), (0o644, 0o444), (0o755, 0o555), (0o600, 0o400), (0o020, 0o400)];
        for (mode, laid) in modes {
            let path = format!("work/{mode:o}");
            lay(&*disk, "cached", &path, mode).unwrap();
            assert_eq!(disk.entry(&path).unwrap().mode, laid);
            assert_eq!(read_all(&*disk, &path, 99).unwrap(), b"cached");
        }
        assert_eq!(disk.entry("cached").unwrap().mode, SEALED_MODE);
        assert_eq!(disk.stamp("work/0").unwrap(), disk.stamp("cached").unwrap());
        assert_ne!(disk.stamp("work/755").unwrap(), disk.stamp("cached").unwrap());
    }
}
