//! A whole agent against a small server, small processes and a disk in memory:
//! what the shell does between the core and the world.

mod processes;
mod server;

use agent::{AgentConfig, AgentEnd, AgentHandle, AgentParts, StartError, TasksAtStop, start};
use processes::FakeProcesses;
use proto::v1::{
    Artifact, Assign, AssignedTask, CauseKind, Input, Resources, Step, Stop, Upstream, UpstreamTask,
};
use server::{FakeServer, GIVEN_UP, digest_of, key_of};
use std::sync::Arc;
use world::Disk;
use world::disk::{OpenMode, read_all};
use world::sim::{HostileDisk, SkewedClock};
use world::time::{Instant, ms, sleep};

/// One node, whose agent can be started again.
struct Node {
    server: FakeServer,
    hostile: HostileDisk,
    disk: Arc<dyn Disk>,
    processes: Arc<FakeProcesses>,
}

impl Node {
    async fn new() -> Self {
        let hostile = HostileDisk::new(1);
        let disk = hostile.handle();
        let processes = FakeProcesses::new(Arc::clone(&disk));
        Self { server: FakeServer::start().await, hostile, disk, processes }
    }

    async fn agent(&self) -> Result<AgentHandle, StartError> {
        self.agent_with(|_| {}).await
    }

    async fn agent_with(&self, change: impl FnOnce(&mut AgentConfig)) -> Result<AgentHandle, StartError> {
        let capacity = Resources { millicores: 2_000, memory_bytes: 1 << 30, gpus: 0 };
        let mut config = AgentConfig::new(&self.server.address(), "dl_token", "n1", capacity);
        change(&mut config);
        start(AgentParts {
            config,
            disk: Arc::clone(&self.disk),
            processes: Arc::clone(&self.processes) as Arc<dyn world::Processes>,
            clock: SkewedClock::pair(1_000_000).0,
            transfer: self.server.transfer(),
        })
        .await
    }
}

fn assign(slots: u32, tasks: std::ops::Range<u64>, argv: &[&str]) -> Assign {
    let argv = argv.iter().map(|word| (*word).to_owned()).collect();
    Assign {
        tenant: "t".to_owned(),
        job_number: 1,
        job_id: "t-1".to_owned(),
        epoch: 9,
        slots,
        step: Some(Step { name: "s".to_owned(), argv, ..Step::default() }),
        tasks: tasks
            .map(|task| AssignedTask { task, index: task, attempt: 1, ..AssignedTask::default() })
            .collect(),
        ..Assign::default()
    }
}

#[tokio::test]
async fn two_thousand_tasks_end_once_each() {
    let node = Node::new().await;
    let agent = node.agent().await.unwrap();
    node.server.say_assign(assign(2, 0..2_000, &["true"])).await;
    let ends = node.server.ends(2_000).await;
    assert!(ends.values().all(|ended| ended.cause.as_ref().unwrap().kind() == CauseKind::Succeeded));
    assert!(node.processes.running_max() <= 2, "{} ran at once", node.processes.running_max());
    agent.stop(TasksAtStop::Kill).await;
    assert_eq!(agent.wait().await, AgentEnd::Stopped);
}

#[tokio::test]
async fn inputs_go_in_outputs_and_logs_come_out() {
    let node = Node::new().await;
    let _agent = node.agent().await.unwrap();
    let book = node.server.put_object(b"call me");
    let part = node.server.put_object(b"ishmael");
    let mut assign = assign(1, 0..1, &["cat", "inputs/book", "from/split/3/deep/part", "words"]);
    assign.inputs = vec![Input { name: "book".to_owned(), digest: book, size_bytes: 7, ..Input::default() }];
    let artifact = Artifact { path: "deep/part".to_owned(), size_bytes: 7, digest: part, mode: 0o755 };
    assign.upstreams = vec![Upstream {
        step: "split".to_owned(),
        indexed: true,
        tasks: vec![UpstreamTask { index: 3, artifacts: vec![artifact] }],
    }];
    assign.step.as_mut().unwrap().outputs = vec!["w*".to_owned()];
    node.server.say_assign(assign).await;
    let ends = node.server.ends(1).await;
    let ended = &ends[&key_of(0)];
    assert_eq!(ended.cause.as_ref().unwrap().kind(), CauseKind::Succeeded, "{ended:?}");
    assert_eq!(ended.artifacts[0].path, "words");
    assert_eq!(ended.artifacts[0].digest, digest_of(b"call meishmael"));
    assert_eq!(node.server.object(&ended.artifacts[0].digest).as_deref(), Some(&b"call meishmael"[..]));
    // The little `cat` also tells its standard output what it did.
    let log = node.server.log(&key_of(0), ended.stdout_bytes).await;
    assert_eq!(log, b"wrote words\n");
}

fn input(name: &str, digest: String, size_bytes: u64) -> Input {
    Input { name: name.to_owned(), digest, size_bytes, ..Input::default() }
}

#[tokio::test]
async fn an_input_of_many_tasks_comes_once_and_lies_there_once() {
    let node = Node::new().await;
    let _agent = node.agent().await.unwrap();
    let book = node.server.put_object(&[7; 10_000]);
    let mut assign = assign(64, 0..64, &["hold", ""]);
    assign.inputs = vec![input("book", book, 10_000)];
    node.server.say_assign(assign).await;
    for task in 0..64 {
        node.server.started(&key_of(task)).await;
    }
    assert_eq!(node.server.gets(), 1);
    assert!(node.hostile.used_bytes() < 20_000, "{} bytes", node.hostile.used_bytes());
    let works = node.disk.list("work").unwrap();
    assert_eq!(works.len(), 64);
    for work in works {
        let laid = node.disk.entry(&format!("work/{}/inputs/book", work.name)).unwrap();
        assert_eq!((laid.len, laid.mode), (10_000, 0o444));
    }
}

#[tokio::test]
async fn a_url_that_expired_is_asked_for_anew() {
    let node = Node::new().await;
    let _agent = node.agent().await.unwrap();
    let book = node.server.put_object(b"call me");
    node.server.let_urls_expire(1);
    let mut assign = assign(1, 0..1, &["cat", "inputs/book", "words"]);
    assign.inputs = vec![input("book", book, 7)];
    node.server.say_assign(assign).await;
    let ends = node.server.ends(1).await;
    assert_eq!(ends[&key_of(0)].cause.as_ref().unwrap().kind(), CauseKind::Succeeded);
    assert_eq!((node.server.gets(), node.server.signs()), (2, 2));
}

#[tokio::test]
async fn what_a_task_writes_into_its_input_no_other_reads() {
    let node = Node::new().await;
    let _agent = node.agent().await.unwrap();
    let book = node.server.put_object(b"call me");
    let mut first = assign(1, 0..1, &["scribble", "inputs/book"]);
    first.inputs = vec![input("book", book.clone(), 7)];
    node.server.say_assign(first).await;
    node.server.ends(1).await;
    let cached = read_all(&*node.disk, &format!("cache/t/{book}"), 99).unwrap();
    assert_eq!(cached, b"XXXX me", "it had the cached file by a link");

    let mut second = assign(1, 1..2, &["cat", "inputs/book", "inputs/book", "words"]);
    second.inputs = vec![input("book", book, 7)];
    second.step.as_mut().unwrap().outputs = vec!["words".to_owned()];
    node.server.say_assign(second).await;
    let ends = node.server.ends(2).await;
    let ended = &ends[&key_of(1)];
    assert_eq!(ended.cause.as_ref().unwrap().kind(), CauseKind::Succeeded, "{ended:?}");
    assert_eq!(ended.artifacts[0].digest, digest_of(b"call mecall me"));
    assert_eq!(node.server.gets(), 2, "it was fetched anew");
}

#[tokio::test]
async fn an_input_whose_cached_file_somebody_removed_is_fetched_anew() {
    let node = Node::new().await;
    let _agent = node.agent().await.unwrap();
    let book = node.server.put_object(b"call me");
    for task in 0..2 {
        let mut assign = assign(1, task..task + 1, &["true"]);
        assign.inputs = vec![input("book", book.clone(), 7)];
        node.server.say_assign(assign).await;
        let ends = node.server.ends(task as usize + 1).await;
        let cause = ends[&key_of(task)].cause.clone().unwrap();
        assert_eq!(cause.kind(), CauseKind::Succeeded, "{cause:?}");
        assert_eq!(node.server.gets(), task as usize + 1);
        node.disk.remove_dir_all("cache/t").unwrap();
    }
}

#[tokio::test]
async fn an_output_that_is_not_there_fails_the_task_by_name() {
    let node = Node::new().await;
    let _agent = node.agent().await.unwrap();
    let mut assign = assign(1, 0..1, &["true"]);
    assign.step.as_mut().unwrap().outputs = vec!["words".to_owned()];
    node.server.say_assign(assign).await;
    let ends = node.server.ends(1).await;
    let cause = ends[&key_of(0)].cause.clone().unwrap();
    assert_eq!(
        (cause.kind(), cause.text.as_str()),
        (CauseKind::OutputMissing, "output `words` matched no file")
    );
}

#[tokio::test]
async fn an_input_the_server_does_not_have_fails_the_staging() {
    let node = Node::new().await;
    let _agent = node.agent().await.unwrap();
    let mut assign = assign(1, 0..1, &["true"]);
    assign.inputs = vec![Input { name: "x".to_owned(), digest: "ab".repeat(32), ..Input::default() }];
    node.server.say_assign(assign).await;
    let ends = node.server.ends(1).await;
    assert_eq!(ends[&key_of(0)].cause.as_ref().unwrap().kind(), CauseKind::StagingFailed);
}

#[tokio::test]
async fn a_refused_node_says_why() {
    let node = Node::new().await;
    node.server.refuse("auth.token", "unknown token");
    match node.agent().await {
        Err(StartError::Refused { node, problem }) => {
            assert_eq!((node.as_str(), problem.code.as_str()), ("n1", "auth.token"));
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_agent_goes_on_where_the_last_one_left() {
    let node = Node::new().await;
    let first = node.agent().await.unwrap();
    node.server.say_assign(assign(2, 0..1, &["hold", "some words"])).await;
    node.server.started(&key_of(0)).await;
    first.stop(TasksAtStop::Leave).await;
    // What another left, long forgotten by everyone.
    node.disk.create_dir_all("work/t.1.0.9.0.1.9.1").unwrap();
    node.disk.open("spool/t.1.0.9.0.1.9.out", OpenMode::CreateNew).unwrap().write_at(0, b"late").unwrap();

    let _second = node.agent().await.unwrap();
    assert_eq!(node.server.held().await, [key_of(0)]);
    assert_eq!(node.server.log(&key_of(9), 4).await, b"late");
    assert!(node.disk.entry("work/t.1.0.9.0.1.9.1").is_err());
    let attempts = vec![agent::core::key::Key::from_process_key(&key_of(0)).unwrap().attempt_ref()];
    node.server.say_stop(Stop { attempts, grace_ms: 10_000, ..Stop::default() }).await;
    let ends = node.server.ends(1).await;
    let ended = &ends[&key_of(0)];
    assert_eq!(ended.cause.as_ref().unwrap().kind(), CauseKind::CancelledByUser);
    assert_eq!(node.server.log(&key_of(0), ended.stdout_bytes).await, b"some words");
}

#[tokio::test]
async fn a_log_that_is_at_the_server_gives_its_room_back_while_it_grows() {
    let node = Node::new().await;
    let _agent = node.agent_with(|config| config.spool_bytes_max = 100_000).await.unwrap();
    let text = "0123456789".repeat(20_000);
    node.server.say_assign(assign(1, 0..1, &["hold", &text])).await;
    assert_eq!(node.server.log(&key_of(0), 200_000).await, text.as_bytes());
    let path = format!("spool/{}.out", key_of(0).replace('/', "."));
    let file = node.disk.open(&path, OpenMode::Write).unwrap();
    let (gone, begun) = (3 * (64 << 10), Instant::now());
    let there = loop {
        let there = read_all(&*node.disk, &path, 1 << 20).unwrap();
        if there.starts_with(&vec![0; gone]) {
            break there;
        }
        assert!(begun.elapsed() < ms(30_000), "its room is not given back");
        sleep(ms(10)).await;
    };
    assert_eq!(there[gone..], text.as_bytes()[gone..]);
    // What is written behind the hole comes like all before.
    file.write_at(200_000, b"more").unwrap();
    let whole = node.server.log(&key_of(0), 200_004).await;
    assert!(whole.starts_with(text.as_bytes()) && whole.ends_with(b"more"));
}

#[tokio::test]
async fn what_is_too_much_for_a_node_is_given_up_and_told_even_by_the_next_agent() {
    let node = Node::new().await;
    node.server.take_no_logs(true);
    let bounded = |config: &mut agent::AgentConfig| config.spool_unshipped_bytes_max = 100_000;
    let agent = node.agent_with(bounded).await.unwrap();
    let text = "0123456789".repeat(20_000);
    node.server.say_assign(assign(1, 0..1, &["hold", &text])).await;
    let stem = format!("spool/{}", key_of(0).replace('/', "."));
    let begun = Instant::now();
    while read_all(&*node.disk, &format!("{stem}.outgap"), 8).is_err() {
        assert!(begun.elapsed() < ms(30_000), "nothing is given up");
        sleep(ms(10)).await;
    }
    agent.stop(TasksAtStop::Leave).await;
    // An eighth below its bound: the oldest 112 500 are gone, and of the file what is 64 KiB.
    let mut told = vec![GIVEN_UP; 112_500];
    told.extend_from_slice(&text.as_bytes()[112_500..]);
    node.server.take_no_logs(false);
    let _agent = node.agent_with(bounded).await.unwrap();
    assert_eq!(node.server.log(&key_of(0), 200_000).await, told);
    // The task never knew: what it writes comes, and so does its end.
    let file = node.disk.open(&format!("{stem}.out"), OpenMode::Write).unwrap();
    file.write_at(200_000, b"more").unwrap();
    told.extend_from_slice(b"more");
    assert_eq!(node.server.log(&key_of(0), 200_004).await, told);
    let attempts = vec![agent::core::key::Key::from_process_key(&key_of(0)).unwrap().attempt_ref()];
    node.server.say_stop(Stop { attempts, grace_ms: 10_000, ..Stop::default() }).await;
    let ends = node.server.ends(1).await;
    assert_eq!(ends[&key_of(0)].stdout_bytes, 200_004);
    node.server.forgotten(&node.processes, 1).await;
    while node.disk.entry(&format!("{stem}.outgap")).is_ok() {
        assert!(begun.elapsed() < ms(30_000), "what says how much went is never removed");
        sleep(ms(10)).await;
    }
}

#[tokio::test]
async fn a_broken_session_loses_nothing() {
    let node = Node::new().await;
    let _agent = node.agent().await.unwrap();
    node.server.keep_silent_on_reports(true);
    node.server.say_assign(assign(2, 0..20, &["true"])).await;
    node.server.ends(20).await;
    node.server.hang_up();
    node.server.keep_silent_on_reports(false);
    // Said again in the next session, and confirmed there.
    node.server.forgotten(&node.processes, 20).await;
    assert_eq!(node.server.ends(20).await.len(), 20);
    let spool = node.disk.list("spool").unwrap();
    assert!(spool.len() <= 40, "{spool:?}");
    assert!(read_all(&*node.disk, "spool/none", 1).is_err());
}
