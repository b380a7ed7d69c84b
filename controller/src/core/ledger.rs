//! Money and counts, double entry: every posting moves an amount from one
//! account to another, in the tenant's ledger and in the job's part of it at
//! once. What must hold: the ledger's reserved amounts are the sums over the
//! tenant's live jobs (`check` proves it).
//!
//! Reserved at admission, settled by attempt, the rest released at the end.

use proto::v1::{JobStateRow, LedgerRow};

/// A job is let in: `price` moves from free to reserved.
pub(super) fn reserve(ledger: &mut LedgerRow, job: &mut JobStateRow, price_micros: u64, tasks: u64) {
    ledger.reserved_micros = ledger.reserved_micros.saturating_add(price_micros);
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

/// Outputs were committed.
pub(super) fn store(ledger: &mut LedgerRow, job: &mut JobStateRow, bytes: u64) {
    ledger.storage_bytes = ledger.storage_bytes.saturating_add(bytes);
    job.storage_bytes = job.storage_bytes.saturating_add(bytes);
}

/// A new month begins with nothing settled; reservations go on. A clock that
/// jumps back does not bring an old month back.
pub(super) fn turn_month(ledger: &mut LedgerRow, wall_ms: u64) {
    let month = month_of(wall_ms);
    if month > ledger.month {
        ledger.month = month;
        ledger.settled_micros = 0;
    }
}

/// Year * 12 + month counted from 0, UTC, by Howard Hinnant's `civil_from_days`.
pub(super) fn month_of(wall_ms: u64) -> u32 {
    let days = wall_ms / 86_400_000 + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // March is 0, so that the leap day comes last.
    let month_from_march = (5 * day_of_year + 2) / 153;
    let (month0, year) = if month_from_march < 10 {
        (month_from_march + 2, year_of_era + era * 400)
    } else {
        (month_from_march - 10, year_of_era + era * 400 + 1)
    };
    u32::try_from(year * 12 + month0).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_begin_on_their_first_day() {
        let day = 86_400_000;
        assert_eq!(month_of(0), 1970 * 12);
        assert_eq!(month_of(31 * day - 1), 1970 * 12);
        assert_eq!(month_of(31 * day), 1970 * 12 + 1);
        // 29 February 2024 and the day after.
        assert_eq!(month_of(19_782 * day), 2024 * 12 + 1);
        assert_eq!(month_of(19_783 * day), 2024 * 12 + 2);
        assert_eq!(month_of(u64::MAX), u32::MAX);
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
        turn_month(&mut ledger, 0);
        assert_eq!(ledger.settled_micros, 0);
    }
}
