//! The scheduler's service: controllers link to it, gateways ask it.
//!
//! A link's updates go on into the scheduler's demand channel one by one; each
//! is acknowledged once it is in, which is what paces a controller that has
//! much to say.

use crate::shell::Handle;
use async_trait::async_trait;
use futures_util::stream::{self, Stream};
use proto::v1::planning_server::Planning;
use proto::v1::{DemandReceipt, DemandUpdate, ExplainRequest, PoolsReply, PoolsRequest, Problem, WhyReply};
use std::pin::Pin;
use world::grpc::tonic::{Request, Response, Status, Streaming};
use world::sync::mpsc;

/// Serves a running scheduler.
#[derive(Clone, Debug)]
pub struct PlanningService {
    handle: Handle,
    demand: mpsc::Sender<DemandUpdate>,
}

impl PlanningService {
    /// `demand` is the other end of what the scheduler was started with.
    #[must_use]
    pub fn new(handle: Handle, demand: mpsc::Sender<DemandUpdate>) -> PlanningService {
        PlanningService { handle, demand }
    }
}

type Receipts = Pin<Box<dyn Stream<Item = Result<DemandReceipt, Status>> + Send>>;

/// A link as it runs.
struct Link {
    updates: Streaming<DemandUpdate>,
    demand: mpsc::Sender<DemandUpdate>,
    taken: u64,
}

/// Takes one update in and acknowledges it; `None` when the controller is gone.
async fn next_receipt(mut link: Link) -> Option<(Result<DemandReceipt, Status>, Link)> {
    let update = match link.updates.message().await {
        Ok(update) => update?,
        Err(status) => {
            tracing::info!(%status, "a controller's link broke");
            return None;
        }
    };
    if link.demand.send(update).await.is_err() {
        let problem = proto::problem::unavailable("scheduler", "the scheduler has ended");
        return Some((Err(problem.into()), link));
    }
    link.taken += 1;
    Some((Ok(DemandReceipt { updates: link.taken }), link))
}

#[async_trait]
impl Planning for PlanningService {
    type LinkStream = Receipts;

    async fn link(
        &self,
        request: Request<Streaming<DemandUpdate>>,
    ) -> Result<Response<Self::LinkStream>, Status> {
        let link = Link { updates: request.into_inner(), demand: self.demand.clone(), taken: 0 };
        Ok(Response::new(Box::pin(stream::unfold(link, next_receipt))))
    }

    async fn explain(&self, request: Request<ExplainRequest>) -> Result<Response<WhyReply>, Status> {
        let Some(key) = request.into_inner().key else {
            let remedy = "name tenant, job number and step";
            return Err(Problem::new("spec.missing", "key", "", "no step is named", remedy).into());
        };
        Ok(Response::new(self.handle.explain(&key)))
    }

    async fn pools(&self, _request: Request<PoolsRequest>) -> Result<Response<PoolsReply>, Status> {
        Ok(Response::new(self.handle.pools()))
    }
}
