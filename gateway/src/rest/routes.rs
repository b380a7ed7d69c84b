//! Everything there is to call over REST, as one table. Router, query reading and
//! the OpenAPI document all come from it.

use super::problem::Refusal;
use super::query::{Kind, Param};
use super::{Call, cluster, events, jobs, logs, metrics, openapi, tenants};
use crate::auth::Right;
use crate::limits;
use axum::body::Body;
use axum::http::Method;
use axum::response::Response;
use futures_util::future::BoxFuture;
use world::grpc::axum;

/// A path with what may be done there.
#[derive(Debug)]
pub(super) struct Route {
    pub path: &'static str,
    pub operations: &'static [Operation],
}

/// The methods there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Get,
    Post,
    Put,
    Delete,
}

/// One operation.
pub(super) struct Operation {
    pub verb: Verb,
    pub id: &'static str,
    pub summary: &'static str,
    /// What the token must allow; `None`: asked without one.
    pub right: Option<Right>,
    pub query: &'static [Param],
    /// Headers that mean something, in lower case.
    pub headers: &'static [Param],
    /// The JSON body's schema.
    pub body: Option<&'static str>,
    pub answers: &'static [Answer],
    /// Statuses of refusals beyond those that follow from the rest.
    pub refusals: &'static [u16],
    pub handler: fn(Call, Body) -> BoxFuture<'static, Result<Response, Refusal>>,
}

impl std::fmt::Debug for Operation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Operation").field("id", &self.id).finish_non_exhaustive()
    }
}

/// One way in which an operation succeeds.
#[derive(Debug)]
pub(super) struct Answer {
    pub status: u16,
    pub about: &'static str,
    /// Media types, each with its schema.
    pub content: &'static [(&'static str, &'static str)],
    /// Says where the new thing is.
    pub location: bool,
}

impl Verb {
    /// `HEAD` is a `GET` whose body is left out.
    pub fn of(method: &Method) -> Option<Self> {
        match *method {
            Method::GET | Method::HEAD => Some(Self::Get),
            Method::POST => Some(Self::Post),
            Method::PUT => Some(Self::Put),
            Method::DELETE => Some(Self::Delete),
            _ => None,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
        }
    }

    /// As `Allow` lists it.
    fn names(self) -> &'static str {
        match self {
            Self::Get => "GET, HEAD",
            other => other.name(),
        }
    }
}

impl Route {
    /// For the header of that name.
    pub fn allow(&self) -> String {
        let names: Vec<&str> = self.operations.iter().map(|operation| operation.verb.names()).collect();
        names.join(", ")
    }
}

const JSON: &str = "application/json";

const fn answer(schema: &'static [(&'static str, &'static str)], about: &'static str) -> Answer {
    Answer { status: 200, about, content: schema, location: false }
}

const fn one(name: &'static str, kind: Kind, about: &'static str) -> Param {
    Param { name, kind, many: false, about }
}

const fn many(name: &'static str, kind: Kind, about: &'static str) -> Param {
    Param { name, kind, many: true, about }
}

/// Fields that most operations leave alone.
const PLAIN: Operation = Operation {
    verb: Verb::Get,
    id: "",
    summary: "",
    right: Some(Right::ReadJobs),
    query: &[],
    headers: &[],
    body: None,
    answers: &[],
    refusals: &[],
    handler: |call, _| Box::pin(jobs::show(call)),
};

const TENANT: Param = one("tenant", Kind::Tenant, "Whose; left out, the token's own tenant.");

pub(super) static ROUTES: &[Route] = &[
    Route {
        path: "/v1/jobs",
        operations: &[
            Operation {
                verb: Verb::Post,
                id: "submitJob",
                summary: "Submit a job: the keys of a job file as JSON, or an envelope around them",
                right: Some(Right::Submit),
                query: &[
                    TENANT,
                    one("dry_run", Kind::Flag, "Check and price the job, but do not take it in."),
                    many(
                        "after",
                        Kind::After,
                        "Wait for another job: ok:ID, notok:ID or any:ID; for one task of its array: ok:ID[4], ok:ID/STEP[4]; \
                         for each task's like: each:ID, each:ID/STEP.",
                    ),
                ],
                headers: &[one(
                    "idempotency-key",
                    Kind::Key,
                    "The same key with the same job is the same submission.",
                )],
                body: Some("Submission"),
                answers: &[
                    Answer {
                        status: 201,
                        about: "The job is durable.",
                        content: &[(JSON, "Submitted")],
                        location: true,
                    },
                    answer(
                        &[(JSON, "SubmissionNote")],
                        "The idempotency key was used for this very job before, or it was a dry run.",
                    ),
                ],
                refusals: &[404, 409, 429],
                handler: |call, body| Box::pin(jobs::submit(call, body)),
            },
            Operation {
                id: "listJobs",
                summary: "Jobs, newest first",
                query: &[
                    TENANT,
                    one("all_tenants", Kind::Flag, "Jobs of every tenant (operators and admins)."),
                    many("state", Kind::State, "Only jobs in one of these states."),
                    many("label", Kind::Label, "Only jobs with these labels, each as KEY=VALUE."),
                    one(
                        "limit",
                        Kind::Number { min: 1, max: limits::JOBS_PER_PAGE_MAX as u64 },
                        "Jobs of one answer, about; 100 where it is left out.",
                    ),
                    one(
                        "cursor",
                        Kind::Number { min: 1, max: CURSOR_MAX },
                        "Go on after an earlier answer: its next_cursor.",
                    ),
                ],
                answers: &[answer(&[(JSON, "JobList")], "A page of jobs.")],
                refusals: &[404],
                handler: |call, _| Box::pin(jobs::list(call)),
                ..PLAIN
            },
        ],
    },
    Route {
        path: "/v1/jobs/{id}",
        operations: &[
            Operation {
                id: "getJob",
                summary: "One job with its steps",
                answers: &[answer(&[(JSON, "Job")], "The job.")],
                ..PLAIN
            },
            Operation {
                verb: Verb::Delete,
                id: "cancelJob",
                summary: "Cancel a job; it stays to be looked at",
                right: Some(Right::ChangeJobs),
                query: &[one("reason", Kind::Line, "Kept in the history.")],
                answers: &[
                    Answer {
                        status: 202,
                        about: "It is being cancelled.",
                        content: &[(JSON, "JobState")],
                        location: false,
                    },
                    answer(&[(JSON, "JobState")], "It has ended."),
                ],
                refusals: &[409],
                handler: |call, _| Box::pin(jobs::cancel(call)),
                ..PLAIN
            },
        ],
    },
    Route {
        path: "/v1/jobs/{id}/retry",
        operations: &[Operation {
            verb: Verb::Post,
            id: "retryJob",
            summary: "Try again what failed or was cancelled",
            right: Some(Right::ChangeJobs),
            query: &[one(
                "from_step",
                Kind::Step,
                "Run this step and all after it again, whatever became of them.",
            )],
            answers: &[answer(&[(JSON, "Retried")], "So many tasks are tried again.")],
            refusals: &[409, 410, 429],
            handler: |call, _| Box::pin(jobs::retry(call)),
            ..PLAIN
        }],
    },
    Route {
        path: "/v1/jobs/{id}/tasks",
        operations: &[Operation {
            id: "listTasks",
            summary: "The tasks of one step",
            query: &[
                one("step", Kind::Step, "The step's name; left out, the job's only or first step."),
                one(
                    "limit",
                    Kind::Number { min: 1, max: limits::TASKS_PER_PAGE_MAX as u64 },
                    "Tasks of one answer, at most; 100 where it is left out.",
                ),
                one(
                    "cursor",
                    Kind::Number { min: 1, max: CURSOR_MAX },
                    "Go on after an earlier answer: its next_cursor.",
                ),
            ],
            answers: &[answer(&[(JSON, "TaskList")], "A page of tasks, in order.")],
            handler: |call, _| Box::pin(jobs::tasks(call)),
            ..PLAIN
        }],
    },
    Route {
        path: "/v1/jobs/{id}/logs",
        operations: &[Operation {
            id: "getLogs",
            summary: "What the job's tasks wrote: bytes as they are, JSON lines by `Accept`, or a WebSocket by `Upgrade`",
            query: &[
                one(
                    "tail",
                    Kind::Span,
                    "Only what was written in the last so much time: 10s, 1m. With a cursor it says nothing.",
                ),
                one(
                    "since",
                    Kind::Since,
                    "Only what was written since then: 10m back from now, an instant as RFC 3339 has it, or milliseconds since 1970. With a cursor it says nothing.",
                ),
                one("follow", Kind::Flag, "Go on until the log ends."),
                one("step", Kind::Step, "Only this step."),
                one(
                    "task",
                    Kind::Number { min: 0, max: proto::limits::ARRAY_INDEX_MAX },
                    "Only the task with this index; needs step.",
                ),
                one("rank", Kind::Number { min: 0, max: 65_535 }, "Only this rank of a gang; needs step."),
                one("attempt", Kind::Number { min: 0, max: u32::MAX as u64 }, "Only this attempt."),
                one("stream", Kind::Stream, "Only this stream."),
                one(
                    "epoch",
                    Kind::Number { min: 0, max: CURSOR_MAX },
                    "Only of attempts with this epoch: numbers of attempts begin anew with a retry by hand.",
                ),
                one(
                    "offset",
                    Kind::Number { min: 0, max: CURSOR_MAX },
                    "From this byte of one stream on: name step, attempt and stream, and task and rank where there are several.",
                ),
                one(
                    "cursor",
                    Kind::Number { min: 0, max: CURSOR_MAX },
                    "Go on after an earlier answer's cursor.",
                ),
            ],
            headers: &[one(
                "range",
                Kind::Line,
                "Bytes of the one stream that is named (bytes=N-); not of a log that is followed.",
            )],
            answers: &[
                answer(
                    &[("text/plain", "Bytes"), ("application/x-ndjson", "LogLine")],
                    "The log. As JSON lines its last line says `end`; as bytes the body's own end does.",
                ),
                Answer {
                    status: 206,
                    about: "The part of the stream that was asked for.",
                    content: &[("text/plain", "Bytes")],
                    location: false,
                },
                Answer {
                    status: 101,
                    about: "A WebSocket: each text message is a line as of JSON lines, and the last one says `end`.",
                    content: &[],
                    location: false,
                },
            ],
            refusals: &[409, 410, 416, 422, 429],
            handler: |call, _| Box::pin(logs::logs(call)),
            ..PLAIN
        }],
    },
    Route {
        path: "/v1/jobs/{id}/why",
        operations: &[Operation {
            id: "whyJob",
            summary: "What the job waits for, or waited for",
            query: &[one(
                "at",
                Kind::Since,
                "What it waited for then: `10m` ago, an instant as RFC 3339 has it, or milliseconds since 1970.",
            )],
            answers: &[answer(&[(JSON, "Why")], "The binding constraint first.")],
            handler: |call, _| Box::pin(jobs::why(call)),
            ..PLAIN
        }],
    },
    Route {
        path: "/v1/jobs/{id}/outputs",
        operations: &[Operation {
            id: "listOutputs",
            summary: "The job's output files, each with a signed link",
            answers: &[answer(&[(JSON, "OutputList")], "The files there are so far.")],
            refusals: &[410, 429],
            handler: |call, _| Box::pin(jobs::outputs(call)),
            ..PLAIN
        }],
    },
    Route {
        path: "/v1/jobs/{id}/outputs/{*path}",
        operations: &[Operation {
            id: "getOutput",
            summary: "One output file: where its bytes are",
            answers: &[Answer {
                status: 307,
                about: "The file's signed link. It needs no token, and takes Range, If-Range and If-None-Match.",
                content: &[],
                location: true,
            }],
            refusals: &[410, 429],
            handler: |call, _| Box::pin(jobs::output(call)),
            ..PLAIN
        }],
    },
    Route {
        path: "/v1/events",
        operations: &[Operation {
            id: "listEvents",
            summary: "The tenant's history: a page, server-sent events by `Accept`, or a WebSocket by `Upgrade`",
            query: &[
                TENANT,
                one("job", Kind::Job, "Only events of this job; a stream then ends with it."),
                one("from", Kind::Number { min: 0, max: CURSOR_MAX }, "The first event wanted."),
                one(
                    "limit",
                    Kind::Number { min: 1, max: limits::EVENTS_PER_PAGE_MAX as u64 },
                    "Events of one page, at most; 100 where it is left out. Streams have no limit.",
                ),
            ],
            headers: &[one(
                "last-event-id",
                Kind::Number { min: 0, max: CURSOR_MAX },
                "The last event that was seen: the one after it is the first wanted.",
            )],
            answers: &[
                answer(
                    &[(JSON, "EventPage"), ("text/event-stream", "EventStream")],
                    "What there is, with the number to go on from; or a stream of it and all that follows.",
                ),
                Answer {
                    status: 101,
                    about: "A WebSocket: each text message is an Event, or one of missed, end, problem.",
                    content: &[],
                    location: false,
                },
            ],
            refusals: &[404, 409, 429],
            handler: |call, _| Box::pin(events::events(call)),
            ..PLAIN
        }],
    },
    Route {
        path: "/v1/uploads",
        operations: &[Operation {
            verb: Verb::Post,
            id: "createUpload",
            summary: "Ask where to PUT the bytes of an input",
            right: Some(Right::Submit),
            query: &[TENANT],
            body: Some("Upload"),
            answers: &[
                Answer {
                    status: 201,
                    about: "PUT the bytes to the URL, within an hour.",
                    content: &[(JSON, "UploadLink")],
                    location: false,
                },
                answer(&[(JSON, "UploadLink")], "The bytes are there already: url is null."),
            ],
            refusals: &[404],
            handler: |call, body| Box::pin(jobs::upload(call, body)),
            ..PLAIN
        }],
    },
    Route {
        path: "/v1/nodes",
        operations: &[Operation {
            id: "listNodes",
            summary: "Nodes, with what is granted on them",
            right: Some(Right::ReadCluster),
            answers: &[answer(&[(JSON, "NodeList")], "All nodes.")],
            handler: |call, _| Box::pin(cluster::nodes(call)),
            ..PLAIN
        }],
    },
    Route {
        path: "/v1/nodepools",
        operations: &[Operation {
            id: "listPools",
            summary: "Pools with capacity, and when a request would start there",
            right: Some(Right::ReadCluster),
            query: &[
                one("pool", Kind::Pool, "Only this pool."),
                one("cores", Kind::Cores, "Cores that one task needs."),
                one("memory", Kind::Memory, "Memory that one task needs."),
                one(
                    "gpus",
                    Kind::Number { min: 0, max: proto::limits::GPUS_MAX as u64 },
                    "GPUs that one task needs.",
                ),
                one(
                    "nodes",
                    Kind::Number { min: 1, max: proto::limits::GANG_NODES_MAX as u64 },
                    "Nodes that are needed at once.",
                ),
                one(
                    "tasks_per_node",
                    Kind::Number { min: 1, max: proto::limits::GANG_TASKS_PER_NODE_MAX as u64 },
                    "Tasks on each of them.",
                ),
                one("exclusive", Kind::Flag, "Only whole nodes, on which nothing runs."),
            ],
            answers: &[answer(
                &[(JSON, "PoolList")],
                "All pools; eta is for what is asked, or for one task of one core.",
            )],
            refusals: &[404],
            handler: |call, _| Box::pin(cluster::pools(call)),
            ..PLAIN
        }],
    },
    Route {
        path: "/v1/licenses",
        operations: &[Operation {
            id: "listLicenses",
            summary: "How many there are of each license, and how many are held",
            right: Some(Right::ReadCluster),
            answers: &[answer(&[(JSON, "LicenseList")], "All licenses, by name.")],
            handler: |call, _| Box::pin(cluster::licenses(call)),
            ..PLAIN
        }],
    },
    Route {
        path: "/v1/alerts",
        operations: &[Operation {
            id: "listAlerts",
            summary: "What somebody should look at; a tenant sees those of its own budget and queue",
            right: Some(Right::ReadTenants),
            query: &[one(
                "cleared",
                Kind::Flag,
                "Those that were cleared lately too, after those that are on.",
            )],
            answers: &[answer(&[(JSON, "AlertList")], "By code, then subject.")],
            handler: |call, _| Box::pin(cluster::alerts(call)),
            ..PLAIN
        }],
    },
    Route {
        path: "/v1/tenants/{tenant}/quota",
        operations: &[
            Operation {
                id: "getQuota",
                summary: "A tenant's limits and budget, with what it uses",
                right: Some(Right::ReadTenants),
                answers: &[answer(&[(JSON, "Tenant")], "The tenant.")],
                handler: |call, _| Box::pin(tenants::quota(call)),
                ..PLAIN
            },
            Operation {
                verb: Verb::Put,
                id: "putQuota",
                summary: "Replace a tenant's limits and budget; what is left out is no limit",
                right: Some(Right::ChangeTenants),
                body: Some("Limits"),
                answers: &[answer(&[(JSON, "Tenant")], "As it is now; it takes effect within 5 s.")],
                refusals: &[409],
                handler: |call, body| Box::pin(tenants::put_quota(call, body)),
                ..PLAIN
            },
        ],
    },
    Route {
        path: "/healthz",
        operations: &[Operation {
            id: "health",
            summary: "Whether the server answers",
            right: None,
            answers: &[answer(&[("text/plain", "Health")], "It does.")],
            handler: |_, _| Box::pin(cluster::health()),
            ..PLAIN
        }],
    },
    Route {
        path: "/metrics",
        operations: &[Operation {
            id: "metrics",
            summary: "The cluster in numbers, for Prometheus",
            right: None,
            answers: &[answer(&[("text/plain", "Metrics")], "The text format, version 0.0.4.")],
            refusals: &[500, 503],
            handler: |call, _| Box::pin(metrics::serve(call)),
            ..PLAIN
        }],
    },
    Route {
        path: "/openapi.json",
        operations: &[Operation {
            id: "openapi",
            summary: "This document",
            right: None,
            answers: &[answer(&[(JSON, "Document")], "OpenAPI 3.1.")],
            handler: |call, _| Box::pin(openapi::serve(call)),
            ..PLAIN
        }],
    },
];

/// The largest number that JSON readers keep exactly.
const CURSOR_MAX: u64 = (1 << 53) - 1;

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn operations_have_names_of_their_own() {
        let mut ids = BTreeSet::new();
        for operation in ROUTES.iter().flat_map(|route| route.operations) {
            assert!(ids.insert(operation.id) && !operation.id.is_empty(), "{}", operation.id);
            assert!(!operation.answers.is_empty(), "{}", operation.id);
        }
        let paths: BTreeSet<&str> = ROUTES.iter().map(|route| route.path).collect();
        assert_eq!(paths.len(), ROUTES.len());
    }
}
