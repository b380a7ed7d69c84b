//! Sizes at the edge of what anybody would say.

use proto::keys;
use proto::v1::{
    Demand, DemandKey, DemandUpdate, GrantNode, GrantRow, NodeRow, NodeState, Reservation, Resources,
    TenantRow,
};
use scheduler::core::{Alloc, AllocOf, Config, Core, Event, Snapshot};
use scheduler::limits::{GRANT_SLOTS_MAX, PROPOSAL_OPERATIONS_MAX};
use world::clock::Now;

const NOW: Now = Now { mono_ms: 1_000, wall_ms: 1_700_000_000_000 };

fn node(name: &str, memory_bytes: u64) -> NodeRow {
    NodeRow {
        name: name.to_owned(),
        capacity: Some(Resources { millicores: 4_000, memory_bytes, gpus: 0 }),
        state: NodeState::Ready.into(),
        ..NodeRow::default()
    }
}

fn core_of(nodes: Vec<NodeRow>) -> Core {
    let mut core = Core::new(Config::default());
    let tenants = vec![TenantRow { name: "t".to_owned(), ..TenantRow::default() }];
    core.step(NOW, Event::Reread(Box::new(Snapshot { nodes, tenants, ..Snapshot::default() })));
    core.check();
    core
}

#[test]
fn nodes_that_claim_all_memory_there_is_leave_the_sums_right() {
    let mut core = core_of(vec![node("n1", u64::MAX), node("n2", u64::MAX), node("n3", 8 << 30)]);
    for name in ["n1", "n2"] {
        core.step(NOW, Event::NodeGone(name.to_owned()));
        core.check();
    }
    let pools = core.pools().pools;
    assert_eq!(pools[0].capacity.unwrap().memory_bytes, 8 << 30);
}

#[test]
fn a_long_array_that_needs_next_to_nothing_is_granted_in_parts() {
    let mut core = core_of(vec![node("n1", 8 << 30)]);
    let slots = 3 * GRANT_SLOTS_MAX + 7;
    let key = DemandKey { tenant: "t".to_owned(), job_number: 1, step: 0 };
    let demand = Demand { key: Some(key), slots, queued_ms: NOW.wall_ms, ..Demand::default() };
    let controller = "c".to_owned();
    core.step(NOW, Event::Demand(DemandUpdate { controller, changed: vec![demand], ..Default::default() }));
    let grants: Vec<u64> = core
        .plan(NOW)
        .into_iter()
        .flat_map(|proposal| proposal.grants)
        .flat_map(|grant| grant.nodes)
        .map(|node| u64::from(node.slots))
        .collect();
    core.check();
    assert!(grants.iter().all(|slots| *slots <= GRANT_SLOTS_MAX), "{grants:?}");
    assert_eq!(grants.iter().sum::<u64>(), slots);
}

/// The version that a proposal expects of a row, as far as it guards on it.
fn guarded(core: &mut Core, key: &store::Key) -> Option<u64> {
    let guards = core.plan(NOW).into_iter().flat_map(|proposal| proposal.commit.guards);
    guards.filter(|guard| guard.key == *key).find_map(|guard| match guard.expect {
        store::Expect::Version(version) => Some(version),
        store::Expect::Absent | store::Expect::Value(_) => None,
    })
}

/// As a newer version does that runs for a while, or a restored copy: grant rows
/// have other versions than the alloc rows that were put with them.
#[test]
fn rows_that_were_written_again_do_not_make_every_proposal_late() {
    let nodes = vec![node("n1", 8 << 30)];
    let tenants = vec![TenantRow { name: "t".to_owned(), ..TenantRow::default() }];
    let held = GrantRow {
        tenant: "t".to_owned(),
        job_number: 1,
        epoch: 4,
        nodes: vec![GrantNode { node: "n1".to_owned(), slots: 1 }],
        per_slot: Some(Resources { millicores: 1_000, ..Resources::default() }),
        ..GrantRow::default()
    };
    let allocs = |version| {
        [AllocOf::Node("n1".to_owned()), AllocOf::Tenant("t".to_owned())]
            .map(|of| Alloc { of, epoch: 4, version })
            .to_vec()
    };
    let snapshot = |version, grant_version| Snapshot {
        revision: 50,
        allocs: allocs(version),
        grants: vec![(held.clone(), grant_version)],
        nodes: nodes.clone(),
        tenants: tenants.clone(),
    };
    let mut core = Core::new(Config::default());
    core.step(NOW, Event::Reread(Box::new(snapshot(31, 40))));
    let wants = |core: &mut Core| {
        let key = DemandKey { tenant: "t".to_owned(), job_number: 2, step: 0 };
        let per_slot = Some(Resources { millicores: 500, ..Resources::default() });
        let demand = Demand { key: Some(key), per_slot, slots: 1, ..Demand::default() };
        core.step(
            NOW,
            Event::Demand(DemandUpdate {
                changed: vec![demand],
                controller: "c".into(),
                ..Default::default()
            }),
        );
    };
    let alloc = keys::alloc_node("n1");
    wants(&mut core);
    assert_eq!(guarded(&mut core, &alloc), Some(31));

    // Written again while it is followed: what the watch tells is no news of n1.
    let mut core = Core::new(Config::default());
    core.step(NOW, Event::Reread(Box::new(snapshot(31, 31))));
    core.step(NOW, Event::Granted { row: held.clone(), revision: 60 });
    wants(&mut core);
    assert_eq!(guarded(&mut core, &alloc), Some(31));
    core.check();
}

#[test]
fn what_is_taken_on_a_node_is_what_its_grants_hold() {
    let grant = |epoch, slots| GrantRow {
        tenant: "t".to_owned(),
        job_number: epoch,
        epoch,
        nodes: vec![GrantNode { node: "n1".to_owned(), slots }],
        per_slot: Some(Resources { millicores: 500, ..Resources::default() }),
        ..GrantRow::default()
    };
    let snapshot = Snapshot {
        grants: vec![(grant(1, 2), 1), (grant(2, 3), 2)],
        nodes: vec![node("n1", 8 << 30), node("n2", 8 << 30)],
        tenants: vec![TenantRow { name: "t".to_owned(), ..TenantRow::default() }],
        ..Snapshot::default()
    };
    let mut core = Core::new(Config::default());
    core.step(NOW, Event::Reread(Box::new(snapshot)));
    let taken = core.node_use().into_iter().map(|(name, (used, grants))| (name, used.millicores, grants));
    assert_eq!(taken.collect::<Vec<_>>(), [("n1".to_owned(), 2_500, 2), ("n2".to_owned(), 0, 0)]);
}

#[test]
fn work_that_begins_later_is_looked_at_then() {
    let mut core = core_of(vec![node("n1", 8 << 30)]);
    let key = DemandKey { tenant: "t".to_owned(), job_number: 1, step: 0 };
    let not_before_ms = NOW.wall_ms + 90_000;
    let demand = Demand { key: Some(key.clone()), slots: 1, not_before_ms, ..Demand::default() };
    let update = DemandUpdate { changed: vec![demand], controller: "c".to_owned(), ..Default::default() };
    core.step(NOW, Event::Demand(update));
    assert!(core.plan(NOW).is_empty());
    assert_eq!(core.next_wakeup_ms(), Some(NOW.mono_ms + 90_000));
    assert_eq!(core.explain(&key, NOW).expected_start_ms, not_before_ms);
    let then = Now { mono_ms: NOW.mono_ms + 90_000, wall_ms: not_before_ms };
    assert_eq!(core.plan(then).len(), 1);
}

#[test]
fn what_is_read_again_ends_what_is_not_there_and_nothing_newer() {
    let grant = |epoch| GrantRow {
        tenant: "t".to_owned(),
        job_number: epoch,
        epoch,
        nodes: vec![GrantNode { node: "n1".to_owned(), slots: 1 }],
        per_slot: Some(Resources { millicores: 1_000, ..Resources::default() }),
        ..GrantRow::default()
    };
    let mut core = core_of(vec![node("n1", 8 << 30)]);
    let tenant = |name: &str| TenantRow { name: name.to_owned(), ..TenantRow::default() };
    core.step(NOW, Event::Tenant(tenant("u")));
    core.step(NOW, Event::Granted { row: grant(1), revision: 40 });
    core.step(NOW, Event::Granted { row: grant(2), revision: 60 });
    let key = DemandKey { tenant: "u".to_owned(), job_number: 1, step: 0 };
    let demand = Demand { key: Some(key.clone()), slots: 1, ..Demand::default() };
    let update = DemandUpdate { changed: vec![demand], controller: "c".to_owned(), ..Default::default() };
    core.step(NOW, Event::Demand(update));
    let (nodes, tenants) = (vec![node("n1", 8 << 30)], vec![tenant("t")]);
    core.step(NOW, Event::Reread(Box::new(Snapshot { revision: 50, nodes, tenants, ..Snapshot::default() })));
    core.check();
    assert_eq!(core.held("t").millicores, 1_000, "the grant of revision 60 alone");
    assert_eq!(core.explain(&key, NOW).code, "waiting.tenant");
}

#[test]
fn a_proposal_is_no_larger_than_the_store_takes() {
    for (jobs, gang_nodes) in [(400, 0), (20, 40)] {
        let nodes: Vec<NodeRow> = (0..800).map(|number| node(&format!("n{number}"), 8 << 30)).collect();
        let mut core = core_of(nodes);
        let one = |job_number| Demand {
            key: Some(DemandKey { tenant: "t".to_owned(), job_number, step: 0 }),
            per_slot: Some(Resources { millicores: 4_000, ..Resources::default() }),
            slots: u64::from(gang_nodes.max(1)),
            gang_nodes,
            gang_tasks_per_node: gang_nodes.min(1),
            ..Demand::default()
        };
        let (changed, controller) = ((1..=jobs).map(one).collect(), "c".to_owned());
        core.step(NOW, Event::Demand(DemandUpdate { changed, controller, ..Default::default() }));
        let proposals = core.plan(NOW);
        assert!(!proposals.is_empty());
        for proposal in proposals {
            let operations = proposal.commit.guards.len() + proposal.commit.writes.len();
            assert!((1..=PROPOSAL_OPERATIONS_MAX).contains(&operations), "{operations}");
        }
    }
}

#[test]
fn a_profile_tells_nodes_and_who_holds_them_and_the_queue() {
    let mut core = core_of(vec![node("n1", 8 << 30)]);
    let per_slot = Some(Resources { millicores: 4_000, ..Resources::default() });
    let held = GrantRow {
        tenant: "t".to_owned(),
        job_number: 1,
        epoch: 1,
        nodes: vec![GrantNode { node: "n1".to_owned(), slots: 1 }],
        per_slot,
        ..GrantRow::default()
    };
    core.step(NOW, Event::Granted { row: held, revision: 40 });
    let waits = |job_number, expected_runtime_ms| {
        let key = Some(DemandKey { tenant: "t".to_owned(), job_number, step: 0 });
        Demand { key, per_slot, slots: 1, expected_runtime_ms, ..Demand::default() }
    };
    let (changed, controller) = (vec![waits(2, 60_000), waits(3, 0)], "c".to_owned());
    core.step(NOW, Event::Demand(DemandUpdate { changed, controller, ..Default::default() }));
    let profiles = core.profiles();
    assert_eq!(profiles.keys().collect::<Vec<_>>(), [""]);
    let profile = &profiles[""];
    assert_eq!((profile.nodes.len(), profile.nodes[0].holders.len()), (1, 1));
    let runtimes: Vec<Option<u64>> = profile.queue.iter().map(|queued| queued.runtime_ms).collect();
    assert_eq!(runtimes, [Some(60_000), None]);
    assert_eq!((profile.at_limit, profile.queue_unseen), (0, 0));
}

/// What is reserved is open once its time is over, also where the clock was there before
/// and went back since.
#[test]
fn a_clock_that_goes_back_does_not_keep_a_node_for_ever() {
    let at = |mono_ms: u64, seconds: u64| Now { mono_ms, wall_ms: NOW.wall_ms + seconds * 1_000 };
    let kept =
        Reservation { from_ms: at(0, 0).wall_ms, until_ms: at(0, 60).wall_ms, ..Reservation::default() };
    let mut core = core_of(vec![NodeRow { reservations: vec![kept], ..node("n1", 8 << 30) }]);
    assert!(core.plan(at(2_000, 61)).is_empty(), "nothing is wanted yet");
    let key = DemandKey { tenant: "t".to_owned(), job_number: 1, step: 0 };
    let demand = Demand { key: Some(key), slots: 1, queued_ms: NOW.wall_ms, ..Demand::default() };
    let update =
        DemandUpdate { changed: vec![demand], controller: "c".to_owned(), ..DemandUpdate::default() };
    core.step(at(3_000, 30), Event::Demand(update));
    assert!(core.plan(at(3_000, 30)).is_empty(), "by this clock it is kept still");
    assert!(core.next_wakeup_ms().is_some_and(|wakeup_ms| wakeup_ms <= 33_001), "it looks again in time");
    assert_eq!(core.plan(at(33_100, 61)).len(), 1);
}
