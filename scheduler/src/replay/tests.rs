//! Policies against slow and simple ones that plan second by second.

use super::policies::Name;
use super::{JobIndex, Log, LogJob, Machine, Policy, course, last_end, measure, shaken, swf, work_off};
use proptest::prelude::*;
use std::collections::BTreeMap;

fn job(id: u64, submit: u64, run: u64, estimate: u64, size: u64) -> LogJob {
    LogJob { id, submit, run, estimate, size, user: (id % 3) as i64 }
}

fn starts(name: Name, log: &Log) -> Vec<u64> {
    work_off(log, &mut *name.policy(log))
}

prop_compose! {
    /// Small enough for the slow ones.
    fn logs()(processors in 1_u64..9)(
        jobs in prop::collection::vec((0_u64..40, 1_u64..12, 0_u64..12, 1..=processors), 1..14),
        processors in Just(processors),
    ) -> Log {
        let job = |(index, (submit, run, more, size))| job(index, submit, run, run + more, size);
        let mut jobs: Vec<LogJob> = (0..).zip(jobs).map(job).collect();
        jobs.sort_by_key(|job| job.submit);
        Log { jobs, processors, dropped: 0 }
    }
}

/// What is free in each second, as reservations and estimates have it.
struct Seconds(Vec<u64>);

impl Seconds {
    fn new(processors: u64) -> Self {
        Self(vec![processors; 1000])
    }

    fn fits(&self, at: u64, job: &LogJob) -> bool {
        (at..at + job.estimate).all(|second| self.0[second as usize] >= job.size)
    }

    fn first(&self, from: u64, job: &LogJob) -> u64 {
        (from..).find(|at| self.fits(*at, job)).expect("the plan is long enough")
    }

    fn take(&mut self, from: u64, to: u64, size: u64) {
        (from..to).for_each(|second| self.0[second as usize] -= size);
    }
}

/// Asks a policy, and looks whether the promise it gave to the first that waits still
/// stands.
struct Watched {
    policy: Box<dyn Policy>,
    processors: u64,
    waiting: Vec<JobIndex>,
    running: BTreeMap<JobIndex, u64>,
    promised: Option<(JobIndex, u64)>,
}

impl Policy for Watched {
    fn submitted(&mut self, now: u64, index: JobIndex, job: &LogJob) {
        self.waiting.push(index);
        self.policy.submitted(now, index, job);
    }

    fn ended(&mut self, now: u64, index: JobIndex, job: &LogJob, started: u64) {
        self.running.remove(&index);
        self.policy.ended(now, index, job, started);
    }

    fn decide(&mut self, now: u64, machine: &mut Machine<'_>) {
        self.policy.decide(now, machine);
        for index in self.waiting.extract_if(.., |index| machine.has_started(*index)) {
            self.running.insert(index, now);
        }
        let Some(&first) = self.waiting.first() else { return };
        let mut seconds = Seconds::new(self.processors);
        for (index, started) in &self.running {
            let job = machine.job(*index);
            seconds.take(*started, started + job.estimate, job.size);
        }
        let start = seconds.first(now, machine.job(first));
        assert_ne!(start, now, "the first that waits fits, and was not started");
        if let Some((promised_to, promise)) = self.promised
            && promised_to == first
        {
            assert!(start <= promise, "job {first} was promised {promise} and now starts at {start}");
        }
        self.promised = Some((first, start));
    }
}

/// Conservative backfilling, second by second.
fn conservative(log: &Log) -> Vec<u64> {
    let mut starts: Vec<Option<u64>> = vec![None; log.jobs.len()];
    let mut reserved: BTreeMap<JobIndex, u64> = BTreeMap::new();
    for now in 0.. {
        if starts.iter().all(Option::is_some) {
            break;
        }
        let plan = |starts: &[Option<u64>], reserved: &BTreeMap<JobIndex, u64>, but: JobIndex| {
            let mut seconds = Seconds::new(log.processors);
            for (index, job) in log.jobs.iter().enumerate() {
                if let Some(start) = starts[index] {
                    let ended = start + job.run <= now;
                    seconds.take(start, start + if ended { job.run } else { job.estimate }, job.size);
                } else if let Some(start) = reserved.get(&index).filter(|_| index != but) {
                    seconds.take(*start, start + job.estimate, job.size);
                }
            }
            seconds
        };
        let ended = |(job, start): (&LogJob, &Option<u64>)| start.is_some_and(|start| start + job.run == now);
        let ends = log.jobs.iter().zip(&starts).any(ended);
        if ends && now > 0 {
            for index in reserved.keys().copied().collect::<Vec<_>>() {
                let start = plan(&starts, &reserved, index).first(now, &log.jobs[index]);
                reserved.insert(index, start);
            }
        }
        for (index, job) in log.jobs.iter().enumerate().filter(|(_, job)| job.submit == now) {
            let start = plan(&starts, &reserved, index).first(now, job);
            reserved.insert(index, start);
        }
        reserved.retain(|index, start| {
            if *start == now {
                starts[*index] = Some(now);
            }
            *start != now
        });
    }
    starts.into_iter().flatten().collect()
}

proptest! {
    #[test]
    fn nobody_delays_the_first_that_waits(log in logs()) {
        for name in [Name::Easy, Name::EasySjbf] {
            let mut watched = Watched {
                policy: name.policy(&log),
                processors: log.processors,
                waiting: Vec::new(),
                running: BTreeMap::new(),
                promised: None,
            };
            let _ = work_off(&log, &mut watched);
        }
    }

    #[test]
    fn conservative_plans_as_a_slow_planner_does(log in logs()) {
        prop_assert_eq!(starts(Name::Conservative, &log), conservative(&log));
    }

    #[test]
    fn every_job_runs_once_it_came(log in logs(), copy: u64) {
        let log = shaken(&log, 5, copy);
        for name in Name::ALL {
            let starts = starts(name, &log);
            prop_assert!(log.jobs.iter().zip(&starts).all(|(job, start)| *start >= job.submit));
            let measures = measure(&log, &starts);
            prop_assert!(measures.mean_bounded_slowdown >= 1.0 && measures.utilisation <= 1.0);
            prop_assert!(measures.fairness > 0.0 && measures.fairness <= 1.0 + 1e-9);
        }
    }
}

/// Three processors: one runs until 10, the wide one comes next, then a long and a short
/// narrow one.
fn overtaking() -> Log {
    let jobs = vec![job(1, 0, 10, 10, 2), job(2, 1, 5, 5, 3), job(3, 2, 20, 20, 1), job(4, 3, 7, 7, 1)];
    Log { jobs, processors: 3, dropped: 0 }
}

#[test]
fn nobody_moves_forward_where_nothing_ends() {
    // When the first ends the two narrow ones come forward, and could let the others: these
    // have had their turn, and wait for the next end.
    let jobs = vec![
        job(4, 0, 6, 7, 3),
        job(2, 1, 7, 9, 1),
        job(0, 2, 2, 3, 3),
        job(1, 2, 9, 9, 3),
        job(5, 2, 7, 9, 1),
        job(3, 8, 1, 1, 2),
    ];
    let log = Log { jobs, processors: 3, dropped: 0 };
    assert_eq!(starts(Name::Conservative, &log), [0, 6, 14, 16, 6, 13]);
    assert_eq!(conservative(&log), [0, 6, 14, 16, 6, 13]);
}

#[test]
fn who_delays_nobody_overtakes() {
    assert_eq!(starts(Name::Fcfs, &overtaking()), [0, 10, 15, 15]);
    for name in [Name::Easy, Name::EasySjbf, Name::Conservative, Name::Default] {
        assert_eq!(starts(name, &overtaking()), [0, 10, 15, 3], "{name}");
    }
}

#[test]
fn the_one_that_suffers_most_comes_first() {
    // All of the machine each: when the first ends, the short one has waited ten times its
    // run and the long one not even once.
    let jobs = vec![job(1, 0, 100, 100, 1), job(2, 1, 500, 500, 1), job(3, 2, 10, 10, 1)];
    let log = Log { jobs, processors: 1, dropped: 0 };
    assert_eq!(starts(Name::Easy, &log), [0, 100, 600]);
    assert_eq!(starts(Name::Default, &log), [0, 110, 100]);
}

#[test]
fn nobody_is_overtaken_for_ever() {
    // A hundred short jobs wait, and as many go on coming as the machine can work off. The
    // long one is overtaken by a few that came later, and then no more.
    let mut jobs: Vec<LogJob> = (0..100).map(|id| job(id, 0, 20, 20, 1)).collect();
    jobs.push(job(100, 1, 1000, 1000, 1));
    jobs.extend((101..1100).map(|id| job(id, (id - 100) * 20, 20, 20, 1)));
    let log = Log { jobs, processors: 1, dropped: 0 };
    let start = starts(Name::Default, &log)[100];
    assert!((2020..2200).contains(&start), "it started after {start} s");
}

const LINE: &str = "7 100 5 60 4 -1 -1 8 120 -1 1 3 1 -1 1 -1 -1 -1";

#[test]
fn a_log_is_read_as_its_format_says() {
    let log = swf::read(&format!("; MaxNodes: 4\n; MaxProcs: 16\n\n{LINE}\n"), None).unwrap();
    let read = LogJob { id: 7, submit: 100, run: 60, estimate: 120, size: 8, user: 3 };
    assert_eq!(log, Log { jobs: vec![read], processors: 16, dropped: 0 });
    // A run is cut at its estimate; what never ran, or is too large, is left out.
    let more = "8 101 5 600 4 -1 -1 -1 120 -1 1 3 1 -1 1 -1 -1 -1\n\
                9 102 5 0 4 -1 -1 8 120 -1 0 3 1 -1 1 -1 -1 -1\n\
                10 103 5 60 17 -1 -1 8 120 -1 1 3 1 -1 1 -1 -1 -1";
    let log = swf::read(&format!("; MaxProcs: 16\n{more}"), None).unwrap();
    assert_eq!((log.jobs.len(), log.dropped), (1, 2));
    assert_eq!((log.jobs[0].run, log.jobs[0].size), (120, 4));
}

#[test]
fn a_bad_log_names_line_and_column() {
    let error = |text: &str| swf::read(text, None).unwrap_err().to_string();
    assert_eq!(error("; MaxProcs: 4\n1 2 x"), "line 2: column 3 is \"x\", which is no number, or too large");
    assert_eq!(error("1 2 3"), "line 1: 3 columns, where a job has 18");
    assert_eq!(error(&format!("{LINE} 1")), "line 1: more than 18 columns");
    assert!(error(LINE).contains("give --processors"));
    assert!(error("; MaxProcs: 4\n").contains("no job"));
}

proptest! {
    /// What is drawn over time sums up to what was measured, however it is cut.
    #[test]
    fn a_course_loses_no_wait_and_no_work(log in logs(), columns in 1_usize..30) {
        let starts = starts(Name::Easy, &log);
        let course = course(&log, &starts, last_end(&log, &starts), columns);
        let sum = |values: &[f64]| values.iter().sum::<f64>() * course.column_s;
        let waits: u64 = log.jobs.iter().zip(&starts).map(|(job, start)| start - job.submit).sum();
        let work: u64 = log.jobs.iter().map(|job| job.size * job.run).sum();
        prop_assert!((sum(&course.queue) - waits as f64).abs() < 1e-6, "{course:?}");
        prop_assert!((sum(&course.utilisation) * log.processors as f64 - work as f64).abs() < 1e-6);
        prop_assert!(course.utilisation.iter().all(|part| (0.0..1.0 + 1e-9).contains(part)));
        let most = course.slowdown.iter().copied().fold(0.0, f64::max);
        let measured = measure(&log, &starts);
        prop_assert!(most <= measured.max_bounded_slowdown && most >= measured.mean_bounded_slowdown - 1e-9);
    }
}
