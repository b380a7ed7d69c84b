//! A node's supervisor for one test, and waiting on events with deadlines.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command as Program, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use world::processes::{Command, Exit, Launch, Limits, Processes as _, Report};
use world::real::{NodeOptions, NodeProcesses};
use world::time::{ms, timeout};

/// How long anything may take before a test fails.
const DEADLINE_MS: u64 = 30_000;

/// Measuring is done alone; the other tests may run side by side.
static TURN: RwLock<()> = RwLock::const_new(());

pub async fn shared() -> RwLockReadGuard<'static, ()> {
    TURN.read().await
}

pub async fn alone() -> RwLockWriteGuard<'static, ()> {
    TURN.write().await
}

pub struct Node {
    pub dir: PathBuf,
    pub options: NodeOptions,
    connection: Option<Arc<NodeProcesses>>,
    /// Reports that were fetched and not asked for yet.
    seen: Mutex<Vec<Report>>,
}

pub fn fresh_dir(name: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("drumline-{}-{name}", std::process::id()));
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).unwrap();
    dir.canonicalize().unwrap()
}

impl Node {
    pub async fn start(name: &str) -> Self {
        // Should the test itself be killed, nothing of it stays for long.
        Self::lingering(name, 60_000).await
    }

    pub async fn lingering(name: &str, linger_ms: u64) -> Self {
        let dir = fresh_dir(name);
        let socket = dir.join("supervisor.sock");
        Self::at(dir, socket, linger_ms).await
    }

    pub async fn at(dir: PathBuf, socket: PathBuf, linger_ms: u64) -> Self {
        let args = ["supervisor_entry", "--exact", "--nocapture", "--"].map(str::to_owned).to_vec();
        let options = NodeOptions { socket, exe: "/proc/self/exe".into(), args, linger_ms };
        let connection = Some(NodeProcesses::start(options.clone()).await.unwrap());
        Self { dir, options, connection, seen: Mutex::default() }
    }

    pub fn processes(&self) -> &NodeProcesses {
        self.connection.as_ref().expect("connected")
    }

    /// A second agent of this node, while the first one lives.
    pub async fn second(&mut self) -> Arc<NodeProcesses> {
        let second = NodeProcesses::start(self.options.clone()).await.unwrap();
        self.connection.replace(second).unwrap()
    }

    pub fn task(&self, key: &str, argv: &[String]) -> Launch {
        let name = key.replace('/', "-");
        Launch {
            key: key.to_owned(),
            argv: argv.to_vec(),
            env: vec![("PATH".into(), "/usr/bin:/bin".into())],
            cwd: self.dir.clone(),
            stdout: self.dir.join(format!("{name}.out")),
            stderr: self.dir.join(format!("{name}.err")),
            limits: Limits::default(),
            context: Vec::new(),
        }
    }

    pub async fn send(&self, commands: Vec<Command>) {
        self.processes().send(commands).await.unwrap();
    }

    /// The first report for which `find` finds something; others are kept.
    async fn report<T>(&self, what: &str, find: impl Fn(&Report) -> Option<T>) -> T {
        let waiting = async {
            loop {
                {
                    let mut seen = self.seen.lock().unwrap();
                    let found = seen.iter().enumerate().find_map(|(at, report)| Some((at, find(report)?)));
                    if let Some((at, value)) = found {
                        seen.remove(at);
                        return value;
                    }
                }
                let more = self.processes().next().await;
                self.seen.lock().unwrap().extend(more);
            }
        };
        match timeout(ms(DEADLINE_MS), waiting).await {
            Ok(value) => value,
            Err(_) => panic!("{what} was never told; seen: {:?}", self.seen.lock().unwrap()),
        }
    }

    pub async fn started(&self, wanted: &str) -> u32 {
        let find = |report: &Report| match report {
            Report::Started { key, pid } if key == wanted => Some(*pid),
            _ => None,
        };
        self.report(&format!("the start of {wanted}"), find).await
    }

    pub async fn exit(&self, wanted: &str) -> Exit {
        let find = |report: &Report| match report {
            Report::Exited { key, exit } if key == wanted => Some(*exit),
            Report::LaunchFailed { key, error } if key == wanted => panic!("{key}: {error}"),
            _ => None,
        };
        self.report(&format!("the end of {wanted}"), find).await
    }

    pub async fn failure(&self, wanted: &str) -> String {
        let find = |report: &Report| match report {
            Report::LaunchFailed { key, error } if key == wanted => Some(error.clone()),
            _ => None,
        };
        self.report(&format!("the failure of {wanted}"), find).await
    }

    pub async fn lost(&self) {
        self.report("the loss of the supervisor", |report| (*report == Report::SupervisorLost).then_some(()))
            .await;
    }

    pub fn stdout(&self, key: &str) -> String {
        fs::read_to_string(self.dir.join(format!("{key}.out"))).unwrap()
    }

    pub fn stderr(&self, key: &str) -> String {
        fs::read_to_string(self.dir.join(format!("{key}.err"))).unwrap()
    }

    pub async fn wrote(&self, key: &str, ending: &str) {
        let path = self.dir.join(format!("{key}.out"));
        until(&format!("{key} wrote {ending:?}"), || {
            fs::read_to_string(&path).is_ok_and(|text| text.ends_with(ending))
        })
        .await;
    }

    /// The agent dies: its sockets are closed.
    pub fn disconnect(&mut self) {
        // The reading task is stopped with the last handle.
        self.connection = None;
    }

    /// A new agent of this node, which has heard nothing yet.
    pub async fn reconnect(&mut self) {
        self.disconnect();
        self.seen.lock().unwrap().clear();
        self.connection = Some(NodeProcesses::start(self.options.clone()).await.unwrap());
    }

    pub fn supervisor(&self) -> i32 {
        let log = fs::read_to_string(format!("{}.log", self.options.socket.display())).unwrap();
        let line = log.lines().rfind(|line| line.ends_with("listens")).unwrap();
        line.split(' ').nth(1).unwrap().parse().unwrap()
    }

    pub fn children(&self) -> Vec<i32> {
        let supervisor = self.supervisor();
        processes().into_iter().filter(|(_, (parent, _))| *parent == supervisor).map(|(pid, _)| pid).collect()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // First, since a connected agent would start another.
        self.disconnect();
        kill(self.supervisor(), "TERM");
        if !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

/// Passes a connection on until it is told to cut it.
pub struct Middle {
    pub path: PathBuf,
    pub target: PathBuf,
    cuts: tokio::sync::watch::Sender<usize>,
    connections: Arc<AtomicUsize>,
    serving: tokio::task::JoinHandle<()>,
}

impl Middle {
    pub fn start(path: PathBuf, target: PathBuf) -> Self {
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let (cuts, cut) = tokio::sync::watch::channel(0);
        let connections = Arc::new(AtomicUsize::new(0));
        let (counter, to) = (Arc::clone(&connections), target.clone());
        let serving = tokio::spawn(async move {
            loop {
                let (mut near, _) = listener.accept().await.unwrap();
                let mut far = tokio::net::UnixStream::connect(&to).await.unwrap();
                counter.fetch_add(1, Ordering::SeqCst);
                let mut cut = cut.clone();
                cut.mark_unchanged();
                tokio::select! {
                    biased;
                    _ = cut.changed() => {}
                    _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                }
            }
        });
        Self { path, target, cuts, connections, serving }
    }

    pub fn cut(&mut self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Middle {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Parent and state of every process.
fn processes() -> BTreeMap<i32, (i32, char)> {
    let entries = fs::read_dir("/proc").unwrap();
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    pids.filter_map(|pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        let state = fields.next()?.chars().next()?;
        Some((pid, (fields.next()?.parse().ok()?, state)))
    })
    .collect()
}

/// Whether a process runs; a zombie does not.
pub fn lives(pid: i32) -> bool {
    processes().get(&pid).is_some_and(|(_, state)| *state != 'Z')
}

pub fn kill(pid: i32, signal: &str) {
    let status =
        Program::new("kill").args([format!("-{signal}"), pid.to_string()]).stderr(Stdio::null()).status();
    let _ = status.unwrap();
}

/// Waits for something that nobody tells.
pub async fn until(what: &str, check: impl Fn() -> bool) {
    until_async(what, || async { check() }).await;
}

pub async fn until_async<F: Future<Output = bool>>(what: &str, check: impl Fn() -> F) {
    let waiting = async {
        let mut looks = tokio::time::interval(ms(5));
        while !check().await {
            looks.tick().await;
        }
    };
    timeout(ms(DEADLINE_MS), waiting).await.unwrap_or_else(|_| panic!("never seen: {what}"));
}

pub fn script(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

pub fn sh(script: &str) -> Vec<String> {
    ["sh", "-c", script].map(str::to_owned).to_vec()
}

pub fn launch(task: Launch) -> Command {
    Command::Launch(Box::new(task))
}

pub fn code(exit: Exit) -> i32 {
    assert_eq!(exit.signal, 0, "{exit:?}");
    exit.code
}

pub fn signal(exit: Exit) -> i32 {
    exit.signal
}

/// Launches a second of the machine itself: two threads, each of which spawns
/// and waits, with the program's output thrown away.
pub fn plain_rate(count: usize) -> f64 {
    let begun = Instant::now();
    let threads = [(); 2].map(|()| {
        std::thread::spawn(move || {
            for _ in 0..count / 2 {
                let mut program = Program::new("/bin/true");
                program.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
                assert!(program.status().unwrap().success());
            }
        })
    });
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    count as f64 / begun.elapsed().as_secs_f64()
}
