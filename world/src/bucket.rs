//! A store of objects that is no disk of ours: S3 in production. It has no directories
//! and no syncs; what it has taken is durable, whole and there for all.

use crate::{Disk, time::Duration};
use async_trait::async_trait;
use bytes::Bytes;
use std::{fmt, io, ops::Range, sync::Arc};

/// What was read of a file is not what it is to hold: a disk may give other bytes than it
/// was given, and what is in a bucket once stays.
pub(crate) fn misread() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the disk gave other bytes than were verified")
}

/// Objects by key. Every call ends within a deadline of its own; after an error a change
/// may have been made or not.
#[async_trait]
pub trait Bucket: fmt::Debug + Send + Sync + 'static {
    /// Bytes of an object; `None` where it is surely not there.
    async fn size(&self, key: &str) -> io::Result<Option<u64>>;
    /// Gives the bytes of a file this key. Seen by nobody before it is whole, and never where
    /// what was read of the file has another digest than that.
    async fn put(&self, key: &str, disk: Arc<dyn Disk>, path: &str, digest: &str) -> io::Result<()>;
    /// These bytes of an object, which has them.
    async fn read(&self, key: &str, span: Range<u64>) -> io::Result<Bytes>;
    /// Takes an object away; no error where there is none.
    async fn remove(&self, key: &str) -> io::Result<()>;
    /// The keys that begin so: with whole parts, that is to the end or to a `/`.
    async fn list(&self, prefix: &str) -> io::Result<Vec<String>>;
    /// A URL by which whoever has it may read the object for so long, without any other
    /// credential.
    async fn signed(&self, key: &str, ttl: Duration) -> io::Result<String>;
}
