//! What clients of tenants moved, as the gateway counted it: booked in the
//! ledgers, all of one telling in one commit.
//!
//! The gateway tells nothing twice. What it cannot know to be booked (this
//! process died with it) it drops, so a tenant never pays for bytes that did
//! not move.

use super::types::{Moved, Reply};
use super::{Core, ledger};
use crate::limits;
use proto::month;

impl Core {
    pub(super) fn moved(&mut self, ticket: u64, moved: Vec<Moved>) {
        debug_assert!(moved.len() <= limits::MOVED_TENANTS_MAX, "the shell cuts it");
        let now_ms = self.now.wall_ms;
        for Moved { tenant, ingress_bytes, egress_bytes, stored_bytes } in moved {
            // A URL is signed for tenants that there are, and none is removed.
            let Some(owner) = self.tenants.get_mut(&tenant).filter(|owner| owner.known) else { continue };
            month::turn(&mut owner.ledger, now_ms);
            ledger::moved(&mut owner.ledger, ingress_bytes, egress_bytes);
            ledger::keep(&mut owner.ledger, stored_bytes);
            self.out.ledger(&tenant);
        }
        self.reply(ticket, Reply::Done);
    }
}
