//! The service of agents: they register, keep one session, ship logs and ask
//! for leave to move objects.
//!
//! What an agent says is believed only in its newest session, and only of
//! attempts that are still its own; the controller judges the latter.

use crate::auth::Right;
use crate::gate::{Gate, Links, Replies, answer, boxed};
use crate::limits;
use crate::shipments;
use crate::urls::{Method, Mover, is_digest};
use futures_util::stream::unfold;
use proto::checkpoints;
use proto::ids::{NodeName, PoolName, TenantName};
use proto::problem::{self, Problem};
use proto::v1::agents_server::Agents;
use proto::v1::{
    AgentFrame, AttemptRef, Hello, LogReceipt, LogShipment, RegisterReply, RegisterRequest, ServerFrame,
    SignTransfersReply, SignTransfersRequest, TransferNeed, agent_frame,
};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use world::grpc::tonic::{self, Request, Response, Status, Streaming};
use world::task::spawn;
use world::time;

/// See the module.
pub(crate) struct AgentsDoor(pub Arc<Gate>);

#[tonic::async_trait]
impl Agents for AgentsDoor {
    async fn register(&self, request: Request<RegisterRequest>) -> Result<Response<RegisterReply>, Status> {
        answer(async {
            self.0.caller(request.metadata(), Right::RunTasks).await?;
            let request = request.into_inner();
            check_node(&request)?;
            self.0.controller.register(request).await
        })
        .await
    }

    type SessionStream = Replies<ServerFrame>;

    async fn session(
        &self,
        request: Request<Streaming<AgentFrame>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        answer(async {
            let caller = self.0.caller(request.metadata(), Right::RunTasks).await?;
            session(&self.0, caller.token, request.into_inner()).await
        })
        .await
    }

    type ShipLogsStream = Replies<LogReceipt>;

    async fn ship_logs(
        &self,
        request: Request<Streaming<LogShipment>>,
    ) -> Result<Response<Self::ShipLogsStream>, Status> {
        answer(async {
            let caller = self.0.caller(request.metadata(), Right::RunTasks).await?;
            Ok(shipments::ship_logs(&self.0, caller.token, request.into_inner()))
        })
        .await
    }

    async fn sign_transfers(
        &self,
        request: Request<SignTransfersRequest>,
    ) -> Result<Response<SignTransfersReply>, Status> {
        answer(async {
            self.0.caller(request.metadata(), Right::RunTasks).await?;
            let base = self.0.links(&request, Mover::Node);
            let request = request.into_inner();
            self.0.current(&request.node, request.session)?;
            let attempt = request.attempt.as_ref().ok_or_else(no_attempt)?;
            TenantName::parse(&attempt.tenant)?;
            if request.needs.len() > limits::TRANSFER_NEEDS_MAX {
                return Err(Problem::new(
                    "limit.transfers",
                    "needs",
                    request.needs.len(),
                    format!("at most {} are signed at once", limits::TRANSFER_NEEDS_MAX),
                    "ask in parts",
                ));
            }
            let mut urls = Vec::with_capacity(request.needs.len());
            let owned = !request.needs.iter().any(|need| need.put) || self.0.controller.owns(attempt).await;
            for need in &request.needs {
                let method = leave(&self.0, attempt, need, owned).await?;
                urls.push(match method {
                    Some(method) => signed(&self.0, &base, method, (&space_of(attempt, need), need)).await?,
                    None => String::new(),
                });
            }
            Ok(SignTransfersReply { urls })
        })
        .await
    }
}

/// A URL for a node: the bytes of a bucket do not come by here.
async fn signed(
    gate: &Gate,
    links: &Links,
    method: Method,
    (space, need): (&str, &TransferNeed),
) -> Result<String, Problem> {
    if method == Method::Get
        && let Some(url) = gate.objects.signed_elsewhere(space, &need.digest).await?
    {
        return Ok(url);
    }
    Ok(links.signed(method, space, &need.digest, need.size_bytes))
}

pub(crate) fn no_attempt() -> Problem {
    Problem::new("spec.missing", "attempt", "", "no attempt is named", "name the attempt")
}

fn check_node(request: &RegisterRequest) -> Result<(), Problem> {
    NodeName::parse(&request.node)?;
    PoolName::parse(&request.pool)?;
    proto::validate::labels("labels", &request.labels)?;
    let capacity = request.capacity.unwrap_or_default();
    if capacity.millicores == 0 || capacity.memory_bytes == 0 {
        return Err(Problem::new(
            "spec.capacity",
            "capacity",
            format!("{} millicores, {} bytes", capacity.millicores, capacity.memory_bytes),
            "a node without cores or memory runs nothing",
            "give the node's cores and memory",
        ));
    }
    Ok(())
}

impl Gate {
    /// Refuses all but a node's newest session.
    pub(crate) fn current(&self, node: &str, session: u64) -> Result<(), Problem> {
        if self.controller.session_is_current(node, session) {
            return Ok(());
        }
        Err(problem::conflict(
            "session",
            "session",
            session,
            format!("node {node} has another session now, or the server was restarted"),
            "register again",
        ))
    }
}

/// Whose bytes they are: the tenant's, or those of its checkpoints.
fn space_of(attempt: &AttemptRef, need: &TransferNeed) -> String {
    if need.checkpoint { checkpoints::space(&attempt.tenant) } else { attempt.tenant.clone() }
}

/// How this need may be met: `None` where nothing is to be moved.
async fn leave(
    gate: &Gate,
    attempt: &AttemptRef,
    need: &TransferNeed,
    owned: bool,
) -> Result<Option<Method>, Problem> {
    if !is_digest(&need.digest) || need.size_bytes > limits::OBJECT_BYTES_MAX {
        let reason = "is no object: not a SHA-256, or too large";
        return Err(Problem::new("spec.digest", "digest", &need.digest, reason, "correct it"));
    }
    let found = gate.objects.find(&space_of(attempt, need), &need.digest).await;
    if !need.put {
        let there = found? == Some(need.size_bytes);
        // The others may be there: who asked tells which is not.
        return Ok(there.then_some(Method::Get));
    }
    if !owned {
        gate.stale_uploads.fetch_add(1, Ordering::Relaxed);
        return Err(problem::conflict(
            "attempt",
            "attempt",
            format!("{} with epoch {}", attempt.attempt, attempt.epoch),
            "this attempt is over: its task was given to another, or has ended",
            "stop it and forget its outputs",
        ));
    }
    Ok((!matches!(found, Ok(Some(bytes)) if bytes == need.size_bytes)).then_some(Method::Put))
}

async fn session(
    gate: &Arc<Gate>,
    token: Arc<str>,
    mut frames: Streaming<AgentFrame>,
) -> Result<Replies<ServerFrame>, Problem> {
    let hello = first_hello(&mut frames).await?;
    NodeName::parse(&hello.node)?;
    let (inbound, outbound) = gate.controller.session(hello).await?;
    // Reading must go on while nothing is to be said; it ends, and with it the
    // session, when either side does or the token is revoked.
    let gate = Arc::clone(gate);
    spawn(async move {
        let mut revoked = pin!(gate.auth.revoked(&token));
        loop {
            let frame = world::select! { biased;
                () = inbound.closed() => return,
                _gone = &mut revoked => return,
                frame = frames.message() => frame,
            };
            let Ok(Some(frame)) = frame else { return };
            if inbound.send(frame).await.is_err() {
                return;
            }
        }
    });
    Ok(boxed(unfold(outbound, |mut outbound| async move {
        outbound.recv().await.map(|frame| (Ok(frame), outbound))
    })))
}

async fn first_hello(frames: &mut Streaming<AgentFrame>) -> Result<Hello, Problem> {
    let deadline = time::ms(limits::HELLO_DEADLINE_MS);
    match time::timeout(deadline, frames.message()).await {
        Ok(Ok(Some(AgentFrame { frame: Some(agent_frame::Frame::Hello(hello)) }))) => Ok(hello),
        Ok(Err(status)) => Err(status.into()),
        Ok(Ok(_)) => {
            let reason = "the first frame of a session names it";
            Err(Problem::new("spec.hello", "frame", "", reason, "send a Hello first"))
        }
        Err(_) => Err(problem::unavailable("deadline", "no Hello came in time")),
    }
}
