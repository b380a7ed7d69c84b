//! Why a job does not run: the binding constraint first.
//!
//! What waits for capacity is explained by the scheduler, from the code that
//! decides. All else follows from the job's rows: it ended, it is being
//! cancelled, it waits for another job or step, or it runs.

use super::{follows, progress};
use crate::gate::{Gate, ended};
use crate::{limits, rows};
use proto::after;
use proto::ids::JobId;
use proto::keys;
use proto::problem::Problem;
use proto::units;
use proto::v1::{
    Cause, DemandKey, Dependency, DependencyKind, GaveWay, GrantRow, JobSpec, JobStateRow, Preemption, State,
    Step, StepState, WhyReply,
};
use std::collections::BTreeSet;

pub(crate) async fn why(gate: &Gate, job: &JobId) -> Result<WhyReply, Problem> {
    let state = gate.state(job).await?;
    let spec = gate.job(job).await?.spec.unwrap_or_default();
    if ended(state.state()) {
        return Ok(the_end(job, &spec, &state));
    }
    if state.cancel_requested {
        let active: u64 = state.steps.iter().map(|step| step.active).sum();
        let headline = format!("{job} is being cancelled; {active} tasks are still to stop");
        return Ok(reply("cancelling", headline, Vec::new()));
    }
    let mut reasons = Reasons::default();
    let mut blocked_by = dependencies(gate, job, &spec).await?;
    if state.state() == State::Pending {
        blocked_by.append(&mut follows::single(gate, job, &spec).await?);
    }
    let (follower, followed) = follows::each(gate, job, &spec, &state).await?.unzip();
    let followed = followed.unwrap_or_default();
    if !blocked_by.is_empty() {
        reasons.waits("waiting.job", blocked_by.join("; "), 0);
    }
    let grants: Vec<GrantRow> = rows::all_decoded(&*gate.store, &keys::grants_of(&job.tenant)).await?;
    let mut stragglers = progress::stragglers(gate, job, &spec, &state).await;
    for (at, (step, told)) in spec.steps.iter().zip(&state.steps).enumerate() {
        if told.active > 0 {
            reasons.runs(running(&step.name, told, job, at, &grants));
            reasons.details.extend(giving_way(&step.name, job, at, &grants));
            reasons.details.extend(stragglers.remove(&at).into_iter().flat_map(|slow| lag(step, slow)));
        }
        if told.pending == 0 || ended(told.state()) || !blocked_by.is_empty() {
            continue;
        }
        let unmet = unmet(&spec, &state, &step.after);
        if !unmet.is_empty() {
            reasons.waits(
                "waiting.step",
                format!("step {} waits for step {}", step.name, unmet.join(", ")),
                0,
            );
            continue;
        }
        let key = DemandKey {
            tenant: job.tenant.clone(),
            job_number: job.number,
            step: u32::try_from(at).unwrap_or(u32::MAX),
        };
        let told = gate.planner.explain(&key);
        if follower == Some(at) {
            for line in &followed {
                reasons.waits("waiting.job", line.clone(), 0);
            }
            // None of its tasks may begin yet: there is no capacity to speak of.
            if !followed.is_empty() && told.code == "waiting.nothing" {
                continue;
            }
        }
        reasons.explained(&step.name, spec.steps.len() > 1, told);
        let gave = state.steps[at].gave_way.as_ref();
        reasons.details.extend(gave.map(|gave| {
            let of_it = grants.iter().filter(|grant| grant.job_number == gave.job_number);
            // What tells no end says 0.
            let mut ends_ms = of_it.map(|grant| grant.ends_by_ms);
            let last_ms = ends_ms.try_fold(0, |most: u64, ms| (ms > 0).then(|| most.max(ms)));
            gave_way(&step.name, gave, last_ms.unwrap_or(0), gate.clock.wall_ms())
        }));
    }
    Ok(reasons.reply(job))
}

/// The instant that is asked for; none: now.
pub(super) fn instant(gate: &Gate, at_ms: u64, ago_ms: u64) -> Result<Option<u64>, Problem> {
    let now_ms = gate.clock.wall_ms();
    match (at_ms, ago_ms) {
        (0, 0) => Ok(None),
        (0, ago_ms) => Ok(Some(now_ms.saturating_sub(ago_ms))),
        (at_ms, 0) if at_ms <= now_ms => Ok(Some(at_ms)),
        (at_ms, 0) => {
            let (value, remedy) = (units::format_instant(at_ms), "ask without it for when it may start");
            Err(Problem::new("spec.at", "at", value, "is still to come", remedy))
        }
        (at_ms, _) => {
            let reason = "is given as an instant and as a time ago";
            Err(Problem::new("spec.at", "at", units::format_instant(at_ms), reason, "give one of them"))
        }
    }
}

/// The same of a past instant: as it was noted then, else as the job's rows tell it.
pub(super) async fn at(gate: &Gate, job: &JobId, at_ms: u64) -> Result<WhyReply, Problem> {
    let state = gate.state(job).await?;
    let row = gate.job(job).await?;
    let spec = row.spec.unwrap_or_default();
    if at_ms < row.submitted_ms {
        let headline = format!("{job} was submitted later, at {}", units::format_instant(row.submitted_ms));
        return Ok(reply("before", headline, Vec::new()));
    }
    if ended(state.state()) && at_ms >= state.ended_ms {
        return Ok(the_end(job, &spec, &state));
    }
    if let Some(note) = gate.notes.at(job, at_ms) {
        let [from, until] = [note.from_ms, note.until_ms].map(units::format_instant);
        let seen = format!("seen from {from} to {until}");
        return Ok(WhyReply { details: [note.why.details, vec![seen]].concat(), ..note.why });
    }
    let started_ms = state.started_ms;
    if started_ms > 0 && at_ms >= started_ms {
        let headline = format!("{job} had begun, at {}", units::format_instant(started_ms));
        let begun = spec.steps.iter().zip(&state.steps).filter(|(_, step)| step.started_ms > 0);
        let details = begun.filter(|(_, told)| told.started_ms <= at_ms).map(|(step, told)| {
            let begun = units::format_instant(told.started_ms);
            match told.ended_ms {
                ended_ms if ended_ms > 0 && ended_ms <= at_ms => {
                    format!("step {} ran from {begun} to {}", step.name, units::format_instant(ended_ms))
                }
                _ => format!("step {} had begun, at {begun}", step.name),
            }
        });
        return Ok(reply("running", headline, details.collect()));
    }
    let begun = units::format_instant(gate.notes.begun_ms);
    let headline = format!("{job} waited; what for was not noted then");
    let details = vec![
        format!("notes are kept since {begun}, when this server began"),
        format!(
            "every {} s, of the first {} of each queue",
            limits::NOTES_LOOK_MS / 1000,
            limits::NOTES_PER_TENANT_MAX
        ),
    ];
    Ok(reply("unknown", headline, details))
}

fn reply(code: &str, headline: String, mut details: Vec<String>) -> WhyReply {
    details.truncate(limits::WHY_DETAILS_MAX);
    WhyReply { headline, details, code: code.to_owned(), expected_start_ms: 0 }
}

/// Reasons as they are found. What can be waited for outranks what must come
/// first anyway: a step that could run and does not is the binding one.
#[derive(Default)]
struct Reasons {
    capacity: Option<WhyReply>,
    order: Option<WhyReply>,
    running: Vec<String>,
    details: Vec<String>,
}

impl Reasons {
    fn runs(&mut self, text: String) {
        self.running.push(text);
    }

    fn waits(&mut self, code: &str, text: String, expected_start_ms: u64) {
        self.details.push(text.clone());
        if self.order.is_none() {
            let mut told = reply(code, text, Vec::new());
            told.expected_start_ms = expected_start_ms;
            self.order = Some(told);
        }
    }

    fn explained(&mut self, step: &str, several: bool, mut told: WhyReply) {
        if several {
            told.headline = format!("step {step}: {}", told.headline);
        }
        self.details.push(told.headline.clone());
        self.details.append(&mut told.details);
        if self.capacity.is_none() {
            self.capacity = Some(told);
        }
    }

    fn reply(self, job: &JobId) -> WhyReply {
        let Self { capacity, order, running, mut details } = self;
        details.splice(0..0, running.iter().cloned());
        // A job with tasks running only waits where a step could run and does not.
        let first = match (capacity, order, running.first()) {
            (Some(told), _, _) => told,
            (None, _, Some(running)) => reply("running", running.clone(), Vec::new()),
            (None, Some(told), None) => told,
            (None, None, None) => {
                reply("waiting.decision", format!("{job} is about to be looked at"), Vec::new())
            }
        };
        details.retain(|detail| *detail != first.headline);
        let mut told = reply(&first.code, first.headline, details);
        told.expected_start_ms = first.expected_start_ms;
        told
    }
}

fn running(name: &str, told: &StepState, job: &JobId, at: usize, grants: &[GrantRow]) -> String {
    let own = grants.iter().filter(|grant| grant.job_number == job.number && grant.step as usize == at);
    let nodes: BTreeSet<&str> = own.flat_map(|grant| &grant.nodes).map(|node| node.node.as_str()).collect();
    let nodes: Vec<&str> = nodes.into_iter().take(limits::WHY_DETAILS_MAX).collect();
    let all = told.pending + told.active + told.completed + told.failed + told.cancelled;
    let on = if nodes.is_empty() { String::new() } else { format!(" on {}", nodes.join(", ")) };
    format!("step {name}: {} of {all} tasks running{on}", told.active)
}

/// That tasks of a step are to give way, and to whom.
fn giving_way(name: &str, job: &JobId, at: usize, grants: &[GrantRow]) -> Option<String> {
    let own = grants.iter().filter(|grant| grant.job_number == job.number && grant.step as usize == at);
    let asked: Vec<&Preemption> = own.filter_map(|grant| grant.preemption.as_ref()).collect();
    let tasks: usize = asked.iter().map(|asked| asked.tasks.len()).sum();
    let to = asked.first().map(|asked| match asked.tenant == job.tenant {
        true => JobId::new(asked.tenant.as_str(), asked.job_number).to_string(),
        false => "work of another tenant".to_owned(),
    })?;
    let tasks = if tasks == 1 { "1 task is".to_owned() } else { format!("{tasks} tasks are") };
    Some(format!("step {name}: {tasks} giving way to {to}, after a last checkpoint where it has any"))
}

/// How often it gave way, to whom last, and when it may start again.
fn gave_way(name: &str, gave: &GaveWay, ends_by_ms: u64, now_ms: u64) -> String {
    let to = match gave.tenant.as_str() {
        "" => "work of another tenant".to_owned(),
        tenant => JobId::new(tenant, gave.job_number).to_string(),
    };
    let ago = units::brief_duration_ms(now_ms.saturating_sub(gave.at_ms));
    let times = if gave.times == 1 { String::new() } else { format!(", {} times in all", gave.times) };
    let again = if ends_by_ms > now_ms {
        let span = units::brief_duration_ms(ends_by_ms - now_ms);
        format!("when {to} has ended, in {span} at the latest, if that ends as told")
    } else {
        "once there is room".to_owned()
    };
    format!("step {name} gave way to {to} {ago} ago{times}; it starts again {again}")
}

/// A line for each of a step's stragglers, and one for those that are not named.
fn lag(step: &Step, (all, slowest): progress::Stragglers) -> Vec<String> {
    let mut lines: Vec<String> = slowest
        .iter()
        .map(|slow| match &step.array {
            Some(_) => format!("straggler: step {} task {} {}", step.name, slow.index, slow.text),
            None => format!("straggler: step {} {}", step.name, slow.text),
        })
        .collect();
    let more = all.saturating_sub(slowest.len() as u64);
    if more > 0 {
        lines.push(format!("straggler: {more} more of step {}", step.name));
    }
    lines
}

/// Steps that must complete first and have not.
fn unmet(spec: &JobSpec, state: &JobStateRow, after: &[String]) -> Vec<String> {
    let done = |name: &String| {
        spec.steps
            .iter()
            .zip(&state.steps)
            .any(|(step, told)| step.name == *name && told.state() == State::Completed)
    };
    after.iter().filter(|name| !done(name)).cloned().collect()
}

/// Other jobs that this one waits for, a line each.
async fn dependencies(gate: &Gate, job: &JobId, spec: &JobSpec) -> Result<Vec<String>, Problem> {
    let mut lines = Vec::new();
    for dependency in spec.after.iter().filter(|on| !after::by_task(on)) {
        let other = JobId::new(job.tenant.as_str(), dependency.job_number);
        let key = keys::state(&other.tenant, other.number);
        let told: Option<JobStateRow> = rows::get(&*gate.store, key).await?;
        if let Some(told) = told
            && !ended(told.state())
        {
            lines.push(waits_for(&other, dependency, told.state()));
        }
    }
    Ok(lines)
}

fn waits_for(other: &JobId, dependency: &Dependency, state: State) -> String {
    format!("waits for job {other} to {}; it is {}", how(dependency.kind()), name(state))
}

/// The end that is waited for, as a word.
pub(super) fn how(kind: DependencyKind) -> &'static str {
    match kind {
        DependencyKind::Ok | DependencyKind::Each => "complete",
        DependencyKind::NotOk => "fail",
        DependencyKind::Any | DependencyKind::Unspecified => "end",
    }
}

fn name(state: State) -> &'static str {
    state.as_str_name().trim_start_matches("STATE_")
}

fn the_end(job: &JobId, spec: &JobSpec, state: &JobStateRow) -> WhyReply {
    let because = |cause: Option<&Cause>| match cause {
        Some(cause) if !cause.text.is_empty() => format!(": {}", cause.text),
        _ => String::new(),
    };
    let headline = format!("{job} has ended {}{}", name(state.state()), because(state.cause.as_ref()));
    let details = spec
        .steps
        .iter()
        .zip(&state.steps)
        .map(|(step, told)| {
            format!("step {} {}{}", step.name, name(told.state()), because(told.cause.as_ref()))
        })
        .collect();
    reply("ended", headline, details)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::v1::Straggler;

    fn job() -> JobId {
        JobId::new("lab", 7)
    }

    #[test]
    fn the_binding_constraint_comes_first() {
        let capacity =
            reply("waiting.capacity", "needs 8 cores, 2 are free".into(), vec!["pool a: 2".into()]);
        let mut reasons = Reasons::default();
        reasons.runs("step a: 1 of 2 tasks running on n1".into());
        reasons.explained("a", true, capacity);
        reasons.waits("waiting.step", "step b waits for step a".into(), 0);
        let told = reasons.reply(&job());
        assert_eq!(told.code, "waiting.capacity");
        assert_eq!(told.headline, "step a: needs 8 cores, 2 are free");
        assert_eq!(
            told.details,
            ["step a: 1 of 2 tasks running on n1", "pool a: 2", "step b waits for step a"]
        );
    }

    #[test]
    fn a_job_whose_first_step_runs_is_running() {
        let mut reasons = Reasons::default();
        reasons.runs("step a: 2 of 2 tasks running on n1".into());
        reasons.waits("waiting.step", "step b waits for step a".into(), 0);
        let told = reasons.reply(&job());
        assert_eq!((told.code.as_str(), told.details.len()), ("running", 1));
    }

    #[test]
    fn stragglers_are_told_one_by_one_up_to_a_few() {
        let slow = |index, text: &str| Straggler { index, text: text.into(), ..Straggler::default() };
        let mut step = Step { name: "count".into(), ..Step::default() };
        assert_eq!(
            lag(&step, (1, vec![slow(0, "rank 3 would run …")])),
            ["straggler: step count rank 3 would run …"]
        );
        step.array = Some(proto::array::parse("10-20").unwrap());
        assert_eq!(
            lag(&step, (3, vec![slow(17, "runs …")])),
            ["straggler: step count task 17 runs …", "straggler: 2 more of step count"]
        );
    }

    #[test]
    fn an_ended_job_says_how_and_why() {
        let cause = Cause { text: "step a failed: exit code 3".into(), ..Cause::default() };
        let state = JobStateRow {
            state: State::Failed.into(),
            cause: Some(cause.clone()),
            steps: vec![StepState {
                state: State::Failed.into(),
                cause: Some(cause),
                ..StepState::default()
            }],
            ..JobStateRow::default()
        };
        let spec = JobSpec {
            steps: vec![proto::v1::Step { name: "a".into(), ..proto::v1::Step::default() }],
            ..JobSpec::default()
        };
        let told = the_end(&job(), &spec, &state);
        assert_eq!(told.headline, "lab-7 has ended FAILED: step a failed: exit code 3");
        assert_eq!((told.code.as_str(), told.details.len()), ("ended", 1));
    }

    #[test]
    fn a_dependency_reads_as_what_it_waits_for() {
        let dependency =
            Dependency { job_number: 3, kind: DependencyKind::Ok.into(), ..Dependency::default() };
        assert_eq!(
            waits_for(&JobId::new("lab", 3), &dependency, State::Running),
            "waits for job lab-3 to complete; it is RUNNING"
        );
    }
}
