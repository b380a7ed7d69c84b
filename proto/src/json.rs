//! Messages as JSON, the same from REST and from `drumline … -o json`: ids as
//! text, states in capitals, times in milliseconds since 1970, `null` for what is
//! not there.

use crate::{
    after, array, estimate, fairness, units,
    v1::{
        AlertView, Cause, Event, JobProgress, JobSpec, JobStateRow, JobSummary, JobView, LicenseView,
        NodeView, OutputsReply, PoolView, Quota, Reservation, Resources, SubmitReply, TaskView, TenantView,
        WhenFull, WhyReply,
    },
    words,
};
use serde_json::{Map, Value, json};

fn time(at_ms: u64) -> Value {
    if at_ms == 0 { Value::Null } else { json!(at_ms) }
}

fn text(text: &str) -> Value {
    if text.is_empty() { Value::Null } else { json!(text) }
}

/// Seconds from thousandths.
#[expect(clippy::cast_precision_loss, reason = "exact to 2^53 milliseconds")]
#[must_use]
pub fn seconds(ms: u64) -> Value {
    json!(ms as f64 / 1000.0)
}

fn cause(cause: Option<&Cause>) -> Value {
    let Some(cause) = cause.filter(|cause| cause.kind != 0) else { return Value::Null };
    json!({
        "kind": cause.kind().as_str_name().trim_start_matches("CAUSE_KIND_"),
        "text": words::cause(Some(cause)),
        "exit_code": cause.exit_code,
        "signal": cause.signal,
        "node": text(&cause.node),
    })
}

fn resources(resources: Option<&Resources>) -> Value {
    let resources = resources.copied().unwrap_or_default();
    json!({
        "cores": f64::from(resources.millicores) / 1000.0,
        "memory_bytes": resources.memory_bytes,
        "gpus": resources.gpus,
    })
}

/// What `submit` answers.
#[must_use]
pub fn submitted(reply: &SubmitReply, dry_run: bool) -> Value {
    if dry_run {
        return json!({
            "id": null,
            "dry_run": true,
            "tasks": reply.tasks,
            "price": words::money(reply.price_micros),
            "waiting_for": text(&reply.waiting_for),
        });
    }
    let mut value = json!({ "id": words::job_id(&reply.tenant, reply.number) });
    if reply.existing {
        value["existing"] = json!(true);
    }
    if !reply.waiting_for.is_empty() {
        value["waiting_for"] = json!(reply.waiting_for);
    }
    value
}

/// One line of `ls`.
#[must_use]
pub fn job_summary(job: &JobSummary) -> Value {
    let state = job.state.clone().unwrap_or_default();
    let metered = job.metered.unwrap_or_default();
    json!({
        "id": words::job_id(&job.tenant, job.number),
        "name": job.name,
        "state": words::state(state.state()),
        "priority": job.priority,
        "labels": job.labels,
        "tasks": job.tasks,
        "progress": job_progress(job.progress.as_ref()),
        "completed": state.steps.iter().map(|step| step.completed).sum::<u64>(),
        "failed": state.steps.iter().map(|step| step.failed).sum::<u64>(),
        "busy_ms": metered.busy_ms,
        "core_seconds": seconds(metered.core_ms),
        "gpu_seconds": seconds(metered.gpu_ms),
        "cost": words::money(state.settled_micros.saturating_add(job.running_micros)),
        "running_cost": words::money(job.running_micros),
        "submitted_by": text(&job.submitted_by),
        "submitted_ms": time(job.submitted_ms),
        "started_ms": time(state.started_ms),
        "ended_ms": time(state.ended_ms),
        "expired_ms": time(state.expired_ms),
        "exit_code": exit_code(&state),
        "cause": cause(state.cause.as_ref()),
    })
}

fn job_progress(progress: Option<&JobProgress>) -> Value {
    progress.map_or(Value::Null, |told| json!({ "percent": told.percent, "told": told.told }))
}

fn exit_code(state: &JobStateRow) -> Value {
    if words::is_ended(state.state()) { json!(state.exit_code) } else { Value::Null }
}

/// A job with its steps.
#[must_use]
pub fn job_view(view: &JobView) -> Value {
    let job = view.job.clone().unwrap_or_default();
    let spec = job.spec.unwrap_or_default();
    let state = view.state.clone().unwrap_or_default();
    json!({
        "id": words::job_id(&job.tenant, job.number),
        "name": spec.name,
        "state": words::state(state.state()),
        "progress": job_progress(view.progress.as_ref()),
        "priority": spec.priority,
        "labels": spec.labels,
        "submitted_ms": time(job.submitted_ms),
        "begin_ms": time(spec.begin_ms),
        "submitted_by": text(&job.submitted_by),
        "idempotency_key": text(&job.idempotency_key),
        "started_ms": time(state.started_ms),
        "ended_ms": time(state.ended_ms),
        "keep": if spec.keep_ms == 0 { Value::Null } else { json!(units::format_duration_ms(spec.keep_ms)) },
        "expired_ms": time(state.expired_ms),
        "exit_code": exit_code(&state),
        "cause": cause(state.cause.as_ref()),
        "cancel_requested": state.cancel_requested,
        "after": spec.after.iter().map(|on| after::format(on, &job.tenant)).collect::<Vec<_>>(),
        "reserved": words::money(state.reserved_micros),
        "settled": words::money(state.settled_micros),
        "inputs": spec.inputs.iter().map(|input| json!({
            "name": input.name,
            "url": text(&input.url),
            "digest": text(&input.digest),
            "size_bytes": input.size_bytes,
            "tree": input.tree(),
        })).collect::<Vec<_>>(),
        "steps": steps(&spec, &state, view.progress.as_ref()),
    })
}

fn steps(spec: &JobSpec, state: &JobStateRow, progress: Option<&JobProgress>) -> Vec<Value> {
    let steps = spec.steps.iter().enumerate().map(|(at, step)| {
        let now = state.steps.get(at).cloned().unwrap_or_default();
        let told = progress.and_then(|told| told.steps.get(at));
        let mut value = json!({
            "name": step.name,
            "state": words::state(now.state()),
            "after": step.after,
            "tasks": estimate::step_tasks(step),
            "percent": told.and_then(|told| told.percent),
            "stragglers": told.map_or(0, |told| told.stragglers),
            "slowest": told.map_or(&[][..], |told| &told.slowest).iter().map(|slow| json!({
                "index": slow.index, "attempt": slow.attempt, "text": slow.text,
            })).collect::<Vec<_>>(),
            "pending": now.pending,
            "active": now.active,
            "completed": now.completed,
            "failed": now.failed,
            "cancelled": now.cancelled,
            "retries_spent": now.retries_spent,
            "preempted": now.gave_way.as_ref().map(|gave| json!({
                "times": gave.times, "at_ms": gave.at_ms,
                "to": if gave.tenant.is_empty() { Value::Null } else { json!(words::job_id(&gave.tenant, gave.job_number)) },
            })),
            "started_ms": time(now.started_ms),
            "ended_ms": time(now.ended_ms),
            "exit_code": now.exit_code,
            "cause": cause(now.cause.as_ref()),
            "array": step.array.as_ref().map(array::format),
            "nodes": step.nodes,
            "tasks_per_node": step.tasks_per_node,
            "per_task": resources(step.per_task.as_ref()),
            "exclusive": step.exclusive,
            "licenses": step.licenses,
            "outputs": step.outputs,
            "retries": step.retries,
            "timeout": if step.timeout_ms == 0 { Value::Null } else { json!(units::format_duration_ms(step.timeout_ms)) },
            "pool": text(&step.pool),
            "env": step.env,
        });
        if step.argv.is_empty() {
            value["run"] = json!(step.run);
        } else {
            value["argv"] = json!(step.argv);
        }
        value
    });
    steps.collect()
}

/// One task of a step.
#[must_use]
pub fn task(task: &TaskView) -> Value {
    json!({
        "index": task.index,
        "state": words::state(task.state()),
        "attempts": task.attempts,
        "node": text(&task.node),
        "last": cause(task.last.as_ref()),
        "not_before_ms": time(task.not_before_ms),
        "checkpoint": task.checkpoint.as_ref().map(|kept| {
            json!({ "label": kept.label, "at_ms": kept.at_ms, "size_bytes": kept.size_bytes })
        }),
        "progress": task.progress.as_ref().map(|told| {
            json!({ "percent": told.percent, "text": told.text, "at_ms": told.at_ms })
        }),
        "staging": task.staging.as_ref().map(|told| {
            json!({
                "bytes": told.bytes,
                "total_bytes": (told.total_bytes > 0).then_some(told.total_bytes),
                "bytes_per_s": told.bytes_per_s,
                "waits_for": told.waits_for,
                "at_ms": told.at_ms,
            })
        }),
        "straggler": !task.straggler.is_empty(),
        "straggler_text": text(&task.straggler),
    })
}

/// What a job waits for.
#[must_use]
pub fn why(id: &str, reply: &WhyReply) -> Value {
    json!({
        "id": id,
        "code": reply.code,
        "headline": reply.headline,
        "details": reply.details,
        "expected_start_ms": time(reply.expected_start_ms),
    })
}

/// One entry of the history.
#[must_use]
pub fn event(event: &Event, tenant: &str) -> Value {
    json!({
        "seq": event.seq,
        "at_ms": event.at_ms,
        "job": words::job_id(tenant, event.job_number),
        "step": event.step,
        "tasks": event.tasks.iter().map(|span| json!([span.first, span.last])).collect::<Vec<_>>(),
        "from": words::state(event.from()),
        "to": words::state(event.to()),
        "cause": cause(event.cause.as_ref()),
        "attempt": event.attempt,
        "epoch": event.epoch,
        "node": text(&event.node),
    })
}

/// Output files by step, with links.
#[must_use]
pub fn outputs(reply: &OutputsReply) -> Value {
    let mut files = Vec::new();
    for step in &reply.steps {
        for task in &step.tasks {
            for link in &task.artifacts {
                let artifact = link.artifact.clone().unwrap_or_default();
                files.push(json!({
                    "step": step.step,
                    "index": if step.indexed { json!(task.index) } else { Value::Null },
                    "path": artifact.path,
                    "size_bytes": artifact.size_bytes,
                    "digest": artifact.digest,
                    "url": link.url,
                }));
            }
        }
    }
    Value::Array(files)
}

/// One node.
#[must_use]
pub fn node(view: &NodeView) -> Value {
    let row = view.row.clone().unwrap_or_default();
    json!({
        "name": row.name,
        "pool": row.pool,
        "state": words::node_state(row.state(), row.drained),
        "labels": row.labels,
        "capacity": resources(row.capacity.as_ref()),
        "used": resources(view.used.as_ref()),
        "grants": view.grants,
        "address": text(&row.address),
        "version": text(&row.version),
        "last_heard_ms": time(view.last_heard_ms),
        "log_dropped_bytes": view.log_dropped_bytes,
        "drained": row.drained,
        "drain_reason": text(&row.drain_reason),
        "drained_by": words::drainer(row.drainer()),
        "reservations": row.reservations.iter().map(reservation).collect::<Vec<_>>(),
    })
}

/// One reservation, as its nodes have it.
#[must_use]
pub fn reservation(reservation: &Reservation) -> Value {
    json!({
        "name": reservation.name,
        "from_ms": reservation.from_ms,
        "until_ms": reservation.until_ms,
        "tenants": reservation.tenants,
        "reason": text(&reservation.reason),
    })
}

/// One pool.
#[must_use]
pub fn pool(pool: &PoolView) -> Value {
    json!({
        "name": pool.name,
        "nodes": pool.nodes,
        "capacity": resources(pool.capacity.as_ref()),
        "free": resources(pool.free.as_ref()),
        "queued_slots": pool.queued_slots,
        "largest_node": resources(pool.largest_node.as_ref()),
        "eta": pool.eta.as_ref().map(|eta| json!({
            "earliest_start_ms": eta.earliest_start_ms,
            "assumption": eta.assumption,
        })),
        "autoscale": pool.autoscale.as_ref().map(|scale| json!({
            "min": scale.min,
            "max": scale.max,
            "asked": scale.asked,
            "leaving": scale.leaving,
            "capped": text(&scale.capped),
            "failures": scale.failures,
            "failed": text(&scale.failed),
            "cost_per_hour_micros": scale.cost_per_hour_micros,
        })),
        "preemption": pool.preemption.as_ref().map(|rules| json!({
            "grace_ms": rules.grace_ms,
            "priority_above": rules.priority_above,
            "after_waiting_ms": rules.after_waiting_ms,
            "min_run_ms": rules.min_run_ms,
            "times_max": rules.times_max,
        })),
    })
}

/// One license.
#[must_use]
pub fn license(view: &LicenseView) -> Value {
    json!({ "name": view.name, "total": view.total, "used": view.used })
}

/// One alert.
#[must_use]
pub fn alert(view: &AlertView) -> Value {
    json!({
        "code": view.code,
        "severity": words::alert_severity(view.severity()),
        "subject": view.subject,
        "tenant": text(&view.tenant),
        "since_ms": view.since_ms,
        "cleared_ms": time(view.cleared_ms),
        "text": view.text,
    })
}

/// One tenant with what it uses.
#[must_use]
pub fn tenant(view: &TenantView) -> Value {
    let row = view.tenant.clone().unwrap_or_default();
    let ledger = view.ledger.unwrap_or_default();
    let budget = row.budget.unwrap_or_default();
    json!({
        "name": row.name,
        "when_full": match row.when_full() {
            WhenFull::Queue => "queue",
            WhenFull::Reject | WhenFull::Unspecified => "reject",
        },
        "retention_ms": row.retention_ms,
        "weight": fairness::weight(&row),
        "parent": (!row.parent.is_empty()).then_some(&row.parent),
        "group": row.group,
        "quota": quota(row.quota.as_ref()),
        "budget": budget.month_micros.map(words::money),
        "core_hour": words::money(budget.core_hour_micros),
        "gpu_hour": words::money(budget.gpu_hour_micros),
        "held": resources(view.held.as_ref()),
        "queued_tasks": ledger.queued_tasks,
        "live_jobs": ledger.live_jobs,
        "reserved": words::money(ledger.reserved_micros),
        "settled": words::money(ledger.settled_micros),
        "storage_bytes": ledger.storage_bytes,
        "ingress_bytes": ledger.ingress_bytes,
        "egress_bytes": ledger.egress_bytes,
    })
}

fn quota(quota: Option<&Quota>) -> Value {
    let quota = quota.copied().unwrap_or_default();
    let mut limits = Map::new();
    let mut put = |name: &str, limit: Option<Value>| {
        if let Some(limit) = limit {
            limits.insert(name.to_owned(), limit);
        }
    };
    #[expect(clippy::cast_precision_loss, reason = "thousandths of a core stay far below 2^53")]
    put("cores", quota.millicores.map(|millicores| json!(millicores as f64 / 1000.0)));
    put("memory_bytes", quota.memory_bytes.map(Value::from));
    put("gpus", quota.gpus.map(Value::from));
    put("storage_bytes", quota.storage_bytes.map(Value::from));
    put("ingress_bytes", quota.ingress_bytes.map(Value::from));
    put("egress_bytes", quota.egress_bytes.map(Value::from));
    put("queued_tasks", quota.queued_tasks.map(Value::from));
    Value::Object(limits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_submission_is_its_id() {
        let reply = SubmitReply { tenant: "default".into(), number: 17, tasks: 3, ..SubmitReply::default() };
        assert_eq!(submitted(&reply, false).to_string(), r#"{"id":"default-17"}"#);
        let value = submitted(&reply, true);
        assert_eq!(
            (&value["id"], &value["tasks"], &value["dry_run"]),
            (&Value::Null, &json!(3), &json!(true))
        );
        let again = SubmitReply { existing: true, ..reply };
        assert_eq!(submitted(&again, false)["existing"], json!(true));
    }

    #[test]
    fn what_is_not_there_is_null() {
        let value = job_summary(&JobSummary { tenant: "t".into(), number: 1, ..JobSummary::default() });
        assert_eq!(
            (&value["id"], &value["started_ms"], &value["exit_code"]),
            (&json!("t-1"), &Value::Null, &Value::Null)
        );
        assert_eq!(job_view(&JobView::default())["steps"], json!([]));
        assert_eq!(tenant(&TenantView::default())["quota"], json!({}));
    }
}
