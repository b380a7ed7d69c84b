"""Following: what survives a server's death, and what does not look finished."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import drumline
import grpc
import pytest
from conftest import DEADLINE, Server, free_port
from drumline import State, limits
from drumline.v1 import tenant_pb2, types_pb2
from drumline.v1.tenant_pb2_grpc import DrumlineServicer, add_DrumlineServicer_to_server

ROUNDS = 4
# Much more than one reply holds, so that the server dies with most of it unsent.
LINES = 100_000


def test_followers_outlive_a_killed_server(own_server: Server, tmp_path: Path) -> None:
    """The server dies in the middle of each round of output, and the next round is
    written before anybody reads: nothing is missing, nothing comes twice."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    # Open at both ends, so that neither side ever waits for the other to open it.
    go = os.open(gate, os.O_RDWR)
    run = f"""
        exec 3< {gate}
        for round in $(seq 0 {ROUNDS - 1}); do
            seq $((round * {LINES} + 1)) $(((round + 1) * {LINES}))
            read -r go <&3
        done
    """
    with own_server.client() as client, ThreadPoolExecutor(2) as pool:
        job = client.submit(run=run, retries=0)
        history = pool.submit(list, job.events())
        waited = pool.submit(job.wait, DEADLINE)
        seen = b""
        rounds = 0
        for chunk in job.logs():
            seen += chunk.data
            # The first bytes of each round; the rest of it is still on its way.
            lines = seen.count(b"\n")
            if rounds < ROUNDS and lines > rounds * LINES:
                rounds += 1
                assert lines < rounds * LINES, "nothing was on its way when the server died"
                client.submit(argv=["true"], array="1-20")
                own_server.kill()
                os.write(go, b"go\n")
                own_server.start()
        assert seen == b"".join(b"%d\n" % line for line in range(1, ROUNDS * LINES + 1))
        assert waited.result(DEADLINE).ok
        events = history.result(DEADLINE)
        for other in client.jobs():
            assert client.job(other.id).wait(timeout=DEADLINE).ok
        told = list(client.events())
    os.close(go)
    assert [event.seq for event in told] == list(range(1, len(told) + 1))
    assert events == [event for event in told if event.job == job.id]
    assert events[0].after is State.PENDING and events[-1].after is State.COMPLETED
    staged = [event for event in events if event.tasks and event.after is State.STAGING]
    assert len(staged) == 1, "the running task was taken over, not run again"


def test_events_of_all_jobs_are_followed(server: Server, client: drumline.Client) -> None:
    first = client.submit(argv=["true"])
    begin = max(event.seq for event in first.events())
    second = client.submit(argv=["true"])
    followed = []
    for event in client.events(from_seq=begin, follow=True):
        followed.append(event)
        if event.job == second.id and event.step is None and event.after.ended:
            break
    assert [event.seq for event in followed] == list(range(begin, begin + len(followed)))


def test_nobody_there_is_told_soon() -> None:
    with drumline.Client(f"127.0.0.1:{free_port()}", "dl_x", patience=0) as client:
        with pytest.raises(drumline.Unreachable) as away:
            client.submit(argv=["true"])
        assert away.value.code == "unavailable.server" and away.value.field == "server"
        with pytest.raises(drumline.Unreachable):
            next(client.events(follow=True))


class Scripted(DrumlineServicer):
    """A server whose log ends as each test wants it to."""

    chunks = [b"one ", b"two ", b"three"]

    def __init__(self) -> None:
        self.asked: list[tenant_pb2.LogsRequest] = []
        self.is_whole_after = 3
        self.is_silent = False
        self.status: tuple[grpc.StatusCode, str] | None = None

    def GetJob(self, request: tenant_pb2.JobRequest, context: grpc.ServicerContext) -> tenant_pb2.JobView:
        if self.status is not None:
            context.abort(*self.status)
        view = tenant_pb2.JobView()
        view.job.tenant, view.job.number = "lab", request.number
        view.job.spec.steps.add(name="main")
        view.state.state = types_pb2.STATE_RUNNING
        return view

    def Logs(
        self, request: tenant_pb2.LogsRequest, context: grpc.ServicerContext
    ) -> Iterator[tenant_pb2.LogsReply]:
        self.asked.append(request)
        opened = len(self.asked)
        if self.is_silent and opened == 1:
            over = threading.Event()
            context.add_callback(over.set)
            over.wait(DEADLINE)
            return
        if request.cursor < len(self.chunks):
            reply = tenant_pb2.LogsReply(cursor=request.cursor + 1)
            reply.chunks.add(data=self.chunks[request.cursor])
            yield reply
        if opened >= self.is_whole_after and request.cursor + 1 >= len(self.chunks):
            yield tenant_pb2.LogsReply(cursor=len(self.chunks), end=True, missing_bytes=5)


@contextmanager
def scripted(patience: float = DEADLINE) -> Iterator[tuple[Scripted, drumline.Client]]:
    servicer = Scripted()
    server = grpc.server(ThreadPoolExecutor(4))
    add_DrumlineServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with drumline.Client(f"127.0.0.1:{port}", "dl_x", patience=patience) as client:
            yield servicer, client
    finally:
        server.stop(None).wait(DEADLINE)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "RECONNECT_PAUSE_SECONDS", 0.05)


def test_a_log_goes_on_after_its_cursor() -> None:
    with scripted() as (servicer, client):
        log = client.job("lab-1").logs(tail=10)
        assert log.missing_bytes is None
        assert b"".join(chunk.data for chunk in log) == b"one two three"
        assert log.missing_bytes == 5
        assert [request.cursor for request in servicer.asked] == [0, 1, 2]
        # A tail begins but once: the cursor tells the rest.
        assert [request.tail_ms > 0 for request in servicer.asked] == [True, False, False]


def test_a_log_without_its_end_marker_never_looks_finished() -> None:
    with scripted(patience=0.2) as (servicer, client):
        servicer.is_whole_after = 1_000_000
        seen = []
        with pytest.raises(drumline.Unreachable) as cut:
            for chunk in client.job("lab-1").logs():
                seen.append(chunk.data)
        assert cut.value.code == "unavailable.stream"
        assert seen == Scripted.chunks, "each once, though asked for again and again"
        assert len(servicer.asked) > len(seen)


def test_a_quiet_stream_is_opened_anew_without_blame(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "STREAM_SECONDS", 0.3)
    with scripted(patience=0) as (servicer, client):
        servicer.is_silent = True
        servicer.chunks = [b"all"]
        servicer.is_whole_after = 2
        assert [chunk.data for chunk in client.job("lab-1").logs()] == [b"all"]
        assert len(servicer.asked) == 2


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [
        (grpc.StatusCode.UNAVAILABLE, drumline.Unreachable, "unavailable.server"),
        (grpc.StatusCode.UNIMPLEMENTED, drumline.NotFound, "missing.operation"),
        (grpc.StatusCode.PERMISSION_DENIED, drumline.Denied, "denied.role"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, drumline.OverLimit, "limit.reached"),
        (grpc.StatusCode.ABORTED, drumline.Conflict, "conflict.state"),
        (grpc.StatusCode.INVALID_ARGUMENT, drumline.Refused, "spec.argument"),
        (grpc.StatusCode.DATA_LOSS, drumline.Broken, "internal.fault"),
    ],
)
def test_a_bare_status_becomes_the_nearest_error(
    status: grpc.StatusCode, kind: type[drumline.Error], code: str
) -> None:
    with scripted() as (servicer, client):
        servicer.status = (status, "for the test's sake")
        with pytest.raises(kind) as raised:
            client.job("lab-1")
        assert (raised.value.code, raised.value.reason) == (code, "for the test's sake")
