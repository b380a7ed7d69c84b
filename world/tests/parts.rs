//! Downloads in parts, against a server that gives, breaks and refuses them as told.
#![cfg(not(madsim))]
#![allow(clippy::disallowed_methods, reason = "raw sockets play the servers that misbehave")]

mod common;

use common::{bytes, digest};
use std::{
    collections::BTreeMap,
    io::ErrorKind,
    net::SocketAddr,
    ops::Range,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    sync::watch,
};
use world::{
    Disk, Transfer,
    disk::read_all,
    real::{FsDisk, HttpTransfer, TransferLimits},
    time::{Duration, timeout},
    transfer::{Fetching, TransferError},
};

const PATIENCE: Duration = Duration::from_secs(20);
const PART: u64 = 100_000;

/// What the server has, and how it answers.
#[derive(Debug, Default)]
struct Manner {
    data: Vec<u8>,
    knows_parts: bool,
    /// By where a part begins: how much of it is sent, once, before the connection ends.
    breaks: BTreeMap<u64, usize>,
    /// By where a part begins: it is answered as another, once.
    misses: BTreeMap<u64, Range<u64>>,
    /// Statuses of refusals, each answered once to whoever does not ask for the first part.
    refuses: Vec<u16>,
    asked: Vec<Option<Range<u64>>>,
}

struct Elsewhere {
    address: SocketAddr,
    manner: Arc<Mutex<Manner>>,
    /// How many requests there were; no body is sent before there were so many.
    requests: watch::Sender<usize>,
    held_until: Arc<AtomicUsize>,
}

impl Elsewhere {
    async fn start(len: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let manner = Manner { data: bytes(len), knows_parts: true, ..Manner::default() };
        let (manner, requests) = (Arc::new(Mutex::new(manner)), watch::channel(0).0);
        let held_until = Arc::new(AtomicUsize::new(0));
        let (served, seen, held) = (manner.clone(), requests.clone(), held_until.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, served.clone(), seen.clone(), held.clone()));
            }
        });
        Self { address, manner, requests, held_until }
    }

    fn url(&self) -> String {
        format!("http://{}/file", self.address)
    }

    fn digest(&self) -> String {
        digest(&self.manner.lock().unwrap().data)
    }

    fn asked(&self) -> Vec<Option<Range<u64>>> {
        std::mem::take(&mut self.manner.lock().unwrap().asked)
    }

    fn change(&self, change: impl FnOnce(&mut Manner)) {
        change(&mut self.manner.lock().unwrap());
    }
}

/// The range of a request's head.
async fn asked(stream: &mut BufReader<TcpStream>) -> Option<Range<u64>> {
    let (mut line, mut range) = (String::new(), None);
    while stream.read_line(&mut line).await.unwrap_or(0) > 2 {
        if let Some(span) = line.trim().to_lowercase().strip_prefix("range: bytes=") {
            let (first, last) = span.split_once('-').unwrap();
            range = Some(first.parse().unwrap()..last.parse::<u64>().unwrap() + 1);
        }
        line.clear();
    }
    range
}

async fn answer(
    stream: TcpStream,
    manner: Arc<Mutex<Manner>>,
    requests: watch::Sender<usize>,
    held_until: Arc<AtomicUsize>,
) {
    let mut stream = BufReader::new(stream);
    let range = asked(&mut stream).await;
    requests.send_modify(|count| *count += 1);
    let (head, body) = {
        let mut manner = manner.lock().unwrap();
        manner.asked.push(range.clone());
        let total = manner.data.len() as u64;
        match range.filter(|_| manner.knows_parts) {
            None => {
                let sent = manner.breaks.remove(&0).unwrap_or(manner.data.len());
                (format!("200 OK\r\ncontent-length: {total}"), manner.data[..sent].to_vec())
            }
            Some(range) if range.start > 0 && !manner.refuses.is_empty() => {
                let status = manner.refuses.remove(0);
                (format!("{status} No\r\ncontent-length: 0"), Vec::new())
            }
            Some(range) if range.start >= total => {
                (format!("416 No\r\ncontent-length: 0\r\ncontent-range: bytes */{total}"), Vec::new())
            }
            Some(range) => {
                let given = manner.misses.remove(&range.start).unwrap_or(range.clone());
                let end = given.end.min(total);
                let (len, last) = (end - given.start, end - 1);
                let mut body = manner.data[given.start as usize..end as usize].to_vec();
                if let Some(sent) = manner.breaks.remove(&range.start) {
                    body.truncate(sent);
                }
                let told =
                    format!("content-length: {len}\r\ncontent-range: bytes {}-{last}/{total}", given.start);
                (format!("206 Partial Content\r\n{told}"), body)
            }
        }
    };
    let head = format!("HTTP/1.1 {head}\r\nconnection: close\r\n\r\n");
    let _gone = stream.write_all(head.as_bytes()).await;
    let mut requests = requests.subscribe();
    let enough = requests.wait_for(|count| *count >= held_until.load(Ordering::Relaxed));
    timeout(PATIENCE, enough).await.expect("others ask meanwhile").unwrap();
    let _gone = stream.write_all(&body).await;
    let _gone = stream.shutdown().await;
}

fn disk(name: &str) -> Arc<FsDisk> {
    let root = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("world-parts").join(name);
    let _absent = std::fs::remove_dir_all(&root);
    FsDisk::open(root).unwrap()
}

fn transfer(parts_at_once: usize) -> Arc<HttpTransfer> {
    HttpTransfer::new(TransferLimits { part_bytes: PART, parts_at_once, ..TransferLimits::default() })
}

fn names(disk: &FsDisk) -> Vec<String> {
    disk.list("").unwrap().into_iter().map(|entry| entry.name).collect()
}

async fn bring(
    transfer: &HttpTransfer,
    server: &Elsewhere,
    fetching: &Fetching,
) -> Result<u64, TransferError> {
    timeout(PATIENCE, transfer.bring(&server.url(), fetching)).await.unwrap()
}

fn is_network(result: Result<u64, TransferError>) {
    assert!(matches!(result, Err(TransferError::Network(_))), "{result:?}");
}

#[tokio::test]
async fn parts_come_side_by_side_and_each_once() {
    let (server, disk) = (Elsewhere::start(1_050_000).await, disk("side-by-side"));
    // No body is sent before all four connections have asked.
    server.held_until.store(4, Ordering::Relaxed);
    let fetching = Fetching::new(disk.clone(), "file", &server.digest());
    assert_eq!(bring(&transfer(4), &server, &fetching).await.unwrap(), 1_050_000);
    assert_eq!(read_all(&*disk, "file", 1 << 30).unwrap(), server.manner.lock().unwrap().data);
    assert_eq!(names(&disk), ["file"]);
    let mut asked: Vec<_> = server.asked().into_iter().map(|range| range.unwrap().start).collect();
    asked.sort_unstable();
    assert_eq!(asked, (0..11).map(|part| part * PART).collect::<Vec<_>>());
    assert_eq!(*server.requests.borrow(), 11);
    assert!(!fetching.is_kept());
}

#[tokio::test]
async fn a_file_of_any_length_arrives() {
    let disk = disk("lengths");
    for (len, requests) in [(0, 2), (1, 1), (99_999, 1), (100_000, 1), (100_001, 2), (400_000, 4)] {
        let server = Elsewhere::start(len).await;
        let name = format!("file-{len}");
        let fetching = Fetching::new(disk.clone(), &name, &server.digest());
        assert_eq!(bring(&transfer(3), &server, &fetching).await.unwrap(), len as u64);
        assert_eq!(read_all(&*disk, &name, 1 << 30).unwrap(), bytes(len));
        assert_eq!(server.asked().len(), requests, "{len}");
    }
}

#[tokio::test]
async fn a_broken_part_goes_on_where_it_broke() {
    let (server, disk) = (Elsewhere::start(550_000).await, disk("resume"));
    let fetching = Fetching::new(disk.clone(), "file", &server.digest());
    server.change(|manner| manner.breaks = BTreeMap::from([(200_000, 40_000), (240_000, 0), (0, 99_999)]));
    let transfer = transfer(1);
    let due = [0..100_000, 99_999..100_000, 100_000..200_000, 200_000..300_000, 240_000..300_000];
    for due in [&due[..1], &due[1..4], &due[4..]] {
        is_network(bring(&transfer, &server, &fetching).await);
        assert_eq!(names(&disk), ["file.part"], "nothing half under the name");
        assert!(fetching.is_kept());
        let asked: Vec<_> = server.asked().into_iter().flatten().collect();
        assert_eq!(asked, due);
    }
    bring(&transfer, &server, &fetching).await.unwrap();
    let asked: Vec<_> = server.asked().into_iter().flatten().collect();
    assert_eq!(asked, [240_000..300_000, 300_000..400_000, 400_000..500_000, 500_000..550_000]);
    assert_eq!(read_all(&*disk, "file", 1 << 30).unwrap(), bytes(550_000));
    assert_eq!(names(&disk), ["file"]);
}

#[tokio::test]
async fn several_connections_that_break_lose_only_what_did_not_come() {
    let (server, disk) = (Elsewhere::start(2_000_000).await, disk("storm"));
    let fetching = Fetching::new(disk.clone(), "file", &server.digest());
    server.change(|manner| manner.breaks = (0..20).map(|part| (part * PART, 30_000)).collect());
    let (transfer, mut tries) = (transfer(4), 1);
    while let Err(error) = bring(&transfer, &server, &fetching).await {
        assert!(matches!(error, TransferError::Network(_)), "{error}");
        tries += 1;
        assert!(tries <= 21, "each try must bring something");
    }
    assert!(tries > 2);
    assert_eq!(read_all(&*disk, "file", 1 << 30).unwrap(), bytes(2_000_000));
}

#[tokio::test]
async fn a_connection_that_is_refused_leaves_its_part_to_the_others() {
    let (server, disk) = (Elsewhere::start(1_050_000).await, disk("refused"));
    // Three of four are refused before the first has brought anything.
    server.held_until.store(4, Ordering::Relaxed);
    server.change(|manner| manner.refuses = vec![429, 503, 429]);
    let fetching = Fetching::new(disk.clone(), "file", &server.digest());
    assert_eq!(bring(&transfer(4), &server, &fetching).await.unwrap(), 1_050_000);
    assert_eq!(read_all(&*disk, "file", 1 << 30).unwrap(), bytes(1_050_000));
    assert_eq!(server.asked().len(), 11 + 3);
}

#[tokio::test]
async fn only_the_refusal_of_the_last_connection_ends_a_try() {
    let (server, disk) = (Elsewhere::start(1_050_000).await, disk("all-refused"));
    server.held_until.store(4, Ordering::Relaxed);
    server.change(|manner| manner.refuses = vec![429, 429, 429, 503]);
    let fetching = Fetching::new(disk.clone(), "file", &server.digest());
    let ended = bring(&transfer(4), &server, &fetching).await;
    assert!(matches!(ended, Err(TransferError::Server { status: 503, .. })), "{ended:?}");
    assert!(fetching.is_kept());
    assert_eq!(fetching.brought_bytes(), PART, "the first part came");
    bring(&transfer(4), &server, &fetching).await.unwrap();
    assert_eq!(read_all(&*disk, "file", 1 << 30).unwrap(), bytes(1_050_000));
}

#[tokio::test]
async fn who_gives_up_leaves_nothing() {
    let (server, disk) = (Elsewhere::start(300_000).await, disk("given-up"));
    let fetching = Fetching::new(disk.clone(), "file", &server.digest());
    server.change(|manner| manner.breaks = BTreeMap::from([(100_000, 5)]));
    is_network(bring(&transfer(2), &server, &fetching).await);
    fetching.give_up().unwrap();
    assert_eq!(names(&disk), [""; 0]);
    fetching.give_up().unwrap();
}

#[tokio::test]
async fn a_server_without_parts_gives_all_at_once() {
    let (server, disk) = (Elsewhere::start(3_000_000).await, disk("whole"));
    server.change(|manner| (manner.knows_parts, manner.breaks) = (false, BTreeMap::from([(0, 1_500_000)])));
    let fetching = Fetching::new(disk.clone(), "file", &server.digest());
    let transfer = transfer(4);
    is_network(bring(&transfer, &server, &fetching).await);
    assert_eq!(names(&disk), [""; 0], "it cannot be gone on with");
    assert_eq!(bring(&transfer, &server, &fetching).await.unwrap(), 3_000_000);
    assert_eq!(server.asked(), [Some(0..PART), Some(0..PART)]);
    assert_eq!(read_all(&*disk, "file", 1 << 30).unwrap(), bytes(3_000_000));
}

#[tokio::test]
async fn a_file_that_changes_is_fetched_from_its_beginning() {
    let (server, disk) = (Elsewhere::start(300_000).await, disk("changes"));
    let transfer = transfer(1);
    let break_at = |at| server.change(|manner| manner.breaks = BTreeMap::from([(at, 10)]));
    // It is longer now.
    let fetching = Fetching::new(disk.clone(), "file", &digest(&bytes(310_000)));
    break_at(PART);
    is_network(bring(&transfer, &server, &fetching).await);
    server.change(|manner| manner.data = bytes(310_000));
    is_network(bring(&transfer, &server, &fetching).await);
    assert_eq!(names(&disk), [""; 0]);
    bring(&transfer, &server, &fetching).await.unwrap();
    // As long, with other bytes: half of each is neither.
    let mut other = bytes(310_000);
    other.reverse();
    let fetching = Fetching::new(disk.clone(), "other", &digest(&other));
    break_at(PART);
    is_network(bring(&transfer, &server, &fetching).await);
    server.change(|manner| manner.data = other.clone());
    is_network(bring(&transfer, &server, &fetching).await);
    bring(&transfer, &server, &fetching).await.unwrap();
    assert_eq!(read_all(&*disk, "other", 1 << 30).unwrap(), other);
    // It knows no parts any more.
    server.change(|manner| manner.breaks = BTreeMap::from([(PART, 10)]));
    let fetching = Fetching::new(disk.clone(), "third", &digest(&other));
    is_network(bring(&transfer, &server, &fetching).await);
    server.change(|manner| manner.knows_parts = false);
    bring(&transfer, &server, &fetching).await.unwrap();
    assert_eq!(names(&disk), ["file", "other", "third"]);
}

#[tokio::test]
async fn wrong_bytes_get_no_name() {
    let (server, disk) = (Elsewhere::start(300_000).await, disk("wrong"));
    let due = digest(b"something else");
    for knows_parts in [true, false] {
        server.change(|manner| manner.knows_parts = knows_parts);
        let fetching = Fetching::new(disk.clone(), "file", &due);
        let error = bring(&transfer(4), &server, &fetching).await.unwrap_err();
        assert_eq!(error, TransferError::Digest { expected: due.clone(), found: server.digest() });
        assert_eq!(names(&disk), [""; 0]);
        assert!(!fetching.is_kept());
    }
}

#[tokio::test]
async fn another_part_than_the_one_asked_for_is_not_taken() {
    let (server, disk) = (Elsewhere::start(300_000).await, disk("misses"));
    let fetching = Fetching::new(disk.clone(), "file", &server.digest());
    server.change(|manner| manner.misses = BTreeMap::from([(100_000, 0..100_000)]));
    is_network(bring(&transfer(1), &server, &fetching).await);
    // A shorter one is; the rest is asked for later.
    server.change(|manner| manner.misses = BTreeMap::from([(100_000, 100_000..150_000)]));
    bring(&transfer(1), &server, &fetching).await.unwrap();
    assert_eq!(read_all(&*disk, "file", 1 << 30).unwrap(), bytes(300_000));
    assert_eq!(disk.entry("file.part").unwrap_err().kind(), ErrorKind::NotFound);
}
