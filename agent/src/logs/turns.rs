//! Whose stream is served next, and how much each tenant may have under way.
//!
//! What must hold: tenants take turns, however many streams they have, and so do the
//! streams of each; a turn is over after [`LOG_TURN_BYTES`] or [`LOG_TURN_SHIPMENTS`].
//! No tenant has more unconfirmed than is still free of the window (the dynamic
//! threshold of Choudhury and Hahne, 1998): whoever has nothing under way finds room
//! at once, though others send all they can and are answered slowly.

use super::book::StreamKey;
use crate::limits::{
    LOG_CHUNK_BYTES_MAX, LOG_SHIPMENTS_UNACKED_MAX, LOG_TURN_BYTES, LOG_TURN_SHIPMENTS, LOG_UNACKED_BYTES_MAX,
};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// What is under way, or was sent in a turn.
#[derive(Clone, Copy, Debug, Default)]
struct Sent {
    bytes: u64,
    shipments: usize,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// Those with streams to serve; the first has the turn.
    tenants: VecDeque<Arc<str>>,
    streams: BTreeMap<Arc<str>, VecDeque<StreamKey>>,
    /// What the first has sent in this turn.
    turn: Sent,
    /// Unconfirmed, of each and of all.
    under_way: BTreeMap<Arc<str>, Sent>,
    all: Sent,
}

impl Turns {
    /// True where no stream waits.
    pub fn is_empty(&self) -> bool {
        self.tenants.is_empty()
    }

    /// A stream has something to send. It must not wait already.
    pub fn wait(&mut self, stream: StreamKey) {
        let tenant = &stream.0.tenant;
        if !self.streams.contains_key(tenant) {
            self.tenants.push_back(Arc::clone(tenant));
            self.streams.insert(Arc::clone(tenant), VecDeque::new());
        }
        if let Some(streams) = self.streams.get_mut(tenant) {
            streams.push_back(stream);
        }
    }

    /// The stream that is served next, where the windows allow one.
    pub fn next(&mut self) -> Option<StreamKey> {
        for _ in 0..=self.tenants.len() {
            let tenant = self.tenants.front()?;
            let is_over = self.turn.bytes >= LOG_TURN_BYTES || self.turn.shipments >= LOG_TURN_SHIPMENTS;
            if is_over || !self.has_room(tenant) {
                self.turn = Sent::default();
                self.tenants.rotate_left(1);
                continue;
            }
            let streams = self.streams.get_mut(tenant)?;
            let stream = streams.pop_front();
            if streams.is_empty() {
                self.streams.remove(tenant);
                self.tenants.pop_front();
                self.turn = Sent::default();
            }
            return stream;
        }
        None
    }

    fn has_room(&self, tenant: &str) -> bool {
        let own = self.under_way.get(tenant).copied().unwrap_or_default();
        own.bytes + LOG_CHUNK_BYTES_MAX <= LOG_UNACKED_BYTES_MAX - self.all.bytes
            && own.shipments < LOG_SHIPMENTS_UNACKED_MAX - self.all.shipments
    }

    /// A shipment of a stream that was served goes out.
    pub fn sent(&mut self, tenant: &Arc<str>, bytes: u64) {
        let own = self.under_way.entry(Arc::clone(tenant)).or_default();
        let turn = (self.tenants.front().is_some_and(|first| first == tenant)).then_some(&mut self.turn);
        for sent in [own, &mut self.all].into_iter().chain(turn) {
            sent.bytes += bytes;
            sent.shipments += 1;
        }
    }

    /// So many bytes of a tenant are no longer unconfirmed.
    pub fn settled(&mut self, tenant: &str, bytes: u64) {
        if let Some(own) = self.under_way.get_mut(tenant) {
            own.bytes -= bytes;
            self.all.bytes -= bytes;
        }
    }

    /// A shipment of a tenant was answered.
    pub fn answered(&mut self, tenant: &str) {
        let Some(own) = self.under_way.get_mut(tenant).filter(|own| own.shipments > 0) else { return };
        own.shipments -= 1;
        self.all.shipments -= 1;
    }

    /// Nothing is under way any more.
    pub fn nothing_under_way(&mut self) {
        self.under_way.clear();
        self.all = Sent::default();
    }

    /// Whether some shipment has no answer yet.
    pub fn is_unanswered(&self) -> bool {
        self.all.shipments > 0
    }
}
