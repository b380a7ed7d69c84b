//! Bytes in and out for tenants: upload URLs for inputs, the tree of outputs
//! with a signed URL for each file.

use super::listing::entry_bytes;
use crate::auth::Caller;
use crate::gate::{Gate, Links};
use crate::meter::Way;
use crate::urls::{Method, is_digest};
use crate::{limits, rows};
use proto::ids::JobId;
use proto::keys::{self, Parsed};
use proto::problem::Problem;
use proto::v1::{
    ArtifactLink, CreateUploadReply, CreateUploadRequest, ManifestRow, OutputsReply, Step, StepOutputs,
    TaskOutputs,
};
use proto::{array, estimate};
use store::RangeRequest;

pub(super) async fn create_upload(
    gate: &Gate,
    links: &Links,
    caller: &Caller,
    request: &CreateUploadRequest,
) -> Result<CreateUploadReply, Problem> {
    let tenant = caller.tenant(&request.tenant)?;
    gate.tenants.must_exist(&tenant).await?;
    let CreateUploadRequest { digest, size_bytes, .. } = request;
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
    gate.meter.guard(&tenant, Way::In, *size_bytes).await?;
    gate.meter.guard(&tenant, Way::Kept, *size_bytes).await?;
    let url = links.signed(Method::Put, &tenant, digest, *size_bytes);
    Ok(CreateUploadReply { url })
}

/// A reply under way, with its size so far.
struct Tree<'a> {
    job: &'a JobId,
    links: &'a Links,
    steps: Vec<StepOutputs>,
    artifacts: usize,
    bytes: usize,
}

pub(super) async fn outputs(gate: &Gate, links: &Links, job: &JobId) -> Result<OutputsReply, Problem> {
    gate.state(job).await?;
    let spec = gate.job(job).await?.spec.unwrap_or_default();
    let steps = spec
        .steps
        .iter()
        .map(|step| StepOutputs {
            step: step.name.clone(),
            indexed: estimate::is_indexed(step),
            tasks: Vec::new(),
        })
        .collect();
    let mut tree = Tree { job, links, steps, artifacts: 0, bytes: 0 };
    let prefix = keys::manifests_of_job(&job.tenant, job.number);
    let to = keys::prefix_end(&prefix);
    let mut from = prefix;
    loop {
        let range = RangeRequest { from, to: to.clone(), limit: limits::ROWS_PER_READ, backwards: false };
        let page = rows::range(&*gate.store, range).await?;
        for row in &page.rows {
            let Some(Parsed::Manifest { step, .. }) = keys::parse(&row.key) else { continue };
            let at = usize::try_from(step).unwrap_or(usize::MAX);
            if let Some(spec) = spec.steps.get(at) {
                tree.take(at, spec, rows::decode(row)?)?;
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

impl Tree<'_> {
    fn take(&mut self, at: usize, step: &Step, manifest: ManifestRow) -> Result<(), Problem> {
        if manifest.artifacts.is_empty() {
            return Ok(());
        }
        let tenant = &self.job.tenant;
        let index = index_of(step, &manifest);
        let artifacts: Vec<ArtifactLink> = manifest
            .artifacts
            .into_iter()
            .map(|artifact| {
                let url = self.links.signed(Method::Get, tenant, &artifact.digest, artifact.size_bytes);
                ArtifactLink { artifact: Some(artifact), url }
            })
            .collect();
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

/// The number in a path: the user's index of an array, the rank of a gang.
fn index_of(step: &Step, manifest: &ManifestRow) -> u64 {
    match &step.array {
        Some(array) => array::index_of(array, manifest.task).unwrap_or(manifest.task),
        None => u64::from(manifest.rank),
    }
}
