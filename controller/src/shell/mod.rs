//! The controller's shell: the one place where its core meets time, the store
//! and the network.
//!
//! The contract that makes a crash at any instant harmless, and the only order
//! in which anything happens here: **receive, step, persist, then send**. The
//! core turns an event into rows and effects; the rows are committed; only when
//! the commit is durable are the effects performed, in the order of the events.
//! The core's memory is ahead of the store meanwhile, which nobody can see.
//! Demand alone goes to the schedulers ahead of its commit: see [`crate::Txn`].
//!
//! Commits are chained: each guards on the exact bytes of the shard rows it
//! touches and puts the next ones. So they can be sent ahead without waiting,
//! and when one fails all later ones of its shards fail. Then the controller
//! abdicates: it drops the core and every open session, reads the rows again
//! and goes on. What was not acknowledged may have happened or not, as after a
//! crash.
//!
//! Where the store is shared with other servers ([`ControllerParts::shared`]) two
//! things are added. What has nothing to persist **asks before it sends**: a commit
//! of guards alone, in its place in the chain, says that the shards were still ours
//! after the event came. So whoever stood still while another took over says nothing
//! more, not even the answer to a heartbeat, which would renew a lease. And the first
//! reign is the last: its end is the controller's, and its server stands by again.

mod calls;
mod chain;
mod expiry;
mod load;
mod reign;
mod sessions;

pub use calls::{Handle, ProgressOf, StartError, StragglersOf, Told};

use crate::core::{Admission, Config};
use async_trait::async_trait;
use proto::v1::DemandUpdate;
use std::sync::Arc;
use store::Store;
use world::NodeClock;
use world::sync::mpsc;

/// Numbers of the shell.
pub mod limits {
    /// Events waiting for the core; a further one waits.
    pub const EVENTS_WAITING: usize = 4096;
    /// Words of objects that no row names any more; further ones stay where they are.
    pub const RELEASES_WAITING: usize = 4096;
    /// Events stepped in one turn.
    pub const EVENTS_PER_TURN: usize = 256;
    /// How long heartbeats and the news that tasks have started may wait for other
    /// news: a quarter of what progress may take to be seen.
    pub const START_GATHER_MS: u64 = 50;
    /// The same for what they came to: much less than a task that is not short
    /// runs. For short ones agents hold a queue of a fifth of a second.
    pub const END_GATHER_MS: u64 = 10;
    /// Commits on their way to the store.
    pub const COMMITS_IN_FLIGHT: usize = 32;
    /// Likewise to a store that is shared. They go one at a time there, each as long as
    /// the way to it and back; so what was decided ahead would be old when it arrives.
    /// What waits instead shares the next commit.
    pub const COMMITS_IN_FLIGHT_SHARED: usize = 2;
    /// Frames waiting for one agent; an agent that is further behind loses its
    /// session and starts a new one.
    pub const FRAMES_PER_AGENT: usize = 4096;
    /// Demand updates on their way to the scheduler; more are merged.
    pub const DEMAND_UPDATES: usize = 64;
    /// How long a caller waits for an answer.
    pub const CALL_DEADLINE_MS: u64 = 30_000;
    /// How long who lists tasks or jobs waits to hear how far they have come.
    pub const PROGRESS_DEADLINE_MS: u64 = 1_000;
    /// Waits before a submission is looked at again that named a job just ending.
    pub const ENDING_WAITS_MS: [u64; 4] = [20, 100, 500, 2_000];
    /// TTL of the shards' lease; kept at a third of it.
    pub const SHARD_LEASE_MS: u64 = 10_000;
    /// Between two tries to take over after a failure.
    pub const TAKE_OVER_PAUSE_MS: u64 = 200;
    /// Between two looks at shards that another server holds.
    pub const STANDBY_LOOK_MS: u64 = 500;
    /// How long the end of a reign may wait for the store to hear of it.
    pub const FAREWELL_MS: u64 = 1_000;
    /// Where cores are checked, every step is checked where it has been, and
    /// everything each time after so many steps.
    pub const CHECK_ALL_STEPS: u64 = 256;
    /// Rows read at once while loading.
    pub const LOAD_PAGE: usize = 1000;
}

/// Tells whether an object's bytes are in place.
#[async_trait]
pub trait ObjectIndex: Send + Sync + 'static {
    /// True where the tenant's namespace holds these bytes, whole and durable.
    async fn has(&self, tenant: &str, digest: &str, size_bytes: u64) -> bool;
    /// Held from the question whether an object is there until what comes of the answer is
    /// with the controller: as long nothing is taken away for want of a row.
    fn using(&self) -> Arc<()>;
    /// Takes away what no row names any more, as far as that can be done.
    async fn release(&self, space: &str, digests: Vec<String>);
}

/// What a controller is made of.
pub struct ControllerParts {
    /// The rows.
    pub store: Arc<dyn Store>,
    /// This node's clock.
    pub clock: Arc<dyn NodeClock>,
    /// Numbers of the core.
    pub config: Config,
    /// Who decides on admission.
    pub admission: Arc<dyn Admission>,
    /// Where outputs must be before a task counts as done.
    pub objects: Arc<dyn ObjectIndex>,
    /// Begins the owner's name in the shard rows.
    pub name: String,
    /// Other servers take the shards of this store too; see the module.
    pub shared: bool,
}

/// Starts a controller: takes the shards, loads the rows, serves until the
/// store is gone for good or all handles are dropped.
///
/// # Errors
/// Where the store cannot be read at all.
pub async fn start(parts: ControllerParts) -> Result<(Handle, mpsc::Receiver<DemandUpdate>), StartError> {
    let (inputs_out, inputs) = mpsc::channel(limits::EVENTS_WAITING);
    let (demand_out, demand) = mpsc::channel(limits::DEMAND_UPDATES);
    let view = Arc::new(calls::View::default());
    let handle =
        Handle::new(inputs_out, Arc::clone(&parts.store), Arc::clone(&parts.objects), Arc::clone(&view));
    let (first, ready) = world::sync::oneshot::channel();
    world::task::spawn(reign::reign_for_ever(parts, inputs, demand_out, view, first));
    ready.await.unwrap_or_else(|_| Err(StartError("the controller ended while it started".into())))?;
    Ok((handle, demand))
}
