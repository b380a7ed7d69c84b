//! A long random life of one store beside a plain map that does the same.

use super::watches::apply;
use super::{Chance, Subject, key_of};
use crate::{
    Commit, CommitError, Expect, Guard, Key, LeaseId, Notice, RangeRequest, Revision, Watch, Write,
    prefix_end,
};
use bytes::Bytes;
use std::collections::BTreeMap;

const TURNS: u64 = 600;
const TTL_MS: u64 = 3_600_000;

#[derive(Clone, Debug, PartialEq, Eq)]
struct ModelRow {
    value: Bytes,
    version: Revision,
    lease: LeaseId,
}

#[derive(Debug, Default)]
struct Model {
    rows: BTreeMap<Key, ModelRow>,
    leases: Vec<LeaseId>,
    dead_leases: Vec<LeaseId>,
    revision: Revision,
}

pub(super) async fn a_random_life_matches_the_model(subject: &Subject, seed: u64) {
    let mut chance = Chance::new(seed);
    let mut model = Model::default();
    let mut watch = subject.store.watch(key_of("b/")).await.expect("a watch can start");
    let mut mirror = BTreeMap::new();
    for turn in 0..TURNS {
        let context = format!("seed {seed}, turn {turn}");
        match chance.below(20) {
            0..=11 => commit(subject, &mut model, &mut chance, &context).await,
            12..=14 => range(subject, &model, &mut chance, &context).await,
            15..=16 => {
                let key = key(&mut chance);
                let row = subject.store.get(key.clone()).await.expect("a row can be read");
                let found =
                    row.map(|row| ModelRow { value: row.value, version: row.version, lease: row.lease });
                assert_eq!(found.as_ref(), model.rows.get(&key), "{context}");
            }
            17 => {
                let lease = subject.store.lease("model", TTL_MS).await.expect("a lease can be had");
                assert!(!model.leases.contains(&lease) && !model.dead_leases.contains(&lease), "{context}");
                model.leases.push(lease);
            }
            18 => {
                if let Some(lease) = pick(&model.leases, &mut chance) {
                    subject.store.revoke(lease).await.expect("it lives");
                    model.end(lease);
                }
            }
            _ => pass(subject, &mut model, &mut chance).await,
        }
        if chance.once_in(10) {
            catch_up(subject, &mut watch, &mut mirror).await;
            assert_eq!(mirror, model.below(b"b/"), "{context}");
        }
    }
}

fn pick<T: Copy>(list: &[T], chance: &mut Chance) -> Option<T> {
    let at = usize::try_from(chance.below(list.len() as u64)).unwrap_or(0);
    list.get(at).copied()
}

fn key(chance: &mut Chance) -> Key {
    let prefix = ["a/", "b/", "b/c/"][usize::try_from(chance.below(3)).unwrap_or(0)];
    key_of(&format!("{prefix}{}", chance.below(6)))
}

fn value(chance: &mut Chance) -> Bytes {
    // Few distinct values, so that guards on them often hold; some are large.
    if chance.once_in(20) {
        let length = usize::try_from(chance.below(9000)).unwrap_or(0);
        return vec![b'x'; length].into();
    }
    Bytes::from(chance.below(4).to_string())
}

impl Model {
    fn below(&self, prefix: &[u8]) -> BTreeMap<Key, Bytes> {
        let below = self.rows.iter().filter(|(key, _)| key.starts_with(prefix));
        below.map(|(key, row)| (key.clone(), row.value.clone())).collect()
    }

    fn end(&mut self, lease: LeaseId) {
        self.leases.retain(|other| *other != lease);
        self.dead_leases.push(lease);
        self.rows.retain(|_, row| row.lease != lease);
    }

    fn holds(&self, guard: &Guard) -> bool {
        let row = self.rows.get(&guard.key);
        match &guard.expect {
            Expect::Absent => row.is_none(),
            Expect::Version(version) => row.map_or(0, |row| row.version) == *version,
            Expect::Value(value) => row.is_some_and(|row| row.value == value),
        }
    }

    /// What must become of a commit, apart from its revision.
    fn judge(&self, commit: &Commit) -> Result<(), CommitError> {
        if let Some(guard) = commit.guards.iter().find(|guard| !self.holds(guard)) {
            let found = self.rows.get(&guard.key).map_or(0, |row| row.version);
            return Err(CommitError::Conflict { key: guard.key.clone(), found });
        }
        match commit.writes.iter().find(|write| write.lease != 0 && !self.leases.contains(&write.lease)) {
            Some(write) => Err(CommitError::LeaseGone(write.lease)),
            None => Ok(()),
        }
    }

    fn random_commit(&self, chance: &mut Chance) -> Commit {
        let mut commit = Commit::new();
        for _ in 0..chance.below(4) {
            let key = key(chance);
            let row = self.rows.get(&key);
            // Mostly what holds, so that most commits happen.
            let expect = match (chance.below(8), row) {
                (0, _) => Expect::Absent,
                (1, _) => Expect::Version(chance.below(self.revision + 2)),
                (2, _) => Expect::Value(value(chance)),
                (_, None) => Expect::Absent,
                (3..=5, Some(row)) => Expect::Version(row.version),
                (_, Some(row)) => Expect::Value(row.value.clone()),
            };
            commit.guards.push(Guard { key, expect });
        }
        for _ in 0..chance.below(5) {
            let key = key(chance);
            if commit.writes.iter().any(|write| write.key == key) {
                continue;
            }
            let value = if chance.once_in(4) { None } else { Some(value(chance)) };
            let lease = match chance.below(12) {
                0..=3 => pick(&self.leases, chance).unwrap_or(0),
                4 => pick(&self.dead_leases, chance).unwrap_or(0),
                _ => 0,
            };
            commit.writes.push(Write { key, value, lease });
        }
        commit
    }
}

async fn commit(subject: &Subject, model: &mut Model, chance: &mut Chance, context: &str) {
    let commit = model.random_commit(chance);
    let judged = model.judge(&commit);
    let outcome = subject.commit(commit.clone()).await;
    assert_eq!(outcome.clone().map(|_| ()), judged, "{context}: {commit:?}");
    let Ok(revision) = outcome else { return };
    if commit.writes.iter().any(|write| write.value.is_some()) {
        assert!(revision > model.revision, "{context}: revisions grow");
    }
    assert!(revision >= model.revision, "{context}");
    model.revision = revision;
    for Write { key, value, lease } in commit.writes {
        match value {
            Some(value) => model.rows.insert(key, ModelRow { value, version: revision, lease }),
            None => model.rows.remove(&key),
        };
    }
}

async fn range(subject: &Subject, model: &Model, chance: &mut Chance, context: &str) {
    let (one, other) = (key(chance), if chance.once_in(3) { prefix_end(b"b/") } else { key(chance) });
    let (from, to) = if one <= other { (one, other) } else { (other, one) };
    let limit = usize::try_from(1 + chance.below(8)).unwrap_or(1);
    let request = RangeRequest { from, to, limit, backwards: chance.once_in(2) };
    let page = subject.store.range(request.clone()).await.expect("a page can be read");
    let mut expected: Vec<(Key, ModelRow)> = model
        .rows
        .range(request.from.clone()..request.to.clone())
        .map(|(key, row)| (key.clone(), row.clone()))
        .collect();
    if request.backwards {
        expected.reverse();
    }
    let more = expected.len() > limit;
    expected.truncate(limit);
    let found: Vec<(Key, ModelRow)> = page
        .rows
        .into_iter()
        .map(|row| (row.key, ModelRow { value: row.value, version: row.version, lease: row.lease }))
        .collect();
    assert_eq!((found, page.more), (expected, more), "{context}: {request:?}");
    assert!(page.revision >= model.revision, "{context}");
}

/// Long enough for every lease that is not kept to end.
async fn pass(subject: &Subject, model: &mut Model, chance: &mut Chance) {
    subject.let_pass(TTL_MS * 2 / 3).await;
    let kept: Vec<LeaseId> = model.leases.iter().copied().filter(|_| chance.once_in(2)).collect();
    for lease in &kept {
        subject.store.keep(*lease).await.expect("it was made or kept in time");
    }
    subject.let_pass(TTL_MS * 2 / 3).await;
    for lease in model.leases.clone() {
        if kept.contains(&lease) {
            // A whole life again, so that the next pass finds it alive.
            subject.store.keep(lease).await.expect("it was kept in time");
        } else {
            model.end(lease);
        }
    }
}

/// Reads the watch up to a mark of its own.
async fn catch_up(subject: &Subject, watch: &mut Watch, mirror: &mut BTreeMap<Key, Bytes>) {
    let mark = subject.done(Commit::new().put("b/mark", "")).await;
    let unmark = subject.done(Commit::new().delete("b/mark")).await;
    assert!(unmark >= mark);
    loop {
        match watch.notices.recv().await {
            Some(Notice::Changed { revision, changes }) => {
                let marked = changes.iter().any(|(key, value)| key == "b/mark" && value.is_none());
                apply(mirror, changes);
                if marked && revision >= mark {
                    return;
                }
            }
            other => panic!("the watch ended: {other:?}"),
        }
    }
}
