//! The line of commits before the writer.
//!
//! A place in line is taken in the call itself, never later, so that commits
//! take effect in the order of the calls. The line is bounded: at
//! `COMMIT_QUEUE` [`Line::ready`] makes polite callers wait, at
//! `COMMIT_QUEUE_MAX` (or its bytes) a further one is turned away.

use crate::limits::{
    COMMIT_QUEUE, COMMIT_QUEUE_BYTES_MAX, COMMIT_QUEUE_MAX, GROUP_BYTES_MAX, GROUP_COMMITS_MAX,
};
use crate::{Commit, CommitError, LeaseId, Revision};
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use world::sync::{Notify, oneshot};

/// What the writer does in one place of the line.
#[derive(Debug)]
pub(crate) enum Operation {
    Commit(Commit),
    Grant { owner: String, ttl_ms: u64 },
    Revoke(LeaseId),
}

/// A commit's revision, or the number of a granted lease, or 0.
pub(crate) type Answer = Result<u64, CommitError>;

#[derive(Debug)]
pub(crate) struct Request {
    pub operation: Operation,
    pub bytes: usize,
    pub reply: oneshot::Sender<Answer>,
}

/// A commit in line; awaiting it gives its outcome. Dropping it does not take
/// the commit out of the line.
#[derive(Debug)]
#[must_use = "the commit's outcome is learned by awaiting its ticket"]
pub struct CommitTicket(Ticket);

#[derive(Debug)]
enum Ticket {
    Refused(Option<CommitError>),
    InLine(oneshot::Receiver<Answer>),
}

impl CommitTicket {
    pub(crate) fn refused(error: CommitError) -> Self {
        Self(Ticket::Refused(Some(error)))
    }
}

impl Future for CommitTicket {
    type Output = Result<Revision, CommitError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Ticket::Refused(error) => Poll::Ready(Err(error
                .take()
                .unwrap_or_else(|| CommitError::Refused("this ticket was already answered".to_owned())))),
            Ticket::InLine(answer) => Pin::new(answer).poll(context).map(|answer| {
                // The writer answers all it takes from the line; only its sudden
                // end drops a request.
                answer.unwrap_or_else(|_| {
                    Err(CommitError::Indeterminate("the store's writer stopped".to_owned()))
                })
            }),
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Line {
    inner: Mutex<Inner>,
    arrived: Notify,
    room: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    waiting: VecDeque<Request>,
    bytes: usize,
    closed: Option<String>,
}

impl Line {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place now.
    pub fn enter(&self, operation: Operation, bytes: usize) -> CommitTicket {
        let mut inner = self.lock();
        if let Some(why) = &inner.closed {
            return CommitTicket::refused(CommitError::Unavailable(why.clone()));
        }
        if inner.waiting.len() >= COMMIT_QUEUE_MAX || inner.bytes >= COMMIT_QUEUE_BYTES_MAX {
            return CommitTicket::refused(CommitError::Unavailable(format!(
                "{} commits of {} bytes wait for the disk already (at most {COMMIT_QUEUE_MAX} commits, \
                 {COMMIT_QUEUE_BYTES_MAX} bytes)",
                inner.waiting.len(),
                inner.bytes
            )));
        }
        let (reply, answer) = oneshot::channel();
        inner.waiting.push_back(Request { operation, bytes, reply });
        inner.bytes += bytes;
        drop(inner);
        self.arrived.notify_one();
        CommitTicket(Ticket::InLine(answer))
    }

    /// Returns once the line is shorter than `COMMIT_QUEUE`, or closed.
    pub async fn ready(&self) {
        loop {
            let room = self.room.notified();
            let mut room = std::pin::pin!(room);
            // Listens before it looks, so that no call is missed in between.
            room.as_mut().enable();
            let has_room = {
                let inner = self.lock();
                inner.waiting.len() < COMMIT_QUEUE || inner.closed.is_some()
            };
            if has_room {
                return;
            }
            room.await;
        }
    }

    /// Those who share the next sync. `None` once the line is closed and empty.
    pub fn take(&self) -> Option<Vec<Request>> {
        let mut inner = self.lock();
        if inner.waiting.is_empty() && inner.closed.is_some() {
            return None;
        }
        let mut group = Vec::with_capacity(inner.waiting.len().min(GROUP_COMMITS_MAX));
        let mut bytes = 0;
        while group.len() < GROUP_COMMITS_MAX && bytes < GROUP_BYTES_MAX {
            let Some(request) = inner.waiting.pop_front() else { break };
            bytes += request.bytes;
            group.push(request);
        }
        inner.bytes -= bytes;
        drop(inner);
        if !group.is_empty() {
            self.room.notify_waiters();
        }
        Some(group)
    }

    /// Waits for somebody to enter. The one writer waits here; a call made
    /// while it is busy is remembered.
    pub async fn arrival(&self) {
        self.arrived.notified().await;
    }

    /// Lets nobody in any more; those in line are still served.
    pub fn close(&self, why: &str) {
        self.lock().closed.get_or_insert_with(|| why.to_owned());
        self.arrived.notify_one();
        self.room.notify_waiters();
    }

    /// Lets nobody in and sends those in line away: nothing of theirs happened.
    pub fn dismiss(&self, why: &str) {
        self.close(why);
        let dismissed: Vec<Request> = {
            let mut inner = self.lock();
            inner.bytes = 0;
            inner.waiting.drain(..).collect()
        };
        for request in dismissed {
            // Whoever no longer waits needs no answer.
            let _ = request.reply.send(Err(CommitError::Unavailable(why.to_owned())));
        }
    }

    /// Why the line is closed, if it is.
    pub fn closed(&self) -> Option<String> {
        self.lock().closed.clone()
    }
}
