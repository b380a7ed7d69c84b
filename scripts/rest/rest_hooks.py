"""What schemathesis does not know by itself."""

from __future__ import annotations

import json
from typing import Any

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
