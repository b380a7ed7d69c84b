//! Which attempts run far longer than their like: stragglers.
//!
//! What must hold: what is compared with is kept in memory alone, bounded for each step,
//! and fills anew after a restart. Nothing is decided by it, no row and no event has it:
//! events are edges of the state machine, and a straggler takes none. The operator's log
//! has a line for each attempt that is one, a few of a step and then no more.

use super::model::{Active, Block, StepRun};
use super::progress::RankSaid;
use super::{Core, Timer};
use crate::limits::{
    PACE_KEPT_MAX, PACE_LOOK_MS, STRAGGLER_COMPLETED_MIN, STRAGGLER_OTHERS_MIN, STRAGGLER_RAN_MS_MIN,
    STRAGGLER_TIMES, STRAGGLERS_LOGGED_MAX,
};
use proto::array;
use proto::v1::State;
use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;

/// How long the tasks of a step take.
#[derive(Default)]
pub(super) struct Pace {
    /// How long the last tasks that completed ran: a ring, once it is full.
    ran_ms: Vec<u64>,
    next: usize,
    /// Those that the log has: task, rank, attempt, epoch.
    logged: BTreeSet<(u64, Option<u32>, u32, u64)>,
    /// The timer for the next look is set.
    look_set: bool,
}

impl Pace {
    fn completed(&mut self, ran_ms: u64) {
        if self.ran_ms.len() < PACE_KEPT_MAX {
            self.ran_ms.push(ran_ms);
        } else {
            self.ran_ms[self.next] = ran_ms;
            self.next = (self.next + 1) % PACE_KEPT_MAX;
        }
    }

    /// Its limits hold.
    pub(super) fn check(&self) {
        assert!(self.ran_ms.len() <= PACE_KEPT_MAX && self.logged.len() <= STRAGGLERS_LOGGED_MAX);
    }
}

/// What a straggler is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Against {
    /// How long it has run, with tasks that completed.
    Completed,
    /// When it will end, by its own word, with the others of its step.
    Others,
    /// Likewise a rank, with the others of its gang.
    Ranks,
}

/// An attempt (of a gang: a rank of it) that runs far longer than its like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Straggler {
    /// Index of its step.
    pub step: u32,
    /// Its ordinal.
    pub task: u64,
    /// Of a gang.
    pub rank: Option<u32>,
    /// From 1.
    pub attempt: u32,
    /// The attempt's.
    pub epoch: u64,
    /// How many times as long as the median; tenths.
    pub tenths: u64,
    /// So many make the median.
    pub of: usize,
    against: Against,
}

/// `runs 3.2 times as long as the median of 40 that completed`.
impl fmt::Display for Straggler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(rank) = self.rank {
            write!(f, "rank {rank} ")?;
        }
        let verb = if self.against == Against::Completed { "runs" } else { "would run" };
        write!(f, "{verb} {}.{} times as long as the median of ", self.tenths / 10, self.tenths % 10)?;
        match self.against {
            Against::Completed => write!(f, "{} that completed", self.of),
            Against::Others => write!(f, "{} others", self.of),
            Against::Ranks => write!(f, "{} other ranks", self.of),
        }
    }
}

/// The middle of sorted numbers; of an even count the mean of the middle two.
fn median(sorted: &[u64]) -> u64 {
    median_by(sorted.len(), |at| sorted[at])
}

/// The same of all but the one at a place.
fn median_without(sorted: &[u64], left_out: usize) -> u64 {
    median_by(sorted.len() - 1, |at| sorted[at + usize::from(at >= left_out)])
}

fn median_by(count: usize, at: impl Fn(usize) -> u64) -> u64 {
    match count {
        0 => 0,
        odd if odd % 2 == 1 => at(odd / 2),
        even => at(even / 2 - 1).midpoint(at(even / 2)),
    }
}

/// Tenths of how many times as long it is, where that is too many.
fn times(ms: u64, median_ms: u64) -> Option<u64> {
    let too_long = ms > median_ms.saturating_mul(STRAGGLER_TIMES);
    too_long.then(|| ms.saturating_mul(10) / median_ms.max(1))
}

/// How long it runs from its begin to its end, by what it said last; at least as long as
/// it has run. `None`: it has begun just now, or is nowhere yet.
fn projected(said: &RankSaid, since_ms: u64, now_ms: u64, ended: bool) -> Option<u64> {
    let ran_ms = now_ms.saturating_sub(since_ms);
    if said.basis_points == 0 || ran_ms < STRAGGLER_RAN_MS_MIN {
        return None;
    }
    let told_ms = said.at_ms.saturating_sub(since_ms);
    let all_ms = told_ms.saturating_mul(10_000) / u64::from(said.basis_points);
    Some(if ended || said.basis_points >= 10_000 { all_ms } else { all_ms.max(ran_ms) })
}

/// What attempts of one step are compared with at an instant.
struct Measure {
    step: u32,
    now_ms: u64,
    /// The median of what completed, and how many that are.
    completed: Option<(u64, usize)>,
    /// How long tasks ran or will run, sorted; of a gang, its ranks.
    all_ms: Vec<u64>,
    against: Against,
}

impl Measure {
    fn new(run: &StepRun, step: u32, now_ms: u64) -> Self {
        let against = if run.gang.is_some() { Against::Ranks } else { Against::Others };
        let mut all_ms = run.pace.ran_ms.clone();
        all_ms.sort_unstable();
        let enough = all_ms.len() >= STRAGGLER_COMPLETED_MIN;
        let completed = enough.then(|| (median(&all_ms), all_ms.len()));
        for block in run.blocks.values() {
            let running = block.said.iter().filter_map(|(task, said)| Some((running(block, *task)?, said)));
            all_ms.extend(running.flat_map(|(active, said)| {
                said.iter().filter_map(move |(rank, said)| {
                    projected(said, active.since_ms, now_ms, block.ranks.contains_key(rank))
                })
            }));
        }
        all_ms.sort_unstable();
        Self { step, now_ms, completed, all_ms, against }
    }

    /// It has run far longer than what completed.
    fn by_time(&self, active: &Active) -> Option<(u64, usize)> {
        let (median_ms, of) = self.completed?;
        let ran_ms = self.now_ms.saturating_sub(active.since_ms);
        if ran_ms < STRAGGLER_RAN_MS_MIN {
            return None;
        }
        Some((times(ran_ms, median_ms)?, of))
    }

    /// It will have run far longer than the others, by its own word.
    fn by_word(&self, active: &Active, said: &RankSaid) -> Option<(u64, usize)> {
        let own_ms = projected(said, active.since_ms, self.now_ms, false)?;
        let of = self.all_ms.len().saturating_sub(1);
        let at = self.all_ms.binary_search(&own_ms).ok().filter(|_| of >= STRAGGLER_OTHERS_MIN)?;
        Some((times(own_ms, median_without(&self.all_ms, at))?, of))
    }

    fn judge(&self, block: &Block, task: u64, active: &Active) -> Vec<Straggler> {
        let (step, Active { attempt, epoch, .. }) = (self.step, *active);
        let of =
            |rank, against, (tenths, of)| Straggler { step, task, rank, attempt, epoch, tenths, of, against };
        if let Some(found) = self.by_time(active) {
            return vec![of(None, Against::Completed, found)];
        }
        let gang = self.against == Against::Ranks;
        let said = block.said.get(&task).into_iter().flatten();
        let live = said.filter(|(rank, _)| !block.ranks.contains_key(rank));
        live.filter_map(|(rank, said)| {
            Some(of(gang.then_some(*rank), self.against, self.by_word(active, said)?))
        })
        .collect()
    }
}

/// The attempt of a task where it runs.
fn running(block: &Block, task: u64) -> Option<&Active> {
    block.active.get(&task).filter(|active| active.state == State::Running)
}

/// Those among some tasks of a step. It costs what runs.
fn stragglers(run: &StepRun, step: u32, tasks: &Range<u64>, now_ms: u64) -> Vec<Straggler> {
    if !has_like(run) || tasks.is_empty() {
        return Vec::new();
    }
    let measure = Measure::new(run, step, now_ms);
    if measure.completed.is_none() && measure.all_ms.len() <= STRAGGLER_OTHERS_MIN {
        return Vec::new();
    }
    let found = run.blocks.values().flat_map(|block| {
        let running = block.active.range(tasks.clone()).filter(|(_, active)| active.state == State::Running);
        running.flat_map(|(task, active)| measure.judge(block, *task, active))
    });
    found.collect()
}

/// There is something of it to compare with.
fn has_like(run: &StepRun) -> bool {
    run.tasks > 1 || run.gang.is_some()
}

impl Core {
    /// Those among some tasks of some steps of a live job: by step, the slowest first.
    #[must_use]
    pub fn stragglers_of(
        &self,
        tenant: &str,
        number: u64,
        steps: Range<u32>,
        tasks: Range<u64>,
    ) -> Vec<Straggler> {
        let job = self.tenants.get(tenant).and_then(|tenant| tenant.jobs.get(&number));
        let runs = job.iter().flat_map(|job| (0..).zip(&job.steps)).filter(|(step, _)| steps.contains(step));
        let now_ms = self.now.wall_ms;
        let mut found: Vec<Straggler> =
            runs.flat_map(|(step, run)| stragglers(run, step, &tasks, now_ms)).collect();
        found.sort_by_key(|found| (found.step, Reverse(found.tenths), found.task, found.rank));
        found
    }

    /// A task completed, and its attempt ran so long.
    pub(super) fn ran(&mut self, tenant: &str, number: u64, step: u32, ran_ms: u64) {
        if let Some(run) = self.step_run(tenant, number, step).filter(|run| has_like(run)) {
            run.pace.completed(ran_ms);
            self.watch_pace(tenant, number, step);
        }
    }

    /// Sees to it that a step is looked at for stragglers, while there can be any that the
    /// log does not have.
    pub(super) fn watch_pace(&mut self, tenant: &str, number: u64, step: u32) {
        let at_ms = self.now.mono_ms + PACE_LOOK_MS;
        let Some(run) = self.step_run(tenant, number, step).filter(|run| has_like(run)) else { return };
        if run.pace.look_set || run.pace.logged.len() >= STRAGGLERS_LOGGED_MAX {
            return;
        }
        let some = |of: fn(&Block) -> bool| run.blocks.values().any(of);
        let is_measured = run.pace.ran_ms.len() >= STRAGGLER_COMPLETED_MIN;
        if some(|block| !block.active.is_empty()) && (is_measured || some(|block| !block.said.is_empty())) {
            run.pace.look_set = true;
            self.timers.insert((at_ms, Timer::Pace(tenant.to_owned(), number, step)));
        }
    }

    /// It is time to look.
    pub(super) fn look_at_pace(&mut self, tenant: &str, number: u64, step: u32) {
        let now_ms = self.now.wall_ms;
        let Some(run) = self.step_run(tenant, number, step) else { return };
        run.pace.look_set = false;
        let mut fresh = stragglers(run, step, &(0..u64::MAX), now_ms);
        fresh.retain(|found| {
            run.pace.logged.len() < STRAGGLERS_LOGGED_MAX
                && run.pace.logged.insert((found.task, found.rank, found.attempt, found.epoch))
        });
        for found in fresh {
            let name = self.name_of(tenant, number, step, found.task);
            self.log(tenant, number, format!("{name} {found}"));
        }
        self.watch_pace(tenant, number, step);
    }

    fn step_run(&mut self, tenant: &str, number: u64, step: u32) -> Option<&mut StepRun> {
        self.tenants.get_mut(tenant)?.jobs.get_mut(&number)?.steps.get_mut(step as usize)
    }

    /// `step count task 17`, as its user calls it.
    fn name_of(&self, tenant: &str, number: u64, step: u32, task: u64) -> String {
        let job = self.tenants.get(tenant).and_then(|tenant| tenant.jobs.get(&number));
        let step = job.and_then(|job| job.row.spec.as_ref()?.steps.get(step as usize));
        let name = step.map_or("", |step| step.name.as_str());
        match step.and_then(|step| array::index_of(step.array.as_ref()?, task)) {
            Some(index) => format!("step {name} task {index}"),
            None => format!("step {name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!([&[][..], &[7], &[1, 4], &[1, 2, 9]].map(median), [0, 7, 2, 2]);
        assert_eq!([0, 1, 2].map(|at| median_without(&[1, 2, 9], at)), [5, 5, 1]);
        assert_eq!([0, 1].map(|at| median_without(&[1, 9], at)), [9, 1]);
        assert_eq!(median(&[u64::MAX, u64::MAX]), u64::MAX);
    }

    #[test]
    fn twice_as_long_is_not_too_long_yet() {
        assert_eq!([times(20_000, 10_000), times(20_001, 10_000)], [None, Some(20)]);
        assert_eq!(times(32_999, 10_000), Some(32));
        assert_eq!(times(10_000, 0), Some(100_000), "what took no time");
        assert_eq!(times(u64::MAX, u64::MAX), None);
    }

    #[test]
    fn a_ring_keeps_what_came_last() {
        let mut pace = Pace::default();
        for ran_ms in 0..PACE_KEPT_MAX as u64 + 3 {
            pace.completed(ran_ms);
        }
        pace.check();
        let mut kept = pace.ran_ms.clone();
        kept.sort_unstable();
        assert_eq!((kept.len(), kept[0]), (PACE_KEPT_MAX, 3));
    }

    #[test]
    fn where_it_will_end_follows_from_what_it_said() {
        let said = |basis_points, at_ms| RankSaid { basis_points, text: String::new(), at_ms };
        let begun_ms = 1_000;
        let at = |said, ran_ms, ended| projected(&said, begun_ms, begun_ms + ran_ms, ended);
        assert_eq!(at(said(2_500, 11_000), 12_000, false), Some(40_000));
        assert_eq!(at(said(2_500, 11_000), 90_000, false), Some(90_000), "it has run longer already");
        assert_eq!(at(said(2_500, 11_000), 90_000, true), Some(40_000), "it has ended");
        assert_eq!(at(said(10_000, 11_000), 90_000, false), Some(10_000), "all is done");
        assert_eq!([at(said(0, 11_000), 12_000, false), at(said(2_500, 3_000), 9_999, false)], [None; 2]);
    }
}
