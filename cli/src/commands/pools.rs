//! `drumline pools`: what there is, what is free, what queues, and when a
//! request would start.

use super::{Outcome, done, submit::above_zero};
use crate::{
    args::{Format, PoolsArgs},
    client::Client,
    failure::Failure,
    output::{self, Table, json, words},
};
use proto::{
    units,
    v1::{AutoscaleView, Eta, PoolAsk, PoolsRequest, PreemptionView, Resources},
};
use world::{NodeClock as _, real::SystemClock};

pub(super) async fn run(client: Client, args: PoolsArgs) -> Outcome {
    let (ask, told) = asked(&args)?;
    let pools = client.pools(PoolsRequest { ask: Some(ask) }).await?.pools;
    match args.format.format {
        Format::Json => output::json(&pools.iter().map(json::pool).collect())?,
        Format::Name => {
            output::text(&pools.iter().map(|pool| format!("{}\n", pool.name)).collect::<String>())?
        }
        format => {
            let now_ms = SystemClock::new().wall_ms();
            let wide = format == Format::Wide;
            let mut headers = vec!["POOL", "NODES", "CAPACITY", "FREE", "QUEUED", "START"];
            if wide {
                headers.push("LARGEST NODE");
            }
            let scales = pools.iter().any(|pool| pool.autoscale.is_some());
            if scales {
                headers.push("AUTOSCALE");
            }
            let preempts = pools.iter().any(|pool| pool.preemption.is_some());
            if preempts {
                headers.push("PREEMPTION");
            }
            if wide || told {
                headers.push("ASSUMPTION");
            }
            let mut table = Table::new(&headers);
            for pool in &pools {
                let eta = pool.eta.clone().unwrap_or_default();
                let mut cells = vec![
                    pool.name.clone(),
                    pool.nodes.to_string(),
                    words::resources(&pool.capacity.unwrap_or_default()),
                    words::resources(&pool.free.unwrap_or_default()),
                    pool.queued_slots.to_string(),
                    start(&eta, now_ms),
                ];
                if wide {
                    cells.push(words::resources(&pool.largest_node.unwrap_or_default()));
                }
                if scales {
                    cells.push(pool.autoscale.as_ref().map_or_else(|| "-".to_owned(), autoscale));
                }
                if preempts {
                    cells.push(pool.preemption.as_ref().map_or_else(|| "-".to_owned(), preemption));
                }
                if wide || told {
                    cells.push(eta.assumption);
                }
                table.row(cells);
            }
            table.print("no pools; start a node with `drumline agent`")?;
        }
    }
    done()
}

/// What the flags ask for, and whether they ask for anything.
fn asked(args: &PoolsArgs) -> Result<(PoolAsk, bool), Failure> {
    let mut per_task = Resources::default();
    if let Some(text) = &args.cores {
        per_task.millicores = units::parse_millicores(text).map_err(|error| error.at("--cores"))?;
        above_zero("--cores", u64::from(per_task.millicores))?;
    }
    if let Some(text) = &args.memory {
        per_task.memory_bytes = units::parse_memory_bytes(text).map_err(|error| error.at("--memory"))?;
        above_zero("--memory", per_task.memory_bytes)?;
    }
    per_task.gpus = args.gpus.unwrap_or(0);
    let (nodes, tasks_per_node) = (args.nodes.unwrap_or(0), args.tasks_per_node.unwrap_or(0));
    let ask = PoolAsk { per_task: Some(per_task), nodes, tasks_per_node, exclusive: args.exclusive };
    let told = args.cores.is_some() || args.memory.is_some() || args.gpus.is_some();
    Ok((ask, told || args.exclusive || args.nodes.is_some() || args.tasks_per_node.is_some()))
}

fn start(eta: &Eta, now_ms: u64) -> String {
    match eta.earliest_start_ms {
        // The server's clock and this one may differ a little.
        Some(at_ms) if at_ms < now_ms + 1000 => "now".to_owned(),
        Some(at_ms) => format!("in {}", units::brief_duration_ms(at_ms - now_ms)),
        None => "-".to_owned(),
    }
}

/// To whom work gives way, and after what wait.
fn preemption(rules: &PreemptionView) -> String {
    let span = units::format_duration_ms;
    format!(
        "+{} after {}, {} grace",
        rules.priority_above,
        span(rules.after_waiting_ms),
        span(rules.grace_ms)
    )
}

/// Bounds, and what is under way or wrong.
fn autoscale(view: &AutoscaleView) -> String {
    let mut text = format!("{}-{}", view.min, view.max);
    for (count, what) in [(view.asked, "asked"), (view.leaving, "leaving")] {
        if count > 0 {
            text += &format!(", {count} {what}");
        }
    }
    if !view.capped.is_empty() {
        text += ", capped";
    }
    if view.failures > 0 {
        text += ", driver fails";
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_that_grows_says_how_far_and_what_is_under_way() {
        let quiet = AutoscaleView { min: 1, max: 4, ..AutoscaleView::default() };
        assert_eq!(autoscale(&quiet), "1-4");
        let busy = AutoscaleView { asked: 2, leaving: 1, capped: "max is 4".into(), failures: 1, ..quiet };
        assert_eq!(autoscale(&busy), "1-4, 2 asked, 1 leaving, capped, driver fails");
    }

    #[test]
    fn a_start_is_told_as_people_say_it() {
        let told = |earliest_start_ms| start(&Eta { earliest_start_ms, ..Eta::default() }, 10_000);
        assert_eq!(
            (told(Some(9_000)), told(Some(100_000)), told(None)),
            ("now".into(), "in 1m30s".into(), "-".into())
        );
    }
}
