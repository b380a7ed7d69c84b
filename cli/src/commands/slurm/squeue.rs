//! `squeue`: jobs that wait and run, an array's tasks each where they run.

use super::{LIVE, columns::Columns, hosts, jobs_in, me, short_id, user_of, words};
use crate::{
    args::SqueueArgs,
    client::Client,
    commands::{Outcome, done},
    failure::Failure,
    limits, output,
};
use proto::{
    array, estimate,
    v1::{
        Cause, JobRequest, JobSummary, JobView, ListTasksRequest, State, Step, StepState, TaskView,
        WhyRequest,
    },
};
use world::{NodeClock as _, real::SystemClock};

const FORMAT: &str = "%.18i %.9P %.8j %.8u %.2t %.10M %.6D %R";
const FORMAT_LONG: &str = "%.18i %.9P %.8j %.8u %.8T %.10M %.9l %.6D %R";
const CODES: &str = "iAFKPRjuatTMlLDCmbQpVSeNrR";

/// One line of the list.
#[derive(Clone, Debug, Default, PartialEq)]
struct Line {
    id: String,
    index: String,
    state: Option<words::StateWord>,
    started_ms: u64,
    ended_ms: u64,
    nodes: String,
    reason: String,
}

/// What all lines of one job share.
struct Queued {
    job: JobSummary,
    view: JobView,
    step: Step,
    lines: Vec<Line>,
}

pub async fn run(client: Client, args: SqueueArgs) -> Outcome {
    let format = match (&args.format, args.long) {
        (Some(format), _) => format.as_str(),
        (None, true) => FORMAT_LONG,
        (None, false) => FORMAT,
    };
    let columns = Columns::read(format, CODES)?;
    let wanted = words::parse_states(&args.states)?;
    let now_ms = SystemClock::new().wall_ms();
    let mut text = String::new();
    if !args.noheader {
        text.push_str(&columns.line(|code| header(code).to_owned()));
        text.push('\n');
    }
    let mut whys = limits::QUEUE_REASONS_MAX;
    for job in jobs(&client, &args, &wanted).await? {
        let Some(queued) = look(&client, job, &args, &mut whys).await? else { continue };
        for line in &queued.lines {
            let shown = wanted.is_empty() || line.state.is_some_and(|state| wanted.contains(&state));
            if shown {
                text.push_str(&columns.line(|code| value(code, &queued, line, now_ms)));
                text.push('\n');
            }
        }
    }
    output::text(&text)?;
    done()
}

/// The jobs that may have lines to show.
async fn jobs(
    client: &Client,
    args: &SqueueArgs,
    wanted: &[words::StateWord],
) -> Result<Vec<JobSummary>, Failure> {
    let mut users = args.user.clone();
    if args.me {
        users.push(me()?);
    }
    let mut numbers = Vec::new();
    for text in args.jobs.iter().filter(|text| !text.is_empty()) {
        // `17_3` names its job; its other tasks are shown too.
        let whole = text.split_once('_').map_or(text.as_str(), |(job, _)| job);
        let job = client.named_job(whole).await?;
        // One that was never there is a slip, one that has ended is not.
        client.get_job(job.clone()).await?;
        numbers.push(job.number);
    }
    let states = if wanted.is_empty() { LIVE.to_vec() } else { words::states_behind(wanted) };
    let mut jobs = jobs_in(client, &states).await?;
    jobs.retain(|job| {
        (numbers.is_empty() || numbers.contains(&job.number))
            && (users.is_empty() || users.iter().any(|user| user == user_of(job) || *user == job.tenant))
            && (args.name.is_empty() || args.name.contains(&job.name))
    });
    Ok(jobs)
}

/// A job with its lines; none where it is for another pool.
async fn look(
    client: &Client,
    job: JobSummary,
    args: &SqueueArgs,
    whys: &mut usize,
) -> Result<Option<Queued>, Failure> {
    let request = JobRequest { tenant: job.tenant.clone(), number: job.number };
    let view = client.get_job(request.clone()).await?;
    let spec = view.job.as_ref().and_then(|job| job.spec.clone()).unwrap_or_default();
    let state = view.state.clone().unwrap_or_default();
    // Of a job of several steps, the one that is at work, or the next to be.
    let at = state.steps.iter().position(|step| !crate::follow::is_ended(step.state())).unwrap_or(0);
    let step = spec.steps.get(at).cloned().unwrap_or_default();
    if !args.partition.is_empty() && !args.partition.iter().any(|pool| pool == pool_of(&step)) {
        return Ok(None);
    }
    let id = short_id(client, &job.tenant, job.number);
    let told = state.steps.get(at).cloned().unwrap_or_default();
    let tasks = tasks(client, &request, u32::try_from(at).unwrap_or(0), &told).await?;
    let mut lines = lines(&id, &step, &told, &tasks, state.cancel_requested, args.array);
    if lines.is_empty() {
        // It has ended, or its tasks are too many to be told apart.
        let whole = words::state(state.state(), state.cause.as_ref(), state.cancel_requested);
        let index = step.array.as_ref().map(|spec| format!("[{}]", array::format(spec)));
        lines.push(line(&id, index, whole, state.started_ms, state.ended_ms));
    }
    let waits = |line: &Line| line.state.is_some_and(|(full, _)| full == "PENDING") && line.reason.is_empty();
    if lines.iter().any(waits) {
        let mut reason = "None";
        if *whys > 0 {
            *whys -= 1;
            let JobRequest { tenant, number } = request;
            let request = WhyRequest { tenant, number, ..WhyRequest::default() };
            reason = words::reason(&client.why(request).await?.code);
        }
        for line in lines.iter_mut().filter(|line| waits(line)) {
            line.reason = reason.to_owned();
        }
    }
    Ok(Some(Queued { job, view, step, lines }))
}

/// The tasks of a step that has not ended, if they are not too many.
async fn tasks(
    client: &Client,
    job: &JobRequest,
    step: u32,
    told: &StepState,
) -> Result<Vec<TaskView>, Failure> {
    let all = told.pending + told.active + told.completed + told.failed + told.cancelled;
    let mut tasks = Vec::new();
    if crate::follow::is_ended(told.state()) || all > limits::QUEUE_TASKS_MAX {
        return Ok(tasks);
    }
    let mut from_task = 0;
    loop {
        let request = ListTasksRequest { job: Some(job.clone()), step, limit: limits::TASKS_PAGE, from_task };
        let reply = client.list_tasks(request).await?;
        tasks.extend(reply.tasks);
        if reply.next_task <= from_task {
            return Ok(tasks);
        }
        from_task = reply.next_task;
    }
}

fn line(id: &str, index: Option<String>, state: words::StateWord, started_ms: u64, ended_ms: u64) -> Line {
    Line {
        id: index.as_ref().map_or_else(|| id.to_owned(), |index| format!("{id}_{index}")),
        index: index.unwrap_or_else(|| "N/A".to_owned()),
        state: Some(state),
        started_ms,
        ended_ms,
        ..Line::default()
    }
}

/// Waiting tasks in one line, as `17_[3-9%2]`, then each that is at work.
fn lines(
    id: &str,
    step: &Step,
    told: &StepState,
    tasks: &[TaskView],
    ending: bool,
    apart: bool,
) -> Vec<Line> {
    let mut lines = Vec::new();
    let pending: Vec<u64> =
        tasks.iter().filter(|task| task.state() == State::Pending).map(|task| task.index).collect();
    let cap = step.array.as_ref().map_or(0, |array| u64::from(array.max_running));
    let full = cap > 0 && told.active >= cap;
    let word = words::state(State::Pending, None, ending);
    if step.array.is_some() && !apart && !pending.is_empty() {
        let cap = if cap > 0 { format!("%{cap}") } else { String::new() };
        let mut sorted = pending.clone();
        sorted.sort_unstable();
        let drawn = hosts::runs(&sorted, |number| number.to_string());
        lines.push(line(id, Some(format!("[{drawn}{cap}]")), word, 0, 0));
    } else {
        let index = |index: u64| step.array.is_some().then(|| index.to_string());
        lines.extend(pending.iter().map(|task| line(id, index(*task), word, 0, 0)));
    }
    for line in &mut lines {
        if full {
            line.reason = "JobArrayTaskLimit".to_owned();
        }
    }
    for task in tasks.iter().filter(|task| matches!(task.state(), State::Staging | State::Running)) {
        let index = step.array.is_some().then(|| task.index.to_string());
        let word = words::state(task.state(), None::<&Cause>, ending);
        // When a single task began is not told; the step's beginning is near.
        let mut at_work = line(id, index, word, told.started_ms, 0);
        at_work.nodes = hosts::list(task.node.split(',').filter(|node| !node.is_empty()));
        lines.push(at_work);
    }
    lines
}

fn pool_of(step: &Step) -> &str {
    if step.pool.is_empty() { "any" } else { &step.pool }
}

fn header(code: char) -> &'static str {
    match code {
        'i' => "JOBID",
        'A' | 'F' => "ARRAY_JOB_ID",
        'K' => "ARRAY_TASK_ID",
        'P' => "PARTITION",
        'j' => "NAME",
        'u' => "USER",
        'a' => "ACCOUNT",
        't' => "ST",
        'T' => "STATE",
        'M' => "TIME",
        'l' => "TIME_LIMIT",
        'L' => "TIME_LEFT",
        'D' => "NODES",
        'C' => "CPUS",
        'm' => "MIN_MEMORY",
        'b' => "TRES_PER_NODE",
        'Q' | 'p' => "PRIORITY",
        'V' => "SUBMIT_TIME",
        'S' => "START_TIME",
        'e' => "END_TIME",
        'N' => "NODELIST",
        'r' => "REASON",
        _ => "NODELIST(REASON)",
    }
}

fn value(code: char, queued: &Queued, line: &Line, now_ms: u64) -> String {
    let Queued { job, view, step, .. } = queued;
    let each = step.per_task.unwrap_or_default();
    let ranks = estimate::step_ranks(step);
    let end_ms = if line.ended_ms == 0 { now_ms } else { line.ended_ms };
    let ran_ms = if line.started_ms == 0 { 0 } else { end_ms.saturating_sub(line.started_ms) };
    let reason = if line.reason.is_empty() { "None" } else { &line.reason };
    match code {
        'i' => line.id.clone(),
        'A' | 'F' => job.number.to_string(),
        'K' => line.index.clone(),
        'P' => pool_of(step).to_owned(),
        'j' => job.name.clone(),
        'u' => user_of(job).to_owned(),
        'a' => job.tenant.clone(),
        't' => line.state.map_or("", |(_, short)| short).to_owned(),
        'T' => line.state.map_or("", |(full, _)| full).to_owned(),
        'M' => words::span(ran_ms),
        'l' if step.timeout_ms == 0 => "UNLIMITED".to_owned(),
        'l' => words::span(step.timeout_ms),
        'L' if step.timeout_ms == 0 => "UNLIMITED".to_owned(),
        'L' => words::span(step.timeout_ms.saturating_sub(ran_ms)),
        'D' => step.nodes.max(1).to_string(),
        'C' => (u64::from(each.millicores).div_ceil(1000) * ranks).to_string(),
        'm' => words::memory(each.memory_bytes),
        'b' if each.gpus == 0 => "N/A".to_owned(),
        'b' => format!("gres/gpu:{}", each.gpus),
        'Q' | 'p' => job.priority.to_string(),
        'V' => words::instant(job.submitted_ms),
        'S' => words::instant(line.started_ms),
        'e' => words::instant(view.state.as_ref().map_or(0, |state| state.ended_ms)),
        'N' => line.nodes.clone(),
        'r' => reason.to_owned(),
        _ if !line.nodes.is_empty() => line.nodes.clone(),
        _ => format!("({reason})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(index: u64, state: State, node: &str) -> TaskView {
        TaskView { index, state: state.into(), node: node.to_owned(), ..TaskView::default() }
    }

    fn shown(lines: &[Line]) -> Vec<String> {
        lines
            .iter()
            .map(|line| format!("{} {} {} {}", line.id, line.state.unwrap().1, line.nodes, line.reason))
            .collect()
    }

    #[test]
    fn an_array_is_one_waiting_line_and_one_for_each_task_at_work() {
        let step = Step { array: Some(array::parse("0-9%2").unwrap()), ..Step::default() };
        let told = StepState { active: 2, pending: 4, started_ms: 5, ..StepState::default() };
        let mut tasks =
            vec![task(0, State::Completed, ""), task(1, State::Running, "n1"), task(2, State::Staging, "n2")];
        tasks.extend([3, 4, 5, 9].map(|index| task(index, State::Pending, "")));
        assert_eq!(
            shown(&lines("17", &step, &told, &tasks, false, false)),
            ["17_[3-5,9%2] PD  JobArrayTaskLimit", "17_1 R n1 ", "17_2 CF n2 "]
        );
        assert_eq!(lines("17", &step, &told, &tasks, false, true).len(), 6);
        let gang = Step { nodes: 2, tasks_per_node: 1, ..Step::default() };
        let tasks = [task(0, State::Running, "n1,n2")];
        assert_eq!(shown(&lines("lab-3", &gang, &told, &tasks, true, false)), ["lab-3 CG n[1-2] "]);
    }

    #[test]
    fn every_code_has_a_header_and_the_usual_layout_is_slurms() {
        for code in CODES.chars().filter(|code| *code != 'R') {
            assert_ne!(header(code), header('R'), "{code}");
        }
        let columns = Columns::read(FORMAT, CODES).unwrap();
        assert_eq!(
            columns.line(|code| header(code).to_owned()),
            "             JOBID PARTITION     NAME     USER ST       TIME  NODES NODELIST(REASON)"
        );
    }
}
