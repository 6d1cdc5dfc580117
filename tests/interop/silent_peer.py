"""A Twisted peer that never answers a command that it does not know, as amp4j does.

python silent_peer.py             listens, and prints its port
python silent_peer.py PORT        connects to PORT

It answers `Sum`, `AskBack`, and `Heard` with what it has seen so far.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol, serverFromString
from twisted.internet.protocol import Factory
from twisted.internet.task import react
from twisted.protocols import amp
from twisted.python import log


class Sum(amp.Command):  # type: ignore[misc]
    arguments = [(b"a", amp.Integer()), (b"b", amp.Integer())]
    response = [(b"total", amp.Integer())]


class AskBack(Sum):
    """Is answered with what the asker says the sum is."""


class Heard(amp.Command):  # type: ignore[misc]
    """Is answered with JSON: the unknown commands so far, and how many errors and lost connections."""

    response = [(b"heard", amp.String())]


unknown: list[str] = []
errors: list[Any] = []


class Silent(amp.AMP):  # type: ignore[misc]
    lost = 0

    def locateResponder(self, name: bytes) -> Any:
        return super().locateResponder(name) or self.unheard

    def unheard(self, box: amp.AmpBox) -> Deferred[Any]:
        unknown.append(box[b"_command"].decode())
        return Deferred()

    def connectionLost(self, reason: Any) -> None:
        Silent.lost += 1
        super().connectionLost(reason)

    @Sum.responder
    def sum(self, a: int, b: int) -> dict[str, int]:
        return {"total": a + b}

    @AskBack.responder
    def ask_back(self, a: int, b: int) -> Any:
        return self.callRemote(Sum, a=a, b=b)

    @Heard.responder
    def heard(self) -> dict[str, bytes]:
        return {"heard": json.dumps([unknown, len(errors), Silent.lost]).encode()}


@inlineCallbacks
def main(reactor: Any, *arguments: str) -> Any:
    log.addObserver(lambda event: errors.append(event) if event.get("isError") else None)
    if arguments:
        yield connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", int(arguments[0])), Silent())
    else:
        endpoint = serverFromString(reactor, "tcp:0:interface=127.0.0.1")
        listening = yield endpoint.listen(Factory.forProtocol(Silent))
        print(listening.getHost().port, flush=True)
    yield Deferred()


if __name__ == "__main__":
    react(main, sys.argv[1:])
