"""What runs, what waits and what was answered: how much of it there may be, and for how long."""

from __future__ import annotations

import asyncio
import gc
import os
import time
import types
import weakref
from typing import Any

import pytest
from fakes import Recorder, Transport
from support import (
    Echo,
    Math,
    Notify,
    Patient,
    SwitchTo,
    at_any_pace,
    cause_of_loss,
    connected,
    content,
    limited,
    pipe_with,
    turns,
)

from amp_asyncio import (
    AMP,
    AmpBox,
    Command,
    ConnectionLost,
    Descriptor,
    RemoteAmpError,
    String,
    Unicode,
)


def command(called: bytes, tag: int | None, **values: bytes) -> bytes:
    box = AmpBox(_command=called, **values)
    if tag is not None:
        box[b"_ask"] = b"%x" % tag
    return box.serialize()


def alive(key: bytes) -> int:
    """Return how many boxes with this key are in memory."""
    return sum(isinstance(each, AmpBox) and key in each for each in gc.get_objects())


def fill(transport: Transport, amp: AMP) -> None:
    """Have the transport keep what is written, and say that it is full."""
    keep = transport.write

    def write(data: bytes) -> None:
        keep(data)
        transport.buffered += len(data)
        amp.pause_writing()

    transport.write = write  # type: ignore[method-assign]


# --- commands that run ---


async def test_commands_that_run_count_by_their_size() -> None:
    amp, transport = limited(Patient, window=1000, max_backlog=4000)
    for number in range(5):
        amp.data_received(command(b"Wait", number, name=b"%d" % number + b"x" * 2000))
    amp.data_received(command(b"Divide", 9, a=b"1", b=b"1"))
    previous = ""
    for number in range(5):
        name = await amp.started.get()
        assert name[0] == str(number)
        if number:
            await turns()
            assert amp.started.empty(), "two of them are as much as may run"
            assert len(transport.boxes()) == number - 1
            amp.let(previous)
        previous = name
    amp.let(previous)
    await transport.until(lambda: len(transport.boxes()) == 6)
    amp.connection_lost(None)


async def test_a_larger_one_may_run_alone() -> None:
    amp, transport = limited(Patient, window=1000, max_backlog=1000)
    for number in range(2):
        amp.data_received(command(b"Wait", number, name=b"%d" % number + b"x" * 2000))
    for number in range(2):
        name = await amp.started.get()
        assert amp.started.empty()
        amp.let(name)
        await turns()
        assert len(transport.boxes()) == number + 1


async def test_a_responder_that_closes_its_connection_does_not_count() -> None:
    class Closing(Patient):
        @Echo.responder
        async def echo(self, data: bytes) -> dict[str, bytes]:  # type: ignore[override]
            await self.gate("go")
            await self.close()
            return {"data": data}

    amp, transport = limited(Closing, window=1000, max_backlog=1000)
    amp.data_received(command(b"Echo", 1, data=b"x" * 2000))
    await turns()
    amp.data_received(command(b"Sum", 2, a=b"1", b=b"1"))
    await turns()
    assert transport.written == []
    amp.let("go")
    await transport.until(lambda: transport.done)
    assert [box[b"_answer"] for box in transport.boxes()] == [b"2"]
    amp.connection_lost(None)
    await turns()


async def test_a_box_is_not_kept_beside_its_values() -> None:
    class Keep(Command):
        arguments = [(b"a-name-of-its-own", Unicode())]

    class Keeping(Patient):
        @Keep.responder
        async def keep(self, a_name_of_its_own: str) -> dict[str, Any]:
            await self.gate("x")
            return {}

    amp, transport = limited(Keeping)
    amp.data_received(command(b"Keep", 1, **{"a-name-of-its-own": b"x"}))
    await turns()
    assert alive(b"a-name-of-its-own") == 0
    amp.let("x")
    await transport.until(lambda: transport.written)
    assert transport.boxes() == [{b"_answer": b"1"}]


# --- what waits ---


async def test_a_question_that_was_cancelled_while_it_waited_is_forgotten() -> None:
    amp, _ = limited(window=1000)
    first = amp.callRemote(Echo, data=b"x" * 900)
    for _ in range(100):
        amp.callRemoteString("Late", **{"a-late-question": b"x" * 900}).cancel()
    await turns()
    assert alive(b"a-late-question") == 0
    amp.connection_lost(None)
    with pytest.raises(ConnectionLost):
        await first


async def test_refusals_that_wait_keep_no_frames() -> None:
    class Large:
        pass

    large: list[weakref.ref[Large]] = []

    class Locator:
        def locateResponder(self, name: bytes) -> Any:
            if name == b"Unknown":
                return None
            mine = Large()
            large.append(weakref.ref(mine))
            raise RemoteAmpError(b"NO", "not here") if name == b"Refused" else KeyError(name)

    def factory() -> AMP:
        return AMP(locator=Locator())  # type: ignore[arg-type]

    amp, transport = limited(factory, window=1000, max_backlog=4000)
    amp.pause_writing()
    transport.buffered = 4000
    for tag, name in enumerate((b"Unknown", b"Refused", b"Broken")):
        amp.data_received(command(name, tag))
    gc.collect()
    assert [ref() for ref in large] == [None, None]
    kept = [each for each in gc.get_objects() if isinstance(each, types.TracebackType)]
    assert not [each for each in kept if each.tb_frame.f_code.co_name == "command_received"]
    transport.buffered = 0
    amp.resume_writing()
    await turns()
    codes = [box[b"_error_code"] for box in transport.boxes()]
    assert codes == [b"UNHANDLED", b"NO", b"UNKNOWN"]


# --- answers that cannot be sent yet ---


@pytest.mark.parametrize("declared", [False, True])
async def test_answers_wait_until_the_peer_has_taken_others(declared: bool) -> None:
    class Full(Exception):
        pass

    class Get(Command):
        response = [(b"data", Unicode())]
        errors = {Full: b"FULL"}

    class Large(Patient):
        @Get.responder
        async def get(self) -> dict[str, Any]:
            await self.gate("go")
            if declared:
                raise Full(60_000 * "x")
            return {"data": 60_000 * "x"}

    amp, transport = limited(Large, window=1000, max_backlog=1_000_000)
    fill(transport, amp)
    for number in range(60):
        amp.data_received(command(b"Get", number))
    await turns()
    amp.let("go")
    await turns()
    answered = 0
    while answered < 60:
        assert 60_000 < transport.buffered < 1_100_000
        answered, before = len(transport.boxes()), answered
        assert answered > before
        transport.buffered = 0
        amp.resume_writing()
        await turns()
    tags = [int(box.get(b"_answer") or box[b"_error"], 16) for box in transport.boxes()]
    assert sorted(tags) == [*range(60)]


async def test_no_command_begins_while_answers_wait() -> None:
    """However slowly the peer takes them, there are never more than those that ran at once."""

    class Answer(dict[str, bytes]):
        """What a responder has returned."""

    class Get(Command):
        response = [(b"data", String())]

    answers: weakref.WeakSet[Answer] = weakref.WeakSet()
    Answer.__hash__ = object.__hash__  # type: ignore[assignment]

    class Large(Math):
        begun = 0

        @Get.responder
        async def get(self) -> dict[str, bytes]:
            self.begun += 1
            await gate.wait()
            answer = Answer(data=b"%05d" % self.begun + bytes(50_000))
            answers.add(answer)
            return answer

    gate = asyncio.Event()
    limits = {"window": 1000, "max_backlog": 100_000, "max_concurrent_responders": 20}
    amp, transport = limited(Large, **limits)
    fill(transport, amp)
    for number in range(100):
        amp.data_received(command(b"Get", number))
    await turns()
    gate.set()
    await turns()
    took = 0
    while len(transport.boxes()) < 100:
        waiting = len(answers)
        assert waiting <= 20
        took += 1
        transport.buffered = 0
        amp.resume_writing()
        await turns()
        # (Two fit into the outbox: then the next ones may begin.)
        assert waiting <= 2 or len(answers) < waiting
    assert took > 20
    assert amp.begun == 100


async def test_an_error_that_is_not_waited_for() -> None:
    amp, transport = limited(Patient, window=1000, max_backlog=1000)
    amp.data_received(command(b"Wait", 1, name=b"x"))
    await amp.started.get()
    transport.buffered = 2000
    amp.pause_writing()
    amp.gate("x").cancel()
    await turns()
    amp.connection_lost(None)
    await turns()
    assert transport.done == []


async def stuck(**limits: Any) -> tuple[Any, Transport]:
    """Return a connection of which two answers wait until the transport takes more."""
    amp, transport = limited(Patient, window=1000, max_backlog=1000, **limits)
    for number in range(2):
        amp.data_received(command(b"Wait", number, name=b"x"))
    await turns()
    transport.buffered = 2000
    amp.pause_writing()
    amp.let("x")
    await turns()
    assert transport.written == []
    return amp, transport


async def test_a_peer_that_never_takes_its_answers_is_ended() -> None:
    amp, transport = await stuck(stall_timeout=0.05)
    await transport.until(lambda: transport.done)
    assert transport.done == ["abort"]
    amp.connection_lost(None)
    await turns()
    assert "2 answers, and nothing has moved for 0.05 seconds" in str(await cause_of_loss(amp))


@pytest.mark.slow
@at_any_pace
async def test_a_peer_that_takes_them_slowly_is_not(pace: float) -> None:
    amp, transport = await stuck(stall_timeout=0.2 * pace)
    for _ in range(6):
        await asyncio.sleep(0.1 * pace)
        assert transport.done == []
        transport.buffered -= 1
    transport.buffered = 0
    amp.resume_writing()
    await turns()
    assert len(transport.boxes()) == 2
    await asyncio.sleep(0.3 * pace)
    assert transport.done == [], "nobody waits any more"


async def test_answers_that_wait_go_with_the_connection() -> None:
    amp, transport = await stuck()
    closing = asyncio.ensure_future(amp.close(None))
    await turns()
    amp.connection_lost(None)
    await closing
    assert transport.written == []
    assert amp.finished == ["x", "x"]


async def test_answers_wait_while_the_connection_is_changed() -> None:
    written = []

    class Written(String):
        def toString(self, inObject: Any) -> bytes:
            written.append(inObject)
            return super().toString(inObject)

    class Get(Command):
        response = [(b"data", Written())]

    class Large(Patient):
        @Get.responder
        async def get(self) -> dict[str, bytes]:
            await self.gate("go")
            return {"data": 6000 * b"x"}

    amp, transport = limited(Large, window=1000, max_backlog=10_000)
    for number in range(10):
        amp.data_received(command(b"Get", number))
    await turns()
    switching = amp.callRemote(SwitchTo, Recorder, name="x")
    amp.let("go")
    await turns()
    assert [box[b"_command"] for box in transport.boxes()] == [b"SwitchTo"]
    assert len(written) == 2
    amp.data_received(AmpBox(_error=b"1", _error_code=b"NO", _error_description=b"").serialize())
    with pytest.raises(PermissionError):
        await switching
    await turns()
    assert len(transport.boxes()) == 11


async def test_descriptors_are_taken_at_once_even_if_the_transport_is_full() -> None:
    class Open(Command):
        response = [(b"file", Descriptor())]

    class Files(Patient):
        @Open.responder
        async def open(self) -> dict[str, Any]:
            await self.gate("go")
            reading = pipe_with(b"content")
            self.loop.call_soon(os.close, reading)
            return {"file": reading}

    async with connected(Files, Math, unix=True) as (server, client):
        asked = client.callRemote(Open)
        while not server.gates:
            await asyncio.sleep(0)
        server.pause_writing()
        server.let("go")
        assert content((await asked)["file"]) == b"content"
        server.resume_writing()


# --- turns of the event loop ---


class Busy(Patient):
    """Each command takes its time, and leaves no room for another one in that turn."""

    done = 0

    @Notify.responder
    def notify(self, data: bytes) -> dict[str, Any]:
        time.sleep(0.01)
        self.done += 1
        return {}


async def most_in_a_turn(amp: Busy, total: int) -> int:
    """Return how many commands were done in one turn of the loop, at most, until all were."""
    most = 0
    while amp.done < total:
        before = amp.done
        await asyncio.sleep(0)
        most = max(most, amp.done - before)
    return most


@pytest.mark.real_turns
async def test_commands_that_take_long_are_done_in_turns() -> None:
    amp, transport = limited(Busy)
    box = command(b"Notify", None, data=b"x")
    for _ in range(3):
        amp.data_received(box * 3)
    assert amp.done == 3, "no more in this turn, however many pieces of the stream came in it"
    assert not transport.reading
    assert await most_in_a_turn(amp, 9) <= 4
    await turns()
    assert transport.reading


@pytest.mark.real_turns
async def test_a_backlog_is_worked_off_in_turns() -> None:
    amp, _ = limited(Busy, max_concurrent_responders=3)
    for tag in range(3):
        amp.data_received(command(b"Wait", tag, name=b"x"))
    amp.data_received(command(b"Notify", None, data=b"x") * 9)
    await turns()
    assert amp.done == 0
    amp.let("x")  # All three end in one turn, and each would begin what waits.
    assert await most_in_a_turn(amp, 9) <= 2
    assert amp.finished == ["x", "x", "x"]


@pytest.mark.real_turns
async def test_a_backlog_is_worked_off_in_turns_after_the_end() -> None:
    amp, _ = limited(Busy, max_concurrent_responders=1)
    amp.data_received(command(b"Wait", 1, name=b"x"))
    amp.data_received((command(b"Notify", None, data=b"x") + command(b"Sum", 5, a=b"1", b=b"1")) * 5)
    await turns()
    amp.connection_lost(None)
    assert await most_in_a_turn(amp, 5) == 1


async def test_what_waited_for_the_transport_is_done_when_the_connection_is_lost() -> None:
    amp, transport = limited(Busy, window=1000, max_backlog=1000)
    transport.buffered = 2000
    amp.pause_writing()
    amp.data_received(command(b"Notify", None, data=b"x") + command(b"Sum", 5, a=b"1", b=b"1"))
    assert amp.done == 0
    amp.connection_lost(None)
    await most_in_a_turn(amp, 1)
    assert transport.written == []
