//! Lists of nodes as Slurm writes them: `n[1-3,7],login`.

use std::collections::{BTreeMap, BTreeSet};

/// Names that end in a number of one width are drawn together. Sorted, each
/// once.
#[must_use]
pub fn list<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let mut groups: BTreeMap<(&str, usize), Vec<u64>> = BTreeMap::new();
    let mut plain: Vec<&str> = Vec::new();
    let names: Vec<&str> = names.into_iter().collect();
    let padded: BTreeSet<(&str, usize)> = names
        .iter()
        .map(|name| parted(name))
        .filter(|(_, digits)| digits.len() > 1 && digits.starts_with('0'))
        .map(|(stem, digits)| (stem, digits.len()))
        .collect();
    for name in names {
        let (stem, digits) = parted(name);
        // Numbers of one width belong together where one has zeros before it;
        // else any do.
        let width = if padded.contains(&(stem, digits.len())) { digits.len() } else { 0 };
        match digits.parse() {
            Ok(number) => groups.entry((stem, width)).or_default().push(number),
            Err(_) => plain.push(name),
        }
    }
    plain.sort_unstable();
    plain.dedup();
    let drawn = groups.into_iter().map(|((stem, width), mut numbers)| {
        numbers.sort_unstable();
        numbers.dedup();
        let written = |number: u64| format!("{number:0width$}");
        match numbers.as_slice() {
            [only] => format!("{stem}{}", written(*only)),
            _ => format!("{stem}[{}]", runs(&numbers, written)),
        }
    });
    plain.into_iter().map(str::to_owned).chain(drawn).collect::<Vec<_>>().join(",")
}

/// A name's stem and the digits it ends in.
fn parted(name: &str) -> (&str, &str) {
    name.split_at(name.trim_end_matches(|c: char| c.is_ascii_digit()).len())
}

/// `1-3,7` of sorted numbers.
#[must_use]
pub fn runs(numbers: &[u64], written: impl Fn(u64) -> String) -> String {
    let mut parts: Vec<(u64, u64)> = Vec::new();
    for number in numbers {
        match parts.last_mut() {
            Some((_, last)) if *last + 1 == *number => *last = *number,
            _ => parts.push((*number, *number)),
        }
    }
    let part = |(first, last): (u64, u64)| match first == last {
        true => written(first),
        false => format!("{}-{}", written(first), written(last)),
    };
    parts.into_iter().map(part).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_drawn_together() {
        for (names, said) in [
            ("n1", "n1"),
            ("n2 n1 n3 n7 n1", "n[1-3,7]"),
            ("login n09 n10 n08", "login,n[08-10]"),
            ("a1 b1", "a1,b1"),
            ("", ""),
            ("r1-n1 r1-n2 r2-n1", "r1-n[1-2],r2-n1"),
            ("x99999999999999999999999", "x99999999999999999999999"),
        ] {
            assert_eq!(list(names.split_whitespace()), said, "{names}");
        }
    }
}
