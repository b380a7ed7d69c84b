//! The marks: places in what is rehearsed that a sweep must
//! reach at least once, by name, and the scenario whose sweep must.
//!
//! A mark at zero says that the rehearsals do not go there: then it is they that
//! lack something, and what lies behind the mark has not been checked. Those that
//! are known to lie out of reach say so.

use crate::scenario::Scenario;
use std::collections::BTreeMap;

/// A sweep of fewer seeds may well miss what is rare.
pub const SEEDS_JUDGED: usize = 250;

/// Which sweep must reach a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    Chaos,
    /// What a small cluster alone runs into.
    Narrow,
    /// What happens where machines come and go.
    Elastic,
    /// No workload and no fault of today leads there, or too rarely to be counted
    /// on: known, and to be mended.
    Nobody,
}

impl By {
    #[must_use]
    pub fn scenario(self) -> &'static str {
        match self {
            Self::Chaos => "chaos",
            Self::Narrow => "narrow",
            Self::Elastic => "elastic",
            Self::Nobody => "nobody",
        }
    }
}

use By::{Chaos, Elastic, Narrow, Nobody};

/// Name, who must reach it, and a word about it.
pub const ALL: &[(&str, By, &str)] = &[
    ("agent.adopt.exited", Chaos, "a new agent finds a process that ended meanwhile"),
    ("agent.adopt.running", Chaos, "a new agent takes a running process over"),
    ("agent.assign.gang_held_already", Nobody, "a gang is assigned that is held already"),
    ("agent.assign.held_already", Nobody, "a task is assigned that is held already"),
    ("agent.checkpoint.asked", Chaos, "a task is asked for a checkpoint by a signal"),
    ("agent.checkpoint.last_look", Chaos, "an attempt failed and may have a checkpoint"),
    ("agent.checkpoint.lost", Nobody, "the bytes to go on from are not there any more"),
    ("agent.checkpoint.told", Chaos, "a checkpoint lies in the object store"),
    ("agent.checkpoint.too_late", Nobody, "a checkpoint is of an attempt whose end is told"),
    ("agent.exit.by_the_dead_mans_switch", Chaos, "the supervisor alone ended a process"),
    ("agent.forget.while_it_lives", Nobody, "what the server does not keep is killed"),
    ("agent.frame.of_another_session", Nobody, "a frame comes behind its session"),
    ("agent.gang.waits_for_its_ranks", Chaos, "some ranks are staged, not all"),
    ("agent.giveway.asked", Chaos, "one that gives way is asked for a last checkpoint"),
    ("agent.giveway.had_ended", Narrow, "one that is to give way has just ended well"),
    ("agent.giveway.kept_its_last", Chaos, "one that gives way has kept it"),
    ("agent.giveway.waited_out", Chaos, "one that gives way kept none in time"),
    ("agent.handover.launch_too_late", Nobody, "a launch stood in line past its lease"),
    ("agent.handover.owed_again", Nobody, "an order is handed over once more"),
    ("agent.launch.began_after_its_end", Nobody, "a process starts whose attempt is over"),
    ("agent.launch.failed", Chaos, "a process cannot be launched"),
    ("agent.launch.in_doubt", Nobody, "whether a launch happened is not known"),
    ("agent.lease.answered_too_late", Nobody, "a heartbeat's answer finds its lease over"),
    ("agent.lease.begins_anew", Chaos, "a session begins over nothing held"),
    ("agent.lease.over", Chaos, "no word from the server for a lease's time"),
    ("agent.lease.over_with_work", Chaos, "what ran under that lease is ended"),
    ("agent.link.longest_pause", Chaos, "the pause before connecting is at its cap"),
    ("agent.link.registration_unanswered", Chaos, "a registration times out"),
    ("agent.link.server_fell_silent", Chaos, "a session's server is silent"),
    ("agent.link.server_stands_by", Chaos, "the server that an agent asks does not serve"),
    ("agent.logs.given_up", Chaos, "a node has no room for logs that the server cannot take"),
    ("agent.logs.receipts_overdue", Chaos, "log receipts do not come"),
    ("agent.logs.stream_broke", Chaos, "the stream of logs breaks"),
    ("agent.outputs.not_collected", Chaos, "outputs are missing or cannot be uploaded"),
    ("agent.progress.told", Chaos, "a task says how far it has come"),
    ("agent.reconcile.let_go", Chaos, "the server does not keep what was held"),
    ("agent.reports.sent_again", Chaos, "a new session repeats unconfirmed reports"),
    ("agent.session.goodbye", Nobody, "the server ends an old session"),
    ("agent.source.broken", Chaos, "a source of files is left alone"),
    ("agent.source.on_trial", Chaos, "one asks whether a source works again"),
    ("agent.source.waited_for", Chaos, "a transfer waits for its source"),
    ("agent.source.works_again", Chaos, "a source that was left alone is asked again"),
    ("agent.stage.shared", Chaos, "an input is laid without a copy"),
    ("agent.stage.tree", Chaos, "an input is a directory"),
    ("agent.staged.too_late", Chaos, "a directory is ready for what is over"),
    ("agent.staging.told", Chaos, "it is told how inputs come"),
    ("agent.start.leftover_directory", Chaos, "a new agent removes a directory"),
    ("agent.start.orphaned_log", Chaos, "a new agent finds logs not shipped"),
    ("agent.stop.before_its_launch", Chaos, "what has not begun is stopped"),
    ("agent.stop.killed", Chaos, "KILL follows TERM"),
    ("agent.stop.said_again", Chaos, "a stop is said twice"),
    ("agent.stop.while_collecting", Chaos, "a stop comes while outputs are collected"),
    ("agent.stop.while_saving", Nobody, "a stop comes while a last checkpoint is looked for"),
    ("agent.supervisor.lost", Chaos, "the supervisor is gone with its processes"),
    ("agent.timeout", Chaos, "a task runs past its timeout"),
    ("agent.url.expired", Chaos, "a signed URL had expired and is asked for anew"),
    ("controller.after.met", Chaos, "all that a job waited for ended as it was to"),
    ("controller.after.never", Chaos, "a job is let in that can never begin"),
    ("controller.after.unmet", Chaos, "what a job waited for ended otherwise"),
    ("controller.alerts.cleared", Chaos, "what an alert was about is over"),
    ("controller.alerts.raised", Chaos, "operators are told of something"),
    ("controller.backlog.event_waits", Nobody, "an event waits behind unfinished work"),
    ("controller.brake.judge_was_absent", Nobody, "the controller stood still itself"),
    ("controller.brake.many_silent_at_once", Narrow, "too many nodes fell silent together"),
    ("controller.brake.ran_out", Nobody, "a brake ends without the world heard"),
    ("controller.brake.world_heard_again", Narrow, "a brake ends since most were heard"),
    ("controller.cancel.of_an_ended_job", Chaos, "a cancel comes after the end"),
    ("controller.cancel.twice", Chaos, "a cancel is said again"),
    ("controller.chain.merged", Chaos, "several transactions share a commit"),
    ("controller.chain.sent_ahead", Chaos, "a commit leaves before the last is durable"),
    ("controller.checkpoint.kept", Chaos, "a checkpoint is kept for the next attempt"),
    ("controller.checkpoint.lost", Nobody, "a checkpoint is given up: its bytes are lost"),
    ("controller.checkpoint.not_kept", Nobody, "a checkpoint is told whose bytes are not there"),
    ("controller.checkpoint.told_again", Chaos, "a checkpoint is told a second time"),
    ("controller.end.cancelled_whatever_it_says", Chaos, "an attempt ends whose job is cancelled"),
    ("controller.end.gave_way", Chaos, "an attempt gave way to work of higher priority"),
    ("controller.end.given_back_untried", Chaos, "an attempt comes back that never ran"),
    ("controller.expiry.cleared", Chaos, "of a job that expired nothing is left"),
    ("controller.expiry.marked", Chaos, "what an ended job gave expires"),
    ("controller.expiry.not_any_more", Nobody, "what was due was tried again, or is done with"),
    ("controller.feed.ahead", Chaos, "short tasks are queued ahead of their slots"),
    ("controller.feed.avoided_node_after_all", Chaos, "a retry goes to a node it was to avoid"),
    ("controller.feed.node_is_kept", Chaos, "a grant's node is reserved for others meanwhile"),
    ("controller.feed.node_takes_no_work", Chaos, "a grant's node was drained or lost"),
    ("controller.follow.never_met", Chaos, "tasks are cancelled that can never begin"),
    ("controller.follow.task_ended", Chaos, "a task ends that another job's waits for"),
    ("controller.gang.commits", Chaos, "a gang's manifests are written"),
    ("controller.gang.ended_well_and_cancelled", Chaos, "all ranks end well of a cancelled job"),
    ("controller.gang.failed_as_one", Chaos, "a gang is over with a rank lost"),
    ("controller.gang.first_loss_stops_the_rest", Chaos, "a lost rank stops the others"),
    ("controller.gang.report_of_an_ended_rank", Nobody, "a rank's report comes twice or late"),
    ("controller.grant.of_a_lost_job", Nobody, "a grant is for a job whose submission was lost"),
    ("controller.grant.shown_by_a_stale_view", Nobody, "a grant comes that was given back"),
    ("controller.grant.surplus", Chaos, "a grant finds nothing to do"),
    ("controller.heartbeat.of_a_silent_stream", Nobody, "a stream lives that was given up"),
    ("controller.heartbeat.of_an_old_session", Chaos, "a heartbeat of an older session"),
    ("controller.hello.of_an_old_session", Nobody, "a Hello of an older session"),
    ("controller.job.unmet", Chaos, "a job ends since another's tasks did not"),
    ("controller.lease.over_before_it_began", Chaos, "a lost node had not begun a task"),
    ("controller.lease.over_with_a_task", Chaos, "a lost node's task is over"),
    ("controller.lease.over_with_ranks", Chaos, "a lost node's ranks are over"),
    ("controller.logs.brought", Chaos, "a reader wants of a log what is in the bucket"),
    ("controller.logs.ends_before_what_is_held", Nobody, "a power loss cut a log that was shipped further"),
    ("controller.logs.gap_refused", Nobody, "a shipment leaves a gap"),
    ("controller.logs.given_up", Chaos, "a log says what a node gave up of it"),
    ("controller.logs.moved", Chaos, "a part of a log goes into the bucket"),
    ("controller.logs.of_a_later_reign", Nobody, "a deposed server opens a log that another has"),
    ("controller.logs.packed", Chaos, "a log is compressed"),
    ("controller.logs.removed", Chaos, "the log of a job that expired goes"),
    ("controller.logs.said_before", Chaos, "a shipment comes twice"),
    ("controller.logs.taken_over", Chaos, "a log goes on from an earlier reign's"),
    ("controller.logs.torn_tail", Nobody, "a crash tore the end of a log"),
    ("controller.logs.turned", Chaos, "a log goes on in another file"),
    ("controller.node.drains_itself", Chaos, "a node eats tasks of several jobs"),
    ("controller.node.forgotten", Elastic, "a node that was removed is forgotten"),
    ("controller.node.heard_again", Chaos, "a suspect or lost node is heard"),
    ("controller.node.lost", Chaos, "a node is judged lost"),
    ("controller.node.reserved", Chaos, "an operator reserves a node"),
    ("controller.node.retired_before_it_came", Elastic, "a node that was to come is given up"),
    ("controller.node.suspect", Chaos, "a node misses a heartbeat"),
    ("controller.preempt.as_often_as_may_be", Chaos, "a task has given way as often as it may have to"),
    ("controller.preempt.asked_again", Nobody, "what gives way already is asked"),
    ("controller.preempt.begins", Chaos, "what is asked begins to give way"),
    ("controller.preempt.behind_what_gives_way", Nobody, "what had hardly begun goes back as others go"),
    ("controller.preempt.declined", Nobody, "nothing of what is asked can give way"),
    ("controller.preempt.gang_has_saved", Nobody, "all ranks that give way have kept a checkpoint"),
    ("controller.preempt.grant_goes", Chaos, "all of a grant gave way"),
    ("controller.preempt.grant_shrinks", Chaos, "a part of a grant gave way"),
    ("controller.progress.of_an_old_attempt", Nobody, "what an attempt says of itself comes after its end"),
    ("controller.progress.of_an_old_session", Nobody, "an agent whose session is over tells of progress"),
    ("controller.progress.told", Chaos, "it is known how far a task has come"),
    ("controller.reconcile.kept", Chaos, "an agent comes back with its task"),
    ("controller.reconcile.kept_ranks", Chaos, "an agent comes back with its ranks"),
    ("controller.reconcile.lost_what_ran", Chaos, "an agent comes back without its task"),
    ("controller.reconcile.told_again", Chaos, "an assignment did not arrive"),
    ("controller.reconcile.told_ranks_again", Chaos, "an assignment of ranks did not arrive"),
    ("controller.register.over_a_live_session", Chaos, "a node registers while its session lives"),
    ("controller.reign.fenced_off", Nobody, "a commit finds the shards another's, or nobody's"),
    ("controller.reign.found_over", Nobody, "a deposed server finds out as it asks"),
    ("controller.reign.lost_while_loading", Nobody, "the shards are lost before all rows are read"),
    ("controller.reign.stepped_down", Chaos, "one of several servers does not reign any more"),
    ("controller.reign.store_out_of_reach", Chaos, "the store is silent for a lease's time"),
    ("controller.report.bytes_are_missing", Nobody, "a report names bytes that are not there"),
    ("controller.report.lapsed_before_it_began", Nobody, "a lease ended before a task began"),
    ("controller.report.of_an_old_attempt", Chaos, "a report of an attempt that is over"),
    ("controller.report.of_an_old_session", Chaos, "reports of an older session"),
    ("controller.report.stray_is_stopped", Chaos, "an agent works at what is over"),
    ("controller.retry.backoff_doubles", Chaos, "a second failure waits longer"),
    ("controller.retry.own_spent", Chaos, "the work's own retries are spent"),
    ("controller.retry.platform_spent", Nobody, "the platform's retries are spent"),
    ("controller.retry.waits_for_the_budget", Chaos, "a retry waits for a token"),
    ("controller.session.end_of_an_older_stream", Nobody, "a stream ends that was replaced"),
    ("controller.session.replaced", Chaos, "a stream takes another's place"),
    ("controller.staging.of_no_staging", Nobody, "what is told of a staging comes after its end"),
    ("controller.staging.told", Chaos, "it is known how a task is staged"),
    ("controller.standby.takes_over", Chaos, "another server reigned before"),
    ("controller.start.gang_had_ended", Nobody, "all ranks had ended before a restart"),
    ("controller.start.gang_resumed", Chaos, "a gang runs over a restart"),
    ("controller.start.gives_way", Chaos, "what gives way does so over a restart"),
    ("controller.start.grant_in_use", Chaos, "a task runs over a restart"),
    ("controller.start.grant_unused", Chaos, "a grant was unseen at a restart"),
    ("controller.start.retry_waits", Chaos, "a retry waits over a restart"),
    ("controller.start.waits_for_a_job", Chaos, "a job waits for another over a restart"),
    ("controller.step.dependency_failed", Chaos, "a step before it did not complete"),
    ("controller.submit.refused", Chaos, "admission refuses a job"),
    ("controller.submit.said_twice", Chaos, "a submission comes again by its key"),
    ("controller.upload.forgotten", Chaos, "an upload goes that no job named for long"),
    ("controller.user_retry.of_a_live_job", Chaos, "a retry of what has not ended"),
    ("controller.user_retry.of_what_expired", Chaos, "a retry of a job that has expired"),
    ("controller.user_retry.taken", Chaos, "a user tries a job again"),
    ("gateway.bucket.doubt_resolved", Chaos, "an upload finds what a put left whose answer was lost"),
    ("gateway.bucket.failed", Chaos, "an upload is not taken since the bucket failed"),
    ("gateway.bucket.released", Chaos, "an object in the bucket is taken away"),
    ("gateway.collect.named_meanwhile", Nobody, "what no row named is named before it goes"),
    ("gateway.collect.taken", Chaos, "objects go that no row names"),
    ("gateway.notes.looked", Chaos, "what jobs wait for is noted"),
    ("gateway.objects.released", Chaos, "bytes are taken away"),
    ("gateway.outputs.of_no_completed_task", Chaos, "outputs lie there of a task that a retry began anew"),
    ("gateway.scaling.step_failed", Elastic, "a pool's row or a node cannot be changed now"),
    ("gateway.shipments.of_what_expired", Nobody, "a log comes late of a job that has expired"),
    ("gateway.standby.refuses", Chaos, "a server that stands by is asked"),
    ("gateway.standby.serves", Chaos, "a server that stood by serves"),
    ("gateway.upload.resumed", Chaos, "an upload goes on where one broke off"),
    ("scheduler.blocked.by_a_limit", Chaos, "its tenant is at a limit"),
    ("scheduler.blocked.by_capacity", Chaos, "no node can take it now"),
    ("scheduler.blocked.by_licenses", Chaos, "all of a license are in use, or kept for another"),
    ("scheduler.blocked.by_the_pass", Chaos, "it fits, but into no commit of the pass"),
    ("scheduler.clock.went_back", Chaos, "the clock of a scheduler goes back"),
    ("scheduler.conflict.of_a_license", Chaos, "two schedulers grant of one license"),
    ("scheduler.demand.forgotten_by_a_snapshot", Chaos, "a new controller wants less"),
    ("scheduler.follow.anew", Chaos, "a scheduler elsewhere follows the server anew"),
    ("scheduler.grant.gang", Chaos, "a gang is granted"),
    ("scheduler.grant.grows_in_its_pass", Narrow, "one grant takes more slots"),
    ("scheduler.grant.returned_again_and_again", Chaos, "unused grants make a demand rest"),
    ("scheduler.grant.returned_at_once", Chaos, "a grant comes back unused"),
    ("scheduler.grant.shrank", Chaos, "a grant has fewer slots than it had"),
    ("scheduler.grant.whole_nodes", Chaos, "a step gets nodes for itself"),
    ("scheduler.node.kept", Chaos, "a node is kept for others, or no more"),
    ("scheduler.outcome.over_before_it_was_told", Nobody, "a grant ended before its commit was told"),
    ("scheduler.outcome.watch_was_faster", Chaos, "the watch told a commit first"),
    ("scheduler.pass.behind_the_first", Chaos, "another starts while the first is blocked"),
    ("scheduler.pass.commits_become_one", Chaos, "grants that share a row share a commit"),
    ("scheduler.pass.hopeless_or_barred", Chaos, "nothing was freed for its shape"),
    ("scheduler.pass.leaves_the_rest", Nobody, "a pass has done its share"),
    ("scheduler.pass.limit_held_back", Chaos, "a limit is held back for the first"),
    ("scheduler.place.avoided", Chaos, "a retry avoids the node it failed on"),
    ("scheduler.place.avoided_after_all", Narrow, "there is no node but those avoided"),
    ("scheduler.place.in_the_way_of_another", Chaos, "another is to start there"),
    ("scheduler.place.kept_for_others", Chaos, "an operator reserved the node"),
    ("scheduler.place.not_alone", Chaos, "something runs where one would be alone"),
    ("scheduler.place.slips_in", Chaos, "it is gone before another is to start there"),
    ("scheduler.plan.anew", Chaos, "it is known now when there are licenses, or no more"),
    ("scheduler.plan.given_up", Chaos, "a start is planned no longer"),
    ("scheduler.plan.half_is_left", Chaos, "no more than half is held back"),
    ("scheduler.plan.handed_on", Chaos, "planned now for one before it"),
    ("scheduler.plan.instant_known", Chaos, "all that is in its way tells its end"),
    ("scheduler.plan.licenses_held_back", Chaos, "nobody knows when there are licenses for it"),
    ("scheduler.plan.nodes_held_back", Chaos, "nobody knows when it starts: its nodes are kept"),
    ("scheduler.plan.overdue", Chaos, "what was to start before now may start"),
    ("scheduler.plan.put_off", Chaos, "work did not end as it had told"),
    ("scheduler.plan.too_few_could", Narrow, "too few nodes could ever hold it"),
    ("scheduler.preempt.asked", Chaos, "work of lower priority is asked to give way"),
    ("scheduler.preempt.asked_too_late", Nobody, "what was to give way changed meanwhile"),
    ("scheduler.preempt.nothing_would_do", Chaos, "all that could give way is not enough"),
    ("scheduler.preempt.promise_kept", Chaos, "it starts in what became free for it"),
    ("scheduler.preempt.promise_lapses", Chaos, "what became free is not taken"),
    ("scheduler.preempt.room_is_made", Chaos, "all that was asked has given way"),
    ("scheduler.preempt.tenant_is_spared", Chaos, "a tenant has no more than who asks"),
    ("store.commit.conflict", Chaos, "a guard does not hold"),
    ("store.commit.shares_a_sync", Chaos, "several commits share a sync"),
    ("store.lease.ended_by_time", Chaos, "a lease ends unkept"),
    ("store.lease.revoked", Nobody, "a lease is given back"),
    ("store.open.half_made_before", Chaos, "a crash left a half-made file"),
    ("store.open.made", Chaos, "the store's file is made"),
    ("store.range.more_pages", Chaos, "a range has more than a page"),
    ("world.bring.goes_on", Chaos, "a fetch goes on with what an earlier try brought"),
    ("world.bring.of_two_makes", Nobody, "what several tries brought is not one file"),
    ("world.bring.part_refused", Chaos, "a part of a file is refused, and others come"),
    ("world.bucket.misread", Chaos, "what is to go into a bucket is read with a bit wrong"),
    ("world.pace.waits", Chaos, "a transfer waits for its part of the node's network"),
];

/// Those that a sweep of this scenario must reach and did not.
#[must_use]
pub fn missed(scenario: &Scenario, reached: &BTreeMap<String, u64>) -> Vec<(&'static str, &'static str)> {
    let due = ALL.iter().filter(|(_, by, _)| by.scenario() == scenario.name);
    due.filter(|(name, ..)| !reached.contains_key(*name)).map(|(name, _, about)| (*name, *about)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario;

    #[test]
    fn a_mark_at_zero_is_missed_by_the_scenario_that_must_reach_it() {
        let mut reached: BTreeMap<String, u64> =
            ALL.iter().map(|(name, ..)| ((*name).to_owned(), 1)).collect();
        let [chaos, narrow] = ["chaos", "narrow"].map(|name| scenario::named(name).unwrap());
        assert!(missed(&chaos, &reached).is_empty());
        reached.remove("controller.node.lost");
        assert_eq!(missed(&chaos, &reached), [("controller.node.lost", "a node is judged lost")]);
        assert!(missed(&narrow, &reached).is_empty());
    }

    #[test]
    fn every_mark_has_one_line_and_its_scenario_is_there() {
        for (at, (name, by, about)) in ALL.iter().enumerate() {
            assert!(ALL[..at].iter().all(|(other, ..)| other < name), "{name} is out of order, or twice");
            assert!(*by == Nobody || scenario::named(by.scenario()).is_some());
            assert!(!about.is_empty());
        }
        assert!(ALL.iter().filter(|(_, by, _)| *by != Nobody).count() >= 80);
    }
}
