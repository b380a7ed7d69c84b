//! What agents are told of attempts: Assign and Stop frames, built from the
//! rows alone, so that they can be built again after any loss.

use super::model::{Grant, Job, Rank, StepRun, Tenant, cause};
use super::{Core, checkpoints};
use crate::limits;
use proto::ids::JobId;
use proto::v1::server_frame::Frame;
use proto::v1::{
    Assign, AssignedTask, AttemptRef, Cause, CauseKind, Gang, GangNode, Stop, Upstream, UpstreamTask,
};
use proto::{array, estimate};
use std::collections::BTreeMap;

impl Core {
    /// Tells the agent of a grant's node which tasks are bound to it. Nothing is
    /// sent while it has no session: its Hello asks again.
    pub(super) fn assign(&mut self, tenant: &str, epoch: u64, node: usize, tasks: &[u64]) {
        let Some(owner) = self.tenants.get(tenant) else { return };
        let Some(grant) = owner.grants.get(&epoch) else { return };
        let name = grant.node_name(node as u32);
        let Some(agent) = self.nodes.get(name).filter(|agent| agent.connected) else { return };
        let Some(job) = owner.jobs.get(&grant.row.job_number) else { return };
        let Some(run) = job.steps.get(grant.row.step as usize) else { return };
        let gang = run.gang.map(|_| self.gang_of(grant, node));
        for part in tasks.chunks(limits::TASKS_PER_FRAME_MAX) {
            let Some(mut frame) = assign_frame(job, run, grant, node, part) else { return };
            frame.gang = gang.clone();
            self.out.send(name, agent.row.session, Frame::Assign(frame));
        }
    }

    fn gang_of(&self, grant: &Grant, node: usize) -> Gang {
        let address =
            |name: &str| self.nodes.get(name).map(|node| node.row.address.clone()).unwrap_or_default();
        let nodes: Vec<GangNode> = grant
            .row
            .nodes
            .iter()
            .map(|node| GangNode { node: node.node.clone(), address: address(&node.node), ranks: node.slots })
            .collect();
        let (first_rank, local_ranks) = grant.ranks_of(node);
        let port = grant.row.epoch % u64::from(self.config.gang_ports.max(1));
        Gang {
            world_size: nodes.iter().map(|node| node.ranks).sum(),
            master_address: nodes.first().map(|node| node.address.clone()).unwrap_or_default(),
            master_port: self.config.gang_port_first + u32::try_from(port).unwrap_or(0),
            nodes,
            first_rank,
            local_ranks,
        }
    }

    /// Stop frames for all attempts of a job that are to end early: all of a
    /// cancelled job's, and what is left of gangs that lost a rank.
    pub(super) fn send_stops(&mut self, tenant: &str, number: u64) {
        let Some(owner) = self.tenants.get(tenant) else { return };
        let Some(job) = owner.jobs.get(&number) else { return };
        let mut any = false;
        let epochs: Vec<u64> = job.steps.iter().flat_map(|step| step.grants.iter().copied()).collect();
        for epoch in epochs {
            let Some(grant) = self.tenants.get(tenant).and_then(|owner| owner.grants.get(&epoch)) else {
                continue;
            };
            for node in 0..grant.row.nodes.len() {
                any |= self.send_stop(tenant, epoch, node);
            }
        }
        if any {
            self.arm_stops(tenant, number);
        }
    }

    /// The same for one node of one grant. True where something is to stop.
    pub(super) fn send_stop(&mut self, tenant: &str, epoch: u64, node: usize) -> bool {
        let Some(owner) = self.tenants.get(tenant) else { return false };
        let Some(grant) = owner.grants.get(&epoch) else { return false };
        let told = to_stop(owner, grant, node).or_else(|| self.to_give_way(grant, node));
        let Some((attempts, why)) = told else { return false };
        let checkpoint_ms = self.checkpoint_ms(grant, &why);
        if attempts.is_empty() {
            return false;
        }
        let name = grant.node_name(node as u32);
        if let Some(agent) = self.nodes.get(name).filter(|agent| agent.connected) {
            for part in attempts.chunks(limits::TASKS_PER_FRAME_MAX) {
                let stop = Stop {
                    attempts: part.to_vec(),
                    grace_ms: self.config.stop_grace_ms,
                    cause: Some(why.clone()),
                    checkpoint_ms,
                };
                self.out.send(name, agent.row.session, Frame::Stop(stop));
            }
        }
        true
    }
}

/// The attempts on a node of a grant that are to end early, and why.
fn to_stop(owner: &Tenant, grant: &Grant, node: usize) -> Option<(Vec<AttemptRef>, Cause)> {
    let job = owner.jobs.get(&grant.row.job_number)?;
    let run = job.steps.get(grant.row.step as usize)?;
    let failure = grant.gang.as_ref().and_then(|gang| gang.failure.clone());
    let why = if job.state.cancel_requested {
        job.state.cause.clone().unwrap_or_else(|| cause(CauseKind::CancelledByUser, ""))
    } else {
        failure?
    };
    if let Some(gang) = &grant.gang {
        let (first, count) = grant.ranks_of(node);
        let here = gang.ranks.iter().skip(first as usize).take(count as usize);
        if gang.committing || here.clone().all(|rank| *rank == Rank::Ended) {
            return None;
        }
    }
    let attempts = grant.bound.get(node)?.iter().filter_map(|task| {
        let active = run.active(*task)?;
        Some(AttemptRef {
            tenant: grant.row.tenant.clone(),
            job_number: grant.row.job_number,
            step: grant.row.step,
            task: *task,
            attempt: active.attempt,
            epoch: active.epoch,
        })
    });
    Some((attempts.collect(), why))
}

fn assign_frame(job: &Job, run: &StepRun, grant: &Grant, node: usize, tasks: &[u64]) -> Option<Assign> {
    let spec = job.row.spec.as_ref()?;
    let step = spec.steps.get(grant.row.step as usize)?;
    let index = |task| step.array.as_ref().and_then(|array| array::index_of(array, task)).unwrap_or(0);
    let state = job.state.steps.get(grant.row.step as usize)?;
    let ranks = if run.gang.is_some() { grant.ranks_of(node) } else { (0, 1) };
    let tasks = tasks.iter().filter_map(|task| {
        let active = run.active(*task)?;
        let checkpoints = checkpoints::resume(run, state, *task, ranks);
        Some(AssignedTask { task: *task, index: index(*task), attempt: active.attempt, checkpoints })
    });
    Some(Assign {
        tenant: grant.row.tenant.clone(),
        job_number: grant.row.job_number,
        step_index: grant.row.step,
        epoch: grant.row.epoch,
        slots: grant.row.nodes.get(node)?.slots,
        tasks: tasks.collect(),
        step: Some(step.clone()),
        inputs: spec.inputs.clone(),
        upstreams: run.after.iter().filter_map(|before| upstream(job, *before)).collect(),
        gang: None,
        job_id: JobId::new(grant.row.tenant.clone(), grant.row.job_number).to_string(),
    })
}

/// The outputs of an earlier step.
fn upstream(job: &Job, step: u32) -> Option<Upstream> {
    let spec = job.row.spec.as_ref()?.steps.get(step as usize)?;
    let run = job.steps.get(step as usize)?;
    let mut tasks: BTreeMap<u64, UpstreamTask> = BTreeMap::new();
    for ((task, rank), artifacts) in &run.outputs {
        let index = match (&spec.array, run.gang) {
            (Some(array), _) => array::index_of(array, *task).unwrap_or(*task),
            (None, Some(_)) => u64::from(*rank),
            (None, None) => 0,
        };
        let entry = tasks.entry(index).or_insert_with(|| UpstreamTask { index, artifacts: Vec::new() });
        entry.artifacts.extend(artifacts.iter().cloned());
    }
    Some(Upstream {
        step: spec.name.clone(),
        indexed: estimate::is_indexed(spec),
        tasks: tasks.into_values().collect(),
    })
}
