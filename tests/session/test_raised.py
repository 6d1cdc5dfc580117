"""Whatever a user's code raises or returns: the conversation goes on, or it ends; it never hangs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from support import Echo, Math, Notify, Sum, Switching, SwitchTo, connected, on_transport, switch_box
from ways import joined

from amp_asyncio import (
    AMP,
    AmpBox,
    Command,
    ConnectionLost,
    Integer,
    RemoteAmpError,
    String,
    UnknownRemoteError,
)
from amp_asyncio.testing import pair

PLAIN_WAYS = ["tcp", "unix", "tls"]


class Odd(BaseException):
    """An error that is no `Exception`."""


def cancelled() -> None:
    """Raise what the result of a cancelled future raises."""
    future = asyncio.get_running_loop().create_future()
    future.cancel()
    future.result()


def odd() -> None:
    raise Odd


def closing() -> None:
    raise GeneratorExit


def stop() -> None:
    raise StopIteration


RAISING = [cancelled, odd, closing, stop]


class Count(Command):
    arguments = [(b"number", Integer())]
    response = [(b"number", Integer())]
    errors = {LookupError: b"LOOKUP"}


COUNT = 150


def failing_at(when: int, fail: Callable[[], None], kind: str) -> type[AMP]:
    """Return a class whose responder of `Count` fails for one number."""

    def count(number: int) -> dict[str, int]:
        if number == when:
            fail()
        return {"number": number}

    class Plain(AMP):
        @Count.responder
        def count(self, number: int) -> dict[str, int]:
            return count(number)

    class Async(AMP):
        @Count.responder
        async def count(self, number: int) -> dict[str, int]:
            return count(number)

    class Waiting(AMP):
        @Count.responder
        async def count(self, number: int) -> dict[str, int]:
            await asyncio.sleep(0)
            return count(number)

    class Later(AMP):
        @Count.responder
        def count(self, number: int) -> Any:
            async def later() -> dict[str, int]:
                return count(number)

            return later()

    class Boxes(AMP):
        def amp_COUNT(self, box: AmpBox) -> AmpBox:
            return AmpBox(number=b"%d" % count(int(box[b"number"]))["number"])

    class Locating(Plain):
        asked = -1

        def locateResponder(self, name: bytes) -> Any:
            self.asked += 1
            if self.asked == when:
                fail()
            return super().locateResponder(name)

    kinds: dict[str, type[AMP]] = {
        "plain": Plain,
        "async": Async,
        "waiting": Waiting,
        "later": Later,
        "boxes": Boxes,
        "locating": Locating,
    }
    return kinds[kind]


@pytest.mark.parametrize("way", PLAIN_WAYS)
@pytest.mark.parametrize("when", [3, 100], ids=["in the first boxes of a turn", "after a pause"])
@pytest.mark.parametrize("kind", ["plain", "async", "waiting", "later", "boxes", "locating"])
@pytest.mark.parametrize("fail", RAISING)
async def test_a_responder_may_raise_anything(
    fail: Callable[[], None], kind: str, when: int, way: str
) -> None:
    async with joined(way, failing_at(when, fail, kind)) as (_, client), asyncio.timeout(5):
        answers = await asyncio.gather(
            *(client.callRemote(Count, number=number) for number in range(COUNT)),
            return_exceptions=True,
        )
        assert isinstance(answers.pop(when), UnknownRemoteError)
        assert answers == [{"number": number} for number in range(COUNT) if number != when]
        assert await client.callRemote(Count, number=COUNT) == {"number": COUNT}


class Taking:
    """A receiver of boxes that fails at one of them."""

    def __init__(self, when: int, fail: Callable[[], None]) -> None:
        self.when = when
        self.fail = fail
        self.received = 0
        self.stopped: list[Any] = []

    def startReceivingBoxes(self, sender: Any) -> None:
        pass

    def ampBoxReceived(self, box: AmpBox) -> None:
        self.received += 1
        if self.received == self.when:
            self.fail()

    def stopReceivingBoxes(self, reason: Any) -> None:
        self.stopped.append(reason)


@pytest.mark.parametrize("way", PLAIN_WAYS)
@pytest.mark.parametrize("when", [3, 100], ids=["in the first boxes of a turn", "after a pause"])
@pytest.mark.parametrize("fail", RAISING)
async def test_a_receiver_that_raises_anything_ends_the_connection(
    fail: Callable[[], None], when: int, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    taking = Taking(when, fail)
    async with joined(way, lambda: AMP(boxReceiver=taking)) as (server, client), asyncio.timeout(5):
        for number in range(COUNT):
            client.callRemote(Notify, data=b"%d" % number)
        await server.wait_closed()
        await client.wait_closed()
    assert taking.received == when
    assert len(taking.stopped) == 1
    assert "a box could not be taken" in caplog.text


@pytest.mark.parametrize("fail", RAISING)
async def test_a_filter_that_raises_anything_ends_a_connection_in_memory(
    fail: Callable[[], None],
) -> None:
    class Filter(Math):
        def data_received(self, data: bytes) -> None:
            fail()

    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    async with pair(Filter, AMP) as (server, client), asyncio.timeout(5):
        with pytest.raises(ConnectionLost):
            await client.callRemote(Sum, a=1, b=1)
        await server.wait_closed()


class Hooked(Math):
    """Fails in one of its methods."""

    def __init__(self, hook: str, fail: Callable[[], None]) -> None:
        super().__init__()
        self.failed = asyncio.Event()

        def failing(*given: Any) -> None:
            self.failed.set()
            fail()

        self.__dict__[hook] = failing


@pytest.mark.parametrize("hook", ["eof_received", "connection_lost"])
@pytest.mark.parametrize("fail", RAISING)
async def test_a_hook_may_raise_anything(
    fail: Callable[[], None], hook: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with connected(lambda: Hooked(hook, fail)) as (server, client), asyncio.timeout(5):
        assert await client.callRemote(Sum, a=1, b=1) == {"total": 2}
        await client.close()
        await server.wait_closed()
        assert server.failed.is_set()
    assert f"{hook}() failed" in caplog.text


@pytest.mark.parametrize("way", PLAIN_WAYS)
@pytest.mark.parametrize("fail", RAISING)
async def test_connection_made_may_raise_anything(
    fail: Callable[[], None], way: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Made(Math):
        def connection_made(self, transport: Any) -> None:
            fail()

    async with joined(way, Made) as (server, client), asyncio.timeout(5):
        await client.wait_closed()
        await server.wait_closed()
    assert "connection_made() failed" in caplog.text


@pytest.mark.parametrize("name", ["startReceivingBoxes", "stopReceivingBoxes"])
@pytest.mark.parametrize("fail", RAISING)
async def test_a_receiver_may_raise_anything_at_the_beginning_and_the_end(
    fail: Callable[[], None], name: str, caplog: pytest.LogCaptureFixture
) -> None:
    taking = Taking(0, fail)
    setattr(taking, name, lambda *given: fail())
    async with (
        joined("tcp", lambda: AMP(boxReceiver=taking)) as (server, client),
        asyncio.timeout(5),
    ):
        client.abort()
        await server.wait_closed()
    assert "startReceivingBoxes" in name or "stopReceivingBoxes() failed" in caplog.text


async def test_an_override_that_does_not_pass_on_the_end() -> None:
    class Ending(Math):
        def stopReceivingBoxes(self, reason: Any) -> None:
            raise LookupError

    class Silent(AMP):
        @Sum.responder
        async def sum(self, a: int, b: int) -> Any:
            self.abort()

    async with connected(Silent, Ending) as (_, client), asyncio.timeout(5):
        with pytest.raises(ConnectionLost):
            await client.callRemote(Sum, a=1, b=1)
        await client.wait_closed()


# --- refusals that cannot be made ---


class Unspeakable(LookupError):
    def __str__(self) -> str:
        raise TypeError("no text")


class Unmade(RemoteAmpError):
    def __init__(self) -> None:
        """Leave everything out."""


def described(description: Any) -> RemoteAmpError:
    return RemoteAmpError(b"OWN", description)


@pytest.mark.parametrize("kind", ["plain", "async", "waiting", "later", "boxes"])
@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (Unspeakable(), b"LOOKUP", "Unspeakable"),
        (Unmade(), b"UNKNOWN", "Unknown Error (reference "),
        (described(None), b"OWN", "None"),
        (described(7), b"OWN", "7"),
        (described(Unspeakable()), b"OWN", "Unspeakable"),
        (described(b"\xff"), b"OWN", "\ufffd"),
        (ExceptionGroup("one", [described("text")]), b"OWN", "text"),
    ],
    ids=["no text", "not made", "None", "a number", "text fails", "not UTF-8", "in a group"],
)
async def test_an_error_whose_text_cannot_be_made(
    error: Exception, code: bytes, text: str, kind: str
) -> None:
    def fail() -> None:
        raise error

    async with connected(failing_at(1, fail, kind)) as (_, client), asyncio.timeout(5):
        await client.callRemoteString(b"Count", requiresAnswer=False, number=b"1")
        with pytest.raises(RemoteAmpError) as caught:
            await client.callRemoteString(b"Count", number=b"1")
        if kind == "boxes" and code == b"LOOKUP":
            code, text = b"UNKNOWN", "Unknown Error (reference "  # It declares no errors.
        assert caught.value.errorCode == code
        assert str(caught.value.description).startswith(text)
        answer = await client.callRemote(Count, number=2)
        assert answer == {"number": 2}


@pytest.mark.parametrize("kind", ["plain", "async", "waiting", "later"])
@pytest.mark.parametrize("depth", [1, 3])
async def test_a_declared_error_alone_in_a_group(depth: int, kind: str) -> None:
    """So a `TaskGroup` raises it."""

    def fail() -> None:
        error: Exception = KeyError("lost")
        for _ in range(depth):
            error = ExceptionGroup("one", [error])
        raise error

    async with connected(failing_at(1, fail, kind)) as (_, client):
        with pytest.raises(LookupError, match="lost"):
            await client.callRemote(Count, number=1)


async def test_several_errors_in_a_group_are_undeclared() -> None:
    def fail() -> None:
        raise ExceptionGroup("two", [KeyError("one"), KeyError("two")])

    async with connected(failing_at(1, fail, "plain")) as (_, client):
        with pytest.raises(UnknownRemoteError):
            await client.callRemote(Count, number=1)


async def test_a_group_that_is_declared_itself() -> None:
    class Declared(Command):
        errors = {ExceptionGroup: b"GROUP", KeyError: b"KEY"}

    class Raising(AMP):
        @Declared.responder
        def declared(self) -> None:
            raise ExceptionGroup("one", [KeyError("x")])

    async with connected(Raising) as (_, client):
        with pytest.raises(RemoteAmpError) as caught:
            await client.callRemoteString(b"Declared")
        assert caught.value.errorCode == b"GROUP"


async def test_a_group_of_losses_is_quiet(caplog: pytest.LogCaptureFixture) -> None:
    """A responder that asks several things at once in a `TaskGroup` when its connection is lost."""
    both, ended = asyncio.Event(), asyncio.Event()

    class Asking(AMP):
        @Echo.responder
        async def echo(self, data: bytes) -> Any:
            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(2):
                        group.create_task(self.ask())
            finally:
                ended.set()

        async def ask(self) -> None:
            try:
                await self.callRemote(Sum, a=1, b=1)
            except ConnectionLost:
                raise
            except asyncio.CancelledError:
                raise ConnectionLost("on the way") from None

    class Silent(AMP):
        asked = 0

        @Sum.responder
        async def sum(self, a: int, b: int) -> Any:
            self.asked += 1
            if self.asked == 2:
                both.set()
            await asyncio.get_running_loop().create_future()

    async with connected(Asking, Silent) as (server, client), asyncio.timeout(5):
        answer = client.callRemote(Echo, data=b"")
        await both.wait()
        server.abort()
        with pytest.raises(ConnectionLost):
            await answer
        client.abort()
        await ended.wait()
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


class Raw(AMP):
    """Fails at the first answers that it sends."""

    failures = 1

    def sendBox(self, box: AmpBox) -> None:
        if self.failures:
            self.failures -= 1
            raise Odd
        super().sendBox(box)

    @Count.responder
    async def count(self, number: int) -> dict[str, int]:
        return {"number": number}

    @Sum.responder
    def sum(self, a: int, b: int) -> dict[str, int]:
        return {"total": a + b}


@pytest.mark.parametrize("failures", [1, 2], ids=["the answer", "the refusal as well"])
@pytest.mark.parametrize("command", [(Count, {"number": 1}), (Sum, {"a": 1, "b": 1})])
async def test_an_answer_that_an_override_does_not_send(command: Any, failures: int) -> None:
    class Sending(Raw):
        pass

    Sending.failures = failures
    asked, arguments = command
    async with connected(Sending) as (_, client), asyncio.timeout(5):
        with pytest.raises(UnknownRemoteError if failures == 1 else ConnectionLost):
            await client.callRemote(asked, **arguments)


# --- questions and their answers ---


class Fragile(String):
    """Cannot be decoded where `fail` is set."""

    fail: Callable[[], None] | None = None

    def fromString(self, inString: bytes) -> bytes:
        if self.fail is not None:
            self.fail()
        return inString


class Ask(Command):
    response = [(b"value", Fragile())]


@pytest.mark.parametrize("fail", RAISING)
async def test_an_answer_that_decodes_to_anything(
    fail: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Answering(Math):
        @Ask.responder
        def ask(self) -> dict[str, bytes]:
            return {"value": b""}

    monkeypatch.setattr(Fragile, "fail", staticmethod(fail))
    async with connected(Answering) as (_, client), asyncio.timeout(5):
        answer = client.callRemote(Ask)
        with pytest.raises(Exception, match=".*"):  # And no CancelledError, which is the caller's.
            await answer
        assert await client.callRemote(Sum, a=1, b=1) == {"total": 2}


@pytest.mark.parametrize("fail", RAISING)
async def test_an_answer_to_a_change_that_decodes_to_anything(fail: Callable[[], None]) -> None:
    class Fragile(SwitchTo):
        commandName = b"SwitchTo"

        @classmethod
        def parseResponse(cls, box: Any, proto: Any) -> Any:
            fail()

    async with connected(Switching) as (_, client), asyncio.timeout(5):
        with pytest.raises(Exception, match=".*"):
            await client.callRemote(Fragile, asyncio.Protocol, name="x")
        await client.wait_closed()


async def test_the_error_of_an_error() -> None:
    class Odder(LookupError):
        def __init__(self, text: str) -> None:
            raise Odd

    class Declared(Command):
        commandName = b"Count"
        arguments = [(b"number", Integer())]
        errors = {Odder: b"LOOKUP"}

    def fail() -> None:
        raise LookupError

    async with connected(failing_at(1, fail, "plain")) as (_, client), asyncio.timeout(5):
        with pytest.raises(RuntimeError, match="Odd"):
            await client.callRemote(Declared, number=1)
        await client.wait_closed()


@pytest.mark.parametrize("fail", RAISING)
async def test_a_question_that_waited_and_is_not_sent(fail: Callable[[], None]) -> None:
    class Sending(Math):
        fails = False

        def sendBox(self, box: AmpBox) -> None:
            if self.fails:
                self.fails = False
                fail()
            super().sendBox(box)

    amp, transport = on_transport(Sending)
    amp.pause_writing()
    answers = [amp.callRemote(Sum, a=number, b=1) for number in range(2)]
    amp.fails = True  # type: ignore[attr-defined]
    amp.resume_writing()
    with pytest.raises(RuntimeError):
        await answers[0]
    (box,) = transport.boxes()
    amp.data_received(AmpBox(_answer=box[b"_ask"], total=b"2").serialize())
    assert await answers[1] == {"total": 2}
    amp.connection_lost(None)


async def test_asking_from_a_thread_without_a_loop() -> None:
    """It raises, and nothing is sent."""
    async with connected() as (_, client):
        for kind, arguments in [(Sum, {"a": 1, "b": 1}), (Notify, {"data": b""})]:
            with pytest.raises(RuntimeError, match="no running event loop"):
                await asyncio.to_thread(client.callRemote, kind, **arguments)
        assert await client.callRemote(Sum, a=1, b=1) == {"total": 2}


@pytest.mark.parametrize("optional", [False, True], ids=["at once", "with a box"])
async def test_an_argument_that_asks_while_it_is_encoded(optional: bool) -> None:
    class Asking(String):
        def toString(self, inObject: bytes) -> bytes:
            asked.append(client.callRemote(Sum, a=1, b=1))
            return inObject

    class Outer(Command):
        commandName = b"Echo"
        arguments = [(b"data", Asking()), (b"more", Integer(optional=optional))]
        response = [(b"data", String())]

    asked: list[Any] = []
    async with connected() as (_, client):
        assert await client.callRemote(Outer, data=b"outer", more=1) == {"data": b"outer"}
        assert [await answer for answer in asked] == len(asked) * [{"total": 2}]
        assert asked


# --- switching ---


async def test_a_factory_that_makes_no_protocol() -> None:
    async def coroutine() -> asyncio.Protocol:
        return asyncio.Protocol()

    for factory, words in [(lambda: None, "returned None"), (coroutine, "async def"), (odd, "Odd")]:
        made: Any = factory
        async with connected(Switching) as (_, client), asyncio.timeout(5):
            with pytest.raises((TypeError, RuntimeError), match=words):
                await client.callRemote(SwitchTo, made, name="x")
            await client.wait_closed()


async def test_a_new_protocol_that_raises_anything(caplog: pytest.LogCaptureFixture) -> None:
    class Inner(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            raise Odd

    amp, transport = on_transport(lambda: Switching(Inner))  # type: ignore[arg-type]
    amp.data_received(switch_box())
    await transport.until(lambda: "abort" in transport.done)
    assert "failed when it was handed the connection" in caplog.text


# --- what ends the process ---


def ending_places(end: type[BaseException]) -> dict[str, Callable[[], None]]:
    """Return what calls a user's code that ends the process, and lets that pass."""

    def fail(*given: Any, **arguments: Any) -> Any:
        raise end

    count = AmpBox(_command=b"Count", _ask=b"1", number=b"1").serialize()

    def started(cls: type[AMP], **methods: Any) -> tuple[AMP, Any]:
        return on_transport(type("Ending", (cls,), methods))

    def plain() -> None:
        started(AMP, amp_COUNT=fail)[0].data_received(count)

    def hook() -> None:
        started(AMP, connection_lost=fail)[0].transport.protocol.connection_lost(None)  # type: ignore

    def made() -> None:
        started(AMP, connection_made=fail)

    def receiver() -> None:
        taking = SimpleNamespace(startReceivingBoxes=fail, ampBoxReceived=fail)
        on_transport(lambda: AMP(boxReceiver=taking))  # type: ignore

    def received() -> None:
        amp, _ = on_transport(lambda: AMP(boxReceiver=Taking(1, fail)))  # type: ignore
        amp.data_received(count)

    def stopped() -> None:
        taking = Taking(1, fail)
        taking.stopReceivingBoxes = fail  # type: ignore[method-assign]
        _, transport = on_transport(lambda: AMP(boxReceiver=taking))  # type: ignore
        transport.protocol.connection_lost(None)

    def sent() -> None:
        started(Math, sendBox=fail)[0].data_received(
            AmpBox(_command=b"Echo", _ask=b"1", data=b"1").serialize()
        )

    def decoded() -> None:
        class Ending(String):
            fromString = fail

        class Asked(Command):
            response = [(b"value", Ending())]

        amp, _ = on_transport()
        answer = amp.callRemote(Asked)
        try:
            amp.data_received(AmpBox(_answer=b"1", value=b"").serialize())
        finally:
            assert isinstance(answer.exception(), RuntimeError)

    def encoded() -> None:
        class Ending(String):
            toString = fail

        class Count(Command):
            arguments = [(b"number", Integer())]
            response = [(b"value", Ending())]

        class Answering(AMP):
            @Count.responder
            def count(self, number: int) -> Any:
                return {"value": b""}

        on_transport(Answering)[0].data_received(count)

    def waiting() -> None:
        amp, _ = started(Math, sendBox=fail)
        amp.pause_writing()
        answer = amp.callRemote(Sum, a=1, b=1)
        try:
            amp.resume_writing()
        finally:
            assert isinstance(answer.exception(), RuntimeError)

    def factory() -> None:
        amp, _ = on_transport()
        answer = amp.callRemote(SwitchTo, fail, name="x")
        try:
            amp.data_received(AmpBox(_answer=b"1").serialize())
        finally:
            assert isinstance(answer.exception(), RuntimeError)

    def inner() -> None:
        made = type("Ending", (asyncio.Protocol,), {"connection_made": fail})
        amp, _ = on_transport()
        amp.callRemote(SwitchTo, made, name="x")
        amp.data_received(AmpBox(_answer=b"1").serialize())

    return {
        "decoded": decoded,
        "encoded": encoded,
        "waiting": waiting,
        "factory": factory,
        "inner": inner,
        "plain": plain,
        "hook": hook,
        "made": made,
        "receiver": receiver,
        "received": received,
        "stopped": stopped,
        "sent": sent,
    }


@pytest.mark.parametrize("end", [SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("place", [*ending_places(SystemExit)])
async def test_what_ends_the_process_passes(place: str, end: type[BaseException]) -> None:
    with pytest.raises(end):
        ending_places(end)[place]()
