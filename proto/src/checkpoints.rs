//! Which checkpoints a task may go on from.
//!
//! Each rank has a row of its own. Of a gang those count that every rank told of in the
//! same attempt under the same label: then all were at the same place. What a retry that
//! began the step anew has undone does not count.
//!
//! Their files lie in an object space of their own, and each begins with a line that
//! names the attempt and rank that kept it. So bytes of theirs are named by rows of that
//! one rank alone, and go when no entry of its row names them any more.

use crate::ids::TenantName;
use crate::v1::{CheckpointEntry, CheckpointRow};

/// The object space of a tenant's checkpoints: no tenant can have that name.
#[must_use]
pub fn space(tenant: &str) -> String {
    [tenant, SPACE].concat()
}

/// Whether that is an object space: a tenant's own, or that of its checkpoints.
#[must_use]
pub fn is_space(space: &str) -> bool {
    TenantName::parse(space.strip_suffix(SPACE).unwrap_or(space)).is_ok()
}

/// Whether that is the space of a tenant's checkpoints.
#[must_use]
pub fn is_of_checkpoints(space: &str) -> bool {
    space.ends_with(SPACE) && is_space(space)
}

/// Whose checkpoints are in that space.
#[must_use]
pub fn tenant_of(space: &str) -> Option<&str> {
    space.strip_suffix(SPACE)
}

const SPACE: &str = "~checkpoints";

/// The line that a file begins with in the object store; `rank` names the attempt and
/// its rank.
#[must_use]
pub fn head(rank: &str) -> String {
    format!("drumline checkpoint {rank}\n")
}

/// No such line is longer.
pub const HEAD_BYTES_MAX: usize = 256;

/// What the ranks of a gang have in common: epoch, attempt and label.
pub type Set<'a> = (u64, u32, &'a str);

/// The set that an entry is of.
#[must_use]
pub fn set_of(entry: &CheckpointEntry) -> Set<'_> {
    let (epoch, attempt) = entry.id.map_or((0, 0), |id| (id.epoch, id.attempt));
    (epoch, attempt, &entry.label)
}

/// Those that are whole, as the first rank has them, the oldest first. A rank that has
/// told nothing is an empty row.
#[must_use]
pub fn whole<'a>(ranks: &[&'a CheckpointRow], reset_generation: u32) -> Vec<&'a CheckpointEntry> {
    let stands = |entry: &&CheckpointEntry| entry.generation >= reset_generation;
    let Some((first, others)) = ranks.split_first() else { return Vec::new() };
    let has = |row: &CheckpointRow, set: Set<'_>| {
        row.entries.iter().filter(stands).any(|entry| set_of(entry) == set)
    };
    let all_have = |entry: &&CheckpointEntry| others.iter().all(|row| has(row, set_of(entry)));
    first.entries.iter().filter(stands).filter(all_have).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::CheckpointId;

    fn row(entries: &[(u32, &str, u32)]) -> CheckpointRow {
        let entry = |&(attempt, label, generation): &(u32, &str, u32)| CheckpointEntry {
            label: label.to_owned(),
            id: Some(CheckpointId { attempt, epoch: 7, session: 1, number: 1 }),
            generation,
            ..CheckpointEntry::default()
        };
        CheckpointRow { entries: entries.iter().map(entry).collect() }
    }

    #[test]
    fn no_tenant_has_the_name_of_a_space_of_checkpoints() {
        let space = space("lab");
        assert!(is_space(&space) && is_space("lab") && TenantName::parse(&space).is_err());
        for none in ["", "~checkpoints", "..~checkpoints", "lab~checkpoints~checkpoints", "lab~other", "."] {
            assert!(!is_space(none), "{none}");
        }
    }

    #[test]
    fn a_set_is_whole_where_all_ranks_told_of_it_in_one_attempt() {
        let labels = |ranks: &[&CheckpointRow], reset| -> Vec<String> {
            whole(ranks, reset).into_iter().map(|entry| entry.label.clone()).collect()
        };
        let one = row(&[(1, "10", 0), (1, "20", 0), (2, "30", 1)]);
        assert_eq!(labels(&[&one], 0), ["10", "20", "30"]);
        assert_eq!(labels(&[&one], 1), ["30"], "what a retry undid does not count");
        let behind = row(&[(1, "10", 0), (1, "30", 0)]);
        assert_eq!(labels(&[&one, &behind], 0), ["10"], "30 is of another attempt");
        assert_eq!(labels(&[&one, &CheckpointRow::default()], 0), [""; 0]);
        assert_eq!(labels(&[], 0), [""; 0]);
    }
}
