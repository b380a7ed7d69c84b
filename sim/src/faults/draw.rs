//! Draws the faults of a run.

use super::{Fault, KINDS, Planned, SECOND_SERVER, STORAGE, together};
use crate::scenario::Scenario;
use rand::rngs::SmallRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};

/// Draws a plan. Each seed has its own subset of kinds and its own rate, since
/// a run in which everything always breaks sees only few kinds of trouble.
#[must_use]
pub fn draw(seed: u64, scenario: &Scenario, until_ms: u64) -> Vec<Planned> {
    let mut rng = SmallRng::seed_from_u64(seed ^ 0x6661_756c_7473);
    let of_schedulers = |kind: &usize| KINDS[*kind].0.starts_with("scheduler_");
    let of_several = |kind: &usize| OF_SEVERAL_SERVERS.contains(&KINDS[*kind].0);
    let mut kinds: Vec<usize> = (0..KINDS.len())
        .filter(|kind| scenario.schedulers > 0 || !of_schedulers(kind))
        .filter(|kind| scenario.servers > 1 || !of_several(kind))
        .filter(|kind| !together::ALONE.contains(&KINDS[*kind].0))
        .collect();
    if scenario.apart {
        return apart(&mut rng, &kinds, scenario, until_ms);
    }
    kinds.shuffle(&mut rng);
    kinds.truncate(rng.random_range(2..=kinds.len()));
    // As many in each two minutes.
    let spans = until_ms.div_ceil(SPAN_MS);
    let count = u64::from(rng.random_range(3..20_u32)) * spans;
    let mut plan: Vec<Planned> = (0..count)
        .map(|_| {
            let kind = *kinds.choose(&mut rng).expect("at least two kinds");
            Planned { at_ms: rng.random_range(2_000..until_ms), fault: one(&mut rng, kind, scenario) }
        })
        .collect();
    let mut together = together::draw(seed, scenario, until_ms);
    if scenario.servers > 1 {
        let mut rng = SmallRng::seed_from_u64(seed ^ 0x0073_6576_6572_616c);
        let all = plan.iter_mut().chain(&mut together);
        all.for_each(|planned| among_several(&mut rng, &mut planned.fault, scenario.servers));
    }
    let fading: Vec<Planned> = plan.iter().filter_map(|planned| fading(&mut rng, planned)).collect();
    let lying: Vec<Planned> = plan.iter().filter_map(|planned| found_out(&mut rng, planned)).collect();
    plan.extend(fading);
    plan.extend(lying);
    plan.extend(together);
    plan.sort_by_key(|planned| planned.at_ms);
    plan
}

/// One at a time, of any kind.
fn apart(rng: &mut SmallRng, kinds: &[usize], scenario: &Scenario, until_ms: u64) -> Vec<Planned> {
    let strike = |number: u64| {
        let kind = *kinds.choose(rng).expect("there are kinds");
        Planned { at_ms: number * APART_MS, fault: one(rng, kind, scenario) }
    };
    (1..until_ms / APART_MS).map(strike).collect()
}

/// A disk that is slow while its machine goes down: what was asked of it is
/// then neither done nor answered. Without that a commit is in the air for a
/// millisecond, and no death ever meets one.
fn fading(rng: &mut SmallRng, planned: &Planned) -> Option<Planned> {
    let machine = match planned.fault {
        Fault::ServerKilled { .. }
        | Fault::ServerPowerLoss { .. }
        | Fault::AgentKilled { .. }
        | Fault::MachinePowerLoss { .. }
        | Fault::MachineGone { .. }
        | Fault::CrashInRecovery { .. } => planned.fault.machine(),
        _ => return None,
    };
    rng.random_bool(0.5).then(|| Planned {
        at_ms: planned.at_ms.saturating_sub(rng.random_range(500..2_000)),
        fault: Fault::SlowDisk { machine, lag_ms: rng.random_range(20..500), for_ms: 2_000 },
    })
}

/// A disk whose syncs lied harms nobody before its machine loses power.
fn found_out(rng: &mut SmallRng, planned: &Planned) -> Option<Planned> {
    let Fault::SyncLies { agent, for_ms, .. } = planned.fault else { return None };
    let down_ms = *[300, 6_000, 45_000].choose(rng).expect("not empty");
    let at_ms = planned.at_ms + rng.random_range(1_000..=for_ms);
    rng.random_bool(0.8).then_some(Planned { at_ms, fault: Fault::MachinePowerLoss { agent, down_ms } })
}

/// Kinds that need them.
const OF_SEVERAL_SERVERS: &[&str] = &["server_cut_from_store", "server_outlived", "servers_start_at_once"];

/// What would strike the server strikes one of several, or the machine with their
/// store: what is of a disk always, since theirs is the disk.
fn among_several(rng: &mut SmallRng, fault: &mut Fault, servers: usize) {
    // The first serves first, and mostly.
    let server = match rng.random_range(0..=servers) {
        0 | 1 => 0,
        further => SECOND_SERVER + further - 2,
    };
    let storage = rng.random_bool(0.3);
    match fault {
        Fault::CrashInRecovery { machine, .. }
        | Fault::ServerKilled { machine, .. }
        | Fault::ServerPowerLoss { machine, .. }
        | Fault::ServerPaused { machine, .. }
        | Fault::ClockSkew { machine, .. }
        | Fault::ClockDrift { machine, .. }
        | Fault::ClockForward { machine, .. }
        | Fault::ClockBack { machine, .. }
            if *machine == 0 =>
        {
            *machine = if storage { STORAGE } else { server };
        }
        Fault::ServerRolledBack { machine, .. }
        | Fault::CrashInCreation { machine, .. }
        | Fault::SlowDisk { machine, .. }
        | Fault::SyncErrors { machine, .. }
        | Fault::ReadErrors { machine, .. }
        | Fault::WriteErrors { machine, .. }
        | Fault::DiskFull { machine, .. }
        | Fault::BitRot { machine, .. }
            if *machine == 0 =>
        {
            *machine = STORAGE;
        }
        _ => {}
    }
}

/// Longer than any fault lasts and is felt.
const APART_MS: u64 = 180_000;
/// Within it 3 to 19 faults strike.
const SPAN_MS: u64 = 120_000;

fn one(rng: &mut SmallRng, kind: usize, scenario: &Scenario) -> Fault {
    let agent = rng.random_range(0..scenario.agents);
    // Only drawn where there is one.
    let scheduler = scenario.agents + rng.random_range(1..=scenario.schedulers.max(1));
    // The server has one disk and one clock among many, and most to lose.
    let machine = if rng.random_bool(0.4) { 0 } else { agent + 1 };
    let down_ms = *[300, 1_500, 6_000, 14_000, 45_000].choose(rng).expect("not empty");
    let for_ms = *[800, 4_000, 11_000, 22_000, 40_000, 70_000].choose(rng).expect("not empty");
    // Of what happens often, and of what happens seldom.
    let often_ppm = *[30_000, 200_000, 1_000_000].choose(rng).expect("not empty");
    let seldom_ppm = *[300, 3_000, 30_000].choose(rng).expect("not empty");
    let shortly_ms = for_ms.min(22_000);
    match KINDS[kind].0 {
        "server_killed" => Fault::ServerKilled { machine: 0, down_ms: down_ms.min(14_000) },
        "server_power_loss" => Fault::ServerPowerLoss { machine: 0, down_ms: down_ms.min(14_000) },
        "server_paused" => Fault::ServerPaused { machine: 0, for_ms: for_ms.min(40_000) },
        "server_rolled_back" => Fault::ServerRolledBack { machine: 0, down_ms: down_ms.min(14_000) },
        "server_cut_from_store" => Fault::ServerCutFromStore { for_ms: for_ms.min(40_000) },
        "server_outlived" => {
            Fault::ServerOutlived { lag_ms: for_ms.min(1_000), after_ms: down_ms.min(2_000), for_ms: 30_000 }
        }
        "servers_start_at_once" => Fault::ServersStartAtOnce { down_ms: down_ms.min(14_000) },
        "agent_killed" => Fault::AgentKilled { agent, down_ms },
        "agents_upgraded" => {
            Fault::AgentsUpgraded { down_ms: down_ms.min(6_000), for_ms: for_ms.clamp(4_000, 40_000) }
        }
        "machine_power_loss" => Fault::MachinePowerLoss { agent, down_ms },
        "machine_gone" => Fault::MachineGone { agent },
        "machine_cut_off" => Fault::MachineCutOff { agent },
        "agent_stuck" => Fault::AgentStuck { agent },
        "agent_paused" => Fault::AgentPaused { agent, for_ms },
        "scheduler_killed" => Fault::SchedulerKilled { machine: scheduler, down_ms },
        "scheduler_paused" => Fault::SchedulerPaused { machine: scheduler, for_ms },
        "scheduler_cut" => Fault::SchedulerCut { machine: scheduler, for_ms },
        "scheduler_replies_lost" => Fault::SchedulerRepliesLost { machine: scheduler, for_ms: shortly_ms },
        "supervisor_killed" => Fault::SupervisorKilled { agent },
        "crash_in_recovery" => Fault::CrashInRecovery {
            machine,
            down_ms: down_ms.min(6_000),
            after_ms: *[1, 3, 8, 20, 60].choose(rng).expect("not empty"),
        },
        "crash_in_creation" => Fault::CrashInCreation {
            machine,
            files_before: *[0, 1, 5, 20].choose(rng).expect("not empty"),
            down_ms: down_ms.min(14_000),
            for_ms: 30_000,
        },
        "slow_disk" => Fault::SlowDisk { machine, lag_ms: rng.random_range(5..200), for_ms: shortly_ms },
        "sync_errors" => Fault::SyncErrors {
            machine,
            ppm: seldom_ppm * 10,
            forgets: rng.random_bool(0.5),
            for_ms: shortly_ms,
        },
        "sync_lies" => Fault::SyncLies { agent, ppm: often_ppm, for_ms: for_ms.max(4_000) },
        "read_errors" => Fault::ReadErrors { machine, ppm: often_ppm, for_ms: shortly_ms },
        "write_errors" => Fault::WriteErrors { machine, ppm: seldom_ppm, for_ms: shortly_ms },
        "disk_full" => Fault::DiskFull {
            machine,
            spare_bytes: *[0, 500, 20_000, 200_000].choose(rng).expect("not empty"),
            for_ms: shortly_ms,
        },
        "bit_rot" => Fault::BitRot { machine: 0, ppm: often_ppm, for_ms },
        "transfers_broken" => Fault::TransfersBroken { agent, ppm: often_ppm, for_ms },
        "transfers_slow" => Fault::TransfersSlow { agent, lag_ms: rng.random_range(50..8_000), for_ms },
        "transfers_truncated" => Fault::TransfersTruncated { agent, ppm: often_ppm, for_ms },
        "transfers_corrupted" => Fault::TransfersCorrupted { agent, ppm: often_ppm, for_ms },
        "upload_replies_lost" => Fault::UploadRepliesLost { agent, ppm: often_ppm, for_ms },
        "partition" => Fault::Partition { agent, for_ms },
        "flapping" => Fault::Flapping {
            agent,
            cut_ms: rng.random_range(100..7_000),
            whole_ms: rng.random_range(100..7_000),
            for_ms: for_ms.max(11_000),
        },
        "half_open" => Fault::HalfOpen { agent },
        "slow_link" => {
            Fault::SlowLink { agent, lag_ms: *[30, 200, 900].choose(rng).expect("not empty"), for_ms }
        }
        "replies_lost" => Fault::RepliesLost { agent, for_ms },
        "requests_lost" => Fault::RequestsLost { agent, for_ms },
        "client_replies_lost" => Fault::ClientRepliesLost { for_ms: shortly_ms },
        "message_loss" => Fault::MessageLoss { percent: rng.random_range(1..20), for_ms },
        "slow_links" => Fault::SlowLinks { latency_ms: rng.random_range(20..400), for_ms },
        "clock_skew" => Fault::ClockSkew {
            machine,
            offset_ms: rng.random_range(-3_600_000..3_600_000),
            drift_ppm: rng.random_range(-20_000..20_000),
        },
        "clock_drift" => Fault::ClockDrift { machine, drift_ppm: rng.random_range(-50_000..50_000), for_ms },
        "clock_forward" => Fault::ClockForward { machine, by_ms: jump_ms(rng), for_ms },
        "clock_back" => Fault::ClockBack { machine, by_ms: jump_ms(rng), for_ms },
        "launches_fail" => Fault::LaunchesFail { agent, ppm: often_ppm, for_ms },
        "slow_starts" => Fault::SlowStarts { agent, ppm: often_ppm, for_ms },
        "tasks_killed" => Fault::TasksKilled { agent, ppm: often_ppm, for_ms },
        "tasks_out_of_memory" => Fault::TasksOutOfMemory { agent, ppm: often_ppm, for_ms },
        "tasks_hang" => Fault::TasksHang { agent, ppm: often_ppm, for_ms },
        "tasks_exit" => Fault::TasksExit { agent, ppm: often_ppm, for_ms },
        "tasks_deaf" => Fault::TasksDeaf { agent, ppm: often_ppm, for_ms },
        "outputs_missing" => Fault::OutputsMissing { agent, ppm: often_ppm, for_ms },
        "outputs_corrupt" => Fault::OutputsCorrupt { agent, ppm: often_ppm, for_ms },
        "submission_burst" => Fault::SubmissionBurst { jobs: rng.random_range(10..120) },
        "retry_storm" => Fault::RetryStorm {
            clients: rng.random_range(2..12),
            for_ms: *[500, 2_000, 6_000].choose(rng).expect("not empty"),
        },
        "quota_breach" => Fault::QuotaBreach { clients: rng.random_range(3..12) },
        "cancel_race" => Fault::CancelRace { jobs: rng.random_range(3..25) },
        "retry_race" => Fault::RetryRace { jobs: rng.random_range(3..20) },
        "retries_pressed" => Fault::RetriesPressed { jobs: rng.random_range(3..20) },
        "node_drained" => Fault::NodeDrained { agent, for_ms },
        "requests_twice" => Fault::RequestsTwice { jobs: rng.random_range(1..20) },
        "log_flood" => Fault::LogFlood { lines: rng.random_range(500..8_000) },
        "logs_watched" => Fault::LogsWatched { jobs: rng.random_range(2..6), for_ms: for_ms.max(11_000) },
        "followers_leave" => Fault::FollowersLeave { clients: rng.random_range(2..10), for_ms: shortly_ms },
        "gang_burst" => Fault::GangBurst { jobs: rng.random_range(5..20) },
        "supervisor_dies_launching" => {
            Fault::SupervisorDiesLaunching { agent, launches_before: rng.random_range(0..6), for_ms }
        }
        kind => unreachable!("{kind} is listed and never drawn"),
    }
}

/// From a second to a day.
fn jump_ms(rng: &mut SmallRng) -> i64 {
    *[1_000, 7_000, 40_000, 3_600_000, 86_400_000].choose(rng).expect("not empty")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_kind_is_drawn_as_it_is_listed() {
        let mut rng = SmallRng::seed_from_u64(1);
        let scenario = crate::scenario::named("chaos").unwrap();
        for (kind, (name, _)) in KINDS.iter().enumerate() {
            let fault = one(&mut rng, kind, &scenario);
            assert_eq!(fault.kind(), *name);
            // And a plan calls it so.
            let written = serde_json::to_value(&fault).unwrap();
            assert!(written.get(*name).is_some(), "{written}");
            assert!(fault.machine() <= scenario.agents + scenario.schedulers);
            for servers in [2, 3] {
                let mut fault = fault.clone();
                among_several(&mut rng, &mut fault, servers);
                let machine = fault.machine();
                assert!(
                    machine <= scenario.agents + scenario.schedulers
                        || super::super::is_further(machine, servers)
                );
            }
        }
        let names: BTreeSet<&str> = KINDS.iter().map(|(name, _)| *name).collect();
        assert_eq!(names.len(), KINDS.len());
    }
}
