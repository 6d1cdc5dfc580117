"""Lines that mypy --strict and pyright strict accept: commands from type hints."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncIterator
from typing import Annotated, Any, Never, assert_type

from attrs import field, frozen
from attrs.validators import ge

from amp_asyncio import (
    AMP,
    BigString,
    Command,
    Integer,
    Limits,
    Server,
    Stream,
    StreamCommand,
    Wire,
    connect,
    serve,
)


class NoSuchRoom(Exception):
    pass


@frozen
class Total:
    total: int


class Sum(Command[Total]):
    a: int
    b: int = field(default=0, validator=ge(0))
    errors = {OverflowError: b"OVERFLOW"}


@frozen
class Guest:
    name: str
    age: int | None = None


@frozen
class Booking:
    number: int
    note: str | None = None


class Book(Command[Booking]):
    room: int
    arrival: Annotated[datetime.datetime, Wire("from")]
    guests: list[Guest]
    tags: list[str] | None = None
    photo: Annotated[bytes, BigString()] = b""
    errors = {NoSuchRoom: b"NO_SUCH_ROOM"}


class Leave(Command[None]):
    number: int
    requiresAnswer = False


class Greet(Command[str], answer="greeting"):
    name: str = "you"


class Old(Command):
    arguments = [(b"a", Integer()), (b"b", Integer())]
    response = [(b"total", Integer())]


@frozen
class Line:
    number: int
    text: str


class Tail(StreamCommand[Line]):
    name: str


@frozen
class Receipt:
    size: int


class Upload(StreamCommand[Never, bytes, Receipt]):
    name: str


class Hotel(AMP):
    @Sum.responder
    async def sum(self, a: int, b: int = 0) -> Total:
        return Total(total=a + b)

    @Book.responder
    async def book(
        self,
        room: int,
        arrival: datetime.datetime,
        guests: list[Guest],
        tags: list[str] | None = None,
        photo: bytes = b"",
    ) -> Booking:
        return Booking(number=room + len(guests))

    @Leave.responder
    async def leave(self, number: int) -> None:
        print("left", number)

    @Greet.responder
    def greet(self, name: str = "you") -> str:
        return f"Hello, {name}!"

    @Old.responder
    def old(self, a: int, b: int) -> dict[str, int]:
        return {"total": a + b}


async def open_streams(peer: AMP) -> None:
    async with peer.stream(Tail(name="log")) as lines:
        async for line in lines:
            assert_type(line, Line)
    async with peer.stream(Upload(name="x")) as upload:
        await upload.send(b"piece")
        await upload.finish()
        assert_type(await upload.answer(), Receipt)


class Annex(Hotel):
    @Sum.responder
    async def sum(self, a: int, b: int = 0) -> Total:
        return await super().sum(a=a, b=b)


async def call_directly(hotel: Hotel) -> None:
    assert_type(await hotel.sum(a=1), Total)
    assert_type(hotel.greet(name="Ada"), str)


async def serving() -> None:
    async with serve(Hotel, "::1", 0) as server, connect(server) as plain:
        assert_type(server, Server[Hotel])
        assert_type(server.connections, list[Hotel])
        assert_type(plain, AMP)
        async with connect(server, Annex) as annex, connect(server.address, Hotel) as hotel:
            assert_type(annex, Annex)
            assert_type(hotel, Hotel)
        async with connect("localhost:1234", protocol_factory=Hotel) as hotel:
            assert_type(hotel, Hotel)
        async with connect("localhost", 1234, lambda: Annex(), limits=Limits()) as annex:
            assert_type(annex, Annex)


def connections_of(server: Server) -> list[AMP]:
    return server.connections

    @Tail.responder
    async def tail(self, name: str) -> AsyncIterator[Line]:
        yield Line(number=1, text=name)

    @Upload.responder
    async def upload(self, stream: Stream[bytes, Never], name: str) -> Receipt:
        size = 0
        async for chunk in stream:
            assert_type(chunk, bytes)
            size += len(chunk)
        return Receipt(size=size)


async def ask(peer: AMP, when: datetime.datetime) -> None:
    answer = await peer.call(Sum(a=13, b=81))
    assert_type(answer, Total)
    assert_type(answer.total, int)
    assert_type(await peer.callRemote(Sum, a=13), Total)
    assert_type(peer.call(Leave(number=3)), asyncio.Future[None])
    both = await asyncio.gather(peer.call(Sum(a=1, b=2)), peer.call(Greet(name="Ada")))
    assert_type(both, tuple[Total, str])
    booking = await peer.call(Book(room=1, arrival=when, guests=[Guest(name="Ada")]), timeout=5)
    assert_type(booking.note, str | None)
    assert_type(await peer.callRemote(Old, a=1, b=2), dict[str, Any])
