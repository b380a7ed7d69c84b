//! What one good client notices while others behave badly.
//!
//! A real server process, and against it, one after another: many clients at
//! once, readers who do not read, writers who hardly write, connections that
//! fall silent in the middle, bodies far too large, idle sockets by the thousand, floods of
//! submissions that are refused. All the while one good client asks and
//! submits, on a connection of its own and on fresh ones. Each figure is a
//! ratio to the same client's p99 with nobody else there, in the same run.
//! Every load is bounded in count and time.
//!
//! `cargo run --release -p drumline --example load [BINARY]`; ends with 1 where
//! the good client was refused anything, or waited more than three times as long,
//! or the server took more memory than it may.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a load test plays clients on the machine itself, from outside the world"
)]

#[path = "../tests/support/crowd.rs"]
mod crowd;

use crowd::{Client, Crowd, Failure, LOADS, PATIENCE, Seen};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long each load lasts.
const SPAN: Duration = Duration::from_secs(8);
/// The bound on the good client's p99 over its p99 alone.
const RATIO_MAX: f64 = 3.0;
/// Below this a latency is the machine's own noise.
const NOISE_MS: f64 = 2.0;
/// What the server may take, whatever is done to it.
const MEMORY_MIB_MAX: f64 = 256.0;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let files = crowd::allow_many_files();
    println!("file descriptors: {files}");
    let server = Server::start()?;
    let outcome = measure(&server, files).await;
    drop(server);
    if outcome? { Ok(()) } else { Err("the good client noticed the others, or memory grew".into()) }
}

/// A server process on a directory of its own, ended when dropped.
struct Server {
    child: Child,
    dir: PathBuf,
    address: String,
    token: String,
}

impl Server {
    fn start() -> Result<Self, Failure> {
        let binary = match std::env::args().nth(1) {
            Some(path) => PathBuf::from(path),
            None => std::env::current_exe()?
                .parent()
                .and_then(std::path::Path::parent)
                .ok_or("no directory above this program")?
                .join("drumline"),
        };
        let dir = std::env::temp_dir().join(format!("drumline-load-{:016x}", world::rand::u64()));
        std::fs::create_dir_all(&dir)?;
        let mut command = Command::new(&binary);
        command.args(["server", "--listen", "127.0.0.1:0", "--data"]).arg(&dir);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().map_err(|error| format!("{}: {error}", binary.display()))?;
        let mut server = Self { child, dir, address: String::new(), token: String::new() };
        let begun = Instant::now();
        while server.token.is_empty() {
            if begun.elapsed() > PATIENCE {
                return Err("the server did not start".into());
            }
            std::thread::sleep(Duration::from_millis(20));
            let Ok(text) = std::fs::read_to_string(server.dir.join("client.env")) else { continue };
            let value = |name: &str| {
                let line = text.lines().find_map(|line| line.strip_prefix(&format!("export {name}=")));
                line.map(|value| value.trim_matches(['"', '\'']).to_owned()).unwrap_or_default()
            };
            (server.address, server.token) = (value("DRUMLINE_SERVER"), value("DRUMLINE_TOKEN"));
        }
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Its data goes with it: there is nothing to end gracefully.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn p99(spans: &mut [f64]) -> f64 {
    spans.sort_by(f64::total_cmp);
    spans.get(spans.len() * 99 / 100).copied().unwrap_or(f64::INFINITY)
}

fn p99s(seen: &mut Seen) -> [f64; 3] {
    [p99(&mut seen.looks), p99(&mut seen.submits), p99(&mut seen.fresh)]
}

async fn measure(server: &Server, files: u64) -> Result<bool, Failure> {
    Client::new(&server.address, &server.token).await?.prepare().await?;
    let mut alone = crowd::good_client(&server.address, &server.token, SPAN).await?;
    let quiet = p99s(&mut alone);
    println!(
        "nobody else: p99 of a look {:.1} ms, a submission {:.1} ms, a new connection {:.1} ms",
        quiet[0], quiet[1], quiet[2]
    );
    let mut well = alone.failed.is_empty();
    for (what, least, load) in LOADS {
        let crowd = Crowd::new(&server.address, &server.token, files);
        let tasks = load(Arc::clone(&crowd));
        // Let the crowd gather.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let mut seen = crowd::good_client(&server.address, &server.token, SPAN).await?;
        crowd.end(tasks).await?;
        let now = p99s(&mut seen);
        let worst = (0..3).map(|at| now[at] / quiet[at].max(NOISE_MS)).fold(0.0, f64::max);
        let (rss, peak) = crowd::memory_mib(server.child.id());
        well &= worst <= RATIO_MAX && seen.failed.is_empty() && crowd.done() >= least;
        well &= peak <= MEMORY_MIB_MAX;
        println!(
            "{what}: they did {} (at least {least}); p99 of a look {:.1} ms, a submission {:.1} ms, a new connection \
             {:.1} ms; at most {worst:.1} times alone (limit {RATIO_MAX}); refused or lost {}; server {rss:.0} MiB, at \
             most {peak:.0} (limit {MEMORY_MIB_MAX})",
            crowd.done(),
            now[0],
            now[1],
            now[2],
            seen.failed.len()
        );
    }
    Ok(well)
}
