//! What ended jobs gave goes when its time is over: the mark, the account, the rows.

mod model;

use controller::limits::ROWS_PER_EXPIRY;
use controller::{DueJobs, EndedJob, Event, Expiring, Reply};
use model::Cluster;
use model::lab::{LAB, cluster, end, running};
use model::specs::{array, job, saving, step};
use proto::keys;
use proto::v1::{CauseKind, JobSpec, JobStateRow, LedgerRow, State, Step, TenantRow};

const KEPT_MS: u64 = 60_000;

fn due(cluster: &mut Cluster) -> DueJobs {
    let now_ms = cluster.now.wall_ms;
    cluster.core.due_jobs(now_ms)
}

fn is_due(cluster: &mut Cluster) -> bool {
    due(cluster).jobs == [(LAB.to_owned(), 1)]
}

fn keep(cluster: &mut Cluster, retention_ms: Option<u64>) {
    cluster.tenant(TenantRow { name: LAB.to_owned(), retention_ms, ..TenantRow::default() });
}

fn state(cluster: &Cluster) -> JobStateRow {
    cluster.rows.state(LAB, 1).unwrap()
}

fn stored(cluster: &Cluster) -> (u64, u64) {
    let ledger: LedgerRow = cluster.rows.get(&keys::ledger(LAB)).unwrap();
    (ledger.storage_bytes, state(cluster).storage_bytes)
}

/// What the rows say of the job.
fn found(cluster: &Cluster) -> Expiring {
    let below = [keys::manifests_of_job(LAB, 1), keys::checkpoints_of_job(LAB, 1)];
    let is_given = |key: &&store::Key| below.iter().any(|prefix| key.starts_with(prefix));
    let rows: Vec<_> = cluster.rows.rows.keys().filter(is_given).take(ROWS_PER_EXPIRY).cloned().collect();
    let state = state(cluster);
    let log_gone = state.expired_ms > 0 && rows.is_empty();
    Expiring { state, rows, log_gone }
}

fn expire(cluster: &mut Cluster, found: Expiring) -> bool {
    let ticket = cluster.ticket();
    let (tenant, found) = (LAB.to_owned(), Box::new(found));
    cluster.step(Event::Expire { ticket, tenant, number: 1, found });
    match cluster.replies[&ticket] {
        Reply::Expired(more) => more,
        ref other => panic!("{other:?}"),
    }
}

fn retry(cluster: &mut Cluster, loaded: controller::LoadedJob) -> Reply {
    let ticket = cluster.ticket();
    let (tenant, from_step) = (LAB.to_owned(), String::new());
    cluster.step(Event::Retry { ticket, tenant, number: 1, from_step, loaded: Some(Box::new(loaded)) });
    cluster.replies[&ticket].clone()
}

fn giving(step: Step) -> Step {
    Step { outputs: vec!["out".to_owned()], ..step }
}

fn ended(spec: JobSpec) -> Cluster {
    let mut cluster = cluster(&["n1"], spec);
    keep(&mut cluster, Some(KEPT_MS));
    cluster.drain(60);
    assert_eq!(state(&cluster).state(), State::Completed);
    cluster
}

#[test]
fn it_goes_when_its_time_is_over_and_is_given_back_once() {
    let mut cluster = ended(job(vec![giving(array("many", "1-70"))]));
    let (all, own) = stored(&cluster);
    assert!(own > 0 && all == own && cluster.rows.manifests() == 70);
    while !is_due(&mut cluster) {
        assert!(cluster.now.wall_ms < state(&cluster).ended_ms + KEPT_MS);
        // Whoever is too early is told so.
        let early = found(&cluster);
        assert!(!expire(&mut cluster, early));
        assert_eq!(stored(&cluster), (all, own));
        cluster.advance(1_000);
    }
    let first = found(&cluster);
    assert!(expire(&mut cluster, first.clone()));
    let marked = state(&cluster);
    assert_eq!((marked.expired_ms, marked.retained_ms), (cluster.now.wall_ms, KEPT_MS));
    assert_eq!((stored(&cluster), cluster.rows.manifests()), ((0, 0), 70 - ROWS_PER_EXPIRY));
    // It was read before that was durable; and then the controller dies in the midst of it.
    assert!(expire(&mut cluster, first));
    assert_eq!(state(&cluster), marked);
    cluster.crash();
    while is_due(&mut cluster) {
        let next = found(&cluster);
        expire(&mut cluster, next);
    }
    assert_eq!((stored(&cluster), cluster.rows.manifests()), ((0, 0), 0));
    assert_eq!(state(&cluster), JobStateRow { cleared: true, ..marked });
    cluster.crash();
    assert_eq!(due(&mut cluster), DueJobs::default());
    cluster.rows.check_end(&cluster.cancelled);
}

#[test]
fn what_expired_is_not_tried_again() {
    let mut cluster = cluster(&["n1"], job(vec![Step { retries: Some(0), ..saving(step("one")) }]));
    keep(&mut cluster, Some(KEPT_MS));
    let run = running(&mut cluster, &["n1"]).remove(0);
    cluster.agents.get_mut("n1").unwrap().checkpoint(&run.1, "a");
    cluster.report("n1", Vec::new());
    end(&mut cluster, &run, CauseKind::Exit);
    assert_eq!(state(&cluster).state(), State::Failed);
    // Of a task that failed a checkpoint is kept: a retry would go on from it.
    assert_eq!(stored(&cluster), (7, 7));
    cluster.advance(KEPT_MS);
    let before = cluster.rows.job(LAB, 1);
    while is_due(&mut cluster) {
        let next = found(&cluster);
        expire(&mut cluster, next);
    }
    assert_eq!(stored(&cluster), (0, 0));
    for loaded in [cluster.rows.job(LAB, 1), before] {
        let Reply::Refused(problem) = retry(&mut cluster, loaded) else { panic!("it was taken") };
        assert_eq!(problem.code, "outputs.expired");
        assert!(problem.reason.contains("kept for 1m after its end"), "{problem}");
    }
}

#[test]
fn a_retry_begins_its_time_anew() {
    let mut cluster = cluster(&["n1"], job(vec![giving(Step { retries: Some(0), ..step("one") })]));
    keep(&mut cluster, Some(KEPT_MS));
    let run = running(&mut cluster, &["n1"]).remove(0);
    end(&mut cluster, &run, CauseKind::Exit);
    cluster.advance(KEPT_MS);
    let late = found(&cluster);
    let loaded = cluster.rows.job(LAB, 1);
    assert_eq!(retry(&mut cluster, loaded), Reply::Retried(1));
    assert!(!is_due(&mut cluster) && !expire(&mut cluster, late.clone()), "it lives");
    cluster.drain(60);
    assert!(!expire(&mut cluster, late), "that was another end");
    assert_eq!((state(&cluster).state(), state(&cluster).expired_ms), (State::Completed, 0));
    assert!(stored(&cluster).1 > 0);
    cluster.advance(KEPT_MS);
    assert!(is_due(&mut cluster));
}

#[test]
fn a_job_may_ask_for_less_and_what_ended_before_a_retention_is_found() {
    let own = JobSpec { keep_ms: 5_000, ..job(vec![array("many", "1-2")]) };
    let mut mine = cluster(&["n1"], own);
    mine.drain(60);
    mine.advance(10_000);
    assert!(is_due(&mut mine), "its tenant keeps all for ever");

    let mut cluster = cluster(&["n1"], job(vec![array("many", "1-2")]));
    cluster.drain(60);
    cluster.advance(10 * KEPT_MS);
    assert_eq!(due(&mut cluster), DueJobs::default());
    keep(&mut cluster, Some(KEPT_MS));
    let survey = DueJobs { survey: vec![LAB.to_owned()], ..DueJobs::default() };
    assert_eq!(due(&mut cluster), survey);
    let ticket = cluster.ticket();
    let jobs = EndedJob::of(1, &state(&cluster)).into_iter().collect();
    cluster.step(Event::Ended { ticket, tenant: LAB.to_owned(), jobs, last: true });
    assert!(is_due(&mut cluster));
    keep(&mut cluster, None);
    assert_eq!(due(&mut cluster), DueJobs::default(), "nothing goes any more");
    let late = found(&cluster);
    assert!(!expire(&mut cluster, late));
    assert_eq!(state(&cluster).expired_ms, 0);
    keep(&mut cluster, Some(KEPT_MS));
    cluster.crash();
    assert!(is_due(&mut cluster), "loading tells all that have ended");
}
