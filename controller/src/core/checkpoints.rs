//! What tasks may go on from.
//!
//! What must hold: only a task's live attempt adds to its checkpoints, and only what
//! is in the object store; a gang goes on from one label that all its ranks told of in
//! one attempt, or from the beginning; a task's rows go in the commits that complete
//! it; what rows name counts as stored, and what they name no more is taken away once
//! that is durable. Bytes of a rank's are named by its row alone (`proto::checkpoints`).
//!
//! Each rank has a row of its own, so that what one of them tells costs one row however
//! many they are. Nothing says that a set is whole: it is when all rows have it.

use super::model::{Active, Job, Spot, StepRun};
use super::outbox::Outbox;
use super::types::Effect;
use super::{Core, ledger};
use crate::limits;
use prost::Message;
use proto::checkpoints::{self, Set, set_of};
use proto::keys;
use proto::limits::{CHECKPOINT_FILES_MAX, CHECKPOINT_LABEL_BYTES_MAX, CHECKPOINT_LIST_BYTES_MAX};
use proto::v1::{CheckpointEntry, CheckpointId, CheckpointRow, Checkpointed, RankCheckpoint, StepState};
use proto::validate::check_relative;
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
        let fits = may_be_kept(job, spot, &told);
        let Some(run) = job.steps.get_mut(spot.step as usize) else { return };
        // That they were there was seen before they were let go.
        let going = run
            .released
            .get(&(spot.task, rank))
            .is_some_and(|going| told.artifacts.iter().any(|artifact| going.contains(&artifact.digest)));
        if missing || going || !fits {
            world::mark!("controller.checkpoint.not_kept");
            return;
        }
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
        let gone = prune(run, state, spot.task, rank);
        let dropped = release(&mut self.out, run, spot, rank, &gone);
        let row = run.checkpoints.get(&(spot.task, rank));
        let told = row.and_then(|row| row.entries.last()).map(set_of);
        let all_have = whole(run, state, spot.task).pop().map(set_of) == told;
        ledger::store(&mut tenant.ledger, &mut job.state, kept);
        ledger::drop_stored(&mut tenant.ledger, &mut job.state, dropped);
        write(&mut self.out, run, spot, rank);
        self.out.state(&spot.tenant, spot.number);
        self.out.ledger(&spot.tenant);
        if all_have {
            self.kept_while_giving_way(spot, active.epoch);
        }
    }

    /// An attempt could not go on from this: no other is to try it.
    pub(super) fn checkpoint_lost(&mut self, spot: &Spot, rank: u32, lost: &CheckpointId) {
        let Some(tenant) = self.tenants.get_mut(&spot.tenant) else { return };
        let Some(job) = tenant.jobs.get_mut(&spot.number) else { return };
        let Some(run) = job.steps.get_mut(spot.step as usize) else { return };
        let Some(row) = run.checkpoints.get_mut(&(spot.task, rank)) else { return };
        let Some(at) = row.entries.iter().position(|entry| entry.id.as_ref() == Some(lost)) else { return };
        world::mark!("controller.checkpoint.lost");
        let gone = [row.entries.remove(at)];
        let dropped = release(&mut self.out, run, spot, rank, &gone);
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
        && !told.label.chars().any(char::is_control)
        && told.artifacts.iter().all(|artifact| check_relative("path", &artifact.path).is_ok())
        && told.artifacts.iter().map(|artifact| &artifact.path).collect::<BTreeSet<_>>().len()
            == told.artifacts.len()
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

/// When this attempt of a task kept what a further one would go on from.
pub(super) fn newest_ms(run: &StepRun, state: &StepState, task: u64, attempt: u32) -> Option<u64> {
    let newest = whole(run, state, task).pop()?;
    newest.id.filter(|id| id.attempt == attempt)?;
    Some(newest.at_ms)
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
/// what a retry undid. Returns it.
fn prune(run: &mut StepRun, state: &StepState, task: u64, rank: u32) -> Vec<CheckpointEntry> {
    let owned = |(epoch, attempt, label): Set<'_>| (epoch, attempt, label.to_owned());
    let kept: BTreeSet<_> =
        whole(run, state, task).into_iter().rev().take(KEPT).map(|entry| owned(set_of(entry))).collect();
    let gang = run.gang.is_some();
    let Some(row) = run.checkpoints.get_mut(&(task, rank)) else { return Vec::new() };
    let of_kept = |entry: &CheckpointEntry| kept.contains(&owned(set_of(entry)));
    // Labels of one task may be equal: there it is the place that counts.
    let from = match gang {
        true => row.entries.iter().position(of_kept).unwrap_or(0),
        false => row.entries.len().saturating_sub(KEPT),
    };
    let mut gone: Vec<CheckpointEntry> = row.entries.drain(..from).collect();
    // Of those that other ranks have not told of yet the oldest are given up.
    let mut surplus = row.entries.len().saturating_sub(limits::CHECKPOINTS_PER_RANK_MAX);
    gone.extend(row.entries.extract_if(.., |entry| {
        let given_up = surplus > 0 && !of_kept(entry);
        surplus -= usize::from(given_up);
        given_up || entry.generation < state.reset_generation
    }));
    gone
}

/// Has the objects taken away that no entry of the rank names any more. Returns the
/// bytes that counted as stored for what is gone.
fn release(out: &mut Outbox, run: &mut StepRun, spot: &Spot, rank: u32, gone: &[CheckpointEntry]) -> u64 {
    let digests = |entries: &[CheckpointEntry]| -> BTreeSet<String> {
        entries.iter().flat_map(|entry| &entry.artifacts).map(|artifact| artifact.digest.clone()).collect()
    };
    let named = run.checkpoints.get(&(spot.task, rank)).map(|row| digests(&row.entries)).unwrap_or_default();
    let going: Vec<String> = digests(gone).difference(&named).cloned().collect();
    if !going.is_empty() {
        let known = run.released.entry((spot.task, rank)).or_default();
        if known.len() + going.len() > limits::RELEASED_PER_RANK_MAX {
            known.clear();
        }
        known.extend(going.iter().cloned());
        out.effects.push(Effect::Release { tenant: spot.tenant.clone(), digests: going });
    }
    gone.iter().fold(0, |sum, entry| sum.saturating_add(bytes_of(entry)))
}

/// So many that are whole are kept: where the newest is lost, there is the one before.
const KEPT: usize = 2;

/// The task completes: nobody goes on from a rank's checkpoints any more. Returns the
/// bytes of them.
pub(super) fn forget(out: &mut Outbox, run: &mut StepRun, spot: &Spot, rank: u32) -> u64 {
    let Some(row) = run.checkpoints.remove(&(spot.task, rank)) else { return 0 };
    out.direct(&spot.tenant, keys::checkpoint(&spot.tenant, spot.number, spot.step, spot.task, rank), None);
    let dropped = release(out, run, spot, rank, &row.entries);
    run.released.remove(&(spot.task, rank));
    dropped
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
