//! What tenants may use: the guard at each door, limits and budgets changed while
//! work is under way, jobs that wait for a limit.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests stand outside the world they drive"
)]

mod support;

use proto::problem::Problem;
use proto::v1::{SubmitRequest, drumline_client::DrumlineClient};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::time::Duration;
use support::{Cluster, Done, run, until, until_true};
use world::grpc::tonic::Request;

/// Within which what an operator changes must count.
const COUNTS_WITHIN: Duration = Duration::from_secs(5);

/// Looks until it is so, and fails where that takes longer than it may.
fn soon(what: &str, mut look: impl FnMut() -> bool) {
    until(COUNTS_WITHIN, what, || look().then_some(()));
}

/// A cluster with tenant `lab`, and a token of it.
fn with_lab(name: &str, cores: &str, limits: &[&str]) -> (Cluster, String) {
    let cluster = Cluster::new(name, 1, cores);
    cluster.call(&[&["tenants", "create", "lab"], limits].concat()).ok();
    let token = cluster.call(&["tokens", "create", "ci", "--role", "tenant", "--for", "lab"]).ok();
    let token = token.stdout.trim().to_owned();
    (cluster, token)
}

/// The code at the end of a refusal's line, and what stands before it.
#[track_caller]
fn refusal(done: &Done) -> (String, String) {
    assert_eq!(done.code, 3, "{done:#?}");
    let line = done.stderr.lines().find_map(|line| line.strip_prefix("error: ")).unwrap();
    let (told, code) = line.rsplit_once(" [").unwrap_or_else(|| panic!("no code: {line}"));
    (code.trim_end_matches(']').to_owned(), told.to_owned())
}

fn by_grpc(cluster: &Cluster, token: &str, job: &str) -> Problem {
    let spec = proto::jobfile::parse(job, Path::new("")).unwrap();
    let call = async {
        let channel = world::grpc::connect(&cluster.server.address, support::DEADLINE).await.unwrap();
        let mut request = Request::new(SubmitRequest { spec: Some(spec), ..SubmitRequest::default() });
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        DrumlineClient::new(channel).submit(request).await
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    Problem::from(runtime.block_on(call).unwrap_err())
}

/// Status and body of a POST.
fn by_rest(cluster: &Cluster, token: &str, job: &str) -> (u16, Value) {
    let body = toml::from_str::<Value>(job).unwrap().to_string();
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    let (status, body) = cluster.server.http("POST", "/v1/jobs", &headers, &body);
    (status, serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}")))
}

#[test]
fn the_guard_answers_alike_from_cli_grpc_and_rest() {
    let (cluster, lab) = with_lab("doors", "10", &[]);
    let step = |rest: &str| format!("[[step]]\nname = 'a'\nrun = 'true'\n{rest}\n");
    // One unit below the guard is let in, one at it is not.
    for (limit, below, at, dimension) in [
        (["--cores", "10"], step("cores = 8.999"), step("cores = 9"), "cores"),
        (["--memory", "1000MiB"], step("memory = '899MiB'"), step("memory = '900MiB'"), "memory"),
        (["--queued-tasks", "10"], step("array = '0-7'"), step("array = '0-8'"), "queued_tasks"),
        (
            ["--budget", "10"],
            format!("expected_runtime = '10s'\n{}", step("")),
            format!("expected_runtime = '11s'\n{}", step("")),
            "budget",
        ),
    ] {
        cluster.call(&["quota", "set", "lab", limit[0], limit[1], "--core-hour", "3600"]).ok();
        let file = cluster.dir.file("below.toml", &below);
        run(cluster.command(&["submit", &file, "--dry-run"]).env("DRUMLINE_TOKEN", &lab)).ok();
        let file = cluster.dir.file("at.toml", &at);
        let done = run(cluster.command(&["submit", &file]).env("DRUMLINE_TOKEN", &lab));
        let (code, line) = refusal(&done);
        let grpc = by_grpc(&cluster, &lab, &at);
        let (status, rest) = by_rest(&cluster, &lab, &at);
        let expected = if dimension == "budget" { "budget.exceeded" } else { "quota.exceeded" };
        assert_eq!(
            (code.as_str(), grpc.code.as_str(), rest["code"].as_str().unwrap(), status),
            (expected, expected, expected, 429),
            "{dimension}"
        );
        // The same words, and the same amounts where they are told apart.
        assert_eq!(
            (line.as_str(), grpc.to_string().as_str()),
            (rest["detail"].as_str().unwrap(), line.as_str())
        );
        let told = grpc.quota.unwrap();
        let amounts = json!([told.dimension, told.used, told.asked, told.limit, told.threshold]);
        assert_eq!(amounts[0], dimension);
        assert_eq!(
            amounts,
            json!([rest["dimension"], rest["used"], rest["asked"], rest["limit"], rest["threshold"]])
        );
        cluster.call(&["quota", "set", "lab", limit[0], "none"]).ok();
    }
    let none = run(cluster.command(&["ls", "-o", "name"]).env("DRUMLINE_TOKEN", &lab)).ok();
    assert_eq!(none.stdout, "", "nothing was half accepted");
}

#[test]
fn a_changed_limit_counts_within_five_seconds() {
    let (cluster, lab) = with_lab("changed", "4", &["--cores", "2", "--when-full", "queue"]);
    let as_lab = |args: &[&str]| run(cluster.command(args).env("DRUMLINE_TOKEN", &lab));
    let set = |args: &[&str]| cluster.call(&[&["quota", "set", "lab"], args].concat()).ok();
    let submit = |args: &[&str]| as_lab(&[&["submit", "-o", "json"], args].concat());
    let go = cluster.dir.join("go");
    let wait = format!("until test -e {}; do sleep 0.05; done", go.display());
    let running = |id: &str| {
        let job = as_lab(&["show", id, "-o", "json"]).ok().json();
        job["steps"][0]["active"].as_u64().unwrap()
    };

    // Four at once fit the node; two fit the limit, and the others wait for it.
    let array = submit(&["--array", "0-3", "--cores", "1", "--", "sh", "-c", &wait]).ok();
    assert_eq!(array.json()["waiting_for"], Value::Null);
    until_true("two run", || running("1") == 2);
    let more = submit(&["--cores", "1", "--", "true"]).ok().json();
    assert_eq!(more["waiting_for"], "cores: 2 in use, 1 more needed, 2 allowed");
    let why = as_lab(&["why", "2", "-o", "json"]).ok().json();
    assert_eq!(why["code"], "waiting.quota", "{why}");
    assert_eq!(running("1"), 2, "nothing runs above the limit");

    set(&["--cores", "4"]);
    soon("four run where four are allowed", || running("1") == 4);
    // Lowered, what runs goes on and nothing new begins.
    set(&["--cores", "1", "--when-full", "reject"]);
    soon("a job is refused", || {
        let done = submit(&["--dry-run", "--cores", "0.5", "--", "true"]);
        done.code == 3 && refusal(&done).0 == "quota.exceeded"
    });
    assert_eq!(running("1"), 4);
    fs::write(&go, "").unwrap();
    as_lab(&["wait", "1", "2"]).ok();

    // Money likewise: a second of a core costs one.
    set(&["--cores", "none", "--core-hour", "3600", "--budget", "20"]);
    let hour = ["--dry-run", "--time", "100s", "--", "true"];
    soon("it is past the budget", || {
        let done = submit(&hour);
        done.code == 3 && refusal(&done).0 == "budget.exceeded"
    });
    set(&["--budget", "1000"]);
    soon("it fits the budget", || submit(&hour).code == 0);
    set(&["--budget", "50"]);
    soon("it is past the budget again", || submit(&hour).code == 3);
}

#[test]
fn a_job_past_a_limit_waits_where_its_tenant_says_so() {
    let (cluster, lab) = with_lab("queue", "4", &["--cores", "2"]);
    let as_lab = |args: &[&str]| run(cluster.command(args).env("DRUMLINE_TOKEN", &lab));
    let go = cluster.dir.join("go");
    let wait = format!("until test -e {}; do sleep 0.05; done", go.display());
    as_lab(&["submit", "--cores", "1.5", "--", "sh", "-c", &wait]).ok();
    until_true("it runs", || cluster.state("lab-1") == "RUNNING");
    let next = ["submit", "--cores", "1.5", "-o", "json", "--", "true"];
    let (code, line) = refusal(&as_lab(&next));
    assert_eq!(code, "quota.exceeded");
    assert!(line.contains("uses 1.5 of 2 cores") && line.contains("wait for earlier work to end"), "{line}");

    cluster.call(&["tenants", "set", "lab", "--when-full", "queue"]).ok();
    let told = until(COUNTS_WITHIN, "it is taken in", || {
        let done = as_lab(&next);
        (done.code == 0).then(|| done.json())
    });
    assert_eq!(
        told,
        json!({ "id": "lab-2", "waiting_for": "cores: 1.5 in use, 1.5 more needed, 2 allowed" })
    );
    let why = as_lab(&["why", "2", "-o", "json"]).ok().json();
    assert!(why["code"] == "waiting.quota" && why["headline"].as_str().unwrap().contains("cores"), "{why}");
    // What waiting does not clear is refused even so, and so is what never fits.
    assert_eq!(refusal(&as_lab(&["submit", "--cores", "2.5", "--", "true"])).0, "quota.exceeded");
    cluster.call(&["quota", "set", "lab", "--queued-tasks", "3"]).ok();
    soon("the tasks are too many", || {
        let done = as_lab(&["submit", "--dry-run", "--cores", "1.5", "--", "true"]);
        done.code == 3 && refusal(&done).1.starts_with("queued_tasks = 1")
    });
    assert_eq!(cluster.state("lab-2"), "PENDING");
    fs::write(&go, "").unwrap();
    as_lab(&["wait", "1", "2"]).ok();
}
