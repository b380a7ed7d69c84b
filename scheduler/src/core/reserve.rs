//! Holding nodes back for what needs much at once.
//!
//! Small work would starve a gang: as soon as a node has room, something small
//! takes it. So when the first of a queue is wide (a gang, or a large part of a
//! node) and has been blocked for a while, the nodes it will start on are
//! chosen, and nothing else is placed there until it starts or goes away.
//! What must hold: a node is held back for at most one demand, and from one pass
//! to the next that demand is one a pass looks at: the first of its shape in a
//! queue. Held back for one behind it, the nodes would be kept from both.

use super::nodes::NodeId;
use super::{Core, StepKey};
use crate::amount::Amount;
use crate::limits::{RESERVATIONS_MAX, RESERVE_SCANS_MAX};
use std::cmp::Reverse;
use std::collections::BTreeSet;

impl Core {
    /// Holds nodes back for a demand, if it is wide and there are such nodes.
    pub(super) fn reserve(&mut self, key: StepKey) {
        if self.reservations.contains_key(&key)
            || self.reservations.len() >= RESERVATIONS_MAX
            || self.reserve_scans >= RESERVE_SCANS_MAX
        {
            return;
        }
        let Some(entry) = self.demands.get(key) else { return };
        let shape_id = entry.shape;
        let shape = self.demands.shape(shape_id).shape.clone();
        let Some(search) = self.search(key, &shape) else { return };
        let pool = self.nodes.pool(search.pool);
        if entry.unreservable_at == Some(pool.changes) {
            return;
        }
        if shape.gang.is_none() {
            let known = self.demands.shape(shape_id).wide.filter(|wide| wide.0 == pool.changes);
            let wide = known.map_or_else(|| self.is_wide(&pool.members, search.unit), |wide| wide.1);
            self.demands.shape_mut(shape_id).wide = Some((pool.changes, wide));
            if !wide {
                return;
            }
        }
        self.reserve_scans += 1;
        let wanted = shape.nodes_wanted();
        // The first reservation may take any number; all together leave half.
        let reserved: usize = self.reservations.values().map(BTreeSet::len).sum();
        if reserved > 0 && (reserved + wanted) * 2 > pool.members.len() {
            world::mark!("scheduler.reserve.half_is_left");
            return;
        }
        let could: Vec<NodeId> = pool
            .members
            .iter()
            .copied()
            .filter(|&id| {
                self.nodes.could_hold(id, &shape, search.unit)
                    && (search.may_use_avoided || !shape.avoids(&self.nodes.get(id).name))
            })
            .collect();
        if could.len() < wanted {
            world::mark!("scheduler.reserve.too_few_could");
            let changes = pool.changes;
            let entry = self.demands.get_mut(key).expect("it was there above");
            entry.unreservable_at = Some(changes);
            return;
        }
        let mut could: Vec<(Reverse<Amount>, NodeId)> = could
            .into_iter()
            .filter(|&id| self.nodes.get(id).reserved_for.is_none())
            .map(|id| (Reverse(self.nodes.get(id).free()), id))
            .collect();
        if could.len() < wanted {
            return;
        }
        could.sort_unstable();
        let nodes: BTreeSet<NodeId> = could.into_iter().take(wanted).map(|(_, id)| id).collect();
        for &id in &nodes {
            self.nodes.set_reserved(id, Some(key));
        }
        world::mark!("scheduler.reserve.nodes_held_back");
        self.reservations.insert(key, nodes);
    }

    /// Needs more than one part in `wide_divisor` of the largest node.
    fn is_wide(&self, members: &BTreeSet<NodeId>, unit: Amount) -> bool {
        let most = unit.times(self.config.wide_divisor);
        !members.is_empty() && !members.iter().any(|&id| most.fits_in(self.nodes.get(id).capacity))
    }

    /// Gives the nodes back to all.
    pub(super) fn drop_reservation(&mut self, key: StepKey) {
        for id in self.reservations.remove(&key).into_iter().flatten() {
            self.nodes.set_reserved(id, None);
        }
    }

    /// Drops what no longer makes sense: the demand left the queue, or one of
    /// its nodes can no longer hold it. Where one of the same shape has come to
    /// stand before it, the nodes are held back for that one.
    pub(super) fn review_reservations(&mut self) {
        let held_back: Vec<StepKey> = self.reservations.keys().copied().collect();
        for key in held_back {
            match self.rightful(key) {
                Some(first) if first == key => {}
                Some(first) if !self.reservations.contains_key(&first) => {
                    world::mark!("scheduler.reserve.handed_on");
                    let nodes = self.reservations.remove(&key).expect("it was there above");
                    for &id in &nodes {
                        self.nodes.set_reserved(id, Some(first));
                    }
                    self.reservations.insert(first, nodes);
                }
                _ => {
                    world::mark!("scheduler.reserve.given_up");
                    self.drop_reservation(key);
                }
            }
        }
    }

    /// For whom the nodes that are held back for a demand should be held back.
    fn rightful(&self, key: StepKey) -> Option<StepKey> {
        let entry = self.demands.get(key).filter(|entry| entry.place.is_some())?;
        let tenant = self.tenants.get(key.tenant);
        tenant.row.as_ref()?;
        let shape = &self.demands.shape(entry.shape).shape;
        let (nodes, unit) = (&self.reservations[&key], shape.unit());
        let fits = shape.nodes_wanted() == nodes.len()
            && nodes.iter().all(|&id| self.nodes.could_hold(id, shape, unit));
        let first = tenant.queue.first_of(entry.shape).filter(|_| fits)?;
        Some(Self::key_at(key.tenant, first))
    }
}
