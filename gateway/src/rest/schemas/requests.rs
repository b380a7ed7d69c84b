//! What is sent: the job file in JSON, the envelope around it, uploads, limits.

use super::{list, nullable, partial, patterns, reference};
use proto::fairness::WEIGHT_MAX;
use proto::limits::*;
use proto::retention::{RETENTION_MS_MAX, RETENTION_MS_MIN};
use serde_json::{Value, json};

pub(super) fn all() -> Vec<(&'static str, Value)> {
    vec![
        ("Submission", json!({ "anyOf": [reference("JobFile"), reference("Envelope")] })),
        ("JobFile", job_file()),
        ("Envelope", envelope()),
        ("Input", input()),
        ("Step", step()),
        ("Span", span()),
        ("Cores", cores()),
        ("Memory", memory()),
        ("Scalar", scalar()),
        ("Upload", upload()),
        ("Limits", limits()),
    ]
}

fn matching(pattern: &str) -> Value {
    json!({ "type": "string", "pattern": pattern })
}

/// Likewise, or empty: as if it were left out.
fn matching_or_empty(pattern: &str, most: usize) -> Value {
    nullable(json!({
        "anyOf": [{ "type": "string", "pattern": pattern, "maxLength": most }, { "const": "" }],
    }))
}

fn between(min: i64, max: i64) -> Value {
    json!({ "type": "integer", "minimum": min, "maximum": max })
}

fn priority() -> Value {
    between(-i64::from(PRIORITY_MAX), i64::from(PRIORITY_MAX))
}

fn job_file() -> Value {
    let mut schema = partial(
        json!({
            "name": matching_or_empty(patterns::JOB_NAME, JOB_NAME_BYTES_MAX),
            "priority": nullable(priority()),
            "expected_runtime": nullable(reference("Span")),
            "keep": nullable(reference("Span")),
            "labels": {
                "type": "object",
                "propertyNames": { "pattern": patterns::LABEL_KEY },
                "additionalProperties": {
                    "anyOf": [
                        { "type": "string", "pattern": patterns::PRINTABLE, "maxLength": LABEL_VALUE_BYTES_MAX },
                        { "type": ["number", "boolean"] },
                    ],
                },
                "maxProperties": LABELS_MAX,
            },
            "input": { "type": "array", "items": reference("Input"), "maxItems": INPUTS_MAX },
            "step": { "type": "array", "items": reference("Step"), "minItems": 1, "maxItems": STEPS_MAX },
        }),
        &["step"],
    );
    schema["description"] = json!("The keys of a job file. Of several steps each has a name.");
    schema["anyOf"] = json!([
        { "properties": { "step": { "maxItems": 1 } } },
        { "properties": { "step": { "items": { "required": ["name"], "properties": { "name": { "type": "string", "minLength": 1 } } } } } },
    ]);
    schema
}

fn envelope() -> Value {
    let mut schema = partial(
        json!({
            "tenantId": matching_or_empty(patterns::LOWER_NAME, NAME_BYTES_MAX),
            "spec": reference("JobFile"),
            "inputRefs": { "type": "array", "items": reference("Input"), "maxItems": INPUTS_MAX },
            "priority": nullable(priority()),
            "estimateCores": nullable(reference("Cores")),
            "expectedRuntime": nullable(reference("Span")),
        }),
        &["spec"],
    );
    schema["description"] = json!(
        "A job file with what it leaves out: inputRefs are further inputs, estimateCores the cores of \
         each step that tells none, priority and expectedRuntime hold where the job file has none."
    );
    schema
}

fn input() -> Value {
    let mut schema = partial(
        json!({
            "name": matching(patterns::NAME),
            "url": matching_or_empty(patterns::URL, URL_BYTES_MAX),
            "digest": matching(patterns::DIGEST),
            "size": nullable(json!({
                "anyOf": [
                    { "type": "integer", "minimum": 0, "maximum": INPUT_BYTES_MAX },
                    matching(patterns::INPUT_SIZE),
                ],
            })),
            "tree": nullable(json!({ "type": "boolean" })),
        }),
        &["name", "digest"],
    );
    schema["description"] = json!(
        "Bytes uploaded before, or those that a URL holds, by their digest; with tree those of a \
         directory's manifest, and no URL."
    );
    schema["anyOf"] = json!([
        { "properties": { "url": { "enum": ["", null] } } },
        { "properties": { "tree": { "enum": [false, null] } } },
    ]);
    schema
}

fn step() -> Value {
    let texts = |pattern: &str, most: usize| {
        json!({
            "type": "array", "maxItems": most,
            "items": { "type": "string", "pattern": pattern, "maxLength": PATH_BYTES_MAX },
        })
    };
    let mut schema = partial(
        json!({
            "name": matching_or_empty(patterns::NAME, NAME_BYTES_MAX),
            "run": nullable(json!({ "type": "string", "pattern": patterns::WORD, "maxLength": WORD_BYTES_MAX })),
            "argv": {
                "type": "array",
                "items": { "type": "string", "pattern": patterns::WORD, "maxLength": WORD_BYTES_MAX },
            },
            "after": list(matching(patterns::NAME)),
            "array": nullable(json!({
                "anyOf": [between(0, i64::try_from(ARRAY_INDEX_MAX).expect("it is")), matching(patterns::ARRAY)],
            })),
            "nodes": nullable(between(1, i64::from(GANG_NODES_MAX))),
            "tasks_per_node": nullable(between(1, i64::from(GANG_TASKS_PER_NODE_MAX))),
            "cores": nullable(reference("Cores")),
            "memory": nullable(reference("Memory")),
            "gpus": nullable(between(0, i64::from(GPUS_MAX))),
            "runtime": { "enum": ["process", "", null] },
            "outputs": texts(patterns::GLOB, OUTPUTS_MAX),
            "checkpoint": nullable(json!({
                "anyOf": [
                    matching(patterns::PATH),
                    partial(
                        json!({
                            "path": matching(patterns::PATH),
                            "every": nullable(reference("Span")),
                            "signal": { "enum": ([&[""], CHECKPOINT_SIGNALS].concat()) },
                        }),
                        &["path"],
                    ),
                ],
            })),
            "retries": nullable(between(0, i64::from(RETRIES_MAX))),
            "timeout": nullable(reference("Span")),
            "env": {
                "type": "object",
                "propertyNames": { "pattern": patterns::VARIABLE },
                "additionalProperties": reference("Scalar"),
                "maxProperties": ENV_MAX,
            },
            "pool": matching_or_empty(patterns::LOWER_NAME, NAME_BYTES_MAX),
            "constraints": texts(patterns::CONSTRAINT, CONSTRAINTS_MAX),
            "exclusive": { "type": "boolean" },
            "licenses": {
                "type": "object",
                "propertyNames": { "pattern": patterns::LICENSE, "maxLength": NAME_BYTES_MAX },
                "additionalProperties": between(1, i64::from(LICENSE_COUNT_MAX)),
                "maxProperties": STEP_LICENSES_MAX,
            },
        }),
        &[],
    );
    schema["description"] = json!(
        "Either run (a shell's line) or argv says what to do. All words together lie within the body's limit."
    );
    schema["anyOf"] = json!([
        {
            "required": ["run"],
            "properties": {
                "run": { "type": "string", "pattern": patterns::SCRIPT },
                "argv": { "maxItems": 0 },
            },
        },
        {
            "required": ["argv"],
            "properties": {
                "run": { "enum": ["", null] },
                "argv": { "minItems": 1, "prefixItems": [{ "minLength": 1 }] },
            },
        },
    ]);
    schema
}

fn span() -> Value {
    json!({
        "description": "A time: 90s, 2m, 1h30m, 2d, or seconds as a number.",
        "anyOf": [between(1, i64::try_from(SPAN_MS_MAX / 1000).expect("it is")), matching(patterns::SPAN)],
    })
}

fn cores() -> Value {
    json!({
        "description": "Cores, in thousandths at the finest.",
        "anyOf": [
            { "type": "number", "minimum": 0.001, "maximum": MILLICORES_MAX / 1000, "multipleOf": 0.001 },
            matching(patterns::CORES),
        ],
    })
}

fn memory() -> Value {
    json!({
        "description": "Memory: 64MiB, 4GiB, 500MB, or bytes as a number.",
        "anyOf": [
            { "type": "integer", "minimum": 1, "maximum": MEMORY_BYTES_MAX },
            matching(patterns::MEMORY),
        ],
    })
}

fn scalar() -> Value {
    json!({
        "anyOf": [
            { "type": "string", "pattern": patterns::WORD, "maxLength": ENV_VALUE_BYTES_MAX },
            { "type": ["number", "boolean"] },
        ],
    })
}

fn upload() -> Value {
    partial(
        json!({
            "digest": { "type": "string", "pattern": patterns::DIGEST, "description": "SHA-256 of the bytes." },
            "size_bytes": { "type": "integer", "minimum": 0, "maximum": crate::limits::OBJECT_BYTES_MAX },
        }),
        &["digest", "size_bytes"],
    )
}

fn limits() -> Value {
    let amount =
        || nullable(json!({ "type": "integer", "minimum": 0, "maximum": crate::limits::AMOUNT_MAX }));
    let money = || nullable(matching(patterns::MONEY));
    let mut schema = partial(
        json!({
            "quota": nullable(partial(
                json!({
                    "cores": nullable(json!({
                        "type": "number", "minimum": 0, "maximum": crate::limits::QUOTA_CORES_MAX,
                    })),
                    "memory_bytes": amount(),
                    "gpus": amount(),
                    "storage_bytes": amount(),
                    "ingress_bytes": amount(),
                    "egress_bytes": amount(),
                    "queued_tasks": amount(),
                }),
                &[],
            )),
            "budget": money(),
            "core_hour": money(),
            "gpu_hour": money(),
            "when_full": { "enum": ["reject", "queue", null] },
            "retention_ms": nullable(json!({
                "type": "integer", "minimum": RETENTION_MS_MIN, "maximum": RETENTION_MS_MAX,
                "description": "How long outputs and logs of ended jobs are kept. Left out: for ever.",
            })),
            "weight": nullable(json!({
                "type": "integer", "minimum": 1, "maximum": WEIGHT_MAX,
                "description": "Its part of the cluster while others wait, beside theirs. Left out: 100.",
            })),
            "parent": nullable(json!({
                "type": "string", "pattern": patterns::LOWER_NAME,
                "description": "The group that it is in. Left out: in none.",
            })),
        }),
        &[],
    );
    schema["description"] =
        json!("Money is in the operator's currency, as text. Cores are kept in thousandths.");
    schema
}
