"""The connection: what is written, when, and how it ends, on a transport that only takes notes."""

from __future__ import annotations

import asyncio
import tracemalloc

import pytest
from fakes import Transport
from support import Divide, Echo, Math, Sum, connected, on_transport

from amp_asyncio import (
    AMP,
    AmpBox,
    BinaryBoxProtocol,
    BoxDispatcher,
    CommandLocator,
    ConnectionLost,
    NoEmptyBoxes,
    QuitBox,
    StartTLS,
    UnhandledCommand,
    parseString,
)


def question(number: int, **values: bytes) -> bytes:
    return AmpBox(_command=b"Sum", _ask=b"%x" % number, **values).serialize()


async def test_when_the_boxes_of_one_turn_leave() -> None:
    amp, transport = on_transport()
    divide = AmpBox(_command=b"Divide", _ask=b"1", a=b"1", b=b"2").serialize()

    def writes() -> list[int]:
        return [len(parseString(data)) for data in transport.written]

    amp.data_received(3 * divide)
    assert writes() == [3], "what is sent while a piece is read leaves when it has been read"
    answers = [amp.callRemote(Sum, a=1, b=2) for _ in range(3)]
    assert writes() == [3, 1], "the first box leaves at once"
    amp.data_received(divide)
    assert writes() == [3, 1, 3], "with the boxes that waited before it"
    answers += [amp.callRemote(Sum, a=1, b=2) for _ in range(2)]
    assert writes() == [3, 1, 3]
    await asyncio.sleep(0)
    assert writes() == [3, 1, 3, 2], "the others leave together at the end of the turn"
    await asyncio.sleep(0)
    answers.append(amp.callRemote(Sum, a=1, b=2))
    assert writes() == [3, 1, 3, 2, 1]
    for number, answer in enumerate(answers, 1):
        amp.data_received(AmpBox(_answer=b"%x" % number, total=b"3").serialize())
        assert await answer == {"total": 3}


async def test_a_box_that_is_alone_leaves_at_once() -> None:
    """A turn that had one box is over when something was read: the loop is not asked for its end."""
    amp, transport = on_transport()
    for number in range(1, 4):
        answer = amp.callRemote(Sum, a=1, b=2)
        assert len(transport.written) == number
        amp.data_received(AmpBox(_answer=b"%x" % number, total=b"3").serialize())
        assert await answer == {"total": 3}
    waiting = [amp.callRemote(Sum, a=1, b=2)]
    assert len(transport.written) == 4
    await asyncio.sleep(0)
    waiting.append(amp.callRemote(Sum, a=1, b=2))
    await asyncio.sleep(0)
    assert len(transport.written) == 5, "nothing was read, but the end of the turn is not missed"
    waiting.append(amp.callRemote(Sum, a=1, b=2))
    assert len(transport.written) == 6
    amp.connection_lost(None)
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_many_bytes_do_not_wait_for_the_end_of_the_turn() -> None:
    amp, transport = on_transport()
    answers = [amp.callRemote(Echo, data=bytes(10_000)) for _ in range(10)]
    assert len(transport.boxes()) == 9
    await asyncio.sleep(0)
    assert len(transport.boxes()) == 10
    assert len(transport.written) == 4
    amp.connection_lost(None)
    await asyncio.gather(*answers, return_exceptions=True)


async def test_an_empty_box_is_not_sent() -> None:
    amp, transport = on_transport()
    with pytest.raises(NoEmptyBoxes):
        amp.sendBox(AmpBox())
    with pytest.raises(TypeError):
        amp.callRemoteString("Sum", a="1")  # type: ignore[arg-type]
    await asyncio.sleep(0)
    assert transport.written == []


async def test_a_quit_box_ends_the_writing_behind_it() -> None:
    amp, transport = on_transport()
    QuitBox(a=b"1")._sendTo(amp)
    assert transport.written == [AmpBox(a=b"1").serialize()]
    assert transport.done == ["write_eof"]
    with pytest.raises(ConnectionLost):
        amp.sendBox(AmpBox(a=b"2"))
    amp.finish_writing()
    amp.data_received(question(1, a=b"1", b=b"2"))
    amp.resume_writing()
    assert transport.done == ["write_eof"]
    assert amp.eof_received() is False
    amp.connection_lost(None)
    amp.finish_writing()


async def test_boxes_behind_one_that_ends_the_connection_are_not_looked_at() -> None:
    asked = []

    class Once(AMP):
        def amp_SUM(self, box: AmpBox) -> AmpBox:
            asked.append(box)
            return QuitBox()

    amp, transport = on_transport(Once)
    amp.data_received(2 * question(1))
    assert len(asked) == 1
    assert transport.done == ["write_eof"]
    amp.connection_lost(None)


async def test_a_transport_without_half_closing_is_closed() -> None:
    amp, transport = on_transport(eof=False)
    assert amp.eof_received() is False
    amp.finish_writing()
    assert transport.done == ["close"]
    amp.connection_lost(None)


async def test_a_change_that_is_under_way_is_waited_for() -> None:
    amp, transport = on_transport()
    asked = amp.callRemote(StartTLS)
    for _ in range(2):
        amp.finish_writing()
        assert transport.done == []
    amp.data_received(AmpBox(_error=b"1", _error_code=b"UNHANDLED", _error_description=b"").serialize())
    assert transport.done == ["write_eof"]
    with pytest.raises(UnhandledCommand):
        await asked
    amp.connection_lost(None)


@pytest.mark.slow
async def test_a_peer_that_took_everything_and_does_not_close_is_closed() -> None:
    amp, transport = on_transport()
    amp.finish_writing()
    await transport.until(lambda: "close" in transport.done)
    assert transport.done == ["write_eof", "close"]
    amp.connection_lost(None)


@pytest.mark.slow  # The peer has ten seconds.
async def test_a_peer_that_does_not_take_everything_is_aborted() -> None:
    amp, transport = on_transport()
    transport.buffered = 1
    amp.finish_writing()
    await transport.until(lambda: "abort" in transport.done)
    assert transport.done == ["write_eof", "abort"]
    amp.connection_lost(None)


async def test_half_closing_a_connection_that_is_reset_already() -> None:
    amp, transport = on_transport()

    def write_eof() -> None:
        raise OSError("Transport endpoint is not connected")

    transport.write_eof = write_eof  # type: ignore[method-assign]
    amp.finish_writing()
    assert transport.done == ["abort"]
    amp.connection_lost(None)


async def test_reading_goes_on_at_the_end_lest_the_connection_be_reset() -> None:
    amp, transport = on_transport()
    transport.pause_reading()
    amp.finish_writing()
    assert transport.done == ["write_eof"]
    assert transport.is_reading()
    amp.connection_lost(None)


async def test_an_error_that_nobody_handles_closes(caplog: pytest.LogCaptureFixture) -> None:
    amp, transport = on_transport()
    amp.unhandledError(RuntimeError("nobody's"))
    assert transport.done == ["write_eof"]
    assert "nobody's" in caplog.text
    amp.connection_lost(None)


async def test_aborted_before_it_was_made() -> None:
    amp = Math()
    amp.abort()
    transport = Transport()
    amp.connection_made(transport)
    assert transport.done == ["abort"]
    amp.connection_lost(None)
    await amp.wait_closed()


async def test_asking_before_there_is_a_connection() -> None:
    with pytest.raises(RuntimeError, match="connection_made"):
        AMP().callRemote(Sum, a=1, b=1)
    assert repr(AMP()) == "<AMP not connected>"


async def test_a_read_takes_no_more_memory_than_what_comes() -> None:
    async with connected(Math, AMP) as (_, client):
        await client.callRemote(Sum, a=1, b=1)
        tracemalloc.start()
        try:
            await client.callRemote(Sum, a=1, b=1)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 64 * 1024


async def test_bytes_before_there_is_a_connection() -> None:
    amp = Math()
    with pytest.raises(RuntimeError, match=r"call connection_made\(transport\) first"):
        amp.data_received(b"\0\3abc")
    amp.connection_made(Transport())
    amp.data_received(question(1, a=b"1", b=b"2"))
    amp.connection_lost(None)


async def test_a_class_that_does_not_call_the_constructor() -> None:
    class Ported(Math):
        def __init__(self) -> None:
            self.own = 1

    async with connected(Ported) as (_, client):
        assert await client.callRemote(Sum, a=1, b=1) == {"total": 2}


async def test_what_is_still_to_be_written_is_dropped_with_the_connection() -> None:
    amp, transport = on_transport()
    answers = [amp.callRemote(Sum, a=1, b=1) for _ in range(2)]
    amp.connection_lost(None)
    await asyncio.sleep(0)
    assert len(transport.boxes()) == 1
    for error in await asyncio.gather(*answers, return_exceptions=True):
        assert isinstance(error, ConnectionLost)
    with pytest.raises(ConnectionLost):
        amp.sendBox(AmpBox(a=b"1"))


async def test_the_parts_work_without_the_whole() -> None:
    """A connection, a dispatcher and a locator of their own make a peer as well."""

    class Locator(CommandLocator):
        @Divide.responder
        def divide(self, a: int, b: int) -> dict[str, float]:
            return {"quotient": a / b}

    dispatcher = BoxDispatcher(Locator())
    protocol, transport = BinaryBoxProtocol(dispatcher), Transport()
    protocol.connection_made(transport)
    protocol.data_received(AmpBox(_command=b"Divide", _ask=b"1", a=b"1", b=b"2").serialize())
    answer = dispatcher.callRemote(Divide, a=1, b=1)
    await asyncio.sleep(0)
    assert [box.get(b"quotient") for box in transport.boxes()] == [b"0.5", None]
    assert protocol.eof_received() is False
    dispatcher.stopReceivingBoxes(EOFError("the end"))
    with pytest.raises(ConnectionLost) as caught:
        await answer
    assert isinstance(caught.value.__cause__, EOFError)


async def test_drain_waits_until_the_transport_takes_more() -> None:
    amp, _ = on_transport()
    await amp.drain()
    amp.pause_writing()
    draining = [asyncio.ensure_future(amp.drain()) for _ in range(2)]
    await asyncio.sleep(0)
    amp.resume_writing()
    assert await asyncio.gather(*draining) == [None, None]
    amp.pause_writing()
    draining = [asyncio.ensure_future(amp.drain()) for _ in range(2)]
    await asyncio.sleep(0)
    assert not any(each.done() for each in draining)
    amp.connection_lost(None)
    for error in await asyncio.gather(*draining, return_exceptions=True):
        assert isinstance(error, ConnectionLost)
    with pytest.raises(ConnectionLost):
        await amp.drain()


async def test_several_may_wait_until_it_is_closed() -> None:
    async with connected() as (_, client):
        waiting = [asyncio.ensure_future(client.wait_closed()) for _ in range(2)]
        await asyncio.sleep(0)
        client.abort()
        await asyncio.gather(*waiting)
