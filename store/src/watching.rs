//! Who watches what: a bounded queue for each watcher, filled by the writer
//! after the sync.
//!
//! What must hold: a watcher hears every change after the revision it started
//! at, once and in order, or `Lagged` and then nothing. The writer never waits
//! for one: the last place of each queue is kept for `Lagged`.

use crate::limits::{WATCH_QUEUE, WATCHES_MAX};
use crate::{Key, Notice, ReadError, Revision, Watch};
use bytes::Bytes;
use world::sync::mpsc;

/// One durable commit's changes.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub revision: Revision,
    pub rows: Vec<(Key, Option<Bytes>)>,
}

#[derive(Debug)]
struct Watcher {
    prefix: Key,
    queue: mpsc::Sender<Notice>,
}

/// All watchers and the last revision they were told, under one lock of the
/// owner's, so that a watch starts between two groups and never inside one.
#[derive(Debug)]
pub(crate) struct Watchers {
    told: Revision,
    list: Vec<Watcher>,
    /// Why no watch can start any more.
    ended: Option<String>,
}

impl Watchers {
    pub fn new(revision: Revision) -> Self {
        Self { told: revision, list: Vec::new(), ended: None }
    }

    pub fn start(&mut self, prefix: Key) -> Result<Watch, ReadError> {
        if let Some(why) = &self.ended {
            return Err(ReadError::Unavailable(why.clone()));
        }
        self.list.retain(|watcher| !watcher.queue.is_closed());
        if self.list.len() >= WATCHES_MAX {
            return Err(ReadError::Refused(format!(
                "{WATCHES_MAX} watches run already, the most one store takes"
            )));
        }
        let (queue, notices) = mpsc::channel(WATCH_QUEUE + 1);
        self.list.push(Watcher { prefix, queue });
        Ok(Watch { revision: self.told, notices })
    }

    /// The last revision told.
    pub fn told(&self) -> Revision {
        self.told
    }

    /// Cuts everyone off where changes became durable that cannot be told.
    pub fn skip_to(&mut self, revision: Revision) {
        if revision != self.told {
            self.told = revision;
            self.cut_off();
        }
    }

    /// Tells durable changes, in order, and the revision they lead to.
    pub fn tell(&mut self, changes: &[Change], revision: Revision) {
        assert!(!world::CHECKED || revision >= self.told, "revisions only grow");
        self.told = revision;
        self.list.retain(|watcher| changes.iter().all(|change| watcher.tell(change)));
    }

    /// Nothing will be told any more: everyone has to read again elsewhere.
    pub fn end(&mut self, why: &str) {
        self.ended.get_or_insert_with(|| why.to_owned());
        self.cut_off();
    }

    fn cut_off(&mut self) {
        for watcher in self.list.drain(..) {
            // Its own place is free (see `Watcher::tell`); only a watcher that
            // is gone does not take it.
            let _ = watcher.queue.try_send(Notice::Lagged);
        }
    }
}

impl Watcher {
    /// False once the watcher is gone or cut off.
    fn tell(&self, change: &Change) -> bool {
        let changes: Vec<_> =
            change.rows.iter().filter(|(key, _)| key.starts_with(&self.prefix)).cloned().collect();
        if changes.is_empty() {
            return !self.queue.is_closed();
        }
        if self.queue.capacity() <= 1 {
            let _ = self.queue.try_send(Notice::Lagged);
            return false;
        }
        self.queue.try_send(Notice::Changed { revision: change.revision, changes }).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(revision: Revision, key: &'static str) -> Change {
        Change { revision, rows: vec![(Key::from_static(key.as_bytes()), None)] }
    }

    #[test]
    fn a_slow_watcher_hears_all_up_to_the_limit_then_lagged_then_nothing() {
        let mut watchers = Watchers::new(7);
        let mut slow = watchers.start(Key::from_static(b"a/")).unwrap();
        let mut other = watchers.start(Key::from_static(b"b/")).unwrap();
        assert_eq!(slow.revision, 7);
        for revision in 8..8 + WATCH_QUEUE as u64 + 5 {
            watchers.tell(&[change(revision, "a/x")], revision);
        }
        for revision in 8..8 + WATCH_QUEUE as u64 {
            assert!(
                matches!(slow.notices.try_recv(), Ok(Notice::Changed { revision: told, .. }) if told == revision)
            );
        }
        assert_eq!(slow.notices.try_recv(), Ok(Notice::Lagged));
        assert_eq!(slow.notices.try_recv(), Err(mpsc::error::TryRecvError::Disconnected));
        assert_eq!(other.notices.try_recv(), Err(mpsc::error::TryRecvError::Empty));
    }

    #[test]
    fn the_end_of_the_store_is_told_once() {
        let mut watchers = Watchers::new(0);
        let mut watch = watchers.start(Key::new()).unwrap();
        watchers.end("closed");
        assert_eq!(watch.notices.try_recv(), Ok(Notice::Lagged));
        assert!(watch.notices.try_recv().is_err());
        assert!(watchers.start(Key::new()).is_err());
    }
}
