//! What goes into the core and what comes out of it.

use bytes::Bytes;
use proto::v1::{
    BlockRow, CheckpointRow, Demand, DemandKey, GrantRow, Heartbeat, HeldAttempt, JobRow, JobSpec,
    JobStateRow, LedgerRow, ManifestRow, NodeRow, Problem, Progress, RegisterReply, RegisterRequest, Reports,
    Reservation, ServerFrame, State, SubmitReply, TenantRow, Yielding,
};
use std::collections::BTreeSet;

pub use world::clock::Now;

/// What one step wants: rows first, and only when they are durable the effects.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Txn {
    /// Rows to put (`Some`) or to delete (`None`); each key once, each row whole.
    pub writes: Vec<(store::Key, Option<Bytes>)>,
    /// Rows among the writes that must not be there yet (idempotency keys): to be
    /// guarded with `Expect::Absent`.
    pub absent: Vec<store::Key>,
    /// To be done in this order once the writes are durable.
    pub effects: Vec<Effect>,
    /// What steps want, for the schedulers. The one thing that may be told
    /// before the writes are durable: it promises nothing. A grant made on it is
    /// a commit of its own; where these writes are lost it finds no step that
    /// wants it and is given back.
    pub demand: DemandChange,
    /// Tenants whose rows change: their shards must be owned.
    pub tenants: BTreeSet<String>,
}

/// What is news about demand.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DemandChange {
    /// Steps that want something other than last told.
    pub changed: Vec<Demand>,
    /// Steps that want nothing any more.
    pub gone: Vec<DemandKey>,
    /// Grants of which something else could give way than last told.
    pub yielding: Vec<Yielding>,
}

/// A stored row, told before [`super::Core::start`]. A job comes before its
/// blocks and manifests; live jobs only.
#[derive(Clone, Debug)]
pub enum Loaded {
    /// `tenant/<t>`
    Tenant(TenantRow),
    /// `ledger/<t>`
    Ledger(String, LedgerRow),
    /// `job/<t>/<n>` and `state/<t>/<n>`
    Job(JobRow, JobStateRow),
    /// `block/<t>/<n>/<step>/<block>`
    Block {
        /// Of the job.
        tenant: String,
        /// Of the job.
        number: u64,
        /// Index of the step.
        step: u32,
        /// Number of the block.
        block: u64,
        /// The row.
        row: BlockRow,
    },
    /// `grant/<t>/<epoch>`
    Grant(GrantRow),
    /// `node/<name>`
    Node(NodeRow),
    /// `manifest/<t>/<n>/<step>/<task>/<rank>`
    Manifest {
        /// Of the job.
        tenant: String,
        /// Of the job.
        number: u64,
        /// Index of the step.
        step: u32,
        /// The row.
        row: ManifestRow,
    },
    /// `checkpoint/<t>/<n>/<step>/<task>/<rank>`
    Checkpoint {
        /// Of the job.
        tenant: String,
        /// Of the job.
        number: u64,
        /// Step, task, rank.
        at: (u32, u64, u32),
        /// The row.
        row: CheckpointRow,
    },
    /// How a job ended that a live job waits for (see
    /// [`super::Core::ends_wanted`]). Not told: taken as met.
    End(String, u64, State),
    /// A job that has ended, of which something is to go some time.
    Ended(String, EndedJob),
    /// The rows of an ended job whose tasks a live job looks at (see
    /// [`super::Core::rows_wanted`]). Not told: taken as met.
    Followed(Box<LoadedJob>),
}

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// Time passed; see [`super::Core::next_wakeup_ms`].
    Tick,
    /// A tenant was created or changed.
    Tenant(TenantRow),
    /// A tenant submits a job.
    Submit {
        /// Names the asker.
        ticket: u64,
        /// What is asked.
        job: NewJob,
    },
    /// Someone cancels a job.
    Cancel {
        /// Names the asker.
        ticket: u64,
        /// Of the job.
        tenant: String,
        /// Of the job.
        number: u64,
        /// One line for people.
        reason: String,
        /// The job's state where its row says it has ended.
        ended: Option<State>,
    },
    /// Someone wants an ended job tried again.
    Retry {
        /// Names the asker.
        ticket: u64,
        /// Of the job.
        tenant: String,
        /// Of the job.
        number: u64,
        /// Empty: every failed and cancelled task. Else this step and all after it.
        from_step: String,
        /// The rows of the job if it has ended.
        loaded: Option<Box<LoadedJob>>,
    },
    /// A node introduces itself.
    Register {
        /// Names the asker.
        ticket: u64,
        /// What it says.
        request: RegisterRequest,
    },
    /// The first frame of a session's stream.
    Hello {
        /// The node.
        node: String,
        /// Its session.
        session: u64,
        /// All it holds.
        held: Vec<HeldAttempt>,
    },
    /// An agent is alive and asks for its lease.
    Heartbeat {
        /// The node.
        node: String,
        /// Its session.
        session: u64,
        /// What it says.
        beat: Heartbeat,
    },
    /// The stream of a session broke.
    SessionLost {
        /// The node.
        node: String,
        /// Its session.
        session: u64,
    },
    /// An agent tells what became of attempts.
    Reports {
        /// The node.
        node: String,
        /// Its session.
        session: u64,
        /// What it says.
        reports: Reports,
        /// Indexes of reports whose objects could not be found.
        missing: Vec<usize>,
    },
    /// An agent tells how far attempts have come.
    Progress {
        /// The node.
        node: String,
        /// Its session.
        session: u64,
        /// What it says.
        told: Progress,
    },
    /// A scheduler granted capacity.
    Granted(GrantRow),
    /// Clients of tenants moved bytes; the gateway counted them.
    Moved {
        /// Names the asker.
        ticket: u64,
        /// By tenant; at most [`crate::limits::MOVED_TENANTS_MAX`].
        moved: Vec<Moved>,
    },
    /// The gateway takes uploads of a tenant away that no job names: they count as stored
    /// no longer.
    Forget {
        /// Names the asker.
        ticket: u64,
        /// Whose.
        tenant: String,
        /// At most [`crate::limits::UPLOADS_PER_BOOKING`], each with a row of this size.
        uploads: Vec<Upload>,
    },
    /// Ended jobs of a tenant, as its rows have them; see [`super::Core::due_jobs`].
    Ended {
        /// Names the asker.
        ticket: u64,
        /// Whose.
        tenant: String,
        /// Some of them.
        jobs: Vec<EndedJob>,
        /// There are no others.
        last: bool,
    },
    /// What is due of an ended job: what it gave goes.
    Expire {
        /// Names the asker.
        ticket: u64,
        /// Of the job.
        tenant: String,
        /// Of the job.
        number: u64,
        /// Its rows.
        found: Box<Expiring>,
    },
    /// The answer comes when all that was said before is durable.
    Settle {
        /// Names the asker.
        ticket: u64,
    },
    /// An operator keeps nodes free for a while, or gives them back.
    Reserve {
        /// Names the asker.
        ticket: u64,
        /// At most [`proto::limits::RESERVED_AT_ONCE`].
        nodes: Vec<String>,
        /// One of its name is replaced.
        reservation: Reservation,
        /// There is none of its name from now on.
        remove: bool,
    },
    /// An operator drains a node or ends that.
    DrainNode {
        /// Names the asker.
        ticket: u64,
        /// The node.
        node: String,
        /// Wanted.
        drained: bool,
        /// One line for people.
        reason: String,
    },
    /// The autoscaler changes what is to become of a node.
    Scale {
        /// Names the asker.
        ticket: u64,
        /// The node.
        node: String,
        /// Wanted.
        wanted: Scaling,
    },
}

/// What the autoscaler may want of a node. Each is refused where the node does not stand so
/// that it may be done, and done is the same as done before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scaling {
    /// Nothing new comes to it, for this reason. Not where it is drained already.
    Drain(String),
    /// It is needed after all. Only where the autoscaler drained it.
    Resume,
    /// Nothing will ever run on it again. Only where the autoscaler drained it and nothing is
    /// granted on it; or where no such node is there: it is from then on, in this pool, so
    /// that it gets no work should it come late.
    Retire {
        /// Of a node that is not there.
        pool: String,
        /// Likewise: one line for people.
        reason: String,
    },
    /// It is gone. Only where it was retired.
    Forget,
}

/// What the clients of one tenant moved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Who pays.
    pub tenant: String,
    /// Bytes they sent.
    pub ingress_bytes: u64,
    /// Bytes they fetched.
    pub egress_bytes: u64,
    /// What they sent that is kept and was not there before; at most
    /// [`crate::limits::UPLOADS_PER_BOOKING`].
    pub stored: Vec<Upload>,
}

/// An object that clients uploaded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Upload {
    /// Its name: lower-case hexadecimal SHA-256.
    pub digest: String,
    /// Bytes.
    pub size_bytes: u64,
}

/// A submission, with what the shell looked up for it.
#[derive(Clone, Debug, Default)]
pub struct NewJob {
    /// Who pays.
    pub tenant: String,
    /// Validated at the door.
    pub spec: JobSpec,
    /// Idempotency key; empty: none.
    pub key: String,
    /// Of the spec as submitted.
    pub spec_digest: String,
    /// Name of the token.
    pub by: String,
    /// Only ask whether it would be admitted.
    pub dry_run: bool,
    /// The stored idempotency row: job number and digest.
    pub known: Option<(u64, String)>,
    /// The jobs it comes after, with their state where they have ended; `None`
    /// where the row says that it lives, or where there is none.
    pub dependencies: Vec<(u64, Option<State>)>,
    /// The rows of those that have ended and whose tasks it looks at, manifests
    /// left out.
    pub followed: Vec<LoadedJob>,
}

/// A job that has ended, of which something is to go some time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EndedJob {
    /// Its number.
    pub number: u64,
    /// Milliseconds since 1970.
    pub ended_ms: u64,
    /// How long it asked itself for what it gave to be kept; 0: it did not.
    pub keep_ms: u64,
    /// It has expired; what is left of it goes.
    pub expired: bool,
}

/// What is due.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DueJobs {
    /// Jobs (tenant, number) that are to expire, or have.
    pub jobs: Vec<(String, u64)>,
    /// Tenants whose ended jobs are to be told ([`Event::Ended`]).
    pub survey: Vec<String>,
}

/// What the rows say of a job that is to expire, or has.
#[derive(Clone, Debug, Default)]
pub struct Expiring {
    /// `state/…`
    pub state: JobStateRow,
    /// The first keys of its manifests and checkpoints, at most
    /// [`crate::limits::ROWS_PER_EXPIRY`]; empty: there are none.
    pub rows: Vec<store::Key>,
    /// Its log went, after the state was read to have expired.
    pub log_gone: bool,
}

/// All rows of an ended job.
#[derive(Clone, Debug, Default)]
pub struct LoadedJob {
    /// `job/…`
    pub job: JobRow,
    /// `state/…`
    pub state: JobStateRow,
    /// Step, block, row.
    pub blocks: Vec<(u32, u64, BlockRow)>,
    /// Step, row.
    pub manifests: Vec<(u32, ManifestRow)>,
    /// Step, task, rank, row.
    pub checkpoints: Vec<((u32, u64, u32), CheckpointRow)>,
}

/// Done by the shell once the transaction is durable.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Answers an asker.
    Reply {
        /// Whom.
        ticket: u64,
        /// What.
        reply: Reply,
    },
    /// To an agent; dropped where that session is no longer open.
    Send {
        /// The node.
        node: String,
        /// Its session.
        session: u64,
        /// What.
        frame: ServerFrame,
    },
    /// No row names these objects of a tenant's checkpoints any more.
    Release {
        /// Whose.
        tenant: String,
        /// Which.
        digests: Vec<String>,
    },
    /// For the operator's log.
    Log {
        /// May be empty.
        tenant: String,
        /// 0: no job in particular.
        number: u64,
        /// One line.
        text: String,
    },
}

/// An answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// To Submit.
    Submitted(SubmitReply),
    /// To Cancel: the job's state now; it will end CANCELLED unless it had ended.
    Cancelled(State),
    /// To Retry: how many tasks wait again.
    Retried(u64),
    /// To Register.
    Registered(RegisterReply),
    /// To Expire: whether there is more to be done at once.
    Expired(bool),
    /// To DrainNode, Moved, Forget, Ended and Settle.
    Done,
    /// To any.
    Refused(Problem),
}

/// Resources of many tasks together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resources64 {
    /// Thousandths of a core.
    pub millicores: u64,
    /// Bytes.
    pub memory_bytes: u64,
    /// Whole devices.
    pub gpus: u64,
}

/// Decides whether a job is let in; the scheduler's policy.
pub trait Admission: Send + Sync {
    /// Pure: the same ask gets the same answer.
    fn decide(&self, ask: &AdmissionAsk<'_>) -> AdmissionVerdict;
}

/// What admission may look at.
#[derive(Debug)]
pub struct AdmissionAsk<'a> {
    /// Limits and prices.
    pub tenant: &'a TenantRow,
    /// What is reserved and used.
    pub ledger: &'a LedgerRow,
    /// What the tenant's grants hold now.
    pub held: Resources64,
    /// The groups that it is in, from it up, with what is held in each.
    pub groups: &'a [(&'a TenantRow, Resources64)],
    /// The job.
    pub spec: &'a JobSpec,
    /// Milliseconds since 1970.
    pub now_ms: u64,
}

/// What admission says.
#[derive(Clone, Debug, PartialEq)]
pub enum AdmissionVerdict {
    /// Let in.
    Admit {
        /// To be reserved.
        price_micros: u64,
        /// Set where it must wait for a limit of its tenant.
        waiting_for: Option<String>,
    },
    /// Not let in.
    Refuse(Problem),
}
