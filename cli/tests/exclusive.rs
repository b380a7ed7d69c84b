//! Steps that take whole nodes: what waits for them and is told why, what they wait for, what
//! they hold, and who may not have them.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests stand outside the world they drive"
)]

mod support;

use serde_json::json;
use support::{Cluster, until_true};

#[test]
fn nothing_runs_beside_a_step_that_takes_whole_nodes() {
    let cluster = Cluster::new("exclusive", 1, "4");
    let small = cluster.submit(&["--cores", "1", "--time", "1h", "--", "sleep", "600"]);
    until_true("it runs", || cluster.state(&small) == "RUNNING");
    let alone = cluster.submit(&["--cores", "1", "--exclusive", "--time", "1h", "--", "sleep", "600"]);
    until_true("it waits for an idle node", || {
        let why = cluster.call(&["why", &alone, "-o", "json"]).ok().json();
        why.to_string().contains("1 node with other work there, and it asks for whole nodes: n1")
    });
    cluster.call(&["cancel", &small]).ok();
    until_true("it runs", || cluster.state(&alone) == "RUNNING");
    // All of the node is held, though it asked for one core.
    let nodes = cluster.call(&["nodes", "-o", "json"]).ok().json();
    assert_eq!(nodes[0]["used"]["cores"], json!(4.0), "{nodes}");
    let beside = cluster.submit(&["--cores", "1", "--time", "10s", "--", "true"]);
    until_true("nothing comes beside it", || {
        let why = cluster.call(&["why", &beside, "-o", "json"]).ok().json();
        why.to_string().contains("1 node taken whole by a step that runs there alone: n1")
    });
    assert_eq!(cluster.state(&beside), "PENDING");
    let show = cluster.call(&["show", &alone, "-o", "json"]).ok().json();
    assert_eq!(show["steps"][0]["exclusive"], json!(true), "{show}");
    let pools = cluster.call(&["pools", "--exclusive", "-o", "json"]).ok().json();
    assert!(pools[0]["eta"]["earliest_start_ms"].is_u64(), "when its time is over: {pools}");
    cluster.call(&["cancel", &alone]).ok();
    cluster.call(&["wait", &beside]).ok();
}

#[test]
fn the_tasks_of_an_array_are_alone_too_and_a_script_can_ask_for_it() {
    let cluster = Cluster::new("alone", 1, "4");
    let here = "mkdir $0/here && sleep 0.1 && rmdir $0/here";
    let place = cluster.dir.join("place");
    std::fs::create_dir(&place).unwrap();
    let place = place.to_str().unwrap();
    // The directory can be made by one at a time.
    let array = ["submit", "--wait", "--array", "1-4", "--exclusive", "--retries", "0"];
    cluster.call(&[&array[..], &["--", "sh", "-c", here, place]].concat()).ok();
    let script = cluster.dir.file("job.sh", "#!/bin/sh\n#SBATCH --exclusive\ntrue\n");
    let told = cluster.call(&["sbatch", "--parsable", &script]).ok().stdout;
    let id = format!("default-{}", told.trim());
    let show = cluster.call(&["show", &id, "-o", "json"]).ok().json();
    assert_eq!(show["steps"][0]["exclusive"], json!(true), "{show}");
}

#[test]
fn whole_nodes_that_a_tenant_may_never_have_are_refused() {
    let cluster = Cluster::new("whole", 1, "4");
    cluster.call(&["quota", "set", "default", "--cores", "3"]).ok();
    let refused = ["submit", "--dry-run", "--exclusive", "--", "true"];
    until_true("the limit counts", || !cluster.call(&refused).stderr.is_empty());
    cluster.call(&refused).says(3, &["step[0].cores = 4", "the job needs 4 cores at once", "may have 3"]);
    cluster.call(&["submit", "--dry-run", "--cores", "1", "--", "true"]).ok();
}
