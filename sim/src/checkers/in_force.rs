//! Which limits of a tenant count at an instant: what an operator changes counts
//! within five seconds, and until then what was there before counts as well.

use super::Committed;
use crate::rows::Row;
use proto::v1::TenantRow;
use std::collections::BTreeMap;

/// The span within which a change must count.
pub const COUNTS_WITHIN_MS: u64 = 5_000;

#[derive(Default)]
pub struct InForce {
    /// By tenant, oldest first: rows, and when each was replaced.
    rows: BTreeMap<String, Vec<(TenantRow, Option<u64>)>>,
}

impl InForce {
    /// Takes what a commit changes.
    pub fn note(&mut self, commit: &Committed) {
        for row in &commit.rows {
            let Row::Tenant(name, Some(row)) = row else { continue };
            let rows = self.rows.entry(name.clone()).or_default();
            if let Some((_, replaced_ms)) = rows.last_mut() {
                *replaced_ms = Some(commit.at_ms);
            }
            rows.push((row.clone(), None));
        }
    }

    /// What counted when a commit was made.
    pub fn counted(&self, tenant: &str, commit: &Committed) -> impl Iterator<Item = &TenantRow> {
        let from_ms = commit.since_ms;
        let counted = move |replaced_ms: &Option<u64>| {
            replaced_ms.is_none_or(|replaced_ms| replaced_ms + COUNTS_WITHIN_MS >= from_ms)
        };
        let rows = self.rows.get(tenant).into_iter().flatten();
        rows.filter(move |(_, replaced_ms)| counted(replaced_ms)).map(|(row, _)| row)
    }

    /// Whether a commit keeps to limits that counted when it was made.
    pub fn allows(&self, tenant: &str, commit: &Committed, keeps: impl Fn(&TenantRow) -> bool) -> bool {
        self.counted(tenant, commit).any(keeps)
    }

    /// The limits now, for people.
    pub fn newest(&self, tenant: &str) -> Option<&TenantRow> {
        self.rows.get(tenant)?.last().map(|(row, _)| row)
    }
}
