//! Which checkpoints a task may go on from.
//!
//! Each rank has a row of its own. Of a gang those count that every rank told of in the
//! same attempt under the same label: then all were at the same place. What a retry that
//! began the step anew has undone does not count.

use crate::v1::{CheckpointEntry, CheckpointRow};

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
