//! What a node does, told as it happens.

use super::*;
use crate::core::Snapshot;
use crate::core::cause::{Fault, StageFault};
use crate::core::{Coming, Said, Seen};
use proto::v1::{
    AgentFrame, Artifact, Cause, CauseKind, Checkpoint, CheckpointId, Gang, GangNode, Goodbye,
    RankCheckpoint, Reconcile, Stop,
};
use std::collections::BTreeMap;
use world::processes::Record;

const DONE: Exit = Exit {
    code: 0,
    signal: 0,
    stdout_bytes: 5,
    stderr_bytes: 0,
    wall_ms: 10,
    cpu_ms: 1,
    max_rss_bytes: 1,
    fenced: false,
};

fn with_outputs() -> Step {
    Step { outputs: vec!["words".to_owned()], ..step() }
}

fn cancel(tasks: impl IntoIterator<Item = u64>, grace_ms: u64) -> Told {
    let cause =
        Cause { kind: CauseKind::CancelledByUser.into(), text: "enough".to_owned(), ..Cause::default() };
    Told::Stop(Stop {
        attempts: tasks.into_iter().map(attempt).collect(),
        grace_ms,
        cause: Some(cause),
        checkpoint_ms: 0,
    })
}

fn none() -> Vec<String> {
    Vec::new()
}

#[test]
fn a_task_from_its_assignment_to_being_forgotten() {
    let mut node = Node::new();
    assert_eq!(node.open(), ["hello", "heartbeat 1 running=0 queued=0"]);
    assert_eq!(node.renew(1), ["alive until 28000"]);
    assert_eq!(node.hear(assign(1, [4])), ["stage 4"]);
    assert_eq!(node.staged([4]), ["launch 4"]);
    assert_eq!(node.started(4), ["log opened 4", "report 1: started 4"]);
    node.now.mono_ms += 50;
    assert_eq!(node.exited(4, DONE), ["log 4 ends at 5 0", "report 2: ended 4 Succeeded (exit code 0)"]);
    assert_eq!(node.acknowledge(1), none());
    assert_eq!(node.acknowledge(2), ["forget 4", "log 4 may go", "discard t.1.0.4.0.1.9.1"]);
    assert!(node.core.keys().is_empty());
    assert_eq!(node.core.next_wakeup_ms(), Some(6_000), "only the next heartbeat is due");
}

#[test]
fn a_launch_tells_the_task_who_it_is() {
    let mut node = Node::ready();
    let env = BTreeMap::from([("GREETING".to_owned(), "hi".to_owned())]);
    let step = Step { argv: Vec::new(), run: "echo $GREETING".to_owned(), env, ..step() };
    node.hear(Told::Assign(assign_of(1, [4], step)));
    node.staged([4]);
    let launch = node.launches.pop().unwrap();
    assert_eq!(launch.key, "t/1/0/4/0/1/9");
    assert_eq!(launch.argv, ["sh", "-c", "echo $GREETING"]);
    assert_eq!(launch.cwd.to_str(), Some("/d/work/t.1.0.4.0.1.9.1"));
    assert_eq!(launch.stdout.to_str(), Some("/d/spool/t.1.0.4.0.1.9.out"));
    let env: BTreeMap<_, _> = launch.env.into_iter().collect();
    for (name, value) in [
        ("GREETING", "hi"),
        ("DRUMLINE_JOB_ID", "t-1"),
        ("DRUMLINE_STEP", "s"),
        ("DRUMLINE_TASK", "104"),
        ("DRUMLINE_ATTEMPT", "1"),
        ("DRUMLINE_RANK", "0"),
        ("DRUMLINE_WORLD_SIZE", "1"),
        ("DRUMLINE_NODELIST", "n1"),
        ("DRUMLINE_CHECKPOINT_DIR", "/d/work/t.1.0.4.0.1.9.1/checkpoint"),
        ("DRUMLINE_PROGRESS", "/d/work/t.1.0.4.0.1.9.1/.drumline-progress"),
    ] {
        assert_eq!(env.get(name).map(String::as_str), Some(value), "{name}");
    }
    assert!(env.contains_key("PATH"));
}

#[test]
fn only_as_many_run_as_there_are_slots_and_the_next_is_ready() {
    let mut node = Node::ready();
    assert_eq!(node.hear(assign(2, 0..3)), ["stage 0", "stage 1", "stage 2"]);
    assert_eq!(node.staged(0..3), ["launch 0", "launch 1"]);
    node.started(0);
    let lines = node.exited(0, DONE);
    assert!(lines.contains(&"launch 2".to_owned()), "{lines:?}");
}

#[test]
fn tasks_are_staged_ahead_within_bounds() {
    let mut node = Node::ready();
    let ahead = crate::limits::STAGE_AHEAD_LIGHT + 1;
    assert_eq!(node.hear(assign(1, 0..500)).len(), ahead);
    let heavy = Assign { inputs: vec![Default::default()], epoch: 10, ..assign_of(2, 0..500, step()) };
    assert_eq!(node.hear(Told::Assign(heavy)).len(), crate::limits::STAGE_AHEAD_HEAVY + 2);
}

#[test]
fn an_assignment_said_twice_is_taken_once() {
    let mut node = Node::ready();
    node.hear(assign(1, [0]));
    assert_eq!(node.hear(assign(1, [0])), none());
    assert_eq!(node.staged([0]), ["launch 0"]);
    assert_eq!(node.hear(assign(1, [0])), none());
    node.exited(0, DONE);
    assert_eq!(node.hear(assign(1, [0])), none(), "it ended and its report is on its way");
}

#[test]
fn what_cannot_be_run_is_sent_back() {
    let mut node = Node::ready();
    let lines = node.hear(Told::Assign(assign_of(1, [0], Step::default())));
    assert_eq!(lines, ["report 1: refused 0 (step `` has neither argv nor run)"]);
    assert!(node.core.keys().is_empty());
}

#[test]
fn nothing_is_launched_before_the_lease_is_renewed() {
    let mut node = Node::new();
    node.open();
    node.hear(assign(1, [0]));
    assert_eq!(node.staged([0]), none());
    assert_eq!(node.renew(1), ["alive until 28000", "launch 0"]);
}

#[test]
fn a_lease_is_counted_from_when_the_heartbeat_was_sent() {
    let mut node = Node::ready(); // heartbeat 1 was sent at 1,000
    node.hear(assign(1, [0, 1]));
    node.staged([0, 1]);
    node.started(0);
    assert_eq!(node.later(5_000), ["heartbeat 2 running=1 queued=1"]); // sent at 6,000
    node.now.mono_ms += 4_000;
    assert_eq!(node.renew(2), ["alive until 33000"], "an answer at 10,000 counts from 6,000");
    node.close();
    node.now.mono_ms = 30_999;
    assert_eq!(node.step(Event::Tick), none());
    assert_eq!(node.core.next_wakeup_ms(), Some(31_000));
    assert_eq!(node.later(1), ["Term 0"]);
    assert_eq!(node.later(1_999), none());
    assert_eq!(node.later(1), ["Kill 0"]);
    assert_eq!(node.later(1_000), ["Kill 0"], "until it is heard");
    node.exited(0, Exit { signal: 9, ..Exit::default() });
    let lines = node.open();
    let silent = "node n1 had no word from the server for 25s: its lease ran out";
    assert_eq!(
        lines[2],
        format!("report 2: started 0; ended 1 LeaseExpired ({silent}); ended 0 LeaseExpired ({silent})")
    );
}

#[test]
fn spans_beyond_all_numbers_only_last_long() {
    let mut node = Node::new();
    node.later(60_000);
    let (heartbeat_ms, lease_ttl_ms) = (u64::MAX, u64::MAX);
    node.step(Event::SessionOpened { session: 1, heartbeat_ms, lease_ttl_ms });
    let ttl_ms = u64::MAX;
    node.step(Event::Frame { session: 1, frame: Told::Lease(LeaseRenewal { sequence: 1, ttl_ms }) });
    node.step(Event::Frame { session: 1, frame: assign(1, [4]) });
    assert_eq!(node.staged([4]), ["launch 4"]);
    assert_eq!(node.later(1 << 40), none());
}

#[test]
fn an_answer_to_an_old_session_renews_nothing() {
    let mut node = Node::new();
    node.open();
    node.close();
    node.open();
    let frame = Told::Lease(LeaseRenewal { sequence: 1, ttl_ms: 30_000 });
    assert_eq!(node.step(Event::Frame { session: 1, frame }), none());
    node.hear(assign(1, [0]));
    assert_eq!(node.staged([0]), none());
}

#[test]
fn the_supervisors_own_fence_is_told_as_what_it_is() {
    let mut node = Node::ready();
    node.hear(assign(1, [0]));
    node.staged([0]);
    let lines = node.exited(0, Exit { signal: 9, fenced: true, ..Exit::default() });
    assert!(lines.concat().contains("ended 0 LeaseExpired"), "{lines:?}");
}

#[test]
fn launches_that_came_too_late_never_ran() {
    let mut node = Node::ready();
    node.hear(assign(1, [0]));
    node.staged([0]);
    let lines = node.step(Event::Lapsed { launches: vec![key(0).process_key()] });
    assert_eq!(lines, ["report 1: ended 0 LeaseExpired (the lease of node n1 ran out before it started)"]);
    assert_eq!(node.acknowledge(1), ["log 0 goes", "discard t.1.0.0.0.1.9.1"]);
}

fn gang() -> Assign {
    let node = |name: &str| GangNode { node: name.to_owned(), address: name.to_owned(), ranks: 2 };
    let gang = Gang {
        world_size: 4,
        nodes: vec![node("n0"), node("n1")],
        master_address: "10.0.0.1".to_owned(),
        master_port: 29_500,
        first_rank: 2,
        local_ranks: 2,
    };
    Assign { gang: Some(gang), ..assign_of(2, [0], step()) }
}

#[test]
fn the_ranks_of_a_gang_are_launched_together() {
    let mut node = Node::ready();
    assert_eq!(node.hear(Told::Assign(gang())), ["stage 0.2", "stage 0.3"]);
    let ready = |node: &mut Node, rank| {
        let key = Key { rank, ..key(0) };
        let directory = node.core.attempts[&key].directory.clone().unwrap();
        node.step(Event::Staged { key, directory, result: Ok(()) })
    };
    assert_eq!(ready(&mut node, 3), none());
    assert_eq!(ready(&mut node, 2), ["launch 0.2", "launch 0.3"]);
    let env: BTreeMap<_, _> = node.launches[1].env.iter().cloned().collect();
    for (name, value) in [
        ("DRUMLINE_RANK", "3"),
        ("DRUMLINE_LOCAL_RANK", "1"),
        ("DRUMLINE_WORLD_SIZE", "4"),
        ("DRUMLINE_NODELIST", "n0,n1"),
        ("DRUMLINE_MASTER_ADDR", "10.0.0.1"),
        ("DRUMLINE_MASTER_PORT", "29500"),
    ] {
        assert_eq!(env.get(name).map(String::as_str), Some(value), "{name}");
    }
    assert_eq!(node.hear(cancel([0], 100)), ["Term 0.2", "Term 0.3"]);
}

/// Both local ranks of [`gang`] run.
fn running_gang() -> Node {
    let mut node = Node::ready();
    node.hear(Told::Assign(gang()));
    assert_eq!(node.staged([0]), ["launch 0.2", "launch 0.3"]);
    node
}

fn rank_exited(node: &mut Node, rank: u32) -> Vec<String> {
    let key = Key { rank, ..key(0) }.process_key();
    node.process(Report::Exited { key, exit: DONE })
}

#[test]
fn a_gang_said_again_launches_no_rank_that_has_ended() {
    let mut node = running_gang();
    let lines = rank_exited(&mut node, 2);
    assert_eq!(lines[2], "report 1: ended 0.2 Succeeded (exit code 0)");
    assert_eq!(node.acknowledge(1)[0], "forget 0.2");
    // The server thought the stream was lost, and says it once more.
    assert_eq!(node.hear(Told::Assign(gang())), none());
    assert_eq!(node.core.keys().len(), 1, "rank 3 alone is held, and runs on");
}

#[test]
fn a_gang_of_which_a_rank_was_launched_before_is_not_launched_by_the_next_agent() {
    let old = running_gang();
    // The old agent died before its second launch went out.
    let launch = &old.launches[0];
    let record =
        Record { key: launch.key.clone(), context: launch.context.clone(), pid: 1, exit: Some(DONE) };
    let mut new = Node::new();
    new.step(Event::Adopted(vec![record]));
    assert_eq!(new.open()[0], "hello 0.2 Completed");
    new.hear(Told::Reconcile(Reconcile { keep: vec![attempt(0)] }));
    new.renew(1);
    assert_eq!(new.hear(Told::Assign(gang())), none(), "all ranks or none");
}

#[test]
fn a_rank_that_cannot_be_staged_keeps_the_others_from_starting() {
    let mut node = Node::ready();
    node.hear(Told::Assign(gang()));
    let staged = |node: &mut Node, rank, result| {
        let key = Key { rank, ..key(0) };
        let directory = node.core.attempts[&key].directory.clone().unwrap();
        node.step(Event::Staged { key, directory, result })
    };
    let fault = Fault::new(CauseKind::StagingFailed, "no");
    assert_eq!(staged(&mut node, 2, Err(fault.into())), ["report 1: ended 0.2 StagingFailed (no)"]);
    assert_eq!(staged(&mut node, 3, Ok(())), none());
    node.acknowledge(1);
    node.now.mono_ms += 10;
    let lines = node.hear(cancel([0], 100));
    assert_eq!(lines, ["report 2: ended 0.3 CancelledByUser (enough)"], "the server ends the rest");
}

/// A step whose checkpoints are looked for every two seconds.
fn saving() -> Step {
    let checkpoint = Some(Checkpoint { path: "ckpt/".to_owned(), every_ms: 2_000, ..Checkpoint::default() });
    Step { checkpoint, ..step() }
}

fn looked(node: &mut Node, task: u64, label: Option<&str>) -> Vec<String> {
    let found = label.map(|label| Snapshot { label: label.to_owned(), artifacts: Vec::new() });
    let directory = format!("t.1.0.{task}.0.1.9.{}", task + 1);
    node.step(Event::Looked { key: key(task), directory, found })
}

#[test]
fn a_task_is_looked_at_for_checkpoints_while_it_runs_and_once_after_it_failed() {
    let mut node = Node::ready();
    node.hear(Told::Assign(assign_of(1, [0], saving())));
    node.staged([0]);
    let env: BTreeMap<_, _> = node.launches.pop().unwrap().env.into_iter().collect();
    assert_eq!(env["DRUMLINE_CHECKPOINT_DIR"], "/d/work/t.1.0.0.0.1.9.1/ckpt");
    node.started(0);
    assert_eq!(node.later(2_000), ["look at 0"]);
    assert_eq!(node.later(2_500), none(), "one at a time");
    assert_eq!(looked(&mut node, 0, Some("a")), ["report 2: checkpoint a of 0"]);
    assert_eq!(node.later(1_900), ["heartbeat 2 running=1 queued=0"]);
    assert_eq!(node.later(100), ["look at 0"]);
    let ended = node.exited(0, Exit { code: 3, ..DONE });
    assert_eq!(ended, ["log 0 ends at 5 0"], "a look is under way");
    assert_eq!(looked(&mut node, 0, None), ["look at 0"], "that one began before the end");
    let told = looked(&mut node, 0, Some("b"));
    assert_eq!(told, ["report 3: checkpoint b of 0; ended 0 Exit (exit code 3)"]);
}

fn give_way(checkpoint_ms: u64) -> Told {
    let cause = Cause { kind: CauseKind::Preempted.into(), text: "gave way".to_owned(), ..Cause::default() };
    Told::Stop(Stop { attempts: vec![attempt(0)], grace_ms: 5_000, cause: Some(cause), checkpoint_ms })
}

/// It runs, and wants to be asked by this for its checkpoints; by nothing: it has some.
fn running_with(signal: &str) -> Node {
    let mut node = Node::ready();
    let mut step = saving();
    step.checkpoint =
        Some(Checkpoint { every_ms: 3_600_000, signal: signal.to_owned(), ..step.checkpoint.unwrap() });
    node.hear(Told::Assign(assign_of(1, [0], step)));
    node.staged([0]);
    node.started(0);
    node.now.mono_ms += 10;
    node
}

#[test]
fn one_that_gives_way_keeps_a_last_checkpoint_first() {
    let mut node = running_with("USR1");
    assert_eq!(node.hear(give_way(60_000)), ["USR1 to 0"]);
    // Said again it is not asked again.
    assert_eq!(node.hear(give_way(60_000)), none());
    assert_eq!(node.later(500), ["look at 0"]);
    assert_eq!(looked(&mut node, 0, None), none());
    assert_eq!(node.later(500), ["look at 0"]);
    let told = looked(&mut node, 0, Some("a"));
    assert_eq!(told, ["Term 0", "report 2: checkpoint a of 0"]);
    assert!(node.exited(0, DONE).contains(&"look at 0".to_owned()), "it may have kept one more");
    let mut told = looked(&mut node, 0, None);
    told.extend(node.later(100));
    assert_eq!(told, ["report 3: ended 0 Preempted (gave way)"]);
}

#[test]
fn one_that_gives_way_and_keeps_nothing_is_waited_for_no_longer_than_was_said_first() {
    let mut node = running_with("USR1");
    node.hear(give_way(2_000));
    let mut told = node.later(1_000);
    told.extend(looked(&mut node, 0, None));
    told.extend(node.hear(give_way(60_000)));
    assert!(!told.contains(&"Term 0".to_owned()), "{told:?}");
    let told = node.later(1_000);
    assert!(told.contains(&"Term 0".to_owned()), "{told:?}");
    // What ends by itself meanwhile has ended by itself.
    let mut node = running_with("USR1");
    node.hear(give_way(60_000));
    assert!(node.exited(0, DONE).contains(&"report 2: ended 0 Succeeded (exit code 0)".to_owned()));
}

#[test]
fn term_asks_one_that_knows_no_signal_and_it_has_as_long() {
    let mut node = running_with("");
    assert_eq!(node.hear(give_way(20_000)), ["Term 0"]);
    assert_eq!(node.hear(give_way(20_000)), none());
    // Without checkpoints there is nothing to wait for.
    let mut node = Node::ready();
    node.hear(assign(1, [0]));
    node.staged([0]);
    node.started(0);
    assert_eq!(node.hear(give_way(20_000)), ["Term 0"]);
    let told = node.later(5_000);
    assert!(told.contains(&"Kill 0".to_owned()), "{told:?}");
}

#[test]
fn a_task_that_wants_to_be_asked_is_asked_and_then_looked_at_often() {
    let mut node = Node::ready();
    let mut step = saving();
    step.checkpoint.as_mut().unwrap().signal = "USR1".to_owned();
    node.hear(Told::Assign(assign_of(1, [0], step)));
    node.staged([0]);
    node.started(0);
    assert_eq!(node.later(2_000), ["USR1 to 0"]);
    assert_eq!(node.later(500), ["look at 0"]);
    assert_eq!(looked(&mut node, 0, None), none(), "not yet");
    assert_eq!(node.later(500), ["look at 0"]);
    assert_eq!(looked(&mut node, 0, Some("a")), ["report 2: checkpoint a of 0"]);
    assert_eq!(node.later(900), none(), "the next is not due");
    // Two seconds after it was asked, not after it answered.
    assert_eq!(node.later(100), ["USR1 to 0"]);
    // It does not answer: it is looked at to the last, and asked again.
    for asked in [none(), none(), none(), vec!["USR1 to 0".to_owned()]] {
        assert_eq!(node.later(500)[0], "look at 0");
        assert_eq!(looked(&mut node, 0, None), asked);
    }
    // What it writes when it fails is not lost.
    node.exited(0, Exit { code: 3, ..DONE });
    let told = looked(&mut node, 0, Some("b"));
    assert_eq!(told, ["report 3: checkpoint b of 0; ended 0 Exit (exit code 3)"]);
}

#[test]
fn a_last_look_is_cut_off_by_its_user_alone() {
    let last_look = || {
        let mut node = Node::ready();
        node.hear(Told::Assign(assign_of(1, [0], saving())));
        node.staged([0]);
        node.started(0);
        node.now.mono_ms += 10;
        assert!(node.exited(0, Exit { code: 3, ..DONE }).contains(&"look at 0".to_owned()));
        node
    };
    // A gang's other ranks are told again and again to stop, and a lease may end meanwhile.
    let mut node = last_look();
    let cause = Some(Cause { kind: CauseKind::Exit.into(), ..Cause::default() });
    assert_eq!(
        node.hear(Told::Stop(Stop { attempts: vec![attempt(0)], grace_ms: 0, cause, checkpoint_ms: 0 })),
        none()
    );
    node.close();
    assert_eq!(node.later(30_000), none(), "no process of it is left to be ended");
    looked(&mut node, 0, Some("a"));
    let told = node.open();
    assert!(
        told.iter().any(|line| line.ends_with("checkpoint a of 0; ended 0 Exit (exit code 3)")),
        "{told:?}"
    );
    let mut node = last_look();
    let lines = node.hear(cancel([0], 300));
    assert!(lines.iter().any(|line| line.ends_with("ended 0 Exit (exit code 3)")), "{lines:?}");
}

#[test]
fn what_ended_well_or_by_its_user_is_not_looked_at_again() {
    let mut node = Node::ready();
    node.hear(Told::Assign(assign_of(2, [0, 1], saving())));
    node.staged([0, 1]);
    for task in [0, 1] {
        node.started(task);
    }
    node.now.mono_ms += 10;
    let lines = node.exited(0, DONE);
    assert!(lines.contains(&"report 2: started 1; ended 0 Succeeded (exit code 0)".to_owned()), "{lines:?}");
    node.hear(cancel([1], 300));
    node.now.mono_ms += 10;
    let lines = node.exited(1, Exit { signal: 15, ..DONE });
    assert!(lines.contains(&"report 3: ended 1 CancelledByUser (enough)".to_owned()), "{lines:?}");
    assert_eq!(looked(&mut node, 1, Some("late")), none(), "its end is told");
}

#[test]
fn a_task_goes_on_from_what_it_was_assigned_with() {
    let mut node = Node::ready();
    let mut told = assign_of(1, [0], saving());
    let from = RankCheckpoint { label: "12".to_owned(), ..RankCheckpoint::default() };
    told.tasks[0].checkpoints = vec![from];
    node.hear(Told::Assign(told));
    node.staged([0]);
    let env: BTreeMap<_, _> = node.launches.pop().unwrap().env.into_iter().collect();
    assert_eq!(env["DRUMLINE_CHECKPOINT"], "12");
}

#[test]
fn a_checkpoint_that_is_lost_is_told_with_the_end() {
    let mut node = Node::ready();
    node.hear(Told::Assign(assign_of(1, [0], saving())));
    let directory = node.core.attempts[&key(0)].directory.clone().unwrap();
    let lost = CheckpointId { attempt: 1, epoch: 9, session: 2, number: 3 };
    let fault =
        StageFault { lost_checkpoint: Some(lost), ..Fault::new(CauseKind::StagingFailed, "no").into() };
    let actions = node.core.step(node.now, Event::Staged { key: key(0), directory, result: Err(fault) });
    let told =
        actions.into_iter().chain(node.core.step(node.now, Event::Tick)).find_map(|action| match action {
            Action::Send(AgentFrame { frame: Some(Frame::Reports(reports)) }) => {
                reports.reports[0].what.clone()
            }
            _ => None,
        });
    let Some(report::What::Ended(ended)) = told else { panic!("its end is told: {told:?}") };
    assert_eq!(ended.lost_checkpoint, Some(lost));
}

#[test]
fn a_stop_ends_what_waits_at_once_and_what_runs_by_term_then_kill() {
    let mut node = Node::ready();
    node.hear(assign(1, [0, 1]));
    node.staged([0, 1]);
    node.started(0);
    node.now.mono_ms += 10;
    assert_eq!(node.hear(cancel([0, 1], 300)), ["Term 0", "report 2: ended 1 CancelledByUser (enough)"]);
    assert_eq!(node.hear(cancel([0, 1], 300)), none(), "said twice");
    assert_eq!(node.later(300), ["Kill 0"]);
    let lines = node.exited(0, Exit { signal: 9, ..Exit::default() });
    assert_eq!(lines[1], "report 3: ended 0 CancelledByUser (enough)");
}

#[test]
fn a_stop_of_what_is_just_being_launched_follows_the_launch() {
    let mut node = Node::ready();
    node.hear(assign(1, [0]));
    assert_eq!(node.staged([0]), ["launch 0"]);
    assert_eq!(node.hear(cancel([0], 0)), ["Kill 0"]);
}

#[test]
fn a_stop_during_staging_leaves_no_directory_behind() {
    let mut node = Node::ready();
    node.hear(assign(1, [0]));
    assert_eq!(node.hear(cancel([0], 0)), ["report 1: ended 0 CancelledByUser (enough)"]);
    node.acknowledge(1);
    let directory = "t.1.0.0.0.1.9.1".to_owned();
    let lines = node.step(Event::Staged { key: key(0), directory, result: Ok(()) });
    assert_eq!(lines, ["log 0 goes", "discard t.1.0.0.0.1.9.1"]);
}

#[test]
fn a_task_that_runs_too_long_is_ended() {
    let mut node = Node::ready();
    let step = Step { timeout_ms: 2_000, ..step() };
    node.hear(Told::Assign(assign_of(1, [0], step)));
    node.staged([0]);
    node.started(0);
    assert_eq!(node.later(2_000), ["Term 0"]);
    let lines = node.exited(0, Exit { signal: 15, ..Exit::default() });
    assert!(lines[1].ends_with("ended 0 Timeout (ran longer than its timeout 2s)"), "{lines:?}");
}

#[test]
fn a_program_that_is_not_there_fails_by_name() {
    let mut node = Node::ready();
    node.hear(assign(1, [0]));
    node.staged([0]);
    let error = "No such file or directory (os error 2)".to_owned();
    let lines = node.process(Report::LaunchFailed { key: key(0).process_key(), error });
    assert!(lines[2].ends_with("ended 0 LaunchFailed (program `prog` not found)"), "{lines:?}");
}

#[test]
fn success_waits_for_its_outputs() {
    let mut node = Node::ready();
    node.hear(Told::Assign(assign_of(1, [0, 1], with_outputs())));
    node.staged([0, 1]);
    node.started(0);
    node.now.mono_ms += 10;
    let lines = node.exited(0, DONE);
    assert_eq!(lines, ["log 0 ends at 5 0", "collect 0", "launch 1"], "its slot is free meanwhile");
    let artifact = Artifact { path: "words".to_owned(), ..Artifact::default() };
    let lines = node.step(Event::Collected { key: key(0), result: Ok(vec![artifact]) });
    assert_eq!(lines, ["report 2: ended 0 Succeeded (exit code 0)"]);
    node.now.mono_ms += 10;
    node.exited(1, DONE);
    let fault = Fault::new(CauseKind::OutputMissing, "output `words` matched no file");
    let lines = node.step(Event::Collected { key: key(1), result: Err(fault) });
    assert_eq!(lines, ["report 3: ended 1 OutputMissing (output `words` matched no file)"]);
}

#[test]
fn a_failure_gives_no_outputs() {
    let mut node = Node::ready();
    node.hear(Told::Assign(assign_of(1, [0], with_outputs())));
    node.staged([0]);
    let lines = node.exited(0, Exit { code: 3, ..Exit::default() });
    assert!(lines[2].ends_with("ended 0 Exit (exit code 3)"), "{lines:?}");
}

#[test]
fn reports_close_together_share_a_frame() {
    let mut node = Node::ready();
    node.hear(assign(3, 0..3));
    node.staged(0..3);
    assert_eq!(node.started(0)[1], "report 1: started 0", "the first leaves at once");
    assert_eq!(node.started(1), ["log opened 1"]);
    assert_eq!(node.started(2), ["log opened 2"]);
    assert_eq!(node.core.next_wakeup_ms(), Some(node.now.mono_ms + 2));
    assert_eq!(node.later(2), ["report 2: started 1; started 2"]);
}

#[test]
fn what_was_not_confirmed_is_said_again_in_order() {
    let mut node = Node::ready();
    node.hear(assign(1, [0]));
    node.staged([0]);
    node.started(0);
    node.now.mono_ms += 10;
    node.exited(0, DONE);
    node.close();
    let lines = node.open();
    assert_eq!(
        lines,
        [
            "hello 0 Completed",
            "heartbeat 1 running=0 queued=0",
            "report 3: started 0; ended 0 Succeeded (exit code 0)"
        ]
    );
    assert_eq!(node.acknowledge(2), none(), "that was the old session's");
    assert_eq!(node.acknowledge(3)[0], "forget 0");
}

#[test]
fn a_new_agent_takes_over_what_the_supervisor_holds() {
    let mut old = Node::ready();
    let step = Step { timeout_ms: 60_000, ..with_outputs() };
    old.hear(Told::Assign(assign_of(2, 0..4, step)));
    old.staged(0..4);
    let record = |launch: &Launch, exit| Record {
        key: launch.key.clone(),
        context: launch.context.clone(),
        pid: 1,
        exit,
    };
    let strange = Record { key: "what/is/this".to_owned(), context: Vec::new(), pid: 2, exit: None };
    let records = vec![record(&old.launches[0], None), record(&old.launches[1], Some(DONE)), strange];

    let mut new = Node::new();
    new.now.wall_ms += 20_000;
    let lines = new.step(Event::Adopted(records));
    assert_eq!(
        lines,
        ["log taken over 0", "log taken over 1", "log 1 ends at 5 0", "collect 1", "forget what/is/this"]
    );
    assert_eq!(new.open()[0], "hello 0 Running 1 Running", "what had not been launched is not held");
    assert_eq!(new.hear(Told::Reconcile(Reconcile { keep: vec![attempt(0), attempt(1)] })), none());
    assert_eq!(new.renew(1), ["alive until 28000"], "the supervisor's switch is set anew");
    assert_eq!(new.hear(assign(2, [2, 3])), ["stage 2", "stage 3"]);
    assert_eq!(new.staged([2, 3]), ["launch 2"], "a slot is taken by what runs");
    let mut lines = Vec::new();
    while new.now.mono_ms < 42_000 {
        lines = new.later(1_000);
        let beat = (new.now.mono_ms - 1_000) / 5_000 + 1;
        new.renew(beat);
        if lines.contains(&"Term 0".to_owned()) {
            break;
        }
    }
    assert_eq!(lines, ["Term 0", "heartbeat 9 running=1 queued=1"], "its timeout went on");
}

#[test]
fn what_the_server_does_not_keep_is_killed_and_forgotten() {
    let mut node = Node::ready();
    node.hear(assign(1, 0..3));
    node.staged(0..3);
    node.started(0);
    node.close();
    node.open();
    let lines = node.hear(assign(1, [7]));
    assert_eq!(lines, ["stage 7"]);
    let lines = node.hear(Told::Reconcile(Reconcile { keep: vec![attempt(2)] }));
    assert_eq!(
        lines,
        [
            "forget 0",
            "log 0 goes",
            "discard t.1.0.0.0.1.9.1",
            "log 1 goes",
            "discard t.1.0.1.0.1.9.2",
            "launch 2"
        ],
        "2 is kept, 7 came after the Hello"
    );
    assert_eq!(node.core.keys().len(), 2);
}

#[test]
fn the_logs_of_an_end_heard_before_are_shipped_on() {
    let mut node = Node::ready();
    node.hear(assign(1, [0]));
    node.staged([0]);
    node.exited(0, DONE);
    node.close();
    node.open();
    let lines = node.hear(Told::Reconcile(Reconcile::default()));
    assert_eq!(lines, ["forget 0", "log 0 may go", "discard t.1.0.0.0.1.9.1"]);
}

#[test]
fn a_launch_on_its_way_to_a_lost_supervisor_is_forgotten_by_the_next() {
    let mut node = Node::ready();
    node.hear(assign(1, [0, 1]));
    assert_eq!(node.staged([0]), ["launch 0"]);
    node.staged([1]);
    let lines = node.process(Report::SupervisorLost);
    assert_eq!(
        lines,
        ["forget 0", "log opened 0", "measure 0", "launch 1"],
        "forgotten before its slot is given"
    );
}

#[test]
fn a_lost_supervisor_takes_its_processes_along() {
    let mut node = Node::ready();
    node.hear(assign(1, [0, 1]));
    node.staged([0, 1]);
    node.started(0);
    node.now.mono_ms += 10;
    assert_eq!(node.process(Report::SupervisorLost), ["measure 0", "launch 1"]);
    let lines = node.step(Event::Measured { key: key(0), stdout_bytes: 12, stderr_bytes: 0 });
    assert_eq!(
        lines,
        [
            "log 0 ends at 12 0",
            "report 2: ended 0 AgentRestarted (the supervisor of node n1 was lost with all its processes)"
        ]
    );
}

#[test]
fn a_process_thought_lost_that_starts_after_all_is_killed() {
    let mut node = Node::ready();
    node.hear(assign(1, [0]));
    node.staged([0]);
    let launches = vec![key(0).process_key()];
    assert_eq!(
        node.step(Event::Unreachable { launches, reason: "gone".to_owned() }),
        ["log opened 0", "measure 0"]
    );
    assert_eq!(node.started(0), ["Kill 0"]);
    node.step(Event::Measured { key: key(0), stdout_bytes: 0, stderr_bytes: 0 });
    assert_eq!(node.process(Report::Started { key: key(5).process_key(), pid: 1 }), ["forget 5"]);
}

#[test]
fn a_node_that_stops_for_good_leaves_nothing_running() {
    let mut node = Node::ready();
    node.hear(assign(1, [0, 1]));
    node.staged([0, 1]);
    node.started(0);
    let lines = node.step(Event::KillAll);
    let gone = ["forget 0", "log 0 goes", "discard t.1.0.0.0.1.9.1", "log 1 goes", "discard t.1.0.1.0.1.9.2"];
    assert_eq!(lines, gone);
}

#[test]
fn a_goodbye_ends_the_session() {
    let mut node = Node::ready();
    assert_eq!(node.hear(Told::Goodbye(Goodbye { reason: "newer".to_owned() })), ["leave: newer"]);
}

/// The look that is under way finds that these have come so far.
fn come(node: &mut Node, tasks: impl IntoIterator<Item = (u64, u32)>) -> Vec<String> {
    let seen = tasks.into_iter().map(|(task, basis_points)| {
        let directory = node.core.attempts[&key(task)].directory.clone().unwrap();
        Seen { key: key(task), directory, said: Said { basis_points, text: "x".to_owned() } }
    });
    let seen = seen.collect();
    node.step(Event::ProgressSeen(seen))
}

/// The tasks whose progress was looked at since this was last asked.
fn looked_at(node: &mut Node) -> Vec<Vec<u64>> {
    let looks = std::mem::take(&mut node.progress_looks);
    looks.into_iter().map(|orders| orders.into_iter().map(|order| order.key.task).collect()).collect()
}

#[test]
fn one_look_sees_how_far_all_that_run_have_come_and_changes_are_told() {
    let mut node = Node::ready();
    node.hear(assign(2, 0..3));
    node.staged(0..3);
    node.later(3_000);
    assert_eq!(looked_at(&mut node), [[0; 0]; 0], "nothing runs");
    node.started(0);
    node.started(1);
    node.later(1_999);
    assert_eq!(looked_at(&mut node), [[0; 0]; 0]);
    node.later(1);
    assert_eq!(looked_at(&mut node), [[0, 1]]);
    // A slow disk: no other look begins meanwhile.
    node.later(4_000);
    assert_eq!(looked_at(&mut node), [[0; 0]; 0]);
    assert_eq!(come(&mut node, [(0, 100), (1, 7)]), ["progress 0 100 1 7"]);
    node.later(2_000);
    assert_eq!(come(&mut node, [(0, 100), (1, 8)]), ["progress 1 8"]);
    node.later(2_000);
    assert_eq!(come(&mut node, [(0, 100), (1, 8)]), none());
    assert_eq!(looked_at(&mut node), [[0, 1], [0, 1]]);
    // One ends while it is looked at, and what is said of another's directory is not believed.
    node.later(2_000);
    node.exited(0, DONE);
    let said = Said { basis_points: 10_000, text: String::new() };
    let of = |task: u64, directory: &str| Seen {
        key: key(task),
        directory: directory.to_owned(),
        said: said.clone(),
    };
    let late = node.core.attempts[&key(0)].directory.clone().unwrap();
    let seen = vec![of(0, &late), of(1, "elsewhere"), of(99, &late)];
    assert_eq!(node.step(Event::ProgressSeen(seen)), none());
}

#[test]
fn a_new_session_is_told_all_of_it_once_and_a_new_agent_finds_it_again() {
    let mut node = Node::ready();
    node.hear(assign(2, 0..2));
    node.staged(0..2);
    node.started(0);
    node.started(1);
    node.later(2_000);
    come(&mut node, [(0, 100), (1, 7)]);
    node.close();
    node.later(2_000);
    assert_eq!(come(&mut node, [(0, 100), (1, 8)]), none(), "there is nobody to tell");
    assert!(node.open().iter().all(|line| !line.starts_with("progress")), "the Hello comes first");
    node.later(2_000);
    assert_eq!(come(&mut node, [(0, 100), (1, 8)]), ["progress 0 100 1 8"]);
    node.later(2_000);
    assert_eq!(come(&mut node, [(0, 100), (1, 8)]), none());
    // The agent is killed; where the files are follows from what the supervisor kept.
    let record =
        Record { key: key(0).process_key(), context: node.launches[0].context.clone(), pid: 7, exit: None };
    node.core = fresh_core(node.now);
    looked_at(&mut node);
    node.step(Event::Adopted(vec![record]));
    node.later(2_000);
    let looks = std::mem::take(&mut node.progress_looks);
    assert_eq!(looks.len(), 1);
    assert!(looks[0][0].directory.starts_with("t.1.0.0."), "{looks:?}");
}

#[test]
fn a_look_takes_so_many_and_the_next_goes_on_behind_them() {
    let most = proto::limits::PROGRESS_TASKS_MAX as u64;
    let mut node = Node::ready();
    let (slots, all) = (most as u32 + 2, 0..most + 2);
    node.hear(assign(slots, all.clone()));
    // They are staged a few at a time.
    for task in all.clone() {
        node.staged([task]);
        node.started(task);
    }
    node.later(2_000);
    assert_eq!(looked_at(&mut node), [(0..most).collect::<Vec<_>>()]);
    assert_eq!(come(&mut node, all.map(|task| (task, 1))).len(), 1);
    node.later(2_000);
    let next: Vec<u64> = (most..most + 2).chain(0..most - 2).collect();
    assert_eq!(looked_at(&mut node), [next]);
    assert_eq!(come(&mut node, []).join(" "), format!("progress {most} 1 {} 1", most + 1), "the rest of it");
}

#[test]
fn how_inputs_come_is_told_of_what_is_staged_and_of_nothing_else() {
    let mut node = Node::ready();
    node.hear(assign(2, 0..2));
    let directory = |node: &Node, task: u64| node.core.attempts[&key(task)].directory.clone().unwrap();
    let names = [0, 1].map(|task| directory(&node, task));
    let coming = |task: u64, directory: &str| Coming {
        key: key(task),
        directory: directory.to_owned(),
        bytes: 5,
        total_bytes: 9,
        bytes_per_s: 1,
        waits_for: String::new(),
    };
    let seen = || Event::StagingSeen(vec![coming(0, &names[0]), coming(1, &names[1]), coming(9, "x")]);
    assert_eq!(node.step(seen()), ["progress 0 5/9 1 5/9"]);
    assert_eq!(node.step(Event::StagingSeen(vec![coming(0, "another")])), none());
    node.staged([0]);
    assert_eq!(node.step(seen()), ["progress 1 5/9"], "the look began before it was staged");
    node.close();
    assert_eq!(node.step(seen()), none(), "there is nobody to tell");
}
