//! Alerts of this server's reign: facts are gathered every few seconds, from the scheduler's
//! view and the controller, and [`controller::alerts`] says what follows from them. What is
//! raised and cleared goes into the log, to whoever asks, and to the webhook.
//!
//! What must hold: nothing waits for it. A server that is not sure to reign says nothing.

mod hook;

pub(crate) use hook::Outbox;

use crate::auth::Caller;
use crate::config::AlertsConfig;
use crate::gate::Gate;
use crate::{limits, rows};
use controller::alerts::{
    Alert, Alerts, Changes, Code, Config, Facts, NodeFact, PoolFact, Severity, SpendFact, StarvedFact,
};
use proto::problem::Problem;
use proto::v1::{AlertSeverity, AlertView, AlertsReply, LedgerRow};
use proto::{keys, month};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use world::{Webhook, task, time};

/// The alerts there are.
#[derive(Debug)]
pub(crate) struct Board {
    alerts: Mutex<Alerts>,
    config: Config,
    hook: Option<Arc<Outbox>>,
}

impl Board {
    /// Empty. What is told to the webhook goes there for as long as this lives.
    pub fn new(config: &AlertsConfig, hook: Option<Arc<dyn Webhook>>) -> Self {
        let rules = config.rules();
        let hook = hook.map(|hook| {
            let outbox = Arc::new(Outbox::default());
            task::spawn(hook::deliver(Arc::downgrade(&outbox), hook, limits::WEBHOOK_BACKOFF_MS));
            outbox
        });
        Self { alerts: Mutex::new(Alerts::new(rules.clone())), config: rules, hook }
    }

    fn alerts(&self) -> MutexGuard<'_, Alerts> {
        self.alerts.lock().expect("the alerts broke an invariant and are gone")
    }

    /// Those that a caller may see; those that are on first.
    pub fn list(&self, caller: &Caller, cleared: bool) -> AlertsReply {
        let alerts = self.alerts();
        let over = alerts.cleared().collect::<Vec<_>>().into_iter().rev().filter(|_| cleared);
        let seen =
            |alert: &&Alert| caller.sees_all() || !alert.tenant.is_empty() && alert.tenant == caller.tenant;
        AlertsReply { alerts: alerts.on().chain(over).filter(seen).map(view).collect() }
    }

    /// Of each code, how many are on and how many were raised in this reign.
    pub fn counts(&self) -> BTreeMap<Code, (usize, u64)> {
        let alerts = self.alerts();
        let mut counts: BTreeMap<Code, (usize, u64)> =
            Code::ALL.map(|code| (code, (0, alerts.raised_total(code)))).into();
        for alert in alerts.on() {
            counts.entry(alert.code).or_default().0 += 1;
        }
        counts
    }

    /// What became of the notices to the webhook.
    pub fn notices(&self) -> hook::Notices {
        self.hook.as_ref().map_or_else(Default::default, |hook| hook.notices())
    }

    fn tell(&self, changes: &Changes) {
        for Alert { code, subject, text, .. } in &changes.raised {
            tracing::warn!(code = code.name(), subject, "alert: {text}");
        }
        for Alert { code, subject, .. } in &changes.cleared {
            tracing::info!(code = code.name(), subject, "alert cleared");
        }
        let Some(hook) = &self.hook else { return };
        changes.raised.iter().chain(&changes.cleared).for_each(|alert| hook.push(alert));
    }
}

fn view(alert: &Alert) -> AlertView {
    let severity = match alert.code.severity() {
        Severity::Warning => AlertSeverity::Warning,
        Severity::Critical => AlertSeverity::Critical,
    };
    AlertView {
        code: alert.code.name().to_owned(),
        severity: severity.into(),
        subject: alert.subject.clone(),
        tenant: alert.tenant.clone(),
        since_ms: alert.since_ms,
        cleared_ms: alert.cleared_ms,
        text: alert.text.clone(),
    }
}

/// Looks every so often, until the server ends.
pub(crate) async fn watch(gate: Weak<Gate>, look_ms: u64) {
    for look in 0_u64.. {
        time::sleep(time::ms(look_ms)).await;
        let Some(gate) = gate.upgrade() else { return };
        // What costs more is asked less often.
        let facts = gather(&gate, look % limits::ALERTS_SELDOM == 0).await;
        // A server that was deposed may have a view of long ago.
        if gate.must_reign().await.is_err() {
            continue;
        }
        let changes = gate.alerts.alerts().step(gate.clock.now(), &facts);
        gate.alerts.tell(&changes);
    }
}

async fn gather(gate: &Gate, seldom: bool) -> Facts {
    let nodes = gate.planner.node_signs().into_iter().map(|node| NodeFact {
        name: node.name,
        state: node.state,
        drained: node.drained,
        session: node.session,
    });
    let mut facts = Facts {
        nodes: Some(nodes.collect()),
        storms: gate.controller.storms().await,
        dropped: Some(gate.logs.dropped()),
        ..Facts::default()
    };
    if seldom {
        let full = gate.planner.pool_signs().into_iter().filter(|pool| pool.is_full);
        let full = full.map(|pool| PoolFact { name: pool.name, queued_slots: pool.queued_slots });
        facts.full_pools = Some(full.collect());
        facts.scaling = Some(gate.scaling.facts());
        facts.starved = Some(starved(gate));
        facts.spending = spending(gate).await.ok();
    }
    facts
}

fn starved(gate: &Gate) -> Vec<StarvedFact> {
    let least_ms = gate.alerts.config.starvation_ms;
    let heads = gate.planner.head_signs().into_iter().filter(|head| head.blocked_ms >= least_ms);
    let fact = |(at, head): (usize, scheduler::signs::HeadSign)| StarvedFact {
        // To find out why costs a look at every node.
        why: if at < limits::STARVED_EXPLAINED_MAX {
            gate.planner.explain(&head.step).headline
        } else {
            String::new()
        },
        tenant: head.step.tenant,
        job_number: head.step.job_number,
        blocked_ms: head.blocked_ms,
    };
    heads.enumerate().map(fact).collect()
}

async fn spending(gate: &Gate) -> Result<Vec<SpendFact>, Problem> {
    let mut spending = Vec::new();
    for budget in gate.planner.budget_signs() {
        let ledger: Option<LedgerRow> = rows::get(&*gate.store, keys::ledger(&budget.tenant)).await?;
        let ledger = month::turned(&ledger.unwrap_or_default(), gate.clock.wall_ms());
        spending.push(SpendFact {
            tenant: budget.tenant,
            month_micros: budget.month_micros,
            settled_micros: ledger.settled_micros,
            reserved_micros: ledger.reserved_micros,
        });
    }
    Ok(spending)
}
