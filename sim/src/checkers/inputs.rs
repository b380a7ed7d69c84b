//! Invariant 5, at the other end: what a task finds at `inputs/` is all that its job
//! was given, each byte for byte what was submitted, and nothing else; of a directory all
//! that its manifest names, each as what it is there.
//!
//! Where a task could not read a file since its machine's disk failed it, nothing is
//! known of that one.

use super::ends::attempt_of;
use super::{Checker, Outcome};
use proto::v1::Input;
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
    let inputs = || row.spec.iter().flat_map(|spec| &spec.inputs);
    // What a directory had that went with its job is known no more.
    let gone = |input: &Input| input.tree() && !outcome.manifests.contains_key(&input.digest);
    if outcome.mirror.has_expired(&job) && inputs().any(gone) {
        return Ok(());
    }
    let mut due = BTreeMap::new();
    for input in inputs() {
        expect(outcome.manifests, input, &mut due).map_err(|what| format!("{job} {what}"))?;
    }
    for (name, word) in &span.inputs {
        match (due.remove(name.as_str()), word) {
            (None, _) => {
                return Err(format!("{} found an input `{name}` that its job does not have", span.key));
            }
            (Some(due), Some(found)) if *found != due => {
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

/// What a process must find of an input, in the words of [`ProcessSpan::inputs`]. The manifest
/// is read by its documented form, not through the code that wrote it.
fn expect(
    manifests: &BTreeMap<String, String>,
    input: &Input,
    due: &mut BTreeMap<String, String>,
) -> Result<(), String> {
    let Input { name, digest, .. } = input;
    if input.tree != Some(true) {
        due.insert(name.clone(), digest.clone());
        return Ok(());
    }
    let none = || format!("was given a directory {digest}, of which no manifest is there");
    let manifest = manifests.get(digest).ok_or_else(none)?;
    due.insert(format!("{name}/"), String::new());
    for line in manifest.lines().skip(1) {
        let (path, word) = match line.split('\t').collect::<Vec<_>>()[..] {
            ["d", path] => (format!("{path}/"), String::new()),
            ["f", _, digest, path] => (path.to_owned(), digest.to_owned()),
            ["x", _, digest, path] => (path.to_owned(), format!("{digest} x")),
            ["l", target, path] => (path.to_owned(), format!("-> {target}")),
            _ => return Err(format!("was given a directory whose manifest says {line:?}")),
        };
        due.insert(format!("{name}/{path}"), word);
    }
    Ok(())
}
