//! Schemas (JSON Schema 2020-12) of all that is sent and answered.
//!
//! Bounds are the constants that validation uses. What a schema allows is
//! refused only where parts contradict each other or what is there.

mod answers;
pub(super) mod patterns;
mod requests;

use serde_json::{Map, Value, json};

/// All, by name.
pub(super) fn all() -> Map<String, Value> {
    requests::all()
        .into_iter()
        .chain(answers::all())
        .map(|(name, schema)| (name.to_owned(), schema))
        .collect()
}

/// An object with exactly these members.
fn object(properties: Value) -> Value {
    let required: Vec<String> =
        properties.as_object().expect("properties are an object").keys().cloned().collect();
    json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false })
}

/// An object with at most these members, of which some must be there.
fn partial(properties: Value, required: &[&str]) -> Value {
    json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false })
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

fn list(items: Value) -> Value {
    json!({ "type": "array", "items": items })
}

fn text() -> Value {
    json!({ "type": "string" })
}

fn truth() -> Value {
    json!({ "type": "boolean" })
}

fn count() -> Value {
    json!({ "type": "integer", "minimum": 0 })
}

/// Milliseconds since 1970.
fn instant() -> Value {
    json!({ "type": ["integer", "null"], "minimum": 0, "description": "Milliseconds since 1970." })
}

/// The same or null.
fn nullable(mut schema: Value) -> Value {
    if let Some(Value::String(kind)) = schema.get("type") {
        schema["type"] = json!([kind, "null"]);
        return schema;
    }
    json!({ "anyOf": [schema, { "type": "null" }] })
}

fn texts() -> Value {
    json!({ "type": "object", "additionalProperties": { "type": "string" } })
}
