//! Tells the simulator what it is built of: the commit and the toolchain. Both go
//! into trace files and into the line that reproduces a failure.
//!
//! Runs again only when a source of the simulator or git's own record of the commit
//! has changed. Without git, as from a tarball, the commit is `unknown`.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// What the simulator is built of, next to this crate.
const SOURCES: [&str; 10] = [
    "Cargo.lock",
    "Cargo.toml",
    "world",
    "proto",
    "store",
    "scheduler",
    "controller",
    "agent",
    "gateway",
    "sim/src",
];

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let root = here.parent().unwrap_or(&here);
    for source in SOURCES {
        println!("cargo:rerun-if-changed={}", root.join(source).display());
    }
    println!("cargo:rustc-env=DRUMLINE_COMMIT={}", commit(root).unwrap_or_else(|| "unknown".to_owned()));
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = output(root, &rustc, &["--version"]).unwrap_or_else(|| "unknown".to_owned());
    println!("cargo:rustc-env=DRUMLINE_TOOLCHAIN={version}");
}

/// The commit of a clone of its own; a copy that lies within another one's has none.
fn commit(root: &Path) -> Option<String> {
    let git = |words: &[&str]| output(root, OsStr::new("git"), words);
    let top = PathBuf::from(git(&["rev-parse", "--show-toplevel"])?);
    if top.canonicalize().ok()? != root.canonicalize().ok()? {
        return None;
    }
    // A file that is not there would have this run every time.
    let branch = git(&["symbolic-ref", "--quiet", "HEAD"]).unwrap_or_default();
    for name in ["HEAD", "logs/HEAD", "packed-refs", &branch] {
        let path = git(&["rev-parse", "--git-path", name]).map(|path| root.join(path));
        if let Some(path) = path.filter(|path| !name.is_empty() && path.is_file()) {
            println!("cargo:rerun-if-changed={}", path.display());
        }
    }
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    let mut status = vec!["status", "--porcelain", "--"];
    status.extend(SOURCES);
    let changes = if git(&status)?.is_empty() { "" } else { "+changes" };
    Some(format!("{commit}{changes}"))
}

/// What a program says, where it is there and ends well.
#[allow(
    clippy::disallowed_methods,
    reason = "a build script runs on the builder's machine, outside the world"
)]
fn output(root: &Path, program: &OsStr, words: &[&str]) -> Option<String> {
    let done = std::process::Command::new(program).args(words).current_dir(root).output().ok()?;
    done.status.success().then(|| String::from_utf8_lossy(&done.stdout).trim().to_owned())
}
