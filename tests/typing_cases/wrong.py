"""Lines that mypy --strict and pyright strict each reject: every line marked with an E and a number."""

from __future__ import annotations

import datetime
from collections.abc import AsyncIterator

from right import Book, Booking, Greet, Leave, Line, Sum, Tail, Total, Upload

from amp_asyncio import AMP


async def ask(peer: AMP, when: datetime.datetime) -> None:
    await peer.call(Sum(b=81))  # E1 a is missing
    await peer.call(Sum(a=13, b="81"))  # E2 wrong type
    await peer.call(Sum(a=13, b=81, c=1))  # E3 unknown
    await peer.call(Sum(13, 81))  # E4 positional
    answer = await peer.call(Sum(a=13, b=81))
    print(answer.totel)  # E5 no such value in the answer
    text: str = answer.total  # E6 wrong type of the answer
    answer.total = 3  # E7 an answer is frozen
    await peer.callRemote(Sum, b=81)  # E8 a is missing
    await peer.callRemote(Sum, a=13, b="81")  # E9 wrong type
    await peer.call(Book(room=1, arrival=when, guests=["Ada"]))  # E10 type of an element
    await peer.call("Sum")  # E11 not a question
    await peer.call(Sum)  # E12 the class, not a question
    number: int = await peer.call(Greet())  # E13 wrong type of an answer of one value
    async with peer.stream(Tail(nam="log")) as lines:  # E14 unknown
        async for line in lines:
            print(line.txt)  # E15 no such value in the item
    async with peer.stream(Upload(name="x")) as upload:
        await upload.send("piece")  # E16 wrong type of an item
        receipt: int = await upload.answer()  # E17 wrong type of the answer
    await peer.call(Tail(name="log"))  # E18 a stream is not a call
    print(text, number, receipt)


class Wrong(AMP):
    @Sum.responder  # E19 wrong type of a parameter
    async def one(self, a: str, b: int = 0) -> Total:
        return Total(total=b)

    @Sum.responder  # E20 a parameter is missing
    async def two(self, a: int) -> Total:
        return Total(total=a)

    @Sum.responder  # E21 wrong answer
    async def three(self, a: int, b: int = 0) -> Booking:
        return Booking(number=a)

    @Greet.responder  # E22 wrong answer of a plain def
    def four(self, name: str = "you") -> int:
        return len(name)

    @Leave.responder
    async def five(self, number: int) -> None:
        Total(total="x")  # E23 wrong type in an answer

    @Tail.responder  # E24 wrong type of the items
    async def six(self, name: str) -> AsyncIterator[Total]:
        yield Total(total=1)
        yield Line(number=1, text="x")  # E25 wrong item
