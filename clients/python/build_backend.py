"""How the package is built: setuptools, with the stubs made first.

An in-tree build backend (PEP 517). Every hook that looks at the tree makes the
stubs before setuptools does its part, so nothing generated is ever committed.
"""

from __future__ import annotations

from typing import Any

import generate
from setuptools import build_meta
from setuptools.build_meta import (  # noqa: F401  hooks that change nothing here
    get_requires_for_build_editable,
    get_requires_for_build_sdist,
    get_requires_for_build_wheel,
)


def build_sdist(*arguments: Any, **named: Any) -> str:
    generate.main()
    return build_meta.build_sdist(*arguments, **named)


def build_wheel(*arguments: Any, **named: Any) -> str:
    generate.main()
    return build_meta.build_wheel(*arguments, **named)


def build_editable(*arguments: Any, **named: Any) -> str:
    generate.main()
    return build_meta.build_editable(*arguments, **named)


def prepare_metadata_for_build_wheel(*arguments: Any, **named: Any) -> str:
    generate.main()
    return build_meta.prepare_metadata_for_build_wheel(*arguments, **named)


def prepare_metadata_for_build_editable(*arguments: Any, **named: Any) -> str:
    generate.main()
    return build_meta.prepare_metadata_for_build_editable(*arguments, **named)
