"""What is known of a command that is asked: from a module, from the peer itself, or nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..amp import AMP
from ..commands.exchange import schema_for
from ..errors import AmpError
from ..wire.boxes import AmpBox
from .failures import Failure, Status
from .modules import commands_in
from .text import escaped
from .types import Items, Pairs, described_items, described_pairs, plain_items, plain_pairs
from .values import Given, objects_of, shown_record

__all__ = ["AnyCommand", "KnownCommand", "command_in_module", "command_of_peer"]


class AnyCommand:
    """A command of which only the name is known: its values are text.

    Attributes:
        items: the types of its items, if it opens a stream.
        has_values: whether its answer has any values.
    """

    items: Items | None = None
    has_values = True

    def __init__(self, name: bytes, requires_answer: bool = True) -> None:
        self.name = name
        self.requires_answer = requires_answer

    def question(self, given: Mapping[str, Given], amp: AMP) -> AmpBox:
        """Return the box that asks; raises `Failure` for what cannot be asked."""
        box = AmpBox()
        for name, (read, value) in given.items():
            try:
                box[name.encode("utf-8", "surrogateescape")] = read(_ANY, value)
            except ValueError as error:
                raise Failure(Status.USAGE, f"{name}: {error}") from None
        return box

    def answer(self, box: AmpBox, amp: AMP) -> dict[str, Any]:
        """Return what was answered, by its names, as JSON has it; raises `Failure` if it cannot be."""
        return {escaped(name): escaped(value) for name, value in box.items() if name != b"_answer"}


class KnownCommand(AnyCommand):
    """A command whose arguments and answer are known, in plain types."""

    def __init__(
        self,
        name: bytes,
        arguments: Pairs,
        response: Pairs,
        requires_answer: bool,
        items: Items | None,
    ) -> None:
        super().__init__(name, requires_answer)
        self.items = items
        self.has_values = bool(response)
        shown = name.decode("utf-8", "replace")
        self._arguments = schema_for(arguments, f"the command {shown}")
        self._response = schema_for(response, f"the answer to {shown}")

    def question(self, given: Mapping[str, Given], amp: AMP) -> AmpBox:
        try:
            objects = objects_of(self._arguments.pairs, given)
            return self._arguments.encode(objects, AmpBox(), amp)
        except Exception as error:
            notes = "; ".join([str(error), *getattr(error, "__notes__", ())])
            raise Failure(Status.USAGE, notes) from None

    def answer(self, box: AmpBox, amp: AMP) -> dict[str, Any]:
        try:
            objects = self._response.decode(box, amp)
        except AmpError as error:
            raise Failure(Status.REFUSED, str(error)) from None
        return shown_record(self._response.pairs, objects)


class _Any:
    """The argument type of what has no schema."""

    def fromString(self, data: bytes) -> bytes:
        return data


_ANY = _Any()


def command_in_module(module: str, name: str, requires_answer: bool) -> KnownCommand:
    """Return a command of a module."""
    known = commands_in(module)
    if name not in known:
        there = sorted({each.commandName.decode("utf-8", "replace") for each in known.values()})
        raise Failure(
            Status.USAGE, f"{module} has no command {name}; it has {', '.join(there) or 'none'}"
        )
    found = known[name]
    wants = requires_answer and bool(found.requiresAnswer)
    arguments, response = plain_pairs(found.arguments), plain_pairs(found.response)
    items = plain_items(found)
    return KnownCommand(found.commandName, arguments, response, wants, items)


def command_of_peer(
    described: Iterable[Mapping[str, Any]], name: str, requires_answer: bool
) -> AnyCommand:
    """Return a command of which its peer has said what it is; it may not have mentioned it."""
    for each in described:
        if each["name"] == name:
            wants = requires_answer and bool(each["requires_answer"])
            arguments, response = (described_pairs(each[key]) for key in ("arguments", "response"))
            items = described_items(each)
            return KnownCommand(_bytes(name), arguments, response, wants, items)
    return AnyCommand(_bytes(name), requires_answer)


def _bytes(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")
