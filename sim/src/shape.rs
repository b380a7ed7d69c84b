//! What tells the machines of a cluster apart: pools and labels, drawn by the seed.
//! In half of the seeds nothing does. And how long the URLs are good that its servers sign, and
//! whether they have their objects in a bucket.

use gateway::{LogsConfig, PreemptionConfig};
use proto::v1::{Constraint, Step};
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;
use world::sim::BucketFaults;

/// The pool that only larger clusters have.
pub const SECOND_POOL: &str = "second";
/// With so many machines there is one.
const MACHINES_FOR_TWO_POOLS: usize = 6;

/// One machine with tasks, as its agent tells of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Kind {
    pub pool: String,
    pub labels: BTreeMap<String, String>,
    /// Bytes that its transfers move in a second at most; 0: as they like.
    pub staging_bytes_per_s: u64,
    /// Bytes of logs that it keeps for a server that cannot take them; 0: all.
    pub log_spool_bytes: u64,
}

/// Where that is bounded: the lines of one task's first seconds, or of several tasks.
const LOG_SPOOL_BYTES: [u64; 3] = [100, 500, 2_000];

/// How much of logs the nodes of a run keep, from a stream of chance of its own.
#[must_use]
pub fn log_spool(seed: u64) -> u64 {
    let mut rng = SmallRng::seed_from_u64(seed ^ 0x0073_706f_6f6c);
    let bytes = *LOG_SPOOL_BYTES.choose(&mut rng).expect("not empty");
    if rng.random_bool(0.1) { bytes } else { 0 }
}

/// What a node may move in a second, where that is limited: the largest input takes from
/// no time to a second and a half.
const STAGING_BYTES_PER_S: [u64; 3] = [100_000, 400_000, 2_000_000];

/// How fast the nodes of a run may stage, from a stream of chance of its own.
fn staging(seed: u64) -> u64 {
    let mut rng = SmallRng::seed_from_u64(seed ^ 0x0070_6163_6500);
    let rate = *STAGING_BYTES_PER_S.choose(&mut rng).expect("not empty");
    if rng.random_bool(0.4) { rate } else { 0 }
}

/// The licenses of a cluster: none, one kind, or two, and few of each. From a stream of chance
/// of its own.
#[must_use]
pub fn licenses(seed: u64) -> BTreeMap<String, u32> {
    let mut rng = SmallRng::seed_from_u64(seed ^ 0x6c69_6365_6e73_6573);
    let kinds = *[0, 0, 1, 2].choose(&mut rng).expect("not empty");
    let names = ["solver", "viewer@campus"];
    names.into_iter().take(kinds).map(|name| (name.to_owned(), rng.random_range(1..=4))).collect()
}

/// How long signed URLs are good: as in production, or so shortly that they expire while a
/// file waits for its turn, or comes.
const URL_TTLS_MS: [u64; 4] = [3_600_000, 3_000, 10_000, 30_000];

/// From a stream of chance of its own.
#[must_use]
pub fn url_ttl_ms(seed: u64) -> u64 {
    let mut rng = SmallRng::seed_from_u64(seed ^ 0x0075_726c_7474_6c00);
    *URL_TTLS_MS.choose(&mut rng).expect("not empty")
}

/// Which share of seeds has its objects in a bucket.
const WITH_BUCKET: f64 = 0.3;
/// One that is away is back after so long: nodes wait for a source that fails for 45 s.
const AWAY_MS: [u64; 4] = [500, 3_000, 10_000, 25_000];
/// How long it takes for an answer where it takes long.
const BUCKET_SLOW_MS: [u64; 4] = [0, 300, 2_000, 6_000];

/// Where objects are not in a directory of the servers, what goes wrong with the bucket
/// until then; from a stream of chance of its own.
#[must_use]
pub fn bucket(seed: u64, trouble_ms: u64) -> Option<BucketFaults> {
    let mut rng = SmallRng::seed_from_u64(seed ^ 0x6275_636b_6574);
    if !rng.random_bool(WITH_BUCKET) {
        return None;
    }
    let mut often = || *[0, 10_000, 100_000].choose(&mut rng).expect("not empty");
    let (busy_ppm, lost_ppm, slow_ppm) = (often(), often(), often());
    let mut away = || {
        let from_ms = rng.random_range(0..trouble_ms.max(1));
        from_ms..from_ms + *AWAY_MS.choose(&mut rng).expect("not empty")
    };
    let mut away_ms: Vec<_> = (0..3).map(|_| away()).collect();
    away_ms.truncate(rng.random_range(0..=3));
    let slow_ms = *BUCKET_SLOW_MS.choose(&mut rng).expect("not empty");
    Some(BucketFaults { busy_ppm, lost_ppm, slow_ppm, slow_ms, away_ms, until_ms: trouble_ms })
}

/// When the server of a run packs logs, from a stream of chance of its own. In some runs
/// it does so at once, and so while more comes of them.
#[must_use]
pub fn packing(seed: u64) -> LogsConfig {
    let mut rng = SmallRng::seed_from_u64(seed ^ 0x7061_636b_6564);
    let pack_every_ms = if rng.random_bool(0.3) { 2_000 } else { 0 };
    let pack_after_ms = *[0, 5_000].choose(&mut rng).expect("not empty");
    // Those of most jobs are short.
    let file_bytes = *[500, 4_000, 64 << 20].choose(&mut rng).expect("not empty");
    LogsConfig { pack_every_ms, pack_after_ms, file_bytes }
}

/// Which share of seeds has pools in which work gives way.
const WITH_PREEMPTION: f64 = 0.35;

/// In which pools of a run work gives way to work of higher priority, and by which numbers;
/// from a stream of chance of its own.
#[must_use]
pub fn preemption(seed: u64) -> BTreeMap<String, PreemptionConfig> {
    let mut rng = SmallRng::seed_from_u64(seed ^ 0x7072_6565_6d70_7400);
    if !rng.random_bool(WITH_PREEMPTION) {
        return BTreeMap::new();
    }
    let mut one_of = |choices: [u64; 3]| *choices.choose(&mut rng).expect("not empty");
    let rules = PreemptionConfig {
        grace_ms: one_of([300, 4_000, 15_000]),
        priority_above: u32::try_from(one_of([1, 1, 3])).expect("it is small"),
        after_waiting_ms: one_of([500, 2_000, 6_000]),
        min_run_ms: one_of([0, 500, 3_000]),
        times_max: u32::try_from(one_of([1, 2, 5])).expect("it is small"),
    };
    let mut pools = BTreeMap::from([("default".to_owned(), rules)]);
    if rng.random_bool(0.5) {
        pools.insert(SECOND_POOL.to_owned(), rules);
    }
    pools
}

/// The machines with tasks, in their order.
#[must_use]
pub fn draw(seed: u64, agents: usize) -> Vec<Kind> {
    let mut rng = SmallRng::seed_from_u64(seed ^ 0x0073_6861_7065);
    let labelled = rng.random_bool(0.5);
    let pools = labelled && agents >= MACHINES_FOR_TWO_POOLS && rng.random_bool(0.6);
    let second = if pools { rng.random_range(2..=agents / 2) } else { 0 };
    let (staging_bytes_per_s, log_spool_bytes) = (staging(seed), log_spool(seed));
    (0..agents)
        .map(|index| {
            let pool = if index >= agents - second { SECOND_POOL } else { "default" };
            let mut labels = BTreeMap::new();
            if labelled {
                labels.insert("zone".to_owned(), if index % 2 == 0 { "a" } else { "b" }.to_owned());
                if index % 3 != 2 {
                    labels.insert("disk".to_owned(), "fast".to_owned());
                }
            }
            Kind { pool: pool.to_owned(), labels, staging_bytes_per_s, log_spool_bytes }
        })
        .collect()
}

impl Kind {
    /// Whether a step may run here, as far as pool and labels go.
    #[must_use]
    pub fn suits(&self, step: &Step) -> bool {
        let meets = |constraint: &Constraint| {
            (self.labels.get(&constraint.label) == Some(&constraint.value)) != constraint.negated
        };
        (step.pool.is_empty() || step.pool == self.pool) && step.constraints.iter().all(meets)
    }
}

/// Whether these machines could run a step: as many suit it as it has nodes.
#[must_use]
pub fn could_run<'a>(machines: impl Iterator<Item = &'a Kind>, step: &Step) -> bool {
    machines.filter(|kind| kind.suits(step)).count() >= step.nodes.max(1) as usize
}
