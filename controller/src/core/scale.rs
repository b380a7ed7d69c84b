//! Nodes that come and go by need: see [`Scaling`].
//!
//! What must hold: a node is removed only after a commit by which nothing is granted on it
//! and nothing can be any more; and what an operator drained stays as the operator left it.

use super::Core;
use super::model::Node;
use super::types::Scaling;
use proto::problem::{self, Problem};
use proto::v1::{Drainer, NodeRow, NodeState};

impl Core {
    pub(super) fn scale_node(&mut self, name: &str, wanted: Scaling) -> Result<(), Problem> {
        let (now_ms, there) = (self.now.mono_ms, self.nodes.contains_key(name));
        let node = match (&wanted, there) {
            (Scaling::Retire { pool, reason }, false) => {
                world::mark!("controller.node.retired_before_it_came");
                let row = NodeRow {
                    name: name.to_owned(),
                    pool: pool.clone(),
                    state: NodeState::Lost.into(),
                    session: self.sessions_forgotten,
                    drained: true,
                    drain_reason: reason.clone(),
                    drainer: Drainer::Removal.into(),
                    ..NodeRow::default()
                };
                self.nodes.insert(name.to_owned(), Node::new(row, now_ms));
                self.out.node(name);
                return Ok(());
            }
            (Scaling::Forget, false) => return Ok(()),
            (_, false) => return Err(problem::missing("node", name)),
            (_, true) => self.nodes.get_mut(name).expect("it is there"),
        };
        let (drained, drainer) = (node.row.drained, node.row.drainer());
        let busy = |reason| problem::conflict("scaling", "node", name, reason, "look again later");
        match (wanted, drainer) {
            (Scaling::Drain(reason), _) if !drained => {
                node.row.drained = true;
                node.row.drain_reason = reason;
                node.row.set_drainer(Drainer::Autoscaler);
            }
            (Scaling::Drain(_), Drainer::Autoscaler) | (Scaling::Retire { .. }, Drainer::Removal) => {
                return Ok(());
            }
            (Scaling::Resume, Drainer::Autoscaler) => {
                node.row.drained = false;
                node.row.drain_reason.clear();
                node.row.set_drainer(Drainer::Unspecified);
            }
            (Scaling::Resume, _) if !drained => return Ok(()),
            (Scaling::Retire { .. }, Drainer::Autoscaler) if node.grants.is_empty() => {
                node.row.set_drainer(Drainer::Removal);
            }
            (Scaling::Retire { .. }, Drainer::Autoscaler) => return Err(busy("has work")),
            (Scaling::Forget, Drainer::Removal) if node.grants.is_empty() => {
                self.sessions_forgotten = self.sessions_forgotten.max(node.row.session);
                if let Some(at_ms) = node.deadline_ms {
                    self.node_deadlines.remove(&(at_ms, name.to_owned()));
                }
                self.nodes.remove(name);
            }
            _ => return Err(busy("is not as the autoscaler left it")),
        }
        self.out.node(name);
        Ok(())
    }
}
