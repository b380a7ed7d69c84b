//! What tenants may use: the guard at each door, limits and budgets changed while
//! work is under way, jobs that wait for a limit, and what a flood leaves to others.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests stand outside the world they drive"
)]

mod support;

use proto::problem::Problem;
use proto::v1::{CreateUploadRequest, SubmitRequest, drumline_client::DrumlineClient};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use support::{Cluster, DEADLINE, Done, Running, run, until, until_true};
use world::grpc::tonic::{Code, Request};

/// Within which what an operator changes must count.
const COUNTS_WITHIN: Duration = Duration::from_secs(5);
/// Within which whoever follows a log has a line of it.
const SEEN_WITHIN: Duration = Duration::from_secs(5);

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

/// What a door answered to one that asks too much.
#[derive(Debug, PartialEq)]
struct Told {
    code: String,
    detail: String,
    /// Dimension, used, asked, limit, threshold, and when it may fit.
    amounts: Value,
}

/// What is asked of a door.
#[derive(Clone, Copy, Debug)]
enum Ask<'a> {
    /// A job file.
    Job(&'a str),
    /// Leave to upload this file.
    Upload(&'a str),
}

/// The line of a refusal, and the amounts behind it.
fn by_cli(done: &Done) -> Told {
    let (code, detail) = refusal(done);
    let line = done.stderr.lines().find_map(|line| line.strip_prefix("quota: ")).unwrap();
    let amounts: Vec<Value> = ["dimension", "used", "asked", "limit", "threshold", "eta"]
        .iter()
        .zip(line.split(' '))
        .map(|(name, word)| match word.split_once('=') {
            Some((is, value)) if is == *name => match (is, value) {
                ("eta", "unknown") => Value::Null,
                ("eta", at) => json!(at.parse::<jiff::Timestamp>().unwrap().as_millisecond()),
                ("dimension", dimension) => json!(dimension),
                (_, amount) => json!(amount.parse::<f64>().unwrap()),
            },
            _ => panic!("no {name}: {line}"),
        })
        .collect();
    Told { code, detail, amounts: json!(amounts) }
}

/// Of a file: what leave to upload it is asked by.
fn digest_and_size(path: &str) -> (String, u64) {
    let bytes = fs::read(path).unwrap();
    (Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect(), bytes.len() as u64)
}

fn by_grpc(cluster: &Cluster, token: &str, ask: Ask<'_>) -> Told {
    fn with_token<T>(message: T, token: &str) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        request
    }
    let call = async {
        let channel = world::grpc::connect(&cluster.server.address, support::DEADLINE).await.unwrap();
        let mut client = DrumlineClient::new(channel);
        match ask {
            Ask::Job(file) => {
                let spec = Some(proto::jobfile::parse(file, Path::new("")).unwrap());
                let request = SubmitRequest { spec, ..SubmitRequest::default() };
                client.submit(with_token(request, token)).await.map(drop)
            }
            Ask::Upload(path) => {
                let (digest, size_bytes) = digest_and_size(path);
                let request = CreateUploadRequest { digest, size_bytes, ..CreateUploadRequest::default() };
                client.create_upload(with_token(request, token)).await.map(drop)
            }
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let status = runtime.block_on(call).unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    let problem = Problem::from(status);
    let told = problem.quota.clone().unwrap();
    let eta = Some(told.fits_at_ms).filter(|at_ms| *at_ms > 0);
    let amounts = json!([told.dimension, told.used, told.asked, told.limit, told.threshold, eta]);
    Told { code: problem.code.clone(), detail: problem.to_string(), amounts }
}

fn by_rest(cluster: &Cluster, token: &str, ask: Ask<'_>) -> Told {
    let (path, body) = match ask {
        Ask::Job(file) => ("/v1/jobs", toml::from_str(file).unwrap()),
        Ask::Upload(path) => {
            let (digest, size_bytes) = digest_and_size(path);
            ("/v1/uploads", json!({ "digest": digest, "size_bytes": size_bytes }))
        }
    };
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    let (status, body) = cluster.server.http("POST", path, &headers, &body.to_string());
    let body: Value = serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}"));
    assert_eq!(status, 429, "{body}");
    let text = |name: &str| body[name].as_str().unwrap().to_owned();
    let amounts = ["dimension", "used", "asked", "limit", "threshold", "eta"].map(|name| body[name].clone());
    Told { code: text("code"), detail: text("detail"), amounts: json!(amounts) }
}

/// The URL that leave to upload comes with.
fn leave(cluster: &Cluster, token: &str, path: &str) -> String {
    let (digest, size_bytes) = digest_and_size(path);
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    let body = json!({ "digest": digest, "size_bytes": size_bytes }).to_string();
    let (status, body) = cluster.server.http("POST", "/v1/uploads", &headers, &body);
    assert_eq!(status, 201, "{body}");
    serde_json::from_str::<Value>(&body).unwrap()["url"].as_str().unwrap().to_owned()
}

/// Used before, by each dimension that keeps account: 600 bytes were uploaded,
/// copied by a job, and downloaded again.
fn with_traffic(cluster: &Cluster, token: &str) {
    let as_lab = |args: &[&str]| run(cluster.command(args).env("DRUMLINE_TOKEN", token)).ok();
    let data = format!("data={}", cluster.dir.file("data", &"x".repeat(600)));
    as_lab(&["submit", "--input", &data, "--output", "copy", "--wait", "--", "cp", "inputs/data", "copy"]);
    as_lab(&["outputs", "1", "get", &cluster.dir.join("got").display().to_string()]);
    until_true("all is booked", || {
        let tenants = cluster.call(&["tenants", "-o", "json"]).ok().json();
        let lab = tenants.as_array().unwrap().iter().find(|tenant| tenant["name"] == "lab").unwrap();
        (&lab["ingress_bytes"], &lab["storage_bytes"], &lab["egress_bytes"])
            == (&json!(600), &json!(1200), &json!(600))
    });
}

#[test]
fn the_guard_answers_alike_from_cli_grpc_and_rest() {
    let mut cluster = Cluster::bare("doors");
    cluster.add_node("n1", &["--cores", "10", "--memory", "1GiB", "--gpus", "10"]);
    cluster.until_ready(1);
    cluster.call(&["tenants", "create", "lab"]).ok();
    let token = ["tokens", "create", "ci", "--role", "tenant", "--for", "lab"];
    let lab = cluster.call(&token).ok().stdout.trim().to_owned();
    with_traffic(&cluster, &lab);
    // From now on a second of a core costs one.
    cluster.call(&["quota", "set", "lab", "--core-hour", "3600"]).ok();
    let step = |rest: &str| format!("[[step]]\nname = 'a'\nrun = 'true'\n{rest}\n");
    let money = |runtime: &str| format!("expected_runtime = '{runtime}'\n{}", step(""));
    let (gives, digest) = (step("outputs = ['o']"), "a".repeat(64));
    let input = format!("name = 'far'\nurl = 'http://127.0.0.1:1/far'\ndigest = '{digest}'\nsize = 300");
    let fetches = format!("[[input]]\n{input}\n{}", step(""));
    let (cores, memory, gpus, array) =
        (step("cores = 9"), step("memory = '900MiB'"), step("gpus = 9"), step("array = '0-8'"));
    let price = money("11s");
    let file = cluster.dir.file("fresh", &"y".repeat(300));
    let (mib, exceeded) = (f64::from(1 << 20), "quota.exceeded");
    // With the one limit it is refused, and with one that is a unit larger it is not.
    for (flag, limit, larger, ask, code, amounts) in [
        ("--cores", "10", "10.001", Ask::Job(&cores), exceeded, json!(["cores", 0.0, 9.0, 10.0, 9.0])),
        (
            "--memory",
            "1048576000",
            "1048576001",
            Ask::Job(&memory),
            exceeded,
            json!(["memory", 0.0, 900.0 * mib, 1000.0 * mib, 900.0 * mib]),
        ),
        ("--gpus", "10", "11", Ask::Job(&gpus), exceeded, json!(["gpus", 0.0, 9.0, 10.0, 9.0])),
        (
            "--queued-tasks",
            "10",
            "11",
            Ask::Job(&array),
            exceeded,
            json!(["queued_tasks", 0.0, 9.0, 10.0, 9.0]),
        ),
        // Of what a job gives no size is known before: it asks one byte.
        (
            "--storage",
            "1334",
            "1335",
            Ask::Job(&gives),
            exceeded,
            json!(["storage", 1200.0, 1.0, 1334.0, 1200.6]),
        ),
        ("--egress", "667", "668", Ask::Job(&gives), exceeded, json!(["egress", 600.0, 1.0, 667.0, 600.3])),
        (
            "--ingress",
            "1000",
            "1001",
            Ask::Job(&fetches),
            exceeded,
            json!(["ingress", 600.0, 300.0, 1000.0, 900.0]),
        ),
        (
            "--ingress",
            "1000",
            "1001",
            Ask::Upload(&file),
            exceeded,
            json!(["ingress", 600.0, 300.0, 1000.0, 900.0]),
        ),
        (
            "--storage",
            "1666",
            "1667",
            Ask::Upload(&file),
            exceeded,
            json!(["storage", 1200.0, 300.0, 1666.0, 1499.4]),
        ),
        // Of money all may be spent.
        (
            "--budget",
            "10",
            "11",
            Ask::Job(&price),
            "budget.exceeded",
            json!(["budget", 0.0, 11.0, 10.0, 10.0]),
        ),
    ] {
        let set = |limit: &str| cluster.call(&["quota", "set", "lab", flag, limit]).ok();
        set(limit);
        let words = |more: &[&str]| -> Vec<String> {
            let rest = match ask {
                Ask::Job(text) => vec![cluster.dir.file("job.toml", text)],
                Ask::Upload(path) => {
                    ["--input", &format!("data={path}"), "--", "true"].map(str::to_owned).into()
                }
            };
            ["submit"].iter().chain(more).map(|word| (*word).to_owned()).chain(rest).collect()
        };
        let submit = |more: &[&str]| run(cluster.command(&[]).args(words(more)).env("DRUMLINE_TOKEN", &lab));
        let cli = by_cli(&submit(&[]));
        assert_eq!(cli, by_grpc(&cluster, &lab, ask), "{flag}: CLI and gRPC");
        assert_eq!(cli, by_rest(&cluster, &lab, ask), "{flag}: CLI and REST");
        assert_eq!(cli.code, code, "{flag}");
        let (told, eta) = cli.amounts.as_array().unwrap().split_at(5);
        assert_eq!(json!(told), amounts, "{flag}");
        // What counts by the month fits the next one, where it fits at all.
        let by_month = matches!(flag, "--ingress" | "--egress");
        assert_eq!(eta[0].is_u64(), by_month, "{flag}: {eta:?}");
        set(larger);
        match ask {
            Ask::Job(_) => drop(submit(&["--dry-run"]).ok()),
            Ask::Upload(path) => assert!(!leave(&cluster, &lab, path).is_empty(), "{flag}"),
        }
        set("none");
    }
    let jobs = run(cluster.command(&["ls", "-o", "name"]).env("DRUMLINE_TOKEN", &lab)).ok();
    assert_eq!(jobs.stdout, "lab-1\n", "nothing was half accepted");
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

#[test]
fn a_flood_of_a_tenant_delays_no_line_of_another() {
    const LINES: usize = 8;
    let (cluster, lab) = with_lab("flood", "4", &[]);
    let over = cluster.dir.join("over");
    // More than a server takes in, and no more than a disk has room for: 20 streams.
    let flood = format!("until test -e {}; do yes | head -c 262144; sleep 0.1; done", over.display());
    let noise = cluster.submit(&["--array", "0-19", "--cores", "0.1", "--", "sh", "-c", &flood]);
    let noise_log = cluster.server.data.join("logs/default/0000000000000001.log");
    until_true("it floods", || fs::metadata(&noise_log).is_ok_and(|log| log.len() > 16 << 20));

    let ticks = format!("for i in $(seq {LINES}); do date +\"$i %s%N\"; sleep 1; done");
    let submit = ["submit", "--cores", "0.5", "-o", "name", "--", "sh", "-c", &ticks];
    let quiet = run(cluster.command(&submit).env("DRUMLINE_TOKEN", &lab)).ok().stdout.trim().to_owned();
    let follow = ["logs", "-f", "--raw", &quiet];
    let follower = Running::start(cluster.command(&follow).env("DRUMLINE_TOKEN", &lab));
    for number in 1..=LINES {
        let (line, seen) = until(DEADLINE, &format!("line {number}"), || {
            let text = follower.stdout();
            let whole = text.lines().nth(number - 1).filter(|_| text.matches('\n').count() >= number)?;
            Some((whole.to_owned(), SystemTime::now().duration_since(UNIX_EPOCH).unwrap()))
        });
        let (told, at) = line.split_once(' ').unwrap();
        assert_eq!(told, number.to_string());
        let late = seen.saturating_sub(Duration::from_nanos(at.parse().unwrap()));
        assert!(late < SEEN_WITHIN, "line {number} came after {late:?}");
    }
    assert_eq!(cluster.state(&noise), "RUNNING", "it flooded all the while");
    fs::write(&over, "").unwrap();
    assert_eq!(follower.wait().ok().stdout.lines().count(), LINES);
}
