//! When a request would start: what is held and queued, played forward.
//!
//! The replay keeps the order of the queue strictly: nothing overtakes, and the
//! request comes last. A real pass lets small work slip in behind a large one,
//! so what is told is rather too late than too early, as long as what ends does
//! so as told. What has no known end is taken to stay.
//!
//! What must hold: the work is bounded by [`crate::limits`], and a limit that
//! was met is told.

use crate::amount::Amount;
use crate::limits::ETA_NAMES_MAX;
use proto::v1::DemandKey;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A pool as it stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profile {
    /// Its nodes.
    pub nodes: Vec<NodeNow>,
    /// What waits for them, first comes first.
    pub queue: Vec<Queued>,
    /// Demands that wait behind these and were not looked at.
    pub queue_unseen: usize,
    /// Demands left out since their tenants are at their limits.
    pub at_limit: usize,
    /// Steps whose end was not looked up; they count as without one.
    pub holders_unseen: usize,
}

/// One node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeNow {
    /// What it has.
    pub capacity: Amount,
    /// Work may be placed on it.
    pub open: bool,
    /// Who has what of it.
    pub holders: Vec<Holder>,
}

/// What one grant holds on one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holder {
    /// Whose.
    pub step: DemandKey,
    /// How much.
    pub amount: Amount,
    /// Milliseconds since 1970.
    pub granted_ms: u64,
    /// Milliseconds since 1970: no task begins after it.
    pub feed_until_ms: u64,
    /// From now; absent: not known.
    pub ends_in_ms: Option<u64>,
}

/// A demand that goes first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Queued {
    /// Whose.
    pub step: DemandKey,
    /// What one slot needs, or one node of a gang.
    pub unit: Amount,
    /// Distinct nodes needed at once by a gang; 0: slots go wherever they fit.
    pub gang_nodes: usize,
    /// Only nodes on which nothing runs, and all of them.
    pub alone: bool,
    /// Slots; 1 for a gang.
    pub count: u64,
    /// Absent: not known.
    pub runtime_ms: Option<u64>,
    /// Open nodes, by index, that are right for it and could hold a unit when idle.
    pub hosts: Arc<[usize]>,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// On each node.
    pub unit: Amount,
    /// Distinct nodes, at once.
    pub nodes: usize,
    /// See [`Queued::alone`].
    pub alone: bool,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Eta {
    /// From now; absent: the text says why.
    pub start_in_ms: Option<u64>,
    /// What it rests on, in words.
    pub assumption: String,
}

impl Holder {
    /// Sets when it ends: once it ran its expected time, else at its time limit;
    /// past both it is not known. `0`: not told.
    pub fn set_end(&mut self, now_ms: u64, expected_ms: u64, limit_ms: u64) {
        let end = |span_ms: u64| {
            // Short tasks follow one another until the feeding ends.
            let quantum_ms = self.feed_until_ms.saturating_sub(self.granted_ms);
            let last_ms = if span_ms < quantum_ms { self.feed_until_ms } else { self.granted_ms };
            last_ms.saturating_add(span_ms).checked_sub(now_ms).filter(|left_ms| *left_ms > 0)
        };
        let spans = [expected_ms.min(if limit_ms == 0 { u64::MAX } else { limit_ms }), limit_ms];
        self.ends_in_ms = spans.into_iter().filter(|span_ms| *span_ms > 0).find_map(end);
    }
}

/// When the request would start. At most about `examined_max` nodes are looked
/// at, counted again for each demand and instant.
#[must_use]
pub fn when(profile: &Profile, ask: Ask, examined_max: u64) -> Eta {
    let fits = |node: &NodeNow| ask.unit.fits_in(node.capacity);
    let hosts: Arc<[usize]> =
        (0..profile.nodes.len()).filter(|&at| profile.nodes[at].open && fits(&profile.nodes[at])).collect();
    let could = profile.nodes.iter().filter(|node| fits(node)).count();
    let wanted = ask.nodes.max(1);
    let unknown = |assumption: String| Eta { start_in_ms: None, assumption };
    if could < wanted {
        return unknown(format!(
            "{could} of {wanted} nodes are large enough, even when idle, for {}",
            ask.unit
        ));
    }
    if hosts.len() < wanted {
        let open = hosts.len();
        return unknown(format!("{open} of {wanted} nodes that could hold it are in service"));
    }
    let mut replay = Replay::of(profile, examined_max);
    let mut ahead = 0;
    for queued in &profile.queue {
        if queued.hosts.len() < queued.gang_nodes.max(1) {
            continue;
        }
        ahead += 1;
        if let Err(stop) = replay.start(queued) {
            let what = format!("{}, which is queued before it,", name(&queued.step));
            return unknown(replay.why(stop, &what, &queued.hosts, profile));
        }
    }
    let asked =
        Queued { unit: ask.unit, gang_nodes: wanted, alone: ask.alone, count: 1, hosts, ..Queued::default() };
    match replay.start(&asked) {
        Ok(()) => Eta { start_in_ms: Some(replay.now_ms), assumption: assumed(profile, ahead) },
        Err(stop) => unknown(replay.why(stop, "it", &asked.hosts, profile)),
    }
}

fn name(step: &DemandKey) -> String {
    format!("{}-{}", step.tenant, step.job_number)
}

fn assumed(profile: &Profile, ahead: usize) -> String {
    let queue = match ahead {
        0 => "nothing is queued before it".to_owned(),
        1 => "in the order of the queue, 1 step before it".to_owned(),
        ahead => format!("in the order of the queue, {ahead} steps before it"),
    };
    let mut text = format!(
        "{queue}; work ends after its expected runtime, else at its time limit, counted from when it got its \
         nodes; no node fails or comes; the tenant's limits allow it"
    );
    text.push_str(&left_out(profile));
    text
}

/// What the replay did not see.
fn left_out(profile: &Profile) -> String {
    let mut text = String::new();
    if profile.at_limit > 0 {
        text.push_str(&format!("; {} steps queued at their tenants' limits are left out", profile.at_limit));
    }
    if profile.queue_unseen > 0 {
        let (seen, unseen) = (profile.queue.len(), profile.queue_unseen);
        text.push_str(&format!(
            "; only the first {seen} steps of the queue were looked at, not {unseen} more"
        ));
    }
    if profile.holders_unseen > 0 {
        let unseen = profile.holders_unseen;
        text.push_str(&format!("; the ends of {unseen} running steps were not looked up"));
    }
    text
}

/// Why a replay went no further.
enum Stop {
    /// Nothing known ends any more.
    Stuck,
    /// The limit of work.
    Long,
}

struct Replay {
    now_ms: u64,
    capacity: Vec<Amount>,
    free: Vec<Amount>,
    ends: BTreeMap<u64, Vec<(usize, Amount)>>,
    /// Who stays on each node, for all that is known.
    stays: Vec<BTreeSet<String>>,
    examined: u64,
    examined_max: u64,
}

impl Replay {
    fn of(profile: &Profile, examined_max: u64) -> Replay {
        let mut replay = Replay {
            now_ms: 0,
            capacity: profile.nodes.iter().map(|node| node.capacity).collect(),
            free: profile.nodes.iter().map(|node| node.capacity).collect(),
            ends: BTreeMap::new(),
            stays: vec![BTreeSet::new(); profile.nodes.len()],
            examined: 0,
            examined_max,
        };
        for (at, node) in profile.nodes.iter().enumerate() {
            for holder in &node.holders {
                replay.take(at, holder.amount, &holder.step, holder.ends_in_ms);
            }
        }
        replay
    }

    fn take(&mut self, at: usize, amount: Amount, step: &DemandKey, runs_ms: Option<u64>) {
        self.free[at] = self.free[at].minus(amount);
        match runs_ms {
            Some(runs_ms) => {
                self.ends.entry(self.now_ms.saturating_add(runs_ms)).or_default().push((at, amount));
            }
            None => _ = self.stays[at].insert(name(step)),
        }
    }

    /// Plays on until all of a demand has started.
    fn start(&mut self, queued: &Queued) -> Result<(), Stop> {
        let mut left = queued.count;
        loop {
            left -= self.place(queued, left);
            if left == 0 {
                return Ok(());
            }
            if self.examined > self.examined_max {
                return Err(Stop::Long);
            }
            let (at_ms, ended) = self.ends.pop_first().ok_or(Stop::Stuck)?;
            self.now_ms = at_ms;
            for (at, amount) in ended {
                self.free[at] = self.free[at].plus(amount);
            }
        }
    }

    /// Starts what fits now, best fit first as a pass does; how much that was.
    fn place(&mut self, queued: &Queued, left: u64) -> u64 {
        self.examined += queued.hosts.len() as u64;
        let mut hosts: Vec<(Amount, usize)> = queued
            .hosts
            .iter()
            .map(|&at| (self.free[at], at))
            .filter(|(free, _)| queued.unit.fits_in(*free))
            .filter(|(free, at)| !queued.alone || *free == self.capacity[*at])
            .collect();
        if hosts.len() < queued.gang_nodes.max(1) {
            return 0;
        }
        hosts.sort_unstable_by_key(|(free, at)| (free.gpus, free.millicores, free.memory_bytes, *at));
        if queued.gang_nodes > 0 {
            for &(_, at) in &hosts[..queued.gang_nodes] {
                let amount = if queued.alone { self.capacity[at] } else { queued.unit };
                self.take(at, amount, &queued.step, queued.runtime_ms);
            }
            return 1;
        }
        let mut placed = 0;
        for (free, at) in hosts {
            // What it fills stays the best fit until it is full.
            let (unit, most) = if queued.alone { (free, 1) } else { (queued.unit, u64::MAX) };
            let count = unit.count_in(free).min(most).min(left - placed);
            self.take(at, unit.times(count), &queued.step, queued.runtime_ms);
            placed += count;
            if placed == left {
                break;
            }
        }
        placed
    }

    fn why(&self, stop: Stop, what: &str, hosts: &[usize], profile: &Profile) -> String {
        let names: BTreeSet<&String> = hosts.iter().flat_map(|&at| &self.stays[at]).collect();
        let mut shown: Vec<&str> = names.iter().take(ETA_NAMES_MAX).map(|name| name.as_str()).collect();
        let more = format!("{} more", names.len().saturating_sub(ETA_NAMES_MAX));
        if names.len() > ETA_NAMES_MAX {
            shown.push(&more);
        }
        let mut text = match stop {
            Stop::Stuck => format!(
                "{what} waits for work whose end is not known ({}): it tells neither expected runtime nor time \
                 limit, or ran longer",
                shown.join(", ")
            ),
            Stop::Long => format!("the queue is too long to plan through until {what} starts"),
        };
        text.push_str(&left_out(profile));
        text
    }
}

#[cfg(test)]
mod tests;
