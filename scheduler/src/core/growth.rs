//! How many further nodes what queues would fill: for pools that grow by need.
//!
//! An estimate, made anew at each look: it counts what no node has room for now, each slot by
//! the part of a new node that it takes, and of a tenant no more than its limits let it have.

use super::Core;
use super::shape::{Shape, ShapeId};
use crate::limits::GROWTH_DEMANDS_MAX;
use proto::v1::NodeRow;
use std::collections::BTreeMap;
use std::ops::ControlFlow;

/// A pool that may grow.
#[derive(Clone, Debug, PartialEq)]
pub struct Growing {
    /// What each further node is: its pool, labels and capacity count.
    pub node: NodeRow,
    /// By how many nodes it may grow yet.
    pub room: u64,
}

/// What a pool is to grow by.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    /// Millionths of nodes.
    parts: u64,
    whole: u64,
}

impl Sum {
    fn nodes(self) -> u64 {
        self.parts.div_ceil(1_000_000).saturating_add(self.whole)
    }
}

impl Core {
    /// For each of these pools, how many further nodes would be of use now. What names no
    /// pool counts for the first of them that could hold it and may grow.
    #[must_use]
    pub fn growth(&self, pools: &[Growing]) -> Vec<u64> {
        let mut sums = vec![Sum::default(); pools.len()];
        // Of each shape, how many nodes have room for a unit of it, as far as that matters.
        let mut free: BTreeMap<ShapeId, usize> = BTreeMap::new();
        let mut looked = 0;
        for &id in &self.tenants.waiting {
            let tenant = self.tenants.get(id);
            let mut room = tenant.ceiling.room(tenant.held);
            for (shape_id, first, _) in tenant.queue.shapes() {
                let shape = &*self.demands.shape(shape_id).shape;
                let Some(at) = goes_to(shape, pools, &sums) else { continue };
                let free = free.entry(shape_id).or_insert_with(|| self.nodes_with_room(shape));
                if *free >= shape.nodes_wanted() {
                    continue;
                }
                let (mut slots, mut next) = (0_u64, Some(first));
                while let Some(place) = next.filter(|_| looked < GROWTH_DEMANDS_MAX) {
                    looked += 1;
                    let entry = self.demands.get(Self::key_at(id, place));
                    slots = slots.saturating_add(entry.map_or(0, |entry| entry.wanted(shape.gang.is_some())));
                    next = tenant.queue.next_of(shape_id, place);
                }
                let least = match shape.exclusive {
                    true => capacity(&pools[at]).times(shape.nodes_wanted() as u64),
                    false => shape.least(),
                };
                // More nodes bring no licenses.
                let slots = slots.min(least.count_in(room)).min(self.licensed_units(shape));
                room = room.minus(least.times(slots));
                let sum = &mut sums[at];
                if shape.gang.is_some() || shape.exclusive {
                    let nodes = slots.saturating_mul(shape.nodes_wanted() as u64);
                    // The first of them takes those that are free already.
                    sum.whole = sum.whole.saturating_add(nodes.saturating_sub(std::mem::take(free) as u64));
                } else {
                    let here = shape.unit().count_in(capacity(&pools[at])).max(1);
                    sum.parts = sum.parts.saturating_add(slots.saturating_mul(1_000_000).div_ceil(here));
                }
            }
        }
        sums.into_iter().map(Sum::nodes).collect()
    }

    /// How many nodes have room for a unit of it: as many as it wants at most.
    fn nodes_with_room(&self, shape: &Shape) -> usize {
        let (mut found, unit) = (0, shape.unit());
        let moving = self.nodes.iter().filter(|(_, node)| node.is_open() && !node.is_settled());
        for (id, node) in moving {
            found += usize::from(self.nodes.could_hold(id, shape, unit) && node.has_room_for(shape));
        }
        let Some(pool) = self.nodes.pool_id(&shape.pool).filter(|_| found < shape.nodes_wanted()) else {
            return found;
        };
        self.nodes.walk(pool, unit, |id| {
            let has_room = self.nodes.get(id).has_room_for(shape);
            found += usize::from(has_room && self.nodes.could_hold(id, shape, unit));
            if found < shape.nodes_wanted() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        found
    }
}

fn capacity(pool: &Growing) -> crate::Amount {
    crate::Amount::of(pool.node.capacity.as_ref())
}

/// The pool whose further nodes would hold a unit of it.
fn goes_to(shape: &Shape, pools: &[Growing], sums: &[Sum]) -> Option<usize> {
    let able = |pool: &Growing| {
        (shape.pool.is_empty() || shape.pool == pool.node.pool)
            && shape.label_missed(&pool.node).is_none()
            && shape.unit().fits_in(capacity(pool))
    };
    let mut able = pools.iter().enumerate().filter(|(_, pool)| able(pool)).map(|(at, _)| at);
    let first = able.next()?;
    Some([first].into_iter().chain(able).find(|&at| sums[at].nodes() < pools[at].room).unwrap_or(first))
}
