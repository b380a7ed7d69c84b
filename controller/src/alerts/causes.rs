//! What facts are a cause for which alert.

use super::{Code, Config, Facts, Key, NodeFact, SpendFact};
use proto::v1::NodeState;
use proto::{units, words};
use std::collections::{BTreeMap, VecDeque};
use world::clock::Now;

/// What an alert says.
#[derive(Debug)]
pub(super) struct Cause {
    /// Who may see it beside operators; empty: nobody.
    pub tenant: String,
    pub text: String,
}

/// What must be remembered of earlier facts.
#[derive(Debug, Default)]
pub(super) struct Seen {
    nodes: BTreeMap<String, NodeSeen>,
    dropped: BTreeMap<String, u64>,
}

#[derive(Debug)]
struct NodeSeen {
    was_ready: bool,
    session: u64,
    /// Monotonic: when it fell silent or came anew; as many as matter.
    flaps: VecDeque<u64>,
}

/// The causes there are. `is_on` tells whether an alert was raised: what is on stays on
/// longer than it would take to raise it.
pub(super) fn of(
    config: &Config,
    seen: &mut Seen,
    facts: &Facts,
    now: Now,
    is_on: impl Fn(Code, &str) -> bool,
) -> BTreeMap<Key, Cause> {
    let mut causes = BTreeMap::new();
    let mut add = |code: Code, subject: &str, tenant: &str, text: String| {
        causes.insert((code, subject.to_owned()), Cause { tenant: tenant.to_owned(), text });
    };
    for node in facts.nodes.iter().flatten() {
        // Whoever drained it knows; and to drain it is what to do about one that stays away.
        if node.state == NodeState::Lost && !node.drained {
            let text = format!("node {} is lost: nothing is heard of its agent", node.name);
            add(Code::NodeLost, &node.name, "", text);
        }
    }
    for (node, flaps) in seen.flapping(config, facts.nodes.as_deref(), now.mono_ms) {
        let window = units::brief_duration_ms(config.flaps_window_ms);
        let text = format!("node {node} fell silent or came anew {flaps} times within {window}");
        add(Code::NodeFlapping, &node, "", text);
    }
    for pool in facts.full_pools.iter().flatten() {
        let text =
            format!("pool {} has no room for any of {} slots that queue", pool.name, pool.queued_slots);
        add(Code::PoolExhausted, &pool.name, "", text);
    }
    for scale in facts.scaling.iter().flatten() {
        let both = [
            (Code::ScaleFailed, "driver fails", &scale.failing),
            (Code::ScaleCapped, "may not grow", &scale.capped),
        ];
        for (code, what, why) in both.into_iter().filter(|(_, _, why)| !why.is_empty()) {
            add(code, &scale.pool, "", format!("pool {}: {what}: {why}", scale.pool));
        }
    }
    for starved in facts.starved.iter().flatten().filter(|one| one.blocked_ms >= config.starvation_ms) {
        let job = words::job_id(&starved.tenant, starved.job_number);
        let span = units::brief_duration_ms(starved.blocked_ms);
        let why = if starved.why.is_empty() { String::new() } else { format!(": {}", starved.why) };
        let text = format!("job {job}, first of its tenant's queue, cannot start for {span}{why}");
        add(Code::Starvation, &starved.tenant, &starved.tenant, text);
    }
    for spend in facts.spending.iter().flatten() {
        for (code, percent) in [(Code::Budget80, 80), (Code::Budget90, 90), (Code::Budget100, 100)] {
            // Reservations go back and forth by a little.
            let least = if is_on(code, &spend.tenant) { percent - 2 } else { percent };
            if spend.is_at(least) {
                add(code, &spend.tenant, &spend.tenant, spend.line());
            }
        }
    }
    for tenant in facts.storms.iter().flatten() {
        // No tenant has that name.
        let (subject, whose) = match tenant.as_str() {
            "" => ("*", "the cluster".to_owned()),
            name => (name, format!("tenant {name}")),
        };
        let text = format!("so much fails that the retry budget of {whose} is empty: retries wait for it");
        add(Code::RetryStorm, subject, "", text);
    }
    for (node, bytes) in seen.dropped_now(facts.dropped.as_ref()) {
        let text = format!("node {node} gave up {bytes} bytes of logs: its log spool was full");
        add(Code::LogsGivenUp, &node, "", text);
    }
    causes
}

impl Seen {
    /// The nodes that flap, each with how often it did. Nothing while nodes are not known.
    fn flapping(&mut self, config: &Config, nodes: Option<&[NodeFact]>, now_ms: u64) -> Vec<(String, usize)> {
        let Some(nodes) = nodes else { return Vec::new() };
        let mut flapping = Vec::new();
        let mut before = std::mem::take(&mut self.nodes);
        for node in nodes {
            let fresh = || NodeSeen { was_ready: false, session: node.session, flaps: VecDeque::new() };
            let mut seen = before.remove(&node.name).unwrap_or_else(fresh);
            let is_ready = !matches!(node.state, NodeState::Suspect | NodeState::Lost);
            // That it fell silent and then came anew is one and the same.
            let anew = node.session.saturating_sub(seen.session).saturating_sub(u64::from(!seen.was_ready));
            let flaps = anew + u64::from(seen.was_ready && !is_ready);
            (seen.was_ready, seen.session) = (is_ready, node.session);
            let kept = config.flaps_min.max(1) as usize;
            let flaps = usize::try_from(flaps).unwrap_or(kept).min(kept);
            seen.flaps.extend(std::iter::repeat_n(now_ms, flaps));
            while seen.flaps.len() > kept
                || seen.flaps.front().is_some_and(|at| now_ms.saturating_sub(*at) > config.flaps_window_ms)
            {
                seen.flaps.pop_front();
            }
            if seen.flaps.len() == kept {
                flapping.push((node.name.clone(), kept));
            }
            self.nodes.insert(node.name.clone(), seen);
        }
        flapping
    }

    /// Nodes that gave up more since, each with all that it gave up.
    fn dropped_now(&mut self, dropped: Option<&BTreeMap<String, u64>>) -> Vec<(String, u64)> {
        let Some(dropped) = dropped else { return Vec::new() };
        let grown = |(node, bytes): (&String, &u64)| {
            (*bytes > self.dropped.get(node).copied().unwrap_or(0)).then(|| (node.clone(), *bytes))
        };
        let grown = dropped.iter().filter_map(grown).collect();
        self.dropped.clone_from(dropped);
        grown
    }
}

impl SpendFact {
    fn used_micros(&self) -> u64 {
        self.settled_micros.saturating_add(self.reserved_micros)
    }

    fn is_at(&self, percent: u64) -> bool {
        // A budget of nothing is no news.
        self.used_micros() > 0
            && u128::from(self.used_micros()) * 100 >= u128::from(self.month_micros) * u128::from(percent)
    }

    fn line(&self) -> String {
        format!(
            "tenant {} has {} of its month's {} spent and {} reserved",
            self.tenant,
            words::money(self.settled_micros),
            words::money(self.month_micros),
            words::money(self.reserved_micros)
        )
    }
}
