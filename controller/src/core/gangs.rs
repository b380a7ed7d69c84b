//! Gangs: all ranks or none.
//!
//! What must hold: the attempt is RUNNING once all ranks started; it completes
//! only when all ended well, with one manifest per rank; when one is lost the
//! others are stopped, and only when every rank has ended, or its node's lease
//! has passed, is the attempt over and its grant given back. Ends of ranks are
//! kept in the block's row, so a crash in between forgets none.

use super::finish::{End, write_manifest};
use super::model::{Active, Rank, Spot, StepRun, cause};
use super::reports::judge;
use super::retry::{Class, class};
use super::{Core, Work, blocks, checkpoints, ledger};
use crate::limits;
use proto::v1::{Cause, CauseKind, ManifestRow, RankEnd, State, report};
use std::collections::BTreeMap;

impl Core {
    pub(super) fn rank_report(
        &mut self,
        node: &str,
        spot: &Spot,
        active: Active,
        rank: u32,
        what: report::What,
        missing: bool,
    ) {
        let Some(grant) = self.tenants.get(&spot.tenant).and_then(|tenant| tenant.grants.get(&active.epoch))
        else {
            return;
        };
        let state = grant.gang.as_ref().and_then(|gang| gang.ranks.get(rank as usize)).copied();
        let here = grant.node_of_rank(rank).is_some_and(|index| grant.node_name(index as u32) == node);
        let Some(state) = state.filter(|state| here && *state != Rank::Ended) else {
            world::mark!("controller.gang.report_of_an_ended_rank");
            self.stats.stale_reports += 1;
            return;
        };
        match what {
            report::What::Staging(_) => {}
            report::What::Started(_) => {
                if state == Rank::Bound {
                    self.rank_started(spot, active, rank);
                }
            }
            report::What::Checkpointed(told) => self.checkpointed(spot, active, rank, told, missing),
            report::What::Ended(ended) => {
                self.account(spot, &ended);
                if let Some(lost) = &ended.lost_checkpoint {
                    self.checkpoint_lost(spot, rank, lost);
                }
                let (why, artifacts) = judge(node, ended, missing);
                self.launched(node, spot, &why);
                self.rank_ended(spot, active, RankEnd { rank, cause: Some(why), artifacts });
            }
            report::What::Refused(refused) => {
                let text = format!("node {node} sent rank {rank} back: {}", refused.reason);
                let why = Cause { node: node.to_owned(), ..cause(CauseKind::StagingFailed, text) };
                self.rank_ended(spot, active, RankEnd { rank, cause: Some(why), artifacts: Vec::new() });
            }
        }
    }

    fn rank_started(&mut self, spot: &Spot, active: Active, rank: u32) {
        let tenant = self.tenants.get_mut(&spot.tenant);
        let grant = tenant.and_then(|tenant| tenant.grants.get_mut(&active.epoch));
        let Some(gang) = grant.and_then(|grant| grant.gang.as_mut()) else { return };
        if let Some(state) = gang.ranks.get_mut(rank as usize) {
            *state = Rank::Started;
        }
        if gang.ranks.iter().all(|state| *state != Rank::Bound) {
            self.started(spot, active);
        }
    }

    /// A rank is over, however. The first that is not over well dooms the rest.
    pub(super) fn rank_ended(&mut self, spot: &Spot, active: Active, mut end: RankEnd) {
        let rank = end.rank;
        let Some(tenant) = self.tenants.get_mut(&spot.tenant) else { return };
        let Some(grant) = tenant.grants.get_mut(&active.epoch) else { return };
        let Some(gang) = grant.gang.as_mut().filter(|gang| !gang.committing) else { return };
        match gang.ranks.get_mut(rank as usize) {
            Some(state) if *state != Rank::Ended => *state = Rank::Ended,
            _ => return,
        }
        let Some(job) = tenant.jobs.get_mut(&spot.number) else { return };
        let Some(run) = job.steps.get_mut(spot.step as usize) else { return };
        let number = StepRun::block_of(spot.task);
        let block = run.blocks.entry(number).or_default();
        let kept: usize = block.ranks.values().map(|end| end.artifacts.len()).sum();
        let weighs = blocks::weight(block) + end.artifacts.len() * 90;
        if kept + end.artifacts.len() > limits::ARTIFACTS_PER_GANG_MAX || weighs > limits::ARTIFACT_BYTES_MAX
        {
            let text = "the ranks have more outputs than can be kept; pack them into one file each";
            end.cause = Some(cause(CauseKind::OutputMissing, text));
            end.artifacts.clear();
        }
        let why = end.cause.clone().unwrap_or_default();
        block.ranks.insert(rank, end);
        let weight = blocks::weight(block);
        self.out.block(&spot.tenant, (spot.number, spot.step, number), weight);
        let lost = why.kind() != CauseKind::Succeeded;
        let first_loss = lost && gang.failure.is_none();
        if first_loss {
            gang.failure = Some(rank_failure(rank, why));
        }
        if gang.ranks.iter().all(|state| *state == Rank::Ended) {
            self.gang_over(spot, active.epoch);
        } else if first_loss {
            world::mark!("controller.gang.first_loss_stops_the_rest");
            let nodes = grant.row.nodes.len();
            for node in 0..nodes {
                self.send_stop(&spot.tenant, active.epoch, node);
            }
            self.arm_stops(&spot.tenant, spot.number);
        } else if gang.ranks.iter().all(|state| *state != Rank::Bound) {
            self.started(spot, active);
        }
    }

    /// Every rank has ended.
    pub(super) fn gang_over(&mut self, spot: &Spot, epoch: u64) {
        let Some(tenant) = self.tenants.get_mut(&spot.tenant) else { return };
        let cancelled = tenant.jobs.get(&spot.number).is_some_and(|job| job.state.cancel_requested);
        let grant = tenant.grants.get_mut(&epoch);
        let Some(gang) = grant.and_then(|grant| grant.gang.as_mut()) else { return };
        match gang.failure.clone() {
            Some(why) => {
                world::mark!("controller.gang.failed_as_one");
                let end = self.gang_made_room(spot, epoch).map_or(End::Failed(why), End::GaveWay);
                self.conclude(spot, end);
            }
            None if cancelled => {
                world::mark!("controller.gang.ended_well_and_cancelled");
                self.conclude(spot, End::Done(Vec::new()));
            }
            None => {
                world::mark!("controller.gang.commits");
                gang.committing = true;
                self.commit_gang(spot.clone(), 0);
            }
        }
    }

    /// Writes the manifests of a gang that ended well, as many as fit, and ends
    /// the attempt with the last of them. Nothing can fail any more, and until
    /// then no reader takes the task for completed.
    pub(super) fn commit_gang(&mut self, spot: Spot, from_rank: u32) {
        let now_ms = self.now.wall_ms;
        let Some(tenant) = self.tenants.get_mut(&spot.tenant) else { return };
        let Some(job) = tenant.jobs.get_mut(&spot.number) else { return };
        let Some(run) = job.steps.get_mut(spot.step as usize) else { return };
        let Some(active) = run.active(spot.task).copied() else { return };
        let state = job.state.steps.get(spot.step as usize);
        let generation = Some(state.map_or(0, |state| state.generation));
        let block = StepRun::block_of(spot.task);
        let ends: Vec<RankEnd> = run
            .blocks
            .get(&block)
            .map(|block| block.ranks.range(from_rank..).map(|(_, end)| end.clone()).collect())
            .unwrap_or_default();
        for end in ends {
            if self.out.full() {
                self.backlog.push_front(Work::CommitGang { spot, from_rank: end.rank });
                return;
            }
            let row = ManifestRow {
                task: spot.task,
                rank: end.rank,
                attempt: active.attempt,
                epoch: active.epoch,
                artifacts: end.artifacts,
                committed_ms: now_ms,
                generation,
            };
            // An earlier attempt may have left rows behind.
            write_manifest(&mut self.out, run, &spot, row, true);
            let dropped = checkpoints::forget(&mut self.out, run, &spot, end.rank);
            if dropped > 0 {
                ledger::drop_stored(&mut tenant.ledger, &mut job.state, dropped);
                self.out.state(&spot.tenant, spot.number);
                self.out.ledger(&spot.tenant);
            }
        }
        let artifacts = run.blocks.get(&block).into_iter().flat_map(|block| block.ranks.values());
        let bytes = artifacts
            .flat_map(|end| &end.artifacts)
            .fold(0, |sum: u64, artifact| sum.saturating_add(artifact.size_bytes));
        ledger::store(&mut tenant.ledger, &mut job.state, bytes);
        self.begun(&spot.tenant, spot.number, spot.step, State::Running);
        self.conclude(&spot, End::Done(Vec::new()));
    }
}

/// Of stored ends the one that doomed the others, as well as it can be told:
/// the work's own failure rather than the platform's, and rather any than the
/// end of a rank that was stopped for it.
pub(super) fn first_failure(ends: &BTreeMap<u32, RankEnd>) -> Option<Cause> {
    let lost = ends.iter().filter_map(|(rank, end)| {
        let why = end.cause.clone().unwrap_or_default();
        (why.kind() != CauseKind::Succeeded).then_some((*rank, why))
    });
    let (rank, why) = lost.min_by_key(|(rank, why)| {
        (class(why) == Class::Platform, why.kind() == CauseKind::CancelledByUser, *rank)
    })?;
    Some(rank_failure(rank, why))
}

fn rank_failure(rank: u32, why: Cause) -> Cause {
    let text = if why.text.is_empty() {
        format!("rank {rank} was lost")
    } else {
        format!("rank {rank}: {}", why.text)
    };
    Cause { text, ..why }
}

/// Some rank of it was lost: the others are to end too.
pub(super) fn failing(grant: &super::model::Grant) -> bool {
    grant.gang.as_ref().is_some_and(|gang| gang.failure.is_some())
}
