//! Plays the transcripts of `testdata/`: what happens on plain lines, what the
//! core decides or answers on lines that begin with `=`.
//!
//! A transcript that no longer holds fails with the whole of it as it would be
//! now; read that like prose before taking it over.

use proto::units::{parse_memory_bytes, parse_millicores};
use proto::v1::{
    Constraint, Demand, DemandKey, DemandUpdate, GrantNode, GrantRow, License, NodeRow, NodeState, Quota,
    Resources, TenantRow,
};
use scheduler::Amount;
use scheduler::core::{Config, Core, Event, Outcome, Proposal};
use std::collections::BTreeMap;
use world::clock::Now;

/// `word name=value …`
struct Line<'a> {
    words: Vec<&'a str>,
    named: BTreeMap<&'a str, &'a str>,
}

impl<'a> Line<'a> {
    fn read(text: &'a str) -> Line<'a> {
        let mut line = Line { words: Vec::new(), named: BTreeMap::new() };
        for part in text.split_whitespace() {
            match part.split_once('=') {
                Some((name, value)) => _ = line.named.insert(name, value),
                None => line.words.push(part),
            }
        }
        line
    }

    fn number<T: std::str::FromStr>(&self, name: &str) -> Option<T> {
        self.named.get(name).map(|v| v.parse().unwrap_or_else(|_| panic!("{name}={v} is no number")))
    }

    /// `holds=name:count,name:count`
    fn licenses(&self) -> BTreeMap<String, u32> {
        let count = |text: &String| {
            let (name, count) = text.split_once(':').unwrap();
            (name.to_owned(), count.parse().unwrap())
        };
        self.list("holds").iter().map(count).collect()
    }

    fn list(&self, name: &str) -> Vec<String> {
        self.named.get(name).map_or(Vec::new(), |v| v.split(',').map(str::to_owned).collect())
    }

    fn millicores(&self) -> Option<u32> {
        self.named.get("cores").map(|v| parse_millicores(v).unwrap())
    }

    fn memory_bytes(&self) -> Option<u64> {
        self.named.get("memory").map(|v| parse_memory_bytes(v).unwrap())
    }

    fn resources(&self) -> Resources {
        Resources {
            millicores: self.millicores().unwrap_or(0),
            memory_bytes: self.memory_bytes().unwrap_or(0),
            gpus: self.number("gpus").unwrap_or(0),
        }
    }
}

fn key_of(text: &str) -> DemandKey {
    let parts: Vec<&str> = text.split('/').collect();
    DemandKey {
        tenant: parts[0].to_owned(),
        job_number: parts[1].parse().unwrap(),
        step: parts[2].parse().unwrap(),
    }
}

fn node_of(line: &Line<'_>) -> NodeRow {
    let labels = line.list("labels").iter().map(|l| l.split_once(':').unwrap_or((l, ""))).fold(
        BTreeMap::new(),
        |mut labels, (label, value)| {
            labels.insert(label.to_owned(), value.to_owned());
            labels
        },
    );
    let state = match line.words.iter().find(|w| ["suspect", "lost"].contains(w)) {
        Some(&"suspect") => NodeState::Suspect,
        Some(_) => NodeState::Lost,
        None => NodeState::Ready,
    };
    NodeRow {
        name: line.words[1].to_owned(),
        pool: (*line.named.get("pool").unwrap_or(&"main")).to_owned(),
        labels,
        capacity: Some(line.resources()),
        state: state.into(),
        drained: line.words.contains(&"drained"),
        ..NodeRow::default()
    }
}

fn demand_of(line: &Line<'_>) -> DemandUpdate {
    let gang = line.named.get("gang").map(|v| v.split_once('x').unwrap());
    let constraint = |text: &String| {
        let (negated, text) = text.strip_prefix('!').map_or((false, text.as_str()), |rest| (true, rest));
        let (label, value) = text.split_once(':').unwrap_or((text, ""));
        Constraint { label: label.to_owned(), value: value.to_owned(), negated }
    };
    let demand = Demand {
        key: Some(key_of(line.words[1])),
        per_slot: Some(line.resources()),
        slots: line.number("slots").unwrap_or(1),
        gang_nodes: gang.map_or(0, |g| g.0.parse().unwrap()),
        gang_tasks_per_node: gang.map_or(0, |g| g.1.parse().unwrap()),
        priority: line.number("priority").unwrap_or(0),
        queued_ms: line.number("queued").unwrap_or(0),
        not_before_ms: line.number("not-before").unwrap_or(0),
        pool: (*line.named.get("pool").unwrap_or(&"")).to_owned(),
        constraints: line.list("labels").iter().map(constraint).collect(),
        avoid: line.list("avoid"),
        expected_runtime_ms: line.number("expected").unwrap_or(0),
        granted_epoch: line.number("counted").unwrap_or(0),
        limit_ms: line.number("limit").unwrap_or(0),
        exclusive: line.words.contains(&"exclusive"),
        licenses: line.licenses(),
    };
    update(line, vec![demand], Vec::new())
}

fn update(line: &Line<'_>, changed: Vec<Demand>, gone: Vec<DemandKey>) -> DemandUpdate {
    DemandUpdate {
        snapshot: line.words.contains(&"snapshot"),
        controller: (*line.named.get("from").unwrap_or(&"c1")).to_owned(),
        changed,
        gone,
        ..DemandUpdate::default()
    }
}

fn grant_of(line: &Line<'_>) -> Event {
    let key = key_of(line.words[1]);
    let nodes = line.list("on").into_iter().map(|text| {
        let (node, slots) = text.split_once('*').unwrap();
        GrantNode { node: node.to_owned(), slots: slots.parse().unwrap() }
    });
    Event::Granted {
        row: GrantRow {
            tenant: key.tenant,
            job_number: key.job_number,
            step: key.step,
            epoch: line.number("epoch").unwrap(),
            nodes: nodes.collect(),
            per_slot: Some(line.resources()),
            gang: line.words.contains(&"gang"),
            groups: line.list("groups"),
            ..GrantRow::default()
        },
        revision: line.number("revision").unwrap(),
    }
}

fn outcome_of(line: &Line<'_>) -> Event {
    let outcome = match line.words[2] {
        "committed" => Outcome::Committed(line.number("revision").unwrap()),
        "conflict" => {
            Outcome::Conflict { key: line.words[3].to_owned().into(), found: line.number("found").unwrap() }
        }
        "failed" => Outcome::Failed,
        "indeterminate" => Outcome::Indeterminate,
        other => panic!("{other} is no outcome"),
    };
    Event::Outcome { proposal: line.words[1].parse().unwrap(), outcome }
}

fn show(proposal: &Proposal) -> Vec<String> {
    let mut lines = Vec::new();
    for grant in &proposal.grants {
        let nodes: Vec<String> = grant.nodes.iter().map(|n| format!("{}*{}", n.node, n.slots)).collect();
        lines.push(format!(
            "proposal {}: {}/{}/{} epoch {} on {}{}",
            proposal.id,
            grant.tenant,
            grant.job_number,
            grant.step,
            grant.epoch,
            nodes.join(","),
            if grant.gang { " as a gang" } else { "" }
        ));
        for (name, count) in &grant.licenses {
            lines.push(format!("  with {count} of {name}"));
        }
        if !grant.whole.is_empty() {
            let whole = grant.whole.iter().map(|whole| Amount::of(Some(whole)).to_string());
            lines.push(format!("  all of each: {}", whole.collect::<Vec<_>>().join("; ")));
        }
    }
    lines
}

/// Does one line; returns what is said about it.
fn play(core: &mut Core, now: &mut Now, text: &str) -> Vec<String> {
    let line = Line::read(text);
    let event = match line.words[0] {
        "now" => {
            now.mono_ms = line.words[1].parse().unwrap();
            now.wall_ms = now.mono_ms;
            Event::Tick
        }
        "node" => Event::Node(node_of(&line)),
        "node-gone" => Event::NodeGone(line.words[1].to_owned()),
        "tenant" => Event::Tenant(TenantRow {
            name: line.words[1].to_owned(),
            quota: Some(Quota {
                millicores: line.millicores().map(u64::from),
                memory_bytes: line.memory_bytes(),
                gpus: line.number("gpus"),
                ..Quota::default()
            }),
            weight: line.number("weight").unwrap_or(0),
            parent: (*line.named.get("in").unwrap_or(&"")).to_owned(),
            group: line.words.contains(&"group"),
            ..TenantRow::default()
        }),
        "demand" => Event::Demand(demand_of(&line)),
        "licenses" => {
            let license = |(name, total): (String, u32)| License { name, total };
            let licenses = line.licenses().into_iter().map(license).collect();
            Event::Demand(DemandUpdate { snapshot: true, licenses, ..DemandUpdate::default() })
        }
        "gone" => Event::Demand(update(&line, Vec::new(), vec![key_of(line.words[1])])),
        "forget" => Event::Demand(update(&line, Vec::new(), Vec::new())),
        "grant" => grant_of(&line),
        "release" => {
            let (tenant, epoch) = line.words[1].split_once('/').unwrap();
            Event::Released {
                tenant: tenant.to_owned(),
                epoch: epoch.parse().unwrap(),
                revision: line.number("revision").unwrap(),
            }
        }
        "outcome" => outcome_of(&line),
        "plan" => {
            let lines: Vec<String> = core.plan(*now).iter().flat_map(show).collect();
            return if lines.is_empty() { vec!["nothing".to_owned()] } else { lines };
        }
        "why" => {
            let why = core.explain(&key_of(line.words[1]), *now);
            let mut lines = vec![format!("[{}] {}", why.code, why.headline)];
            lines.extend(why.details.into_iter().map(|detail| format!("  {detail}")));
            return lines;
        }
        "wakeup" => {
            return vec![core.next_wakeup_ms().map_or("never".to_owned(), |ms| format!("at {ms}"))];
        }
        "reread" => return vec![if core.take_reread() { "wanted" } else { "not wanted" }.to_owned()],
        "held" => return vec![core.held(line.words[1]).to_string()],
        other => panic!("{other} is no word of a transcript"),
    };
    core.step(*now, event);
    Vec::new()
}

fn transcript(name: &str, text: &str) {
    let mut core = Core::new(Config::default());
    let mut now = Now::default();
    let mut played = String::new();
    for line in text.lines().filter(|line| !line.starts_with('=')) {
        played.push_str(line);
        played.push('\n');
        let words = line.split('#').next().unwrap_or_default().trim();
        if words.is_empty() {
            continue;
        }
        for said in play(&mut core, &mut now, words) {
            played.push_str(&format!("= {said}\n"));
        }
        core.check();
    }
    assert!(played == text, "{name} does not hold any more; it would be:\n{played}<<<end of {name}");
}

macro_rules! transcripts {
    ($($name:ident)*) => {$(
        #[test]
        fn $name() {
            transcript(stringify!($name), include_str!(concat!("../testdata/", stringify!($name), ".txt")));
        }
    )*};
}

transcripts! { packing queues fairness gangs overtaken limits conflicts releases avoiding counting explaining fell turns vanished apart backfill
weights past behind overrun groups borrowing exclusive licenses }
