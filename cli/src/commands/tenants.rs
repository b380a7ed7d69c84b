//! `drumline tenants`: listed with what they use, made with their limits.

use super::{Outcome, done};
use crate::{
    args::{Format, TenantAction, TenantCreate, TenantsArgs, WhenFullArg},
    client::Client,
    output::{self, Table, json, words},
};
use proto::{
    problem::Problem,
    units,
    v1::{Budget, ListTenantsRequest, PutTenantRequest, Quota, TenantRow, TenantView, WhenFull},
};

pub(super) async fn run(client: Client, args: TenantsArgs) -> Outcome {
    match args.action {
        None => list(client, args.format.format).await,
        Some(TenantAction::Ls { format }) => list(client, format.format).await,
        Some(TenantAction::Create(create)) => {
            let row = row(&create)?;
            client.put_tenant(PutTenantRequest { tenant: Some(row), was: None }).await?;
            output::line(&create.name)?;
            done()
        }
    }
}

fn row(create: &TenantCreate) -> Result<TenantRow, Problem> {
    proto::ids::TenantName::parse(&create.name)?;
    let bytes = |field: &str, text: &Option<String>| {
        text.as_deref()
            .map(|text| units::parse_memory_bytes(text).map_err(|error| error.at(field)))
            .transpose()
    };
    let money = |field: &str, text: &Option<String>| {
        text.as_deref().map(|text| words::parse_money(field, text)).transpose()
    };
    let millicores = create
        .cores
        .as_deref()
        .map(|text| units::parse_millicores(text).map_err(|error| error.at("cores")))
        .transpose()?;
    Ok(TenantRow {
        name: create.name.clone(),
        quota: Some(Quota {
            millicores: millicores.map(u64::from),
            memory_bytes: bytes("memory", &create.memory)?,
            gpus: create.gpus,
            storage_bytes: bytes("storage", &create.storage)?,
            ingress_bytes: bytes("ingress", &create.ingress)?,
            egress_bytes: bytes("egress", &create.egress)?,
            queued_tasks: create.queued_tasks,
        }),
        budget: Some(Budget {
            month_micros: money("budget", &create.budget)?,
            core_hour_micros: money("core_hour", &create.core_hour)?.unwrap_or(0),
            gpu_hour_micros: money("gpu_hour", &create.gpu_hour)?.unwrap_or(0),
        }),
        when_full: match create.when_full {
            WhenFullArg::Reject => WhenFull::Reject,
            WhenFullArg::Queue => WhenFull::Queue,
        }
        .into(),
        ..TenantRow::default()
    })
}

async fn list(client: Client, format: Format) -> Outcome {
    let tenants = client.list_tenants(ListTenantsRequest {}).await?.tenants;
    match format {
        Format::Json => output::json(&tenants.iter().map(json::tenant).collect())?,
        Format::Name => {
            let names =
                tenants.iter().filter_map(|view| view.tenant.as_ref()).map(|row| format!("{}\n", row.name));
            output::text(&names.collect::<String>())?;
        }
        format => {
            let mut headers = vec!["TENANT", "CORES", "MEMORY", "GPUS", "TASKS", "JOBS", "SPENT", "BUDGET"];
            if format == Format::Wide {
                headers.extend(["RESERVED", "STORAGE", "INGRESS", "EGRESS", "WHEN FULL"]);
            }
            let mut table = Table::new(&headers);
            for view in &tenants {
                table.row(cells(view, format == Format::Wide));
            }
            table.print("no tenants")?;
        }
    }
    done()
}

fn cells(view: &TenantView, wide: bool) -> Vec<String> {
    let row = view.tenant.clone().unwrap_or_default();
    let (quota, held) = (row.quota.unwrap_or_default(), view.held.unwrap_or_default());
    let ledger = view.ledger.unwrap_or_default();
    let budget = row.budget.unwrap_or_default();
    let of = |used: String, limit: Option<String>| match limit {
        Some(limit) => format!("{used}/{limit}"),
        None => used,
    };
    let mut cells = vec![
        row.name.clone(),
        of(
            units::format_millicores(u64::from(held.millicores)),
            quota.millicores.map(units::format_millicores),
        ),
        of(units::brief_memory_bytes(held.memory_bytes), quota.memory_bytes.map(units::brief_memory_bytes)),
        of(held.gpus.to_string(), quota.gpus.map(|gpus| gpus.to_string())),
        of(ledger.queued_tasks.to_string(), quota.queued_tasks.map(|tasks| tasks.to_string())),
        ledger.live_jobs.to_string(),
        words::money(ledger.settled_micros),
        budget.month_micros.map_or_else(|| "-".to_owned(), words::money),
    ];
    if wide {
        let bytes = |used, limit: Option<u64>| {
            of(units::brief_memory_bytes(used), limit.map(units::brief_memory_bytes))
        };
        cells.extend([
            words::money(ledger.reserved_micros),
            bytes(ledger.storage_bytes, quota.storage_bytes),
            bytes(ledger.ingress_bytes, quota.ingress_bytes),
            bytes(ledger.egress_bytes, quota.egress_bytes),
            if row.when_full() == WhenFull::Queue { "queue" } else { "reject" }.to_owned(),
        ]);
    }
    cells
}
