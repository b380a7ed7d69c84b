//! What operators are warned by.

use proto::v1::{Budget, Demand, DemandKey, DemandUpdate, NodeRow, NodeState, Quota, Resources, TenantRow};
use scheduler::core::{Config, Core, Event, Snapshot};
use scheduler::signs::{BudgetSign, HeadSign, PoolSign};
use world::clock::Now;

const NOW: Now = Now { mono_ms: 1_000, wall_ms: 1_700_000_000_000 };

fn node(name: &str, pool: &str, gpus: u32) -> NodeRow {
    NodeRow {
        name: name.to_owned(),
        pool: pool.to_owned(),
        capacity: Some(Resources { millicores: 4_000, memory_bytes: 8 << 30, gpus }),
        state: NodeState::Ready.into(),
        session: 3,
        ..NodeRow::default()
    }
}

fn core_of(nodes: Vec<NodeRow>) -> Core {
    let mut core = Core::new(Config::default());
    let limited = TenantRow {
        name: "limited".to_owned(),
        quota: Some(Quota { millicores: Some(1_000), ..Quota::default() }),
        budget: Some(Budget { month_micros: Some(7), ..Budget::default() }),
        ..TenantRow::default()
    };
    let tenants = vec![TenantRow { name: "t".to_owned(), ..TenantRow::default() }, limited];
    core.step(NOW, Event::Reread(Box::new(Snapshot { nodes, tenants, ..Snapshot::default() })));
    core
}

fn key(tenant: &str, job_number: u64) -> DemandKey {
    DemandKey { tenant: tenant.to_owned(), job_number, step: 0 }
}

/// Wants so many slots of so many cores and GPUs each, and is given what there is.
fn wants(core: &mut Core, key: DemandKey, pool: &str, slots: u64, (millicores, gpus): (u32, u32)) {
    let demand = Demand {
        key: Some(key),
        slots,
        queued_ms: NOW.wall_ms,
        pool: pool.to_owned(),
        per_slot: Some(Resources { millicores, memory_bytes: 1 << 20, gpus }),
        ..Demand::default()
    };
    let controller = "c".to_owned();
    core.step(NOW, Event::Demand(DemandUpdate { controller, changed: vec![demand], ..Default::default() }));
    core.plan(NOW);
    core.check();
}

fn pool(name: &str, queued_slots: u64, is_full: bool) -> PoolSign {
    PoolSign { name: name.to_owned(), queued_slots, is_full }
}

#[test]
fn a_pool_is_full_where_nothing_that_queues_for_it_fits() {
    let mut core = core_of(vec![node("n1", "small", 0), node("n2", "gpu", 1)]);
    assert_eq!(core.pool_signs(), []);
    // Six cores are wanted of four: a half of one stays free, and is of no use.
    wants(&mut core, key("t", 1), "small", 4, (1_500, 0));
    assert_eq!(core.pool_signs(), [pool("small", 2, true)]);
    // Something smaller would fit; it waits until the grants before it are written.
    wants(&mut core, key("limited", 2), "small", 3, (500, 0));
    assert_eq!(core.pool_signs(), [pool("small", 5, false)]);
}

#[test]
fn what_names_no_pool_fills_only_those_that_could_hold_it() {
    let mut core = core_of(vec![node("n1", "small", 0), node("n2", "gpu", 1)]);
    wants(&mut core, key("t", 1), "", 3, (1_000, 1));
    // The pool without GPUs has room for all else.
    assert_eq!(core.pool_signs(), [pool("gpu", 2, true)]);
}

#[test]
fn a_tenant_at_its_own_limit_fills_no_pool_but_its_first_is_blocked() {
    let mut core = core_of(vec![node("n1", "small", 0)]);
    wants(&mut core, key("limited", 1), "small", 3, (1_000, 0));
    core.plan(NOW);
    assert_eq!(core.pool_signs(), [pool("small", 2, false)]);
    assert_eq!(core.budget_signs(), [BudgetSign { tenant: "limited".to_owned(), month_micros: 7 }]);
}

#[test]
fn the_first_of_a_queue_is_told_with_how_long_it_is_blocked() {
    let mut core = core_of(vec![node("n1", "small", 0)]);
    wants(&mut core, key("t", 1), "small", 1, (4_000, 0));
    assert_eq!(core.head_signs(NOW), []);
    wants(&mut core, key("limited", 2), "small", 1, (1_000, 0));
    let later = Now { mono_ms: NOW.mono_ms + 90_000, ..NOW };
    assert_eq!(core.head_signs(later), [HeadSign { step: key("limited", 2), blocked_ms: 90_000 }]);
}

#[test]
fn nodes_are_told_by_name_as_their_rows_have_them() {
    let lost = NodeRow { state: NodeState::Lost.into(), drained: true, ..node("b", "small", 0) };
    let core = core_of(vec![lost, node("a", "small", 0)]);
    let told: Vec<_> =
        core.node_signs().into_iter().map(|n| (n.name, n.state, n.drained, n.session)).collect();
    assert_eq!(
        told,
        [("a".to_owned(), NodeState::Ready, false, 3), ("b".to_owned(), NodeState::Lost, true, 3)]
    );
}
