//! What agents say of attempts.
//!
//! What must hold: a report that names an attempt or an epoch that is not the
//! current one, or comes from a node the attempt is not on, changes nothing
//! (the frame is acknowledged all the same, or it would come for ever). Saying
//! a thing twice is the same as saying it once. A frame is acknowledged when
//! all of it is durable.

use super::finish::End;
use super::model::{Active, Spot, StepRun, cause, cut};
use super::{Core, Work, ledger};
use crate::limits;
use proto::v1::server_frame::Frame as Say;
use proto::v1::{
    Artifact, AttemptRef, Cause, CauseKind, Ended, Report, Reports, ReportsAck, Resources, State, Stop,
    report,
};
use proto::{estimate, month};
use std::collections::BTreeSet;

/// A frame of reports and how far it was taken.
pub(super) struct Frame {
    node: String,
    session: u64,
    sequence: u64,
    reports: std::vec::IntoIter<Report>,
    /// Index of the next report.
    next: usize,
    missing: BTreeSet<usize>,
}

impl Core {
    pub(super) fn reports_heard(
        &mut self,
        node: String,
        session: u64,
        reports: Reports,
        missing: Vec<usize>,
    ) {
        if !self.stream_current(&node, session) {
            world::mark!("controller.report.of_an_old_session");
            self.goodbye(&node, session);
            return;
        }
        self.heard(&node);
        self.reports(Frame {
            node,
            session,
            sequence: reports.sequence,
            reports: reports.reports.into_iter(),
            next: 0,
            missing: missing.into_iter().collect(),
        });
    }

    pub(super) fn reports(&mut self, mut frame: Frame) {
        while !frame.reports.as_slice().is_empty() {
            if self.out.full() {
                self.backlog.push_front(Work::Reports(frame));
                return;
            }
            let missing = frame.missing.contains(&frame.next);
            frame.next += 1;
            if let Some(report) = frame.reports.next() {
                self.report(&frame.node, report, missing);
            }
        }
        self.out.send(&frame.node, frame.session, Say::ReportsAck(ReportsAck { sequence: frame.sequence }));
    }

    fn report(&mut self, node: &str, report: Report, missing: bool) {
        let (Some(attempt), Some(what)) = (report.attempt, report.what) else { return };
        let Some(active) = self.find_active(&attempt) else {
            world::mark!("controller.report.of_an_old_attempt");
            self.stats.stale_reports += 1;
            if matches!(what, report::What::Started(_) | report::What::Staging(_)) {
                world::mark!("controller.report.stray_is_stopped");
                self.stop_stray(node, attempt);
            }
            return;
        };
        let spot = Spot {
            tenant: attempt.tenant,
            number: attempt.job_number,
            step: attempt.step,
            task: attempt.task,
        };
        if self.is_gang(&spot) {
            self.rank_report(node, &spot, active, report.rank, what, missing);
            return;
        }
        let grant = self.tenants.get(&spot.tenant).and_then(|tenant| tenant.grants.get(&active.epoch));
        if grant.is_none_or(|grant| grant.node_name(active.node) != node) {
            self.stats.stale_reports += 1;
            return;
        }
        match what {
            report::What::Staging(_) => {}
            report::What::Started(_) => self.started(&spot, active),
            report::What::Checkpointed(told) => self.checkpointed(&spot, active, 0, told, missing),
            report::What::Ended(ended) => self.ended(node, &spot, active, ended, missing),
            report::What::Refused(refused) => {
                let mut text = format!("node {node} sent it back: {}", refused.reason);
                cut(&mut text, limits::CAUSE_TEXT_BYTES_MAX);
                let wait_ms = self.config.returned_backoff_ms;
                self.conclude(&spot, End::Returned(cause(CauseKind::Requeued, text), wait_ms));
            }
        }
    }

    /// An agent works at what is long over: a frame reached it late.
    fn stop_stray(&mut self, node: &str, attempt: AttemptRef) {
        let Some(session) = self.nodes.get(node).map(|node| node.row.session) else { return };
        let stop = Stop {
            attempts: vec![attempt],
            cause: Some(cause(CauseKind::Requeued, "this attempt is over")),
            ..Stop::default()
        };
        self.out.send(node, session, Say::Stop(stop));
    }

    /// The live attempt that this names, if its number and epoch are current.
    pub(super) fn find_active(&self, attempt: &AttemptRef) -> Option<Active> {
        let job = self.tenants.get(&attempt.tenant)?.jobs.get(&attempt.job_number)?;
        let active = job.steps.get(attempt.step as usize)?.active(attempt.task)?;
        (active.attempt == attempt.attempt && active.epoch == attempt.epoch).then_some(*active)
    }

    fn is_gang(&self, spot: &Spot) -> bool {
        self.tenants
            .get(&spot.tenant)
            .and_then(|tenant| tenant.jobs.get(&spot.number))
            .and_then(|job| job.steps.get(spot.step as usize))
            .is_some_and(|run| run.gang.is_some())
    }

    /// STAGING to RUNNING; nothing if it runs already.
    pub(super) fn started(&mut self, spot: &Spot, active: Active) {
        if active.state != State::Staging {
            return;
        }
        let now_ms = self.now.wall_ms;
        let Some(tenant) = self.tenants.get_mut(&spot.tenant) else { return };
        let Some(job) = tenant.jobs.get_mut(&spot.number) else { return };
        let Some(run) = job.steps.get_mut(spot.step as usize) else { return };
        let number = StepRun::block_of(spot.task);
        let Some(block) = run.blocks.get_mut(&number) else { return };
        let weight = super::blocks::weight(block);
        let Some(live) = block.active.get_mut(&spot.task) else { return };
        live.state = State::Running;
        live.since_ms = now_ms;
        block.staging.remove(&spot.task);
        let Some(grant) = tenant.grants.get(&active.epoch) else { return };
        let by = super::events::By {
            attempt: active.attempt,
            epoch: active.epoch,
            node_index: active.node,
            node: grant.node_name(active.node),
        };
        let edge = (State::Staging, State::Running);
        let drafts = self.out.events(&spot.tenant);
        let weighed = drafts.task(now_ms, spot, edge, &super::model::passing(State::Running), by);
        self.out.weigh(weighed);
        self.out.block(&spot.tenant, (spot.number, spot.step, number), weight);
        self.begun(&spot.tenant, spot.number, spot.step, State::Running);
        self.may_yield(&spot.tenant, active.epoch);
    }

    fn ended(&mut self, node: &str, spot: &Spot, active: Active, ended: Ended, missing: bool) {
        self.account(spot, &ended);
        if let Some(lost) = &ended.lost_checkpoint {
            self.checkpoint_lost(spot, 0, lost);
        }
        let ran_ms = ended.wall_ms;
        let (cause, artifacts) = judge(node, ended, missing);
        self.launched(node, spot, &cause);
        match cause.kind() {
            CauseKind::Succeeded => {
                self.begun(&spot.tenant, spot.number, spot.step, State::Running);
                self.conclude(spot, End::Done(vec![(0, artifacts)]));
                self.ran(&spot.tenant, spot.number, spot.step, ran_ms);
            }
            // The agent lost its lease before it had begun.
            CauseKind::LeaseExpired if active.state == State::Staging => {
                world::mark!("controller.report.lapsed_before_it_began");
                self.conclude(spot, End::Returned(cause, 0));
            }
            CauseKind::Preempted => {
                let end = self.made_room(spot, active, cause);
                self.conclude(spot, end);
            }
            _ => self.conclude(spot, End::Failed(cause)),
        }
    }

    /// Books what an attempt (or a rank) used.
    pub(super) fn account(&mut self, spot: &Spot, ended: &Ended) {
        let now_ms = self.now.wall_ms;
        let Some(tenant) = self.tenants.get_mut(&spot.tenant) else { return };
        let Some(job) = tenant.jobs.get_mut(&spot.number) else { return };
        let wall_ms = ended.wall_ms.min(limits::WALL_MS_MAX);
        let step = job.row.spec.as_ref().and_then(|spec| spec.steps.get(spot.step as usize));
        let each: Resources = step.and_then(|step| step.per_task).unwrap_or_default();
        let budget = tenant.row.budget.unwrap_or_default();
        let cost = estimate::cost_micros(&each, 1, wall_ms, &budget);
        if let Some(state) = job.state.steps.get_mut(spot.step as usize) {
            state.attempts_ended += 1;
            state.busy_ms = state.busy_ms.saturating_add(wall_ms);
        }
        let log_bytes = ended.stdout_bytes.saturating_add(ended.stderr_bytes);
        job.state.log_bytes = job.state.log_bytes.saturating_add(log_bytes);
        month::turn(&mut tenant.ledger, now_ms);
        ledger::settle(&mut tenant.ledger, &mut job.state, cost);
        self.out.ledger(&spot.tenant);
        self.out.state(&spot.tenant, spot.number);
    }
}

/// What an end means: the agent's own word, unless the outputs it names are not
/// in place or are too many to keep.
pub(super) fn judge(node: &str, ended: Ended, missing: bool) -> (Cause, Vec<Artifact>) {
    let mut why = ended.cause.unwrap_or_default();
    if !ends_attempts(why.kind()) {
        why = cause(CauseKind::AgentRestarted, "its agent did not say how it ended");
    }
    cut(&mut why.text, limits::CAUSE_TEXT_BYTES_MAX);
    node.clone_into(&mut why.node);
    let artifacts = ended.artifacts;
    if why.kind() != CauseKind::Succeeded {
        return (why, Vec::new());
    }
    let bytes: usize =
        artifacts.iter().map(|artifact| artifact.path.len() + artifact.digest.len() + 16).sum();
    let refused = if missing {
        world::mark!("controller.report.bytes_are_missing");
        Some((CauseKind::UploadFailed, "the outputs named are not in the object store"))
    } else if artifacts.len() > limits::ARTIFACTS_PER_TASK_MAX || bytes > limits::ARTIFACT_BYTES_MAX {
        Some((CauseKind::OutputMissing, "more outputs than can be kept; pack them into one file"))
    } else {
        None
    };
    match refused {
        Some((kind, text)) => (Cause { node: node.to_owned(), ..cause(kind, text) }, Vec::new()),
        None => (why, artifacts),
    }
}

/// Whether an attempt can have ended for this cause. Others are the
/// controller's own words, or no words at all.
fn ends_attempts(kind: CauseKind) -> bool {
    !matches!(
        kind,
        CauseKind::Unspecified
            | CauseKind::Submitted
            | CauseKind::Granted
            | CauseKind::Started
            | CauseKind::RetriedByUser
            | CauseKind::RetriesSpent
            | CauseKind::Requeued
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_without_a_cause_is_given_one() {
        let told = |kind: i32| Ended { cause: Some(Cause { kind, ..Cause::default() }), ..Ended::default() };
        let strange = [CauseKind::Unspecified, CauseKind::Granted, CauseKind::RetriedByUser].map(i32::from);
        for ended in strange.into_iter().chain([99, -1]).map(told).chain([Ended::default()]) {
            let (why, artifacts) = judge("n1", ended, false);
            assert_eq!((why.kind(), why.node.as_str()), (CauseKind::AgentRestarted, "n1"));
            assert!(!why.text.is_empty() && artifacts.is_empty());
        }
        assert_eq!(judge("n1", told(CauseKind::Exit.into()), false).0.kind(), CauseKind::Exit);
    }

    #[test]
    fn outputs_that_are_too_many_or_too_long_are_not_kept() {
        let told = |artifacts: Vec<Artifact>| {
            let cause = Cause { kind: CauseKind::Succeeded.into(), ..Cause::default() };
            let (why, kept) = judge("n1", Ended { cause: Some(cause), artifacts, ..Ended::default() }, false);
            (why.kind(), kept.len())
        };
        let (many, long) = (limits::ARTIFACTS_PER_TASK_MAX, limits::ARTIFACT_BYTES_MAX - 16);
        let path = |bytes| vec![Artifact { path: "p".repeat(bytes), ..Artifact::default() }];
        assert_eq!(told(vec![Artifact::default(); many]), (CauseKind::Succeeded, many));
        assert_eq!(told(vec![Artifact::default(); many + 1]), (CauseKind::OutputMissing, 0));
        assert_eq!(told(path(long)), (CauseKind::Succeeded, 1));
        assert_eq!(told(path(long + 1)), (CauseKind::OutputMissing, 0));
    }
}
