//! What every door checks of a job before anything is kept: all that can be
//! known without the cluster's state.
//!
//! [`normalize`] fills what was left out, [`spec`] then refuses what is wrong,
//! naming field, value and remedy. Past these two the rest of Drumline takes a
//! spec as it is. Fields are named as in the job file, counted from 0.

mod graph;
mod step;

pub use step::{check_constraint, check_glob, check_licenses, check_relative};

use crate::{
    after, array, estimate,
    ids::{NameKind, check_name},
    keys::hex_of,
    limits::*,
    problem::Problem,
    retention,
    v1::{DependencyKind, Input, JobSpec, Resources},
};
use prost::Message as _;
use sha2::Digest as _;
use std::collections::{BTreeMap, BTreeSet};

/// Fills what was left out: cores 1, nodes and tasks per node 1, the name of an
/// only step, the job's name. How many retries there are where none are told is
/// for the server to say.
pub fn normalize(spec: &mut JobSpec) {
    if let [only] = spec.steps.as_mut_slice()
        && only.name.is_empty()
    {
        only.name = "main".to_owned();
    }
    for step in &mut spec.steps {
        let each = step.per_task.get_or_insert_with(Resources::default);
        if each.millicores == 0 {
            each.millicores = MILLICORES_DEFAULT;
        }
        step.nodes = step.nodes.max(1);
        step.tasks_per_node = step.tasks_per_node.max(1);
        let mut seen = BTreeSet::new();
        step.after.retain(|name| seen.insert(name.clone()));
        if let Some(array) = &mut step.array {
            array::normalize(array);
        }
    }
    if spec.name.is_empty() {
        spec.name = match spec.steps.as_slice() {
            [only] => only.name.clone(),
            _ => "job".to_owned(),
        };
    }
}

/// Checks a normalized spec as it comes to the server: inputs are URLs or
/// uploaded bytes with their digest.
pub fn spec(spec: &JobSpec) -> Result<(), Problem> {
    draft(spec)?;
    for (at, input) in spec.inputs.iter().enumerate() {
        if !input.path.is_empty() {
            return Err(input_problem(
                "path",
                &input.path,
                "a path means nothing to the server",
                "upload the file or directory and give its digest; `drumline submit` does so",
            )
            .within(&format!("input[{at}]")));
        }
    }
    Ok(())
}

/// Checks a normalized spec on the client's side, where inputs may still be
/// paths.
pub fn draft(spec: &JobSpec) -> Result<(), Problem> {
    let bytes = spec.encoded_len();
    if bytes > SPEC_BYTES_MAX {
        return Err(Problem::new(
            "spec.too_large",
            "job",
            format!("{bytes} bytes"),
            format!("a job's spec may have {SPEC_BYTES_MAX} bytes"),
            "give large texts as inputs rather than in the spec",
        ));
    }
    job_name(&spec.name)?;
    if spec.priority.unsigned_abs() > PRIORITY_MAX.unsigned_abs() {
        return Err(Problem::new(
            "spec.priority",
            "priority",
            spec.priority,
            "is out of range",
            format!("use -{PRIORITY_MAX} to {PRIORITY_MAX}"),
        ));
    }
    span("expected_runtime", spec.expected_runtime_ms)?;
    span("keep", spec.keep_ms)?;
    if spec.keep_ms > 0 {
        retention::check("keep", spec.keep_ms)?;
    }
    labels("labels", &spec.labels)?;
    dependencies(spec)?;
    inputs(&spec.inputs)?;
    steps(spec)
}

/// SHA-256 of a normalized spec: what an idempotency key stands for.
#[must_use]
pub fn digest(spec: &JobSpec) -> String {
    hex_of(&sha2::Sha256::digest(spec.encode_to_vec()))
}

/// Checks a caller's idempotency key (empty: none).
pub fn idempotency_key(key: &str) -> Result<(), Problem> {
    if key.len() <= IDEMPOTENCY_KEY_BYTES_MAX && key.bytes().all(|b| b.is_ascii_graphic()) {
        return Ok(());
    }
    Err(Problem::new(
        "spec.idempotency_key",
        "idempotency_key",
        key,
        "is not such a key",
        format!("use at most {IDEMPOTENCY_KEY_BYTES_MAX} printable ASCII characters without blanks"),
    ))
}

/// Checks what a server is told of licenses.
pub fn licenses_there(field: &str, licenses: &BTreeMap<String, u32>) -> Result<(), Problem> {
    if licenses.len() > LICENSES_MAX {
        return Err(too_many(field, licenses.len(), LICENSES_MAX));
    }
    for (name, &total) in licenses {
        check_name(NameKind::License, field, name)?;
        if total > LICENSE_COUNT_MAX {
            let reason = format!("at most {LICENSE_COUNT_MAX} are counted");
            return Err(size_problem(&format!("{field}.{name}"), total.into(), reason));
        }
    }
    Ok(())
}

/// Checks labels of a job or a node.
pub fn labels(field: &str, labels: &BTreeMap<String, String>) -> Result<(), Problem> {
    if labels.len() > LABELS_MAX {
        return Err(too_many(field, labels.len(), LABELS_MAX));
    }
    for (key, value) in labels {
        label_key(&format!("{field}.{key}"), key)?;
        label_value(&format!("{field}.{key}"), value)?;
    }
    Ok(())
}

fn label_key(field: &str, key: &str) -> Result<(), Problem> {
    let bytes = key.as_bytes();
    let fits = !bytes.is_empty()
        && bytes.len() <= NAME_BYTES_MAX
        && bytes[0].is_ascii_alphanumeric()
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'/'));
    if fits {
        return Ok(());
    }
    Err(Problem::new(
        "spec.label",
        field,
        key,
        "is not the key of a label",
        format!("use 1 to {NAME_BYTES_MAX} letters, digits, _, -, . and /, beginning with a letter or digit"),
    ))
}

fn label_value(field: &str, value: &str) -> Result<(), Problem> {
    if value.len() <= LABEL_VALUE_BYTES_MAX && !value.chars().any(char::is_control) {
        return Ok(());
    }
    Err(Problem::new(
        "spec.label",
        field,
        value,
        "is not the value of a label",
        format!("use at most {LABEL_VALUE_BYTES_MAX} printable bytes"),
    ))
}

fn job_name(name: &str) -> Result<(), Problem> {
    let fits =
        !name.trim().is_empty() && name.len() <= JOB_NAME_BYTES_MAX && !name.chars().any(char::is_control);
    if fits {
        return Ok(());
    }
    Err(Problem::new(
        "spec.name",
        "name",
        name,
        "is not a job's name",
        format!("use 1 to {JOB_NAME_BYTES_MAX} printable bytes"),
    ))
}

fn dependencies(spec: &JobSpec) -> Result<(), Problem> {
    if spec.after.len() > DEPENDENCIES_MAX {
        return Err(too_many("after", spec.after.len(), DEPENDENCIES_MAX));
    }
    for (at, dependency) in spec.after.iter().enumerate() {
        let refuse = |code: &str, (reason, remedy): (&str, &str)| {
            let value = match dependency.job_number {
                0 => format!("{}:0", dependency.kind),
                _ => after::format(dependency, ""),
            };
            Err(Problem::new(code, format!("after[{at}]"), value, reason, remedy))
        };
        if let Some(flaw) = after::flaw(dependency) {
            return refuse("spec.dependency", flaw);
        }
        if !dependency.step.is_empty() {
            check_name(NameKind::Step, &format!("after[{at}].step"), &dependency.step)?;
        }
        if dependency.kind() == DependencyKind::Each
            && let Err(flaw) = after::own_array(spec)
        {
            return refuse("spec.each", flaw);
        }
    }
    Ok(())
}

fn inputs(inputs: &[Input]) -> Result<(), Problem> {
    if inputs.len() > INPUTS_MAX {
        return Err(too_many("input", inputs.len(), INPUTS_MAX));
    }
    let mut names = BTreeSet::new();
    for (at, input) in inputs.iter().enumerate() {
        let within = format!("input[{at}]");
        one_input(input).map_err(|problem| problem.within(&within))?;
        if !names.insert(&input.name) {
            return Err(Problem::new(
                "spec.duplicate_input",
                format!("{within}.name"),
                &input.name,
                "two inputs have this name",
                "name each input once",
            ));
        }
    }
    Ok(())
}

fn input_problem(field: &str, value: &str, reason: &str, remedy: &str) -> Problem {
    Problem::new("spec.input", field, value, reason, remedy)
}

fn one_input(input: &Input) -> Result<(), Problem> {
    check_name(NameKind::Input, "name", &input.name)?;
    let sources = [&input.path, &input.url].iter().filter(|source| !source.is_empty()).count();
    if sources > 1 || (sources == 0 && input.digest.is_empty()) {
        let reason = if sources > 1 { "has both a path and a URL" } else { "has neither a path nor a URL" };
        return Err(input_problem("name", &input.name, reason, "give either path or url"));
    }
    if !input.url.is_empty() {
        url(&input.url)?;
    }
    if !input.url.is_empty() && input.digest.is_empty() {
        let reason = "is not told, and what comes from a URL is verified and shared by it";
        let remedy = "give the SHA-256 of what the URL holds (`sha256sum FILE`), or the file by path";
        return Err(input_problem("digest", "", reason, remedy));
    }
    if !input.url.is_empty() && input.tree() {
        let reason = "what a URL holds is one file";
        let remedy = "give the directory by path: it is uploaded then";
        return Err(input_problem("tree", "true", reason, remedy));
    }
    let is_digest = input.digest.len() == 64
        && input.digest.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if !input.digest.is_empty() && !is_digest {
        return Err(input_problem(
            "digest",
            &input.digest,
            "is not a SHA-256",
            "use 64 lower-case hexadecimal digits",
        ));
    }
    if input.size_bytes > INPUT_BYTES_MAX {
        return Err(size_problem(
            "size",
            input.size_bytes,
            format!("at most {INPUT_BYTES_MAX} bytes are taken"),
        ));
    }
    Ok(())
}

fn url(url: &str) -> Result<(), Problem> {
    let refuse = |reason: &str| {
        let remedy = "use an http:// or https:// URL, or give the file by path: it is uploaded then";
        Problem::new("spec.url", "url", url, reason, remedy)
    };
    if url.len() > URL_BYTES_MAX {
        return Err(refuse("is too long"));
    }
    if !url.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(refuse("holds blanks or characters that a URL must escape"));
    }
    let Some((scheme, rest)) = url.split_once("://") else { return Err(refuse("has no scheme")) };
    match scheme {
        "http" | "https" => {}
        _ => return Err(refuse("has a scheme that is not known")),
    }
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if host.is_empty() {
        return Err(refuse("names no host"));
    }
    if host.contains('@') {
        return Err(refuse("holds a password, which would be kept in the clear"));
    }
    Ok(())
}

fn steps(spec: &JobSpec) -> Result<(), Problem> {
    if spec.steps.is_empty() {
        return Err(Problem::new(
            "spec.missing",
            "step",
            "",
            "a job needs at least one step",
            "add a [[step]] with `run` or `argv`",
        ));
    }
    if spec.steps.len() > STEPS_MAX {
        return Err(too_many("step", spec.steps.len(), STEPS_MAX));
    }
    let mut names = BTreeSet::new();
    for (at, step) in spec.steps.iter().enumerate() {
        let within = format!("step[{at}]");
        step::check(step).map_err(|problem| problem.within(&within))?;
        if !names.insert(step.name.as_str()) {
            return Err(Problem::new(
                "spec.duplicate_step",
                format!("{within}.name"),
                &step.name,
                "two steps have this name",
                "name each step once",
            ));
        }
    }
    graph::check(&spec.steps)?;
    let tasks = estimate::tasks(spec);
    if tasks > TASKS_MAX {
        let reason = format!("a job may have {TASKS_MAX} tasks in all");
        return Err(Problem::new("spec.tasks", "step", tasks, reason, "ask for less"));
    }
    Ok(())
}

fn too_many(field: &str, found: usize, most: usize) -> Problem {
    Problem::new(
        "spec.too_many",
        field,
        found,
        format!("at most {most} are taken"),
        "use fewer, or split the job",
    )
}

fn size_problem(field: &str, value: u64, reason: String) -> Problem {
    Problem::new("spec.size", field, value, reason, "ask for less")
}

/// A span of time in a spec; 0 is "not told".
fn span(field: &str, span_ms: u64) -> Result<(), Problem> {
    if span_ms <= SPAN_MS_MAX {
        return Ok(());
    }
    Err(Problem::new(
        "spec.time",
        field,
        crate::units::format_duration_ms(span_ms),
        "is longer than a year",
        "use at most 366d",
    ))
}

#[cfg(test)]
mod tests;
