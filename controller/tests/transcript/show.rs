//! Transactions as one reads them.

use controller::{DemandChange, Effect, Reply, Txn};
use prost::Message;
use proto::keys::{self, Parsed};
use proto::spans::Spans;
use proto::v1::{
    BlockRow, Cause, Demand, EventBatchRow, IdempotencyRow, JobStateRow, LedgerRow, ManifestRow, NodeRow,
    ServerFrame, Span, server_frame,
};

pub fn txn(txn: &Txn) -> Vec<String> {
    let mut lines = Vec::new();
    for (key, value) in &txn.writes {
        lines.extend(row(&keys::parse(key).unwrap(), value.as_ref().map(AsRef::as_ref)));
    }
    for key in &txn.absent {
        lines.push(format!("only if there is no {}", String::from_utf8_lossy(key)));
    }
    for done in &txn.effects {
        lines.extend(effect(done));
    }
    lines.extend(news(&txn.demand));
    lines
}

fn row(key: &Parsed, value: Option<&[u8]>) -> Vec<String> {
    let Some(bytes) = value else {
        return vec![match key {
            Parsed::Grant { tenant, epoch } => format!("grant {tenant} e{epoch} given back"),
            other => format!("deleted {other:?}"),
        }];
    };
    let line = match key {
        Parsed::Job { tenant, number } => format!("job {tenant}-{number}"),
        Parsed::State { tenant, number } => state(tenant, *number, &JobStateRow::decode(bytes).unwrap()),
        Parsed::Block { tenant, number, step, block } => {
            format!("block {tenant}-{number}/{step}.{block}{}", block_row(&BlockRow::decode(bytes).unwrap()))
        }
        Parsed::Event { .. } => {
            return EventBatchRow::decode(bytes).unwrap().events.iter().map(event).collect();
        }
        Parsed::Ledger { tenant } => {
            let row = LedgerRow::decode(bytes).unwrap();
            let traffic = match (row.ingress_bytes, row.egress_bytes) {
                (0, 0) => String::new(),
                (came, went) => format!(" in={came} out={went}"),
            };
            format!(
                "ledger {tenant} reserved={} settled={} queued={} jobs={}{traffic}",
                row.reserved_micros, row.settled_micros, row.queued_tasks, row.live_jobs
            )
        }
        Parsed::Idem { tenant, key } => {
            format!("key {tenant}/{key} is {tenant}-{}", IdempotencyRow::decode(bytes).unwrap().job_number)
        }
        Parsed::Manifest { tenant, number, step, task, rank } => {
            let row = ManifestRow::decode(bytes).unwrap();
            let paths: Vec<&str> = row.artifacts.iter().map(|artifact| artifact.path.as_str()).collect();
            let generation = match row.generation() {
                0 => String::new(),
                generation => format!(" g{generation}"),
            };
            format!(
                "manifest {tenant}-{number}/{step} task {task}.{rank} a{} e{}{generation}: {}",
                row.attempt,
                row.epoch,
                paths.join(" ")
            )
        }
        Parsed::Node { node } => {
            let row = NodeRow::decode(bytes).unwrap();
            let drained =
                if row.drained { format!(" drained ({})", row.drain_reason) } else { String::new() };
            let state = row.state().as_str_name().trim_start_matches("NODE_STATE_");
            format!("node {node} {state} session={}{drained}", row.session)
        }
        other => format!("{other:?}"),
    };
    vec![line]
}

fn state(tenant: &str, number: u64, row: &JobStateRow) -> String {
    let steps: Vec<String> = row
        .steps
        .iter()
        .map(|step| {
            let counts = [
                ("pending", step.pending),
                ("active", step.active),
                ("done", step.completed),
                ("failed", step.failed),
                ("cancelled", step.cancelled),
            ];
            let counts: Vec<String> = counts
                .iter()
                .filter(|(_, count)| *count > 0)
                .map(|(name, count)| format!("{name} {count}"))
                .collect();
            let code = if step.exit_code == 0 { String::new() } else { format!(" code {}", step.exit_code) };
            format!("[{} {}{code}]", short(step.state().as_str_name()), counts.join(", "))
        })
        .collect();
    let mut line =
        format!("state {tenant}-{number} {} {}", short(row.state().as_str_name()), steps.join(" "));
    if row.cancel_requested {
        line += " cancel requested";
    }
    if row.generation > 0 {
        line += &format!(" generation {}", row.generation);
    }
    if row.ended_ms > 0 {
        line += &format!(" exit code {} ({})", row.exit_code, cause(row.cause.as_ref()));
    }
    line
}

fn block_row(row: &BlockRow) -> String {
    let mut line = String::new();
    for (name, spans) in [("done", &row.completed), ("failed", &row.failed), ("cancelled", &row.cancelled)] {
        if !spans.is_empty() {
            line += &format!(" {name} {}", spans_text(spans));
        }
    }
    for run in &row.active {
        line += &format!(
            " {} {} a{} e{}",
            short(run.state().as_str_name()),
            spans_text(&[run.tasks.unwrap()]),
            run.attempt,
            run.epoch
        );
    }
    for end in &row.ranks {
        line += &format!(" rank {}: {}", end.rank, cause(end.cause.as_ref()));
    }
    for note in &row.notes {
        line += &format!(
            " note {}: {} attempts, {} own, {} platform, avoid [{}]",
            note.task,
            note.attempts,
            note.own_failures,
            note.platform_failures,
            note.avoid.join(" ")
        );
    }
    line
}

fn event(event: &proto::v1::Event) -> String {
    let mut line = format!("event {} job {}", event.seq, event.job_number);
    if let Some(step) = event.step {
        line += &format!("/{step}");
    }
    if !event.tasks.is_empty() {
        line += &format!(" tasks {}", spans_text(&event.tasks));
    }
    line += &format!(" {} -> {}", short(event.from().as_str_name()), short(event.to().as_str_name()));
    line += &format!(" ({})", cause(event.cause.as_ref()));
    if event.epoch > 0 {
        line += &format!(" a{} e{} on {}", event.attempt, event.epoch, event.node);
    }
    line
}

fn cause(cause: Option<&Cause>) -> String {
    let Some(cause) = cause else { return "no cause".to_owned() };
    let kind = cause.kind().as_str_name().trim_start_matches("CAUSE_KIND_").to_owned();
    if cause.text.is_empty() { kind } else { format!("{kind}: {}", cause.text) }
}

fn effect(effect: &Effect) -> Vec<String> {
    match effect {
        Effect::Reply { reply, .. } => vec![format!("reply {}", reply_text(reply))],
        Effect::Send { node, session, frame } => vec![format!("to {node}#{session}: {}", frame_text(frame))],
        Effect::Release { digests, .. } => vec![format!("release {}", digests.join(" "))],
        Effect::Log { text, .. } => vec![format!("log {text}")],
    }
}

fn news(news: &DemandChange) -> Vec<String> {
    let gone =
        news.gone.iter().map(|key| format!("wants nothing: {}-{}/{}", key.tenant, key.job_number, key.step));
    news.changed.iter().map(demand).chain(gone).collect()
}

fn demand(demand: &Demand) -> String {
    let key = demand.key.as_ref().unwrap();
    let mut line = format!("wants {}-{}/{}: {} slots", key.tenant, key.job_number, key.step, demand.slots);
    if demand.gang_nodes > 0 {
        line += &format!(" as {}x{}", demand.gang_nodes, demand.gang_tasks_per_node);
    }
    if demand.not_before_ms > 0 {
        line += " later";
    }
    if !demand.avoid.is_empty() {
        line += &format!(" not on {}", demand.avoid.join(" "));
    }
    line
}

fn reply_text(reply: &Reply) -> String {
    match reply {
        Reply::Submitted(reply) => format!(
            "{} {}-{} tasks={} price={}",
            if reply.existing { "existing" } else { "submitted" },
            reply.tenant,
            reply.number,
            reply.tasks,
            reply.price_micros
        ),
        Reply::Cancelled(state) => format!("cancelled, is {}", short(state.as_str_name())),
        Reply::Retried(tasks) => format!("retried {tasks}"),
        Reply::Registered(reply) => format!("registered, session {}", reply.session),
        Reply::Expired(more) => format!("expired, more: {more}"),
        Reply::Done => "done".to_owned(),
        Reply::Refused(problem) => format!("refused {}: {problem}", problem.code),
    }
}

fn frame_text(frame: &ServerFrame) -> String {
    match frame.frame.as_ref().unwrap() {
        server_frame::Frame::Lease(lease) => format!("lease {}", lease.sequence),
        server_frame::Frame::Assign(assign) => {
            let tasks: Vec<String> = assign
                .tasks
                .iter()
                .map(|task| format!("{}[{}]a{}", task.task, task.index, task.attempt))
                .collect();
            let mut line = format!(
                "assign {}/{} e{} slots={} tasks {}",
                assign.job_id,
                assign.step_index,
                assign.epoch,
                assign.slots,
                tasks.join(" ")
            );
            if let Some(gang) = &assign.gang {
                line += &format!(
                    " ranks {}..{} of {} master {}:{}",
                    gang.first_rank,
                    gang.first_rank + gang.local_ranks,
                    gang.world_size,
                    gang.master_address,
                    gang.master_port
                );
            }
            for upstream in &assign.upstreams {
                let tasks: Vec<String> = upstream
                    .tasks
                    .iter()
                    .map(|task| format!("{}:{}", task.index, task.artifacts.len()))
                    .collect();
                line += &format!(" from {} [{}]", upstream.step, tasks.join(" "));
            }
            line
        }
        server_frame::Frame::Stop(stop) => {
            let attempts: Vec<String> = stop
                .attempts
                .iter()
                .map(|at| {
                    format!(
                        "{}-{}/{} {}a{}e{}",
                        at.tenant, at.job_number, at.step, at.task, at.attempt, at.epoch
                    )
                })
                .collect();
            format!("stop {} ({})", attempts.join(", "), cause(stop.cause.as_ref()))
        }
        server_frame::Frame::ReportsAck(ack) => format!("ack {}", ack.sequence),
        server_frame::Frame::Reconcile(reconcile) => {
            let keep: Vec<String> = reconcile
                .keep
                .iter()
                .map(|at| {
                    format!(
                        "{}-{}/{} {}a{}e{}",
                        at.tenant, at.job_number, at.step, at.task, at.attempt, at.epoch
                    )
                })
                .collect();
            format!("keep [{}]", keep.join(", "))
        }
        server_frame::Frame::Goodbye(_) => "goodbye".to_owned(),
    }
}

fn spans_text(spans: &[Span]) -> String {
    let parts: Vec<String> = Spans::from_proto(spans)
        .ranges()
        .map(|(first, last)| if first == last { first.to_string() } else { format!("{first}-{last}") })
        .collect();
    parts.join(",")
}

fn short(name: &str) -> &str {
    name.trim_start_matches("STATE_")
}
