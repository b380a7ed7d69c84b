//! An operator who reserves nodes again and again: for nobody, so that their fans can be
//! looked at, or for one tenant. In a part of the seeds, as long as there is trouble.

use crate::clients::{self, Door};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::time::Duration;
use world::sim::universe;
use world::time;

/// So many seeds have one.
const SHARE: f64 = 0.3;

/// Reserves until then.
pub async fn maintain(door: Door, seed: u64, agents: usize, until: Duration) {
    let mut rng = SmallRng::seed_from_u64(seed ^ 0x6661_6e73_0000);
    if !rng.random_bool(SHARE) {
        return;
    }
    while universe::elapsed() < until {
        let node = format!("node-{}", rng.random_range(0..agents));
        let from_ms = if rng.random_bool(0.5) { 0 } else { rng.random_range(0..20_000) };
        let lasts_ms = rng.random_range(500..8_000);
        let tenants = if rng.random_bool(0.3) { vec!["lab".to_owned()] } else { Vec::new() };
        let span_ms = (from_ms, from_ms + lasts_ms);
        clients::reserve(&door, &node, Some(span_ms), tenants).await;
        time::sleep(time::ms(rng.random_range(500..5_000))).await;
        // Some end before their time.
        if rng.random_bool(0.2) {
            clients::reserve(&door, &node, None, Vec::new()).await;
        }
    }
    // By the clock of a server that is wrong by an hour what is left lasts an hour more.
    for agent in 0..agents {
        clients::reserve(&door, &format!("node-{agent}"), None, Vec::new()).await;
    }
}
