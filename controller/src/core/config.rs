//! The numbers of the controller's core, all times in milliseconds.

use super::preempt::Rules;
use std::collections::BTreeMap;

/// See the fields; `Config::default()` is what DESIGN.md section 3 says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Of the jitter. The same seed and the same events give the same rows.
    pub seed: u64,
    /// How often an agent is to be heard.
    pub heartbeat_ms: u64,
    /// The promise to a node: so long after an answer its tasks are its own.
    pub lease_ttl_ms: u64,
    /// Added to the lease before what it covered is given to others.
    pub lease_margin_ms: u64,
    /// A node unheard for so long is suspect.
    pub suspect_after_ms: u64,
    /// A node unheard for so long is lost.
    pub lost_after_ms: u64,
    /// Nodes lost within this window count together for the brake.
    pub brake_window_ms: u64,
    /// The longest time without verdicts once the brake is pulled.
    pub brake_ms_max: u64,
    /// A pause between two steps longer than this means that the judge itself
    /// was absent, and pulls the brake.
    pub tick_gap_ms_max: u64,
    /// While there are nodes the core wants to be stepped this often.
    pub tick_ms: u64,
    /// Own failures of a task that are followed by another try, where its step
    /// says nothing.
    pub retries: u32,
    /// Back-off after the first own failure; doubles.
    pub own_backoff_ms: u64,
    /// The longest back-off before jitter.
    pub backoff_ms_max: u64,
    /// Platform failures of a task that are followed by another try.
    pub platform_retries: u32,
    /// Back-off after the first platform failure; doubles.
    pub platform_backoff_ms: u64,
    /// Back-offs are spread by so many percent either way.
    pub jitter_percent: u64,
    /// How long a task waits that an agent sent back unstarted.
    pub returned_backoff_ms: u64,
    /// Retries a tenant may have at once.
    pub tenant_retry_burst: u64,
    /// Retries a tenant gets per second beyond that.
    pub tenant_retries_per_s: u64,
    /// The same for the whole cluster.
    pub cluster_retry_burst: u64,
    /// The same for the whole cluster.
    pub cluster_retries_per_s: u64,
    /// Work queued at an agent beyond its slots, as time.
    pub queue_ahead_ms: u64,
    /// Tasks queued at an agent beyond each slot at most.
    pub queue_ahead_max: u64,
    /// The longest a grant is fed, whatever its row says.
    pub feed_ms_max: u64,
    /// Between TERM and KILL.
    pub stop_grace_ms: u64,
    /// A Stop that has not led to an end is sent again after this.
    pub stop_resend_ms: u64,
    /// So many launches in a row that fail make a node drain itself …
    pub flaky_streak: u32,
    /// … if they came from at least so many jobs (1 or 2).
    pub flaky_jobs: u32,
    /// First port that a gang's master may listen on.
    pub gang_port_first: u32,
    /// Number of such ports.
    pub gang_ports: u32,
    /// Pools in which work gives way to work of higher priority.
    pub preemption: BTreeMap<String, Rules>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            seed: 0,
            heartbeat_ms: 5_000,
            lease_ttl_ms: 30_000,
            lease_margin_ms: 1_000,
            suspect_after_ms: 7_500,
            lost_after_ms: 12_500,
            brake_window_ms: 10_000,
            brake_ms_max: 60_000,
            tick_gap_ms_max: 5_000,
            tick_ms: 1_000,
            retries: 3,
            own_backoff_ms: 1_000,
            backoff_ms_max: 300_000,
            platform_retries: 3,
            platform_backoff_ms: 5_000,
            jitter_percent: 20,
            returned_backoff_ms: 1_000,
            tenant_retry_burst: 200,
            tenant_retries_per_s: 20,
            cluster_retry_burst: 1_000,
            cluster_retries_per_s: 100,
            queue_ahead_ms: 200,
            queue_ahead_max: 256,
            feed_ms_max: 10_000,
            stop_grace_ms: 5_000,
            stop_resend_ms: 10_000,
            flaky_streak: 10,
            flaky_jobs: 2,
            gang_port_first: 20_000,
            gang_ports: 20_000,
            preemption: BTreeMap::new(),
        }
    }
}
