//! Steps that take whole nodes, in some seeds: tasks, arrays and gangs that run where nothing
//! else does. From a stream of chance of its own.

use super::{Deed, run_ms, shorten};
use proto::estimate;
use proto::v1::Step;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

/// What the tasks of one step may take one after another, since they may have to.
const ONE_BY_ONE_MS: u64 = 40_000;
/// More nodes than the smaller tenant may have at last, all their cores counted.
const NODES_MAX: u32 = 2;

/// Lays it over a workload.
pub fn draw(seed: u64, deeds: &mut [Deed]) {
    let mut rng = SmallRng::seed_from_u64(seed ^ 0x616c_6f6e_6500);
    let share = *[0.0, 0.05, 0.2].choose(&mut rng).expect("not empty");
    for step in deeds.iter_mut().flat_map(|deed| &mut deed.spec.steps) {
        if step.nodes <= NODES_MAX && rng.random_bool(share) {
            alone(step);
        }
    }
}

fn alone(step: &mut Step) {
    step.exclusive = true;
    let tasks = estimate::step_tasks(step);
    if tasks > 1 && run_ms(step).saturating_mul(tasks) > ONE_BY_ONE_MS {
        shorten(step, ONE_BY_ONE_MS / tasks);
    }
}
