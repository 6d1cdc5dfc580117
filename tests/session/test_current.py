"""What a responder can learn about the call that it answers."""

from __future__ import annotations

import asyncio
from typing import Any

from support import Echo, Notify, Sum, Wait

from amp_asyncio import AMP, Call, current_call, remaining
from amp_asyncio.testing import pair


class Curious(AMP):
    """Keeps what `current_call` returns in each of its responders."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Call | None] = []
        self.task: asyncio.Task[Call | None] | None = None
        self.go_on = asyncio.Event()

    @Sum.responder
    async def sum(self, a: int, b: int) -> dict[str, int]:
        self.seen.append(current_call())
        await asyncio.sleep(0)
        self.seen.append(current_call())
        return {"total": a + b}

    @Echo.responder
    def echo(self, data: bytes) -> dict[str, bytes]:
        self.seen += [current_call(), current_call()]
        return {"data": data}

    @Notify.responder
    def notify(self, data: bytes) -> None:
        self.seen.append(current_call())

    @Wait.responder
    async def wait(self, name: str) -> dict[str, str]:
        async def later() -> Call | None:
            self.seen.append(current_call())
            await self.go_on.wait()
            return current_call()

        self.task = asyncio.create_task(later())
        await asyncio.sleep(0)
        return {"name": name}


async def test_a_responder_sees_its_call() -> None:
    async with pair(Curious) as (server, client):
        for command, arguments in (
            (Sum, {"a": 1, "b": 2}),
            (Echo, {"data": b"x"}),
            (Notify, {"data": b""}),
        ):
            await client.callRemote(command, **arguments)
        await client.callRemote(Sum, a=1, b=2)
        seen: list[Any] = server.seen
    assert [call.command for call in seen] == [b"Sum"] * 2 + [b"Echo"] * 2 + [b"Notify"] + [b"Sum"] * 2
    assert {call.direction for call in seen} == {"answering"}
    assert {call.amp for call in seen} == {server}
    assert seen[0] is seen[1] is not seen[-1]
    assert seen[2] is seen[3]
    assert (seen[0].deadline, seen[0].metadata, seen[0].remaining()) == (None, {}, None)
    assert repr(seen[0]) == "<Call answering Sum>"


async def test_there_is_none_outside_of_responders() -> None:
    assert current_call() is None
    assert remaining() is None
    async with pair(Curious) as (server, client):
        await client.callRemote(Wait, name="x")
        assert server.task is not None
        server.go_on.set()
        assert await server.task is None, "the responder has ended"
        assert server.seen[0] is not None, "it had not ended yet"
        assert current_call() is None
    assert current_call() is None


def test_there_is_none_without_an_event_loop() -> None:
    assert current_call() is None
