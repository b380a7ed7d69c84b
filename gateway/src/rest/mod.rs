//! REST: the same front door in HTTP's words, on the same port as gRPC.
//!
//! What must hold: nothing is decided here. What there is to call is one table
//! ([`routes::ROUTES`]), from which the router, the reading of queries and the
//! OpenAPI document are made, so that none of them can differ. A handler puts a
//! gRPC message together, asks [`Front`] as any client does (so the same
//! token, rights, limits and deadlines apply) and writes the reply as JSON. Every
//! refusal leaves as `application/problem+json`.
//!
//! Only served natively: simulated networks carry no HTTP.

mod body;
mod cluster;
mod events;
mod jobs;
mod logs;
mod metrics;
mod openapi;
mod problem;
mod query;
pub mod reading;
mod routes;
mod schemas;
mod socket;
mod tenants;

use crate::auth::Caller;
use crate::drumline::Front;
use crate::gate::Gate;
use axum::body::{Body, Bytes};
use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{RawPathParams, Request};
use axum::http::{Extensions, HeaderMap, Method, StatusCode, header, request::Parts};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use metrics::Metrics;
use problem::Refusal;
use proto::ids::JobId;
use proto::problem::Problem;
use proto::v1::JobRequest;
use query::Query;
use routes::{Operation, ROUTES, Route, Verb};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use world::grpc::axum::{self, Router};
use world::grpc::tonic;
use world::grpc::tonic::metadata::MetadataMap;

/// What all handlers share.
struct Rest {
    front: Front,
    gate: Arc<Gate>,
    metrics: Metrics,
    /// The OpenAPI document, made when first asked for.
    document: OnceLock<Bytes>,
}

/// All routes of the table.
pub(crate) fn router(gate: Arc<Gate>) -> Router {
    let front = Front(Arc::clone(&gate));
    let rest = Arc::new(Rest { front, gate, metrics: Metrics::default(), document: OnceLock::new() });
    ROUTES.iter().fold(Router::new(), |router, route| {
        let rest = Arc::clone(&rest);
        let handler = move |path: Path, request: Request| dispatch(Arc::clone(&rest), route, path, request);
        router.route(route.path, any(handler))
    })
}

/// A refusal of any request whatever.
pub(crate) fn refused(problem: Problem) -> Response {
    problem::Refusal::new(problem).into_response()
}

/// What is told where no route is.
pub(crate) fn nowhere(method: &Method, path: &str) -> Response {
    problem::nowhere(method, path).into_response()
}

/// One request past the checks that all share.
struct Call {
    rest: Arc<Rest>,
    caller: Option<Caller>,
    path: BTreeMap<String, String>,
    query: Query,
    headers: HeaderMap,
    extensions: Extensions,
}

impl Call {
    /// The same question as a gRPC client would send it.
    fn ask<T>(&self, message: T) -> tonic::Request<T> {
        let mut metadata = MetadataMap::new();
        let token = self.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        if let Some(token) = token.and_then(|token| token.parse().ok()) {
            metadata.insert("authorization", token);
        }
        // With the connection's addresses, from which links are made.
        tonic::Request::from_parts(metadata, self.extensions.clone(), message)
    }

    /// The job that the path names.
    fn job(&self) -> Result<JobRequest, Refusal> {
        let text = self.path.get("id").map_or("", String::as_str);
        let id = JobId::parse(text, "").map_err(|problem| Refusal::not_there("job", problem))?;
        Ok(JobRequest { tenant: id.tenant, number: id.number })
    }

    /// The tenant that the query names; empty: the token tells it.
    fn tenant(&self) -> String {
        self.query.text("tenant").unwrap_or_default().to_owned()
    }

    /// A header's text, where it is one.
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// Whether an `Accept` header names this type.
    fn accepts(&self, media_type: &str) -> bool {
        let named = |accept: &str| {
            accept.split(',').any(|part| part.split(';').next().is_some_and(|name| name.trim() == media_type))
        };
        self.header("accept").is_some_and(named)
    }
}

/// The names of a path, unless they are no text.
type Path = Result<RawPathParams, RawPathParamsRejection>;

/// The answer to one request of a route, counted.
async fn dispatch(rest: Arc<Rest>, route: &'static Route, path: Path, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let verb = Verb::of(&parts.method);
    let response = match route.operations.iter().find(|operation| Some(operation.verb) == verb) {
        Some(operation) => answer(&rest, operation, path, parts, body).await,
        None => {
            body::discard(&parts.headers, body).await;
            Err(problem::no_such_method(route, &parts.method))
        }
    };
    let response = response.unwrap_or_else(IntoResponse::into_response);
    rest.metrics.count(route.path, verb.map_or("other", Verb::name), response.status());
    response
}

async fn answer(
    rest: &Arc<Rest>,
    operation: &Operation,
    path: Path,
    parts: Parts,
    body: Body,
) -> Result<Response, Refusal> {
    match prepare(rest, operation, path, &parts).await {
        Ok((caller, path, query)) => {
            let Parts { headers, extensions, .. } = parts;
            let call = Call { rest: Arc::clone(rest), caller, path, query, headers, extensions };
            (operation.handler)(call, body).await
        }
        Err(refusal) => {
            body::discard(&parts.headers, body).await;
            Err(refusal)
        }
    }
}

type Prepared = (Option<Caller>, BTreeMap<String, String>, Query);

/// Who calls and what the target says. The token comes first: whoever has none
/// learns nothing else.
async fn prepare(rest: &Rest, operation: &Operation, path: Path, parts: &Parts) -> Result<Prepared, Refusal> {
    let caller = match operation.right {
        Some(right) => {
            let mut metadata = MetadataMap::new();
            if let Some(token) = parts.headers.get(header::AUTHORIZATION) {
                // What is not text is no token, and is told so.
                let token =
                    token.to_str().unwrap_or("?").parse().unwrap_or_else(|_| "?".parse().expect("text"));
                metadata.insert("authorization", token);
            }
            Some(rest.gate.caller(&metadata, right).await?)
        }
        None => None,
    };
    let path = path.map_err(|_| problem::nowhere(&parts.method, parts.uri.path()))?;
    let path = path.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let mut query = Query::read(operation.query, &parts.uri).map_err(Refusal::bad_request)?;
    query.read_headers(operation.headers, &parts.headers).map_err(Refusal::bad_request)?;
    Ok((caller, path, query))
}

/// A value as an answer.
fn json(status: StatusCode, value: &Value) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], value.to_string()).into_response()
}

/// A value as the usual answer.
fn ok(value: &Value) -> Result<Response, Refusal> {
    Ok(json(StatusCode::OK, value))
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self::new(problem)
    }
}

impl From<tonic::Status> for Refusal {
    fn from(status: tonic::Status) -> Self {
        Self::new(Problem::from(status))
    }
}
