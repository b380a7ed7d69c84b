//! Tenants and their tokens.

use super::nodes::{narrow, plus};
use crate::auth::{self, Caller};
use crate::gate::Gate;
use crate::{limits, rows};
use prost::Message;
use proto::estimate::Need;
use proto::ids::TenantName;
use proto::problem::Problem;
use proto::v1::{
    CreateTokenReply, CreateTokenRequest, GrantRow, LedgerRow, ListTenantsReply, PutTenantReply,
    PutTenantRequest, Role, TenantRow, TenantView, TokenRow, WhenFull,
};
use proto::{keys, month};
use store::Commit;

/// Tries of a change that others change at the same time.
const TRIES: usize = 4;

pub(super) async fn put(gate: &Gate, request: PutTenantRequest) -> Result<PutTenantReply, Problem> {
    let Some(mut row) = request.tenant else {
        return Err(Problem::new("spec.missing", "tenant", "", "no tenant was sent", "send its row"));
    };
    TenantName::parse(&row.name)?;
    if row.when_full() == WhenFull::Unspecified {
        row.when_full = WhenFull::Reject.into();
    }
    let key = keys::tenant(&row.name);
    let mut tries = 0;
    loop {
        tries += 1;
        let known: Option<(TenantRow, u64)> = rows::get_with_version(&*gate.store, key.clone()).await?;
        let commit = match &known {
            Some((known, version)) => {
                row.created_ms = known.created_ms;
                Commit::new().guard_version(key.clone(), *version)
            }
            None => {
                row.created_ms = gate.clock.wall_ms();
                Commit::new().guard_absent(key.clone())
            }
        };
        match rows::commit(&*gate.store, commit.put(key.clone(), row.encode_to_vec())).await {
            Err(problem) if problem.code == "conflict.changed" && tries < TRIES => {}
            Err(problem) => return Err(problem),
            Ok(()) => {
                gate.meter.forget(&row.name);
                return Ok(PutTenantReply {});
            }
        }
    }
}

pub(super) async fn list(gate: &Gate, caller: &Caller) -> Result<ListTenantsReply, Problem> {
    let store = &*gate.store;
    let found: Vec<TenantRow> = if caller.sees_all() {
        rows::all_decoded(store, keys::TENANTS.as_bytes()).await?
    } else {
        rows::get(store, keys::tenant(&caller.tenant)).await?.into_iter().collect()
    };
    let mut tenants = Vec::with_capacity(found.len());
    for row in found {
        let ledger: Option<LedgerRow> = rows::get(store, keys::ledger(&row.name)).await?;
        let grants: Vec<GrantRow> = rows::all_decoded(store, &keys::grants_of(&row.name)).await?;
        let held = grants.iter().fold(Need::default(), |held, grant| {
            let slots = grant.nodes.iter().map(|node| u64::from(node.slots)).sum();
            plus(held, Need::of(&grant.per_slot.unwrap_or_default(), slots))
        });
        tenants.push(TenantView {
            tenant: Some(row),
            ledger: Some(month::turned(&ledger.unwrap_or_default(), gate.clock.wall_ms())),
            held: Some(narrow(held)),
        });
    }
    Ok(ListTenantsReply { tenants })
}

pub(super) async fn create_token(
    gate: &Gate,
    request: &CreateTokenRequest,
) -> Result<CreateTokenReply, Problem> {
    let CreateTokenRequest { name, tenant, .. } = request;
    let printable = !name.is_empty() && !name.chars().any(char::is_control);
    if !printable || name.len() > limits::TOKEN_NAME_BYTES_MAX {
        return Err(Problem::new(
            "spec.token_name",
            "name",
            name,
            "is not a token's name",
            format!("say whose it is in at most {} bytes", limits::TOKEN_NAME_BYTES_MAX),
        ));
    }
    let role = request.role();
    match role {
        Role::Unspecified => {
            let remedy = "use tenant, operator, admin or agent";
            return Err(Problem::new("spec.role", "role", request.role, "is no role", remedy));
        }
        Role::Tenant if tenant.is_empty() => {
            let reason = "a token of role tenant belongs to one";
            return Err(Problem::new("spec.tenant", "tenant", "", reason, "name the tenant"));
        }
        _ => {}
    }
    if !tenant.is_empty() {
        TenantName::parse(tenant)?;
        gate.tenants.must_exist(tenant).await?;
    }
    let token = world::rand::token();
    let row = TokenRow {
        name: name.clone(),
        role: role.into(),
        tenant: tenant.clone(),
        created_ms: gate.clock.wall_ms(),
    };
    let key = keys::token(&auth::hash(&token));
    let commit = Commit::new().guard_absent(key.clone()).put(key, row.encode_to_vec());
    rows::commit(&*gate.store, commit).await?;
    Ok(CreateTokenReply { token })
}
