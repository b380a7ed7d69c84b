//! Every process the supervisor knows, from its launch until it is forgotten.
//!
//! What must hold: a process counts as ended only once its whole process group
//! is gone; an ended one keeps its record until the client forgets it; once the
//! dead man's switch has struck, nothing is launched until it is wound again.
//! A leader's number is used for its group only while it cannot have passed to
//! another process: before it is collected, or while the group has members.
//! (A child that ends before its launch comes back is the exception: there the
//! number was given away an instant before, and numbers go round.)

use super::launch::{Launched, Launchers, path_of};
use super::limits::{CONTEXT_BYTES_MAX, CONTEXTS_BYTES_MAX, GROUP_END_MS_MAX, NEWS_MAX, PROCESSES_MAX};
use super::machine::{self, Children, End};
use super::wire;
use bytes::Bytes;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::ops::Bound;

/// Where a process is in its life.
#[derive(Debug)]
enum Life {
    /// A launcher has it. What it is to be sent as soon as it runs.
    Launching {
        owed: Option<Signal>,
    },
    Running,
    /// Its leader ended so; members of its group are still dying.
    Ending {
        exit: wire::Exit,
        until_ms: u64,
    },
    Ended(wire::Exit),
}

#[derive(Debug)]
struct Record {
    /// Tells two processes apart that had one key after each other.
    serial: u64,
    context: Bytes,
    pid: Pid,
    launched_ms: u64,
    stdout: Bytes,
    stderr: Bytes,
    life: Life,
    /// Killed by the dead man's switch, unless it ended by itself just then.
    fenced: bool,
    /// Goes without a word as soon as it has ended.
    forgotten: bool,
}

#[derive(Debug)]
enum News {
    Started { key: String, pid: u32 },
    LaunchFailed { key: String, error: String },
    Exited { key: String, serial: u64 },
}

/// See the module.
#[derive(Debug)]
pub struct Table {
    launchers: Launchers,
    records: BTreeMap<String, Record>,
    /// Of those whose leader is not collected yet.
    by_pid: BTreeMap<Pid, String>,
    /// Children that ended before their launch came back, or orphans.
    early: BTreeMap<Pid, (End, u64)>,
    /// Keys in [`Life::Ending`].
    ending: Vec<String>,
    /// What the client has not been told.
    news: VecDeque<News>,
    serial: u64,
    contexts_bytes: usize,
    /// When the dead man's switch strikes.
    deadline_ms: Option<u64>,
    /// It struck and was not wound since.
    struck: bool,
}

impl Table {
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            launchers: Launchers::start()?,
            records: BTreeMap::new(),
            by_pid: BTreeMap::new(),
            early: BTreeMap::new(),
            ending: Vec::new(),
            news: VecDeque::new(),
            serial: 0,
            contexts_bytes: 0,
            deadline_ms: None,
            struck: false,
        })
    }

    /// Does one command.
    pub fn obey(&mut self, now_ms: u64, command: wire::Command) {
        self.expire(now_ms);
        match command.order {
            Some(wire::Order::Launch(launch)) => self.launch(now_ms, launch),
            Some(wire::Order::Signal(order)) => self.signal(&order),
            Some(wire::Order::Nudge(order)) => self.nudge(&order),
            Some(wire::Order::Forget(key)) => self.forget(&key),
            Some(wire::Order::KeepAliveUntil(until_ms)) => self.wind(now_ms, until_ms),
            // Of a later version: its client was welcomed knowing ours. Retiring
            // is not the table's business.
            Some(wire::Order::Retire(_)) | None => {}
        }
    }

    /// Winds the dead man's switch. Done as soon as it is read, and not behind
    /// the commands before it: launching those takes its time.
    pub fn wind(&mut self, now_ms: u64, until_ms: u64) {
        self.expire(now_ms);
        self.deadline_ms = Some(until_ms);
        self.struck = false;
        self.expire(now_ms);
    }

    /// Nothing is held, and no launch is under way.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty() && self.launches_under_way() == 0
    }

    /// Launches that have not come back.
    pub fn launches_under_way(&self) -> usize {
        self.launchers.under_way()
    }

    fn launch(&mut self, now_ms: u64, launch: wire::Launch) {
        if let Some(error) = self.refusal(&launch) {
            return self.news.push_back(News::LaunchFailed { key: launch.key, error });
        }
        self.serial += 1;
        self.contexts_bytes += launch.context.len();
        let life = if self.struck {
            // As if the switch had struck an instant later.
            self.news.push_back(News::Exited { key: launch.key.clone(), serial: self.serial });
            Life::Ended(wire::Exit { signal: Signal::SIGKILL as i32, fenced: true, ..wire::Exit::default() })
        } else {
            Life::Launching { owed: None }
        };
        let record = Record {
            serial: self.serial,
            context: launch.context.clone(),
            pid: Pid::from_raw(0),
            launched_ms: now_ms,
            stdout: launch.stdout.clone(),
            stderr: launch.stderr.clone(),
            life,
            fenced: false,
            forgotten: false,
        };
        self.records.insert(launch.key.clone(), record);
        if !self.struck {
            self.launchers.launch(launch);
        }
    }

    /// Takes launches back.
    pub fn launched(&mut self, now_ms: u64) {
        for launched in self.launchers.take_launched() {
            self.came_back(now_ms, launched);
        }
        if self.launchers.under_way() == 0 {
            // Those were orphans.
            self.early.clear();
        }
    }

    fn came_back(&mut self, now_ms: u64, launched: Launched) {
        let Launched { key, at_ms, result } = launched;
        let record = self.records.get_mut(&key).expect("a record stays until its launch came back");
        let Life::Launching { owed } = record.life else { unreachable!("only this ends a launch") };
        let pid = match result {
            Ok(pid) => pid,
            Err(error) => {
                let forgotten = record.forgotten;
                self.drop_record(&key);
                if !forgotten {
                    self.news.push_back(News::LaunchFailed { key, error: one_line(&error) });
                }
                return;
            }
        };
        record.pid = pid;
        record.launched_ms = at_ms;
        record.life = Life::Running;
        let number = u32::try_from(pid.as_raw()).expect("process numbers are positive");
        self.news.push_back(News::Started { key: key.clone(), pid: number });
        if let Some((end, end_ms)) = self.early.remove(&pid) {
            let _ = killpg(pid, Signal::SIGKILL);
            return self.leader_ended(now_ms.max(end_ms), key, end);
        }
        if let Some(signal) = owed {
            record.signal(signal);
        }
        self.by_pid.insert(pid, key);
    }

    fn refusal(&self, launch: &wire::Launch) -> Option<String> {
        let context = launch.context.len();
        if launch.key.is_empty() {
            Some("its key is empty".to_owned())
        } else if self.records.contains_key(&launch.key) {
            Some("a process of this key is known already".to_owned())
        } else if context > CONTEXT_BYTES_MAX {
            Some(format!("its context has {context} bytes; at most {CONTEXT_BYTES_MAX} are kept"))
        } else if self.contexts_bytes + context > CONTEXTS_BYTES_MAX {
            Some(format!("the contexts of all processes would pass {CONTEXTS_BYTES_MAX} bytes"))
        } else if self.records.len() >= PROCESSES_MAX {
            Some(format!("the supervisor keeps {PROCESSES_MAX} processes already"))
        } else {
            None
        }
    }

    fn signal(&mut self, order: &wire::Signal) {
        if let Some(record) = self.records.get_mut(&order.key) {
            record.signal(if order.kill { Signal::SIGKILL } else { Signal::SIGTERM });
        }
    }

    fn nudge(&mut self, order: &wire::Nudge) {
        let record = self.records.get(&order.key).filter(|record| matches!(record.life, Life::Running));
        let signal = format!("SIG{}", order.signal).parse::<Signal>();
        if let (Some(record), Ok(signal)) = (record, signal) {
            let _ = kill(record.pid, signal);
        }
    }

    fn forget(&mut self, key: &str) {
        let Some(record) = self.records.get_mut(key) else { return };
        if matches!(record.life, Life::Ended(_)) {
            self.drop_record(key);
        } else {
            record.forgotten = true;
            record.signal(Signal::SIGKILL);
        }
    }

    fn drop_record(&mut self, key: &str) {
        let record = self.records.remove(key).expect("only known records are dropped");
        self.contexts_bytes -= record.context.len();
    }

    /// Does what is due: the dead man's switch, groups that would not die.
    pub fn expire(&mut self, now_ms: u64) {
        if self.deadline_ms.is_some_and(|deadline| deadline <= now_ms) {
            self.deadline_ms = None;
            self.struck = true;
            self.kill_all(true);
        }
        if !self.ending.is_empty() {
            self.settle(now_ms);
        }
    }

    /// When [`Self::expire`] is next to be called.
    pub fn due_ms(&self) -> Option<u64> {
        let ending = self.ending.iter().filter_map(|key| match self.records[key].life {
            Life::Ending { until_ms, .. } => Some(until_ms),
            _ => None,
        });
        ending.chain(self.deadline_ms).min()
    }

    /// SIGKILL to every group.
    pub fn kill_all(&mut self, fenced: bool) {
        for record in self.records.values_mut() {
            if !matches!(record.life, Life::Ended(_)) {
                record.fenced |= fenced;
                record.signal(Signal::SIGKILL);
            }
        }
    }

    /// Collects every child that has ended. Returns whether any is left.
    pub fn reap(&mut self, now_ms: u64) -> bool {
        let alive = loop {
            match machine::ended_child() {
                Children::Ended(pid) => self.ended(now_ms, pid),
                Children::Running => break true,
                Children::None => break false,
            }
        };
        if !self.ending.is_empty() {
            self.settle(now_ms);
        }
        let launching = self.launchers.under_way() > 0;
        if alive && !launching && self.by_pid.is_empty() {
            // None of these leads a task: they left their group, and the task
            // they came from is over.
            for pid in machine::children() {
                let _ = kill(pid, Signal::SIGKILL);
            }
        }
        alive || launching
    }

    fn ended(&mut self, now_ms: u64, pid: Pid) {
        if let Some(key) = self.by_pid.remove(&pid) {
            // While the leader is not collected, its number is not given away.
            let _ = killpg(pid, Signal::SIGKILL);
            let end = machine::collect(pid);
            self.leader_ended(now_ms, key, end);
        } else {
            let end = machine::collect(pid);
            if self.launchers.under_way() > 0 {
                self.early.insert(pid, (end, now_ms));
            }
        }
    }

    fn leader_ended(&mut self, now_ms: u64, key: String, end: End) {
        let record = self.records.get_mut(&key).expect("a leader's record stays until it has ended");
        let exit = wire::Exit {
            code: end.code,
            signal: end.signal,
            wall_ms: now_ms.saturating_sub(record.launched_ms),
            cpu_ms: end.cpu_ms,
            max_rss_bytes: end.max_rss_bytes,
            fenced: record.fenced && end.signal == Signal::SIGKILL as i32,
            ..wire::Exit::default()
        };
        if group_lives(record.pid) {
            record.life = Life::Ending { exit, until_ms: now_ms + GROUP_END_MS_MAX };
            self.ending.push(key);
        } else {
            self.finish(key, exit);
        }
    }

    /// Finishes those of whose group nobody is left.
    fn settle(&mut self, now_ms: u64) {
        for key in std::mem::take(&mut self.ending) {
            let record = self.records.get_mut(&key).expect("a record stays until it has ended");
            let Life::Ending { exit, until_ms } = record.life else { continue };
            if now_ms >= until_ms || !group_lives(record.pid) {
                self.finish(key, exit);
            } else {
                record.signal(Signal::SIGKILL);
                self.ending.push(key);
            }
        }
    }

    /// Nobody writes to its outputs any more: their lengths are final.
    fn finish(&mut self, key: String, mut exit: wire::Exit) {
        let record = self.records.get_mut(&key).expect("a record stays until it has ended");
        if record.forgotten {
            return self.drop_record(&key);
        }
        exit.stdout_bytes = len_of(&record.stdout);
        exit.stderr_bytes =
            if record.stderr == record.stdout { exit.stdout_bytes } else { len_of(&record.stderr) };
        record.life = Life::Ended(exit);
        record.stdout = Bytes::new();
        record.stderr = Bytes::new();
        self.news.push_back(News::Exited { serial: record.serial, key });
    }

    /// No further commands may be taken until the client has read.
    pub fn full_of_news(&self) -> bool {
        self.news.len() >= NEWS_MAX
    }

    /// Whether the client is still to be told something.
    pub fn has_news(&self) -> bool {
        !self.news.is_empty()
    }

    /// A new client is told all ends again.
    pub fn tell_ends_again(&mut self) {
        self.news.retain(|news| !matches!(news, News::Exited { .. }));
        for (key, record) in &self.records {
            if matches!(record.life, Life::Ended(_)) {
                self.news.push_back(News::Exited { key: key.clone(), serial: record.serial });
            }
        }
    }

    /// Takes up to `count` reports that were not told yet.
    pub fn take_news(&mut self, count: usize) -> Vec<wire::Report> {
        let mut reports = Vec::with_capacity(count.min(self.news.len()));
        while reports.len() < count {
            let Some(news) = self.news.pop_front() else { break };
            let (key, fate) = match news {
                News::Started { key, pid } => (key, wire::Fate::StartedPid(pid)),
                News::LaunchFailed { key, error } => (key, wire::Fate::LaunchFailed(error)),
                News::Exited { key, serial } => match self.records.get(&key) {
                    Some(Record { serial: same, life: Life::Ended(exit), .. }) if *same == serial => {
                        (key, wire::Fate::Exited(*exit))
                    }
                    _ => continue,
                },
            };
            reports.push(wire::Report { key, fate: Some(fate) });
        }
        reports
    }

    /// Records after `after` in order of keys, up to about `bytes`; whether
    /// these are the last. A listing is begun when no launch is under way; what
    /// is launched meanwhile is not in it, and is told by itself.
    pub fn list(&self, after: Option<&str>, bytes: usize) -> (Vec<wire::Record>, bool) {
        let mut records = Vec::new();
        let mut taken = 0;
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        for (key, record) in self.records.range::<str, _>((from, Bound::Unbounded)) {
            if taken >= bytes {
                return (records, false);
            }
            if matches!(record.life, Life::Launching { .. }) {
                continue;
            }
            taken += key.len() + record.context.len() + 64;
            records.push(wire::Record {
                key: key.clone(),
                context: record.context.clone(),
                pid: u32::try_from(record.pid.as_raw()).unwrap_or(0),
                exit: if let Life::Ended(exit) = record.life { Some(exit) } else { None },
            });
        }
        (records, true)
    }
}

impl Record {
    /// To its group: now, or as soon as it runs.
    fn signal(&mut self, signal: Signal) {
        match &mut self.life {
            Life::Launching { owed: Some(Signal::SIGKILL) } | Life::Ended(_) => {}
            Life::Launching { owed } => *owed = Some(signal),
            Life::Running | Life::Ending { .. } => {
                let _ = killpg(self.pid, signal);
            }
        }
    }
}

fn group_lives(leader: Pid) -> bool {
    killpg(leader, None).is_ok()
}

#[expect(clippy::disallowed_methods, reason = "the supervisor stands behind the world's traits")]
fn len_of(path: &[u8]) -> u64 {
    std::fs::metadata(path_of(path)).map_or(0, |meta| meta.len())
}

fn one_line(text: &str) -> String {
    text.chars().take(1000).map(|c| if c.is_control() { ' ' } else { c }).collect()
}
