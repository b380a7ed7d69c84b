//! What comes over the network: requests in protobuf, put together or any bytes,
//! and what they mean.

use super::model::{Model, key};
use crate::draw::Draw;
use prost::Message as _;
use proto::v1::commit_reply::Outcome;
use proto::v1::rows_server::Rows as _;
use proto::v1::{CommitRequest, Problem, RangeRequest, RowGuard, RowWrite, row_guard};
use std::sync::Arc;
use store::{
    Commit, CommitError, Expect, Guard, Page, ReadError, RedbStore, Revision, Row, RowsService, Store, Write,
};
use world::grpc::tonic::{Request, Status};

pub(super) fn commit(guess: &Model, draw: &mut Draw<'_>) -> CommitRequest {
    if draw.seldom(4) {
        let length = draw.below(64);
        return CommitRequest::decode(draw.bytes(length)).unwrap_or_default();
    }
    let commit = guess.draw_commit(draw);
    let guards = commit.guards.into_iter().map(|Guard { key, expect }| {
        let expect = match expect {
            Expect::Absent => row_guard::Expect::Absent(!draw.seldom(16)),
            Expect::Version(version) => row_guard::Expect::Version(version),
            Expect::Value(value) => row_guard::Expect::Value(value),
        };
        RowGuard { key, expect: (!draw.seldom(16)).then_some(expect) }
    });
    let guards = guards.collect();
    let writes = commit.writes.into_iter().map(|Write { key, value, lease }| RowWrite { key, value, lease });
    CommitRequest { guards, writes: writes.collect() }
}

/// `None`: a guard asks for nothing that is known.
pub(super) fn commit_meant(request: CommitRequest) -> Option<Commit> {
    let guards = request.guards.into_iter().map(|RowGuard { key, expect }| {
        let expect = match expect? {
            row_guard::Expect::Absent(true) => Expect::Absent,
            row_guard::Expect::Absent(false) => return None,
            row_guard::Expect::Version(version) => Expect::Version(version),
            row_guard::Expect::Value(value) => Expect::Value(value),
        };
        Some(Guard { key, expect })
    });
    let writes = request.writes.into_iter().map(|RowWrite { key, value, lease }| Write { key, value, lease });
    Some(Commit { guards: guards.collect::<Option<_>>()?, writes: writes.collect() })
}

pub(super) async fn ask_commit(
    store: &Arc<RedbStore>,
    request: CommitRequest,
) -> Result<Revision, CommitError> {
    let service = RowsService::new(Arc::clone(store) as Arc<dyn Store>);
    match service.commit(Request::new(request)).await.map(|reply| reply.into_inner().outcome) {
        Ok(Some(Outcome::Revision(revision))) => Ok(revision),
        Ok(Some(Outcome::Conflict(conflict))) => {
            Err(CommitError::Conflict { key: conflict.key, found: conflict.found_version })
        }
        Ok(None) => panic!("an answer without an outcome"),
        Err(status) => Err(refusal(&status)),
    }
}

/// What a status says in its details.
fn refusal(status: &Status) -> CommitError {
    let problem = Problem::decode(status.details()).expect("a refusal of the store is a problem");
    match problem.code.as_str() {
        "store.refused" => CommitError::Refused(problem.reason),
        "store.full" => CommitError::Full,
        "store.lease_gone" => CommitError::LeaseGone(problem.value.parse().expect("it names the lease")),
        "store.indeterminate" => CommitError::Indeterminate(problem.reason),
        "store.unavailable" => CommitError::Unavailable(problem.reason),
        other => panic!("{other} is no refusal of a commit"),
    }
}

pub(super) fn range(draw: &mut Draw<'_>) -> RangeRequest {
    if draw.seldom(4) {
        let length = draw.below(32);
        return RangeRequest::decode(draw.bytes(length)).unwrap_or_default();
    }
    RangeRequest { from: key(draw), to: key(draw), limit: draw.number_u32(), backwards: draw.coin() }
}

pub(super) fn range_meant(request: RangeRequest) -> store::RangeRequest {
    let RangeRequest { from, to, limit, backwards } = request;
    store::RangeRequest { from, to, limit: limit as usize, backwards }
}

pub(super) async fn ask_range(store: &Arc<RedbStore>, request: RangeRequest) -> Result<Page, ReadError> {
    let service = RowsService::new(Arc::clone(store) as Arc<dyn Store>);
    match service.range(Request::new(request)).await {
        Ok(reply) => {
            let reply = reply.into_inner();
            let row = |row: proto::v1::StoredRow| Row {
                key: row.key,
                value: row.value,
                version: row.version,
                lease: row.lease,
            };
            let rows = reply.rows.into_iter().map(row).collect();
            Ok(Page { rows, more: reply.more, revision: reply.revision })
        }
        Err(status) => Err(match Problem::decode(status.details()).unwrap_or_default().code.as_str() {
            "store.refused" => ReadError::Refused(String::new()),
            "store.corrupt" => ReadError::Corrupt(status.message().to_owned()),
            "store.unavailable" => ReadError::Unavailable(String::new()),
            other => panic!("{other} is no refusal of a read"),
        }),
    }
}
