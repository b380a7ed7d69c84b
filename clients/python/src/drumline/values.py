"""What jobs look like from outside: plain values, made from what the server sends."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from enum import Enum

from drumline.v1 import rows_pb2, tenant_pb2, types_pb2


class State(str, Enum):
    """Where a job, step or task is on its way."""

    PENDING = "PENDING"
    STAGING = "STAGING"
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    def __str__(self) -> str:
        return self.value

    @property
    def ended(self) -> bool:
        """True once nothing changes by itself any more."""
        return self in (State.COMPLETED, State.FAILED, State.CANCELLED)


@dataclass(frozen=True)
class JobResult:
    """How a job ended."""

    id: str
    state: State
    exit_code: int
    """0 where it completed; else the highest of its tasks, 128+n for a signal, at least 1."""
    reason: str
    """One line; empty where it completed."""

    @property
    def ok(self) -> bool:
        """True where it completed."""
        return self.state is State.COMPLETED


@dataclass(frozen=True)
class StepStatus:
    """One step, and how many of its tasks are where."""

    name: str
    state: State
    pending: int
    active: int
    completed: int
    failed: int
    cancelled: int


@dataclass(frozen=True)
class JobStatus:
    """A job at one moment."""

    id: str
    name: str
    state: State
    exit_code: int
    reason: str
    submitted: datetime
    started: datetime | None
    ended: datetime | None
    steps: tuple[StepStatus, ...]


@dataclass(frozen=True)
class JobSummary:
    """One line of a list."""

    id: str
    name: str
    state: State
    priority: int
    tasks: int
    submitted: datetime
    labels: dict[str, str]


@dataclass(frozen=True)
class LogChunk:
    """Bytes that a task wrote. Chunks of one stream follow each other without gaps,
    but may end anywhere in a line."""

    step: str
    task: int
    """The index of the array, as `DRUMLINE_TASK` tells it; 0 where there is none."""
    rank: int
    attempt: int
    stream: str
    """`stdout` or `stderr`."""
    data: bytes
    at: datetime


@dataclass(frozen=True)
class Event:
    """One change, numbered within its tenant."""

    seq: int
    at: datetime
    job: str
    step: str | None
    """None: the job itself changed."""
    tasks: tuple[range, ...]
    """Indexes of tasks that moved together; empty: the step or job itself."""
    before: State | None
    after: State
    cause: str
    """As `exit`, `node_lost`, `cancelled_by_user`."""
    reason: str
    exit_code: int
    attempt: int
    node: str


@dataclass(frozen=True)
class Why:
    """What a job waits for, or what became of it."""

    headline: str
    details: tuple[str, ...]
    code: str
    """Stable: `waiting.capacity`, `running`, `ended` and others."""
    expected_start: datetime | None


@dataclass(frozen=True)
class Artifact:
    """An output file."""

    path: str
    """Where it lies below the directory of `outputs`."""
    size_bytes: int
    digest: str
    """SHA-256, lower-case hexadecimal."""


_JOB_ID = re.compile(r"(?:([a-z0-9][a-z0-9-]{0,62})-)?([0-9]{1,20})")


def parse_job_id(text: str, tenant: str) -> tuple[str, int] | None:
    """Tenant and number of `lab-17`, or of `17` for the given tenant."""
    match = _JOB_ID.fullmatch(text)
    if match is None or not 0 < int(match[2]) < 1 << 64:
        return None
    return match[1] or tenant, int(match[2])


def job_id(tenant: str, number: int) -> str:
    """`lab-17`."""
    return f"{tenant}-{number}"


def instant(ms: int) -> datetime | None:
    """Milliseconds since 1970, where 0 is none."""
    return moment(ms) if ms else None


def moment(ms: int) -> datetime:
    """Milliseconds since 1970."""
    return datetime.fromtimestamp(ms / 1000, timezone.utc)


def state(number: int) -> State:
    """A state off the wire."""
    return State(types_pb2.State.Name(number).removeprefix("STATE_"))


def cause_kind(number: int) -> str:
    """`node_lost`, off the wire; a newer server's may have no name here."""
    try:
        name = types_pb2.CauseKind.Name(number)
    except ValueError:
        return str(number)
    return name.removeprefix("CAUSE_KIND_").lower()


def reason(cause: types_pb2.Cause) -> str:
    """One line for a cause; empty where there is nothing to say."""
    if cause.text:
        return " ".join(cause.text.splitlines())
    if cause.kind == types_pb2.CAUSE_KIND_UNSPECIFIED:
        return ""
    if cause.kind == types_pb2.CAUSE_KIND_EXIT:
        return f"exit code {cause.exit_code}"
    if cause.kind == types_pb2.CAUSE_KIND_SIGNAL:
        return f"signal {cause.signal}"
    return cause_kind(cause.kind).replace("_", " ")


def exit_code(row: rows_pb2.JobStateRow) -> int:
    """The exit code that a job's end stands for."""
    if row.state == types_pb2.STATE_COMPLETED:
        return 0
    return row.exit_code if 0 < row.exit_code < 256 else 1


def job_status(view: tenant_pb2.JobView) -> JobStatus:
    """A job with its steps."""
    row, now = view.job, view.state
    where = state(now.state)
    steps = tuple(
        StepStatus(
            step.name, state(at.state), at.pending, at.active, at.completed, at.failed, at.cancelled
        )
        for step, at in zip(row.spec.steps, now.steps)
    )
    return JobStatus(
        id=job_id(row.tenant, row.number),
        name=row.spec.name,
        state=where,
        exit_code=exit_code(now) if where.ended else 0,
        reason="" if where is State.COMPLETED else reason(now.cause),
        submitted=moment(row.submitted_ms),
        started=instant(now.started_ms),
        ended=instant(now.ended_ms),
        steps=steps,
    )


def indexes(array: types_pb2.ArraySpec, first: int, last: int) -> tuple[range, ...]:
    """The indexes, as the user wrote them, of tasks counted from 0; both ends included."""
    found = []
    at = 0
    for item in array.items:
        stride = max(item.stride, 1)
        count = (item.last - item.first) // stride + 1
        low, high = max(first, at), min(last, at + count - 1)
        if low <= high:
            begin = item.first + (low - at) * stride
            found.append(range(begin, begin + (high - low) * stride + 1, stride))
        at += count
        if at > last:
            break
    return tuple(found)


def ordinal(step: types_pb2.Step, index: int) -> int | None:
    """Which task, counted from 0, has this index; None where none has."""
    if not step.HasField("array"):
        return 0 if index == 0 else None
    at = 0
    for item in step.array.items:
        stride = max(item.stride, 1)
        if item.first <= index <= item.last and (index - item.first) % stride == 0:
            return at + (index - item.first) // stride
        at += (item.last - item.first) // stride + 1
    return None


class Names:
    """What a job's steps and tasks are called."""

    def __init__(self, tenant: str, number: int, spec: types_pb2.JobSpec) -> None:
        self.job = job_id(tenant, number)
        self._steps: Sequence[types_pb2.Step] = spec.steps

    def log_chunk(self, chunk: tenant_pb2.LogChunk) -> LogChunk:
        """A chunk with its names."""
        step = self._steps[chunk.step]
        task = chunk.task
        if step.HasField("array"):
            (span,) = indexes(step.array, task, task)
            task = span.start
        stream = "stderr" if chunk.stream == tenant_pb2.STREAM_STDERR else "stdout"
        return LogChunk(
            step.name, task, chunk.rank, chunk.attempt, stream, chunk.data, moment(chunk.at_ms)
        )

    def event(self, event: types_pb2.Event) -> Event:
        """An event with its names."""
        step = self._steps[event.step] if event.HasField("step") else None
        spans: list[range] = []
        for span in event.tasks:
            if step is not None and step.HasField("array"):
                spans.extend(indexes(step.array, span.first, span.last))
            else:
                spans.append(range(span.first, span.last + 1))
        unspecified = types_pb2.STATE_UNSPECIFIED
        # `from` is a word of Python's own.
        before = getattr(event, "from")
        return Event(
            seq=event.seq,
            at=moment(event.at_ms),
            job=self.job,
            step=None if step is None else step.name,
            tasks=tuple(spans),
            before=None if before == unspecified else state(before),
            after=state(event.to),
            cause=cause_kind(event.cause.kind),
            reason=reason(event.cause),
            exit_code=event.cause.exit_code,
            attempt=event.attempt,
            node=event.node,
        )
