//! Inputs by URL: fetched by a node from an HTTP server that is no part of
//! Drumline, verified, shared, and refused at the door where no node could have
//! them.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests stand outside the world they drive"
)]

mod support;

use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use support::{Cluster, Done, digest, until_true};

/// What the other server has, and its digest as URLs carry it.
const BOOK: &[u8] = b"It was a bright cold day in April\n";

/// Somebody's HTTP server on loopback: `/book`, and nothing else.
struct Elsewhere {
    scheme: &'static str,
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    over: Arc<AtomicBool>,
    serving: Option<JoinHandle<()>>,
}

impl Elsewhere {
    fn start() -> Self {
        Self::serving("http", answer)
    }

    /// One that speaks TLS, and the certificate that it shows in PEM.
    fn secure() -> (Self, String) {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let key = made.signing_key.serialize_der().try_into().unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let config = Arc::new(config);
        let answer_secure = move |stream: TcpStream| {
            let connection = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
            answer(rustls::StreamOwned::new(connection, stream))
        };
        (Self::serving("https", answer_secure), made.cert.pem())
    }

    fn serving(scheme: &'static str, answer: impl Fn(TcpStream) -> Option<String> + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let over: Arc<AtomicBool> = Arc::default();
        let (seen, ended) = (Arc::clone(&asked), Arc::clone(&over));
        let serving = std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                stream.set_read_timeout(Some(support::DEADLINE)).unwrap();
                if let Some(line) = answer(stream) {
                    seen.lock().unwrap().push(line);
                } else if ended.load(Ordering::SeqCst) {
                    return;
                }
            }
        });
        Self { scheme, address, asked, over, serving: Some(serving) }
    }

    fn url(&self, path: &str) -> String {
        format!("{}://{}{path}", self.scheme, self.address)
    }

    /// The requests since the last look.
    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.address));
        let served = self.serving.take().unwrap().join();
        assert!(served.is_ok() || std::thread::panicking(), "the server broke");
    }
}

/// Answers one request; what it was. Who does not like what it was shown asks nothing.
fn answer(mut stream: impl Read + Write) -> Option<String> {
    let mut lines = BufReader::new(&mut stream).lines();
    let first = lines.next()?.ok()?;
    lines.find(|line| line.as_ref().is_ok_and(String::is_empty))?.ok()?;
    let (status, body) = match first.as_str() {
        "GET /book HTTP/1.1" => ("200 OK", BOOK),
        _ => ("404 Not Found", &b"no such page\n"[..]),
    };
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
    // Whoever asked may be gone.
    let _gone = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
    let _gone = stream.flush();
    Some(first)
}

/// A cluster where what fails by the platform's account is not tried again.
fn cluster(name: &str) -> Cluster {
    let mut cluster = Cluster::with_config(name, "[controller]\nplatform_retries = 0\n");
    cluster.add_node("n1", &["--cores", "2", "--memory", "1GiB"]);
    cluster.until_ready(1);
    cluster
}

fn copying(cluster: &Cluster, source: &str) -> Done {
    let input = format!("book={source}");
    let copy = ["--output", "copy", "--wait", "-o", "json", "--", "cp", "inputs/book", "copy"];
    cluster.call(&[&["submit", "--input", &input], &copy[..]].concat())
}

#[test]
fn a_node_fetches_what_a_url_holds_and_keeps_it() {
    let (cluster, elsewhere) = (cluster("by-url"), Elsewhere::start());
    let source = format!("{}#sha256={}", elsewhere.url("/book"), digest(BOOK));
    copying(&cluster, &source).ok();
    let got = cluster.dir.join("got");
    cluster.call(&["outputs", "1", "get", &got.display().to_string()]).ok();
    assert_eq!(fs::read(got.join("main/copy")).unwrap(), BOOK);
    assert_eq!(elsewhere.asked(), ["GET /book HTTP/1.1"]);
    // All tasks share it, and later jobs; its owner is not asked again.
    let input = format!("book={source}");
    let array = ["--array", "0-3", "--wait", "--", "grep", "-q", "April", "inputs/book"];
    cluster.call(&[&["submit", "--input", &input], &array[..]].concat()).ok();
    assert_eq!(elsewhere.asked(), [""; 0]);
    // What a node fetched counts as its tenant's ingress by the size that was told,
    // and is not kept by the server.
    let toml = format!(
        "[[input]]\nname = 'book'\nurl = '{}'\ndigest = '{}'\nsize = {}\n[[step]]\nrun = 'test -s inputs/book'\n",
        elsewhere.url("/book"),
        digest(BOOK),
        BOOK.len()
    );
    cluster.call(&["submit", "--wait", &cluster.dir.file("sized.toml", &toml)]).ok();
    let counted = || {
        let tenants = cluster.call(&["tenants", "-o", "json"]).ok().json();
        (tenants[0]["ingress_bytes"].clone(), tenants[0]["storage_bytes"].clone())
    };
    until_true("it is counted", || counted() == (json!(BOOK.len()), json!(BOOK.len())));
    assert_eq!(elsewhere.asked(), [""; 0]);
}

#[test]
fn over_tls_a_node_trusts_whom_its_system_trusts() {
    let mut cluster = cluster("by-url-secure");
    let (elsewhere, certificate) = Elsewhere::secure();
    let source = format!("{}#sha256={}", elsewhere.url("/book"), digest(BOOK));
    let done = copying(&cluster, &source).exit(1);
    let id = done.json()["id"].as_str().unwrap().to_owned();
    let cause = cluster.show(&id)["steps"][0]["cause"].clone();
    assert_eq!(cause["kind"], "STAGING_FAILED", "{cause}");
    assert!(cause["text"].as_str().unwrap().contains("invalid peer certificate"), "{cause}");
    assert_eq!(elsewhere.asked(), [""; 0]);
    // Told to trust it, the same node fetches the same book.
    let trusted = cluster.dir.file("trusted.pem", &certificate);
    let node = &mut cluster.nodes[0];
    node.stop();
    node.env.push(("SSL_CERT_FILE".to_owned(), trusted));
    node.restart();
    copying(&cluster, &source).ok();
    assert_eq!(elsewhere.asked(), ["GET /book HTTP/1.1"]);
}

#[test]
fn what_a_url_does_not_hold_fails_the_job_and_says_why() {
    let (cluster, elsewhere) = (cluster("by-url-wrong"), Elsewhere::start());
    let other = digest(b"another book");
    // The bytes are others, or there are none, or nobody is there.
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (book, none) = (elsewhere.url("/book"), elsewhere.url("/none"));
    for (url, asked, told) in [
        (book.clone(), "GET /book HTTP/1.1", vec![digest(BOOK), other.clone()]),
        (none, "GET /none HTTP/1.1", vec!["(404)".to_owned()]),
        (format!("http://{nobody}/book"), "", vec!["refused".to_owned()]),
    ] {
        let done = copying(&cluster, &format!("{url}#sha256={other}")).exit(1);
        let id = done.json()["id"].as_str().unwrap().to_owned();
        let cause = cluster.show(&id)["steps"][0]["cause"].clone();
        assert_eq!(cause["kind"], "STAGING_FAILED", "{cause}");
        let text = cause["text"].as_str().unwrap();
        assert!(told.iter().all(|word| text.contains(word.as_str())), "{text}");
        let why = cluster.call(&["why", &id]).ok().stdout;
        assert!(why.contains(told[0].as_str()), "{why}");
        // What will not change in a second is not asked for again.
        let requests = elsewhere.asked();
        assert_eq!(requests, if asked.is_empty() { vec![] } else { vec![asked] }, "{url}");
    }
    // The bytes are right, and more of them than was told.
    let toml = format!(
        "[[input]]\nname = 'book'\nurl = '{book}'\ndigest = '{}'\nsize = 5\n[[step]]\nrun = 'true'\nretries = 0\n",
        digest(BOOK)
    );
    let done = cluster.call(&["submit", "--wait", &cluster.dir.file("short.toml", &toml)]).exit(1);
    let told = format!("holds {} bytes where the job says 5", BOOK.len());
    assert!(done.stderr.contains(&told), "{done:#?}");
}

#[test]
fn what_no_node_could_fetch_is_refused_at_the_door() {
    let (cluster, elsewhere) = (cluster("by-url-door"), Elsewhere::start());
    let (book, sum) = (elsewhere.url("/book"), digest(BOOK));
    for (source, field, words) in [
        (book.clone(), "input[0].digest", ["is not told", "sha256sum"]),
        (format!("{book}#sha256=beef"), "input[0].digest", ["is not a SHA-256", "64 lower-case"]),
        (format!("ftp://h/book#sha256={sum}"), "input[0].url", ["a scheme that is not known", "http://"]),
        (format!("http://me:pw@h/book#sha256={sum}"), "input[0].url", ["holds a password", "by path"]),
    ] {
        copying(&cluster, &source).says(3, &[&[field], &words[..]].concat());
        // The other doors say the same.
        let (url, digest) = source.split_once("#sha256=").unwrap_or((&source, ""));
        let body = json!({
            "input": [{ "name": "book", "url": url, "digest": digest }], "step": [{ "run": "true" }]
        });
        let bearer = format!("Bearer {}", cluster.server.token);
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        let (status, answer) = cluster.server.http("POST", "/v1/jobs", &headers, &body.to_string());
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!((status, answer["field"].as_str()), (422, Some(field)), "{answer}");
        let detail = answer["detail"].as_str().unwrap();
        assert!(words.iter().all(|word| detail.contains(word)), "{detail}");
    }
    assert_eq!(cluster.job_ids(), [""; 0]);
    assert_eq!(elsewhere.asked(), [""; 0]);
}

/// The file of `n1` that keeps the book.
fn cached(cluster: &Cluster) -> PathBuf {
    cluster.nodes[0].data.join("cache/default").join(digest(BOOK))
}

#[test]
fn many_tasks_read_one_file_that_was_fetched_once() {
    let (cluster, elsewhere) = (cluster("by-url-shared"), Elsewhere::start());
    let input = format!("book={}#sha256={}", elsewhere.url("/book"), digest(BOOK));
    let look = "stat -c '%i %a' inputs/book > found";
    let array = ["--array", "0-63", "--output", "found", "--wait", "--", "sh", "-c", look];
    cluster.call(&[&["submit", "--input", &input], &array[..]].concat()).ok();
    assert_eq!(elsewhere.asked(), ["GET /book HTTP/1.1"]);
    let got = cluster.dir.join("got");
    cluster.call(&["outputs", "1", "get", &got.display().to_string()]).ok();
    let found = |task: u32| fs::read_to_string(got.join(format!("main/{task}/found"))).unwrap();
    let inode = fs::metadata(cached(&cluster)).unwrap().ino();
    let (one, other) = (cluster.dir.file("one", "bytes"), cluster.dir.join("other").display().to_string());
    let clones = Command::new("cp").args(["--reflink=always", &one, &other]).output().unwrap();
    for task in 0..64 {
        let found = found(task);
        let (of, mode) = found.trim().split_once(' ').unwrap();
        assert_eq!(mode, "444");
        // A clone is a file of its own, whose bytes lie in the same place.
        assert_eq!(of != inode.to_string(), clones.status.success(), "{found} of {inode}");
    }
}

#[test]
fn what_a_task_does_to_its_input_no_other_reads() {
    let (cluster, elsewhere) = (cluster("by-url-changed"), Elsewhere::start());
    let source = format!("{}#sha256={}", elsewhere.url("/book"), digest(BOOK));
    let input = format!("book={source}");
    for spoil in [
        "chmod u+w inputs/book && printf X | dd of=inputs/book conv=notrunc",
        "chmod u+w inputs/book && : > inputs/book",
        "chmod u+w inputs/book && rm inputs/book && echo another > inputs/book",
        "mv inputs/book away && chmod u+w away && echo more >> away",
    ] {
        cluster.call(&["submit", "--input", &input, "--wait", "--", "sh", "-c", spoil]).ok();
        let got = cluster.dir.join("got");
        let id = copying(&cluster, &source).ok().json()["id"].as_str().unwrap().to_owned();
        cluster.call(&["outputs", &id, "get", &got.display().to_string()]).ok();
        assert_eq!(fs::read(got.join("main/copy")).unwrap(), BOOK, "after {spoil}");
        assert_eq!(fs::read(cached(&cluster)).unwrap(), BOOK);
        fs::remove_dir_all(&got).unwrap();
    }
}
