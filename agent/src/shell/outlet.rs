//! The loop's way to a worker: what one turn wants goes as one batch, and the
//! loop never waits. A batch that finds the worker's queue full stays here and
//! goes with the next; what stays is bounded by the attempts the core holds.

use world::sync::mpsc;
use world::sync::mpsc::error::TrySendError;

#[derive(Debug)]
pub(super) struct Outlet<T> {
    sender: mpsc::Sender<Vec<T>>,
    waiting: Vec<T>,
}

impl<T> Outlet<T> {
    pub(super) fn new(sender: mpsc::Sender<Vec<T>>) -> Self {
        Self { sender, waiting: Vec::new() }
    }

    pub(super) fn push(&mut self, item: T) {
        self.waiting.push(item);
    }

    /// Hands over what waits; false where some of it has to wait on.
    pub(super) fn flush(&mut self) -> bool {
        if self.waiting.is_empty() {
            return true;
        }
        match self.sender.try_send(std::mem::take(&mut self.waiting)) {
            Ok(()) => true,
            Err(TrySendError::Full(back)) => {
                self.waiting = back;
                false
            }
            // A worker ends only with the agent.
            Err(TrySendError::Closed(_)) => true,
        }
    }
}
