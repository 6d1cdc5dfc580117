"""Errors with fields: declared exceptions that are attrs classes or dataclasses."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import attrs
import pytest
from attrs import define, field, frozen
from attrs.validators import ge
from support import raw_pair, turns

from amp_asyncio import (
    AMP,
    AmpBox,
    BigString,
    Command,
    Descriptor,
    Limits,
    RemoteAmpError,
    Wire,
)
from amp_asyncio.testing import ScriptedPeer, pair


@frozen
class Guest:
    name: str


@define
class NoRoom(Exception):
    room: int
    free: list[int]
    guest: Guest | None
    note: Annotated[str, Wire("the-note")] = "none"
    tags: list[str] = field(factory=list)
    photo: Annotated[bytes, BigString()] = b""


@dataclasses.dataclass
class Closed(Exception):
    until: int

    def __str__(self) -> str:
        return f"closed until {self.until}"


@define
class Empty(Exception):
    pass


class Book(Command[None]):
    errors = {NoRoom: b"NO_ROOM", Closed: b"CLOSED", Empty: b"EMPTY"}


class Rebook(Book):
    """It inherits its errors."""


class OldBook(Command):
    errors = {NoRoom: b"NO_ROOM"}
    commandName = b"Book"


class Hotel(AMP):
    failure: Exception

    @Book.responder
    async def book(self) -> None:
        raise self.failure

    @Rebook.responder
    def rebook(self) -> None:
        raise self.failure


ALL = NoRoom(3, [1, 2], Guest("Ada"), "nö", ["x"], bytes(70_000))


@pytest.mark.parametrize("command", [Book, Rebook, OldBook])
@pytest.mark.parametrize("error", [ALL, NoRoom(1, [], None), Closed(3), Empty()])
async def test_fields_arrive(command: Any, error: Exception) -> None:
    if command is OldBook and not isinstance(error, NoRoom):
        return
    async with pair(Hotel) as (hotel, client):
        hotel.failure = error
        with pytest.raises(type(error)) as caught:
            await client.callRemote(command)
        kind: Any = attrs.fields_dict(type(error)) if attrs.has(type(error)) else {"until": 0}
        for name in kind:
            assert getattr(caught.value, name) == getattr(error, name)
        assert str(caught.value) == str(error)
        await turns()


async def test_the_fields_are_keys_that_old_peers_ignore() -> None:
    async with raw_pair(Hotel) as (hotel, peer):
        hotel.failure = NoRoom(3, [1], None, tags=["a"])
        peer.send(AmpBox(_command=b"Book", _ask=b"1"))
        await peer.until(lambda: peer.data.endswith(b"\0\0"))
        assert peer.boxes() == [
            {
                b"_error": b"1",
                b"_error_code": b"NO_ROOM",
                b"_error_description": str(hotel.failure).encode(),
                b"room": b"3",
                b"free": b"\0\x011",
                b"the-note": b"none",
                b"tags": b"\0\1a",
                b"photo": b"",
            }
        ]


def error_box(code: str = "NO_ROOM", **fields: bytes) -> Any:
    texts = {"_error_code": code.encode(), "_error_description": b"no room"}
    return lambda tag: AmpBox(_error=tag, **texts, **fields).serialize()


async def failed(write: Any, command: Any = Book, limits: Limits | None = None) -> Any:
    async with pair(ScriptedPeer, limits=limits) as (peer, client):
        peer.expect(command).write(write)
        with pytest.raises(Exception) as caught:
            await client.callRemote(command)
        return caught.value


async def test_what_is_missing_takes_its_default_or_stays_unset() -> None:
    error = await failed(error_box())
    assert type(error) is NoRoom
    assert str(error) == "no room"
    assert (error.guest, error.note, error.tags, error.photo) == (None, "none", [], b"")
    assert not hasattr(error, "room")
    error = await failed(error_box(room=b"many", free=b"\0\x017", tags=b"\0"))
    assert (error.free, error.tags) == ([7], [])
    assert not hasattr(error, "room")
    error = await failed(error_box(room=b"5", free=b""))
    assert (error.room, error.free, error.guest) == (5, [], None)
    error = await failed(error_box("EMPTY"))
    assert type(error) is Empty
    assert str(error) == "no room"


async def test_an_error_that_came_without_fields_goes_on_without() -> None:
    came = await failed(error_box(room=b"5"))
    async with pair(Hotel) as (hotel, client):
        hotel.failure = came
        with pytest.raises(NoRoom) as caught:
            await client.call(Book())
        assert caught.value.room == 5
        assert not hasattr(caught.value, "free")


async def test_a_long_list_is_not_read() -> None:
    error = await failed(
        error_box(room=b"1", free=b"\0\x011" * 20_000), limits=Limits(max_box_size=2**18)
    )
    assert error.room == 1
    assert not hasattr(error, "free")


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (NoRoom("x", [1], None), "room"),  # type: ignore[arg-type]
        (NoRoom(1, [1], None, note="x" * 70_000), "note"),
        (NoRoom(1, [1], None, photo=bytes(300_000)), "photo"),
        (NoRoom(1, [1] * 3000, None), "free"),
    ],
)
async def test_what_does_not_fit_is_left_out(
    error: NoRoom, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with pair(Hotel, limits=Limits(max_box_size=2**18)) as (hotel, client):
        hotel.failure = error
        with pytest.raises(NoRoom) as caught:
            await client.call(Book())
        fields = attrs.fields_dict(NoRoom)
        for each in fields.keys() - {name}:
            assert getattr(caught.value, each) == getattr(error, each)
        left = getattr(caught.value, name, attrs.NOTHING)
        assert left == (fields[name].default if name in ("note", "photo") else attrs.NOTHING)
    assert f"NoRoom was sent without its field {name}" in caplog.text


async def test_values_that_the_class_refuses() -> None:
    @define
    class Checked(Exception):
        number: int = field(validator=ge(0))

    class Ask(Command[None]):
        errors = {Checked: b"CHECKED"}

    error = await failed(error_box("CHECKED", number=b"-1"), Ask)
    assert type(error) is Checked
    assert error.number == -1
    assert str(error) == "no room"


async def test_a_class_that_cannot_be_made() -> None:
    @define
    class Odd(Exception):
        number: int

        def __new__(cls, *arguments: object) -> Odd:
            if arguments == ("no room",):
                raise RuntimeError("never")
            return super().__new__(cls, *arguments)

    class Ask(Command[None]):
        errors = {Odd: b"ODD"}

    error = await failed(error_box("ODD"), Ask)
    assert isinstance(error, RemoteAmpError)
    assert error.fields == {}
    error = await failed(error_box("ODD", number=b"x"), Ask)
    assert error.fields == {b"number": b"x"}


async def test_annotations_that_are_resolved_later(caplog: pytest.LogCaptureFixture) -> None:
    @define
    class Late(Exception):
        guest: LaterGuest  # noqa: F821

    class Book(Command[None]):
        errors = {Late: b"LATE"}

    class Hotel(AMP):
        failure: Exception

        @Book.responder
        async def book(self) -> None:
            raise self.failure

    async with pair(Hotel) as (hotel, client):
        hotel.failure = Late(3)  # type: ignore[arg-type]
        with pytest.raises(Late):
            await client.call(Book())
        assert "Late was sent without its field any: " in caplog.text
        globals()["LaterGuest"] = Guest
        try:
            hotel.failure = Late(Guest("Ada"))  # type: ignore[arg-type]
            with pytest.raises(Late) as caught:
                await client.call(Book())
            assert caught.value.guest == Guest("Ada")
        finally:
            del globals()["LaterGuest"]


async def test_a_scripted_peer_sends_them() -> None:
    async with pair(ScriptedPeer) as (peer, client):
        peer.expect(Book).fail(NoRoom(1, [2], None))
        with pytest.raises(NoRoom) as caught:
            await client.call(Book())
        assert caught.value.free == [2]


def test_errors_that_cannot_be_sent() -> None:
    @define
    class WithFile(Exception):
        file: Annotated[int, Descriptor()]

    @define
    class WithCause(Exception):
        cause: Exception

    @define
    class Reserved(Exception):
        text: Annotated[str, Wire("_error_code")]

    for error, message in (
        (WithFile, "the error WithFile has a Descriptor, and no error can carry one"),
        (WithCause, r"WithCause.cause: Exception has no argument: .*SomeArgument\(\)"),
        (Reserved, "the error Reserved: b'_error_code' is one of AMP's own keys"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            type("Ask", (Command,), {"errors": {error: b"X"}})
