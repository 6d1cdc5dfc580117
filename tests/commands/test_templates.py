"""Templates: the same bytes as those of a box, and a box wherever a template will not do."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from fakes import plain
from hypothesis import example, given
from hypothesis import strategies as st
from support import raw_pair, turns
from twisted.protocols import amp as twisted_amp

from amp_asyncio import AMP, AmpBox, Argument, Command, Integer, ListOf, String, parseString
from amp_asyncio.commands.names import python_name
from amp_asyncio.commands.schemas import Schema
from amp_asyncio.commands.templates import Template
from amp_asyncio.testing import pair
from amp_asyncio.wire.boxes import ANSWER, ASK, COMMAND
from amp_asyncio.wire.costs import PAIR_OVERHEAD, box_cost

names = st.text("aZ09-_%.", min_size=1, max_size=12).map(str.encode).filter(lambda n: n[0] != 95)


@given(
    st.dictionaries(names, st.binary(max_size=300), max_size=6),
    st.binary(max_size=300),
    st.binary(max_size=300),
)
@example({b"%b": b"%d"}, b"%", b"%s%%")
@example({b"a": bytes(65534), b"b": bytes(256)}, bytes(65534), bytes(65534))
def test_the_bytes_are_those_of_a_box(values: dict[bytes, bytes], tag: bytes, command: bytes) -> None:
    try:
        schema = Schema([(name, String()) for name in values], "it")
    except ValueError:
        return  # Two names that are one in Python.
    objects = {python_name(name): value for name, value in values.items()}
    question = Template.of(schema, ASK, _command=command)
    answer = Template.of(schema, ANSWER)
    assert question is not None
    assert answer is not None
    for template, box in (
        (question, AmpBox({**values, ASK: tag, COMMAND: command})),
        (answer, AmpBox({**values, ANSWER: tag})),
    ):
        room = len(box.serialize()) + PAIR_OVERHEAD * len(box)
        assert template.fill(tag, objects, room - 1) is None
        data = template.fill(tag, objects, room)
        assert data is not None
        assert data == box.serialize() == twisted_amp.AmpBox(box).serialize()
        assert len(data) + template.overhead == box_cost(box)


def test_a_value_that_has_another_piece_in_version_2_needs_a_box() -> None:
    template = Template.of(Schema([(b"a", String())], "it"), ANSWER)
    assert template is not None
    for size, fits in ((65_534, True), (65_535, False), (65_536, False)):
        assert (template.fill(b"1", {"a": bytes(size)}, 10**6) is not None) is fits


class Rough(Argument):
    def toString(self, inObject: Any) -> Any:
        return inObject


@pytest.mark.parametrize(
    "objects",
    [
        {},
        {"a": b"", "b": b""},
        {"b": b""},
        {"a": "text"},
        {"a": None},
        {"a": bytearray(b"x")},
        {"a": bytes(65536)},
        [("a", b"")],
        None,
    ],
)
def test_what_does_not_fit_is_left_to_a_box(objects: Any) -> None:
    template = Template.of(Schema([(b"a", Rough())], "it"), ANSWER)
    assert template is not None
    assert template.fill(b"1", {"a": b"x"}, 1000) is not None
    assert template.fill(b"1", objects, 10**6) is None


def test_an_optional_value_that_is_no_bytes_needs_a_box() -> None:
    template = Template.of(Schema([(b"a", Rough(optional=True))], "it"), ANSWER)
    assert template is not None
    assert template.fill(b"1", {"a": b"x"}, 1000) is not None
    assert template.fill(b"1", {"a": "text"}, 1000) is None


def test_arguments_that_need_a_box() -> None:
    assert Template.of(Schema([(b"a", Integer()), (b"b", ListOf(Integer()))], "it"), ANSWER) is None


@given(
    st.dictionaries(names, st.none() | st.binary(max_size=300), max_size=6), st.sets(names, max_size=3)
)
@example({b"A": b"x", b"a": None, b"b": b""}, {b"A"})
@example({b"A": None, b"a": b"1", b"b": None}, set())
def test_what_is_left_out_or_none_has_no_key(
    values: dict[bytes, bytes | None], left_out: set[bytes]
) -> None:
    try:
        schema = Schema([(name, String(optional=name != b"a")) for name in values], "it")
    except ValueError:
        return  # Two names that are one in Python.
    objects = {python_name(name): value for name, value in values.items() if name not in left_out}
    template = Template.of(schema, ASK, _command=b"it")
    assert template is not None
    present = {
        name: value for name, value in values.items() if name not in left_out and value is not None
    }
    box = AmpBox({**present, ASK: b"1", COMMAND: b"it"})
    data = template.fill(b"1", objects, 10**6)
    if b"a" in values and b"a" not in present:
        assert data is None, "a is not optional"
        return
    assert data == box.serialize()
    assert len(data) + template.overhead >= box_cost(box), "the limits have room for it"
    assert template.fill(b"1", {**objects, "unknown": b""}, 10**6) is None
    for name in present.keys() - {b"a"}:
        assert template.fill(b"1", {**objects, python_name(name): "text"}, 10**6) is None


def test_a_name_that_no_box_can_hold() -> None:
    assert Template.of(Schema([], "it"), ASK, _command=bytes(65536)) is None


class Sum(Command):
    arguments = [(b"a", Integer()), (b"b", Integer())]
    response = [(b"total", Integer())]


class Math(AMP):
    @Sum.responder
    def sum(self, a: int, b: int) -> dict[str, int]:
        return {"total": a + b}


async def converse(kind: type[AMP], command: type[Command] = Sum) -> bytes:
    """Return what is written for a question and for an answer."""
    async with raw_pair(kind) as (amp, peer):
        future = amp.callRemote(command, a=13, b=81)
        peer.send(AmpBox(_command=b"Sum", _ask=b"7", a=b"1", b=b"2"), AmpBox(_answer=b"1", total=b"94"))
        assert await future == {"total": 94}
        await turns()
        return peer.data


class Boxed(AmpBox):
    """Notes that it was sent."""

    sent: list[AmpBox] = []

    def _sendTo(self, boxSender: Any) -> None:
        self.sent.append(self)
        super()._sendTo(boxSender)


def _boxed(box: AmpBox) -> AmpBox:
    return Boxed(box)


def _doing(self: Any, proto: Any) -> Any:
    Boxed.sent.append(self.makeArguments(self.structured, proto))
    return Command._doCommand(self, proto)


def _made(self: Any, **kw: Any) -> None:
    Boxed.sent.append(AmpBox(a=b"%d" % kw["a"]))
    Command.__init__(self, **kw)


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        ({}, []),
        ({"commandType": Boxed}, ["question"]),
        ({"responseType": Boxed}, ["answer"]),
        ({"__init__": _made}, ["question"]),
        ({"_doCommand": _doing}, ["question"]),
        (
            {"makeArguments": classmethod(lambda cls, *given: _boxed(Sum.makeArguments(*given)))},
            ["question"],
        ),
        (
            {"makeResponse": classmethod(lambda cls, *given: _boxed(Sum.makeResponse(*given)))},
            ["answer"],
        ),
    ],
)
@pytest.mark.parametrize("derived", [False, True])
async def test_what_a_command_overrides_is_used(
    change: dict[str, Any], seen: list[str], derived: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Boxed, "sent", [])
    command: Any = type("Sum", (Sum,), change)
    if derived:
        command = type("Sum", (command,), {})

    class Changed(AMP):
        @command.responder
        def sum(self, a: int, b: int) -> dict[str, int]:
            return {"total": a + b}

    assert await converse(Changed, command) == await converse(Math)
    assert ["answer" if b"total" in box else "question" for box in Boxed.sent] == seen


async def test_who_wants_to_see_the_boxes_does(caplog: pytest.LogCaptureFixture) -> None:
    written = await converse(Math)
    assert plain(parseString(written)) == [
        {b"_command": b"Sum", b"_ask": b"1", b"a": b"13", b"b": b"81"},
        {b"_answer": b"7", b"total": b"3"},
    ]
    caplog.set_level(logging.DEBUG, "amp_asyncio")
    assert await converse(Math) == written
    assert [record.args[1] for record in caplog.records if "sent" in record.msg] == [  # type: ignore[index]
        "{b'_ask': b'1', b'_command': b'Sum', "
        "b'_offer': b'1 cancel leave metadata ping stream timeout', b'a': b'13', b'b': b'81'}",
        "{b'_answer': b'7', b'total': b'3'}",
    ]


async def test_an_override_of_sendBox_sees_the_boxes() -> None:
    sent: list[AmpBox] = []

    class Watched(Math):
        def sendBox(self, box: AmpBox) -> None:
            sent.append(AmpBox(box))
            super().sendBox(box)

    assert await converse(Watched) == AmpBox(sent[0]).serialize() + AmpBox(sent[1]).serialize()
    assert [box.get(b"total") for box in sent] == [None, b"3"]


async def test_a_question_on_a_connection_that_is_just_closing() -> None:
    async with pair(Math) as (_, amp):
        amp.finish_writing()
        with pytest.raises(ConnectionError):
            await amp.callRemote(Sum, a=1, b=2)
