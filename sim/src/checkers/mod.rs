//! The invariants of the design, one file each.
//!
//! Every durable commit is shown to every checker, before and after it is
//! applied to the mirror; at the end of a run each sees the whole outcome. A
//! checker answers with what broke, in words.

mod acknowledged;
mod after_jobs;
mod agreement;
mod alone;
mod artifacts;
mod backoff;
mod booked;
mod brake;
mod checkpoints;
mod drained;
mod elastic;
mod ends;
mod epochs;
mod expiry;
mod fencing;
mod gangs;
mod gangs_end;
mod gangs_start;
mod gives_way;
mod in_force;
mod in_turn;
mod inputs;
mod kept;
mod ledger;
mod licenses;
mod limits;
mod liveness;
mod logs;
mod manifests;
mod nodes;
mod outputs;
mod reigns;
mod reserved;
mod retries;
mod stored;
mod transfers;
mod transitions;
mod while_bound;

pub use agreement::events;
pub use ends::attempt_of;
pub use gangs_end::must_have_ended_ms;
pub use logs::may_lack;
pub use retries::is_own;

use crate::faults::{Fault, Planned};
use crate::history::History;
use crate::mirror::Mirror;
use crate::rows::Row;
use gateway::PreemptionConfig;
use std::collections::BTreeMap;
use world::sim::{LaunchAsked, ProcessSpan, TransferCounts};

/// One durable commit.
#[derive(Clone, Debug)]
pub struct Committed {
    pub rows: Vec<Row>,
    /// When it was seen, virtual milliseconds.
    pub at_ms: u64,
    /// It was made since then: earlier than `at_ms` where it was found after a
    /// restart.
    pub since_ms: u64,
}

/// All there is to see at the end of a run.
pub struct Outcome<'a> {
    pub mirror: &'a Mirror,
    pub history: &'a History,
    /// Every process that ever ran, in true time.
    pub spans: &'a [ProcessSpan],
    /// Every launch that an agent asked for, likewise.
    pub launches: &'a [LaunchAsked],
    /// Whether every job ended within the bound after the last heal.
    pub drained: Result<(), String>,
    /// Faults that were alone in a cluster with room, each with the time until all was
    /// well.
    pub recovered: &'a [(&'static str, u64)],
    /// Digests that the object place really holds, by tenant: digest of the
    /// bytes read, not of the name.
    pub objects: &'a std::collections::BTreeSet<(String, String)>,
    /// How the nodes' transfers went.
    pub transfers: &'a [Moved],
    /// What nodes keep of logs for a server that cannot take them; 0: all.
    pub log_spool_bytes: u64,
    /// Pools in which work gives way to work of higher priority.
    pub preemption: &'a BTreeMap<String, PreemptionConfig>,
    /// Those that are manifests of directories, by digest.
    pub manifests: &'a std::collections::BTreeMap<String, String>,
    /// How many there are of each license.
    pub licenses: &'a std::collections::BTreeMap<String, u32>,
    /// The plan of the run.
    pub faults: &'a [Planned],
    pub max_own_retries: u32,
    pub max_platform_retries: u32,
}

/// How the transfers of one node went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    pub node: String,
    /// What they may move in a second; 0: as they like.
    pub bytes_per_s: u64,
    pub counts: TransferCounts,
}

/// Watches one invariant.
pub trait Checker: Send {
    /// As `cargo chaos list` shows it.
    fn name(&self) -> &'static str;
    /// Its number in the design.
    fn invariant(&self) -> u8;
    /// Sees a commit; `before` has not yet taken it.
    fn commit(&mut self, _before: &Mirror, _commit: &Committed) -> Result<(), String> {
        Ok(())
    }
    /// Sees the state right after a commit.
    fn after(&mut self, _now: &Mirror, _commit: &Committed) -> Result<(), String> {
        Ok(())
    }
    /// Sees the end.
    fn end(&mut self, _outcome: &Outcome<'_>) -> Result<(), String> {
        Ok(())
    }
}

/// Whether what was durable when it was told may have been seen later: the server
/// stood still just then, and with it who watches.
fn seen_late(faults: &[Planned], told_ms: u64, seen_ms: u64) -> bool {
    faults.iter().any(|planned| {
        let stood_still = matches!(planned.fault, Fault::ServerPaused { .. });
        let arrives_ms = planned.at_ms..planned.at_ms + TOLD_WITHIN_MS;
        let until_ms = planned.at_ms + planned.fault.span_ms() + WATCHED_WITHIN_MS;
        stood_still && arrives_ms.contains(&told_ms) && seen_ms <= until_ms
    })
}

/// From a word's leaving to its arrival, on any link.
const TOLD_WITHIN_MS: u64 = 10_000;
/// From a commit to its being seen.
const WATCHED_WITHIN_MS: u64 = 100;

/// All checkers, fresh.
#[must_use]
pub fn all() -> Vec<Box<dyn Checker>> {
    vec![
        Box::new(acknowledged::Acknowledged::default()),
        Box::new(manifests::OneManifest::default()),
        Box::new(fencing::Fencing::default()),
        Box::new(reigns::OneReigns::default()),
        Box::new(ends::EndsTrue::default()),
        Box::new(nodes::NodesNotOverCommitted::default()),
        Box::new(alone::NothingBeside::default()),
        Box::new(licenses::NoneHeldTwice::default()),
        Box::new(ledger::LedgerConserved::default()),
        Box::new(booked::Booked::default()),
        Box::new(stored::Stored::default()),
        Box::new(limits::AdmittedWithinLimits::default()),
        Box::new(gangs::GangsWhole),
        Box::new(gangs_start::GangsStart),
        Box::new(gangs_end::GangsEnd::default()),
        Box::new(epochs::EpochsApart),
        Box::new(while_bound::WhileBound::default()),
        Box::new(artifacts::ArtifactsTrue::default()),
        Box::new(outputs::OutputsStand::default()),
        Box::new(inputs::InputsTrue),
        Box::new(kept::Kept),
        Box::new(expiry::NotTooSoon::default()),
        Box::new(checkpoints::GoesOn::default()),
        Box::new(transitions::Transitions::default()),
        Box::new(in_turn::InTurn::default()),
        Box::new(after_jobs::AfterJobs::default()),
        Box::new(drained::NothingOnDrained::default()),
        Box::new(reserved::NothingOnReserved::default()),
        Box::new(elastic::ComesAndGoes::default()),
        Box::new(agreement::RowsAgree::default()),
        Box::new(logs::LogsTrue::default()),
        Box::new(retries::RetriesBounded::default()),
        Box::new(backoff::NotTooSoon::default()),
        Box::new(transfers::Paced),
        Box::new(transfers::Unforged),
        Box::new(transfers::NoStorm),
        Box::new(gives_way::GivesWay::default()),
        Box::new(brake::Brake::default()),
        Box::new(liveness::EveryJobEnds::default()),
    ]
}
