//! Groups of tenants: where one may stand.
//!
//! What must hold of the rows: whatever a row names as its parent is a group, and no group
//! is in a group below itself. Each change guards the versions of all groups above, so two
//! changes at once cannot make a ring.

use crate::rows;
use proto::fairness::GROUPS_MAX;
use proto::ids::TenantName;
use proto::keys;
use proto::problem::{self, Problem};
use proto::v1::TenantRow;
use store::Store;

/// The groups above a tenant or group that is to be as the row says, with versions.
pub(super) async fn above(store: &dyn Store, row: &TenantRow) -> Result<Vec<(String, u64)>, Problem> {
    let mut above = Vec::new();
    let mut next = row.parent.clone();
    while !next.is_empty() && above.len() <= GROUPS_MAX {
        TenantName::parse(&next)?;
        if next == row.name {
            let reason = format!("is {}, or a group in it", row.name);
            return Err(wrong_parent(row, reason, "name a group elsewhere"));
        }
        let found: Option<(TenantRow, u64)> = rows::get_with_version(store, keys::tenant(&next)).await?;
        let Some((group, version)) = found.filter(|(found, _)| found.group) else {
            let remedy = "name a group, or make it: drumline tenants create NAME --group";
            return Err(Problem::new("missing.group", "parent", next, "there is no such group", remedy));
        };
        above.push((next, version));
        next = group.parent;
    }
    let levels =
        above.len() + if row.group && !above.is_empty() { levels_of(store, &row.name).await? } else { 0 };
    if levels > GROUPS_MAX {
        let reason = format!("would make {levels} groups, one within the other");
        return Err(wrong_parent(row, reason, &format!("use {GROUPS_MAX} at most")));
    }
    Ok(above)
}

/// How many groups there are one within the other, from this one down.
async fn levels_of(store: &dyn Store, group: &str) -> Result<usize, Problem> {
    let all: Vec<TenantRow> = rows::all_decoded(store, keys::TENANTS.as_bytes()).await?;
    let mut level = vec![group.to_owned()];
    let mut levels = 0;
    while !level.is_empty() && levels <= GROUPS_MAX {
        levels += 1;
        let below = all.iter().filter(|row| row.group && level.contains(&row.parent));
        level = below.map(|row| row.name.clone()).collect();
    }
    Ok(levels)
}

fn wrong_parent(row: &TenantRow, reason: String, remedy: &str) -> Problem {
    problem::conflict("parent", "parent", &row.parent, reason, remedy)
}

/// A tenant becomes no group, and no group a tenant: it has jobs, or others below it.
pub(super) fn is_other(known: &TenantRow) -> Problem {
    let reason = if known.group { "is a group" } else { "is a tenant, and no group" };
    problem::conflict("group", "group", &known.name, reason, "make another, by another name")
}
