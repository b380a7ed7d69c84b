//! The processes of this machine's node: a client of its supervisor.
//!
//! What must hold: commands reach one supervisor once and in order, however
//! often the connection breaks; a report is never invented and never held back
//! while its supervisor lives. When the supervisor itself is gone, what it
//! left running is killed, `SupervisorLost` is told once, and a fresh one is
//! started, to which later calls go.

mod link;
mod start;

use super::supervisor::limits::{CALL_MS_MAX, REPORTS_HELD_MAX};
use super::supervisor::machine::boot_ms;
use super::supervisor::wire;
use crate::processes::{Command, Processes, Record, Report, Unreachable};
use crate::time::{ms, timeout};
use async_trait::async_trait;
use link::{Pump, State, Writer};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::{Mutex as AsyncMutex, Notify, oneshot, watch};

/// Where the node's supervisor is, and how to start one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeOptions {
    /// Its socket, in a directory that exists. However deep: see
    /// [`crate::real::supervisor`]. Beside it lie `.lock` and `.log`.
    pub socket: PathBuf,
    /// The program that can be a supervisor; usually `/proc/self/exe`.
    pub exe: PathBuf,
    /// Its first arguments; `--socket PATH --linger-ms N` follow.
    pub args: Vec<String>,
    /// See [`crate::real::supervisor::SupervisorOptions`].
    pub linger_ms: u64,
}

/// The real [`Processes`]. Dropped, it only disconnects.
#[derive(Debug)]
pub struct NodeProcesses {
    shared: Arc<Shared>,
    pump: tokio::task::JoinHandle<()>,
}

/// What the callers and the reading task share.
#[derive(Debug)]
struct Shared {
    options: NodeOptions,
    inbox: Mutex<Inbox>,
    /// There are reports.
    news: Notify,
    /// Reports were fetched.
    room: Notify,
    writer: AsyncMutex<Writer>,
    state: watch::Sender<State>,
}

/// What came from the supervisor.
#[derive(Debug, Default)]
struct Inbox {
    reports: Vec<Report>,
    /// Asked for and not whole yet, by number.
    listings: BTreeMap<u64, Listing>,
    next_listing: u64,
    /// Handed over and neither started nor failed yet.
    launching: BTreeSet<String>,
    /// Process numbers of what runs, to be killed if its supervisor dies.
    running: BTreeMap<String, u32>,
}

/// A listing that is arriving.
#[derive(Debug)]
struct Listing {
    records: Vec<Record>,
    done: Done,
}

#[derive(Debug)]
enum Done {
    /// For a caller of [`Processes::list`].
    Answer(oneshot::Sender<Vec<Record>>),
    /// After a reconnect: these launches were handed over, and their answers
    /// may be lost.
    Resync(BTreeSet<String>),
}

impl Shared {
    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().expect("nothing panics while holding it")
    }

    fn full(&self) -> bool {
        self.inbox().reports.len() >= REPORTS_HELD_MAX
    }
}

impl Inbox {
    /// Takes what the supervisor told. True: `next` has something.
    fn take_reports(&mut self, reports: Vec<wire::Report>) -> bool {
        for report in reports.into_iter().filter_map(wire::Report::told) {
            match &report {
                Report::Started { key, pid } => {
                    self.launching.remove(key);
                    self.running.insert(key.clone(), *pid);
                }
                Report::LaunchFailed { key, .. } => {
                    self.launching.remove(key);
                }
                Report::Exited { key, .. } => {
                    self.launching.remove(key);
                    self.running.remove(key);
                }
                Report::SupervisorLost => {}
            }
            self.reports.push(report);
        }
        !self.reports.is_empty()
    }

    /// Takes a part of a listing. True: `next` has something.
    fn take_listing(&mut self, part: wire::Listing) -> bool {
        // Nothing: the connection broke under whoever asked.
        let Some(mut listing) = self.listings.remove(&part.id) else { return false };
        listing.records.extend(part.records.into_iter().map(Record::from));
        if !part.last {
            self.listings.insert(part.id, listing);
            return false;
        }
        let live = listing.records.iter().filter(|record| record.exit.is_none());
        self.running.extend(live.map(|record| (record.key.clone(), record.pid)));
        match listing.done {
            Done::Answer(answer) => {
                // A caller that gave up asks again.
                let _ = answer.send(listing.records);
                false
            }
            Done::Resync(launches) => self.resync(launches, &listing.records),
        }
    }

    /// Answers launches whose answers were lost with the last connection. Ends
    /// the supervisor tells again by itself.
    fn resync(&mut self, launches: BTreeSet<String>, records: &[Record]) -> bool {
        let known: BTreeMap<&str, u32> =
            records.iter().map(|record| (record.key.as_str(), record.pid)).collect();
        for key in launches {
            // Answered meanwhile on the new connection.
            if !self.launching.remove(&key) {
                continue;
            }
            self.reports.push(match known.get(key.as_str()) {
                Some(pid) => Report::Started { key, pid: *pid },
                None => {
                    let error = "it failed, and the reason was lost with the connection to the supervisor";
                    Report::LaunchFailed { key, error: error.to_owned() }
                }
            });
        }
        !self.reports.is_empty()
    }
}

impl NodeProcesses {
    /// Connects to the node's supervisor, or starts one where none lives.
    pub async fn start(options: NodeOptions) -> Result<Arc<Self>, Unreachable> {
        let broken = |error: std::io::Error| Unreachable(format!("{}: {error}", options.socket.display()));
        let socket = std::path::absolute(&options.socket).map_err(broken)?;
        let options = NodeOptions { socket, ..options };
        let opened = start::connect_or_start(&options).await?;
        let (state, _) = watch::channel(State::Up);
        let shared = Arc::new(Shared {
            options,
            inbox: Mutex::default(),
            news: Notify::new(),
            room: Notify::new(),
            writer: AsyncMutex::new(Writer::new(opened.write)),
            state,
        });
        let pump = Pump::new(Arc::clone(&shared), opened.read, opened.identity, opened.started);
        Ok(Arc::new(Self { shared, pump: tokio::spawn(pump.run()) }))
    }

    async fn call<T>(&self, what: impl Future<Output = Result<T, Unreachable>>) -> Result<T, Unreachable> {
        timeout(ms(CALL_MS_MAX), what)
            .await
            .unwrap_or_else(|_| Err(Unreachable(format!("no answer within {} s", CALL_MS_MAX / 1000))))
    }

    async fn list_once(&self) -> Result<Option<Vec<Record>>, Unreachable> {
        let (answer, listed) = oneshot::channel();
        let frame = self.shared.inbox().ask(Done::Answer(answer));
        self.shared.hand_over(vec![frame]).await?;
        Ok(listed.await.ok())
    }
}

impl Drop for NodeProcesses {
    fn drop(&mut self) {
        self.pump.abort();
    }
}

#[async_trait]
impl Processes for NodeProcesses {
    async fn list(&self) -> Result<Vec<Record>, Unreachable> {
        self.call(async {
            loop {
                // Nothing: the connection broke under it. There is another, or
                // this call ends saying that there is none.
                if let Some(records) = self.list_once().await? {
                    return Ok(records);
                }
            }
        })
        .await
    }

    async fn send(&self, commands: Vec<Command>) -> Result<(), Unreachable> {
        let (frames, refused) = wire::command_frames(commands, boot_ms());
        if !refused.is_empty() {
            let failed = refused.into_iter().map(|(key, error)| Report::LaunchFailed { key, error });
            self.shared.inbox().reports.extend(failed);
            self.shared.news.notify_one();
        }
        self.call(self.shared.hand_over(frames)).await
    }

    async fn next(&self) -> Vec<Report> {
        loop {
            let reports = std::mem::take(&mut self.shared.inbox().reports);
            if !reports.is_empty() {
                self.shared.room.notify_one();
                return reports;
            }
            self.shared.news.notified().await;
        }
    }
}
