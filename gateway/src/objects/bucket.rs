//! Whole objects in a bucket.

use super::{Objects, disk_failed, is_object, path};
use crate::limits;
use crate::urls::Leave;
use proto::checkpoints;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use world::Bucket;
use world::transfer::TransferError;

const OBJECTS: &str = "objects";
const CHECKPOINTS: &str = "checkpoints";

/// Where an object is: `objects/<tenant>/<digest>`, and those of checkpoints apart.
pub(super) fn key(space: &str, digest: &str) -> String {
    match checkpoints::tenant_of(space) {
        Some(tenant) => format!("{CHECKPOINTS}/{tenant}/{digest}"),
        None => format!("{OBJECTS}/{space}/{digest}"),
    }
}

/// Bytes of an object. What was seen there once is not asked for again: jobs ask of the
/// same objects many times, and each answer of a bucket takes its time.
pub(super) async fn size(objects: &Objects, bucket: &dyn Bucket, key: &str) -> io::Result<Option<u64>> {
    let known = objects.names().in_bucket.get(key).copied();
    if known.is_some() {
        return Ok(known);
    }
    let found = bucket.size(key).await?;
    if let Some(bytes) = found {
        remember(objects, key, bytes);
    }
    Ok(found)
}

fn remember(objects: &Objects, key: &str, bytes: u64) {
    let mut names = objects.names();
    if names.in_bucket.len() >= limits::OBJECTS_REMEMBERED {
        names.in_bucket.clear();
    }
    names.in_bucket.insert(key.to_owned(), bytes);
}

/// Takes objects away; what cannot be is in nobody's way.
pub(super) async fn release(objects: &Objects, bucket: &dyn Bucket, space: &str, digests: &[String]) {
    for digest in digests.iter().filter(|digest| is_object(space, digest)) {
        let key = key(space, digest);
        objects.names().in_bucket.remove(&key);
        if let Err(error) = bucket.remove(&key).await {
            tracing::warn!(space, digest, %error, "an object could not be removed");
        }
    }
}

/// Objects of checkpoints that are not among these; of a bucket that cannot be listed
/// none is known.
pub(super) async fn unnamed(
    bucket: &dyn Bucket,
    named: &BTreeSet<(String, String)>,
) -> Vec<(String, Vec<String>)> {
    let keys = bucket.list(CHECKPOINTS).await.unwrap_or_else(|error| {
        tracing::warn!(%error, "checkpoints that nobody needs stay: the object store cannot be listed");
        Vec::new()
    });
    let mut found = BTreeMap::<String, Vec<String>>::new();
    for key in &keys {
        let Some((tenant, digest)) = key.strip_prefix(CHECKPOINTS).and_then(split) else { continue };
        let object = (checkpoints::space(tenant), digest.to_owned());
        if !named.contains(&object) {
            found.entry(object.0).or_default().push(object.1);
        }
    }
    found.into_iter().collect()
}

/// The object spaces that it has objects of.
pub(super) async fn spaces(bucket: &dyn Bucket) -> io::Result<Vec<String>> {
    let mut spaces = BTreeSet::new();
    for (family, of_checkpoints) in [(OBJECTS, false), (CHECKPOINTS, true)] {
        for key in bucket.list(family).await? {
            let Some((tenant, _)) = key.strip_prefix(family).and_then(split) else { continue };
            spaces.insert(if of_checkpoints { checkpoints::space(tenant) } else { tenant.to_owned() });
        }
    }
    Ok(spaces.into_iter().collect())
}

/// The digests of a space.
pub(super) async fn held(bucket: &dyn Bucket, space: &str) -> io::Result<Vec<String>> {
    let prefix = key(space, "");
    let keys = bucket.list(prefix.trim_end_matches('/')).await?;
    Ok(keys.iter().filter_map(|key| key.strip_prefix(&prefix)).map(str::to_owned).collect())
}

fn split(rest: &str) -> Option<(&str, &str)> {
    rest.strip_prefix('/')?.split_once('/')
}

/// Puts a verified file of the disk there. True for one upload of those bytes: the one
/// before which they were surely not there.
pub(super) async fn publish(
    objects: &Arc<Objects>,
    bucket: &dyn Bucket,
    file: &str,
    leave: &Leave,
) -> Result<bool, TransferError> {
    let key = key(&leave.tenant, &leave.digest);
    let path = path(&leave.tenant, &leave.digest);
    {
        let mut names = objects.names();
        names.pardon(&path).map_err(|error| disk_failed(&error))?;
        // Of several at once one takes it out again, and is the one that was new.
        names.doubtful.insert(path.clone());
    }
    let found = bucket.size(&key).await.map_err(|error| failed(&error))?;
    let was_there = found == Some(leave.size_bytes);
    if !was_there {
        bucket.put(&key, Arc::clone(&objects.disk), file).await.map_err(|error| failed(&error))?;
    }
    remember(objects, &key, leave.size_bytes);
    Ok(objects.names().doubtful.remove(&path) && !was_there)
}

/// The bucket failed.
pub(super) fn failed(error: &io::Error) -> TransferError {
    match error.kind() {
        io::ErrorKind::NotFound => {
            TransferError::Refused { status: 404, reason: "there is no such object".to_owned() }
        }
        io::ErrorKind::StorageFull => disk_failed(error),
        _ => TransferError::Server { status: 503, reason: format!("the object store failed: {error}") },
    }
}
