//! Lists: jobs newest first, and the tasks of one step.
//!
//! Tasks are kept as ranges in blocks; a window of them is expanded here.

use super::progress;
use crate::auth::Caller;
use crate::gate::Gate;
use crate::{limits, rows};
use controller::shell::{ProgressOf, StragglersOf, Told};
use controller::{TaskSaid, TaskStaged};
use prost::Message;
use proto::ids::JobId;
use proto::keys::{self, Parsed};
use proto::problem::{self, Problem};
use proto::v1::{
    BlockRow, CheckpointEntry, CheckpointRow, CheckpointView, GrantRow, JobRow, JobStateRow, JobSummary,
    ListJobsReply, ListJobsRequest, ListTasksReply, ListTasksRequest, ProgressView, State, Step, StepState,
    TaskView, TenantRow,
};
use proto::{array, checkpoints, estimate};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use store::RangeRequest;

/// A page's size: as asked, within its bounds.
fn page_size(asked: u32, usual: usize, most: usize) -> usize {
    match usize::try_from(asked).unwrap_or(most) {
        0 => usual,
        asked => asked.min(most),
    }
}

/// What a tenant's part of a list came to.
struct Found {
    jobs: Vec<JobSummary>,
    /// Everything from this number up has been looked at.
    down_to: u64,
    /// There may be more below.
    more: bool,
}

pub(super) async fn jobs(
    gate: &Gate,
    caller: &Caller,
    request: ListJobsRequest,
) -> Result<ListJobsReply, Problem> {
    let limit = page_size(request.limit, limits::JOBS_PER_PAGE, limits::JOBS_PER_PAGE_MAX);
    if !request.all_tenants {
        let tenant = caller.tenant(&request.tenant)?;
        gate.tenants.must_exist(&tenant).await?;
        let mut found = jobs_of(gate, &tenant, &request, limit, limits::JOBS_EXAMINED_MAX).await?;
        progress::tell(gate, &mut found.jobs).await;
        let next_before = if found.more { found.down_to } else { 0 };
        return Ok(ListJobsReply { jobs: found.jobs, next_before });
    }
    if !caller.sees_all() {
        return Err(problem::denied("all_tenants", true, "a tenant sees only its own jobs"));
    }
    let tenants: Vec<TenantRow> = rows::all_decoded(&*gate.store, keys::TENANTS.as_bytes()).await?;
    let examined_max = (limits::JOBS_EXAMINED_MAX / tenants.len().max(1)).max(limit);
    let mut found = Vec::new();
    for tenant in &tenants {
        found.push(jobs_of(gate, &tenant.name, &request, limit, examined_max).await?);
    }
    let mut reply = merge(found, limit);
    progress::tell(gate, &mut reply.jobs).await;
    Ok(reply)
}

/// One list of many tenants, by number downwards. The cursor is a number, so a
/// page holds all jobs of its last number.
fn merge(found: Vec<Found>, limit: usize) -> ListJobsReply {
    // Below this number some tenant has not been looked at.
    let down_to = found.iter().filter(|part| part.more).map(|part| part.down_to).max().unwrap_or(0);
    let mut jobs: Vec<JobSummary> = found.into_iter().flat_map(|part| part.jobs).collect();
    jobs.retain(|job| job.number >= down_to);
    jobs.sort_by(|a, b| b.number.cmp(&a.number).then_with(|| a.tenant.cmp(&b.tenant)));
    let mut next_before = down_to;
    if jobs.len() > limit {
        let last = jobs[limit - 1].number;
        if jobs.iter().any(|job| job.number < last) {
            jobs.retain(|job| job.number >= last);
            next_before = last;
        }
    }
    ListJobsReply { jobs, next_before }
}

async fn jobs_of(
    gate: &Gate,
    tenant: &str,
    request: &ListJobsRequest,
    limit: usize,
    examined_max: usize,
) -> Result<Found, Problem> {
    let prefix = keys::states_of(tenant);
    let mut to = match request.before {
        0 => keys::prefix_end(&prefix),
        before => keys::state(tenant, before),
    };
    let mut found = Found { jobs: Vec::new(), down_to: u64::MAX, more: true };
    let mut examined = 0;
    while found.jobs.len() < limit && examined < examined_max {
        let rows_max = (limit - found.jobs.len()).clamp(32, limits::ROWS_PER_READ);
        let range = RangeRequest { from: prefix.clone(), to, limit: rows_max, backwards: true };
        let page = rows::range(&*gate.store, range).await?;
        for row in &page.rows {
            examined += 1;
            let Some(Parsed::State { number, .. }) = keys::parse(&row.key) else { continue };
            found.down_to = number;
            let state: JobStateRow = rows::decode(row)?;
            if !request.states.is_empty() && !request.states.contains(&state.state) {
                continue;
            }
            let job = gate.job(&JobId::new(tenant, number)).await?;
            if matches_labels(&job, &request.labels) {
                found.jobs.push(summary(job, state));
            }
            if found.jobs.len() >= limit {
                break;
            }
        }
        // The last row looked at may not be the page's last, so `more` stays.
        let Some(last) = page.rows.last() else {
            found.more = false;
            break;
        };
        if !page.more && keys::state(tenant, found.down_to) == last.key {
            found.more = false;
            break;
        }
        to = keys::state(tenant, found.down_to);
    }
    Ok(found)
}

fn matches_labels(job: &JobRow, wanted: &BTreeMap<String, String>) -> bool {
    let labels = job.spec.as_ref().map(|spec| &spec.labels);
    wanted.iter().all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value))
}

fn summary(job: JobRow, state: JobStateRow) -> JobSummary {
    let spec = job.spec.unwrap_or_default();
    JobSummary {
        tenant: job.tenant,
        number: job.number,
        tasks: estimate::tasks(&spec),
        metered: Some(estimate::metered(&spec, &state)),
        name: spec.name,
        state: Some(state),
        submitted_ms: job.submitted_ms,
        priority: spec.priority,
        labels: spec.labels,
        progress: None,
        running_micros: 0,
        submitted_by: job.submitted_by,
    }
}

pub(super) async fn tasks(
    gate: &Gate,
    job: &JobId,
    request: &ListTasksRequest,
) -> Result<ListTasksReply, Problem> {
    let limit = page_size(request.limit, limits::TASKS_PER_PAGE, limits::TASKS_PER_PAGE_MAX);
    let state = gate.state(job).await?;
    let spec = gate.job(job).await?.spec.unwrap_or_default();
    let at = usize::try_from(request.step).unwrap_or(usize::MAX);
    let (Some(step), Some(step_state)) = (spec.steps.get(at), state.steps.get(at)) else {
        return Err(problem::missing("step", request.step));
    };
    let count = estimate::step_tasks(step);
    let from = request.from_task.min(count);
    let to = from.saturating_add(limit as u64).min(count);
    let mut views = Vec::new();
    let mut next = from;
    while next < to {
        let block = next / proto::limits::BLOCK_TASKS;
        let end = ((block + 1) * proto::limits::BLOCK_TASKS).min(to);
        let key = keys::block(&job.tenant, job.number, request.step, block);
        let row: BlockRow = rows::get(&*gate.store, key).await?.unwrap_or_default();
        views.extend(expand(step, step_state, row, next, end));
        next = end;
    }
    tell_of_live(gate, job, request.step, (from, to), &mut views).await;
    let mut tasks = place(gate, &job.tenant, views).await?;
    if step.checkpoint.is_some() {
        let ranks = if estimate::is_gang(step) { step.nodes.saturating_mul(step.tasks_per_node) } else { 1 };
        let kept = kept(gate, job, request.step, (from, to)).await?;
        for view in &mut tasks {
            view.checkpoint = checkpoint(&kept, view.task, ranks, step_state.reset_generation);
        }
    }
    Ok(ListTasksReply { tasks, next_task: if to < count { to } else { 0 } })
}

/// How far those of the tasks `[from, to)` that run have come, and how the inputs of those
/// in STAGING come, where that was told, and which run far longer than their like. The
/// controller may have begun another attempt already than the rows tell of: what is said of
/// that is not of this list.
async fn tell_of_live(gate: &Gate, job: &JobId, step: u32, (from, to): (u64, u64), views: &mut [Expanded]) {
    if !views.iter().any(|(view, _)| matches!(view.state(), State::Staging | State::Running)) {
        return;
    }
    let of = ProgressOf { tenant: job.tenant.clone(), number: job.number, step, tasks: from..to };
    let Told { mut said, mut staged } = gate.controller.progress(of).await;
    let steps = step..step.saturating_add(1);
    let of = StragglersOf { tenant: job.tenant.clone(), number: job.number, steps, tasks: from..to };
    let mut slow = BTreeMap::new();
    // Of the ranks of a gang the slowest, which comes first.
    for found in gate.controller.stragglers(of).await {
        slow.entry(found.task).or_insert(found);
    }
    for (view, (epoch, _)) in views {
        let is_told = |of: u64, attempt: u32| (of, attempt) == (*epoch, view.attempts);
        match view.state() {
            State::Running => {
                let told = said.remove(&view.task).filter(|told| is_told(told.epoch, told.attempt));
                let slow = slow.get(&view.task).filter(|slow| is_told(slow.epoch, slow.attempt));
                view.straggler = slow.map(ToString::to_string).unwrap_or_default();
                view.progress = told.map(|TaskSaid { basis_points, text, at_ms, .. }| ProgressView {
                    percent: f64::from(basis_points) / 100.0,
                    text,
                    at_ms,
                });
            }
            State::Staging => {
                let told = staged.remove(&view.task).filter(|told| is_told(told.epoch, told.attempt));
                view.staging = told.map(|TaskStaged { view, .. }| view);
            }
            _ => {}
        }
    }
}

/// The rows of checkpoints of the tasks `[from, to)`, by task and rank.
async fn kept(
    gate: &Gate,
    job: &JobId,
    step: u32,
    (from, to): (u64, u64),
) -> Result<BTreeMap<(u64, u32), CheckpointRow>, Problem> {
    let key = |task| keys::checkpoint(&job.tenant, job.number, step, task, 0);
    let mut next = key(from);
    let mut kept = BTreeMap::new();
    loop {
        let limit = limits::ROWS_PER_READ;
        let range = RangeRequest { from: next, to: key(to), limit, backwards: false };
        let page = rows::range(&*gate.store, range).await?;
        for row in &page.rows {
            if let Some(Parsed::Checkpoint { task, rank, .. }) = keys::parse(&row.key) {
                kept.insert((task, rank), rows::decode(row)?);
            }
        }
        match page.rows.last() {
            Some(last) if page.more => next = keys::after(&last.key),
            _ => return Ok(kept),
        }
    }
}

/// What a task's next attempt would go on from.
fn checkpoint(
    kept: &BTreeMap<(u64, u32), CheckpointRow>,
    task: u64,
    ranks: u32,
    reset_generation: u32,
) -> Option<CheckpointView> {
    let rows: Vec<&CheckpointRow> = (0..ranks).map_while(|rank| kept.get(&(task, rank))).collect();
    if rows.len() < ranks as usize {
        return None;
    }
    let newest = checkpoints::whole(&rows, reset_generation).pop()?;
    let same = |entry: &&CheckpointEntry| checkpoints::set_of(entry) == checkpoints::set_of(newest);
    let of_all = rows.iter().filter_map(|row| row.entries.iter().rfind(same));
    let size_bytes = of_all.flat_map(|entry| &entry.artifacts).map(|artifact| artifact.size_bytes).sum();
    Some(CheckpointView { label: newest.label.clone(), at_ms: newest.at_ms, size_bytes })
}

/// A task, and where it runs: the epoch of its grant (0: none), and which of
/// the grant's nodes.
type Expanded = (TaskView, (u64, u32));

/// The tasks `[from, to)` of one block.
fn expand(step: &Step, state: &StepState, block: BlockRow, from: u64, to: u64) -> Vec<Expanded> {
    let rest = match state.rest() {
        State::Unspecified => State::Pending,
        rest => rest,
    };
    let block = current(block, state);
    let index = |task| step.array.as_ref().map_or(Some(task), |array| array::index_of(array, task));
    let mut views: Vec<Expanded> = (from..to)
        .map(|task| {
            let index = index(task).unwrap_or(task);
            (TaskView { task, index, state: rest.into(), ..TaskView::default() }, (0, 0))
        })
        .collect();
    let mut set = |first: u64, last: u64, change: &dyn Fn(&mut Expanded)| {
        for task in first.max(from)..last.saturating_add(1).min(to) {
            let at = usize::try_from(task - from).expect("a window is small");
            change(&mut views[at]);
        }
    };
    for note in &block.notes {
        set(note.task, note.task, &|(view, _)| {
            view.attempts = note.attempts;
            view.not_before_ms = note.not_before_ms;
            view.last = note.last.clone();
        });
    }
    for (spans, ended) in [
        (&block.completed, State::Completed),
        (&block.failed, State::Failed),
        (&block.cancelled, State::Cancelled),
    ] {
        for span in spans {
            set(span.first, span.last, &|(view, _)| {
                view.state = ended.into();
                if ended == State::Completed {
                    view.attempts = view.attempts.max(1);
                }
            });
        }
    }
    for run in &block.active {
        let Some(span) = run.tasks else { continue };
        set(span.first, span.last, &|(view, at)| {
            view.state = run.state;
            view.attempts = view.attempts.max(run.attempt);
            view.not_before_ms = 0;
            *at = (run.epoch, run.node);
        });
    }
    views
}

/// The block as it reads after the retries that the user asked for since.
pub(super) fn current(mut block: BlockRow, state: &StepState) -> BlockRow {
    if block.generation < state.reset_generation {
        return BlockRow::default();
    }
    if block.generation < state.generation {
        block.failed.clear();
        block.cancelled.clear();
        block.notes.clear();
    }
    block
}

/// Names the nodes of running tasks, from the rows of their grants.
async fn place(gate: &Gate, tenant: &str, views: Vec<Expanded>) -> Result<Vec<TaskView>, Problem> {
    let mut grants: BTreeMap<u64, GrantRow> = BTreeMap::new();
    let mut placed = Vec::with_capacity(views.len());
    for (mut view, (epoch, node)) in views {
        if epoch != 0 {
            let grant = match grants.entry(epoch) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(place) => {
                    let row = rows::get(&*gate.store, keys::grant(tenant, epoch)).await?;
                    place.insert(row.unwrap_or_default())
                }
            };
            view.node = node_of(grant, node);
        }
        placed.push(view);
    }
    Ok(placed)
}

/// One of a grant's nodes; all of a gang's.
fn node_of(grant: &GrantRow, at: u32) -> String {
    if grant.gang {
        let names: Vec<&str> = grant.nodes.iter().map(|node| node.node.as_str()).collect();
        return names.join(",");
    }
    usize::try_from(at)
        .ok()
        .and_then(|at| grant.nodes.get(at))
        .map(|node| node.node.clone())
        .unwrap_or_default()
}

/// Encoded length of a list's entry, for replies that are bounded in bytes.
pub(super) fn entry_bytes(message: &impl Message) -> usize {
    message.encoded_len() + 8
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::v1::{ArraySpec, AttemptRun, Span, TaskNote};

    fn span(first: u64, last: u64) -> Span {
        Span { first, last }
    }

    fn array(text: &str) -> Step {
        Step { array: Some(proto::array::parse(text).unwrap()), ..Step::default() }
    }

    fn block() -> BlockRow {
        BlockRow {
            completed: vec![span(0, 1)],
            failed: vec![span(2, 2)],
            cancelled: vec![span(5, 6)],
            active: vec![AttemptRun {
                tasks: Some(span(3, 3)),
                attempt: 2,
                epoch: 9,
                state: State::Running.into(),
                since_ms: 1,
                node: 1,
            }],
            notes: vec![
                TaskNote { task: 2, attempts: 4, ..TaskNote::default() },
                TaskNote { task: 4, attempts: 1, not_before_ms: 77, ..TaskNote::default() },
            ],
            generation: 1,
            ranks: Vec::new(),
        }
    }

    fn shown(state: &StepState, from: u64, to: u64) -> Vec<String> {
        expand(&array("10-30:2"), state, block(), from, to)
            .into_iter()
            .map(|(view, (epoch, node))| {
                let state = view.state().as_str_name().trim_start_matches("STATE_").to_lowercase();
                let TaskView { task, index, attempts, not_before_ms, .. } = view;
                format!("{task} {index} {state} {attempts} {not_before_ms} {epoch}.{node}")
            })
            .collect()
    }

    #[test]
    fn a_window_of_a_block_is_expanded() {
        let state = StepState { generation: 1, ..StepState::default() };
        assert_eq!(
            shown(&state, 1, 7),
            [
                "1 12 completed 1 0 0.0",
                "2 14 failed 4 0 0.0",
                "3 16 running 2 0 9.1",
                "4 18 pending 1 77 0.0",
                "5 20 cancelled 0 0 0.0",
                "6 22 cancelled 0 0 0.0",
            ]
        );
        let cancelled = StepState { generation: 1, rest: State::Cancelled.into(), ..StepState::default() };
        assert_eq!(shown(&cancelled, 7, 8), ["7 24 cancelled 0 0 0.0"]);
    }

    #[test]
    fn an_older_generation_reads_without_its_failures() {
        let state = StepState { generation: 2, ..StepState::default() };
        assert_eq!(shown(&state, 1, 3), ["1 12 completed 1 0 0.0", "2 14 pending 0 0 0.0"]);
        let state = StepState { generation: 2, reset_generation: 2, ..StepState::default() };
        assert_eq!(shown(&state, 1, 2), ["1 12 pending 0 0 0.0"]);
    }

    #[test]
    fn a_step_without_an_array_has_task_0() {
        let views = expand(&Step::default(), &StepState::default(), BlockRow::default(), 0, 1);
        assert_eq!((views.len(), views[0].0.index, views[0].0.state()), (1, 0, State::Pending));
        assert_eq!(ArraySpec::default().items.len(), 0);
    }

    fn found(tenant: &str, numbers: &[u64], more: bool) -> Found {
        let jobs = numbers
            .iter()
            .map(|number| JobSummary { tenant: tenant.into(), number: *number, ..JobSummary::default() })
            .collect();
        Found { jobs, down_to: numbers.last().copied().unwrap_or(0), more }
    }

    #[test]
    fn many_tenants_make_one_list_whose_pages_meet() {
        let ids = |reply: &ListJobsReply| -> Vec<String> {
            reply.jobs.iter().map(|job| format!("{}-{}", job.tenant, job.number)).collect()
        };
        let reply = merge(vec![found("a", &[5, 3, 1], false), found("b", &[4, 3, 2], false)], 3);
        // Both of number 3, though the limit is 3: the cursor is a number.
        assert_eq!(
            (ids(&reply), reply.next_before),
            (["a-5", "b-4", "a-3", "b-3"].map(String::from).to_vec(), 3)
        );
        // One tenant was not looked at below 4: nor is the list.
        let reply = merge(vec![found("a", &[5, 3, 1], false), found("b", &[9, 4], true)], 10);
        assert_eq!((ids(&reply), reply.next_before), (["b-9", "a-5", "b-4"].map(String::from).to_vec(), 4));
        let reply = merge(vec![found("a", &[1], false)], 10);
        assert_eq!((reply.jobs.len(), reply.next_before), (1, 0));
    }
}
