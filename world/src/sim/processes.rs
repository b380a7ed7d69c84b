//! Simulated processes of one node: small scripts played in virtual time.
//!
//! A process here is a row in a table, not a task of the agent's node: it goes
//! on when the agent is killed, as a real one does under its supervisor.
//! [`SimProcesses::drive`] plays the table and must run on something that is
//! never killed. The program is told by `argv` (see [`script`]).
//!
//! What must hold: whatever an agent sees here, it could see of the real
//! supervisor. So once the dead man's switch has struck, a launch ends at once
//! as struck until the switch is wound again; a new agent is told all ends
//! again; lengths of outputs are those of the files.

mod history;
mod script;
mod weather;

pub use history::{Kept, LaunchAsked, ProcessSpan};
pub use weather::{ProcessCounts, ProcessFaults};

use super::HostileDisk;
use super::disk::relative;
use super::faults::{below, strikes};
use crate::clock::NodeClock;
use crate::disk::{DiskFile, OpenMode};
use crate::processes::{Command, Exit, Launch, ProcessKey, Processes, Record, Report, Signal, Unreachable};
use crate::time::{self, Instant};
use crate::transfer::hex_digest;
use async_trait::async_trait;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use script::Script;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::Notify;

/// While a dead man's switch is set the node's clock is read at least so often,
/// since it may jump.
const SWITCH_LOOK_MS: u64 = 200;
/// A late output comes so soon, while it is still being collected.
const LATE_MS: u64 = 40;
/// By this file a task says that its checkpoint is whole.
const CHECKPOINT_READY: &str = ".drumline-ready";
/// From TERM to the end of a process that heeds it.
const TERM_TAKES_MS: u64 = 20;

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
    counts: ProcessCounts,
    /// When the dead man's switch strikes, on the node's own clock.
    switch_at_ms: Option<u64>,
    /// It struck and was not wound since.
    struck: bool,
    next_pid: u32,
    incarnation: u64,
    reports: VecDeque<Report>,
    spans: Vec<ProcessSpan>,
    launches: Vec<LaunchAsked>,
    /// Outputs that will change yet.
    late: Vec<LateOutput>,
    /// After so many launches the supervisor dies as it takes the next.
    dies_after: Option<u32>,
}

#[derive(Debug)]
struct LateOutput {
    at_ms: u64,
    span: usize,
    name: String,
    path: PathBuf,
    data: Vec<u8>,
}

#[derive(Debug)]
struct Process {
    launch: Launch,
    script: Script,
    pid: u32,
    /// May lie ahead: its start takes a while.
    starts_ms: u64,
    ends_ms: Option<u64>,
    ends_how: Exit,
    /// To standard output and standard error.
    lines_written: [u64; 2],
    writes_outputs: bool,
    /// Its outputs change so long after its end.
    changes_after_ms: Option<u64>,
    /// Hangs by a fault, not by its script.
    hangs: bool,
    deaf: bool,
    /// How many checkpoints it has kept, with those that it goes on from.
    kept: u64,
    /// When it keeps the next.
    keeps_ms: Option<u64>,
    /// When it next says how far it has come.
    says_ms: Option<u64>,
    exit: Option<Exit>,
    /// Its place in the history, once it has started.
    span: Option<usize>,
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
    pub fn new(
        node: &str,
        disk: Arc<HostileDisk>,
        clock: Arc<dyn NodeClock>,
        seed: u64,
        base: Instant,
    ) -> Self {
        let table = Table {
            rng: SmallRng::seed_from_u64(seed),
            faults: ProcessFaults::default(),
            processes: BTreeMap::new(),
            counts: ProcessCounts::default(),
            switch_at_ms: None,
            struck: false,
            next_pid: 100,
            incarnation: 0,
            reports: VecDeque::new(),
            spans: Vec::new(),
            launches: Vec::new(),
            late: Vec::new(),
            dies_after: None,
        };
        let (changed, told) = (Notify::new(), Notify::new());
        Self { node: node.to_owned(), disk, clock, base, table: Mutex::new(table), changed, told }
    }

    /// A door for a new incarnation of the agent.
    #[must_use]
    pub fn agent_handle(self: &Arc<Self>) -> Arc<dyn Processes> {
        let mut table = self.table();
        table.incarnation += 1;
        // What the earlier agent did not read, the new one learns by listing,
        // and of ends once more.
        table.reports.clear();
        let ended = |(key, process): (&ProcessKey, &Process)| {
            process.exit.map(|exit| Report::Exited { key: key.clone(), exit })
        };
        let ends: Vec<Report> = table.processes.iter().filter_map(ended).collect();
        table.reports.extend(ends);
        Arc::new(Door { node: Arc::clone(self), incarnation: table.incarnation })
    }

    /// The machine lost power: every process is gone, and all memory of it.
    pub fn crash(&self) {
        self.vanish(None);
        self.table().spans.iter_mut().for_each(|span| span.torn = true);
    }

    /// The supervisor is killed, and with it what it held; the agent's client
    /// notices and starts another.
    pub fn lose_supervisor(&self) {
        self.vanish(Some(Report::SupervisorLost));
    }

    /// The same as it takes a launch, after so many more. The launch was on its way and
    /// comes to the supervisor that takes its place. `None` takes that back.
    pub fn lose_supervisor_launching(&self, launches_before: Option<u32>) {
        self.table().dies_after = launches_before;
    }

    fn vanish(&self, report: Option<Report>) {
        let now = self.now_ms();
        let mut table = self.table();
        for process in std::mem::take(&mut table.processes).into_values() {
            table.over(&process, now);
        }
        table.late.clear();
        table.switch_at_ms = None;
        table.struck = false;
        table.reports.clear();
        table.reports.extend(report);
        drop(table);
        self.changed.notify_waiters();
        self.told.notify_waiters();
    }

    /// Changes what goes wrong from now on.
    pub fn set_faults(&self, faults: ProcessFaults) {
        self.table().faults = faults;
    }

    /// What hangs by a fault comes to itself and ends as it would have.
    pub fn wake_hung(&self) {
        let now = self.now_ms();
        for process in self.table().processes.values_mut().filter(|process| process.hangs) {
            process.hangs = false;
            let end = now.max(process.starts_ms + process.script.run_ms);
            process.ends_ms = Some(process.ends_ms.map_or(end, |sooner| sooner.min(end)));
        }
        self.changed.notify_waiters();
    }

    /// Every process that ever ran.
    #[must_use]
    pub fn history(&self) -> Vec<ProcessSpan> {
        let unread = self.disk.counts().read_errors > 0;
        self.table().spans.iter().map(|span| ProcessSpan { unread, ..span.clone() }).collect()
    }

    /// Every launch that was asked for.
    #[must_use]
    pub fn launches(&self) -> Vec<LaunchAsked> {
        self.table().launches.clone()
    }

    /// How often faults fired.
    #[must_use]
    pub fn counts(&self) -> ProcessCounts {
        self.table().counts
    }

    /// Plays the table for ever.
    pub async fn drive(self: Arc<Self>) {
        let mut alarm = time::Alarm::default();
        loop {
            let changed = self.changed.notified();
            let now = self.now_ms();
            let due_ms = {
                let mut table = self.table();
                self.play(&mut table, now);
                table.next_due_ms(now, self.clock.monotonic_ms())
            };
            match due_ms {
                Some(due) => {
                    crate::select! { biased;
                        () = changed => {}
                        () = alarm.after(time::ms(due.saturating_sub(now))) => {}
                    }
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
            table.struck = true;
        }
        let Table { processes, spans, reports, counts, late, .. } = table;
        self.write_late(late, spans, counts, now);
        for (key, process) in processes.iter_mut().filter(|(_, process)| process.exit.is_none()) {
            if switched {
                counts.fenced += 1;
                process.end_by(now, Exit { signal: 9, fenced: true, ..Exit::default() });
            }
            if process.span.is_none() && process.starts_ms <= now {
                process.span = Some(spans.len());
                spans.push(ProcessSpan {
                    key: key.clone(),
                    started_ms: now,
                    ended_ms: None,
                    succeeded: false,
                    found: self.names(&process.launch.cwd),
                    inputs: self.findings(&process.launch.cwd.join("inputs")),
                    from: word(&process.launch, "DRUMLINE_CHECKPOINT").map(str::to_owned),
                    resumed: checkpoints(&process.launch).map_or_else(Vec::new, |dir| self.findings(dir)),
                    kept: Vec::new(),
                    wrote: Vec::new(),
                    node: self.node.clone(),
                    wall_ms: None,
                    streams: Default::default(),
                    torn: false,
                    unread: false,
                });
                reports.push_back(Report::Started { key: key.clone(), pid: process.pid });
            }
            let Some(span) = process.span else { continue };
            self.write_lines(process, &mut spans[span].streams, counts, now);
            self.keep_checkpoint(process, &mut spans[span].kept, now);
            self.say_progress(process, now);
            let Some(end) = process.ends_ms.filter(|end| *end <= now) else { continue };
            let mut success = process.ends_how.code == 0 && process.ends_how.signal == 0;
            if success && process.writes_outputs {
                match self.write_outputs(process) {
                    Ok(wrote) => spans[span].wrote = wrote,
                    // As a program does that looks whether it could write.
                    Err(_) => {
                        counts.write_errors += 1;
                        process.ends_how.code = 1;
                        success = false;
                    }
                }
                let after_ms = process.changes_after_ms.filter(|_| success);
                late.extend(
                    after_ms.into_iter().flat_map(|after_ms| late_outputs(process, span, now + after_ms)),
                );
            }
            spans[span].succeeded = success;
            let wall_ms = end.saturating_sub(process.starts_ms);
            let exit = Exit {
                stdout_bytes: self.len(&process.launch.stdout),
                stderr_bytes: self.len(&process.launch.stderr),
                wall_ms,
                cpu_ms: wall_ms / 2,
                max_rss_bytes: process.ends_how.max_rss_bytes.max(1 << 20),
                ..process.ends_how
            };
            process.exit = Some(exit);
            (spans[span].ended_ms, spans[span].wall_ms) = (Some(now), Some(wall_ms));
            reports.push_back(Report::Exited { key: key.clone(), exit });
        }
        if !table.reports.is_empty() {
            self.told.notify_waiters();
        }
    }

    fn write_lines(
        &self,
        process: &mut Process,
        streams: &mut [Arc<Vec<u8>>; 2],
        counts: &mut ProcessCounts,
        now: u64,
    ) {
        let files = [&process.launch.stdout, &process.launch.stderr];
        for (stream, word) in ["line", "warning"].into_iter().enumerate() {
            let due = process.script.lines_due(stream, now - process.starts_ms);
            let written = &mut process.lines_written[stream];
            while *written < due {
                let line = format!("{word} {written} of {}\n", process.launch.key);
                // A full or broken disk: the program goes on without its line.
                *written += 1;
                let there = self.append(files[stream], line.as_bytes()).unwrap_or(0);
                counts.write_errors += u64::from(there < line.len());
                Arc::make_mut(&mut streams[stream]).extend_from_slice(&line.as_bytes()[..there]);
            }
        }
    }

    /// Keeps a checkpoint if it is time, and the one before was taken: else it waits.
    fn keep_checkpoint(&self, process: &mut Process, kept: &mut Vec<Kept>, now: u64) {
        let Some((every_ms, bytes)) = process.script.checkpoint else { return };
        if process.keeps_ms.is_none_or(|at| now < at) || process.ends_ms.is_some_and(|end| end <= now) {
            return;
        }
        process.keeps_ms = Some(now + every_ms).filter(|_| !process.script.keeps_when_asked);
        let Some(dir) = checkpoints(&process.launch) else { return };
        if self.names(dir).iter().any(|name| name == CHECKPOINT_READY) {
            return;
        }
        let label = (process.kept + 1).to_string();
        let mut data = output(process, bytes);
        data.extend_from_slice(label.as_bytes());
        let write = |path: &Path, data: &[u8]| {
            let file = self.open(path)?;
            file.set_len(0)?;
            file.write_at(0, data)
        };
        // Whole from the first instant: written elsewhere, and renamed.
        let next = dir.with_file_name(".next");
        let rename = || {
            let names = relative(&next).zip(relative_of(&dir.join(CHECKPOINT_READY)));
            let (from, to) = names.ok_or_else(|| io::Error::other("a path that is not of this disk"))?;
            self.disk.handle().rename(from, &to)
        };
        let ready = write(&dir.join("state"), &data).and_then(|()| write(&next, label.as_bytes()));
        // A disk that fails it: the next time, then.
        if ready.and_then(|()| rename()).is_ok() {
            process.kept += 1;
            let head = format!("drumline checkpoint {}\n", process.launch.key);
            let stored_digest = hex_digest(&Sha256::new_with_prefix(head).chain_update(&data).finalize());
            kept.push(Kept { label, digest: hex_digest(&Sha256::digest(&data)), stored_digest });
        }
    }

    /// Says how far it has come if it is time, by one line in place of the one before.
    fn say_progress(&self, process: &mut Process, now: u64) {
        let Some(every_ms) = process.script.says_every_ms else { return };
        if process.says_ms.is_none_or(|at| now < at) || process.ends_ms.is_some_and(|end| end <= now) {
            return;
        }
        process.says_ms = Some(now + every_ms);
        let Some(path) = word(&process.launch, "DRUMLINE_PROGRESS") else { return };
        let percent = process.script.percent(now - process.starts_ms);
        let line = format!("{percent} of {}\n", process.launch.key);
        let said = self.open(Path::new(path)).and_then(|file| {
            file.set_len(0)?;
            file.write_at(0, line.as_bytes())
        });
        // A disk that fails it: the next time, then.
        let _ = said;
    }

    fn write_outputs(&self, process: &Process) -> io::Result<Vec<(String, String)>> {
        let mut wrote = Vec::new();
        for (name, bytes) in &process.script.outputs {
            let data = output(process, *bytes);
            self.open(&process.launch.cwd.join(name))?.write_at(0, &data)?;
            wrote.push((name.clone(), hex_digest(&Sha256::digest(&data))));
        }
        Ok(wrote)
    }

    /// Changes outputs that are due, where they still lie.
    fn write_late(
        &self,
        late: &mut Vec<LateOutput>,
        spans: &mut [ProcessSpan],
        counts: &mut ProcessCounts,
        now: u64,
    ) {
        for output in late.extract_if(.., |output| output.at_ms <= now) {
            let there = output.path.parent().is_some_and(|dir| self.names(dir).contains(&output.name));
            if there && self.open(&output.path).and_then(|file| file.write_at(0, &output.data)).is_ok() {
                counts.late_outputs += 1;
                spans[output.span].wrote.push((output.name, hex_digest(&Sha256::digest(&output.data))));
            }
        }
    }

    fn names(&self, path: &Path) -> Vec<String> {
        let entries =
            relative(path).and_then(|below| self.disk.handle().list(below).ok()).unwrap_or_default();
        entries.into_iter().map(|entry| entry.name).collect()
    }

    /// What it finds in a directory, read as a program does that begins with that: see
    /// [`ProcessSpan::inputs`].
    fn findings(&self, directory: &Path) -> Vec<(String, Option<String>)> {
        relative(directory).map_or_else(Vec::new, |below| self.disk.findings(below))
    }

    /// By a handle of the moment: processes outlive agents, and with them the
    /// disk's incarnations.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let below = relative(path).ok_or_else(|| io::Error::other("a path that is not of this disk"))?;
        self.disk.handle().open(below, OpenMode::CreateOrWrite)
    }

    /// As a file opened to append: after whatever is there. A write that fails may
    /// have begun; returns how much is there.
    fn append(&self, path: &Path, data: &[u8]) -> io::Result<usize> {
        let file = self.open(path)?;
        let begun = file.len()?;
        match file.write_at(begun, data) {
            Ok(()) => Ok(data.len()),
            Err(_) => usize::try_from(file.len()? - begun).map_err(io::Error::other),
        }
    }

    fn empty(&self, path: &Path) -> io::Result<()> {
        self.open(path)?.set_len(0)
    }

    fn len(&self, path: &Path) -> u64 {
        relative(path).and_then(|below| self.disk.handle().entry(below).ok()).map_or(0, |entry| entry.len)
    }

    fn launch(&self, table: &mut Table, launch: Launch, now: u64) {
        table.counts.launches += 1;
        let key = launch.key.clone();
        table.launches.push(LaunchAsked { key: key.clone(), node: self.node.clone(), at_ms: now });
        match self.prepare(table, &launch) {
            Ok(script) => {
                let process = table.process(launch, script, now);
                if let Some(exit) = process.exit {
                    table.reports.push_back(Report::Exited { key: key.clone(), exit });
                }
                table.processes.insert(key, process);
            }
            Err(error) => {
                table.counts.launch_failures += 1;
                table.reports.push_back(Report::LaunchFailed { key, error });
            }
        }
    }

    fn prepare(&self, table: &mut Table, launch: &Launch) -> Result<Script, String> {
        if table.processes.contains_key(&launch.key) {
            return Err("a process of this key is known already".to_owned());
        }
        if table.struck {
            return Ok(Script::default());
        }
        let script = Script::read(launch)?;
        let ppm = table.faults.launch_ppm;
        if strikes(&mut table.rng, ppm) {
            table.counts.launches_denied += 1;
            return Err("the machine is out of processes".to_owned());
        }
        // The supervisor makes both files before it launches.
        let made = self.empty(&launch.stdout).and_then(|()| self.empty(&launch.stderr));
        made.map_err(|error| format!("its output cannot be opened: {error}"))?;
        Ok(script)
    }

    fn command(&self, table: &mut Table, command: Command, now: u64) {
        match command {
            Command::Launch(launch) => self.launch(table, *launch, now),
            Command::Signal { key, signal } => {
                let Some(process) = table.processes.get_mut(&key).filter(|process| process.exit.is_none())
                else {
                    return;
                };
                match signal {
                    Signal::Kill => process.end_by(now, Exit { signal: 9, ..Exit::default() }),
                    Signal::Term if process.deaf => table.counts.deaf += 1,
                    Signal::Term => {
                        process.end_by(now + TERM_TAKES_MS, Exit { signal: 15, ..Exit::default() })
                    }
                }
            }
            Command::Nudge { key, .. } => {
                let process = table.processes.get_mut(&key).filter(|process| process.exit.is_none());
                if let Some(process) = process.filter(|process| process.script.keeps_when_asked) {
                    process.keeps_ms = Some(now);
                }
            }
            Command::Forget { key } => {
                if let Some(process) = table.processes.remove(&key) {
                    table.over(&process, now);
                }
            }
            // The simulated one costs nothing while it waits.
            Command::Retire => {}
            Command::KeepAlive { for_ms } => {
                table.switch_at_ms = Some(self.clock.monotonic_ms() + for_ms);
                table.struck = false;
            }
        }
    }
}

fn relative_of(path: &Path) -> Option<String> {
    relative(path).map(str::to_owned)
}

/// Where its checkpoints are.
fn checkpoints(launch: &Launch) -> Option<&Path> {
    word(launch, "DRUMLINE_CHECKPOINT_DIR").map(Path::new)
}

/// A word of its environment.
fn word<'a>(launch: &'a Launch, name: &str) -> Option<&'a str> {
    launch.env.iter().find(|(named, _)| named == name).map(|(_, value)| value.as_str())
}

fn output(process: &Process, bytes: u64) -> Vec<u8> {
    let pattern: [u8; 251] = std::array::from_fn(|at| at as u8 ^ process.pid as u8);
    let bytes = usize::try_from(bytes).expect("a program of a rehearsal writes less");
    // A checkpoint has its label behind it.
    let mut data = Vec::with_capacity(bytes + 20);
    while data.len() < bytes {
        data.extend_from_slice(&pattern[..pattern.len().min(bytes - data.len())]);
    }
    data
}

/// The outputs of a process with other bytes.
fn late_outputs(process: &Process, span: usize, at_ms: u64) -> Vec<LateOutput> {
    let late = |(name, bytes): &(String, u64)| LateOutput {
        at_ms,
        span,
        name: name.clone(),
        path: process.launch.cwd.join(name),
        data: {
            let mut data = output(process, *bytes);
            data.iter_mut().for_each(|byte| *byte ^= 0x80);
            data
        },
    };
    process.script.outputs.iter().map(late).collect()
}

impl Process {
    /// Ends at this instant unless it ends earlier by itself; never before it
    /// has started.
    fn end_by(&mut self, at_ms: u64, how: Exit) {
        let at_ms = at_ms.max(self.starts_ms);
        if self.ends_ms.is_none_or(|end| at_ms < end) {
            self.ends_ms = Some(at_ms);
            self.ends_how = how;
        }
    }
}

impl Table {
    /// A process with the faults that the seed has for it.
    fn process(&mut self, launch: Launch, script: Script, now: u64) -> Process {
        let Self { rng, faults, counts, .. } = self;
        let mut fired = |ppm: u32, count: fn(&mut ProcessCounts) -> &mut u64| {
            let fired = strikes(rng, ppm);
            *count(counts) += u64::from(fired);
            fired
        };
        let limit = launch.limits.memory_bytes;
        let slow = fired(faults.slow_ppm, |counts| &mut counts.slow);
        let killed = fired(faults.kill_ppm, |counts| &mut counts.killed);
        let hungry = !killed && limit > 0 && fired(faults.oom_ppm, |counts| &mut counts.out_of_memory);
        let half_way = killed || hungry;
        let coded = !half_way && fired(faults.code_ppm, |counts| &mut counts.codes);
        let hangs = !half_way && !coded && fired(faults.hang_ppm, |counts| &mut counts.hung);
        let gives = !script.outputs.is_empty();
        let writes_outputs = !(gives && fired(faults.no_output_ppm, |counts| &mut counts.no_outputs));
        // Counted when they change.
        let changes = gives && strikes(rng, faults.late_output_ppm);
        let changes_after_ms = changes.then(|| below(rng, LATE_MS));
        // Counted when TERM comes.
        let deaf = strikes(rng, faults.deaf_ppm);

        let starts_ms = now + if slow { 1 + below(rng, faults.slow_ms.max(1)) } else { 0 };
        let (ends_ms, ends_how) = if half_way {
            let max_rss_bytes = if hungry { limit } else { 0 };
            let end = starts_ms + below(rng, script.run_ms.max(1));
            (Some(end), Exit { signal: 9, max_rss_bytes, ..Exit::default() })
        } else {
            let code = if coded { 70 } else { script.code };
            let end = (!script.hang && !hangs).then_some(starts_ms + script.run_ms);
            (end, Exit { code, signal: if coded { 0 } else { script.signal }, ..Exit::default() })
        };
        let struck = Exit { signal: 9, fenced: true, ..Exit::default() };
        self.next_pid += 1;
        Process {
            launch,
            pid: self.next_pid - 1,
            starts_ms,
            ends_ms,
            ends_how,
            lines_written: [0; 2],
            writes_outputs,
            changes_after_ms,
            hangs,
            deaf,
            kept: script.from,
            keeps_ms: script
                .checkpoint
                .map(|(every_ms, _)| starts_ms + every_ms)
                .filter(|_| !script.keeps_when_asked),
            says_ms: script.says_every_ms.map(|every_ms| starts_ms + every_ms),
            script,
            // As if the switch had struck an instant later: it never ran.
            exit: self.struck.then_some(struck),
            span: None,
        }
    }

    /// Whether the supervisor dies under these launches.
    fn dies_taking(&mut self, launches: usize) -> bool {
        let Some(left) = self.dies_after.filter(|_| launches > 0) else { return false };
        let taken = u32::try_from(launches).unwrap_or(u32::MAX);
        let dies = left < taken;
        self.dies_after = (!dies).then(|| left - taken);
        self.counts.died_launching += u64::from(dies);
        dies
    }

    /// A process is gone without a word.
    fn over(&mut self, process: &Process, now: u64) {
        if let Some(span) = process.span.filter(|_| process.exit.is_none()) {
            self.spans[span].ended_ms = Some(now);
        }
    }

    /// When something happens next, unless somebody asks for something.
    fn next_due_ms(&self, now: u64, clock_ms: u64) -> Option<u64> {
        let running = self.processes.values().filter(|process| process.exit.is_none());
        let (mut due, mut any) = (u64::MAX, false);
        for process in running {
            any = true;
            if process.span.is_none() {
                due = due.min(process.starts_ms);
                continue;
            }
            due = due.min(process.ends_ms.unwrap_or(u64::MAX));
            if let Some(at) = process.keeps_ms {
                due = due.min(at.max(now + 1));
            }
            if let Some(at) = process.says_ms {
                due = due.min(at.max(now + 1));
            }
            if let Some(line) = process.script.next_line_ms(process.lines_written) {
                due = due.min((process.starts_ms + line).max(now + 1));
            }
        }
        due = self.late.iter().map(|output| output.at_ms).fold(due, u64::min);
        if let Some(at) = self.switch_at_ms.filter(|_| any) {
            // The clock runs at most half as fast again as true time, so this
            // is never late by more than a millisecond.
            let left_ms = at.saturating_sub(clock_ms);
            due = due.min(now + (left_ms * 2 / 3).clamp(1, SWITCH_LOOK_MS));
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
        let launches = commands.iter().filter(|command| matches!(command, Command::Launch(_))).count();
        if table.dies_taking(launches) {
            drop(table);
            self.node.vanish(Some(Report::SupervisorLost));
            table = self.node.table();
        }
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
