//! What operators do, and what tenants see of it: tenants, tokens, limits.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests stand outside the world they drive"
)]

mod support;

use serde_json::{Value, json};
use std::fs;
use std::time::Duration;
use support::{Cluster, Running, drumline, processes, run, until, until_true};

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

#[test]
fn tokens_are_listed_and_revoked() {
    let mut cluster = Cluster::new("tokens", 1, "2");
    let make = |name: &str, role: &str| {
        let done = cluster.call(&["tokens", "create", name, "--role", role, "--for", "default"]).ok();
        done.stdout.trim().to_owned()
    };
    let (ci, rack) = (make("ci", "tenant"), make("rack", "agent"));
    let listed = cluster.call(&["tokens", "-o", "json"]).ok().json();
    let names: Vec<(&str, &str)> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|token| (token["name"].as_str().unwrap(), token["role"].as_str().unwrap()))
        .collect();
    assert_eq!(names, [("admin", "admin"), ("ci", "tenant"), ("rack", "agent")]);
    let shown = cluster.call(&["tokens", "ls"]).ok().stdout;
    assert!(!shown.contains("dl_") && shown.contains("this one"), "{shown}");
    let as_ci = |args: &[&str]| run(cluster.command(args).env("DRUMLINE_TOKEN", &ci));
    as_ci(&["tokens", "ls"]).exit(3);
    as_ci(&["submit", "--wait", "--", "true"]).ok();
    let long = as_ci(&["submit", "-o", "json", "--", "sleep", "60"]).ok().json();
    let long = long["id"].as_str().unwrap();
    let mut follows = Running::start(cluster.command(&["logs", "-f", long]).env("DRUMLINE_TOKEN", &ci));
    let open = || {
        let metrics = cluster.server.get("/metrics");
        metrics.lines().any(|line| line == "drumline_streams_open 1")
    };
    until_true("it follows", open);
    let id = listed[1]["id"].as_str().unwrap();
    assert_eq!(cluster.call(&["tokens", "revoke", "ci"]).ok().stdout, format!("{id} ci\n"));
    as_ci(&["ls"]).says(3, &["token", "not known"]);
    until(Duration::from_secs(5), "whoever follows is cut off", || follows.is_over().then_some(()));
    follows.wait().says(3, &["not known", "[auth.token]"]);
    cluster.call(&["cancel", long]).ok();
    cluster.call(&["tokens", "revoke", "ci"]).says(3, &["token = ci", "there is no such token"]);
    cluster.call(&["tokens", "revoke", "admin"]).says(3, &["admin", "last", "drumline tokens create"]);

    // An agent whose token is revoked is soon out of the cluster.
    let mut other = drumline();
    other.args(["agent", "--node", "n2", "--cores", "1"]).arg("--data").arg(cluster.dir.join("n2"));
    other.args(["--server", &cluster.server.address, "--token", &rack]);
    let other = Running::start(&mut other);
    cluster.until_ready(2);
    cluster.call(&["tokens", "revoke", "rack"]).ok();
    let state = || {
        let nodes = cluster.call(&["nodes", "-o", "json"]).ok().json();
        nodes.as_array().unwrap().iter().find(|node| node["name"] == "n2").unwrap()["state"].clone()
    };
    until_true("n2 is heard no more", || state() != json!("READY"));
    assert!(other.stderr().contains("token"), "{}", other.stderr());
    let doomed = [other.pid(), processes::supervisor_of(&cluster.dir.join("n2")).unwrap()];
    processes::signal("KILL", &doomed);

    // Locked out: the server's next start keeps a new admin's token.
    let spare = make("spare", "admin");
    cluster.call(&["tokens", "revoke", "admin"]).ok();
    cluster.call(&["ls"]).exit(3);
    run(cluster.command(&["ls"]).env("DRUMLINE_TOKEN", &spare)).ok();
    cluster.server.stop();
    cluster.server.restart();
    cluster.call(&["ls"]).ok();
}

#[test]
fn quota_is_changed_in_part_and_usage_is_what_ran() {
    let cluster = Cluster::new("usage", 1, "2");
    cluster
        .call(&["tenants", "create", "lab", "--cores", "4", "--budget", "100", "--core-hour", "3600"])
        .ok();
    let as_lab = |args: &[&str]| cluster.call(&[&["--tenant", "lab"], args].concat());
    // A second of a core costs one; the estimate of both fits, and not of a third.
    let sleep =
        |name: &str| as_lab(&["submit", "--name", name, "--time", "40s", "--wait", "--", "sleep", "0.5"]);
    sleep("one").ok();
    cluster.call(&["quota", "set", "lab", "--budget", "30", "--cores", "none"]).ok();
    sleep("two").says(3, &["budget", "estimated at 40.00", "lab", "[budget.exceeded]"]);
    let lab = cluster.call(&["tenants", "show", "lab", "-o", "json"]).ok().json();
    assert_eq!(
        (&lab["quota"], &lab["budget"], &lab["core_hour"]),
        (&json!({}), &json!("30.00"), &json!("3600.00"))
    );
    cluster.call(&["tenants", "set", "lab", "--budget", "none"]).ok();
    sleep("two").ok();
    // Three tasks of half a core, each tried twice; then one that is cancelled.
    let fails = ["--cores", "0.5", "--array", "0-2", "--retries", "1", "--", "sh", "-c", "sleep 0.3; exit 7"];
    as_lab(&[&["submit", "--name", "three", "--wait"], &fails[..]].concat()).exit(7);
    let sleeps = ["submit", "--name", "four, the last", "-o", "json", "--", "sleep", "60"];
    let four = as_lab(&sleeps).ok().json()["id"].as_str().unwrap().to_owned();
    until_true("it runs", || cluster.state(&four) == "RUNNING");
    // What runs counts as far as it has come.
    until_true("it is metered while it runs", || {
        let job = as_lab(&["ls", "-o", "json"]).ok().json()[0].clone();
        let money = |name: &str| job[name].as_str().unwrap().parse::<f64>().unwrap();
        job["state"] == "RUNNING"
            && money("running_cost") > 0.1
            && job["cost"] == job["running_cost"]
            && (money("cost") - job["core_seconds"].as_f64().unwrap()).abs() < 0.01
    });
    cluster.call(&["cancel", &four]).ok();
    cluster.until_state(&four, "CANCELLED");

    let usage = as_lab(&["usage", "-o", "json"]).ok().json();
    let jobs = usage["jobs"].as_array().unwrap();
    let money = |value: &Value| value.as_str().unwrap().parse::<f64>().unwrap();
    let seconds = |value: &Value| value["core_seconds"].as_f64().unwrap();
    let names: Vec<&str> = jobs.iter().map(|job| job["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["four, the last", "three", "two", "one"]);
    // What ran is what is paid, and not the forty seconds it might have taken.
    for (job, (cores, ran_s)) in
        jobs.iter().zip([(1.0, 0.0..20.0), (0.5, 1.8..40.0), (1.0, 0.5..20.0), (1.0, 0.5..20.0)])
    {
        let busy_s = job["busy_ms"].as_f64().unwrap() / 1000.0;
        assert!(ran_s.contains(&busy_s), "{job}");
        assert!((busy_s * cores - seconds(job)).abs() < 0.01, "{job}");
        assert!((money(&job["cost"]) - seconds(job)).abs() < 0.01, "{job}");
    }
    let sum: f64 = jobs.iter().map(&seconds).sum();
    assert!((seconds(&usage) - sum).abs() < 0.01, "{usage}");
    let lab = tenant(&cluster, "lab");
    assert!((money(&lab["settled"]) - sum).abs() < 0.05, "{lab}");
    assert_eq!(money(&lab["reserved"]), 0.0);
    // The same in every form.
    let csv = as_lab(&["usage", "-o", "csv"]).ok().stdout;
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!(lines[0], "id,name,state,tasks,busy_ms,core_seconds,gpu_seconds,cost");
    let three = &jobs[1];
    let told = format!(
        "lab-3,three,FAILED,3,{},{},0.0,{}",
        three["busy_ms"],
        three["core_seconds"],
        three["cost"].as_str().unwrap()
    );
    assert_eq!(lines[2], told);
    assert!(lines[1].starts_with("lab-4,\"four, the last\",CANCELLED,1,") && lines.len() == 5, "{csv}");
    let table = as_lab(&["usage"]).ok().stdout;
    assert!(table.contains(&three["core_seconds"].to_string()) && table.contains("CORE-SECONDS"), "{table}");
    let users = as_lab(&["usage", "--by", "user", "-o", "json"]).ok().json();
    assert_eq!((&users["by"], users["groups"].as_array().unwrap().len()), (&json!("user"), 1), "{users}");
    assert_eq!((&users["groups"][0]["jobs"], &users["groups"][0]["cost"]), (&json!(4), &usage["cost"]));
    as_lab(&["usage", "--by", "label"]).says(2, &["by = label", "label=KEY"]);
    // An operator sees what all tenants used; a tenant only its own.
    cluster.submit(&["--name", "ours", "--", "true"]);
    cluster.call(&["submit", "--label", "paper=two", "--wait", "--", "true"]).ok();
    let by = |what: &str| cluster.call(&["usage", "--all-tenants", "--by", what, "-o", "csv"]).ok().stdout;
    let jobs = |text: String| -> Vec<String> {
        let fields = text.lines().map(|line| line.splitn(3, ',').take(2).collect::<Vec<_>>().join(","));
        fields.collect()
    };
    assert_eq!(jobs(by("tenant")), ["tenant,jobs", "default,2", "lab,4"]);
    assert_eq!(jobs(by("label=paper")), ["paper,jobs", ",5", "two,1"]);
    let all = cluster.call(&["usage", "--all-tenants", "-o", "name"]).ok().stdout;
    assert_eq!(all, "default-2\ndefault-1\nlab-4\nlab-3\nlab-2\nlab-1\n");

    assert_eq!(as_lab(&["usage", "--month", "2001-01", "-o", "json"]).ok().json()["jobs"], json!([]));
    cluster.call(&["usage", "--month", "June"]).says(2, &["month = June", "2026-02"]);
    let quota = as_lab(&["quota"]).ok().stdout;
    assert!(quota.contains("egress") && quota.contains("this month"), "{quota}");
    // Without a name it is the token's own tenant.
    assert_eq!(cluster.call(&["quota", "-o", "name"]).ok().stdout, "default\n");
    cluster.call(&["quota", "set", "lab"]).says(2, &["limits", "--cores 64"]);
    cluster
        .call(&["quota", "set", "lab", "--gpus", "few"])
        .says(3, &["gpus = few", "is no count", "or none"]);
    cluster
        .call(&["quota", "set", "nobody", "--gpus", "1"])
        .says(3, &["tenant = nobody", "[missing.tenant]"]);
}

#[test]
fn roles_may_what_they_are_for() {
    let cluster = Cluster::bare("roles");
    cluster.call(&["tenants", "create", "lab", "--cores", "2"]).ok();
    let token = |name: &str, role: &str| {
        let done = cluster.call(&["tokens", "create", name, "--role", role, "--for", "lab"]).ok();
        done.stdout.trim().to_owned()
    };
    let (tenant, operator, agent) = (token("t", "tenant"), token("o", "operator"), token("a", "agent"));
    let call = |token: &str, args: &[&str]| run(cluster.command(args).env("DRUMLINE_TOKEN", token));
    let denied = |token: &str, args: &[&str]| {
        call(token, args).says(3, &["role", "use a token whose role allows it", "[denied.role]"]);
    };
    for args in [
        &["tenants", "create", "mine"][..],
        &["tenants", "set", "lab", "--cores", "64"],
        &["quota", "set", "lab", "--budget", "none"],
        &["tokens"],
        &["tokens", "create", "more", "--role", "admin"],
        &["tokens", "revoke", "o"],
    ] {
        denied(&tenant, args);
        denied(&operator, args);
        denied(&agent, args);
    }
    for args in [&["tenants"][..], &["quota"], &["usage"]] {
        call(&tenant, args).ok();
        call(&operator, args).ok();
        denied(&agent, args);
    }
    // A tenant sees its own alone, an operator all.
    assert_eq!(call(&tenant, &["tenants", "-o", "name"]).ok().stdout, "lab\n");
    assert_eq!(call(&operator, &["tenants", "-o", "name"]).ok().stdout, "default\nlab\n");
    call(&operator, &["quota", "show", "default"]).ok();
    call(&tenant, &["quota", "show", "default"]).says(3, &["tenant = default", "[missing.tenant]"]);
    call(&tenant, &["--tenant", "default", "usage"]).says(3, &["default", "[missing.tenant]"]);
    let own = call(&tenant, &["quota", "-o", "json"]).ok().json();
    assert_eq!((&own["name"], &own["quota"]), (&json!("lab"), &json!({ "cores": 2.0 })));
}

#[test]
fn alerts_are_listed_for_people_and_for_programs() {
    let cluster = Cluster::new("alerts", 1, "1");
    assert_eq!(cluster.call(&["alerts", "-o", "json"]).ok().json(), json!([]));
    cluster.call(&["tenants", "create", "lab", "--budget", "1.20", "--core-hour", "1"]).ok();
    cluster.call(&["--tenant", "lab", "submit", "--expected-runtime", "1h", "--", "sleep", "600"]).ok();
    let listed = || cluster.call(&["alerts", "-o", "name"]).ok().stdout;
    until_true("the budget is told", || listed() == "budget.80 lab\n");
    let shown = cluster.call(&["alerts"]).ok().stdout;
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(
        lines[0].split_whitespace().collect::<Vec<_>>(),
        ["CODE", "SEVERITY", "SUBJECT", "SINCE", "TEXT"]
    );
    assert!(lines[1].starts_with("budget.80") && lines[1].contains("1.00 reserved"), "{shown}");
    let told = cluster.call(&["alerts", "--cleared", "-o", "json"]).ok().json();
    assert_eq!((&told[0]["code"], &told[0]["cleared_ms"]), (&json!("budget.80"), &Value::Null));
    let wide = cluster.call(&["alerts", "--cleared", "-o", "wide"]).ok().stdout;
    assert!(wide.contains("CLEARED") && wide.contains("TENANT"), "{wide}");
}
