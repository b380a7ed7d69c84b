//! What a reader is told of a job's outputs, at each moment of what controllers write.

use crate::support::{Client, TestDir, job, serve};
use gateway::server::RunningServer;
use prost::Message;
use proto::keys;
use proto::v1::{Artifact, BlockRow, JobRequest, JobStateRow, ManifestRow, Span, SubmitRequest};
use std::sync::Arc;
use store::{Commit, Store};

/// A server with a job of one gang, whose rows are written as if nodes had run it.
struct Story {
    server: RunningServer,
    client: Client,
    store: Arc<dyn Store>,
}

impl Story {
    async fn begin(dir: &TestDir) -> Self {
        let server = serve(dir).await.unwrap();
        let mut client = Client::new(&server, &server.token).await;
        let mut spec = job("gang");
        spec.steps[0].nodes = 2;
        spec.steps[0].outputs = vec!["out".into()];
        let request = client.request(SubmitRequest { spec: Some(spec), ..SubmitRequest::default() });
        client.grpc.submit(request).await.unwrap();
        let store = server.store().unwrap();
        Self { server, client, store }
    }

    async fn commit(&self, commit: Commit) {
        self.store.commit(commit).await.unwrap();
    }

    /// The user tries again: the step's generation, and the one it began anew in.
    async fn retry(&self, generation: u32, reset_generation: u32) {
        let key = keys::state("default", 1);
        let row = self.store.get(key.clone()).await.unwrap().unwrap();
        let mut state = JobStateRow::decode(row.value).unwrap();
        (state.steps[0].generation, state.steps[0].reset_generation) = (generation, reset_generation);
        self.commit(Commit::new().put(key, state.encode_to_vec())).await;
    }

    /// The paths that are told, by rank.
    async fn told(&mut self) -> Vec<(u64, String)> {
        let request = self.client.request(JobRequest { tenant: String::new(), number: 1 });
        let steps = self.client.grpc.outputs(request).await.unwrap().into_inner().steps;
        let tasks = steps.into_iter().flat_map(|step| step.tasks);
        tasks.map(|task| (task.index, task.artifacts[0].artifact.clone().unwrap().path)).collect()
    }
}

fn manifest(commit: Commit, rank: u32, path: &str, generation: Option<u32>) -> Commit {
    let artifact = Artifact { path: path.into(), size_bytes: 3, digest: format!("{rank:064x}"), mode: 0o644 };
    let artifacts = vec![artifact];
    let row = ManifestRow { rank, attempt: 1, epoch: 1, artifacts, generation, ..ManifestRow::default() };
    commit.put(keys::manifest("default", 1, 0, 0, rank), row.encode_to_vec())
}

fn completed(commit: Commit, generation: u32) -> Commit {
    let row = BlockRow { completed: vec![Span { first: 0, last: 0 }], generation, ..BlockRow::default() };
    commit.put(keys::block("default", 1, 0, 0), row.encode_to_vec())
}

fn ranks(path: &str) -> Vec<(u64, String)> {
    vec![(0, path.to_owned()), (1, path.to_owned())]
}

#[tokio::test]
async fn a_gang_is_told_whole_and_what_a_retry_undid_is_not() {
    let dir = TestDir::new();
    let mut story = Story::begin(&dir).await;
    // The first of two commits that complete it: a reader in between sees nothing.
    story.commit(manifest(Commit::new(), 0, "first", Some(0))).await;
    assert_eq!(story.told().await, []);
    story.commit(completed(manifest(Commit::new(), 1, "first", Some(0)), 0)).await;
    assert_eq!(story.told().await, ranks("first"));

    // The step begins anew: what lies there of before is not its output.
    story.retry(1, 1).await;
    assert_eq!(story.told().await, []);
    story.commit(manifest(Commit::new(), 0, "second", Some(1))).await;
    assert_eq!(story.told().await, []);
    story.commit(completed(manifest(Commit::new(), 1, "second", Some(1)), 1)).await;
    assert_eq!(story.told().await, ranks("second"));

    // A retry of what failed keeps what completed, whose rows are of before.
    story.retry(2, 1).await;
    assert_eq!(story.told().await, ranks("second"));
    // Rows of an earlier version do not tell their generation.
    story.commit(manifest(manifest(Commit::new(), 0, "old", None), 1, "old", None)).await;
    assert_eq!(story.told().await, ranks("old"));
    story.server.stop().await;
}
