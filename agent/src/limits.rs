//! Every limit of the agent, in one place. What happens at each is said where
//! it is used.

/// Attempts (of ranks) held at once; more are answered with `Refused`.
pub const ATTEMPTS_HELD_MAX: usize = 32_768;
/// Reports of one frame.
pub const REPORTS_PER_FRAME_MAX: usize = 256;
/// Encoded bytes of the reports of one frame, about.
pub const REPORT_FRAME_BYTES_MAX: usize = 1 << 20;
/// How long a report may wait for others to share its frame.
pub const REPORT_WAIT_MS_MAX: u64 = 2;
/// Frames of reports sent and not yet acknowledged; further reports wait.
pub const REPORT_FRAMES_UNACKED_MAX: usize = 64;
/// Heartbeats whose answer is still looked for.
pub const HEARTBEATS_PENDING_MAX: usize = 16;
/// Tasks without inputs that are made ready beyond the slots of their grant.
pub const STAGE_AHEAD_LIGHT: usize = 64;
/// Likewise with inputs: these cost disk.
pub const STAGE_AHEAD_HEAVY: usize = 4;
/// Ended processes of one grant, beyond its slots, whose outputs may still be
/// on their way before no further task is launched.
pub const COLLECTING_AHEAD: usize = 64;
/// A KILL that was not heard is said again.
pub const KILL_REPEAT_MS: u64 = 1_000;

/// Events waiting for the loop; senders wait.
pub const INBOX_EVENTS_MAX: usize = 1_024;
/// Events handled in one turn of the loop, so that their effects share frames
/// and commands.
pub const EVENTS_PER_TURN_MAX: usize = 512;
/// Batches waiting for a worker of the loop; more are kept back in the loop and
/// bounded by the attempts held.
pub const WORKER_QUEUE: usize = 256;
/// Frames waiting to be sent to the server; at the limit the session is given up.
pub const FRAMES_WAITING_MAX: usize = 1_024;
/// Largest message taken from the server.
pub const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// Attempts with inputs staged at once.
pub const STAGINGS_AT_ONCE: usize = 8;
/// Downloads at once.
pub const FETCHES_AT_ONCE: usize = 4;
/// Attempts whose outputs are collected at once.
pub const COLLECTIONS_AT_ONCE: usize = 8;
/// Attempts of which a checkpoint is taken at once.
pub const LOOKS_AT_ONCE: usize = 4;
/// Between two looks at how far tasks have come.
pub const PROGRESS_EVERY_MS: u64 = 2_000;
/// Bytes at the end of the file of a task's progress that are read.
pub const PROGRESS_TAIL_BYTES: u64 = 4 << 10;
/// Between two looks at how inputs come.
pub const STAGING_TOLD_EVERY_MS: u64 = 2_000;
/// How often the inputs of one attempt are laid where other tasks change them
/// meanwhile; after that the staging fails.
pub const LAYINGS_MAX: u32 = 3;
/// How often the bytes of a cached file are looked at where its stamp moves meanwhile.
pub const LOOKINGS_MAX: u32 = 3;
/// Tries of one transfer.
pub const TRANSFER_TRIES: u32 = 5;
/// Pause after the first failed try; doubled after each.
pub const TRANSFER_PAUSE_MS: u64 = 500;
/// Deadline of one transfer: a base and so many milliseconds per MiB.
pub const TRANSFER_BASE_MS: u64 = 60_000;
/// See [`TRANSFER_BASE_MS`].
pub const TRANSFER_MS_PER_MIB: u64 = 2_000;
/// Failures of a source in a row after which it is left alone for a while.
pub const BREAKER_FAILURES: u32 = 5;
/// That while: half of it and by chance as much again; doubled from one to the next.
pub const BREAKER_PAUSE_MS: u64 = 2_000;
/// The longest, before chance.
pub const BREAKER_PAUSE_MS_MAX: u64 = 15_000;
/// The longest that a source may ask for.
pub const BREAKER_RETRY_AFTER_MS_MAX: u64 = 600_000;
/// How long one transfer waits for a source that is left alone before it fails.
pub const BREAKER_WAIT_MS_MAX: u64 = 45_000;
/// Sources that failed and are remembered.
pub const SOURCES_MAX: usize = 256;
/// Transfers of a node that share its line at once, at the most: the deadline of each
/// allows for them.
pub const TRANSFERS_ON_THE_LINE: u64 = 64;
/// Deadline of SignTransfers and of waiting for a session to ask on.
pub const SIGN_MS_MAX: u64 = 60_000;
/// Needs signed in one call.
pub const SIGN_NEEDS_MAX: usize = 512;
/// Output files of one attempt; more fail it.
pub const OUTPUT_FILES_MAX: usize = 2_048;
/// Bytes of the list of an attempt's outputs (paths and digests); more fail it.
pub const OUTPUT_LIST_BYTES_MAX: usize = 256 << 10;
/// Names looked at while matching one attempt's outputs; more fail it.
pub const OUTPUT_NAMES_MAX: usize = 200_000;
/// Directories entered below a work directory while matching outputs.
pub const OUTPUT_DEPTH_MAX: usize = 32;
/// Bytes read at once while digesting or copying.
pub const COPY_BYTES: usize = 1 << 20;

/// Removals done in one blocking hop.
pub const REMOVALS_PER_HOP: usize = 256;
/// How long removals gather.
pub const REMOVAL_WAIT_MS: u64 = 20;

/// Empty work directories kept for the next tasks of their job.
pub const SHELF_DIRECTORIES_MAX: usize = 256;
/// Pairs of empty spool files kept.
pub const SHELF_SPOOLS_MAX: usize = 256;
/// So many of them share one sync of their new names before they serve again.
pub const SHELF_SPOOLS_PER_SYNC: usize = 64;
/// Without chores for so long, what is kept is removed.
pub const SHELF_IDLE_MS: u64 = 2_000;

/// Data of one log shipment.
pub const LOG_CHUNK_BYTES_MAX: u64 = 64 << 10;
/// Log bytes sent and not yet acknowledged, of all streams together.
pub const LOG_UNACKED_BYTES_MAX: u64 = 1 << 20;
/// Shipments sent and not yet answered.
pub const LOG_SHIPMENTS_UNACKED_MAX: usize = 256;
/// Bytes after which a tenant's turn to send is over.
pub const LOG_TURN_BYTES: u64 = LOG_CHUNK_BYTES_MAX;
/// Likewise in shipments.
pub const LOG_TURN_SHIPMENTS: usize = 16;
/// Shipments read from disk in one blocking hop.
pub const LOG_CHUNKS_PER_HOP: usize = 16;
/// Where logs do not grow they are looked at so much more seldom in the end.
pub const LOG_POLL_SLOWER_MAX: u64 = 2;
/// Spool files looked at per millisecond of that span: with more of them the
/// span grows.
pub const LOG_POLL_FILES_PER_MS: u64 = 20;
/// Without a receipt for so long a stream is sent again from its last receipt.
pub const LOG_RECEIPT_MS_MAX: u64 = 10_000;
/// What goes of a spool file begins and ends at multiples of so many bytes: no file
/// system has larger blocks.
pub const SPOOL_CUT_BYTES: u64 = 64 << 10;
/// How often a spool over its bound is warned of.
pub const SPOOL_WARN_EVERY_MS: u64 = 60_000;
/// Where logs are given up the spool comes below its bound by one part in so many.
pub const SPOOL_SLACK: u64 = 8;

/// Deadline of connecting and of each call on a connection.
pub const CALL_MS_MAX: u64 = 10_000;
/// Deadline of connecting to one of several servers.
pub const CONNECT_MS_OF_SEVERAL: u64 = 2_000;
/// Reconnecting: first pause, doubled up to the last, plus up to as much jitter.
pub const RECONNECT_MS_MIN: u64 = 100;
/// See [`RECONNECT_MS_MIN`].
pub const RECONNECT_MS_MAX: u64 = 5_000;
/// Deadline of one conversation with the supervisor.
pub const SUPERVISOR_MS_MAX: u64 = 10_000;
/// Pause before a supervisor out of reach is tried again.
pub const SUPERVISOR_PAUSE_MS: u64 = 200;
/// Longest sleep of the loop while attempts are held: the machine may have been
/// asleep, which its timers do not count.
pub const LOOP_SLEEP_MS_MAX: u64 = 1_000;
/// How long a stop waits for the loop to wind up.
pub const STOP_MS_MAX: u64 = 5_000;
