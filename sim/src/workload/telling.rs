//! Tasks that say how far they have come. Drawn from a stream of chance of its own, so
//! that no other plan changes by it.

use super::{Deed, run_ms};
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

/// Shorter tasks end before anybody looks.
const RUN_MS_MIN: u64 = 2_000;

/// Has some steps say how far they have come.
pub fn draw(seed: u64, deeds: &mut [Deed]) {
    let mut rng = SmallRng::seed_from_u64(seed ^ 0x7465_6c6c_696e_6700);
    let share = *[0.0, 0.2, 0.6].choose(&mut rng).expect("not empty");
    for step in deeds.iter_mut().flat_map(|deed| &mut deed.spec.steps) {
        if rng.random_bool(share) && run_ms(step) >= RUN_MS_MIN {
            let every_ms = rng.random_range(500..4_000);
            step.argv.push(format!("progress={every_ms}"));
        }
    }
}
