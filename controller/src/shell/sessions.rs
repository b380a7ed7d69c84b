//! The open sessions of agents: one outbound queue each, one task that turns
//! what an agent says into events.

use super::calls::Input;
use super::{ObjectIndex, limits};
use crate::core::Event;
use proto::v1::{AgentFrame, Reports, ServerFrame, agent_frame, report};
use std::collections::BTreeMap;
use std::sync::Arc;
use world::sync::mpsc;

/// Outbound queues by node.
#[derive(Default)]
pub(super) struct Sessions {
    open: BTreeMap<String, (u64, mpsc::Sender<ServerFrame>)>,
}

impl Sessions {
    pub(super) fn open(&mut self, node: &str, session: u64, frames: mpsc::Sender<ServerFrame>) {
        self.open.insert(node.to_owned(), (session, frames));
    }

    /// Queues a frame. An agent that does not read loses its session: the
    /// queue is dropped, its stream ends, and it comes back with a Hello.
    pub(super) fn send(&mut self, node: &str, session: u64, frame: ServerFrame) {
        if let Some((current, frames)) = self.open.get(node)
            && *current == session
            && frames.try_send(frame).is_err()
        {
            self.open.remove(node);
        }
    }

    pub(super) fn close(&mut self, node: &str, session: u64) {
        if self.open.get(node).is_some_and(|(current, _)| *current == session) {
            self.open.remove(node);
        }
    }
}

/// Reads one agent's frames until it is gone, then says so.
pub(super) async fn listen(
    node: String,
    session: u64,
    mut frames: mpsc::Receiver<AgentFrame>,
    inputs: mpsc::Sender<Input>,
    objects: Arc<dyn ObjectIndex>,
) {
    while let Some(frame) = frames.recv().await {
        let event = match frame.frame {
            Some(agent_frame::Frame::Heartbeat(beat)) => {
                Event::Heartbeat { node: node.clone(), session, beat }
            }
            Some(agent_frame::Frame::Reports(reports)) => {
                let missing = missing_objects(&*objects, &reports).await;
                Event::Reports { node: node.clone(), session, reports, missing }
            }
            // A Hello opened this session; a second one means nothing.
            Some(agent_frame::Frame::Hello(_)) | None => continue,
        };
        if inputs.send(Input::Event(event)).await.is_err() {
            return;
        }
    }
    // If nobody takes it, nobody has a core that could believe in this session.
    let _ = inputs.send(Input::Event(Event::SessionLost { node, session })).await;
}

/// Which reports name artifacts whose bytes are not in place.
async fn missing_objects(objects: &dyn ObjectIndex, reports: &Reports) -> Vec<usize> {
    let mut missing = Vec::new();
    for (index, report) in reports.reports.iter().enumerate() {
        let (Some(attempt), Some(report::What::Ended(ended))) = (&report.attempt, &report.what) else {
            continue;
        };
        for artifact in &ended.artifacts {
            if !objects.has(&attempt.tenant, &artifact.digest, artifact.size_bytes).await {
                missing.push(index);
                break;
            }
        }
    }
    missing
}

/// A fresh pair of queues for a session.
pub(super) fn queues() -> (mpsc::Sender<ServerFrame>, mpsc::Receiver<ServerFrame>) {
    mpsc::channel(limits::FRAMES_PER_AGENT)
}
