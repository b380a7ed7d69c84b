//! What messages do to the model, and what it asks for then.

mod failed;

use super::{
    detail::Detail,
    feeds::Feed,
    input,
    jobs::{Changed, Job, Jobs},
    message::{Ask, Command, Message},
    model::{Model, Part, Recent, Screen, is_late},
};
use crate::{
    limits::{
        EVENTS_KEPT, JOBS_HELD_MAX, POLL_AWAY_MS, POLL_MS, POLL_TENANTS_MS, POLL_WHY_MS, REFRESH_MS,
        TENANTS_MAX,
    },
    words,
};
use proto::v1::{
    CauseKind, Event, EventsReply, JobSummary, JobView, ListJobsReply, LogsReply, NodeView, State,
    TenantView, WhyReply,
};

/// What a new console wants to know first.
#[must_use]
pub fn start() -> Vec<Command> {
    vec![Ask::Tenants.now(), Ask::Nodes.now(), Ask::Pools.now()]
}

/// Takes a message that came at a time (milliseconds since 1970).
#[must_use]
pub fn update(model: &mut Model, at_ms: u64, message: Message) -> Vec<Command> {
    model.pass(at_ms);
    let mut commands = match message {
        Message::Tick => Vec::new(),
        Message::Key(event) => input::key(model, &event),
        Message::Paste(text) => {
            input::paste(model, &text);
            Vec::new()
        }
        Message::Resize { columns, rows } => {
            (model.columns, model.rows) = (columns, rows);
            model.fit();
            model.touch_all();
            Vec::new()
        }
        Message::Tenants(tenants) => {
            heard(model, &Feed::Tenants);
            take_tenants(model, tenants)
        }
        Message::Nodes(nodes) => {
            heard(model, &Feed::Nodes);
            take_nodes(model, nodes);
            vec![Ask::Nodes.after(pause_ms(model))]
        }
        Message::Pools(pools) => {
            heard(model, &Feed::Pools);
            if model.pools.as_ref() != Some(&pools) {
                model.pools = Some(pools);
                model.touch(Part::Pools);
            }
            vec![Ask::Pools.after(pause_ms(model))]
        }
        Message::Jobs { tenant, reply } => {
            heard(model, &Feed::Jobs(tenant.clone()));
            take_page(model, &tenant, reply);
            Vec::new()
        }
        Message::Refreshed(jobs) => {
            heard(model, &Feed::Refresh);
            refreshed(model, jobs);
            Vec::new()
        }
        Message::Events { tenant, reply } => {
            heard(model, &Feed::Events(tenant.clone()));
            take_events(model, &tenant, reply);
            Vec::new()
        }
        Message::Job { visit, view } => of_visit(model, visit, Feed::Job, |model| take_job(model, *view)),
        Message::Why { visit, reply } => of_visit(model, visit, Feed::Why, |model| take_why(model, reply)),
        Message::Logs { visit, reply } => {
            of_visit(model, visit, Feed::Logs, |model| take_logs(model, &reply))
        }
        Message::Cancelled { job, state } => {
            let what = if words::is_ended(state) { words::state(state) } else { "being cancelled" };
            model.tell(format!("{job} is {what}"), false);
            Vec::new()
        }
        Message::Failed { ask, problem } => failed::failed(model, ask, &problem),
    };
    if !model.over {
        commands.extend(follow_up(model));
    }
    commands
}

fn heard(model: &mut Model, feed: &Feed) {
    if model.feeds.heard(feed) {
        model.touch(Part::Status);
    }
}

/// How long nodes and pools are left alone: longer while nobody sees them.
fn pause_ms(model: &Model) -> u64 {
    if matches!(model.screen, Screen::Overview | Screen::Nodes) { POLL_MS } else { POLL_AWAY_MS }
}

/// What follows from where one looks, rather than from one message.
fn follow_up(model: &mut Model) -> Vec<Command> {
    let asks = model.tenants.pages();
    let mut commands: Vec<Command> = asks.into_iter().map(Ask::now).collect();
    let now_ms = model.now_ms;
    // What changes all the time is not read all the time.
    let pause_ms = |last_ms: u64| last_ms.saturating_add(REFRESH_MS).saturating_sub(now_ms).min(REFRESH_MS);
    if model.screen == Screen::Jobs && !model.refresh_asked {
        let stale = model.jobs.take_stale();
        if !stale.is_empty() {
            let after_ms = pause_ms(model.refreshed_ms);
            model.refresh_asked = true;
            commands.push(Ask::Refresh(stale).after(after_ms));
        }
    }
    if let Some(detail) = model.detail.as_mut()
        && detail.stale
        && !detail.asked
    {
        let after_ms = pause_ms(detail.asked_ms);
        detail.stale = false;
        detail.asked = true;
        commands.push(Ask::Job { job: detail.id.clone(), visit: detail.visit }.after(after_ms));
    }
    commands
}

// ------------------------------------------------------------------- the cluster

fn take_tenants(model: &mut Model, tenants: Vec<TenantView>) -> Vec<Command> {
    let wanted = model.settings.tenant.clone();
    let mut commands = vec![Ask::Tenants.after(POLL_TENANTS_MS)];
    let mut left_out = 0;
    for view in tenants {
        let Some(row) = view.tenant.filter(|row| wanted.is_empty() || row.name == wanted) else { continue };
        if model.tenants.get_mut(&row.name).is_some() {
            continue;
        }
        if model.tenants.len() >= TENANTS_MAX {
            left_out += 1;
            continue;
        }
        let next_seq = view.ledger.unwrap_or_default().next_event_seq.max(1);
        model.tenants.add(&row.name, next_seq);
        model.jobs.tenant(&row.name);
        commands.push(Ask::Events { tenant: row.name, from_seq: next_seq }.now());
        model.touch(Part::Counts);
    }
    if model.tenants.left_out != left_out {
        model.tenants.left_out = left_out;
        model.touch(Part::Counts);
    }
    if model.tenants.len() == 0 && !wanted.is_empty() {
        model.tell(format!("there is no tenant {wanted}, or it is not yours to see"), true);
    }
    commands
}

fn take_nodes(model: &mut Model, nodes: Vec<NodeView>) {
    let now_ms = model.now_ms;
    // A heartbeat alone changes nothing that is shown.
    let look = |node: &NodeView| {
        let late = is_late(node.last_heard_ms, now_ms).then_some(node.last_heard_ms);
        (node.row.clone(), node.used, node.grants, late, node.last_heard_ms == 0)
    };
    let differs = model.nodes.as_ref().is_none_or(|known| {
        known.len() != nodes.len() || known.iter().zip(&nodes).any(|(old, new)| look(old) != look(new))
    });
    model.nodes = Some(nodes);
    if differs {
        model.fit();
        model.touch(Part::Nodes);
    }
}

// -------------------------------------------------------------------------- jobs

fn show_changes(model: &mut Model, changed: Changed) {
    if changed.rows {
        model.touch(Part::Rows);
    }
    if changed.counts {
        model.touch(Part::Counts);
    }
}

fn take_page(model: &mut Model, name: &str, reply: ListJobsReply) {
    let is_full = model.jobs.len() + reply.jobs.len() >= JOBS_HELD_MAX;
    let Some(tenant) = model.tenants.get_mut(name) else { return };
    let highest = reply.jobs.first().map_or(0, |job| job.number);
    let Some(late) = tenant.came(highest, reply.next_before, is_full) else { return };
    let place = model.jobs.tenant(name);
    let jobs = reply.jobs.into_iter().map(|summary| {
        let mut job = Job::new(place, summary);
        if let Some((state, at_ms)) = late.get(&job.number) {
            Jobs::overtake(&mut job, *state, *at_ms);
        }
        job
    });
    let jobs = jobs.collect();
    let changed = model.jobs.put(jobs);
    show_changes(model, changed);
    if !model.tenants.is_loading() {
        model.touch(Part::Counts);
    }
}

/// What was asked for and is not there stays as it is.
fn refreshed(model: &mut Model, jobs: Vec<JobSummary>) {
    model.refresh_asked = false;
    model.refreshed_ms = model.now_ms;
    let jobs = jobs.into_iter().map(|summary| Job::new(model.jobs.tenant(&summary.tenant), summary));
    let jobs: Vec<Job> = jobs.collect();
    let changed = model.jobs.put(jobs);
    show_changes(model, changed);
}

fn take_events(model: &mut Model, name: &str, reply: EventsReply) {
    let Some(place) = model.tenants.get_mut(name).map(|tenant| {
        tenant.next_seq = tenant.next_seq.max(reply.next_seq);
        model.jobs.tenant(name)
    }) else {
        return;
    };
    for event in reply.events {
        let edge = event.step.is_none().then(|| (event.from(), event.to()));
        match model.jobs.happened((place, event.job_number), edge, event.at_ms) {
            Some(changed) => show_changes(model, changed),
            None => {
                if let Some(tenant) = model.tenants.get_mut(name) {
                    tenant.happened(event.job_number, edge.map(|(_, to)| to), event.at_ms);
                }
            }
        }
        if let Some(detail) = model.detail.as_mut()
            && detail.id.number == event.job_number
            && detail.id.tenant == name
        {
            detail.stale = true;
        }
        if is_notable(&event) {
            if model.recent.len() >= EVENTS_KEPT {
                model.recent.pop_front();
            }
            model.recent.push_back(Recent { tenant: name.to_owned(), event });
            model.touch(Part::Recent);
        }
    }
}

/// What an operator wants to hear of: jobs beginning and ending, and failures of
/// whatever kind. Tasks that go well are left out; there are too many.
fn is_notable(event: &Event) -> bool {
    let kind = event.cause.as_ref().map_or(CauseKind::Unspecified, proto::v1::Cause::kind);
    let is_failure =
        (i32::from(CauseKind::Exit)..i32::from(CauseKind::CancelledByUser)).contains(&i32::from(kind));
    event.step.is_none() || is_failure
}

// ------------------------------------------------------------------------ one job

/// An answer to this visit of a job; one to an earlier visit is dropped.
fn of_visit(
    model: &mut Model,
    visit: u64,
    feed: Feed,
    take: impl FnOnce(&mut Model) -> Vec<Command>,
) -> Vec<Command> {
    if model.detail.as_ref().is_none_or(|detail| detail.visit != visit) {
        return Vec::new();
    }
    heard(model, &feed);
    take(model)
}

fn take_job(model: &mut Model, view: JobView) -> Vec<Command> {
    let now_ms = model.now_ms;
    let Some(detail) = model.detail.as_mut() else { return Vec::new() };
    detail.asked = false;
    detail.asked_ms = now_ms;
    let changed = detail.view.as_ref() != Some(&view) || detail.problem.is_some();
    detail.problem = None;
    if let Some(row) = &view.job {
        // The token knew the tenant.
        detail.id.tenant.clone_from(&row.tenant);
    }
    detail.view = Some(view);
    let spec = detail.spec().cloned().unwrap_or_default();
    detail.log.begin(&spec);
    let mut commands = Vec::new();
    if detail.log.ended.is_some() && !detail.is_over() {
        detail.log.goes_on();
    }
    if !detail.log.followed && detail.log.ended.is_none() {
        detail.log.followed = true;
        commands.push(follow_log(detail).now());
    }
    if changed {
        if !detail.why_asked {
            detail.why_asked = true;
            commands.push(Ask::Why { job: detail.id.clone(), visit: detail.visit }.now());
        }
        model.fit();
        model.touch(Part::Job);
    }
    commands
}

fn follow_log(detail: &Detail) -> Ask {
    Ask::Logs { job: detail.id.clone(), visit: detail.visit, cursor: detail.log.cursor }
}

fn take_why(model: &mut Model, reply: WhyReply) -> Vec<Command> {
    let Some(detail) = model.detail.as_mut() else { return Vec::new() };
    let changed = detail.why.as_ref() != Some(&reply);
    detail.why = Some(reply);
    // Where a job stands in a queue, and how far it has come, change without a word in
    // its history.
    detail.why_asked = !detail.is_over();
    detail.stale |= detail.state() == State::Running;
    let again = Ask::Why { job: detail.id.clone(), visit: detail.visit }.after(POLL_WHY_MS);
    let commands = if detail.why_asked { vec![again] } else { Vec::new() };
    if changed {
        model.fit();
        model.touch(Part::Why);
    }
    commands
}

fn take_logs(model: &mut Model, reply: &LogsReply) -> Vec<Command> {
    let Some(detail) = model.detail.as_mut() else { return Vec::new() };
    let news = detail.log.take(reply);
    if reply.end && !detail.is_over() {
        // It is over, or it is tried again: the job tells.
        detail.stale = true;
    }
    if news {
        model.touch(Part::Log);
    }
    Vec::new()
}
