//! How long the cluster took to be well again after each kind of fault had healed,
//! over all runs of a sweep. What *well* is, `trace/recovery.rs` says.

use std::collections::BTreeMap;

/// By kind: what each heal took, in milliseconds, and how many never recovered.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Recoveries(BTreeMap<String, (Vec<u64>, u64)>);

impl Recoveries {
    /// Takes what a run prints: `kind=350,0,never kind=…`.
    pub fn read<'a>(&mut self, words: impl Iterator<Item = &'a str>) {
        for (kind, times) in words.filter_map(|word| word.split_once('=')) {
            let (took, never) = self.0.entry(kind.to_owned()).or_default();
            for time in times.split(',') {
                match time.parse() {
                    Ok(ms) => took.push(ms),
                    Err(_) => *never += 1,
                }
            }
        }
    }

    pub fn add(&mut self, more: Self) {
        for (kind, (times, never)) in more.0 {
            let (all, nevers) = self.0.entry(kind).or_default();
            all.extend(times);
            *nevers += never;
        }
    }

    /// A table; none where nothing healed.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        if self.0.is_empty() {
            return Vec::new();
        }
        let title = "from a heal until the cluster is well, virtual seconds";
        let mut lines = vec![
            format!("recovery: {title}"),
            format!("{:<22} {:>6} {:>8} {:>8} {:>8} {:>6}", "fault", "heals", "p50", "p99", "max", "never"),
        ];
        for (kind, (times, never)) in &self.0 {
            let mut times = times.clone();
            times.sort_unstable();
            let heals = times.len() as u64 + never;
            let at = |percent| rank(&times, percent).map_or_else(|| "-".to_owned(), seconds);
            let (p50, p99, max) = (at(50), at(99), at(100));
            lines.push(format!("{kind:<22} {heals:>6} {p50:>8} {p99:>8} {max:>8} {never:>6}"));
        }
        lines
    }
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
        for text in ["partition=0,12500,never slow_disk=0", "partition=3100"] {
            let mut one = Recoveries::default();
            one.read(text.split(' '));
            all.add(one);
        }
        assert_eq!(
            all.lines()[2..],
            [
                "partition                   4      3.1     12.5     12.5      1",
                "slow_disk                   1      0.0      0.0      0.0      0",
            ]
        );
        assert!(Recoveries::default().lines().is_empty());
        let hundred: Vec<u64> = (1..=100).collect();
        assert_eq!((rank(&hundred, 50), rank(&hundred, 99), rank(&[], 50)), (Some(50), Some(99), None));
    }
}
