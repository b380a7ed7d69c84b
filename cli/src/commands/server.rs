//! `drumline server`: until ctrl-c or TERM.

use super::{Outcome, done};
use crate::{args::ServerArgs, cluster, config, failure::Failure, output};
use world::select;

pub(super) async fn run(args: ServerArgs) -> Outcome {
    let settings = config::server(&args)?;
    cluster::log_to_stderr("info");
    let mut told = cluster::Told::listen()?;
    let client_env = settings.data.join("client.env");
    let mut server = cluster::start_server(&settings.data, settings.listen, settings.config).await?;
    output::line(&format!(
        "listening on {}; address and admin token are in {}",
        server.address,
        client_env.display()
    ))?;
    select! { biased;
        () = told.told() => {}
        () = server.ended() => {
            return Err(Failure::broken("server", "", "stopped by itself", "the log above tells why"));
        }
    }
    output::note("stopping");
    server.stop().await;
    done()
}
