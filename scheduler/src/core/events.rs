//! Bringing the view up to date.
//!
//! What must hold: rows may be told more than once and old ones again (after a
//! re-read); the view ends where the rows end. A grant whose commit is known
//! never vanishes from the view before its deletion was seen.

use super::demands::Outstanding;
use super::nodes::{Node, NodeId};
use super::tenants::{Ceiling, TenantId};
use super::timeline::Kept;
use super::{AllocOf, Core, Event, Held, Snapshot, StepKey};
use crate::amount::Amount;
use proto::v1::{Demand, DemandKey, DemandUpdate, GrantRow, NodeRow, TenantRow};
use std::collections::BTreeSet;
use store::Revision;
use world::clock::Now;

/// A grant that ends within so long was not used.
const RETURNED_AT_ONCE_MS: u64 = 100;
/// Grants given back in a row that are taken for chance.
const RETURNED_FREE: u32 = 3;
/// The longest rest after more of them.
const RETURNED_REST_MS_MAX: u64 = 1_000;

impl Core {
    /// Takes one event into the view. Decides nothing: see [`Core::plan`].
    pub fn step(&mut self, now: Now, event: Event) {
        self.now = now;
        match event {
            Event::Node(row) => self.node(row),
            Event::NodeGone(name) => self.node_gone(&name),
            Event::Tenant(row) => self.tenant(row),
            Event::TenantGone(name) => self.tenant_gone(&name),
            Event::Granted { row, revision } => {
                self.granted(&row, revision);
                self.grants_through = self.grants_through.max(revision);
            }
            Event::Released { tenant, epoch, revision } => {
                if let Some(tenant) = self.tenants.id(&tenant) {
                    self.released(tenant, epoch);
                }
                self.grants_through = self.grants_through.max(revision);
            }
            Event::Reread(snapshot) => self.reread(*snapshot),
            Event::Demand(update) => self.demand(update),
            Event::Outcome { proposal, outcome } => self.outcome(proposal, outcome),
            Event::Tick => {}
        }
    }

    fn node(&mut self, row: NodeRow) {
        let id = self.nodes.intern(&row.name);
        if self.nodes.get(id).row.as_ref() != Some(&row) {
            let kept = row.reservations.iter().map(|kept| Kept {
                from_ms: kept.from_ms,
                until_ms: kept.until_ms,
                tenants: kept.tenants.iter().map(|name| self.tenants.intern(name)).collect(),
            });
            let kept: Vec<Kept> = kept.filter(|kept| kept.from_ms < kept.until_ms).collect();
            self.openings.extend(kept.iter().map(|kept| (kept.until_ms, id)));
            self.nodes.set_row(id, Some(row));
            if self.nodes.line_mut(id).keep(kept) {
                world::mark!("scheduler.node.kept");
                self.nodes.note_freed(id);
            }
        }
    }

    fn node_gone(&mut self, name: &str) {
        if let Some(id) = self.nodes.id(name) {
            self.nodes.set_row(id, None);
            self.nodes.line_mut(id).keep(Vec::new());
        }
    }

    fn tenant(&mut self, row: TenantRow) {
        let id = self.tenants.intern(&row.name);
        let parent = (!row.parent.is_empty()).then(|| self.tenants.intern(&row.parent));
        let tenant = self.tenants.get_mut(id);
        tenant.parent = parent;
        tenant.ceiling = Ceiling::of(&row);
        tenant.row = Some(row);
    }

    fn tenant_gone(&mut self, name: &str) {
        if let Some(id) = self.tenants.id(name) {
            self.tenants.get_mut(id).row = None;
        }
    }

    /// A grant row was put, by this scheduler or another: its alloc rows were put in
    /// the same commit. A row that is known and comes once more says nothing of
    /// them: something else than a scheduler has written it again.
    pub(super) fn granted(&mut self, row: &GrantRow, revision: Revision) {
        let tenant = self.tenants.intern(&row.tenant);
        if self.grants.contains_key(&(tenant, row.epoch)) {
            self.written_again((tenant, row.epoch), row, revision);
        } else if row.again {
            self.take_in(row, revision, true);
        } else {
            for name in std::iter::once(&row.tenant).chain(&row.groups) {
                let id = self.tenants.intern(name);
                let known = self.tenants.get_mut(id);
                known.version = known.version.max(revision);
            }
            for node in &row.nodes {
                let id = self.nodes.intern(&node.node);
                self.nodes.saw_version(id, revision);
            }
            for name in row.licenses.keys() {
                let id = self.licenses.intern(name);
                let known = self.licenses.get_mut(id);
                known.version = known.version.max(revision);
            }
            self.take_in(row, revision, true);
        }
    }

    /// Counts a grant that is not known yet. `told`: by the commit of this revision.
    fn take_in(&mut self, row: &GrantRow, revision: Revision, told: bool) {
        let tenant = self.tenants.intern(&row.tenant);
        let known = self.tenants.get_mut(tenant);
        known.epoch = known.epoch.max(row.epoch);
        if self.grants.contains_key(&(tenant, row.epoch)) {
            self.written_again((tenant, row.epoch), row, revision);
            return;
        }
        let key = StepKey { tenant, job_number: row.job_number, step: row.step };
        let nodes = row.nodes.iter().map(|node| (self.nodes.intern(&node.node), node.slots)).collect();
        let per_slot = Amount::of(row.per_slot.as_ref());
        let held = Held {
            key,
            nodes,
            per_slot,
            whole: row.whole.iter().map(|whole| Amount::of(Some(whole)).of_one_node()).collect(),
            licenses: row
                .licenses
                .iter()
                // No more than there may be: see `Amount::of_one_node`.
                .map(|(name, &count)| (self.licenses.intern(name), count.min(u64::from(u32::MAX))))
                .collect(),
            groups: row.groups.iter().map(|name| self.tenants.intern(name)).collect(),
            ends_by_ms: row.ends_by_ms,
            version: revision,
            granted_ms: row.granted_ms,
            preemption: None,
            row: self.row_kept(row),
        };
        let slots = if row.gang { 1 } else { held.slots() };
        self.hold(&held);
        self.redeem(key, &held.nodes);
        self.grants.insert((tenant, row.epoch), held);
        self.note_preemption((tenant, row.epoch), row, revision, told);
        self.outstanding(key, row.epoch, slots);
    }

    /// A grant row was deleted.
    fn released(&mut self, tenant: TenantId, epoch: u64) {
        let Some(held) = self.grants.remove(&(tenant, epoch)) else { return };
        self.let_go(&held);
        if let Some(given) = &held.preemption {
            self.gave_way((tenant, epoch), given);
        }
        let (key, now_ms) = (held.key, self.now.mono_ms);
        let Some(entry) = self.demands.get_mut(key) else { return };
        // Its controller has seen it: whatever it says now counts it. One that
        // gives back grant after grant at once and without a word has other news
        // than this view, a lost node perhaps; that must not turn into a hot loop.
        let at_once = |o: &Outstanding| o.epoch == epoch && o.since_ms + RETURNED_AT_ONCE_MS > now_ms;
        if entry.outstanding.iter().any(at_once) {
            world::mark!("scheduler.grant.returned_at_once");
            entry.returned = entry.returned.saturating_add(1);
            if entry.returned > RETURNED_FREE {
                let span = (1 << (entry.returned - RETURNED_FREE).min(16)).min(RETURNED_REST_MS_MAX);
                world::mark!("scheduler.grant.returned_again_and_again");
                entry.resting_until_ms = now_ms + span;
                self.lapses.insert((entry.resting_until_ms, key));
            }
        } else {
            entry.returned = 0;
        }
        entry.outstanding.retain(|o| o.epoch != epoch);
        self.requeue(key);
    }

    /// Counts what a grant or a draft holds.
    pub(super) fn hold(&mut self, held: &Held) {
        for (node, part) in held.parts() {
            self.nodes.take(node, part);
            for id in held.counted_in() {
                let tenant = self.tenants.get_mut(id);
                tenant.held = tenant.held.plus(part.amount);
            }
        }
        self.licenses.take(&held.licenses, held.ends_by_ms);
        held.counted_in().for_each(|id| self.remember(id));
    }

    /// The reverse of [`Core::hold`].
    pub(super) fn let_go(&mut self, held: &Held) {
        for (node, part) in held.parts() {
            self.nodes.release(node, part);
            held.counted_in().for_each(|id| self.tenants.get_mut(id).held.release(part.amount));
        }
        self.licenses.release(&held.licenses, held.ends_by_ms);
        held.counted_in().for_each(|id| self.remember(id));
    }

    /// Slots that the controller has not counted yet, as far as known.
    pub(super) fn outstanding(&mut self, key: StepKey, epoch: u64, slots: u64) {
        let since_ms = self.now.mono_ms;
        let lapses_ms = since_ms + self.config.outstanding_ms;
        let Some(entry) = self.demands.get_mut(key) else { return };
        if entry.outstanding.iter().any(|o| o.epoch == epoch) {
            return;
        }
        entry.outstanding.push(Outstanding { epoch, slots, since_ms, lapses_ms });
        self.lapses.insert((lapses_ms, key));
        self.requeue(key);
    }

    fn reread(&mut self, snapshot: Snapshot) {
        // What was read is so, whatever was concluded before: rows may have been
        // written again by something else than schedulers. Only what was committed
        // from here since then is newer.
        let settled = |known: Revision, read| if known > snapshot.revision { known.max(read) } else { read };
        for alloc in snapshot.allocs {
            match alloc.of {
                AllocOf::Node(name) => {
                    let id = self.nodes.intern(&name);
                    let version = settled(self.nodes.get(id).version, alloc.version);
                    self.nodes.read_version(id, version);
                }
                AllocOf::Tenant(name) => {
                    let id = self.tenants.intern(&name);
                    let tenant = self.tenants.get_mut(id);
                    tenant.epoch = tenant.epoch.max(alloc.epoch);
                    tenant.version = settled(tenant.version, alloc.version);
                    tenant.stale_below = tenant.stale_below.min(tenant.version);
                }
                AllocOf::License(name) => {
                    let id = self.licenses.intern(&name);
                    let license = self.licenses.get_mut(id);
                    license.version = settled(license.version, alloc.version);
                    license.stale_below = license.stale_below.min(license.version);
                }
            }
        }
        // Grants made after the watch began are told by it, and so is their end.
        let read: BTreeSet<(&str, u64)> =
            snapshot.grants.iter().map(|(row, _)| (row.tenant.as_str(), row.epoch)).collect();
        let gone: Vec<(TenantId, u64)> = self
            .grants
            .iter()
            .filter(|((tenant, epoch), held)| {
                held.version <= snapshot.revision
                    && !read.contains(&(self.tenants.get(*tenant).name.as_str(), *epoch))
            })
            .map(|(&id, _)| id)
            .collect();
        for (tenant, epoch) in gone {
            self.released(tenant, epoch);
        }
        for (row, version) in &snapshot.grants {
            if *version > snapshot.revision {
                self.granted(row, *version);
            } else {
                self.take_in(row, *version, false);
            }
        }
        self.grants_through = self.grants_through.max(snapshot.revision);
        self.reread_rest(snapshot.nodes, snapshot.tenants);
    }

    fn reread_rest(&mut self, nodes: Vec<NodeRow>, tenants: Vec<TenantRow>) {
        let read: BTreeSet<String> = nodes.iter().map(|row| row.name.clone()).collect();
        let gone: Vec<String> = self
            .nodes
            .iter()
            .filter(|(_, node)| node.row.is_some() && !read.contains(&node.name))
            .map(|(_, node)| node.name.clone())
            .collect();
        gone.iter().for_each(|name| self.node_gone(name));
        nodes.into_iter().for_each(|row| self.node(row));
        let read: BTreeSet<String> = tenants.iter().map(|row| row.name.clone()).collect();
        let gone: Vec<String> = self
            .tenants
            .iter()
            .filter(|(_, tenant)| tenant.row.is_some() && !read.contains(&tenant.name))
            .map(|(_, tenant)| tenant.name.clone())
            .collect();
        gone.iter().for_each(|name| self.tenant_gone(name));
        tenants.into_iter().for_each(|row| self.tenant(row));
        self.reread_due_ms = None;
    }

    fn demand(&mut self, update: DemandUpdate) {
        let fresh = u32::try_from(self.controllers.len()).expect("fewer controllers than 2^32");
        let controller = *self.controllers.entry(update.controller.clone()).or_insert(fresh);
        self.yielding_told(controller, &update);
        if update.snapshot {
            self.licenses.told(&update.licenses);
            let told: BTreeSet<StepKey> =
                update.changed.iter().filter_map(|d| self.key(d.key.as_ref()?)).collect();
            let forgotten: Vec<StepKey> = self
                .demands
                .iter()
                .filter(|(key, entry)| entry.controller == controller && !told.contains(key))
                .map(|(key, _)| key)
                .collect();
            if !forgotten.is_empty() {
                world::mark!("scheduler.demand.forgotten_by_a_snapshot");
            }
            forgotten.into_iter().for_each(|key| self.forget(key));
        }
        for key in &update.gone {
            self.demand_gone(key, controller);
        }
        for demand in &update.changed {
            self.demand_changed(demand, controller);
        }
    }

    fn demand_changed(&mut self, told: &Demand, controller: u32) {
        let Some(key) = &told.key else { return };
        let tenant = self.tenants.intern(&key.tenant);
        let key = StepKey { tenant, job_number: key.job_number, step: key.step };
        told.licenses.keys().for_each(|name| _ = self.licenses.intern(name));
        self.dequeue(key);
        let lapses_ms = self.now.mono_ms + self.config.outstanding_told_ms;
        self.demands.put(key, told, controller, lapses_ms);
        if let Some(entry) = self.demands.get(key) {
            let lapses = entry.outstanding.iter().map(|o| o.lapses_ms).filter(|&ms| ms != u64::MAX);
            self.lapses.extend(lapses.map(|ms| (ms, key)));
        }
        self.requeue(key);
    }

    /// What another controller has taken over since is not this one's to end.
    fn demand_gone(&mut self, key: &DemandKey, controller: u32) {
        let Some(key) = self.key(key) else { return };
        if self.demands.get(key).is_some_and(|entry| entry.controller == controller) {
            self.forget(key);
        }
    }

    fn forget(&mut self, key: StepKey) {
        self.dequeue(key);
        self.demands.remove(key);
        self.drop_plan(key);
        self.drop_promise(key);
    }

    /// Time passed: what waited for it is looked at again.
    pub(super) fn wake(&mut self) {
        while let Some(&(wall_ms, key)) = self.not_before.first()
            && wall_ms <= self.now.wall_ms
        {
            self.not_before.pop_first();
            self.requeue(key);
        }
        // Where the clock goes back nodes are kept again that had been open.
        if self.now.wall_ms < self.woken_wall_ms {
            world::mark!("scheduler.clock.went_back");
            let untils =
                |(id, node): (NodeId, &Node)| node.line.kept_until().map(move |ms| (ms, id)).collect();
            let again: Vec<Vec<(u64, NodeId)>> = self.nodes.iter().map(untils).collect();
            self.openings.extend(again.into_iter().flatten());
        }
        self.woken_wall_ms = self.now.wall_ms;
        while let Some(&(wall_ms, id)) = self.openings.first()
            && wall_ms <= self.now.wall_ms
        {
            self.openings.pop_first();
            self.nodes.note_freed(id);
        }
        while let Some(&(mono_ms, key)) = self.lapses.first()
            && mono_ms <= self.now.mono_ms
        {
            self.lapses.pop_first();
            if let Some(entry) = self.demands.get_mut(key) {
                entry.outstanding.retain(|o| o.lapses_ms > mono_ms);
                self.requeue(key);
            }
        }
        self.lapse_promises();
        while self.hints.first().is_some_and(|&ms| ms <= self.now.mono_ms) {
            self.hints.pop_first();
        }
        if self.reread_due_ms.is_some_and(|ms| ms <= self.now.mono_ms) {
            self.reread_due_ms = None;
            let stale = self.nodes.iter().any(|(_, node)| node.version < node.stale_below)
                || self.tenants.iter().any(|(_, tenant)| tenant.version < tenant.stale_below)
                || self.licenses.iter().any(|(_, license)| license.version < license.stale_below);
            self.wants_reread |= stale;
        }
    }
}
