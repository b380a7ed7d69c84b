//! What steps want, told to the schedulers. Derived from job state, never
//! stored; only differences are told, and small ones not at all: what is told
//! may be off by an eighth, so that ten thousand ends are not as many updates.

use super::model::{Job, StepRun};
use super::types::DemandChange;
use super::watched::Watched;
use super::{Core, StepKey};
use proto::v1::{Demand, DemandKey, Resources};
use std::collections::BTreeSet;

/// What was last told.
#[derive(Default)]
pub(super) struct Told {
    pub(super) steps: Watched<StepKey, Demand>,
    /// Told again even if equal: a grant was counted in.
    forced: BTreeSet<StepKey>,
}

impl Told {
    pub(super) fn force(&mut self, tenant: &str, number: u64, step: u32) {
        self.forced.insert((tenant.to_owned(), number, step));
    }

    /// Whether anything was told of a step.
    pub(super) fn told(&self, key: &StepKey) -> bool {
        self.steps.contains_key(key)
    }
}

impl Core {
    /// What changed of the steps touched in this transaction.
    pub(super) fn tell_demand(&mut self) -> DemandChange {
        let DemandChange { mut changed, mut gone, .. } = DemandChange::default();
        for key in std::mem::take(&mut self.out.demand) {
            let forced = self.demand.forced.remove(&key);
            match (self.wanted(&key), self.demand.steps.get(&key)) {
                (Some(wanted), told) => {
                    if forced || told.is_none_or(|told| differs(told, &wanted)) {
                        self.demand.steps.insert(key, wanted.clone());
                        changed.push(wanted);
                    }
                }
                (None, Some(_)) => {
                    self.demand.steps.remove(&key);
                    gone.push(DemandKey { tenant: key.0, job_number: key.1, step: key.2 });
                }
                (None, None) => {}
            }
        }
        DemandChange { changed, gone, yielding: self.tell_yielding() }
    }

    /// Whether a step wants anything.
    pub(super) fn wants(&self, key: &StepKey) -> bool {
        let (name, number, index) = key;
        let job = self.tenants.get(name).and_then(|tenant| tenant.jobs.get(number));
        let Some(job) = job.filter(|job| job.ready(*index)) else { return false };
        let waits = |run: &StepRun| !run.fresh.is_empty() || !run.retries.is_empty();
        let spec = job.row.spec.as_ref().and_then(|spec| spec.steps.get(*index as usize));
        spec.is_some() && job.steps.get(*index as usize).is_some_and(waits)
    }

    /// What a step wants now; `None`: nothing.
    pub(super) fn wanted(&self, key: &StepKey) -> Option<Demand> {
        if !self.wants(key) {
            return None;
        }
        let (name, number, index) = key;
        let tenant = self.tenants.get(name)?;
        let job = tenant.jobs.get(number)?;
        let run = job.steps.get(*index as usize)?;
        let spec = job.row.spec.as_ref()?;
        let step = spec.steps.get(*index as usize)?;
        let now_ms = self.now.mono_ms;
        let ready = run.ready_retries(now_ms);
        let slots = (run.fresh.count() + ready).min(run.slots_free());
        let next = run.retries.range((now_ms + 1, 0)..).next().map_or(0, |(at, _)| *at);
        let only_waits = slots == 0 && run.fresh.is_empty() && ready == 0;
        Some(Demand {
            key: Some(DemandKey { tenant: name.clone(), job_number: *number, step: *index }),
            per_slot: Some(step.per_task.unwrap_or(Resources::default())),
            slots,
            gang_nodes: run.gang.map_or(0, |gang| gang.nodes),
            gang_tasks_per_node: run.gang.map_or(0, |gang| gang.per_node),
            priority: spec.priority,
            queued_ms: job.row.submitted_ms,
            not_before_ms: if only_waits {
                self.now.wall_ms + next.saturating_sub(now_ms)
            } else {
                // The schedulers wait for it: what is past is no news to them.
                Some(spec.begin_ms).filter(|begin_ms| *begin_ms > self.now.wall_ms).unwrap_or(0)
            },
            pool: step.pool.clone(),
            constraints: step.constraints.clone(),
            avoid: avoid(job, *index, now_ms),
            expected_runtime_ms: proto::estimate::told_runtime_ms(spec, step),
            granted_epoch: tenant.epoch_seen,
            limit_ms: step.timeout_ms,
            exclusive: step.exclusive,
            licenses: step.licenses.clone(),
        })
    }

    /// All demand as it was told last.
    pub fn demand_told(&self) -> impl Iterator<Item = &Demand> {
        self.demand.steps.values()
    }

    /// Everything told so far, for the invariants.
    pub(super) fn told(&self) -> impl Iterator<Item = (&StepKey, &Demand)> {
        self.demand.steps.iter()
    }
}

/// Where only retries wait, the nodes that the first of them is to avoid.
fn avoid(job: &Job, step: u32, now_ms: u64) -> Vec<String> {
    let Some(run) = job.steps.get(step as usize).filter(|run| run.fresh.is_empty()) else {
        return Vec::new();
    };
    let first = run.retries.range(..=(now_ms, u64::MAX)).next();
    first.and_then(|(_, task)| run.note(*task)).map(|note| note.avoid.clone()).unwrap_or_default()
}

fn differs(told: &Demand, wanted: &Demand) -> bool {
    let slots_differ = told.slots.abs_diff(wanted.slots) > wanted.slots / 8;
    let like = Demand {
        slots: wanted.slots,
        granted_epoch: wanted.granted_epoch,
        // A clock that moves is no news.
        not_before_ms: if told.not_before_ms.abs_diff(wanted.not_before_ms) < 1000
            && (told.not_before_ms == 0) == (wanted.not_before_ms == 0)
        {
            wanted.not_before_ms
        } else {
            told.not_before_ms
        },
        ..told.clone()
    };
    slots_differ || like != *wanted
}
