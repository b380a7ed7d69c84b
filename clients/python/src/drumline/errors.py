"""What can go wrong, as exceptions.

The server says no with a *problem*: a stable code, the field, its value, the
reason and the remedy. Every exception here carries one.

    Error
    ├── Refused           the server said no
    │   ├── NotFound      there is no such job, tenant, step
    │   ├── Denied        the token is unknown, or may not
    │   ├── Conflict      what is there stands in the way
    │   └── OverLimit     a quota, a budget or a limit; `quota` tells the numbers
    ├── Unreachable       nobody answers, or not in time: later is right
    ├── Broken            Drumline or this machine failed
    ├── WrongUse          an argument that makes no sense (also a ValueError)
    └── TimedOut          the time that was given is over (also a TimeoutError)
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import grpc
from google.protobuf.message import DecodeError

from drumline.v1 import types_pb2
from drumline.values import instant


@dataclass(frozen=True)
class Quota:
    """The numbers behind a refusal for a limit's sake."""

    dimension: str
    used: float
    asked: float
    limit: float
    threshold: float
    fits_at: datetime | None
    """When it may fit; None where that is not known."""


class Error(Exception):
    """Why something was not done: `code`, `field`, `value`, `reason`, `remedy`.

    >>> try:
    ...     client.submit(run="true", memory="much")
    ... except drumline.Error as error:
    ...     print(error.code, error.field, error.value)
    spec.unit step[0].memory much
    """

    def __init__(
        self,
        code: str,
        field: str = "",
        value: object = "",
        reason: str = "",
        remedy: str = "",
        quota: Quota | None = None,
    ) -> None:
        self.code = code
        self.field = field
        self.value = str(value)
        self.reason = reason
        self.remedy = remedy
        self.quota = quota
        super().__init__(code, field, self.value, reason, remedy, quota)

    def __str__(self) -> str:
        named = " = ".join(part for part in (self.field, self.value) if part)
        line = f"{named}: " if named else ""
        line += self.reason or self.code
        if self.remedy:
            line += f"; {self.remedy}"
        return " ".join(line.splitlines())


class Refused(Error):
    """The server said no."""


class NotFound(Refused):
    """What was named is not there, or belongs to another tenant."""


class Denied(Refused):
    """The token is unknown, or its role does not allow this."""


class Conflict(Refused):
    """What is there stands in the way."""


class OverLimit(Refused):
    """A quota, a budget or a limit is reached; `quota` has the numbers."""


class Unreachable(Error):
    """Nobody answers, or not in time."""


class Broken(Error):
    """Drumline or this machine failed."""


class WrongUse(Error, ValueError):
    """An argument makes no sense."""


class TimedOut(Error, TimeoutError):
    """The time that was given is over; what was waited for goes on."""


_FAMILIES: dict[str, type[Error]] = {
    "unavailable": Unreachable,
    "internal": Broken,
    "auth": Denied,
    "denied": Denied,
    "missing": NotFound,
    "conflict": Conflict,
    "quota": OverLimit,
    "budget": OverLimit,
    "limit": OverLimit,
}

_SERVER = ("unavailable.server", "is the server up, and is its address right?")
# What a status without a problem comes to: such are the transport's own.
_BARE: dict[grpc.StatusCode, tuple[str, str]] = {
    grpc.StatusCode.UNAVAILABLE: _SERVER,
    grpc.StatusCode.UNKNOWN: _SERVER,
    grpc.StatusCode.DEADLINE_EXCEEDED: (
        "unavailable.deadline",
        "look whether the server is alive, then try again",
    ),
    grpc.StatusCode.CANCELLED: ("unavailable.deadline", "try again"),
    grpc.StatusCode.UNAUTHENTICATED: ("auth.token", "give a token, or set DRUMLINE_TOKEN"),
    grpc.StatusCode.PERMISSION_DENIED: ("denied.role", "use a token whose role allows it"),
    grpc.StatusCode.NOT_FOUND: ("missing.thing", "check the name, and the tenant it belongs to"),
    grpc.StatusCode.ALREADY_EXISTS: ("conflict.exists", "choose another name"),
    grpc.StatusCode.FAILED_PRECONDITION: ("conflict.state", "look at its state first"),
    grpc.StatusCode.ABORTED: ("conflict.state", "look at its state first"),
    grpc.StatusCode.RESOURCE_EXHAUSTED: ("limit.reached", "ask for less, or try again later"),
    grpc.StatusCode.INVALID_ARGUMENT: ("spec.argument", "correct the request"),
    grpc.StatusCode.OUT_OF_RANGE: ("spec.argument", "correct the request"),
    grpc.StatusCode.UNIMPLEMENTED: (
        "missing.operation",
        "client and server differ in version: update the older",
    ),
}
_FAULT = ("internal.fault", "look into the server's log and report it")


def error_of(code: str) -> type[Error]:
    """The class that a problem's code stands for."""
    return _FAMILIES.get(code.split(".", 1)[0], Refused)


def from_problem(problem: types_pb2.Problem) -> Error:
    """The exception for a server's problem."""
    quota = None
    if problem.HasField("quota"):
        told = problem.quota
        quota = Quota(
            told.dimension, told.used, told.asked, told.limit, told.threshold, instant(told.fits_at_ms)
        )
    return error_of(problem.code)(
        problem.code, problem.field, problem.value, problem.reason, problem.remedy, quota
    )


def from_status(error: grpc.RpcError, server: str) -> Error:
    """The exception for a call's end: by the problem it carries, else by its code."""
    assert isinstance(error, grpc.Call), "what a call raises is a call too"
    for name, value in error.trailing_metadata() or ():
        if name == "grpc-status-details-bin" and isinstance(value, bytes):
            try:
                problem = types_pb2.Problem.FromString(value)
            except DecodeError:
                break
            if problem.code:
                return from_problem(problem)
    status = error.code()
    details = error.details() or status.name
    code, remedy = _BARE.get(status, _FAULT)
    if status is grpc.StatusCode.INTERNAL and "RST_STREAM" in details:
        # A connection that broke under the call: no handler said so.
        code, remedy = _SERVER
    field, value = ("server", server) if code == "unavailable.server" else ("", "")
    return error_of(code)(code, field, value, details, remedy)
