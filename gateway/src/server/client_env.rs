//! `client.env`: how people on this machine reach the server. Two lines for a
//! shell; only its owner may read them.

use crate::limits;
use std::io;
use std::sync::Arc;
use world::Disk;
use world::disk::OpenMode;
use world::task::blocking;

const FILE: &str = "client.env";

/// The token in the file, if there is one.
pub(super) async fn token(disk: &Arc<dyn Disk>) -> io::Result<Option<String>> {
    let disk = Arc::clone(disk);
    let text = match blocking(move || world::disk::read_all(&*disk, FILE, limits::CLIENT_ENV_BYTES_MAX)).await
    {
        Ok(data) => String::from_utf8_lossy(&data).into_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let token = text.lines().find_map(|line| line.trim().strip_prefix("export DRUMLINE_TOKEN="));
    Ok(token.map(str::trim).filter(|token| !token.is_empty()).map(str::to_owned))
}

/// Replaces the file, which is never readable by others, not for a moment. Of servers
/// that share it each reign writes by another name first.
pub(super) async fn write(
    disk: &Arc<dyn Disk>,
    address: &str,
    token: &str,
    reign: Option<u64>,
) -> io::Result<()> {
    let fresh = reign.map_or("client.env.new".to_owned(), |reign| format!("client.env.{reign:x}.new"));
    let text = format!("export DRUMLINE_SERVER={address}\nexport DRUMLINE_TOKEN={token}\n");
    let disk = Arc::clone(disk);
    blocking(move || {
        let file = disk.open(&fresh, OpenMode::CreateOrWrite)?;
        disk.set_mode(&fresh, 0o600)?;
        file.set_len(0)?;
        file.write_at(0, text.as_bytes())?;
        file.sync()?;
        drop(file);
        disk.rename(&fresh, FILE)?;
        disk.sync_dir("")
    })
    .await
}
