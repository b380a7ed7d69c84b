//! Who is asked for files, and whether it may be asked now: a breaker for each source,
//! which all transfers of a node share.
//!
//! A source is the server's object door or the host of a URL, by host and port. Only those
//! are kept that failed since they last worked, and so many of them at most.

use super::breaker::{Breaker, Failed, Leave};
use crate::limits;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use world::sync::watch;
use world::time::{Instant, ms, sleep_until};
use world::transfer::TransferError;

/// See the module.
#[derive(Debug)]
pub(crate) struct Sources {
    begun: Instant,
    book: Mutex<BTreeMap<String, Known>>,
    /// Moves whenever what is known does.
    changed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Known {
    breaker: Breaker,
    failed_ms: u64,
}

/// A source that cannot be asked now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Broken {
    pub(crate) source: String,
    /// In a row.
    pub(crate) failures: u32,
    /// `None`: somebody is trying.
    pub(crate) next_try: Option<Instant>,
}

impl Broken {
    /// `the source h:80, which failed 5 times: next try in 12 s`.
    pub(crate) fn text(&self, now: Instant) -> String {
        let Self { source, failures, next_try } = self;
        let next = match next_try {
            Some(at) => {
                format!("next try in {} s", at.saturating_duration_since(now).as_millis().div_ceil(1_000))
            }
            None => "it is being tried".to_owned(),
        };
        format!("the source {source}, which failed {failures} times: {next}")
    }
}

/// One try's leave.
#[derive(Debug)]
pub(crate) struct Pass {
    sources: Arc<Sources>,
    source: String,
    trial: bool,
    judged: bool,
}

/// `host:port` of a URL.
pub(crate) fn source_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split(['/', '?', '#']).next().unwrap_or(rest)
}

/// Whether a try that ended so says that its source does not work.
pub(crate) fn is_of_the_source(error: &TransferError) -> bool {
    match error {
        TransferError::Network(_) | TransferError::Server { .. } | TransferError::Busy { .. } => true,
        TransferError::Refused { status, .. } => matches!(status, 408 | 429),
        TransferError::Digest { .. } | TransferError::Disk(_) => false,
    }
}

impl Sources {
    pub(crate) fn new() -> Arc<Self> {
        let changed = watch::channel(0).0;
        Arc::new(Self { begun: Instant::now(), book: Mutex::default(), changed })
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn book(&self) -> MutexGuard<'_, BTreeMap<String, Known>> {
        self.book.lock().expect("no holder of this lock panics")
    }

    fn change(&self) {
        self.changed.send_modify(|version| *version += 1);
    }

    /// Leave to ask a source; waits for it until the deadline, and tells meanwhile why.
    pub(crate) async fn pass(
        self: &Arc<Self>,
        source: &str,
        deadline: Instant,
        mut waits: impl FnMut(Broken),
    ) -> Result<Pass, Broken> {
        let mut changed = self.changed.subscribe();
        loop {
            changed.borrow_and_update();
            let broken = match self.ask(source) {
                Ok(pass) => return Ok(pass),
                Err(broken) => broken,
            };
            if Instant::now() >= deadline {
                return Err(broken);
            }
            world::mark!("agent.source.waited_for");
            let wake = broken.next_try.map_or(deadline, |at| at.min(deadline));
            waits(broken);
            world::select! {
                biased;
                // Its other end is held by us.
                _ = changed.changed() => {}
                () = sleep_until(wake) => {}
            }
        }
    }

    fn ask(self: &Arc<Self>, source: &str) -> Result<Pass, Broken> {
        let now_ms = self.now_ms();
        let mut book = self.book();
        let leave = book.get_mut(source).map_or(Leave::Go, |known| known.breaker.ask(now_ms));
        match leave {
            Leave::Go | Leave::Trial => {
                let trial = leave == Leave::Trial;
                if trial {
                    world::mark!("agent.source.on_trial");
                }
                Ok(Pass { sources: Arc::clone(self), source: source.to_owned(), trial, judged: false })
            }
            Leave::Wait { until_ms } => Err(Broken {
                source: source.to_owned(),
                failures: book.get(source).map_or(0, |known| known.breaker.in_a_row()),
                next_try: until_ms.map(|until_ms| self.begun + ms(until_ms)),
            }),
        }
    }

    /// Whether nobody may ask it as if nothing had been.
    pub(crate) fn is_open(&self, source: &str) -> bool {
        self.book().get(source).is_some_and(|known| !known.breaker.is_closed())
    }

    /// There is news that it works again.
    pub(crate) fn expected(&self, source: &str) {
        let now_ms = self.now_ms();
        if let Some(known) = self.book().get_mut(source) {
            known.breaker.expected(now_ms);
        }
        self.change();
    }

    fn worked(&self, source: &str) {
        let before = self.book().remove(source);
        if before.is_some_and(|known| !known.breaker.is_closed()) {
            world::mark!("agent.source.works_again");
            self.change();
        }
    }

    fn failed(&self, source: &str, failed: Failed) {
        let now_ms = self.now_ms();
        let mut book = self.book();
        if !book.contains_key(source) && book.len() >= limits::SOURCES_MAX {
            // That of which nothing was heard for longest is taken for one that works.
            let oldest = book.iter().min_by_key(|(_, known)| known.failed_ms);
            let oldest = oldest.map(|(name, _)| name.clone()).unwrap_or_default();
            book.remove(&oldest);
        }
        let known = book.entry(source.to_owned()).or_default();
        known.failed_ms = now_ms;
        let before = known.breaker;
        known.breaker.failed(now_ms, failed);
        if before.is_closed() && !known.breaker.is_closed() {
            world::mark!("agent.source.broken");
            tracing::warn!(source, failures = known.breaker.in_a_row(), "a source of files is left alone");
        }
        drop(book);
        self.change();
    }
}

impl Pass {
    /// Tells how the try went; `got_on`: it brought bytes, whatever came then.
    pub(crate) fn judge(mut self, error: Option<&TransferError>, got_on: bool) {
        self.judged = true;
        let Some(error) = error.filter(|error| is_of_the_source(error) && !got_on) else {
            return self.sources.worked(&self.source);
        };
        let (saturated, after_ms) = match error {
            TransferError::Busy { after_ms, .. } => (true, *after_ms),
            TransferError::Server { status: 503, .. } | TransferError::Refused { status: 429, .. } => {
                (true, None)
            }
            _ => (false, None),
        };
        let failed = Failed { trial: self.trial, saturated, after_ms, jitter: world::rand::u64() };
        self.sources.failed(&self.source, failed);
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if self.trial && !self.judged {
            let now_ms = self.sources.now_ms();
            if let Some(known) = self.sources.book().get_mut(&self.source) {
                known.breaker.given_up(now_ms);
            }
            self.sources.change();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_a_host_with_its_port() {
        assert_eq!(source_of("http://h:80/a?b=c:d/e"), "h:80");
        assert_eq!(source_of("http://h?x"), "h");
        assert_eq!(source_of("nonsense"), "nonsense");
    }

    fn broken() -> TransferError {
        TransferError::Network("refused".to_owned())
    }

    #[tokio::test]
    async fn a_broken_source_is_waited_for_and_one_asks_for_all() {
        let sources = Sources::new();
        let now = || sources.pass("h:1", Instant::now(), |_| ());
        for _ in 0..limits::BREAKER_FAILURES {
            now().await.unwrap().judge(Some(&broken()), false);
        }
        let told = now().await.unwrap_err();
        assert_eq!((told.source.as_str(), told.failures), ("h:1", limits::BREAKER_FAILURES));
        assert!(told.next_try.is_some() && sources.is_open("h:1") && !sources.is_open("h:2"));
        sources.pass("h:2", Instant::now(), |_| ()).await.unwrap().judge(None, false);

        sources.expected("h:1");
        let trial = now().await.unwrap();
        assert_eq!(now().await.unwrap_err().next_try, None, "one is on trial");
        drop(trial);
        let trial = now().await.unwrap();
        let mut told = Vec::new();
        let waiting = sources.pass("h:1", Instant::now() + ms(60_000), |why| told.push(why));
        let done = async { trial.judge(None, false) };
        let (passed, ()) = futures_util::future::join(waiting, done).await;
        passed.unwrap().judge(None, false);
        assert_eq!(told.len(), 1);
        assert!(sources.book().is_empty(), "what works is not kept");
    }

    #[tokio::test]
    async fn what_brought_bytes_or_was_refused_works() {
        let sources = Sources::new();
        let refused = TransferError::Refused { status: 404, reason: String::new() };
        for _ in 0..2 * limits::BREAKER_FAILURES {
            for (error, got_on) in [(&broken(), true), (&refused, false)] {
                let pass = sources.pass("h:1", Instant::now(), |_| ()).await.unwrap();
                pass.judge(Some(error), got_on);
            }
        }
        let busy = TransferError::Busy { status: 503, reason: String::new(), after_ms: Some(5_000) };
        sources.pass("h:1", Instant::now(), |_| ()).await.unwrap().judge(Some(&busy), false);
        let told = sources.pass("h:1", Instant::now(), |_| ()).await.unwrap_err();
        assert!(told.next_try.unwrap() > Instant::now() + ms(4_000), "{told:?}");
    }

    #[tokio::test]
    async fn there_are_so_many_at_most() {
        let sources = Sources::new();
        for number in 0..limits::SOURCES_MAX + 9 {
            let pass = sources.pass(&format!("h:{number}"), Instant::now(), |_| ()).await.unwrap();
            pass.judge(Some(&broken()), false);
        }
        assert_eq!(sources.book().len(), limits::SOURCES_MAX);
    }
}
