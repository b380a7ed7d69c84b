//! `drumline pools`: what there is, what is free, what queues.

use super::{Outcome, done};
use crate::{
    args::{Format, PoolsArgs},
    client::Client,
    output::{self, Table, json, words},
};
use proto::v1::PoolsRequest;

pub(super) async fn run(client: Client, args: PoolsArgs) -> Outcome {
    let pools = client.pools(PoolsRequest {}).await?.pools;
    match args.format.format {
        Format::Json => output::json(&pools.iter().map(json::pool).collect())?,
        Format::Name => {
            output::text(&pools.iter().map(|pool| format!("{}\n", pool.name)).collect::<String>())?
        }
        format => {
            let mut headers = vec!["POOL", "NODES", "CAPACITY", "FREE", "QUEUED"];
            if format == Format::Wide {
                headers.push("LARGEST NODE");
            }
            let mut table = Table::new(&headers);
            for pool in &pools {
                let mut cells = vec![
                    pool.name.clone(),
                    pool.nodes.to_string(),
                    words::resources(&pool.capacity.unwrap_or_default()),
                    words::resources(&pool.free.unwrap_or_default()),
                    pool.queued_slots.to_string(),
                ];
                if format == Format::Wide {
                    cells.push(words::resources(&pool.largest_node.unwrap_or_default()));
                }
                table.row(cells);
            }
            table.print("no pools; start a node with `drumline agent`")?;
        }
    }
    done()
}
