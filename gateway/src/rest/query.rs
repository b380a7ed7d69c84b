//! What a query may say: kinds of parameters, each read and documented here.
//!
//! What is not in an operation's list is refused by name, and so is what comes
//! twice where one is meant: a slip in a filter must not become a longer list.

use axum::extract::Query as Pairs;
use axum::http::{HeaderMap, Uri};
use proto::ids::{JobId, NameKind, check_name};
use proto::limits::{MEMORY_BYTES_MAX, MILLICORES_MAX};
use proto::problem::Problem;
use proto::units;
use proto::v1::{Dependency, State, Stream};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use world::grpc::axum;

use super::schemas::patterns;
use crate::limits;

/// One parameter of an operation.
#[derive(Debug)]
pub(super) struct Param {
    pub name: &'static str,
    pub kind: Kind,
    /// It may come more than once.
    pub many: bool,
    pub about: &'static str,
}

/// What a parameter's text must be.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Tenant,
    Pool,
    Step,
    Job,
    /// An idempotency key.
    Key,
    /// `ok:ID`, `any:ID`, `notok:ID`.
    After,
    State,
    /// `KEY=VALUE`.
    Label,
    Stream,
    /// `true` or `false`.
    Flag,
    /// `90s`, `2m`; as milliseconds.
    Span,
    /// `10m` back from now, an instant as RFC 3339 has it, or milliseconds since 1970.
    Since,
    /// As thousandths.
    Cores,
    /// As bytes.
    Memory,
    /// One short line.
    Line,
    Number {
        min: u64,
        max: u64,
    },
}

impl Kind {
    /// As the document states it.
    pub fn schema(self) -> Value {
        match self {
            Self::Tenant | Self::Pool => json!({ "type": "string", "pattern": patterns::LOWER_NAME }),
            Self::Step => json!({ "type": "string", "pattern": patterns::NAME }),
            Self::Job => json!({ "type": "string", "pattern": patterns::JOB_ID }),
            Self::Key => json!({
                "type": "string",
                "pattern": patterns::GRAPHIC,
                "maxLength": proto::limits::IDEMPOTENCY_KEY_BYTES_MAX,
            }),
            Self::After => json!({ "type": "string", "pattern": patterns::AFTER }),
            Self::State => json!({ "type": "string", "enum": STATES }),
            Self::Label => json!({ "type": "string", "pattern": patterns::LABEL_PAIR }),
            Self::Stream => json!({ "type": "string", "enum": ["stdout", "stderr"] }),
            Self::Flag => json!({ "type": "boolean" }),
            Self::Span => json!({ "type": "string", "pattern": patterns::SPAN }),
            Self::Since => json!({ "anyOf": [
                { "type": "integer", "minimum": 0, "maximum": limits::AMOUNT_MAX },
                { "type": "string", "format": "date-time" },
                { "type": "string", "pattern": patterns::SPAN },
            ]}),
            Self::Cores => json!({ "type": "string", "pattern": patterns::CORES }),
            Self::Memory => json!({ "type": "string", "pattern": patterns::MEMORY }),
            Self::Line => json!({
                "type": "string",
                "pattern": patterns::PRINTABLE,
                "maxLength": proto::limits::PROBLEM_TEXT_BYTES_MAX,
            }),
            Self::Number { min, max } => json!({ "type": "integer", "minimum": min, "maximum": max }),
        }
    }

    fn read(self, name: &str, text: &str) -> Result<Read, Problem> {
        let number = |number: u64, max: u64| match number {
            0 => Err(refuse(name, text, "must be above 0", "leave it out, or give more")),
            number if number > max => Err(refuse(name, text, "is too much", "give less")),
            number => Ok(Read::Number(number)),
        };
        match self {
            Self::Tenant => check_name(NameKind::Tenant, name, text).map(|()| Read::of(text)),
            Self::Pool => check_name(NameKind::Pool, name, text).map(|()| Read::of(text)),
            Self::Step => check_name(NameKind::Step, name, text).map(|()| Read::of(text)),
            Self::Job => JobId::parse(text, "").map(|_| Read::of(text)),
            Self::Key if text.is_empty() => {
                Err(refuse(name, text, "is empty", "give a key, or leave it out"))
            }
            Self::Key => proto::validate::idempotency_key(text).map(|()| Read::of(text)),
            Self::After => after(text).map(|_| Read::of(text)),
            Self::State => state(text).map(|state| Read::Number(u64::from(state.unsigned_abs()))),
            Self::Label => label(text).map(|_| Read::of(text)),
            Self::Stream => match text {
                "stdout" => Ok(Read::Number(Stream::Stdout as u64)),
                "stderr" => Ok(Read::Number(Stream::Stderr as u64)),
                _ => Err(refuse(name, text, "is no stream", "use stdout or stderr")),
            },
            Self::Flag => match text {
                "true" => Ok(Read::Number(1)),
                "false" => Ok(Read::Number(0)),
                _ => Err(refuse(name, text, "is neither true nor false", "use true or false")),
            },
            Self::Span => {
                let span_ms = units::parse_duration_ms(text).map_err(|error| error.at(name))?;
                number(span_ms, proto::limits::SPAN_MS_MAX)
            }
            Self::Since => match units::parse_since(text).map_err(|error| error.at(name))? {
                units::Since::Ago(ago_ms) => {
                    number(ago_ms, proto::limits::SPAN_MS_MAX).map(|_| Read::of(text))
                }
                units::Since::At(at_ms) if at_ms > limits::AMOUNT_MAX => {
                    Err(refuse(name, text, "is too far ahead", "give an instant of our time"))
                }
                units::Since::At(_) => Ok(Read::of(text)),
            },
            Self::Cores => {
                let millicores = units::parse_millicores(text).map_err(|error| error.at(name))?;
                number(u64::from(millicores), u64::from(MILLICORES_MAX))
            }
            Self::Memory => {
                let bytes = units::parse_memory_bytes(text).map_err(|error| error.at(name))?;
                number(bytes, MEMORY_BYTES_MAX)
            }
            Self::Line => {
                let fits = text.len() <= proto::limits::PROBLEM_TEXT_BYTES_MAX
                    && !text.chars().any(char::is_control);
                let long = "is not one short line";
                if fits { Ok(Read::of(text)) } else { Err(refuse(name, text, long, "shorten it")) }
            }
            Self::Number { min, max } => {
                let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
                match text.parse::<u64>() {
                    Ok(number) if digits && (min..=max).contains(&number) => Ok(Read::Number(number)),
                    _ => Err(refuse(name, text, "is out of range", &format!("use {min} to {max}"))),
                }
            }
        }
    }
}

const STATES: [&str; 6] = ["PENDING", "STAGING", "RUNNING", "COMPLETED", "FAILED", "CANCELLED"];

fn refuse(name: &str, text: &str, reason: &str, remedy: &str) -> Problem {
    Problem::new("http.query", name, text, reason, remedy)
}

fn state(text: &str) -> Result<i32, Problem> {
    State::from_str_name(&format!("STATE_{}", text.to_ascii_uppercase()))
        .filter(|state| *state != State::Unspecified)
        .map(i32::from)
        .ok_or_else(|| refuse("state", text, "is no state", &format!("use one of {}", STATES.join(", "))))
}

/// `KEY=VALUE` as a filter.
pub(super) fn label(text: &str) -> Result<(String, String), Problem> {
    let Some((key, value)) = text.split_once('=') else {
        return Err(refuse("label", text, "is not KEY=VALUE", "write it like team=blue"));
    };
    let labels = BTreeMap::from([(key.to_owned(), value.to_owned())]);
    proto::validate::labels("label", &labels)?;
    Ok((key.to_owned(), value.to_owned()))
}

/// `ok:ID` and its kin, with the tenant that the id names.
pub(super) fn after(text: &str) -> Result<(String, Dependency), Problem> {
    proto::after::parse(text, "").map_err(|reason| refuse("after", text, &reason, proto::after::REMEDY))
}

#[derive(Debug)]
enum Read {
    Text(String),
    Number(u64),
}

impl Read {
    fn of(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

/// A query past its reading.
#[derive(Debug, Default)]
pub(super) struct Query {
    values: BTreeMap<&'static str, Vec<Read>>,
}

/// Parameters of one query.
const PARAMS_MAX: usize = 256;

impl Query {
    pub fn read(params: &'static [Param], uri: &Uri) -> Result<Self, Problem> {
        let unreadable =
            |why: &str| refuse("query", uri.query().unwrap_or_default(), why, "correct the query");
        let Pairs(pairs) = Pairs::<Vec<(String, String)>>::try_from_uri(uri)
            .map_err(|error| unreadable(&error.to_string()))?;
        if pairs.len() > PARAMS_MAX {
            return Err(unreadable("has too many parameters"));
        }
        let mut query = Self::default();
        for (name, text) in pairs {
            let Some(param) = params.iter().find(|param| param.name == name) else {
                let known: Vec<&str> = params.iter().map(|param| param.name).collect();
                let remedy = if known.is_empty() { "take it out".into() } else { known.join(", ") };
                return Err(refuse(&name, &text, "is no parameter of this", &format!("there are: {remedy}")));
            };
            let values = query.values.entry(param.name).or_default();
            if !param.many && !values.is_empty() {
                return Err(refuse(&name, &text, "is given twice", "give it once"));
            }
            values.push(param.kind.read(param.name, &text)?);
        }
        Ok(query)
    }

    /// Takes in the headers that mean something here; they are asked for by name
    /// as parameters are.
    pub fn read_headers(&mut self, params: &'static [Param], headers: &HeaderMap) -> Result<(), Problem> {
        for param in params {
            let Some(value) = headers.get(param.name) else { continue };
            let text = value
                .to_str()
                .map_err(|_| refuse(param.name, "", "is not ASCII", "use printable ASCII characters"))?;
            self.values.entry(param.name).or_default().push(param.kind.read(param.name, text)?);
        }
        Ok(())
    }

    fn all(&self, name: &str) -> &[Read] {
        self.values.get(name).map_or(&[], Vec::as_slice)
    }

    pub fn text(&self, name: &str) -> Option<&str> {
        self.texts(name).next()
    }

    pub fn texts(&self, name: &str) -> impl Iterator<Item = &str> {
        self.all(name).iter().filter_map(|read| match read {
            Read::Text(text) => Some(text.as_str()),
            Read::Number(_) => None,
        })
    }

    pub fn number(&self, name: &str) -> Option<u64> {
        self.numbers(name).next()
    }

    pub fn numbers(&self, name: &str) -> impl Iterator<Item = u64> {
        self.all(name).iter().filter_map(|read| match read {
            Read::Number(number) => Some(*number),
            Read::Text(_) => None,
        })
    }

    pub fn flag(&self, name: &str) -> bool {
        self.number(name) == Some(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARAMS: &[Param] = &[
        Param { name: "limit", kind: Kind::Number { min: 1, max: 10 }, many: false, about: "" },
        Param { name: "state", kind: Kind::State, many: true, about: "" },
        Param { name: "tail", kind: Kind::Span, many: false, about: "" },
        Param { name: "since", kind: Kind::Since, many: false, about: "" },
        Param { name: "follow", kind: Kind::Flag, many: false, about: "" },
        Param { name: "label", kind: Kind::Label, many: true, about: "" },
    ];

    fn read(query: &str) -> Result<Query, Problem> {
        Query::read(PARAMS, &format!("/x?{query}").parse().unwrap())
    }

    #[test]
    fn a_query_is_read_by_its_kinds() {
        let query = read("limit=7&state=running&state=FAILED&tail=10s&follow=true&label=a%3Db").unwrap();
        assert_eq!(
            (query.number("limit"), query.number("tail"), query.flag("follow")),
            (Some(7), Some(10_000), true)
        );
        assert_eq!(query.numbers("state").collect::<Vec<_>>(), [3, 5]);
        assert_eq!(query.text("label"), Some("a=b"));
        assert_eq!(read("").unwrap().number("limit"), None);
    }

    #[test]
    fn every_slip_is_refused_by_name() {
        for (query, field) in [
            ("limit=0", "limit"),
            ("limit=11", "limit"),
            ("limit=+5", "limit"),
            ("limit=", "limit"),
            ("limit=1&limit=2", "limit"),
            ("state=done", "state"),
            ("tail=0s", "tail"),
            ("tail=soon", "tail"),
            ("since=yesterday", "since"),
            ("since=0s", "since"),
            ("since=2026-02-30T00:00:00Z", "since"),
            ("since=400d", "since"),
            ("since=18446744073709551615", "since"),
            ("follow=1", "follow"),
            ("label=a", "label"),
            ("limt=5", "limt"),
        ] {
            let problem = read(query).unwrap_err();
            assert_eq!(problem.field, field, "{query}");
            assert!(!problem.remedy.is_empty(), "{query}");
        }
    }
}
