//! A TCP stream that gives up on a peer who says nothing at all, or who takes
//! nothing of what is sent to it.

use crate::time::{Duration, Instant};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll},
};
use tokio::{net::TcpStream, sync::OwnedSemaphorePermit, time::Sleep};

#[derive(Debug)]
pub(super) struct Guarded {
    io: TokioIo<TcpStream>,
    /// Until the first byte.
    first: Option<Pin<Box<Sleep>>>,
    /// Runs while a write waits for the peer.
    stalled: Pin<Box<Sleep>>,
    is_stalled: bool,
    stall: Duration,
    /// Among the connections; given back with the socket.
    _place: OwnedSemaphorePermit,
}

impl Guarded {
    pub(super) fn new(
        stream: TcpStream,
        first: Duration,
        stall: Duration,
        place: OwnedSemaphorePermit,
    ) -> Self {
        // Small answers must not wait for more; a socket that refuses is gone anyway.
        let _refused = stream.set_nodelay(true);
        Self {
            io: TokioIo::new(stream),
            first: Some(Box::pin(tokio::time::sleep(first))),
            stalled: Box::pin(tokio::time::sleep(stall)),
            is_stalled: false,
            stall,
            _place: place,
        }
    }

    fn watched<T>(&mut self, context: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.is_stalled = false;
            return written;
        }
        if !self.is_stalled {
            self.is_stalled = true;
            self.stalled.as_mut().reset(Instant::now() + self.stall);
        }
        match self.stalled.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(late("the peer takes nothing"))),
            Poll::Pending => Poll::Pending,
        }
    }
}

fn late(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, what)
}

impl Read for Guarded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.io).poll_read(context, buffer);
        if read.is_ready() {
            self.first = None;
        } else if let Some(first) = &mut self.first
            && first.as_mut().poll(context).is_ready()
        {
            return Poll::Ready(Err(late("the peer says nothing")));
        }
        read
    }
}

impl Write for Guarded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(context, data);
        self.watched(context, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(context, slices);
        self.watched(context, written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::{ms, timeout};
    use hyper::rt::ReadBuf;
    use std::{future::poll_fn, sync::Arc};
    use tokio::{net::TcpListener, sync::Semaphore};

    async fn pair(first: Duration, stall: Duration) -> (Guarded, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        let place = Arc::new(Semaphore::new(1)).acquire_owned().await.unwrap();
        (Guarded::new(server, first, stall, place), client)
    }

    async fn read(guarded: &mut Guarded) -> io::Result<usize> {
        let mut data = [0; 16];
        let mut buffer = ReadBuf::new(&mut data);
        poll_fn(|context| Pin::new(&mut *guarded).poll_read(context, buffer.unfilled())).await?;
        Ok(buffer.filled().len())
    }

    #[tokio::test]
    async fn whoever_says_nothing_is_cut_off() {
        let (mut guarded, _client) = pair(ms(30), ms(10_000)).await;
        let error = timeout(ms(10_000), read(&mut guarded)).await.unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn after_the_first_byte_silence_is_free() {
        let (mut guarded, client) = pair(ms(30), ms(10_000)).await;
        client.writable().await.unwrap();
        client.try_write(b"x").unwrap();
        assert_eq!(timeout(ms(10_000), read(&mut guarded)).await.unwrap().unwrap(), 1);
        assert!(timeout(ms(100), read(&mut guarded)).await.is_err(), "it goes on waiting");
    }

    #[tokio::test]
    async fn whoever_takes_nothing_is_cut_off() {
        let (mut guarded, _client) = pair(ms(10_000), ms(30)).await;
        let data = vec![0; 1 << 20];
        let write_all = async {
            loop {
                if let Err(error) = poll_fn(|context| Pin::new(&mut guarded).poll_write(context, &data)).await
                {
                    return error;
                }
            }
        };
        let error = timeout(ms(10_000), write_all).await.unwrap();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
