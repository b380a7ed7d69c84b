//! `/metrics`: the cluster in numbers, as Prometheus reads them (text format
//! 0.0.4). Sums over all tenants only, so that no token is asked for.
//!
//! Jobs by state are not counted anywhere else, and there may be millions: from
//! the first time that anybody asks, a task follows the state rows, with one byte
//! of memory for each job. Numbers of jobs are dense, so a tenant's are a vector.

use super::problem::Refusal;
use super::{Call, Rest};
use crate::gate::Gate;
use crate::{limits, rows};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use controller::alerts::Code;
use prost::Message;
use proto::keys::{self, Parsed};
use proto::problem::Problem;
use proto::v1::{AutoscaleView, JobStateRow, LedgerRow, NodeRow, State, TenantRow};
use proto::words;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard};
use store::{Key, Notice, RangeRequest, Store};
use world::grpc::axum;
use world::sync::watch;
use world::time::{self, Instant};
use world::{sync, task};

/// What is counted, and the last answer.
#[derive(Debug, Default)]
pub(super) struct Metrics {
    /// By path, method and status.
    requests: Mutex<BTreeMap<(&'static str, &'static str, u16), u64>>,
    /// One scrape at a time; each is good for a moment.
    last: sync::Mutex<Option<(Instant, String)>>,
    jobs: Mutex<Option<watch::Receiver<Option<Counts>>>>,
}

/// Jobs by state, as `State` numbers them.
type Counts = [u64; STATES];
const STATES: usize = 7;

impl Metrics {
    pub fn count(&self, path: &'static str, method: &'static str, status: StatusCode) {
        *lock(&self.requests).entry((path, method, status.as_u16())).or_default() += 1;
    }

    /// Jobs by state; `None` while they are being counted for the first time.
    async fn jobs(&self, gate: &Gate) -> Option<Counts> {
        let mut counts = {
            let mut jobs = lock(&self.jobs);
            // The follower ends where the store does, and after a failure.
            match jobs.as_ref().filter(|counts| counts.has_changed().is_ok()) {
                Some(counts) => counts.clone(),
                None => {
                    let (tell, counts) = watch::channel(None);
                    task::spawn(follow(Arc::clone(&gate.store), tell));
                    jobs.insert(counts).clone()
                }
            }
        };
        let deadline = time::ms(limits::FIRST_COUNT_MS);
        let counted = time::timeout(deadline, counts.wait_for(Option::is_some)).await;
        counted.ok()?.ok().and_then(|counts| *counts)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no holder of this lock panics")
}

pub(super) async fn serve(call: Call) -> Result<Response, Refusal> {
    let mut last = call.rest.metrics.last.lock().await;
    let text = match last.as_ref() {
        Some((at, text)) if at.elapsed() < time::ms(limits::METRICS_MS) => text.clone(),
        _ => {
            let text = gather(&call.rest).await?;
            *last = Some((Instant::now(), text.clone()));
            text
        }
    };
    let headers = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    Ok((headers, text).into_response())
}

/// A page of samples under way.
#[derive(Default)]
struct Page(String);

impl Page {
    fn family(&mut self, name: &str, kind: &str, about: &str) {
        writeln!(self.0, "# HELP {name} {about}\n# TYPE {name} {kind}").expect("a String takes all");
    }

    /// `labels` as they stand in braces; their values are words of ours.
    fn sample(&mut self, name: &str, labels: &str, value: impl std::fmt::Display) {
        let labels = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
        writeln!(self.0, "{name}{labels} {value}").expect("a String takes all");
    }

    fn one(&mut self, name: &str, kind: &str, about: &str, value: impl std::fmt::Display) {
        self.family(name, kind, about);
        self.sample(name, "", value);
    }
}

async fn gather(rest: &Rest) -> Result<String, Problem> {
    let (gate, metrics) = (&rest.gate, &rest.metrics);
    let mut page = Page::default();
    page.family("drumline_http_requests_total", "counter", "REST requests by route, method and status.");
    for ((path, method, status), count) in lock(&metrics.requests).iter() {
        let labels = format!("route=\"{path}\",method=\"{method}\",status=\"{status}\"");
        page.sample("drumline_http_requests_total", &labels, count);
    }
    let streams = gate.streams.count();
    page.one(
        "drumline_streams_open",
        "gauge",
        "Streams of logs, events and submissions that are open.",
        streams,
    );
    if let Some(counts) = metrics.jobs(gate).await {
        page.family("drumline_jobs", "gauge", "Jobs by state.");
        for (state, count) in counts.iter().enumerate().skip(1) {
            let state =
                i32::try_from(state).ok().and_then(|state| State::try_from(state).ok()).unwrap_or_default();
            page.sample("drumline_jobs", &format!("state=\"{}\"", words::state(state)), count);
        }
    }
    let (mut queued, mut live) = (0_u64, 0_u64);
    let tenants: Vec<TenantRow> = rows::all_decoded(&*gate.store, keys::TENANTS.as_bytes()).await?;
    for tenant in &tenants {
        let ledger: Option<LedgerRow> = rows::get(&*gate.store, keys::ledger(&tenant.name)).await?;
        let ledger = ledger.unwrap_or_default();
        (queued, live) = (queued + ledger.queued_tasks, live + ledger.live_jobs);
    }
    page.one("drumline_tenants", "gauge", "Tenants.", tenants.len());
    page.one("drumline_tasks_queued", "gauge", "Tasks that have not ended.", queued);
    page.one("drumline_jobs_live", "gauge", "Jobs that have not ended.", live);
    let elsewhere = *lock(&gate.elsewhere);
    page.family(
        "drumline_scheduler_proposals_total",
        "counter",
        "Proposals of the server's own scheduler, and of those elsewhere, by what became of them.",
    );
    for (scheduler, proposals) in [("own", gate.planner.proposals()), ("elsewhere", elsewhere)] {
        for (outcome, count) in [
            ("committed", proposals.committed),
            ("conflict", proposals.conflicts),
            ("failed", proposals.failed),
        ] {
            let labels = format!("scheduler=\"{scheduler}\",outcome=\"{outcome}\"");
            page.sample("drumline_scheduler_proposals_total", &labels, count);
        }
    }
    page.one(
        "drumline_grants_surplus_total",
        "counter",
        "Grants given back unused, since another scheduler had answered the same demand.",
        gate.controller.surplus_grants(),
    );
    page.one(
        "drumline_schedulers_following",
        "gauge",
        "Schedulers in other processes that follow demand.",
        gate.demand.count(),
    );
    stale(gate, &mut page);
    page.one(
        "drumline_log_dropped_bytes_total",
        "counter",
        "Bytes of logs that nodes gave up, since the server could not take them and their disks had no room.",
        gate.logs.dropped().values().sum::<u64>(),
    );
    alerts(gate, &mut page);
    scaling(gate, &mut page);
    nodes(gate, &mut page).await?;
    store(gate, &mut page).await?;
    Ok(page.0)
}

/// Zombies and duplicates: what fencing kept out.
fn stale(gate: &Gate, page: &mut Page) {
    page.family(
        "drumline_stale_refused_total",
        "counter",
        "What came from an attempt that was not the current one, and changed nothing.",
    );
    let uploads = gate.stale_uploads.load(Ordering::Relaxed);
    for (what, count) in [("report", gate.controller.stale_reports()), ("upload", uploads)] {
        page.sample("drumline_stale_refused_total", &format!("what=\"{what}\""), count);
    }
}

fn scaling(gate: &Gate, page: &mut Page) {
    let pools = gate.scaling.all();
    let mut family = |name: &str, about: &str, number: fn(&AutoscaleView) -> u32| {
        page.family(name, "gauge", about);
        for (pool, view) in &pools {
            page.sample(name, &format!("pool=\"{pool}\""), number(view));
        }
    };
    let about = "Nodes that a driver was asked for and that are not there yet.";
    family("drumline_pool_nodes_asked", about, |view| view.asked);
    let about = "Nodes that are drained or removed since they are not needed.";
    family("drumline_pool_nodes_leaving", about, |view| view.leaving);
    let about = "Times in a row that the driver of a pool failed.";
    family("drumline_pool_driver_failures", about, |view| view.failures);
}

fn alerts(gate: &Gate, page: &mut Page) {
    let counts = gate.alerts.counts();
    let severity = |code: &Code| code.severity().name();
    page.family("drumline_alerts", "gauge", "Alerts that are on, by code.");
    for (code, (on, _)) in &counts {
        let labels = format!("code=\"{}\",severity=\"{}\"", code.name(), severity(code));
        page.sample("drumline_alerts", &labels, on);
    }
    page.family(
        "drumline_alerts_raised_total",
        "counter",
        "Alerts that were raised since this server serves.",
    );
    for (code, (_, raised)) in &counts {
        let labels = format!("code=\"{}\",severity=\"{}\"", code.name(), severity(code));
        page.sample("drumline_alerts_raised_total", &labels, raised);
    }
    page.family(
        "drumline_webhook_notices_total",
        "counter",
        "Notices to the webhook by what became of them.",
    );
    let notices = gate.alerts.notices();
    for (outcome, count) in [("sent", notices.sent), ("failed", notices.failed), ("dropped", notices.dropped)]
    {
        page.sample("drumline_webhook_notices_total", &format!("outcome=\"{outcome}\""), count);
    }
}

async fn nodes(gate: &Gate, page: &mut Page) -> Result<(), Problem> {
    let nodes: Vec<NodeRow> = rows::all_decoded(&*gate.store, keys::NODES.as_bytes()).await?;
    let mut states: BTreeMap<&str, u64> =
        ["READY", "SUSPECT", "LOST", "DRAINED"].map(|state| (state, 0)).into();
    for node in &nodes {
        *states.entry(words::node_state(node.state(), node.drained)).or_default() += 1;
    }
    page.family("drumline_nodes", "gauge", "Nodes by state.");
    for (state, count) in states {
        page.sample("drumline_nodes", &format!("state=\"{state}\""), count);
    }
    Ok(())
}

async fn store(gate: &Gate, page: &mut Page) -> Result<(), Problem> {
    let began = Instant::now();
    let from = keys::format();
    let request = RangeRequest { to: keys::after(&from), from, limit: 1, backwards: false };
    let read = rows::range(&*gate.store, request).await?;
    let seconds = began.elapsed().as_secs_f64();
    page.one(
        "drumline_store_commits_total",
        "counter",
        "Commits of the store since it was made.",
        read.revision,
    );
    page.one("drumline_store_read_seconds", "gauge", "What reading one row took just now.", seconds);
    Ok(())
}

/// Counts jobs by state, again and again, until nobody wants to know or the store
/// ends.
async fn follow(store: Arc<dyn Store>, tell: watch::Sender<Option<Counts>>) {
    loop {
        let Ok(mut watch) = store.watch(Key::from_static(keys::STATES.as_bytes())).await else { return };
        let mut jobs = Jobs::default();
        if jobs.read(&*store).await.is_err() {
            return;
        }
        loop {
            tell.send_replace(Some(jobs.counts));
            let notice = world::select! { biased;
                () = tell.closed() => return,
                notice = watch.notices.recv() => notice,
            };
            match notice {
                Some(Notice::Changed { changes, .. }) => {
                    changes.iter().for_each(|(key, value)| jobs.take(key, value.as_deref()));
                }
                // Too slow for the watch: all is read again.
                Some(Notice::Lagged) => break,
                None => return,
            }
        }
    }
}

/// The state of every job.
#[derive(Debug, Default)]
struct Jobs {
    /// By tenant, then number.
    states: BTreeMap<String, Vec<u8>>,
    counts: Counts,
}

impl Jobs {
    async fn read(&mut self, store: &dyn Store) -> Result<(), Problem> {
        let to = keys::prefix_end(keys::STATES.as_bytes());
        let mut from = Key::from_static(keys::STATES.as_bytes());
        loop {
            let range = RangeRequest { from, to: to.clone(), limit: limits::ROWS_PER_READ, backwards: false };
            let page = rows::range(store, range).await?;
            page.rows.iter().for_each(|row| self.take(&row.key, Some(&row.value)));
            match page.rows.last() {
                Some(last) if page.more => from = keys::after(&last.key),
                _ => return Ok(()),
            }
        }
    }

    /// A row as it is told. The watch began before the rows were read, so that a
    /// change may be older than what was read; the newer one follows it then.
    fn take(&mut self, key: &[u8], value: Option<&[u8]>) {
        let Some(Parsed::State { tenant, number }) = keys::parse(key) else { return };
        let Ok(at) = usize::try_from(number) else { return };
        let state = value.and_then(|value| JobStateRow::decode(value).ok()).map_or(0, |row| row.state);
        let state = u8::try_from(state).ok().filter(|state| usize::from(*state) < STATES).unwrap_or(0);
        let states = self.states.entry(tenant).or_default();
        if states.len() <= at {
            states.resize(at + 1, 0);
        }
        let before = std::mem::replace(&mut states[at], state);
        // 0 is a job that is not there.
        if before != 0 {
            self.counts[usize::from(before)] -= 1;
        }
        if state != 0 {
            self.counts[usize::from(state)] += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(state: State) -> Vec<u8> {
        JobStateRow { state: state.into(), ..JobStateRow::default() }.encode_to_vec()
    }

    #[test]
    fn every_job_counts_once_in_its_newest_state() {
        let mut jobs = Jobs::default();
        let key = |tenant: &str, number| keys::state(tenant, number);
        jobs.take(&key("a", 1), Some(&row(State::Pending)));
        jobs.take(&key("a", 3), Some(&row(State::Pending)));
        jobs.take(&key("b", 1), Some(&row(State::Running)));
        assert_eq!(jobs.counts, [0, 2, 0, 1, 0, 0, 0]);
        jobs.take(&key("a", 1), Some(&row(State::Completed)));
        jobs.take(&key("a", 1), Some(&row(State::Completed)));
        jobs.take(&key("b", 1), None);
        jobs.take(b"node/x", Some(&row(State::Pending)));
        assert_eq!(jobs.counts, [0, 1, 0, 0, 1, 0, 0]);
    }
}
