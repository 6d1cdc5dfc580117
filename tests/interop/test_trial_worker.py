"""A real worker of `trial -j`, driven by us: it runs a suite and reports each result.

The commands are those of `twisted.trial._dist`, with another import line.
"""

from __future__ import annotations

import os
import sys
from collections import defaultdict
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from amp_asyncio import AMP, Boolean, Command, Integer, String, Unicode, spawn

pytestmark = pytest.mark.system

SUITE = """
from twisted.internet import defer, reactor, task
from twisted.trial import unittest

class Suite(unittest.TestCase):
    def test_passes(self):
        pass

    def test_waits(self):
        return task.deferLater(reactor, 0, lambda: None)

    def test_fails(self):
        self.assertEqual("one", "two")

    def test_breaks(self):
        raise LookupError("Grüße " + "x" * 100_000)

    def test_skipped(self):
        raise unittest.SkipTest("not today")

    def test_todo(self):
        self.fail("some day")
    test_todo.todo = "later"

    def test_done(self):
        pass
    test_done.todo = "it was to fail"

    def test_says(self):
        from twisted.python import log
        log.msg("said to the log")
"""


class Run(Command):
    arguments = [(b"testCase", Unicode())]
    response = [(b"success", Boolean())]


class Start(Command):
    arguments = [(b"directory", Unicode())]
    response = [(b"success", Boolean())]


class Reported(Command):
    response = [(b"success", Boolean())]


class AddSuccess(Reported):
    arguments = [(b"testName", Unicode())]


class AddError(Reported):
    arguments = [
        (b"testName", Unicode()),
        (b"errorClass", Unicode()),
        (b"errorStreamId", Integer()),
        (b"framesStreamId", Integer()),
    ]


class AddFailure(Reported):
    arguments = [
        (b"testName", Unicode()),
        (b"failStreamId", Integer()),
        (b"failClass", Unicode()),
        (b"framesStreamId", Integer()),
    ]


class AddSkip(Reported):
    arguments = [(b"testName", Unicode()), (b"reason", Unicode())]


class AddExpectedFailure(Reported):
    arguments = [(b"testName", Unicode()), (b"errorStreamId", Integer()), (b"todo", Unicode())]


class AddUnexpectedSuccess(Reported):
    arguments = [(b"testName", Unicode()), (b"todo", Unicode())]


class TestWrite(Reported):
    __test__ = False

    arguments = [(b"out", Unicode())]


class StreamOpen(Command):
    response = [(b"streamId", Integer())]


class StreamWrite(Command):
    arguments = [(b"streamId", Integer()), (b"data", String())]


class Manager(AMP):
    """Takes down what a worker reports."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = count()
        self.streams: dict[int, list[bytes]] = {}
        self.results: defaultdict[str, list[Any]] = defaultdict(list)
        self.log: list[str] = []

    def result(self, test: str, *result: Any) -> dict[str, Any]:
        self.results[test.rpartition(".")[2]].append(result)
        return {"success": True}

    def text(self, stream: int) -> str:
        return b"".join(self.streams.pop(stream)).decode()

    @StreamOpen.responder
    def stream_open(self) -> dict[str, Any]:
        number = next(self.numbers)
        self.streams[number] = []
        return {"streamId": number}

    @StreamWrite.responder
    async def stream_write(self, streamId: int, data: bytes) -> dict[str, Any]:
        self.streams[streamId].append(data)
        return {}

    @AddSuccess.responder
    async def success(self, testName: str) -> dict[str, Any]:
        return self.result(testName, "success")

    @AddError.responder
    def error(
        self, testName: str, errorClass: str, errorStreamId: int, framesStreamId: int
    ) -> dict[str, Any]:
        assert "test_breaks" in self.text(framesStreamId)
        return self.result(testName, "error", errorClass, self.text(errorStreamId))

    @AddFailure.responder
    def failure(
        self, testName: str, failStreamId: int, failClass: str, framesStreamId: int
    ) -> dict[str, Any]:
        self.text(framesStreamId)
        return self.result(testName, "failure", failClass, self.text(failStreamId))

    @AddSkip.responder
    def skip(self, testName: str, reason: str) -> dict[str, Any]:
        return self.result(testName, "skip", reason)

    @AddExpectedFailure.responder
    def expected(self, testName: str, errorStreamId: int, todo: str) -> dict[str, Any]:
        assert "some day" in self.text(errorStreamId)
        return self.result(testName, "expected failure", todo)

    @AddUnexpectedSuccess.responder
    def unexpected(self, testName: str, todo: str) -> dict[str, Any]:
        return self.result(testName, "unexpected success", todo)

    @TestWrite.responder
    def write(self, out: str) -> dict[str, Any]:
        self.log.append(out)
        return {"success": True}


async def test_a_worker_runs_a_suite_and_reports_each_result(tmp_path: Path) -> None:
    program = find_spec("twisted.trial._dist.workertrial")
    assert program is not None
    assert program.origin is not None
    (tmp_path / "suite.py").write_text(SUITE)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    tests = ["passes", "waits", "fails", "breaks", "skipped", "todo", "done", "says"]
    with (tmp_path / "output").open("w") as output:
        async with spawn(
            sys.executable,
            program.origin,
            protocol_factory=Manager,
            fds=(3, 4),
            env=environment,
            stdout=output,
            stderr=output,
            cwd=tmp_path,
        ) as worker:
            manager = worker.amp
            assert await manager.callRemote(Start, directory=str(tmp_path)) == {"success": True}
            for test in tests:
                answer = await manager.callRemote(Run, testCase=f"suite.Suite.test_{test}")
                assert answer == {"success": True}
    assert worker.returncode == 0
    assert (tmp_path / "output").read_text() == ""
    assert "said to the log" in "".join(manager.log)
    assert manager.streams == {}
    long = "Grüße " + "x" * 100_000
    failure = manager.results["test_fails"][0]
    assert failure[:2] == ("failure", "twisted.trial.unittest.FailTest")
    assert "one" in failure[2]
    assert "two" in failure[2]
    del manager.results["test_fails"]
    assert manager.results == {
        "test_passes": [("success",)],
        "test_waits": [("success",)],
        "test_breaks": [("error", "builtins.LookupError", long)],
        "test_skipped": [("skip", "not today")],
        "test_todo": [("expected failure", "later")],
        "test_done": [("unexpected success", "it was to fail")],
        "test_says": [("success",)],
    }
