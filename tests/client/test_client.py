"""A client: it connects, keeps connected, and spreads its questions."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from proc import open_descriptors
from support import (
    Divide,
    Echo,
    Math,
    Notify,
    Patient,
    Sum,
    SwitchTo,
    Wait,
    at_any_pace,
    turns,
)

from amp_asyncio import (
    AMP,
    AmpBox,
    Backoff,
    Budget,
    Client,
    ClientState,
    Command,
    ConnectionLost,
    Descriptor,
    GiveUp,
    InvalidSignature,
    Limits,
    PrivateCertificate,
    Server,
    StartTLS,
    StreamCommand,
    TooLong,
    parseString,
    serve,
    unix_serve,
)

#: No test waits longer than this for an attempt.
FAST = Backoff(first=0.001, most=0.01)


def client_of(target: Any, *arguments: Any, **options: Any) -> Client[Any]:
    return Client(target, *arguments, **{"backoff": FAST, **options})


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@asynccontextmanager
async def patients(count: int) -> AsyncIterator[tuple[list[Server], Callable[[], list[Patient]]]]:
    """Serve `Patient` at several ports; yield the servers, and what gives their connections."""
    servers = [await serve(Patient, "127.0.0.1", 0) for _ in range(count)]
    try:
        yield servers, lambda: [amp for server in servers for amp in server.connections]  # type: ignore[misc]
    finally:
        for server in servers:
            await server.close(timeout=0.1)


def address_of(server: Server) -> tuple[str, int]:
    host, port = server.sockets[0].getsockname()
    return host, port


# --- asking ---


async def test_it_asks_over_its_connections_in_turn() -> None:
    async with serve(Math, "127.0.0.1", 0) as server, client_of(server, connections=3) as client:
        assert await client.callRemote(Sum, a=13, b=81) == {"total": 94}
        await until(lambda: len(client.connections) == 3)
        futures = [client.callRemote(Echo, data=b"%d" % number) for number in range(30)]
        answers = await asyncio.gather(*futures)
        assert [answer["data"] for answer in answers] == [b"%d" % number for number in range(30)]
        assert client.state is ClientState.CONNECTED
        with pytest.raises(ZeroDivisionError):
            await client.callRemote(Divide, a=1, b=0)
    assert client.state is ClientState.CLOSED
    assert client.connections == []


async def test_the_connection_with_the_fewest_open_questions_is_asked() -> None:
    async with patients(2) as (servers, amps):
        async with client_of([address_of(server) for server in servers], connections=2) as client:
            await until(lambda: len(client.connections) == 2)
            waiting = [client.callRemote(Wait, name=str(number)) for number in range(4)]
            await until(lambda: sum(amp.started.qsize() for amp in amps()) == 4)
            busy, idle = amps()
            assert (busy.started.qsize(), idle.started.qsize()) == (2, 2)
            for name in [*idle.gates]:
                idle.let(name)
            await until(lambda: sum(future.done() for future in waiting) == 2)
            waiting += [client.callRemote(Wait, name=str(number)) for number in range(4, 6)]
            await until(lambda: idle.started.qsize() == 4)
            assert busy.started.qsize() == 2
            for amp in amps():
                for name in [*amp.gates]:
                    amp.let(name)
            await asyncio.gather(*waiting)


async def test_calls_wait_for_a_connection() -> None:
    port = free_port()
    async with client_of(f"127.0.0.1:{port}") as client:
        early = [client.callRemote(Wait, name=str(number)) for number in range(3)]
        told = client.callRemote(Notify, data=b"x")
        cancelled = client.callRemote(Wait, name="cancelled")
        await turns()
        cancelled.cancel()
        assert client.state is ClientState.CONNECTING
        async with serve(Patient, "127.0.0.1", port) as server:
            await until(lambda: server.connections)
            amp: Any = server.connections[0]
            assert [await amp.started.get() for _ in early] == ["0", "1", "2"]
            assert await told is None
            for name in "012":
                amp.let(name)
            assert [(await each)["name"] for each in early] == ["0", "1", "2"]
            assert amp.started.empty()


async def test_a_call_without_a_connection_fails_after_30_seconds(monkeypatch: Any) -> None:
    loop: Any = asyncio.get_running_loop()
    delays: list[float] = []
    call_later = loop.call_later

    def sooner(delay: float, *arguments: Any, **options: Any) -> Any:
        delays.append(delay)
        return call_later(min(delay, 0.01), *arguments, **options)

    monkeypatch.setattr(loop, "call_later", sooner, raising=False)
    async with client_of(("127.0.0.1", free_port())) as client:
        await turns()
        with pytest.raises(ConnectionLost, match="has no connection, and had none") as lost:
            await client.callRemote(Sum, a=1, b=2)
        assert lost.value.sent is False
        assert isinstance(lost.value.__cause__, OSError)
    assert 30 in delays


async def test_the_number_of_calls_that_wait_is_bounded() -> None:
    async with client_of(("127.0.0.1", free_port()), max_waiting=2) as client:
        calls = [client.callRemote(Sum, a=1, b=2) for _ in range(3)]
        with pytest.raises(ConnectionLost, match="2 calls wait for one") as lost:
            await calls[2]
        assert lost.value.sent is False
        calls[0].cancel()
        await turns()
        calls.append(client.callRemote(Sum, a=1, b=2))
        await turns()
        assert not calls[3].done()
    for call in calls[1], calls[3]:
        with pytest.raises(
            ConnectionLost, match=r"the client of \('127.0.0.1', \d+\) is closed"
        ) as lost:
            await call
        assert lost.value.sent is False
    with pytest.raises(ConnectionLost, match="is closed"):
        await client.callRemote(Sum, a=1, b=2)


class Small(AMP):
    limits = Limits(max_box_size=1_000)


@pytest.mark.parametrize("served", [False, True])
async def test_what_is_wrong_with_a_question_fails_at_once(served: bool) -> None:
    async with serve(Math, "127.0.0.1", 0) as server:
        where = server if served else ("127.0.0.1", free_port())
        async with client_of(where, Small) as client:
            if served:
                await until(lambda: client.connections)
            ask: Any = client.callRemote
            with pytest.raises(InvalidSignature, match="b"):
                ask(Sum, a=1)
            with pytest.raises(TypeError):
                ask(Sum, a="1", b=2)
            with pytest.raises(TooLong):
                ask(Echo, data=bytes(70_000))
            with pytest.raises(TooLong, match="max_box_size"):
                ask(Echo, data=bytes(2_000))
            with pytest.raises(TypeError, match="callRemote takes a subclass of Command"):
                ask("Sum", a=1, b=2)
            wrong: Any = Sum
            with pytest.raises(TypeError, match="call takes a question, not its class"):
                client.call(wrong)
            for changing in (StartTLS, SwitchTo):
                with pytest.raises(TypeError, match="do it in on_connect"):
                    ask(changing)


async def test_what_is_wrong_only_on_a_connection_is_said_by_the_future() -> None:
    class Strict(AMP):
        limits = Limits(max_box_size=1_000)

    port = free_port()
    async with client_of(("127.0.0.1", port), lambda: Strict()) as client:
        call = client.callRemote(Echo, data=bytes(2_000))
        good = client.callRemote(Echo, data=b"x")
        async with serve(Math, "127.0.0.1", port):
            with pytest.raises(TooLong, match="max_box_size"):
                await call
            assert await good == {"data": b"x"}


class Give(Command):
    arguments = [(b"file", Descriptor())]


class Taking(AMP):
    @Give.responder
    def give(self, file: int) -> dict[str, Any]:
        os.close(file)
        return {}


async def test_descriptors_are_not_kept(tmp_path: Path) -> None:
    path = tmp_path / "amp"
    async with client_of(path) as client:
        await turns()
        with pytest.raises(ConnectionLost, match="descriptors, which are not kept") as lost:
            await client.callRemote(Give, file=0)
        assert lost.value.sent is False
        async with unix_serve(Taking, path):
            await until(lambda: client.connections)
            assert await client.callRemote(Give, file=0) == {}


async def test_a_cancelled_call_is_cancelled_on_its_connection() -> None:
    async with patients(1) as (servers, amps), client_of(servers[0]) as client:
        call = client.callRemote(Wait, name="x")
        await until(lambda: amps() and amps()[0].started.qsize())
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await turns()
        amps()[0].let("x")
        assert await client.callRemote(Sum, a=1, b=2) == {"total": 3}


async def test_a_call_that_is_cancelled_when_its_answer_has_come() -> None:
    async with serve(Math, "127.0.0.1", 0) as server, client_of(server) as client:
        await until(lambda: client.connections)
        before = client.connections[0].callRemote(Echo, data=b"")
        call = client.callRemote(Divide, a=1, b=0)
        before.add_done_callback(lambda future: call.cancel())
        with pytest.raises(asyncio.CancelledError):
            await call


async def test_a_call_that_is_cancelled_when_there_is_a_connection() -> None:
    calls: list[Any] = []
    async with serve(Math, "127.0.0.1", 0) as server:
        async with client_of(server, on_connect=lambda amp: calls[0].cancel()) as client:
            calls.append(client.callRemote(Sum, a=1, b=2))
            assert await client.callRemote(Sum, a=13, b=81) == {"total": 94}
            assert calls[0].cancelled()


async def test_a_call_that_is_cancelled_when_the_client_closes() -> None:
    client = client_of(("127.0.0.1", free_port()))
    call = client.callRemote(Sum, a=1, b=2)
    call.cancel()
    await client.close()
    assert call.cancelled()


async def test_an_interceptor_that_is_cancelled() -> None:
    async def around(call: Any, proceed: Any) -> Any:
        raise asyncio.CancelledError

    async with serve(Math, "127.0.0.1", 0) as server:
        async with client_of(server, interceptors=[around]) as client:
            call = client.callRemote(Sum, a=1, b=2)
            await asyncio.wait([call])
            assert call.cancelled()


async def test_interceptors_surround_its_calls() -> None:
    seen: list[bytes] = []

    async def around(call: Any, proceed: Any) -> Any:
        seen.append(call.command)
        return await proceed()

    async with serve(Math, "127.0.0.1", 0) as server:
        async with client_of(server, interceptors=[around]) as client:
            assert await client.callRemote(Sum, a=13, b=81) == {"total": 94}
            assert await client.call(Sum(a=13, b=81)) == {"total": 94}
    assert seen == [b"Sum", b"Sum"]
    wrong: Any = 3
    with pytest.raises(TypeError, match="interceptors must be a list"):
        Client("/tmp/x", interceptors=wrong)


# --- addresses ---


@pytest.mark.parametrize("kind", ["path", "str", "bytes", "list", "tuple", "resolver", "server"])
async def test_unix_addresses(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "amp"

    async def resolver() -> list[str]:
        return [str(path)]

    async with unix_serve(Math, path) as server:
        kinds: dict[str, Any] = {
            "path": path,
            "str": str(path),
            "bytes": os.fsencode(path),
            "list": [path],
            "tuple": (path,),
            "resolver": resolver,
            "server": server,
        }
        async with client_of(kinds[kind]) as client:
            assert await client.callRemote(Sum, a=13, b=81) == {"total": 94}


async def test_tcp_addresses() -> None:
    async with serve(Math, "::1", 0) as server:
        sockname = server.sockets[0].getsockname()
        port = sockname[1]
        for address in (("::1", port), f"[::1]:{port}", sockname, [sockname]):
            async with client_of(address) as client:
                assert await client.callRemote(Sum, a=13, b=81) == {"total": 94}
    async with serve(Math, "127.0.0.1", 0) as server:
        # It may have an address of IPv6, too, which nothing listens on.
        async with client_of(("localhost", address_of(server)[1])) as client:
            assert await client.callRemote(Sum, a=13, b=81) == {"total": 94}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ([], "the list of addresses is empty"),
        (None, "Client\\(address\\) takes an address, a list of addresses"),
        (8000, "takes an address"),
        ("", "an address is"),
        ("host:http", "an address is .*, not 'host:http'"),
        (":80", "an address is"),
        ([("host", "80")], "an address is"),
        (("", 80), "an address is"),
    ],
)
async def test_what_is_no_address(wrong: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        Client(wrong)


async def test_other_arguments_that_are_wrong() -> None:
    wrong: Any = Client
    with pytest.raises(TypeError, match="protocol_factory must be a subclass of AMP"):
        wrong("/tmp/x", Sum)
    with pytest.raises(TypeError, match="limits must be"):
        wrong("/tmp/x", limits=3)
    with pytest.raises(ValueError, match="at least 1, not 0"):
        wrong("/tmp/x", connections=0)


# --- reconnection ---


async def test_it_connects_again_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "amp_asyncio")
    states: list[ClientState] = []
    port = free_port()
    async with client_of(("127.0.0.1", port), on_state=states.append) as client:
        for _ in range(2):
            async with serve(Math, "127.0.0.1", port):
                assert await client.callRemote(Sum, a=13, b=81) == {"total": 94}
            await until(lambda: not client.connections)
        await until(lambda: "cannot connect" in caplog.text)
    connected, connecting = ClientState.CONNECTED, ClientState.CONNECTING
    assert states == [connected, connecting, connected, connecting, ClientState.CLOSED]
    assert f"<Client of ('127.0.0.1', {port}), connected>" in caplog.text
    assert f"connected to 127.0.0.1:{port}" in caplog.text
    assert f"leaving 127.0.0.1:{port}" in caplog.text
    assert f"cannot connect to 127.0.0.1:{port}, next attempt in 0.0 s: Connection" in caplog.text
    assert "Traceback" not in caplog.text


async def test_a_lost_connection_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "amp_asyncio")
    async with serve(Math, "127.0.0.1", 0) as server, client_of(server) as client:
        await client.callRemote(Sum, a=1, b=2)
        server.connections[0].abort()
        await until(lambda: not client.connections)
        host, port = address_of(server)
        assert f"the connection to {host}:{port} was lost" in caplog.text


async def test_an_on_state_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    def fail(state: ClientState) -> None:
        raise LookupError("no such state")

    async with serve(Math, "127.0.0.1", 0) as server, client_of(server, on_state=fail) as client:
        assert await client.callRemote(Sum, a=13, b=81) == {"total": 94}
    assert "on_state() failed" in caplog.text


async def test_a_factory_that_fails_is_logged_with_its_traceback(caplog: Any) -> None:
    def fail() -> AMP:
        raise LookupError("no such class")

    async with serve(Math, "127.0.0.1", 0) as server, client_of(server, fail):
        await until(lambda: "LookupError: no such class" in caplog.text)
        assert "Traceback" in caplog.text


async def test_a_server_that_hangs_up_at_once_is_not_asked_without_pause() -> None:
    accepted = 0

    class Rude(AMP):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            nonlocal accepted
            accepted += 1
            self.abort()

    loop = asyncio.get_running_loop()
    async with serve(Rude, "127.0.0.1", 0) as server:
        backoff = Backoff(first=0.01, most=0.05)
        async with client_of(server, connections=4, backoff=backoff):
            begin = loop.time()
            await until(lambda: accepted > 7)
            # Four at first. Then one at a time, each after 10 ms at least.
            assert loop.time() - begin > 0.03


async def test_a_place_that_is_gone_is_left_to_the_others() -> None:
    async with patients(2) as (servers, _):
        async with client_of([address_of(each) for each in servers], connections=4) as client:
            await until(lambda: len(client.connections) == 4)
            assert [len(server.connections) for server in servers] == [2, 2]
            await servers[0].close(timeout=0.1)
            await until(lambda: len(servers[1].connections) == 4)
            assert await client.callRemote(Sum, a=13, b=81) == {"total": 94}


async def test_it_moves_back_at_a_refresh() -> None:
    port = free_port()
    async with patients(1) as (servers, _):
        addresses = [address_of(servers[0]), ("127.0.0.1", port)]
        async with client_of(addresses, connections=4, refresh=0.01) as client:
            await until(lambda: len(servers[0].connections) == 4)
            async with serve(Math, "127.0.0.1", port) as back:
                await until(lambda: len(back.connections) == 2)
                await until(lambda: len(servers[0].connections) == 2)
                assert len(client.connections) == 4


# --- on_connect ---


class Login(Command):
    errors = {PermissionError: b"NO"}


class Guarded(Math):
    def __init__(self) -> None:
        super().__init__()
        self.known = False

    @Login.responder
    async def login(self) -> dict[str, Any]:
        self.known = True
        return {}

    @Sum.responder
    async def sum(self, a: int, b: int) -> dict[str, int]:
        assert self.known
        return await super().sum(a, b)


async def test_a_connection_is_used_when_on_connect_has_succeeded() -> None:
    attempts = 0

    async def on_connect(amp: AMP) -> None:
        nonlocal attempts
        attempts += 1
        if attempts < 3:
            raise OSError("not now")
        await amp.callRemote(Login)

    async with serve(Guarded, "127.0.0.1", 0) as server:
        async with client_of(server, on_connect=on_connect) as client:
            assert await client.callRemote(Sum, a=13, b=81) == {"total": 94}
            assert attempts == 3
            server.connections[0].abort()
            await until(lambda: attempts == 4)
            assert await client.callRemote(Sum, a=13, b=81) == {"total": 94}


async def test_a_plain_on_connect() -> None:
    seen: list[AMP] = []
    async with (
        serve(Math, "127.0.0.1", 0) as server,
        client_of(server, on_connect=seen.append) as client,
    ):
        await client.callRemote(Sum, a=13, b=81)
        assert seen == client.connections


async def test_a_wrong_password_is_not_tried_for_ever() -> None:
    attempts = 0

    class Refused(GiveUp):
        pass

    async def on_connect(amp: AMP) -> None:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            return
        raise Refused("wrong password")

    states: list[ClientState] = []
    async with serve(Patient, "127.0.0.1", 0) as server:
        async with client_of(server, on_connect=on_connect, on_state=states.append) as client:
            amp: Any = None
            while amp is None:
                await turns()
                amp = next(iter(server.connections), None)
            open_call = client.callRemote(Wait, name="x")
            amp.abort()
            with pytest.raises(ConnectionLost):
                await open_call
            for _ in range(2):
                with pytest.raises(Refused, match="wrong password"):
                    await client.callRemote(Sum, a=1, b=2)
            assert client.state is ClientState.FAILED
            assert attempts == 2
    assert states == [
        ClientState.CONNECTED,
        ClientState.CONNECTING,
        ClientState.FAILED,
        ClientState.CLOSED,
    ]


async def test_giving_up_ends_the_other_connections_too() -> None:
    attempts = 0
    first = asyncio.Event()

    async def on_connect(amp: AMP) -> None:
        nonlocal attempts
        attempts += 1
        if attempts == 2:
            await first.wait()
            raise GiveUp("no")

    async with serve(Math, "127.0.0.1", 0) as server:
        async with client_of(server, on_connect=on_connect, connections=2) as client:
            await until(lambda: client.connections)
            first.set()
            await until(lambda: client.state is ClientState.FAILED)
            await until(lambda: not server.connections)
            with pytest.raises(GiveUp):
                await client.callRemote(Sum, a=1, b=2)


@pytest.mark.parametrize("other", ["good", "late", "failing"])
async def test_a_server_that_says_nothing_does_not_hold_up_those_who_wait(other: str) -> None:
    """Another address is tried as well; of two that succeed at once, one is used."""
    slow = asyncio.Event()
    tried: list[Any] = []

    async def on_connect(amp: AMP) -> None:
        tried.append(amp.peer.address)
        if amp.peer.address == silent:
            await slow.wait()
        elif other == "late":
            slow.set()
        elif other == "failing":
            asyncio.get_running_loop().call_later(0.01, slow.set)
            raise OSError("not now")

    async with patients(2) as (servers, _):
        known = [address_of(server) for server in servers]
        silent = known[0]
        while silent not in tried:  # It is chance to which of them it goes first.
            slow.clear()
            backoff = Backoff(first=0.01, slow=0.01)
            async with client_of(known, on_connect=on_connect, backoff=backoff) as client:
                assert await client.callRemote(Sum, a=13, b=81) == {"total": 94}
                assert len(client.connections) == 1


async def test_connecting_has_its_time(caplog: pytest.LogCaptureFixture) -> None:
    async with serve(Math, "127.0.0.1", 0) as server:
        never = asyncio.Event()

        async def on_connect(amp: AMP) -> None:
            await never.wait()

        async with client_of(server, on_connect=on_connect, connect_timeout=0.01):
            await until(lambda: "no connection within 0.01 seconds" in caplog.text)


async def test_a_connection_that_is_lost_in_on_connect_is_not_used() -> None:
    attempts = 0

    async def on_connect(amp: AMP) -> None:
        nonlocal attempts
        attempts += 1
        if attempts < 3:
            amp.abort()
            await amp.wait_closed()

    async with serve(Math, "127.0.0.1", 0) as server:
        async with client_of(server, on_connect=on_connect) as client:
            assert await client.callRemote(Sum, a=13, b=81) == {"total": 94}
            assert attempts == 3


# --- resolvers ---


async def test_the_resolver_is_asked_at_each_reconnection_and_in_between() -> None:
    asked = 0
    async with patients(3) as (servers, amps):
        known = [servers[0]]

        async def resolver() -> list[Any]:
            nonlocal asked
            asked += 1
            return [address_of(server) for server in known]

        async with client_of(resolver, connections=3, refresh=0.01) as client:
            await until(lambda: len(servers[0].connections) == 3)
            calls = [client.callRemote(Wait, name=str(number)) for number in range(6)]
            await until(lambda: sum(amp.started.qsize() for amp in amps()) == 6)
            known += servers[1:]
            await until(lambda: all(len(server.connections) == 1 for server in servers[1:]))
            # Those that moved finish what they have begun.
            assert not any(call.done() for call in calls)
            for amp in amps():
                for name in [*amp.gates]:
                    amp.let(name)
            assert len(await asyncio.gather(*calls)) == 6
            await until(lambda: len(servers[0].connections) == 1)
            del known[:2]
            await until(lambda: not servers[0].connections and not servers[1].connections)
            assert len(servers[2].connections) == 3
            assert await client.callRemote(Sum, a=13, b=81) == {"total": 94}
        async with client_of(resolver, refresh=None) as client:
            await client.callRemote(Sum, a=13, b=81)
            before = asked
            servers[2].connections[0].abort()
            await until(lambda: not client.connections)
            await client.callRemote(Sum, a=13, b=81)
            assert asked > before


async def test_a_place_that_comes_back_keeps_its_connections(caplog: Any) -> None:
    async with patients(2) as (servers, _):
        dead = ("127.0.0.1", free_port())
        known = [address_of(servers[0])]
        answers: list[Any] = []

        async def resolver() -> list[Any]:
            answers.append(known)
            return known

        async with client_of(resolver, refresh=0.01) as client:
            await until(lambda: client.connections)
            [amp] = client.connections
            known = [dead]
            await until(lambda: f"cannot connect to 127.0.0.1:{dead[1]}" in caplog.text)
            known = [address_of(servers[0])]
            answers.clear()
            await until(lambda: answers.count(known) > 3)
            assert client.connections == [amp]
            known = [address_of(servers[1])]
            await until(lambda: client.connections and client.connections != [amp])
            assert len(servers[1].connections) == 1


@pytest.mark.parametrize("fault", ["fails", "hangs", "gives nothing", "gives nonsense"])
@pytest.mark.parametrize("later", [False, True])
async def test_a_resolver_at_fault(fault: str, later: bool, caplog: pytest.LogCaptureFixture) -> None:
    works = later
    async with serve(Math, "127.0.0.1", 0) as server:

        async def resolver() -> list[Any]:
            if works:
                return [address_of(server)]
            if fault == "fails":
                raise LookupError("no such name")
            if fault == "hangs":
                await asyncio.get_running_loop().create_future()
            return [] if fault == "gives nothing" else ["nonsense:"]

        async with client_of(resolver, connect_timeout=0.1 if fault == "hangs" else 10) as client:
            if later:
                assert await client.callRemote(Sum, a=13, b=81) == {"total": 94}
                works = False
                server.connections[0].abort()
                await until(lambda: not client.connections)
                # What was known before is used on.
                assert await client.callRemote(Sum, a=13, b=81) == {"total": 94}
                assert "resolve" in caplog.text
            else:
                call = client.callRemote(Sum, a=13, b=81)
                await until(lambda: "resolve" in caplog.text)
                assert not call.done()
                works = True
                assert await call == {"total": 94}
    if fault == "fails":
        assert "the addresses cannot be resolved: LookupError: no such name" in caplog.text


async def test_a_name_stands_for_all_its_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    loop: Any = asyncio.get_running_loop()
    lookup = loop.getaddrinfo
    asked: list[str] = []

    async def getaddrinfo(host: str, port: int, **options: Any) -> list[Any]:
        asked.append(host)
        if host == "missing.example":
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        if host != "amp.example":
            found: list[Any] = await lookup(host, port, **options)
            return found
        tcp = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
        return [(*tcp, (f"127.0.0.{number}", port)) for number in (1, 2, 2, 3)]

    monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo, raising=False)
    async with serve(Math, "0.0.0.0", 0) as server:
        port = server.sockets[0].getsockname()[1]
        names = [f"amp.example:{port}", ("missing.example", port), "/no/such/socket"]
        async with client_of(names, connections=3) as client:
            await until(lambda: len(client.connections) == 3)
            hosts = {amp.transport.get_extra_info("peername")[0] for amp in client.connections}
            assert hosts == {"127.0.0.1", "127.0.0.2", "127.0.0.3"}
        async with client_of("missing.example:1") as client:
            await until(lambda: asked.count("missing.example") > 2)


async def test_tls_checks_the_name_of_the_host(caplog: pytest.LogCaptureFixture) -> None:
    certificate = PrivateCertificate.self_signed("localhost")
    trusting = ssl.create_default_context(cadata=certificate.certificate.to_pem().decode())
    context = certificate.ssl_context(server_side=True)
    async with serve(Math, "127.0.0.1", 0, ssl=context) as server:
        port = server.sockets[0].getsockname()[1]
        async with client_of(("localhost", port), ssl=trusting) as client:
            assert await client.callRemote(Sum, a=13, b=81) == {"total": 94}
        async with client_of(("127.0.0.1", port), ssl=trusting):
            await until(lambda: "certificate is not valid for '127.0.0.1'" in caplog.text)


async def test_an_address_with_a_scope(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "amp_asyncio")
    async with client_of(("fe80::1", 7, 0, 4242)):
        await until(lambda: "its addresses are [fe80::1%4242]:7" in caplog.text)


# --- the end ---


@pytest.mark.parametrize("used", ["idle", "asking", "left"])
@pytest.mark.parametrize("where", ["served", "silent", "absent", "resolving", "logging in"])
async def test_close_at_each_moment(where: str, used: str) -> None:
    never = asyncio.Event()

    async def resolver() -> list[Any]:
        await never.wait()
        return []

    async def on_connect(amp: AMP) -> None:
        if where == "logging in":
            await never.wait()

    with contextlib.ExitStack() as stack:
        silent = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        server = await serve(Math, "127.0.0.1", 0)
        before = open_descriptors()
        targets: dict[str, Any] = {
            "resolving": resolver,
            "absent": ("127.0.0.1", free_port()),
            "silent": silent.getsockname(),  # It never accepts, and the kernel does: TLS hangs.
        }
        options: dict[str, Any] = {"on_connect": on_connect, "connections": 2}
        if where == "silent":
            options["ssl"] = ssl.create_default_context()
        for moment in range(12):
            client = client_of(targets.get(where, server), **options)
            call: Any = None
            if used == "asking":
                call = client.callRemote(Sum, a=1, b=2)
            for _ in range(moment):
                await asyncio.sleep(0)
            if used == "left":
                with pytest.raises(KeyError):
                    async with client:
                        raise KeyError
            else:
                await client.close()
            assert client.state is ClientState.CLOSED
            if call is not None:
                await asyncio.wait([call])
                assert isinstance(call.exception(), ConnectionLost | None)
            await client.close()
        await until(lambda: not server.connections)
        await turns()
        assert open_descriptors() == before
        await server.close()


async def test_close_lets_open_calls_finish() -> None:
    async with patients(1) as (servers, amps), client_of(servers[0]) as client:
        call = client.callRemote(Wait, name="x")
        await until(lambda: amps() and amps()[0].started.qsize())
        closing = asyncio.ensure_future(client.close())
        await turns()
        with pytest.raises(ConnectionLost):
            await client.callRemote(Sum, a=1, b=2)
        assert not closing.done()
        amps()[0].let("x")
        assert await call == {"name": "x"}
        await closing


@pytest.mark.parametrize("how", ["timeout", "cancelled", pytest.param("left", marks=pytest.mark.slow)])
async def test_a_close_that_cannot_wait(how: str) -> None:
    async with patients(1) as (servers, amps):
        client = client_of(servers[0])
        call = client.callRemote(Wait, name="x")
        await until(lambda: amps() and amps()[0].started.qsize())
        if how == "timeout":
            await client.close(timeout=0.01)
        elif how == "left":
            with pytest.raises(KeyError):
                async with client:
                    raise KeyError
        else:
            closing = asyncio.ensure_future(client.close(timeout=None))
            await turns()
            closing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await closing
        with pytest.raises(ConnectionLost):
            await call


def test_a_client_that_was_made_without_an_event_loop() -> None:
    port = free_port()
    client = client_of(("127.0.0.1", port))

    async def main() -> None:
        async with serve(Math, "127.0.0.1", port), client:
            assert await client.callRemote(Sum, a=13, b=81) == {"total": 94}

    asyncio.run(main())


def test_a_client_that_was_never_used() -> None:
    client = client_of("/tmp/never")

    async def main() -> None:
        await client.close()

    asyncio.run(main())
    assert client.state is ClientState.CLOSED


# --- asking again ---


class WaitAgain(Wait):
    commandName = b"Wait"
    idempotent = True


async def test_what_was_sent_is_asked_again_only_if_it_is_idempotent() -> None:
    async with patients(1) as (servers, amps):
        async with client_of(servers[0], budget=Budget(share=0, per_second=0.001, most=1)) as client:
            calls = [client.callRemote(Wait, name="once")]
            calls += [client.callRemote(WaitAgain, name=name) for name in ("again", "too often")]
            await until(lambda: amps() and amps()[0].started.qsize() == 3)
            amps()[0].abort()
            for call in calls[0], calls[2]:
                with pytest.raises(ConnectionLost) as lost:
                    await call
                assert lost.value.sent
            await until(lambda: amps() and amps()[-1].started.qsize())
            amps()[-1].let("again")
            assert await calls[1] == {"name": "again"}


async def test_what_was_never_sent_is_asked_again() -> None:
    limits = Limits(window=1_000)
    async with patients(1) as (servers, amps), client_of(servers[0], limits=limits) as client:
        calls = [client.callRemote(Wait, name=f"{number}" + "x" * 700) for number in range(3)]
        await until(lambda: amps() and amps()[0].started.qsize())
        amps()[0].abort()
        with pytest.raises(ConnectionLost) as lost:
            await calls[0]
        assert lost.value.sent
        for call in calls[1:]:
            await until(lambda: amps() and amps()[-1].started.qsize())
            amp = amps()[-1]
            amp.let(await amp.started.get())
            await call


async def test_it_is_asked_again_on_another_connection_at_once() -> None:
    async with patients(2) as (servers, amps):
        async with client_of([address_of(each) for each in servers], connections=2) as client:
            await until(lambda: len(client.connections) == 2)
            call = client.callRemote(WaitAgain, name="x")
            await until(lambda: any(amp.started.qsize() for amp in amps()))
            first = next(amp for amp in amps() if amp.started.qsize())
            await servers[0 if first in servers[0].connections else 1].close(timeout=0)
            await until(lambda: any(amp.started.qsize() for amp in amps()))
            for amp in amps():
                if "x" in amp.gates:
                    amp.let("x")
            assert await call == {"name": "x"}


@at_any_pace
async def test_nothing_is_asked_again_after_its_time_or_the_end(pace: float) -> None:
    async with patients(1) as (servers, amps):
        client = client_of(servers[0])
        call = client.call(WaitAgain(name="x"), timeout=0.05 * pace)
        other = client.callRemote(WaitAgain, name="y")
        await until(lambda: amps() and amps()[0].started.qsize() == 2)
        await servers[0].close(timeout=0)
        # It waits for another connection now, which does not come.
        with pytest.raises(ConnectionLost, match="had none within the time of this call") as lost:
            await call
        assert lost.value.sent is False
        await client.close()
        with pytest.raises(ConnectionLost, match="is closed"):
            await other


@at_any_pace
async def test_a_timeout_on_a_connection(pace: float) -> None:
    async with patients(1) as (servers, amps), client_of(servers[0]) as client:
        with pytest.raises(TimeoutError):
            await client.call(Wait(name="x"), timeout=0.05 * pace)
        assert (await client.call(Sum(a=13, b=81), timeout=5)) == {"total": 94}
        amps()[0].let("x")


# --- a server that leaves ---


async def test_a_server_that_leaves_is_not_asked_any_more() -> None:
    async with patients(2) as (servers, amps):
        async with client_of([address_of(each) for each in servers]) as client:
            call = client.callRemote(Wait, name="x")
            await until(lambda: amps() and amps()[0].started.qsize())
            left, other = servers if servers[0].connections else servers[::-1]
            left.leave()
            left.leave()
            assert await client.callRemote(Sum, a=13, b=81) == {"total": 94}
            await until(lambda: other.connections)
            for _ in range(20):
                assert await client.callRemote(Sum, a=13, b=81) == {"total": 94}
            assert not call.done()
            assert len(client.connections) == len(other.connections) == 1
            amp: Any = left.connections[0]
            amp.let("x")
            assert await call == {"name": "x"}
            await until(lambda: not left.connections)


async def test_a_restart_fails_no_call() -> None:
    """One client asks without pause; the server at its only address leaves, and another one listens."""
    port = free_port()
    answered = 0

    async def ask(client: Client[Any]) -> None:
        nonlocal answered
        while True:
            assert await client.callRemote(Sum, a=13, b=81) == {"total": 94}
            answered += 1

    async with client_of(("127.0.0.1", port)) as client:
        asking = asyncio.ensure_future(ask(client))
        for _ in range(3):
            async with serve(Math, "127.0.0.1", port) as server:
                before = answered
                await until(lambda before=before: answered > before + 5 or asking.done())  # type: ignore[misc]
                server.leave()
                await until(lambda: not client.connections or asking.done())
        assert not asking.done()
        asking.cancel()
        await asyncio.wait([asking])


@asynccontextmanager
async def old_peers(port: int) -> AsyncIterator[Callable[[], Any]]:
    """Listen at a port, and say nothing; yield what accepts and returns a reader and a writer."""
    accepted: asyncio.Queue[Any] = asyncio.Queue()
    writers = []

    def keep(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        accepted.put_nowait((reader, writer))

    server = await asyncio.start_server(keep, "127.0.0.1", port)
    try:
        yield accepted.get
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()


async def next_box(reader: asyncio.StreamReader) -> AmpBox:
    (box,) = parseString(await reader.readuntil(b"\0\0"))
    return box


async def test_a_connection_that_a_closing_server_never_accepts_is_not_asked() -> None:
    """The kernel makes it for a server, which may close before it has accepted it."""
    port = free_port()
    async with client_of(("127.0.0.1", port)) as client:
        async with serve(Math, "127.0.0.1", port):
            assert await client.callRemote(Sum, a=13, b=81) == {"total": 94}
        async with old_peers(port) as accept:
            call = client.callRemote(Sum, a=13, b=81)
            reader, writer = await accept()
            assert (await next_box(reader))[b"_command"] == b"_ping"
            writer.transport.abort()
        async with serve(Math, "127.0.0.1", port):
            assert await call == {"total": 94}


async def test_an_on_connect_that_asks_needs_no_ping() -> None:
    port = free_port()

    async def on_connect(amp: AMP) -> None:
        await amp.callRemote(Sum, a=1, b=2)

    async with client_of(("127.0.0.1", port), on_connect=on_connect) as client:
        async with serve(Math, "127.0.0.1", port):
            await until(lambda: client.connections)
        async with old_peers(port) as accept:
            reader, writer = await accept()
            box = await next_box(reader)
            assert box[b"_command"] == b"Sum"
            writer.write(AmpBox(_answer=box[b"_ask"], total=b"3").serialize())
            call = client.callRemote(Echo, data=b"x")
            box = await next_box(reader)
            assert box[b"_command"] == b"Echo"
            writer.write(AmpBox(_answer=box[b"_ask"], data=b"x").serialize())
            assert await call == {"data": b"x"}


@pytest.mark.parametrize("how", ["closes", "says nothing"])
@at_any_pace
async def test_an_old_server_in_the_place_of_one_of_ours(how: str, pace: float) -> None:
    """It may not know what a ping is. One that closes may also be one that is about to end."""
    port = free_port()
    async with client_of(("127.0.0.1", port), connect_timeout=0.05 * pace) as client:
        async with serve(Math, "127.0.0.1", port):
            assert await client.callRemote(Sum, a=13, b=81) == {"total": 94}
        async with old_peers(port) as accept:
            call = client.callRemote(Sum, a=13, b=81)
            pings = 0
            while True:
                reader, writer = await accept()
                box = await next_box(reader)
                if box[b"_command"] != b"_ping":
                    break
                pings += 1
                if how == "closes":
                    writer.close()
            assert pings
            assert box[b"_command"] == b"Sum"
            writer.write(AmpBox(_answer=box[b"_ask"], total=b"94").serialize())
            assert await call == {"total": 94}


async def test_a_server_that_leaves_while_it_is_connected_to(caplog: Any) -> None:
    async with patients(1) as (servers, _):
        servers[0].leave()

        async def on_connect(amp: AMP) -> None:
            await amp.callRemote(Sum, a=1, b=2)

        async with client_of(servers[0], on_connect=on_connect) as client:
            await until(lambda: servers[0].connections)
            await turns()
            assert client.connections == []
            await until(lambda: "the connection was lost before it was used" in caplog.text)


# --- streams ---


class Count(StreamCommand[int]):
    until: int


class Counter(Math):
    @Count.responder
    async def count(self, until: int) -> AsyncIterator[int]:
        for number in range(until):
            yield number


async def test_a_stream_waits_for_a_connection_and_counts_as_a_question() -> None:
    async with serve(Counter, "127.0.0.1", 0) as server, client_of(server, connections=2) as client:
        async with client.stream(Count(until=3), timeout=30) as first:
            assert await anext(first) == 0
            await until(lambda: len(client.connections) == 2)
            # The other connection has fewer open questions.
            asked = [await client.callRemote(Sum, a=1, b=2) for _ in range(2)]
            assert asked == [{"total": 3}] * 2
            assert [number async for number in first] == [1, 2]
        async with client.stream(Count(until=2)) as second:
            assert [number async for number in second] == [0, 1]


async def test_a_stream_without_a_connection_fails_within_its_time() -> None:
    async with client_of(("127.0.0.1", 1)) as client:
        with pytest.raises(ConnectionLost, match="has no connection") as caught:
            async with client.stream(Count(until=3), timeout=0.01):
                pass
        assert not caught.value.sent
