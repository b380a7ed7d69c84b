//! One upload, or a piece of one: bytes into a part while their digest is taken, then
//! verified, synced and named. Receiving goes on while a block is written. To verify
//! what an earlier process took in it has to be read again, which takes long where it is
//! much: that begins with the request that goes on, and whoever waits for its end is told
//! now and then that it is not yet.

use super::part::{Kept, Key, Part};
use super::parts::Live;
use super::{Objects, bucket, busy, disk_failed, refused};
use crate::limits;
use crate::meter::{Passage, Way};
use crate::urls::Leave;
use async_trait::async_trait;
use bytes::Bytes;
use std::io;
use std::sync::Arc;
use world::disk::OpenMode;
use world::sync::OwnedSemaphorePermit;
use world::task::{JoinHandle, blocking, spawn};
use world::time;
use world::transfer::{Arrived, ObjectSink, Piece, TransferError};

/// The part after a block was written, or could not be.
type Written = (Option<Part>, io::Result<()>);

/// What an upload holds for as long as it is the one to go on.
#[derive(Debug)]
pub(super) struct Open {
    block: Vec<Bytes>,
    block_bytes: usize,
    writing: Option<JoinHandle<Written>>,
    /// Nobody is to go on with it.
    spoilt: bool,
    _place: OwnedSemaphorePermit,
}

impl Open {
    fn new(writing: JoinHandle<Written>, place: OwnedSemaphorePermit) -> Self {
        Self { block: Vec::new(), block_bytes: 0, writing: Some(writing), spoilt: false, _place: place }
    }

    /// Waits for the block under way. Where the caller is dropped, it can be waited for
    /// again.
    async fn written(&mut self) -> Written {
        let Some(writing) = self.writing.as_mut() else { return (None, Err(broken_off())) };
        let written = writing.await;
        self.writing = None;
        written.unwrap_or_else(|_| (None, Err(broken_off())))
    }

    /// Waits until the part is there and as it should be.
    async fn ready(&mut self) -> Result<(), TransferError> {
        let (part, written) = self.written().await;
        let failed = written.as_ref().err().map(disk_failed);
        self.writing = Some(spawn(async move { (part, written) }));
        failed.map_or(Ok(()), Err)
    }

    /// Hands the block to the disk.
    async fn flush(&mut self, objects: &Arc<Objects>) -> Result<(), TransferError> {
        let mut part = match self.written().await {
            (Some(part), Ok(())) => part,
            (part, written) => {
                let failed = written.err().unwrap_or_else(broken_off);
                let told = disk_failed(&failed);
                self.writing = Some(spawn(async move { (part, Err(failed)) }));
                return Err(told);
            }
        };
        let block = std::mem::take(&mut self.block);
        self.block_bytes = 0;
        let objects = Arc::clone(objects);
        self.writing = Some(spawn(blocking(move || {
            let mut written = block.iter().try_for_each(|data| part.write(data));
            if written.is_ok() && !objects.shared {
                written = part.mark(&objects.incoming, limits::PART_SYNC_BYTES);
            }
            (Some(part), written)
        })));
        Ok(())
    }

    /// All that arrived, in the file and nowhere else; an error where it is not to be
    /// trusted.
    async fn into_part(mut self, objects: &Arc<Objects>) -> (Option<Part>, Result<(), TransferError>) {
        if let Err(error) = self.flush(objects).await {
            return (self.written().await.0, Err(error));
        }
        let (part, written) = self.written().await;
        (part, written.map_err(|error| disk_failed(&error)))
    }

    /// Closes the part for another request to go on with, durable where it can be found
    /// again after a crash. `None`: there is nothing to go on with.
    pub(super) async fn close(self, objects: &Arc<Objects>) -> Option<Kept> {
        let spoilt = self.spoilt;
        let (part, written) = self.into_part(objects).await;
        let (mut part, objects) = (part?, Arc::clone(objects));
        blocking(move || {
            let keep = written.is_ok() && !spoilt && part.len() > 0;
            if keep && (objects.shared || part.mark(&objects.incoming, 0).is_ok()) {
                return Some(part.into_kept());
            }
            part.remove();
            None
        })
        .await
    }
}

fn broken_off() -> io::Error {
    io::Error::other("the upload was broken off")
}

/// One request.
#[derive(Debug)]
pub(super) struct Upload {
    objects: Arc<Objects>,
    leave: Leave,
    passage: Option<Passage>,
    /// To be kept in, where a client uploads.
    room: Option<Passage>,
    /// Bytes of the object that are there.
    arrived: u64,
    /// Where this request ends.
    due: u64,
    is_piece: bool,
    live: Arc<Live>,
    number: u64,
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.objects.parts.leave(self.number);
    }
}

fn wrong(reason: String) -> TransferError {
    TransferError::Refused { status: 400, reason }
}

/// Another request has what is there, or there is less or more.
fn elsewhere(reason: &str) -> TransferError {
    let reason = format!("{reason}; ask with `content-range: bytes */SIZE` and go on from there");
    TransferError::Refused { status: 409, reason }
}

pub(super) async fn begin(
    objects: Arc<Objects>,
    leave: Leave,
    piece: Option<Piece>,
) -> Result<Upload, TransferError> {
    let size_bytes = leave.size_bytes;
    let Piece { from, to, total } = piece.unwrap_or(Piece { from: 0, to: size_bytes, total: size_bytes });
    if total != size_bytes || from > to || to > total {
        return Err(wrong(format!("the URL is for {size_bytes} bytes, not for {from} to {to} of {total}")));
    }
    let Ok(place) = Arc::clone(&objects.uploads).try_acquire_owned() else { return Err(busy("uploads")) };
    let passage = objects.passage(&leave, Way::In, to - from).await?;
    let room = objects.passage(&leave, Way::Kept, size_bytes).await?;
    let key = Key { tenant: leave.tenant.clone(), digest: leave.digest.clone() };
    let writing = if from == 0 { create(&objects, &key) } else { resume(&objects, &key, from).await? };
    let live = Live::new(key, Open::new(writing, place), from, objects.clock.monotonic_ms());
    let number = objects.parts.begin(&live);
    let is_piece = piece.is_some();
    let upload = Upload { objects, leave, passage, room, arrived: from, due: to, is_piece, live, number };
    if let Some(open) = upload.live.open.lock().await.as_mut() {
        open.ready().await?;
    }
    Ok(upload)
}

fn create(objects: &Arc<Objects>, key: &Key) -> JoinHandle<Written> {
    let (disk, incoming, key) = (Arc::clone(&objects.disk), objects.incoming.clone(), key.clone());
    let number = world::rand::u64();
    spawn(blocking(move || match Part::create(disk, &incoming, &key, number) {
        Ok(part) => (Some(part), Ok(())),
        Err(error) => (None, Err(error)),
    }))
}

/// Goes on with what waits, where it is as long as the caller takes it to be. What an
/// earlier process wrote is hashed once all is there: nobody is kept waiting before.
async fn resume(objects: &Arc<Objects>, key: &Key, from: u64) -> Result<JoinHandle<Written>, TransferError> {
    objects.look_at_parts(key).await?;
    let there = objects.parts.waiting(key).filter(|kept| kept.len == from);
    let there = there.ok_or_else(|| elsewhere("that is not where what is there ends"))?;
    let (disk, path) = (Arc::clone(&objects.disk), there.path());
    let opened = blocking(move || disk.open(&path, OpenMode::Write)).await;
    let file = opened.map_err(|error| disk_failed(&error))?;
    // From here on nothing waits: whoever drops this request leaves the part behind.
    let kept = objects.parts.take(key, &there).ok_or_else(|| elsewhere("another request goes on with it"))?;
    world::mark!("gateway.upload.resumed");
    let part = Part::resume(Arc::clone(&objects.disk), file, kept);
    if let Some(behind) = part.behind() {
        spawn(behind);
    }
    Ok(spawn(async move { (Some(part), Ok(())) }))
}

#[async_trait]
impl ObjectSink for Upload {
    async fn write(&mut self, data: Bytes) -> Result<(), TransferError> {
        let bytes = data.len() as u64;
        let mut open = self.live.open.lock().await;
        let Some(open) = open.as_mut() else {
            return Err(elsewhere("another request goes on with this upload"));
        };
        if self.arrived + bytes > self.due {
            open.spoilt = !self.is_piece;
            let reason = format!("more than the {} bytes that were announced", self.due);
            return Err(TransferError::Refused { status: 413, reason });
        }
        if let Some(passage) = &mut self.passage {
            passage.pass(bytes).await.map_err(refused)?;
        }
        // With the bytes in the block nothing is lost that was paid.
        open.block_bytes += data.len();
        open.block.push(data);
        self.arrived += bytes;
        self.live.heard(self.objects.clock.monotonic_ms(), self.arrived);
        if open.block_bytes >= limits::OBJECT_BLOCK_BYTES {
            open.flush(&self.objects).await?;
        }
        Ok(())
    }

    async fn finish(self: Box<Self>) -> Result<Arrived, TransferError> {
        self.finish_within(limits::NAMING_MS).await
    }
}

impl Upload {
    /// As [`ObjectSink::finish`], but that naming may go on behind it.
    pub(super) async fn finish_within(self: Box<Self>, wait_ms: u64) -> Result<Arrived, TransferError> {
        let (arrived, size_bytes) = (self.arrived, self.leave.size_bytes);
        if arrived < self.due {
            // All that was sent is there, and it is less than there should be: a file of
            // another length, but for a piece, of which more may come.
            if let (false, Some(open)) = (self.is_piece, self.live.open.lock().await.as_mut()) {
                open.spoilt = true;
            }
            return Err(wrong(format!("{arrived} bytes arrived where {} were announced", self.due)));
        }
        if arrived < size_bytes {
            let (objects, key) = (Arc::clone(&self.objects), self.live.key.clone());
            drop(self);
            objects.put_away_of(&key, limits::PART_SETTLE_MS).await?;
            return Ok(Arrived::Part(objects.parts.waiting(&key).map_or(0, |kept| kept.len)));
        }
        // Goes on also where its caller does not: what is named must be booked.
        let naming = spawn(name(self));
        let lost = |_| TransferError::Server { status: 500, reason: "the upload was broken off".to_owned() };
        match time::timeout(time::ms(wait_ms), naming).await {
            Ok(named) => named.map_err(lost)?,
            Err(_) => Ok(Arrived::Verifying),
        }
    }
}

/// All has arrived: verifies it and gives it its name.
async fn name(mut upload: Box<Upload>) -> Result<Arrived, TransferError> {
    upload.live.finishes();
    let open = upload.live.open.lock().await.take();
    let open = open.ok_or_else(|| elsewhere("another request goes on with this upload"))?;
    let (part, written) = open.into_part(&upload.objects).await;
    let (objects, leave) = (Arc::clone(&upload.objects), upload.leave.clone());
    let mut part = part.ok_or_else(|| disk_failed(&broken_off()))?;
    let is_new = match objects.bucket.clone() {
        None => {
            blocking(move || {
                let named = written.and_then(|()| publish(&objects, &mut part, &leave));
                // Renamed it is not there any more.
                part.remove();
                named
            })
            .await?
        }
        Some(bucket) => {
            let (part, verified) = blocking({
                let leave = leave.clone();
                move || {
                    let verified = written.and_then(|()| verified(&mut part, &leave));
                    (part, verified)
                }
            })
            .await;
            let named = match verified {
                Ok(()) => bucket::publish(&objects, &*bucket, &part.path(), &leave).await,
                Err(error) => Err(error),
            };
            blocking(move || part.remove()).await;
            named?
        }
    };
    if let (true, Some(room)) = (is_new, upload.room.take()) {
        room.keep(&upload.leave.digest);
    }
    upload.objects.forget_part(&upload.live.key).await;
    Ok(Arrived::Whole)
}

/// Blocks. True where the object was not there before.
fn publish(objects: &Objects, part: &mut Part, leave: &Leave) -> Result<bool, TransferError> {
    let failed = |error: io::Error| disk_failed(&error);
    verified(part, leave)?;
    part.sync().map_err(failed)?;
    objects.publish(&part.path(), leave).map_err(failed)
}

/// Whether it is what it is to be. Blocks.
fn verified(part: &mut Part, leave: &Leave) -> Result<(), TransferError> {
    part.catch_up().map_err(|error| disk_failed(&error))?;
    let found = part.digest();
    if found != leave.digest {
        return Err(TransferError::Digest { expected: leave.digest.clone(), found });
    }
    Ok(())
}
