//! Others behave badly, and the server goes on serving: nothing of a good client is
//! refused or lost, no answer takes long, memory stays bounded.
//!
//! How much a good client notices is measured by `cargo xtask load`, whose crowd this
//! is, on a machine that is quiet.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests stand outside the world they drive"
)]

#[path = "support/crowd.rs"]
mod crowd;
mod support;

use crowd::{Client, Crowd, Failure, LOADS};
use std::sync::Arc;
use std::time::Duration;
use support::Cluster;

/// How long the good client asks among each of the loads.
const SPAN: Duration = Duration::from_secs(2);
/// The longest of its answers, on a machine that may be busy with other things.
const ANSWER_MS_MAX: f64 = 10_000.0;
/// What the server may take, whatever is done to it.
const MEMORY_MIB_MAX: f64 = 512.0;

#[test]
fn a_good_client_is_served_whatever_others_do() {
    let files = crowd::allow_many_files();
    let cluster = Cluster::bare("hostile");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(among_all(&cluster, files)).unwrap();
    // And once they are gone, nothing of them is left behind.
    support::until_true("their streams are closed", || {
        cluster.server.get("/metrics").lines().any(|line| line == "drumline_streams_open 0")
    });
}

async fn among_all(cluster: &Cluster, files: u64) -> Result<(), Failure> {
    let (address, token) = (&cluster.server.address, &cluster.server.token);
    Client::new(address, token).await?.prepare().await?;
    for (what, least, load) in LOADS {
        let crowd = Crowd::new(address, token, files);
        let tasks = load(Arc::clone(&crowd));
        let gathered = async {
            while crowd.done() < least {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(support::DEADLINE, gathered).await.map_err(|_| format!("{what}: none came"))?;
        let seen = crowd::good_client(address, token, SPAN).await?;
        crowd.end(tasks).await?;
        assert_eq!(seen.failed, Vec::<String>::new(), "{what}");
        let mut told = Vec::new();
        for (of, spans) in [("looks", &seen.looks), ("submissions", &seen.submits), ("new ones", &seen.fresh)]
        {
            let longest = spans.iter().copied().fold(0.0, f64::max);
            told.push(format!("{} {of}, the longest {longest:.0} ms", spans.len()));
            assert!(
                !spans.is_empty() && longest <= ANSWER_MS_MAX,
                "{what}: of {of} one took {longest:.0} ms"
            );
        }
        let (_, peak) = crowd::memory_mib(cluster.server.pid().cast_unsigned());
        assert!(peak <= MEMORY_MIB_MAX, "{what}: {peak:.0} MiB");
        println!("{what}: they did {}; {}; {peak:.0} MiB at most", crowd.done(), told.join(", "));
    }
    Ok(())
}
