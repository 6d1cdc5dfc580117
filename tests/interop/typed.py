"""The typed command that is `definitions.Stay` in pairs, and a peer that answers it."""

from __future__ import annotations

import datetime
import enum
import ipaddress
import uuid
from typing import Annotated, Any

from attrs import define, evolve, frozen

from amp_asyncio import BigString, Command, Wire

from . import definitions
from .conversations import OurPeer

__all__ = ["NoRoom", "Stay", "TypedPeer", "stay"]


class Kind(enum.Enum):
    SWEET = "süß"


@frozen
class Guest:
    name: str
    age: int | None = None


@frozen
class Arrival:
    """The values of the answer are those of the question."""

    number: int
    arrival: Annotated[datetime.datetime, Wire("from")]
    key: uuid.UUID
    kind: Kind
    pause: datetime.timedelta
    address: ipaddress.IPv4Address | ipaddress.IPv6Address
    price: float
    paid: bool
    lead: Guest
    guests: list[Guest]
    extras: dict[str, int]
    floors: list[list[int]]
    photo: Annotated[bytes, BigString()]
    until: datetime.datetime | None = None
    low: int = 7
    note: str | None = None


@define
class NoRoom(Exception):
    room: int
    free: list[int]
    name: str = "no name"

    def __str__(self) -> str:
        # Twisted sends no fields; then there is only the text that it sent.
        return f"no room {self.room}" if hasattr(self, "room") else str(self.args[0])


class Stay(Command[Arrival]):
    number: int
    arrival: Annotated[datetime.datetime, Wire("from")]
    key: uuid.UUID
    kind: Kind
    pause: datetime.timedelta
    address: ipaddress.IPv4Address | ipaddress.IPv6Address
    price: float
    paid: bool
    lead: Guest
    guests: list[Guest]
    extras: dict[str, int]
    floors: list[list[int]]
    photo: Annotated[bytes, BigString()]
    until: datetime.datetime | None = None
    low: int = 7
    note: str | None = None
    errors = {NoRoom: b"NO_ROOM"}


def stay(number: int, size: int) -> Stay:
    """Return what `definitions.stay` returns as arguments."""
    ada = Guest("Ada", 36)
    question = Stay(
        number=number,
        arrival=datetime.datetime.fromisoformat("2024-02-03T04:05:06.789000+05:45"),
        key=uuid.UUID("12345678-1234-5678-1234-567812345678"),
        kind=Kind.SWEET,
        pause=datetime.timedelta(seconds=-90.5),
        address=ipaddress.IPv6Address("::1"),
        price=0.1,
        paid=True,
        lead=ada,
        guests=[ada, Guest("")],
        extras={"bed": 1, "": -2},
        floors=[[1, 2], [], [3]],
        photo=bytes(size),
    )
    return evolve(question, until=question.arrival, low=5, note="") if number % 2 == 0 else question


class TypedPeer(OurPeer):
    """Answers `Stay` by its typed definition."""

    @Stay.responder
    async def stay(self, **given: Any) -> Arrival:
        if given["number"] < 0:
            raise NoRoom(given["number"], [1, 2])
        assert Stay(**given) == stay(given["number"], len(given["photo"]))
        return Arrival(**given)


def described(answer: dict[str, Any]) -> Any:
    """Return the pairs of an answer as JSON could carry them, without the photo."""
    return definitions.described({**answer, "photo": None})
