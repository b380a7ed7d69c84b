//! Spans of time in which nodes are kept for some tenants, or for nobody.

use crate::problem::Problem;
use crate::v1::Reservation;
use crate::{ids, limits};

/// Whether work of a tenant that runs on the node from an instant to another, in
/// milliseconds since 1970, would be in its way.
#[must_use]
pub fn is_in_the_way(reservation: &Reservation, tenant: &str, (from_ms, until_ms): (u64, u64)) -> bool {
    let Reservation { from_ms: begins_ms, until_ms: ends_ms, .. } = *reservation;
    begins_ms < until_ms && from_ms < ends_ms && !reservation.tenants.iter().any(|name| name == tenant)
}

/// Whether it can be made at this instant.
pub fn check(reservation: &Reservation, now_ms: u64) -> Result<(), Problem> {
    let Reservation { name, from_ms, until_ms, tenants, reason } = reservation;
    ids::ReservationName::parse(name)?;
    if from_ms >= until_ms {
        let told = format!("{from_ms}..{until_ms}");
        let why = "ends before it begins";
        return Err(Problem::new("spec.reservation", "until_ms", told, why, "let it end after its begin"));
    }
    if *until_ms <= now_ms {
        let why = "is over already";
        return Err(Problem::new("spec.reservation", "until_ms", until_ms, why, "let it end later than now"));
    }
    if tenants.len() > limits::RESERVATION_TENANTS_MAX {
        let why = format!("are more tenants than the {} that one may have", limits::RESERVATION_TENANTS_MAX);
        return Err(Problem::new("spec.reservation", "tenants", tenants.len(), why, "name fewer"));
    }
    tenants.iter().try_for_each(|tenant| ids::TenantName::parse(tenant).map(drop))?;
    if reason.len() > limits::PROBLEM_TEXT_BYTES_MAX || reason.contains(['\n', '\r']) {
        return Err(Problem::new("spec.reason", "reason", reason, "is not one short line", "shorten it"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_overlaps_and_is_of_others_is_in_the_way() {
        let tenants = vec!["lab".to_owned()];
        let reservation = Reservation { from_ms: 100, until_ms: 200, tenants, ..Reservation::default() };
        let of = |tenant, from_ms, until_ms| is_in_the_way(&reservation, tenant, (from_ms, until_ms));
        assert!(
            of("team", 50, 101) && of("team", 199, 300) && of("team", 120, 130) && of("team", 0, u64::MAX)
        );
        assert!(!of("team", 50, 100) && !of("team", 200, 300) && !of("lab", 0, u64::MAX));
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name_and_field() {
        let good = Reservation { name: "fans".into(), from_ms: 5, until_ms: 9, ..Reservation::default() };
        assert_eq!(check(&good, 7), Ok(()));
        let refused = |reservation: Reservation| check(&reservation, 7).unwrap_err();
        let spoilt = [
            (Reservation { name: "a/b".into(), ..good.clone() }, "reservation"),
            (Reservation { from_ms: 9, ..good.clone() }, "until_ms"),
            (Reservation { until_ms: 7, ..good.clone() }, "until_ms"),
            (Reservation { tenants: vec!["A B".into()], ..good.clone() }, "tenant"),
            (Reservation { tenants: vec!["t".into(); 17], ..good.clone() }, "tenants"),
            (Reservation { reason: "two\nlines".into(), ..good }, "reason"),
        ];
        for (reservation, field) in spoilt {
            let problem = refused(reservation.clone());
            assert_eq!(problem.field, field, "{reservation:?}: {problem}");
        }
    }
}
