//! Slips, absurdities and a hostile machine: each is told in one line with
//! field, value and remedy, and nothing is half accepted.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests stand outside the world they drive"
)]

mod support;

use prost::Message as _;
use proto::{keys, v1::FormatRow};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use store::{Commit, RedbStore, Store as _};
use support::{Cluster, DEADLINE, Dir, Done, Server, drumline, run, until};
use world::real::{FsDisk, SystemClock};

fn no_jobs(cluster: &Cluster) {
    assert_eq!(cluster.job_ids(), Vec::<String>::new(), "something was half accepted");
    assert_eq!(cluster.all_events().len(), 0);
}

#[test]
fn a_job_file_with_a_slip_is_refused_at_the_door() {
    let cluster = Cluster::new("job-files", 1, "4");
    let step = |rest: &str| format!("[[step]]\nname = 'a'\nrun = 'true'\n{rest}\n");
    let table: &[(String, &[&str])] = &[
        ("[[step]\n".to_owned(), &["[[step]", "line 1, column 8"]),
        ("name = 'x\n[[step]]\nrun = 'true'".to_owned(), &["line 1"]),
        (step("core = 1"), &["core", "line 4", "`cores`"]),
        ("[[steps]]\nrun = 'true'\n[deploy]\nx = 1".to_owned(), &["deploy", "line 3"]),
        (String::new(), &["step"]),
        (step("after = ['a']"), &["step[0].after", "a"]),
        (step("after = ['b']\n[[step]]\nname = 'b'\nafter = ['a']\nrun = 'true'"), &["after", "a -> b -> a"]),
        (step("after = ['nosuch']"), &["step[0].after", "nosuch"]),
        (step("[[step]]\nname = 'a'\nrun = 'true'"), &["step[1].name", "a"]),
        (step("argv = ['true']"), &["step[0]", "argv"]),
        ("[[step]]\nname = 'a'\n".to_owned(), &["step[0]", "run"]),
        (step("cores = 0"), &["step[0].cores = 0", "above 0"]),
        (step("cores = -1"), &["step[0].cores = -1"]),
        (step("cores = 'many'"), &["step[0].cores = many"]),
        (step("cores = 5"), &["step[0].cores = 5", "the largest, n1 of pool default, has 4 cores"]),
        (step("memory = 0"), &["step[0].memory = 0"]),
        (step("memory = '99999999TiB'"), &["step[0].memory = 99999999TiB"]),
        (step("memory = '2GiB'"), &["step[0].memory = 2GiB", "n1", "1GiB"]),
        (step("gpus = 1"), &["step[0].gpus = 1", "n1"]),
        (step("nodes = 0"), &["step[0].nodes = 0"]),
        (step("nodes = 2"), &["step[0].nodes = 2", "only 1 node"]),
        (step("nodes = 100000"), &["step[0].nodes = 100000"]),
        (step("tasks_per_node = 9"), &["step[0].tasks_per_node = 9", "n1"]),
        (step("array = '1-'"), &["step[0].array = 1-"]),
        (step("array = '9-1'"), &["step[0].array = 9-1", "backwards"]),
        (step("array = '0-9%0'"), &["step[0].array = 0-9%0"]),
        (step("array = '0-99999999999'"), &["step[0].array = 0-99999999999", "10000000"]),
        (step("array = '1,1'"), &["step[0].array"]),
        (step("array = '0-3'\nnodes = 2"), &["step[0].array = 0-3", "gang"]),
        (step("timeout = 0"), &["step[0].timeout = 0"]),
        (step("timeout = '9999d'"), &["step[0].timeout = 9999d", "366d"]),
        (step("retries = 1000"), &["step[0].retries = 1000", "100"]),
        (step("retries = -1"), &["retries", "line 4"]),
        (step("outputs = ['/etc/passwd']"), &["step[0].outputs[0] = /etc/passwd", "absolute"]),
        (step("outputs = ['../x']"), &["step[0].outputs[0] = ../x"]),
        (step("env = { 'A=B' = 'x' }"), &["step[0].env", "A=B"]),
        (step("pool = 'nosuch'"), &["step[0].pool = nosuch", "choose one of: default"]),
        (step("constraints = ['disk=ssd']"), &["step[0].constraints = disk=ssd"]),
        (step("runtime = 'ray'"), &["step[0].runtime = ray"]),
        (format!("priority = 100000\n{}", step("")), &["priority = 100000", "1000"]),
        (format!("name = '{}'\n{}", "x".repeat(500), step("")), &["name", "128"]),
        (format!("[[input]]\nname = 'i'\n{}", step("")), &["input[0]", "path"]),
        (
            format!(
                "[[input]]\nname = 'i'\nurl = 'ftp://host/x'\ndigest = '{}'\n{}",
                "a".repeat(64),
                step("")
            ),
            &["input[0].url = ftp://host/x", "has a scheme that is not known", "[spec.url]"],
        ),
        (
            format!("[[input]]\nname = 'i'\nurl = 'http://host/x'\n{}", step("")),
            &["input[0].digest", "sha256sum", "[spec.input]"],
        ),
        (format!("[[input]]\nname = '../i'\npath = 'job.toml'\n{}", step("")), &["input[0].name = ../i"]),
        (step(&format!("env = {{ A = '{}' }}", "x".repeat(40_000))), &["step[0].env.A = xxx", "too long"]),
        (many_steps(300), &["step", "256"]),
        (large_spec(), &["524288"]),
    ];
    for (text, words) in table {
        let file = cluster.dir.file("job.toml", text);
        let mut all = vec![cluster.call(&["submit", &file]), cluster.call(&["submit", "--dry-run", &file])];
        if text.len() < 1000 {
            all.push(cluster.call(&["run", &file]));
        }
        for done in all {
            assert_eq!(done.stdout, "");
            done.says(3, words);
        }
    }
    no_jobs(&cluster);
    // After all that a good one is taken, with the first number.
    assert_eq!(cluster.submit(&["--", "true"]), "default-1");
}

fn many_steps(count: usize) -> String {
    (0..count).map(|at| format!("[[step]]\nname = 's{at}'\nrun = 'true'\n")).collect()
}

/// Every part of it is of a size that is allowed.
fn large_spec() -> String {
    let value = "x".repeat(30_000);
    let env: Vec<String> = (0..20).map(|at| format!("V{at} = '{value}'")).collect();
    format!("[[step]]\nrun = 'true'\nenv = {{ {} }}\n", env.join(", "))
}

#[test]
fn what_cannot_be_read_is_wrong_use_or_too_large() {
    let cluster = Cluster::bare("files");
    let call = |args: &[&str]| cluster.call(args);
    call(&["submit", "nosuch.toml"]).says(2, &["job file = nosuch.toml", "No such file", "correct the path"]);
    call(&["submit", "."]).says(2, &["is a directory"]);
    call(&["run", "nosuch.toml"]).says(2, &["nosuch.toml"]);
    fs::write(cluster.dir.join("binary"), [0xff, 0xfe, 0, 1]).unwrap();
    call(&["submit", "binary"]).says(2, &["binary", "UTF-8"]);
    cluster.dir.file("huge.toml", &"# a line that says nothing\n".repeat(50_000));
    call(&["submit", "huge.toml"]).says(3, &["huge.toml", "1048576"]);
    let input =
        cluster.dir.file("in.toml", "[[input]]\nname = 'i'\npath = 'nosuch'\n[[step]]\nrun = 'true'\n");
    call(&["submit", &input]).says(2, &["nosuch", "No such file"]);
    no_jobs(&cluster);
}

#[test]
fn flags_with_slips_are_told_by_name() {
    let cluster = Cluster::new("flags", 1, "4");
    let submit = |flags: &str| {
        let words: Vec<&str> = ["submit"].into_iter().chain(flags.split(' ')).chain(["--", "true"]).collect();
        cluster.call(&words)
    };
    submit("--cores 0").says(3, &["--cores = 0", "above 0"]);
    submit("--cores 99").says(3, &["cores = 99", "n1", "4 cores"]);
    submit("--memory 900GiB").says(3, &["memory = 900GiB", "n1"]);
    submit("--memory lots").says(3, &["--memory = lots"]);
    submit("--nodes 0").says(3, &["--nodes = 0"]);
    submit("--nodes 3 --tasks-per-node 2").says(3, &["nodes = 3", "only 1 node"]);
    submit("--array 1-5%0").says(3, &["array = 1-5%0"]);
    submit("--time 0").says(3, &["--time = 0"]);
    submit("--retries 101").says(3, &["retries = 101"]);
    submit("--priority 1001").says(3, &["priority = 1001"]);
    submit("--after 3").says(2, &["--after = 3", "ok:ID"]);
    submit("--after ok:77").says(3, &["77"]);
    submit("--label team").says(2, &["--label = team", "KEY=VALUE"]);
    submit("--input book").says(2, &["--input = book"]);
    submit(&format!("--idempotency-key {}", "k".repeat(200))).says(3, &["idempotency", "128"]);
    cluster.call(&["submit", "--retries", "x", "--", "true"]).exit(2);
    cluster.call(&["submit"]).exit(2);
    cluster.call(&["frobnicate"]).exit(2);
    cluster.call(&["ls", "-o", "yaml"]).exit(2);
    no_jobs(&cluster);

    for command in ["show", "logs", "why", "wait", "cancel", "retry", "outputs", "events"] {
        cluster.call(&[command, "99"]).says(3, &["default-99", "no such job"]);
        cluster.call(&[command, "other-1"]).says(3, &["other", "there is no such"]);
        cluster.call(&[command, "NO ID"]).says(2, &["NO ID"]);
    }
    cluster.call(&["node", "drain", "n9"]).says(3, &["n9"]);
    cluster.call(&["tenants", "create", "Bad Name"]).says(3, &["Bad Name"]);
    cluster.call(&["tokens", "create", "x", "--for", "nosuch"]).says(3, &["nosuch"]);
    cluster.call(&["logs", "1", "--tail", "soon"]).says(3, &["default-1"]);
}

#[test]
fn strangers_are_turned_away() {
    let cluster = Cluster::new("strangers", 1, "2");
    let zeros = "dl_00000000000000000000000000000000";
    for args in [&["ls"][..], &["submit", "--", "true"], &["nodes"], &["events"], &["tenants"]] {
        let with = |flag: &str, value: &str| cluster.call(&[&[flag, value], args].concat());
        with("--token", zeros).says(3, &["token", "not known", "drumline tokens create"]);
        with("--token", "secret").says(3, &["token", "dl_"]);
        with("--token", "").says(2, &["token", "client.env"]);
        with("--server", "127.0.0.1:1").says(4, &["server = 127.0.0.1:1", "drumline up"]);
        with("--server", "nowhere").says(2, &["server = nowhere", "host:port"]);
        let done = run(drumline().args(args));
        done.says(2, &["server", "no server is named"]);
    }
    for args in [&["ls"][..], &["submit", "--", "true"], &["events"]] {
        cluster.call(&[&["--tenant", "nosuch"], args].concat()).says(3, &["tenant = nosuch"]);
    }
    no_jobs(&cluster);

    // An agent with no right to be one, or that makes no sense, ends at once.
    let data = cluster.dir.join("agent").display().to_string();
    let agent = |args: &[&str]| {
        let mut command = cluster.command(&["agent", "--data", &data]);
        run(command.args(args))
    };
    agent(&["--token", zeros]).says(3, &["token"]);
    agent(&["--node", "Bad Name"]).says(2, &["node = Bad Name"]);
    agent(&["--cores", "0"]).says(2, &["cores = 0"]);
    agent(&["--memory", "0"]).says(2, &["memory = 0"]);
    agent(&["--label", "ssd"]).says(2, &["--label = ssd"]);
    agent(&["--server", "nowhere"]).says(2, &["server = nowhere"]);
    agent(&["--config", "/no/such/file"]).says(2, &["/no/such/file"]);
    let config = cluster.dir.file("agent.toml", "core = 3\n");
    agent(&["--config", &config]).says(2, &["agent.toml", "line 1", "core"]);
    let data = &cluster.nodes[0].data.display().to_string();
    cluster.call(&["agent", "--data", data, "--node", "n1"]).says(1, &["data = ", "n1", "--data"]);
    // What the agents above started goes with them, but for its supervisor.
    let left = support::processes::supervisor_of(&cluster.dir.join("agent"));
    support::processes::signal("KILL", left.as_slice());
}

// -------------------------------------------------------------------- servers

fn start(dir: &Dir, args: &[&str]) -> Done {
    run(drumline().arg("server").args(args).current_dir(dir.path()))
}

#[test]
fn a_server_that_cannot_start_says_what_to_do() {
    let dir = Dir::new("starts");
    let server = Server::start(&dir, &[]);
    let data = server.data.display().to_string();
    let listen = server.address.trim_start_matches("http://").to_owned();

    start(&dir, &["--data", &data, "--listen", "127.0.0.1:0"]).says(1, &["data = ", &data, "--data"]);
    start(&dir, &["--data", "other", "--listen", &listen]).says(1, &["listen = ", &listen, "in use", "port"]);
    start(&dir, &["--data", "other", "--listen", "203.0.113.7:7420"]).says(1, &["listen = 203.0.113.7:7420"]);
    start(&dir, &["--data", "other", "--listen", "here"]).exit(2);
    start(&dir, &[]).says(2, &["data", "--data DIR"]);
    start(&dir, &["--config", "nosuch.toml"]).says(2, &["nosuch.toml", "No such file"]);
    let file = dir.file("s.toml", "data = 'd'\nlisten = 'here'\n");
    start(&dir, &["--config", &file]).says(2, &["listen = here"]);
    let file = dir.file("s.toml", "data = 'd'\n[controller]\nretires = 3\n");
    start(&dir, &["--config", &file]).says(2, &["s.toml", "retires"]);
    let file = dir.file("s.toml", "data = 'd'\n[controller\n");
    start(&dir, &["--config", &file]).says(2, &["s.toml", "line 2"]);
    let file = dir.file("file", "no directory");
    start(&dir, &["--data", &file, "--listen", "127.0.0.1:0"]).says(1, &["data = ", &file]);
    assert!(!dir.join("d").exists());

    // The one that had port and data took no harm.
    run(&mut server.command(&["submit", "--", "true"])).ok();
}

fn rewrite_format(data: &Path, change: impl FnOnce(&mut FormatRow)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let disk = FsDisk::open(data.to_path_buf()).unwrap();
        let store = RedbStore::open(disk, "store.redb", Arc::new(SystemClock::new())).await.unwrap();
        let row = store.get(keys::format()).await.unwrap().unwrap();
        let mut row = FormatRow::decode(row.value).unwrap();
        change(&mut row);
        store.commit(Commit::new().put(keys::format(), row.encode_to_vec())).await.unwrap();
        store.close().await;
    });
}

#[test]
fn data_of_a_newer_version_is_left_alone() {
    let dir = Dir::new("newer");
    let mut server = Server::start(&dir, &[]);
    run(&mut server.command(&["submit", "--", "true"])).ok();
    assert_eq!(server.stop(), 0);
    rewrite_format(&server.data, |row| row.version = 99);
    let data = server.data.display().to_string();
    let env = fs::read(server.data.join("client.env")).unwrap();
    let words = ["data = ", &data, "99", "newer version", "--data"];
    start(&dir, &["--data", &data, "--listen", "127.0.0.1:0"]).says(1, &words);
    assert_eq!(fs::read(server.data.join("client.env")).unwrap(), env);
    rewrite_format(&server.data, |row| row.version = 1);
    server.restart();
    assert_eq!(run(&mut server.command(&["ls", "-o", "name"])).ok().stdout, "default-1\n");
}

#[test]
fn a_damaged_store_is_told_and_not_touched() {
    let dir = Dir::new("damaged");
    let mut server = Server::start(&dir, &[]);
    assert_eq!(server.stop(), 0);
    let path = server.data.join("store.redb");
    fs::write(&path, b"this is no store").unwrap();
    let data = server.data.display().to_string();
    start(&dir, &["--data", &data, "--listen", "127.0.0.1:0"])
        .says(1, &["data = ", &data, "damaged", "copy"]);
    assert_eq!(fs::read(&path).unwrap(), b"this is no store");
}

// ------------------------------------------------------------------- the disk

/// A small file system of its own.
struct Mount(PathBuf);

impl Mount {
    /// Nothing where this machine lets nobody mount.
    fn new(dir: &Dir, bytes: u64) -> Option<Self> {
        let path = dir.join("small");
        fs::create_dir(&path).unwrap();
        let size = format!("size={bytes}");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &size, "drumline-test"]).arg(&path);
        let done = mount.output();
        match done {
            Ok(output) if output.status.success() => Some(Self(path)),
            other => {
                println!("SKIPPED: no file system can be mounted here: {other:?}");
                None
            }
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Takes all space that is left.
fn fill(path: &Path) {
    use std::io::Write as _;
    let mut file = fs::File::create(path).unwrap();
    for size in [1 << 16, 1 << 12, 1] {
        let block = vec![1; size];
        while file.write_all(&block).is_ok() {}
    }
}

#[test]
fn a_full_disk_refuses_and_loses_nothing() {
    let dir = Dir::new("full");
    let Some(mount) = Mount::new(&dir, 24 << 20) else { return };
    let data = mount.0.join("data").display().to_string();
    let filler = mount.0.join("filler");

    // Full before the start.
    fill(&filler);
    start(&dir, &["--data", &data, "--listen", "127.0.0.1:0"])
        .says(1, &["data = ", "full", "free some space"]);
    fs::remove_file(&filler).unwrap();

    // Full in the middle.
    let mut server = Server::start_at(&dir, &PathBuf::from(&data), &[]);
    let padding = "x".repeat(20_000);
    let submit = |server: &Server, name: &str| {
        run(&mut server.command(&[
            "submit",
            "--name",
            name,
            "--env",
            &format!("PAD={padding}"),
            "-o",
            "name",
            "--",
            "true",
        ]))
    };
    let mut taken = vec![submit(&server, "first").ok().stdout];
    fill(&filler);
    let refused = (0..2_000).find_map(|number| {
        let done = submit(&server, &format!("job-{number}"));
        if done.code == 0 {
            taken.push(done.stdout);
            return None;
        }
        Some(done)
    });
    let refused = refused.expect("it is full some time");
    println!("after {} jobs: {}", taken.len(), refused.stderr.trim_end());
    refused.says(3, &["data", "full", "nothing was taken", "free some space"]);
    submit(&server, "again").says(3, &["full", "free some space"]);
    // What was taken can still be read.
    let names = |server: &Server| {
        let done = run(&mut server.command(&["ls", "-n", "100000", "-o", "name"])).ok();
        let mut names: Vec<String> = done.stdout.lines().map(|line| format!("{line}\n")).collect();
        names.reverse();
        names
    };
    assert_eq!(names(&server), taken);

    // With space again it goes on by itself.
    fs::remove_file(&filler).unwrap();
    taken.push(until(DEADLINE, "jobs are taken again", || {
        let done = submit(&server, "after");
        (done.code == 0).then_some(done.stdout)
    }));
    assert_eq!(names(&server), taken);
    server.kill();
    server.restart();
    assert_eq!(names(&server), taken);
}
