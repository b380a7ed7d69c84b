//! What no story tells and a slip would change unseen.

mod model;

use controller::{Config, Event, NewJob};
use model::{Cluster, specs};
use proto::v1::{
    Artifact, AttemptRef, BlockRow, Cause, CauseKind, DemandKey, Dependency, DependencyKind, Ended,
    GrantNode, GrantRow, Heartbeat, JobSpec, Refused, Report, Reports, Resources, Started, State, TenantRow,
    report, server_frame,
};

/// A job that has its first grant: of one task, attempt 1 of epoch 1.
fn granted(spec: JobSpec) -> Cluster {
    let mut cluster = Cluster::new(Config::default(), 4);
    cluster.tenant(TenantRow { name: "lab".to_owned(), ..TenantRow::default() });
    cluster.add_node("n1");
    let ticket = cluster.ticket();
    let job = NewJob { tenant: "lab".to_owned(), spec, ..NewJob::default() };
    cluster.step(Event::Submit { ticket, job });
    cluster.accepted.insert(("lab".to_owned(), 1));
    cluster.schedule(1);
    cluster.tell_grants();
    cluster
}

fn first_attempt() -> AttemptRef {
    AttemptRef { tenant: "lab".to_owned(), job_number: 1, step: 0, task: 0, attempt: 1, epoch: 1 }
}

fn report(cluster: &mut Cluster, ranks: std::ops::Range<u32>, what: impl Fn(u32) -> report::What) {
    let one = |rank| Report { attempt: Some(first_attempt()), rank, what: Some(what(rank)) };
    let reports = Reports { sequence: 1, reports: ranks.map(one).collect() };
    let (node, session) = ("n1".to_owned(), cluster.agents["n1"].session);
    cluster.step(Event::Reports { node, session, reports, missing: Vec::new() });
}

fn started(_: u32) -> report::What {
    report::What::Started(Started::default())
}

#[test]
fn a_job_and_its_step_have_started_when_their_first_task_runs() {
    let mut cluster = granted(specs::job(vec![specs::step("one")]));
    let begun = |cluster: &Cluster| {
        let state = cluster.rows.state("lab", 1).unwrap();
        (state.state(), state.started_ms, state.steps[0].started_ms)
    };
    assert_eq!(begun(&cluster), (State::Staging, 0, 0), "it is only on its way");
    cluster.advance(500);
    report(&mut cluster, 0..1, started);
    let now_ms = cluster.now.wall_ms;
    assert_eq!(begun(&cluster), (State::Running, now_ms, now_ms));
}

#[test]
fn a_stop_is_said_again_until_its_task_has_ended() {
    let mut cluster = granted(specs::job(vec![specs::step("one")]));
    report(&mut cluster, 0..1, started);
    let ticket = cluster.ticket();
    let (tenant, reason) = ("lab".to_owned(), "enough".to_owned());
    cluster.step(Event::Cancel { ticket, tenant, number: 1, reason, ended: None });
    let stops = |cluster: &mut Cluster| {
        let inbox = std::mem::take(&mut cluster.agents.get_mut("n1").unwrap().inbox);
        inbox.iter().filter(|frame| matches!(frame.frame, Some(server_frame::Frame::Stop(_)))).count()
    };
    assert_eq!(stops(&mut cluster), 1);
    let again_ms = cluster.config.stop_resend_ms;
    cluster.advance(again_ms - 1);
    assert_eq!(stops(&mut cluster), 0);
    cluster.advance(1);
    assert_eq!(stops(&mut cluster), 1);
    report(&mut cluster, 0..1, |_| ended_for(CauseKind::CancelledByUser));
    assert_eq!(cluster.rows.state("lab", 1).unwrap().state(), State::Cancelled);
    cluster.advance(again_ms + 1);
    assert_eq!(stops(&mut cluster), 0, "nothing is left to stop");
}

#[test]
fn ranks_with_a_hundred_outputs_each_are_a_gang_that_completes() {
    let mut cluster = granted(specs::job(vec![specs::gang("ring", 1, 2)]));
    report(&mut cluster, 0..2, started);
    report(&mut cluster, 0..2, |rank| {
        let artifact = |number| Artifact { path: format!("{rank}/{number}"), ..Artifact::default() };
        let cause = Cause { kind: CauseKind::Succeeded.into(), ..Cause::default() };
        report::What::Ended(Ended {
            cause: Some(cause),
            artifacts: (0..100).map(artifact).collect(),
            ..Ended::default()
        })
    });
    assert_eq!(cluster.rows.state("lab", 1).unwrap().state(), State::Completed);
}

fn ended_for(kind: CauseKind) -> report::What {
    let cause = Cause { kind: kind.into(), ..Cause::default() };
    report::What::Ended(Ended { cause: Some(cause), ..Ended::default() })
}

#[test]
fn a_lease_that_ran_out_counts_only_for_what_it_covered() {
    for (runs, platform_failures) in [(false, 0), (true, 1)] {
        let mut cluster = granted(specs::job(vec![specs::step("one")]));
        if runs {
            report(&mut cluster, 0..1, started);
        }
        report(&mut cluster, 0..1, |_| ended_for(CauseKind::LeaseExpired));
        let block: BlockRow = cluster.rows.get(&proto::keys::block("lab", 1, 0, 0)).unwrap();
        assert_eq!((block.notes[0].attempts, block.notes[0].platform_failures), (1, platform_failures));
    }
}

#[test]
fn what_comes_while_much_is_to_be_written_waits_its_turn() {
    let mut cluster = granted(specs::job(vec![specs::step("one")]));
    // More jobs hang on the first than one transaction takes.
    for _ in 0..1_000 {
        let kind = DependencyKind::Ok.into();
        let after = vec![Dependency { job_number: 1, kind, ..Dependency::default() }];
        let spec = JobSpec { after, ..specs::job(vec![specs::step("later")]) };
        let ticket = cluster.ticket();
        cluster.step(Event::Submit {
            ticket,
            job: NewJob { tenant: "lab".to_owned(), spec, ..NewJob::default() },
        });
    }
    report(&mut cluster, 0..1, started);
    let ticket = cluster.ticket();
    let (tenant, reason) = ("lab".to_owned(), "enough".to_owned());
    cluster.step(Event::Cancel { ticket, tenant, number: 1, reason, ended: None });
    let reports = Reports {
        sequence: 9,
        reports: vec![Report {
            attempt: Some(first_attempt()),
            rank: 0,
            what: Some(ended_for(CauseKind::CancelledByUser)),
        }],
    };
    let (node, session) = ("n1".to_owned(), cluster.agents["n1"].session);
    let first =
        cluster.core.step(cluster.now, Event::Reports { node, session, reports, missing: Vec::new() });
    cluster.settle(first);
    assert!(cluster.core.backlogged(), "a thousand jobs are doomed in one transaction");
    // `step` goes on until nothing is left to be written.
    let ticket = cluster.ticket();
    let job =
        NewJob { tenant: "lab".to_owned(), spec: specs::job(vec![specs::step("next")]), ..NewJob::default() };
    cluster.step(Event::Submit { ticket, job });
    assert!(
        matches!(&cluster.replies[&ticket], controller::Reply::Submitted(reply) if reply.number == 1_002)
    );
    assert_eq!(cluster.rows.state("lab", 1_001).unwrap().state(), State::Cancelled);
}

#[test]
fn a_rank_that_is_sent_back_says_from_where() {
    let mut cluster = granted(specs::job(vec![specs::gang("ring", 1, 2)]));
    let refused = |_| report::What::Refused(Refused { reason: "full".to_owned() });
    report(&mut cluster, 1..2, refused);
    let block: BlockRow = cluster.rows.get(&proto::keys::block("lab", 1, 0, 0)).unwrap();
    let why = block.ranks[0].cause.as_ref().unwrap();
    assert_eq!((why.kind(), why.node.as_str()), (CauseKind::StagingFailed, "n1"));
}

#[test]
fn ranks_whose_outputs_do_not_fit_into_one_row_are_a_gang_that_fails() {
    let mut cluster = granted(specs::job(vec![specs::gang("ring", 1, 2)]));
    report(&mut cluster, 0..2, started);
    report(&mut cluster, 0..2, |rank| {
        let artifact = |number| Artifact { path: format!("{rank}/{number}"), ..Artifact::default() };
        let cause = Cause { kind: CauseKind::Succeeded.into(), ..Cause::default() };
        let artifacts = (0..1_500).map(artifact).collect();
        report::What::Ended(Ended { cause: Some(cause), artifacts, ..Ended::default() })
    });
    let block: BlockRow = cluster.rows.get(&proto::keys::block("lab", 1, 0, 0)).unwrap();
    assert_eq!(block.notes[0].own_failures, 1);
}

#[test]
fn a_grant_told_twice_is_one_grant() {
    let mut cluster = granted(specs::job(vec![specs::array("few", "0-9")]));
    let told: Vec<_> = cluster.rows.grants().collect();
    assert_eq!(told.len(), 1);
    for grant in &told {
        let again = cluster.step(Event::Granted(grant.clone()));
        assert!(again.iter().all(|txn| txn.writes.is_empty()), "{again:?}");
    }
    assert_eq!(cluster.rows.grants().collect::<Vec<_>>(), told);
}

#[test]
fn who_speaks_in_a_session_that_is_over_is_told_so_and_not_heard() {
    let mut cluster = granted(specs::job(vec![specs::step("one")]));
    let old = cluster.agents["n1"].session;
    cluster.register("n1");
    let node = "n1".to_owned();
    let beat = Heartbeat { sequence: 9, ..Heartbeat::default() };
    let reports = Reports {
        sequence: 9,
        reports: vec![Report { attempt: Some(first_attempt()), rank: 0, what: Some(started(0)) }],
    };
    for event in [
        Event::Heartbeat { node: node.clone(), session: old, beat },
        Event::Reports { node: node.clone(), session: old, reports, missing: Vec::new() },
    ] {
        let told = cluster.core.step(cluster.now, event);
        assert!(told.writes.is_empty(), "{told:?}");
        let [controller::Effect::Send { session, frame, .. }] = &told.effects[..] else {
            panic!("{told:?}");
        };
        assert_eq!(*session, old);
        assert!(matches!(frame.frame, Some(server_frame::Frame::Goodbye(_))), "{frame:?}");
    }
}

/// As a scheduler of an earlier version may grant it, which knows nothing of whole nodes.
#[test]
fn a_grant_that_is_not_of_whole_nodes_where_these_are_asked_for_is_given_back() {
    let four = Resources { millicores: 4_000, ..Resources::default() };
    for (exclusive, whole, slots, is_used) in [
        (true, vec![], 1, false),
        (true, vec![four], 2, false),
        (true, vec![four], 1, true),
        (false, vec![four], 1, false),
        (false, vec![], 2, true),
    ] {
        let mut cluster = Cluster::new(Config::default(), 4);
        cluster.tenant(TenantRow { name: "lab".to_owned(), ..TenantRow::default() });
        cluster.add_node("n1");
        let mut spec = specs::job(vec![specs::array("many", "1-9")]);
        spec.steps[0].exclusive = exclusive;
        let ticket = cluster.ticket();
        cluster.step(Event::Submit {
            ticket,
            job: NewJob { tenant: "lab".to_owned(), spec, ..NewJob::default() },
        });
        cluster.accepted.insert(("lab".to_owned(), 1));
        let at = DemandKey { tenant: "lab".to_owned(), job_number: 1, step: 0 };
        let nodes = vec![GrantNode { node: "n1".to_owned(), slots }];
        let mut row = cluster.grant(&at, nodes, false, Some(Resources::default()), 0);
        row.whole.clone_from(&whole);
        cluster.step(Event::Granted(row.clone()));
        let is_held = cluster.rows.get::<GrantRow>(&proto::keys::grant("lab", row.epoch)).is_some();
        assert_eq!(is_held, is_used, "exclusive: {exclusive}, {whole:?} for {slots}");
    }
}

#[test]
fn a_grant_that_does_not_hold_the_licenses_of_its_tasks_is_given_back() {
    let licenses = |count| std::collections::BTreeMap::from([("solver".to_owned(), count)]);
    for (gang, held, is_used) in [
        (false, None, false),
        (false, Some(2), false),
        (false, Some(4), true),
        (true, Some(2), true),
        (true, Some(4), false),
    ] {
        let mut cluster = Cluster::new(Config::default(), 4);
        cluster.tenant(TenantRow { name: "lab".to_owned(), ..TenantRow::default() });
        cluster.add_node("n1");
        let mut spec =
            specs::job(vec![if gang { specs::gang("ring", 1, 2) } else { specs::array("many", "1-9") }]);
        spec.steps[0].licenses.insert("solver".to_owned(), 2);
        let ticket = cluster.ticket();
        let job = NewJob { tenant: "lab".to_owned(), spec, ..NewJob::default() };
        cluster.step(Event::Submit { ticket, job });
        cluster.accepted.insert(("lab".to_owned(), 1));
        let at = DemandKey { tenant: "lab".to_owned(), job_number: 1, step: 0 };
        let nodes = vec![GrantNode { node: "n1".to_owned(), slots: 2 }];
        let mut row = cluster.grant(&at, nodes, gang, Some(Resources::default()), 0);
        row.licenses = held.map(licenses).unwrap_or_default();
        cluster.step(Event::Granted(row.clone()));
        let is_held = cluster.rows.get::<GrantRow>(&proto::keys::grant("lab", row.epoch)).is_some();
        assert_eq!(is_held, is_used, "gang: {gang}, {held:?}");
    }
}
