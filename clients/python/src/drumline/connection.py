"""One server, as one bearer of a token: calls with deadlines, errors as exceptions."""

from __future__ import annotations

import math
import threading
from typing import TypeVar

import grpc

from drumline import limits
from drumline.errors import WrongUse, from_status
from drumline.follow import Patience, Stream
from drumline.v1 import tenant_pb2
from drumline.v1.tenant_pb2_grpc import DrumlineStub
from drumline.values import Names

Request = TypeVar("Request")
Reply = TypeVar("Reply")


def _ms(seconds: float) -> int:
    return math.ceil(seconds * 1000)


# No proxy: the objects' URLs would not go through it either.
_OPTIONS = [
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", limits.MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", limits.MESSAGE_BYTES_MAX),
    # How long one attempt to connect may take.
    ("grpc.min_reconnect_backoff_ms", _ms(limits.CONNECT_SECONDS)),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # A follower of a quiet log must notice when the other side is silently gone.
    ("grpc.keepalive_time_ms", _ms(limits.KEEPALIVE_SECONDS)),
    ("grpc.keepalive_timeout_ms", _ms(limits.KEEPALIVE_ANSWER_SECONDS)),
    ("grpc.http2.max_pings_without_data", 0),
]


class Connection:
    """What a client and its jobs share. Safe to use from many threads."""

    def __init__(self, server: str, token: str, tenant: str, patience_seconds: float) -> None:
        if not server:
            raise WrongUse(
                "use.wrong", "server", "", "no server is named", "give HOST:PORT, or set DRUMLINE_SERVER"
            )
        if not token:
            raise WrongUse(
                "use.wrong", "token", "", "no token is given", "give dl_…, or set DRUMLINE_TOKEN"
            )
        if not (token.isascii() and token.isprintable()):
            raise WrongUse(
                "use.wrong", "token", "", "holds characters that no token has", "copy it again, as dl_…"
            )
        self.server = server
        self.tenant = tenant
        self.patience_seconds = patience_seconds
        self._metadata = (("authorization", f"Bearer {token}"),)
        address = server.removeprefix("http://").rstrip("/")
        self._channel = grpc.insecure_channel(address, options=_OPTIONS)
        self.stub = DrumlineStub(self._channel)
        self._names: dict[tuple[str, int], Names] = {}
        self._names_lock = threading.Lock()

    def close(self) -> None:
        """Ends all calls."""
        self._channel.close()

    def call(
        self,
        method: grpc.UnaryUnaryMultiCallable[Request, Reply],
        request: Request,
        seconds: float = limits.CALL_SECONDS,
    ) -> Reply:
        """One question, one answer, in time."""
        try:
            return method(request, timeout=seconds, metadata=self._metadata)
        except grpc.RpcError as status:
            raise from_status(status, self.server) from status

    def open(
        self, method: grpc.UnaryStreamMultiCallable[Request, Reply], request: Request
    ) -> Stream[Reply]:
        """One question, many answers. What goes wrong is told while reading."""
        return method(request, timeout=limits.STREAM_SECONDS, metadata=self._metadata)

    def patience(self) -> Patience:
        """For one follower."""
        return Patience(self.patience_seconds)

    def names(self, tenant: str, number: int) -> Names:
        """What a job's steps are called; asked for once. The tenant may be empty."""
        key = (tenant, number)
        with self._names_lock:
            known = self._names.get(key)
        if known is not None:
            return known
        request = tenant_pb2.JobRequest(tenant=tenant, number=number)
        row = self.call(self.stub.GetJob, request).job
        names = Names(row.tenant, row.number, row.spec)
        with self._names_lock:
            if len(self._names) >= limits.SPECS_MAX:
                self._names.clear()
            self._names[key] = names
        return names
