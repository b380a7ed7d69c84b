//! Two schedulers' cores over one store: views that lag, answers that are late,
//! lost or indeterminate, nodes and tenants that come and go, clocks that jump,
//! demand that says anything a controller could say.
//!
//! The truth is the rows. After every commit: no node over-committed, no tenant
//! above its limit, every gang whole, epochs that only grow. Of each pass: its
//! proposals stay within their limits, and no two of them share a row.

mod rows;
mod words;

use crate::draw::Draw;
use proto::keys::{self, Parsed};
use proto::v1::{AllocRow, NodeRow, Quota, Resources, TenantRow};
use rows::{Rows, decoded};
use scheduler::core::{Alloc, AllocOf, Config, Core, Event, Outcome, Proposal, Snapshot};
use scheduler::limits::{GRANT_SLOTS_MAX, PASS_PROPOSALS_MAX, PROPOSAL_OPERATIONS_MAX};
use std::collections::{BTreeMap, BTreeSet};
use store::Commit;
use world::clock::Now;

/// What comes behind is cut off.
const MOVES_MAX: usize = 300;
const JOBS: u64 = 10;
const POOLS: [&str; 4] = ["", "a", "b", "none"];
const TENANTS: [&str; 3] = ["t0", "t1", "t2"];
/// Cores and GPUs.
const LIMITS: [(Option<u64>, Option<u64>); 3] = [(None, None), (Some(6), Some(2)), (Some(9), None)];

/// Moves and what becomes of them.
pub fn scheduler_core(data: &[u8]) {
    let mut draw = Draw::new(data);
    let mut world = World::new(&mut draw);
    for _ in 0..MOVES_MAX {
        if draw.is_over() {
            break;
        }
        world.act(&mut draw);
    }
    for at in 0..2 {
        world.hear(at, usize::MAX);
        while !world.schedulers[at].answers.is_empty() {
            world.answer(at, 0);
        }
        world.plan(at);
    }
}

/// The shape of a job's one step, fixed when it is first told.
#[derive(Clone)]
struct Shape {
    per_slot: Resources,
    gang: (u32, u32),
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
    /// Capacity and pool; never changed, so that the rows can be judged.
    nodes: Vec<(Resources, &'static str)>,
    shapes: BTreeMap<u64, Shape>,
}

impl World {
    fn new(draw: &mut Draw<'_>) -> Self {
        let scheduler = |seed| Scheduler {
            core: Core::new(Config { seed, ..Config::default() }),
            heard: 0,
            sent: Vec::new(),
            answers: Vec::new(),
        };
        let node = |millicores, gib: u64, gpus| Resources { millicores, memory_bytes: gib << 30, gpus };
        let drawn = Resources {
            millicores: draw.number_u32(),
            memory_bytes: draw.number() << draw.below(32),
            gpus: draw.number_u32(),
        };
        let nodes = vec![
            (node(4_000, 8, 0), "a"),
            (node(4_000, 8, 0), "a"),
            (node(8_000, 8, 0), "a"),
            (node(8_000, 32, 4), "b"),
            (drawn, "b"),
        ];
        let mut world = Self {
            rows: Rows::default(),
            schedulers: vec![scheduler(1), scheduler(2)],
            now: Now { mono_ms: 1_000, wall_ms: 1_700_000_000_000 },
            nodes,
            shapes: BTreeMap::new(),
        };
        for index in 0..world.nodes.len() {
            world.put_node(index, 1, false, false);
        }
        for index in 0..TENANTS.len() {
            world.put_tenant(index);
        }
        for at in 0..2 {
            world.reread(at, 0);
        }
        world
    }

    fn put_node(&mut self, index: usize, state: i32, drained: bool, labelled: bool) {
        let (capacity, pool) = self.nodes[index];
        let mut row = NodeRow {
            name: format!("n{index}"),
            pool: pool.to_owned(),
            capacity: Some(capacity),
            state,
            drained,
            ..NodeRow::default()
        };
        if labelled {
            row.labels.insert("disk".to_owned(), "ssd".to_owned());
        }
        self.rows.put(keys::node(&row.name), &row);
    }

    fn put_tenant(&mut self, index: usize) {
        let (cores, gpus) = LIMITS[index];
        let quota = Quota { millicores: cores.map(|cores| cores * 1_000), gpus, ..Quota::default() };
        let row = TenantRow { name: TENANTS[index].to_owned(), quota: Some(quota), ..TenantRow::default() };
        self.rows.put(keys::tenant(&row.name), &row);
    }

    fn act(&mut self, draw: &mut Draw<'_>) {
        let at = draw.below(2);
        match draw.below(32) {
            0..=5 => self.demand(draw),
            6..=10 => self.plan(at),
            11..=15 => self.arrive(at, draw),
            16..=19 => self.answer(at, draw.below(4)),
            20..=23 => self.hear(at, 1 + draw.below(8)),
            24 => self.reread(at, draw.below(8)),
            25..=26 => self.release(draw),
            27 => self.node_changes(draw),
            28 => self.pass_time(draw),
            29 => self.ask(at, draw),
            30 => self.tenant_changes(draw),
            _ => self.strange_word(at, draw),
        }
    }

    fn tell(&mut self, at: usize, event: Event) {
        let core = &mut self.schedulers[at].core;
        core.step(self.now, event);
        core.check();
    }

    // --------------------------------------------------------- schedulers

    fn plan(&mut self, at: usize) {
        let scheduler = &mut self.schedulers[at];
        let proposals = scheduler.core.plan(self.now);
        scheduler.core.check();
        // Open commits may have to be merged, so a pass may stay below, never above.
        assert!(proposals.len() <= PASS_PROPOSALS_MAX, "{} proposals in a pass", proposals.len());
        let mut touched = BTreeSet::new();
        for proposal in &proposals {
            let Commit { guards, writes, .. } = &proposal.commit;
            assert!(guards.len() + writes.len() <= PROPOSAL_OPERATIONS_MAX);
            assert!(!proposal.grants.is_empty());
            for write in writes {
                assert!(touched.insert(write.key.clone()), "{:?} is in two proposals", write.key);
            }
            for node in proposal.grants.iter().flat_map(|grant| &grant.nodes) {
                assert!((1..=GRANT_SLOTS_MAX).contains(&u64::from(node.slots)), "{node:?}");
            }
        }
        scheduler.sent.extend(proposals);
        if scheduler.core.take_reread() {
            self.reread(at, 0);
        }
    }

    fn arrive(&mut self, at: usize, draw: &mut Draw<'_>) {
        let sent = &mut self.schedulers[at].sent;
        if sent.is_empty() {
            return;
        }
        let proposal = sent.remove(draw.below(sent.len()));
        let outcome = match draw.below(8) {
            0 => Outcome::Indeterminate,
            1 => Outcome::Failed,
            fate => match self.rows.commit(&proposal.commit) {
                // Done or not, and nobody is told.
                _ if fate == 2 => Outcome::Indeterminate,
                Ok(revision) => Outcome::Committed(revision),
                Err((key, found)) => Outcome::Conflict { key, found },
            },
        };
        self.check_truth();
        self.schedulers[at].answers.push((proposal.id, outcome));
    }

    fn answer(&mut self, at: usize, which: usize) {
        let answers = &mut self.schedulers[at].answers;
        if !answers.is_empty() {
            let (proposal, outcome) = answers.remove(which % answers.len());
            self.tell(at, Event::Outcome { proposal, outcome });
        }
    }

    fn hear(&mut self, at: usize, count: usize) {
        for _ in 0..count {
            let Some((revision, changes)) = self.rows.log.get(self.schedulers[at].heard).cloned() else {
                return;
            };
            self.schedulers[at].heard += 1;
            for (key, value) in changes {
                let event = match (keys::parse(&key), value) {
                    (Some(Parsed::Grant { .. }), Some(value)) => {
                        Event::Granted { row: decoded(&value), revision }
                    }
                    (Some(Parsed::Grant { tenant, epoch }), None) => {
                        Event::Released { tenant, epoch, revision }
                    }
                    (Some(Parsed::Node { .. }), Some(value)) => Event::Node(decoded(&value)),
                    (Some(Parsed::Node { node }), None) => Event::NodeGone(node),
                    (Some(Parsed::Tenant { .. }), Some(value)) => Event::Tenant(decoded(&value)),
                    (Some(Parsed::Tenant { tenant }), None) => Event::TenantGone(tenant),
                    _ => continue,
                };
                self.tell(at, event);
            }
        }
    }

    /// Reads all; the watch began some changes before.
    fn reread(&mut self, at: usize, behind: usize) {
        let heard = self.rows.log.len().saturating_sub(behind);
        let revision = heard.checked_sub(1).map_or(0, |last| self.rows.log[last].0);
        let allocs = self.rows.below::<AllocRow>(keys::ALLOCS).into_iter().map(|(key, row, version)| {
            let of = match keys::parse(&key) {
                Some(Parsed::AllocNode { node }) => AllocOf::Node(node),
                Some(Parsed::AllocTenant { tenant }) => AllocOf::Tenant(tenant),
                Some(Parsed::AllocLicense { license }) => AllocOf::License(license),
                other => panic!("{other:?} is no alloc row"),
            };
            Alloc { of, epoch: row.epoch, version }
        });
        let snapshot = Snapshot {
            revision,
            allocs: allocs.collect(),
            grants: self.rows.below(keys::GRANTS).into_iter().map(|(_, row, v)| (row, v)).collect(),
            nodes: self.rows.below(keys::NODES).into_iter().map(|(_, row, _)| row).collect(),
            tenants: self.rows.below(keys::TENANTS).into_iter().map(|(_, row, _)| row).collect(),
        };
        self.schedulers[at].heard = heard;
        self.tell(at, Event::Reread(Box::new(snapshot)));
    }

    fn ask(&mut self, at: usize, draw: &mut Draw<'_>) {
        let key = Self::key(draw);
        let core = &self.schedulers[at].core;
        let why = core.explain(&key, self.now);
        assert!(why.code.starts_with("waiting.") && !why.headline.is_empty(), "{why:?}");
        let open: u32 = core.pools().pools.iter().map(|pool| pool.nodes).sum();
        assert!(open as usize <= core.node_rows().count());
        assert!(core.node_rows().count() <= self.nodes.len());
        assert!(core.node_use().len() >= core.node_rows().count());
        assert!(core.next_wakeup_ms().is_none_or(|at| at > 0));
    }

    // -------------------------------------------------------- the world

    fn node_changes(&mut self, draw: &mut Draw<'_>) {
        let index = draw.below(self.nodes.len());
        if draw.seldom(4) {
            self.rows.write(vec![(keys::node(&format!("n{index}")), None)]);
        } else {
            let state = [1, 1, 1, 2, 3, 0, 9][draw.below(7)];
            self.put_node(index, state, draw.seldom(6), draw.coin());
        }
    }

    fn tenant_changes(&mut self, draw: &mut Draw<'_>) {
        let index = draw.below(TENANTS.len());
        if draw.seldom(3) {
            self.rows.write(vec![(keys::tenant(TENANTS[index]), None)]);
        } else {
            self.put_tenant(index);
        }
    }

    fn pass_time(&mut self, draw: &mut Draw<'_>) {
        let ms = draw.word();
        match draw.below(8) {
            0 => self.now.wall_ms = self.now.wall_ms.saturating_sub(ms << 12),
            1 => self.now.wall_ms += ms << 20,
            2 => self.now.mono_ms += ms << 16,
            _ => {
                self.now.mono_ms += ms % 4_000;
                self.now.wall_ms += ms % 4_000;
            }
        }
    }
}
