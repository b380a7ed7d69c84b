//! Shapes of jobs that only some seeds have, each at a rate of its own: tasks that
//! run far past their timeouts, jobs of very many steps, retries from a step and by
//! two at once, and more of a job file's grammar.

use super::{Deed, Retry, run_ms, shorten, step};
use crate::cluster::DAWN_MS;
use crate::shape::{Kind, could_run};
use proto::v1::{ArrayItem, ArraySpec, Constraint, Step};
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

/// What a task that must be ended by its timeout would run: longer than any run may
/// take to its end.
const OVERDUE_RUN_MS: u64 = 36_000_000;
/// More than so many steps, and whatever concerns the whole job makes one large
/// transaction.
const MANY_STEPS: u32 = 22;

/// How many of the deeds have it.
struct Shares {
    overdue: f64,
    many_steps: f64,
    retry_from: f64,
    retry_twice: f64,
    words: f64,
    placed: f64,
    pieces: f64,
    begin: f64,
    hasty: f64,
}

impl Shares {
    fn draw(rng: &mut SmallRng) -> Self {
        let mut one_of = |shares: [f64; 3]| *shares.choose(rng).expect("not empty");
        Self {
            overdue: one_of([0.0, 0.03, 0.12]),
            many_steps: one_of([0.0, 0.01, 0.03]),
            retry_from: one_of([0.0, 0.1, 0.3]),
            retry_twice: one_of([0.0, 0.2, 0.6]),
            words: one_of([0.0, 0.2, 0.8]),
            placed: one_of([0.0, 0.1, 0.4]),
            pieces: one_of([0.0, 0.2, 0.8]),
            begin: one_of([0.0, 0.03, 0.15]),
            hasty: one_of([0.0, 0.05, 0.4]),
        }
    }
}

/// Lays it over a plain workload.
pub fn draw(seed: u64, deeds: &mut [Deed], machines: &[Kind]) {
    let mut rng = SmallRng::seed_from_u64(seed ^ 0x7370_6563_6961_6c00);
    let shares = Shares::draw(&mut rng);
    for deed in deeds {
        if rng.random_bool(shares.overdue) {
            deed.spec.steps = vec![overdue_step(&mut rng)];
        } else if rng.random_bool(shares.many_steps) {
            deed.spec.steps = many_steps(&mut rng);
            deed.cancel_after_ms = rng.random_bool(0.6).then(|| rng.random_range(0..3_000));
        }
        if rng.random_bool(shares.pieces) {
            deed.spec.steps.iter_mut().filter_map(|step| step.array.as_mut()).for_each(|array| {
                in_pieces(&mut rng, array);
            });
        }
        if rng.random_bool(shares.words) {
            words(&mut rng, deed);
        }
        if rng.random_bool(shares.placed) {
            deed.spec.steps.iter_mut().for_each(|step| place(&mut rng, step, machines));
        }
        if rng.random_bool(shares.begin) {
            deed.spec.begin_ms = DAWN_MS + deed.at_ms + rng.random_range(100..40_000);
        }
        if rng.random_bool(shares.hasty) {
            deed.spec.steps.iter_mut().for_each(|step| hurry(&mut rng, step));
        }
        if rng.random_bool(shares.retry_from) {
            let from = deed.spec.steps.choose(&mut rng).expect("a job has steps").name.clone();
            deed.retry = Some(Retry { from_step: from, clients: 1 });
        }
        if let Some(retry) = &mut deed.retry
            && rng.random_bool(shares.retry_twice)
        {
            retry.clients = 2;
        }
    }
}

/// Only its timeout ends it, after some seconds: in these its agent may come and go.
fn overdue_step(rng: &mut SmallRng) -> Step {
    let mut step = step(rng, "overdue", &[]);
    step.argv = vec!["sim".to_owned(), format!("ms={OVERDUE_RUN_MS}")];
    step.outputs.clear();
    step.timeout_ms = *[1_500, 5_000, 12_000, 25_000].choose(rng).expect("not empty");
    step.retries = Some(u32::from(rng.random_bool(0.3)));
    if rng.random_bool(0.3) {
        let item = ArrayItem { first: 1, last: rng.random_range(2..5), stride: 1 };
        step.array = Some(ArraySpec { items: vec![item], max_running: 0 });
    }
    if let Some(need) = &mut step.per_task {
        need.millicores = need.millicores.min(500);
        need.gpus = 0;
    }
    step
}

/// One step, and very many after it: its failure, a cancel, a retry from it take
/// them all at once.
fn many_steps(rng: &mut SmallRng) -> Vec<Step> {
    let count = rng.random_range(MANY_STEPS..2 * MANY_STEPS);
    let fails = rng.random_bool(0.3);
    (0..count)
        .map(|number| {
            let after: &[&str] = if number == 0 { &[] } else { &["step-0"] };
            let mut step = step(rng, &format!("step-{number}"), after);
            shorten(&mut step, 300);
            step.timeout_ms = 0;
            if let Some(need) = &mut step.per_task {
                (need.millicores, need.gpus) = (250, 0);
            }
            if number == 0 && fails {
                step.argv.push("code=3".to_owned());
                step.retries = Some(0);
            }
            step
        })
        .collect()
}

/// A timeout that its program keeps to, unless something keeps it: it hangs, or its
/// machine stands still.
fn hurry(rng: &mut SmallRng, step: &mut Step) {
    let runs_ms = run_ms(step);
    if step.timeout_ms == 0 {
        step.timeout_ms = runs_ms + *[500, 3_000, 10_000].choose(rng).expect("not empty");
    }
}

/// As many tasks, or nearly, in several items: `1-10:3,20`.
fn in_pieces(rng: &mut SmallRng, array: &mut ArraySpec) {
    let [ArrayItem { first, last, .. }] = array.items[..] else { return };
    let split = rng.random_range(first..=last);
    let stride = rng.random_range(1..4);
    let beyond = last + rng.random_range(1..20);
    array.items = vec![ArrayItem { first, last: split, stride }];
    if split < last {
        array.items.push(ArrayItem { first: beyond, last: beyond + (last - split - 1), stride: 1 });
    }
}

/// What a job says of itself and its tasks, and nothing acts on here.
fn words(rng: &mut SmallRng, deed: &mut Deed) {
    let word =
        |rng: &mut SmallRng| (*["a", "b.c", "long-name", "0"].choose(rng).expect("not empty")).to_owned();
    deed.spec.labels =
        (0..rng.random_range(0..4)).map(|number| (format!("label-{number}"), word(rng))).collect();
    deed.spec.priority = *[-1_000, -7, 0, 0, 50, 1_000].choose(rng).expect("not empty");
    deed.spec.expected_runtime_ms = *[0, 1, 500, 90_000, 86_400_000].choose(rng).expect("not empty");
    for step in &mut deed.spec.steps {
        step.env = (0..rng.random_range(0..3)).map(|number| (format!("WORD_{number}"), word(rng))).collect();
    }
}

/// Only on machines of a pool or with a label, where there are enough of them.
fn place(rng: &mut SmallRng, step: &mut Step, machines: &[Kind]) {
    let mut placed = step.clone();
    if rng.random_bool(0.5)
        && let Some(kind) = machines.choose(rng)
    {
        placed.pool.clone_from(&kind.pool);
    }
    if rng.random_bool(0.6) {
        let (label, value) =
            *[("zone", "a"), ("zone", "b"), ("disk", "fast")].choose(rng).expect("not empty");
        let negated = rng.random_bool(0.3);
        placed.constraints.push(Constraint { label: label.to_owned(), value: value.to_owned(), negated });
    }
    if could_run(machines.iter(), &placed) {
        *step = placed;
    }
}
