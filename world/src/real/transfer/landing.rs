//! Where a download lands: a file beside its target that takes the target's name once
//! it is whole, verified and synced.
//!
//! What must hold: nothing half is ever seen under the target's name. What breaks off
//! is removed, or stays to be gone on with where the caller said so; what is not what
//! it should be never stays.

use super::disk_error;
use crate::{
    disk::{Disk, DiskFile, OpenMode},
    grpc::told,
    task,
    transfer::{TransferError, check_digest, hex_digest},
};
use bytes::Bytes;
use hyper::{Response, StatusCode, header};
use sha2::{Digest, Sha256};
use std::{io, sync::Arc};
use tokio::sync::mpsc;

/// A download that goes on where it broke off.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Signed by the server.
    pub url: &'a str,
    /// Where it appears, whole.
    pub path: &'a str,
    /// Where it is until then, in the same directory.
    pub part: &'a str,
    /// Lower-case hexadecimal SHA-256.
    pub digest: &'a str,
    /// In all.
    pub size_bytes: u64,
}

/// Read at once of what is there.
const READ_BYTES: usize = 256 << 10;

/// What goes to the writer of a download.
pub(super) enum Piece {
    /// As the frames came, about as much as is written at once.
    Data(Vec<Bytes>),
    /// The stream ended where it should.
    End,
}

/// See the module.
pub(super) struct Landing {
    disk: Arc<dyn Disk>,
    file: Arc<dyn DiskFile>,
    part: String,
    path: String,
    pub(super) digest: String,
    /// Known where a break may be gone on from.
    size_bytes: Option<u64>,
    hash: Sha256,
    /// Bytes written and hashed.
    pub(super) at: u64,
}

impl Landing {
    /// Begins anew; what breaks off is removed.
    pub(super) async fn fresh(disk: Arc<dyn Disk>, path: &str, digest: &str) -> Result<Self, TransferError> {
        let (path, part, digest) = (path.to_owned(), format!("{path}.part"), digest.to_owned());
        task::blocking(move || {
            let file = disk.open(&part, OpenMode::CreateOrWrite)?;
            file.set_len(0)?;
            Ok(Self { disk, file, part, path, digest, size_bytes: None, hash: Sha256::new(), at: 0 })
        })
        .await
        .map_err(disk_error)
    }

    /// Goes on after what is there; what breaks off stays.
    pub(super) async fn kept(disk: Arc<dyn Disk>, wanted: &Wanted<'_>) -> Result<Self, TransferError> {
        let [part, path, digest] = [wanted.part, wanted.path, wanted.digest].map(str::to_owned);
        let size_bytes = wanted.size_bytes;
        let opened = task::blocking(move || {
            let file = disk.open(&part, OpenMode::CreateOrWrite)?;
            if !file.try_lock()? {
                return Err(io::Error::new(
                    io::ErrorKind::ResourceBusy,
                    "another command is fetching this file",
                ));
            }
            let hash = Sha256::new();
            let mut landing =
                Self { disk, file, part, path, digest, size_bytes: Some(size_bytes), hash, at: 0 };
            landing.take_up()?;
            Ok(landing)
        });
        opened.await.map_err(disk_error)
    }

    /// Hashes what is there. More than there should be is of something else.
    fn take_up(&mut self) -> io::Result<()> {
        let len = self.file.len()?;
        if self.size_bytes.is_some_and(|size_bytes| len > size_bytes) {
            return self.file.set_len(0);
        }
        let mut buffer = vec![0; READ_BYTES];
        while self.at < len {
            match self.file.read_at(self.at, &mut buffer)? {
                0 => break,
                read => {
                    self.hash.update(&buffer[..read]);
                    self.at += read as u64;
                }
            }
        }
        Ok(())
    }

    /// True where nothing is left to be fetched.
    pub(super) fn is_whole(&self) -> bool {
        self.size_bytes == Some(self.at) && self.at > 0
    }

    /// Begins anew where the answer does.
    pub(super) async fn heed<B>(&mut self, response: &Response<B>) -> Result<(), TransferError> {
        if response.status() == StatusCode::PARTIAL_CONTENT {
            let range = response.headers().get(header::CONTENT_RANGE).and_then(|value| value.to_str().ok());
            let from = range.and_then(told).and_then(|told| told.span).map(|(from, _)| from);
            return if from == Some(self.at) {
                Ok(())
            } else {
                let reason = format!("asked for the bytes from {} on, it answered others", self.at);
                Err(TransferError::Server { status: response.status().as_u16(), reason })
            };
        }
        if self.at > 0 {
            (self.hash, self.at) = (Sha256::new(), 0);
            let file = Arc::clone(&self.file);
            task::blocking(move || file.set_len(0)).await.map_err(disk_error)?;
        }
        Ok(())
    }

    /// Writes and hashes what arrives; without a [`Piece::End`] it broke off.
    pub(super) async fn fill(mut self, mut rx: mpsc::Receiver<Piece>) -> Result<u64, TransferError> {
        let mut result = Err(TransferError::Network("the connection broke".to_owned()));
        while let Some(piece) = rx.recv().await {
            let Piece::Data(frames) = piece else {
                result = Ok(());
                break;
            };
            let file = Arc::clone(&self.file);
            let (mut hash, mut at) = (std::mem::take(&mut self.hash), self.at);
            let written = task::blocking(move || {
                for data in frames {
                    file.write_at(at, &data)?;
                    hash.update(&data);
                    at += data.len() as u64;
                }
                Ok((hash, at))
            });
            match written.await {
                Ok(so_far) => (self.hash, self.at) = so_far,
                Err(error) => {
                    result = Err(disk_error(error));
                    break;
                }
            }
        }
        match result {
            Ok(()) => self.finish().await,
            Err(error) => {
                self.leave(&error).await;
                Err(error)
            }
        }
    }

    /// Verifies, syncs, names.
    pub(super) async fn finish(self) -> Result<u64, TransferError> {
        let (found, at) = (hex_digest(&self.hash.clone().finalize()), self.at);
        let named = match check_digest(&self.digest, found) {
            Ok(()) => {
                let (disk, file) = (Arc::clone(&self.disk), Arc::clone(&self.file));
                let (part, path) = (self.part.clone(), self.path.clone());
                let named = task::blocking(move || {
                    file.sync()?;
                    disk.rename(&part, &path)
                });
                named.await.map_err(disk_error)
            }
            wrong => wrong,
        };
        if let Err(error) = &named {
            self.leave(error).await;
        }
        named.map(|()| at)
    }

    /// Removes what is not to be gone on with.
    pub(super) async fn leave(self, error: &TransferError) {
        let broke_off = matches!(error, TransferError::Network(_) | TransferError::Server { .. })
            || matches!(error, TransferError::Refused { status, .. } if *status != 416);
        if self.size_bytes.is_some() && broke_off && self.at > 0 {
            return;
        }
        let Self { disk, part, file, .. } = self;
        // Whether or not this works, the next try looks at what is there.
        let _best_effort = task::blocking(move || {
            drop(file);
            disk.remove(&part)
        })
        .await;
    }
}
