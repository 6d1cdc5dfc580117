"""Limits, one at a time, on transports that only take notes, and on real ones that are not read."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

import pytest
from support import (
    Counting,
    Divide,
    Echo,
    Math,
    Notify,
    Patient,
    Sum,
    Wait,
    at_any_pace,
    cause_of_loss,
    connected,
    limited,
    listening,
    raw_client,
    reach,
    read_at_all_times,
    turns,
)

from amp_asyncio import AMP, AmpBox, BoxParser, ConnectionLost, Limits, TooLong, parseString
from amp_asyncio.wire.costs import PAIR_OVERHEAD


def command(called: bytes, tag: int | None, **values: bytes) -> bytes:
    box = AmpBox(_command=called, **values)
    if tag is not None:
        box[b"_ask"] = b"%x" % tag
    return box.serialize()


@pytest.mark.parametrize("name", ["max_box_size", "window", "stall_timeout", "idle_timeout"])
@pytest.mark.parametrize("value", [0, -1])
def test_limits_are_positive(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"{name} must be positive"):
        Limits(**{name: value})


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("window", None, "an integer"),
        ("window", "64", "an integer"),
        ("max_box_size", 1.5, "an integer"),
        ("stall_timeout", None, "a number"),
        ("eof_timeout", "30", "a number"),
    ],
)
def test_limits_are_numbers(name: str, value: Any, kind: str) -> None:
    with pytest.raises(TypeError, match=f"^{name} must be {kind}, not {value!r}$"):
        Limits(**{name: value})


def test_a_window_is_no_larger_than_the_backlog() -> None:
    with pytest.raises(ValueError, match="larger than the backlog"):
        Limits(window=2, max_backlog=1)


# --- the size of a box ---


@pytest.mark.parametrize("step", [1, 7, 10**6])
@pytest.mark.parametrize("pairs", [1, 10])
def test_a_box_at_the_limit_and_one_byte_over(pairs: int, step: int) -> None:
    box = AmpBox({b"%d" % number: b"x" * 50 for number in range(pairs)})
    stream = box.serialize()
    size = len(stream) + PAIR_OVERHEAD * pairs

    def fed(limit: int) -> list[AmpBox]:
        parser, boxes = BoxParser(limit), []
        for _ in range(2):
            for start in range(0, len(stream), step):
                parser.feed(stream[start : start + step])
                boxes += iter(parser.next_box, None)
        return boxes

    assert fed(size) == [box, box]
    with pytest.raises(TooLong, match=f"the limit of {size - 1} bytes"):
        fed(size - 1)


def test_a_value_is_refused_before_it_has_come() -> None:
    parser = BoxParser(1000)
    parser.feed(b"\0\1k\xff\xff")
    with pytest.raises(TooLong, match="remote box too long"):
        parser.next_box()


async def test_keys_without_end_abort_that_connection_alone(caplog: pytest.LogCaptureFixture) -> None:
    limits = Limits(max_box_size=100_000)
    async with listening(Math, limits=limits) as server:
        async with reach(server) as good:
            async with raw_client(server) as (_, writer):
                with pytest.raises(ConnectionError):
                    for number in range(10**6):
                        writer.write(b"\0\4%04x\0\0" % (number & 0xFFFF))
                        await writer.drain()
            assert await good.callRemote(Sum, a=1, b=1) == {"total": 2}
    assert "remote box too long" in caplog.text


# --- the window ---


async def test_questions_over_the_window_wait_in_order() -> None:
    amp, transport = limited(window=1500)

    def ask(number: int) -> asyncio.Future[Any]:
        return amp.callRemote(Echo, data=b"%03d" % number + b"x" * 300)

    answers = [ask(number) for number in range(10)]
    for number in range(20):
        await turns()
        sent = [int(box[b"data"][:3]) for box in transport.boxes()]
        assert sent == [*range(min(number + 2, len(answers)))], "two have room in the window"
        tag, data = b"%x" % (number + 1), b"%03d" % number
        amp.data_received(AmpBox(_answer=tag, data=data).serialize())
        assert await answers[number] == {"data": data}
        if number == 9:
            # When all are answered, there is as much room as in the beginning.
            answers += [ask(number) for number in range(10, 20)]


async def test_a_question_larger_than_the_window_goes_alone() -> None:
    amp, transport = limited(window=1000)
    answers = [amp.callRemote(Echo, data=b"x" * 5000) for _ in range(2)]
    cancelled = amp.callRemote(Echo, data=b"y")
    notice = amp.callRemote(Notify, data=b"z")
    cancelled.cancel()
    for number, answer in enumerate(answers, 1):
        await turns()
        assert len(transport.boxes()) == number
        amp.data_received(AmpBox(_answer=b"%x" % number, data=b"").serialize())
        await answer
    assert await notice is None
    await turns()
    assert [box[b"_command"] for box in transport.boxes()] == [b"Echo", b"Echo", b"Notify"]


async def test_a_cancelled_question_does_not_count() -> None:
    amp, transport = limited(window=1000)
    amp.callRemote(Echo, data=b"x" * 900).cancel()
    second = amp.callRemote(Echo, data=b"x" * 900)
    await turns()
    assert [box[b"_ask"] for box in transport.boxes()] == [b"1", b"2"]
    amp.data_received(AmpBox(_error=b"1", _error_code=b"X").serialize())
    amp.data_received(AmpBox(_answer=b"2", data=b"").serialize())
    assert await second == {"data": b""}


# --- responders ---


async def test_commands_over_the_limit_of_responders_wait_in_order() -> None:
    amp, transport = limited(Patient, max_concurrent_responders=2)
    for number in range(5):
        amp.data_received(command(b"Wait", number, name=b"%d" % number))
    amp.data_received(command(b"Divide", 9, a=b"1", b=b"1"))
    started = []
    for number in range(5):
        started.append(await amp.started.get())
        assert len(started) + amp.started.qsize() - len(amp.finished) <= 2
        if number >= 1:
            amp.gate(str(number - 1)).set_result(None)
    amp.gate("4").set_result(None)
    assert started == list("01234")
    await transport.until(lambda: len(transport.boxes()) == 6)
    assert sorted(box[b"_answer"] for box in transport.boxes()) == [*b"0 1 2 3 4 9".split()]


async def test_responders_that_call_back_more_of_them_than_run_at_once() -> None:
    class Asking(Math):
        limits = Limits(max_concurrent_responders=10)

        @Echo.responder
        async def echo(self, data: bytes) -> dict[str, bytes]:  # type: ignore[override]
            answer = await self.callRemote(Sum, a=int(data), b=1)
            return {"data": b"%d" % answer["total"]}

    async with connected(Asking, Math) as (_, client):
        answers = [client.callRemote(Echo, data=b"%d" % number) for number in range(500)]
        totals = [answer["data"] for answer in await asyncio.gather(*answers)]
        assert totals == [b"%d" % (number + 1) for number in range(500)]


# --- the backlog ---


async def test_reading_pauses_at_the_backlog_and_goes_on_at_half_of_it() -> None:
    amp, transport = limited(Patient, max_concurrent_responders=1, window=1000, max_backlog=4000)
    box = command(b"Wait", 1, name=b"x")
    for _ in range(10):
        amp.data_received(box)
    assert transport.reading
    amp.data_received(box)
    assert not transport.reading
    size, waiting = len(box) + 3 * PAIR_OVERHEAD, 10
    assert waiting * size > 4000 >= (waiting - 1) * size
    await amp.started.get()
    while not transport.reading:
        assert waiting * size > 2000
        amp.let("x")
        await amp.started.get()
        waiting -= 1
        await turns()
    assert waiting * size <= 2000
    amp.connection_lost(None)
    amp.let("x")
    await turns()
    assert amp.started.empty(), "those that waited are dropped"


async def test_a_backlog_that_comes_after_the_loss_holds_nothing_up() -> None:
    """Sixty-four boxes are given out in one turn; the others come after the loss."""
    amp, _ = limited(Patient, max_concurrent_responders=1, window=50_000, max_backlog=50_000)
    waits = b"".join(command(b"Wait", number, name=b"x") for number in range(64))
    notices = 2 * command(b"Notify", None, data=bytes(50_000))
    amp.data_received(waits + notices)
    amp.connection_lost(None)
    await amp.wait_closed()
    for _ in range(2):
        assert await amp.notified.get() == bytes(50_000)


async def test_no_command_begins_while_too_many_answers_are_not_taken() -> None:
    amp, transport = limited(window=1000, max_backlog=4000)
    amp.pause_writing()
    transport.buffered = 3999
    amp.data_received(command(b"Divide", 1, a=b"1", b=b"1"))
    await asyncio.sleep(0)
    assert len(transport.written) == 1
    transport.buffered = 4000
    amp.data_received(command(b"Divide", 2, a=b"1", b=b"1"))
    await asyncio.sleep(0)
    assert len(transport.written) == 1
    closing = asyncio.ensure_future(amp.close(None))
    await turns()
    assert transport.done == []
    assert len(transport.written) == 1
    transport.buffered = 0
    amp.resume_writing()
    await transport.until(lambda: transport.done)
    assert len(transport.written) == 2
    amp.connection_lost(None)
    await closing


async def test_nobody_waits_for_a_backlog_that_is_lost() -> None:
    amp, transport = limited(window=1000, max_backlog=4000)
    amp.pause_writing()
    transport.buffered = 4000
    amp.data_received(command(b"Divide", 2, a=b"1", b=b"1"))
    closing = asyncio.ensure_future(amp.close(None))
    await turns()
    amp.connection_lost(None)
    await closing
    assert transport.written == []


async def test_a_peer_that_asks_and_does_not_read_is_ended() -> None:
    limits = Limits(max_backlog=100_000, window=100_000, stall_timeout=0.05)
    amps: list[AMP] = []

    def factory() -> AMP:
        amps.append(Math())
        return amps[-1]

    async with listening(factory, limits=limits) as server:
        async with raw_client(server) as (_, writer):
            with pytest.raises(ConnectionError):
                while True:
                    writer.write(command(b"Echo", 1, data=b"x" * 60000))
                    await writer.drain()
            await amps[0].wait_closed()
    assert "nothing has moved for 0.05 seconds" in str(await cause_of_loss(amps[0]))


@pytest.mark.slow
@at_any_pace
async def test_slow_progress_is_no_stall(pace: float) -> None:
    amp, transport = limited(
        Patient, max_concurrent_responders=1, window=1000, max_backlog=3000, stall_timeout=0.2 * pace
    )
    box = command(b"Wait", 1, name=b"x")
    while transport.reading:
        amp.data_received(box)
    for _ in range(12):
        await amp.started.get()
        await asyncio.sleep(0.05 * pace)
        assert transport.done == []
        amp.let("x")
        amp.data_received(box)
    await amp.started.get()
    await transport.until(lambda: transport.done)
    assert transport.done == ["abort"]
    amp.connection_lost(None)
    assert f"nothing has moved for {0.2 * pace} seconds" in str(await cause_of_loss(amp))
    amp.let("x")
    await turns()


# --- silence ---


async def test_a_connection_on_which_no_complete_box_arrives_is_ended() -> None:
    amp, transport = limited(idle_timeout=0.02)
    heard = asyncio.get_running_loop().time()
    amp.data_received(command(b"Divide", 1, a=b"1", b=b"1") + b"\0")
    await transport.until(lambda: "abort" in transport.done)
    assert asyncio.get_running_loop().time() - heard > 0.019
    amp.connection_lost(None)
    assert "no complete box" in str(await cause_of_loss(amp))


@at_any_pace
async def test_a_box_that_came_meanwhile_puts_the_end_off(pace: float) -> None:
    amp, transport = limited(idle_timeout=0.2 * pace)
    for tag in range(8):
        amp.data_received(command(b"Divide", tag, a=b"1", b=b"1"))
        await asyncio.sleep(0.05 * pace)
        assert transport.done == []
    await transport.until(lambda: transport.done)
    assert transport.done == ["abort"]
    amp.connection_lost(None)


async def test_no_timer_outlives_the_connection() -> None:
    amp, transport = limited(Patient, idle_timeout=1000, stall_timeout=1000, max_backlog=10, window=10)
    amp.data_received(command(b"Unheard", 1) + 2 * command(b"Wait", 2, name=b"x"))
    await amp.started.get()
    amp.connection_lost(None)
    await turns()
    gone = weakref.ref(amp)
    del amp, transport
    gc.collect()
    assert gone() is None


async def test_a_connection_that_we_do_not_read_is_not_silent() -> None:
    amp, transport = limited(
        Patient, max_concurrent_responders=1, window=1000, max_backlog=1000, idle_timeout=0.05
    )
    while transport.reading:
        amp.data_received(command(b"Wait", 1, name=b"x"))
    await amp.started.get()
    await asyncio.sleep(0.1)
    assert transport.done == []
    amp.finish_writing()
    await asyncio.sleep(0.1)
    assert transport.done == ["write_eof"], "the peer has longer than that to close its side"
    amp.connection_lost(None)
    amp.let("x")
    await turns()


# --- both sides at once ---


@pytest.mark.parametrize("size", [60_000, 10])
async def test_two_peers_that_flood_each_other(size: int) -> None:
    class Peer(Counting):
        @Echo.responder
        def echo(self, data: bytes) -> dict[str, bytes]:
            return {"data": data or b"x" * 60000}

    async with connected(Peer, Peer) as (server, client):

        async def flood(peer: AMP) -> None:
            for _ in range(10):
                answer = await peer.callRemote(Echo, data=b"y" * size if size > 10 else b"")
                assert len(answer["data"]) == 60000

        floods = [flood(peer) for peer in (server, client) for _ in range(100)]
        async with read_at_all_times(server, client):
            await asyncio.gather(*floods)


async def test_a_flood_of_commands_that_want_no_answer_is_held_back_and_none_is_lost() -> None:
    class Slow(Patient):
        limits = Limits(max_concurrent_responders=1, window=10_000, max_backlog=100_000)
        seen = 0

        @Notify.responder
        async def notify(self, data: bytes) -> dict[str, Any]:  # type: ignore[override]
            await asyncio.sleep(0)
            self.seen += 1
            return {}

    async with connected(Slow, Math) as (server, client):
        for _ in range(2000):
            await client.callRemote(Notify, data=b"x" * 10_000)
        assert await client.callRemote(Sum, a=1, b=1) == {"total": 2}
        assert server.seen == 2000


async def test_waiting_and_divided() -> None:
    """Plain responders need no turn among those that wait, but keep their place in the order."""
    amp, transport = limited(Patient, max_concurrent_responders=1)
    amp.data_received(command(b"Wait", 1, name=b"x") + command(b"Divide", 2, a=b"1", b=b"1"))
    await amp.started.get()
    assert transport.written == []
    amp.let("x")
    await transport.until(lambda: len(transport.boxes()) == 2)
    assert [*transport.boxes()[1]] == [b"_answer", b"quotient"]
    assert Wait.commandName == b"Wait"
    assert Divide.commandName == b"Divide"


async def test_refusals_wait_for_their_turn_too() -> None:
    amp, transport = limited(window=1000, max_backlog=4000)
    amp.pause_writing()
    transport.buffered = 4000
    for tag in range(5):
        amp.data_received(command(b"Unheard", tag))
    await asyncio.sleep(0)
    assert transport.written == []
    transport.buffered = 0
    amp.resume_writing()
    await asyncio.sleep(0)
    assert [box[b"_error_code"] for box in transport.boxes()] == 5 * [b"UNHANDLED"]


async def test_the_answers_of_one_turn_are_bounded() -> None:
    """Plain responders are done within the turn, and a transport that is full says so within it."""

    class Large(Math):
        @Divide.responder
        def divide(self, a: int, b: int) -> dict[str, float]:
            raise ZeroDivisionError("x" * 60000)

    amp, transport = limited(Large, window=1000, max_backlog=1_000_000)
    keep = transport.write

    def write(data: bytes) -> None:
        keep(data)
        transport.buffered += len(data)
        amp.pause_writing()

    transport.write = write  # type: ignore[method-assign]
    amp.data_received(command(b"Divide", 1, a=b"1", b=b"0") * 60)
    await turns()
    assert 1_000_000 <= transport.buffered < 1_100_000
    for answered in (34, 51, 60):
        transport.buffered = 0
        amp.resume_writing()
        await turns()
        assert transport.buffered < 1_100_000
        assert len(transport.boxes()) == answered
    assert all(box[b"_error_code"] == b"ZERO_DIVISION" for box in transport.boxes())


async def test_a_window_of_tiny_questions_is_less_than_a_backlog() -> None:
    class Tiny(Counting):
        limits = Limits(max_concurrent_responders=1, window=100_000, max_backlog=100_000)

    async with connected(Tiny, Tiny) as (server, client), read_at_all_times(server):
        answers = [client.callRemote(Sum, a=1, b=1) for _ in range(2000)]
        assert await asyncio.gather(*answers) == 2000 * [{"total": 2}]


async def test_a_full_outbox_does_not_wait_for_the_end_of_the_turn() -> None:
    """Commands that want no answer are done at once: for them, that end might never come."""
    amp, transport = limited()
    for _ in range(10):
        await amp.callRemote(Notify, data=b"x" * 60_000)
    assert len(transport.written) == 10
    for _ in range(1000):
        await amp.callRemote(Notify, data=b"x" * 50)
    assert len(transport.written) > 10
    assert all(32_768 <= len(data) < 33_000 for data in transport.written[10:])
    await asyncio.sleep(0)
    assert b"".join(transport.written).count(b"Notify") == 1010


@pytest.mark.slow
async def test_a_reader_that_is_slow_but_never_fills_the_transport() -> None:
    """What makes a command wait must also be what lets it begin."""

    class Large(Math):
        limits = Limits(window=10_000, max_backlog=20_000)

        @Divide.responder
        def divide(self, a: int, b: int) -> dict[str, float]:
            raise ZeroDivisionError("x" * 5000)

    async with listening(Large) as server, raw_client(server) as (reader, writer):
        for _ in range(1000):
            writer.write(command(b"Divide", 1, a=b"1", b=b"0"))
        writer.write_eof()
        data = b""
        while piece := await reader.read(1000):
            data += piece
        assert data.count(b"ZERO_DIVISION") == 1000


async def test_one_connection_does_not_keep_the_others_waiting() -> None:
    amp, transport = limited()
    amp.data_received(command(b"Divide", 1, a=b"1", b=b"1") * 150)
    answered = 0
    while answered < 150:
        answered, before = b"".join(transport.written).count(b"quotient"), answered
        assert answered - before <= 64
        await asyncio.sleep(0)
    await turns()
    assert transport.reading


async def test_what_was_read_of_a_box_is_freed_with_the_connection() -> None:
    amp, _ = limited(max_box_size=100_000)
    amp.data_received(b"".join(b"\0\4%04x\0\0" % number for number in range(500)))
    amp.data_received(b"".join(b"\0\4%04x\0\0" % number for number in range(500, 1000)))
    amp.connection_lost(None)
    cause = await cause_of_loss(amp)
    assert isinstance(cause, TooLong)
    assert cause.__traceback__ is None, "it would keep what was read alive"
    parsers = [parser for parser in gc.get_objects() if isinstance(parser, BoxParser)]
    assert not any(parser.in_box for parser in parsers)


# --- questions that were cancelled ---


async def test_cancelled_questions_free_the_window() -> None:
    """An old peer never answers them: others may be asked all the same, at once or while they wait."""
    amp, transport = limited(window=1000)
    boxes = 0

    def sent_now() -> int:
        return len(parseString(b"".join(transport.written))) - boxes

    for _ in range(50):
        questions = [amp.callRemote(Echo, data=bytes(100)) for _ in range(8)]
        await turns()
        sent = sent_now()
        assert 0 < sent < len(questions), "the others wait"
        for question in questions[:sent]:
            question.cancel()
        await turns()
        assert sent_now() > sent, "they have left now"
        for question in questions[sent:]:
            question.cancel()
        await turns()
        boxes += sent_now()
        last = amp.callRemote(Echo, data=bytes(600))
        await turns()
        assert sent_now() == 1
        last.cancel()
        boxes += 1
    # Late answers do not count twice.
    for number in range(boxes):
        amp.data_received(AmpBox(_answer=b"%x" % (number + 1), data=b"").serialize())
    assert not transport.done
    await turns()
    questions = [amp.callRemote(Echo, data=bytes(100)) for _ in range(8)]
    await turns()
    assert sent_now() < len(questions)
    amp.connection_lost(None)
    for question in questions:
        with pytest.raises(ConnectionLost):
            await question


@pytest.mark.parametrize("plain", [True, False])
async def test_too_many_cancelled_questions(plain: bool, caplog: pytest.LogCaptureFixture) -> None:
    """The peer answers none of 10,000: the connection is of no use."""
    amp, transport = limited(window=10_000_000, max_backlog=10_000_000)
    asks = amp.callRemote if plain else amp.callRemoteString
    name: Any = Echo if plain else b"Echo"
    kept = asks(name, data=b"")
    for _ in range(10_000):
        asks(name, data=b"").cancel()
    assert not transport.done
    last = asks(name, data=b"")
    await turns()
    assert transport.done == ["abort"]
    assert "the peer has not answered 10000 cancelled questions" in caplog.text
    amp.connection_lost(None)
    for question in (kept, last):
        with pytest.raises(ConnectionLost):
            await question


async def test_many_open_questions_are_no_cancelled_ones() -> None:
    amp, transport = limited(window=10_000_000, max_backlog=10_000_000)
    questions = [amp.callRemote(Echo, data=b"") for _ in range(10_005)]
    for question in questions[:5000]:
        question.cancel()
    questions += [amp.callRemote(Echo, data=b"") for _ in range(5000)]
    await turns()
    assert not transport.done
    amp.connection_lost(None)
    await asyncio.gather(*questions, return_exceptions=True)


def test_a_window_of_streams_has_room_for_an_item() -> None:
    Limits(stream_window=4096)
    with pytest.raises(ValueError, match="stream_window must be at least 4096, not 4095"):
        Limits(stream_window=4095)
