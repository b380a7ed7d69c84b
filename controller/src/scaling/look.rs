//! What follows from a look at a pool: what is to come, what is to go, and what waits.

use super::{Action, Facts, NodeFact, Pool, Shown, Verb};
use crate::limits::SCALE_ASK_NODES_MAX;
use proto::units::brief_duration_ms;
use proto::v1::{AskedNode, Drainer, NodeState};
use std::collections::{BTreeMap, BTreeSet};
use world::clock::Now;

/// How the nodes of a pool stand.
struct Count {
    /// Of the driver's: registered, or asked for.
    paid: u64,
    /// All that are there or may come.
    all: u64,
    /// Take work, or may again in a moment.
    live: u64,
    /// Take work now.
    ready: u64,
    /// Were asked for and are not there.
    coming: u64,
}

impl NodeFact {
    fn lives(&self) -> bool {
        !self.drained && self.state != NodeState::Lost
    }

    fn is_ready(&self) -> bool {
        !self.drained && self.state == NodeState::Ready
    }

    fn is_leaving(&self) -> bool {
        self.drainer == Drainer::Removal
    }

    fn is_draining(&self) -> bool {
        self.drainer == Drainer::Autoscaler
    }
}

impl Pool {
    pub(super) fn look(&mut self, now: Now, facts: &Facts) -> Vec<Action> {
        let before = self.row.clone();
        self.clamp(now);
        self.note_arrivals(facts);
        self.note_idle(now, facts);
        let mut actions = Vec::new();
        self.give_up_overdue(now, &mut actions);
        let wanted = self.wanted(now, facts);
        let ask = self.grow(now, facts, wanted, &mut actions);
        self.let_go_of_lost(now, facts, &mut actions);
        if wanted == 0 && self.row.asked.is_empty() && now.wall_ms >= self.row.add_after_ms {
            // Nobody misses what failed.
            self.row.add_failures = 0;
            self.forget_failures();
        }
        if wanted == 0 && facts.further == 0 {
            self.shrink(now, facts, &mut actions);
        }
        let ask = ask.or_else(|| self.remove(now, facts));
        if self.row != before {
            actions.push(Action::Keep(self.row.clone()));
        }
        // Which nodes were asked for is durable before they are.
        actions.extend(ask);
        self.show(facts);
        actions
    }

    fn count(&self, facts: &Facts) -> Count {
        let coming = self.row.asked.len() as u64;
        let number =
            |which: &dyn Fn(&NodeFact) -> bool| facts.nodes.iter().filter(|node| which(node)).count() as u64;
        Count {
            paid: coming + number(&|node| self.is_ours(&node.name)),
            // One of somebody else that is lost may never come again.
            all: coming + number(&|node| self.is_ours(&node.name) || node.state != NodeState::Lost),
            live: number(&NodeFact::lives),
            ready: number(&NodeFact::is_ready),
            coming,
        }
    }

    /// A clock that was set back does not make anybody wait for long.
    fn clamp(&mut self, now: Now) {
        let most_ms = self.rules.cooldown_ms.max(crate::limits::SCALE_BACKOFF_MS_MAX);
        let latest_ms = now.wall_ms.saturating_add(most_ms);
        self.row.add_after_ms = self.row.add_after_ms.min(latest_ms);
        self.row.remove_after_ms = self.row.remove_after_ms.min(latest_ms);
        for node in &mut self.row.asked {
            node.asked_ms = node.asked_ms.min(now.wall_ms);
        }
    }

    /// Who has registered needs no place in the row any more.
    fn note_arrivals(&mut self, facts: &Facts) {
        let there: BTreeMap<u64, &NodeFact> =
            facts.nodes.iter().filter_map(|node| Some((self.number_of(&node.name)?, node))).collect();
        let mut came = false;
        self.row.asked.retain(|asked| {
            let node = there.get(&asked.number);
            // One that was retired has not come.
            came |= node.is_some_and(|node| !node.is_leaving());
            node.is_none()
        });
        if came {
            self.row.add_failures = 0;
            self.forget_failures();
        }
    }

    fn note_idle(&mut self, now: Now, facts: &Facts) {
        let still = |node: &&NodeFact| {
            self.is_ours(&node.name) && (node.state == NodeState::Lost || node.is_ready() && node.idle)
        };
        let idle = facts.nodes.iter().filter(still).map(|node| {
            let since_ms = self.idle.get(&node.name).copied().unwrap_or(now.mono_ms);
            (node.name.clone(), since_ms)
        });
        self.idle = idle.collect::<BTreeMap<String, u64>>();
        self.queued_ms = (facts.further > 0).then(|| self.queued_ms.unwrap_or(now.mono_ms));
    }

    /// Nodes that were to come and did not are removed: who knows where they hang.
    fn give_up_overdue(&mut self, now: Now, actions: &mut Vec<Action>) {
        let arrive_ms = self.rules.arrive_ms;
        let overdue = |node: &AskedNode| node.coming && now.wall_ms - node.asked_ms >= arrive_ms;
        let late: Vec<u64> =
            self.row.asked.iter().filter(|node| overdue(node)).map(|node| node.number).collect();
        let Some(first) = late.first().map(|number| self.node_name(*number)) else { return };
        let span = brief_duration_ms(arrive_ms);
        self.failed(now, Verb::Add, format!("node {first} did not register within {span}"));
        self.retire_asked(&late, &format!("did not register within {span}"), actions);
    }

    fn retire_asked(&mut self, numbers: &[u64], why: &str, actions: &mut Vec<Action>) {
        actions.extend(numbers.iter().map(|number| Action::Retire(self.node_name(*number), why.to_owned())));
        self.row.asked.retain(|node| !numbers.contains(&node.number));
    }

    /// How many nodes more should take work, those that come not counted.
    fn wanted(&self, now: Now, facts: &Facts) -> u64 {
        let below = u64::from(self.rules.min).saturating_sub(self.count(facts).live);
        let ripe = self.queued_ms.is_some_and(|at| now.mono_ms.saturating_sub(at) >= self.rules.queued_ms);
        below.max(if ripe { facts.further } else { 0 })
    }

    /// Resumes nodes, or asks for further ones.
    fn grow(&mut self, now: Now, facts: &Facts, wanted: u64, actions: &mut Vec<Action>) -> Option<Action> {
        // What only drains is there at once, so nobody waits until it is sure to be needed.
        let back = facts.nodes.iter().filter(|node| node.is_draining() && node.state == NodeState::Ready);
        let back: Vec<&NodeFact> =
            back.take(usize::try_from(wanted.max(facts.further)).unwrap_or(usize::MAX)).collect();
        actions.extend(back.iter().map(|node| Action::Resume(node.name.clone())));
        let wanted = wanted.saturating_sub(back.len() as u64);
        if self.asking.is_some() || now.wall_ms < self.row.add_after_ms {
            return None;
        }
        // What the driver may not have heard of, or of which nobody knows what it made.
        let mut open: Vec<u64> =
            self.row.asked.iter().filter(|node| !node.coming).map(|node| node.number).collect();
        let count = self.count(facts);
        if !open.is_empty() {
            let spare = if wanted == 0 && self.row.add_failures > 0 {
                open.len() as u64
            } else {
                self.surplus(&count)
            };
            let kept = open.len().saturating_sub(usize::try_from(spare).unwrap_or(usize::MAX));
            self.retire_asked(&open.split_off(kept), "is not needed any more", actions);
            let names: Vec<String> = open.iter().map(|number| self.node_name(*number)).collect();
            self.in_doubt = true;
            return (!names.is_empty()).then(|| self.ask(Verb::Add, names));
        }
        let most = self.room(&count).min(SCALE_ASK_NODES_MAX as u64);
        let number = wanted.saturating_sub(count.coming).min(most);
        if number == 0 {
            return None;
        }
        let names = self.give_names(now, facts, number);
        self.in_doubt = false;
        Some(self.ask(Verb::Add, names))
    }

    /// How many further nodes the rules allow.
    fn room(&self, count: &Count) -> u64 {
        let all = u64::from(self.rules.max).saturating_sub(count.all);
        all.min(u64::from(self.rules.paid_max).saturating_sub(count.paid))
    }

    /// How many there are, or may come, that the rules do not allow: some came that nobody
    /// knew of.
    fn surplus(&self, count: &Count) -> u64 {
        let all = count.all.saturating_sub(u64::from(self.rules.max));
        all.max(count.paid.saturating_sub(u64::from(self.rules.paid_max)))
    }

    fn give_names(&mut self, now: Now, facts: &Facts, number: u64) -> Vec<String> {
        let there: BTreeSet<&str> = facts.nodes.iter().map(|node| node.name.as_str()).collect();
        let mut names = Vec::new();
        while (names.len() as u64) < number {
            self.row.last_number += 1;
            let name = self.node_name(self.row.last_number);
            // Where the data was lost, some of an earlier life may be there.
            if !there.contains(name.as_str()) {
                let node = AskedNode { number: self.row.last_number, asked_ms: now.wall_ms, coming: false };
                self.row.asked.push(node);
                names.push(name);
            }
        }
        names
    }

    /// What is lost gives nothing, whatever is wanted: but it has its place, and costs.
    fn let_go_of_lost(&self, now: Now, facts: &Facts, actions: &mut Vec<Action>) {
        let lost = facts.nodes.iter().filter(|node| node.state == NodeState::Lost);
        for node in lost.filter(|node| self.is_ours(&node.name)) {
            let gone_ms = self.idle.get(&node.name).map_or(0, |at| now.mono_ms.saturating_sub(*at));
            let reason = format!("lost for {}", brief_duration_ms(gone_ms));
            if node.is_draining() && node.idle {
                actions.push(Action::Retire(node.name.clone(), reason));
            } else if !node.drained && gone_ms >= self.rules.idle_ms {
                actions.push(Action::Drain(node.name.clone(), reason));
            }
        }
    }

    /// Drains nodes that have had nothing for long, and retires those that are clear.
    fn shrink(&mut self, now: Now, facts: &Facts, actions: &mut Vec<Action>) {
        let min = u64::from(self.rules.min);
        let count = self.count(facts);
        let here = || facts.nodes.iter().filter(|node| node.state != NodeState::Lost);
        let clear = here().filter(|node| self.is_ours(&node.name) && node.is_draining() && node.idle);
        actions.extend(clear.map(|node| Action::Retire(node.name.clone(), "is not needed".to_owned())));
        if self.asking.is_some() || now.wall_ms < self.row.remove_after_ms || count.coming > 0 {
            return;
        }
        let idle_ms = self.rules.idle_ms;
        let mut old: Vec<(u64, &NodeFact)> = here()
            .filter(|node| !node.drained)
            .filter_map(|node| Some((*self.idle.get(&node.name)?, node)))
            .filter(|(since_ms, _)| now.mono_ms.saturating_sub(*since_ms) >= idle_ms)
            .collect();
        // The longest idle first; of several the youngest.
        old.sort_by_key(|(since_ms, node)| (*since_ms, std::cmp::Reverse(self.number_of(&node.name))));
        let spare = usize::try_from(count.ready.saturating_sub(min)).unwrap_or(usize::MAX);
        actions.extend(old.into_iter().take(spare).map(|(since_ms, node)| {
            let span = brief_duration_ms(now.mono_ms.saturating_sub(since_ms));
            Action::Drain(node.name.clone(), format!("idle for {span}"))
        }));
    }

    /// Asks that those be removed on which nothing can run any more.
    fn remove(&mut self, now: Now, facts: &Facts) -> Option<Action> {
        if self.asking.is_some() || now.wall_ms < self.row.remove_after_ms {
            return None;
        }
        let gone = facts.nodes.iter().filter(|node| self.is_ours(&node.name) && node.is_leaving());
        let gone: Vec<String> = gone.map(|node| node.name.clone()).collect();
        (!gone.is_empty()).then(|| self.ask(Verb::Remove, gone))
    }

    fn show(&mut self, facts: &Facts) {
        let count = self.count(facts);
        let leaving = facts.nodes.iter().filter(|node| node.is_leaving() || node.is_draining()).count();
        let missing = facts.further.max(u64::from(self.rules.min).saturating_sub(count.live));
        let capped = if missing <= count.coming || self.room(&count) > 0 {
            String::new()
        } else if count.all >= u64::from(self.rules.max) {
            format!("{missing} more would have work, and max is {}", self.rules.max)
        } else {
            format!("{missing} more would have work, and cost_per_hour_max allows {}", self.rules.paid_max)
        };
        let narrow = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        self.shown = Shown {
            asked: narrow(count.coming),
            leaving: narrow(leaving as u64),
            capped,
            paid: narrow(count.paid),
        };
    }
}
