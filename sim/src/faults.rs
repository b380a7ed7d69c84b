//! The faults of a run: drawn from its seed as an explicit plan ([`draw`]), then
//! fired at their time. Each kind counts how often it fired; one that strikes by
//! chance counts what it struck.
//!
//! Syncs lie on agents' machines alone (`sync_lies`). What these have on their disks
//! the server has too, or somebody can make again. Of the rows there is one copy, on
//! the server's disk: where that lies nobody can survive it, so it never does here.

mod draw;
mod for_good;
mod spare;
mod together;

pub use draw::draw;
pub use for_good::leave_a_core;
use serde::{Deserialize, Serialize};
pub use spare::{server_is_behind, spare_enough};
use std::collections::BTreeMap;

/// The second of several servers that share a store; further ones follow.
pub const SECOND_SERVER: usize = 1001;
/// The machine with that store.
pub const STORAGE: usize = 1100;

/// Whether a machine is one of those that only clusters of several servers have.
#[must_use]
pub fn is_further(machine: usize, servers: usize) -> bool {
    servers > 1 && (machine == STORAGE || (SECOND_SERVER..SECOND_SERVER + servers - 1).contains(&machine))
}

/// Whether what happens to a machine may be felt by every node.
#[must_use]
pub fn is_of_servers(machine: usize) -> bool {
    machine == 0 || machine >= SECOND_SERVER
}

/// What may be broken. `agent` is the index of a machine with tasks, `machine`
/// that of any; machine 0 is the server, or the first of several. Chances are in parts per million.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The server's process dies; what it wrote stays.
    ServerKilled {
        #[serde(default)]
        machine: usize,
        down_ms: u64,
    },
    /// The server's machine loses power: unsynced writes are lost or torn.
    ServerPowerLoss {
        #[serde(default)]
        machine: usize,
        down_ms: u64,
    },
    /// The server's machine stands still, its clock as well: when it goes on it
    /// believes that no time has passed.
    ServerPaused {
        #[serde(default)]
        machine: usize,
        for_ms: u64,
    },
    /// The agent's process dies; its tasks go on under their supervisor.
    AgentKilled { agent: usize, down_ms: u64 },
    /// All agents, one after the other, end and are started again: an upgrade. Their
    /// tasks go on.
    AgentsUpgraded { down_ms: u64, for_ms: u64 },
    /// The agent's machine loses power, with tasks and unsynced writes.
    MachinePowerLoss { agent: usize, down_ms: u64 },
    /// The same, and it never comes back.
    MachineGone { agent: usize },
    /// Nothing passes between it and the server any more. It goes on by itself.
    MachineCutOff { agent: usize },
    /// The agent's process stands still for good; its machine and its tasks do not.
    AgentStuck { agent: usize },
    /// The agent's process stands still, then goes on as if nothing had been.
    AgentPaused { agent: usize, for_ms: u64 },
    /// A newer version of the server ran for a while: rows have fields that this
    /// one does not know.
    ServerRolledBack {
        #[serde(default)]
        machine: usize,
        down_ms: u64,
    },
    /// The server that serves and the store that it shares no longer hear each other;
    /// agents and clients hear it, and it has the shared directory.
    ServerCutFromStore { for_ms: u64 },
    /// The server that serves and the store that it shares hear each other late. Then it
    /// stands still, its clock as well, until another serves, and so long after that. It
    /// goes on in the belief that it reigns, until the store has told it.
    ServerOutlived { lag_ms: u64, after_ms: u64, for_ms: u64 },
    /// All servers die and are started again at the same moment.
    ServersStartAtOnce { down_ms: u64 },
    /// A scheduler beside the server's own dies and is started again.
    SchedulerKilled { machine: usize, down_ms: u64 },
    /// Its process stands still, then goes on with what it knew.
    SchedulerPaused { machine: usize, for_ms: u64 },
    /// Silence both ways between it and the server.
    SchedulerCut { machine: usize, for_ms: u64 },
    /// Its grants take effect, and it is not told.
    SchedulerRepliesLost { machine: usize, for_ms: u64 },
    /// The supervisor of a machine dies with all it held.
    SupervisorKilled { agent: usize },
    /// It dies as it takes a launch, after some more: which comes to the one that takes
    /// its place.
    SupervisorDiesLaunching { agent: usize, launches_before: u32, for_ms: u64 },
    /// The machine loses power, and once more so soon after it came back.
    CrashInRecovery { machine: usize, down_ms: u64, after_ms: u64 },
    /// Some more files are made; with the next the machine loses power.
    CrashInCreation { machine: usize, files_before: u32, down_ms: u64, for_ms: u64 },
    /// Whatever one machine asks of its disk takes long.
    SlowDisk { machine: usize, lag_ms: u64, for_ms: u64 },
    /// Syncs fail; what they were to make durable is, or is not.
    SyncErrors { machine: usize, ppm: u32, forgets: bool, for_ms: u64 },
    /// Syncs of an agent's disk succeed and have done nothing: what they were to make
    /// durable is that only with the next sync that does not lie.
    SyncLies { agent: usize, ppm: u32, for_ms: u64 },
    /// Reads fail.
    ReadErrors { machine: usize, ppm: u32, for_ms: u64 },
    /// Writes fail, some half way.
    WriteErrors { machine: usize, ppm: u32, for_ms: u64 },
    /// The disk has so much room left.
    DiskFull { machine: usize, spare_bytes: u64, for_ms: u64 },
    /// Objects on the server's disk read with a bit wrong.
    BitRot {
        #[serde(default)]
        machine: usize,
        ppm: u32,
        for_ms: u64,
    },
    /// Transfers of a machine break half way.
    TransfersBroken { agent: usize, ppm: u32, for_ms: u64 },
    /// Each piece of a transfer waits.
    TransfersSlow { agent: usize, lag_ms: u64, for_ms: u64 },
    /// The last part of a transfer never comes.
    TransfersTruncated { agent: usize, ppm: u32, for_ms: u64 },
    /// A bit flips under way.
    TransfersCorrupted { agent: usize, ppm: u32, for_ms: u64 },
    /// Uploads are taken, their answers lost.
    UploadRepliesLost { agent: usize, ppm: u32, for_ms: u64 },
    /// Nothing passes between an agent and the server, and nobody is told.
    Partition { agent: usize, for_ms: u64 },
    /// The same, again and again.
    Flapping { agent: usize, cut_ms: u64, whole_ms: u64, for_ms: u64 },
    /// The streams between an agent and the server end on the agent's side, and the
    /// server is not told.
    HalfOpen { agent: usize },
    /// Messages between one agent and the server crawl, one after the other.
    SlowLink { agent: usize, lag_ms: u64, for_ms: u64 },
    /// What the agent says arrives; what the server answers does not.
    RepliesLost { agent: usize, for_ms: u64 },
    /// What the server says arrives; the agent is not heard.
    RequestsLost { agent: usize, for_ms: u64 },
    /// The clients' requests take effect, their answers are lost.
    ClientRepliesLost { for_ms: u64 },
    /// Messages are lost and sent again.
    MessageLoss { percent: u32, for_ms: u64 },
    /// All links are slow.
    SlowLinks { latency_ms: u64, for_ms: u64 },
    /// One machine's clock is wrong from now on, and drifts for a while.
    ClockSkew { machine: usize, offset_ms: i64, drift_ppm: i64 },
    /// One machine's clock runs too fast or too slow.
    ClockDrift { machine: usize, drift_ppm: i64, for_ms: u64 },
    /// The date jumps forward, and back at the end.
    ClockForward { machine: usize, by_ms: i64, for_ms: u64 },
    /// The date jumps back, and forward at the end.
    ClockBack { machine: usize, by_ms: i64, for_ms: u64 },
    /// Tasks cannot be launched.
    LaunchesFail { agent: usize, ppm: u32, for_ms: u64 },
    /// Tasks start late.
    SlowStarts { agent: usize, ppm: u32, for_ms: u64 },
    /// Tasks are killed half way.
    TasksKilled { agent: usize, ppm: u32, for_ms: u64 },
    /// Tasks meet their memory limit half way.
    TasksOutOfMemory { agent: usize, ppm: u32, for_ms: u64 },
    /// Tasks do not end by themselves before this does.
    TasksHang { agent: usize, ppm: u32, for_ms: u64 },
    /// Tasks end with an exit code of their own.
    TasksExit { agent: usize, ppm: u32, for_ms: u64 },
    /// Tasks do not heed TERM.
    TasksDeaf { agent: usize, ppm: u32, for_ms: u64 },
    /// Tasks end well and leave no outputs.
    OutputsMissing { agent: usize, ppm: u32, for_ms: u64 },
    /// Outputs change while they are collected.
    OutputsCorrupt { agent: usize, ppm: u32, for_ms: u64 },
    /// So many jobs at once.
    SubmissionBurst { jobs: u32 },
    /// So many gangs at once.
    GangBurst { jobs: u32 },
    /// So many clients say one submission over and over, hardly waiting.
    RetryStorm { clients: u32, for_ms: u64 },
    /// So many clients at once ask for more than their tenant may have.
    QuotaBreach { clients: u32 },
    /// Jobs are cancelled, each by two clients, about when they end.
    CancelRace { jobs: u32 },
    /// Jobs that fail are tried again by two clients at once, as soon as that goes,
    /// while a third cancels them.
    RetryRace { jobs: u32 },
    /// Jobs that fail are tried again by two clients at once, and nobody cancels them.
    RetriesPressed { jobs: u32 },
    /// An operator keeps new work from a node for a while.
    NodeDrained { agent: usize, for_ms: u64 },
    /// So many submissions come twice at the same time.
    RequestsTwice { jobs: u32 },
    /// Tasks of one tenant write so many lines each.
    LogFlood { lines: u32 },
    /// So many jobs write lines for long on several nodes, and are followed meanwhile.
    LogsWatched { jobs: u32, for_ms: u64 },
    /// So many clients follow events and logs, and leave in the middle.
    FollowersLeave { clients: u32, for_ms: u64 },
}

/// Every kind by name with what it does, for `cargo chaos list`.
pub const KINDS: &[(&str, &str)] = &[
    ("server_killed", "the server's process dies and is started again"),
    ("server_power_loss", "the server's machine loses power; unsynced writes are lost or torn"),
    ("server_paused", "the server stands still and its clock with it: no time has passed when it wakes"),
    (
        "server_rolled_back",
        "a newer version of the server ran and was taken back: rows have fields unknown here",
    ),
    (
        "server_cut_from_store",
        "the server that serves no longer reaches the store; agents and clients reach it",
    ),
    (
        "server_outlived",
        "the server that serves stands still until another does, then goes on, and the store tells it late",
    ),
    ("servers_start_at_once", "all servers that share a store die, and start at the same moment"),
    ("agent_killed", "an agent's process dies; its tasks go on under their supervisor"),
    ("agents_upgraded", "all agents are killed and started again, one after the other; tasks go on"),
    ("machine_power_loss", "an agent's machine loses power, tasks and unsynced writes included"),
    ("machine_gone", "an agent's machine loses power and never comes back"),
    ("machine_cut_off", "an agent's machine and the server never hear of each other again"),
    ("agent_stuck", "an agent's process stands still for good, while its tasks run"),
    ("agent_paused", "an agent's process stands still while its tasks run, then goes on"),
    ("scheduler_killed", "a scheduler beside the server's own dies and is started again"),
    ("scheduler_paused", "such a scheduler stands still, then goes on with what it knew"),
    ("scheduler_cut", "silence both ways between such a scheduler and the server"),
    ("scheduler_replies_lost", "such a scheduler's grants take effect, and it is not told"),
    ("supervisor_killed", "a machine's supervisor dies with the tasks it held"),
    ("crash_in_recovery", "a machine loses power again while it comes back from a power loss"),
    ("crash_in_creation", "a machine loses power in the very moment in which it makes a file"),
    ("slow_disk", "a machine's disk answers late, often before it is killed or loses power"),
    ("sync_errors", "syncs fail: durable or not, nobody knows; with or without forgetting what was written"),
    ("sync_lies", "syncs of an agent's disk succeed and have done nothing; then its machine loses power"),
    ("read_errors", "reads of a machine's disk fail"),
    ("write_errors", "writes to a machine's disk fail, some half way"),
    ("disk_full", "a machine's disk has no room left for a while"),
    ("bit_rot", "objects on the server's disk read with a bit wrong"),
    ("transfers_broken", "transfers of a machine break half way"),
    ("transfers_slow", "transfers of a machine crawl"),
    ("transfers_truncated", "the last part of a transfer never comes"),
    ("transfers_corrupted", "a bit of a transfer flips under way"),
    ("upload_replies_lost", "uploads are taken, their answers are lost"),
    ("partition", "silence both ways between an agent and the server"),
    ("flapping", "the link between an agent and the server is cut and whole, many times"),
    ("half_open", "an agent's streams end on its side, and the server is not told"),
    ("slow_link", "the link of one agent is slow, message after message"),
    ("replies_lost", "an agent is heard but hears nothing"),
    ("requests_lost", "an agent hears but is not heard"),
    ("client_replies_lost", "submissions take effect, their answers are lost"),
    ("message_loss", "messages are lost and sent again, connections refused"),
    ("slow_links", "every link is slow"),
    ("clock_skew", "a machine's clock is off for good and drifts for a while"),
    ("clock_drift", "a machine's clock runs too fast or too slow"),
    ("clock_forward", "a machine's date jumps forward, and back later"),
    ("clock_back", "a machine's date jumps back, and forward later"),
    ("launches_fail", "tasks cannot be launched"),
    ("slow_starts", "tasks start late"),
    ("tasks_killed", "tasks are killed half way"),
    ("tasks_out_of_memory", "tasks meet their memory limit half way"),
    ("tasks_hang", "tasks do not end by themselves for a while"),
    ("tasks_exit", "tasks end with an exit code of their own"),
    ("tasks_deaf", "tasks do not heed TERM"),
    ("outputs_missing", "tasks end well and leave no outputs"),
    ("outputs_corrupt", "outputs change while they are collected"),
    ("submission_burst", "many jobs are submitted at once"),
    ("retry_storm", "many clients say one submission over and over, hardly waiting for an answer"),
    ("quota_breach", "many clients at once ask for more than their tenant may have"),
    ("cancel_race", "jobs are cancelled, each by two clients, about when they end"),
    ("retry_race", "failed jobs are tried again by two clients at once, while a third cancels them"),
    ("node_drained", "an operator drains a node in the midst of load, and resumes it"),
    ("requests_twice", "submissions come twice at the same time, with one key"),
    ("log_flood", "tasks of one tenant write far more lines than all others"),
    ("followers_leave", "clients follow events and logs, leave in the middle and go on later"),
    ("retries_pressed", "failed jobs are tried again by two clients at once, and nobody cancels them"),
    ("logs_watched", "jobs write lines for long on several nodes, and clients follow each of them meanwhile"),
    ("gang_burst", "many gangs are submitted at once"),
    ("supervisor_dies_launching", "a machine's supervisor dies as it takes a launch; the next one has it"),
];

impl Fault {
    /// As in [`KINDS`], and as a plan has it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::ServerKilled { .. } => "server_killed",
            Self::ServerPowerLoss { .. } => "server_power_loss",
            Self::ServerPaused { .. } => "server_paused",
            Self::AgentKilled { .. } => "agent_killed",
            Self::AgentsUpgraded { .. } => "agents_upgraded",
            Self::MachinePowerLoss { .. } => "machine_power_loss",
            Self::MachineGone { .. } => "machine_gone",
            Self::MachineCutOff { .. } => "machine_cut_off",
            Self::AgentStuck { .. } => "agent_stuck",
            Self::AgentPaused { .. } => "agent_paused",
            Self::ServerRolledBack { .. } => "server_rolled_back",
            Self::ServerCutFromStore { .. } => "server_cut_from_store",
            Self::ServerOutlived { .. } => "server_outlived",
            Self::ServersStartAtOnce { .. } => "servers_start_at_once",
            Self::SchedulerKilled { .. } => "scheduler_killed",
            Self::SchedulerPaused { .. } => "scheduler_paused",
            Self::SchedulerCut { .. } => "scheduler_cut",
            Self::SchedulerRepliesLost { .. } => "scheduler_replies_lost",
            Self::SupervisorKilled { .. } => "supervisor_killed",
            Self::CrashInRecovery { .. } => "crash_in_recovery",
            Self::CrashInCreation { .. } => "crash_in_creation",
            Self::SlowDisk { .. } => "slow_disk",
            Self::SyncErrors { .. } => "sync_errors",
            Self::SyncLies { .. } => "sync_lies",
            Self::ReadErrors { .. } => "read_errors",
            Self::WriteErrors { .. } => "write_errors",
            Self::DiskFull { .. } => "disk_full",
            Self::BitRot { .. } => "bit_rot",
            Self::TransfersBroken { .. } => "transfers_broken",
            Self::TransfersSlow { .. } => "transfers_slow",
            Self::TransfersTruncated { .. } => "transfers_truncated",
            Self::TransfersCorrupted { .. } => "transfers_corrupted",
            Self::UploadRepliesLost { .. } => "upload_replies_lost",
            Self::Partition { .. } => "partition",
            Self::Flapping { .. } => "flapping",
            Self::HalfOpen { .. } => "half_open",
            Self::SlowLink { .. } => "slow_link",
            Self::RepliesLost { .. } => "replies_lost",
            Self::RequestsLost { .. } => "requests_lost",
            Self::ClientRepliesLost { .. } => "client_replies_lost",
            Self::MessageLoss { .. } => "message_loss",
            Self::SlowLinks { .. } => "slow_links",
            Self::ClockSkew { .. } => "clock_skew",
            Self::ClockDrift { .. } => "clock_drift",
            Self::ClockForward { .. } => "clock_forward",
            Self::ClockBack { .. } => "clock_back",
            Self::LaunchesFail { .. } => "launches_fail",
            Self::SlowStarts { .. } => "slow_starts",
            Self::TasksKilled { .. } => "tasks_killed",
            Self::TasksOutOfMemory { .. } => "tasks_out_of_memory",
            Self::TasksHang { .. } => "tasks_hang",
            Self::TasksExit { .. } => "tasks_exit",
            Self::TasksDeaf { .. } => "tasks_deaf",
            Self::OutputsMissing { .. } => "outputs_missing",
            Self::OutputsCorrupt { .. } => "outputs_corrupt",
            Self::SubmissionBurst { .. } => "submission_burst",
            Self::RetryStorm { .. } => "retry_storm",
            Self::QuotaBreach { .. } => "quota_breach",
            Self::CancelRace { .. } => "cancel_race",
            Self::RetryRace { .. } => "retry_race",
            Self::RetriesPressed { .. } => "retries_pressed",
            Self::NodeDrained { .. } => "node_drained",
            Self::RequestsTwice { .. } => "requests_twice",
            Self::LogFlood { .. } => "log_flood",
            Self::LogsWatched { .. } => "logs_watched",
            Self::FollowersLeave { .. } => "followers_leave",
            Self::SupervisorDiesLaunching { .. } => "supervisor_dies_launching",
            Self::GangBurst { .. } => "gang_burst",
        }
    }

    /// The machine it strikes; 0, the server, where it is all of them.
    #[must_use]
    pub fn machine(&self) -> usize {
        match *self {
            Self::ServerCutFromStore { .. }
            | Self::ServerOutlived { .. }
            | Self::ServersStartAtOnce { .. }
            | Self::AgentsUpgraded { .. }
            | Self::ClientRepliesLost { .. }
            | Self::MessageLoss { .. }
            | Self::SlowLinks { .. }
            | Self::SubmissionBurst { .. }
            | Self::GangBurst { .. }
            | Self::RetryStorm { .. }
            | Self::QuotaBreach { .. }
            | Self::CancelRace { .. }
            | Self::RetryRace { .. }
            | Self::RetriesPressed { .. }
            | Self::RequestsTwice { .. }
            | Self::LogFlood { .. }
            | Self::LogsWatched { .. }
            | Self::FollowersLeave { .. } => 0,
            Self::ServerKilled { machine, .. }
            | Self::ServerPowerLoss { machine, .. }
            | Self::ServerPaused { machine, .. }
            | Self::ServerRolledBack { machine, .. }
            | Self::BitRot { machine, .. }
            | Self::CrashInRecovery { machine, .. }
            | Self::CrashInCreation { machine, .. }
            | Self::SlowDisk { machine, .. }
            | Self::SyncErrors { machine, .. }
            | Self::ReadErrors { machine, .. }
            | Self::WriteErrors { machine, .. }
            | Self::DiskFull { machine, .. }
            | Self::ClockSkew { machine, .. }
            | Self::ClockDrift { machine, .. }
            | Self::ClockForward { machine, .. }
            | Self::ClockBack { machine, .. }
            | Self::SchedulerKilled { machine, .. }
            | Self::SchedulerPaused { machine, .. }
            | Self::SchedulerCut { machine, .. }
            | Self::SchedulerRepliesLost { machine, .. } => machine,
            Self::AgentKilled { agent, .. }
            | Self::MachinePowerLoss { agent, .. }
            | Self::MachineGone { agent }
            | Self::MachineCutOff { agent }
            | Self::AgentStuck { agent }
            | Self::SyncLies { agent, .. }
            | Self::NodeDrained { agent, .. }
            | Self::AgentPaused { agent, .. }
            | Self::SupervisorKilled { agent }
            | Self::SupervisorDiesLaunching { agent, .. }
            | Self::HalfOpen { agent }
            | Self::SlowLink { agent, .. }
            | Self::TransfersBroken { agent, .. }
            | Self::TransfersSlow { agent, .. }
            | Self::TransfersTruncated { agent, .. }
            | Self::TransfersCorrupted { agent, .. }
            | Self::UploadRepliesLost { agent, .. }
            | Self::Partition { agent, .. }
            | Self::Flapping { agent, .. }
            | Self::RepliesLost { agent, .. }
            | Self::RequestsLost { agent, .. }
            | Self::LaunchesFail { agent, .. }
            | Self::SlowStarts { agent, .. }
            | Self::TasksKilled { agent, .. }
            | Self::TasksOutOfMemory { agent, .. }
            | Self::TasksHang { agent, .. }
            | Self::TasksExit { agent, .. }
            | Self::TasksDeaf { agent, .. }
            | Self::OutputsMissing { agent, .. }
            | Self::OutputsCorrupt { agent, .. } => agent + 1,
        }
    }

    /// From its strike to its healing. One that is its own end has none.
    #[must_use]
    pub fn span_ms(&self) -> u64 {
        match *self {
            Self::ServerKilled { down_ms, .. }
            | Self::ServerPowerLoss { down_ms, .. }
            | Self::ServerRolledBack { down_ms, .. }
            | Self::ServersStartAtOnce { down_ms }
            | Self::AgentKilled { down_ms, .. }
            | Self::SchedulerKilled { down_ms, .. }
            | Self::MachinePowerLoss { down_ms, .. }
            | Self::CrashInRecovery { down_ms, .. } => down_ms.max(DOWN_MS_MIN),
            // Jobs are over when they are over; liveness sees to that.
            Self::SupervisorKilled { .. }
            | Self::MachineGone { .. }
            | Self::MachineCutOff { .. }
            | Self::AgentStuck { .. }
            | Self::HalfOpen { .. }
            | Self::SubmissionBurst { .. }
            | Self::GangBurst { .. }
            | Self::QuotaBreach { .. }
            | Self::CancelRace { .. }
            | Self::RetryRace { .. }
            | Self::RetriesPressed { .. }
            | Self::RequestsTwice { .. }
            | Self::LogFlood { .. } => 0,
            Self::RetryStorm { for_ms, .. }
            | Self::LogsWatched { for_ms, .. }
            | Self::FollowersLeave { for_ms, .. } => for_ms,
            Self::ClockSkew { .. } => 60_000,
            Self::ServerPaused { for_ms, .. }
            | Self::ServerCutFromStore { for_ms }
            | Self::ServerOutlived { for_ms, .. }
            | Self::AgentPaused { for_ms, .. }
            | Self::SchedulerPaused { for_ms, .. }
            | Self::SchedulerCut { for_ms, .. }
            | Self::SchedulerRepliesLost { for_ms, .. }
            | Self::AgentsUpgraded { for_ms, .. }
            | Self::NodeDrained { for_ms, .. }
            | Self::SupervisorDiesLaunching { for_ms, .. }
            | Self::CrashInCreation { for_ms, .. }
            | Self::SlowDisk { for_ms, .. }
            | Self::SyncErrors { for_ms, .. }
            | Self::SyncLies { for_ms, .. }
            | Self::ReadErrors { for_ms, .. }
            | Self::WriteErrors { for_ms, .. }
            | Self::DiskFull { for_ms, .. }
            | Self::BitRot { for_ms, .. }
            | Self::TransfersBroken { for_ms, .. }
            | Self::TransfersSlow { for_ms, .. }
            | Self::TransfersTruncated { for_ms, .. }
            | Self::TransfersCorrupted { for_ms, .. }
            | Self::UploadRepliesLost { for_ms, .. }
            | Self::Partition { for_ms, .. }
            | Self::Flapping { for_ms, .. }
            | Self::SlowLink { for_ms, .. }
            | Self::RepliesLost { for_ms, .. }
            | Self::RequestsLost { for_ms, .. }
            | Self::ClientRepliesLost { for_ms }
            | Self::MessageLoss { for_ms, .. }
            | Self::SlowLinks { for_ms, .. }
            | Self::ClockDrift { for_ms, .. }
            | Self::ClockForward { for_ms, .. }
            | Self::ClockBack { for_ms, .. }
            | Self::LaunchesFail { for_ms, .. }
            | Self::SlowStarts { for_ms, .. }
            | Self::TasksKilled { for_ms, .. }
            | Self::TasksOutOfMemory { for_ms, .. }
            | Self::TasksHang { for_ms, .. }
            | Self::TasksExit { for_ms, .. }
            | Self::TasksDeaf { for_ms, .. }
            | Self::OutputsMissing { for_ms, .. }
            | Self::OutputsCorrupt { for_ms, .. } => for_ms,
        }
    }
}

impl Fault {
    /// The agent whose machine or process this takes away and never gives back.
    #[must_use]
    pub fn takes_for_good(&self) -> Option<usize> {
        match *self {
            Self::MachineGone { agent } | Self::MachineCutOff { agent } | Self::AgentStuck { agent } => {
                Some(agent)
            }
            _ => None,
        }
    }
}

/// Between a kill and a restart at least: sockets must be gone.
pub const DOWN_MS_MIN: u64 = 50;

/// A fault and when it strikes.
#[derive(Clone, Debug, PartialEq)]
pub struct Planned {
    pub at_ms: u64,
    pub fault: Fault,
}

/// How often each kind fired.
#[derive(Clone, Debug, Default)]
pub struct Fired(pub BTreeMap<&'static str, u64>);

impl Fired {
    pub fn count(&mut self, kind: &'static str) {
        self.add(kind, 1);
    }

    pub fn add(&mut self, kind: &'static str, times: u64) {
        if times > 0 {
            *self.0.entry(kind).or_default() += times;
        }
    }

    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }
}
