//! What tasks may go on from.
//!
//! What must hold: only a task's live attempt adds to its checkpoints, and only what
//! is in the object store; a gang goes on from one label that all its ranks told of in
//! one attempt, or from the beginning; a task's rows go in the commits that complete
//! it; what rows name counts as stored.
//!
//! Each rank has a row of its own, so that what one of them tells costs one row however
//! many they are. Nothing says that a set is whole: it is when all rows have it.

use super::model::{Active, Job, Spot, StepRun};
use super::outbox::Outbox;
use super::{Core, ledger};
use crate::limits;
use prost::Message;
use proto::checkpoints::{self, Set, set_of};
use proto::keys;
use proto::limits::{CHECKPOINT_FILES_MAX, CHECKPOINT_LABEL_BYTES_MAX, CHECKPOINT_LIST_BYTES_MAX};
use proto::v1::{CheckpointEntry, CheckpointId, CheckpointRow, Checkpointed, RankCheckpoint, StepState};
use std::collections::BTreeSet;

impl Core {
    /// A rank of a live attempt has a new checkpoint in the object store.
    pub(super) fn checkpointed(
        &mut self,
        spot: &Spot,
        active: Active,
        rank: u32,
        told: Checkpointed,
        missing: bool,
    ) {
        let now_ms = self.now.wall_ms;
        let Some(tenant) = self.tenants.get_mut(&spot.tenant) else { return };
        let Some(job) = tenant.jobs.get_mut(&spot.number) else { return };
        let is_of_it = |id: &CheckpointId| (id.attempt, id.epoch) == (active.attempt, active.epoch);
        let Some(id) = told.id.filter(is_of_it) else { return };
        if missing || !may_be_kept(job, spot, &told) {
            world::mark!("controller.checkpoint.not_kept");
            return;
        }
        let Some(run) = job.steps.get_mut(spot.step as usize) else { return };
        let Some(state) = job.state.steps.get(spot.step as usize) else { return };
        let row = run.checkpoints.entry((spot.task, rank)).or_default();
        let known = row.entries.iter().any(|entry| {
            // A word that comes again, or that a later one overtook; or a label that
            // was used before: the ranks could be at different places by it.
            order(entry) >= order_of(state.generation, &id)
                || (run.gang.is_some() && set_of(entry) == (id.epoch, id.attempt, &*told.label))
        });
        if known {
            world::mark!("controller.checkpoint.told_again");
            return;
        }
        world::mark!("controller.checkpoint.kept");
        let Checkpointed { label, artifacts, .. } = told;
        let generation = state.generation;
        row.entries.push(CheckpointEntry { label, artifacts, id: Some(id), at_ms: now_ms, generation });
        let kept = row.entries.last().map_or(0, bytes_of);
        let dropped = prune(run, state, spot.task, rank);
        ledger::store(&mut tenant.ledger, &mut job.state, kept);
        ledger::drop_stored(&mut tenant.ledger, &mut job.state, dropped);
        write(&mut self.out, run, spot, rank);
        self.out.state(&spot.tenant, spot.number);
        self.out.ledger(&spot.tenant);
    }

    /// An attempt could not go on from this: no other is to try it.
    pub(super) fn checkpoint_lost(&mut self, spot: &Spot, rank: u32, lost: &CheckpointId) {
        let Some(tenant) = self.tenants.get_mut(&spot.tenant) else { return };
        let Some(job) = tenant.jobs.get_mut(&spot.number) else { return };
        let Some(run) = job.steps.get_mut(spot.step as usize) else { return };
        let Some(row) = run.checkpoints.get_mut(&(spot.task, rank)) else { return };
        let Some(at) = row.entries.iter().position(|entry| entry.id.as_ref() == Some(lost)) else { return };
        world::mark!("controller.checkpoint.lost");
        let dropped = bytes_of(&row.entries.remove(at));
        ledger::drop_stored(&mut tenant.ledger, &mut job.state, dropped);
        write(&mut self.out, run, spot, rank);
        self.out.state(&spot.tenant, spot.number);
        self.out.ledger(&spot.tenant);
    }
}

/// The step has checkpoints, and this is no larger than one may be.
fn may_be_kept(job: &Job, spot: &Spot, told: &Checkpointed) -> bool {
    let step = job.row.spec.as_ref().and_then(|spec| spec.steps.get(spot.step as usize));
    let list: usize =
        told.artifacts.iter().map(|artifact| artifact.path.len() + artifact.digest.len() + 16).sum();
    let gang = job.steps.get(spot.step as usize).is_some_and(|run| run.gang.is_some());
    step.is_some_and(|step| step.checkpoint.is_some())
        && told.artifacts.len() <= CHECKPOINT_FILES_MAX
        && list <= CHECKPOINT_LIST_BYTES_MAX
        && told.label.len() <= CHECKPOINT_LABEL_BYTES_MAX
        && !(gang && told.label.is_empty())
}

/// What the ranks `[first, first + count)` of a task's next attempt go on from.
pub(super) fn resume(
    run: &StepRun,
    state: &StepState,
    task: u64,
    (first, count): (u32, u32),
) -> Vec<RankCheckpoint> {
    let Some(newest) = whole(run, state, task).pop() else { return Vec::new() };
    let of_rank = |rank| {
        let row = run.checkpoints.get(&(task, rank))?;
        let entry = row.entries.iter().rfind(|entry| set_of(entry) == set_of(newest))?;
        let (label, artifacts) = (entry.label.clone(), entry.artifacts.clone());
        Some(RankCheckpoint { rank, label, artifacts, id: entry.id })
    };
    (first..first + count).filter_map(of_rank).collect()
}

/// Those that are whole, the oldest first.
fn whole<'a>(run: &'a StepRun, state: &StepState, task: u64) -> Vec<&'a CheckpointEntry> {
    let ranks = run.gang.map_or(1, |gang| gang.nodes.saturating_mul(gang.per_node));
    let rows: Vec<_> = (0..ranks).map_while(|rank| run.checkpoints.get(&(task, rank))).collect();
    if rows.len() < ranks as usize {
        return Vec::new();
    }
    checkpoints::whole(&rows, state.reset_generation)
}

/// Drops what no attempt will need: all before the last but one that is whole, and
/// what a retry undid. Returns the bytes of it.
fn prune(run: &mut StepRun, state: &StepState, task: u64, rank: u32) -> u64 {
    let owned = |(epoch, attempt, label): Set<'_>| (epoch, attempt, label.to_owned());
    let kept: BTreeSet<_> =
        whole(run, state, task).into_iter().rev().take(KEPT).map(|entry| owned(set_of(entry))).collect();
    let gang = run.gang.is_some();
    let Some(row) = run.checkpoints.get_mut(&(task, rank)) else { return 0 };
    let of_kept = |entry: &CheckpointEntry| kept.contains(&owned(set_of(entry)));
    // Labels of one task may be equal: there it is the place that counts.
    let from = match gang {
        true => row.entries.iter().position(of_kept).unwrap_or(0),
        false => row.entries.len().saturating_sub(KEPT),
    };
    let mut dropped: u64 = row.entries.drain(..from).map(|entry| bytes_of(&entry)).sum();
    // Of those that other ranks have not told of yet the oldest are given up.
    let mut surplus = row.entries.len().saturating_sub(limits::CHECKPOINTS_PER_RANK_MAX);
    row.entries.retain(|entry| {
        let given_up = surplus > 0 && !of_kept(entry);
        surplus -= usize::from(given_up);
        let stays = !given_up && entry.generation >= state.reset_generation;
        dropped = if stays { dropped } else { dropped.saturating_add(bytes_of(entry)) };
        stays
    });
    dropped
}

/// So many that are whole are kept: where the newest is lost, there is the one before.
const KEPT: usize = 2;

/// The task completes: nobody goes on from a rank's checkpoints any more. Returns the
/// bytes of them.
pub(super) fn forget(out: &mut Outbox, run: &mut StepRun, spot: &Spot, rank: u32) -> u64 {
    let Some(row) = run.checkpoints.remove(&(spot.task, rank)) else { return 0 };
    out.direct(&spot.tenant, keys::checkpoint(&spot.tenant, spot.number, spot.step, spot.task, rank), None);
    row.entries.iter().map(bytes_of).sum()
}

fn write(out: &mut Outbox, run: &StepRun, spot: &Spot, rank: u32) {
    let key = keys::checkpoint(&spot.tenant, spot.number, spot.step, spot.task, rank);
    let row = run.checkpoints.get(&(spot.task, rank)).map(CheckpointRow::encode_to_vec);
    out.direct(&spot.tenant, key, row.map(Into::into));
}

fn bytes_of(entry: &CheckpointEntry) -> u64 {
    entry.artifacts.iter().fold(0, |sum, artifact| sum.saturating_add(artifact.size_bytes))
}

/// A later one is greater. Attempts are counted anew with each generation.
fn order(entry: &CheckpointEntry) -> (u32, u32, u64, u64) {
    order_of(entry.generation, &entry.id.unwrap_or_default())
}

fn order_of(generation: u32, id: &CheckpointId) -> (u32, u32, u64, u64) {
    (generation, id.attempt, id.session, id.number)
}
