//! Jobs to submit.

use proto::v1::{Checkpoint, Dependency, JobSpec, Resources, Step};

pub fn step(name: &str) -> Step {
    Step {
        name: name.to_owned(),
        argv: vec!["true".to_owned()],
        nodes: 1,
        tasks_per_node: 1,
        per_task: Some(Resources { millicores: 1000, memory_bytes: 1 << 20, gpus: 0 }),
        ..Step::default()
    }
}

pub fn array(name: &str, text: &str) -> Step {
    Step { array: Some(proto::array::parse(text).unwrap()), ..step(name) }
}

pub fn gang(name: &str, nodes: u32, tasks_per_node: u32) -> Step {
    Step { nodes, tasks_per_node, outputs: vec!["out".to_owned()], ..step(name) }
}

/// One that keeps checkpoints.
pub fn saving(step: Step) -> Step {
    Step {
        checkpoint: Some(Checkpoint { path: "ckpt".to_owned(), every_ms: 1_000, ..Checkpoint::default() }),
        ..step
    }
}

pub fn job(steps: Vec<Step>) -> JobSpec {
    JobSpec { name: "job".to_owned(), steps, ..JobSpec::default() }
}

/// One of a few shapes.
pub fn pick(choice: u32, after: Option<u64>) -> JobSpec {
    let outputs = vec!["out".to_owned()];
    let mut spec = match choice % 7 {
        0 => job(vec![saving(step("one"))]),
        1 => job(vec![array("few", "0-6%2")]),
        2 => job(vec![Step { retries: Some(choice / 7 % 3), ..array("many", "1-20") }]),
        3 => job(vec![
            Step { outputs: outputs.clone(), ..step("split") },
            Step { outputs: outputs.clone(), after: vec!["split".into()], ..array("count", "0-4") },
            Step { outputs, after: vec!["count".into()], ..step("sum") },
        ]),
        4 => job(vec![saving(gang("ring", 2, 2))]),
        5 => job(vec![gang("pair", 2, 1), Step { after: vec!["pair".into()], ..step("last") }]),
        _ => job(vec![
            Step { retries: Some(0), ..step("left") },
            step("right"),
            Step { after: vec!["left".into(), "right".into()], ..step("both") },
        ]),
    };
    if let Some(job_number) = after {
        let kind = i32::try_from(choice / 7 % 3).unwrap() + 1;
        let index = (choice / 21 % 3 == 1).then_some(u64::from(choice % 5));
        spec.after = vec![Dependency { job_number, kind, index, ..Dependency::default() }];
        if choice / 21 % 3 == 2 && spec.steps.iter().any(|step| step.array.is_some()) {
            let kind = proto::v1::DependencyKind::Each.into();
            spec.after = vec![Dependency { job_number, kind, ..Dependency::default() }];
        }
    }
    spec
}
