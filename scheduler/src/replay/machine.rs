//! A machine that works a log off in virtual time, under a policy.

use super::swf::{Log, LogJob};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A job's place in its log.
pub type JobIndex = usize;

/// Decides which of the waiting jobs start.
pub trait Policy {
    /// A job waits from now on.
    fn submitted(&mut self, now: u64, index: JobIndex, job: &LogJob);

    /// A job that ran since `started` is over.
    fn ended(&mut self, now: u64, index: JobIndex, job: &LogJob, started: u64);

    /// When it wants to decide even if nothing happens until then.
    fn wakes(&self) -> Option<u64> {
        None
    }

    /// Starts what may start now.
    fn decide(&mut self, now: u64, machine: &mut Machine<'_>);
}

/// What runs, and what is free.
#[derive(Debug)]
pub struct Machine<'l> {
    jobs: &'l [LogJob],
    free: u64,
    now: u64,
    starts: Vec<Option<u64>>,
    /// The soonest first.
    ends: BinaryHeap<Reverse<(u64, JobIndex)>>,
}

impl<'l> Machine<'l> {
    fn new(log: &'l Log) -> Self {
        Self {
            jobs: &log.jobs,
            free: log.processors,
            now: 0,
            starts: vec![None; log.jobs.len()],
            ends: BinaryHeap::new(),
        }
    }

    /// A job of the log.
    #[must_use]
    pub fn job(&self, index: JobIndex) -> &'l LogJob {
        &self.jobs[index]
    }

    /// All jobs of the log.
    #[must_use]
    pub fn jobs(&self) -> &'l [LogJob] {
        self.jobs
    }

    /// True from its start on.
    #[must_use]
    pub fn has_started(&self, index: JobIndex) -> bool {
        self.starts[index].is_some()
    }

    /// Processors on which nothing runs.
    #[must_use]
    pub fn free(&self) -> u64 {
        self.free
    }

    /// Starts a job now. Panics where it does not fit or has started: then the policy
    /// is wrong.
    pub fn start(&mut self, index: JobIndex) {
        let job = &self.jobs[index];
        assert!(job.size <= self.free, "job {} takes {} of {} free", job.id, job.size, self.free);
        let before = self.starts[index].replace(self.now);
        assert_eq!(before, None, "job {} starts twice", job.id);
        self.free -= job.size;
        self.ends.push(Reverse((self.now + job.run, index)));
    }

    /// A job that ends now, with when it started.
    fn take_ended(&mut self) -> Option<(JobIndex, u64)> {
        let &Reverse((_, index)) = self.ends.peek().filter(|Reverse((at, _))| *at == self.now)?;
        self.ends.pop();
        self.free += self.jobs[index].size;
        Some((index, self.starts[index].expect("what ends has started")))
    }
}

/// Works a log off; returns when each job started. Panics where the policy leaves a job
/// waiting for ever.
#[must_use]
pub fn work_off(log: &Log, policy: &mut dyn Policy) -> Vec<u64> {
    let mut machine = Machine::new(log);
    let mut coming = log.jobs.iter().enumerate().peekable();
    loop {
        let end = machine.ends.peek().map(|Reverse((at, _))| *at);
        let submission = coming.peek().map(|(_, job)| job.submit);
        let Some(now) = [end, submission, policy.wakes()].into_iter().flatten().min() else { break };
        machine.now = now;
        while let Some((index, started)) = machine.take_ended() {
            policy.ended(now, index, machine.job(index), started);
        }
        while let Some((index, job)) = coming.next_if(|(_, job)| job.submit == now) {
            policy.submitted(now, index, job);
        }
        policy.decide(now, &mut machine);
    }
    machine.starts.into_iter().map(|start| start.expect("no policy starves a job")).collect()
}
