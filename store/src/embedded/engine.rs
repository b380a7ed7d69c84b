//! Applies one group of commits in one transaction and one sync.
//!
//! What must hold: guards are judged in the order of the line against the
//! transaction's own state; each commit that writes has a revision of its own;
//! nothing is answered before the sync; and an answer that says "nothing
//! changed" is only given where that is certain. All of it blocks.

use super::OpenOptions;
use super::file::{self, HUNG, LEASES, REVISION, ROW_HEAD_BYTES, ROWS, hung_key, revision_row, split_row};
use super::line::{Answer, Operation};
use super::shared::{Shared, Slot};
use crate::limits::{LEASE_ROWS_MAX, LEASES_MAX, REOPEN_PAUSE_MS};
use crate::watching::Change;
use crate::{Commit, CommitError, Expect, Guard, Key, LeaseId, Revision, Write};
use redb::{Database, ReadableDatabase, ReadableTable, Table, WriteTransaction};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use world::Disk;

/// The writer's own state. Only one exists for a store.
#[derive(Debug)]
pub(crate) struct Engine {
    pub shared: Arc<Shared>,
    pub disk: Arc<dyn Disk>,
    pub path: String,
    pub options: OpenOptions,
    /// The last revision given; durable between two groups.
    pub revision: Revision,
    pub leases: BTreeMap<LeaseId, Hung>,
    /// Which lease a row hangs on.
    pub hung: BTreeMap<Key, LeaseId>,
    /// Until when a disk found full counts as full, untried.
    pub full_until_ms: u64,
}

/// A lease as the writer sees it.
#[derive(Debug)]
pub(crate) struct Hung {
    pub ttl_ms: u64,
    pub keys: BTreeSet<Key>,
}

/// What became of a group.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// One for each operation.
    pub answers: Vec<Answer>,
    /// What watchers are told.
    pub changes: Vec<Change>,
    pub granted: Vec<(LeaseId, u64)>,
    pub ended: Vec<LeaseId>,
    /// The group failed: the writer rests before it tries again by itself.
    pub failed: bool,
    /// The store cannot go on.
    pub poisoned: Option<String>,
}

/// Why a group is not durable for sure.
struct Failure {
    why: String,
    /// What would have been told, where the final commit had begun.
    begun: Option<Outcome>,
}

impl<E: Into<redb::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self { why: error.into().to_string(), begun: None }
    }
}

/// The tables of one transaction; those for leases are opened when needed.
struct Tables<'t> {
    txn: &'t WriteTransaction,
    rows: Table<'t, &'static [u8], &'static [u8]>,
    leases: Option<Table<'t, u64, &'static [u8]>>,
    hung: Option<Table<'t, &'static [u8], ()>>,
}

impl<'t> Tables<'t> {
    fn open(txn: &'t WriteTransaction) -> Result<Self, redb::Error> {
        Ok(Self { txn, rows: txn.open_table(ROWS)?, leases: None, hung: None })
    }

    fn leases(&mut self) -> Result<&mut Table<'t, u64, &'static [u8]>, redb::Error> {
        match &mut self.leases {
            Some(table) => Ok(table),
            none => Ok(none.insert(self.txn.open_table(LEASES)?)),
        }
    }

    fn hung(&mut self) -> Result<&mut Table<'t, &'static [u8], ()>, redb::Error> {
        match &mut self.hung {
            Some(table) => Ok(table),
            none => Ok(none.insert(self.txn.open_table(HUNG)?)),
        }
    }
}

impl Engine {
    /// Ends the leases that are due, then does what the line brought.
    pub fn run(&mut self, operations: Vec<Operation>, due: &[LeaseId], now_ms: u64) -> Outcome {
        let count = operations.len();
        // Trying costs a reading of the whole file, so it is done rarely.
        if now_ms < self.full_until_ms || (self.shared.is_broken() && !self.reopen(now_ms)) {
            return Outcome {
                answers: vec![Err(CommitError::Full); count],
                failed: true,
                ..Outcome::default()
            };
        }
        self.tell_found();
        let shared = Arc::clone(&self.shared);
        let slot = shared.slot_read();
        let Slot::Open(opened) = &*slot else {
            let why = Err(CommitError::Unavailable("the store is closed".to_owned()));
            return Outcome { answers: vec![why; count], ..Outcome::default() };
        };
        match self.apply(&opened.database, operations, due) {
            Ok(outcome) => outcome,
            Err(failure) => {
                let only_full = opened.faults.only_full();
                drop(slot);
                self.failed(failure, only_full, count, now_ms)
            }
        }
    }

    fn apply(
        &mut self,
        database: &Database,
        operations: Vec<Operation>,
        due: &[LeaseId],
    ) -> Result<Outcome, Failure> {
        let before = self.revision;
        // While somebody reads the state before, a commit leaves the pages it frees to
        // the next one. Else it frees them in a second transaction of its own behind
        // each commit, which costs half as much again.
        let _reader = database.begin_read()?;
        let txn = database.try_begin_write()?;
        let mut outcome = Outcome::default();
        {
            let mut tables = Tables::open(&txn)?;
            for lease in due {
                world::mark!("store.lease.ended_by_time");
                self.end_lease(&mut tables, *lease, &mut outcome)?;
            }
            outcome.answers.reserve(operations.len());
            for operation in operations {
                let answer = match operation {
                    Operation::Commit(commit) => self.commit(&mut tables, commit, &mut outcome)?,
                    Operation::Grant { owner, ttl_ms } => {
                        self.grant(&mut tables, &owner, ttl_ms, &mut outcome)?
                    }
                    Operation::Revoke(lease) if self.leases.contains_key(&lease) => {
                        world::mark!("store.lease.revoked");
                        self.end_lease(&mut tables, lease, &mut outcome)?;
                        Ok(0)
                    }
                    Operation::Revoke(lease) => Err(CommitError::LeaseGone(lease)),
                };
                outcome.answers.push(answer);
            }
            if self.revision > before {
                tables.rows.insert(REVISION, revision_row(self.revision).as_slice())?;
            }
        }
        if self.revision == before {
            // Nothing to write and so nothing to sync: what was read is durable.
            txn.abort()?;
            return Ok(outcome);
        }
        match txn.commit() {
            Ok(()) => Ok(outcome),
            Err(error) => Err(Failure { why: redb::Error::from(error).to_string(), begun: Some(outcome) }),
        }
    }

    fn commit(
        &mut self,
        tables: &mut Tables<'_>,
        commit: Commit,
        outcome: &mut Outcome,
    ) -> Result<Answer, redb::Error> {
        for guard in &commit.guards {
            if let Some(found) = broken(tables, guard)? {
                world::mark!("store.commit.conflict");
                return Ok(Err(CommitError::Conflict { key: guard.key.clone(), found }));
            }
        }
        if let Some(refusal) = self.lease_refusal(&commit) {
            return Ok(Err(refusal));
        }
        if commit.writes.is_empty() {
            return Ok(Ok(self.revision));
        }
        self.revision += 1;
        let revision = self.revision;
        let mut rows = Vec::with_capacity(commit.writes.len());
        for write in commit.writes {
            let Write { key, value, lease } = write;
            self.rehang(tables, &key, if value.is_some() { lease } else { 0 })?;
            match value {
                Some(value) => {
                    {
                        let mut stored =
                            tables.rows.insert_reserve(key.as_ref(), ROW_HEAD_BYTES + value.len())?;
                        let stored = stored.as_mut();
                        stored[..8].copy_from_slice(&revision.to_be_bytes());
                        stored[8..ROW_HEAD_BYTES].copy_from_slice(&lease.to_be_bytes());
                        stored[ROW_HEAD_BYTES..].copy_from_slice(&value);
                    }
                    rows.push((key, Some(value)));
                }
                None => {
                    if tables.rows.remove(key.as_ref())?.is_some() {
                        rows.push((key, None));
                    }
                }
            }
        }
        outcome.changes.push(Change { revision, rows });
        Ok(Ok(revision))
    }

    /// Why the leases a commit names do not allow it.
    fn lease_refusal(&self, commit: &Commit) -> Option<CommitError> {
        let mut added: BTreeMap<LeaseId, usize> = BTreeMap::new();
        for write in commit.writes.iter().filter(|write| write.lease != 0) {
            let Some(hung) = self.leases.get(&write.lease) else {
                return Some(CommitError::LeaseGone(write.lease));
            };
            if write.value.is_some() && !hung.keys.contains(&write.key) {
                let added = added.entry(write.lease).or_default();
                *added += 1;
                if hung.keys.len() + *added > LEASE_ROWS_MAX {
                    return Some(CommitError::Refused(format!(
                        "more than {LEASE_ROWS_MAX} rows on lease {}, the most that hang on one",
                        write.lease
                    )));
                }
            }
        }
        None
    }

    /// Takes a row from the lease it hangs on, if any, and hangs it on another.
    fn rehang(&mut self, tables: &mut Tables<'_>, key: &Key, lease: LeaseId) -> Result<(), redb::Error> {
        let old = self.hung.get(key).copied().unwrap_or(0);
        if old == lease {
            return Ok(());
        }
        if old != 0 {
            tables.hung()?.remove(hung_key(old, key).as_slice())?;
            self.hung.remove(key);
            if let Some(hung) = self.leases.get_mut(&old) {
                hung.keys.remove(key);
            }
        }
        if lease != 0 {
            tables.hung()?.insert(hung_key(lease, key).as_slice(), ())?;
            self.hung.insert(key.clone(), lease);
            self.leases
                .get_mut(&lease)
                .expect("the lease was found before the writes began")
                .keys
                .insert(key.clone());
        }
        Ok(())
    }

    fn grant(
        &mut self,
        tables: &mut Tables<'_>,
        owner: &str,
        ttl_ms: u64,
        outcome: &mut Outcome,
    ) -> Result<Answer, redb::Error> {
        if self.leases.len() >= LEASES_MAX {
            let why = format!("{LEASES_MAX} leases live already, the most one store takes");
            return Ok(Err(CommitError::Refused(why)));
        }
        // A lease's number is the revision that made it, so none comes twice.
        self.revision += 1;
        let lease = self.revision;
        let mut stored = ttl_ms.to_be_bytes().to_vec();
        stored.extend_from_slice(owner.as_bytes());
        tables.leases()?.insert(lease, stored.as_slice())?;
        self.leases.insert(lease, Hung { ttl_ms, keys: BTreeSet::new() });
        outcome.granted.push((lease, ttl_ms));
        Ok(Ok(lease))
    }

    /// Ends a lease and deletes its rows, at a revision of their own.
    fn end_lease(
        &mut self,
        tables: &mut Tables<'_>,
        lease: LeaseId,
        outcome: &mut Outcome,
    ) -> Result<(), redb::Error> {
        outcome.ended.push(lease);
        let Some(hung) = self.leases.remove(&lease) else { return Ok(()) };
        self.revision += 1;
        tables.leases()?.remove(lease)?;
        let mut rows = Vec::with_capacity(hung.keys.len());
        for key in hung.keys {
            tables.hung()?.remove(hung_key(lease, &key).as_slice())?;
            tables.rows.remove(key.as_ref())?;
            self.hung.remove(&key);
            rows.push((key, None));
        }
        if !rows.is_empty() {
            outcome.changes.push(Change { revision: self.revision, rows });
        }
        Ok(())
    }

    /// Decides what may be said about a group that failed.
    fn failed(&mut self, failure: Failure, only_full: bool, count: usize, now_ms: u64) -> Outcome {
        let Failure { why, begun } = failure;
        let unsure = begun.is_some();
        let mut outcome = Outcome { failed: true, ..Outcome::default() };
        if !only_full {
            let answer = if unsure {
                CommitError::Indeterminate(why.clone())
            } else {
                CommitError::Unavailable(why.clone())
            };
            outcome.answers = vec![Err(answer); count];
            outcome.poisoned = Some(format!("{why}; the store must be opened again"));
            return outcome;
        }
        // The disk was full and no sync failed, so the file still tells the
        // truth: opened again, it shows whether the group is there.
        let told = self.shared.told();
        let would_be = self.revision;
        self.shared.set_slot(Slot::Broken);
        let reopened = self.reopen(now_ms);
        match begun {
            Some(begun) if reopened && self.revision == would_be => return begun,
            _ => {}
        }
        let surely_not = !unsure || (reopened && self.revision == told);
        let answer = if surely_not { CommitError::Full } else { CommitError::Indeterminate(why) };
        outcome.answers = vec![Err(answer); count];
        outcome
    }

    /// After the file was opened again it may hold a group of which nobody was
    /// told for sure: watchers have to read it for themselves.
    fn tell_found(&mut self) {
        self.shared.watchers().skip_to(self.revision);
    }

    /// Opens the file again after the disk was full, and lets some time pass
    /// before the next try to write.
    fn reopen(&mut self, now_ms: u64) -> bool {
        self.full_until_ms = now_ms + REOPEN_PAUSE_MS;
        let opened = file::open(&self.disk, &self.path, &self.options)
            .and_then(|opened| file::contents(&opened.database).map(|contents| (opened, contents)));
        let (opened, contents) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                tracing::warn!(%error, path = self.path, "the store's file cannot be opened again yet");
                return false;
            }
        };
        self.take_contents(contents);
        let mut deadlines = self.shared.deadlines();
        deadlines.retain(|lease| self.leases.contains_key(&lease));
        for (lease, hung) in &self.leases {
            deadlines.start(*lease, hung.ttl_ms, now_ms);
        }
        drop(deadlines);
        self.shared.set_slot(Slot::Open(opened));
        true
    }

    /// Replaces what is known in memory by what the file holds.
    pub fn take_contents(&mut self, contents: file::Contents) {
        self.revision = contents.revision;
        self.leases.clear();
        self.hung.clear();
        for (lease, (ttl_ms, keys)) in contents.leases {
            let keys: BTreeSet<Key> = keys.into_iter().map(Key::from).collect();
            self.hung.extend(keys.iter().map(|key| (key.clone(), lease)));
            self.leases.insert(lease, Hung { ttl_ms, keys });
        }
    }
}

/// The version found where a guard does not hold.
fn broken(tables: &Tables<'_>, guard: &Guard) -> Result<Option<Revision>, redb::Error> {
    let stored = tables.rows.get(guard.key.as_ref())?;
    let found = match &stored {
        None => None,
        Some(stored) => Some(
            split_row(stored.value())
                .ok_or_else(|| redb::Error::Corrupted("a row without its head".to_owned()))?,
        ),
    };
    let version = found.map_or(0, |(version, _, _)| version);
    let holds = match &guard.expect {
        Expect::Absent => found.is_none(),
        Expect::Version(expected) => version == *expected,
        Expect::Value(expected) => found.is_some_and(|(_, _, value)| value == expected.as_ref()),
    };
    Ok(if holds { None } else { Some(version) })
}
