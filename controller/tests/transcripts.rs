//! Stories one reads: `testdata/*.txt`. A block is commands, `----`, and all
//! that the core did. `UPDATE_TRANSCRIPTS=1` writes what it does now; read the
//! difference before believing it.

mod model;
#[path = "transcript/show.rs"]
mod show;

use controller::{Config, Event, Moved, NewJob, Upload};
use model::{Cluster, specs};
use proto::v1::{
    Artifact, AttemptRef, Budget, Cause, CauseKind, Ended, GrantNode, Heartbeat, HeldAttempt, IdempotencyRow,
    Input, Refused, RegisterRequest, Report, Reports, Resources, Started, State, Step, TenantRow, report,
};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

struct Teller {
    cluster: Cluster,
    sequence: u64,
    sessions: BTreeMap<String, u64>,
}

/// `word=value` and bare words of a command.
struct Words<'a> {
    bare: Vec<&'a str>,
    named: BTreeMap<&'a str, &'a str>,
}

impl<'a> Words<'a> {
    fn of(text: &'a str) -> Self {
        let (named, bare): (Vec<&str>, Vec<&str>) =
            text.split_whitespace().partition(|word| word.contains('='));
        Self { bare, named: named.into_iter().filter_map(|word| word.split_once('=')).collect() }
    }

    fn number(&self, name: &str, default: u64) -> u64 {
        self.named.get(name).map_or(default, |value| value.parse().unwrap())
    }
}

impl Teller {
    fn new() -> Self {
        let mut cluster = Cluster::new(Config::default(), 4);
        cluster.story = Some(Vec::new());
        Self { cluster, sequence: 0, sessions: BTreeMap::new() }
    }

    fn run(&mut self, command: &str) {
        let (verb, rest) = command.split_once(' ').unwrap_or((command, ""));
        let words = Words::of(rest);
        let bare = &words.bare;
        let ticket = self.cluster.ticket();
        match verb {
            "tenant" => {
                let budget = Budget { core_hour_micros: words.number("core_hour", 0), ..Budget::default() };
                let row = TenantRow { name: bare[0].into(), budget: Some(budget), ..TenantRow::default() };
                self.cluster.tenant(row);
            }
            "register" => {
                for node in bare {
                    self.register(node);
                }
            }
            "hello" => self.hello(bare[0], &rest[bare[0].len()..]),
            "node" => {
                for node in bare {
                    self.register(node);
                    self.hello(node, "");
                }
            }
            "submit" => self.submit(ticket, rest),
            "cancel" => {
                let (tenant, number) = job(bare[0]);
                let ended = Some(self.cluster.state(&tenant, number)).filter(|state| over(*state));
                let reason = bare[1..].join(" ");
                self.cluster.step(Event::Cancel { ticket, tenant, number, reason, ended });
            }
            "retry" => {
                let (tenant, number) = job(bare[0]);
                let loaded = self.cluster.rows.job(&tenant, number);
                let loaded = over(loaded.state.state()).then(|| Box::new(loaded));
                let from_step = words.named.get("from").copied().unwrap_or_default().to_owned();
                self.cluster.step(Event::Retry { ticket, tenant, number, from_step, loaded });
            }
            "grant" => self.grant(rest),
            "report" => self.report(bare[0], &rest[bare[0].len()..]),
            "beat" => {
                for node in bare {
                    self.sequence += 1;
                    let beat = Heartbeat { sequence: self.sequence, ..Heartbeat::default() };
                    let (node, session) = ((*node).to_owned(), self.sessions[*node]);
                    self.cluster.step(Event::Heartbeat { node, session, beat });
                }
            }
            "stream-lost" => {
                let (node, session) = (bare[0].to_owned(), self.sessions[bare[0]]);
                self.cluster.step(Event::SessionLost { node, session });
            }
            "moved" => {
                let moved = bare.iter().map(|tenant| Moved {
                    tenant: (*tenant).to_owned(),
                    ingress_bytes: words.number("in", 0),
                    egress_bytes: words.number("out", 0),
                    stored: match words.number("kept", 0) {
                        0 => Vec::new(),
                        size_bytes => vec![Upload { digest: "00".repeat(32), size_bytes }],
                    },
                });
                let moved = moved.collect();
                self.cluster.step(Event::Moved { ticket, moved });
            }
            "drain" => {
                let (node, reason) = (bare[0].to_owned(), bare[1..].join(" "));
                self.cluster.step(Event::DrainNode { ticket, node, drained: true, reason });
            }
            "advance" => self.cluster.advance(bare[0].parse().unwrap()),
            // The controller's process was stopped: time passes without ticks.
            "pause" => {
                let ms: u64 = bare[0].parse().unwrap();
                self.cluster.now.mono_ms += ms;
                self.cluster.now.wall_ms += ms;
                self.cluster.step(Event::Tick);
            }
            "crash" => self.cluster.crash(),
            "wall-back" => self.cluster.now.wall_ms -= bare[0].parse::<u64>().unwrap(),
            other => panic!("no command {other}"),
        }
    }

    fn register(&mut self, node: &str) {
        let ticket = self.cluster.ticket();
        let request = RegisterRequest {
            node: node.to_owned(),
            pool: "default".to_owned(),
            address: format!("{node}.example"),
            ..RegisterRequest::default()
        };
        self.cluster.step(Event::Register { ticket, request });
        *self.sessions.entry(node.to_owned()).or_default() += 1;
    }

    /// `JOB/STEP TASK[.RANK] aA eE STATE; …`
    fn hello(&mut self, node: &str, held: &str) {
        let held = held
            .split(';')
            .filter(|part| !part.trim().is_empty())
            .map(|part| {
                let words = Words::of(part);
                let (attempt, rank) = attempt(&words.bare);
                let state = State::from_str_name(&format!("STATE_{}", words.bare[4])).unwrap();
                HeldAttempt { attempt: Some(attempt), rank, state: state.into() }
            })
            .collect();
        let (node, session) = (node.to_owned(), self.sessions[node]);
        self.cluster.step(Event::Hello { node, session, held });
    }

    /// Steps are `name:option,option…`.
    fn submit(&mut self, ticket: u64, rest: &str) {
        let (mut steps, mut after, mut inputs) = (Vec::new(), Vec::new(), Vec::new());
        let mut begin_ms = 0;
        let mut new = NewJob { by: "tests".to_owned(), ..NewJob::default() };
        for word in rest.split_whitespace() {
            match word.split_once(['=', ':']) {
                None if word == "dry" => new.dry_run = true,
                None if new.tenant.is_empty() => new.tenant = word.to_owned(),
                Some(("key", key)) => new.key = key.to_owned(),
                Some((source @ ("url" | "upload"), size)) => inputs.push(Input {
                    name: source.to_owned(),
                    url: if source == "url" { "http://h/x".to_owned() } else { String::new() },
                    size_bytes: size.parse().unwrap(),
                    ..Input::default()
                }),
                Some(("begin-in", ms)) => begin_ms = self.cluster.now.wall_ms + ms.parse::<u64>().unwrap(),
                Some(("digest", digest)) => new.spec_digest = digest.to_owned(),
                Some(("ok" | "notok" | "any" | "each", _)) => {
                    after.push(proto::after::parse(word, "").unwrap().1);
                }
                Some((name, options)) => steps.push(step(name, options)),
                None => steps.push(step(word, "")),
            }
        }
        new.spec = specs::job(steps);
        new.spec.after = after;
        new.spec.inputs = inputs;
        new.spec.begin_ms = begin_ms;
        let ended = |number| Some(self.cluster.state(&new.tenant, number)).filter(|state| over(*state));
        new.followed = self.cluster.rows.followed(&new.tenant, &new.spec);
        new.dependencies = new.spec.after.iter().map(|on| (on.job_number, ended(on.job_number))).collect();
        let key = proto::keys::idem(&new.tenant, &new.key);
        let known = self.cluster.rows.get::<IdempotencyRow>(&key);
        new.known = known.map(|row| (row.job_number, row.spec_digest));
        self.cluster.step(Event::Submit { ticket, job: new });
    }

    /// `JOB/STEP node=slots … [gang] [memory=BYTES of a slot]`
    fn grant(&mut self, rest: &str) {
        let mut nodes = Vec::new();
        let mut words = rest.split_whitespace();
        let (tenant, number, index) = job_step(words.next().unwrap());
        let mut gang = false;
        // Of an earlier version, which does not tell it.
        let mut submitted_ms = 0;
        let mut each = Resources { millicores: 1000, memory_bytes: 1 << 20, gpus: 0 };
        for word in words {
            match word.split_once('=') {
                Some(("memory", bytes)) => each.memory_bytes = bytes.parse().unwrap(),
                Some((node, slots)) => {
                    nodes.push(GrantNode { node: node.to_owned(), slots: slots.parse().unwrap() });
                }
                None if word == "lost" => submitted_ms = 1,
                None => gang = word == "gang",
            }
        }
        let key = proto::v1::DemandKey { tenant, job_number: number, step: index };
        self.cluster.grant(&key, nodes, gang, Some(each), submitted_ms);
        self.cluster.tell_grants();
    }

    /// `JOB/STEP TASK[.RANK] aA eE started | ended CAUSE | refused; …`
    fn report(&mut self, node: &str, rest: &str) {
        let mut missing = Vec::new();
        let mut reports = Vec::new();
        for (index, part) in rest.split(';').enumerate() {
            let words = Words::of(part);
            let (attempt, rank) = attempt(&words.bare);
            let what = match words.bare[4] {
                "started" => report::What::Started(Started::default()),
                "refused" => report::What::Refused(Refused { reason: "no".to_owned() }),
                "ended" => report::What::Ended(ended(&words, attempt.task)),
                other => panic!("no report {other}"),
            };
            if words.bare.contains(&"missing") {
                missing.push(index);
            }
            reports.push(Report { attempt: Some(attempt), rank, what: Some(what) });
        }
        self.sequence += 1;
        let reports = Reports { sequence: self.sequence, reports };
        let (node, session) = (node.to_owned(), self.sessions[node]);
        self.cluster.step(Event::Reports { node, session, reports, missing });
    }

    /// What happened since the last time, without what repeats each heartbeat.
    fn told(&mut self, since_ms: u64) -> String {
        let mut text = String::new();
        for (at_ms, txn) in self.cluster.story.replace(Vec::new()).unwrap_or_default() {
            let lines = show::txn(&txn);
            if !lines.is_empty() && at_ms > since_ms {
                text += &format!("after {} ms\n", at_ms - since_ms);
            }
            for line in lines {
                text += &format!("  {line}\n");
            }
        }
        text
    }
}

/// Options: `array=1-9%2`, `retries=N`, `gang=NxM`, `after=a+b`, `out`.
fn step(name: &str, options: &str) -> Step {
    let mut step = specs::step(name);
    for option in options.split(';').filter(|option| !option.is_empty()) {
        match option.split_once('=') {
            Some(("array", text)) => step.array = Some(proto::array::parse(text).unwrap()),
            Some(("retries", count)) => step.retries = Some(count.parse().unwrap()),
            Some(("gang", shape)) => {
                let (nodes, each) = shape.split_once('x').unwrap();
                (step.nodes, step.tasks_per_node) = (nodes.parse().unwrap(), each.parse().unwrap());
            }
            Some(("after", names)) => step.after = names.split('+').map(str::to_owned).collect(),
            None if option == "out" => step.outputs = vec!["out".to_owned()],
            _ => panic!("no option {option}"),
        }
    }
    step
}

fn ended(words: &Words<'_>, task: u64) -> Ended {
    let (kind, number) = words.bare[5].split_once(':').unwrap_or((words.bare[5], "0"));
    let number: i32 = number.parse().unwrap();
    let kind = if kind == "ok" {
        CauseKind::Succeeded
    } else {
        CauseKind::from_str_name(&format!("CAUSE_KIND_{kind}")).unwrap()
    };
    let mut cause = Cause { kind: kind.into(), ..Cause::default() };
    match kind {
        CauseKind::Exit => cause.exit_code = number,
        CauseKind::Signal => cause.signal = number,
        _ => {}
    }
    let artifacts = words.named.get("out").map(|path| Artifact {
        path: (*path).to_owned(),
        size_bytes: 10,
        digest: format!("{task:064x}"),
        mode: 0o644,
    });
    Ended {
        cause: Some(cause),
        artifacts: artifacts.into_iter().collect(),
        wall_ms: words.number("ms", 0),
        ..Ended::default()
    }
}

fn job(id: &str) -> (String, u64) {
    let (tenant, number) = id.rsplit_once('-').unwrap();
    (tenant.to_owned(), number.parse().unwrap())
}

fn job_step(text: &str) -> (String, u64, u32) {
    let (id, step) = text.split_once('/').unwrap();
    let (tenant, number) = job(id);
    (tenant, number, step.parse().unwrap())
}

/// `JOB/STEP TASK[.RANK] aA eE`
fn attempt(words: &[&str]) -> (AttemptRef, u32) {
    let (tenant, job_number, step) = job_step(words[0]);
    let (task, rank) = words[1].split_once('.').unwrap_or((words[1], "0"));
    let attempt = AttemptRef {
        tenant,
        job_number,
        step,
        task: task.parse().unwrap(),
        attempt: words[2][1..].parse().unwrap(),
        epoch: words[3][1..].parse().unwrap(),
    };
    (attempt, rank.parse().unwrap())
}

fn over(state: State) -> bool {
    matches!(state, State::Completed | State::Failed | State::Cancelled)
}

/// Runs one file; returns it as it should be.
fn tell(text: &str) -> String {
    let mut teller = Teller::new();
    let mut told = String::new();
    let mut answering = false;
    let mut since_ms = teller.cluster.now.mono_ms;
    for line in text.lines() {
        if answering {
            if line.is_empty() {
                answering = false;
                told.push('\n');
            }
            continue;
        }
        told += line;
        told.push('\n');
        if line == "----" {
            told += &teller.told(since_ms);
            since_ms = teller.cluster.now.mono_ms;
            answering = true;
        } else if !line.is_empty() && !line.starts_with('#') {
            teller.run(line);
        }
    }
    told
}

#[test]
#[allow(clippy::disallowed_methods, reason = "the transcripts lie in the repository, outside the world")]
fn transcripts_read_as_written() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 8);
    let mut differ = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let told = tell(&text);
        if told != text {
            if std::env::var("UPDATE_TRANSCRIPTS").is_ok() {
                std::fs::write(&file, &told).unwrap();
            } else {
                let at = text.lines().zip(told.lines()).position(|(a, b)| a != b).unwrap_or(0);
                let got: Vec<&str> = told.lines().skip(at).take(12).collect();
                differ.push(format!("{} line {}:\n{}", file.display(), at + 1, got.join("\n")));
            }
        }
    }
    assert!(differ.is_empty(), "{}", differ.join("\n\n"));
}
