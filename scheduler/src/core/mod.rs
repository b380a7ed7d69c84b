//! The scheduler's decisions, without IO, clock or chance.
//!
//! [`Core::step`] brings the view up to date, [`Core::plan`] decides. The view
//! is made of rows as watches tell them and of demand as controllers tell it; a
//! decision is a [`Proposal`]: one commit, guarded by the versions of the
//! `alloc/` rows of every node, tenant and license it touches. What keeps this safe with
//! any number of schedulers:
//!
//! - Whoever grants writes the alloc rows of the grant's nodes, tenant, groups and licenses
//!   in the same commit as the grant row. So the version of an alloc row *is* the
//!   revision of the last grant that touched it, and a view that has seen the
//!   grants up to there has seen all that matters for the row. Alloc rows are
//!   therefore read once and then followed through `grant/` alone: a watch on
//!   them could only run ahead of the grants they stand for.
//! - Whoever asks that tasks of a grant give way ([`preempt`]) writes the grant row again,
//!   and the alloc row of the tenant for whom it is. Such a row says nothing of its nodes'
//!   alloc rows, and is marked so that nobody takes it for the first.
//! - Releases only free capacity: a view that has not seen one is merely cautious.
//! - Until a proposal's outcome is known its capacity counts as taken, and its
//!   rows are in no other proposal.
//!
//! Hence no node is over-committed, no tenant granted more than its limit and no license
//! given away twice,
//! however old the view is; only work is lost to conflicts.

mod check;
mod demands;
mod events;
mod explain;
mod fair;
mod growth;
mod licenses;
mod nodes;
mod outcomes;
mod pass;
mod place;
mod plans;
mod preempt;
mod profile;
mod shape;
mod signs;
mod tenants;
mod timeline;
mod turns;
mod victims;

use crate::admission::ever_within;
use crate::amount::Amount;
use crate::feasible::least_whole;
use demands::Demands;
pub use growth::Growing;
use licenses::{Counts, LicenseId, Licenses};
use nodes::{NodeId, Nodes};
use pass::expect;
use plans::Plan;
use proto::v1::{
    AllocRow, DemandKey, DemandUpdate, GrantRow, JobSpec, NodeRow, PoolView, PoolsReply, Problem, TenantRow,
};
pub use shape::Need;
use shape::ShapeId;
use std::collections::{BTreeMap, BTreeSet};
use store::Revision;
use tenants::{Place, TenantId, Tenants};
use timeline::Part;
use world::clock::Now;

/// Names a proposal of this core.
pub type ProposalId = u64;

/// One step of one job, as the view names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StepKey {
    /// Whose.
    pub tenant: TenantId,
    /// Of the job.
    pub job_number: u64,
    /// Within the job.
    pub step: u32,
}

/// The knobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// For jitter; two schedulers should differ.
    pub seed: u64,
    /// Waiting that is worth one point of priority.
    pub ageing_ms: u64,
    /// How long a grant is fed with further tasks of its step.
    pub quantum_ms: u64,
    /// How long the first of a queue may be blocked before its start is planned,
    /// or the tenant's limit held back for it.
    pub reserve_after_ms: u64,
    /// So many of each queue, no two of one shape, have their start planned. With 1
    /// this is EASY backfill; the more, the nearer it is to conservative backfill.
    pub backfill_depth: u64,
    /// After so long half of what a tenant held counts no longer when it is asked who is
    /// next; 0: only what it holds counts.
    pub fair_half_life_ms: u64,
    /// What begin and end of a task may add to its time.
    pub slack_ms: u64,
    /// After so long a grant not counted by the controller no longer counts
    /// against its demand.
    pub outstanding_ms: u64,
    /// Likewise once the controller has spoken without counting it.
    pub outstanding_told_ms: u64,
    /// The view is read again when news promised by a conflict stays out so long.
    pub stale_ms: u64,
    /// Longest wait after repeated conflicts.
    pub conflict_backoff_ms_max: u64,
    /// First and longest wait after the store failed.
    pub store_backoff_ms: (u64, u64),
}

impl Default for Config {
    fn default() -> Config {
        Config {
            seed: 0,
            ageing_ms: 5 * 60_000,
            quantum_ms: 2_000,
            reserve_after_ms: 5_000,
            backfill_depth: 1,
            fair_half_life_ms: 3_600_000,
            slack_ms: 5_000,
            outstanding_ms: 5_000,
            outstanding_told_ms: 500,
            stale_ms: 2_000,
            conflict_backoff_ms_max: 128,
            store_backoff_ms: (50, 5_000),
        }
    }
}

/// What the core is told.
#[derive(Clone, Debug)]
pub enum Event {
    /// `node/` was put.
    Node(NodeRow),
    /// `node/` was deleted.
    NodeGone(String),
    /// `tenant/` was put.
    Tenant(TenantRow),
    /// `tenant/` was deleted.
    TenantGone(String),
    /// `grant/` was put. Grants and releases come in the order of revisions.
    Granted {
        /// The row.
        row: GrantRow,
        /// The commit that wrote it.
        revision: Revision,
    },
    /// `grant/` was deleted.
    Released {
        /// From the key.
        tenant: String,
        /// From the key.
        epoch: u64,
        /// The commit that deleted it.
        revision: Revision,
    },
    /// All was read again.
    Reread(Box<Snapshot>),
    /// A controller spoke.
    Demand(DemandUpdate),
    /// What became of a proposal.
    Outcome {
        /// Which.
        proposal: ProposalId,
        /// What.
        outcome: Outcome,
    },
    /// Time passed.
    Tick,
}

/// All rows, read in this order after the watches were opened: alloc rows,
/// then grants, then the rest.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Where the watch on `grant/` begins: later changes follow as events.
    pub revision: Revision,
    /// `alloc/`.
    pub allocs: Vec<Alloc>,
    /// `grant/` with versions.
    pub grants: Vec<(GrantRow, Revision)>,
    /// `node/`.
    pub nodes: Vec<NodeRow>,
    /// `tenant/`.
    pub tenants: Vec<TenantRow>,
}

/// One alloc row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alloc {
    /// Whose.
    pub of: AllocOf,
    /// What it says.
    pub epoch: u64,
    /// Its version.
    pub version: Revision,
}

/// Whose alloc row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllocOf {
    /// A node's.
    Node(String),
    /// A tenant's.
    Tenant(String),
    /// A license's.
    License(String),
}

/// What became of a proposal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done at this revision.
    Committed(Revision),
    /// Another grant came first.
    Conflict {
        /// The row that had moved.
        key: store::Key,
        /// Its version now; 0: there is no such row.
        found: Revision,
    },
    /// Not done: the store is full, down or refused it.
    Failed,
    /// Done or not; a watch will tell, or nothing will.
    Indeterminate,
}

/// One commit that grants, or asks that what was granted gives way.
#[derive(Clone, Debug, PartialEq)]
pub struct Proposal {
    /// To name it in its outcome.
    pub id: ProposalId,
    /// What it grants; nothing where it asks.
    pub grants: Vec<GrantRow>,
    /// How: guards on all alloc rows touched, and on the grants' absence.
    pub commit: store::Commit,
}

/// A grant in the view.
#[derive(Clone, Debug)]
struct Held {
    key: StepKey,
    nodes: Vec<(NodeId, u32)>,
    per_slot: Amount,
    /// Where it has its nodes for itself: all of each.
    whole: Vec<Amount>,
    /// In all.
    licenses: Counts,
    /// That count it as well, from its tenant's up.
    groups: Vec<TenantId>,
    /// Wall clock; 0: not told.
    ends_by_ms: u64,
    version: Revision,
    /// Milliseconds since 1970.
    granted_ms: u64,
    /// It is to give way.
    preemption: Option<preempt::Given>,
    /// Kept where it may have to be written again.
    row: Option<Box<GrantRow>>,
}

impl Held {
    /// What it holds of each node.
    fn parts(&self) -> impl Iterator<Item = (NodeId, Part)> {
        self.nodes.iter().enumerate().map(|(at, &(id, slots))| {
            let of_slots = || self.per_slot.times(u64::from(slots)).of_one_node();
            let amount = self.whole.get(at).copied().unwrap_or_else(of_slots);
            (id, Part { amount, alone: !self.whole.is_empty(), ends_by_ms: self.ends_by_ms })
        })
    }

    /// What it holds of all of them.
    fn amount(&self) -> Amount {
        self.parts().fold(Amount::default(), |sum, (_, part)| sum.plus(part.amount))
    }

    /// Its tenant and the groups that count it.
    fn counted_in(&self) -> impl Iterator<Item = TenantId> {
        std::iter::once(self.key.tenant).chain(self.groups.iter().copied())
    }

    fn slots(&self) -> u64 {
        self.nodes.iter().map(|&(_, slots)| u64::from(slots)).sum()
    }
}

/// A grant decided on: in this pass, or in a proposal without an outcome.
#[derive(Clone, Debug)]
struct Drafted {
    shape: ShapeId,
    gang: bool,
    epoch: u64,
    held: Held,
}

/// What a proposal without an outcome holds.
#[derive(Debug, Default)]
struct InFlight {
    grants: Vec<Drafted>,
    /// Instead of grants: rows that ask others to give way.
    asks: Vec<(preempt::GrantId, GrantRow)>,
    nodes: BTreeSet<NodeId>,
    /// And groups.
    tenants: BTreeSet<TenantId>,
    licenses: BTreeSet<LicenseId>,
}

/// The scheduler's view and its decisions.
#[derive(Debug)]
pub struct Core {
    config: Config,
    now: Now,
    nodes: Nodes,
    tenants: Tenants,
    licenses: Licenses,
    demands: Demands,
    controllers: BTreeMap<String, u32>,
    grants: BTreeMap<(TenantId, u64), Held>,
    /// The watch on `grant/` has told everything up to here.
    grants_through: Revision,
    in_flight: BTreeMap<ProposalId, InFlight>,
    next_proposal: ProposalId,
    plans: BTreeMap<StepKey, Plan>,
    yields: preempt::Yields,
    next_plan: u64,
    /// In this pass.
    plan_scans: usize,
    turns: u64,
    /// The cluster's capacity when shares were last remembered.
    remembered: Amount,
    /// Wall clock.
    not_before: BTreeSet<(u64, StepKey)>,
    /// Wall clock: when nodes are no longer kept for others.
    openings: BTreeSet<(u64, NodeId)>,
    /// Likewise: when openings were last looked at.
    woken_wall_ms: u64,
    /// Monotonic.
    lapses: BTreeSet<(u64, StepKey)>,
    /// Monotonic: instants at which a plan may come out differently.
    hints: BTreeSet<u64>,
    store_failures: u32,
    store_backoff_until_ms: u64,
    reread_due_ms: Option<u64>,
    wants_reread: bool,
    /// The last pass ended at a limit of its own.
    more: bool,
}

impl Core {
    /// A core that knows nothing yet.
    #[must_use]
    pub fn new(config: Config) -> Core {
        Core {
            config,
            now: Now::default(),
            nodes: Nodes::default(),
            tenants: Tenants::default(),
            licenses: Licenses::default(),
            demands: Demands::default(),
            controllers: BTreeMap::new(),
            grants: BTreeMap::new(),
            grants_through: 0,
            in_flight: BTreeMap::new(),
            next_proposal: 1,
            plans: BTreeMap::new(),
            yields: preempt::Yields::default(),
            next_plan: 0,
            plan_scans: 0,
            turns: 0,
            remembered: Amount::default(),
            not_before: BTreeSet::new(),
            openings: BTreeSet::new(),
            woken_wall_ms: 0,
            lapses: BTreeSet::new(),
            hints: BTreeSet::new(),
            store_failures: 0,
            store_backoff_until_ms: 0,
            reread_due_ms: None,
            wants_reread: false,
            more: false,
        }
    }

    /// Nodes, demands and grants in the view: what a check of it costs.
    #[must_use]
    pub fn size(&self) -> usize {
        self.nodes.iter().len() + self.demands.iter().len() + self.grants.len()
    }

    /// When the next plan may differ without any event (monotonic).
    #[must_use]
    pub fn next_wakeup_ms(&self) -> Option<u64> {
        let not_before = self.not_before.first().map(|&(wall_ms, _)| wall_ms);
        let opening = self.openings.first().map(|&(wall_ms, _)| wall_ms);
        let by_wall = not_before
            .into_iter()
            .chain(opening)
            .min()
            .map(|wall_ms| self.now.mono_ms + wall_ms.saturating_sub(self.now.wall_ms).max(1));
        let backoff = (self.store_backoff_until_ms > self.now.mono_ms).then_some(self.store_backoff_until_ms);
        [
            by_wall,
            self.lapses.first().map(|&(ms, _)| ms),
            self.hints.first().copied(),
            backoff,
            self.reread_due_ms,
            self.more.then_some(self.now.mono_ms),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// True once when the view must be read again: news stayed out.
    pub fn take_reread(&mut self) -> bool {
        std::mem::take(&mut self.wants_reread)
    }

    /// The last pass stopped at a limit of its own: another should follow.
    #[must_use]
    pub fn has_more(&self) -> bool {
        self.more
    }

    /// What a tenant holds, by grants and proposals.
    #[must_use]
    pub fn held(&self, tenant: &str) -> Amount {
        self.tenants.id(tenant).map_or(Amount::default(), |id| self.tenants.get(id).held)
    }

    /// Refuses a step that takes whole nodes where these are more than its tenant, or a group
    /// that it is in, may ever have, whichever it gets of those known and of some that may come.
    pub fn whole_nodes(&self, tenant: &str, spec: &JobSpec, may_come: &[NodeRow]) -> Result<(), Problem> {
        let Some(id) = self.tenants.id(tenant) else { return Ok(()) };
        let path = self.tenants.path(id).into_iter().map(|id| self.tenants.get(id));
        let path: Vec<(&TenantRow, Amount)> = path.map_while(|t| Some((t.row.as_ref()?, t.held))).collect();
        let Some((own, groups)) = path.split_first() else { return Ok(()) };
        for (at, step) in spec.steps.iter().enumerate().filter(|(_, step)| step.exclusive) {
            if let Some(least) = least_whole(self.node_rows().chain(may_come), step) {
                ever_within(*own, groups, least).map_err(|problem| problem.within(&format!("step[{at}]")))?;
            }
        }
        Ok(())
    }

    /// The rows of all nodes known.
    pub fn node_rows(&self) -> impl Iterator<Item = &NodeRow> {
        self.nodes.iter().filter_map(|(_, node)| node.row.as_ref())
    }

    /// What is taken on each node, and by how many grants.
    #[must_use]
    pub fn node_use(&self) -> BTreeMap<String, (Amount, u32)> {
        let mut counts: BTreeMap<NodeId, u32> = BTreeMap::new();
        for (node, _) in self.grants.values().flat_map(|held| &held.nodes) {
            *counts.entry(*node).or_default() += 1;
        }
        self.nodes
            .iter()
            .map(|(id, node)| (node.name.clone(), (node.used, counts.get(&id).copied().unwrap_or(0))))
            .collect()
    }

    /// The pools with capacity and queue. Demand that names no pool is counted
    /// in every pool, since it may run in any.
    #[must_use]
    pub fn pools(&self) -> PoolsReply {
        #[derive(Default)]
        struct Sum {
            nodes: u32,
            capacity: Amount,
            free: Amount,
            largest: Amount,
        }
        let mut sums: BTreeMap<&str, Sum> = BTreeMap::new();
        for (_, node) in self.nodes.iter() {
            let Some(row) = &node.row else { continue };
            let sum = sums.entry(&row.pool).or_default();
            if node.is_open() {
                sum.nodes += 1;
                sum.capacity = sum.capacity.plus(node.capacity);
                sum.free = sum.free.plus(node.free());
                sum.largest = sum.largest.max(node.capacity);
            }
        }
        let queued = |pool: &str| -> u64 {
            let here = |name: &str| name.is_empty() || name == pool;
            self.demands.shapes().filter(|s| here(&s.shape.pool)).map(|s| s.wanted).sum()
        };
        let pools = sums
            .into_iter()
            .map(|(name, sum)| PoolView {
                name: name.to_owned(),
                nodes: sum.nodes,
                capacity: Some(sum.capacity.to_resources()),
                free: Some(sum.free.to_resources()),
                queued_slots: queued(name),
                largest_node: Some(sum.largest.to_resources()),
                ..PoolView::default()
            })
            .collect();
        PoolsReply { pools }
    }

    fn key(&self, key: &DemandKey) -> Option<StepKey> {
        let tenant = self.tenants.id(&key.tenant)?;
        Some(StepKey { tenant, job_number: key.job_number, step: key.step })
    }

    fn key_at(tenant: TenantId, place: Place) -> StepKey {
        StepKey { tenant, job_number: place.job_number, step: place.step }
    }

    /// Puts a demand into its tenant's queue, or out of it, as it now stands.
    fn requeue(&mut self, key: StepKey) {
        self.demands.recount(key);
        let Some(entry) = self.demands.get(key) else { return };
        let gang = self.demands.shape(entry.shape).shape.gang.is_some();
        let wants = entry.wanted(gang) > 0;
        let due = entry.not_before_ms <= self.now.wall_ms && entry.resting_until_ms <= self.now.mono_ms;
        if wants && entry.not_before_ms > self.now.wall_ms {
            self.not_before.insert((entry.not_before_ms, key));
        }
        let ageing_ms = i64::try_from(self.config.ageing_ms).unwrap_or(i64::MAX);
        let by_priority = i64::try_from(entry.queued_ms)
            .unwrap_or(i64::MAX)
            .saturating_sub(ageing_ms.saturating_mul(i64::from(entry.priority)));
        let place = (wants && due).then(|| Place {
            // What was made free for it nobody else may have: none that gave way for it, and
            // has waited longer, stands in its way.
            virtual_ms: if self.is_promised(key) { i64::MIN } else { by_priority },
            queued_ms: entry.queued_ms,
            job_number: key.job_number,
            step: key.step,
        });
        let (shape, old) = (entry.shape, entry.place);
        if place == old {
            return;
        }
        if let Some(old) = old {
            self.tenants.dequeue(key.tenant, shape, old);
        }
        if let Some(place) = place {
            self.tenants.enqueue(key.tenant, shape, place);
        }
        let entry = self.demands.get_mut(key).expect("it was there above");
        entry.place = place;
    }

    /// Takes a demand out of the queue, before its shape changes or it goes.
    fn dequeue(&mut self, key: StepKey) {
        let Some(entry) = self.demands.get_mut(key) else { return };
        if let Some(place) = entry.place.take() {
            let shape = entry.shape;
            self.tenants.dequeue(key.tenant, shape, place);
        }
    }
}
