"""Streams, as both sides see them: items, backpressure, and every end."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any, Never

import pytest
from attrs import frozen
from hypothesis import given, settings
from hypothesis import strategies as st
from support import at_any_pace, turns

from amp_asyncio import (
    AMP,
    Call,
    Command,
    ConnectionLost,
    DeadlineExceeded,
    Integer,
    Limits,
    Proceed,
    ProtocolSwitchCommand,
    StartTLS,
    Stream,
    StreamCommand,
    StreamEnded,
    StreamsUnsupported,
    TooLong,
    TooManyStreams,
    UnhandledCommand,
    UnknownRemoteError,
    current_call,
)
from amp_asyncio.testing import Faults, pair

WINDOW = 8192
LIMITS = Limits(stream_window=WINDOW, max_streams=4)


@frozen
class Row:
    number: int
    text: str = ""


@frozen
class Receipt:
    size: int
    digest: str


class Full(Exception):
    pass


class Sum(Command):
    arguments = [(b"a", Integer()), (b"b", Integer())]
    response = [(b"total", Integer())]


class Rows(StreamCommand[Row]):
    count: int
    errors = {Full: b"FULL"}


class Pieces(StreamCommand[bytes]):
    sizes: list[int]


class Upload(StreamCommand[Never, bytes, Receipt]):
    name: str
    errors = {Full: b"FULL"}


class Talk(StreamCommand[str, str, int], answer="count"):
    """Each text comes back in capitals; "stop" ends it, "full" fails."""

    errors = {Full: b"FULL"}


class Endless(StreamCommand[int]):
    """Numbers without end; the responder takes notes."""


class SwitchTo(ProtocolSwitchCommand):
    pass


def digest(*items: bytes) -> str:
    return hashlib.sha256(b"".join(items)).hexdigest()


class Server(AMP):
    def __init__(self) -> None:
        super().__init__()
        self.notes: list[Any] = []
        self.gate = asyncio.Event()
        self.ended = asyncio.Event()

    @Sum.responder
    async def sum(self, a: int, b: int) -> dict[str, int]:
        return {"total": a + b}

    @Rows.responder
    async def rows(self, count: int) -> AsyncIterator[Row]:
        for number in range(count):
            yield Row(number=number, text="x" * number)
        if count == 13:
            raise Full("no more rows")

    @Pieces.responder
    async def pieces(self, sizes: list[int]) -> AsyncIterator[bytes]:
        for size in sizes:
            yield bytes(size)

    @Upload.responder
    async def upload(self, stream: Stream[bytes, Never], name: str) -> Receipt:
        if name == "refused":
            raise Full(name)
        if name == "early":
            return Receipt(size=0, digest="")
        if name == "slow":
            await self.gate.wait()
        if name == "broken":
            raise RuntimeError("a mistake")
        items = [item async for item in stream]
        self.notes.append(len(items))
        return Receipt(size=sum(map(len, items)), digest=digest(*items))

    @Talk.responder
    async def talk(self, stream: Stream[str, str]) -> int:
        count = 0
        try:
            async for text in stream:
                if text == "full":
                    raise Full("no room")
                if text == "stop":
                    break
                await stream.send(text.upper())
                count += 1
        finally:
            self.notes.append("talk ended")
            self.ended.set()
        return count

    @Endless.responder
    async def endless(self) -> AsyncIterator[int]:
        number = 0
        try:
            while True:
                yield number
                number += 1
        finally:
            self.notes.append(f"ended at {number}")
            self.ended.set()


# --- what goes through ---


async def test_the_answering_side_sends() -> None:
    async with pair(Server) as (_, client):
        for count in (0, 1, 5, 300):
            async with client.stream(Rows(count=count)) as rows:
                assert [row async for row in rows] == [
                    Row(number=n, text="x" * n) for n in range(count)
                ]
                assert await rows.answer() is None


async def test_the_asking_side_sends() -> None:
    items = [b"", b"x", bytes(70_000), b"y" * 300_000]
    async with pair(Server) as (_, client):
        async with client.stream(Upload(name="x")) as upload:
            for item in items:
                await upload.send(item)
            await upload.finish()
            await upload.finish()
            assert await upload.answer() == Receipt(size=370_001, digest=digest(*items))
            assert await upload.answer() == Receipt(size=370_001, digest=digest(*items))


async def test_both_sides_send() -> None:
    async with pair(Server) as (_, client):
        async with client.stream(Talk()) as talk:
            assert repr(talk) == "<Stream of Talk>"
            for text in ("a", "b", "c" * 100_000):
                await talk.send(text)
                assert await anext(talk) == text.upper()
            await talk.finish()
            assert [text async for text in talk] == []
            assert await talk.answer() == 3


@pytest.mark.parametrize("limits", [Limits(), Limits(stream_window=4096, max_box_size=150_000)])
@pytest.mark.parametrize("version", [1, 2])
async def test_items_may_be_larger_than_a_value_and_than_the_window(
    limits: Limits, version: int
) -> None:
    sizes = [0, 1, 65_534, 65_535, 65_536, 131_068, 131_069, limits.max_box_size]

    class Versioned(Server):
        protocol_version = version

    async with pair(Versioned, Versioned, limits=limits) as (_, client):
        async with client.stream(Pieces(sizes=sizes)) as pieces:
            assert [len(piece) async for piece in pieces] == sizes


async def test_several_streams_and_calls_at_once() -> None:
    async with pair(Server, limits=LIMITS) as (_, client):

        async def rows(count: int) -> int:
            async with client.stream(Rows(count=count)) as stream:
                return len([row async for row in stream])

        async def call() -> list[dict[str, int]]:
            return [await client.callRemote(Sum, a=1, b=n) for n in range(50)]

        results = await asyncio.gather(call(), *(rows(count) for count in (10, 200, 300, 400)))
        assert results[1:] == [10, 200, 300, 400]


async def test_several_tasks_may_send() -> None:
    async with pair(Server, limits=LIMITS) as (_, client):
        async with client.stream(Talk()) as talk:
            texts = [letter * 3000 for letter in "abcdefghij"]
            sending = asyncio.gather(*map(talk.send, texts))
            came = [await anext(talk) for _ in texts]
            await sending
            assert sorted(came) == [text.upper() for text in texts]


async def test_a_responder_of_either_side_may_open_a_stream() -> None:
    class Asking(Server):
        @Sum.responder
        async def sum(self, a: int, b: int) -> dict[str, int]:
            async with self.stream(Rows(count=a)) as rows:
                return {"total": sum([row.number async for row in rows]) + b}

    limits = Limits(max_concurrent_responders=1, stream_window=4096)
    async with pair(Asking, Asking, limits=limits) as (server, client):
        both = (client.callRemote(Sum, a=5, b=1), server.callRemote(Sum, a=6, b=1))
        assert await asyncio.gather(*both) == [{"total": 11}, {"total": 16}]


async def test_streams_do_not_count_as_running_responders() -> None:
    limits = Limits(max_concurrent_responders=1)
    async with pair(Server, limits=limits) as (_, client):
        async with client.stream(Talk()) as one, client.stream(Talk()) as other:
            for talk in (one, other):
                await talk.send("x")
                assert await anext(talk) == "X"
            assert await client.callRemote(Sum, a=1, b=2) == {"total": 3}


async def test_a_responder_may_be_overridden_and_be_any_async_iterator() -> None:
    class Other(Server):
        async def rows(self, stream: Stream[Never, Row], count: int) -> None:  # type: ignore[override]
            assert repr(stream) == "<Stream of Rows>"
            await stream.send(Row(number=count))
            await stream.finish()
            with pytest.raises(RuntimeError, match="the stream was finished"):
                await stream.send(Row(number=count))

    async with pair(Other) as (_, client):
        async with client.stream(Rows(count=7)) as rows:
            assert [row async for row in rows] == [Row(number=7)]
            assert await rows.answer() is None


async def test_boxes_are_logged_as_others_are(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "amp_asyncio")
    async with pair(Server) as (_, client):
        async with client.stream(Upload(name="x")) as upload:
            await upload.send(b"some bytes")
            await upload.send(bytes(70_000))
            await upload.finish()
            assert (await upload.answer()).size == 70_010
    sent = [
        record.getMessage()
        for record in caplog.records
        if "sent {b'_command': b'_item'" in str(record.msg % record.args)
    ]
    assert len(sent) == 4
    assert "b'some bytes'" in sent[0]


# --- backpressure ---


async def test_a_consumer_that_sleeps_stops_its_producer() -> None:
    async with pair(Server, limits=LIMITS) as (server, client):
        async with client.stream(Endless()) as numbers:
            assert await anext(numbers) == 0
            await turns()
            await turns()
            # The others are in the window, or wait to be sent.
            first = server.notes
            assert first == []
            for expected in range(1, 2000):
                assert await anext(numbers) == expected
        await server.ended.wait()
        (ended,) = server.notes
        assert int(ended.removeprefix("ended at ")) < 2000 + WINDOW // 400 + 2


async def test_a_responder_that_sleeps_stops_the_caller() -> None:
    async with pair(Server, limits=LIMITS) as (server, client):
        async with client.stream(Upload(name="slow")) as upload:
            items = [b"%d" % n * 50 for n in range(100 * WINDOW // 500)]
            sent = 0

            async def send() -> None:
                nonlocal sent
                for item in items:
                    await upload.send(item)
                    sent += 1
                await upload.finish()

            sending = asyncio.ensure_future(send())
            for _ in range(5):
                await turns()
            assert 0 < sent <= WINDOW // 400
            server.gate.set()
            await sending
            assert (await upload.answer()).digest == digest(*items)


async def test_an_item_is_taken_back_when_sending_is_cancelled() -> None:
    async with pair(Server, limits=LIMITS) as (server, client):
        async with client.stream(Upload(name="slow")) as upload:
            sent = []
            for n in range(100):
                item = b"%d" % n * 100
                sending = asyncio.ensure_future(upload.send(item))
                await turns()
                if sending.done():
                    sent.append(item)
                else:
                    break
            large = asyncio.ensure_future(upload.send(bytes(50_000)))
            finishing = asyncio.ensure_future(upload.finish())
            await turns()
            for task in (sending, large, finishing):
                task.cancel()
            await asyncio.wait([sending, large, finishing])
            server.gate.set()
            await upload.finish()
            assert (await upload.answer()).digest == digest(*sent)


async def test_an_item_of_which_a_part_was_sent_follows_when_sending_is_cancelled() -> None:
    async with pair(Server, limits=LIMITS) as (server, client):
        async with client.stream(Upload(name="slow")) as upload:
            await upload.send(b"first")
            large = asyncio.ensure_future(upload.send(bytes(50_000)))
            await turns()
            large.cancel()
            await asyncio.wait([large])
            server.gate.set()
            await upload.send(b"last")
            await upload.finish()
            assert (await upload.answer()).digest == digest(b"first", bytes(50_000), b"last")


async def test_an_item_can_be_taken_back_while_the_transport_takes_nothing() -> None:
    faults = Faults()
    async with pair(Server, faults=faults) as (_, client):
        async with client.stream(Upload(name="x")) as upload, client.stream(Talk()) as talk:
            await talk.send("x")
            assert await anext(talk) == "X"
            faults.to_server.stall()
            filling = asyncio.ensure_future(upload.send(bytes(250_000)))
            await turns()
            sending = asyncio.ensure_future(talk.send("y"))
            await turns()
            assert not sending.done()
            sending.cancel()
            await asyncio.wait([sending])
            faults.to_server.resume()
            await filling
            await talk.finish()
            assert await talk.answer() == 1


async def test_waiting_for_an_item_can_be_cancelled() -> None:
    async with pair(Server) as (_, client):
        async with client.stream(Talk()) as talk:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(talk), 0)
            waiting = asyncio.ensure_future(anext(talk))  # type: ignore[arg-type]
            await turns()
            with pytest.raises(RuntimeError, match="two tasks wait for the next item"):
                await anext(talk)
            await talk.send("x")
            assert await waiting == "X"
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(talk.answer(), 0.001)
            await talk.finish()
            assert await talk.answer() == 1


@pytest.mark.slow
async def test_streams_of_both_sides_share_with_each_other_and_with_calls() -> None:
    limits = Limits(stream_window=65_536)
    async with pair(Server, Server, limits=limits) as ends:
        counts: dict[int, int] = {}
        ready: set[int] = set()
        enough = asyncio.Event()

        async def take(amp: Server, number: int) -> None:
            async with amp.stream(Endless()) as numbers:
                async for value in numbers:
                    counts[number] = value
                    if value == 1500:
                        ready.add(number % 2)
                        if len(ready) == 2:
                            enough.set()

        async def call(amp: Server) -> int:
            answered = 0
            while not enough.is_set():
                assert await amp.callRemote(Sum, a=1, b=2) == {"total": 3}
                answered += 1
                await asyncio.sleep(0)
            return answered

        taking = [asyncio.ensure_future(take(ends[n % 2], n)) for n in range(100)]
        answered = await asyncio.gather(*map(call, ends))
        for task in taking:
            task.cancel()
        await asyncio.wait(taking)
        assert min(answered) > 50
        for side in (0, 1):
            shares = [count for number, count in counts.items() if number % 2 == side]
            assert len(shares) == 50
            assert min(shares) > 0.8 * max(shares)


# --- the ends ---


async def test_the_consumer_leaves_early() -> None:
    async with pair(Server, limits=LIMITS) as (server, client):
        async with client.stream(Endless()) as numbers:
            async for number in numbers:
                if number == 50:
                    break
        await server.ended.wait()
        with pytest.raises(StreamEnded):
            await numbers.finish()
        assert [number async for number in numbers] == []
        assert await client.callRemote(Sum, a=1, b=2) == {"total": 3}
        for _ in range(10):  # Each has its place in `max_streams` again.
            async with client.stream(Endless()):
                pass
            await client.callRemote(Sum, a=1, b=2)
            await turns()


async def test_a_declared_error_arrives_after_the_items_before_it() -> None:
    async with pair(Server) as (_, client):
        async with client.stream(Rows(count=13)) as rows:
            came = []
            with pytest.raises(Full, match="no more rows"):
                async for row in rows:
                    came.append(row)  # noqa: PERF401
            assert len(came) == 13
            with pytest.raises(Full, match="no more rows"):
                await rows.answer()
            with pytest.raises(Full, match="no more rows"):
                await anext(rows)


async def test_a_declared_error_ends_the_sending() -> None:
    async with pair(Server, limits=LIMITS) as (_, client):
        async with client.stream(Talk()) as talk:
            await talk.send("full")
            with pytest.raises(Full, match="no room"):
                await talk.answer()
            with pytest.raises(Full, match="no room"):
                await talk.send("x")
        with pytest.raises(Full):
            async with client.stream(Upload(name="refused")) as upload:
                while True:
                    await upload.send(bytes(1000))


async def test_an_undeclared_error_tells_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async with pair(Server) as (_, client):
        async with client.stream(Upload(name="broken")) as upload:
            with pytest.raises(UnknownRemoteError, match="reference"):
                await upload.answer()
    assert "a mistake" in caplog.text


async def test_an_answer_before_the_last_item_ends_the_sending() -> None:
    async with pair(Server, limits=LIMITS) as (_, client):
        async with client.stream(Upload(name="early")) as upload:
            with pytest.raises(StreamEnded, match="the peer takes no more items"):
                while True:
                    await upload.send(bytes(1000))
            assert await upload.answer() == Receipt(size=0, digest="")


async def test_the_caller_is_cancelled() -> None:
    async with pair(Server, limits=LIMITS) as (server, client):

        async def take() -> None:
            async with client.stream(Endless()) as numbers:
                async for _ in numbers:
                    pass

        taking = asyncio.ensure_future(take())
        await turns()
        taking.cancel()
        await asyncio.wait([taking])
        assert taking.cancelled()
        await server.ended.wait()
        assert await client.callRemote(Sum, a=1, b=2) == {"total": 3}


@pytest.mark.parametrize("who", ["server", "client"])
async def test_the_connection_is_lost(who: str) -> None:
    async with pair(Server, Server, limits=LIMITS) as ends:
        server, client = ends
        async with client.stream(Endless()) as numbers, client.stream(Upload(name="slow")) as upload:
            assert await anext(numbers) == 0
            sending = asyncio.ensure_future(upload.send(bytes(100_000)))
            answering = asyncio.ensure_future(upload.answer())
            await turns()
            ends[0 if who == "server" else 1].abort()
            with pytest.raises(ConnectionLost):
                async for _ in numbers:
                    pass
            for waiting in (sending, answering):
                with pytest.raises(ConnectionLost):
                    await waiting
        await server.ended.wait()
        with pytest.raises(ConnectionLost):
            async with client.stream(Endless()):
                raise AssertionError


async def test_the_connection_is_aborted_while_streams_wait_for_their_turn() -> None:
    async def take(client: Server) -> None:
        with pytest.raises(ConnectionLost):
            async with client.stream(Endless()) as numbers:
                async for _ in numbers:
                    pass

    for count in range(10):
        async with pair(Server, Server) as (server, client):
            taking = [asyncio.ensure_future(take(client)) for _ in range(3)]
            await turns()
            for _ in range(count):
                await asyncio.sleep(0)
            server.abort()
            await asyncio.gather(*taking)


async def test_closing_waits_for_the_streams() -> None:
    async with pair(Server, Server, limits=LIMITS) as (server, client):
        async with client.stream(Talk()) as talk:
            await talk.send("x")
            closing = asyncio.ensure_future(server.close())
            closing_too = asyncio.ensure_future(client.close())
            await turns()
            await talk.send("y")
            assert [await anext(talk), await anext(talk)] == ["X", "Y"]
            await talk.finish()
            assert await talk.answer() == 2
        await closing
        await closing_too


async def test_closing_cuts_off_a_stream_without_end() -> None:
    async with pair(Server, Server, limits=LIMITS) as (server, client):
        async with client.stream(Endless()) as numbers:
            assert await anext(numbers) == 0
            await server.close(timeout=0.01)
            with pytest.raises(ConnectionLost):
                async for _ in numbers:
                    pass
        assert len(server.notes) == 1


@pytest.mark.parametrize("command", [SwitchTo, StartTLS])
@pytest.mark.parametrize("who", ["asked it", "answers it"])
async def test_the_connection_does_not_change_while_a_stream_is_open(command: Any, who: str) -> None:
    class Switching(Server):
        @SwitchTo.responder
        def switch(self) -> asyncio.Protocol:
            return asyncio.Protocol()

    async with pair(Switching, Switching) as (server, client):
        async with client.stream(Talk()) as talk:
            await talk.send("x")
            assert await anext(talk) == "X"
            asking = client if who == "asked it" else server
            argument = (asyncio.Protocol,) if command is SwitchTo else ()
            with pytest.raises(RuntimeError, match="streams are open"):
                await asking.callRemote(command, *argument)
            await talk.send("y")
            assert await anext(talk) == "Y"


class Late(StreamCommand[int, int]):
    """Its responder waits, and says what time is left and what the metadata are."""


class Slow(Server):
    @Late.responder
    async def late(self, stream: Stream[int, int]) -> None:
        call = current_call()
        assert call is not None
        self.notes.append((call.metadata["who"], call.remaining()))
        try:
            await stream.send(1)
            await asyncio.Event().wait()
        finally:
            self.ended.set()


@at_any_pace
async def test_the_time_of_the_whole_stream_passes(pace: float) -> None:
    async with pair(Slow, limits=LIMITS) as (server, client):
        async with client.stream(Late(), timeout=0.05 * pace, metadata={"who": "me"}) as late:
            assert await anext(late) == 1
            with pytest.raises(DeadlineExceeded):
                await anext(late)
            with pytest.raises(TimeoutError):
                await late.answer()
            with pytest.raises(TimeoutError):
                await late.send(1)
        await server.ended.wait()
        ((who, left),) = server.notes
        assert who == "me"
        assert 0 < left <= 0.05 * pace
        assert await client.callRemote(Sum, a=1, b=2) == {"total": 3}
        with pytest.raises(DeadlineExceeded):
            async with client.stream(Late(), timeout=0):
                raise AssertionError


@at_any_pace
async def test_a_responder_that_is_out_of_time_is_cancelled(pace: float) -> None:
    class Patient(Slow):
        late = Slow.late

    async with pair(Patient, limits=LIMITS) as (server, client):
        late = client.stream(Late(), timeout=0.02 * pace, metadata={"who": "me"})
        async with late:
            assert await anext(late) == 1
            await server.ended.wait()
            with pytest.raises(DeadlineExceeded):
                await anext(late)


async def test_interceptors_see_the_whole_stream() -> None:
    seen: list[Any] = []

    async def note(call: Call, proceed: Proceed) -> Any:
        seen.append((call.direction, call.command, "began"))
        try:
            answer = await proceed()
        except BaseException as error:
            seen.append((call.direction, call.command, type(error).__name__))
            raise
        seen.append((call.direction, call.command, answer))
        return answer

    class Noted(Server):
        interceptors = [note]

    async with pair(Noted, Noted) as (server, client):
        async with client.stream(Talk()) as talk:
            await talk.send("a")
            assert await anext(talk) == "A"
            await talk.finish()
            assert await talk.answer() == 1
        ends = [
            (direction, b"Talk", end) for end in ("began", 1) for direction in ("asking", "answering")
        ]
        assert sorted(map(str, seen)) == sorted(map(str, ends))
        seen.clear()
        async with client.stream(Rows(count=2)) as rows:
            assert len([row async for row in rows]) == 2
        async with client.stream(Endless()) as numbers:
            await anext(numbers)
        await server.ended.wait()
        await turns()
        assert ("answering", b"Rows", None) in seen
        assert ("answering", b"Endless", "CancelledError") in seen
        assert ("asking", b"Endless", "CancelledError") in seen


async def test_without_extensions_there_are_no_streams() -> None:
    class Plain(Server):
        extensions = False

    async with pair(Plain, Plain) as (_, client):
        with pytest.raises(StreamsUnsupported, match="switched off here"):
            await client.stream(Talk()).__aenter__()
    async with pair(Plain, Server) as (_, client):
        async with client.stream(Talk()) as talk:
            with pytest.raises(StreamsUnsupported):
                await anext(talk)
        with pytest.raises(StreamsUnsupported, match="the peer does not know streams"):
            await client.stream(Talk()).__aenter__()


# --- mistakes ---


async def test_mistakes_of_the_caller() -> None:
    async with pair(Server, limits=LIMITS) as (_, client):
        talk = client.stream(Talk())
        await talk.__aexit__(None, None, None)
        talk = client.stream(Talk())
        for attempt in (anext(talk), talk.send("x"), talk.finish(), talk.answer()):
            with pytest.raises(RuntimeError, match="not open: write `async with"):
                await attempt
        async with talk:
            with pytest.raises(RuntimeError, match="opened before"):
                await talk.__aenter__()
            with pytest.raises(TypeError) as caught:
                await talk.send(3)  # type: ignore[arg-type]
            assert caught.value.__notes__ == ["an item of Talk could not be encoded"]
            with pytest.raises(TooLong):
                await talk.send("x" * (LIMITS.max_box_size + 1))
            await talk.send("x")
            assert await anext(talk) == "X"
            await talk.finish()
            with pytest.raises(RuntimeError, match="the stream was finished"):
                await talk.send("x")
        async with client.stream(Rows(count=1)) as rows:
            with pytest.raises(RuntimeError, match="this side of Rows sends no items"):
                await rows.send(Row(number=1))  # type: ignore[arg-type]
        async with client.stream(Upload(name="x")) as upload:
            with pytest.raises(RuntimeError, match="the other side of Upload sends no items"):
                await anext(upload)
        with pytest.raises(TypeError, match=r"Talk is a stream, and not a call: write stream\(Talk"):
            client.call(Talk())  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="Talk is a stream"):
            client.callRemote(Talk)  # type: ignore[arg-type]
        with pytest.raises(TooLong):
            await client.stream(Pieces(sizes=[0] * 40_000)).__aenter__()
        for wrong in (Talk, Sum, Sum(a=1, b=2), "Talk"):
            with pytest.raises(TypeError, match="stream takes a question such as"):
                client.stream(wrong)  # type: ignore[arg-type]


async def test_mistakes_of_a_responder(caplog: pytest.LogCaptureFixture) -> None:
    class Wrong(Server):
        async def talk(self, stream: Any) -> int:
            with pytest.raises(RuntimeError, match="return the answer from the responder"):
                await stream.answer()
            with pytest.raises(RuntimeError, match="needs no `async with`"):
                await stream.__aenter__()
            await stream.__aexit__(None, None, None)
            self.notes.append(stream)
            await stream.send("sent")
            return "no number"  # type: ignore[return-value]

        async def pieces(self, sizes: list[int]) -> AsyncIterator[bytes]:
            yield "text"  # type: ignore[misc]

    async with pair(Wrong) as (server, client):
        async with client.stream(Talk()) as talk:
            assert await anext(talk) == "sent"
            with pytest.raises(UnknownRemoteError):
                await talk.answer()
        (stream,) = server.notes
        with pytest.raises(StreamEnded):
            await stream.send("late")
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
        async with client.stream(Pieces(sizes=[])) as pieces:
            with pytest.raises(UnknownRemoteError):
                await anext(pieces)
    assert "an item of Pieces could not be encoded" in caplog.text


async def test_so_many_streams_may_be_open() -> None:
    async with pair(Server, limits=LIMITS) as (_, client):
        async with client.stream(Talk()), client.stream(Talk()), client.stream(Talk()):
            async with client.stream(Talk()) as talk:
                with pytest.raises(TooManyStreams, match="4 streams that this side asked for are open"):
                    await client.stream(Talk()).__aenter__()
                await talk.finish()
                assert await talk.answer() == 0
            async with client.stream(Talk()) as talk:
                await talk.finish()
                assert await talk.answer() == 0


async def test_the_peer_may_allow_fewer_streams() -> None:
    async with pair(Server) as (server, client):
        server.__amp__.limits = LIMITS
        streams = [client.stream(Talk()) for _ in range(4)]
        for stream in streams:
            await stream.__aenter__()
        async with client.stream(Talk()) as talk:
            with pytest.raises(UnknownRemoteError, match="4 streams of this connection are open"):
                await anext(talk)
        for stream in streams:
            await stream.__aexit__(None, None, None)


async def test_the_peer_has_no_such_stream() -> None:
    async with pair(AMP) as (_, client):
        async with client.stream(Talk()) as talk:
            with pytest.raises(UnhandledCommand, match="the peer has no responder for Talk"):
                await anext(talk)


# --- against a model ---


class Refusing(Server):
    """Its responder is a plain def, which fails before there is anything to wait for."""

    @Upload.responder
    def upload(self, stream: Stream[bytes, Never], name: str) -> Any:
        raise Full("no room") if name == "full" else RuntimeError("broken")


async def test_a_plain_responder_that_raises() -> None:
    async with pair(Refusing) as (_, client):
        for name, error in (("full", Full), ("other", UnknownRemoteError)):
            with pytest.raises(error):
                async with client.stream(Upload(name=name)) as upload:
                    await upload.answer()
        assert await client.callRemote(Sum, a=1, b=2) == {"total": 3}


class Script(StreamCommand[bytes, bytes, int], answer="count"):
    """The responder does what the test says."""


class Scripted(Server):
    def __init__(self) -> None:
        super().__init__()
        self.streams: asyncio.Queue[Stream[bytes, bytes]] = asyncio.Queue()
        self.over: asyncio.Event = asyncio.Event()

    @Script.responder
    async def script(self, stream: Stream[bytes, bytes]) -> int:
        self.streams.put_nowait(stream)
        await self.over.wait()
        return 1


_STEP = st.tuples(st.integers(0, 1), st.sampled_from(["send", "take", "turn"]), st.integers(0, 20_000))


@settings(max_examples=15)
@given(steps=st.lists(_STEP, max_size=40), finishes=st.booleans())
async def test_whatever_both_sides_do_every_item_comes_once_and_in_order(
    steps: list[tuple[int, str, int]], finishes: bool
) -> None:
    async with pair(Scripted, limits=LIMITS) as (server, client):
        async with client.stream(Script()) as stream:
            ends = [stream, await server.streams.get()]
            sent: list[list[bytes]] = [[], []]
            came: list[list[bytes]] = [[], []]
            sending: list[asyncio.Task[None]] = []
            for side, what, size in steps:
                if what == "send":
                    item = bytes([len(sending) % 256]) * size
                    sent[side].append(item)
                    sending.append(asyncio.ensure_future(ends[side].send(item)))
                elif what == "take" and len(came[side]) < len(sent[1 - side]):
                    # All that was sent comes, in order, whatever else happens.
                    came[side].append(await asyncio.wait_for(anext(ends[side]), 5))
                else:
                    await asyncio.sleep(0)
            for side in (0, 1):
                while len(came[side]) < len(sent[1 - side]):
                    came[side].append(await asyncio.wait_for(anext(ends[side]), 5))
            await asyncio.gather(*sending)
            assert came == sent[::-1]
            if finishes:
                await ends[0].finish()
                assert [item async for item in ends[1]] == []
            server.over.set()
            assert await stream.answer() == 1


# --- cut at any byte ---


async def conversation(client: AMP) -> None:
    async with client.stream(Talk()) as talk:
        await talk.send("a")
        await talk.send("b" * 6000)
        await talk.finish()
        assert [len(text) async for text in talk] == [1, 6000]
        assert await talk.answer() == 2


@pytest.mark.parametrize("direction", ["to_server", "to_client"])
@pytest.mark.parametrize("step", [31, pytest.param(1, marks=pytest.mark.slow)])
async def test_a_cut_at_every_byte(direction: str, step: int) -> None:
    faults = Faults()
    async with pair(Server, faults=faults, limits=LIMITS) as (_, client):
        await conversation(client)
    whole = getattr(faults, direction).crossed
    assert whole > 6000
    # Every byte but those in the middle of the large item.
    for after in [*range(0, 600, step), *range(whole - 600, whole, step)]:
        faults = Faults()
        getattr(faults, direction).cut(after)
        async with pair(Server, faults=faults, limits=LIMITS) as (server, client):
            lost = 0
            try:
                await conversation(client)
            except ConnectionLost:
                lost = 1
            assert lost == 1 or after >= whole - 600
            with suppress(ConnectionLost):
                await client.callRemote(Sum, a=1, b=2)
        assert server.notes in ([], ["talk ended"])
