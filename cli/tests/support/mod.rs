//! Real servers, agents and client commands for one test: separate processes of
//! the `drumline` binary in a directory of the test's own.
//!
//! What must hold: nothing outlives its test, also where that panics (agents
//! take their supervisor and its tasks along); nothing is waited for without a
//! deadline; no child sees this process's own `DRUMLINE_` variables.
#![allow(dead_code, reason = "each test file takes what it needs")]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests stand outside the world they drive"
)]

pub mod chance;
pub mod cut;
pub mod history;
pub mod processes;

use serde_json::Value;
use sha2::{Digest as _, Sha256};
use std::fs::{self, File};
use std::io::{Read, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How long anything may take before its test fails. Builds and other tests
/// may share the machine.
pub const DEADLINE: Duration = Duration::from_secs(90);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// Servers whose objects go as soon as nobody names them.
pub const COLLECTING: &str = "[objects]\ncollect_every_ms = 200\nuploads_kept_ms = 1500\n";

/// By what an object is named.
pub fn digest(bytes: impl AsRef<[u8]>) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Looks again and again until there is something to see.
pub fn until<T>(deadline: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(begun.elapsed() < deadline, "not within {deadline:?}: {what}");
        std::thread::sleep(LOOK);
    }
}

/// [`until`] for what is either so or not.
pub fn until_true(what: &str, mut look: impl FnMut() -> bool) {
    until(DEADLINE, what, || look().then_some(()));
}

/// A directory of one test, gone with it unless the test failed.
#[derive(Debug)]
pub struct Dir(PathBuf);

impl Dir {
    pub fn new(name: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("drumline-e2e-{}-{count}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path.canonicalize().unwrap())
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// A file with this text; its path as an argument.
    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("kept for a look: {}", self.0.display());
            return;
        }
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The binary with an environment of its own.
pub fn drumline() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_drumline"));
    command.env_clear();
    for name in ["PATH", "TMPDIR"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command.stdin(Stdio::null());
    command
}

/// How a command ended.
#[derive(Clone, Debug)]
pub struct Done {
    /// Its exit code; 128 + n where signal n ended it.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Done {
    /// It must have gone well.
    #[track_caller]
    pub fn ok(self) -> Self {
        self.exit(0)
    }

    /// It must have ended with this code.
    #[track_caller]
    pub fn exit(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:#?}");
        self
    }

    /// Standard output as one JSON document.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }

    /// Standard output as one JSON document a line.
    #[track_caller]
    pub fn json_lines(&self) -> Vec<Value> {
        let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        self.stdout.lines().map(parse).collect()
    }

    /// Ended so, with one line on standard error that has all these words.
    #[track_caller]
    pub fn says(self, code: i32, words: &[&str]) -> Self {
        assert_eq!(self.code, code, "{self:#?}");
        let mut lines = self.stderr.lines().filter(|line| line.starts_with("error: "));
        let line = lines.next().unwrap_or_else(|| panic!("no error line: {self:#?}"));
        assert!(lines.next().is_none(), "more than one line: {self:#?}");
        assert!(line.contains(": ") && line.contains("; "), "no reason or no remedy: {line}");
        for word in words {
            assert!(line.contains(word), "{word:?} is not in: {line}");
        }
        self
    }
}

/// A command that runs.
#[derive(Debug)]
pub struct Running {
    child: Child,
    what: String,
    readers: Option<[std::thread::JoinHandle<()>; 2]>,
    text: [std::sync::Arc<std::sync::Mutex<Vec<u8>>>; 2],
}

impl Running {
    pub fn start(command: &mut Command) -> Self {
        let what = format!("{:?}", command.get_args().collect::<Vec<_>>());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let text: [std::sync::Arc<std::sync::Mutex<Vec<u8>>>; 2] = Default::default();
        let (out, err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let readers = Some([read_all(out, &text[0]), read_all(err, &text[1])]);
        Self { child, what, readers, text }
    }

    /// What it wrote so far.
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.text[0].lock().unwrap()).into_owned()
    }

    /// What it wrote so far.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.text[1].lock().unwrap()).into_owned()
    }

    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    pub fn is_over(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Its end.
    pub fn wait(mut self) -> Done {
        use std::os::unix::process::ExitStatusExt as _;
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if begun.elapsed() > DEADLINE {
                panic!("{} has not ended:\n{}\n{}", self.what, self.stdout(), self.stderr());
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        for reader in self.readers.take().into_iter().flatten() {
            reader.join().unwrap();
        }
        let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
        Done { code, stdout: self.stdout(), stderr: self.stderr() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read_all(
    mut from: impl Read + Send + 'static,
    into: &std::sync::Arc<std::sync::Mutex<Vec<u8>>>,
) -> std::thread::JoinHandle<()> {
    let into = std::sync::Arc::clone(into);
    std::thread::spawn(move || {
        let mut buffer = [0; 8192];
        while let Ok(read @ 1..) = from.read(&mut buffer) {
            into.lock().unwrap().extend_from_slice(&buffer[..read]);
        }
    })
}

/// Runs a command to its end.
pub fn run(command: &mut Command) -> Done {
    Running::start(command).wait()
}

/// One server and its agents.
#[derive(Debug)]
pub struct Cluster {
    pub nodes: Vec<Node>,
    pub server: Server,
    pub dir: Dir,
}

impl Cluster {
    /// A server without agents.
    pub fn bare(name: &str) -> Self {
        let dir = Dir::new(name);
        let server = Server::start(&dir, &[]);
        Self { nodes: Vec::new(), server, dir }
    }

    /// A server with agents `n1`, `n2` …, each of so many cores.
    pub fn new(name: &str, agents: usize, cores: &str) -> Self {
        let mut cluster = Self::bare(name);
        for number in 1..=agents {
            cluster.add_node(&format!("n{number}"), &["--cores", cores, "--memory", "1GiB"]);
        }
        cluster.until_ready(agents);
        cluster
    }

    /// A server with numbers of its own, no agents.
    pub fn with_config(name: &str, config: &str) -> Self {
        let dir = Dir::new(name);
        let config = dir.file("server.toml", config);
        let server = Server::start(&dir, &["--config", &config]);
        Self { nodes: Vec::new(), server, dir }
    }

    pub fn add_node(&mut self, name: &str, args: &[&str]) -> &mut Node {
        let node = Node::start(&self.dir, &self.server, name, args);
        self.nodes.push(node);
        self.nodes.last_mut().unwrap()
    }

    /// Waits until so many nodes are ready.
    pub fn until_ready(&self, count: usize) {
        until_true("the nodes are ready", || self.ready() == count);
    }

    fn ready(&self) -> usize {
        let nodes = self.call(&["nodes", "-o", "json"]).ok().json();
        nodes.as_array().unwrap().iter().filter(|node| node["state"] == "READY").count()
    }

    /// A client command with this cluster's address and token.
    pub fn command(&self, args: &[&str]) -> Command {
        self.server.command(args)
    }

    /// Runs a client command.
    pub fn call(&self, args: &[&str]) -> Done {
        run(&mut self.command(args))
    }

    /// The first tenant, as it is listed.
    pub fn tenant(&self) -> Value {
        self.call(&["tenants", "-o", "json"]).ok().json()[0].clone()
    }

    /// Bytes that count as stored for it.
    pub fn stored(&self) -> u64 {
        self.tenant()["storage_bytes"].as_u64().unwrap()
    }

    /// Whether the server's directory of objects has this one.
    pub fn has_object(&self, digest: &str) -> bool {
        self.server.data.join("objects/default").join(&digest[..2]).join(digest).exists()
    }

    /// Submits; what comes back is the job's id.
    #[track_caller]
    pub fn submit(&self, args: &[&str]) -> String {
        let words: Vec<&str> = ["submit", "-o", "json"].iter().chain(args).copied().collect();
        let done = self.call(&words).ok();
        done.json()["id"].as_str().unwrap().to_owned()
    }

    /// A job as `show` tells it.
    #[track_caller]
    pub fn show(&self, id: &str) -> Value {
        self.call(&["show", id, "-o", "json"]).ok().json()
    }

    pub fn state(&self, id: &str) -> String {
        self.show(id)["state"].as_str().unwrap().to_owned()
    }

    /// Waits for a state that a job does not leave, or leaves late.
    #[track_caller]
    pub fn until_state(&self, id: &str, state: &str) {
        until(DEADLINE, &format!("{id} is {state}"), || (self.state(id) == state).then_some(()));
    }

    /// The job's history.
    pub fn events(&self, id: &str) -> Vec<history::Event> {
        history::read(&self.call(&["events", id, "-o", "json"]).ok())
    }

    /// All there ever was of the tenant.
    pub fn all_events(&self) -> Vec<history::Event> {
        history::read(&self.call(&["events", "-o", "json"]).ok())
    }

    /// Ids of all jobs, newest first.
    pub fn job_ids(&self) -> Vec<String> {
        let done = self.call(&["ls", "-n", "100000", "-o", "name"]).ok();
        done.stdout.lines().map(str::to_owned).collect()
    }
}

/// A server's process.
#[derive(Debug)]
pub struct Server {
    child: Child,
    args: Vec<String>,
    env: Vec<(String, String)>,
    dir: PathBuf,
    pub data: PathBuf,
    /// As in `client.env`.
    pub address: String,
    pub token: String,
}

impl Server {
    /// Starts one on a free port and waits until it serves.
    pub fn start(dir: &Dir, args: &[&str]) -> Self {
        Self::start_at(dir, &dir.join("server"), args)
    }

    /// Likewise, with its data elsewhere.
    pub fn start_at(dir: &Dir, data: &Path, args: &[&str]) -> Self {
        Self::begin(dir, data, args, &[])
    }

    /// Likewise, with these variables in its environment.
    pub fn start_with_env(dir: &Dir, args: &[&str], env: &[(&str, &str)]) -> Self {
        Self::begin(dir, &dir.join("server"), args, env)
    }

    fn begin(dir: &Dir, data: &Path, args: &[&str], env: &[(&str, &str)]) -> Self {
        let env: Vec<_> = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let mut words = vec!["server".to_owned(), "--data".to_owned(), data.display().to_string()];
        words.extend(args.iter().map(|word| (*word).to_owned()));
        let child = Self::spawn(dir.path(), &words, &env, "127.0.0.1:0");
        let mut server = Self {
            child,
            args: words,
            env,
            dir: dir.path().to_owned(),
            data: data.to_owned(),
            address: String::new(),
            token: String::new(),
        };
        server.until_serving();
        server
    }

    fn spawn(dir: &Path, args: &[String], env: &[(String, String)], listen: &str) -> Child {
        let errors = File::options().append(true).create(true).open(dir.join("server.err")).unwrap();
        let mut command = drumline();
        command.args(args).args(["--listen", listen]).envs(env.iter().cloned());
        command.stdout(File::create(dir.join("server.out")).unwrap()).stderr(errors);
        command.spawn().unwrap()
    }

    fn until_serving(&mut self) {
        let told = self.dir.join("server.out");
        until(DEADLINE, "the server listens", || {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("the server ended: {status}\n{}", self.log());
            }
            fs::read_to_string(&told).unwrap().contains("listening on").then_some(())
        });
        let (address, token) = client_env(&self.data);
        self.address = address;
        self.token = token;
    }

    /// SIGKILL, from one instant to the next.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again on its data and its port.
    pub fn restart(&mut self) {
        let listen = self.address.trim_start_matches("http://").to_owned();
        self.child = Self::spawn(&self.dir, &self.args, &self.env, &listen);
        self.until_serving();
    }

    /// Asked with TERM, it ends by itself.
    pub fn stop(&mut self) -> i32 {
        processes::signal("TERM", &[self.child.id().cast_signed()]);
        let status = until(DEADLINE, "the server stops", || self.child.try_wait().unwrap());
        status.code().unwrap_or(-1)
    }

    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// What it logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("server.err")).unwrap_or_default()
    }

    /// The body that a GET of this path answers.
    pub fn get(&self, path: &str) -> String {
        self.http("GET", path, &[], "").1
    }

    /// Status and body of one HTTP request.
    pub fn http(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> (u16, String) {
        let (head, body) = self.exchange(method, path, headers, body);
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body)
    }

    /// Head and body of what one HTTP request is answered with.
    pub fn exchange(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> (String, String) {
        let host = self.address.trim_start_matches("http://");
        let mut stream = TcpStream::connect(host).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\
             content-length: {length}\r\n{headers}\r\n{body}"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), body.to_owned())
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = drumline();
        command.args(args).current_dir(&self.dir);
        command.env("DRUMLINE_SERVER", &self.address).env("DRUMLINE_TOKEN", &self.token);
        command
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the server's log ends with:\n{}", tail(&self.log()));
        }
    }
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

/// Address and token of a data directory.
pub fn client_env(data: &Path) -> (String, String) {
    let text = fs::read_to_string(data.join("client.env")).unwrap();
    let value = |name: &str| {
        let begin = format!("export {name}=");
        let line = text.lines().find_map(|line| line.strip_prefix(&begin));
        line.unwrap_or_else(|| panic!("no {name} in {text:?}")).to_owned()
    };
    (value("DRUMLINE_SERVER"), value("DRUMLINE_TOKEN"))
}

/// An agent's process, its supervisor, and its tasks.
#[derive(Debug)]
pub struct Node {
    pub name: String,
    pub data: PathBuf,
    dir: PathBuf,
    args: Vec<String>,
    /// Of the agent, from its next start on.
    pub env: Vec<(String, String)>,
    child: Option<Child>,
}

impl Node {
    /// Starts one; it registers by itself.
    pub fn start(dir: &Dir, server: &Server, name: &str, args: &[&str]) -> Self {
        let mut node = Self {
            name: name.to_owned(),
            data: dir.join(name),
            dir: dir.path().to_owned(),
            args: args.iter().map(|word| (*word).to_owned()).collect(),
            env: vec![
                ("DRUMLINE_SERVER".to_owned(), server.address.clone()),
                ("DRUMLINE_TOKEN".to_owned(), server.token.clone()),
            ],
            child: None,
        };
        node.restart();
        node
    }

    /// Starts the agent on its directory, after a kill say.
    pub fn restart(&mut self) {
        assert!(self.child.is_none(), "{} still runs", self.name);
        let log = File::options().append(true).create(true).open(self.dir.join(format!("{}.log", self.name)));
        let log = log.unwrap();
        let mut command = drumline();
        command.arg("agent").arg("--data").arg(&self.data).args(["--node", &self.name]).args(&self.args);
        command.envs(self.env.iter().cloned()).current_dir(&self.dir);
        command.stdout(log.try_clone().unwrap()).stderr(log);
        self.child = Some(command.spawn().unwrap());
    }

    pub fn is_started(&self) -> bool {
        self.child.is_some()
    }

    /// What agent and supervisor wrote.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join(format!("{}.log", self.name))).unwrap_or_default()
    }

    /// SIGKILL to the agent alone.
    pub fn kill_agent(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Asked with TERM, the agent ends by itself; its tasks go on.
    pub fn stop(&mut self) -> i32 {
        let mut child = self.child.take().unwrap();
        processes::signal("TERM", &[child.id().cast_signed()]);
        let status = until(DEADLINE, "the agent stops", || child.try_wait().unwrap());
        status.code().unwrap_or(-1)
    }

    /// The process that holds this node's tasks.
    pub fn supervisor(&self) -> Option<i32> {
        processes::supervisor_of(&self.data)
    }

    /// SIGKILL to everything that this node is: nothing is left to tell the
    /// server anything.
    pub fn kill_all(&mut self) {
        // Frozen, the supervisor starts nothing between the look and the blow.
        let supervisor = self.supervisor();
        processes::signal("STOP", supervisor.as_slice());
        self.kill_agent();
        let mut doomed = processes::below(&self.data, supervisor);
        doomed.extend(supervisor);
        processes::signal("KILL", &doomed);
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the log of {} ends with:\n{}", self.name, tail(&self.log()));
        }
        // Twice, since a supervisor may have been just starting.
        self.kill_all();
        self.kill_all();
    }
}
