//! Submissions: everything that can be known is checked here, then the
//! controller decides; nothing is half accepted.
//!
//! `SubmitMany` is the fast path. Its reading side checks and hands over, in
//! order, without waiting for any sync; its answering side waits for each in
//! the same order. Between the two lie at most
//! [`limits::SUBMISSIONS_IN_FLIGHT`]; above that reading pauses.

use super::inputs;
use crate::auth::Caller;
use crate::gate::{Gate, Replies, boxed};
use crate::{limits, rows};
use futures_util::stream::unfold;
use proto::problem::Problem;
use proto::v1::read_job_file_request::Text;
use proto::v1::{
    JobSpec, ReadJobFileReply, ReadJobFileRequest, SubmitOutcome, SubmitReply, SubmitRequest, TenantRow,
    submit_outcome::Outcome,
};
use proto::{jobfile, keys, retention};
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use world::grpc::tonic::Streaming;
use world::sync::mpsc;
use world::task::spawn;

/// A submission past every check of this door.
struct Checked {
    tenant: String,
    spec: JobSpec,
    key: String,
    dry_run: bool,
    /// Its inputs are there.
    using: Arc<()>,
}

type Answer = Pin<Box<dyn Future<Output = Result<SubmitReply, Problem>> + Send>>;

/// What the answering side is told.
enum Pending {
    Refused(Problem),
    Submitted(Answer),
}

pub(super) async fn one(
    gate: &Gate,
    caller: &Caller,
    request: SubmitRequest,
) -> Result<SubmitReply, Problem> {
    hand_over(gate, caller, request).await?.await
}

pub(super) fn many(
    gate: &Arc<Gate>,
    caller: Caller,
    requests: Streaming<SubmitRequest>,
) -> Result<Replies<SubmitOutcome>, Problem> {
    let place = gate.streams.open(&caller)?;
    let (pending, waiting) = mpsc::channel(limits::SUBMISSIONS_IN_FLIGHT);
    let outcomes = boxed(unfold(waiting, |mut waiting| async move {
        let outcome = match waiting.recv().await? {
            Pending::Refused(problem) => Err(problem),
            Pending::Submitted(answer) => answer.await,
        };
        let outcome = match outcome {
            Ok(reply) => Outcome::Accepted(reply),
            Err(problem) => Outcome::Refused(problem),
        };
        Some((Ok(SubmitOutcome { outcome: Some(outcome) }), waiting))
    }));
    let outcomes = gate.while_known(&caller, outcomes);
    let gate = Arc::clone(gate);
    spawn(async move {
        let _place = place;
        take(&gate, &caller, requests, pending).await;
    });
    Ok(outcomes)
}

/// Reads until the caller is done or gone.
async fn take(
    gate: &Gate,
    caller: &Caller,
    mut requests: Streaming<SubmitRequest>,
    pending: mpsc::Sender<Pending>,
) {
    loop {
        // First a place, so that nothing is read that could not be kept.
        let Ok(place) = pending.reserve().await else { return };
        let message = world::select! { biased;
            // Nobody is answered any more: the caller is gone, or its token is.
            () = pending.closed() => return,
            message = requests.message() => message,
        };
        let request = match message {
            Ok(Some(request)) => request,
            // A broken stream: what was handed over still happens, and the
            // caller can ask again with its idempotency keys.
            Ok(None) | Err(_) => return,
        };
        place.send(match hand_over(gate, caller, request).await {
            Ok(answer) => Pending::Submitted(answer),
            Err(problem) => Pending::Refused(problem),
        });
    }
}

async fn hand_over(gate: &Gate, caller: &Caller, request: SubmitRequest) -> Result<Answer, Problem> {
    let Checked { tenant, spec, key, dry_run, using } = check(gate, caller, request).await?;
    let answer = gate.controller.submit_later(&tenant, &caller.name, spec, &key, dry_run, using).await?;
    Ok(Box::pin(answer))
}

/// Reads a job file for a client, whose own files its paths are.
pub(super) fn read(request: ReadJobFileRequest) -> Result<ReadJobFileReply, Problem> {
    let base = Path::new("");
    let spec = match request.text {
        Some(Text::Toml(text)) => jobfile::parse(&text, base)?,
        Some(Text::Json(text)) => jobfile::from_json(&text, base)?,
        None => {
            return Err(Problem::new(
                "spec.missing",
                "text",
                "",
                "no job file was sent",
                "send toml or json",
            ));
        }
    };
    Ok(ReadJobFileReply { spec: Some(spec) })
}

async fn check(gate: &Gate, caller: &Caller, request: SubmitRequest) -> Result<Checked, Problem> {
    let SubmitRequest { tenant, spec, idempotency_key, dry_run } = request;
    let tenant = caller.tenant(&tenant)?;
    gate.tenants.must_exist(&tenant).await?;
    let Some(mut spec) = spec else {
        return Err(Problem::new("spec.missing", "spec", "", "nothing to run was sent", "send a spec"));
    };
    proto::validate::idempotency_key(&idempotency_key)?;
    proto::validate::normalize(&mut spec);
    proto::validate::spec(&spec)?;
    if spec.keep_ms > 0 {
        let row: Option<TenantRow> = rows::get(&*gate.store, keys::tenant(&tenant)).await?;
        retention::check_own(row.unwrap_or_default().retention_ms, spec.keep_ms)?;
    }
    let using = gate.objects.using();
    inputs::are_there(gate, &tenant, &mut spec).await?;
    gate.planner.feasible(&tenant, &spec)?;
    Ok(Checked { tenant, spec, key: idempotency_key, dry_run, using })
}
