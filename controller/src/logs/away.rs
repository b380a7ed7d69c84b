//! Segments in the bucket, where objects are in one: `logs/<tenant>/<job>/<SHA-256>`.
//!
//! What must hold: a segment leaves the disk only after the bucket has it, whole. Its name
//! there says what it holds, so to put it once more changes nothing; and what nobody knows of
//! (the server died in between) goes with the others when the log goes, since they are found
//! by their names.

use super::file::JobLog;
use super::segment::{NotHere, Segment};
use super::{JobKey, LogFilter, LogPage};
use bytes::Bytes;
use std::io;
use std::sync::Arc;
use world::Bucket;
use world::disk::Disk;
use world::task::blocking;

/// Where those of a job are.
fn prefix((tenant, number): &JobKey) -> String {
    format!("logs/{tenant}/{number:016x}")
}

/// Moves a segment there. True where it was here.
pub(super) async fn move_one(
    bucket: &dyn Bucket,
    disk: &Arc<dyn Disk>,
    job: &JobKey,
    segment: Arc<Segment>,
    fresh: String,
) -> io::Result<bool> {
    let Some(path) = segment.here() else { return Ok(false) };
    let away = {
        let segment = Arc::clone(&segment);
        blocking(move || segment.verified()).await?
    };
    let key = format!("{}/{}", prefix(job), away.digest);
    if bucket.size(&key).await? != Some(away.bytes) {
        bucket.put(&key, Arc::clone(disk), &path, &away.digest).await?;
    }
    blocking(move || segment.leave(away, &fresh)).await?;
    world::mark!("controller.logs.moved");
    Ok(true)
}

/// Reads on from a cursor, and brings what is not here.
pub(super) async fn read(
    bucket: Option<&dyn Bucket>,
    job: &JobKey,
    log: Arc<JobLog>,
    filter: LogFilter,
    cursor: u64,
    limit_bytes: usize,
) -> io::Result<LogPage> {
    loop {
        let reader = Arc::clone(&log);
        let read = blocking(move || reader.read(&filter, cursor, limit_bytes)).await;
        let missing = match read {
            Err(error) => NotHere::told(&error).ok_or(error)?,
            page => return page,
        };
        let bucket = bucket.ok_or_else(|| {
            io::Error::other(
                "this log is in an object store that the server has no more: see `[objects] url`",
            )
        })?;
        bring(bucket, job, &log, missing).await?;
    }
}

async fn bring(bucket: &dyn Bucket, job: &JobKey, log: &JobLog, missing: NotHere) -> io::Result<()> {
    let segment = log.segments().into_iter().find(|segment| segment.begins() == missing.begins);
    let Some((segment, wanted)) =
        segment.and_then(|segment| Some((Arc::clone(&segment), segment.missing(missing)?)))
    else {
        return Ok(());
    };
    let key = format!("{}/{}", prefix(job), wanted.away.digest);
    let data: Bytes = bucket.read(&key, wanted.span.clone()).await?;
    world::mark!("controller.logs.brought");
    segment.bring(&wanted, data)
}

/// Takes away all that is there of a job's log.
pub(super) async fn remove(bucket: &dyn Bucket, job: &JobKey) -> io::Result<()> {
    for key in bucket.list(&prefix(job)).await? {
        bucket.remove(&key).await?;
    }
    Ok(())
}
