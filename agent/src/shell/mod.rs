//! The shell around the core: its workers, its start and its end.
//!
//! - [`turn`]: the loop: receive, step, then do what the core wants done.
//! - [`link`]: the connection to the server and the session on it.
//! - [`supervisor`]: orders to the node's processes, reports from them.
//! - [`chores`]: removals and other small work on the disk.
//! - staging, outputs and logs have modules of their own.
//!
//! What must hold: the loop never waits for a worker, and no worker waits for
//! another that waits for it.

mod chores;
mod link;
mod outlet;
mod supervisor;
mod turn;

pub(crate) use chores::{Chore, spool_path};
pub(crate) use link::Connection;
pub(crate) use turn::Inbound;

use crate::config::AgentConfig;
use crate::core::key::Key;
use crate::core::{Action, Core, Event};
use crate::limits;
use crate::logs::floors;
use crate::logs::shipper::{Leftovers, Orphan, Shipper};
use crate::staging::{collector, looker, progress, shelf::Shelf, signer::Signer, stager, upload::Uploader};
use outlet::Outlet;
use proto::v1::Problem;
use std::sync::Arc;
use turn::{Outlets, Turn};
use world::disk::Disk;
use world::pace::Line;
use world::processes::Unreachable;
use world::sync::{mpsc, oneshot, watch};
use world::task::{AbortHandle, blocking, spawn};
use world::time::{ms, timeout};
use world::{NodeClock, Processes, Transfer};

/// What an agent is made of.
#[derive(Debug)]
pub struct AgentParts {
    /// Who it is.
    pub config: AgentConfig,
    /// Where it keeps work, spool and cache.
    pub disk: Arc<dyn Disk>,
    /// The node's processes.
    pub processes: Arc<dyn Processes>,
    /// The node's clock.
    pub clock: Arc<dyn NodeClock>,
    /// How files come and go.
    pub transfer: Arc<dyn Transfer>,
}

/// Why an agent cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The server refused the registration.
    #[error("the server refused node {node}: {problem}")]
    Refused {
        /// This node.
        node: String,
        /// Why.
        problem: Problem,
    },
    /// The server's address cannot be used.
    #[error("{0}")]
    Address(String),
    /// The token has characters that no token has.
    #[error("the API token is malformed; a token reads dl_ and 32 hexadecimal digits")]
    Token,
    /// No supervisor.
    #[error("{0}")]
    Supervisor(Unreachable),
    /// The agent's directory cannot be used.
    #[error("the agent's directory cannot be used: {0}")]
    Disk(std::io::Error),
}

/// What becomes of running tasks when their agent stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TasksAtStop {
    /// They are killed: nothing of this node goes on.
    Kill,
    /// They run on under the supervisor until their lease ends; a new agent
    /// takes them over.
    Leave,
}

/// Why an agent is no longer there.
#[derive(Clone, Debug, PartialEq)]
pub enum AgentEnd {
    /// It was told to stop.
    Stopped,
    /// The server refused it before ever having taken it.
    Refused(Problem),
    /// A part of it broke.
    Broken(String),
}

/// A started agent. It goes on when the handle is dropped.
#[derive(Clone, Debug)]
pub struct AgentHandle {
    inbox: mpsc::Sender<Inbound>,
    end: watch::Receiver<Option<AgentEnd>>,
}

impl AgentHandle {
    /// Ends the agent and returns once it has ended.
    pub async fn stop(&self, tasks: TasksAtStop) {
        let asked = timeout(ms(limits::STOP_MS_MAX), self.inbox.send(Inbound::Stop(tasks))).await;
        if matches!(asked, Ok(Ok(()))) {
            // The loop itself has a deadline for its end.
            let _ = timeout(ms(2 * limits::STOP_MS_MAX), self.wait()).await;
        }
    }

    /// Returns when the agent has ended.
    pub async fn wait(&self) -> AgentEnd {
        let mut end = self.end.clone();
        match end.wait_for(Option::is_some).await {
            Ok(end) => end.clone().expect("it was waited for"),
            Err(_) => AgentEnd::Broken("the agent's loop is gone".to_owned()),
        }
    }
}

/// Starts an agent: takes over what an earlier one of this node left, then
/// registers. Returns once the server took it, refused it (an error), or did
/// not answer for `first_contact_ms_max`: then it goes on trying.
pub async fn start(parts: AgentParts) -> Result<AgentHandle, StartError> {
    let AgentParts { config, disk, processes, clock, transfer } = parts;
    let config = Arc::new(config);
    let authorization = link::authorization(&config.token).ok_or(StartError::Token)?;

    prepare(&disk, &config).await.map_err(StartError::Disk)?;
    let records = timeout(ms(limits::SUPERVISOR_MS_MAX), processes.list())
        .await
        .unwrap_or_else(|_| Err(Unreachable("it does not answer".to_owned())))
        .map_err(StartError::Supervisor)?;

    let roots = (disk.absolute(&config.directories.work), disk.absolute(&config.directories.spool));
    let mut core = Core::new(Arc::clone(&config), roots.0, roots.1, clock.now());
    let adopted = core.step(clock.now(), Event::Adopted(records));
    let leftovers = sweep(&disk, &config, &core).await.map_err(StartError::Disk)?;

    let (inbox, inbound) = mpsc::channel(limits::INBOX_EVENTS_MAX);
    let (connected, connection) = watch::channel(None);
    let (first, first_word) = oneshot::channel();
    let (ended, end) = watch::channel(None);
    let mut workers = Vec::new();

    let (chores, due) = mpsc::channel(limits::WORKER_QUEUE);
    let shelf = Shelf::new(&disk, &config);
    let worker = chores::work(Arc::clone(&disk), Arc::clone(&config), Arc::clone(&shelf), due, inbox.clone());
    workers.push(abort(spawn(worker)));
    let (orders, due) = mpsc::channel(limits::WORKER_QUEUE);
    let sender = spawn(supervisor::send(Arc::clone(&processes), Arc::clone(&clock), due, inbox.clone()));
    workers.push(abort(spawn(supervisor::receive(processes, inbox.clone()))));
    let signer = Signer::new(Arc::clone(&config), connection.clone());
    let (stages, due) = mpsc::channel(limits::WORKER_QUEUE);
    let line = Some(config.staging_bytes_per_s).filter(|rate| *rate > 0).map(Line::new);
    let stager = stager::Stager::open(&disk, &transfer, &config, &signer, (&shelf, line.as_ref()));
    let stager = stager.await.map_err(StartError::Disk)?;
    workers.push(abort(spawn(stager.work(due, inbox.clone()))));
    let (collects, due) = mpsc::channel(limits::WORKER_QUEUE);
    let uploader = Uploader::new(&disk, &transfer, &signer, line.as_ref());
    let collector = collector::Collector::new(&disk, &config, &uploader);
    workers.push(abort(spawn(collector.work(due, inbox.clone()))));
    let (looks, due) = mpsc::channel(limits::WORKER_QUEUE);
    let looker = looker::Looker::new(&disk, &config, &uploader);
    workers.push(abort(spawn(looker.work(due, inbox.clone()))));
    let (progress, due) = mpsc::channel(limits::WORKER_QUEUE);
    let worker = progress::work(Arc::clone(&disk), Arc::clone(&config), due, inbox.clone());
    workers.push(abort(spawn(worker)));
    let (notes, due) = mpsc::channel(limits::WORKER_QUEUE);
    let shipper = Shipper::new(&disk, &clock, &config, connection, leftovers);
    workers.push(abort(spawn(shipper.work(due, chores.clone(), inbox.clone()))));
    let link = link::Link::new(Arc::clone(&config), authorization, inbox.clone(), connected, first);
    workers.push(abort(spawn(link.run())));

    let outlets = Outlets {
        orders: Outlet::new(orders),
        stages: Outlet::new(stages),
        collects: Outlet::new(collects),
        looks: Outlet::new(looks),
        progress: Outlet::new(progress),
        chores: Outlet::new(chores),
        notes: Outlet::new(notes),
    };
    let turn = Turn::new(core, clock, inbound, outlets, adopted);
    spawn(run(turn, sender, workers, ended));
    let handle = AgentHandle { inbox, end };
    match timeout(ms(config.first_contact_ms_max), first_word).await {
        Ok(Ok(Err(error))) => {
            handle.stop(TasksAtStop::Leave).await;
            Err(error)
        }
        Ok(Ok(Ok(())) | Err(_)) => Ok(handle),
        Err(_) => {
            tracing::warn!(server = config.server, "no word from the server yet; the agent goes on trying");
            Ok(handle)
        }
    }
}

fn abort(worker: world::task::JoinHandle<()>) -> AbortHandle {
    worker.abort_handle()
}

/// The loop to its end, then the workers'.
async fn run(
    turn: Turn,
    sender: world::task::JoinHandle<()>,
    workers: Vec<AbortHandle>,
    ended: watch::Sender<Option<AgentEnd>>,
) {
    let stopping = sender.abort_handle();
    let end = turn.run().await;
    // The loop's outlets are closed: the last orders go out, then the sender ends.
    let _ = timeout(ms(limits::STOP_MS_MAX), sender).await;
    stopping.abort();
    for worker in workers {
        worker.abort();
    }
    ended.send_replace(Some(end));
}

/// Makes the directories.
async fn prepare(disk: &Arc<dyn Disk>, config: &Arc<AgentConfig>) -> std::io::Result<()> {
    let (disk, config) = (Arc::clone(disk), Arc::clone(config));
    blocking(move || {
        let directories = &config.directories;
        for directory in [&directories.work, &directories.spool, &directories.cache] {
            disk.create_dir_all(directory)?;
        }
        Ok(())
    })
    .await
}

/// Removes work directories that nothing held belongs to, and finds spool files
/// that an earlier agent had not shipped to their end.
async fn sweep(disk: &Arc<dyn Disk>, config: &Arc<AgentConfig>, core: &Core) -> std::io::Result<Leftovers> {
    let (disk, config, held) = (Arc::clone(disk), Arc::clone(config), core.directories());
    let keys = core.keys();
    blocking(move || {
        let work = &config.directories.work;
        for entry in disk.list(work)? {
            if !held.contains(&entry.name) {
                world::mark!("agent.start.leftover_directory");
                let path = format!("{work}/{}", entry.name);
                warn_of(&path, disk.remove_dir_all(&path));
            }
        }
        let spool = &config.directories.spool;
        let mut leftovers = Leftovers::default();
        for entry in disk.list(spool)? {
            let (stem, suffix) = entry.name.rsplit_once('.').unwrap_or((&entry.name, ""));
            let Some(key) = Key::from_file_stem(stem) else {
                let path = format!("{spool}/{}", entry.name);
                warn_of(&path, disk.remove(&path));
                continue;
            };
            if let Some(side) = floors::side_of(suffix) {
                let stream = (key.clone(), side);
                let floor = floors::read(&*disk, &config, &stream)?;
                leftovers.floors.insert(stream, floor);
            }
            if keys.contains(&key) {
                continue;
            }
            world::mark!("agent.start.orphaned_log");
            let orphan = leftovers.orphans.entry(key.clone());
            let orphan = orphan.or_insert(Orphan { key, stdout_bytes: 0, stderr_bytes: 0 });
            match suffix {
                "out" => orphan.stdout_bytes = entry.len,
                "err" => orphan.stderr_bytes = entry.len,
                // Said of one of these.
                _ => {}
            }
        }
        Ok(leftovers)
    })
    .await
}

/// What cannot be removed is in nobody's way until the next start.
fn warn_of(path: &str, removed: std::io::Result<()>) {
    if let Err(error) = removed {
        tracing::warn!(path, %error, "a leftover of an earlier agent could not be removed");
    }
}

/// The work of a worker that the core is waiting for.
pub(crate) async fn tell(inbox: &mpsc::Sender<Inbound>, events: Vec<Event>) {
    if !events.is_empty() {
        // Without a loop there is nobody left to be told.
        let _ = inbox.send(Inbound::Events(events)).await;
    }
}

/// Actions by the worker that does them.
pub(crate) type Actions = Vec<Action>;
