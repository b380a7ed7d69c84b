//! Logs in stretches, plain, packed and away: they read as one, and whatever crashes,
//! nothing is lost.

use super::*;
use async_trait::async_trait;
use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use std::ops::Range;
use std::time::Duration;
use world::sim::{DiskFaults, HostileDisk};

async fn relay(disk: &HostileDisk, reign: Option<u64>, file_bytes: u64) -> Arc<LogRelay> {
    LogRelay::open(disk.handle(), None, "logs", reign, file_bytes).await.unwrap()
}

fn job() -> JobKey {
    ("lab".to_owned(), 7)
}

fn shipment(task: u64, stream: i32, offset: u64, data: Vec<u8>, at_ms: u64) -> LogShipment {
    let attempt = AttemptRef {
        tenant: "lab".into(),
        job_number: 7,
        task,
        attempt: 1,
        epoch: 3,
        ..AttemptRef::default()
    };
    LogShipment { attempt: Some(attempt), stream, offset, data: data.into(), at_ms, ..LogShipment::default() }
}

/// Streams of several tasks, mixed, with ends and with bytes that were given up.
fn written(rng: &mut SmallRng, count: u64) -> Vec<LogShipment> {
    let mut offsets = BTreeMap::new();
    let mut all = Vec::new();
    for at_ms in 1..count {
        let (task, stream) = (rng.random_range(0..5), rng.random_range(1..3));
        let offset: &mut u64 = offsets.entry((task, stream)).or_default();
        let dropped_bytes = if rng.random_bool(0.05) { 1_000 } else { 0 };
        *offset += dropped_bytes;
        let words =
            ["epoch ", "loss 0.", "step ", "warning: "].map(|word| word.repeat(rng.random_range(0..300)));
        let data = (words.concat() + "\n").into_bytes();
        let len = data.len() as u64;
        all.push(LogShipment { dropped_bytes, ..shipment(task, stream, *offset, data, at_ms) });
        *offset += len;
    }
    let end = |((task, stream), offset)| LogShipment {
        end: true,
        ..shipment(task, stream, offset, Vec::new(), count)
    };
    all.extend(offsets.into_iter().map(end));
    all
}

/// As a server takes them: some at a time.
fn append(relay: &LogRelay, shipments: &[LogShipment]) -> Vec<LogReceipt> {
    let taken = shipments.chunks(9).map(|some| write_group(&relay.shared, std::iter::once(some)).remove(0));
    taken.flatten().collect()
}

fn late(task: u64) -> LogShipment {
    shipment(task, 1, 0, b"late\n".to_vec(), 500)
}

async fn pack(relay: &LogRelay) -> io::Result<Packed> {
    relay.pack("lab", 7, true).await
}

fn log(relay: &LogRelay) -> Arc<JobLog> {
    relay.shared.job(&job(), false).unwrap().unwrap()
}

/// The same in another process: nothing is known but what is on the disk.
fn forget(relay: &LogRelay) {
    relay.shared.forget(&job());
}

/// All that is wanted, in pages: the chunks, and the cursors between them.
async fn read(relay: &LogRelay, filter: LogFilter, mut cursor: u64) -> (Vec<LogChunk>, Vec<u64>) {
    let (mut chunks, mut cursors) = (Vec::new(), Vec::new());
    loop {
        let page = relay.read("lab", 7, filter, cursor, 100_000).await.unwrap();
        chunks.extend(page.chunks);
        cursors.push(page.cursor);
        if page.at_end {
            return (chunks, cursors);
        }
        cursor = page.cursor;
    }
}

async fn all(relay: &LogRelay) -> Vec<LogChunk> {
    read(relay, LogFilter::default(), 0).await.0
}

fn filters() -> Vec<LogFilter> {
    let all = LogFilter::default();
    let one = LogFilter {
        step: Some(0),
        task: Some(2),
        rank: Some(0),
        attempt: Some(1),
        stream: Some(1),
        epoch: Some(3),
        ..all
    };
    vec![
        all,
        one,
        LogFilter { from: 20_000, ..one },
        LogFilter { since_ms: 300, ..all },
        LogFilter { stream: Some(2), since_ms: 150, ..all },
        LogFilter { task: Some(99), ..all },
    ]
}

fn files(relay: &LogRelay) -> Vec<String> {
    let list = |dir: &str| relay.shared.disk.list(dir).unwrap_or_default();
    let of = |dir: &str| list(dir).into_iter().filter(|entry| !entry.is_dir).map(|entry| entry.name);
    of("logs/lab").chain(of("logs/lab/0000000000000007")).collect()
}

/// A bucket that takes no time, and fails so often of a hundred times, before it does
/// something or behind it.
#[derive(Debug)]
struct Place {
    objects: Mutex<BTreeMap<String, Bytes>>,
    fails: Mutex<(u32, SmallRng)>,
}

impl Place {
    fn new(fails: u32, seed: u64) -> Arc<Self> {
        let fails = Mutex::new((fails, SmallRng::seed_from_u64(seed)));
        Arc::new(Self { objects: Mutex::default(), fails })
    }

    fn set_fails(&self, fails: u32) {
        self.fails.lock().unwrap().0 = fails;
    }

    fn keys(&self) -> Vec<String> {
        self.objects.lock().unwrap().keys().cloned().collect()
    }

    fn call<T>(&self, act: impl FnOnce(&mut BTreeMap<String, Bytes>) -> T) -> io::Result<T> {
        let fails = || {
            let (fails, rng) = &mut *self.fails.lock().unwrap();
            if rng.random_range(0..100) < *fails { Err(io::ErrorKind::TimedOut) } else { Ok(()) }
        };
        fails()?;
        let done = act(&mut self.objects.lock().unwrap());
        fails()?;
        Ok(done)
    }
}

#[async_trait]
impl Bucket for Place {
    async fn size(&self, key: &str) -> io::Result<Option<u64>> {
        self.call(|objects| objects.get(key).map(|data| data.len() as u64))
    }
    async fn put(&self, key: &str, disk: Arc<dyn Disk>, path: &str, _: &str) -> io::Result<()> {
        let data = world::disk::read_all(&*disk, path, 64 << 20)?;
        self.call(|objects| _ = objects.insert(key.to_owned(), data.into()))
    }
    async fn read(&self, key: &str, span: Range<u64>) -> io::Result<Bytes> {
        let at = |at: u64| usize::try_from(at).unwrap();
        self.call(|objects| Some(objects.get(key)?.slice(at(span.start)..at(span.end))))?
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }
    async fn remove(&self, key: &str) -> io::Result<()> {
        self.call(|objects| _ = objects.remove(key))
    }
    async fn list(&self, prefix: &str) -> io::Result<Vec<String>> {
        let found = |objects: &mut BTreeMap<String, Bytes>| {
            objects.keys().filter(|key| key.starts_with(prefix)).cloned().collect()
        };
        self.call(found)
    }
    async fn signed(&self, _: &str, _: Duration) -> io::Result<String> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[tokio::test]
async fn stretches_packed_or_away_read_as_one_from_every_cursor() {
    let disk = HostileDisk::new(1);
    let shipments = written(&mut SmallRng::seed_from_u64(1), 400);
    let alone = relay(&disk, None, 0).await;
    append(&alone, &shipments);
    let mut before = Vec::new();
    for filter in filters() {
        before.push(read(&alone, filter, 0).await);
    }
    let one = filters()[1];
    let known = |log: &JobLog| (log.extent(&one), log.ended_bytes(), log.dropped_bytes());
    let due = known(&log(&alone));
    assert!(due.0.is_some() && due.2 > 0);
    let plain_bytes = *before[0].1.last().unwrap();
    assert!(plain_bytes > 4 * limits::SEGMENT_BLOCK_BYTES, "{plain_bytes} bytes are too few blocks");

    // The same in many files, then packed, then somewhere else.
    let (disk, place) = (HostileDisk::new(2), Place::new(0, 2));
    let held = Arc::clone(&place) as Arc<dyn Bucket>;
    let open = |held| LogRelay::open(disk.handle(), held, "logs", None, 400_000);
    let relay = open(None).await.unwrap();
    append(&relay, &shipments);
    assert!(files(&relay).len() > 2, "{:?}", files(&relay));
    let moved = open(Some(held)).await.unwrap();
    for state in ["plain", "full ones packed", "packed", "away"] {
        let relay = if state == "away" { &moved } else { &relay };
        let packed = match state {
            "plain" => Packed::default(),
            "full ones packed" => relay.pack("lab", 7, false).await.unwrap(),
            _ => pack(relay).await.unwrap(),
        };
        assert!(packed.bytes <= packed.plain_bytes / 4, "{state}: {packed:?}");
        for opened in ["open", "opened anew"] {
            assert_eq!(known(&log(relay)), due, "{state}, {opened}");
            for (filter, (chunks, cursors)) in filters().into_iter().zip(&before) {
                assert_eq!(&read(relay, filter, 0).await.0, chunks, "{state}, {opened}, {filter:?}");
                for cursor in cursors.iter().step_by(3) {
                    let rest = read(relay, filter, *cursor).await.0;
                    assert!(chunks.ends_with(&rest), "{state}, {opened}, {filter:?} from {cursor}");
                }
            }
            let least = relay.read("lab", 7, LogFilter::default(), 0, 0).await.unwrap();
            assert_eq!((least.chunks.len(), least.at_end), (1, false));
            for (cursor, what) in [(plain_bytes + 1, "behind it"), (1, "between two frames")] {
                let error = relay.read("lab", 7, LogFilter::default(), cursor, 100).await.unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{state}: {what}");
            }
            forget(relay);
        }
    }
    assert!(files(&moved).iter().all(|name| name.ends_with(".idx")), "{:?}", files(&moved));
    assert_eq!(moved.to_do().await.unwrap()["lab"], []);
    assert_eq!(place.keys().len(), files(&moved).len());
    let error = open(None).await.unwrap().read("lab", 7, LogFilter::default(), 0, 100).await.unwrap_err();
    assert!(error.to_string().contains("`[objects] url`"), "{error}");
    moved.remove("lab", 7).await.unwrap();
    assert_eq!((files(&moved), place.keys().len()), (Vec::new(), 0));
    assert_eq!(moved.read("lab", 7, LogFilter::default(), 0, 100).await.unwrap().chunks, []);
}

#[tokio::test]
async fn what_is_to_be_done_is_told_until_it_is() {
    let disk = HostileDisk::new(1);
    let relay = relay(&disk, None, 200_000).await;
    append(&relay, &written(&mut SmallRng::seed_from_u64(1), 400));
    let to_do = async || relay.to_do().await.unwrap().remove("lab").unwrap();
    assert_eq!(to_do().await, [(7, ToDo { full: true, once_ended: true })]);
    relay.pack("lab", 7, false).await.unwrap();
    assert_eq!(to_do().await, [(7, ToDo { full: false, once_ended: true })]);
    pack(&relay).await.unwrap();
    assert_eq!(to_do().await, []);
    append(&relay, &[late(40)]);
    assert_eq!(to_do().await, [(7, ToDo { full: false, once_ended: true })]);
}

#[tokio::test]
async fn what_was_said_before_changes_nothing_and_what_is_new_goes_behind_it() {
    for reign in [None, Some(4)] {
        let disk = HostileDisk::new(1);
        let relay = relay(&disk, reign, 30_000).await;
        let shipments = written(&mut SmallRng::seed_from_u64(2), 50);
        append(&relay, &shipments);
        pack(&relay).await.unwrap();
        let chunks = all(&relay).await;
        let again = append(&relay, &shipments);
        assert!(again.len() == shipments.len() && again.iter().all(|receipt| receipt.done));
        assert!(log(&relay).is_packed());
        // A task that is tried again after all.
        assert_eq!(append(&relay, &[late(40)])[0].offset, 5);
        for opened in ["open", "opened anew", "packed"] {
            assert_eq!(log(&relay).is_packed(), opened == "packed");
            let more = all(&relay).await;
            assert_eq!((&more[..chunks.len()], more.len()), (&chunks[..], chunks.len() + 1), "{opened}");
            match opened {
                "open" => forget(&relay),
                _ => _ = pack(&relay).await.unwrap(),
            }
        }
    }
}

/// Disk and bucket fail now and then, and the power too: whatever had a receipt is there.
#[tokio::test]
async fn a_crash_at_any_step_loses_nothing() {
    let (mut packed, mut moved) = (0, 0);
    for seed in 0..60 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let disk = HostileDisk::new(seed);
        let place = Place::new(0, seed);
        let mut reign = (seed % 2 == 1).then_some(4);
        let held = (seed % 3 > 0).then(|| Arc::clone(&place) as Arc<dyn Bucket>);
        let open =
            async |reign| LogRelay::open(disk.handle(), held.clone(), "logs", reign, 10_000).await.unwrap();
        let mut old = open(reign).await;
        append(&old, &written(&mut rng, 40));
        let before = all(&old).await;
        let faults = DiskFaults { write_error_ppm: 60_000, sync_error_ppm: 60_000, ..DiskFaults::default() };
        let mut due = before.len();
        for round in 0..3 {
            disk.set_faults(faults);
            place.set_fails(15);
            for task in 100 + 10 * round..103 + 10 * round {
                let done = old.pack("lab", 7, rng.random_bool(0.5)).await;
                packed += u32::from(done.is_ok_and(|packed| packed.bytes > 0));
                if rng.random_bool(0.5) {
                    let receipts = append(&old, &[late(task)]);
                    due += usize::from(receipts.first().is_some_and(|receipt| receipt.offset == 5));
                }
            }
            disk.set_faults(DiskFaults::default());
            drop(old);
            disk.crash(&mut rng);
            // A later reign, where there are such.
            reign = reign.map(|reign| reign + rng.random_range(0..2));
            old = open(reign).await;
            let log = log(&old);
            moved += log.segments().iter().filter(|segment| segment.here().is_none()).count();
            place.set_fails(0);
            let after = all(&old).await;
            assert_eq!(after[..before.len()], before[..], "seed {seed}");
            assert!(after.len() >= due, "seed {seed}: {} chunks of {due}", after.len());
            due = after.len();
        }
    }
    assert!(packed > 30 && moved > 30, "packed {packed} times, moved {moved}");
}

#[tokio::test]
async fn a_later_reign_reads_what_an_earlier_one_has_and_goes_on_with_it() {
    let disk = HostileDisk::new(1);
    let alone = relay(&disk, None, 30_000).await;
    let shipments = written(&mut SmallRng::seed_from_u64(3), 90);
    append(&alone, &shipments[..30]);
    pack(&alone).await.unwrap();
    append(&alone, &shipments[30..50]);
    let first = relay(&disk, Some(3), 30_000).await;
    assert_eq!(all(&first).await, all(&alone).await);
    append(&first, &shipments[50..]);
    let before = all(&first).await;
    let second = relay(&disk, Some(9), 30_000).await;
    assert_eq!(all(&second).await, before);
    // The first does not know yet that it was deposed. What it writes nobody reads, wherever
    // its files end; what it packs reads as it did.
    let zombie = |at: u64| shipment(50 + at, 1, 0, vec![b'z'; 9_000], 600);
    append(&first, &(0..9).map(zombie).collect::<Vec<_>>());
    append(&second, &[late(60)]);
    first.pack("lab", 7, false).await.unwrap();
    for server in [&second, &relay(&disk, Some(12), 30_000).await] {
        let after = all(server).await;
        assert_eq!((&after[..before.len()], after.len()), (&before[..], before.len() + 1));
        assert_eq!(&*after[before.len()].data, b"late\n");
    }
    let refused = first.shared.job(&("lab".to_owned(), 7), false);
    assert!(refused.is_ok(), "it has it open");
    forget(&first);
    let refused = first.shared.job(&job(), false).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::StaleNetworkFileHandle);
}

#[tokio::test]
async fn a_file_made_for_nothing_is_no_end() {
    let disk = HostileDisk::new(1);
    let relay = relay(&disk, None, 0).await;
    append(&relay, &[late(1)]);
    // What is left of a turn that failed: the log went on where it was.
    let ends = log(&relay).read(&LogFilter::default(), 0, 100).unwrap().cursor;
    append(&relay, &[late(2)]);
    let stale = format!("logs/lab/0000000000000007/0000000000000000.{ends:016x}.log");
    file_of(&disk, &stale, b"");
    forget(&relay);
    assert_eq!(all(&relay).await.len(), 2);
    append(&relay, &[late(3)]);
    forget(&relay);
    assert_eq!(all(&relay).await.len(), 3);
}

fn file_of(disk: &HostileDisk, path: &str, bytes: &[u8]) {
    let disk = disk.handle();
    disk.create_dir_all(path.rsplit_once('/').unwrap().0).unwrap();
    disk.open(path, world::disk::OpenMode::CreateNew).unwrap().write_at(0, bytes).unwrap();
}

#[tokio::test]
async fn a_damaged_stretch_is_told_and_nothing_is_cut_off() {
    let disk = HostileDisk::new(1);
    let relay = relay(&disk, None, 10_000).await;
    append(&relay, &written(&mut SmallRng::seed_from_u64(4), 50));
    let due = all(&relay).await;
    let handle = disk.handle();
    let first = handle.open("logs/lab/0000000000000007.log", world::disk::OpenMode::Write).unwrap();
    let mut byte = [0];
    first.read_at(3_000, &mut byte).unwrap();
    first.write_at(3_000, &[byte[0] ^ 1]).unwrap();
    forget(&relay);
    let told = relay.shared.job(&job(), false).unwrap_err();
    assert!(told.kind() == io::ErrorKind::InvalidData && told.to_string().contains("is damaged"), "{told}");
    first.write_at(3_000, &byte).unwrap();
    assert_eq!(all(&relay).await, due);
}

#[tokio::test]
async fn a_damaged_segment_is_told_and_not_read() {
    let disk = HostileDisk::new(1);
    let relay = relay(&disk, None, 0).await;
    append(&relay, &written(&mut SmallRng::seed_from_u64(4), 50));
    pack(&relay).await.unwrap();
    let path = "logs/lab/0000000000000007.seg";
    let whole = world::disk::read_all(&*relay.shared.disk, path, 64 << 20).unwrap();
    for at in (0..whole.len()).step_by(whole.len() / 97) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        world::disk::replace(&*relay.shared.disk, path, &bytes).unwrap();
        forget(&relay);
        let read = relay.read("lab", 7, LogFilter::default(), 0, usize::MAX).await;
        assert!(at < 8 || read.is_err(), "byte {at} is wrong, and it is read");
    }
}
