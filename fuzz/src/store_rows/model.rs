//! The same rows in plain maps: what every commit, lease and page must come to.

use crate::draw::Draw;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use store::limits::{
    COMMIT_BYTES_MAX, COMMIT_OPERATIONS_MAX, KEY_BYTES_MAX, LEASE_OWNER_BYTES_MAX, LEASE_TTL_MS_MAX,
    RANGE_ROWS_MAX,
};
use store::{Commit, CommitError, Expect, Guard, Key, LeaseId, Page, RangeRequest, Revision, Row, Write};

/// What stands in line at the store.
#[derive(Clone, Debug)]
pub(super) enum Operation {
    Commit(Commit),
    Grant { owner: String, ttl_ms: u64 },
    Revoke(LeaseId),
}

/// One state the store may be in.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Model {
    // First, since it tells most of them apart.
    pub(super) revision: Revision,
    pub(super) leases: BTreeMap<LeaseId, Lease>,
    pub(super) rows: BTreeMap<Key, Row>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Lease {
    pub(super) ttl_ms: u64,
    pub(super) ends_ms: u64,
}

/// What was refused says why in words, which are not compared.
pub(super) fn refused<T>() -> Result<T, CommitError> {
    Err(CommitError::Refused(String::new()))
}

/// Adds to each state the one it is in if this happened too. Those that come to
/// the same are one: else a few hundred bytes of doubts would be millions of them.
pub(super) fn or(worlds: &mut Vec<Model>, happen: impl Fn(&mut Model)) {
    for mut world in worlds.clone() {
        happen(&mut world);
        if !worlds.contains(&world) {
            worlds.push(world);
        }
    }
}

impl Model {
    /// Does it, and says what the answer is.
    pub(super) fn apply(&mut self, operation: &Operation, now_ms: u64) -> Result<u64, CommitError> {
        match operation {
            Operation::Commit(commit) => self.commit(commit),
            Operation::Grant { owner, ttl_ms } => {
                if owner.is_empty()
                    || owner.len() > LEASE_OWNER_BYTES_MAX
                    || !(1..=LEASE_TTL_MS_MAX).contains(ttl_ms)
                {
                    return refused();
                }
                self.revision += 1;
                let ends_ms = now_ms + ttl_ms;
                self.leases.insert(self.revision, Lease { ttl_ms: *ttl_ms, ends_ms });
                Ok(self.revision)
            }
            Operation::Revoke(lease) if self.leases.contains_key(lease) => {
                self.end(*lease);
                Ok(0)
            }
            Operation::Revoke(lease) => Err(CommitError::LeaseGone(*lease)),
        }
    }

    fn commit(&mut self, commit: &Commit) -> Result<Revision, CommitError> {
        if !is_within_limits(commit) {
            return refused();
        }
        if let Some(guard) = commit.guards.iter().find(|guard| !self.holds(guard)) {
            let found = self.rows.get(&guard.key).map_or(0, |row| row.version);
            return Err(CommitError::Conflict { key: guard.key.clone(), found });
        }
        let unknown = |write: &&Write| write.lease != 0 && !self.leases.contains_key(&write.lease);
        if let Some(write) = commit.writes.iter().find(unknown) {
            return Err(CommitError::LeaseGone(write.lease));
        }
        if commit.writes.is_empty() {
            return Ok(self.revision);
        }
        self.revision += 1;
        for Write { key, value, lease } in commit.writes.clone() {
            match value {
                Some(value) => {
                    let row = Row { key: key.clone(), value, version: self.revision, lease };
                    self.rows.insert(key, row)
                }
                None => self.rows.remove(&key),
            };
        }
        Ok(self.revision)
    }

    fn holds(&self, guard: &Guard) -> bool {
        let row = self.rows.get(&guard.key);
        match &guard.expect {
            Expect::Absent => row.is_none(),
            Expect::Version(version) => row.map_or(0, |row| row.version) == *version,
            Expect::Value(value) => row.is_some_and(|row| row.value == value),
        }
    }

    pub(super) fn keep(&mut self, lease: LeaseId, now_ms: u64) -> Result<(), CommitError> {
        match self.leases.get_mut(&lease).filter(|held| now_ms < held.ends_ms) {
            Some(held) => {
                held.ends_ms = now_ms + held.ttl_ms;
                Ok(())
            }
            None => Err(CommitError::LeaseGone(lease)),
        }
    }

    /// A lease ends with its rows, at a revision of its own.
    fn end(&mut self, lease: LeaseId) {
        self.revision += 1;
        self.leases.remove(&lease);
        self.rows.retain(|_, row| row.lease != lease);
    }

    /// The leases whose time has passed end.
    pub(super) fn end_due(&mut self, now_ms: u64) {
        let due: Vec<LeaseId> =
            self.leases.iter().filter(|(_, held)| held.ends_ms <= now_ms).map(|(lease, _)| *lease).collect();
        due.into_iter().for_each(|lease| self.end(lease));
    }

    /// At an opening leases start their whole time again, or all end.
    pub(super) fn opened(&mut self, drop_leases: bool, now_ms: u64) {
        if drop_leases {
            for lease in self.leases.keys().copied().collect::<Vec<_>>() {
                self.end(lease);
            }
        }
        self.leases.values_mut().for_each(|held| held.ends_ms = now_ms + held.ttl_ms);
    }

    /// `None`: the request is refused.
    pub(super) fn page(&self, request: &RangeRequest) -> Option<Page> {
        let RangeRequest { from, to, limit, backwards } = request;
        let long = from.len() > KEY_BYTES_MAX + 1 || to.len() > KEY_BYTES_MAX + 1;
        if long || from > to || !(1..=RANGE_ROWS_MAX).contains(limit) {
            return None;
        }
        let mut rows: Vec<Row> =
            self.rows.range(from.clone()..to.clone()).map(|(_, row)| row.clone()).collect();
        if *backwards {
            rows.reverse();
        }
        let more = rows.len() > *limit;
        rows.truncate(*limit);
        Some(Page { rows, more, revision: self.revision })
    }

    /// Keys and bytes below a prefix, as a watcher mirrors them.
    pub(super) fn below(&self, prefix: &[u8]) -> BTreeMap<Key, Bytes> {
        let below = self.rows.iter().filter(|(key, _)| key.starts_with(prefix));
        below.map(|(key, row)| (key.clone(), row.value.clone())).collect()
    }

    // ----------------------------------------------------------------- draws

    /// Mostly what happens; sometimes what a guard, a lease or a limit forbids.
    pub(super) fn draw_commit(&self, draw: &mut Draw<'_>) -> Commit {
        let mut commit = Commit::new();
        for _ in 0..draw.below(4) {
            let key = key(draw);
            let row = self.rows.get(&key);
            let expect = match (draw.below(8), row) {
                (0, _) => Expect::Absent,
                (1, _) => Expect::Version(draw.number()),
                (2, _) => Expect::Value(value(draw)),
                (_, None) => Expect::Absent,
                (3..=5, Some(row)) => Expect::Version(row.version),
                (_, Some(row)) => Expect::Value(row.value.clone()),
            };
            commit.guards.push(Guard { key, expect });
        }
        for _ in 0..draw.below(5) {
            let key = key(draw);
            let value = if draw.seldom(4) { None } else { Some(value(draw)) };
            // Twice the same key is one slip among others.
            let twice = commit.writes.iter().any(|write| write.key == key);
            if !twice || draw.seldom(16) {
                commit.writes.push(Write { key, value, lease: self.draw_lease(draw) });
            }
        }
        match draw.below(64) {
            62 => {
                let guard = Guard { key: Key::from_static(b"a/0"), expect: Expect::Version(0) };
                commit.guards.resize(COMMIT_OPERATIONS_MAX + draw.below(2), guard);
            }
            63 => {
                let value = vec![b'x'; COMMIT_BYTES_MAX - draw.below(8)];
                commit = Commit::new().put("a/0", value);
            }
            _ => {}
        }
        commit
    }

    /// Mostly none; else one that lives, or lived, or never did.
    pub(super) fn draw_lease(&self, draw: &mut Draw<'_>) -> LeaseId {
        let living: Vec<LeaseId> = self.leases.keys().copied().take(256).collect();
        match draw.below(12) {
            0..=3 if !living.is_empty() => *draw.pick(&living),
            4 => draw.number(),
            _ => 0,
        }
    }
}

fn is_within_limits(commit: &Commit) -> bool {
    let guards = commit.guards.iter().map(|guard| match &guard.expect {
        Expect::Value(value) => guard.key.len() + value.len(),
        Expect::Absent | Expect::Version(_) => guard.key.len(),
    });
    let writes =
        commit.writes.iter().map(|write| write.key.len() + write.value.as_ref().map_or(0, Bytes::len));
    let bytes: usize = guards.chain(writes).sum();
    let written: BTreeSet<&Key> = commit.writes.iter().map(|write| &write.key).collect();
    let mut keys = commit.guards.iter().map(|guard| &guard.key).chain(written.iter().copied());
    commit.guards.len() + commit.writes.len() <= COMMIT_OPERATIONS_MAX
        && bytes <= COMMIT_BYTES_MAX
        && written.len() == commit.writes.len()
        && keys.all(|key| (1..=KEY_BYTES_MAX).contains(&key.len()))
}

/// One of few, so that commits meet; seldom one at the edge of what a key is.
pub(super) fn key(draw: &mut Draw<'_>) -> Key {
    let strange = [0, 1, KEY_BYTES_MAX, KEY_BYTES_MAX + 1];
    match draw.below(32) {
        30 => vec![b'k'; *draw.pick(&strange)].into(),
        31 => vec![u8::MAX; 1 + draw.below(3)].into(),
        at => format!("{}{}", ["a/", "b/", "b/c/"][at % 3], at % 5).into(),
    }
}

/// One of few, so that guards on them hold; seldom one of many pages.
fn value(draw: &mut Draw<'_>) -> Bytes {
    match draw.below(24) {
        22 => vec![b'x'; draw.below(256) * 40].into(),
        23 => Bytes::copy_from_slice(draw.bytes(9)),
        few => (few % 4).to_string().into(),
    }
}
