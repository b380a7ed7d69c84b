"""What the README and the docstrings show works as shown."""

from __future__ import annotations

import doctest
import importlib
import re
from pathlib import Path

import drumline
import pytest
from conftest import Server

README = Path(__file__).parent.parent / "README.md"
MODULES = ["drumline", "drumline.client", "drumline.errors", "drumline.follow", "drumline.job"]


@pytest.fixture(autouse=True)
def somewhere(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a reader has it: in a directory of one's own, with the server's environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DRUMLINE_SERVER", server.told("DRUMLINE_SERVER"))
    monkeypatch.setenv("DRUMLINE_TOKEN", server.token)
    monkeypatch.delenv("DRUMLINE_TENANT", raising=False)


def run_blocks(page: Path) -> int:
    """Runs a page's Python blocks one after the other; how many there are."""
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    names: dict[str, object] = {}
    for number, block in enumerate(blocks):
        exec(compile(block, f"{page}, block {number}", "exec"), names)
    return len(blocks)


def test_the_readme_s_blocks_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_blocks(README) >= 5, "the blocks are not found"
    told = capsys.readouterr().out
    for expected in (
        "3 hello from task 3",
        " COMPLETED 0",
        "1000 quick",
        "3 step main: exit code 3",
        "spec.unit step[0].memory much",
        "add COMPLETED",
    ):
        assert expected in told
    assert (tmp_path / "outputs" / "main" / "words").is_file()


@pytest.mark.parametrize("module", MODULES)
def test_the_docstrings_examples_run(module: str, client: drumline.Client) -> None:
    names = {"drumline": drumline, "client": client, "Path": Path}
    finder = doctest.DocTestFinder(exclude_empty=True)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    tests = [test for test in finder.find(importlib.import_module(module), extraglobs=names) if test.examples]
    assert tests, "nothing is shown"
    for test in tests:
        failed, _ = runner.run(test)
        assert failed == 0, f"{test.name}: see above"
