"""Twisted's AMP, on the reactor that Twisted chooses, with the responders of its documentation."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterator
from functools import partial
from typing import Any

from pace import Pace
from twisted.internet import endpoints, reactor, ssl
from twisted.internet.defer import Deferred, ensureDeferred, gatherResults
from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.protocol import Factory
from twisted.internet.threads import deferToThread
from twisted.protocols import amp
from zope.interface import implementer

from peers import HOST, TIMEOUT, VALUE, Connection, Peer


class Sum(amp.Command):
    arguments = [(b"a", amp.Integer()), (b"b", amp.Integer())]
    response = [(b"total", amp.Integer())]


class Echo(amp.Command):
    arguments = [(b"data", amp.String())]
    response = [(b"data", amp.String())]


class Hold(amp.Command):
    arguments = [(b"a", amp.Integer()), (b"b", amp.Integer())]


class Release(amp.Command):
    pass


class Responders(amp.AMP):
    def __init__(self) -> None:
        super().__init__()
        self.held: list[Deferred[dict[str, int]]] = []

    @Sum.responder
    def sum(self, a: int, b: int) -> dict[str, int]:
        return {"total": a + b}

    @Echo.responder
    def echo(self, data: bytes) -> dict[str, bytes]:
        return {"data": data}

    @Hold.responder
    def hold(self, a: int, b: int) -> Deferred[dict[str, int]]:
        self.held.append(Deferred())
        return self.held[-1]

    @Release.responder
    def release(self) -> dict[str, int]:
        for held in self.held:
            held.callback({})
        self.held.clear()
        return {}


class Asking(amp.AMP):
    def __init__(self) -> None:
        super().__init__()
        self.lost: Deferred[None] = Deferred()

    def connectionLost(self, reason: Any) -> None:
        super().connectionLost(reason)
        self.lost.callback(None)

    def close(self) -> Deferred[None]:
        self.transport.loseConnection()
        return self.lost


@implementer(IReadDescriptor)
class Reader:
    """Calls a function when a file is readable."""

    def __init__(self, fd: int, function: Callable[[], None]) -> None:
        self.fd, self.function = fd, function

    def fileno(self) -> int:
        return self.fd

    def doRead(self) -> None:
        self.function()

    def connectionLost(self, reason: Any) -> None:
        pass

    def logPrefix(self) -> str:
        return "clock"


class TwistedAMP(Peer):
    async def serve(self, what: str, tls: bool) -> int:
        if tls:
            options = ssl.PrivateCertificate.loadPEM(self.pem_bytes()).options()
            endpoint: Any = endpoints.SSL4ServerEndpoint(reactor, 0, options, interface=HOST)
        else:
            endpoint = endpoints.TCP4ServerEndpoint(reactor, 0, interface=HOST)
        listening = await endpoint.listen(Factory.forProtocol(Responders))
        port: int = listening.getHost().port
        return port

    async def connect(self, port: int, what: str, tls: bool) -> Connection:
        endpoint: Any = endpoints.TCP4ClientEndpoint(reactor, HOST, port)
        if tls:
            root = ssl.Certificate.loadPEM(self.pem_bytes())
            options = ssl.optionsForClientTLS("localhost", trustRoot=root)
            endpoint = endpoints.wrapClientTLS(options, endpoint)
        asking = await endpoints.connectProtocol(endpoint, Asking())
        ways: dict[str, Any] = {
            "sum": partial(asking.callRemote, Sum, a=13, b=81),
            "timed": lambda: asking.callRemote(Sum, a=13, b=81).addTimeout(TIMEOUT, reactor),
            "echo": partial(asking.callRemote, Echo, data=b"x" * VALUE),
        }
        return Connection(
            ways[what],
            asking.close,
            hold=partial(asking.callRemote, Hold, a=13, b=81),
            release=partial(asking.callRemote, Release),
        )

    # --- the runtime ---

    def run(self, main: Callable[[], Coroutine[Any, Any, None]], loop: str) -> None:
        def failed(failure: Any) -> None:
            failure.printTraceback()
            reactor.stop()

        reactor.callWhenRunning(lambda: ensureDeferred(main()).addErrback(failed))
        reactor.run()

    async def in_thread(self, function: Callable[[], Any]) -> Any:
        return await deferToThread(function)

    async def ask_all(self, asks: list[Callable[[], Awaitable[Any]]], turns: Iterator[int]) -> None:
        """Chain callbacks: no slower than awaiting Deferreds in coroutines, and a little less to do."""
        await gatherResults([_ask(ask, turns) for ask in asks])

    async def ask_paced(self, ask: Callable[[], Any], pace: Pace) -> None:
        done: Deferred[None] = Deferred()

        def failed(failure: Any) -> None:
            pace.failed()

        def ended(_: object) -> None:
            if pace.ended and not done.called:
                done.callback(None)

        def tick() -> None:
            for due in pace.due():
                asked = ask().addCallback(lambda _, due=due: pace.answered(due))
                asked.addErrback(failed).addCallback(ended)

        reader = Reader(pace.fileno(), tick)
        reactor.addReader(reader)
        await done
        reactor.removeReader(reader)

    def begin(self, asked: Any) -> Any:
        return asked

    async def gather(self, coroutines: list[Coroutine[Any, Any, Any]]) -> list[Any]:
        return list(await gatherResults([ensureDeferred(coroutine) for coroutine in coroutines]))


def _ask(ask: Callable[[], Any], turns: Iterator[int]) -> Deferred[None]:
    done: Deferred[None] = Deferred()

    def again(_: object) -> None:
        if next(turns, None) is None:
            done.callback(None)
        else:
            ask().addCallbacks(again, done.errback)

    again(None)
    return done
