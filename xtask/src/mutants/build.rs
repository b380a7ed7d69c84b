//! The scratch copy with all mutants in it, and what is built of it.
#![allow(
    clippy::disallowed_methods,
    reason = "a build tool runs on the builder's machine, outside the world"
)]

use super::list::Mutant;
use super::weave::{self, Woven};
use crate::planted::copy;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The compiler tells errors in stages: names, then types, then borrows. More rounds
/// than these find nothing new.
const ROUNDS_MAX: u32 = 20;

/// What can be run.
pub struct Built {
    pub tests: Vec<Binary>,
    pub simulator: PathBuf,
    /// With these it does not compile.
    pub unviable: BTreeSet<u32>,
    /// These are not in it.
    pub not_woven: BTreeSet<u32>,
}

/// The tests of a package that stand in one file of tests, or in its library.
pub struct Binary {
    pub package: String,
    /// `controller lib`, `controller transcripts`
    pub name: String,
    pub path: PathBuf,
    /// Where cargo would run it.
    pub directory: PathBuf,
}

/// Builds with all mutants, leaves out those that do not compile, and so on until it
/// builds.
pub fn build(root: &Path, place: &Path, mutants: &[Mutant], fast: bool) -> Result<Built, String> {
    let memory = place.join("unviable");
    let state = state(root, mutants)?;
    let mut unviable = remembered(&memory, &state);
    for round in 1..=ROUNDS_MAX {
        println!("== the scratch copy and its tests, round {round}: {} mutants left out", unviable.len());
        let woven = weave_all(root, place, mutants, &unviable)?;
        let messages = cargo(place, &["test", "--no-run", "--lib", "--tests"], "tests", &[])?;
        let before = unviable.len();
        let mut unclear = None;
        for message in messages.iter().filter(|message| message["message"]["level"] == "error") {
            let blamed = blamed(&woven, &message["message"]);
            let has_place = message["message"]["spans"].as_array().is_some_and(|spans| !spans.is_empty());
            if blamed.is_empty() && has_place {
                unclear = Some(message["message"]["rendered"].as_str().unwrap_or_default().to_owned());
            }
            unviable.extend(blamed);
        }
        if unviable.len() > before {
            continue;
        }
        if let Some(error) = unclear {
            return Err(format!("the scratch copy does not build, and no mutant is to blame:\n{error}"));
        }
        let tests = binaries(place, &messages);
        if !messages.iter().any(|message| message["success"] == true) || tests.is_empty() {
            return Err("the tests of the scratch copy in target/mutants/tree do not build".to_owned());
        }
        let numbers: Vec<String> = unviable.iter().map(u32::to_string).collect();
        let text = format!("{state}\n{}\n", numbers.join("\n"));
        fs::write(&memory, text).map_err(|error| format!("{}: {error}", memory.display()))?;
        let simulator = copy::simulator(place, fast, "'--cfg','madsim','--cap-lints','allow'")?;
        let not_woven = woven.values().flat_map(|woven| &woven.left_out).copied().collect();
        return Ok(Built { tests, simulator, unviable, not_woven });
    }
    Err(format!("after {ROUNDS_MAX} rounds there are still mutants that do not compile"))
}

/// What the mutants are and what they change, in short.
fn state(root: &Path, mutants: &[Mutant]) -> Result<String, String> {
    let mut hasher = DefaultHasher::new();
    mutants.iter().for_each(|mutant| mutant.name.hash(&mut hasher));
    let files: BTreeSet<&str> = mutants.iter().map(|mutant| mutant.file.as_str()).collect();
    for file in files {
        fs::read(root.join(file)).map_err(|error| format!("{file}: {error}"))?.hash(&mut hasher);
    }
    Ok(format!("{:016x}", hasher.finish()))
}

/// Those that did not compile the last time, if nothing has changed since.
fn remembered(memory: &Path, state: &str) -> BTreeSet<u32> {
    let text = fs::read_to_string(memory).unwrap_or_default();
    let numbers = text.strip_prefix(state).unwrap_or_default();
    numbers.lines().filter_map(|line| line.parse().ok()).collect()
}

fn weave_all(
    root: &Path,
    place: &Path,
    mutants: &[Mutant],
    unviable: &BTreeSet<u32>,
) -> Result<BTreeMap<String, Woven>, String> {
    let mut files: BTreeMap<&str, Vec<&Mutant>> = BTreeMap::new();
    for mutant in mutants.iter().filter(|mutant| !unviable.contains(&mutant.number)) {
        files.entry(&mutant.file).or_default().push(mutant);
    }
    let mut all = BTreeMap::new();
    copy::update(root, place, |next| {
        for (file, mutants) in &files {
            let path = next.join(file);
            let told = |error: std::io::Error| format!("{file}: {error}");
            let text = fs::read_to_string(&path).map_err(told)?;
            let woven = weave::weave(&text, mutants).map_err(|error| format!("{file}: {error}"))?;
            fs::write(&path, &woven.text).map_err(told)?;
            all.insert((*file).to_owned(), woven);
        }
        let world = next.join("world/src/lib.rs");
        let told = |error: std::io::Error| format!("world: {error}");
        let text = fs::read_to_string(&world).map_err(told)?;
        fs::write(&world, text + "\nmod mutant;\npub use mutant::mutant;\n").map_err(told)?;
        fs::write(next.join("world/src/mutant.rs"), include_str!("switch.rs")).map_err(told)
    })?;
    Ok(all)
}

/// Whose fault an error is: those whose words it points at, or else those that stand
/// around the place.
fn blamed(woven: &BTreeMap<String, Woven>, message: &Value) -> BTreeSet<u32> {
    let spans: Vec<&Value> = message["spans"].as_array().into_iter().flatten().collect();
    let places = spans.iter().filter_map(|span| {
        let woven = woven.get(span["file_name"].as_str()?)?;
        Some((woven, span["byte_start"].as_u64()? as usize, span["byte_end"].as_u64()? as usize))
    });
    let places: Vec<(&Woven, usize, usize)> = places.collect();
    let mut to_blame = BTreeSet::new();
    for (woven, start, end) in &places {
        let pointed_at = woven.at.iter().filter(|(_, at)| at.start <= *start && *end <= at.end);
        to_blame.extend(pointed_at.map(|(mutant, _)| *mutant));
    }
    if to_blame.is_empty() {
        for (woven, start, end) in &places {
            let around = woven.around.iter().rfind(|(_, at)| at.start <= *start && *end <= at.end);
            to_blame.extend(around.into_iter().flat_map(|(mutants, _)| mutants));
        }
    }
    to_blame
}

/// What cargo says, a value for each message. Whether it built is in the last of them.
fn cargo(place: &Path, words: &[&str], target: &str, config: &[&str]) -> Result<Vec<Value>, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let done = Command::new(cargo)
        .current_dir(place.join("tree"))
        .args(words)
        .args(["--quiet", "--package", "scheduler", "--package", "controller", "--message-format", "json"])
        .args(["--config", "build.rustflags=['--cap-lints','allow']"])
        .args(["--config", "profile.dev.debug=false"])
        .args(config.iter().flat_map(|config| ["--config", config]))
        .arg("--target-dir")
        .arg(place.join(target))
        .stderr(Stdio::null())
        .output()
        .map_err(|error| format!("cargo could not be started: {error}"))?;
    let text = String::from_utf8_lossy(&done.stdout);
    Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}

fn binaries(place: &Path, messages: &[Value]) -> Vec<Binary> {
    let built = messages.iter().filter_map(|message| {
        let path = PathBuf::from(message["executable"].as_str()?);
        let target = &message["target"];
        let manifest = Path::new(message["manifest_path"].as_str()?);
        let directory = manifest.parent()?.to_owned();
        let package = directory.file_name()?.to_str()?.to_owned();
        let kind = if target["kind"][0] == "lib" { "lib" } else { target["name"].as_str()? };
        Some(Binary { name: format!("{package} {kind}"), package, path, directory })
    });
    let mut built: Vec<Binary> = built.filter(|binary| binary.path.starts_with(place)).collect();
    built.sort_by(|a, b| a.name.cmp(&b.name));
    built
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_the_fault_of_those_it_points_at() {
        let woven = Woven {
            text: String::new(),
            at: vec![(7, 11..30), (8, 30..50), (9, 70..80)],
            around: vec![(vec![7, 8], 10..60), (vec![9], 69..90)],
            left_out: Vec::new(),
        };
        let woven = BTreeMap::from([("a.rs".to_owned(), woven)]);
        let blamed = |start: u64, end: u64| {
            let span = serde_json::json!({"file_name": "a.rs", "byte_start": start, "byte_end": end});
            blamed(&woven, &serde_json::json!({ "spans": [span] })).into_iter().collect::<Vec<u32>>()
        };
        assert_eq!(blamed(12, 20), [7]);
        assert_eq!(blamed(52, 55), [7, 8], "what they stand before");
        assert_eq!(blamed(75, 76), [9]);
        assert!(blamed(0, 5).is_empty());
    }
}
