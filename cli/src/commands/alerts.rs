//! `drumline alerts`: what somebody should look at.

use super::{Outcome, done};
use crate::{
    args::{AlertsArgs, Format},
    client::Client,
    output::{self, Table, json, words},
};
use proto::v1::{AlertView, AlertsRequest};
use proto::words::alert_severity;
use world::{NodeClock as _, real::SystemClock};

pub(super) async fn run(client: Client, args: AlertsArgs) -> Outcome {
    let alerts = client.alerts(AlertsRequest { cleared: args.cleared }).await?.alerts;
    match args.format.format {
        Format::Json => output::json(&alerts.iter().map(json::alert).collect())?,
        Format::Name => {
            let line = |alert: &AlertView| format!("{} {}\n", alert.code, alert.subject);
            output::text(&alerts.iter().map(line).collect::<String>())?;
        }
        format => {
            let now_ms = SystemClock::new().wall_ms();
            let wide = format == Format::Wide;
            let mut headers = vec!["CODE", "SEVERITY", "SUBJECT", "SINCE"];
            if args.cleared {
                headers.push("CLEARED");
            }
            if wide {
                headers.push("TENANT");
            }
            headers.push("TEXT");
            let mut table = Table::new(&headers);
            for alert in &alerts {
                let mut cells = vec![
                    alert.code.clone(),
                    alert_severity(alert.severity()).to_owned(),
                    alert.subject.clone(),
                    ago(alert.since_ms, now_ms),
                ];
                if args.cleared {
                    cells.push(ago(alert.cleared_ms, now_ms));
                }
                if wide {
                    cells.push(if alert.tenant.is_empty() { "-".to_owned() } else { alert.tenant.clone() });
                }
                cells.push(alert.text.clone());
                table.row(cells);
            }
            table.print("no alerts")?;
        }
    }
    done()
}

fn ago(at_ms: u64, now_ms: u64) -> String {
    if at_ms == 0 { "-".to_owned() } else { format!("{} ago", words::age(at_ms, now_ms)) }
}
