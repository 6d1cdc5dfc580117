"""Large values: the lengths at which something changes, in the layouts that other peers use."""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from proc import open_descriptors
from samples import PIECE, SIZES, sample
from support import (
    Echo,
    Math,
    cause_of_loss,
    connected,
    content,
    limited,
    pipe_with,
    raw_pair,
    turns,
)

from amp_asyncio import (
    AMP,
    AmpBox,
    AmpList,
    BigString,
    BigUnicode,
    BoxParser,
    Command,
    ConnectionLost,
    Descriptor,
    Limits,
    ListOf,
    MalformedAmpBox,
    String,
    TooLong,
    UnknownRemoteError,
    parseString,
)
from amp_asyncio.wire.costs import PAIR_OVERHEAD


class Keep(Command):
    arguments = response = [
        (b"data", BigString()),
        (b"text", BigUnicode()),
        (b"more", BigString(optional=True)),
    ]


class Keeper(AMP):
    @Keep.responder
    def keep(self, **values: Any) -> dict[str, Any]:
        return values


# --- BigString and BigUnicode ---


@pytest.mark.parametrize("size", SIZES)
async def test_any_length_there_and_back(size: int) -> None:
    values = {"data": sample(size), "text": "ü" * min(size, 500_000)}
    async with connected(Keeper) as (_, client):
        assert await client.callRemote(Keep, **values) == {**values, "more": None}


@pytest.mark.parametrize("size", SIZES)
def test_layout(size: int) -> None:
    data = sample(size)
    box = Keep.makeArguments({"data": data, "text": ""}, None)
    count = max(1, -(-size // PIECE))
    keys = [b"data", *(b"data.%d" % number for number in range(2, count + 1))]
    assert box.keys() == {*keys, b"text"}
    assert [len(box[key]) for key in keys[:-1]] == [PIECE] * (count - 1)
    assert b"".join(box[key] for key in keys) == data
    [received] = parseString(box.serialize())
    assert Keep.parseArguments(received, None) == {"data": data, "text": "", "more": None}


@given(st.lists(st.binary(max_size=3), min_size=1, max_size=12), st.booleans())
@example([b"", b"a", b""], False)
def test_pieces_of_any_length_are_read(pieces: list[bytes], from_zero: bool) -> None:
    box = AmpBox(text=b"", other=b"x")
    for number, piece in enumerate(pieces, 0 if from_zero else 1):
        box[b"data.%d" % number if from_zero or number > 1 else b"data"] = piece
    box[b"data.%d" % (len(pieces) + 2)] = b"behind a gap"
    objects = Keep.parseArguments(box, None)
    assert objects == {"data": b"".join(pieces), "text": "", "more": None}


def test_pieces_are_taken_out_of_the_box() -> None:
    strings = {b"data": b"a", b"data.2": b"b", b"data.3": b"c", b"data.5": b"d"}
    objects: dict[str, Any] = {}
    BigString().fromBox(b"data", strings, objects, None)
    assert objects == {"data": b"abc"}
    assert strings == {b"data.5": b"d"}


@pytest.mark.parametrize("kind", [bytearray, memoryview])
def test_what_is_like_bytes_is_taken(kind: type[Any]) -> None:
    box = Keep.makeArguments({"data": kind(sample(70_000)), "text": ""}, None)
    assert Keep.parseArguments(box, None)["data"] == sample(70_000)


@pytest.mark.parametrize(("name", "value"), [("data", "text"), ("text", b"data"), ("data", None)])
def test_of_the_wrong_type(name: str, value: Any) -> None:
    with pytest.raises(TypeError):
        Keep.makeArguments({"data": b"", "text": "", name: value}, None)


def test_missing_and_malformed() -> None:
    with pytest.raises(MalformedAmpBox, match="b'data' is missing"):
        Keep.parseArguments({b"data.2": b"", b"text": b""}, None)
    with pytest.raises(MalformedAmpBox, match="b'text' is .* can't decode"):
        Keep.parseArguments({b"data": b"", b"text": b"\xc3", b"text.2": b"\xff"}, None)
    # A character may be divided between two pieces.
    divided = {b"data": b"", b"text": b"\xc3", b"text.2": b"\xbc"}
    assert Keep.parseArguments(divided, None)["text"] == "ü"


def test_in_lists() -> None:
    listed = AmpList([(b"data", BigString()), (b"text", BigUnicode(optional=True))])
    values = [{"data": sample(60_000), "text": None}, {"data": b"", "text": "ü"}]
    assert listed.fromString(listed.toString(values)) == values
    large = [{"data": sample(200_000), "text": None}]
    assert listed.fromString(listed.toString(large)) == large
    texts = ListOf(BigUnicode())
    assert texts.fromString(texts.toString(["", "ü"])) == ["", "ü"]
    with pytest.raises(TooLong, match="an element of a ListOf"):
        ListOf(BigString()).toString([sample(PIECE + 1)])


class Shout(BigUnicode):
    """A type of one's own: only how a value becomes bytes is its own."""

    def toString(self, inObject: str) -> bytes:
        return super().toString(inObject.upper())


def test_a_subclass_overrides_the_lowest_hook() -> None:
    box, argument = AmpBox(), Shout()
    argument.toBox(b"t", box, {"t": "x" * 70_000}, None)
    assert {key: len(value) for key, value in box.items()} == {b"t": PIECE, b"t.2": 70_000 - PIECE}
    assert box[b"t.2"] == b"X" * (70_000 - PIECE)


@pytest.mark.parametrize("name", ["data.0", "data.2", "data.46"])
def test_no_other_argument_is_named_as_a_piece(name: str) -> None:
    large, other = ("data", BigString()), (name, String())
    for pairs in ([large, other], [other, large]):
        with pytest.raises(ValueError, match=f"b'{name}' is a piece of the large value b'data'"):
            type("Ambiguous", (Command,), {"arguments": pairs})
    with pytest.raises(ValueError, match="an item of the AmpList.* is a piece"):
        AmpList([("data", BigString()), (name, String())])


def test_names_that_only_look_like_pieces() -> None:
    for pairs in (
        [("data", String()), ("data.2", String())],
        [("data", BigString()), ("data.", String()), ("data.x", String()), ("data2", String())],
        [("data", String()), ("data.2", BigString())],
    ):
        type("Fine", (Command,), {"arguments": pairs})


class LongName(Command):
    arguments = [("k" * 255, BigString())]


async def test_a_name_that_has_no_room_for_the_number() -> None:
    async with connected(Keeper) as (_, client):
        with pytest.raises(TooLong, match="local key too long: 257 bytes"):
            client.callRemote(LongName, **{"k" * 255: sample(PIECE + 1)})
        assert client.callRemote(LongName, **{"k" * 255: sample(PIECE)}).cancel()


# --- the limit of a box, on the way out ---


class Double(Command):
    arguments = response = [(b"data", String())]


class Optional(Command):
    """One that no template will do for."""

    arguments = response = [(b"data", String()), (b"more", String(optional=True))]


class Doubling(Math):
    @Double.responder
    @Optional.responder
    def double(self, data: bytes, **more: Any) -> dict[str, bytes]:
        return {"data": 2 * data}


@pytest.mark.parametrize("command", [Echo, Optional])
async def test_a_question_at_the_limit_and_one_byte_over(command: type[Command]) -> None:
    box = AmpBox(_command=command.commandName, _ask=b"1", data=b"")
    most = 10_000 - len(box.serialize()) - 3 * PAIR_OVERHEAD
    too_long = "local box too long: 3 pairs .* limit of 10000 bytes"
    async with raw_pair(max_box_size=10_000) as (client, peer):
        with pytest.raises(TooLong, match=too_long) as caught:
            client.callRemote(command, data=bytes(most + 1))
        assert (caught.value.isKey, caught.value.isLocal, caught.value.value) == (False, True, b"")
        client.callRemote(command, data=bytes(most)).cancel()
        await turns()
        parser = BoxParser(10_000)
        parser.feed(peer.data)
        assert parser.next_box() == {**box, b"data": bytes(most)}
        assert parser.next_box() is None
        assert not parser.in_box


@pytest.mark.parametrize("command", [Echo, Optional])
async def test_a_question_that_waits_is_refused_where_it_is_asked(command: type[Command]) -> None:
    async with raw_pair(max_box_size=10_000, window=10_000) as (client, peer):
        client.callRemote(command, data=bytes(6_000)).cancel()
        with pytest.raises(TooLong, match="local box too long"):
            client.callRemote(command, data=bytes(10_000))
        later = client.callRemote(command, data=bytes(6_000))
        with pytest.raises(TooLong, match="local box too long"):
            client.callRemote(command, data=bytes(10_000))
        peer.send(AmpBox(_answer=b"1", data=b""), AmpBox(_answer=b"2", data=b"x"))
        assert (await later)["data"] == b"x"
        await turns()
        assert [box[b"_ask"] for box in peer.boxes()] == [b"1", b"2"]


async def test_a_command_without_an_answer_that_waits() -> None:
    async with raw_pair(max_box_size=10_000, window=10_000) as (client, peer):
        client.callRemote(Echo, data=bytes(6_000)).cancel()
        waits = client.callRemoteString(b"Note", requiresAnswer=False, data=bytes(6_000))
        with pytest.raises(TooLong, match="local box too long"):
            client.callRemoteString(b"Note", requiresAnswer=False, data=bytes(10_000))
        peer.send(AmpBox(_answer=b"1", data=b""))
        assert await waits is None
        await turns()
        assert [box.get(b"_ask") for box in peer.boxes()] == [b"1", None]


@pytest.mark.parametrize("command", [Double, Optional])
async def test_an_answer_over_the_limit(
    command: type[Command], caplog: pytest.LogCaptureFixture
) -> None:
    class Small(Doubling):
        limits = Limits(max_box_size=10_000)

    async with connected(Small) as (_, client):
        assert (await client.callRemote(command, data=b"xy"))["data"] == b"xyxy"
        with pytest.raises(UnknownRemoteError):
            await client.callRemote(command, data=bytes(6_000))
    assert "local box too long" in caplog.text


async def test_what_the_peer_does_not_take_ends_the_connection() -> None:
    class Small(Doubling):
        limits = Limits(max_box_size=100_000)

    async with connected(Small) as (server, client):
        question = client.callRemote(Keep, data=sample(200_000), text="")
        with pytest.raises(ConnectionLost):
            await question
        await server.wait_closed()
        cause = await cause_of_loss(server)
        assert isinstance(cause, TooLong)
        assert str(cause).startswith("remote box too long")


class Verbose(Command):
    errors = {LookupError: b"LOOKUP"}


class Grumbling(AMP):
    limits = Limits(max_box_size=1000)

    @Verbose.responder
    def complain(self) -> None:
        raise LookupError("ü" * 2000)


async def test_the_text_of_an_error_is_cut_to_the_limit() -> None:
    async with connected(Grumbling, lambda: AMP()) as (_, client):
        for _ in range(2):
            with pytest.raises(LookupError) as caught:
                await client.callRemote(Verbose)
            text = caught.value.args[0]
            assert set(text) == {"ü"}
            assert 200 < len(text) < 500


async def test_an_error_that_has_no_room_at_all() -> None:
    server, transport = limited(Grumbling, max_box_size=500)
    server.data_received(AmpBox(_command=b"Verbose", _ask=b"x" * 200).serialize())
    assert transport.done == ["abort"]
    server.connection_lost(None)
    assert "local box too long" in str(await cause_of_loss(server))


class Piped(Command):
    arguments = [(b"file", Descriptor()), (b"data", String())]
    response = [(b"content", String())]


class Reader(AMP):
    @Piped.responder
    def read(self, file: int, data: bytes) -> dict[str, bytes]:
        return {"content": content(file)}


@pytest.mark.parametrize("version", [1, 2])
async def test_the_descriptors_of_a_box_that_is_too_long_stay(version: int) -> None:
    limits = Limits(max_box_size=100_000)
    before = open_descriptors()

    def peer() -> Reader:
        return Reader(version=version)

    async with connected(peer, peer, unix=True, limits=limits) as (_, client):
        file = pipe_with(b"it")
        # So long that the names of the arguments alone fit, and the rest of the box does not.
        data = bytes(100_000 - 2 * PAIR_OVERHEAD - 60) if version == 2 else bytes(65_536)
        for _ in range(2):
            with pytest.raises(TooLong):
                client.callRemote(Piped, file=file, data=data)
        question = client.callRemote(Piped, file=file, data=bytes(99_000 if version == 2 else 65_535))
        assert await question == {"content": b"it"}
        os.close(file)
    assert open_descriptors() <= before
