//! Operators and users who get in each other's way.

use crate::clients::{self, Door};
use crate::readers;
use crate::workload::Deed;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use world::time;

/// So often each of them asks, at most.
const ASKED: u32 = 25;
/// So many retries of each client are taken, at most.
const TAKEN: u32 = 3;

/// A node takes no new work for a while.
pub async fn drained(door: Door, node: String, for_ms: u64) {
    clients::drain(&door, &node, true).await;
    time::sleep(time::ms(for_ms)).await;
    clients::drain(&door, &node, false).await;
}

/// Two clients follow what a job writes, from its beginning on, each from wherever it is
/// served.
pub async fn watched(door: Door, deed: Deed, seeds: [u64; 2], until_ms: u64) {
    let Some(job) = clients::submit(&door, &deed).await else { return };
    let readers = seeds.map(|seed| {
        let (door, job) = (door.own(), job.clone());
        let mut rng = SmallRng::seed_from_u64(seed);
        world::task::spawn(async move { readers::follow_job(&door, job, &mut rng, until_ms).await })
    });
    for reader in readers {
        reader.await.expect("the clients' node is never killed");
    }
}

/// Two clients try a job that fails again and again, as soon as that goes, and a
/// third cancels it now and then, if it is to: what one of them read of the job may be old when
/// the controller hears of it.
pub async fn retry(door: Door, deed: Deed, seeds: [u64; 3], cancels: bool) {
    let Some(job) = clients::submit(&door, &deed).await else { return };
    let clients: Vec<_> = (0..)
        .zip(seeds)
        .filter(|(client, _)| cancels || *client < 2)
        .map(|(client, seed)| {
            let (door, job) = (door.own(), job.clone());
            let mut rng = SmallRng::seed_from_u64(seed);
            world::task::spawn(async move {
                let mut taken = 0;
                for _ in 0..ASKED {
                    time::sleep(time::ms(rng.random_range(1..120))).await;
                    if client == 2 {
                        clients::cancel(&door, &job).await;
                    } else if clients::retry(&door, &job, "").await {
                        taken += 1;
                        if taken == TAKEN {
                            break;
                        }
                    }
                }
            })
        })
        .collect();
    for client in clients {
        client.await.expect("the clients' node is never killed");
    }
}
