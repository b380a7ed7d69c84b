"""A real server for the tests: `drumline up`, from the binary that DRUMLINE_BIN names."""

from __future__ import annotations

import os
import select
import shlex
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import drumline
import pytest

# How long anything may take before its test fails; other builds may share the machine.
DEADLINE = 60.0


def free_port() -> int:
    """A loopback port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Server:
    """`drumline up` on a directory and a port of its own, which it keeps over restarts."""

    def __init__(self, directory: Path) -> None:
        self.data = directory / "data"
        self.address = f"127.0.0.1:{free_port()}"
        self._log = (directory / "server.log").open("ab")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("DRUMLINE_")}
        process = subprocess.Popen(
            [os.environ["DRUMLINE_BIN"], "up", "--data", self.data, "--listen", self.address, "--cores", "8"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=environment,
        )
        self._process = process
        assert process.stdout is not None
        # It says so once it listens.
        ready, _, _ = select.select([process.stdout], [], [], DEADLINE)
        line = process.stdout.readline() if ready else b""
        assert line.startswith(b"listening on"), f"no server: {line!r}, see {self._log.name}"

    def kill(self) -> None:
        """As a machine does that loses its mind."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """As a person does."""
        self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(how)
        try:
            process.wait(DEADLINE)
        finally:
            process.kill()
            process.communicate()

    def client(self, tenant: str | None = None, patience: float = DEADLINE) -> drumline.Client:
        return drumline.Client(self.address, self.token, tenant, patience=patience)

    @property
    def token(self) -> str:
        return self.told("DRUMLINE_TOKEN")

    def told(self, name: str) -> str:
        """What `client.env` says, read as a shell does."""
        words = shlex.split((self.data / "client.env").read_text(), comments=True)
        (value,) = (word.removeprefix(f"{name}=") for word in words if word.startswith(f"{name}="))
        return value


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One for all tests that do not harm it."""
    started = Server(tmp_path_factory.mktemp("server"))
    try:
        started.start()
        yield started
    finally:
        started.stop()


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Server]:
    """One for a test that kills it."""
    started = Server(tmp_path)
    try:
        started.start()
        yield started
    finally:
        started.stop()


@pytest.fixture
def client(server: Server) -> Iterator[drumline.Client]:
    with server.client() as opened:
        yield opened
