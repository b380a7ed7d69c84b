//! What may go wrong in the simulated world, how often, and how often it did.
//! Chances are in parts per million, so that a plan is whole numbers.

use rand::RngCore;

/// Draws once from `rng` when the chance is not zero, so that a fault that is
/// off leaves the sequence alone.
pub(crate) fn strikes(rng: &mut impl RngCore, ppm: u32) -> bool {
    ppm > 0 && rng.next_u32() % 1_000_000 < ppm
}

/// A number below `bound`, which is not 0.
pub(crate) fn below(rng: &mut impl RngCore, bound: u64) -> u64 {
    assert!(bound > 0, "nothing is below zero");
    rng.next_u64() % bound
}

/// What a disk does wrong while its node runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskFaults {
    /// A read fails.
    pub read_error_ppm: u32,
    /// A write fails; a prefix of it may be there.
    pub write_error_ppm: u32,
    /// A sync fails; each unsynced write is durable or still is not.
    pub sync_error_ppm: u32,
    /// After a failed sync, what is not durable never will be, though reads
    /// see it and later syncs succeed (as Linux does since it marks pages clean).
    pub sync_error_forgets: bool,
    /// A sync succeeds and has done nothing.
    pub lying_sync_ppm: u32,
    /// All files together hold no more; 0: no limit.
    pub capacity_bytes: u64,
    /// A read of what lies below `objects/` gives one bit wrong.
    pub rot_ppm: u32,
}

/// How often each fault fired since the disk was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskCounts {
    /// Reads failed.
    pub read_errors: u64,
    /// Writes failed.
    pub write_errors: u64,
    /// Syncs failed, of files and directories.
    pub sync_errors: u64,
    /// Syncs that lied.
    pub lying_syncs: u64,
    /// Writes refused for want of space.
    pub no_space: u64,
    /// Reads that gave a wrong bit.
    pub rotten_reads: u64,
    /// Power losses.
    pub power_losses: u64,
    /// Unsynced writes that a power loss let be.
    pub writes_kept: u64,
    /// Unsynced writes that it undid.
    pub writes_lost: u64,
    /// Unsynced writes of which it left a prefix.
    pub writes_torn: u64,
    /// Unsynced makings, renamings and removals that it let be.
    pub names_kept: u64,
    /// And those it undid.
    pub names_lost: u64,
}

impl DiskCounts {
    /// How often whoever asked was told that something failed.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.read_errors + self.write_errors + self.sync_errors + self.no_space
    }
}

/// What transfers of one node suffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransferFaults {
    /// Breaks at some chunk.
    pub break_ppm: u32,
    /// The upload was taken, its answer is lost.
    pub lost_reply_ppm: u32,
    /// The last part never arrives.
    pub truncate_ppm: u32,
    /// A bit of one chunk flips.
    pub corrupt_ppm: u32,
    /// Each chunk waits `slow_ms`.
    pub slow_ppm: u32,
    /// See `slow_ppm`.
    pub slow_ms: u64,
    /// Every request waits at least so long.
    pub latency_ms_min: u64,
    /// And less than so long where greater.
    pub latency_ms_max: u64,
}

impl Default for TransferFaults {
    fn default() -> Self {
        Self {
            break_ppm: 0,
            lost_reply_ppm: 0,
            truncate_ppm: 0,
            corrupt_ppm: 0,
            slow_ppm: 0,
            slow_ms: 500,
            latency_ms_min: 1,
            latency_ms_max: 5,
        }
    }
}

/// How often each fault fired.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TransferCounts {
    /// Transfers begun.
    pub begun: u64,
    /// Refused since the network was cut.
    pub unreachable: u64,
    /// Broken.
    pub broken: u64,
    /// Taken without an answer.
    pub lost_replies: u64,
    /// Cut short.
    pub truncated: u64,
    /// Altered.
    pub corrupted: u64,
    /// Slowed.
    pub slowed: u64,
    /// Forged URLs that were tried.
    pub forged: u64,
    /// And those that a server took.
    pub forged_taken: u64,
    /// Bytes that moved within some second, of transfers that are to keep to a pace.
    pub most_in_a_second: u64,
    /// Transfers that began within some minute from a source of which many had failed just
    /// before and none had not.
    pub most_in_vain_a_minute: u64,
}
