//! The store on another node: a client and a server of the `Rows` service.
//!
//! What must hold: an answer that says "nothing changed" comes from the store
//! itself, or from a connection that was refused before anything was sent; all
//! other trouble is `Indeterminate`. Every call has a deadline.
//!
//! Commits of one client go one at a time, in the order of the calls, since two
//! calls under way at once may overtake each other on the link. A commit whose
//! answer was lost may still arrive late, after the next one: who chains
//! commits guards each by what the one before wrote.

mod service;
mod wire;

pub use service::{RowsService, WatchStream};

use crate::limits::{REMOTE_DEADLINE_MS, WATCH_QUEUE};
use crate::{
    Commit, CommitError, Key, LeaseId, Notice, Page, RangeRequest, ReadError, Revision, Row, Store, Watch,
    check, key_after,
};
use async_trait::async_trait;
use proto::v1::rows_client::RowsClient;
use proto::v1::{self, WatchReply};
use std::{fmt, sync::Arc};
use world::grpc::tonic::metadata::{Ascii, MetadataValue};
use world::grpc::tonic::{Request, Response, Status, Streaming, transport::Channel};
use world::sync::{Mutex, mpsc};
use world::task::spawn;
use world::time::{Duration, ms, timeout};

/// A watch that has nothing to tell says so this often.
const WATCH_BEAT_MS: u64 = 5000;
/// A watch that has been silent this long is broken: three beats.
const WATCH_SILENCE_MS: u64 = 3 * WATCH_BEAT_MS;

/// A store behind a channel.
pub struct RemoteStore {
    rows: RowsClient<Channel>,
    /// Held by the commit that is under way; the others wait in order.
    turn: Mutex<()>,
    deadline: Duration,
    /// Sent with every call: who asks.
    authorization: Option<MetadataValue<Ascii>>,
}

impl fmt::Debug for RemoteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteStore").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}

impl RemoteStore {
    /// The store at the other end of `channel` (which connects by itself, also
    /// again), each call with the usual deadline.
    #[must_use]
    pub fn new(channel: Channel) -> Arc<Self> {
        Self::with_deadline(channel, ms(REMOTE_DEADLINE_MS))
    }

    /// The same with a deadline of one's own; it counts once for the wait in
    /// line and once for the call.
    #[must_use]
    pub fn with_deadline(channel: Channel, deadline: Duration) -> Arc<Self> {
        Arc::new(Self { rows: RowsClient::new(channel), turn: Mutex::new(()), deadline, authorization: None })
    }

    /// Like [`RemoteStore::new`], behind a door that asks who calls.
    #[must_use]
    pub fn bearing(channel: Channel, authorization: MetadataValue<Ascii>) -> Arc<Self> {
        let (rows, deadline) = (RowsClient::new(channel), ms(REMOTE_DEADLINE_MS));
        Arc::new(Self { rows, turn: Mutex::new(()), deadline, authorization: Some(authorization) })
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(authorization) = &self.authorization {
            request.metadata_mut().insert("authorization", authorization.clone());
        }
        request
    }

    async fn call<T>(
        &self,
        call: impl Future<Output = Result<Response<T>, Status>> + Send,
    ) -> Result<T, Status> {
        match timeout(self.deadline, call).await {
            Ok(reply) => reply.map(Response::into_inner),
            Err(_) => {
                Err(Status::deadline_exceeded(format!("no answer within {} ms", self.deadline.as_millis())))
            }
        }
    }

    async fn page(&self, request: RangeRequest) -> Result<Page, ReadError> {
        let mut rows = self.rows.clone();
        let reply = self.call(rows.range(self.request(wire::range_to_wire(request)))).await;
        reply.map(wire::page_from_wire).map_err(|status| wire::read_error(&status))
    }
}

#[async_trait]
impl Store for RemoteStore {
    async fn commit(&self, commit: Commit) -> Result<Revision, CommitError> {
        check::commit(&commit).map_err(CommitError::Refused)?;
        let Ok(_turn) = timeout(self.deadline, self.turn.lock()).await else {
            let why = format!("the commits before this one took {} ms", self.deadline.as_millis());
            return Err(CommitError::Unavailable(why));
        };
        let mut rows = self.rows.clone();
        let reply = self.call(rows.commit(self.request(wire::commit_to_wire(commit)))).await;
        reply.map_err(|status| wire::commit_error(&status)).and_then(wire::outcome_from_wire)
    }

    async fn range(&self, request: RangeRequest) -> Result<Page, ReadError> {
        check::range(&request).map_err(ReadError::Refused)?;
        self.page(request).await
    }

    async fn get(&self, key: Key) -> Result<Option<Row>, ReadError> {
        check::row_key(&key).map_err(ReadError::Refused)?;
        let to = key_after(&key);
        let page = self.page(RangeRequest { from: key, to, limit: 1, backwards: false }).await?;
        Ok(page.rows.into_iter().next())
    }

    async fn watch(&self, prefix: Key) -> Result<Watch, ReadError> {
        check::prefix(&prefix).map_err(ReadError::Refused)?;
        let mut rows = self.rows.clone();
        let stream = self.call(rows.watch(self.request(v1::WatchRequest { prefix }))).await;
        let mut stream = stream.map_err(|status| wire::read_error(&status))?;
        let first = timeout(self.deadline, stream.message()).await;
        let revision = match first {
            Ok(Ok(Some(WatchReply { started: true, revision, .. }))) => revision,
            Ok(Err(status)) => return Err(wire::read_error(&status)),
            Ok(Ok(_)) | Err(_) => return Err(ReadError::Unavailable("the store began no watch".to_owned())),
        };
        let (queue, notices) = mpsc::channel(WATCH_QUEUE + 1);
        spawn(follow(stream, queue));
        Ok(Watch { revision, notices })
    }

    async fn lease(&self, owner: &str, ttl_ms: u64) -> Result<LeaseId, CommitError> {
        check::lease(owner, ttl_ms).map_err(CommitError::Refused)?;
        let mut rows = self.rows.clone();
        let request = v1::GrantLeaseRequest { owner: owner.to_owned(), ttl_ms };
        let reply = self.call(rows.grant_lease(self.request(request))).await;
        reply.map(|reply| reply.lease).map_err(|status| wire::commit_error(&status))
    }

    async fn keep(&self, lease: LeaseId) -> Result<(), CommitError> {
        let mut rows = self.rows.clone();
        match self.call(rows.keep_lease(self.request(v1::KeepLeaseRequest { lease }))).await {
            Ok(v1::KeepLeaseReply { kept: true }) => Ok(()),
            Ok(v1::KeepLeaseReply { kept: false }) => Err(CommitError::LeaseGone(lease)),
            Err(status) => Err(wire::commit_error(&status)),
        }
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), CommitError> {
        let mut rows = self.rows.clone();
        let reply = self.call(rows.revoke_lease(self.request(v1::RevokeLeaseRequest { lease }))).await;
        reply.map(|_| ()).map_err(|status| wire::commit_error(&status))
    }
}

/// Hands on what a watch's stream brings, until either side ends. The last
/// place of the queue is kept for `Lagged`, as in the embedded store.
async fn follow(mut stream: Streaming<WatchReply>, queue: mpsc::Sender<Notice>) {
    loop {
        let next = world::select! {
            biased;
            () = queue.closed() => return,
            next = timeout(ms(WATCH_SILENCE_MS), stream.message()) => next,
        };
        let notice = match next {
            Ok(Ok(Some(reply))) => wire::notice_from_wire(reply),
            // The link broke, the stream ended, or it fell silent.
            Ok(Ok(None) | Err(_)) | Err(_) => Some(Notice::Lagged),
        };
        let notice = match notice {
            None => continue,
            Some(Notice::Changed { .. }) if queue.capacity() <= 1 => Notice::Lagged,
            Some(notice) => notice,
        };
        let last = notice == Notice::Lagged;
        if queue.try_send(notice).is_err() || last {
            return;
        }
    }
}
