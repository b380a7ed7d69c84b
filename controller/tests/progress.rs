//! How far tasks have come: who may say it, and how long it is remembered.

mod model;

use controller::{Event, StepSaid, TaskSaid};
use model::Cluster;
use model::agent::Held;
use model::lab::{LAB, cluster, end, running};
use model::specs::{array, gang, job};
use proto::limits::{PROGRESS_BASIS_POINTS_MAX, PROGRESS_TASKS_MAX};
use proto::v1::{AttemptRef, CauseKind, Progress, StagingView, State, TaskProgress, TaskStaging};
use std::collections::BTreeMap;

fn told(held: &Held, basis_points: u32, text: &str) -> TaskProgress {
    TaskProgress { attempt: Some(held.attempt_ref()), rank: held.rank, basis_points, text: text.to_owned() }
}

/// A node tells in its session, which is `older` by so much.
fn tell(cluster: &mut Cluster, node: &str, older: u64, tasks: Vec<TaskProgress>) {
    let session = cluster.agents[node].session - older;
    let told = Progress { tasks, ..Progress::default() };
    let done = cluster.step(Event::Progress { node: node.to_owned(), session, told });
    assert!(done.iter().all(|txn| txn.writes.is_empty()), "it is in no row");
}

fn known(cluster: &Cluster) -> BTreeMap<u64, (u32, String)> {
    let said = cluster.core.progress_of(LAB, 1, 0, 0..u64::MAX);
    said.into_iter().map(|(task, TaskSaid { basis_points, text, .. })| (task, (basis_points, text))).collect()
}

/// Of the job's first step: ended, told, their hundredths of a percent.
fn step(cluster: &Cluster) -> (u64, u64, u64) {
    let StepSaid { ended, told, basis_points, .. } = cluster.core.steps_said(LAB, 1, 0).remove(0);
    (ended, told, basis_points)
}

fn one(task: u64, basis_points: u32, text: &str) -> BTreeMap<u64, (u32, String)> {
    BTreeMap::from([(task, (basis_points, text.to_owned()))])
}

#[test]
fn only_the_live_attempt_on_its_node_in_its_session_says_how_far_it_has_come() {
    let mut cluster = cluster(&["n1", "n2"], job(vec![model::specs::step("one")]));
    let first = running(&mut cluster, &["n1", "n2"]).remove(0);
    let (node, held) = first.clone();
    let other = if node == "n1" { "n2" } else { "n1" };
    assert_eq!(known(&cluster), BTreeMap::new());
    tell(&mut cluster, &node, 0, vec![told(&held, 1_250, "loads")]);
    assert_eq!(known(&cluster), one(0, 1_250, "loads"));
    // Less is told as well: a program may begin anew.
    tell(&mut cluster, &node, 0, vec![told(&held, 100, "again")]);
    assert_eq!(known(&cluster), one(0, 100, "again"));
    let wrong = |change: &dyn Fn(&mut TaskProgress)| {
        let mut told = told(&held, 9_000, "wrong");
        change(&mut told);
        told
    };
    let of = |change: &dyn Fn(&mut AttemptRef)| wrong(&|told| change(told.attempt.as_mut().unwrap()));
    let frame = vec![
        wrong(&|told| told.attempt = None),
        wrong(&|told| told.basis_points = PROGRESS_BASIS_POINTS_MAX + 1),
        wrong(&|told| told.rank = 1),
        of(&|attempt| attempt.epoch += 1),
        of(&|attempt| attempt.attempt += 1),
        of(&|attempt| attempt.task += 1),
        of(&|attempt| attempt.job_number += 1),
        of(&|attempt| attempt.tenant = "other".to_owned()),
    ];
    tell(&mut cluster, &node, 0, frame);
    tell(&mut cluster, other, 0, vec![told(&held, 9_000, "elsewhere")]);
    tell(&mut cluster, &node, 1, vec![told(&held, 9_000, "an old session")]);
    let mut many = vec![wrong(&|told| told.attempt = None); PROGRESS_TASKS_MAX];
    many.push(told(&held, 9_000, "beyond the limit"));
    tell(&mut cluster, &node, 0, many);
    assert_eq!(known(&cluster), one(0, 100, "again"));
    // The text is cut and plain, whoever tells it.
    tell(&mut cluster, &node, 0, vec![told(&held, 1, &format!("\u{1b}{}", "\u{20ac}".repeat(99)))]);
    assert_eq!(known(&cluster), one(0, 1, &"\u{20ac}".repeat(39)));
    cluster.drain(60);
}

#[test]
fn it_goes_with_its_attempt_and_with_the_controller() {
    let mut cluster = cluster(&["n1"], job(vec![array("many", "0-2")]));
    let all = running(&mut cluster, &["n1"]);
    let tasks: Vec<TaskProgress> = all.iter().map(|(_, held)| told(held, 500, "x")).collect();
    tell(&mut cluster, "n1", 0, tasks.clone());
    assert_eq!(known(&cluster).len(), all.len());
    assert_eq!(step(&cluster), (0, 3, 1_500));
    let window = cluster.core.progress_of(LAB, 1, 0, 1..2);
    assert_eq!(window.keys().collect::<Vec<_>>(), [&1]);
    for (tenant, number, step) in [("no", 1, 0), (LAB, 9, 0), (LAB, 1, 9)] {
        assert_eq!(cluster.core.progress_of(tenant, number, step, 0..u64::MAX), BTreeMap::new());
    }
    assert_eq!(cluster.core.progress_of(LAB, 1, 0, 2..2), BTreeMap::new());
    let ended = all[0].clone();
    end(&mut cluster, &ended, CauseKind::Exit);
    assert!(!known(&cluster).contains_key(&ended.1.task), "its attempt is over");
    assert_eq!(step(&cluster), (0, 2, 1_000), "it is tried again");
    // The frame comes once more, behind the end.
    tell(&mut cluster, "n1", 0, tasks.clone());
    assert!(!known(&cluster).contains_key(&ended.1.task), "a late word changes nothing");
    assert_eq!(known(&cluster).len(), all.len() - 1);
    cluster.crash();
    assert_eq!(step(&cluster), (0, 0, 0));
    assert_eq!(known(&cluster), BTreeMap::new(), "it is in no row");
    cluster.register("n1");
    cluster.hello("n1");
    tell(&mut cluster, "n1", 0, tasks);
    assert_eq!(known(&cluster).len(), all.len() - 1, "a new session tells all");
    cluster.drain(60);
    assert_eq!(cluster.state(LAB, 1), State::Completed);
    assert_eq!(known(&cluster), BTreeMap::new());
    for (tenant, number) in [(LAB, 1), (LAB, 9), ("no", 1)] {
        assert_eq!(cluster.core.steps_said(tenant, number, 0), [], "it does not live");
    }
}

#[test]
fn a_gang_has_come_as_far_as_its_last_rank() {
    let mut cluster = cluster(&["n1", "n2"], job(vec![gang("all", 2, 2)]));
    let ranks = running(&mut cluster, &["n1", "n2"]);
    assert_eq!(ranks.len(), 4);
    for (node, held) in &ranks {
        let points = 400 - held.rank * 100;
        tell(&mut cluster, node, 0, vec![told(held, points, &format!("rank {}", held.rank))]);
    }
    assert_eq!(known(&cluster), one(0, 100, "rank 3"));
    assert_eq!(step(&cluster), (0, 1, 100), "a gang is one task");
    let (node, last) = ranks.iter().find(|(_, held)| held.rank == 3).unwrap();
    tell(&mut cluster, node, 0, vec![told(last, 9_000, "ahead")]);
    assert_eq!(known(&cluster), one(0, 200, "rank 2"));
    // Another node's rank is not this node's to speak of.
    let elsewhere = ranks.iter().find(|(other, _)| other != node).unwrap().1.clone();
    tell(&mut cluster, node, 0, vec![told(&elsewhere, 1, "not mine")]);
    assert_eq!(known(&cluster), one(0, 200, "rank 2"));
    cluster.drain(60);
}

fn coming(held: &Held, bytes: u64, total_bytes: u64, waits_for: &str) -> TaskStaging {
    TaskStaging {
        attempt: Some(held.attempt_ref()),
        rank: held.rank,
        bytes,
        total_bytes,
        bytes_per_s: 7,
        waits_for: waits_for.to_owned(),
    }
}

fn tell_staging(cluster: &mut Cluster, node: &str, staging: Vec<TaskStaging>) {
    let session = cluster.agents[node].session;
    let told = Progress { staging, ..Progress::default() };
    let done = cluster.step(Event::Progress { node: node.to_owned(), session, told });
    assert!(done.iter().all(|txn| txn.writes.is_empty()), "it is in no row");
}

fn staged(cluster: &Cluster) -> Option<(u64, u64, u64, String)> {
    let StagingView { bytes, total_bytes, bytes_per_s, waits_for, .. } =
        cluster.core.staging_of(LAB, 1, 0, 0..u64::MAX).remove(&0)?.view;
    Some((bytes, total_bytes, bytes_per_s, waits_for))
}

/// Attempts that are bound to these nodes and have not started.
fn bound(cluster: &mut Cluster, nodes: &[&str]) -> Vec<(String, Held)> {
    for _ in 0..200 {
        cluster.schedule(8);
        cluster.tell_grants();
        let of = |node: &&str| {
            let queued = cluster.agents[*node].queued();
            queued.map(|held| ((*node).to_owned(), held.clone())).collect::<Vec<_>>()
        };
        let found: Vec<_> = nodes.iter().flat_map(of).collect();
        if !found.is_empty() {
            return found;
        }
        for node in nodes {
            cluster.heartbeat(node);
        }
        cluster.advance(1_000);
    }
    panic!("nothing is bound");
}

#[test]
fn how_a_task_is_staged_is_told_until_it_starts() {
    let mut cluster = cluster(&["n1", "n2"], job(vec![model::specs::step("one")]));
    let (node, held) = bound(&mut cluster, &["n1", "n2"]).remove(0);
    let other = if node == "n1" { "n2" } else { "n1" };
    assert_eq!(staged(&cluster), None);
    tell_staging(&mut cluster, &node, vec![coming(&held, 3, 9, "")]);
    assert_eq!(staged(&cluster), Some((3, 9, 7, String::new())));
    let mut late = coming(&held, 4, 9, "late");
    late.attempt.as_mut().unwrap().epoch += 1;
    let nobodys = TaskStaging { attempt: None, ..coming(&held, 4, 9, "") };
    tell_staging(&mut cluster, &node, vec![late, nobodys]);
    tell_staging(&mut cluster, other, vec![coming(&held, 5, 9, "elsewhere")]);
    assert_eq!(staged(&cluster), Some((3, 9, 7, String::new())));
    tell_staging(&mut cluster, &node, vec![coming(&held, 6, 9, &format!("\u{1b}{}", "x".repeat(999)))]);
    assert_eq!(staged(&cluster).unwrap().3, "x".repeat(239), "one short line, whoever tells it");
    running(&mut cluster, &["n1", "n2"]);
    assert_eq!(staged(&cluster), None, "it runs");
    tell_staging(&mut cluster, &node, vec![coming(&held, 9, 9, "")]);
    assert_eq!(staged(&cluster), None, "a late word changes nothing");
    cluster.drain(60);
}

#[test]
fn the_ranks_of_a_gang_are_staged_together() {
    let mut cluster = cluster(&["n1", "n2"], job(vec![gang("all", 2, 1)]));
    let ranks = bound(&mut cluster, &["n1", "n2"]);
    assert_eq!(ranks.len(), 2);
    for (node, held) in &ranks {
        tell_staging(&mut cluster, node, vec![coming(held, 3, 9, if held.rank == 0 { "x" } else { "" })]);
    }
    assert_eq!(staged(&cluster), Some((6, 18, 14, String::new())), "one of them gets on");
    for (node, held) in &ranks {
        let has = if held.rank == 0 { 3 } else { 9 };
        tell_staging(&mut cluster, node, vec![coming(held, has, 9, if held.rank == 0 { "x" } else { "" })]);
    }
    assert_eq!(staged(&cluster), Some((12, 18, 14, "x".to_owned())), "the others have all");
    let (node, held) = &ranks[0];
    tell_staging(&mut cluster, node, vec![coming(held, 4, 0, "")]);
    assert_eq!(staged(&cluster).unwrap().1, 0, "not all of it is known");
    cluster.crash();
    assert_eq!(staged(&cluster), None, "it is in no row");
    cluster.drain(60);
}
