//! Sets of whole numbers that are mostly runs: the tasks of an array.
//!
//! [`Spans`] keeps disjoint runs that do not touch, so a set has one form and
//! costs its runs, not its numbers.

use crate::v1::Span;
use std::collections::BTreeMap;

/// An ordered set of `u64`, kept as inclusive runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spans {
    /// First to last of each run.
    runs: BTreeMap<u64, u64>,
    count: u64,
}

impl Spans {
    /// The empty set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// All of `first ..= last`; empty where `last` is below `first`.
    #[must_use]
    pub fn from_range(first: u64, last: u64) -> Self {
        let mut spans = Self::new();
        spans.insert_range(first, last);
        spans
    }

    /// How many numbers (saturating: the whole of `u64` counts as `u64::MAX`).
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// How many runs.
    #[must_use]
    pub fn runs(&self) -> usize {
        self.runs.len()
    }

    /// True without any number.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// The smallest number.
    #[must_use]
    pub fn first(&self) -> Option<u64> {
        self.runs.first_key_value().map(|(first, _)| *first)
    }

    /// The largest number.
    #[must_use]
    pub fn last(&self) -> Option<u64> {
        self.runs.last_key_value().map(|(_, last)| *last)
    }

    /// Whether `number` is in the set.
    #[must_use]
    pub fn contains(&self, number: u64) -> bool {
        self.runs.range(..=number).next_back().is_some_and(|(_, last)| *last >= number)
    }

    /// Adds one number; true where it was not there.
    pub fn insert(&mut self, number: u64) -> bool {
        self.insert_range(number, number) == 1
    }

    /// Adds `first ..= last` and tells how many were not there.
    pub fn insert_range(&mut self, first: u64, last: u64) -> u64 {
        if last < first {
            return 0;
        }
        let before = self.count;
        let (mut from, mut to) = (first, last);
        // Swallow every run that overlaps or touches.
        while let Some((&run_first, &run_last)) = self.runs.range(..=to.saturating_add(1)).next_back() {
            if run_last < from.saturating_sub(1) {
                break;
            }
            from = from.min(run_first);
            to = to.max(run_last);
            self.runs.remove(&run_first);
            self.count = self.count.saturating_sub(len(run_first, run_last));
        }
        self.runs.insert(from, to);
        self.count = self.count.saturating_add(len(from, to));
        self.count - before
    }

    /// Takes one number out; true where it was there.
    pub fn remove(&mut self, number: u64) -> bool {
        self.remove_range(number, number) == 1
    }

    /// Takes `first ..= last` out and tells how many were there.
    pub fn remove_range(&mut self, first: u64, last: u64) -> u64 {
        if last < first {
            return 0;
        }
        let before = self.count;
        while let Some((&run_first, &run_last)) = self.runs.range(..=last).next_back() {
            if run_last < first {
                break;
            }
            self.runs.remove(&run_first);
            self.count = self.count.saturating_sub(len(run_first, run_last));
            if run_last > last {
                self.runs.insert(last + 1, run_last);
                self.count = self.count.saturating_add(len(last + 1, run_last));
            }
            if run_first < first {
                self.runs.insert(run_first, first - 1);
                self.count = self.count.saturating_add(len(run_first, first - 1));
            }
        }
        before - self.count
    }

    /// Adds all of another set.
    pub fn insert_all(&mut self, other: &Spans) {
        for (first, last) in other.ranges() {
            self.insert_range(first, last);
        }
    }

    /// Takes all of another set out.
    pub fn remove_all(&mut self, other: &Spans) {
        for (first, last) in other.ranges() {
            self.remove_range(first, last);
        }
    }

    /// What both sets have.
    #[must_use]
    pub fn intersection(&self, other: &Spans) -> Spans {
        let (small, large) = if self.runs() <= other.runs() { (self, other) } else { (other, self) };
        let mut both = Spans::new();
        for (first, last) in small.ranges() {
            both.insert_all(&large.within(first, last));
        }
        both
    }

    /// The part that lies in `first ..= last`.
    #[must_use]
    pub fn within(&self, first: u64, last: u64) -> Spans {
        let mut part = Spans::new();
        for (run_first, run_last) in self.ranges_within(first, last) {
            part.insert_range(run_first, run_last);
        }
        part
    }

    /// Every run in order, as far as it lies in `first ..= last`.
    pub fn ranges_within(&self, first: u64, last: u64) -> impl Iterator<Item = (u64, u64)> + '_ {
        let start = self.runs.range(..=first).next_back().map_or(first, |(run_first, _)| *run_first);
        // A run before the first may end before it, too.
        let runs = self.runs.range(start.min(last)..=last).filter(move |(_, run_last)| **run_last >= first);
        let wanted = first <= last;
        runs.filter(move |_| wanted)
            .map(move |(run_first, run_last)| ((*run_first).max(first), (*run_last).min(last)))
    }

    /// How many numbers lie in `first ..= last`.
    #[must_use]
    pub fn count_within(&self, first: u64, last: u64) -> u64 {
        self.within(first, last).count()
    }

    /// Takes the smallest number out.
    pub fn pop_first(&mut self) -> Option<u64> {
        let first = self.first()?;
        self.remove(first);
        Some(first)
    }

    /// Takes the `n` smallest numbers out (all, where there are fewer).
    pub fn pop_first_n(&mut self, n: u64) -> Spans {
        let mut taken = Spans::new();
        while taken.count() < n {
            let Some((&first, &last)) = self.runs.first_key_value() else { break };
            let wanted = n - taken.count();
            let end = if len(first, last) <= wanted { last } else { first + wanted - 1 };
            self.remove_range(first, end);
            taken.insert_range(first, end);
        }
        taken
    }

    /// Every number in order.
    pub fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        self.runs.iter().flat_map(|(first, last)| *first..=*last)
    }

    /// Every run in order, as first and last.
    pub fn ranges(&self) -> impl DoubleEndedIterator<Item = (u64, u64)> + '_ {
        self.runs.iter().map(|(first, last)| (*first, *last))
    }

    /// As a message has it.
    #[must_use]
    pub fn to_proto(&self) -> Vec<Span> {
        self.ranges().map(|(first, last)| Span { first, last }).collect()
    }

    /// Takes a message's runs in any order, overlapping or not.
    #[must_use]
    pub fn from_proto(spans: &[Span]) -> Self {
        spans.iter().map(|span| (span.first, span.last)).collect()
    }
}

fn len(first: u64, last: u64) -> u64 {
    (last - first).saturating_add(1)
}

impl FromIterator<u64> for Spans {
    fn from_iter<T: IntoIterator<Item = u64>>(numbers: T) -> Self {
        let mut spans = Self::new();
        for number in numbers {
            spans.insert(number);
        }
        spans
    }
}
impl FromIterator<(u64, u64)> for Spans {
    fn from_iter<T: IntoIterator<Item = (u64, u64)>>(ranges: T) -> Self {
        let mut spans = Self::new();
        for (first, last) in ranges {
            spans.insert_range(first, last);
        }
        spans
    }
}
impl From<&[Span]> for Spans {
    fn from(spans: &[Span]) -> Self {
        Self::from_proto(spans)
    }
}
impl From<Vec<Span>> for Spans {
    fn from(spans: Vec<Span>) -> Self {
        Self::from_proto(&spans)
    }
}
impl From<&Spans> for Vec<Span> {
    fn from(spans: &Spans) -> Self {
        spans.to_proto()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn runs_that_touch_become_one() {
        let mut spans = Spans::new();
        assert_eq!(spans.insert_range(0, 4), 5);
        assert_eq!(spans.insert_range(6, 9), 4);
        assert_eq!(spans.runs(), 2);
        assert!(spans.insert(5));
        assert_eq!((spans.runs(), spans.count()), (1, 10));
        assert_eq!(spans.insert_range(3, 12), 3);
        assert_eq!(spans.remove_range(2, 3), 2);
        assert_eq!(spans.to_proto(), [Span { first: 0, last: 1 }, Span { first: 4, last: 12 }]);
    }

    #[test]
    fn the_ends_of_the_numbers_hold() {
        let mut spans = Spans::from_range(0, u64::MAX);
        assert_eq!(spans.count(), u64::MAX);
        spans.remove_range(1, u64::MAX - 1);
        assert_eq!(spans.iter().collect::<Vec<_>>(), [0, u64::MAX]);
        assert_eq!(spans.insert_range(5, 3), 0);
        assert_eq!((spans.pop_first(), spans.last(), spans.count()), (Some(0), Some(u64::MAX), 1));
    }

    #[derive(Clone, Debug)]
    enum Op {
        Insert(u64, u64),
        Remove(u64, u64),
        Pop(u64),
    }
    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            (0..80_u64, 0..12_u64).prop_map(|(a, n)| Op::Insert(a, a + n)),
            (0..80_u64, 0..12_u64).prop_map(|(a, n)| Op::Remove(a, a + n)),
            (0..9_u64).prop_map(Op::Pop),
        ]
    }

    proptest! {
        #[test]
        fn behaves_as_a_plain_set(ops in prop::collection::vec(op(), 0..40), from in 0..90_u64, more in 0..30_u64) {
            let (mut spans, mut model) = (Spans::new(), BTreeSet::new());
            for op in ops {
                match op {
                    Op::Insert(first, last) => {
                        let fresh = (first..=last).filter(|n| model.insert(*n)).count() as u64;
                        prop_assert_eq!(spans.insert_range(first, last), fresh);
                    }
                    Op::Remove(first, last) => {
                        let gone = (first..=last).filter(|n| model.remove(n)).count() as u64;
                        prop_assert_eq!(spans.remove_range(first, last), gone);
                    }
                    Op::Pop(n) => {
                        let taken: Vec<u64> = (0..n).map_while(|_| model.pop_first()).collect();
                        prop_assert_eq!(spans.pop_first_n(n).iter().collect::<Vec<_>>(), taken);
                    }
                }
                prop_assert_eq!(spans.count(), model.len() as u64);
                prop_assert_eq!(spans.iter().collect::<Vec<_>>(), model.iter().copied().collect::<Vec<_>>());
                // One form for each set: no two runs touch.
                let runs: Vec<_> = spans.ranges().collect();
                prop_assert!(runs.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0));
            }
            prop_assert_eq!(spans.contains(from), model.contains(&from));
            let part: Vec<u64> = model.range(from..=from + more).copied().collect();
            prop_assert_eq!(spans.within(from, from + more).iter().collect::<Vec<_>>(), part.clone());
            let other: Spans = (from..=from + more).collect();
            prop_assert_eq!(spans.intersection(&other).iter().collect::<Vec<_>>(), part);
            prop_assert_eq!(Spans::from(spans.to_proto()), spans);
        }
    }
}
