//! How far tasks have come, by their own word.
//!
//! What must hold: it is kept in memory alone, beside the live attempt that said it, and
//! goes with that attempt; nothing but the current attempt and epoch, on the node that
//! runs it, changes it. So it is no more than attempts live, and after a restart there
//! is none until agents tell it again, as each does once in every session. It promises
//! nothing, and nothing is decided by it.

use super::Core;
use super::model::{Active, Block, Job, StepRun, cut};
use proto::limits::{PROGRESS_BASIS_POINTS_MAX, PROGRESS_TASKS_MAX, PROGRESS_TEXT_BYTES_MAX};
use proto::v1::{AttemptRef, Progress, TaskProgress};
use std::collections::BTreeMap;
use std::ops::Range;

/// What one rank said last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RankSaid {
    basis_points: u32,
    text: String,
    at_ms: u64,
}

/// By rank; of a task that is no gang, rank 0.
pub(super) type Said = BTreeMap<u32, RankSaid>;

/// How far the live attempt of a task has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskSaid {
    /// From 1.
    pub attempt: u32,
    /// The attempt's.
    pub epoch: u64,
    /// Hundredths of a percent. Of a gang: of the rank that is least far, of those that
    /// said something.
    pub basis_points: u32,
    /// What it said with it.
    pub text: String,
    /// When it was told, milliseconds since 1970.
    pub at_ms: u64,
}

impl Core {
    pub(super) fn progress_heard(&mut self, node: &str, session: u64, told: Progress) {
        if !self.stream_current(node, session) {
            // It is sent away with its next heartbeat, and tells all again.
            world::mark!("controller.progress.of_an_old_session");
            return;
        }
        for told in told.tasks.into_iter().take(PROGRESS_TASKS_MAX) {
            self.progress_told(node, told);
        }
    }

    fn progress_told(&mut self, node: &str, told: TaskProgress) {
        let TaskProgress { attempt, rank, basis_points, mut text } = told;
        let Some(attempt) = attempt.filter(|_| basis_points <= PROGRESS_BASIS_POINTS_MAX) else { return };
        let current =
            self.find_active(&attempt).is_some_and(|active| self.is_on(node, &attempt, active, rank));
        if !current {
            world::mark!("controller.progress.of_an_old_attempt");
            return;
        }
        let at_ms = self.now.wall_ms;
        cut(&mut text, PROGRESS_TEXT_BYTES_MAX);
        text.retain(|letter| !letter.is_control());
        if let Some(block) = self.block_of(&attempt) {
            world::mark!("controller.progress.told");
            let said = RankSaid { basis_points, text, at_ms };
            block.said.entry(attempt.task).or_default().insert(rank, said);
        }
    }

    /// The rank of this attempt is on this node.
    fn is_on(&self, node: &str, attempt: &AttemptRef, active: Active, rank: u32) -> bool {
        let grant = self.tenants.get(&attempt.tenant).and_then(|tenant| tenant.grants.get(&active.epoch));
        let Some(grant) = grant else { return false };
        let at = match &grant.gang {
            Some(_) => grant.node_of_rank(rank).and_then(|at| u32::try_from(at).ok()),
            None => (rank == 0).then_some(active.node),
        };
        at.is_some_and(|at| grant.node_name(at) == node)
    }

    fn block_of(&mut self, attempt: &AttemptRef) -> Option<&mut Block> {
        let job: &mut Job = self.tenants.get_mut(&attempt.tenant)?.jobs.get_mut(&attempt.job_number)?;
        let run = job.steps.get_mut(attempt.step as usize)?;
        run.blocks.get_mut(&StepRun::block_of(attempt.task))
    }

    /// What live attempts of tasks `[start, end)` of a step said, where they did.
    #[must_use]
    pub fn progress_of(
        &self,
        tenant: &str,
        number: u64,
        step: u32,
        tasks: Range<u64>,
    ) -> BTreeMap<u64, TaskSaid> {
        let job = self.tenants.get(tenant).and_then(|tenant| tenant.jobs.get(&number));
        let Some(run) = job.and_then(|job| job.steps.get(step as usize)) else { return BTreeMap::new() };
        let Some(last) = tasks.end.checked_sub(1).filter(|last| tasks.start <= *last) else {
            return BTreeMap::new();
        };
        let blocks = run.blocks.range(StepRun::block_of(tasks.start)..=StepRun::block_of(last));
        let said = blocks.flat_map(|(_, block)| {
            block
                .said
                .range(tasks.clone())
                .filter_map(|(task, said)| Some((*task, whole(block.active.get(task)?, said)?)))
        });
        said.collect()
    }
}

/// Of the rank that is least far.
fn whole(active: &Active, said: &Said) -> Option<TaskSaid> {
    let RankSaid { basis_points, text, at_ms } = said.values().min_by_key(|said| said.basis_points)?;
    let (attempt, epoch, text) = (active.attempt, active.epoch, text.clone());
    Some(TaskSaid { attempt, epoch, basis_points: *basis_points, text, at_ms: *at_ms })
}
