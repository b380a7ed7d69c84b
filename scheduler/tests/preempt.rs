//! What gives way to what: against every set that could be chosen, on small clusters. And
//! that nobody else gets what became free.

use proptest::prelude::*;
use prost::Message as _;
use proto::keys::{self, Parsed};
use proto::v1::{
    Demand, DemandKey, DemandUpdate, GrantNode, GrantRow, NodeRow, NodeState, PoolPreemption, Resources,
    TenantRow, Yielding, YieldingTask,
};
use scheduler::core::{Config, Core, Event, Outcome, Proposal, Snapshot};
use std::collections::{BTreeMap, BTreeSet};
use world::clock::Now;

const BEGIN: Now = Now { mono_ms: 1_000, wall_ms: 1_700_000_000_000 };
const AFTER_MS: u64 = 10_000;

fn later(ms: u64) -> Now {
    Now { mono_ms: BEGIN.mono_ms + ms, wall_ms: BEGIN.wall_ms + ms }
}

/// What runs: on which nodes, how many slots on each, and how long each task has.
#[derive(Clone, Debug)]
struct Work {
    tenant: usize,
    nodes: Vec<usize>,
    gang: bool,
    slots: u32,
    cores: u32,
    priority: i32,
    ran_s: Vec<u64>,
}

#[derive(Clone, Debug)]
struct Case {
    /// Cores of each node.
    nodes: Vec<u32>,
    works: Vec<Work>,
    priority: i32,
    cores: u32,
    /// 0: one task.
    gang_nodes: u32,
}

fn case(tenants: usize) -> impl Strategy<Value = Case> {
    let work = move |nodes: usize| {
        let place = prop_oneof![
            3 => (0..nodes).prop_map(|node| (vec![node], false)),
            1 => prop::collection::btree_set(0..nodes, 1..=nodes)
                .prop_map(|nodes| (nodes.into_iter().collect::<Vec<_>>(), true)),
        ];
        let ran = prop::collection::vec(0..1_000_u64, 3);
        (place, 1..=3_u32, 1..=2_u32, -2..=2_i32, ran, 0..tenants).prop_map(
            |((nodes, gang), slots, cores, priority, mut ran_s, tenant)| {
                ran_s.truncate(if gang { 1 } else { slots as usize });
                Work { tenant, nodes, gang, slots, cores, priority, ran_s }
            },
        )
    };
    (1..=3_usize).prop_flat_map(move |count| {
        let nodes = prop::collection::vec(2..=5_u32, count);
        let works = prop::collection::vec(work(count), 1..=5);
        (nodes, works, -1..=3_i32, 1..=4_u32, 0..=count as u32).prop_map(
            |(nodes, mut works, priority, cores, gang_nodes)| {
                let mut free = nodes.clone();
                works.retain(|work| {
                    let need = work.slots * work.cores;
                    let fits = work.nodes.iter().all(|&node| free[node] >= need);
                    if fits {
                        work.nodes.iter().for_each(|&node| free[node] -= need);
                    }
                    fits
                });
                Case { nodes, works, priority, cores, gang_nodes }
            },
        )
    })
}

fn cores(cores: u32) -> Option<Resources> {
    Some(Resources { millicores: cores * 1_000, ..Resources::default() })
}

fn tenant(index: usize) -> String {
    ["own", "other", "third"][index].to_owned()
}

/// Names a unit: a task of a work, or all of a gang.
type Unit = (usize, u64);

impl Case {
    fn row(&self, at: usize) -> GrantRow {
        let work = &self.works[at];
        let nodes = work.nodes.iter().map(|node| GrantNode { node: format!("n{node}"), slots: work.slots });
        GrantRow {
            tenant: tenant(work.tenant),
            job_number: 100 + at as u64,
            epoch: 1 + at as u64,
            nodes: nodes.collect(),
            per_slot: cores(work.cores),
            granted_ms: BEGIN.wall_ms,
            gang: work.gang,
            ..GrantRow::default()
        }
    }

    fn core(&self) -> Core {
        let mut core = Core::new(Config { seed: 1, ..Config::default() });
        let node = |(at, size): (usize, &u32)| NodeRow {
            name: format!("n{at}"),
            pool: "default".to_owned(),
            capacity: cores(*size),
            state: NodeState::Ready.into(),
            ..NodeRow::default()
        };
        let tenants = (0..3).map(|at| TenantRow { name: tenant(at), ..TenantRow::default() }).collect();
        let nodes = self.nodes.iter().enumerate().map(node).collect();
        core.step(BEGIN, Event::Reread(Box::new(Snapshot { nodes, tenants, ..Snapshot::default() })));
        let pools = vec![PoolPreemption {
            pool: "default".to_owned(),
            grace_ms: 60_000,
            priority_above: 1,
            after_waiting_ms: AFTER_MS,
        }];
        let word = |(at, work): (usize, &Work)| Yielding {
            tenant: tenant(work.tenant),
            epoch: 1 + at as u64,
            priority: work.priority,
            gang: work.gang,
            tasks: (0..)
                .zip(&work.ran_s)
                .map(|(task, ran_s)| YieldingTask {
                    task,
                    attempt: 1,
                    since_ms: BEGIN.wall_ms - ran_s * 1_000,
                })
                .collect(),
        };
        let yielding = self.works.iter().enumerate().map(word).collect();
        let controller = "c".to_owned();
        let told = DemandUpdate { snapshot: true, controller, pools, yielding, ..Default::default() };
        core.step(BEGIN, Event::Demand(told));
        for at in 0..self.works.len() {
            core.step(BEGIN, Event::Granted { row: self.row(at), revision: 10 + at as u64 });
        }
        core.check();
        core
    }

    fn wants(&self) -> Demand {
        Demand {
            key: Some(DemandKey { tenant: tenant(0), job_number: 1, step: 0 }),
            per_slot: cores(self.cores),
            slots: 1,
            gang_nodes: self.gang_nodes,
            gang_tasks_per_node: u32::from(self.gang_nodes > 0),
            priority: self.priority,
            queued_ms: BEGIN.wall_ms,
            granted_epoch: 1,
            ..Demand::default()
        }
    }

    fn units(&self) -> Vec<Unit> {
        let works = self.works.iter().enumerate();
        works.flat_map(|(at, work)| (0..work.ran_s.len() as u64).map(move |task| (at, task))).collect()
    }

    fn priority_of(&self, unit: &Unit) -> i32 {
        self.works[unit.0].priority
    }

    /// Whether what is wanted has room with these gone.
    fn has_room(&self, gone: &BTreeSet<Unit>) -> bool {
        let used = |node: usize| -> u32 {
            let here = |(at, work): (usize, &Work)| {
                if !work.nodes.contains(&node) {
                    return 0;
                }
                let left = if work.gang {
                    if gone.contains(&(at, 0)) { 0 } else { work.slots }
                } else {
                    work.slots - gone.iter().filter(|unit| unit.0 == at).count() as u32
                };
                left * work.cores
            };
            self.works.iter().enumerate().map(here).sum()
        };
        let fits = (0..self.nodes.len()).filter(|&node| self.nodes[node] - used(node) >= self.cores);
        fits.count() >= self.gang_nodes.max(1) as usize
    }
}

/// What a proposal asks to give way.
fn asked(proposal: &Proposal) -> (BTreeSet<Unit>, Vec<GrantRow>) {
    let rows = proposal
        .commit
        .writes
        .iter()
        .filter(|write| matches!(keys::parse(&write.key), Some(Parsed::Grant { .. })));
    let rows: Vec<GrantRow> =
        rows.map(|write| GrantRow::decode(write.value.clone().unwrap()).unwrap()).collect();
    let units = rows.iter().flat_map(|row| {
        let tasks = row.preemption.as_ref().expect("it asks").tasks.iter();
        tasks.map(|named| (row.epoch as usize - 1, named.task))
    });
    (units.collect(), rows)
}

fn told(core: &mut Core, at_ms: u64, changed: Vec<Demand>) {
    let update = DemandUpdate { controller: "c".to_owned(), changed, ..DemandUpdate::default() };
    core.step(later(at_ms), Event::Demand(update));
}

/// Runs passes until it asks, or has had its chance.
fn until_asked(core: &mut Core) -> Option<Proposal> {
    for at_ms in [0, AFTER_MS - 1, AFTER_MS] {
        let proposals = core.plan(later(at_ms));
        core.check();
        if at_ms < AFTER_MS {
            assert!(proposals.is_empty(), "it asks before its time, or starts: {proposals:?}");
        } else if let Some(proposal) = proposals.into_iter().next() {
            assert!(proposal.grants.is_empty());
            return Some(proposal);
        }
    }
    None
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    /// What is chosen is enough and no more than that, and nothing of it matters more than it must.
    #[test]
    fn what_gives_way_is_enough_needed_and_of_the_lowest_priority(case in case(1)) {
        if case.has_room(&BTreeSet::new()) {
            return Ok(());
        }
        let mut core = case.core();
        told(&mut core, 0, vec![case.wants()]);
        let below: BTreeSet<Unit> =
            case.units().into_iter().filter(|unit| case.priority_of(unit) < case.priority).collect();
        let Some(proposal) = until_asked(&mut core) else {
            prop_assert!(!case.has_room(&below), "something could have given way");
            return Ok(());
        };
        let (units, rows) = asked(&proposal);
        prop_assert!(units.is_subset(&below), "what matters as much gives way: {units:?}");
        prop_assert!(case.has_room(&units), "{units:?} is not enough");
        for unit in &units {
            let rest: BTreeSet<Unit> = units.iter().copied().filter(|other| other != unit).collect();
            prop_assert!(!case.has_room(&rest), "{unit:?} of {units:?} is not needed");
        }
        let most = units.iter().map(|unit| case.priority_of(unit)).max().unwrap();
        let lower = below.iter().copied().filter(|unit| case.priority_of(unit) < most).collect();
        prop_assert!(!case.has_room(&lower), "less important work would have been enough");
        // Of one work the tasks that lose least.
        for (at, work) in case.works.iter().enumerate().filter(|(_, work)| !work.gang) {
            let goes = |task: u64| units.contains(&(at, task));
            for (a, b) in (0..work.ran_s.len()).flat_map(|a| (0..work.ran_s.len()).map(move |b| (a, b))) {
                if goes(a as u64) && !goes(b as u64) {
                    prop_assert!(work.ran_s[a] <= work.ran_s[b], "task {a} of {at} loses more than {b}");
                }
            }
        }

        // It is asked once, and nobody else gets the room: not another tenant's work that
        // would fit anywhere, and waits longer.
        core.step(later(AFTER_MS), Event::Outcome { proposal: proposal.id, outcome: Outcome::Committed(50) });
        core.check();
        for row in &rows {
            core.step(later(AFTER_MS), Event::Granted { row: row.clone(), revision: 50 });
        }
        core.check();
        prop_assert!(core.plan(later(AFTER_MS + 1)).is_empty());
        let why = core.explain(case.wants().key.as_ref().unwrap(), later(AFTER_MS + 1));
        prop_assert_eq!(&why.code, "waiting.preemption");
        let slips = Demand {
            key: Some(DemandKey { tenant: tenant(2), job_number: 1, step: 0 }),
            per_slot: cores(1),
            slots: 100,
            priority: 100,
            ..Demand::default()
        };
        told(&mut core, AFTER_MS + 2, vec![slips]);
        let mut revision = 5_000;
        let mut settle = |core: &mut Core, at_ms: u64| {
            let mut granted = Vec::new();
            for proposal in core.plan(later(at_ms)) {
                revision += 1;
                granted.extend(proposal.grants.iter().filter(|row| row.tenant == "own").cloned());
                let outcome = Outcome::Committed(revision);
                core.step(later(at_ms), Event::Outcome { proposal: proposal.id, outcome });
            }
            core.check();
            granted
        };
        settle(&mut core, AFTER_MS + 3);
        for row in rows {
            let gone = row.preemption.as_ref().unwrap().tasks.len() as u32;
            let (tenant, epoch, slots) = (row.tenant.clone(), row.epoch, row.nodes[0].slots);
            if row.gang || gone == slots {
                core.step(later(AFTER_MS + 4), Event::Released { tenant, epoch, revision: 1_000 + epoch });
            } else {
                let nodes = vec![GrantNode { slots: slots - gone, ..row.nodes[0].clone() }];
                let row = GrantRow { preemption: None, nodes, ..row };
                core.step(later(AFTER_MS + 4), Event::Granted { row, revision: 1_000 + epoch });
            }
            core.check();
        }
        let mut granted = Vec::new();
        for at_ms in 5..20 {
            granted.extend(settle(&mut core, AFTER_MS + at_ms));
        }
        prop_assert_eq!(granted.len(), 1, "it starts in what became free");
        told(&mut core, AFTER_MS + 30, vec![]);
        core.plan(later(AFTER_MS + 60_000));
        core.check();
    }

    /// Of other tenants only those that hold more, also after that.
    #[test]
    fn nobody_gives_way_to_a_tenant_that_has_as_much(case in case(2)) {
        if case.has_room(&BTreeSet::new()) {
            return Ok(());
        }
        let mut core = case.core();
        told(&mut core, 0, vec![case.wants()]);
        let Some(proposal) = until_asked(&mut core) else { return Ok(()) };
        let (units, _) = asked(&proposal);
        prop_assert!(case.has_room(&units));
        let mut held: BTreeMap<usize, u32> = BTreeMap::new();
        for work in &case.works {
            *held.entry(work.tenant).or_default() += work.nodes.len() as u32 * work.slots * work.cores;
        }
        let mut others = false;
        for &(at, _) in &units {
            let work = &case.works[at];
            let slots = if work.gang { work.nodes.len() as u32 * work.slots } else { 1 };
            *held.get_mut(&work.tenant).unwrap() -= slots * work.cores;
            others |= work.tenant == 1;
        }
        let own = held.get(&0).copied().unwrap_or(0) + case.cores * case.gang_nodes.max(1);
        if others {
            prop_assert!(held[&1] >= own, "{held:?}, and {own} for who asks");
        }
    }
}

/// What gave way has waited far longer, and asks for the same: the first of its queue in all
/// but this.
#[test]
fn what_gave_way_does_not_get_the_room_it_made() {
    let ran_s = vec![9];
    let work = Work { tenant: 0, nodes: vec![0], gang: false, slots: 1, cores: 1, priority: 0, ran_s };
    let case = Case { nodes: vec![1], works: vec![work], priority: 1, cores: 1, gang_nodes: 0 };
    let mut core = case.core();
    told(&mut core, 0, vec![case.wants()]);
    let proposal = until_asked(&mut core).expect("it asks");
    let (_, rows) = asked(&proposal);
    core.step(later(AFTER_MS), Event::Outcome { proposal: proposal.id, outcome: Outcome::Committed(50) });
    core.step(later(AFTER_MS), Event::Granted { row: rows[0].clone(), revision: 50 });
    let again = Demand {
        key: Some(DemandKey { tenant: tenant(0), job_number: 100, step: 0 }),
        per_slot: cores(1),
        slots: 1,
        queued_ms: BEGIN.wall_ms - 3_600_000,
        granted_epoch: 1,
        ..Demand::default()
    };
    core.step(later(AFTER_MS + 1), Event::Released { tenant: tenant(0), epoch: 1, revision: 60 });
    told(&mut core, AFTER_MS + 1, vec![again]);
    let granted: Vec<GrantRow> = core.plan(later(AFTER_MS + 2)).into_iter().flat_map(|p| p.grants).collect();
    assert_eq!(granted.iter().map(|row| row.job_number).collect::<Vec<_>>(), [1]);
    core.check();
}
