"""Jobs from submission to their end, against a real server."""

from __future__ import annotations

import hashlib
import os
from datetime import timedelta
from pathlib import Path

import drumline
import pytest
from conftest import DEADLINE, Server
from drumline import State, transfer
from drumline.v1 import rows_pb2, tenant_pb2


def text(log: drumline.LogStream) -> str:
    return b"".join(chunk.data for chunk in log).decode()


def test_a_job_runs_to_its_end(client: drumline.Client) -> None:
    job = client.submit(argv=["echo", "hello"], name="greeting", labels={"kind": "test"}, priority=3)
    result = job.wait(timeout=DEADLINE)
    assert (result.state, result.exit_code, result.reason, result.ok) == (State.COMPLETED, 0, "", True)
    assert (job.state, job.name, job.existing) == (State.COMPLETED, "greeting", False)
    assert text(job.logs()) == "hello\n"
    assert text(job.logs(follow=False)) == "hello\n"
    assert text(job.logs(stream="stderr")) == ""
    status = job.status()
    assert status.started is not None and status.ended is not None
    assert status.submitted <= status.started <= status.ended
    (step,) = status.steps
    assert (step.name, step.completed, step.pending, step.failed) == ("main", 1, 0, 0)
    (summary,) = client.jobs(labels={"kind": "test"})
    assert (summary.id, summary.name, summary.priority, summary.tasks) == (job.id, "greeting", 3, 1)
    again = client.job(job.id)
    assert again.id == job.id and text(again.logs()) == "hello\n"


def test_an_array_knows_its_indexes(client: drumline.Client) -> None:
    job = client.submit(run="echo task $DRUMLINE_TASK; echo oops >&2", array="1-9:2,20%3")
    assert job.wait(timeout=DEADLINE).ok
    told = {(chunk.task, chunk.stream): chunk.data for chunk in job.logs()}
    expected = {(task, "stdout"): f"task {task}\n".encode() for task in (1, 3, 5, 7, 9, 20)}
    expected |= {(task, "stderr"): b"oops\n" for task in (1, 3, 5, 7, 9, 20)}
    assert told == expected
    assert text(job.logs(task=20, stream="stdout")) == "task 20\n"
    completed = [
        index
        for event in job.events()
        if event.step == "main" and event.after is State.COMPLETED
        for span in event.tasks
        for index in span
    ]
    assert sorted(completed) == [1, 3, 5, 7, 9, 20]
    with pytest.raises(drumline.NotFound):
        job.logs(task=2)
    with pytest.raises(drumline.NotFound):
        job.logs(step="other")


def test_python_s_own_ways_to_say_things(client: drumline.Client, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_text("x")
    job = client.submit(
        argv=("cat", "inputs/source"),
        array=range(4, 10, 2),
        memory=32 << 20,
        cores=0.5,
        time=timedelta(minutes=1.5),
        expected_runtime=30,
        inputs={"source": source},
        env={"A": "b"},
    )
    spec = client.job(job.id)._spec
    step = spec.steps[0]
    assert [(item.first, item.last, item.stride) for item in step.array.items] == [(4, 8, 2)]
    assert (step.per_task.memory_bytes, step.per_task.millicores) == (32 << 20, 500)
    assert (step.timeout_ms, spec.expected_runtime_ms, step.env["A"]) == (90_000, 30_000, "b")
    assert job.wait(timeout=DEADLINE).ok


def test_a_gang_has_all_its_ranks(client: drumline.Client) -> None:
    job = client.submit(run="echo $DRUMLINE_RANK of $DRUMLINE_WORLD_SIZE", nodes=1, tasks_per_node=3)
    assert job.wait(timeout=DEADLINE).ok
    assert {chunk.rank: chunk.data for chunk in job.logs()} == {
        rank: f"{rank} of 3\n".encode() for rank in range(3)
    }


def test_inputs_go_in_once_and_outputs_come_back(
    client: drumline.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[Path] = []
    real_put = transfer.put

    def counted_put(url: str, file: transfer.Digested, field: str) -> None:
        sent.append(file.path)
        real_put(url, file, field)

    monkeypatch.setattr(transfer, "put", counted_put)
    book = tmp_path / "book.bin"
    book.write_bytes(os.urandom(3 << 20))
    empty = tmp_path / "empty"
    empty.write_bytes(b"")
    run = "mkdir -p deep/down; cp inputs/book deep/down/copy; cp inputs/empty e; chmod 750 deep/down/copy"
    inputs = {"book": str(book), "empty": str(empty)}
    outputs = ["deep/**", "e"]
    job = client.submit(run=run, inputs=inputs, outputs=outputs)
    assert sent == [book, empty]
    assert client.submit(run=run, inputs=inputs, outputs=outputs).wait(timeout=DEADLINE).ok
    assert sent == [book, empty], "what is there is not sent again"
    assert job.wait(timeout=DEADLINE).ok
    target = tmp_path / "outputs"
    places = job.outputs(target)
    assert sorted(places) == [target / "main/deep/down/copy", target / "main/e"]
    assert (target / "main/deep/down/copy").read_bytes() == book.read_bytes()
    assert (target / "main/deep/down/copy").stat().st_mode & 0o777 == 0o750
    assert (target / "main/e").read_bytes() == b""
    digests = {file.path: (file.digest, file.size_bytes) for file in job.artifacts()}
    assert digests["main/deep/down/copy"] == (hashlib.sha256(book.read_bytes()).hexdigest(), 3 << 20)
    left = sorted(path for path in target.rglob("*") if path.is_file())
    assert left == sorted(places), "nothing else lies about"
    assert job.outputs(target) == places, "a second time overwrites"


def test_outputs_of_many_tasks_lie_by_index(client: drumline.Client, tmp_path: Path) -> None:
    job = client.submit(run="echo $DRUMLINE_TASK > n", array="5-24", outputs=["n"])
    assert job.wait(timeout=DEADLINE).ok
    places = job.outputs(tmp_path)
    assert places == [tmp_path / f"main/{index}/n" for index in range(5, 25)]
    assert [place.read_text() for place in places] == [f"{index}\n" for index in range(5, 25)]


def test_a_failing_job_tells_why_and_can_be_tried_again(client: drumline.Client) -> None:
    job = client.submit(run="exit 7", retries=0)
    result = job.wait(timeout=DEADLINE)
    assert (result.state, result.exit_code, result.ok) == (State.FAILED, 7, False)
    assert "exit code 7" in result.reason
    assert job.why().code == "ended"
    causes = [(event.cause, event.exit_code) for event in job.events() if event.after is State.FAILED]
    assert ("exit", 7) in causes
    assert job.retry() == 1
    assert job.wait(timeout=DEADLINE).exit_code == 7
    killed = client.submit(run="kill -9 $$", retries=0)
    assert killed.wait(timeout=DEADLINE).exit_code == 137


def test_a_job_is_cancelled(client: drumline.Client) -> None:
    job = client.submit(argv=["sleep", "1000"])
    waiting = client.submit(argv=["true"], after=[job])
    assert waiting.why().code == "waiting.job"
    with pytest.raises(drumline.TimedOut) as timed_out:
        job.wait(timeout=0.3)
    assert isinstance(timed_out.value, TimeoutError)
    job.cancel("enough")
    result = job.wait(timeout=DEADLINE)
    assert result.state is State.CANCELLED and result.exit_code != 0 and "enough" in result.reason
    assert waiting.wait(timeout=DEADLINE).state is State.CANCELLED
    assert client.submit(argv=["true"], after=f"any:{job.id}").wait(timeout=DEADLINE).ok


def test_tasks_follow_tasks_of_another_job(client: drumline.Client) -> None:
    first = client.submit(run="test $DRUMLINE_TASK != 2", array="1-3", retries=0)
    like = client.submit(run="true", array="1-3", after=f"each:{first.id}/main")
    one = client.submit(run="true", after=[f"ok:{first.id}[1]", f"notok:{first.id}/main[2]"])
    assert one.wait(timeout=DEADLINE).ok
    ended = like.wait(timeout=DEADLINE)
    assert (ended.state, ended.exit_code) == (State.CANCELLED, 1)
    (step,) = like.status().steps
    assert (step.completed, step.cancelled) == (2, 1)
    with pytest.raises(drumline.Conflict, match="has no task 7"):
        client.submit(run="true", after=f"ok:{first.id}[7]")


def test_a_job_file_is_read_by_the_server(client: drumline.Client, tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "book.txt").write_text("one two three\n")
    file = tmp_path / "deep" / "job.toml"
    file.write_text(
        'name = "words"\n'
        "[[input]]\n"
        'name = "book"\n'
        'path = "book.txt"\n'
        "[[step]]\n"
        'name = "count"\n'
        'run = "wc -w < inputs/book > n"\n'
        'outputs = ["n"]\n'
        "[[step]]\n"
        'name = "show"\n'
        'after = ["count"]\n'
        'run = "cat from/count/n"\n'
    )
    job = client.submit_file(file)
    assert job.wait(timeout=DEADLINE).ok
    assert text(job.logs(step="show")).strip() == "3"
    assert [step.name for step in job.status().steps] == ["count", "show"]
    file.write_text('[[step]]\nrun = "true"\nmemroy = "1GiB"\n')
    with pytest.raises(drumline.Refused) as refused:
        client.submit_file(file)
    assert (refused.value.code, refused.value.field) == ("spec.unknown_key", "memroy")
    assert "line 3" in refused.value.reason


def test_the_same_key_makes_one_job(client: drumline.Client) -> None:
    first = client.submit(argv=["true"], idempotency_key="python-1")
    again = client.submit(argv=["true"], idempotency_key="python-1")
    assert (again.id, first.existing, again.existing) == (first.id, False, True)
    with pytest.raises(drumline.Conflict):
        client.submit(argv=["false"], idempotency_key="python-1")


def test_lists_come_in_pages(
    client: drumline.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [client.submit(argv=["true"], labels={"page": "yes"}) for _ in range(5)]
    for job in made:
        job.wait(timeout=DEADLINE)
    monkeypatch.setattr("drumline.limits.JOBS_PAGE", 2)
    listed = [job.id for job in client.jobs(labels={"page": "yes"}, states=["completed"])]
    assert listed == [job.id for job in reversed(made)]
    assert list(client.jobs(labels={"page": "yes"}, states=[State.FAILED])) == []


def test_a_refusal_has_its_fields(client: drumline.Client, tmp_path: Path) -> None:
    with pytest.raises(drumline.Refused) as refused:
        client.submit(run="true", memory="much")
    error = refused.value
    assert (error.code, error.field, error.value) == ("spec.unit", "step[0].memory", "much")
    assert error.reason and error.remedy and str(error).startswith("step[0].memory = much: ")
    with pytest.raises(drumline.NotFound) as missing:
        client.job("99999")
    assert missing.value.code == "missing.job"
    for url, field in (
        ("http://host/book", "input[0].digest"),
        ("ftp://host/book#sha256=" + "a" * 64, "input[0].url"),
    ):
        with pytest.raises(drumline.Refused) as elsewhere:
            client.submit(run="true", inputs={"book": url})
        assert elsewhere.value.field == field
    with pytest.raises(drumline.WrongUse) as no_file:
        client.submit(run="true", inputs={"book": str(tmp_path / "none")})
    assert (no_file.value.field, no_file.value.code) == ("input[0].path", "use.wrong")
    for wrong in (
        lambda: client.submit(argv="ls -l"),
        lambda: client.submit(run="true", env={"A": float("nan")}),  # type: ignore[dict-item]
        lambda: client.submit(run="true", after="maybe:1"),
        lambda: client.job("Lab-1"),
        lambda: client.submit(argv=["true"]).logs(stream="both"),
        lambda: next(client.jobs(states=["asleep"])),
    ):
        with pytest.raises(drumline.WrongUse) as wrong_use:
            wrong()
        assert isinstance(wrong_use.value, ValueError) and wrong_use.value.remedy


def test_a_limit_tells_its_numbers(server: Server) -> None:
    with server.client("small") as client:
        row = rows_pb2.TenantRow(name="small", quota=rows_pb2.Quota(millicores=2000))
        connection = client._connection
        connection.call(connection.stub.PutTenant, tenant_pb2.PutTenantRequest(tenant=row))
        assert client.submit(argv=["true"]).wait(timeout=DEADLINE).ok
        with pytest.raises(drumline.OverLimit) as over:
            client.submit(argv=["true"], cores=2)
    quota = over.value.quota
    assert over.value.code == "quota.exceeded" and quota is not None
    assert (quota.dimension, quota.asked, quota.limit) == ("cores", 2.0, 2.0)
    assert 0 < quota.threshold < quota.limit


def test_who_may_not_and_who_is_not_there(server: Server) -> None:
    with drumline.Client(server.address, "dl_0123456789abcdef0123456789abcdef") as stranger:
        with pytest.raises(drumline.Denied) as denied:
            stranger.submit(argv=["true"])
        assert denied.value.code == "auth.token"
        with pytest.raises(drumline.Denied):
            next(stranger.events())
    with server.client("nobody") as nobody, pytest.raises(drumline.NotFound):
        nobody.submit(argv=["true"])
    for address, token in (("", "dl_x"), (server.address, ""), (server.address, "dl_\n")):
        with pytest.raises(drumline.WrongUse):
            drumline.Client(address, token)


def test_the_environment_says_which_server(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DRUMLINE_SERVER", raising=False)
    monkeypatch.delenv("DRUMLINE_TENANT", raising=False)
    monkeypatch.setenv("DRUMLINE_TOKEN", server.token)
    with pytest.raises(drumline.WrongUse) as none_named:
        drumline.Client.from_env()
    assert "DRUMLINE_SERVER" in none_named.value.remedy
    monkeypatch.setenv("DRUMLINE_SERVER", server.told("DRUMLINE_SERVER"))
    with drumline.Client.from_env() as client:
        assert client.submit(argv=["true"]).id.startswith("default-")
    monkeypatch.setenv("DRUMLINE_TENANT", "nobody")
    with drumline.Client.from_env() as client, pytest.raises(drumline.NotFound):
        client.submit(argv=["true"])


def test_a_directory_goes_in_as_it_is(client: drumline.Client, tmp_path: Path) -> None:
    root = tmp_path / "set"
    (root / "deep" / "er").mkdir(parents=True)
    (root / "empty").mkdir()
    (root / "words").write_text("one two\n")
    (root / "deep" / "er" / "copy").write_text("one two\n")
    (root / "deep" / "none").write_text("")
    (root / "deep-er").write_text("beside")
    (root / "run").write_text("#!/bin/sh\necho it runs\n")
    (root / "run").chmod(0o755)
    (root / "up").symlink_to("deep/er")
    (root / "deep" / "far").symlink_to(root / "words")
    run = """
    cd inputs/set && ./run && cat up/copy deep/far && readlink deep/far up
    find . -type d | sort && test ! -s deep/none && stat -c %a words run
    """
    job = client.submit(run=run, inputs={"set": root})
    assert job.wait(timeout=DEADLINE).ok
    told = (
        "it runs\none two\none two\n../words\ndeep/er\n.\n./deep\n./deep/er\n./empty\n444\n555\n"
    )
    assert text(job.logs()) == told
    given = client.job(job.id)._spec.inputs[0]
    assert (given.tree, given.size_bytes) == (True, 8 + 8 + 0 + 6 + 23)
    again = client.submit(argv=["test", "-x", "inputs/x/run"], inputs={"x": f"sha256:{given.digest}"})
    assert again.wait(timeout=DEADLINE).ok

    (root / "out").symlink_to("../elsewhere")
    with pytest.raises(drumline.Refused) as refused:
        client.submit(argv=["true"], inputs={"set": root})
    assert (refused.value.code, refused.value.field) == ("spec.tree", "input[0].path")
    assert "a link that leads out of the directory: ../elsewhere" in str(refused.value)
    (root / "out").unlink()
    os.mkfifo(root / "pipe")
    with pytest.raises(drumline.Refused, match="is no file, directory or link"):
        client.submit(argv=["true"], inputs={"set": root})
    (root / "pipe").unlink()
    (root / os.fsdecode(b"caf\xe9")).write_text("")
    with pytest.raises(drumline.Refused, match="no UTF-8"):
        client.submit(argv=["true"], inputs={"set": root})
