"""Mistakes of the code that uses the package: each message says what is wrong and what to write."""

from __future__ import annotations

import asyncio
import pathlib
import re
import sys
import traceback
from collections.abc import Callable
from typing import Any

import pytest
from support import Math, Sum, SwitchTo, connected, listening, raw_pair, reach, turns

from amp_asyncio import (
    AMP,
    AmpBox,
    AmpList,
    Argument,
    BinaryBoxProtocol,
    Boolean,
    BoxParser,
    Command,
    ConnectionLost,
    Descriptor,
    Integer,
    InvalidSignature,
    ListOf,
    Path,
    PrivateCertificate,
    String,
    TooLong,
    UnhandledCommand,
    Unicode,
    connect,
    serve,
    spawn,
    stdio,
    unix_connect,
    unix_serve,
)
from amp_asyncio.testing import pair


class Ping(Command):
    pass


class Options(Command):
    arguments = [(b"the-name", Unicode(optional=True)), (b"class", Integer(optional=True))]


def text_of(error: BaseException) -> str:
    """Return what a traceback shows of an error, with its notes."""
    return "".join(traceback.format_exception_only(error)).strip()


# --- asking ---


@pytest.mark.parametrize(
    ("ask", "error", "message"),
    [
        (
            lambda amp: amp.callRemote("Sum", a=1, b=2),
            TypeError,
            "callRemote takes a subclass of Command, not 'Sum'; without a class, write "
            "callRemoteString('Sum', ...), with bytes for arguments",
        ),
        (
            lambda amp: amp.callRemote(b"Sum"),
            TypeError,
            "callRemote takes a subclass of Command, not b'Sum'; without a class, write "
            "callRemoteString(b'Sum', ...), with bytes for arguments",
        ),
        (
            lambda amp: amp.callRemote(Sum(a=1, b=2)),
            TypeError,
            "callRemote takes a subclass of Command, not Sum(a=1, b=2): write "
            "callRemote(Sum, a=1, b=2)",
        ),
        (
            lambda amp: amp.callRemote(Options(the_name="Ada")),
            TypeError,
            "callRemote takes a subclass of Command, not Options(the_name='Ada'): write "
            "callRemote(Options, the_name='Ada')",
        ),
        (
            lambda amp: amp.callRemote(Ping()),
            TypeError,
            "callRemote takes a subclass of Command, not Ping(): write callRemote(Ping)",
        ),
        (
            lambda amp: amp.callRemote(None, a=1),
            TypeError,
            "callRemote takes a subclass of Command, not None",
        ),
        (
            lambda amp: amp.callRemote(Math),
            TypeError,
            "callRemote takes a subclass of Command, not <class 'support.Math'>",
        ),
        (
            lambda amp: amp.callRemote(Sum, 1, 2),
            TypeError,
            "the command Sum takes its arguments by name: write callRemote(Sum, a=..., b=...)",
        ),
        (
            lambda amp: amp.callRemote(Ping, 1),
            TypeError,
            "the command Ping takes its arguments by name: write callRemote(Ping)",
        ),
        (
            lambda amp: amp.callRemote(SwitchTo, name="x"),
            TypeError,
            "SwitchTo needs a protocol factory, not None: write "
            "callRemote(SwitchTo, protocol_factory, name=...)",
        ),
        (
            lambda amp: amp.callRemote(SwitchTo, "Recorder", name="x"),
            TypeError,
            "SwitchTo needs a protocol factory, not 'Recorder': write "
            "callRemote(SwitchTo, protocol_factory, name=...)",
        ),
        (
            lambda amp: amp.callRemote(Sum, a="1", b=2),
            TypeError,
            "an Integer is an int, not '1'\nthe command Sum: b'a' could not be encoded",
        ),
        (
            lambda amp: amp.callRemote(Sum, a=1, b=None),
            TypeError,
            "an Integer is an int, not None\nthe command Sum: b'b' could not be encoded; only an "
            "argument with optional=True may be None",
        ),
        (
            lambda amp: amp.callRemote(Sum, a=1, bb=2),
            InvalidSignature,
            "the command Sum: missing b; unknown bb; it has a, b",
        ),
        (
            lambda amp: amp.callRemote(Options, name="Ada"),
            InvalidSignature,
            "the command Options: unknown name; it has the_name, Class",
        ),
        (
            lambda amp: amp.callRemote(Ping, a=1),
            InvalidSignature,
            "the command Ping: unknown a; it has no values",
        ),
        (
            lambda amp: Sum(a=1, b=2)._doCommand(1),
            TypeError,
            "a command is asked through an AMP or a BoxDispatcher, not through 1",
        ),
        (
            lambda amp: amp.callRemoteString(Sum),
            TypeError,
            "callRemoteString takes the name of a command, not <class 'support.Sum'>: write "
            "callRemote(...) for a command class",
        ),
        (
            lambda amp: amp.callRemoteString("Sum", a=1, b=b"2", c="3"),
            TypeError,
            "callRemoteString(b'Sum', ...) takes bytes for arguments, not {'a': 1, 'c': '3'}",
        ),
    ],
)
async def test_questions(ask: Callable[[AMP], Any], error: type[Exception], message: str) -> None:
    async with raw_pair() as (amp, peer):
        with pytest.raises(error) as caught:
            ask(amp)
        assert text_of(caught.value).partition(": ")[2] == message
        await turns()
        assert peer.data == b""
        assert amp.callRemote(Ping).cancel(), "the connection goes on"


@pytest.mark.parametrize(
    ("argument", "value", "message"),
    [
        (Integer(), 1.5, "an Integer is an int, not 1.5"),
        (String(), "x", "a String is bytes, not 'x'; declare the argument as Unicode() for that"),
        (String(), 1, "a String is bytes, not 1"),
        (Unicode(), b"x", "a Unicode is a str, not b'x'; declare the argument as String() for that"),
        (Unicode(), 1, "a Unicode is a str, not 1"),
        (Path(), 1, "a Path is a pathlib.Path or a str, not 1"),
        (ListOf(Integer()), 1, "a ListOf is a list, not 1"),
        (ListOf(Integer()), ["1"], "an Integer is an int, not '1'"),
        (AmpList([("a", Integer())]), 1, "an AmpList is a list of dictionaries, not 1"),
        (
            AmpList([("a", Integer())]),
            [1],
            "an item of the AmpList: 1 is not a mapping of names to values",
        ),
    ],
)
def test_values(argument: Argument, value: Any, message: str) -> None:
    command = type("Carry", (Command,), {"arguments": [(b"it", argument)]})
    with pytest.raises(TypeError) as caught:
        command.makeArguments({"it": value}, None)
    assert (
        text_of(caught.value) == f"TypeError: {message}\nthe command Carry: b'it' could not be encoded"
    )


async def test_an_answer_that_is_not_awaited() -> None:
    """The future is one of the event loop, with messages of its own; the guide shows what to write."""
    async with pair(Math) as (_, amp):
        answer = amp.callRemote(Sum, a=1, b=2)
        with pytest.raises(TypeError, match="Future' object is not subscriptable"):
            answer["total"]  # type: ignore[index]
        answer.cancel()
    guide = (pathlib.Path(__file__).parent.parent / "examples" / "services.md").read_text()
    assert "'_asyncio.Future' object is not subscriptable" in guide
    assert "create_task(book(hotel, room))" in guide


# --- defining ---

PAIRS = "a list of pairs is needed, such as [(b'name', Integer())]"
CODES = "a dictionary of exceptions and their codes is needed, such as {ValueError: b'VALUE_ERROR'}"


@pytest.mark.parametrize(
    ("attribute", "value", "problem"),
    [
        ("arguments", {b"a": Integer()}, f"{PAIRS}, not {{b'a': Integer()}}"),
        ("arguments", Integer(), f"{PAIRS}, not Integer()"),
        ("arguments", "a", f"{PAIRS}, not 'a'"),
        (
            "arguments",
            [Integer(optional=True)],
            f"Integer(optional=True) is not a pair of a name and an Argument: {PAIRS}",
        ),
        (
            "arguments",
            (b"ab", Integer()),
            f"b'ab' is not a pair of a name and an Argument: {PAIRS}",
        ),
        (
            "arguments",
            [(b"a", Integer)],
            "b'a' must be an Argument instance, not <class 'amp_asyncio.commands.arguments.Integer'>: "
            "write Integer()",
        ),
        ("arguments", [(b"a", int)], "b'a' must be an Argument instance, not <class 'int'>"),
        ("errors", [ValueError], f"{CODES}, not [<class 'ValueError'>]"),
        ("errors", ValueError, f"{CODES}, not <class 'ValueError'>"),
        ("fatalErrors", {ValueError, KeyError}, f"{CODES}, not {{<class"),
        ("errors", {b"KEY": KeyError}, "b'KEY' is not a subclass of Exception"),
    ],
)
def test_definitions(attribute: str, value: Any, problem: str) -> None:
    where = "the command Bad" if attribute == "arguments" else f"{attribute} of the command Bad"
    with pytest.raises(TypeError, match=f"^{re.escape(f'{where}: {problem}')}"):
        type("Bad", (Command,), {attribute: value})
    if attribute == "arguments":
        with pytest.raises(TypeError, match=f"^{re.escape(f'the answer to Bad: {problem}')}"):
            type("Bad", (Command,), {"response": value})
        with pytest.raises(TypeError, match=f"^{re.escape(f'an item of the AmpList: {problem}')}"):
            AmpList(value)


@pytest.mark.parametrize(
    ("decorate", "given"),
    [
        (lambda: Sum.responder(), ""),  # type: ignore[call-arg]
        (lambda: Sum.responder(1), ", not 1"),  # type: ignore[type-var]
        (lambda: Sum.responder(dict), ", not <class 'dict'>"),
    ],
)
def test_a_responder_is_a_method(decorate: Callable[[], Any], given: str) -> None:
    message = f"Sum.responder decorates a method{given}: write @Sum.responder above its def, without"
    with pytest.raises(TypeError, match=f"^{re.escape(message)} parentheses$"):
        decorate()


# --- connecting and serving ---


@pytest.fixture(scope="module")
def certificate() -> PrivateCertificate:
    return PrivateCertificate.self_signed("x")


CONNECT = "connect(host, port, protocol_factory): "
SERVE = "serve(protocol_factory, host, port): "
UNIX_CONNECT = "unix_connect(path, protocol_factory): "
UNIX_SERVE = "unix_serve(protocol_factory, path): "
SPAWN = "spawn(program, *args, protocol_factory=...): "
FACTORY = "protocol_factory must be a subclass of AMP, or a function that returns an instance, not "


def wrong(make: Callable[..., Any], message: str) -> Any:
    return pytest.param(make, message)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: connect(Math, "host", 1), f"{CONNECT}host must be a str, not <class 'support.Math'>"),
        (lambda: connect(1, "host"), f"{CONNECT}host must be a str, not 1"),
        (lambda: connect("host", Math), f"{CONNECT}port must be an int, not <class 'support.Math'>"),
        (lambda: connect(("host",)), "connect(address): an address is (host, port), not ('host',)"),
        (lambda: connect(("host", 1), 3), f"{CONNECT}{FACTORY}3"),
        (
            lambda: connect("host:1", Math, Math),
            "connect(address, protocol_factory) takes no port: it is in the address",
        ),
        (lambda: connect("host", 1, 2), f"{CONNECT}{FACTORY}2"),
        (lambda: connect("host", 1, limits={}), f"{CONNECT}limits must be a Limits(...), not {{}}"),
        (lambda: connect("host", 1, ssl="x"), f"{CONNECT}ssl must be an ssl.SSLContext, not 'x'"),
        (
            lambda: connect("host", 1, timeout=3),
            'connect() has no timeout: await it inside of "async with asyncio.timeout(...):"',
        ),
        (lambda: serve("host", 1, Math), f"{SERVE}{FACTORY}'host'"),
        (lambda: serve(Math, 1, "host"), f"{SERVE}host must be a str, not 1"),
        (lambda: serve(Math, "host", Math), f"{SERVE}port must be an int, not <class 'support.Math'>"),
        (lambda: serve(int, "host", 1), f"{SERVE}{FACTORY}<class 'int'>"),
        (lambda: serve(BinaryBoxProtocol, "host", 1), f"{SERVE}{FACTORY}<class '"),
        (
            lambda: serve(Math(), "host", 1),
            f"{SERVE}{FACTORY}<Math not connected>; each connection needs its own: pass the class",
        ),
        (lambda: serve(Math, "host", 1, ssl=True), f"{SERVE}ssl must be an ssl.SSLContext, not True"),
        (
            lambda: serve(Math, "host", 1, timeout=3),
            "serve() has no timeout: those of its connections are in Limits(...)",
        ),
        (lambda: unix_connect(Math, "/x"), f"{UNIX_CONNECT}path must be a path, not <class"),
        (lambda: unix_connect("/x", "/y"), f"{UNIX_CONNECT}{FACTORY}'/y'"),
        (lambda: unix_connect("/x", timeout=3), "unix_connect() has no timeout: await it inside of"),
        (lambda: unix_serve("/x", Math), f"{UNIX_SERVE}{FACTORY}'/x'"),
        (lambda: unix_serve(Math, 1), f"{UNIX_SERVE}path must be a path, not 1"),
        (lambda: unix_serve(Math, "/x", timeout=3), "unix_serve() has no timeout: those of its"),
        (
            lambda: spawn("cat", Math),
            f"{SPAWN}the program and its arguments must be str, not <class 'support.Math'>; pass a "
            "class as protocol_factory=",
        ),
        (lambda: spawn("sleep", 1), f"{SPAWN}the program and its arguments must be str, not 1"),
        (lambda: spawn("cat", protocol_factory=int), f"{SPAWN}{FACTORY}<class 'int'>"),
        (lambda: spawn("cat", limits=1), f"{SPAWN}limits must be a Limits(...), not 1"),
        (lambda: stdio("cat"), f"stdio(protocol_factory): {FACTORY}'cat'"),
        (lambda: stdio(limits=1), "stdio(protocol_factory): limits must be a Limits(...), not 1"),
    ],
)
def test_endpoints(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(TypeError) as caught:
        make()
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("make", "server_side"),
    [
        (lambda ssl: connect("host", 1, ssl=ssl), False),
        (lambda ssl: unix_connect("/x", ssl=ssl), False),
        (lambda ssl: serve(Math, "host", 1, ssl=ssl), True),
        (lambda ssl: unix_serve(Math, "/x", ssl=ssl), True),
    ],
)
def test_a_certificate_in_place_of_a_context(
    make: Callable[[Any], Any], server_side: bool, certificate: PrivateCertificate
) -> None:
    context = f"certificate.ssl_context(server_side={server_side})"
    message = f"ssl must be an ssl.SSLContext, such as {context}, not <PrivateCertificate"
    with pytest.raises(TypeError, match=re.escape(message)):
        make(certificate)


async def test_a_factory_that_makes_something_else(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(TypeError, match=r"<lambda> .* returned 1, which is not an AMP$"):
        await connect("127.0.0.1", 1, lambda: 1)  # type: ignore[arg-type, return-value]
    async with serve(lambda: 1, "127.0.0.1", 0) as server:  # type: ignore[arg-type, return-value]
        async with connect(*server.sockets[0].getsockname()) as amp:
            await amp.wait_closed()
    assert "returned 1, which is not an AMP" in caplog.text


# --- a forgotten await ---

OPENINGS = [
    (lambda: connect("127.0.0.1", 1234), "connect('127.0.0.1', 1234)", "connect", "amp"),
    (lambda: unix_connect("/x"), "unix_connect('/x')", "unix_connect", "amp"),
    (lambda: serve(Math, "::1", 0), "serve(Math, '::1', 0)", "serve", "server"),
    (lambda: serve(Math, port=0), "serve(Math, 0)", "serve", "server"),
    (lambda: unix_serve(Math, "/x"), "unix_serve(Math, '/x')", "unix_serve", "server"),
    (lambda: spawn("cat", "-u"), "spawn('cat')", "spawn", "child"),
    (lambda: stdio(), "stdio()", "stdio", "amp"),
]


def forget(opening: Any, call: str, advice: str) -> None:
    assert repr(opening) == f"<{call}, not awaited: {advice}>"
    with pytest.raises(AttributeError) as caught:
        opening.callRemote(Sum, a=1, b=2)
    assert str(caught.value) == f"{call} has no 'callRemote', it must be awaited: {advice}"
    del caught
    if sys.version_info < (3, 14):  # It takes whatever can be awaited since then.
        expected = f"a coroutine was expected, got {opening!r}"
        with pytest.raises(ValueError, match=f"^{re.escape(expected)}$"):
            asyncio.run(opening)


@pytest.mark.parametrize(("make", "call", "name", "result"), OPENINGS)
def test_what_is_not_awaited(make: Callable[[], Any], call: str, name: str, result: str) -> None:
    right = f'write "{result} = await {name}(...)" or "async with {name}(...) as {result}:"'
    advice = f"in an async def, {right}"
    with pytest.warns(RuntimeWarning) as told:
        forget(make(), call, advice)
    assert [str(warning.message) for warning in told] == [f"{call} was never awaited: {advice}"]
    assert told[0].filename == __file__


async def test_what_is_awaited() -> None:
    opening = serve(Math, "127.0.0.1", 0)
    async with opening as server:
        assert repr(opening) == "<serve(Math, '127.0.0.1', 0)>"
        connecting = connect(*server.sockets[0].getsockname())
        amp = await connecting
        assert "not awaited" not in repr(connecting)
        await amp.close()


# --- the other side ---


async def test_a_command_that_the_peer_does_not_answer() -> None:
    async with connected() as (_, client):
        with pytest.raises(UnhandledCommand) as caught:
            await client.callRemote(Ping)
        assert str(caught.value) == (
            "Unhandled Command: b'Ping' (the peer has no responder for Ping: declare one there, with "
            "@Ping.responder)"
        )
        with pytest.raises(UnhandledCommand, match=r"b'Pong' \(the peer has no responder for it\)$"):
            await client.callRemoteString("Pong")


@pytest.mark.parametrize("cut", [1, 7, 65_000, 70_000])
@pytest.mark.parametrize("size", [65_535 + 300, 100_000, 2 * 65_535])
def test_version_2_read_as_version_1(size: int, cut: int) -> None:
    stream = AmpBox(_command=b"Echo", data=b"x" * size).serialize(2)
    parser = BoxParser()
    with pytest.raises(
        TooLong, match=r"after a value of 65535 bytes: if the peer uses version 2 of AMP, this"
    ):
        for start in range(0, len(stream), cut):
            parser.feed(stream[start : start + cut])
            parser.next_box()


async def test_the_log_of_a_version_mismatch(caplog: pytest.LogCaptureFixture) -> None:
    async with listening(Math) as server:
        async with reach(server, lambda: AMP(version=2)) as amp:
            with pytest.raises(ConnectionLost):
                await amp.callRemoteString("Echo", data=b"x" * 65_535)
    assert "does the peer use version 2 of AMP, and this side version 1?" in caplog.text


# --- what things say of themselves ---


@pytest.mark.parametrize(
    ("argument", "shown"),
    [
        (Integer(), "Integer()"),
        (Boolean(optional=True), "Boolean(optional=True)"),
        (Descriptor(), "Descriptor()"),
        (ListOf(Unicode()), "ListOf(Unicode())"),
        (ListOf(Unicode(), optional=True), "ListOf(Unicode(), optional=True)"),
        (AmpList([("a", Integer())]), "AmpList([(b'a', Integer())])"),
        (AmpList([], optional=True), "AmpList([], optional=True)"),
    ],
)
def test_arguments(argument: Argument, shown: str) -> None:
    assert repr(argument) == shown


def test_a_question() -> None:
    assert repr(Sum(a=1, b=2)) == "Sum(a=1, b=2)"
    assert len(repr(Sum(a="x" * 1000, b=2))) < 100


async def test_servers_and_connections() -> None:
    async with listening(Math) as server:
        where = repr(server.sockets[0].getsockname())
        assert repr(server) == f"<Server on {where}, connections: 0>"
        amp = await reach(server)
        assert re.fullmatch(r"<AMP .* to .*[^d]>", repr(amp))
        await amp.callRemote(Sum, a=1, b=2)
        assert repr(server) == f"<Server on {where}, connections: 1>"
        closing = asyncio.ensure_future(amp.close())
        await closing
        assert re.fullmatch(r"<AMP .* to .*, closed>", repr(amp))
    assert repr(server) == "<Server closed, connections: 0>"
    assert repr(AMP()) == "<AMP not connected>"


async def test_a_connection_that_is_closing() -> None:
    async with pair(Math) as (_, amp):
        amp.finish_writing()
        assert repr(amp).endswith(", closing>")
        await amp.wait_closed()
        assert repr(amp).endswith(", closed>")


async def test_children() -> None:
    child = await spawn("cat")
    assert repr(child) == f"<Child cat, process {child.pid}, running>"
    await child.close()
    assert repr(child) == f"<Child cat, process {child.pid}, ended with 0>"
