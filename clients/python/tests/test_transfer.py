"""Transfers that go wrong: nothing half done stays, and each end has its error."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import drumline
import pytest
from conftest import DEADLINE, Server, free_port
from drumline import fetch, transfer
from drumline.v1 import tenant_pb2

BODY = b"what was asked for" * 1000
DIGEST = hashlib.sha256(BODY).hexdigest()


class Door(BaseHTTPRequestHandler):
    """Answers as its path says."""

    def do_GET(self) -> None:
        if self.path.startswith("/forbidden"):
            self.send_error(403, explain="the signature does not fit")
            return
        if self.path.startswith("/full"):
            self.send_error(507)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY[: len(BODY) // 2] if self.path.startswith("/half") else BODY)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def door() -> Iterator[str]:
    with serving(Door) as url:
        yield url


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join(DEADLINE)
        server.server_close()


def test_a_file_appears_whole(door: str, tmp_path: Path) -> None:
    place = tmp_path / "file"
    transfer.get(f"{door}/whole", place, len(BODY), DIGEST, 0)
    assert place.read_bytes() == BODY
    assert list(tmp_path.iterdir()) == [place]


@pytest.mark.parametrize(
    ("path", "digest", "kind", "code"),
    [
        ("/whole", "0" * 64, drumline.Broken, "local.digest"),
        ("/half", DIGEST, drumline.Unreachable, "unavailable.transfer"),
        ("/forbidden", DIGEST, drumline.Refused, "denied.transfer"),
        ("/full", DIGEST, drumline.Unreachable, "unavailable.objects"),
    ],
)
def test_or_not_at_all(
    door: str, tmp_path: Path, path: str, digest: str, kind: type[drumline.Error], code: str
) -> None:
    place = tmp_path / "file"
    place.write_text("what was there before")
    with pytest.raises(kind) as raised:
        transfer.get(door + path, place, len(BODY), digest, 0)
    assert raised.value.code == code and raised.value.value == str(place)
    assert place.read_text() == "what was there before"
    assert list(tmp_path.iterdir()) == [place]


def test_nobody_there_and_nowhere_to_write(door: str, tmp_path: Path) -> None:
    with pytest.raises(drumline.Unreachable):
        transfer.get(f"http://127.0.0.1:{free_port()}/x", tmp_path / "file", 1, DIGEST, 0)
    with pytest.raises(drumline.Refused):
        transfer.get("ftp://127.0.0.1/x", tmp_path / "file", 1, DIGEST, 0)
    with pytest.raises(drumline.Broken) as broken:
        transfer.get(f"{door}/whole", tmp_path / "none" / "file", len(BODY), DIGEST, 0)
    assert broken.value.code == "local.disk"


def test_a_file_that_changed_is_not_taken(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "book"
    path.write_bytes(BODY)
    with server.client() as client:
        connection = client._connection

        def url(file: transfer.Digested) -> str:
            request = tenant_pb2.CreateUploadRequest(digest=file.digest, size_bytes=file.size_bytes)
            return connection.call(connection.stub.CreateUpload, request).url

        digested = transfer.digest_file("input", path)
        assert (digested.digest, digested.size_bytes) == (DIGEST, len(BODY))
        path.write_bytes(BODY[::-1])
        with pytest.raises(drumline.Broken) as other:
            transfer.put(url(digested), digested, "input")
        path.write_bytes(BODY[:-1])
        with pytest.raises(drumline.Broken) as shorter:
            transfer.put(url(digested), digested, "input")
        assert other.value.code == shorter.value.code == "local.digest"
        assert url(digested), "the server does not have it"
        path.write_bytes(BODY)
        altered = url(digested).replace("expires=", "expires=9")
        with pytest.raises(drumline.Refused) as refused:
            transfer.put(altered, digested, "input")
        assert refused.value.code == "denied.transfer"
        transfer.put(url(digested), digested, "input")
        assert url(digested) == ""


@pytest.mark.parametrize("path", ["../x", "/etc/x", "a/../../x", "", "a/", "nul\0"])
def test_no_output_leaves_its_directory(path: str) -> None:
    class Outside:
        stub = type("Stub", (), {"Outputs": None})

        def call(self, method: object, request: object) -> tenant_pb2.OutputsReply:
            reply = tenant_pb2.OutputsReply()
            step = reply.steps.add(step="main")
            step.tasks.add().artifacts.add().artifact.path = path
            return reply

    with pytest.raises(drumline.Refused) as refused:
        fetch.wants(Outside(), tenant_pb2.JobRequest())  # type: ignore[arg-type]
    assert refused.value.code == "spec.path"
