//! `drumline reserve`: nodes that are kept free for a while.

use super::{Outcome, done};
use crate::{
    args::{Format, FormatArg, ReserveAction, ReserveArgs, ReserveSetArgs},
    client::Client,
    failure::Failure,
    output::{self, Table, json},
};
use proto::{
    units::{self, Since},
    v1::{NodesRequest, Reservation, ReserveRequest},
};
use serde_json::Value;
use std::collections::BTreeMap;
use world::{NodeClock as _, real::SystemClock};

pub(super) async fn run(client: Client, args: ReserveArgs) -> Outcome {
    match args.action {
        None => list(client, args.format).await,
        Some(ReserveAction::Ls { format }) => list(client, format).await,
        Some(ReserveAction::Set(wanted)) => set(client, wanted).await,
        Some(ReserveAction::Rm { name }) => {
            let reservation = Some(Reservation { name: name.clone(), ..Reservation::default() });
            client.reserve(ReserveRequest { reservation, remove: true, ..ReserveRequest::default() }).await?;
            output::line(&format!("{name} is over"))?;
            done()
        }
    }
}

async fn set(client: Client, wanted: ReserveSetArgs) -> Outcome {
    let now_ms = SystemClock::new().wall_ms();
    let from_ms = wanted.from.map_or(Ok(now_ms), |text| instant("from", &text, now_ms))?;
    let until_ms = match (wanted.until, wanted.lasts) {
        (Some(text), _) => instant("until", &text, now_ms)?,
        (None, lasts) => {
            let lasts = lasts.unwrap_or_default();
            let span_ms = units::parse_duration_ms(&lasts);
            from_ms.saturating_add(span_ms.map_err(|error| Failure::WrongUse(error.at("for")))?)
        }
    };
    let name = wanted.name.clone();
    let reservation = Reservation {
        name: wanted.name,
        from_ms,
        until_ms,
        tenants: wanted.tenants,
        reason: wanted.reason.trim().to_owned(),
    };
    let request = ReserveRequest {
        reservation: Some(reservation),
        nodes: wanted.nodes,
        pool: wanted.pool,
        remove: false,
    };
    let nodes = client.reserve(request).await?.nodes;
    output::line(&format!(
        "{name} keeps {} from {} until {}",
        nodes.join(", "),
        units::format_instant(from_ms),
        units::format_instant(until_ms)
    ))?;
    done()
}

/// `2h` is two hours from now.
fn instant(field: &str, text: &str, now_ms: u64) -> Result<u64, Failure> {
    match units::parse_since(text).map_err(|error| Failure::WrongUse(error.at(field)))? {
        Since::At(at_ms) => Ok(at_ms),
        Since::Ago(span_ms) => Ok(now_ms.saturating_add(span_ms)),
    }
}

async fn list(client: Client, format: FormatArg) -> Outcome {
    let now_ms = SystemClock::new().wall_ms();
    let mut found: BTreeMap<String, (Reservation, Vec<String>)> = BTreeMap::new();
    for row in client.nodes(NodesRequest {}).await?.nodes.into_iter().filter_map(|node| node.row) {
        for reservation in row.reservations.into_iter().filter(|it| it.until_ms > now_ms) {
            let name = reservation.name.clone();
            found.entry(name).or_insert_with(|| (reservation, Vec::new())).1.push(row.name.clone());
        }
    }
    match format.format {
        Format::Json => {
            let shown = found.values().map(|(reservation, nodes)| {
                let mut shown = json::reservation(reservation);
                shown["nodes"] = Value::from(nodes.clone());
                shown
            });
            output::json(&shown.collect())?;
        }
        Format::Name => output::text(&found.keys().map(|name| format!("{name}\n")).collect::<String>())?,
        Format::Table | Format::Wide => {
            let mut table = Table::new(&["NAME", "FROM", "UNTIL", "NODES", "TENANTS", "REASON"]);
            for (name, (reservation, nodes)) in found {
                table.row(vec![
                    name,
                    units::format_instant(reservation.from_ms),
                    units::format_instant(reservation.until_ms),
                    nodes.join(","),
                    if reservation.tenants.is_empty() {
                        "-".to_owned()
                    } else {
                        reservation.tenants.join(",")
                    },
                    reservation.reason,
                ]);
            }
            table.print("no reservations; make one with `drumline reserve set`")?;
        }
    }
    done()
}
