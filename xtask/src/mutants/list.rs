//! What could be changed: the list that cargo-mutants makes of the cores.

use serde_json::Value;
use std::path::Path;
use std::process::Command;

/// One change. Places count from 1, columns in characters.
#[derive(Clone, Debug, PartialEq)]
pub struct Mutant {
    /// From 1, in the order of the list: what `DRUMLINE_MUTANT` says.
    pub number: u32,
    pub package: String,
    /// Within the workspace.
    pub file: String,
    /// `controller/src/core/mod.rs:221:36: replace && with || in Core::step`
    pub name: String,
    pub genre: String,
    pub line: usize,
    pub column: usize,
    pub replacement: String,
}

/// All mutants of the cores. What a core checks of itself is left out: it is no less
/// right with a check less.
#[allow(clippy::disallowed_methods, reason = "a build tool runs on the builder's machine, outside the world")]
pub fn all(root: &Path) -> Result<Vec<Mutant>, String> {
    let listed = Command::new("cargo")
        .current_dir(root)
        .args(["mutants", "--list", "--json", "--package", "scheduler", "--package", "controller"])
        .args(["--file", "scheduler/src/core/*.rs", "--file", "controller/src/core/*.rs"])
        .args(["--exclude", "**/check*.rs"])
        .output()
        .map_err(|error| format!("cargo could not be started: {error}"))?;
    if !listed.status.success() {
        let why = String::from_utf8_lossy(&listed.stderr).trim().to_owned();
        return Err(format!(
            "cargo-mutants lists no mutants; is it here? cargo install cargo-mutants --locked\n{why}"
        ));
    }
    parsed(&listed.stdout)
}

fn parsed(json: &[u8]) -> Result<Vec<Mutant>, String> {
    let list: Vec<Value> =
        serde_json::from_slice(json).map_err(|error| format!("the list of cargo-mutants: {error}"))?;
    let one = |(at, value): (usize, &Value)| {
        let text = |field: &str| value[field].as_str().map(str::to_owned);
        let start = |field: &str| Some(value["span"]["start"][field].as_u64()? as usize);
        Some(Mutant {
            number: at as u32 + 1,
            package: text("package")?,
            file: text("file")?,
            name: text("name")?,
            genre: text("genre")?,
            line: start("line")?,
            column: start("column")?,
            replacement: text("replacement")?,
        })
    };
    let mutants: Option<Vec<Mutant>> = list.iter().enumerate().map(one).collect();
    mutants.ok_or_else(|| "the list of cargo-mutants has another shape than is known here".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_read_as_cargo_mutants_writes_it() {
        let json = r#"[{"diff": "", "file": "a/src/core/b.rs", "function": null, "genre": "BinaryOperator",
            "name": "a/src/core/b.rs:3:7: replace < with == in f", "package": "a", "replacement": "==",
            "span": {"end": {"column": 8, "line": 3}, "start": {"column": 7, "line": 3}}}]"#;
        let mutants = parsed(json.as_bytes()).unwrap();
        assert_eq!((mutants[0].number, mutants[0].line, mutants[0].column), (1, 3, 7));
        assert_eq!(mutants[0].replacement, "==");
        assert!(parsed(b"[{}]").is_err());
        assert!(parsed(b"").is_err());
    }
}
