//! The view of the nodes: what each has, what of it is taken, and an index by
//! what is free.
//!
//! What must hold: a node is in the index of its pool (and of the pool without
//! a name, which holds all) exactly while something may be placed on it, under
//! its present free amount; every change that makes it *more* usable is noted in
//! the pools' logs of freed nodes, so that a shape which fitted nowhere need
//! only look at the nodes in the log since.

use super::ProposalId;
use super::shape::Shape;
use super::timeline::{Line, Part};
use crate::amount::Amount;
use crate::limits::{FREED_LOG_MAX, NODE_MEMORY_BYTES_MAX};
use proto::v1::{NodeRow, NodeState};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::ControlFlow;
use store::Revision;

/// Index of a node in the view.
pub type NodeId = u32;
/// Index of a pool in the view; 0 is the one of all nodes.
pub type PoolId = u32;
/// The pool of all nodes.
pub const ANY_POOL: PoolId = 0;

/// Free GPUs, millicores, memory: the order in which the best fit comes first.
type Free = (u64, u64, u64, NodeId);

/// One node as seen.
#[derive(Debug, Default)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Absent: grants or alloc rows name it, but it has no row (any more).
    pub row: Option<NodeRow>,
    /// What it has.
    pub capacity: Amount,
    /// Held by grants and by proposals without an outcome.
    pub used: Amount,
    /// Of these, those that have it for themselves.
    pub alone: u32,
    /// Version of its alloc row as far as known; 0: there is none.
    pub version: Revision,
    /// A conflict showed this version: nothing is proposed before it is seen.
    pub stale_below: Revision,
    /// A proposal that touches its alloc row has no outcome yet.
    pub in_flight: Option<ProposalId>,
    /// When what is held ends, and what is to start here.
    pub line: Line,
    pool: PoolId,
    indexed: Option<Free>,
}

impl Node {
    /// Ready and not drained.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.row.as_ref().is_some_and(|row| row.state() == NodeState::Ready && !row.drained)
    }

    /// Neither waiting for an outcome nor for news.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.in_flight.is_none() && self.version >= self.stale_below
    }

    /// What may still be placed.
    #[must_use]
    pub fn free(&self) -> Amount {
        if self.alone > 0 { Amount::default() } else { self.capacity.minus(self.used) }
    }

    /// Nothing is granted on it.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.used == Amount::default() && self.alone == 0
    }

    /// One unit of a shape has room now.
    #[must_use]
    pub fn has_room_for(&self, shape: &Shape) -> bool {
        shape.unit().fits_in(self.free()) && (!shape.exclusive || self.is_idle())
    }
}

/// Nodes of one pool.
#[derive(Debug, Default)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// Open nodes, whether settled or not.
    pub members: BTreeSet<NodeId>,
    /// Grows with every change of `members`.
    pub changes: u64,
    by_free: BTreeSet<Free>,
    freed: VecDeque<NodeId>,
    freed_first: u64,
}

impl Pool {
    fn note_freed(&mut self, id: NodeId) {
        if self.freed.len() == FREED_LOG_MAX {
            self.freed.pop_front();
            self.freed_first += 1;
        }
        self.freed.push_back(id);
    }

    /// The end of the log of freed nodes.
    #[must_use]
    pub fn log_end(&self) -> u64 {
        self.freed_first + self.freed.len() as u64
    }

    /// Nodes freed since, some perhaps twice; `None` where the log no longer
    /// reaches so far back.
    #[must_use]
    pub fn freed_since(&self, position: u64) -> Option<impl ExactSizeIterator<Item = NodeId>> {
        let skip = position.checked_sub(self.freed_first)?;
        Some(self.freed.iter().skip(usize::try_from(skip).ok()?).copied())
    }
}

/// All nodes.
#[derive(Debug)]
pub struct Nodes {
    list: Vec<Node>,
    by_name: BTreeMap<String, NodeId>,
    pools: Vec<Pool>,
    pool_by_name: BTreeMap<String, PoolId>,
    /// What all open nodes have together.
    pub capacity: Amount,
    /// What is free of it.
    pub free: Amount,
}

impl Default for Nodes {
    fn default() -> Nodes {
        Nodes {
            list: Vec::new(),
            by_name: BTreeMap::new(),
            pools: vec![Pool::default()],
            pool_by_name: BTreeMap::from([(String::new(), ANY_POOL)]),
            capacity: Amount::default(),
            free: Amount::default(),
        }
    }
}

impl Nodes {
    /// The node of this id.
    #[must_use]
    pub fn get(&self, id: NodeId) -> &Node {
        &self.list[id as usize]
    }

    /// The id of a name, if it is known.
    #[must_use]
    pub fn id(&self, name: &str) -> Option<NodeId> {
        self.by_name.get(name).copied()
    }

    /// All nodes by name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (NodeId, &Node)> {
        self.by_name.values().map(|&id| (id, self.get(id)))
    }

    /// The pool of a name, if any node was ever in it.
    #[must_use]
    pub fn pool_id(&self, name: &str) -> Option<PoolId> {
        self.pool_by_name.get(name).copied()
    }

    /// The pool of this id.
    #[must_use]
    pub fn pool(&self, id: PoolId) -> &Pool {
        &self.pools[id as usize]
    }

    /// The id of a name, known from now on.
    pub fn intern(&mut self, name: &str) -> NodeId {
        if let Some(&id) = self.by_name.get(name) {
            return id;
        }
        let id = NodeId::try_from(self.list.len()).expect("fewer nodes than 2^32");
        self.list.push(Node { name: name.to_owned(), ..Node::default() });
        self.by_name.insert(name.to_owned(), id);
        id
    }

    /// The node's row came, changed or went.
    pub fn set_row(&mut self, id: NodeId, row: Option<NodeRow>) {
        self.unindex(id);
        let pool = row.as_ref().map_or(ANY_POOL, |row| self.intern_pool(&row.pool));
        let node = &mut self.list[id as usize];
        let was_open = node.is_open();
        if was_open {
            self.capacity = self.capacity.minus(node.capacity);
            self.free = self.free.minus(node.free());
            for pool in own_pools(node.pool) {
                self.pools[pool as usize].members.remove(&id);
                self.pools[pool as usize].changes += 1;
            }
        }
        let mut capacity = Amount::of(row.as_ref().and_then(|row| row.capacity.as_ref()));
        capacity.memory_bytes = capacity.memory_bytes.min(NODE_MEMORY_BYTES_MAX);
        node.capacity = capacity;
        node.row = row;
        node.pool = pool;
        if node.is_open() {
            self.capacity = self.capacity.plus(node.capacity);
            self.free = self.free.plus(node.free());
            for pool in own_pools(pool) {
                self.pools[pool as usize].members.insert(id);
                self.pools[pool as usize].changes += 1;
            }
        }
        self.reindex(id);
    }

    /// Takes capacity for a grant.
    pub fn take(&mut self, id: NodeId, part: Part) {
        let node = &mut self.list[id as usize];
        let free = node.free();
        node.used = node.used.plus(part.amount);
        node.alone += u32::from(part.alone);
        node.line.take(part);
        if node.is_open() {
            self.free = self.free.minus(free.minus(node.free()));
        }
        self.reindex(id);
    }

    /// See [`Nodes::take`].
    pub fn release(&mut self, id: NodeId, part: Part) {
        let node = &mut self.list[id as usize];
        let free = node.free();
        node.used.release(part.amount);
        node.alone -= u32::from(part.alone);
        node.line.release(part);
        if node.is_open() {
            self.free = self.free.plus(node.free().minus(free));
        }
        self.reindex(id);
    }

    /// Its alloc row was seen at this version.
    pub fn saw_version(&mut self, id: NodeId, version: Revision) {
        let node = &mut self.list[id as usize];
        node.version = node.version.max(version);
        self.reindex(id);
    }

    /// Its alloc row was read, and has this version.
    pub fn read_version(&mut self, id: NodeId, version: Revision) {
        let node = &mut self.list[id as usize];
        node.version = version;
        node.stale_below = node.stale_below.min(version);
        self.reindex(id);
    }

    /// A conflict showed that the view of it is old.
    pub fn stale_below(&mut self, id: NodeId, version: Revision) {
        let node = &mut self.list[id as usize];
        node.stale_below = node.stale_below.max(version);
        self.reindex(id);
    }

    /// A proposal about it went out or came back.
    pub fn set_in_flight(&mut self, id: NodeId, proposal: Option<ProposalId>) {
        self.list[id as usize].in_flight = proposal;
        self.reindex(id);
    }

    /// What is to start there, and when.
    pub fn line_mut(&mut self, id: NodeId) -> &mut Line {
        &mut self.list[id as usize].line
    }

    /// Nothing is to start there any more for this demand, or only later: so the
    /// node may take what it could not.
    pub fn note_freed(&mut self, id: NodeId) {
        let node = &self.list[id as usize];
        if node.indexed.is_some() {
            for pool in own_pools(node.pool) {
                self.pools[pool as usize].note_freed(id);
            }
        }
    }

    /// Visits the nodes of a pool that have `unit` free, best fit first.
    pub fn walk(&self, pool: PoolId, unit: Amount, mut visit: impl FnMut(NodeId) -> ControlFlow<()>) {
        let by_free = &self.pools[pool as usize].by_free;
        let mut from: Free = (unit.gpus, unit.millicores, unit.memory_bytes, 0);
        'seek: loop {
            for &(gpus, millicores, memory_bytes, id) in by_free.range(from..) {
                if millicores < unit.millicores {
                    from = (gpus, unit.millicores, unit.memory_bytes, 0);
                    continue 'seek;
                }
                if memory_bytes < unit.memory_bytes {
                    from = (gpus, millicores, unit.memory_bytes, 0);
                    continue 'seek;
                }
                if visit(id).is_break() {
                    return;
                }
            }
            return;
        }
    }

    /// Orders nodes as the walk would meet them; `None` where it would not.
    #[must_use]
    pub fn fit(&self, id: NodeId, pool: PoolId, unit: Amount) -> Option<(u64, u64, u64, NodeId)> {
        let node = self.get(id);
        let in_pool = pool == ANY_POOL || node.pool == pool;
        node.indexed.filter(|_| in_pool && unit.fits_in(node.free()))
    }

    /// The node could hold one unit of the shape if it were empty: what pool,
    /// labels and capacity say, whatever runs there now.
    #[must_use]
    pub fn could_hold(&self, id: NodeId, shape: &Shape, unit: Amount) -> bool {
        let node = self.get(id);
        node.is_open()
            && unit.fits_in(node.capacity)
            && node.row.as_ref().is_some_and(|row| {
                (shape.pool.is_empty() || row.pool == shape.pool) && shape.label_missed(row).is_none()
            })
    }

    fn intern_pool(&mut self, name: &str) -> PoolId {
        if let Some(&id) = self.pool_by_name.get(name) {
            return id;
        }
        let id = PoolId::try_from(self.pools.len()).expect("fewer pools than 2^32");
        self.pools.push(Pool { name: name.to_owned(), ..Pool::default() });
        self.pool_by_name.insert(name.to_owned(), id);
        id
    }

    fn unindex(&mut self, id: NodeId) {
        let node = &mut self.list[id as usize];
        if let Some(old) = node.indexed.take() {
            for pool in own_pools(node.pool) {
                self.pools[pool as usize].by_free.remove(&old);
            }
        }
    }

    fn reindex(&mut self, id: NodeId) {
        let node = &mut self.list[id as usize];
        let free = node.free();
        let new = (node.is_open() && node.is_settled()).then_some((
            free.gpus,
            free.millicores,
            free.memory_bytes,
            id,
        ));
        let old = node.indexed;
        if new == old {
            return;
        }
        node.indexed = new;
        let grew = match (old, new) {
            (None, Some(_)) => true,
            (Some(old), Some(new)) => new.0 > old.0 || new.1 > old.1 || new.2 > old.2,
            (_, None) => false,
        };
        for pool in own_pools(node.pool) {
            let pool = &mut self.pools[pool as usize];
            if let Some(old) = old {
                pool.by_free.remove(&old);
            }
            if let Some(new) = new {
                pool.by_free.insert(new);
            }
            if grew {
                pool.note_freed(id);
            }
        }
    }

    /// Panics where the index and the nodes disagree.
    pub fn check(&self) {
        let (mut capacity, mut all_free) = (Amount::default(), Amount::default());
        // Nodes that are in each pool, and in its index.
        let mut counts = vec![(0, 0); self.pools.len()];
        for (id, node) in self.iter() {
            if node.is_open() {
                capacity = capacity.plus(node.capacity);
                all_free = all_free.plus(node.free());
            }
            let free = node.free();
            let expected = (node.is_open() && node.is_settled()).then_some((
                free.gpus,
                free.millicores,
                free.memory_bytes,
                id,
            ));
            assert_eq!(node.indexed, expected, "node {} stands wrongly in the index", node.name);
            let held = (node.used, node.alone);
            assert_eq!(node.line.held(), held, "what ends on node {} is what is held", node.name);
            for pool in own_pools(node.pool) {
                let (members, indexed) = &mut counts[pool as usize];
                *members += usize::from(node.is_open());
                *indexed += usize::from(node.indexed.is_some());
            }
        }
        assert_eq!(all_free, self.free, "what is free is the sum of what is on open nodes");
        assert_eq!(capacity, self.capacity, "the cluster's capacity is the sum of its open nodes");
        for ((at, pool), counts) in (0..).zip(&self.pools).zip(counts) {
            let is_of = |id: NodeId| own_pools(self.get(id).pool).into_iter().any(|own| own == at);
            for &id in &pool.members {
                let node = self.get(id);
                assert!(node.is_open() && is_of(id), "membership of node {}", node.name);
            }
            for &key in &pool.by_free {
                let node = self.get(key.3);
                assert!(node.indexed == Some(key) && is_of(key.3), "node {} in its pool's index", node.name);
            }
            let found = (pool.members.len(), pool.by_free.len());
            assert_eq!(found, counts, "pool '{}' lacks nodes, or indexes what is not there", pool.name);
        }
    }
}

/// The pools a node is in: its own and the one of all.
fn own_pools(pool: PoolId) -> impl Iterator<Item = PoolId> {
    std::iter::once(ANY_POOL).chain((pool != ANY_POOL).then_some(pool))
}
