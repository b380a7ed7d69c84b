//! What a job waited for is told later too.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests stand outside the world they drive"
)]

mod support;

use serde_json::Value;
use std::time::{SystemTime, UNIX_EPOCH};
use support::{Cluster, until_true};

#[test]
fn what_a_job_waited_for_is_told_after_it_ran() {
    let cluster = Cluster::new("why-at", 1, "1");
    let go = cluster.dir.join("go");
    let holds = format!("until test -e {}; do sleep 0.05; done", go.display());
    let first = cluster.submit(&["--", "sh", "-c", &holds]);
    cluster.until_state(&first, "RUNNING");
    let second = cluster.submit(&["--", "true"]);
    let why = |at: &str| cluster.call(&["why", &second, "--at", at, "-o", "json"]).ok().json();
    let job = || -> Value { cluster.call(&["show", &second, "-o", "json"]).ok().json() };
    let submitted_ms = job()["submitted_ms"].as_u64().unwrap();
    let now = cluster.call(&["why", &second, "-o", "json"]).ok().json();
    until_true("it is noted", || why("1ms")["code"] == now["code"]);
    let noted_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    std::fs::write(go, "").unwrap();
    cluster.until_state(&second, "COMPLETED");

    let then = why(&noted_ms.to_string());
    assert_eq!(then["code"], now["code"], "{then}");
    let details = then["details"].as_array().unwrap();
    assert!(details.last().unwrap().as_str().unwrap().starts_with("seen from "), "{then}");
    assert_eq!(why("1ms")["code"], "ended");
    assert_eq!(why(&(submitted_ms - 1).to_string())["code"], "before");
    let bearer = format!("Bearer {}", cluster.server.token);
    let path = format!("/v1/jobs/{second}/why?at={noted_ms}");
    let (status, body) = cluster.server.http("GET", &path, &[("authorization", &bearer)], "");
    assert_eq!((status, serde_json::from_str::<Value>(&body).unwrap()), (200, then));
    let ahead = (submitted_ms + 3_600_000).to_string();
    cluster.call(&["why", &second, "--at", &ahead]).says(3, &["at = ", "is still to come"]);
    cluster.call(&["why", &second, "--at", "soon"]).says(2, &["--at = soon"]);
}
