//! What a disk may do to a log, and what must be read of it all the same.

use super::place::make_dir;
use super::*;
use proto::v1::{AttemptRef, LogChunk};
use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use world::sim::{DiskFaults, HostileDisk};

const DIR: &str = "logs/t";
const PATH: &str = "logs/t/0000000000000001.log";

fn hello() -> LogShipment {
    LogShipment {
        attempt: Some(AttemptRef { tenant: "t".to_owned(), job_number: 1, ..AttemptRef::default() }),
        stream: 1,
        data: b"hello".to_vec().into(),
        end: true,
        ..LogShipment::default()
    }
}

/// What a reader finds after the power failed.
fn found_after_power_failure(disk: &HostileDisk, seed: u64) -> usize {
    disk.crash(&mut SmallRng::seed_from_u64(seed));
    let log = JobLog::open(&disk.handle(), DIR, 1, None, false).unwrap();
    log.map_or(0, |log| log.read(&LogFilter::default(), 0, 100).unwrap().chunks.len())
}

fn shipped(disk: &HostileDisk) {
    let log = JobLog::open(&disk.handle(), DIR, 1, None, true).unwrap().unwrap();
    assert_eq!(log.append(&hello()).unwrap(), (5, true));
    log.sync().unwrap();
}

#[test]
fn what_has_a_receipt_is_there_after_a_power_failure() {
    for seed in 0..32 {
        let disk = HostileDisk::new(seed);
        make_dir(&*disk.handle(), "logs").unwrap();
        shipped(&disk);
        assert_eq!(found_after_power_failure(&disk, seed), 1, "seed {seed}");
    }
}

#[test]
fn also_where_the_log_was_made_by_an_opening_that_failed() {
    for seed in 0..32 {
        let disk = HostileDisk::new(seed);
        make_dir(&*disk.handle(), "logs").unwrap();
        disk.set_faults(DiskFaults { sync_error_ppm: 500_000, ..DiskFaults::default() });
        let mut openings = (0..4).map(|_| JobLog::open(&disk.handle(), DIR, 1, None, true));
        let failed = openings.any(|opened| opened.is_err());
        disk.set_faults(DiskFaults::default());
        shipped(&disk);
        assert_eq!(found_after_power_failure(&disk, seed), 1, "seed {seed}, failed: {failed}");
    }
}

#[test]
fn what_a_failed_sync_dropped_is_asked_for_again() {
    for seed in 0..32 {
        let disk = HostileDisk::new(seed);
        make_dir(&*disk.handle(), "logs").unwrap();
        let log = JobLog::open(&disk.handle(), DIR, 1, None, true).unwrap().unwrap();
        let fails = DiskFaults { sync_error_ppm: 1_000_000, sync_error_forgets: true, ..Default::default() };
        disk.set_faults(fails);
        log.append(&hello()).unwrap();
        log.sync().unwrap_err();
        disk.set_faults(DiskFaults::default());
        shipped(&disk);
        assert_eq!(found_after_power_failure(&disk, seed), 1, "seed {seed}");
    }
}

/// A file of these bytes, and what is read of it after its opening.
fn read_of(bytes: &[u8]) -> (Vec<u64>, u64) {
    let disk = HostileDisk::new(1).handle();
    make_dir(&*disk, DIR).unwrap();
    disk.open(PATH, OpenMode::CreateNew).unwrap().write_at(0, bytes).unwrap();
    let log = JobLog::open(&disk, DIR, 1, None, false).unwrap().unwrap();
    let page = log.read(&LogFilter::default(), 0, 1000).unwrap();
    (page.chunks.iter().map(|chunk| chunk.offset).collect(), page.cursor)
}

#[test]
fn a_frame_behind_a_missing_one_is_cut_off_with_the_tail() {
    let frame = |task, offset, end| {
        let data = if end { Vec::new() } else { b"hello".to_vec() };
        encode(&Frame { task, attempt: 1, stream: 1, offset, data, end, ..Frame::default() }).unwrap()
    };
    let (first, second, end) = (frame(7, 0, false), frame(7, 5, false), frame(7, 10, true));
    let whole = [&first[..], &second, &end].concat();
    assert_eq!(read_of(&whole), (vec![0, 5], whole.len() as u64));
    // The write of the second never reached the disk, that of the end did.
    let zeros = vec![0; second.len()];
    assert_eq!(read_of(&[&first[..], &zeros, &end].concat()), (vec![0], first.len() as u64));
    let zeros = vec![0; 8 * second.len()];
    assert_eq!(read_of(&[&first[..], &zeros, &end].concat()), (vec![0], first.len() as u64));
    assert_eq!(read_of(&[&first[..], &end].concat()), (vec![0], first.len() as u64));
    assert_eq!(read_of(&[&first[..], &first].concat()), (vec![0], first.len() as u64));
}

#[test]
fn a_cursor_within_a_frame_is_refused_rather_than_stood_at() {
    let disk = HostileDisk::new(1).handle();
    let log = JobLog::open(&disk, DIR, 1, None, true).unwrap().unwrap();
    log.append(&hello()).unwrap();
    log.sync().unwrap();
    let end = log.read(&LogFilter::default(), 0, 100).unwrap().cursor;
    for cursor in 1..end {
        let error = log.read(&LogFilter::default(), cursor, 100).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{cursor}: {error}");
    }
    assert!(log.read(&LogFilter::default(), end, 100).unwrap().at_end);
}

#[test]
fn an_end_counts_only_once_its_bytes_can_be_read() {
    let disk = HostileDisk::new(1).handle();
    let log = JobLog::open(&disk, DIR, 1, None, true).unwrap().unwrap();
    assert_eq!(log.append(&hello()).unwrap(), (5, true));
    let seen = |log: &JobLog| {
        let page = log.read(&LogFilter::default(), 0, 100).unwrap();
        (log.ended_bytes(), page.chunks.len())
    };
    assert_eq!(seen(&log), (0, 0));
    log.sync().unwrap();
    assert_eq!(seen(&log), (5, 1));
    drop(log);
    let log = JobLog::open(&disk, DIR, 1, None, false).unwrap().unwrap();
    assert_eq!(seen(&log), (5, 1));
}

#[test]
fn a_log_cut_by_a_power_loss_ends_with_what_was_shipped_of_it() {
    let disk = HostileDisk::new(1);
    make_dir(&*disk.handle(), "logs").unwrap();
    let log = JobLog::open(&disk.handle(), DIR, 1, None, true).unwrap().unwrap();
    assert_eq!(log.append(&LogShipment { end: false, ..hello() }).unwrap(), (5, false));
    // Of the file three bytes are left, and its agent says so: once, and once more.
    let cut = LogShipment { data: b"hel".to_vec().into(), ..hello() };
    for _ in 0..2 {
        assert_eq!(log.append(&cut).unwrap(), (5, true));
    }
    log.sync().unwrap();
    let page = log.read(&LogFilter::default(), 0, 100).unwrap();
    let data: Vec<u8> = page.chunks.iter().flat_map(|chunk| chunk.data.to_vec()).collect();
    assert_eq!((&data[..], log.ended_bytes()), (&b"hello"[..], 5));
}

/// So much text at an offset, where so many bytes before it were given up.
fn behind_gap(offset: u64, dropped_bytes: u64, text: &str) -> LogShipment {
    let data = text.as_bytes().to_vec().into();
    LogShipment { offset, dropped_bytes, data, end: false, ..hello() }
}

/// What readers get from there on: offset, bytes that were given up, text.
fn read_from(log: &JobLog, from: u64) -> Vec<(u64, u64, String)> {
    let page = log.read(&LogFilter { from, ..LogFilter::default() }, 0, 1 << 20).unwrap();
    let told = |chunk: LogChunk| {
        (chunk.offset, chunk.dropped_bytes, String::from_utf8(chunk.data.to_vec()).unwrap())
    };
    page.chunks.into_iter().map(told).collect()
}

#[test]
fn what_a_node_gave_up_is_told_in_its_place_and_stays_so() {
    let disk = HostileDisk::new(1);
    make_dir(&*disk.handle(), "logs").unwrap();
    let log = JobLog::open(&disk.handle(), DIR, 1, None, true).unwrap().unwrap();
    assert_eq!(log.append(&behind_gap(0, 0, "half a li")).unwrap(), (9, false));
    assert_eq!(log.append(&behind_gap(50, 0, "lost?")).unwrap(), (9, false), "nothing says so");
    assert_eq!(log.append(&behind_gap(50, 40, "lost?")).unwrap(), (9, false), "one byte is not told of");
    // The agent did not know yet that all nine had arrived.
    assert_eq!(log.append(&behind_gap(50, 45, "ne\n")).unwrap(), (53, false));
    assert_eq!(log.append(&behind_gap(50, 45, "ne\n")).unwrap(), (53, false), "said again");
    assert_eq!(log.append(&LogShipment { end: true, ..behind_gap(60, 7, "") }).unwrap(), (60, true));
    log.sync().unwrap();
    let line = |bytes| gap::told(bytes, false);
    let told = vec![
        (0, 0, "half a li".to_owned()),
        (9, 41, format!("\n{}", line(41))),
        (50, 0, "ne\n".to_owned()),
        (53, 7, line(7)),
    ];
    assert_eq!(read_from(&log, 0), told);
    assert_eq!((log.ended_bytes(), log.dropped_bytes()), (60, 48));
    let one = LogFilter {
        step: Some(0),
        task: Some(0),
        rank: Some(0),
        attempt: Some(0),
        stream: Some(1),
        ..LogFilter::default()
    };
    let extent = log.extent(&one).unwrap();
    assert_eq!((extent.bytes, extent.ended, extent.dropped), (60, true, vec![9..50, 53..60]));
    // From within what is gone, and from behind it.
    assert_eq!(read_from(&log, 20)[0], (20, 30, format!("\n{}", line(41))));
    assert_eq!(read_from(&log, 50)[0], (50, 0, "ne\n".to_owned()));
    assert_eq!(read_from(&log, 51)[0], (51, 0, "e\n".to_owned()));
    drop(log);
    disk.crash(&mut SmallRng::seed_from_u64(1));
    let log = JobLog::open(&disk.handle(), DIR, 1, None, false).unwrap().unwrap();
    assert_eq!((read_from(&log, 0), log.ended_bytes(), log.dropped_bytes()), (told, 60, 48));
}
