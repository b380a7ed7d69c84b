"""What is to run, as the text of a job file.

The server has the only reader of job files: units, arrays and checks are its own.
Here things are only put in their places.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any, Union

from drumline.errors import WrongUse
from drumline.v1 import types_pb2
from drumline.values import parse_job_id

Time = Union[str, int, timedelta]
"""`"1h30m"`, seconds, or a timedelta."""

Size = Union[str, int]
"""`"64MiB"`, or bytes."""

Cores = Union[str, int, float]
"""`4`, `0.5`, `"0.5"`."""

Array = Union[str, int, range]
"""`"0-15%4"`, one index, or `range(16)`."""


def one_step(
    step: Mapping[str, Any], inputs: Mapping[str, str], job: Mapping[str, Any]
) -> dict[str, Any]:
    """A job of one step; what is None is left out."""
    given = {key: value for key, value in step.items() if value is not None}
    argv = given.get("argv")
    if isinstance(argv, str):
        raise WrongUse("use.wrong", "argv", argv, "is one text", "give a list of words, or use run=")
    file = {key: value for key, value in job.items() if value is not None}
    if argv and "name" not in file:
        # As `drumline submit` names a command: after its program.
        program = str(list(argv)[0]).rsplit("/", 1)[-1]
        file["name"] = "".join(letter for letter in program if letter.isprintable())[:32]
    if not file.get("name"):
        file.pop("name", None)
    file["input"] = [one_input(name, source) for name, source in inputs.items()]
    file["step"] = [{"name": "main", **given}]
    return file


def one_input(name: str, source: str) -> dict[str, str]:
    """A file or directory, `sha256:DIGEST` of what was uploaded, or a URL that the nodes fetch;
    it ends in `#sha256=DIGEST`."""
    if source.startswith("sha256:"):
        return {"name": name, "digest": source.removeprefix("sha256:")}
    if "://" not in source:
        return {"name": name, "path": source}
    url, _, digest = source.partition("#sha256=")
    return {"name": name, "url": url, "digest": digest}


def text_of(file: Mapping[str, Any]) -> str:
    """The job file as JSON."""
    try:
        return json.dumps(file, default=_plain, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise WrongUse(
            "use.wrong", "job", "", str(error), "use texts, numbers, lists and mappings"
        ) from error


def _plain(value: object) -> object:
    """Python's own ways to say what the job file says in words."""
    if isinstance(value, range):
        if len(value) == 0 or value.step < 1:
            raise WrongUse("use.wrong", "array", value, "names no tasks in order", "give range(16), say")
        return f"{value[0]}-{value[-1]}:{value.step}"
    if isinstance(value, timedelta):
        return f"{value // timedelta(milliseconds=1)}ms"
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Iterable):
        return list(value)
    if hasattr(value, "__fspath__"):
        return str(value)
    raise TypeError(f"{value!r} has no place in a job file")


_HOW: dict[str, types_pb2.DependencyKind] = {
    "ok": types_pb2.DEPENDENCY_KIND_OK,
    "notok": types_pb2.DEPENDENCY_KIND_NOT_OK,
    "any": types_pb2.DEPENDENCY_KIND_ANY,
    "each": types_pb2.DEPENDENCY_KIND_EACH,
}
_AFTER = re.compile(r"(?:([a-z]+):)?([^/\[\]:]*)(?:/([^/\[\]]+))?(?:\[([0-9]{1,13})\])?", re.ASCII)


def dependency(text: str, tenant: str) -> types_pb2.Dependency:
    """Reads `ok:ID`, `notok:ID` or `any:ID`, `ok:ID[4]` or `ok:ID/STEP[4]` for one task of an
    array, `each:ID` or `each:ID/STEP` for each task's like; a bare id means ok."""
    read = _AFTER.fullmatch(text)
    how, name, step, index = read.groups() if read else (None, "", None, None)
    kind = _HOW.get(how or "ok")
    named = parse_job_id(name, tenant)
    if kind is None or named is None:
        remedy = "give a Job, or ok:ID, notok:ID or any:ID, ok:ID[4] for one task of its array, or each:ID"
        raise WrongUse("use.wrong", "after", text, "names no job and end", remedy)
    if tenant and named[0] != tenant:
        raise WrongUse("use.wrong", "after", text, "is another tenant's job", "name one of your own")
    return types_pb2.Dependency(
        job_number=named[1], kind=kind, step=step or "", index=None if index is None else int(index)
    )
