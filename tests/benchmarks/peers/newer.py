"""What older revisions of this package do not have: typed commands and streams."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from attrs import frozen

from amp_asyncio import AMP, Command, StreamCommand

__all__ = ["Newer", "newer_ways"]


@frozen
class Total:
    total: int


class TypedSum(Command[Total]):
    a: int
    b: int


class Items(StreamCommand[int]):
    count: int


class Newer(AMP):
    @TypedSum.responder
    def typed_sum(self, a: int, b: int) -> Total:
        return Total(total=a + b)

    @Items.responder
    async def items(self, count: int) -> AsyncIterator[int]:
        for item in range(count):
            yield item


def newer_ways(amp: AMP) -> dict[str, Any]:
    """Return what is asked, by the name of what a shape measures."""

    async def take(count: int = 1) -> None:
        async with amp.stream(Items(count=count)) as items:
            assert len([item async for item in items]) == count

    return {"typed": lambda: amp.call(TypedSum(a=13, b=81)), "items": take}
