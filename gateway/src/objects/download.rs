//! One download: the file in blocks, the next one read while the last is sent.

use super::{disk_failed, refused};
use crate::limits;
use crate::meter::Passage;
use async_trait::async_trait;
use bytes::Bytes;
use std::io;
use std::sync::Arc;
use world::Disk;
use world::disk::{DiskFile, OpenMode};
use world::sync::OwnedSemaphorePermit;
use world::task::{JoinHandle, blocking, spawn};
use world::transfer::{ObjectSource, TransferError};

#[derive(Debug)]
pub(super) struct Download {
    file: Arc<dyn DiskFile>,
    len: u64,
    at: u64,
    ahead: Option<JoinHandle<io::Result<Bytes>>>,
    passage: Option<Passage>,
    _place: OwnedSemaphorePermit,
}

pub(super) async fn open(
    disk: &Arc<dyn Disk>,
    path: String,
    passage: Option<Passage>,
    place: OwnedSemaphorePermit,
) -> Result<Download, TransferError> {
    let disk = Arc::clone(disk);
    let opened = blocking(move || -> io::Result<(Arc<dyn DiskFile>, u64)> {
        let file = disk.open(&path, OpenMode::Read)?;
        let len = file.len()?;
        Ok((file, len))
    })
    .await;
    match opened {
        Ok((file, len)) => Ok(Download { file, len, at: 0, ahead: None, passage, _place: place }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(TransferError::Refused { status: 404, reason: "there is no such object".to_owned() })
        }
        Err(error) => Err(disk_failed(&error)),
    }
}

impl Download {
    /// Begins to read the block at `at`.
    fn begin(&self, at: u64) -> JoinHandle<io::Result<Bytes>> {
        let file = Arc::clone(&self.file);
        let due = usize::try_from(self.len - at)
            .map_or(limits::OBJECT_BLOCK_BYTES, |left| left.min(limits::OBJECT_BLOCK_BYTES));
        spawn(blocking(move || {
            let mut data = vec![0; due];
            let mut read = 0;
            while read < due {
                match file.read_at(at + read as u64, &mut data[read..])? {
                    0 => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the object is cut short")),
                    more => read += more,
                }
            }
            Ok(data.into())
        }))
    }
}

#[async_trait]
impl ObjectSource for Download {
    fn len(&self) -> u64 {
        self.len
    }

    async fn read(&mut self) -> Result<Option<Bytes>, TransferError> {
        if self.at >= self.len {
            return Ok(None);
        }
        let at = self.at;
        let mut reading = match self.ahead.take() {
            Some(reading) => reading,
            None => self.begin(at),
        };
        let result = (&mut reading).await;
        let data = match result {
            Ok(read) => read.map_err(|error| disk_failed(&error))?,
            Err(_) => {
                let reason = "the download was broken off".to_owned();
                return Err(TransferError::Server { status: 500, reason });
            }
        };
        if let Some(passage) = &mut self.passage {
            passage.pass(data.len() as u64).await.map_err(refused)?;
        }
        self.at = at + data.len() as u64;
        if self.at < self.len {
            self.ahead = Some(self.begin(self.at));
        }
        Ok(Some(data))
    }
}
