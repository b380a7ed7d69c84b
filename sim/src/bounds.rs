//! The bounds of invariant 9: by when a cluster is well again after each kind of fault,
//! and how long nothing may go on after that while work is left.
//!
//! A job's end has no bound in seconds of its own: it waits for capacity behind others'
//! work. But once all is healed and the last fault is no longer felt, somebody's work
//! goes on all the time, until none is left.

use crate::faults::Planned;

/// The longest task of a workload (40 s), and its end where it must be killed.
pub const QUIET_MS: u64 = 60_000;

/// To whom nothing happens but that he is disturbed: with the next message, or the next
/// look of a scheduler, all is as before.
const DISTURBED_MS: u64 = 10_000;
/// An agent connects anew: its pause is 10 s at most with its jitter, and a call that
/// nobody answers is given up after 10 s.
const CONNECTED_MS: u64 = 20_000;
/// A node's lease has run out and its work may be begun elsewhere.
const LEASE_MS: u64 = 32_000;
/// The longest back-off of what the platform lost: the third, of 20 s, with its jitter.
const BACKOFF_MS: u64 = 24_000;
/// What is to be tried again waits for a slot, behind the longest task.
const SLOT_MS: u64 = 40_000;
/// A transfer under way that nothing moves any more is given up.
const TRANSFER_MS: u64 = 60_000;
/// Between two looks of the operator who takes nodes back that drained themselves.
const OPERATOR_MS: u64 = 10_000;

/// Kinds of faults, how long after its heal each may still be felt, and why.
const FELT: &[(&[&str], u64, &str)] = &[
    (
        &[
            "submission_burst",
            "gang_burst",
            "retry_storm",
            "quota_breach",
            "cancel_race",
            "retry_race",
            "retries_pressed",
            "requests_twice",
            "log_flood",
            "logs_watched",
            "followers_leave",
            "client_replies_lost",
            "node_drained",
        ],
        DISTURBED_MS,
        "clients pressed; nothing was lost",
    ),
    (
        &["scheduler_killed", "scheduler_paused", "scheduler_cut", "scheduler_replies_lost"],
        CONNECTED_MS,
        "it follows the server anew; the server has a scheduler of its own meanwhile",
    ),
    (
        &[
            "agent_killed",
            "agents_upgraded",
            "agent_paused",
            "partition",
            "flapping",
            "half_open",
            "slow_link",
            "replies_lost",
            "requests_lost",
            "message_loss",
            "slow_links",
            "server_killed",
            "server_power_loss",
            "server_paused",
            "server_rolled_back",
            "server_cut_from_store",
            "server_outlived",
            "servers_start_at_once",
            "slow_disk",
            "sync_errors",
            "read_errors",
            "write_errors",
            "disk_full",
            "clock_skew",
            "clock_drift",
            "clock_forward",
            "clock_back",
            "crash_in_creation",
        ],
        LEASE_MS + BACKOFF_MS + SLOT_MS,
        "agents connect anew; where that took too long a lease runs out, and its work waits for its next try",
    ),
    (
        &[
            "machine_power_loss",
            "crash_in_recovery",
            "supervisor_killed",
            "supervisor_dies_launching",
            "sync_lies",
        ],
        CONNECTED_MS + BACKOFF_MS + SLOT_MS,
        "the agent says what it lost as soon as it is back, and that waits for its next try",
    ),
    (
        &["machine_gone", "machine_cut_off", "agent_stuck"],
        LEASE_MS + BACKOFF_MS + SLOT_MS,
        "its lease runs out, and its work waits for its next try",
    ),
    (
        &[
            "launches_fail",
            "slow_starts",
            "tasks_killed",
            "tasks_out_of_memory",
            "tasks_hang",
            "tasks_exit",
            "tasks_deaf",
            "outputs_missing",
            "outputs_corrupt",
        ],
        OPERATOR_MS + BACKOFF_MS + SLOT_MS,
        "tasks wait for their next try, a node that drained itself for its operator",
    ),
    (
        &[
            "transfers_broken",
            "transfers_slow",
            "transfers_truncated",
            "transfers_corrupted",
            "upload_replies_lost",
            "bit_rot",
        ],
        TRANSFER_MS + BACKOFF_MS + SLOT_MS,
        "a transfer that was struck is given up at its deadline, and its task waits for its next try",
    ),
];

/// How long after its heal a kind of fault may still be felt.
#[must_use]
pub fn felt_ms(kind: &str) -> u64 {
    let of = FELT.iter().find(|(kinds, ..)| kinds.contains(&kind));
    of.unwrap_or_else(|| panic!("{kind} has no bound")).1
}

/// From when on no fault of a plan is felt any more.
#[must_use]
pub fn well_ms(plan: &[Planned]) -> u64 {
    let felt = |planned: &Planned| planned.at_ms + planned.fault.span_ms() + felt_ms(planned.fault.kind());
    plan.iter().map(felt).max().unwrap_or(0)
}

/// For `cargo chaos list`: the bound of each group of kinds.
pub fn lines() -> impl Iterator<Item = String> {
    FELT.iter().map(|(kinds, ms, why)| format!("{:>4} s after {}: {why}", ms / 1_000, kinds.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faults::KINDS;

    #[test]
    fn every_kind_has_one_bound() {
        for (kind, _) in KINDS {
            assert_eq!(FELT.iter().filter(|(kinds, ..)| kinds.contains(kind)).count(), 1, "{kind}");
        }
        assert_eq!(FELT.iter().map(|(kinds, ..)| kinds.len()).sum::<usize>(), KINDS.len());
    }
}
