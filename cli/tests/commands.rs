//! Every client command against a server and agents that are processes of their
//! own, configured by flags, environment and files.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests stand outside the world they drive"
)]

mod support;

use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::Duration;
use support::{Cluster, Dir, Running, Server, drumline, history, processes, run, until_true};

/// How soon a supervisor that was let go ends, with much to spare for a busy
/// machine; left alone it stays for two minutes.
const GONE: Duration = Duration::from_secs(20);

/// The task of a job of one step that is no array.
fn only_task(cluster: &Cluster, id: &str) -> history::Task {
    let tasks = history::follow(&cluster.events(id));
    assert_eq!(tasks.len(), 1, "{tasks:?}");
    tasks.into_values().next().unwrap()
}

fn log(cluster: &Cluster, id: &str) -> String {
    cluster.call(&["logs", id]).ok().stdout
}

// -------------------------------------------------------------- ways to start

#[test]
fn client_env_is_private_and_all_that_a_shell_needs() {
    let cluster = Cluster::bare("client-env");
    let path = cluster.server.data.join("client.env");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    let text = fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let [server, token] = lines.as_slice() else { panic!("not two lines: {text:?}") };
    assert!(server.starts_with("export DRUMLINE_SERVER=http://127.0.0.1:"), "{server}");
    assert!(token.starts_with("export DRUMLINE_TOKEN=dl_"), "{token}");
    let mut shell = Command::new("sh");
    shell.env_clear().env("PATH", std::env::var_os("PATH").unwrap());
    let script = format!(". {} && {} ls -o json", path.display(), env!("CARGO_BIN_EXE_drumline"));
    assert_eq!(run(shell.args(["-c", &script])).ok().json(), json!([]));
}

#[test]
fn files_environment_and_flags_configure_server_and_agent() {
    let dir = Dir::new("configured");
    // A server of a file alone, an agent of a file alone.
    let data = dir.join("server");
    let text = format!("data = \"{}\"\n[controller]\nretries = 1\nown_backoff_ms = 50\n", data.display());
    let config = dir.file("server.toml", &text);
    let server = Server::start(&dir, &["--config", &config]);
    assert_eq!(server.data, data);
    let agent = format!(
        "server = \"{}\"\ntoken = \"{}\"\ndata = \"{}\"\nnode = \"from-file\"\npool = \"big\"\ncores = 2\n\
         memory = \"2GiB\"\ngpus = 1\n[labels]\ndisk = \"ssd\"\n",
        server.address,
        server.token,
        dir.join("a").display()
    );
    let config = dir.file("agent.toml", &agent);
    let parts = [
        Running::start(drumline().args(["agent", "--config", &config])),
        Running::start(
            drumline()
                .arg("agent")
                .envs([("DRUMLINE_SERVER", &server.address), ("DRUMLINE_TOKEN", &server.token)])
                .envs([("DRUMLINE_NODE", "from-env"), ("DRUMLINE_CORES", "1.5"), ("DRUMLINE_MEMORY", "1GiB")])
                .envs([("DRUMLINE_POOL", "small"), ("DRUMLINE_GPUS", "2")])
                .env("DRUMLINE_DATA", dir.join("b")),
        ),
        // A flag wins over the environment, and that over the file.
        Running::start(
            drumline()
                .args(["agent", "--config", &config, "--cores", "3", "--label", "zone=b"])
                .args(["--server", &server.address, "--token", &server.token])
                .args(["--data", &dir.join("c").display().to_string(), "--node", "from-flags"])
                .envs([("DRUMLINE_NODE", "overruled"), ("DRUMLINE_MEMORY", "3GiB")]),
        ),
    ];
    let _reaper = Reaper(&dir, parts);
    let nodes = || -> BTreeMap<String, Value> {
        let nodes = run(&mut server.command(&["nodes", "-o", "json"])).ok().json();
        let nodes = nodes.as_array().unwrap().iter();
        nodes.map(|node| (node["name"].as_str().unwrap().to_owned(), node.clone())).collect()
    };
    until_true("three nodes are there", || nodes().len() == 3);
    let nodes = nodes();
    let shape = |name: &str| {
        let node = &nodes[name];
        (node["pool"].clone(), node["capacity"].clone(), node["labels"].clone(), node["state"].clone())
    };
    let capacity =
        |cores: f64, gib: u64, gpus: u32| json!({"cores": cores, "memory_bytes": gib << 30, "gpus": gpus});
    assert_eq!(
        shape("from-file"),
        (json!("big"), capacity(2.0, 2, 1), json!({"disk": "ssd"}), json!("READY"))
    );
    assert_eq!(shape("from-env"), (json!("small"), capacity(1.5, 1, 2), json!({}), json!("READY")));
    assert_eq!(
        shape("from-flags"),
        (json!("big"), capacity(3.0, 3, 1), json!({"disk": "ssd", "zone": "b"}), json!("READY"))
    );

    // The server's numbers count: one retry where a step says nothing.
    let done =
        run(&mut server.command(&["submit", "--wait", "-o", "json", "--", "sh", "-c", "exit 9"])).exit(9);
    let id = done.json()["id"].as_str().unwrap().to_owned();
    let tasks = run(&mut server.command(&["show", &id, "--tasks", "main", "-o", "json"])).ok().json();
    assert_eq!(tasks[0]["attempts"], 2, "{tasks}");

    // Pools and labels are looked at.
    for (args, node) in [
        (["--pool", "small"], "from-env"),
        (["--constraint", "zone=b"], "from-flags"),
        (["--constraint", "disk!=ssd"], "from-env"),
    ] {
        let mut command = server.command(&["submit", "--wait", "-o", "json"]);
        let done = run(command.args(args).args(["--", "true"])).ok();
        let id = done.json()["id"].as_str().unwrap().to_owned();
        let events = history::read(&run(&mut server.command(&["events", &id, "-o", "json"])).ok());
        let placed = events.iter().find(|event| event.to == "RUNNING" && !event.tasks.is_empty());
        assert_eq!(placed.unwrap().node, node, "{args:?}");
    }
    let pools = run(&mut server.command(&["pools", "-o", "json"])).ok().json();
    let names: Vec<&str> =
        pools.as_array().unwrap().iter().map(|pool| pool["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["big", "small"]);
    assert_eq!((&pools[0]["nodes"], &pools[0]["capacity"]["cores"]), (&json!(2), &json!(5.0)));
    assert_eq!(pools[1]["largest_node"]["memory_bytes"], json!(1_u64 << 30));
    assert!(pools[0]["eta"]["earliest_start_ms"].is_u64(), "{pools}");
    let asked = run(&mut server.command(&["pools", "--cores", "3", "--nodes", "2"])).ok().stdout;
    assert!(asked.contains("1 of 2 nodes are large enough") && asked.contains("START"), "{asked}");
}

/// Ends agents that were started by hand, with their supervisors.
struct Reaper<'a>(&'a Dir, [Running; 3]);
impl Drop for Reaper<'_> {
    fn drop(&mut self) {
        let agents: Vec<i32> = self.1.iter().map(Running::pid).collect();
        processes::signal("KILL", &agents);
        processes::signal("KILL", &processes::mentioning(&self.0.path().display().to_string()));
    }
}

#[test]
fn server_and_agent_end_when_told_and_tasks_outlive_the_agent() {
    let mut cluster = Cluster::new("told", 1, "2");
    let flag = cluster.dir.join("flag");
    let script = format!("echo begun; while [ ! -e {} ]; do sleep 0.05; done; echo ended", flag.display());
    let id = cluster.submit(&["--", "sh", "-c", &script]);
    cluster.until_state(&id, "RUNNING");
    let node = &mut cluster.nodes[0];
    assert_eq!(node.stop(), 0);
    assert!(node.supervisor().is_some());
    assert_eq!(cluster.server.stop(), 0);
    assert!(cluster.call(&["ls"]).says(4, &["server = ", "drumline up"]).stdout.is_empty());
    cluster.server.restart();
    cluster.nodes[0].restart();
    fs::write(flag, "").unwrap();
    cluster.until_state(&id, "COMPLETED");
    assert_eq!(only_task(&cluster, &id).attempts, 1);
    assert_eq!(log(&cluster, &id), "main | begun\nmain | ended\n");
}

#[test]
fn up_is_a_server_and_an_agent_in_one() {
    let dir = Dir::new("up");
    let mut up = drumline();
    up.args(["up", "--data", "data", "--listen", "127.0.0.1:0", "--cores", "2"]).current_dir(dir.path());
    let up = Running::start(&mut up);
    until_true("it listens", || up.stdout().contains("listening on"));
    let (address, token) = support::client_env(&dir.join("data"));
    let call = |args: &[&str]| run(drumline().args(["--server", &address, "--token", &token]).args(args));
    let done = call(&["submit", "--follow", "--", "echo", "hello"]).ok();
    assert!(done.stdout.contains("main | hello\n"), "{done:#?}");
    // With a task running or without: a graceful end leaves nothing behind.
    call(&["submit", "--", "sleep", "3602"]).ok();
    until_true("it runs", || !processes::with_word("3602").is_empty());
    let (pid, supervisor) = (up.pid(), processes::supervisor_of(&dir.join("data/agent")).unwrap());
    processes::signal("INT", &[pid]);
    up.wait().ok();
    support::until(GONE, "the supervisor is gone", || (!processes::lives(supervisor)).then_some(()));
    assert!(processes::with_word("3602").is_empty());
}

// ----------------------------------------------------------------- submission

#[test]
fn a_file_is_submitted_and_its_outputs_fetched() {
    let cluster = Cluster::new("file", 2, "2");
    cluster.dir.file("data.txt", "one\ntwo\nthree\n");
    let job = cluster.dir.file(
        "job.toml",
        r#"
name = "lines"
priority = 3
labels = { team = "blue" }
[[input]]
name = "data"
path = "data.txt"
[[step]]
name = "pick"
array = "1-3"
cores = 0.5
memory = "32MiB"
run = "sed -n ${DRUMLINE_TASK}p inputs/data > line; echo picked $(cat line); echo aside >&2"
outputs = ["line"]
[[step]]
name = "join"
after = ["pick"]
run = "cat from/pick/*/line > all; mkdir deep; cp all deep/copy"
outputs = ["all", "deep/*"]
"#,
    );
    let done = cluster.call(&["submit", &job, "--wait", "-o", "json"]).ok();
    let id = done.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(id, "default-1");

    let job = cluster.show(&id);
    assert_eq!(
        [&job["state"], &job["name"], &job["priority"], &job["labels"], &job["exit_code"]],
        [&json!("COMPLETED"), &json!("lines"), &json!(3), &json!({"team": "blue"}), &json!(0)]
    );
    assert_eq!((&job["inputs"][0]["name"], &job["inputs"][0]["size_bytes"]), (&json!("data"), &json!(14)));
    let pick = &job["steps"][0];
    assert_eq!((&pick["array"], &pick["tasks"], &pick["completed"]), (&json!("1-3"), &json!(3), &json!(3)));
    assert_eq!(pick["per_task"], json!({"cores": 0.5, "memory_bytes": 32 << 20, "gpus": 0}));
    assert_eq!(job["steps"][1]["after"], json!(["pick"]));

    // Outputs, listed and fetched, are what was written.
    let files = cluster.call(&["outputs", &id, "-o", "json"]).ok().json();
    for file in files.as_array().unwrap() {
        assert_eq!(file["digest"].as_str().unwrap().len(), 64, "{file}");
        assert!(file["url"].as_str().unwrap().starts_with(&cluster.server.address), "{file}");
    }
    let first = &files[0];
    assert_eq!(
        [&first["step"], &first["index"], &first["path"], &first["size_bytes"]],
        [&json!("pick"), &json!(1), &json!("line"), &json!(4)]
    );
    let names = cluster.call(&["outputs", &id, "-o", "name"]).ok().stdout;
    assert_eq!(names, "pick/1/line\npick/2/line\npick/3/line\njoin/all\njoin/deep/copy\n");
    let fetched = cluster.dir.join("fetched");
    cluster.call(&["outputs", &id, "get", &fetched.display().to_string()]).ok();
    for (path, text) in
        [("pick/2/line", "two\n"), ("join/all", "one\ntwo\nthree\n"), ("join/deep/copy", "one\ntwo\nthree\n")]
    {
        assert_eq!(fs::read_to_string(fetched.join(path)).unwrap(), text, "{path}");
    }

    // Logs: all of it, one task's, one stream's.
    let mut lines: Vec<String> = log(&cluster, &id).lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(lines, ["pick[1] | picked one", "pick[2] | picked two", "pick[3] | picked three"]);
    let one = cluster.call(&["logs", &id, "--step", "pick", "--task", "3", "--stream", "stdout"]).ok();
    assert_eq!((one.stdout.as_str(), one.stderr.as_str()), ("picked three\n", ""));
    let one = cluster.call(&["logs", &id, "--step", "pick", "--task", "2", "--stream", "stderr"]).ok();
    assert_eq!((one.stdout.as_str(), one.stderr.as_str()), ("", "aside\n"));
    cluster.call(&["logs", &id, "--step", "pick", "--task", "4"]).says(3, &["task = 4"]);
    cluster.call(&["logs", &id, "--step", "nosuch"]).says(3, &["step = nosuch", "pick, join"]);

    // Tasks, history, and the word on why.
    let tasks = cluster.call(&["show", &id, "--tasks", "pick", "-o", "json"]).ok().json();
    let indexes: Vec<u64> =
        tasks.as_array().unwrap().iter().map(|task| task["index"].as_u64().unwrap()).collect();
    assert_eq!(indexes, [1, 2, 3]);
    let events = cluster.all_events();
    history::check_gapless(&events);
    assert!(history::follow(&events).values().all(|task| task.completed == 1));
    let why = cluster.call(&["why", &id, "-o", "json"]).ok().json();
    assert_eq!(why["id"], json!(id));
    assert!(!why["headline"].as_str().unwrap().is_empty(), "{why}");
}

#[test]
fn an_array_keeps_to_its_own_limit() {
    let cluster = Cluster::new("array", 2, "8");
    let script = "echo + $(date +%s%N); sleep 0.15; echo - $(date +%s%N)";
    let id = cluster
        .submit(&["--array", "1-20%5", "--cores", "0.5", "--memory", "16MiB", "--", "sh", "-c", script]);
    cluster.call(&["wait", &id]).ok();
    let job = cluster.show(&id);
    let step = &job["steps"][0];
    assert_eq!((&step["array"], &step["completed"]), (&json!("1-20%5"), &json!(20)));
    assert_eq!(step["per_task"], json!({"cores": 0.5, "memory_bytes": 16 << 20, "gpus": 0}));
    // As the history tells, and as the tasks themselves saw it.
    let most = history::most_at_once(&cluster.events(&id), &id, 0, "RUNNING");
    assert!((2..=5).contains(&most), "{most} at once");
    let mut moments: Vec<(u128, i32)> = log(&cluster, &id)
        .lines()
        .map(|line| {
            let (sign, at) = line.split_once(" | ").unwrap().1.split_once(' ').unwrap();
            (at.parse().unwrap(), if sign == "+" { 1 } else { -1 })
        })
        .collect();
    assert_eq!(moments.len(), 40);
    moments.sort_unstable();
    let mut now = 0;
    let most = moments.iter().map(|(_, change)| {
        now += change;
        now
    });
    let most = most.max().unwrap();
    assert!((2..=5).contains(&most), "{most} ran at once");
}

#[test]
fn a_gang_runs_on_two_nodes_at_once() {
    let cluster = Cluster::new("gang", 2, "2");
    let script = "echo $DRUMLINE_RANK $DRUMLINE_LOCAL_RANK $DRUMLINE_WORLD_SIZE $DRUMLINE_NODELIST \
                  $DRUMLINE_MASTER_ADDR $DRUMLINE_MASTER_PORT";
    let done = cluster
        .call(&["submit", "--nodes", "2", "--tasks-per-node", "2", "--follow", "--", "sh", "-c", script])
        .ok();
    let mut ranks: Vec<Vec<String>> = done
        .stdout
        .lines()
        .filter_map(|line| Some(line.split_once(" | ")?.1.split(' ').map(str::to_owned).collect()))
        .collect();
    ranks.sort();
    assert_eq!(ranks.len(), 4, "{done:#?}");
    for (rank, words) in ranks.iter().enumerate() {
        assert_eq!(words[..3], [rank.to_string(), (rank % 2).to_string(), "4".into()]);
        assert_eq!(words[3..], ranks[0][3..], "all ranks know the same nodes and meet at one place");
    }
    let nodes: BTreeSet<&str> = ranks[0][3].split(',').collect();
    assert_eq!(nodes, BTreeSet::from(["n1", "n2"]));
    assert_eq!(ranks[0][4], "127.0.0.1");
    assert!(ranks[0][5].parse::<u16>().is_ok());
    let events = cluster.events("default-1");
    assert_eq!(history::most_at_once(&events, "default-1", 0, "RUNNING"), 1);
    // The ranks of one task are told apart.
    let one = cluster.call(&["logs", "1", "--step", "main", "--rank", "3", "--raw"]).ok();
    assert_eq!(one.stdout.split(' ').next(), Some("3"));
}

#[test]
fn jobs_wait_for_other_jobs() {
    let cluster = Cluster::new("after", 1, "2");
    let flag = cluster.dir.join("flag");
    let script = format!("while [ ! -e {} ]; do sleep 0.05; done", flag.display());
    let good = cluster.submit(&["--", "sh", "-c", &script]);
    let bad = cluster.submit(&["--retries", "0", "--", "sh", "-c", &format!("{script}; exit 5")]);
    let after = |how: &str, id: &str| cluster.submit(&["--after", &format!("{how}:{id}"), "--", "true"]);
    let jobs = [
        (after("ok", &good), "COMPLETED"),
        (after("ok", &bad), "CANCELLED"),
        (after("notok", &good), "CANCELLED"),
        (after("notok", &bad), "COMPLETED"),
        (after("any", &good), "COMPLETED"),
        (after("any", &bad), "COMPLETED"),
    ];
    for (id, _) in &jobs {
        assert_eq!(cluster.state(id), "PENDING");
    }
    let why = cluster.call(&["why", &jobs[0].0, "-o", "json"]).ok().json();
    assert!(why.to_string().contains(&good), "{why}");
    fs::write(flag, "").unwrap();
    assert_eq!(cluster.call(&["wait", &good, &bad]).code, 5);
    for (id, state) in &jobs {
        cluster.until_state(id, state);
        let job = cluster.show(id);
        if *state == "CANCELLED" {
            assert_eq!(job["cause"]["kind"], "DEPENDENCY_FAILED", "{job:#}");
            cluster.call(&["wait", id]).exit(1);
        }
    }
    // One that can never be is refused.
    cluster.call(&["submit", "--after", "ok:99", "--", "true"]).says(3, &["99"]);
}

#[test]
fn tasks_wait_for_single_tasks_of_other_jobs() {
    let mut cluster = Cluster::new("each", 1, "4");
    let flag = cluster.dir.join("flag");
    let script = format!(
        "case $DRUMLINE_TASK in 2) exit 4;; 3) while [ ! -e {} ]; do sleep 0.05; done;; esac",
        flag.display()
    );
    let first = cluster.submit(&["--array", "1-3", "--retries", "0", "--", "sh", "-c", &script]);
    let each = format!("each:{first}");
    let like = cluster.submit(&["--array", "1-3", "--after", &each, "--", "true"]);
    let one = cluster.submit(&["--after", &format!("ok:{first}/main[3]"), "--", "true"]);
    let completed = |cluster: &Cluster, id: &str| cluster.show(id)["steps"][0]["completed"].clone();
    until_true("its like has completed", || completed(&cluster, &like) == 1);
    let shown = cluster.call(&["show", &one]).ok().stdout;
    assert!(shown.contains(&format!("\nafter      ok:{first}/main[3]\n")), "{shown}");
    let why = cluster.call(&["why", &one]).ok().stdout;
    assert!(why.contains(&format!("waits for task 3 of job {first} to complete; it is RUNNING")), "{why}");

    // A server that was killed knows it from its rows.
    cluster.server.kill();
    cluster.server.restart();
    assert_eq!((completed(&cluster, &like), cluster.state(&one)), (1.into(), "PENDING".to_owned()));
    fs::write(&flag, "").unwrap();
    cluster.until_state(&one, "COMPLETED");
    cluster.until_state(&like, "CANCELLED");
    let job = cluster.show(&like);
    assert_eq!((&job["steps"][0]["completed"], &job["steps"][0]["cancelled"]), (&2.into(), &1.into()));
    assert_eq!(
        job["cause"]["text"],
        json!(format!(
            "step main: task 2: the task of job {first} step main with its index did not complete"
        ))
    );

    // One that has ended is looked at in its rows: what completed, and what did not.
    let late = cluster.submit(&["--array", "2-4", "--after", &each, "--", "true"]);
    cluster.until_state(&late, "CANCELLED");
    assert_eq!(completed(&cluster, &late), 1);
    for (after, word) in [
        (format!("ok:{first}[9]"), "has no task 9; its tasks are 1-3"),
        (format!("each:{one}"), "has no array"),
        (format!("each:{first}/x"), "its arrays are: main"),
    ] {
        cluster.call(&["submit", "--array", "1-3", "--after", &after, "--", "true"]).says(3, &[&after, word]);
    }
}

#[test]
fn a_task_past_its_time_is_ended() {
    let cluster = Cluster::new("time", 1, "2");
    let done = cluster.call(&[
        "submit",
        "--time",
        "1s",
        "--retries",
        "0",
        "--wait",
        "-o",
        "json",
        "--",
        "sleep",
        "3601",
    ]);
    assert_ne!(done.code, 0);
    let id = done.json()["id"].as_str().unwrap().to_owned();
    let job = cluster.show(&id);
    assert_eq!((&job["state"], &job["exit_code"]), (&json!("FAILED"), &json!(done.code)));
    assert_eq!(job["steps"][0]["timeout"], "1s");
    let events = cluster.events(&id);
    assert!(events.iter().any(|event| !event.tasks.is_empty() && event.cause == "TIMEOUT"), "{events:#?}");
    assert!(processes::with_word("3601").is_empty());
    println!("a task past its time exits {}", done.code);
}

#[test]
fn a_program_that_cannot_be_run_ends_as_a_shell_says() {
    let cluster = Cluster::new("programs", 1, "1");
    let plain = cluster.dir.file("plain", "no program");
    for (program, code, said) in
        [("/no/such/program", 127, "not found"), (plain.as_str(), 126, "may not be executed")]
    {
        let done = cluster.call(&["submit", "--retries", "0", "--wait", "-o", "json", "--", program]);
        let id = done.exit(code).json()["id"].as_str().unwrap().to_owned();
        let cause = cluster.show(&id)["steps"][0]["cause"].clone();
        assert_eq!((&cause["kind"], &cause["exit_code"]), (&json!("LAUNCH_FAILED"), &json!(code)), "{cause}");
        assert!(cause["text"].as_str().unwrap().contains(said), "{cause}");
    }
}

#[test]
fn failures_are_tried_again_as_often_as_told() {
    let cluster = Cluster::new("retries", 2, "2");
    let done = cluster
        .call(&["submit", "--retries", "2", "--wait", "-o", "json", "--", "sh", "-c", "exit 7"])
        .exit(7);
    assert!(done.stderr.contains("main failed after 3 attempts: exit code 7"), "{done:#?}");
    let task = only_task(&cluster, "default-1");
    assert_eq!((task.attempts, task.state.as_str()), (3, "FAILED"));
    assert_eq!(task.requeued, ["EXIT", "EXIT"]);
    assert_ne!(task.nodes[0], task.nodes[1], "a retry avoids the node it failed on");
    // It may succeed later.
    let script = "[ $DRUMLINE_ATTEMPT = 2 ]";
    cluster.call(&["submit", "--retries", "1", "--wait", "--", "sh", "-c", script]).ok();
    assert_eq!(only_task(&cluster, "default-2").requeued, ["EXIT"]);
    cluster.call(&["submit", "--retries", "0", "--wait", "--", "false"]).exit(1);
    assert_eq!(only_task(&cluster, "default-3").attempts, 1);
    // A signal is 128 + n; of an array, the highest code counts.
    cluster.call(&["submit", "--retries", "0", "--wait", "--", "sh", "-c", "kill -9 $$"]).exit(137);
    assert_eq!(cluster.show("4")["steps"][0]["cause"]["signal"], json!(9), "{:#}", cluster.show("4"));
    let script = "exit $DRUMLINE_TASK";
    cluster
        .call(&["submit", "--array", "0-6:2", "--retries", "0", "--wait", "--", "sh", "-c", script])
        .exit(6);
}

#[test]
fn higher_priorities_go_first() {
    let cluster = Cluster::new("priority", 1, "1");
    cluster.call(&["node", "drain", "n1", "--reason", "a test"]).ok();
    let nodes = cluster.call(&["nodes", "-o", "json"]).ok().json();
    assert_eq!((&nodes[0]["state"], &nodes[0]["drain_reason"]), (&json!("DRAINED"), &json!("a test")));
    let low = cluster.submit(&["--priority", "-5", "--", "true"]);
    let usual = cluster.submit(&["--", "true"]);
    let high = cluster.submit(&["--priority", "10", "--", "true"]);
    let why = cluster.call(&["why", &low, "-o", "json"]).ok().json();
    assert!(why.to_string().contains("n1"), "{why}");
    cluster.call(&["node", "resume", "n1"]).ok();
    cluster.call(&["wait", &low, &usual, &high]).ok();
    let events = cluster.all_events();
    let begun = events.iter().filter(|event| event.step.is_none() && event.to == "STAGING");
    assert_eq!(begun.map(|event| event.job.as_str()).collect::<Vec<_>>(), [&high, &usual, &low]);
}

#[test]
fn a_key_makes_one_job_and_a_dry_run_none() {
    let cluster = Cluster::new("keys", 1, "2");
    let file = cluster.dir.file("job.toml", "name = 'n'\n[[step]]\nrun = 'true'\n");
    let submit = |args: &[&str]| cluster.call(&[&["submit", "-o", "json"], args].concat());
    let first = submit(&["--idempotency-key", "k", &file]).ok().json();
    assert_eq!(first, json!({"id": "default-1"}));
    let second = submit(&["--idempotency-key", "k", &file]).ok().json();
    assert_eq!(second, json!({"id": "default-1", "existing": true}));
    submit(&["--idempotency-key", "k", "--", "other"])
        .says(3, &["idempotency_key = k", "default-1", "a new key"]);
    // Also once the job is over, and for all at once.
    cluster.call(&["wait", "1"]).ok();
    assert_eq!(submit(&["--idempotency-key", "k", &file]).ok().json()["existing"], json!(true));
    let many: Vec<Running> = (0..8)
        .map(|_| {
            Running::start(&mut cluster.command(&[
                "submit",
                "--idempotency-key",
                "many",
                "-o",
                "name",
                &file,
            ]))
        })
        .collect();
    let ids: BTreeSet<String> = many.into_iter().map(|one| one.wait().ok().stdout).collect();
    assert_eq!(ids.len(), 1, "{ids:?}");
    assert_eq!(cluster.job_ids().len(), 2);

    let dry = submit(&["--dry-run", "--array", "1-100", "--", "true"]).ok().json();
    assert_eq!((&dry["id"], &dry["dry_run"], &dry["tasks"]), (&Value::Null, &json!(true), &json!(100)));
    assert_eq!(dry["price"], "0.00");
    submit(&["--dry-run", "--cores", "3", "--", "true"]).says(3, &["step[0].cores = 3", "n1"]);
    assert_eq!(cluster.job_ids().len(), 2, "a dry run submits nothing");
}

#[test]
fn lists_are_filtered_by_label_and_state() {
    let cluster = Cluster::new("lists", 1, "2");
    cluster.submit(&["--label", "team=blue", "--label", "kind=a", "--name", "one", "--", "true"]);
    cluster.submit(&["--label", "team=red", "--name", "two", "--retries", "0", "--", "false"]);
    cluster.submit(&["--label", "team=blue", "--name", "three", "--retries", "0", "--", "false"]);
    cluster.call(&["wait", "1", "2", "3"]).exit(1);
    let names = |args: &[&str]| -> Vec<String> {
        let jobs = cluster.call(&[&["ls", "-o", "json"], args].concat()).ok().json();
        jobs.as_array().unwrap().iter().map(|job| job["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&[]), ["three", "two", "one"]);
    assert_eq!(names(&["--label", "team=blue"]), ["three", "one"]);
    assert_eq!(names(&["--label", "team=blue", "--state", "completed"]), ["one"]);
    assert_eq!(names(&["--state", "failed"]), ["three", "two"]);
    assert_eq!(names(&["-n", "1"]), ["three"]);
    assert_eq!(names(&["--state", "running"]), Vec::<String>::new());
    cluster.call(&["ls", "--state", "asleep"]).says(2, &["state = asleep", "pending"]);
    let table = cluster.call(&["ls", "-o", "wide"]).ok().stdout;
    assert!(table.starts_with("ID") && table.contains("default-1"), "{table}");
    assert_eq!(cluster.job_ids(), ["default-3", "default-2", "default-1"]);
}

// ------------------------------------------------------------- while jobs run

#[test]
fn logs_and_events_are_followed_while_they_come() {
    let cluster = Cluster::new("follow", 1, "2");
    let flag = cluster.dir.join("flag");
    let script =
        format!("echo first; while [ ! -e {} ]; do sleep 0.05; done; echo last; exit 3", flag.display());
    let follow = ["submit", "--retries", "0", "--follow", "-o", "name", "--", "sh", "-c", &script];
    let followed = Running::start(&mut cluster.command(&follow));
    until_true("the first line is followed", || followed.stdout().contains("main | first\n"));
    let id = followed.stdout().lines().next().unwrap().to_owned();
    let logs = Running::start(&mut cluster.command(&["logs", "-f", &id]));
    let mut events = Running::start(&mut cluster.command(&["events", "-f", &id, "-o", "json"]));
    let wait = Running::start(&mut cluster.command(&["wait", &id]));
    until_true("lines come before the end", || {
        logs.stdout() == "main | first\n" && events.stdout().contains("STARTED")
    });
    assert!(!events.is_over());
    assert_eq!(cluster.state(&id), "RUNNING");
    let why = cluster.call(&["why", &id, "-o", "json"]).ok().json();
    assert!(why.to_string().contains("n1"), "{why}");
    fs::write(flag, "").unwrap();
    let done = followed.wait().exit(3);
    assert_eq!(done.stdout, format!("{id}\nmain | first\nmain | last\n"));
    assert!(done.stderr.contains("main failed after 1 attempt: exit code 3"), "{done:#?}");
    assert_eq!(logs.wait().ok().stdout, "main | first\nmain | last\n");
    wait.wait().exit(3);
    let told = history::read(&events.wait().ok());
    let last = told.last().unwrap();
    assert_eq!((last.to.as_str(), last.step), ("FAILED", None));
    assert_eq!(told.len(), cluster.events(&id).len());
    let later = cluster.call(&["events", "--from", &last.seq.to_string(), "-o", "json"]).ok();
    assert_eq!(history::read(&later).first().unwrap().seq, last.seq);
    cluster.call(&["wait", &id, "--timeout", "1h"]).exit(3);
}

#[test]
fn followers_outlive_the_servers_death() {
    let mut cluster = Cluster::new("follow-kill", 1, "2");
    let flag = cluster.dir.join("flag");
    let script =
        format!("echo before; while [ ! -e {} ]; do sleep 0.05; done; echo after; exit 4", flag.display());
    let id = cluster.submit(&["--retries", "0", "--", "sh", "-c", &script]);
    let logs = Running::start(&mut cluster.command(&["logs", "-f", &id]));
    let events = Running::start(&mut cluster.command(&["events", "-f", &id, "-o", "json"]));
    let wait = Running::start(&mut cluster.command(&["wait", &id]));
    until_true("they follow", || logs.stdout().contains("before") && events.stdout().contains("STARTED"));
    cluster.server.kill();
    cluster.server.restart();
    fs::write(flag, "").unwrap();
    assert_eq!(logs.wait().ok().stdout, "main | before\nmain | after\n");
    wait.wait().exit(4);
    let told = history::read(&events.wait().ok());
    let all = cluster.events(&id);
    let seqs = |events: &[history::Event]| events.iter().map(|event| event.seq).collect::<Vec<_>>();
    assert_eq!(seqs(&told), seqs(&all));
    assert_eq!(only_task(&cluster, &id).attempts, 1);
}

#[test]
fn cancel_ends_what_runs_and_what_waits() {
    let cluster = Cluster::new("cancel", 1, "2");
    // Children of the task go with it.
    let mark = format!("{}.25", 100_000 + std::process::id());
    let script = format!("sleep {mark} & sleep {mark}");
    let id = cluster.submit(&["--array", "1-5", "--cores", "1", "--", "sh", "-c", &script]);
    until_true("it runs", || processes::with_word(&mark).len() == 4);
    let follower = Running::start(&mut cluster.command(&["logs", "-f", &id]));
    let done = cluster.call(&["cancel", &id, "--reason", "wrong input"]).ok();
    assert!(done.stdout.contains(&id), "{done:#?}");
    cluster.until_state(&id, "CANCELLED");
    until_true("the processes are gone", || processes::with_word(&mark).is_empty());
    let job = cluster.show(&id);
    assert_eq!(job["cause"]["kind"], "CANCELLED_BY_USER", "{job:#}");
    assert!(job["cause"]["text"].as_str().unwrap().contains("wrong input"), "{job:#}");
    let tasks = history::follow(&cluster.events(&id));
    assert_eq!(tasks.len(), 5);
    assert!(tasks.values().all(|task| task.state == "CANCELLED"), "{tasks:?}");
    // Its tasks were ended by TERM.
    cluster.call(&["wait", &id]).exit(143);
    follower.wait().ok();
    // Again it changes nothing, and what is over stays so.
    cluster.call(&["cancel", &id]).ok();
    assert_eq!(cluster.state(&id), "CANCELLED");
    let over = cluster.submit(&["--", "true"]);
    cluster.call(&["wait", &over]).ok();
    cluster.call(&["cancel", &over]);
    assert_eq!(cluster.state(&over), "COMPLETED");
}

#[test]
fn a_task_that_ignores_term_is_killed() {
    let cluster = Cluster::new("stubborn", 1, "2");
    let id = cluster.submit(&["--", "sh", "-c", "trap '' TERM; echo deaf; while :; do sleep 0.1; done"]);
    until_true("it is deaf", || log(&cluster, &id).contains("deaf"));
    cluster.call(&["cancel", &id]).ok();
    cluster.until_state(&id, "CANCELLED");
    until_true("it is gone", || {
        processes::below(&cluster.nodes[0].data, cluster.nodes[0].supervisor()).is_empty()
    });
}

#[test]
fn what_failed_is_tried_again_once_its_cause_is_mended() {
    let cluster = Cluster::new("retry", 1, "4");
    let cause = cluster.dir.join("cause");
    let text = format!(
        "[[step]]\nname = 'work'\narray = '0-3'\nretries = 0\nrun = 'test $DRUMLINE_TASK != 2 || cat {}'\n\
         [[step]]\nname = 'last'\nafter = ['work']\nrun = 'echo done > word'\noutputs = ['word']\n",
        cause.display()
    );
    let job = cluster.dir.file("job.toml", &text);
    let id = cluster.submit(&[&job]);
    cluster.call(&["wait", &id]).exit(1);
    let view = cluster.show(&id);
    assert_eq!((&view["state"], &view["steps"][1]["state"]), (&json!("FAILED"), &json!("CANCELLED")));
    fs::write(cause, "mended").unwrap();
    let done = cluster.call(&["retry", &id]).ok();
    assert!(done.stdout.contains("2 tasks to be tried again"), "{done:#?}");
    cluster.call(&["wait", &id]).ok();
    assert_eq!(cluster.state(&id), "COMPLETED");
    let starts = |step: u64| {
        let events = cluster.events(&id);
        let started = events.iter().filter(|event| event.step == Some(step) && event.to == "RUNNING");
        started.flat_map(|event| event.ordinals().collect::<Vec<_>>()).collect::<Vec<_>>()
    };
    assert_eq!(starts(0).iter().filter(|task| **task == 2).count(), 2);
    assert_eq!(starts(0).len(), 5, "only what failed ran again");
    assert_eq!(starts(1).len(), 1);
    // Nothing is left to be tried, unless one says where to begin.
    cluster.call(&["retry", &id]).says(3, &["--from-step"]);
    cluster.call(&["retry", &id, "--from-step", "last"]).ok();
    cluster.call(&["wait", &id]).ok();
    assert_eq!((starts(0).len(), starts(1).len()), (5, 2));
    let names = cluster.call(&["outputs", &id, "-o", "name"]).ok().stdout;
    assert_eq!(names, "last/word\n", "one manifest a step");
    history::check_gapless(&cluster.all_events());
}
