//! Why tasks wait for single tasks of other jobs, from the rows of both.

use super::listing;
use crate::gate::{Gate, ended};
use crate::rows;
use proto::ids::JobId;
use proto::keys::{self, Parsed};
use proto::problem::Problem;
use proto::spans::Spans;
use proto::v1::{ArraySpec, BlockRow, Dependency, DependencyKind, JobRow, JobSpec, JobStateRow, State};
use proto::{after, array, estimate};

/// Tasks looked at for one that waits.
const LOOKED_AT_MAX: usize = 10_000;

/// A line for each single task that a job waits for.
pub(super) async fn single(gate: &Gate, job: &JobId, spec: &JobSpec) -> Result<Vec<String>, Problem> {
    let mut lines = Vec::new();
    for on in spec.after.iter().filter(|on| after::by_task(on)) {
        let Some(index) = on.index else { continue };
        let Some(other) = Other::of(gate, job, on).await? else { continue };
        let Some(task) = array::ordinal_of(&other.array, index) else { continue };
        let state = other.tasks.state(task);
        if !ended(state) {
            let how = super::why::how(on.kind());
            lines.push(format!("waits for task {index} of job {} to {how}; it is {}", other.id, name(state)));
        }
    }
    Ok(lines)
}

/// The step whose tasks wait one by one, with a line for each array they wait for.
pub(super) async fn each(
    gate: &Gate,
    job: &JobId,
    spec: &JobSpec,
    state: &JobStateRow,
) -> Result<Option<(usize, Vec<String>)>, Problem> {
    let each = |on: &&Dependency| on.kind() == DependencyKind::Each;
    let Some(at) = after::own_array(spec).ok().filter(|_| spec.after.iter().any(|on| each(&on))) else {
        return Ok(None);
    };
    let own = Tasks::of(gate, job, spec, state, at).await?;
    let at = usize::try_from(at).unwrap_or(usize::MAX);
    let indexes = spec.steps.get(at).and_then(|step| step.array.clone()).unwrap_or_default();
    let mut lines = Vec::new();
    for on in spec.after.iter().filter(each) {
        let Some(other) = Other::of(gate, job, on).await? else { continue };
        lines.extend(other.first_waiting(&spec.steps[at].name, &own, &indexes));
    }
    Ok(Some((at, lines)))
}

/// A live job's array.
struct Other {
    id: JobId,
    step: String,
    array: ArraySpec,
    tasks: Tasks,
}

/// How far the tasks of a step have got.
struct Tasks {
    count: u64,
    completed: Spans,
    /// Failed or cancelled.
    ill: Spans,
    active: Spans,
    /// Tried before.
    noted: Spans,
}

impl Tasks {
    async fn of(
        gate: &Gate,
        job: &JobId,
        spec: &JobSpec,
        state: &JobStateRow,
        step: u32,
    ) -> Result<Self, Problem> {
        let at = usize::try_from(step).unwrap_or(usize::MAX);
        let told = state.steps.get(at).cloned().unwrap_or_default();
        let mut tasks = Self {
            count: spec.steps.get(at).map_or(0, estimate::step_tasks),
            completed: Spans::new(),
            ill: Spans::new(),
            active: Spans::new(),
            noted: Spans::new(),
        };
        for row in rows::all(&*gate.store, &keys::blocks_of_job(&job.tenant, job.number)).await? {
            let of_step = matches!(keys::parse(&row.key), Some(Parsed::Block { step: of, .. }) if of == step);
            if of_step {
                tasks.add(&listing::current(rows::decode::<BlockRow>(&row)?, &told));
            }
        }
        if told.rest() == State::Cancelled {
            tasks.ill.insert_all(&tasks.unbegun());
        }
        Ok(tasks)
    }

    fn add(&mut self, row: &BlockRow) {
        self.completed.insert_all(&Spans::from_proto(&row.completed));
        self.ill.insert_all(&Spans::from_proto(&row.failed));
        self.ill.insert_all(&Spans::from_proto(&row.cancelled));
        for tasks in row.active.iter().filter_map(|run| run.tasks) {
            self.active.insert_range(tasks.first, tasks.last);
        }
        for note in &row.notes {
            self.noted.insert(note.task);
        }
    }

    fn unbegun(&self) -> Spans {
        let mut tasks = Spans::new();
        if self.count > 0 {
            tasks.insert_range(0, self.count - 1);
        }
        for begun in [&self.completed, &self.ill, &self.active, &self.noted] {
            tasks.remove_all(begun);
        }
        tasks
    }

    fn state(&self, task: u64) -> State {
        match task {
            task if self.completed.contains(task) => State::Completed,
            task if self.ill.contains(task) => State::Failed,
            task if self.active.contains(task) => State::Running,
            _ => State::Pending,
        }
    }
}

impl Other {
    /// `None` where it has ended: nothing waits for it any more.
    async fn of(gate: &Gate, job: &JobId, on: &Dependency) -> Result<Option<Self>, Problem> {
        let id = JobId::new(job.tenant.as_str(), on.job_number);
        let state: Option<JobStateRow> = rows::get(&*gate.store, keys::state(&id.tenant, id.number)).await?;
        let row: Option<JobRow> = rows::get(&*gate.store, keys::job(&id.tenant, id.number)).await?;
        let (Some(state), Some(spec)) = (state, row.and_then(|row| row.spec)) else { return Ok(None) };
        let Ok(at) = after::array_of(on, &spec, &id) else { return Ok(None) };
        if ended(state.state()) {
            return Ok(None);
        }
        let tasks = Tasks::of(gate, &id, &spec, &state, at).await?;
        let step = spec.steps.get(usize::try_from(at).unwrap_or(usize::MAX)).cloned().unwrap_or_default();
        Ok(Some(Self { id, step: step.name, array: step.array.unwrap_or_default(), tasks }))
    }

    /// What to say of the first task that waits for its like here, if one does.
    fn first_waiting(&self, own: &str, tasks: &Tasks, indexes: &ArraySpec) -> Option<String> {
        let waiting = tasks.unbegun();
        let first = waiting.iter().take(LOOKED_AT_MAX).find_map(|task| {
            let index = array::index_of(indexes, task)?;
            let state = self.tasks.state(array::ordinal_of(&self.array, index)?);
            (!ended(state)).then_some((index, state))
        });
        let (index, state) = first?;
        Some(format!(
            "step {own}: each task waits for the task of {} step {} with its index to complete; \
             {} of {} have, task {index} is {} there",
            self.id,
            self.step,
            self.tasks.completed.count(),
            self.tasks.count,
            name(state)
        ))
    }
}

fn name(state: State) -> &'static str {
    state.as_str_name().trim_start_matches("STATE_")
}
