//! Simulated processes of one node: small scripts played in virtual time.
//!
//! A process here is a row in a table, not a task of the agent's node: it goes
//! on when the agent is killed, as a real one does under its supervisor.
//! [`SimProcesses::drive`] plays the table and must run on something that is
//! never killed. The program is told by `argv` (see [`script`]).

mod script;

use super::HostileDisk;
use super::faults::{below, strikes};
use crate::clock::NodeClock;
use crate::disk::OpenMode;
use crate::processes::{Command, Exit, Launch, ProcessKey, Processes, Record, Report, Signal, Unreachable};
use crate::time::{self, Instant};
use async_trait::async_trait;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use script::Script;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::Notify;

/// While a dead man's switch is set the node's clock is read this often.
const SWITCH_LOOK_MS: u64 = 200;
/// From TERM to the end of a process that heeds it.
const TERM_TAKES_MS: u64 = 20;

/// What processes of a node suffer, in parts per million of launches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessFaults {
    /// It cannot be launched.
    pub launch_ppm: u32,
    /// Killed by signal 9 half way.
    pub kill_ppm: u32,
    /// Never ends by itself.
    pub hang_ppm: u32,
    /// Ends with an exit code of its own.
    pub code_ppm: u32,
    /// Does not write its outputs.
    pub no_output_ppm: u32,
    /// Does not heed TERM.
    pub deaf_ppm: u32,
}

impl ProcessFaults {
    /// A bad neighbourhood: about one launch in four goes wrong. None of them
    /// hangs: that is for who also sets timeouts.
    #[must_use]
    pub fn nasty() -> Self {
        Self {
            launch_ppm: 50_000,
            kill_ppm: 80_000,
            hang_ppm: 0,
            code_ppm: 60_000,
            no_output_ppm: 50_000,
            deaf_ppm: 100_000,
        }
    }
}

/// When a process ran, in true milliseconds since the base instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessSpan {
    /// Which process.
    pub key: ProcessKey,
    /// Its start.
    pub started_ms: u64,
    /// Its end; `None`: it still runs.
    pub ended_ms: Option<u64>,
}

/// See the module.
#[derive(Debug)]
pub struct SimProcesses {
    node: String,
    disk: Arc<HostileDisk>,
    clock: Arc<dyn NodeClock>,
    base: Instant,
    table: Mutex<Table>,
    /// Wakes the driver.
    changed: Notify,
    /// Wakes who waits for reports.
    told: Notify,
}

#[derive(Debug)]
struct Table {
    rng: SmallRng,
    faults: ProcessFaults,
    processes: BTreeMap<ProcessKey, Process>,
    /// On the node's own clock.
    switch_at_ms: Option<u64>,
    next_pid: u32,
    incarnation: u64,
    reports: VecDeque<Report>,
    spans: Vec<ProcessSpan>,
}

#[derive(Debug)]
struct Process {
    launch: Launch,
    script: Script,
    pid: u32,
    started_ms: u64,
    ends_ms: Option<u64>,
    ends_how: Exit,
    lines_written: u64,
    stdout_bytes: u64,
    writes_outputs: bool,
    deaf: bool,
    exit: Option<Exit>,
    span: usize,
}

/// One agent's door to the node's processes; a later one takes it over.
#[derive(Debug)]
struct Door {
    node: Arc<SimProcesses>,
    incarnation: u64,
}

impl SimProcesses {
    /// The processes of a node; all times count from `base`.
    #[must_use]
    pub fn new(node: &str, disk: Arc<HostileDisk>, clock: Arc<dyn NodeClock>, seed: u64, base: Instant) -> Self {
        let table = Table {
            rng: SmallRng::seed_from_u64(seed),
            faults: ProcessFaults::default(),
            processes: BTreeMap::new(),
            switch_at_ms: None,
            next_pid: 100,
            incarnation: 0,
            reports: VecDeque::new(),
            spans: Vec::new(),
        };
        Self { node: node.to_owned(), disk, clock, base, table: Mutex::new(table), changed: Notify::new(), told: Notify::new() }
    }

    /// A door for a new incarnation of the agent.
    #[must_use]
    pub fn agent_handle(self: &Arc<Self>) -> Arc<dyn Processes> {
        let mut table = self.table();
        table.incarnation += 1;
        // What the earlier agent did not read, the new one learns by listing.
        table.reports.clear();
        Arc::new(Door { node: Arc::clone(self), incarnation: table.incarnation })
    }

    /// The machine lost power: every process is gone, and all memory of it.
    pub fn crash(&self) {
        let now = self.now_ms();
        let mut table = self.table();
        for process in std::mem::take(&mut table.processes).into_values() {
            if process.exit.is_none() {
                table.spans[process.span].ended_ms = Some(now);
            }
        }
        table.switch_at_ms = None;
        table.reports.clear();
        drop(table);
        self.changed.notify_waiters();
    }

    /// Changes what goes wrong from now on.
    pub fn set_faults(&self, faults: ProcessFaults) {
        self.table().faults = faults;
    }

    /// Every process that ever ran.
    #[must_use]
    pub fn history(&self) -> Vec<ProcessSpan> {
        self.table().spans.clone()
    }

    /// Plays the table for ever.
    pub async fn drive(self: Arc<Self>) {
        loop {
            let changed = self.changed.notified();
            let now = self.now_ms();
            let due_ms = {
                let mut table = self.table();
                self.play(&mut table, now);
                table.next_due_ms(now)
            };
            match due_ms {
                Some(due) => {
                    // Either way the table is looked at again.
                    let _ = time::timeout(time::ms(due.saturating_sub(now).max(1)), changed).await;
                }
                None => changed.await,
            }
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().expect("nothing panics while holding it")
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.base.elapsed().as_millis()).expect("a simulation is shorter than that")
    }

    fn play(&self, table: &mut Table, now: u64) {
        let switched = table.switch_at_ms.is_some_and(|at| self.clock.monotonic_ms() >= at);
        if switched {
            table.switch_at_ms = None;
        }
        let Table { processes, spans, reports, .. } = table;
        for (key, process) in processes.iter_mut().filter(|(_, process)| process.exit.is_none()) {
            if switched {
                process.ends_ms = Some(now);
                process.ends_how = Exit { signal: 9, fenced: true, ..Exit::default() };
            }
            self.write_lines(process, now);
            let Some(end) = process.ends_ms.filter(|end| *end <= now) else { continue };
            let success = process.ends_how.code == 0 && process.ends_how.signal == 0;
            if success && process.writes_outputs {
                self.write_outputs(process);
            }
            let exit = Exit {
                stdout_bytes: process.stdout_bytes,
                wall_ms: end - process.started_ms,
                cpu_ms: (end - process.started_ms) / 2,
                max_rss_bytes: 1 << 20,
                ..process.ends_how
            };
            process.exit = Some(exit);
            spans[process.span].ended_ms = Some(now);
            reports.push_back(Report::Exited { key: key.clone(), exit });
        }
        if !table.reports.is_empty() {
            self.told.notify_waiters();
        }
    }

    fn write_lines(&self, process: &mut Process, now: u64) {
        let due = process.script.lines_due(now - process.started_ms);
        while process.lines_written < due {
            let line = format!("line {} of {}\n", process.lines_written, process.launch.key);
            let wrote = self.write(&process.launch.stdout, process.stdout_bytes, line.as_bytes());
            if wrote.is_err() {
                // A full or broken disk: the program goes on without its line.
                return;
            }
            process.lines_written += 1;
            process.stdout_bytes += line.len() as u64;
        }
    }

    fn write_outputs(&self, process: &Process) {
        for (name, bytes) in &process.script.outputs {
            let data: Vec<u8> = (0..*bytes).map(|at| (at % 251) as u8 ^ process.pid as u8).collect();
            let written = self.write(&process.launch.cwd.join(name), 0, &data);
            // What could not be written is an output that is missing.
            let _ = written;
        }
    }

    fn write(&self, path: &Path, offset: u64, data: &[u8]) -> io::Result<()> {
        let disk = self.disk.handle();
        let root = disk.absolute("");
        let below = path.strip_prefix(&root).map_err(io::Error::other)?;
        let below = below.to_str().ok_or_else(|| io::Error::other("a path that is not text"))?;
        disk.open(below, OpenMode::CreateOrWrite)?.write_at(offset, data)
    }

    fn launch(&self, table: &mut Table, launch: Launch, now: u64) {
        let key = launch.key.clone();
        if table.processes.contains_key(&key) {
            let error = "the key is in use".to_owned();
            return table.reports.push_back(Report::LaunchFailed { key, error });
        }
        let faults = table.faults;
        let script = match Script::read(&launch) {
            Ok(script) if !strikes(&mut table.rng, faults.launch_ppm) => script,
            Ok(_) => {
                let error = "the machine is out of processes".to_owned();
                return table.reports.push_back(Report::LaunchFailed { key, error });
            }
            Err(error) => return table.reports.push_back(Report::LaunchFailed { key, error }),
        };
        // The supervisor makes both files before it launches.
        if self.write(&launch.stdout, 0, b"").and_then(|()| self.write(&launch.stderr, 0, b"")).is_err() {
            let error = "the log files cannot be made".to_owned();
            return table.reports.push_back(Report::LaunchFailed { key, error });
        }
        let mut ends_how = Exit { code: script.code, signal: script.signal, ..Exit::default() };
        let mut ends_ms = (!script.hang).then_some(now + script.run_ms);
        if strikes(&mut table.rng, faults.kill_ppm) {
            ends_how = Exit { signal: 9, ..Exit::default() };
            ends_ms = Some(now + below(&mut table.rng, script.run_ms.max(1)));
        } else if strikes(&mut table.rng, faults.code_ppm) {
            ends_how = Exit { code: 70, ..Exit::default() };
        } else if strikes(&mut table.rng, faults.hang_ppm) {
            ends_ms = None;
        }
        let writes_outputs = !strikes(&mut table.rng, faults.no_output_ppm);
        let deaf = strikes(&mut table.rng, faults.deaf_ppm);
        let pid = table.next_pid;
        table.next_pid += 1;
        let span = table.spans.len();
        table.spans.push(ProcessSpan { key: key.clone(), started_ms: now, ended_ms: None });
        let process = Process {
            launch,
            script,
            pid,
            started_ms: now,
            ends_ms,
            ends_how,
            lines_written: 0,
            stdout_bytes: 0,
            writes_outputs,
            deaf,
            exit: None,
            span,
        };
        table.processes.insert(key.clone(), process);
        table.reports.push_back(Report::Started { key, pid });
    }

    fn command(&self, table: &mut Table, command: Command, now: u64) {
        match command {
            Command::Launch(launch) => self.launch(table, *launch, now),
            Command::Signal { key, signal } => {
                let Some(process) = table.processes.get_mut(&key).filter(|process| process.exit.is_none()) else {
                    return;
                };
                let (number, at) = match signal {
                    Signal::Kill => (9, now),
                    Signal::Term if process.deaf => return,
                    Signal::Term => (15, now + TERM_TAKES_MS),
                };
                if process.ends_ms.is_none_or(|end| at < end) {
                    process.ends_ms = Some(at);
                    process.ends_how = Exit { signal: number, ..Exit::default() };
                }
            }
            Command::Forget { key } => {
                if let Some(process) = table.processes.remove(&key)
                    && process.exit.is_none()
                {
                    table.spans[process.span].ended_ms = Some(now);
                }
            }
            Command::KeepAlive { for_ms } => table.switch_at_ms = Some(self.clock.monotonic_ms() + for_ms),
        }
    }
}

impl Table {
    /// When something happens next, unless somebody asks for something.
    fn next_due_ms(&self, now: u64) -> Option<u64> {
        let running = self.processes.values().filter(|process| process.exit.is_none());
        let (mut due, mut any) = (u64::MAX, false);
        for process in running {
            any = true;
            due = due.min(process.ends_ms.unwrap_or(u64::MAX));
            if let Some(line) = process.script.next_line_ms(process.lines_written) {
                due = due.min((process.started_ms + line).max(now + 1));
            }
        }
        if any && self.switch_at_ms.is_some() {
            due = due.min(now + SWITCH_LOOK_MS);
        }
        (due != u64::MAX).then_some(due)
    }
}

#[async_trait]
impl Processes for Door {
    async fn list(&self) -> Result<Vec<Record>, Unreachable> {
        let table = self.node.table();
        self.check(&table)?;
        let record = |(key, process): (&ProcessKey, &Process)| Record {
            key: key.clone(),
            context: process.launch.context.clone(),
            pid: process.pid,
            exit: process.exit,
        };
        Ok(table.processes.iter().map(record).collect())
    }

    async fn send(&self, commands: Vec<Command>) -> Result<(), Unreachable> {
        let now = self.node.now_ms();
        let mut table = self.node.table();
        self.check(&table)?;
        for command in commands {
            self.node.command(&mut table, command, now);
        }
        self.node.play(&mut table, now);
        drop(table);
        self.node.changed.notify_waiters();
        Ok(())
    }

    async fn next(&self) -> Vec<Report> {
        loop {
            let told = self.node.told.notified();
            {
                let mut table = self.node.table();
                if self.check(&table).is_ok() && !table.reports.is_empty() {
                    return table.reports.drain(..).collect();
                }
            }
            told.await;
        }
    }
}

impl Door {
    fn check(&self, table: &Table) -> Result<(), Unreachable> {
        if table.incarnation == self.incarnation {
            return Ok(());
        }
        Err(Unreachable(format!("a later agent of {} has its processes", self.node.node)))
    }
}
