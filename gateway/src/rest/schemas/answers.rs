//! What is answered, as `proto::json` writes it.

use super::{count, instant, list, nullable, object, reference, text, texts, truth};
use controller::alerts::Code;
use serde_json::{Value, json};

pub(super) fn all() -> Vec<(&'static str, Value)> {
    vec![
        ("Submitted", submitted()),
        ("SubmissionNote", json!({ "anyOf": [reference("Submitted"), reference("DryRun")] })),
        ("DryRun", dry_run()),
        ("State", json!({ "enum": ["PENDING", "STAGING", "RUNNING", "COMPLETED", "FAILED", "CANCELLED"] })),
        ("JobState", object(json!({ "id": text(), "state": reference("State") }))),
        ("Retried", object(json!({ "id": text(), "tasks": count() }))),
        (
            "JobList",
            object(json!({ "jobs": list(reference("JobSummary")), "next_cursor": nullable(count()) })),
        ),
        ("JobSummary", job_summary()),
        ("Job", job()),
        ("StepView", step()),
        ("Cause", cause()),
        ("Resources", resources()),
        ("TaskList", object(json!({ "tasks": list(reference("Task")), "next_cursor": nullable(count()) }))),
        ("Task", task()),
        ("Why", why()),
        ("OutputList", object(json!({ "outputs": list(reference("Output")) }))),
        ("Output", output()),
        ("EventPage", event_page()),
        ("Event", event()),
        ("EventStream", event_stream()),
        ("UploadLink", object(json!({ "url": nullable(text()) }))),
        ("NodeList", object(json!({ "nodes": list(reference("Node")) }))),
        ("Node", node()),
        ("PoolList", object(json!({ "pools": list(reference("Pool")) }))),
        ("Pool", pool()),
        ("LicenseList", object(json!({ "licenses": list(reference("License")) }))),
        ("License", object(json!({ "name": text(), "total": count(), "used": count() }))),
        ("AlertList", object(json!({ "alerts": list(reference("Alert")) }))),
        ("Alert", alert()),
        ("Tenant", tenant()),
        ("LogLine", log_line()),
        ("LogChunk", log_chunk()),
        ("Bytes", text()),
        ("Health", json!({ "const": "ok\n" })),
        ("Metrics", text()),
        ("Document", json!({ "type": "object", "required": ["openapi", "paths"] })),
        ("Problem", problem()),
    ]
}

fn submitted() -> Value {
    json!({
        "type": "object",
        "properties": {
            "id": text(),
            "existing": { "const": true, "description": "The idempotency key was used before." },
            "waiting_for": { "type": "string", "description": "The limit of its tenant that it waits for." },
        },
        "required": ["id"],
        "additionalProperties": false,
    })
}

fn dry_run() -> Value {
    object(json!({
        "id": { "type": "null" },
        "dry_run": { "const": true },
        "tasks": count(),
        "price": text(),
        "waiting_for": nullable(text()),
    }))
}

fn job_summary() -> Value {
    object(json!({
        "id": text(),
        "name": text(),
        "state": reference("State"),
        "priority": { "type": "integer" },
        "labels": texts(),
        "tasks": count(),
        "progress": job_progress(),
        "completed": count(),
        "failed": count(),
        "busy_ms": count(),
        "core_seconds": { "type": "number", "minimum": 0 },
        "gpu_seconds": { "type": "number", "minimum": 0 },
        "cost": text(),
        "running_cost": text(),
        "submitted_by": { "type": ["string", "null"] },
        "submitted_ms": instant(),
        "started_ms": instant(),
        "ended_ms": instant(),
        "expired_ms": instant(),
        "exit_code": { "type": ["integer", "null"] },
        "cause": reference("Cause"),
    }))
}

fn percent() -> Value {
    json!({ "type": "number", "minimum": 0, "maximum": 100 })
}

fn job_progress() -> Value {
    nullable(object(json!({ "percent": percent(), "told": count() })))
}

fn job() -> Value {
    object(json!({
        "id": text(),
        "name": text(),
        "state": reference("State"),
        "progress": job_progress(),
        "priority": { "type": "integer" },
        "labels": texts(),
        "submitted_ms": instant(),
        "begin_ms": instant(),
        "submitted_by": nullable(text()),
        "idempotency_key": nullable(text()),
        "started_ms": instant(),
        "ended_ms": instant(),
        "keep": nullable(text()),
        "expired_ms": instant(),
        "exit_code": { "type": ["integer", "null"] },
        "cause": reference("Cause"),
        "cancel_requested": truth(),
        "after": list(text()),
        "reserved": text(),
        "settled": text(),
        "inputs": list(object(json!({
            "name": text(), "url": nullable(text()), "digest": nullable(text()), "size_bytes": count(),
            "tree": truth(),
        }))),
        "steps": list(reference("StepView")),
    }))
}

fn step() -> Value {
    let mut schema = object(json!({
        "name": text(),
        "state": reference("State"),
        "after": list(text()),
        "tasks": count(),
        "percent": nullable(percent()),
        "stragglers": count(),
        "slowest": list(object(json!({ "index": count(), "attempt": count(), "text": text() }))),
        "pending": count(),
        "active": count(),
        "completed": count(),
        "failed": count(),
        "cancelled": count(),
        "retries_spent": count(),
        "preempted": nullable(object(json!({ "times": count(), "at_ms": count(), "to": nullable(text()) }))),
        "started_ms": instant(),
        "ended_ms": instant(),
        "exit_code": { "type": "integer" },
        "cause": reference("Cause"),
        "array": nullable(text()),
        "nodes": count(),
        "tasks_per_node": count(),
        "per_task": reference("Resources"),
        "exclusive": { "type": "boolean" },
        "licenses": { "type": "object", "additionalProperties": count() },
        "outputs": list(text()),
        "retries": nullable(count()),
        "timeout": nullable(text()),
        "pool": nullable(text()),
        "env": texts(),
    }));
    schema["properties"]["run"] = text();
    schema["properties"]["argv"] = list(text());
    schema
}

fn cause() -> Value {
    nullable(object(json!({
        "kind": text(),
        "text": text(),
        "exit_code": { "type": "integer" },
        "signal": { "type": "integer" },
        "node": nullable(text()),
    })))
}

fn resources() -> Value {
    object(json!({
        "cores": { "type": "number", "minimum": 0 },
        "memory_bytes": count(),
        "gpus": count(),
    }))
}

fn task() -> Value {
    object(json!({
        "index": count(),
        "state": reference("State"),
        "attempts": count(),
        "node": nullable(text()),
        "last": reference("Cause"),
        "not_before_ms": instant(),
        "checkpoint": nullable(object(json!({
            "label": text(),
            "at_ms": count(),
            "size_bytes": count(),
        }))),
        "progress": nullable(object(json!({
            "percent": percent(),
            "text": text(),
            "at_ms": count(),
        }))),
        "staging": nullable(object(json!({
            "bytes": count(),
            "total_bytes": nullable(count()),
            "bytes_per_s": count(),
            "waits_for": text(),
            "at_ms": count(),
        }))),
        "straggler": truth(),
        "straggler_text": nullable(text()),
    }))
}

fn why() -> Value {
    object(json!({
        "id": text(),
        "code": text(),
        "headline": text(),
        "details": list(text()),
        "expected_start_ms": instant(),
    }))
}

fn output() -> Value {
    object(json!({
        "step": text(),
        "index": nullable(count()),
        "path": text(),
        "size_bytes": count(),
        "digest": text(),
        "url": text(),
    }))
}

fn node() -> Value {
    object(json!({
        "name": text(),
        "pool": text(),
        "state": { "enum": ["READY", "SUSPECT", "LOST", "DRAINED", "UNSPECIFIED"] },
        "labels": texts(),
        "capacity": reference("Resources"),
        "used": reference("Resources"),
        "grants": count(),
        "address": nullable(text()),
        "version": nullable(text()),
        "last_heard_ms": instant(),
        "log_dropped_bytes": count(),
        "drained": truth(),
        "drain_reason": nullable(text()),
        "drained_by": { "enum": ["autoscaler", "removal", null] },
        "reservations": list(object(json!({
            "name": text(),
            "from_ms": instant(),
            "until_ms": instant(),
            "tenants": list(text()),
            "reason": nullable(text()),
        }))),
    }))
}

fn pool() -> Value {
    object(json!({
        "name": text(),
        "nodes": count(),
        "capacity": reference("Resources"),
        "free": reference("Resources"),
        "queued_slots": count(),
        "largest_node": reference("Resources"),
        "eta": object(json!({
            "earliest_start_ms": instant(),
            "assumption": text(),
        })),
        "autoscale": nullable(object(json!({
            "min": count(),
            "max": count(),
            "asked": count(),
            "leaving": count(),
            "capped": nullable(text()),
            "failures": count(),
            "failed": nullable(text()),
            "cost_per_hour_micros": count(),
        }))),
        "preemption": nullable(object(json!({
            "grace_ms": count(),
            "priority_above": count(),
            "after_waiting_ms": count(),
            "min_run_ms": count(),
            "times_max": count(),
        }))),
    }))
}

fn alert() -> Value {
    let codes: Vec<&str> = Code::ALL.iter().map(|code| code.name()).collect();
    object(json!({
        "code": { "enum": codes },
        "severity": { "enum": ["warning", "critical"] },
        "subject": { "type": "string", "description": "A node, a pool or a tenant; * for the cluster." },
        "tenant": nullable(text()),
        "since_ms": instant(),
        "cleared_ms": instant(),
        "text": text(),
    }))
}

fn tenant() -> Value {
    object(json!({
        "name": text(),
        "when_full": { "enum": ["reject", "queue"] },
        "retention_ms": nullable(count()),
        "weight": count(),
        "parent": nullable(text()),
        "group": { "type": "boolean", "description": "It has tenants or groups below it, and no jobs." },
        "quota": {
            "type": "object",
            "properties": {
                "cores": { "type": "number", "minimum": 0 },
                "memory_bytes": count(),
                "gpus": count(),
                "storage_bytes": count(),
                "ingress_bytes": count(),
                "egress_bytes": count(),
                "queued_tasks": count(),
            },
            "additionalProperties": false,
            "description": "A limit that is not there is no limit.",
        },
        "budget": nullable(text()),
        "core_hour": text(),
        "gpu_hour": text(),
        "held": reference("Resources"),
        "queued_tasks": count(),
        "live_jobs": count(),
        "reserved": text(),
        "settled": text(),
        "storage_bytes": count(),
        "ingress_bytes": count(),
        "egress_bytes": count(),
    }))
}

fn event_page() -> Value {
    object(json!({
        "events": list(reference("Event")),
        "next_seq": { "type": "integer", "minimum": 0, "description": "Where to go on: ?from=." },
    }))
}

fn event() -> Value {
    object(json!({
        "seq": count(),
        "at_ms": count(),
        "job": text(),
        "step": { "type": ["integer", "null"], "minimum": 0, "description": "Null: the job itself." },
        "tasks": list(json!({ "type": "array", "items": count() })),
        "from": { "enum": ["UNSPECIFIED", "PENDING", "STAGING", "RUNNING", "COMPLETED", "FAILED", "CANCELLED"] },
        "to": reference("State"),
        "cause": reference("Cause"),
        "attempt": count(),
        "epoch": count(),
        "node": nullable(text()),
    }))
}

fn event_stream() -> Value {
    json!({
        "type": "string",
        "description": "Each event with its number as id and the Event as data. Named events: `missed` \
            (from, to: what went by while nothing was taken; the stream ends, come again), `end` (the job \
            is over), `problem` (a Problem; the stream ends). Comments are signs of life.",
    })
}

fn log_line() -> Value {
    let mut schema = object(json!({
        "chunks": list(reference("LogChunk")),
        "cursor": count(),
        "end": truth(),
        "missing_bytes": count(),
    }));
    schema["description"] = json!("One line. With `end` nothing more will ever come.");
    schema
}

fn log_chunk() -> Value {
    let mut schema = object(json!({
        "step": text(),
        "index": count(),
        "rank": count(),
        "attempt": count(),
        "epoch": count(),
        "stream": { "enum": ["stdout", "stderr"] },
        "offset": count(),
        "at_ms": count(),
    }));
    schema["properties"]["text"] = text();
    schema["properties"]["dropped_bytes"] = json!({
        "type": "integer", "minimum": 1, "description": "So many bytes from `offset` on were given up on \
            their node, and the text says so in their place. The stream goes on behind them.",
    });
    schema["properties"]["data"] = json!({
        "type": "string", "contentEncoding": "base64", "description": "Instead of text that is not UTF-8.",
    });
    schema
}

fn problem() -> Value {
    let amount = || json!({ "type": "number", "minimum": 0 });
    let mut schema = object(json!({
        "type": { "type": "string", "format": "uri" },
        "title": text(),
        "status": { "type": "integer", "minimum": 400, "maximum": 599 },
        "detail": text(),
        "code": { "type": "string", "pattern": "^[a-z_]+(\\.[a-z_]+)+$" },
        "field": nullable(text()),
        "value": nullable(text()),
        "remedy": nullable(text()),
    }));
    for (name, schema_of) in [
        ("dimension", text()),
        ("used", amount()),
        ("asked", amount()),
        ("limit", amount()),
        ("threshold", amount()),
        ("eta", instant()),
    ] {
        schema["properties"][name] = schema_of;
    }
    schema["description"] = json!("RFC 9457. A refusal by quota or budget also tells how much was meant.");
    schema
}
