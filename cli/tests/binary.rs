//! The binary without a server: what `run` refuses before anything starts, and
//! what needs no server at all.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests stand outside the world they drive"
)]

mod support;

use std::fs;
use support::{Dir, Done, drumline, run};

fn call(dir: &Dir, args: &[&str]) -> Done {
    run(drumline().args(args).current_dir(dir.path()))
}

#[test]
fn bad_input_is_refused_in_one_line_before_anything_starts() {
    let dir = Dir::new("bad");
    let refused = |text: &str, code: i32, words: &[&str]| {
        let file = dir.file("job.toml", text);
        call(&dir, &["run", &file, "--data", "data"]).says(code, words);
        assert!(!dir.join("data").exists());
    };
    refused("name = \n", 3, &["line 1, column 8"]);
    refused("[[step]]\nrnu = \"x\"\n", 3, &["rnu: line 2, column 1: unknown field"]);
    let step = |name: &str, after: &str| {
        format!("[[step]]\nname = \"{name}\"\nrun = \"x\"\nafter = [\"{after}\"]\n")
    };
    refused(&(step("a", "b") + &step("b", "a")), 3, &["a -> b -> a"]);
    let input = "[[input]]\nname = \"i\"\npath = \"none\"\n[[step]]\nrun = \"x\"\n";
    refused(input, 2, &["input[0].path = "]);
    call(&dir, &["run", "none.toml"]).says(2, &["job file = none.toml: "]);
}

#[test]
fn a_request_that_no_node_could_hold_is_refused_at_once() {
    let dir = Dir::new("absurd");
    let file = dir.file("job.toml", "[[step]]\nrun = \"x\"\ncores = 4000\n");
    call(&dir, &["run", &file, "--agent-cores", "2"]).says(3, &["step[0].cores = 4000: "]);
}

#[test]
fn a_server_out_of_reach_or_unnamed_has_codes_of_its_own() {
    let dir = Dir::new("unreachable");
    let call = |args: &[&str]| call(&dir, args);
    call(&["--server", "127.0.0.1:1", "--token", "dl_x", "ls"]).says(4, &["server = 127.0.0.1:1: "]);
    call(&["ls"]).says(2, &["server: no server is named"]);
    call(&["ls", "--nonsense"]).exit(2);
}

#[test]
fn completions_and_man_pages_come_from_the_definition() {
    let dir = Dir::new("pages");
    assert!(call(&dir, &["completions", "bash"]).ok().stdout.contains("--idempotency-key"));
    call(&dir, &["man", "--dir", "man"]).ok();
    for page in ["drumline.1", "drumline-submit.1", "drumline-node-drain.1"] {
        assert!(fs::read_to_string(dir.join("man").join(page)).unwrap().contains(".SH NAME"), "{page}");
    }
}
