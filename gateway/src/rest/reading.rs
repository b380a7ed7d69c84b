//! What a request says by itself, nobody being asked: its query and its body,
//! read as the handlers read them. For whoever tests the readers.

use super::query::{Query, after};
use super::routes::ROUTES;
use super::{jobs, tenants};
use axum::http::Uri;
use proto::envelope::{self, Submission};
use proto::problem::Problem;
use proto::v1::TenantRow;
use world::grpc::axum;

/// What a body came to.
#[derive(Clone, Debug)]
pub enum Said {
    /// The operation takes none.
    Nothing,
    /// A job.
    Submission(Submission),
    /// A tenant's limits.
    Limits(TenantRow),
    /// An upload's digest and size.
    Upload(String, u64),
}

/// All operations by name.
pub fn operations() -> impl Iterator<Item = &'static str> {
    ROUTES.iter().flat_map(|route| route.operations).map(|operation| operation.id)
}

/// Reads a request of the operation of this name.
pub fn read(operation: &str, query: &str, body: &str) -> Result<Said, Problem> {
    let Some(found) = ROUTES.iter().flat_map(|route| route.operations).find(|found| found.id == operation)
    else {
        return Err(Problem::new("missing.operation", "operation", operation, "there is no such one", ""));
    };
    let uri: Uri = format!("/?{query}").parse().map_err(|error| {
        Problem::new("http.query", "query", query, format!("{error}"), "correct the query")
    })?;
    let query = Query::read(found.query, &uri)?;
    match operation {
        "submitJob" => {
            let Submission { tenant, mut spec } = envelope::parse(body)?;
            let tenant = jobs::one_tenant(query.text("tenant").unwrap_or_default(), &tenant)?;
            for text in query.texts("after") {
                spec.after.push(after(text)?.1);
            }
            Ok(Said::Submission(Submission { tenant, spec }))
        }
        "createUpload" => jobs::read_upload(body).map(|(digest, size)| Said::Upload(digest, size)),
        "putQuota" => tenants::read_limits(body).map(Said::Limits),
        _ => Ok(Said::Nothing),
    }
}
