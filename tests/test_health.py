"""What a peer says about itself: whether it serves, and which commands it answers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support import Math, Patient, Sum, Wait, listening, raw_client, raw_pair, reach, turns

from amp_asyncio import (
    AMP,
    AmpBox,
    AmpList,
    BoxParser,
    Command,
    Integer,
    Limits,
    ListOf,
    NotServing,
    UnhandledCommand,
    Unicode,
)
from amp_asyncio.testing import pair


async def test_a_server_says_what_it_serves() -> None:
    async with listening(Math) as server, reach(server) as client:
        assert await client.health()
        assert not await client.health("db")
        server.health["db"] = True
        server.health["queue"] = False
        assert await client.health("db", timeout=5)
        assert not await client.health("queue")
        assert not await client.health()
        with pytest.raises(NotServing, match="not serving"):
            await client.callRemoteString("_health", service=b"queue")
        del server.health["queue"]
        assert await client.health()


async def test_a_connection_that_is_closing_does_not_serve() -> None:
    async with raw_pair(Patient) as (amp, peer):
        peer.send(AmpBox(_command=b"Wait", _ask=b"1", name=b"x"))
        await amp.started.get()
        closing = asyncio.ensure_future(amp.close())
        await turns()
        peer.send(AmpBox(_command=b"_health", _ask=b"2"))
        await peer.until(lambda: peer.boxes())
        assert peer.boxes()[0][b"_error_code"] == b"_NOT_SERVING"
        amp.let("x")
        await peer.until(lambda: "eof" in peer.events)
        peer.transport.close()
        await closing


async def test_a_load_balancer_needs_no_more_than_this() -> None:
    async with raw_pair() as (_, peer):
        peer.send(AmpBox(_command=b"_health", _ask=b"1"))
        await peer.until(lambda: peer.boxes())
        assert peer.boxes() == [AmpBox(_answer=b"1")]


async def test_an_old_peer_knows_neither() -> None:
    class Old(Math):
        extensions = False
        describable = True

    async with pair(Old) as (_, client):
        with pytest.raises(UnhandledCommand):
            await client.health()
        with pytest.raises(UnhandledCommand):
            await client.describe()


class Book(Command):
    """Book a room.

    And more.
    """

    arguments = [
        (b"from", Unicode()),
        (b"guests", AmpList([(b"name", Unicode()), (b"ages", ListOf(Integer(), optional=True))])),
    ]
    response = [(b"number", Integer(optional=True))]
    errors = {KeyError: b"NO_ROOM"}
    requiresAnswer = False


class Hotel(AMP):
    describable = True

    @Book.responder
    def book(self, From: str, guests: Any) -> dict[str, Any]:
        return {}

    @Sum.responder
    def sum(self, a: int, b: int) -> dict[str, int]:
        return {"total": a + b}


class Closed(Hotel):
    sum = None


def integer(name: str) -> dict[str, Any]:
    return {"name": name, "python_name": name, "type": "Integer", "optional": False}


async def test_a_class_that_is_describable_says_what_can_be_asked() -> None:
    async with pair(Closed) as (_, client):
        [book] = await client.describe(timeout=5)
    assert book == {
        "name": "Book",
        "arguments": [
            {"name": "from", "python_name": "From", "type": "Unicode", "optional": False},
            {
                "name": "guests",
                "python_name": "guests",
                "type": "AmpList",
                "optional": False,
                "of": [
                    {"name": "name", "python_name": "name", "type": "Unicode", "optional": False},
                    {
                        "name": "ages",
                        "python_name": "ages",
                        "type": "ListOf",
                        "optional": True,
                        "of": {"type": "Integer", "optional": False},
                    },
                ],
            },
        ],
        "response": [{**integer("number"), "optional": True}],
        "errors": {"NO_ROOM": "KeyError"},
        "requires_answer": False,
        "doc": "Book a room.",
    }
    async with pair(Hotel) as (_, client):
        described = await client.describe()
    assert [command["name"] for command in described] == ["Book", "Sum"]
    assert described[1]["doc"] == ""


async def test_a_description_may_be_long() -> None:
    commands = [type(f"Command{n}", (Sum,), {"__doc__": "x" * 500}) for n in range(300)]
    responders = {
        f"r{number}": command.responder(lambda self, a, b: {"total": a})
        for number, command in enumerate(commands)
    }
    large: Any = type("Large", (AMP,), {"describable": True, **responders})
    async with pair(large) as (_, client):
        assert len(await client.describe()) == 300


async def test_others_say_nothing() -> None:
    for kind in (Math, type("Odd", (Math,), {"describable": "yes"})):
        async with pair(kind) as (_, client):
            with pytest.raises(UnhandledCommand, match="not describable"):
                await client.describe()


# --- floods ---


@pytest.mark.parametrize("name", [b"_ping", b"_health", b"_describe", b"_cancel"])
async def test_a_flood_is_bounded(name: bytes) -> None:
    async with raw_pair(Patient) as (amp, peer):
        peer.transport.pause_reading()
        peer.send(AmpBox(_command=b"Sum", _ask=b"f", a=b"1", b=b"2", _offer=b"f cancel"))
        async with pair(Math) as (_, other):
            box = AmpBox(_command=name, _ask=b"1", ask=b"9", service=bytes(60)).serialize()
            for _ in range(150):
                peer.transport.write(box * 100)
                assert await other.callRemote(Sum, a=1, b=2) == {"total": 3}
                if amp.transport is None:
                    break
                assert amp.transport.get_write_buffer_size() < 2**20
        assert (amp.transport is None) == (name != b"_cancel")


async def test_asking_and_cancelling_at_once_is_bounded() -> None:
    """A peer cannot have more running by cancelling what it asks."""
    running = most = 0

    class Counting(Patient):
        @Wait.responder
        async def wait(self, name: str) -> dict[str, str]:  # type: ignore[override]
            nonlocal running, most
            running += 1
            most = max(most, running)
            try:
                await asyncio.Event().wait()
            finally:
                try:
                    await asyncio.sleep(0)  # It takes a while to end.
                finally:
                    running -= 1
            raise AssertionError

    limits = Limits(max_concurrent_responders=10)
    async with listening(Counting, limits=limits) as server, raw_client(server) as (reader, writer):
        writer.write(
            AmpBox(_command=b"Divide", _ask=b"f", a=b"1", b=b"2", _offer=b"f cancel").serialize()
        )
        boxes: list[AmpBox] = []
        parser = BoxParser()

        async def read() -> None:
            while len(boxes) < 1002:
                parser.feed(await reader.read(65536))
                boxes.extend(iter(parser.next_box, None))

        reading = asyncio.ensure_future(read())
        for tag in range(1, 1001):
            writer.write(AmpBox(_command=b"Wait", _ask=b"%x" % tag, name=b"x").serialize())
            if tag % 2:
                await turns()  # It may have begun.
            writer.write(AmpBox(_command=b"_cancel", ask=b"%x" % tag).serialize())
            await writer.drain()
        await reading
        assert {box.get(b"_error_code") for box in boxes[2:]} == {b"_CANCELLED"}
        assert len({box[b"_error"] for box in boxes[2:]}) == 1000
        assert 0 < most <= 10
        assert running == 0
