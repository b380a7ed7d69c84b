//! What operators do, and what tenants see of it: tenants, tokens, limits.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests stand outside the world they drive"
)]

mod support;

use serde_json::{Value, json};
use std::fs;
use support::{Cluster, Running, drumline, processes, run, until_true};

/// A tenant as `tenants` lists it.
fn tenant(cluster: &Cluster, name: &str) -> Value {
    let tenants = cluster.call(&["tenants", "-o", "json"]).ok().json();
    tenants.as_array().unwrap().iter().find(|tenant| tenant["name"] == name).unwrap().clone()
}

#[test]
fn tenants_see_their_own_and_keep_to_their_limits() {
    let cluster = Cluster::new("tenants", 1, "4");
    cluster.call(&["tenants", "create", "lab", "--cores", "2", "--when-full", "queue"]).ok();
    let token = |name: &str, args: &[&str]| {
        let done = cluster.call(&[&["tokens", "create", name, "-o", "json"], args].concat()).ok();
        done.json()["token"].as_str().unwrap().to_owned()
    };
    let lab = token("ci", &["--role", "tenant", "--for", "lab"]);
    let agent = token("rack", &["--role", "agent"]);
    let as_lab = |args: &[&str]| run(cluster.command(args).env("DRUMLINE_TOKEN", &lab));
    let own = cluster.submit(&["--name", "secret", "--", "true"]);
    let done = as_lab(&["submit", "--wait", "-o", "json", "--", "true"]).ok();
    assert_eq!(done.json()["id"], "lab-1");
    assert_eq!(as_lab(&["ls", "-o", "name"]).ok().stdout, "lab-1\n");
    as_lab(&["show", &own]).exit(3);
    as_lab(&["cancel", &own]).exit(3);
    as_lab(&["logs", &own]).exit(3);
    as_lab(&["node", "drain", "n1"]).exit(3);
    as_lab(&["tenants", "create", "mine"]).exit(3);
    as_lab(&["tokens", "create", "more", "--role", "admin"]).exit(3);
    run(cluster.command(&["ls"]).env("DRUMLINE_TOKEN", &agent)).exit(3);
    // A bare number is a job of the token's own tenant.
    assert_eq!(as_lab(&["show", "1", "-o", "name"]).ok().stdout, "lab-1\n");
    assert_eq!(cluster.call(&["--tenant", "lab", "ls", "-o", "name"]).ok().stdout, "lab-1\n");
    let lab = tenant(&cluster, "lab");
    assert_eq!((&lab["quota"], &lab["when_full"]), (&json!({"cores": 2.0}), &json!("queue")));
    // An agent's token is enough for an agent.
    let mut other = drumline();
    other.args(["agent", "--node", "n2", "--cores", "1"]).arg("--data").arg(cluster.dir.join("n2"));
    other.args(["--server", &cluster.server.address, "--token", &agent]);
    let other = Running::start(&mut other);
    cluster.until_ready(2);
    let doomed = [other.pid(), processes::supervisor_of(&cluster.dir.join("n2")).unwrap()];
    processes::signal("KILL", &doomed);
}

#[test]
fn what_users_move_is_counted_and_ends_at_the_limit() {
    let cluster = Cluster::new("traffic", 2, "2");
    let (one, other) = ("x".repeat(60_000), "y".repeat(60_000));
    let (one, other) = (cluster.dir.file("one", &one), cluster.dir.file("other", &other));
    cluster.call(&["tenants", "create", "lab", "--ingress", "100KB", "--egress", "100KB"]).ok();
    let as_lab = |args: &[&str]| cluster.call(&[&["--tenant", "lab"], args].concat());
    let input = |path: &str| format!("data={path}");
    let copy = ["--output", "copy", "--wait", "-o", "json", "--", "cp", "inputs/data", "copy"];
    let submit = |path: &str| as_lab(&[&["submit", "--input", &input(path)], &copy[..]].concat());
    let id = submit(&one).ok().json()["id"].as_str().unwrap().to_owned();
    // Once more with the same bytes: nothing is sent.
    submit(&one).ok();
    let fetched = |name: &str| cluster.dir.join(name).display().to_string();
    as_lab(&["outputs", &id, "get", &fetched("first")]).ok();
    assert_eq!(fs::metadata(cluster.dir.join("first/main/copy")).unwrap().len(), 60_000);
    as_lab(&["outputs", &id, "get", &fetched("second")])
        .says(3, &["main/copy", "tenant lab has used", "egress this month", "raised"]);
    submit(&other).says(3, &["tenant lab has used", "ingress this month", "refused from 90 % on"]);
    // What nodes moved, inputs in and outputs out, counts for nobody.
    let counted = || {
        let lab = tenant(&cluster, "lab");
        (lab["ingress_bytes"].clone(), lab["egress_bytes"].clone())
    };
    until_true("all is booked", || counted() == (json!(60_000), json!(60_000)));
    // Raised, it goes on where it was.
    cluster.call(&["tenants", "create", "lab", "--ingress", "1MB", "--egress", "1MB"]).ok();
    as_lab(&["outputs", &id, "get", &fetched("second")]).ok();
    submit(&other).ok();
    until_true("all is booked", || counted() == (json!(120_000), json!(120_000)));
}
