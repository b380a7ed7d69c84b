//! Whether a value is what a schema says: the part of JSON Schema that the
//! document uses, patterns aside.

use serde_json::Value;

/// `Err` tells where it differs.
pub fn conforms(value: &Value, schema: &Value, document: &Value) -> Result<(), String> {
    at("$", value, schema, document)
}

fn at(place: &str, value: &Value, schema: &Value, document: &Value) -> Result<(), String> {
    let wrong = |why: &str| Err(format!("{place} = {value}: {why} {schema}"));
    if let Some(target) = schema["$ref"].as_str() {
        let pointer = target.strip_prefix('#').expect("references are local");
        let meant = document.pointer(pointer).unwrap_or_else(|| panic!("{target} is missing"));
        return at(place, value, meant, document);
    }
    if !schema["type"].is_null() && !is_of_type(value, &schema["type"]) {
        return wrong("is of another type than");
    }
    if let Some(allowed) = schema["enum"].as_array()
        && !allowed.contains(value)
    {
        return wrong("is not one of");
    }
    if schema.get("const").is_some_and(|only| only != value) {
        return wrong("is not");
    }
    if let (Some(number), Some(least)) = (value.as_f64(), schema["minimum"].as_f64())
        && number < least
    {
        return wrong("is below the minimum of");
    }
    if let Some(choices) = schema["anyOf"].as_array()
        && !choices.iter().any(|choice| at(place, value, choice, document).is_ok())
    {
        return wrong("fits none of");
    }
    if let (Some(items), Some(values)) = (schema.get("items"), value.as_array()) {
        for (index, item) in values.iter().enumerate() {
            at(&format!("{place}[{index}]"), item, items, document)?;
        }
    }
    match value.as_object() {
        Some(members) => object(place, members, schema, document),
        None => Ok(()),
    }
}

fn object(
    place: &str,
    members: &serde_json::Map<String, Value>,
    schema: &Value,
    document: &Value,
) -> Result<(), String> {
    for name in schema["required"].as_array().into_iter().flatten() {
        let name = name.as_str().expect("names are text");
        if !members.contains_key(name) {
            return Err(format!("{place} has no {name}"));
        }
    }
    for (name, member) in members {
        let place = format!("{place}.{name}");
        match (schema["properties"].get(name), &schema["additionalProperties"]) {
            (Some(known), _) => at(&place, member, known, document)?,
            (None, Value::Bool(false)) => return Err(format!("{place} is not documented")),
            (None, Value::Object(_)) => at(&place, member, &schema["additionalProperties"], document)?,
            _ => {}
        }
    }
    Ok(())
}

fn is_of_type(value: &Value, of: &Value) -> bool {
    if let Some(types) = of.as_array() {
        return types.iter().any(|of| is_of_type(value, of));
    }
    match of.as_str() {
        Some("string") => value.is_string(),
        Some("integer") => value.is_u64() || value.is_i64(),
        Some("number") => value.is_number(),
        Some("boolean") => value.is_boolean(),
        Some("array") => value.is_array(),
        Some("object") => value.is_object(),
        Some("null") => value.is_null(),
        other => panic!("no such type: {other:?}"),
    }
}

#[test]
fn what_differs_is_found() {
    let schema = serde_json::json!({
        "type": "object",
        "properties": { "id": { "type": "string" }, "n": { "type": ["integer", "null"], "minimum": 0 } },
        "required": ["id"],
        "additionalProperties": false,
    });
    for (text, fits) in [
        (r#"{"id": "a", "n": null}"#, true),
        (r#"{"id": 1}"#, false),
        (r#"{"id": "a", "n": -1}"#, false),
        (r#"{"id": "a", "more": 1}"#, false),
        (r#"{"n": 1}"#, false),
        (r#"[]"#, false),
    ] {
        let value: Value = serde_json::from_str(text).unwrap();
        assert_eq!(conforms(&value, &schema, &Value::Null).is_ok(), fits, "{text}");
    }
}
