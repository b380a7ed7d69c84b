//! One job: shown, cancelled, tried again.

use super::progress;
use crate::auth::Caller;
use crate::gate::Gate;
use proto::ids::JobId;
use proto::problem::Problem;
use proto::v1::{CancelReply, JobView, RetryReply};

pub(super) async fn get(gate: &Gate, job: &JobId) -> Result<JobView, Problem> {
    // The spec is never rewritten: read in either order, they fit.
    let state = gate.state(job).await?;
    let row = gate.job(job).await?;
    let progress = progress::of_job(gate, job, &row.spec.clone().unwrap_or_default(), &state).await;
    Ok(JobView { job: Some(row), state: Some(state), progress })
}

pub(super) async fn cancel(
    gate: &Gate,
    caller: &Caller,
    job: &JobId,
    reason: &str,
) -> Result<CancelReply, Problem> {
    let reason = reason.trim();
    if reason.len() > proto::limits::PROBLEM_TEXT_BYTES_MAX || reason.contains(['\n', '\r']) {
        return Err(Problem::new(
            "spec.reason",
            "reason",
            reason,
            "is not one short line",
            format!("use at most {} bytes", proto::limits::PROBLEM_TEXT_BYTES_MAX),
        ));
    }
    let text = if reason.is_empty() {
        format!("cancelled by {}", caller.name)
    } else {
        format!("cancelled by {}: {reason}", caller.name)
    };
    let state = gate.controller.cancel(&job.tenant, job.number, &text).await?;
    Ok(CancelReply { state: state.into() })
}

pub(super) async fn retry(gate: &Gate, job: &JobId, from_step: &str) -> Result<RetryReply, Problem> {
    let tasks = gate.controller.retry(&job.tenant, job.number, from_step).await?;
    Ok(RetryReply { tasks })
}
