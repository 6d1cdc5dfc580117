"""A service that the tests of the command line ask."""

from __future__ import annotations

import asyncio
from typing import Any

from amp_asyncio import (
    AMP,
    AmpBox,
    AmpList,
    Argument,
    BigString,
    Boolean,
    Command,
    DateTime,
    Decimal,
    Float,
    Integer,
    ListOf,
    Path,
    RemoteAmpError,
    StartTLS,
    String,
    Unicode,
)


class Sum(Command):
    arguments = [(b"a", Integer()), (b"b", Integer(optional=True))]
    response = [(b"total", Integer())]


class Divide(Command):
    arguments = [(b"a", Float()), (b"b", Float())]
    response = [(b"quotient", Float())]
    errors = {ZeroDivisionError: b"ZERO_DIVISION"}


class Point(Argument):
    """A type of its own: two numbers, with a colon between them."""

    def fromString(self, inString: bytes) -> tuple[int, ...]:
        return tuple(map(int, inString.split(b":")))

    def toString(self, inObject: Any) -> bytes:
        return b"%d:%d" % inObject


class OneWay(Argument):
    """A type that can be read but not written."""

    def fromString(self, inString: bytes) -> complex:
        return complex(inString.decode())


class Everything(Command):
    commandName = b"every-thing"
    arguments = [
        (b"number", Integer(optional=True)),
        (b"text", Unicode(optional=True)),
        (b"data", String(optional=True)),
        (b"large", BigString(optional=True)),
        (b"share", Float(optional=True)),
        (b"truth", Boolean(optional=True)),
        (b"price", Decimal(optional=True)),
        (b"when", DateTime(optional=True)),
        (b"path", Path(optional=True)),
        (b"point", Point(optional=True)),
        (b"numbers", ListOf(Integer(), optional=True)),
        (b"nested", ListOf(ListOf(Unicode()), optional=True)),
        (
            b"from",
            AmpList(
                [(b"the-name", Unicode()), (b"age", Integer(optional=True))],
                optional=True,
            ),
        ),
    ]
    response = arguments


class Record(AmpList):
    """A record as typed commands have it."""

    def toStringProto(self, inObject: Any, proto: Any) -> bytes:
        return super().toStringProto([inObject], proto)

    def fromStringProto(self, inString: bytes, proto: Any) -> Any:
        return super().fromStringProto(inString, proto)[0]


class Introduce(Command):
    arguments = [(b"who", Record([(b"name", Unicode())]))]
    response = arguments


class Notify(Command):
    arguments = [(b"text", Unicode())]
    requiresAnswer = False


class Wrong(Command):
    response = [(b"number", Integer())]


class Complex(Command):
    response = [(b"number", OneWay())]


class Hang(Command):
    pass


class Slow(Command):
    response = [(b"finished", Boolean())]


class Shop(AMP):
    notified: list[str] = []

    @Sum.responder
    async def sum(self, a: int, b: int | None) -> dict[str, int]:
        return {"total": a + (b or 0)}

    @Divide.responder
    def divide(self, a: float, b: float) -> dict[str, float]:
        return {"quotient": a / b}

    @Everything.responder
    def everything(self, **given: Any) -> dict[str, Any]:
        return given

    @Introduce.responder
    def introduce(self, who: Any) -> dict[str, Any]:
        return {"who": who}

    @Notify.responder
    def notify(self, text: str) -> dict[str, Any]:
        self.notified.append(text)
        return {}

    @Hang.responder
    async def hang(self) -> dict[str, Any]:
        return await asyncio.get_running_loop().create_future()

    def amp_WRONG(self, box: AmpBox) -> AmpBox:
        return AmpBox(number=b"x")

    def amp_COMPLEX(self, box: AmpBox) -> AmpBox:
        return AmpBox(number=b"1j")


class Slowly(Shop):
    """Answers `Slow` when its peer has answered a question of its own."""

    @Slow.responder
    async def slow(self) -> dict[str, bool]:
        await self.callRemoteString("Continue")
        return {"finished": True}


class Secured(Shop):
    """Answers StartTLS with a certificate, and with the authorities whose clients it trusts."""

    tls: dict[str, Any] = {}

    @StartTLS.responder
    def start_tls(self) -> dict[str, Any]:
        return self.tls


class Refusing(Shop):
    """Refuses StartTLS."""

    @StartTLS.responder
    def start_tls(self) -> dict[str, Any]:
        raise RemoteAmpError(b"NO_TLS", "not today")


NOT_A_FACTORY = 5
