//! Sees every durable commit and shows it to the checkers.
//!
//! It watches the server's store from inside the server's node, but lives
//! outside of it: after a restart it reads all rows, makes sure that nothing
//! it had seen durable is gone, and goes on.

use crate::checkers::{self, Checker, Committed};
use crate::mirror::Mirror;
use crate::rollback;
use crate::rows;
use crate::trace::Trace;
use bytes::Bytes;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use store::{Notice, Store};
use world::sim::{HostileDisk, universe};

/// See the module.
pub struct Witness {
    pub mirror: Mirror,
    checkers: Vec<Box<dyn Checker>>,
    /// Version of every row seen.
    versions: BTreeMap<Bytes, u64>,
    trace: Trace,
    /// The first thing that broke: invariant number and words.
    pub broken: Option<(u8, String)>,
    pub commits: u64,
    /// When an event was written last.
    pub went_on_ms: u64,
    /// When it last saw all there was.
    seen_ms: u64,
    /// Every commit, for who wants to look at them again.
    kept: Option<Vec<Arc<Committed>>>,
}

/// Shared between the server's incarnations and the run.
pub type SharedWitness = Arc<Mutex<Witness>>;

impl Witness {
    #[must_use]
    pub fn new(checkers: Vec<Box<dyn Checker>>, trace: Trace) -> Self {
        Self {
            mirror: Mirror::default(),
            checkers,
            versions: BTreeMap::new(),
            trace,
            broken: None,
            commits: 0,
            went_on_ms: 0,
            seen_ms: 0,
            kept: None,
        }
    }

    /// From now on commits are kept.
    pub fn keep(&mut self) {
        self.kept = Some(Vec::new());
    }

    /// What was kept.
    pub fn take_kept(&mut self) -> Vec<Arc<Committed>> {
        self.kept.take().unwrap_or_default()
    }

    /// Notes what broke; the first counts.
    pub fn fail(&mut self, invariant: u8, what: String) {
        if self.broken.is_none() {
            self.trace.tell(&format!("BROKEN invariant {invariant}: {what}"));
            self.broken = Some((invariant, what));
        }
    }

    /// A commit, or several at once, made since an instant.
    fn commit(&mut self, revision: u64, since_ms: u64, changes: Vec<Changed>) {
        self.commits += 1;
        self.trace.line(&format!("commit {revision} {}", digest(&changes)));
        let mut decoded = Vec::with_capacity(changes.len());
        for (key, value) in &changes {
            match value {
                Some(_) => self.versions.insert(key.clone(), revision),
                None => self.versions.remove(key),
            };
            match rows::decode(key, value.as_ref()) {
                Ok(row) => decoded.push(row),
                Err(error) => {
                    let key = String::from_utf8_lossy(key);
                    return self.fail(6, format!("row {key} is malformed: {error}"));
                }
            }
        }
        let commit = Committed { rows: decoded, at_ms: now_ms(), since_ms };
        self.seen_ms = commit.at_ms;
        self.trace.committed(&self.mirror, &commit);
        let mut broken = None;
        for checker in &mut self.checkers {
            if let Err(what) = checker.commit(&self.mirror, &commit) {
                broken.get_or_insert((checker.invariant(), format!("{}: {what}", checker.name())));
            }
        }
        if checkers::events(&commit).next().is_some() {
            self.went_on_ms = commit.at_ms;
        }
        for row in &commit.rows {
            self.mirror.apply(row.clone());
        }
        for checker in &mut self.checkers {
            if let Err(what) = checker.after(&self.mirror, &commit) {
                broken.get_or_insert((checker.invariant(), format!("{}: {what}", checker.name())));
            }
        }
        if let Some(kept) = &mut self.kept {
            kept.push(Arc::new(commit));
        }
        if let Some((invariant, what)) = broken {
            self.fail(invariant, what);
        }
    }

    /// After a restart: what was there at `revision`, against what was seen.
    pub fn recover(&mut self, held: BTreeMap<Bytes, store::Row>, revision: u64) {
        let gone: Vec<Bytes> = self.versions.keys().filter(|key| !held.contains_key(*key)).cloned().collect();
        let mut changed = Vec::new();
        for (key, row) in held {
            let seen = self.versions.get(&key).copied();
            if seen.is_some_and(|seen| seen > row.version) {
                let key = String::from_utf8_lossy(&key);
                self.fail(1, format!("row {key} went back from version {seen:?} to {}", row.version));
            }
            if seen.is_some() && seen != Some(row.version) && rollback::is_rewritten(&row.value) {
                self.versions.insert(key, row.version);
            } else if seen != Some(row.version) {
                changed.push((key, row.version, row.value));
            }
        }
        let versions: Vec<(Bytes, u64)> =
            changed.iter().map(|(key, version, _)| (key.clone(), *version)).collect();
        let changed = changed.into_iter().map(|(key, _, value)| (key, Some(value)));
        let changes: Vec<_> = changed.chain(gone.into_iter().map(|key| (key, None))).collect();
        if !changes.is_empty() {
            self.commit(revision, self.seen_ms, changes);
        }
        self.versions.extend(versions);
    }

    /// Shows all checkers the end.
    pub fn end(&mut self, outcome: impl FnOnce(&Mirror, &mut Vec<Box<dyn Checker>>) -> Option<(u8, String)>) {
        let mut checkers = std::mem::take(&mut self.checkers);
        if let Some((invariant, what)) = outcome(&self.mirror, &mut checkers) {
            self.fail(invariant, what);
        }
    }
}

/// Virtual time.
fn now_ms() -> u64 {
    u64::try_from(universe::elapsed().as_millis()).expect("a run is shorter")
}

/// A row that was put or deleted.
type Changed = (Bytes, Option<Bytes>);

fn digest(changes: &[Changed]) -> String {
    let mut hash = Sha256::new();
    for (key, value) in changes {
        hash.update((key.len() as u64).to_le_bytes());
        hash.update(key);
        hash.update([u8::from(value.is_some())]);
        if let Some(value) = value {
            hash.update((value.len() as u64).to_le_bytes());
            hash.update(value);
        }
    }
    let hash: [u8; 32] = hash.finalize().into();
    format!("{:016x}", u128::from_be_bytes(hash[..16].try_into().expect("sixteen bytes")) >> 64)
}

/// Watches one incarnation of the store until it ends, or until nothing more is
/// told since its disk failed; then whoever calls once more goes on.
pub async fn watch(witness: SharedWitness, store: Arc<dyn Store>, disk: &HostileDisk) {
    let failures = disk.counts().failures();
    let well = || disk.counts().failures() == failures;
    let every = Bytes::new();
    let opened_ms = now_ms();
    let Ok(mut watching) = store.watch(every.clone()).await else { return };
    let Ok(rows) = store::scan(&*store, &every, 1000).await else { return };
    // Commits go on while the pages are read, so these rows are of several
    // moments. What the watch tells brings them all to that of the youngest:
    // before, a job could be seen without the state it was stored with.
    let youngest = rows.iter().map(|row| row.version).max().unwrap_or(0);
    let mut held: BTreeMap<Bytes, store::Row> = rows.into_iter().map(|row| (row.key.clone(), row)).collect();
    let mut at = watching.revision;
    while at < youngest {
        let Some((revision, changes)) = told(&witness, &mut watching, &well).await else { return };
        at = revision;
        for (key, value) in changes {
            if held.get(&key).is_some_and(|row| row.version >= at) {
                continue;
            }
            match value {
                Some(value) => _ = held.insert(key.clone(), store::Row { key, value, version: at, lease: 0 }),
                None => _ = held.remove(&key),
            }
        }
    }
    witness.lock().expect("no holder of this lock panics").recover(held, at);
    // What stands in line was made while the rows were read, or those before it judged.
    let mut since_ms = opened_ms;
    loop {
        let caught_up = watching.notices.is_empty();
        let Some((revision, changes)) = told(&witness, &mut watching, &well).await else { return };
        if caught_up {
            since_ms = now_ms();
        }
        witness.lock().expect("no holder of this lock panics").commit(revision, since_ms, changes);
    }
}

/// The next commit; `None` once the store has ended or its disk failed.
async fn told(
    witness: &SharedWitness,
    watching: &mut store::Watch,
    well: &impl Fn() -> bool,
) -> Option<(u64, Vec<Changed>)> {
    match watching.notices.recv().await? {
        Notice::Changed { revision, changes } => Some((revision, changes)),
        // The store cuts all watchers off when it ends, and when it has opened
        // its file again after the disk was full.
        Notice::Lagged if !well() => None,
        Notice::Lagged => {
            let mut witness = witness.lock().expect("no holder of this lock panics");
            witness.fail(10, "the witness was too slow for the store's watch".into());
            None
        }
    }
}
