"""Interceptors: what surrounds each call, on both sides."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from fakes import Recorder
from proc import open_descriptors
from support import (
    Divide,
    Echo,
    Explode,
    Math,
    Notify,
    Patient,
    Sum,
    Switching,
    SwitchTo,
    Wait,
    at_any_pace,
    connected,
    content,
    listening,
    on_transport,
    pipe_with,
    reach,
    turns,
)
from ways import joined

from amp_asyncio import (
    AMP,
    AmpBox,
    BoxDispatcher,
    Call,
    Command,
    ConnectionLost,
    DeadlineExceeded,
    Descriptor,
    InvalidSignature,
    Limits,
    Peer,
    RemoteAmpError,
    StartTLS,
    String,
    TooLong,
    UnhandledCommand,
    UnknownRemoteError,
    connect,
    current_call,
    serve,
    unix_connect,
    unix_serve,
)
from amp_asyncio.testing import pair


class Noted:
    """An interceptor that writes down what it sees."""

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.calls: list[Call] = []
        self.notes: list[Any] = []

    async def __call__(self, call: Call, proceed: Any) -> Any:
        self.calls.append(call)
        self.notes.append((f"{self.name}{call.direction}", call.command))
        try:
            answer = await proceed()
        except BaseException as error:
            self.notes.append(type(error))
            raise
        self.notes.append(answer)
        return answer


def surrounded(base: type[AMP], *interceptors: Any) -> Any:
    """Return a subclass with these interceptors."""
    return type(base.__name__, (base,), {"interceptors": [*interceptors]})


class Shouting(Math):
    def amp_SHOUT(self, box: AmpBox) -> AmpBox:
        return AmpBox(word=box[b"word"].upper())


async def test_both_sides_of_a_call() -> None:
    asking, answering = Noted(), Noted()
    async with pair(surrounded(Shouting, answering), surrounded(AMP, asking)) as (server, client):
        assert await client.callRemote(Sum, a=1, b=2) == {"total": 3}  # An `async def`.
        assert await client.callRemote(Echo, data=b"x") == {"data": b"x"}  # A plain `def`.
        shouted = await client.callRemoteString(b"shout", word=b"a")
        assert asking.notes == [
            *(("asking", b"Sum"), {"total": 3}),
            *(("asking", b"Echo"), {"data": b"x"}),
            *(("asking", b"shout"), shouted),
        ]
        assert answering.notes == [
            *(("answering", b"Sum"), {"total": 3}),
            *(("answering", b"Echo"), {"data": b"x"}),
            *(("answering", b"shout"), {b"word": b"A", b"_answer": b"3"}),
        ]
        for side, amp in ((asking, client), (answering, server)):
            assert repr(side.calls[0].question) == "Sum(a=1, b=2)"
            assert all(call.amp is amp and call.peer is amp.peer for call in side.calls)
        assert asking.calls[2].question == {"word": b"a"}
        assert answering.calls[2].question[b"word"] == b"a"
        server.peer = given = Peer(address="given by a test")
        await client.callRemote(Sum, a=1, b=2)
        assert answering.calls[-1].peer is given


async def test_the_order_of_interceptors() -> None:
    order: list[str] = []

    def noting(name: str) -> Any:
        async def around(call: Call, proceed: Any) -> Any:
            order.append(f"{name} {call.direction}")
            try:
                return await proceed()
            finally:
                order.append(f"{name} is done")

        return around

    served = surrounded(Math, noting("class"))
    async with serve(served, "127.0.0.1", 0, interceptors=[noting("outer"), noting("inner")]) as server:
        async with connect(*server.sockets[0].getsockname()) as client:
            await client.callRemote(Sum, a=1, b=2)
        assert order == [
            *("outer answering", "inner answering", "class answering"),
            *("class is done", "inner is done", "outer is done"),
        ]


async def test_those_of_a_client_and_of_a_server() -> None:
    answering, asking = Noted(), Noted()
    async with listening(Math, interceptors=[answering]) as server:
        async with reach(server, interceptors=[asking]) as client, reach(server) as other:
            for each in (client, other):
                assert await each.callRemote(Sum, a=1, b=2) == {"total": 3}
    assert asking.notes == [("asking", b"Sum"), {"total": 3}]
    assert answering.notes == 2 * [("answering", b"Sum"), {"total": 3}]


async def test_those_of_an_instance() -> None:
    noted = Noted()
    server = Math()
    server.interceptors = [noted]
    async with pair(server) as (_, client):
        await client.callRemote(Sum, a=1, b=2)
    assert noted.notes == [("answering", b"Sum"), {"total": 3}]


async def test_a_connection_without_any_makes_no_tasks_for_calls() -> None:
    async with pair(Math) as (_, client):
        answer = client.callRemote(Echo, data=b"")
        assert not isinstance(answer, asyncio.Task)
        await answer


async def test_the_call_is_the_current_call_of_the_responder() -> None:
    seen: list[Any] = []

    class Looking(Math):
        @Echo.responder
        def echo(self, data: bytes) -> dict[str, bytes]:
            seen.append(current_call())
            return {"data": data}

    async def around(call: Call, proceed: Any) -> Any:
        assert current_call() is call
        seen.append(call)
        return await proceed()

    async with pair(surrounded(Looking, around)) as (_, client):
        await client.callRemote(Echo, data=b"")
    assert seen[0] is seen[1]


# --- errors ---


async def test_errors_are_seen_as_exceptions() -> None:
    asking, answering = Noted(), Noted()
    async with pair(surrounded(Patient, answering), surrounded(AMP, asking)) as (server, client):
        for raised, received in [
            (KeyError("declared"), KeyError),
            (OSError("not declared"), UnknownRemoteError),
            (EOFError("declared as fatal"), EOFError),
        ]:
            server.failure = raised
            with pytest.raises(received):
                await client.callRemote(Explode)
        await client.wait_closed()
        with pytest.raises(ConnectionLost):
            await client.callRemote(Explode)
        assert asking.calls[-1].peer == client.peer
    assert answering.notes[1::2] == [KeyError, OSError, EOFError]
    assert asking.notes[1::2] == [KeyError, UnknownRemoteError, EOFError, ConnectionLost]


async def test_the_error_of_a_plain_responder() -> None:
    noted = Noted()
    async with pair(surrounded(Math, noted)) as (_, client):
        with pytest.raises(ZeroDivisionError, match="division by zero"):
            await client.callRemote(Divide, a=1, b=0)
    assert noted.notes[1] is ZeroDivisionError


@pytest.mark.parametrize("side", ["asking", "answering"])
@pytest.mark.parametrize("error", [ZeroDivisionError("from the interceptor"), OSError("another")])
async def test_an_interceptor_that_raises(side: str, error: Exception) -> None:
    async def around(call: Call, proceed: Any) -> Any:
        if call.direction == side:
            raise error
        return await proceed()

    expected = type(error)
    if side == "answering" and isinstance(error, OSError):
        expected = UnknownRemoteError  # The command does not declare it.
    async with pair(surrounded(Math, around), surrounded(AMP, around)) as (_, client):
        with pytest.raises(expected):
            await client.callRemote(Divide, a=1, b=1)
        with pytest.raises(expected):
            await client.callRemote(Divide, a=1, b=1)


async def test_an_interceptor_that_cannot_be_awaited(caplog: pytest.LogCaptureFixture) -> None:
    def around(call: Call, proceed: Any) -> Any:
        return 3

    async with pair(surrounded(Math, around)) as (_, client):
        with pytest.raises(UnknownRemoteError):
            await client.callRemote(Sum, a=1, b=1)
    assert "TypeError" in caplog.text


async def test_an_interceptor_that_handles_an_error() -> None:
    async def around(call: Call, proceed: Any) -> Any:
        try:
            return await proceed()
        except ZeroDivisionError:
            return {"quotient": 0.0}

    for server, client in [(surrounded(Math, around), AMP), (Math, surrounded(AMP, around))]:
        async with pair(server, client) as (_, asking):
            assert await asking.callRemote(Divide, a=1, b=0) == {"quotient": 0.0}


async def test_what_cannot_be_asked_or_answered_is_not_seen() -> None:
    asking, answering = Noted(), Noted()

    class Broken(Math):
        def locateResponder(self, name: bytes) -> Any:
            return super().locateResponder(name) if name != b"Broken" else 1 / 0

    server, client_side = surrounded(Broken, answering), surrounded(AMP, asking)
    async with pair(server, client_side, limits=Limits(max_box_size=1000)) as (_, client):
        with pytest.raises(InvalidSignature):
            client.callRemote(Sum, a=1)  # At once: there is nothing to await.
        with pytest.raises(TooLong):
            client.callRemote(Echo, data=bytes(2000))
        assert asking.notes == []
        with pytest.raises(UnhandledCommand):
            await client.callRemoteString(b"Nonsense")
        for name in (b"Broken", b"Sum"):
            with pytest.raises(RemoteAmpError, match="UNKNOWN"):
                await client.callRemoteString(name, a=b"nonsense", b=b"1")
        assert answering.notes == []
    with pytest.raises(RuntimeError, match="not connected yet"):
        client_side().callRemote(Sum, a=1, b=2)


# --- proceeding never, or more than once ---


async def test_never() -> None:
    async def around(call: Call, proceed: Any) -> Any:
        return {"total": 0} if call.direction == "answering" else {"total": -1}

    async with pair(surrounded(Math, around)) as (_, client):
        assert await client.callRemote(Sum, a=1, b=2) == {"total": 0}
    async with pair(AMP, surrounded(AMP, around)) as (_, client):
        assert await client.callRemote(Sum, a=1, b=2) == {"total": -1}


async def test_twice() -> None:
    async def around(call: Call, proceed: Any) -> Any:
        first = await proceed()
        if call.direction == "answering" and isinstance(call.question, AmpBox):
            return await proceed()
        assert await proceed() == first or "_answer" in repr(first)
        return first

    both = surrounded(Shouting, around)
    async with pair(both, both) as (_, client):
        assert await client.callRemote(Sum, a=1, b=2) == {"total": 3}
        assert (await client.callRemoteString(b"shout", word=b"a"))[b"word"] == b"A"


async def test_again_while_the_first_one_waits() -> None:
    async def around(call: Call, proceed: Any) -> Any:
        return await asyncio.gather(proceed(), proceed())

    async with pair(Patient, surrounded(AMP, around), limits=Limits(window=1)) as (server, client):
        asked = client.callRemote(Wait, name="x")
        for _ in range(2):
            await server.started.get()
            server.let("x")
        assert await asked == 2 * [{"name": "x"}]


class Take(Command):
    arguments = [(b"file", Descriptor()), (b"data", String())]
    response = [(b"content", String())]


class Taking(AMP):
    @Take.responder
    def take(self, file: int, data: bytes) -> dict[str, bytes]:
        return {"content": content(file) + data}


async def test_descriptors_are_sent_once() -> None:
    times = 1

    async def around(call: Call, proceed: Any) -> Any:
        answers = [await proceed() for _ in range(times)]
        return answers[0] if answers else None

    before = open_descriptors()
    async with connected(Taking, surrounded(AMP, around), unix=True) as (_, client):
        pipe = pipe_with(b"in the pipe")
        open_now = open_descriptors()
        early = client.callRemote(Take, file=pipe, data=b"")
        early.cancel()  # On Python 3.11, before it begins.
        await turns()
        assert early.cancelled()
        if sys.version_info < (3, 12):
            assert open_descriptors() == open_now
        os.close(pipe)
        for number, expected in [(1, {"content": b"in the pipe"}), (0, None)]:
            times = number
            pipe = pipe_with(b"in the pipe")
            assert await client.callRemote(Take, file=pipe, data=b"") == expected
            os.close(pipe)
        times = 2
        pipe = pipe_with(b"in the pipe")
        with pytest.raises(RuntimeError, match="Call asking Take> has descriptors, .* only once"):
            await client.callRemote(Take, file=pipe, data=b"")
        with pytest.raises(TooLong):
            client.callRemote(Take, file=pipe, data=bytes(70_000))
        os.close(pipe)
    assert open_descriptors() == before


# --- other kinds of calls ---


class Poke(Command):
    requiresAnswer = False


async def test_commands_that_want_no_answer() -> None:
    asking, answering = Noted(), Noted()
    async with pair(AMP, surrounded(AMP, asking)) as (_, client):
        assert await client.callRemote(Poke) is None
        assert asking.notes == [("asking", b"Poke"), None]
    asking = Noted()
    async with pair(surrounded(Patient, answering), surrounded(AMP, asking)) as (server, client):
        assert await client.callRemote(Notify, data=b"x") is None
        assert await server.notified.get() == b"x"
        await turns()
        assert asking.notes == [("asking", b"Notify"), None]
        assert answering.notes == [("answering", b"Notify"), {}]


@pytest.mark.parametrize("refused", [False, True])
async def test_a_switch(refused: bool) -> None:
    asking, answering = Noted(), Noted()
    async with joined("tcp", surrounded(Switching, answering), surrounded(AMP, asking)) as (
        server,
        client,
    ):
        if refused:
            server.refusal = PermissionError("no")
            with pytest.raises(PermissionError):
                await client.callRemote(SwitchTo, Recorder, name="x")
            assert asking.notes[1] is answering.notes[1] is PermissionError
            assert await client.callRemote(Sum, a=1, b=2) == {"total": 3}
            return
        assert await client.callRemote(SwitchTo, Recorder, name="x") == {}
        await server.inner.until(lambda: server.inner.transport)
        assert asking.notes == [("asking", b"SwitchTo"), {}]
        assert answering.notes == [("answering", b"SwitchTo"), server.inner]
        client.innerProtocol.transport.abort()
        await server.inner.until(lambda: "lost" in server.inner.events)


async def test_start_tls() -> None:
    asking, answering = Noted(), Noted()
    async with joined("tcp", surrounded(Math, answering), surrounded(AMP, asking)) as (server, client):
        assert await client.callRemote(StartTLS) == {}
        assert await client.callRemote(Sum, a=1, b=2) == {"total": 3}
        assert server.peerCertificate is None
        assert client.peerCertificate is not None
    assert asking.notes == [("asking", b"StartTLS"), {}, ("asking", b"Sum"), {"total": 3}]
    assert answering.notes == [("answering", b"StartTLS"), {}, ("answering", b"Sum"), {"total": 3}]


async def test_a_dispatcher_of_its_own() -> None:
    noted = Noted()

    class Desk(BoxDispatcher):
        interceptors = [noted]

    async with pair(lambda: AMP(boxReceiver=Desk(Math()))) as (_, client):
        assert await client.callRemote(Sum, a=1, b=2) == {"total": 3}
        assert noted.calls[0].peer.address == ("127.0.0.1", 50_001)
    assert noted.notes == [("answering", b"Sum"), {"total": 3}]


async def test_a_loop_with_a_task_factory() -> None:
    made: list[str] = []

    def factory(loop: Any, coroutine: Any, **options: Any) -> Any:
        made.append(coroutine.__name__)
        return asyncio.Task(coroutine, loop=loop, **options)

    asyncio.get_running_loop().set_task_factory(factory)
    both = surrounded(Math, Noted())
    async with pair(both, both) as (_, client):
        asked = client.callRemote(Sum, a=1, b=2)
        assert len(made) == 1
        assert await asked == {"total": 3}
        assert len(made) == 2
    asyncio.get_running_loop().set_task_factory(None)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="tasks do not begin at once")
async def test_a_question_leaves_before_the_call_returns() -> None:
    amp, transport = on_transport(surrounded(AMP, Noted()))
    answer = amp.callRemote(Wait, name="x")
    assert [box[b"_command"] for box in transport.boxes()] == [b"Wait"]
    amp.connection_lost(None)
    with pytest.raises(ConnectionLost):
        await answer


# --- cancelling, losing and closing ---


async def test_the_caller_cancels() -> None:
    noted = Noted()
    async with pair(Patient, surrounded(AMP, noted)) as (server, client):
        answer = client.callRemote(Wait, name="x")
        await server.started.get()
        answer.cancel()
        with pytest.raises(asyncio.CancelledError):
            await answer
        assert noted.notes[1] is asyncio.CancelledError
        server.let("x")
        assert await client.callRemote(Sum, a=1, b=2) == {"total": 3}, "a late answer is dropped"


async def test_the_connection_is_lost() -> None:
    asking, answering = Noted(), Noted()
    ended = asyncio.Event()

    async def last(call: Call, proceed: Any) -> Any:
        try:
            return await answering(call, proceed)
        finally:
            ended.set()

    async with pair(surrounded(Patient, last), surrounded(AMP, asking)) as (server, client):
        answer = client.callRemote(Wait, name="x")
        await server.started.get()
        server.abort()
        with pytest.raises(ConnectionLost):
            await answer
        await ended.wait()
    assert asking.notes[1] is ConnectionLost
    assert answering.notes[1] is asyncio.CancelledError


async def test_a_future_of_somebody_elses_is_not_cancelled() -> None:
    shared: asyncio.Future[dict[str, bytes]] = asyncio.get_running_loop().create_future()
    begun = asyncio.Event()

    class Sharing(AMP):
        @Echo.responder
        def echo(self, data: bytes) -> Any:
            begun.set()
            return shared

    noted = Noted()
    async with pair(surrounded(Sharing, noted)) as (server, client):
        answer = client.callRemote(Echo, data=b"")
        await begun.wait()
        server.abort()
        with pytest.raises(ConnectionLost):
            await answer
    assert not shared.cancelled()
    shared.set_result({})
    await turns()
    assert noted.notes[1] is asyncio.CancelledError


async def test_closing_waits_for_a_question_that_was_not_sent_yet() -> None:
    proceeds = asyncio.Event()

    async def around(call: Call, proceed: Any) -> Any:
        await proceeds.wait()
        return await proceed()

    class Asking(Math):
        interceptors = [around]

        @Echo.responder
        async def echo(self, data: bytes) -> dict[str, bytes]:
            # While this side closes, only responders ask.
            total = (await self.callRemote(Sum, a=1, b=2))["total"]
            return {"data": b"%d" % total}

    async with pair(Asking, Math) as (server, client):
        answer = client.callRemote(Echo, data=b"")
        await turns()
        closing = asyncio.ensure_future(server.close())
        await turns()
        assert not closing.done()
        proceeds.set()
        assert await answer == {"data": b"3"}
        await closing
        with pytest.raises(ConnectionLost):
            await server.callRemote(Sum, a=1, b=2)
    proceeds.clear()
    async with pair(Math, Asking) as (_, client):
        asked = client.callRemote(Sum, a=1, b=2)
        closing = asyncio.ensure_future(client.close())
        await turns()
        assert not closing.done()
        proceeds.set()
        with pytest.raises(ConnectionLost):  # It was not asked before the connection began to close.
            await asked
        await closing


# --- timeouts and metadata ---


async def test_metadata_that_an_interceptor_adds() -> None:
    async def tracing(call: Call, proceed: Any) -> Any:
        if call.direction == "asking":
            call.metadata = {**call.metadata, "trace": call.command.decode()}
        return await proceed()

    seen: list[dict[str, str]] = []

    class Tracing(Math):
        interceptors = [tracing]

        @Echo.responder
        async def echo(self, data: bytes) -> dict[str, bytes]:
            call = current_call()
            assert call is not None
            seen.append({**call.metadata})
            return {"data": data}

    async with pair(Tracing, Tracing) as (_, client):
        await client.callRemote(Echo, data=b"")
        await client.call(Echo(data=b""), metadata={"tenant": "Ada"}, timeout=30)
        await client.callRemoteString(b"Echo", data=b"")
    assert seen == [{"trace": "Echo"}, {"tenant": "Ada", "trace": "Echo"}, {"trace": "Echo"}]


async def test_metadata_that_cannot_be_sent() -> None:
    async def wrong(call: Call, proceed: Any) -> Any:
        call.metadata = {"": "a name has at least one byte"}
        return await proceed()

    async with pair(Math, surrounded(AMP, wrong)) as (_, client):
        with pytest.raises(ValueError, match="name of metadata"):
            await client.callRemote(Sum, a=1, b=2)
        with pytest.raises(TypeError, match="metadata has str"):
            client.call(Sum(a=1, b=2), metadata={"a": 1})


async def test_the_deadline_is_seen_on_both_sides() -> None:
    asking, answering = Noted(), Noted()
    async with pair(surrounded(Math, answering), surrounded(AMP, asking)) as (_, client):
        await client.call(Sum(a=1, b=2), timeout=30)
        await client.callRemote(Sum, a=1, b=2)
    for calls in (asking.calls, answering.calls):
        assert 20 < (calls[0].remaining() or 0) <= 30
        assert calls[1].deadline is None


@at_any_pace
async def test_the_time_is_over(pace: float) -> None:
    asking, answering = Noted(), Noted()
    ended = asyncio.Event()

    async def last(call: Call, proceed: Any) -> Any:
        try:
            return await answering(call, proceed)
        finally:
            ended.set()

    async with pair(surrounded(Patient, last), surrounded(AMP, asking)) as (_, client):
        with pytest.raises(DeadlineExceeded):
            await client.call(Wait(name="x"), timeout=0.01 * pace)
        await ended.wait()
    assert asking.notes[1] is DeadlineExceeded
    assert answering.notes[1] is asyncio.CancelledError


@pytest.mark.parametrize("when", ["before", "after"])
async def test_the_time_is_over_in_an_interceptor(when: str) -> None:
    notes: list[str] = []

    async def around(call: Call, proceed: Any) -> Any:
        try:
            if when == "after":
                with suppress(DeadlineExceeded):
                    await proceed()
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            notes.append("cancelled")
            with pytest.raises(DeadlineExceeded):
                await proceed()
            raise

    async with pair(Patient, surrounded(AMP, around)) as (_, client):
        with pytest.raises(DeadlineExceeded, match="passed in an interceptor"):
            await client.call(Wait(name="x"), timeout=0.01)
    assert notes == ["cancelled"]


async def test_a_timeout_of_the_interceptors_own() -> None:
    async def around(call: Call, proceed: Any) -> Any:
        async with asyncio.timeout(0.001):
            return await proceed()

    async with pair(Patient, surrounded(AMP, around)) as (_, client):
        with pytest.raises(TimeoutError) as raised:
            await client.call(Wait(name="x"), timeout=30)
        assert not isinstance(raised.value, DeadlineExceeded)


async def test_what_a_cancelled_responder_asks_is_cancelled_in_its_interceptors() -> None:
    noted, stuck = Noted(), asyncio.Event()

    async def around(call: Call, proceed: Any) -> Any:
        if call.direction == "asking":
            stuck.set()
            await asyncio.get_running_loop().create_future()
        return await proceed()

    class Asking(Math):
        interceptors = [noted, around]

        @Echo.responder
        async def echo(self, data: bytes) -> dict[str, bytes]:
            asked = asyncio.ensure_future(self.callRemote(Sum, a=1, b=2))
            await asyncio.wait([asked])
            raise AssertionError("this was cancelled")

    async with pair(Asking, Math) as (_, client):
        await client.callRemote(Sum, a=1, b=2)  # It is known now that the peer can be told.
        answer = client.callRemote(Echo, data=b"")
        await stuck.wait()
        answer.cancel()
        await turns()
    assert noted.notes[-2:] == [asyncio.CancelledError, asyncio.CancelledError]


# --- what is no list of interceptors ---


@pytest.mark.parametrize("wrong", [3, "abc", [3], Noted(), [None]])
def test_mistakes(wrong: Any) -> None:
    message = "must be a list of async functions that take .call, proceed., not "
    with pytest.raises(TypeError, match=f"Hotel.interceptors {message}"):
        type("Hotel", (AMP,), {"interceptors": wrong})
    calls: list[Callable[[], Any]] = [
        lambda: connect("", 1, interceptors=wrong),
        lambda: serve(AMP, "", 1, interceptors=wrong),
        lambda: unix_connect("", interceptors=wrong),
        lambda: unix_serve(AMP, "", interceptors=wrong),
    ]
    for call in calls:
        with pytest.raises(TypeError, match=f"interceptors {message}"):
            call()


async def test_a_mistake_of_an_instance(caplog: pytest.LogCaptureFixture) -> None:
    class Hotel(Math):
        @property
        def interceptors(self) -> Any:
            return 3

    async with pair(Hotel) as (_, client):
        with pytest.raises(ConnectionLost):
            await client.callRemote(Sum, a=1, b=2)
    assert "Hotel.interceptors must be a list of async functions" in caplog.text
