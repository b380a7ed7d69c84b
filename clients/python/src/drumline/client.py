"""The way in: jobs submitted, listed and found again."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Union

from drumline import limits, spec, transfer, trees
from drumline.connection import Connection
from drumline.errors import Refused, Unreachable, WrongUse
from drumline.job import Job, history
from drumline.spec import Array, Cores, Size, Time
from drumline.v1 import tenant_pb2, types_pb2
from drumline.values import Event, JobSummary, State, job_id, moment, parse_job_id, state

After = Union[Job, str, Iterable[Union[Job, str]]]
"""Jobs that must have ended first: a Job (well), or `ok:ID`, `notok:ID`, `any:ID`."""


class Client:
    """One server, as one bearer of a token. Safe to use from many threads.

    >>> with drumline.Client.from_env() as client:
    ...     job = client.submit(argv=["echo", "hello"])
    ...     job.wait(timeout=60).ok
    True

    `tenant` is needed only where the token does not tell it. `patience` is for how
    many seconds a follower tries to come back to a server that went away.
    """

    def __init__(
        self,
        server: str,
        token: str,
        tenant: str | None = None,
        *,
        patience: float = limits.PATIENCE_SECONDS,
    ) -> None:
        self._connection = Connection(server, token, tenant or "", patience)
        self._stub = self._connection.stub

    @classmethod
    def from_env(cls) -> Client:
        """As `DRUMLINE_SERVER`, `DRUMLINE_TOKEN` and perhaps `DRUMLINE_TENANT` say."""
        told = os.environ.get
        return cls(told("DRUMLINE_SERVER", ""), told("DRUMLINE_TOKEN", ""), told("DRUMLINE_TENANT"))

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection. Jobs go on."""
        self._connection.close()

    def submit(
        self,
        *,
        argv: Sequence[str] | None = None,
        run: str | None = None,
        name: str | None = None,
        array: Array | None = None,
        cores: Cores | None = None,
        memory: Size | None = None,
        gpus: int | None = None,
        nodes: int | None = None,
        tasks_per_node: int | None = None,
        runtime: str | None = None,
        inputs: Mapping[str, str | os.PathLike[str]] | None = None,
        outputs: Sequence[str] | None = None,
        after: After = (),
        time: Time | None = None,
        expected_runtime: Time | None = None,
        keep: Time | None = None,
        retries: int | None = None,
        priority: int | None = None,
        labels: Mapping[str, str] | None = None,
        env: Mapping[str, str] | None = None,
        pool: str | None = None,
        constraints: Sequence[str] | None = None,
        exclusive: bool | None = None,
        licenses: Mapping[str, int] | None = None,
        checkpoint: str | Mapping[str, Any] | None = None,
        idempotency_key: str = "",
    ) -> Job:
        """Submits a job of one step: `argv`, or `run` for a shell.

        `array` makes many tasks of it (`"0-15%4"`, `range(16)`), `nodes` and
        `tasks_per_node` a gang. `inputs` are files and directories by name, uploaded unless the
        server has them, `sha256:DIGEST` of what was uploaded, or URLs `https://…#sha256=DIGEST`; `outputs` are globs; `time` ends a task that runs longer;
        `keep` is how long outputs and logs are kept at most;
        the rest is as in a job file. The same `idempotency_key` never makes a second
        job, so with it an Unreachable can simply be tried again.

        >>> job = client.submit(
        ...     run="echo task $DRUMLINE_TASK > told", array="0-3%2", memory="16MiB", outputs=["told"]
        ... )
        >>> job.wait(timeout=60).ok
        True
        >>> [file.path for file in job.artifacts()]
        ['main/0/told', 'main/1/told', 'main/2/told', 'main/3/told']
        """
        step = {
            "argv": argv,
            "run": run,
            "array": array,
            "cores": cores,
            "memory": memory,
            "gpus": gpus,
            "nodes": nodes,
            "tasks_per_node": tasks_per_node,
            "runtime": runtime,
            "outputs": outputs,
            "timeout": time,
            "retries": retries,
            "env": env,
            "pool": pool,
            "constraints": constraints,
            "exclusive": exclusive,
            "licenses": licenses,
            "checkpoint": checkpoint,
        }
        job = {
            "name": name,
            "priority": priority,
            "labels": labels,
            "expected_runtime": expected_runtime,
            "keep": keep,
        }
        sources = {name: os.fspath(source) for name, source in (inputs or {}).items()}
        file = spec.one_step(step, sources, job)
        return self.submit_spec(file, after=after, idempotency_key=idempotency_key)

    def submit_spec(
        self, job: Mapping[str, Any], *, after: After = (), idempotency_key: str = ""
    ) -> Job:
        """Submits a job of many steps, in the shape of a job file.

        >>> job = client.submit_spec({
        ...     "name": "two steps",
        ...     "step": [
        ...         {"name": "make", "run": "echo 42 > answer", "outputs": ["answer"]},
        ...         {"name": "show", "after": ["make"], "run": "cat from/make/answer"},
        ...     ],
        ... })
        >>> [chunk.data for chunk in job.logs(step="show")]
        [b'42\\n']
        """
        request = tenant_pb2.ReadJobFileRequest(json=spec.text_of(job))
        return self._submit(request, Path(), after, idempotency_key)

    def submit_file(
        self, path: str | os.PathLike[str], *, after: After = (), idempotency_key: str = ""
    ) -> Job:
        """Submits a job file (TOML, or JSON where it is named so). Paths of inputs are
        relative to its own directory.

        >>> text = 'name = "hello"\\n[[step]]\\nrun = "echo hello"\\n'
        >>> _ = Path("job.toml").write_text(text)
        >>> client.submit_file("job.toml").name
        'hello'
        """
        file = Path(path)
        try:
            with file.open("rb") as opened:
                data = opened.read(limits.JOB_FILE_BYTES_MAX + 1)
            text = data.decode("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise WrongUse(
                "use.wrong", "job file", file, str(error), "give a text file that can be read"
            ) from error
        if len(data) > limits.JOB_FILE_BYTES_MAX:
            raise Refused(
                "spec.too_large",
                "job file",
                file,
                f"has more than {limits.JOB_FILE_BYTES_MAX} bytes",
                "give large texts as inputs",
            )
        if file.suffix == ".json":
            request = tenant_pb2.ReadJobFileRequest(json=text)
        else:
            request = tenant_pb2.ReadJobFileRequest(toml=text)
        return self._submit(request, file.parent, after, idempotency_key)

    def _submit(
        self, text: tenant_pb2.ReadJobFileRequest, base: Path, after: After, idempotency_key: str
    ) -> Job:
        read = self._connection.call(self._stub.ReadJobFile, text).spec
        jobs = [after] if isinstance(after, (Job, str)) else list(after)
        for job in jobs:
            named = f"ok:{job.id}" if isinstance(job, Job) else job
            read.after.append(spec.dependency(named, self._connection.tenant))
        # All are digested before any is sent: a missing file is told first.
        files = [
            (file, f"input[{at}].path")
            for at, given in enumerate(read.inputs)
            for file in _digested(given, base, f"input[{at}].path")
        ]
        for file, field in files:
            self._upload(file, field)
        tenant = self._connection.tenant
        request = tenant_pb2.SubmitRequest(tenant=tenant, spec=read, idempotency_key=idempotency_key)
        reply = self._connection.call(self._stub.Submit, request)
        return Job(self._connection, reply.tenant, reply.number, read, reply.existing)

    def _upload(self, file: transfer.Digested, field: str) -> None:
        """Sends a file unless its bytes are there already."""
        request = tenant_pb2.CreateUploadRequest(
            tenant=self._connection.tenant, digest=file.digest, size_bytes=file.size_bytes
        )
        tries = 0
        while True:
            url = self._connection.call(self._stub.CreateUpload, request).url
            if not url:
                return
            tries += 1
            try:
                return transfer.put(url, file, field)
            except Unreachable:
                if tries >= limits.TRANSFER_TRIES:
                    raise
            time.sleep(limits.RECONNECT_PAUSE_SECONDS * tries)

    def job(self, id: str) -> Job:
        """A job that was submitted before, by its id (`lab-17`, or `17`).

        >>> job = client.submit(argv=["true"])
        >>> client.job(job.id)
        <Job default-...>
        """
        named = parse_job_id(id, self._connection.tenant)
        if named is None:
            raise WrongUse(
                "spec.job_id", "job", id, "is not a job id", "give TENANT-NUMBER, or NUMBER for your own"
            )
        request = tenant_pb2.JobRequest(tenant=named[0], number=named[1])
        row = self._connection.call(self._stub.GetJob, request).job
        return Job(self._connection, row.tenant, row.number, row.spec, True)

    def jobs(
        self,
        *,
        states: Iterable[State | str] = (),
        labels: Mapping[str, str] | None = None,
        all_tenants: bool = False,
    ) -> Iterator[JobSummary]:
        """Jobs, newest first, asked for page by page.

        >>> _ = client.submit(argv=["true"], labels={"run": "seven"})
        >>> [job.name for job in client.jobs(labels={"run": "seven"})]
        ['true']
        """
        wanted = [_state_name(given) for given in states]
        request = tenant_pb2.ListJobsRequest(
            tenant=self._connection.tenant,
            states=wanted,
            labels=labels,
            limit=limits.JOBS_PAGE,
            all_tenants=all_tenants,
        )
        while True:
            reply = self._connection.call(self._stub.ListJobs, request)
            for job in reply.jobs:
                yield _summary(job)
            if not reply.next_before:
                return
            request.before = reply.next_before

    def events(self, from_seq: int = 0, follow: bool = False) -> Iterator[Event]:
        """The history of all jobs, in order, without gaps or repeats.

        Begins at the event numbered `from_seq`. With `follow` it has no end.

        >>> first = next(client.events())
        >>> first.seq, str(first.after)
        (1, 'PENDING')
        """
        return history(self._connection, self._connection.tenant, 0, from_seq, follow)


def _digested(given: types_pb2.Input, base: Path, field: str) -> list[transfer.Digested]:
    """Digests an input that is a path, and names it by its digest instead; what is to be
    sent, of a directory its manifest last."""
    if not given.path:
        return []
    path = base / given.path
    is_tree = path.is_dir()
    if given.HasField("tree") and given.tree != is_tree:
        reason = "is a directory, not a file" if is_tree else "is no directory"
        raise WrongUse("use.wrong", field, path, reason, "leave `tree` out")
    if is_tree:
        tree = trees.read(field, path)
        files, size_bytes = [*tree.files, tree.manifest], tree.size_bytes
    else:
        files = [transfer.digest_file(field, path)]
        size_bytes = files[0].size_bytes
    given.path = ""
    given.digest = files[-1].digest
    given.size_bytes = size_bytes
    given.tree = is_tree
    return files


def _state_name(given: State | str) -> str:
    """As the wire has it."""
    try:
        return f"STATE_{State(str(given).upper())}"
    except ValueError as error:
        raise WrongUse(
            "use.wrong", "states", given, "is no state", f"use one of {', '.join(State)}"
        ) from error


def _summary(job: tenant_pb2.JobSummary) -> JobSummary:
    return JobSummary(
        id=job_id(job.tenant, job.number),
        name=job.name,
        state=state(job.state.state),
        priority=job.priority,
        tasks=job.tasks,
        submitted=moment(job.submitted_ms),
        labels=dict(job.labels),
    )
