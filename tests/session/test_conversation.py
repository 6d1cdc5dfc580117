"""What happens when: a test, or a few, for each promise of a conversation between two peers."""

from __future__ import annotations

import asyncio
import logging
import re
from contextlib import suppress
from typing import Any

import pytest
from fakes import plain
from support import (
    Divide,
    Echo,
    Explode,
    Math,
    Notify,
    Patient,
    Sum,
    Wait,
    connected,
    listening,
    on_transport,
    raw_client,
    raw_pair,
    reach,
    turns,
)

from amp_asyncio import (
    AMP,
    AmpBox,
    Command,
    ConnectionLost,
    Integer,
    InvalidSignature,
    Limits,
    MalformedAmpBox,
    QuitBox,
    RemoteAmpError,
    String,
    TooLong,
    UnhandledCommand,
    Unicode,
    UnknownRemoteError,
    connect,
    parseString,
    serve,
)

# --- asking ---


async def test_a_question_is_on_its_way_before_the_call_returns() -> None:
    async with connected(Patient) as (server, client):
        client.callRemote(Notify, data=b"never awaited")
        answer = client.callRemote(Sum, a=1, b=2)
        assert await server.notified.get() == b"never awaited"
        assert await client.callRemote(Sum, a=2, b=2) == {"total": 4}
        assert answer.done()
        assert await answer == {"total": 3}, "awaited later"


async def test_answers_come_in_any_order() -> None:
    async with connected(Patient) as (server, client):
        answers = {name: client.callRemote(Wait, name=name) for name in "abc"}
        for name in "abc":
            assert await server.started.get() == name
        for name in "cab":
            server.gate(name).set_result(None)
            assert await answers.pop(name) == {"name": name}
            assert not any(answer.done() for answer in answers.values())


async def test_a_command_that_wants_no_answer_gives_none_and_carries_no_ask() -> None:
    boxes: list[AmpBox] = []

    class Recording(Patient):
        def ampBoxReceived(self, box: AmpBox) -> None:
            boxes.append(box)
            super().ampBoxReceived(box)

    async with connected(Recording) as (server, client):
        assert await client.callRemote(Notify, data=b"x") is None
        assert await server.notified.get() == b"x"
    assert boxes == [{b"_command": b"Notify", b"data": b"x"}]
    assert await client.callRemote(Notify, data=b"x") is None, "a lost connection is no error"


async def test_a_command_that_wants_no_answer_waits_for_the_transport() -> None:
    async with connected(Patient) as (server, client):
        client.pause_writing()
        first, second = (client.callRemote(Notify, data=data) for data in (b"1", b"2"))
        third = client.callRemote(Sum, a=1, b=1)
        cancelled = client.callRemote(Notify, data=b"3")
        cancelled.cancel()
        with pytest.raises(TooLong):
            client.callRemote(Notify, data=b"x" * 65536)
        assert not first.done()
        client.resume_writing()
        assert await first is None
        assert await second is None
        assert await third == {"total": 2}
        assert [await server.notified.get() for _ in range(2)] == [b"1", b"2"]
        assert server.notified.empty()


async def test_what_waits_for_the_transport_is_told_of_the_loss() -> None:
    async with connected(Patient) as (_, client):
        client.pause_writing()
        notice = client.callRemote(Notify, data=b"1")
        question = client.callRemote(Sum, a=1, b=1)
        client.abort()
        assert await notice is None
        with pytest.raises(ConnectionLost):
            await question


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"a": 1}, InvalidSignature),
        ({"a": 1, "b": 2, "c": 3}, InvalidSignature),
        ({"a": 1, "b": "two"}, TypeError),
        ({"a": 1, "b": 1.5}, TypeError),
    ],
)
async def test_bad_arguments_raise_at_once_and_nothing_is_sent(
    arguments: dict[str, Any], error: type[Exception]
) -> None:
    received: list[AmpBox] = []

    class Recording(Math):
        def ampBoxReceived(self, box: AmpBox) -> None:
            received.extend(plain([AmpBox(box)]))
            super().ampBoxReceived(box)

    async with connected(Recording) as (_, client):
        with pytest.raises(error):
            client.callRemote(Sum, **arguments)
        with pytest.raises(TooLong):
            client.callRemote(Echo, data=b"x" * 65536)
        assert await client.callRemote(Sum, a=1, b=1) == {"total": 2}
    assert received == [{b"_command": b"Sum", b"_ask": b"1", b"a": b"1", b"b": b"1"}]


@pytest.mark.parametrize("size", [1, 70_000])
async def test_an_argument_that_asks_while_it_is_encoded(size: int) -> None:
    class Asking(Integer):
        def toString(self, value: int) -> bytes:
            inner.append(amp.callRemote(Sum, a=1, b=1))
            return b"1" * size

    class Ask(Command):
        arguments = [(b"number", Asking())]

    inner: list[asyncio.Future[Any]] = []
    async with raw_pair() as (amp, peer):
        if size == 1:
            outer = amp.callRemote(Ask, number=1)
            await turns()
            for number, box in enumerate(peer.boxes()):
                assert box[b"_command"] == (b"Sum", b"Ask")[number]
                answer = AmpBox(_answer=box[b"_ask"])
                if box[b"_command"] == b"Sum":
                    answer[b"total"] = b"2"
                peer.send(answer)
            assert await outer == {}
            assert await inner[0] == {"total": 2}
        else:
            with pytest.raises(TooLong):
                amp.callRemote(Ask, number=1)
            await turns()
    for future in inner:
        future.exception()
    tags = [box[b"_ask"] for box in peer.boxes()]
    assert len(set(tags)) == len(tags)


async def test_a_box_sender_that_asks_and_then_fails() -> None:
    class Failing(Math):
        def sendBox(self, box: AmpBox) -> None:
            if box[b"_command"] == b"Echo":
                inner.append(self.callRemote(Sum, a=1, b=1))
                raise ValueError("not this one")
            super().sendBox(box)

    inner: list[asyncio.Future[Any]] = []
    async with raw_pair(Failing) as (amp, peer):
        with pytest.raises(ValueError, match="not this one"):
            amp.callRemote(Echo, data=b"x")
        await turns()
        (asked,) = peer.boxes()
        peer.send(AmpBox(_answer=asked[b"_ask"], total=b"2"))
        assert await inner[0] == {"total": 2}


async def test_a_box_sender_that_ends_the_connection() -> None:
    class Ending(Math):
        def sendBox(self, box: AmpBox) -> None:
            transport.protocol.connection_lost(None)
            super().sendBox(box)

    amp, transport = on_transport(Ending)
    with pytest.raises(ConnectionLost):
        await amp.callRemote(Sum, a=1, b=1)
    assert not transport.written


async def test_a_cancelled_question_is_forgotten_and_its_late_answer_dropped() -> None:
    class Old(Patient):
        extensions = False

    async with connected(Old) as (server, client):
        task = asyncio.ensure_future(client.callRemote(Wait, name="a"))
        await server.started.get()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await client.callRemote(Wait, name="b")
        server.gate("a").set_result(None)
        server.gate("b").set_result(None)
        assert await client.callRemote(Sum, a=1, b=1) == {"total": 2}
        server.failure = KeyError("late")
        client.callRemote(Explode).cancel()
        assert await client.callRemote(Sum, a=1, b=1) == {"total": 2}


# --- answering ---


async def test_plain_and_async_responders_mix() -> None:
    async with connected() as (_, client):
        total, quotient = await asyncio.gather(
            client.callRemote(Sum, a=1, b=2), client.callRemote(Divide, a=1, b=2)
        )
    assert (total, quotient) == ({"total": 3}, {"quotient": 0.5})


async def test_an_override_by_name_is_called() -> None:
    class Louder(Math):
        async def sum(self, a: int, b: int) -> dict[str, int]:
            return {"total": 10 * (a + b)}

    async with connected(Louder) as (_, client):
        assert await client.callRemote(Sum, a=1, b=2) == {"total": 30}


async def test_the_server_calls_its_client_while_it_answers_it() -> None:
    class Asking(AMP):
        @Echo.responder
        async def echo(self, data: bytes) -> dict[str, bytes]:
            answer = await self.callRemote(Sum, a=len(data), b=1)
            return {"data": b"%d" % answer["total"]}

    async with connected(Asking, Math) as (_, client):
        assert await client.callRemote(Echo, data=b"four") == {"data": b"5"}


async def test_a_declared_error_is_the_same_class_on_both_sides() -> None:
    async with connected() as (_, client):
        with pytest.raises(ZeroDivisionError, match="division by zero"):
            await client.callRemote(Divide, a=1, b=0)
        assert await client.callRemote(Sum, a=1, b=1) == {"total": 2}


async def test_an_error_text_too_long_for_a_value_is_cut() -> None:
    async with connected(Patient) as (server, client):
        server.failure = KeyError("ä" * 70000)
        with pytest.raises(KeyError) as caught:
            await client.callRemote(Explode)
        assert len(caught.value.args[0].encode()) in (65534, 65535)


async def test_an_error_that_takes_more_than_a_text_is_still_its_class() -> None:
    class Difficult(Exception):
        def __init__(self, code: int, text: str) -> None:
            super().__init__(code, text)

    class Fail(Command):
        errors = {Difficult: b"DIFFICULT"}

    class Server(AMP):
        @Fail.responder
        def fail(self) -> None:
            raise Difficult(7, "seven")

    async with connected(Server) as (_, client):
        with pytest.raises(Difficult, match="seven"):
            await client.callRemote(Fail)


async def test_a_fatal_error_closes_the_connection_behind_it() -> None:
    async with connected(Patient) as (server, client):
        server.failure = EOFError("no more")
        with pytest.raises(EOFError, match="no more"):
            await client.callRemote(Explode)
        await client.wait_closed()
        await server.wait_closed()


async def test_an_unknown_error_is_logged_here_and_no_detail_goes_there(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with connected(Patient) as (server, client):
        waiting = client.callRemote(Wait, name="x")
        await server.started.get()
        server.failure = OSError("the password is swordfish")
        with pytest.raises(UnknownRemoteError) as caught:
            await client.callRemote(Explode)
        assert "swordfish" not in str(caught.value)
        server.let("x")
        assert await waiting == {"name": "x"}, "the other calls go on"
        assert await client.callRemote(Sum, a=1, b=1) == {"total": 2}
    record = next(record for record in caplog.records if record.exc_info)
    assert record.name == "amp_asyncio"
    assert "swordfish" in str(record.exc_info)
    told = next(record for record in caplog.records if record.levelno == logging.WARNING)
    references = re.findall(r"reference ([0-9a-f]{8})\b", record.getMessage() + told.getMessage())
    assert references == 2 * [references[0]], "both logs carry the same reference"
    assert references[0] in str(caught.value)


async def test_an_unknown_error_of_somebody_elses_answer_is_not_passed_on() -> None:
    async with connected(Patient) as (server, client):
        server.failure = UnknownRemoteError("a detail of the third peer")
        with pytest.raises(UnknownRemoteError) as caught:
            await client.callRemote(Explode)
        assert "detail" not in str(caught.value)


@pytest.mark.parametrize("answered", [False, True])
async def test_close_on_unknown_error_can_be_turned_on(
    answered: bool, caplog: pytest.LogCaptureFixture
) -> None:
    class Strict(Patient):
        closeOnUnknownError = True

    class Quiet(Explode):
        commandName = b"Explode"
        requiresAnswer = False

    async with connected(Strict) as (server, client):
        server.failure = OSError()
        if answered:
            with pytest.raises(UnknownRemoteError):
                await client.callRemote(Explode)
        else:
            await client.callRemote(Quiet)
        await client.wait_closed()
    assert sum(record.exc_info is not None for record in caplog.records) == 1


@pytest.mark.parametrize(
    ("failure", "closes"), [(KeyError(), False), (EOFError(), True), (OSError(), False)]
)
async def test_a_failure_that_nobody_asked_for_is_logged(
    failure: Exception, closes: bool, caplog: pytest.LogCaptureFixture
) -> None:
    class Quiet(Explode):
        commandName = b"Explode"
        requiresAnswer = False

    async with connected(Patient) as (server, client):
        server.failure = failure
        await client.callRemote(Quiet)
        if closes:
            await client.wait_closed()
        else:
            assert await client.callRemote(Sum, a=1, b=1) == {"total": 2}
    assert any("Explode" in record.getMessage() for record in caplog.records)


async def test_a_responder_may_choose_the_code_itself() -> None:
    async with connected(Patient) as (server, client):
        server.failure = RemoteAmpError(b"\xffOWN", b"as bytes", fatal=True)
        with pytest.raises(RemoteAmpError, match=r"Code<\\xffOWN>: as bytes") as caught:
            await client.callRemoteString("Explode")
        assert caught.value.errorCode == b"\xffOWN"
        await client.wait_closed()


async def test_an_error_that_cannot_be_made_from_a_text_comes_as_it_is() -> None:
    class Fail(Command):
        errors = {ExceptionGroup: b"GROUP"}

    class Server(AMP):
        @Fail.responder
        def fail(self) -> None:
            raise ExceptionGroup("several", [ValueError("one")])

    async with connected(Server) as (_, client):
        with pytest.raises(RemoteAmpError, match="Code<GROUP>: several"):
            await client.callRemote(Fail)


def test_an_error_code_is_bytes() -> None:
    with pytest.raises(TypeError, match="an error code is bytes"):
        RemoteAmpError("CODE", "text")  # type: ignore[arg-type]


async def test_a_command_without_a_responder() -> None:
    class Unheard(Command):
        pass

    class Unasked(Unheard):
        requiresAnswer = False

    async with connected() as (_, client):
        with pytest.raises(UnhandledCommand, match="Unheard"):
            await client.callRemote(Unheard)
        await client.callRemote(Unasked)
        assert await client.callRemote(Sum, a=1, b=1) == {"total": 2}


async def test_arguments_that_do_not_parse_are_an_unknown_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with connected() as (_, client):
        with pytest.raises(RemoteAmpError, match="UNKNOWN"):
            await client.callRemoteString("Sum", a=b"1_0", b=b"1")
    (record,) = caplog.records
    assert "the command Sum: b'a' is b'1_0'" in record.getMessage()
    assert record.exc_info is None, "it is no error of ours"


async def test_an_answer_that_does_not_parse_fails_that_call_alone() -> None:
    class Sums(AMP):
        def amp_SUM(self, box: AmpBox) -> AmpBox:
            return AmpBox(total=b"many")

    async with connected(Sums) as (_, client):
        with pytest.raises(MalformedAmpBox, match="Sum.*total.*many"):
            await client.callRemote(Sum, a=1, b=1)
        client.callRemote(Sum, a=1, b=1).cancel()
        assert await client.callRemoteString("Sum") == {b"_answer": b"3", b"total": b"many"}


@pytest.mark.parametrize("answer", [{"total": 1, "more": 2}, {}, None, {"total": "one"}, [1]])
@pytest.mark.parametrize("later", [False, True])
async def test_a_return_that_the_response_does_not_know(
    answer: Any, later: bool, caplog: pytest.LogCaptureFixture
) -> None:
    class Wrong(AMP):
        @Sum.responder
        def sum(self, a: int, b: int) -> Any:
            return self.later() if later else answer

        async def later(self) -> Any:
            return answer

    async with connected(Wrong) as (_, client):
        with pytest.raises(UnknownRemoteError):
            await client.callRemote(Sum, a=1, b=1)
    assert "BadLocalReturn" in caplog.text


async def test_an_answer_too_long_to_send(caplog: pytest.LogCaptureFixture) -> None:
    class Long(AMP):
        @Echo.responder
        def echo(self, data: bytes) -> dict[str, bytes]:
            return {"data": b"x" * 65536}

    async with connected(Long) as (_, client):
        with pytest.raises(UnknownRemoteError):
            await client.callRemote(Echo, data=b"")
    assert "TooLong" in caplog.text


@pytest.mark.parametrize("later", [False, True])
async def test_string_responders_answer_with_boxes(
    later: bool, caplog: pytest.LogCaptureFixture
) -> None:
    class Strings(AMP):
        closeOnUnknownError = False

        async def amp_LATER(self, box: AmpBox) -> AmpBox:
            return AmpBox(got=box[b"data"])

        def amp_NOW(self, box: AmpBox) -> AmpBox:
            return AmpBox(got=box[b"data"])

        def amp_NONE_NOW(self, box: AmpBox) -> None:
            pass

        async def amp_NONE_LATER(self, box: AmpBox) -> None:
            pass

    when = b"later" if later else b"now"
    async with connected(Strings) as (_, client):
        answer = await client.callRemoteString(when, data=b"x")
        assert answer[b"got"] == b"x"
        with pytest.raises(RemoteAmpError, match="UNKNOWN"):
            await client.callRemoteString(b"none_" + when)
        with pytest.raises(UnhandledCommand):
            await client.callRemoteString("nobody")
    assert "a responder returns an AmpBox" in caplog.text


async def test_a_cancelled_responder_still_answers(caplog: pytest.LogCaptureFixture) -> None:
    tasks: list[Any] = []

    class Kept(Patient):
        async def wait(self, name: str) -> dict[str, Any]:
            tasks.append(asyncio.current_task())
            return await super().wait(name)

    async with connected(Kept) as (server, client):
        answer = client.callRemote(Wait, name="a")
        await server.started.get()
        (task,) = tasks
        task.cancel()
        with pytest.raises(UnknownRemoteError):
            await answer
        assert task.cancelled()


async def test_a_locator_that_is_passed_in_is_the_one_asked() -> None:
    class Locator:
        def locateResponder(self, name: bytes) -> Any:
            return lambda box: AmpBox(asked=name)

    async with connected(lambda: AMP(locator=Locator())) as (_, client):
        assert (await client.callRemoteString("Anything"))[b"asked"] == b"Anything"


async def test_a_receiver_that_is_passed_in_gets_the_boxes() -> None:
    class Receiver:
        def __init__(self) -> None:
            self.events: asyncio.Queue[Any] = asyncio.Queue()

        def startReceivingBoxes(self, boxSender: Any) -> None:
            boxSender.sendBox(AmpBox(hello=b"x", _command=b"Sum", a=b"1", b=b"2"))

        def ampBoxReceived(self, box: AmpBox) -> None:
            self.events.put_nowait(box)

        def stopReceivingBoxes(self, reason: BaseException) -> None:
            self.events.put_nowait(reason)

        def pause_sending(self) -> None: ...

        def resume_sending(self) -> None: ...

    receiver = Receiver()
    async with connected(lambda: AMP(receiver)) as (_, client):
        client.callRemoteString("Any", requiresAnswer=False)
        assert await receiver.events.get() == {b"_command": b"Any"}
    assert isinstance(await receiver.events.get(), ConnectionLost)


# --- bytes that are no AMP ---

NOT_AMP = {
    "http": (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "this looks like HTTP"),
    "tls": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "this looks like a TLS ClientHello"),
    "a long key": (b"\x01\x00" + b"k" * 256, "remote key too long: 256 bytes"),
    "an empty box": (b"\0\0", "neither a command nor an answer nor an error"),
    "no reserved key": (AmpBox(a=b"1").serialize(), "neither a command nor an answer nor an error"),
    "an error without its code": (AmpBox(_error=b"1").serialize(), "an error without its code"),
    "an answer to no question": (AmpBox(_answer=b"1").serialize(), "an answer to b'1'"),
    "an error to no question": (
        AmpBox(_error=b"1", _error_code=b"X").serialize(),
        "an answer to b'1'",
    ),
}


@pytest.mark.parametrize("case", NOT_AMP)
async def test_bytes_that_are_no_amp_abort_that_connection_alone(
    case: str, caplog: pytest.LogCaptureFixture
) -> None:
    data, complaint = NOT_AMP[case]
    async with listening(Math) as server:
        async with reach(server) as good, raw_client(server) as (reader, writer):
            assert await good.callRemote(Sum, a=1, b=1) == {"total": 2}
            writer.write(data)
            with suppress(ConnectionError):
                assert await reader.read() == b""
            assert await good.callRemote(Sum, a=1, b=1) == {"total": 2}
    assert complaint in caplog.text


async def test_an_open_question_learns_what_came_instead_of_its_answer() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
        async with connect(*server.sockets[0].getsockname()) as client:
            with pytest.raises(ConnectionLost, match="HTTP") as caught:
                await client.callRemote(Sum, a=1, b=1)
            assert isinstance(caught.value.__cause__, TooLong)


async def test_a_second_answer_to_one_question_aborts(caplog: pytest.LogCaptureFixture) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(2 * AmpBox(_answer=b"1", total=b"2").serialize())
        writer.close()

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
        async with connect(*server.sockets[0].getsockname()) as client:
            assert await client.callRemote(Sum, a=1, b=1) == {"total": 2}
            await client.wait_closed()
    assert "not an open question" in caplog.text


# --- endings ---


async def test_asking_in_the_turn_of_an_abort() -> None:
    async with connected(Patient) as (_, client):
        client.abort()
        question, notice = client.callRemote(Sum, a=1, b=1), client.callRemote(Notify, data=b"x")
        with pytest.raises(ConnectionLost):
            await question
        assert await notice is None


class Quit(Command):
    commandType = QuitBox
    requiresAnswer = False


async def test_a_command_that_quits_among_those_that_wait() -> None:
    async with connected(Patient) as (_, client):
        client.pause_writing()
        earlier, quit_, later = (
            client.callRemote(Sum, a=1, b=1),
            client.callRemote(Quit),
            client.callRemote(Sum, a=2, b=2),
        )
        client.resume_writing()
        assert await quit_ is None
        for question in (earlier, later):
            with pytest.raises(ConnectionLost):
                await question


async def test_a_lost_connection_fails_the_questions() -> None:
    async with connected(Patient) as (server, client):
        answers = [client.callRemote(Wait, name=name) for name in "ab"]
        for _ in answers:
            await server.started.get()
        client.abort()
        errors = await asyncio.gather(*answers, return_exceptions=True)
        assert [type(error) for error in errors] == [ConnectionLost, ConnectionLost]
        assert errors[0] is not errors[1]
        assert isinstance(errors[0], ConnectionError)
        with pytest.raises(ConnectionLost):
            await client.callRemote(Sum, a=1, b=1)
        server.abort()  # Over TCP, it is not told that its peer has not only half-closed.


class Poll(Command):
    arguments = [(b"name", Unicode())]


class Finish(Poll):
    cancellable = False


class Report(Poll):
    requiresAnswer = False


class Polled(Math):
    """Says what becomes of its responders, which wait until the test lets them go on."""

    def __init__(self) -> None:
        self.began: asyncio.Queue[str] = asyncio.Queue()
        self.ended: asyncio.Queue[str] = asyncio.Queue()
        self.gate = asyncio.Event()

    @Poll.responder
    @Finish.responder
    @Report.responder
    async def poll(self, name: str) -> None:
        self.began.put_nowait(name)
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.ended.put_nowait(f"{name} cancelled")
            raise
        self.ended.put_nowait(f"{name} done")


class Lasting(Polled):
    cancellable = False


class Both(Lasting):
    class Stop(Poll):
        cancellable = True

    stop = Stop.responder(Polled.poll)


async def test_a_loss_cancels_those_whose_answers_are_not_wanted_any_more(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "amp_asyncio")
    async with connected(Polled) as (server, client):
        for command, name in ((Poll, "poll"), (Finish, "finish"), (Report, "report")):
            client.callRemote(command, name=name).add_done_callback(asyncio.Future.exception)
            assert await server.began.get() == name
        server.abort()
        await server.wait_closed()
        assert await server.ended.get() == "poll cancelled"
        server.gate.set()
        assert sorted([await server.ended.get(), await server.ended.get()]) == [
            "finish done",
            "report done",
        ]
    quiet = [record for record in caplog.records if "was cancelled" in record.getMessage()]
    assert [record.levelno for record in quiet] == [logging.DEBUG]
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


async def test_a_class_may_say_that_its_responders_are_not_cancelled() -> None:
    async with connected(Lasting) as (server, client):
        client.callRemote(Poll, name="poll").add_done_callback(asyncio.Future.exception)
        await server.began.get()
        server.abort()
        await server.wait_closed()
        server.gate.set()
        assert await server.ended.get() == "poll done"


async def test_a_command_may_say_otherwise_than_its_class() -> None:
    async with connected(Both) as (server, client):
        client.callRemote(Both.Stop, name="stop").add_done_callback(asyncio.Future.exception)
        await server.began.get()
        server.abort()
        assert await server.ended.get() == "stop cancelled"


async def test_a_future_that_a_responder_returns_is_not_cancelled_with_it() -> None:
    shared: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    asked = asyncio.Event()

    class Sharing(AMP):
        @Poll.responder
        def poll(self, name: str) -> Any:
            asked.set()
            return shared

    async with connected(Sharing) as (server, client):
        client.callRemote(Poll, name="x").add_done_callback(asyncio.Future.exception)
        await asked.wait()
        server.abort()
        await server.wait_closed()
        await turns()
        assert not shared.done()
        shared.set_result(None)


async def test_a_responder_that_fails_because_its_connection_is_lost_is_quiet(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tasks: list[Any] = []

    class Back(AMP):
        cancellable = False

        @Poll.responder
        async def poll(self, name: str) -> None:
            tasks.append(asyncio.current_task())
            await self.callRemote(Wait, name=name)

    async with connected(Back, Patient) as (server, client):
        client.callRemote(Poll, name="x").add_done_callback(asyncio.Future.exception)
        await client.started.get()
        server.abort()
        client.abort()
        await server.wait_closed()
        await asyncio.wait(tasks)
    assert not caplog.records


async def test_a_peer_that_half_closes_gets_its_answers() -> None:
    made: list[Patient] = []

    def factory() -> Patient:
        made.append(Patient())
        return made[-1]

    async with listening(factory) as server, raw_client(server) as (reader, writer):
        writer.write(AmpBox(_command=b"Wait", _ask=b"1", name=b"x").serialize())
        writer.write(AmpBox(_command=b"Sum", _ask=b"2", a=b"1", b=b"1").serialize())
        writer.write_eof()
        assert parseString(await reader.readexactly(24)) == [{b"_answer": b"2", b"total": b"2"}]
        with pytest.raises(ConnectionLost):
            await made[0].callRemote(Sum, a=1, b=1)
        made[0].gate("x").set_result(None)
        assert parseString(await reader.read()) == [{b"_answer": b"1", b"name": b"x"}]


async def test_a_peer_that_stops_in_mid_box_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with listening(Math) as server, raw_client(server) as (reader, writer):
        sum_box = AmpBox(_command=b"Sum", _ask=b"2", a=b"1", b=b"1").serialize()
        writer.write(sum_box + sum_box[:-1])
        writer.write_eof()
        assert parseString(await reader.read()) == [{b"_answer": b"2", b"total": b"2"}]
    assert "in the middle of a box" in caplog.text


async def test_close_waits_for_questions_and_responders_and_accepts_no_more() -> None:
    async with connected(Patient, Patient) as (server, client):
        asked = client.callRemote(Wait, name="asked")
        answering = server.callRemote(Wait, name="answering")
        await server.started.get()
        await client.started.get()
        closing = asyncio.ensure_future(client.close())
        await asyncio.sleep(0)
        with pytest.raises(ConnectionLost, match="closing"):
            await client.callRemote(Sum, a=1, b=1)
        # Whoever answers our question may need ours first.
        assert await server.callRemote(Sum, a=1, b=1) == {"total": 2}
        server.gate("asked").set_result(None)
        assert await asked == {"name": "asked"}
        client.gate("answering").set_result(None)
        assert await answering == {"name": "answering"}
        await closing
        await client.close()


async def test_close_gives_up_when_its_time_is_over() -> None:
    async with connected(Patient, Patient) as (server, client):
        asked = client.callRemote(Wait, name="asked")
        await server.started.get()
        await client.close(timeout=0)
        with pytest.raises(ConnectionLost):
            await asked


async def test_a_cancelled_close_aborts() -> None:
    async with connected(Patient) as (server, client):
        asked = client.callRemote(Wait, name="asked")
        await server.started.get()
        closing = asyncio.ensure_future(client.close())
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        with pytest.raises(ConnectionLost):
            await asked
        server.gate("asked").set_result(None)


async def test_a_responder_may_close_its_own_connection() -> None:
    tasks: list[Any] = []

    class Leave(Command):
        pass

    class Leaving(AMP):
        @Leave.responder
        async def leave(self) -> dict[str, Any]:
            tasks.append(asyncio.current_task())
            await self.close()
            return {}

    async with connected(Leaving) as (_, client):
        with pytest.raises(ConnectionLost):
            await client.callRemote(Leave)
        await asyncio.wait(tasks)


@pytest.mark.parametrize("inside", [False, True])
async def test_several_responders_may_close_their_connection(inside: bool) -> None:
    go, received = asyncio.Event(), asyncio.Event()
    tasks: list[Any] = []

    class Leave(Command):
        pass

    class Leaving(Math):
        limits = Limits(max_concurrent_responders=2)

        def ampBoxReceived(self, box: AmpBox) -> None:
            super().ampBoxReceived(box)
            if box.get(b"_command") == b"Sum":
                received.set()

        @Leave.responder
        async def leave(self) -> dict[str, Any]:
            tasks.append(asyncio.current_task())
            await go.wait()
            await (asyncio.wait_for(self.close(None), None) if inside else self.close(None))
            return {}

    async with connected(Leaving) as (_, client):
        leaving = [client.callRemote(Leave) for _ in range(2)]
        waiting = client.callRemote(Sum, a=1, b=1)
        await received.wait()
        assert not waiting.done()
        go.set()
        assert await waiting == {"total": 2}, "though there was no room for its responder"
        for question in leaving:
            with pytest.raises(ConnectionLost):
                await question
        await asyncio.wait(tasks)


async def test_an_error_that_no_future_can_raise() -> None:
    class Sly(Exception):
        def __new__(cls, text: str) -> Any:
            return StopIteration(text)

    class Odd(Divide):
        commandName = b"Divide"
        errors = {Sly: b"ZERO_DIVISION"}

        @classmethod
        def parseResponse(cls, box: Any, proto: Any) -> Any:
            raise StopIteration("odd")

    async with connected() as (_, client):
        for divisor in (0, 1):
            with pytest.raises(RuntimeError, match="StopIteration"):
                await client.callRemote(Odd, a=1, b=divisor)
        assert await client.callRemote(Sum, a=1, b=1) == {"total": 2}, "the connection goes on"


async def test_server_close_lets_each_connection_finish() -> None:
    amps: list[Patient] = []

    def factory() -> Patient:
        amps.append(Patient())
        return amps[-1]

    server = await serve(factory, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    async with connect(*address) as one, connect(*address) as two:
        answers = [client.callRemote(Wait, name="x") for client in (one, two)]
        for amp in amps:
            await amp.started.get()
        closing = asyncio.ensure_future(server.close())
        await asyncio.sleep(0)
        with pytest.raises(OSError):
            await connect(*address)
        for amp in amps:
            amp.gate("x").set_result(None)
        assert await asyncio.gather(*answers) == 2 * [{"name": "x"}]
        await closing
        assert server.connections == []


class Large(Command):
    response = [(b"data", String())]
    arguments = [(b"size", Integer())]


async def test_what_was_written_arrives_though_the_peer_still_sends() -> None:
    """Closing a socket with unread bytes in it would reset it, and lose what is on its way."""

    class Server(Math):
        @Large.responder
        def large(self, size: int) -> dict[str, Any]:
            return {"data": b"x" * size}

    async with connected(Server) as (server, client):
        answers = [client.callRemote(Large, size=65535) for _ in range(200)]
        await answers[0]
        closing = asyncio.ensure_future(server.close())
        late = [client.callRemote(Echo, data=b"y" * 60000) for _ in range(50)]
        assert all(len(answer["data"]) == 65535 for answer in await asyncio.gather(*answers))
        await closing
        for error in await asyncio.gather(*late, return_exceptions=True):
            assert isinstance(error, ConnectionLost | dict)


async def test_the_log_tells_of_connections_and_boxes(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "amp_asyncio")
    async with connected() as (_, client):
        await client.callRemote(Echo, data=b"x" * 10000)
    assert "connection established" in caplog.text
    assert "connection lost" in caplog.text
    assert "received {b'_answer': b'1'" in caplog.text
    assert max(map(len, caplog.text.splitlines())) < 400


async def test_a_responder_that_is_cancelled_before_it_has_begun() -> None:
    """The peer is told; and no coroutine is left that was never awaited, which would be a warning."""
    amp, transport = on_transport(Patient)
    others = asyncio.all_tasks()
    amp.data_received(AmpBox(_command=b"Wait", _ask=b"1", name=b"x").serialize())
    for task in asyncio.all_tasks() - others:
        task.cancel()
    await transport.until(lambda: transport.written)
    (box,) = transport.boxes()
    assert box[b"_error_code"] == b"UNKNOWN"
    amp.data_received(AmpBox(_command=b"Wait", _ask=b"2", name=b"x").serialize())
    amp.connection_lost(None)
    await turns()
