//! Inputs on their way in: digested here, sent where the server says, named by
//! digest in the spec. Bytes that are there already are not sent again.

use crate::{
    client::Client,
    failure::Failure,
    files::{self, LocalFile},
    limits,
};
use proto::{
    problem::Problem,
    units,
    v1::{CreateUploadRequest, JobSpec},
};
use std::path::Path;
use world::{
    Transfer as _,
    real::{HttpTransfer, TransferLimits},
    task, time,
    transfer::{QUOTA_STATUS, TransferError},
};

/// Finds and digests every input that is a path, so that a missing file is told
/// before anything is sent.
pub async fn digest_inputs(spec: &mut JobSpec) -> Result<Vec<(usize, LocalFile)>, Failure> {
    let mut files = Vec::new();
    for (at, input) in spec.inputs.iter_mut().enumerate() {
        if input.path.is_empty() {
            continue;
        }
        let field = format!("input[{at}].path");
        let file = files::find(&field, Path::new(&input.path))?;
        let found = file.clone();
        let digested = task::blocking(move || files::digest(&found))
            .await
            .map_err(|error| Failure::broken(&field, &input.path, error.to_string(), "make it readable"))?;
        if digested.size_bytes > proto::limits::INPUT_BYTES_MAX {
            return Err(Failure::Refused(Problem::new(
                "spec.size",
                field,
                units::brief_memory_bytes(digested.size_bytes),
                "is too large an input",
                format!("give at most {}", units::format_memory_bytes(proto::limits::INPUT_BYTES_MAX)),
            )));
        }
        input.digest = digested.digest;
        input.size_bytes = digested.size_bytes;
        input.path.clear();
        files.push((at, file));
    }
    Ok(files)
}

/// Sends what [`digest_inputs`] found.
pub async fn send_inputs(
    client: &Client,
    spec: &JobSpec,
    files: Vec<(usize, LocalFile)>,
) -> Result<(), Failure> {
    if files.is_empty() {
        return Ok(());
    }
    let transfer = HttpTransfer::new(TransferLimits::default());
    for (at, file) in files {
        let input = &spec.inputs[at];
        let mut tries = 0;
        loop {
            let reply = client
                .create_upload(CreateUploadRequest {
                    tenant: client.tenant.clone(),
                    digest: input.digest.clone(),
                    size_bytes: input.size_bytes,
                })
                .await?;
            if reply.url.is_empty() {
                break;
            }
            tries += 1;
            match transfer.put(&reply.url, file.disk.clone(), &file.path).await {
                Ok(()) => break,
                Err(error) if tries < limits::TRANSFER_TRIES && is_worth_a_try(&error) => {
                    time::sleep(limits::RECONNECT_PAUSE * tries).await;
                }
                Err(error) => {
                    let field = format!("input {}", input.name);
                    return Err(transfer_failure(&field, &file.path, &error));
                }
            }
        }
    }
    Ok(())
}

/// Whether the same transfer may go well a moment later.
pub fn is_worth_a_try(error: &TransferError) -> bool {
    matches!(error, TransferError::Network(_) | TransferError::Server { .. })
}

/// True where the tenant's quota is used up.
pub fn is_past_quota(error: &TransferError) -> bool {
    matches!(error, TransferError::Refused { status: QUOTA_STATUS, .. })
}

/// What a transfer's end means to the shell.
pub fn transfer_failure(field: &str, value: &str, error: &TransferError) -> Failure {
    let problem = |code: &str, remedy: &str| Problem::new(code, field, value, error.to_string(), remedy);
    match error {
        TransferError::Network(_) => {
            Failure::Unreachable(problem("unavailable.transfer", "try again in a moment"))
        }
        TransferError::Server { .. } => {
            Failure::Unreachable(problem("unavailable.objects", "look at the server's disk"))
        }
        TransferError::Refused { reason, .. } if is_past_quota(error) => {
            // The server tells the dimension first; the words behind name it too.
            let reason = reason.split_once(": ").map_or(reason.as_str(), |(_, reason)| reason);
            let (reason, remedy) = reason.split_once("; ").unwrap_or((reason, "look at `drumline quota`"));
            Failure::Refused(Problem::new("quota.exceeded", field, value, reason, remedy))
        }
        TransferError::Refused { .. } => {
            Failure::Refused(problem("denied.transfer", "try again; if it stays, see the server's log"))
        }
        TransferError::Digest { .. } => {
            Failure::Broken(problem("local.digest", "did the file change meanwhile? try again"))
        }
        TransferError::Disk(_) => {
            Failure::Broken(problem("local.disk", "look at the disk's space and rights"))
        }
    }
}
