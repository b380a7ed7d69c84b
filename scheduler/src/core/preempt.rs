//! Asking that work of lower priority gives way, and keeping what becomes free for whom it
//! was freed.
//!
//! An ask is one commit: the rows of the grants that are to give way are written again, each
//! guarded by its version, with the `alloc/` row of the tenant for whom it is. So of two
//! schedulers one asks, and the other sees it. The controller carries it out. Who asks
//! keeps nothing: whoever reads the rows knows what is on its way, and to whom.
//!
//! What must hold: for one demand there is one ask at a time; a grant gives way once at a
//! time; from the ask until the demand has started, or has had its chance, nobody else gets
//! the room it was promised.

use super::demands::Entry;
use super::nodes::NodeId;
use super::tenants::TenantId;
use super::victims::Wanting;
use super::{AllocRow, Core, Held, InFlight, Proposal, StepKey, expect};
use crate::amount::Amount;
use crate::limits::{
    PREEMPT_AGAIN_MS, PREEMPT_ASKS_PER_PASS_MAX, PREEMPT_GRANTS_MAX, PREEMPT_SLOTS_MAX, PREEMPT_UNITS_MAX,
    PROMISE_MS,
};
use prost::Message as _;
use proto::keys;
use proto::units;
use proto::v1::{DemandUpdate, GrantNode, GrantRow, PreemptedTask, Preemption, WhyReply, YieldingTask};
use std::collections::{BTreeMap, BTreeSet};
use store::{Expect, Guard, Revision, Write};

/// Names a grant.
pub(super) type GrantId = (TenantId, u64);

/// What holds in a pool where work gives way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rules {
    grace_ms: u64,
    priority_above: u32,
    after_waiting_ms: u64,
}

/// What of a grant could give way, as its controller told.
#[derive(Debug)]
struct Word {
    controller: u32,
    priority: i32,
    gang: bool,
    tasks: Vec<YieldingTask>,
}

/// A task, or a whole gang, that could give way.
#[derive(Debug)]
pub(super) struct Unit {
    pub grant: GrantId,
    pub task: u64,
    pub attempt: u32,
    pub priority: i32,
    /// Milliseconds since 1970: what it did since then would be lost.
    pub since_ms: u64,
    /// What would become free.
    pub on: Vec<(NodeId, Amount)>,
    pub ends_by_ms: u64,
}

/// A grant that gives way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Given {
    pub to: StepKey,
    pub tasks: u64,
}

/// Room that is being made for a demand.
#[derive(Debug, Default)]
struct Promise {
    /// Grants that still hold it.
    of: BTreeSet<GrantId>,
    /// Slots, and what each takes.
    starts: BTreeMap<NodeId, u32>,
    per_slot: Amount,
    /// Monotonic; set once all have given way.
    until_ms: Option<u64>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Yields {
    rules: BTreeMap<String, Rules>,
    words: BTreeMap<GrantId, Word>,
    promises: BTreeMap<StepKey, Promise>,
    /// Monotonic: it was looked for in vain, or for a while enough.
    again_ms: BTreeMap<StepKey, u64>,
}

impl Core {
    // --------------------------------------------------------------- the view

    /// A controller tells where work gives way, and which could.
    pub(super) fn yielding_told(&mut self, controller: u32, update: &DemandUpdate) {
        if update.snapshot {
            self.yields.words.retain(|_, word| word.controller != controller);
            let rules: BTreeMap<String, Rules> = update
                .pools
                .iter()
                .map(|told| {
                    let (grace_ms, after_waiting_ms) = (told.grace_ms, told.after_waiting_ms);
                    let priority_above = told.priority_above.max(1);
                    (told.pool.clone(), Rules { grace_ms, priority_above, after_waiting_ms })
                })
                .collect();
            if rules != self.yields.rules {
                // Rows of grants are kept from now on.
                self.wants_reread |= !rules.is_empty();
                self.yields.rules = rules;
            }
        }
        for told in &update.yielding {
            let id = (self.tenants.intern(&told.tenant), told.epoch);
            if told.tasks.is_empty() {
                self.yields.words.remove(&id);
            } else {
                let (priority, gang, tasks) = (told.priority, told.gang, told.tasks.clone());
                self.yields.words.insert(id, Word { controller, priority, gang, tasks });
            }
        }
    }

    /// Rows are kept where they may have to be written again.
    pub(super) fn row_kept(&self, row: &GrantRow) -> Option<Box<GrantRow>> {
        (!self.yields.rules.is_empty() || row.preemption.is_some()).then(|| Box::new(row.clone()))
    }

    /// The row of a grant that is known was put again: by an ask, or by the controller that
    /// answers one.
    pub(super) fn written_again(&mut self, id: GrantId, row: &GrantRow, revision: Revision) {
        let kept = self.row_kept(row);
        let Some(held) = self.grants.get_mut(&id).filter(|held| held.version <= revision) else { return };
        held.version = revision;
        held.row = kept;
        let nodes: Vec<(NodeId, u32)> =
            row.nodes.iter().map(|node| (self.nodes.intern(&node.node), node.slots)).collect();
        if nodes != held.nodes {
            world::mark!("scheduler.grant.shrank");
            let (old, new) = (held.clone(), Held { nodes, ..held.clone() });
            self.grants.insert(id, new.clone());
            self.let_go(&old);
            self.hold(&new);
        }
        self.note_preemption(id, row, revision, true);
    }

    /// A grant is to give way, or not any more. `told`: by the commit of this revision.
    pub(super) fn note_preemption(&mut self, id: GrantId, row: &GrantRow, revision: Revision, told: bool) {
        let given = row.preemption.as_ref().map(|asked| {
            let tenant = self.tenants.intern(&asked.tenant);
            let to = StepKey { tenant, job_number: asked.job_number, step: asked.step };
            Given { to, tasks: asked.tasks.len() as u64 }
        });
        let Some(held) = self.grants.get_mut(&id) else { return };
        let before = std::mem::replace(&mut held.preemption, given.clone());
        if before == given {
            return;
        }
        if let Some(before) = before {
            self.gave_way(id, &before);
        }
        let (Some(given), Some(asked)) = (given, &row.preemption) else { return };
        if told {
            let tenant = self.tenants.get_mut(given.to.tenant);
            tenant.version = tenant.version.max(revision);
        }
        self.drop_plan(given.to);
        let starts: Vec<(NodeId, u32)> =
            asked.starts.iter().map(|start| (self.nodes.intern(&start.node), start.slots)).collect();
        let promise = self.yields.promises.entry(given.to).or_default();
        promise.of.insert(id);
        promise.until_ms = None;
        if !starts.is_empty() {
            promise.per_slot = Amount::of(asked.per_slot.as_ref());
            promise.starts.extend(starts);
        }
        self.promise_nodes(given.to);
        self.requeue(given.to);
    }

    /// A grant has given way, or need not any more.
    pub(super) fn gave_way(&mut self, id: GrantId, given: &Given) {
        let now_ms = self.now.mono_ms;
        let Some(promise) = self.yields.promises.get_mut(&given.to) else { return };
        promise.of.remove(&id);
        if promise.of.is_empty() {
            world::mark!("scheduler.preempt.room_is_made");
            promise.until_ms = Some(now_ms + PROMISE_MS);
            self.hints.insert(now_ms + PROMISE_MS);
        }
    }

    /// Its nodes know of it.
    fn promise_nodes(&mut self, key: StepKey) {
        let Some(promise) = self.yields.promises.get(&key) else { return };
        for (&node, &slots) in &promise.starts {
            self.nodes.line_mut(node).promise(key, promise.per_slot.times(u64::from(slots)));
        }
    }

    /// Nothing is promised any more.
    pub(super) fn drop_promise(&mut self, key: StepKey) {
        self.yields.again_ms.remove(&key);
        for (node, _) in self.yields.promises.remove(&key).into_iter().flat_map(|promise| promise.starts) {
            self.nodes.line_mut(node).promise(key, Amount::default());
            self.nodes.note_freed(node);
        }
        self.requeue(key);
    }

    /// It was granted something: so much less is promised.
    pub(super) fn redeem(&mut self, key: StepKey, nodes: &[(NodeId, u32)]) {
        let Some(promise) = self.yields.promises.get_mut(&key) else { return };
        for &(node, slots) in nodes {
            let mut slots = slots;
            let here = promise.starts.get_key_value(&node).map(|(id, _)| *id);
            // It found room elsewhere: then it does not need this.
            let rest: Vec<NodeId> = promise.starts.keys().copied().filter(|id| Some(*id) != here).collect();
            for id in here.into_iter().chain(rest) {
                let left = promise.starts.get_mut(&id).expect("it is promised");
                let part = slots.min(*left);
                (*left, slots) = (*left - part, slots - part);
                self.nodes.line_mut(id).promise(key, promise.per_slot.times(u64::from(*left)));
            }
        }
        promise.starts.retain(|&id, slots| {
            if *slots == 0 {
                self.nodes.note_freed(id);
            }
            *slots > 0
        });
        if promise.starts.is_empty() && promise.of.is_empty() {
            world::mark!("scheduler.preempt.promise_kept");
            self.yields.promises.remove(&key);
            self.requeue(key);
        }
    }

    /// Room that was made and not taken for so long is for all.
    pub(super) fn lapse_promises(&mut self) {
        let now_ms = self.now.mono_ms;
        let over = self.yields.promises.iter().filter(|(_, promise)| {
            promise.until_ms.is_some_and(|until_ms| until_ms <= now_ms || promise.starts.is_empty())
        });
        for key in over.map(|(&key, _)| key).collect::<Vec<_>>() {
            world::mark!("scheduler.preempt.promise_lapses");
            self.drop_promise(key);
        }
        self.yields.again_ms.retain(|_, at_ms| *at_ms > now_ms);
    }

    /// Something is being made free for it.
    pub(super) fn is_promised(&self, key: StepKey) -> bool {
        self.yields.promises.contains_key(&key)
    }

    // ---------------------------------------------------------------- the ask

    /// One of the first of a queue has no room: whether to look for what could give way.
    pub(super) fn would_preempt(&mut self, key: StepKey) -> bool {
        let Some(least_ms) = self.yields.rules.values().map(|rules| rules.after_waiting_ms).min() else {
            return false;
        };
        let Some(since_ms) = self.demands.get(key).and_then(|entry| entry.blocked_since_ms) else {
            return false;
        };
        let again_ms = self.yields.again_ms.get(&key).copied().unwrap_or(0);
        let due_ms = since_ms.saturating_add(least_ms).max(again_ms);
        if due_ms > self.now.mono_ms {
            self.hints.insert(due_ms);
        }
        due_ms <= self.now.mono_ms && !self.is_promised(key)
    }

    /// At the end of a pass: what could not start may ask.
    pub(super) fn preempt(&mut self, wanting: Vec<Wanting>) -> Vec<Proposal> {
        let mut proposals = Vec::new();
        if wanting.len() > PREEMPT_ASKS_PER_PASS_MAX {
            // Each looks at whole pools: the others in the next pass.
            self.hints.insert(self.now.mono_ms + 1);
        }
        for Wanting { key, may_reclaim } in wanting.into_iter().take(PREEMPT_ASKS_PER_PASS_MAX) {
            let again_ms = self.now.mono_ms + PREEMPT_AGAIN_MS;
            if !self.may_plan(key.tenant) {
                continue;
            }
            // Grants of this pass may have brought it what it wants.
            let waits = self.demands.get(key).is_some_and(|entry| entry.place.is_some());
            if !waits {
                continue;
            }
            self.yields.again_ms.insert(key, again_ms);
            self.hints.insert(again_ms);
            if let Some(asks) = self.asks_for(key, may_reclaim) {
                world::mark!("scheduler.preempt.asked");
                proposals.push(self.propose_asks(key.tenant, asks));
            } else {
                world::mark!("scheduler.preempt.nothing_would_do");
            }
        }
        proposals
    }

    /// What of lower priority could give way to it, where that is allowed.
    fn units_below(&self, entry: &Entry) -> Vec<Unit> {
        let asked: BTreeSet<GrantId> =
            self.in_flight.values().flat_map(|flight| flight.asks.iter().map(|(id, _)| *id)).collect();
        let waited_ms =
            entry.blocked_since_ms.map_or(0, |since_ms| self.now.mono_ms.saturating_sub(since_ms));
        let allowed = |id: NodeId, priority: i32| {
            let pool = self.nodes.get(id).row.as_ref().map(|row| row.pool.as_str());
            pool.and_then(|pool| self.yields.rules.get(pool)).is_some_and(|rules| {
                i64::from(priority) + i64::from(rules.priority_above) <= i64::from(entry.priority)
                    && rules.after_waiting_ms <= waited_ms
            })
        };
        let mut units = Vec::new();
        for (&id, word) in &self.yields.words {
            let Some(held) = self.grants.get(&id) else { continue };
            let gives = held.preemption.is_some() || held.row.is_none() || asked.contains(&id);
            // Of whole nodes nothing is free before all of it is, and licenses are held for all
            // slots together.
            let stays = gives || !held.whole.is_empty() || !held.licenses.is_empty();
            if stays || !held.nodes.iter().all(|&(node, _)| allowed(node, word.priority)) {
                continue;
            }
            for told in &word.tasks {
                let on = match (word.gang, &held.nodes[..]) {
                    (true, _) => held.parts().map(|(node, part)| (node, part.amount)).collect(),
                    (false, &[(node, slots)]) if slots > 0 => vec![(node, held.per_slot.of_one_node())],
                    _ => continue,
                };
                let YieldingTask { task, attempt, since_ms } = *told;
                let (priority, ends_by_ms) = (word.priority, held.ends_by_ms);
                units.push(Unit { grant: id, task, attempt, priority, since_ms, on, ends_by_ms });
            }
            if units.len() >= PREEMPT_UNITS_MAX {
                break;
            }
        }
        units
    }

    /// The rows that ask, if that would let it start.
    fn asks_for(&self, key: StepKey, may_reclaim: bool) -> Option<Vec<(GrantId, GrantRow)>> {
        let entry = self.demands.get(key)?;
        let units = self.units_below(entry);
        if units.is_empty() {
            return None;
        }
        let shape = self.demands.shape(entry.shape).shape.clone();
        // More than room on nodes would have to become free.
        if shape.exclusive || !shape.licenses.is_empty() {
            return None;
        }
        let search = self.search(key, &shape)?;
        // No more than it may have.
        let room = self.tenants.room(key.tenant);
        let least = shape.least().count_in(room);
        let gang = shape.gang.is_some();
        let slots = entry.wanted(gang).min(least).min(PREEMPT_SLOTS_MAX);
        if slots == 0 {
            return None;
        }
        let found = self.choose_victims(&search, &units, slots, may_reclaim)?;
        let mut tasks: BTreeMap<GrantId, Vec<PreemptedTask>> = BTreeMap::new();
        for &at in &found.units {
            let Unit { grant, task, attempt, .. } = units[at];
            tasks.entry(grant).or_default().push(PreemptedTask { task, attempt });
        }
        if tasks.len() > PREEMPT_GRANTS_MAX {
            return None;
        }
        let name = |id: NodeId| self.nodes.get(id).name.clone();
        let mut starts: Vec<GrantNode> =
            found.starts.iter().map(|(&id, &slots)| GrantNode { node: name(id), slots }).collect();
        let ask = |(id, tasks): (GrantId, Vec<PreemptedTask>)| {
            let row = self.grants.get(&id)?.row.as_deref()?.clone();
            let asked = Preemption {
                tenant: self.tenants.get(key.tenant).name.clone(),
                job_number: key.job_number,
                step: key.step,
                tasks,
                starts: std::mem::take(&mut starts),
                asked_ms: self.now.wall_ms,
                per_slot: Some(shape.per_slot.to_resources()),
            };
            Some((id, GrantRow { preemption: Some(asked), again: true, ..row }))
        };
        tasks.into_iter().map(ask).collect()
    }

    fn propose_asks(&mut self, tenant: TenantId, asks: Vec<(GrantId, GrantRow)>) -> Proposal {
        let id = self.next_proposal;
        self.next_proposal += 1;
        let known = self.tenants.get(tenant);
        let mut commit = store::Commit::default();
        let mut put = |key: bytes::Bytes, expect: Expect, value: Vec<u8>| {
            commit.guards.push(Guard { key: key.clone(), expect });
            commit.writes.push(Write { key, value: Some(value.into()), lease: 0 });
        };
        let alloc = AllocRow { epoch: known.epoch };
        put(keys::alloc_tenant(&known.name), expect(known.version), alloc.encode_to_vec());
        for (grant, row) in &asks {
            let version = self.grants[grant].version;
            put(keys::grant(&row.tenant, row.epoch), Expect::Version(version), row.encode_to_vec());
        }
        self.tenants.get_mut(tenant).in_flight = Some(id);
        let tenants = BTreeSet::from([tenant]);
        self.in_flight.insert(id, InFlight { asks, tenants, ..InFlight::default() });
        Proposal { id, grants: Vec::new(), commit }
    }

    /// Its ask is done.
    pub(super) fn asked(&mut self, asks: &[(GrantId, GrantRow)], revision: Revision) {
        for (id, row) in asks {
            self.written_again(*id, row, revision);
        }
    }

    // ------------------------------------------------------------------- why

    /// What is said of one for which room is being made.
    pub(super) fn explain_preemption(&self, key: StepKey) -> Option<WhyReply> {
        let promise = self.yields.promises.get(&key)?;
        let given = promise.of.iter().filter_map(|id| self.grants.get(id)?.preemption.as_ref());
        let tasks: u64 = given.map(|given| given.tasks).sum();
        let nodes = promise.of.iter().filter_map(|id| self.grants.get(id)).flat_map(|held| &held.nodes);
        let pools = nodes.filter_map(|(node, _)| self.nodes.get(*node).row.as_ref());
        let grace =
            pools.filter_map(|row| self.yields.rules.get(&row.pool)).map(|rules| rules.grace_ms).max();
        let grace = units::format_duration_ms(grace.unwrap_or(0));
        let headline = match tasks {
            0 => return None,
            1 => format!("waits for 1 task of lower priority to give way, at most {grace}"),
            _ => format!("waits for {tasks} tasks of lower priority to give way, at most {grace}"),
        };
        let names: Vec<&str> = promise.starts.keys().map(|&id| self.nodes.get(id).name.as_str()).collect();
        Some(WhyReply {
            code: "waiting.preemption".to_owned(),
            headline,
            details: vec![format!("the room is kept for it on {}", super::explain::list(&names))],
            ..WhyReply::default()
        })
    }

    /// Panics where what is promised and what nodes know of it disagree.
    pub(super) fn check_promises(&self) {
        let known = self.nodes.iter().map(|(_, node)| node.line.promised().len()).sum::<usize>();
        let mut there = 0;
        for (key, promise) in &self.yields.promises {
            for (&id, &slots) in &promise.starts {
                let amount = promise.per_slot.times(u64::from(slots));
                let told = self.nodes.get(id).line.promised().get(key).copied();
                assert_eq!(told.unwrap_or_default(), amount, "what is promised on a node");
                there += usize::from(told.is_some());
            }
            for id in &promise.of {
                let given = self.grants.get(id).and_then(|held| held.preemption.as_ref());
                assert_eq!(given.map(|given| given.to), Some(*key), "what gives way gives way to one");
            }
        }
        assert_eq!(known, there, "a node keeps room for one that is promised nothing");
    }
}
