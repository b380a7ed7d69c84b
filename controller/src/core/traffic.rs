//! What clients of tenants moved, as the gateway counted it: booked in the
//! ledgers, all of one telling in one commit. What they uploaded and is kept has a row for
//! each object, so that it is given back once, when the object goes.
//!
//! The gateway tells nothing twice. What it cannot know to be booked (this
//! process died with it) it drops, so a tenant never pays for bytes that did
//! not move.

use super::types::{Moved, Reply, Upload};
use super::{Core, ledger};
use crate::limits;
use prost::Message as _;
use proto::v1::UploadRow;
use proto::{keys, month};

impl Core {
    pub(super) fn moved(&mut self, ticket: u64, moved: Vec<Moved>) {
        debug_assert!(moved.len() <= limits::MOVED_TENANTS_MAX, "the shell cuts it");
        let now_ms = self.now.wall_ms;
        for Moved { tenant, ingress_bytes, egress_bytes, stored } in moved {
            // A URL is signed for tenants that there are, and none is removed.
            let Some(owner) = self.tenants.get_mut(&tenant).filter(|owner| owner.known) else { continue };
            month::turn(&mut owner.ledger, now_ms);
            ledger::moved(&mut owner.ledger, ingress_bytes, egress_bytes);
            for Upload { digest, size_bytes } in stored {
                // As much as the account can hold, and the same is given back.
                let size_bytes = ledger::keep(&mut owner.ledger, size_bytes);
                let row = UploadRow { size_bytes, at_ms: now_ms };
                let key = keys::upload(&tenant, &digest);
                self.out.direct(&tenant, key, Some(row.encode_to_vec().into()));
            }
            self.out.ledger(&tenant);
        }
        self.reply(ticket, Reply::Done);
    }

    pub(super) fn forget_uploads(&mut self, ticket: u64, tenant: &str, uploads: &[Upload]) {
        debug_assert!(uploads.len() <= limits::UPLOADS_PER_BOOKING, "the shell cuts it");
        if let Some(owner) = self.tenants.get_mut(tenant).filter(|owner| owner.known) {
            for Upload { digest, size_bytes } in uploads {
                world::mark!("controller.upload.forgotten");
                ledger::forget(&mut owner.ledger, *size_bytes);
                self.out.direct(tenant, keys::upload(tenant, digest), None);
            }
            self.out.ledger(tenant);
        }
        self.reply(ticket, Reply::Done);
    }
}
