//! Requests as REST reads them before it asks anybody: queries of every
//! operation, and the bodies of those that take one.

use crate::door::refused;
use crate::jobs::submitted;
use gateway::reading::{self, Said};
use proto::envelope::Submission;
use proto::v1::{TenantRow, TenantView};
use serde_json::Value;

/// What a `PUT` of limits says; what a `GET` shows beyond it is not for writing.
const LIMITS: [&str; 8] =
    ["quota", "budget", "core_hour", "gpu_hour", "when_full", "retention_ms", "weight", "parent"];

/// The first byte says which operation; the first line is the query, what
/// follows the body.
pub fn rest_request(data: &[u8]) {
    let Some((which, rest)) = data.split_first() else { return };
    let Ok(text) = std::str::from_utf8(rest) else { return };
    let (query, body) = text.split_once('\n').unwrap_or((text, ""));
    let operations: Vec<&str> = reading::operations().collect();
    match reading::read(operations[usize::from(*which) % operations.len()], query, body) {
        Ok(Said::Submission(Submission { spec, .. })) => submitted(&spec),
        Ok(Said::Limits(row)) => shown(row),
        Ok(Said::Upload(..) | Said::Nothing) => {}
        Err(problem) => refused(&problem),
    }
}

/// What was put and is then shown may be put again, and is the same.
fn shown(row: TenantRow) {
    let view = TenantView { tenant: Some(row.clone()), ..TenantView::default() };
    let Value::Object(mut shown) = proto::json::tenant(&view) else { panic!("a tenant is no object") };
    shown.retain(|key, _| LIMITS.contains(&key.as_str()));
    let again = reading::read("putQuota", "", &Value::Object(shown).to_string());
    match again {
        Ok(Said::Limits(again)) => assert_eq!(again, row, "put again it is another"),
        other => panic!("{row:?} is shown as what cannot be put: {other:?}"),
    }
}
