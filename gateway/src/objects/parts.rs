//! Uploads that have not arrived whole: those under way, and those that broke off and
//! wait to be gone on with.
//!
//! What must hold: a file belongs to one of the two, and to one request. So uploads of
//! the same bytes at once have a file each and do each other no harm; only what broke
//! off, or fell silent, is handed to another request. What waits is bounded in number,
//! in bytes and in age, for each tenant too, and the oldest gives way. Dropping an upload
//! does nothing to the disk: it is put away by whoever asks next for the same object, or
//! by the house's own task ([`keep_house`]). Nobody waits for the uploads of other
//! objects, and nobody without bound: a disk may take long to write what came.

use super::part::{Kept, Key};
use super::upload::Open;
use super::{Objects, busy};
use crate::limits;
use futures_util::StreamExt as _;
use futures_util::stream;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use world::sync::{self, mpsc};
use world::task::{blocking, spawn};
use world::time;
use world::transfer::TransferError;

/// One request's upload, as others see it.
#[derive(Debug)]
pub(super) struct Live {
    pub key: Key,
    /// Gone where another request goes on with it, or it is being named.
    pub open: sync::Mutex<Option<Open>>,
    /// Monotonic milliseconds of the last bytes.
    heard_ms: AtomicU64,
    /// Bytes that are there, also in memory.
    arrived: AtomicU64,
    /// All has come: it is verified and named, whoever waits for it.
    finishing: AtomicBool,
    /// Held by the one who puts it away.
    tidying: sync::Mutex<()>,
}

impl Live {
    pub fn new(key: Key, open: Open, arrived: u64, now_ms: u64) -> Arc<Self> {
        let (heard_ms, arrived) = (AtomicU64::new(now_ms), AtomicU64::new(arrived));
        Arc::new(Self {
            key,
            open: sync::Mutex::new(Some(open)),
            heard_ms,
            arrived,
            finishing: AtomicBool::new(false),
            tidying: sync::Mutex::new(()),
        })
    }

    pub fn heard(&self, now_ms: u64, arrived: u64) {
        self.heard_ms.store(now_ms, Ordering::Relaxed);
        self.arrived.store(arrived, Ordering::Relaxed);
    }

    pub fn finishes(&self) {
        self.finishing.store(true, Ordering::Relaxed);
    }
}

#[derive(Debug)]
struct Waiting {
    kept: Kept,
    since_ms: u64,
    /// Later ones have larger numbers.
    order: u64,
}

#[derive(Debug, Default)]
struct Table {
    under_way: BTreeMap<u64, Arc<Live>>,
    /// Their requests are over; each is here until it is put away.
    left: BTreeMap<u64, Arc<Live>>,
    waiting: BTreeMap<Key, Waiting>,
    numbers: u64,
}

impl Table {
    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// Has a part wait; what must give way for it is to be removed.
    fn keep(&mut self, key: Key, kept: Kept, now_ms: u64) -> Vec<Kept> {
        let mut gone = Vec::new();
        let order = self.number();
        match self.waiting.get(&key) {
            // The same bytes: the longer part is the better one.
            Some(other) if other.kept.len >= kept.len => return vec![kept],
            _ => {}
        }
        let tenant = key.tenant.clone();
        let waiting = Waiting { kept, since_ms: now_ms, order };
        gone.extend(self.waiting.insert(key, waiting).map(|other| other.kept));
        let own = |key: &Key| key.tenant == tenant;
        self.make_room(own, limits::PARTS_PER_TENANT, limits::PART_BYTES_PER_TENANT, &mut gone);
        self.make_room(|_| true, limits::PARTS_MAX, limits::PART_BYTES_MAX, &mut gone);
        gone
    }

    /// Takes the oldest out until the rest is within limits.
    fn make_room(
        &mut self,
        of: impl Fn(&Key) -> bool,
        parts_max: usize,
        bytes_max: u64,
        gone: &mut Vec<Kept>,
    ) {
        loop {
            let (mut parts, mut bytes, mut oldest) = (0, 0_u64, None);
            for (key, waiting) in self.waiting.iter().filter(|(key, _)| of(key)) {
                parts += 1;
                bytes = bytes.saturating_add(waiting.kept.len);
                if oldest.as_ref().is_none_or(|(order, _)| waiting.order < *order) {
                    oldest = Some((waiting.order, key.clone()));
                }
            }
            let Some((_, oldest)) = oldest.filter(|_| parts > parts_max || bytes > bytes_max) else { return };
            gone.extend(self.waiting.remove(&oldest).map(|waiting| waiting.kept));
        }
    }

    fn expired(&mut self, now_ms: u64) -> Vec<Kept> {
        let old = |waiting: &Waiting| now_ms.saturating_sub(waiting.since_ms) >= limits::PART_AGE_MS;
        let keys: Vec<Key> =
            self.waiting.iter().filter(|(_, waiting)| old(waiting)).map(|(key, _)| key.clone()).collect();
        keys.iter().filter_map(|key| self.waiting.remove(key)).map(|waiting| waiting.kept).collect()
    }

    fn leave(&mut self, number: u64) {
        self.left.extend(self.under_way.remove(&number).map(|live| (number, live)));
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Parts {
    table: Mutex<Table>,
    /// Says that there is something to put away.
    due: mpsc::Sender<()>,
}

impl Parts {
    /// With what earlier processes left, and the word for [`keep_house`].
    pub fn new(found: Vec<(Key, Kept)>, now_ms: u64) -> (Self, Vec<Kept>, mpsc::Receiver<()>) {
        let (due, dues) = mpsc::channel(1);
        let mut table = Table::default();
        let gone = found.into_iter().flat_map(|(key, kept)| table.keep(key, kept, now_ms)).collect();
        (Self { table: Mutex::new(table), due }, gone, dues)
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().expect("no holder of this lock panics")
    }

    /// An upload begins; the number is its own.
    pub fn begin(&self, live: &Arc<Live>) -> u64 {
        let mut table = self.table();
        let number = table.number();
        table.under_way.insert(number, Arc::clone(live));
        number
    }

    /// Its request is over.
    pub fn leave(&self, number: u64) {
        self.table().leave(number);
        // Full, it has been said; closed, the server is going down.
        let _ = self.due.try_send(());
    }

    /// What waits of an object.
    pub fn waiting(&self, key: &Key) -> Option<Kept> {
        self.table().waiting.get(key).map(|waiting| waiting.kept.clone())
    }

    /// Takes a part that waits, unless it is another by now.
    pub fn take(&self, key: &Key, seen: &Kept) -> Option<Kept> {
        let mut table = self.table();
        let same = table.waiting.get(key).is_some_and(|waiting| waiting.kept.path() == seen.path());
        if same { table.waiting.remove(key).map(|waiting| waiting.kept) } else { None }
    }

    /// Whether all of an object has come in some request, and is being verified.
    pub fn is_verifying(&self, key: &Key) -> bool {
        let table = self.table();
        table.under_way.values().any(|live| live.key == *key && live.finishing.load(Ordering::Relaxed))
    }

    /// Bytes of an object that have arrived, and were paid, in whatever request.
    pub fn arrived(&self, key: &Key) -> u64 {
        let table = self.table();
        let waiting = table.waiting.get(key).map_or(0, |waiting| waiting.kept.len);
        let live = table.under_way.values().chain(table.left.values()).filter(|live| live.key == *key);
        live.map(|live| live.arrived.load(Ordering::Relaxed)).fold(waiting, u64::max)
    }
}

/// One that is being put away: it is no more once this is dropped.
struct Left<'a> {
    parts: &'a Parts,
    number: u64,
}

impl Drop for Left<'_> {
    fn drop(&mut self) {
        self.parts.table().left.remove(&self.number);
    }
}

impl Objects {
    /// Puts away what requests left behind, several at once.
    pub(super) async fn put_away(self: &Arc<Self>) {
        self.put_away_where(|_| true).await;
    }

    /// Puts away what requests left behind of one object, and no more than that: others'
    /// may be many, and slow. An error where that takes too long; it goes on then.
    pub(super) async fn put_away_of(self: &Arc<Self>, key: &Key, wait_ms: u64) -> Result<(), TransferError> {
        let put_away = self.put_away_where(|live| live.key == *key);
        let in_time = time::timeout(time::ms(wait_ms), put_away).await;
        in_time.map_err(|_| busy("uploads of the same bytes"))
    }

    async fn put_away_where(self: &Arc<Self>, of: impl Fn(&Live) -> bool) {
        loop {
            let left: Vec<(u64, Arc<Live>)> = {
                let table = self.parts.table();
                let due = table.left.iter().filter(|(_, live)| of(live));
                due.map(|(number, live)| (*number, Arc::clone(live))).collect()
            };
            if left.is_empty() {
                return;
            }
            let put_away = |(number, live): (u64, Arc<Live>)| {
                let objects = Arc::clone(self);
                // Goes on also where its caller does not.
                async move { spawn(async move { objects.put_one_away(number, &live).await }).await }
            };
            let put_away = stream::iter(left).map(put_away).buffer_unordered(limits::PUT_AWAY_AT_ONCE);
            let _panicked: Vec<_> = put_away.collect().await;
        }
    }

    async fn put_one_away(self: &Arc<Self>, number: u64, live: &Live) {
        let _alone = live.tidying.lock().await;
        // Gone from the table also where the rest of this panics.
        let _left = Left { parts: &self.parts, number };
        // A write under way ends first.
        let Some(open) = live.open.lock().await.take() else { return };
        if let Some(kept) = open.close(self).await {
            let gone = self.parts.table().keep(live.key.clone(), kept, self.clock.monotonic_ms());
            self.remove(gone).await;
        }
    }

    async fn remove(&self, gone: Vec<Kept>) {
        if gone.is_empty() {
            return;
        }
        let disk = Arc::clone(&self.disk);
        blocking(move || super::remove(&*disk, &gone)).await;
    }

    /// An object is there whole: nobody will go on with a part of it.
    pub(super) async fn forget_part(&self, key: &Key) {
        let waiting = self.parts.table().waiting.remove(key);
        self.remove(waiting.into_iter().map(|waiting| waiting.kept).collect()).await;
    }

    /// Removes what has waited too long.
    pub(super) async fn let_go(&self) {
        let expired = self.parts.table().expired(self.clock.monotonic_ms());
        self.remove(expired).await;
    }

    /// Waits until it is known what there is of an object: requests that are over are put
    /// away, and so are those that have been silent for long, since their connections may
    /// be broken and nobody here was told. One that moves is let be.
    pub(super) async fn look_at_parts(self: &Arc<Self>, key: &Key) -> Result<(), TransferError> {
        let since_ms = self.clock.monotonic_ms();
        loop {
            let waited_ms = self.clock.monotonic_ms().saturating_sub(since_ms);
            self.put_away_of(key, limits::PART_SETTLE_MS.saturating_sub(waited_ms)).await?;
            let now_ms = self.clock.monotonic_ms();
            if !self.parts.table().cut_off_silent(key, since_ms, now_ms) {
                return Ok(());
            }
            if now_ms.saturating_sub(since_ms) >= limits::PART_SETTLE_MS {
                return Err(busy("uploads of the same bytes"));
            }
            time::sleep(time::ms(limits::PART_LOOK_MS)).await;
        }
    }
}

impl Table {
    /// True where some upload of it has not moved since.
    fn cut_off_silent(&mut self, key: &Key, since_ms: u64, now_ms: u64) -> bool {
        let still = |live: &Live| live.key == *key && live.heard_ms.load(Ordering::Relaxed) <= since_ms;
        let silent = |live: &Live| {
            let heard_ms = live.heard_ms.load(Ordering::Relaxed);
            now_ms.saturating_sub(heard_ms) >= limits::UPLOAD_SILENT_MS
                && !live.finishing.load(Ordering::Relaxed)
        };
        let quiet: Vec<(u64, bool)> = self
            .under_way
            .iter()
            .filter(|(_, live)| still(live))
            .map(|(number, live)| (*number, silent(live)))
            .collect();
        for (number, _) in quiet.iter().filter(|(_, silent)| *silent) {
            self.leave(*number);
        }
        !quiet.is_empty()
    }
}

/// Puts away what broke off a moment after it did, and lets go what nobody has gone on
/// with for long, until the place is closed.
pub(super) async fn keep_house(objects: Weak<Objects>, mut due: mpsc::Receiver<()>) {
    loop {
        let word = time::timeout(time::ms(limits::PART_SWEEP_MS), due.recv()).await;
        let Some(objects) = objects.upgrade() else { return };
        if matches!(word, Ok(None)) {
            return;
        }
        objects.put_away().await;
        objects.let_go().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meter::Meter;
    use crate::objects::Door;
    use crate::objects::part::Part;
    use crate::urls::{Method, Mover, Signer};
    use store::RedbStore;
    use world::sim::{ClockHandle, HostileDisk, SkewedClock};
    use world::transfer::{Arrived, ObjectDoor as _, ObjectSink};
    use world::{Disk, NodeClock};

    /// A part of so many bytes.
    fn kept(disk: &Arc<dyn Disk>, key: &Key, number: u64, len: u64) -> Kept {
        let mut part = Part::create(Arc::clone(disk), "in", key, number).unwrap();
        part.write(&vec![1; usize::try_from(len).unwrap()]).unwrap();
        part.into_kept()
    }

    fn key(tenant: &str, number: u64) -> Key {
        Key { tenant: tenant.to_owned(), digest: format!("{number:064x}") }
    }

    #[test]
    fn the_oldest_of_a_tenant_gives_way_and_other_tenants_stay() {
        let disk = HostileDisk::new(1).handle();
        disk.create_dir_all("in").unwrap();
        let mut table = Table::default();
        let other = key("other", 0);
        assert!(table.keep(other.clone(), kept(&disk, &other, 0, 1), 0).is_empty());
        let parts = limits::PARTS_PER_TENANT as u64;
        let mut gone = Vec::new();
        for number in 1..=parts + 2 {
            let key = key("lab", number);
            gone.extend(table.keep(key.clone(), kept(&disk, &key, number, 1), number));
        }
        let paths: Vec<String> = gone.iter().map(Kept::path).collect();
        assert!(paths.len() == 2 && paths[0].contains(&key("lab", 1).digest), "{paths:?}");
        assert!(paths[1].contains(&key("lab", 2).digest), "{paths:?}");
        assert!(table.waiting.contains_key(&other));
        assert_eq!(table.waiting.len() as u64, parts + 1);
    }

    #[test]
    fn all_tenants_together_have_a_limit_and_so_have_bytes() {
        let disk = HostileDisk::new(2).handle();
        disk.create_dir_all("in").unwrap();
        let mut table = Table::default();
        for number in 0..limits::PARTS_MAX as u64 + 5 {
            let key = key(&format!("t{}", number % 100), number);
            table.keep(key.clone(), kept(&disk, &key, number, 1), number);
        }
        assert_eq!(table.waiting.len(), limits::PARTS_MAX);
        let mut gone = Vec::new();
        table.make_room(|_| true, usize::MAX, 10, &mut gone);
        assert_eq!((table.waiting.len(), gone.len()), (10, limits::PARTS_MAX - 10));
        // One that is larger than all that is allowed goes too.
        table.make_room(|key| key.tenant == "t3", 1, 0, &mut gone);
        assert!(table.waiting.keys().all(|key| key.tenant != "t3"));
    }

    async fn place(disk: &HostileDisk) -> (Arc<Objects>, ClockHandle) {
        let (clock, time) = SkewedClock::pair(1_700_000_000_000);
        let (rows, store_clock) = (HostileDisk::new(0), Arc::clone(&clock) as Arc<dyn NodeClock>);
        let store = RedbStore::open(rows.handle(), "store", store_clock).await.unwrap();
        let meter = Meter::new(store, Arc::clone(&clock) as Arc<dyn NodeClock>).0;
        let signer = Signer::new(b"key");
        (Objects::open(disk.handle(), None, clock, signer, meter, 60_000, None).await.unwrap(), time)
    }

    /// Begins an upload of a node; how others see it.
    async fn begin(objects: &Arc<Objects>, key: &Key) -> (Box<dyn ObjectSink>, Arc<Live>) {
        let url = objects.signed(Method::Put, Mover::Node, &key.tenant, &key.digest, 10);
        let mut sink = Door(Arc::clone(objects)).begin_put(&url, None).await.unwrap();
        sink.write(bytes::Bytes::from_static(b"some")).await.unwrap();
        let live = objects.parts.table().under_way.values().find(|live| live.key == *key).cloned();
        (sink, live.unwrap())
    }

    #[tokio::test]
    async fn nobody_waits_for_what_broke_off_of_another_object() {
        let disk = HostileDisk::new(4);
        let (objects, _) = place(&disk).await;
        let (slow, quick) = (key("lab", 1), key("other", 2));
        let (slow_sink, slow_live) = begin(&objects, &slow).await;
        let (quick_sink, _) = begin(&objects, &quick).await;
        // A write of it that does not end.
        let writes = slow_live.open.lock().await;
        drop((slow_sink, quick_sink));
        let asked = time::timeout(time::ms(5_000), objects.look_at_parts(&quick)).await;
        asked.expect("the other one is slow").unwrap();
        assert_eq!(objects.parts.waiting(&quick).map(|kept| kept.len), Some(4));
        let late = objects.put_away_of(&slow, 0).await;
        assert!(matches!(late, Err(TransferError::Server { status: 503, .. })), "{late:?}");
        assert_eq!(objects.parts.arrived(&slow), 4, "it is known of until it is put away");
        drop(writes);
        objects.put_away().await;
        assert_eq!(objects.parts.waiting(&slow).map(|kept| kept.len), Some(4));
        assert!(objects.parts.table().left.is_empty());
    }

    #[tokio::test]
    async fn who_asks_for_what_is_being_verified_is_told_so() {
        let disk = HostileDisk::new(5);
        let (objects, time) = place(&disk).await;
        let key = key("lab", 1);
        let (sink, live) = begin(&objects, &key).await;
        // All has come, and its verification takes long.
        live.finishes();
        let url = objects.signed(Method::Put, Mover::Node, &key.tenant, &key.digest, 10);
        let door = Door(Arc::clone(&objects));
        let later = async { time.jump_monotonic_ms(limits::PART_SETTLE_MS) };
        let (asked, ()) = tokio::join!(biased; door.arrived(&url, 10), later);
        assert_eq!(asked.unwrap(), Arrived::Verifying);
        drop(sink);
        assert_eq!(door.arrived(&url, 10).await.unwrap(), Arrived::Part(4));
    }

    #[test]
    fn of_the_same_bytes_the_longer_part_waits() {
        let disk = HostileDisk::new(3).handle();
        disk.create_dir_all("in").unwrap();
        let mut table = Table::default();
        let key = key("lab", 1);
        assert!(table.keep(key.clone(), kept(&disk, &key, 1, 10), 0).is_empty());
        assert_eq!(table.keep(key.clone(), kept(&disk, &key, 2, 10), 0)[0].len, 10);
        assert_eq!(table.keep(key.clone(), kept(&disk, &key, 3, 11), 0)[0].len, 10);
        assert_eq!(table.keep(key.clone(), kept(&disk, &key, 4, 3), 0)[0].len, 3);
        assert_eq!(table.waiting[&key].kept.len, 11);
    }
}
