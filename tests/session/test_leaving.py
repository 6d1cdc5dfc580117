"""Ending a connection between two peers of this package: no question fails."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support import Echo, Notify, Patient, Sum, Wait, at_any_pace, connected, raw_pair, turns

from amp_asyncio import AMP, AmpBox, Command, ConnectionLost, Integer, Limits, connect, serve
from amp_asyncio.testing import pair

LEAVE = AmpBox(_command=b"_leave")
REPLY = AmpBox(_command=b"_leave", heard=b"True")


class Bounce(Command):
    """Asked back and forth, so many times."""

    arguments = [(b"times", Integer())]
    response = [(b"times", Integer())]


class Bouncing(Patient):
    @Bounce.responder
    async def bounce(self, times: int) -> dict[str, int]:
        await asyncio.sleep(0)
        if times:
            await self.callRemote(Bounce, times=times - 1)
        return {"times": times}


async def known(amp: Any, peer: Any, names: bytes = b"leave") -> None:
    """Have an AMP take its raw peer for one of its kind."""
    peer.send(AmpBox(_command=b"Sum", _ask=b"1", a=b"1", b=b"2", _offer=b"1 " + names))
    await peer.until(lambda: len(peer.boxes()) == 2)
    peer.data = b""


async def left(amp: Any, peer: Any, box: AmpBox) -> asyncio.Future[None]:
    """Close an AMP, and have its raw peer say `box` when it was told; return what closes it."""
    closing = asyncio.ensure_future(amp.close())
    await peer.until(lambda: peer.boxes() == [LEAVE])
    peer.send(box)
    await turns()
    return closing


async def test_both_close_at_once_while_responders_ask_each_other() -> None:
    async with pair(Bouncing, Bouncing) as (server, client):
        await client.callRemote(Sum, a=1, b=2)
        asked = [amp.callRemote(Bounce, times=n) for n in range(20) for amp in (server, client)]
        waiting = [client.callRemote(Wait, name="a"), server.callRemote(Wait, name="b")]
        await server.started.get()
        await client.started.get()
        closing = asyncio.gather(server.close(), client.close())
        await turns()
        server.let("a")
        client.let("b")
        await closing
        assert [await each for each in asked] == [{"times": n // 2} for n in range(40)]
        assert [await each for each in waiting] == [{"name": "a"}, {"name": "b"}]


@pytest.mark.parametrize("times", range(8))
async def test_a_question_on_its_way_is_answered(times: int) -> None:
    """However the two cross: the server leaves while the client asks."""
    async with pair(Bouncing, Bouncing) as (server, client):
        await client.callRemote(Sum, a=1, b=2)
        for _ in range(times):
            await asyncio.sleep(0)
        asked = client.callRemote(Bounce, times=3)
        closing = asyncio.ensure_future(server.close())
        later = []
        for _ in range(10):
            later.append(client.callRemote(Sum, a=1, b=2))
            await asyncio.sleep(0)
        await closing
        assert await asked == {"times": 3}
        outcomes = await asyncio.gather(*later, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, ConnectionLost):
                assert not outcome.sent, "it may be asked on another connection"
            else:
                assert outcome == {"total": 3}
        assert isinstance(outcomes[-1], ConnectionLost)


async def test_who_closes_says_so_and_waits_for_the_other() -> None:
    async with raw_pair(Bouncing) as (amp, peer):
        await known(amp, peer)
        closing = asyncio.ensure_future(amp.close())
        await turns()
        assert peer.boxes() == [LEAVE]
        # What the peer had asked before it knew is answered.
        peer.send(AmpBox(_command=b"Echo", _ask=b"2", data=b"x"))
        await peer.until(lambda: len(peer.boxes()) == 2)
        assert not amp.transport.is_closing()
        peer.send(LEAVE)
        await peer.until(lambda: "eof" in peer.events)
        peer.transport.close()
        await closing


async def test_who_closes_does_not_wait_for_a_peer_that_has_read_all() -> None:
    async with raw_pair(Bouncing) as (amp, peer):
        await known(amp, peer)
        closing = await left(amp, peer, REPLY)
        await peer.until(lambda: "eof" in peer.events)
        assert amp.transport is None, "it is closed, and not only its one side"
        await closing
        assert not peer.transport.is_closing()


async def test_who_closes_at_the_same_time_as_the_peer_waits_for_it() -> None:
    """What the peer says is no reply: it has not read everything yet."""
    async with raw_pair(Bouncing) as (amp, peer):
        await known(amp, peer)
        closing = await left(amp, peer, LEAVE)
        await peer.until(lambda: "eof" in peer.events)
        assert amp.transport is not None
        peer.transport.close()
        await closing


async def test_who_answers_after_it_left_waits_for_the_peer_to_close() -> None:
    """The peer may not have read that answer, and would lose it if it sends something meanwhile."""
    async with raw_pair(Bouncing) as (amp, peer):
        await known(amp, peer)
        peer.send(AmpBox(_command=b"Wait", _ask=b"2", name=b"x"))
        await amp.started.get()
        closing = await left(amp, peer, REPLY)
        amp.let("x")
        await peer.until(lambda: "eof" in peer.events)
        assert peer.boxes() == [LEAVE, AmpBox(_answer=b"2", name=b"x")]
        assert amp.transport is not None
        peer.transport.close()
        await closing


async def test_who_is_cut_short_waits_for_the_peer_to_close() -> None:
    async with raw_pair(Bouncing) as (amp, peer):
        await known(amp, peer)
        peer.send(AmpBox(_command=b"Wait", _ask=b"2", name=b"x"))
        await amp.started.get()
        closing = await left(amp, peer, REPLY)
        amp.finish_writing()
        await peer.until(lambda: "eof" in peer.events)
        assert amp.transport is not None
        peer.transport.close()
        await closing


async def test_who_is_told_says_the_same_and_asks_no_more() -> None:
    async with raw_pair(Bouncing, window=500, max_box_size=5000) as (amp, peer):
        await known(amp, peer)
        first, second = amp.callRemote(Sum, a=1, b=2), amp.callRemote(Sum, a=1, b=2)
        await turns()
        peer.send(LEAVE)
        await turns()
        with pytest.raises(ConnectionLost, match="takes no new questions") as caught:
            await amp.callRemote(Sum, a=1, b=2)
        assert not caught.value.sent
        assert len(peer.boxes()) == 1, "one question still waits for the window"
        peer.send(AmpBox(_answer=b"1", total=b"3"))
        await peer.until(lambda: len(peer.boxes()) == 3)
        assert peer.boxes()[2] == REPLY
        # A responder may still ask.
        peer.send(AmpBox(_command=b"Bounce", _ask=b"2", times=b"1"), AmpBox(_answer=b"2", total=b"3"))
        await peer.until(lambda: len(peer.boxes()) == 4)
        assert peer.boxes()[3][b"_command"] == b"Bounce"
        peer.send(AmpBox(_answer=b"3", times=b"0"), LEAVE)
        await peer.until(lambda: len(peer.boxes()) == 5)
        assert await asyncio.gather(first, second) == [{"total": 3}] * 2


async def test_an_old_peer_is_not_told() -> None:
    async with raw_pair(Bouncing) as (amp, peer):
        peer.send(AmpBox(_command=b"Sum", _ask=b"1", a=b"1", b=b"2"))
        await peer.until(lambda: len(peer.boxes()) == 1)
        peer.transport.write_eof()
        await amp.close()
        assert len(peer.boxes()) == 1


async def test_a_peer_that_does_not_leave_is_waited_for_as_long_as_it_takes_to_close() -> None:
    async with raw_pair(Bouncing) as (amp, peer):
        await known(amp, peer)
        await amp.close(timeout=0.01)
        assert peer.boxes() == [LEAVE]


@pytest.mark.parametrize("heard", [False, True])
async def test_a_peer_that_is_lost_while_it_leaves_is_not_waited_for(heard: bool) -> None:
    async with raw_pair(Bouncing) as (amp, peer):
        await known(amp, peer)
        asked = amp.callRemote(Sum, a=1, b=2)
        closing = asyncio.ensure_future(amp.close(timeout=None))
        if heard:
            peer.send(LEAVE)
        await turns()
        peer.transport.abort()
        await closing
        with pytest.raises(ConnectionLost):
            await asked


async def test_a_cancelled_question_is_waited_for() -> None:
    """Its tag is open until the peer has ended its responder."""
    async with raw_pair(Bouncing) as (amp, peer):
        await known(amp, peer, b"leave cancel")
        amp.callRemote(Sum, a=1, b=2).cancel()
        closing = asyncio.ensure_future(amp.close())
        peer.send(LEAVE)
        await peer.until(lambda: len(peer.boxes()) == 3)
        await turns()
        assert "eof" not in peer.events
        peer.send(AmpBox(_error=b"1", _error_code=b"_CANCELLED", _error_description=b""))
        await peer.until(lambda: "eof" in peer.events)
        peer.transport.close()
        await closing


async def test_a_peer_that_ends_its_side_is_lost_at_once() -> None:
    """It would have said that it leaves, and waited for its answers."""
    async with raw_pair(Patient) as (amp, peer):
        await known(amp, peer)
        peer.send(
            AmpBox(_command=b"Wait", _ask=b"2", name=b"x"), AmpBox(_command=b"Notify", data=b"last")
        )
        await amp.started.get()
        peer.transport.write_eof()
        await amp.wait_closed()
        assert amp.gate("x").cancelled()
        assert await amp.notified.get() == b"last"


@at_any_pace
async def test_a_connection_is_closed_when_it_is_old(pace: float) -> None:
    async with pair(Bouncing, limits=Limits(max_connection_age=0.05 * pace)) as (server, client):
        asked = client.callRemote(Wait, name="long")
        await server.started.get()
        while not client.transport.is_closing():
            try:
                await client.callRemote(Sum, a=1, b=2)
            except ConnectionLost as error:
                assert not error.sent
                break
        server.let("long")
        assert await asked == {"name": "long"}
        await client.wait_closed()
        await server.wait_closed()


async def test_a_client_that_asks_without_pause_sees_no_failed_call_at_a_restart() -> None:
    class Client:
        amp: AMP | None = None
        port = 0
        answered = 0

        async def ask(self) -> None:
            while True:
                if self.amp is None:
                    self.amp = await connect("127.0.0.1", self.port)
                amp = self.amp
                try:
                    await amp.callRemote(Echo, data=b"x")
                except ConnectionLost as error:
                    assert not error.sent
                    if self.amp is amp:
                        self.amp = None
                else:
                    self.answered += 1
                    return

    client = Client()
    stop = False

    async def caller() -> None:
        while not stop:
            await client.ask()

    server = await serve(Bouncing, "127.0.0.1", 0)
    client.port = server.sockets[0].getsockname()[1]
    await client.ask()
    callers = [asyncio.ensure_future(caller()) for _ in range(10)]
    for _ in range(3):
        while client.answered % 500 < 400:
            await asyncio.sleep(0)
        successor = await serve(Bouncing, "127.0.0.1", 0)
        client.port = successor.sockets[0].getsockname()[1]
        await server.close()
        server = successor
        answered = client.answered
        while client.answered < answered + 100:
            await asyncio.sleep(0)
    stop = True
    await asyncio.gather(*callers)
    assert client.amp is not None
    await client.amp.close()
    await server.close()


async def test_no_deadlock_with_commands_that_want_no_answer() -> None:
    async with connected(Bouncing, Bouncing) as (server, client):
        await client.callRemote(Sum, a=1, b=2)
        client.callRemote(Notify, data=b"x")
        await asyncio.gather(server.close(), client.close())
        assert await server.notified.get() == b"x"
