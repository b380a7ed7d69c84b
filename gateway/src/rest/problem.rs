//! Refusals as RFC 9457 has them: `application/problem+json` with a stable code.
//!
//! The status follows from the code alone, by one table. 400: the request cannot
//! be read. 422: a value lies outside the bounds that the document states. 409:
//! each value is fine, but they contradict each other, or what is there.

use super::routes::Route;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use proto::problem::Problem;
use serde_json::{Map, Value, json};
use world::grpc::axum;

/// How long to wait before trying again where nothing better is known.
const RETRY_AFTER_S: u64 = 1;

/// What a request is answered with where it cannot be done.
#[derive(Debug)]
pub(super) struct Refusal {
    problem: Problem,
    status: StatusCode,
    allow: Option<String>,
}

impl Refusal {
    pub fn new(problem: Problem) -> Self {
        Self { status: status(&problem), problem, allow: None }
    }

    /// A part of the path that names nothing that could be there.
    pub fn not_there(what: &str, problem: Problem) -> Self {
        Self::new(Problem { code: format!("missing.{what}"), ..problem })
    }

    /// A query or header that cannot be read.
    pub fn bad_request(problem: Problem) -> Self {
        Self { status: StatusCode::BAD_REQUEST, problem, allow: None }
    }
}

/// Codes whose status is not their family's.
const STATUSES: &[(&str, StatusCode)] = &[
    ("http.method", StatusCode::METHOD_NOT_ALLOWED),
    ("http.media_type", StatusCode::UNSUPPORTED_MEDIA_TYPE),
    ("http.timeout", StatusCode::REQUEST_TIMEOUT),
    ("http.range", StatusCode::RANGE_NOT_SATISFIABLE),
    ("http.too_large", StatusCode::PAYLOAD_TOO_LARGE),
    ("spec.syntax", StatusCode::BAD_REQUEST),
    ("spec.unknown_key", StatusCode::BAD_REQUEST),
    ("spec.missing", StatusCode::BAD_REQUEST),
    ("spec.type", StatusCode::BAD_REQUEST),
    // Parts that contradict each other.
    ("spec.array_and_gang", StatusCode::CONFLICT),
    ("spec.array_indexes", StatusCode::CONFLICT),
    ("spec.cycle", StatusCode::CONFLICT),
    ("spec.duplicate_input", StatusCode::CONFLICT),
    ("spec.each", StatusCode::CONFLICT),
    ("spec.duplicate_step", StatusCode::CONFLICT),
    ("spec.ranks", StatusCode::CONFLICT),
    ("spec.tasks", StatusCode::CONFLICT),
    ("spec.unknown_step", StatusCode::CONFLICT),
    // What the cluster has stands against it.
    ("spec.constraints", StatusCode::CONFLICT),
    ("spec.infeasible", StatusCode::CONFLICT),
    ("spec.license", StatusCode::CONFLICT),
    ("spec.pool", StatusCode::CONFLICT),
    ("spec.retention", StatusCode::CONFLICT),
];

fn status(problem: &Problem) -> StatusCode {
    if let Some((_, status)) = STATUSES.iter().find(|(code, _)| *code == problem.code) {
        return *status;
    }
    match problem.family() {
        "http" => StatusCode::BAD_REQUEST,
        "spec" => StatusCode::UNPROCESSABLE_ENTITY,
        "quota" | "budget" | "limit" => StatusCode::TOO_MANY_REQUESTS,
        "auth" => StatusCode::UNAUTHORIZED,
        "denied" => StatusCode::FORBIDDEN,
        "missing" => StatusCode::NOT_FOUND,
        "conflict" => StatusCode::CONFLICT,
        "outputs" => StatusCode::GONE,
        "unavailable" => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// The same for every problem of a kind.
fn title(family: &str) -> &'static str {
    match family {
        "http" => "The request is not one for this place",
        "spec" => "The request is wrong",
        "quota" => "A quota is used up",
        "budget" => "The budget is used up",
        "limit" => "Too much at once",
        "auth" => "No usable token",
        "denied" => "Not allowed",
        "missing" => "There is no such thing",
        "conflict" => "Something stands in the way",
        "outputs" => "It is kept no longer",
        "unavailable" => "Not possible at the moment",
        _ => "A fault of the server",
    }
}

fn text(text: &str) -> Value {
    if text.is_empty() { Value::Null } else { json!(text) }
}

/// The document of a problem.
pub(super) fn document(problem: &Problem, status: StatusCode) -> Value {
    let mut members = Map::new();
    let mut put = |name: &str, value: Value| {
        members.insert(name.to_owned(), value);
    };
    put("type", json!(format!("urn:drumline:problem:{}", problem.code)));
    put("title", json!(title(problem.family())));
    put("status", json!(status.as_u16()));
    put("detail", json!(problem.to_string()));
    put("code", json!(problem.code));
    put("field", text(&problem.field));
    put("value", text(&problem.value));
    put("remedy", text(&problem.remedy));
    if let Some(quota) = &problem.quota {
        put("dimension", json!(quota.dimension));
        put("used", json!(quota.used));
        put("asked", json!(quota.asked));
        put("limit", json!(quota.limit));
        put("threshold", json!(quota.threshold));
        // When it may fit, milliseconds since 1970.
        put("eta", if quota.fits_at_ms == 0 { Value::Null } else { json!(quota.fits_at_ms) });
    }
    Value::Object(members)
}

/// The document of a problem that comes when the status is long sent.
pub(super) fn document_of(problem: Problem) -> Value {
    let status = status(&problem);
    document(&problem, status)
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let Self { problem, status, allow } = self;
        let body = document(&problem, status).to_string();
        let mut response =
            (status, [(header::CONTENT_TYPE, "application/problem+json")], body).into_response();
        let headers = response.headers_mut();
        match status {
            StatusCode::UNAUTHORIZED => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            // A quota clears when work ends, which no fixed time tells.
            StatusCode::TOO_MANY_REQUESTS if problem.quota.is_some() => {}
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_S));
            }
            _ => {}
        }
        if let Some(allow) = allow.and_then(|allow| HeaderValue::from_str(&allow).ok()) {
            headers.insert(header::ALLOW, allow);
        }
        response
    }
}

/// No route is here.
pub(super) fn nowhere(method: &Method, path: &str) -> Refusal {
    Refusal::new(Problem::new(
        "missing.route",
        "path",
        format!("{method} {path}"),
        "there is nothing at this path",
        "see /openapi.json for what there is",
    ))
}

/// The route is here, but not for this method.
pub(super) fn no_such_method(route: &Route, method: &Method) -> Refusal {
    let allow = route.allow();
    let reason = "this path does not take this method";
    let problem = Problem::new("http.method", "method", method, reason, format!("use {allow}"));
    Refusal { status: status(&problem), problem, allow: Some(allow) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_status() {
        let of = |code: &str| status(&Problem::new(code, "f", "v", "r", "m")).as_u16();
        for (code, expected) in [
            ("spec.syntax", 400),
            ("spec.size", 422),
            ("spec.cycle", 409),
            ("spec.too_large", 422),
            ("http.range", 416),
            ("http.too_large", 413),
            ("http.media_type", 415),
            ("http.path", 400),
            ("quota.exceeded", 429),
            ("budget.exceeded", 429),
            ("auth.token", 401),
            ("denied.role", 403),
            ("missing.job", 404),
            ("conflict.changed", 409),
            ("unavailable.store", 503),
            ("internal.fault", 500),
            ("new.family", 500),
        ] {
            assert_eq!(of(code), expected, "{code}");
        }
    }

    #[test]
    fn what_says_nothing_is_null() {
        let told =
            document(&proto::problem::unavailable("store", "it is closed"), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(told["field"], Value::Null);
        assert_eq!(told["detail"], "it is closed; try again in a moment");
        assert!(told.get("dimension").is_none());
    }
}
