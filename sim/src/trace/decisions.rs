//! What was decided, read from the rows of a commit: for a job what was submitted,
//! granted, bound, started, ended and tried again, each with its cause; for a node
//! its sessions, verdicts and drains.

use super::lines;
use super::story::{Entry, Weight};
use crate::checkers::Committed;
use crate::mirror::Mirror;
use crate::rows::{JobName, Row};
use proto::trace::Kind;
use proto::v1::{BlockRow, Cause, Event, GrantRow, JobStateRow, NodeRow, Span, State};
use proto::words;

/// Of one commit; `before` has not yet taken it.
#[must_use]
pub fn of(at_us: u64, before: &Mirror, commit: &Committed) -> Vec<Entry> {
    let mut found = Found { at_us, entries: Vec::new() };
    for row in &commit.rows {
        match row {
            Row::Job(job, Some(row)) if !before.jobs.contains_key(job) => {
                let spec = row.spec.clone().unwrap_or_default();
                let text = format!("submitted: `{}`, {} steps", spec.name, spec.steps.len());
                found.add("", &job.to_string(), text, Weight::Detail);
            }
            Row::State(job, Some(row)) => found.state(job, before.states.get(job).map(AsRef::as_ref), row),
            Row::Block { job, step, block, row: Some(row) } => {
                found.block(
                    job,
                    *step,
                    before.blocks.get(&(job.clone(), *step, *block)).map(AsRef::as_ref),
                    row,
                );
            }
            Row::Grant { tenant, epoch, row } => {
                let held = before.grants.get(&(tenant.clone(), *epoch));
                match (held, row) {
                    (None, Some(row)) => found.grant(row, "granted"),
                    (Some(held), None) => found.grant(held, "given back"),
                    _ => {}
                }
            }
            Row::Events { tenant, row: Some(row), .. } => {
                row.events.iter().for_each(|event| found.event(tenant, event));
            }
            Row::Checkpoint { job, step, task, rank, row: Some(row) } => {
                let labels: Vec<&str> = row.entries.iter().map(|entry| entry.label.as_str()).collect();
                let text = format!("step {step} task {task} rank {rank}: checkpoints {}", labels.join(", "));
                found.add("", &job.to_string(), text, Weight::Detail);
            }
            Row::Manifest { job, step, task, rank, row: Some(row) } => {
                let text = format!(
                    "step {step} task {task} rank {rank}: manifest of attempt {}, {} artifacts",
                    row.attempt,
                    row.artifacts.len()
                );
                found.add("", &job.to_string(), text, Weight::Detail);
            }
            Row::Node(name, Some(row)) => found.node(name, before.nodes.get(name), row),
            Row::Tenant(name, Some(row)) if before.tenants.get(name).is_some_and(|before| before != row) => {
                found.add("", "", format!("limits of {name} are others now"), Weight::Sign);
            }
            _ => {}
        }
    }
    found.entries
}

struct Found {
    at_us: u64,
    entries: Vec<Entry>,
}

impl Found {
    fn add(&mut self, node: &str, job: &str, text: String, weight: Weight) {
        self.entries
            .push(Entry { record: lines::record(self.at_us, Kind::Decision, node, job, text), weight });
    }

    fn state(&mut self, job: &JobName, before: Option<&JobStateRow>, row: &JobStateRow) {
        let Some(before) = before else { return };
        if row.cancel_requested && !before.cancel_requested {
            self.add("", &job.to_string(), "a cancel was taken".to_owned(), Weight::Detail);
        }
        if row.generation > before.generation {
            let text = format!("its user tries it again: generation {}", row.generation);
            self.add("", &job.to_string(), text, Weight::Detail);
        }
    }

    fn block(&mut self, job: &JobName, step: u32, before: Option<&BlockRow>, row: &BlockRow) {
        let failures = |note: &proto::v1::TaskNote| (note.own_failures, note.platform_failures);
        for note in &row.notes {
            let was = before.and_then(|before| before.notes.iter().find(|was| was.task == note.task));
            if failures(note) == was.map_or((0, 0), failures) {
                continue;
            }
            let mut text = format!(
                "step {step} task {}: has failed {} times itself, {} times by the platform",
                note.task, note.own_failures, note.platform_failures
            );
            if !note.avoid.is_empty() {
                text.push_str(&format!("; avoids {}", note.avoid.join(", ")));
            }
            self.add("", &job.to_string(), text, Weight::Detail);
        }
    }

    fn grant(&mut self, row: &GrantRow, what: &str) {
        let job = words::job_id(&row.tenant, row.job_number);
        let gang = if row.gang { ", a gang" } else { "" };
        for node in &row.nodes {
            let text = format!(
                "step {}: {what}: {} slots on {}, epoch {}{gang}",
                row.step, node.slots, node.node, row.epoch
            );
            self.add(&node.node, &job, text, Weight::Detail);
        }
    }

    fn event(&mut self, tenant: &str, event: &Event) {
        let job = words::job_id(tenant, event.job_number);
        let mut text = event.step.map_or_else(|| "job".to_owned(), |step| format!("step {step}"));
        if !event.tasks.is_empty() {
            text.push_str(&format!(" task {}", spans(&event.tasks)));
        }
        if event.attempt > 0 {
            text.push_str(&format!(" attempt {} epoch {}", event.attempt, event.epoch));
        }
        let from = if event.from() == State::Unspecified { "new" } else { words::state(event.from()) };
        text.push_str(&format!(": {from} → {}", words::state(event.to())));
        if !event.node.is_empty() {
            text.push_str(&format!(" on {}", event.node));
        }
        let why = words::cause(event.cause.as_ref());
        if !why.is_empty() {
            text.push_str(&format!("; {why}"));
        }
        self.add(&event.node, &job, text, weight(event));
    }

    fn node(&mut self, name: &str, before: Option<&NodeRow>, row: &NodeRow) {
        let Some(before) = before else {
            return self.add(name, "", format!("{name} registers, session {}", row.session), Weight::Detail);
        };
        if row.session != before.session {
            self.add(name, "", format!("{name} registers anew, session {}", row.session), Weight::Sign);
        }
        if row.state != before.state {
            let state = words::node_state(row.state(), false);
            self.add(name, "", format!("{name} is judged {state}"), Weight::Sign);
        }
        match (before.drained, row.drained) {
            (false, true) => {
                self.add(name, "", format!("{name} is drained: {}", row.drain_reason), Weight::Sign)
            }
            (true, false) => self.add(name, "", format!("{name} takes work again"), Weight::Sign),
            _ => {}
        }
        if before.reservations != row.reservations {
            let kept: Vec<&str> = row.reservations.iter().map(|kept| kept.name.as_str()).collect();
            let what = if kept.is_empty() { "nothing".to_owned() } else { kept.join(", ") };
            self.add(name, "", format!("{name} is kept for {what}"), Weight::Sign);
        }
    }
}

/// Whether an event is something a fault may have brought about: an attempt that
/// ended otherwise than well, a job that failed.
fn weight(event: &Event) -> Weight {
    let Some(cause) = &event.cause else { return Weight::Detail };
    if event.step.is_none() && event.to() == State::Failed {
        return Weight::Group { words: format!("jobs fail: {}", kind(cause)), count: 1 };
    }
    if event.tasks.is_empty() || !(is_own(cause) || is_platform(cause)) || event.from() == State::Pending {
        return Weight::Detail;
    }
    let node = if is_platform(cause) && !event.node.is_empty() {
        format!(" on {}", event.node)
    } else {
        String::new()
    };
    let then = match event.to() {
        State::Pending => "to be tried again",
        State::Cancelled => "cancelled already",
        _ => "for good",
    };
    let words = format!("attempts end{node}: {}, {then}", kind(cause));
    let count = event.tasks.iter().map(|span| span.last.saturating_sub(span.first) + 1).sum();
    Weight::Group { words, count }
}

/// The work's own failures.
fn is_own(cause: &Cause) -> bool {
    crate::checkers::is_own(cause.kind())
}

/// The platform's failures, as the proto numbers them.
#[must_use]
pub fn is_platform(cause: &Cause) -> bool {
    (20..30).contains(&cause.kind)
}

fn kind(cause: &Cause) -> String {
    cause.kind().as_str_name().trim_start_matches("CAUSE_KIND_").to_lowercase().replace('_', " ")
}

fn spans(spans: &[Span]) -> String {
    let one = |span: &Span| match span.last {
        last if last == span.first => span.first.to_string(),
        last => format!("{}-{last}", span.first),
    };
    let told: Vec<String> = spans.iter().take(8).map(one).collect();
    let more = if spans.len() > told.len() { ",…" } else { "" };
    format!("{}{more}", told.join(","))
}
