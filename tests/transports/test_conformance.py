"""The conformance suite: asyncio's TCP, our transports pass it, and faulty ones do not."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import suppress
from io import FileIO
from typing import Any

import pytest
import uvloop
from support import at_any_pace

from amp_asyncio.testing.conformance import TRANSPORT_CHECKS, Check, check_transport
from amp_asyncio.transports.memory import Line, MemoryTransport, memory_pair
from amp_asyncio.transports.pipes import PipeTransport
from amp_asyncio.transports.unix import DescriptorTransport

each_check = pytest.mark.parametrize("check", TRANSPORT_CHECKS, ids=lambda check: check.name)


def on_uvloop() -> bool:
    return isinstance(asyncio.get_running_loop(), uvloop.Loop)


async def over_tcp(first: Any, second: Any) -> None:
    loop = asyncio.get_running_loop()
    listener = await loop.create_server(lambda: second, "127.0.0.1", 0)
    await loop.create_connection(lambda: first, *listener.sockets[0].getsockname())
    listener.close()


async def over_unix(first: Any, second: Any) -> None:
    for sock, protocol in zip(socket.socketpair(), (first, second), strict=True):
        DescriptorTransport(asyncio.get_running_loop(), sock, protocol)


async def over_pipes(first: Any, second: Any) -> None:
    first_read, second_write = os.pipe()
    second_read, first_write = os.pipe()
    await PipeTransport(first, FileIO(first_read), FileIO(first_write, "wb"), {}).connect()
    await PipeTransport(second, FileIO(second_read), FileIO(second_write, "wb"), {}).connect()


async def in_memory(first: Any, second: Any) -> None:
    memory_pair(first, second)


@pytest.mark.parametrize("connect", [over_tcp, over_unix, over_pipes, in_memory])
@each_check
async def test_passes(check: Check, connect: Any) -> None:
    if connect is over_tcp and check.name == "may_pause_as_it_begins" and on_uvloop():
        pytest.skip("uvloop starts to read after connection_made")
    await check(connect)


# --- transports that fail ---


class Faulty(MemoryTransport):
    """A transport whose subclasses each do one thing wrong."""

    def __init__(self, protocol: Any, incoming: Line, outgoing: Line) -> None:
        self.incoming = incoming
        super().__init__(protocol, incoming, outgoing, {})

    @classmethod
    async def connect(cls, first: Any, second: Any) -> None:
        there, back = Line(), Line()
        one, other = cls(first, back, there), cls(second, there, back)
        there.connect(one, other)
        back.connect(other, one)


class NeverResumes(Faulty):
    def room_made(self) -> None:
        protocol = self.get_protocol()
        self.set_protocol(asyncio.Protocol())
        super().room_made()
        self.set_protocol(protocol)


class SpeaksAfterTheEnd(Faulty):
    def abort(self) -> None:
        super().abort()
        protocol: Any = self.get_protocol()
        asyncio.get_running_loop().call_soon(protocol.data_received, b"late")


class WritesAfterTheEnd(Faulty):
    def write(self, data: Any) -> None:
        with suppress(RuntimeError):
            super().write(data)


class LosesItsBuffer(Faulty):
    def set_protocol(self, protocol: Any) -> None:
        super().set_protocol(protocol)
        if size := self.incoming.available():
            self.incoming.read(size)


class DropsAtClose(Faulty):
    def close(self) -> None:
        self.abort()


class NeverEnds(Faulty):
    def abort(self) -> None:
        """Ignore it."""


class Reads(Faulty):
    def pause_reading(self) -> None:
        """Ignore it."""


class AcceptsAnything(Faulty):
    def write(self, data: Any) -> None:
        super().write(data if isinstance(data, bytes) else b"x")

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        super().set_write_buffer_limits(high, 0)


class SpeaksTooEarly(Faulty):
    def __init__(self, protocol: Any, incoming: Line, outgoing: Line) -> None:
        protocol.data_received(b"early")
        super().__init__(protocol, incoming, outgoing)


class PausesTwice(Faulty):
    def write(self, data: Any) -> None:
        super().write(data)
        protocol: Any = self.get_protocol()
        protocol.pause_writing()
        protocol.pause_writing()


class EndsTwice(Faulty):
    def end_of_stream(self) -> None:
        super().end_of_stream()
        super().end_of_stream()


def named(name: str) -> Check:
    return {check.name: check for check in TRANSPORT_CHECKS}[name]


@pytest.mark.parametrize(
    ("transport", "check", "complaint"),
    [
        (NeverResumes, "pauses_and_resumes_the_writer", "resume_writing is called"),
        (SpeaksAfterTheEnd, "gives_nothing_after_connection_lost", "nothing happens after it"),
        (SpeaksAfterTheEnd, "begins", "'data' after connection_lost"),
        (WritesAfterTheEnd, "refuses_to_write_after_write_eof", "raises RuntimeError after write_eof"),
        (LosesItsBuffer, "gives_what_waited_to_a_new_protocol", "what waited goes to the new protocol"),
        (DropsAtClose, "closes_after_what_was_written", "close.. drops nothing"),
        (NeverEnds, "begins", "connection_lost follows abort"),
        (Reads, "gives_nothing_to_a_reader_that_pauses", "is_reading.. is false"),
        (Reads, "may_pause_as_it_begins", "though the peer does not read"),
        (AcceptsAnything, "refuses_what_is_not_bytes", "raises TypeError for a str"),
        (AcceptsAnything, "checks_the_limits_of_its_buffer", "raises ValueError"),
        (SpeaksTooEarly, "refuses_what_is_not_bytes", "'data' before connection_made"),
        (PausesTwice, "carries_bytes_in_order", "pause_writing twice in a row"),
        (EndsTwice, "gives_what_comes_to_a_new_protocol", "'eof' after eof_received"),
    ],
)
@at_any_pace
async def test_finds_the_fault(
    transport: type[Faulty], check: str, complaint: str, pace: float
) -> None:
    await named(check)(Faulty.connect)
    # Three of them show only in that something never happens.
    timeout = 0.3 * pace if transport in (NeverResumes, LosesItsBuffer, NeverEnds) else 10
    with pytest.raises(AssertionError, match=complaint):
        await named(check)(transport.connect, timeout=timeout)


def only(*names: str) -> list[str]:
    return [check.name for check in TRANSPORT_CHECKS if check.name not in names]


async def test_the_suite_lists_what_fails() -> None:
    with pytest.raises(AssertionError) as caught:
        await check_transport(WritesAfterTheEnd.connect)
    assert [line.partition(":")[0] for line in str(caught.value).splitlines()] == [
        "the transport fails these checks",
        "refuses_to_write_after_write_eof",
    ]


async def test_the_suite_lists_what_raises() -> None:
    async def connect(first: Any, second: Any) -> None:
        raise OSError("no network")

    with pytest.raises(AssertionError, match="begins: OSError"):
        await check_transport(connect, skip=only("begins"))


async def test_the_suite_runs_what_is_not_skipped() -> None:
    await check_transport(DropsAtClose.connect, skip=only("begins"))
    with pytest.raises(ValueError, match="unknown checks: .'bogus'"):
        await check_transport(in_memory, skip=["bogus"])


async def test_a_transport_that_cannot_half_close() -> None:
    class Whole(Faulty):
        def can_write_eof(self) -> bool:
            return False

        def write_eof(self) -> None:
            raise NotImplementedError

    await check_transport(Whole.connect)


def test_a_check_says_its_name() -> None:
    assert repr(TRANSPORT_CHECKS[0]) == "<Check begins>"
