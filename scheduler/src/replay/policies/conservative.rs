//! Conservative backfilling: every job has a reservation from its submission on. At each
//! completion all move forward as far as they can, in the order of their submission;
//! none ever moves back.

use crate::replay::machine::{JobIndex, Machine, Policy};
use crate::replay::profile::Profile;
use crate::replay::swf::LogJob;

/// See the module.
#[derive(Debug)]
pub(super) struct Conservative {
    /// Who waits, with when it starts at the latest.
    waiting: Vec<(JobIndex, u64)>,
    /// What runs and what is reserved.
    profile: Profile,
    submitted: Vec<JobIndex>,
    /// Something has ended.
    room: bool,
}

impl Conservative {
    pub(super) fn new(processors: u64) -> Self {
        Self { waiting: Vec::new(), profile: Profile::new(processors), submitted: Vec::new(), room: false }
    }

    fn reserve(&mut self, now: u64, job: &LogJob) -> u64 {
        let start = self.profile.earliest(now, job.estimate, job.size);
        self.profile.take(start, start + job.estimate, job.size);
        start
    }

    fn move_forward(&mut self, now: u64, machine: &Machine<'_>) {
        for at in 0..self.waiting.len() {
            let (index, before) = self.waiting[at];
            let job = machine.job(index);
            self.profile.give(before, before + job.estimate, job.size);
            let start = self.reserve(now, job);
            assert!(start <= before, "job {} moved from {before} back to {start}", job.id);
            self.waiting[at].1 = start;
        }
    }
}

impl Policy for Conservative {
    fn submitted(&mut self, _now: u64, index: JobIndex, _job: &LogJob) {
        self.submitted.push(index);
    }

    fn ended(&mut self, now: u64, _index: JobIndex, job: &LogJob, started: u64) {
        self.profile.give(now, started + job.estimate, job.size);
        self.room = true;
    }

    fn wakes(&self) -> Option<u64> {
        // Who moved forward behind another may leave a start at which nothing ends.
        self.waiting.iter().map(|(_, start)| *start).min()
    }

    fn decide(&mut self, now: u64, machine: &mut Machine<'_>) {
        self.profile.forget_before(now);
        if std::mem::take(&mut self.room) {
            self.move_forward(now, machine);
        }
        for index in std::mem::take(&mut self.submitted) {
            let start = self.reserve(now, machine.job(index));
            self.waiting.push((index, start));
        }
        self.waiting.retain(|&(index, start)| {
            if start == now {
                machine.start(index);
            }
            start != now
        });
    }
}
