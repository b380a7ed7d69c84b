//! Pools as a replay wants them: who holds what on each node, and who waits.

use super::nodes::NodeId;
use super::shape::{Shape, ShapeId};
use super::tenants::{Place, TenantId};
use super::{Core, Held, StepKey};
use crate::amount::Amount;
use crate::eta::{Holder, NodeNow, Profile, Queued};
use crate::limits::{ETA_QUEUE_MAX, ETA_SHAPES_MAX};
use proto::v1::DemandKey;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Where nodes of the view stand in a profile.
type Indexes = BTreeMap<NodeId, usize>;

impl Core {
    /// The pools by name. When what is held ends is left open: it is not told
    /// here.
    #[must_use]
    pub fn profiles(&self) -> BTreeMap<String, Profile> {
        let mut profiles: BTreeMap<String, (Profile, Indexes)> = BTreeMap::new();
        let mut places: BTreeMap<NodeId, (&str, usize)> = BTreeMap::new();
        for (id, node) in self.nodes.iter() {
            let Some(row) = &node.row else { continue };
            let (profile, indexes) = profiles.entry(row.pool.clone()).or_default();
            indexes.insert(id, profile.nodes.len());
            places.insert(id, (&row.pool, profile.nodes.len()));
            profile.nodes.push(NodeNow {
                capacity: node.capacity,
                open: node.is_open(),
                holders: Vec::new(),
            });
        }
        let drafted = self.in_flight.values().flat_map(|flight| &flight.grants).map(|draft| &draft.held);
        for held in self.grants.values().chain(drafted) {
            for (id, part) in held.parts() {
                let Some((pool, at)) = places.get(&id) else { continue };
                let (profile, _) = profiles.get_mut(*pool).expect("its pool was met with it");
                profile.nodes[*at].holders.push(self.holder(held, part.amount));
            }
        }
        for (pool, (profile, indexes)) in &mut profiles {
            self.add_queue(pool, profile, indexes);
        }
        profiles.into_iter().map(|(name, (profile, _))| (name, profile)).collect()
    }

    pub(super) fn named(&self, key: StepKey) -> DemandKey {
        let tenant = self.tenants.get(key.tenant).name.clone();
        DemandKey { tenant, job_number: key.job_number, step: key.step }
    }

    fn holder(&self, held: &Held, amount: Amount) -> Holder {
        Holder {
            step: self.named(held.key),
            amount,
            granted_ms: held.granted_ms,
            feed_until_ms: held.granted_ms.saturating_add(self.config.quantum_ms),
            ends_in_ms: None,
        }
    }

    /// Demands for this pool, in the order of their places whoever they belong to.
    fn add_queue(&self, pool: &str, profile: &mut Profile, indexes: &Indexes) {
        let mut heads: BTreeSet<(Place, TenantId, ShapeId)> = BTreeSet::new();
        let mut waiting = 0;
        for &id in &self.tenants.waiting {
            let tenant = self.tenants.get(id);
            for (shape_id, first, count) in tenant.queue.shapes() {
                let shape = &self.demands.shape(shape_id).shape;
                if !shape.pool.is_empty() && shape.pool != pool {
                    continue;
                }
                // It waits for work of its own tenant or group to end, not for nodes.
                if !self.tenants.shortages(id, shape.least()).is_empty() {
                    profile.at_limit += count;
                    continue;
                }
                waiting += count;
                heads.insert((first, id, shape_id));
            }
        }
        // Nodes do not differ by how long one takes.
        let mut hosts: BTreeMap<Shape, Arc<[usize]>> = BTreeMap::new();
        while profile.queue.len() < ETA_QUEUE_MAX {
            let Some((place, id, shape_id)) = heads.pop_first() else { break };
            let shape = &self.demands.shape(shape_id).shape;
            let asked = Shape { bound_ms: 0, ..shape.as_ref().clone() };
            if hosts.len() == ETA_SHAPES_MAX && !hosts.contains_key(&asked) {
                break;
            }
            if let Some(next) = self.tenants.get(id).queue.next_of(shape_id, place) {
                heads.insert((next, id, shape_id));
            }
            let hosts = hosts.entry(asked).or_insert_with(|| {
                let right = |id: NodeId| self.nodes.could_hold(id, shape, shape.unit());
                indexes.iter().filter(|&(&id, _)| right(id)).map(|(_, &at)| at).collect()
            });
            let key = Self::key_at(id, place);
            let entry = self.demands.get(key).expect("who waits has a demand");
            profile.queue.push(Queued {
                step: self.named(key),
                unit: shape.unit(),
                gang_nodes: shape.gang.map_or(0, |gang| gang.nodes as usize),
                alone: shape.exclusive,
                count: entry.wanted(shape.gang.is_some()),
                runtime_ms: (entry.runtime_ms > 0).then_some(entry.runtime_ms),
                hosts: Arc::clone(hosts),
            });
        }
        profile.queue_unseen = waiting - profile.queue.len();
    }
}
