//! The OpenAPI 3.1 document, from the table of routes.
//!
//! Not by derives on types: bounds are constants of `proto::limits`, which
//! attributes cannot take, and bodies are written by functions that the command
//! line shares. Here a route without documentation cannot be.

use super::problem::Refusal;
use super::routes::{Answer, Operation, ROUTES, Route};
use super::{Call, schemas};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use world::grpc::axum;

pub(super) async fn serve(call: Call) -> Result<Response, Refusal> {
    let document = call.rest.document.get_or_init(|| document().to_string().into());
    Ok(([(header::CONTENT_TYPE, "application/json")], document.clone()).into_response())
}

fn document() -> Value {
    let mut paths = Map::new();
    for route in ROUTES {
        let operations: Map<String, Value> = route
            .operations
            .iter()
            .map(|operation| (operation.verb.name().to_lowercase(), one(route, operation)))
            .collect();
        // The document knows no name for the rest of a path.
        paths.insert(route.path.replace("{*", "{"), Value::Object(operations));
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Drumline",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "A batch platform: jobs, arrays, DAGs and gangs on many machines",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "paths": paths,
        "components": {
            "schemas": schemas::all(),
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A token (dl_…), as `drumline up` keeps one in client.env.",
                },
            },
        },
    })
}

fn reference(schema: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{schema}") })
}

fn one(route: &Route, operation: &Operation) -> Value {
    let mut told = json!({
        "operationId": operation.id,
        "summary": operation.summary,
        "parameters": parameters(route, operation),
        "responses": responses(route, operation),
        "security": [],
    });
    if operation.right.is_some() {
        told["security"] = json!([{ "token": [] }]);
    }
    if let Some(body) = operation.body {
        told["requestBody"] =
            json!({ "required": true, "content": { "application/json": { "schema": reference(body) } } });
    }
    told
}

/// Names in braces.
fn path_names<'a>(path: &'a str) -> impl Iterator<Item = &'a str> {
    let name = |part: &'a str| part.strip_prefix('{')?.strip_suffix('}');
    path.split('/').filter_map(name).map(|name| name.trim_start_matches('*'))
}

fn parameters(route: &Route, operation: &Operation) -> Vec<Value> {
    let mut parameters: Vec<Value> = path_names(route.path)
        .map(|name| {
            let (pattern, about) = match name {
                "id" => (schemas::patterns::JOB_ID, "TENANT-NUMBER, or NUMBER for the token's own tenant."),
                "path" => {
                    (schemas::patterns::PATH, "As `drumline outputs ID` lists it; it may hold slashes.")
                }
                _ => (schemas::patterns::LOWER_NAME, "The tenant's name."),
            };
            json!({
                "name": name, "in": "path", "required": true, "description": about,
                "schema": { "type": "string", "pattern": pattern },
            })
        })
        .collect();
    parameters.extend(operation.query.iter().map(|param| {
        let schema = param.kind.schema();
        let schema = if param.many { json!({ "type": "array", "items": schema }) } else { schema };
        json!({ "name": param.name, "in": "query", "description": param.about, "schema": schema })
    }));
    parameters.extend(operation.headers.iter().map(|param| {
        json!({
            "name": header_name(param.name), "in": "header", "description": param.about,
            "schema": param.kind.schema(),
        })
    }));
    parameters
}

/// `idempotency-key` as people write it.
fn header_name(name: &str) -> String {
    let words = name.split('-').map(|word| match word {
        "id" => "ID".to_owned(),
        word => word[..1].to_uppercase() + &word[1..],
    });
    words.collect::<Vec<_>>().join("-")
}

fn responses(route: &Route, operation: &Operation) -> Map<String, Value> {
    let mut responses: Map<String, Value> =
        operation.answers.iter().map(|answer| (answer.status.to_string(), success(answer))).collect();
    let mut statuses: BTreeSet<u16> = operation.refusals.iter().copied().collect();
    // Any query may hold what is not known.
    statuses.insert(400);
    if operation.right.is_some() {
        statuses.extend([401, 403, 500, 503]);
    }
    if path_names(route.path).next().is_some() {
        statuses.insert(404);
    }
    if operation.body.is_some() {
        statuses.extend([408, 413, 415, 422]);
    }
    for status in statuses {
        let mut told = json!({
            "description": meaning(status),
            "content": { "application/problem+json": { "schema": reference("Problem") } },
        });
        if status == 401 {
            told["headers"] = json!({
                "WWW-Authenticate": { "required": true, "schema": { "type": "string" } },
            });
        }
        responses.insert(status.to_string(), told);
    }
    responses
}

fn success(answer: &Answer) -> Value {
    let content: Map<String, Value> = answer
        .content
        .iter()
        .map(|(media_type, schema)| ((*media_type).to_owned(), json!({ "schema": reference(schema) })))
        .collect();
    let mut told = json!({ "description": answer.about });
    if !content.is_empty() {
        told["content"] = Value::Object(content);
    }
    if answer.location {
        let schema = json!({ "type": "string", "format": "uri-reference" });
        told["headers"] = json!({ "Location": { "required": true, "schema": schema } });
    }
    if answer.content.iter().any(|(_, schema)| NAMES_A_JOB.contains(schema)) {
        told["links"] = Value::Object(links());
    }
    told
}

/// Answers of which member `id` is a job's.
const NAMES_A_JOB: [&str; 3] = ["Submitted", "JobState", "Retried"];

/// From a job's id to all that can be done with a job.
fn links() -> Map<String, Value> {
    let of_jobs = ROUTES.iter().filter(|route| path_names(route.path).any(|name| name == "id"));
    let link = |operation: &Operation| {
        let link = json!({ "operationId": operation.id, "parameters": { "id": "$response.body#/id" } });
        (operation.id.to_owned(), link)
    };
    of_jobs.flat_map(|route| route.operations).map(link).collect()
}

fn meaning(status: u16) -> &'static str {
    match status {
        400 => "The request cannot be read.",
        401 => "No usable token.",
        403 => "The token may not do this.",
        404 => "There is no such thing, or it is another tenant's.",
        408 => "The body did not arrive in time.",
        409 => "Its parts contradict each other, or what is there stands in the way.",
        410 => "What the job gave has expired: its tenant's retention is over.",
        413 => "The body is too large.",
        415 => "The body is not JSON.",
        416 => "What is asked for lies behind the end.",
        422 => "A value is out of bounds.",
        429 => "A quota, a budget or a limit is used up.",
        500 => "A fault of the server.",
        _ => "Not possible at the moment; try again.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every `$ref` below a value.
    fn references<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
        match value {
            Value::Object(members) => {
                if let Some(Value::String(target)) = members.get("$ref") {
                    found.insert(target);
                }
                members.values().for_each(|member| references(member, found));
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }

    #[test]
    fn every_schema_that_is_named_is_there_and_used() {
        let document = document();
        let mut named = BTreeSet::new();
        references(&document, &mut named);
        let there: BTreeSet<String> = document["components"]["schemas"]
            .as_object()
            .unwrap()
            .keys()
            .map(|name| format!("#/components/schemas/{name}"))
            .collect();
        assert_eq!(named, there.iter().map(String::as_str).collect());
    }

    #[test]
    fn links_lead_from_a_job_to_what_can_be_done_with_it() {
        let document = document();
        let submitted = &document["paths"]["/v1/jobs"]["post"]["responses"]["201"];
        let names: Vec<&str> = submitted["links"].as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(
            names,
            ["cancelJob", "getJob", "getLogs", "getOutput", "listOutputs", "listTasks", "retryJob", "whyJob"]
        );
        for schema in NAMES_A_JOB {
            let members = &document["components"]["schemas"][schema];
            assert_eq!(members["properties"]["id"]["type"], "string", "{schema}");
            assert!(members["required"].as_array().unwrap().contains(&json!("id")), "{schema}");
        }
    }

    #[test]
    fn every_operation_tells_its_refusals() {
        let document = document();
        for (path, operations) in document["paths"].as_object().unwrap() {
            for (method, operation) in operations.as_object().unwrap() {
                let responses = operation["responses"].as_object().unwrap();
                let secured = !operation["security"].as_array().unwrap().is_empty();
                assert_eq!(responses.contains_key("401"), secured, "{method} {path}");
                assert!(responses.contains_key("400"), "{method} {path}");
                let named = path.contains('{');
                assert!(!named || responses.contains_key("404"), "{method} {path}");
            }
        }
    }
}
