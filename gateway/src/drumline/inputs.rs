//! What a submission says of its inputs, beside what is there.

use crate::gate::Gate;
use crate::trees::Sum;
use proto::limits::TREE_ENTRIES_MAX;
use proto::problem::Problem;
use proto::tree;
use proto::v1::{Input, JobSpec};

/// Refuses where uploaded bytes are named that are not there, all files of a directory among
/// them; fills in what was not told of them.
pub(super) async fn are_there(gate: &Gate, tenant: &str, spec: &mut JobSpec) -> Result<(), Problem> {
    let mut entries = 0;
    for (at, input) in spec.inputs.iter_mut().enumerate() {
        // An input from elsewhere is fetched by the nodes.
        if input.digest.is_empty() || !input.url.is_empty() {
            input.tree = None;
            input.manifest_bytes = 0;
            continue;
        }
        let within = format!("input[{at}]");
        entries += one(gate, tenant, input).await.map_err(|problem| {
            let field = format!("{within}.{}", if problem.field == "tree" { "tree" } else { "digest" });
            problem.of_field(field)
        })?;
        if entries > TREE_ENTRIES_MAX {
            return Err(tree::too_many(&input.name).within(&within));
        }
    }
    Ok(())
}

/// How many entries a directory has.
async fn one(gate: &Gate, tenant: &str, input: &mut Input) -> Result<usize, Problem> {
    let refuse = |reason: String| {
        let remedy =
            "upload it first, with `drumline upload` or CreateUpload; `drumline upload` prints its digest";
        Err(Problem::new("missing.input", "digest", &input.digest, reason, remedy))
    };
    let Some(there) = gate.objects.size(tenant, &input.digest).await else {
        return refuse(format!("names bytes that were not uploaded for tenant {tenant}"));
    };
    let sum = gate.trees.look(tenant, (&input.digest, there), input.tree).await?;
    let size_bytes = sum.map_or(there, |sum| sum.total_bytes);
    if ![0, size_bytes].contains(&input.size_bytes) {
        return refuse(format!("names {size_bytes} bytes, and {} are told as its size", input.size_bytes));
    }
    input.size_bytes = size_bytes;
    // As a file was told of before there were directories.
    input.tree = sum.map(|_| true);
    input.manifest_bytes = if sum.is_some() { there } else { 0 };
    Ok(sum.map_or(0, |Sum { entries, .. }| entries))
}
