//! Pools whose nodes come and go by need: every second each is looked at, and what
//! [`controller::scaling`] says is done. Nodes are drained and forgotten by the controller,
//! the pool's row is kept by a commit that guards on the one before, and a driver starts and
//! ends the machines.
//!
//! What must hold: nothing waits for it, and only the server that reigns does anything. One
//! that was deposed in the midst of it may have its driver asked once more; it asks for
//! nodes that are in the row, by their names, and so does its successor.

mod config;
mod driver;

pub use config::{AutoscaleConfig, NodeShape};

use crate::config::ServerConfig;
use crate::gate::Gate;
use crate::{limits, rows};
use config::Checked;
use controller::Scaling;
use controller::alerts::ScaleFact;
use controller::scaling::{Action, Answer, Ask, Event, Facts, NodeFact, Pool};
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use prost::Message as _;
use proto::keys;
use proto::problem::Problem;
use proto::v1::{AutoscaleView, NodeRow, NodeState, PoolView, PoolsReply};
use scheduler::core::Growing;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use store::{Commit, Revision};
use world::{Program, time};

/// What is shown of such pools, by name.
#[derive(Debug)]
pub(crate) struct Board(Mutex<BTreeMap<String, AutoscaleView>>);

impl Board {
    /// As before the first look.
    pub fn of(sites: &Sites) -> Self {
        Self(Mutex::new(sites.0.iter().map(|site| (site.name.clone(), site.view())).collect()))
    }

    fn views(&self) -> MutexGuard<'_, BTreeMap<String, AutoscaleView>> {
        self.0.lock().expect("no holder of this lock panics")
    }

    /// Each, as of the last look.
    pub fn all(&self) -> BTreeMap<String, AutoscaleView> {
        self.views().clone()
    }

    /// What operators should look at.
    pub fn facts(&self) -> Vec<ScaleFact> {
        let told = |(pool, view): (&String, &AutoscaleView)| ScaleFact {
            pool: pool.clone(),
            failing: if view.failures < controller::limits::SCALE_FAILURES_TOLD {
                String::new()
            } else {
                format!("{} times in a row: {}", view.failures, view.failed)
            },
            capped: view.capped.clone(),
        };
        self.views().iter().map(told).collect()
    }

    /// Puts it to the pools; one that has no node is among them too.
    pub fn add_to(&self, reply: &mut PoolsReply) {
        for (name, view) in self.all() {
            match reply.pools.binary_search_by(|pool| pool.name.cmp(&name)) {
                Ok(at) => reply.pools[at].autoscale = Some(view),
                Err(at) => {
                    let none = Some(proto::v1::Resources::default());
                    let pool = PoolView {
                        name,
                        capacity: none,
                        free: none,
                        largest_node: none,
                        autoscale: Some(view),
                        ..PoolView::default()
                    };
                    reply.pools.insert(at, pool);
                }
            }
        }
    }
}

/// A pool with all that is needed to let it grow.
struct Site {
    name: String,
    checked: Checked,
    driver: Arc<dyn Program>,
    /// Once its row was read.
    pool: Option<Pool>,
    /// Of its row; `None`: there is none.
    version: Option<Revision>,
}

/// The pools of a configuration.
pub(crate) struct Sites(Vec<Site>);

impl Sites {
    /// Those that are said to come and go and have a driver. What cannot be meant was
    /// refused before; here it is left out.
    pub fn of(config: &ServerConfig) -> Self {
        let site = |(name, pool): (&String, &crate::config::PoolConfig)| {
            let checked = pool.autoscale.as_ref()?.checked(name);
            let checked =
                checked.inspect_err(|problem| tracing::error!(%problem, "a pool does not grow")).ok()?;
            let driver = Arc::clone(config.drivers.get(name)?);
            Some(Site { name: name.clone(), checked, driver, pool: None, version: None })
        };
        Self(config.pools.iter().filter_map(site).collect())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Nodes that may come: as many of each pool as there may be.
    pub fn may_come(&self) -> Vec<NodeRow> {
        self.0.iter().flat_map(|site| site.may_come(site.checked.node.as_ref())).collect()
    }
}

impl Site {
    fn may_come(&self, node: Option<&NodeRow>) -> Vec<NodeRow> {
        node.map_or_else(Vec::new, |node| vec![node.clone(); self.checked.rules.max as usize])
    }

    /// What a further node will be: as is told, or like one that is there.
    fn node_like(&self, nodes: &[NodeRow]) -> Option<NodeRow> {
        let like = || {
            let here = nodes.iter().filter(|row| row.pool == self.name && row.capacity.is_some());
            here.max_by_key(|row| (row.state() == NodeState::Ready, row.registered_ms)).cloned()
        };
        self.checked.node.clone().or_else(like)
    }

    fn facts(
        &self,
        nodes: &[NodeRow],
        in_use: &BTreeMap<String, (scheduler::Amount, u32)>,
        further: u64,
    ) -> Facts {
        let prefix = format!("{}-auto-", self.name);
        let of_pool = nodes.iter().filter(|row| row.pool == self.name || row.name.starts_with(&prefix));
        let fact = |row: &NodeRow| NodeFact {
            name: row.name.clone(),
            state: row.state(),
            drained: row.drained,
            drainer: row.drainer(),
            // The scheduler may not have seen it yet; one that never came has nothing.
            idle: in_use.get(&row.name).is_some_and(|(_, grants)| *grants == 0),
        };
        Facts { nodes: of_pool.map(fact).collect(), further }
    }

    async fn read(&mut self, gate: &Gate, ask_dropped: bool) -> Result<(), Problem> {
        let found = rows::get_with_version(&*gate.store, keys::scale(&self.name)).await?;
        let (row, version) = found.map_or_else(Default::default, |(row, version)| (row, Some(version)));
        self.version = version;
        match &mut self.pool {
            Some(pool) => pool.reread(row, ask_dropped),
            None => self.pool = Some(Pool::new(&self.name, self.checked.rules.clone(), row)),
        }
        Ok(())
    }

    /// Does what the core says; the ask that is to be begun, if any.
    async fn carry_out(&mut self, gate: &Gate, actions: Vec<Action>) -> Option<Ask> {
        let mut ask = None;
        let asks = actions.iter().any(|action| matches!(action, Action::Ask(_)));
        for action in actions {
            let done = match action {
                Action::Ask(asked) => {
                    ask = Some(asked);
                    gate.must_reign().await
                }
                Action::Keep(row) => self.keep(gate, &row).await,
                Action::Drain(node, reason) => self.scale(gate, &node, Scaling::Drain(reason)).await,
                Action::Resume(node) => self.scale(gate, &node, Scaling::Resume).await,
                Action::Retire(node, reason) => {
                    let pool = self.name.clone();
                    self.scale(gate, &node, Scaling::Retire { pool, reason }).await
                }
                Action::Forget(node) => self.scale(gate, &node, Scaling::Forget).await,
            };
            let Err(problem) = done else { continue };
            world::mark!("gateway.scaling.step_failed");
            tracing::warn!(pool = self.name, %problem, "what a pool needs could not be done, and is tried again");
            if self.read(gate, asks).await.is_err() {
                // Until its row is read nothing is decided.
                self.pool = None;
            }
            return None;
        }
        ask
    }

    async fn keep(&mut self, gate: &Gate, row: &proto::v1::ScaleRow) -> Result<(), Problem> {
        let key = keys::scale(&self.name);
        let commit = match self.version {
            Some(version) => Commit::new().guard_version(key.clone(), version),
            None => Commit::new().guard_absent(key.clone()),
        };
        let kept = gate.store.commit(commit.put(key, row.encode_to_vec())).await;
        self.version = Some(kept.map_err(rows::uncommitted)?);
        Ok(())
    }

    async fn scale(&self, gate: &Gate, node: &str, wanted: Scaling) -> Result<(), Problem> {
        let what = format!("{wanted:?}");
        match gate.controller.scale(node, wanted).await {
            Ok(()) => {
                tracing::info!(pool = self.name, node, "autoscaling: {what}");
                Ok(())
            }
            // It is not as it was when it was looked at: the next look sees it.
            Err(problem) if problem.code.starts_with("conflict.") || problem.code.starts_with("missing.") => {
                tracing::debug!(pool = self.name, node, %problem, "autoscaling: {what} came too late");
                Ok(())
            }
            Err(problem) => Err(problem),
        }
    }

    fn view(&self) -> AutoscaleView {
        let rules = &self.checked.rules;
        let Some(pool) = &self.pool else {
            return AutoscaleView { min: rules.min, max: rules.max, ..AutoscaleView::default() };
        };
        let (shown, row) = (pool.shown(), pool.row());
        AutoscaleView {
            min: rules.min,
            max: rules.max,
            asked: shown.asked,
            leaving: shown.leaving,
            capped: shown.capped.clone(),
            failures: row.add_failures.max(row.remove_failures),
            failed: row.failed.clone(),
            cost_per_hour_micros: self.checked.price_micros.saturating_mul(shown.paid.into()),
        }
    }
}

/// Answers of drivers, each with the place of its pool.
type Asks = FuturesUnordered<BoxFuture<'static, (usize, Answer)>>;

/// Looks every so often, until the server ends.
pub(crate) async fn watch(gate: Weak<Gate>, mut sites: Sites) {
    let mut asks = Asks::new();
    loop {
        let answered = world::select! {
            biased;
            Some(answered) = asks.next() => Some(answered),
            () = time::sleep(time::ms(limits::SCALE_LOOK_MS)) => None,
        };
        let Some(gate) = gate.upgrade() else { return };
        match answered {
            Some((at, answer)) => sites.answered(&gate, at, answer, &mut asks).await,
            None => {
                if let Err(problem) = sites.look(&gate, &mut asks).await {
                    tracing::warn!(%problem, "pools could not be looked at");
                }
            }
        }
    }
}

impl Sites {
    async fn look(&mut self, gate: &Gate, asks: &mut Asks) -> Result<(), Problem> {
        let nodes: Vec<NodeRow> = rows::all_decoded(&*gate.store, keys::NODES.as_bytes()).await?;
        // What a server that was deposed reads is true, but what it would do is not its own.
        gate.must_reign().await?;
        let growing = self.growing(&nodes);
        let may_come =
            self.0.iter().zip(&growing).flat_map(|(site, growing)| site.may_come(growing.as_ref()));
        gate.planner.may_come(may_come.collect());
        let known: Vec<Growing> = self
            .0
            .iter()
            .zip(&growing)
            .filter_map(|(site, node)| Some(Growing { node: node.clone()?, room: site.room(&nodes) }))
            .collect();
        let further = gate.planner.growth(&known);
        let further: BTreeMap<&str, u64> =
            known.iter().map(|growing| growing.node.pool.as_str()).zip(further).collect();
        let in_use = gate.planner.node_use();
        for (at, site) in self.0.iter_mut().enumerate() {
            if site.pool.is_none() {
                site.read(gate, true).await?;
            }
            let further = further.get(site.name.as_str()).copied().unwrap_or(0);
            let facts = site.facts(&nodes, &in_use, further);
            site.step(gate, at, Event::Look(facts), asks).await;
        }
        Ok(())
    }

    /// What each would grow by, where that is known.
    fn growing(&self, nodes: &[NodeRow]) -> Vec<Option<NodeRow>> {
        self.0.iter().map(|site| site.node_like(nodes)).collect()
    }

    async fn answered(&mut self, gate: &Gate, at: usize, answer: Answer, asks: &mut Asks) {
        let site = &mut self.0[at];
        match &answer {
            Answer::Done(nodes) => tracing::info!(pool = site.name, ?nodes, "the driver did it"),
            Answer::Refused(why) | Answer::Unknown(why) => {
                tracing::warn!(pool = site.name, why, "the driver of a pool failed");
            }
        }
        site.step(gate, at, Event::Answered(answer), asks).await;
    }
}

impl Site {
    /// By how many nodes it may grow, about.
    fn room(&self, nodes: &[NodeRow]) -> u64 {
        let there = nodes.iter().filter(|row| row.pool == self.name).count() as u64;
        u64::from(self.checked.rules.max).saturating_sub(there)
    }

    async fn step(&mut self, gate: &Gate, at: usize, event: Event, asks: &mut Asks) {
        let Some(pool) = &mut self.pool else { return };
        let actions = pool.step(gate.clock.now(), event);
        if let Some(ask) = self.carry_out(gate, actions).await {
            tracing::info!(pool = self.name, "the driver is asked: {:?} {}", ask.verb, ask.nodes.join(" "));
            let (driver, pool, server) = (Arc::clone(&self.driver), self.name.clone(), gate.base.url(None));
            asks.push(Box::pin(async move { (at, driver::ask(&*driver, &pool, &server, &ask).await) }));
        }
        gate.scaling.views().insert(self.name.clone(), self.view());
    }
}
