//! What the faults that hold at an instant make of a machine. Always made of
//! all that hold, so that one that heals takes nothing from another, and once
//! none is left all is well.

use crate::faults::{Fault, Fired};
use world::sim::universe::Net;
use world::sim::{DiskCounts, DiskFaults, ProcessCounts, ProcessFaults, TransferCounts, TransferFaults};
use world::time;

/// A fault that holds, with what its machine's disk had when it struck.
#[derive(Clone, Debug)]
pub struct Holding {
    pub fault: Fault,
    pub used_bytes: u64,
}

/// What a launch that is slow waits at most.
const SLOW_START_MS: u64 = 6_000;

pub fn net(holding: &[Holding]) -> Net {
    let mut net = Net::default();
    for held in holding {
        match held.fault {
            Fault::MessageLoss { percent, .. } => net.loss = f64::from(percent) / 100.0,
            Fault::SlowLinks { latency_ms, .. } => {
                net.latency = time::ms(latency_ms / 2)..time::ms(latency_ms);
            }
            _ => {}
        }
    }
    net
}

pub fn disk_lag_ms(holding: &[Holding], of: usize) -> u64 {
    let lags = holding.iter().filter_map(|held| match held.fault {
        Fault::SlowDisk { machine, lag_ms, .. } if machine == of => Some(lag_ms),
        _ => None,
    });
    lags.max().unwrap_or(0)
}

pub fn link_lag_ms(holding: &[Holding], of: usize) -> u64 {
    let lags = holding.iter().filter_map(|held| match held.fault {
        Fault::SlowLink { lag_ms, .. } if held.fault.machine() == of => Some(lag_ms),
        _ => None,
    });
    lags.max().unwrap_or(0)
}

pub fn drift_ppm(holding: &[Holding], of: usize) -> i32 {
    let mut drifts = holding.iter().filter_map(|held| match held.fault {
        Fault::ClockSkew { machine, drift_ppm, .. } | Fault::ClockDrift { machine, drift_ppm, .. }
            if machine == of =>
        {
            Some(drift_ppm)
        }
        _ => None,
    });
    // Never the sum: two clocks drift apart no further than the leases allow for.
    i32::try_from(drifts.next_back().unwrap_or(0)).expect("drawn small")
}

pub fn disk(holding: &[Holding], of: usize) -> DiskFaults {
    let mut faults = DiskFaults::default();
    for held in holding.iter().filter(|held| held.fault.machine() == of) {
        match held.fault {
            Fault::SyncErrors { ppm, forgets, .. } => {
                faults.sync_error_ppm = faults.sync_error_ppm.max(ppm);
                faults.sync_error_forgets |= forgets;
            }
            Fault::SyncLies { ppm, .. } => faults.lying_sync_ppm = faults.lying_sync_ppm.max(ppm),
            Fault::ReadErrors { ppm, .. } => faults.read_error_ppm = faults.read_error_ppm.max(ppm),
            Fault::WriteErrors { ppm, .. } => faults.write_error_ppm = faults.write_error_ppm.max(ppm),
            Fault::DiskFull { spare_bytes, .. } => {
                // 0 would be no limit.
                let capacity = (held.used_bytes + spare_bytes).max(1);
                let sooner = faults.capacity_bytes == 0 || capacity < faults.capacity_bytes;
                faults.capacity_bytes = if sooner { capacity } else { faults.capacity_bytes };
            }
            Fault::BitRot { ppm, .. } => faults.rot_ppm = faults.rot_ppm.max(ppm),
            _ => {}
        }
    }
    faults
}

pub fn transfers(holding: &[Holding], of: usize) -> TransferFaults {
    let mut faults = TransferFaults::default();
    for held in holding.iter().filter(|held| held.fault.machine() == of) {
        let (chance, ppm) = match held.fault {
            Fault::TransfersBroken { ppm, .. } => (&mut faults.break_ppm, ppm),
            Fault::TransfersTruncated { ppm, .. } => (&mut faults.truncate_ppm, ppm),
            Fault::TransfersCorrupted { ppm, .. } => (&mut faults.corrupt_ppm, ppm),
            Fault::UploadRepliesLost { ppm, .. } => (&mut faults.lost_reply_ppm, ppm),
            Fault::TransfersSlow { lag_ms, .. } => {
                faults.slow_ms = lag_ms;
                (&mut faults.slow_ppm, 1_000_000)
            }
            _ => continue,
        };
        *chance = (*chance).max(ppm);
    }
    faults
}

pub fn processes(holding: &[Holding], of: usize) -> ProcessFaults {
    let mut faults = ProcessFaults::default();
    for held in holding.iter().filter(|held| held.fault.machine() == of) {
        let (chance, ppm) = match held.fault {
            Fault::LaunchesFail { ppm, .. } => (&mut faults.launch_ppm, ppm),
            Fault::SlowStarts { ppm, .. } => {
                faults.slow_ms = SLOW_START_MS;
                (&mut faults.slow_ppm, ppm)
            }
            Fault::TasksKilled { ppm, .. } => (&mut faults.kill_ppm, ppm),
            Fault::TasksOutOfMemory { ppm, .. } => (&mut faults.oom_ppm, ppm),
            Fault::TasksHang { ppm, .. } => (&mut faults.hang_ppm, ppm),
            Fault::TasksExit { ppm, .. } => (&mut faults.code_ppm, ppm),
            Fault::TasksDeaf { ppm, .. } => (&mut faults.deaf_ppm, ppm),
            Fault::OutputsMissing { ppm, .. } => (&mut faults.no_output_ppm, ppm),
            Fault::OutputsCorrupt { ppm, .. } => (&mut faults.late_output_ppm, ppm),
            _ => continue,
        };
        *chance = (*chance).max(ppm);
    }
    faults
}

/// True where a kind need not come to pass: it is counted when it has, or at the end.
pub fn may_miss(fault: &Fault) -> bool {
    match fault {
        Fault::CrashInRecovery { .. }
        | Fault::CrashInCreation { .. }
        | Fault::FollowersLeave { .. }
        | Fault::SupervisorDiesLaunching { .. }
        | Fault::ServerOutlived { .. }
        | Fault::HalfOpen { .. } => true,
        Fault::SyncErrors { .. }
        | Fault::SyncLies { .. }
        | Fault::ReadErrors { .. }
        | Fault::WriteErrors { .. }
        | Fault::DiskFull { .. }
        | Fault::BitRot { .. } => true,
        fault => {
            let held = [Holding { fault: fault.clone(), used_bytes: 0 }];
            let of = fault.machine();
            transfers(&held, of) != TransferFaults::default()
                || processes(&held, of) != ProcessFaults::default()
        }
    }
}

pub fn count_disk(fired: &mut Fired, counts: &DiskCounts) {
    fired.add("sync_errors", counts.sync_errors);
    fired.add("sync_lies", counts.lying_syncs);
    fired.add("read_errors", counts.read_errors);
    fired.add("write_errors", counts.write_errors);
    fired.add("disk_full", counts.no_space);
    fired.add("bit_rot", counts.rotten_reads);
}

pub fn count_transfers(fired: &mut Fired, counts: &TransferCounts) {
    fired.add("transfers_broken", counts.broken);
    fired.add("transfers_slow", counts.slowed);
    fired.add("transfers_truncated", counts.truncated);
    fired.add("transfers_corrupted", counts.corrupted);
    fired.add("upload_replies_lost", counts.lost_replies);
}

pub fn count_processes(fired: &mut Fired, counts: &ProcessCounts) {
    fired.add("launches_fail", counts.launches_denied);
    fired.add("slow_starts", counts.slow);
    fired.add("tasks_killed", counts.killed);
    fired.add("tasks_out_of_memory", counts.out_of_memory);
    fired.add("tasks_hang", counts.hung);
    fired.add("tasks_exit", counts.codes);
    fired.add("tasks_deaf", counts.deaf);
    fired.add("outputs_missing", counts.no_outputs);
    fired.add("outputs_corrupt", counts.late_outputs);
    fired.add("supervisor_dies_launching", counts.died_launching);
}
