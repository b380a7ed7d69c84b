//! Stragglers: who is one, since when, and who is told.

mod model;

use controller::limits::{PACE_LOOK_MS, STRAGGLERS_LOGGED_MAX};
use controller::{Effect, Event};
use model::Cluster;
use model::agent::Held;
use model::lab::{LAB, cluster, end, running};
use model::specs::{array, gang, job};
use proto::v1::{CauseKind, Progress, TaskProgress};

fn stragglers(cluster: &Cluster) -> Vec<String> {
    let found = cluster.core.stragglers_of(LAB, 1, 0..9, 0..u64::MAX);
    found.iter().map(|found| format!("{}: {found}", found.task)).collect()
}

/// Seconds pass in which the nodes are heard.
fn pass(cluster: &mut Cluster, nodes: &[&str], seconds: u64) {
    for _ in 0..seconds {
        cluster.advance(1_000);
        for node in nodes {
            cluster.heartbeat(node);
        }
    }
}

/// Runs until so many attempts run.
fn all_running(cluster: &mut Cluster, nodes: &[&str], count: usize) -> Vec<(String, Held)> {
    for _ in 0..50 {
        let found = running(cluster, nodes);
        if found.len() >= count {
            return found;
        }
        cluster.advance(100);
    }
    panic!("not so many run");
}

/// What the operator's log has had since.
fn logged(cluster: &mut Cluster) -> Vec<String> {
    let story = cluster.story.replace(Vec::new()).unwrap_or_default();
    let effects = story.into_iter().flat_map(|(_, txn)| txn.effects);
    let lines = effects.filter_map(|effect| match effect {
        Effect::Log { text, .. } => Some(text),
        _ => None,
    });
    lines.filter(|text| text.contains("times as long")).collect()
}

fn tell(cluster: &mut Cluster, node: &str, held: &Held, basis_points: u32) {
    let session = cluster.agents[node].session;
    let attempt = Some(held.attempt_ref());
    let told = TaskProgress { attempt, rank: held.rank, basis_points, text: String::new() };
    cluster.step(Event::Progress {
        node: node.to_owned(),
        session,
        told: Progress { tasks: vec![told], staging: Vec::new() },
    });
}

#[test]
fn a_task_that_runs_on_while_its_like_completed_is_told_once() {
    let nodes = ["n1", "n2"];
    let mut cluster = cluster(&nodes, job(vec![array("many", "10-17")]));
    cluster.story = Some(Vec::new());
    let all = all_running(&mut cluster, &nodes, 8);
    for held in &all[..4] {
        end(&mut cluster, held, CauseKind::Succeeded);
    }
    pass(&mut cluster, &nodes, 30);
    assert_eq!(stragglers(&cluster), [""; 0], "four are too few to compare with");
    end(&mut cluster, &all[4], CauseKind::Succeeded);
    let left: Vec<u64> = all[5..].iter().map(|(_, held)| held.task).collect();
    // It has run for 30 s, and those for 40 ms.
    let slow = |cluster: &Cluster| cluster.core.stragglers_of(LAB, 1, 0..9, 0..u64::MAX);
    let mut found: Vec<u64> = slow(&cluster).iter().map(|found| found.task).collect();
    found.sort_unstable();
    assert_eq!(found, left);
    assert!(stragglers(&cluster)[0].ends_with("as long as the median of 5 that completed"));
    assert_eq!(cluster.core.stragglers_of(LAB, 1, 0..9, left[0]..left[0] + 1).len(), 1);
    assert_eq!(cluster.core.stragglers_of(LAB, 1, 0..9, 3..3), []);
    assert_eq!(cluster.core.stragglers_of(LAB, 1, 1..9, 0..9), []);
    assert_eq!(cluster.core.stragglers_of(LAB, 9, 0..9, 0..9), []);
    assert_eq!(logged(&mut cluster), [""; 0]);
    pass(&mut cluster, &nodes, 2 * PACE_LOOK_MS / 1_000);
    let lines = logged(&mut cluster);
    assert_eq!(lines.len(), 3, "{lines:?}");
    let name = format!("step many task {} runs ", left[0] + 10);
    assert!(lines.iter().any(|line| line.starts_with(&name)), "{lines:?}");
    pass(&mut cluster, &nodes, 4 * PACE_LOOK_MS / 1_000);
    assert_eq!(logged(&mut cluster), [""; 0], "each is told once");
    end(&mut cluster, &all[5], CauseKind::Succeeded);
    assert_eq!(stragglers(&cluster).len(), 2);
    // What completed before is forgotten with the process; the tasks run on.
    cluster.crash();
    for node in nodes {
        cluster.register(node);
        cluster.hello(node);
    }
    pass(&mut cluster, &nodes, 2 * PACE_LOOK_MS / 1_000);
    assert_eq!((stragglers(&cluster), logged(&mut cluster)), (vec![], vec![]));
    cluster.drain(60);
}

#[test]
fn the_log_has_a_few_of_a_step_and_no_more() {
    let nodes = ["n1", "n2", "n3", "n4"];
    let mut cluster = cluster(&nodes, job(vec![array("many", "0-15")]));
    cluster.story = Some(Vec::new());
    let all = all_running(&mut cluster, &nodes, 16);
    for held in &all[..5] {
        end(&mut cluster, held, CauseKind::Succeeded);
    }
    pass(&mut cluster, &nodes, 8 * PACE_LOOK_MS / 1_000);
    assert_eq!(stragglers(&cluster).len(), 11);
    assert_eq!(logged(&mut cluster).len(), STRAGGLERS_LOGGED_MAX);
    cluster.drain(60);
}

#[test]
fn one_that_will_end_late_by_its_own_word_is_one_before_others_completed() {
    let nodes = ["n1"];
    let mut cluster = cluster(&nodes, job(vec![array("many", "0-3")]));
    cluster.story = Some(Vec::new());
    let all = all_running(&mut cluster, &nodes, 4);
    pass(&mut cluster, &nodes, 12);
    for ((node, held), points) in all.iter().zip([5_000, 6_000, 5_500, 1_000]) {
        assert_eq!(stragglers(&cluster), [""; 0]);
        tell(&mut cluster, node, held, points);
    }
    let found = stragglers(&cluster);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with(&format!("{}: would run 5.5 times", all[3].1.task)), "{found:?}");
    assert!(found[0].ends_with("as long as the median of 3 others"), "{found:?}");
    pass(&mut cluster, &nodes, 2 * PACE_LOOK_MS / 1_000);
    assert_eq!(logged(&mut cluster).len(), 1);
    cluster.drain(60);
}

#[test]
fn a_rank_is_compared_with_the_other_ranks_of_its_gang() {
    let nodes = ["n1", "n2"];
    let mut cluster = cluster(&nodes, job(vec![gang("ring", 2, 2)]));
    let ranks = all_running(&mut cluster, &nodes, 4);
    pass(&mut cluster, &nodes, 12);
    for (node, held) in &ranks {
        tell(&mut cluster, node, held, if held.rank == 2 { 1_000 } else { 4_000 });
    }
    assert_eq!(
        stragglers(&cluster),
        ["0: rank 2 would run 4.0 times as long as the median of 3 other ranks"]
    );
    let slow = ranks.iter().find(|(_, held)| held.rank == 2).unwrap();
    end(&mut cluster, slow, CauseKind::Succeeded);
    assert_eq!(stragglers(&cluster), [""; 0], "it has ended");
    cluster.drain(60);
}
