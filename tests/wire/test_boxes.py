"""Boxes: how one is made, written and sent."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from twisted.protocols import amp as twisted_amp

from amp_asyncio import AmpBox, Box, MalformedAmpBox, QuitBox, TooLong
from amp_asyncio.wire import boxes

twisted: Any = twisted_amp

CONTENTS = st.dictionaries(st.binary(min_size=1, max_size=255), st.binary(max_size=300), max_size=8)


@pytest.mark.parametrize("name", [name for name in boxes.__all__ if name.isupper()])
def test_constants_are_those_of_twisted(name: str) -> None:
    assert getattr(boxes, name) == getattr(twisted_amp, name)


def test_is_made_like_a_dict() -> None:
    expected = {b"a": b"1", b"b": b"2"}
    assert AmpBox(expected) == AmpBox(expected.items()) == AmpBox(a=b"1", b=b"2") == expected
    assert AmpBox({"a": b"1"}, b=b"2") == expected
    assert AmpBox() == {}
    assert Box is AmpBox


def test_names_are_ascii() -> None:
    with pytest.raises(UnicodeEncodeError):
        AmpBox(ä=b"")


@pytest.mark.parametrize("kind", [AmpBox, QuitBox])
def test_copy(kind: type[AmpBox]) -> None:
    box = kind(a=b"1")
    twin = box.copy()
    twin[b"b"] = b"2"
    assert type(twin) is kind
    assert (box, twin) == ({b"a": b"1"}, {b"a": b"1", b"b": b"2"})


def test_repr() -> None:
    assert repr(AmpBox(a=b"1")) == "AmpBox({b'a': b'1'})"
    assert repr(QuitBox()) == "QuitBox({})"


def test_serialize() -> None:
    assert AmpBox(b=b"", a=b"xyz").serialize() == b"\0\1a\0\3xyz\0\1b\0\0\0\0"
    assert AmpBox().serialize() == b"\0\0"


@given(CONTENTS)
@example({b"k" * 255: b"v" * 65535})
@example({b"k" * 255: b"", b"\0": b"\0\0"})
def test_serialize_as_twisted_does(contents: dict[bytes, bytes]) -> None:
    assert AmpBox(contents).serialize() == twisted.AmpBox(contents).serialize()


def test_too_long_to_serialize() -> None:
    with pytest.raises(TooLong) as key:
        AmpBox({b"k" * 256: b""}).serialize()
    assert key.value.args == (True, True, b"k" * 256, None)
    with pytest.raises(TooLong) as value:
        AmpBox(k=b"v" * 65536).serialize()
    assert value.value.args == (False, True, b"v" * 65536, b"k")


def test_empty_key_does_not_serialize() -> None:
    with pytest.raises(MalformedAmpBox, match="cannot be empty; its value is b'x'"):
        AmpBox({b"": b"x"}).serialize()


@pytest.mark.parametrize(
    "pair", [("k", b"v"), (1, b"v"), (b"k", "v"), (b"k", None), (b"k", bytearray())]
)
def test_only_bytes_serialize(pair: tuple[Any, Any]) -> None:
    box = AmpBox()
    box[pair[0]] = pair[1]
    with pytest.raises(TypeError, match=r"a box's (keys|values) are bytes"):
        box.serialize()
    box[b"other"] = b""
    with pytest.raises(TypeError):
        box.serialize()


class Sender:
    """Writes down what becomes of the boxes."""

    def __init__(self) -> None:
        self.log: list[object] = []

    def sendBox(self, box: AmpBox) -> None:
        self.log.append(box)

    def finish_writing(self) -> None:
        self.log.append("finished")


def test_sending() -> None:
    sender: Any = Sender()
    box, quit_box = AmpBox(a=b"1"), QuitBox(b=b"2")
    box._sendTo(sender)
    quit_box._sendTo(sender)
    assert sender.log == [box, quit_box, "finished"]


def test_a_key_named_like_a_parameter() -> None:
    assert AmpBox(self=b"x") == {b"self": b"x"}
