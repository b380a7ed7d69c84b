//! Taking the shards, and reading every row the core needs.

use super::limits;
use crate::core::{Core, EndedJob, Loaded, LoadedJob};
use crate::limits::ROWS_PER_EXPIRY;
use prost::Message;
use proto::keys::{self, Parsed};
use proto::v1::{
    BlockRow, CheckpointRow, GrantRow, JobRow, JobStateRow, LedgerRow, ManifestRow, NodeRow, ShardRow, State,
    TenantRow,
};
use std::collections::BTreeMap;
use std::fmt;
use store::{
    Commit, CommitError, Expect, Guard, Key, LeaseId, RangeRequest, ReadError, Revision, Row, Store, Write,
};

/// Why the shards could not be taken or the rows not be read.
#[derive(Clone, Debug)]
pub(super) enum LoadError {
    Read(ReadError),
    Commit(CommitError),
    /// Another controller holds a shard.
    Held(String),
    /// The shards were lost while the rows were read.
    Lost,
    /// A row that does not decode: damage, or a newer version's.
    Row(String),
}
impl From<ReadError> for LoadError {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}
impl From<CommitError> for LoadError {
    fn from(error: CommitError) -> Self {
        Self::Commit(error)
    }
}
impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(error) => error.fmt(f),
            Self::Commit(error) => error.fmt(f),
            Self::Held(owner) => {
                write!(f, "the jobs are another controller's ({owner}) until its lease ends")
            }
            Self::Lost => f.write_str("the shards' lease ended while the rows were read"),
            Self::Row(key) => write!(f, "row {key} does not decode: damaged, or written by a newer version"),
        }
    }
}

/// Who holds the shards: all are taken, and lost, together.
async fn holder(store: &dyn Store) -> Result<Option<String>, LoadError> {
    let row = store.get(keys::shard(0)).await?;
    row.map(|row| Ok(decode::<ShardRow>(&row)?.owner)).transpose()
}

/// Fails where another controller holds the shards.
pub(super) async fn must_be_free(store: &dyn Store) -> Result<(), LoadError> {
    holder(store).await?.map_or(Ok(()), |holder| Err(LoadError::Held(holder)))
}

/// Fails where the shards are no longer `owner`'s. Where they are, nobody else has
/// written since they were taken: whoever does guards its own rows of them.
pub(super) async fn must_be_held(store: &dyn Store, owner: &str) -> Result<(), LoadError> {
    match holder(store).await? {
        Some(holder) if holder == owner => Ok(()),
        Some(holder) => Err(LoadError::Held(holder)),
        None => Err(LoadError::Lost),
    }
}

/// Takes all shards for `owner`; with the revision at which it did. Rows of the owner's own lease are replaced;
/// another's are respected until they vanish with its lease.
pub(super) async fn take_shards(
    store: &dyn Store,
    lease: LeaseId,
    owner: &str,
) -> Result<(BTreeMap<u16, ShardRow>, Revision), LoadError> {
    let mut taken = BTreeMap::new();
    let mut commit = Commit::default();
    for shard in 0..proto::ids::SHARDS {
        let key = keys::shard(shard);
        if let Some(row) = store.get(key.clone()).await? {
            let held: ShardRow = decode(&row)?;
            return Err(LoadError::Held(held.owner));
        }
        let row = ShardRow { owner: owner.to_owned(), epoch: 1, seq: 0 };
        commit.guards.push(Guard { key: key.clone(), expect: Expect::Absent });
        commit.writes.push(Write { key, value: Some(row.encode_to_vec().into()), lease });
        taken.insert(shard, row);
    }
    let revision = store.commit(commit).await?;
    Ok((taken, revision))
}

/// Feeds every row into a fresh core. Live jobs only, with their blocks and
/// manifests.
pub(super) async fn load(store: &dyn Store, core: &mut Core) -> Result<(), LoadError> {
    for row in scan(store, keys::TENANTS).await? {
        core.load(Loaded::Tenant(decode::<TenantRow>(&row)?));
    }
    for row in scan(store, keys::LEDGERS).await? {
        let Some(Parsed::Ledger { tenant }) = keys::parse(&row.key) else { return Err(unreadable(&row)) };
        core.load(Loaded::Ledger(tenant, decode::<LedgerRow>(&row)?));
    }
    for row in scan(store, keys::NODES).await? {
        core.load(Loaded::Node(decode::<NodeRow>(&row)?));
    }
    // Only live jobs matter, and their states name them.
    for row in scan(store, keys::STATES).await? {
        let state: JobStateRow = decode(&row)?;
        let Some(Parsed::State { tenant, number }) = keys::parse(&row.key) else {
            return Err(unreadable(&row));
        };
        if !ended(state.state()) {
            load_job(store, core, &tenant, number, state).await?;
        } else if let Some(job) = EndedJob::of(number, &state) {
            core.load(Loaded::Ended(tenant, job));
        }
    }
    for row in scan(store, keys::GRANTS).await? {
        core.load(Loaded::Grant(decode::<GrantRow>(&row)?));
    }
    for (tenant, number) in core.ends_wanted() {
        if let Some(row) = store.get(keys::state(&tenant, number)).await? {
            let state = decode::<JobStateRow>(&row)?.state();
            if ended(state) {
                core.load(Loaded::End(tenant, number, state));
            }
        }
    }
    for (tenant, number) in core.rows_wanted() {
        if let Some(rows) = tasks_of(store, &tenant, number).await?
            && ended(rows.state.state())
        {
            core.load(Loaded::Followed(Box::new(rows)));
        }
    }
    Ok(())
}

/// What the tasks of a job have come to: its rows without manifests, if it is
/// there. A job that is live may have moved on between two of them.
pub(super) async fn tasks_of(
    store: &dyn Store,
    tenant: &str,
    number: u64,
) -> Result<Option<LoadedJob>, LoadError> {
    let Some(state) = store.get(keys::state(tenant, number)).await? else { return Ok(None) };
    let Some(job) = store.get(keys::job(tenant, number)).await? else { return Ok(None) };
    let blocks = blocks(store, tenant, number).await?;
    Ok(Some(LoadedJob { job: decode(&job)?, state: decode(&state)?, blocks, ..LoadedJob::default() }))
}

async fn load_job(
    store: &dyn Store,
    core: &mut Core,
    tenant: &str,
    number: u64,
    state: JobStateRow,
) -> Result<(), LoadError> {
    let key = keys::job(tenant, number);
    let row = store.get(key.clone()).await?;
    let row = row.ok_or_else(|| LoadError::Row(String::from_utf8_lossy(&key).into_owned()))?;
    core.load(Loaded::Job(decode::<JobRow>(&row)?, state));
    for (step, block, row) in blocks(store, tenant, number).await? {
        core.load(Loaded::Block { tenant: tenant.to_owned(), number, step, block, row });
    }
    for (step, row) in manifests(store, tenant, number).await? {
        core.load(Loaded::Manifest { tenant: tenant.to_owned(), number, step, row });
    }
    for (at, row) in checkpoints(store, tenant, number).await? {
        core.load(Loaded::Checkpoint { tenant: tenant.to_owned(), number, at, row });
    }
    Ok(())
}

/// All blocks of a job: step, block, row.
pub(super) async fn blocks(
    store: &dyn Store,
    tenant: &str,
    number: u64,
) -> Result<Vec<(u32, u64, BlockRow)>, LoadError> {
    let rows = scan(store, keys::blocks_of_job(tenant, number)).await?;
    rows.iter()
        .map(|row| {
            let Some(Parsed::Block { step, block, .. }) = keys::parse(&row.key) else {
                return Err(unreadable(row));
            };
            Ok((step, block, decode(row)?))
        })
        .collect()
}

/// All manifests of a job with their step.
pub(super) async fn manifests(
    store: &dyn Store,
    tenant: &str,
    number: u64,
) -> Result<Vec<(u32, ManifestRow)>, LoadError> {
    let rows = scan(store, keys::manifests_of_job(tenant, number)).await?;
    rows.iter()
        .map(|row| {
            let Some(Parsed::Manifest { step, .. }) = keys::parse(&row.key) else {
                return Err(unreadable(row));
            };
            Ok((step, decode(row)?))
        })
        .collect()
}

/// All checkpoints of a job with their step, task and rank.
pub(super) async fn checkpoints(
    store: &dyn Store,
    tenant: &str,
    number: u64,
) -> Result<Vec<((u32, u64, u32), CheckpointRow)>, LoadError> {
    let rows = scan(store, keys::checkpoints_of_job(tenant, number)).await?;
    rows.iter()
        .map(|row| {
            let Some(Parsed::Checkpoint { step, task, rank, .. }) = keys::parse(&row.key) else {
                return Err(unreadable(row));
            };
            Ok(((step, task, rank), decode(row)?))
        })
        .collect()
}

/// The first keys of what a job gave: manifests, then checkpoints.
pub(super) async fn given(store: &dyn Store, tenant: &str, number: u64) -> Result<Vec<Key>, LoadError> {
    let mut keys = Vec::new();
    for from in [keys::manifests_of_job(tenant, number), keys::checkpoints_of_job(tenant, number)] {
        let limit = ROWS_PER_EXPIRY - keys.len();
        if limit > 0 {
            let to = keys::prefix_end(&from);
            let page = store.range(RangeRequest { from, to, limit, backwards: false }).await?;
            keys.extend(page.rows.into_iter().map(|row| row.key));
        }
    }
    Ok(keys)
}

/// Of the row of a state, what is to go some time.
pub(super) fn ended_job(row: &Row) -> Result<Option<EndedJob>, LoadError> {
    let Some(Parsed::State { number, .. }) = keys::parse(&row.key) else { return Err(unreadable(row)) };
    Ok(EndedJob::of(number, &decode(row)?))
}

pub(super) fn decode<T: Message + Default>(row: &Row) -> Result<T, LoadError> {
    T::decode(&row.value[..]).map_err(|_| unreadable(row))
}

fn unreadable(row: &Row) -> LoadError {
    LoadError::Row(String::from_utf8_lossy(&row.key).into_owned())
}

pub(super) fn ended(state: State) -> bool {
    matches!(state, State::Completed | State::Failed | State::Cancelled)
}

async fn scan(store: &dyn Store, prefix: impl AsRef<[u8]>) -> Result<Vec<Row>, LoadError> {
    Ok(store::scan(store, prefix.as_ref(), limits::LOAD_PAGE).await?)
}
