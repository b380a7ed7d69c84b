//! The faults of a run: drawn from its seed as an explicit plan, then fired at
//! their time. Each kind counts how often it fired.

use rand::rngs::SmallRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What may be broken. `agent` is the index of a machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The server's process dies; what it wrote stays.
    ServerKilled { down_ms: u64 },
    /// The server's machine loses power: unsynced writes are lost or torn.
    ServerPowerLoss { down_ms: u64 },
    /// The agent's process dies; its tasks go on under their supervisor.
    AgentKilled { agent: usize, down_ms: u64 },
    /// The agent's machine loses power, with tasks and unsynced writes.
    MachinePowerLoss { agent: usize, down_ms: u64 },
    /// The agent's process stands still, then goes on as if nothing had been.
    AgentPaused { agent: usize, for_ms: u64 },
    /// Whatever one machine asks of its disk takes long; machine 0 is the server.
    SlowDisk { machine: usize, lag_ms: u64, for_ms: u64 },
    /// Nothing passes between an agent and the server, and nobody is told.
    Partition { agent: usize, for_ms: u64 },
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
    /// One machine's clock is wrong; machine 0 is the server.
    ClockSkew { machine: usize, offset_ms: i64, drift_ppm: i64 },
    /// Tasks of one machine misbehave on their own for a while.
    TasksFail { agent: usize, for_ms: u64 },
}

/// Every kind by name with what it does, for `cargo chaos list`.
pub const KINDS: &[(&str, &str)] = &[
    ("server_killed", "the server's process dies and is started again"),
    ("server_power_loss", "the server's machine loses power; unsynced writes are lost or torn"),
    ("agent_killed", "an agent's process dies; its tasks go on under their supervisor"),
    ("machine_power_loss", "an agent's machine loses power, tasks and unsynced writes included"),
    ("agent_paused", "an agent's process stands still while its tasks run, then goes on"),
    ("slow_disk", "a machine's disk answers late, often before it is killed or loses power"),
    ("partition", "silence both ways between an agent and the server"),
    ("replies_lost", "an agent is heard but hears nothing"),
    ("requests_lost", "an agent hears but is not heard"),
    ("client_replies_lost", "submissions take effect, their answers are lost"),
    ("message_loss", "messages are lost and sent again, connections refused"),
    ("slow_links", "every link is slow"),
    ("clock_skew", "a machine's clock is off and drifts"),
    ("tasks_fail", "launches fail, tasks are killed or hang"),
];

impl Fault {
    /// As in [`KINDS`].
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::ServerKilled { .. } => "server_killed",
            Self::ServerPowerLoss { .. } => "server_power_loss",
            Self::AgentKilled { .. } => "agent_killed",
            Self::MachinePowerLoss { .. } => "machine_power_loss",
            Self::AgentPaused { .. } => "agent_paused",
            Self::SlowDisk { .. } => "slow_disk",
            Self::Partition { .. } => "partition",
            Self::RepliesLost { .. } => "replies_lost",
            Self::RequestsLost { .. } => "requests_lost",
            Self::ClientRepliesLost { .. } => "client_replies_lost",
            Self::MessageLoss { .. } => "message_loss",
            Self::SlowLinks { .. } => "slow_links",
            Self::ClockSkew { .. } => "clock_skew",
            Self::TasksFail { .. } => "tasks_fail",
        }
    }
}

impl Fault {
    /// The machine it strikes; 0, the server, where it is all of them.
    #[must_use]
    pub fn machine(&self) -> usize {
        match *self {
            Self::ServerKilled { .. }
            | Self::ServerPowerLoss { .. }
            | Self::ClientRepliesLost { .. }
            | Self::MessageLoss { .. }
            | Self::SlowLinks { .. } => 0,
            Self::ClockSkew { machine, .. } | Self::SlowDisk { machine, .. } => machine,
            Self::AgentKilled { agent, .. }
            | Self::MachinePowerLoss { agent, .. }
            | Self::AgentPaused { agent, .. }
            | Self::Partition { agent, .. }
            | Self::RepliesLost { agent, .. }
            | Self::RequestsLost { agent, .. }
            | Self::TasksFail { agent, .. } => agent + 1,
        }
    }
}

/// A fault and when it strikes.
#[derive(Clone, Debug, PartialEq)]
pub struct Planned {
    pub at_ms: u64,
    pub fault: Fault,
}

/// Draws a plan. Each seed has its own subset of kinds and its own rate, since
/// a run in which everything always breaks sees only few kinds of trouble.
#[must_use]
pub fn draw(seed: u64, agents: usize, until_ms: u64) -> Vec<Planned> {
    let mut rng = SmallRng::seed_from_u64(seed ^ 0x6661_756c_7473);
    let mut kinds: Vec<usize> = (0..KINDS.len()).collect();
    kinds.shuffle(&mut rng);
    kinds.truncate(rng.random_range(2..=KINDS.len()));
    let count = rng.random_range(3..16);
    let mut plan: Vec<Planned> = (0..count)
        .map(|_| {
            let kind = *kinds.choose(&mut rng).expect("at least two kinds");
            Planned { at_ms: rng.random_range(2_000..until_ms), fault: one(&mut rng, kind, agents) }
        })
        .collect();
    let fading: Vec<Planned> = plan.iter().filter_map(|planned| fading(&mut rng, planned)).collect();
    plan.extend(fading);
    plan.sort_by_key(|planned| planned.at_ms);
    plan
}

/// A disk that is slow while its machine goes down: what was asked of it is
/// then neither done nor answered. Without that a commit is in the air for a
/// millisecond, and no death ever meets one.
fn fading(rng: &mut SmallRng, planned: &Planned) -> Option<Planned> {
    let machine = match planned.fault {
        Fault::ServerKilled { .. } | Fault::ServerPowerLoss { .. } => 0,
        Fault::AgentKilled { agent, .. } | Fault::MachinePowerLoss { agent, .. } => agent + 1,
        _ => return None,
    };
    rng.random_bool(0.5).then(|| Planned {
        at_ms: planned.at_ms.saturating_sub(rng.random_range(500..2_000)),
        fault: Fault::SlowDisk { machine, lag_ms: rng.random_range(20..500), for_ms: 2_000 },
    })
}

fn one(rng: &mut SmallRng, kind: usize, agents: usize) -> Fault {
    let agent = rng.random_range(0..agents);
    let down_ms = *[300, 1_500, 6_000, 14_000, 45_000].choose(rng).expect("not empty");
    let for_ms = *[800, 4_000, 11_000, 22_000, 40_000, 70_000].choose(rng).expect("not empty");
    match KINDS[kind].0 {
        "server_killed" => Fault::ServerKilled { down_ms: down_ms.min(14_000) },
        "server_power_loss" => Fault::ServerPowerLoss { down_ms: down_ms.min(14_000) },
        "agent_killed" => Fault::AgentKilled { agent, down_ms },
        "machine_power_loss" => Fault::MachinePowerLoss { agent, down_ms },
        "agent_paused" => Fault::AgentPaused { agent, for_ms },
        "slow_disk" => Fault::SlowDisk {
            machine: rng.random_range(0..=agents),
            lag_ms: rng.random_range(5..200),
            for_ms: for_ms.min(22_000),
        },
        "partition" => Fault::Partition { agent, for_ms },
        "replies_lost" => Fault::RepliesLost { agent, for_ms },
        "requests_lost" => Fault::RequestsLost { agent, for_ms },
        "client_replies_lost" => Fault::ClientRepliesLost { for_ms: for_ms.min(22_000) },
        "message_loss" => Fault::MessageLoss { percent: rng.random_range(1..20), for_ms },
        "slow_links" => Fault::SlowLinks { latency_ms: rng.random_range(20..400), for_ms },
        "clock_skew" => Fault::ClockSkew {
            machine: rng.random_range(0..=agents),
            offset_ms: rng.random_range(-3_600_000..3_600_000),
            drift_ppm: rng.random_range(-20_000..20_000),
        },
        _ => Fault::TasksFail { agent, for_ms },
    }
}

/// How often each kind fired.
#[derive(Clone, Debug, Default)]
pub struct Fired(pub BTreeMap<&'static str, u64>);

impl Fired {
    pub fn count(&mut self, kind: &'static str) {
        *self.0.entry(kind).or_default() += 1;
    }

    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }
}
