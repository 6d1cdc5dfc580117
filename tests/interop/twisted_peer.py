"""A program that speaks AMP with Twisted's library, on the orders of a test.

It listens on a TCP and a UNIX socket (whose path is its argument), and prints a line of JSON that
says where. It then reads orders from its stdin, each a JSON list of a name and arguments, and prints
a line about each: `{"result": ...}` or `{"failure": traceback}`. It exits when stdin ends.

    ["accept"]             go on with the connection that was made to it next
    ["connect", ENDPOINT]  go on with a connection that it makes itself
    ["play", NAME, ...]    play a scenario on it, with these arguments
    ["errors"]             say how many errors were logged since it was last asked
"""

from __future__ import annotations

import json
import sys
import traceback
from typing import Any

from twisted.internet.defer import Deferred, DeferredQueue, ensureDeferred
from twisted.internet.endpoints import clientFromString, serverFromString
from twisted.internet.protocol import Factory
from twisted.internet.stdio import StandardIO
from twisted.internet.task import react
from twisted.protocols.basic import LineReceiver
from twisted.python import log
from twisted.python.failure import Failure

from . import scenarios
from .definitions import Peer


class Speaking(Peer):
    """Also answers with whole boxes: a kind of responder that has no schema."""

    def amp_ECHO(self, box: Any) -> Any:
        return box


class AcceptedPeer(Speaking):
    accepted: DeferredQueue[AcceptedPeer] = DeferredQueue()

    def connectionMade(self) -> None:
        super().connectionMade()
        self.accepted.put(self)


class Orders(LineReceiver):
    delimiter = b"\n"
    peer: Speaking

    def __init__(self, reactor: Any, port: int) -> None:
        self.reactor = reactor
        self.port = port
        self.ended: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        self.say(port=self.port)

    def say(self, **event: Any) -> None:
        self.sendLine(json.dumps(event).encode())

    def lineReceived(self, line: bytes) -> None:
        ensureDeferred(self.obey(*json.loads(line)))

    async def obey(self, order: str, *arguments: Any) -> None:
        try:
            result = await getattr(self, f"order_{order}")(*arguments)
        except Exception:
            self.say(failure=traceback.format_exc())
        else:
            self.say(result=result)

    async def order_accept(self) -> None:
        self.peer = await AcceptedPeer.accepted.get()

    async def order_connect(self, endpoint: str) -> None:
        self.peer = await clientFromString(self.reactor, endpoint).connect(
            Factory.forProtocol(Speaking)
        )

    async def order_errors(self) -> int:
        count = len(errors)
        errors.clear()
        return count

    async def order_play(self, name: str, *arguments: Any) -> Any:
        return await getattr(scenarios, name)(self.peer, *arguments)

    def connectionLost(self, reason: Failure | None = None) -> None:
        self.ended.callback(None)


errors: list[dict[str, Any]] = []


def observe(event: dict[str, Any]) -> None:
    if event.get("isError"):
        errors.append(event)


async def main(reactor: Any, path: str) -> None:
    log.addObserver(observe)
    factory = Factory.forProtocol(AcceptedPeer)
    listening = await serverFromString(reactor, "tcp:0:interface=127.0.0.1").listen(factory)
    await serverFromString(reactor, f"unix:{path}").listen(factory)
    orders = Orders(reactor, listening.getHost().port)
    StandardIO(orders)
    await orders.ended


if __name__ == "__main__":
    react(main, sys.argv[1:])
