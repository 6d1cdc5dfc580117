"""How two peers of this package learn of each other, and that no other peer notices."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import uvloop
from support import Echo, Math, Notify, Patient, Sum, SwitchTo, Wait, raw_pair, turns

from amp_asyncio import (
    AMP,
    AmpBox,
    AmpList,
    Argument,
    BoxDispatcher,
    Command,
    Integer,
    StartTLS,
    String,
    UnhandledCommand,
    parseString,
)
from amp_asyncio.testing import pair

NAMES = b"cancel leave metadata ping stream timeout"


def question(tag: bytes = b"1", **more: bytes) -> AmpBox:
    return AmpBox(_command=b"Sum", _ask=tag, a=b"1", b=b"2", **more)


def answer(tag: bytes = b"1") -> AmpBox:
    return AmpBox(_answer=tag, total=b"3")


def offer(tag: bytes = b"1") -> bytes:
    return tag + b" " + NAMES


def accept(tag: bytes = b"1", names: bytes = NAMES) -> AmpBox:
    return AmpBox(_command=b"_accept", ask=tag, names=names)


class Seen(AMP):
    """Keeps the boxes that its responder gets."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[AmpBox] = []

    def amp_SUM(self, box: AmpBox) -> AmpBox:
        self.seen.append(AmpBox(box))
        return AmpBox(total=b"3")


# --- offers ---


async def test_only_the_first_question_carries_an_offer() -> None:
    async with raw_pair() as (amp, peer):
        asked = [amp.callRemote(Sum, a=1, b=2) for _ in range(3)]
        await turns()
        boxes = parseString(peer.data)
        assert [box.get(b"_offer") for box in boxes] == [offer(), None, None]
        peer.send(*(answer(b"%d" % tag) for tag in (1, 2, 3)))
        assert [await each for each in asked] == [{"total": 3}] * 3


@pytest.mark.parametrize("way", ["no answer", "switch", "StartTLS", "too large"])
async def test_what_cannot_carry_an_offer_does_not(way: str) -> None:
    async with raw_pair(max_box_size=2000, window=10_000) as (amp, peer):
        tag = b"2"
        if way == "no answer":
            amp.callRemote(Notify, data=b"")
        elif way == "too large":
            amp.callRemote(Echo, data=bytes(1480)).cancel()
        else:
            refused = (
                amp.callRemote(StartTLS)
                if way == "StartTLS"
                else amp.callRemote(SwitchTo, Math, name="x")
            )
            await turns()
            peer.send(AmpBox(_error=b"1", _error_code=b"NO", _error_description=b""))
            with pytest.raises(Exception, match="NO|^$"):
                await refused
        await turns()
        assert not any(b"_offer" in box for box in parseString(peer.data))
        amp.callRemote(Sum, a=1, b=2).cancel()
        await turns()
        assert parseString(peer.data)[-1][b"_offer"] == offer(tag)


async def test_a_question_that_an_argument_asks_makes_no_second_offer() -> None:
    class Asking(String):
        """Asks something when its first value is encoded."""

        asked: Any = None

        def toString(self, inObject: bytes) -> bytes:
            if self.asked is None:
                self.asked = amp.callRemote(Sum, a=1, b=2)
                self.asked.cancel()
            return super().toString(inObject)

    class Outer(Command):
        arguments = [(b"data", Asking())]

    async with raw_pair() as (amp, peer):
        amp.callRemote(Outer, data=b"x").cancel()
        await turns()
        first, second = parseString(peer.data)
        assert (first[b"_command"], second[b"_command"]) == (b"Sum", b"Outer")
        assert b"_offer" not in first
        assert second[b"_offer"] == offer(second[b"_ask"])


@pytest.mark.parametrize("ended", ["timeout", "cancelled"])
async def test_what_has_ended_before_the_peer_was_known_is_told_then(ended: str) -> None:
    async with raw_pair() as (amp, peer):
        if ended == "timeout":
            with pytest.raises(TimeoutError):
                await amp.call(Wait(name="x"), timeout=0.001)
        else:
            amp.callRemote(Wait, name="x").cancel()
        await turns()
        assert len(parseString(peer.data)) == 1
        peer.send(accept())
        await peer.until(lambda: len(parseString(peer.data)) == 2)
        assert parseString(peer.data)[1] == {b"_command": b"_cancel", b"ask": b"1"}


async def test_a_valid_offer_is_accepted_in_that_turn() -> None:
    async with raw_pair(Patient) as (amp, peer):
        peer.send(AmpBox(_command=b"Wait", _ask=b"1", name=b"x", _offer=offer()), question(b"2"))
        await peer.until(lambda: len(peer.boxes()) == 2)
        assert peer.boxes() == [accept(), answer(b"2")]
        amp.let("x")
        await peer.until(lambda: len(peer.boxes()) == 3)


@pytest.mark.parametrize(
    "what",
    [
        AmpBox(_command=b"Sum", _ask=b"1", a=b"1", b=b"no", _offer=offer()),
        AmpBox(_command=b"Unheard", _ask=b"1", _offer=offer()),
        AmpBox(_command=b"_ping", _ask=b"1", _offer=offer()),
    ],
)
async def test_it_is_accepted_whatever_becomes_of_the_question(what: AmpBox) -> None:
    async with raw_pair() as (_, peer):
        peer.send(what)
        await peer.until(lambda: len(peer.boxes()) == 2)
        assert peer.boxes()[0] == accept()


@pytest.mark.parametrize(
    "boxes",
    [
        [question(_offer=offer(b"2"))],
        [question(_offer=b"")],
        [question(_offer=b"\xff" * 60_000)],
        [question(_offer=b"1" + NAMES)],
        [AmpBox(_command=b"Notify", data=b"", _offer=offer()), question()],
        [
            question(_timeout=b"-1"),
            question(b"2", _timeout=b"x"),
            question(b"3", _timeout=b"1" + b"0" * 30),
        ],
        [AmpBox(_command=b"_cancel", ask=b"7"), AmpBox(_command=b"_cancel"), question()],
        [AmpBox(_command=b"_accept", ask=b"1"), AmpBox(_command=b"_leave"), question()],
        [
            AmpBox(_command=b"_ping"),
            AmpBox(_command=b"_health"),
            AmpBox(_command=b"_describe"),
            question(),
        ],
    ],
)
async def test_rubbish_is_ignored(boxes: list[AmpBox]) -> None:
    async with raw_pair(Patient) as (amp, peer):
        peer.send(*boxes)
        answers = [answer(box[b"_ask"]) for box in boxes if b"_ask" in box]
        await peer.until(lambda: len(peer.boxes()) >= len(answers))
        await turns()
        assert peer.boxes() == answers
        # It is not taken for a peer of ours: it is not told of what it may not know.
        assert not await knows(amp, peer)


@pytest.mark.parametrize("again", [offer(b"2"), offer()])
async def test_a_peer_that_forwards_what_others_offer_is_not_ours(again: bytes) -> None:
    """The tags of the first question may be the same on both sides of a proxy."""
    async with raw_pair() as (amp, peer):
        peer.send(
            question(_offer=offer()), question(b"2", _offer=again), question(b"3", _offer=offer(b"3"))
        )
        await peer.until(lambda: len(peer.boxes()) == 4)
        assert not await knows(amp, peer)


async def knows(amp: Any, peer: Any) -> bool:
    """Return whether an AMP takes its peer for one of ours: it then says that it leaves."""
    closing = asyncio.ensure_future(amp.close())
    await turns()
    closing.cancel()
    return peer.boxes()[-1:] == [AmpBox(_command=b"_leave")]


@pytest.mark.parametrize(
    ("box", "known"),
    [
        (accept(), True),
        (accept(b"2"), False),
        (accept(names=b""), False),
        (AmpBox(_command=b"_accept"), False),
        (AmpBox(_answer=b"1", total=b"3", _command=b"Sum", _ask=b"1", _offer=offer()), False),
        (question(_offer=offer()), True),
    ],
)
async def test_what_makes_a_peer_one_of_ours(box: AmpBox, known: bool) -> None:
    async with raw_pair() as (amp, peer):
        amp.callRemote(Sum, a=1, b=2).cancel()
        await turns()
        peer.send(box)
        await turns()
        assert not any(each.get(b"_command") == b"_accept" for each in peer.boxes()), "offers crossed"
        assert await knows(amp, peer) == known


async def test_our_keys_are_no_arguments() -> None:
    more = {"_timeout": b"5000", "_m.trace": b"1", "_stream": b"", "_other": b"kept"}
    async with raw_pair(Seen) as (amp, peer):
        peer.send(question(_offer=offer(), **more))
        await peer.until(lambda: len(peer.boxes()) == 2)
        assert amp.seen == [question(_other=b"kept")]
        # An echo of Twisted's kind: its answer has all that was in the question.
        asked = amp.callRemoteString("Sum", a=b"1")
        await turns()
        peer.send(
            AmpBox({**parseString(peer.data)[-1], b"_answer": b"1", b"_m.x": b"", b"_other": b""})
        )
        assert await asked == AmpBox(_answer=b"1", _command=b"Sum", _ask=b"1", a=b"1", _other=b"")


class Everything(Argument):
    """Takes all that is in a box."""

    def fromBox(self, name: bytes, strings: Any, objects: dict[str, Any], proto: Any) -> None:
        objects["everything"] = dict(strings)

    def toBox(self, name: bytes, strings: Any, objects: dict[str, Any], proto: Any) -> None:
        strings[b"everything"] = b""


async def test_a_schema_that_looks_at_all_pairs_sees_none_of_ours() -> None:
    class All(Command):
        arguments = response = [(b"everything", Everything())]

    class Answering(AMP):
        @All.responder
        def all(self, everything: dict[bytes, bytes]) -> dict[str, Any]:
            self.got = everything
            return {"everything": ""}

    async with raw_pair(Answering) as (amp, peer):
        peer.send(AmpBox(_command=b"All", _ask=b"1", _timeout=b"9", everything=b""))
        await peer.until(lambda: peer.boxes())
        assert b"_timeout" not in amp.got
        asked = amp.callRemote(All, everything="")
        await turns()
        peer.send(AmpBox({b"_answer": b"1", b"_offer": b"", b"_m.x": b""}))
        assert await asked == {"everything": {b"_answer": b"1"}}


# --- without extensions ---


class Off(Seen):
    extensions = False


class Looks(Seen):
    def ampBoxReceived(self, box: AmpBox) -> None:
        super().ampBoxReceived(box)


class Sends(Seen):
    def sendBox(self, box: AmpBox) -> None:
        super().sendBox(box)


def behind() -> AMP:
    return AMP(boxReceiver=BoxDispatcher(Seen()))


@pytest.mark.parametrize("factory", [Off, Looks, Sends, behind])
async def test_without_extensions_it_is_an_old_peer(factory: Any) -> None:
    async with raw_pair(factory) as (amp, peer):
        sent = question(_offer=offer(), _timeout=b"5000", _other=b"")
        peer.send(sent, AmpBox(_command=b"_ping", _ask=b"2"))
        await peer.until(lambda: len(peer.boxes()) == 2)
        assert peer.boxes()[0] == answer()
        assert peer.boxes()[1][b"_error_code"] == b"UNHANDLED"
        asker = amp.boxReceiver
        locator = asker.locator
        assert locator.seen == [sent]
        asker.call(Sum(a=1, b=2), timeout=5, metadata={"trace": "1"}).cancel()
        await turns()
        assert parseString(peer.data)[-1] == question()


async def test_a_class_that_looks_at_boxes_may_want_them() -> None:
    class Both(Looks, Sends):
        extensions = True

    async with raw_pair(Both) as (amp, peer):
        peer.send(question(_offer=offer()))
        await peer.until(lambda: len(peer.boxes()) == 2)
        assert amp.seen == [question()]
        assert await knows(amp, peer)


async def test_new_names_may_be_those_of_a_ported_class() -> None:
    class Call(Command):
        response = [(b"called", Integer())]

    class Ported(AMP):
        latency = {"unit": "ms"}
        describe = None

        @Call.responder
        def call(self) -> dict[str, int]:  # type: ignore[override]
            return {"called": 1}

        def health(self) -> None:  # type: ignore[override]
            raise AssertionError

    async with pair(Ported) as (_, client):
        assert await client.callRemote(Call) == {"called": 1}
        assert await client.health()
        with pytest.raises(UnhandledCommand, match="not describable"):
            await client.describe()


def test_extensions_is_yes_or_no() -> None:
    with pytest.raises(TypeError, match="Wrong.extensions must be True, False or None, not \\['x'\\]"):
        type("Wrong", (AMP,), {"extensions": ["x"]})


# --- names in definitions ---


@pytest.mark.parametrize(
    "body",
    [
        {"commandName": b"_ping"},
        {"commandName": b"_credit"},
        {"arguments": [(b"_timeout", String())]},
        {"response": [(b"_m.x", String())]},
        {"arguments": [(b"_offer", String())]},
    ],
)
def test_names_of_this_package_are_refused(body: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="this package uses itself"):
        type("Taken", (Command,), body)


def test_codes_of_this_package_are_refused() -> None:
    with pytest.raises(ValueError, match="one of AMP's own"):
        type("Taken", (Command,), {"errors": {KeyError: b"_CANCELLED"}})


@pytest.mark.parametrize(
    "body",
    [
        {"commandName": b"_other"},
        {"arguments": [(b"_other", String())]},
        {"errors": {KeyError: b"_OTHER"}},
    ],
)
def test_other_names_with_an_underscore_warn(body: dict[str, Any]) -> None:
    with pytest.warns(UserWarning, match="begin with an underscore") as caught:
        type("Old", (Command,), body)
    assert caught[0].filename == __file__


def test_elements_of_lists_may_have_any_name() -> None:
    AmpList([(b"_timeout", String()), (b"_other", String())])


async def test_all_is_forgotten_when_TLS_starts() -> None:
    # With uvloop, TLS needs a socket.
    if isinstance(asyncio.get_running_loop(), uvloop.Loop):
        pytest.skip("TLS in memory needs asyncio's loop")
    sent: list[AmpBox] = []

    class Client(AMP):
        extensions = True

        def sendBox(self, box: AmpBox) -> None:
            sent.append(AmpBox(box))
            super().sendBox(box)

    async with pair(Patient, Client) as (server, client):
        await client.callRemote(Sum, a=1, b=2)
        await client.callRemote(StartTLS)
        first = client.callRemote(Wait, name="a")
        await server.started.get()
        first.cancel()
        await client.callRemote(Sum, a=1, b=2)
        assert [box.get(b"_offer", b"")[:1] for box in sent][:4] == [b"1", b"", b"3", b""]
        await client.close()
        assert sent[-1] == AmpBox(_command=b"_leave")
