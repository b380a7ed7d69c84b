//! Objects over a simulated network: no HTTP, but its ways to fail.
//!
//! A server registers its [`ObjectDoor`] under its address for as long as it
//! serves; a node's [`SimTransfer`] looks it up. A transfer whose server ends
//! (or comes back as another incarnation) half way breaks. What the digest
//! promises is checked here as the real client does. Files are brought in parts, by the
//! code that does so in production ([`crate::transfer::bring`]): each part is a request
//! of its own, with a fate of its own, and parts are small, since files are.
//!
//! Now and then a node forges the URL it was given before it uses it: whoever takes
//! that is counted.

mod parts;

use super::faults::{TransferCounts, TransferFaults, below, strikes};
use crate::{
    disk::{Disk, DiskFile, OpenMode},
    limits,
    pace::Pace,
    time,
    transfer::{
        Arrived, Fetching, ObjectDoor, ObjectSource, Piece, Transfer, TransferError, UPLOAD_ROUNDS,
        check_digest, hex_digest, is_of_what_was_there, not_verified, verified_within,
    },
};
use async_trait::async_trait;
use bytes::Bytes;
use rand::{SeedableRng, rngs::SmallRng};
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    sync::{Arc, Mutex, MutexGuard},
};

/// Bytes of a download moved at once; faults strike between.
const CHUNK_BYTES: usize = 64 * 1024;
/// Likewise of an upload: small, so that something has come when one breaks.
const PUT_CHUNK_BYTES: usize = 16 * 1024;

/// One request in so many is preceded by one with a forged URL.
const FORGED: u64 = 8;
/// URLs that have this are.
const SIGNED: &str = "&signature=";

/// So many failures in a row say plainly that a source is broken.
pub const PLAIN_FAILURES: u32 = 8;

fn host_of(url: &str) -> &str {
    url.strip_prefix("http://").and_then(|rest| rest.split('/').next()).unwrap_or(url)
}

/// A URL of which one digit is another: of the object's name, of its size, of the end of its
/// time, of the signature; `None` where it has none.
fn forge(target: &str, forger: &mut SmallRng) -> Option<String> {
    let mut forged = target.as_bytes().to_vec();
    let places: Vec<usize> = (1..forged.len()).filter(|at| forged[*at].is_ascii_digit()).collect();
    let at = *places.get(usize::try_from(below(forger, places.len().max(1) as u64)).ok()?)?;
    forged[at] = b'0' + (forged[at] - b'0' + 1) % 10;
    String::from_utf8(forged).ok()
}

type Reachable = Box<dyn Fn(&str, &str) -> bool + Send + Sync>;

#[derive(Default)]
struct Doors {
    by_address: BTreeMap<String, (u64, Arc<dyn ObjectDoor>)>,
    next: u64,
}

/// Who serves objects at which address, and who can reach whom.
pub struct SimObjects {
    doors: Mutex<Doors>,
    reachable: Mutex<Reachable>,
}

impl fmt::Debug for SimObjects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimObjects").finish_non_exhaustive()
    }
}

/// Takes a door away again when dropped, unless another has taken its place.
#[derive(Debug)]
pub struct DoorGuard {
    objects: Arc<SimObjects>,
    address: String,
    incarnation: u64,
}

impl Drop for DoorGuard {
    fn drop(&mut self) {
        let mut doors = self.objects.doors.lock().expect("nothing panics while holding it");
        if doors
            .by_address
            .get(&self.address)
            .is_some_and(|(incarnation, _)| *incarnation == self.incarnation)
        {
            doors.by_address.remove(&self.address);
        }
    }
}

impl SimObjects {
    /// No doors, and everybody reaches everybody.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self { doors: Mutex::default(), reachable: Mutex::new(Box::new(|_, _| true)) })
    }

    /// Sets who can reach whom, by the names transfers and addresses carry:
    /// `(from node, server host)`. Asked before every step of a transfer.
    pub fn set_reachable(&self, reachable: impl Fn(&str, &str) -> bool + Send + Sync + 'static) {
        *self.reachable.lock().expect("nothing panics while holding it") = Box::new(reachable);
    }

    /// Serves objects at `host:port` until the guard is dropped.
    #[must_use]
    pub fn register(self: &Arc<Self>, address: &str, door: Arc<dyn ObjectDoor>) -> DoorGuard {
        let mut doors = self.doors.lock().expect("nothing panics while holding it");
        doors.next += 1;
        let incarnation = doors.next;
        doors.by_address.insert(address.to_owned(), (incarnation, door));
        DoorGuard { objects: self.clone(), address: address.to_owned(), incarnation }
    }

    fn find(&self, from: &str, address: &str) -> Option<(u64, Arc<dyn ObjectDoor>)> {
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        if !(self.reachable.lock().expect("nothing panics while holding it"))(from, host) {
            return None;
        }
        self.doors.lock().expect("nothing panics while holding it").by_address.get(address).cloned()
    }
}

#[derive(Debug)]
struct State {
    faults: TransferFaults,
    counts: TransferCounts,
    rng: SmallRng,
    /// Of forgeries, which shift no other chance.
    forger: SmallRng,
    /// What moved at a pace within the last second.
    second: VecDeque<(time::Instant, u64)>,
    /// By address: how its tries went since one went well.
    vain: BTreeMap<String, Vain>,
}

/// Tries of one source that all failed.
#[derive(Debug, Default)]
struct Vain {
    in_a_row: u32,
    /// When those of the last minute began that had so many failures before them that it
    /// was plain.
    begun: VecDeque<time::Instant>,
}

/// One node's transfers.
#[derive(Debug)]
pub struct SimTransfer {
    objects: Arc<SimObjects>,
    from: String,
    state: Mutex<State>,
}

/// What will go wrong with one transfer, drawn as it begins.
#[derive(Clone, Copy, Debug, Default)]
struct Fate {
    break_at: Option<u64>,
    truncate_at: Option<u64>,
    corrupt_at: Option<u64>,
    lose_reply: bool,
    slow_ms: u64,
}

/// A transfer under way.
struct Link<'a> {
    transfer: &'a SimTransfer,
    address: String,
    incarnation: u64,
    door: Arc<dyn ObjectDoor>,
    fate: Fate,
    chunk: u64,
    pace: &'a Pace,
}

impl SimTransfer {
    /// Transfers of the node that the network knows as `from`.
    #[must_use]
    pub fn new(objects: Arc<SimObjects>, from: &str, seed: u64) -> Arc<Self> {
        Arc::new(Self {
            objects,
            from: from.to_owned(),
            state: Mutex::new(State {
                faults: TransferFaults::default(),
                counts: TransferCounts::default(),
                rng: SmallRng::seed_from_u64(seed),
                forger: SmallRng::seed_from_u64(seed ^ 0x666f_7267_6564),
                second: VecDeque::new(),
                vain: BTreeMap::new(),
            }),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while holding it")
    }

    /// What goes wrong from now on.
    pub fn set_faults(&self, faults: TransferFaults) {
        self.state().faults = faults;
    }

    /// How often it did.
    #[must_use]
    pub fn counts(&self) -> TransferCounts {
        self.state().counts
    }

    /// The node's agent begins anew, and knows nothing of what failed.
    pub fn forget(&self) {
        self.state().vain.clear();
    }

    fn begins(&self, url: &str) {
        let now = time::now();
        let mut state = self.state();
        let State { vain, counts, .. } = &mut *state;
        let Some(vain) = vain.get_mut(host_of(url)).filter(|vain| vain.in_a_row >= PLAIN_FAILURES) else {
            return;
        };
        vain.begun.push_back(now);
        while vain.begun.front().is_some_and(|at| now - *at >= time::ms(60_000)) {
            vain.begun.pop_front();
        }
        counts.most_in_vain_a_minute = counts.most_in_vain_a_minute.max(vain.begun.len() as u64);
    }

    /// `got_on`: it brought bytes, whatever came then.
    fn ended<T>(&self, url: &str, got_on: bool, ended: Result<T, TransferError>) -> Result<T, TransferError> {
        let mut state = self.state();
        match &ended {
            Err(TransferError::Network(_) | TransferError::Server { .. } | TransferError::Busy { .. })
                if !got_on =>
            {
                state.vain.entry(host_of(url).to_owned()).or_default().in_a_row += 1;
            }
            _ => _ = state.vain.remove(host_of(url)),
        }
        drop(state);
        ended
    }

    fn count(&self, note: impl FnOnce(&mut TransferCounts)) {
        note(&mut self.state().counts);
    }

    /// So many bytes move now.
    fn moved(&self, bytes: u64) {
        let now = time::now();
        let mut state = self.state();
        state.second.push_back((now, bytes));
        while state.second.front().is_some_and(|(at, _)| now - *at >= time::ms(1_000)) {
            state.second.pop_front();
        }
        let within = state.second.iter().map(|(_, bytes)| bytes).sum();
        state.counts.most_in_a_second = state.counts.most_in_a_second.max(within);
    }

    fn draw(&self, chunks: u64) -> (Fate, u64) {
        let mut state = self.state();
        let State { faults, counts, rng, .. } = &mut *state;
        counts.begun += 1;
        let mut at = |ppm| if strikes(rng, ppm) { Some(below(rng, chunks.max(1))) } else { None };
        let (break_at, truncate_at, corrupt_at) =
            (at(faults.break_ppm), at(faults.truncate_ppm), at(faults.corrupt_ppm));
        let lose_reply = strikes(rng, faults.lost_reply_ppm);
        let slow = strikes(rng, faults.slow_ppm);
        counts.slowed += u64::from(slow);
        let slow_ms = if slow { faults.slow_ms } else { 0 };
        let spread = faults.latency_ms_max.saturating_sub(faults.latency_ms_min);
        let latency_ms = faults.latency_ms_min + if spread > 0 { below(rng, spread) } else { 0 };
        (Fate { break_at, truncate_at, corrupt_at, lose_reply, slow_ms }, latency_ms)
    }

    /// Splits the URL, waits the latency and finds the door. `bytes` are those of an upload.
    async fn link<'a>(
        &'a self,
        url: &str,
        bytes: u64,
        pace: &'a Pace,
    ) -> Result<(Link<'a>, String), TransferError> {
        let rest = url.strip_prefix("http://").unwrap_or_default();
        let Some((address, path)) = rest.split_once('/') else {
            return Err(TransferError::Refused { status: 400, reason: format!("{url:?} is no http:// URL") });
        };
        let (fate, latency_ms) = self.draw(bytes.div_ceil(PUT_CHUNK_BYTES as u64));
        time::sleep(time::ms(latency_ms)).await;
        let Some((incarnation, door)) = self.objects.find(&self.from, address) else {
            self.count(|counts| counts.unreachable += 1);
            return Err(TransferError::Network(format!("{address} cannot be reached")));
        };
        let target = format!("/{path}");
        self.forge(&door, &target).await;
        let link =
            Link { transfer: self, address: address.to_owned(), incarnation, door, fate, chunk: 0, pace };
        Ok((link, target))
    }

    /// Now and then uses an altered URL first, which no server may take.
    async fn forge(&self, door: &Arc<dyn ObjectDoor>, target: &str) {
        let forged = {
            let mut state = self.state();
            let forger = &mut state.forger;
            if !target.contains(SIGNED) || below(forger, FORGED) > 0 {
                return;
            }
            let Some(forged) = forge(target, forger) else { return };
            state.counts.forged += 1;
            forged
        };
        if door.open(&forged).await.is_ok() || door.begin_put(&forged, None).await.is_ok() {
            self.count(|counts| counts.forged_taken += 1);
        }
    }
}

impl Link<'_> {
    fn check(&self) -> Result<(), TransferError> {
        match self.transfer.objects.find(&self.transfer.from, &self.address) {
            Some((incarnation, _)) if incarnation == self.incarnation => Ok(()),
            _ => Err(TransferError::Network("the connection broke".to_owned())),
        }
    }

    /// As a real connection does, a little at a time.
    async fn pass(&self, mut bytes: u64) {
        let Some(slice) = self.pace.slice_bytes() else { return };
        while bytes > 0 {
            let passes = bytes.min(slice);
            self.pace.take(passes).await;
            self.transfer.moved(passes);
            bytes -= passes;
        }
    }

    /// One chunk on its way: `None` where the stream ends early.
    async fn carry(&mut self, data: Bytes) -> Result<Option<Bytes>, TransferError> {
        let chunk = self.chunk;
        self.chunk += 1;
        if self.fate.slow_ms > 0 {
            time::sleep(time::ms(self.fate.slow_ms)).await;
        }
        self.pass(data.len() as u64).await;
        self.check()?;
        if self.fate.break_at.is_some_and(|at| at == chunk) {
            self.transfer.count(|counts| counts.broken += 1);
            return Err(TransferError::Network("the connection broke".to_owned()));
        }
        if self.fate.truncate_at.is_some_and(|at| at <= chunk) {
            self.transfer.count(|counts| counts.truncated += 1);
            return Ok(None);
        }
        if self.fate.corrupt_at.is_some_and(|at| at == chunk) && !data.is_empty() {
            self.transfer.count(|counts| counts.corrupted += 1);
            let mut altered = data.to_vec();
            let middle = altered.len() / 2;
            altered[middle] ^= 0x10;
            return Ok(Some(altered.into()));
        }
        Ok(Some(data))
    }

    /// Sends a file from there on.
    async fn send(
        &mut self,
        target: &str,
        file: &dyn DiskFile,
        from: u64,
        len: u64,
    ) -> Result<Arrived, TransferError> {
        self.aim((len - from).div_ceil(PUT_CHUNK_BYTES as u64).max(1));
        let piece = (from > 0).then_some(Piece { from, to: len, total: len });
        let mut sink = self.door.clone().begin_put(target, piece).await?;
        let mut at = from;
        while at < len {
            let mut buffer =
                vec![0; PUT_CHUNK_BYTES.min(usize::try_from(len - at).unwrap_or(PUT_CHUNK_BYTES))];
            let read = file.read_at(at, &mut buffer).map_err(disk_error)?;
            if read == 0 {
                return Err(TransferError::Disk("the file became shorter while it was sent".to_owned()));
            }
            buffer.truncate(read);
            at += read as u64;
            let Some(data) = self.carry(buffer.into()).await? else {
                // HTTP knows the length: the server sees a broken request.
                return Err(TransferError::Network("the connection broke".to_owned()));
            };
            sink.write(data).await?;
        }
        self.check()?;
        sink.finish().await
    }

    /// How many chunks there are of a download is known only when it has begun.
    fn spread(&mut self, chunks: u64) {
        let mut state = self.transfer.state();
        let Fate { break_at, truncate_at, corrupt_at, .. } = &mut self.fate;
        for at in [break_at, truncate_at, corrupt_at].into_iter().flatten() {
            *at = below(&mut state.rng, chunks.max(1));
        }
    }

    /// What will go wrong strikes among so many chunks that are to come.
    fn aim(&mut self, chunks: u64) {
        self.chunk = 0;
        let Fate { break_at, truncate_at, corrupt_at, .. } = &mut self.fate;
        for at in [break_at, truncate_at, corrupt_at].into_iter().flatten() {
            *at %= chunks;
        }
    }

    async fn fetch(
        &mut self,
        source: &mut dyn ObjectSource,
        fetching: &Fetching,
    ) -> Result<(u64, String), TransferError> {
        let file = fetching.disk.open(&fetching.part(), OpenMode::CreateOrWrite).map_err(disk_error)?;
        file.set_len(0).map_err(disk_error)?;
        let mut digest = Sha256::new();
        let (due, mut at) = (source.len(), 0);
        fetching.told_total(due);
        fetching.arrived(0);
        while let Some(data) = source.read().await? {
            let Some(data) = self.carry(data).await? else { break };
            digest.update(&data);
            file.write_at(at, &data).map_err(disk_error)?;
            at += data.len() as u64;
            fetching.arrived(at);
        }
        if at != due {
            return Err(TransferError::Network(format!("the connection broke after {at} of {due} bytes")));
        }
        file.sync().map_err(disk_error)?;
        Ok((at, hex_digest(&digest.finalize())))
    }
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn disk_error(error: std::io::Error) -> TransferError {
    TransferError::Disk(error.to_string())
}

#[async_trait]
impl Transfer for SimTransfer {
    async fn put(&self, url: &str, disk: Arc<dyn Disk>, path: &str) -> Result<(), TransferError> {
        self.send(url, disk, path, &Pace::default()).await
    }

    async fn send(
        &self,
        url: &str,
        disk: Arc<dyn Disk>,
        path: &str,
        pace: &Pace,
    ) -> Result<(), TransferError> {
        self.begins(url);
        let sent = self.send_once(url, disk, path, pace).await;
        self.ended(url, false, sent)
    }

    async fn get(
        &self,
        url: &str,
        disk: Arc<dyn Disk>,
        path: &str,
        digest: &str,
    ) -> Result<u64, TransferError> {
        self.begins(url);
        let loaded = self.load_once(url, &Fetching::new(disk, path, digest)).await;
        self.ended(url, false, loaded)
    }

    async fn bring(&self, url: &str, fetching: &Fetching) -> Result<u64, TransferError> {
        self.begins(url);
        let before = fetching.brought_bytes();
        let brought = parts::bring(self, url, fetching).await;
        self.ended(url, fetching.brought_bytes() > before, brought)
    }
}

impl SimTransfer {
    async fn send_once(
        &self,
        url: &str,
        disk: Arc<dyn Disk>,
        path: &str,
        pace: &Pace,
    ) -> Result<(), TransferError> {
        let file = disk.open(path, OpenMode::Read).map_err(disk_error)?;
        let len = file.len().map_err(disk_error)?;
        let (mut link, target) = self.link(url, len, pace).await?;
        // In smaller chunks, and no slower for it.
        link.fate.slow_ms /= (CHUNK_BYTES / PUT_CHUNK_BYTES) as u64;
        let mut round = 0;
        let until = time::now() + limits::VERIFY + verified_within(len);
        loop {
            let mut arrived = link.door.clone().arrived(&target, len).await?;
            if let Arrived::Part(from) = arrived {
                link.check()?;
                round += 1;
                if round > UPLOAD_ROUNDS {
                    return Err(not_verified());
                }
                arrived = match link.send(&target, &*file, from, len).await {
                    Err(error) if round < UPLOAD_ROUNDS && is_of_what_was_there(&error, from) => continue,
                    sent => sent?,
                };
            }
            if arrived != Arrived::Verifying {
                break;
            }
            if time::now() >= until {
                return Err(TransferError::Network("it is verified without end".to_owned()));
            }
            time::sleep(limits::VERIFY_PAUSE).await;
            link.check()?;
        }
        link.check()?;
        if link.fate.lose_reply {
            self.count(|counts| counts.lost_replies += 1);
            return Err(TransferError::Network("the connection broke before the answer".to_owned()));
        }
        Ok(())
    }

    async fn load_once(&self, url: &str, fetching: &Fetching) -> Result<u64, TransferError> {
        let Fetching { disk, path, digest, .. } = fetching;
        let (mut link, target) = self.link(url, 0, &fetching.pace).await?;
        let mut source = link.door.clone().open(&target).await?;
        let len = source.len();
        source.begin(0..len).await?;
        link.spread(source.len().div_ceil(CHUNK_BYTES as u64));
        let part = fetching.part();
        let fetched = link.fetch(source.as_mut(), fetching).await;
        let verified = fetched.and_then(|(len, found)| check_digest(digest, found).map(|()| len));
        match verified {
            Ok(len) => {
                disk.rename(&part, path).map_err(disk_error)?;
                Ok(len)
            }
            Err(error) => {
                // Whether or not this works, the next try starts afresh.
                let _best_effort = disk.remove(&part);
                Err(error)
            }
        }
    }
}
