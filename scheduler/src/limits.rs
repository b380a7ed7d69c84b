//! What the scheduler takes and does at most.

/// Operations (guards and writes) of one proposal: the store's own limit.
pub const PROPOSAL_OPERATIONS_MAX: usize = store::limits::COMMIT_OPERATIONS_MAX;
/// Nodes of one gang: each costs a guard and a write, and the whole grant is
/// one commit (tenant row and grant row: two operations each).
pub const GANG_NODES_MAX: usize = (PROPOSAL_OPERATIONS_MAX - 4) / 2;
/// Proposals of one pass; what is left goes into the next one.
pub const PASS_PROPOSALS_MAX: usize = 64;
/// Blocked demands remembered for those behind them in the pass.
pub const PASS_BLOCKED_MAX: usize = 64;
/// Tenants whose standing is looked at to tell how much another may have in its turn.
pub const TURN_LEVEL_TENANTS_MAX: usize = 32;
/// Grants of one pass.
pub const PASS_GRANTS_MAX: usize = 512;
/// Nodes looked at in one pass before it yields to new events.
pub const PASS_NODES_EXAMINED_MAX: u64 = 50_000;
/// Queue heads looked at in one pass before it yields to new events.
pub const PASS_HEADS_EXAMINED_MAX: u64 = 200_000;
/// Proposals whose outcome is not known yet; no pass runs above it.
pub const PROPOSALS_IN_FLIGHT_MAX: usize = 256;
/// Memory of one node: one that says it has more counts as having this, and a
/// grant's part of it as well, so that the sum over all nodes is one.
pub const NODE_MEMORY_BYTES_MAX: u64 = 256 << 40;
/// Slots of one grant on one node.
pub const GRANT_SLOTS_MAX: u64 = 65_536;
/// Demands whose start is planned at a time.
pub const PLANS_MAX: usize = 16;
/// Searches of a whole pool for the nodes of a plan, in one pass.
pub const PLAN_SCANS_MAX: usize = 4;
/// Instants tried for one plan.
pub const PLAN_ROUNDS_MAX: usize = 16;
/// Nodes remembered as freed, for demands that did not fit before; a demand
/// that fell further behind looks at the whole pool again.
pub const FREED_LOG_MAX: usize = 4096;
/// Queue places counted when somebody asks how many are ahead.
pub const EXPLAIN_AHEAD_MAX: usize = 10_000;
/// Demands of a pool's queue looked at when somebody asks when a request would start.
pub const ETA_QUEUE_MAX: usize = 1_000;
/// Shapes of demands likewise.
pub const ETA_SHAPES_MAX: usize = 64;
/// Nodes looked at likewise, again for each demand and instant; all pools share it.
pub const ETA_NODES_EXAMINED_MAX: u64 = 500_000;
/// Jobs named in the answer.
pub const ETA_NAMES_MAX: usize = 8;
/// Updates taken from the demand channel before a pass.
pub const EVENTS_PER_PASS_MAX: usize = 1024;
/// Nodes, demands and grants that each pass pays for in checks, where cores are
/// checked.
pub const CHECKED_PER_PASS: usize = 64;
/// Updates that a server told and the core has not taken yet.
pub const LINK_QUEUE: usize = 256;
/// A commit not answered by then counts as indeterminate.
pub const COMMIT_DEADLINE_MS: u64 = 10_000;
/// A read of the store's rows not answered by then is tried again.
pub const READ_DEADLINE_MS: u64 = 30_000;
/// Waiting between two tries to read.
pub const RETRY_PAUSE_MS: u64 = 100;
/// A server that does not answer a scheduler elsewhere by then is out of reach.
pub const LINK_DEADLINE_MS: u64 = 5_000;
/// A server with nothing to tell of demand says so this often; silent for three
/// times as long it is gone.
pub const FOLLOW_BEAT_MS: u64 = 5_000;
/// Between two tries to follow a server, at least; at most twice as long.
pub const FOLLOW_PAUSE_MS: u64 = 1_000;
/// Shapes that name no pool and fit nowhere of which it is found out which pools could hold
/// Demands that are looked at to find how many further nodes would be of use.
pub const GROWTH_DEMANDS_MAX: usize = 20_000;
/// them: each costs a look at every node.
pub const SIGN_SHAPES_MAX: usize = 16;
/// Demands of one pass for which it is looked what could give way.
pub const PREEMPT_ASKS_PER_PASS_MAX: usize = 2;
/// Before it is looked again for one of them.
pub const PREEMPT_AGAIN_MS: u64 = 1_000;
/// Tasks and gangs looked at for one demand.
pub const PREEMPT_UNITS_MAX: usize = 8_192;
/// Slots of an array for which one ask makes room.
pub const PREEMPT_SLOTS_MAX: u64 = 16;
/// Grants that are asked together: two operations each, and two for the tenant.
pub const PREEMPT_GRANTS_MAX: usize = (PROPOSAL_OPERATIONS_MAX - 2) / 2;
/// How long what was made free is kept for whom it was freed.
pub const PROMISE_MS: u64 = 10_000;
