//! Where a demand may go.
//!
//! [`Core::choose`] is the one judge: a pass grants what it chooses, and
//! `explain` asks it the same question. It reads the view and changes nothing.

use super::demands::Failed;
use super::licenses::{Lack, LicenseId};
use super::nodes::{ANY_POOL, Node, NodeId, PoolId};
use super::pass::{Pass, Rows};
use super::shape::{Gang, Shape, ShapeId};
use super::tenants::Shortage;
use super::{Core, StepKey};
use crate::amount::Amount;
use crate::limits::GRANT_SLOTS_MAX;
use proto::v1::NodeState;
use std::ops::ControlFlow;

/// Above so many freed nodes the pool's own order is the faster way.
const FREED_CANDIDATES_MAX: usize = 64;

/// Nodes and slots on each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Choice {
    pub nodes: Vec<(NodeId, u32)>,
}

impl Choice {
    pub fn slots(&self) -> u64 {
        self.nodes.iter().map(|&(_, slots)| u64::from(slots)).sum()
    }
}

/// Why a demand cannot start now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Blocked {
    /// Its tenant is at a limit, or a group is that it is in.
    Limit(Vec<Shortage>),
    /// No node, or too few, can take it.
    Capacity(Failed),
    /// Too few licenses are free.
    Licenses(Vec<Lack>),
    /// It would fit, but not into a commit of this pass.
    Joining,
}

/// What keeps a node from taking a unit of a shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Obstacle {
    Pool,
    Label,
    NotReady,
    Drained,
    TooSmall,
    Whole,
    Occupied,
    Gpus,
    Cores,
    Memory,
    Avoided,
    Kept,
    Reserved,
    Unsettled,
}

/// A question to the view: whose demand, of which shape.
#[derive(Clone, Copy, Debug)]
pub(super) struct Search<'a> {
    pub key: StepKey,
    pub shape: &'a Shape,
    pub unit: Amount,
    pub pool: PoolId,
    pub may_use_avoided: bool,
    /// When it ends at the latest if it starts now; `NEVER` where that is not told.
    pub until_ms: u64,
}

impl Search<'_> {
    /// What must be free of a node: a unit, or all of it.
    pub fn need(&self, node: &Node) -> Amount {
        if self.shape.exclusive { node.capacity } else { self.unit }
    }
}

/// What whole nodes hold is known only once they are chosen, and so whether their tenant may
/// have it.
struct Allowance {
    room: Amount,
    chosen: Amount,
    /// Set where a node was left for it: what would have been held.
    passed: Option<Amount>,
}

impl Allowance {
    fn of(core: &Core, search: &Search<'_>) -> Allowance {
        let room = core.tenants.room(search.key.tenant);
        Allowance { room, chosen: Amount::default(), passed: None }
    }

    /// Counts one node more, if its tenant may have it.
    fn lets(&mut self, node: &Node, search: &Search<'_>) -> bool {
        if !search.shape.exclusive {
            return true;
        }
        let sum = self.chosen.plus(node.capacity);
        if !sum.fits_in(self.room) {
            self.passed.get_or_insert(sum);
            return false;
        }
        self.chosen = sum;
        true
    }
}

impl Core {
    /// Sets up a search; `None` where no node was ever in the pool.
    pub(super) fn search<'a>(&self, key: StepKey, shape: &'a Shape) -> Option<Search<'a>> {
        let pool = self.nodes.pool_id(&shape.pool)?;
        let unit = shape.unit();
        let until_ms = self.now.wall_ms.saturating_add(self.span_ms(key));
        let mut search = Search { key, shape, unit, pool, may_use_avoided: true, until_ms };
        search.may_use_avoided = shape.avoid.is_empty() || !self.others_could(&search);
        if search.may_use_avoided && !shape.avoid.is_empty() {
            world::mark!("scheduler.place.avoided_after_all");
        }
        Some(search)
    }

    /// Nothing was freed since this shape last fitted nowhere: it still does.
    pub(super) fn has_no_news(&self, shape: ShapeId) -> bool {
        let state = self.demands.shape(shape);
        state.failed.is_some_and(|f| {
            let pool = self.nodes.pool(f.pool);
            // A pool that did not exist is not the one that was looked at.
            f.log_end == pool.log_end()
                && (f.changes == pool.changes || state.shape.avoid.is_empty())
                && (f.pool != ANY_POOL || state.shape.pool.is_empty())
        })
    }

    /// Enough nodes that are not to be avoided could hold the demand if empty.
    fn others_could(&self, search: &Search<'_>) -> bool {
        let wanted = search.shape.nodes_wanted();
        let members = &self.nodes.pool(search.pool).members;
        let others = members.iter().filter(|&&id| {
            !search.shape.avoids(&self.nodes.get(id).name)
                && self.nodes.could_hold(id, search.shape, search.unit)
        });
        others.take(wanted).count() == wanted
    }

    /// All that may keep a node from taking a unit now; the first thing found.
    pub(super) fn obstacle(&self, id: NodeId, search: &Search<'_>) -> Option<Obstacle> {
        let node = self.nodes.get(id);
        let Some(row) = &node.row else { return Some(Obstacle::NotReady) };
        if !search.shape.pool.is_empty() && row.pool != search.shape.pool {
            return Some(Obstacle::Pool);
        }
        if search.shape.label_missed(row).is_some() {
            return Some(Obstacle::Label);
        }
        if row.state() != NodeState::Ready {
            return Some(Obstacle::NotReady);
        }
        if row.drained {
            return Some(Obstacle::Drained);
        }
        if !search.unit.fits_in(node.capacity) {
            return Some(Obstacle::TooSmall);
        }
        if node.alone > 0 {
            return Some(Obstacle::Whole);
        }
        let free = node.free();
        if search.unit.gpus > free.gpus {
            return Some(Obstacle::Gpus);
        }
        if search.unit.millicores > free.millicores {
            return Some(Obstacle::Cores);
        }
        if search.unit.memory_bytes > free.memory_bytes {
            return Some(Obstacle::Memory);
        }
        if let Some(soft) = self.soft_obstacle(node, search) {
            return Some(soft);
        }
        (!node.is_settled()).then_some(Obstacle::Unsettled)
    }

    /// What the index of free capacity does not know.
    fn soft_obstacle(&self, node: &Node, search: &Search<'_>) -> Option<Obstacle> {
        if search.shape.exclusive && !node.is_idle() {
            world::mark!("scheduler.place.not_alone");
            return Some(Obstacle::Occupied);
        }
        if !node.line.is_clear_for(search.key) {
            if node.line.is_kept((self.now.wall_ms, search.until_ms), search.key) {
                world::mark!("scheduler.place.kept_for_others");
                return Some(Obstacle::Kept);
            }
            if !search.need(node).fits_in(self.room(node, search)) {
                world::mark!("scheduler.place.in_the_way_of_another");
                return Some(Obstacle::Reserved);
            }
            world::mark!("scheduler.place.slips_in");
        }
        if !search.may_use_avoided && search.shape.avoids(&node.name) {
            world::mark!("scheduler.place.avoided");
            return Some(Obstacle::Avoided);
        }
        if search.shape.needs.is_empty() {
            return None;
        }
        let missed = node.row.as_ref().is_none_or(|row| search.shape.label_missed(row).is_some());
        missed.then_some(Obstacle::Label)
    }

    /// What a node can give until then, without being in anybody's way.
    fn room(&self, node: &Node, search: &Search<'_>) -> Amount {
        let now_ms = self.now.wall_ms;
        node.line.room(node.capacity, now_ms, (now_ms, search.until_ms), search.key)
    }

    /// What this demand would be granted now, in a pass that stands so.
    pub(super) fn choose(&self, pass: &mut Pass, key: StepKey) -> Result<Choice, Blocked> {
        let entry = self.demands.get(key).expect("only demands in the view are asked about");
        let state = self.demands.shape(entry.shape);
        let shape = state.shape.as_ref();
        let shortages = self.tenants.shortages(key.tenant, shape.least());
        if !shortages.is_empty() {
            return Err(Blocked::Limit(shortages));
        }
        let Some(search) = self.search(key, shape) else {
            return Err(Blocked::Capacity(Failed { pool: ANY_POOL, log_end: 0, changes: 0 }));
        };
        let counts = self.licenses_of(shape);
        let licenses: Vec<LicenseId> = counts.iter().map(|&(id, _)| id).collect();
        if licenses.iter().any(|&id| !self.licenses.get(id).is_settled()) {
            return Err(Blocked::Joining);
        }
        let licensed = self.licensed(&search, &counts).map_err(Blocked::Licenses)?;
        let rows = Rows { path: self.tenants.path(key.tenant), licenses };
        if pass.is_full_for(&rows) {
            return Err(Blocked::Joining);
        }
        let pool = self.nodes.pool(search.pool);
        let now = Failed { pool: search.pool, log_end: pool.log_end(), changes: pool.changes };
        // What is planned for this demand alone, or promised to it, is no news for its shape.
        let known = state.failed.filter(|f| {
            f.pool == now.pool
                && (f.changes == now.changes || shape.avoid.is_empty())
                && !self.plans.contains_key(&key)
                && !self.is_promised(key)
        });
        if known.is_some_and(|f| f.log_end == now.log_end) {
            return Err(Blocked::Capacity(now));
        }
        match shape.gang {
            Some(gang) => self.choose_gang(pass, &search, &rows, gang, now),
            None => self.choose_node(pass, &search, &rows, (known, now)).map(|id| {
                let wanted = entry.wanted(false).min(licensed);
                let slots = if shape.exclusive { 1 } else { self.slots_on(pass, id, &search, wanted) };
                Choice { nodes: vec![(id, slots)] }
            }),
        }
    }

    fn choose_node(
        &self,
        pass: &mut Pass,
        search: &Search<'_>,
        rows: &Rows,
        (known, now): (Option<Failed>, Failed),
    ) -> Result<NodeId, Blocked> {
        let mut skipped = false;
        let mut found = None;
        let mut allowance = Allowance::of(self, search);
        let mut visit = |id: NodeId| {
            pass.nodes_examined += 1;
            let node = self.nodes.get(id);
            if self.soft_obstacle(node, search).is_some() {
                return ControlFlow::Continue(());
            }
            if !pass.joins_one(rows, id) {
                skipped = true;
                return ControlFlow::Continue(());
            }
            if !allowance.lets(node, search) {
                return ControlFlow::Continue(());
            }
            found = Some(id);
            ControlFlow::Break(())
        };
        let pool = self.nodes.pool(search.pool);
        let freed = known.and_then(|f| pool.freed_since(f.log_end));
        match freed.filter(|freed| freed.len() <= FREED_CANDIDATES_MAX) {
            Some(freed) => {
                let fit = |id| self.nodes.fit(id, search.pool, search.unit);
                let mut fits: Vec<_> = freed.filter_map(fit).collect();
                fits.sort_unstable();
                fits.dedup();
                let _ = fits.into_iter().try_for_each(|fit| visit(fit.3));
            }
            None => self.nodes.walk(search.pool, search.unit, visit),
        }
        match found {
            Some(id) => Ok(id),
            None if skipped => Err(Blocked::Joining),
            None => Err(self.too_few(search, allowance.passed, now)),
        }
    }

    fn choose_gang(
        &self,
        pass: &mut Pass,
        search: &Search<'_>,
        rows: &Rows,
        gang: Gang,
        now: Failed,
    ) -> Result<Choice, Blocked> {
        let wanted = gang.nodes as usize;
        let mut found: Vec<NodeId> = Vec::with_capacity(wanted);
        let mut skipped = false;
        let mut allowance = Allowance::of(self, search);
        self.nodes.walk(search.pool, search.unit, |id| {
            pass.nodes_examined += 1;
            let node = self.nodes.get(id);
            if self.soft_obstacle(node, search).is_some() {
                return ControlFlow::Continue(());
            }
            if !pass.is_alone_with(rows, id) {
                skipped = true;
                return ControlFlow::Continue(());
            }
            if !allowance.lets(node, search) {
                return ControlFlow::Continue(());
            }
            found.push(id);
            if found.len() == wanted { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        if found.len() < wanted {
            let too_few = || self.too_few(search, allowance.passed, now);
            return Err(if skipped { Blocked::Joining } else { too_few() });
        }
        if !pass.joins(rows, &found) {
            return Err(Blocked::Joining);
        }
        Ok(Choice { nodes: found.into_iter().map(|id| (id, gang.tasks_per_node)).collect() })
    }

    /// There are no more nodes that would do; others are more than its tenant may hold.
    fn too_few(&self, search: &Search<'_>, passed: Option<Amount>, now: Failed) -> Blocked {
        match passed {
            Some(whole) => Blocked::Limit(self.tenants.shortages(search.key.tenant, whole)),
            None => Blocked::Capacity(now),
        }
    }

    /// As many as are wanted, fit, are allowed, and are fair while others wait.
    fn slots_on(&self, pass: &Pass, id: NodeId, search: &Search<'_>, wanted: u64) -> u32 {
        let (tenant, unit) = (search.key.tenant, search.unit);
        let slots = wanted
            .min(unit.count_in(self.room(self.nodes.get(id), search)))
            .min(unit.count_in(self.tenants.room(tenant)))
            .min(self.slots_in_turn(pass, tenant, unit))
            .min(GRANT_SLOTS_MAX);
        assert!(slots > 0, "a node was chosen that takes nothing");
        u32::try_from(slots).expect("below GRANT_SLOTS_MAX")
    }
}
