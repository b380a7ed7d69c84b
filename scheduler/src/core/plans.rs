//! When and where what cannot start now will start, and that nobody is in its way
//! then (backfill: EASY where only the first of a queue is planned for, and the
//! nearer to conservative the more are).
//!
//! Small work would starve what needs much: as soon as a node has room, something
//! small takes it. So when one of the first of a queue has been blocked for a
//! while, the nodes that will have room for it first are chosen, and the instant.
//! Until then others may use them, as far as they have ended by then, or leave it
//! its room ([`super::timeline`]). Where what is in its way tells no end there is
//! no instant: then the nodes with most room are kept as they are, for one alone.
//!
//! What must hold: work that ends as told never makes a planned start later. From
//! one pass to the next a plan is for one that a pass looks at: the first of its
//! shape in a queue. For one behind it, the nodes would be kept from both.

use super::licenses::Counts;
use super::nodes::NodeId;
use super::place::Search;
use super::timeline::{NEVER, Planned};
use super::{Core, StepKey};
use crate::amount::Amount;
use crate::limits::{PLAN_ROUNDS_MAX, PLAN_SCANS_MAX, PLANS_MAX};
use std::cmp::Reverse;
use std::collections::BTreeSet;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// Where; nowhere yet while nobody knows when there are licenses for it.
    pub nodes: BTreeSet<NodeId>,
    /// When at the latest, if work ends as told; absent: nobody knows.
    pub at_ms: Option<u64>,
    /// What is kept for it of licenses.
    pub licenses: Counts,
    /// Smaller was planned before.
    pub order: u64,
}

/// What a plan is made for.
struct Wanted<'a> {
    search: Search<'a>,
    nodes: usize,
    licenses: Counts,
    /// [`NEVER`]: not told.
    span_ms: u64,
}

impl Core {
    /// Plans a demand's start, if there are nodes for it.
    pub(super) fn plan_start(&mut self, key: StepKey) {
        if self.plans.contains_key(&key) || self.plans.len() >= PLANS_MAX || self.plan_scans >= PLAN_SCANS_MAX
        {
            return;
        }
        // Room is being made for it.
        if self.is_promised(key) {
            return;
        }
        let order = self.next_plan;
        if let Some(plan) = self.planned_from_scratch(key, order) {
            self.next_plan += 1;
            self.put_plan(key, plan);
        }
    }

    /// When and where it is to start, if there are nodes and licenses for it.
    fn planned_from_scratch(&mut self, key: StepKey, order: u64) -> Option<Plan> {
        let entry = self.demands.get(key)?;
        let shape = self.demands.shape(entry.shape).shape.clone();
        let search = self.search(key, &shape)?;
        let pool = self.nodes.pool(search.pool);
        if entry.unplannable_at == Some(pool.changes) {
            return None;
        }
        self.plan_scans += 1;
        let licenses = self.licenses_of(&shape);
        if licenses.iter().any(|&(id, count)| count > self.licenses.get(id).total) {
            return None;
        }
        let wanted = Wanted { search, nodes: shape.nodes_wanted(), licenses, span_ms: self.span_ms(key) };
        let mut could: Vec<NodeId> = pool
            .members
            .iter()
            .copied()
            .filter(|&id| {
                let node = self.nodes.get(id);
                self.nodes.could_hold(id, &shape, search.unit)
                    && (search.may_use_avoided || !shape.avoids(&node.name))
            })
            .collect();
        if could.len() < wanted.nodes {
            world::mark!("scheduler.plan.too_few_could");
            let changes = pool.changes;
            let entry = self.demands.get_mut(key).expect("it was there above");
            entry.unplannable_at = Some(changes);
            return None;
        }
        if shape.exclusive {
            // What its tenant has goes on meanwhile, for all that is known.
            let allowed = self.tenants.room(key.tenant);
            could.retain(|&id| self.nodes.get(id).capacity.fits_in(allowed));
            if could.len() < wanted.nodes {
                return None;
            }
        }
        let size = pool.members.len();
        if let Some((at_ms, nodes)) = self.earliest(&could, &wanted) {
            world::mark!("scheduler.plan.instant_known");
            return Some(Plan { nodes, at_ms: Some(at_ms), licenses: wanted.licenses, order });
        }
        // Each that is kept something of for an unknown time has it alone: who waited for
        // one another would do so for ever.
        if !self.are_clear_for(&wanted.licenses, key) {
            return None;
        }
        let nodes = match self.licenses_from(&wanted, self.now.wall_ms) {
            Some(_) => {
                let nodes = self.keep(&could, &wanted, size)?;
                world::mark!("scheduler.plan.nodes_held_back");
                nodes
            }
            // Nodes are of more use to others until there are licenses.
            None => {
                world::mark!("scheduler.plan.licenses_held_back");
                BTreeSet::new()
            }
        };
        Some(Plan { nodes, at_ms: None, licenses: wanted.licenses, order })
    }

    fn licenses_from(&self, wanted: &Wanted<'_>, from_ms: u64) -> Option<u64> {
        self.licensed_from(&wanted.licenses, from_ms, wanted.span_ms, wanted.search.key)
    }

    /// Nodes that are kept as they are, since nobody knows when they have room.
    /// The first such plan may keep any number; all together leave half.
    fn keep(&self, could: &[NodeId], wanted: &Wanted<'_>, size: usize) -> Option<BTreeSet<NodeId>> {
        let kept = self.plans.values().filter(|plan| plan.at_ms.is_none()).map(|plan| plan.nodes.len());
        let kept: usize = kept.sum();
        if kept > 0 && (kept + wanted.nodes) * 2 > size {
            world::mark!("scheduler.plan.half_is_left");
            return None;
        }
        let clear = could.iter().filter(|&&id| self.nodes.get(id).line.is_clear_for(wanted.search.key));
        let mut clear: Vec<_> = clear.map(|&id| (Reverse(self.nodes.get(id).free()), id)).collect();
        clear.sort_unstable();
        let nodes: BTreeSet<NodeId> = clear.into_iter().take(wanted.nodes).map(|(_, id)| id).collect();
        (nodes.len() == wanted.nodes).then_some(nodes)
    }

    /// The first instant at which enough of these nodes have room long enough, and there are
    /// licenses, as far as is told, and which nodes.
    fn earliest(&self, could: &[NodeId], wanted: &Wanted<'_>) -> Option<(u64, BTreeSet<NodeId>)> {
        let Search { key, .. } = wanted.search;
        let now_ms = self.now.wall_ms;
        let mut from_ms = now_ms;
        for _ in 0..PLAN_ROUNDS_MAX {
            from_ms = self.licenses_from(wanted, from_ms)?;
            let starts = could.iter().filter_map(|&id| {
                let node = self.nodes.get(id);
                let need = (wanted.search.need(node), wanted.span_ms);
                Some((node.line.earliest(node.capacity, now_ms, from_ms, need, key)?, id))
            });
            let mut starts: Vec<(u64, NodeId)> = starts.collect();
            starts.sort_unstable();
            // Before this instant fewer have room.
            let at_ms = starts.get(wanted.nodes - 1)?.0;
            let licensed_ms = self.licenses_from(wanted, at_ms)?;
            if licensed_ms > at_ms {
                from_ms = licensed_ms;
                continue;
            }
            let until_ms = at_ms.saturating_add(wanted.span_ms);
            let fits = |id: NodeId| {
                let node = self.nodes.get(id);
                wanted.search.need(node).fits_in(node.line.room(
                    node.capacity,
                    now_ms,
                    (at_ms, until_ms),
                    key,
                ))
            };
            let so_far = starts.into_iter().take_while(|(start_ms, _)| *start_ms <= at_ms);
            let nodes: BTreeSet<NodeId> =
                so_far.filter(|&(_, id)| fits(id)).take(wanted.nodes).map(|(_, id)| id).collect();
            if nodes.len() == wanted.nodes {
                return Some((at_ms, nodes));
            }
            // Others planned for some of those that had room before.
            from_ms = at_ms + 1;
        }
        None
    }

    fn put_plan(&mut self, key: StepKey, plan: Plan) {
        let Some(entry) = self.demands.get(key) else { return };
        let shape = &self.demands.shape(entry.shape).shape;
        let unit = if shape.exclusive { Amount::ALL } else { shape.unit() };
        let span_ms = self.span_ms(key);
        let from_ms = plan.at_ms.unwrap_or(0);
        let until_ms = plan.at_ms.map_or(NEVER, |at_ms| at_ms.saturating_add(span_ms));
        for &id in &plan.nodes {
            self.nodes.line_mut(id).plan(Planned { owner: key, from_ms, until_ms, unit });
        }
        self.licenses.plan(&plan.licenses, key, (from_ms, until_ms));
        self.plans.insert(key, plan);
    }

    /// Gives the nodes back to all.
    pub(super) fn drop_plan(&mut self, key: StepKey) {
        let Some(plan) = self.plans.remove(&key) else { return };
        for id in plan.nodes {
            self.nodes.line_mut(id).unplan(key);
            self.nodes.note_freed(id);
        }
        self.licenses.unplan(&plan.licenses, key);
    }

    /// Drops what no longer makes sense: the demand left the queue, or one of its
    /// nodes can no longer hold it. Where one of the same shape has come to stand
    /// before it, the plan is for that one. What is left is told its instant anew,
    /// in the order in which it was planned: work may have ended early, or late.
    pub(super) fn review_plans(&mut self) {
        let mut planned: Vec<(u64, StepKey)> = self.plans.iter().map(|(&key, p)| (p.order, key)).collect();
        planned.sort_unstable();
        for (_, key) in planned {
            if !self.plans.contains_key(&key) {
                continue;
            }
            match self.rightful(key) {
                Some(first) if first == key => self.plan_again(key),
                Some(first) if !self.plans.contains_key(&first) => {
                    world::mark!("scheduler.plan.handed_on");
                    let plan = self.plans.remove(&key).expect("it was there above");
                    plan.nodes.iter().for_each(|&id| _ = self.nodes.line_mut(id).unplan(key));
                    self.licenses.unplan(&plan.licenses, key);
                    self.put_plan(first, plan);
                    self.plan_again(first);
                }
                _ => {
                    world::mark!("scheduler.plan.given_up");
                    self.drop_plan(key);
                }
            }
        }
    }

    /// The same nodes; the instant as it is told now.
    fn plan_again(&mut self, key: StepKey) {
        let (Some(plan), Some(entry)) = (self.plans.get(&key), self.demands.get(key)) else { return };
        let shape = self.demands.shape(entry.shape).shape.clone();
        let Some(search) = self.search(key, &shape) else { return };
        let (licenses, span_ms) = (plan.licenses.clone(), self.span_ms(key));
        let nodes: Vec<NodeId> = plan.nodes.iter().copied().collect();
        let wanted = Wanted { search, nodes: nodes.len(), licenses, span_ms };
        let is_licensed = self.licenses_from(&wanted, self.now.wall_ms).is_some();
        if nodes.is_empty() == is_licensed {
            // Now it is known when there are licenses and the nodes are to be found, or no more.
            self.plan_anew(key, plan.order);
            return;
        }
        if nodes.is_empty() {
            return;
        }
        let (before, at_ms) = (plan.at_ms, self.earliest(&nodes, &wanted).map(|(at_ms, _)| at_ms));
        if before == at_ms {
            return;
        }
        let plan = Plan { at_ms, ..plan.clone() };
        // It had to wait longer than was told, and can start: the instant is now, whenever one
        // looks. Who is planned for behind it is so behind an end that is counted from now: else
        // it would run into that, and wait for whom waits for it.
        if before.map(|before_ms| before_ms.max(self.now.wall_ms)) == at_ms {
            world::mark!("scheduler.plan.overdue");
            self.put_plan(key, plan);
            return;
        }
        if at_ms.is_none() && !self.keeps_alone(key, &plan) {
            world::mark!("scheduler.plan.given_up");
            self.drop_plan(key);
            return;
        }
        self.put_plan(key, plan);
        // Unknown counts as now: nothing is less in the way of others.
        if at_ms.unwrap_or(0) > before.unwrap_or(0) {
            if before.is_some() {
                world::mark!("scheduler.plan.put_off");
            }
            nodes.iter().for_each(|&id| self.nodes.note_freed(id));
        }
    }

    /// Other nodes than were planned, in the same place of the order. What is planned of
    /// licenses goes on meanwhile.
    fn plan_anew(&mut self, key: StepKey, order: u64) {
        if self.plan_scans >= PLAN_SCANS_MAX {
            return;
        }
        world::mark!("scheduler.plan.anew");
        let plan = self.planned_from_scratch(key, order);
        self.drop_plan(key);
        if let Some(plan) = plan {
            self.put_plan(key, plan);
        }
    }

    /// Nobody knows any more when it starts, so its nodes are kept from now on. Of all
    /// that is planned there only what was planned first stays: each would wait for
    /// the others, for ever.
    fn keeps_alone(&mut self, key: StepKey, plan: &Plan) -> bool {
        let there = plan.nodes.iter().flat_map(|&id| self.nodes.get(id).line.planned());
        let with = plan.licenses.iter().flat_map(|&(id, _)| self.licenses.get(id).line.planned());
        let there = there.chain(with);
        let others: BTreeSet<StepKey> = there.map(|planned| planned.owner).filter(|&o| o != key).collect();
        if others.iter().any(|other| self.plans[other].order < plan.order) {
            return false;
        }
        others.into_iter().for_each(|other| self.drop_plan(other));
        true
    }

    /// For whom what is planned should be planned.
    fn rightful(&self, key: StepKey) -> Option<StepKey> {
        let entry = self.demands.get(key).filter(|entry| entry.place.is_some())?;
        let tenant = self.tenants.get(key.tenant);
        tenant.row.as_ref()?;
        let shape = &self.demands.shape(entry.shape).shape;
        let (Plan { nodes, licenses, .. }, unit) = (&self.plans[&key], shape.unit());
        let fits = (nodes.is_empty() || shape.nodes_wanted() == nodes.len())
            && *licenses == self.licenses_of(shape)
            && licenses.iter().all(|&(id, count)| count <= self.licenses.get(id).total)
            && nodes.iter().all(|&id| self.nodes.could_hold(id, shape, unit));
        let first = tenant.queue.first_of(entry.shape).filter(|_| fits)?;
        Some(Self::key_at(key.tenant, first))
    }

    /// How long a grant of it holds its nodes at most, as far as told; [`NEVER`]: it
    /// is not.
    pub(super) fn span_ms(&self, key: StepKey) -> u64 {
        let Some(entry) = self.demands.get(key).filter(|entry| entry.bound_ms > 0) else { return NEVER };
        let gang = self.demands.shape(entry.shape).shape.gang.is_some();
        // Tasks of an array follow one another while the grant is fed.
        let feeding_ms = if gang { 0 } else { self.config.quantum_ms };
        entry.bound_ms.saturating_add(feeding_ms).saturating_add(self.config.slack_ms)
    }
}
