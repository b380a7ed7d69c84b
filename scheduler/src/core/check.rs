//! What must hold between any two events. Cheap enough for tests and
//! simulations after every step; a broken one panics.
//!
//! That nothing is over-committed is asserted where a grant is decided (see
//! `assert_allowed` in `pass.rs`): afterwards a node may shrink, a limit may
//! fall, and another scheduler may have seen either before this one.

use super::Core;
use super::licenses::LicenseId;
use super::tenants::TenantId;
use crate::amount::Amount;
use std::collections::BTreeMap;

impl Core {
    /// Panics where an invariant is broken.
    pub fn check(&self) {
        self.nodes.check();
        self.demands.check();
        self.check_sums();
        self.check_in_flight();
        self.check_queues();
        self.check_plans();
        self.check_promises();
    }

    fn check_sums(&self) {
        let mut used = vec![(Amount::default(), 0); self.nodes.iter().len()];
        let mut held: BTreeMap<TenantId, Amount> = BTreeMap::new();
        let mut licenses: BTreeMap<LicenseId, u64> = BTreeMap::new();
        let drafted = self.in_flight.values().flat_map(|f| &f.grants).map(|d| &d.held);
        for grant in self.grants.values().chain(drafted) {
            for &(id, count) in &grant.licenses {
                *licenses.entry(id).or_default() += count;
            }
            for (id, part) in grant.parts() {
                let (sum, alone) = &mut used[id as usize];
                *sum = sum.plus(part.amount);
                *alone += u32::from(part.alone);
                for id in grant.counted_in() {
                    let sum = held.entry(id).or_default();
                    *sum = sum.plus(part.amount);
                }
            }
        }
        for (id, node) in self.nodes.iter() {
            let sum = used[id as usize];
            assert_eq!((node.used, node.alone), sum, "what is used of node {}", node.name);
        }
        for (id, tenant) in self.tenants.iter() {
            let sum = held.get(&id).copied().unwrap_or_default();
            assert_eq!(tenant.held, sum, "what tenant {} holds", tenant.name);
        }
        for (id, license) in self.licenses.iter() {
            let sum = licenses.get(&id).copied().unwrap_or_default();
            let in_line = license.line.held().0.gpus;
            assert_eq!((license.used, in_line), (sum, sum), "what is held of license {}", license.name);
        }
    }

    fn check_in_flight(&self) {
        for (id, flight) in &self.in_flight {
            assert_ne!(flight.grants.is_empty(), flight.asks.is_empty(), "proposal {id} grants or asks");
            for &node in &flight.nodes {
                assert_eq!(self.nodes.get(node).in_flight, Some(*id), "a node is in one proposal");
            }
            for &tenant in &flight.tenants {
                assert_eq!(self.tenants.get(tenant).in_flight, Some(*id), "a tenant is in one proposal");
            }
            for &license in &flight.licenses {
                assert_eq!(self.licenses.get(license).in_flight, Some(*id), "a license is in one proposal");
            }
        }
        let nodes = self.nodes.iter().filter(|(_, node)| node.in_flight.is_some()).count();
        assert_eq!(nodes, self.in_flight.values().map(|f| f.nodes.len()).sum::<usize>());
        let tenants = self.tenants.iter().filter(|(_, tenant)| tenant.in_flight.is_some()).count();
        assert_eq!(tenants, self.in_flight.values().map(|f| f.tenants.len()).sum::<usize>());
        let licenses = self.licenses.iter().filter(|(_, license)| license.in_flight.is_some()).count();
        assert_eq!(licenses, self.in_flight.values().map(|f| f.licenses.len()).sum::<usize>());
    }

    fn check_queues(&self) {
        let mut queued = 0;
        for (id, tenant) in self.tenants.iter() {
            tenant.queue.check();
            assert_eq!(!tenant.queue.is_empty(), self.tenants.waiting.contains(&id));
            for (shape, place) in tenant.queue.iter() {
                queued += 1;
                let entry = self.demands.get(Self::key_at(id, place)).expect("who waits has a demand");
                assert_eq!((entry.shape, entry.place), (shape, Some(place)), "a demand's place");
                let gang = self.demands.shape(shape).shape.gang.is_some();
                assert!(entry.wanted(gang) > 0, "who waits wants something");
            }
        }
        let placed = self.demands.iter().filter(|(_, entry)| entry.place.is_some()).count();
        assert_eq!(queued, placed, "a demand with a place stands in a queue");
        for (key, entry) in self.demands.iter() {
            for o in entry.outstanding.iter().filter(|o| o.lapses_ms == u64::MAX) {
                let mut drafts = self.in_flight.values().flat_map(|f| &f.grants);
                assert!(
                    drafts.any(|d| d.held.key == key && d.epoch == o.epoch),
                    "slots without an outcome are in a proposal"
                );
            }
        }
    }

    fn check_plans(&self) {
        let planned = self.nodes.iter().map(|(_, node)| node.line.planned().len()).sum::<usize>();
        assert_eq!(planned, self.plans.values().map(|plan| plan.nodes.len()).sum::<usize>());
        let kept = self.licenses.iter().map(|(_, license)| license.line.planned().len()).sum::<usize>();
        assert_eq!(kept, self.plans.values().map(|plan| plan.licenses.len()).sum::<usize>());
        for (key, plan) in &self.plans {
            for &id in &plan.nodes {
                let here = self.nodes.get(id).line.planned().iter().find(|here| here.owner == *key);
                let from_ms = here.map(|here| here.from_ms);
                assert_eq!(from_ms, Some(plan.at_ms.unwrap_or(0)), "what is planned on a node is its plan's");
            }
        }
    }
}
