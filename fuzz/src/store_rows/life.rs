//! A store from one opening to the next, and every state that its answers allow.

use super::Trouble;
use super::model::{self, Model, Operation, key};
use super::place::Place;
use super::wire;
use crate::draw::Draw;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;
use store::limits::{LEASE_TTL_MS_MAX, REOPEN_PAUSE_MS};
use store::{Commit, CommitError, Key, Notice, RangeRequest, ReadError, RedbStore, Revision, Store, Watch};
use world::NodeClock;

/// States the store may be in, so far as answers tell. More come of many answers
/// in a row that nobody is sure of; then one looks.
const WORLDS_MAX: usize = 64;

pub(super) struct Life {
    place: Place,
    store: Arc<RedbStore>,
    /// Every state that all answers so far allow. In a life without trouble one.
    worlds: Vec<Model>,
    watcher: Option<Watcher>,
}

struct Watcher {
    prefix: Key,
    watch: Watch,
    heard: Revision,
    mirror: BTreeMap<Key, Bytes>,
}

impl Life {
    pub(super) async fn begin(trouble: Trouble, draw: &mut Draw<'_>) -> Self {
        let mut place = Place::new(trouble, u64::from(draw.byte()));
        let mut worlds = vec![Model::default()];
        let store = place.open(&mut worlds, draw).await;
        place.fill();
        Self { place, store, worlds, watcher: None }
    }

    fn now_ms(&self) -> u64 {
        self.place.clock.monotonic_ms()
    }

    fn is_troubled(&self) -> bool {
        self.place.trouble.is_any()
    }

    /// The state that is followed where one must be chosen.
    fn guess(&self) -> &Model {
        self.worlds.last().expect("one state is left")
    }

    pub(super) async fn act(&mut self, draw: &mut Draw<'_>) {
        match draw.below(32) {
            0..=11 => self.commits(draw).await,
            12..=14 => self.range(draw).await,
            15..=16 => self.get(key(draw)).await,
            17..=18 => self.grant(draw).await,
            19 => self.keep(draw).await,
            20 => self.revoke(draw).await,
            21 => self.pass(draw).await,
            22..=23 => self.watch(draw).await,
            24..=25 => self.over_the_network(draw).await,
            26 => self.reopen(draw).await,
            27 => self.place.make_room(),
            _ => self.look(draw).await,
        }
        if self.is_over().await || self.worlds.len() > WORLDS_MAX {
            self.reopen(draw).await;
        }
        if self.worlds.len() > WORLDS_MAX {
            // A disk that cannot even be read leaves every doubt as it was, and
            // each further one doubles them: from here on it is well.
            self.place.heal();
            self.reopen(draw).await;
        }
        self.listen();
    }

    /// The power failed, or the store gave up its file. One that found its disk
    /// full does not: it waits for room.
    async fn is_over(&self) -> bool {
        if !self.is_troubled() || self.place.trouble.room_bytes.is_some() {
            return false;
        }
        let asked = self.store.get(Key::from_static(b"a")).await;
        self.place.fused.burnt() || matches!(asked, Err(ReadError::Unavailable(_)))
    }

    // --------------------------------------------------------------- answers

    /// Takes an answer: only states in which it is right are left.
    fn settle(&mut self, operation: &Operation, answer: Result<u64, CommitError>) {
        let now_ms = self.now_ms();
        match answer {
            Err(CommitError::Unavailable(_)) => assert!(self.is_troubled(), "gone without trouble"),
            Err(CommitError::Full) => {
                assert!(self.place.trouble.room_bytes.is_some(), "full, and nothing fills it")
            }
            Err(CommitError::Indeterminate(_)) => {
                assert!(self.is_troubled(), "unsure without trouble");
                model::or(&mut self.worlds, |world| {
                    // Whether nothing was done is all the same.
                    let _ = world.apply(operation, now_ms);
                });
            }
            answer => {
                let mut expected = Vec::new();
                self.worlds.retain_mut(|world| {
                    let right = world.apply(operation, now_ms);
                    let same = same(&right, &answer);
                    expected.push(right);
                    same
                });
                assert!(
                    !self.worlds.is_empty(),
                    "{operation:?} was answered with {answer:?}; due was one of {expected:?}"
                );
            }
        }
    }

    /// Commits sent without waiting, each on top of those before it.
    async fn commits(&mut self, draw: &mut Draw<'_>) {
        let mut ahead = self.guess().clone();
        let mut sent = Vec::new();
        for _ in 0..1 + draw.below(4) {
            let commit = ahead.draw_commit(draw);
            let operation = Operation::Commit(commit.clone());
            // Whatever becomes of it: later ones hang on it.
            let _ = ahead.apply(&operation, self.now_ms());
            sent.push((operation, self.store.submit(commit)));
        }
        for (operation, ticket) in sent {
            let answer = ticket.await;
            self.settle(&operation, answer);
        }
    }

    /// The same, in the words of the network.
    async fn over_the_network(&mut self, draw: &mut Draw<'_>) {
        if draw.coin() {
            let request = wire::range(draw);
            let answer = wire::ask_range(&self.store, request.clone()).await;
            self.read(&wire::range_meant(request), answer);
        } else {
            let request = wire::commit(self.guess(), draw);
            let answer = wire::ask_commit(&self.store, request.clone()).await;
            match wire::commit_meant(request) {
                Some(commit) => self.settle(&Operation::Commit(commit), answer),
                None => assert!(matches!(answer, Err(CommitError::Refused(_))), "{answer:?}"),
            }
        }
    }

    async fn range(&mut self, draw: &mut Draw<'_>) {
        let (one, other) = (key(draw), key(draw));
        // Seldom the wrong way around.
        let (from, to) = if one <= other || draw.seldom(16) { (one, other) } else { (other, one) };
        let limit = if draw.seldom(16) { draw.word() as usize } else { 1 + draw.below(8) };
        let request = RangeRequest { from, to, limit, backwards: draw.coin() };
        let answer = self.store.range(request.clone()).await;
        self.read(&request, answer);
    }

    fn read(&mut self, request: &RangeRequest, answer: Result<store::Page, ReadError>) {
        match answer {
            Ok(page) => {
                let worlds = std::mem::take(&mut self.worlds);
                let right = |world: &Model| world.page(request).as_ref() == Some(&page);
                let (left, wrong): (Vec<_>, Vec<_>) = worlds.into_iter().partition(right);
                assert!(!left.is_empty(), "{request:?} gave {page:?}; the rows are {wrong:?}");
                self.worlds = left;
            }
            Err(ReadError::Refused(_)) => assert_eq!(self.guess().page(request), None, "{request:?}"),
            Err(ReadError::Unavailable(why)) => assert!(self.is_troubled(), "{why}"),
            Err(ReadError::Corrupt(why)) => panic!("{why}"),
        }
    }

    async fn get(&mut self, key: Key) {
        match self.store.get(key.clone()).await {
            Ok(row) => {
                self.worlds.retain(|world| world.rows.get(&key) == row.as_ref());
                assert!(!self.worlds.is_empty(), "{key:?} is {row:?}");
            }
            Err(ReadError::Refused(_)) => assert!(key.is_empty() || key.len() > 1024, "{key:?}"),
            Err(ReadError::Unavailable(why)) => assert!(self.is_troubled(), "{why}"),
            Err(ReadError::Corrupt(why)) => panic!("{why}"),
        }
    }

    // ---------------------------------------------------------------- leases

    async fn grant(&mut self, draw: &mut Draw<'_>) {
        let owner = "o".repeat(if draw.seldom(16) { draw.below(256) * 2 } else { 1 + draw.below(8) });
        // Where the disk fails no lease ends by itself: what then ends with a
        // commit that failed is another story than the rows'.
        let ttl_ms = match draw.below(8) {
            0 => draw.number(),
            _ if self.is_troubled() => LEASE_TTL_MS_MAX,
            _ => 1 + draw.word(),
        };
        if self.is_troubled() && ttl_ms != LEASE_TTL_MS_MAX && ttl_ms != 0 {
            return;
        }
        let answer = self.store.lease(&owner, ttl_ms).await;
        self.settle(&Operation::Grant { owner, ttl_ms }, answer);
    }

    async fn keep(&mut self, draw: &mut Draw<'_>) {
        let (lease, now_ms) = (self.guess().draw_lease(draw), self.now_ms());
        let answer = self.store.keep(lease).await;
        if let Err(CommitError::Unavailable(_)) = answer {
            return assert!(self.is_troubled());
        }
        self.worlds.retain_mut(|world| world.keep(lease, now_ms) == answer);
        assert!(!self.worlds.is_empty(), "keeping {lease} was answered with {answer:?}");
    }

    async fn revoke(&mut self, draw: &mut Draw<'_>) {
        let lease = self.guess().draw_lease(draw);
        let answer = self.store.revoke(lease).await.map(|()| 0);
        self.settle(&Operation::Revoke(lease), answer);
    }

    /// Time passes, and the store looks at its clock.
    async fn pass(&mut self, draw: &mut Draw<'_>) {
        if self.is_troubled() {
            self.place.clock.pass(REOPEN_PAUSE_MS);
        } else {
            self.place.clock.pass(draw.word() << draw.below(4));
        }
        let now_ms = self.now_ms();
        self.worlds.iter_mut().for_each(|world| world.end_due(now_ms));
        self.ask_nothing().await;
    }

    /// A commit of nothing: what the store still had to do is done after it.
    async fn ask_nothing(&mut self) {
        let answer = self.store.commit(Commit::new()).await;
        self.settle(&Operation::Commit(Commit::new()), answer);
    }

    // -------------------------------------------------------------- watchers

    async fn watch(&mut self, draw: &mut Draw<'_>) {
        let prefix = Key::from_static([&b""[..], b"b/", b"b/c", b"a/1"][draw.below(4)]);
        match self.store.watch(prefix.clone()).await {
            Ok(watch) => {
                let heard = watch.revision;
                self.watcher = Some(Watcher { prefix, watch, heard, mirror: BTreeMap::new() });
                self.ask_nothing().await;
                self.listen();
                // What was there before is read, as every watcher does.
                let Ok(rows) = store::scan(self.store.as_ref(), b"", 7).await else {
                    return self.watcher = None;
                };
                let Some(watcher) = &mut self.watcher else { return };
                let below = rows.into_iter().filter(|row| row.key.starts_with(&watcher.prefix));
                watcher.mirror = below.map(|row| (row.key, row.value)).collect();
            }
            Err(error) => assert!(self.is_troubled(), "{error}"),
        }
    }

    /// Takes in all notices.
    fn listen(&mut self) {
        let troubled = self.is_troubled();
        let Some(watcher) = &mut self.watcher else { return };
        while let Ok(notice) = watcher.watch.notices.try_recv() {
            match notice {
                Notice::Changed { revision, changes } => {
                    assert!(revision > watcher.heard, "{revision} was told after {}", watcher.heard);
                    assert!(!changes.is_empty());
                    watcher.heard = revision;
                    for (key, value) in changes {
                        assert!(key.starts_with(&watcher.prefix), "{key:?} is not watched");
                        match value {
                            Some(value) => drop(watcher.mirror.insert(key, value)),
                            None => drop(watcher.mirror.remove(&key)),
                        }
                    }
                }
                Notice::Lagged => {
                    assert!(troubled, "cut off without trouble");
                    assert!(watcher.watch.notices.try_recv().is_err(), "nothing comes after that");
                    return self.watcher = None;
                }
            }
        }
    }

    /// All rows are read, and what watchers mirror is compared to them.
    async fn look(&mut self, draw: &mut Draw<'_>) {
        self.ask_nothing().await;
        let request = RangeRequest { backwards: draw.coin(), ..RangeRequest::below(b"", 1000) };
        let answer = self.store.range(request.clone()).await;
        let seen = answer.is_ok();
        self.read(&request, answer);
        self.listen();
        if let Some(watcher) = &self.watcher
            && seen
        {
            let below = self.guess().below(&watcher.prefix);
            assert_eq!(watcher.mirror, below, "what was told below {:?}", watcher.prefix);
        }
    }

    // -------------------------------------------------------------- openings

    /// The store is closed, or its process dies, or the power fails; then it is
    /// opened anew.
    async fn reopen(&mut self, draw: &mut Draw<'_>) {
        self.watcher = None;
        match draw.below(4) {
            0 | 1 if !self.place.fused.burnt() => self.place.disk.fence(),
            2 if !self.place.fused.burnt() => {}
            _ => self.place.fused.blow(),
        }
        self.store.close().await;
        self.place.disk.fence();
        self.store = self.place.open(&mut self.worlds, draw).await;
        self.look(draw).await;
    }

    /// The disk is well again: all that was answered is there, and it works.
    pub(super) async fn end(mut self) {
        self.place.heal();
        self.reopen(&mut Draw::new(&[2])).await;
        self.look(&mut Draw::new(&[])).await;
        let commit = Commit::new().guard_version("last", 0).put("last", "1");
        let answer = self.store.commit(commit.clone()).await;
        assert!(answer.is_ok(), "{answer:?}");
        self.settle(&Operation::Commit(commit), answer);
        self.store.close().await;
    }
}

fn same(one: &Result<u64, CommitError>, other: &Result<u64, CommitError>) -> bool {
    match (one, other) {
        (Err(CommitError::Refused(_)), Err(CommitError::Refused(why))) => !why.is_empty(),
        _ => one == other,
    }
}
