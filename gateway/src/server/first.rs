//! What a cluster has once: made at the first start, found at later ones.

use super::{Data, FORMAT_VERSION, StartError, client_env};
use crate::{auth, limits};
use prost::Message;
use proto::keys;
use proto::v1::{FormatRow, Role, TenantRow, TokenRow, WhenFull};
use std::io;
use std::sync::Arc;
use store::{Commit, Key, ReadError, Store};
use world::Disk;
use world::task::blocking;

/// In a directory that servers share: which cluster's it is.
const CLUSTER_ID: &str = "cluster.id";
/// The tenant that is there from the first.
pub(super) const TENANT: &str = "default";

/// The format row, made with the first tenant in one commit where the store is
/// new.
pub(super) async fn format(
    store: &dyn Store,
    wall_ms: u64,
    data: &Data<'_>,
    cluster_id: Option<String>,
) -> Result<FormatRow, StartError> {
    if let Some(row) = read::<FormatRow>(store, keys::format(), data).await? {
        if row.version > FORMAT_VERSION {
            return Err(StartError::NewerFormat { data: data.name(), found: row.version });
        }
        if row.version == 0 || row.signing_key.is_empty() {
            return Err(data.damaged("its format row is not whole"));
        }
        return Ok(row);
    }
    let row = FormatRow {
        version: FORMAT_VERSION,
        created_ms: wall_ms,
        signing_key: world::rand::bytes::<32>().to_vec().into(),
        cluster_id: cluster_id.unwrap_or_else(new_id),
    };
    let tenant = TenantRow {
        name: TENANT.to_owned(),
        when_full: WhenFull::Reject.into(),
        created_ms: wall_ms,
        ..TenantRow::default()
    };
    let commit = Commit::new()
        .guard_absent(keys::format())
        .guard_absent(keys::tenant(TENANT))
        .put(keys::format(), row.encode_to_vec())
        .put(keys::tenant(TENANT), tenant.encode_to_vec());
    store.commit(commit).await.map_err(|error| data.uncommitted(&error))?;
    Ok(row)
}

fn new_id() -> String {
    crate::hex(&world::rand::bytes::<8>())
}

/// Makes sure that the directory is the one which all servers of a store share: it says
/// so itself. Returns the id of its cluster, which a new one is to have.
///
/// # Errors
/// `NotShared` where the store has rows already, and the directory is of another cluster
/// or of none.
pub(super) async fn shared_directory(
    disk: &Arc<dyn Disk>,
    store: &dyn Store,
    data: &Data<'_>,
) -> Result<String, StartError> {
    let row: Option<FormatRow> = read(store, keys::format(), data).await?;
    let found = small_file(disk, CLUSTER_ID).await.map_err(|error| data.failed(&error))?;
    let id = match (row, found) {
        (None, Some(id)) => return Ok(id),
        (Some(row), Some(id)) if row.cluster_id == id => return Ok(id),
        // That of one server, whose store was taken out of it.
        (Some(row), None) if knows_an_admin(disk, store, data).await? => row.cluster_id,
        (None, None) => new_id(),
        (Some(_), _) => return Err(StartError::NotShared { data: data.name() }),
    };
    let (disk, text) = (Arc::clone(disk), id.clone());
    let made = blocking(move || world::disk::replace(&*disk, CLUSTER_ID, text.as_bytes()));
    made.await.map_err(|error| data.failed(&error))?;
    Ok(id)
}

/// Whether the directory has the token of an admin of this very store.
async fn knows_an_admin(
    disk: &Arc<dyn Disk>,
    store: &dyn Store,
    data: &Data<'_>,
) -> Result<bool, StartError> {
    let Some(token) = client_env::token(disk).await.map_err(|error| data.failed(&error))? else {
        return Ok(false);
    };
    let row: Option<TokenRow> = read(store, keys::token(&auth::hash(&token)), data).await?;
    Ok(row.is_some_and(|row| row.role() == Role::Admin))
}

async fn small_file(disk: &Arc<dyn Disk>, name: &'static str) -> io::Result<Option<String>> {
    let disk = Arc::clone(disk);
    let read = blocking(move || world::disk::read_all(&*disk, name, limits::CLIENT_ENV_BYTES_MAX)).await;
    match read {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).trim().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The admin token of `client.env` where it is still good, else a new one.
pub(super) async fn admin_token(
    disk: &Arc<dyn Disk>,
    store: &dyn Store,
    wall_ms: u64,
    data: &Data<'_>,
) -> Result<String, StartError> {
    if let Some(token) = client_env::token(disk).await.map_err(|error| data.failed(&error))? {
        let row: Option<TokenRow> = read(store, keys::token(&auth::hash(&token)), data).await?;
        if row.is_some_and(|row| row.role() == Role::Admin) {
            return Ok(token);
        }
    }
    let token = world::rand::token();
    let row = TokenRow {
        name: "admin".to_owned(),
        role: Role::Admin.into(),
        tenant: TENANT.to_owned(),
        created_ms: wall_ms,
    };
    let key = keys::token(&auth::hash(&token));
    let commit = Commit::new().guard_absent(key.clone()).put(key, row.encode_to_vec());
    store.commit(commit).await.map_err(|error| data.uncommitted(&error))?;
    Ok(token)
}

async fn read<T: Message + Default>(
    store: &dyn Store,
    key: Key,
    data: &Data<'_>,
) -> Result<Option<T>, StartError> {
    let row = store.get(key.clone()).await.map_err(|error| match error {
        ReadError::Corrupt(why) => data.damaged(why),
        error => StartError::Data { data: data.name(), why: error.to_string() },
    })?;
    row.map(|row| T::decode(row.value))
        .transpose()
        .map_err(|_| data.damaged(format!("row {} does not decode", String::from_utf8_lossy(&key))))
}
