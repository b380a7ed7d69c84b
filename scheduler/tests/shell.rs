//! The shell over a real store: demand in, grant rows out, whatever the watch,
//! the link or another scheduler does meanwhile.

use prost::Message as _;
use proto::keys::{self, Parsed};
use proto::v1::{Demand, DemandKey, DemandUpdate, GrantRow, NodeRow, NodeState, Quota, Resources, TenantRow};
use scheduler::core::Config;
use scheduler::shell::{Handle, start};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use store::{Commit, Notice, OpenOptions, RedbStore, Store, Watch, Write};
use world::NodeClock;
use world::sim::{HostileDisk, SkewedClock};
use world::sync::mpsc;
use world::time::{ms, timeout};

const GIB: u64 = 1 << 30;

fn clock() -> Arc<dyn NodeClock> {
    SkewedClock::pair(1_700_000_000_000).0
}

async fn store() -> Arc<dyn Store> {
    let options = OpenOptions { cache_bytes: 1 << 20, drop_leases: false, verify: true };
    RedbStore::open_with(HostileDisk::new(7).handle(), "store.redb", clock(), options).await.unwrap()
}

async fn put(store: &dyn Store, key: bytes::Bytes, value: Option<Vec<u8>>) {
    let write = Write { key, value: value.map(Into::into), lease: 0 };
    store.commit(Commit { guards: vec![], writes: vec![write] }).await.unwrap();
}

async fn put_node(store: &dyn Store, name: &str, cores: u32) {
    let capacity = Resources { millicores: cores * 1000, memory_bytes: 64 * GIB, gpus: 0 };
    let row = NodeRow {
        name: name.to_owned(),
        pool: "main".to_owned(),
        capacity: Some(capacity),
        state: NodeState::Ready.into(),
        ..NodeRow::default()
    };
    put(store, keys::node(name), Some(row.encode_to_vec())).await;
}

async fn put_tenant(store: &dyn Store, name: &str, cores: Option<u64>) {
    let quota = Quota { millicores: cores.map(|c| c * 1000), ..Quota::default() };
    let row = TenantRow { name: name.to_owned(), quota: Some(quota), ..TenantRow::default() };
    put(store, keys::tenant(name), Some(row.encode_to_vec())).await;
}

fn key(tenant: &str, job_number: u64) -> DemandKey {
    DemandKey { tenant: tenant.to_owned(), job_number, step: 0 }
}

fn wants(tenant: &str, job_number: u64, slots: u64, granted_epoch: u64) -> Demand {
    Demand {
        key: Some(key(tenant, job_number)),
        per_slot: Some(Resources { millicores: 1000, memory_bytes: GIB, gpus: 0 }),
        slots,
        granted_epoch,
        ..Demand::default()
    }
}

fn told(changed: Vec<Demand>) -> DemandUpdate {
    DemandUpdate { controller: "c".to_owned(), changed, ..DemandUpdate::default() }
}

fn launch(store: &Arc<dyn Store>, seed: u64) -> (Handle, mpsc::Sender<DemandUpdate>) {
    let (demand, updates) = mpsc::channel(64);
    let config = Config { seed, ..Config::default() };
    (start(Arc::clone(store), clock(), config, updates), demand)
}

/// The grants put since, one by one; a commit may hold several.
struct Grants {
    watch: Watch,
    told: VecDeque<GrantRow>,
}

async fn watch_grants(store: &dyn Store) -> Grants {
    let watch = store.watch(bytes::Bytes::from_static(keys::GRANTS.as_bytes())).await.unwrap();
    Grants { watch, told: VecDeque::new() }
}

async fn next_grant(grants: &mut Grants) -> GrantRow {
    loop {
        if let Some(grant) = grants.told.pop_front() {
            return grant;
        }
        let notice = timeout(ms(10_000), grants.watch.notices.recv()).await.expect("a grant comes in time");
        let Some(Notice::Changed { changes, .. }) = notice else { panic!("the watch ended: {notice:?}") };
        for (key, value) in changes {
            if let (Some(Parsed::Grant { .. }), Some(value)) = (keys::parse(&key), value) {
                grants.told.push_back(GrantRow::decode(value).unwrap());
            }
        }
    }
}

#[tokio::test]
async fn demand_becomes_a_grant_row_and_a_release_another() {
    let store = store().await;
    put_node(store.as_ref(), "n1", 2).await;
    put_tenant(store.as_ref(), "lab", None).await;
    let mut watch = watch_grants(store.as_ref()).await;
    let (handle, demand) = launch(&store, 1);
    demand.send(told(vec![wants("lab", 1, 5, 0)])).await.unwrap();
    let first = next_grant(&mut watch).await;
    assert_eq!((first.job_number, first.epoch, first.nodes[0].slots), (1, 1, 2));
    assert_eq!(first.feed_until_ms, first.granted_ms + 2000);

    demand.send(told(vec![wants("lab", 1, 3, 1)])).await.unwrap();
    put(store.as_ref(), keys::grant("lab", 1), None).await;
    let second = next_grant(&mut watch).await;
    assert_eq!((second.epoch, second.nodes[0].slots), (2, 2));
    assert_eq!(handle.held("lab").millicores, 2000);
    assert_eq!(handle.pools().pools[0].nodes, 1);
    assert_eq!(handle.explain(&key("lab", 2)).code, "waiting.nothing");
    handle.check();

    // A node that comes later is used at once.
    put_node(store.as_ref(), "n2", 1).await;
    let third = next_grant(&mut watch).await;
    assert_eq!((third.nodes[0].node.as_str(), third.nodes[0].slots), ("n2", 1));
}

#[tokio::test]
async fn it_ends_when_told_and_when_nobody_can_tell_it_demand() {
    let store = store().await;
    let (handle, _demand) = launch(&store, 1);
    handle.stop();
    timeout(ms(10_000), handle.ended()).await.expect("it ends when told");
    let (handle, demand) = launch(&store, 1);
    drop(demand);
    timeout(ms(10_000), handle.ended()).await.expect("it ends without demand");
}

#[tokio::test]
async fn a_scheduler_that_starts_later_knows_what_is_held() {
    let store = store().await;
    put_node(store.as_ref(), "n1", 4).await;
    put_tenant(store.as_ref(), "lab", Some(3)).await;
    let mut watch = watch_grants(store.as_ref()).await;
    let (first, demand) = launch(&store, 1);
    demand.send(told(vec![wants("lab", 1, 2, 0)])).await.unwrap();
    next_grant(&mut watch).await;
    first.stop();
    let (second, demand) = launch(&store, 2);
    demand.send(told(vec![wants("lab", 2, 9, 0)])).await.unwrap();
    let grant = next_grant(&mut watch).await;
    assert_eq!((grant.epoch, grant.nodes[0].slots), (2, 1), "one core of three was left");
    assert_eq!(second.held("lab").millicores, 3000);
}

/// A controller for both: counts each grant, releases it, tells both.
async fn drain(
    store: &dyn Store,
    watch: &mut Grants,
    schedulers: &[mpsc::Sender<DemandUpdate>],
    mut left: BTreeMap<String, u64>,
) {
    while left.values().any(|&slots| slots > 0) {
        let grant = next_grant(watch).await;
        let held: u64 = grant.nodes.iter().map(|n| u64::from(n.slots)).sum();
        let slots = left.get_mut(&grant.tenant).unwrap();
        *slots = slots.saturating_sub(held);
        for demand in schedulers {
            demand.send(told(vec![wants(&grant.tenant, 1, *slots, grant.epoch)])).await.unwrap();
        }
        put(store, keys::grant(&grant.tenant, grant.epoch), None).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_schedulers_share_a_store() {
    let store = store().await;
    for node in 0..3 {
        put_node(store.as_ref(), &format!("n{node}"), 4).await;
    }
    let mut watch = watch_grants(store.as_ref()).await;
    let (one, to_one) = launch(&store, 1);
    let (two, to_two) = launch(&store, 2);
    let mut left = BTreeMap::new();
    for tenant in 0..4 {
        let name = format!("t{tenant}");
        put_tenant(store.as_ref(), &name, Some(5)).await;
        left.insert(name, 60);
    }
    for demand in [&to_one, &to_two] {
        let all = left.iter().map(|(tenant, &slots)| wants(tenant, 1, slots, 0)).collect();
        demand.send(told(all)).await.unwrap();
    }
    drain(store.as_ref(), &mut watch, &[to_one, to_two], left).await;
    one.check();
    two.check();
}
