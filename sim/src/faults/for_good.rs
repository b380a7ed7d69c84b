//! Agents that never come back. What is healed after trouble is a core of the
//! cluster, drawn by the seed; the work must end on that.

use super::{Fault, Planned};
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

/// Adds, in half of the seeds, agents that are gone, cut off or stuck for good, as
/// many as anything up to all: [`super::spare_enough`] keeps what the work needs.
pub fn leave_a_core(seed: u64, plan: &mut Vec<Planned>, agents: usize, until_ms: u64) {
    let mut rng = SmallRng::seed_from_u64(seed ^ 0x636f_7265);
    if agents == 0 || rng.random_bool(0.5) {
        return;
    }
    let mut lost: Vec<usize> = (0..agents).collect();
    lost.shuffle(&mut rng);
    lost.truncate(rng.random_range(1..=agents));
    for agent in lost {
        let fault = match rng.random_range(0..3) {
            0 => Fault::MachineGone { agent },
            1 => Fault::MachineCutOff { agent },
            _ => Fault::AgentStuck { agent },
        };
        // Some in the midst of trouble, and some only when all others are healed.
        let at_ms = if rng.random_bool(0.5) { rng.random_range(2_000..until_ms) } else { until_ms };
        plan.push(Planned { at_ms, fault });
    }
    plan.sort_by_key(|planned| planned.at_ms);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn in_some_seeds_agents_are_lost_for_good_each_once() {
        let (mut lost_none, mut kinds) = (0, BTreeSet::new());
        for seed in 0..40 {
            let mut plan = Vec::new();
            leave_a_core(seed, &mut plan, 8, 120_000);
            lost_none += u32::from(plan.is_empty());
            let agents: BTreeSet<_> =
                plan.iter().filter_map(|planned| planned.fault.takes_for_good()).collect();
            assert_eq!(agents.len(), plan.len());
            assert!(plan.is_sorted_by_key(|planned| planned.at_ms));
            kinds.extend(plan.iter().map(|planned| planned.fault.kind()));
        }
        assert!((10..30).contains(&lost_none), "{lost_none} of 40 seeds lose none");
        assert_eq!(kinds.len(), 3);
    }
}
