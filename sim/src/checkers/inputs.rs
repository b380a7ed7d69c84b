//! Invariant 5, at the other end: what a task finds at `inputs/` is all that its job
//! was given, each byte for byte what was submitted, and nothing else.
//!
//! Where a task could not read a file since its machine's disk failed it, nothing is
//! known of that one.

use super::ends::attempt_of;
use super::{Checker, Outcome};
use std::collections::BTreeMap;
use world::sim::ProcessSpan;

pub struct InputsTrue;

impl Checker for InputsTrue {
    fn name(&self) -> &'static str {
        "inputs"
    }
    fn invariant(&self) -> u8 {
        5
    }

    fn end(&mut self, outcome: &Outcome<'_>) -> Result<(), String> {
        outcome.spans.iter().try_for_each(|span| given(outcome, span))
    }
}

fn given(outcome: &Outcome<'_>, span: &ProcessSpan) -> Result<(), String> {
    let Some(((job, ..), _)) = attempt_of(&span.key) else { return Ok(()) };
    let Some(row) = outcome.mirror.jobs.get(&job) else { return Ok(()) };
    let inputs = row.spec.iter().flat_map(|spec| &spec.inputs);
    let mut due: BTreeMap<&str, &str> =
        inputs.map(|input| (input.name.as_str(), input.digest.as_str())).collect();
    for (name, digest) in &span.inputs {
        match (due.remove(name.as_str()), digest) {
            (None, _) => {
                return Err(format!("{} found an input `{name}` that its job does not have", span.key));
            }
            (Some(due), Some(found)) if found != due => {
                return Err(format!(
                    "{} found {found} at input `{name}`, where {due} was submitted",
                    span.key
                ));
            }
            _ => {}
        }
    }
    match due.first_key_value() {
        Some((name, _)) => Err(format!("{} did not find its input `{name}`", span.key)),
        None => Ok(()),
    }
}
