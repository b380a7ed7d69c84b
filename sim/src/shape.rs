//! What tells the machines of a cluster apart: pools and labels, drawn by the seed.
//! In half of the seeds nothing does.

use proto::v1::{Constraint, Step};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;

/// The pool that only larger clusters have.
pub const SECOND_POOL: &str = "second";
/// With so many machines there is one.
const MACHINES_FOR_TWO_POOLS: usize = 6;

/// One machine with tasks, as its agent tells of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Kind {
    pub pool: String,
    pub labels: BTreeMap<String, String>,
}

/// The machines with tasks, in their order.
#[must_use]
pub fn draw(seed: u64, agents: usize) -> Vec<Kind> {
    let mut rng = SmallRng::seed_from_u64(seed ^ 0x0073_6861_7065);
    let labelled = rng.random_bool(0.5);
    let pools = labelled && agents >= MACHINES_FOR_TWO_POOLS && rng.random_bool(0.6);
    let second = if pools { rng.random_range(2..=agents / 2) } else { 0 };
    (0..agents)
        .map(|index| {
            let pool = if index >= agents - second { SECOND_POOL } else { "default" };
            let mut labels = BTreeMap::new();
            if labelled {
                labels.insert("zone".to_owned(), if index % 2 == 0 { "a" } else { "b" }.to_owned());
                if index % 3 != 2 {
                    labels.insert("disk".to_owned(), "fast".to_owned());
                }
            }
            Kind { pool: pool.to_owned(), labels }
        })
        .collect()
}

impl Kind {
    /// Whether a step may run here, as far as pool and labels go.
    #[must_use]
    pub fn suits(&self, step: &Step) -> bool {
        let meets = |constraint: &Constraint| {
            (self.labels.get(&constraint.label) == Some(&constraint.value)) != constraint.negated
        };
        (step.pool.is_empty() || step.pool == self.pool) && step.constraints.iter().all(meets)
    }
}

/// Whether these machines could run a step: as many suit it as it has nodes.
#[must_use]
pub fn could_run<'a>(machines: impl Iterator<Item = &'a Kind>, step: &Step) -> bool {
    machines.filter(|kind| kind.suits(step)).count() >= step.nodes.max(1) as usize
}
