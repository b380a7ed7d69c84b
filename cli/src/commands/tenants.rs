//! `drumline tenants`: listed with what they use, made and changed.

use super::{Outcome, done};
use crate::{
    args::{Format, TenantAction, TenantLimits, TenantsArgs, WhenFullArg},
    client::Client,
    failure::Failure,
    output::{self, Table, json, words},
};
use proto::{
    fairness,
    problem::{self, Problem},
    retention, units,
    v1::{ListTenantsRequest, PutTenantRequest, TenantRow, TenantView, WhenFull},
};

/// Tries of a change that others change at the same time.
const TRIES: usize = 4;

pub(super) async fn run(client: Client, args: TenantsArgs) -> Outcome {
    match args.action {
        None => list(client, args.format.format).await,
        Some(TenantAction::Ls { format }) => list(client, format.format).await,
        Some(TenantAction::Show { name, format }) => {
            super::quota::show(&find(&client, &name).await?, format.format)
        }
        Some(TenantAction::Create(limits)) => {
            let mut row = TenantRow::default();
            apply(&mut row, &limits)?;
            client.put_tenant(PutTenantRequest { tenant: Some(row), was: None }).await?;
            output::line(&limits.name)?;
            done()
        }
        Some(TenantAction::Set(limits)) => set(&client, &limits).await,
    }
}

/// Changes what is named and leaves the rest, also what others change at the
/// same time.
pub(super) async fn set(client: &Client, limits: &TenantLimits) -> Outcome {
    if limits.is_empty() {
        let remedy = "name one, like --cores 64; `drumline tenants set --help` lists them";
        return Err(Failure::wrong_use("limits", "", "none is told", remedy));
    }
    let mut tries = 0;
    loop {
        tries += 1;
        let was = find(client, &limits.name).await?.tenant.unwrap_or_default();
        let mut row = was.clone();
        apply(&mut row, limits)?;
        match client.put_tenant(PutTenantRequest { tenant: Some(row), was: Some(was) }).await {
            Err(Failure::Refused(problem)) if problem.code == "conflict.tenant" && tries < TRIES => {}
            Err(failure) => return Err(failure),
            Ok(_) => {
                output::line(&limits.name)?;
                return done();
            }
        }
    }
}

/// The tenant of this name; without one the caller's own.
pub(super) async fn find(client: &Client, name: &str) -> Result<TenantView, Failure> {
    let reply = client.list_tenants(ListTenantsRequest {}).await?;
    let name = if name.is_empty() { &reply.own } else { name };
    if name.is_empty() {
        let reason = "is not told, and this token is for none";
        return Err(Failure::wrong_use("tenant", "", reason, "name it, or give --tenant"));
    }
    let is = |view: &&TenantView| view.tenant.as_ref().is_some_and(|row| row.name == name);
    match reply.tenants.iter().find(is) {
        Some(view) => Ok(view.clone()),
        None => Err(problem::missing("tenant", name).into()),
    }
}

/// Sets a limit where one is told; `none` lifts it.
fn limit<T>(
    field: &str,
    told: Option<&String>,
    kept: &mut Option<T>,
    parse: impl Fn(&str) -> Result<T, Problem>,
) -> Result<(), Problem> {
    match told.map(String::as_str) {
        None => {}
        Some("none") => *kept = None,
        Some(text) => {
            *kept = Some(parse(text).map_err(|problem| Problem { field: field.to_owned(), ..problem })?);
        }
    }
    Ok(())
}

fn apply(row: &mut TenantRow, limits: &TenantLimits) -> Result<(), Problem> {
    proto::ids::TenantName::parse(&limits.name)?;
    row.name.clone_from(&limits.name);
    let bytes = |text: &str| units::parse_memory_bytes(text).map_err(|error| error.at(""));
    let millicores = |text: &str| units::parse_millicores(text).map(u64::from).map_err(|error| error.at(""));
    let count = |text: &str| {
        text.parse()
            .map_err(|_| Problem::new("spec.unit", "", text, "is no count", "write it like 8, or none"))
    };
    let money = |text: &str| words::parse_money("", text);
    let quota = row.quota.get_or_insert_default();
    limit("cores", limits.cores.as_ref(), &mut quota.millicores, millicores)?;
    limit("memory", limits.memory.as_ref(), &mut quota.memory_bytes, bytes)?;
    limit("gpus", limits.gpus.as_ref(), &mut quota.gpus, count)?;
    limit("storage", limits.storage.as_ref(), &mut quota.storage_bytes, bytes)?;
    limit("ingress", limits.ingress.as_ref(), &mut quota.ingress_bytes, bytes)?;
    limit("egress", limits.egress.as_ref(), &mut quota.egress_bytes, bytes)?;
    limit("queued-tasks", limits.queued_tasks.as_ref(), &mut quota.queued_tasks, count)?;
    let budget = row.budget.get_or_insert_default();
    limit("budget", limits.budget.as_ref(), &mut budget.month_micros, money)?;
    for (field, told, kept) in [
        ("core-hour", &limits.core_hour, &mut budget.core_hour_micros),
        ("gpu-hour", &limits.gpu_hour, &mut budget.gpu_hour_micros),
    ] {
        let mut price = Some(*kept);
        limit(field, told.as_ref(), &mut price, money)?;
        *kept = price.unwrap_or(0);
    }
    match limits.when_full {
        Some(WhenFullArg::Reject) => row.set_when_full(WhenFull::Reject),
        Some(WhenFullArg::Queue) => row.set_when_full(WhenFull::Queue),
        None => {}
    }
    let kept = |text: &str| {
        let kept_ms = units::parse_duration_ms(text).map_err(|error| error.at(""))?;
        retention::check("", kept_ms).map(|()| kept_ms)
    };
    limit("retention", limits.retention.as_ref(), &mut row.retention_ms, kept)?;
    let number = |text: &str| {
        text.parse()
            .map_err(|_| Problem::new("spec.unit", "", text, "is no weight", "write it like 200, or none"))
            .and_then(|weight| fairness::check("", weight).map(|()| weight))
    };
    let mut weight = Some(row.weight);
    limit("weight", limits.weight.as_ref(), &mut weight, number)?;
    row.weight = weight.unwrap_or(0);
    let mut parent = Some(std::mem::take(&mut row.parent));
    let name = |text: &str| proto::ids::TenantName::parse(text).map(|_| text.to_owned());
    limit("parent", limits.parent.as_ref(), &mut parent, name)?;
    row.parent = parent.unwrap_or_default();
    row.group |= limits.group;
    Ok(())
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
                headers.extend([
                    "RESERVED",
                    "STORAGE",
                    "INGRESS",
                    "EGRESS",
                    "WHEN FULL",
                    "KEPT",
                    "WEIGHT",
                    "IN",
                ]);
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
            row.retention_ms.map_or_else(|| "for ever".to_owned(), units::format_duration_ms),
            fairness::weight(&row).to_string(),
            if row.parent.is_empty() { "-".to_owned() } else { row.parent },
        ]);
    }
    cells
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Command};
    use clap::Parser as _;
    use proto::v1::Quota;

    fn limits(line: &str) -> TenantLimits {
        let line = format!("drumline tenants set lab {line}");
        let cli = Cli::try_parse_from(line.split_whitespace()).unwrap();
        let Command::Tenants(TenantsArgs { action: Some(TenantAction::Set(limits)), .. }) = cli.command
        else {
            panic!("it is tenants set");
        };
        *limits
    }

    #[test]
    fn what_is_not_named_stays_and_none_lifts() {
        let mut row = TenantRow::default();
        let all = "--cores 1.5 --gpus 2 --egress 1KiB --budget 5 --core-hour 0.5 --when-full queue";
        apply(&mut row, &limits(all)).unwrap();
        let quota =
            Quota { millicores: Some(1500), gpus: Some(2), egress_bytes: Some(1024), ..Quota::default() };
        assert_eq!((row.name.as_str(), row.quota, row.when_full()), ("lab", Some(quota), WhenFull::Queue));
        apply(&mut row, &limits("--gpus none --budget none --core-hour none --memory 1GiB")).unwrap();
        let quota = Quota { gpus: None, memory_bytes: Some(1 << 30), ..quota };
        let budget = row.budget.unwrap();
        assert_eq!((row.quota, row.when_full()), (Some(quota), WhenFull::Queue));
        assert_eq!((budget.month_micros, budget.core_hour_micros), (None, 0));
        apply(&mut row, &limits("--retention 7d")).unwrap();
        apply(&mut row, &limits("--gpus 1")).unwrap();
        assert_eq!(row.retention_ms, Some(7 * 24 * 3_600_000));
        apply(&mut row, &limits("--retention none")).unwrap();
        assert_eq!(row.retention_ms, None);
        apply(&mut row, &limits("--weight 300")).unwrap();
        apply(&mut row, &limits("--gpus 1")).unwrap();
        assert_eq!(row.weight, 300);
        apply(&mut row, &limits("--weight none")).unwrap();
        assert_eq!(row.weight, 0);
        apply(&mut row, &limits("--parent org")).unwrap();
        apply(&mut row, &limits("--gpus 1")).unwrap();
        assert_eq!((row.parent.as_str(), row.group), ("org", false));
        apply(&mut row, &limits("--parent none --group")).unwrap();
        assert_eq!((row.parent.as_str(), row.group), ("", true));
        let wrong = |line: &str| apply(&mut TenantRow::default(), &limits(line)).unwrap_err().to_string();
        assert!(wrong("--gpus many").starts_with("gpus = many: is no count"));
        assert!(wrong("--budget x").starts_with("budget = x: is no amount"));
        assert!(wrong("--ingress x").starts_with("ingress = x"));
        assert!(wrong("--retention 1ms").starts_with("retention = 1ms: is no time"));
        assert!(wrong("--weight heavy").starts_with("weight = heavy: is no weight"));
        assert!(wrong("--parent A/B").starts_with("parent = A/B"));
        assert!(wrong("--weight 0").starts_with("weight = 0: is out of bounds"));
        assert!(wrong("--retention soon").starts_with("retention = soon"));
    }
}
