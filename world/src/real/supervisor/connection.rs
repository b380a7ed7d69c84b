//! One connection to a client: frames in, frames out, never waiting.

use super::limits::READ_BYTES;
use super::wire;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

/// See the module.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    input: Vec<u8>,
    /// `input` before this has been taken.
    taken: usize,
    output: Vec<u8>,
    /// `output` before this has been sent.
    sent: usize,
}

/// How a read ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fill {
    /// There may be more.
    More,
    /// All that was there.
    Dry,
    /// The client is gone.
    Closed,
}

impl Connection {
    pub fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self { stream, input: Vec::new(), taken: 0, output: Vec::new(), sent: 0 })
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// Reads once.
    pub fn fill(&mut self) -> Fill {
        self.input.drain(..self.taken);
        self.taken = 0;
        let len = self.input.len();
        self.input.resize(len + READ_BYTES, 0);
        let result = self.stream.read(&mut self.input[len..]);
        self.input.truncate(len + result.as_ref().map_or(0, |read| *read));
        match result {
            Ok(0) => Fill::Closed,
            Ok(read) if read < READ_BYTES => Fill::Dry,
            Ok(_) => Fill::More,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Fill::Dry,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Fill::More,
            Err(_) => Fill::Closed,
        }
    }

    /// The next whole frame of what was read.
    pub fn next_frame(&mut self) -> Result<Option<wire::FromClient>, String> {
        let Some((frame, len)) = wire::take_frame(&self.input[self.taken..])? else { return Ok(None) };
        self.taken += len;
        if self.taken == self.input.len() {
            self.input.clear();
            self.taken = 0;
            // A long frame's room is given back.
            self.input.shrink_to(READ_BYTES * 2);
        }
        Ok(Some(frame))
    }

    /// Queues a frame.
    pub fn tell(&mut self, told: wire::Told) {
        wire::put_frame(&mut self.output, &wire::FromSupervisor { told: Some(told) });
    }

    /// Bytes not sent yet.
    pub fn unsent(&self) -> usize {
        self.output.len() - self.sent
    }

    /// Sends what goes without waiting. False: the client is gone.
    pub fn flush(&mut self) -> bool {
        while self.unsent() > 0 {
            match self.stream.write(&self.output[self.sent..]) {
                Ok(0) => return false,
                Ok(sent) => self.sent += sent,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        if self.sent == self.output.len() {
            self.output.clear();
            self.output.shrink_to(READ_BYTES * 2);
            self.sent = 0;
        }
        true
    }
}
