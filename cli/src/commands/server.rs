//! `drumline server`: until ctrl-c or TERM.

use super::{Outcome, done};
use crate::{args::ServerArgs, cluster, config, failure::Failure, output};
use world::select;

pub(super) async fn run(args: ServerArgs) -> Outcome {
    let settings = config::server(&args)?;
    cluster::log_to_stderr("info");
    let mut told = cluster::Told::listen()?;
    let client_env = settings.data.join("client.env");
    let shared = settings.shared.clone();
    let mut server =
        cluster::start_server(&settings.data, settings.listen, settings.config, settings.shared).await?;
    output::line(&match shared {
        None => format!(
            "listening on {}; address and admin token are in {}",
            server.address,
            client_env.display()
        ),
        Some(store) => format!(
            "listening on {}; standing by until the store at {} says that this server serves",
            server.address, store.address
        ),
    })?;
    let mut serves = server.serves();
    let tell = async {
        // What it does at its start is said above.
        while serves.changed().await.is_ok() {
            let serves = serves.borrow_and_update().is_some();
            let now = if serves { "serving" } else { "standing by" };
            output::note(&format!("{now}; the admin token is in {}", client_env.display()));
        }
        std::future::pending::<()>().await;
    };
    select! { biased;
        () = told.told() => {}
        () = tell => {}
        () = server.ended() => {
            return Err(Failure::broken("server", "", "stopped by itself", "the log above tells why"));
        }
    }
    output::note("stopping");
    server.stop().await;
    done()
}
