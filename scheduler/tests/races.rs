//! Two schedulers race over one store, in every order that proptest finds:
//! views that lag, answers that are late, lost or wrong, nodes that come and go.
//! After every commit the truth, which is the rows, is checked: no node
//! over-committed, no tenant and no group above its limit, every gang whole. When all is calm
//! again, everything that was wanted is granted.

use bytes::Bytes;
use proptest::prelude::*;
use prost::Message as _;
use proto::keys::{self, Parsed};
use proto::v1::{
    AllocRow, Demand, DemandKey, DemandUpdate, GrantRow, License, NodeRow, NodeState, Quota, Resources,
    TenantRow,
};
use scheduler::Amount;
use scheduler::core::{Alloc, AllocOf, Config, Core, Event, Outcome, Proposal, Snapshot};
use std::collections::{BTreeMap, BTreeSet};
use store::{Commit, Expect};
use world::clock::Now;

const GIB: u64 = 1 << 30;
/// Cores, memory in GiB, GPUs, pool.
const NODES: [(u32, u64, u32, &str); 5] =
    [(4, 8, 0, "a"), (4, 8, 0, "a"), (8, 8, 0, "a"), (2, 16, 0, "b"), (8, 32, 4, "b")];
/// Cores, GPUs.
const LIMITS: [(Option<u64>, Option<u64>); 3] = [(None, None), (Some(6), Some(2)), (Some(9), None)];

/// How many there are.
const LICENSES: [(&str, u32); 2] = [("solver", 4), ("viewer", 1)];

/// Groups, each in the one before, with their cores. All limits have room for any job.
const GROUPS: [u64; 2] = [7, 6];

/// What a job asks is fixed by its number, so that gangs can be checked.
#[derive(Clone, Copy)]
struct Shape {
    cores: u32,
    memory_gib: u64,
    gpus: u32,
    gang: (u32, u32),
    pool: &'static str,
    avoid: &'static [&'static str],
    exclusive: bool,
    licenses: &'static [(&'static str, u32)],
}
const PLAIN: Shape = Shape {
    cores: 1,
    memory_gib: 1,
    gpus: 0,
    gang: (0, 0),
    pool: "",
    avoid: &[],
    exclusive: false,
    licenses: &[],
};
const SHAPES: [Shape; 10] = [
    PLAIN,
    Shape { cores: 2, pool: "b", ..PLAIN },
    Shape { gpus: 1, avoid: &["n4"], ..PLAIN },
    Shape { gang: (2, 2), ..PLAIN },
    Shape { gang: (3, 2), pool: "a", avoid: &["n0", "n2"], ..PLAIN },
    Shape { cores: 4, memory_gib: 6, avoid: &["n2"], ..PLAIN },
    Shape { cores: 2, exclusive: true, ..PLAIN },
    Shape { gang: (2, 2), exclusive: true, ..PLAIN },
    Shape { licenses: &[("solver", 1)], ..PLAIN },
    Shape { gang: (2, 1), licenses: &[("solver", 3), ("viewer", 1)], ..PLAIN },
];

fn shape_of(job_number: u64) -> Shape {
    SHAPES[usize::try_from(job_number).unwrap() % SHAPES.len()]
}

fn tenant(index: usize) -> String {
    format!("t{index}")
}

/// The group that this many are above; none is above the first.
fn group(above: usize) -> String {
    format!("g{above}")
}

/// In a group, or in none.
fn tenant_row(index: usize, within: Option<usize>) -> TenantRow {
    let (cores, gpus) = LIMITS[index];
    let quota = Quota { millicores: cores.map(|c| c * 1000), gpus, ..Quota::default() };
    let parent = within.map(group).unwrap_or_default();
    TenantRow { name: tenant(index), quota: Some(quota), parent, ..TenantRow::default() }
}

type Changes = Vec<(Bytes, Option<Bytes>)>;

#[derive(Default)]
struct Rows {
    rows: BTreeMap<Bytes, (Bytes, u64)>,
    revision: u64,
    log: Vec<(u64, Changes)>,
}

impl Rows {
    fn commit(&mut self, commit: &Commit) -> Result<u64, (Bytes, u64)> {
        assert!(commit.guards.len() + commit.writes.len() <= store::limits::COMMIT_OPERATIONS_MAX);
        let written: BTreeSet<&Bytes> = commit.writes.iter().map(|w| &w.key).collect();
        assert_eq!(written.len(), commit.writes.len(), "no key twice");
        for guard in &commit.guards {
            let found = self.rows.get(&guard.key).map_or(0, |row| row.1);
            let holds = match &guard.expect {
                Expect::Absent => found == 0,
                Expect::Version(version) => found == *version,
                Expect::Value(value) => self.rows.get(&guard.key).is_some_and(|row| row.0 == *value),
            };
            if !holds {
                return Err((guard.key.clone(), found));
            }
        }
        Ok(self.write(commit.writes.iter().map(|w| (w.key.clone(), w.value.clone())).collect()))
    }

    fn write(&mut self, changes: Changes) -> u64 {
        self.revision += 1;
        for (key, value) in &changes {
            match value {
                Some(value) => _ = self.rows.insert(key.clone(), (value.clone(), self.revision)),
                None => _ = self.rows.remove(key),
            }
        }
        self.log.push((self.revision, changes));
        self.revision
    }

    fn below<M: prost::Message + Default>(&self, prefix: &str) -> Vec<(Bytes, M, u64)> {
        self.rows
            .iter()
            .filter(|(key, _)| key.starts_with(prefix.as_bytes()))
            .map(|(key, (value, version))| (key.clone(), M::decode(value.clone()).unwrap(), *version))
            .collect()
    }

    /// What must hold of the truth.
    fn check(&self) {
        let mut used: BTreeMap<String, Amount> = BTreeMap::new();
        let mut licenses: BTreeMap<String, u64> = BTreeMap::new();
        let mut on_nodes: BTreeMap<String, (u32, bool)> = BTreeMap::new();
        let mut held: BTreeMap<String, Amount> = BTreeMap::new();
        let mut in_groups: BTreeMap<String, Amount> = BTreeMap::new();
        let epochs: BTreeMap<Bytes, u64> =
            self.below::<AllocRow>(keys::ALLOCS).into_iter().map(|(k, row, _)| (k, row.epoch)).collect();
        for (_, grant, _) in self.below::<GrantRow>(keys::GRANTS) {
            let per_slot = Amount::of(grant.per_slot.as_ref());
            for (at, node) in grant.nodes.iter().enumerate() {
                let whole = grant.whole.get(at).map(|whole| Amount::of(Some(whole)));
                let amount = whole.unwrap_or_else(|| per_slot.times(u64::from(node.slots)));
                let (grants, alone) = on_nodes.entry(node.node.clone()).or_insert((0, false));
                (*grants, *alone) = (*grants + 1, *alone || whole.is_some());
                let sum = used.entry(node.node.clone()).or_default();
                *sum = sum.plus(amount);
                let sum = held.entry(grant.tenant.clone()).or_default();
                *sum = sum.plus(amount);
                for group in &grant.groups {
                    let sum = in_groups.entry(group.clone()).or_default();
                    *sum = sum.plus(amount);
                }
            }
            let shape = shape_of(grant.job_number);
            let slots: u64 = grant.nodes.iter().map(|n| u64::from(n.slots)).sum();
            let units = if grant.gang { 1 } else { slots };
            let due = shape.licenses.iter().map(|&(name, count)| (name.to_owned(), u64::from(count) * units));
            assert_eq!(grant.licenses, due.collect(), "what its tasks are to hold");
            for (name, count) in &grant.licenses {
                *licenses.entry(name.clone()).or_default() += count;
            }
            let distinct: BTreeSet<&str> = grant.nodes.iter().map(|n| n.node.as_str()).collect();
            assert_eq!(distinct.len(), grant.nodes.len(), "a node stands once in a grant");
            assert_eq!(grant.gang, shape.gang.0 > 0);
            assert_eq!(grant.whole.len(), if shape.exclusive { grant.nodes.len() } else { 0 });
            if grant.gang {
                assert_eq!(grant.nodes.len(), shape.gang.0 as usize, "a gang is whole");
                assert!(grant.nodes.iter().all(|n| n.slots == shape.gang.1), "a gang is whole on each node");
            }
            assert!(grant.epoch <= epochs[&keys::alloc_tenant(&grant.tenant)], "epochs only grow");
        }
        for (name, total) in LICENSES {
            let held = licenses.get(name).copied().unwrap_or(0);
            assert!(held <= u64::from(total), "{held} of {total} of license {name} are held");
        }
        for (index, (cores, memory_gib, gpus, _)) in NODES.iter().enumerate() {
            let capacity = Amount {
                millicores: u64::from(*cores) * 1000,
                memory_bytes: memory_gib * GIB,
                gpus: u64::from(*gpus),
            };
            let sum = used.get(&format!("n{index}")).copied().unwrap_or_default();
            assert!(sum.fits_in(capacity), "node n{index} is over-committed: {sum} of {capacity}");
            let (grants, alone) = on_nodes.get(&format!("n{index}")).copied().unwrap_or_default();
            assert!(grants < 2 || !alone, "something is on n{index} beside what has it for itself");
            assert!(!alone || sum == capacity, "all of n{index} is held: {sum} of {capacity}");
        }
        for (index, (cores, gpus)) in LIMITS.iter().enumerate() {
            let sum = held.get(&tenant(index)).copied().unwrap_or_default();
            assert!(cores.is_none_or(|c| sum.millicores <= c * 1000), "t{index} holds {sum}");
            assert!(gpus.is_none_or(|g| sum.gpus <= g), "t{index} holds {sum}");
        }
        for (above, cores) in GROUPS.iter().enumerate() {
            let sum = in_groups.get(&group(above)).copied().unwrap_or_default();
            assert!(sum.millicores <= cores * 1000, "{} holds {sum} of {cores} cores", group(above));
        }
    }
}

struct Scheduler {
    core: Core,
    /// Changes of the log it has heard.
    heard: usize,
    /// Sent, not yet at the store.
    sent: Vec<Proposal>,
    /// Decided by the store, not yet back.
    answers: Vec<(u64, Outcome)>,
}

struct World {
    rows: Rows,
    schedulers: Vec<Scheduler>,
    now: Now,
}

#[derive(Clone, Debug)]
enum Step {
    Demand { tenant: usize, job: u64, slots: u64, priority: i32, counted: bool },
    Gone { tenant: usize, job: u64 },
    Plan(usize),
    Arrive { at: usize, which: usize, fate: Fate },
    Answer(usize),
    Hear { at: usize, count: usize },
    Reread { at: usize, behind: usize },
    Release(usize),
    Node { node: usize, state: i32, drained: bool },
    NodeGone(usize),
    Move { tenant: usize, within: Option<usize> },
    Wait(u64),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Told,
    DoneAndLost,
    LostAndNotDone,
    Refused,
}

fn step() -> impl Strategy<Value = Step> {
    let fate = prop_oneof![
        6 => Just(Fate::Told),
        1 => Just(Fate::DoneAndLost),
        1 => Just(Fate::LostAndNotDone),
        1 => Just(Fate::Refused),
    ];
    prop_oneof![
        4 => (0..3_usize, 0..12_u64, 0..9_u64, -2..3_i32, any::<bool>()).prop_map(
            |(tenant, job, slots, priority, counted)| Step::Demand { tenant, job, slots, priority, counted }
        ),
        1 => (0..3_usize, 0..12_u64).prop_map(|(tenant, job)| Step::Gone { tenant, job }),
        8 => (0..2_usize).prop_map(Step::Plan),
        8 => (0..2_usize, 0..4_usize, fate).prop_map(|(at, which, fate)| Step::Arrive { at, which, fate }),
        8 => (0..2_usize).prop_map(Step::Answer),
        8 => (0..2_usize, 1..6_usize).prop_map(|(at, count)| Step::Hear { at, count }),
        1 => (0..2_usize, 0..6_usize).prop_map(|(at, behind)| Step::Reread { at, behind }),
        5 => (0..8_usize).prop_map(Step::Release),
        2 => (0..5_usize, 1..4_i32, prop::bool::weighted(0.2))
            .prop_map(|(node, state, drained)| Step::Node { node, state, drained }),
        1 => (0..5_usize).prop_map(Step::NodeGone),
        1 => (0..3_usize, prop::option::of(0..2_usize))
            .prop_map(|(tenant, within)| Step::Move { tenant, within }),
        3 => (1..3000_u64).prop_map(Step::Wait),
    ]
}

impl World {
    fn new() -> World {
        let config = |seed| Config { seed, ..Config::default() };
        let scheduler = |seed| Scheduler {
            core: Core::new(config(seed)),
            heard: 0,
            sent: Vec::new(),
            answers: Vec::new(),
        };
        let mut world = World {
            rows: Rows::default(),
            schedulers: vec![scheduler(1), scheduler(2)],
            now: Now { mono_ms: 1000, wall_ms: 1_700_000_000_000 },
        };
        for index in 0..NODES.len() {
            world.put_node(index, NodeState::Ready.into(), false);
        }
        for (above, cores) in GROUPS.iter().enumerate() {
            let quota = Some(Quota { millicores: Some(cores * 1000), ..Quota::default() });
            let parent = above.checked_sub(1).map(group).unwrap_or_default();
            world.put_tenant(&TenantRow {
                name: group(above),
                group: true,
                quota,
                parent,
                ..TenantRow::default()
            });
        }
        for (index, within) in [None, Some(1), Some(0)].into_iter().enumerate() {
            world.put_tenant(&tenant_row(index, within));
        }
        for at in 0..2 {
            world.reread(at, 0);
            let license = |(name, total): (&str, u32)| License { name: name.to_owned(), total };
            let licenses = LICENSES.map(license).to_vec();
            let update = DemandUpdate { snapshot: true, licenses, ..DemandUpdate::default() };
            world.told(at, Event::Demand(update));
        }
        world
    }

    fn put_node(&mut self, index: usize, state: i32, drained: bool) {
        let (cores, memory_gib, gpus, pool) = NODES[index];
        let capacity = Resources { millicores: cores * 1000, memory_bytes: memory_gib * GIB, gpus };
        let row = NodeRow {
            name: format!("n{index}"),
            pool: pool.to_owned(),
            capacity: Some(capacity),
            state,
            drained,
            ..NodeRow::default()
        };
        self.rows.write(vec![(keys::node(&row.name), Some(row.encode_to_vec().into()))]);
    }

    fn put_tenant(&mut self, row: &TenantRow) {
        self.rows.write(vec![(keys::tenant(&row.name), Some(row.encode_to_vec().into()))]);
    }

    fn told(&mut self, at: usize, event: Event) {
        self.schedulers[at].core.step(self.now, event);
        self.schedulers[at].core.check();
    }

    fn hear(&mut self, at: usize, count: usize) {
        for _ in 0..count {
            let Some((revision, changes)) = self.rows.log.get(self.schedulers[at].heard).cloned() else {
                return;
            };
            self.schedulers[at].heard += 1;
            for (key, value) in changes {
                let event = match (keys::parse(&key).unwrap(), value) {
                    (Parsed::Grant { .. }, Some(v)) => {
                        Event::Granted { row: GrantRow::decode(v).unwrap(), revision }
                    }
                    (Parsed::Grant { tenant, epoch }, None) => Event::Released { tenant, epoch, revision },
                    (Parsed::Node { .. }, Some(v)) => Event::Node(NodeRow::decode(v).unwrap()),
                    (Parsed::Node { node }, None) => Event::NodeGone(node),
                    (Parsed::Tenant { .. }, Some(v)) => Event::Tenant(TenantRow::decode(v).unwrap()),
                    _ => continue,
                };
                self.told(at, event);
            }
        }
    }

    /// Reads all; the watch began some changes before.
    fn reread(&mut self, at: usize, behind: usize) {
        let heard = self.rows.log.len().saturating_sub(behind);
        let revision = heard.checked_sub(1).map_or(0, |last| self.rows.log[last].0);
        let alloc = |(key, row, version): (Bytes, AllocRow, u64)| Alloc {
            of: match keys::parse(&key).unwrap() {
                Parsed::AllocNode { node } => AllocOf::Node(node),
                Parsed::AllocTenant { tenant } => AllocOf::Tenant(tenant),
                Parsed::AllocLicense { license } => AllocOf::License(license),
                other => panic!("{other:?} is no alloc row"),
            },
            epoch: row.epoch,
            version,
        };
        let snapshot = Snapshot {
            revision,
            allocs: self.rows.below(keys::ALLOCS).into_iter().map(alloc).collect(),
            grants: self.rows.below(keys::GRANTS).into_iter().map(|(_, row, v)| (row, v)).collect(),
            nodes: self.rows.below(keys::NODES).into_iter().map(|(_, row, _)| row).collect(),
            tenants: self.rows.below(keys::TENANTS).into_iter().map(|(_, row, _)| row).collect(),
        };
        self.schedulers[at].heard = heard;
        self.told(at, Event::Reread(Box::new(snapshot)));
    }

    fn plan(&mut self, at: usize) {
        let scheduler = &mut self.schedulers[at];
        let proposals = scheduler.core.plan(self.now);
        scheduler.core.check();
        scheduler.sent.extend(proposals);
        if scheduler.core.take_reread() {
            self.reread(at, 0);
        }
    }

    fn arrive(&mut self, at: usize, which: usize, fate: Fate) {
        let sent = &mut self.schedulers[at].sent;
        if sent.is_empty() {
            return;
        }
        let proposal = sent.remove(which % sent.len());
        let outcome = match fate {
            Fate::LostAndNotDone => Outcome::Indeterminate,
            Fate::Refused => Outcome::Failed,
            Fate::Told | Fate::DoneAndLost => match self.rows.commit(&proposal.commit) {
                _ if fate == Fate::DoneAndLost => Outcome::Indeterminate,
                Ok(revision) => Outcome::Committed(revision),
                Err((key, found)) => Outcome::Conflict { key, found },
            },
        };
        self.rows.check();
        self.schedulers[at].answers.push((proposal.id, outcome));
    }

    fn answer(&mut self, at: usize) {
        if !self.schedulers[at].answers.is_empty() {
            let (proposal, outcome) = self.schedulers[at].answers.remove(0);
            self.told(at, Event::Outcome { proposal, outcome });
        }
    }

    fn epoch_of(&self, tenant: &str) -> u64 {
        let row = self.rows.rows.get(&keys::alloc_tenant(tenant));
        row.map_or(0, |(value, _)| AllocRow::decode(value.clone()).unwrap().epoch)
    }

    fn demand(&mut self, key: &DemandKey, slots: u64, priority: i32, counted: bool) {
        let shape = shape_of(key.job_number);
        let demand = Demand {
            key: Some(key.clone()),
            per_slot: Some(Resources {
                millicores: shape.cores * 1000,
                memory_bytes: shape.memory_gib * GIB,
                gpus: shape.gpus,
            }),
            slots,
            gang_nodes: shape.gang.0,
            gang_tasks_per_node: shape.gang.1,
            priority,
            queued_ms: self.now.wall_ms,
            pool: shape.pool.to_owned(),
            exclusive: shape.exclusive,
            licenses: shape.licenses.iter().map(|&(name, count)| (name.to_owned(), count)).collect(),
            avoid: shape.avoid.iter().map(|&node| node.to_owned()).collect(),
            granted_epoch: if counted { self.epoch_of(&key.tenant) } else { 0 },
            ..Demand::default()
        };
        let (changed, gone) = if slots > 0 { (vec![demand], vec![]) } else { (vec![], vec![key.clone()]) };
        for at in 0..2 {
            let (changed, gone) = (changed.clone(), gone.clone());
            let controller = "c".to_owned();
            self.told(
                at,
                Event::Demand(DemandUpdate { controller, changed, gone, ..DemandUpdate::default() }),
            );
        }
    }

    fn release(&mut self, key: Bytes) {
        self.rows.write(vec![(key, None)]);
    }

    fn take(&mut self, step: Step) {
        let key = |tenant_index: usize, job_number: u64| DemandKey {
            tenant: tenant(tenant_index),
            job_number,
            step: 0,
        };
        match step {
            Step::Demand { tenant, job, slots, priority, counted } => {
                self.demand(&key(tenant, job), slots, priority, counted);
            }
            Step::Gone { tenant, job } => self.demand(&key(tenant, job), 0, 0, false),
            Step::Plan(at) => self.plan(at),
            Step::Arrive { at, which, fate } => self.arrive(at, which, fate),
            Step::Answer(at) => self.answer(at),
            Step::Hear { at, count } => self.hear(at, count),
            Step::Reread { at, behind } => self.reread(at, behind),
            Step::Release(which) => {
                let grants = self.rows.below::<GrantRow>(keys::GRANTS);
                if !grants.is_empty() {
                    self.release(grants[which % grants.len()].0.clone());
                }
            }
            Step::Node { node, state, drained } => self.put_node(node, state, drained),
            Step::NodeGone(node) => _ = self.rows.write(vec![(keys::node(&format!("n{node}")), None)]),
            Step::Move { tenant, within } => self.put_tenant(&tenant_row(tenant, within)),
            Step::Wait(ms) => {
                self.now.mono_ms += ms;
                self.now.wall_ms += ms;
            }
        }
    }

    /// Heals everything; then all that is wanted must be granted in bounded time.
    fn settle(&mut self) {
        for index in 0..NODES.len() {
            self.put_node(index, NodeState::Ready.into(), false);
        }
        for at in 0..2 {
            while !self.schedulers[at].sent.is_empty() {
                self.arrive(at, 0, Fate::Told);
            }
        }
        for (key, ..) in self.rows.below::<GrantRow>(keys::GRANTS) {
            self.release(key);
        }
        let mut wanted: BTreeMap<(String, u64), u64> = BTreeMap::new();
        for index in 0..3 {
            for job_number in 0..12 {
                let key = DemandKey { tenant: tenant(index), job_number, step: 0 };
                wanted.insert((key.tenant.clone(), job_number), 3);
                self.demand(&key, 3, 0, true);
            }
        }
        for _round in 0..500 {
            if wanted.is_empty() {
                return;
            }
            for at in 0..2 {
                self.hear(at, usize::MAX);
                while !self.schedulers[at].answers.is_empty() {
                    self.answer(at);
                }
                self.plan(at);
                while !self.schedulers[at].sent.is_empty() {
                    self.arrive(at, 0, Fate::Told);
                }
            }
            self.count_and_release(&mut wanted);
            self.take(Step::Wait(20));
        }
        panic!("never granted, though nothing stood in the way: {wanted:?}");
    }

    /// A controller whose tasks end at once.
    fn count_and_release(&mut self, wanted: &mut BTreeMap<(String, u64), u64>) {
        for (key, grant, _) in self.rows.below::<GrantRow>(keys::GRANTS) {
            let id = (grant.tenant.clone(), grant.job_number);
            let slots: u64 = grant.nodes.iter().map(|n| u64::from(n.slots)).sum();
            let before = wanted.remove(&id).unwrap_or(0);
            let left = if grant.gang { 0 } else { before.saturating_sub(slots) };
            if left > 0 {
                wanted.insert(id, left);
            }
            self.release(key);
            let key = DemandKey { tenant: grant.tenant, job_number: grant.job_number, step: 0 };
            self.demand(&key, left, 0, true);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_race_gives_anything_away_twice(steps in prop::collection::vec(step(), 1..200)) {
        let mut world = World::new();
        for step in steps {
            world.take(step);
        }
        world.settle();
    }
}

/// Two grants that share neither node nor tenant, from views that know nothing of one
/// another: their group's row is the only guard.
#[test]
fn what_shares_a_group_alone_is_guarded_by_it() {
    let mut world = World::new();
    let wants = |tenant, job, slots| Step::Demand { tenant, job, slots, priority: 0, counted: false };
    // Six cores in pool a; then six in pool b. The group has seven.
    world.take(wants(1, 4, 1));
    world.take(Step::Plan(0));
    world.take(Step::Arrive { at: 0, which: 0, fate: Fate::Told });
    assert_eq!(world.rows.below::<GrantRow>(keys::GRANTS).len(), 1);
    world.take(Step::Gone { tenant: 1, job: 4 });
    world.take(wants(2, 1, 3));
    world.take(Step::Plan(1));
    assert_eq!(world.schedulers[1].sent.len(), 1, "it knows of no other");
    world.take(Step::Arrive { at: 1, which: 0, fate: Fate::Told });
    assert_eq!(world.rows.below::<GrantRow>(keys::GRANTS).len(), 1);
    world.settle();
}

/// Two grants that share neither node nor tenant, from views that know nothing of one
/// another: the license's row is the only guard.
#[test]
fn what_shares_a_license_alone_is_guarded_by_it() {
    let mut world = World::new();
    let wants = |tenant, job, slots| Step::Demand { tenant, job, slots, priority: 0, counted: false };
    world.take(Step::Move { tenant: 1, within: None });
    world.take(Step::Move { tenant: 2, within: None });
    (0..2).for_each(|at| world.take(Step::Hear { at, count: 9 }));
    // All four, then three more of four.
    world.take(wants(1, 8, 4));
    world.take(Step::Plan(0));
    world.take(Step::Arrive { at: 0, which: 0, fate: Fate::Told });
    world.take(Step::Gone { tenant: 1, job: 8 });
    let grants = world.rows.below::<GrantRow>(keys::GRANTS);
    assert_eq!(grants.iter().map(|(_, grant, _)| grant.licenses["solver"]).sum::<u64>(), 4);
    world.take(wants(2, 9, 1));
    world.take(Step::Plan(1));
    assert_eq!(world.schedulers[1].sent.len(), 1, "it knows of no other");
    world.take(Step::Arrive { at: 1, which: 0, fate: Fate::Told });
    assert_eq!(world.rows.below::<GrantRow>(keys::GRANTS).len(), grants.len());
    world.settle();
}
