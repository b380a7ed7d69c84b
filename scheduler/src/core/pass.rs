//! One pass: who is next, and what goes into which commit.
//!
//! Between tenants the one that has had least for its weight is next ([`super::fair`];
//! ties: who waited longest for a turn); within a tenant the first of its queue, and when
//! that cannot start, whoever can behind it, as long as nothing is held back
//! for it. Grants that touch the same node, tenant or license must be in the same
//! commit, since each commit moves the versions of what it touches.

use super::demands::Outstanding;
use super::licenses::LicenseId;
use super::nodes::NodeId;
use super::place::{Blocked, Choice};
use super::shape::ShapeId;
use super::tenants::{Place, TenantId};
use super::timeline::NEVER;
use super::turns::Turns;
use super::victims::Wanting;
use super::{Core, Drafted, Held, InFlight, Proposal, StepKey};
use crate::limits::{
    GRANT_SLOTS_MAX, PASS_BLOCKED_MAX, PASS_GRANTS_MAX, PASS_HEADS_EXAMINED_MAX, PASS_NODES_EXAMINED_MAX,
    PASS_PROPOSALS_MAX, PROPOSAL_OPERATIONS_MAX, PROPOSALS_IN_FLIGHT_MAX,
};
use bytes::Bytes;
use prost::Message as _;
use proto::keys;
use proto::v1::{AllocRow, GrantNode, GrantRow};
use std::collections::{BTreeMap, BTreeSet};
use store::{Expect, Guard, Revision, Write};
use world::clock::Now;

/// Index of a commit being put together.
type Slot = usize;

/// The rows that a grant touches beside its nodes'.
#[derive(Clone, Debug, Default)]
pub(super) struct Rows {
    /// Its tenant, and the groups that it is in, from it up.
    pub path: Vec<TenantId>,
    /// What it is to hold.
    pub licenses: Vec<LicenseId>,
}

/// What a pass has decided so far.
#[derive(Debug, Default)]
pub(super) struct Pass {
    open: BTreeMap<Slot, InFlight>,
    next: Slot,
    /// Commits without room for another grant: done.
    full: Vec<Proposal>,
    nodes: BTreeMap<NodeId, Slot>,
    /// And groups.
    tenants: BTreeMap<TenantId, Slot>,
    licenses: BTreeMap<LicenseId, Slot>,
    drafted: BTreeMap<TenantId, u64>,
    grants: usize,
    /// Those that capacity blocked in this pass; not who is behind another of them.
    blocked: Vec<StepKey>,
    /// Those that something could give way to.
    wanting: Vec<Wanting>,
    /// Dimensions of groups' limits that are held back for one whose turn was before.
    closed: Vec<(TenantId, &'static str)>,
    /// Who may still get something.
    pub turns: Turns,
    pub nodes_examined: u64,
    heads_examined: u64,
}

/// Each row touched is guarded and written.
fn operations(commit: &InFlight) -> usize {
    2 * (commit.nodes.len() + commit.tenants.len() + commit.licenses.len() + commit.grants.len())
}

/// Not even a grant on one further node has room.
fn is_full(commit: &InFlight) -> bool {
    operations(commit) + 4 > PROPOSAL_OPERATIONS_MAX
}

impl Pass {
    /// A pass that has decided nothing.
    pub(super) fn new() -> Pass {
        Pass::default()
    }

    fn is_over(&self) -> bool {
        self.grants >= PASS_GRANTS_MAX
            || self.full.len() >= PASS_PROPOSALS_MAX
            || self.nodes_examined >= PASS_NODES_EXAMINED_MAX
            || self.heads_examined >= PASS_HEADS_EXAMINED_MAX
    }

    fn may_open(&self) -> bool {
        self.full.len() + self.open.len() < PASS_PROPOSALS_MAX
    }

    /// The commit of a tenant, with the groups that it is in: all below one group share one.
    fn slot_of(&self, path: &[TenantId]) -> Option<Slot> {
        path.iter().find_map(|id| self.tenants.get(id)).copied()
    }

    /// Those of the licenses of a grant.
    fn slots_of(&self, licenses: &[LicenseId]) -> impl Iterator<Item = Slot> {
        licenses.iter().filter_map(|id| self.licenses.get(id).copied())
    }

    /// No further grant that touches these rows has room in their commits.
    pub(super) fn is_full_for(&self, rows: &Rows) -> bool {
        let mut slots = self.slots_of(&rows.licenses).chain(self.slot_of(&rows.path));
        slots.any(|slot| self.open.get(&slot).is_none_or(is_full))
    }

    /// The node is in no commit but the tenant's own. Gangs keep apart from
    /// others, since they need much of a commit's room.
    pub(super) fn is_alone_with(&self, rows: &Rows, node: NodeId) -> bool {
        self.nodes.get(&node).is_none_or(|&slot| self.slot_of(&rows.path) == Some(slot))
    }

    /// A grant of these has room: in one commit with all that shares its rows.
    pub(super) fn joins(&self, rows: &Rows, nodes: &[NodeId]) -> bool {
        let slots = self.touched(rows, nodes);
        let fresh = nodes.iter().filter(|id| !self.nodes.contains_key(id)).count() + self.fresh(rows) + 1;
        let there: usize = match slots.is_empty() {
            false => slots.iter().map(|slot| operations(&self.open[slot])).sum(),
            true if self.may_open() => 0,
            true => self.open.values().map(operations).min().unwrap_or(PROPOSAL_OPERATIONS_MAX),
        };
        there + 2 * fresh <= PROPOSAL_OPERATIONS_MAX
    }

    /// Likewise for one node, which is what a search asks again and again.
    pub(super) fn joins_one(&self, rows: &Rows, node: NodeId) -> bool {
        if !rows.licenses.is_empty() {
            return self.joins(rows, &[node]);
        }
        let there = match (self.slot_of(&rows.path), self.nodes.get(&node).copied()) {
            (None, None) => return self.may_open() || self.joins(rows, &[node]),
            (Some(slot), None) => operations(&self.open[&slot]) + 2,
            (None, Some(slot)) => operations(&self.open[&slot]),
            (Some(a), Some(b)) if a == b => operations(&self.open[&a]),
            (Some(a), Some(b)) => operations(&self.open[&a]) + operations(&self.open[&b]),
        };
        there + 2 * (self.fresh(rows) + 1) <= PROPOSAL_OPERATIONS_MAX
    }

    /// Of these rows those that are in no commit yet.
    fn fresh(&self, rows: &Rows) -> usize {
        let licenses = rows.licenses.iter().filter(|id| !self.licenses.contains_key(id));
        rows.path.iter().filter(|id| !self.tenants.contains_key(id)).count() + licenses.count()
    }

    fn touched(&self, rows: &Rows, nodes: &[NodeId]) -> BTreeSet<Slot> {
        let of_nodes = nodes.iter().filter_map(|id| self.nodes.get(id).copied());
        of_nodes.chain(self.slot_of(&rows.path)).chain(self.slots_of(&rows.licenses)).collect()
    }

    /// The commit for a grant of these; merges those that must become one.
    fn join(&mut self, rows: &Rows, nodes: &[NodeId]) -> Slot {
        let touched = self.touched(rows, nodes);
        let slot = match touched.first() {
            Some(&slot) => slot,
            None if self.may_open() => {
                self.next += 1;
                self.open.insert(self.next, InFlight::default());
                self.next
            }
            None => {
                let smallest = self.open.iter().min_by_key(|(_, commit)| operations(commit));
                *smallest.expect("the pass has open commits here").0
            }
        };
        for other in touched.into_iter().filter(|&other| other != slot) {
            world::mark!("scheduler.pass.commits_become_one");
            let merged = self.open.remove(&other).expect("touched commits are open");
            merged.nodes.iter().for_each(|&id| _ = self.nodes.insert(id, slot));
            merged.tenants.iter().for_each(|&id| _ = self.tenants.insert(id, slot));
            merged.licenses.iter().for_each(|&id| _ = self.licenses.insert(id, slot));
            let into = self.open.get_mut(&slot).expect("it is open");
            into.nodes.extend(merged.nodes);
            into.tenants.extend(merged.tenants);
            into.licenses.extend(merged.licenses);
            into.grants.extend(merged.grants);
        }
        let commit = self.open.get_mut(&slot).expect("it is open");
        for &id in nodes {
            self.nodes.insert(id, slot);
            commit.nodes.insert(id);
        }
        for &id in &rows.path {
            self.tenants.insert(id, slot);
            commit.tenants.insert(id);
        }
        for &id in &rows.licenses {
            self.licenses.insert(id, slot);
            commit.licenses.insert(id);
        }
        slot
    }
}

impl Core {
    /// Decides. Each proposal is to be committed, and its outcome told by
    /// [`super::Event::Outcome`]; until then what it grants counts as taken.
    pub fn plan(&mut self, now: Now) -> Vec<Proposal> {
        self.now = now;
        self.wake();
        self.more = false;
        if self.store_backoff_until_ms > now.mono_ms || self.in_flight.len() >= PROPOSALS_IN_FLIGHT_MAX {
            return Vec::new();
        }
        self.plan_scans = 0;
        self.review_plans();
        self.remember_cluster();
        let mut pass = Pass::new();
        for &id in &self.tenants.waiting {
            if self.may_plan(id) {
                self.line_up(&mut pass.turns, id);
            }
        }
        while let Some(tenant) = pass.turns.pop() {
            if pass.is_over() {
                world::mark!("scheduler.pass.leaves_the_rest");
                self.more = true;
                break;
            }
            let again = self.take_turn(&mut pass, tenant);
            self.line_up_again(&mut pass.turns, tenant, again);
        }
        let mut proposals = pass.full;
        proposals.extend(pass.open.into_values().map(|commit| self.propose(commit)));
        proposals.extend(self.preempt(pass.wanting));
        proposals
    }

    /// Its row is known, and nothing about it or its groups is in the air.
    pub(super) fn may_plan(&self, id: TenantId) -> bool {
        self.tenants.path(id).into_iter().map(|id| self.tenants.get(id)).all(|tenant| {
            tenant.row.is_some() && tenant.is_settled() && tenant.backoff_until_ms <= self.now.mono_ms
        })
    }

    /// One grant for this tenant, if there can be one.
    fn take_turn(&mut self, pass: &mut Pass, tenant: TenantId) -> bool {
        let mut after: Option<(Place, ShapeId)> = None;
        let mut closed: Vec<&'static str> = Vec::new();
        let mut looked_at = 0;
        let rows = Rows { path: self.tenants.path(tenant), ..Rows::default() };
        if pass.is_full_for(&rows) {
            return false;
        }
        let by_groups = pass.closed.iter().filter(|(group, _)| rows.path.contains(group));
        let by_groups: Vec<&'static str> = by_groups.map(|&(_, dimension)| dimension).collect();
        while let Some((place, shape)) = self.tenants.get(tenant).queue.head_after(after) {
            if pass.is_over() {
                self.more = true;
                return false;
            }
            pass.heads_examined += 1;
            let key = Self::key_at(tenant, place);
            let is_head = after.is_none();
            let may_plan = looked_at < self.config.backfill_depth;
            looked_at += 1;
            let barred = !is_head && self.uses_closed(shape, &closed) || self.uses_closed(shape, &by_groups);
            if barred {
                world::mark!("scheduler.pass.limit_held_back");
                // Its nodes are of more use to others until its tenant may start it.
                self.drop_plan(key);
            }
            let skip = barred || !may_plan && self.is_hopeless(key, shape);
            match if skip { None } else { Some(self.choose(pass, key)) } {
                Some(Ok(choice)) => {
                    if !is_head {
                        world::mark!("scheduler.pass.behind_the_first");
                    }
                    self.draft(pass, key, shape, choice);
                    return true;
                }
                Some(Err(blocked)) => {
                    match &blocked {
                        Blocked::Capacity(failed) => {
                            world::mark!("scheduler.blocked.by_capacity");
                            self.demands.shape_mut(shape).failed = Some(*failed);
                        }
                        Blocked::Limit(_) => {
                            world::mark!("scheduler.blocked.by_a_limit");
                            self.drop_plan(key);
                        }
                        Blocked::Licenses(_) => world::mark!("scheduler.blocked.by_licenses"),
                        Blocked::Joining => world::mark!("scheduler.blocked.by_the_pass"),
                    }
                    if may_plan {
                        self.is_blocked(pass, key, &blocked);
                    }
                    if is_head {
                        let held_back = self.limits_held_back(key, &blocked);
                        closed = held_back.iter().map(|&(_, dimension)| dimension).collect();
                        pass.closed.extend(held_back.into_iter().filter(|&(of, _)| of != tenant));
                    }
                }
                None => world::mark!("scheduler.pass.hopeless_or_barred"),
            }
            after = Some((place, shape));
        }
        false
    }

    /// Its shape fitted nowhere, and nothing was freed since.
    fn is_hopeless(&self, key: StepKey, shape: ShapeId) -> bool {
        self.has_no_news(shape) && !self.plans.contains_key(&key) && !self.is_promised(key)
    }

    /// A tenant's limit is held back for the first of its queue, in what that
    /// is short of.
    pub(super) fn uses_closed(&self, shape: ShapeId, closed: &[&'static str]) -> bool {
        if closed.is_empty() {
            return false;
        }
        let shape = &self.demands.shape(shape).shape;
        let least = shape.least();
        closed.iter().any(|dimension| match *dimension {
            "cores" => least.millicores > 0,
            "memory" => least.memory_bytes > 0 || shape.exclusive,
            _ => least.gpus > 0,
        })
    }

    /// One of the first of a queue cannot start. After a while its start is planned.
    fn is_blocked(&mut self, pass: &mut Pass, key: StepKey, blocked: &Blocked) {
        let (now_ms, after_ms) = (self.now.mono_ms, self.config.reserve_after_ms);
        let is_behind = self.is_behind_others(pass, key);
        let entry = self.demands.get_mut(key).expect("heads are demands");
        let since_ms = *entry.blocked_since_ms.get_or_insert(now_ms);
        if since_ms.saturating_add(after_ms) > now_ms {
            self.hints.insert(since_ms + after_ms);
        } else if !matches!(blocked, Blocked::Limit(_)) && !is_behind {
            self.plan_start(key);
        }
        if matches!(blocked, Blocked::Capacity(_)) && self.would_preempt(key) {
            pass.wanting.push(Wanting { key, may_reclaim: !is_behind });
        }
        if matches!(blocked, Blocked::Capacity(_) | Blocked::Licenses(_)) && !is_behind {
            self.note_blocked(pass, key);
        }
    }

    /// Another tenant's turn came before, and it is blocked too by want of what this one
    /// asks for: all room for this one is first room for that. Were this one's start
    /// planned, its tenant would get more than its part, as often as it has waited longer.
    fn is_behind_others(&self, pass: &Pass, key: StepKey) -> bool {
        let shape_of = |key| self.demands.get(key).map(|entry| &self.demands.shape(entry.shape).shape);
        let Some(shape) = shape_of(key) else { return false };
        pass.blocked.iter().any(|other| {
            other.tenant != key.tenant && shape_of(*other).is_some_and(|other| other.asks_less_than(shape))
        })
    }

    /// Takes note of it for those behind, unless its planned start is all its tenant wants.
    fn note_blocked(&self, pass: &mut Pass, key: StepKey) {
        let Some(entry) = self.demands.get(key) else { return };
        let gang = self.demands.shape(entry.shape).shape.gang.is_some();
        let others = self.tenants.get(key.tenant).queue.iter().nth(1);
        let is_all = entry.wanted(gang) == 1 && others.is_none();
        if pass.blocked.len() < PASS_BLOCKED_MAX && !(is_all && self.plans.contains_key(&key)) {
            pass.blocked.push(key);
        }
    }

    /// The dimensions of limits, its tenant's and its groups', that are held back for
    /// the first of a queue, which is blocked so.
    pub(super) fn limits_held_back(&self, key: StepKey, blocked: &Blocked) -> Vec<(TenantId, &'static str)> {
        let since_ms = self.demands.get(key).and_then(|entry| entry.blocked_since_ms);
        let due = since_ms.is_some_and(|ms| ms + self.config.reserve_after_ms <= self.now.mono_ms);
        match blocked {
            // What can never start under this limit is waited for by nobody.
            Blocked::Limit(shortages) if due && shortages.iter().all(|s| s.need <= s.limit) => {
                shortages.iter().map(|s| (s.of, s.dimension)).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Takes a choice into the pass and counts it.
    fn draft(&mut self, pass: &mut Pass, key: StepKey, shape_id: ShapeId, choice: Choice) {
        let shape = self.demands.shape(shape_id).shape.clone();
        let (per_slot, granted_ms) = (shape.per_slot, self.now.wall_ms);
        let ends_by_ms = match granted_ms.saturating_add(self.span_ms(key)) {
            NEVER => 0,
            ends_by_ms => ends_by_ms,
        };
        let path = self.tenants.path(key.tenant);
        let groups = path[1..].to_vec();
        let units = if shape.gang.is_some() { 1 } else { choice.slots() };
        let mut licenses = self.licenses_of(&shape);
        let rows = Rows { path, licenses: licenses.iter().map(|&(id, _)| id).collect() };
        licenses.iter_mut().for_each(|(_, count)| *count *= units);
        let capacity = |&(id, _): &(NodeId, u32)| self.nodes.get(id).capacity.of_one_node();
        let whole = if shape.exclusive { choice.nodes.iter().map(capacity).collect() } else { Vec::new() };
        let (version, nodes) = (0, choice.nodes);
        let (preemption, row) = (None, None);
        let held = Held {
            key,
            nodes,
            per_slot,
            whole,
            licenses,
            groups,
            ends_by_ms,
            version,
            granted_ms,
            preemption,
            row,
        };
        self.assert_allowed(&held);
        self.hold(&held);
        self.turns += 1;
        rows.path.iter().for_each(|&id| self.tenants.get_mut(id).last_turn = self.turns);
        self.drop_plan(key);

        let nodes: Vec<NodeId> = held.nodes.iter().map(|&(id, _)| id).collect();
        let slots = held.slots();
        let gang = shape.gang.is_some();
        if shape.exclusive {
            world::mark!("scheduler.grant.whole_nodes");
        }
        let slot = pass.join(&rows, &nodes);
        let commit = pass.open.get_mut(&slot).expect("it was joined");
        let same = commit
            .grants
            .iter_mut()
            .rev()
            .find(|d| !gang && d.held.key == key && d.shape == shape_id && d.held.nodes[0].0 == nodes[0])
            .filter(|d| d.held.slots() + slots <= GRANT_SLOTS_MAX);
        let entry = self.demands.get_mut(key).expect("what is drafted is a demand");
        entry.blocked_since_ms = None;
        if gang {
            world::mark!("scheduler.grant.gang");
        }
        if let Some(drafted) = same {
            world::mark!("scheduler.grant.grows_in_its_pass");
            drafted.held.nodes[0].1 += held.nodes[0].1;
            for (mine, (_, more)) in drafted.held.licenses.iter_mut().zip(&held.licenses) {
                mine.1 += more;
            }
            let mine = entry.outstanding.iter_mut().find(|o| o.epoch == drafted.epoch);
            mine.expect("a draft is outstanding").slots += slots;
        } else {
            let drafted = pass.drafted.entry(key.tenant).or_default();
            *drafted += 1;
            let epoch = self.tenants.get(key.tenant).epoch + *drafted;
            commit.grants.push(Drafted { shape: shape_id, gang, epoch, held });
            pass.grants += 1;
            let slots = if gang { 1 } else { slots };
            let since_ms = self.now.mono_ms;
            entry.outstanding.push(Outstanding { epoch, slots, since_ms, lapses_ms: u64::MAX });
        }
        self.requeue(key);
        // A full commit leaves the pass, and its nodes the index, at once.
        if let Some(commit) = pass.open.remove(&slot) {
            if is_full(&commit) {
                let proposal = self.propose(commit);
                pass.full.push(proposal);
            } else {
                pass.open.insert(slot, commit);
            }
        }
    }

    /// What must hold at the moment of granting.
    fn assert_allowed(&self, held: &Held) {
        assert!(held.nodes.iter().all(|&(_, slots)| slots > 0), "a grant is of something");
        for (id, part) in held.parts() {
            let node = self.nodes.get(id);
            assert!(node.is_open() && node.is_settled(), "node {} is not to be used", node.name);
            assert!(!part.alone || node.is_idle(), "node {} is not idle", node.name);
            let need = part.amount;
            assert!(need.fits_in(node.free()), "node {} would be over-committed", node.name);
            let now_ms = self.now.wall_ms;
            let until_ms = if held.ends_by_ms == 0 { NEVER } else { held.ends_by_ms };
            let room = node.line.room(node.capacity, now_ms, (now_ms, until_ms), held.key);
            assert!(need.fits_in(room), "on node {} it would be in the way of what is planned", node.name);
        }
        let shortages = self.tenants.shortages(held.key.tenant, held.amount());
        let name = &self.tenants.get(held.key.tenant).name;
        assert!(shortages.is_empty(), "tenant {name} would pass a limit: {shortages:?}");
        for &(id, count) in &held.licenses {
            let license = self.licenses.get(id);
            assert!(license.is_settled(), "license {} is not to be used", license.name);
            assert!(count <= license.free(), "license {} would be given away twice", license.name);
        }
    }

    /// Makes a commit of grants and marks all its rows.
    fn propose(&mut self, commit: InFlight) -> Proposal {
        let id = self.next_proposal;
        self.next_proposal += 1;
        let rows: Vec<GrantRow> = commit.grants.iter().map(|drafted| self.grant_row(drafted)).collect();
        let proposal = Proposal { id, commit: self.commit_of(&commit, &rows), grants: rows };
        let operations = proposal.commit.guards.len() + proposal.commit.writes.len();
        assert!(operations <= PROPOSAL_OPERATIONS_MAX, "a proposal of {operations} operations");
        for &node in &commit.nodes {
            self.nodes.set_in_flight(node, Some(id));
        }
        for &tenant in &commit.tenants {
            self.tenants.get_mut(tenant).in_flight = Some(id);
        }
        for &license in &commit.licenses {
            self.licenses.get_mut(license).in_flight = Some(id);
        }
        self.in_flight.insert(id, commit);
        proposal
    }

    fn grant_row(&self, drafted: &Drafted) -> GrantRow {
        let held = &drafted.held;
        GrantRow {
            tenant: self.tenants.get(held.key.tenant).name.clone(),
            job_number: held.key.job_number,
            step: held.key.step,
            epoch: drafted.epoch,
            nodes: held
                .nodes
                .iter()
                .map(|&(id, slots)| GrantNode { node: self.nodes.get(id).name.clone(), slots })
                .collect(),
            per_slot: Some(held.per_slot.to_resources()),
            granted_ms: self.now.wall_ms,
            gang: drafted.gang,
            feed_until_ms: self.now.wall_ms.saturating_add(self.config.quantum_ms),
            submitted_ms: self.demands.get(held.key).map_or(0, |entry| entry.queued_ms),
            ends_by_ms: held.ends_by_ms,
            groups: held.groups.iter().map(|&id| self.tenants.get(id).name.clone()).collect(),
            whole: held.whole.iter().map(|whole| whole.to_resources()).collect(),
            licenses: held
                .licenses
                .iter()
                .map(|&(id, count)| (self.licenses.get(id).name.clone(), count))
                .collect(),
            ..GrantRow::default()
        }
    }

    fn commit_of(&self, commit: &InFlight, rows: &[GrantRow]) -> store::Commit {
        let mut done = store::Commit::default();
        let mut put = |key: Bytes, expect: Expect, value: Vec<u8>| {
            done.guards.push(Guard { key: key.clone(), expect });
            done.writes.push(Write { key, value: Some(value.into()), lease: 0 });
        };
        // The newest epoch that touches each row.
        let mut nodes: BTreeMap<NodeId, u64> = BTreeMap::new();
        let mut tenants: BTreeMap<TenantId, u64> = BTreeMap::new();
        let mut licenses: BTreeMap<LicenseId, u64> = BTreeMap::new();
        for drafted in &commit.grants {
            for &(id, _) in &drafted.held.nodes {
                let epoch = nodes.entry(id).or_default();
                *epoch = drafted.epoch.max(*epoch);
            }
            for id in drafted.held.counted_in() {
                let epoch = tenants.entry(id).or_default();
                *epoch = drafted.epoch.max(*epoch);
            }
            for &(id, _) in &drafted.held.licenses {
                let epoch = licenses.entry(id).or_default();
                *epoch = drafted.epoch.max(*epoch);
            }
        }
        for (id, epoch) in nodes {
            let node = self.nodes.get(id);
            put(keys::alloc_node(&node.name), expect(node.version), AllocRow { epoch }.encode_to_vec());
        }
        for (id, epoch) in tenants {
            let tenant = self.tenants.get(id);
            put(keys::alloc_tenant(&tenant.name), expect(tenant.version), AllocRow { epoch }.encode_to_vec());
        }
        for (id, epoch) in licenses {
            let license = self.licenses.get(id);
            let key = keys::alloc_license(&license.name);
            put(key, expect(license.version), AllocRow { epoch }.encode_to_vec());
        }
        for row in rows {
            put(keys::grant(&row.tenant, row.epoch), Expect::Absent, row.encode_to_vec());
        }
        done
    }
}

pub(super) fn expect(version: Revision) -> Expect {
    if version == 0 { Expect::Absent } else { Expect::Version(version) }
}
