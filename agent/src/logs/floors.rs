//! How far a spool file was given up, in a file beside it.
//!
//! What must hold: it is durable before the bytes go.

use super::book::{Side, StreamKey};
use crate::config::AgentConfig;
use crate::core::key::Key;
use crate::shell::spool_path;
use std::io;
use world::disk::{self, Disk, read_all};

/// How the names of these files end.
fn suffix(side: Side) -> String {
    format!("{}gap", side.suffix())
}

/// Whose it is, where the name ends so.
pub(crate) fn side_of(name_suffix: &str) -> Option<Side> {
    Side::ALL.into_iter().find(|side| suffix(*side) == name_suffix)
}

pub(crate) fn path(config: &AgentConfig, key: &Key, side: Side) -> String {
    format!("{}/{}.{}", config.directories.spool, key.file_stem(), suffix(side))
}

/// Blocks.
pub(super) fn write(
    disk: &dyn Disk,
    config: &AgentConfig,
    (key, side): &StreamKey,
    floor: u64,
) -> io::Result<()> {
    disk::replace(disk, &path(config, key, *side), &floor.to_le_bytes())
}

/// Blocks. Where it is not as it was written all is given up that is there: what of it
/// went nobody knows.
pub(crate) fn read(disk: &dyn Disk, config: &AgentConfig, (key, side): &StreamKey) -> io::Result<u64> {
    match read_all(disk, &path(config, key, *side), 8)?.try_into() {
        Ok(floor) => Ok(u64::from_le_bytes(floor)),
        Err(_) => disk.entry(&spool_path(config, key, *side)).map(|entry| entry.len),
    }
}
