//! The real binary: the two examples, a server that stays up, and bad input.
//!
//! What is checked is what people and scripts rely on: exit codes, what is on
//! which stream, the tree of outputs.
#![allow(
    clippy::disallowed_methods,
    reason = "these tests stand outside the world and start the binary itself"
)]

use std::{
    fs,
    io::{BufRead, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

const BINARY: &str = env!("CARGO_BIN_EXE_drumline");

/// A fresh directory for one test.
fn directory(name: &str) -> PathBuf {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).unwrap();
    dir
}

fn example(name: &str) -> String {
    format!("{}/../examples/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// Without the variables of whoever runs the tests.
fn drumline(dir: &Path) -> Command {
    let mut command = Command::new(BINARY);
    command.current_dir(dir).stdin(Stdio::null());
    for name in ["DRUMLINE_SERVER", "DRUMLINE_TOKEN", "DRUMLINE_TENANT", "DRUMLINE_DATA", "DRUMLINE_LISTEN"] {
        command.env_remove(name);
    }
    command
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or(-1)
}
fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}
fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// `drumline up` with its clients; ended by TERM at the latest when dropped.
struct Up {
    dir: PathBuf,
    child: Child,
    server: String,
    token: String,
}

impl Up {
    fn start(name: &str) -> Self {
        let dir = directory(name);
        let mut child = drumline(&dir)
            .args(["up", "--data", "data", "--listen", "127.0.0.1:0", "--cores", "4"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut first = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
        assert!(first.starts_with("listening on "), "{first}");
        let text = fs::read_to_string(dir.join("data/client.env")).unwrap();
        let variable = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(&format!("export {name}="))).unwrap();
            line.to_owned()
        };
        let (server, token) = (variable("DRUMLINE_SERVER"), variable("DRUMLINE_TOKEN"));
        Self { dir, child, server, token }
    }

    fn client(&self, line: &[&str]) -> Output {
        drumline(&self.dir)
            .args(line)
            .env("DRUMLINE_SERVER", &self.server)
            .env("DRUMLINE_TOKEN", &self.token)
            .output()
            .unwrap()
    }

    /// Runs a client that must do well, and gives its standard output.
    fn ok(&self, line: &[&str]) -> String {
        let output = self.client(line);
        assert_eq!(code(&output), 0, "{line:?}: {}", stderr(&output));
        stdout(&output)
    }

    fn json(&self, line: &[&str]) -> serde_json::Value {
        serde_json::from_str(&self.ok(line)).unwrap()
    }

    /// TERM, and its exit code.
    fn term(&mut self) -> i32 {
        Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        self.child.wait().unwrap().code().unwrap_or(-1)
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.term();
        }
    }
}

#[test]
fn the_word_count_runs_to_its_end() {
    let dir = directory("wordcount");
    let output = drumline(&dir).args(["run", &example("wordcount.toml")]).output().unwrap();
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let log = stdout(&output);
    assert!(log.contains("split | 16\n"), "{log}");
    assert!(log.contains("merge | 2704 words, 582 different ones"), "{log}");
    let node_lists = log.lines().filter(|line| line.starts_with("recite[")).count();
    assert_eq!(node_lists, 4, "{log}");
    // Piped: no progress line, but each change of state.
    let notes = stderr(&output);
    assert!(!notes.contains('\x1b'), "{notes}");
    assert!(notes.contains("default-1 RUNNING -> COMPLETED"), "{notes}");
    let total = fs::read_to_string(dir.join("outputs/merge/total")).unwrap();
    let words: u64 = total.lines().map(|line| line.split(' ').next().unwrap().parse::<u64>().unwrap()).sum();
    assert_eq!(words, 2704);
    for index in 0..16 {
        assert!(dir.join(format!("outputs/count/{index}/words")).is_file());
    }
    for rank in 0..4 {
        let line = fs::read_to_string(dir.join(format!("outputs/recite/{rank}/line"))).unwrap();
        assert!(line.starts_with(&format!("rank {rank} of 4 ")), "{line}");
    }
}

#[test]
fn the_failing_example_fails_with_its_code_and_reason() {
    let dir = directory("failing");
    let output = drumline(&dir).args(["run", &example("failing.toml")]).output().unwrap();
    assert_eq!(code(&output), 3, "{}", stderr(&output));
    let notes = stderr(&output);
    assert!(notes.contains("work[5] attempt 2 ended: exit code 3; it will be tried again\n"), "{notes}");
    assert!(notes.contains("\nwork[5] failed after 3 attempts: exit code 3"), "{notes}");
    assert!(!stdout(&output).contains("this never runs"));
    assert!(dir.join("outputs/work/4/result").is_file() && !dir.join("outputs/work/5").exists());
}

#[test]
fn bad_input_is_refused_in_one_line_before_anything_starts() {
    let dir = directory("bad");
    let refused = |name: &str, text: &str| {
        fs::write(dir.join(name), text).unwrap();
        let output = drumline(&dir).args(["run", name, "--data", "data"]).output().unwrap();
        assert_eq!(stderr(&output).lines().count(), 1, "{}", stderr(&output));
        assert!(!dir.join("data").exists());
        (code(&output), stderr(&output))
    };
    let (exit, line) = refused("syntax.toml", "name = \n");
    assert_eq!((exit, line.contains("line 1, column 8")), (3, true), "{line}");
    let (exit, line) = refused("key.toml", "[[step]]\nrnu = \"x\"\n");
    assert_eq!((exit, line.starts_with("error: rnu: line 2, column 1: unknown field")), (3, true), "{line}");
    let steps = "[[step]]\nname = \"a\"\nrun = \"x\"\nafter = [\"b\"]\n[[step]]\nname = \"b\"\nrun = \"x\"\nafter = [\"a\"]\n";
    let (exit, line) = refused("cycle.toml", steps);
    assert_eq!((exit, line.contains("a -> b -> a")), (3, true), "{line}");
    let (exit, line) =
        refused("input.toml", "[[input]]\nname = \"i\"\npath = \"none\"\n[[step]]\nrun = \"x\"\n");
    assert_eq!((exit, line.starts_with("error: input[0].path = ")), (2, true), "{line}");
    let output = drumline(&dir).args(["run", "none.toml"]).output().unwrap();
    assert_eq!((code(&output), stderr(&output).starts_with("error: job file = none.toml: ")), (2, true));
}

#[test]
fn a_request_that_no_node_could_hold_is_refused_at_once() {
    let dir = directory("absurd");
    fs::write(dir.join("job.toml"), "[[step]]\nrun = \"x\"\ncores = 4000\n").unwrap();
    let output = drumline(&dir).args(["run", "job.toml", "--agent-cores", "2"]).output().unwrap();
    assert_eq!(code(&output), 3, "{}", stderr(&output));
    assert!(stderr(&output).starts_with("error: step[0].cores = 4000: "), "{}", stderr(&output));
}

#[test]
fn a_server_out_of_reach_or_unnamed_has_codes_of_its_own() {
    let dir = directory("unreachable");
    let output = drumline(&dir).args(["--server", "127.0.0.1:1", "--token", "dl_x", "ls"]).output().unwrap();
    assert_eq!((code(&output), stderr(&output).starts_with("error: server = 127.0.0.1:1: ")), (4, true));
    let output = drumline(&dir).args(["ls"]).output().unwrap();
    assert_eq!((code(&output), stderr(&output).starts_with("error: server: no server is named")), (2, true));
    let output = drumline(&dir).args(["ls", "--nonsense"]).output().unwrap();
    assert_eq!(code(&output), 2);
}

#[test]
fn jobs_are_submitted_watched_and_cancelled_from_another_terminal() {
    let mut up = Up::start("up");
    let submitted =
        up.json(&["submit", "--array", "1-20%5", "-o", "json", "--", "sh", "-c", "echo $DRUMLINE_TASK"]);
    assert_eq!(submitted, serde_json::json!({ "id": "default-1" }));
    up.ok(&["wait", "default-1"]);
    let mut lines: Vec<String> = up.ok(&["logs", "-f", "1"]).lines().map(str::to_owned).collect();
    lines.sort();
    let mut expected: Vec<String> = (1..=20).map(|index| format!("main[{index}] | {index}")).collect();
    expected.sort();
    assert_eq!(lines, expected);
    assert_eq!(up.ok(&["logs", "1", "--step", "main", "--task", "7", "--stream", "stdout"]), "7\n");

    let jobs = up.json(&["ls", "-o", "json"]);
    assert_eq!(
        (&jobs[0]["id"], &jobs[0]["state"], &jobs[0]["completed"]),
        (&"default-1".into(), &"COMPLETED".into(), &20.into())
    );
    assert_eq!(up.json(&["show", "1", "-o", "json"])["steps"][0]["tasks"], 20);
    assert_eq!(up.json(&["show", "1", "--tasks", "main", "-o", "json"]).as_array().unwrap().len(), 20);
    assert_eq!(up.json(&["why", "1", "-o", "json"])["code"], "ended");
    assert_eq!(up.ok(&["nodes", "-o", "name"]), "local\n");
    assert_eq!(up.json(&["pools", "-o", "json"])[0]["name"], "default");
    let history = up.ok(&["events", "1", "-o", "json"]);
    let last: serde_json::Value = serde_json::from_str(history.lines().last().unwrap()).unwrap();
    assert_eq!((&last["job"], &last["to"]), (&"default-1".into(), &"COMPLETED".into()));

    let failed = up.client(&["submit", "--wait", "--retries", "0", "--", "sh", "-c", "exit 7"]);
    assert_eq!(code(&failed), 7, "{}", stderr(&failed));
    let killed = up.client(&["submit", "--wait", "--retries", "0", "--", "sh", "-c", "kill -9 $$"]);
    assert_eq!(code(&killed), 137, "{}", stderr(&killed));

    let mut file = fs::File::create(up.dir.join("in.txt")).unwrap();
    file.write_all(b"hello\n").unwrap();
    let followed = up.ok(&[
        "submit",
        "--follow",
        "--input",
        "a=in.txt",
        "--output",
        "*.up",
        "--",
        "sh",
        "-c",
        "tr a-z A-Z < inputs/a | tee b.up",
    ]);
    assert_eq!(followed, "submitted default-4 (1 task)\nmain | HELLO\n");
    up.ok(&["outputs", "4", "get", "got"]);
    assert_eq!(fs::read_to_string(up.dir.join("got/main/b.up")).unwrap(), "HELLO\n");

    assert_eq!(up.ok(&["submit", "-o", "name", "--idempotency-key", "k", "--", "true"]), "default-5\n");
    assert_eq!(up.ok(&["submit", "-o", "name", "--idempotency-key", "k", "--", "true"]), "default-5\n");
    let clash = up.client(&["submit", "--idempotency-key", "k", "--", "false"]);
    assert_eq!(code(&clash), 3, "{}", stderr(&clash));

    let absurd = up.client(&["submit", "--cores", "4000", "--", "true"]);
    assert_eq!(code(&absurd), 3, "{}", stderr(&absurd));
    up.ok(&["submit", "--", "sleep", "1000"]);
    up.ok(&["cancel", "6"]);
    assert_ne!(code(&up.client(&["wait", "6"])), 0);
    let after = up.client(&["submit", "--after", "ok:6", "--wait", "--", "true"]);
    assert_ne!(code(&after), 0);
    assert_eq!(up.term(), 0);
}

#[test]
fn tokens_tenants_and_nodes_are_an_operators() {
    let up = Up::start("operate");
    assert_eq!(up.ok(&["tenants", "create", "lab", "--cores", "2", "--when-full", "queue"]), "lab\n");
    assert_eq!(up.ok(&["tenants", "-o", "name"]), "default\nlab\n");
    let token = up.ok(&["tokens", "create", "ci", "--role", "tenant", "--for", "lab"]);
    let as_lab = |line: &[&str]| up.client(&[&["--token", token.trim()], line].concat());
    assert_eq!(stdout(&as_lab(&["submit", "-o", "name", "--", "true"])), "lab-1\n");
    assert_eq!(code(&as_lab(&["show", "default-1"])), 3);
    assert_eq!(code(&as_lab(&["node", "drain", "local"])), 3);
    assert_eq!(code(&as_lab(&["wait", "1"])), 0);
    up.ok(&["node", "drain", "local", "--reason", "fan"]);
    assert_eq!(up.json(&["nodes", "-o", "json"])[0]["state"], "DRAINED");
    up.ok(&["node", "resume", "local"]);
    assert_eq!(up.json(&["nodes", "-o", "json"])[0]["state"], "READY");
    let unknown = up.client(&["--token", "dl_00000000000000000000000000000000", "ls"]);
    assert_eq!((code(&unknown), stderr(&unknown).starts_with("error: token: ")), (3, true));
    let second =
        drumline(&up.dir).args(["up", "--data", "data", "--listen", "127.0.0.1:0"]).output().unwrap();
    assert_eq!(code(&second), 1);
    assert!(stderr(&second).starts_with("error: data = "), "{}", stderr(&second));
    let port = up.server.rsplit(':').next().unwrap().to_owned();
    let taken = drumline(&up.dir)
        .args(["server", "--data", "other", "--listen", &format!("127.0.0.1:{port}")])
        .output()
        .unwrap();
    assert_eq!(code(&taken), 1);
    assert!(stderr(&taken).contains(&format!("listen = 127.0.0.1:{port}: is in use")), "{}", stderr(&taken));
}

#[test]
fn completions_and_man_pages_come_from_the_definition() {
    let dir = directory("pages");
    let script = drumline(&dir).args(["completions", "bash"]).output().unwrap();
    assert!(stdout(&script).contains("--idempotency-key"));
    let written = drumline(&dir).args(["man", "--dir", "man"]).output().unwrap();
    assert_eq!(code(&written), 0, "{}", stderr(&written));
    for page in ["drumline.1", "drumline-submit.1", "drumline-node-drain.1"] {
        assert!(fs::read_to_string(dir.join("man").join(page)).unwrap().contains(".SH NAME"), "{page}");
    }
}
