"""Subclasses of AMP: nothing that they set or override breaks the connection."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from fakes import Recorder
from support import Echo, Math, Notify, Patient, Sum, Switching, SwitchTo, Wait, turns
from ways import joined, reached, serving

from amp_asyncio import (
    AMP,
    AmpBox,
    BoxSender,
    CommandLocator,
    ConnectionLost,
    Limits,
    PeerVerifyError,
    PrivateCertificate,
    StartTLS,
    connect,
)

PLAIN_WAYS = ["tcp", "unix", "tls"]

# What an AMP of version 0.1 had as private names: applications may use any of them.
PRIVATE_NAMES = """
    _abort_if_stalled _answer _answer_and_finish _answer_failed _answer_later _answer_received
    _answered_or_refused _ask _ask_at_once _asked _backlog _backlog_size _begin _begin_waiting _by_bytes
    _cancel_timers _change _changing _changing_task _check_open _closed _closing _commandDispatch
    _command_received _congested _counter _debug _deliver _delivering _drained _drop_backlog _emit
    _empty_outbox _end _ending _error _error_received _exchange _finish_after_change _finish_change
    _finish_questions _finish_responders _finished _flush _give_up_questions _heard_at _held _idle_timer
    _initialized _linger _lock _loop _lose _may_begin _may_send _most_by_bytes _open _outbox
    _outbox_size _over _overfull _parser _pause_for_backlog _pauses _peer_finished _progress _read
    _refuse _reply
    _responder _responder_done _responders _resume_after_backlog _resume_sending _room _securing
    _sendBoxCommand _send_waiting _sender _sending_exchange _stall_timer _start_tls _stop_watching
    _switchTo _take_bytes _unanswered _unblocked _unlock _unlock_secured _waiting _wake
    _watch_for_silence _watch_for_stall _where
""".split()


def spoiled(base: type[AMP]) -> type[AMP]:
    """Return a subclass in which each of these names is something else, on the instance as well."""

    def __init__(self: Any, *arguments: Any) -> None:
        for name in PRIVATE_NAMES:
            setattr(self, name, f"the instance's {name}")
        base.__init__(self, *arguments)
        for name in PRIVATE_NAMES:
            setattr(self, name, f"the instance's {name}")

    members: dict[str, Any] = {name: f"the class's {name}" for name in PRIVATE_NAMES}
    return type(f"Spoiled{base.__name__}", (base,), {**members, "__init__": __init__})


@pytest.mark.parametrize("way", PLAIN_WAYS)
async def test_a_subclass_may_have_each_private_name_of_old(way: str) -> None:
    async with joined(way, spoiled(Switching), spoiled(Switching)) as (server, client):
        for asking in (client, server):
            assert await asking.callRemote(Sum, a=1, b=2) == {"total": 3}
            assert (await asking.callRemoteString(b"Sum", a=b"1", b=b"2"))[b"total"] == b"3"
            assert await asking.callRemote(Notify, data=b"unknown") is None
        if way != "tls":
            await client.callRemote(StartTLS)
            assert await server.callRemote(Sum, a=1, b=2) == {"total": 3}
        await client.callRemote(SwitchTo, Recorder, name="x")
        inner: Any = client.innerProtocol
        inner.transport.write(b"hello")
        theirs: Any = server.inner  # type: ignore[attr-defined]
        await theirs.until(lambda: theirs.data == b"hello")
        inner.transport.close()
        await theirs.until(lambda: "lost" in theirs.events)
        await inner.until(lambda: "lost" in inner.events)
    assert len(PRIVATE_NAMES) == len(set(PRIVATE_NAMES)) > 90


@pytest.mark.parametrize("way", PLAIN_WAYS)
async def test_and_it_closes_in_order(way: str) -> None:
    async with joined(way, spoiled(Patient), spoiled(Math)) as (server, client):
        patient: Any = server
        answer = client.callRemote(Wait, name="x")
        await patient.started.get()
        closing = asyncio.ensure_future(client.close(timeout=5))
        await turns()
        patient.let("x")
        assert await answer == {"name": "x"}
        await closing
        await server.close(timeout=5)


# --- overriding what asyncio calls ---

HOOKS = [
    "connection_made",
    "connection_lost",
    "data_received",
    "eof_received",
    "pause_writing",
    "resume_writing",
]


def noting(base: type[AMP], *hooks: str, forward: bool, failing: bool = False) -> type[Any]:
    """Return a subclass that overrides `hooks`, notes their calls, and may call `super()`."""
    cls: Any

    def overriding(hook: str) -> Callable[..., Any]:
        def override(self: Any, *arguments: Any) -> Any:
            self.__dict__.setdefault("told", []).append(hook)
            for condition, future in self.__dict__.get("awaited", ()):
                if not future.done() and condition in self.told:
                    future.set_result(None)
            if failing:
                raise ZeroDivisionError(f"{hook} fails")
            if forward:
                return getattr(super(cls, self), hook)(*arguments)

        return override

    async def hear(self: Any, hook: str) -> None:
        """Wait until `hook` is called."""
        if hook not in self.told:
            future = asyncio.get_running_loop().create_future()
            self.__dict__.setdefault("awaited", []).append((hook, future))
            await asyncio.wait_for(future, 5)

    members: dict[str, Any] = {hook: overriding(hook) for hook in hooks}
    cls = type(f"Noting{base.__name__}", (base,), {**members, "hear": hear, "told": []})
    return cls


@pytest.mark.parametrize("way", PLAIN_WAYS)
@pytest.mark.parametrize("forward", [False, True], ids=["without-super", "with-super"])
@pytest.mark.parametrize("hook", HOOKS)
async def test_each_hook_overridden(hook: str, forward: bool, way: str) -> None:
    overridden = noting(Math, hook, forward=forward)
    swallows = hook == "data_received" and not forward
    async with joined(way, overridden, overridden) as (server, client):
        if swallows:
            asked = [client.callRemote(Sum, a=1, b=2), server.callRemote(Sum, a=1, b=2)]
        else:
            for asking in (client, server):
                assert await asking.callRemote(Sum, a=1, b=2) == {"total": 3}
        async with asyncio.timeout(5):
            await client.close(timeout=0.2 if swallows else 5)
            await server.close(timeout=0.2 if swallows else 5)
        assert client.transport is None
        assert server.transport is None
        if swallows:
            for error in await asyncio.gather(*asked, return_exceptions=True):
                assert isinstance(error, ConnectionLost)
        for amp in (client, server):
            times = amp.told.count(hook)
            if hook in ("connection_made", "connection_lost"):
                assert times == 1
            elif hook == "data_received":
                assert times >= 1 or swallows
            else:
                assert times <= 1


@pytest.mark.parametrize("way", PLAIN_WAYS)
@pytest.mark.parametrize("forward", [False, True], ids=["without-super", "with-super"])
async def test_all_hooks_at_once_and_their_order(forward: bool, way: str) -> None:
    hooks = [hook for hook in HOOKS if hook != "data_received"]
    both = noting(Patient, *hooks, forward=forward)
    async with joined(way, both, both) as (server, client):
        assert client.told == server.told == ["connection_made"]
        server.transport.pause_reading()
        sent = 0
        while "pause_writing" not in client.told:
            client.callRemote(Notify, data=b"x" * 60_000)
            sent += 1
            assert sent < 2000
        waiting = client.callRemote(Sum, a=1, b=1)
        assert not waiting.done()
        server.transport.resume_reading()
        await client.hear("resume_writing")
        assert await waiting == {"total": 2}
        for _ in range(sent):
            await server.notified.get()
        await client.close(timeout=5)
        await server.close(timeout=5)
        writing = client.told[1:-1]
        if "eof_received" in writing:
            assert writing.pop() == "eof_received"
        assert writing == ["pause_writing", "resume_writing"] * (len(writing) // 2)
        assert client.told[-1] == "connection_lost"
        assert server.told == ["connection_made", "eof_received", "connection_lost"]


@pytest.mark.parametrize("way", PLAIN_WAYS)
@pytest.mark.parametrize("hook", ["connection_lost", "eof_received", "pause_writing", "resume_writing"])
async def test_a_hook_that_raises_is_logged(
    hook: str, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with joined(way, Patient, noting(Patient, hook, forward=False, failing=True)) as (
        server,
        client,
    ):
        server.transport.pause_reading()  # type: ignore[union-attr]
        if hook.endswith("writing"):
            waiting = [client.callRemote(Notify, data=b"x" * 60_000) for _ in range(500)]
            server.transport.resume_reading()  # type: ignore[union-attr]
            await asyncio.gather(*waiting)
            assert hook in client.told
        else:
            server.transport.resume_reading()  # type: ignore[union-attr]
        assert await client.callRemote(Sum, a=1, b=1) == {"total": 2}
        await server.close(timeout=5)
        await client.wait_closed()
    assert hook in client.told
    failures = [record for record in caplog.records if f"{hook}() failed" in record.getMessage()]
    told = client.told.count(hook)
    assert min(told, 20) <= len(failures) <= told, "the peer chooses how often, so not all are logged"
    for record in failures:
        assert record.levelno == logging.ERROR
        assert record.exc_info is not None
        assert record.exc_info[0] is ZeroDivisionError


@pytest.mark.parametrize("way", PLAIN_WAYS)
@pytest.mark.parametrize("side", ["server", "client"])
async def test_a_connection_made_that_raises_aborts(
    side: str, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    failing = noting(Math, "connection_made", forward=False, failing=True)
    server_factory, client_factory = (failing, Math) if side == "server" else (Math, failing)
    async with serving(way, server_factory) as server:
        client = await reached(way, server, client_factory)
        async with asyncio.timeout(5):
            with pytest.raises(ConnectionLost):
                await client.callRemote(Sum, a=1, b=1)
            await client.wait_closed()
            await turns()
            while server.connections:
                await server.connections[0].wait_closed()
    assert "connection_made() failed" in caplog.text
    assert "ZeroDivisionError: connection_made fails" in caplog.text


class Scrambled(Math):
    """Its bytes come with each bit turned over, and are sent like that by its peer's transport."""

    def data_received(self, data: bytes) -> None:
        super().data_received(bytes(255 - byte for byte in data))


class Scrambling(asyncio.Transport):
    """A wrapper around a transport; it turns each bit over."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner
        self.written = 0

    def write(self, data: Any) -> None:
        self.written += len(data)
        self.inner.write(bytes(255 - byte for byte in data))

    def __getattribute__(self, name: str) -> Any:
        if name in ("inner", "write", "written") or name.startswith("__"):
            return super().__getattribute__(name)
        return getattr(self.inner, name)


class Wrapping(Scrambled):
    """Goes on with a wrapper in place of its transport."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(Scrambling(transport))


@pytest.mark.parametrize("way", PLAIN_WAYS)
async def test_a_wrapper_transport_and_a_filter(way: str) -> None:
    async with joined(way, Wrapping, Wrapping) as (server, client):
        for asking in (client, server):
            assert isinstance(asking.transport, Scrambling)
            assert await asking.callRemote(Sum, a=1, b=2) == {"total": 3}
            assert await asking.callRemote(Echo, data=b"x" * 60_000) == {"data": b"x" * 60_000}
            assert asking.transport.written > 60_000
        await client.close(timeout=5)
        await server.close(timeout=5)


async def test_a_filter_that_raises_ends_the_connection() -> None:
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context))
    failing = noting(Math, "data_received", forward=True, failing=True)
    async with joined("tcp", failing) as (server, client):
        async with asyncio.timeout(5):
            with pytest.raises(ConnectionLost):
                await client.callRemote(Sum, a=1, b=1)
            await server.wait_closed()


# --- the transport ---


class Keeping(Math):
    """Keeps its transport under the usual name, and forgets it."""

    refused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.transport = transport
        try:
            self.transport = object()
        except AttributeError:
            self.refused = True

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.transport = None


class KeepingOnly(Math):
    refused = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None


@pytest.mark.parametrize("kind", [Keeping, KeepingOnly])
@pytest.mark.parametrize("way", PLAIN_WAYS)
async def test_a_subclass_that_sets_its_transport(
    way: str, kind: type[Any], caplog: pytest.LogCaptureFixture
) -> None:
    async with joined(way, kind, kind) as (server, client):
        assert await client.callRemote(Sum, a=1, b=1) == {"total": 2}
        assert client.transport.get_extra_info("sockname") is not None
        assert client.refused
        with pytest.raises(AttributeError, match="transport"):
            client.transport = asyncio.Transport()
        await client.close(timeout=5)
        await server.close(timeout=5)
        assert client.transport is None
        with pytest.raises(AttributeError, match="transport"):
            client.transport = asyncio.Transport()
    assert not caplog.records


async def test_one_object_for_two_connections(caplog: pytest.LogCaptureFixture) -> None:
    the_only = Math()
    async with serving("tcp", lambda: the_only) as server:
        first = await reached("tcp", server)
        second = await reached("tcp", server)
        try:
            async with asyncio.timeout(5):
                assert await first.callRemote(Sum, a=1, b=1) == {"total": 2}
                with pytest.raises(ConnectionLost):
                    await second.callRemote(Sum, a=1, b=1)
                await second.wait_closed()
                await turns()
                assert server.connections == [the_only]
                assert await first.callRemote(Sum, a=1, b=1) == {"total": 2}, "it goes on"
                await first.close(timeout=5)
        finally:
            first.abort()
            second.abort()
            await first.wait_closed()
    (record,) = [each for each in caplog.records if each.levelno >= logging.ERROR]
    assert "make another Math" in record.getMessage()


@pytest.mark.parametrize("made", ["with-hook", "without-hook"])
async def test_one_object_for_two_connections_one_after_the_other(made: str) -> None:
    the_only = KeepingOnly() if made == "with-hook" else Math()
    async with serving("tcp", lambda: the_only) as server:
        first = await reached("tcp", server)
        await first.close(timeout=5)
        await the_only.wait_closed()
        second = await reached("tcp", server)
        async with asyncio.timeout(5):
            with pytest.raises(ConnectionLost):
                await second.callRemote(Sum, a=1, b=1)


# --- what fails when the class is defined ---


@pytest.mark.parametrize(
    "name",
    """abort callRemote close connection_lost connection_made data_received drain limits sendBox
    transport unhandledError wait_closed""".split(),
)
def test_a_responder_with_the_name_of_a_method(name: str) -> None:
    def responder(self: Any, a: int, b: int) -> Any: ...

    with pytest.raises(TypeError, match=rf"\.{name} is a responder"):
        type("Clashing", (AMP,), {name: Sum.responder(responder)})


def test_attributes_that_cannot_be() -> None:
    with pytest.raises(TypeError, match=r"Wrong\.limits must be a Limits"):

        class Wrong(AMP):
            limits = {"window": 1}  # type: ignore[assignment]

    with pytest.raises(ValueError, match="protocol_version must be 1 or 2, not 3"):

        class Later(AMP):
            protocol_version = 3

    with pytest.raises(TypeError, match="__amp__ is reserved"):

        class Taking(AMP):
            __amp__ = 1  # type: ignore[assignment]


class WrongLimits(Math):
    def __init__(self) -> None:
        super().__init__()
        self.limits = {"window": 1}  # type: ignore[assignment]


@pytest.mark.parametrize("way", PLAIN_WAYS)
async def test_wrong_limits_of_an_instance(way: str, caplog: pytest.LogCaptureFixture) -> None:
    async with joined(way, WrongLimits) as (server, client):
        async with asyncio.timeout(5):
            with pytest.raises(ConnectionLost):
                await client.callRemote(Sum, a=1, b=1)
            await client.wait_closed()
            await server.wait_closed()
    assert "WrongLimits.limits must be a Limits(...), not {'window': 1}" in caplog.text
    assert [each for each in caplog.records if each.levelno == logging.ERROR]


async def test_limits_of_an_instance() -> None:
    class Small(Patient):
        def __init__(self, most: int) -> None:
            super().__init__()
            self.limits = Limits(max_concurrent_responders=most)

    async with joined("tcp", lambda: Small(2)) as (server, client):
        answers = [client.callRemote(Wait, name=str(number)) for number in range(3)]
        assert [await server.started.get(), await server.started.get()] == ["0", "1"]
        assert await client.callRemoteString(b"Unknown", requiresAnswer=False) is None
        server.let("0")
        assert await answers[0] == {"name": "0"}
        assert await server.started.get() == "2"
        for name in "12":
            server.let(name)
        await asyncio.gather(*answers)


# --- how a subclass is made ---


@dataclass(eq=True)
class Record(Math):
    """It is equal to all others, and cannot be hashed."""

    name: str = "x"


@pytest.mark.parametrize("way", PLAIN_WAYS)
async def test_an_unhashable_dataclass(way: str) -> None:
    with pytest.raises(TypeError, match="unhashable"):
        hash(Record())
    async with serving(way, Record) as server:
        clients = [await reached(way, server, Record) for _ in range(3)]
        for client in clients:
            assert await client.callRemote(Sum, a=1, b=1) == {"total": 2}
        assert len(server.connections) == 3
        await server.close(timeout=5)
        assert server.connections == []
        async with asyncio.timeout(5):
            for client in clients:
                await client.wait_closed()


class Arguments(Math):
    async def close(self, code: int, reason: str) -> None:  # type: ignore[override]
        raise AssertionError("nobody has these arguments")


class Endless(Math):
    async def close(self, timeout: float | None = None) -> None:
        await asyncio.Event().wait()


class Plain(Math):
    def close(self) -> None:  # type: ignore[override]
        """Do nothing."""


class PlainTransport(Math):
    def close(self) -> None:  # type: ignore[override]
        if self.transport is not None:
            self.transport.close()


class Raising(Math):
    async def close(self, timeout: float | None = None) -> None:
        raise ZeroDivisionError


class Own(Math):
    async def close(self, timeout: float | None = 5) -> None:
        await super().close(timeout)


@pytest.mark.parametrize("way", PLAIN_WAYS)
@pytest.mark.parametrize("kind", [Arguments, Endless, Plain, PlainTransport, Raising, Own])
async def test_a_server_closes_whatever_overrides_close(kind: type[AMP], way: str) -> None:
    async with serving(way, kind) as server:
        client = await reached(way, server)
        assert await client.callRemote(Sum, a=1, b=1) == {"total": 2}
        async with asyncio.timeout(5):
            await server.close(timeout=0.1)
            assert server.connections == []
            await client.wait_closed()


@pytest.mark.parametrize("kind", [Arguments, Plain, PlainTransport, Raising])
async def test_a_client_is_closed_whatever_overrides_close(kind: type[AMP]) -> None:
    """Leaving `async with` ends the connection in any case, whether or not it raises."""
    async with serving("tcp", Math) as server:
        client = kind()
        try:
            async with asyncio.timeout(5):
                address = server.sockets[0].getsockname()
                async with connect(*address, lambda: client):
                    assert await client.callRemote(Sum, a=1, b=1) == {"total": 2}
        except (TypeError, ZeroDivisionError):
            pass
        await turns()
        try:
            assert client.transport is None or client.transport.is_closing()
        finally:
            client.abort()
            await client.wait_closed()


class Seeing(Math):
    """Sees each box, and each beginning and end, on its way."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Any] = []

    def startReceivingBoxes(self, boxSender: BoxSender) -> None:
        self.seen.append("start")
        super().startReceivingBoxes(boxSender)

    def ampBoxReceived(self, box: AmpBox) -> None:
        self.seen.append(("received", dict(box)))
        super().ampBoxReceived(box)

    def sendBox(self, box: AmpBox) -> None:
        self.seen.append(("sent", dict(box)))
        super().sendBox(box)

    def stopReceivingBoxes(self, reason: BaseException) -> None:
        self.seen.append("stop")
        super().stopReceivingBoxes(reason)


@pytest.mark.parametrize("way", PLAIN_WAYS)
async def test_boxes_pass_through_what_a_subclass_overrides(way: str) -> None:
    async with joined(way, Seeing, Seeing) as (server, client):
        assert await client.callRemote(Sum, a=1, b=2) == {"total": 3}
        assert await server.callRemote(Echo, data=b"x") == {"data": b"x"}
        await client.close(timeout=5)
        await server.close(timeout=5)
        question = {b"_command": b"Sum", b"_ask": b"1", b"a": b"1", b"b": b"2"}
        answer = {b"_answer": b"1", b"total": b"3"}
        echo = {b"_command": b"Echo", b"_ask": b"1", b"data": b"x"}
        echoed = {b"_answer": b"1", b"data": b"x"}
        assert client.seen == [
            "start",
            ("sent", question),
            ("received", answer),
            ("received", echo),
            ("sent", echoed),
            "stop",
        ]
        assert server.seen == [
            "start",
            ("received", question),
            ("sent", answer),
            ("sent", echo),
            ("received", echoed),
            "stop",
        ]


class Deaf(Math):
    """Overrides all of it, and does nothing."""

    def startReceivingBoxes(self, boxSender: BoxSender) -> None: ...
    def ampBoxReceived(self, box: AmpBox) -> None: ...
    def stopReceivingBoxes(self, reason: BaseException) -> None: ...


@pytest.mark.parametrize("way", PLAIN_WAYS)
async def test_boxes_that_a_subclass_drops_make_nothing_hang(way: str) -> None:
    async with joined(way, Deaf) as (server, client):
        answer = client.callRemote(Sum, a=1, b=2)
        async with asyncio.timeout(5):
            await server.close(timeout=5)
            with pytest.raises(ConnectionLost):
                await answer
            await client.close(timeout=5)


async def test_a_class_that_does_not_call_the_constructor() -> None:
    class Silent(Math):
        def __init__(self) -> None:
            self.limits = Limits(window=1000)

    for way in PLAIN_WAYS:
        async with joined(way, Silent, Silent) as (server, client):
            for asking in (client, server):
                assert await asking.callRemote(Sum, a=1, b=2) == {"total": 3}
            await client.close(timeout=5)
            assert client.boxReceiver is client
            assert client.locator is client


class Locator(CommandLocator):
    @Sum.responder
    def sum(self, a: int, b: int) -> dict[str, int]:
        return {"total": 10 * (a + b)}


class Receiver:
    """Takes the boxes, as Twisted's interface has it."""

    def __init__(self) -> None:
        self.sender: Any = None
        self.boxes: asyncio.Queue[AmpBox] = asyncio.Queue()
        self.reason: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()

    def startReceivingBoxes(self, boxSender: BoxSender) -> None:
        self.sender = boxSender

    def ampBoxReceived(self, box: AmpBox) -> None:
        self.boxes.put_nowait(box)

    def stopReceivingBoxes(self, reason: BaseException) -> None:
        self.reason.set_result(reason)


@pytest.mark.parametrize("way", PLAIN_WAYS)
async def test_a_locator_and_a_receiver_of_its_own(way: str) -> None:
    receiver = Receiver()
    async with joined(way, lambda: AMP(locator=Locator()), lambda: AMP(boxReceiver=receiver)) as (
        server,
        client,
    ):
        assert client.boxReceiver is receiver
        assert isinstance(server.locator, Locator)
        receiver.sender.sendBox(AmpBox(_command=b"Sum", _ask=b"1", a=b"1", b=b"2"))
        assert await receiver.boxes.get() == {b"_answer": b"1", b"total": b"30"}
        await server.close(timeout=5)
        assert isinstance(await receiver.reason, ConnectionLost)


async def test_a_locator_that_is_set_after_the_constructor() -> None:
    class Choosing(AMP):
        def __init__(self) -> None:
            self.locator = Locator()

    async with joined("tcp", Choosing) as (_, client):
        assert await client.callRemote(Sum, a=1, b=2) == {"total": 30}


@dataclass(unsafe_hash=True)
class Equal(Math):
    """It is equal to all others, and has the same hash."""

    name: str = "x"


@pytest.mark.parametrize("way", PLAIN_WAYS)
async def test_connections_that_are_equal_are_all_closed(way: str) -> None:
    assert Equal() == Equal()
    assert len({Equal(), Equal()}) == 1
    async with serving(way, Equal) as server:
        clients = [await reached(way, server, Equal) for _ in range(3)]
        for client in clients:
            assert await client.callRemote(Sum, a=1, b=1) == {"total": 2}
        assert len(server.connections) == 3
        await server.close(timeout=5)
        async with asyncio.timeout(5):
            for client in clients:
                await client.wait_closed()


@pytest.mark.parametrize("side", ["server", "client"])
async def test_a_handshake_that_fails_is_told_once(side: str) -> None:
    told: list[Any] = []

    class Told(Math):
        def connection_lost(self, exc: Exception | None) -> None:
            told.append(self)

    async with joined("tcp", Told, Told) as (server, client):
        refused = PrivateCertificate.self_signed("other").certificate
        if side == "client":
            with pytest.raises(PeerVerifyError):
                await client.callRemote(StartTLS, tls_verifyAuthorities=[refused])
        else:
            asked = client.callRemoteString(b"StartTLS")
            client.transport.write(b"no handshake")  # type: ignore[union-attr]
            await asked
            with pytest.raises(ConnectionLost):
                await client.callRemote(Sum, a=1, b=1)
        async with asyncio.timeout(5):
            await server.wait_closed()
            client.abort()
            await client.wait_closed()
        await turns()
        assert sorted(told, key=id) == sorted([server, client], key=id)
