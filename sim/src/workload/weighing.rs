//! Weights of the tenant whose limits change, in some seeds: from nearly nothing to all
//! that a weight may be. From a stream of chance of its own.

use super::Change;
use proto::fairness::WEIGHT_MAX;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

/// Lays a weight over some changes; a change without one takes it back.
pub fn draw(seed: u64, changes: &mut [Change]) {
    let mut rng = SmallRng::seed_from_u64(seed ^ 0x7765_6967_6874);
    if rng.random_bool(0.6) {
        return;
    }
    for change in changes {
        change.row.weight = *[0, 1, 30, 300, WEIGHT_MAX].choose(&mut rng).expect("not empty");
    }
}
