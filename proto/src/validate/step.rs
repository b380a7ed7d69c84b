//! One step by itself: its command, sizes, paths and conditions.

use super::{label_key, label_value, span, too_many};
use crate::{
    array, estimate,
    ids::{NameKind, check_name},
    limits::*,
    problem::Problem,
    units,
    v1::{Checkpoint, Constraint, Step},
};
use std::collections::BTreeMap;

pub(super) fn check(step: &Step) -> Result<(), Problem> {
    check_name(NameKind::Step, "name", &step.name)?;
    command(step)?;
    shape(step)?;
    resources(step)?;
    environment(step)?;
    if !matches!(step.runtime.as_str(), "" | "process") {
        return Err(Problem::new(
            "spec.runtime",
            "runtime",
            &step.runtime,
            "this runtime is not known",
            "leave it out, or use process",
        ));
    }
    if step.outputs.len() > OUTPUTS_MAX {
        return Err(too_many("outputs", step.outputs.len(), OUTPUTS_MAX));
    }
    for (at, glob) in step.outputs.iter().enumerate() {
        check_glob(&format!("outputs[{at}]"), glob)?;
    }
    if let Some(checkpoint) = &step.checkpoint {
        check_checkpoint(checkpoint)?;
    }
    let retries = step.retries.unwrap_or(RETRIES_DEFAULT);
    if retries > RETRIES_MAX {
        return Err(Problem::new(
            "spec.retries",
            "retries",
            retries,
            "is too many",
            format!("use at most {RETRIES_MAX}"),
        ));
    }
    span("timeout", step.timeout_ms)?;
    if !step.pool.is_empty() {
        check_name(NameKind::Pool, "pool", &step.pool)?;
    }
    if step.constraints.len() > CONSTRAINTS_MAX {
        return Err(too_many("constraints", step.constraints.len(), CONSTRAINTS_MAX));
    }
    for (at, constraint) in step.constraints.iter().enumerate() {
        check_constraint(&format!("constraints[{at}]"), constraint)?;
    }
    check_licenses("licenses", &step.licenses)
}

fn command(step: &Step) -> Result<(), Problem> {
    let refuse = |field: &str, value: &str, reason: &str, remedy: &str| {
        Err(Problem::new("spec.command", field, value, reason, remedy))
    };
    match (step.argv.is_empty(), step.run.trim().is_empty()) {
        (true, true) => {
            return refuse("run", &step.run, "a step needs something to run", "give `run` or `argv`");
        }
        (false, false) => {
            return refuse("run", &step.run, "both `run` and `argv` are given", "give one of them");
        }
        _ => {}
    }
    if step.argv.first().is_some_and(String::is_empty) {
        return refuse("argv[0]", "", "a program's name is needed", "name a program");
    }
    if step.argv.len() > ARGV_WORDS_MAX {
        return Err(too_many("argv", step.argv.len(), ARGV_WORDS_MAX));
    }
    for (at, word) in step.argv.iter().chain([&step.run]).enumerate() {
        let field = if step.argv.is_empty() { "run".to_owned() } else { format!("argv[{at}]") };
        if word.len() > WORD_BYTES_MAX {
            return Err(Problem::new(
                "spec.too_large",
                field,
                format!("{} bytes", word.len()),
                format!("at most {WORD_BYTES_MAX} bytes can be handed to a process"),
                "put the script into a file and give it as an input",
            ));
        }
        if word.contains('\0') {
            return refuse(&field, "", "holds a zero byte, which no process can be given", "take it out");
        }
    }
    Ok(())
}

/// Array or gang, and how large.
fn shape(step: &Step) -> Result<(), Problem> {
    for (field, value, most) in [
        ("nodes", step.nodes, GANG_NODES_MAX),
        ("tasks_per_node", step.tasks_per_node, GANG_TASKS_PER_NODE_MAX),
    ] {
        if value == 0 || value > most {
            return Err(Problem::new(
                "spec.size",
                field,
                value,
                if value == 0 { "must be above 0" } else { "is too many" },
                format!("use 1 to {most}"),
            ));
        }
    }
    if estimate::step_ranks(step) > GANG_RANKS_MAX {
        let reason = format!("a gang may have {GANG_RANKS_MAX} ranks");
        return Err(Problem::new("spec.ranks", "nodes", estimate::step_ranks(step), reason, "ask for less"));
    }
    let Some(array) = &step.array else { return Ok(()) };
    if estimate::is_gang(step) {
        return Err(Problem::new(
            "spec.array_and_gang",
            "array",
            array::format(array),
            format!("a step is an array or a gang, and this one has {} ranks", estimate::step_ranks(step)),
            "leave out `array`, or `nodes` and `tasks_per_node`",
        ));
    }
    array::check(array)
}

fn resources(step: &Step) -> Result<(), Problem> {
    let each = step.per_task.unwrap_or_default();
    if each.millicores == 0 || each.millicores > MILLICORES_MAX {
        return Err(Problem::new(
            "spec.size",
            "cores",
            units::format_millicores(u64::from(each.millicores)),
            if each.millicores == 0 { "must be above 0" } else { "is more than any machine has" },
            format!("use 0.001 to {}", MILLICORES_MAX / 1000),
        ));
    }
    if each.memory_bytes > MEMORY_BYTES_MAX {
        return Err(Problem::new(
            "spec.size",
            "memory",
            units::format_memory_bytes(each.memory_bytes),
            "is more than any machine has",
            format!("use at most {}", units::format_memory_bytes(MEMORY_BYTES_MAX)),
        ));
    }
    if each.gpus > GPUS_MAX {
        return Err(Problem::new(
            "spec.size",
            "gpus",
            each.gpus,
            "is more than any machine has",
            format!("use at most {GPUS_MAX}"),
        ));
    }
    Ok(())
}

fn environment(step: &Step) -> Result<(), Problem> {
    if step.env.len() > ENV_MAX {
        return Err(too_many("env", step.env.len(), ENV_MAX));
    }
    for (name, value) in &step.env {
        let refuse = |reason: &str, remedy: &str| {
            Err(Problem::new("spec.env", format!("env.{name}"), value, reason, remedy))
        };
        let bytes = name.as_bytes();
        let is_name = !bytes.is_empty()
            && !bytes[0].is_ascii_digit()
            && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'_')
            && bytes.len() <= LABEL_VALUE_BYTES_MAX;
        if !is_name {
            return refuse(
                "is not the name of a variable",
                "use letters, digits and _, not beginning with a digit",
            );
        }
        if name.starts_with("DRUMLINE_") {
            return refuse(
                "names beginning with DRUMLINE_ are set by Drumline itself",
                "choose another name",
            );
        }
        if value.len() > ENV_VALUE_BYTES_MAX {
            return refuse("the value is too long", "give long texts as inputs");
        }
        if value.contains('\0') {
            return refuse("the value holds a zero byte", "take it out");
        }
    }
    Ok(())
}

/// Whether a path stays below the directory it is relative to.
pub fn check_relative(field: &str, path: &str) -> Result<(), Problem> {
    let refuse = |reason: &str| {
        Err(Problem::new("spec.path", field, path, reason, "use a path below the task's working directory"))
    };
    if path.is_empty() {
        return refuse("is empty");
    }
    if path.len() > PATH_BYTES_MAX {
        return refuse("is too long");
    }
    if path.chars().any(char::is_control) {
        return refuse("holds control characters");
    }
    if path.starts_with('/') {
        return refuse("is absolute");
    }
    if path.split('/').any(|part| part == "..") {
        return refuse("leaves the directory");
    }
    Ok(())
}

/// Its directory is the task's own: not what was laid for it, nor all of its work.
fn check_checkpoint(checkpoint: &Checkpoint) -> Result<(), Problem> {
    check_relative("checkpoint.path", &checkpoint.path)?;
    let refuse = |reason: &str| {
        let remedy = "name a directory of its own below the task's working directory, such as ckpt";
        Err(Problem::new("spec.path", "checkpoint.path", &checkpoint.path, reason, remedy))
    };
    match checkpoint.path.split('/').find(|part| !matches!(*part, "" | ".")) {
        None => return refuse("names the working directory itself"),
        Some("inputs" | "from") => return refuse("is where inputs are laid"),
        Some(_) => {}
    }
    if (1..CHECKPOINT_EVERY_MS_MIN).contains(&checkpoint.every_ms) {
        return Err(Problem::new(
            "spec.time",
            "checkpoint.every",
            units::format_duration_ms(checkpoint.every_ms),
            "is shorter than a second",
            "use at least 1s",
        ));
    }
    if !checkpoint.signal.is_empty() && !CHECKPOINT_SIGNALS.contains(&checkpoint.signal.as_str()) {
        return Err(Problem::new(
            "spec.signal",
            "checkpoint.signal",
            &checkpoint.signal,
            "is no signal that asks for a checkpoint",
            format!("use one of {}, or leave it out", CHECKPOINT_SIGNALS.join(", ")),
        ));
    }
    span("checkpoint.every", checkpoint.every_ms)
}

/// Whether a glob is whole and stays below the working directory: `*`, `?`,
/// `[…]`, and `**` for directories of any depth.
pub fn check_glob(field: &str, glob: &str) -> Result<(), Problem> {
    check_relative(field, glob)?;
    let refuse = |reason: &str, remedy: &str| Err(Problem::new("spec.glob", field, glob, reason, remedy));
    if glob.split('/').all(|part| part.is_empty() || part == ".") {
        return refuse("names the directory itself", "name files, such as *");
    }
    for part in glob.split('/') {
        let mut rest = part;
        while let Some(open) = rest.find('[') {
            let inside = rest[open + 1..].trim_start_matches(['!', '^']);
            // The first character of a set may be `]` itself.
            let Some(close) = inside.char_indices().skip(1).find(|(_, c)| *c == ']').map(|(at, _)| at) else {
                return refuse("has a [ without its ]", "close it, or write [[] for the character itself");
            };
            rest = &inside[close + 1..];
        }
    }
    Ok(())
}

/// Whether licenses are names with counts.
pub fn check_licenses(field: &str, licenses: &BTreeMap<String, u32>) -> Result<(), Problem> {
    if licenses.len() > STEP_LICENSES_MAX {
        return Err(too_many(field, licenses.len(), STEP_LICENSES_MAX));
    }
    for (name, &count) in licenses {
        check_name(NameKind::License, field, name)?;
        if count == 0 || count > LICENSE_COUNT_MAX {
            return Err(Problem::new(
                "spec.size",
                format!("{field}.{name}"),
                count,
                if count == 0 { "must be above 0" } else { "is more than there are of anything" },
                format!("use 1 to {LICENSE_COUNT_MAX}, or leave it out"),
            ));
        }
    }
    Ok(())
}

/// Whether a constraint names a label and a value.
pub fn check_constraint(field: &str, constraint: &Constraint) -> Result<(), Problem> {
    label_key(field, &constraint.label)?;
    label_value(field, &constraint.value)
}
