//! Arrays: `0-15%4`, `1,3,5-9:2`.
//!
//! An array is kept as its ranges and costs no more however long it is. A task
//! has two numbers: the *index* the user wrote, and the *ordinal*, counted from
//! 0 in the order written, by which all state is kept.

use crate::{
    limits::{ARRAY_INDEX_MAX, ARRAY_ITEMS_MAX, TASKS_MAX},
    problem::Problem,
    v1::{ArrayItem, ArraySpec},
};

const REMEDY: &str = "write it like 0-15, 1,3,5-9:2 or 1-100%5 (5 at a time)";

/// Reads the grammar: items `N`, `N-M` or `N-M:STRIDE`, joined by commas, then
/// perhaps `%MAX`.
pub fn parse(text: &str) -> Result<ArraySpec, Problem> {
    let refuse = |reason: String| Problem::new("spec.array", "array", text, reason, REMEDY);
    let number = |part: &str| -> Result<u64, Problem> {
        if part.is_empty() || !part.bytes().all(|b| b.is_ascii_digit()) {
            return Err(refuse(format!("`{part}` is not a whole number")));
        }
        part.parse().map_err(|_| refuse(format!("`{part}` is too large")))
    };
    let (ranges, cap) = match text.split_once('%') {
        Some((ranges, cap)) => (ranges, Some(cap)),
        None => (text, None),
    };
    let max_running = match cap {
        None => 0,
        Some(cap) => match u32::try_from(number(cap.trim())?) {
            Ok(0) => return Err(refuse("at most 0 at a time would never run".to_owned())),
            Ok(max_running) => max_running,
            Err(_) => return Err(refuse(format!("`{cap}` is too large"))),
        },
    };
    let mut items = Vec::new();
    for part in ranges.split(',').map(str::trim) {
        let (range, stride) = match part.split_once(':') {
            Some((range, stride)) => (range, number(stride)?),
            None => (part, 1),
        };
        let (first, last) = match range.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None if stride != 1 => return Err(refuse(format!("`{part}` has a stride but no range"))),
            None => (number(range)?, number(range)?),
        };
        items.push(ArrayItem { first, last, stride });
        if items.len() > ARRAY_ITEMS_MAX {
            return Err(refuse(format!("has more than {ARRAY_ITEMS_MAX} items")));
        }
    }
    let mut spec = ArraySpec { items, max_running };
    check(&spec).map_err(|problem| problem.of_value(text))?;
    normalize(&mut spec);
    Ok(spec)
}

/// Ends each item at the last index it really has.
pub fn normalize(spec: &mut ArraySpec) {
    for item in &mut spec.items {
        item.stride = item.stride.max(1);
        if item.last >= item.first {
            item.last -= (item.last - item.first) % item.stride;
        }
        if item.first == item.last {
            item.stride = 1;
        }
    }
}

/// Writes what [`parse`] reads.
#[must_use]
pub fn format(spec: &ArraySpec) -> String {
    let items: Vec<String> = spec
        .items
        .iter()
        .map(|item| match (item.first == item.last, item.stride) {
            (true, _) => item.first.to_string(),
            (false, 0 | 1) => format!("{}-{}", item.first, item.last),
            (false, stride) => format!("{}-{}:{stride}", item.first, item.last),
        })
        .collect();
    let cap = if spec.max_running == 0 { String::new() } else { format!("%{}", spec.max_running) };
    items.join(",") + &cap
}

/// Whether the array is one: not empty, ranges forwards, within the limits, and
/// no index twice. What is wrong here is written right: it has a code of its own.
pub fn check(spec: &ArraySpec) -> Result<(), Problem> {
    let refuse = |reason: String| Problem::new("spec.array_indexes", "array", format(spec), reason, REMEDY);
    if spec.items.is_empty() {
        return Err(refuse("has no indexes".to_owned()));
    }
    if spec.items.len() > ARRAY_ITEMS_MAX {
        return Err(refuse(format!("has more than {ARRAY_ITEMS_MAX} items")));
    }
    for item in &spec.items {
        if item.stride == 0 {
            return Err(refuse("a stride of 0 never gets on".to_owned()));
        }
        if item.last < item.first {
            return Err(refuse(format!("`{}-{}` runs backwards", item.first, item.last)));
        }
        if item.last > ARRAY_INDEX_MAX {
            return Err(refuse(format!("index {} is above {ARRAY_INDEX_MAX}", item.last)));
        }
    }
    let tasks = count(spec);
    if tasks > TASKS_MAX {
        return Err(refuse(format!("has {tasks} tasks; at most {TASKS_MAX} are taken")));
    }
    let mut sorted: Vec<&ArrayItem> = spec.items.iter().collect();
    sorted.sort_by_key(|item| item.first);
    for (at, item) in sorted.iter().enumerate() {
        for other in sorted[at + 1..].iter().take_while(|other| other.first <= item.last) {
            if let Some(index) = common_index(item, other) {
                return Err(refuse(format!("names index {index} twice")));
            }
        }
    }
    Ok(())
}

/// Tasks in all.
#[must_use]
pub fn count(spec: &ArraySpec) -> u64 {
    spec.items.iter().fold(0, |sum, item| sum.saturating_add(item_count(item)))
}

/// The index that the user gave the task of this ordinal.
#[must_use]
pub fn index_of(spec: &ArraySpec, ordinal: u64) -> Option<u64> {
    let mut before = 0_u64;
    for item in &spec.items {
        let tasks = item_count(item);
        if ordinal - before < tasks {
            return Some(item.first + (ordinal - before) * item.stride.max(1));
        }
        before += tasks;
    }
    None
}

/// The ordinal of the task that the user calls `index`.
#[must_use]
pub fn ordinal_of(spec: &ArraySpec, index: u64) -> Option<u64> {
    let mut before = 0_u64;
    for item in &spec.items {
        let stride = item.stride.max(1);
        if (item.first..=item.last).contains(&index) && (index - item.first).is_multiple_of(stride) {
            return Some(before + (index - item.first) / stride);
        }
        before = before.saturating_add(item_count(item));
    }
    None
}

/// Tasks of one item.
#[must_use]
pub fn item_count(item: &ArrayItem) -> u64 {
    if item.last < item.first {
        return 0;
    }
    ((item.last - item.first) / item.stride.max(1)).saturating_add(1)
}

/// The smallest index that both items have: two congruences, solved by the Chinese
/// remainder theorem, then moved into both ranges. No stride may be 0.
#[must_use]
pub fn common_index(a: &ArrayItem, b: &ArrayItem) -> Option<u64> {
    let (stride_a, stride_b) = (i128::from(a.stride), i128::from(b.stride));
    let (first_a, first_b) = (i128::from(a.first), i128::from(b.first));
    let (divisor, inverse) = extended_gcd(stride_a, stride_b);
    if (first_b - first_a) % divisor != 0 {
        return None;
    }
    let period = stride_a / divisor * stride_b;
    let steps = ((first_b - first_a) / divisor * inverse).rem_euclid(stride_b / divisor);
    let any = first_a + stride_a * steps;
    let from = first_a.max(first_b);
    let smallest = from + (any - from).rem_euclid(period);
    (smallest <= i128::from(a.last.min(b.last))).then(|| u64::try_from(smallest).ok()).flatten()
}

/// gcd(a, b) and x with `a * x ≡ gcd (mod b)`; both above 0.
fn extended_gcd(a: i128, b: i128) -> (i128, i128) {
    let (mut old_r, mut r) = (a, b);
    let (mut old_x, mut x) = (1, 0);
    while r != 0 {
        let quotient = old_r / r;
        (old_r, r) = (r, old_r - quotient * r);
        (old_x, x) = (x, old_x - quotient * x);
    }
    (old_r, old_x)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn indexes(spec: &ArraySpec) -> Vec<u64> {
        (0..count(spec)).map(|ordinal| index_of(spec, ordinal).unwrap()).collect()
    }

    #[test]
    fn the_grammar_is_read_and_written() {
        let spec = parse("0-15%4").unwrap();
        assert_eq!((count(&spec), spec.max_running, format(&spec).as_str()), (16, 4, "0-15%4"));
        let spec = parse("1,3,5-9:2").unwrap();
        assert_eq!(indexes(&spec), [1, 3, 5, 7, 9]);
        assert_eq!((ordinal_of(&spec, 7), ordinal_of(&spec, 8), index_of(&spec, 5)), (Some(3), None, None));
        // The end is the last index there is.
        assert_eq!(format(&parse("0-10:4").unwrap()), "0-8:4");
        assert_eq!(format(&parse("7-7").unwrap()), "7");
        // The order written is the order of ordinals.
        assert_eq!(indexes(&parse("5-6,0-1").unwrap()), [5, 6, 0, 1]);
        // Interleaved strides share no index.
        assert_eq!(count(&parse("0-10:2,1-11:2").unwrap()), 12);
    }

    #[test]
    fn a_million_tasks_cost_one_range() {
        let spec = parse("1-1000000").unwrap();
        assert_eq!(
            (spec.items.len(), count(&spec), index_of(&spec, 999_999)),
            (1, 1_000_000, Some(1_000_000))
        );
        assert_eq!(count(&parse("0-9999999").unwrap()), TASKS_MAX);
    }

    #[test]
    fn what_is_no_array_is_refused_with_a_reason() {
        for (text, reason) in [
            ("", "`` is not a whole number"),
            ("a", "`a` is not a whole number"),
            ("1-", "`` is not a whole number"),
            ("9-5", "`9-5` runs backwards"),
            ("0-5:0", "a stride of 0 never gets on"),
            ("5:2", "`5:2` has a stride but no range"),
            ("0-5%0", "at most 0 at a time would never run"),
            ("0-5%", "`` is not a whole number"),
            ("0-5%2%3", "`2%3` is not a whole number"),
            ("1,1", "names index 1 twice"),
            ("0-9,5-12", "names index 5 twice"),
            ("0-90:6,3-90:9", "names index 12 twice"),
            ("-1", "`` is not a whole number"),
            ("0-10000000", "has 10000001 tasks; at most 10000000 are taken"),
            ("99999999999999999999", "`99999999999999999999` is too large"),
            ("1000000000001", "index 1000000000001 is above 1000000000000"),
        ] {
            let problem = parse(text).unwrap_err();
            assert_eq!(problem.reason, reason, "{text}");
            // What is written right has a code of its own.
            let written = ["9-5", "0-5:0", "1,1", "0-9,5-12", "0-90:6,3-90:9", "0-10000000", "1000000000001"];
            let code = if written.contains(&text) { "spec.array_indexes" } else { "spec.array" };
            assert_eq!((problem.code.as_str(), problem.value.as_str()), (code, text));
        }
        let many = (0..=1000).map(|n| (n * 2).to_string()).collect::<Vec<_>>().join(",");
        assert_eq!(parse(&many).unwrap_err().reason, "has more than 1000 items");
    }

    proptest! {
        #[test]
        fn agrees_with_the_expanded_set(
            items in prop::collection::vec((0..60_u64, 0..60_u64, 1..8_u64), 1..5), cap in 0..9_u32,
        ) {
            let items: Vec<ArrayItem> =
                items.into_iter().map(|(first, more, stride)| ArrayItem { first, last: first + more, stride }).collect();
            let expanded: Vec<u64> =
                items.iter().flat_map(|i| (i.first..=i.last).step_by(usize::try_from(i.stride).unwrap())).collect();
            let unique = expanded.iter().collect::<BTreeSet<_>>().len() == expanded.len();
            let mut spec = ArraySpec { items, max_running: cap };
            prop_assert_eq!(check(&spec).is_ok(), unique);
            prop_assert_eq!(count(&spec), expanded.len() as u64);
            if unique {
                prop_assert_eq!(indexes(&spec), expanded.clone());
                for (ordinal, index) in expanded.iter().enumerate() {
                    prop_assert_eq!(ordinal_of(&spec, *index), Some(ordinal as u64));
                }
                normalize(&mut spec);
                prop_assert_eq!(parse(&format(&spec)).unwrap(), spec);
            }
        }

        #[test]
        fn no_text_breaks_the_reader(text in "[0-9,:%-]{0,24}") {
            if let Ok(spec) = parse(&text) {
                prop_assert!(count(&spec) > 0 && count(&spec) <= TASKS_MAX);
            }
        }
    }
}
