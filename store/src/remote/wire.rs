//! Between the store's own types and the messages of `store.proto`.
//!
//! Every refusal a store makes travels as a [`Problem`] in the status' details,
//! so that the other side can tell "the store said no" (nothing changed) from
//! "the link broke" (who knows).

use crate::{
    Commit, CommitError, Expect, Guard, Notice, Page, RangeRequest, ReadError, Revision, Row, Write,
};
use prost::Message as _;
use proto::v1::{self, Problem, commit_reply::Outcome, row_guard};
use std::error::Error as _;
use std::io;
use world::grpc::tonic::{Code, Status};

const REFUSED: &str = "store.refused";
const FULL: &str = "store.full";
const LEASE_GONE: &str = "store.lease_gone";
const INDETERMINATE: &str = "store.indeterminate";
const UNAVAILABLE: &str = "store.unavailable";
const CORRUPT: &str = "store.corrupt";

pub(super) fn commit_to_wire(commit: Commit) -> v1::CommitRequest {
    let guards = commit.guards.into_iter().map(|Guard { key, expect }| {
        let expect = match expect {
            Expect::Absent => row_guard::Expect::Absent(true),
            Expect::Version(version) => row_guard::Expect::Version(version),
            Expect::Value(value) => row_guard::Expect::Value(value),
        };
        v1::RowGuard { key, expect: Some(expect) }
    });
    let writes =
        commit.writes.into_iter().map(|Write { key, value, lease }| v1::RowWrite { key, value, lease });
    v1::CommitRequest { guards: guards.collect(), writes: writes.collect() }
}

pub(super) fn commit_from_wire(request: v1::CommitRequest) -> Result<Commit, String> {
    let mut commit = Commit::default();
    for v1::RowGuard { key, expect } in request.guards {
        let expect = match expect {
            Some(row_guard::Expect::Absent(true)) => Expect::Absent,
            Some(row_guard::Expect::Version(version)) => Expect::Version(version),
            Some(row_guard::Expect::Value(value)) => Expect::Value(value),
            // A guard of a newer kind must not pass for none.
            Some(row_guard::Expect::Absent(false)) | None => {
                return Err(format!(
                    "the guard on {} asks for nothing known here",
                    String::from_utf8_lossy(&key)
                ));
            }
        };
        commit.guards.push(Guard { key, expect });
    }
    commit.writes = request
        .writes
        .into_iter()
        .map(|v1::RowWrite { key, value, lease }| Write { key, value, lease })
        .collect();
    Ok(commit)
}

pub(super) fn outcome_to_wire(outcome: Result<Revision, CommitError>) -> Result<v1::CommitReply, Status> {
    let outcome = match outcome {
        Ok(revision) => Outcome::Revision(revision),
        Err(CommitError::Conflict { key, found }) => {
            Outcome::Conflict(v1::RowConflict { key, found_version: found })
        }
        Err(error) => return Err(commit_status(&error)),
    };
    Ok(v1::CommitReply { outcome: Some(outcome) })
}

pub(super) fn outcome_from_wire(reply: v1::CommitReply) -> Result<Revision, CommitError> {
    match reply.outcome {
        Some(Outcome::Revision(revision)) => Ok(revision),
        Some(Outcome::Conflict(v1::RowConflict { key, found_version })) => {
            Err(CommitError::Conflict { key, found: found_version })
        }
        None => Err(CommitError::Indeterminate("the store answered in words not known here".to_owned())),
    }
}

pub(super) fn range_to_wire(request: RangeRequest) -> v1::RangeRequest {
    let RangeRequest { from, to, limit, backwards } = request;
    // Checked before: a limit is at most 1000.
    v1::RangeRequest { from, to, limit: u32::try_from(limit).unwrap_or(u32::MAX), backwards }
}

pub(super) fn range_from_wire(request: v1::RangeRequest) -> RangeRequest {
    let v1::RangeRequest { from, to, limit, backwards } = request;
    RangeRequest { from, to, limit: limit as usize, backwards }
}

pub(super) fn page_to_wire(page: Page) -> v1::RangeReply {
    let rows = page.rows.into_iter().map(|Row { key, value, version, lease }| v1::StoredRow {
        key,
        value,
        version,
        lease,
    });
    v1::RangeReply { rows: rows.collect(), more: page.more, revision: page.revision }
}

pub(super) fn page_from_wire(reply: v1::RangeReply) -> Page {
    let rows = reply.rows.into_iter().map(|v1::StoredRow { key, value, version, lease }| Row {
        key,
        value,
        version,
        lease,
    });
    Page { rows: rows.collect(), more: reply.more, revision: reply.revision }
}

pub(super) fn notice_to_wire(notice: Notice) -> v1::WatchReply {
    match notice {
        Notice::Changed { revision, changes } => {
            let changes =
                changes.into_iter().map(|(key, value)| v1::RowChange { key, value, version: revision });
            v1::WatchReply { revision, changes: changes.collect(), ..v1::WatchReply::default() }
        }
        Notice::Lagged => v1::WatchReply { lagged: true, ..v1::WatchReply::default() },
    }
}

/// `None` for a message that only shows that the link lives.
pub(super) fn notice_from_wire(reply: v1::WatchReply) -> Option<Notice> {
    if reply.lagged {
        return Some(Notice::Lagged);
    }
    if reply.changes.is_empty() {
        return None;
    }
    let changes = reply.changes.into_iter().map(|v1::RowChange { key, value, .. }| (key, value)).collect();
    Some(Notice::Changed { revision: reply.revision, changes })
}

fn status(code: Code, problem: &str, value: String, reason: String) -> Status {
    let problem = Problem { code: problem.to_owned(), value, reason: reason.clone(), ..Problem::default() };
    Status::with_details(code, reason, problem.encode_to_vec().into())
}

pub(super) fn commit_status(error: &CommitError) -> Status {
    let reason = error.to_string();
    match error {
        CommitError::Refused(why) => status(Code::InvalidArgument, REFUSED, String::new(), why.clone()),
        CommitError::Full => status(Code::ResourceExhausted, FULL, String::new(), reason),
        CommitError::LeaseGone(lease) => {
            status(Code::FailedPrecondition, LEASE_GONE, lease.to_string(), reason)
        }
        CommitError::Indeterminate(why) => status(Code::Unknown, INDETERMINATE, String::new(), why.clone()),
        CommitError::Unavailable(why) => status(Code::Unavailable, UNAVAILABLE, String::new(), why.clone()),
        // Conflicts are answers, not failures; a call that cannot conflict has
        // none to report.
        CommitError::Conflict { .. } => status(Code::Aborted, INDETERMINATE, String::new(), reason),
    }
}

pub(super) fn read_status(error: &ReadError) -> Status {
    match error {
        ReadError::Refused(why) => status(Code::InvalidArgument, REFUSED, String::new(), why.clone()),
        ReadError::Unavailable(why) => status(Code::Unavailable, UNAVAILABLE, String::new(), why.clone()),
        ReadError::Corrupt(why) => status(Code::DataLoss, CORRUPT, String::new(), why.clone()),
    }
}

/// What a failed call means for a commit that was sent.
pub(super) fn commit_error(status: &Status) -> CommitError {
    if let Some(problem) = problem(status) {
        match problem.code.as_str() {
            REFUSED => return CommitError::Refused(problem.reason),
            FULL => return CommitError::Full,
            UNAVAILABLE => return CommitError::Unavailable(problem.reason),
            LEASE_GONE => {
                if let Ok(lease) = problem.value.parse() {
                    return CommitError::LeaseGone(lease);
                }
            }
            INDETERMINATE => return CommitError::Indeterminate(problem.reason),
            _ => {}
        }
    }
    let why = link_trouble(status);
    if was_never_sent(status) { CommitError::Unavailable(why) } else { CommitError::Indeterminate(why) }
}

/// What a failed call means for a read.
pub(super) fn read_error(status: &Status) -> ReadError {
    match problem(status) {
        Some(problem) if problem.code == REFUSED => ReadError::Refused(problem.reason),
        Some(problem) if problem.code == CORRUPT => ReadError::Corrupt(problem.reason),
        Some(problem) => ReadError::Unavailable(problem.reason),
        None => ReadError::Unavailable(link_trouble(status)),
    }
}

fn link_trouble(status: &Status) -> String {
    format!("the link to the store: {} ({})", status.message(), status.code().description())
}

fn problem(status: &Status) -> Option<Problem> {
    let problem = Problem::decode(status.details()).ok()?;
    problem.code.starts_with("store.").then_some(problem)
}

/// True only where the request cannot have reached a store: nobody listened,
/// or the door refused the caller before it looked at the request.
fn was_never_sent(status: &Status) -> bool {
    if matches!(status.code(), Code::Unauthenticated | Code::PermissionDenied | Code::Unimplemented) {
        return true;
    }
    let mut source = status.source();
    while let Some(error) = source {
        if error
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
        {
            return true;
        }
        source = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_comes_back_as_it_was() {
        for error in [
            CommitError::Refused("too big".to_owned()),
            CommitError::Full,
            CommitError::LeaseGone(17),
            CommitError::Indeterminate("sync".to_owned()),
            CommitError::Unavailable("closed".to_owned()),
        ] {
            assert_eq!(commit_error(&commit_status(&error)), error);
        }
        for error in [
            ReadError::Refused("too many".to_owned()),
            ReadError::Unavailable("closed".to_owned()),
            ReadError::Corrupt("page 7".to_owned()),
        ] {
            assert_eq!(read_error(&read_status(&error)), error);
        }
    }

    #[test]
    fn a_broken_link_leaves_a_commit_open_and_a_refused_connection_does_not() {
        assert!(matches!(commit_error(&Status::unavailable("reset")), CommitError::Indeterminate(_)));
        assert!(matches!(commit_error(&Status::deadline_exceeded("late")), CommitError::Indeterminate(_)));
        let refused = Status::from_error(Box::new(io::Error::from(io::ErrorKind::ConnectionRefused)));
        assert!(matches!(commit_error(&refused), CommitError::Unavailable(_)));
        assert!(matches!(commit_error(&Status::unauthenticated("who")), CommitError::Unavailable(_)));
    }

    #[test]
    fn a_guard_of_an_unknown_kind_is_no_guard_and_so_refused() {
        let request = v1::CommitRequest {
            guards: vec![v1::RowGuard { key: "k".into(), expect: None }],
            writes: Vec::new(),
        };
        assert!(commit_from_wire(request).is_err());
    }
}
