//! Three tenants, each with several clients at once that want more than it may have:
//! cores, queued tasks, money. While they press, no limit is ever passed; at the end
//! nothing stays reserved, and what was taken has run.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests stand outside the world they drive"
)]

mod support;

use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use support::{Cluster, run, until_true};

const CLIENTS: usize = 3;
const TRIES: usize = 20;

/// A tenant, what limits it, and what each of its clients submits.
struct Presses {
    tenant: &'static str,
    limits: &'static [&'static str],
    job: &'static [&'static str],
    /// Absent: it waits in place of being refused.
    refusal: Option<&'static str>,
}

const ALL: [Presses; 3] = [
    Presses {
        tenant: "crowd",
        limits: &["--cores", "2", "--when-full", "queue"],
        job: &["--", "sleep", "0.1"],
        refusal: None,
    },
    // 90 of each 100 may be in use: so nine arrays of four at once, of ten.
    Presses {
        tenant: "tasks",
        limits: &["--queued-tasks", "40"],
        job: &["--array", "1-4", "--cores", "0.1", "--", "sleep", "0.1"],
        refusal: Some("quota.exceeded"),
    },
    // A core for ten minutes, which is what is reserved, costs 6.
    Presses {
        tenant: "money",
        limits: &["--budget", "20", "--core-hour", "36"],
        job: &["--", "sleep", "0.1"],
        refusal: Some("budget.exceeded"),
    },
];

/// Whether one submission was taken.
fn press(cluster: &Cluster, token: &str, presses: &Presses) -> bool {
    let words: Vec<&str> = ["submit"].iter().chain(presses.job).copied().collect();
    let done = run(cluster.command(&words).env("DRUMLINE_TOKEN", token));
    match (done.code, presses.refusal) {
        (0, _) => true,
        (3, Some(code)) if done.stderr.contains(&format!("[{code}]")) => false,
        _ => panic!("{} was answered {done:#?}", presses.tenant),
    }
}

/// Money and cores as numbers.
fn number(value: &Value) -> f64 {
    value.as_f64().or_else(|| value.as_str()?.parse().ok()).unwrap_or_else(|| panic!("no number: {value}"))
}

fn tenants(cluster: &Cluster) -> BTreeMap<String, Value> {
    let listed = cluster.call(&["tenants", "-o", "json"]).ok().json();
    let rows = listed.as_array().unwrap().iter();
    rows.map(|row| (row["name"].as_str().unwrap().to_owned(), row.clone())).collect()
}

fn promised(row: &Value) -> f64 {
    number(&row["reserved"]) + number(&row["settled"])
}

#[test]
fn many_clients_at_once_pass_no_limit() {
    let cluster = Cluster::new("breach", 2, "4");
    let tokens = ALL.each_ref().map(|presses| {
        cluster.call(&[&["tenants", "create", presses.tenant], presses.limits].concat()).ok();
        let words = ["tokens", "create", presses.tenant, "--role", "tenant", "--for", presses.tenant];
        cluster.call(&words).ok().stdout.trim().to_owned()
    });
    let pressing = AtomicBool::new(true);
    let (taken, peaks) = thread::scope(|scope| {
        let clients: Vec<Vec<_>> = ALL
            .iter()
            .zip(&tokens)
            .map(|(presses, token)| {
                let press = || (0..TRIES).filter(|_| press(&cluster, token, presses)).count();
                (0..CLIENTS).map(|_| scope.spawn(press)).collect()
            })
            .collect();
        let watcher = scope.spawn(|| {
            let mut peaks = [0.0_f64; 3];
            while pressing.load(Ordering::Relaxed) {
                let rows = tenants(&cluster);
                let seen = [
                    number(&rows["crowd"]["held"]["cores"]),
                    number(&rows["tasks"]["queued_tasks"]),
                    promised(&rows["money"]),
                ];
                assert!(seen[0] <= 2.0, "held {} of 2 cores", seen[0]);
                assert!(seen[1] < 36.0, "{} of 36 tasks", seen[1]);
                assert!(seen[2] <= 20.0, "{} of 20 promised", seen[2]);
                peaks = [0, 1, 2].map(|at| peaks[at].max(seen[at]));
            }
            peaks
        });
        let joined = clients.into_iter().map(|clients| clients.into_iter().map(|c| c.join().unwrap()).sum());
        let taken: Vec<usize> = joined.collect();
        pressing.store(false, Ordering::Relaxed);
        (taken, watcher.join().unwrap())
    });
    // It was pressed hard enough to come up to each.
    assert!(peaks[0] > 1.9 && peaks[1] > 27.9 && peaks[2] > 11.9, "{peaks:?}");
    assert_eq!(taken[0], CLIENTS * TRIES);
    assert!(taken[1..].iter().all(|&taken| 0 < taken && taken < CLIENTS * TRIES), "{taken:?}");

    until_true("all has ended", || tenants(&cluster).values().all(|row| row["live_jobs"] == 0));
    let rows = tenants(&cluster);
    for (presses, taken) in ALL.iter().zip(taken) {
        let row = &rows[presses.tenant];
        assert_eq!((number(&row["reserved"]), &row["queued_tasks"]), (0.0, &Value::from(0)), "{row}");
        let listed = cluster.call(&["--tenant", presses.tenant, "ls", "--limit", "100", "-o", "json"]).ok();
        let jobs = listed.json();
        let jobs = jobs.as_array().unwrap();
        assert_eq!(jobs.len(), taken, "{}", presses.tenant);
        assert!(jobs.iter().all(|job| job["state"] == "COMPLETED"), "{jobs:?}");
    }
    assert!(promised(&rows["money"]) > 0.0, "what ran was metered: {}", rows["money"]);
}
