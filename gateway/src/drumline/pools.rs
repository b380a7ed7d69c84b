//! Pools, and when a request would start in each.
//!
//! The scheduler's view has who holds what and who waits; how long the holders
//! may run stands in their jobs' specs, which are looked up here.

use crate::gate::Gate;
use crate::limits::ETA_JOBS_READ_MAX;
use controller::core::PreemptionRules;
use proto::ids::JobId;
use proto::limits::MILLICORES_DEFAULT;
use proto::problem::Problem;
use proto::v1::{Eta, JobSpec, PoolAsk, PoolsReply, PoolsRequest, PreemptionView};
use scheduler::Amount;
use scheduler::eta::{Ask, Profile, when};
use scheduler::limits::ETA_NODES_EXAMINED_MAX;
use std::collections::{BTreeMap, BTreeSet};

pub(super) async fn pools(gate: &Gate, request: &PoolsRequest) -> Result<PoolsReply, Problem> {
    let mut reply = gate.planner.pools();
    gate.scaling.add_to(&mut reply);
    for pool in &mut reply.pools {
        pool.preemption = gate.preemption.get(&pool.name).map(view);
    }
    let Some(ask) = request.ask.as_ref().map(asked) else { return Ok(reply) };
    let mut profiles = gate.planner.profiles();
    let now_ms = gate.clock.wall_ms();
    let specs = specs(gate, &profiles).await;
    let examined_max = ETA_NODES_EXAMINED_MAX / (profiles.len() as u64).max(1);
    for pool in &mut reply.pools {
        // A pool whose last node went since has none: nothing fits there.
        let mut profile = profiles.remove(&pool.name).unwrap_or_default();
        set_ends(&mut profile, &specs, now_ms);
        let eta = when(&profile, ask, examined_max);
        let earliest_start_ms = eta.start_in_ms.map(|ms| now_ms.saturating_add(ms));
        pool.eta = Some(Eta { earliest_start_ms, assumption: eta.assumption });
    }
    Ok(reply)
}

fn view(rules: &PreemptionRules) -> PreemptionView {
    let PreemptionRules { grace_ms, priority_above, after_waiting_ms, min_run_ms, times_max } = *rules;
    PreemptionView { grace_ms, priority_above, after_waiting_ms, min_run_ms, times_max }
}

fn asked(ask: &PoolAsk) -> Ask {
    let mut each = Amount::of(ask.per_task.as_ref());
    if each.millicores == 0 {
        each.millicores = u64::from(MILLICORES_DEFAULT);
    }
    let tasks = u64::from(ask.tasks_per_node.max(1));
    Ask { unit: each.times(tasks), nodes: ask.nodes.max(1) as usize, alone: ask.exclusive }
}

/// Specs of the jobs that hold something; without those past the limit, and
/// those that ended since.
async fn specs(gate: &Gate, profiles: &BTreeMap<String, Profile>) -> BTreeMap<JobId, Option<JobSpec>> {
    let holders = profiles.values().flat_map(|profile| &profile.nodes).flat_map(|node| &node.holders);
    let jobs: BTreeSet<JobId> =
        holders.map(|holder| JobId::new(holder.step.tenant.as_str(), holder.step.job_number)).collect();
    let mut specs = BTreeMap::new();
    for job in jobs.into_iter().take(ETA_JOBS_READ_MAX) {
        let row = gate.job(&job).await.ok();
        specs.insert(job, row.and_then(|row| row.spec));
    }
    specs
}

fn set_ends(profile: &mut Profile, specs: &BTreeMap<JobId, Option<JobSpec>>, now_ms: u64) {
    let mut unseen = BTreeSet::new();
    for holder in profile.nodes.iter_mut().flat_map(|node| &mut node.holders) {
        let job = JobId::new(holder.step.tenant.as_str(), holder.step.job_number);
        match specs.get(&job) {
            Some(Some(spec)) => {
                let step = spec.steps.get(holder.step.step as usize);
                let limit_ms = step.map_or(0, |step| step.timeout_ms);
                holder.set_end(now_ms, spec.expected_runtime_ms, limit_ms);
            }
            Some(None) | None => _ = unseen.insert((job, holder.step.step)),
        }
    }
    profile.holders_unseen = unseen.len();
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::v1::{DemandKey, Resources, Step};
    use scheduler::eta::{Holder, NodeNow};

    #[test]
    fn what_is_asked_is_one_task_of_one_core_if_nothing_is_told() {
        let core = Amount { millicores: 1000, ..Amount::default() };
        assert_eq!(asked(&PoolAsk::default()), Ask { unit: core, nodes: 1, alone: false });
        let per_task = Some(Resources { millicores: 500, memory_bytes: 7, gpus: 1 });
        let unit = Amount { millicores: 1500, memory_bytes: 21, gpus: 3 };
        let ask = PoolAsk { per_task, nodes: 2, tasks_per_node: 3, exclusive: true };
        assert_eq!(asked(&ask), Ask { unit, nodes: 2, alone: true });
    }

    #[test]
    fn ends_come_from_the_specs() {
        let holder = |job_number| Holder {
            step: DemandKey { tenant: "lab".into(), job_number, step: 0 },
            granted_ms: 1_000,
            feed_until_ms: 3_000,
            ..Holder::default()
        };
        let node = NodeNow { holders: vec![holder(1), holder(2)], ..NodeNow::default() };
        let mut profile = Profile { nodes: vec![node], ..Profile::default() };
        let spec =
            JobSpec { steps: vec![Step { timeout_ms: 60_000, ..Step::default() }], ..JobSpec::default() };
        set_ends(&mut profile, &BTreeMap::from([(JobId::new("lab", 1), Some(spec))]), 2_000);
        let ends: Vec<Option<u64>> =
            profile.nodes[0].holders.iter().map(|holder| holder.ends_in_ms).collect();
        assert_eq!((ends, profile.holders_unseen), (vec![Some(59_000), None], 1));
    }
}
