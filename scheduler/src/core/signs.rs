//! What operators are warned by: nodes as they are seen, pools that are full while work
//! queues for them, and who has stood first of a queue for how long.

use super::Core;
use super::nodes::Node;
use super::shape::Shape;
use crate::limits::SIGN_SHAPES_MAX;
use crate::signs::{BudgetSign, HeadSign, NodeSign, PoolSign};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use world::clock::Now;

impl Core {
    /// All nodes, by name.
    #[must_use]
    pub fn node_signs(&self) -> Vec<NodeSign> {
        let mut nodes: Vec<NodeSign> = self
            .node_rows()
            .map(|row| NodeSign {
                name: row.name.clone(),
                state: row.state(),
                drained: row.drained,
                session: row.session,
            })
            .collect();
        nodes.sort_by(|a, b| a.name.cmp(&b.name));
        nodes
    }

    /// The pools for which work queues, by name. One is full where none of what is to run
    /// there fits on any of its nodes. What names no pool and fits somewhere waits for
    /// something else than room; what fits nowhere counts in each pool that could hold it,
    /// so far as [`SIGN_SHAPES_MAX`] such are looked at.
    #[must_use]
    pub fn pool_signs(&self) -> Vec<PoolSign> {
        let mut pools: BTreeMap<&str, PoolSign> = BTreeMap::new();
        let mut wants = |name, slots: u64, fits: bool| {
            let pool = pools.entry(name).or_insert_with(|| PoolSign::new(name));
            pool.queued_slots = pool.queued_slots.saturating_add(slots);
            pool.is_full &= !fits;
        };
        let moving = self.nodes.iter().filter(|(_, node)| node.is_open() && !node.is_settled());
        let moving: Vec<&Node> = moving.map(|(_, node)| node).collect();
        let (named, any): (Vec<_>, Vec<_>) = self
            .demands
            .shapes()
            .filter(|state| state.wanted > 0)
            .partition(|state| !state.shape.pool.is_empty());
        for state in named {
            wants(state.shape.pool.as_str(), state.wanted, self.fits_somewhere(&state.shape, &moving));
        }
        let homeless = any.into_iter().filter(|state| !self.fits_somewhere(&state.shape, &moving));
        for state in homeless.take(SIGN_SHAPES_MAX) {
            let could = |id| self.nodes.could_hold(id, &state.shape, state.shape.unit());
            let able = self.nodes.iter().filter(|(id, _)| could(*id));
            let able: BTreeSet<&str> =
                able.filter_map(|(_, node)| Some(node.row.as_ref()?.pool.as_str())).collect();
            able.into_iter().for_each(|pool| wants(pool, state.wanted, false));
        }
        pools.into_values().collect()
    }

    /// A node of its pool has room for one unit of it. Those of `moving`, whose grants are
    /// being written, are not among the ones that are walked over.
    fn fits_somewhere(&self, shape: &Shape, moving: &[&Node]) -> bool {
        let pool = shape.pool.as_str();
        let mut fits = moving.iter().any(|node| {
            let here = pool.is_empty() || node.row.as_ref().is_some_and(|row| row.pool == pool);
            here && node.has_room_for(shape)
        });
        if let Some(pool) = self.nodes.pool_id(pool).filter(|_| !fits) {
            self.nodes.walk(pool, shape.unit(), |id| {
                fits = self.nodes.get(id).has_room_for(shape);
                if fits { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
        }
        fits
    }

    /// For each tenant that has a queue whose first could not start when it was last
    /// looked at: who that is, and for how long.
    #[must_use]
    pub fn head_signs(&self, now: Now) -> Vec<HeadSign> {
        let heads = self.tenants.waiting.iter().filter_map(|&tenant| {
            let (place, _) = self.tenants.get(tenant).queue.head_after(None)?;
            let key = Self::key_at(tenant, place);
            let since_ms = self.demands.get(key)?.blocked_since_ms?;
            Some(HeadSign { step: self.named(key), blocked_ms: now.mono_ms.saturating_sub(since_ms) })
        });
        let mut heads: Vec<HeadSign> = heads.collect();
        heads.sort_by(|a, b| a.step.tenant.cmp(&b.step.tenant));
        heads
    }

    /// The tenants that have a budget, by name.
    #[must_use]
    pub fn budget_signs(&self) -> Vec<BudgetSign> {
        let tenants = self.tenants.iter().filter_map(|(_, tenant)| {
            let month_micros = tenant.row.as_ref()?.budget?.month_micros?;
            Some(BudgetSign { tenant: tenant.name.clone(), month_micros })
        });
        tenants.collect()
    }
}
