"""Starts a server, lets schemathesis at it, and stops it again.

The server has no agents: what schemathesis makes up is taken in, shown, cancelled
and refused, but never run. The seed is fixed, so that the same tree gives the same
answer; `--seed` draws others. RUN_SECONDS in the environment is how long it may take.
"""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
START_SECONDS = 60
# What schemathesis may take when nothing is given: about 80 s on a quiet machine, and
# more where it is busy with other things.
RUN_SECONDS = int(os.environ.get("RUN_SECONDS", "300"))
DEFAULTS = ["--seed", "1", "--max-examples", "20"]
TENANTS = ["ada", "grace"]
# After what the project's own file says: who asks, and names that there are, so that
# not all that is asked for is missing.
CONFIG = """
[auth.wfc]
path = "users.json"
peers = ["ada", "grace"]

[dictionaries.tenants]
values = ["ada", "grace", "default"]

[dictionaries.jobs]
values = ["ada-1", "grace-1", "1", "ada-2"]

[parameters."path.tenant"]
dictionary = "tenants"
probability = 0.7

[parameters."query.tenant"]
dictionary = "tenants"
probability = 0.7

[parameters."path.id"]
dictionary = "jobs"
probability = 0.7
"""


def main() -> int:
    # So that the server is ended too where this is.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    environment = {key: value for key, value in os.environ.items() if not key.startswith("DRUMLINE_")}
    with tempfile.TemporaryDirectory(prefix="drumline-rest-") as scratch:
        data = Path(scratch) / "data"
        log = Path(scratch) / "server.log"
        with log.open("wb") as output:
            server = subprocess.Popen(
                [os.environ["DRUMLINE_BIN"], "server", "--data", data, "--listen", "127.0.0.1:0"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=output,
                env=environment,
            )
        try:
            address = listening(server)
            code = check(address, (data / "client.env").read_text(), Path(scratch), environment)
            if server.poll() is not None:
                print(f"error: the server ended by itself ({server.returncode})", file=sys.stderr)
                code = 1
        finally:
            server.send_signal(signal.SIGTERM)
            try:
                server.wait(START_SECONDS)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()
                code = 1
                print("error: the server did not end when told to", file=sys.stderr)
        if code:
            sys.stderr.write(log.read_text(errors="replace")[-4000:])
        return code


def listening(server: subprocess.Popen[bytes]) -> str:
    """Where, once it says so."""
    assert server.stdout is not None
    ready, _, _ = select.select([server.stdout], [], [], START_SECONDS)
    line = server.stdout.readline().decode() if ready else ""
    found = re.match(r"listening on (http://\S+?)[;,]", line)
    if found is None:
        raise SystemExit(f"error: the server did not start: {line!r}")
    return found[1]


def drumline(address: str, token: str, *arguments: str) -> str:
    """What a client command prints."""
    environment = {"DRUMLINE_SERVER": address, "DRUMLINE_TOKEN": token}
    command = [os.environ["DRUMLINE_BIN"], *arguments]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, timeout=START_SECONDS, check=True)
    return done.stdout.decode().strip()


def check(address: str, told: str, scratch: Path, environment: dict[str, str]) -> int:
    """Runs schemathesis as each of two tenants and as the admin, in a directory where it
    may leave things."""
    admin = re.search(r"dl_\w+", told)
    if admin is None:
        raise SystemExit("error: client.env has no token")
    # What the tenants may not do is tried as the admin.
    users = []
    for tenant in TENANTS:
        drumline(address, admin[0], "tenants", "create", tenant)
        token = drumline(address, admin[0], "tokens", "create", tenant, "--for", tenant, "-o", "name")
        users.append({"name": tenant, "fixedHeaders": [header(token)]})
        # Something for the others not to find.
        drumline(address, token, "submit", "--array", "1-9", "--output", "x", "--", "true")
    users.append({"name": "admin", "fixedHeaders": [header(admin[0])]})
    (scratch / "users.json").write_text(json.dumps({"auth": users}))
    config = scratch / "schemathesis.toml"
    config.write_text((ROOT / "schemathesis.toml").read_text() + CONFIG)
    command = [
        Path(sys.executable).with_name("schemathesis"),
        "--config-file",
        config,
        "run",
        f"{address}/openapi.json",
        "--continue-on-failure",
        "--generation-database",
        "none",
        *DEFAULTS,
        *sys.argv[1:],
    ]
    hooks = {"SCHEMATHESIS_HOOKS": "rest_hooks", "PYTHONPATH": str(HERE)}
    try:
        done = subprocess.run(command, cwd=scratch, env=environment | hooks, timeout=RUN_SECONDS)
        return done.returncode
    except subprocess.TimeoutExpired:
        print(f"error: schemathesis did not end within {RUN_SECONDS} s", file=sys.stderr)
        return 1


def header(token: str) -> dict[str, str]:
    """As a request carries it."""
    return {"name": "Authorization", "value": f"Bearer {token}"}


if __name__ == "__main__":
    raise SystemExit(main())
