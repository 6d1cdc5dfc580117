"""A service with streams, which says what its commands are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, ClassVar, Never

from attrs import frozen

from amp_asyncio import AMP, Command, Stream, StreamCommand


@frozen
class Row:
    number: int
    text: str | None


@frozen
class Receipt:
    size: int
    last: bytes


class NoSuchTable(Exception):
    pass


class Rows(StreamCommand[Row]):
    """Read a table."""

    table: str
    errors: ClassVar[Any] = {NoSuchTable: b"NO_SUCH_TABLE"}


class Upload(StreamCommand[Never, bytes, Receipt]):
    most: int = 1000


class Double(StreamCommand[list[int], list[int]]):
    pass


class Follow(StreamCommand[str]):
    pass


class Greet(Command[str], answer="text"):
    name: str


class Feed(AMP):
    describable = True
    ended: ClassVar[list[str]] = []

    @Rows.responder
    async def rows(self, table: str) -> AsyncIterator[Row]:
        yield Row(number=1, text="grün")
        yield Row(number=2, text=None)
        if table != "guests":
            raise NoSuchTable(table)

    @Upload.responder
    async def upload(self, stream: Stream[bytes, Never], most: int) -> Receipt:
        size, last = 0, b""
        if most:
            async for last in stream:
                size += len(last)
                if size >= most:
                    break
        return Receipt(size=size, last=last)

    @Double.responder
    async def double(self, stream: Stream[list[int], list[int]]) -> None:
        async for numbers in stream:
            if not numbers:
                raise ValueError("nothing to double")
            await stream.send([2 * number for number in numbers])

    @Follow.responder
    async def follow(self) -> AsyncIterator[str]:
        try:
            yield "first"
            yield "second\n\x1b[2J"
            await asyncio.get_running_loop().create_future()
        finally:
            self.ended.append("follow")

    @Greet.responder
    async def greet(self, name: str) -> str:
        return f"Hello, {name}!"


class Silent(Feed):
    """Does not say what its commands are."""

    describable = False


class Old(Feed):
    """Does not know streams."""

    extensions = False
