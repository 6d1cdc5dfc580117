"""Schemas: names, what is refused where a schema is defined, and what its errors say."""

from __future__ import annotations

import keyword
import string
from collections.abc import Callable
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from twisted.protocols import amp as twisted_amp

from amp_asyncio import AmpBox, AmpList, Command, Integer, InvalidSignature, MalformedAmpBox, String
from amp_asyncio.commands.names import PYTHON_KEYWORDS, python_name, wire_name
from amp_asyncio.commands.schemas import Schema

twisted_name: Callable[[bytes], str] = twisted_amp._wireNameToPythonIdentifier


def test_keywords_are_those_of_twisted() -> None:
    assert frozenset(twisted_amp.PYTHON_KEYWORDS) == PYTHON_KEYWORDS


@pytest.mark.parametrize("word", sorted({*keyword.kwlist, *keyword.softkwlist, *PYTHON_KEYWORDS}))
def test_keywords_are_capitalised_as_twisted_does(word: str) -> None:
    name = python_name(word.encode())
    assert name == twisted_name(word.encode())
    assert name == (word.title() if word in PYTHON_KEYWORDS else word)


@given(st.text(string.ascii_letters + string.digits + "-_.").map(str.encode))
@example(b"from")
@example(b"is-not")
@example(b"-")
def test_names_become_those_of_twisted(name: bytes) -> None:
    assert python_name(name) == twisted_name(name)


def test_wire_name() -> None:
    assert wire_name("name", "it") == wire_name(b"name", "it") == b"name"
    with pytest.raises(ValueError, match="it: a name is ASCII, not 'ä'"):
        wire_name("ä", "it")
    for name in (1, None, bytearray(b"name")):
        with pytest.raises(TypeError, match="it: a name is bytes or str"):
            wire_name(name, "it")


def command_with(attribute: str) -> Callable[[Any], Any]:
    return lambda pairs: type("C", (Command,), {attribute: pairs})


@pytest.mark.parametrize(
    "define",
    [lambda pairs: Schema(pairs, "it"), command_with("arguments"), command_with("response"), AmpList],
    ids=["Schema", "arguments", "response", "AmpList"],
)
@pytest.mark.parametrize(
    ("pairs", "error", "match"),
    [
        ([(b"a", Integer()), (b"a", String())], ValueError, "b'a' and b'a' are both a in Python"),
        ([(b"a", Integer()), ("a", String())], ValueError, "b'a' and b'a' are both a in Python"),
        ([(b"a-b", Integer()), (b"a_b", Integer())], ValueError, "b'a_b' and b'a-b' are both a_b"),
        ([(b"if", Integer()), (b"If", Integer())], ValueError, "b'If' and b'if' are both If"),
        ([(b"", Integer())], ValueError, "b'' must have 1 to 255 bytes"),
        ([(b"k" * 256, Integer())], ValueError, "must have 1 to 255 bytes"),
        ([(b"a", Integer)], TypeError, "b'a' must be an Argument instance, not <class"),
        ([(b"a", int)], TypeError, "b'a' must be an Argument instance, not <class 'int'>"),
        ([(b"a", None)], TypeError, "b'a' must be an Argument instance, not None"),
        ([b"a"], TypeError, "b'a' is not a pair"),
        ([(b"a", Integer(), 1)], TypeError, "is not a pair of a name and an Argument"),
        ([None], TypeError, "None is not a pair"),
        ([("ä", Integer())], ValueError, "a name is ASCII, not 'ä'"),
        ([(b"\xe4", Integer())], ValueError, "ascii"),
        ([(1, Integer())], TypeError, "a name is bytes or str, not 1"),
    ],
)
def test_bad_schema(
    define: Callable[[Any], Any], pairs: Any, error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        define(pairs)


def test_good_schema() -> None:
    a, b = Integer(), String(optional=True)
    schema = Schema([(b"k" * 255, a), ("a-b", b)], "it")
    assert schema.pairs == [(b"k" * 255, a), (b"a-b", b)]


class HalfDuck:
    def fromBox(self, name: bytes, strings: Any, objects: dict[str, Any], proto: Any) -> None:
        objects[name.decode()] = strings.pop(name)


class Duck(HalfDuck):
    """An argument that is so by what it does alone."""

    def toBox(self, name: bytes, strings: Any, objects: dict[str, Any], proto: Any) -> None:
        strings[name] = objects.pop(name.decode())


def test_any_object_with_the_two_methods_is_an_argument() -> None:
    with pytest.raises(TypeError, match="b'a' must be an Argument instance"):
        Schema([(b"a", HalfDuck())], "it")
    schema = Schema([(b"a", Duck())], "it")
    with pytest.raises(InvalidSignature, match="it: missing a"):
        schema.check({})
    assert schema.encode({"a": b"1"}, AmpBox(), None) == {b"a": b"1"}
    assert schema.decode({b"a": b"1"}, None) == {"a": b"1"}


SCHEMA = Schema([(b"in", Integer()), (b"a-b", String()), (b"c", Integer(optional=True))], "the thing")


@pytest.mark.parametrize(
    ("objects", "message"),
    [
        ({}, "the thing: missing In, a_b"),
        ({"In": 1, "c": 2}, "the thing: missing a_b"),
        ({"a-b": b""}, "the thing: missing In, a_b; unknown a-b; it has In, a_b, c"),
        ({"In": 1, "c": 2, "y": 1, 1: 1}, "the thing: missing a_b; unknown 1, y; it has In, a_b, c"),
        ({"In": 1, "a_b": b"", "y": 1, 1: 1}, "the thing: unknown 1, y; it has In, a_b, c"),
        ({"In": 1, "a_b": b"", "a-b": b""}, "the thing: unknown a-b; it has In, a_b, c"),
        ({"In": 1, "a_b": b"", "in": 1}, "the thing: unknown in; it has In, a_b, c"),
    ],
)
def test_signature(objects: dict[Any, Any], message: str) -> None:
    for check in (SCHEMA.check, lambda objects: SCHEMA.encode(objects, AmpBox(), None)):
        with pytest.raises(InvalidSignature) as caught:
            check(objects)
        assert str(caught.value) == message


def test_encode() -> None:
    objects = {"In": 1, "a_b": b"x", "c": 2}
    box = AmpBox()
    assert SCHEMA.encode(MappingProxyType(objects), box, None) is box
    assert box == {b"in": b"1", b"a-b": b"x", b"c": b"2"}
    assert objects == {"In": 1, "a_b": b"x", "c": 2}
    assert SCHEMA.encode({"In": 1, "a_b": b"x"}, AmpBox(), None) == {b"in": b"1", b"a-b": b"x"}


@pytest.mark.parametrize("objects", [None, b"x", [("In", 1)], {"In"}])
def test_only_mappings_encode(objects: Any) -> None:
    with pytest.raises(TypeError, match="the thing: .* is not a mapping of names to values"):
        SCHEMA.encode(objects, AmpBox(), None)


def test_value_that_does_not_encode() -> None:
    with pytest.raises(TypeError, match="a String is bytes, not 'x'") as caught:
        SCHEMA.encode({"In": 1, "a_b": "x"}, AmpBox(), None)
    assert caught.value.__notes__ == ["the thing: b'a-b' could not be encoded"]


def test_decode() -> None:
    box = AmpBox({b"in": b"1", b"a-b": b"x", b"other": b"y"})
    assert SCHEMA.decode(box, None) == {"In": 1, "a_b": b"x", "c": None}
    assert box == {b"in": b"1", b"a-b": b"x", b"other": b"y"}


def test_value_that_does_not_decode() -> None:
    with pytest.raises(MalformedAmpBox, match="the thing: b'in' is b'one': not an integer") as caught:
        SCHEMA.decode({b"in": b"one", b"a-b": b""}, None)
    assert type(caught.value.__cause__) is ValueError
    with pytest.raises(MalformedAmpBox, match="the thing: b'a-b' is missing") as missing:
        SCHEMA.decode({b"in": b"1"}, None)
    assert type(missing.value.__cause__) is KeyError


def test_foreign_values_are_shortened() -> None:
    with pytest.raises(MalformedAmpBox) as caught:
        SCHEMA.decode({b"in": b"x" * 65535}, None)
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize("name", [b"_ask", b"_answer", b"_command", b"_error"])
@pytest.mark.parametrize("attribute", ["arguments", "response"])
def test_reserved_names(attribute: str, name: bytes) -> None:
    with pytest.raises(ValueError, match="is one of AMP's own"):
        command_with(attribute)([(name, Integer())])
    assert AmpList([(name, Integer())]).toString([{name.decode(): 1}]), "they mean nothing in there"


def test_errors_of_decoding_are_of_bounded_length() -> None:
    class Fussy(Integer):
        def fromString(self, inString: bytes) -> int:
            raise LookupError(f"not {inString!r}")

    with pytest.raises(MalformedAmpBox) as caught:
        Schema([(b"a", Fussy())], "it").decode({b"a": b"x" * 60000}, None)
    assert len(str(caught.value)) < 600
    with pytest.raises(MalformedAmpBox, match="b'a': not b'x'"):
        Schema([(b"a", Elsewhere())], "it").decode({b"b": b"x"}, None)


class Elsewhere(Integer):
    def fromBox(self, name: bytes, strings: Any, objects: Any, proto: Any) -> None:
        raise LookupError(f"not {strings[b'b']!r}")
