//! Several servers that share a store and a directory: one serves, another takes over.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests stand outside the world they drive"
)]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use support::{DEADLINE, Dir, Done, Running, client_env, drumline, history, run, until, until_true};

/// A store, some servers, one agent, each a process of its own.
struct Shared {
    store: Running,
    servers: Vec<Option<Running>>,
    /// Of all servers, with commas between.
    addresses: String,
    token: String,
    store_env: (String, String),
    data: PathBuf,
    dir: Dir,
}

/// The word behind these in what a process wrote, once it has.
fn told(process: &Running, before: &str) -> String {
    until(DEADLINE, before, || {
        let text = process.stdout();
        let rest = text.split_once(before)?.1;
        rest.split_once(';').map(|(word, _)| word.trim_start_matches("http://").to_owned())
    })
}

fn start_server(store: &(String, String), data: &Path, listen: &str) -> Running {
    let mut command = drumline();
    command.args(["server", "--listen", listen, "--data"]).arg(data);
    Running::start(command.args(["--store", &store.0, "--store-token", &store.1]))
}

impl Shared {
    fn new(name: &str, count: usize) -> Self {
        let dir = Dir::new(name);
        let store_data = dir.join("store");
        let store =
            Running::start(drumline().args(["store", "--listen", "127.0.0.1:0", "--data"]).arg(&store_data));
        told(&store, "store listening on ");
        let text = std::fs::read_to_string(store_data.join("store.env")).unwrap();
        let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).unwrap().to_owned();
        let store_env = (value("export DRUMLINE_STORE="), value("export DRUMLINE_STORE_TOKEN="));
        let data = dir.join("shared");
        let servers: Vec<_> =
            (0..count).map(|_| Some(start_server(&store_env, &data, "127.0.0.1:0"))).collect();
        let addresses: Vec<String> =
            servers.iter().flatten().map(|server| told(server, "listening on ")).collect();
        let addresses = addresses.join(",");
        let mut shared = Self { store, servers, addresses, token: String::new(), store_env, data, dir };
        shared.serving();
        shared.token = client_env(&shared.data).1;
        shared
    }

    /// The one that serves.
    fn serving(&self) -> usize {
        until(DEADLINE, "one of them serves", || {
            let last = |server: &Running| {
                let text = server.stderr();
                let (serving, standing) = (text.rfind("serving; "), text.rfind("standing by; "));
                serving > standing
            };
            self.servers.iter().position(|server| server.as_ref().is_some_and(last))
        })
    }

    fn address(&self, server: usize) -> &str {
        self.addresses.split(',').nth(server).unwrap()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = drumline();
        command.args(args).env("DRUMLINE_SERVER", &self.addresses).env("DRUMLINE_TOKEN", &self.token);
        command
    }

    fn call(&self, args: &[&str]) -> Done {
        run(&mut self.command(args))
    }

    fn start_agent(&self) -> Running {
        let data = self.dir.join("n1");
        let mut command = self.command(&["agent", "--node", "n1", "--cores", "4", "--memory", "1GiB"]);
        Running::start(command.arg("--data").arg(data))
    }

    fn kill(&mut self, server: usize) {
        // SIGKILL, as for every process that is dropped here.
        drop(self.servers[server].take());
    }

    fn restart(&mut self, server: usize) {
        let listen = self.address(server).to_owned();
        self.servers[server] = Some(start_server(&self.store_env, &self.data, &listen));
    }
}

/// An agent's supervisor and its tasks end with the test.
struct Swept<'a>(&'a Path);

impl Drop for Swept<'_> {
    fn drop(&mut self) {
        let supervisor = support::processes::supervisor_of(self.0);
        let mut doomed = support::processes::below(self.0, supervisor);
        doomed.extend(supervisor);
        support::processes::signal("KILL", &doomed);
    }
}

#[test]
fn another_takes_over_in_the_midst_of_an_array() {
    let mut shared = Shared::new("servers", 2);
    let node = shared.dir.join("n1");
    let _swept = Swept(&node);
    let agent = shared.start_agent();
    until_true("the agent works", || agent.stdout().contains("works for"));
    let first = shared.serving();

    // Whoever does not serve says so at once, in the words of who asks.
    let other = shared.address(1 - first).to_owned();
    run(drumline().args(["ls", "--server", &other, "--token", &shared.token])).says(4, &["stands by"]);

    let script = "echo task $DRUMLINE_TASK; sleep 0.1";
    let submit = ["submit", "-o", "json", "--array", "1-200", "--cores", "1", "--", "sh", "-c", script];
    let job = shared.call(&submit).ok().json()["id"].as_str().unwrap().to_owned();
    let done = |shared: &Shared| {
        let events = history::read(&shared.call(&["events", &job, "-o", "json"]).ok());
        history::follow(&events).values().filter(|task| task.completed > 0).count()
    };
    until_true("some of them are done", || done(&shared) >= 10);
    shared.kill(first);
    // The client goes to the next, and waits for it to take over.
    shared.call(&["wait", &job]).ok();
    assert_eq!(shared.serving(), 1 - first);

    let events = history::read(&shared.call(&["events", "-o", "json"]).ok());
    history::check_gapless(&events);
    let tasks = history::follow(&events);
    assert_eq!(tasks.len(), 200);
    for (name, task) in &tasks {
        assert_eq!((task.completed, task.state.as_str()), (1, "COMPLETED"), "{name:?} {task:?}");
    }
    // Logs of before and after, each line once.
    let logs = shared.call(&["logs", &job]).ok().stdout;
    let mut lines: Vec<&str> = logs.lines().filter_map(|line| line.split("task ").nth(1)).collect();
    lines.sort_unstable();
    lines.dedup();
    assert_eq!((lines.len(), logs.lines().count()), (200, 200), "{logs}");

    // And back, with the first one standing by meanwhile.
    shared.restart(first);
    told(shared.servers[first].as_ref().unwrap(), "listening on ");
    shared.kill(1 - first);
    let again = ["submit", "-o", "json", "--", "true"];
    let job = shared.call(&again).ok().json()["id"].as_str().unwrap().to_owned();
    shared.call(&["wait", &job]).ok();
    assert_eq!(shared.serving(), first);
}

#[test]
fn one_that_is_told_to_stop_hands_over_at_once() {
    let shared = Shared::new("servers-stop", 2);
    let first = shared.serving();
    let pid = shared.servers[first].as_ref().unwrap().pid();
    support::processes::signal("TERM", &[pid]);
    let begun = std::time::Instant::now();
    until_true("the other serves", || {
        let other = shared.servers[1 - first].as_ref().unwrap();
        other.stderr().contains("serving; ")
    });
    // Its lease would have lasted ten seconds.
    assert!(begun.elapsed().as_secs() < 9, "{:?}", begun.elapsed());
    shared.call(&["ls"]).ok();
}

#[test]
fn what_is_wrong_is_said_at_once() {
    let mut shared = Shared::new("servers-wrong", 1);
    let (store, token) = shared.store_env.clone();
    let with = |store: &str, token: &str, data: &Path| {
        let mut command = drumline();
        command.args(["server", "--listen", "127.0.0.1:0", "--store", store, "--data"]).arg(data);
        if !token.is_empty() {
            command.args(["--store-token", token]);
        }
        run(&mut command)
    };
    let elsewhere = shared.dir.join("elsewhere");
    with(&store, "dl_00", &elsewhere).says(1, &["store", "token"]);
    with(&store, "", &elsewhere).says(2, &["store-token"]);
    // The store is no server, and knows no other token.
    run(drumline().args(["ls", "--server", &store, "--token", &token])).says(3, &["missing.operation"]);

    // A directory of its own is not the one that the others have.
    shared.kill(0);
    let mut alone = start_server(&shared.store_env, &elsewhere, "127.0.0.1:0");
    until_true("it is refused", || alone.is_over());
    assert!(alone.stderr().contains("is not the one that the other servers"), "{}", alone.stderr());
    assert!(!shared.store.is_over());
}
