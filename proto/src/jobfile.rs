//! The job file: TOML (or the same shape in JSON) to a checked [`JobSpec`].
//!
//! Unknown keys are errors, and every refusal tells the line. Paths of inputs
//! are taken as relative to the file's own directory. What comes out is
//! normalized and has passed [`validate::draft`].

use crate::{
    array,
    limits::JOB_FILE_BYTES_MAX,
    problem::Problem,
    units,
    v1::{Checkpoint, Constraint, Input, JobSpec, Resources, Step},
    validate,
};
use serde::{
    Deserialize, Deserializer,
    de::{self, Visitor},
};
use std::{collections::BTreeMap, fmt, path::Path};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileJob {
    name: Option<String>,
    #[serde(default, deserialize_with = "whole")]
    priority: Option<i32>,
    expected_runtime: Option<Scalar>,
    keep: Option<Scalar>,
    #[serde(default)]
    labels: BTreeMap<String, Scalar>,
    #[serde(default, rename = "input", alias = "inputs")]
    inputs: Vec<FileInput>,
    #[serde(default, rename = "step", alias = "steps")]
    steps: Vec<FileStep>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileInput {
    name: String,
    path: Option<String>,
    url: Option<String>,
    digest: Option<String>,
    size: Option<Scalar>,
    tree: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileStep {
    name: Option<String>,
    run: Option<String>,
    #[serde(default)]
    argv: Vec<String>,
    #[serde(default)]
    after: Vec<String>,
    array: Option<Scalar>,
    #[serde(default, deserialize_with = "whole")]
    nodes: Option<u32>,
    #[serde(default, deserialize_with = "whole")]
    tasks_per_node: Option<u32>,
    cores: Option<Scalar>,
    memory: Option<Scalar>,
    #[serde(default, deserialize_with = "whole")]
    gpus: Option<u32>,
    runtime: Option<String>,
    #[serde(default)]
    outputs: Vec<String>,
    checkpoint: Option<FileCheckpoint>,
    #[serde(default, deserialize_with = "whole")]
    retries: Option<u32>,
    timeout: Option<Scalar>,
    #[serde(default)]
    env: BTreeMap<String, Scalar>,
    pool: Option<String>,
    #[serde(default)]
    constraints: Vec<String>,
    #[serde(default)]
    exclusive: bool,
    #[serde(default)]
    licenses: BTreeMap<String, Count>,
}

/// A whole number that must be there.
#[derive(Deserialize)]
struct Count(#[serde(deserialize_with = "whole")] Option<u32>);

/// A whole number; `2.0` is one too, as JSON has but one kind of number.
pub fn whole<'de, D: Deserializer<'de>, T: TryFrom<i64>>(deserializer: D) -> Result<Option<T>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Number {
        Whole(i64),
        Fraction(f64),
    }
    let Some(number) = Option::<Number>::deserialize(deserializer)? else { return Ok(None) };
    let (number, shown) = match number {
        Number::Whole(number) => (Some(number), number.to_string()),
        Number::Fraction(number) => (whole_of(number), decimal(number)),
    };
    let fitting = number.and_then(|number| T::try_from(number).ok());
    fitting.map(Some).ok_or_else(|| {
        de::Error::custom(format!("invalid value: `{shown}`, expected a whole number in range"))
    })
}

#[expect(clippy::cast_possible_truncation, reason = "whole, and exact up to 2^53")]
fn whole_of(number: f64) -> Option<i64> {
    (number.fract() == 0.0 && number.abs() <= 9_007_199_254_740_992.0).then_some(number as i64)
}

/// `checkpoint = "dir"` or `checkpoint = { path = "dir", every = "10m", signal = "USR1" }`.
struct FileCheckpoint {
    path: String,
    every: Option<Scalar>,
    signal: String,
}

/// A number or text where either is natural: `cores = 0.5`, `memory = "4GiB"`.
struct Scalar(String);

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ScalarVisitor;
        impl Visitor<'_> for ScalarVisitor {
            type Value = Scalar;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number or text")
            }
            fn visit_bool<E: de::Error>(self, value: bool) -> Result<Scalar, E> {
                Ok(Scalar(value.to_string()))
            }
            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Scalar, E> {
                Ok(Scalar(value.to_string()))
            }
            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Scalar, E> {
                Ok(Scalar(value.to_string()))
            }
            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Scalar, E> {
                Ok(Scalar(decimal(value)))
            }
            fn visit_str<E: de::Error>(self, value: &str) -> Result<Scalar, E> {
                Ok(Scalar(value.to_owned()))
            }
        }
        deserializer.deserialize_any(ScalarVisitor)
    }
}

/// A number as people write it. One that missed a thousandth by its own rounding
/// alone (`0.1 + 0.2`) is that thousandth; very long ones take an exponent.
fn decimal(value: f64) -> String {
    let rounded = (value * 1000.0).round() / 1000.0;
    let text = if rounded != 0.0 && (rounded - value).abs() < 1e-9 {
        rounded.to_string()
    } else {
        value.to_string()
    };
    if text.len() <= DECIMAL_CHARS_MAX { text } else { format!("{value:e}") }
}

/// The longest number written without an exponent.
const DECIMAL_CHARS_MAX: usize = 24;

impl<'de> Deserialize<'de> for FileCheckpoint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Table {
            path: String,
            every: Option<Scalar>,
            #[serde(default)]
            signal: String,
        }
        struct CheckpointVisitor;
        impl<'de> Visitor<'de> for CheckpointVisitor {
            type Value = FileCheckpoint;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a path, or a table with `path`, `every` and `signal`")
            }
            fn visit_str<E: de::Error>(self, path: &str) -> Result<FileCheckpoint, E> {
                Ok(FileCheckpoint { path: path.to_owned(), every: None, signal: String::new() })
            }
            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<FileCheckpoint, A::Error> {
                let table = Table::deserialize(de::value::MapAccessDeserializer::new(map))?;
                Ok(FileCheckpoint { path: table.path, every: table.every, signal: table.signal })
            }
        }
        deserializer.deserialize_any(CheckpointVisitor)
    }
}

/// Reads a job file. `base` is the directory that relative paths of inputs
/// start from.
pub fn parse(text: &str, base: &Path) -> Result<JobSpec, Problem> {
    check_size(text.len())?;
    let job: FileJob = toml::from_str(text).map_err(|error| toml_problem(text, &error))?;
    finish(job, base)
}

/// Reads the same shape in JSON.
pub fn from_json(text: &str, base: &Path) -> Result<JobSpec, Problem> {
    check_size(text.len())?;
    finish(read_json(text)?, base)
}

/// Reads a JSON value of that shape.
pub fn from_value(value: serde_json::Value, base: &Path) -> Result<JobSpec, Problem> {
    finish(serde_path_to_error::deserialize(value).map_err(|error| json_problem(&error))?, base)
}

/// Reads any JSON text; what does not fit is refused by field.
pub fn read_json<T: de::DeserializeOwned>(text: &str) -> Result<T, Problem> {
    let mut json = serde_json::Deserializer::from_str(text);
    let read = serde_path_to_error::deserialize(&mut json).map_err(|error| json_problem(&error))?;
    // Nothing may follow.
    json.end().map_err(|error| {
        syntax_problem(&json_message(&error), (error.line(), error.column()), None, error.is_data())
    })?;
    Ok(read)
}

/// What is wrong with a JSON text or value; its path is the field.
fn json_problem(error: &serde_path_to_error::Error<serde_json::Error>) -> Problem {
    let inner = error.inner();
    let message = json_message(inner);
    let mut problem = syntax_problem(&message, (inner.line(), inner.column()), None, inner.is_data());
    let path = error.path().to_string();
    if inner.is_data() && path != "." {
        problem = match problem.code.as_str() {
            // The path ends before what is not there.
            "spec.missing" => problem.within(&path),
            "spec.type" => {
                let value = message.split('`').nth(1).or(message.split('"').nth(1)).unwrap_or_default();
                problem.of_field(path).of_value(value)
            }
            _ => problem.of_field(path),
        };
    }
    problem
}

/// serde_json ends its message with the place, which a reason begins with.
fn json_message(error: &serde_json::Error) -> String {
    let mut message = error.to_string();
    if let Some(at) = message.rfind(" at line ") {
        message.truncate(at);
    }
    message
}

/// A job of one step that runs `argv`: what `submit -- CMD …` makes. Named after
/// its program.
#[must_use]
pub fn command(argv: Vec<String>) -> JobSpec {
    let program = argv.first().map_or("", |word| word.rsplit('/').next().unwrap_or_default());
    let name: String = program.chars().filter(|c| !c.is_control()).take(32).collect();
    let step = Step { name: "main".to_owned(), argv, ..Step::default() };
    let mut spec = JobSpec { name, steps: vec![step], ..JobSpec::default() };
    validate::normalize(&mut spec);
    spec
}

/// Reads `label=value` or `label!=value`.
pub fn parse_constraint(field: &str, text: &str) -> Result<Constraint, Problem> {
    let (left, value) = text.split_once('=').ok_or_else(|| {
        Problem::new(
            "spec.constraint",
            field,
            text,
            "is not a constraint",
            "write label=value or label!=value",
        )
    })?;
    let (label, negated) = left.strip_suffix('!').map_or((left, false), |label| (label, true));
    let constraint = Constraint { label: label.trim().to_owned(), value: value.trim().to_owned(), negated };
    validate::check_constraint(field, &constraint)?;
    Ok(constraint)
}

/// Reads `name:count,name,…`, as Slurm writes licenses; what names no count asks for one.
pub fn parse_licenses(field: &str, text: &str) -> Result<BTreeMap<String, u32>, Problem> {
    let mut licenses = BTreeMap::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (name, count) = part.rsplit_once([':', '=']).unwrap_or((part, "1"));
        let wrong = |reason| {
            let remedy = "write name:count, with commas between several";
            Problem::new("spec.licenses", field, part, reason, remedy)
        };
        let count = count.parse().map_err(|_| wrong("has no count behind its name"))?;
        if licenses.insert(name.to_owned(), count).is_some() {
            return Err(wrong("is named twice"));
        }
    }
    validate::check_licenses(field, &licenses)?;
    Ok(licenses)
}

fn check_size(bytes: usize) -> Result<(), Problem> {
    if bytes <= JOB_FILE_BYTES_MAX {
        return Ok(());
    }
    Err(Problem::new(
        "spec.too_large",
        "job file",
        format!("{bytes} bytes"),
        format!("a job file may have {JOB_FILE_BYTES_MAX} bytes"),
        "give large texts as inputs",
    ))
}

fn toml_problem(text: &str, error: &toml::de::Error) -> Problem {
    let at = error.span().map_or(0, |span| span.start.min(text.len()));
    let before = &text.as_bytes()[..at];
    let line = before.iter().filter(|b| **b == b'\n').count() + 1;
    let line_start = before.iter().rposition(|b| *b == b'\n').map_or(0, |newline| newline + 1);
    let column = String::from_utf8_lossy(&before[line_start..]).chars().count() + 1;
    // A value of a wrong kind was still read as TOML; all else was not.
    let message = error.message();
    let is_data = ["invalid type", "invalid value", "missing field", "unknown field", "duplicate field"]
        .iter()
        .any(|start| message.starts_with(start));
    syntax_problem(message, (line, column), text.lines().nth(line - 1), is_data)
}

/// `message` is serde's or the parser's; the field is looked for in it, then in
/// the line it points at.
fn syntax_problem(
    message: &str,
    (line, column): (usize, usize),
    source: Option<&str>,
    is_data: bool,
) -> Problem {
    let message = message.lines().collect::<Vec<_>>().join(", ");
    let reason = if line == 0 { message.clone() } else { format!("line {line}, column {column}: {message}") };
    let quoted = message.split('`').nth(1).unwrap_or_default();
    if message.starts_with("unknown field") {
        return Problem::new("spec.unknown_key", quoted, "", reason, "take it out, or correct its name");
    }
    if message.starts_with("missing field") {
        return Problem::new("spec.missing", quoted, "", reason, format!("give `{quoted}`"));
    }
    let (field, value) = source.and_then(|line| line.split_once(['=', ':'])).unwrap_or(("job file", ""));
    let (field, value) = (field.trim().trim_matches('"'), value.trim().trim_end_matches(','));
    if is_data {
        return Problem::new("spec.type", field, value, reason, "give a value of the kind that is expected");
    }
    Problem::new("spec.syntax", "job file", source.unwrap_or_default().trim(), reason, "correct this line")
}

fn finish(job: FileJob, base: &Path) -> Result<JobSpec, Problem> {
    let mut spec = JobSpec {
        name: job.name.unwrap_or_default(),
        priority: job.priority.unwrap_or_default(),
        expected_runtime_ms: span_ms("expected_runtime", job.expected_runtime)?,
        keep_ms: span_ms("keep", job.keep)?,
        labels: job.labels.into_iter().map(|(key, value)| (key, value.0)).collect(),
        ..JobSpec::default()
    };
    for (at, input) in job.inputs.into_iter().enumerate() {
        let within = format!("input[{at}]");
        spec.inputs.push(one_input(input, base).map_err(|problem| problem.within(&within))?);
    }
    for (at, step) in job.steps.into_iter().enumerate() {
        let within = format!("step[{at}]");
        spec.steps.push(one_step(step).map_err(|problem| problem.within(&within))?);
    }
    validate::normalize(&mut spec);
    validate::draft(&spec)?;
    Ok(spec)
}

fn one_input(input: FileInput, base: &Path) -> Result<Input, Problem> {
    let path = match input.path {
        Some(path) if path.is_empty() => {
            return Err(Problem::new("spec.input", "path", "", "is empty", "name a file or a directory"));
        }
        Some(path) => base.join(path).to_string_lossy().into_owned(),
        None => String::new(),
    };
    let size_bytes = match input.size {
        Some(size) => units::parse_memory_bytes(&size.0).map_err(|error| error.at("size"))?,
        None => 0,
    };
    Ok(Input {
        name: input.name,
        path,
        url: input.url.unwrap_or_default(),
        digest: input.digest.unwrap_or_default(),
        size_bytes,
        tree: input.tree,
        manifest_bytes: 0,
    })
}

fn one_step(step: FileStep) -> Result<Step, Problem> {
    let mut per_task = Resources { gpus: step.gpus.unwrap_or_default(), ..Resources::default() };
    if let Some(cores) = step.cores {
        per_task.millicores = units::parse_millicores(&cores.0).map_err(|error| error.at("cores"))?;
        above_zero("cores", u64::from(per_task.millicores), "leave it out for 1")?;
    }
    if let Some(memory) = step.memory {
        per_task.memory_bytes = units::parse_memory_bytes(&memory.0).map_err(|error| error.at("memory"))?;
        above_zero("memory", per_task.memory_bytes, "leave it out to reserve none")?;
    }
    if let Some(nodes) = step.nodes {
        above_zero("nodes", u64::from(nodes), "leave it out for 1")?;
    }
    if let Some(tasks_per_node) = step.tasks_per_node {
        above_zero("tasks_per_node", u64::from(tasks_per_node), "leave it out for 1")?;
    }
    let checkpoint = match step.checkpoint {
        Some(file) => {
            let every_ms = span_ms("checkpoint.every", file.every)?;
            Some(Checkpoint { path: file.path, every_ms, signal: file.signal })
        }
        None => None,
    };
    let constraints = step
        .constraints
        .iter()
        .enumerate()
        .map(|(at, text)| parse_constraint(&format!("constraints[{at}]"), text))
        .collect::<Result<_, _>>()?;
    Ok(Step {
        name: step.name.unwrap_or_default(),
        argv: step.argv,
        run: step.run.unwrap_or_default(),
        after: step.after,
        array: step.array.map(|text| array::parse(&text.0)).transpose()?,
        nodes: step.nodes.unwrap_or_default(),
        tasks_per_node: step.tasks_per_node.unwrap_or_default(),
        per_task: Some(per_task),
        runtime: step.runtime.unwrap_or_default(),
        outputs: step.outputs,
        checkpoint,
        retries: step.retries,
        timeout_ms: span_ms("timeout", step.timeout)?,
        env: step.env.into_iter().map(|(name, value)| (name, value.0)).collect(),
        pool: step.pool.unwrap_or_default(),
        constraints,
        exclusive: step.exclusive,
        licenses: step
            .licenses
            .into_iter()
            .map(|(name, count)| (name, count.0.unwrap_or_default()))
            .collect(),
    })
}

/// A span that is given must be above zero; one that is not is 0.
fn span_ms(field: &str, text: Option<Scalar>) -> Result<u64, Problem> {
    let Some(text) = text else { return Ok(0) };
    let span = units::parse_duration_ms(&text.0).map_err(|error| error.at(field))?;
    above_zero(field, span, "leave it out for none")?;
    Ok(span)
}

fn above_zero(field: &str, value: u64, remedy: &str) -> Result<(), Problem> {
    if value > 0 {
        return Ok(());
    }
    Err(Problem::new("spec.size", field, value, "must be above 0", remedy))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORDS: &str = r#"
name = "words"
expected_runtime = "2m"
priority = -5

[[input]]
name = "book"
path = "book.txt"

[[step]]
name = "split"
run = "split -n l/16 -d inputs/book part."
outputs = ["part.*"]

[[step]]
name = "count"
after = ["split"]
array = "0-15%4"
cores = 0.5
memory = "64MiB"
run = "wc -w < from/split/$(printf part.%02d $DRUMLINE_TASK) > words"
outputs = ["words"]
retries = 0
timeout = "1h"
env = { MODE = "fast", LEVEL = 3 }
constraints = ["disk=ssd", "zone!=b"]
licenses = { matlab = 2, "solver@campus" = 1 }
checkpoint = { path = "ckpt", every = "10m" }

[[step]]
name = "sum"
after = ["count"]
argv = ["sh", "-c", "true"]
nodes = 2
tasks_per_node = 2
exclusive = true
"#;

    fn parse_here(text: &str) -> Result<JobSpec, Problem> {
        parse(text, Path::new("/jobs"))
    }

    fn refusal(text: &str) -> String {
        let problem = parse_here(text).unwrap_err();
        format!("{} | {problem}", problem.code)
    }

    #[test]
    fn the_contracts_job_is_read() {
        let spec = parse_here(WORDS).unwrap();
        assert_eq!((spec.name.as_str(), spec.expected_runtime_ms, spec.priority), ("words", 120_000, -5));
        assert_eq!((spec.inputs[0].path.as_str(), spec.inputs[0].tree), ("/jobs/book.txt", None));
        let count = &spec.steps[1];
        assert_eq!(array::format(count.array.as_ref().unwrap()), "0-15%4");
        assert_eq!(count.per_task.unwrap(), Resources { millicores: 500, memory_bytes: 64 << 20, gpus: 0 });
        assert_eq!((count.retries, count.timeout_ms), (Some(0), 3_600_000));
        assert_eq!(count.env["LEVEL"], "3");
        assert_eq!(
            count.constraints[1],
            Constraint { label: "zone".into(), value: "b".into(), negated: true }
        );
        assert_eq!(count.checkpoint.as_ref().unwrap().every_ms, 600_000);
        assert_eq!((spec.steps[2].nodes, spec.steps[2].retries), (2, None));
        assert_eq!(count.licenses, [("matlab".to_owned(), 2), ("solver@campus".to_owned(), 1)].into());
        assert_eq!((spec.steps[1].exclusive, spec.steps[2].exclusive), (false, true));
    }

    #[test]
    fn numbers_read_as_people_write_them() {
        for (value, text) in [
            (0.5, "0.5"),
            (5.0, "5"),
            (0.1 + 0.2, "0.3"),
            (0.0005, "0.0005"),
            (1e300, "1e300"),
            (5e-324, "5e-324"),
        ] {
            assert_eq!(decimal(value), text);
        }
    }

    #[test]
    fn an_input_can_say_that_it_is_a_tree() {
        let digest = "a".repeat(64);
        let job = |source: &str| parse_here(&format!("[[input]]\nname = 'x'\n{source}\n[[step]]\nrun = 'x'"));
        for (source, tree) in [("", None), ("tree = true", Some(true)), ("tree = false", Some(false))] {
            assert_eq!(job(&format!("digest = '{digest}'\n{source}")).unwrap().inputs[0].tree, tree);
        }
        let refused = job(&format!("url = 'http://h/x'\ndigest = '{digest}'\ntree = true")).unwrap_err();
        assert_eq!((refused.code.as_str(), refused.field.as_str()), ("spec.input", "input[0].tree"));
    }

    #[test]
    fn json_of_the_same_shape_is_the_same_job() {
        let value: toml::Value = toml::from_str(WORDS).unwrap();
        let json = serde_json::to_string(&value).unwrap();
        assert_eq!(from_json(&json, Path::new("/jobs")).unwrap(), parse_here(WORDS).unwrap());
        let problem = from_json("{\"step\": [{\"rnu\": 1}]}", Path::new(".")).unwrap_err();
        assert_eq!((problem.code.as_str(), problem.field.as_str()), ("spec.unknown_key", "step[0].rnu"));
        assert_eq!(from_json("{", Path::new(".")).unwrap_err().code, "spec.syntax");
    }

    #[test]
    fn a_refusal_fits_a_header_whatever_was_written() {
        let long = "k".repeat(5000);
        for text in [
            format!("{{\"{long}\": 1}}"),
            format!("{{\"step\": [{{\"run\": \"x\", \"env\": {{\"{long}\": 1}}}}]}}"),
            format!("{{\"step\": \"{long}\"}}"),
            format!("{{\"step\": [{{\"run\": \"x\", \"array\": \"1-2,{}1\"}}]}}", "0".repeat(2000)),
        ] {
            let problem = from_json(&text, Path::new(".")).unwrap_err();
            assert!(problem.to_string().len() < 4096, "{} bytes: {problem}", problem.to_string().len());
        }
    }

    #[test]
    fn refusals_tell_line_field_and_remedy() {
        assert_eq!(
            refusal("name = \"a\"\n[[step]]\nrun = \"ls"),
            "spec.syntax | job file = run = \"ls: line 3, column 10: invalid basic string, expected `\"`; correct this line"
        );
        assert!(refusal("[[step]]\nrun = \"ls\"\nmemroy = 1").starts_with(
            "spec.unknown_key | memroy: line 3, column 1: unknown field `memroy`, expected one of `name`, `run`"
        ));
        assert_eq!(
            refusal("[[step]]\nrun = 5"),
            "spec.type | run = 5: line 2, column 7: invalid type: integer `5`, expected a string; give a value of the kind that is expected"
        );
        assert!(
            refusal("[[step]]\nrun = \"ls\"\ngpus = -1")
                .starts_with("spec.type | gpus = -1: line 3, column 8: ")
        );
        assert!(refusal("[[input]]\npath = \"x\"\n").starts_with("spec.missing | name: line "));
        assert_eq!(
            refusal("[[step]]\nrun = \"ls\"\ncores = 0"),
            "spec.size | step[0].cores = 0: must be above 0; leave it out for 1"
        );
        assert!(
            refusal("[[step]]\nrun = \"ls\"\ncores = -1")
                .starts_with("spec.unit | step[0].cores = -1: is not a number")
        );
        assert!(refusal("[[step]]\nrun = \"ls\"\nnodes = 0").starts_with("spec.size | step[0].nodes = 0"));
        assert!(
            refusal("[[step]]\nrun = \"ls\"\narray = \"5-1\"")
                .starts_with("spec.array_indexes | step[0].array = 5-1: `5-1` runs")
        );
        assert!(
            refusal("[[step]]\nrun = \"ls\"\nconstraints = [\"x\"]")
                .starts_with("spec.constraint | step[0].constraints[0] = x")
        );
        assert!(refusal("").starts_with("spec.missing | step: a job needs at least one step"));
        assert!(refusal(&"#".repeat(JOB_FILE_BYTES_MAX + 1)).starts_with("spec.too_large | job file"));
        assert!(
            refusal("a = 1\na = 2")
                .starts_with("spec.syntax | job file = a = 2: line 2, column 1: duplicate key")
        );
    }

    #[test]
    fn a_command_is_a_job_of_one_step() {
        let spec = command(vec!["/bin/true".into(), "x".into()]);
        assert_eq!((spec.name.as_str(), spec.steps[0].name.as_str(), spec.steps.len()), ("true", "main", 1));
        validate::spec(&spec).unwrap();
        assert_eq!(validate::spec(&command(vec![])).unwrap_err().code, "spec.command");
    }
}
