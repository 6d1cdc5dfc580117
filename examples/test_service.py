"""How to test a service: a store for backups, its client, and what they do when the other side fails.

The tests use `amp_asyncio.testing`: two sides that talk in memory, a peer that plays a script, and
faults on the connection. The guide is testing.md.

Run it: python -m pytest examples/test_service.py        (needs pytest and pytest-asyncio)
"""

import asyncio
from collections.abc import Callable
from typing import TypeAlias

import pytest

from amp_asyncio import AMP, AmpBox, Command, ConnectionLost, Integer, MalformedAmpBox, String, Unicode
from amp_asyncio.testing import Expectation, Faults, PairMaker, ScriptedPeer

# --- the service and its client, normally modules of their own ---


class Denied(Exception):
    pass


class LogIn(Command):
    arguments = [(b"user", Unicode()), (b"password", Unicode())]
    errors = {Denied: b"DENIED"}


class Put(Command):
    arguments = [(b"part", String())]
    response = [(b"size", Integer())]
    errors = {Denied: b"DENIED"}


class Store(AMP):
    def __init__(self) -> None:
        super().__init__()
        self.user: str | None = None
        self.parts: list[bytes] = []

    @LogIn.responder
    async def log_in(self, user: str, password: str) -> dict[str, object]:
        if password != "secret":
            raise Denied("wrong password")
        self.user = user
        return {}

    @Put.responder
    async def put(self, part: bytes) -> dict[str, int]:
        if self.user is None:
            raise Denied("log in first")
        self.parts.append(part)
        return {"size": len(part)}


class Damaged(Exception):
    """The store has kept something else than what was sent."""


async def back_up(store: AMP, parts: list[bytes], report: Callable[[int], None]) -> None:
    """Log in and send all parts; report the percentage that the store has kept."""
    await store.callRemote(LogIn, user="ada", password="secret")
    for number, part in enumerate(parts, 1):
        answer = await store.callRemote(Put, part=part)
        if answer["size"] != len(part):
            raise Damaged(f"part {number}: {answer['size']} of {len(part)} bytes")
        report(100 * number // len(parts))


# --- its tests ---

pytest_plugins = ["amp_asyncio.testing.plugin"]
pytestmark = pytest.mark.asyncio
PARTS = [b"one", b"two"]
Outcome: TypeAlias = Callable[[Expectation], Expectation]


async def start(
    amp_pair: PairMaker, store: AMP, faults: Faults | None = None
) -> tuple[asyncio.Task[None], list[int]]:
    """Begin to back up; return the task, and what it has reported."""
    _, amp = await amp_pair(store, faults=faults)
    reported: list[int] = []
    return asyncio.create_task(back_up(amp, PARTS, reported.append)), reported


@pytest.fixture
def store(scripted_peer: ScriptedPeer) -> ScriptedPeer:
    """A store that lets the client in."""
    scripted_peer.expect(LogIn, user="ada").answer()
    return scripted_peer


async def test_the_password_is_wrong(amp_pair: PairMaker, scripted_peer: ScriptedPeer) -> None:
    scripted_peer.expect(LogIn, password="secret").fail(Denied("wrong password"))
    task, reported = await start(amp_pair, scripted_peer)
    with pytest.raises(Denied, match="wrong password"):
        await task
    assert reported == []


@pytest.mark.parametrize(
    ("outcome", "error"),
    [
        (lambda put: put.hang_up(), ConnectionLost),
        (lambda put: put.write(b"HTTP/1.1 200 OK\r\n\r\n"), ConnectionLost),
        (
            lambda put: put.write(lambda tag: AmpBox(_answer=tag, size=b"x").serialize()),
            MalformedAmpBox,
        ),
        (lambda put: put.answer({"size": 2}), Damaged),
    ],
    ids=["hangs up", "is another service", "sends no number", "loses a byte"],
)
async def test_the_store(
    outcome: Outcome, error: type[Exception], amp_pair: PairMaker, store: ScriptedPeer
) -> None:
    store.expect(Put, part=b"one").answer({"size": 3})
    outcome(store.expect(Put, part=b"two"))
    task, reported = await start(amp_pair, store)
    with pytest.raises(error):
        await task
    assert reported == [50]


async def test_the_store_answers_late(amp_pair: PairMaker, store: ScriptedPeer) -> None:
    first = store.expect(Put, part=b"one")
    store.expect(Put, part=b"two").answer({"size": 3})
    task, reported = await start(amp_pair, store)
    await first.received()
    assert reported == []
    first.answer({"size": 3})
    await task
    assert reported == [50, 100]


async def test_the_store_never_answers(amp_pair: PairMaker, store: ScriptedPeer) -> None:
    question = store.expect(Put).never()
    task, _ = await start(amp_pair, store)
    await question.received()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(task, timeout=0.01)


async def test_the_network_is_slow(amp_pair: PairMaker, faults: Faults) -> None:
    faults.to_server.drip(1)
    faults.to_client.drip(1)
    task, reported = await start(amp_pair, store := Store(), faults)
    await task
    assert (reported, store.parts) == ([50, 100], PARTS)


@pytest.mark.parametrize(("line", "kept"), [("to_client", [b"one"]), ("to_server", [])])
async def test_one_side_dies(line: str, kept: list[bytes], amp_pair: PairMaker, faults: Faults) -> None:
    """The store dies in the middle of an answer, or the client in the middle of a part."""
    store, amp = await amp_pair(Store, faults=faults)
    await amp.callRemote(LogIn, user="ada", password="secret")
    getattr(faults, line).cut(after=10)
    with pytest.raises(ConnectionLost):
        await amp.callRemote(Put, part=b"one")
    await store.wait_closed()
    assert store.parts == kept
