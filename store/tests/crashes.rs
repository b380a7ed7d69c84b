//! What survives when the power fails at any moment.
//!
//! Each life of the store: open it, send commits without waiting, let the power
//! fail at some write, sync or rename. After it the rows must be those of a
//! prefix of all commits sent: no acknowledged one missing, none in part, none
//! out of order, none that was told "nothing changed".

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use store::conformance::Chance;
use store::{Commit, CommitError, OpenError, OpenOptions, RedbStore, Store, scan};
use support::{FusedDisk, ManualClock};
use world::sim::HostileDisk;

type Rows = BTreeMap<String, String>;

/// The commit with this number; what it does follows from the number alone.
fn commit(number: u64) -> Commit {
    let mut chance = Chance::new(number);
    let mut commit = Commit::new().put("number", number.to_string());
    for _ in 0..chance.below(4) {
        let key = format!("row/{}", chance.below(30));
        if commit.writes.iter().any(|write| write.key == key) {
            continue;
        }
        commit = match chance.below(5) {
            0 => commit.delete(key),
            1 => commit.put(key, vec![b'a'; usize::try_from(chance.below(20_000)).unwrap()]),
            _ => commit.put(key, number.to_string()),
        };
    }
    commit
}

fn apply(rows: &mut Rows, commit: &Commit) {
    for write in &commit.writes {
        let key = String::from_utf8(write.key.to_vec()).unwrap();
        match &write.value {
            Some(value) => rows.insert(key, String::from_utf8(value.to_vec()).unwrap()),
            None => rows.remove(&key),
        };
    }
}

/// The rows after the first `count` commits.
fn after(count: u64) -> Rows {
    let mut rows = Rows::new();
    for number in 1..=count {
        apply(&mut rows, &commit(number));
    }
    rows
}

async fn rows_of(store: &RedbStore) -> Rows {
    let rows = scan(store, b"", 100).await.unwrap();
    let text = |bytes: bytes::Bytes| String::from_utf8(bytes.to_vec()).unwrap();
    rows.into_iter().map(|row| (text(row.key), text(row.value))).collect()
}

/// What is known about the commits sent so far.
#[derive(Debug, Default)]
struct Known {
    /// The last that is surely there.
    sure: u64,
    /// The last that may be there.
    possible: u64,
    tally: Tally,
}

/// What happened, so that the test cannot pass by doing nothing.
#[derive(Debug, Default)]
struct Tally {
    acknowledged: u64,
    unsure_and_there: u64,
    unsure_and_gone: u64,
    refused: u64,
    failed_openings: u64,
}

impl Known {
    /// Checks a store opened anew; whatever it holds is sure from now on.
    async fn check(&mut self, store: &RedbStore, context: &str) {
        let rows = rows_of(store).await;
        let count = rows.get("number").map_or(0, |number| number.parse().unwrap());
        assert!(
            count >= self.sure,
            "{context}: commit {} was acknowledged, {count} is the last there",
            self.sure
        );
        assert!(
            count <= self.possible,
            "{context}: commit {count} cannot be there, at most {}",
            self.possible
        );
        assert_eq!(rows, after(count), "{context}: the rows are not those after {count} commits");
        self.tally.unsure_and_there += count - self.sure;
        self.tally.unsure_and_gone += self.possible - count;
        (self.sure, self.possible) = (count, count);
    }

    /// Sends commits until the count is reached or the store gives up.
    async fn send(&mut self, store: &RedbStore, count: u64, chance: &mut Chance, context: &str) {
        let mut tickets = Vec::new();
        let first = self.possible + 1;
        for number in first..first + count {
            tickets.push((number, store.submit(commit(number))));
            if chance.once_in(6) {
                self.collect(&mut tickets, context).await;
            }
        }
        self.collect(&mut tickets, context).await;
    }

    async fn collect(&mut self, tickets: &mut Vec<(u64, store::CommitTicket)>, context: &str) {
        for (number, ticket) in tickets.drain(..) {
            match ticket.await {
                Ok(_) => {
                    assert_eq!(self.sure + 1, number, "{context}: acknowledged behind one that was not");
                    (self.sure, self.possible) = (number, number);
                    self.tally.acknowledged += 1;
                }
                Err(CommitError::Indeterminate(_)) => {
                    assert_eq!(self.possible + 1, number, "{context}");
                    self.possible = number;
                }
                // It did not happen, and so none after it may.
                Err(CommitError::Unavailable(_)) => self.tally.refused += 1,
                Err(error) => panic!("{context}: {error}"),
            }
        }
    }
}

/// One disk, many lives.
async fn lives(seed: u64) -> Tally {
    let mut chance = Chance::new(seed);
    let disk = HostileDisk::new(seed);
    let mut known = Known::default();
    for life in 0..12 {
        let context = format!("seed {seed}, life {life}");
        // Often during the opening itself, else somewhere among the commits.
        let fuse = if chance.once_in(3) { 1 + chance.below(40) } else { 1 + chance.below(900) };
        let fused = FusedDisk::new(&disk, fuse, chance.draw());
        let options = OpenOptions { cache_bytes: 256 << 10, drop_leases: false, verify: chance.once_in(2) };
        let opened = RedbStore::open_with(
            Arc::clone(&fused) as _,
            "a/store.redb",
            Arc::new(ManualClock::default()),
            options,
        );
        match opened.await {
            Ok(store) => {
                if !fused.burnt() {
                    // The power may fail amid these reads too: then they fail.
                    if let Ok(rows) = scan(store.as_ref(), b"", 100).await
                        && !fused.burnt()
                    {
                        drop(rows);
                        known.check(&store, &context).await;
                    }
                }
                if known.sure == known.possible {
                    let count = chance.below(150);
                    known.send(&store, count, &mut chance, &context).await;
                }
                if chance.once_in(4) {
                    store.close().await;
                } else {
                    fused.blow();
                    drop(store);
                }
                fused.blow();
            }
            Err(OpenError::Io(error)) => {
                assert!(fused.burnt(), "{context}: {error}");
                known.tally.failed_openings += 1;
            }
            Err(error) => panic!("{context}: {error}"),
        }
    }
    let options = OpenOptions { cache_bytes: 1 << 20, ..OpenOptions::default() };
    let store =
        RedbStore::open_with(disk.handle(), "a/store.redb", Arc::new(ManualClock::default()), options);
    let store = store.await.unwrap();
    known.check(&store, &format!("seed {seed}, at the end")).await;
    // And it works.
    let last = known.sure + 1;
    store.commit(commit(last)).await.unwrap();
    assert_eq!(rows_of(&store).await, after(last));
    known.tally
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_failure_leaves_a_prefix_of_the_commits() {
    let mut all = Tally::default();
    for seed in 0..40 {
        let tally = lives(seed).await;
        all.acknowledged += tally.acknowledged;
        all.unsure_and_there += tally.unsure_and_there;
        all.unsure_and_gone += tally.unsure_and_gone;
        all.refused += tally.refused;
        all.failed_openings += tally.failed_openings;
    }
    let seen =
        [all.acknowledged, all.unsure_and_there, all.unsure_and_gone, all.refused, all.failed_openings];
    assert!(seen.iter().all(|count| *count > 0), "{all:?}");
}
