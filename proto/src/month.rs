//! The calendar month, UTC, by which money and traffic are counted.

use crate::v1::LedgerRow;

const DAY_MS: u64 = 86_400_000;

/// Month as `year * 12 + month0`.
#[must_use]
pub fn of(wall_ms: u64) -> u32 {
    let (year, month0) = civil_month(wall_ms / DAY_MS);
    u32::try_from(year * 12 + month0).unwrap_or(u32::MAX)
}

/// When the month after this instant's begins, milliseconds since 1970.
#[must_use]
pub fn next_ms(wall_ms: u64) -> u64 {
    let (year, month0) = civil_month(wall_ms / DAY_MS);
    let (year, month0) = if month0 == 11 { (year + 1, 0) } else { (year, month0 + 1) };
    days_before_month(year, month0) * DAY_MS
}

/// Turns a ledger to the month of this instant: it begins with nothing settled
/// and nothing moved; reservations go on. A clock that jumps back does not
/// bring an old month back.
pub fn turn(ledger: &mut LedgerRow, wall_ms: u64) {
    let month = of(wall_ms);
    if month > ledger.month {
        ledger.month = month;
        ledger.settled_micros = 0;
        ledger.ingress_bytes = 0;
        ledger.egress_bytes = 0;
    }
}

/// What a ledger says at this instant. Whoever only reads one must ask so: a
/// row of last month stays until the next posting.
#[must_use]
pub fn turned(ledger: &LedgerRow, wall_ms: u64) -> LedgerRow {
    let mut now = *ledger;
    turn(&mut now, wall_ms);
    now
}

/// Days from 1970-01-01 to the first of a month (H. Hinnant, "chrono-compatible
/// low-level date algorithms", for dates after 1970).
fn days_before_month(year: u64, month0: u64) -> u64 {
    let year = if month0 < 2 { year - 1 } else { year };
    let (era, of_era) = (year / 400, year % 400);
    let from_march = (month0 + 10) % 12;
    let day_of_year = (153 * from_march + 2) / 5;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + day_of_year - 719_468
}

/// Year and month (0 ..= 11) of a day since 1970-01-01; the inverse.
fn civil_month(day: u64) -> (u64, u64) {
    let shifted = day + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let day_of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let month0 = (from_march + 2) % 12;
    (era * 400 + year_of_era + u64::from(month0 < 2), month0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_begin_where_the_calendar_says() {
        assert_eq!((of(0), next_ms(0)), (1970 * 12, 31 * DAY_MS));
        assert_eq!(of(u64::MAX), u32::MAX);
        // 2024-02-29 and 2024-12-31.
        assert_eq!(of(1_709_164_800_000), 2024 * 12 + 1);
        assert_eq!(next_ms(1_709_164_800_000), 1_709_251_200_000);
        assert_eq!(next_ms(1_735_603_200_000), 1_735_689_600_000);
        // Every month follows the last and contains its own first instant.
        let mut at_ms = 0;
        for month in 1..1200 {
            at_ms = next_ms(at_ms);
            assert_eq!(of(at_ms), 1970 * 12 + month);
            assert_eq!(of(at_ms - 1), 1970 * 12 + month - 1);
        }
    }

    #[test]
    fn a_new_month_has_nothing_settled_and_nothing_moved() {
        let row = LedgerRow {
            month: 1970 * 12,
            reserved_micros: 1,
            settled_micros: 2,
            storage_bytes: 3,
            ingress_bytes: 4,
            egress_bytes: 5,
            ..LedgerRow::default()
        };
        assert_eq!(turned(&row, 31 * DAY_MS - 1), row);
        let next = turned(&row, 31 * DAY_MS);
        assert_eq!((next.reserved_micros, next.settled_micros, next.storage_bytes), (1, 0, 3));
        assert_eq!((next.ingress_bytes, next.egress_bytes), (0, 0));
        // The clock jumps back: still the later month.
        assert_eq!(turned(&next, 0), next);
    }
}
