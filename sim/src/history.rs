//! What the clients of a run were told: the acknowledgements that must hold.

use crate::rows::JobName;

/// One acknowledgement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ack {
    Submitted { job: JobName, key: String },
    Cancelled { job: JobName },
}

/// Everything clients were told, in order.
#[derive(Clone, Debug, Default)]
pub struct History {
    pub acks: Vec<Ack>,
    /// Submissions refused at the door, by code.
    pub refused: std::collections::BTreeMap<String, u64>,
    /// How often a tenant's limits were changed.
    pub limits_changed: u64,
    /// Jobs that a user tried again, or may have.
    pub retried: std::collections::BTreeSet<JobName>,
    /// Streams that a client broke off.
    pub broken_off: u64,
    /// What a client saw that may not be: invariant and words.
    pub broken: Option<(u8, String)>,
}
