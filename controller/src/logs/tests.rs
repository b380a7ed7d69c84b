//! Logs that are packed: they read as they did, and whatever crashes, nothing is lost.

use super::*;
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use world::sim::{DiskFaults, HostileDisk};

fn shared(disk: &HostileDisk, reign: Option<u64>) -> Shared {
    let disk = disk.handle();
    file::make_dir(&*disk, "logs").unwrap();
    let (open, dropped, packed) = (Mutex::default(), Mutex::default(), Mutex::default());
    let writers = Semaphore::new(1);
    Shared { disk, dir: "logs".to_owned(), reign, open, writers, dropped, packed }
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

/// As [`LogRelay::pack`], in one go.
fn pack(shared: &Shared) -> io::Result<Option<Packed>> {
    let Some(mut packing) = shared.begin_packing(&job())? else { return Ok(None) };
    while !packing.step()? {}
    shared.end_packing(&job(), packing)
}

fn append(shared: &Shared, shipments: &[LogShipment]) -> Vec<LogReceipt> {
    write_group(shared, std::iter::once(shipments)).remove(0)
}

/// All that is wanted, in pages: the chunks, and the cursors between them.
fn read(log: &JobLog, filter: &LogFilter, mut cursor: u64) -> (Vec<LogChunk>, Vec<u64>) {
    let (mut chunks, mut cursors) = (Vec::new(), Vec::new());
    loop {
        let page = log.read(filter, cursor, 20_000).unwrap();
        chunks.extend(page.chunks);
        cursors.push(page.cursor);
        if page.at_end {
            return (chunks, cursors);
        }
        cursor = page.cursor;
    }
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

#[test]
fn what_is_packed_reads_as_it_did_from_every_cursor() {
    let disk = HostileDisk::new(1);
    let shared = shared(&disk, None);
    append(&shared, &written(&mut SmallRng::seed_from_u64(1), 400));
    let plain = shared.job(&job(), false).unwrap().unwrap();
    let before: Vec<_> = filters().iter().map(|filter| read(&plain, filter, 0)).collect();
    let one = filters()[1];
    let (extent, ended_bytes, dropped_bytes) =
        (plain.extent(&one), plain.ended_bytes(), plain.dropped_bytes());
    assert!(dropped_bytes > 0 && extent.is_some());
    assert_eq!(pack(&shared).unwrap(), None, "somebody has it open");
    drop(plain);
    assert_eq!(shared.plain().unwrap(), BTreeMap::from([("lab".to_owned(), vec![7])]));
    let Packed { plain_bytes, bytes } = pack(&shared).unwrap().unwrap();
    assert!(plain_bytes > 4 * limits::SEGMENT_BLOCK_BYTES, "{plain_bytes} bytes are too few blocks");
    assert!(bytes < plain_bytes / 4, "{bytes} of {plain_bytes}");
    assert_eq!(shared.plain().unwrap(), BTreeMap::from([("lab".to_owned(), Vec::new())]));
    let names: Vec<String> =
        shared.disk.list("logs/lab").unwrap().into_iter().map(|entry| entry.name).collect();
    assert_eq!(names, ["0000000000000007.seg"]);

    let packed = shared.job(&job(), false).unwrap().unwrap();
    assert!(packed.is_packed());
    assert_eq!((packed.extent(&one), packed.ended_bytes()), (extent, ended_bytes));
    assert_eq!(packed.dropped_bytes(), dropped_bytes);
    for (filter, (chunks, cursors)) in filters().iter().zip(before) {
        assert_eq!(read(&packed, filter, 0).0, chunks, "{filter:?}");
        // Whoever had read some of the plain file goes on.
        for cursor in cursors {
            let rest = read(&packed, filter, cursor).0;
            assert!(chunks.ends_with(&rest), "{filter:?} from {cursor}");
        }
    }
    let least = packed.read(&LogFilter::default(), 0, 0).unwrap();
    assert_eq!((least.chunks.len(), least.at_end), (1, false));
    let behind = packed.read(&LogFilter::default(), plain_bytes + 1, 100).unwrap_err();
    assert_eq!(behind.kind(), io::ErrorKind::InvalidInput);
    let between = packed.read(&LogFilter::default(), 1, 100).unwrap_err();
    assert_eq!(between.kind(), io::ErrorKind::InvalidInput);
}

#[test]
fn what_was_said_before_unpacks_nothing_and_what_is_new_does() {
    for reign in [None, Some(4)] {
        let disk = HostileDisk::new(1);
        let shared = shared(&disk, reign);
        let all = written(&mut SmallRng::seed_from_u64(2), 50);
        let receipts = append(&shared, &all);
        pack(&shared).unwrap().unwrap();
        let (chunks, _) = read(&shared.job(&job(), false).unwrap().unwrap(), &LogFilter::default(), 0);
        let again = append(&shared, &all);
        assert_eq!(again.len(), receipts.len());
        assert!(again.iter().all(|receipt| receipt.done), "all of it was there");
        assert!(shared.job(&job(), false).unwrap().unwrap().is_packed());
        // A task that is tried again after all.
        let late = shipment(40, 1, 0, b"late\n".to_vec(), 500);
        assert_eq!(append(&shared, &[late])[0].offset, 5);
        let log = shared.job(&job(), false).unwrap().unwrap();
        assert!(!log.is_packed());
        let (more, _) = read(&log, &LogFilter::default(), 0);
        assert_eq!((&more[..chunks.len()], more.len()), (&chunks[..], chunks.len() + 1));
        drop(log);
        pack(&shared).unwrap().unwrap();
        let log = shared.job(&job(), false).unwrap().unwrap();
        assert_eq!((log.is_packed(), read(&log, &LogFilter::default(), 0).0), (true, more));
    }
}

/// The disk fails now and then, and the power too: whatever had a receipt is there.
#[test]
fn a_crash_at_any_step_of_packing_and_unpacking_loses_nothing() {
    let mut packed = 0;
    for seed in 0..100 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let disk = HostileDisk::new(seed);
        let reign = (seed % 2 == 1).then_some(4);
        let all = written(&mut rng, 40);
        let old = shared(&disk, reign);
        append(&old, &all);
        let before = read(&old.job(&job(), false).unwrap().unwrap(), &LogFilter::default(), 0).0;
        let faults = DiskFaults { write_error_ppm: 60_000, sync_error_ppm: 60_000, ..DiskFaults::default() };
        disk.set_faults(faults);
        let mut due = before.len();
        for task in 100..103 {
            packed += u32::from(pack(&old).is_ok_and(|packed| packed.is_some()));
            if rng.random_bool(0.5) {
                let late = shipment(task, 1, 0, b"late\n".to_vec(), 500);
                due += usize::from(append(&old, &[late]).first().is_some_and(|receipt| receipt.offset == 5));
            }
        }
        disk.set_faults(DiskFaults::default());
        drop(old);
        disk.crash(&mut rng);
        // A later reign, where there are such.
        let next = shared(&disk, reign.map(|reign| reign + rng.random_range(0..2)));
        let log = next.job(&job(), false).unwrap().unwrap();
        let after = read(&log, &LogFilter::default(), 0).0;
        assert_eq!(after[..before.len()], before[..], "seed {seed}");
        assert!(after.len() >= due, "seed {seed}: {} chunks of {due}", after.len());
    }
    assert!(packed > 50, "it was packed {packed} times");
}

#[test]
fn a_later_reign_reads_what_an_earlier_one_packed_and_goes_on_with_it() {
    let disk = HostileDisk::new(1);
    let alone = shared(&disk, None);
    let all = written(&mut SmallRng::seed_from_u64(3), 50);
    append(&alone, &all);
    pack(&alone).unwrap().unwrap();
    let before = read(&alone.job(&job(), false).unwrap().unwrap(), &LogFilter::default(), 0).0;
    let first = shared(&disk, Some(3));
    assert_eq!(read(&first.job(&job(), false).unwrap().unwrap(), &LogFilter::default(), 0).0, before);
    let second = shared(&disk, Some(9));
    let log = second.job(&job(), false).unwrap().unwrap();
    assert!(log.is_packed());
    assert_eq!(read(&log, &LogFilter::default(), 0).0, before);
    drop(log);
    // The first does not know yet that it was deposed: what it unpacks and writes nobody reads.
    append(&first, &[shipment(50, 1, 0, b"zombie\n".to_vec(), 600)]);
    append(&second, &[shipment(60, 1, 0, b"late\n".to_vec(), 600)]);
    let log = second.job(&job(), false).unwrap().unwrap();
    let after = read(&log, &LogFilter::default(), 0).0;
    assert_eq!((&after[..before.len()], after.len()), (&before[..], before.len() + 1));
    assert_eq!(&*after[before.len()].data, b"late\n");
}

#[test]
fn a_damaged_segment_is_told_and_not_read() {
    let disk = HostileDisk::new(1);
    let shared = shared(&disk, None);
    append(&shared, &written(&mut SmallRng::seed_from_u64(4), 50));
    pack(&shared).unwrap().unwrap();
    let path = "logs/lab/0000000000000007.seg";
    let whole = world::disk::read_all(&*shared.disk, path, 64 << 20).unwrap();
    for at in (0..whole.len()).step_by(whole.len() / 97) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        world::disk::replace(&*shared.disk, path, &bytes).unwrap();
        shared.forget(&job());
        let read = shared.job(&job(), false).and_then(|log| {
            log.unwrap().read(&LogFilter::default(), 0, usize::MAX).map(|page| page.chunks.len())
        });
        assert!(at < 8 || read.is_err(), "byte {at} is wrong, and {read:?} chunks are read");
    }
}
