//! What ended jobs gave goes when its time is over, and who asks for it is told so.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests stand outside the world they drive"
)]

mod support;

use support::{COLLECTING, Cluster, digest, until_true};

fn shows(cluster: &Cluster, args: &[&str], words: &[&str]) {
    let shown = cluster.call(args).ok().stdout;
    assert!(words.iter().all(|word| shown.contains(word)), "{args:?}: {shown}");
}

fn until_expired(cluster: &Cluster, id: &str) {
    until_true("it has expired", || !cluster.show(id)["expired_ms"].is_null());
}

#[test]
fn outputs_and_logs_go_when_the_tenants_time_is_over() {
    let mut cluster = Cluster::with_config("expired", COLLECTING);
    cluster.add_node("n1", &["--cores", "2", "--memory", "1GiB"]);
    cluster.until_ready(1);
    let book = cluster.dir.file("book", "a book\n");
    let script =
        "echo told; cat inputs/book > out; echo more >> out; exit $(cat code 2> /dev/null || echo 0)";
    let args = |input: &str| {
        ["--input", input, "--output", "out", "--", "sh", "-c", script].map(str::to_owned).to_vec()
    };
    let submit = |args: &[String]| {
        let id = cluster.submit(&args.iter().map(String::as_str).collect::<Vec<_>>());
        cluster.until_state(&id, "COMPLETED");
        id
    };
    let id = submit(&args(&format!("book={book}")));
    let (output, input) = (digest("a book\nmore\n"), digest("a book\n"));
    shows(&cluster, &["logs", &id], &["told"]);
    assert!(cluster.has_object(&output) && cluster.has_object(&input));
    assert_eq!((cluster.tenant()["retention_ms"].as_u64(), cluster.stored() > 0), (None, true));
    let log = cluster.server.data.join(format!("logs/default/{:016x}.log", 1));
    assert!(log.exists());

    // It ended before; from now on its time counts.
    cluster.call(&["quota", "set", "default", "--retention", "1s"]).ok();
    assert_eq!(cluster.tenant()["retention_ms"], 1_000);
    shows(&cluster, &["quota", "show", "default"], &["retention", "1s"]);
    until_expired(&cluster, &id);
    until_true("the output is gone", || !cluster.has_object(&output));
    until_true("the input is gone", || !cluster.has_object(&input));
    until_true("its log is gone", || !log.exists());
    until_true("nobody pays for it", || cluster.stored() == 0);

    shows(&cluster, &["show", &id], &["expired", "kept for 1s"]);
    shows(&cluster, &["ls", "-o", "wide"], &["EXPIRED", "ago"]);
    let words = ["job = default-1", "expired at", "kept for 1s after its end"];
    cluster.call(&["outputs", &id]).says(3, &words);
    cluster.call(&["logs", &id]).says(3, &words);
    cluster.call(&["retry", &id]).says(3, &words);
    cluster.call(&["retry", &id, "--from-step", "main"]).says(3, &words);
    let bearer = format!("Bearer {}", cluster.server.token);
    for path in ["logs", "outputs", "outputs/main/out"] {
        let head = [("authorization", bearer.as_str())];
        let (status, body) = cluster.server.http("GET", &format!("/v1/jobs/{id}/{path}"), &head, "");
        assert_eq!((status, body.contains("outputs.expired")), (410, true), "{path}: {body}");
    }

    // What comes after it is not hurt, nor is the same work done anew.
    let after = cluster.submit(&["--after", &format!("ok:{id}"), "--", "true"]);
    cluster.until_state(&after, "COMPLETED");
    cluster.call(&["quota", "set", "default", "--retention", "none"]).ok();
    let again = submit(&args(&format!("book={book}")));
    shows(&cluster, &["logs", &again], &["told"]);
    assert!(cluster.has_object(&output));
    cluster.server.kill();
    cluster.server.restart();
    cluster.call(&["outputs", &id]).says(3, &words);
    assert!(cluster.show(&again)["expired_ms"].is_null());
}

#[test]
fn a_job_may_ask_for_less_than_its_tenant_keeps() {
    let mut cluster = Cluster::with_config("expired-own", COLLECTING);
    cluster.add_node("n1", &["--cores", "2", "--memory", "1GiB"]);
    cluster.until_ready(1);
    let too_short = cluster.call(&["submit", "--keep", "10ms", "--", "true"]);
    too_short.says(3, &["keep = 10ms", "1s to 36600d"]);
    let file = "keep = \"1s\"\n[[step]]\nrun = \"echo kept > out\"\noutputs = [\"out\"]\n";
    let own = cluster.submit(&[&cluster.dir.file("own.toml", file)]);
    let other = cluster.submit(&["--output", "out", "--", "sh", "-c", "echo other > out"]);
    assert_eq!(cluster.show(&own)["keep"], "1s");
    until_expired(&cluster, &own);
    until_true("the output is gone", || !cluster.has_object(&digest("kept\n")));
    cluster.until_state(&other, "COMPLETED");
    assert!(cluster.has_object(&digest("other\n")));
    cluster.call(&["quota", "set", "default", "--retention", "1h"]).ok();
    let more = cluster.call(&["submit", "--keep", "2h", "--", "true"]);
    more.says(3, &["keep = 2h", "its tenant keeps outputs and logs for 1h"]);
    cluster.call(&["submit", "--keep", "30m", "--", "true"]).ok();
    assert!(cluster.show(&other)["expired_ms"].is_null());
}
