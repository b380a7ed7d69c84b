//! What an agent is told at its start.

use proto::v1::Resources;
use std::collections::BTreeMap;

/// Who this agent is and how it behaves.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    /// Where the server listens, as [`world::grpc::connect`] takes it; where several share
    /// the work of one, all of them with commas between.
    pub server: String,
    /// The API token (role agent).
    pub token: String,
    /// This node's name.
    pub node: String,
    /// The pool it belongs to.
    pub pool: String,
    /// What constraints look at.
    pub labels: BTreeMap<String, String>,
    /// What it offers.
    pub capacity: Resources,
    /// Where ranks of a gang on other nodes reach this node.
    pub address: String,
    /// Where things lie below the disk's root.
    pub directories: Directories,
    /// How the lease is kept.
    pub margins: Margins,
    /// Environment every task starts from; the step's own comes over it.
    pub base_env: BTreeMap<String, String>,
    /// From TERM to KILL where a task ran past its timeout.
    pub stop_grace_ms: u64,
    /// Bytes of spool files above which those go that the server has. Where even the
    /// others are more the agent warns.
    pub spool_bytes_max: u64,
    /// Bytes kept for a server that cannot take them. Above that the oldest are given up of
    /// whoever has most, and the log says so in their place.
    pub spool_unshipped_bytes_max: u64,
    /// How often the logs of running tasks are looked at; where they do not
    /// grow, down to half as often.
    pub log_poll_ms: u64,
    /// Cached inputs above which the longest unused are dropped.
    pub cache_bytes_max: u64,
    /// How long [`crate::start`] waits for the first word of the server.
    pub first_contact_ms_max: u64,
    /// Open files a task may have; 0: the machine's own limit.
    pub task_open_files: u64,
    /// Bytes a second of all inputs that come and outputs that go, together; 0: no limit.
    pub staging_bytes_per_s: u64,
}

impl AgentConfig {
    /// Defaults for a node of this name.
    #[must_use]
    pub fn new(server: &str, token: &str, node: &str, capacity: Resources) -> Self {
        let path =
            ("PATH".to_owned(), "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned());
        Self {
            server: server.to_owned(),
            token: token.to_owned(),
            node: node.to_owned(),
            pool: "default".to_owned(),
            labels: BTreeMap::new(),
            capacity,
            address: "127.0.0.1".to_owned(),
            directories: Directories::default(),
            margins: Margins::default(),
            base_env: BTreeMap::from([path]),
            stop_grace_ms: 5_000,
            spool_bytes_max: 1 << 30,
            spool_unshipped_bytes_max: 8 << 30,
            log_poll_ms: 50,
            cache_bytes_max: 8 << 30,
            first_contact_ms_max: 10_000,
            task_open_files: 0,
            staging_bytes_per_s: 0,
        }
    }
}

/// Directories below the root of the agent's disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directories {
    /// One directory for each attempt.
    pub work: String,
    /// Standard output and error until the server has them.
    pub spool: String,
    /// Inputs by tenant and digest.
    pub cache: String,
}
impl Default for Directories {
    fn default() -> Self {
        Self { work: "work".to_owned(), spool: "spool".to_owned(), cache: "cache".to_owned() }
    }
}

/// How long before the server may give a lease to another node this one acts.
/// The gap to the end of the lease is what two clocks may drift apart in one
/// lease (10 % of 30 s) before a task could run twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Margins {
    /// TERM so long before the lease ends.
    pub term_before_ms: u64,
    /// KILL so long before the lease ends.
    pub kill_before_ms: u64,
    /// The lease's span until the server tells its own.
    pub lease_ttl_ms: u64,
}
impl Default for Margins {
    fn default() -> Self {
        Self { term_before_ms: 5_000, kill_before_ms: 3_000, lease_ttl_ms: 30_000 }
    }
}
