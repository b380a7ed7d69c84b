//! Nodes that are kept for a while: who may run there, what waits and is told why, and what
//! an operator is told who asks for what cannot be.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests stand outside the world they drive"
)]

mod support;

use serde_json::{Value, json};
use support::{Cluster, run, until_true};

#[test]
fn only_whom_it_is_for_runs_on_a_reserved_node() {
    let cluster = Cluster::new("reserved", 1, "2");
    cluster.call(&["tenants", "create", "lab"]).ok();
    let token = cluster.call(&["tokens", "create", "ci", "--role", "tenant", "--for", "lab"]).ok();
    let as_lab = |args: &[&str]| run(cluster.command(args).env("DRUMLINE_TOKEN", token.stdout.trim()));
    let reserve =
        ["reserve", "set", "demo", "--nodes", "n1", "--for", "1h", "--tenants", "lab", "--reason", "a demo"];
    let told = cluster.call(&reserve).ok().stdout;
    assert!(told.starts_with("demo keeps n1 from 20"), "{told}");
    let listed = cluster.call(&["reserve", "-o", "json"]).ok().json();
    let shown = &listed[0];
    assert_eq!((&shown["name"], &shown["nodes"]), (&json!("demo"), &json!(["n1"])), "{listed}");
    assert_eq!((&shown["tenants"], &shown["reason"]), (&json!(["lab"]), &json!("a demo")));
    assert_eq!(shown["until_ms"].as_u64().unwrap() - shown["from_ms"].as_u64().unwrap(), 3_600_000);

    let other = cluster.submit(&["--time", "10s", "--", "true"]);
    as_lab(&["submit", "--wait", "--", "true"]).ok();
    assert_eq!(cluster.state(&other), "PENDING");
    let why = cluster.call(&["why", &other, "-o", "json"]).ok().json();
    assert_eq!(why["code"], "waiting.capacity", "{why}");
    assert!(why.to_string().contains("reserved by an operator before it would have ended: n1"), "{why}");
    as_lab(&["reserve", "rm", "demo"]).says(3, &["role = tenant"]);
    assert_eq!(cluster.call(&["reserve", "rm", "demo"]).ok().stdout, "demo is over\n");
    cluster.call(&["wait", &other]).ok();
    assert_eq!(cluster.call(&["reserve", "ls", "-o", "json"]).ok().json(), json!([]));
}

#[test]
fn what_ends_before_it_runs_and_what_may_not_waits() {
    let cluster = Cluster::new("before", 2, "2");
    cluster.call(&["reserve", "set", "fans", "--pool", "default", "--from", "10m", "--for", "1h"]).ok();
    let short = cluster.submit(&["--time", "1m", "--", "true"]);
    let long = cluster.submit(&["--time", "20m", "--", "true"]);
    let untold = cluster.submit(&["--", "true"]);
    cluster.call(&["wait", &short]).ok();
    // It is known when they start: once that is over.
    let mut start = Value::Null;
    until_true("a start is planned", || {
        let why = cluster.call(&["why", &long, "-o", "json"]).ok().json();
        start = why["expected_start_ms"].clone();
        start.as_u64().is_some()
    });
    let listed = cluster.call(&["reserve", "-o", "json"]).ok().json();
    assert_eq!((&start, &listed[0]["nodes"]), (&listed[0]["until_ms"], &json!(["n1", "n2"])));
    assert_eq!((cluster.state(&long), cluster.state(&untold)), ("PENDING".into(), "PENDING".into()));
    // Changed, it is of one node.
    cluster.call(&["reserve", "set", "fans", "--nodes", "n2", "--from", "10m", "--for", "1h"]).ok();
    cluster.call(&["wait", &long, &untold]).ok();
    let listed = cluster.call(&["reserve", "-o", "json"]).ok().json();
    assert_eq!(listed[0]["nodes"], json!(["n2"]));
}

#[test]
fn what_cannot_be_is_refused_with_what_to_do() {
    let cluster = Cluster::new("unreserved", 1, "1");
    let set = |args: &[&str]| cluster.call(&[&["reserve", "set"], args].concat());
    set(&["fans", "--nodes", "n9", "--for", "1h"]).says(3, &["n9"]);
    set(&["fans", "--pool", "gpu", "--for", "1h"]).says(3, &["gpu"]);
    set(&["Fans!", "--nodes", "n1", "--for", "1h"]).says(3, &["reservation", "Fans!", "lower-case"]);
    set(&["fans", "--nodes", "n1", "--from", "2h", "--until", "1h"]).says(3, &["until_ms", "ends before"]);
    set(&["fans", "--nodes", "n1", "--until", "2020-01-01T00:00:00Z"]).says(3, &["until_ms"]);
    set(&["fans", "--nodes", "n1", "--for", "1h", "--tenants", "nobody"]).says(3, &["nobody"]);
    set(&["fans", "--nodes", "n1", "--for", "soon"]).says(2, &["for", "soon"]);
    set(&["fans", "--for", "1h"]).exit(2);
    set(&["fans", "--nodes", "n1"]).exit(2);
    cluster.call(&["reserve", "rm", "fans"]).says(3, &["fans"]);
    for number in 0..16 {
        set(&[&format!("r{number}"), "--nodes", "n1", "--for", "1h"]).ok();
    }
    set(&["r16", "--nodes", "n1", "--for", "1h"]).says(3, &["n1", "as many reservations"]);
    // One of them may change.
    set(&["r15", "--nodes", "n1", "--for", "2h"]).ok();
}
