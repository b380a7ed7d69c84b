//! An upgrade that was taken back: a newer version ran for a while and left rows
//! with fields that this one does not know.
//!
//! What must hold: rows with such fields are read as if these were not there, and
//! whoever guards on a row's bytes guards on those it read. The witness is shown
//! every row first, so that nothing it had not seen yet is taken for the rewriting.

use crate::witness::SharedWitness;
use std::sync::Arc;
use store::{Commit, OpenOptions, RedbStore, Row, Store};
use world::NodeClock;
use world::sim::HostileDisk;

/// Rows of one commit: the store's own limit is 128 operations.
const ROWS_PER_COMMIT: usize = 100;
/// Field 1000 of no message of ours: a varint of 1.
const UNKNOWN_FIELD: [u8; 3] = [0xc0, 0x3e, 0x01];

/// Whether a newer version wrote this value as it is.
#[must_use]
pub fn is_rewritten(value: &[u8]) -> bool {
    value.ends_with(&UNKNOWN_FIELD)
}

/// Rewrites what there is of rows on a server's disk. Whatever fails there is left
/// as it is: a version may have been taken back in the midst of it.
pub async fn leave_unknown_fields(
    disk: &HostileDisk,
    clock: &Arc<dyn NodeClock>,
    witness: &SharedWitness,
) -> u64 {
    let options = OpenOptions { drop_leases: false, ..OpenOptions::default() };
    let file = gateway::server::STORE_FILE;
    let Ok(store) = RedbStore::open_with(disk.handle(), file, Arc::clone(clock), options).await else {
        return 0;
    };
    let rewritten = rewrite(&store, witness).await;
    store.close().await;
    rewritten
}

async fn rewrite(store: &RedbStore, witness: &SharedWitness) -> u64 {
    let Ok(rows) = store::scan(store, b"", 1000).await else { return 0 };
    let revision = rows.iter().map(|row| row.version).max().unwrap_or(0);
    witness.lock().expect("no holder of this lock panics").recover(rows.iter().cloned(), revision);
    let known: Vec<&Row> = rows.iter().filter(|row| row.lease == 0 && !is_rewritten(&row.value)).collect();
    let mut rewritten = 0;
    for rows in known.chunks(ROWS_PER_COMMIT) {
        let commit = rows.iter().fold(Commit::new(), |commit, row| {
            commit.put(row.key.clone(), [&row.value[..], &UNKNOWN_FIELD].concat())
        });
        if store.commit(commit).await.is_err() {
            return rewritten;
        }
        rewritten += rows.len() as u64;
    }
    rewritten
}
