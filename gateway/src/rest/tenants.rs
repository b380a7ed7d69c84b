//! A tenant's limits: shown with what it uses, and replaced.

use super::body::json_text;
use super::problem::Refusal;
use super::{Call, ok};
use crate::limits;
use axum::body::Body;
use axum::response::Response;
use proto::ids::TenantName;
use proto::jobfile::{read_json, whole};
use proto::json as shown;
use proto::problem::{self, Problem};
use proto::v1::drumline_server::Drumline as _;
use proto::v1::{Budget, ListTenantsRequest, PutTenantRequest, Quota, TenantRow, TenantView, WhenFull};
use proto::{fairness, retention, words};
use serde::Deserialize;
use world::grpc::axum;

/// What a `PUT` says; in the words of the answer.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Limits {
    quota: Option<LimitsOfQuota>,
    budget: Option<String>,
    core_hour: Option<String>,
    gpu_hour: Option<String>,
    when_full: Option<String>,
    #[serde(default, deserialize_with = "whole")]
    retention_ms: Option<u64>,
    #[serde(default, deserialize_with = "whole")]
    weight: Option<u64>,
    parent: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct LimitsOfQuota {
    cores: Option<f64>,
    #[serde(default, deserialize_with = "whole")]
    memory_bytes: Option<u64>,
    #[serde(default, deserialize_with = "whole")]
    gpus: Option<u64>,
    #[serde(default, deserialize_with = "whole")]
    storage_bytes: Option<u64>,
    #[serde(default, deserialize_with = "whole")]
    ingress_bytes: Option<u64>,
    #[serde(default, deserialize_with = "whole")]
    egress_bytes: Option<u64>,
    #[serde(default, deserialize_with = "whole")]
    queued_tasks: Option<u64>,
}

/// The tenant of the path, as its caller may see it.
async fn view(call: &Call) -> Result<TenantView, Refusal> {
    let name = call.path.get("tenant").map_or("", String::as_str);
    TenantName::parse(name).map_err(|problem| Refusal::not_there("tenant", problem))?;
    let name = call.tenant_of(name)?;
    let reply = call.rest.front.list_tenants(call.ask(ListTenantsRequest {})).await?.into_inner();
    let found =
        reply.tenants.into_iter().find(|view| view.tenant.as_ref().is_some_and(|row| row.name == name));
    found.ok_or_else(|| problem::missing("tenant", name).into())
}

pub(super) async fn quota(call: Call) -> Result<Response, Refusal> {
    ok(&shown::tenant(&view(&call).await?))
}

pub(super) async fn put_quota(call: Call, body: Body) -> Result<Response, Refusal> {
    let text = json_text(&call.headers, body, limits::SMALL_BODY_BYTES_MAX).await?;
    let limits: Limits = read_json(&text)?;
    // It must be there: a slip in a name makes no tenant.
    let known = view(&call).await?.tenant.unwrap_or_default();
    let row = limits.row(known)?;
    let request = PutTenantRequest { tenant: Some(row), was: None };
    call.rest.front.put_tenant(call.ask(request)).await?;
    quota(call).await
}

/// What a `PUT` says of a tenant of whom nothing is known.
pub(super) fn read_limits(text: &str) -> Result<TenantRow, Problem> {
    read_json::<Limits>(text)?.row(TenantRow::default())
}

impl Limits {
    fn row(self, known: TenantRow) -> Result<TenantRow, Problem> {
        let Self { quota, budget, core_hour, gpu_hour, when_full, retention_ms, weight, parent } = self;
        retention_ms.map_or(Ok(()), |kept_ms| retention::check("retention_ms", kept_ms))?;
        let weight = weight.map(|weight| u32::try_from(weight).unwrap_or(u32::MAX));
        weight.map_or(Ok(()), |weight| fairness::check("weight", weight))?;
        let quota = quota.unwrap_or_default();
        let money =
            |field: &str, text: Option<String>| text.map(|text| words::parse_money(field, &text)).transpose();
        Ok(TenantRow {
            quota: Some(Quota {
                millicores: quota.cores.map(millicores).transpose()?,
                memory_bytes: amount("memory_bytes", quota.memory_bytes)?,
                gpus: amount("gpus", quota.gpus)?,
                storage_bytes: amount("storage_bytes", quota.storage_bytes)?,
                ingress_bytes: amount("ingress_bytes", quota.ingress_bytes)?,
                egress_bytes: amount("egress_bytes", quota.egress_bytes)?,
                queued_tasks: amount("queued_tasks", quota.queued_tasks)?,
            }),
            budget: Some(Budget {
                month_micros: money("budget", budget)?,
                core_hour_micros: money("core_hour", core_hour)?.unwrap_or(0),
                gpu_hour_micros: money("gpu_hour", gpu_hour)?.unwrap_or(0),
            }),
            when_full: match when_full.as_deref() {
                None | Some("reject") => WhenFull::Reject.into(),
                Some("queue") => WhenFull::Queue.into(),
                Some(other) => {
                    let remedy = "use reject or queue";
                    return Err(Problem::new(
                        "spec.when_full",
                        "when_full",
                        other,
                        "is no such word",
                        remedy,
                    ));
                }
            },
            retention_ms,
            weight: weight.filter(|&weight| weight != fairness::WEIGHT).unwrap_or(0),
            parent: parent.unwrap_or_default(),
            ..known
        })
    }
}

fn amount(field: &str, amount: Option<u64>) -> Result<Option<u64>, Problem> {
    match amount {
        Some(amount) if amount > limits::AMOUNT_MAX => Err(out_of_bounds(field, amount, limits::AMOUNT_MAX)),
        amount => Ok(amount),
    }
}

fn out_of_bounds(field: &str, value: impl std::fmt::Display, most: u64) -> Problem {
    Problem::new(
        "spec.size",
        format!("quota.{field}"),
        value,
        "is out of bounds",
        format!("use 0 to {most}, or leave it out for no limit"),
    )
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "between 0 and some millions"
)]
fn millicores(cores: f64) -> Result<u64, Problem> {
    if !(0.0..=limits::QUOTA_CORES_MAX as f64).contains(&cores) {
        return Err(out_of_bounds("cores", cores, limits::QUOTA_CORES_MAX));
    }
    Ok((cores * 1000.0).round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(text: &str) -> Result<TenantRow, Problem> {
        let known = TenantRow { name: "lab".into(), created_ms: 7, ..TenantRow::default() };
        serde_json::from_str::<Limits>(text).unwrap().row(known)
    }

    #[test]
    fn what_is_left_out_is_no_limit() {
        let told =
            row(r#"{"quota": {"cores": 1.5, "gpus": 0}, "budget": "500", "when_full": "queue"}"#).unwrap();
        let quota = told.quota.unwrap();
        assert_eq!((quota.millicores, quota.gpus, quota.memory_bytes), (Some(1500), Some(0), None));
        assert_eq!(told.budget.unwrap().month_micros, Some(500_000_000));
        assert_eq!((told.when_full(), told.name.as_str(), told.created_ms), (WhenFull::Queue, "lab", 7));
        assert_eq!(row(r#"{"retention_ms": 5000}"#).unwrap().retention_ms, Some(5000));
        assert_eq!(row(r#"{"weight": 300}"#).unwrap().weight, 300);
        assert_eq!(row(r#"{"parent": "org"}"#).unwrap().parent, "org");
        let known =
            TenantRow { retention_ms: Some(1), weight: 7, parent: "org".into(), ..TenantRow::default() };
        let none = serde_json::from_str::<Limits>("{}").unwrap().row(known).unwrap();
        assert_eq!(
            (none.retention_ms, none.weight, none.parent),
            (None, 0, String::new()),
            "it replaces all"
        );
        let told = row("{}").unwrap();
        assert_eq!((told.quota.unwrap(), told.when_full()), (Quota::default(), WhenFull::Reject));
    }

    #[test]
    fn what_is_out_of_bounds_is_named() {
        for (text, field) in [
            (r#"{"quota": {"cores": -1}}"#, "quota.cores"),
            (r#"{"quota": {"cores": 1e300}}"#, "quota.cores"),
            (r#"{"quota": {"memory_bytes": 9007199254740992}}"#, "quota.memory_bytes"),
            (r#"{"budget": "a lot"}"#, "budget"),
            (r#"{"when_full": "panic"}"#, "when_full"),
            (r#"{"retention_ms": 999}"#, "retention_ms"),
            (r#"{"weight": 0}"#, "weight"),
            (r#"{"weight": 4294967297}"#, "weight"),
        ] {
            assert_eq!(row(text).unwrap_err().field, field);
        }
    }
}
