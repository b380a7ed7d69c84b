//! What comes to the console, and what it wants done.

use crossterm::event::KeyEvent;
use proto::{
    ids::JobId,
    problem::Problem,
    v1::{
        EventsReply, JobSummary, JobView, ListJobsReply, LogsReply, NodeView, PoolView, State, TenantView,
        WhyReply,
    },
};

/// What comes to the console.
#[derive(Clone, Debug)]
pub enum Message {
    /// A key was pressed.
    Key(KeyEvent),
    /// Text was pasted: it is never taken for keys.
    Paste(String),
    /// The terminal has another size.
    Resize {
        /// Its width.
        columns: u16,
        /// Its height.
        rows: u16,
    },
    /// [`super::Model::due_ms`] is over.
    Tick,
    /// All tenants that the token sees.
    Tenants(Vec<TenantView>),
    /// All nodes.
    Nodes(Vec<NodeView>),
    /// All pools.
    Pools(Vec<PoolView>),
    /// A page of jobs.
    Jobs {
        /// Whose.
        tenant: String,
        /// What came.
        reply: ListJobsReply,
    },
    /// Some jobs as they are now.
    Refreshed(Vec<JobSummary>),
    /// History, as it happens.
    Events {
        /// Whose.
        tenant: String,
        /// What came.
        reply: EventsReply,
    },
    /// The job that is shown.
    Job {
        /// As asked.
        visit: u64,
        /// What came.
        view: Box<JobView>,
    },
    /// Why it waits.
    Why {
        /// As asked.
        visit: u64,
        /// What came.
        reply: WhyReply,
    },
    /// More of its log.
    Logs {
        /// As asked.
        visit: u64,
        /// What came.
        reply: LogsReply,
    },
    /// A cancel was taken.
    Cancelled {
        /// Which job.
        job: JobId,
        /// Where it is now.
        state: State,
    },
    /// A question has no answer, or a stream broke.
    Failed {
        /// As asked.
        ask: Ask,
        /// Why.
        problem: Problem,
    },
}

/// What the console wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Ask the server, after a pause.
    Ask {
        /// What.
        ask: Ask,
        /// How long to wait before.
        after_ms: u64,
    },
    /// The log that is followed is of no interest any more.
    StopLogs,
    /// End.
    Quit,
}

/// A question to the server. `visit` counts how often a job was opened, so that
/// answers to an earlier visit are known as such.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// All tenants.
    Tenants,
    /// All nodes.
    Nodes,
    /// All pools.
    Pools,
    /// A page of jobs, newest first.
    Jobs {
        /// Whose.
        tenant: String,
        /// Below this number; 0: from the newest.
        before: u64,
        /// At most so many.
        limit: u32,
    },
    /// Some jobs as they are now.
    Refresh(Vec<JobId>),
    /// The history from a number on, for ever.
    Events {
        /// Whose.
        tenant: String,
        /// First number wanted.
        from_seq: u64,
    },
    /// One job.
    Job {
        /// Which.
        job: JobId,
        /// See [`Ask`].
        visit: u64,
    },
    /// Why it waits.
    Why {
        /// Which.
        job: JobId,
        /// See [`Ask`].
        visit: u64,
    },
    /// Its log from a cursor on, to its end.
    Logs {
        /// Which.
        job: JobId,
        /// See [`Ask`].
        visit: u64,
        /// After this; 0: from the start.
        cursor: u64,
    },
    /// That a job be ended.
    Cancel(JobId),
}

impl Ask {
    /// As a command to be carried out at once.
    #[must_use]
    pub fn now(self) -> Command {
        self.after(0)
    }

    /// As a command to be carried out after a pause.
    #[must_use]
    pub fn after(self, after_ms: u64) -> Command {
        Command::Ask { ask: self, after_ms }
    }
}
