"""Who asks: what a peer finds before its identity is known, and what `amp.peer` says."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

import pytest
from fakes import Recorder
from support import Counting, Math, Sum, SwitchTo, connected, on_transport
from ways import TRUSTING, joined, serving

from amp_asyncio import (
    AMP,
    AmpBox,
    BoxDispatcher,
    Command,
    CommandLocator,
    Credentials,
    Peer,
    PrivateCertificate,
    StartTLS,
    UnhandledCommand,
    Unicode,
    connect,
)
from amp_asyncio.testing import Identity, pair


class Login(Command):
    arguments = [(b"name", Unicode())]
    public = True


class Guarded(Math):
    identified_only = True

    def __init__(self) -> None:
        super().__init__()
        self.switched = False

    @Login.responder
    async def login(self, name: str) -> None:
        self.identity = name or None

    @SwitchTo.responder
    def switch(self, name: str) -> Any:
        self.switched = True
        return Recorder()

    def amp_SHOUT(self, box: AmpBox) -> AmpBox:
        return AmpBox(word=box[b"word"].upper())

    def amp_HELLO(self, box: AmpBox) -> AmpBox:
        return AmpBox()

    amp_HELLO.public = True  # type: ignore[attr-defined]


async def test_a_stranger_finds_only_what_is_public() -> None:
    async with pair(Guarded) as (server, client):
        hidden = [
            lambda: client.callRemote(Sum, a=1, b=2),
            lambda: client.callRemote(SwitchTo, Recorder, name="x"),
            lambda: client.callRemoteString(b"shout", word=b"a"),
        ]
        for ask in hidden:
            with pytest.raises(UnhandledCommand):
                await ask()
        assert not server.switched
        assert await client.callRemoteString(b"hello") == {b"_answer": b"4"}
        # Without an answer, too; and this one is not found for another reason.
        assert await client.callRemoteString(b"Sum", requiresAnswer=False, a=b"1", b=b"1") is None
        await client.callRemote(Login, name="Ada")
        assert server.identity == "Ada"
        assert await client.callRemote(Sum, a=1, b=2) == {"total": 3}
        assert (await client.callRemoteString(b"shout", word=b"a"))[b"word"] == b"A"
        # It can be taken away again.
        await client.callRemote(Login, name="")
        with pytest.raises(UnhandledCommand):
            await client.callRemote(Sum, a=1, b=2)
        await client.callRemote(Login, name="Ada")
        await client.callRemote(SwitchTo, Recorder, name="x")
        assert server.switched


async def test_what_is_hidden_looks_as_if_it_did_not_exist() -> None:
    amp, transport = on_transport(Guarded)
    question = AmpBox(_ask=b"1", _command=b"Sum", a=b"nonsense")
    amp.data_received(question.serialize() + AmpBox(question, _command=b"Mus").serialize())
    hidden, unknown = transport.boxes()
    assert {**hidden, b"_error_description": b""} == {**unknown, b"_error_description": b""}
    assert hidden[b"_error_description"].replace(b"Sum", b"Mus") == unknown[b"_error_description"]


async def test_a_stranger_is_told_of_public_commands_only() -> None:
    class Described(Guarded):
        describable = True

    async with pair(Described) as (_, client):
        assert [each["name"] for each in await client.describe()] == ["Login"]
        await client.callRemote(Login, name="Ada")
        assert "Sum" in [each["name"] for each in await client.describe()]


async def test_what_was_asked_behind_a_login_does_not_wait_for_it() -> None:
    async with pair(Guarded) as (_, client):
        login, early = client.callRemote(Login, name="Ada"), client.callRemote(Sum, a=1, b=2)
        await login
        with suppress(UnhandledCommand):
            await early  # Whether the login was done in time is up to its responder.
        assert await client.callRemote(Sum, a=1, b=2) == {"total": 3}


async def test_tls_can_be_started_first() -> None:
    async with joined("tcp", Guarded) as (_, client):
        await client.callRemote(StartTLS)
        with pytest.raises(UnhandledCommand):
            await client.callRemote(Sum, a=1, b=2)
        await client.callRemote(Login, name="Ada")
        assert await client.callRemote(Sum, a=1, b=2) == {"total": 3}


async def test_a_locator_of_its_own() -> None:
    class Desk(CommandLocator):
        @Login.responder
        def login(self, name: str) -> None:
            server.identity = name

        @Sum.responder
        def sum(self, a: int, b: int) -> dict[str, int]:
            return {"total": a + b}

    class Hotel(AMP):
        identified_only = True

    server = Hotel(locator=Desk())
    async with pair(server) as (_, client):
        with pytest.raises(UnhandledCommand):
            await client.callRemote(Sum, a=1, b=2)
        await client.callRemote(Login, name="Ada")
        assert await client.callRemote(Sum, a=1, b=2) == {"total": 3}


async def test_a_locator_that_fails_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Guarded):
        def locateResponder(self, name: bytes) -> Any:
            raise KeyError(name)

    async with pair(Broken) as (_, client):
        with pytest.raises(Exception, match="reference"):
            await client.callRemote(Login, name="Ada")
    assert "KeyError: b'Login'" in caplog.text


async def test_boxes_that_go_elsewhere_are_guarded_there(caplog: pytest.LogCaptureFixture) -> None:
    class Hotel(AMP):
        identified_only = True

    class Desk(BoxDispatcher):
        identified_only = True

    _, transport = on_transport(lambda: Hotel(boxReceiver=Desk(Math())))  # type: ignore[arg-type]
    assert "abort" in transport.done
    assert "identified_only has no effect on a boxReceiver: set it on the dispatcher" in caplog.text
    async with pair(lambda: AMP(boxReceiver=Desk(Math()))) as (_, client):
        with pytest.raises(UnhandledCommand):
            await client.callRemote(Sum, a=1, b=2)


async def test_overriding_what_happens_to_boxes_opens_nothing() -> None:
    class Watching(Counting, Guarded):
        pass

    async with pair(Watching) as (server, client):
        with pytest.raises(UnhandledCommand):
            await client.callRemote(Sum, a=1, b=2)
        assert server.received == 1


def answers(self: Any, a: int, b: int) -> None:
    """Is a method in the next test."""


@pytest.mark.parametrize("identity", ["ada", property(lambda self: "ada"), Sum.responder(answers)])
def test_the_class_has_no_identity(identity: object) -> None:
    with pytest.raises(TypeError, match="Hotel is identified_only, .* the class must not have one"):
        type("Hotel", (AMP,), {"identified_only": True, "identity": identity})


async def test_the_new_names_are_free_where_they_are_not_used() -> None:
    class Identify(Command):
        pass

    class Ported(Math):
        public = "a class may have anything"
        identity = "of the class"

        def __init__(self) -> None:  # Nor does it call `super().__init__()`.
            self.peer = None  # type: ignore[assignment]

        @Identify.responder
        def peer_name(self) -> dict[str, Any]:
            self.identity = "of the instance"
            del self.peer
            return {}

    class Older(Math):
        @Identify.responder
        def peer(self) -> dict[str, Any]:  # type: ignore[override]
            return {}

        @Login.responder
        def identity(self, name: str) -> None:
            pass

    async with pair(Ported, Older) as (server, client):
        assert server.peer is None
        await client.callRemote(Identify)
        assert server.identity == "of the instance"
        assert await client.callRemote(Sum, a=1, b=2) == {"total": 3}
        await server.callRemote(Identify)
        await server.callRemote(Login, name="x")


# --- the peer ---


async def test_the_peer_over_a_unix_socket() -> None:
    async with connected(unix=True) as (server, client):
        for amp in (server, client):
            assert amp.peer.credentials == Credentials(os.getpid(), os.getuid(), os.getgid())
            assert amp.peer.credentials.uid == os.getuid()
            assert amp.peer.certificate is None
        assert client.peer.address == server.transport.get_extra_info("sockname")  # type: ignore[union-attr]


async def test_the_peer_over_tcp() -> None:
    async with connected(unix=False) as (server, client):
        sockname = client.transport.get_extra_info("sockname")  # type: ignore[union-attr]
        assert server.peer == Peer(address=sockname)
        assert server.peer is server.peer
        await client.close()
        await server.wait_closed()
        assert server.peer == Peer(address=sockname), "it is still known who it was"
        assert AMP().peer == Peer(), "nothing is known before there is a connection"


async def test_the_certificate_of_a_peer() -> None:
    ada = PrivateCertificate.self_signed("localhost", names=["127.0.0.1"])

    class Secured(Math):
        @StartTLS.responder
        def secure(self) -> dict[str, Any]:
            return {"tls_localCertificate": ada, "tls_verifyAuthorities": [ada.certificate]}

    async with joined("tcp", Secured) as (server, client):
        assert server.peer.certificate is None
        await client.callRemote(
            StartTLS, tls_localCertificate=ada, tls_verifyAuthorities=[ada.certificate]
        )
        await client.callRemote(Sum, a=1, b=2)  # With TLS 1.3, the client is done first.
        assert server.peer.certificate == client.peer.certificate == ada.certificate
    async with joined("tcp", Math) as (server, client):
        await client.callRemote(StartTLS)
        assert client.peerCertificate is not None
        assert client.peer.certificate is None, "it was not verified"
    async with (
        serving("tls", AMP) as serving_,
        connect(*serving_.sockets[0].getsockname(), ssl=TRUSTING) as client,
    ):
        assert client.peer.certificate == client.peerCertificate is not None


async def test_the_peer_in_a_test() -> None:
    ada = PrivateCertificate.self_signed("ada.example")
    async with pair(AMP, client_identity=Identity("somewhere", certificate=ada)) as (server, client):
        assert server.peer == Peer(address="somewhere", certificate=ada.certificate)
        assert client.peer.certificate is None
        server.peer = Peer(credentials=Credentials(1, 0, 0))
        assert server.peer.credentials == (1, 0, 0)
        del server.peer
        assert server.peer.address == "somewhere"


def test_a_dispatcher_alone_has_no_peer() -> None:
    with pytest.raises(AttributeError):
        BoxDispatcher(Math()).peer  # type: ignore[attr-defined]  # noqa: B018
    assert BoxDispatcher(Math()).identity is None
