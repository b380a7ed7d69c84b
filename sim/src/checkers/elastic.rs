//! Invariant 3 where nodes come and go by need: a node goes only once it has nothing, for
//! good; and no more are asked for than may be there, whoever asks.

use super::{Checker, Committed};
use crate::elastic::{GROWS_BY, POOL};
use crate::mirror::Mirror;
use crate::rows::{JobName, Row};
use proto::v1::{Drainer, NodeRow, ScaleRow};
use std::collections::BTreeSet;

#[derive(Default)]
pub struct ComesAndGoes {
    row: ScaleRow,
}

fn name(number: u64) -> String {
    format!("{POOL}-auto-{number}")
}

impl ComesAndGoes {
    /// No more than may be paid are there or may come, when further ones have a name.
    fn grows(&mut self, before: &Mirror, row: &ScaleRow) -> Result<(), String> {
        let grows = row.last_number > self.row.last_number;
        self.row = row.clone();
        let ours = before.nodes.keys().filter(|name| name.contains("-auto-")).cloned();
        let all: BTreeSet<String> = row.asked.iter().map(|node| name(node.number)).chain(ours).collect();
        if grows && all.len() > GROWS_BY as usize {
            return Err(format!("{all:?} are there or may come, of {GROWS_BY} at most"));
        }
        Ok(())
    }
}

/// A node is retired: it was drained for that before, and no task is on it.
fn retired(before: &Mirror, name: &str) -> Result<(), String> {
    let Some(row) = before.nodes.get(name) else { return Ok(()) };
    if row.drainer() != Drainer::Autoscaler {
        return Err(format!("node {name} is retired though the autoscaler had not drained it: {row:?}"));
    }
    for ((tenant, epoch), grant) in &before.grants {
        let Some(at) = grant.nodes.iter().position(|part| part.node == name) else { continue };
        let job = JobName { tenant: tenant.clone(), number: grant.job_number };
        let blocks = before.blocks.iter().filter(|((of, step, _), _)| *of == job && *step == grant.step);
        let mut runs = blocks.flat_map(|(_, block)| &block.active);
        if let Some(run) = runs.find(|run| run.epoch == *epoch && (grant.gang || run.node as usize == at)) {
            return Err(format!("node {name} is retired while {run:?} of {job} is on it"));
        }
    }
    Ok(())
}

impl Checker for ComesAndGoes {
    fn name(&self) -> &'static str {
        "elastic"
    }
    fn invariant(&self) -> u8 {
        3
    }

    fn commit(&mut self, before: &Mirror, commit: &Committed) -> Result<(), String> {
        let removal = |row: Option<&NodeRow>| row.is_some_and(|row| row.drainer() == Drainer::Removal);
        for row in &commit.rows {
            if let Row::Scale(pool, Some(row)) = row
                && pool == POOL
            {
                self.grows(before, row)?;
            }
            // Of several commits seen as one nobody knows what was between them.
            let Row::Node(name, row) = row else { continue };
            let was = before.nodes.get(name);
            if commit.since_ms < commit.at_ms || removal(row.as_ref()) == removal(was) {
                continue;
            }
            match row {
                Some(row) if row.drainer() == Drainer::Removal => retired(before, name)?,
                Some(_) => return Err(format!("node {name} takes work again though it was retired")),
                None => {}
            }
        }
        for row in &commit.rows {
            let Row::Node(name, None) = row else { continue };
            if commit.since_ms == commit.at_ms && !removal(before.nodes.get(name)) {
                return Err(format!("node {name} is forgotten though it was not retired"));
            }
        }
        Ok(())
    }
}
