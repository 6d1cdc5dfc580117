"""Calls that end while something else happens: a change, an interceptor, another deadline."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support import Echo, Math, Notify, Patient, Sum, SwitchTo, Wait, at_any_pace, raw_pair, turns

from amp_asyncio import (
    AMP,
    AmpBox,
    CallCancelled,
    Command,
    ConnectionLost,
    DeadlineExceeded,
    Integer,
    Limits,
    TooLong,
    UnknownRemoteError,
    current_call,
)
from amp_asyncio.session.deadlines import Deadlines
from amp_asyncio.testing import pair


async def known(amp: Any, peer: Any, names: bytes = b"cancel") -> None:
    """Have an AMP take its raw peer for one of its kind."""
    peer.send(AmpBox(_command=b"Sum", _ask=b"1", a=b"1", b=b"2", _offer=b"1 " + names))
    await peer.until(lambda: len(peer.boxes()) == 2)
    peer.data = b""


async def test_what_ends_while_the_connection_is_changed_is_not_told_to_the_peer() -> None:
    async with raw_pair(Patient) as (amp, peer):
        await known(amp, peer)
        late = amp.call(Wait(name="x"), timeout=0.01)
        switching = amp.callRemote(SwitchTo, lambda: asyncio.Protocol(), name="x")
        with pytest.raises(DeadlineExceeded):
            await late
        await turns()
        assert b"_cancel" not in peer.data
        amp.abort()
        with pytest.raises(ConnectionLost):
            await switching


@at_any_pace
async def test_a_group_of_cancellations_is_one(pace: float) -> None:
    cancelled = asyncio.Event()

    class Groups(Patient):
        @Wait.responder
        async def wait(self, name: str) -> dict[str, Any]:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError as error:
                cancelled.set()
                raise BaseExceptionGroup("several", [error]) from None
            return {}

    async with pair(Groups) as (_, client):
        await client.callRemote(Sum, a=1, b=2)
        with pytest.raises(DeadlineExceeded):
            await client.call(Wait(name="x"), timeout=0.02 * pace)
        await cancelled.wait()
        assert await client.callRemote(Sum, a=1, b=2) == {"total": 3}


async def test_a_command_without_an_answer_beside_one_with_a_deadline() -> None:
    seen = asyncio.Event()

    class Notified(Patient):
        @Notify.responder
        async def notify(self, data: bytes) -> dict[str, Any]:
            await asyncio.sleep(0)
            seen.set()
            return {}

    async with pair(Notified) as (_, client):
        await client.callRemote(Sum, a=1, b=2)
        waiting = client.call(Wait(name="x"), timeout=60)
        await turns()
        await client.callRemote(Notify, data=b"x")
        await seen.wait()
        waiting.cancel()
        assert await client.callRemote(Sum, a=1, b=2) == {"total": 3}


async def test_metadata_and_a_timeout_of_a_call_that_needs_no_box() -> None:
    class Told(Math):
        @Sum.responder
        def sum(self, a: int, b: int) -> dict[str, Any]:
            call = current_call()
            assert call is not None
            return {"total": len(call.metadata) * 10 + (call.deadline is not None)}

    async with pair(Told) as (_, client):
        await client.callRemote(Sum, a=1, b=2)
        question = Sum(a=1, b=2)
        assert await client.call(question) == {"total": 0}
        assert await client.call(question, metadata={"a": "1", "b": "2"}) == {"total": 20}
        assert await client.call(question, metadata={"a": "1"}, timeout=60) == {"total": 11}
        assert await client.call(question, timeout=60) == {"total": 1}


async def test_a_question_with_a_timeout_that_cannot_be_sent() -> None:
    async with pair(Math) as (_, client):
        await client.callRemote(Sum, a=1, b=2)
        with pytest.raises(TooLong):
            client.call(Echo(data=b"x" * 70_000), timeout=60)
        assert await client.call(Echo(data=b"x"), timeout=60) == {"data": b"x"}


async def test_an_argument_that_asks_and_then_does_not_encode() -> None:
    asked: list[Any] = []

    class Asking(Integer):
        def toString(self, inObject: Any) -> bytes:
            asked.append(client.callRemote(Sum, a=1, b=2))
            raise ValueError("no")

    class Send(Command):
        arguments = [(b"n", Asking())]

    async with pair(Math) as (_, client):
        await client.callRemote(Sum, a=1, b=2)
        with pytest.raises(ValueError, match="no"):
            client.callRemote(Send, n=1)
        assert await asyncio.gather(*asked) == [{"total": 3}] * len(asked)


async def test_a_deadline_that_ends_another() -> None:
    over: list[str] = []

    def end(key: str) -> None:
        over.append(key)
        deadlines.times.pop("b" if key == "a" else "a", None)

    deadlines: Deadlines[str] = Deadlines(end)
    deadlines.add("a", 0.0)
    deadlines.add("b", 0.0)
    while not over:
        await asyncio.sleep(0)
    await turns()
    assert over == ["a"]


async def test_a_responder_that_is_cancelled_before_its_future_is_waited_for() -> None:
    futures: list[asyncio.Future[Any]] = []

    class Gone(Math):
        @Sum.responder
        def sum(self, a: int, b: int) -> asyncio.Future[Any]:
            futures.append(asyncio.get_running_loop().create_future())
            self.abort()
            return futures[0]

    async with pair(Gone) as (_, client):
        with pytest.raises(ConnectionLost):
            await client.callRemote(Sum, a=1, b=2)
        await client.wait_closed()
    assert not futures[0].cancelled()  # Others may await it.
    futures[0].set_result({"total": 3})


@pytest.mark.parametrize("anyone", [False, True])
async def test_an_offer_after_one_that_was_forwarded(anyone: bool) -> None:
    async with raw_pair(ping_anyone=anyone) as (_, peer):
        peer.send(AmpBox(_command=b"Sum", _ask=b"1", a=b"1", b=b"2", _offer=b"7 cancel"))
        peer.send(AmpBox(_command=b"Sum", _ask=b"2", a=b"1", b=b"2", _offer=b"2 cancel"))
        await peer.until(lambda: len(peer.boxes()) == 2)
        assert [box.get(b"_answer") for box in peer.boxes()] == [b"1", b"2"]


async def test_a_peer_that_knows_no_ping_is_asked_where_anyone_is() -> None:
    async with raw_pair(ping_anyone=True, ping_interval=0.01, ping_timeout=60) as (amp, peer):
        await known(amp, peer)
        await peer.until(lambda: b"_ping" in peer.data)


def test_whether_anyone_is_asked_is_a_bool() -> None:
    with pytest.raises(TypeError, match="ping_anyone must be True or False, not 1"):
        Limits(ping_anyone=1)  # type: ignore[arg-type]


async def test_a_cancelled_call_of_a_plain_peer_is_cancelled_here() -> None:
    assert issubclass(CallCancelled, Exception)
    assert not issubclass(CallCancelled, asyncio.CancelledError)
    assert not issubclass(UnknownRemoteError, CallCancelled)
    async with pair(AMP) as (_, client):
        waiting = client.callRemote(Wait, name="x")
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
