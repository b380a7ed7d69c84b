//! Helps for this crate's tests.

use std::sync::Arc;
use world::disk::{Disk, OpenMode};
use world::sim::disk::HostileDisk;

/// A disk in memory with these files; the bytes of each are its own path.
pub(crate) fn disk_with(paths: &[&str]) -> Arc<dyn Disk> {
    let disk = HostileDisk::new(1).handle();
    for path in paths {
        disk.create_dir_all(crate::staging::parent(path)).unwrap();
        disk.open(path, OpenMode::CreateNew).unwrap().write_at(0, path.as_bytes()).unwrap();
    }
    disk
}
