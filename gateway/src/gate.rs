//! What all handlers share: the parts they ask, the checks before, and the
//! deadline around.

use crate::alerts::Board;
use crate::auth::{Auth, Caller, Right};
use crate::demand::Demand;
use crate::meter::Meter;
use crate::notes::Notes;
use crate::objects::Objects;
use crate::planner::Planner;
use crate::trees::Trees;
use crate::urls::{Method, Mover};
use crate::{limits, rows, scaling};
use controller::core::PreemptionRules;
use controller::logs::LogRelay;
use controller::shell::Handle;
use futures_util::Stream;
use futures_util::future::FutureExt;
use futures_util::stream::{BoxStream, StreamExt, unfold};
use proto::ids::JobId;
use proto::problem::{self, Problem};
use proto::v1::{JobRow, JobStateRow, State, TenantRow};
use scheduler::shell::Proposals;
use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use store::Store;
use world::NodeClock;
use world::grpc::tonic::metadata::MetadataMap;
use world::grpc::tonic::{Request, Response, Status};
use world::sync::watch;
use world::time;

/// A stream of replies.
pub(crate) type Replies<T> = BoxStream<'static, Result<T, Status>>;

/// See the module.
pub(crate) struct Gate {
    pub store: Arc<dyn Store>,
    pub clock: Arc<dyn NodeClock>,
    pub controller: Handle,
    pub planner: Planner,
    pub demand: Arc<Demand>,
    /// What became of the proposals of schedulers in other processes.
    pub elsewhere: Mutex<Proposals>,
    /// Leave to upload that was refused to attempts that are over.
    pub stale_uploads: AtomicU64,
    pub logs: Arc<LogRelay>,
    pub objects: Arc<Objects>,
    pub trees: Trees,
    pub meter: Arc<Meter>,
    /// What jobs waited for.
    pub notes: Notes,
    pub alerts: Board,
    pub scaling: scaling::Board,
    /// Pools in which work gives way to work of higher priority.
    pub preemption: BTreeMap<String, PreemptionRules>,
    pub auth: Auth,
    pub tenants: Tenants,
    pub streams: Arc<Streams>,
    pub base: Base,
    /// How event streams over HTTP are paced.
    pub events: Pace,
    /// Its sender gone, the server stops.
    pub stopping: watch::Receiver<()>,
    /// Other servers may take over from this one.
    pub shared: bool,
}

/// See [`crate::ServerConfig`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    pub ping_ms: u64,
    pub slow_ms: u64,
}

/// Where clients reach the objects.
#[derive(Clone, Debug)]
pub(crate) struct Base {
    /// As configured; empty: told by the connection.
    pub public_url: String,
    /// Where this server listens.
    pub listening: SocketAddr,
}

impl Base {
    /// Without a slash at its end. The address a caller reached us at is one it
    /// can reach again.
    pub fn url(&self, reached: Option<SocketAddr>) -> String {
        if !self.public_url.is_empty() {
            return self.public_url.trim_end_matches('/').to_owned();
        }
        let address = reached.filter(|address| !address.ip().is_unspecified()).unwrap_or(self.listening);
        format!("http://{}", crate::server::reachable(address))
    }
}

impl Base {
    /// A link of [`Links`] for who is led there from this server: with no URL configured
    /// its path alone, which also holds where the caller came by a tunnel.
    pub fn seen_from<'a>(&self, link: &'a str) -> &'a str {
        match link.find(crate::urls::PATH) {
            Some(path) if self.public_url.is_empty() => &link[path..],
            _ => link,
        }
    }
}

/// Makes whole URLs for one caller.
#[derive(Clone, Debug)]
pub(crate) struct Links {
    mover: Mover,
    objects: Arc<Objects>,
    base: String,
}

impl Links {
    pub fn signed(&self, method: Method, tenant: &str, digest: &str, size_bytes: u64) -> String {
        self.base.clone() + &self.objects.signed(method, self.mover, tenant, digest, size_bytes)
    }
}

/// Runs a handler to its end or its deadline.
pub(crate) async fn answer<T>(
    handler: impl Future<Output = Result<T, Problem>>,
) -> Result<Response<T>, Status> {
    let deadline = time::ms(limits::HANDLER_DEADLINE_MS);
    match time::timeout(deadline, handler).await {
        Ok(Ok(reply)) => Ok(Response::new(reply)),
        Ok(Err(problem)) => Err(problem.into()),
        Err(_) => Err(problem::unavailable("deadline", "the server could not answer in time").into()),
    }
}

/// Something that gives replies one by one. What waits inside has deadlines.
pub(crate) trait Source: Send + 'static {
    type Reply: Send + 'static;
    /// The next reply; `None` at the end.
    fn next(&mut self) -> impl Future<Output = Result<Option<Self::Reply>, Problem>> + Send;
}

/// The stream of a source: ends after its end or its first problem.
pub(crate) fn replies<S: Source>(source: S) -> Replies<S::Reply> {
    unfold(Some(source), |source| async move {
        let mut source = source?;
        match source.next().await {
            Ok(Some(reply)) => Some((Ok(reply), Some(source))),
            Ok(None) => None,
            Err(problem) => Some((Err(problem.into()), None)),
        }
    })
    .boxed()
}

/// A stream as the generated traits want it.
pub(crate) fn boxed<T>(stream: impl Stream<Item = Result<T, Status>> + Send + 'static) -> Replies<T> {
    stream.boxed()
}

impl Gate {
    /// A stream that fails once its caller's token is revoked, so that it does
    /// not look finished.
    pub fn while_known<T: Send + 'static>(
        self: &Arc<Self>,
        caller: &Caller,
        replies: Replies<T>,
    ) -> Replies<T> {
        let (gate, token) = (Arc::clone(self), Arc::clone(&caller.token));
        let revoked = async move { gate.auth.revoked(&token).await }.boxed();
        boxed(unfold(Some((replies, revoked)), |open| async move {
            let (mut replies, mut revoked) = open?;
            world::select! { biased;
                problem = &mut revoked => Some((Err(problem.into()), None)),
                reply = replies.next() => Some((reply?, Some((replies, revoked)))),
            }
        }))
    }

    /// Refuses where another server has taken over by now. Called after something was
    /// read or written beside the store, which knows by itself: then it was so before
    /// another could.
    pub async fn must_reign(&self) -> Result<(), Problem> {
        if self.shared { self.controller.must_reign().await } else { Ok(()) }
    }

    /// Takes the metadata alone: a simulated stream of requests cannot be shared
    /// between threads, so no reference to it may live across an await.
    pub async fn caller(&self, metadata: &MetadataMap, right: Right) -> Result<Caller, Problem> {
        self.auth.caller(metadata, right).await
    }

    /// What is moved by these counts as the mover's.
    pub fn links<T>(&self, request: &Request<T>, mover: Mover) -> Links {
        Links { mover, objects: Arc::clone(&self.objects), base: self.base.url(request.local_addr()) }
    }

    /// The state of a job, which must exist.
    pub async fn state(&self, job: &JobId) -> Result<JobStateRow, Problem> {
        let key = proto::keys::state(&job.tenant, job.number);
        rows::get(&*self.store, key).await?.ok_or_else(|| problem::missing("job", job))
    }

    /// The spec of a job, which must exist.
    pub async fn job(&self, job: &JobId) -> Result<JobRow, Problem> {
        let key = proto::keys::job(&job.tenant, job.number);
        rows::get(&*self.store, key).await?.ok_or_else(|| problem::missing("job", job))
    }
}

/// Whether a job (or a step) has ended.
pub(crate) fn ended(state: State) -> bool {
    matches!(state, State::Completed | State::Failed | State::Cancelled)
}

/// Knows which tenants there are, through a short memory. None is ever
/// removed, so only absence must not be remembered.
#[derive(Debug)]
pub(crate) struct Tenants {
    store: Arc<dyn Store>,
    clock: Arc<dyn NodeClock>,
    seen: Mutex<BTreeMap<String, u64>>,
}

impl Tenants {
    pub fn new(store: Arc<dyn Store>, clock: Arc<dyn NodeClock>) -> Self {
        Self { store, clock, seen: Mutex::default() }
    }

    /// Refuses where there is no such tenant.
    pub async fn must_exist(&self, tenant: &str) -> Result<(), Problem> {
        let now_ms = self.clock.monotonic_ms();
        if self.seen().get(tenant).is_some_and(|until_ms| now_ms < *until_ms) {
            return Ok(());
        }
        let row = rows::get::<TenantRow>(&*self.store, proto::keys::tenant(tenant)).await?;
        if row.is_none() {
            return Err(problem::missing("tenant", tenant));
        }
        crate::remember(&mut self.seen(), tenant.to_owned(), now_ms + limits::SEEN_MS);
        Ok(())
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, u64>> {
        self.seen.lock().expect("no holder of this lock panics")
    }
}

/// Counts open streams, of each token and of all.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    open: Mutex<BTreeMap<Arc<str>, usize>>,
}

/// One open stream; closed when dropped.
#[derive(Debug)]
pub(crate) struct StreamPlace {
    streams: Arc<Streams>,
    token: Arc<str>,
}

impl Streams {
    /// How many are open.
    pub fn count(&self) -> usize {
        self.open.lock().expect("no holder of this lock panics").values().sum()
    }

    /// Takes a place for one more.
    pub fn open(self: &Arc<Self>, caller: &Caller) -> Result<StreamPlace, Problem> {
        let mut open = self.open.lock().expect("no holder of this lock panics");
        let all: usize = open.values().sum();
        let own = open.entry(Arc::clone(&caller.token)).or_default();
        let (reason, full) = if *own >= limits::STREAMS_PER_CALLER {
            ("this token has as many streams open as one may have", limits::STREAMS_PER_CALLER)
        } else if all >= limits::STREAMS_MAX {
            ("the server has as many streams open as it can", limits::STREAMS_MAX)
        } else {
            *own += 1;
            return Ok(StreamPlace { streams: Arc::clone(self), token: Arc::clone(&caller.token) });
        };
        Err(Problem::new("limit.streams", "streams", full, reason, "close some, or try again in a moment"))
    }
}

impl Drop for StreamPlace {
    fn drop(&mut self) {
        let mut open = self.streams.open.lock().expect("no holder of this lock panics");
        if let Some(count) = open.get_mut(&self.token) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.token);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::v1::Role;

    #[test]
    fn a_token_has_its_share_of_streams_and_gets_it_back() {
        let streams = Arc::new(Streams::default());
        let caller = |token: &str| Caller {
            name: "n".into(),
            role: Role::Tenant,
            tenant: "t".into(),
            token: token.into(),
        };
        let mut held: Vec<StreamPlace> =
            (0..limits::STREAMS_PER_CALLER).map(|_| streams.open(&caller("a")).unwrap()).collect();
        assert_eq!(streams.open(&caller("a")).unwrap_err().code, "limit.streams");
        let other = streams.open(&caller("b")).unwrap();
        held.pop();
        held.push(streams.open(&caller("a")).unwrap());
        drop((held, other));
        assert!(streams.open.lock().unwrap().is_empty());
    }

    #[test]
    fn all_together_have_a_limit_too() {
        let streams = Arc::new(Streams::default());
        let open = |n: usize| {
            let token = format!("{}", n / limits::STREAMS_PER_CALLER);
            let caller = Caller {
                name: "n".into(),
                role: Role::Tenant,
                tenant: "t".into(),
                token: token.as_str().into(),
            };
            streams.open(&caller)
        };
        let held: Vec<StreamPlace> = (0..limits::STREAMS_MAX).map(|n| open(n).unwrap()).collect();
        assert_eq!(open(limits::STREAMS_MAX).unwrap_err().value, limits::STREAMS_MAX.to_string());
        assert_eq!(held.len(), limits::STREAMS_MAX);
    }

    #[test]
    fn links_lead_to_where_the_caller_came_in() {
        let base = |public_url: &str| Base {
            public_url: public_url.into(),
            listening: "0.0.0.0:7070".parse().unwrap(),
        };
        assert_eq!(base("").url(Some("10.0.0.7:7070".parse().unwrap())), "http://10.0.0.7:7070");
        assert_eq!(base("").url(Some("0.0.0.0:7070".parse().unwrap())), "http://127.0.0.1:7070");
        assert_eq!(base("http://front/").url(Some("10.0.0.7:7070".parse().unwrap())), "http://front");
        let link = "http://front/v1/objects/lab/0f?size=1";
        assert_eq!(base("http://front/").seen_from(link), link);
        assert_eq!(base("").seen_from(link), "/v1/objects/lab/0f?size=1");
    }
}
