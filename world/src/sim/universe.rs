//! Whole clusters in one thread: nodes that are killed, paused, cut off, all
//! of it decided by one seed.
//!
//! A thin face over madsim, so that the simulator itself needs no `cfg`. Built
//! without `--cfg madsim` there is nothing to run on: [`run`] says so.

use std::future::Future;
use std::net::IpAddr;
use std::ops::Range;
use std::time::Duration;

/// This build cannot simulate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotSimulated;

impl std::fmt::Display for NotSimulated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("built without --cfg madsim, nothing can be simulated; use `cargo chaos`")
    }
}
impl std::error::Error for NotSimulated {}

/// How the network behaves when nothing is broken on purpose.
#[derive(Clone, Debug, PartialEq)]
pub struct Net {
    /// Of each message, drawn evenly.
    pub latency: Range<Duration>,
    /// Chance that a message must be sent again (streams) or a connection is
    /// refused.
    pub loss: f64,
}

impl Default for Net {
    fn default() -> Self {
        Self { latency: Duration::from_micros(100)..Duration::from_millis(2), loss: 0.0 }
    }
}

/// Names a node of the simulation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeId(pub u64);

#[cfg(madsim)]
pub use simulated::{
    clog, create_node, elapsed, expect_half_open, kill, messages, pause, restart, resume, run, set_disk_lag,
    set_disk_pace, set_link_lag, set_net, spawn_on, strike_half_open, unclog,
};
#[cfg(madsim)]
pub(crate) use simulated::{disk_lag_us, disk_pace_us, half_open, link_lag};

#[cfg(not(madsim))]
pub use absent::{
    clog, create_node, elapsed, expect_half_open, kill, messages, pause, restart, resume, run, set_disk_lag,
    set_disk_pace, set_link_lag, set_net, spawn_on, strike_half_open, unclog,
};

#[cfg(madsim)]
mod simulated {
    use super::{Duration, Future, IpAddr, Net, NodeId, NotSimulated};
    use madsim::net::NetSim;
    use madsim::runtime::{Handle, Runtime};
    use std::cell::RefCell;
    use std::collections::BTreeMap;
    use tokio::sync::oneshot;

    /// Streams that may lose their other side, by peer; `None` where none ever does.
    type HalfOpen = Option<BTreeMap<IpAddr, Vec<oneshot::Sender<()>>>>;

    /// Of the simulation's thread: as much as a main thread has.
    const STACK_BYTES: usize = 8 << 20;

    thread_local! {
        /// madsim's own ids, which have no public constructor.
        static NODES: RefCell<BTreeMap<u64, madsim::task::NodeId>> = const { RefCell::new(BTreeMap::new()) };
        /// What each disk takes at most where nothing slows it.
        static PACES: RefCell<BTreeMap<madsim::task::NodeId, u64>> = const { RefCell::new(BTreeMap::new()) };
        /// Disks that are slow, with the most that each request waits twice.
        static LAGS: RefCell<BTreeMap<madsim::task::NodeId, u64>> = const { RefCell::new(BTreeMap::new()) };
        /// Slow links, by peer.
        static LINKS: RefCell<BTreeMap<IpAddr, Duration>> = const { RefCell::new(BTreeMap::new()) };
        static HALF_OPEN: RefCell<HalfOpen> = const { RefCell::new(None) };
    }

    fn id_of(node: NodeId) -> madsim::task::NodeId {
        NODES.with_borrow(|nodes| *nodes.get(&node.0).expect("the node was created here"))
    }

    /// Runs a simulation to the end of `main`, or panics after `limit` of
    /// virtual time.
    ///
    /// In a thread of its own. The standard library draws the seed of its hash
    /// maps once a thread, tokio draws its own chance from that, and madsim can
    /// see to it only where nothing was hashed before: a caller that has read
    /// its command line or `RUST_LOG` may have.
    pub fn run<F: Future>(
        seed: u64,
        limit: Duration,
        main: impl FnOnce() -> F + Send,
    ) -> Result<F::Output, NotSimulated>
    where
        F::Output: Send,
    {
        let simulate = || {
            NODES.with_borrow_mut(BTreeMap::clear);
            LAGS.with_borrow_mut(BTreeMap::clear);
            PACES.with_borrow_mut(BTreeMap::clear);
            LINKS.with_borrow_mut(BTreeMap::clear);
            HALF_OPEN.with_borrow_mut(|streams| *streams = None);
            let mut runtime = Runtime::with_seed_and_config(seed, madsim::Config::default());
            runtime.set_time_limit(limit);
            runtime.block_on(main())
        };
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("simulation".to_owned()).stack_size(STACK_BYTES);
            let thread = thread.spawn_scoped(scope, simulate).expect("the machine has a thread left");
            thread.join().map_or_else(|panic| std::panic::resume_unwind(panic), Ok)
        })
    }

    /// Makes a node whose `init` runs at once and again at each restart.
    pub fn create_node<F>(name: &str, ip: IpAddr, init: impl Fn() -> F + Send + Sync + 'static) -> NodeId
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let node = Handle::current().create_node().name(name).ip(ip).init(init).build();
        NODES.with_borrow_mut(|nodes| {
            let id = NodeId(nodes.len() as u64);
            nodes.insert(id.0, node.id());
            id
        })
    }

    /// Starts a task on a living node.
    pub fn spawn_on<F>(node: NodeId, future: F) -> crate::task::JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        Handle::current().get_node(id_of(node)).expect("the node was created here").spawn(future)
    }

    /// All tasks of the node are dropped, its sockets are gone.
    pub fn kill(node: NodeId) {
        Handle::current().kill(id_of(node));
    }

    /// Runs the node's `init` again. Kill it first, and wait.
    pub fn restart(node: NodeId) {
        Handle::current().restart(id_of(node));
    }

    /// The node's tasks stand still.
    pub fn pause(node: NodeId) {
        Handle::current().pause(id_of(node));
    }

    /// The node's tasks go on.
    pub fn resume(node: NodeId) {
        Handle::current().resume(id_of(node));
    }

    /// Each request to the node's disk waits up to so long before it is done,
    /// and once more before it is answered; zero ends that.
    pub fn set_disk_lag(node: NodeId, lag: Duration) {
        let lag_us = u64::try_from(lag.as_micros()).expect("a lag is shorter than that");
        LAGS.with_borrow_mut(|lags| lags.insert(id_of(node), lag_us));
    }

    /// What the node's disk takes for a request where nothing slows it: up to so
    /// long, before it is done or before it is answered.
    pub fn set_disk_pace(node: NodeId, pace: Duration) {
        let pace_us = u64::try_from(pace.as_micros()).expect("a pace is shorter than that");
        PACES.with_borrow_mut(|paces| paces.insert(id_of(node), pace_us));
    }

    /// Of the node whose task runs.
    pub(crate) fn disk_pace_us() -> u64 {
        PACES.with_borrow(|paces| {
            if paces.is_empty() { 0 } else { paces.get(&madsim::plugin::node()).copied().unwrap_or(0) }
        })
    }

    /// Of the node whose task runs.
    pub(crate) fn disk_lag_us() -> u64 {
        LAGS.with_borrow(|lags| {
            if lags.is_empty() { 0 } else { lags.get(&madsim::plugin::node()).copied().unwrap_or(0) }
        })
    }

    /// Each message between a peer and whoever serves it takes so much longer, one
    /// after the other; zero ends that.
    pub fn set_link_lag(peer: IpAddr, lag: Duration) {
        LINKS.with_borrow_mut(
            |links| {
                if lag.is_zero() { links.remove(&peer) } else { links.insert(peer, lag) }
            },
        );
    }

    pub(crate) fn link_lag(peer: IpAddr) -> Option<Duration> {
        LINKS.with_borrow(|links| if links.is_empty() { None } else { links.get(&peer).copied() })
    }

    /// From now on it is known which streams are open, for [`strike_half_open`].
    pub fn expect_half_open() {
        HALF_OPEN.with_borrow_mut(|streams| *streams = Some(BTreeMap::new()));
    }

    /// Every open stream of a peer ends on its side, and whoever serves it is not
    /// told. How many there were.
    pub fn strike_half_open(peer: IpAddr) -> usize {
        let struck = HALF_OPEN.with_borrow_mut(|streams| streams.as_mut().and_then(|all| all.remove(&peer)));
        struck.map_or(0, |struck| struck.into_iter().filter_map(|stream| stream.send(()).ok()).count())
    }

    /// Told when a stream of this peer is struck so.
    pub(crate) fn half_open(peer: IpAddr) -> Option<oneshot::Receiver<()>> {
        HALF_OPEN.with_borrow_mut(|streams| {
            let of_peer = streams.as_mut()?.entry(peer).or_default();
            of_peer.retain(|stream| !stream.is_closed());
            let (struck, told) = oneshot::channel();
            of_peer.push(struck);
            Some(told)
        })
    }

    /// Messages from one node to another are held back.
    pub fn clog(from: NodeId, to: NodeId) {
        NetSim::current().clog_link(id_of(from), id_of(to));
    }

    /// They flow again.
    pub fn unclog(from: NodeId, to: NodeId) {
        NetSim::current().unclog_link(id_of(from), id_of(to));
    }

    /// Changes the weather for all links.
    pub fn set_net(net: &Net) {
        NetSim::current().update_config(|config| {
            config.packet_loss_rate = net.loss;
            config.send_latency = net.latency.clone();
        });
    }

    /// Messages sent so far.
    pub fn messages() -> u64 {
        NetSim::current().stat().msg_count
    }

    /// Virtual time since the start.
    pub fn elapsed() -> Duration {
        madsim::time::TimeHandle::current().elapsed()
    }
}

#[cfg(not(madsim))]
mod absent {
    //! Never reached: `run` refuses, and the rest needs a running simulation.
    use super::{Duration, Future, IpAddr, Net, NodeId, NotSimulated};

    pub fn run<F: Future>(
        _: u64,
        _: Duration,
        _: impl FnOnce() -> F + Send,
    ) -> Result<F::Output, NotSimulated>
    where
        F::Output: Send,
    {
        Err(NotSimulated)
    }
    pub fn create_node<F>(_: &str, _: IpAddr, _: impl Fn() -> F + Send + Sync + 'static) -> NodeId
    where
        F: Future<Output = ()> + Send + 'static,
    {
        unreachable!("{NotSimulated}")
    }
    pub fn spawn_on<F>(_: NodeId, _: F) -> crate::task::JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        unreachable!("{NotSimulated}")
    }
    pub fn kill(_: NodeId) {
        unreachable!("{NotSimulated}")
    }
    pub fn restart(_: NodeId) {
        unreachable!("{NotSimulated}")
    }
    pub fn pause(_: NodeId) {
        unreachable!("{NotSimulated}")
    }
    pub fn resume(_: NodeId) {
        unreachable!("{NotSimulated}")
    }
    pub fn set_disk_lag(_: NodeId, _: Duration) {
        unreachable!("{NotSimulated}")
    }
    pub fn set_disk_pace(_: NodeId, _: Duration) {
        unreachable!("{NotSimulated}")
    }
    pub fn set_link_lag(_: IpAddr, _: Duration) {
        unreachable!("{NotSimulated}")
    }
    pub fn expect_half_open() {
        unreachable!("{NotSimulated}")
    }
    pub fn strike_half_open(_: IpAddr) -> usize {
        unreachable!("{NotSimulated}")
    }
    pub fn clog(_: NodeId, _: NodeId) {
        unreachable!("{NotSimulated}")
    }
    pub fn unclog(_: NodeId, _: NodeId) {
        unreachable!("{NotSimulated}")
    }
    pub fn set_net(_: &Net) {
        unreachable!("{NotSimulated}")
    }
    pub fn messages() -> u64 {
        unreachable!("{NotSimulated}")
    }
    pub fn elapsed() -> Duration {
        unreachable!("{NotSimulated}")
    }
}
