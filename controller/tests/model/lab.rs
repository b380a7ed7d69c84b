//! A cluster of one tenant with one job, for stories that follow its attempts.

use super::Cluster;
use super::agent::Held;
use controller::{Event, NewJob, Reply};
use proto::v1::{Cause, CauseKind, JobSpec, TenantRow};

pub const LAB: &str = "lab";

/// The job is let in, and is the tenant's first.
pub fn cluster(nodes: &[&str], spec: JobSpec) -> Cluster {
    let mut cluster = Cluster::new(controller::Config::default(), 4);
    cluster.tenant(TenantRow { name: LAB.to_owned(), ..TenantRow::default() });
    for node in nodes {
        cluster.add_node(node);
    }
    let ticket = cluster.ticket();
    let job = NewJob { tenant: LAB.to_owned(), spec, ..NewJob::default() };
    cluster.step(Event::Submit { ticket, job });
    assert!(matches!(cluster.replies[&ticket], Reply::Submitted(_)));
    cluster.accepted.insert((LAB.to_owned(), 1));
    cluster
}

/// Runs until attempts run on these nodes.
pub fn running(cluster: &mut Cluster, nodes: &[&str]) -> Vec<(String, Held)> {
    for _ in 0..200 {
        cluster.schedule(8);
        cluster.tell_grants();
        let mut found = Vec::new();
        for node in nodes {
            cluster.heartbeat(node);
            cluster.work(node);
            cluster.report(node, Vec::new());
            found.extend(cluster.agents[*node].running().map(|held| ((*node).to_owned(), held.clone())));
        }
        if !found.is_empty() {
            return found;
        }
        cluster.advance(1_000);
    }
    panic!("nothing runs");
}

pub fn end(cluster: &mut Cluster, (node, held): &(String, Held), kind: CauseKind) {
    let agent = cluster.agents.get_mut(node).unwrap();
    agent.end(held, Cause { kind: kind.into(), exit_code: 1, ..Cause::default() });
    cluster.report(node, Vec::new());
}
