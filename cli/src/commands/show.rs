//! `drumline show`: one job, its steps, and the tasks of one of them.

use super::{Outcome, done};
use crate::{
    args::{Format, ShowArgs},
    client::Client,
    failure::Failure,
    limits,
    output::{self, Table, json, words},
};
use proto::{
    after, array, estimate, problem, units,
    v1::{GaveWay, JobRequest, JobSpec, JobView, ListTasksRequest, State, Step, StepProgress, TaskView},
};
use world::{NodeClock as _, real::SystemClock};

pub(super) async fn run(client: Client, args: ShowArgs) -> Outcome {
    let job = client.job(&args.job)?;
    let view = client.get_job(job.clone()).await?;
    match args.tasks {
        None => print_job(&view, args.format.format)?,
        Some(name) => {
            let step = step_index(&spec_of(&view), &name)?;
            let tasks = all_tasks(&client, &job, step).await?;
            print_tasks(&tasks, args.format.format)?;
        }
    }
    done()
}

/// The spec inside a view.
pub(crate) fn spec_of(view: &JobView) -> JobSpec {
    view.job.as_ref().and_then(|job| job.spec.clone()).unwrap_or_default()
}

/// The place of a step among its job's.
pub(crate) fn step_index(spec: &JobSpec, name: &str) -> Result<u32, Failure> {
    let found = spec.steps.iter().position(|step| step.name == name).ok_or_else(|| {
        let mut missing = problem::missing("step", name);
        let names: Vec<&str> = spec.steps.iter().map(|step| step.name.as_str()).collect();
        missing.remedy = format!("this job has: {}", names.join(", "));
        Failure::Refused(missing)
    })?;
    Ok(u32::try_from(found).expect("a job has few steps"))
}

async fn all_tasks(client: &Client, job: &JobRequest, step: u32) -> Result<Vec<TaskView>, Failure> {
    let mut tasks = Vec::new();
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

fn print_job(view: &JobView, format: Format) -> Result<(), Failure> {
    let job = view.job.clone().unwrap_or_default();
    let id = words::job_id(&job.tenant, job.number);
    match format {
        Format::Json => return output::json(&json::job_view(view)),
        Format::Name => return output::line(&id),
        Format::Table | Format::Wide => {}
    }
    let spec = spec_of(view);
    let state = view.state.clone().unwrap_or_default();
    let now_ms = SystemClock::new().wall_ms();
    let mut text =
        format!("job        {id}\nname       {}\nstate      {}", spec.name, words::state(state.state()));
    let why = words::cause(state.cause.as_ref());
    if !why.is_empty() {
        text.push_str(&format!(" ({why})"));
    }
    text.push_str(&format!("\nsubmitted  {} ago", words::age(job.submitted_ms, now_ms)));
    if !job.submitted_by.is_empty() {
        text.push_str(&format!(" by {}", job.submitted_by));
    }
    text.push_str(&format!("\nran        {}\n", words::ran(state.started_ms, state.ended_ms, now_ms)));
    if let Some(told) = &view.progress {
        text.push_str(&format!("progress   {}\n", words::percent(Some(told.percent))));
    }
    if crate::follow::is_ended(state.state()) {
        text.push_str(&format!("exit code  {}\n", crate::follow::exit_code(view)));
    }
    if spec.keep_ms > 0 {
        text.push_str(&format!("keep       {}\n", units::format_duration_ms(spec.keep_ms)));
    }
    if state.expired_ms > 0 {
        let (age, kept) =
            (words::age(state.expired_ms, now_ms), units::format_duration_ms(state.retained_ms));
        text.push_str(&format!("expired    {age} ago: outputs and logs were kept for {kept}\n"));
    }
    for on in &spec.after {
        text.push_str(&format!("after      {}\n", after::format(on, &job.tenant)));
    }
    for (key, value) in &spec.labels {
        text.push_str(&format!("label      {key}={value}\n"));
    }
    for (step, told) in spec.steps.iter().zip(view.progress.iter().flat_map(|told| &told.steps)) {
        text.push_str(&stragglers_text(step, told));
    }
    for (step, now) in spec.steps.iter().zip(&state.steps) {
        text.push_str(&gave_way_text(step, now.gave_way.as_ref(), now_ms));
    }
    text.push('\n');
    output::text(&text)?;
    steps_table(&spec, view, format == Format::Wide).print("no steps")
}

/// `preempted  main gave way 2 times, last 3m ago to lab-9`
fn gave_way_text(step: &Step, gave: Option<&GaveWay>, now_ms: u64) -> String {
    let Some(gave) = gave else { return String::new() };
    let times = if gave.times == 1 { "once".to_owned() } else { format!("{} times", gave.times) };
    let to = match gave.tenant.as_str() {
        "" => "work of another tenant".to_owned(),
        tenant => words::job_id(tenant, gave.job_number),
    };
    format!(
        "preempted  {} gave way {times}, last {} ago to {to}\n",
        step.name,
        words::age(gave.at_ms, now_ms)
    )
}

/// A line for each: `straggler  count[17] runs 3.2 times as long as …`.
fn stragglers_text(step: &Step, told: &StepProgress) -> String {
    let mut text = String::new();
    for slow in &told.slowest {
        let index = step.array.as_ref().map(|_| format!("[{}]", slow.index)).unwrap_or_default();
        text.push_str(&format!("straggler  {}{index} {}\n", step.name, slow.text));
    }
    let more = told.stragglers.saturating_sub(told.slowest.len() as u64);
    if more > 0 {
        text.push_str(&format!("straggler  {more} more of {}\n", step.name));
    }
    text
}

fn steps_table(spec: &JobSpec, view: &JobView, wide: bool) -> Table {
    let state = view.state.clone().unwrap_or_default();
    let now_ms = SystemClock::new().wall_ms();
    let mut headers = vec![
        "STEP", "STATE", "TASKS", "PENDING", "ACTIVE", "DONE", "FAILED", "RETRIES", "RAN", "PROGRESS",
        "CAUSE",
    ];
    if wide {
        headers.extend(["AFTER", "EACH", "SHAPE"]);
    }
    let mut table = Table::new(&headers);
    for (at, step) in spec.steps.iter().enumerate() {
        let now = state.steps.get(at).cloned().unwrap_or_default();
        let told = view.progress.as_ref().and_then(|told| told.steps.get(at));
        let mut cells = vec![
            step.name.clone(),
            words::state(now.state()).to_owned(),
            estimate::step_tasks(step).to_string(),
            now.pending.to_string(),
            now.active.to_string(),
            now.completed.to_string(),
            now.failed.to_string(),
            now.retries_spent.to_string(),
            words::ran(now.started_ms, now.ended_ms, now_ms),
            words::percent(told.and_then(|told| told.percent)),
            words::cause(now.cause.as_ref()),
        ];
        if wide {
            let mut shape = match &step.array {
                Some(spec) => format!("array {}", array::format(spec)),
                None if estimate::is_gang(step) => format!("gang {} x {}", step.nodes, step.tasks_per_node),
                None => String::new(),
            };
            if step.exclusive {
                shape = format!("{shape} exclusive").trim_start().to_owned();
            }
            for (name, count) in &step.licenses {
                shape = format!("{shape} {name}:{count}").trim_start().to_owned();
            }
            cells.extend([step.after.join(","), words::resources(&step.per_task.unwrap_or_default()), shape]);
        }
        table.row(cells);
    }
    table
}

fn print_tasks(tasks: &[TaskView], format: Format) -> Result<(), Failure> {
    match format {
        Format::Json => output::json(&tasks.iter().map(json::task).collect()),
        Format::Name => {
            output::text(&tasks.iter().map(|task| format!("{}\n", task.index)).collect::<String>())
        }
        Format::Table | Format::Wide => {
            let kept = tasks.iter().any(|task| task.checkpoint.is_some());
            let mut headers = vec!["TASK", "STATE", "ATTEMPTS", "NODE", "LAST"];
            let told = tasks.iter().any(|task| task.progress.is_some());
            headers.extend(kept.then_some("CHECKPOINT"));
            headers.extend(told.then_some("PROGRESS"));
            let staged = tasks.iter().any(|task| task.staging.is_some());
            headers.extend(staged.then_some("STAGING"));
            let slow = tasks.iter().any(|task| !task.straggler.is_empty());
            headers.extend(slow.then_some("PACE"));
            let mut table = Table::new(&headers);
            for task in tasks {
                let mut cells = vec![
                    task.index.to_string(),
                    words::state(task.state()).to_owned(),
                    task.attempts.to_string(),
                    task.node.clone(),
                    words::cause(task.last.as_ref()),
                ];
                cells.extend(kept.then(|| checkpoint_text(task)));
                cells.extend(told.then(|| progress_text(task)));
                cells.extend(staged.then(|| staging_text(task)));
                cells.extend(slow.then(|| pace_text(task)));
                table.row(cells);
            }
            table.print("no tasks")
        }
    }
}

/// `1200, 12MiB`: what the next attempt would go on from.
fn checkpoint_text(task: &TaskView) -> String {
    let Some(kept) = &task.checkpoint else { return String::new() };
    let bytes = units::format_memory_bytes(kept.size_bytes);
    if kept.label.is_empty() { bytes } else { format!("{}, {bytes}", kept.label) }
}

/// `42.5% epoch 3 of 7`: how far it has come, by its own word.
fn progress_text(task: &TaskView) -> String {
    let Some(told) = &task.progress else { return String::new() };
    format!("{} {}", words::percent(Some(told.percent)), told.text).trim_end().to_owned()
}

/// `1.2GiB of 4.0GiB, 110.3MiB/s`, and what it waits for where it does.
fn staging_text(task: &TaskView) -> String {
    let Some(told) = &task.staging else { return String::new() };
    let brief = units::brief_memory_bytes;
    let total = if told.total_bytes > 0 { format!(" of {}", brief(told.total_bytes)) } else { String::new() };
    let come = format!("{}{total}, {}/s", brief(told.bytes), brief(told.bytes_per_s));
    match told.waits_for.as_str() {
        "" => come,
        waits_for => format!("{come}; waits for {waits_for}"),
    }
}

/// `straggler: runs 3.2 times as long as the median of 40 that completed`.
fn pace_text(task: &TaskView) -> String {
    if task.straggler.is_empty() { String::new() } else { format!("straggler: {}", task.straggler) }
}

/// One line where a job did not end well: `default-17 FAILED: step count: …`.
pub(crate) fn note_end(view: &JobView) {
    let (job, state) = (view.job.clone().unwrap_or_default(), view.state.clone().unwrap_or_default());
    if matches!(state.state(), State::Failed | State::Cancelled) {
        let id = words::job_id(&job.tenant, job.number);
        output::note(&format!(
            "{id} {}: {}",
            words::state(state.state()),
            words::cause(state.cause.as_ref())
        ));
    }
}

/// One line for each failed task, up to a limit: `count[3] failed after 4
/// attempts: exit code 3 on n1`.
pub(crate) async fn failures(
    client: &Client,
    job: &JobRequest,
    view: &JobView,
) -> Result<Vec<String>, Failure> {
    let spec = spec_of(view);
    let state = view.state.clone().unwrap_or_default();
    let mut lines = Vec::new();
    for (at, now) in state.steps.iter().enumerate() {
        let Some(step) = spec.steps.get(at).filter(|_| now.failed > 0) else { continue };
        let mut left = now.failed;
        let mut from_task = 0;
        while left > 0 && lines.len() < limits::FAILURES_SHOWN_MAX {
            let request = ListTasksRequest {
                job: Some(job.clone()),
                step: u32::try_from(at).expect("a job has few steps"),
                limit: limits::TASKS_PAGE,
                from_task,
            };
            let reply = client.list_tasks(request).await?;
            let failed = reply.tasks.iter().filter(|task| task.state() == State::Failed);
            for task in failed.take(limits::FAILURES_SHOWN_MAX - lines.len()) {
                left -= 1;
                let name = if step.array.is_some() {
                    format!("{}[{}]", step.name, task.index)
                } else {
                    step.name.clone()
                };
                let attempts = if task.attempts == 1 {
                    "1 attempt".to_owned()
                } else {
                    format!("{} attempts", task.attempts)
                };
                lines.push(format!("{name} failed after {attempts}: {}", words::cause(task.last.as_ref())));
            }
            if reply.next_task <= from_task {
                break;
            }
            from_task = reply.next_task;
        }
    }
    let all: u64 = state.steps.iter().map(|step| step.failed).sum();
    if all > lines.len() as u64 && !lines.is_empty() {
        lines.push(format!("and {} more failed", all - lines.len() as u64));
    }
    Ok(lines)
}
