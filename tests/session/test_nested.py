"""Responders that ask the peer that they answer: neither side ever waits for the other for ever."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import Any

import pytest
from support import Math, Notify, Patient, Sum, Wait, at_any_pace, connected, limited, turns

from amp_asyncio import AMP, AmpBox, Command, ConnectionLost, Integer, Limits, parseString


class Deep(Command):
    """Its responder asks the same of the one who asks, unless `depth` is 0."""

    arguments = [(b"depth", Integer())]
    response = [(b"depth", Integer())]


class Waiting(AMP):
    @Deep.responder
    async def deep(self, depth: int) -> dict[str, int]:
        await asyncio.sleep(0)
        if depth:
            await self.callRemote(Deep, depth=depth - 1)
        return {"depth": depth}


class InTasks(AMP):
    """Asks in tasks of its own."""

    @Deep.responder
    async def deep(self, depth: int) -> dict[str, int]:
        if depth:
            async with asyncio.TaskGroup() as group:
                for _ in range(2):
                    group.create_task(self.ask(depth - 1))
        return {"depth": depth}

    async def ask(self, depth: int) -> None:
        await self.callRemote(Deep, depth=depth)


class Plain(AMP):
    """Returns the future of its question, as responders written for Twisted do."""

    @Deep.responder
    def deep(self, depth: int) -> Any:
        return self.callRemote(Deep, depth=depth - 1) if depth else {"depth": depth}


class Gathering(AMP):
    """Returns what waits for several questions."""

    @Deep.responder
    def deep(self, depth: int) -> Any:
        if not depth:
            return {"depth": depth}
        asked = [self.callRemote(Deep, depth=depth - 1) for _ in range(2)]

        async def all_of_them() -> dict[str, int]:
            await asyncio.gather(*asked)
            return {"depth": depth}

        return all_of_them()


@pytest.mark.parametrize("kind", [Waiting, InTasks, Plain, Gathering])
@pytest.mark.parametrize("depth", [1, 2, 4])
@pytest.mark.parametrize(
    "limits",
    [
        Limits(max_concurrent_responders=1),
        Limits(max_concurrent_responders=10),
        Limits(max_concurrent_responders=5, window=2000),
    ],
    ids=["one at a time", "ten", "a small window"],
)
async def test_responders_that_call_back_on_both_sides(
    limits: Limits, depth: int, kind: type[AMP]
) -> None:
    class Peer(kind):  # type: ignore[valid-type, misc]
        pass

    Peer.limits = limits
    async with connected(Peer, Peer) as sides, asyncio.timeout(10):
        answers = [side.callRemote(Deep, depth=depth) for _ in range(15) for side in sides]
        await asyncio.gather(*answers)


class Relay(Patient):
    """Asks its peer to `Wait` before it answers a `Sum`, whose `a` is the name."""

    @Sum.responder
    async def sum(self, a: int, b: int) -> dict[str, int]:
        self.started.put_nowait(f"sum {a}")
        await self.callRemote(Wait, name=str(a))
        self.started.put_nowait(f"sum {a} goes on")
        await self.gate(f"sum {a}")
        return {"total": a + b}


def sum_box(number: int) -> bytes:
    return AmpBox(_command=b"Sum", _ask=b"%x" % number, a=b"%d" % number, b=b"0").serialize()


def answer_box(box: AmpBox) -> bytes:
    return AmpBox(_answer=box[b"_ask"], name=box[b"name"]).serialize()


async def test_one_that_has_its_answer_counts_again() -> None:
    amp, transport = limited(Relay, max_concurrent_responders=1)
    amp.data_received(sum_box(1) + sum_box(2))
    assert [await amp.started.get() for _ in range(2)] == ["sum 1", "sum 2"]
    await turns()
    questions = transport.boxes()
    amp.data_received(answer_box(questions[0]))
    assert await amp.started.get() == "sum 1 goes on"
    await turns()
    amp.data_received(sum_box(3))
    await turns()
    assert amp.started.empty()
    amp.let("sum 1")
    assert await amp.started.get() == "sum 3"
    amp.connection_lost(None)
    await turns()


async def test_a_question_that_nobody_waits_for_does_not_make_room_for_ever() -> None:
    class Forgetting(Patient):
        @Sum.responder
        async def sum(self, a: int, b: int) -> dict[str, int]:
            asked.append(self.callRemote(Wait, name="x"))
            return {"total": a + b}

    asked: list[Any] = []
    amp, _ = limited(Forgetting, max_concurrent_responders=1)
    amp.data_received(sum_box(1))
    await turns()
    for number in (2, 3):
        amp.data_received(
            AmpBox(_command=b"Wait", _ask=b"%d" % number, name=b"%d" % number).serialize()
        )
    assert await amp.started.get() == "2"
    await turns()
    assert amp.started.empty()
    amp.connection_lost(None)
    with pytest.raises(ConnectionLost):
        await asked[0]
    await turns()


async def test_one_that_closes_while_its_question_is_open() -> None:
    class Closing(Math):
        @Sum.responder
        async def sum(self, a: int, b: int) -> dict[str, int]:
            asked = self.callRemote(Wait, name="x")
            await self.close()
            await asked
            return {"total": a + b}

    async with connected(Closing, Patient) as (_, client), asyncio.timeout(5):
        lost = client.callRemote(Sum, a=1, b=1)
        await client.started.get()
        client.let("x")
        with pytest.raises(ConnectionLost):
            await lost


async def many_that_wait(amp: Relay) -> None:
    """Have so many responders wait for the peer that later ones are not begun, though all is read."""
    for number in range(1, 26):
        amp.data_received(sum_box(number))
        await turns()
    assert 10 < amp.started.qsize() < 20


TIGHT = {"max_concurrent_responders": 1, "window": 2000, "max_backlog": 8000}


async def test_a_peer_that_answers_no_question_is_ended() -> None:
    """What waits for it is bounded, and so is how long."""
    amp, transport = limited(Relay, **TIGHT, stall_timeout=0.2)
    await many_that_wait(amp)
    begun = amp.started.qsize()
    await transport.until(lambda: "abort" in transport.done)
    assert amp.started.qsize() == begun
    transport.protocol.connection_lost(None)
    await turns()


@at_any_pace
async def test_what_waits_for_a_slow_peer_goes_on(pace: float) -> None:
    amp, transport = limited(Relay, **TIGHT, stall_timeout=0.2 * pace)
    await many_that_wait(amp)
    begun = amp.started.qsize()
    for number in range(1, 26):
        amp.gate(f"sum {number}").set_result(None)
    for number in range(25):
        questions = [box for box in transport.boxes() if b"_ask" in box]
        amp.data_received(answer_box(questions[number]))
        passed = asyncio.Event()
        asyncio.get_running_loop().call_later(0.02 * pace, passed.set)
        await passed.wait()
    assert amp.started.qsize() == 2 * 25 > begun
    assert "abort" not in transport.done
    amp.connection_lost(None)
    await turns()


async def test_questions_of_responders_pass_those_that_wait_for_the_window() -> None:
    amp, transport = limited(Relay, window=1000)
    others = [amp.callRemote(Wait, name="x" * 300) for _ in range(3)]
    assert len(transport.boxes()) == 1
    amp.pause_writing()
    amp.data_received(sum_box(1) + sum_box(2))
    await turns()
    assert len(transport.boxes()) == 1, "the transport takes no more"
    amp.resume_writing()
    await turns()
    names = [box[b"name"] for box in transport.boxes()]
    assert names == [b"x" * 300, b"1", b"2"]
    for answer in others:
        answer.cancel()
    amp.connection_lost(None)
    await turns()


async def test_a_question_of_a_responder_that_is_cancelled_while_it_waits() -> None:
    amp, transport = limited(Relay)
    amp.pause_writing()
    amp.data_received(sum_box(1))
    await amp.started.get()
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await turns()
    amp.resume_writing()
    assert [b"_error" in box for box in transport.boxes()] == [True]
    amp.pause_writing()
    amp.data_received(sum_box(2))
    await turns()
    amp.connection_lost(None)  # With a question that waits.
    await turns()


# --- contexts ---

seen: ContextVar[str] = ContextVar("seen", default="nothing")


class Setting(Patient):
    """Sees what was set in its context, and sets something else."""

    @Sum.responder
    def sum(self, a: int, b: int) -> dict[str, int]:
        self.finished.append(seen.get())
        seen.set("by a plain responder")
        return {"total": a + b}

    @Wait.responder
    async def wait(self, name: str) -> dict[str, Any]:
        self.finished.append(seen.get())
        seen.set("by another responder")
        if name == "asks":
            await self.callRemote(Wait, name="x")
        elif name == "closes":
            await self.close()
        else:
            await self.gate(name)
        return {"name": name}


async def test_no_responder_sees_what_another_one_has_set() -> None:
    amp, transport = limited(Setting, max_concurrent_responders=1)
    wait = AmpBox(_command=b"Wait", _ask=b"9", name=b"asks").serialize()
    waiting = AmpBox(_command=b"Wait", _ask=b"8", name=b"y").serialize()
    amp.data_received(sum_box(1) + sum_box(2) + wait + waiting + sum_box(3))
    await turns()
    amp.let("y")
    await turns()
    assert len(amp.finished) == 5
    amp.data_received(
        AmpBox(_command=b"Wait", _ask=b"7", name=b"closes").serialize() + waiting + sum_box(4)
    )
    await turns()
    assert {*amp.finished} == {"nothing"}
    assert seen.get() == "nothing"
    assert b"_answer" in parseString(b"".join(transport.written))[0]
    amp.connection_lost(None)
    await turns()


async def test_no_connection_sees_what_another_one_has_set() -> None:
    async with connected(Setting) as (one, first), connected(Setting) as (other, second):
        for client in (first, second, first, second):
            await client.callRemote(Sum, a=1, b=1)
        assert one.finished + other.finished == 4 * ["nothing"]


async def test_responders_are_made_by_the_task_factory_of_the_loop() -> None:
    made: list[asyncio.Task[Any]] = []

    def factory(loop: Any, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.Task(coroutine, loop=loop, **options)
        made.append(task)
        return task

    async with connected() as (_, client):
        loop = asyncio.get_running_loop()
        loop.set_task_factory(factory)
        try:
            assert await client.callRemote(Sum, a=1, b=1) == {"total": 2}
            assert await client.callRemote(Notify, data=b"") is None
        finally:
            loop.set_task_factory(None)
    assert len(made) == 1


async def test_connections_share_contexts_only_where_all_is_the_same() -> None:
    """Not where values are only equal."""
    variable: ContextVar[list[int]] = ContextVar("variable")
    seen: list[list[int]] = []

    class Looking(Math):
        @Notify.responder
        def notify(self, data: bytes) -> None:
            seen.append(variable.get())

    values: list[list[int]] = [[], [], []]
    values[2] = values[1]
    amps = []
    for value in values:
        variable.set(value)
        amps.append(limited(Looking)[0])
    variable.set([1])
    for amp in amps:
        amp.data_received(AmpBox(_command=b"Notify", data=b"").serialize())
        amp.connection_lost(None)
    assert [id(value) for value in seen] == [id(value) for value in values]
