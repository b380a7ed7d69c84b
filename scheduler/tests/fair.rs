//! Shares between tenants, over time: small clusters, work that comes and ends, and
//! what each tenant holds as the core decides.

use proptest::prelude::*;
use proto::v1::{Demand, DemandKey, DemandUpdate, NodeRow, NodeState, Resources, TenantRow};
use scheduler::core::{Config, Core, Event, Outcome};
use std::collections::BTreeMap;
use world::clock::Now;

const HOUR_MS: u64 = 3_600_000;
const GIB: u64 = 1 << 30;

/// What runs: of whom, so many slots, until when.
#[derive(Clone, Debug)]
struct Run {
    tenant: String,
    epoch: u64,
    slots: u64,
    ends_ms: u64,
}

struct Cluster {
    core: Core,
    now_ms: u64,
    revision: u64,
    runs: Vec<Run>,
    /// Tasks wanted by each, as its controller tells: what runs is taken off.
    wants: BTreeMap<String, u64>,
}

impl Cluster {
    fn new(nodes: u32, cores: u32, weights: &[u32]) -> Cluster {
        let mut cluster = Cluster {
            core: Core::new(Config::default()),
            now_ms: 0,
            revision: 1,
            runs: Vec::new(),
            wants: BTreeMap::new(),
        };
        for node in 0..nodes {
            let capacity =
                Resources { millicores: cores * 1_000, memory_bytes: u64::from(cores) * GIB, gpus: 0 };
            cluster.step(Event::Node(NodeRow {
                name: format!("n{node}"),
                pool: "main".to_owned(),
                capacity: Some(capacity),
                state: NodeState::Ready.into(),
                ..NodeRow::default()
            }));
        }
        for (at, &weight) in weights.iter().enumerate() {
            cluster.step(Event::Tenant(TenantRow { name: name(at), weight, ..TenantRow::default() }));
        }
        cluster
    }

    fn now(&self) -> Now {
        Now { mono_ms: self.now_ms, wall_ms: self.now_ms }
    }

    fn step(&mut self, event: Event) {
        let now = self.now();
        self.core.step(now, event);
        self.core.check();
    }

    /// One step of one core a task; what was granted by then is counted.
    fn wants(&mut self, at: usize, tasks: u64) {
        self.wants.insert(name(at), tasks);
        self.tell(&name(at));
    }

    fn tell(&mut self, tenant: &str) {
        let granted = self.runs.iter().filter(|run| run.tenant == tenant);
        let demand = Demand {
            key: Some(DemandKey { tenant: tenant.to_owned(), job_number: 1, step: 0 }),
            per_slot: Some(Resources { millicores: 1_000, memory_bytes: GIB / 4, gpus: 0 }),
            slots: self.wants[tenant],
            granted_epoch: granted.map(|run| run.epoch).max().unwrap_or(0),
            ..Demand::default()
        };
        let (controller, changed) = ("c".to_owned(), vec![demand]);
        self.step(Event::Demand(DemandUpdate { controller, changed, ..DemandUpdate::default() }));
    }

    fn held(&self, at: usize) -> u64 {
        self.core.held(&name(at)).millicores / 1_000
    }

    /// All that can start does, and runs for as long as `spans` says for the slots
    /// of each start.
    fn decide(&mut self, mut spans: impl FnMut() -> u64) {
        loop {
            let now = self.now();
            let proposals = self.core.plan(now);
            self.core.check();
            if proposals.is_empty() {
                assert!(!self.core.has_more(), "a pass that decides nothing leaves nothing");
                return;
            }
            for proposal in proposals {
                self.revision += 1;
                for grant in &proposal.grants {
                    let slots = grant.nodes.iter().map(|node| u64::from(node.slots)).sum();
                    let wanted = self.wants.get_mut(&grant.tenant).unwrap();
                    *wanted = wanted.checked_sub(slots).expect("no more is granted than is wanted");
                    self.runs.push(Run {
                        tenant: grant.tenant.clone(),
                        epoch: grant.epoch,
                        slots,
                        ends_ms: self.now_ms + spans(),
                    });
                }
                let outcome = Outcome::Committed(self.revision);
                self.step(Event::Outcome { proposal: proposal.id, outcome });
            }
            for tenant in self.wants.keys().cloned().collect::<Vec<_>>() {
                self.tell(&tenant);
            }
        }
    }

    /// Goes on to the next end, and ends what ends then. `again`: what ended is wanted
    /// once more.
    fn next_end(&mut self, again: bool) {
        let Some(ends_ms) = self.runs.iter().map(|run| run.ends_ms).min() else { return };
        self.now_ms = ends_ms;
        let (ended, going) = self.runs.drain(..).partition(|run: &Run| run.ends_ms == ends_ms);
        self.runs = going;
        for run in Vec::from_iter::<Vec<Run>>(ended) {
            self.revision += 1;
            let revision = self.revision;
            if again {
                *self.wants.get_mut(&run.tenant).unwrap() += run.slots;
            }
            self.step(Event::Released { tenant: run.tenant, epoch: run.epoch, revision });
        }
    }
}

fn name(at: usize) -> String {
    format!("t{at}")
}

/// Numbers that look like chance, the same each time.
fn dice(mut state: u64) -> impl FnMut(u64) -> u64 {
    move |end| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % end
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

    /// What an idle cluster gives to those that all want more than it has is in
    /// proportion to their weights, on whatever nodes: nobody has more than its part by over a
    /// slot. Who has less lacks what others were given since slots are whole, a slot at most
    /// for each of them: of [3, 1, 1, 1] of 15 they may have [6, 3, 3, 3].
    #[test]
    fn an_idle_cluster_is_shared_by_weight(
        weights in prop::collection::vec(prop_oneof![Just(0_u32), Just(100), Just(200), Just(300), 1..1_000_u32], 1..6),
        nodes in 1..12_u32,
        cores in 1..16_u32,
    ) {
        let mut cluster = Cluster::new(nodes, cores, &weights);
        for at in 0..weights.len() {
            cluster.wants(at, 10_000);
        }
        cluster.decide(|| HOUR_MS);
        let all = u64::from(nodes * cores);
        let weight = |at: usize| if weights[at] == 0 { 100 } else { u64::from(weights[at]) };
        let sum: u64 = (0..weights.len()).map(weight).sum();
        let held: Vec<u64> = (0..weights.len()).map(|at| cluster.held(at)).collect();
        prop_assert_eq!(held.iter().sum::<u64>(), all);
        let parts: Vec<(u64, u64)> =
            (0..weights.len()).map(|at| (held[at] * sum, all * weight(at))).collect();
        let over = parts.iter().filter(|(has, part)| has > part).count() as u64;
        for (has, part) in parts {
            prop_assert!(has <= part + sum, "{held:?} of {all} for {weights:?}");
            prop_assert!(has + over * sum >= part, "{held:?} of {all} for {weights:?}");
        }
    }

    /// Likewise over time, whatever ends when: what each had is in proportion, within
    /// one slot in the mean. And whoever wants something has something by then.
    #[test]
    fn over_time_each_has_its_weights_part(seed: u64, nodes in 1..5_u32, cores in 3..13_u32) {
        let weights = [100, 200, 300];
        let mut cluster = Cluster::new(nodes, cores, &weights);
        let mut dice = dice(seed);
        for at in 0..3 {
            cluster.wants(at, 10_000);
        }
        let mut had = [0_u64; 3];
        let mut spans = || 1_000 + dice(120_000);
        cluster.decide(&mut spans);
        let begin_ms = HOUR_MS / 4;
        while cluster.now_ms < 2 * HOUR_MS {
            let before_ms = cluster.now_ms;
            let held = [0, 1, 2].map(|at| cluster.held(at));
            cluster.next_end(true);
            let span_ms = if before_ms < begin_ms { 0 } else { cluster.now_ms - before_ms };
            (0..3).for_each(|at| had[at] += held[at] * span_ms);
            cluster.decide(&mut spans);
        }
        let span_ms = (cluster.now_ms - begin_ms) as f64;
        for at in 0..3 {
            let mean = had[at] as f64 / span_ms;
            let due = f64::from(nodes * cores) * f64::from(weights[at]) / 600.0;
            prop_assert!((mean - due).abs() <= 1.0, "t{at} had {mean} slots in the mean, and {due} are its part");
        }
    }

    /// However large others are and whatever they had: who waits gets something
    /// before so much has ended as they can be ahead.
    #[test]
    fn nobody_starves(seed: u64, weights in prop::collection::vec(1..1_000_u32, 2..8)) {
        let mut cluster = Cluster::new(2, 4, &weights);
        let mut dice = dice(seed);
        for at in 0..weights.len() {
            cluster.wants(at, 10_000);
        }
        let mut last_ms = vec![0; weights.len()];
        while cluster.now_ms < 6 * HOUR_MS {
            cluster.decide(|| 1_000 + dice(600_000));
            for (at, last_ms) in last_ms.iter_mut().enumerate() {
                if cluster.held(at) > 0 {
                    *last_ms = cluster.now_ms;
                }
            }
            cluster.next_end(true);
        }
        // A weight of 1 beside thousands gets something once in a day.
        let sum: u32 = weights.iter().sum();
        for (at, last_ms) in last_ms.into_iter().enumerate().filter(|(at, _)| weights[*at] * 50 >= sum) {
            prop_assert!(cluster.now_ms - last_ms < 3 * HOUR_MS, "t{at} of {weights:?} since {last_ms}");
        }
    }
}

/// One that had the whole idle cluster for itself stands behind a newcomer, as far as
/// its past is not forgotten: half of it after each half-life.
#[test]
fn who_had_all_goes_behind_a_newcomer_until_it_is_forgotten() {
    // So long idle, and how many of 12 slots the newcomer then gets. The first has its
    // average against it, at first 7/8 of all, since it had all for three half-lives:
    // with x slots for the newcomer the two stand alike where x = (12 - x) + 12 * past.
    for (idle_half_lives, slots) in [(0, 11), (1, 9), (2, 7), (3, 7), (6, 6)] {
        let mut cluster = Cluster::new(3, 4, &[0, 0]);
        cluster.wants(0, 12);
        cluster.decide(|| 3 * HOUR_MS);
        assert_eq!(cluster.held(0), 12, "while nobody else is there it has all");
        cluster.next_end(false);
        assert_eq!(cluster.held(0), 0);
        cluster.now_ms += idle_half_lives * HOUR_MS;
        cluster.wants(0, 100);
        cluster.wants(1, 100);
        cluster.decide(|| HOUR_MS);
        let held = (cluster.held(0), cluster.held(1));
        assert_eq!(held, (12 - slots, slots), "after {idle_half_lives} half-lives");
    }
}
