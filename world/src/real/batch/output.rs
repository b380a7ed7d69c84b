//! A script's output on its way: from its pipe to its file and to ours.

use super::{BatchError, failed};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use tokio::net::unix::pipe::Receiver;

/// Bytes read at once; what a pipe holds.
const CHUNK_BYTES: usize = 64 << 10;
/// Bytes still taken once the script has ended: more than a pipe may hold, so
/// all it wrote; less than would keep us if somebody else wrote on for ever.
const DRAIN_BYTES_MAX: usize = 2 << 20;

/// One pipe and its two ends.
pub(super) struct Copier {
    from: Receiver,
    /// The script may have closed it, and may yet run on.
    closed: bool,
    file: File,
    path: PathBuf,
    /// What first went wrong with the file.
    broken: Option<io::Error>,
    also: Box<dyn Write + Send>,
    buffer: Vec<u8>,
}

impl Copier {
    pub(super) fn new(
        from: io::PipeReader,
        file: File,
        path: PathBuf,
        also: Box<dyn Write + Send>,
    ) -> io::Result<Self> {
        let from = Receiver::from_owned_fd(OwnedFd::from(from))?;
        Ok(Self { from, closed: false, file, path, broken: None, also, buffer: vec![0; CHUNK_BYTES] })
    }

    /// Waits for bytes and passes on what is there; never returns once closed.
    pub(super) async fn copy(&mut self) {
        if self.closed || self.from.readable().await.is_err() {
            self.closed = true;
            return std::future::pending().await;
        }
        self.take();
    }

    /// Passes on what the pipe still holds, without waiting.
    pub(super) fn drain(&mut self) {
        let mut taken = 0;
        while taken < DRAIN_BYTES_MAX && !self.closed {
            match self.take() {
                0 => break,
                bytes => taken += bytes,
            }
        }
    }

    /// One read; how many bytes it brought.
    fn take(&mut self) -> usize {
        match self.from.try_read(&mut self.buffer) {
            Ok(0) => {
                self.closed = true;
                0
            }
            Ok(bytes) => {
                self.pass_on(bytes);
                bytes
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(_) => {
                self.closed = true;
                0
            }
        }
    }

    /// A full disk there must not end the script here, nor what is shown.
    fn pass_on(&mut self, bytes: usize) {
        let bytes = &self.buffer[..bytes];
        if self.broken.is_none() {
            self.broken = self.file.write_all(bytes).err();
        }
        // Nobody is left to be told where this fails.
        let _ = self.also.write_all(bytes);
        let _ = self.also.flush();
    }

    /// Whether all of it is in the file.
    pub(super) fn finish(self) -> Result<(), BatchError> {
        match self.broken {
            None => Ok(()),
            Some(error) => Err(failed(format!("{} lacks a part of the output", self.path.display()))(error)),
        }
    }
}
