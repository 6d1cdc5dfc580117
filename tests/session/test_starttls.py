"""StartTLS: what is verified, what is in the clear, what is injected, and everything that can fail."""

from __future__ import annotations

import asyncio
import ssl
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import uvloop
from fakes import Recorder, Sender, Transport
from pki import issue
from support import (
    Divide,
    Echo,
    Math,
    Sum,
    Switching,
    SwitchTo,
    connected,
    listening,
    on_transport,
    raw_client,
    turns,
)

from amp_asyncio import (
    AMP,
    AmpBox,
    BoxDispatcher,
    Command,
    ConnectionLost,
    Integer,
    InvalidSignature,
    Limits,
    OnlyOneTLS,
    PeerVerifyError,
    PrivateCertificate,
    StartTLS,
    UnknownRemoteError,
    connect,
    parseString,
    serve,
    unix_connect,
    unix_serve,
)

SERVER = PrivateCertificate.self_signed("server.example", names=["127.0.0.1"])
CLIENT = PrivateCertificate.self_signed("client.example")
OTHER = PrivateCertificate.self_signed("other.example")


class Secure(Math):
    """Answers `StartTLS` with `terms`, or with a refusal, when `gate` lets it."""

    terms: dict[str, Any] = {}

    def __init__(self, terms: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.asked = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()
        self.responder: Any = None
        self.refusal: Exception | None = None
        if terms is not None:
            self.terms = terms

    @StartTLS.responder
    async def secure(self) -> dict[str, Any]:
        self.responder = asyncio.current_task()
        self.asked.set()
        await self.gate.wait()
        if self.refusal is not None:
            raise self.refusal
        return self.terms


class Told(Math):
    """Says when it has its first answer: who waits for that goes on before the handshake begins."""

    def __init__(self) -> None:
        super().__init__()
        self.answered = asyncio.Event()

    def ampBoxReceived(self, box: AmpBox) -> None:
        if b"_answer" in box:
            self.answered.set()
        super().ampBoxReceived(box)


class Refusable(StartTLS):
    commandName = b"StartTLS"
    errors = {PermissionError: b"NO"}


class Refusing(Secure):
    """Refuses with an error that the command declares."""

    @Refusable.responder
    async def secure(self) -> dict[str, Any]:
        return await super().secure()


# --- the handshake ---


async def test_anonymous() -> None:
    async with connected(Math, Math) as (server, client):
        assert client.peerCertificate is None
        assert await client.callRemote(StartTLS) == {}
        assert await client.callRemote(Sum, a=1, b=1) == {"total": 2}
        assert await server.callRemote(Sum, a=1, b=1) == {"total": 2}
        assert client.hostCertificate is None
        assert server.peerCertificate is None
        assert client.peerCertificate is not None, "a temporary one, which nobody vouches for"


async def test_mutual_verification() -> None:
    terms = {"tls_localCertificate": SERVER, "tls_verifyAuthorities": [CLIENT]}
    async with connected(lambda: Secure(terms), AMP) as (server, client):
        await client.callRemote(
            StartTLS,
            tls_localCertificate=CLIENT,
            tls_verifyAuthorities=[SERVER],
            tls_serverHostname="server.example",
        )
        assert await client.callRemote(Sum, a=1, b=1) == {"total": 2}
        assert client.hostCertificate == CLIENT
        assert client.peerCertificate == SERVER.certificate
        assert server.hostCertificate == SERVER
        assert server.peerCertificate == CLIENT.certificate


async def test_over_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "amp"
    async with unix_serve(Math, path), unix_connect(path) as client:
        await client.callRemote(StartTLS)
        assert await client.callRemote(Sum, a=1, b=1) == {"total": 2}


async def test_the_caller_as_the_tls_server() -> None:
    terms = {"tls_serverSide": False, "tls_verifyAuthorities": [SERVER]}
    async with connected(lambda: Secure(terms), AMP) as (server, client):
        await client.callRemote(StartTLS, tls_serverSide=True, tls_localCertificate=SERVER)
        assert await client.callRemote(Sum, a=1, b=1) == {"total": 2}
        assert server.peerCertificate == SERVER.certificate


async def test_contexts_in_place_of_certificates() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=SERVER.certificate.to_pem().decode())
    terms = {"tls_context": SERVER.ssl_context(server_side=True)}
    async with connected(lambda: Secure(terms), AMP) as (_, client):
        with pytest.raises(ValueError, match="tls_serverHostname is missing"):
            client.callRemote(StartTLS, tls_context=context)
        await client.callRemote(StartTLS, tls_context=context, tls_serverHostname="127.0.0.1")
        assert await client.callRemote(Sum, a=1, b=1) == {"total": 2}


@pytest.mark.parametrize(
    "arguments",
    [
        {"tls_serverSide": True, "tls_serverHostname": "server.example"},
        {"tls_serverHostname": "server.example"},
        {"tls_serverHostname": "", "tls_verifyAuthorities": [SERVER]},
        {"tls_serverHostname": "", "tls_context": CLIENT.ssl_context(server_side=False)},
        {"tls_verifyAuthorities": []},
        {"tls_context": ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), "tls_localCertificate": CLIENT},
    ],
)
async def test_terms_that_contradict_each_other(arguments: dict[str, Any]) -> None:
    async with connected() as (_, client):
        with pytest.raises(ValueError, match="tls_|hostname|authorities"):
            client.callRemote(StartTLS, **arguments)
        with pytest.raises(InvalidSignature):
            client.callRemote(StartTLS, tls_typo=1)
        assert await client.callRemote(Sum, a=1, b=1) == {"total": 2}


@pytest.mark.parametrize(
    "arguments",
    [
        {"tls_verifyAuthorities": [OTHER]},
        {"tls_verifyAuthorities": [SERVER], "tls_serverHostname": "elsewhere.example"},
    ],
)
async def test_a_certificate_that_we_do_not_accept(arguments: dict[str, Any]) -> None:
    async with connected(lambda: Secure({"tls_localCertificate": SERVER}), AMP) as (server, client):
        secured = client.callRemote(StartTLS, **arguments)
        later = client.callRemote(Sum, a=1, b=1)
        with pytest.raises(PeerVerifyError) as caught:
            await secured
        assert isinstance(caught.value.__cause__, ssl.SSLCertVerificationError)
        with pytest.raises(ConnectionLost) as lost:
            await later
        assert isinstance(lost.value.__cause__, PeerVerifyError)
        await client.wait_closed()
        await server.wait_closed()


async def test_an_expired_certificate() -> None:
    expired = issue("server.example", ends=timedelta(minutes=-1))
    async with connected(lambda: Secure({"tls_localCertificate": expired}), AMP) as (_, client):
        with pytest.raises(PeerVerifyError, match="expired"):
            await client.callRemote(StartTLS, tls_verifyAuthorities=[expired])


async def test_a_client_certificate_that_the_server_does_not_accept() -> None:
    terms = {"tls_localCertificate": SERVER, "tls_verifyAuthorities": [OTHER]}
    async with connected(lambda: Secure(terms), AMP) as (server, client):
        with suppress(ConnectionLost):  # With TLS 1.3 the client hears of it later.
            await client.callRemote(StartTLS, tls_localCertificate=CLIENT)
        with pytest.raises(ConnectionLost):
            await client.callRemote(Sum, a=1, b=1)
        await server.wait_closed()
        with pytest.raises(ConnectionLost) as caught:
            await server.callRemote(Sum, a=1, b=1)
        assert isinstance(caught.value.__cause__, PeerVerifyError)


async def test_only_one_tls() -> None:
    async with connected(Secure, AMP) as (_, client):
        secured = client.callRemote(StartTLS)
        with pytest.raises(OnlyOneTLS):
            client.callRemote(StartTLS)
        await secured
        with pytest.raises(OnlyOneTLS):
            client.callRemote(StartTLS)
        assert await client.callRemote(Sum, a=1, b=1) == {"total": 2}
        with pytest.raises(Exception, match="UNKNOWN"):
            await client.callRemoteString(b"StartTLS")


async def test_only_one_of_two_that_waited() -> None:
    async with connected(Secure, Math) as (_, client):
        client.pause_writing()
        first, second = client.callRemote(StartTLS), client.callRemote(StartTLS)
        later = client.callRemote(Sum, a=1, b=1)
        client.resume_writing()
        assert await first == {}
        with pytest.raises(OnlyOneTLS):
            await second
        assert await later == {"total": 2}


async def test_not_on_a_connection_that_began_with_tls() -> None:
    context = SERVER.ssl_context(server_side=True)
    trusting = CLIENT.ssl_context(server_side=False, authorities=[SERVER])
    async with serve(Math, "127.0.0.1", 0, ssl=context) as server:
        async with connect(*server.sockets[0].getsockname(), ssl=trusting) as client:
            assert client.peerCertificate == SERVER.certificate
            with pytest.raises(OnlyOneTLS):
                client.callRemote(StartTLS)


# --- the lock ---


async def test_refused_the_connection_goes_on_in_the_clear() -> None:
    async with connected(Refusing, Math) as (server, client):
        server.refusal = PermissionError("not here")
        server.gate.clear()
        secured = client.callRemote(Refusable)
        later = client.callRemote(Sum, a=1, b=1)
        await server.asked.wait()
        echo = server.callRemote(Echo, data=b"x")
        server.gate.set()
        with pytest.raises(PermissionError, match="not here"):
            await secured
        assert await later == {"total": 2}
        assert await echo == {"data": b"x"}
        server.refusal = None
        await client.callRemote(StartTLS)
        assert await client.callRemote(Sum, a=1, b=1) == {"total": 2}


async def test_an_unknown_error_of_the_responder_refuses_too() -> None:
    async with connected(Secure, Math) as (server, client):
        server.refusal = LookupError()
        with pytest.raises(UnknownRemoteError):
            await client.callRemote(StartTLS)


async def test_terms_of_the_responder_that_contradict_each_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    terms = {"tls_serverHostname": "x"}
    async with connected(lambda: Secure(terms), Math) as (_, client):
        with pytest.raises(UnknownRemoteError):
            await client.callRemote(StartTLS)
    assert "tls_serverHostname is for the TLS client" in caplog.text


async def test_cancelling_the_call_does_not_stop_it() -> None:
    async with connected(Secure, Math) as (server, client):
        server.gate.clear()
        secured = client.callRemote(StartTLS)
        await server.asked.wait()
        secured.cancel()
        server.gate.set()
        assert await client.callRemote(Sum, a=1, b=1) == {"total": 2}
        assert client.peerCertificate is not None


async def test_both_sides_start_tls_at_once(caplog: pytest.LogCaptureFixture) -> None:
    async with connected(Secure, Secure) as (server, client):
        calls = [client.callRemote(StartTLS), server.callRemote(StartTLS)]
        for error in await asyncio.gather(*calls, return_exceptions=True):
            assert isinstance(error, ConnectionLost)
    assert "both sides want to change the connection at once" in caplog.text


class More(StartTLS):
    arguments = [*StartTLS.arguments, ("level", Integer())]
    response = [*StartTLS.response, ("level", Integer())]


async def test_a_subclass_with_arguments_of_its_own() -> None:
    class Server(Math):
        @More.responder
        def more(self, level: int) -> dict[str, Any]:
            return {"tls_localCertificate": SERVER, "level": level + 1}

    async with connected(Server, AMP) as (_, client):
        answer = await client.callRemote(More, level=1, tls_verifyAuthorities=[SERVER])
        assert answer == {"level": 2}
        assert client.peerCertificate == SERVER.certificate


@pytest.mark.parametrize("cancelled", [False, True])
async def test_an_answer_that_does_not_parse_ends_the_connection(cancelled: bool) -> None:
    amp, transport = AMP(), Transport()
    amp.connection_made(transport)
    secured = amp.callRemote(More, level=1)
    if cancelled:
        secured.cancel()
    amp.data_received(AmpBox(_answer=b"1", level=b"high").serialize())
    with pytest.raises(asyncio.CancelledError if cancelled else ValueError):
        await secured
    assert transport.done == ["abort"]
    amp.connection_lost(None)


async def test_a_sender_of_boxes_that_is_no_connection() -> None:
    dispatcher = BoxDispatcher(Math())
    sender = Sender()
    dispatcher.startReceivingBoxes(sender)
    with pytest.raises(TypeError, match="such as AMP can be changed, not the sender"):
        dispatcher.callRemote(StartTLS)
    dispatcher.ampBoxReceived(AmpBox(_command=b"StartTLS", _ask=b"1"))
    assert [box.get(b"_error_code") for box in sender.sent] == [b"UNKNOWN"]


# --- what is on the wire ---


class Recording:
    """A relay that writes down what it passes on, and may add to it."""

    def __init__(self) -> None:
        self.sent = {"client": b"", "server": b""}

    def change(self, side: str, data: bytes) -> bytes:
        return data

    @asynccontextmanager
    async def before(self, server: Any) -> AsyncIterator[tuple[str, int]]:
        tasks = set()

        async def relay(side: str, reader: Any, writer: Any) -> None:
            with suppress(OSError):
                while data := await reader.read(65536):
                    data = self.change(side, data)
                    self.sent[side] += data
                    writer.write(data)
                writer.write_eof()

        async def talk(reader: Any, writer: Any) -> None:
            tasks.add(asyncio.current_task())
            theirs = await asyncio.open_connection(*server.sockets[0].getsockname())
            await asyncio.gather(relay("client", reader, theirs[1]), relay("server", theirs[0], writer))
            for each in (writer, theirs[1]):
                each.close()
                with suppress(OSError):
                    await each.wait_closed()

        listener = await asyncio.start_server(talk, "127.0.0.1", 0)
        try:
            yield listener.sockets[0].getsockname()
        finally:
            listener.close()
            await asyncio.gather(*tasks)


def clear_part(stream: bytes) -> bytes:
    """Return what comes before the first TLS record; the rest must be TLS records and nothing else."""
    start = stream.index(b"\x16\x03")
    rest = stream[start:]
    while rest:
        assert rest[0] in (20, 21, 22, 23), f"no TLS record: {rest[:40]!r}"
        assert rest[1] == 3
        rest = rest[5 + int.from_bytes(rest[3:5], "big") :]
    return stream[:start]


class Slow(Command):
    """Answered when the connection has TLS, or nearly."""

    arguments = [(b"number", Integer())]
    response = [(b"number", Integer())]


class Answering(Secure):
    def __init__(self) -> None:
        super().__init__()
        self.gates: dict[int, asyncio.Event] = {}

    def let(self, number: int) -> asyncio.Event:
        return self.gates.setdefault(number, asyncio.Event())

    @Slow.responder
    async def slow(self, number: int) -> dict[str, int]:
        await self.let(number).wait()
        return {"number": number}


async def test_nothing_is_in_the_clear_behind_the_exchange() -> None:
    made: list[Answering] = []

    def factory() -> Answering:
        made.append(Answering())
        return made[-1]

    recording = Recording()
    async with serve(factory, "127.0.0.1", 0) as listener, recording.before(listener) as address:
        async with connect(*address, Answering) as client:
            before = [client.callRemote(Slow, number=0)]
            await client.callRemote(Sum, a=1, b=1)
            server = made[0]
            before.append(server.callRemote(Slow, number=0))
            await server.callRemote(Sum, a=1, b=1)
            clear = {side: len(sent) for side, sent in recording.sent.items()}
            secured = client.callRemote(StartTLS)
            during = [client.callRemote(Slow, number=1)]
            client.let(0).set()  # It finishes while the answer to StartTLS is awaited.
            await server.asked.wait()
            server.let(0).set()
            await asyncio.wait([server.responder])
            during += [server.callRemote(Slow, number=number) for number in range(10)]
            for number in range(10):
                client.let(number).set()
                server.let(number).set()
            await secured
            after = [peer.callRemote(Slow, number=3) for peer in (server, client)]
            answers = await asyncio.gather(*before, *during, *after)
            assert [answer["number"] for answer in answers] == [0, 0, 1, *range(10), 3, 3]
    asked = parseString(clear_part(recording.sent["client"])[clear["client"] :])
    assert [box[b"_command"] for box in asked] == [b"StartTLS"]
    answered = parseString(clear_part(recording.sent["server"])[clear["server"] :])
    # The responder that finished first could still answer in the clear: StartTLS was not answered yet.
    assert all(b"_command" not in box for box in answered)
    assert len(answered) in (1, 2)


@pytest.mark.parametrize("side", ["client", "server"])
async def test_an_injected_command_never_runs(side: str, caplog: pytest.LogCaptureFixture) -> None:
    """An attacker on the path adds a command behind StartTLS, or behind its answer."""
    ran = []

    class Victim(Secure):
        @Divide.responder
        def divide(self, a: int, b: int) -> dict[str, float]:
            ran.append((a, b))
            return {"quotient": 0.0}

    class Attack(Recording):
        def change(self, sender: str, data: bytes) -> bytes:
            if sender == side and (b"StartTLS" in data or data == b"\0\7_answer\0\0011\0\0"):
                data += AmpBox(_command=b"Divide", _ask=b"7", a=b"1", b=b"2").serialize()
            return data

    async with serve(Victim, "127.0.0.1", 0) as listener, Attack().before(listener) as address:
        async with connect(*address, Victim) as client:
            with pytest.raises(ConnectionLost):
                await client.callRemote(StartTLS)
            with pytest.raises(ConnectionLost):
                await client.callRemote(Sum, a=1, b=1)
    assert ran == []
    assert "the TLS handshake failed" in caplog.text


@pytest.mark.parametrize("pause", [False, True])
async def test_an_injected_command_never_runs_while_the_responder_makes_up_its_mind(
    pause: bool,
) -> None:
    made: list[Secure] = []
    ran = []

    class Victim(Secure):
        @Divide.responder
        def divide(self, a: int, b: int) -> dict[str, float]:
            ran.append((a, b))
            return {"quotient": 0.0}

    def factory() -> Secure:
        made.append(Victim())
        made[-1].gate.clear()
        return made[-1]

    async with serve(factory, "127.0.0.1", 0) as server, raw_client(server) as (reader, writer):
        injected = AmpBox(_command=b"Divide", _ask=b"7", a=b"1", b=b"2").serialize()
        writer.write(AmpBox(_command=b"StartTLS", _ask=b"1").serialize() + injected)
        await writer.drain()
        while not made:
            await asyncio.sleep(0)
        await made[0].asked.wait()
        if pause:
            writer.write(injected)
        made[0].gate.set()
        with suppress(ConnectionError):
            assert (await reader.read()).startswith(AmpBox(_answer=b"1").serialize())
    assert ran == []


def hello(context: ssl.SSLContext) -> tuple[ssl.SSLObject, ssl.MemoryBIO, bytes]:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing)
    with suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return tls, incoming, outgoing.read()


@pytest.mark.parametrize("cut", [None, 0, 1, 5, 100])
async def test_a_client_hello_that_came_early_works(cut: int | None) -> None:
    """StartTLS and the ClientHello in one segment, or cut somewhere, before the answer was sent."""
    context = CLIENT.ssl_context(server_side=False)
    terms = {"tls_localCertificate": SERVER}
    async with serve(lambda: Secure(terms), "127.0.0.1", 0) as server:
        async with raw_client(server) as (reader, writer):
            tls, incoming, first = hello(context)
            question = AmpBox(_command=b"StartTLS", _ask=b"1").serialize()
            stream = question + first
            at = len(stream) if cut is None else len(question) + cut
            writer.write(stream[:at])
            ack = AmpBox(_answer=b"1").serialize()
            if cut is not None:
                assert await reader.readexactly(len(ack)) == ack
                writer.write(stream[at:])
            else:
                assert await reader.readexactly(len(ack)) == ack
            while True:
                incoming.write(await reader.read(65536))
                with suppress(ssl.SSLWantReadError):
                    tls.do_handshake()
                    break
            assert tls.getpeercert(binary_form=True) == SERVER.to_der()
            writer.close()


async def test_a_server_that_speaks_first_behind_its_answer() -> None:
    """The caller is the TLS server; the ClientHello is in one segment with the answer."""
    context = CLIENT.ssl_context(server_side=False)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tls, incoming, first = hello(context)
        await reader.read(1000)
        writer.write(AmpBox(_answer=b"1").serialize() + first)
        while True:
            incoming.write(await reader.read(65536))
            with suppress(ssl.SSLWantReadError):
                tls.do_handshake()
                break
        writer.close()

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
        async with connect(*server.sockets[0].getsockname()) as client:
            with suppress(ConnectionLost):
                await client.callRemote(StartTLS, tls_serverSide=True, tls_localCertificate=SERVER)
            await client.wait_closed()


# --- losses ---


async def test_a_peer_that_drops_instead_of_shaking_hands() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        writer.write(AmpBox(_answer=b"1").serialize())
        await reader.read(1000)
        writer.transport.abort()

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
        async with connect(*server.sockets[0].getsockname()) as client:
            secured = client.callRemote(StartTLS)
            later = client.callRemote(Sum, a=1, b=1)
            with pytest.raises(ConnectionLost):
                await secured
            with pytest.raises(ConnectionLost):
                await later


@pytest.mark.parametrize("when", ["asked", "answered", "shaking", "secured"])
async def test_aborted_at_each_step(when: str) -> None:
    # uvloop complains of a UNIX transport that is aborted in the turn after start_tls().
    complains = when == "shaking" and isinstance(asyncio.get_running_loop(), uvloop.Loop)
    async with connected(Secure, Told, unix=False if complains else None) as (server, client):
        server.gate.clear()
        secured = client.callRemote(StartTLS)
        await server.asked.wait()
        if when == "asked":
            client.abort()
        server.gate.set()
        if when == "answered":
            await client.answered.wait()
            client.abort()
        if when == "shaking":
            await client.answered.wait()
            for _ in range(3):
                await asyncio.sleep(0)
            client.abort()
        if when == "secured":
            await secured
            client.abort()
        else:
            with pytest.raises(ConnectionLost):
                await secured
        await client.wait_closed()
        await server.wait_closed()


@pytest.mark.parametrize("who", ["server", "client"])
async def test_aborted_in_each_turn_of_the_handshake(who: str) -> None:
    """The last of these comes after it has succeeded."""
    if who == "client" and isinstance(asyncio.get_running_loop(), uvloop.Loop):
        pytest.skip(
            "uvloop complains of the transport that it was given, in the turn after start_tls()"
        )
    step, over = 0, False
    while not over:
        async with connected(Secure, Told, unix=False) as (server, client):
            secured = client.callRemote(StartTLS)
            await server.asked.wait()
            for _ in range(step):
                await asyncio.sleep(0)
            over = secured.done() and not secured.exception()
            amp = server if who == "server" else client
            amp.abort()
            if not over:
                # A server that aborts may have said before that the handshake is done.
                with pytest.raises(ConnectionLost) if who == "client" else suppress(ConnectionLost):
                    await secured
            await client.wait_closed()
            await server.wait_closed()
        step += 1
    assert step > 3


async def test_lost_before_the_handshake_began() -> None:
    amp, transport = AMP(), Transport()
    amp.connection_made(transport)
    secured = amp.callRemote(StartTLS)
    amp.data_received(AmpBox(_answer=b"1").serialize())
    amp.connection_lost(ConnectionResetError("reset"))
    with pytest.raises(ConnectionLost):
        await secured


async def test_a_transport_that_cannot_do_it() -> None:
    amp, transport = on_transport(AMP)
    secured = amp.callRemote(StartTLS)
    amp.data_received(AmpBox(_answer=b"1").serialize())
    with pytest.raises(ConnectionLost, match="handshake failed"):
        await secured
    assert transport.done == ["close"]


@pytest.mark.parametrize("given_up", [False, True])
async def test_a_handshake_that_is_cancelled_from_outside(given_up: bool) -> None:
    """As a loop that shuts down does it with every task."""
    talks = set()
    shaking = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talks.add(asyncio.current_task())
        await reader.read(1000)
        writer.write(AmpBox(_answer=b"1").serialize())
        with suppress(ConnectionError):
            assert await reader.read(1000)
            shaking.set()
            await reader.read()
        writer.close()

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
        async with connect(*server.sockets[0].getsockname()) as client:
            before = asyncio.all_tasks()
            secured = client.callRemote(StartTLS)
            await shaking.wait()
            if given_up:
                secured.cancel()
                await asyncio.sleep(0)
            for task in asyncio.all_tasks() - before - talks:
                task.cancel()
            with pytest.raises(asyncio.CancelledError if given_up else ConnectionLost):
                await secured
            await client.wait_closed()
        await asyncio.wait(talks)


async def test_a_full_buffer_when_tls_starts() -> None:
    async with connected(Secure, Math) as (_, client):
        questions = [client.callRemote(Echo, data=b"x" * 60000) for _ in range(100)]
        await client.callRemote(StartTLS)
        assert all(len(answer["data"]) == 60000 for answer in await asyncio.gather(*questions))
        assert await client.callRemote(Sum, a=1, b=1) == {"total": 2}


async def test_a_responder_whose_answers_are_not_read_when_tls_starts() -> None:
    made: list[Secure] = []

    def factory() -> Secure:
        made.append(Secure())
        return made[-1]

    serving = serve(factory, "127.0.0.1", 0, limits=Limits(max_backlog=2**26))
    async with serving as server, raw_client(server) as (reader, writer):
        data = b"x" * 60000
        answers = b""
        for number in range(300):
            writer.write(AmpBox(_command=b"Echo", _ask=b"%x" % number, data=data).serialize())
            answers += AmpBox(_answer=b"%x" % number, data=data).serialize()
        tls, incoming, first = hello(CLIENT.ssl_context(server_side=False))
        writer.write(AmpBox(_command=b"StartTLS", _ask=b"end").serialize() + first)
        await writer.drain()
        await made[0].asked.wait()
        await asyncio.wait([made[0].responder])
        transport = made[0].transport
        assert transport is not None
        assert transport.get_write_buffer_size() > 0
        answers += AmpBox(_answer=b"end").serialize()
        assert await reader.readexactly(len(answers)) == answers
        while True:
            incoming.write(await reader.read(65536))
            with suppress(ssl.SSLWantReadError):
                tls.do_handshake()
                break


async def test_a_transport_that_is_closing_already() -> None:
    amp, transport = on_transport(AMP)
    secured = amp.callRemote(StartTLS)
    transport.done.append("close")
    amp.data_received(AmpBox(_answer=b"1").serialize())
    with pytest.raises(ConnectionLost, match="closed before"):
        await secured


@pytest.mark.parametrize("swallowed", ["question", "hello"])
async def test_closing_when_the_peer_never_goes_on(swallowed: str) -> None:
    """An attacker on the path, or a peer that hangs, keeps the answer or the handshake from us."""
    talks = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talks.append(asyncio.current_task())
        await reader.read(1000)
        if swallowed == "hello":
            writer.write(AmpBox(_answer=b"1").serialize())
        with suppress(ConnectionError):
            await reader.read()
        writer.close()

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        client = await connect(host, port, Told)
        secured = client.callRemote(StartTLS)
        if swallowed == "question":
            await asyncio.sleep(0)
            secured.cancel()
        else:
            await client.answered.wait()
        await client.close(timeout=0.01)
        if swallowed == "hello":
            with pytest.raises(ConnectionLost):
                await secured
        await asyncio.wait(talks)


async def test_closing_waits_for_the_handshake() -> None:
    async with connected(Secure, Told) as (server, client):
        secured = client.callRemote(StartTLS)
        await client.answered.wait()
        await asyncio.gather(client.close(), server.close())
        await secured


# --- and then a switch ---


async def test_secured_and_then_switched() -> None:
    recording = Recording()
    made: list[Switching] = []

    def factory() -> Switching:
        made.append(Switching())
        return made[-1]

    async with serve(factory, "127.0.0.1", 0) as listener, recording.before(listener) as address:
        client = await connect(*address)
        await client.callRemote(StartTLS)
        await client.callRemote(SwitchTo, Recorder, name="x")
        inner: Any = client.innerProtocol
        theirs = made[0].inner
        inner.transport.write(b"a secret of the client" * 1000)
        theirs.transport.write(b"a secret of the server" * 1000)
        await inner.until(lambda: len(inner.data) == 22000)
        await theirs.until(lambda: len(theirs.data) == 22000)
        assert inner.data == b"a secret of the server" * 1000
        assert inner.transport.get_extra_info("ssl_object") is not None
        inner.transport.close()
        await theirs.until(lambda: "lost" in theirs.events)
        await inner.until(lambda: "lost" in inner.events)
    for side in ("client", "server"):
        assert b"secret" not in recording.sent[side]
        clear_part(recording.sent[side])


async def test_boxes_that_come_before_start_tls_has_returned_wait_for_it() -> None:
    """The peer, as the TLS client, is done first: its questions are in one segment with that."""

    answered = asyncio.Event()

    class Server(Switching):
        def ampBoxReceived(self, box: AmpBox) -> None:
            super().ampBoxReceived(box)
            if box.get(b"_command") == b"StartTLS":
                answered.set()

        @StartTLS.responder
        def secure(self) -> dict[str, Any]:
            return {"tls_serverSide": False}

    async with connected(Server, Switching) as (server, client):
        secured = client.callRemote(StartTLS, tls_serverSide=True)
        await answered.wait()
        total = server.callRemote(Sum, a=1, b=1)
        switched = server.callRemote(SwitchTo, Recorder, name="x")
        assert await secured == {}
        assert await total == {"total": 2}
        await switched
        client.inner.transport.write(b"x")
        inner: Any = server.innerProtocol
        await inner.until(lambda: inner.data == b"x")
        inner.transport.close()
        await client.inner.until(lambda: "lost" in client.inner.events)


# --- handshakes that do not end ---


@pytest.mark.parametrize("piled_up", [False, True])
async def test_a_handshake_takes_no_longer_than_its_limit(
    piled_up: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Also if what was answered before that is not read."""
    made: list[Any] = []

    def factory() -> Math:
        made.append(Math())
        return made[-1]

    limits = Limits(handshake_timeout=0.2, max_backlog=100_000_000)
    async with listening(factory, limits=limits) as server:
        async with raw_client(server) as (_, writer):
            writer.transport.pause_reading()
            if piled_up:
                echo = AmpBox(_command=b"Echo", _ask=b"1", data=bytes(60_000)).serialize()
                writer.write(echo * 200)
            writer.write(AmpBox(_command=b"StartTLS", _ask=b"1").serialize())
            while not made or not made[0].transport:
                await asyncio.sleep(0)
            amp = made.pop()
            async with asyncio.timeout(10):
                await amp.wait_closed()
        assert "the TLS handshake failed: it took more than 0.2 seconds" in caplog.text
        forgotten = weakref.ref(amp)
        del amp
        await turns()
        assert forgotten() is None, "without the cyclic garbage collector"


async def test_a_handshake_of_a_server_with_tls_takes_no_longer() -> None:
    context = SERVER.ssl_context(server_side=True)
    limits = Limits(handshake_timeout=0.2)
    async with (
        serve(Math, "127.0.0.1", 0, ssl=context, limits=limits) as server,
        raw_client(server) as (reader, _),
        asyncio.timeout(10),
    ):
        with suppress(ConnectionError):
            assert await reader.read() == b""
