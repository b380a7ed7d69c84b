//! Long work of low priority, and what comes later and matters more, where pools have it give
//! way. Drawn from a stream of chance of its own, so that no other plan changes by it.

use super::{Deed, run_ms};
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

/// What is short ends before anybody has waited for it.
const RUN_MS: [u64; 3] = [8_000, 15_000, 25_000];

/// Has what comes early matter little and take long, and what comes late matter.
pub fn draw(seed: u64, deeds: &mut [Deed], over_ms: u64) {
    let mut rng = SmallRng::seed_from_u64(seed ^ 0x7969_656c_6469);
    let share = *[0.2, 0.5].choose(&mut rng).expect("not empty");
    for deed in deeds {
        if !rng.random_bool(share) {
            continue;
        }
        // Which is which in a late half changes hands, so that what gave way is asked again.
        if deed.at_ms < over_ms / 3 || rng.random_bool(0.3) {
            deed.spec.priority = rng.random_range(-6..-2);
            let single = deed.spec.steps.len() == 1;
            for step in deed.spec.steps.iter_mut().filter(|step| single && step.timeout_ms == 0) {
                let capped = step.array.as_ref().is_some_and(|array| array.max_running > 0);
                let few = step.array.as_ref().is_none_or(|array| proto::array::count(array) <= 10);
                if few && !capped && run_ms(step) < 60_000 {
                    step.argv[1] = format!("ms={}", RUN_MS.choose(&mut rng).expect("not empty"));
                }
            }
        } else {
            deed.spec.priority = rng.random_range(2..9);
        }
    }
}
