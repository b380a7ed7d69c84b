//! Jobs of which outputs and logs are kept for a short time, since they ask for it or since
//! their tenant keeps no longer. In some seeds alone, and drawn from a stream of chance of its
//! own, so that no other plan changes by it.

use super::{Change, Deed};
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

/// Whoever follows a job may still be at it when its time is over.
const KEEP_MS: [u64; 4] = [1_000, 2_000, 5_000, 10_000];

/// Has some jobs be kept for a short time.
pub fn draw(seed: u64, deeds: &mut [Deed]) {
    let mut rng = chance(seed);
    let share = *[0.0, 0.0, 0.0, 0.2, 0.6].choose(&mut rng).expect("not empty");
    for deed in deeds {
        if rng.random_bool(share) {
            deed.spec.keep_ms = *KEEP_MS.choose(&mut rng).expect("not empty");
        }
    }
}

/// Has the tenant whose limits change keep what its jobs give for no longer than this, from
/// one of the changes on. It was for ever before.
pub fn limit(seed: u64, changes: &mut [Change]) {
    let mut rng = chance(seed.rotate_left(32));
    let from = rng.random_range(0..changes.len().max(1));
    let retention_ms = *[None, None, None, Some(10_000), Some(40_000)].choose(&mut rng).expect("not empty");
    for change in &mut changes[from..] {
        change.row.retention_ms = retention_ms;
    }
}

fn chance(seed: u64) -> SmallRng {
    SmallRng::seed_from_u64(seed ^ 0x6b65_6570_696e_6700)
}
