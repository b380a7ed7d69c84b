//! What large arrays cost: rows and bytes by what happened, not by length.

mod model;

use controller::{Config, DemandChange, Event, NewJob, Reply};
use model::{Cluster, specs};
use proto::v1::{JobSpec, State, TenantRow};

fn cluster() -> Cluster {
    let mut cluster = Cluster::new(Config::default(), 4);
    cluster.rows.large = true;
    cluster.tenant(TenantRow { name: "lab".to_owned(), ..TenantRow::default() });
    cluster.add_node("n1");
    cluster
}

fn submit(cluster: &mut Cluster, spec: JobSpec) -> u64 {
    let ticket = cluster.ticket();
    let job = NewJob { tenant: "lab".to_owned(), spec, ..NewJob::default() };
    cluster.step(Event::Submit { ticket, job });
    match &cluster.replies[&ticket] {
        Reply::Submitted(reply) => {
            cluster.accepted.insert(("lab".to_owned(), reply.number));
            reply.number
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_million_tasks_cost_their_ranges() {
    let mut cluster = cluster();
    let (rows, bytes) = (cluster.rows.rows.len(), cluster.rows.bytes);
    let number = submit(&mut cluster, specs::job(vec![specs::array("many", "0-999999")]));
    // Job, state, ledger, one event.
    assert_eq!(cluster.rows.rows.len() - rows, 4);
    assert!(cluster.rows.bytes - bytes < 1_000, "{} bytes", cluster.rows.bytes - bytes);
    assert_eq!(cluster.wanted[&("lab".to_owned(), number, 0)].slots, 1_000_000);

    // A cancel of all costs no more, and names them all.
    let bytes = cluster.rows.bytes;
    let ticket = cluster.ticket();
    let (tenant, reason) = ("lab".to_owned(), "enough".to_owned());
    cluster.step(Event::Cancel { ticket, tenant, number, reason, ended: None });
    assert_eq!(cluster.replies[&ticket], Reply::Cancelled(State::Cancelled));
    assert!(cluster.rows.bytes - bytes < 1_000);
    assert_eq!(cluster.rows.state("lab", number).unwrap().steps[0].cancelled, 1_000_000);

    // So does trying them again.
    let loaded = Some(Box::new(cluster.rows.job("lab", number)));
    let (bytes, ticket) = (cluster.rows.bytes, cluster.ticket());
    let (tenant, from_step) = ("lab".to_owned(), String::new());
    cluster.step(Event::Retry { ticket, tenant, number, from_step, loaded });
    assert_eq!(cluster.replies[&ticket], Reply::Retried(1_000_000));
    assert!(cluster.rows.bytes - bytes < 1_000);
    assert_eq!(cluster.wanted[&("lab".to_owned(), number, 0)].slots, 1_000_000);
}

#[test]
fn a_run_of_short_tasks_is_fed_ahead_and_writes_little_per_task() {
    let mut cluster = cluster();
    submit(&mut cluster, specs::job(vec![specs::array("many", "0-9999")]));
    let (mut turns, mut updates, bytes) = (0, 0, cluster.rows.bytes);
    while !cluster.all_over() {
        turns += 1;
        assert!(turns < 2_000, "{:?}", cluster.rows.state("lab", 1));
        cluster.schedule(1);
        cluster.tell_grants();
        // Many tasks end between two frames, though few run at once.
        for _ in 0..25 {
            cluster.work("n1");
            let agent = cluster.agents.get_mut("n1").unwrap();
            let running: Vec<_> = agent.running().cloned().collect();
            for held in running {
                agent.end(
                    &held,
                    proto::v1::Cause { kind: proto::v1::CauseKind::Succeeded.into(), ..Default::default() },
                );
            }
        }
        let done = cluster.report("n1", Vec::new());
        updates += done.iter().filter(|txn| txn.demand != DemandChange::default()).count();
        cluster.advance(10);
        if turns % 100 == 0 {
            cluster.heartbeat("n1");
        }
    }
    // 40 ms a task, 200 ms ahead: 5 in line for each of 4 slots.
    assert!(turns < 10_000 / 20, "{turns} turns: the agent ran dry");
    assert!(updates < 200, "{updates} updates of demand");
    let per_task = (cluster.rows.bytes - bytes) / 10_000;
    assert!(per_task < 200, "{per_task} bytes a task");
}

/// A retry here, a success there: the pending tasks of a large array lie in
/// more pieces than one event can name.
#[test]
fn a_cancel_of_a_shattered_array_comes_in_parts_that_fit() {
    let mut cluster = cluster();
    let spec = specs::job(vec![specs::array("many", "0-39999")]);
    let number = submit(&mut cluster, spec);
    // Rows as they would be had every other task completed.
    let mut state = cluster.rows.state("lab", number).unwrap();
    state.set_state(State::Running);
    state.steps[0].set_state(State::Running);
    state.steps[0].pending = 20_000;
    state.steps[0].completed = 20_000;
    state.queued_tasks_reserved = 20_000;
    let mut ledger = cluster.rows.get::<proto::v1::LedgerRow>(&proto::keys::ledger("lab")).unwrap();
    ledger.queued_tasks = 20_000;
    cluster.rows.put(proto::keys::ledger("lab"), &ledger);
    cluster.rows.put(proto::keys::state("lab", number), &state);
    for block in 0..10_u64 {
        let tasks = (block * 4096..(block + 1) * 4096).filter(|task| task % 2 == 0 && *task < 40_000);
        let completed = proto::spans::Spans::from_iter(tasks).to_proto();
        let row = proto::v1::BlockRow { completed, ..Default::default() };
        cluster.rows.put(proto::keys::block("lab", number, 0, block), &row);
    }
    cluster.crash();
    let ticket = cluster.ticket();
    let (tenant, reason) = ("lab".to_owned(), "enough".to_owned());
    let done = cluster.step(Event::Cancel { ticket, tenant, number, reason, ended: None });
    assert!(!done.is_empty());
    let state = cluster.rows.state("lab", number).unwrap();
    assert_eq!((state.state(), state.steps[0].cancelled), (State::Cancelled, 20_000));
}

/// A million tasks that wait for a million others, each for its like.
#[test]
fn a_million_tasks_that_follow_a_million_cost_their_ranges() {
    let mut cluster = cluster();
    let first = submit(&mut cluster, specs::job(vec![specs::array("first", "1-1000000")]));
    let mut spec = specs::job(vec![specs::array("second", "1-1000000")]);
    spec.after = vec![proto::after::parse(&format!("each:{first}"), "lab").unwrap().1];
    let (rows, bytes) = (cluster.rows.rows.len(), cluster.rows.bytes);
    let second = submit(&mut cluster, spec);
    assert_eq!(cluster.rows.rows.len() - rows, 3, "job, state, event");
    assert!(cluster.rows.bytes - bytes < 1_000, "{} bytes", cluster.rows.bytes - bytes);
    assert!(!cluster.wanted.contains_key(&("lab".to_owned(), second, 0)), "nothing may begin yet");

    // Some complete; as many may begin, also for a controller that starts anew.
    cluster.schedule(1);
    cluster.tell_grants();
    for _ in 0..3 {
        cluster.work("n1");
        let agent = cluster.agents.get_mut("n1").unwrap();
        let running: Vec<_> = agent.running().cloned().collect();
        for held in running {
            agent.end(
                &held,
                proto::v1::Cause { kind: proto::v1::CauseKind::Succeeded.into(), ..Default::default() },
            );
        }
        cluster.report("n1", Vec::new());
    }
    let done = cluster.rows.state("lab", first).unwrap().steps[0].completed;
    let wanted = |cluster: &Cluster| cluster.wanted[&("lab".to_owned(), second, 0)].slots;
    assert!(done > 0 && wanted(&cluster) == done, "{done} are done, {} wanted", wanted(&cluster));
    cluster.crash();
    assert_eq!(wanted(&cluster), done);

    // A cancel over there is one over here, of all whose like will never be.
    let bytes = cluster.rows.bytes;
    let ticket = cluster.ticket();
    let (tenant, reason) = ("lab".to_owned(), "enough".to_owned());
    cluster.step(Event::Cancel { ticket, tenant, number: first, reason, ended: None });
    let state = cluster.rows.state("lab", second).unwrap();
    let running = cluster.rows.state("lab", first).unwrap().steps[0].active;
    assert_eq!(state.steps[0].cancelled, 1_000_000 - done - running);
    assert_eq!(wanted(&cluster), done);
    // By block, since some of them may still begin.
    assert!(cluster.rows.bytes - bytes < 100_000, "{} bytes", cluster.rows.bytes - bytes);
}
