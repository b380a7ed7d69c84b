//! Jobs as they come: the job file in TOML and JSON, the body that REST takes,
//! batch scripts, and the spec as gRPC carries it.

use crate::door::{let_in, refused};
use prost::Message as _;
use proto::sbatch::{CommandLine, Names, Surroundings};
use proto::v1::JobSpec;
use proto::{envelope, jobfile, sbatch as script, validate};
use std::collections::BTreeMap;
use std::path::Path;

/// No job file makes the readers, or anything behind the door, panic.
pub fn job_file(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    for read in [jobfile::parse(text, Path::new("")), jobfile::from_json(text, Path::new(""))] {
        match read {
            Ok(mut spec) => {
                // As the client sends it: its files are uploaded.
                for input in spec.inputs.iter_mut().filter(|input| !input.path.is_empty()) {
                    input.path.clear();
                    input.digest = "0".repeat(64);
                }
                submitted(&spec);
            }
            Err(problem) => refused(&problem),
        }
    }
}

/// Nor does any spec sent as protobuf.
pub fn job_spec(data: &[u8]) {
    let Ok(mut spec) = JobSpec::decode(data) else { return };
    validate::normalize(&mut spec);
    submitted(&spec);
}

/// Nor does any body that is posted to `/v1/jobs`.
pub fn rest_body(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match envelope::parse(text) {
        Ok(submission) => submitted(&submission.spec),
        Err(problem) => refused(&problem),
    }
}

/// Nor does any batch script: what is read is a job that every door takes. The
/// first line is the command line as a shell takes it, variables in front; the
/// others are the script.
pub fn sbatch(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (words, text) = text.split_once('\n').unwrap_or(("", text));
    let mut words: Vec<String> =
        words.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect();
    let is_word = |word: &String| word.starts_with('-') || !word.contains('=');
    let first = words.iter().position(is_word).unwrap_or(words.len());
    let variables = words.drain(..first).filter_map(|word| {
        let (name, value) = word.split_once('=')?;
        Some((name.to_owned(), value.to_owned()))
    });
    let environment: BTreeMap<String, String> = variables.collect();
    let pattern = words.first().map_or("", String::as_str);
    let filled = script::fill(pattern, &Names::default());
    assert!(filled.len() <= 16 * pattern.len(), "{pattern} becomes {} bytes", filled.len());
    // As the node does it, for whom the variables are the task's own.
    let (names, _) = script::on_node(&environment);
    let longest = 16 + names.job.len() + names.name.len() + names.user.len() + names.node.len();
    assert!(script::fill(pattern, &names).len() <= longest * pattern.len(), "{pattern} for {names:?}");
    if let Err(problem) = script::srun(&words, &environment) {
        refused(&problem);
    }
    let around = Surroundings { environment, directory: "/work".to_owned(), ..Surroundings::default() };
    let read = CommandLine::read(&words).and_then(|line| script::submission(&line, text, &around));
    match read {
        Ok(submission) => {
            let checked = validate::spec(&submission.spec);
            assert!(checked.is_ok(), "a script became what no door takes: {checked:?}");
            let_in(&submission.spec);
        }
        Err(problem) => refused(&problem),
    }
}

pub(crate) fn submitted(spec: &JobSpec) {
    match validate::spec(spec) {
        Ok(()) => let_in(spec),
        Err(problem) => refused(&problem),
    }
}
