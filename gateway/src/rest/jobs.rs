//! Jobs: submitted, listed, shown, cancelled, tried again, explained.

use super::body::json_text;
use super::problem::Refusal;
use super::{Call, json, ok, query};
use crate::limits;
use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use proto::envelope::{self, Submission};
use proto::jobfile::{read_json, whole};
use proto::json as shown;
use proto::problem::{self, Problem};
use proto::units::{self, Since};
use proto::v1::drumline_server::Drumline as _;
use proto::v1::{
    CancelRequest, CreateUploadRequest, JobRequest, JobSpec, ListJobsRequest, ListTasksRequest, RetryRequest,
    SubmitRequest, WhyRequest,
};
use proto::words;
use serde::Deserialize;
use serde_json::Value;
use serde_json::json as value;
use world::grpc::axum;

impl Call {
    /// A job as answers name it: with its tenant.
    pub(super) fn id_of(&self, job: &JobRequest) -> Result<String, Refusal> {
        let caller =
            self.caller.as_ref().ok_or_else(|| problem::internal("a route of jobs asks no token"))?;
        Ok(caller.job(Some(job))?.to_string())
    }

    /// The tenant meant by `asked`.
    pub(super) fn tenant_of(&self, asked: &str) -> Result<String, Refusal> {
        let caller =
            self.caller.as_ref().ok_or_else(|| problem::internal("a route of tenants asks no token"))?;
        Ok(caller.tenant(asked)?)
    }

    /// The spec of the job that the path names.
    pub(super) async fn spec(&self, job: &JobRequest) -> Result<JobSpec, Refusal> {
        let view = self.rest.front.get_job(self.ask(job.clone())).await?.into_inner();
        Ok(view.job.and_then(|row| row.spec).unwrap_or_default())
    }
}

/// A place in a list as answers tell it.
fn cursor(next: u64) -> Value {
    if next == 0 { Value::Null } else { value!(next) }
}

fn narrow(number: Option<u64>) -> u32 {
    number.map_or(0, |number| u32::try_from(number).unwrap_or(u32::MAX))
}

/// The number of the step of this name.
pub(super) fn step_index(spec: &JobSpec, name: &str) -> Result<u32, Refusal> {
    let at = spec.steps.iter().position(|step| step.name == name);
    let at = at.ok_or_else(|| problem::missing("step", name))?;
    Ok(u32::try_from(at).unwrap_or(u32::MAX))
}

pub(super) async fn submit(call: Call, body: Body) -> Result<Response, Refusal> {
    let idempotency_key = call.query.text("idempotency-key").unwrap_or_default().to_owned();
    let text = json_text(&call.headers, body, proto::limits::JOB_FILE_BYTES_MAX).await?;
    let Submission { tenant, mut spec } = envelope::parse(&text)?;
    let tenant = call.tenant_of(&one_tenant(&call.tenant(), &tenant)?)?;
    for text in call.query.texts("after") {
        let (of, dependency) = query::after(text)?;
        if !of.is_empty() && of != tenant {
            let reason = "is another tenant's job";
            return Err(problem::conflict(
                "dependency",
                "after",
                text,
                reason,
                "name one of the same tenant",
            )
            .into());
        }
        spec.after.push(dependency);
    }
    let dry_run = call.query.flag("dry_run");
    let request = SubmitRequest { tenant, spec: Some(spec), idempotency_key, dry_run };
    let reply = call.rest.front.submit(call.ask(request)).await?.into_inner();
    let answer = shown::submitted(&reply, dry_run);
    if dry_run || reply.existing {
        return ok(&answer);
    }
    let mut response = json(StatusCode::CREATED, &answer);
    let place = format!("/v1/jobs/{}", words::job_id(&reply.tenant, reply.number));
    if let Ok(place) = HeaderValue::from_str(&place) {
        response.headers_mut().insert(header::LOCATION, place);
    }
    Ok(response)
}

/// Query and envelope may both name it.
pub(super) fn one_tenant(query: &str, envelope: &str) -> Result<String, Problem> {
    if !query.is_empty() && !envelope.is_empty() && query != envelope {
        let reason = format!("the query names tenant {query}");
        return Err(problem::conflict("tenant", "tenantId", envelope, reason, "name the tenant once"));
    }
    Ok(if query.is_empty() { envelope.to_owned() } else { query.to_owned() })
}

pub(super) async fn list(call: Call) -> Result<Response, Refusal> {
    let labels = call.query.texts("label").map(query::label).collect::<Result<_, _>>()?;
    let request = ListJobsRequest {
        tenant: call.tenant(),
        states: call.query.numbers("state").filter_map(|state| i32::try_from(state).ok()).collect(),
        labels,
        limit: narrow(call.query.number("limit")),
        before: call.query.number("cursor").unwrap_or(0),
        all_tenants: call.query.flag("all_tenants"),
    };
    let reply = call.rest.front.list_jobs(call.ask(request)).await?.into_inner();
    let jobs: Vec<Value> = reply.jobs.iter().map(shown::job_summary).collect();
    ok(&value!({ "jobs": jobs, "next_cursor": cursor(reply.next_before) }))
}

pub(super) async fn show(call: Call) -> Result<Response, Refusal> {
    let request = call.ask(call.job()?);
    ok(&shown::job_view(&call.rest.front.get_job(request).await?.into_inner()))
}

pub(super) async fn cancel(call: Call) -> Result<Response, Refusal> {
    let job = call.job()?;
    let id = call.id_of(&job)?;
    let reason = call.query.text("reason").unwrap_or_default().to_owned();
    let request = CancelRequest { job: Some(job), reason };
    let state = call.rest.front.cancel(call.ask(request)).await?.into_inner().state();
    let status = if words::is_ended(state) { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok(json(status, &value!({ "id": id, "state": words::state(state) })))
}

pub(super) async fn retry(call: Call) -> Result<Response, Refusal> {
    let job = call.job()?;
    let id = call.id_of(&job)?;
    let from_step = call.query.text("from_step").unwrap_or_default().to_owned();
    let request = RetryRequest { job: Some(job), from_step };
    let tasks = call.rest.front.retry(call.ask(request)).await?.into_inner().tasks;
    ok(&value!({ "id": id, "tasks": tasks }))
}

pub(super) async fn tasks(call: Call) -> Result<Response, Refusal> {
    let job = call.job()?;
    let step = match call.query.text("step") {
        Some(name) => step_index(&call.spec(&job).await?, name)?,
        None => 0,
    };
    let request = ListTasksRequest {
        job: Some(job),
        step,
        limit: narrow(call.query.number("limit")),
        from_task: call.query.number("cursor").unwrap_or(0),
    };
    let reply = call.rest.front.list_tasks(call.ask(request)).await?.into_inner();
    let tasks: Vec<Value> = reply.tasks.iter().map(shown::task).collect();
    ok(&value!({ "tasks": tasks, "next_cursor": cursor(reply.next_task) }))
}

pub(super) async fn why(call: Call) -> Result<Response, Refusal> {
    let job = call.job()?;
    let id = call.id_of(&job)?;
    let at = call.query.text("at").map(units::parse_since).transpose();
    let (at_ms, ago_ms) = match at.map_err(|error| error.at("at"))? {
        Some(Since::At(at_ms)) => (at_ms, 0),
        Some(Since::Ago(ago_ms)) => (0, ago_ms),
        None => (0, 0),
    };
    let request = WhyRequest { tenant: job.tenant, number: job.number, at_ms, ago_ms };
    ok(&shown::why(&id, &call.rest.front.why(call.ask(request)).await?.into_inner()))
}

pub(super) async fn outputs(call: Call) -> Result<Response, Refusal> {
    let request = call.ask(call.job()?);
    let reply = call.rest.front.outputs(request).await?.into_inner();
    ok(&value!({ "outputs": shown::outputs(&reply) }))
}

/// Sends the caller where the bytes are, so that they are counted, limited and cut to
/// ranges in one place.
pub(super) async fn output(call: Call) -> Result<Response, Refusal> {
    let request = call.ask(call.job()?);
    let path = call.path.get("path").map_or("", String::as_str);
    let link = call.rest.front.output_link(request, path).await?;
    let mut response = StatusCode::TEMPORARY_REDIRECT.into_response();
    let place = call.rest.gate.base.seen_from(&link);
    let place = HeaderValue::from_str(place).map_err(|_| problem::internal("a link is no header"))?;
    response.headers_mut().insert(header::LOCATION, place);
    Ok(response)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Upload {
    digest: String,
    #[serde(deserialize_with = "whole")]
    size_bytes: Option<u64>,
}

/// Digest and size.
pub(super) fn read_upload(text: &str) -> Result<(String, u64), Problem> {
    let Upload { digest, size_bytes } = read_json(text)?;
    let size_bytes = size_bytes.ok_or_else(|| {
        Problem::new("spec.missing", "size_bytes", "", "is null", "tell how many bytes there are")
    })?;
    Ok((digest, size_bytes))
}

pub(super) async fn upload(call: Call, body: Body) -> Result<Response, Refusal> {
    let text = json_text(&call.headers, body, limits::SMALL_BODY_BYTES_MAX).await?;
    let (digest, size_bytes) = read_upload(&text)?;
    let request = CreateUploadRequest { tenant: call.tenant(), digest, size_bytes, beside_bytes: 0 };
    let url = call.rest.front.create_upload(call.ask(request)).await?.into_inner().url;
    if url.is_empty() {
        return ok(&value!({ "url": null }));
    }
    Ok(json(StatusCode::CREATED, &value!({ "url": url })))
}
