use super::*;
use crate::{
    jobfile,
    v1::{ArrayItem, ArraySpec, Checkpoint, Constraint, Dependency, Step},
};
use proptest::prelude::*;

fn step(name: &str, after: &[&str]) -> Step {
    Step {
        name: name.to_owned(),
        argv: vec!["true".to_owned()],
        after: after.iter().map(|s| (*s).to_owned()).collect(),
        ..Step::default()
    }
}

fn job(steps: Vec<Step>) -> JobSpec {
    let mut spec = JobSpec { steps, ..JobSpec::default() };
    normalize(&mut spec);
    spec
}

/// The code and the line of the refusal of a job with this one step changed.
fn refusal(change: impl FnOnce(&mut Step)) -> String {
    let mut spec = job(vec![step("first", &[]), step("second", &["first"])]);
    change(&mut spec.steps[1]);
    let problem = super::spec(&spec).unwrap_err();
    assert!(!problem.remedy.is_empty(), "{problem}");
    format!("{} | {} = {} | {}", problem.code, problem.field, problem.value, problem.reason)
}

fn job_refusal(change: impl FnOnce(&mut JobSpec)) -> String {
    let mut spec = job(vec![step("first", &[])]);
    change(&mut spec);
    let problem = super::spec(&spec).unwrap_err();
    assert!(!problem.remedy.is_empty(), "{problem}");
    format!("{} | {} = {} | {}", problem.code, problem.field, problem.value, problem.reason)
}

#[test]
fn what_was_left_out_is_filled_in() {
    let spec = job(vec![Step { name: String::new(), after: vec![], ..step("", &[]) }]);
    assert_eq!((spec.name.as_str(), spec.steps[0].name.as_str()), ("main", "main"));
    let only = &spec.steps[0];
    assert_eq!((only.nodes, only.tasks_per_node, only.retries), (1, 1, None));
    assert_eq!(only.per_task.unwrap().millicores, 1000);
    super::spec(&spec).unwrap();
    let two = job(vec![step("a", &[]), step("b", &["a", "a"])]);
    assert_eq!((two.name.as_str(), two.steps[1].after.len()), ("job", 1));
    let mut again = two.clone();
    normalize(&mut again);
    assert_eq!(again, two);
    assert_eq!(digest(&again), digest(&two));
}

#[test]
fn a_cycle_is_named() {
    let spec = job(vec![step("a", &[]), step("b", &["a", "d"]), step("c", &["b"]), step("d", &["c"])]);
    let problem = super::spec(&spec).unwrap_err();
    assert_eq!(
        problem.to_string(),
        "step[1].after = b -> d -> c -> b: these steps wait for each other; take one of them out of `after`"
    );
    assert_eq!(
        refusal(|s| s.after = vec!["second".into()]),
        "spec.cycle | step[1].after = second -> second | these steps wait for each other"
    );
}

#[test]
fn steps_are_known_and_named_once() {
    assert_eq!(
        refusal(|s| s.after = vec!["frist".into()]),
        "spec.unknown_step | step[1].after = frist | there is no such step"
    );
    assert_eq!(
        refusal(|s| s.name = "first".into()),
        "spec.duplicate_step | step[1].name = first | two steps have this name"
    );
    assert_eq!(refusal(|s| s.name = "../x".into()), "spec.step_name | step[1].name = ../x | is not a name");
    assert_eq!(refusal(|s| s.name.clear()), "spec.step_name | step[1].name =  | a name is needed");
}

#[test]
fn a_step_runs_exactly_one_thing() {
    assert_eq!(refusal(|s| s.argv.clear()), "spec.command | step[1].run =  | a step needs something to run");
    assert_eq!(
        refusal(|s| s.run = "ls".into()),
        "spec.command | step[1].run = ls | both `run` and `argv` are given"
    );
    assert_eq!(
        refusal(|s| s.argv = vec![String::new()]),
        "spec.command | step[1].argv[0] =  | a program's name is needed"
    );
    assert_eq!(
        refusal(|s| s.argv.push("x".repeat(130_000))),
        "spec.too_large | step[1].argv[1] = 130000 bytes | at most 122880 bytes can be handed to a process"
    );
    assert_eq!(
        refusal(|s| s.runtime = "ray".into()),
        "spec.runtime | step[1].runtime = ray | this runtime is not known"
    );
}

#[test]
fn sizes_are_neither_zero_nor_absurd() {
    assert_eq!(refusal(|s| s.nodes = 0), "spec.size | step[1].nodes = 0 | must be above 0");
    assert_eq!(
        refusal(|s| s.tasks_per_node = 5000),
        "spec.size | step[1].tasks_per_node = 5000 | is too many"
    );
    assert_eq!(
        refusal(|s| (s.nodes, s.tasks_per_node) = (4096, 1024)),
        "spec.ranks | step[1].nodes = 4194304 | a gang may have 65536 ranks"
    );
    assert_eq!(
        refusal(|s| s.per_task.as_mut().unwrap().millicores = 0),
        "spec.size | step[1].cores = 0 | must be above 0"
    );
    assert_eq!(
        refusal(|s| s.per_task.as_mut().unwrap().memory_bytes = 65 << 40),
        "spec.size | step[1].memory = 65TiB | is more than any machine has"
    );
    assert_eq!(
        refusal(|s| s.per_task.as_mut().unwrap().gpus = 5000),
        "spec.size | step[1].gpus = 5000 | is more than any machine has"
    );
    assert_eq!(refusal(|s| s.retries = Some(101)), "spec.retries | step[1].retries = 101 | is too many");
    assert_eq!(
        refusal(|s| s.timeout_ms = SPAN_MS_MAX + 1000),
        "spec.time | step[1].timeout = 366d1s | is longer than a year"
    );
}

#[test]
fn an_array_is_no_gang() {
    let array =
        |first, last| Some(ArraySpec { items: vec![ArrayItem { first, last, stride: 1 }], max_running: 0 });
    assert_eq!(
        refusal(|s| (s.array, s.nodes) = (array(0, 3), 2)),
        "spec.array_and_gang | step[1].array = 0-3 | a step is an array or a gang, and this one has 2 ranks"
    );
    assert_eq!(
        refusal(|s| s.array = array(3, 0)),
        "spec.array_indexes | step[1].array = 3-0 | `3-0` runs backwards"
    );
    assert_eq!(
        refusal(|s| s.array = array(1, 10_000_000)),
        "spec.tasks | step = 10000001 | a job may have 10000000 tasks in all"
    );
}

#[test]
fn paths_stay_inside() {
    for (glob, refused) in [
        ("/etc/passwd", "spec.path | step[1].outputs[0] = /etc/passwd | is absolute"),
        ("a/../../b", "spec.path | step[1].outputs[0] = a/../../b | leaves the directory"),
        ("", "spec.path | step[1].outputs[0] =  | is empty"),
        (".", "spec.glob | step[1].outputs[0] = . | names the directory itself"),
        ("a[b", "spec.glob | step[1].outputs[0] = a[b | has a [ without its ]"),
        ("a[]", "spec.glob | step[1].outputs[0] = a[] | has a [ without its ]"),
    ] {
        assert_eq!(refusal(|s| s.outputs = vec![glob.into()]), refused);
    }
    for glob in ["part.*", "a/**/b.txt", "[a-z]?", "[]]", "[!]a]x", "..a", "dir/"] {
        check_glob("outputs[0]", glob).unwrap();
    }
}

#[test]
fn checkpoints_lie_in_a_directory_of_their_own() {
    let of = |path: &str, every_ms| {
        refusal(|s| {
            s.checkpoint = Some(Checkpoint { path: path.to_owned(), every_ms, ..Checkpoint::default() })
        })
    };
    assert_eq!(of("../c", 0), "spec.path | step[1].checkpoint.path = ../c | leaves the directory");
    assert_eq!(of("./", 0), "spec.path | step[1].checkpoint.path = ./ | names the working directory itself");
    assert_eq!(of("from/a", 0), "spec.path | step[1].checkpoint.path = from/a | is where inputs are laid");
    assert_eq!(of("c", 999), "spec.time | step[1].checkpoint.every = 999ms | is shorter than a second");
}

#[test]
fn names_of_the_environment_and_labels_are_held_to_their_alphabets() {
    let env = |name: &str| refusal(|s| s.env = BTreeMap::from([(name.to_owned(), "v".to_owned())]));
    assert_eq!(env("A B"), "spec.env | step[1].env.A B = v | is not the name of a variable");
    assert_eq!(env("1A"), "spec.env | step[1].env.1A = v | is not the name of a variable");
    assert!(env("DRUMLINE_TASK").starts_with("spec.env | step[1].env.DRUMLINE_TASK = v | names beginning"));
    let constraint = Constraint { label: "g pu".into(), value: "a100".into(), negated: false };
    assert_eq!(
        refusal(|s| s.constraints = vec![constraint]),
        "spec.label | step[1].constraints[0] = g pu | is not the key of a label"
    );
    assert_eq!(refusal(|s| s.pool = "Big".into()), "spec.pool_name | step[1].pool = Big | is not a name");
    assert_eq!(
        job_refusal(|j| j.labels = BTreeMap::from([("k".into(), "a\nb".into())])),
        "spec.label | labels.k = a\nb | is not the value of a label"
    );
}

#[test]
fn inputs_come_from_one_place() {
    let input = |change: fn(&mut Input)| {
        let (url, digest) = ("http://host/x".into(), "a".repeat(64));
        let mut input = Input { name: "book".into(), url, digest, ..Input::default() };
        change(&mut input);
        job_refusal(|j| j.inputs = vec![input])
    };
    assert_eq!(
        input(|i| i.url = "ftp://h/x".into()),
        "spec.url | input[0].url = ftp://h/x | has a scheme that is not known"
    );
    assert_eq!(input(|i| i.url = "http:///x".into()), "spec.url | input[0].url = http:///x | names no host");
    assert!(input(|i| i.url = "http://me:pw@h/".into()).contains("holds a password"));
    assert_eq!(
        input(|i| i.digest.clear()),
        "spec.input | input[0].digest =  | is not told, and what comes from a URL is verified and shared by it"
    );
    let neither = |i: &mut Input| (i.url, i.digest) = Default::default();
    assert_eq!(input(neither), "spec.input | input[0].name = book | has neither a path nor a URL");
    assert_eq!(
        input(|i| i.path = "x".into()),
        "spec.input | input[0].name = book | has both a path and a URL"
    );
    assert_eq!(input(|i| i.digest = "ABC".into()), "spec.input | input[0].digest = ABC | is not a SHA-256");
    assert_eq!(input(|i| i.name = "a/b".into()), "spec.input_name | input[0].name = a/b | is not a name");
    let path = |i: &mut Input| {
        i.url.clear();
        i.path = "book.txt".into();
    };
    assert_eq!(input(path), "spec.input | input[0].path = book.txt | a path means nothing to the server");
    let twice = Input { name: "book".into(), digest: "a".repeat(64), ..Input::default() };
    assert_eq!(
        job_refusal(|j| j.inputs = vec![twice.clone(), twice]),
        "spec.duplicate_input | input[1].name = book | two inputs have this name"
    );
}

#[test]
fn the_job_itself_has_bounds() {
    assert_eq!(job_refusal(|j| j.steps.clear()), "spec.missing | step =  | a job needs at least one step");
    assert_eq!(job_refusal(|j| j.priority = 1001), "spec.priority | priority = 1001 | is out of range");
    assert_eq!(job_refusal(|j| j.name = "a\u{7}".into()), "spec.name | name = a\u{7} | is not a job's name");
    assert_eq!(
        job_refusal(|j| j.after = vec![Dependency { job_number: 0, kind: 1, ..Dependency::default() }]),
        "spec.dependency | after[0] = 1:0 | is not a job to wait for"
    );
    let each = Dependency { job_number: 3, kind: 4, ..Dependency::default() };
    assert_eq!(
        job_refusal(|j| j.after = vec![each.clone()]),
        "spec.each | after[0] = each:3 | this job has no array whose tasks could wait one by one"
    );
    assert_eq!(
        job_refusal(|j| j.after = vec![Dependency { index: Some(4), ..each.clone() }]),
        "spec.dependency | after[0] = each:3[4] | each task waits for its own like: one index cannot be named"
    );
    assert_eq!(
        job_refusal(|j| j.after = vec![Dependency { kind: 1, step: "a".into(), ..each.clone() }]),
        "spec.dependency | after[0] = ok:3/a | names a step, but no task of it"
    );
    assert!(
        job_refusal(|j| j.steps = vec![j.steps[0].clone(); 257]).starts_with("spec.too_many | step = 257")
    );
    assert!(
        job_refusal(|j| {
            j.steps[0].argv = vec!["x".repeat(100_000); 6];
        })
        .starts_with("spec.too_large | job = 600")
    );
    assert!(idempotency_key("deploy-2024/7").is_ok());
    assert!(idempotency_key("a b").is_err());
    assert!(idempotency_key(&"k".repeat(129)).is_err());
}

proptest! {
    /// Random edges: a job is accepted just where an order of its steps exists.
    #[test]
    fn a_graph_is_accepted_where_it_can_be_sorted(
        edges in prop::collection::vec((0..8_usize, 0..8_usize), 0..14),
    ) {
        let names: Vec<String> = (0..8).map(|n| format!("s{n}")).collect();
        let mut steps: Vec<Step> = names.iter().map(|name| step(name, &[])).collect();
        for (from, to) in &edges {
            steps[*to].after.push(names[*from].clone());
        }
        let spec = job(steps);
        let mut left: BTreeSet<usize> = (0..8).collect();
        while let Some(free) =
            left.iter().copied().find(|at| edges.iter().all(|(from, to)| to != at || !left.contains(from)))
        {
            left.remove(&free);
        }
        let verdict = super::spec(&spec);
        prop_assert_eq!(verdict.is_ok(), left.is_empty());
        if let Err(problem) = verdict {
            prop_assert_eq!(&problem.code, "spec.cycle");
            let walk: Vec<&str> = problem.value.split(" -> ").collect();
            prop_assert_eq!(walk.first(), walk.last());
            for pair in walk.windows(2) {
                let at = names.iter().position(|n| n == pair[0]).unwrap();
                prop_assert!(spec.steps[at].after.iter().any(|n| n == pair[1]));
            }
        }
    }

    #[test]
    fn no_job_file_breaks_the_reader(text in "\\PC{0,200}") {
        let _ = jobfile::parse(&text, std::path::Path::new("."));
    }
}
