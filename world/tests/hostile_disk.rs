//! What a simulated disk keeps through a power loss, against models: what was
//! synced stays; what was not is, sector by sector, old or new; names survive
//! as a journal would let them.

use proptest::prelude::*;
use rand::{SeedableRng, rngs::SmallRng};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::ErrorKind,
    sync::Arc,
};
use world::{
    Disk, DiskFile,
    disk::{OpenMode, SEALED_MODE, Shared, read_all, replace},
    sim::{DiskFaults, HostileDisk},
};

const SECTOR: usize = 512;
const SECTORS: usize = 8;

#[derive(Clone, Debug)]
enum ByteOp {
    Write { offset: usize, len: usize, fill: u8 },
    Sync,
    FailingSync,
    Crash,
}

fn byte_op() -> impl Strategy<Value = ByteOp> {
    prop_oneof![
        6 => (0..SECTORS * SECTOR, 1..3 * SECTOR, any::<u8>()).prop_map(|(offset, len, fill)| {
            ByteOp::Write { offset, len: len.min(SECTORS * SECTOR - offset), fill }
        }),
        1 => Just(ByteOp::Sync),
        1 => Just(ByteOp::FailingSync),
        1 => Just(ByteOp::Crash),
    ]
}

fn page(fill: u8, len: usize) -> Vec<u8> {
    (0..len).map(|index| fill.wrapping_add(u8::try_from(index % 251).unwrap())).collect()
}

/// Every content a sector may have: each unsynced write took part or not.
fn possible(durable: &[u8], unsynced: &[(usize, Vec<u8>)], sector: usize) -> BTreeSet<Vec<u8>> {
    let (from, to) = (sector * SECTOR, (sector + 1) * SECTOR);
    let mut all = BTreeSet::from([durable[from..to].to_vec()]);
    for (offset, data) in unsynced {
        let (start, end) = (from.max(*offset), to.min(offset + data.len()));
        if start >= end {
            continue;
        }
        let with: Vec<Vec<u8>> = all
            .iter()
            .map(|old| {
                let mut new = old.clone();
                new[start - from..end - from].copy_from_slice(&data[start - offset..end - offset]);
                new
            })
            .collect();
        all.extend(with);
    }
    all
}

fn open(disk: &dyn Disk, path: &str) -> Arc<dyn DiskFile> {
    disk.open(path, OpenMode::CreateOrWrite).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn sectors_are_old_or_new(seed in any::<u64>(), ops in prop::collection::vec(byte_op(), 1..40)) {
        let hostile = HostileDisk::new(seed);
        let mut chance = SmallRng::seed_from_u64(seed ^ 1);
        let mut disk = hostile.handle();
        let mut file = open(&*disk, "f");
        file.set_len((SECTORS * SECTOR) as u64).unwrap();
        file.sync().unwrap();
        disk.sync_dir("").unwrap();
        let mut durable = vec![0; SECTORS * SECTOR];
        let mut seen = durable.clone();
        let mut unsynced: Vec<(usize, Vec<u8>)> = Vec::new();
        for op in ops {
            match op {
                ByteOp::Write { offset, len, fill } => {
                    let data = page(fill, len);
                    file.write_at(offset as u64, &data).unwrap();
                    seen[offset..offset + len].copy_from_slice(&data);
                    // More than the model can enumerate is written elsewhere.
                    unsynced.push((offset, data));
                    if unsynced.len() > 12 {
                        file.sync().unwrap();
                        unsynced.clear();
                        durable.copy_from_slice(&seen);
                    }
                }
                ByteOp::Sync => {
                    file.sync().unwrap();
                    unsynced.clear();
                    durable.copy_from_slice(&seen);
                }
                ByteOp::FailingSync => {
                    hostile.set_faults(DiskFaults { sync_error_ppm: 1_000_000, ..DiskFaults::default() });
                    prop_assert!(file.sync().is_err());
                    hostile.set_faults(DiskFaults::default());
                }
                ByteOp::Crash => {
                    hostile.crash(&mut chance);
                    prop_assert_eq!(file.sync().unwrap_err().kind(), ErrorKind::StaleNetworkFileHandle);
                    prop_assert!(disk.list("").is_err());
                    disk = hostile.handle();
                    file = disk.open("f", OpenMode::Write).unwrap();
                    let found = read_all(&*disk, "f", 1 << 20).unwrap();
                    prop_assert_eq!(found.len(), SECTORS * SECTOR);
                    for sector in 0..SECTORS {
                        let is = &found[sector * SECTOR..(sector + 1) * SECTOR];
                        prop_assert!(possible(&durable, &unsynced, sector).contains(is), "sector {}", sector);
                    }
                    unsynced.clear();
                    durable.clone_from(&found);
                    seen = found;
                }
            }
            prop_assert_eq!(&read_all(&*disk, "f", 1 << 20).unwrap(), &seen, "reads see all that was written");
        }
    }

    #[test]
    fn lengths_change_and_synced_bytes_stay(
        seed in any::<u64>(),
        synced in 1..4000_usize,
        changes in prop::collection::vec((any::<bool>(), 0..6000_usize, 1..1500_usize), 1..12),
    ) {
        let hostile = HostileDisk::new(seed);
        let disk = hostile.handle();
        let file = open(&*disk, "f");
        let first = page(7, synced);
        file.write_at(0, &first).unwrap();
        file.sync().unwrap();
        disk.sync_dir("").unwrap();
        let mut touched_from = usize::MAX;
        for (resize, at, len) in changes {
            touched_from = touched_from.min(at);
            if resize {
                file.set_len(at as u64).unwrap();
            } else {
                file.write_at(at as u64, &page(200, len)).unwrap();
            }
        }
        hostile.crash(&mut SmallRng::seed_from_u64(seed));
        let found = read_all(&*hostile.handle(), "f", 1 << 20).unwrap();
        // Before the first change nothing moved.
        let same = touched_from.min(synced);
        prop_assert!(found.len() >= same);
        prop_assert_eq!(&found[..same], &first[..same]);
        prop_assert_eq!(hostile.used_bytes(), found.len() as u64);
    }
}

#[derive(Clone, Debug)]
enum NameOp {
    Make { dir: usize, name: usize },
    Rename { from: (usize, usize), to: (usize, usize) },
    Remove { dir: usize, name: usize },
    SyncDir { dir: usize, fails: bool },
    Crash,
}

const DIRS: [&str; 3] = ["a", "b", "c"];
const NAMES: [&str; 3] = ["x", "y", "z"];

fn name_op() -> impl Strategy<Value = NameOp> {
    let place = || (0..DIRS.len(), 0..NAMES.len());
    prop_oneof![
        4 => place().prop_map(|(dir, name)| NameOp::Make { dir, name }),
        4 => (place(), place()).prop_map(|(from, to)| NameOp::Rename { from, to }),
        2 => place().prop_map(|(dir, name)| NameOp::Remove { dir, name }),
        2 => (0..DIRS.len(), prop::bool::weighted(0.2)).prop_map(|(dir, fails)| NameOp::SyncDir { dir, fails }),
        1 => Just(NameOp::Crash),
    ]
}

/// Names and which file (by the number written in it) each means.
type Listing = BTreeMap<String, u64>;

fn listing(disk: &dyn Disk, dir: &str) -> Listing {
    let number = |name: &str| {
        let data = read_all(disk, &format!("{dir}/{name}"), 8).unwrap();
        u64::from_le_bytes(data.try_into().unwrap())
    };
    disk.list(dir).unwrap().into_iter().map(|entry| (entry.name.clone(), number(&entry.name))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn of_each_directory_a_prefix_survives(seed in any::<u64>(), ops in prop::collection::vec(name_op(), 1..40)) {
        let hostile = HostileDisk::new(seed);
        let mut chance = SmallRng::seed_from_u64(seed ^ 1);
        let mut disk = hostile.handle();
        for dir in DIRS {
            disk.create_dir_all(dir).unwrap();
        }
        disk.sync_dir("").unwrap();
        // What each directory looked like since its last sync, oldest first.
        let mut looks: Vec<Vec<Listing>> = vec![vec![Listing::new()]; DIRS.len()];
        let mut next = 0_u64;
        // Files that no operation since the last crash removed or replaced,
        // and that were there after it.
        let mut safe: BTreeSet<u64> = BTreeSet::new();
        for op in ops {
            match op {
                NameOp::Make { dir, name } => {
                    let path = format!("{}/{}", DIRS[dir], NAMES[name]);
                    if let Ok(file) = disk.open(&path, OpenMode::CreateNew) {
                        next += 1;
                        file.write_at(0, &next.to_le_bytes()).unwrap();
                        file.sync().unwrap();
                    }
                }
                NameOp::Rename { from, to } => {
                    if from == to {
                        continue;
                    }
                    let (from, to) =
                        (format!("{}/{}", DIRS[from.0], NAMES[from.1]), format!("{}/{}", DIRS[to.0], NAMES[to.1]));
                    let replaced = read_all(&*disk, &to, 8).ok();
                    if disk.rename(&from, &to).is_ok() && let Some(replaced) = replaced {
                        safe.remove(&u64::from_le_bytes(replaced.try_into().unwrap()));
                    }
                }
                NameOp::Remove { dir, name } => {
                    let path = format!("{}/{}", DIRS[dir], NAMES[name]);
                    if let Ok(data) = read_all(&*disk, &path, 8) {
                        safe.remove(&u64::from_le_bytes(data.try_into().unwrap()));
                        disk.remove(&path).unwrap();
                    }
                }
                NameOp::SyncDir { dir, fails: true } => {
                    hostile.set_faults(DiskFaults { sync_error_ppm: 1_000_000, ..DiskFaults::default() });
                    prop_assert!(disk.sync_dir(DIRS[dir]).is_err());
                    hostile.set_faults(DiskFaults::default());
                }
                NameOp::SyncDir { dir, fails: false } => {
                    disk.sync_dir(DIRS[dir]).unwrap();
                    looks[dir].clear();
                }
                NameOp::Crash => {
                    hostile.crash(&mut chance);
                    disk = hostile.handle();
                    let mut found = Vec::new();
                    for (dir, looks) in DIRS.iter().zip(&mut looks) {
                        let now = listing(&*disk, dir);
                        prop_assert!(looks.contains(&now), "{}: {:?} was never so: {:?}", dir, now, looks);
                        found.extend(now.values().copied());
                        *looks = vec![now];
                    }
                    let once: BTreeSet<u64> = found.iter().copied().collect();
                    prop_assert_eq!(once.len(), found.len(), "no file has two names");
                    prop_assert!(safe.is_subset(&once), "{:?} of {:?}", once, safe);
                    safe = once;
                    prop_assert_eq!(hostile.used_bytes(), safe.len() as u64 * 8, "nothing lost takes room");
                }
            }
            for (dir, looks) in DIRS.iter().zip(&mut looks) {
                let now = listing(&*disk, dir);
                if looks.last() != Some(&now) {
                    looks.push(now);
                }
            }
        }
    }
}

#[test]
fn a_synced_file_without_its_name_may_vanish() {
    let (mut kept, mut gone) = (0, 0);
    for seed in 0..64 {
        let hostile = HostileDisk::new(seed);
        let disk = hostile.handle();
        let file = open(&*disk, "f");
        file.write_at(0, b"precious").unwrap();
        file.sync().unwrap();
        hostile.crash(&mut SmallRng::seed_from_u64(seed));
        match read_all(&*hostile.handle(), "f", 99) {
            Ok(data) => {
                assert_eq!(data, b"precious");
                kept += 1;
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::NotFound);
                assert_eq!(hostile.used_bytes(), 0);
                gone += 1;
            }
        }
    }
    assert!(kept > 10 && gone > 10, "kept {kept}, gone {gone}");
}

#[test]
fn a_link_may_vanish_and_the_file_stays() {
    let (mut kept, mut lost) = (0, 0);
    for seed in 0..50 {
        let hostile = HostileDisk::new(seed);
        let disk = hostile.handle();
        disk.create_dir_all("work").unwrap();
        let file = open(&*disk, "cached");
        file.write_at(0, b"bytes").unwrap();
        file.sync().unwrap();
        disk.seal("cached").unwrap();
        disk.sync_dir("").unwrap();
        disk.sync_dir("work").unwrap();
        assert_eq!(disk.share("cached", "work/input", SEALED_MODE).unwrap(), Shared::Linked);
        assert_eq!(hostile.used_bytes(), 5, "once for both names");
        // Unsynced, and written by the other name.
        open(&*disk, "work/input").write_at(0, b"BYTES").unwrap();
        assert_eq!(read_all(&*disk, "cached", 9).unwrap(), b"BYTES");
        hostile.crash(&mut SmallRng::seed_from_u64(seed));
        let disk = hostile.handle();
        let cached = read_all(&*disk, "cached", 9).unwrap();
        assert!(cached == b"bytes" || cached == b"BYTES");
        match read_all(&*disk, "work/input", 9) {
            Ok(input) => {
                kept += 1;
                assert_eq!(input, cached, "still one file");
                disk.remove("cached").unwrap();
                assert_eq!(read_all(&*disk, "work/input", 9).unwrap(), input);
            }
            Err(error) => {
                lost += 1;
                assert_eq!(error.kind(), ErrorKind::NotFound);
                disk.remove("cached").unwrap();
                disk.sync_dir("").unwrap();
                assert_eq!(hostile.used_bytes(), 0, "nothing is left without a name");
            }
        }
    }
    assert!(kept > 0 && lost > 0, "{kept} kept, {lost} lost");
}

#[test]
fn a_replaced_file_is_old_or_new() {
    let mut found = BTreeSet::new();
    for seed in 0..200 {
        let hostile = HostileDisk::new(seed);
        let disk = hostile.handle();
        disk.create_dir_all("d").unwrap();
        disk.sync_dir("").unwrap();
        replace(&*disk, "d/f", b"old").unwrap();
        // The power fails before the directory is synced.
        let file = open(&*disk, "d/f.new");
        file.write_at(0, b"new").unwrap();
        file.sync().unwrap();
        disk.rename("d/f.new", "d/f").unwrap();
        hostile.crash(&mut SmallRng::seed_from_u64(seed));
        found.insert(read_all(&*hostile.handle(), "d/f", 99).unwrap());
    }
    assert_eq!(found, BTreeSet::from([b"old".to_vec(), b"new".to_vec()]));
}

#[test]
fn writes_are_lost_kept_and_torn_the_same_each_time() {
    let run = |seed| {
        let hostile = HostileDisk::new(seed);
        let disk = hostile.handle();
        let file = open(&*disk, "f");
        disk.sync_dir("").unwrap();
        for index in 0..100_u8 {
            file.write_at(u64::from(index) * 4096, &page(index, 4096)).unwrap();
        }
        hostile.crash(&mut SmallRng::seed_from_u64(seed));
        (read_all(&*hostile.handle(), "f", 1 << 20).unwrap(), hostile.counts())
    };
    let (data, counts) = run(5);
    assert_eq!((data, counts), run(5));
    assert_ne!(run(5).0, run(6).0);
    assert!(counts.writes_kept > 10 && counts.writes_lost > 10 && counts.writes_torn > 10, "{counts:?}");
    assert_eq!(counts.writes_kept + counts.writes_lost + counts.writes_torn, 100);
}

#[test]
fn a_fence_loses_nothing_and_shuts_out_the_dead() {
    let hostile = HostileDisk::new(1);
    let old = hostile.handle();
    let file = open(&*old, "f");
    file.write_at(0, b"in the page cache").unwrap();
    assert!(file.try_lock().unwrap());
    hostile.fence();
    assert_eq!(file.write_at(0, b"from the grave").unwrap_err().kind(), ErrorKind::StaleNetworkFileHandle);
    assert!(old.open("g", OpenMode::CreateNew).is_err());
    let disk = hostile.handle();
    assert_eq!(read_all(&*disk, "f", 99).unwrap(), b"in the page cache");
    let again = open(&*disk, "f");
    assert!(again.try_lock().unwrap(), "a claim ends with its process");
    // The old handle's end must not close the new one's file.
    drop(file);
    disk.remove("f").unwrap();
    assert_eq!(again.len().unwrap(), 17);
    drop(again);
    disk.sync_dir("").unwrap();
    assert_eq!(hostile.used_bytes(), 0);
}

#[test]
fn a_full_disk_says_so_and_takes_nothing() {
    let hostile = HostileDisk::new(1);
    let disk = hostile.handle();
    hostile.set_faults(DiskFaults { capacity_bytes: 1000, ..DiskFaults::default() });
    let file = open(&*disk, "f");
    file.write_at(0, &[1; 900]).unwrap();
    assert_eq!(file.write_at(900, &[2; 101]).unwrap_err().kind(), ErrorKind::StorageFull);
    assert_eq!(file.set_len(2000).unwrap_err().kind(), ErrorKind::StorageFull);
    assert_eq!(file.len().unwrap(), 900);
    file.write_at(0, &[3; 900]).unwrap();
    file.set_len(100).unwrap();
    open(&*disk, "g").write_at(0, &[4; 900]).unwrap();
    assert_eq!(hostile.counts().no_space, 2);
    assert_eq!(hostile.used_bytes(), 1000);
}

#[test]
fn a_lying_sync_keeps_no_promise() {
    let mut lost = 0;
    for seed in 0..50 {
        let hostile = HostileDisk::new(seed);
        let disk = hostile.handle();
        let file = open(&*disk, "f");
        disk.sync_dir("").unwrap();
        hostile.set_faults(DiskFaults { lying_sync_ppm: 1_000_000, ..DiskFaults::default() });
        file.write_at(0, b"x").unwrap();
        file.sync().unwrap();
        assert_eq!(hostile.counts().lying_syncs, 1);
        hostile.crash(&mut SmallRng::seed_from_u64(seed));
        lost += u32::from(read_all(&*hostile.handle(), "f", 9).unwrap().is_empty());
    }
    assert!(lost > 10, "{lost}");
}

#[test]
fn what_a_failed_sync_forgets_no_later_one_brings_back() {
    let mut lost = 0;
    for seed in 0..50 {
        let hostile = HostileDisk::new(seed);
        let disk = hostile.handle();
        let file = open(&*disk, "f");
        disk.sync_dir("").unwrap();
        file.write_at(0, b"x").unwrap();
        hostile.set_faults(DiskFaults {
            sync_error_ppm: 1_000_000,
            sync_error_forgets: true,
            ..DiskFaults::default()
        });
        file.sync().unwrap_err();
        hostile.set_faults(DiskFaults::default());
        file.write_at(1, b"y").unwrap();
        file.sync().unwrap();
        assert_eq!(read_all(&*disk, "f", 9).unwrap(), b"xy", "reads see it until the power fails");
        hostile.crash(&mut SmallRng::seed_from_u64(seed));
        let found = read_all(&*hostile.handle(), "f", 9).unwrap();
        assert_eq!(found[1], b'y', "what was written later and synced stays");
        lost += u32::from(found[0] == 0);
    }
    assert!(lost > 10, "{lost}");
}

#[test]
fn errors_strike_as_often_as_told() {
    let hostile = HostileDisk::new(9);
    let disk = hostile.handle();
    let file = open(&*disk, "f");
    file.write_at(0, &[0; 64]).unwrap();
    hostile.set_faults(DiskFaults {
        read_error_ppm: 100_000,
        write_error_ppm: 100_000,
        ..DiskFaults::default()
    });
    let mut failed = (0, 0);
    for _ in 0..1000 {
        failed.0 += u64::from(file.read_at(0, &mut [0; 8]).is_err());
        failed.1 += u64::from(file.write_at(0, &[1; 8]).is_err());
    }
    let counts = hostile.counts();
    assert_eq!((counts.read_errors, counts.write_errors), failed);
    assert!((50..200).contains(&failed.0) && (50..200).contains(&failed.1), "{failed:?}");
}
