//! The view of the tenants: limits, what each holds, and its queue. Groups of tenants
//! are among them; they have no queue.
//!
//! What must hold: a demand stands in its tenant's queue exactly while it wants
//! something that it may get now; `held` counts grants and proposals without an
//! outcome, of a group those that name it.

use super::ProposalId;
use super::fair::Past;
use super::shape::ShapeId;
use crate::amount::Amount;
use proto::v1::TenantRow;
use std::collections::{BTreeMap, BTreeSet};
use store::Revision;

/// Index of a tenant in the view.
pub type TenantId = u32;

/// Where a demand stands in its tenant's queue; smaller goes first.
///
/// Every minute of waiting raises a demand by the same amount, so who is ahead
/// of whom never changes while both wait: a point of priority is worth
/// `ageing_ms` of waiting, and the order is that of `queued_ms - priority *
/// ageing_ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// `queued_ms - priority * ageing_ms`.
    pub virtual_ms: i64,
    /// Milliseconds since 1970.
    pub queued_ms: u64,
    /// Of the job.
    pub job_number: u64,
    /// Of the step.
    pub step: u32,
}

/// A tenant's waiting demands, by shape: within a shape only the first can
/// matter to a pass.
#[derive(Debug, Default)]
pub struct Queue {
    by_shape: BTreeMap<ShapeId, BTreeSet<Place>>,
    heads: BTreeSet<(Place, ShapeId)>,
}

impl Queue {
    /// Adds a demand.
    pub fn insert(&mut self, shape: ShapeId, place: Place) {
        let queue = self.by_shape.entry(shape).or_default();
        let old = queue.first().copied();
        queue.insert(place);
        if old.is_none_or(|old| place < old) {
            if let Some(old) = old {
                self.heads.remove(&(old, shape));
            }
            self.heads.insert((place, shape));
        }
    }

    /// Removes a demand.
    pub fn remove(&mut self, shape: ShapeId, place: Place) {
        let Some(queue) = self.by_shape.get_mut(&shape) else { return };
        if !queue.remove(&place) {
            return;
        }
        let new = queue.first().copied();
        if self.heads.remove(&(place, shape))
            && let Some(new) = new
        {
            self.heads.insert((new, shape));
        }
        if new.is_none() {
            self.by_shape.remove(&shape);
        }
    }

    /// The next, in order, of those that are the first of their shape.
    #[must_use]
    pub fn head_after(&self, after: Option<(Place, ShapeId)>) -> Option<(Place, ShapeId)> {
        use std::ops::Bound::{Excluded, Unbounded};
        self.heads.range((after.map_or(Unbounded, Excluded), Unbounded)).next().copied()
    }

    /// Who stands first of a shape.
    #[must_use]
    pub fn first_of(&self, shape: ShapeId) -> Option<Place> {
        self.by_shape.get(&shape).and_then(|queue| queue.first().copied())
    }

    /// Each shape with its first and how many have it.
    pub fn shapes(&self) -> impl Iterator<Item = (ShapeId, Place, usize)> + '_ {
        self.by_shape.iter().filter_map(|(&shape, queue)| Some((shape, *queue.first()?, queue.len())))
    }

    /// Who stands next of a shape.
    #[must_use]
    pub fn next_of(&self, shape: ShapeId, after: Place) -> Option<Place> {
        use std::ops::Bound::{Excluded, Unbounded};
        self.by_shape.get(&shape)?.range((Excluded(after), Unbounded)).next().copied()
    }

    /// Nobody waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.heads.is_empty()
    }

    /// How many stand before this place, counted up to `limit`.
    #[must_use]
    pub fn ahead_of(&self, place: Place, limit: usize) -> usize {
        self.by_shape.values().map(|queue| queue.range(..place).take(limit).count()).sum::<usize>().min(limit)
    }

    /// Everything that waits.
    pub fn iter(&self) -> impl Iterator<Item = (ShapeId, Place)> + '_ {
        self.by_shape.iter().flat_map(|(&shape, queue)| queue.iter().map(move |&place| (shape, place)))
    }

    /// Panics where the heads are not the firsts.
    pub fn check(&self) {
        let firsts: BTreeSet<(Place, ShapeId)> = self
            .by_shape
            .iter()
            .map(|(&shape, queue)| (*queue.first().expect("no shape is kept without a demand"), shape))
            .collect();
        assert_eq!(firsts, self.heads, "the heads of a queue are the first of each shape");
    }
}

/// The limits that count at a grant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ceiling {
    /// Absent: none.
    pub millicores: Option<u64>,
    /// Absent: none.
    pub memory_bytes: Option<u64>,
    /// Absent: none.
    pub gpus: Option<u64>,
}

/// A dimension in which a tenant is at its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shortage {
    /// The tenant whose limit it is, or a group that it is in.
    pub of: TenantId,
    /// As people name it.
    pub dimension: &'static str,
    /// Held now.
    pub held: u64,
    /// Needed to start.
    pub need: u64,
    /// The limit.
    pub limit: u64,
}

impl Ceiling {
    /// What a tenant's row says.
    #[must_use]
    pub fn of(row: &TenantRow) -> Ceiling {
        row.quota.as_ref().map_or(Ceiling::default(), |q| Ceiling {
            millicores: q.millicores,
            memory_bytes: q.memory_bytes,
            gpus: q.gpus,
        })
    }

    /// What may still be granted on top of `held`.
    #[must_use]
    pub fn room(&self, held: Amount) -> Amount {
        let room = |limit: Option<u64>, held: u64| limit.map_or(u64::MAX, |limit| limit.saturating_sub(held));
        Amount {
            millicores: room(self.millicores, held.millicores),
            memory_bytes: room(self.memory_bytes, held.memory_bytes),
            gpus: room(self.gpus, held.gpus),
        }
    }

    /// The dimensions that keep `need` from being granted on top of `held`.
    fn shortages(&self, of: TenantId, held: Amount, need: Amount) -> impl Iterator<Item = Shortage> + use<> {
        [
            ("cores", self.millicores, held.millicores, need.millicores),
            ("memory", self.memory_bytes, held.memory_bytes, need.memory_bytes),
            ("gpus", self.gpus, held.gpus, need.gpus),
        ]
        .into_iter()
        .filter_map(move |(dimension, limit, held, need)| {
            let limit = limit?;
            (need > 0 && held.saturating_add(need) > limit).then_some(Shortage {
                of,
                dimension,
                held,
                need,
                limit,
            })
        })
    }
}

/// One tenant as seen.
#[derive(Debug, Default)]
pub struct Tenant {
    /// Its name.
    pub name: String,
    /// Absent: no row seen (yet, or any more). Nothing is granted then.
    pub row: Option<TenantRow>,
    /// The group that it is in, from the row.
    pub parent: Option<TenantId>,
    /// From the row.
    pub ceiling: Ceiling,
    /// By grants and by proposals without an outcome.
    pub held: Amount,
    /// Of what it held.
    pub past: Past,
    /// Version of its alloc row as far as known; 0: there is none.
    pub version: Revision,
    /// The highest epoch granted as far as known.
    pub epoch: u64,
    /// A conflict showed this version: nothing is proposed before it is seen.
    pub stale_below: Revision,
    /// A proposal that touches its alloc row has no outcome yet.
    pub in_flight: Option<ProposalId>,
    /// When it last got something, in turns of the whole scheduler.
    pub last_turn: u64,
    /// Conflicts in a row.
    pub conflicts: u32,
    /// Monotonic; nothing is proposed before.
    pub backoff_until_ms: u64,
    /// Who waits.
    pub queue: Queue,
}

impl Tenant {
    /// Neither waiting for an outcome nor for news.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.in_flight.is_none() && self.version >= self.stale_below
    }
}

/// All tenants.
#[derive(Debug, Default)]
pub struct Tenants {
    list: Vec<Tenant>,
    by_name: BTreeMap<String, TenantId>,
    /// Those with somebody in their queue.
    pub waiting: BTreeSet<TenantId>,
}

impl Tenants {
    /// The tenant of this id.
    #[must_use]
    pub fn get(&self, id: TenantId) -> &Tenant {
        &self.list[id as usize]
    }

    /// The tenant of this id.
    pub fn get_mut(&mut self, id: TenantId) -> &mut Tenant {
        &mut self.list[id as usize]
    }

    /// A tenant and the groups that it is in, from it up.
    #[must_use]
    pub fn path(&self, id: TenantId) -> Vec<TenantId> {
        let mut path = vec![id];
        let mut next = self.get(id).parent;
        // Rows are written so that they make no ring.
        while let Some(group) = next.filter(|group| !path.contains(group)) {
            path.push(group);
            next = self.get(group).parent;
        }
        path
    }

    /// What keeps `need` from a tenant: limits of its own, or of groups that it is in.
    #[must_use]
    pub fn shortages(&self, id: TenantId, need: Amount) -> Vec<Shortage> {
        let path = self.path(id).into_iter().map(|id| (id, self.get(id)));
        path.flat_map(|(id, tenant)| tenant.ceiling.shortages(id, tenant.held, need)).collect()
    }

    /// What may still be granted to a tenant.
    #[must_use]
    pub fn room(&self, id: TenantId) -> Amount {
        let rooms = self.path(id).into_iter().map(|id| self.get(id).ceiling.room(self.get(id).held));
        rooms.reduce(Amount::min_each).expect("a path has the tenant itself")
    }

    /// The id of a name, if it is known.
    #[must_use]
    pub fn id(&self, name: &str) -> Option<TenantId> {
        self.by_name.get(name).copied()
    }

    /// All by name.
    pub fn iter(&self) -> impl Iterator<Item = (TenantId, &Tenant)> {
        self.by_name.values().map(|&id| (id, self.get(id)))
    }

    /// The id of a name, known from now on.
    pub fn intern(&mut self, name: &str) -> TenantId {
        if let Some(&id) = self.by_name.get(name) {
            return id;
        }
        let id = TenantId::try_from(self.list.len()).expect("fewer tenants than 2^32");
        self.list.push(Tenant { name: name.to_owned(), ..Tenant::default() });
        self.by_name.insert(name.to_owned(), id);
        id
    }

    /// Puts a demand in its tenant's queue.
    pub fn enqueue(&mut self, id: TenantId, shape: ShapeId, place: Place) {
        self.get_mut(id).queue.insert(shape, place);
        self.waiting.insert(id);
    }

    /// Takes a demand out of it.
    pub fn dequeue(&mut self, id: TenantId, shape: ShapeId, place: Place) {
        let tenant = self.get_mut(id);
        tenant.queue.remove(shape, place);
        if tenant.queue.is_empty() {
            self.waiting.remove(&id);
        }
    }
}
