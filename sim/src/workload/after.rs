//! Jobs that come after others: task by task, after one task, or after whole jobs.
//! Which others, a deed names by their keys: numbers are given only in the run.

use super::{CAPPED_ARRAY_MS, Deed, Follows, run_ms, shorten, step};
use proto::array;
use proto::v1::{ArrayItem, ArraySpec, Dependency, DependencyKind, Step};
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

/// Of those submitted before it, a job comes mostly after one of the latest: they
/// still live, or end just now.
const LATEST: usize = 12;

/// How the other is to have ended: mostly well.
const KINDS: [DependencyKind; 4] =
    [DependencyKind::Ok, DependencyKind::Ok, DependencyKind::Any, DependencyKind::NotOk];

/// Has some deeds follow an earlier one's array: each task its like, or the whole
/// job one of its tasks.
pub fn tasks(seed: u64, deeds: &mut [Deed]) {
    let mut rng = SmallRng::seed_from_u64(seed ^ 0x666f_6c6c_6f77);
    let share = *[0.0, 0.1, 0.3].choose(&mut rng).expect("not empty");
    for at in 1..deeds.len() {
        if !rng.random_bool(share) {
            continue;
        }
        let (earlier, later) = deeds.split_at_mut(at);
        let deed = &mut later[0];
        let arrays = earlier.iter().filter(|other| other.tenant == deed.tenant).filter_map(|other| {
            let step = other.spec.steps.iter().find(|step| step.array.is_some())?;
            Some((other.key.clone(), step.name.clone(), step.array.clone()?))
        });
        let arrays: Vec<_> = arrays.collect();
        let Some((key, step, array)) = arrays.choose(&mut rng) else { continue };
        let named = rng.random_bool(0.5);
        let mut on =
            Dependency { step: if named { step.clone() } else { String::new() }, ..Dependency::default() };
        if rng.random_bool(0.7) {
            on.set_kind(DependencyKind::Each);
            let last = array.items.iter().map(|item| item.last).max().unwrap_or(1);
            deed.spec.steps = vec![like_step(&mut rng, last)];
            deed.spec.begin_ms = 0;
            // The steps it named are gone.
            if let Some(retry) = &mut deed.retry {
                retry.from_step.clear();
            }
        } else {
            on.set_kind(*KINDS.choose(&mut rng).expect("not empty"));
            let task = rng.random_range(0..array::count(array));
            on.index = array::index_of(array, task);
        }
        deed.follows = vec![Follows { key: key.clone(), on }];
    }
}

/// An array like another of `1..=last`, or nearly.
fn like_step(rng: &mut SmallRng, last: u64) -> Step {
    let mut step = step(rng, "like", &[]);
    let item = match rng.random_range(0..6) {
        0 => ArrayItem { first: 2, last: last + 2, stride: 1 },
        1 => ArrayItem { first: 1, last: last.div_ceil(2), stride: 1 },
        2 => ArrayItem { first: 1, last, stride: 2 },
        _ => ArrayItem { first: 1, last, stride: 1 },
    };
    step.array = Some(ArraySpec { items: vec![item], max_running: u32::from(rng.random_bool(0.2)) * 4 });
    shorten(&mut step, CAPPED_ARRAY_MS * 4 / last.max(40));
    step
}

/// Has some deeds come after whole jobs of earlier ones, one or several. Half of
/// them are submitted about when the last of these ends.
pub fn jobs(seed: u64, deeds: &mut [Deed], over_ms: u64) {
    let mut rng = SmallRng::seed_from_u64(seed ^ 0x0061_6674_6572);
    let share = *[0.0, 0.1, 0.3, 0.6].choose(&mut rng).expect("not empty");
    for at in 1..deeds.len() {
        if !deeds[at].follows.is_empty() || !rng.random_bool(share) {
            continue;
        }
        let (earlier, later) = deeds.split_at_mut(at);
        let deed = &mut later[0];
        let others: Vec<&Deed> = earlier.iter().filter(|other| other.tenant == deed.tenant).collect();
        if others.is_empty() {
            continue;
        }
        let count = *[1, 1, 1, 2, 3, 6].choose(&mut rng).expect("not empty");
        let mut chosen: Vec<&Deed> = Vec::new();
        for _ in 0..count {
            let from = if rng.random_bool(0.7) { others.len().saturating_sub(LATEST) } else { 0 };
            let other = others[rng.random_range(from..others.len())];
            if chosen.iter().all(|known| known.key != other.key) {
                chosen.push(other);
            }
        }
        for other in &chosen {
            let mut on = Dependency::default();
            on.set_kind(*KINDS.choose(&mut rng).expect("not empty"));
            deed.follows.push(Follows { key: other.key.clone(), on });
        }
        if rng.random_bool(0.5)
            && let Some(last) = chosen.iter().max_by_key(|other| other.at_ms)
        {
            let ends_about_ms = 2 * last.spec.steps.iter().map(run_ms).sum::<u64>().min(10_000) + 1_500;
            deed.at_ms = (last.at_ms + rng.random_range(20..ends_about_ms)).min(over_ms);
        }
    }
}
