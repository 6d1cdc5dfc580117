"""Handing a connection over: accepted, refused, in doubt, coalesced, and everything that can fail."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from fakes import BufferedRecorder, Notes, Recorder, Sender, Transport
from support import (
    Echo,
    Explode,
    Math,
    Sum,
    Switching,
    SwitchTo,
    connected,
    listening,
    on_transport,
    raw_client,
    raw_pair,
    reach,
    switch_box,
    turns,
)

from amp_asyncio import (
    AMP,
    AmpBox,
    BoxDispatcher,
    ConnectionLost,
    ProtocolSwitchCommand,
    ProtocolSwitched,
    StartTLS,
    connect,
    parseString,
)


@pytest.mark.parametrize("kind", [Recorder, BufferedRecorder])
async def test_both_sides_go_on_with_their_new_protocols(kind: type[Notes]) -> None:
    async with connected(lambda: Switching(kind), Math) as (server, client):
        waiting = asyncio.ensure_future(client.wait_closed())
        await asyncio.sleep(0)
        assert await client.callRemote(SwitchTo, kind, name="x") == {}
        await waiting
        inner: Any = client.innerProtocol
        assert client.transport is None
        inner.transport.write(b"from the client")
        await server.inner.until(lambda: server.inner.data == b"from the client")
        server.inner.transport.write(b"from the server")
        await inner.until(lambda: inner.data == b"from the server")
        inner.transport.close()
        await server.inner.until(lambda: "lost" in server.inner.events)
        await inner.until(lambda: "lost" in inner.events)
        assert server.inner.events == ["made", "eof", "lost"]
        await client.wait_closed()
        await client.close()


async def test_the_old_object_sends_nothing_after_the_switch() -> None:
    async with connected(Switching, Math) as (server, client):
        earlier = server.callRemote(Echo, data=b"never answered")
        switched = client.callRemote(SwitchTo, Recorder, name="x")
        later = client.callRemote(Sum, a=1, b=1)
        second = client.callRemote(SwitchTo, Recorder, name="y")
        await switched
        for question in (later, second, client.callRemote(Sum, a=1, b=1)):
            with pytest.raises(ProtocolSwitched):
                await question
        with pytest.raises(ProtocolSwitched):
            client.sendBox(AmpBox(_command=b"Sum"))
        # The client was locked when it answered.
        with pytest.raises(ProtocolSwitched):
            await earlier
        inner: Any = client.innerProtocol
        assert inner.data == b""
        inner.transport.close()
        await server.inner.until(lambda: "lost" in server.inner.events)


async def test_refused_what_waited_is_sent_in_order() -> None:
    order: list[Any] = []

    class Server(Switching):
        refusal = PermissionError("not you")

        @Sum.responder
        def sum(self, a: int, b: int) -> dict[str, int]:
            order.append(a)
            return {"total": a + b}

    async with connected(Server, Math) as (server, client):
        server.gate = asyncio.Event()
        made: list[Recorder] = []
        switched = client.callRemote(SwitchTo, lambda: made.append(Recorder()), name="x")
        await server.asked.wait()
        echo = server.callRemote(Echo, data=b"while in doubt")
        later = [client.callRemote(Sum, a=a, b=1) for a in range(5)]
        second = client.callRemote(SwitchTo, Recorder, name="y")
        server.gate.set()
        with pytest.raises(PermissionError, match="not you"):
            await switched
        assert await asyncio.gather(*later) == [{"total": a + 1} for a in range(5)]
        assert order == list(range(5))
        assert await echo == {"data": b"while in doubt"}
        with pytest.raises(PermissionError):
            await second
        assert made == []
        assert client.innerProtocol is None
        assert await client.callRemote(Sum, a=1, b=1) == {"total": 2}


async def test_a_responder_that_finishes_while_in_doubt_answers_after_the_refusal() -> None:
    class Client(Math):
        def __init__(self) -> None:
            super().__init__()
            self.gate = asyncio.Event()
            self.task: Any = None

        @Echo.responder
        async def echo(self, data: bytes) -> dict[str, bytes]:
            self.task = asyncio.current_task()
            await self.gate.wait()
            return {"data": data}

    async with connected(Switching, Client) as (server, client):
        server.gate = asyncio.Event()
        server.refusal = PermissionError()
        echo = server.callRemote(Echo, data=b"x")
        assert await client.callRemote(Sum, a=1, b=1) == {"total": 2}
        switched = client.callRemote(SwitchTo, Recorder, name="x")
        await server.asked.wait()
        client.gate.set()
        await asyncio.wait([client.task])
        assert not echo.done()
        server.gate.set()
        with pytest.raises(PermissionError):
            await switched
        assert await echo == {"data": b"x"}


ACK = AmpBox(_answer=b"1").serialize()
INNER = bytes(range(256)) * 2


async def peer_that_answers(answer: Callable[[asyncio.StreamWriter], Any]) -> asyncio.Server:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\0\0\0\4name\0\1x\0\0"[2:])
        await answer(writer)
        with suppress(ConnectionError):
            await reader.read()
        writer.close()

    return await asyncio.start_server(talk, "127.0.0.1", 0)


@pytest.mark.parametrize("kind", [Recorder, BufferedRecorder])
@pytest.mark.parametrize("cut", [*range(len(ACK) + 3), len(ACK + INNER)])
async def test_data_behind_the_acknowledgement_is_the_new_protocols(
    kind: type[Notes], cut: int
) -> None:
    """Fed straight to the protocol, so that the cut is where it says."""
    amp, transport = AMP(), Transport()
    amp.connection_made(transport)
    switched = amp.callRemote(SwitchTo, kind, name="x")
    stream = ACK + INNER
    receive: Any = amp
    for piece in filter(None, (stream[:cut], stream[cut:])):
        if receive is amp and amp.innerProtocol is not None:
            receive = amp.innerProtocol
        if receive is amp or kind is Recorder:
            receive.data_received(piece)
        else:
            amp_asyncio_feed(receive, piece)
    assert await switched == {}
    inner: Any = amp.innerProtocol
    assert inner.data == INNER
    assert transport.protocol is inner


def amp_asyncio_feed(protocol: Any, data: bytes) -> None:
    for byte in data:
        protocol.get_buffer(1)[:1] = bytes([byte])
        protocol.buffer_updated(1)


async def test_the_responders_side_hands_over_what_came_behind_the_command() -> None:
    made: list[Switching] = []

    def factory() -> Switching:
        made.append(Switching())
        made[-1].gate = asyncio.Event()
        return made[-1]

    async with listening(factory) as server, raw_client(server) as (reader, writer):
        # A peer that does not wait for the acknowledgement, and whose bytes look like a command.
        injected = AmpBox(_command=b"Sum", _ask=b"2", a=b"1", b=b"1").serialize()
        writer.write(switch_box() + injected)
        await writer.drain()
        while not made:
            await asyncio.sleep(0)
        await made[0].asked.wait()
        writer.write(b"more")
        assert made[0].gate is not None
        made[0].gate.set()
        assert parseString(await reader.readexactly(len(ACK))) == [{b"_answer": b"1"}]
        inner = made[0].inner
        await inner.until(lambda: inner.data == injected + b"more")
        inner.transport.close()
        assert await reader.read() == b""
        await inner.until(lambda: "lost" in inner.events)


async def test_refused_what_came_behind_the_command_is_amp_again() -> None:
    class Refusing(Switching):
        refusal = PermissionError("no")

    async with listening(Refusing) as server, raw_client(server) as (reader, writer):
        question = AmpBox(_command=b"Sum", _ask=b"2", a=b"1", b=b"1").serialize()
        writer.write(switch_box() + question)
        writer.write_eof()
        boxes = parseString(await reader.read())
        assert [box.get(b"_error", box.get(b"_answer")) for box in boxes] == [b"1", b"2"]


@pytest.mark.parametrize("plain", [False, True])
async def test_a_plain_responder_switches_too(plain: bool) -> None:
    class Plain(Switching):
        def switch(self, name: str) -> Any:  # type: ignore[override]
            if self.refusal:
                raise self.refusal
            self.inner = Recorder()
            return self.inner

    async with connected(Plain, AMP) as (server, client):
        if plain:
            server.refusal = PermissionError()
            with pytest.raises(PermissionError):
                await client.callRemote(SwitchTo, Recorder, name="x")
            assert await client.callRemote(Sum, a=1, b=1) == {"total": 2}
            return
        await client.callRemote(SwitchTo, Recorder, name="x")
        client.innerProtocol.transport.close()  # type: ignore[union-attr]
        await server.inner.until(lambda: "lost" in server.inner.events)


async def test_streams() -> None:
    streams: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    def stream() -> asyncio.StreamReaderProtocol:
        def opened(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            streams.append((reader, writer))

        return asyncio.StreamReaderProtocol(asyncio.StreamReader(), opened)

    async with connected(lambda: Switching(stream), AMP) as (_, client):
        await client.callRemote(SwitchTo, stream, name="x")
        (server_reader, server_writer), (reader, writer) = streams
        data = b"0123456789abcdef" * 65536
        writer.write(data)
        writer.write_eof()
        server_writer.write(data)
        server_writer.write_eof()
        assert await asyncio.gather(server_reader.read(), reader.read()) == [data, data]
        for each in (writer, server_writer):
            each.close()
            await each.wait_closed()


async def test_a_factory_that_raises_fails_the_call_and_aborts() -> None:
    def factory() -> Any:
        raise LookupError("no such protocol")

    async with connected(Switching, Math) as (server, client):
        switched = client.callRemote(SwitchTo, factory, name="x")
        later = client.callRemote(Sum, a=1, b=1)
        with pytest.raises(LookupError):
            await switched
        with pytest.raises(ConnectionLost, match="no such protocol"):
            await later
        await server.inner.until(lambda: "lost" in server.inner.events)


@pytest.mark.parametrize("side", ["client", "server"])
@pytest.mark.parametrize("when", ["connection_made", "data_received", "eof_received"])
async def test_a_new_protocol_that_raises_when_it_takes_over(
    side: str, when: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Recorder):
        pass

    def fail(self: Any, *arguments: Any) -> None:
        raise RuntimeError("broken")

    setattr(Broken, when, fail)
    amp: Any = AMP() if side == "client" else Switching(Broken)
    transport = Transport()
    amp.connection_made(transport)
    if side == "client":
        switched = amp.callRemote(SwitchTo, Broken, name="x")
    else:
        amp.gate = asyncio.Event()
        amp.data_received(switch_box() + b"data")
    if when == "eof_received":
        amp.eof_received()
    if side == "server":
        amp.gate.set()
    if side == "client":
        amp.data_received(ACK + b"data")
        assert await switched == {}
    await transport.until(lambda: "abort" in transport.done)
    await turns()
    assert transport.done[-1] == "abort"
    assert "broken" in caplog.text


async def test_the_new_protocol_learns_what_the_old_one_knew() -> None:
    amp, transport = AMP(), Transport()
    amp.connection_made(transport)
    switched = amp.callRemote(SwitchTo, Recorder, name="x")
    amp.pause_writing()
    amp.eof_received()
    amp.data_received(ACK)
    await switched
    inner: Any = amp.innerProtocol
    assert inner.events == ["made", "pause", "eof"]
    assert transport.done == ["close"]


async def test_a_peer_that_drops_instead_of_answering() -> None:
    async def drop(writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    async with await peer_that_answers(drop) as server:
        async with connect(*server.sockets[0].getsockname()) as client:
            switched = client.callRemote(SwitchTo, Recorder, name="x")
            later = client.callRemote(Sum, a=1, b=1)
            with pytest.raises(ConnectionLost):
                await switched
            with pytest.raises(ConnectionLost):
                await later


async def test_cancelled_before_it_was_sent_it_is_only_forgotten() -> None:
    async with connected(Switching, Math) as (server, client):
        client.pause_writing()
        switched = client.callRemote(SwitchTo, Recorder, name="x")
        switched.cancel()
        await asyncio.sleep(0)
        client.resume_writing()
        assert await client.callRemote(Sum, a=1, b=1) == {"total": 2}
        assert not server.asked.is_set()


async def test_cancelled_in_doubt_the_connection_is_aborted() -> None:
    async with connected(Switching, Math) as (server, client):
        server.gate = asyncio.Event()
        switched = client.callRemote(SwitchTo, Recorder, name="x")
        later = client.callRemote(Sum, a=1, b=1)
        await server.asked.wait()
        switched.cancel()
        with pytest.raises(ConnectionLost, match="cancelled"):
            await later
        server.gate.set()


async def test_cancelled_in_the_turn_of_the_answer_the_connection_is_aborted() -> None:
    amp, transport = AMP(), Transport()
    amp.connection_made(transport)
    switched = amp.callRemote(SwitchTo, Recorder, name="x")
    switched.cancel()
    amp.data_received(ACK)
    assert amp.innerProtocol is None
    assert transport.done == ["abort"]
    amp.connection_lost(None)


async def test_cancelled_after_the_switch_nothing_happens() -> None:
    async with connected(Switching, Math) as (server, client):
        task = asyncio.ensure_future(client.callRemote(SwitchTo, Recorder, name="x"))
        await task
        task.cancel()
        inner: Any = client.innerProtocol
        inner.transport.write(b"x")
        await server.inner.until(lambda: server.inner.data == b"x")
        inner.transport.close()
        await server.inner.until(lambda: "lost" in server.inner.events)


async def test_both_sides_ask_for_a_switch_at_once(caplog: pytest.LogCaptureFixture) -> None:
    async with connected(Switching, Switching) as (server, client):
        one = client.callRemote(SwitchTo, Recorder, name="x")
        other = server.callRemote(SwitchTo, Recorder, name="x")
        for question in (one, other):
            with pytest.raises(ConnectionLost):
                await question
    assert "both sides want to change the connection at once" in caplog.text


async def test_refused_while_the_transport_is_congested() -> None:
    async with connected(Switching, Math) as (server, client):
        server.refusal = PermissionError()
        switched = client.callRemote(SwitchTo, Recorder, name="x")
        client.pause_writing()
        with pytest.raises(PermissionError):
            await switched
        total = client.callRemote(Sum, a=1, b=1)
        for _ in range(2):
            assert await server.callRemote(Sum, a=2, b=2) == {"total": 4}
        assert not total.done(), "questions wait for the transport now"
        client.resume_writing()
        assert await total == {"total": 2}


async def test_closing_while_a_switch_is_in_doubt() -> None:
    async with connected(Switching, Math) as (server, client):
        server.gate = asyncio.Event()
        switched = client.callRemote(SwitchTo, Recorder, name="x")
        await server.asked.wait()
        await client.close(timeout=0)
        with pytest.raises(ConnectionLost):
            await switched
        server.gate.set()


async def test_a_responder_that_asks_for_a_switch_itself_cannot_agree(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Both(Math):
        @SwitchTo.responder
        def switch(self, name: str) -> Any:
            self.switched = self.callRemote(SwitchTo, Recorder, name="y")
            return Recorder()

    async with raw_pair(Both) as (amp, peer):
        peer.transport.write(switch_box())
        await turns()
        assert "both sides want to change the connection at once" in caplog.text
        assert [box[b"_command"] for box in peer.boxes()] == [b"SwitchTo"]
        peer.send(AmpBox(_error=b"1", _error_code=b"NO", _error_description=b""))
        with pytest.raises(PermissionError):
            await amp.switched
        await turns()
        assert peer.boxes()[1:] == [
            AmpBox(
                _error=b"1",
                _error_code=b"UNKNOWN",
                _error_description=peer.boxes()[1][b"_error_description"],
            )
        ]


async def test_agreed_among_what_is_given_out_after_the_loss() -> None:
    """The new protocol gets all that came, and then the loss."""
    amp, _ = on_transport()
    switched = amp.callRemote(SwitchTo, Recorder, name="x")
    notice = AmpBox(_command=b"Echo", data=b"x").serialize()
    amp.data_received(64 * notice + ACK + b"data")
    error = OSError()
    amp.connection_lost(error)
    assert await switched == {}
    inner: Any = amp.innerProtocol
    assert inner.data == b"data"
    assert inner.events == ["made", "lost"]
    await amp.wait_closed()


async def test_refused_among_what_is_given_out_after_the_loss() -> None:
    """Sixty-four boxes are given out in one turn; the refusal comes in the next one."""
    amp, transport = on_transport()
    switched = amp.callRemote(SwitchTo, Recorder, name="x")
    later = amp.callRemote(Sum, a=1, b=1)
    notice = AmpBox(_command=b"Echo", data=b"x").serialize()
    refusal = AmpBox(_error=b"1", _error_code=b"NO", _error_description=b"no").serialize()
    amp.data_received(64 * notice + refusal)
    amp.connection_lost(None)
    with pytest.raises(PermissionError):
        await switched
    with pytest.raises(ConnectionLost):
        await later
    await amp.wait_closed()
    assert [box[b"_command"] for box in transport.boxes()] == [b"SwitchTo"]


async def test_a_fatal_error_in_doubt_closes_after_the_refusal() -> None:
    class Client(Math):
        @Explode.responder
        def explode(self) -> None:
            raise EOFError("fatal")

    async with connected(Switching, Client) as (server, client):
        server.gate = asyncio.Event()
        server.refusal = PermissionError()
        switched = client.callRemote(SwitchTo, Recorder, name="x")
        await server.asked.wait()
        exploded = server.callRemote(Explode)
        server.gate.set()
        with pytest.raises(PermissionError):
            await switched
        with pytest.raises(EOFError):
            await exploded
        await client.wait_closed()


@pytest.mark.parametrize("returned", [None, {}, Recorder])
async def test_a_responder_that_returns_no_protocol(
    returned: Any, caplog: pytest.LogCaptureFixture
) -> None:
    class Server(Switching):
        closeOnUnknownError = False

        @SwitchTo.responder
        def switch(self, name: str) -> Any:  # type: ignore[override]
            return returned

    async with connected(Server, AMP) as (_, client):
        with pytest.raises(Exception, match="Unknown Error"):
            await client.callRemote(SwitchTo, Recorder, name="x")
        assert await client.callRemote(Sum, a=1, b=1) == {"total": 2}
    assert "is not an asyncio.BaseProtocol" in caplog.text


async def test_what_cannot_be_switched() -> None:
    async with connected(Switching, AMP) as (_, client):
        with pytest.raises(TypeError, match="needs a protocol factory"):
            client.callRemote(SwitchTo, None, name="x")
        await client.close()
    dispatcher = BoxDispatcher(Math())
    dispatcher.startReceivingBoxes(Sender())
    with pytest.raises(TypeError, match="such as AMP can be changed, not the sender"):
        dispatcher.callRemote(SwitchTo, Recorder, name="x")


async def test_the_garbage_collector_frees_the_old_objects() -> None:
    old: list[weakref.ref[AMP]] = []
    inner: list[Recorder] = []

    class Kept(Recorder):
        def __init__(self) -> None:
            super().__init__()
            inner.append(self)

    def factory() -> Switching:
        amp = Switching(Kept)
        old.append(weakref.ref(amp))
        return amp

    async with listening(factory) as server:
        client = await reach(server)
        old.append(weakref.ref(client))
        await client.callRemote(SwitchTo, Kept, name="x")
        del client
        inner[0].transport.write(b"x")
        await inner[1].until(lambda: inner[1].data == b"x")
        gc.collect()
        assert [ref() for ref in old] == [None, None]
        inner[0].transport.close()
        await inner[1].until(lambda: "lost" in inner[1].events)


async def test_a_protocol_whose_buffer_is_empty(caplog: pytest.LogCaptureFixture) -> None:
    class Empty(BufferedRecorder):
        def get_buffer(self, sizehint: int) -> bytearray:
            return bytearray()

    amp, transport = AMP(), Transport()
    amp.connection_made(transport)
    switched = amp.callRemote(SwitchTo, Empty, name="x")
    amp.data_received(ACK + b"data")
    await switched
    assert transport.done == ["abort"]
    assert "returned an empty buffer" in caplog.text


@pytest.mark.parametrize("base", [ProtocolSwitchCommand, StartTLS])
def test_a_change_of_the_connection_requires_an_answer(base: type[Any]) -> None:
    with pytest.raises(TypeError, match="requires an answer"):
        type("Hasty", (base,), {"requiresAnswer": False})


async def test_a_factory_that_raises_what_no_future_can() -> None:
    async with connected(Switching, Math) as (server, client):
        with pytest.raises(RuntimeError, match="StopIteration"):
            await client.callRemote(SwitchTo, lambda: next(iter(())), name="x")
        await server.inner.until(lambda: "lost" in server.inner.events)


@pytest.mark.slow  # The peer has ten seconds.
async def test_an_end_that_waits_for_a_change_does_not_wait_for_ever() -> None:
    client, transport = on_transport(AMP)
    switched = client.callRemote(SwitchTo, Recorder, name="x")
    client.finish_writing()
    client.finish_writing()
    await transport.until(lambda: transport.done)
    assert transport.done == ["abort"]
    client.connection_lost(None)
    with pytest.raises(ConnectionLost):
        await switched
