//! One reign after another: from taking the shards to losing them.

use super::calls::{Input, ProgressOf, StartError, Told, View};
use super::chain::{Chain, Lost};
use super::sessions::Sessions;
use super::{ControllerParts, limits, load};
use crate::core::{Core, DemandChange, Effect, Event, Reply, Stats, Txn};
use proto::checkpoints;
use proto::v1::{
    Demand, DemandKey, DemandUpdate, GrantRow, PoolPreemption, Problem, Report, TenantRow, Yielding, report,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use store::{CommitError, LeaseId, Notice, ReadError, Watch};
use world::clock::Now;
use world::sync::{mpsc, oneshot};
use world::time;

/// Whom demand is told for: all shards have one owner. It is the same from reign
/// to reign, else what an earlier one wanted and no later one knows of (jobs whose
/// commit failed) would be granted and given back for ever.
const SPOKEN_FOR: &str = "all shards";

/// Why a reign ended.
enum Fall {
    /// A commit failed, a watch broke, or the lease was lost: read all again.
    Abdicated(String),
    /// Every handle is gone: nobody is left to serve.
    Unwanted,
}

/// Reigns until nobody is left to serve. `first` is told how the first taking
/// of the shards went.
pub(super) async fn reign_for_ever(
    parts: ControllerParts,
    mut inputs: mpsc::Receiver<Input>,
    demand: mpsc::Sender<DemandUpdate>,
    view: Arc<View>,
    first: oneshot::Sender<Result<(), StartError>>,
) {
    let mut first = Some(first);
    let mut another_reigned = false;
    loop {
        let begun = begin(&parts, &view).await;
        match begun {
            Ok(mut reign) => {
                if another_reigned {
                    world::mark!("controller.standby.takes_over");
                }
                if let Some(first) = first.take() {
                    // The starter may have given up waiting.
                    let _ = first.send(Ok(()));
                }
                let fall = reign.run(&mut inputs, &demand).await;
                let lease = reign.lease;
                drop(reign);
                if parts.shared {
                    return step_down(&parts, &view, lease, &fall).await;
                }
                match fall {
                    Fall::Unwanted => return,
                    Fall::Abdicated(why) => tracing::warn!(why, "the controller reads its rows again"),
                }
                // So that the next reign need not wait for the lease to end. If
                // it cannot be revoked it ends by itself.
                let _ = parts.store.revoke(lease).await;
            }
            Err(load::LoadError::Held(owner)) if parts.shared => {
                tracing::debug!(owner, "another server has the shards");
                another_reigned = true;
                world::select! { biased;
                    () = demand.closed() => return,
                    () = time::sleep(time::ms(limits::STANDBY_LOOK_MS)) => continue,
                }
            }
            Err(error) => {
                let unreadable =
                    matches!(error, load::LoadError::Row(_) | load::LoadError::Read(ReadError::Corrupt(_)));
                if unreadable && let Some(first) = first.take() {
                    let _ = first.send(Err(StartError(error.to_string())));
                    return;
                }
                tracing::warn!(%error, "the controller could not take its shards yet");
                if matches!(error, load::LoadError::Commit(CommitError::Full)) {
                    refuse_waiting(&mut inputs);
                }
            }
        }
        if inputs.is_closed() && inputs.is_empty() {
            return;
        }
        time::sleep(time::ms(limits::TAKE_OVER_PAUSE_MS)).await;
    }
}

/// The end of a reign over a shared store.
async fn step_down(parts: &ControllerParts, view: &View, lease: LeaseId, fall: &Fall) {
    view.deposed();
    if let Fall::Abdicated(why) = fall {
        world::mark!("controller.reign.stepped_down");
        tracing::warn!(why, "the shards are no longer this server's");
    }
    // So that the next server need not wait for the lease to end. A store that is
    // out of reach hears nothing of it, and then it ends by itself.
    let _ = time::timeout(time::ms(limits::FAREWELL_MS), parts.store.revoke(lease)).await;
}

/// With a full disk nobody should wait for a reign that does not come. What
/// agents said meanwhile they say again in their next sessions.
fn refuse_waiting(inputs: &mut mpsc::Receiver<Input>) {
    while let Ok(input) = inputs.try_recv() {
        if let Input::Call(_, reply) = input {
            // The caller may have given up.
            let _ = reply.send(Reply::Refused(disk_full()));
        }
    }
}

fn disk_full() -> Problem {
    let remedy = "free some space there, then try again";
    Problem::new("limit.disk", "data", "", "the server's disk is full; nothing was taken", remedy)
}

/// What lives from taking the shards to losing them.
struct Reign {
    clock: Arc<dyn world::NodeClock>,
    core: Core,
    chain: Chain,
    lease: LeaseId,
    _lease_kept: LeaseKeeper,
    lease_lost: oneshot::Receiver<()>,
    grants: Watch,
    tenants: Watch,
    sessions: Sessions,
    view: Arc<View>,
    tickets: BTreeMap<u64, oneshot::Sender<Reply>>,
    next_ticket: u64,
    told: DemandQueue,
    /// News that waits for company; see [`patience_ms`].
    waiting: Vec<Event>,
    /// Until then.
    waiting_until: Option<time::Instant>,
    /// For the core's next wakeup, or the end of that wait.
    alarm: time::Alarm,
    inputs_closed: bool,
    steps_checked: u64,
    /// Of the core's stale reports, those already told to the view.
    stats_told: Stats,
    /// Objects that no row names any more.
    releases: mpsc::Sender<(String, Vec<String>)>,
}

/// Demand not yet with the schedulers, merged by step.
#[derive(Default)]
struct DemandQueue {
    snapshot: bool,
    /// False once the scheduler is gone: the server is going down.
    listened: bool,
    steps: BTreeMap<(String, u64, u32), Option<Demand>>,
    /// What could give way, by grant.
    yielding: BTreeMap<(String, u64), Yielding>,
    /// Said with each snapshot.
    pools: Vec<PoolPreemption>,
}

async fn begin(parts: &ControllerParts, view: &Arc<View>) -> Result<Reign, load::LoadError> {
    let owner = format!("{}#{:016x}", parts.name, world::rand::u64());
    let store = &parts.store;
    if parts.shared {
        // One that only waits makes no leases.
        load::must_be_free(&**store).await?;
    }
    let asked_ms = parts.clock.monotonic_ms();
    let lease = store.lease(&owner, limits::SHARD_LEASE_MS).await?;
    let (taken, revision) = match load::take_shards(&**store, lease, &owner).await {
        Ok(taken) => taken,
        Err(error) => {
            let _ = store.revoke(lease).await;
            return Err(error);
        }
    };
    // From now on: with many rows the loading may take longer than the lease.
    let (lost, lease_lost) = oneshot::channel();
    let kept = LeaseParts {
        store: Arc::clone(store),
        clock: Arc::clone(&parts.clock),
        lease,
        asked_ms,
        shared: parts.shared,
    };
    let lease_kept = LeaseKeeper(world::task::spawn(keep_lease(kept, lost)));
    // Watches first, rows after: what changes in between comes twice, and the
    // core takes it once.
    let grants = store.watch(proto::keys::GRANTS.into()).await?;
    let tenants = store.watch(proto::keys::TENANTS.into()).await?;
    let mut core = Core::new(parts.config.clone(), Arc::clone(&parts.admission));
    load::load(&**store, &mut core).await?;
    if parts.shared
        && let Err(error) = load::must_be_held(&**store, &owner).await
    {
        // Another may have written meanwhile: what was read is of several moments.
        world::mark!("controller.reign.lost_while_loading");
        return Err(error);
    }
    view.reigns(&owner, revision);
    let pools = core.preemption_told();
    let (releases, due) = mpsc::channel(limits::RELEASES_WAITING);
    // It ends with the reign, which alone asks it.
    world::task::spawn(release_all(Arc::clone(&parts.objects), due));
    let mut reign = Reign {
        clock: Arc::clone(&parts.clock),
        core,
        chain: Chain::new(Arc::clone(store), lease, taken, parts.shared),
        lease,
        _lease_kept: lease_kept,
        lease_lost,
        grants,
        tenants,
        sessions: Sessions::default(),
        view: Arc::clone(view),
        tickets: BTreeMap::new(),
        next_ticket: 1,
        told: DemandQueue { snapshot: true, listened: true, pools, ..DemandQueue::default() },
        waiting: Vec::new(),
        waiting_until: None,
        alarm: time::Alarm::default(),
        inputs_closed: false,
        steps_checked: 0,
        stats_told: Stats::default(),
        releases,
    };
    let now = reign.now();
    let opening = reign.core.start(now);
    reign.push(vec![opening]);
    Ok(reign)
}

/// Keeps the lease until it is lost. That of a shared store is lost as well where no
/// keeping that was asked for within its time was heard of: by then another may reign.
/// An embedded store is away only with this process.
async fn keep_lease(parts: LeaseParts, lost: oneshot::Sender<()>) {
    let LeaseParts { store, clock, lease, asked_ms, shared } = parts;
    let pause_ms = limits::SHARD_LEASE_MS / 3;
    let mut over_ms = asked_ms + limits::SHARD_LEASE_MS;
    loop {
        let left_ms = |over_ms: u64| over_ms.saturating_sub(clock.monotonic_ms());
        let bound_ms = |over_ms| if shared { pause_ms.min(left_ms(over_ms)) } else { pause_ms };
        time::sleep(time::ms(bound_ms(over_ms))).await;
        let asked_ms = clock.monotonic_ms();
        let kept = time::timeout(time::ms(bound_ms(over_ms)), store.keep(lease)).await;
        let waits = !shared || left_ms(over_ms) > 0;
        let why = match kept {
            Ok(Ok(())) => {
                over_ms = asked_ms + limits::SHARD_LEASE_MS;
                continue;
            }
            // A slow or absent store may answer the next time; a lease that
            // did end fails the next commit's guard in any case.
            Ok(Err(CommitError::Indeterminate(_))) | Err(_) if waits => continue,
            Ok(Err(CommitError::Unavailable(_))) if shared && waits => continue,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "the store has been silent for as long as the lease lasts".to_owned(),
        };
        if shared && left_ms(over_ms) == 0 {
            world::mark!("controller.reign.store_out_of_reach");
        }
        tracing::warn!(why, "the shards' lease is lost");
        let _ = lost.send(());
        return;
    }
}

struct LeaseParts {
    store: Arc<dyn store::Store>,
    clock: Arc<dyn world::NodeClock>,
    lease: LeaseId,
    /// When it was asked for.
    asked_ms: u64,
    shared: bool,
}

/// Keeps a lease for as long as it is held.
struct LeaseKeeper(world::task::JoinHandle<()>);

impl Drop for LeaseKeeper {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What woke the loop.
enum Wake {
    Arrived(Result<Vec<Effect>, Lost>),
    Inputs(usize),
    Grants(Option<Notice>),
    Tenants(Option<Notice>),
    Tick,
    LeaseLost,
    DemandRoom,
}

impl Reign {
    fn now(&self) -> Now {
        self.clock.now()
    }

    async fn run(&mut self, inputs: &mut mpsc::Receiver<Input>, demand: &mpsc::Sender<DemandUpdate>) -> Fall {
        let mut taken = Vec::new();
        loop {
            if self.inputs_closed && self.chain.idle() && self.waiting.is_empty() {
                return Fall::Unwanted;
            }
            self.told.flush(demand);
            let wake = self.wait(inputs, demand, &mut taken).await;
            let outcome = match wake {
                Wake::Arrived(Ok(effects)) => {
                    self.perform(effects);
                    Ok(())
                }
                Wake::Arrived(Err(lost)) => {
                    if lost.error == CommitError::Full {
                        self.refuse(lost.effects);
                    }
                    if matches!(lost.error, CommitError::Conflict { .. } | CommitError::LeaseGone(_)) {
                        world::mark!("controller.reign.fenced_off");
                    }
                    Err(lost.error.to_string())
                }
                Wake::Inputs(0) => {
                    self.inputs_closed = true;
                    Ok(())
                }
                Wake::Inputs(_) => {
                    self.take(&mut taken);
                    Ok(())
                }
                Wake::Grants(Some(Notice::Changed { changes, .. })) => self.grants_changed(changes),
                Wake::Tenants(Some(Notice::Changed { changes, .. })) => self.tenants_changed(changes),
                Wake::Grants(_) | Wake::Tenants(_) => Err("a watch on the store broke".into()),
                Wake::Tick => {
                    self.step(vec![Event::Tick]);
                    Ok(())
                }
                Wake::LeaseLost => Err("the shards' lease is lost".into()),
                Wake::DemandRoom => {
                    self.told.listened &= !demand.is_closed();
                    Ok(())
                }
            };
            if let Err(why) = outcome {
                return Fall::Abdicated(why);
            }
        }
    }

    /// The next thing to do. What is durable comes first, so that answers do
    /// not wait behind new work.
    async fn wait(
        &mut self,
        inputs: &mut mpsc::Receiver<Input>,
        demand: &mpsc::Sender<DemandUpdate>,
        taken: &mut Vec<Input>,
    ) -> Wake {
        let now_ms = self.clock.monotonic_ms();
        let wakeup_in = self.core.next_wakeup_ms().map(|at| time::ms(at.saturating_sub(now_ms)));
        let tick_at =
            wakeup_in.map(|wait| time::Instant::now() + wait).into_iter().chain(self.waiting_until).min();
        let room = !self.chain.full();
        let listening = room && !self.inputs_closed;
        world::select! { biased;
            _ = &mut self.lease_lost => Wake::LeaseLost,
            arrived = self.chain.arrived() => Wake::Arrived(arrived),
            notice = self.grants.notices.recv(), if room => Wake::Grants(notice),
            notice = self.tenants.notices.recv(), if room => Wake::Tenants(notice),
            () = ring(&mut self.alarm, tick_at), if room => Wake::Tick,
            count = inputs.recv_many(taken, limits::EVENTS_PER_TURN), if listening => Wake::Inputs(count),
            _ = demand.reserve(), if self.told.waiting() => Wake::DemandRoom,
        }
    }

    /// Steps events in order, behind the news that waited; their rows go off in
    /// as few commits as they fit.
    fn step(&mut self, events: Vec<Event>) {
        let now = self.now();
        let waited = std::mem::take(&mut self.waiting);
        self.waiting_until = None;
        let events = waited.into_iter().chain(events);
        let transactions: Vec<Txn> = events.map(|event| self.core.step(now, event)).collect();
        let stats = self.core.stats();
        self.view.counted(std::mem::replace(&mut self.stats_told, stats), stats);
        if world::CHECKED {
            self.core.check_step();
            self.steps_checked += 1;
            // All of it now and then, in case the check of a step overlooks
            // something.
            if self.steps_checked.is_multiple_of(limits::CHECK_ALL_STEPS) {
                self.core.check();
            }
        }
        self.push(transactions);
    }

    /// Sends the rows off. Demand does not wait for them: a start is a sync
    /// sooner for it.
    fn push(&mut self, mut transactions: Vec<Txn>) {
        for txn in &mut transactions {
            self.told.take(std::mem::take(&mut txn.demand));
        }
        self.chain.push(transactions);
    }

    fn take(&mut self, taken: &mut Vec<Input>) {
        let wall_ms = self.now().wall_ms;
        let mut events = Vec::with_capacity(taken.len());
        for input in taken.drain(..) {
            match input {
                Input::Event(event) => {
                    self.note(&event, wall_ms);
                    events.push(event);
                }
                Input::Call(make, reply) => {
                    let ticket = self.next_ticket;
                    self.next_ticket += 1;
                    self.tickets.insert(ticket, reply);
                    events.push(make(ticket));
                }
                Input::Session(hello, stream, frames) => {
                    self.view.heard(&hello.node, hello.session, wall_ms);
                    self.sessions.open(&hello.node, hello.session, stream, frames);
                    events.push(Event::Hello { node: hello.node, session: hello.session, held: hello.held });
                }
                Input::StreamEnded { node, session, stream } => {
                    if self.sessions.close(&node, session, stream) {
                        events.push(Event::SessionLost { node, session });
                    }
                }
                Input::Resign => self.inputs_closed = true,
                Input::Due(reply) => {
                    // The asker may have given up.
                    let _ = reply.send(self.core.due_jobs(wall_ms));
                }
                Input::TellAllDemand => {
                    self.told.tell_all(self.core.demand_told(), self.core.yielding_told());
                }
                Input::Progress(of, reply) => {
                    let ProgressOf { tenant, number, step, tasks } = of;
                    let said = self.core.progress_of(&tenant, number, step, tasks.clone());
                    let staged = self.core.staging_of(&tenant, number, step, tasks);
                    // The asker may have given up.
                    let _ = reply.send(Told { said, staged });
                }
                Input::Stragglers(of, reply) => {
                    let found = self.core.stragglers_of(&of.tenant, of.number, of.steps, of.tasks);
                    // The asker may have given up.
                    let _ = reply.send(found);
                }
                Input::StepsSaid(jobs, reply) => {
                    let wall_ms = self.now().wall_ms;
                    let said =
                        jobs.iter().map(|(tenant, number)| self.core.steps_said(tenant, *number, wall_ms));
                    // The asker may have given up.
                    let _ = reply.send(said.collect());
                }
                Input::Storms(reply) => {
                    // The asker may have given up.
                    let _ = reply.send(Some(self.core.storms(self.now().mono_ms)));
                }
                Input::Owns(attempt, reply) => {
                    // The asker may have given up.
                    let _ = reply.send(self.core.is_current(&attempt));
                }
            }
        }
        if events.is_empty() {
            return;
        }
        let patience_ms = events.iter().map(patience_ms).min().unwrap_or(0);
        if patience_ms == 0 || self.waiting.len() + events.len() >= limits::EVENTS_PER_TURN {
            return self.step(events);
        }
        let until = time::Instant::now() + time::ms(patience_ms);
        self.waiting_until = self.waiting_until.into_iter().chain([until]).min();
        self.waiting.extend(events);
    }

    /// A commit did not fit on the disk and changed nothing: whoever waits for
    /// its effects is told so. Of commits behind it that is not known (they may
    /// be of other shards), so their callers are left to ask again.
    fn refuse(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            if let Effect::Reply { ticket, .. } = effect
                && let Some(caller) = self.tickets.remove(&ticket)
            {
                // The caller may have given up.
                let _ = caller.send(Reply::Refused(disk_full()));
            }
        }
    }

    fn note(&mut self, event: &Event, wall_ms: u64) {
        if let Event::Heartbeat { node, session, .. } = event {
            self.view.heard(node, *session, wall_ms);
        }
    }

    fn grants_changed(&mut self, changes: Vec<(store::Key, Option<bytes::Bytes>)>) -> Result<(), String> {
        let events = rows::<GrantRow>(changes)?.into_iter().map(Event::Granted).collect();
        self.step(events);
        Ok(())
    }

    fn tenants_changed(&mut self, changes: Vec<(store::Key, Option<bytes::Bytes>)>) -> Result<(), String> {
        let events = rows::<TenantRow>(changes)?.into_iter().map(Event::Tenant).collect();
        self.step(events);
        Ok(())
    }

    /// What finds no room stays in the object store: it is in nobody's way.
    fn release(&self, tenant: &str, digests: Vec<String>) {
        if self.releases.try_send((checkpoints::space(tenant), digests)).is_err() {
            tracing::warn!(tenant, "objects of old checkpoints stay: too many are to be removed");
        }
    }

    /// Only ever called with the effects of what is durable.
    fn perform(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Reply { ticket, reply } => {
                    if let Some(caller) = self.tickets.remove(&ticket) {
                        // A caller that gave up learns nothing; the rows hold.
                        let _ = caller.send(reply);
                    }
                }
                Effect::Send { node, session, frame } => self.sessions.send(&node, session, frame),
                Effect::Release { tenant, digests } => self.release(&tenant, digests),
                Effect::Log { tenant, number, text } => tracing::info!(tenant, number, "{text}"),
            }
        }
    }
}

/// Takes objects away until nobody is left to ask.
async fn release_all(objects: Arc<dyn super::ObjectIndex>, mut due: mpsc::Receiver<(String, Vec<String>)>) {
    while let Some((space, digests)) = due.recv().await {
        objects.release(&space, digests).await;
    }
}

/// How long an event may wait for others that share its commit. A sync costs the
/// same for one end as for fifty, and agents hold the next short tasks already.
fn patience_ms(event: &Event) -> u64 {
    let started = |report: &Report| matches!(report.what, Some(report::What::Started(_)));
    match event {
        // Nobody waits for these but the reader's eye, and judges with seconds to go.
        Event::Heartbeat { .. } | Event::Progress { .. } => limits::START_GATHER_MS,
        Event::Reports { reports, .. } if reports.reports.iter().all(started) => limits::START_GATHER_MS,
        Event::Reports { .. } => limits::END_GATHER_MS,
        _ => 0,
    }
}

async fn ring(alarm: &mut time::Alarm, at: Option<time::Instant>) {
    match at {
        Some(at) => alarm.at(at).await,
        None => std::future::pending().await,
    }
}

/// The rows among changes; deletes are the controller's own.
fn rows<T: prost::Message + Default>(
    changes: Vec<(store::Key, Option<bytes::Bytes>)>,
) -> Result<Vec<T>, String> {
    changes
        .into_iter()
        .filter_map(|(key, value)| value.map(|value| (key, value)))
        .map(|(key, value)| {
            T::decode(value).map_err(|_| format!("row {} does not decode", String::from_utf8_lossy(&key)))
        })
        .collect()
}

impl DemandQueue {
    /// All there is is told anew: somebody has only begun to listen.
    fn tell_all<'a>(
        &mut self,
        all: impl Iterator<Item = &'a Demand>,
        yielding: impl Iterator<Item = &'a Yielding>,
    ) {
        let (changed, yielding) = (all.cloned().collect(), yielding.cloned().collect());
        self.take(DemandChange { changed, gone: Vec::new(), yielding });
        self.snapshot = true;
    }

    fn take(&mut self, news: DemandChange) {
        let DemandChange { changed, gone, yielding } = news;
        for word in yielding {
            self.yielding.insert((word.tenant.clone(), word.epoch), word);
        }
        for demand in changed {
            if let Some(key) = &demand.key {
                let key = (key.tenant.clone(), key.job_number, key.step);
                self.steps.insert(key, Some(demand));
            }
        }
        for key in gone {
            self.steps.insert((key.tenant, key.job_number, key.step), None);
        }
    }

    fn waiting(&self) -> bool {
        self.listened && (self.snapshot || !self.steps.is_empty() || !self.yielding.is_empty())
    }

    /// Hands all to the scheduler where its queue has room.
    fn flush(&mut self, demand: &mpsc::Sender<DemandUpdate>) {
        if !self.waiting() {
            return;
        }
        let Ok(room) = demand.try_reserve() else { return };
        let mut update = DemandUpdate {
            snapshot: std::mem::take(&mut self.snapshot),
            controller: SPOKEN_FOR.to_owned(),
            yielding: std::mem::take(&mut self.yielding).into_values().collect(),
            ..DemandUpdate::default()
        };
        if update.snapshot {
            update.pools.clone_from(&self.pools);
        }
        for ((tenant, job_number, step), told) in std::mem::take(&mut self.steps) {
            match told {
                Some(demand) => update.changed.push(demand),
                None => update.gone.push(DemandKey { tenant, job_number, step }),
            }
        }
        room.send(update);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::v1::{Ended, Heartbeat, Reports, Started};

    #[test]
    fn reports_and_heartbeats_wait_for_other_news() {
        let heard = |whats: Vec<report::What>| {
            let reports =
                whats.into_iter().map(|what| Report { what: Some(what), ..Report::default() }).collect();
            let reports = Reports { reports, ..Reports::default() };
            Event::Reports { node: "n1".into(), session: 1, reports, missing: Vec::new() }
        };
        let started = || report::What::Started(Started::default());
        let ended = || report::What::Ended(Ended::default());
        assert_eq!(patience_ms(&heard(vec![started(), started()])), limits::START_GATHER_MS);
        assert_eq!(patience_ms(&heard(vec![started(), ended()])), limits::END_GATHER_MS);
        assert_eq!(patience_ms(&heard(vec![ended()])), limits::END_GATHER_MS);
        let beat = Event::Heartbeat { node: "n1".into(), session: 1, beat: Heartbeat::default() };
        assert_eq!(patience_ms(&beat), limits::START_GATHER_MS);
        assert_eq!(patience_ms(&Event::Tick), 0);
    }
}
