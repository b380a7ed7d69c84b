//! What a cluster has once: made at the first start, found at later ones.

use super::{Data, FORMAT_VERSION, StartError, client_env};
use crate::auth;
use prost::Message;
use proto::keys;
use proto::v1::{FormatRow, Role, TenantRow, TokenRow, WhenFull};
use std::sync::Arc;
use store::{Commit, Key, ReadError, Store};
use world::Disk;

/// The tenant that is there from the first.
pub(super) const TENANT: &str = "default";

/// The format row, made with the first tenant in one commit where the store is
/// new.
pub(super) async fn format(
    store: &dyn Store,
    wall_ms: u64,
    data: &Data<'_>,
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
        cluster_id: crate::hex(&world::rand::bytes::<8>()),
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
