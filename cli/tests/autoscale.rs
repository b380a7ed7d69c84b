//! Pools that grow by need: a real server, the driver that ships, and agents that come and go.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests stand outside the world they drive"
)]

mod support;

use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use support::{Cluster, Dir, Server, drumline, processes, run, until_true};

/// What the driver started ends with the test.
struct Machines(PathBuf);

impl Machines {
    fn agents(&self) -> Vec<i32> {
        processes::mentioning(&self.0.join("default-auto-").display().to_string())
            .into_iter()
            .filter(|pid| processes::with_word("agent").contains(pid))
            .collect()
    }

    fn all(&self) -> Vec<i32> {
        processes::mentioning(&self.0.join("default-auto-").display().to_string())
    }
}

impl Drop for Machines {
    fn drop(&mut self) {
        // Twice, since an agent may have been just starting its supervisor.
        processes::signal("KILL", &self.all());
        processes::signal("KILL", &self.all());
    }
}

/// The words of the driver that ships, as a list of TOML.
fn shipped(dir: &Dir) -> String {
    let path = |path: &Path| path.display().to_string();
    let words = [
        env!("CARGO_BIN_EXE_drumline").to_owned(),
        "local-driver".to_owned(),
        "--data".to_owned(),
        path(&dir.join("machines")),
        "--env-file".to_owned(),
        path(&dir.join("server/client.env")),
        "--".to_owned(),
        "--cores=1".to_owned(),
        "--memory=256MiB".to_owned(),
    ];
    format!("{words:?}")
}

/// A server that decides quickly.
fn start(name: &str, command: impl Fn(&Dir) -> String, more: &str) -> (Cluster, Machines) {
    let dir = Dir::new(name);
    let config = format!(
        "[alerts]\nlook_ms = 50\nquiet_ms = 0\npool_exhausted_ms = 100\n\
         [pools.default.autoscale]\ncommand = {}\nmin = 1\nmax = 4\n\
         queued_ms = 200\nidle_ms = 800\ncooldown_ms = 200\n{more}",
        command(&dir)
    );
    let config = dir.file("server.toml", &config);
    let machines = Machines(dir.join("machines"));
    let server = Server::start(&dir, &["--config", &config]);
    (Cluster { nodes: Vec::new(), server, dir }, machines)
}

impl Cluster {
    fn node_names(&self) -> Vec<String> {
        let nodes = self.call(&["nodes", "-o", "json"]).ok().json();
        nodes.as_array().unwrap().iter().map(|node| node["name"].as_str().unwrap().to_owned()).collect()
    }

    fn pool(&self) -> Value {
        let pools = self.call(&["pools", "-o", "json"]).ok().json();
        pools.as_array().unwrap().iter().find(|pool| pool["name"] == "default").unwrap().clone()
    }

    fn alerts(&self) -> String {
        self.call(&["alerts", "-o", "name"]).ok().stdout
    }

    /// Tasks of one core each that end once there is the file `go`.
    fn waiting_tasks(&self, count: u32) -> String {
        let go = self.dir.join("go");
        let script = format!("until [ -e {} ]; do sleep 0.05; done; echo $DRUMLINE_TASK", go.display());
        self.submit(&[
            "--array",
            &format!("1-{count}"),
            "--cores",
            "1",
            "--memory",
            "1MiB",
            "--",
            "sh",
            "-c",
            &script,
        ])
    }
}

#[test]
fn a_pool_grows_from_one_agent_to_four_and_back_though_its_server_is_killed_in_between() {
    let (mut cluster, machines) = start("autoscale", shipped, "");
    cluster.until_ready(1);
    assert_eq!(cluster.node_names(), ["default-auto-1"], "the least there is is there without work");
    let job = cluster.waiting_tasks(8);
    until_true("four agents work", || {
        assert!(cluster.node_names().len() <= 4, "{:?}", cluster.node_names());
        cluster
            .call(&["nodes", "-o", "json"])
            .ok()
            .json()
            .as_array()
            .unwrap()
            .iter()
            .all(|node| node["state"] == "READY" && node["grants"] != 0)
            && cluster.node_names().len() == 4
    });
    until_true("it is told why there are no more", || cluster.alerts().contains("scale.capped default"));
    let pool = cluster.pool();
    assert_eq!((&pool["autoscale"]["min"], &pool["autoscale"]["max"]), (&1.into(), &4.into()), "{pool}");
    assert!(pool["autoscale"]["capped"].as_str().unwrap().ends_with("max is 4"), "{pool}");
    until_true("all that were asked for are there", || {
        cluster.call(&["pools"]).ok().stdout.contains("1-4, capped")
    });
    assert!(cluster.server.get("/metrics").contains("drumline_pool_nodes_asked{pool=\"default\"} 0"));

    cluster.server.kill();
    cluster.server.restart();
    cluster.until_ready(4);
    fs::write(cluster.dir.join("go"), "").unwrap();
    cluster.call(&["wait", &job]).ok();
    let log = cluster.call(&["logs", &job]).ok().stdout;
    assert_eq!(log.lines().count(), 8, "{log}");
    until_true("one agent is left", || cluster.node_names().len() == 1 && machines.agents().len() == 1);
    // The youngest go first, nothing of them stays, and nobody is missed.
    assert_eq!(cluster.node_names(), ["default-auto-1"]);
    let left: Vec<_> = fs::read_dir(&machines.0).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().contains("auto-2")), "{left:?}");
    until_true("all is quiet again", || cluster.alerts().is_empty());
    // And it works as before.
    cluster.call(&["submit", "--wait", "--", "true"]).ok();
}

#[test]
fn a_driver_that_fails_is_told_with_its_own_words() {
    let failing = |_: &Dir| "[\"sh\", \"-c\", \"echo no quota in zone b >&2; exit 3\"]".to_owned();
    let (cluster, _machines) = start("autoscale-fails", failing, "");
    until_true("the first failure shows", || cluster.pool()["autoscale"]["failures"] == 1);
    let pool = cluster.pool();
    assert_eq!(pool["autoscale"]["failed"], "exit status: 3: no quota in zone b", "{pool}");
    assert_eq!(pool["autoscale"]["asked"], 1, "nobody knows what it did: {pool}");
    assert!(cluster.call(&["pools"]).ok().stdout.contains("driver fails"));
    until_true("it is an alert", || cluster.alerts().contains("scale.failed default"));
    let wide = cluster.call(&["alerts", "-o", "wide"]).ok().stdout;
    assert!(wide.contains("3 times in a row: exit status: 3: no quota in zone b"), "{wide}");
}

#[test]
fn no_more_is_asked_for_than_may_be_paid() {
    let price = "price_per_node_hour = \"0.50\"\ncost_per_hour_max = \"1.20\"\n";
    let (cluster, _machines) = start("autoscale-cost", shipped, price);
    let job = cluster.waiting_tasks(6);
    until_true("the cap is told", || {
        assert!(cluster.node_names().len() <= 2, "{:?}", cluster.node_names());
        cluster.alerts().contains("scale.capped default")
    });
    let pool = cluster.pool();
    assert_eq!(pool["autoscale"]["cost_per_hour_micros"], 1_000_000, "{pool}");
    let why = pool["autoscale"]["capped"].as_str().unwrap();
    assert!(why.ends_with("cost_per_hour_max allows 2"), "{why}");
    cluster.until_ready(2);
    fs::write(cluster.dir.join("go"), "").unwrap();
    cluster.call(&["wait", &job]).ok();
}

#[test]
fn what_is_drained_by_the_autoscaler_is_seen_and_what_an_operator_drains_is_his() {
    let (cluster, machines) = start("autoscale-drain", shipped, "");
    cluster.until_ready(1);
    cluster.call(&["node", "drain", "default-auto-1", "--reason", "broken fan"]).ok();
    // Another one comes in its place, and it stays.
    until_true("another one works", || cluster.node_names() == ["default-auto-1", "default-auto-2"]);
    cluster.until_ready(1);
    cluster.call(&["submit", "--wait", "--", "true"]).ok();
    let nodes = cluster.call(&["nodes", "-o", "json"]).ok().json();
    assert_eq!((&nodes[0]["state"], &nodes[0]["drained_by"]), (&"DRAINED".into(), &Value::Null));
    // Resumed it is one too many: the younger goes.
    cluster.call(&["node", "resume", "default-auto-1"]).ok();
    until_true("one is left", || cluster.node_names().len() == 1 && machines.agents().len() == 1);
}

#[test]
fn a_pool_that_cannot_be_meant_is_refused_at_the_start() {
    let dir = Dir::new("autoscale-wrong");
    let config =
        |text: &str| dir.file("server.toml", &format!("[pools.gpu.autoscale]\ncommand = [\"d\"]\n{text}"));
    let data = dir.join("server").display().to_string();
    let refused = |text: &str, words: &[&str]| {
        let args = ["server", "--data", &data, "--listen", "127.0.0.1:0", "--config", &config(text)];
        run(drumline().args(args)).says(2, words);
    };
    refused("min = 3\nmax = 2\n", &["pools.gpu.autoscale.min = 3", "is more than max"]);
    refused("min = 1\nmax = 2\ncool_ms = 1\n", &["unknown field `cool_ms`"]);
    refused("min = 1\n", &["missing field `max`"]);
}
