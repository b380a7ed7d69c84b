//! What became of proposals.
//!
//! What must hold: once an outcome is known, each grant of the proposal is
//! either in the view as any other grant, or leaves no trace. An indeterminate
//! one is treated as not done: if it was done, the watch shows its grants, and
//! until then its guards make every further proposal on the same rows conflict.

use super::{AllocOf, Core, InFlight, Outcome, ProposalId};
use proto::keys::{self, Parsed};
use store::Revision;

impl Core {
    pub(super) fn outcome(&mut self, id: ProposalId, outcome: Outcome) {
        let Some(proposal) = self.in_flight.remove(&id) else { return };
        match &outcome {
            Outcome::Committed(revision) => self.committed(&proposal, *revision),
            _ => self.undo(&proposal),
        }
        for &node in &proposal.nodes {
            self.nodes.set_in_flight(node, None);
        }
        for &tenant in &proposal.tenants {
            self.tenants.get_mut(tenant).in_flight = None;
        }
        for &license in &proposal.licenses {
            self.licenses.get_mut(license).in_flight = None;
        }
        match outcome {
            Outcome::Committed(_) => {
                self.store_failures = 0;
                self.store_backoff_until_ms = 0;
                for &tenant in &proposal.tenants {
                    self.tenants.get_mut(tenant).conflicts = 0;
                }
            }
            Outcome::Conflict { key, found } => {
                // What was to give way has changed: a watch tells how.
                if proposal.asks.is_empty() || !key.starts_with(keys::GRANTS.as_bytes()) {
                    self.conflicted(&key, found);
                } else {
                    world::mark!("scheduler.preempt.asked_too_late");
                }
                self.back_off_tenants(&proposal);
            }
            Outcome::Indeterminate => self.back_off_tenants(&proposal),
            Outcome::Failed => self.back_off_store(),
        }
    }

    fn committed(&mut self, proposal: &InFlight, revision: Revision) {
        // The watch may have been faster, and may even have told the end.
        let told = revision <= self.grants_through;
        for &node in &proposal.nodes {
            self.nodes.saw_version(node, revision);
        }
        for &id in &proposal.tenants {
            let tenant = self.tenants.get_mut(id);
            tenant.version = tenant.version.max(revision);
        }
        self.asked(&proposal.asks, revision);
        for &id in &proposal.licenses {
            let license = self.licenses.get_mut(id);
            license.version = license.version.max(revision);
        }
        for drafted in &proposal.grants {
            let id = (drafted.held.key.tenant, drafted.epoch);
            let tenant = self.tenants.get_mut(id.0);
            tenant.epoch = tenant.epoch.max(drafted.epoch);
            if told || self.grants.contains_key(&id) {
                world::mark!("scheduler.outcome.watch_was_faster");
                self.let_go(&drafted.held);
            } else {
                let mut held = drafted.held.clone();
                held.version = revision;
                self.redeem(held.key, &held.nodes);
                self.grants.insert(id, held);
            }
            let ended = told && !self.grants.contains_key(&id);
            if ended {
                world::mark!("scheduler.outcome.over_before_it_was_told");
            }
            let lapses_ms = self.now.mono_ms + self.config.outstanding_ms;
            if let Some(entry) = self.demands.get_mut(drafted.held.key) {
                entry.outstanding.retain(|o| !(ended && o.epoch == drafted.epoch));
                for o in entry.outstanding.iter_mut().filter(|o| o.epoch == drafted.epoch) {
                    o.lapses_ms = lapses_ms;
                }
                self.lapses.insert((lapses_ms, drafted.held.key));
                self.requeue(drafted.held.key);
            }
        }
    }

    fn undo(&mut self, proposal: &InFlight) {
        for drafted in &proposal.grants {
            self.let_go(&drafted.held);
            let key = drafted.held.key;
            if let Some(entry) = self.demands.get_mut(key) {
                entry.outstanding.retain(|o| o.epoch != drafted.epoch);
                // Under the same number another scheduler's grant may have come.
                let seen = self.grants.get(&(key.tenant, drafted.epoch)).filter(|held| held.key == key);
                let slots = seen.map(|held| if drafted.gang { 1 } else { held.slots() });
                if let Some(slots) = slots {
                    self.outstanding(key, drafted.epoch, slots);
                }
                self.requeue(key);
            }
        }
    }

    fn conflicted(&mut self, key: &[u8], found: Revision) {
        let of = match keys::parse(key) {
            Some(Parsed::AllocNode { node }) if found > 0 => Some(AllocOf::Node(node)),
            Some(Parsed::AllocTenant { tenant }) if found > 0 => Some(AllocOf::Tenant(tenant)),
            Some(Parsed::AllocLicense { license }) if found > 0 => Some(AllocOf::License(license)),
            _ => None,
        };
        match of {
            Some(AllocOf::Node(name)) => {
                let id = self.nodes.intern(&name);
                self.nodes.stale_below(id, found);
            }
            Some(AllocOf::Tenant(name)) => {
                let id = self.tenants.intern(&name);
                let tenant = self.tenants.get_mut(id);
                tenant.stale_below = tenant.stale_below.max(found);
            }
            Some(AllocOf::License(name)) => {
                world::mark!("scheduler.conflict.of_a_license");
                let id = self.licenses.intern(&name);
                let license = self.licenses.get_mut(id);
                license.stale_below = license.stale_below.max(found);
            }
            // A row that should be there is not, or a grant that should not be is.
            None => self.wants_reread = true,
        }
        let due_ms = self.now.mono_ms + self.config.stale_ms;
        self.reread_due_ms.get_or_insert(due_ms);
    }

    /// The first conflict only waits for the news it told of; repeated ones
    /// wait longer and longer, each tenant a little differently.
    fn back_off_tenants(&mut self, proposal: &InFlight) {
        for &id in &proposal.tenants {
            let (seed, max) = (self.config.seed, self.config.conflict_backoff_ms_max);
            let tenant = self.tenants.get_mut(id);
            tenant.conflicts = tenant.conflicts.saturating_add(1);
            if tenant.conflicts < 2 {
                continue;
            }
            let span = (1_u64 << tenant.conflicts.min(16)).min(max.max(1));
            let noise = proto::ids::fnv1a64(
                &[&seed.to_le_bytes(), tenant.name.as_bytes(), &tenant.conflicts.to_le_bytes()].concat(),
            );
            tenant.backoff_until_ms = self.now.mono_ms + span / 2 + noise % (span / 2 + 1);
            self.hints.insert(tenant.backoff_until_ms);
        }
    }

    fn back_off_store(&mut self) {
        let (first, max) = self.config.store_backoff_ms;
        let span = first.saturating_mul(1 << self.store_failures.min(16)).min(max);
        self.store_failures = self.store_failures.saturating_add(1);
        self.store_backoff_until_ms = self.now.mono_ms + span;
    }
}
