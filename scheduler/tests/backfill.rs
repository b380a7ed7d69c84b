//! What is promised is kept: small clusters against a planner that tries every
//! instant and every set of nodes.
//!
//! Jobs come over time and end when they please, but never after they said. When a
//! start is told, it is the first that there is; and whatever slips in before, it
//! comes no later.

use proptest::prelude::*;
use proto::v1::{
    Demand, DemandKey, DemandUpdate, GrantRow, License, NodeRow, NodeState, Reservation, Resources,
    TenantRow, WhyReply,
};
use scheduler::core::{Config, Core, Event, Outcome, Snapshot};
use std::collections::BTreeMap;
use world::clock::Now;

const SECOND_MS: u64 = 1_000;
const LICENSE: &str = "solver";
/// Seconds since 1970 at which a case begins.
const BEGIN: u64 = 1_700_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Size {
    cores: u32,
    gpus: u32,
    gigabytes: u64,
}

impl Size {
    fn resources(self) -> Resources {
        Resources { millicores: self.cores * 1_000, memory_bytes: self.gigabytes << 30, gpus: self.gpus }
    }

    fn fits(self, room: Size) -> bool {
        self.cores <= room.cores && self.gpus <= room.gpus && self.gigabytes <= room.gigabytes
    }

    fn less(self, other: Size) -> Size {
        Size {
            cores: self.cores - other.cores,
            gpus: self.gpus - other.gpus,
            gigabytes: self.gigabytes - other.gigabytes,
        }
    }
}

#[derive(Clone, Debug)]
struct Job {
    /// Seconds from the beginning.
    comes: u64,
    tenant: usize,
    pool: usize,
    /// 0: one task.
    gang_nodes: usize,
    /// It takes whole nodes.
    alone: bool,
    /// Of the only license.
    licenses: u32,
    size: Size,
    /// Seconds that it says, and how long it takes; 0: it says nothing.
    bound: u64,
    takes: u64,
}

#[derive(Clone, Debug)]
struct Case {
    /// Pool and size of each.
    nodes: Vec<(usize, Size)>,
    jobs: Vec<Job>,
    kept: Vec<Kept>,
    /// How many there are.
    licenses: u32,
    tenants: usize,
    depth: u64,
}

/// A node is reserved, in seconds from the beginning.
#[derive(Clone, Debug)]
struct Kept {
    node: usize,
    from: u64,
    until: u64,
    tenant: Option<usize>,
}

impl Case {
    /// Whether a node is kept for others at some time of this span.
    fn is_kept(&self, node: usize, tenant: usize, from: u64, until: Option<u64>) -> bool {
        self.kept.iter().any(|kept| {
            let apart = kept.until <= from || until.is_some_and(|until| until <= kept.from);
            kept.node == node && kept.tenant != Some(tenant) && !apart
        })
    }
}

fn size(cores: u32) -> impl Strategy<Value = Size> {
    (1..=cores, 0..=1_u32, 1..=4_u64).prop_map(|(cores, gpus, gigabytes)| Size { cores, gpus, gigabytes })
}

fn job(tenants: usize, always_bound: bool) -> impl Strategy<Value = Job> {
    let span = (1..=12_u64, any::<bool>()).prop_flat_map(move |(takes, exact)| {
        let bound = if exact { takes..=takes } else { takes..=16 };
        (Just(takes), bound, prop::bool::weighted(if always_bound { 0.0 } else { 0.1 }))
    });
    let licenses = prop_oneof![4 => Just(0), 1 => 1..=3_u32];
    let nodes = (prop_oneof![2 => Just(0), 2 => 1..=3_usize], prop::bool::weighted(0.2), licenses);
    (0..=20_u64, 0..tenants, 0..2_usize, nodes, size(4), span).prop_map(
        |(comes, tenant, pool, (gang_nodes, alone, licenses), size, (takes, bound, silent))| {
            let bound = if silent { 0 } else { bound };
            Job { comes, tenant, pool, gang_nodes, alone, licenses, size, bound, takes }
        },
    )
}

fn case(tenants: usize, depth: u64, always_bound: bool) -> impl Strategy<Value = Case> {
    let node = || (0..2_usize, size(4).prop_map(|size| Size { gigabytes: 4, ..size }));
    let span = (0..=20_u64, 1..=15_u64).prop_map(|(from, lasts)| (from, from + lasts));
    let kept = (0..4_usize, span, prop::option::weighted(0.3, 0..tenants))
        .prop_map(|(node, (from, until), tenant)| Kept { node, from, until, tenant });
    let jobs = prop::collection::vec(job(tenants, always_bound), 1..=14);
    let kept = prop::collection::vec(kept, 0..=2);
    (prop::collection::vec(node(), 1..=4), jobs, kept, 1..=4_u32).prop_map(
        move |(nodes, mut jobs, kept, licenses)| {
            jobs.sort_by_key(|job| job.comes);
            // What could never run is refused long before.
            jobs.retain(|job| {
                let could = nodes.iter().filter(|(pool, room)| *pool == job.pool && job.size.fits(*room));
                could.count() >= job.gang_nodes.max(1) && job.licenses <= licenses
            });
            Case { nodes, jobs, kept, licenses, tenants, depth }
        },
    )
}

/// What runs.
#[derive(Clone, Debug)]
struct Run {
    job: usize,
    grant: GrantRow,
    nodes: Vec<usize>,
    /// Seconds: when it ends, and when it ends at the latest.
    ends: u64,
    ends_by: Option<u64>,
}

struct Cluster<'c> {
    case: &'c Case,
    core: Core,
    seconds: u64,
    revision: u64,
    runs: Vec<Run>,
    /// The soonest start promised to each that waits.
    promised: BTreeMap<usize, u64>,
    started: BTreeMap<usize, u64>,
    /// Promises that were compared with the best there is.
    compared: usize,
    slipped_in: usize,
}

fn tenant_name(tenant: usize) -> String {
    format!("t{tenant}")
}

fn reservation(kept: &Kept) -> Reservation {
    Reservation {
        from_ms: (BEGIN + kept.from) * SECOND_MS,
        until_ms: (BEGIN + kept.until) * SECOND_MS,
        tenants: kept.tenant.map(tenant_name).into_iter().collect(),
        ..Reservation::default()
    }
}

impl<'c> Cluster<'c> {
    fn new(case: &'c Case) -> Cluster<'c> {
        // Nothing beside what the jobs say takes time here.
        let config = Config {
            quantum_ms: 0,
            slack_ms: 0,
            reserve_after_ms: 0,
            backfill_depth: case.depth,
            ..Config::default()
        };
        let mut core = Core::new(config);
        let nodes = case.nodes.iter().enumerate().map(|(at, (pool, size))| NodeRow {
            name: format!("n{at}"),
            pool: format!("p{pool}"),
            capacity: Some(size.resources()),
            state: NodeState::Ready.into(),
            reservations: case.kept.iter().filter(|kept| kept.node == at).map(reservation).collect(),
            ..NodeRow::default()
        });
        let tenants =
            (0..case.tenants).map(|tenant| TenantRow { name: tenant_name(tenant), ..TenantRow::default() });
        let snapshot = Snapshot { nodes: nodes.collect(), tenants: tenants.collect(), ..Snapshot::default() };
        core.step(now(0), Event::Reread(Box::new(snapshot)));
        let license = License { name: LICENSE.to_owned(), total: case.licenses };
        let update = DemandUpdate { snapshot: true, licenses: vec![license], ..DemandUpdate::default() };
        core.step(now(0), Event::Demand(update));
        Cluster {
            case,
            core,
            seconds: 0,
            revision: 10,
            runs: Vec::new(),
            promised: BTreeMap::new(),
            started: BTreeMap::new(),
            compared: 0,
            slipped_in: 0,
        }
    }

    fn key(&self, job: usize) -> DemandKey {
        let tenant = tenant_name(self.case.jobs[job].tenant);
        DemandKey { tenant, job_number: job as u64 + 1, step: 0 }
    }

    fn demand(&mut self, changed: Vec<Demand>, gone: Vec<DemandKey>) {
        let update = DemandUpdate { controller: "c".to_owned(), changed, gone, ..DemandUpdate::default() };
        self.core.step(now(self.seconds), Event::Demand(update));
    }

    fn submit(&mut self, at: usize) {
        let job = &self.case.jobs[at];
        let wanted = Demand {
            key: Some(self.key(at)),
            per_slot: Some(job.size.resources()),
            slots: job.gang_nodes.max(1) as u64,
            gang_nodes: job.gang_nodes as u32,
            gang_tasks_per_node: u32::from(job.gang_nodes > 0),
            queued_ms: (BEGIN + self.seconds) * SECOND_MS,
            pool: format!("p{}", job.pool),
            limit_ms: job.bound * SECOND_MS,
            exclusive: job.alone,
            licenses: (job.licenses > 0).then(|| (LICENSE.to_owned(), job.licenses)).into_iter().collect(),
            ..Demand::default()
        };
        self.demand(vec![wanted], Vec::new());
    }

    fn end(&mut self, run: &Run) {
        self.revision += 1;
        let (tenant, epoch, revision) = (run.grant.tenant.clone(), run.grant.epoch, self.revision);
        self.core.step(now(self.seconds), Event::Released { tenant, epoch, revision });
    }

    /// All that can start does; then what waits asks for its start.
    fn decide(&mut self) {
        loop {
            let proposals = self.core.plan(now(self.seconds));
            self.core.check();
            if proposals.is_empty() && !self.core.has_more() {
                break;
            }
            for proposal in proposals {
                self.revision += 1;
                let outcome = Outcome::Committed(self.revision);
                self.core.step(now(self.seconds), Event::Outcome { proposal: proposal.id, outcome });
                for grant in proposal.grants {
                    self.start(grant);
                }
            }
            self.core.check();
        }
        for job in self.waiting() {
            self.promise(job);
        }
    }

    fn waiting(&self) -> Vec<usize> {
        let here = |at: &usize| self.case.jobs[*at].comes <= self.seconds && !self.started.contains_key(at);
        (0..self.case.jobs.len()).filter(here).collect()
    }

    fn start(&mut self, grant: GrantRow) {
        let at = grant.job_number as usize - 1;
        let job = &self.case.jobs[at];
        let nodes: Vec<usize> = grant.nodes.iter().map(|node| node.node[1..].parse().unwrap()).collect();
        assert_eq!(nodes.len(), job.gang_nodes.max(1), "all of a gang or nothing: {grant:?}");
        let beside = self.runs.iter().find(|run| run.nodes.iter().any(|node| nodes.contains(node)));
        let alone = beside.is_some_and(|run| job.alone || self.case.jobs[run.job].alone);
        assert!(!alone, "job {at} is beside {beside:?}");
        let held = u64::from(job.licenses);
        assert_eq!(grant.licenses.get(LICENSE).copied().unwrap_or(0), held, "of a gang as of one task");
        assert!(job.licenses <= self.licenses_free(self.seconds), "job {at} has licenses of others");
        if let Some(promised) = self.promised.remove(&at) {
            assert!(self.seconds <= promised, "job {at} starts at {}, promised was {promised}", self.seconds);
        } else if !self.promised.is_empty() {
            self.slipped_in += 1;
        }
        let earlier = self.started.insert(at, self.seconds);
        assert_eq!(earlier, None, "job {at} starts twice");
        let ends_by = (job.bound > 0).then_some(self.seconds + job.bound);
        let told = ends_by.map_or(0, |seconds| (BEGIN + seconds) * SECOND_MS);
        assert_eq!(grant.ends_by_ms, told, "when job {at} ends at the latest");
        let is_kept = |node: &&usize| self.case.is_kept(**node, job.tenant, self.seconds, ends_by);
        assert_eq!(nodes.iter().find(is_kept), None, "job {at} is in the way of a reservation there");
        let ends = self.seconds + job.takes;
        self.runs.push(Run { job: at, grant, nodes, ends, ends_by });
        self.demand(Vec::new(), vec![self.key(at)]);
    }

    fn promise(&mut self, at: usize) {
        let why: WhyReply = self.core.explain(&self.key(at), now(self.seconds));
        if why.expected_start_ms == 0 {
            return;
        }
        let told = why.expected_start_ms / SECOND_MS - BEGIN;
        // One alone has nobody else's plans in its way.
        if self.promised.is_empty() && self.case.depth == 1 && self.case.tenants == 1 {
            assert_eq!(Some(told), self.best(at), "the first instant for job {at}");
            self.compared += 1;
        }
        let soonest = self.promised.entry(at).or_insert(told);
        assert!(told <= *soonest, "job {at} was promised {soonest}, and now {told}");
        *soonest = told;
    }

    /// Tries every instant, and every set of nodes.
    fn best(&self, at: usize) -> Option<u64> {
        let job = &self.case.jobs[at];
        let ends = self.runs.iter().filter_map(|run| run.ends_by);
        let last = ends.chain(self.case.kept.iter().map(|kept| kept.until)).max().unwrap_or(0);
        (self.seconds..=last.max(self.seconds)).find(|&second| {
            if job.licenses > self.licenses_free(second) {
                return false;
            }
            let sets = 0_u32..1 << self.case.nodes.len();
            let mut right = sets.filter(|set| set.count_ones() as usize == job.gang_nodes.max(1));
            right.any(|set| {
                let mut chosen = (0..self.case.nodes.len()).filter(|node| set >> node & 1 == 1);
                chosen.all(|node| {
                    let (pool, size) = self.case.nodes[node];
                    let ends_by = (job.bound > 0).then_some(second + job.bound);
                    let free = self.free(node, size, second);
                    pool == job.pool
                        && job.size.fits(free)
                        && (!job.alone || free == size)
                        && !self.case.is_kept(node, job.tenant, second, ends_by)
                })
            })
        })
    }

    /// How many nobody holds then, if all ends as late as it may.
    fn licenses_free(&self, second: u64) -> u32 {
        let stays = self.runs.iter().filter(|run| run.ends_by.is_none_or(|ends_by| ends_by > second));
        self.case.licenses - stays.map(|run| self.case.jobs[run.job].licenses).sum::<u32>()
    }

    /// What a node will have free, if all ends as late as it may.
    fn free(&self, node: usize, size: Size, second: u64) -> Size {
        let there = self.runs.iter().filter(|run| run.nodes.contains(&node));
        let stays = there.filter(|run| run.ends_by.is_none_or(|ends_by| ends_by > second));
        stays.fold(size, |room, run| {
            let job = &self.case.jobs[run.job];
            room.less(if job.alone { size } else { job.size })
        })
    }

    /// Works all off.
    fn run(&mut self) {
        while self.started.len() < self.case.jobs.len() {
            assert!(self.seconds < 1_000, "some never start: {:?}", self.waiting());
            let (ended, runs) =
                std::mem::take(&mut self.runs).into_iter().partition(|run| run.ends <= self.seconds);
            self.runs = runs;
            let ended: Vec<Run> = ended;
            ended.iter().for_each(|run| self.end(run));
            let come = (0..self.case.jobs.len()).filter(|&at| self.case.jobs[at].comes == self.seconds);
            come.collect::<Vec<_>>().into_iter().for_each(|at| self.submit(at));
            self.decide();
            self.seconds += 1;
        }
    }
}

fn now(seconds: u64) -> Now {
    Now { mono_ms: seconds * SECOND_MS, wall_ms: (BEGIN + seconds) * SECOND_MS }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn of_one_queue_the_first_start_told_is_the_best_and_is_kept(case in case(1, 1, true)) {
        Cluster::new(&case).run();
    }

    #[test]
    fn starts_are_kept_when_many_are_planned(case in case(1, 8, true)) {
        Cluster::new(&case).run();
    }

    #[test]
    fn starts_are_kept_between_tenants(case in case(3, 2, true)) {
        Cluster::new(&case).run();
    }

    #[test]
    fn everything_starts_where_some_tell_nothing(case in case(2, 2, false)) {
        Cluster::new(&case).run();
    }
}

/// The cases above are of some use: promises are made and compared, and others slip in.
#[test]
fn a_case_with_a_promise_and_one_that_slips_in() {
    let all = Size { cores: 4, gpus: 0, gigabytes: 4 };
    let small = Size { cores: 1, gpus: 0, gigabytes: 1 };
    let one = Job {
        comes: 0,
        tenant: 0,
        pool: 0,
        gang_nodes: 0,
        alone: false,
        licenses: 0,
        size: small,
        bound: 10,
        takes: 10,
    };
    let gang = Job { comes: 1, gang_nodes: 2, size: all, bound: 5, takes: 5, ..one.clone() };
    let short = Job { comes: 3, bound: 4, takes: 4, ..one.clone() };
    let long = Job { comes: 3, bound: 16, takes: 1, ..one.clone() };
    let nodes = vec![(0, all), (0, all)];
    let jobs = vec![one, gang, short, long];
    let case = Case { nodes, jobs, kept: Vec::new(), licenses: 0, tenants: 1, depth: 1 };
    let mut cluster = Cluster::new(&case);
    cluster.run();
    let started: Vec<u64> = cluster.started.into_values().collect();
    assert_eq!(started, [0, 10, 3, 15]);
    assert!(cluster.compared > 0 && cluster.slipped_in == 1);
}
