//! Tenants, their limits, and what they use.

use super::groups;
use super::nodes::narrow;
use crate::auth::Caller;
use crate::gate::Gate;
use crate::rows;
use prost::Message;
use proto::estimate::{self, Need};
use proto::ids::TenantName;
use proto::problem::{self, Problem};
use proto::v1::{
    GrantRow, LedgerRow, ListTenantsReply, PutTenantReply, PutTenantRequest, TenantRow, TenantView, WhenFull,
};
use proto::{fairness, keys, month, retention};
use store::Commit;

/// Tries of a change that others change at the same time.
const TRIES: usize = 4;

pub(super) async fn put(gate: &Gate, request: PutTenantRequest) -> Result<PutTenantReply, Problem> {
    let Some(mut row) = request.tenant else {
        return Err(Problem::new("spec.missing", "tenant", "", "no tenant was sent", "send its row"));
    };
    TenantName::parse(&row.name)?;
    row.retention_ms.map_or(Ok(()), |kept_ms| retention::check("retention_ms", kept_ms))?;
    if row.weight != 0 {
        fairness::check("weight", row.weight)?;
    }
    fairness::check_group(&row)?;
    if row.when_full() == WhenFull::Unspecified {
        row.when_full = WhenFull::Reject.into();
    }
    let key = keys::tenant(&row.name);
    let was = request.was;
    let mut tries = 0;
    loop {
        tries += 1;
        let known: Option<(TenantRow, u64)> = rows::get_with_version(&*gate.store, key.clone()).await?;
        if let Some(was) = &was {
            let Some((known, _)) = &known else { return Err(problem::missing("tenant", &row.name)) };
            if known != was {
                return Err(changed_meanwhile(&row.name));
            }
        }
        let mut commit = Commit::new();
        for (above, version) in groups::above(&*gate.store, &row).await? {
            commit = commit.guard_version(keys::tenant(&above), version);
        }
        let commit = match &known {
            Some((known, _)) if known.group != row.group => return Err(groups::is_other(known)),
            Some((known, version)) => {
                row.created_ms = known.created_ms;
                commit.guard_version(key.clone(), *version)
            }
            None => {
                row.created_ms = gate.clock.wall_ms();
                commit.guard_absent(key.clone())
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

/// Who changes a part of it must not undo what another changed.
fn changed_meanwhile(name: &str) -> Problem {
    let reason = "was changed by another at the same time";
    problem::conflict("tenant", "tenant", name, reason, "look at it again, then change it again")
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
        let grants: Vec<GrantRow> = if row.group {
            let all: Vec<GrantRow> = rows::all_decoded(store, keys::GRANTS.as_bytes()).await?;
            all.into_iter().filter(|grant| grant.groups.contains(&row.name)).collect()
        } else {
            rows::all_decoded(store, &keys::grants_of(&row.name)).await?
        };
        let held =
            grants.iter().flat_map(estimate::held).fold(Need::default(), |sum, (_, need)| sum.plus(need));
        tenants.push(TenantView {
            tenant: Some(row),
            ledger: Some(month::turned(&ledger.unwrap_or_default(), gate.clock.wall_ms())),
            held: Some(narrow(held)),
        });
    }
    Ok(ListTenantsReply { tenants, own: caller.tenant.clone() })
}
