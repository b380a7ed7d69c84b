//! Drumline's own: who suffers most comes first.
//!
//! A job's place is `ln(expected slowdown) + wait / ordinary run`. While the wait is short
//! the first part decides: an hour is much for a job of a minute and little for one of a
//! day. As the wait grows the second part takes over, the same for all: so nobody is
//! overtaken for ever, however long or wide. The unit of time is the machine's own, what
//! its jobs took in the mean so far; there is nothing to set.
//!
//! The first that waits has a reservation by estimates, so it never starts later than was
//! promised because somebody overtook. Those that may overtake are tried shortest
//! first, by the geometric mean of what alike jobs took and what the user expects: either
//! alone may be far off.

use super::running::Running;
use crate::replay::machine::{JobIndex, Machine, Policy};
use crate::replay::predict::Predictor;
use crate::replay::swf::LogJob;

/// Taken for an ordinary run until something has ended.
const FIRST_RUN_S: f64 = 3600.0;
/// Shorter runs than this count as this, as in the bounded slowdown.
const SHORTEST_RUN_S: f64 = 10.0;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Default {
    waiting: Vec<Waiting>,
    /// By which jobs are tried that may overtake, for every job so far.
    short_s: Vec<f64>,
    running: Running,
    predictor: Predictor,
    ended_runs_s: f64,
    ended: f64,
}

#[derive(Debug)]
struct Waiting {
    index: JobIndex,
    submitted: u64,
    /// How long it will probably run.
    run_s: f64,
}

impl Waiting {
    fn place(&self, now: u64, ordinary_run_s: f64) -> f64 {
        let (wait_s, run_s) = ((now - self.submitted) as f64, self.run_s.max(SHORTEST_RUN_S));
        ((wait_s + run_s) / run_s).ln() + wait_s / ordinary_run_s
    }
}

impl Policy for Default {
    fn submitted(&mut self, now: u64, index: JobIndex, job: &LogJob) {
        let run_s = self.predictor.predict(job);
        self.short_s.push((run_s * job.estimate as f64).sqrt());
        self.waiting.push(Waiting { index, submitted: now, run_s });
    }

    fn ended(&mut self, _now: u64, index: JobIndex, job: &LogJob, started: u64) {
        self.running.ended(index, job, started);
        self.predictor.ended(job);
        self.ended_runs_s += job.run as f64;
        self.ended += 1.0;
    }

    fn decide(&mut self, now: u64, machine: &mut Machine<'_>) {
        if self.waiting.is_empty() || machine.free() == 0 {
            return;
        }
        let ordinary_run_s = if self.ended > 0.0 { self.ended_runs_s / self.ended } else { FIRST_RUN_S };
        // Sorting is stable, and all stand in the order of their submission.
        let mut order: Vec<(f64, &Waiting)> =
            self.waiting.iter().map(|job| (job.place(now, ordinary_run_s), job)).collect();
        order.sort_by(|(one, _), (other, _)| other.total_cmp(one));
        let order: Vec<JobIndex> = order.into_iter().map(|(_, job)| job.index).collect();
        let short_s = &self.short_s;
        self.running.fill(now, machine, &order, |rest| {
            rest.sort_by(|one, other| short_s[*one].total_cmp(&short_s[*other]).then(one.cmp(other)));
        });
        self.waiting.retain(|job| !machine.has_started(job.index));
    }
}
