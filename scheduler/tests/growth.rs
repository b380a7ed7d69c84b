//! How many further nodes queues would fill.

use proto::v1::{
    Constraint, Demand, DemandKey, DemandUpdate, NodeRow, NodeState, Quota, Resources, TenantRow,
};
use scheduler::core::{Config, Core, Event, Growing, Snapshot};
use world::clock::Now;

const NOW: Now = Now { mono_ms: 1_000, wall_ms: 1_700_000_000_000 };

/// Four cores, in this pool.
fn node(name: &str, pool: &str) -> NodeRow {
    NodeRow {
        name: name.to_owned(),
        pool: pool.to_owned(),
        labels: [("zone".to_owned(), "b".to_owned())].into(),
        capacity: Some(Resources { millicores: 4_000, memory_bytes: 8 << 30, gpus: 0 }),
        state: NodeState::Ready.into(),
        ..NodeRow::default()
    }
}

fn core_of(nodes: Vec<NodeRow>) -> Core {
    let mut core = Core::new(Config::default());
    let limited = TenantRow {
        name: "limited".to_owned(),
        quota: Some(Quota { millicores: Some(6_000), ..Quota::default() }),
        ..TenantRow::default()
    };
    let tenants = vec![TenantRow { name: "t".to_owned(), ..TenantRow::default() }, limited];
    core.step(NOW, Event::Reread(Box::new(Snapshot { nodes, tenants, ..Snapshot::default() })));
    core
}

fn demand(tenant: &str, job_number: u64, pool: &str, slots: u64, millicores: u32) -> Demand {
    Demand {
        key: Some(DemandKey { tenant: tenant.to_owned(), job_number, step: 0 }),
        slots,
        queued_ms: NOW.wall_ms,
        pool: pool.to_owned(),
        per_slot: Some(Resources { millicores, memory_bytes: 1 << 20, gpus: 0 }),
        ..Demand::default()
    }
}

/// Told, and given what there is.
fn wants(core: &mut Core, demand: Demand) {
    let controller = "c".to_owned();
    core.step(NOW, Event::Demand(DemandUpdate { controller, changed: vec![demand], ..Default::default() }));
    core.plan(NOW);
    core.check();
}

fn growing(pool: &str, room: u64) -> Growing {
    Growing { node: node("new", pool), room }
}

#[test]
fn what_has_no_room_is_counted_in_whole_nodes() {
    let mut core = core_of(vec![node("n1", "a")]);
    assert_eq!(core.growth(&[growing("a", 9)]), [0]);
    // Four of ten run; of one and a half cores each only two fit on a node.
    wants(&mut core, demand("t", 1, "a", 10, 1_000));
    assert_eq!(core.growth(&[growing("a", 9)]), [2]);
    wants(&mut core, demand("t", 2, "a", 3, 1_500));
    assert_eq!(core.growth(&[growing("a", 9)]), [3]);
    // What no node of that pool could hold, or is for another, is none of its.
    wants(&mut core, demand("t", 3, "a", 5, 5_000));
    wants(&mut core, demand("t", 4, "b", 5, 1_000));
    let needs = vec![Constraint { label: "zone".into(), value: "c".into(), negated: false }];
    wants(&mut core, Demand { constraints: needs, ..demand("t", 5, "a", 5, 1_000) });
    assert_eq!(core.growth(&[growing("a", 9)]), [3]);
    assert_eq!(core.growth(&[growing("a", 9), growing("b", 9)]), [3, 2]);
}

#[test]
fn of_a_tenant_no_more_is_counted_than_its_limits_let_it_have() {
    let mut core = core_of(vec![node("n1", "a")]);
    // It holds four cores of six.
    wants(&mut core, demand("limited", 1, "a", 40, 1_000));
    assert_eq!(core.growth(&[growing("a", 9)]), [1]);
    let mut core = core_of(Vec::new());
    wants(&mut core, demand("limited", 1, "a", 40, 1_000));
    assert_eq!(core.growth(&[growing("a", 9)]), [2]);
}

#[test]
fn what_names_no_pool_goes_to_the_first_that_may_grow_and_nowhere_while_it_fits() {
    let mut core = core_of(vec![node("n1", "c")]);
    let pools = |a| [growing("a", a), growing("b", 9)];
    wants(&mut core, demand("t", 1, "", 4, 1_000));
    assert_eq!(core.growth(&pools(9)), [0, 0]);
    wants(&mut core, demand("t", 2, "", 8, 1_000));
    assert_eq!(core.growth(&pools(9)), [2, 0]);
    assert_eq!(core.growth(&pools(0)), [0, 2]);
    assert_eq!(core.growth(&[growing("a", 0)]), [2], "that it may not grow is to be told");
}

#[test]
fn a_gang_counts_the_nodes_that_it_lacks() {
    let mut core = core_of(vec![node("n1", "a"), node("n2", "a")]);
    let gang = |number, nodes| Demand {
        gang_nodes: nodes,
        gang_tasks_per_node: 4,
        ..demand("t", number, "a", 1, 1_000)
    };
    wants(&mut core, gang(1, 5));
    assert_eq!(core.growth(&[growing("a", 9)]), [3]);
    wants(&mut core, gang(2, 3));
    assert_eq!(core.growth(&[growing("a", 9)]), [3 + 1], "each shape by itself");
}
