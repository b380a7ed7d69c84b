//! Tasks that keep checkpoints, and go on from them when they are tried again. Drawn
//! from a stream of chance of its own, so that no other plan changes by it.

use super::{Deed, run_ms};
use proto::v1::{Checkpoint, Step};
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

/// Shorter tasks end before anybody looks for their checkpoints.
const RUN_MS_MIN: u64 = 1_500;

/// Has some steps keep checkpoints.
pub fn draw(seed: u64, deeds: &mut [Deed]) {
    let mut rng = SmallRng::seed_from_u64(seed ^ 0x7361_7669_6e67_0000);
    let share = *[0.0, 0.2, 0.6].choose(&mut rng).expect("not empty");
    for step in deeds.iter_mut().flat_map(|deed| &mut deed.spec.steps) {
        if rng.random_bool(share) && run_ms(step) >= RUN_MS_MIN {
            save(&mut rng, step);
        }
    }
}

fn save(rng: &mut SmallRng, step: &mut Step) {
    let path = *["ckpt", "./ckpt/", "deep/state"].choose(rng).expect("not empty");
    let every_ms = *[1_000, 2_000, 5_000].choose(rng).expect("not empty");
    let asked = rng.random_bool(0.3);
    let signal = if asked { "USR1" } else { "" }.to_owned();
    step.checkpoint = Some(Checkpoint { path: path.to_owned(), every_ms, signal });
    let keeps_ms = rng.random_range(300..2_000);
    let bytes = *[0, 100, 70_000].choose(rng).expect("not empty");
    let when = if asked { ":asked" } else { "" };
    step.argv.push(format!("ckpt={keeps_ms}:{bytes}{when}"));
}
