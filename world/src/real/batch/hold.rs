//! The nodes of a batch job on which its script does not run.
//!
//! The script runs on the first node; on each other one a process holds the
//! node until the script's end. It learns of that over a connection to the
//! first: a word says that the script has ended, whether well or not is the
//! first node's to report. A connection that breaks without the word means that
//! the first node's process is gone.
//!
//! Nothing is done on behalf of whoever connects: a stranger can at most hold
//! a connection open.

use crate::time::{Duration, Instant, sleep, timeout};
use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// For all processes of a job to find each other: nodes may stage and start at
/// different speeds.
const GATHER_DEADLINE: Duration = Duration::from_secs(600);
/// For a greeting on a connection that stands.
const GREETING_DEADLINE: Duration = Duration::from_secs(10);
/// Between two tries to connect.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// Connections at a time, strangers' included.
const CONNECTIONS_MAX: usize = 8192;
/// How long a lost first node may take to be reported by itself.
const ORPHAN_PAUSE: Duration = Duration::from_secs(30);
/// The script has ended.
const END: u8 = b'e';

/// Who holds, and for what.
#[derive(Clone, Debug)]
pub struct Hold {
    /// The first node.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// This attempt of this job: others do not belong.
    pub job: String,
    /// Which node of the job this is; the first is 0.
    pub rank: u32,
}

/// Why a node cannot be held.
#[derive(Debug)]
pub enum HoldError {
    /// The first node's port cannot be had, or its process not be reached.
    Unreachable(io::Error),
    /// The first node's process is gone without a word.
    Orphaned,
}

/// The first node's side: the others, as they come.
#[derive(Debug)]
pub struct Gathering {
    listener: TcpListener,
    job: String,
    expected: u32,
}

/// Opens the port, before the script begins.
pub async fn gather(port: u16, job: &str, expected: u32) -> io::Result<Gathering> {
    let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))).await?;
    Ok(Gathering { listener, job: job.to_owned(), expected })
}

impl Gathering {
    /// Lets the others come while `work` is done, and tells each its end. Once
    /// it is over, those still missing are waited for, so that none fails for
    /// having come late.
    pub async fn during<T>(self, work: impl Future<Output = T>) -> T {
        let mut held: Vec<TcpStream> = Vec::new();
        let mut seen = BTreeSet::new();
        let mut work = std::pin::pin!(work);
        let result = loop {
            tokio::select! {
                biased;
                result = &mut work => break result,
                stream = self.next() => self.keep(stream, &mut held, &mut seen),
            }
        };
        let until = Instant::now() + GATHER_DEADLINE;
        while seen.len() < self.expected as usize {
            let left = until.saturating_duration_since(Instant::now());
            match timeout(left, self.next()).await {
                Ok(stream) => self.keep(stream, &mut held, &mut seen),
                Err(_) => break,
            }
        }
        for mut stream in held {
            let _ = timeout(GREETING_DEADLINE, stream.write_all(&[END])).await;
        }
        result
    }

    fn keep(&self, stream: Option<(TcpStream, u32)>, held: &mut Vec<TcpStream>, seen: &mut BTreeSet<u32>) {
        if let Some((stream, rank)) = stream
            && held.len() < CONNECTIONS_MAX
        {
            seen.insert(rank);
            held.push(stream);
        }
    }

    /// The next that connects and belongs here.
    async fn next(&self) -> Option<(TcpStream, u32)> {
        let Ok((mut stream, _)) = self.listener.accept().await else {
            // Out of descriptors, say: not for ever.
            sleep(RETRY_PAUSE).await;
            return None;
        };
        let expected = format!("{}\n", self.job);
        let mut greeting = vec![0; 4 + expected.len()];
        timeout(GREETING_DEADLINE, stream.read_exact(&mut greeting)).await.ok()?.ok()?;
        let rank = u32::from_be_bytes(greeting[..4].try_into().ok()?);
        (greeting[4..] == *expected.as_bytes() && (1..=self.expected).contains(&rank))
            .then_some((stream, rank))
    }
}

/// Another node's side: returns once the script has ended.
pub async fn wait_for_end(hold: &Hold) -> Result<(), HoldError> {
    let mut stream = connect(hold).await.map_err(HoldError::Unreachable)?;
    let mut word = [0];
    match stream.read_exact(&mut word).await {
        Ok(_) if word[0] == END => Ok(()),
        _ => {
            // What became of the first node is the cause, and ours would only
            // be told before it.
            sleep(ORPHAN_PAUSE).await;
            Err(HoldError::Orphaned)
        }
    }
}

async fn connect(hold: &Hold) -> io::Result<TcpStream> {
    let until = Instant::now() + GATHER_DEADLINE;
    loop {
        let attempt = async {
            let mut stream = TcpStream::connect((hold.host.as_str(), hold.port)).await?;
            let mut greeting = hold.rank.to_be_bytes().to_vec();
            greeting.extend_from_slice(format!("{}\n", hold.job).as_bytes());
            stream.write_all(&greeting).await?;
            Ok(stream)
        };
        match timeout(GREETING_DEADLINE, attempt).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) if Instant::now() >= until => return Err(error),
            Err(_) if Instant::now() >= until => return Err(io::ErrorKind::TimedOut.into()),
            _ => sleep(RETRY_PAUSE).await,
        }
    }
}
