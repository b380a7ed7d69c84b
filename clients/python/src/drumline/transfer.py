"""Files in and out, over HTTP by signed URLs.

What must hold: a file that comes in appears whole and verified under its name, or
not at all.
"""

from __future__ import annotations

import hashlib
import http.client
import io
import os
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from drumline import limits
from drumline.errors import Broken, Refused, Unreachable, WrongUse


@dataclass(frozen=True)
class Digested:
    """A local file, its SHA-256 (lower-case hexadecimal) and its length."""

    path: Path
    digest: str
    size_bytes: int
    data: bytes | None = None
    """The bytes, where they are no file's."""

    def open(self) -> IO[bytes]:
        return self.path.open("rb") if self.data is None else io.BytesIO(self.data)


def digest_file(field: str, path: Path) -> Digested:
    """Digests a file of any size. `field` is what it was given as."""
    hashed = hashlib.sha256()
    size_bytes = 0
    try:
        with path.open("rb") as file:
            while chunk := file.read(limits.CHUNK_BYTES):
                hashed.update(chunk)
                size_bytes += len(chunk)
    except OSError as error:
        raise WrongUse(
            "use.wrong", field, path, _words(error), "give a file that can be read"
        ) from error
    return Digested(path, hashed.hexdigest(), size_bytes)


def put(url: str, file: Digested, field: str) -> None:
    """Sends a file as it was digested; what changed since is refused."""
    value = str(file.path)
    connection, target = _connect(url, field, value)
    with closing(connection), _disk(field, value), file.open() as body:
        with _network(field, value):
            connection.putrequest("PUT", target)
            connection.putheader("Content-Length", str(file.size_bytes))
            connection.endheaders()
        left = file.size_bytes
        while left > 0:
            chunk = body.read(min(limits.CHUNK_BYTES, left))
            if not chunk:
                raise _changed(field, value, "became shorter while it was sent")
            try:
                with _network(field, value):
                    connection.send(chunk)
            except Unreachable as broken:
                if isinstance(broken.__cause__, TimeoutError):
                    raise
                # Refused in the middle: the answer says why, if there is one.
                break
            left -= len(chunk)
        with _network(field, value):
            connection.sock.settimeout(limits.TRANSFER_FINISH_SECONDS)
            _judge(connection.getresponse(), field, value)


def get(url: str, place: Path, size_bytes: int, expected: str, mode: int) -> None:
    """Fetches a file to `place`, whose directory is there."""
    field, value = "output", str(place)
    connection, target = _connect(url, field, value)
    with closing(connection), _disk(field, value):
        with _network(field, value):
            connection.request("GET", target)
            response = connection.getresponse()
            _judge(response, field, value)
        descriptor, part = tempfile.mkstemp(prefix=".drumline-", suffix=".part", dir=place.parent)
        try:
            found = _store(response, descriptor, size_bytes, field, value)
            if found != expected:
                raise _changed(field, value, f"has digest {found}, not {expected}")
            os.chmod(part, (mode & 0o777 or 0o644) | 0o600)
            os.replace(part, place)
        except BaseException:
            Path(part).unlink(missing_ok=True)
            raise


def _store(
    response: http.client.HTTPResponse, descriptor: int, size_bytes: int, field: str, value: str
) -> str:
    """Writes what comes, durably; its digest."""
    hashed = hashlib.sha256()
    received = 0
    with open(descriptor, "wb") as file:
        while True:
            with _network(field, value):
                chunk = response.read(limits.CHUNK_BYTES)
            if not chunk:
                break
            file.write(chunk)
            hashed.update(chunk)
            received += len(chunk)
        file.flush()
        os.fsync(file.fileno())
    if received < size_bytes:
        raise Unreachable(
            "unavailable.transfer",
            field,
            value,
            f"the connection broke after {received} of {size_bytes} bytes",
            "try again in a moment",
        )
    return hashed.hexdigest()


def _connect(url: str, field: str, value: str) -> tuple[http.client.HTTPConnection, str]:
    """A connection to the URL's server, and what to ask it for."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise Refused(
            "denied.transfer", field, value, f"{url!r} is no URL to use", "see the server's log"
        )
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname, parts.port, timeout=limits.CONNECT_SECONDS)
    with _network(field, value):
        connection.connect()
        connection.sock.settimeout(limits.TRANSFER_IDLE_SECONDS)
    return connection, f"{parts.path}?{parts.query}"


@contextmanager
def _network(field: str, value: str) -> Iterator[None]:
    """What fails in here is the network's failure."""
    try:
        yield
    except (OSError, http.client.HTTPException) as error:
        raise Unreachable(
            "unavailable.transfer", field, value, _words(error), "try again in a moment"
        ) from error


@contextmanager
def _disk(field: str, value: str) -> Iterator[None]:
    """What fails in here, and is not the network's, is this machine's disk's."""
    try:
        yield
    except OSError as error:
        raise Broken(
            "local.disk", field, value, _words(error), "look at the disk's space and rights"
        ) from error


def _judge(response: http.client.HTTPResponse, field: str, value: str) -> None:
    """Raises for a status that is no success."""
    if 200 <= response.status < 300:
        return
    text = response.read(limits.REASON_BYTES_MAX).decode("utf-8", "replace")
    reason = " ".join(text.split()) or response.reason
    if response.headers["drumline-digest-found"]:
        raise _changed(field, value, reason)
    if response.status >= 500:
        raise Unreachable(
            "unavailable.objects", field, value, reason, "look at the server's disk"
        )
    raise Refused(
        "denied.transfer", field, value, reason, "try again; if it stays, see the server's log"
    )


def _changed(field: str, value: str, reason: str) -> Broken:
    return Broken(
        "local.digest", field, value, reason, "did the file change meanwhile? try again"
    )


def _words(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
