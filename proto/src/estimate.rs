//! What a job is expected to be and to cost: pure arithmetic on its spec.
//!
//! All functions expect a spec that [`crate::validate::normalize`] filled.

use crate::{
    array,
    limits::ASSUMED_RUNTIME_MS,
    v1::{Budget, GrantRow, JobSpec, JobStateRow, Metered, Resources, Step},
};

/// Resources of many tasks at once, wider than one node's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Need {
    /// Thousandths of a core.
    pub millicores: u64,
    /// Bytes.
    pub memory_bytes: u64,
    /// Whole devices.
    pub gpus: u64,
}
impl Need {
    /// `times` tasks that need `each`.
    #[must_use]
    pub fn of(each: &Resources, times: u64) -> Self {
        Self {
            millicores: u64::from(each.millicores).saturating_mul(times),
            memory_bytes: each.memory_bytes.saturating_mul(times),
            gpus: u64::from(each.gpus).saturating_mul(times),
        }
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            millicores: self.millicores.saturating_add(other.millicores),
            memory_bytes: self.memory_bytes.saturating_add(other.memory_bytes),
            gpus: self.gpus.saturating_add(other.gpus),
        }
    }

    /// The larger of two in each dimension.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self {
            millicores: self.millicores.max(other.millicores),
            memory_bytes: self.memory_bytes.max(other.memory_bytes),
            gpus: self.gpus.max(other.gpus),
        }
    }
}

/// What a grant holds of each of its nodes: all of it, or so much for each slot.
pub fn held(grant: &GrantRow) -> impl Iterator<Item = (&str, Need)> {
    let each = grant.per_slot.unwrap_or_default();
    grant.nodes.iter().enumerate().map(move |(at, part)| {
        let of_slots = || Need::of(&each, u64::from(part.slots));
        (part.node.as_str(), grant.whole.get(at).map_or_else(of_slots, |whole| Need::of(whole, 1)))
    })
}

/// Tasks of a step: the length of its array, else 1 (a gang is one task).
#[must_use]
pub fn step_tasks(step: &Step) -> u64 {
    step.array.as_ref().map_or(1, array::count)
}

/// Processes of one task of a step: 1, or the ranks of its gang.
#[must_use]
pub fn step_ranks(step: &Step) -> u64 {
    u64::from(step.nodes.max(1)) * u64::from(step.tasks_per_node.max(1))
}

/// Whether the step is a gang: more than one rank, all or none.
#[must_use]
pub fn is_gang(step: &Step) -> bool {
    step_ranks(step) > 1
}

/// Whether outputs are laid per index: arrays, and gangs (per rank).
#[must_use]
pub fn is_indexed(step: &Step) -> bool {
    step.array.is_some() || is_gang(step)
}

/// Tasks of all steps.
#[must_use]
pub fn tasks(spec: &JobSpec) -> u64 {
    spec.steps.iter().fold(0, |sum, step| sum.saturating_add(step_tasks(step)))
}

/// Bytes that nodes bring in for a job from elsewhere: its inputs named by URL,
/// once each, by their told sizes. Uploads are counted when they are made.
#[must_use]
pub fn fetched_bytes(spec: &JobSpec) -> u64 {
    let elsewhere = spec.inputs.iter().filter(|input| !input.url.is_empty());
    elsewhere.fold(0, |sum, input| sum.saturating_add(input.size_bytes))
}

/// What the job needs at least to get on: of each dimension the most that one
/// task, or one whole gang, of any step asks.
#[must_use]
pub fn minimum_need(spec: &JobSpec) -> Need {
    spec.steps.iter().fold(Need::default(), |need, step| {
        let each = step.per_task.unwrap_or_default();
        need.max(Need::of(&each, step_ranks(step)))
    })
}

/// How long one task of a step is assumed to run: what the job tells, else
/// [`ASSUMED_RUNTIME_MS`]; never longer than the step's timeout.
#[must_use]
pub fn assumed_runtime_ms(spec: &JobSpec, step: &Step) -> u64 {
    let told = if spec.expected_runtime_ms == 0 { ASSUMED_RUNTIME_MS } else { spec.expected_runtime_ms };
    if step.timeout_ms == 0 { told } else { told.min(step.timeout_ms) }
}

/// How long one task of a step runs as far as told: its expected time, never
/// longer than its time limit, which else stands for it; 0: neither is told.
#[must_use]
pub fn told_runtime_ms(spec: &JobSpec, step: &Step) -> u64 {
    match (spec.expected_runtime_ms, step.timeout_ms) {
        (told, 0) | (0, told) => told,
        (expected, limit) => expected.min(limit),
    }
}

/// How long one task takes at most, as far as told: its time limit, else what is expected
/// of it; 0: neither is told.
#[must_use]
pub fn most_ms(spec: &JobSpec, step: &Step) -> u64 {
    if step.timeout_ms > 0 { step.timeout_ms } else { spec.expected_runtime_ms }
}

/// Price of the whole job if every task runs once for its assumed time.
#[must_use]
pub fn price_micros(spec: &JobSpec, budget: &Budget) -> u64 {
    spec.steps.iter().fold(0, |sum: u64, step| {
        let each = step.per_task.unwrap_or_default();
        let times = step_tasks(step).saturating_mul(step_ranks(step));
        sum.saturating_add(cost_micros(&each, times, assumed_runtime_ms(spec, step), budget))
    })
}

/// Price of `times` processes of `each` for `span_ms`, rounded up.
#[must_use]
pub fn cost_micros(each: &Resources, times: u64, span_ms: u64, budget: &Budget) -> u64 {
    const HOUR_MS: u128 = 3_600_000;
    let cores = u128::from(each.millicores) * u128::from(budget.core_hour_micros);
    let gpus = u128::from(each.gpus) * u128::from(budget.gpu_hour_micros) * 1000;
    let per_hour_thousandths = cores + gpus;
    let total = per_hour_thousandths
        .saturating_mul(u128::from(times))
        .saturating_mul(u128::from(span_ms))
        .div_ceil(HOUR_MS * 1000);
    u64::try_from(total).unwrap_or(u64::MAX)
}

/// What those of a job's attempts ran for that have ended, by what their processes held.
#[must_use]
pub fn metered(spec: &JobSpec, state: &JobStateRow) -> Metered {
    let mut sum = Metered::default();
    for (step, now) in spec.steps.iter().zip(&state.steps) {
        let each = step.per_task.unwrap_or_default();
        sum = together(sum, ran(&each, now.busy_ms));
    }
    sum
}

/// What processes of `each` held that ran for so long together.
#[must_use]
pub fn ran(each: &Resources, busy_ms: u64) -> Metered {
    let core_ms = u128::from(busy_ms) * u128::from(each.millicores) / 1000;
    Metered {
        busy_ms,
        core_ms: u64::try_from(core_ms).unwrap_or(u64::MAX),
        gpu_ms: busy_ms.saturating_mul(u64::from(each.gpus)),
    }
}

/// The sum of two.
#[must_use]
pub fn together(one: Metered, other: Metered) -> Metered {
    Metered {
        busy_ms: one.busy_ms.saturating_add(other.busy_ms),
        core_ms: one.core_ms.saturating_add(other.core_ms),
        gpu_ms: one.gpu_ms.saturating_add(other.gpu_ms),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::StepState;

    fn step(millicores: u32, gpus: u32) -> Step {
        Step {
            per_task: Some(Resources { millicores, memory_bytes: 1 << 20, gpus }),
            nodes: 1,
            tasks_per_node: 1,
            ..Step::default()
        }
    }

    #[test]
    fn counts_arrays_by_length_and_gangs_as_one() {
        let many = Step { array: Some(array::parse("1-100%5").unwrap()), ..step(500, 0) };
        let gang = Step { nodes: 2, tasks_per_node: 3, ..step(1000, 1) };
        let spec = JobSpec { steps: vec![many.clone(), gang.clone()], ..JobSpec::default() };
        assert_eq!(tasks(&spec), 101);
        assert_eq!(
            (is_gang(&many), is_indexed(&many), is_gang(&gang), is_indexed(&step(1, 0))),
            (false, true, true, false)
        );
        assert_eq!(minimum_need(&spec), Need { millicores: 6000, memory_bytes: 6 << 20, gpus: 6 });
    }

    #[test]
    fn meters_what_ran_by_what_it_held() {
        let spec = JobSpec { steps: vec![step(500, 0), step(2000, 3)], ..JobSpec::default() };
        let ran = |busy_ms| StepState { busy_ms, ..StepState::default() };
        let state = JobStateRow { steps: vec![ran(10), ran(100)], ..JobStateRow::default() };
        assert_eq!(metered(&spec, &state), Metered { busy_ms: 110, core_ms: 205, gpu_ms: 300 });
        let state = JobStateRow { steps: vec![ran(1), ran(u64::MAX)], ..JobStateRow::default() };
        assert_eq!(metered(&spec, &state).gpu_ms, u64::MAX);
    }

    #[test]
    fn prices_by_the_hour_and_rounds_up() {
        let budget = Budget { month_micros: None, core_hour_micros: 60_000, gpu_hour_micros: 1_000_000 };
        let mut spec = JobSpec { steps: vec![step(2000, 1)], ..JobSpec::default() };
        // Ten assumed minutes of two cores and a GPU.
        assert_eq!(price_micros(&spec, &budget), 20_000 + 166_667);
        spec.expected_runtime_ms = 1;
        assert_eq!(price_micros(&spec, &budget), 1);
        spec.expected_runtime_ms = u64::MAX;
        spec.steps[0].timeout_ms = 3_600_000;
        assert_eq!(price_micros(&spec, &budget), 1_120_000);
        spec.steps[0].timeout_ms = 0;
        assert!(price_micros(&spec, &budget) > 1 << 40);
    }
}
