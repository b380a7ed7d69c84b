//! What a tenant's part of the cluster is, beside others that wait, and groups of tenants.

use crate::problem::Problem;
use crate::v1::TenantRow;

/// The weight of who is given none.
pub const WEIGHT: u32 = 100;
/// The largest weight: beside it one of [`WEIGHT`] still gets its hundredth.
pub const WEIGHT_MAX: u32 = 10_000;

/// Groups that a tenant is in, one within the other, at most.
pub const GROUPS_MAX: usize = 4;

/// The weight of a tenant or group.
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

/// Refuses what means nothing for a group: it has no jobs of its own, and limits only what
/// runs below it at once.
///
/// # Errors
/// `spec.group`.
pub fn check_group(row: &TenantRow) -> Result<(), Problem> {
    let (quota, budget) = (row.quota.unwrap_or_default(), row.budget.unwrap_or_default());
    let told = [
        ("quota.storage_bytes", quota.storage_bytes),
        ("quota.ingress_bytes", quota.ingress_bytes),
        ("quota.egress_bytes", quota.egress_bytes),
        ("quota.queued_tasks", quota.queued_tasks),
        ("budget", budget.month_micros),
        ("core_hour", Some(budget.core_hour_micros).filter(|&micros| micros > 0)),
        ("gpu_hour", Some(budget.gpu_hour_micros).filter(|&micros| micros > 0)),
        ("retention_ms", row.retention_ms),
    ];
    match told.into_iter().find_map(|(field, told)| Some((field, told?))) {
        Some((field, told)) if row.group => {
            let reason = "is for tenants: a group limits cores, memory and GPUs alone";
            Err(Problem::new("spec.group", field, told, reason, "set it for each tenant in the group"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::Quota;

    #[test]
    fn a_weight_has_bounds_and_a_default() {
        assert_eq!(weight(&TenantRow::default()), 100);
        assert_eq!(weight(&TenantRow { weight: 7, ..TenantRow::default() }), 7);
        assert!(check("weight", 1).is_ok() && check("weight", WEIGHT_MAX).is_ok());
        assert_eq!(check("weight", 0).unwrap_err().value, "0");
        assert_eq!(check("weight", WEIGHT_MAX + 1).unwrap_err().field, "weight");
    }

    #[test]
    fn a_group_limits_what_runs() {
        let quota = Quota { millicores: Some(1), ..Quota::default() };
        let group = TenantRow { group: true, quota: Some(quota), ..TenantRow::default() };
        check_group(&group).unwrap();
        let stores = Some(Quota { storage_bytes: Some(0), ..quota });
        let problem = check_group(&TenantRow { quota: stores, ..group.clone() }).unwrap_err();
        assert_eq!((problem.field.as_str(), problem.value.as_str()), ("quota.storage_bytes", "0"));
        check_group(&TenantRow { quota: stores, group: false, ..group }).unwrap();
    }
}
