"""Streams with peers that are not what they should be: hostile ones, and ones that know no streams."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import Any, Never

import pytest
from proc import resident
from support import RawPeer, Sum, listening, raw_client, raw_pair, reach, turns

from amp_asyncio import (
    AMP,
    AmpBox,
    ConnectionLost,
    Limits,
    MalformedAmpBox,
    Stream,
    StreamCommand,
    StreamsUnsupported,
)
from amp_asyncio.wire.parser import BoxParser

WINDOW = 4096
LIMITS: dict[str, Any] = {
    "stream_window": WINDOW,
    "max_streams": 3,
    "max_box_size": 50_000,
    "max_backlog": 100_000,
    "window": 100_000,
}
OFFER = b"cancel leave metadata ping stream timeout"


class Talk(StreamCommand[bytes, bytes]):
    pass


class Take(StreamCommand[Never, int, int], answer="count"):
    pass


class Server(AMP):
    def __init__(self) -> None:
        super().__init__()
        self.running = 0

    @Talk.responder
    async def talk(self, stream: Stream[bytes, bytes]) -> None:
        self.running += 1
        try:
            async for item in stream:
                if item == b"stop":
                    return
                if item == b"sleep":
                    await asyncio.Event().wait()
                await stream.send(item)
        finally:
            self.running -= 1

    @Take.responder
    async def take(self, stream: Stream[int, Never]) -> int:
        return len([number async for number in stream])

    @Sum.responder
    def sum(self, a: int, b: int) -> dict[str, int]:
        return {"total": a + b}


def question(
    tag: bytes = b"1", command: bytes = b"Talk", credit: bytes = b"4096", **more: bytes
) -> AmpBox:
    box = AmpBox(_command=command, _ask=tag, _stream=credit, **more)
    if tag == b"1":
        box[b"_offer"] = b"%b %b" % (tag, OFFER)
    return box


def item(data: bytes, tag: bytes = b"1", **more: bytes) -> AmpBox:
    return AmpBox(_command=b"_item", ask=tag, item=data, **more)


def box(name: str, **pairs: bytes) -> AmpBox:
    return AmpBox(_command=name.encode(), **pairs)


END = box("_item", ask=b"1", end=b"")


async def answer_to(peer: RawPeer, tag: bytes) -> AmpBox:
    """Wait for the answer with this tag, or the error."""

    def found() -> list[AmpBox]:
        return [box for box in peer.boxes() if tag in (box.get(b"_answer"), box.get(b"_error"))]

    await peer.until(found)
    return found()[0]


WRONG = {
    "an item for a stream that was never opened": [item(b"", b"2")],
    "credit for a stream that was never opened": [box("_credit", ask=b"f00", credit=b"1")],
    "a tag that is no number": [item(b"", b"0x1")],
    "a tag that is too long": [item(b"", b"1" * 17)],
    "both tags": [box("_item", ask=b"1", answer=b"1", item=b"")],
    "no tag": [box("_credit", credit=b"1")],
    "an item of a question that was never asked": [box("_item", answer=b"1", item=b"")],
    "an item beyond the credit": [item(b"sleep"), *[item(bytes(1000))] * 4],
    "a piece beyond the credit": [item(b"sleep"), item(b""), *[item(bytes(1000), more=b"")] * 4],
    "an item after the end": [item(b"sleep"), END, item(b"")],
    "two ends": [item(b"sleep"), END, END],
    "an end in the middle of an item": [item(b"", more=b""), END],
    "neither an item nor an end": [box("_item", ask=b"1")],
    "an item that is too large": [item(bytes(1000), more=b"")] * 60,
    "credit of 0": [box("_credit", ask=b"1", credit=b"0")],
    "credit of 10**30": [box("_credit", ask=b"1", credit=b"1" + b"0" * 30)],
    "credit of less than nothing": [box("_credit", ask=b"1", credit=b"-5")],
    "credit without an amount": [box("_credit", ask=b"1")],
    "credit that adds up to too much": [box("_credit", ask=b"1", credit=b"2147483647")],
    "a stream of the same tag": [question()],
}


@pytest.mark.parametrize("boxes", WRONG.values(), ids=WRONG)
async def test_what_a_peer_may_not_send_aborts_the_connection(
    boxes: list[AmpBox], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "amp_asyncio")
    async with raw_pair(Server, **LIMITS) as (server, peer):
        peer.send(question())
        await peer.until(lambda: peer.boxes())
        for each in boxes:
            peer.send(each)
            await turns()
        await server.wait_closed()
        await turns()
        assert server.running == 0
    (record,) = [each for each in caplog.records if "aborting" in each.message]
    assert len(record.getMessage()) < 500


async def test_what_comes_for_a_stream_that_is_over_is_dropped() -> None:
    async with raw_pair(Server, **LIMITS) as (_, peer):
        peer.send(question())
        peer.send(item(b"stop"))
        assert (await answer_to(peer, b"1"))[b"_answer"] == b"1"
        peer.send(*[item(b"late")] * 30, box("_credit", ask=b"1", credit=b"0"), END, END)
        peer.send(AmpBox(_command=b"Sum", _ask=b"2", a=b"1", b=b"2"))
        assert (await answer_to(peer, b"2"))[b"total"] == b"3"


REFUSED = {
    "a credit of 0": (question(credit=b"0"), b"UNKNOWN"),
    "a credit that is no number": (question(credit=b"x"), b"UNKNOWN"),
    "a credit of 10**30": (question(credit=b"1" + b"0" * 30), b"UNKNOWN"),
    "a credit in which no item fits": (question(credit=b"500"), b"UNKNOWN"),
    "no credit": (AmpBox(_command=b"Talk", _ask=b"1"), b"UNHANDLED"),
    "a peer that has not announced itself": (
        AmpBox(_command=b"Talk", _ask=b"1", _stream=b"4096"),
        b"UNHANDLED",
    ),
}


@pytest.mark.parametrize(("asked", "code"), REFUSED.values(), ids=REFUSED)
async def test_what_opens_no_stream_is_refused(asked: AmpBox, code: bytes) -> None:
    async with raw_pair(Server, **LIMITS) as (server, peer):
        peer.send(asked)
        assert (await answer_to(peer, b"1"))[b"_error_code"] == code
        assert [each for each in peer.boxes() if each.get(b"_command") in (b"_item", b"_credit")] == []
        peer.send(AmpBox(_command=b"Sum", _ask=b"2", a=b"1", b=b"2"))
        assert (await answer_to(peer, b"2"))[b"total"] == b"3"
        assert server.running == 0


async def test_a_stream_whose_time_is_over_is_not_begun() -> None:
    async with raw_pair(Server, **LIMITS) as (server, peer):
        for tag in (b"1", b"2", b"3", b"4"):
            peer.send(question(tag, _timeout=b"0"), item(b"x", tag))
            assert (await answer_to(peer, tag))[b"_error_code"] == b"_DEADLINE"
        assert server.running == 0


@pytest.mark.parametrize("names", [OFFER, b"cancel stream"])
async def test_a_peer_may_answer_pings_with_errors_or_not_know_them(names: bytes) -> None:
    async with raw_pair(Server, **LIMITS) as (_, peer):
        asked = question(credit=b"2000000")
        asked[b"_offer"] = b"1 " + names
        peer.send(asked)
        answered: set[bytes] = set()
        for _ in range(80):
            peer.send(item(bytes(1000)))
            await asyncio.sleep(0)
            for each in peer.boxes():
                if each.get(b"_command") == b"_ping" and each[b"_ask"] not in answered:
                    answered.add(each[b"_ask"])
                    code = b"UNHANDLED"
                    error = AmpBox(_error=each[b"_ask"], _error_code=code, _error_description=b"")
                    peer.send(error)
        await peer.until(lambda: peer.data.count(b"_item") == 80)
    assert bool(answered) == (names == OFFER)


async def test_a_stream_needs_an_answer(caplog: pytest.LogCaptureFixture) -> None:
    async with raw_pair(Server, **LIMITS) as (_, peer):
        peer.send(question(command=b"Sum", a=b"1", b=b"2"))
        await answer_to(peer, b"1")
        peer.send(AmpBox(_command=b"Talk", _stream=b"4096"))
        peer.send(AmpBox(_command=b"Sum", _ask=b"2", a=b"1", b=b"2"))
        assert (await answer_to(peer, b"2"))[b"total"] == b"3"
    assert "a stream needs an answer" in caplog.text


async def test_the_connection_does_not_change_while_a_stream_is_open() -> None:
    async with raw_pair(Server, **LIMITS) as (_, peer):
        peer.send(question(), AmpBox(_command=b"StartTLS", _ask=b"2"))
        error = await answer_to(peer, b"2")
        assert (
            error[b"_error_description"] == b"the connection cannot be changed while streams are open"
        )
        peer.send(item(b"still here"))
        await peer.until(lambda: b"still here" in peer.data)


async def test_more_streams_than_may_be_open_are_refused() -> None:
    async with raw_pair(Server, **LIMITS) as (server, peer):
        for number in range(1, 1001):
            peer.send(question(b"%x" % number))
        error = await answer_to(peer, b"3e8")
        assert error[b"_error_description"] == b"3 streams of this connection are open already"
        assert server.running == 3
        peer.send(item(b"stop", b"2"))
        await answer_to(peer, b"2")
        peer.send(question(b"3e9"), item(b"stop", b"3e9"))
        assert b"_answer" in await answer_to(peer, b"3e9")


FLOOD = 100_000
NOT_TAKEN = "1000 commands such as b'Talk' came, and no answer was taken"


@pytest.mark.slow
@pytest.mark.parametrize("reads", [True, False], ids=["it reads the refusals", "it reads nothing"])
async def test_a_flood_of_streams_takes_neither_memory_nor_the_time_of_others(
    reads: bool, caplog: pytest.LogCaptureFixture
) -> None:
    class Flooded(Server):
        limits = Limits(**LIMITS)

    caplog.set_level(logging.WARNING, "amp_asyncio")
    refused = 0

    async def read(reader: asyncio.StreamReader) -> None:
        nonlocal refused
        parser = BoxParser()
        while refused < FLOOD - 3:
            parser.feed(await reader.read(65_536))
            while (box := parser.next_box()) is not None:
                if b"_error" in box:
                    text = b"3 streams of this connection are open already"
                    assert box[b"_error_description"] == text
                    refused += 1

    async def write(writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            for first in range(1, FLOOD, 100):
                asked = [question(b"%x" % tag).serialize() for tag in range(first, first + 100)]
                writer.write(b"".join(asked))
                await writer.drain()

    async with listening(Flooded) as server, reach(server) as other, raw_client(server) as both:
        before, answered = resident(), 0
        writing = asyncio.ensure_future(write(both[1]))
        reading = asyncio.ensure_future(read(both[0])) if reads else None
        while not writing.done() or (
            len(server.connections) > 1 if reading is None else not reading.done()
        ):
            assert await other.callRemote(Sum, a=1, b=answered) == {"total": answered + 1}
            answered += 1
        assert resident() - before < 16 * 1024 * 1024
        assert answered > 10
        await writing
        if reading is not None:
            await reading
        assert (NOT_TAKEN in caplog.text) is not reads


@pytest.mark.parametrize("name", [b"Talk", b"StartTLS"])
async def test_what_is_refused_at_once_is_bounded_while_no_answer_is_taken(
    name: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "amp_asyncio")
    async with raw_pair(Server, **LIMITS) as (server, peer):
        peer.send(question())
        await peer.until(lambda: peer.boxes())
        server.pause_writing()
        for tag in range(2, 1002):
            peer.send(AmpBox(_command=name, _ask=b"%x" % tag, _stream=b"4096"))
        await turns()
        assert "aborting" not in caplog.text
        peer.send(AmpBox(_command=name, _ask=b"3ea", _stream=b"4096"))
        await server.wait_closed()
    assert NOT_TAKEN.replace("Talk", name.decode()) in caplog.text


async def test_an_item_that_does_not_parse_is_the_fault_of_the_peer(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with raw_pair(Server, **LIMITS) as (_, peer):
        peer.send(question(command=b"Take"), item(b"1"), item(b"no number"))
        error = await answer_to(peer, b"1")
        assert (error[b"_error_code"], error[b"_error_description"]) == (b"UNKNOWN", b"Unknown Error")
    assert "an item of Take is b'no number'" in caplog.text
    assert "Traceback" not in caplog.text


class Back(StreamCommand[list[int], list[int]]):
    pass


async def test_an_item_that_becomes_too_much_does_not_parse() -> None:
    class Taking(AMP):
        @Back.responder
        async def back(self, stream: Stream[list[int], list[int]]) -> None:
            async for numbers in stream:
                await stream.send(numbers)

    async with raw_pair(Taking, **LIMITS) as (_, peer):
        peer.send(question(command=b"Back"), item(b"\0\x011" * 500))
        assert b"_error" in await answer_to(peer, b"1")


# --- towards a peer that answers wrongly, or knows no streams ---


async def first_question(peer: RawPeer) -> AmpBox:
    await peer.until(lambda: peer.boxes())
    return peer.boxes()[0]


def credit(amount: bytes = b"4096") -> AmpBox:
    return box("_credit", answer=b"1", credit=amount)


def sent(data: bytes, **more: bytes) -> AmpBox:
    return box("_item", answer=b"1", item=data, **more)


ANSWER = AmpBox(_answer=b"1")

WRONG_ANSWERS = {
    "an item before the credit": [sent(b"")],
    "an answer in the middle of an item": [credit(), sent(b"", more=b""), ANSWER],
    "an item beyond the credit": [credit(), *[sent(bytes(1000))] * 4],
    "a first credit that is too little": [credit(b"1000")],
    "two answers": [credit(), ANSWER, ANSWER],
    "an item for a question that was not asked": [box("_item", answer=b"2", item=b"")],
}


@pytest.mark.parametrize("boxes", WRONG_ANSWERS.values(), ids=WRONG_ANSWERS)
async def test_what_a_peer_may_not_answer_aborts_the_connection(boxes: list[AmpBox]) -> None:
    async with raw_pair(AMP, **LIMITS) as (client, peer):
        async with client.stream(Talk()) as talk:
            waiting = asyncio.ensure_future(talk.answer())
            assert (await first_question(peer))[b"_stream"] == b"4096"
            for each in boxes:
                peer.send(each)
            await client.wait_closed()
            await asyncio.wait([waiting])
            if boxes[-2:] != [ANSWER, ANSWER]:
                assert isinstance(waiting.exception(), ConnectionLost | MalformedAmpBox)


async def test_an_item_of_a_plain_question_aborts_the_connection() -> None:
    async with raw_pair(AMP) as (client, peer):
        asking = client.callRemote(Sum, a=1, b=2)
        await first_question(peer)
        peer.send(sent(b""))
        with pytest.raises(ConnectionLost, match="opened no stream"):
            await asking


async def test_what_comes_after_the_answer_is_dropped() -> None:
    async with raw_pair(AMP, **LIMITS) as (client, peer):
        async with client.stream(Talk()) as talk:
            await first_question(peer)
            peer.send(credit(), sent(b"x"), ANSWER, *[sent(b"late")] * 20, credit(b"0"))
            assert [each async for each in talk] == [b"x"]
            await talk.answer()
        asking = client.callRemote(Sum, a=1, b=2)
        await peer.until(lambda: peer.boxes()[-1].get(b"_command") == b"Sum")
        peer.send(AmpBox(_answer=b"2", total=b"3"))
        assert await asking == {"total": 3}


@pytest.mark.parametrize(
    "reply",
    [
        AmpBox(_answer=b"1", total=b"3"),
        AmpBox(_error=b"1", _error_code=b"UNHANDLED", _error_description=b"Unhandled Command: 'Talk'"),
    ],
)
async def test_an_old_peer_is_sent_nothing_that_it_does_not_know(reply: AmpBox) -> None:
    async with raw_pair(AMP, **LIMITS) as (client, peer):
        async with client.stream(Talk()) as talk:
            sending = asyncio.ensure_future(talk.send(b"x"))
            finishing = asyncio.ensure_future(talk.finish())
            await first_question(peer)
            await turns()
            peer.send(reply)
            for attempt in (sending, finishing, talk.answer(), talk.send(b""), anext(talk)):
                with pytest.raises(StreamsUnsupported):
                    await attempt
        assert len(peer.boxes()) == 1
        asking = client.callRemote(Sum, a=1, b=2)
        await peer.until(lambda: len(peer.boxes()) == 2)
        peer.send(AmpBox(_answer=b"2", total=b"3"))
        assert await asking == {"total": 3}
        # By now it is known.
        with pytest.raises(StreamsUnsupported):
            async with client.stream(Talk()):
                raise AssertionError
        assert len(peer.boxes()) == 2


async def test_another_error_of_an_old_peer_is_that_error() -> None:
    async with raw_pair(AMP, **LIMITS) as (client, peer):
        async with client.stream(Talk()) as talk:
            await first_question(peer)
            peer.send(AmpBox(_error=b"1", _error_code=b"UNKNOWN", _error_description=b"no"))
            with pytest.raises(Exception, match="no"):
                await talk.answer()


async def test_a_stream_that_was_left_before_its_answer_ends_when_it_comes() -> None:
    async with raw_pair(AMP, **LIMITS) as (client, peer):
        async with client.stream(Talk()):
            await first_question(peer)
        peer.send(credit(), sent(b"x", more=b""), ANSWER)
        asking = client.callRemote(Sum, a=1, b=2)
        await peer.until(lambda: peer.boxes()[-1].get(b"_command") == b"Sum")
        peer.send(AmpBox(_answer=b"2", total=b"3"))
        assert await asking == {"total": 3}
