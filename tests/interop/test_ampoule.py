"""ampoule's children driven by us, and ours driven by ampoule's pool."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from amp_asyncio import AMP, Command, ConnectionLost, Integer, ListOf, String, spawn

pytestmark = pytest.mark.system

# A child as ampoule has them; it tells its parent how far it is.
THEIR_CHILD = """
from ampoule.child import AMPChild
from twisted.internet.defer import inlineCallbacks, returnValue
from twisted.protocols import amp

class Progress(amp.Command):
    arguments = [(b"done", amp.Integer()), (b"all", amp.Integer())]

class Total(amp.Command):
    arguments = [(b"numbers", amp.ListOf(amp.Integer()))]
    response = [(b"total", amp.Integer())]

class Crash(amp.Command):
    pass

class Adder(AMPChild):
    @Total.responder
    @inlineCallbacks
    def total(self, numbers):
        for done in range(1, len(numbers) + 1):
            yield self.callRemote(Progress, done=done, all=len(numbers))
        returnValue({"total": sum(numbers)})

    @Crash.responder
    def crash(self):
        import os
        os._exit(3)
"""

# The same, as we have it; ampoule gives it to Python as the source of the child.
OUR_CHILD = """
import asyncio, os
from amp_asyncio import AMP, Command, Integer, ListOf, QuitBox, stdio

class Shutdown(Command):
    responseType = QuitBox

class Progress(Command):
    arguments = [(b"done", Integer()), (b"all", Integer())]

class Total(Command):
    arguments = [(b"numbers", ListOf(Integer()))]
    response = [(b"total", Integer())]

class Crash(Command):
    pass

class Adder(AMP):
    @Shutdown.responder
    def shutdown(self):
        return {}

    @Total.responder
    async def total(self, numbers):
        for done in range(1, len(numbers) + 1):
            await self.callRemote(Progress, done=done, all=len(numbers))
        return {"total": sum(numbers)}

    @Crash.responder
    def crash(self):
        os._exit(3)

async def main():
    async with stdio(Adder, fds=(3, 4)) as amp:
        print("not AMP")
        await amp.wait_closed()

asyncio.run(main())
"""

# ampoule's pool in a process of its own; it prints what came of it.
POOL = """
import json, sys
from ampoule.main import ProcessStarter
from ampoule.pool import ProcessPool
from twisted.internet import defer, error, task
from twisted.protocols import amp
import their_child

seen = []

class Parent(amp.AMP):
    @their_child.Progress.responder
    def progress(self, done, all):
        seen.append([done, all])
        return {}

@defer.inlineCallbacks
def main(reactor, bootstrap):
    starter = ProcessStarter(bootstrap=bootstrap, packages=("twisted",))
    pool = ProcessPool(their_child.Adder, Parent, min=2, max=2, starter=starter)
    yield pool.start()
    work = [pool.doWork(their_child.Total, numbers=list(range(n))) for n in range(10)]
    totals = [answer["total"] for answer in (yield defer.gatherResults(work))]
    crash = None
    try:
        yield pool.doWork(their_child.Crash)
    except error.ProcessTerminated as failure:
        crash = failure.exitCode
    after = (yield pool.doWork(their_child.Total, numbers=[13, 81]))["total"]
    ended = [child for child in pool.processes]
    finished = [pool._finishCallbacks[child] for child in ended]
    yield pool.stop()
    outcomes = yield defer.DeferredList(finished)
    print(json.dumps([totals, len(seen), crash, after, [ok for ok, _ in outcomes]]))

task.react(main, [open(sys.argv[1]).read()])
"""


class Echo(Command):
    arguments = [(b"data", String())]
    response = [(b"response", String())]


class Shutdown(Command):
    pass


class Progress(Command):
    arguments = [(b"done", Integer()), (b"all", Integer())]


class Total(Command):
    arguments = [(b"numbers", ListOf(Integer()))]
    response = [(b"total", Integer())]


class Crash(Command):
    pass


class Parent(AMP):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, int]] = []

    @Progress.responder
    def progress(self, done: int, all: int) -> dict[str, Any]:  # noqa: A002
        self.seen.append((done, all))
        return {}


@pytest.fixture(scope="module")
def bootstrap() -> str:
    """The program that ampoule gives to Python to be a child; importing it installs a reactor."""
    program = "from ampoule.main import BOOTSTRAP; print(BOOTSTRAP)"
    return subprocess.check_output([sys.executable, "-c", program], text=True)


def environment(folder: Path) -> dict[str, str]:
    (folder / "their_child.py").write_text(THEIR_CHILD)
    return {**os.environ, "PYTHONPATH": str(folder)}


async def test_their_child(bootstrap: str, tmp_path: Path) -> None:
    command = (sys.executable, "-c", bootstrap, "select", "their_child.Adder")
    options: dict[str, Any] = {"fds": (3, 4), "env": environment(tmp_path), "stderr": subprocess.PIPE}
    async with spawn(*command, protocol_factory=Parent, **options) as child:
        assert await child.amp.callRemote(Echo, data=b"x" * 60_000) == {"response": b"x" * 60_000}
        assert await child.amp.callRemote(Total, numbers=[1, 2, 3]) == {"total": 6}
        assert child.amp.seen == [(1, 3), (2, 3), (3, 3)]
        assert await child.amp.callRemote(Shutdown) == {}
        await child.amp.wait_closed()
    assert child.returncode == 0

    async with spawn(*command, protocol_factory=Parent, **options) as child:
        with pytest.raises(ConnectionLost, match="exit status 3"):
            await child.amp.callRemote(Crash)

    async with spawn(*command, protocol_factory=Parent, **options) as child:
        assert await child.amp.callRemote(Echo, data=b"x") == {"response": b"x"}
    assert child.returncode == 255, "it ends itself so where nobody has told it to shut down"


def test_our_child_in_their_pool(tmp_path: Path) -> None:
    source = tmp_path / "our_child"
    source.write_text(OUR_CHILD)
    done = subprocess.run(
        [sys.executable, "-c", POOL, source],
        env=environment(tmp_path),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    totals, seen, crash, after, ended = json.loads(done.stdout)
    assert totals == [sum(range(n)) for n in range(10)]
    assert seen == sum(range(10)) + 2
    assert (crash, after) == (3, 94)
    assert ended == [True, True]
