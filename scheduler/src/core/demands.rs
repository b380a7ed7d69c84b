//! What steps want, as their controllers told it, less what was granted since.
//!
//! What must hold: slots that were proposed or granted, but which the
//! controller had not counted yet when it last spoke, are not granted again;
//! they lapse after a while, so that a lost word can only delay.

use super::StepKey;
use super::nodes::PoolId;
use super::shape::{self, Shape, ShapeId};
use super::tenants::Place;
use proto::v1::Demand;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Granted, but perhaps not counted by the controller yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outstanding {
    /// The grant's.
    pub epoch: u64,
    /// Slots; 1 for a whole gang.
    pub slots: u64,
    /// Monotonic: when it was proposed or seen.
    pub since_ms: u64,
    /// Monotonic; `u64::MAX` while the proposal has no outcome.
    pub lapses_ms: u64,
}

/// One step's demand.
#[derive(Debug)]
pub struct Entry {
    /// Of each slot.
    pub shape: ShapeId,
    /// As last told.
    pub slots: u64,
    /// As last told.
    pub priority: i32,
    /// Milliseconds since 1970.
    pub queued_ms: u64,
    /// Milliseconds since 1970.
    pub not_before_ms: u64,
    /// Of one slot, as expected; 0: not told.
    pub runtime_ms: u64,
    /// The longest one slot may take, or as good a word as there is; 0: none.
    pub bound_ms: u64,
    /// Which controller told it.
    pub controller: u32,
    /// Oldest first.
    pub outstanding: Vec<Outstanding>,
    /// Grants in a row that came back at once, without a word.
    pub returned: u32,
    /// Monotonic; after some of these it is left alone for a while.
    pub resting_until_ms: u64,
    /// Monotonic: since when it could not start although it was its tenant's first.
    pub blocked_since_ms: Option<u64>,
    /// Too few nodes could hold it, empty, when its pool had changed so often.
    pub unplannable_at: Option<u64>,
    /// Where it stands in the queue; absent: it does not.
    pub place: Option<Place>,
    /// Of these slots, what `ShapeState::wanted` counts.
    pub counted: u64,
}

impl Entry {
    /// Slots still to be granted; for a gang 1 or 0.
    #[must_use]
    pub fn wanted(&self, gang: bool) -> u64 {
        if gang {
            return u64::from(self.slots > 0 && self.outstanding.is_empty());
        }
        self.slots.saturating_sub(self.outstanding.iter().map(|o| o.slots).sum())
    }

    /// The controller spoke: forgets what it has counted by now.
    pub fn counted_by_controller(&mut self, told: &Demand, gang: bool, lapses_ms: u64) {
        let settled = |o: &Outstanding| o.lapses_ms != u64::MAX;
        if told.granted_epoch > 0 {
            self.outstanding.retain(|o| o.epoch > told.granted_epoch);
        } else if gang {
            self.outstanding.retain(|o| !settled(o));
        } else {
            // Not told: what the number fell by is taken for the oldest grants.
            let mut fell = self.slots.saturating_sub(told.slots);
            self.outstanding.retain_mut(|o| {
                if !settled(o) {
                    return true;
                }
                let part = fell.min(o.slots);
                fell -= part;
                o.slots -= part;
                o.lapses_ms = o.lapses_ms.min(lapses_ms);
                o.slots > 0
            });
        }
    }
}

/// A shape in use.
#[derive(Debug)]
pub struct ShapeState {
    /// What it asks.
    pub shape: Arc<Shape>,
    /// Demands that have it.
    users: u64,
    /// Slots wanted by all of them.
    pub wanted: u64,
    /// Set when no node fitted: where the pool's log of freed nodes ended then,
    /// and its count of changes.
    pub failed: Option<Failed>,
}

/// See [`ShapeState::failed`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failed {
    /// The pool looked at.
    pub pool: PoolId,
    /// The end of its log of freed nodes.
    pub log_end: u64,
    /// Its count of changes of members.
    pub changes: u64,
}

/// All demands and their shapes.
#[derive(Debug, Default)]
pub struct Demands {
    entries: BTreeMap<StepKey, Entry>,
    /// By id; ids without users are used again.
    shapes: Vec<ShapeState>,
    unused: BTreeSet<ShapeId>,
    ids: BTreeMap<Arc<Shape>, ShapeId>,
}

impl Demands {
    /// One demand.
    #[must_use]
    pub fn get(&self, key: StepKey) -> Option<&Entry> {
        self.entries.get(&key)
    }

    /// One demand.
    pub fn get_mut(&mut self, key: StepKey) -> Option<&mut Entry> {
        self.entries.get_mut(&key)
    }

    /// All, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (StepKey, &Entry)> {
        self.entries.iter().map(|(&key, entry)| (key, entry))
    }

    /// A shape in use.
    #[must_use]
    pub fn shape(&self, id: ShapeId) -> &ShapeState {
        &self.shapes[id as usize]
    }

    /// A shape in use.
    pub fn shape_mut(&mut self, id: ShapeId) -> &mut ShapeState {
        &mut self.shapes[id as usize]
    }

    /// All shapes in use.
    pub fn shapes(&self) -> impl Iterator<Item = &ShapeState> {
        self.shapes.iter().filter(|state| state.users > 0)
    }

    /// Takes what a controller told of a step. The caller has taken the old
    /// entry out of the queue and puts the new one in.
    pub fn put(&mut self, key: StepKey, told: &Demand, controller: u32, lapses_ms: u64) {
        let shape = Shape::of(told);
        let gang = shape.gang.is_some();
        let id = self.intern(shape);
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.counted_by_controller(told, gang, lapses_ms);
            entry.returned = 0;
            entry.resting_until_ms = 0;
            entry.slots = told.slots;
            entry.priority = told.priority;
            entry.queued_ms = told.queued_ms;
            entry.not_before_ms = told.not_before_ms;
            entry.runtime_ms = told.expected_runtime_ms;
            entry.bound_ms = shape::bound_ms(told);
            entry.controller = controller;
            let old = std::mem::replace(&mut entry.shape, id);
            if old != id {
                entry.blocked_since_ms = None;
                entry.unplannable_at = None;
                let counted = std::mem::take(&mut entry.counted);
                self.shape_mut(old).wanted -= counted;
            }
            self.let_go(old);
            return;
        }
        let entry = Entry {
            shape: id,
            slots: told.slots,
            priority: told.priority,
            queued_ms: told.queued_ms,
            not_before_ms: told.not_before_ms,
            runtime_ms: told.expected_runtime_ms,
            bound_ms: shape::bound_ms(told),
            controller,
            outstanding: Vec::new(),
            returned: 0,
            resting_until_ms: 0,
            blocked_since_ms: None,
            unplannable_at: None,
            place: None,
            counted: 0,
        };
        self.entries.insert(key, entry);
    }

    /// Forgets a step.
    pub fn remove(&mut self, key: StepKey) {
        if let Some(entry) = self.entries.remove(&key) {
            assert!(entry.place.is_none(), "a demand leaves the queue before it is forgotten");
            self.shape_mut(entry.shape).wanted -= entry.counted;
            self.let_go(entry.shape);
        }
    }

    /// Brings the shape's sum up to date with this demand.
    pub fn recount(&mut self, key: StepKey) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        let shape = &mut self.shapes[entry.shape as usize];
        let slots = match shape.shape.gang {
            Some(gang) => entry.wanted(true) * u64::from(gang.nodes) * u64::from(gang.tasks_per_node),
            None => entry.wanted(false),
        };
        shape.wanted = shape.wanted - entry.counted + slots;
        entry.counted = slots;
    }

    fn intern(&mut self, shape: Shape) -> ShapeId {
        if let Some(&id) = self.ids.get(&shape) {
            self.shape_mut(id).users += 1;
            return id;
        }
        let shape = Arc::new(shape);
        let state = ShapeState { shape: Arc::clone(&shape), users: 1, wanted: 0, failed: None };
        let id = match self.unused.pop_first() {
            Some(id) => {
                self.shapes[id as usize] = state;
                id
            }
            None => {
                self.shapes.push(state);
                ShapeId::try_from(self.shapes.len() - 1).expect("fewer shapes than 2^32")
            }
        };
        self.ids.insert(shape, id);
        id
    }

    fn let_go(&mut self, id: ShapeId) {
        let state = &mut self.shapes[id as usize];
        state.users -= 1;
        if state.users == 0 {
            assert_eq!(state.wanted, 0, "a shape nobody has is wanted by nobody");
            self.ids.remove(&state.shape);
            self.unused.insert(id);
        }
    }

    /// Panics where a sum is wrong.
    pub fn check(&self) {
        let mut users: BTreeMap<ShapeId, (u64, u64)> = BTreeMap::new();
        for entry in self.entries.values() {
            let sums = users.entry(entry.shape).or_default();
            sums.0 += 1;
            sums.1 += entry.counted;
        }
        for (id, state) in (0..).zip(&self.shapes) {
            let sums = users.get(&id).copied().unwrap_or_default();
            assert_eq!(sums, (state.users, state.wanted), "sums of shape {id}");
            assert_eq!(state.users == 0, self.unused.contains(&id), "who uses shape {id}");
        }
        for (shape, &id) in &self.ids {
            let state = &self.shapes[id as usize];
            assert!(state.users > 0 && Arc::ptr_eq(shape, &state.shape), "the name of shape {id}");
        }
        assert_eq!(self.ids.len() + self.unused.len(), self.shapes.len(), "each shape in use has its name");
    }
}
