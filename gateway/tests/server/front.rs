//! The front door over real gRPC: who may do what, what is refused and how,
//! and that what was accepted can be read back.

use crate::support::{Client, TestDir, code, job, serve, submission};
use futures_util::{StreamExt, stream};
use proto::problem::Problem;
use proto::v1::submit_outcome::Outcome;
use proto::v1::{
    CancelRequest, CreateUploadRequest, EventsRequest, Input, JobRequest, JobSpec, ListJobsRequest,
    ListTasksRequest, ListTenantsRequest, LogsRequest, NodesRequest, PoolsRequest, ReadJobFileRequest, Role,
    State, Step, SubmitOutcome, SubmitRequest, WhyRequest, read_job_file_request::Text,
};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use world::Transfer;
use world::disk::OpenMode;
use world::real::HttpTransfer;

fn why_of(number: u64) -> WhyRequest {
    WhyRequest { number, ..WhyRequest::default() }
}

fn numbered(number: u64) -> JobRequest {
    JobRequest { tenant: String::new(), number }
}

#[tokio::test]
async fn only_known_tokens_get_in() {
    let dir = TestDir::new();
    let server = serve(&dir).await.unwrap();
    let admin = Client::new(&server, &server.token).await;
    for token in ["", "dl_00000000000000000000000000000000", "nonsense"] {
        let mut nobody = admin.with(token);
        let request = nobody.request(numbered(1));
        assert_eq!(code(nobody.grpc.get_job(request).await), "auth.token", "{token:?}");
        let request = nobody.request(submission("x", ""));
        assert_eq!(code(nobody.grpc.submit(request).await), "auth.token", "{token:?}");
    }
    let agent = admin.with(&admin.token(Role::Agent, "").await);
    let request = agent.request(submission("x", ""));
    assert_eq!(code(agent.grpc.clone().submit(request).await), "denied.role");
    let operator = admin.with(&admin.token(Role::Operator, "default").await);
    let request = operator.request(ListTenantsRequest {});
    assert_eq!(operator.grpc.clone().list_tenants(request).await.unwrap().into_inner().tenants.len(), 1);
    server.stop().await;
}

#[tokio::test]
async fn a_tenant_neither_sees_nor_touches_another_s() {
    let dir = TestDir::new();
    let server = serve(&dir).await.unwrap();
    let mut admin = Client::new(&server, &server.token).await;
    admin.tenant("lab").await;
    let mut lab = admin.with(&admin.token(Role::Tenant, "lab").await);
    let request = admin.request(submission("secret", ""));
    let number = admin.grpc.submit(request).await.unwrap().into_inner().number;
    let theirs = JobRequest { tenant: "default".into(), number };
    let request = lab.request(theirs.clone());
    let problem = Problem::from(lab.grpc.get_job(request).await.unwrap_err());
    assert_eq!((problem.code.as_str(), problem.value.as_str()), ("missing.job", "default-1"));
    let request = lab.request(CancelRequest { job: Some(theirs), reason: String::new() });
    assert_eq!(code(lab.grpc.cancel(request).await), "missing.job");
    let request = lab.request(SubmitRequest { tenant: "default".into(), ..submission("x", "") });
    assert_eq!(code(lab.grpc.submit(request).await), "missing.tenant");
    let request = lab.request(ListJobsRequest { all_tenants: true, ..ListJobsRequest::default() });
    assert_eq!(code(lab.grpc.list_jobs(request).await), "denied.role");
    let request = lab.request(ListJobsRequest::default());
    assert!(lab.grpc.list_jobs(request).await.unwrap().into_inner().jobs.is_empty());
    let request = lab.request(ListTenantsRequest {});
    let seen = lab.grpc.list_tenants(request).await.unwrap().into_inner().tenants;
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].tenant.as_ref().unwrap().name, "lab");
    let request = admin.request(SubmitRequest { tenant: "nobody".into(), ..submission("x", "") });
    assert_eq!(code(admin.grpc.submit(request).await), "missing.tenant");
    server.stop().await;
}

#[tokio::test]
async fn what_was_submitted_can_be_read_listed_and_cancelled() {
    let dir = TestDir::new();
    let server = serve(&dir).await.unwrap();
    let mut admin = Client::new(&server, &server.token).await;
    let array = proto::array::parse("10-19").unwrap();
    let mut spec = job("array");
    spec.steps[0].array = Some(array);
    spec.labels.insert("team".into(), "a".into());
    let request = admin.request(SubmitRequest { spec: Some(spec), ..SubmitRequest::default() });
    let reply = admin.grpc.submit(request).await.unwrap().into_inner();
    assert_eq!((reply.tenant.as_str(), reply.number, reply.tasks), ("default", 1, 10));
    for n in 2..=5 {
        let request = admin.request(submission(&format!("job-{n}"), ""));
        assert_eq!(admin.grpc.submit(request).await.unwrap().into_inner().number, n);
    }
    let request = admin.request(numbered(1));
    let view = admin.grpc.get_job(request).await.unwrap().into_inner();
    assert_eq!(view.state.unwrap().state(), State::Pending);
    assert_eq!(view.job.unwrap().submitted_by, "admin");

    let mut listed = Vec::new();
    let mut before = 0;
    loop {
        let request = admin.request(ListJobsRequest { limit: 2, before, ..ListJobsRequest::default() });
        let page = admin.grpc.list_jobs(request).await.unwrap().into_inner();
        listed.extend(page.jobs.iter().map(|job| job.number));
        before = page.next_before;
        if before == 0 {
            break;
        }
    }
    assert_eq!(listed, [5, 4, 3, 2, 1]);
    let labels = [("team".to_owned(), "a".to_owned())].into();
    let request = admin.request(ListJobsRequest { labels, all_tenants: true, ..ListJobsRequest::default() });
    let page = admin.grpc.list_jobs(request).await.unwrap().into_inner();
    assert_eq!(page.jobs.iter().map(|job| job.number).collect::<Vec<_>>(), [1]);

    let request = admin.request(ListTasksRequest { job: Some(numbered(1)), step: 0, limit: 4, from_task: 4 });
    let tasks = admin.grpc.list_tasks(request).await.unwrap().into_inner();
    assert_eq!(tasks.tasks.iter().map(|task| task.index).collect::<Vec<_>>(), [14, 15, 16, 17]);
    assert_eq!(tasks.next_task, 8);

    let request = admin.request(CancelRequest { job: Some(numbered(2)), reason: "enough".into() });
    admin.grpc.cancel(request).await.unwrap();
    let states = vec![State::Cancelled.into()];
    let request = admin.request(ListJobsRequest { states, ..ListJobsRequest::default() });
    let page = admin.grpc.list_jobs(request).await.unwrap().into_inner();
    assert_eq!(page.jobs.iter().map(|job| job.number).collect::<Vec<_>>(), [2]);
    let request = admin.request(why_of(2));
    let why = admin.grpc.why(request).await.unwrap().into_inner();
    assert_eq!(why.code, "ended");
    assert!(why.headline.contains("CANCELLED") && why.headline.contains("enough"), "{}", why.headline);
    let request = admin.request(why_of(3));
    let why = admin.grpc.why(request).await.unwrap().into_inner();
    assert!(why.code.starts_with("waiting."), "{why:?}");
    let request = admin.request(why_of(99));
    assert_eq!(code(admin.grpc.why(request).await), "missing.job");
    server.stop().await;
}

#[tokio::test]
async fn a_bad_spec_is_refused_with_field_value_and_remedy() {
    let dir = TestDir::new();
    let server = serve(&dir).await.unwrap();
    let mut admin = Client::new(&server, &server.token).await;
    let mut cycle = job("cycle");
    cycle.steps[0].after = vec!["other".into()];
    cycle.steps.push(Step {
        name: "other".into(),
        run: "true".into(),
        after: vec!["main".into()],
        ..Step::default()
    });
    let mut huge = job("huge");
    huge.steps[0].env.insert("A".into(), "x".repeat(proto::limits::SPEC_BYTES_MAX));
    let mut input = job("input");
    input.inputs.push(Input {
        name: "book".into(),
        digest: "0f".repeat(32),
        size_bytes: 3,
        ..Input::default()
    });
    for (spec, family) in [
        (None, "spec.missing"),
        (Some(JobSpec::default()), "spec."),
        (Some(cycle), "spec.cycle"),
        (Some(huge), "spec."),
        (Some(input), "missing.input"),
    ] {
        let request = admin.request(SubmitRequest { spec, ..SubmitRequest::default() });
        let problem = Problem::from(admin.grpc.submit(request).await.unwrap_err());
        assert!(problem.code.starts_with(family), "{problem:?}");
        assert!(
            !problem.field.is_empty() && !problem.reason.is_empty() && !problem.remedy.is_empty(),
            "{problem:?}"
        );
    }
    let request = admin.request(submission("x", "a key"));
    assert_eq!(code(admin.grpc.submit(request).await), "spec.idempotency_key");
    // Nothing was half accepted.
    let request = admin.request(ListJobsRequest::default());
    assert!(admin.grpc.list_jobs(request).await.unwrap().into_inner().jobs.is_empty());
    server.stop().await;
}

#[tokio::test]
async fn a_key_used_again_means_the_same_job() {
    let dir = TestDir::new();
    let server = serve(&dir).await.unwrap();
    let mut admin = Client::new(&server, &server.token).await;
    let request = admin.request(submission("once", "key-1"));
    let first = admin.grpc.submit(request).await.unwrap().into_inner();
    let request = admin.request(submission("once", "key-1"));
    let again = admin.grpc.submit(request).await.unwrap().into_inner();
    assert_eq!((first.existing, again.existing, again.number), (false, true, first.number));
    let request = admin.request(submission("another", "key-1"));
    let problem = Problem::from(admin.grpc.submit(request).await.unwrap_err());
    assert_eq!(problem.family(), "conflict", "{problem:?}");
    let request = admin.request(SubmitRequest { dry_run: true, ..submission("dry", "") });
    assert_eq!(admin.grpc.submit(request).await.unwrap().into_inner().number, 0);
    server.stop().await;
}

#[tokio::test]
async fn many_submissions_are_answered_in_order() {
    let dir = TestDir::new();
    let server = serve(&dir).await.unwrap();
    let mut admin = Client::new(&server, &server.token).await;
    let requests: Vec<SubmitRequest> = (0..3_000)
        .map(|n| match n % 10 {
            9 => SubmitRequest::default(),
            _ => submission(&format!("job-{n}"), ""),
        })
        .collect();
    let request = admin.request(stream::iter(requests));
    let outcomes: Vec<SubmitOutcome> = admin
        .grpc
        .submit_many(request)
        .await
        .unwrap()
        .into_inner()
        .map(|outcome| outcome.unwrap())
        .collect()
        .await;
    assert_eq!(outcomes.len(), 3_000);
    let mut next = 1;
    for (n, outcome) in outcomes.into_iter().enumerate() {
        match outcome.outcome.unwrap() {
            Outcome::Accepted(reply) => {
                assert_eq!(reply.number, next);
                next += 1;
                assert_ne!(n % 10, 9);
            }
            Outcome::Refused(problem) => assert_eq!((n % 10, problem.code.as_str()), (9, "spec.missing")),
        }
    }
    let request = admin.request(numbered(next - 1));
    admin.grpc.get_job(request).await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn an_input_is_uploaded_once_and_then_known() {
    let dir = TestDir::new();
    let server = serve(&dir).await.unwrap();
    let mut admin = Client::new(&server, &server.token).await;
    let data = b"call me Ishmael".repeat(10_000);
    let digest: String = Sha256::digest(&data).iter().map(|byte| format!("{byte:02x}")).collect();
    let size_bytes = data.len() as u64;
    let ask =
        CreateUploadRequest { tenant: String::new(), digest: digest.clone(), size_bytes, beside_bytes: 0 };
    let request = admin.request(ask.clone());
    let url = admin.grpc.create_upload(request).await.unwrap().into_inner().url;
    assert!(url.starts_with(&server.address), "{url}");
    let local = TestDir::new();
    let disk = local.disk();
    disk.open("book", OpenMode::CreateNew).unwrap().write_at(0, &data).unwrap();
    let transfer = HttpTransfer::new(world::real::TransferLimits::default());
    transfer.put(&url, Arc::clone(&disk), "book").await.unwrap();
    let request = admin.request(ask);
    assert_eq!(admin.grpc.create_upload(request).await.unwrap().into_inner().url, "");
    let mut spec = job("reader");
    spec.inputs.push(Input { name: "book".into(), digest: digest.clone(), size_bytes, ..Input::default() });
    let request = admin.request(SubmitRequest { spec: Some(spec), ..SubmitRequest::default() });
    admin.grpc.submit(request).await.unwrap();
    let request = admin.request(CreateUploadRequest { digest: "x".into(), ..CreateUploadRequest::default() });
    assert_eq!(code(admin.grpc.create_upload(request).await), "spec.digest");
    // The URL lets nobody read.
    assert!(transfer.get(&url, disk, "copy", &digest).await.is_err());
    server.stop().await;
}

#[tokio::test]
async fn events_come_without_gap_or_repeat() {
    let dir = TestDir::new();
    let server = serve(&dir).await.unwrap();
    let mut admin = Client::new(&server, &server.token).await;
    let request = admin.request(submission("early", ""));
    admin.grpc.submit(request).await.unwrap();
    let request = admin.request(EventsRequest { follow: true, ..EventsRequest::default() });
    let mut following = admin.grpc.events(request).await.unwrap().into_inner();
    let mut seen = following.message().await.unwrap().unwrap().events;
    for n in 0..20 {
        let request = admin.request(submission(&format!("late-{n}"), ""));
        admin.grpc.submit(request).await.unwrap();
    }
    let request = admin.request(CancelRequest { job: Some(numbered(1)), reason: String::new() });
    admin.grpc.cancel(request).await.unwrap();
    // All there is, read anew.
    let request = admin.request(EventsRequest::default());
    let mut all = Vec::new();
    let mut reading = admin.grpc.events(request).await.unwrap().into_inner();
    let mut ended = false;
    while let Some(reply) = reading.message().await.unwrap() {
        assert!(!ended, "nothing comes after the end");
        all.extend(reply.events);
        ended = reply.end;
    }
    assert!(ended);
    while seen.len() < all.len() {
        seen.extend(following.message().await.unwrap().unwrap().events);
    }
    assert_eq!(seen, all);
    let numbers: Vec<u64> = all.iter().map(|event| event.seq).collect();
    let first = numbers[0];
    assert_eq!(numbers, (first..first + all.len() as u64).collect::<Vec<_>>());
    // From the middle, of one ended job: to its end and no further.
    let request = admin.request(EventsRequest { follow: true, job_number: 1, ..EventsRequest::default() });
    let mut one = admin.grpc.events(request).await.unwrap().into_inner();
    let mut last = None;
    while let Some(reply) = one.message().await.unwrap() {
        assert!(reply.events.iter().all(|event| event.job_number == 1));
        last = Some(reply);
    }
    assert!(last.unwrap().end);
    server.stop().await;
}

#[tokio::test]
async fn the_log_of_a_job_that_never_ran_ends_at_once() {
    let dir = TestDir::new();
    let server = serve(&dir).await.unwrap();
    let mut admin = Client::new(&server, &server.token).await;
    let request = admin.request(submission("x", ""));
    admin.grpc.submit(request).await.unwrap();
    let logs = |follow| LogsRequest { job: Some(numbered(1)), follow, ..LogsRequest::default() };
    let request = admin.request(logs(false));
    let mut once = admin.grpc.logs(request).await.unwrap().into_inner();
    assert!(once.message().await.unwrap().unwrap().end);
    let request = admin.request(logs(true));
    let mut following = admin.grpc.logs(request).await.unwrap().into_inner();
    let request = admin.request(CancelRequest { job: Some(numbered(1)), reason: String::new() });
    admin.grpc.cancel(request).await.unwrap();
    let last = following.message().await.unwrap().unwrap();
    assert_eq!((last.end, last.missing_bytes, last.chunks.len()), (true, 0, 0));
    assert!(following.message().await.unwrap().is_none());
    server.stop().await;
}

#[tokio::test]
async fn health_and_reflection_are_on() {
    let dir = TestDir::new();
    let server = serve(&dir).await.unwrap();
    let mut admin = Client::new(&server, &server.token).await;
    let mut health = tonic_health::pb::health_client::HealthClient::new(admin.channel.clone());
    let request = tonic_health::pb::HealthCheckRequest { service: "drumline.v1.Drumline".into() };
    let status = health.check(request).await.unwrap().into_inner().status();
    assert_eq!(status, tonic_health::pb::health_check_response::ServingStatus::Serving);
    use tonic_reflection::pb::v1 as reflection;
    let mut client = reflection::server_reflection_client::ServerReflectionClient::new(admin.channel.clone());
    let request = reflection::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(reflection::server_reflection_request::MessageRequest::ListServices(
            String::new(),
        )),
    };
    let reply =
        client.server_reflection_info(stream::iter([request])).await.unwrap().into_inner().message().await;
    let listed = format!("{:?}", reply.unwrap().unwrap());
    assert!(listed.contains("drumline.v1.Agents"), "{listed}");
    let request = admin.request(NodesRequest {});
    assert!(admin.grpc.nodes(request).await.unwrap().into_inner().nodes.is_empty());
    let request = admin.request(PoolsRequest::default());
    admin.grpc.pools(request).await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn a_job_file_is_read_for_whoever_cannot() {
    let dir = TestDir::new();
    let server = serve(&dir).await.unwrap();
    let admin = Client::new(&server, &server.token).await;
    let read = async |text: Option<Text>| {
        let request = admin.request(ReadJobFileRequest { text });
        admin.grpc.clone().read_job_file(request).await
    };
    let toml =
        "[[input]]\nname = \"book\"\npath = \"a/book.txt\"\n[[step]]\nrun = \"wc\"\narray = \"1-9:2%3\"\n";
    let json =
        r#"{"input": [{"name": "book", "path": "a/book.txt"}], "step": [{"run": "wc", "array": "1-9:2%3"}]}"#;
    let spec = read(Some(Text::Toml(toml.into()))).await.unwrap().into_inner().spec.unwrap();
    assert_eq!(spec.inputs[0].path, "a/book.txt");
    assert_eq!(spec.steps[0].array, Some(proto::array::parse("1-9:2%3").unwrap()));
    assert_eq!(read(Some(Text::Json(json.into()))).await.unwrap().into_inner().spec.unwrap(), spec);
    assert_eq!(code(read(None).await), "spec.missing");
    assert_eq!(code(read(Some(Text::Toml("[[step]]\nrnu = 1".into()))).await), "spec.unknown_key");
    let agent = admin.with(&admin.token(Role::Agent, "").await);
    let request = agent.request(ReadJobFileRequest { text: None });
    assert_eq!(code(agent.grpc.clone().read_job_file(request).await), "denied.role");
    server.stop().await;
}
