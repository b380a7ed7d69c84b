//! The open sessions of agents: one outbound queue each, one task that turns
//! what an agent says into events.

use super::calls::Input;
use super::{ObjectIndex, limits};
use crate::core::Event;
use proto::checkpoints;
use proto::v1::{AgentFrame, Reports, ServerFrame, agent_frame, report};
use std::collections::BTreeMap;
use std::sync::Arc;
use world::sync::mpsc;

/// One opened stream: two may say the same session, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StreamId(pub(super) u64);

/// Outbound queues by node and session. A Hello of an older session gets a
/// queue of its own, for its goodbye: it takes nothing from the current one.
#[derive(Default)]
pub(super) struct Sessions {
    open: BTreeMap<(String, u64), (StreamId, mpsc::Sender<ServerFrame>)>,
}

impl Sessions {
    /// A stream said Hello. Those of the node that said the same session before,
    /// or an older one, are dropped, and end.
    pub(super) fn open(
        &mut self,
        node: &str,
        session: u64,
        stream: StreamId,
        frames: mpsc::Sender<ServerFrame>,
    ) {
        let open = self.open.len();
        self.open.retain(|(other, older), _| other != node || *older > session);
        if self.open.len() < open {
            world::mark!("controller.session.replaced");
        }
        self.open.insert((node.to_owned(), session), (stream, frames));
    }

    /// Queues a frame. An agent that does not read loses its session: the
    /// queue is dropped, its stream ends, and it comes back with a Hello.
    pub(super) fn send(&mut self, node: &str, session: u64, frame: ServerFrame) {
        let key = (node.to_owned(), session);
        if self.open.get(&key).is_some_and(|(_, frames)| frames.try_send(frame).is_err()) {
            self.open.remove(&key);
        }
    }

    /// A stream has ended. False where another has taken its session over: then
    /// nothing is lost.
    pub(super) fn close(&mut self, node: &str, session: u64, stream: StreamId) -> bool {
        let key = (node.to_owned(), session);
        match self.open.get(&key) {
            Some((current, _)) if *current != stream => {
                world::mark!("controller.session.end_of_an_older_stream");
                false
            }
            _ => {
                self.open.remove(&key);
                true
            }
        }
    }
}

/// Reads one agent's frames until it is gone, then says so.
pub(super) async fn listen(
    (node, session, stream): (String, u64, StreamId),
    mut frames: mpsc::Receiver<AgentFrame>,
    inputs: mpsc::Sender<Input>,
    objects: Arc<dyn ObjectIndex>,
) {
    while let Some(frame) = frames.recv().await {
        let mut using = None;
        let event = match frame.frame {
            Some(agent_frame::Frame::Heartbeat(beat)) => {
                Event::Heartbeat { node: node.clone(), session, beat }
            }
            Some(agent_frame::Frame::Reports(reports)) => {
                using = Some(objects.using());
                let missing = missing_objects(&*objects, &reports).await;
                Event::Reports { node: node.clone(), session, reports, missing }
            }
            Some(agent_frame::Frame::Progress(told)) => Event::Progress { node: node.clone(), session, told },
            // A Hello opened this session; a second one means nothing.
            Some(agent_frame::Frame::Hello(_)) | None => continue,
        };
        if inputs.send(Input::Event(event)).await.is_err() {
            return;
        }
        drop(using);
    }
    // If nobody takes it, nobody has a core that could believe in this session.
    let _ = inputs.send(Input::StreamEnded { node, session, stream }).await;
}

/// Which reports name artifacts whose bytes are not in place.
async fn missing_objects(objects: &dyn ObjectIndex, reports: &Reports) -> Vec<usize> {
    let mut missing = Vec::new();
    for (index, report) in reports.reports.iter().enumerate() {
        let Some(attempt) = &report.attempt else { continue };
        let (artifacts, space) = match &report.what {
            Some(report::What::Ended(ended)) => (&ended.artifacts, attempt.tenant.clone()),
            Some(report::What::Checkpointed(told)) => (&told.artifacts, checkpoints::space(&attempt.tenant)),
            _ => continue,
        };
        for artifact in artifacts {
            if !objects.has(&space, &artifact.digest, artifact.size_bytes).await {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_s_end_ends_no_other() {
        let mut sessions = Sessions::default();
        let mut opened = |session, stream| {
            let (frames, queue) = queues();
            sessions.open("n1", session, StreamId(stream), frames);
            queue
        };
        let (mut older, mut first) = (opened(4, 1), opened(5, 2));
        assert!(older.try_recv().is_err() && older.is_closed(), "replaced, it ends");
        assert!(!first.is_closed());
        // The same session over a second stream; then the first one's end comes.
        let mut second = opened(5, 3);
        assert!(first.try_recv().is_err() && first.is_closed());
        // A late Hello of the older session takes nothing from the current one.
        let mut late = opened(4, 4);
        assert!(!sessions.close("n1", 5, StreamId(2)), "another has its session");
        sessions.send("n1", 5, ServerFrame::default());
        sessions.send("n1", 4, ServerFrame::default());
        assert!(second.try_recv().is_ok() && late.try_recv().is_ok());
        assert!(sessions.close("n1", 5, StreamId(3)));
        assert!(second.is_closed());
        // One that was dropped because its agent did not read is lost all the same.
        assert!(sessions.close("n1", 5, StreamId(3)));
        assert!(sessions.close("n1", 4, StreamId(4)) && sessions.open.is_empty());
    }
}
