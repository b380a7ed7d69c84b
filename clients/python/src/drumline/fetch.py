"""A job's output files, on their way out.

They lie as `DIR/<step>/…`, or `DIR/<step>/<index>/…` where a step had many tasks:
the same tree as `drumline outputs` lays.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from drumline import limits, transfer
from drumline.connection import Connection
from drumline.errors import Broken, Error, Refused, Unreachable
from drumline.v1 import tenant_pb2


@dataclass(frozen=True)
class Want:
    """One file to fetch."""

    path: str
    """Below the target directory."""
    url: str
    digest: str
    size_bytes: int
    mode: int


def wants(connection: Connection, job: tenant_pb2.JobRequest) -> list[Want]:
    """What there is, with links that are good for a while."""
    found = []
    for step in connection.call(connection.stub.Outputs, job).steps:
        for task in step.tasks:
            below = f"{step.step}/{task.index}" if step.indexed else step.step
            for link in task.artifacts:
                file = link.artifact
                path = f"{below}/{file.path}"
                _check_stays_below(path)
                found.append(Want(path, link.url, file.digest, file.size_bytes, file.mode))
    return found


def _check_stays_below(path: str) -> None:
    """A server that names a path outside the directory is refused."""
    parts = path.split("/")
    if "" in parts or ".." in parts or "\0" in path:
        raise Refused("spec.path", "output", path, "leaves the directory", "see the server's log")


def outputs(connection: Connection, job: tenant_pb2.JobRequest, directory: Path) -> list[Path]:
    """Fetches all outputs of a job."""
    missing = wants(connection, job)
    places = [directory / want.path for want in missing]
    for parent in sorted({place.parent for place in places}):
        try:
            parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Broken(
                "local.disk", "outputs", parent, str(error), "choose another directory"
            ) from error
    tries = 0
    while True:
        failed = _fetch_all(missing, directory)
        if not failed:
            return places
        tries += 1
        first = next(iter(failed.values()))
        # A link may have expired meanwhile: fresh ones are made for each try.
        if tries >= limits.TRANSFER_TRIES or not isinstance(first, (Refused, Unreachable)):
            raise first
        time.sleep(limits.RECONNECT_PAUSE_SECONDS * tries)
        missing = [want for want in wants(connection, job) if want.path in failed]


def _fetch_all(missing: list[Want], directory: Path) -> dict[str, Error]:
    """Fetches several at a time; what did not go well, and why."""

    def fetch(want: Want) -> Error | None:
        try:
            transfer.get(want.url, directory / want.path, want.size_bytes, want.digest, want.mode)
        except Error as error:
            return error
        return None

    with ThreadPoolExecutor(limits.DOWNLOADS_MAX) as pool:
        try:
            ends = list(pool.map(fetch, missing))
        except BaseException:
            # An impatient user: what has not begun is not begun.
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return {want.path: error for want, error in zip(missing, ends) if error is not None}
