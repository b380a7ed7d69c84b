//! What the front door takes and holds at most, and how long it waits.

/// A handler that has not answered by then answers `unavailable.deadline`. A
/// little longer than the controller's own deadline, whose reason says more.
pub const HANDLER_DEADLINE_MS: u64 = 35_000;
/// Bytes of a token as sent; longer ones are not even hashed.
pub const TOKEN_BYTES_MAX: usize = 128;
/// How long a token or tenant once seen in the store is taken as unchanged, its
/// limits on traffic too.
pub const SEEN_MS: u64 = 5_000;
/// Tokens, and tenants, remembered so.
pub const SEEN_MAX: usize = 4096;
/// Digits of a token's hash that name it.
pub const TOKEN_ID_DIGITS: usize = 12;
/// Ids listed where a name means several tokens.
pub const TOKENS_NAMED_MAX: usize = 8;
/// Bytes of a token's name.
pub const TOKEN_NAME_BYTES_MAX: usize = 128;
/// Uploaded objects of which it is remembered whether they are directories.
pub const TREES_REMEMBERED: usize = 4096;
/// How long a shape of job that some pool could hold is taken as such.
pub const FEASIBLE_MS: u64 = 1_000;
/// Shapes remembered so.
pub const SHAPES_MAX: usize = 256;

/// How long a server waits for the store that it shares to take a connection.
pub const STORE_CONNECT_MS: u64 = 3_000;
/// How long open calls may go on once a store is to stop.
pub const STORE_GRACE_MS: u64 = 500;
/// Between two tries to reach it.
pub const STORE_PAUSE_MS: u64 = 500;
/// How long those who are being refused may take to hear of it once a server serves.
pub const REFUSER_GRACE_MS: u64 = 200;
/// Tries of a server that stands by again to have its port again, and between them.
pub const BIND_TRIES: u32 = 50;
pub const BIND_PAUSE_MS: u64 = 100;
/// After a reign that could not begin, so that another server is tried first: longer
/// than between two looks of those that stand by.
pub const FAILED_START_PAUSE_MS: u64 = 2_000;

/// How long a server that is told to stop may take to give its jobs back.
pub const RESIGN_MS: u64 = 3_000;

/// Schedulers in other processes that follow demand.
pub const SCHEDULERS_MAX: usize = 16;
/// Updates of demand on their way to one of them; one that is further behind is
/// cut off and begins anew.
pub const DEMAND_UPDATES_PER_SCHEDULER: usize = 256;
/// Demands in one update.
pub const DEMANDS_PER_UPDATE_MAX: usize = 4096;
/// The longest that a pool may say a last checkpoint is waited for.
pub const PREEMPTION_GRACE_MS_MAX: u64 = 3_600_000;
/// Grants of which one update tells what could give way: each may have hundreds of tasks.
pub const YIELDING_PER_UPDATE_MAX: usize = 256;
/// Open streams (`SubmitMany`, `Logs`, `Events`) of one token.
pub const STREAMS_PER_CALLER: usize = 128;
/// Between two looks for what has expired.
pub const EXPIRY_LOOK_MS: u64 = 1_000;
/// Commits for one job that expired before it is another's turn.
pub const EXPIRY_COMMITS_MAX: usize = 64;
/// Objects that are taken away in one go.
pub const CONDEMNED_MAX: usize = 1000;
/// How long those are waited for who were told that an object is there, and how often it is
/// looked.
pub const UNUSED_WAIT_MS: u64 = 120_000;
/// See [`UNUSED_WAIT_MS`].
pub const UNUSED_LOOK_MS: u64 = 100;
/// Objects that are known to be in a bucket.
pub const OBJECTS_REMEMBERED: usize = 1 << 16;
/// Objects of one directory that a bucket is asked for at the same time.
pub const BUCKET_ASKS_MAX: usize = 32;
/// Open streams of all; followers take watches of the store, which has 1024.
pub const STREAMS_MAX: usize = 768;
/// Submissions of one `SubmitMany` between arrival and answer; reading pauses
/// above it.
pub const SUBMISSIONS_IN_FLIGHT: usize = 1024;

/// Jobs of one `ListJobs` reply; asked 0, this is what comes.
pub const JOBS_PER_PAGE: usize = 100;
/// Jobs of one `ListJobs` reply at most.
pub const JOBS_PER_PAGE_MAX: usize = 1000;
/// Rows one `ListJobs` looks at; then it answers with what it found and a
/// cursor to go on.
pub const JOBS_EXAMINED_MAX: usize = 20_000;
/// Tasks of one `ListTasks` reply; asked 0, `TASKS_PER_PAGE`.
pub const TASKS_PER_PAGE: usize = 100;
/// Likewise at most.
pub const TASKS_PER_PAGE_MAX: usize = 1000;
/// Jobs whose runtimes one answer about the start of a request looks up.
pub const ETA_JOBS_READ_MAX: usize = 256;
/// Details of one `Why` reply.
pub const WHY_DETAILS_MAX: usize = 50;
/// How often it is noted what jobs wait for, in milliseconds.
pub const NOTES_LOOK_MS: u64 = 5_000;
/// While the constraint stays the same its words are noted anew after so long.
pub const NOTES_SAME_MS: u64 = 60_000;
/// Of each tenant's queue so many steps are looked at.
pub const NOTES_PER_TENANT_MAX: usize = 20;
/// Notes of one job.
pub const NOTES_PER_JOB_MAX: usize = 64;
/// Jobs of which there are notes.
pub const NOTED_JOBS_MAX: usize = 4_096;
/// Rows read at once.
pub const ROWS_PER_READ: usize = 500;
/// Event rows read at once.
pub const EVENT_ROWS_PER_READ: usize = 64;
/// Bytes of events of one reply, about: a row more at most, which is less than gRPC's
/// customary 4 MiB. Few, so that the turn of each who reads a long history is short.
pub const EVENT_BYTES_PER_REPLY: usize = 64 << 10;
/// Bytes of log data of one reply, about.
pub const LOG_BYTES_PER_REPLY: usize = 256 << 10;
/// So often the outputs of a job are read that is tried again meanwhile.
pub const OUTPUTS_READS_MAX: usize = 3;
/// Artifacts of one `Outputs` reply; more is refused.
pub const ARTIFACTS_MAX: usize = 200_000;
/// Bytes of one `Outputs` reply, and the most any of our replies has: clients
/// that want it set this as their own limit.
pub const REPLY_BYTES_MAX: usize = 64 << 20;

/// Events of one page over REST; asked nothing, this is what comes.
pub const EVENTS_PER_PAGE: usize = 100;
/// Likewise at most.
pub const EVENTS_PER_PAGE_MAX: usize = 1000;
/// Bytes of one message that a subscriber may send: there is nothing to say.
pub const SOCKET_MESSAGE_BYTES_MAX: usize = 4 << 10;
/// Bytes between a subscription and its socket.
pub const SOCKET_WRITE_BYTES_MAX: usize = 1 << 20;
/// How long an answer of `/metrics` is good.
pub const METRICS_MS: u64 = 1_000;
/// How long `/metrics` waits for jobs to be counted for the first time; then it
/// answers without them.
pub const FIRST_COUNT_MS: u64 = 2_000;
/// How long a REST body may take to arrive.
pub const BODY_READ_MS: u64 = 30_000;
/// Bytes of a REST body that is no job.
pub const SMALL_BODY_BYTES_MAX: usize = 64 << 10;
/// A log's first bytes are waited for so long before the answer's head is sent.
pub const FIRST_REPLY_MS: u64 = 250;
/// The largest limit that REST sets: what JSON readers keep exactly.
pub const AMOUNT_MAX: u64 = (1 << 53) - 1;
/// Likewise in cores.
pub const QUOTA_CORES_MAX: u64 = 4_000_000;

/// How often a follower looks by itself, should no word come.
pub const FOLLOW_LOOK_MS: u64 = 1_000;
/// Likewise where the store has no watch left to give.
pub const FOLLOW_POLL_MS: u64 = 200;
/// A job ended but its log is not whole: how long a follower waits for further
/// bytes before it ends with the missing ones counted.
pub const LOG_STALL_MS: u64 = 30_000;
/// The same where the caller does not follow.
pub const LOG_STALL_ONCE_MS: u64 = 5_000;

/// A job ended so long ago, and its log is not whole: more will hardly come.
pub const LOG_LATE_MS: u64 = 3_600_000;

/// Bytes of one message from an agent; from all others 4 MiB, gRPC's custom.
pub const AGENT_FRAME_BYTES_MAX: usize = 64 << 20;
/// Log shipments gathered into one append.
pub const SHIPMENTS_PER_APPEND: usize = 256;
/// Bytes gathered into one append, about.
pub const SHIPMENT_BYTES_PER_APPEND: usize = 4 << 20;
/// Bytes of one agent's log shipments that wait while earlier ones of their tenant are
/// appended: more than agents have under way.
pub const SHIPMENT_BYTES_HELD_MAX: usize = 4 << 20;
/// Likewise shipments.
pub const SHIPMENTS_HELD_MAX: usize = 1024;
/// Appends of one agent between arrival and receipt.
pub const APPENDS_IN_FLIGHT: usize = 4;
/// Needs of one `SignTransfers`.
pub const TRANSFER_NEEDS_MAX: usize = 10_000;
/// How long an agent has to send its Hello.
pub const HELLO_DEADLINE_MS: u64 = 10_000;

/// How long what clients moved waits to be booked: so much at most is lost with
/// the process.
pub const BOOKING_MS: u64 = 1_000;
/// Bytes gathered before an upload goes to the disk, and read at once.
pub const OBJECT_BLOCK_BYTES: usize = 1 << 20;
/// Bytes of a download that are counted and given to the network at once.
pub const OBJECT_PIECE_BYTES: usize = 64 << 10;
/// Uploads at once; a further one is told to come again (503).
pub const UPLOADS_MAX: usize = 512;
/// Uploads that broke off and wait to be gone on with; past any of these limits the
/// oldest is let go, of that tenant or of all.
pub const PARTS_MAX: usize = 1024;
/// Likewise of one tenant.
pub const PARTS_PER_TENANT: usize = 64;
/// Bytes of them.
pub const PART_BYTES_MAX: u64 = 1 << 40;
/// Likewise of one tenant.
pub const PART_BYTES_PER_TENANT: u64 = 256 << 30;
/// How long one waits, counted from the last start of the server if need be.
pub const PART_AGE_MS: u64 = 24 * 3_600_000;
/// Between two looks for those that waited so long.
pub const PART_SWEEP_MS: u64 = 600_000;
/// An upload under way is made durable each time it has grown by so much: what a server
/// that is killed loses of it at most.
pub const PART_SYNC_BYTES: u64 = 64 << 20;
/// An upload that brings nothing for so long gives way to another request that would go
/// on with it; less than [`world::limits::STALL`].
pub const UPLOAD_SILENT_MS: u64 = 5_000;
/// How long whoever asks waits until it is known what has arrived; longer than that, and
/// less than clients wait for an answer.
pub const PART_SETTLE_MS: u64 = 10_000;
/// How long the last request of an upload waits until all is verified and named; past it
/// the answer is that it is not yet. Less than clients wait.
pub const NAMING_MS: u64 = 60_000;
/// Likewise a request that only asks, since it may have waited [`PART_SETTLE_MS`] before.
pub const NAMING_ASKED_MS: u64 = 5_000;
/// An upload that an earlier process began is hashed by so much at once, while more comes.
pub const BEHIND_BYTES: u64 = 8 << 20;
/// Uploads that broke off are put away by so many at once.
pub const PUT_AWAY_AT_ONCE: usize = 8;
/// Between two looks.
pub const PART_LOOK_MS: u64 = 100;
/// Downloads at once; likewise.
pub const DOWNLOADS_MAX: usize = 1024;
/// Bytes of one object.
pub const OBJECT_BYTES_MAX: u64 = proto::limits::INPUT_BYTES_MAX;
/// Directories remembered as durable.
pub const DIRECTORIES_REMEMBERED: usize = 65_536;

/// Bytes read of `client.env`.
pub const CLIENT_ENV_BYTES_MAX: u64 = 64 << 10;
/// How long the parts of a server have to end after the grace.
pub const STOP_DEADLINE_MS: u64 = 20_000;

/// Of so many looks for alerts one is at what costs more to ask: pools, queues and budgets.
pub const ALERTS_SELDOM: u64 = 5;
/// Tenants of which it is found out why the first of their queue cannot start.
pub const STARVED_EXPLAINED_MAX: usize = 16;
/// Notices that wait for the webhook; the oldest gives way to a further one.
pub const WEBHOOK_QUEUE: usize = 256;
/// Tries of one notice.
pub const WEBHOOK_TRIES: u32 = 8;
/// After the first; doubles.
pub const WEBHOOK_BACKOFF_MS: u64 = 1_000;
/// See [`WEBHOOK_BACKOFF_MS`].
pub const WEBHOOK_BACKOFF_MS_MAX: u64 = 60_000;
/// Whoever waits for a notice looks this often whether the server is gone.
pub const WEBHOOK_IDLE_MS: u64 = 5_000;

/// Between two looks at pools that grow by need.
pub const SCALE_LOOK_MS: u64 = 1_000;
