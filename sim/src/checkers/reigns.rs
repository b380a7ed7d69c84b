//! Invariant 2, of those who control: at most one writes, and those after it know all it
//! wrote. What only a controller writes comes with the row of a shard; that row goes on
//! from where the one before it was, by the same owner, until its lease takes it away.
//! Nobody begins where another's is still there.

use super::{Checker, Committed};
use crate::mirror::Mirror;
use crate::rows::Row;
use proto::v1::ShardRow;
use std::collections::BTreeMap;

#[derive(Default)]
pub struct OneReigns {
    shards: BTreeMap<u16, ShardRow>,
}

/// Whether only a controller writes such a row.
fn is_controllers(row: &Row) -> bool {
    matches!(
        row,
        Row::Job(..)
            | Row::State(..)
            | Row::Block { .. }
            | Row::Events { .. }
            | Row::Ledger(..)
            | Row::Idempotency { .. }
            | Row::Manifest { .. }
            | Row::Checkpoint { .. }
            | Row::Upload { .. }
            | Row::Node(..)
    )
}

impl Checker for OneReigns {
    fn name(&self) -> &'static str {
        "one-reigns"
    }
    fn invariant(&self) -> u8 {
        2
    }

    fn commit(&mut self, _: &Mirror, commit: &Committed) -> Result<(), String> {
        // Several commits seen as one, after a restart: who reigned in between is not known.
        let is_whole = commit.since_ms == commit.at_ms;
        let mut fenced = false;
        for row in &commit.rows {
            let Row::Shard(shard, row) = row else { continue };
            fenced = true;
            let Some(row) = row else {
                self.shards.remove(shard);
                continue;
            };
            let before = self.shards.insert(*shard, row.clone());
            let follows = match &before {
                Some(before) => before.owner == row.owner && before.seq + 1 == row.seq,
                None => row.seq == 0,
            };
            if is_whole && !follows {
                return Err(format!("shard {shard}: {row:?} came after {before:?}"));
            }
        }
        match commit.rows.iter().find(|row| is_controllers(row)) {
            Some(row) if is_whole && !fenced => Err(format!("written without the row of a shard: {row:?}")),
            _ => Ok(()),
        }
    }
}
