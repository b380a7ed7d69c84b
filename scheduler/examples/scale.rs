//! What deciding costs as a cluster grows: 1,000, 3,000 and 10,000 nodes, 1,000
//! tenants, 1,000,000 queued tasks.
//!
//! `cargo run --release -p scheduler --example scale` tells how long a pass takes
//! while an empty cluster fills, while a full one has work ending and coming all the
//! time, and how long a submission waits for its decision when 5,000 come a second.
//!
//! `… --example scale -- count NODES PASSES` does the second of these so often and
//! tells how much was decided. `cargo xtask scale` counts the instructions of that.

use proto::v1::{Demand, DemandKey, DemandUpdate, NodeRow, NodeState, Quota, Resources, TenantRow};
use scheduler::core::{Config, Core, Event, Outcome, Proposal};
use std::collections::VecDeque;
use world::clock::Now;
use world::time::{Duration, Instant};

const TENANTS: u64 = 1_000;
const TASKS: u64 = 1_000_000;
/// Steps with something queued, of each tenant.
const STEPS: u64 = 10;
const GIB: u64 = 1 << 30;
const PASSES: usize = 2_000;
/// Submissions a second, and for how many seconds.
const RATE: u64 = 5_000;
const RATE_S: u64 = 10;

/// A small generator of its own: the same numbers in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }

    fn one_of<T: Copy>(&mut self, those: &[T]) -> T {
        those[usize::try_from(self.below(those.len() as u64)).expect("an index")]
    }
}

struct Bench {
    core: Core,
    now: Now,
    revision: u64,
    dice: Dice,
    grants: VecDeque<(String, u64)>,
    next_job: u64,
}

/// What one pass did.
struct Passed {
    took: Duration,
    grants: usize,
    /// What it was to decide on: work that ended, steps that want something.
    events: u64,
}

impl Bench {
    fn new(nodes: u64) -> Bench {
        let mut bench = Bench {
            core: Core::new(Config::default()),
            now: Now { mono_ms: 1_000, wall_ms: 1_700_000_000_000 },
            revision: 1,
            dice: Dice(42),
            grants: VecDeque::new(),
            next_job: STEPS,
        };
        for index in 0..nodes {
            let large = index % 4 == 0;
            let row = NodeRow {
                name: format!("node-{index:05}"),
                pool: if large { "large" } else { "main" }.to_owned(),
                capacity: Some(Resources {
                    millicores: if large { 128_000 } else { 64_000 },
                    memory_bytes: if large { 512 * GIB } else { 192 * GIB },
                    gpus: if index % 10 == 0 { 8 } else { 0 },
                }),
                state: NodeState::Ready.into(),
                ..NodeRow::default()
            };
            bench.step(Event::Node(row));
        }
        for index in 0..TENANTS {
            let quota = Quota { millicores: Some(4_000_000), ..Quota::default() };
            let name = format!("tenant-{index:04}");
            bench.step(Event::Tenant(TenantRow { name, quota: Some(quota), ..TenantRow::default() }));
            for job_number in 0..STEPS {
                bench.want(index, job_number, TASKS / TENANTS / STEPS);
            }
        }
        bench
    }

    fn step(&mut self, event: Event) {
        self.core.step(self.now, event);
    }

    /// A step that wants so many tasks; one in twenty is a gang, and most tell how
    /// long they take.
    fn want(&mut self, tenant: u64, job_number: u64, slots: u64) {
        let cores = self.dice.one_of(&[1, 1, 1, 2, 4, 8, 16]);
        let gang = self.dice.below(20) == 0;
        let demand = Demand {
            key: Some(DemandKey { tenant: format!("tenant-{tenant:04}"), job_number, step: 0 }),
            per_slot: Some(Resources {
                millicores: cores * 1000,
                memory_bytes: (1 + self.dice.below(4)) * u64::from(cores) * GIB,
                gpus: u32::from(self.dice.below(50) == 0),
            }),
            slots,
            gang_nodes: if gang { 8 } else { 0 },
            gang_tasks_per_node: if gang { 4 } else { 0 },
            priority: i32::try_from(self.dice.below(5)).expect("small"),
            queued_ms: self.now.wall_ms + self.dice.below(1000),
            pool: if self.dice.below(4) == 0 { "large".to_owned() } else { String::new() },
            limit_ms: self.dice.one_of(&[0, 10_000, 60_000, 600_000, 3_600_000, 86_400_000]),
            ..Demand::default()
        };
        let update =
            DemandUpdate { controller: "c".into(), changed: vec![demand], ..DemandUpdate::default() };
        self.step(Event::Demand(update));
    }

    /// One pass, timed; all it proposes is committed.
    fn pass(&mut self) -> Passed {
        let start = Instant::now();
        let proposals = self.core.plan(self.now);
        let took = start.elapsed();
        let grants = proposals.iter().map(|p| p.grants.len()).sum();
        for Proposal { id, grants, .. } in proposals {
            self.revision += 1;
            self.step(Event::Outcome { proposal: id, outcome: Outcome::Committed(self.revision) });
            self.grants.extend(grants.into_iter().map(|grant| (grant.tenant, grant.epoch)));
        }
        Passed { took, grants, events: 0 }
    }

    fn release(&mut self) {
        let Some((tenant, epoch)) = self.grants.pop_front() else { return };
        self.revision += 1;
        self.step(Event::Released { tenant, epoch, revision: self.revision });
    }

    /// Passes until the cluster is full.
    fn fill(&mut self) -> Vec<Passed> {
        let mut passes = Vec::new();
        loop {
            passes.push(self.pass());
            if passes.last().is_some_and(|pass| pass.grants == 0) && !self.core.has_more() {
                return passes;
            }
        }
    }

    fn advance(&mut self, ms: u64) {
        self.now.mono_ms += ms;
        self.now.wall_ms += ms;
    }

    /// Every ten milliseconds some work ends, some steps want more, and a pass
    /// decides. Not inlined: instructions are counted in here.
    #[inline(never)]
    fn steady(&mut self, passes: usize) -> Vec<Passed> {
        let mut done = Vec::with_capacity(passes);
        for _ in 0..passes {
            self.advance(10);
            let (ends, comes) = (self.dice.below(50), 5);
            for _ in 0..ends {
                self.release();
            }
            for _ in 0..comes {
                let (tenant, job) = (self.dice.below(TENANTS), self.dice.below(STEPS));
                self.want(tenant, job, TASKS / TENANTS / STEPS);
            }
            done.push(Passed { events: ends + comes, ..self.pass() });
        }
        done
    }

    /// Jobs of one task that come at [`RATE`], by the real clock: how long each waits
    /// for the end of the pass that sees it.
    fn under_load(&mut self) -> Vec<Duration> {
        let mut waits = Vec::new();
        let (start, mut come) = (Instant::now(), 0);
        while come < RATE * RATE_S {
            let now_us = u64::try_from(start.elapsed().as_micros()).expect("some seconds");
            let due = (now_us * RATE / 1_000_000).min(RATE * RATE_S);
            if due == come {
                std::hint::spin_loop();
                continue;
            }
            self.now.mono_ms += 1;
            self.now.wall_ms += 1;
            for _ in come..due {
                let (tenant, job) = (self.dice.below(TENANTS), self.next_job);
                self.next_job += 1;
                self.want(tenant, job, 1);
            }
            for _ in 0..(due - come) / 2 {
                self.release();
            }
            while self.pass().grants > 0 && self.core.has_more() {}
            let done = start.elapsed();
            let came = |at: u64| Duration::from_micros((at + 1) * 1_000_000 / RATE);
            waits.extend((come..due).map(|at| done.saturating_sub(came(at))));
            come = due;
        }
        waits
    }
}

fn at(sorted: &[Duration], part: f64) -> f64 {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
    let index = ((sorted.len() - 1) as f64 * part) as usize;
    sorted[index].as_secs_f64() * 1e3
}

fn spread(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    format!("p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms", at(&times, 0.5), at(&times, 0.99), at(&times, 1.0))
}

#[allow(clippy::print_stdout, reason = "this is what it is for")]
fn report(what: &str, passes: &[Passed]) {
    let (grants, times): (usize, Vec<Duration>) =
        (passes.iter().map(|pass| pass.grants).sum(), passes.iter().map(|pass| pass.took).collect());
    let us = times.iter().sum::<Duration>().as_secs_f64() * 1e6;
    #[allow(clippy::cast_precision_loss, reason = "some thousands")]
    let each = us / grants.max(1) as f64;
    println!("{what}: {} passes, {}; {grants} grants, {each:.0} µs each", passes.len(), spread(times));
}

/// The most memory this process ever had, in MiB.
#[allow(clippy::disallowed_methods, reason = "a measurement looks at its own process")]
fn memory_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    most.and_then(|kib| kib.trim().trim_end_matches("kB").trim().parse::<u64>().ok()).unwrap_or(0) / 1024
}

#[allow(clippy::print_stdout, reason = "this is what it is for")]
fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [word, nodes, passes] = &arguments[..]
        && word == "count"
    {
        let mut bench = Bench::new(nodes.parse().expect("a number of nodes"));
        bench.fill();
        let passes = bench.steady(passes.parse().expect("a number of passes"));
        // Not grants: what one large grant leaves goes to several small ones, or the other way
        // round, and which depends on the size of the nodes.
        println!("decisions={}", passes.iter().map(|pass| pass.events).sum::<u64>());
        return;
    }
    for nodes in [1_000, 3_000, 10_000] {
        let mut bench = Bench::new(nodes);
        let filling = bench.fill();
        report(&format!("{nodes} nodes, filling"), &filling);
        let steady = bench.steady(PASSES);
        report(&format!("{nodes} nodes, full"), &steady);
        let waits = bench.under_load();
        println!("{nodes} nodes, {RATE} submissions/s for {RATE_S} s: decided after {}", spread(waits));
        bench.core.check();
    }
    println!("memory: {} MiB at most", memory_mib());
}
