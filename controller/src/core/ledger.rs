//! Money and counts, double entry: every posting moves an amount from one
//! account to another, in the tenant's ledger and in the job's part of it at
//! once. What must hold: the ledger's reserved amounts are the sums over the
//! tenant's live jobs (`check` proves it).
//!
//! Reserved at admission, settled by attempt, the rest released at the end.
//! Storage is what clients uploaded, once for the same bytes, and what each job
//! gave, checkpoints of tasks that have not completed among it. Traffic is booked as it moved: what clients sent and fetched as the gateway
//! tells, what nodes fetch for a job when it is let in.

use proto::v1::{JobStateRow, LedgerRow};

/// A job is let in: `price` moves from free to reserved. Of a price beyond all
/// numbers (an absurd estimate, where no budget refused it) as much as the
/// account can hold, so that both sides stay equal.
pub(super) fn reserve(ledger: &mut LedgerRow, job: &mut JobStateRow, price_micros: u64, tasks: u64) {
    let price_micros = price_micros.min(u64::MAX - ledger.reserved_micros);
    ledger.reserved_micros += price_micros;
    job.reserved_micros = job.reserved_micros.saturating_add(price_micros);
    ledger.queued_tasks = ledger.queued_tasks.saturating_add(tasks);
    job.queued_tasks_reserved = job.queued_tasks_reserved.saturating_add(tasks);
    ledger.live_jobs += 1;
}

/// An attempt cost `amount`: it moves from reserved to settled, and what goes
/// beyond the reservation from free to settled.
pub(super) fn settle(ledger: &mut LedgerRow, job: &mut JobStateRow, amount_micros: u64) {
    let reserved = amount_micros.min(job.reserved_micros);
    job.reserved_micros -= reserved;
    ledger.reserved_micros = ledger.reserved_micros.saturating_sub(reserved);
    job.settled_micros = job.settled_micros.saturating_add(amount_micros);
    ledger.settled_micros = ledger.settled_micros.saturating_add(amount_micros);
}

/// Tasks reached their ends (of this generation).
pub(super) fn tasks_over(ledger: &mut LedgerRow, job: &mut JobStateRow, tasks: u64) {
    let tasks = tasks.min(job.queued_tasks_reserved);
    job.queued_tasks_reserved -= tasks;
    ledger.queued_tasks = ledger.queued_tasks.saturating_sub(tasks);
}

/// The job ended: what is still reserved is free again.
pub(super) fn release(ledger: &mut LedgerRow, job: &mut JobStateRow) {
    ledger.reserved_micros = ledger.reserved_micros.saturating_sub(job.reserved_micros);
    job.reserved_micros = 0;
    let tasks = job.queued_tasks_reserved;
    tasks_over(ledger, job, tasks);
    ledger.live_jobs = ledger.live_jobs.saturating_sub(1);
}

/// Outputs were committed. Of sizes beyond all numbers, which an agent may
/// claim, as much as the account can hold.
pub(super) fn store(ledger: &mut LedgerRow, job: &mut JobStateRow, bytes: u64) {
    let bytes = bytes.min(u64::MAX - ledger.storage_bytes);
    ledger.storage_bytes += bytes;
    job.storage_bytes = job.storage_bytes.saturating_add(bytes);
}

/// What was counted as stored is not kept any more.
pub(super) fn drop_stored(ledger: &mut LedgerRow, job: &mut JobStateRow, bytes: u64) {
    let bytes = bytes.min(job.storage_bytes);
    job.storage_bytes -= bytes;
    ledger.storage_bytes = ledger.storage_bytes.saturating_sub(bytes);
}

/// Clients uploaded what was not there before. As much as the account can hold; returns
/// how much.
pub(super) fn keep(ledger: &mut LedgerRow, bytes: u64) -> u64 {
    let bytes = bytes.min(u64::MAX - ledger.storage_bytes);
    ledger.storage_bytes += bytes;
    ledger.uploaded_bytes += bytes;
    bytes
}

/// An upload goes.
pub(super) fn forget(ledger: &mut LedgerRow, bytes: u64) {
    let bytes = bytes.min(ledger.uploaded_bytes);
    ledger.uploaded_bytes -= bytes;
    ledger.storage_bytes = ledger.storage_bytes.saturating_sub(bytes);
}

/// Bytes that came in from the tenant's side (`ingress`) or went out to it.
pub(super) fn moved(ledger: &mut LedgerRow, ingress_bytes: u64, egress_bytes: u64) {
    ledger.ingress_bytes = ledger.ingress_bytes.saturating_add(ingress_bytes);
    ledger.egress_bytes = ledger.egress_bytes.saturating_add(egress_bytes);
}

/// A job was let in whose inputs nodes fetch from elsewhere.
pub(super) fn fetch(ledger: &mut LedgerRow, job: &mut JobStateRow, bytes: u64) {
    let bytes = bytes.min(u64::MAX - ledger.ingress_bytes);
    moved(ledger, bytes, 0);
    job.ingress_bytes = job.ingress_bytes.saturating_add(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moved_adds_up_and_a_job_knows_its_part() {
        let (mut ledger, mut job) = (LedgerRow::default(), JobStateRow::default());
        fetch(&mut ledger, &mut job, 10);
        moved(&mut ledger, 5, 7);
        assert_eq!((ledger.ingress_bytes, ledger.egress_bytes, job.ingress_bytes), (15, 7, 10));
        moved(&mut ledger, u64::MAX, u64::MAX);
        assert_eq!((ledger.ingress_bytes, ledger.egress_bytes), (u64::MAX, u64::MAX));
    }

    #[test]
    fn absurd_prices_leave_the_others_reservations_alone() {
        let mut ledger = LedgerRow::default();
        let mut jobs: [JobStateRow; 3] = Default::default();
        for (job, price) in jobs.iter_mut().zip([100, u64::MAX, 7]) {
            reserve(&mut ledger, job, price, 1);
        }
        assert_eq!(ledger.reserved_micros, jobs.iter().map(|job| job.reserved_micros).sum::<u64>());
        release(&mut ledger, &mut jobs[1]);
        assert_eq!((ledger.reserved_micros, jobs[0].reserved_micros), (100, 100));
    }

    #[test]
    fn what_is_kept_was_uploaded_or_given() {
        let (mut ledger, mut job) = (LedgerRow::default(), JobStateRow::default());
        keep(&mut ledger, 10);
        store(&mut ledger, &mut job, 5);
        assert_eq!((ledger.storage_bytes, ledger.uploaded_bytes, job.storage_bytes), (15, 10, 5));
        drop_stored(&mut ledger, &mut job, 2);
        assert_eq!((ledger.storage_bytes, ledger.uploaded_bytes, job.storage_bytes), (13, 10, 3));
        drop_stored(&mut ledger, &mut job, 9);
        assert_eq!((ledger.storage_bytes, job.storage_bytes), (10, 0), "not what others gave");
        keep(&mut ledger, u64::MAX);
        assert_eq!(
            (ledger.storage_bytes, ledger.uploaded_bytes),
            (u64::MAX, u64::MAX),
            "it fits beside nothing"
        );
    }

    #[test]
    fn what_is_reserved_is_settled_or_released() {
        let (mut ledger, mut job) = (LedgerRow::default(), JobStateRow::default());
        reserve(&mut ledger, &mut job, 100, 2);
        settle(&mut ledger, &mut job, 70);
        assert_eq!((ledger.reserved_micros, ledger.settled_micros), (30, 70));
        // An attempt that costs more than what is left does not touch others' reservations.
        settle(&mut ledger, &mut job, 70);
        assert_eq!((ledger.reserved_micros, ledger.settled_micros, job.settled_micros), (0, 140, 140));
        release(&mut ledger, &mut job);
        assert_eq!((ledger.queued_tasks, ledger.live_jobs), (0, 0));
        proto::month::turn(&mut ledger, 0);
        assert_eq!(ledger.settled_micros, 0);
    }
}
