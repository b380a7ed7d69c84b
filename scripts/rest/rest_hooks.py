"""What schemathesis does not know by itself."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlsplit

import requests
import schemathesis


@schemathesis.deserializer("application/x-ndjson")
def json_lines(context: Any, response: Any) -> Any:
    """The document describes one line of a log. Without an agent there is just the last."""
    (line,) = response.content.splitlines()
    return json.loads(line)


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    """Who follows a log is answered until its job ends, and without an agent none ends by
    itself. So the caller cancels it first; where that is refused, so is the log."""
    if not case.path.endswith("/logs") or str((case.query or {}).get("follow")).lower() != "true":
        return
    asked = case.as_transport_kwargs()
    query = {name: value for name, value in case.query.items() if name == "tenant"}
    url = asked["url"].partition("?")[0].removesuffix("/logs")
    requests.delete(url, params=query, headers=asked["headers"], timeout=10)


READS = ["", "/tasks", "/logs", "/why", "/outputs"]


@schemathesis.check
def cancelled_jobs_stay(context: Any, response: Any, case: Any) -> None:
    """What DELETE has cancelled can still be read by whoever cancelled it, and is what the
    answer said. The five reads of a job are held to this in place of `use_after_free`,
    which would have them answer 404."""
    request, cancelled = response.request, urlsplit(response.request.url)
    if request.method != "DELETE" or response.status_code not in (200, 202):
        return
    told = json.loads(response.content)
    for read in READS:
        url = cancelled._replace(path=cancelled.path + read, query="").geturl()
        answer = requests.get(url, headers={"authorization": request.headers["authorization"]}, timeout=10)
        assert answer.status_code == 200, f"GET {url} after its DELETE: {answer.status_code} {answer.text}"
        if not read:
            shown = answer.json()
            assert (shown["id"], shown["state"]) == (told["id"], told["state"]), f"{shown} is not {told}"
