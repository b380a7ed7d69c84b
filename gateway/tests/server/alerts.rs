//! Alerts at every door, and at a webhook.

use crate::agents::Agent;
use crate::http::Http;
use crate::support::{Client, TestDir, job, serve, serve_with};
use gateway::{AlertsConfig, ServerConfig};
use proto::v1::{
    AlertView, AlertsRequest, Budget, DrainNodeRequest, JobSpec, PutTenantRequest, Role, SubmitRequest,
    TenantRow,
};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use world::real::HttpWebhook;
use world::time;

fn quick() -> ServerConfig {
    let mut config = ServerConfig {
        alerts: AlertsConfig { look_ms: 20, quiet_ms: 0, ..AlertsConfig::default() },
        ..ServerConfig::default()
    };
    (config.controller.suspect_after_ms, config.controller.lost_after_ms) = (200, 400);
    config
}

async fn alerts(client: &Client, cleared: bool) -> Vec<AlertView> {
    let request = client.request(AlertsRequest { cleared });
    client.grpc.clone().alerts(request).await.unwrap().into_inner().alerts
}

/// Waits until a caller is told of it.
async fn told(client: &Client, code: &str, cleared: bool) -> AlertView {
    let asked = async {
        loop {
            let alerts = alerts(client, cleared).await;
            let found = alerts.into_iter().find(|one| one.code == code && (one.cleared_ms > 0) == cleared);
            match found {
                Some(alert) => return alert,
                None => time::sleep(time::ms(10)).await,
            }
        }
    };
    time::timeout(time::ms(20_000), asked).await.unwrap_or_else(|_| panic!("{code} is not told"))
}

/// Answers each POST with the next of these statuses, the last for ever; hands on the bodies.
async fn webhook(statuses: &'static [u16]) -> (String, mpsc::Receiver<(u16, Value)>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let (tell, told) = mpsc::channel(16);
    tokio::spawn(async move {
        let mut statuses = statuses.iter().copied();
        let mut status = 200;
        while let Ok((stream, _)) = listener.accept().await {
            status = statuses.next().unwrap_or(status);
            let mut stream = BufReader::new(stream);
            let (mut line, mut length, mut head) = (String::new(), 0, String::new());
            while stream.read_line(&mut line).await.unwrap() > 2 {
                if let Some(told) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = told.trim().parse().unwrap();
                }
                head.push_str(&line);
                line.clear();
            }
            assert!(head.starts_with("POST /hook HTTP/1.1\r\n"), "{head}");
            assert!(head.to_ascii_lowercase().contains("content-type: application/json"), "{head}");
            let mut body = vec![0; length];
            stream.read_exact(&mut body).await.unwrap();
            let answer = format!("HTTP/1.1 {status} x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            stream.write_all(answer.as_bytes()).await.unwrap();
            if tell.send((status, serde_json::from_slice(&body).unwrap())).await.is_err() {
                return;
            }
        }
    });
    (url, told)
}

#[tokio::test]
async fn a_lost_node_is_told_at_every_door_and_to_a_webhook_that_refuses_twice() {
    let (url, mut posted) = webhook(&[503, 500, 204]).await;
    let dir = TestDir::new();
    let config = ServerConfig { webhook: Some(HttpWebhook::new(&url).unwrap()), ..quick() };
    let server = serve_with(&dir, "127.0.0.1:0", config).await.unwrap();
    let admin = Client::new(&server, &server.token).await;
    assert_eq!(alerts(&admin, true).await, []);
    let agent = Agent::join(&admin).await;
    // It says nothing any more.
    let lost = told(&admin, "node.lost", false).await;
    assert_eq!((lost.tenant.as_str(), lost.cleared_ms), ("", 0));
    let node = lost.subject.clone();

    let http = Http::new(&server, &server.token).await;
    let shown: Value = serde_json::from_str(&http.get("/v1/alerts").await.text).unwrap();
    assert_eq!(
        shown["alerts"][0],
        json!({
            "code": "node.lost", "severity": "warning", "subject": node, "tenant": null,
            "since_ms": lost.since_ms, "cleared_ms": null, "text": lost.text,
        })
    );
    let metrics = http.get("/metrics").await.text;
    for line in [
        "drumline_alerts{code=\"node.lost\",severity=\"warning\"} 1",
        "drumline_alerts{code=\"budget.100\",severity=\"critical\"} 0",
        "drumline_alerts_raised_total{code=\"node.lost\",severity=\"warning\"} 1",
    ] {
        assert!(metrics.lines().any(|told| told == line), "{line}\n{metrics}");
    }
    // Nodes are none of a tenant's business.
    let lab = admin.with(&admin.token(Role::Tenant, "default").await);
    assert_eq!(alerts(&lab, true).await, []);

    // To drain it says that it may stay away.
    let drain = DrainNodeRequest { node: node.clone(), drained: true, reason: "sold".into() };
    admin.grpc.clone().drain_node(admin.request(drain)).await.unwrap();
    let cleared = told(&admin, "node.lost", true).await;
    assert_eq!((cleared.subject.as_str(), cleared.since_ms), (node.as_str(), lost.since_ms));
    assert_eq!(alerts(&admin, false).await, []);

    let notice = |state| {
        json!({
            "code": "node.lost", "severity": "warning", "subject": node, "since_ms": lost.since_ms,
            "state": state, "text": lost.text,
        })
    };
    let due = [(503, "raised"), (500, "raised"), (204, "raised"), (204, "cleared")];
    for (status, state) in due {
        let next = time::timeout(time::ms(20_000), posted.recv()).await.expect("it is posted").unwrap();
        assert_eq!(next, (status, notice(state)));
    }
    drop(agent);
    server.stop().await;
}

#[tokio::test]
async fn a_tenant_sees_the_alerts_of_its_own_budget_and_of_no_other() {
    let dir = TestDir::new();
    let server = serve_with(&dir, "127.0.0.1:0", quick()).await.unwrap();
    let admin = Client::new(&server, &server.token).await;
    let budget = Budget { month_micros: Some(1_200_000), core_hour_micros: 1_000_000, ..Budget::default() };
    let tenant = Some(TenantRow { name: "lab".into(), budget: Some(budget), ..TenantRow::default() });
    admin.grpc.clone().put_tenant(admin.request(PutTenantRequest { tenant, was: None })).await.unwrap();
    admin.tenant("other").await;
    let lab = admin.with(&admin.token(Role::Tenant, "lab").await);
    let other = admin.with(&admin.token(Role::Tenant, "other").await);
    assert_eq!(alerts(&lab, false).await, []);
    // An hour of one core: 1.00 of 1.20.
    let spec = JobSpec { expected_runtime_ms: 3_600_000, ..job("long") };
    let submission = SubmitRequest { spec: Some(spec), ..SubmitRequest::default() };
    lab.grpc.clone().submit(lab.request(submission)).await.unwrap();
    let alert = told(&lab, "budget.80", false).await;
    assert_eq!((alert.subject.as_str(), alert.tenant.as_str()), ("lab", "lab"));
    assert_eq!(alert.text, "tenant lab has 0.00 of its month's 1.20 spent and 1.00 reserved");
    assert_eq!((alerts(&lab, true).await.len(), alerts(&other, true).await), (1, vec![]));
    assert_eq!(alerts(&admin, false).await, [alert]);
    // An agent's token is for no such thing.
    let agent = admin.with(&admin.token(Role::Agent, "").await);
    let refused = agent.grpc.clone().alerts(agent.request(AlertsRequest::default())).await;
    assert_eq!(crate::support::code(refused), "denied.role");
    server.stop().await;
}

/// The metrics that a text names.
fn metrics_of(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("drumline_")).collect()
}

#[tokio::test]
async fn rules_and_dashboard_name_only_what_is_exported_and_codes_that_exist() {
    let (rules, dashboard, page) = (
        include_str!("../../../docs/alerts/prometheus-rules.yml"),
        include_str!("../../../docs/alerts/grafana.json"),
        include_str!("../../../docs/alerts.md"),
    );
    let dir = TestDir::new();
    let server = serve(&dir).await.unwrap();
    let http = Http::new(&server, "").await;
    let text = http.get("/metrics").await.text;
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    let exported: BTreeSet<&str> = types.collect();
    for (file, least) in [(rules, 5), (dashboard, 8)] {
        let named = metrics_of(file);
        assert!(named.len() >= least, "{named:?}");
        assert!(named.is_subset(&exported), "{:?}", named.difference(&exported).collect::<Vec<_>>());
    }
    for code in controller::alerts::Code::ALL {
        assert!(page.contains(&format!("| `{}` |", code.name())), "{} is not documented", code.name());
    }
    let quoted = rules.split("code=\"").skip(1).filter_map(|rest| rest.split('"').next());
    for code in quoted.collect::<BTreeSet<_>>() {
        assert!(controller::alerts::Code::ALL.iter().any(|known| known.name() == code), "{code}");
    }
    let read: Value = serde_json::from_str(dashboard).unwrap();
    let ids: BTreeSet<u64> =
        read["panels"].as_array().unwrap().iter().filter_map(|panel| panel["id"].as_u64()).collect();
    assert_eq!(ids.len(), read["panels"].as_array().unwrap().len(), "panels have ids of their own");
    server.stop().await;
}
