//! Rows read and written with refusals for people.

use prost::Message;
use proto::problem::{self, Problem};
use store::{Commit, CommitError, Key, RangeRequest, ReadError, Revision, Row, Store};

/// A read that failed.
pub(crate) fn unreadable(error: ReadError) -> Problem {
    match error {
        ReadError::Unavailable(why) => problem::unavailable("store", why),
        error => problem::internal(error.to_string()),
    }
}

/// A commit that failed, or may have.
pub(crate) fn uncommitted(error: CommitError) -> Problem {
    match error {
        CommitError::Full => problem::unavailable("disk_full", error.to_string()),
        CommitError::Indeterminate(why) => problem::unavailable("indeterminate", why),
        CommitError::Unavailable(why) => problem::unavailable("store", why),
        CommitError::Conflict { .. } => {
            problem::conflict("changed", "", "", error.to_string(), "look again, then repeat the request")
        }
        error => problem::internal(error.to_string()),
    }
}

pub(crate) fn decode<T: Message + Default>(row: &Row) -> Result<T, Problem> {
    T::decode(&row.value[..]).map_err(|_| {
        let key = String::from_utf8_lossy(&row.key);
        problem::internal(format!("row {key} does not decode: damaged, or written by a newer version"))
    })
}

pub(crate) async fn get<T: Message + Default>(store: &dyn Store, key: Key) -> Result<Option<T>, Problem> {
    Ok(get_with_version(store, key).await?.map(|(row, _)| row))
}

pub(crate) async fn get_with_version<T: Message + Default>(
    store: &dyn Store,
    key: Key,
) -> Result<Option<(T, Revision)>, Problem> {
    let row = store.get(key).await.map_err(unreadable)?;
    row.map(|row| Ok((decode(&row)?, row.version))).transpose()
}

/// All rows below a prefix. Only for families that stay small (nodes, tenants,
/// grants), and for one job's own.
pub(crate) async fn all(store: &dyn Store, prefix: &[u8]) -> Result<Vec<Row>, Problem> {
    store::scan(store, prefix, crate::limits::ROWS_PER_READ).await.map_err(unreadable)
}

pub(crate) async fn all_decoded<T: Message + Default>(
    store: &dyn Store,
    prefix: &[u8],
) -> Result<Vec<T>, Problem> {
    all(store, prefix).await?.iter().map(decode).collect()
}

pub(crate) async fn range(store: &dyn Store, request: RangeRequest) -> Result<store::Page, Problem> {
    store.range(request).await.map_err(unreadable)
}

pub(crate) async fn commit(store: &dyn Store, commit: Commit) -> Result<(), Problem> {
    store.commit(commit).await.map(|_| ()).map_err(uncommitted)
}
