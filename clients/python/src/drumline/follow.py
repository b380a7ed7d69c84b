"""Streams that survive a server's restart.

Each is opened again after what was already handed over, so a follower sees
everything once and in order. A stream that stops without its end marker was cut
off: it is opened again too, and never taken for finished.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

import grpc

from drumline import limits
from drumline.errors import Error, Unreachable, from_status
from drumline.values import LogChunk

Reply = TypeVar("Reply", covariant=True)
Item = TypeVar("Item")


class Stream(Protocol[Reply]):
    """An open call."""

    def __iter__(self) -> Iterator[Reply]: ...

    def cancel(self) -> bool: ...


class Patience:
    """How long the server has been away, and whether to go on trying."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._since: float | None = None

    def heard(self) -> None:
        """The server is there."""
        self._since = None

    def bear(self, error: Error) -> None:
        """Waits before the next try, or raises what is not to be borne longer."""
        if not isinstance(error, Unreachable):
            raise error
        now = time.monotonic()
        if self._since is None:
            self._since = now
        left = self._since + self._seconds - now
        if left <= 0:
            raise error
        time.sleep(min(limits.RECONNECT_PAUSE_SECONDS, left))


def follow(
    server: str,
    patience: Patience,
    open_stream: Callable[[], Stream[Reply]],
    take: Callable[[Reply], tuple[Sequence[Item], bool]],
) -> Iterator[Item]:
    """Gives what a stream brings, until its end marker.

    `take` makes a reply into items and moves the place from which `open_stream`
    goes on; where it fails the place must not have moved. It also tells the end.
    """
    while True:
        stream = None
        opened = time.monotonic()
        try:
            stream = open_stream()
            for reply in stream:
                items, is_end = take(reply)
                patience.heard()
                yield from items
                if is_end:
                    return
            error: Error = Unreachable(
                "unavailable.stream",
                "server",
                server,
                "ended the stream before its end",
                "try again in a moment",
            )
        except grpc.RpcError as status:
            if _is_over_time(status, opened):
                continue
            error = from_status(status, server)
        except Unreachable as unreachable:
            error = unreachable
        finally:
            if stream is not None:
                stream.cancel()
        patience.bear(error)


def _is_over_time(status: grpc.RpcError, opened: float) -> bool:
    """Our own deadline for one stream: nobody's fault."""
    assert isinstance(status, grpc.Call), "what a call raises is a call too"
    over = time.monotonic() - opened >= limits.STREAM_SECONDS * 0.9
    return over and status.code() is grpc.StatusCode.DEADLINE_EXCEEDED


class LogStream(Iterator[LogChunk]):
    """A job's log, chunk by chunk.

    >>> job = client.submit(run="echo one; echo two")
    >>> b"".join(chunk.data for chunk in job.logs())
    b'one\\ntwo\\n'
    """

    missing_bytes: int | None = None
    """Known after the end: bytes that were written, but died with their node."""

    def __init__(self, chunks: Callable[[LogStream], Iterator[LogChunk]]) -> None:
        self._chunks = chunks(self)

    def __iter__(self) -> LogStream:
        return self

    def __next__(self) -> LogChunk:
        return next(self._chunks)
