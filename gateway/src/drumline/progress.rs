//! How far jobs have come as a whole.
//!
//! What must hold: it is worked out of counts and of what tasks said, never task by
//! task; rows alone will do where the controller does not say, or the job does not live.

use crate::gate::{Gate, ended};
use controller::StepSaid;
use controller::limits::STRAGGLERS_TOLD_MAX;
use controller::shell::StragglersOf;
use proto::ids::JobId;
use proto::v1::{JobProgress, JobSpec, JobStateRow, JobSummary, Metered, Step, StepProgress, Straggler};
use proto::{array, estimate};
use std::collections::BTreeMap;

/// Of one job, step by step.
pub(super) async fn of_job(
    gate: &Gate,
    job: &JobId,
    spec: &JobSpec,
    state: &JobStateRow,
) -> Option<JobProgress> {
    let mut said = Vec::new();
    if runs(state) {
        let asked = vec![(job.tenant.clone(), job.number)];
        said = gate.controller.steps_said(asked).await.pop().unwrap_or_default();
    }
    let tasks: Vec<u64> = spec.steps.iter().map(estimate::step_tasks).collect();
    let mut progress = whole(tasks.iter().sum(), state, &said)?;
    let of_step = |(at, tasks): (usize, &u64)| StepProgress {
        percent: of_step(*tasks, state, &said, at),
        ..StepProgress::default()
    };
    progress.steps = tasks.iter().enumerate().map(of_step).collect();
    for (at, (count, slowest)) in stragglers(gate, job, spec, state).await {
        (progress.steps[at].stragglers, progress.steps[at].slowest) = (count, slowest);
    }
    Some(progress)
}

/// How many there are of a step, and the slowest of them.
pub(super) type Stragglers = (u64, Vec<Straggler>);

/// By index of the step.
pub(super) async fn stragglers(
    gate: &Gate,
    job: &JobId,
    spec: &JobSpec,
    state: &JobStateRow,
) -> BTreeMap<usize, Stragglers> {
    let mut by_step: BTreeMap<usize, Stragglers> = BTreeMap::new();
    if !runs(state) {
        return by_step;
    }
    let (tenant, number) = (job.tenant.clone(), job.number);
    let of = StragglersOf { tenant, number, steps: 0..u32::MAX, tasks: 0..u64::MAX };
    for found in gate.controller.stragglers(of).await {
        let Some(step) = spec.steps.get(found.step as usize) else { continue };
        let (count, slowest) = by_step.entry(found.step as usize).or_default();
        *count += 1;
        if slowest.len() < STRAGGLERS_TOLD_MAX {
            slowest.push(shown(step, &found));
        }
    }
    by_step
}

fn shown(step: &Step, found: &controller::Straggler) -> Straggler {
    let index = step.array.as_ref().and_then(|array| array::index_of(array, found.task));
    Straggler {
        task: found.task,
        index: index.unwrap_or(found.task),
        attempt: found.attempt,
        text: found.to_string(),
    }
}

/// Tells it of those of a list that have any, and what those that run have used so far.
pub(super) async fn tell(gate: &Gate, jobs: &mut [JobSummary]) {
    let is_asked = |job: &&JobSummary| job.state.as_ref().is_some_and(runs);
    let asked: Vec<_> = jobs.iter().filter(is_asked).map(|job| (job.tenant.clone(), job.number)).collect();
    let mut said = Vec::new();
    if !asked.is_empty() {
        said = gate.controller.steps_said(asked).await;
    }
    let mut said = said.into_iter();
    for job in jobs {
        let Some(state) = &job.state else { continue };
        let told = if runs(state) { said.next().unwrap_or_default() } else { Vec::new() };
        job.progress = whole(job.tasks, state, &told);
        let running = told.iter().map(|step| step.running).fold(Metered::default(), estimate::together);
        job.metered = Some(estimate::together(job.metered.unwrap_or_default(), running));
        job.running_micros = told.iter().map(|step| step.running_micros).fold(0, u64::saturating_add);
    }
}

/// Some task of it may have something to say.
fn runs(state: &JobStateRow) -> bool {
    !ended(state.state()) && state.steps.iter().any(|step| step.active > 0)
}

fn whole(tasks: u64, state: &JobStateRow, said: &[StepSaid]) -> Option<JobProgress> {
    let all = (0..state.steps.len()).map(|at| step(state, said, at));
    let sum = all.fold(StepSaid::default(), |sum, step| StepSaid {
        ended: sum.ended + step.ended,
        told: sum.told + step.told,
        basis_points: sum.basis_points + step.basis_points,
        ..sum
    });
    Some(JobProgress { percent: mean(tasks, &sum)?, told: sum.told, steps: Vec::new() })
}

fn of_step(tasks: u64, state: &JobStateRow, said: &[StepSaid], at: usize) -> Option<f64> {
    mean(tasks, &step(state, said, at))
}

/// What the controller says of a step: it knows of ends that are not in the row yet, and
/// what ended says nothing any more. Else the row.
fn step(state: &JobStateRow, said: &[StepSaid], at: usize) -> StepSaid {
    said.get(at).cloned().unwrap_or_else(|| {
        let ended = state.steps.get(at).map_or(0, |row| row.completed + row.failed + row.cancelled);
        StepSaid { ended, ..StepSaid::default() }
    })
}

/// In percent, to the hundredth below. Of a single task that said nothing there is none.
#[expect(clippy::cast_precision_loss, reason = "at most 10,000")]
fn mean(tasks: u64, said: &StepSaid) -> Option<f64> {
    if tasks == 0 || tasks == 1 && said.told == 0 {
        return None;
    }
    let sum = u128::from(said.ended) * 10_000 + u128::from(said.basis_points);
    let basis_points = (sum / u128::from(tasks)).min(10_000) as u64;
    Some(basis_points as f64 / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::v1::{State, StepState};

    fn said(ended: u64, told: u64, basis_points: u64) -> StepSaid {
        StepSaid { ended, told, basis_points, ..StepSaid::default() }
    }

    #[test]
    fn what_ended_is_all_what_runs_is_what_it_said_and_what_waits_is_nothing() {
        assert_eq!(mean(4, &said(1, 2, 5_000 + 2_500)), Some(43.75));
        assert_eq!(mean(3, &said(1, 0, 0)), Some(33.33));
        assert_eq!(mean(3, &said(3, 0, 0)), Some(100.0));
        assert_eq!(mean(1_000_000, &said(999_999, 1, 9_999)), Some(99.99), "it never rounds to the end");
        // A row and the controller are not read at one instant.
        assert_eq!(mean(2, &said(2, 1, 9_000)), Some(100.0));
    }

    #[test]
    fn one_task_that_says_nothing_has_none() {
        assert_eq!([mean(1, &said(0, 0, 0)), mean(1, &said(1, 0, 0)), mean(0, &said(0, 0, 0))], [None; 3]);
        assert_eq!([mean(1, &said(0, 1, 0)), mean(1, &said(0, 1, 4_250))], [Some(0.0), Some(42.5)]);
        assert_eq!(mean(2, &said(0, 0, 0)), Some(0.0));
    }

    #[test]
    fn rows_will_do_where_the_controller_does_not_say() {
        let row = |completed, failed, active| StepState { completed, failed, active, ..StepState::default() };
        let mut state = JobStateRow { steps: vec![row(2, 1, 1), row(0, 0, 0)], ..JobStateRow::default() };
        assert!(runs(&state));
        assert_eq!(whole(8, &state, &[]).map(|told| (told.percent, told.told)), Some((37.5, 0)));
        let told = [said(4, 0, 0), said(0, 2, 8_000)];
        assert_eq!(whole(8, &state, &told).map(|told| (told.percent, told.told)), Some((60.0, 2)));
        assert_eq!((of_step(4, &state, &told, 0), of_step(4, &state, &told, 1)), (Some(100.0), Some(20.0)));
        state.set_state(State::Cancelled);
        assert!(!runs(&state), "what has ended says nothing");
    }
}
