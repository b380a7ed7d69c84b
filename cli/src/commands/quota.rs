//! `drumline quota`: each limit of a tenant with what is used of it.

use super::{Outcome, done, tenants};
use crate::{
    args::{Format, QuotaAction, QuotaArgs},
    client::Client,
    output::{self, Table, json, words},
};
use proto::{units, v1::TenantView};

pub(super) async fn run(client: Client, args: QuotaArgs) -> Outcome {
    let (name, format) = match args.action {
        Some(QuotaAction::Set(limits)) => return tenants::set(&client, &limits).await,
        Some(QuotaAction::Show { name, format }) => (name, format.format),
        None => (None, args.format.format),
    };
    let name = name.unwrap_or_else(|| client.tenant.clone());
    show(&tenants::find(&client, &name).await?, format)
}

/// One tenant in full.
pub(super) fn show(view: &TenantView, format: Format) -> Outcome {
    match format {
        Format::Json => output::json(&json::tenant(view))?,
        Format::Name => output::line(&view.tenant.clone().unwrap_or_default().name)?,
        Format::Table | Format::Wide => {
            let mut table = Table::new(&["DIMENSION", "USED", "LIMIT", "COUNTS"]);
            for line in lines(view) {
                table.row(line.map(String::from).to_vec());
            }
            table.print("no limits")?;
        }
    }
    done()
}

fn lines(view: &TenantView) -> Vec<[String; 4]> {
    let row = view.tenant.clone().unwrap_or_default();
    let (quota, held) = (row.quota.unwrap_or_default(), view.held.unwrap_or_default());
    let (ledger, budget) = (view.ledger.unwrap_or_default(), row.budget.unwrap_or_default());
    let plain = |amount: u64| amount.to_string();
    let line = |dimension: &str, used: u64, limit: Option<u64>, counts: &str, show: fn(u64) -> String| {
        let limit = limit.map_or_else(|| "-".to_owned(), show);
        [dimension.to_owned(), show(used), limit, counts.to_owned()]
    };
    let bytes = units::brief_memory_bytes;
    vec![
        line("cores", held.millicores.into(), quota.millicores, "now", units::format_millicores),
        line("memory", held.memory_bytes, quota.memory_bytes, "now", bytes),
        line("gpus", held.gpus.into(), quota.gpus, "now", plain),
        line("queued_tasks", ledger.queued_tasks, quota.queued_tasks, "now", plain),
        line("storage", ledger.storage_bytes, quota.storage_bytes, "kept", bytes),
        line("ingress", ledger.ingress_bytes, quota.ingress_bytes, "this month", bytes),
        line("egress", ledger.egress_bytes, quota.egress_bytes, "this month", bytes),
        line("budget", ledger.settled_micros, budget.month_micros, "this month", words::money),
        line("reserved", ledger.reserved_micros, None, "of the budget, by live jobs", words::money),
        [
            "retention".to_owned(),
            "-".to_owned(),
            row.retention_ms.map_or_else(|| "-".to_owned(), units::format_duration_ms),
            "outputs and logs, from a job's end".to_owned(),
        ],
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::v1::{LedgerRow, Quota, TenantRow};

    #[test]
    fn each_limit_has_a_line() {
        let quota = Quota { egress_bytes: Some(1 << 20), ..Quota::default() };
        let view = TenantView {
            tenant: Some(TenantRow { name: "lab".into(), quota: Some(quota), ..TenantRow::default() }),
            ledger: Some(LedgerRow { egress_bytes: 1 << 19, ..LedgerRow::default() }),
            held: None,
        };
        let lines = lines(&view);
        assert_eq!(lines.len(), 10);
        assert_eq!(lines[9][2], "-");
        assert_eq!(lines[6], ["egress", "512KiB", "1MiB", "this month"].map(String::from));
        assert_eq!(lines[0][2], "-");
    }
}
