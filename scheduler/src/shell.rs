//! The scheduler's shell: follows rows and demand, commits proposals, tells
//! the core what became of them.
//!
//! Nothing here waits for a timer between a demand and its commit: each event
//! is followed by a pass, after whatever else has arrived with it. Proposals of
//! one pass touch different rows and are committed at the same time; their
//! effects (tasks that start) follow from the rows alone, so there is nothing to
//! send after persisting.
//!
//! The core is behind a lock for those who ask it questions; the lock is never
//! held across a wait.

use crate::amount::Amount;
use crate::core::{Alloc, AllocOf, Config, Core, Event, Growing, Outcome, Proposal, ProposalId, Snapshot};
use crate::eta::Profile;
use crate::feasible::feasible_among;
use crate::limits::{
    CHECKED_PER_PASS, COMMIT_DEADLINE_MS, EVENTS_PER_PASS_MAX, READ_DEADLINE_MS, RETRY_PAUSE_MS,
};
use crate::signs::{BudgetSign, HeadSign, NodeSign, PoolSign};
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use prost::Message;
use proto::keys::{self, Parsed};
use proto::v1::{
    AllocRow, DemandKey, DemandUpdate, GrantRow, JobSpec, LicenseView, NodeRow, PoolsReply, Problem,
    TenantRow, WhyReply,
};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use store::limits::RANGE_ROWS_MAX;
use store::{CommitError, Notice, RangeRequest, ReadError, Revision, Row, Store, Watch};
use world::NodeClock;
use world::sync::{mpsc, watch};
use world::{task, time};

/// Asks and stops a running scheduler. It ends when its last handle is dropped,
/// or when nobody is left who could tell it demand.
#[derive(Clone, Debug)]
pub struct Handle {
    inner: Arc<Inner>,
}

/// What became of the proposals of a scheduler so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Proposals {
    /// Each is a commit of one or more grants.
    pub committed: u64,
    /// Another scheduler (or the controller) was faster at one of its rows.
    pub conflicts: u64,
    /// The store failed, or nobody knows.
    pub failed: u64,
}

impl Proposals {
    fn count(&mut self, outcome: &Outcome) {
        let counter = match outcome {
            Outcome::Committed(_) => &mut self.committed,
            Outcome::Conflict { .. } => &mut self.conflicts,
            Outcome::Indeterminate | Outcome::Failed => &mut self.failed,
        };
        *counter += 1;
    }
}

#[derive(Debug)]
struct Inner {
    core: Arc<Mutex<Core>>,
    proposals: Arc<Mutex<Proposals>>,
    clock: Arc<dyn NodeClock>,
    stop: watch::Sender<bool>,
    ended: watch::Receiver<()>,
}

impl Handle {
    /// Why a step waits.
    #[must_use]
    pub fn explain(&self, key: &DemandKey) -> WhyReply {
        let now = self.inner.clock.now();
        lock(&self.inner.core).explain(key, now)
    }

    /// Steps that wait: of each tenant so many, those of its earliest jobs.
    #[must_use]
    pub fn waiting(&self, of_each: usize) -> Vec<DemandKey> {
        lock(&self.inner.core).waiting(of_each)
    }

    /// Pools with capacity and queue.
    #[must_use]
    pub fn pools(&self) -> PoolsReply {
        lock(&self.inner.core).pools()
    }

    /// Pools as a replay of their queues wants them; see [`crate::eta`].
    #[must_use]
    pub fn profiles(&self) -> BTreeMap<String, Profile> {
        lock(&self.inner.core).profiles()
    }

    /// Refuses what no pool could ever hold, nor these nodes, which may come.
    pub fn feasible(&self, spec: &JobSpec, may_come: &[NodeRow]) -> Result<(), Problem> {
        let core = lock(&self.inner.core);
        let is_known = core.node_rows().next().is_some();
        feasible_among(core.node_rows().chain(may_come.iter().filter(|_| is_known)), spec)
    }

    /// Refuses whole nodes that a tenant may never have: see [`Core::whole_nodes`].
    pub fn whole_nodes(&self, tenant: &str, spec: &JobSpec, may_come: &[NodeRow]) -> Result<(), Problem> {
        lock(&self.inner.core).whole_nodes(tenant, spec, may_come)
    }

    /// What a tenant's grants hold.
    #[must_use]
    pub fn held(&self, tenant: &str) -> Amount {
        lock(&self.inner.core).held(tenant)
    }

    /// How many there are of each license, and how many are held.
    #[must_use]
    pub fn licenses(&self) -> Vec<LicenseView> {
        lock(&self.inner.core).license_views()
    }

    /// What is taken on each node, and by how many grants.
    #[must_use]
    pub fn node_use(&self) -> BTreeMap<String, (Amount, u32)> {
        lock(&self.inner.core).node_use()
    }

    /// What operators are warned by: see [`Core::node_signs`].
    #[must_use]
    pub fn node_signs(&self) -> Vec<NodeSign> {
        lock(&self.inner.core).node_signs()
    }

    /// Likewise [`Core::pool_signs`].
    #[must_use]
    pub fn pool_signs(&self) -> Vec<PoolSign> {
        lock(&self.inner.core).pool_signs()
    }

    /// Likewise [`Core::head_signs`].
    #[must_use]
    pub fn head_signs(&self) -> Vec<HeadSign> {
        let now = self.inner.clock.now();
        lock(&self.inner.core).head_signs(now)
    }

    /// Likewise [`Core::budget_signs`].
    #[must_use]
    pub fn budget_signs(&self) -> Vec<BudgetSign> {
        lock(&self.inner.core).budget_signs()
    }

    /// How many further nodes would be of use: see [`Core::growth`].
    #[must_use]
    pub fn growth(&self, pools: &[Growing]) -> Vec<u64> {
        lock(&self.inner.core).growth(pools)
    }

    /// What became of its proposals.
    #[must_use]
    pub fn proposals(&self) -> Proposals {
        *self.inner.proposals.lock().expect("no holder of this lock panics")
    }

    /// Panics where an invariant of the core is broken.
    pub fn check(&self) {
        lock(&self.inner.core).check();
    }

    /// Ends it. What is being committed may still happen.
    pub fn stop(&self) {
        self.inner.stop.send_replace(true);
    }

    /// Returns when it has ended, however.
    pub async fn ended(&self) {
        let mut ended = self.inner.ended.clone();
        while ended.changed().await.is_ok() {}
    }
}

fn lock(core: &Mutex<Core>) -> MutexGuard<'_, Core> {
    core.lock().expect("the scheduler's core broke an invariant and is gone")
}

/// Starts a scheduler on the current node.
pub fn start(
    store: Arc<dyn Store>,
    clock: Arc<dyn NodeClock>,
    config: Config,
    demand: mpsc::Receiver<DemandUpdate>,
) -> Handle {
    let core = Arc::new(Mutex::new(Core::new(config)));
    let proposals = Arc::new(Mutex::new(Proposals::default()));
    let (stop, stopped) = watch::channel(false);
    let (ending, ended) = watch::channel(());
    let shell = Shell {
        store,
        clock: Arc::clone(&clock),
        core: Arc::clone(&core),
        proposals: Arc::clone(&proposals),
        demand,
        stopped,
        commits: FuturesUnordered::new(),
        passes_unchecked: 0,
        alarm: time::Alarm::default(),
    };
    task::spawn(async move {
        // Dropped at the end or in a panic: either way `ended` is told.
        let _ending = ending;
        shell.run().await;
    });
    Handle { inner: Arc::new(Inner { core, proposals, clock, stop, ended }) }
}

/// The watches, opened before anything is read.
#[derive(Debug)]
struct Watches {
    grants: Watch,
    nodes: Watch,
    tenants: Watch,
}

/// Why following ended.
#[derive(Debug, PartialEq, Eq)]
enum Ended {
    /// For good.
    Stopped,
    /// A watch lagged, or news stayed out.
    Reread,
}

type Committing = BoxFuture<'static, (ProposalId, Outcome)>;

struct Shell {
    store: Arc<dyn Store>,
    clock: Arc<dyn NodeClock>,
    core: Arc<Mutex<Core>>,
    proposals: Arc<Mutex<Proposals>>,
    demand: mpsc::Receiver<DemandUpdate>,
    stopped: watch::Receiver<bool>,
    commits: FuturesUnordered<Committing>,
    passes_unchecked: usize,
    /// For the core's next wakeup.
    alarm: time::Alarm,
}

impl Shell {
    async fn run(mut self) {
        loop {
            let Some(mut watches) = self.read().await else { return };
            if self.follow(&mut watches).await == Ended::Stopped {
                return;
            }
        }
    }

    /// Opens the watches and reads all, until it succeeds; `None` when stopped.
    /// Demand and outcomes are taken in meanwhile.
    async fn read(&mut self) -> Option<Watches> {
        let store = Arc::clone(&self.store);
        let mut reading = read_until_done(store).boxed();
        loop {
            world::select! {
                biased;
                stop = self.stopped.changed() => if stop.is_err() || *self.stopped.borrow() { return None },
                (watches, snapshot) = &mut reading => {
                    self.step(Event::Reread(Box::new(snapshot)));
                    return Some(watches);
                }
                Some((proposal, outcome)) = self.commits.next() => {
                    self.outcome(proposal, outcome);
                }
                update = self.demand.recv() => self.step(Event::Demand(update?)),
            }
        }
    }

    /// Steps and plans until stopped or a re-read is due.
    async fn follow(&mut self, watches: &mut Watches) -> Ended {
        loop {
            if let Some(ended) = self.take_what_is_there(watches) {
                return ended;
            }
            let wakeup_ms = self.plan();
            let pause = wakeup_ms.map(|ms| ms.saturating_sub(self.clock.monotonic_ms()).max(1));
            let known = world::select! {
                biased;
                stop = self.stopped.changed() => {
                    if stop.is_err() || *self.stopped.borrow() { return Ended::Stopped }
                    true
                }
                Some((proposal, outcome)) = self.commits.next() => {
                    self.outcome(proposal, outcome);
                    true
                }
                notice = watches.grants.notices.recv() => self.notice(notice),
                notice = watches.nodes.notices.recv() => self.notice(notice),
                notice = watches.tenants.notices.recv() => self.notice(notice),
                update = self.demand.recv() => {
                    let Some(update) = update else { return Ended::Stopped };
                    self.step(Event::Demand(update));
                    true
                }
                () = self.alarm.after(time::ms(pause.unwrap_or(0))), if pause.is_some() => true,
            };
            if !known || lock(&self.core).take_reread() {
                return Ended::Reread;
            }
        }
    }

    /// All events that have arrived together, before one pass over them.
    fn take_what_is_there(&mut self, watches: &mut Watches) -> Option<Ended> {
        for _ in 0..EVENTS_PER_PASS_MAX {
            let mut idle = true;
            for notices in [&mut watches.grants, &mut watches.nodes, &mut watches.tenants] {
                if let Ok(notice) = notices.notices.try_recv() {
                    idle = false;
                    if !self.notice(Some(notice)) {
                        return Some(Ended::Reread);
                    }
                }
            }
            if let Some(Some((proposal, outcome))) = self.commits.next().now_or_never() {
                idle = false;
                self.outcome(proposal, outcome);
            }
            if let Ok(update) = self.demand.try_recv() {
                idle = false;
                self.step(Event::Demand(update));
            }
            if idle {
                break;
            }
        }
        None
    }

    fn outcome(&self, proposal: ProposalId, outcome: Outcome) {
        self.proposals.lock().expect("no holder of this lock panics").count(&outcome);
        self.step(Event::Outcome { proposal, outcome });
    }

    fn step(&self, event: Event) {
        let now = self.clock.now();
        lock(&self.core).step(now, event);
    }

    /// Takes a watch's notice in; false when it is over.
    fn notice(&self, notice: Option<Notice>) -> bool {
        let Some(Notice::Changed { revision, changes }) = notice else { return false };
        let now = self.clock.now();
        let mut core = lock(&self.core);
        for (key, value) in changes {
            if let Some(event) = event_of(&key, value, revision) {
                core.step(now, event);
            }
        }
        true
    }

    /// One pass; its proposals go to the store. Returns the next wakeup.
    fn plan(&mut self) -> Option<u64> {
        let now = self.clock.now();
        let mut core = lock(&self.core);
        let proposals = core.plan(now);
        let wakeup_ms = core.next_wakeup_ms();
        if world::CHECKED {
            // A check looks at all there is: the more that is, the rarer.
            self.passes_unchecked += 1;
            if self.passes_unchecked * CHECKED_PER_PASS >= core.size() {
                core.check();
                self.passes_unchecked = 0;
            }
        }
        drop(core);
        for proposal in proposals {
            self.commits.push(commit(Arc::clone(&self.store), proposal).boxed());
        }
        wakeup_ms
    }
}

async fn commit(store: Arc<dyn Store>, proposal: Proposal) -> (ProposalId, Outcome) {
    let deadline = time::ms(COMMIT_DEADLINE_MS);
    let outcome = match time::timeout(deadline, store.commit(proposal.commit)).await {
        Ok(Ok(revision)) => Outcome::Committed(revision),
        Ok(Err(CommitError::Conflict { key, found })) => Outcome::Conflict { key, found },
        Ok(Err(CommitError::Indeterminate(why))) => {
            tracing::warn!(proposal = proposal.id, why, "a grant may have been written or not");
            Outcome::Indeterminate
        }
        Ok(Err(error)) => {
            tracing::warn!(proposal = proposal.id, %error, "a grant was not written");
            Outcome::Failed
        }
        Err(_) => {
            tracing::warn!(proposal = proposal.id, "the store did not answer about a grant");
            Outcome::Indeterminate
        }
    };
    (proposal.id, outcome)
}

async fn read_until_done(store: Arc<dyn Store>) -> (Watches, Snapshot) {
    loop {
        match time::timeout(time::ms(READ_DEADLINE_MS), read_all(store.as_ref())).await {
            Ok(Ok(read)) => return read,
            Ok(Err(error)) => tracing::warn!(%error, "the scheduler cannot read the rows yet"),
            Err(_) => tracing::warn!("the store did not answer the scheduler's reading"),
        }
        time::sleep(time::ms(RETRY_PAUSE_MS)).await;
    }
}

/// Watches first, then alloc rows, then grants: see [`Snapshot`].
async fn read_all(store: &dyn Store) -> Result<(Watches, Snapshot), ReadError> {
    let watches = Watches {
        grants: store.watch(Bytes::from_static(keys::GRANTS.as_bytes())).await?,
        nodes: store.watch(Bytes::from_static(keys::NODES.as_bytes())).await?,
        tenants: store.watch(Bytes::from_static(keys::TENANTS.as_bytes())).await?,
    };
    let mut snapshot = Snapshot { revision: watches.grants.revision, ..Snapshot::default() };
    for row in rows_below(store, keys::ALLOCS).await? {
        let of = match keys::parse(&row.key) {
            Some(Parsed::AllocNode { node }) => AllocOf::Node(node),
            Some(Parsed::AllocTenant { tenant }) => AllocOf::Tenant(tenant),
            Some(Parsed::AllocLicense { license }) => AllocOf::License(license),
            _ => continue,
        };
        if let Some(AllocRow { epoch }) = decode(&row.key, &row.value) {
            snapshot.allocs.push(Alloc { of, epoch, version: row.version });
        }
    }
    for row in rows_below(store, keys::GRANTS).await? {
        snapshot.grants.extend(decode::<GrantRow>(&row.key, &row.value).map(|grant| (grant, row.version)));
    }
    for row in rows_below(store, keys::NODES).await? {
        snapshot.nodes.extend(decode::<NodeRow>(&row.key, &row.value));
    }
    for row in rows_below(store, keys::TENANTS).await? {
        snapshot.tenants.extend(decode::<TenantRow>(&row.key, &row.value));
    }
    Ok((watches, snapshot))
}

async fn rows_below(store: &dyn Store, prefix: &'static str) -> Result<Vec<Row>, ReadError> {
    let mut rows: Vec<Row> = Vec::new();
    let mut from = Bytes::from_static(prefix.as_bytes());
    let to = keys::prefix_end(prefix.as_bytes());
    loop {
        let request =
            RangeRequest { from: from.clone(), to: to.clone(), limit: RANGE_ROWS_MAX, backwards: false };
        let page = store.range(request).await?;
        rows.extend(page.rows);
        match rows.last() {
            Some(last) if page.more => from = keys::after(&last.key),
            _ => return Ok(rows),
        }
    }
}

/// What a changed row means to the core.
fn event_of(key: &[u8], value: Option<Bytes>, revision: Revision) -> Option<Event> {
    match (keys::parse(key)?, value) {
        (Parsed::Grant { .. }, Some(value)) => {
            decode(key, &value).map(|row| Event::Granted { row, revision })
        }
        (Parsed::Grant { tenant, epoch }, None) => Some(Event::Released { tenant, epoch, revision }),
        (Parsed::Node { .. }, Some(value)) => decode(key, &value).map(Event::Node),
        (Parsed::Node { node }, None) => Some(Event::NodeGone(node)),
        (Parsed::Tenant { .. }, Some(value)) => decode(key, &value).map(Event::Tenant),
        (Parsed::Tenant { tenant }, None) => Some(Event::TenantGone(tenant)),
        _ => None,
    }
}

fn decode<M: Message + Default>(key: &[u8], value: &[u8]) -> Option<M> {
    M::decode(value)
        .inspect_err(|error| {
            tracing::error!(key = %String::from_utf8_lossy(key), %error, "a row cannot be read");
        })
        .ok()
}
