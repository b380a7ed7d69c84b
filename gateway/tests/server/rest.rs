//! REST over real HTTP: each route as it is meant, and each as it is not.

use crate::http::{Answer, Http, is_ok};
use crate::support::{Client, TestDir, serve};
use gateway::server::RunningServer;
use hyper::Request;
use proto::v1::Role;
use serde_json::json;
use std::collections::BTreeMap;

const JOB: &str = r#"{"name": "hello", "labels": {"team": "blue"}, "step": [{"run": "true"}]}"#;

async fn start() -> (TestDir, RunningServer, Http) {
    let dir = TestDir::new();
    let server = serve(&dir).await.unwrap();
    let http = Http::new(&server, &server.token).await;
    (dir, server, http)
}

fn id(answer: &Answer) -> String {
    assert_eq!(answer.status, 201, "{}", answer.text);
    answer.json()["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_job_is_submitted_shown_listed_and_cancelled() {
    let (_dir, server, http) = start().await;
    let answer = http.post("/v1/jobs", JOB).await;
    assert_eq!(answer.header("location"), "/v1/jobs/default-1");
    assert_eq!(id(&answer), "default-1");
    let shown = http.get("/v1/jobs/1").await.json();
    assert_eq!((&shown["name"], &shown["state"]), (&json!("hello"), &json!("PENDING")));
    assert_eq!(shown["steps"][0]["run"], "true");
    let list = http.get("/v1/jobs?state=PENDING&label=team%3Dblue").await.json();
    assert_eq!(list["jobs"].as_array().unwrap().len(), 1);
    assert_eq!(
        http.get("/v1/jobs?label=team%3Dred").await.json(),
        json!({ "jobs": [], "next_cursor": null })
    );
    let tasks = http.get("/v1/jobs/default-1/tasks?step=main").await.json();
    assert_eq!(tasks["tasks"][0]["state"], "PENDING");
    assert_eq!(http.get("/v1/jobs/1/why").await.json()["id"], "default-1");
    assert_eq!(http.get("/v1/jobs/1/outputs").await.json(), json!({ "outputs": [] }));
    assert_eq!(http.get("/v1/jobs/1/logs").await.text, "");
    let answer = http.delete("/v1/jobs/1?reason=a%20slip").await;
    assert_eq!((answer.status, answer.json()["state"].as_str()), (200, Some("CANCELLED")));
    let why = http.get("/v1/jobs/1/why").await.json();
    assert!(why["headline"].as_str().unwrap().contains("a slip"), "{why}");
    let again = http.send(http.request("POST", "/v1/jobs/1/retry"), "").await;
    assert_eq!(again.json(), json!({ "id": "default-1", "tasks": 1 }));
    server.stop().await;
}

#[tokio::test]
async fn an_envelope_is_understood_too() {
    let (_dir, server, http) = start().await;
    // SHA-256 of "foo\n".
    let body = r#"{
        "tenantId": "default", "priority": 7, "estimateCores": 0.5, "expectedRuntime": "2m",
        "inputRefs": [{
            "name": "book", "url": "http://books.example/1",
            "digest": "b5bb9d8014a0f9b1d61e21e796d78dccdf1352f23cd32812f4850b878ae4944c"
        }],
        "spec": {"step": [{"run": "wc -w inputs/book"}]}
    }"#;
    let id = id(&http.post("/v1/jobs", body).await);
    let shown = http.get(&format!("/v1/jobs/{id}")).await.json();
    assert_eq!((&shown["priority"], &shown["inputs"][0]["name"]), (&json!(7), &json!("book")));
    assert_eq!(shown["steps"][0]["per_task"]["cores"], 0.5);
    let elsewhere = body.replace("http:", "ftp:");
    let told = http.post("/v1/jobs", &elsewhere).await.refusal();
    assert_eq!(told, (422, "spec.url".into(), "input[0].url".into()));
    let undigested =
        r#"{"input": [{"name": "book", "url": "http://books.example/1"}], "step": [{"run": "true"}]}"#;
    let told = http.post("/v1/jobs", undigested).await.refusal();
    assert_eq!(told, (422, "spec.input".into(), "input[0].digest".into()));
    let elsewhere = body.replace("\"default\"", "\"nobody\"");
    assert_eq!(http.post("/v1/jobs", &elsewhere).await.refusal().1, "missing.tenant");
    let twice = http.post("/v1/jobs?tenant=lab", body).await.refusal();
    assert_eq!((twice.0, twice.1.as_str()), (409, "conflict.tenant"));
    server.stop().await;
}

#[tokio::test]
async fn keys_dry_runs_and_dependencies() {
    let (_dir, server, http) = start().await;
    let keyed = |key: &str| {
        http.request("POST", "/v1/jobs")
            .header("content-type", "application/json")
            .header("idempotency-key", key)
    };
    assert_eq!(id(&http.send(keyed("k1"), JOB).await), "default-1");
    let again = http.send(keyed("k1"), JOB).await;
    assert_eq!((again.status, again.json()), (200, json!({ "id": "default-1", "existing": true })));
    let other = http.send(keyed("k1"), &JOB.replace("true", "false")).await.refusal();
    assert_eq!(other.0, 409, "{other:?}");
    assert_eq!(http.send(keyed(&"k".repeat(200)), JOB).await.refusal().0, 400);
    let dry = http.post("/v1/jobs?dry_run=true", JOB).await;
    assert_eq!((dry.status, &dry.json()["tasks"]), (200, &json!(1)));
    let later = id(&http.post("/v1/jobs?after=ok:default-1&after=any:1", JOB).await);
    let why = http.get(&format!("/v1/jobs/{later}/why")).await.json();
    assert_eq!(why["code"], "waiting.job");
    const ARRAY: &str = r#"{"step": [{"run": "true", "array": "1-3"}]}"#;
    let array = id(&http.post("/v1/jobs", ARRAY).await);
    let each = id(&http.post(&format!("/v1/jobs?after=each:{array}"), ARRAY).await);
    let one = id(&http.post(&format!("/v1/jobs?after=notok:{array}/main%5B2%5D"), JOB).await);
    let shown = http.get(&format!("/v1/jobs/{each}")).await.json();
    assert_eq!(shown["after"], json!([format!("each:{array}")]));
    let why = http.get(&format!("/v1/jobs/{each}/why")).await.json();
    assert_eq!(
        (&why["code"], &why["headline"]),
        (
            &json!("waiting.job"),
            &json!(format!(
                "step main: each task waits for the task of {array} step main with its index to complete; \
         0 of 3 have, task 1 is PENDING there"
            ))
        )
    );
    let why = http.get(&format!("/v1/jobs/{one}/why")).await.json();
    assert_eq!(why["headline"], format!("waits for task 2 of job {array} to fail; it is PENDING"));
    for (after, body, status, code) in [
        (format!("each:{array}"), JOB, 409, "spec.each"),
        (format!("ok:{array}%5B7%5D"), JOB, 409, "conflict.dependency"),
        (format!("each:{later}"), ARRAY, 409, "conflict.dependency"),
        ("each:99".to_owned(), ARRAY, 404, "missing.job"),
        (format!("each:{array}%5B1%5D"), ARRAY, 400, "http.query"),
        ("each:lab-1".to_owned(), ARRAY, 409, "conflict.dependency"),
    ] {
        let refused = http.post(&format!("/v1/jobs?after={after}"), body).await.refusal();
        assert_eq!((refused.0, refused.1.as_str()), (status, code), "{after}: {refused:?}");
    }
    let theirs = http.post("/v1/jobs?after=ok:lab-1", JOB).await.refusal();
    assert_eq!(theirs, (409, "conflict.dependency".into(), "after".into()));
    server.stop().await;
}

/// Bodies that are no job: what is told of each.
const NO_JOBS: &[(&str, u16, &str, &str)] = &[
    ("", 400, "spec.syntax", "job file"),
    ("{", 400, "spec.syntax", "job file"),
    ("{}{}", 400, "spec.syntax", "job file"),
    ("[]", 400, "spec.type", "job file"),
    ("{}", 400, "spec.missing", "step"),
    (r#"{"step": [{"run": "x", "core": 1}]}"#, 400, "spec.unknown_key", "step[0].core"),
    (r#"{"step": [{"run": 5}]}"#, 400, "spec.type", "step[0].run"),
    (r#"{"step": [{"run": "x", "nodes": 1.5}]}"#, 400, "spec.type", "step[0].nodes"),
    (r#"{"spec": {"step": [{"run": "x"}]}, "tenant": "a"}"#, 400, "spec.unknown_key", "tenant"),
    (r#"{"step": [{"run": "x", "cores": 0}]}"#, 422, "spec.size", "step[0].cores"),
    (r#"{"step": [{"run": "x", "memory": "lots"}]}"#, 422, "spec.unit", "step[0].memory"),
    (r#"{"step": [{"run": "x", "array": "0-"}]}"#, 422, "spec.array", "step[0].array"),
    (r#"{"priority": 5000, "step": [{"run": "x"}]}"#, 422, "spec.priority", "priority"),
    (r#"{"step": [{"run": "x", "array": "3-1"}]}"#, 409, "spec.array_indexes", "step[0].array"),
    (r#"{"step": [{"name": "a", "run": "x", "after": ["b"]}]}"#, 409, "spec.unknown_step", "step[0].after"),
    (
        r#"{"step": [{"name": "a", "run": "x", "after": ["b"]}, {"name": "b", "run": "x", "after": ["a"]}]}"#,
        409,
        "spec.cycle",
        "step[0].after",
    ),
    (
        r#"{"input": [{"name": "i", "path": "/etc/passwd"}], "step": [{"run": "x"}]}"#,
        422,
        "spec.input",
        "input[0].path",
    ),
];

#[tokio::test]
async fn what_is_no_job_is_refused_by_field() {
    let (_dir, server, http) = start().await;
    for (body, status, code, field) in NO_JOBS {
        let refusal = http.post("/v1/jobs", body).await.refusal();
        assert_eq!(refusal, (*status, (*code).into(), (*field).into()), "{body}");
    }
    let digest = "0f".repeat(32);
    let gone = format!(
        r#"{{"input": [{{"name": "i", "digest": "{digest}", "size": 3}}], "step": [{{"run": "x"}}]}}"#
    );
    assert_eq!(http.post("/v1/jobs", &gone).await.refusal().1, "missing.input");
    assert_eq!(http.get("/v1/jobs").await.json()["jobs"], json!([]), "nothing was half accepted");
    server.stop().await;
}

#[tokio::test]
async fn bodies_have_a_type_and_a_size() {
    let (_dir, server, http) = start().await;
    let typed = |media_type: &str| http.request("POST", "/v1/jobs").header("content-type", media_type);
    for media_type in ["application/x-www-form-urlencoded", "text/plain", "application/jsonp", ""] {
        let refusal = http.send(typed(media_type), JOB).await.refusal();
        assert_eq!((refusal.0, refusal.1.as_str()), (415, "http.media_type"), "{media_type}");
    }
    assert_eq!(http.send(typed("Application/JSON; charset=utf-8"), JOB).await.status, 201);
    let large = " ".repeat(proto::limits::JOB_FILE_BYTES_MAX + 1);
    let refusal = http.post("/v1/jobs", &large).await.refusal();
    assert_eq!((refusal.0, refusal.1.as_str()), (413, "http.too_large"));
    let refusal = http.post("/v1/uploads", &" ".repeat(100_000)).await.refusal();
    assert_eq!(refusal.0, 413);
    server.stop().await;
}

#[tokio::test]
async fn every_target_that_is_wrong_is_refused() {
    let (_dir, server, http) = start().await;
    http.post("/v1/jobs", JOB).await;
    for (target, status, code, field) in [
        ("/v1/jobs/7", 404, "missing.job", "job"),
        ("/v1/jobs/nonsense", 404, "missing.job", "job"),
        ("/v1/jobs/0/why", 404, "missing.job", "job"),
        ("/v1/jobs/7/logs", 404, "missing.job", "job"),
        ("/v1/jobs/7/outputs", 404, "missing.job", "job"),
        ("/v1/jobs/7/tasks", 404, "missing.job", "job"),
        ("/v1/jobs/1/tasks?step=nope", 404, "missing.step", "step"),
        ("/v1/jobs/1/logs?step=nope", 404, "missing.step", "step"),
        ("/v1/jobs/1/logs?step=main&task=3", 404, "missing.task", "task"),
        ("/v1/jobs/1/logs?task=3", 409, "conflict.query", "task"),
        ("/v1/jobs/1/logs?tail=1m&since=5", 409, "conflict.query", "since"),
        ("/v1/jobs/1/logs?tail=soon", 400, "spec.unit", "tail"),
        ("/v1/jobs/1/logs?follow=yes", 400, "http.query", "follow"),
        ("/v1/jobs?limit=0", 400, "http.query", "limit"),
        ("/v1/jobs?limit=many", 400, "http.query", "limit"),
        ("/v1/jobs?limit=1&limit=2", 400, "http.query", "limit"),
        ("/v1/jobs?state=done", 400, "http.query", "state"),
        ("/v1/jobs?label=x", 400, "http.query", "label"),
        ("/v1/jobs?colour=red", 400, "http.query", "colour"),
        ("/v1/jobs?tenant=No%20Name", 400, "spec.tenant_name", "tenant"),
        ("/v1/jobs?tenant=nobody", 404, "missing.tenant", "tenant"),
        ("/v1/nodes?x=1", 400, "http.query", "x"),
        ("/v1/nodepools?pool=nope", 404, "missing.pool", "pool"),
        ("/v1/nodepools?cores=0", 400, "http.query", "cores"),
        ("/v1/tenants/nobody/quota", 404, "missing.tenant", "tenant"),
        ("/v1/tenants/No/quota", 404, "missing.tenant", "tenant"),
    ] {
        let refusal = http.get(target).await.refusal();
        assert_eq!(refusal, (status, code.into(), field.into()), "{target}");
    }
    let refusal = http.delete(&format!("/v1/jobs/1?reason={}", "x".repeat(2000))).await.refusal();
    assert_eq!(refusal, (400, "http.query".into(), "reason".into()));
    let refusal = http.send(http.request("POST", "/v1/jobs/1/retry"), "").await.refusal();
    assert_eq!(refusal.0, 409, "it has not failed: {refusal:?}");
    let refusal = http.delete("/v1/jobs/7").await.refusal();
    assert_eq!(refusal.1, "missing.job");
    server.stop().await;
}

#[tokio::test]
async fn what_is_not_there_and_what_is_not_meant() {
    let (_dir, server, http) = start().await;
    for (method, target) in
        [("GET", "/"), ("GET", "/v1"), ("POST", "/v1/jobs/"), ("GET", "/v2/jobs"), ("PUT", "/x/y")]
    {
        let answer = http.raw(http.request(method, target)).await;
        assert_eq!(answer.refusal(), (404, "missing.route".into(), "path".into()), "{method} {target}");
    }
    for (method, target, allow) in [
        ("PATCH", "/v1/jobs", "POST, GET, HEAD"),
        ("DELETE", "/v1/jobs", "POST, GET, HEAD"),
        ("POST", "/v1/jobs/1", "GET, HEAD, DELETE"),
        ("GET", "/v1/uploads", "POST"),
        ("OPTIONS", "/healthz", "GET, HEAD"),
    ] {
        let answer = http.raw(http.request(method, target)).await;
        assert_eq!(answer.header("allow"), allow);
        assert_eq!(answer.refusal(), (405, "http.method".into(), "method".into()), "{method} {target}");
    }
    let head = http.raw(http.request("HEAD", "/v1/jobs")).await;
    assert_eq!((head.status, head.text.as_str(), head.header("content-type")), (200, "", "application/json"));
    // A path that is no text.
    let answer = http.raw(http.request("GET", "/v1/jobs/%ff")).await;
    assert_eq!(answer.refusal().0, 404);
    server.stop().await;
}

#[tokio::test]
async fn health_and_document_need_no_token_all_else_does() {
    let (_dir, server, http) = start().await;
    let nobody = http.with("");
    assert_eq!(nobody.get("/healthz").await.text, "ok\n");
    let document = nobody.get("/openapi.json").await.json();
    assert_eq!(document["openapi"], "3.1.0");
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            if operation["security"] == json!([]) {
                continue;
            }
            let target = path.replace("{id}", "1").replace("{tenant}", "default");
            for token in ["", "dl_00000000000000000000000000000000", "nonsense", "ü"] {
                let anyone = http.with("");
                let request = anyone.request(&method.to_uppercase(), &target);
                let request = if token.is_empty() {
                    request
                } else {
                    request.header("authorization", format!("Bearer {token}").into_bytes())
                };
                let answer = anyone.send(request, "{").await;
                assert_eq!(answer.header("www-authenticate"), "Bearer");
                assert_eq!(
                    answer.refusal(),
                    (401, "auth.token".into(), "token".into()),
                    "{method} {path} {token}"
                );
            }
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn a_token_sees_and_does_what_its_role_may() {
    let (_dir, server, http) = start().await;
    let admin = Client::new(&server, &server.token).await;
    admin.tenant("lab").await;
    let lab = http.with(&admin.token(Role::Tenant, "lab").await);
    let agent = http.with(&admin.token(Role::Agent, "").await);
    http.post("/v1/jobs", JOB).await;
    assert_eq!(lab.get("/v1/jobs/default-1").await.refusal().1, "missing.job");
    assert_eq!(lab.delete("/v1/jobs/default-1").await.refusal().1, "missing.job");
    assert_eq!(lab.get("/v1/jobs?all_tenants=true").await.refusal().0, 403);
    assert_eq!(lab.get("/v1/jobs?tenant=default").await.refusal().1, "missing.tenant");
    assert_eq!(id(&lab.post("/v1/jobs", JOB).await), "lab-1");
    assert_eq!(lab.get("/v1/jobs/1").await.json()["id"], "lab-1");
    assert_eq!(lab.get("/v1/tenants/lab/quota").await.json()["name"], "lab");
    assert_eq!(lab.get("/v1/tenants/default/quota").await.refusal().1, "missing.tenant");
    assert_eq!(lab.put("/v1/tenants/lab/quota", "{}").await.refusal().1, "denied.role");
    assert_eq!(agent.get("/v1/jobs").await.refusal(), (403, "denied.role".into(), "role".into()));
    assert_eq!(agent.post("/v1/jobs", JOB).await.refusal().0, 403);
    let all = http.get("/v1/jobs?all_tenants=true").await.json();
    assert_eq!(all["jobs"].as_array().unwrap().len(), 2);
    server.stop().await;
}

#[tokio::test]
async fn pages_meet_while_the_list_changes() {
    let (_dir, server, http) = start().await;
    for _ in 0..25 {
        http.post("/v1/jobs", JOB).await;
    }
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut target = "/v1/jobs?limit=4".to_owned();
    let mut pages = 0;
    loop {
        let page = http.get(&target).await.json();
        for job in page["jobs"].as_array().unwrap() {
            *seen.entry(job["id"].as_str().unwrap().to_owned()).or_default() += 1;
        }
        pages += 1;
        // New ones come, old ones change, between any two pages.
        http.post("/v1/jobs", JOB).await;
        http.delete(&format!("/v1/jobs/{pages}")).await;
        let Some(next) = page["next_cursor"].as_u64() else { break };
        target = format!("/v1/jobs?limit=4&cursor={next}");
    }
    let expected: BTreeMap<String, usize> = (1..=25).map(|number| (format!("default-{number}"), 1)).collect();
    assert_eq!(seen, expected);
    assert_eq!(pages, 7);
    server.stop().await;
}

#[tokio::test]
async fn limits_are_put_and_hold_and_a_refusal_says_how_much() {
    let (_dir, server, http) = start().await;
    let admin = Client::new(&server, &server.token).await;
    admin.tenant("lab").await;
    let body = r#"{"quota": {"cores": 4, "queued_tasks": 10}, "budget": "1.50", "core_hour": "0.04", "when_full": "reject"}"#;
    let put = http.put("/v1/tenants/lab/quota", body).await.json();
    assert_eq!(put, http.get("/v1/tenants/lab/quota").await.json());
    assert_eq!(put["quota"], json!({ "cores": 4.0, "queued_tasks": 10 }));
    assert_eq!((&put["budget"], &put["core_hour"]), (&json!("1.50"), &json!("0.04")));
    let lab = http.with(&admin.token(Role::Tenant, "lab").await);
    let wide = r#"{"step": [{"run": "true", "cores": 5}]}"#;
    let refusal = lab.post("/v1/jobs", wide).await;
    assert_eq!(refusal.header("retry-after"), "", "no time clears it");
    insta::assert_snapshot!(serde_json::to_string_pretty(&refusal.json()).unwrap());
    // A month's budget clears with the month.
    let long = r#"{"expected_runtime": "100h", "step": [{"run": "true"}]}"#;
    let refusal = lab.post("/v1/jobs", long).await.json();
    assert_eq!((&refusal["status"], &refusal["dimension"]), (&json!(429), &json!("budget")));
    assert!(refusal["eta"].is_null(), "more than all of it never fits");
    // Without limits again.
    http.put("/v1/tenants/lab/quota", "{}").await;
    for (body, status, field) in [
        (r#"{"quota": {"cores": -1}}"#, 422, "quota.cores"),
        (r#"{"quota": {"core": 1}}"#, 400, "quota.core"),
        (r#"{"quota": {"gpus": "many"}}"#, 400, "quota.gpus"),
        (r#"{"budget": "a lot"}"#, 422, "budget"),
        (r#"{"when_full": "panic"}"#, 422, "when_full"),
        ("5", 400, "job file"),
    ] {
        let refusal = http.put("/v1/tenants/lab/quota", body).await.refusal();
        assert_eq!((refusal.0, refusal.2.as_str()), (status, field), "{body}");
    }
    assert_eq!(http.put("/v1/tenants/nobody/quota", "{}").await.refusal().1, "missing.tenant");
    assert_eq!(http.get("/v1/tenants/lab/quota").await.json()["quota"], json!({}));
    server.stop().await;
}

#[tokio::test]
async fn inputs_are_uploaded_where_the_answer_says() {
    let (_dir, server, http) = start().await;
    // SHA-256 of "abc" (FIPS 180-4).
    let digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let body = format!(r#"{{"digest": "{digest}", "size_bytes": 3}}"#);
    let answer = http.post("/v1/uploads", &body).await;
    assert_eq!(answer.status, 201);
    let url = answer.json()["url"].as_str().unwrap().to_owned();
    let put = Request::builder().method("PUT").uri(&url);
    let put = http.put_bytes(put, "abc").await;
    assert_eq!(put, 201);
    let again = http.post("/v1/uploads", &body).await;
    assert_eq!((again.status, again.json()), (200, json!({ "url": null })));
    let job = format!(
        r#"{{"input": [{{"name": "abc", "digest": "{digest}", "size": 3}}], "step": [{{"run": "x"}}]}}"#
    );
    id(&http.post("/v1/jobs", &job).await);
    for (body, status, field) in [
        (r#"{"digest": "abc", "size_bytes": 3}"#.to_owned(), 422, "digest"),
        (format!(r#"{{"digest": "{digest}", "size_bytes": -3}}"#), 400, "size_bytes"),
        (format!(r#"{{"digest": "{digest}", "size_bytes": 99999999999999}}"#), 422, "size_bytes"),
        (format!(r#"{{"digest": "{digest}"}}"#), 400, "size_bytes"),
    ] {
        let refusal = http.post("/v1/uploads", &body).await.refusal();
        assert_eq!((refusal.0, refusal.2.as_str()), (status, field), "{body}");
    }
    is_ok(&again);
    server.stop().await;
}

#[tokio::test]
async fn metrics_count_what_there_is_without_a_token() {
    let (_dir, server, http) = start().await;
    http.post("/v1/jobs", JOB).await;
    http.post("/v1/jobs", JOB).await;
    http.delete("/v1/jobs/1").await;
    http.get("/v1/jobs/7").await;
    http.raw(http.request("PATCH", "/v1/jobs")).await;
    let text = http.with("").get("/metrics").await.text;
    for line in [
        "drumline_http_requests_total{route=\"/v1/jobs\",method=\"POST\",status=\"201\"} 2",
        "drumline_http_requests_total{route=\"/v1/jobs\",method=\"other\",status=\"405\"} 1",
        "drumline_http_requests_total{route=\"/v1/jobs/{id}\",method=\"DELETE\",status=\"200\"} 1",
        "drumline_http_requests_total{route=\"/v1/jobs/{id}\",method=\"GET\",status=\"404\"} 1",
        "# TYPE drumline_jobs gauge",
        "drumline_jobs{state=\"PENDING\"} 1",
        "drumline_jobs{state=\"CANCELLED\"} 1",
        "drumline_jobs_live 1",
        "drumline_tasks_queued 1",
        "drumline_tenants 1",
        "drumline_nodes{state=\"READY\"} 0",
        "drumline_streams_open 0",
    ] {
        assert!(text.lines().any(|told| told == line), "{line}\n{text}");
    }
    assert!(text.contains("\ndrumline_store_commits_total "), "{text}");
    // A further job is followed, once the answer is not good any more.
    http.post("/v1/jobs", JOB).await;
    let followed = async {
        while !http.get("/metrics").await.text.contains("drumline_jobs{state=\"PENDING\"} 2") {
            world::time::sleep(world::time::ms(50)).await;
        }
    };
    world::time::timeout(world::time::ms(20_000), followed).await.expect("it is counted");
    server.stop().await;
}
