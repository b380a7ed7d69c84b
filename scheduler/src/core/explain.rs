//! Why a step waits: the same search and the same tests as a pass, asked
//! without granting.

use super::licenses::{Lack, License};
use super::pass::Pass;
use super::place::{Blocked, Obstacle};
use super::shape::Shape;
use super::tenants::{Place, Shortage, TenantId};
use super::{Core, StepKey};
use crate::limits::EXPLAIN_AHEAD_MAX;
use proto::units;
use proto::v1::{DemandKey, WhyReply};
use std::collections::BTreeMap;
use world::clock::Now;

/// Names listed in one line.
const NAMES_MAX: usize = 8;

fn reply(code: &str, headline: String) -> WhyReply {
    WhyReply { code: code.to_owned(), headline, ..WhyReply::default() }
}

impl Core {
    /// What keeps a step from starting (more), as the next pass would see it.
    #[must_use]
    pub fn explain(&self, key: &DemandKey, now: Now) -> WhyReply {
        let known = self.key(key).filter(|key| self.demands.get(*key).is_some());
        let Some(key) = known else {
            return reply("waiting.nothing", "nothing of this step waits for a machine".to_owned());
        };
        let entry = self.demands.get(key).expect("it was there a line ago");
        if let Some(place) = entry.place {
            return self.explain_queued(key, place);
        }
        if entry.not_before_ms > now.wall_ms {
            let span = units::brief_duration_ms(entry.not_before_ms - now.wall_ms);
            let headline = format!("the next try is not before {span} from now");
            return WhyReply { expected_start_ms: entry.not_before_ms, ..reply("waiting.backoff", headline) };
        }
        if self.now.mono_ms < entry.resting_until_ms {
            let headline = "its controller gave back what was granted; it is tried again in a moment";
            return reply("waiting.handover", headline.to_owned());
        }
        if entry.outstanding.is_empty() {
            return reply("waiting.nothing", "nothing of this step waits for a machine".to_owned());
        }
        let headline = "what it wants is granted; its tasks are being handed out".to_owned();
        reply("waiting.handover", headline)
    }

    /// Steps that wait: of each tenant so many, those of its earliest jobs.
    #[must_use]
    pub fn waiting(&self, of_each: usize) -> Vec<DemandKey> {
        let mut found = Vec::new();
        let (mut tenant, mut count) = (None, 0);
        for (key, entry) in self.demands.iter() {
            if tenant.replace(key.tenant) != Some(key.tenant) {
                count = 0;
            }
            if entry.place.is_some() && count < of_each {
                count += 1;
                found.push(DemandKey {
                    tenant: self.tenants.get(key.tenant).name.clone(),
                    job_number: key.job_number,
                    step: key.step,
                });
            }
        }
        found
    }

    fn explain_queued(&self, key: StepKey, place: Place) -> WhyReply {
        let tenant = self.tenants.get(key.tenant);
        if tenant.row.is_none() {
            return reply("waiting.tenant", format!("tenant {} is not known to the scheduler", tenant.name));
        }
        let path = self.tenants.path(key.tenant);
        if path.iter().any(|&id| self.tenants.get(id).in_flight.is_some()) {
            return reply("waiting.decision", "a grant for its tenant is being written".to_owned());
        }
        if let Some(&id) = path.iter().find(|&&id| self.tenants.get(id).row.is_none()) {
            let headline = format!("group {} is not known to the scheduler", self.tenants.get(id).name);
            return reply("waiting.tenant", headline);
        }
        if !self.may_plan(key.tenant) {
            let headline = "another scheduler's grant for its tenant came first; it is tried again";
            return reply("waiting.decision", headline.to_owned());
        }
        let mut why = self.explain_place(key, place);
        self.queue_details(key, place, &mut why);
        why
    }

    fn explain_place(&self, key: StepKey, place: Place) -> WhyReply {
        let tenant = self.tenants.get(key.tenant);
        let entry = self.demands.get(key).expect("who waits has a demand");
        let shape = self.demands.shape(entry.shape).shape.clone();
        let mut pass = Pass::new();
        if let Some((head, dimensions)) = self.held_back_by_head(key, place) {
            let headline = format!(
                "what tenant {} may still have of {} is held back for job {}, which waits longer",
                tenant.name,
                dimensions.join(", "),
                head.job_number
            );
            return reply("waiting.quota", headline);
        }
        if let Some(headline) = self.held_back_in_group(key) {
            return reply("waiting.quota", headline);
        }
        match self.choose(&mut pass, key) {
            Ok(_) => reply("waiting.turn", "it fits; it starts with its tenant's next turn".to_owned()),
            Err(Blocked::Limit(shortages)) => {
                let mut lines = shortages.iter().map(|short| self.limit_line(key, short));
                let mut why = reply("waiting.quota", lines.next().unwrap_or_default());
                why.details.extend(lines);
                why
            }
            Err(Blocked::Licenses(lacks)) => self.explain_licenses(key, &lacks),
            Err(Blocked::Joining) if self.licenses_move(&shape) => {
                let headline = "a grant that holds some of its licenses is being written";
                reply("waiting.decision", headline.to_owned())
            }
            Err(Blocked::Capacity(_) | Blocked::Joining) => {
                self.explain_preemption(key).unwrap_or_else(|| self.explain_nodes(key, &shape))
            }
        }
    }

    /// Who is first of the queue, if that keeps this one from its tenant's limit.
    fn held_back_by_head(&self, key: StepKey, place: Place) -> Option<(StepKey, Vec<&'static str>)> {
        let (first, _) = self.tenants.get(key.tenant).queue.head_after(None)?;
        if first == place {
            return None;
        }
        let head = Self::key_at(key.tenant, first);
        let blocked = self.choose(&mut Pass::new(), head).err()?;
        let closed: Vec<_> =
            self.limits_held_back(head, &blocked).into_iter().map(|(_, what)| what).collect();
        let shape = self.demands.get(key)?.shape;
        self.uses_closed(shape, &closed).then_some((head, closed))
    }

    fn explain_nodes(&self, key: StepKey, shape: &Shape) -> WhyReply {
        let mut tally: BTreeMap<Obstacle, Vec<&str>> = BTreeMap::new();
        let mut free: Vec<&str> = Vec::new();
        let search = self.search(key, shape);
        for (id, node) in self.nodes.iter().filter(|(_, node)| node.row.is_some()) {
            match search.as_ref().map_or(Some(Obstacle::Pool), |search| self.obstacle(id, search)) {
                Some(obstacle) => tally.entry(obstacle).or_default().push(&node.name),
                None => free.push(&node.name),
            }
        }
        let wanted = shape.nodes_wanted();
        let need = shape.unit();
        let per = if shape.gang.is_some() { "on each node" } else { "for one task" };
        let per = if shape.exclusive { format!("{per}, with nothing else there") } else { per.to_owned() };
        let passing = [
            Obstacle::Whole,
            Obstacle::Occupied,
            Obstacle::Gpus,
            Obstacle::Cores,
            Obstacle::Memory,
            Obstacle::Kept,
            Obstacle::Reserved,
            Obstacle::Unsettled,
        ];
        let soon = free.len() + passing.iter().filter_map(|o| tally.get(o)).map(Vec::len).sum::<usize>();
        let mut why = if tally.is_empty() && free.is_empty() {
            reply("waiting.nodes", "no node is known yet".to_owned())
        } else if soon < wanted {
            let pool = if shape.pool.is_empty() { String::new() } else { format!(" of pool {}", shape.pool) };
            let found =
                if soon == 0 { "no node".to_owned() } else { format!("only {soon} of {wanted} nodes") };
            let headline = format!("{found}{pool} in service could hold it: {need} needed {per}");
            reply("waiting.nodes", headline)
        } else if shape.gang.is_some() {
            let free = free.len();
            reply(
                "waiting.capacity",
                format!("{free} of {wanted} nodes are free for it: {need} needed {per}"),
            )
        } else {
            reply("waiting.capacity", format!("no node has room for it now: {need} needed {per}"))
        };
        why.details.extend(tally.iter().map(|(obstacle, names)| obstacle_line(*obstacle, names, shape)));
        self.plan_details(key, &mut why);
        why
    }

    fn plan_details(&self, key: StepKey, why: &mut WhyReply) {
        let Some(plan) = self.plans.get(&key) else { return };
        let names: Vec<&str> = plan.nodes.iter().map(|&id| self.nodes.get(id).name.as_str()).collect();
        match plan.at_ms.filter(|at_ms| *at_ms > self.now.wall_ms) {
            Some(at_ms) => {
                let span = units::brief_duration_ms(at_ms - self.now.wall_ms);
                why.details.push(format!(
                    "it starts in {span} at the latest, if what runs there ends by its time limit or \
                     expected runtime, on {}",
                    list(&names)
                ));
                why.expected_start_ms = at_ms;
            }
            None if names.is_empty() => why.details.push("its licenses are held back for it".to_owned()),
            None => why.details.push(format!("held back for it: {}", list(&names))),
        }
    }

    /// A grant that holds some of them has no outcome yet, or another was faster.
    fn licenses_move(&self, shape: &Shape) -> bool {
        self.licenses_of(shape).iter().any(|&(id, _)| !self.licenses.get(id).is_settled())
    }

    fn explain_licenses(&self, key: StepKey, lacks: &[Lack]) -> WhyReply {
        let line = |lack: &Lack| {
            let License { name, total, used, .. } = self.licenses.get(lack.license);
            let kept = if lack.is_kept { "; what is free is held back for what starts before" } else { "" };
            let needed = if lack.need > *total { "needed" } else { "more needed" };
            format!("license {name}: {used} of {total} in use, {} {needed}{kept}", lack.need)
        };
        let mut lines = lacks.iter().map(line);
        let mut why = reply("waiting.licenses", lines.next().unwrap_or_default());
        why.details.extend(lines);
        self.plan_details(key, &mut why);
        why
    }

    /// Another tenant's first, whose turn is before, if limits of a group that both are in
    /// are held back for it.
    fn held_back_in_group(&self, key: StepKey) -> Option<String> {
        let (path, own) = (self.tenants.path(key.tenant), self.standing_of(key.tenant));
        if path.len() == 1 {
            return None;
        }
        let shape = self.demands.get(key)?.shape;
        let in_groups = |id: TenantId| self.tenants.path(id)[1..].iter().any(|group| path.contains(group));
        let before = self.tenants.waiting.iter().copied().filter(|&id| {
            id != key.tenant && in_groups(id) && self.may_plan(id) && self.standing_of(id) < own
        });
        before.take(EXPLAIN_AHEAD_MAX).find_map(|id| {
            let (first, _) = self.tenants.get(id).queue.head_after(None)?;
            let head = Self::key_at(id, first);
            let blocked = self.choose(&mut Pass::new(), head).err()?;
            let closed = self.limits_held_back(head, &blocked);
            let (group, dimension) = closed
                .into_iter()
                .find(|&(of, dimension)| path[1..].contains(&of) && self.uses_closed(shape, &[dimension]))?;
            Some(format!(
                "what group {} may still have of {dimension} is held back for tenant {}, whose turn comes \
                 first",
                self.tenants.get(group).name,
                self.tenants.get(id).name
            ))
        })
    }

    fn limit_line(&self, key: StepKey, short: &Shortage) -> String {
        let show = |amount: u64| match short.dimension {
            "cores" => units::format_millicores(amount),
            "memory" => units::brief_memory_bytes(amount),
            _ => amount.to_string(),
        };
        let Shortage { of, dimension, held, need, limit } = *short;
        let kind = if of == key.tenant { "tenant" } else { "group" };
        format!(
            "{kind} {} is at its limit of {dimension}: {} held, {} more needed, {} allowed",
            self.tenants.get(of).name,
            show(held),
            show(need),
            show(limit)
        )
    }

    fn queue_details(&self, key: StepKey, place: Place, why: &mut WhyReply) {
        let tenant = self.tenants.get(key.tenant);
        match tenant.queue.ahead_of(place, EXPLAIN_AHEAD_MAX) {
            0 => why.details.push("it is the first of its tenant's queue".to_owned()),
            EXPLAIN_AHEAD_MAX => {
                why.details.push(format!("{EXPLAIN_AHEAD_MAX} or more of its tenant are ahead"))
            }
            ahead => why.details.push(format!("{ahead} of its tenant ahead of it")),
        }
        let own = self.standing_of(key.tenant);
        let first =
            self.tenants.waiting.iter().filter(|&&id| self.may_plan(id) && self.standing_of(id) < own);
        let others = first.count();
        if others > 0 {
            why.details
                .push(format!("{others} other tenants hold less, or held less of late, and come first"));
        }
        let entry = self.demands.get(key).expect("who waits has a demand");
        let blocked_ms = entry.blocked_since_ms.map_or(0, |ms| self.now.mono_ms.saturating_sub(ms));
        if blocked_ms >= 1000 {
            let span = units::brief_duration_ms(blocked_ms);
            why.details.push(format!("first in its queue and blocked for {span}"));
        }
    }
}

fn obstacle_line(obstacle: Obstacle, names: &[&str], shape: &Shape) -> String {
    let what = match obstacle {
        Obstacle::Pool => "in another pool".to_owned(),
        Obstacle::Label => {
            let needs: Vec<String> = shape.needs.iter().map(ToString::to_string).collect();
            format!("without the labels asked for ({})", needs.join(", "))
        }
        Obstacle::NotReady => "not ready".to_owned(),
        Obstacle::Drained => "drained".to_owned(),
        Obstacle::TooSmall => "too small even when idle".to_owned(),
        Obstacle::Whole => "taken whole by a step that runs there alone".to_owned(),
        Obstacle::Occupied => "with other work there, and it asks for whole nodes".to_owned(),
        Obstacle::Gpus => "with too few free GPUs".to_owned(),
        Obstacle::Cores => "with too few free cores".to_owned(),
        Obstacle::Memory => "with too little free memory".to_owned(),
        Obstacle::Avoided => "avoided, since an earlier try failed there".to_owned(),
        Obstacle::Kept if shape.bound_ms == 0 => {
            "reserved by an operator; without a time limit it might run into that".to_owned()
        }
        Obstacle::Kept => "reserved by an operator before it would have ended".to_owned(),
        Obstacle::Reserved => "held back for what is to start there".to_owned(),
        Obstacle::Unsettled => "with a grant being written".to_owned(),
    };
    let plural = if names.len() == 1 { "node" } else { "nodes" };
    format!("{} {plural} {what}: {}", names.len(), list(names))
}

pub(super) fn list(names: &[&str]) -> String {
    if names.len() <= NAMES_MAX {
        return names.join(", ");
    }
    format!("{} and {} more", names[..NAMES_MAX].join(", "), names.len() - NAMES_MAX)
}
