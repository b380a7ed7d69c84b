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
use std::collections::{BTreeMap, BTreeSet};
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

    /// After a restart: what was there at `revision`, in the order of the keys, against what
    /// was seen.
    pub fn recover(&mut self, held: impl IntoIterator<Item = store::Row>, revision: u64) {
        let (mut changes, mut gone, mut versions) = (Vec::new(), Vec::new(), Vec::new());
        let mut back = None;
        let mut seen = self.versions.iter().peekable();
        for row in held {
            while let Some((key, _)) = seen.next_if(|(key, _)| **key < row.key) {
                gone.push(key.clone());
            }
            let before = seen.next_if(|(key, _)| **key == row.key).map(|(_, version)| *version);
            if before == Some(row.version) {
                continue;
            }
            if let Some(before) = before.filter(|before| *before > row.version) {
                let key = String::from_utf8_lossy(&row.key);
                let what = format!("row {key} went back from version {before} to {}", row.version);
                back.get_or_insert(what);
            }
            versions.push((row.key.clone(), row.version));
            if before.is_none() || !rollback::is_rewritten(&row.value) {
                changes.push((row.key, Some(row.value)));
            }
        }
        gone.extend(seen.map(|(key, _)| key.clone()));
        changes.extend(gone.into_iter().map(|key| (key, None)));
        if let Some(what) = back {
            self.fail(1, what);
        }
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
    let (mut at, mut later) = (watching.revision, BTreeMap::new());
    while at < youngest {
        let Some((revision, changes)) = told(&witness, &mut watching, &well).await else { return };
        at = revision;
        later.extend(changes.into_iter().map(|(key, value)| (key, (revision, value))));
    }
    let held = brought_to(rows, later);
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

/// Rows in the order of their keys, of several moments, with what was told to have changed
/// since: of each row the last change, made at a version.
fn brought_to(mut rows: Vec<store::Row>, later: BTreeMap<Bytes, (u64, Option<Bytes>)>) -> Vec<store::Row> {
    let (mut gone, mut new) = (BTreeSet::new(), Vec::new());
    for (key, (version, value)) in later {
        match (rows.binary_search_by(|row| row.key.cmp(&key)), value) {
            (Ok(at), _) if rows[at].version >= version => {}
            (Ok(at), Some(value)) => (rows[at].version, rows[at].value) = (version, value),
            (Ok(_), None) => _ = gone.insert(key),
            (Err(_), Some(value)) => new.push(store::Row { key, value, version, lease: 0 }),
            (Err(_), None) => {}
        }
    }
    if !gone.is_empty() {
        rows.retain(|row| !gone.contains(&row.key));
    }
    rows.extend(new);
    rows.sort_by(|a, b| a.key.cmp(&b.key));
    rows
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

#[cfg(test)]
mod tests {
    use super::*;

    fn row(key: &'static str, version: u64) -> store::Row {
        store::Row { key: key.into(), value: format!("{key} {version}").into(), version, lease: 0 }
    }

    #[test]
    fn rows_of_several_moments_are_brought_to_that_of_the_youngest() {
        let read = vec![row("a", 3), row("b", 9), row("c", 4), row("e", 2)];
        let told =
            |key: &'static str, version| (row(key, version).key, (version, Some(row(key, version).value)));
        let gone = |key: &'static str, version| (Bytes::from(key), (version, None));
        let later = [told("a", 8), told("b", 7), gone("c", 6), told("d", 5), gone("f", 9)];
        let held = brought_to(read, later.into());
        assert_eq!(held, [row("a", 8), row("b", 9), row("d", 5), row("e", 2)]);
    }
}
