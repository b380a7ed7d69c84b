//! Reports on their way: waiting, sent, acknowledged.
//!
//! What must hold: reports leave in the order they were made; none is dropped
//! before its frame is acknowledged, or its attempt forgotten by order of the
//! server, or, if it tells of a checkpoint, followed by a later one. Their number is
//! bounded by the attempts held (three each).

use super::key::Key;
use crate::limits;
use prost::Message as _;
use proto::v1::{Report, Reports, report};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

#[derive(Debug, Default)]
pub(super) struct ReportBox {
    waiting: VecDeque<(Key, Report)>,
    sent: BTreeMap<u64, Vec<(Key, Report)>>,
    /// Grows through the agent's life, so that an old acknowledgement fits no
    /// new frame.
    sequence: u64,
    flushed_ms: Option<u64>,
}

impl ReportBox {
    pub(super) fn push(&mut self, key: Key, what: report::What) {
        if matches!(what, report::What::Checkpointed(_)) {
            let earlier = |report: &Report| matches!(report.what, Some(report::What::Checkpointed(_)));
            self.waiting.retain(|(of, report)| *of != key || !earlier(report));
        }
        let report = Report { attempt: Some(key.attempt_ref()), rank: key.rank, what: Some(what) };
        self.waiting.push_back((key, report));
    }

    /// When the waiting ones should leave; `None`: nothing waits or may leave.
    pub(super) fn due_ms(&self) -> Option<u64> {
        if self.waiting.is_empty() || self.sent.len() >= limits::REPORT_FRAMES_UNACKED_MAX {
            return None;
        }
        if self.waiting.len() >= limits::REPORTS_PER_FRAME_MAX {
            return Some(0);
        }
        Some(self.flushed_ms.map_or(0, |at| at + limits::REPORT_WAIT_MS_MAX))
    }

    /// The frames that are due: the first report after a pause leaves at once,
    /// those close behind it share frames.
    pub(super) fn flush(&mut self, now_ms: u64) -> Vec<Reports> {
        let mut frames = Vec::new();
        while self.due_ms().is_some_and(|due| due <= now_ms || !frames.is_empty()) {
            let mut bytes = 0;
            let mut held = Vec::new();
            while held.len() < limits::REPORTS_PER_FRAME_MAX && bytes < limits::REPORT_FRAME_BYTES_MAX {
                let Some((key, report)) = self.waiting.pop_front() else { break };
                bytes += report.encoded_len();
                held.push((key, report));
            }
            self.sequence += 1;
            let reports = held.iter().map(|(_, report)| report.clone()).collect();
            frames.push(Reports { sequence: self.sequence, reports });
            self.sent.insert(self.sequence, held);
        }
        if !frames.is_empty() {
            self.flushed_ms = Some(now_ms);
        }
        frames
    }

    /// Whose end is now durable.
    pub(super) fn acknowledged(&mut self, sequence: u64) -> Vec<Key> {
        let held = self.sent.remove(&sequence).unwrap_or_default();
        let ended = |report: &Report| matches!(report.what, Some(report::What::Ended(_)));
        held.into_iter().filter(|(_, report)| ended(report)).map(|(key, _)| key).collect()
    }

    /// A new session: what was sent and not acknowledged leaves again, first.
    pub(super) fn requeue(&mut self) {
        if !self.sent.is_empty() {
            world::mark!("agent.reports.sent_again");
        }
        for (_, held) in std::mem::take(&mut self.sent).into_iter().rev() {
            for item in held.into_iter().rev() {
                self.waiting.push_front(item);
            }
        }
        self.flushed_ms = None;
    }

    /// Forgotten attempts report nothing more.
    pub(super) fn purge(&mut self, forgotten: &BTreeSet<Key>) {
        self.waiting.retain(|(key, _)| !forgotten.contains(key));
        for held in self.sent.values_mut() {
            held.retain(|(key, _)| !forgotten.contains(key));
        }
    }

    /// Ends reported and not acknowledged, for the invariants.
    pub(super) fn ends(&self) -> BTreeMap<&Key, usize> {
        let mut ends = BTreeMap::new();
        for (key, report) in self.sent.values().flatten().chain(&self.waiting) {
            if matches!(report.what, Some(report::What::Ended(_))) {
                *ends.entry(key).or_insert(0) += 1;
            }
        }
        ends
    }
}
