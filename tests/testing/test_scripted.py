"""The scripted peer: what it answers, and what it says when the other side does something else."""

from __future__ import annotations

import asyncio
from typing import Any
from unittest.mock import ANY

import pytest
from fakes import Recorder
from support import Divide, Echo, Explode, Math, Notify, Sum, SwitchTo, turns

from amp_asyncio import (
    AMP,
    AmpBox,
    ConnectionLost,
    MalformedAmpBox,
    RemoteAmpError,
    StartTLS,
    UnhandledCommand,
    UnknownRemoteError,
)
from amp_asyncio.testing import Faults, ScriptedPeer, pair


async def test_answers_as_it_is_told() -> None:
    async with pair(ScriptedPeer) as (peer, client):
        asked = peer.expect(Sum, a=1).answer({"total": 2})
        peer.expect(Sum, a=ANY, b=3).answer({"total": 3})
        peer.expect(Explode).answer()
        assert not asked.came
        assert await client.callRemote(Sum, a=1, b=5) == {"total": 2}
        assert asked.came
        assert asked.arguments == {"a": 1, "b": 5}
        assert await client.callRemote(Sum, a=7, b=3) == {"total": 3}
        assert await client.callRemote(Explode) == {}


async def test_is_either_side() -> None:
    async with pair(Math, ScriptedPeer()) as (server, peer):
        peer.expect(Sum).answer({"total": 5})
        assert await server.callRemote(Sum, a=1, b=2) == {"total": 5}
        assert await peer.callRemote(Sum, a=1, b=2) == {"total": 3}


async def test_expects_before_it_is_connected() -> None:
    class Eager(AMP):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self.callRemote(Notify, data=b"hello")

    peer = ScriptedPeer()
    hello = peer.expect(Notify, data=b"hello")
    async with pair(peer, Eager):
        assert await hello.received() == {"data": b"hello"}


async def test_commands_without_an_answer() -> None:
    async with pair(ScriptedPeer) as (peer, client):
        peer.expect(Notify, data=b"1")
        peer.expect(Notify, data=b"2").answer()
        peer.expect(Notify, data=b"3").never()
        peer.expect(Sum).answer({"total": 0})
        for data in (b"1", b"2", b"3"):
            await client.callRemote(Notify, data=data)
        await client.callRemote(Sum, a=1, b=1)


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (KeyError("x"), KeyError, "'x'"),
        (UnhandledCommand("not here"), UnhandledCommand, "not here"),
        (LookupError("secret"), UnknownRemoteError, "Unknown Error"),
        (RemoteAmpError(b"KEY", "by code"), KeyError, "by code"),
        (UnknownRemoteError("so"), UnknownRemoteError, "so"),
    ],
)
async def test_fails_as_it_is_told(error: Exception, kind: type[Exception], text: str) -> None:
    async with pair(ScriptedPeer) as (peer, client):
        peer.expect(Explode).fail(error)
        peer.expect(Sum).answer({"total": 3})
        with pytest.raises(kind, match=text):
            await client.callRemote(Explode)
        assert await client.callRemote(Sum, a=1, b=2) == {"total": 3}


async def test_fatal_errors_close_the_connection() -> None:
    async with pair(ScriptedPeer) as (peer, client):
        peer.expect(Explode).fail(EOFError("enough"))
        with pytest.raises(EOFError, match="enough"):
            await client.callRemote(Explode)
        await client.wait_closed()


async def test_never_answers() -> None:
    async with pair(ScriptedPeer) as (peer, client):
        never = peer.expect(Sum).never()
        peer.expect(Echo).answer({"data": b"later"})
        asked = client.callRemote(Sum, a=1, b=2)
        await never.received()
        assert await client.callRemote(Echo, data=b"x") == {"data": b"later"}
        assert not asked.done()
    with pytest.raises(ConnectionLost):
        await asked


async def test_answers_later() -> None:
    async with pair(ScriptedPeer) as (peer, client):
        late, later = peer.expect(Sum, a=1), peer.expect(Divide)
        asked = [client.callRemote(Sum, a=1, b=2), client.callRemote(Divide, a=1, b=0)]
        assert await late.received() == {"a": 1, "b": 2}
        await turns()
        assert not asked[0].done()
        later.fail(ZeroDivisionError("no"))
        with pytest.raises(ZeroDivisionError):
            await asked[1]
        late.answer({"total": 3})
        assert await asked[0] == {"total": 3}


async def test_decides_later_not_to_answer() -> None:
    async with pair(ScriptedPeer) as (peer, client):
        first, second = peer.expect(Sum), peer.expect(Sum)
        asked = [client.callRemote(Sum, a=1, b=2) for _ in range(2)]
        await second.received()
        first.never()
        second.hang_up()
        for future in asked:
            with pytest.raises(ConnectionLost):
                await future
    assert "Sum()" in repr(first)


async def test_an_answer_that_is_too_late_goes_nowhere() -> None:
    faults = Faults()
    async with pair(ScriptedPeer, faults=faults) as (peer, client):
        late = peer.expect(Sum)
        asked = client.callRemote(Sum, a=1, b=2)
        await late.received()
        faults.to_client.reset()
        await peer.wait_closed()
        late.answer({"total": 3})
        with pytest.raises(ConnectionLost):
            await asked


async def test_writes_bytes_in_place_of_an_answer() -> None:
    async with pair(ScriptedPeer) as (peer, client):
        peer.expect(Sum, a=1).answer({"total": 1})
        peer.expect(Sum, a=2).write(lambda tag: AmpBox(_answer=tag, total=b"many").serialize())
        peer.expect(Sum, a=3).write(b"HTTP/1.1 200 OK\r\n\r\n")
        asked = [client.callRemote(Sum, a=a, b=0) for a in (1, 2, 3)]
        assert await asked[0] == {"total": 1}
        with pytest.raises(MalformedAmpBox, match="many"):
            await asked[1]
        with pytest.raises(ConnectionLost, match="HTTP"):
            await asked[2]


async def test_hangs_up() -> None:
    async with pair(ScriptedPeer) as (peer, client):
        peer.expect(Sum).hang_up()
        with pytest.raises(ConnectionLost):
            await client.callRemote(Sum, a=1, b=2)


async def test_commands_that_change_the_connection() -> None:
    inner, outer = Recorder(), Recorder()
    async with pair(ScriptedPeer) as (peer, client):
        peer.expect(StartTLS).fail(RemoteAmpError(b"NO_TLS", "not today"))
        peer.expect(SwitchTo, name="x").answer(inner)
        with pytest.raises(RemoteAmpError, match="not today"):
            await client.callRemote(StartTLS)
        await client.callRemote(SwitchTo, lambda: outer, name="x")
        outer.transport.write(b"hello")
        await inner.until(lambda: inner.data == b"hello")


async def test_one_outcome_is_enough() -> None:
    peer = ScriptedPeer()
    asked = peer.expect(Sum, a=1).answer({"total": 2})
    with pytest.raises(RuntimeError, match=r"said already what becomes of Sum\(a=1\)"):
        asked.never()


async def test_own_responders_answer_what_no_expectation_names() -> None:
    class Half(ScriptedPeer):
        @Echo.responder
        def echo(self, data: bytes) -> dict[str, bytes]:
            return {"data": data}

    async with pair(Half) as (peer, client):
        peer.expect(Sum).answer({"total": 2})
        for _ in range(2):
            assert await client.callRemote(Echo, data=b"x") == {"data": b"x"}
        assert await client.callRemote(Sum, a=1, b=1) == {"total": 2}


async def test_the_librarys_own_names_are_left_alone() -> None:
    async with pair(ScriptedPeer) as (_, client):
        with pytest.raises(UnhandledCommand):
            await client.callRemoteString(b"_nothing")


# --- what goes differently ---


async def test_in_order() -> None:
    with pytest.raises(AssertionError) as caught:
        async with pair(ScriptedPeer) as (peer, client):
            peer.expect(Sum, a=1).answer({"total": 1})
            peer.expect(Sum, a=2).answer({"total": 2})
            peer.expect(Sum, a=3).answer({"total": 3})
            await client.callRemote(Sum, a=1, b=0)
            with pytest.raises(UnknownRemoteError, match=r"did not expect Sum\(a=3, b=0\)"):
                await client.callRemote(Sum, a=3, b=0)
    assert str(caught.value).splitlines() == [
        "Sum(a=3, b=0) was not expected; Sum(a=2) did not come; Sum(a=3) did not come",
        "expected, in this order:",
        "  1. Sum(a=1) - came",
        "  2. Sum(a=2) - did not come",
        "  3. Sum(a=3) - did not come",
        "came:",
        "  1. Sum(a=1, b=0)",
        "  2. Sum(a=3, b=0) - not expected",
    ]


async def test_in_any_order() -> None:
    async with pair(ScriptedPeer(in_order=False)) as (peer, client):
        for a in (1, 2, 3):
            peer.expect(Sum, a=a).answer({"total": a})
        for a in (2, 3, 1):
            assert await client.callRemote(Sum, a=a, b=0) == {"total": a}


async def test_in_any_order_and_once() -> None:
    peer = ScriptedPeer(in_order=False)
    complaint = r"Sum\(a=1, b=0\) was not expected\nexpected, in any order:"
    with pytest.raises(AssertionError, match=complaint):
        async with pair(peer) as (_, client):
            peer.expect(Sum, a=1).answer({"total": 1})
            await client.callRemote(Sum, a=1, b=0)
            with pytest.raises(UnknownRemoteError):
                await client.callRemote(Sum, a=1, b=0)


async def test_nothing_came_and_nothing_was_expected() -> None:
    with pytest.raises(AssertionError, match=r"Sum\(\) did not come\n(.*\n)*came:\n  nothing"):
        async with pair(ScriptedPeer) as (peer, client):
            peer.expect(Sum)
    with pytest.raises(AssertionError, match=r"Mul\(a=b'1'\) was not expected\n.*\n  nothing"):
        async with pair(ScriptedPeer) as (peer, client):
            with pytest.raises(RemoteAmpError, match="UNEXPECTED"):
                await client.callRemoteString(b"Mul", a=b"1")


async def test_arguments_that_do_not_decode() -> None:
    with pytest.raises(AssertionError, match="Sum whose arguments do not decode"):
        async with pair(ScriptedPeer) as (peer, client):
            peer.expect(Sum)
            with pytest.raises(RemoteAmpError):
                await client.callRemoteString(b"Sum", a=b"one", b=b"2")


async def test_an_answer_that_does_not_encode() -> None:
    with pytest.raises(AssertionError, match=r"the answer to Sum\(a=1\) does not encode"):
        async with pair(ScriptedPeer) as (peer, client):
            peer.expect(Sum, a=1).answer({"totl": 2})
            with pytest.raises(UnknownRemoteError):
                await client.callRemote(Sum, a=1, b=1)


async def test_an_error_of_the_test_is_not_hidden() -> None:
    with pytest.raises(LookupError, match="mine"):
        async with pair(ScriptedPeer) as (peer, _):
            peer.expect(Sum)
            raise LookupError("mine")


async def test_an_error_that_an_unexpected_command_caused_is_its_context() -> None:
    with pytest.raises(AssertionError, match=r"Sum\(a=1, b=1\) was not expected") as caught:
        async with pair(ScriptedPeer) as (peer, client):
            peer.expect(Sum, a=2)
            await client.callRemote(Sum, a=1, b=1)
    assert "did not come;" not in str(caught.value)
    assert isinstance(caught.value.__context__, UnknownRemoteError)


async def test_who_waits_for_a_command_hears_of_another_one() -> None:
    with pytest.raises(AssertionError, match=r"Divide\(.*\) was not expected"):
        async with pair(ScriptedPeer) as (peer, client):
            asked, other = peer.expect(Sum), peer.expect(Divide)
            wrong = client.callRemote(Divide, a=1, b=1)
            with pytest.raises(AssertionError, match=r"Divide\(a=1, b=1\) was not expected\n"):
                await asked.received()
            with pytest.raises(UnknownRemoteError):
                await wrong
            asked.answer({"total": 3})
            other.fail(ZeroDivisionError())
            await client.callRemote(Sum, a=1, b=2)
            assert await asked.received() == {"a": 1, "b": 2}


async def test_who_waits_for_a_command_hears_of_the_end() -> None:
    with pytest.raises(AssertionError, match="did not come"):
        async with pair(ScriptedPeer) as (peer, client):
            asked = peer.expect(Sum, a=1)
            client.abort()
            with pytest.raises(ConnectionLost, match=r"lost before Sum\(a=1\) came"):
                await asked.received()


async def test_a_cancellation_is_not_replaced() -> None:
    asked = asyncio.Event()

    async def play() -> None:
        async with pair(ScriptedPeer) as (peer, client):
            peer.expect(Sum).never()
            with pytest.raises(RemoteAmpError):
                await client.callRemoteString(b"Mul")
            asked.set()
            await client.callRemote(Sum, a=1, b=1)

    playing = asyncio.ensure_future(play())
    await asked.wait()
    playing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await playing
