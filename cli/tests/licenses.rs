//! Licenses: no more are held than there are, whoever waits is told for which, and what can
//! never be had is refused.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests stand outside the world they drive"
)]

mod support;

use serde_json::json;
use support::{Cluster, until_true};

fn cluster(name: &str) -> Cluster {
    let mut cluster = Cluster::with_config(name, "[licenses]\nmatlab = 2\n\"solver@campus\" = 1\n");
    cluster.add_node("n1", &["--cores", "8"]);
    cluster.until_ready(1);
    cluster
}

#[test]
fn no_more_are_held_than_there_are() {
    let mut cluster = cluster("licensed");
    let used = |cluster: &Cluster| cluster.call(&["licenses", "-o", "json"]).ok().json();
    let first = used(&cluster);
    assert_eq!(first[0], json!({ "name": "matlab", "total": 2, "used": 0 }), "{first}");
    assert_eq!(first[1]["name"], json!("solver@campus"));
    let long = ["--time", "1h", "--", "sleep", "600"];
    let one = cluster.submit(&[&["-L", "matlab"][..], &long].concat());
    // A gang holds what it asks for once.
    let gang = [&["--nodes", "1", "--tasks-per-node", "3", "--licenses", "matlab:1"][..], &long].concat();
    let gang = cluster.submit(&gang);
    until_true("both run", || cluster.state(&one) == "RUNNING" && cluster.state(&gang) == "RUNNING");
    assert_eq!(used(&cluster)[0]["used"], json!(2));
    let table = cluster.call(&["licenses"]).ok().stdout;
    assert!(table.lines().any(|line| line.split_whitespace().eq(["matlab", "2", "2", "0"])), "{table}");

    let waits = cluster.submit(&["--licenses", "matlab:1,solver@campus", "--", "true"]);
    until_true("it is told for which it waits", || {
        let why = cluster.call(&["why", &waits, "-o", "json"]).ok().json();
        let headline = "license matlab: 2 of 2 in use, 1 more needed";
        why["code"] == json!("waiting.licenses") && why["headline"] == json!(headline)
    });
    // Others do not wait for it.
    cluster.call(&["submit", "--wait", "--", "true"]).ok();
    // A server that is killed gives nothing away.
    cluster.server.kill();
    cluster.server.restart();
    until_true("it knows what is held", || used(&cluster)[0]["used"] == json!(2));
    assert_eq!(cluster.state(&waits), "PENDING");
    cluster.call(&["cancel", &one]).ok();
    cluster.call(&["wait", &waits]).ok();
    let show = cluster.call(&["show", &waits, "-o", "json"]).ok().json();
    assert_eq!(show["steps"][0]["licenses"], json!({ "matlab": 1, "solver@campus": 1 }));
    cluster.call(&["cancel", &gang]).ok();
    until_true("all are given back", || used(&cluster)[0]["used"] == json!(0));
}

#[test]
fn what_can_never_be_had_is_refused() {
    let cluster = cluster("unlicensed");
    let submit =
        |licenses: &str| cluster.call(&["submit", "--dry-run", "--licenses", licenses, "--", "true"]);
    submit("matlab:2").ok();
    submit("matlab:3").says(3, &["step[0].licenses.matlab = 3", "there are 2 of this license"]);
    submit("idl").says(3, &["step[0].licenses.idl = 1", "no such license", "matlab, solver@campus"]);
    submit("matlab:many").says(3, &["--licenses = matlab:many", "no count"]);
    submit("matlab:0").says(3, &["must be above 0"]);
    submit("mat lab:1").says(3, &["--licenses = mat lab", "is not a name"]);
    let job = cluster.dir.file("job.toml", "[[step]]\nrun = 'true'\nlicenses = { idl = 1 }\n");
    cluster.call(&["submit", &job]).says(3, &["step[0].licenses.idl = 1"]);
    let script = cluster.dir.file("job.sh", "#!/bin/sh\n#SBATCH -L matlab:1\ntrue\n");
    let told = cluster.call(&["sbatch", "--parsable", &script]).ok();
    assert_eq!(told.stderr, "");
}
