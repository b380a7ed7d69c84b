//! What fuzzing found worth keeping, on every toolchain.

use fuzz::{TARGETS, Target};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Files of one target, and bytes of one file: the corpus stays small.
const FILES_MAX: usize = 64;
const BYTES_MAX: u64 = 16 << 10;

#[allow(clippy::disallowed_methods, reason = "a test reads its inputs from the machine's own disk")]
fn files(of: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(of).unwrap_or_else(|error| panic!("{}: {error}", of.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

#[allow(clippy::disallowed_methods, reason = "a test reads its inputs from the machine's own disk")]
fn replay(name: &str, target: Target) {
    let paths = files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name));
    assert!(!paths.is_empty() && paths.len() <= FILES_MAX, "{name} has {} files", paths.len());
    for path in paths {
        let bytes = std::fs::read(&path).unwrap();
        assert!(bytes.len() as u64 <= BYTES_MAX, "{} is too large to be kept", path.display());
        println!("{}", path.display());
        target(&bytes);
    }
}

macro_rules! replayed {
    ($($target:ident)*) => {
        $(#[test] fn $target() { replay(stringify!($target), fuzz::$target); })*
        const REPLAYED: &[&str] = &[$(stringify!($target)),*];
    };
}
replayed!(job_file job_spec rest_body rest_request sbatch grammars rows log_frames store_rows scheduler_core controller_core agent_core agent_lease);

/// A target is listed, has a binary and a corpus, and is replayed.
#[test]
fn every_target_is_whole() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let stems = |of: &str| -> BTreeSet<String> {
        let stem = |path: &PathBuf| path.file_stem().unwrap().to_string_lossy().into_owned();
        files(&root.join(of)).iter().map(stem).collect()
    };
    let listed: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let replayed: BTreeSet<String> = REPLAYED.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(listed, replayed);
    assert_eq!(listed, stems("corpus"));
    assert_eq!(listed, stems("fuzz_targets"));
}
