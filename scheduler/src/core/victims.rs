//! Which work gives way to a demand that cannot start.
//!
//! What must hold: with all that is chosen gone the demand can start, and with any of it
//! left out it cannot; where less important work is enough nothing more important is
//! chosen. Where nothing is enough nothing is chosen. A gang goes as a whole, of an array
//! single tasks.
//!
//! Of its own tenant any work of lower priority may give way: what the tenant holds stays
//! the same. Of others only while they hold more, for their weight, than the demand's tenant
//! will: priorities are every tenant's own word, so between tenants they decide nothing but
//! which work of one that has too much goes first. Since what is equal after that may not
//! be turned round, nobody takes back what was taken.

use super::nodes::NodeId;
use super::place::Search;
use super::preempt::Unit;
use super::tenants::TenantId;
use super::{Core, StepKey, fair};
use crate::amount::Amount;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// What gives way, and where the demand starts then.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Indexes of units.
    pub units: BTreeSet<usize>,
    /// Slots on each node.
    pub starts: BTreeMap<NodeId, u32>,
}

/// A node that would have room: the priority of the most important that goes there, what is
/// lost, how many go, which node, and which. Smaller is chosen first.
type Open = (Option<i32>, u64, usize, NodeId, Vec<usize>);

/// The cluster as it would be with some of it gone.
struct Trial<'a> {
    core: &'a Core,
    search: &'a Search<'a>,
    units: &'a [Unit],
    gone: BTreeSet<usize>,
    /// What of each node would be free then, and when it ends.
    freed: BTreeMap<NodeId, Vec<(Amount, u64)>>,
    /// Slots of the demand that are to start there.
    taken: BTreeMap<NodeId, u64>,
}

impl Trial<'_> {
    fn add(&mut self, unit: usize) {
        if self.gone.insert(unit) {
            for &(node, amount) in &self.units[unit].on {
                self.freed.entry(node).or_default().push((amount, self.units[unit].ends_by_ms));
            }
        }
    }

    fn take_back(&mut self, unit: usize) {
        self.gone.remove(&unit);
        for &(node, amount) in &self.units[unit].on {
            let freed = self.freed.get_mut(&node).expect("it was freed when it was added");
            let is_it = |freed: &(Amount, u64)| *freed == (amount, self.units[unit].ends_by_ms);
            let at = freed.iter().position(is_it).expect("it was freed when it was added");
            freed.swap_remove(at);
        }
    }

    /// A further slot, or the part of a gang, has room on this node, were this gone too.
    fn fits_with(&self, id: NodeId, more: &[(Amount, u64)]) -> bool {
        let (node, search) = (self.core.nodes.get(id), self.search);
        let wanted = search.unit.times(self.taken.get(&id).copied().unwrap_or(0) + 1);
        let freed = self.freed.get(&id).into_iter().flatten().chain(more);
        let sum = freed.clone().fold(node.free(), |sum, (amount, _)| sum.plus(*amount));
        if !wanted.fits_in(sum) {
            return false;
        }
        let mut line = node.line.clone();
        freed.for_each(|&(amount, ends_by_ms)| line.suppose_released(amount, ends_by_ms));
        let now_ms = self.core.now.wall_ms;
        wanted.fits_in(line.room(node.capacity, now_ms, (now_ms, search.until_ms), search.key))
    }

    fn fits(&self, id: NodeId) -> bool {
        self.fits_with(id, &[])
    }
}

impl Core {
    /// See the module. `units` are what is of lower priority and may give way at all;
    /// `slots` is how many the demand wants, where it is no gang.
    pub(super) fn choose_victims(
        &self,
        search: &Search<'_>,
        units: &[Unit],
        slots: u64,
        may_reclaim: bool,
    ) -> Option<Found> {
        let mut spared: BTreeSet<TenantId> = BTreeSet::new();
        if !may_reclaim {
            spared.extend(units.iter().map(|unit| unit.grant.0).filter(|&id| id != search.key.tenant));
        }
        loop {
            let found = self.choose_among(search, units, slots, &spared)?;
            // Each turn spares one tenant more.
            match self.too_poor(search, units, &found) {
                Some(tenant) => {
                    world::mark!("scheduler.preempt.tenant_is_spared");
                    spared.insert(tenant);
                }
                None => return Some(found),
            }
        }
    }

    fn choose_among(
        &self,
        search: &Search<'_>,
        units: &[Unit],
        slots: u64,
        spared: &BTreeSet<TenantId>,
    ) -> Option<Found> {
        let mut by_node: BTreeMap<NodeId, Vec<usize>> = BTreeMap::new();
        for (at, unit) in units.iter().enumerate().filter(|(_, unit)| !spared.contains(&unit.grant.0)) {
            unit.on.iter().for_each(|&(node, _)| by_node.entry(node).or_default().push(at));
        }
        for here in by_node.values_mut() {
            here.sort_by_key(|&at| units[at].worth());
        }
        let (gone, freed, taken) = Default::default();
        let mut trial = Trial { core: self, search, units, gone, freed, taken };
        let mut found = Found::default();
        let gang = search.shape.gang.map(|gang| gang.tasks_per_node);
        for _ in 0..slots.max(1) {
            let Some(nodes) = self.choose_nodes(&mut trial, &by_node) else { break };
            for node in nodes {
                *trial.taken.entry(node).or_default() += 1;
                *found.starts.entry(node).or_default() += gang.unwrap_or(1);
            }
        }
        found.units = trial.gone;
        (!found.units.is_empty()).then_some(found)
    }

    /// As many nodes as a slot or the gang wants, and what gives way there.
    fn choose_nodes(
        &self,
        trial: &mut Trial<'_>,
        by_node: &BTreeMap<NodeId, Vec<usize>>,
    ) -> Option<Vec<NodeId>> {
        let (search, units) = (trial.search, trial.units);
        let wanted = search.shape.nodes_wanted();
        let could = self.nodes.pool(search.pool).members.iter().copied().filter(|&id| {
            self.nodes.could_hold(id, search.shape, search.unit)
                && (search.may_use_avoided || !search.shape.avoids(&self.nodes.get(id).name))
        });
        let mut open: Vec<Open> = Vec::new();
        for id in could {
            if trial.fits(id) {
                open.push((None, 0, 0, id, Vec::new()));
                continue;
            }
            let (mut more, mut going, mut lost_ms) = (Vec::new(), Vec::new(), 0_u64);
            for &at in by_node.get(&id).into_iter().flatten().filter(|at| !trial.gone.contains(at)) {
                let here = units[at].on.iter().filter(|(node, _)| *node == id);
                more.extend(here.map(|&(_, amount)| (amount, units[at].ends_by_ms)));
                going.push(at);
                lost_ms = lost_ms.saturating_add(self.now.wall_ms.saturating_sub(units[at].since_ms));
                if trial.fits_with(id, &more) {
                    open.push((Some(units[at].priority), lost_ms, going.len(), id, going));
                    break;
                }
            }
        }
        open.sort_unstable();
        if open.len() < wanted {
            return None;
        }
        open.truncate(wanted);
        let mut nodes: BTreeSet<NodeId> = open.iter().map(|(_, _, _, id, _)| *id).collect();
        let mut going: Vec<usize> = open.into_iter().flat_map(|(.., going)| going).collect();
        going.sort_unstable();
        going.dedup();
        for &at in &going {
            trial.add(at);
            // A gang makes room on all its nodes.
            nodes.extend(units[at].on.iter().map(|&(node, _)| node).filter(|&id| {
                self.nodes.could_hold(id, search.shape, search.unit)
                    && (search.may_use_avoided || !search.shape.avoids(&self.nodes.get(id).name))
            }));
        }
        // What matters most stays, if the rest is enough.
        going.sort_by_key(|&at| Reverse(units[at].worth()));
        for at in going {
            trial.take_back(at);
            if nodes.iter().filter(|&&id| trial.fits(id)).take(wanted).count() < wanted {
                trial.add(at);
            }
        }
        let mut nodes: Vec<NodeId> = nodes.into_iter().filter(|&id| trial.fits(id)).collect();
        // Where something goes first: there it is for this demand.
        nodes.sort_by_key(|id| (trial.freed.get(id).is_none_or(Vec::is_empty), *id));
        nodes.truncate(wanted);
        Some(nodes)
    }

    /// A tenant that would hold less than the demand's, each for its weight, after this.
    fn too_poor(&self, search: &Search<'_>, units: &[Unit], found: &Found) -> Option<TenantId> {
        let path: Vec<TenantId> = self.tenants.path(search.key.tenant);
        let slots: u64 = found.starts.values().map(|&slots| u64::from(slots)).sum();
        let gained = search.shape.per_slot.times(slots);
        let below = |id: TenantId| {
            let goes = found.units.iter().map(|&at| &units[at]);
            let goes = goes.filter(|unit| self.tenants.path(unit.grant.0).contains(&id));
            goes.flat_map(|unit| &unit.on).fold(Amount::default(), |sum, (_, amount)| sum.plus(*amount))
        };
        let others: BTreeSet<TenantId> =
            found.units.iter().map(|&at| units[at].grant.0).filter(|&id| id != search.key.tenant).collect();
        others.into_iter().find(|&other| {
            // Side by side, just below the group that both are in.
            let theirs = self.tenants.path(other);
            let shared = path.iter().rev().zip(theirs.iter().rev()).take_while(|(a, b)| a == b).count();
            let (Some(&ours), Some(&their)) =
                (path.iter().rev().nth(shared), theirs.iter().rev().nth(shared))
            else {
                return true;
            };
            let held = |id: TenantId| self.tenants.get(id).held;
            let after = held(ours).plus(gained).minus(below(ours));
            self.for_its_weight(their, held(their).minus(below(their))) < self.for_its_weight(ours, after)
        })
    }

    fn for_its_weight(&self, id: TenantId, held: Amount) -> u128 {
        fair::share(held, self.nodes.capacity) * u128::from(fair::WEIGHT) / u128::from(self.weight_of(id))
    }
}

impl Unit {
    /// Smaller gives way first: lower priority, then less lost, then what was granted later.
    pub(super) fn worth(&self) -> (i32, Reverse<u64>, Reverse<(u64, u64)>, TenantId) {
        let (tenant, epoch) = self.grant;
        (self.priority, Reverse(self.since_ms), Reverse((epoch, self.task)), tenant)
    }
}

/// Names a demand and how it may be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanting {
    pub key: StepKey,
    /// No other tenant's turn comes before.
    pub may_reclaim: bool,
}
