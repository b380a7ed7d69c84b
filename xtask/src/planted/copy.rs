//! The scratch copy: the working tree's tracked files, changed.
//!
//! What is the same as before keeps its time, so that only what changed is built
//! again.
#![allow(clippy::disallowed_methods, reason = "a build tool copies sources on the builder's machine")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Brings `place/tree` to where it should be, by way of `place/next`, where `change`
/// is done to the files.
pub fn update(
    root: &Path,
    place: &Path,
    change: impl FnOnce(&Path) -> Result<(), String>,
) -> Result<(), String> {
    let (next, tree) = (place.join("next"), place.join("tree"));
    if next.exists() {
        fs::remove_dir_all(&next).map_err(|error| told(&next, &error))?;
    }
    let files = tracked(root)?;
    for file in &files {
        let to = next.join(file);
        make_parent(&to)?;
        fs::copy(root.join(file), &to).map_err(|error| told(file, &error))?;
    }
    change(&next)?;
    let now = all_below(&next)?;
    for file in &now {
        let (from, to) = (next.join(file), tree.join(file));
        let new = fs::read(&from).map_err(|error| told(&from, &error))?;
        if fs::read(&to).is_ok_and(|old| old == new) {
            continue;
        }
        make_parent(&to)?;
        fs::write(&to, new).map_err(|error| told(&to, &error))?;
    }
    let kept: BTreeSet<&PathBuf> = now.iter().collect();
    for file in all_below(&tree)?.iter().filter(|file| !kept.contains(file)) {
        fs::remove_file(tree.join(file)).map_err(|error| told(file, &error))?;
    }
    fs::remove_dir_all(&next).map_err(|error| told(&next, &error))
}

/// What git knows of and is there.
fn tracked(root: &Path) -> Result<Vec<PathBuf>, String> {
    let listed = Command::new("git")
        .current_dir(root)
        .args(["ls-files", "-z"])
        .output()
        .map_err(|error| format!("git could not be started: {error}"))?;
    if !listed.status.success() {
        return Err("git does not list the sources; is this a clone?".to_owned());
    }
    let names = String::from_utf8(listed.stdout).map_err(|_| "a file's name is no text".to_owned())?;
    let files = names.split('\0').filter(|name| !name.is_empty()).map(PathBuf::from);
    Ok(files.filter(|file| root.join(file).is_file()).collect())
}

/// Applies a patch. The copy lies within a repository that must not be taken for
/// its own.
pub fn apply(next: &Path, patch: &Path) -> Result<(), String> {
    let applied = Command::new("git")
        .current_dir(next)
        .env("GIT_CEILING_DIRECTORIES", next.parent().unwrap_or(next))
        .arg("apply")
        .arg(patch)
        .output()
        .map_err(|error| format!("git could not be started: {error}"))?;
    if applied.status.success() {
        return Ok(());
    }
    let why = String::from_utf8_lossy(&applied.stderr).trim().to_owned();
    Err(format!("{} does not apply: write it anew for the code of today\n{why}", patch.display()))
}

/// Builds the simulator of the scratch copy. Without link-time optimisation: a
/// build must not cost more than the search. A fast build compiles again only what
/// changed, piece by piece; what it makes runs a little slower.
#[allow(clippy::disallowed_methods, reason = "a build tool runs on the builder's machine, outside the world")]
pub fn simulator(place: &Path, fast: bool, rustflags: &str) -> Result<PathBuf, String> {
    println!("== its simulator");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let (target, profile) = if fast {
        // All else as the profile has it: what others built like this can be used.
        (place.join("fast"), ["profile.release.incremental=true", "profile.release.debug=false"])
    } else {
        (place.join("build"), ["profile.release.lto=false", "profile.release.debug=0"])
    };
    let tree = place.join("tree");
    let done = Command::new(cargo)
        .current_dir(&tree)
        .args(["build", "--quiet", "--release", "--package", "sim", "--target-dir"])
        .arg(&target)
        .args(["--config", &format!("build.rustflags=[{rustflags}]")])
        .args(["--config", "profile.release.overflow-checks=true"])
        .args(["--config", profile[0], "--config", profile[1]])
        .status()
        .map_err(|error| format!("cargo could not be started: {error}"))?;
    if done.success() {
        Ok(target.join("release/sim"))
    } else {
        Err(format!("the simulator of the scratch copy in {} does not build", tree.display()))
    }
}

/// Files below a directory, relative to it; none where it is not there.
fn all_below(directory: &Path) -> Result<Vec<PathBuf>, String> {
    let (mut files, mut open) = (Vec::new(), vec![PathBuf::new()]);
    while let Some(inner) = open.pop() {
        let Ok(entries) = fs::read_dir(directory.join(&inner)) else { continue };
        for entry in entries {
            let entry = entry.map_err(|error| told(directory, &error))?;
            let name = inner.join(entry.file_name());
            if entry.path().is_dir() {
                open.push(name);
            } else {
                files.push(name);
            }
        }
    }
    Ok(files)
}

fn make_parent(path: &Path) -> Result<(), String> {
    let parent = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(|error| told(parent, &error))
}

fn told(path: &Path, error: &std::io::Error) -> String {
    format!("{}: {error}", path.display())
}
