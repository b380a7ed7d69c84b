//! The door of schedulers in other processes: they are told demand, and reach
//! those rows that a scheduler needs.
//!
//! What must hold: whatever bears such a token reads nodes, tenants, grants and
//! what is allocated, and nothing else; it writes new grants with their
//! allocations, and asks in those that are there that tasks give way, and nothing else. Jobs, tokens and keys are out of its reach.

use crate::auth::Right;
use crate::gate::{Gate, Replies, answer, boxed};
use crate::rows;
use futures_util::stream::unfold;
use prost::Message as _;
use proto::keys;
use proto::problem::{self, Problem};
use proto::v1::planning_server::Planning;
use proto::v1::rows_server::Rows;
use proto::v1::{
    CommitReply, CommitRequest, DemandUpdate, FollowRequest, GrantLeaseReply, GrantLeaseRequest, GrantRow,
    KeepLeaseReply, KeepLeaseRequest, RangeReply, RangeRequest, RevokeLeaseReply, RevokeLeaseRequest,
    RowWrite, WatchReply, WatchRequest, commit_reply, row_guard::Expect,
};
use scheduler::limits::FOLLOW_BEAT_MS;
use std::sync::Arc;
use store::RowsService;
use world::grpc::tonic::{self, Request, Response, Status};
use world::sync::mpsc;
use world::time;

/// What a scheduler reads.
const READS: [&str; 4] = [keys::NODES, keys::TENANTS, keys::GRANTS, keys::ALLOCS];

/// See the module.
pub(crate) struct SchedulersDoor {
    gate: Arc<Gate>,
    rows: RowsService,
}

impl SchedulersDoor {
    pub fn new(gate: &Arc<Gate>) -> Self {
        Self { gate: Arc::clone(gate), rows: RowsService::new(Arc::clone(&gate.store)) }
    }

    /// What is written of a grant that is there is what it was, but for the ask. One that
    /// has changed since it was read here fails by its guard.
    async fn asks_alone(&self, commit: &CommitRequest) -> Result<(), Status> {
        for write in commit.writes.iter().filter(|write| is_ask(commit, write)) {
            let known: Option<GrantRow> = rows::get(&*self.gate.store, write.key.clone()).await?;
            let told = write.value.as_deref().unwrap_or_default();
            if known.is_some_and(|known| !asks_only(&known, told)) {
                let reason = "a scheduler writes of a grant that is there only what is to give way";
                return Err(denied("key", &write.key, reason).into());
            }
        }
        Ok(())
    }

    /// Lets a message through to the rows.
    async fn pass<T>(
        &self,
        request: Request<T>,
        check: impl FnOnce(&T) -> Result<(), Problem>,
    ) -> Result<Request<T>, Status> {
        let (metadata, extensions, message) = request.into_parts();
        self.gate.caller(&metadata, Right::Schedule).await?;
        check(&message)?;
        Ok(Request::from_parts(metadata, extensions, message))
    }
}

#[tonic::async_trait]
impl Planning for SchedulersDoor {
    type FollowStream = Replies<DemandUpdate>;

    async fn follow(&self, request: Request<FollowRequest>) -> Result<Response<Self::FollowStream>, Status> {
        answer(async {
            let caller = self.gate.caller(request.metadata(), Right::Schedule).await?;
            let name = request.into_inner().scheduler;
            let told = self.gate.demand.follow()?;
            self.gate.controller.tell_all_demand().await;
            tracing::info!(scheduler = name, "a scheduler follows");
            Ok(self.gate.while_known(&caller, boxed(unfold(told, next))))
        })
        .await
    }
}

/// The next update, or a word that there is none.
async fn next(
    mut told: mpsc::Receiver<DemandUpdate>,
) -> Option<(Result<DemandUpdate, Status>, mpsc::Receiver<DemandUpdate>)> {
    let update = match time::timeout(time::ms(FOLLOW_BEAT_MS), told.recv()).await {
        Ok(update) => update?,
        Err(_) => DemandUpdate::default(),
    };
    Some((Ok(update), told))
}

#[tonic::async_trait]
impl Rows for SchedulersDoor {
    async fn commit(&self, request: Request<CommitRequest>) -> Result<Response<CommitReply>, Status> {
        let request = self.pass(request, may_commit).await?;
        self.asks_alone(request.get_ref()).await?;
        let reply = self.rows.commit(request).await;
        let mut proposals = self.gate.elsewhere.lock().expect("no holder of this lock panics");
        match reply.as_ref().ok().and_then(|reply| reply.get_ref().outcome.as_ref()) {
            Some(commit_reply::Outcome::Revision(_)) => proposals.committed += 1,
            Some(commit_reply::Outcome::Conflict(_)) => proposals.conflicts += 1,
            None => proposals.failed += 1,
        }
        drop(proposals);
        reply
    }

    async fn range(&self, request: Request<RangeRequest>) -> Result<Response<RangeReply>, Status> {
        self.rows.range(self.pass(request, may_range).await?).await
    }

    type WatchStream = Replies<WatchReply>;

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let caller = self.gate.caller(request.metadata(), Right::Schedule).await?;
        may_read(&request.get_ref().prefix)?;
        let told = self.rows.watch(request).await?.into_inner();
        Ok(Response::new(self.gate.while_known(&caller, told)))
    }

    async fn grant_lease(
        &self,
        request: Request<GrantLeaseRequest>,
    ) -> Result<Response<GrantLeaseReply>, Status> {
        Err(no_leases(self.pass(request, |_| Ok(())).await?))
    }

    async fn keep_lease(
        &self,
        request: Request<KeepLeaseRequest>,
    ) -> Result<Response<KeepLeaseReply>, Status> {
        Err(no_leases(self.pass(request, |_| Ok(())).await?))
    }

    async fn revoke_lease(
        &self,
        request: Request<RevokeLeaseRequest>,
    ) -> Result<Response<RevokeLeaseReply>, Status> {
        Err(no_leases(self.pass(request, |_| Ok(())).await?))
    }
}

fn no_leases<T>(_asked: Request<T>) -> Status {
    denied("lease", b"", "a scheduler has no leases of rows").into()
}

fn denied(field: &str, key: &[u8], reason: &str) -> Problem {
    problem::denied(field, String::from_utf8_lossy(key), reason)
}

fn may_read(key: &[u8]) -> Result<(), Problem> {
    if READS.iter().any(|prefix| key.starts_with(prefix.as_bytes())) {
        return Ok(());
    }
    Err(denied("key", key, "a scheduler reads nodes, tenants, grants and allocations alone"))
}

fn may_range(range: &RangeRequest) -> Result<(), Problem> {
    may_read(&range.from)?;
    let within = READS.iter().any(|prefix| {
        range.from.starts_with(prefix.as_bytes()) && range.to <= keys::prefix_end(prefix.as_bytes())
    });
    if within && !range.to.is_empty() {
        return Ok(());
    }
    Err(denied("to", &range.to, "a scheduler reads rows of one kind at a time"))
}

fn guards_of<'a>(commit: &'a CommitRequest, write: &RowWrite) -> impl Iterator<Item = &'a Expect> {
    let key = write.key.clone();
    commit.guards.iter().filter(move |guard| guard.key == key).filter_map(|guard| guard.expect.as_ref())
}

/// What is told of a grant is what is known of it, and that tasks of it are to give way.
fn asks_only(known: &GrantRow, told: &[u8]) -> bool {
    let Ok(told) = GrantRow::decode(told) else { return false };
    let like = GrantRow { preemption: told.preemption.clone(), again: true, ..known.clone() };
    told.preemption.is_some() && like == told
}

/// A grant that is there is written again.
fn is_ask(commit: &CommitRequest, write: &RowWrite) -> bool {
    write.key.starts_with(keys::GRANTS.as_bytes())
        && guards_of(commit, write).any(|expect| matches!(expect, Expect::Version(_)))
}

fn may_commit(commit: &CommitRequest) -> Result<(), Problem> {
    for guard in &commit.guards {
        may_read(&guard.key)?;
    }
    for write in &commit.writes {
        let absent = || guards_of(commit, write).any(|expect| matches!(expect, Expect::Absent(_)));
        let ours = write.key.starts_with(keys::ALLOCS.as_bytes())
            || (write.key.starts_with(keys::GRANTS.as_bytes()) && absent())
            || is_ask(commit, write);
        if !ours || write.value.is_none() || write.lease != 0 {
            return Err(denied("key", &write.key, "a scheduler writes new grants and allocations alone"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::v1::{Preemption, RowGuard};

    fn granted(asked: Option<u64>) -> GrantRow {
        let again = asked.is_some();
        let preemption = asked.map(|job_number| Preemption { job_number, ..Preemption::default() });
        GrantRow { tenant: "lab".into(), epoch: 7, preemption, again, ..GrantRow::default() }
    }

    fn write(key: &str) -> RowWrite {
        RowWrite { key: key.to_owned().into(), value: Some("v".into()), lease: 0 }
    }

    fn commit(guards: &[(&str, Expect)], writes: Vec<RowWrite>) -> CommitRequest {
        let guards = guards
            .iter()
            .map(|(key, expect)| RowGuard { key: (*key).to_owned().into(), expect: Some(expect.clone()) })
            .collect();
        CommitRequest { guards, writes }
    }

    #[test]
    fn what_a_scheduler_proposes_passes() {
        let guards = [("alloc/node/n1", Expect::Version(3)), ("grant/lab/7", Expect::Absent(true))];
        may_commit(&commit(&guards, vec![write("alloc/node/n1"), write("grant/lab/7")])).unwrap();
        // What is written of a grant that is there is looked at beside the row.
        let ask = commit(&[("grant/lab/7", Expect::Version(2))], vec![write("grant/lab/7")]);
        may_commit(&ask).unwrap();
        assert!(is_ask(&ask, &ask.writes[0]) && asks_only(&granted(None), &granted(Some(1)).encode_to_vec()));
        let more = GrantRow { job_number: 9, ..granted(Some(1)) }.encode_to_vec();
        for bad in [granted(None).encode_to_vec(), more, b"x".to_vec()] {
            assert!(!asks_only(&granted(None), &bad));
        }
    }

    #[test]
    fn nothing_else_is_written() {
        let deletes = RowWrite { value: None, ..write("alloc/node/n1") };
        let hangs = RowWrite { lease: 4, ..write("alloc/node/n1") };
        for bad in [
            commit(&[], vec![write("state/lab/1")]),
            commit(&[], vec![write("token/00ff")]),
            commit(&[], vec![write("tenant/lab")]),
            commit(&[], vec![write("grant/lab/7")]),
            commit(&[], vec![deletes]),
            commit(&[], vec![hangs]),
            commit(&[("token/00ff", Expect::Absent(true))], vec![]),
        ] {
            assert_eq!(may_commit(&bad).unwrap_err().family(), "denied", "{bad:?}");
        }
    }

    #[test]
    fn nothing_else_is_read() {
        let range = |from: &str, to: &str| {
            let (from, to) = (from.to_owned().into(), to.to_owned().into());
            may_range(&RangeRequest { from, to, limit: 10, backwards: false })
        };
        range("node/", "node0").unwrap();
        range("tenant/lab", "tenant0").unwrap();
        for (from, to) in [("", ""), ("node/", ""), ("node/", "z"), ("token/", "token0"), ("job/", "job0")] {
            assert_eq!(range(from, to).unwrap_err().family(), "denied", "{from} {to}");
        }
        may_read(b"grant/").unwrap();
        assert!(may_read(b"").is_err() && may_read(b"nod").is_err());
    }
}
