//! A store of objects somewhere else: it answers late, or that it has too much to do, or
//! not at all; it is away for a while; what it was asked for it may have done although its
//! answer is lost. What it has taken it keeps.
//!
//! Servers call it where they are, as a client's library does; nodes read from it by signed
//! URLs through its [`ObjectDoor`], over ways that break like all others.

use super::faults::{below, strikes};
use crate::{
    bucket::{Bucket, misread},
    disk::{Disk, read_all},
    rand, task, time,
    transfer::{Arrived, ObjectDoor, ObjectSink, ObjectSource, Piece, TransferError, hex_digest},
};
use ::rand::{SeedableRng, rngs::SmallRng};
use async_trait::async_trait;
use bytes::Bytes;
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    fmt, io,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard},
};

/// What it takes to answer.
const LATENCY_MS: Range<u64> = 2..30;
/// No object is longer.
const OBJECT_BYTES_MAX: u64 = 1 << 30;
/// As much is read at once by a node.
const PIECE_BYTES: usize = 64 << 10;
/// For so long it asks not to be asked, in milliseconds.
const BUSY_MS: u64 = 2_000;

/// What a bucket does wrong. Chances are in parts per million, of each call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BucketFaults {
    /// It says that it has too much to do, and does nothing.
    pub busy_ppm: u32,
    /// It does what it was asked for, and the answer is lost.
    pub lost_ppm: u32,
    /// It takes up to `slow_ms` for it.
    pub slow_ppm: u32,
    /// See `slow_ppm`. It is also how long one waits for an answer that is lost.
    pub slow_ms: u64,
    /// It is away within these spans, in milliseconds since it was made.
    pub away_ms: Vec<Range<u64>>,
    /// From then on all is well.
    pub until_ms: u64,
}

/// How often each fault fired.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BucketCounts {
    /// Calls refused since it had too much to do.
    pub busy: u64,
    /// Answers lost of puts that it took.
    pub puts_unanswered: u64,
    /// And of removals.
    pub removals_unanswered: u64,
    /// Calls that came while it was away.
    pub away: u64,
    /// Objects that were read by a node, in how many parts whatever.
    pub given: u64,
    /// URLs that came too late.
    pub expired: u64,
}

struct State {
    objects: BTreeMap<String, Bytes>,
    faults: BucketFaults,
    counts: BucketCounts,
    rng: SmallRng,
}

/// See the module.
pub struct SimBucket {
    address: String,
    begun: time::Instant,
    secret: u64,
    state: Mutex<State>,
}

impl fmt::Debug for SimBucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimBucket").field("address", &self.address).finish_non_exhaustive()
    }
}

/// What becomes of one call.
enum Fate {
    Done,
    /// It is done, and nobody is told.
    Unanswered,
    Busy,
    Away,
}

impl SimBucket {
    /// An empty one, whose URLs lead to `address`.
    #[must_use]
    pub fn new(address: &str, seed: u64, faults: BucketFaults) -> Arc<Self> {
        let rng = SmallRng::seed_from_u64(seed);
        let state = State { objects: BTreeMap::new(), faults, counts: BucketCounts::default(), rng };
        Arc::new(Self {
            address: address.to_owned(),
            begun: time::now(),
            secret: seed,
            state: Mutex::new(state),
        })
    }

    /// What is in it, by key.
    #[must_use]
    pub fn objects(&self) -> Vec<(String, Bytes)> {
        self.state().objects.iter().map(|(key, data)| (key.clone(), data.clone())).collect()
    }

    /// How often its faults fired.
    #[must_use]
    pub fn counts(&self) -> BucketCounts {
        self.state().counts
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it is held")
    }

    fn now_ms(&self) -> u64 {
        u64::try_from((time::now() - self.begun).as_millis()).unwrap_or(u64::MAX)
    }

    /// Waits as long as the way there takes, and says what comes of the call.
    async fn called(&self) -> Fate {
        let (waits_ms, fate) = {
            let now_ms = self.now_ms();
            let mut state = self.state();
            let State { faults, counts, rng, .. } = &mut *state;
            let latency_ms = LATENCY_MS.start + below(rng, LATENCY_MS.end - LATENCY_MS.start);
            if now_ms >= faults.until_ms {
                (latency_ms, Fate::Done)
            } else if faults.away_ms.iter().any(|away| away.contains(&now_ms)) {
                counts.away += 1;
                // No connection, at once or after a while.
                let waits_ms = if below(rng, 2) == 0 { latency_ms } else { faults.slow_ms };
                (waits_ms, Fate::Away)
            } else if strikes(rng, faults.busy_ppm) {
                counts.busy += 1;
                (latency_ms, Fate::Busy)
            } else {
                let slow_ms =
                    if strikes(rng, faults.slow_ppm) { below(rng, faults.slow_ms.max(1)) } else { 0 };
                let lost = strikes(rng, faults.lost_ppm);
                (latency_ms + slow_ms, if lost { Fate::Unanswered } else { Fate::Done })
            }
        };
        time::sleep(time::ms(waits_ms)).await;
        fate
    }

    /// One call of a server; `lost` counts an answer that is.
    async fn call<T>(
        &self,
        act: impl FnOnce(&mut BTreeMap<String, Bytes>) -> io::Result<T>,
        lost: impl FnOnce(&mut BucketCounts),
    ) -> io::Result<T> {
        match self.called().await {
            Fate::Done => act(&mut self.state().objects),
            Fate::Unanswered => {
                let slow_ms = {
                    let mut state = self.state();
                    let _nobody_is_told = act(&mut state.objects);
                    lost(&mut state.counts);
                    state.faults.slow_ms
                };
                time::sleep(time::ms(slow_ms)).await;
                Err(io::Error::new(io::ErrorKind::TimedOut, "the object store did not answer in time"))
            }
            Fate::Busy => Err(io::Error::other("the object store has too much to do (503)")),
            Fate::Away => Err(io::Error::new(io::ErrorKind::TimedOut, "the object store is away")),
        }
    }

    fn signature(&self, key: &str, expires_ms: u64) -> String {
        hex_digest(&Sha256::digest(format!("{} {key} {expires_ms}", self.secret)))
    }

    /// The object that a URL grants at this instant.
    fn granted(&self, target: &str) -> Result<(String, Bytes), TransferError> {
        let refused = |status, reason: &str| TransferError::Refused { status, reason: reason.to_owned() };
        let no_url = || refused(403, "this is no signed URL");
        let (key, rest) = target.trim_start_matches('/').split_once("?expires=").ok_or_else(no_url)?;
        let (expires, signature) = rest.split_once("&signature=").ok_or_else(no_url)?;
        let expires_ms: u64 = expires.parse().map_err(|_| no_url())?;
        if signature != self.signature(key, expires_ms) {
            return Err(refused(403, "the signature does not fit"));
        }
        let mut state = self.state();
        if self.now_ms() >= expires_ms {
            state.counts.expired += 1;
            return Err(refused(403, "the request has expired"));
        }
        let data = state.objects.get(key).cloned().ok_or_else(|| refused(404, "there is no such key"))?;
        state.counts.given += 1;
        Ok((key.to_owned(), data))
    }
}

#[async_trait]
impl Bucket for SimBucket {
    async fn size(&self, key: &str) -> io::Result<Option<u64>> {
        self.call(|objects| Ok(objects.get(key).map(|data| data.len() as u64)), |_| ()).await
    }

    async fn put(&self, key: &str, disk: Arc<dyn Disk>, path: &str, digest: &str) -> io::Result<()> {
        let path = path.to_owned();
        let data = task::blocking(move || read_all(&*disk, &path, OBJECT_BYTES_MAX)).await?;
        if hex_digest(&Sha256::digest(&data)) != digest {
            crate::mark!("world.bucket.misread");
            return Err(misread());
        }
        let put = |objects: &mut BTreeMap<String, Bytes>| {
            objects.insert(key.to_owned(), data.into());
            Ok(())
        };
        self.call(put, |counts| counts.puts_unanswered += 1).await
    }

    async fn read(&self, key: &str, span: Range<u64>) -> io::Result<Bytes> {
        let read = |objects: &mut BTreeMap<String, Bytes>| {
            let data = objects.get(key).ok_or(io::ErrorKind::NotFound)?;
            let at = |byte| usize::try_from(byte).map_err(io::Error::other);
            let (start, end) = (at(span.start)?, at(span.end)?);
            let cut_short = || io::Error::new(io::ErrorKind::UnexpectedEof, "the object is cut short");
            data.get(start..end).map(Bytes::copy_from_slice).ok_or_else(cut_short)
        };
        self.call(read, |_| ()).await
    }

    async fn remove(&self, key: &str) -> io::Result<()> {
        let remove = |objects: &mut BTreeMap<String, Bytes>| {
            objects.remove(key);
            Ok(())
        };
        self.call(remove, |counts| counts.removals_unanswered += 1).await
    }

    async fn list(&self, prefix: &str) -> io::Result<Vec<String>> {
        let below = format!("{prefix}/");
        let list = |objects: &mut BTreeMap<String, Bytes>| {
            let found = objects.keys().filter(|key| *key == prefix || key.starts_with(&below));
            Ok(found.cloned().collect())
        };
        self.call(list, |_| ()).await
    }

    /// As everywhere, that asks nobody.
    async fn signed(&self, key: &str, ttl: time::Duration) -> io::Result<String> {
        let expires_ms = self.now_ms() + u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX / 2);
        let signature = self.signature(key, expires_ms);
        Ok(format!("http://{}/{key}?expires={expires_ms}&signature={signature}", self.address))
    }
}

/// The bucket as nodes see it.
#[derive(Debug)]
pub struct BucketDoor(pub Arc<SimBucket>);

fn nothing_is_taken() -> TransferError {
    TransferError::Refused { status: 403, reason: "that was not signed".to_owned() }
}

#[async_trait]
impl ObjectDoor for BucketDoor {
    async fn begin_put(&self, _: &str, _: Option<Piece>) -> Result<Box<dyn ObjectSink>, TransferError> {
        Err(nothing_is_taken())
    }

    async fn arrived(&self, _: &str, _: u64) -> Result<Arrived, TransferError> {
        Err(nothing_is_taken())
    }

    async fn open(&self, target: &str) -> Result<Box<dyn ObjectSource>, TransferError> {
        match self.0.called().await {
            Fate::Done => {
                let (key, data) = self.0.granted(target)?;
                Ok(Box::new(Given { key, all: data, rest: Bytes::new() }))
            }
            Fate::Busy if rand::u64().is_multiple_of(2) => {
                let reason = "slow down".to_owned();
                Err(TransferError::Busy { status: 503, reason, after_ms: Some(BUSY_MS) })
            }
            Fate::Busy => Err(TransferError::Server { status: 500, reason: "an internal error".to_owned() }),
            Fate::Unanswered | Fate::Away => {
                Err(TransferError::Network("the object store did not answer".to_owned()))
            }
        }
    }
}

struct Given {
    key: String,
    all: Bytes,
    rest: Bytes,
}

#[async_trait]
impl ObjectSource for Given {
    fn len(&self) -> u64 {
        self.all.len() as u64
    }

    fn digest(&self) -> &str {
        self.key.rsplit('/').next().unwrap_or_default()
    }

    async fn begin(&mut self, span: Range<u64>) -> Result<(), TransferError> {
        let at = |byte| usize::try_from(byte).expect("it is in memory");
        self.rest = self.all.slice(at(span.start)..at(span.end));
        Ok(())
    }

    async fn read(&mut self) -> Result<Option<Bytes>, TransferError> {
        let piece = self.rest.len().min(PIECE_BYTES);
        Ok((piece > 0).then(|| self.rest.split_to(piece)))
    }
}
