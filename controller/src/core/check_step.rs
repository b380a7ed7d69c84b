//! The core's invariants after a step, looked at only where the step has been.
//!
//! What must hold: this finds what [`Core::check`] would find. It can, since
//! jobs, grants, nodes and what was told of steps are kept in [`Watched`] maps,
//! which know what may have changed; what did not change was right before. The
//! sums are kept along. Each invariant that speaks of two things is looked at
//! when either of them changed. While there is a backlog some may be broken for
//! a moment, so whatever changed then is looked at again after it.
//!
//! [`Watched`]: super::watched::Watched

use super::check::{JobShare, JobSums};
use super::model::{Holding, Tenant};
use super::{Core, StepKey};
use std::collections::{BTreeMap, BTreeSet};

/// The sums at the last check, and what each thing had put into them.
#[derive(Debug, Default)]
pub(super) struct Seen {
    tenants: BTreeMap<String, SeenTenant>,
    /// The grants each node held.
    nodes: BTreeMap<String, BTreeSet<(String, u64)>>,
}

#[derive(Debug, Default)]
struct SeenTenant {
    jobs: BTreeMap<u64, JobShare>,
    sums: JobSums,
    grants: BTreeMap<u64, (u64, Holding)>,
    held: Holding,
}

/// What a step may have changed of one tenant.
#[derive(Debug, Default)]
struct Changed {
    jobs: BTreeSet<u64>,
    grants: BTreeSet<u64>,
}

impl Core {
    /// Panics where an invariant is broken by what changed since this was last
    /// called; only known where [`world::CHECKED`].
    pub fn check_step(&mut self) {
        let changed = |tenant: &mut Tenant| Changed {
            jobs: tenant.jobs.take_changed(),
            grants: tenant.grants.take_changed(),
        };
        // One for each tenant, in their order.
        let changes: Vec<Changed> = self.tenants.values_mut().map(changed).collect();
        let told = self.demand.steps.take_changed();
        let nodes = self.nodes.take_changed();
        let mut seen = std::mem::take(&mut self.seen);
        for key in &told {
            assert!(self.tenants.contains_key(&key.0), "{key:?} was told of, and is of no tenant");
        }
        for ((name, tenant), changed) in self.tenants.iter().zip(&changes) {
            if !seen.tenants.contains_key(name) {
                seen.tenants.insert(name.clone(), SeenTenant::default());
            }
            let seen = seen.tenants.get_mut(name).expect("inserted above");
            self.check_changed(name, tenant, changed, &told, seen);
        }
        let live: usize = self.tenants.values().map(|tenant| tenant.jobs.len()).sum();
        assert_eq!(live, self.live_jobs, "live jobs are counted wrongly");
        for name in &nodes {
            self.check_changed_node(name, &mut seen);
        }
        let deadlines = self.nodes.values().filter(|node| node.deadline_ms.is_some()).count();
        assert_eq!(deadlines, self.node_deadlines.len(), "a deadline is of no node");
        self.seen = seen;
        if self.backlogged() {
            self.look_again(changes, told, nodes);
        }
    }

    fn look_again(&mut self, changes: Vec<Changed>, told: BTreeSet<StepKey>, nodes: BTreeSet<String>) {
        for (tenant, changed) in self.tenants.values_mut().zip(changes) {
            tenant.jobs.look_again(changed.jobs);
            tenant.grants.look_again(changed.grants);
        }
        self.demand.steps.look_again(told);
        self.nodes.look_again(nodes);
    }

    fn check_changed(
        &self,
        name: &str,
        tenant: &Tenant,
        changed: &Changed,
        told: &BTreeSet<StepKey>,
        seen: &mut SeenTenant,
    ) {
        let mut jobs = changed.jobs.clone();
        jobs.extend(told.iter().filter(|(of, ..)| of == name).map(|(_, number, _)| *number));
        for epoch in &changed.grants {
            jobs.extend(self.recount_grant(name, tenant, *epoch, seen));
        }
        for number in &jobs {
            self.recount_job(name, tenant, *number, seen);
        }
        for (epoch, grant) in tenant.grants.iter() {
            if changed.grants.contains(epoch) || jobs.contains(&grant.row.job_number) {
                self.check_grant(name, tenant, *epoch, grant);
            } else {
                self.check_fed(name, *epoch, grant);
            }
        }
        seen.sums.check(name, tenant);
        assert_eq!(tenant.held, seen.held, "{name}: held is not the sum of its grants");
        self.check_waiters(name, tenant);
    }

    /// Takes a grant's part of the sum; returns the jobs it was and is of.
    fn recount_grant(
        &self,
        name: &str,
        tenant: &Tenant,
        epoch: u64,
        seen: &mut SeenTenant,
    ) -> impl Iterator<Item = u64> + use<> {
        let was = seen.grants.remove(&epoch);
        if let Some((_, held)) = was {
            seen.held.subtract(held);
        }
        let is = tenant.grants.get(&epoch).map(|grant| (grant.row.job_number, grant.held()));
        match is {
            Some((_, held)) => {
                seen.held.add(held);
                seen.grants.extend(is.map(|is| (epoch, is)));
            }
            None => {
                let gone = (name.to_owned(), epoch);
                let holder = self.nodes.values().find(|node| node.grants.contains(&gone));
                let holder = holder.map(|node| &node.row.name);
                assert!(holder.is_none(), "node {holder:?} holds grant {epoch} of {name}, which is gone");
            }
        }
        [was, is].into_iter().flatten().map(|(number, _)| number)
    }

    /// Takes a job's part of the sums, and looks at all that is about it.
    fn recount_job(&self, name: &str, tenant: &Tenant, number: u64, seen: &mut SeenTenant) {
        if let Some(was) = seen.jobs.remove(&number) {
            seen.sums.subtract(&was);
        }
        if let Some(job) = tenant.jobs.get(&number) {
            self.check_job(name, tenant, number, job);
            let is = JobShare::of(job);
            seen.sums.add(&is);
            seen.jobs.insert(number, is);
        }
        let steps = (name.to_owned(), number, 0)..=(name.to_owned(), number, u32::MAX);
        for key in self.demand.steps.range(steps).map(|(key, _)| key) {
            self.check_told(key);
        }
    }

    fn check_changed_node(&self, name: &str, seen: &mut Seen) {
        self.check_node(name);
        let now = self.nodes.get(name).map(|node| &node.grants);
        let was = seen.nodes.get(name);
        if now == was {
            return;
        }
        for held in was.into_iter().flatten() {
            let kept = now.is_some_and(|now| now.contains(held));
            let (tenant, epoch) = held;
            let grant = self.tenants.get(tenant).and_then(|tenant| tenant.grants.get(epoch));
            let names_it = grant.is_some_and(|grant| grant.row.nodes.iter().any(|node| node.node == name));
            assert!(kept || now.is_none() || !names_it, "{name}: lacks {epoch} of {tenant}");
        }
        let Some(now) = now else {
            seen.nodes.remove(name);
            return;
        };
        let was = seen.nodes.entry(name.to_owned()).or_default();
        was.retain(|grant| now.contains(grant));
        let fresh: Vec<_> = now.iter().filter(|grant| !was.contains(grant)).cloned().collect();
        was.extend(fresh);
    }
}

#[cfg(test)]
mod tests {
    use crate::core::model::{Holding, Job};
    use crate::core::{Admission, AdmissionAsk, AdmissionVerdict, Config, Core, Event, NewJob, Now};
    use proto::v1::{
        ArrayItem, ArraySpec, GrantNode, GrantRow, JobSpec, RegisterRequest, Resources, Step, TenantRow,
    };
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::Arc;

    struct OpenDoor;
    impl Admission for OpenDoor {
        fn decide(&self, _: &AdmissionAsk<'_>) -> AdmissionVerdict {
            AdmissionVerdict::Admit { price_micros: 100, waiting_for: None }
        }
    }

    fn spec() -> JobSpec {
        let one = Resources { millicores: 1000, ..Resources::default() };
        let items = vec![ArrayItem { first: 1, last: 6, stride: 1 }];
        let step = Step {
            name: "main".into(),
            argv: vec!["true".into()],
            per_task: Some(one),
            array: Some(ArraySpec { items, max_running: 0 }),
            ..Step::default()
        };
        JobSpec { name: "job".into(), steps: vec![step], ..JobSpec::default() }
    }

    /// One node that runs two tasks of job 1, and job 2 that waits.
    fn core() -> Core {
        let mut core = Core::new(Config::default(), Arc::new(OpenDoor));
        let now = Now { mono_ms: 1_000, wall_ms: 1_700_000_000_000 };
        let request = RegisterRequest {
            node: "n".into(),
            capacity: Some(Resources { millicores: 2000, ..Resources::default() }),
            ..RegisterRequest::default()
        };
        let grant = GrantRow {
            tenant: "t".into(),
            job_number: 1,
            step: 0,
            epoch: 1,
            nodes: vec![GrantNode { node: "n".into(), slots: 2 }],
            per_slot: Some(Resources { millicores: 1000, ..Resources::default() }),
            granted_ms: now.wall_ms,
            feed_until_ms: now.wall_ms + 1_000,
            ..GrantRow::default()
        };
        core.start(now);
        let submit = || Event::Submit {
            ticket: 1,
            job: NewJob { tenant: "t".into(), spec: spec(), ..NewJob::default() },
        };
        for event in [
            Event::Tenant(TenantRow { name: "t".into(), ..TenantRow::default() }),
            Event::Register { ticket: 2, request },
            Event::Hello { node: "n".into(), session: 1, held: Vec::new() },
            submit(),
            submit(),
            Event::Granted(grant),
        ] {
            core.step(now, event);
            core.check_step();
            core.check();
        }
        assert!(!core.backlogged());
        assert_eq!(core.tenants["t"].jobs[&1].state.steps[0].active, 2, "two tasks run");
        core
    }

    /// Breaks a core, and sees whether the full check and that of a step notice.
    fn both_notice(what: &str, spoil: impl Fn(&mut Core)) {
        let mut core = core();
        spoil(&mut core);
        assert!(catch_unwind(AssertUnwindSafe(|| core.check())).is_err(), "{what}: the full check is blind");
        let step = catch_unwind(AssertUnwindSafe(|| core.check_step()));
        assert!(step.is_err(), "{what}: the check of a step is blind");
    }

    fn job(core: &mut Core, number: u64) -> &mut Job {
        core.tenants.get_mut("t").unwrap().jobs.get_mut(&number).unwrap()
    }

    #[test]
    fn what_the_full_check_finds_that_of_a_step_finds_too() {
        both_notice("a counter", |core| job(core, 1).state.steps[0].completed += 1);
        both_notice("a task both waiting and running", |core| {
            job(core, 1).steps[0].fresh.insert(0);
        });
        both_notice("a job's reservation", |core| job(core, 2).state.reserved_micros += 1);
        both_notice("bytes stored", |core| job(core, 2).state.storage_bytes += 1);
        both_notice("bytes fetched", |core| job(core, 2).state.ingress_bytes += 1);
        both_notice("the ledger", |core| {
            core.tenants.get_mut("t").unwrap().ledger.reserved_micros += 1;
        });
        both_notice("a job lost", |core| {
            core.tenants.get_mut("t").unwrap().jobs.remove(&2);
        });
        both_notice("a grant lost", |core| {
            core.tenants.get_mut("t").unwrap().grants.remove(&1);
        });
        both_notice("a grant that lies idle", |core| {
            core.tenants.get_mut("t").unwrap().grants.get_mut(&1).unwrap().bound[0].clear();
        });
        both_notice("a task not bound", |core| {
            core.tenants.get_mut("t").unwrap().grants.get_mut(&1).unwrap().bound[0].pop_first();
        });
        both_notice("what is held", |core| {
            core.tenants.get_mut("t").unwrap().held = Holding::default();
        });
        both_notice("a node without its grant", |core| {
            core.nodes.get_mut("n").unwrap().grants.clear();
        });
        both_notice("a node with a grant that is none", |core| {
            core.nodes.get_mut("n").unwrap().grants.insert(("t".into(), 7));
        });
        both_notice("a node's deadline", |core| {
            core.nodes.get_mut("n").unwrap().deadline_ms = Some(1);
        });
        both_notice("a deadline of no node", |core| {
            core.node_deadlines.insert((1, "m".into()));
        });
        both_notice("demand not told", |core| {
            core.demand.steps.remove(&("t".into(), 2, 0));
        });
        both_notice("demand of nobody", |core| {
            let told = core.demand.steps[&("t".into(), 2, 0)].clone();
            core.demand.steps.insert(("t".into(), 9, 0), told);
        });
        both_notice("a follower that follows nothing", |core| {
            core.tenants.get_mut("t").unwrap().followers.entry(1).or_default().insert(2);
        });
        both_notice("a job that waits for no task", |core| {
            core.tenants.get_mut("t").unwrap().task_waiters.entry((1, 0, 3)).or_default().insert(2);
        });
        both_notice("a task both open and waiting for another's", |core| {
            job(core, 2).steps[0].gated.insert(0);
        });
        both_notice("a waiter that waits for nothing", |core| {
            core.tenants.get_mut("t").unwrap().waiters.entry(1).or_default().insert(2);
        });
    }
}
