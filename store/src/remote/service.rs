//! A store behind the `Rows` service.

use super::{WATCH_BEAT_MS, wire};
use crate::{CommitError, Notice, Store, Watch};
use futures_util::stream::{self, Stream};
use proto::v1::{
    self, CommitReply, CommitRequest, GrantLeaseReply, GrantLeaseRequest, KeepLeaseReply, KeepLeaseRequest,
    RangeReply, RangeRequest, RevokeLeaseReply, RevokeLeaseRequest, WatchReply, WatchRequest,
};
use std::pin::Pin;
use std::sync::Arc;
use world::grpc::tonic::{self, Request, Response, Status};
use world::time::{ms, timeout};

/// Serves any store; it has no state of its own. Who may call is decided
/// before it.
#[derive(Clone, Debug)]
pub struct RowsService {
    store: Arc<dyn Store>,
}

impl RowsService {
    /// Serves `store`.
    #[must_use]
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store }
    }
}

/// What a watch sends.
pub type WatchStream = Pin<Box<dyn Stream<Item = Result<WatchReply, Status>> + Send>>;

#[tonic::async_trait]
impl v1::rows_server::Rows for RowsService {
    async fn commit(&self, request: Request<CommitRequest>) -> Result<Response<CommitReply>, Status> {
        let outcome = match wire::commit_from_wire(request.into_inner()) {
            Ok(commit) => self.store.commit(commit).await,
            Err(why) => Err(CommitError::Refused(why)),
        };
        wire::outcome_to_wire(outcome).map(Response::new)
    }

    async fn range(&self, request: Request<RangeRequest>) -> Result<Response<RangeReply>, Status> {
        let page = self.store.range(wire::range_from_wire(request.into_inner())).await;
        page.map(|page| Response::new(wire::page_to_wire(page))).map_err(|error| wire::read_status(&error))
    }

    type WatchStream = WatchStream;

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<WatchStream>, Status> {
        let watch =
            self.store.watch(request.into_inner().prefix).await.map_err(|error| wire::read_status(&error))?;
        Ok(Response::new(Box::pin(stream::unfold(Told::Nothing(watch), Told::next))))
    }

    async fn grant_lease(
        &self,
        request: Request<GrantLeaseRequest>,
    ) -> Result<Response<GrantLeaseReply>, Status> {
        let GrantLeaseRequest { owner, ttl_ms } = request.into_inner();
        let lease = self.store.lease(&owner, ttl_ms).await.map_err(|error| wire::commit_status(&error))?;
        Ok(Response::new(GrantLeaseReply { lease }))
    }

    async fn keep_lease(
        &self,
        request: Request<KeepLeaseRequest>,
    ) -> Result<Response<KeepLeaseReply>, Status> {
        match self.store.keep(request.into_inner().lease).await {
            Ok(()) => Ok(Response::new(KeepLeaseReply { kept: true })),
            Err(CommitError::LeaseGone(_)) => Ok(Response::new(KeepLeaseReply { kept: false })),
            Err(error) => Err(wire::commit_status(&error)),
        }
    }

    async fn revoke_lease(
        &self,
        request: Request<RevokeLeaseRequest>,
    ) -> Result<Response<RevokeLeaseReply>, Status> {
        self.store.revoke(request.into_inner().lease).await.map_err(|error| wire::commit_status(&error))?;
        Ok(Response::new(RevokeLeaseReply {}))
    }
}

/// Where a watch's stream stands.
enum Told {
    Nothing(Watch),
    Start(Watch),
    Lagged,
}

impl Told {
    async fn next(self) -> Option<(Result<WatchReply, Status>, Self)> {
        match self {
            Self::Nothing(watch) => {
                let started = WatchReply { revision: watch.revision, started: true, ..WatchReply::default() };
                Some((Ok(started), Self::Start(watch)))
            }
            Self::Start(mut watch) => match timeout(ms(WATCH_BEAT_MS), watch.notices.recv()).await {
                // Nothing new: a word all the same, so that the other side can
                // tell a quiet store from a dead link.
                Err(_) => Some((Ok(WatchReply::default()), Self::Start(watch))),
                Ok(Some(notice @ Notice::Changed { .. })) => {
                    Some((Ok(wire::notice_to_wire(notice)), Self::Start(watch)))
                }
                Ok(Some(Notice::Lagged) | None) => {
                    Some((Ok(wire::notice_to_wire(Notice::Lagged)), Self::Lagged))
                }
            },
            Self::Lagged => None,
        }
    }
}
