//! What every store must do, as one suite over any implementation: embedded,
//! networked, simulated. It panics where one does not.
//!
//! It runs natively and under the simulator alike; all chance comes from the
//! seed. Nothing here waits for real time: [`Subject::pass`] moves the store's
//! clock. The store under test is a healthy one with nobody else in it.

mod leases;
mod model;
mod rows;
mod watches;

use crate::{Commit, CommitError, Key, RangeRequest, Revision, Row, Store};
use std::pin::Pin;
use std::sync::Arc;

/// Lets so many milliseconds of the store's clock pass.
pub type Pass = Arc<dyn Fn(u64) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// A fresh and empty store, and its clock.
#[derive(Clone)]
pub struct Subject {
    /// The store under test.
    pub store: Arc<dyn Store>,
    /// Moves the clock that its leases are counted by.
    pub pass: Pass,
}

impl Subject {
    /// Lets time pass and the store notice it.
    async fn let_pass(&self, span_ms: u64) {
        (self.pass)(span_ms).await;
        self.commit(Commit::new()).await.expect("a commit of nothing happens");
    }

    async fn commit(&self, commit: Commit) -> Result<Revision, CommitError> {
        self.store.commit(commit).await
    }

    async fn done(&self, commit: Commit) -> Revision {
        self.store.commit(commit).await.expect("this commit is within all limits and holds")
    }

    async fn get(&self, key: &str) -> Option<Row> {
        self.store.get(key_of(key)).await.expect("a row can be read")
    }

    async fn value(&self, key: &str) -> Option<String> {
        self.get(key).await.map(|row| String::from_utf8_lossy(&row.value).into_owned())
    }

    async fn keys(&self, request: RangeRequest) -> (Vec<String>, bool) {
        let page = self.store.range(request).await.expect("a page can be read");
        let keys = page.rows.iter().map(|row| String::from_utf8_lossy(&row.key).into_owned()).collect();
        (keys, page.more)
    }
}

fn key_of(key: &str) -> Key {
    Key::copy_from_slice(key.as_bytes())
}

/// Makes a fresh subject; may be called many times.
pub type Make = Box<dyn Fn() -> Pin<Box<dyn Future<Output = Subject> + Send>> + Send + Sync>;

/// Runs all of it, each part on a fresh subject. Can be a task of its own, on a
/// simulated node for instance.
pub async fn run_all(make: Make, seed: u64) {
    rows::guards_of_all_kinds(&make().await).await;
    rows::a_commit_happens_as_a_whole_or_not_at_all(&make().await).await;
    rows::versions_tell_who_wrote(&make().await).await;
    rows::calls_take_effect_in_their_order(&make().await).await;
    rows::a_broken_chain_breaks_all_behind(&make().await).await;
    rows::of_many_writers_each_wins_once(&make().await).await;
    rows::pages_are_ordered_and_whole(&make().await).await;
    rows::large_pages_are_cut(&make().await).await;
    rows::limits_are_kept_and_named(&make().await).await;
    watches::a_watch_tells_all_changes_below_its_prefix(&make().await).await;
    watches::a_watch_misses_nothing_while_others_write(&make().await).await;
    watches::a_slow_watch_is_cut_off_and_never_lies(&make().await).await;
    leases::rows_vanish_with_their_lease(&make().await).await;
    leases::a_kept_lease_lives(&make().await).await;
    leases::a_row_hangs_on_its_last_lease_only(&make().await).await;
    leases::limits_of_leases(&make().await).await;
    model::a_random_life_matches_the_model(&make().await, seed).await;
}

/// A small generator (SplitMix64): the same on every machine.
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// A fresh one.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// One of `0 .. bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.draw() % bound.max(1)
    }

    /// True once in `times`.
    pub fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }
}
