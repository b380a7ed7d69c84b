//! What clients move through the object door: counted, limited, and told to the
//! controller, which alone writes the ledger.
//!
//! Ingress is what a tenant's clients upload, egress what they download, as the
//! bytes move: a transfer that breaks counts as far as it came. What nodes move
//! is staging and counts for nobody; so do logs, events and answers.
//!
//! What clients upload and was not there before is kept, and counts as storage,
//! beside the outputs that the controller books.
//!
//! What must hold: no transfer begins, or goes on, past the tenant's limit,
//! however many run at once (each reserves its size when it begins); nothing is
//! booked twice. What moved since the last booking, [`limits::BOOKING_MS`] at
//! most, is lost with the process, in the tenant's favour.

use crate::gate::Gate;
use crate::{limits, rows};
use controller::shell::Handle;
use controller::{Moved, Upload};
use proto::problem::{self, Problem};
use proto::v1::{LedgerRow, QuotaDetail, TenantRow, UploadRow};
use proto::{keys, month, units};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use store::Store;
use world::sync::{self, mpsc};
use world::{NodeClock, time};

/// At so many percent of the limit no new upload is given leave.
const GUARD_PERCENT: u64 = scheduler::admission::GUARD_PERCENT;

/// Which way bytes go, seen from the cluster, and whether they stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    In,
    Out,
    Kept,
}

/// Bytes of one tenant and one way; of what moves, this month.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    limit: Option<u64>,
    /// In the ledger, as last read and with what was booked since.
    used: u64,
    /// On its way to the ledger.
    booking: u64,
    /// Moved, and not yet told.
    unbooked: u64,
    /// Reserved by transfers that have begun.
    open: u64,
}

/// What is known of one tenant.
#[derive(Clone, Debug, Default)]
struct Account {
    ingress: Tally,
    egress: Tally,
    storage: Tally,
    /// What the unbooked bytes of storage are.
    uploads: Vec<Upload>,
    /// Those that the controller is being told of.
    telling: Vec<Upload>,
    /// Monotonic milliseconds until which its rows need not be read again.
    good_until_ms: Option<u64>,
    month: u32,
    /// Bookings begun and ended: odd while one is under way.
    bookings: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Meter {
    store: Arc<dyn Store>,
    clock: Arc<dyn NodeClock>,
    accounts: Mutex<BTreeMap<String, Account>>,
    /// One booking at a time.
    booking: sync::Mutex<()>,
    /// Says that there is something to book.
    due: mpsc::Sender<()>,
}

/// One transfer's right to move. Dropped, what it did not use is free again.
#[derive(Debug)]
pub(crate) struct Passage {
    meter: Arc<Meter>,
    tenant: String,
    way: Way,
    reserved: u64,
}

impl Way {
    fn dimension(self) -> &'static str {
        match self {
            Self::In => "ingress",
            Self::Out => "egress",
            Self::Kept => "storage",
        }
    }
}

impl Tally {
    fn all(&self) -> u64 {
        [self.booking, self.unbooked, self.open].into_iter().fold(self.used, u64::saturating_add)
    }

    fn would_pass(&self, more: u64) -> bool {
        self.limit.is_some_and(|limit| self.all().saturating_add(more) > limit)
    }

    fn is_guarded(&self, more: u64) -> bool {
        let sum = u128::from(self.all()) + u128::from(more);
        let over = |limit: u64| sum * 100 >= u128::from(limit) * u128::from(GUARD_PERCENT);
        more > 0 && self.limit.is_some_and(over)
    }

    /// Holds room for a transfer; returns how much, to be given back. Of a size
    /// beyond all numbers as much as the sum can hold, so that the others' stays.
    fn reserve(&mut self, bytes: u64) -> u64 {
        let bytes = bytes.min(u64::MAX - self.open);
        self.open += bytes;
        bytes
    }

    fn begin_booking(&mut self) -> u64 {
        self.booking = std::mem::take(&mut self.unbooked);
        self.booking
    }

    /// All is booked but what is left.
    fn end_booking(&mut self, left: u64) {
        let moved = std::mem::take(&mut self.booking);
        self.used = self.used.saturating_add(moved.saturating_sub(left));
        self.unbooked = self.unbooked.saturating_add(left);
    }
}

impl Account {
    fn tally(&mut self, way: Way) -> &mut Tally {
        match way {
            Way::In => &mut self.ingress,
            Way::Out => &mut self.egress,
            Way::Kept => &mut self.storage,
        }
    }

    fn is_busy(&self) -> bool {
        let all = [self.ingress, self.egress, self.storage];
        !self.uploads.is_empty() || all.iter().any(|tally| tally.booking + tally.unbooked + tally.open > 0)
    }

    /// Takes the rows as read. A booking that was under way meanwhile may or may
    /// not be in them: then only the limits are taken, and what was used is
    /// known from before.
    fn take(&mut self, row: &TenantRow, ledger: &LedgerRow, bookings_before: u64) {
        let quota = row.quota.unwrap_or_default();
        (self.ingress.limit, self.egress.limit) = (quota.ingress_bytes, quota.egress_bytes);
        self.storage.limit = quota.storage_bytes;
        let sure = bookings_before.is_multiple_of(2) && self.bookings == bookings_before;
        if sure || self.month != ledger.month {
            (self.ingress.used, self.egress.used) = (ledger.ingress_bytes, ledger.egress_bytes);
            self.month = ledger.month;
        }
        if sure {
            self.storage.used = ledger.storage_bytes;
        }
    }
}

impl Meter {
    /// A meter, and the word that there is something to book, for
    /// [`keep_books`].
    pub fn new(store: Arc<dyn Store>, clock: Arc<dyn NodeClock>) -> (Arc<Self>, mpsc::Receiver<()>) {
        let (due, dues) = mpsc::channel(1);
        let (accounts, booking) = (Mutex::default(), sync::Mutex::new(()));
        (Arc::new(Self { store, clock, accounts, booking, due }), dues)
    }

    fn accounts(&self) -> MutexGuard<'_, BTreeMap<String, Account>> {
        self.accounts.lock().expect("no holder of this lock panics")
    }

    /// Reads the tenant's rows where they were not read lately.
    async fn look(&self, tenant: &str) -> Result<(), Problem> {
        let (now_ms, wall_ms) = (self.clock.monotonic_ms(), self.clock.wall_ms());
        let bookings = {
            let mut accounts = self.accounts();
            if accounts.len() >= limits::SEEN_MAX && !accounts.contains_key(tenant) {
                accounts.retain(|_, account| account.is_busy());
            }
            let account = accounts.entry(tenant.to_owned()).or_default();
            let month_goes_on = account.month >= month::of(wall_ms);
            if month_goes_on && account.good_until_ms.is_some_and(|until_ms| now_ms < until_ms) {
                return Ok(());
            }
            account.bookings
        };
        let row: Option<TenantRow> = rows::get(&*self.store, keys::tenant(tenant)).await?;
        let row = row.ok_or_else(|| problem::missing("tenant", tenant))?;
        let ledger: Option<LedgerRow> = rows::get(&*self.store, keys::ledger(tenant)).await?;
        let ledger = month::turned(&ledger.unwrap_or_default(), wall_ms);
        let mut accounts = self.accounts();
        let account = accounts.entry(tenant.to_owned()).or_default();
        account.take(&row, &ledger, bookings);
        account.good_until_ms = Some(now_ms + limits::SEEN_MS);
        Ok(())
    }

    /// Its rows have changed: they are read again before they are asked.
    pub(crate) fn forget(&self, tenant: &str) {
        if let Some(account) = self.accounts().get_mut(tenant) {
            account.good_until_ms = None;
        }
    }

    /// Whether an upload of so many bytes is given leave: the guard that stands
    /// before all that adds up.
    pub(crate) async fn guard(&self, tenant: &str, way: Way, bytes: u64) -> Result<(), Problem> {
        self.look(tenant).await?;
        let mut accounts = self.accounts();
        let tally = accounts.entry(tenant.to_owned()).or_default().tally(way);
        if tally.is_guarded(bytes) {
            let tally = *tally;
            return Err(self.refusal(tenant, way, &tally, bytes, GUARD_PERCENT));
        }
        Ok(())
    }

    /// Begins a transfer of so many bytes.
    pub(crate) async fn begin(
        self: &Arc<Self>,
        tenant: &str,
        way: Way,
        bytes: u64,
    ) -> Result<Passage, Problem> {
        self.look(tenant).await?;
        let mut accounts = self.accounts();
        let tally = accounts.entry(tenant.to_owned()).or_default().tally(way);
        if tally.would_pass(bytes) {
            let tally = *tally;
            return Err(self.refusal(tenant, way, &tally, bytes, 100));
        }
        let reserved = tally.reserve(bytes);
        let meter = Arc::clone(self);
        Ok(Passage { meter, tenant: tenant.to_owned(), way, reserved })
    }

    fn refusal(&self, tenant: &str, way: Way, tally: &Tally, asked: u64, percent: u64) -> Problem {
        let (used, limit, dimension) = (tally.all(), tally.limit.unwrap_or(0), way.dimension());
        let show = units::brief_memory_bytes;
        let door = if percent < 100 { format!(", refused from {percent} % on") } else { String::new() };
        let (has, span, remedy) = match way {
            Way::In | Way::Out => {
                ("has used", " this month", "wait for the next month, or have the tenant's quota raised")
            }
            Way::Kept => ("keeps", "", "have the tenant's quota raised"),
        };
        let reason = format!(
            "tenant {tenant} {has} {} of its {} of {dimension}{span}, {} more are asked for{door}",
            show(used),
            show(limit),
            show(asked),
        );
        // The code is the one of jobs past the same limit; the dimension tells which.
        let mut problem = Problem::new("quota.exceeded", dimension, show(asked), reason, remedy);
        let (hundredfold, guarded) = (u128::from(asked) * 100, u128::from(limit) * u128::from(percent));
        // What the guard refuses begins at it; a transfer may use all of the limit.
        let alone = if percent < 100 { hundredfold >= guarded } else { hundredfold > guarded };
        #[allow(clippy::cast_precision_loss, reason = "shown to people")]
        let detail = QuotaDetail {
            dimension: dimension.to_owned(),
            used: used as f64,
            asked: asked as f64,
            limit: limit as f64,
            threshold: limit as f64 * percent as f64 / 100.0,
            fits_at_ms: if alone || way == Way::Kept { 0 } else { month::next_ms(self.clock.wall_ms()) },
        };
        problem.quota = Some(detail);
        problem
    }

    /// Tells the controller what moved since the last time.
    pub(crate) async fn book(&self, controller: &Handle) {
        let _alone = self.booking.lock().await;
        let mut moved = Vec::new();
        for (tenant, account) in self.accounts().iter_mut() {
            let tenant = tenant.clone();
            let (ingress_bytes, egress_bytes) =
                (account.ingress.begin_booking(), account.egress.begin_booking());
            let (stored_bytes, stored) =
                (account.storage.begin_booking(), std::mem::take(&mut account.uploads));
            account.telling.clone_from(&stored);
            if ingress_bytes + egress_bytes + stored_bytes > 0 || !stored.is_empty() {
                account.bookings += 1;
                moved.push(Moved { tenant, ingress_bytes, egress_bytes, stored });
            }
        }
        if moved.is_empty() {
            return;
        }
        // Uploaded again since somebody took the object away by hand: it is booked.
        let known = self.known(&mut moved).await;
        let left = controller.moved(moved.clone()).await;
        {
            let mut accounts = self.accounts();
            for told in &moved {
                let account = accounts.entry(told.tenant.clone()).or_default();
                let of = || left.iter().filter(|left| left.tenant == told.tenant);
                account.ingress.end_booking(of().map(|left| left.ingress_bytes).sum());
                account.egress.end_booking(of().map(|left| left.egress_bytes).sum());
                let stored: Vec<Upload> = of().flat_map(|left| left.stored.iter().cloned()).collect();
                account.storage.end_booking(stored.iter().map(|upload| upload.size_bytes).sum());
                account.uploads.extend(stored);
                account.telling.clear();
                account.bookings += 1;
                if known.contains(&told.tenant) {
                    account.good_until_ms = None;
                }
            }
        }
        if !left.is_empty() {
            self.say_due();
        }
    }

    /// Digests of uploads that have no row yet.
    pub(crate) fn unbooked(&self, tenant: &str) -> Vec<String> {
        let accounts = self.accounts();
        let uploads = accounts.get(tenant).map(|account| account.uploads.iter().chain(&account.telling));
        uploads.into_iter().flatten().map(|upload| upload.digest.clone()).collect()
    }

    /// Takes out what has a row already; the tenants that had such. What cannot be read is
    /// told: it was new to the object place.
    async fn known(&self, moved: &mut [Moved]) -> BTreeSet<String> {
        let mut known = BTreeSet::new();
        for Moved { tenant, stored, .. } in moved {
            let mut fresh = Vec::with_capacity(stored.len());
            for upload in stored.drain(..) {
                let row = rows::get::<UploadRow>(&*self.store, keys::upload(tenant, &upload.digest)).await;
                if matches!(row, Ok(Some(_))) {
                    known.insert(tenant.clone());
                } else {
                    fresh.push(upload);
                }
            }
            *stored = fresh;
        }
        known
    }

    fn say_due(&self) {
        // Full, it has been said; closed, the server is going down.
        let _ = self.due.try_send(());
    }
}

/// Books what moved a moment after it did, until the server ends.
pub(crate) async fn keep_books(gate: Weak<Gate>, mut due: mpsc::Receiver<()>) {
    while due.recv().await.is_some() {
        time::sleep(time::ms(limits::BOOKING_MS)).await;
        let Some(gate) = gate.upgrade() else { return };
        gate.meter.book(&gate.controller).await;
    }
}

impl Passage {
    /// So many bytes more move now, unless the limit has been reached: it may
    /// have been lowered meanwhile.
    pub(crate) async fn pass(&mut self, bytes: u64) -> Result<(), Problem> {
        // Where the rows cannot be read now, those read before hold.
        let _ = self.meter.look(&self.tenant).await;
        let within = bytes.min(self.reserved);
        {
            let mut accounts = self.meter.accounts();
            let tally = accounts.entry(self.tenant.clone()).or_default().tally(self.way);
            if tally.would_pass(bytes - within) {
                let mut tally = *tally;
                tally.open = tally.open.saturating_sub(within);
                return Err(self.meter.refusal(&self.tenant, self.way, &tally, bytes, 100));
            }
            tally.open = tally.open.saturating_sub(within);
            tally.unbooked = tally.unbooked.saturating_add(bytes);
            self.reserved -= within;
        }
        self.meter.say_due();
        Ok(())
    }

    /// All that was reserved is there to stay under this name, whatever the limit is by
    /// now.
    pub(crate) fn keep(mut self, digest: &str) {
        let size_bytes = std::mem::take(&mut self.reserved);
        {
            let mut accounts = self.meter.accounts();
            let account = accounts.entry(self.tenant.clone()).or_default();
            account.storage.open = account.storage.open.saturating_sub(size_bytes);
            account.storage.unbooked = account.storage.unbooked.saturating_add(size_bytes);
            account.uploads.push(Upload { digest: digest.to_owned(), size_bytes });
        }
        self.meter.say_due();
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        let mut accounts = self.meter.accounts();
        if let Some(account) = accounts.get_mut(&self.tenant) {
            let tally = account.tally(self.way);
            tally.open = tally.open.saturating_sub(self.reserved);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::v1::Quota;

    fn rows(limit: u64, used: u64) -> (TenantRow, LedgerRow) {
        let quota = Quota { egress_bytes: Some(limit), ..Quota::default() };
        let row = TenantRow { quota: Some(quota), ..TenantRow::default() };
        (row, LedgerRow { month: 7, egress_bytes: used, ..LedgerRow::default() })
    }

    #[test]
    fn what_is_under_way_counts_against_the_limit() {
        let mut account = Account::default();
        let (row, ledger) = rows(100, 40);
        account.take(&row, &ledger, 0);
        let tally = account.tally(Way::Out);
        assert!(!tally.would_pass(60) && tally.would_pass(61));
        assert!(!tally.is_guarded(49) && tally.is_guarded(50), "from 90 % on");
        tally.open = 20;
        assert!(!tally.would_pass(40) && tally.would_pass(41));
        (tally.open, tally.unbooked) = (0, 20);
        assert_eq!(tally.begin_booking(), 20);
        tally.unbooked = 5;
        assert_eq!(tally.all(), 65);
        tally.end_booking(0);
        assert_eq!((tally.used, tally.all()), (60, 65));
        assert_eq!(tally.begin_booking(), 5);
        tally.end_booking(5);
        assert_eq!((tally.used, tally.unbooked), (60, 5), "told again");
        assert!(!account.ingress.would_pass(u64::MAX) && !account.ingress.is_guarded(u64::MAX), "no limit");
    }

    #[test]
    fn a_transfer_beyond_all_numbers_leaves_the_others_their_room() {
        let mut tally = Tally::default();
        let reserved = [100, u64::MAX, 7].map(|bytes| tally.reserve(bytes));
        assert_eq!((reserved, tally.open), ([100, u64::MAX - 100, 0], u64::MAX));
        tally.open -= reserved[1];
        assert_eq!(tally.open, 100);
    }

    #[test]
    fn rows_read_while_a_booking_is_under_way_give_their_limits_alone() {
        let mut account = Account::default();
        let (row, ledger) = rows(100, 40);
        account.take(&row, &ledger, 0);
        let (row, ledger) = rows(50, 60);
        for (before, now) in [(1, 1), (0, 1), (0, 2), (1, 2)] {
            account.bookings = now;
            account.take(&row, &ledger, before);
            assert_eq!((account.egress.used, account.egress.limit), (40, Some(50)), "{before} {now}");
        }
        account.take(&row, &ledger, 2);
        assert_eq!(account.egress.used, 60);
        // A new month's is known whatever is under way.
        let (row, mut ledger) = rows(50, 0);
        ledger.month = 8;
        account.take(&row, &ledger, 1);
        assert_eq!((account.egress.used, account.month), (0, 8));
    }
}
