//! Jobs that nothing but their cancel ends: where the word to stop is lost, they run for
//! ever. In half of the seeds there are some.

use super::{Deed, Load, step};
use proto::v1::{ArrayItem, ArraySpec, JobSpec};
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

/// Each is cancelled so long after its acknowledgement at most: until then it holds
/// what others wait for.
const CANCEL_AFTER_MS_MAX: u64 = 40_000;

/// Adds them to a workload.
pub fn add(seed: u64, deeds: &mut Vec<Deed>, load: Load, tenants: &[&str]) {
    let mut rng = SmallRng::seed_from_u64(seed ^ 0x656e_646c_6573_7300);
    let share = *[0, 0, 40, 15].choose(&mut rng).expect("not empty");
    let count = load.jobs.checked_div(share).unwrap_or(0);
    deeds.extend((0..count).map(|number| {
        let mut step = step(&mut rng, "endless", &[]);
        step.argv = vec!["sim".to_owned(), "hang".to_owned()];
        step.outputs.clear();
        step.timeout_ms = 0;
        if let Some(need) = &mut step.per_task {
            (need.millicores, need.gpus) = (250, 0);
        }
        match rng.random_range(0..4) {
            0 => {
                let item = ArrayItem { first: 1, last: rng.random_range(2..5), stride: 1 };
                step.array = Some(ArraySpec { items: vec![item], max_running: 0 });
            }
            1 => {
                step.nodes = rng.random_range(1..=load.nodes.clamp(1, 2));
                step.tasks_per_node = 2;
            }
            _ => {}
        }
        Deed {
            at_ms: rng.random_range(0..load.over_ms),
            tenant: (*tenants.choose(&mut rng).expect("there are tenants")).to_owned(),
            spec: JobSpec { name: format!("endless-{number}"), steps: vec![step], ..JobSpec::default() },
            key: format!("endless-{number}"),
            cancel_after_ms: Some(rng.random_range(200..CANCEL_AFTER_MS_MAX)),
            retry: None,
            again: false,
            follows: Vec::new(),
            inputs: Vec::new(),
        }
    }));
}
