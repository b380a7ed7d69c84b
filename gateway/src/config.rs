//! A server's numbers, as its TOML file writes them. All have defaults; what is
//! not known is refused by name.

use crate::limits;
use crate::scaling::AutoscaleConfig;
use controller::core::PreemptionRules;
use proto::ids::{NameKind, check_name};
use proto::problem::Problem;
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;
use std::sync::Arc;
use world::grpc::Network;
use world::{Bucket, Program, Webhook};

/// See the fields. Data directory and address to listen on are not among them:
/// they come beside it, from whoever starts the server.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServerConfig {
    /// Where clients and agents reach this server, put before the paths of
    /// objects. Empty: the address by which each of them came.
    pub public_url: String,
    /// How long a signed URL is good.
    pub url_ttl_ms: u64,
    /// Memory for pages of the store.
    pub store_cache_bytes: usize,
    /// Read and check the whole store at every start, not only after a crash.
    pub store_verify: bool,
    /// How long open calls may go on once the server is to stop.
    pub stop_grace_ms: u64,
    /// Between two signs of life on a stream of events over HTTP.
    pub events_ping_ms: u64,
    /// Who takes nothing of such a stream for so long is told what it missed and
    /// let go. Below the 30 s after which a socket that takes nothing is cut off.
    pub events_slow_ms: u64,
    /// Retries, leases, heartbeats.
    #[serde(deserialize_with = "controller_numbers")]
    pub controller: controller::core::Config,
    /// Queues and placement.
    #[serde(deserialize_with = "scheduler_numbers")]
    pub scheduler: scheduler::core::Config,
    /// Of the cores' jitter where their own tables name none; the machine's
    /// randomness where this is not told either.
    #[serde(skip)]
    pub seed: Option<u64>,
    /// Where whole objects are kept, if not in the data directory.
    pub objects: ObjectsConfig,
    /// When logs are packed.
    pub logs: LogsConfig,
    /// What operators are warned of.
    pub alerts: AlertsConfig,
    /// What is to be said of pools, by name.
    pub pools: BTreeMap<String, PoolConfig>,
    /// How many there are of each license.
    pub licenses: BTreeMap<String, u32>,
    /// The bucket of [`ServerConfig::objects`], opened by whoever starts the server.
    #[serde(skip)]
    pub bucket: Option<Arc<dyn Bucket>>,
    /// The webhook of [`ServerConfig::alerts`], likewise.
    #[serde(skip)]
    pub webhook: Option<Arc<dyn Webhook>>,
    /// The drivers of [`ServerConfig::pools`], likewise, by pool.
    #[serde(skip)]
    pub drivers: BTreeMap<String, Arc<dyn Program>>,
    /// Only in simulation: the network that objects are reached over.
    #[serde(skip)]
    pub network: Network,
}

/// A bucket of S3, or of what speaks like it. Its credentials are of the environment.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ObjectsConfig {
    /// `s3://BUCKET` or `s3://BUCKET/PREFIX`; empty: the data directory.
    pub url: String,
    /// `http://…` or `https://…` of the service; empty for that of AWS.
    pub endpoint: String,
    /// Empty for that of the environment.
    pub region: String,
    /// How often it is looked for objects that no row names; 0: never.
    pub collect_every_ms: u64,
    /// How long an upload is kept that no job names.
    pub uploads_kept_ms: u64,
}

/// Logs are compressed, and moved to where objects are.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogsConfig {
    /// How often it is looked for what can be; 0: never.
    pub pack_every_ms: u64,
    /// How long after the job's end all that was written is.
    pub pack_after_ms: u64,
    /// Bytes after which a log goes on in another file, and what is full is, also while its
    /// job runs; 0: never.
    pub file_bytes: u64,
}

/// What operators are warned of, and where that is posted.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AlertsConfig {
    /// `http://…` or `https://…`; empty: nowhere.
    pub webhook: String,
    /// How often it is looked; 0: never.
    pub look_ms: u64,
    /// A pool is full for so long while work queues for it.
    pub pool_exhausted_ms: u64,
    /// The first of a tenant's queue cannot start for so long.
    pub starvation_ms: u64,
    /// A node falls silent, or comes anew, so often …
    pub flaps_min: u32,
    /// … within this.
    pub flaps_window_ms: u64,
    /// A cause that is gone for so long is gone.
    pub quiet_ms: u64,
}

/// What is to be said of a pool.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PoolConfig {
    /// Its nodes come and go by need.
    pub autoscale: Option<AutoscaleConfig>,
    /// Work there gives way to work of higher priority.
    pub preemption: Option<PreemptionConfig>,
}

/// `[pools.NAME.preemption]`; see `docs/preemption.md`.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields)]
pub struct PreemptionConfig {
    /// How long a last checkpoint is waited for.
    pub grace_ms: u64,
    /// By so much the priority of whom one gives way to is higher.
    pub priority_above: u32,
    /// How long that has been first of its queue and blocked.
    pub after_waiting_ms: u64,
    /// Who runs for less does not give way.
    pub min_run_ms: u64,
    /// How often one task gives way at most.
    pub times_max: u32,
}

impl Default for PreemptionConfig {
    fn default() -> Self {
        let PreemptionRules { grace_ms, priority_above, after_waiting_ms, min_run_ms, times_max } =
            PreemptionRules::default();
        Self { grace_ms, priority_above, after_waiting_ms, min_run_ms, times_max }
    }
}

impl PreemptionConfig {
    /// Refuses what cannot be meant, by field.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn checked(&self, pool: &str) -> Result<PreemptionRules, Problem> {
        let wrong = |field: &str, value: u64, reason: &str, remedy: &str| {
            let field = format!("pools.{pool}.preemption.{field}");
            Err(Problem::new("spec.preemption", field, value, reason, remedy))
        };
        check_name(NameKind::Pool, "pools", pool)?;
        let Self { grace_ms, priority_above, after_waiting_ms, min_run_ms, times_max } = *self;
        if priority_above == 0 {
            let remedy = "use 1 or more: work of equal priority would take turns for ever";
            return wrong("priority_above", 0, "is no higher priority", remedy);
        }
        if grace_ms > limits::PREEMPTION_GRACE_MS_MAX {
            let remedy = format!("use {} at most", limits::PREEMPTION_GRACE_MS_MAX);
            return wrong("grace_ms", grace_ms, "is longer than anybody should wait", &remedy);
        }
        if times_max == 0 {
            let remedy = "use 1 or more, or leave the table out: then nothing gives way";
            return wrong("times_max", 0, "lets nothing give way", remedy);
        }
        Ok(PreemptionRules { grace_ms, priority_above, after_waiting_ms, min_run_ms, times_max })
    }
}

impl ServerConfig {
    /// The pools in which work gives way. What cannot be meant was refused by whoever read
    /// the file; here it is left out.
    pub(crate) fn preemption(&self) -> BTreeMap<String, PreemptionRules> {
        let rules = |(name, pool): (&String, &PoolConfig)| {
            let rules = pool.preemption?.checked(name);
            let rules =
                rules.inspect_err(|problem| tracing::error!(%problem, "nothing gives way in a pool")).ok()?;
            Some((name.clone(), rules))
        };
        self.pools.iter().filter_map(rules).collect()
    }
}

impl AlertsConfig {
    pub(crate) fn rules(&self) -> controller::alerts::Config {
        controller::alerts::Config {
            pool_exhausted_ms: self.pool_exhausted_ms,
            starvation_ms: self.starvation_ms,
            flaps_min: self.flaps_min,
            flaps_window_ms: self.flaps_window_ms,
            quiet_ms: self.quiet_ms,
        }
    }
}

impl Default for AlertsConfig {
    fn default() -> Self {
        let rules = controller::alerts::Config::default();
        Self {
            webhook: String::new(),
            look_ms: 2_000,
            pool_exhausted_ms: rules.pool_exhausted_ms,
            starvation_ms: rules.starvation_ms,
            flaps_min: rules.flaps_min,
            flaps_window_ms: rules.flaps_window_ms,
            quiet_ms: rules.quiet_ms,
        }
    }
}

impl Default for LogsConfig {
    fn default() -> Self {
        Self {
            pack_every_ms: 60_000,
            pack_after_ms: 600_000,
            file_bytes: controller::logs::limits::FILE_BYTES,
        }
    }
}

impl Default for ObjectsConfig {
    fn default() -> Self {
        Self {
            url: String::new(),
            endpoint: String::new(),
            region: String::new(),
            collect_every_ms: 6 * 3_600_000,
            uploads_kept_ms: 7 * 24 * 3_600_000,
        }
    }
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            public_url: String::new(),
            url_ttl_ms: 3_600_000,
            store_cache_bytes: store::OpenOptions::default().cache_bytes,
            store_verify: store::OpenOptions::default().verify,
            stop_grace_ms: 2_000,
            events_ping_ms: 15_000,
            events_slow_ms: 10_000,
            controller: controller::core::Config::default(),
            scheduler: scheduler::core::Config::default(),
            seed: None,
            objects: ObjectsConfig::default(),
            logs: LogsConfig::default(),
            alerts: AlertsConfig::default(),
            bucket: None,
            pools: BTreeMap::new(),
            licenses: BTreeMap::new(),
            webhook: None,
            drivers: BTreeMap::new(),
            network: Network::default(),
        }
    }
}

/// A table with the fields of a core's configuration: the cores themselves
/// know nothing of files.
macro_rules! numbers {
    ($read:ident, $table:ident for $target:ident { $($field:ident: $type:ty,)* }) => {
        #[derive(Deserialize)]
        #[serde(default, deny_unknown_fields)]
        struct $table {
            $($field: $type,)*
        }
        impl Default for $table {
            fn default() -> Self {
                let target = $target::default();
                Self { $($field: target.$field,)* }
            }
        }
        #[cfg(test)]
        impl $table {
            const FIELDS: &'static [&'static str] = &[$(stringify!($field),)*];
        }
        /// Reads that table.
        pub fn $read<'de, D: Deserializer<'de>>(from: D) -> Result<$target, D::Error> {
            let table = $table::deserialize(from)?;
            Ok($target { $($field: table.$field,)* ..$target::default() })
        }
    };
}

use controller::core::Config as ControllerConfig;
use scheduler::core::Config as SchedulerConfig;

numbers!(controller_numbers, ControllerNumbers for ControllerConfig {
    seed: u64,
    heartbeat_ms: u64,
    lease_ttl_ms: u64,
    lease_margin_ms: u64,
    suspect_after_ms: u64,
    lost_after_ms: u64,
    brake_window_ms: u64,
    brake_ms_max: u64,
    tick_gap_ms_max: u64,
    retries: u32,
    own_backoff_ms: u64,
    backoff_ms_max: u64,
    platform_retries: u32,
    platform_backoff_ms: u64,
    jitter_percent: u64,
    tenant_retry_burst: u64,
    tenant_retries_per_s: u64,
    cluster_retry_burst: u64,
    cluster_retries_per_s: u64,
    queue_ahead_ms: u64,
    queue_ahead_max: u64,
    feed_ms_max: u64,
    stop_grace_ms: u64,
    flaky_streak: u32,
    flaky_jobs: u32,
    gang_port_first: u32,
    gang_ports: u32,
});

numbers!(scheduler_numbers, SchedulerNumbers for SchedulerConfig {
    seed: u64,
    ageing_ms: u64,
    quantum_ms: u64,
    reserve_after_ms: u64,
    backfill_depth: u64,
    fair_half_life_ms: u64,
    slack_ms: u64,
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_file_names_every_number_and_its_default() {
        let page = include_str!("../../docs/cluster.md");
        let block = page.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
        // Whoever starts the server reads these two.
        let lines = block.lines().filter(|line| !line.starts_with("data =") && !line.starts_with("listen ="));
        let text = lines.collect::<Vec<_>>().join("\n");
        let told: ServerConfig = toml::from_str(&text).unwrap();
        assert_eq!(format!("{told:?}"), format!("{:?}", ServerConfig::default()));
        let tables: toml::Table = toml::from_str(&text).unwrap();
        for (table, fields) in
            [("controller", ControllerNumbers::FIELDS), ("scheduler", SchedulerNumbers::FIELDS)]
        {
            for field in fields {
                assert!(tables[table].get(field).is_some(), "{table}.{field} is not documented");
            }
        }
    }

    #[test]
    fn every_number_has_a_default_and_unknown_ones_are_refused() {
        let config: ServerConfig = toml::from_str("").unwrap();
        assert_eq!(config.controller, controller::core::Config::default());
        let config: ServerConfig =
            toml::from_str("url_ttl_ms = 5\n[controller]\nretries = 7\n[scheduler]\nquantum_ms = 9\n")
                .unwrap();
        assert_eq!((config.url_ttl_ms, config.controller.retries, config.scheduler.quantum_ms), (5, 7, 9));
        assert_eq!(config.controller.heartbeat_ms, 5_000);
        let refused = toml::from_str::<ServerConfig>("[controller]\nretires = 7\n").unwrap_err();
        assert!(refused.to_string().contains("retires"), "{refused}");
        assert!(toml::from_str::<ServerConfig>("urls = 1").is_err());
    }
}
