//! One download: the file, or the object of a bucket, in blocks, the next one read while the last is sent. What
//! is given is counted as it is given, in pieces: so a connection that breaks pays for
//! little that never left.

use super::{Objects, bucket, disk_failed, path, refused};
use crate::limits;
use crate::meter::{Passage, Way};
use crate::urls::Leave;
use async_trait::async_trait;
use bytes::Bytes;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use world::Bucket;
use world::disk::{DiskFile, OpenMode};
use world::sync::OwnedSemaphorePermit;
use world::task::{JoinHandle, blocking, spawn};
use world::transfer::{ObjectSource, TransferError};

/// Where the bytes are.
#[derive(Clone, Debug)]
enum From {
    File(Arc<dyn DiskFile>),
    Bucket(Arc<dyn Bucket>, String),
}

#[derive(Debug)]
pub(super) struct Download {
    objects: Arc<Objects>,
    leave: Leave,
    from: From,
    len: u64,
    /// Wanted, and not read yet.
    span: Range<u64>,
    /// Read, and not given yet.
    block: Bytes,
    ahead: Option<JoinHandle<Result<Bytes, TransferError>>>,
    passage: Option<Passage>,
    _place: OwnedSemaphorePermit,
}

pub(super) async fn open(
    objects: Arc<Objects>,
    leave: Leave,
    place: OwnedSemaphorePermit,
) -> Result<Download, TransferError> {
    let (from, len) = match objects.bucket.clone() {
        None => open_file(&objects, &leave).await.map_err(|error| failed(&error))?,
        Some(bucket) => {
            let key = bucket::key(&leave.tenant, &leave.digest);
            let found = bucket.size(&key).await.map_err(|error| bucket::failed(&error))?;
            (From::Bucket(bucket, key), found.ok_or_else(no_such)?)
        }
    };
    let (span, block) = (0..0, Bytes::new());
    Ok(Download { objects, leave, from, len, span, block, ahead: None, passage: None, _place: place })
}

async fn open_file(objects: &Objects, leave: &Leave) -> io::Result<(From, u64)> {
    let (disk, path) = (Arc::clone(&objects.disk), path(&leave.tenant, &leave.digest));
    blocking(move || {
        let file = disk.open(&path, OpenMode::Read)?;
        let len = file.len()?;
        Ok((From::File(file), len))
    })
    .await
}

fn no_such() -> TransferError {
    TransferError::Refused { status: 404, reason: "there is no such object".to_owned() }
}

/// The file could not be opened.
fn failed(error: &io::Error) -> TransferError {
    if error.kind() == io::ErrorKind::NotFound { no_such() } else { disk_failed(error) }
}

pub(super) fn read_file(file: &dyn DiskFile, at: u64, due: usize) -> io::Result<Bytes> {
    let mut data = vec![0; due];
    let mut read = 0;
    while read < due {
        match file.read_at(at + read as u64, &mut data[read..])? {
            0 => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the object is cut short")),
            more => read += more,
        }
    }
    Ok(data.into())
}

impl Download {
    /// Begins to read the next block.
    fn read_on(&mut self) -> JoinHandle<Result<Bytes, TransferError>> {
        let (from, at) = (self.from.clone(), self.span.start);
        let due = usize::try_from(self.span.end - at)
            .map_or(limits::OBJECT_BLOCK_BYTES, |left| left.min(limits::OBJECT_BLOCK_BYTES));
        self.span.start += due as u64;
        spawn(async move {
            match from {
                From::File(file) => {
                    let read = blocking(move || read_file(&*file, at, due)).await;
                    read.map_err(|error| disk_failed(&error))
                }
                From::Bucket(bucket, key) => {
                    let read = bucket.read(&key, at..at + due as u64).await;
                    read.map_err(|error| bucket::failed(&error))
                }
            }
        })
    }

    /// The next block, and begins to read the one behind it.
    async fn next_block(&mut self) -> Result<Bytes, TransferError> {
        let mut reading = match self.ahead.take() {
            Some(reading) => reading,
            None => self.read_on(),
        };
        let block = match (&mut reading).await {
            Ok(read) => read?,
            Err(_) => {
                let reason = "the download was broken off".to_owned();
                return Err(TransferError::Server { status: 500, reason });
            }
        };
        if !self.span.is_empty() {
            self.ahead = Some(self.read_on());
        }
        Ok(block)
    }
}

#[async_trait]
impl ObjectSource for Download {
    fn len(&self) -> u64 {
        self.len
    }

    fn digest(&self) -> &str {
        &self.leave.digest
    }

    async fn begin(&mut self, span: Range<u64>) -> Result<(), TransferError> {
        assert!(span.start <= span.end && span.end <= self.len, "{span:?} of {} bytes", self.len);
        self.passage = self.objects.passage(&self.leave, Way::Out, span.end - span.start).await?;
        (self.span, self.block, self.ahead) = (span, Bytes::new(), None);
        Ok(())
    }

    async fn read(&mut self) -> Result<Option<Bytes>, TransferError> {
        if self.block.is_empty() {
            if self.span.is_empty() && self.ahead.is_none() {
                return Ok(None);
            }
            self.block = self.next_block().await?;
        }
        let piece = self.block.split_to(self.block.len().min(limits::OBJECT_PIECE_BYTES));
        if let Some(passage) = &mut self.passage {
            passage.pass(piece.len() as u64).await.map_err(refused)?;
        }
        Ok(Some(piece))
    }
}
