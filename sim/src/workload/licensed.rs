//! Steps that hold licenses, in some seeds: of one kind or of two, few or all there are. From
//! a stream of chance of its own.

use super::{Deed, run_ms, shorten};
use crate::shape;
use proto::estimate;
use proto::v1::Step;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

/// What the tasks of one step may take one after another, since they may have to.
const ONE_BY_ONE_MS: u64 = 40_000;

/// Lays it over a workload.
pub fn draw(seed: u64, deeds: &mut [Deed]) {
    let mut rng = SmallRng::seed_from_u64(seed ^ 0x6c69_6365_6e73);
    let share = *[0.1, 0.4].choose(&mut rng).expect("not empty");
    let licenses: Vec<(String, u32)> = shape::licenses(seed).into_iter().collect();
    if licenses.is_empty() {
        return;
    }
    for step in deeds.iter_mut().flat_map(|deed| &mut deed.spec.steps) {
        if rng.random_bool(share) {
            ask(&mut rng, step, &licenses);
        }
    }
}

fn ask(rng: &mut SmallRng, step: &mut Step, licenses: &[(String, u32)]) {
    let kinds = if rng.random_bool(0.2) { licenses.len() } else { 1 };
    for (name, total) in licenses.choose_multiple(rng, kinds) {
        let count = if rng.random_bool(0.7) { 1 } else { rng.random_range(1..=*total) };
        step.licenses.insert(name.clone(), count);
    }
    let tasks = estimate::step_tasks(step);
    if tasks > 1 && run_ms(step).saturating_mul(tasks) > ONE_BY_ONE_MS {
        shorten(step, ONE_BY_ONE_MS / tasks);
    }
}
