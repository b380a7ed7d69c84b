//! The embedded store where its disk fails it, and from one opening to the next.

mod support;

use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use std::sync::Arc;
use store::{
    Commit, CommitError, Key, Notice, OpenError, OpenOptions, RangeRequest, ReadError, RedbStore, Store,
    limits,
};
use support::ManualClock;
use world::disk::OpenMode;
use world::sim::{DiskFaults, HostileDisk};
use world::time;

const PATH: &str = "store.redb";

async fn open_with(
    disk: &HostileDisk,
    clock: &Arc<ManualClock>,
    options: OpenOptions,
) -> Result<Arc<RedbStore>, OpenError> {
    RedbStore::open_with(disk.handle(), PATH, Arc::clone(clock) as _, options).await
}

async fn open(disk: &HostileDisk) -> Result<Arc<RedbStore>, OpenError> {
    let options = OpenOptions { cache_bytes: 1 << 20, ..OpenOptions::default() };
    open_with(disk, &Arc::default(), options).await
}

async fn value(store: &RedbStore, key: &'static str) -> Option<String> {
    let row = store.get(Key::from_static(key.as_bytes())).await.unwrap();
    row.map(|row| String::from_utf8(row.value.to_vec()).unwrap())
}

#[tokio::test]
async fn what_was_committed_is_there_at_the_next_opening() {
    let disk = HostileDisk::new(1);
    let store = open(&disk).await.unwrap();
    let last = store.commit(Commit::new().put("a", "1").put("b", "2")).await.unwrap();
    store.close().await;
    assert!(matches!(store.commit(Commit::new().put("a", "2")).await, Err(CommitError::Unavailable(_))));
    assert!(matches!(store.get("a".into()).await, Err(ReadError::Unavailable(_))));
    let store = open(&disk).await.unwrap();
    assert_eq!(value(&store, "b").await.as_deref(), Some("2"));
    assert!(store.commit(Commit::new().put("c", "3")).await.unwrap() > last);
}

#[tokio::test]
async fn one_opening_at_a_time() {
    let disk = HostileDisk::new(2);
    let store = open(&disk).await.unwrap();
    assert!(matches!(open(&disk).await, Err(OpenError::Locked)));
    store.commit(Commit::new().put("a", "1")).await.unwrap();
    store.close().await;
    open(&disk).await.unwrap();
}

#[tokio::test]
async fn what_an_interrupted_making_left_is_thrown_away() {
    let disk = HostileDisk::new(3);
    let left = disk.handle().open("store.redb.new", OpenMode::CreateNew).unwrap();
    left.write_at(0, &[9; 70_000]).unwrap();
    drop(left);
    let store = open(&disk).await.unwrap();
    store.commit(Commit::new().put("a", "1")).await.unwrap();
    store.close().await;
    disk.handle().open("store.redb.new", OpenMode::CreateNew).unwrap();
    let store = open(&disk).await.unwrap();
    assert_eq!(value(&store, "a").await.as_deref(), Some("1"));
    assert!(disk.handle().entry("store.redb.new").is_err());
}

#[tokio::test]
async fn a_damaged_file_is_refused_and_left_alone() {
    let whole = async |disk: &HostileDisk| {
        let store = open(disk).await.unwrap();
        for at in 0..200_u32 {
            store.commit(Commit::new().put(format!("row/{at}"), vec![7; 500])).await.unwrap();
        }
        store.close().await;
    };
    let empty = HostileDisk::new(4);
    empty.handle().open(PATH, OpenMode::CreateNew).unwrap();
    assert!(matches!(open(&empty).await, Err(OpenError::Damaged(_))));

    let other = HostileDisk::new(5);
    other.handle().open(PATH, OpenMode::CreateNew).unwrap().write_at(0, &[b'x'; 100_000]).unwrap();
    assert!(matches!(open(&other).await, Err(OpenError::Damaged(_))));

    let cut = HostileDisk::new(6);
    whole(&cut).await;
    let file = cut.handle().open(PATH, OpenMode::Write).unwrap();
    file.set_len(file.len().unwrap() / 3).unwrap();
    drop(file);
    assert!(matches!(open(&cut).await, Err(OpenError::Damaged(_))));

    let flipped = HostileDisk::new(7);
    whole(&flipped).await;
    let file = flipped.handle().open(PATH, OpenMode::Write).unwrap();
    let mut page = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    file.read_at(0, &mut page).unwrap();
    // Every page that holds rows, behind the header.
    for at in (4096..page.len()).filter(|at| page[*at] == 7).step_by(997) {
        file.write_at(at as u64, &[8]).unwrap();
    }
    drop(file);
    assert!(matches!(open(&flipped).await, Err(OpenError::Damaged(_))));
}

#[tokio::test]
async fn after_a_failed_sync_nothing_is_believed_until_it_is_opened_anew() {
    for forgets in [false, true] {
        let disk = HostileDisk::new(8);
        let store = open(&disk).await.unwrap();
        store.commit(Commit::new().put("a", "1")).await.unwrap();
        let mut watch = store.watch(Key::new()).await.unwrap();
        disk.set_faults(DiskFaults {
            sync_error_ppm: 1_000_000,
            sync_error_forgets: forgets,
            ..DiskFaults::default()
        });
        let first = store.submit(Commit::new().put("a", "2"));
        assert!(matches!(first.await, Err(CommitError::Indeterminate(_))));
        disk.set_faults(DiskFaults::default());
        assert!(matches!(store.commit(Commit::new().put("b", "1")).await, Err(CommitError::Unavailable(_))));
        assert!(matches!(store.lease("me", 1000).await, Err(CommitError::Unavailable(_))));
        assert!(matches!(store.keep(1).await, Err(CommitError::Unavailable(_))));
        store.close().await;
        assert!(matches!(store.get("a".into()).await, Err(ReadError::Unavailable(_))));
        assert_eq!(watch.notices.recv().await, Some(Notice::Lagged), "the change was never told");
        disk.fence();
        let store = open(&disk).await.unwrap();
        assert!(["1", "2"].contains(&value(&store, "a").await.unwrap().as_str()));
        assert_eq!(value(&store, "b").await, None);
    }
}

/// Whoever only reads must not wait for somebody else's commit to learn that the
/// file has to be opened again.
#[tokio::test]
async fn a_failed_read_ends_the_store_before_anybody_writes() {
    let disk = HostileDisk::new(12);
    let store = open(&disk).await.unwrap();
    for number in 0..40 {
        store.commit(Commit::new().put(format!("row/{number}"), vec![7; 100_000])).await.unwrap();
    }
    store.close().await;
    // Far less memory than rows: what is read comes from the disk.
    let options = OpenOptions { cache_bytes: 1 << 16, ..OpenOptions::default() };
    let store = open_with(&disk, &Arc::default(), options).await.unwrap();
    disk.set_faults(DiskFaults { read_error_ppm: 1_000_000, ..DiskFaults::default() });
    assert!(matches!(store.get("row/7".into()).await, Err(ReadError::Unavailable(_))));
    let why = time::timeout(time::ms(10_000), store.stopped()).await.expect("it stops by itself");
    assert!(why.contains("must be opened again"), "{why}");
    assert!(store.is_stopped());
    disk.set_faults(DiskFaults::default());
    disk.fence();
    assert!(open(&disk).await.unwrap().get("row/7".into()).await.unwrap().is_some());
}

#[tokio::test]
async fn a_failing_disk_never_makes_it_lie() {
    for seed in 0..40 {
        let disk = HostileDisk::new(seed);
        let store = open(&disk).await.unwrap();
        disk.set_faults(DiskFaults { write_error_ppm: 20_000, ..DiskFaults::default() });
        let (mut sure, mut possible) = (0, 0);
        for number in 1..=100_u32 {
            match store
                .commit(Commit::new().put("n", number.to_string()).put(format!("n/{number}"), ""))
                .await
            {
                Ok(_) => (sure, possible) = (number, number),
                Err(CommitError::Indeterminate(_)) => possible = number,
                Err(CommitError::Unavailable(_)) => {}
                Err(error) => panic!("{error}"),
            }
        }
        store.close().await;
        disk.set_faults(DiskFaults::default());
        disk.fence();
        let store = open(&disk).await.unwrap();
        let found: u32 = value(&store, "n").await.map_or(0, |number| number.parse().unwrap());
        assert!((sure..=possible).contains(&found), "seed {seed}: {sure} <= {found} <= {possible}");
        let rows = store.range(RangeRequest::below(b"n/", 1000)).await.unwrap().rows;
        assert_eq!(rows.len(), found as usize);
    }
}

/// Whoever made the store died before its name was durable.
#[tokio::test]
async fn what_is_acknowledged_is_there_though_its_maker_left_no_durable_name() {
    let made = HostileDisk::new(12);
    open(&made).await.unwrap().close().await;
    let whole = world::disk::read_all(made.handle().as_ref(), PATH, 1 << 30).unwrap();
    for seed in 0..8 {
        let disk = HostileDisk::new(seed);
        let file = disk.handle().open(PATH, OpenMode::CreateNew).unwrap();
        file.write_at(0, &whole).unwrap();
        file.sync().unwrap();
        drop(file);
        let store = open(&disk).await.unwrap();
        store.commit(Commit::new().put("a", "1")).await.unwrap();
        store.close().await;
        disk.crash(&mut SmallRng::seed_from_u64(seed));
        assert_eq!(value(&open(&disk).await.unwrap(), "a").await.as_deref(), Some("1"), "seed {seed}");
    }
}

/// A sync fails and what it was to save will never be on the disk, though it is
/// read back and later syncs succeed, as on Linux.
#[tokio::test]
async fn what_is_acknowledged_after_a_failed_sync_is_there_when_the_power_fails() {
    for seed in 0..20 {
        let disk = HostileDisk::new(seed);
        let store = open(&disk).await.unwrap();
        store.commit(Commit::new().put("a", "1")).await.unwrap();
        let (sync_error_ppm, sync_error_forgets) = (1_000_000, true);
        disk.set_faults(DiskFaults { sync_error_ppm, sync_error_forgets, ..DiskFaults::default() });
        let unsure = store.commit(Commit::new().put("a", "2").put("b", vec![7; 50_000])).await;
        assert!(matches!(unsure, Err(CommitError::Indeterminate(_))));
        disk.set_faults(DiskFaults::default());
        store.close().await;
        disk.fence();
        let store = open(&disk).await.unwrap();
        store.commit(Commit::new().put("c", "3")).await.unwrap();
        let before = value(&store, "a").await;
        store.close().await;
        disk.crash(&mut SmallRng::seed_from_u64(seed));
        let store = open(&disk).await.unwrap();
        assert_eq!(value(&store, "c").await.as_deref(), Some("3"), "seed {seed}");
        assert_eq!(value(&store, "a").await, before, "seed {seed}: what was read once is read again");
        store.close().await;
        let names: Vec<String> =
            disk.handle().list("").unwrap().into_iter().map(|entry| entry.name).collect();
        assert_eq!(names, [PATH], "nothing is left beside it");
    }
}

/// Fills the disk, sees that nothing acknowledged is lost and all can be read,
/// frees some space, and goes on without opening anew.
#[tokio::test]
async fn a_full_disk_loses_nothing_and_heals_when_there_is_space() {
    for seed in 0..4 {
        let disk = HostileDisk::new(seed);
        let clock = Arc::new(ManualClock::default());
        let options = OpenOptions { cache_bytes: 1 << 20, ..OpenOptions::default() };
        let store = open_with(&disk, &clock, options).await.unwrap();
        let lease = store.lease("keeper", 3_600_000).await.unwrap();
        store.commit(Commit::new().put_leased("leased", "1", lease)).await.unwrap();
        let mut watch = store.watch("fill/".into()).await.unwrap();
        let room = disk.used_bytes() + 200_000 * seed;
        disk.set_faults(DiskFaults { capacity_bytes: room, ..DiskFaults::default() });
        let mut acknowledged = Vec::new();
        let mut refused = 0;
        for at in 0..60 {
            let key = format!("fill/{at:03}");
            match store.commit(Commit::new().put(key.clone(), vec![b'f'; 60_000])).await {
                Ok(_) => acknowledged.push(key),
                Err(CommitError::Full) => refused += 1,
                Err(error) => panic!("seed {seed}: {error}"),
            }
            clock.pass(limits::REOPEN_PAUSE_MS);
        }
        assert!(refused > 0, "seed {seed}");
        let there = async |store: &RedbStore| -> Vec<String> {
            let rows = store::scan(store, b"fill/", 100).await.unwrap();
            rows.iter().map(|row| String::from_utf8(row.key.to_vec()).unwrap()).collect()
        };
        assert_eq!(there(&store).await, acknowledged, "seed {seed}");
        store.keep(lease).await.unwrap();

        disk.set_faults(DiskFaults::default());
        clock.pass(limits::REOPEN_PAUSE_MS);
        store.commit(Commit::new().put("fill/last", "1")).await.unwrap();
        acknowledged.push("fill/last".to_owned());
        assert_eq!(there(&store).await, acknowledged);
        let mut told = Vec::new();
        while told.len() < acknowledged.len() {
            let Some(Notice::Changed { changes, .. }) = watch.notices.recv().await else { panic!("cut off") };
            told.extend(changes.into_iter().map(|(key, _)| String::from_utf8(key.to_vec()).unwrap()));
        }
        assert_eq!(told, acknowledged, "watchers heard of what happened and of nothing else");
        clock.pass(7_200_000);
        store.commit(Commit::new()).await.unwrap();
        assert_eq!(value(&store, "leased").await, None, "leases go on as before");
        store.close().await;
        assert_eq!(there(&open(&disk).await.unwrap()).await, acknowledged);
    }
}

#[tokio::test]
async fn leases_start_their_time_again_at_an_opening_or_end_with_it() {
    let disk = HostileDisk::new(9);
    let clock = Arc::new(ManualClock::default());
    let options = OpenOptions { cache_bytes: 1 << 20, ..OpenOptions::default() };
    let store = open_with(&disk, &clock, options).await.unwrap();
    let lease = store.lease("me", 1000).await.unwrap();
    store.commit(Commit::new().put_leased("row", "1", lease).put("other", "1")).await.unwrap();
    clock.pass(900);
    store.close().await;

    let store = open_with(&disk, &clock, options).await.unwrap();
    clock.pass(900);
    store.commit(Commit::new()).await.unwrap();
    assert_eq!(value(&store, "row").await.as_deref(), Some("1"));
    store.keep(lease).await.unwrap();
    clock.pass(1000);
    store.commit(Commit::new()).await.unwrap();
    assert_eq!(value(&store, "row").await, None);
    let lease = store.lease("me", 1000).await.unwrap();
    store.commit(Commit::new().put_leased("row", "2", lease)).await.unwrap();
    store.close().await;

    let store = open_with(&disk, &clock, OpenOptions { drop_leases: true, ..options }).await.unwrap();
    assert_eq!(value(&store, "row").await, None);
    assert_eq!(value(&store, "other").await.as_deref(), Some("1"));
    assert_eq!(store.keep(lease).await, Err(CommitError::LeaseGone(lease)));
    assert!(store.lease("me", 1000).await.unwrap() > lease, "no number comes twice");
}

/// A lease ends without anybody calling.
#[tokio::test]
async fn a_lease_ends_by_itself() {
    let disk = HostileDisk::new(10);
    let clock = Arc::new(ManualClock::default());
    let store = open_with(&disk, &clock, OpenOptions::default()).await.unwrap();
    let mut watch = store.watch(Key::new()).await.unwrap();
    let lease = store.lease("me", 10).await.unwrap();
    store.commit(Commit::new().put_leased("row", "1", lease)).await.unwrap();
    clock.pass(10);
    assert!(matches!(watch.notices.recv().await, Some(Notice::Changed { .. })));
    let Some(Notice::Changed { changes, .. }) = watch.notices.recv().await else { panic!("it ends") };
    assert_eq!(changes, vec![("row".into(), None)]);
}

#[tokio::test]
async fn the_line_keeps_its_order_and_has_an_end() {
    let disk = HostileDisk::new(11);
    let store = open(&disk).await.unwrap();
    // This test's runtime has one thread, so the writer takes nothing before
    // the first await: the line is as long as it gets.
    let count = limits::COMMIT_QUEUE_MAX + 10;
    let tickets: Vec<_> =
        (0..count).map(|at| store.submit(Commit::new().put("last", at.to_string()))).collect();
    let mut last = 0;
    for (at, ticket) in tickets.into_iter().enumerate() {
        match ticket.await {
            Ok(revision) => {
                assert!(at < limits::COMMIT_QUEUE_MAX && revision > last);
                last = revision;
            }
            Err(CommitError::Unavailable(why)) => {
                assert!(
                    at >= limits::COMMIT_QUEUE_MAX && why.contains(&limits::COMMIT_QUEUE_MAX.to_string()),
                    "{why}"
                );
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(value(&store, "last").await, Some((limits::COMMIT_QUEUE_MAX - 1).to_string()));
    store.ready().await;
}
