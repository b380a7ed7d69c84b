//! An object door in memory, as small as one can be.
#![allow(dead_code, reason = "each test uses its part")]

use async_trait::async_trait;
use bytes::Bytes;
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{Arc, Mutex},
};
use world::transfer::{Arrived, ObjectDoor, ObjectSink, ObjectSource, Piece, TransferError, hex_digest};

/// Parts of a download.
const PART: usize = 10_000;

pub fn digest(data: &[u8]) -> String {
    hex_digest(&Sha256::digest(data))
}

pub fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|index| u8::try_from((index * 31 + index / 251) % 256).unwrap()).collect()
}

/// What one object does when it is read.
#[derive(Clone, Debug, Default)]
pub struct Object {
    pub data: Bytes,
    /// Ends early, though the length said otherwise.
    pub ends_at: Option<usize>,
    /// Fails there.
    pub fails_at: Option<usize>,
}

/// Targets read `/v1/objects/<digest>?…`; `/v1/objects/refused` is 403 both
/// ways, `/v1/objects/broken` 503, and `/v1/objects/busy` 503 with a time to wait.
#[derive(Debug, Default)]
pub struct MemoryDoor {
    pub objects: Mutex<BTreeMap<String, Object>>,
    /// Uploads that broke off, each as far as it came.
    pub parts: Mutex<BTreeMap<String, Vec<u8>>>,
    /// Uploads begun and never finished nor refused.
    pub open_sinks: Arc<Mutex<i64>>,
    /// Uploads that are all there, each with how often one must ask until it is verified.
    pub verifying: Mutex<BTreeMap<String, (u32, Object)>>,
    /// How often one must ask so of the next ones.
    pub verified_after: Mutex<u32>,
    /// Bytes of uploads that arrived.
    pub received: Arc<Mutex<u64>>,
    /// Bytes of downloads that were read.
    pub given: Arc<Mutex<u64>>,
}

impl MemoryDoor {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    pub fn add(&self, data: &[u8]) -> String {
        let name = digest(data);
        let object = Object { data: Bytes::copy_from_slice(data), ..Object::default() };
        self.objects.lock().unwrap().insert(name.clone(), object);
        name
    }
}

fn name(target: &str) -> Result<String, TransferError> {
    let path = target.split('?').next().unwrap();
    match path.strip_prefix("/v1/objects/").unwrap() {
        "refused" => Err(TransferError::Refused { status: 403, reason: "the URL has expired".into() }),
        "broken" => Err(TransferError::Server { status: 503, reason: "no disk".into() }),
        "busy" => Err(TransferError::Busy { status: 503, reason: "too many".into(), after_ms: Some(7_000) }),
        name => Ok(name.to_owned()),
    }
}

struct Sink {
    door: Arc<MemoryDoor>,
    name: String,
    data: Vec<u8>,
    piece: Option<Piece>,
}

impl Drop for Sink {
    fn drop(&mut self) {
        let mut parts = self.door.parts.lock().unwrap();
        if self.data.len() > parts.get(&self.name).map_or(0, Vec::len) {
            parts.insert(self.name.clone(), std::mem::take(&mut self.data));
        }
        *self.door.open_sinks.lock().unwrap() -= 1;
    }
}

#[async_trait]
impl ObjectDoor for Shared {
    async fn begin_put(
        &self,
        target: &str,
        piece: Option<Piece>,
    ) -> Result<Box<dyn ObjectSink>, TransferError> {
        let name = name(target)?;
        let mut data = Vec::new();
        if let Some(piece) = piece.filter(|piece| piece.from > 0) {
            let mut parts = self.0.parts.lock().unwrap();
            let there = parts.get(&name).filter(|part| part.len() as u64 == piece.from);
            there.ok_or(TransferError::Refused { status: 409, reason: "ask again".into() })?;
            data = parts.remove(&name).unwrap();
        }
        *self.0.open_sinks.lock().unwrap() += 1;
        Ok(Box::new(Sink { door: self.0.clone(), name, data, piece }))
    }

    async fn arrived(&self, target: &str, _total: u64) -> Result<Arrived, TransferError> {
        let name = name(target)?;
        if self.0.objects.lock().unwrap().contains_key(&name) {
            return Ok(Arrived::Whole);
        }
        let mut verifying = self.0.verifying.lock().unwrap();
        if let Some((asks, _)) = verifying.get_mut(&name) {
            *asks -= 1;
            if *asks > 0 {
                return Ok(Arrived::Verifying);
            }
            let (_, object) = verifying.remove(&name).unwrap();
            self.0.objects.lock().unwrap().insert(name, object);
            return Ok(Arrived::Whole);
        }
        Ok(Arrived::Part(self.0.parts.lock().unwrap().get(&name).map_or(0, |part| part.len() as u64)))
    }

    async fn open(&self, target: &str) -> Result<Box<dyn ObjectSource>, TransferError> {
        let name = name(target)?;
        let object = self.0.objects.lock().unwrap().get(&name).cloned();
        let object = object.ok_or(TransferError::Refused { status: 404, reason: "no such object".into() })?;
        Ok(Box::new(Source { name, object, span: 0..0, given: Arc::clone(&self.0.given) }))
    }
}

/// The door as servers take it.
pub struct Shared(pub Arc<MemoryDoor>);

#[async_trait]
impl ObjectSink for Sink {
    async fn write(&mut self, data: Bytes) -> Result<(), TransferError> {
        *self.door.received.lock().unwrap() += data.len() as u64;
        self.data.extend_from_slice(&data);
        Ok(())
    }

    async fn finish(mut self: Box<Self>) -> Result<Arrived, TransferError> {
        let found = digest(&self.data);
        if self.piece.is_some_and(|piece| piece.to < piece.total) {
            return Ok(Arrived::Part(self.data.len() as u64));
        }
        if found != self.name {
            self.data.clear();
            return Err(TransferError::Digest { expected: self.name.clone(), found });
        }
        let object = Object { data: std::mem::take(&mut self.data).into(), ..Object::default() };
        let asks = *self.door.verified_after.lock().unwrap();
        if asks > 0 {
            self.door.verifying.lock().unwrap().insert(self.name.clone(), (asks, object));
            return Ok(Arrived::Verifying);
        }
        self.door.objects.lock().unwrap().insert(self.name.clone(), object);
        Ok(Arrived::Whole)
    }
}

struct Source {
    name: String,
    object: Object,
    span: Range<usize>,
    given: Arc<Mutex<u64>>,
}

#[async_trait]
impl ObjectSource for Source {
    fn len(&self) -> u64 {
        self.object.data.len() as u64
    }

    fn digest(&self) -> &str {
        &self.name
    }

    async fn begin(&mut self, span: Range<u64>) -> Result<(), TransferError> {
        self.span = usize::try_from(span.start).unwrap()..usize::try_from(span.end).unwrap();
        Ok(())
    }

    async fn read(&mut self) -> Result<Option<Bytes>, TransferError> {
        if self.object.fails_at.is_some_and(|at| self.span.start >= at) {
            return Err(TransferError::Disk("a bad sector".into()));
        }
        let end = self.object.ends_at.unwrap_or(usize::MAX).min(self.span.end);
        if self.span.start >= end {
            return Ok(None);
        }
        let part = self.object.data.slice(self.span.start..end.min(self.span.start + PART));
        self.span.start += part.len();
        *self.given.lock().unwrap() += part.len() as u64;
        Ok(Some(part))
    }
}
