//! First come, first served.

use crate::replay::machine::{JobIndex, Machine, Policy};
use crate::replay::swf::LogJob;
use std::collections::VecDeque;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Fcfs {
    waiting: VecDeque<JobIndex>,
}

impl Policy for Fcfs {
    fn submitted(&mut self, _now: u64, index: JobIndex, _job: &LogJob) {
        self.waiting.push_back(index);
    }

    fn ended(&mut self, _now: u64, _index: JobIndex, _job: &LogJob, _started: u64) {}

    fn decide(&mut self, _now: u64, machine: &mut Machine<'_>) {
        while let Some(&first) = self.waiting.front()
            && machine.job(first).size <= machine.free()
        {
            self.waiting.pop_front();
            machine.start(first);
        }
    }
}
