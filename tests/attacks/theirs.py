"""A server of Twisted's AMP that is attacked: `theirs.py twisted DIRECTORY`; see `run.py`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from twisted.internet import defer, reactor, ssl, stdio
from twisted.internet.protocol import Factory, Protocol
from twisted.protocols import amp
from twisted.python import log

from amp_asyncio import PrivateCertificate

NAMES = [(b"name%d" % number, amp.Integer(optional=True)) for number in range(20)]


class Sum(amp.Command):
    arguments = [(b"a", amp.Integer()), (b"b", amp.Integer())]
    response = [(b"total", amp.Integer())]


class Hold(amp.Command):
    arguments = [(b"items", amp.AmpList(NAMES, optional=True))]


class Get(amp.Command):
    response = [(b"data%d" % number, amp.String()) for number in range(16)]


class Fail(amp.Command):
    arguments = [(b"text", amp.String())]
    errors = {ValueError: b"VALUE"}


class Release(amp.Command):
    pass


class Open(amp.Command):
    response = [(b"file", amp.Descriptor())]


#: What waits to be let go.
gates: list[Any] = []


class Plain(amp.AMP):
    @Sum.responder
    def sum(self, a: int, b: int) -> dict[str, int]:
        return {"total": a + b}

    @Hold.responder
    def hold(self, items: Any = None) -> Any:
        gates.append(defer.Deferred())
        # As a responder that is a coroutine would, it has its arguments until it is done.
        return gates[-1].addCallback(lambda _, items: {}, items)

    @Get.responder
    def get(self) -> Any:
        gates.append(defer.Deferred())
        return gates[-1].addCallback(
            lambda _: {f"data{number}": os.urandom(1) * 60_000 for number in range(16)}
        )

    @Fail.responder
    def fail(self, text: bytes) -> Any:
        raise ValueError(text.decode("latin-1"))

    @Release.responder
    def release(self) -> dict[str, int]:
        held = gates[:]
        gates.clear()
        for gate in held:
            gate.callback(None)
        return {}


class Passing(Plain):
    file = os.open("/dev/null", os.O_RDONLY)

    @Open.responder
    def open(self) -> dict[str, int]:
        return {"file": self.file}


class Stdin(Protocol):
    def connectionLost(self, reason: Any = None) -> None:
        os._exit(0)


def main() -> None:
    folder = sys.argv[2]
    made = PrivateCertificate.self_signed("localhost")
    certificate = ssl.PrivateCertificate.loadPEM(made.to_pem())
    running: Any = reactor
    plain = Factory.forProtocol(Plain)
    options = certificate.options()
    ports = {
        "tcp": running.listenTCP(0, plain, backlog=1000, interface="127.0.0.1").getHost().port,
        "tls": running.listenSSL(0, plain, options, backlog=1000, interface="127.0.0.1").getHost().port,
    }
    running.listenUNIX(str(Path(folder, "plain")), plain)
    running.listenUNIX(str(Path(folder, "passing")), Factory.forProtocol(Passing))
    print(json.dumps(ports), flush=True)
    stdio.StandardIO(Stdin())
    running.run()


if __name__ == "__main__":
    log.startLogging(sys.stderr, setStdout=False)
    main()
