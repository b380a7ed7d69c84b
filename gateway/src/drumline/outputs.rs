//! Bytes in and out for tenants: upload URLs for inputs, the tree of outputs
//! with a signed URL for each file.
//!
//! What must hold: outputs are told of tasks that have completed and that no retry has
//! undone since, of each task all; never of a gang that is still at it. The rows are not
//! read at one instant, so the order of reading is fixed: the job's state, then of each
//! block what completed, then the manifests, then the state again. What a block says
//! completed has its manifests by then, and only a retry, or its expiry, could take it back;
//! that shows in the state, and then all is read again.

use super::listing::{self, entry_bytes};
use crate::auth::Caller;
use crate::gate::{Gate, Links};
use crate::meter::Way;
use crate::urls::{Method, is_digest};
use crate::{limits, rows};
use bytes::Bytes;
use proto::ids::JobId;
use proto::keys::{self, Parsed};
use proto::problem::Problem;
use proto::spans::Spans;
use proto::v1::{
    Artifact, ArtifactLink, BlockRow, CreateUploadReply, CreateUploadRequest, JobSpec, JobStateRow,
    ManifestRow, OutputsReply, Step, StepOutputs, StepState, TaskOutputs,
};
use proto::{array, estimate, manifests, problem, retention};
use std::collections::BTreeMap;
use store::{RangeRequest, Row};

pub(super) async fn create_upload(
    gate: &Gate,
    links: &Links,
    caller: &Caller,
    request: &CreateUploadRequest,
) -> Result<CreateUploadReply, Problem> {
    let tenant = caller.tenant(&request.tenant)?;
    gate.tenants.must_exist(&tenant).await?;
    let CreateUploadRequest { digest, size_bytes, beside_bytes, .. } = request;
    if !is_digest(digest) {
        return Err(Problem::new(
            "spec.digest",
            "digest",
            digest,
            "is not a SHA-256",
            "use 64 lower-case hexadecimal digits",
        ));
    }
    if *size_bytes > limits::OBJECT_BYTES_MAX {
        return Err(Problem::new(
            "spec.size",
            "size_bytes",
            size_bytes,
            format!("an object may have {} bytes", limits::OBJECT_BYTES_MAX),
            "split it",
        ));
    }
    let there = gate.objects.has(&tenant, digest, *size_bytes).await;
    if there {
        return Ok(CreateUploadReply::default());
    }
    // What came before it broke off was paid, and does not come again.
    let missing = size_bytes.saturating_sub(gate.objects.arrived_bytes(&tenant, digest));
    gate.meter.guard(&tenant, Way::In, missing.saturating_add(*beside_bytes)).await?;
    gate.meter.guard(&tenant, Way::Kept, size_bytes.saturating_add(*beside_bytes)).await?;
    let url = links.signed(Method::Put, &tenant, digest, *size_bytes);
    Ok(CreateUploadReply { url })
}

/// A reply under way, with its size so far.
struct Tree<'a> {
    job: &'a JobId,
    /// Of all files this one is wanted.
    only: Option<&'a str>,
    links: &'a Links,
    steps: Vec<StepOutputs>,
    artifacts: usize,
    bytes: usize,
}

pub(super) async fn outputs(gate: &Gate, links: &Links, job: &JobId) -> Result<OutputsReply, Problem> {
    told(gate, links, job, None).await
}

/// The link to the one file that lies at `path` in the tree that `drumline outputs ID
/// get` lays.
pub(super) async fn link(gate: &Gate, links: &Links, job: &JobId, path: &str) -> Result<String, Problem> {
    let reply = told(gate, links, job, Some(path)).await?;
    let mut found = reply.steps.into_iter().flat_map(|step| step.tasks).flat_map(|task| task.artifacts);
    found.next().map(|artifact| artifact.url).ok_or_else(|| problem::missing("output", path))
}

async fn told(gate: &Gate, links: &Links, job: &JobId, only: Option<&str>) -> Result<OutputsReply, Problem> {
    let mut state = gate.state(job).await?;
    let spec = gate.job(job).await?.spec.unwrap_or_default();
    for _ in 0..limits::OUTPUTS_READS_MAX {
        retention::kept(job, &state)?;
        let told = read(gate, links, (job, only), &spec, &state).await;
        let now = gate.state(job).await?;
        if !moved_on(&state, &now) {
            return told;
        }
        state = now;
    }
    Err(problem::unavailable(
        "outputs",
        "the job is tried again all the time; its outputs do not stand still",
    ))
}

/// Whether tasks may have gone back since, or what they gave expired: no other way leads
/// out of COMPLETED.
fn moved_on(before: &JobStateRow, now: &JobStateRow) -> bool {
    let generations =
        |state: &JobStateRow| state.steps.iter().map(|step| step.generation).collect::<Vec<_>>();
    (before.generation, before.expired_ms, generations(before))
        != (now.generation, now.expired_ms, generations(now))
}

/// Whether a reader is shown a manifest: all that its task gave is there, and counts.
fn is_shown(manifest: &ManifestRow, step: &StepState, completed: &Spans) -> bool {
    completed.contains(manifest.task) && manifests::stands(manifest, step)
}

/// What completed, by step and block.
type Completed = BTreeMap<(u32, u64), Spans>;

async fn read(
    gate: &Gate,
    links: &Links,
    (job, only): (&JobId, Option<&str>),
    spec: &JobSpec,
    state: &JobStateRow,
) -> Result<OutputsReply, Problem> {
    let steps = spec
        .steps
        .iter()
        .map(|step| StepOutputs {
            step: step.name.clone(),
            indexed: estimate::is_indexed(step),
            tasks: Vec::new(),
        })
        .collect();
    let mut tree = Tree { job, only, links, steps, artifacts: 0, bytes: 0 };
    let mut completed = Completed::new();
    let prefix = manifests_of(job, only, spec);
    let to = keys::prefix_end(&prefix);
    let mut from = prefix;
    loop {
        let range = RangeRequest {
            from: from.clone(),
            to: to.clone(),
            limit: limits::ROWS_PER_READ,
            backwards: false,
        };
        let page = rows::range(&*gate.store, range).await?;
        if look_up(gate, job, state, &page.rows, &mut completed).await? {
            // These manifests are older than what was read of their blocks.
            continue;
        }
        for row in &page.rows {
            let Some((step, block)) = block_of(row) else { continue };
            let at = usize::try_from(step).unwrap_or(usize::MAX);
            let (Some(spec), Some(told)) = (spec.steps.get(at), state.steps.get(at)) else { continue };
            let manifest: ManifestRow = rows::decode(row)?;
            if completed.get(&(step, block)).is_some_and(|tasks| is_shown(&manifest, told, tasks)) {
                tree.take(at, spec, manifest)?;
            } else {
                world::mark!("gateway.outputs.of_no_completed_task");
            }
        }
        match page.rows.last() {
            Some(last) if page.more => from = keys::after(&last.key),
            _ => break,
        }
    }
    // Steps without outputs are no directories.
    tree.steps.retain(|step| !step.tasks.is_empty());
    Ok(OutputsReply { steps: tree.steps })
}

/// The prefix of all manifests that may name what is wanted.
fn manifests_of(job: &JobId, only: Option<&str>, spec: &JobSpec) -> Bytes {
    let step = only.and_then(|path| path.split('/').next());
    let at = step.and_then(|name| spec.steps.iter().position(|step| step.name == name));
    match at.and_then(|at| u32::try_from(at).ok()) {
        Some(at) => keys::manifests_of_step(&job.tenant, job.number, at),
        None => keys::manifests_of_job(&job.tenant, job.number),
    }
}

/// Reads the blocks of these manifests' tasks that were not read yet; true where there
/// were any.
async fn look_up(
    gate: &Gate,
    job: &JobId,
    state: &JobStateRow,
    manifests: &[Row],
    completed: &mut Completed,
) -> Result<bool, Problem> {
    let mut any = false;
    for (step, block) in manifests.iter().filter_map(block_of) {
        if completed.contains_key(&(step, block)) {
            continue;
        }
        any = true;
        let key = keys::block(&job.tenant, job.number, step, block);
        let row: BlockRow = rows::get(&*gate.store, key).await?.unwrap_or_default();
        let told = state.steps.get(usize::try_from(step).unwrap_or(usize::MAX));
        let row = told.map(|told| listing::current(row, told)).unwrap_or_default();
        completed.insert((step, block), Spans::from_proto(&row.completed));
    }
    Ok(any)
}

/// The step and block that the task of a manifest is in.
fn block_of(row: &Row) -> Option<(u32, u64)> {
    match keys::parse(&row.key) {
        Some(Parsed::Manifest { step, task, .. }) => Some((step, task / proto::limits::BLOCK_TASKS)),
        _ => None,
    }
}

impl Tree<'_> {
    fn take(&mut self, at: usize, step: &Step, manifest: ManifestRow) -> Result<(), Problem> {
        if manifest.artifacts.is_empty() {
            return Ok(());
        }
        let tenant = &self.job.tenant;
        let index = index_of(step, &manifest);
        let indexed = self.steps[at].indexed;
        let is_wanted = |artifact: &Artifact| {
            self.only.is_none_or(|path| path == place(&step.name, indexed, index, &artifact.path))
        };
        let artifacts: Vec<ArtifactLink> = manifest
            .artifacts
            .into_iter()
            .filter(is_wanted)
            .map(|artifact| {
                let url = self.links.signed(Method::Get, tenant, &artifact.digest, artifact.size_bytes);
                ArtifactLink { artifact: Some(artifact), url }
            })
            .collect();
        if artifacts.is_empty() {
            return Ok(());
        }
        self.artifacts += artifacts.len();
        let task = TaskOutputs { index, artifacts };
        self.bytes += entry_bytes(&task);
        if self.artifacts > limits::ARTIFACTS_MAX || self.bytes > limits::REPLY_BYTES_MAX {
            return Err(Problem::new(
                "limit.outputs",
                "job",
                self.job,
                format!("has more output files than the {} one answer may name", limits::ARTIFACTS_MAX),
                "gather them in a last step, for example into one archive",
            ));
        }
        self.steps[at].tasks.push(task);
        Ok(())
    }
}

/// Where a file lies among a job's outputs.
fn place(step: &str, indexed: bool, index: u64, path: &str) -> String {
    if indexed { format!("{step}/{index}/{path}") } else { format!("{step}/{path}") }
}

/// The number in a path: the user's index of an array, the rank of a gang.
fn index_of(step: &Step, manifest: &ManifestRow) -> u64 {
    match &step.array {
        Some(array) => array::index_of(array, manifest.task).unwrap_or(manifest.task),
        None => u64::from(manifest.rank),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(generation: u32, reset_generation: u32) -> StepState {
        StepState { generation, reset_generation, ..StepState::default() }
    }

    #[test]
    fn only_what_a_completed_task_gave_in_a_try_that_counts_is_shown() {
        let completed: Spans = [(0, 0), (2, 5)].into_iter().collect();
        let shown = |task, generation, step: &StepState| {
            is_shown(&ManifestRow { task, generation, ..ManifestRow::default() }, step, &completed)
        };
        assert!(shown(0, Some(0), &step(0, 0)) && shown(5, Some(0), &step(0, 0)));
        assert!(!shown(1, Some(0), &step(0, 0)), "its attempt is still at it, or its job was cancelled");
        assert!(shown(2, Some(0), &step(1, 0)), "the retry kept it");
        assert!(!shown(2, Some(0), &step(1, 1)), "the step began anew");
        assert!(shown(2, None, &step(1, 1)), "a row of an earlier version");
        assert!(!shown(1, None, &step(0, 0)));
    }

    #[test]
    fn a_block_from_before_the_step_began_anew_says_nothing() {
        let block = || BlockRow {
            completed: [(0, 3)].into_iter().collect::<Spans>().to_proto(),
            ..BlockRow::default()
        };
        let completed = |step| Spans::from_proto(&listing::current(block(), &step).completed).count();
        assert_eq!(completed(step(0, 0)), 4);
        assert_eq!(completed(step(1, 0)), 4);
        assert_eq!(completed(step(1, 1)), 0);
    }

    #[test]
    fn a_retry_in_between_is_seen_and_progress_is_none() {
        let state = |generation, steps: &[u32]| JobStateRow {
            generation,
            steps: steps.iter().map(|generation| step(*generation, 0)).collect(),
            ..JobStateRow::default()
        };
        let mut further = state(1, &[0, 1]);
        further.steps[1].completed = 7;
        assert!(!moved_on(&state(1, &[0, 1]), &further));
        assert!(moved_on(&state(1, &[0, 1]), &state(2, &[0, 2])));
        assert!(moved_on(&state(1, &[0, 1]), &state(1, &[1, 1])));
        let expired = JobStateRow { expired_ms: 1, ..state(1, &[0, 1]) };
        assert!(moved_on(&state(1, &[0, 1]), &expired));
    }
}
