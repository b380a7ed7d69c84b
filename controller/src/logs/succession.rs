//! Whose file a job's log is, where servers share a directory.
//!
//! `<tenant>/<job>/<reign>.log`. What must hold: a file is written by the server of
//! its reign alone, so that one that was deposed and does not know it writes where
//! nobody looks any more. A reign begins from a copy of what is whole in the file of
//! the one before; it has the same bytes at the same places, so cursors stay good.
//! Copied is what is looked at, when it is: most jobs have ended. What is packed nobody
//! writes (`<tenant>/<job>/<reign>.seg`), so it only gets the name of the next reign.

use super::file::{JobLog, copy_whole, make_dir};
use super::segment;
use std::io;
use world::Disk;

/// Opens the log for this reign. `alone` is where it is where no servers share it, and
/// so where one is that was written before they did.
///
/// # Errors
/// Also where a later reign has the log.
pub(super) fn open(disk: &dyn Disk, alone: &str, reign: u64, make: bool) -> io::Result<Option<JobLog>> {
    let dir = alone.strip_suffix(".log").unwrap_or(alone);
    let own = path(dir, reign);
    let (earlier, later) = match reigns(disk, dir)? {
        found if found.iter().any(|of| *of > reign) => (None, true),
        found => (found.into_iter().max(), false),
    };
    if later {
        world::mark!("controller.logs.of_a_later_reign");
        let why = "another server has this log now";
        return Err(io::Error::new(io::ErrorKind::StaleNetworkFileHandle, why));
    }
    let before = match earlier {
        Some(of) if of == reign => return JobLog::open(disk, dir, &own, make),
        Some(of) => Some(path(dir, of)),
        None if exists(disk, alone)? || exists(disk, &segment::path(alone))? => Some(alone.to_owned()),
        None => None,
    };
    if before.is_some() || make {
        // Its own name first, and that of what holds it.
        let tenant = dir.rsplit_once('/').map_or("", |(tenant, _)| tenant);
        make_dir(disk, tenant)?;
        make_dir(disk, dir)?;
    }
    if let Some(before) = before {
        world::mark!("controller.logs.taken_over");
        if exists(disk, &before)? {
            let fresh = format!("{own}.new");
            copy_whole(disk, &before, &fresh)?;
            disk.rename(&fresh, &own)?;
            disk.sync_dir(dir)?;
            // If they cannot be removed now they are of no use to anybody.
            let _ = disk.remove(&before);
            let _ = disk.remove(&segment::path(&before));
        } else {
            disk.rename(&segment::path(&before), &segment::path(&own))?;
            disk.sync_dir(dir)?;
        }
    }
    JobLog::open(disk, dir, &own, make)
}

/// Where a reign writes a log: directory and file.
pub(super) fn own(alone: &str, reign: u64) -> (String, String) {
    let dir = alone.strip_suffix(".log").unwrap_or(alone);
    (dir.to_owned(), path(dir, reign))
}

/// Whether a job, which has this directory, has a plain file there; `None` while it has no
/// file at all.
pub(super) fn is_plain(disk: &dyn Disk, dir: &str) -> io::Result<Option<bool>> {
    let files = disk.list(dir)?;
    let has = |suffix| files.iter().any(|entry| entry.name.ends_with(suffix));
    Ok(if has(".log") { Some(true) } else { has(".seg").then_some(false) })
}

/// Takes away what any reign has of a log. What one that was deposed writes yet is a file
/// that nobody looks for.
pub(super) fn remove(disk: &dyn Disk, alone: &str) -> io::Result<()> {
    let dir = alone.strip_suffix(".log").unwrap_or(alone);
    for reign in reigns(disk, dir)? {
        take_away(disk, dir, &path(dir, reign))?;
    }
    Ok(())
}

/// Takes a log away, plain or packed.
pub(super) fn take_away(disk: &dyn Disk, dir: &str, plain: &str) -> io::Result<()> {
    let may_be_gone = |done: io::Result<()>| match done {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    };
    for path in [plain, &segment::path(plain)] {
        may_be_gone(disk.remove(path))?;
    }
    may_be_gone(disk.sync_dir(dir))
}

fn path(dir: &str, reign: u64) -> String {
    format!("{dir}/{reign:016x}.log")
}

/// The reigns that have a file of the job.
fn reigns(disk: &dyn Disk, dir: &str) -> io::Result<Vec<u64>> {
    let entries = match disk.list(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let reign = |name: &str| {
        let name = name.strip_suffix(".log").or(name.strip_suffix(".seg"))?;
        u64::from_str_radix(name, 16).ok()
    };
    Ok(entries.iter().filter_map(|entry| reign(&entry.name)).collect())
}

fn exists(disk: &dyn Disk, path: &str) -> io::Result<bool> {
    match disk.entry(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logs::LogFilter;
    use proto::v1::{AttemptRef, LogShipment};
    use world::sim::HostileDisk;

    const ALONE: &str = "logs/lab/0000000000000007.log";

    fn shipment(offset: u64, text: &str) -> LogShipment {
        let attempt = AttemptRef { tenant: "lab".into(), job_number: 7, attempt: 1, ..AttemptRef::default() };
        let data = text.to_owned().into();
        LogShipment { attempt: Some(attempt), stream: 1, offset, data, ..LogShipment::default() }
    }

    fn text(log: &JobLog) -> String {
        let page = log.read(&LogFilter::default(), 0, 1 << 20).unwrap();
        page.chunks.iter().map(|chunk| String::from_utf8_lossy(&chunk.data).into_owned()).collect()
    }

    #[test]
    fn what_a_deposed_server_writes_nobody_reads() {
        let disk = HostileDisk::new(1);
        let handle = disk.handle();
        handle.create_dir_all("logs").unwrap();
        let first = open(&*handle, ALONE, 3, true).unwrap().unwrap();
        first.append(&shipment(0, "one ")).unwrap();
        first.sync().unwrap();
        let second = open(&*handle, ALONE, 9, false).unwrap().unwrap();
        // It does not know yet; the next one writes at the same place.
        first.append(&shipment(4, "zombie ")).unwrap();
        first.sync().unwrap();
        second.append(&shipment(4, "two ")).unwrap();
        second.sync().unwrap();
        assert_eq!(text(&second), "one two ");
        assert_eq!(text(&open(&*handle, ALONE, 9, false).unwrap().unwrap()), "one two ");
        assert_eq!(text(&open(&*handle, ALONE, 12, true).unwrap().unwrap()), "one two ");
        let refused = open(&*handle, ALONE, 3, true).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::StaleNetworkFileHandle);
    }

    #[test]
    fn what_was_written_before_servers_shared_it_stays() {
        let disk = HostileDisk::new(1);
        let handle = disk.handle();
        handle.create_dir_all("logs").unwrap();
        let log = JobLog::open(&*handle, "logs/lab", ALONE, true).unwrap().unwrap();
        log.append(&shipment(0, "alone ")).unwrap();
        log.sync().unwrap();
        assert!(open(&*handle, "logs/lab/0000000000000008.log", 5, false).unwrap().is_none());
        let shared = open(&*handle, ALONE, 5, false).unwrap().unwrap();
        assert_eq!(text(&shared), "alone ");
    }
}
