//! One upload: bytes into a temporary file while their digest is taken, then
//! verified, synced and named. Receiving goes on while a block is written.

use super::{Objects, disk_failed, refused};
use crate::limits;
use crate::meter::Passage;
use crate::urls::Leave;
use async_trait::async_trait;
use bytes::Bytes;
use sha2::{Digest, Sha256};
use std::sync::Arc;
use world::disk::{DiskFile, OpenMode};
use world::sync::OwnedSemaphorePermit;
use world::task::{JoinHandle, blocking, spawn};
use world::transfer::{ObjectSink, TransferError};

/// The file as far as it is written.
#[derive(Debug)]
struct Part {
    file: Arc<dyn DiskFile>,
    digest: Sha256,
    len: u64,
}

type Writing = JoinHandle<Result<Part, TransferError>>;

/// The temporary file; gone with this value unless it was renamed.
#[derive(Debug)]
struct Temporary {
    objects: Arc<Objects>,
    path: String,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Renamed it is not there any more; otherwise a start would remove it too.
        let _ = self.objects.disk.remove(&self.path);
    }
}

#[derive(Debug)]
pub(super) struct Upload {
    leave: Leave,
    passage: Option<Passage>,
    /// To be kept in, where a client uploads.
    room: Option<Passage>,
    received: u64,
    block: Vec<Bytes>,
    block_bytes: usize,
    writing: Option<Writing>,
    // Dropped after `writing`.
    temporary: Temporary,
    _place: OwnedSemaphorePermit,
}

pub(super) async fn begin(
    objects: Arc<Objects>,
    leave: Leave,
    (passage, room): (Option<Passage>, Option<Passage>),
    place: OwnedSemaphorePermit,
) -> Result<Upload, TransferError> {
    let path = format!("{}/{}", objects.incoming, crate::hex(&world::rand::bytes::<16>()));
    let (disk, made) = (Arc::clone(&objects.disk), path.clone());
    let temporary = Temporary { objects, path };
    let opened = blocking(move || disk.open(&made, OpenMode::CreateNew)).await;
    let file = opened.map_err(|error| disk_failed(&error))?;
    let part = Part { file, digest: Sha256::new(), len: 0 };
    let writing = Some(spawn(async move { Ok(part) }));
    Ok(Upload {
        leave,
        passage,
        room,
        received: 0,
        block: Vec::new(),
        block_bytes: 0,
        writing,
        temporary,
        _place: place,
    })
}

impl Upload {
    /// Waits for the block under way.
    async fn part(&mut self) -> Result<Part, TransferError> {
        let lost = || TransferError::Server { status: 500, reason: "the upload was broken off".to_owned() };
        let writing = self.writing.as_mut().ok_or_else(lost)?;
        let part = writing.await;
        self.writing = None;
        part.map_err(|_| lost())?
    }

    /// Hands the block to the disk.
    async fn flush(&mut self) -> Result<(), TransferError> {
        let mut part = self.part().await?;
        let block = std::mem::take(&mut self.block);
        self.block_bytes = 0;
        self.writing = Some(spawn(blocking(move || {
            for data in block {
                part.digest.update(&data);
                part.file.write_at(part.len, &data).map_err(|error| disk_failed(&error))?;
                part.len += data.len() as u64;
            }
            Ok(part)
        })));
        Ok(())
    }
}

#[async_trait]
impl ObjectSink for Upload {
    async fn write(&mut self, data: Bytes) -> Result<(), TransferError> {
        self.received += data.len() as u64;
        if self.received > self.leave.size_bytes {
            let reason = format!("more than the {} bytes that were announced", self.leave.size_bytes);
            return Err(TransferError::Refused { status: 413, reason });
        }
        if let Some(passage) = &mut self.passage {
            passage.pass(data.len() as u64).await.map_err(refused)?;
        }
        self.block_bytes += data.len();
        self.block.push(data);
        if self.block_bytes >= limits::OBJECT_BLOCK_BYTES {
            self.flush().await?;
        }
        Ok(())
    }

    async fn finish(mut self: Box<Self>) -> Result<(), TransferError> {
        self.flush().await?;
        let part = self.part().await?;
        if part.len != self.leave.size_bytes {
            let reason = format!("{} bytes arrived where {} were announced", part.len, self.leave.size_bytes);
            return Err(TransferError::Refused { status: 400, reason });
        }
        let found = crate::hex(&part.digest.finalize());
        if found != self.leave.digest {
            return Err(TransferError::Digest { expected: self.leave.digest.clone(), found });
        }
        let file = part.file;
        let Self { leave, temporary, room, .. } = *self;
        let published = blocking(move || {
            file.sync()?;
            drop(file);
            temporary.objects.publish(&temporary.path, &leave)
        });
        let is_new = published.await.map_err(|error| disk_failed(&error))?;
        if let (true, Some(room)) = (is_new, room) {
            room.keep();
        }
        Ok(())
    }
}
