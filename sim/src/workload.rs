//! The work of a run, drawn from its seed: what is submitted, cancelled,
//! retried, and when. Plain work is drawn here; what only some seeds have is laid
//! over it: [`special`] shapes of jobs, steps that are [`alone`] on their nodes or [`licensed`], jobs that come [`after`] others, [`inputs`],
//! checkpoints ([`saving`]), what tasks say of themselves ([`telling`]), and [`endless`] ones.

mod after;
mod alone;
mod endless;
mod grouping;
pub mod inputs;
mod keeping;
mod licensed;
mod saving;
mod special;
mod telling;
mod weighing;
mod yielding;

use crate::shape::Kind;
use proto::v1::{
    ArrayItem, ArraySpec, Budget, Dependency, JobSpec, Quota, Resources, Step, TenantRow, WhenFull,
};
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

/// One thing a client does.
#[derive(Clone, Debug, PartialEq)]
pub struct Deed {
    /// Virtual milliseconds after the start.
    pub at_ms: u64,
    pub tenant: String,
    pub spec: JobSpec,
    pub key: String,
    /// Cancels the job so long after its acknowledgement.
    pub cancel_after_ms: Option<u64>,
    /// Tries the job again once it has ended.
    pub retry: Option<Retry>,
    /// Says the submission twice, as a client does that got no answer.
    pub again: bool,
    /// Comes after other deeds' jobs, or tasks of them, where these are known by then.
    pub follows: Vec<Follows>,
    /// Said in its spec only once they are uploaded.
    pub inputs: Vec<inputs::Given>,
}

/// How a user tries an ended job again, once.
#[derive(Clone, Debug, PartialEq)]
pub struct Retry {
    /// Empty: what failed or was cancelled. Named: that step and all after it, also
    /// of a job that completed.
    pub from_step: String,
    /// So many clients do so at the same time.
    pub clients: u32,
}

/// What of another deed's job one waits for.
#[derive(Clone, Debug, PartialEq)]
pub struct Follows {
    /// That deed's.
    pub key: String,
    /// Without the number of the job, which it has only once it is let in.
    pub on: Dependency,
}

/// What the tasks of an array with a cap take one after another.
const CAPPED_ARRAY_MS: u64 = 60_000;

/// How much work.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub jobs: u32,
    pub over_ms: u64,
    pub nodes: u32,
}

/// Draws a workload for machines of these kinds.
#[must_use]
pub fn draw(seed: u64, load: Load, tenants: &[&str], machines: &[Kind]) -> Vec<Deed> {
    let mut rng = SmallRng::seed_from_u64(seed ^ 0x776f_726b_6c6f_6164);
    let mut deeds: Vec<Deed> = (0..load.jobs)
        .map(|number| {
            let spec = job(&mut rng, number, load.nodes);
            Deed {
                at_ms: rng.random_range(0..load.over_ms),
                tenant: (*tenants.choose(&mut rng).expect("there are tenants")).to_owned(),
                spec,
                key: format!("deed-{number}"),
                cancel_after_ms: rng.random_bool(0.08).then(|| rng.random_range(0..20_000)),
                retry: rng.random_bool(0.3).then(|| Retry { from_step: String::new(), clients: 1 }),
                again: rng.random_bool(0.1),
                follows: Vec::new(),
                inputs: Vec::new(),
            }
        })
        .collect();
    let by_time = |deeds: &mut Vec<Deed>| {
        deeds.sort_by(|a, b| (a.at_ms, &a.key).cmp(&(b.at_ms, &b.key)));
    };
    by_time(&mut deeds);
    special::draw(seed, &mut deeds, machines);
    alone::draw(seed, &mut deeds);
    licensed::draw(seed, &mut deeds);
    after::tasks(seed, &mut deeds);
    after::jobs(seed, &mut deeds, load.over_ms);
    inputs::draw(seed, &mut deeds);
    inputs::warn(seed, &mut deeds);
    if !crate::shape::preemption(seed).is_empty() {
        yielding::draw(seed, &mut deeds, load.over_ms);
    }
    saving::draw(seed, &mut deeds);
    telling::draw(seed, &mut deeds);
    endless::add(seed, &mut deeds, load, tenants);
    keeping::draw(seed, &mut deeds);
    by_time(&mut deeds);
    deeds
}

/// A tenant's limits as an operator sets them.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// Virtual milliseconds after the start.
    pub at_ms: u64,
    pub row: TenantRow,
}

/// The limits of tenant `lab` at the start: its work runs into them.
#[must_use]
pub fn lab() -> TenantRow {
    let quota = Quota { millicores: Some(9_000), queued_tasks: Some(5_000), ..Quota::default() };
    let budget = Budget { core_hour_micros: 1_000_000, ..Budget::default() };
    TenantRow {
        name: "lab".into(),
        quota: Some(quota),
        budget: Some(budget),
        when_full: WhenFull::Queue.into(),
        ..TenantRow::default()
    }
}

/// Draws how limits change in the midst of load: not at all, or several times, to
/// anything from nearly nothing to no limit. At last all that was let in can end.
#[must_use]
pub fn draw_changes(seed: u64, load: Load) -> Vec<Change> {
    let mut rng = SmallRng::seed_from_u64(seed ^ 0x6c69_6d69_7473);
    let count = if rng.random_bool(0.25) { 0 } else { rng.random_range(1..12) };
    let mut changes: Vec<Change> = (0..count)
        .map(|_| Change { at_ms: rng.random_range(0..load.over_ms), row: limits(&mut rng) })
        .collect();
    changes.sort_by_key(|change| change.at_ms);
    let mut roomy = lab();
    // Not as any before it: no late try of a change can take it for another row.
    if let Some(quota) = &mut roomy.quota {
        quota.queued_tasks = Some(5_001);
    }
    changes.push(Change { at_ms: load.over_ms, row: roomy });
    keeping::limit(seed, &mut changes);
    weighing::draw(seed, &mut changes);
    grouping::draw(seed, load.over_ms, &mut changes);
    changes
}

fn limits(rng: &mut SmallRng) -> TenantRow {
    // Now and then they are as at the start, so that not only little is let in.
    if rng.random_bool(0.4) {
        return lab();
    }
    let mut one_of = |choices: &[Option<u64>]| *choices.choose(rng).expect("not empty");
    let quota = Quota {
        millicores: one_of(&[Some(1_000), Some(2_000), Some(4_000), Some(9_000), Some(16_000), None]),
        memory_bytes: one_of(&[Some(1 << 30), Some(4 << 30), None, None]),
        gpus: one_of(&[Some(0), Some(1), None, None]),
        queued_tasks: one_of(&[Some(10), Some(60), Some(300), Some(5_000), None]),
        ..Quota::default()
    };
    let month_micros = one_of(&[Some(0), Some(1_000_000), Some(10_000_000), None, None]);
    let core_hour_micros = one_of(&[Some(1_000_000), Some(10_000)]).unwrap_or_default();
    let when_full = if rng.random_bool(0.6) { WhenFull::Queue } else { WhenFull::Reject };
    TenantRow {
        quota: Some(quota),
        budget: Some(Budget { month_micros, core_hour_micros, gpu_hour_micros: 0 }),
        when_full: when_full.into(),
        ..lab()
    }
}

fn job(rng: &mut SmallRng, number: u32, nodes: u32) -> JobSpec {
    let steps = match rng.random_range(0..100) {
        0..50 => vec![task_step(rng, "main", &[])],
        50..70 => vec![array_step(rng, "many", &[])],
        70..82 => vec![gang_step(rng, "ranks", &[], nodes)],
        _ => dag(rng, nodes),
    };
    JobSpec {
        name: format!("job-{number}"),
        priority: rng.random_range(-2..3),
        expected_runtime_ms: *[0, 5_000, 60_000].choose(rng).expect("not empty"),
        steps,
        ..JobSpec::default()
    }
}

fn dag(rng: &mut SmallRng, nodes: u32) -> Vec<Step> {
    let first = task_step(rng, "first", &[]);
    let second = array_step(rng, "second", &["first"]);
    let third = if rng.random_bool(0.3) {
        gang_step(rng, "third", &["first"], nodes)
    } else {
        task_step(rng, "third", &["first"])
    };
    let last = task_step(rng, "last", &["second", "third"]);
    vec![first, second, third, last]
}

fn program(rng: &mut SmallRng) -> (Vec<String>, Vec<String>) {
    let ms = match rng.random_range(0..10) {
        0..3 => rng.random_range(5..200),
        3..8 => rng.random_range(200..8_000),
        _ => rng.random_range(8_000..40_000),
    };
    let mut words = vec!["sim".to_owned(), format!("ms={ms}")];
    let mut outputs = Vec::new();
    if rng.random_bool(0.3) {
        words.push(format!("log={}", rng.random_range(1..20)));
    }
    if rng.random_bool(0.25) {
        words.push(format!("out=result:{}", rng.random_range(1..2_000)));
        outputs.push("result".to_owned());
    }
    match rng.random_range(0..100) {
        0..6 => words.push(format!("fail_first={}", rng.random_range(1..3))),
        6..9 => words.push("code=3".to_owned()),
        _ => {}
    }
    (words, outputs)
}

fn step(rng: &mut SmallRng, name: &str, after: &[&str]) -> Step {
    let (argv, outputs) = program(rng);
    Step {
        name: name.to_owned(),
        argv,
        outputs,
        after: after.iter().map(|name| (*name).to_owned()).collect(),
        per_task: Some(Resources {
            millicores: *[250, 500, 1000, 1000, 2000].choose(rng).expect("not empty"),
            memory_bytes: *[0, 64 << 20, 512 << 20].choose(rng).expect("not empty"),
            gpus: u32::from(rng.random_bool(0.05)),
        }),
        retries: if rng.random_bool(0.3) { Some(rng.random_range(0..3)) } else { None },
        timeout_ms: if rng.random_bool(0.05) { 4_000 } else { 0 },
        ..Step::default()
    }
}

fn task_step(rng: &mut SmallRng, name: &str, after: &[&str]) -> Step {
    step(rng, name, after)
}

fn array_step(rng: &mut SmallRng, name: &str, after: &[&str]) -> Step {
    let count = match rng.random_range(0..10) {
        0..6 => rng.random_range(2..10),
        6..9 => rng.random_range(10..40),
        _ => rng.random_range(40..150),
    };
    let mut step = step(rng, name, after);
    if count >= 40 {
        // Long arrays are of short tasks, else the run would only be waiting.
        step.argv[1] = format!("ms={}", rng.random_range(1..100));
    }
    let max_running = if rng.random_bool(0.3) { rng.random_range(1..6) } else { 0 };
    if max_running > 0 {
        // One after another they may take a minute in all, tries apart: the
        // bound on a job's end is of the platform, not of the job's own length.
        let longest_ms = CAPPED_ARRAY_MS * u64::from(max_running) / count;
        shorten(&mut step, longest_ms);
    }
    step.array = Some(ArraySpec { items: vec![ArrayItem { first: 1, last: count, stride: 1 }], max_running });
    step
}

/// How long its program runs.
fn run_ms(step: &Step) -> u64 {
    step.argv.get(1).and_then(|word| word.strip_prefix("ms=")?.parse().ok()).unwrap_or(0)
}

/// Makes the program run no longer than this.
fn shorten(step: &mut Step, longest_ms: u64) {
    if run_ms(step) > longest_ms {
        step.argv[1] = format!("ms={longest_ms}");
    }
}

fn gang_step(rng: &mut SmallRng, name: &str, after: &[&str], nodes: u32) -> Step {
    let mut step = step(rng, name, after);
    step.nodes = rng.random_range(1..=nodes.clamp(1, 4));
    step.tasks_per_node = if step.nodes == 1 { 2 } else { rng.random_range(1..3) };
    if let Some(need) = &mut step.per_task {
        need.millicores = need.millicores.min(1000);
        need.gpus = 0;
    }
    step
}
