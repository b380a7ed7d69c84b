//! Which tasks of two arrays have the same index.
//!
//! Kept as runs, so that two arrays of a million tasks cost what their items
//! do: what ended over there is turned into what may begin here by ranges.

use crate::limits::{PAIR_PIECES_MAX, PAIR_RUNS_MAX};
use proto::array;
use proto::spans::Spans;
use proto::v1::{ArrayItem, ArraySpec};

/// Ordinals of tasks with the same index, theirs and ours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Pairs {
    runs: Vec<Run>,
}

/// `theirs + k * theirs_by` has the index of `ours + k * ours_by`, for k below `count`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    theirs: u64,
    theirs_by: u64,
    ours: u64,
    ours_by: u64,
    count: u64,
}

impl Pairs {
    /// `None` where they fit together in more pieces than are kept.
    pub(super) fn of(theirs: &ArraySpec, ours: &ArraySpec) -> Option<Self> {
        let (mut runs, mut tried, mut pieces) = (Vec::new(), 0, 0_u64);
        let mut ours_before = 0;
        for our in &ours.items {
            let mut theirs_before = 0;
            for their in &theirs.items {
                if their.first <= our.last && our.first <= their.last {
                    tried += 1;
                    if let Some(run) = Run::of((their, theirs_before), (our, ours_before)) {
                        pieces = pieces.saturating_add(if run.ours_by == 1 { 1 } else { run.count });
                        runs.push(run);
                    }
                    if tried > PAIR_PIECES_MAX || pieces > PAIR_PIECES_MAX || runs.len() > PAIR_RUNS_MAX {
                        return None;
                    }
                }
                theirs_before += array::item_count(their);
            }
            ours_before += array::item_count(our);
        }
        Some(Self { runs })
    }

    /// All of ours that have a like.
    pub(super) fn ours(&self) -> Spans {
        let mut ours = Spans::new();
        for run in &self.runs {
            run.take(0, run.count - 1, &mut ours);
        }
        ours
    }

    /// Ours whose like is among these of theirs.
    pub(super) fn ours_of(&self, theirs: &Spans) -> Spans {
        let mut ours = Spans::new();
        for run in &self.runs {
            let last = run.theirs + (run.count - 1) * run.theirs_by;
            for (from, to) in theirs.ranges_within(run.theirs, last) {
                let first = (from - run.theirs).div_ceil(run.theirs_by);
                let last = (to - run.theirs) / run.theirs_by;
                if first <= last {
                    run.take(first, last, &mut ours);
                }
            }
        }
        ours
    }
}

impl Run {
    /// What two items have in common, each with the tasks before it.
    fn of((their, theirs_before): (&ArrayItem, u64), (our, ours_before): (&ArrayItem, u64)) -> Option<Self> {
        let (theirs_by, ours_by) = (their.stride.max(1), our.stride.max(1));
        let their = ArrayItem { stride: theirs_by, ..*their };
        let our = ArrayItem { stride: ours_by, ..*our };
        let first = array::common_index(&their, &our)?;
        let last = their.last.min(our.last);
        let period = u128::from(theirs_by) / u128::from(gcd(theirs_by, ours_by)) * u128::from(ours_by);
        // A period beyond the last index never comes round: one pair.
        let (count, period) = match u64::try_from(period) {
            Ok(period) if period <= last - first => ((last - first) / period + 1, period),
            _ => (1, 0),
        };
        Some(Self {
            theirs: theirs_before + (first - their.first) / theirs_by,
            theirs_by: (period / theirs_by).max(1),
            ours: ours_before + (first - our.first) / ours_by,
            ours_by: (period / ours_by).max(1),
            count,
        })
    }

    /// Adds ours of the pairs `first ..= last`.
    fn take(&self, first: u64, last: u64, ours: &mut Spans) {
        if self.ours_by == 1 {
            ours.insert_range(self.ours + first, self.ours + last);
        } else {
            for pair in first..=last {
                ours.insert(self.ours + pair * self.ours_by);
            }
        }
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pairs(theirs: &str, ours: &str) -> Option<Pairs> {
        Pairs::of(&array::parse(theirs).unwrap(), &array::parse(ours).unwrap())
    }

    #[test]
    fn arrays_written_alike_are_one_run_however_long() {
        let million = pairs("1-1000000", "1-1000000%5").unwrap();
        assert_eq!((million.runs.len(), million.ours()), (1, Spans::from_range(0, 999_999)));
        assert_eq!(million.ours_of(&Spans::from_range(3, 900_000)), Spans::from_range(3, 900_000));
        // Ours begins later, and theirs are every other one.
        let shifted = pairs("0-1999998:2", "10-19:2,500000-500009:2").unwrap();
        assert_eq!(shifted.ours_of(&Spans::from_range(6, 250_001)), Spans::from_range(1, 6));
        assert_eq!(pairs("0-9", "20-29").unwrap().ours(), Spans::new());
    }

    #[test]
    fn arrays_that_fit_in_too_many_pieces_are_not_paired() {
        // Half of ours have no like, one by one.
        assert_eq!(pairs("0-999998:2", "0-999999"), None);
        assert!(pairs("0-999999", "0-999998:2").is_some());
        let singles =
            |first: u64| (0..1000).map(|n| (first + n * 7).to_string()).collect::<Vec<_>>().join(",");
        assert_eq!(pairs(&singles(0), &singles(0)).unwrap().ours().count(), 1000);
    }

    fn spec() -> impl Strategy<Value = ArraySpec> {
        let item = (0..40_u64, 0..30_u64, 1..5_u64);
        let item = item.prop_map(|(first, more, stride)| ArrayItem { first, last: first + more, stride });
        prop::collection::vec(item, 1..5)
            .prop_map(|items| ArraySpec { items, max_running: 0 })
            .prop_filter("no index twice", |spec| array::check(spec).is_ok())
    }

    proptest! {
        #[test]
        fn agrees_with_the_indexes_one_by_one(
            theirs in spec(), ours in spec(), some in prop::collection::vec(0..160_u64, 0..40),
        ) {
            let pairs = Pairs::of(&theirs, &ours).unwrap();
            let like = |ordinal: u64| array::ordinal_of(&theirs, array::index_of(&ours, ordinal).unwrap());
            let all: Spans = (0..array::count(&ours)).filter(|ordinal| like(*ordinal).is_some()).collect();
            prop_assert_eq!(pairs.ours(), all);
            let some: Spans = some.into_iter().collect();
            let met = |ordinal: &u64| like(*ordinal).is_some_and(|their| some.contains(their));
            let expected: Spans = (0..array::count(&ours)).filter(met).collect();
            prop_assert_eq!(pairs.ours_of(&some), expected);
        }
    }
}
