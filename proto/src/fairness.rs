//! What a tenant's part of the cluster is, beside others that wait.

use crate::problem::Problem;
use crate::v1::TenantRow;

/// The weight of who is given none.
pub const WEIGHT: u32 = 100;
/// The largest weight: beside it one of [`WEIGHT`] still gets its hundredth.
pub const WEIGHT_MAX: u32 = 10_000;

/// The weight of a tenant.
#[must_use]
pub fn weight(row: &TenantRow) -> u32 {
    if row.weight == 0 { WEIGHT } else { row.weight }
}

/// Refuses a weight that is told and out of bounds.
///
/// # Errors
/// `spec.size`.
pub fn check(field: &str, weight: u32) -> Result<(), Problem> {
    if (1..=WEIGHT_MAX).contains(&weight) {
        return Ok(());
    }
    let remedy = format!("use 1 to {WEIGHT_MAX}, or leave it out for {WEIGHT}");
    Err(Problem::new("spec.size", field, weight, "is out of bounds", remedy))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weight_has_bounds_and_a_default() {
        assert_eq!(weight(&TenantRow::default()), 100);
        assert_eq!(weight(&TenantRow { weight: 7, ..TenantRow::default() }), 7);
        assert!(check("weight", 1).is_ok() && check("weight", WEIGHT_MAX).is_ok());
        assert_eq!(check("weight", 0).unwrap_err().value, "0");
        assert_eq!(check("weight", WEIGHT_MAX + 1).unwrap_err().field, "weight");
    }
}
