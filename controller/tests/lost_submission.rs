//! What a reign loses. Demand is told ahead of the commit it follows from: where that
//! commit is lost, what the next reign says must take it back, else a scheduler grants
//! for ever to a job that nobody knows. And one whose lease ends while it reads the rows
//! never begins.

mod model;

use async_trait::async_trait;
use controller::Config;
use controller::shell::{self, ControllerParts, ObjectIndex};
use model::{OpenDoor, specs};
use prost::Message as _;
use proto::v1::{Demand, DemandUpdate, TenantRow};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use store::{
    Commit, CommitError, Key, LeaseId, Page, RangeRequest, ReadError, RedbStore, Revision, Row, Store, Watch,
};
use world::NodeClock;
use world::sim::{HostileDisk, SkewedClock};
use world::sync::mpsc;
use world::time;

/// A store that loses the next commit once it is told to, or ends the lease that it
/// gave last as soon as rows are read.
#[derive(Debug)]
struct Losing {
    held: Arc<RedbStore>,
    loses: AtomicBool,
    ends: AtomicBool,
    leases: Mutex<Vec<LeaseId>>,
}

impl Losing {
    /// With a tenant and nothing else.
    async fn new(clock: &Arc<dyn NodeClock>) -> Self {
        let disk = HostileDisk::new(1).handle();
        let held = RedbStore::open(disk, "store.redb", Arc::clone(clock)).await.unwrap();
        let lab = TenantRow { name: "lab".to_owned(), ..TenantRow::default() };
        held.commit(Commit::new().put(proto::keys::tenant("lab"), lab.encode_to_vec())).await.unwrap();
        Self { held, loses: AtomicBool::new(false), ends: AtomicBool::new(false), leases: Mutex::default() }
    }
}

#[async_trait]
impl Store for Losing {
    async fn commit(&self, commit: Commit) -> Result<Revision, CommitError> {
        if self.loses.swap(false, Ordering::Relaxed) {
            return Err(CommitError::Indeterminate("its answer was lost".to_owned()));
        }
        self.held.commit(commit).await
    }
    async fn range(&self, request: RangeRequest) -> Result<Page, ReadError> {
        if self.ends.swap(false, Ordering::Relaxed) {
            let lease = *self.leases.lock().unwrap().last().unwrap();
            self.held.revoke(lease).await.unwrap();
        }
        self.held.range(request).await
    }
    async fn get(&self, key: Key) -> Result<Option<Row>, ReadError> {
        self.held.get(key).await
    }
    async fn watch(&self, prefix: Key) -> Result<Watch, ReadError> {
        self.held.watch(prefix).await
    }
    async fn lease(&self, owner: &str, ttl_ms: u64) -> Result<LeaseId, CommitError> {
        let lease = self.held.lease(owner, ttl_ms).await?;
        self.leases.lock().unwrap().push(lease);
        Ok(lease)
    }
    async fn keep(&self, lease: LeaseId) -> Result<(), CommitError> {
        self.held.keep(lease).await
    }
    async fn revoke(&self, lease: LeaseId) -> Result<(), CommitError> {
        self.held.revoke(lease).await
    }
}

struct Nothing;

#[async_trait]
impl ObjectIndex for Nothing {
    async fn has(&self, _: &str, _: &str, _: u64) -> bool {
        false
    }

    fn using(&self) -> Arc<()> {
        Arc::default()
    }

    async fn release(&self, _: &str, _: Vec<String>) {}
}

/// What a scheduler knows: by the name under which it was told, and the job.
#[derive(Default)]
struct Told(BTreeMap<(String, u64), Demand>);

impl Told {
    /// The next update, taken as a scheduler takes it; true where it began anew.
    async fn next(&mut self, updates: &mut mpsc::Receiver<DemandUpdate>) -> bool {
        let update = time::timeout(time::ms(20_000), updates.recv()).await.unwrap().unwrap();
        if update.snapshot {
            self.0.retain(|(controller, _), _| *controller != update.controller);
        }
        for demand in update.changed {
            let job = demand.key.as_ref().unwrap().job_number;
            self.0.insert((update.controller.clone(), job), demand);
        }
        for gone in update.gone {
            self.0.remove(&(update.controller.clone(), gone.job_number));
        }
        update.snapshot
    }
}

fn parts(store: &Arc<Losing>, clock: Arc<dyn NodeClock>, shared: bool) -> ControllerParts {
    ControllerParts {
        store: Arc::clone(store) as Arc<dyn Store>,
        clock,
        config: Config::default(),
        admission: Arc::new(OpenDoor),
        objects: Arc::new(Nothing),
        name: "controller".to_owned(),
        shared,
    }
}

#[tokio::test]
async fn what_a_lost_submission_wanted_is_taken_back_by_the_next_reign() {
    let clock = SkewedClock::pair(1_700_000_000_000).0 as Arc<dyn NodeClock>;
    let losing = Arc::new(Losing::new(&clock).await);
    let (handle, mut updates) = shell::start(parts(&losing, clock, false)).await.unwrap();
    let mut told = Told::default();
    assert!(told.next(&mut updates).await && told.0.is_empty(), "the first reign begins with nothing");

    losing.loses.store(true, Ordering::Relaxed);
    let spec = specs::job(vec![specs::step("one")]);
    let submitted = handle.submit("lab", "tests", spec.clone(), "", false).await;
    assert!(submitted.is_err(), "{submitted:?}");
    assert!(!told.next(&mut updates).await);
    assert_eq!(told.0.len(), 1, "demand does not wait for its commit");
    while !told.next(&mut updates).await {}
    assert!(told.0.is_empty(), "{:?} is wanted by nobody", told.0.keys());

    // The next job has the number of the lost one, and its own demand.
    let reply = handle.submit("lab", "tests", spec, "", false).await.unwrap();
    assert_eq!(reply.number, 1);
    told.next(&mut updates).await;
    assert_eq!(told.0.len(), 1);
}

#[tokio::test]
async fn who_loses_the_shards_while_reading_the_rows_does_not_begin() {
    let clock = SkewedClock::pair(1_700_000_000_000).0 as Arc<dyn NodeClock>;
    let losing = Arc::new(Losing::new(&clock).await);
    losing.ends.store(true, Ordering::Relaxed);
    let (handle, _updates) = shell::start(parts(&losing, clock, true)).await.unwrap();
    assert_eq!(losing.leases.lock().unwrap().len(), 2, "the first reign began on rows of several moments");
    handle.submit("lab", "tests", specs::job(vec![specs::step("one")]), "", false).await.unwrap();
}
