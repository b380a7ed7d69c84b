"""A directory as one input: each of its files an object, and a manifest that names them.

The manifest's form is told in docs/jobs.md; the server refuses what is not of it.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from drumline import transfer
from drumline.errors import Refused


@dataclass(frozen=True)
class Tree:
    """A local directory, digested."""

    files: list[transfer.Digested]
    """Those of equal bytes once."""
    manifest: transfer.Digested
    """Its digest names the directory."""
    size_bytes: int
    """Of all files."""


def read(field: str, root: Path) -> Tree:
    """Digests all of a directory. `field` is what it was given as."""
    lines: dict[bytes, str] = {}
    files: dict[str, transfer.Digested] = {}
    total = 0
    for path in _below(field, root):
        name = path.relative_to(root).as_posix()
        try:
            order = name.encode()
        except UnicodeEncodeError:
            raise _refused(field, path, "has a name that is no UTF-8 text", "rename it") from None
        with _reading(field, path):
            mode = path.lstat().st_mode
        if stat.S_ISDIR(mode):
            line = ["d"]
        elif stat.S_ISLNK(mode):
            line = ["l", _target(field, root, path)]
        elif stat.S_ISREG(mode):
            file = transfer.digest_file(field, path)
            files.setdefault(file.digest, file)
            total += file.size_bytes
            line = ["x" if mode & 0o100 else "f", str(file.size_bytes), file.digest]
        else:
            raise _refused(
                field, path, "is no file, directory or link", "move it elsewhere: its bytes cannot be sent"
            )
        line.append(name)
        if any(_is_control(letter) for word in line for letter in word):
            raise _refused(field, path, "holds control characters", "rename it")
        lines[order] = "\t".join(line) + "\n"
    data = ("drumline tree 1\n" + "".join(lines[order] for order in sorted(lines))).encode()
    digest = hashlib.sha256(data).hexdigest()
    return Tree(list(files.values()), transfer.Digested(root, digest, len(data), data), total)


def _below(field: str, directory: Path) -> list[Path]:
    """All that is in a directory, not through links."""
    found = []
    with _reading(field, directory):
        paths = sorted(directory.iterdir())
    for path in paths:
        found.append(path)
        if path.is_dir() and not path.is_symlink():
            found += _below(field, path)
    return found


@contextmanager
def _reading(field: str, path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        remedy = "make it readable, or move it elsewhere"
        raise _refused(field, path, error.strerror or str(error), remedy) from error


def _target(field: str, root: Path, path: Path) -> str:
    """What a link is to say that stays in the tree; where that takes a detour, the way to the
    same place."""
    says = os.readlink(path)
    depth = len(path.relative_to(root).parts) - 1
    parts = PurePosixPath(says).parts
    climbs = next((at for at, part in enumerate(parts) if part != ".."), len(parts))
    if not says.startswith("/") and climbs <= depth and ".." not in parts[climbs:]:
        return PurePosixPath(says).as_posix()
    try:
        inside = path.resolve(strict=True).relative_to(root.resolve())
    except (OSError, RuntimeError, ValueError):
        reason = f"is a link that leads out of the directory: {says}"
        raise _refused(field, path, reason, "put in its place what it leads to") from None
    return os.path.relpath(root / inside, path.parent)


def _is_control(letter: str) -> bool:
    return ord(letter) < 32 or 127 <= ord(letter) < 160


def _refused(field: str, path: Path, reason: str, remedy: str) -> Refused:
    shown = os.fsencode(path).decode("utf-8", "replace")
    return Refused("spec.tree", field, shown, reason, remedy)
