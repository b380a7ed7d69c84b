//! Nodes that come and go by need: none with work on it, none of an operator's.

mod model;

use controller::{Config, Event, NewJob, Reply, Scaling};
use model::{Cluster, specs};
use proto::keys;
use proto::v1::{AllocRow, Drainer, NodeRow, State, TenantRow};

fn scale(cluster: &mut Cluster, wanted: Scaling) -> String {
    let ticket = cluster.ticket();
    cluster.step(Event::Scale { ticket, node: "n1".to_owned(), wanted });
    told(cluster, ticket)
}

fn drain(cluster: &mut Cluster, drained: bool) -> String {
    let ticket = cluster.ticket();
    cluster.step(Event::DrainNode {
        ticket,
        node: "n1".to_owned(),
        drained,
        reason: "broken fan".to_owned(),
    });
    told(cluster, ticket)
}

fn told(cluster: &mut Cluster, ticket: u64) -> String {
    match cluster.replies.remove(&ticket) {
        Some(Reply::Done) => "done".to_owned(),
        Some(Reply::Refused(problem)) => problem.code,
        other => panic!("{other:?}"),
    }
}

fn retire() -> Scaling {
    Scaling::Retire { pool: "gpu".to_owned(), reason: "never came".to_owned() }
}

fn row(cluster: &Cluster) -> Option<NodeRow> {
    cluster.rows.get(&keys::node("n1"))
}

#[test]
fn a_node_goes_only_once_nothing_runs_on_it_and_nothing_comes_to_it() {
    let mut cluster = Cluster::new(Config::default(), 2);
    cluster.tenant(TenantRow { name: "t".to_owned(), ..TenantRow::default() });
    cluster.add_node("n1");
    let ticket = cluster.ticket();
    let spec = specs::job(vec![specs::array("one", "1-1")]);
    let job = NewJob { tenant: "t".to_owned(), by: "tests".to_owned(), spec, ..NewJob::default() };
    cluster.step(Event::Submit { ticket, job });
    cluster.schedule(8);
    cluster.tell_grants();
    cluster.work("n1");

    assert_eq!(scale(&mut cluster, retire()), "conflict.scaling", "it takes work");
    assert_eq!(scale(&mut cluster, Scaling::Drain("idle".to_owned())), "done");
    assert_eq!(scale(&mut cluster, Scaling::Drain("idle".to_owned())), "done");
    assert_eq!(scale(&mut cluster, retire()), "conflict.scaling", "it has work");
    cluster.agents.get_mut("n1").unwrap().end_all_well();
    cluster.report("n1", Vec::new());
    assert_eq!(cluster.state("t", 1), State::Completed);
    assert_eq!(scale(&mut cluster, Scaling::Forget), "conflict.scaling", "it may come back yet");
    assert_eq!(scale(&mut cluster, retire()), "done");
    assert_eq!(scale(&mut cluster, retire()), "done");
    // From here on there is no way back, not even for an operator.
    assert_eq!(scale(&mut cluster, Scaling::Resume), "conflict.scaling");
    assert_eq!(drain(&mut cluster, false), "conflict.removed");
    // Its agent comes anew, and the controller does.
    cluster.register("n1");
    cluster.crash();
    let retired = row(&cluster).unwrap();
    assert_eq!((retired.drained, retired.drainer(), retired.session), (true, Drainer::Removal, 2));

    cluster.rows.put(keys::alloc_node("n1"), &AllocRow { epoch: 7 });
    assert_eq!(scale(&mut cluster, Scaling::Forget), "done");
    assert_eq!(scale(&mut cluster, Scaling::Forget), "done");
    assert_eq!((row(&cluster), cluster.rows.get::<AllocRow>(&keys::alloc_node("n1"))), (None, None));
    assert_eq!(scale(&mut cluster, Scaling::Resume), "missing.node");
    // Should it live after all it is a new node, and its old frames are not this one's.
    cluster.register("n1");
    let fresh = row(&cluster).unwrap();
    assert_eq!((fresh.drained, fresh.drainer(), fresh.session), (false, Drainer::Unspecified, 3));
}

#[test]
fn what_an_operator_drained_is_left_alone() {
    let mut cluster = Cluster::new(Config::default(), 2);
    cluster.add_node("n1");
    assert_eq!(scale(&mut cluster, Scaling::Resume), "done", "it takes work");
    assert_eq!(drain(&mut cluster, true), "done");
    for wanted in [Scaling::Drain("idle".to_owned()), Scaling::Resume, retire(), Scaling::Forget] {
        assert_eq!(scale(&mut cluster, wanted), "conflict.scaling");
    }
    assert_eq!(row(&cluster).unwrap().drain_reason, "broken fan");
    assert_eq!(drain(&mut cluster, false), "done");
    // And one that was drained for want of work is the operator's once he says so.
    assert_eq!(scale(&mut cluster, Scaling::Drain("idle".to_owned())), "done");
    assert_eq!(drain(&mut cluster, true), "done");
    assert_eq!(scale(&mut cluster, Scaling::Resume), "conflict.scaling");
}

#[test]
fn a_node_that_was_given_up_before_it_came_gets_no_work_should_it_come() {
    let mut cluster = Cluster::new(Config::default(), 2);
    assert_eq!(scale(&mut cluster, retire()), "done");
    let phantom = row(&cluster).unwrap();
    assert_eq!((phantom.pool.as_str(), phantom.drain_reason.as_str()), ("gpu", "never came"));
    cluster.add_node("n1");
    let late = row(&cluster).unwrap();
    assert_eq!((late.drained, late.drainer()), (true, Drainer::Removal));
    assert_eq!(scale(&mut cluster, Scaling::Forget), "done");
}
