//! Which file is fetched next, of those that wait: so many are fetched at once.
//!
//! What a tenant has more to fetch than its share of the node's network carries is not
//! fetched into memory or onto the disk ahead: it waits here, as a name. The tenant with
//! the fewest fetches under way goes first, and one whose files came lately at more than
//! 120 % of its share, which others left it, goes behind all others. So a burst drains at
//! the pace that its tenant has, and nobody else waits for the whole of it.
//!
//! What must hold: a place that is free is not left free while somebody waits.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use world::pace::Line;
use world::sync::Notify;

/// See the module.
#[derive(Debug)]
pub(crate) struct Places {
    line: Option<Arc<Line>>,
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
struct Book {
    free: usize,
    tickets: u64,
    /// By tenant; none has none.
    held: BTreeMap<String, usize>,
    /// In the order of their coming. Bounded by the inputs of the attempts that are staged
    /// at once.
    waiting: BTreeMap<u64, (String, Arc<Notify>)>,
    /// Given, and not taken yet.
    given: BTreeSet<u64>,
}

/// One place; it is free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    places: Arc<Places>,
    tenant: String,
    ticket: u64,
}

impl Places {
    pub(crate) fn new(count: usize, line: Option<&Arc<Line>>) -> Arc<Self> {
        let book = Mutex::new(Book { free: count, ..Book::default() });
        Arc::new(Self { line: line.cloned(), book })
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().expect("no holder of this lock panics")
    }

    /// A place for a file of this tenant, once it is its turn.
    pub(crate) async fn take(self: &Arc<Self>, tenant: &str) -> Place {
        let woken = Arc::new(Notify::new());
        let ticket = self.ask(tenant, &woken);
        let place = Place { places: Arc::clone(self), tenant: tenant.to_owned(), ticket };
        while !self.book().given.remove(&ticket) {
            woken.notified().await;
        }
        place
    }

    fn ask(&self, tenant: &str, woken: &Arc<Notify>) -> u64 {
        let mut book = self.book();
        book.tickets += 1;
        let ticket = book.tickets;
        book.waiting.insert(ticket, (tenant.to_owned(), Arc::clone(woken)));
        self.give(&mut book);
        ticket
    }

    /// Gives what is free to those whose turn it is.
    fn give(&self, book: &mut Book) {
        while book.free > 0 {
            let tenants: BTreeSet<&String> =
                book.held.keys().chain(book.waiting.values().map(|(tenant, _)| tenant)).collect();
            let tenants = tenants.len();
            let is_over =
                |tenant: &String| self.line.as_ref().is_some_and(|line| line.is_over(tenant, tenants));
            let rank = |ticket: u64, tenant: &String| {
                (is_over(tenant), book.held.get(tenant).copied().unwrap_or(0), ticket)
            };
            let next = book.waiting.iter().min_by_key(|(ticket, (tenant, _))| rank(**ticket, tenant));
            let Some(ticket) = next.map(|(ticket, _)| *ticket) else { return };
            let (tenant, woken) = book.waiting.remove(&ticket).expect("it was just found");
            book.free -= 1;
            *book.held.entry(tenant).or_default() += 1;
            book.given.insert(ticket);
            woken.notify_one();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut book = self.places.book();
        if book.waiting.remove(&self.ticket).is_some() {
            return;
        }
        book.given.remove(&self.ticket);
        let held = book.held.get_mut(&self.tenant).expect("a place is held until it is dropped");
        *held -= 1;
        if *held == 0 {
            book.held.remove(&self.tenant);
        }
        book.free += 1;
        self.places.give(&mut book);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;
    use std::pin::Pin;

    type Taking = Pin<Box<dyn Future<Output = Place>>>;

    fn ask(places: &Arc<Places>, tenant: &'static str) -> Taking {
        let places = Arc::clone(places);
        let mut taking: Taking = Box::pin(async move { places.take(tenant).await });
        assert!(taking.as_mut().now_or_never().is_none(), "all places are taken");
        taking
    }

    fn has(taking: &mut Taking) -> Option<Place> {
        taking.as_mut().now_or_never()
    }

    #[tokio::test]
    async fn a_tenant_with_many_files_does_not_keep_another_from_its_one() {
        let places = Places::new(2, None);
        let mut held = vec![places.take("a").await, places.take("a").await];
        let (mut more, mut other, mut last) = (ask(&places, "a"), ask(&places, "b"), ask(&places, "a"));
        held.pop();
        assert!(has(&mut more).is_none());
        let one = has(&mut other).expect("it has none yet");
        drop(one);
        let first = has(&mut more).expect("nobody else waits");
        // One that is not waited for any more is passed over, and what it was given is given on.
        let gone = ask(&places, "b");
        held.pop();
        drop(gone);
        assert!(has(&mut last).is_some());
        drop(first);
        let book = places.book();
        assert_eq!((book.free, book.held.len()), (2, 0));
    }

    #[tokio::test]
    async fn who_had_more_than_its_share_goes_behind() {
        let line = Line::new(100_000);
        let places = Places::new(1, Some(&line));
        line.pace("a").take(60_000).await;
        let held = places.take("b").await;
        let (mut early, mut late) = (ask(&places, "a"), ask(&places, "c"));
        let _others = ["d", "e", "f"].map(|tenant| ask(&places, tenant));
        drop(held);
        assert!(has(&mut early).is_none(), "a had more than 120 % of a sixth");
        assert!(has(&mut late).is_some());
    }
}
