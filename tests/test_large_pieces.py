"""Large pieces of the stream: the transport of asyncio makes their `bytes`, until small ones come."""

from __future__ import annotations

import asyncio
import hashlib
import random
from typing import Any

import pytest
from fakes import Recorder, Transport
from support import Echo, Math, Patient, Sum, Switching, SwitchTo, on_transport, raw_client, turns
from ways import WAYS, joined, serving

from amp_asyncio import AMP, AmpBox, ConnectionLost, Limits, StartTLS, connect
from amp_asyncio.connection.large import LARGE

SMALL = 16 * 1024


class SelectorTransport(Transport):
    """Passes for the one that reads in this way, and tells the protocol what comes as that one does."""

    def receive(self, data: bytes) -> None:
        protocol = self.protocol
        if isinstance(protocol, asyncio.BufferedProtocol):
            buffer = memoryview(protocol.get_buffer(-1))
            buffer[: len(data)] = data
            protocol.buffer_updated(len(data))
            buffer[: len(data)] = bytes(len(data))
        else:
            protocol.data_received(data)


SelectorTransport.__module__ = "asyncio.selector_events"


def made(amp: AMP) -> tuple[SelectorTransport, asyncio.BaseProtocol]:
    """Connect `amp`; return its transport, and the protocol that this begins with."""
    transport = SelectorTransport()
    transport.protocol = amp
    amp.connection_made(transport)
    return transport, transport.protocol


def echo(size: int, tag: bytes = b"1") -> bytes:
    """Return a command that takes so many bytes."""
    box = AmpBox(_command=b"Echo", _ask=tag, data=b"")
    return AmpBox({**box, b"data": bytes(size - len(box.serialize()))}).serialize()


async def test_the_buffer_is_not_used_from_a_large_piece_to_a_small_one() -> None:
    transport, own = made(Math())
    for size, buffered in (
        (LARGE - 1, True),
        (LARGE, False),
        (LARGE - 1, False),
        (SMALL, False),
        (SMALL - 1, True),
        (SMALL, True),
        (LARGE, False),
        (60_000, False),
        (100, True),
    ):
        transport.receive(echo(size))
        assert (transport.protocol is own) == buffered, size
        (answer,) = transport.boxes()
        assert len(answer[b"data"]) == size - len(
            AmpBox(_command=b"Echo", _ask=b"1", data=b"").serialize()
        )
        transport.written.clear()


async def test_other_transports_keep_the_connection() -> None:
    amp, transport = on_transport()
    own: Any = transport.protocol
    size = len(echo(LARGE))
    memoryview(own.get_buffer(-1))[:size] = echo(LARGE)
    own.buffer_updated(size)
    assert transport.protocol is own
    assert len(transport.boxes()) == 1
    amp.connection_lost(None)


async def test_everything_else_is_passed_on() -> None:
    class Noting(Patient):
        def __init__(self) -> None:
            super().__init__()
            self.events: list[str] = []

        def pause_writing(self) -> None:
            self.events.append("pause")

        def resume_writing(self) -> None:
            self.events.append("resume")

        def eof_received(self) -> bool:
            self.events.append("eof")
            return True

        def connection_lost(self, reason: BaseException | None) -> None:
            self.events.append("lost")

    amp = Noting()
    transport, own = made(amp)
    transport.receive(echo(LARGE))
    protocol = transport.protocol
    assert protocol is not own
    protocol.pause_writing()
    asked = amp.callRemote(Sum, a=1, b=2)
    assert len(transport.written) == 1, "only the answer has left"
    protocol.resume_writing()
    await turns()
    assert len(transport.written) == 2
    protocol.data_received(AmpBox(_command=b"Wait", _ask=b"2", name=b"x").serialize())
    assert protocol.eof_received(), "its command is still answered"
    protocol.connection_lost(None)
    with pytest.raises(ConnectionLost):
        await asked
    await turns()
    assert amp.events == ["pause", "resume", "eof", "lost"]


async def test_what_filters_the_stream_gets_all_of_it() -> None:
    class Filter(Math):
        def __init__(self) -> None:
            super().__init__()
            self.came: list[bytes] = []

        def data_received(self, data: bytes) -> None:
            self.came.append(data)
            super().data_received(data)

    amp = Filter()
    transport, _ = made(amp)
    pieces = [echo(size) for size in (100, LARGE, LARGE, 200, 300)]
    for piece in pieces:
        transport.receive(piece)
    assert amp.came == pieces
    assert len(transport.boxes()) == len(pieces)


@pytest.mark.parametrize("last", [100, LARGE])
async def test_what_follows_in_a_large_piece_belongs_to_the_next_protocol(last: int) -> None:
    amp = Switching()
    transport, _ = made(amp)
    switch = AmpBox(_command=b"SwitchTo", _ask=b"2", name=b"x").serialize()
    transport.receive(echo(LARGE))
    transport.receive(switch + bytes(last))
    await turns()
    assert transport.protocol is amp.inner
    assert amp.inner.data == bytes(last)


@pytest.mark.parametrize("way", WAYS)
async def test_values_of_all_sizes_at_once(way: str) -> None:
    sizes = random.Random(1)

    async def ask(client: AMP) -> None:
        for _ in range(40):
            data = sizes.randbytes(sizes.choice([1, 100, 9_000, 20_000, 40_000, 60_000, 65_535]))
            assert await client.callRemote(Echo, data=data) == {"data": data}

    async with joined(way, Math) as (_, client):
        await asyncio.gather(*(ask(client) for _ in range(8)))


async def test_large_values_before_tls_and_before_another_protocol() -> None:
    async with joined("tcp", Switching) as (server, client):
        for change in (StartTLS, None):
            data = [bytes([number]) * 60_000 for number in range(20)]
            answers = await asyncio.gather(*(client.callRemote(Echo, data=each) for each in data))
            assert [answer["data"] for answer in answers] == data
            if change is not None:
                await client.callRemote(change)
        inner = Recorder()
        await client.callRemote(SwitchTo, lambda: inner, name="x")
        inner.transport.write(9 * bytes(100_000))
        await server.inner.until(lambda: len(server.inner.data) == 900_000)
        inner.transport.close()
        await inner.until(lambda: "lost" in inner.events)


HANDSHAKE = 0x16  # The first byte of a ClientHello: the type of its TLS record.


async def test_large_values_that_come_with_the_end_of_the_handshake() -> None:
    """The transport is still the connection's then, but what is on it is TLS."""
    size = 4 * 60_000

    async with serving("tcp", Math) as server:

        async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            """Bring what the client sends after its ClientHello all at once."""
            onward, forward = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])

            async def bring(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
                while data := await source.read(2**20):
                    sink.write(data)
                sink.close()

            back = asyncio.ensure_future(bring(onward, writer))
            first = b""
            while first[:1] != bytes([HANDSHAKE]):
                forward.write(first)
                first = await reader.read(2**20)
            forward.write(first)
            held = b""
            while len(held) < size:
                held += await reader.read(2**20)
            forward.write(held)
            await bring(reader, forward)
            await back
            for closed in (writer, forward):
                await closed.wait_closed()

        relays = await asyncio.start_server(relay, "127.0.0.1", 0)
        async with relays, connect(*relays.sockets[0].getsockname()[:2]) as client:
            secured = client.callRemote(StartTLS)
            asked = [client.callRemote(Echo, data=bytes([n]) * 60_000) for n in range(4)]
            await secured
            for number, answer in enumerate(await asyncio.gather(*asked)):
                assert answer["data"] == bytes([number]) * 60_000


class Tap(asyncio.BufferedProtocol):
    """Counts what comes to another protocol."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.count = 0

    def get_buffer(self, sizehint: int) -> Any:
        return self.inner.get_buffer(sizehint)

    def buffer_updated(self, nbytes: int) -> None:
        self.count += nbytes
        self.inner.buffer_updated(nbytes)


async def test_a_protocol_in_between_stays_there() -> None:
    transport, own = made(Math())
    transport.protocol = tap = Tap(own)
    sizes = (LARGE, 60_000, 100, LARGE)
    for size in sizes:
        transport.receive(echo(size))
        assert transport.protocol is tap
    assert tap.count == sum(sizes)
    # So does one that is put around what stands for the connection, of either kind.
    transport.protocol = own
    transport.receive(echo(LARGE))
    stand_in: Any = transport.protocol
    assert stand_in is not own
    transport.protocol = tap = Tap(stand_in)
    for size in sizes:
        transport.receive(echo(size))
        assert transport.protocol is tap
    transport.protocol = outer = Recorder()
    stand_in.data_received(echo(100))
    assert transport.protocol is outer
    assert len(transport.boxes()) == 2 * len(sizes) + 2


@pytest.mark.parametrize("way", ["tcp", "unix"])
async def test_a_peer_that_ends_its_side_after_large_values_is_answered(way: str) -> None:
    data = random.Random(2).randbytes(60_000)
    question = AmpBox(_command=b"Echo", _ask=b"1", data=data).serialize()
    async with serving(way, Math) as server, raw_client(server) as (reader, writer):
        writer.write(30 * question)
        writer.write_eof()
        answers = await reader.read(-1)
    expected = 30 * AmpBox(_answer=b"1", data=data).serialize()
    assert hashlib.sha256(answers).digest() == hashlib.sha256(expected).digest()


@pytest.mark.parametrize("way", ["tcp", "unix"])
async def test_a_peer_that_takes_nothing_stops_a_server_of_large_values(way: str) -> None:
    class Small(Math):
        limits = Limits(max_backlog=200_000, window=100_000)

    question = AmpBox(_command=b"Echo", _ask=b"1", data=bytes(60_000)).serialize()
    async with serving(way, Small) as server, raw_client(server) as (reader, writer):
        for _ in range(2):
            writer.write(200 * question)
            answer = AmpBox(_answer=b"1", data=bytes(60_000)).serialize()
            await reader.readexactly(200 * len(answer))


@pytest.mark.parametrize("way", WAYS)
async def test_a_connection_that_is_cut_between_large_values(way: str) -> None:
    async with joined(way, Math) as (server, client):
        asked = [client.callRemote(Echo, data=bytes(60_000)) for _ in range(50)]
        await asked[0]
        server.abort()
        rest = await asyncio.gather(*asked, return_exceptions=True)
        lost = [answer for answer in rest if isinstance(answer, BaseException)]
        assert {type(error) for error in lost} <= {ConnectionLost}
        await client.wait_closed()
