//! EASY backfilling: jobs come in the order of their submission, the first that waits has
//! a reservation, and who does not delay it may overtake.

use super::running::Running;
use crate::replay::machine::{JobIndex, Machine, Policy};
use crate::replay::swf::LogJob;

/// Who is tried first among those that may overtake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Submission,
    /// By estimate; of equal ones who came first.
    Shortest,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Easy {
    order: Order,
    waiting: Vec<JobIndex>,
    running: Running,
}

impl Easy {
    pub(super) fn new(order: Order) -> Self {
        Self { order, waiting: Vec::new(), running: Running::default() }
    }
}

impl Policy for Easy {
    fn submitted(&mut self, _now: u64, index: JobIndex, _job: &LogJob) {
        self.waiting.push(index);
    }

    fn ended(&mut self, _now: u64, index: JobIndex, job: &LogJob, started: u64) {
        self.running.ended(index, job, started);
    }

    fn decide(&mut self, now: u64, machine: &mut Machine<'_>) {
        let jobs = machine.jobs();
        self.running.fill(now, machine, &self.waiting, |rest| {
            if self.order == Order::Shortest {
                rest.sort_by_key(|index| jobs[*index].estimate);
            }
        });
        self.waiting.retain(|index| !machine.has_started(*index));
    }
}
