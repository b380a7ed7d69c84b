//! How fast a node may move files: one line for all of them, shared by its tenants.

mod shares;

pub use shares::RATE_BYTES_MIN;

use crate::time::{self, Duration, Instant};
use shares::{Shares, Ticket, Turn};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};
use tokio::sync::Notify;

/// A node's line. What it passes counts from when it was made.
#[derive(Debug)]
pub struct Line {
    begun: Instant,
    bytes_per_s: u64,
    slice_bytes: u64,
    book: Mutex<Book>,
}

#[derive(Debug)]
struct Book {
    shares: Shares,
    /// Who waits for a turn that another has first.
    waiting: BTreeMap<Ticket, Arc<Notify>>,
}

/// How fast one transfer goes: as its tenant's part of a line, or freely.
#[derive(Clone, Debug, Default)]
pub struct Pace(Option<(Arc<Line>, Arc<str>)>);

impl Line {
    /// So many bytes a second at most, and [`RATE_BYTES_MIN`] at least.
    #[must_use]
    pub fn new(bytes_per_s: u64) -> Arc<Self> {
        let bytes_per_s = bytes_per_s.max(RATE_BYTES_MIN);
        let shares = Shares::new(bytes_per_s);
        let slice_bytes = shares.slice_bytes();
        let book = Mutex::new(Book { shares, waiting: BTreeMap::new() });
        Arc::new(Self { begun: time::now(), bytes_per_s, slice_bytes, book })
    }

    /// The pace of a tenant's transfers.
    #[must_use]
    pub fn pace(self: &Arc<Self>, tenant: &str) -> Pace {
        Pace(Some((Arc::clone(self), tenant.into())))
    }

    /// Whether this tenant's bytes passed lately at more than 120 % of its share, where the
    /// line is for so many tenants.
    #[must_use]
    pub fn is_over(&self, tenant: &str, tenants: usize) -> bool {
        // Who gives a place back as all ends gives it to nobody in particular.
        if time::is_over() {
            return false;
        }
        let lately = u128::from(self.book().shares.lately(tenant, self.now_us()));
        lately * 10 * tenants as u128 > u128::from(self.bytes_per_s) * 12
    }

    fn now_us(&self) -> u64 {
        u64::try_from((time::now() - self.begun).as_micros()).unwrap_or(u64::MAX)
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().expect("nothing panics while it is held")
    }

    async fn pass(&self, tenant: &str, bytes: u64) {
        let woken = Arc::new(Notify::new());
        let ticket = self.book().ask(tenant, bytes, &woken);
        let asked = Asked { line: self, tenant, ticket };
        loop {
            let turn = self.book().shares.turn(self.now_us(), ticket);
            match turn {
                Turn::Now => return drop(asked),
                Turn::At(at_us) => {
                    crate::mark!("world.pace.waits");
                    time::sleep_until(self.begun + Duration::from_micros(at_us)).await;
                }
                Turn::Later => woken.notified().await,
            }
        }
    }
}

impl Book {
    fn ask(&mut self, tenant: &str, bytes: u64, woken: &Arc<Notify>) -> Ticket {
        let ticket = self.shares.ask(tenant, bytes);
        self.waiting.insert(ticket, Arc::clone(woken));
        ticket
    }
}

/// Takes a slice off the line however the wait for it ends, and wakes who is next.
struct Asked<'a> {
    line: &'a Line,
    tenant: &'a str,
    ticket: Ticket,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        let mut book = self.line.book();
        book.waiting.remove(&self.ticket);
        book.shares.leave(self.tenant, self.ticket);
        if let Some(next) = book.shares.next()
            && let Some(next) = book.waiting.get(&next)
        {
            next.notify_one();
        }
    }
}

impl Pace {
    /// Returns once so many bytes may pass.
    pub async fn take(&self, mut bytes: u64) {
        let Some((line, tenant)) = &self.0 else { return };
        while bytes > 0 {
            let slice = bytes.min(line.slice_bytes);
            line.pass(tenant, slice).await;
            bytes -= slice;
        }
    }

    /// For reading what comes in lengths that nobody knows before.
    #[cfg(not(madsim))]
    pub(crate) fn purse(&self) -> Purse<'_> {
        Purse { pace: self, bytes: 0 }
    }

    /// What passes at once; `None` where all does.
    #[must_use]
    pub fn slice_bytes(&self) -> Option<u64> {
        self.0.as_ref().map(|(line, _)| line.slice_bytes)
    }

    /// How long so many bytes take at most, where so many transfers go on at once.
    #[must_use]
    pub fn longest(&self, bytes: u64, at_once: u64) -> Duration {
        let Some((line, _)) = &self.0 else { return Duration::ZERO };
        Duration::from_secs(bytes.saturating_mul(at_once) / line.bytes_per_s)
    }
}

/// What one connection may still read without asking.
#[cfg(not(madsim))]
#[derive(Debug)]
pub(crate) struct Purse<'a> {
    pace: &'a Pace,
    bytes: u64,
}

#[cfg(not(madsim))]
impl Purse<'_> {
    /// Returns once something may be read.
    pub(crate) async fn fill(&mut self) {
        if self.bytes == 0
            && let Some(slice) = self.pace.slice_bytes()
        {
            self.pace.take(slice).await;
            self.bytes = slice;
        }
    }

    /// So much was read. What was not paid for before is paid for now.
    pub(crate) async fn spend(&mut self, bytes: u64) {
        let owed = bytes.saturating_sub(self.bytes);
        self.bytes = self.bytes.saturating_sub(bytes);
        self.pace.take(owed).await;
    }
}
