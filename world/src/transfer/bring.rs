//! A download in parts: several connections bring one file, and a try that breaks
//! leaves to the next what it has brought.
//!
//! The first request asks for the first part alone. Who answers with that part says
//! how long the file is, and the others are asked for side by side; who knows no parts
//! answers with all of it, and gets no further request. The digest is taken in order,
//! from what was written, while the rest is on its way.
//!
//! A server may refuse one connection and serve the others: it allows a client so many,
//! say. A lane that is refused gives its part back and ends, and the try goes on by those
//! that are left.
//!
//! What must hold: the final name is given only to a whole file with the right digest;
//! a write of a try that was given up is over before the next try writes.

use super::pieces::Pieces;
use super::{Fetching, TransferError, check_digest, hex_digest};
use crate::{
    disk::{DiskFile, OpenMode},
    task,
};
use bytes::Bytes;
use futures_util::future::{join, try_join, try_join_all};
use sha2::{Digest, Sha256};
use std::{
    io,
    ops::Range,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};
use tokio::sync::{Semaphore, watch};

/// Bytes digested in one blocking hop, and read at once.
const DIGEST_BYTES: u64 = 4 << 20;
const DIGEST_READ_BYTES: usize = 256 << 10;
/// Writes under way at once, of all connections of one file.
const WRITES: u32 = 16;

/// What one try leaves to the next.
#[derive(Debug)]
struct Kept {
    file: Arc<dyn DiskFile>,
    pieces: Mutex<Pieces>,
    /// Bytes in a row, for who digests them.
    in_a_row: watch::Sender<u64>,
    /// Of the bytes in a row, as far as it has come.
    digest: Mutex<(Sha256, u64)>,
    /// A write holds one of them until it is over.
    writes: Arc<Semaphore>,
    tries: AtomicU64,
    /// As others see how it gets on.
    brought: Arc<AtomicU64>,
}

/// Sizes of a download in parts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PartLimits {
    /// What is longer is brought in parts of this size.
    pub(crate) part_bytes: u64,
    /// So many parts at once, each by a connection of its own.
    pub(crate) parts_at_once: usize,
    /// Written to the disk at once.
    pub(crate) chunk_bytes: usize,
}

/// What a server answers to whom asks for a part.
pub(crate) enum Answer<B> {
    /// These bytes of so many, from where they were asked for on.
    Part { span: Range<u64>, total: u64, body: B },
    /// All of it, of a length that may not be known.
    Whole { total: Option<u64>, body: B },
}

/// Who has the file, for as long as one try takes.
pub(crate) trait Giver: Sync {
    /// An answer's bytes.
    type Body: Send;
    /// What one connection keeps from part to part.
    type Lane: Send;

    /// A connection more.
    fn lane(&self) -> Self::Lane;
    /// Asks for a part, which has bytes. Who cannot give it gives all.
    fn ask(&self, span: Range<u64>)
    -> impl Future<Output = Result<Answer<Self::Body>, TransferError>> + Send;
    /// The next bytes, no sooner than they may come; `None` at the end.
    fn frame(
        &self,
        lane: &mut Self::Lane,
        body: &mut Self::Body,
    ) -> impl Future<Output = Result<Option<Bytes>, TransferError>> + Send;
}

/// Begins a try, or goes on with what earlier ones brought.
pub(crate) async fn bring<G: Giver>(
    giver: &G,
    limits: PartLimits,
    fetching: &Fetching,
) -> Result<u64, TransferError> {
    fetching.arrived(0);
    let brought = Bringing { giver, limits }.try_once(fetching).await;
    let lasts = matches!(&brought, Err(TransferError::Disk(_) | TransferError::Digest { .. }));
    if lasts || brought.is_ok() {
        fetching.forget();
    }
    if brought.is_err() && !fetching.is_kept() {
        let (disk, part) = (fetching.disk.clone(), fetching.part());
        // Whether or not this works, the next try starts afresh.
        let _best_effort = task::blocking(move || disk.remove(&part)).await;
    }
    brought
}

/// One try.
struct Bringing<'a, G> {
    giver: &'a G,
    limits: PartLimits,
}

/// Frames as they came, about as much as is written at once, and what came then.
struct Gathered {
    frames: Vec<Bytes>,
    bytes: u64,
    then: Then,
}

enum Then {
    More,
    End,
    Broke(TransferError),
}

impl<G: Giver> Bringing<'_, G> {
    async fn try_once(&self, fetching: &Fetching) -> Result<u64, TransferError> {
        let earlier = match fetching.kept::<Kept>() {
            Some(kept) => Some((kept.begin_try().await, kept)),
            None => None,
        };
        if earlier.is_some() {
            crate::mark!("world.bring.goes_on");
        }
        if let Some((None, kept)) = &earlier {
            // All of it came; only its end was missing.
            return self.land(fetching, kept, None).await;
        }
        let missing = earlier.as_ref().and_then(|(missing, _)| missing.clone());
        match self.giver.ask(missing.unwrap_or(0..self.limits.part_bytes)).await? {
            Answer::Whole { total, body } => {
                fetching.forget();
                fetching.told_total(total.unwrap_or(0));
                self.land_whole(body, fetching).await
            }
            Answer::Part { span, total, body } => {
                let kept = match earlier {
                    Some((_, kept)) if kept.pieces().total() == total => kept,
                    Some(_) => {
                        fetching.forget();
                        let why = format!("the file has {total} bytes now, and had others before");
                        return Err(TransferError::Network(why));
                    }
                    None => Kept::fresh(fetching, total, self.limits.part_bytes).await?,
                };
                fetching.told_total(total);
                self.land(fetching, &kept, Some((span, body))).await
            }
        }
    }

    /// Brings what is missing, digests all, and gives the file its name.
    async fn land(
        &self,
        fetching: &Fetching,
        kept: &Arc<Kept>,
        first: Option<(Range<u64>, G::Body)>,
    ) -> Result<u64, TransferError> {
        let open = AtomicUsize::new(self.limits.parts_at_once);
        let mut lanes = Vec::new();
        if first.is_some() {
            lanes.push(self.lane(kept, &open, first));
            lanes.extend((1..self.limits.parts_at_once).map(|_| self.lane(kept, &open, None)));
        }
        let (_, digest) = try_join(try_join_all(lanes), kept.digested()).await?;
        let total = kept.pieces().total();
        check_digest(&fetching.digest, digest).map_err(|wrong| {
            // It may be of two makes: what is there goes, and the next try has one.
            if kept.tries.load(Ordering::Relaxed) > 1 {
                crate::mark!("world.bring.of_two_makes");
                fetching.forget();
                return TransferError::Network(format!(
                    "what several tries brought is not one file: {wrong}"
                ));
            }
            wrong
        })?;
        name(fetching).await?;
        Ok(total)
    }

    /// One connection's worth: one part after the other. `open`: lanes that have not
    /// ended. One that ends without an error leaves no part taken: what it gives back is
    /// taken by one that is open, and the last of them ends only once none is left.
    async fn lane(
        &self,
        kept: &Arc<Kept>,
        open: &AtomicUsize,
        mut first: Option<(Range<u64>, G::Body)>,
    ) -> Result<(), TransferError> {
        let mut lane = self.giver.lane();
        loop {
            let (span, body) = match first.take() {
                Some(begun) => begun,
                None => {
                    let Some(missing) = kept.pieces().take() else {
                        open.fetch_sub(1, Ordering::Relaxed);
                        return Ok(());
                    };
                    let begins = missing.start;
                    match self.giver.ask(missing).await {
                        Err(refused) => {
                            crate::mark!("world.bring.part_refused");
                            kept.pieces().give_back(begins);
                            let was_last = open.fetch_sub(1, Ordering::Relaxed) == 1;
                            return if was_last { Err(refused) } else { Ok(()) };
                        }
                        Ok(Answer::Part { span, total, body }) if total == kept.pieces().total() => {
                            (span, body)
                        }
                        Ok(_) => {
                            let why = "a part was asked for, and something else was given";
                            return Err(TransferError::Network(why.to_owned()));
                        }
                    }
                }
            };
            let begun_at = span.start;
            self.take_in(kept, span, (body, &mut lane)).await?;
            kept.pieces().give_back(begun_at);
        }
    }

    /// Writes a part as it comes; of one that breaks, all that came.
    async fn take_in(
        &self,
        kept: &Arc<Kept>,
        span: Range<u64>,
        (mut body, lane): (G::Body, &mut G::Lane),
    ) -> Result<(), TransferError> {
        let mut at = span.start;
        loop {
            let Gathered { frames, bytes, then } = self.gather(&mut body, lane, |_| ()).await;
            if bytes > span.end - at {
                return Err(TransferError::Network("more came than was asked for".to_owned()));
            }
            if bytes > 0 {
                kept.write(at, frames).await.map_err(disk_error)?;
                at += bytes;
                kept.came(at - bytes, bytes);
            }
            match then {
                Then::More => {}
                Then::Broke(why) => return Err(why),
                Then::End if at == span.end => return Ok(()),
                Then::End => return Err(TransferError::Network("a part ended early".to_owned())),
            }
        }
    }

    /// `seen` is told of the bytes so far, as they come.
    async fn gather(&self, body: &mut G::Body, lane: &mut G::Lane, seen: impl Fn(u64)) -> Gathered {
        let mut gathered = Gathered { frames: Vec::new(), bytes: 0, then: Then::More };
        while gathered.bytes < self.limits.chunk_bytes as u64 {
            match self.giver.frame(lane, body).await {
                Ok(Some(data)) => {
                    gathered.bytes += data.len() as u64;
                    seen(gathered.bytes);
                    gathered.frames.push(data);
                    continue;
                }
                Ok(None) => gathered.then = Then::End,
                Err(why) => gathered.then = Then::Broke(why),
            }
            break;
        }
        gathered
    }

    /// All of a file from one answer. While a stretch is written and digested the next
    /// one comes.
    async fn land_whole(&self, mut body: G::Body, fetching: &Fetching) -> Result<u64, TransferError> {
        let file = open(fetching).await?;
        let (mut digest, mut frames, mut at, mut bytes) = (Sha256::new(), Vec::new(), 0, 0);
        let mut lane = self.giver.lane();
        loop {
            let landing = write_and_digest(&file, at, frames, digest);
            let before = at + bytes;
            let gathering = self.gather(&mut body, &mut lane, |more| fetching.arrived(before + more));
            let (gathered, landed) = join(gathering, landing).await;
            (digest, at) = (landed.map_err(disk_error)?, at + bytes);
            (frames, bytes) = (gathered.frames, gathered.bytes);
            match gathered.then {
                Then::More => {}
                Then::Broke(why) => return Err(why),
                Then::End => break,
            }
        }
        let digest = write_and_digest(&file, at, frames, digest).await.map_err(disk_error)?;
        check_digest(&fetching.digest, hex_digest(&digest.finalize()))?;
        name(fetching).await?;
        Ok(at + bytes)
    }
}

/// Both at once.
async fn write_and_digest(
    file: &Arc<dyn DiskFile>,
    at: u64,
    frames: Vec<Bytes>,
    mut digest: Sha256,
) -> io::Result<Sha256> {
    if frames.is_empty() {
        return Ok(digest);
    }
    let (file, copies) = (file.clone(), frames.clone());
    let write = task::blocking(move || write_all(&*file, at, &copies));
    let take = task::blocking(move || {
        frames.iter().for_each(|frame| digest.update(frame));
        digest
    });
    let (written, taken) = join(write, take).await;
    written.map(|()| taken)
}

impl Kept {
    /// Nothing is there yet. From now on a try that breaks is gone on with.
    async fn fresh(fetching: &Fetching, total: u64, part_bytes: u64) -> Result<Arc<Self>, TransferError> {
        let mut pieces = Pieces::new(total, part_bytes);
        let first = pieces.take();
        assert!(first.is_none_or(|first| first.start == 0), "the first part is on its way");
        let kept = Arc::new(Self {
            file: open(fetching).await?,
            pieces: Mutex::new(pieces),
            in_a_row: watch::channel(0).0,
            digest: Mutex::default(),
            writes: Arc::new(Semaphore::new(WRITES as usize)),
            tries: AtomicU64::new(1),
            brought: fetching.brought.clone(),
        });
        fetching.keep(kept.clone());
        Ok(kept)
    }

    /// Waits until no write of an earlier try is under way; what is to be asked for first.
    async fn begin_try(&self) -> Option<Range<u64>> {
        let _all = self.writes.acquire_many(WRITES).await.expect("this semaphore is never closed");
        self.tries.fetch_add(1, Ordering::Relaxed);
        let mut pieces = self.pieces();
        pieces.give_all_back();
        pieces.take()
    }

    fn pieces(&self) -> MutexGuard<'_, Pieces> {
        self.pieces.lock().expect("nothing panics while it is held")
    }

    async fn write(&self, at: u64, frames: Vec<Bytes>) -> io::Result<()> {
        let permit = self.writes.clone().acquire_owned().await.expect("this semaphore is never closed");
        let file = self.file.clone();
        task::blocking(move || {
            let written = write_all(&*file, at, &frames);
            drop(permit);
            written
        })
        .await
    }

    fn came(&self, at: u64, bytes: u64) {
        let mut pieces = self.pieces();
        pieces.came(at, bytes);
        self.brought.fetch_add(bytes, Ordering::Relaxed);
        self.in_a_row.send_replace(pieces.in_a_row());
    }

    /// The digest of all, taken as bytes come to be in a row.
    async fn digested(&self) -> Result<String, TransferError> {
        let total = self.pieces().total();
        let mut rows = self.in_a_row.subscribe();
        loop {
            let (digest, at) = self.digest.lock().expect("nothing panics while it is held").clone();
            if at == total {
                return Ok(hex_digest(&digest.finalize()));
            }
            let end = total.min(at + DIGEST_BYTES);
            rows.wait_for(|row| *row >= end).await.expect("the sender is this one's own");
            let file = self.file.clone();
            let taken = task::blocking(move || take_digest(&*file, digest, at..end)).await;
            *self.digest.lock().expect("nothing panics while it is held") = (taken.map_err(disk_error)?, end);
        }
    }
}

fn take_digest(file: &dyn DiskFile, mut digest: Sha256, mut span: Range<u64>) -> io::Result<Sha256> {
    let mut buffer = vec![0; DIGEST_READ_BYTES];
    while span.start < span.end {
        let due = usize::try_from(span.end - span.start).map_or(buffer.len(), |left| left.min(buffer.len()));
        match file.read_at(span.start, &mut buffer[..due])? {
            0 => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter")),
            read => {
                digest.update(&buffer[..read]);
                span.start += read as u64;
            }
        }
    }
    Ok(digest)
}

fn write_all(file: &dyn DiskFile, mut at: u64, frames: &[Bytes]) -> io::Result<()> {
    for frame in frames {
        file.write_at(at, frame)?;
        at += frame.len() as u64;
    }
    Ok(())
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn disk_error(error: io::Error) -> TransferError {
    TransferError::Disk(error.to_string())
}

/// The half file, with nothing in it: a new one, since an earlier try may still write
/// into its own.
async fn open(fetching: &Fetching) -> Result<Arc<dyn DiskFile>, TransferError> {
    let (disk, part) = (fetching.disk.clone(), fetching.part());
    let opened = task::blocking(move || match disk.remove(&part) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => disk.open(&part, OpenMode::CreateNew),
    });
    opened.await.map_err(disk_error)
}

async fn name(fetching: &Fetching) -> Result<(), TransferError> {
    let (disk, part, path) = (fetching.disk.clone(), fetching.part(), fetching.path.clone());
    task::blocking(move || disk.rename(&part, &path)).await.map_err(disk_error)
}
