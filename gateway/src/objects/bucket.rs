//! Whole objects in a bucket.
//!
//! What must hold: of several uploads of bytes that were not there one is told that it was
//! the first, and that one is booked, also where the answer to a put is lost and another
//! upload finds the object. Until then nobody is told that it is there.

use super::{Names, Objects, disk_failed, is_object, path};
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

/// Uploads of one object that are under way, or of which the last failed.
#[derive(Debug, Default)]
pub(super) struct Doubt {
    under_way: u32,
    /// It was surely not there before these, and none of them has been told that it is.
    new: bool,
    /// One of these has been told so.
    named: bool,
}

impl Doubt {
    /// One of them asked whether it is there. An answer from before another put it there
    /// says nothing.
    fn was_not_there(&mut self) {
        self.new |= !self.named;
    }

    /// One of them put it there, or found it. True for the first where it was not there
    /// before.
    fn is_there(&mut self) -> bool {
        self.named = true;
        std::mem::take(&mut self.new)
    }
}

/// Bytes of an object. What was seen there once is not asked for again: jobs ask of the
/// same objects many times, and each answer of a bucket takes its time.
pub(super) async fn size(
    objects: &Objects,
    bucket: &dyn Bucket,
    (space, digest): (&str, &str),
) -> io::Result<Option<u64>> {
    let (key, path) = (key(space, digest), path(space, digest));
    let known = objects.names().in_bucket.get(&key).copied();
    if known.is_some() {
        return Ok(known);
    }
    let found = bucket.size(&key).await?;
    let mut names = objects.names();
    match found {
        Some(_) if names.doubts.get(&path).is_some_and(|doubt| doubt.new) => {
            Err(io::Error::other("its upload is not at its end"))
        }
        Some(bytes) => {
            // What is being taken away was seen before it went.
            if !names.condemned.contains(&path) {
                remember(&mut names, &key, bytes);
            }
            Ok(Some(bytes))
        }
        None => Ok(None),
    }
}

fn remember(names: &mut Names, key: &str, bytes: u64) {
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
        match bucket.remove(&key).await {
            Ok(()) => world::mark!("gateway.bucket.released"),
            Err(error) => tracing::warn!(space, digest, %error, "an object could not be removed"),
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
    let (key, path) = (key(&leave.tenant, &leave.digest), path(&leave.tenant, &leave.digest));
    {
        let mut names = objects.names();
        names.pardon(&path).map_err(|error| disk_failed(&error))?;
        names.doubts.entry(path.clone()).or_default().under_way += 1;
    }
    let put = put(objects, bucket, (&key, &path), file, leave).await;
    let mut names = objects.names();
    let Some(doubt) = names.doubts.get_mut(&path) else { unreachable!("it is under way") };
    doubt.under_way -= 1;
    let is_new = put.is_ok() && doubt.is_there();
    // Where the last one failed it may be there or not.
    if doubt.under_way == 0 && !doubt.new {
        names.doubts.remove(&path);
    }
    if let Err(error) = put {
        world::mark!("gateway.bucket.failed");
        return Err(failed(&error));
    }
    remember(&mut names, &key, leave.size_bytes);
    Ok(is_new)
}

async fn put(
    objects: &Arc<Objects>,
    bucket: &dyn Bucket,
    (key, path): (&str, &str),
    file: &str,
    leave: &Leave,
) -> io::Result<()> {
    if bucket.size(key).await? == Some(leave.size_bytes) {
        if objects.names().doubts.get(path).is_some_and(|doubt| doubt.new) {
            world::mark!("gateway.bucket.doubt_resolved");
        }
        return Ok(());
    }
    if let Some(doubt) = objects.names().doubts.get_mut(path) {
        doubt.was_not_there();
    }
    bucket.put(key, Arc::clone(&objects.disk), file, &leave.digest).await
}

/// The bucket failed.
pub(super) fn failed(error: &io::Error) -> TransferError {
    match error.kind() {
        io::ErrorKind::NotFound => {
            TransferError::Refused { status: 404, reason: "there is no such object".to_owned() }
        }
        // What was to be put could not be read as it was.
        io::ErrorKind::StorageFull | io::ErrorKind::InvalidData => disk_failed(error),
        _ => TransferError::Server { status: 503, reason: format!("the object store failed: {error}") },
    }
}
