//! A grant may stand in line: where a transaction is full, it is served in the next one.
//! What its nodes were when it came they need not be any more by then.

mod model;

use controller::{Config, Event, NewJob, Txn};
use model::{Cluster, specs};
use proto::v1::{DemandKey, GrantNode, GrantRow, JobSpec, Resources, State, TenantRow};

/// So many tasks at once, in their blocks, do not fit one transaction, nor two.
const MANY: u32 = 600_000;

fn submit(cluster: &mut Cluster, tenant: &str, spec: JobSpec) {
    let ticket = cluster.ticket();
    let job = NewJob { tenant: tenant.to_owned(), by: "tests".to_owned(), spec, ..NewJob::default() };
    cluster.step(Event::Submit { ticket, job });
}

fn grant(cluster: &mut Cluster, tenant: &str, nodes: &[(&str, u32)], gang: bool) -> GrantRow {
    let at = DemandKey { tenant: tenant.to_owned(), job_number: 1, step: 0 };
    let nodes = nodes.iter().map(|(node, slots)| GrantNode { node: (*node).to_owned(), slots: *slots });
    let each = Resources { millicores: 1000, memory_bytes: 1 << 20, gpus: 0 };
    cluster.grant(&at, nodes.collect(), gang, Some(each), 0)
}

/// One transaction alone, whatever it leaves.
fn step(cluster: &mut Cluster, event: Event) -> Txn {
    let txn = cluster.core.step(cluster.now, event);
    cluster.settle(txn.clone());
    txn
}

#[test]
fn a_gang_is_not_begun_on_a_node_that_was_drained_while_its_grant_stood_in_line() {
    let mut cluster = Cluster::new(Config::default(), 4);
    for tenant in ["busy", "gangs"] {
        cluster.tenant(TenantRow { name: tenant.to_owned(), ..TenantRow::default() });
    }
    for node in ["n1", "n2"] {
        cluster.add_node(node);
    }
    submit(&mut cluster, "busy", specs::job(vec![specs::array("many", &format!("1-{MANY}"))]));
    submit(&mut cluster, "gangs", specs::job(vec![specs::gang("ring", 2, 1)]));

    let many = grant(&mut cluster, "busy", &[("n2", MANY)], false);
    let ring = grant(&mut cluster, "gangs", &[("n1", 1), ("n2", 1)], true);
    step(&mut cluster, Event::Granted(many));
    step(&mut cluster, Event::Granted(ring.clone()));
    assert!(cluster.core.backlogged(), "the first grant takes more than two transactions");
    assert_eq!(cluster.state("gangs", 1), State::Pending, "the gang stands in line");

    let ticket = cluster.ticket();
    let reason = "its fan is loud".to_owned();
    step(&mut cluster, Event::DrainNode { ticket, node: "n1".to_owned(), drained: true, reason });
    while cluster.core.backlogged() {
        step(&mut cluster, Event::Tick);
    }
    assert_eq!(cluster.state("gangs", 1), State::Pending);
    let key = proto::keys::grant("gangs", ring.epoch);
    assert!(cluster.rows.get::<GrantRow>(&key).is_none(), "what cannot be used is given back");
}
