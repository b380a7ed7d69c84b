//! What gives way to work of higher priority: what is told of it, how it is done, once, over
//! a restart too, and what it costs nobody.

mod model;

use controller::core::PreemptionRules;
use controller::{Config, Event, NewJob};
use model::Cluster;
use model::lab::LAB;
use model::specs::{array, gang, job, saving, step};
use proto::keys;
use proto::v1::{
    BlockRow, CauseKind, Event as Told, EventBatchRow, GrantRow, JobSpec, PreemptedTask, Preemption, State,
    TaskNote, TenantRow, Yielding,
};

const MIN_RUN_MS: u64 = 3_000;

/// Nodes of four slots, and jobs 1 (priority 0) and 2 of this priority, which waits.
fn cluster(nodes: &[&str], first: JobSpec, above: i32, times_max: u32) -> Cluster {
    let rules = PreemptionRules { min_run_ms: MIN_RUN_MS, times_max, ..PreemptionRules::default() };
    let preemption = ["", "default"].into_iter().map(|pool| (pool.to_owned(), rules)).collect();
    let mut cluster = Cluster::new(Config { preemption, ..Config::default() }, 4);
    cluster.tenant(TenantRow { name: LAB.to_owned(), ..TenantRow::default() });
    nodes.iter().for_each(|node| cluster.add_node(node));
    submit(&mut cluster, first, 1);
    run(&mut cluster);
    submit(&mut cluster, JobSpec { priority: above, ..job(vec![step("high")]) }, 2);
    cluster
}

fn submit(cluster: &mut Cluster, spec: JobSpec, number: u64) {
    let ticket = cluster.ticket();
    cluster.step(Event::Submit { ticket, job: NewJob { tenant: LAB.to_owned(), spec, ..NewJob::default() } });
    cluster.accepted.insert((LAB.to_owned(), number));
}

/// What is granted is taken up, and everything told.
fn run(cluster: &mut Cluster) {
    cluster.schedule(1);
    cluster.tell_grants();
    talk(cluster);
}

fn talk(cluster: &mut Cluster) {
    let names: Vec<String> = cluster.agents.keys().cloned().collect();
    for name in names {
        cluster.heartbeat(&name);
        cluster.deliver(&name);
        cluster.work(&name);
        cluster.report(&name, Vec::new());
        cluster.deliver(&name);
    }
}

fn ripen(cluster: &mut Cluster) -> Vec<Yielding> {
    for _ in 0..4 {
        cluster.advance(1_000);
        talk(cluster);
    }
    cluster.core.yielding_told().cloned().collect()
}

fn grant(cluster: &Cluster) -> GrantRow {
    cluster.rows.grants().find(|grant| grant.job_number == 1).expect("job 1 has a grant")
}

/// A scheduler asks that these give way to job 2.
fn ask(cluster: &mut Cluster, tasks: &[(u64, u32)]) -> GrantRow {
    let named = |&(task, attempt): &(u64, u32)| PreemptedTask { task, attempt };
    let tasks = tasks.iter().map(named).collect();
    let asked = Preemption { tenant: LAB.to_owned(), job_number: 2, tasks, ..Preemption::default() };
    let row = GrantRow { preemption: Some(asked), again: true, ..grant(cluster) };
    cluster.rows.put(keys::grant(LAB, row.epoch), &row);
    cluster.step(Event::Granted(row.clone()));
    row
}

fn note(cluster: &Cluster, task: u64) -> TaskNote {
    let block: BlockRow = cluster.rows.get(&keys::block(LAB, 1, 0, 0)).unwrap();
    block.notes.into_iter().find(|note| note.task == task).unwrap_or_default()
}

fn gave_way(cluster: &Cluster) -> Vec<Told> {
    let batches = cluster.rows.below::<EventBatchRow>(keys::EVENTS);
    let events = batches.flat_map(|(_, batch)| batch.events);
    let kind = |event: &Told| event.cause.as_ref().map(proto::v1::Cause::kind);
    events.filter(|event| kind(event) == Some(CauseKind::Preempted)).collect()
}

#[test]
fn single_tasks_give_way_and_their_grant_shrinks() {
    let mut cluster = cluster(&["n1"], job(vec![array("many", "1-4")]), 5, 5);
    assert_eq!(cluster.core.yielding_told().count(), 0, "nothing has run for long enough");
    let told = ripen(&mut cluster);
    assert_eq!((told.len(), told[0].tasks.len(), told[0].priority), (1, 4, 0));
    let row = ask(&mut cluster, &[(0, 1), (2, 1)]);
    assert_eq!(cluster.core.yielding_told().count(), 0, "what gives way gives way to one");
    talk(&mut cluster);
    let left = grant(&cluster);
    assert_eq!((left.nodes[0].slots, &left.preemption, left.again), (2, &None, true));
    for task in [0, 2] {
        let note = note(&cluster, task);
        assert_eq!((note.preemptions, note.own_failures, note.platform_failures), (1, 0, 0));
        assert!(note.avoid.is_empty() && note.not_before_ms <= cluster.now.wall_ms);
    }
    let state = cluster.rows.state(LAB, 1).unwrap();
    let step = &state.steps[0];
    assert_eq!((step.pending, step.active, step.retries_spent), (2, 2, 0));
    assert_eq!((cluster.core.stats().preemptions, cluster.core.stats().retries), (2, 0));
    let gave = step.gave_way.clone().unwrap();
    assert_eq!((gave.times, gave.tenant.as_str(), gave.job_number), (2, LAB, 2));
    let events = gave_way(&cluster);
    assert!(events.iter().all(|event| event.to() == State::Pending), "{events:?}");
    assert_eq!(events[0].cause.as_ref().unwrap().text, "gave way to lab-2");
    // Nothing more is fed to it, and what was asked is not asked again by the same word.
    cluster.step(Event::Granted(row));
    talk(&mut cluster);
    assert_eq!((grant(&cluster).nodes[0].slots, gave_way(&cluster).len()), (2, 1), "one event of both");
    cluster.drain(60);
}

#[test]
fn it_goes_on_over_a_restart_and_is_done_once() {
    let mut cluster = cluster(&["n1"], job(vec![saving(step("long"))]), 5, 5);
    ripen(&mut cluster);
    ask(&mut cluster, &[(0, 1)]);
    // Before any agent hears of it, and after, before its word comes.
    cluster.crash();
    assert!(gave_way(&cluster).is_empty());
    cluster.register("n1");
    cluster.hello("n1");
    cluster.deliver("n1");
    cluster.crash();
    cluster.register("n1");
    cluster.hello("n1");
    talk(&mut cluster);
    assert_eq!((gave_way(&cluster).len(), note(&cluster, 0).preemptions), (1, 1));
    assert!(cluster.rows.grants().all(|grant| grant.job_number != 1), "its grant is gone");
    cluster.drain(60);
}

#[test]
fn what_has_given_way_as_often_as_it_must_is_left_alone() {
    let mut cluster = cluster(&["n1"], job(vec![step("long")]), 5, 1);
    ripen(&mut cluster);
    ask(&mut cluster, &[(0, 1)]);
    talk(&mut cluster);
    run(&mut cluster);
    assert_eq!(ripen(&mut cluster), []);
    ask(&mut cluster, &[(0, 2)]);
    talk(&mut cluster);
    assert_eq!((grant(&cluster).preemption, gave_way(&cluster).len()), (None, 1));
    cluster.drain(60);
}

#[test]
fn nothing_gives_way_to_its_equal_or_to_nobody() {
    let mut cluster = cluster(&["n1"], job(vec![step("long")]), 0, 5);
    assert_eq!(ripen(&mut cluster).len(), 1);
    ask(&mut cluster, &[(0, 1)]);
    assert_eq!(grant(&cluster).preemption, None, "it is declined");
    let ticket = cluster.ticket();
    let (tenant, reason) = (LAB.to_owned(), String::new());
    cluster.step(Event::Cancel { ticket, tenant, number: 2, reason, ended: None });
    cluster.cancelled.insert((LAB.to_owned(), 2));
    ask(&mut cluster, &[(0, 1)]);
    // Nor an attempt that is over.
    ask(&mut cluster, &[(0, 7)]);
    talk(&mut cluster);
    assert_eq!((grant(&cluster).preemption, gave_way(&cluster).len()), (None, 0));
    cluster.drain(60);
}

#[test]
fn a_gang_gives_way_as_a_whole() {
    let mut cluster = cluster(&["n1", "n2"], job(vec![gang("ranks", 2, 2)]), 5, 5);
    let told = ripen(&mut cluster);
    assert!(told[0].gang && told[0].tasks.len() == 1, "{told:?}");
    ask(&mut cluster, &[(0, 1)]);
    talk(&mut cluster);
    let note = note(&cluster, 0);
    assert_eq!((note.preemptions, note.own_failures, note.platform_failures), (1, 0, 0));
    assert!(cluster.rows.grants().all(|grant| grant.job_number != 1));
    cluster.drain(60);
}
