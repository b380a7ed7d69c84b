//! How long the cluster took to be well again after each kind of fault had healed,
//! over all runs of a sweep. What *well* is, and when a fault was alone,
//! `trace/recovery.rs` says.

use crate::bounds;
use std::collections::BTreeMap;

/// By kind.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Recoveries(BTreeMap<String, Times>);

#[derive(Clone, Debug, Default, PartialEq)]
struct Times {
    /// What each heal took, in milliseconds.
    all: Vec<u64>,
    /// How many were never recovered from.
    never: u64,
    /// Those of `all` in which no other fault had a part.
    alone: Vec<u64>,
}

impl Recoveries {
    /// Takes what a run prints: `kind=350!,0,never kind=…`; `!` is for those alone.
    pub fn read<'a>(&mut self, words: impl Iterator<Item = &'a str>) {
        for (kind, times) in words.filter_map(|word| word.split_once('=')) {
            let known = self.0.entry(kind.to_owned()).or_default();
            for time in times.split(',') {
                let (time, alone) = time.strip_suffix('!').map_or((time, false), |time| (time, true));
                match time.parse() {
                    Ok(ms) => {
                        known.all.push(ms);
                        known.alone.extend(alone.then_some(ms));
                    }
                    Err(_) => known.never += 1,
                }
            }
        }
    }

    pub fn add(&mut self, more: Self) {
        for (kind, times) in more.0 {
            let known = self.0.entry(kind).or_default();
            known.all.extend(times.all);
            known.alone.extend(times.alone);
            known.never += times.never;
        }
    }

    /// A table; none where nothing healed.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        if self.0.is_empty() {
            return Vec::new();
        }
        let mut lines = vec![
            "recovery: from a heal until the cluster is well, virtual seconds; alone: no other fault from its \
             strike until then, and the bound of that"
                .to_owned(),
            row("fault", ["heals", "p50", "p99", "max", "never", "alone", "p50", "p99", "max", "bound"].map(str::to_owned)),
        ];
        for (kind, times) in &self.0 {
            let heals = times.all.len() as u64 + times.never;
            let [p50, p99, max] = ranks(&times.all);
            let [alone_p50, alone_p99, alone_max] = ranks(&times.alone);
            let (never, alone) = (times.never.to_string(), times.alone.len().to_string());
            let bound = seconds(bounds::felt_ms(kind));
            let columns =
                [heals.to_string(), p50, p99, max, never, alone, alone_p50, alone_p99, alone_max, bound];
            lines.push(row(kind, columns));
        }
        lines
    }
}

fn row(kind: &str, columns: [String; 10]) -> String {
    let columns: String = columns.iter().map(|column| format!(" {column:>6}")).collect();
    format!("{kind:<22}{columns}")
}

/// p50, p99 and the greatest.
fn ranks(times: &[u64]) -> [String; 3] {
    let mut times = times.to_vec();
    times.sort_unstable();
    [50, 99, 100].map(|percent| rank(&times, percent).map_or_else(|| "-".to_owned(), seconds))
}

/// The nearest rank: so many in a hundred are no greater.
fn rank(sorted: &[u64], percent: usize) -> Option<u64> {
    let at = (sorted.len() * percent).div_ceil(100).max(1) - 1;
    sorted.get(at).copied()
}

fn seconds(ms: u64) -> String {
    format!("{}.{}", ms / 1_000, ms % 1_000 / 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_all_runs_are_ranked() {
        let mut all = Recoveries::default();
        for text in ["partition=0!,12500,never slow_disk=0", "partition=3100!"] {
            let mut one = Recoveries::default();
            one.read(text.split(' '));
            all.add(one);
        }
        assert_eq!(
            all.lines()[2..],
            [
                "partition                   4    3.1   12.5   12.5      1      2    0.0    3.1    3.1   96.0",
                "slow_disk                   1    0.0    0.0    0.0      0      0      -      -      -   96.0",
            ]
        );
        assert!(Recoveries::default().lines().is_empty());
        let hundred: Vec<u64> = (1..=100).collect();
        assert_eq!((rank(&hundred, 50), rank(&hundred, 99), rank(&[], 50)), (Some(50), Some(99), None));
    }
}
