//! A job's log file: any bytes on the disk, any shipments, power failures.
//!
//! The model is what the relay promises: of each stream, the bytes it took in
//! order without gap or repeat; a receipt names how many; readers see what was
//! synced, and after a power failure no less than that.

use crate::draw::Draw;
use controller::logs::LogFilter;
use controller::logs::file::JobLog;
use proto::v1::{AttemptRef, LogShipment, Stream};
use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use std::collections::BTreeMap;
use world::disk::OpenMode;
use world::sim::{DiskFaults, HostileDisk};

const DIR: &str = "logs/t";
const PATH: &str = "logs/t/0000000000000001.log";
const FAULTS: DiskFaults = DiskFaults {
    read_error_ppm: 0,
    write_error_ppm: 100_000,
    sync_error_ppm: 150_000,
    sync_error_forgets: false,
    lying_sync_ppm: 0,
    capacity_bytes: 0,
    rot_ppm: 0,
};
/// Openings that may fail before the disk is well again.
const OPENINGS_MAX: usize = 8;
/// Pages after which a log of this size must have been read.
const PAGES_MAX: usize = 10_000;

/// The first byte says whether the disk has faults, or holds a file already.
pub fn log_frames(data: &[u8]) {
    let mut draw = Draw::new(data);
    match draw.byte() % 5 {
        0 => Relay::new(DiskFaults::default()).run(&mut draw),
        1 => Relay::new(FAULTS).run(&mut draw),
        2 => Relay::new(DiskFaults { sync_error_forgets: true, ..FAULTS }).run(&mut draw),
        3 => strange_file(draw.rest()),
        _ => strange_file(&framed(&mut draw)),
    }
}

/// Frames whose sums are right, around anything.
fn framed(draw: &mut Draw<'_>) -> Vec<u8> {
    let mut file = Vec::new();
    while !draw.is_over() {
        let len = draw.below(256);
        let payload = draw.bytes(len);
        file.extend(u32::try_from(payload.len()).expect("a byte's worth").to_le_bytes());
        file.extend(crc32fast::hash(payload).to_le_bytes());
        file.extend(payload);
    }
    file
}

/// A file nobody knows is read as far as it is one, and can be written on.
fn strange_file(bytes: &[u8]) {
    let disk = HostileDisk::new(1).handle();
    disk.create_dir_all(DIR).expect("the disk has no faults");
    let file = disk.open(PATH, OpenMode::CreateNew).expect("the disk has no faults");
    file.write_at(0, bytes).expect("the disk has no faults");
    let log = JobLog::open(&disk, DIR, 1, None, true).expect("a torn file is none to refuse");
    let log = log.expect("it was to be made");
    let before = read_all(&log, 64);
    log.append(&shipment(Spot { task: 77, side: 0 }, 0, b"more", true, 5)).expect("the disk has no faults");
    log.sync().expect("the disk has no faults");
    let after = read_all(&log, 1 << 20);
    assert_eq!(after[..before.len()], before[..], "what was read is read again");
    let log = JobLog::open(&disk, DIR, 1, None, false).expect("it opened before").expect("it is there");
    assert_eq!(read_all(&log, 1 << 20), after, "what was synced is there after an opening");
}

/// Task, stream, offset, bytes.
type Piece = (u64, i32, u64, Vec<u8>);

fn read_all(log: &JobLog, limit_bytes: usize) -> Vec<Piece> {
    let (mut pieces, mut cursor) = (Vec::new(), 0);
    for _ in 0..PAGES_MAX {
        let page = log.read(&LogFilter::default(), cursor, limit_bytes).expect("a cursor it gave is good");
        let chunks = page.chunks.into_iter();
        pieces.extend(chunks.map(|chunk| (chunk.task, chunk.stream, chunk.offset, chunk.data.to_vec())));
        assert!(page.at_end || page.cursor > cursor, "a reader at {cursor} gets no further");
        cursor = page.cursor;
        if page.at_end {
            return pieces;
        }
    }
    panic!("a log without an end");
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Spot {
    task: u64,
    /// 0 or 1.
    side: usize,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Held {
    bytes: Vec<u8>,
    done: bool,
}

type Streams = BTreeMap<Spot, Held>;

fn stream_of(spot: Spot) -> i32 {
    [Stream::Stdout, Stream::Stderr][spot.side].into()
}

fn shipment(spot: Spot, offset: u64, data: &[u8], end: bool, at_ms: u64) -> LogShipment {
    LogShipment {
        attempt: Some(AttemptRef {
            tenant: "t".to_owned(),
            job_number: 1,
            task: spot.task,
            attempt: 1,
            epoch: 1,
            ..AttemptRef::default()
        }),
        stream: stream_of(spot),
        offset,
        data: data.to_vec().into(),
        end,
        at_ms,
        ..LogShipment::default()
    }
}

struct Relay {
    disk: HostileDisk,
    log: JobLog,
    taken: Streams,
    synced: Streams,
    /// What goes wrong while the log is written.
    faults: DiskFaults,
}

impl Relay {
    fn new(faults: DiskFaults) -> Self {
        let disk = HostileDisk::new(1);
        // As the relay does at its start.
        let handle = disk.handle();
        handle.create_dir_all("logs").expect("the disk has no faults yet");
        handle.sync_dir("").expect("the disk has no faults yet");
        let log = open(&disk, faults);
        disk.set_faults(faults);
        Self { disk, log, taken: Streams::new(), synced: Streams::new(), faults }
    }

    fn run(mut self, draw: &mut Draw<'_>) {
        while !draw.is_over() {
            match draw.below(16) {
                0..=8 => self.ship(draw),
                9..=10 => self.sync(),
                11..=12 => self.read(draw),
                13 => self.read_from(draw),
                14 => {
                    self.disk.fence();
                    self.recover();
                }
                _ => {
                    self.disk.crash(&mut SmallRng::seed_from_u64(draw.word()));
                    self.recover();
                }
            }
        }
        self.sync();
        self.look();
    }

    fn ship(&mut self, draw: &mut Draw<'_>) {
        let spot = Spot { task: draw.below(3) as u64, side: draw.below(2) };
        let held = self.taken.entry(spot).or_default();
        let at = held.bytes.len() as u64;
        let offset = match draw.below(8) {
            0..=4 => at,
            5 => at.saturating_sub(draw.byte().into()),
            6 => at + 1 + u64::from(draw.byte()),
            _ => draw.number(),
        };
        let len = draw.below(48);
        let (end, at_ms) = (draw.seldom(8), draw.number());
        let data = draw.bytes(len);
        let told = self.log.append(&shipment(spot, offset, data, end, at_ms));
        if let Some(skip) = at.checked_sub(offset).and_then(|skip| usize::try_from(skip).ok())
            && !held.done
            // An end says that nothing more will come, however little there is.
            && (skip <= data.len() || end)
        {
            held.bytes.extend(data.get(skip..).unwrap_or_default());
            held.done = end;
        }
        let expected = (held.bytes.len() as u64, held.done);
        match told {
            Ok(told) => assert_eq!(told, expected, "{spot:?}: the receipt"),
            Err(_) => self.recover(),
        }
    }

    fn sync(&mut self) {
        match self.log.sync() {
            Ok(()) => self.synced = self.taken.clone(),
            Err(_) => self.recover(),
        }
    }

    /// Readers see all that was synced and nothing else.
    fn look(&self) {
        assert_eq!(bytes_of(&gathered(&self.log, 1 << 20)), bytes_of(&self.synced));
        let ended = self.synced.values().filter(|held| held.done).map(|held| held.bytes.len() as u64);
        assert_eq!(self.log.ended_bytes(), ended.sum::<u64>(), "bytes of the streams that ended");
    }

    fn read(&self, draw: &mut Draw<'_>) {
        self.look();
        let small = gathered(&self.log, draw.below(256));
        assert_eq!(bytes_of(&small), bytes_of(&self.synced), "in small pages it is the same");
    }

    /// Whatever cursor a client names: an error, or a way on.
    fn read_from(&self, draw: &mut Draw<'_>) {
        let cursor = draw.number();
        let filter = LogFilter { task: draw.coin().then(|| draw.number()), ..LogFilter::default() };
        if let Ok(page) = self.log.read(&filter, cursor, 1 << 20) {
            assert!(page.at_end || page.cursor > cursor, "a reader at {cursor} gets no further");
        }
    }

    /// Opened anew after a crash or an error: nothing that was synced is lost,
    /// nothing is there that was not shipped.
    fn recover(&mut self) {
        self.log = open(&self.disk, self.faults);
        self.disk.set_faults(self.faults);
        let found = gathered(&self.log, 1 << 20);
        for (spot, synced) in &self.synced {
            let found = found.get(spot).map_or(&[][..], |held| &held.bytes);
            assert!(found.starts_with(&synced.bytes), "{spot:?}: what was synced is lost");
        }
        for (spot, held) in found {
            let taken = self.taken.get_mut(&spot).expect("only what was shipped is found");
            assert!(taken.bytes.starts_with(&held.bytes), "{spot:?}: found what nobody wrote");
            taken.bytes = held.bytes;
        }
        // The answer to a question tells also of streams without bytes.
        for (spot, taken) in &mut self.taken {
            let asked = self.log.append(&shipment(*spot, 0, &[], false, 0));
            let (offset, done) = asked.expect("a question writes nothing");
            taken.bytes.truncate(usize::try_from(offset).expect("it is short"));
            assert!(!done || taken.done, "{spot:?}: an end that nobody wrote");
            let synced = self.synced.get(spot);
            assert!(done || !synced.is_some_and(|held| held.done), "{spot:?}: a synced end is lost");
            taken.done = done;
        }
        // An opening syncs what it found.
        self.synced = self.taken.clone();
        self.look();
    }
}

/// Opens until it opens. What a sync forgets while an opening fails nobody
/// could find out; that fault is left to the time after it.
fn open(disk: &HostileDisk, faults: DiskFaults) -> JobLog {
    disk.set_faults(DiskFaults { sync_error_forgets: false, ..faults });
    for _ in 0..OPENINGS_MAX {
        if let Ok(log) = JobLog::open(&disk.handle(), DIR, 1, None, true) {
            return log.expect("it is made where it is not");
        }
    }
    disk.set_faults(DiskFaults::default());
    JobLog::open(&disk.handle(), DIR, 1, None, true).expect("the disk is well again").expect("it is made")
}

/// The streams that have bytes.
fn bytes_of(streams: &Streams) -> BTreeMap<Spot, &[u8]> {
    let full = streams.iter().filter(|(_, held)| !held.bytes.is_empty());
    full.map(|(spot, held)| (*spot, &held.bytes[..])).collect()
}

/// All that readers see, by stream, without gap or repeat.
fn gathered(log: &JobLog, limit_bytes: usize) -> Streams {
    let mut streams = Streams::new();
    for (task, stream, offset, data) in read_all(log, limit_bytes) {
        let side = usize::from(stream == i32::from(Stream::Stderr));
        let held = streams.entry(Spot { task, side }).or_default();
        assert_eq!(offset, held.bytes.len() as u64, "task {task}: a gap or a repeat");
        held.bytes.extend(data);
    }
    streams
}
