"""One job that was submitted: waited for, followed, ended, its outputs fetched."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

from drumline import fetch, limits
from drumline.connection import Connection
from drumline.errors import NotFound, TimedOut, Unreachable, WrongUse
from drumline.follow import LogStream, Stream
from drumline.follow import follow as follow_stream
from drumline.v1 import tenant_pb2, types_pb2
from drumline.values import (
    Artifact,
    Event,
    JobResult,
    JobStatus,
    LogChunk,
    Names,
    State,
    Why,
    instant,
    job_id,
    job_status,
    ordinal,
    state,
)

_STREAMS = {
    None: tenant_pb2.STREAM_UNSPECIFIED,
    "stdout": tenant_pb2.STREAM_STDOUT,
    "stderr": tenant_pb2.STREAM_STDERR,
}


class Job:
    """A handle; made by `Client.submit` and `Client.job`.

    It holds no state of its own: everything is asked of the server when it is used.
    """

    def __init__(
        self, connection: Connection, tenant: str, number: int, spec: types_pb2.JobSpec, existing: bool
    ) -> None:
        self._connection = connection
        self._stub = connection.stub
        self._request = tenant_pb2.JobRequest(tenant=tenant, number=number)
        self._spec = spec
        self._names = Names(tenant, number, spec)
        self.existing = existing
        """True where the idempotency key had been used for the same job before."""

    @property
    def id(self) -> str:
        """As `lab-17`."""
        return job_id(self._request.tenant, self._request.number)

    @property
    def name(self) -> str:
        """As it was submitted."""
        return self._spec.name

    @property
    def state(self) -> State:
        """Where it is now; asks the server."""
        return self.status().state

    def __repr__(self) -> str:
        return f"<Job {self.id}>"

    def status(self) -> JobStatus:
        """Where it is now, with its steps.

        >>> job = client.submit(argv=["true"], array="1-10")
        >>> status = job.status()
        >>> step, = status.steps
        >>> step.name, step.pending + step.active + step.completed
        ('main', 10)
        """
        return self._status(limits.CALL_SECONDS)

    def _status(self, seconds: float) -> JobStatus:
        return job_status(self._connection.call(self._stub.GetJob, self._request, seconds))

    def wait(self, timeout: float | None = None) -> JobResult:
        """Waits for the end, also over a server's restart.

        Raises TimedOut after `timeout` seconds; the job goes on then.

        >>> client.submit(run="exit 3", retries=0).wait(timeout=60).exit_code
        3
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        patience = self._connection.patience()
        pause = limits.POLL_FIRST_SECONDS
        while True:
            left = limits.CALL_SECONDS if deadline is None else deadline - time.monotonic()
            if left <= 0:
                raise TimedOut(
                    "local.timeout",
                    "timeout",
                    timeout,
                    f"passed before {self.id} had ended",
                    "it goes on; wait again, or see why()",
                )
            try:
                status = self._status(min(left, limits.CALL_SECONDS))
            except Unreachable as error:
                if deadline is None or time.monotonic() < deadline:
                    patience.bear(error)
                continue
            patience.heard()
            if status.state.ended:
                return JobResult(self.id, status.state, status.exit_code, status.reason)
            time.sleep(min(pause, left))
            pause = min(pause * 2, limits.POLL_LONGEST_SECONDS)

    def logs(
        self,
        follow: bool = True,
        *,
        step: str | None = None,
        task: int | None = None,
        rank: int | None = None,
        attempt: int | None = None,
        stream: str | None = None,
        tail: float | None = None,
        since: datetime | None = None,
    ) -> LogStream:
        """What its tasks wrote, in order, once, also over a server's restart.

        With `follow` until the job has ended and all is told, else what there is now.
        `step`, `task` (the array's index), `rank`, `attempt` and `stream` (`stdout`,
        `stderr`) choose; `tail` gives only the last so many seconds, `since` only what was
        written from then on (a moment with its time zone, or of this machine's). Raises
        Unreachable where the server stays away, or keeps ending the stream before
        its end marker, for longer than the client's patience.

        >>> job = client.submit(argv=["echo", "hello"])
        >>> for chunk in job.logs():
        ...     print(chunk.step, chunk.stream, chunk.data)
        main stdout b'hello\\n'
        """
        if stream not in _STREAMS:
            raise WrongUse("use.wrong", "stream", stream, "is no stream", "use stdout or stderr")
        request = tenant_pb2.LogsRequest(
            job=self._request, rank=rank, attempt=attempt, stream=_STREAMS[stream], follow=follow
        )
        if since is not None:
            request.since_ms = max(0, int(since.timestamp() * 1000))
        if step is not None or task is not None:
            request.step = self._step(step)
        if task is not None:
            request.task = self._task(request.step, task)
        return LogStream(lambda log: self._log_chunks(log, request, tail))

    def _step(self, name: str | None) -> int:
        for at, step in enumerate(self._spec.steps):
            if name == step.name or (name is None and len(self._spec.steps) == 1):
                return at
        if name is None:
            raise WrongUse("use.wrong", "step", "", "the job has several steps", "say which is meant")
        raise NotFound("missing.step", "step", name, "there is no such step", "see status().steps")

    def _task(self, step: int, index: int) -> int:
        found = ordinal(self._spec.steps[step], index)
        if found is None:
            raise NotFound("missing.task", "task", index, "there is no such task", "see the array")
        return found

    def _log_chunks(
        self, log: LogStream, request: tenant_pb2.LogsRequest, tail: float | None
    ) -> Iterator[LogChunk]:
        begun = time.monotonic()

        def reopen() -> Stream[tenant_pb2.LogsReply]:
            # A tail is told from where it began; then the cursor alone tells.
            if tail is not None and request.cursor == 0:
                request.tail_ms = max(1, int((tail + time.monotonic() - begun) * 1000))
            else:
                request.tail_ms = 0
            return self._connection.open(self._stub.Logs, request)

        def take(reply: tenant_pb2.LogsReply) -> tuple[Sequence[LogChunk], bool]:
            chunks = [self._names.log_chunk(chunk) for chunk in reply.chunks]
            request.cursor = reply.cursor
            if reply.end:
                log.missing_bytes = reply.missing_bytes
            return chunks, reply.end

        return follow_stream(self._connection.server, self._connection.patience(), reopen, take)

    def events(self, from_seq: int = 0, follow: bool = True) -> Iterator[Event]:
        """Its history, in order, without gaps or repeats, also over a server's restart.

        Begins at the event numbered `from_seq`; numbers are counted over all jobs of
        the tenant. With `follow` until the job has ended.

        >>> job = client.submit(argv=["true"])
        >>> [str(event.after) for event in job.events() if event.step is None]
        ['PENDING', 'STAGING', 'RUNNING', 'COMPLETED']
        """
        return history(self._connection, self._request.tenant, self._request.number, from_seq, follow)

    def artifacts(self) -> list[Artifact]:
        """The output files that there are by now."""
        return [
            Artifact(want.path, want.size_bytes, want.digest)
            for want in fetch.wants(self._connection, self._request)
        ]

    def outputs(self, directory: str | os.PathLike[str]) -> list[Path]:
        """Fetches its output files below `directory`, verified, and tells where they are.

        They lie as `STEP/…`, or `STEP/INDEX/…` where a step had many tasks. Each file
        appears whole or not at all.

        >>> job = client.submit(run="echo 42 > answer", outputs=["answer"])
        >>> job.wait(timeout=60).ok
        True
        >>> [path.read_text() for path in job.outputs("outputs")]
        ['42\\n']
        """
        return fetch.outputs(self._connection, self._request, Path(directory))

    def cancel(self, reason: str = "") -> State:
        """Asks for its end; the state may be as before until its tasks have stopped.

        >>> job = client.submit(argv=["sleep", "1000"])
        >>> _ = job.cancel("changed my mind")
        >>> job.wait(timeout=60).state
        <State.CANCELLED: 'CANCELLED'>
        """
        request = tenant_pb2.CancelRequest(job=self._request, reason=reason)
        return state(self._connection.call(self._stub.Cancel, request).state)

    def retry(self, from_step: str = "") -> int:
        """Tries failed and cancelled tasks again, or `from_step` and all after it.

        Tells how many tasks that are.

        >>> job = client.submit(run="exit 1", retries=0)
        >>> job.wait(timeout=60).reason
        'step main: exit code 1'
        >>> job.retry()
        1
        """
        request = tenant_pb2.RetryRequest(job=self._request, from_step=from_step)
        return self._connection.call(self._stub.Retry, request).tasks

    def why(self) -> Why:
        """What it waits for, or what became of it.

        >>> first = client.submit(argv=["sleep", "1000"])
        >>> second = client.submit(argv=["true"], after=first)
        >>> second.why().code
        'waiting.job'
        >>> _ = first.cancel()
        """
        request = tenant_pb2.WhyRequest(tenant=self._request.tenant, number=self._request.number)
        told = self._connection.call(self._stub.Why, request)
        return Why(told.headline, tuple(told.details), told.code, instant(told.expected_start_ms))


def history(
    connection: Connection, tenant: str, number: int, from_seq: int, is_followed: bool
) -> Iterator[Event]:
    """Events of one job, or of all where the number is 0."""
    request = tenant_pb2.EventsRequest(
        tenant=tenant, from_seq=from_seq, follow=is_followed, job_number=number
    )

    def take(reply: tenant_pb2.EventsReply) -> tuple[Sequence[Event], bool]:
        # Asks for names first: should that fail, the place has not moved.
        events = [connection.names(tenant, event.job_number).event(event) for event in reply.events]
        request.from_seq = reply.next_seq
        return events, reply.end

    return follow_stream(
        connection.server,
        connection.patience(),
        lambda: connection.open(connection.stub.Events, request),
        take,
    )
