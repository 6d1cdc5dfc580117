"""A small service: a hotel that books rooms, for clients on other machines.

It shows typed commands: records in questions and answers, defaults, a validator, an error with fields,
state that the connections share, and a command that needs no answer. `mypy --strict` checks all of it.

Run it: python examples/hotel.py              a demonstration, in one process
        python examples/hotel.py serve 1234   the hotel; it closes in order at SIGINT
        python examples/hotel.py book 1234 Ada Grace
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import enum
import sys
from typing import Annotated

from attrs import define, field, frozen
from attrs.validators import ge, min_len

from amp_asyncio import AMP, Command, Server, Wire, connect, serve

# --- what both sides import ---


class Bed(enum.Enum):
    SINGLE = 1
    DOUBLE = 2


@frozen
class Guest:
    name: str
    age: int | None = None


@frozen
class Booking:
    number: int
    room: int
    price: float
    guests: list[Guest] = field(factory=list)


@define
class NoRoom(Exception):
    """All rooms with this kind of bed are taken."""

    bed: Bed
    free: dict[str, int]


class NoSuchBooking(Exception):
    pass


class Book(Command[Booking]):
    arrival: Annotated[datetime.datetime, Wire("from")]
    guests: list[Guest] = field(validator=min_len(1))
    nights: int = field(default=1, validator=ge(1))
    bed: Bed = Bed.DOUBLE
    errors = {NoRoom: b"NO_ROOM"}


class Find(Command[Booking]):
    number: int
    errors = {NoSuchBooking: b"NO_SUCH_BOOKING"}


class Price(Command[float], answer="price"):
    bed: Bed
    nights: int = 1


class CheckOut(Command[None]):
    number: int
    requiresAnswer = False


# --- the server ---

PRICES = {Bed.SINGLE: 70.0, Bed.DOUBLE: 99.5}


class Hotel:
    """What all connections share."""

    def __init__(self, rooms: dict[int, Bed]) -> None:
        self.rooms = rooms
        self.taken: dict[int, Booking] = {}
        self.count = 0

    def free(self, bed: Bed) -> list[int]:
        taken = {booking.room for booking in self.taken.values()}
        return [room for room, kind in self.rooms.items() if kind is bed and room not in taken]


class Reception(AMP):
    """One client of the hotel."""

    def __init__(self, hotel: Hotel) -> None:
        super().__init__()
        self.hotel = hotel

    @Book.responder
    async def book(
        self,
        arrival: datetime.datetime,
        guests: list[Guest],
        nights: int = 1,
        bed: Bed = Bed.DOUBLE,
    ) -> Booking:
        hotel = self.hotel
        if not hotel.free(bed):
            raise NoRoom(bed=bed, free={kind.name: len(hotel.free(kind)) for kind in Bed})
        hotel.count += 1
        room = hotel.free(bed)[0]
        price = self.price(bed=bed, nights=nights)
        booking = Booking(number=hotel.count, room=room, price=price, guests=guests)
        hotel.taken[booking.number] = booking
        return booking

    @Find.responder
    def find(self, number: int) -> Booking:
        try:
            return self.hotel.taken[number]
        except KeyError:
            raise NoSuchBooking(f"no booking has the number {number}") from None

    @Price.responder
    def price(self, bed: Bed, nights: int = 1) -> float:
        return PRICES[bed] * nights

    @CheckOut.responder
    def check_out(self, number: int) -> None:
        self.hotel.taken.pop(number, None)


def open_hotel(port: int) -> contextlib.AbstractAsyncContextManager[Server[Reception]]:
    hotel = Hotel({101: Bed.SINGLE, 102: Bed.DOUBLE, 103: Bed.DOUBLE})
    return serve(lambda: Reception(hotel), "127.0.0.1", port)


# --- a client ---


async def demonstrate() -> None:
    when = datetime.datetime(2030, 1, 2, 15, tzinfo=datetime.UTC)
    async with open_hotel(0) as server, connect(server) as peer:
        print("a night costs", await peer.call(Price(bed=Bed.DOUBLE)))
        ada = Guest(name="Ada", age=36)
        booking = await peer.call(Book(arrival=when, guests=[ada, Guest(name="Grace")], nights=2))
        print(f"booking {booking.number}: room {booking.room} for {booking.price}")
        await peer.call(Book(arrival=when, guests=[ada]), timeout=5)
        try:
            await peer.call(Book(arrival=when, guests=[ada]))
        except NoRoom as error:
            print(f"no {error.bed.name} is free, but others are: {error.free}")
        try:
            Book(arrival=when, guests=[])
        except ValueError as problem:
            print("not sent:", str(problem).partition(":")[0])
        await peer.call(CheckOut(number=1))
        found = await peer.call(Find(number=2))
        print("found:", *(guest.name for guest in found.guests))
        try:
            await peer.call(Find(number=1))
        except NoSuchBooking as gone:
            print(gone)


async def run_server(port: int) -> None:
    async with open_hotel(port) as server:
        print("listening on port", server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()


async def book(port: int, names: list[str]) -> None:
    guests = [Guest(name=name) for name in names]
    async with connect("127.0.0.1", port) as peer:
        try:
            booking = await peer.call(Book(arrival=datetime.datetime.now(datetime.UTC), guests=guests))
        except NoRoom as error:
            sys.exit(f"no {error.bed.name} is free")
        print(f"booking {booking.number}: room {booking.room}")


def main(arguments: list[str]) -> None:
    match arguments:
        case []:
            asyncio.run(demonstrate())
        case ["serve", port]:
            with contextlib.suppress(KeyboardInterrupt):
                asyncio.run(run_server(int(port)))
        case ["book", port, *names]:
            asyncio.run(book(int(port), names))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
