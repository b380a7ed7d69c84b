//! The one refusal type, as every door shows it.
//!
//! A [`Problem`] has a stable dotted code, the field and value it is about, a
//! reason and a remedy. It fits one line, and travels in the details of a gRPC
//! status, whose own code follows from the first part of the problem's code.

use crate::limits::{PROBLEM_FIELD_BYTES_MAX, PROBLEM_TEXT_BYTES_MAX, PROBLEM_VALUE_BYTES_MAX};
pub use crate::v1::Problem;
use prost::Message as _;
use std::fmt;
use tonic::{Code, Status};

impl Problem {
    /// A refusal of one field. Texts are cut to fit a header.
    #[must_use]
    pub fn new(
        code: &str,
        field: impl Into<String>,
        value: impl fmt::Display,
        reason: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        debug_assert!(code.contains('.'), "a code is dotted: {code}");
        Self {
            code: code.to_owned(),
            field: cut(field.into(), PROBLEM_FIELD_BYTES_MAX),
            value: cut(value.to_string(), PROBLEM_VALUE_BYTES_MAX),
            reason: cut(reason.into(), PROBLEM_TEXT_BYTES_MAX),
            remedy: cut(remedy.into(), PROBLEM_TEXT_BYTES_MAX),
            quota: None,
        }
    }

    /// The same problem seen from one level up: `cores` becomes `step[2].cores`.
    #[must_use]
    pub fn within(self, parent: &str) -> Self {
        let field = match self.field.as_str() {
            "" => parent.to_owned(),
            field if field.starts_with('[') => format!("{parent}{field}"),
            field => format!("{parent}.{field}"),
        };
        self.of_field(field)
    }

    /// The same problem told of another field.
    #[must_use]
    pub fn of_field(mut self, field: impl Into<String>) -> Self {
        self.field = cut(field.into(), PROBLEM_FIELD_BYTES_MAX);
        self
    }

    /// The same problem told of another value.
    #[must_use]
    pub fn of_value(mut self, value: impl Into<String>) -> Self {
        self.value = cut(value.into(), PROBLEM_VALUE_BYTES_MAX);
        self
    }

    /// The first part of the code: `spec`, `quota`, `auth` …
    #[must_use]
    pub fn family(&self) -> &str {
        self.code.split('.').next().unwrap_or_default()
    }

    /// The gRPC code that the family stands for.
    #[must_use]
    pub fn grpc_code(&self) -> Code {
        match self.family() {
            "spec" => Code::InvalidArgument,
            "quota" | "budget" | "limit" => Code::ResourceExhausted,
            "auth" => Code::Unauthenticated,
            "denied" => Code::PermissionDenied,
            "missing" => Code::NotFound,
            "conflict" if self.code.starts_with("conflict.exists") => Code::AlreadyExists,
            "conflict" | "outputs" => Code::FailedPrecondition,
            "unavailable" => Code::Unavailable,
            _ => Code::Internal,
        }
    }
}

/// No usable token.
#[must_use]
pub fn auth(reason: &str) -> Problem {
    Problem::new(
        "auth.token",
        "token",
        "",
        reason,
        "give a token with --token or DRUMLINE_TOKEN; `drumline tokens create` makes one",
    )
}

/// The token is known but may not do this.
#[must_use]
pub fn denied(field: &str, value: impl fmt::Display, reason: &str) -> Problem {
    Problem::new("denied.role", field, value, reason, "use a token whose role allows it")
}

/// There is no such thing; `field` is also the code's second part.
#[must_use]
pub fn missing(field: &str, value: impl fmt::Display) -> Problem {
    Problem::new(
        &format!("missing.{field}"),
        field,
        value,
        format!("there is no such {field}"),
        "check the name, and the tenant it belongs to",
    )
}

/// What is there stands in the way.
#[must_use]
pub fn conflict(
    what: &str,
    field: &str,
    value: impl fmt::Display,
    reason: impl Into<String>,
    remedy: &str,
) -> Problem {
    Problem::new(&format!("conflict.{what}"), field, value, reason, remedy)
}

/// The server cannot do it now; trying again later is right.
#[must_use]
pub fn unavailable(what: &str, reason: impl Into<String>) -> Problem {
    Problem::new(&format!("unavailable.{what}"), "", "", reason, "try again in a moment")
}

/// This server serves nobody now: it shares its store with others, and one of them
/// has the jobs.
#[must_use]
pub fn standby() -> Problem {
    Problem::new(
        STANDBY,
        "",
        "",
        "this server stands by: another one serves now",
        "ask the next server; name all of them, as --server A,B,C",
    )
}

/// The code of [`standby`].
pub const STANDBY: &str = "unavailable.standby";

/// A fault of Drumline itself.
#[must_use]
pub fn internal(reason: impl Into<String>) -> Problem {
    Problem::new("internal.fault", "", "", reason, "look into the server's log and report it")
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = String::new();
        match (self.field.as_str(), self.value.as_str()) {
            ("", "") => {}
            ("", value) => line = format!("{value}: "),
            (field, "") => line = format!("{field}: "),
            (field, value) => line = format!("{field} = {value}: "),
        }
        line.push_str(if self.reason.is_empty() { &self.code } else { &self.reason });
        if !self.remedy.is_empty() {
            line.push_str("; ");
            line.push_str(&self.remedy);
        }
        // One line, whatever a value held.
        f.write_str(&line.replace(['\n', '\r', '\t'], " "))
    }
}
impl std::error::Error for Problem {}

impl From<Problem> for Status {
    fn from(problem: Problem) -> Self {
        Status::with_details(problem.grpc_code(), problem.to_string(), problem.encode_to_vec().into())
    }
}
impl From<&Status> for Problem {
    /// The problem that a status carries, or the nearest one where it carries
    /// none (the transport's own statuses).
    fn from(status: &Status) -> Self {
        if let Ok(problem) = Problem::decode(status.details())
            && !problem.code.is_empty()
        {
            return problem;
        }
        let (code, remedy) = match status.code() {
            Code::Unavailable => ("unavailable.server", "is the server up, and is its address right?"),
            Code::DeadlineExceeded | Code::Cancelled => {
                ("unavailable.deadline", "the server did not answer in time; try again")
            }
            Code::Unauthenticated => ("auth.token", "give a token with --token or DRUMLINE_TOKEN"),
            Code::PermissionDenied => ("denied.role", "use a token whose role allows it"),
            Code::NotFound => ("missing.thing", "check the name, and the tenant it belongs to"),
            Code::AlreadyExists => ("conflict.exists", "choose another name"),
            Code::FailedPrecondition | Code::Aborted => ("conflict.state", "look at its state first"),
            Code::ResourceExhausted => ("limit.reached", "ask for less, or try again later"),
            Code::InvalidArgument | Code::OutOfRange => ("spec.argument", "correct the request"),
            Code::Unimplemented => {
                ("missing.operation", "client and server differ in version: update the older")
            }
            // A status with a source was made on this side, of a connection that
            // broke under the call: no server sent it.
            _ if std::error::Error::source(status).is_some() => {
                ("unavailable.server", "is the server up, and is its address right?")
            }
            _ => ("internal.fault", "look into the server's log and report it"),
        };
        Problem::new(code, "", "", status.message(), remedy)
    }
}
impl From<Status> for Problem {
    fn from(status: Status) -> Self {
        Problem::from(&status)
    }
}

fn cut(mut text: String, bytes_max: usize) -> String {
    if text.len() > bytes_max {
        let mut end = bytes_max;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_one_line_with_field_value_reason_and_remedy() {
        let problem =
            Problem::new("spec.size", "cores", 0, "must be above 0", "leave it out for 1").within("step[2]");
        assert_eq!(problem.to_string(), "step[2].cores = 0: must be above 0; leave it out for 1");
        assert_eq!(Problem::new("spec.syntax", "", "a\nb", "bad", "").to_string(), "a b: bad");
        assert_eq!(unavailable("disk", "full").to_string(), "full; try again in a moment");
    }

    #[test]
    fn travels_in_a_status_and_comes_back_the_same() {
        for (code, grpc) in [
            ("spec.cycle", Code::InvalidArgument),
            ("quota.exceeded", Code::ResourceExhausted),
            ("budget.exceeded", Code::ResourceExhausted),
            ("limit.requests", Code::ResourceExhausted),
            ("auth.token", Code::Unauthenticated),
            ("denied.role", Code::PermissionDenied),
            ("missing.job", Code::NotFound),
            ("conflict.exists", Code::AlreadyExists),
            ("conflict.ended", Code::FailedPrecondition),
            ("unavailable.store", Code::Unavailable),
            ("internal.fault", Code::Internal),
        ] {
            let problem = Problem::new(code, "f", "v", "r", "m");
            let status = Status::from(problem.clone());
            assert_eq!(status.code(), grpc, "{code}");
            assert_eq!(Problem::from(status), problem);
        }
    }

    #[test]
    fn a_bare_status_becomes_the_nearest_problem() {
        let problem = Problem::from(Status::unavailable("connection refused"));
        assert_eq!((problem.code.as_str(), problem.family()), ("unavailable.server", "unavailable"));
        assert!(problem.to_string().starts_with("connection refused; "));
        assert_eq!(Problem::from(Status::internal("a broken invariant")).code, "internal.fault");
    }

    #[test]
    fn a_connection_that_breaks_under_a_call_is_no_fault_of_the_server() {
        let broken = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
        let problem = Problem::from(Status::from_error(Box::new(broken)));
        assert_eq!((problem.code.as_str(), problem.family()), ("unavailable.server", "unavailable"));
    }

    #[test]
    fn long_values_are_cut_between_characters() {
        let problem = Problem::new("spec.name", "name", "é".repeat(1000), "too long", "shorten it");
        assert!(problem.value.len() <= PROBLEM_VALUE_BYTES_MAX + '…'.len_utf8());
    }

    #[test]
    fn so_are_fields_which_may_be_the_callers_own_words() {
        let problem = Problem::new("spec.unknown_key", "k".repeat(5000), "", "is unknown", "take it out");
        let problem = problem.within("step[0]").of_value("v".repeat(5000));
        assert!(problem.field.len() <= PROBLEM_FIELD_BYTES_MAX + '…'.len_utf8());
        assert!(problem.value.len() <= PROBLEM_VALUE_BYTES_MAX + '…'.len_utf8());
    }
}
