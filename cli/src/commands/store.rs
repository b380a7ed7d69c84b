//! `drumline store`: until ctrl-c or TERM. Servers that share it wait for its next start.

use super::{Outcome, done};
use crate::{args::StoreArgs, cluster, failure::Failure, output};
use gateway::storage::ENV_FILE;
use world::select;

pub(super) async fn run(args: StoreArgs) -> Outcome {
    cluster::log_to_stderr("info");
    let mut told = cluster::Told::listen()?;
    let env = args.data.join(ENV_FILE);
    let mut store = cluster::start_store(&args.data, args.listen).await?;
    output::line(&format!(
        "store listening on {}; address and token are in {}",
        store.address,
        env.display()
    ))?;
    select! { biased;
        () = told.told() => {}
        () = store.ended() => {
            return Err(Failure::broken("store", "", "stopped by itself", "the log above tells why"));
        }
    }
    output::note("stopping");
    store.stop().await;
    done()
}
