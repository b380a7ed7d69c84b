//! Batch scripts of Slurm: `#SBATCH` lines and the options of sbatch to a
//! [`JobSpec`], with a warning for each word that is not covered.
//!
//! Pure: texts in, a job out. Reading the script's file, asking which jobs have
//! a name, and submitting are the caller's. `docs/slurm.md` says for people
//! what each option becomes and how that differs from Slurm.
//!
//! A job becomes one step named `batch` whose command starts `drumline batch`
//! on the node ([`argv`]), which writes the script down and runs it with its
//! own interpreter, in its directory, with its output files. The script itself
//! is a word of that command: what was submitted is what runs, whatever becomes
//! of the file meanwhile.

mod after;
mod begin;
mod chosen;
mod environment;
mod options;
mod pattern;
mod script;
mod shape;
mod srun;
mod table;
mod values;

pub use environment::on_node;
pub use pattern::{Names, fill};
pub use srun::{Start, srun};
pub use table::{Cover, KNOWN, Known, Takes};

use crate::{
    array,
    ids::{NameKind, check_name},
    jobfile,
    limits::{JOB_NAME_BYTES_MAX, SPAN_MS_MAX},
    problem::Problem,
    v1::{DependencyKind, JobSpec, Step},
    validate,
};
use chosen::Chosen;
use jiff::Zoned;
use options::{Given, Source};
use shape::Shape;
use std::collections::BTreeMap;

/// The label that says who submitted a job.
pub const USER_LABEL: &str = "user";
/// What a pattern is where no output file is named.
const OUTPUT: &str = "slurm-%j.out";
/// Likewise for arrays.
const ARRAY_OUTPUT: &str = "slurm-%A_%a.out";

/// Where the script's text comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScriptFrom {
    /// A file.
    File(String),
    /// Standard input: no script was named.
    Input,
    /// The command that `--wrap` gave.
    Wrap(String),
}

/// The words behind `sbatch`, read.
#[derive(Debug)]
pub struct CommandLine {
    given: Vec<Given>,
    /// The script.
    pub script: ScriptFrom,
    /// What the script is called with.
    pub args: Vec<String>,
}

/// Whence a job is submitted.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// All variables of the environment.
    pub environment: BTreeMap<String, String>,
    /// The working directory, absolute.
    pub directory: String,
    /// The machine's name.
    pub host: String,
    /// Whose job it will be; empty: the token tells it.
    pub tenant: String,
    /// When it is submitted, on the clocks of there: `--begin=16:00` is a time in
    /// this zone.
    pub now: Zoned,
}

/// A job to submit.
#[derive(Debug)]
pub struct Submission {
    /// Normalized and valid.
    pub spec: JobSpec,
    /// What was asked and is not done, a line each.
    pub warnings: Vec<String>,
    /// Only after all earlier jobs of its name.
    pub singleton: bool,
    /// Wait for the job's end.
    pub wait: bool,
    /// Print the bare id.
    pub parsable: bool,
    /// Print nothing but errors.
    pub quiet: bool,
    /// Check, but do not submit.
    pub test_only: bool,
}

/// A refusal of this door's.
fn refuse(field: &str, value: &str, reason: &str, remedy: &str) -> Problem {
    Problem::new("spec.sbatch", field, value, reason, remedy)
}

impl CommandLine {
    /// Reads the words behind `sbatch`.
    pub fn read(words: &[String]) -> Result<Self, Problem> {
        let line = options::read(words, Source::CommandLine)?;
        let wrap = line.given.iter().rev().find(|given| given.option.long == "wrap");
        let mut rest = line.rest.into_iter();
        let script = match (wrap, rest.next()) {
            (Some(wrap), None) => ScriptFrom::Wrap(wrap.value.clone()),
            (Some(_), Some(script)) => {
                return Err(refuse("--wrap", &script, "a script is given too", "give one of them"));
            }
            (None, Some(file)) => ScriptFrom::File(file),
            (None, None) => ScriptFrom::Input,
        };
        Ok(Self { given: line.given, script, args: rest.collect() })
    }

    /// Whether `--help`, `--usage` or `--version` asks for words, not for a job.
    #[must_use]
    pub fn asks_for(&self, long: &str) -> bool {
        self.given.iter().any(|given| given.option.long == long)
    }

    /// The job's name where nothing names it.
    fn default_name(&self) -> &str {
        match &self.script {
            ScriptFrom::File(path) => path.rsplit('/').next().unwrap_or(path),
            ScriptFrom::Input => "sbatch",
            ScriptFrom::Wrap(_) => "wrap",
        }
    }

    fn script_name(&self) -> &str {
        match &self.script {
            ScriptFrom::File(path) => path,
            ScriptFrom::Input => "standard input",
            ScriptFrom::Wrap(_) => "--wrap",
        }
    }
}

/// The script that `--wrap` makes of a command.
#[must_use]
pub fn wrapped(command: &str) -> String {
    format!("#!/bin/sh\n# Written by sbatch --wrap.\n\n{command}\n")
}

/// Makes the job of a command line and its script's text.
pub fn submission(line: &CommandLine, text: &str, around: &Surroundings) -> Result<Submission, Problem> {
    let mut script = script::read(line.script_name(), text)?;
    let mut given = std::mem::take(&mut script.given);
    given.extend(chosen::from_environment(&around.environment));
    given.extend(line.given.iter().cloned());
    let chosen = Chosen::of(given)?;
    let mut warnings = script.warnings;
    warnings.extend(chosen.uncovered()?);

    let mut step = Step { name: "batch".to_owned(), ..Step::default() };
    // Slurm runs a job again only where a node failed it; so does Drumline,
    // by a count of its own that no option here changes.
    step.retries = Some(0);
    let shape = Shape::of(&chosen, &mut warnings)?;
    shape.apply(&mut step);
    step.array = indexes(&chosen, &shape)?;
    step.exclusive = exclusive(&chosen, &mut warnings)?;
    step.licenses = licenses(&chosen)?;
    step.timeout_ms = chosen.read("time", values::time_ms)?.unwrap_or(0);
    step.pool = pool(&chosen, &mut warnings)?;

    let name = chosen.text("job-name").unwrap_or(line.default_name());
    let user = ["USER", "LOGNAME"].iter().find_map(|name| around.environment.get(*name));
    let user = user.map_or("", String::as_str);
    let field = chosen.get("export").map_or_else(|| "environment".to_owned(), Given::field);
    step.env = environment::exported(&field, chosen.text("export"), &around.environment, &mut warnings)?;
    step.env.extend(environment::told(&environment::Told {
        name,
        directory: &around.directory,
        host: &around.host,
        user,
        pool: &step.pool,
        shape: &shape,
        array: step.array.as_ref(),
    }));
    step.argv = argv(line, text, &chosen, &step, &around.directory, &mut warnings)?;
    let calls = script::calls(text);
    warnings.extend(calls.into_iter().filter_map(|program| of_call(program, &shape)));

    let after = match chosen.get("dependency") {
        Some(given) => {
            let after = after::read(&given.field(), &given.value, &around.tenant)?;
            if step.array.is_none() && after.jobs.iter().any(|on| on.kind() == DependencyKind::Each) {
                let reason = "aftercorr is for the tasks of an array, and this job is none";
                let remedy = "give it --array, or wait for the whole job by afterok";
                return Err(refuse(&given.field(), &given.value, reason, remedy));
            }
            after
        }
        None => after::After::default(),
    };
    let mut spec = JobSpec {
        name: cut(name),
        expected_runtime_ms: step.timeout_ms,
        begin_ms: begin(&chosen, &around.now, &mut warnings)?,
        after: after.jobs,
        steps: vec![step],
        ..JobSpec::default()
    };
    if !user.is_empty() {
        spec.labels.insert(USER_LABEL.to_owned(), user.to_owned());
    }
    validate::normalize(&mut spec);
    validate::draft(&spec)?;
    Ok(Submission {
        spec,
        warnings,
        singleton: after.singleton,
        wait: chosen.has("wait"),
        parsable: chosen.has("parsable"),
        quiet: chosen.has("quiet"),
        test_only: chosen.has("test-only"),
    })
}

/// A file's name may be longer than a job's.
fn cut(name: &str) -> String {
    let mut end = name.len().min(JOB_NAME_BYTES_MAX);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name[..end].to_owned()
}

/// Not before; 0: at once.
fn begin(chosen: &Chosen, now: &Zoned, warnings: &mut Vec<String>) -> Result<u64, Problem> {
    let Some(given) = chosen.get("begin") else { return Ok(0) };
    let (field, value) = (given.field(), given.value.as_str());
    let now_ms = u64::try_from(now.timestamp().as_millisecond()).unwrap_or(0);
    match begin::begin_ms(value, now).map_err(|(reason, remedy)| refuse(&field, value, reason, remedy))? {
        Some(at_ms) if at_ms - now_ms > SPAN_MS_MAX => {
            Err(refuse(&field, value, "is more than a year away", "submit it later"))
        }
        Some(at_ms) if at_ms > now_ms => Ok(at_ms),
        Some(_) => Ok(0),
        None => {
            warnings.push(format!("{field}: {value} is past, so the job may begin at once"));
            Ok(0)
        }
    }
}

fn indexes(chosen: &Chosen, shape: &Shape) -> Result<Option<crate::v1::ArraySpec>, Problem> {
    let Some(given) = chosen.get("array") else { return Ok(None) };
    if shape.nodes > 1 {
        let reason = format!("an array whose tasks need {} nodes each is not covered", shape.nodes);
        return Err(refuse(&given.field(), &given.value, &reason, "submit a job for each index"));
    }
    let spec = array::parse(given.value.trim()).map_err(|problem| problem.of_field(given.field()))?;
    Ok(Some(spec))
}

/// Of each task of an array, and of the job as a whole else, as in Slurm.
fn licenses(chosen: &Chosen) -> Result<BTreeMap<String, u32>, Problem> {
    let Some(given) = chosen.get("licenses") else { return Ok(BTreeMap::new()) };
    if given.value.contains('|') {
        let reason = "one of several licenses, whichever is free, is not covered";
        return Err(refuse(&given.field(), &given.value, reason, "choose one"));
    }
    jobfile::parse_licenses(&given.field(), &given.value)
}

/// Whole nodes. Whose jobs may be beside one another is not chosen finer than that.
fn exclusive(chosen: &Chosen, warnings: &mut Vec<String>) -> Result<bool, Problem> {
    let Some(given) = chosen.get("exclusive") else { return Ok(false) };
    match given.value.as_str() {
        // Slurm has an `SBATCH_EXCLUSIVE` with these for what a bare option says.
        "" | "exclusive" => {}
        "user" | "mcs" | "topo" => {
            let reason = "nobody else's jobs come to its nodes, and no others of yours either";
            warnings.push(format!("{} is taken for --exclusive: {reason}", given.field()));
        }
        value => return Err(refuse(&given.field(), value, "is no such value", "write --exclusive")),
    }
    Ok(true)
}

/// The first of the partitions: a step is for one pool, or for any.
fn pool(chosen: &Chosen, warnings: &mut Vec<String>) -> Result<String, Problem> {
    let Some(given) = chosen.get("partition") else { return Ok(String::new()) };
    let mut names = given.value.split(',').map(str::trim).filter(|name| !name.is_empty());
    let first = names.next().unwrap_or_default();
    if names.next().is_some() {
        warnings.push(format!("{}: of several partitions the first counts, {first}", given.field()));
    }
    check_name(NameKind::Pool, &given.field(), first)?;
    Ok(first.to_owned())
}

/// The command of the step: the node's own drumline, told by a variable that
/// every agent sets, is handed the directory, the files and the script.
fn argv(
    line: &CommandLine,
    text: &str,
    chosen: &Chosen,
    step: &Step,
    directory: &str,
    warnings: &mut Vec<String>,
) -> Result<Vec<String>, Problem> {
    let mut argv: Vec<String> =
        ["sh", "-c", "exec \"$DRUMLINE_EXE\" batch \"$@\"", "batch"].map(str::to_owned).into();
    let mut push = |name: &str, value: &str| argv.push(format!("--{name}={value}"));
    push("chdir", &absolute(chosen.text("chdir").unwrap_or_default(), directory));
    let usual = if step.array.is_some() { ARRAY_OUTPUT } else { OUTPUT };
    push("output", chosen.text("output").filter(|pattern| !pattern.is_empty()).unwrap_or(usual));
    for long in ["error", "input"] {
        if let Some(pattern) = chosen.text(long).filter(|pattern| !pattern.is_empty()) {
            push(long, pattern);
        }
    }
    match chosen.get("open-mode").map(|given| (given, given.value.as_str())) {
        None | Some((_, "t" | "truncate")) => {}
        Some((_, "a" | "append")) => push("open-mode", "append"),
        Some((given, value)) => {
            return Err(refuse(&given.field(), value, "is no such mode", "use append or truncate"));
        }
    }
    if let (Some(warning), Some(given)) = (chosen.read("signal", values::signal)?, chosen.get("signal")) {
        match step.timeout_ms.checked_sub(warning.before_ms) {
            _ if step.timeout_ms == 0 => {
                warnings.push(format!("{} does nothing without --time", given.field()));
            }
            None => warnings.push(format!("{} comes at the start: --time is shorter", given.field())),
            Some(_) => {}
        }
        if step.timeout_ms > 0 {
            push("signal", &warning.signal);
            push("signal-after-ms", &step.timeout_ms.saturating_sub(warning.before_ms).to_string());
            push("signal-to", if warning.to_script { "script" } else { "steps" });
        }
    }
    argv.push("--".to_owned());
    argv.push(text.to_owned());
    argv.extend(line.args.iter().cloned());
    Ok(argv)
}

/// A path seen from a directory.
fn absolute(path: &str, directory: &str) -> String {
    match path {
        "" => directory.to_owned(),
        path if path.starts_with('/') => path.to_owned(),
        path => format!("{}/{path}", directory.trim_end_matches('/')),
    }
}

/// What to know of a program of Slurm's that the script calls.
fn of_call(program: &str, shape: &Shape) -> Option<String> {
    match program {
        "srun" if shape.nodes > 1 || shape.tasks > 1 => Some(format!(
            "the script calls srun: here it only starts single tasks on the first node; use mpirun or ssh for all {}",
            shape.tasks
        )),
        "srun" => None,
        "sbatch" => Some(
            "the script calls sbatch: no token is handed on to tasks, it needs DRUMLINE_SERVER and DRUMLINE_TOKEN"
                .to_owned(),
        ),
        program => Some(format!("the script calls {program}, which Drumline does not have")),
    }
}
