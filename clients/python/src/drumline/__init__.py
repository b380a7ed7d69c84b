"""Drumline's client: submit batch jobs, follow them, fetch what they give.

>>> with drumline.Client.from_env() as client:
...     job = client.submit(run="echo $((6 * 7))")
...     b"".join(chunk.data for chunk in job.logs())
b'42\\n'
"""

from drumline.client import Client
from drumline.errors import (
    Broken,
    Conflict,
    Denied,
    Error,
    NotFound,
    OverLimit,
    Quota,
    Refused,
    TimedOut,
    Unreachable,
    WrongUse,
)
from drumline.follow import LogStream
from drumline.job import Job
from drumline.values import (
    Artifact,
    Event,
    JobResult,
    JobStatus,
    JobSummary,
    LogChunk,
    State,
    StepStatus,
    Why,
)

__all__ = [
    "Artifact",
    "Broken",
    "Client",
    "Conflict",
    "Denied",
    "Error",
    "Event",
    "Job",
    "JobResult",
    "JobStatus",
    "JobSummary",
    "LogChunk",
    "LogStream",
    "NotFound",
    "OverLimit",
    "Quota",
    "Refused",
    "State",
    "StepStatus",
    "TimedOut",
    "Unreachable",
    "Why",
    "WrongUse",
]
