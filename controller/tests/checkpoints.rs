//! What tasks go on from: rows, retries, gangs, what is lost, what counts as stored.

mod model;

use controller::{Event, Reply};
use model::Cluster;
use model::agent::{Held, Phase};
use model::lab::{LAB, cluster, end, running};
use model::specs::{array, gang, job, saving};
use proto::keys;
use proto::v1::{
    Cause, CauseKind, CheckpointId, CheckpointRow, Ended, JobSpec, JobStateRow, State, Step, report,
};

fn save(cluster: &mut Cluster, (node, held): &(String, Held), label: &str) {
    cluster.agents.get_mut(node).unwrap().checkpoint(held, label);
    cluster.report(node, Vec::new());
}

fn from(cluster: &Cluster, (node, held): &(String, Held)) -> Option<String> {
    let run = &cluster.agents[node].runs[held];
    assert_eq!(run.phase, Phase::Running);
    run.from.clone().map(|(_, label)| label)
}

fn row(cluster: &Cluster, task: u64, rank: u32) -> Option<CheckpointRow> {
    cluster.rows.get(&keys::checkpoint(LAB, 1, 0, task, rank))
}

fn labels(cluster: &Cluster, rank: u32) -> Vec<String> {
    row(cluster, 0, rank).unwrap_or_default().entries.into_iter().map(|entry| entry.label).collect()
}

fn stored(cluster: &Cluster) -> u64 {
    let state: JobStateRow = cluster.rows.state(LAB, 1).unwrap();
    state.storage_bytes
}

fn one() -> JobSpec {
    job(vec![saving(Step { retries: Some(9), ..model::specs::step("one") })])
}

#[test]
fn a_retry_goes_on_from_the_newest_and_two_are_kept_until_it_completes() {
    let mut cluster = cluster(&["n1"], one());
    let first = running(&mut cluster, &["n1"]).remove(0);
    assert_eq!(from(&cluster, &first), None);
    for label in ["a", "b", "c"] {
        save(&mut cluster, &first, label);
    }
    assert_eq!((labels(&cluster, 0), stored(&cluster)), (vec!["b".to_owned(), "c".to_owned()], 14));
    assert_eq!(cluster.released.len(), 1, "the bytes of `a`");
    // The frame comes once more, and the controller dies.
    cluster.replay("n1");
    assert_eq!(labels(&cluster, 0), ["b", "c"]);
    cluster.crash();
    cluster.register("n1");
    cluster.hello("n1");
    end(&mut cluster, &first, CauseKind::Exit);
    let second = running(&mut cluster, &["n1"]).remove(0);
    assert_eq!(from(&cluster, &second), Some("c".to_owned()));
    save(&mut cluster, &second, "d");
    assert_eq!(labels(&cluster, 0), ["c", "d"]);
    end(&mut cluster, &second, CauseKind::Succeeded);
    assert_eq!(cluster.state(LAB, 1), State::Completed);
    assert_eq!((row(&cluster, 0, 0), stored(&cluster)), (None, 0));
    assert_eq!(cluster.released.len(), 4, "the bytes of all");
}

#[test]
fn what_is_being_taken_away_is_not_kept_again() {
    let mut cluster = cluster(&["n1"], one());
    let first = running(&mut cluster, &["n1"]).remove(0);
    for label in ["a", "b", "c"] {
        save(&mut cluster, &first, label);
    }
    // It was seen in the object store before `a` went.
    let mut told = cluster.agents["n1"].checkpoint_of(&first.1, "d", 9);
    let gone = cluster.released.first().unwrap().clone();
    if let Some(report::What::Checkpointed(told)) = &mut told.what {
        told.artifacts[0].digest = gone;
    }
    cluster.agents.get_mut("n1").unwrap().pending.push(told);
    cluster.report("n1", Vec::new());
    assert_eq!(labels(&cluster, 0), ["b", "c"]);
    // Nor what could not be laid.
    for path in ["../state", "/state", ""] {
        let mut told = cluster.agents["n1"].checkpoint_of(&first.1, "e", 10);
        if let Some(report::What::Checkpointed(told)) = &mut told.what {
            told.artifacts[0].path = path.to_owned();
        }
        cluster.agents.get_mut("n1").unwrap().pending.push(told);
        cluster.report("n1", Vec::new());
        assert_eq!(labels(&cluster, 0), ["b", "c"], "{path}");
    }
    cluster.drain(60);
}

#[test]
fn one_that_is_lost_is_not_tried_again_and_the_one_before_is() {
    let mut cluster = cluster(&["n1"], one());
    let first = running(&mut cluster, &["n1"]).remove(0);
    save(&mut cluster, &first, "a");
    save(&mut cluster, &first, "b");
    end(&mut cluster, &first, CauseKind::Exit);
    // The next attempt finds that the bytes of `b` are gone, and says so twice.
    let second = running(&mut cluster, &["n1"]).remove(0);
    assert_eq!(from(&cluster, &second), Some("b".to_owned()));
    let lost = row(&cluster, 0, 0).unwrap().entries[1].id;
    let cause = Some(Cause { kind: CauseKind::StagingFailed.into(), ..Cause::default() });
    let ended = Ended { cause, lost_checkpoint: lost, ..Ended::default() };
    let agent = cluster.agents.get_mut("n1").unwrap();
    agent.runs.get_mut(&second.1).unwrap().phase = Phase::Ended;
    let told = second.1.report(report::What::Ended(ended));
    agent.pending.push(told);
    cluster.report("n1", Vec::new());
    cluster.replay("n1");
    let third = running(&mut cluster, &["n1"]).remove(0);
    assert_eq!(from(&cluster, &third), Some("a".to_owned()));
    assert_eq!(stored(&cluster), 7);
    cluster.drain(60);
}

#[test]
fn only_the_live_attempt_adds_and_only_what_is_there() {
    let mut cluster = cluster(&["n1"], one());
    let first = running(&mut cluster, &["n1"]).remove(0);
    cluster.agents.get_mut("n1").unwrap().checkpoint(&first.1, "a");
    cluster.report("n1", vec![0]);
    assert_eq!(row(&cluster, 0, 0), None, "its bytes are not in the object store");
    end(&mut cluster, &first, CauseKind::Exit);
    let second = running(&mut cluster, &["n1"]).remove(0);
    let stale = cluster.core.stats().stale_reports;
    let zombie = cluster.agents["n1"].checkpoint_of(&first.1, "late", 99);
    cluster.agents.get_mut("n1").unwrap().pending.push(zombie);
    cluster.report("n1", Vec::new());
    assert_eq!(row(&cluster, 0, 0), None);
    assert!(cluster.core.stats().stale_reports > stale);
    // Nor one that says it is of another attempt.
    let mut odd = cluster.agents["n1"].checkpoint_of(&second.1, "odd", 99);
    if let Some(report::What::Checkpointed(told)) = &mut odd.what {
        told.id = Some(CheckpointId { attempt: 1, ..told.id.unwrap() });
    }
    cluster.agents.get_mut("n1").unwrap().pending.push(odd);
    cluster.report("n1", Vec::new());
    assert_eq!(row(&cluster, 0, 0), None);
    cluster.drain(60);
}

#[test]
fn a_gang_goes_on_from_what_all_its_ranks_have() {
    let nodes = ["n1", "n2"];
    let mut cluster = cluster(&nodes, job(vec![saving(Step { retries: Some(9), ..gang("ring", 2, 1) })]));
    let ranks = running(&mut cluster, &nodes);
    assert_eq!(ranks.len(), 2);
    save(&mut cluster, &ranks[0], "10");
    end(&mut cluster, &ranks[0], CauseKind::Exit);
    end(&mut cluster, &ranks[1], CauseKind::CancelledByUser);
    let ranks = running(&mut cluster, &nodes);
    assert_eq!(ranks.iter().map(|rank| from(&cluster, rank)).collect::<Vec<_>>(), [None, None]);
    // One rank is ahead of the other, by far more than is kept.
    save(&mut cluster, &ranks[1], "10");
    save(&mut cluster, &ranks[0], "10");
    for step in 11..40 {
        save(&mut cluster, &ranks[0], &step.to_string());
    }
    save(&mut cluster, &ranks[0], "10");
    let kept = labels(&cluster, 0);
    assert_eq!(kept.len(), controller::limits::CHECKPOINTS_PER_RANK_MAX);
    assert_eq!((kept[0].as_str(), kept[7].as_str()), ("10", "39"), "what is whole stays");
    end(&mut cluster, &ranks[0], CauseKind::Exit);
    end(&mut cluster, &ranks[1], CauseKind::CancelledByUser);
    let ranks = running(&mut cluster, &nodes);
    let labels_of = |cluster: &Cluster, ranks: &[(String, Held)]| -> Vec<String> {
        ranks.iter().map(|rank| from(cluster, rank).unwrap_or_default()).collect()
    };
    assert_eq!(labels_of(&cluster, &ranks), ["10", "10"]);
    for (label, rank) in [("50", 0), ("50", 1), ("60", 0), ("60", 1)] {
        save(&mut cluster, &ranks[rank], label);
    }
    assert_eq!(labels(&cluster, 1), ["50", "60"]);
    save(&mut cluster, &ranks[0], "70");
    assert_eq!(labels(&cluster, 0), ["50", "60", "70"], "a row is put right with its next");
    for rank in &ranks {
        end(&mut cluster, rank, CauseKind::Succeeded);
    }
    assert_eq!(cluster.state(LAB, 1), State::Completed);
    assert_eq!((row(&cluster, 0, 0), row(&cluster, 0, 1)), (None, None));
    // What both gave is 10 bytes each.
    assert_eq!(stored(&cluster), 20);
}

fn retry(cluster: &mut Cluster, from_step: &str) {
    let ticket = cluster.ticket();
    let loaded = Some(Box::new(cluster.rows.job(LAB, 1)));
    let (tenant, from_step) = (LAB.to_owned(), from_step.to_owned());
    cluster.step(Event::Retry { ticket, tenant, number: 1, from_step, loaded });
    assert!(matches!(cluster.replies[&ticket], Reply::Retried(_)), "{:?}", cluster.replies[&ticket]);
}

#[test]
fn a_users_retry_goes_on_too_unless_it_begins_the_step_anew() {
    let mut cluster = cluster(&["n1"], job(vec![saving(Step { retries: Some(0), ..array("many", "0-1") })]));
    let tasks = running(&mut cluster, &["n1"]);
    save(&mut cluster, &tasks[0], "a");
    for task in &tasks {
        end(&mut cluster, task, CauseKind::Exit);
    }
    assert_eq!((cluster.state(LAB, 1), stored(&cluster)), (State::Failed, 7));
    retry(&mut cluster, "");
    let tasks = running(&mut cluster, &["n1"]);
    let of = |cluster: &Cluster, tasks: &[(String, Held)]| -> Vec<Option<String>> {
        tasks.iter().map(|task| from(cluster, task)).collect()
    };
    assert_eq!(of(&cluster, &tasks), [Some("a".to_owned()), None]);
    for task in &tasks {
        end(&mut cluster, task, CauseKind::Exit);
    }
    retry(&mut cluster, "many");
    let tasks = running(&mut cluster, &["n1"]);
    assert_eq!(of(&cluster, &tasks), [None, None], "from the beginning");
    save(&mut cluster, &tasks[0], "b");
    assert_eq!((labels(&cluster, 0), stored(&cluster)), (vec!["b".to_owned()], 7), "the old one is gone");
    cluster.drain(60);
    assert_eq!(stored(&cluster), 0);
}
