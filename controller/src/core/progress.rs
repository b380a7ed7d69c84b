//! How far tasks have come, by their own word; and how their inputs come, by their
//! agent's.
//!
//! What must hold: it is kept in memory alone, beside the live attempt that said it, and
//! goes with that attempt; nothing but the current attempt and epoch, on the node that
//! runs it, changes it. So it is no more than attempts live, and after a restart there
//! is none until agents tell it again, as each does once in every session. It promises
//! nothing, and nothing is decided by it.

use super::Core;
use super::model::{Active, Block, Job, StepRun, cut};
use proto::estimate;
use proto::limits::{
    PROGRESS_BASIS_POINTS_MAX, PROGRESS_TASKS_MAX, PROGRESS_TEXT_BYTES_MAX, STAGING_TEXT_BYTES_MAX,
};
use proto::v1::{AttemptRef, Metered, Progress, StagingView, State, TaskProgress, TaskStaging};
use std::collections::BTreeMap;
use std::ops::Range;

/// What one rank said last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RankSaid {
    pub basis_points: u32,
    pub text: String,
    pub at_ms: u64,
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

/// What is there of the inputs of each rank of a task that is being staged.
pub(super) type Staged = BTreeMap<u32, StagingView>;

/// How the live attempt of a task is staged.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskStaged {
    /// From 1.
    pub attempt: u32,
    /// The attempt's.
    pub epoch: u64,
    /// Of all its ranks that told.
    pub view: StagingView,
}

/// How far a step of a live job has come: what of it is over, and what those that run said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepSaid {
    /// Tasks that have ended, however.
    pub ended: u64,
    /// Live attempts that said something.
    pub told: u64,
    /// What these said, added up; hundredths of a percent.
    pub basis_points: u64,
    /// What those that run have run for so far: it is in no row before they end.
    pub running: Metered,
    /// What that costs.
    pub running_micros: u64,
}

/// How long the processes of a step that run now have run, added up. Of a gang those ranks do
/// not count that have ended: they are metered.
fn running_ms(run: &StepRun, ranks: u64, wall_ms: u64) -> u64 {
    let of_block = |block: &Block| {
        let runs = block.active.values().filter(|active| active.state == State::Running);
        let each = ranks.saturating_sub(block.ranks.len() as u64);
        runs.map(|active| wall_ms.saturating_sub(active.since_ms).saturating_mul(each)).sum::<u64>()
    };
    run.blocks.values().map(of_block).fold(0, u64::saturating_add)
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
        for told in told.staging.into_iter().take(PROGRESS_TASKS_MAX) {
            self.staging_told(node, told);
        }
    }

    fn staging_told(&mut self, node: &str, told: TaskStaging) {
        let TaskStaging { attempt, rank, bytes, total_bytes, bytes_per_s, mut waits_for } = told;
        let Some(attempt) = attempt else { return };
        let staged = self.find_active(&attempt).filter(|active| active.state == State::Staging);
        if !staged.is_some_and(|active| self.is_on(node, &attempt, active, rank)) {
            world::mark!("controller.staging.of_no_staging");
            return;
        }
        let at_ms = self.now.wall_ms;
        plain(&mut waits_for, STAGING_TEXT_BYTES_MAX);
        if let Some(block) = self.block_of(&attempt) {
            world::mark!("controller.staging.told");
            let view = StagingView { bytes, total_bytes, bytes_per_s, waits_for, at_ms };
            block.staging.entry(attempt.task).or_default().insert(rank, view);
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
        plain(&mut text, PROGRESS_TEXT_BYTES_MAX);
        if let Some(block) = self.block_of(&attempt) {
            world::mark!("controller.progress.told");
            let said = RankSaid { basis_points, text, at_ms };
            block.said.entry(attempt.task).or_default().insert(rank, said);
            self.watch_pace(&attempt.tenant, attempt.job_number, attempt.step);
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

    /// How far each step of a live job has come at that instant. It costs what is active, and
    /// blocks, however many tasks there are.
    #[must_use]
    pub fn steps_said(&self, tenant: &str, number: u64, wall_ms: u64) -> Vec<StepSaid> {
        let Some(tenant) = self.tenants.get(tenant) else { return Vec::new() };
        let Some(job) = tenant.jobs.get(&number) else { return Vec::new() };
        let budget = tenant.row.budget.unwrap_or_default();
        let specs = job.row.spec.iter().flat_map(|spec| &spec.steps);
        let said = job.steps.iter().zip(&job.state.steps).zip(specs).map(|((run, state), spec)| {
            let least = run.blocks.values().flat_map(|block| block.said.values()).filter_map(least);
            let (told, basis_points) =
                least.fold((0, 0), |(told, sum), said| (told + 1, sum + u64::from(said.basis_points)));
            let each = spec.per_task.unwrap_or_default();
            let running_ms = running_ms(run, estimate::step_ranks(spec), wall_ms);
            StepSaid {
                ended: state.completed + state.failed + state.cancelled,
                told,
                basis_points,
                running: estimate::ran(&each, running_ms),
                running_micros: estimate::cost_micros(&each, 1, running_ms, &budget),
            }
        });
        said.collect()
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
        let blocks = self.blocks_with(tenant, number, step, &tasks);
        let said = blocks.flat_map(|block| {
            let said = block.said.range(tasks.clone());
            said.filter_map(|(task, said)| Some((*task, whole(block.active.get(task)?, said)?)))
        });
        said.collect()
    }

    /// How those of them that are in STAGING are staged, where that was told.
    #[must_use]
    pub fn staging_of(
        &self,
        tenant: &str,
        number: u64,
        step: u32,
        tasks: Range<u64>,
    ) -> BTreeMap<u64, TaskStaged> {
        let blocks = self.blocks_with(tenant, number, step, &tasks);
        let staged = blocks.flat_map(|block| {
            let staged = block.staging.range(tasks.clone());
            staged.filter_map(|(task, staged)| {
                let Active { attempt, epoch, .. } = *block.active.get(task)?;
                Some((*task, TaskStaged { attempt, epoch, view: together(staged) }))
            })
        });
        staged.collect()
    }

    /// The blocks that have some of these tasks.
    fn blocks_with(
        &self,
        tenant: &str,
        number: u64,
        step: u32,
        tasks: &Range<u64>,
    ) -> impl Iterator<Item = &Block> {
        let job = self.tenants.get(tenant).and_then(|tenant| tenant.jobs.get(&number));
        let run = job.and_then(|job| job.steps.get(step as usize));
        let last = tasks.end.checked_sub(1).filter(|last| tasks.start <= *last);
        let found = run.zip(last).map(|(run, last)| {
            run.blocks.range(StepRun::block_of(tasks.start)..=StepRun::block_of(last)).map(|(_, block)| block)
        });
        found.into_iter().flatten()
    }
}

/// The rank that is least far.
fn least(said: &Said) -> Option<&RankSaid> {
    said.values().min_by_key(|said| said.basis_points)
}

fn whole(active: &Active, said: &Said) -> Option<TaskSaid> {
    let RankSaid { basis_points, text, at_ms } = least(said)?;
    let (attempt, epoch, text) = (active.attempt, active.epoch, text.clone());
    Some(TaskSaid { attempt, epoch, basis_points: *basis_points, text, at_ms: *at_ms })
}

/// Of all ranks. It waits where each of them does that has not all.
fn together(ranks: &Staged) -> StagingView {
    let mut all = StagingView::default();
    let has_all = |rank: &&StagingView| rank.total_bytes > 0 && rank.bytes >= rank.total_bytes;
    let mut late = ranks.values().filter(|rank| !has_all(rank)).peekable();
    if let Some(first) = late.peek().map(|first| first.waits_for.clone())
        && late.all(|rank| !rank.waits_for.is_empty())
    {
        all.waits_for = first;
    }
    let known = ranks.values().all(|rank| rank.total_bytes > 0);
    for rank in ranks.values() {
        all.bytes = all.bytes.saturating_add(rank.bytes);
        all.total_bytes = all.total_bytes.saturating_add(if known { rank.total_bytes } else { 0 });
        all.bytes_per_s = all.bytes_per_s.saturating_add(rank.bytes_per_s);
        all.at_ms = all.at_ms.max(rank.at_ms);
    }
    all
}

/// One line of so many bytes at most, whoever said it.
fn plain(text: &mut String, bytes_max: usize) {
    cut(text, bytes_max);
    text.retain(|letter| !letter.is_control());
}
