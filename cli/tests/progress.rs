//! A running task says how far it has come: `show --tasks` and REST tell it, also after
//! SIGKILL of the server, and of the agent, and no more once it has ended. One in STAGING
//! shows how its inputs come.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests stand outside the world they drive"
)]

mod support;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use support::{Cluster, until_true};

/// Task 0 says how far it has come, with a line that is none and half of one behind it,
/// and waits for the file that its first argument names; task 1 ends at once.
const JOB: &str = r#"
[[step]]
name = "main"
array = "0-1"
cores = 1
memory = "16MiB"
run = '''
[ "$DRUMLINE_TASK" = 0 ] || exit 0
printf '10 begins\n42.5 epoch 3 of 7\nnonsense\n43 epo' > "$DRUMLINE_PROGRESS"
until [ -e "RELEASE" ]; do sleep 0.1; done
'''
"#;

fn tasks(cluster: &Cluster, id: &str) -> Value {
    cluster.call(&["show", id, "--tasks", "main", "-o", "json"]).ok().json()
}

fn said(cluster: &Cluster, id: &str) -> Option<(f64, String, u64)> {
    let told = tasks(cluster, id)[0]["progress"].clone();
    Some((told["percent"].as_f64()?, told["text"].as_str()?.to_owned(), told["at_ms"].as_u64()?))
}

#[test]
fn what_a_running_task_says_of_itself_is_shown() {
    let mut cluster = Cluster::new("progress", 1, "2");
    let release = cluster.dir.join("release");
    let file = cluster.dir.file("job.toml", &JOB.replace("RELEASE", release.to_str().unwrap()));
    let id = cluster.submit(&[&file]);
    until_true("it is told", || said(&cluster, &id).is_some());
    let (percent, text, at_ms) = said(&cluster, &id).unwrap();
    assert_eq!((percent, text.as_str()), (42.5, "epoch 3 of 7"));
    until_true("the other ends", || tasks(&cluster, &id)[1]["state"] == "COMPLETED");
    assert_eq!(tasks(&cluster, &id)[1]["progress"], Value::Null);
    let table = cluster.call(&["show", &id, "--tasks", "main"]).ok().stdout;
    assert!(table.contains("PROGRESS") && table.contains("42.5% epoch 3 of 7"), "{table}");

    let bearer = format!("Bearer {}", cluster.server.token);
    let path = format!("/v1/jobs/{id}/tasks?step=main");
    let (status, body) = cluster.server.http("GET", &path, &[("authorization", &bearer)], "");
    let body: Value = serde_json::from_str(&body).unwrap();
    let told = json!({ "percent": 42.5, "text": "epoch 3 of 7", "at_ms": at_ms });
    assert_eq!((status, &body["tasks"][0]["progress"]), (200, &told));

    // It is in no row: the agent tells a new server, and a new agent finds it again.
    cluster.server.kill();
    cluster.server.restart();
    until_true("a new server is told", || said(&cluster, &id).is_some_and(|(.., at)| at > at_ms));
    let (.., at_ms) = said(&cluster, &id).unwrap();
    cluster.nodes[0].kill_agent();
    cluster.nodes[0].restart();
    until_true("a new agent tells", || said(&cluster, &id).is_some_and(|(.., at)| at > at_ms));

    std::fs::write(release, "").unwrap();
    cluster.until_state(&id, "COMPLETED");
    assert_eq!(said(&cluster, &id), None, "it has ended");
    let table = cluster.call(&["show", &id, "--tasks", "main"]).ok().stdout;
    assert!(!table.contains("PROGRESS"), "{table}");
}

#[test]
fn a_task_in_staging_shows_how_its_inputs_come() {
    let cluster = Cluster::new("staging-shown", 1, "2");
    let book = vec![7; 3 << 20];
    let digest: String = Sha256::digest(&book).iter().map(|byte| format!("{byte:02x}")).collect();
    let release = cluster.dir.join("release");
    let (listener, released) = (TcpListener::bind("127.0.0.1:0").unwrap(), release.clone());
    let address = listener.local_addr().unwrap();
    // Knows no parts, and gives the second half of the file once it is let.
    let serving = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(support::DEADLINE)).unwrap();
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
        lines.find(|line| line.as_ref().is_ok_and(String::is_empty)).unwrap().unwrap();
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", book.len());
        let (first, second) = book.split_at(book.len() / 2);
        stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(first)).unwrap();
        // A byte now and then, so that it does not fall silent.
        let mut dripped = 0;
        until_true("it is let", || {
            stream.write_all(&second[dripped..=dripped]).unwrap();
            dripped += 1;
            released.exists()
        });
        stream.write_all(&second[dripped..]).unwrap();
    });
    let input = format!("book=http://{address}/book#sha256={digest}");
    let id = cluster.submit(&["--input", &input, "--array", "0-1", "--", "test", "-s", "inputs/book"]);
    let staged = || tasks(&cluster, &id).as_array().unwrap().clone();
    let told = |task: &Value| task["staging"]["bytes"].as_u64().is_some_and(|bytes| bytes >= 1 << 20);
    until_true("it is told of both", || staged().iter().all(told));
    for task in staged() {
        assert_eq!((&task["state"], &task["staging"]["total_bytes"]), (&json!("STAGING"), &json!(3 << 20)));
    }
    let waits: Vec<String> =
        staged().iter().map(|task| task["staging"]["waits_for"].as_str().unwrap().to_owned()).collect();
    let another = "another task's fetch of the same input";
    assert!(waits.contains(&String::new()) && waits.contains(&another.to_owned()), "{waits:?}");
    let table = cluster.call(&["show", &id, "--tasks", "main"]).ok().stdout;
    assert!(table.contains("STAGING") && table.contains("MiB of 3MiB, "), "{table}");
    assert!(table.contains(&format!("; waits for {another}")), "{table}");

    std::fs::write(release, "").unwrap();
    cluster.until_state(&id, "COMPLETED");
    assert!(staged().iter().all(|task| task["staging"].is_null()), "{:?}", staged());
    serving.join().unwrap();
}

/// Eight tasks that end at once, and one that waits for the file that is named.
const SLOW: &str = r#"
[[step]]
name = "main"
array = "10-18"
cores = 1
memory = "16MiB"
run = '''
[ "$DRUMLINE_TASK" = 18 ] || exit 0
echo '42.5 half' > "$DRUMLINE_PROGRESS"
until [ -e "RELEASE" ]; do sleep 0.1; done
'''
"#;

#[test]
fn a_job_is_as_far_as_its_tasks_and_one_that_lags_behind_is_named() {
    let cluster = Cluster::new("stragglers", 1, "2");
    let release = cluster.dir.join("release");
    let file = cluster.dir.file("job.toml", &SLOW.replace("RELEASE", release.to_str().unwrap()));
    let id = cluster.submit(&[&file]);
    let listed = || cluster.call(&["ls", "-o", "json"]).ok().json();
    // Eight times 100 and 42.5, by nine.
    let told = json!({ "percent": 93.61, "told": 1 });
    until_true("the mean is told", || listed()[0]["progress"] == told);
    let shown = cluster.show(&id);
    assert_eq!((&shown["progress"], &shown["steps"][0]["percent"]), (&told, &json!(93.61)));
    for args in [vec!["ls"], vec!["show", &id]] {
        let table = cluster.call(&args).ok().stdout;
        assert!(table.contains("93.61%"), "{table}");
    }
    let bearer = format!("Bearer {}", cluster.server.token);
    let get = |path: &str| -> Value {
        let (status, body) = cluster.server.http("GET", path, &[("authorization", &bearer)], "");
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    };
    assert_eq!(get("/v1/jobs")["jobs"][0]["progress"], told);

    until_true("it lags behind", || tasks(&cluster, &id)[8]["straggler"] == true);
    let all = tasks(&cluster, &id);
    let text = all[8]["straggler_text"].as_str().unwrap();
    assert!(text.starts_with("runs ") && text.ends_with("the median of 8 that completed"), "{text}");
    assert_eq!((&all[7]["straggler"], &all[7]["straggler_text"]), (&json!(false), &Value::Null));
    let table = cluster.call(&["show", &id, "--tasks", "main"]).ok().stdout;
    assert!(table.contains("straggler: runs "), "{table}");
    let table = cluster.call(&["show", &id]).ok().stdout;
    assert!(table.contains("straggler  main[18] runs "), "{table}");
    let step = get(&format!("/v1/jobs/{id}"))["steps"][0].clone();
    assert_eq!((&step["stragglers"], &step["slowest"][0]["index"]), (&json!(1), &json!(18)));
    let why = cluster.call(&["why", &id]).ok().stdout;
    assert!(why.contains("straggler: step main task 18 runs "), "{why}");
    until_true("the server's log has it", || cluster.server.log().contains("step main task 18 runs "));

    std::fs::write(release, "").unwrap();
    cluster.until_state(&id, "COMPLETED");
    assert_eq!(tasks(&cluster, &id)[8]["straggler"], false, "it has ended");
    assert_eq!(listed()[0]["progress"], json!({ "percent": 100.0, "told": 0 }));

    // One task that says nothing is nowhere.
    let id = cluster.submit(&["--", "true"]);
    cluster.until_state(&id, "COMPLETED");
    assert_eq!((&listed()[0]["id"], &listed()[0]["progress"]), (&json!(id), &Value::Null));
}
