//! How long one scheduling pass takes: 1,000 and 10,000 nodes, 1,000 tenants,
//! 1,000,000 queued tasks, first filling an empty cluster, then with the
//! cluster full and work ending and arriving all the time.
//!
//! `cargo run --release -p scheduler --example pass`

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

/// A small generator of its own: the same numbers in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

struct Bench {
    core: Core,
    now: Now,
    revision: u64,
    dice: Dice,
    grants: VecDeque<(String, u64)>,
}

impl Bench {
    fn new(nodes: u64) -> Bench {
        let mut bench = Bench {
            core: Core::new(Config::default()),
            now: Now { mono_ms: 1_000, wall_ms: 1_700_000_000_000 },
            revision: 1,
            dice: Dice(42),
            grants: VecDeque::new(),
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
                bench.want(index, job_number);
            }
        }
        bench
    }

    fn step(&mut self, event: Event) {
        self.core.step(self.now, event);
    }

    /// A step that wants its part of the million tasks; one in twenty is a gang.
    fn want(&mut self, tenant: u64, job_number: u64) {
        let cores = [1, 1, 1, 2, 4, 8, 16][usize::try_from(self.dice.below(7)).expect("small")];
        let gang = self.dice.below(20) == 0;
        let demand = Demand {
            key: Some(DemandKey { tenant: format!("tenant-{tenant:04}"), job_number, step: 0 }),
            per_slot: Some(Resources {
                millicores: cores * 1000,
                memory_bytes: (1 + self.dice.below(4)) * u64::from(cores) * GIB,
                gpus: u32::from(self.dice.below(50) == 0),
            }),
            slots: TASKS / TENANTS / STEPS,
            gang_nodes: if gang { 8 } else { 0 },
            gang_tasks_per_node: if gang { 4 } else { 0 },
            priority: i32::try_from(self.dice.below(5)).expect("small"),
            queued_ms: self.now.wall_ms + self.dice.below(1000),
            pool: if self.dice.below(4) == 0 { "large".to_owned() } else { String::new() },
            ..Demand::default()
        };
        let update =
            DemandUpdate { controller: "c".into(), changed: vec![demand], ..DemandUpdate::default() };
        self.step(Event::Demand(update));
    }

    /// One pass, timed; all it proposes is committed.
    fn pass(&mut self) -> (Duration, usize) {
        let start = Instant::now();
        let proposals = self.core.plan(self.now);
        let took = start.elapsed();
        let granted = proposals.iter().map(|p| p.grants.len()).sum();
        for Proposal { id, grants, .. } in proposals {
            self.revision += 1;
            self.step(Event::Outcome { proposal: id, outcome: Outcome::Committed(self.revision) });
            self.grants.extend(grants.into_iter().map(|grant| (grant.tenant, grant.epoch)));
        }
        (took, granted)
    }

    fn release(&mut self) {
        let Some((tenant, epoch)) = self.grants.pop_front() else { return };
        self.revision += 1;
        self.step(Event::Released { tenant, epoch, revision: self.revision });
    }
}

#[allow(clippy::print_stdout, reason = "this is what it is for")]
fn report(what: &str, mut times: Vec<Duration>, granted: usize) {
    times.sort_unstable();
    let at = |part: f64| {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
        let index = ((times.len() - 1) as f64 * part) as usize;
        times[index].as_secs_f64() * 1e3
    };
    println!(
        "{what:<24} passes={:<5} grants={granted:<7} p50={:.3} ms  p99={:.3} ms  max={:.3} ms",
        times.len(),
        at(0.5),
        at(0.99),
        at(1.0)
    );
}

fn main() {
    for nodes in [1_000, 10_000] {
        let mut bench = Bench::new(nodes);
        let (mut times, mut granted) = (Vec::new(), 0);
        loop {
            let (took, count) = bench.pass();
            times.push(took);
            granted += count;
            if count == 0 && !bench.core.has_more() {
                break;
            }
        }
        report(&format!("{nodes} nodes, filling"), times, granted);

        let (mut times, mut granted) = (Vec::new(), 0);
        for _ in 0..PASSES {
            bench.now.mono_ms += 10;
            bench.now.wall_ms += 10;
            for _ in 0..bench.dice.below(50) {
                bench.release();
            }
            for _ in 0..5 {
                let (tenant, job) = (bench.dice.below(TENANTS), bench.dice.below(STEPS));
                bench.want(tenant, job);
            }
            let (took, count) = bench.pass();
            times.push(took);
            granted += count;
        }
        report(&format!("{nodes} nodes, full"), times, granted);
        bench.core.check();
    }
}
