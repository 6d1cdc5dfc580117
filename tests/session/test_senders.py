"""Conversations over box senders and box receivers of somebody else's, as Twisted defines them."""

from __future__ import annotations

import asyncio
import os

import pytest
from fakes import Sender, Transport
from proc import open_descriptors
from support import Divide, Explode, Math, Notify, Patient, Sum

from amp_asyncio import (
    AMP,
    AmpBox,
    AmpError,
    BinaryBoxProtocol,
    BoxDispatcher,
    BoxSender,
    Command,
    CommandLocator,
    ConnectionLost,
    Descriptor,
    Limits,
    MalformedAmpBox,
    QuitBox,
    TooLong,
)


class Read(Command):
    arguments = [(b"file", Descriptor())]


class Locator(CommandLocator):
    @Sum.responder
    def sum(self, a: int, b: int) -> dict[str, int]:
        return {"total": a + b}

    @Explode.responder
    def explode(self) -> dict[str, int]:
        raise EOFError("the end")


class Unanswered(Explode):
    commandName = b"Explode"
    requiresAnswer = False


def command(name: str, ask: bool = True, **values: bytes) -> AmpBox:
    box = AmpBox(_command=name.encode(), **values)
    if ask:
        box[b"_ask"] = b"1"
    return box


class Finishing(Sender):
    """One that can end in order, too."""

    def finish_writing(self) -> None:
        self.errors.append(EOFError())


@pytest.mark.parametrize("ask", [True, False])
@pytest.mark.parametrize("kind", [Sender, Finishing])
def test_a_fatal_error(kind: type[Sender], ask: bool) -> None:
    sender, dispatcher = kind(), BoxDispatcher(Locator())
    dispatcher.startReceivingBoxes(sender)
    assert dispatcher.boxSender is sender
    dispatcher.ampBoxReceived(command("Explode", ask))
    assert [box[b"_error_code"] for box in sender.sent] == [b"EOF"] * ask
    (error,) = sender.errors
    assert isinstance(error, EOFError if kind is Finishing else AmpError)


def test_an_answer_that_no_box_holds() -> None:
    class Wordy(CommandLocator):
        @Sum.responder
        def sum(self, a: int, b: int) -> dict[str, int]:
            raise LookupError("x" * 100)

    sender, dispatcher = Sender(), BoxDispatcher(Wordy())
    dispatcher.startReceivingBoxes(sender)
    dispatcher.ampBoxReceived(command("Sum", a=b"1", b=b"2"))
    assert [box[b"_error_code"] for box in sender.sent] == [b"UNKNOWN"]
    assert not sender.errors


def test_a_sender_that_cannot_send_even_the_error() -> None:
    class Strict(Sender):
        def sendBox(self, box: AmpBox) -> None:
            raise error

    error = TooLong(True, True, b"")
    sender, dispatcher = Strict(), BoxDispatcher(Locator())
    dispatcher.startReceivingBoxes(sender)
    dispatcher.ampBoxReceived(command("Sum", a=b"1", b=b"2"))
    assert sender.errors == [error]


def test_before_it_has_a_sender(caplog: pytest.LogCaptureFixture) -> None:
    dispatcher = BoxDispatcher(Locator())
    assert dispatcher.boxSender is None
    dispatcher.ampBoxReceived(command("Sum", a=b"1", b=b"2"))
    assert "not connected yet" in caplog.text
    dispatcher.ampBoxReceived(command("Explode", ask=False))  # There is nothing to close.


def test_limits_that_are_none() -> None:
    class Ported(BoxDispatcher):
        pass

    dispatcher = Ported(Locator())
    dispatcher.limits = {"window": 3}  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match=r"Ported.limits must be a Limits\(...\), not {'window': 3}"):
        dispatcher.startReceivingBoxes(Sender())


async def test_told_of_the_end_by_any_exception() -> None:
    sender, dispatcher = Sender(), BoxDispatcher(Locator())
    dispatcher.startReceivingBoxes(sender)
    answer = dispatcher.callRemote(Sum, a=1, b=2)
    dispatcher.stopReceivingBoxes(ValueError("the end"))
    with pytest.raises(ConnectionLost) as caught:
        await answer
    assert repr(caught.value.__cause__) == "ValueError('the end')"


def test_boxes_that_send_themselves() -> None:
    sender = Sender()
    AmpBox(a=b"1")._sendTo(sender)
    QuitBox(b=b"2")._sendTo(sender)
    assert sender.sent == [AmpBox(a=b"1"), AmpBox(b=b"2")]
    assert len(sender.errors) == 1


def test_a_command_asked_of_something_else() -> None:
    with pytest.raises(TypeError, match="through an AMP or a BoxDispatcher, not through 7"):
        Sum(a=1, b=2)._doCommand(7)


# --- receivers ---


class Receiver:
    def __init__(self) -> None:
        self.boxes: list[AmpBox] = []
        self.reason: BaseException | None = None

    def startReceivingBoxes(self, boxSender: BoxSender) -> None:
        pass

    def ampBoxReceived(self, box: AmpBox) -> None:
        self.boxes.append(box)

    def stopReceivingBoxes(self, reason: BaseException) -> None:
        self.reason = reason


def receiving(receiver: Receiver) -> tuple[BinaryBoxProtocol, Transport]:
    proto, transport = BinaryBoxProtocol(receiver), Transport()
    transport.protocol = proto
    proto.connection_made(transport)
    return proto, transport


async def test_a_receiver_that_cannot_pause() -> None:
    proto, _ = receiving(Receiver())
    proto.pause_writing()
    proto.resume_writing()
    proto.sendBox(AmpBox(a=b"1"))
    proto.connection_lost(None)


async def test_silence_towards_a_receiver() -> None:
    receiver, transport = Receiver(), Transport()
    proto = BinaryBoxProtocol(receiver)
    proto.limits = Limits(idle_timeout=0.01)
    proto.connection_made(transport)
    await transport.until(lambda: transport.done)
    assert transport.done == ["abort"]
    proto.connection_lost(None)
    assert "no complete box has arrived" in str(receiver.reason)


async def test_a_receiver_that_raises(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(Receiver):
        def ampBoxReceived(self, box: AmpBox) -> None:
            raise ValueError("not this one")

    proto, transport = receiving(Failing())
    proto.data_received(2 * AmpBox(a=b"1").serialize())
    assert transport.done == ["abort"]
    assert caplog.text.count("a box could not be taken") == 1
    proto.connection_lost(None)


async def test_a_receiver_that_raises_once_all_is_over(caplog: pytest.LogCaptureFixture) -> None:
    class Ending(Receiver):
        def ampBoxReceived(self, box: AmpBox) -> None:
            super().ampBoxReceived(box)
            if len(self.boxes) == 65:
                proto.abort()
                raise MalformedAmpBox("too late")

    proto, _ = receiving(receiver := Ending())
    proto.data_received(66 * AmpBox(a=b"1").serialize())
    assert len(receiver.boxes) == 64
    proto.connection_lost(None)
    await proto.wait_closed()
    assert len(receiver.boxes) == 65
    assert "aborting" not in caplog.text


async def test_a_descriptor_that_comes_by_another_way() -> None:
    before = open_descriptors()
    reading, writing = os.pipe()
    proto, _ = receiving(Receiver())
    proto.descriptor_received(reading)
    os.close(writing)
    proto.connection_lost(None)
    assert open_descriptors() == before


async def test_a_descriptor_that_no_box_names() -> None:
    class Looking(AMP):
        limits = Limits(descriptor_timeout=0.01)

        def ampBoxReceived(self, box: AmpBox) -> None:
            super().ampBoxReceived(box)

        @Read.responder
        def read(self, file: int) -> dict[str, int]:
            os.close(file)
            return {}

    before = open_descriptors()
    reading, writing = os.pipe()
    amp, transport = Looking(), Transport()
    amp.connection_made(transport)
    amp.descriptor_received(reading)
    while open_descriptors() > before + 1:
        await asyncio.sleep(0)
    os.close(writing)
    amp.connection_lost(None)


# --- what responders may be, and raise ---


class Waiting:
    """An awaitable that is neither a coroutine nor a future."""

    def __await__(self):  # type: ignore[no-untyped-def]
        yield
        return {"total": 7}


async def test_a_responder_that_returns_an_awaitable() -> None:
    class Lazy(AMP):
        @Sum.responder
        def sum(self, a: int, b: int) -> Waiting:
            return Waiting()

    amp, transport = Lazy(), Transport()
    amp.connection_made(transport)
    amp.data_received(command("Sum", a=b"1", b=b"2").serialize())
    await transport.until(lambda: transport.written)
    assert transport.boxes() == [AmpBox(_answer=b"1", total=b"7")]
    amp.connection_lost(None)


async def test_responders_go_through_the_task_factory() -> None:
    made: list[str] = []

    def factory(loop: asyncio.AbstractEventLoop, coro, **options):  # type: ignore[no-untyped-def]
        made.append(coro.__name__)
        return asyncio.Task(coro, loop=loop, **options)

    loop = asyncio.get_running_loop()
    amp, transport = Math(), Transport()
    amp.connection_made(transport)
    loop.set_task_factory(factory)
    try:
        amp.data_received(command("Sum", a=b"1", b=b"2").serialize())
        await transport.until(lambda: transport.written)
    finally:
        loop.set_task_factory(None)
    assert transport.boxes() == [AmpBox(_answer=b"1", total=b"3")]
    assert len(made) == 1
    amp.connection_lost(None)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
async def test_a_plain_responder_that_ends_the_program(error: type[BaseException]) -> None:
    class Ending(AMP):
        @Sum.responder
        def sum(self, a: int, b: int) -> dict[str, int]:
            raise error

    amp, transport = Ending(), Transport()
    amp.connection_made(transport)
    with pytest.raises(error):
        amp.data_received(command("Sum", a=b"1", b=b"2").serialize())
    assert transport.done == ["abort"]
    amp.connection_lost(None)


async def test_a_fatal_error_of_a_command_that_wants_no_answer() -> None:
    class Fatal(AMP):
        @Explode.responder
        def explode(self) -> dict[str, int]:
            raise EOFError("the end")

    amp, transport = Fatal(), Transport()
    amp.connection_made(transport)
    amp.data_received(command("Explode", ask=False).serialize())
    assert transport.done == ["write_eof"]
    assert not transport.written
    amp.connection_lost(None)


async def test_a_plain_responder_asks_while_its_side_closes() -> None:
    class Curious(Patient):
        @Divide.responder
        def divide(self, a: int, b: int) -> dict[str, float]:
            self.asked = self.callRemote(Sum, a=1, b=2)
            return {"quotient": 1.0}

    amp, transport = Curious(), Transport()
    amp.connection_made(transport)
    outside = amp.callRemote(Sum, a=1, b=1)
    closing = asyncio.ensure_future(amp.close())
    await asyncio.sleep(0)
    amp.data_received(command("Divide", a=b"1", b=b"2").serialize())
    asked, also, answer = transport.boxes()
    assert asked[b"_command"] == also[b"_command"] == b"Sum"
    assert b"_answer" in answer
    for number in (b"1", b"2"):
        amp.data_received(AmpBox(_answer=number, total=b"3").serialize())
    assert await outside == await amp.asked == {"total": 3}
    await transport.until(lambda: transport.done)
    amp.connection_lost(None)
    await closing


class Full(Transport):
    """Its buffer is full after each write."""

    def write(self, data: bytes) -> None:
        super().write(data)
        self.protocol.pause_writing()


class Nested(Math):
    """Sends another command before each."""

    def sendBox(self, box: AmpBox) -> None:
        if box[b"data"] != b"first":
            self.first = self.callRemote(Notify, data=b"first")
        super().sendBox(box)


async def test_commands_without_an_answer_that_send_one_another() -> None:
    amp, transport = Nested(), Full()
    transport.protocol = amp
    amp.connection_made(transport)
    sent = amp.callRemote(Notify, data=b"second")
    await asyncio.sleep(0)
    assert [box[b"data"] for box in transport.boxes()] == [b"first", b"second"]
    amp.first.cancel()
    assert not sent.done()
    amp.connection_lost(None)
    assert await sent is None


@pytest.mark.parametrize("end", ["resume_writing", "connection_lost"])
async def test_commands_without_an_answer_that_fill_the_transport(end: str) -> None:
    amp, transport = Math(), Full()
    transport.protocol = amp
    amp.connection_made(transport)
    sent = amp.callRemote(Notify, data=b"x")
    assert len(transport.written) == 1
    assert not sent.done()
    if end == "resume_writing":
        sent.cancel()
        amp.resume_writing()
        sent = amp.callRemote(Notify, data=b"y")
    amp.connection_lost(None)
    assert await sent is None
