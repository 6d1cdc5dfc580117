"""Argument types as the command line needs them: from definitions, or from what a peer has described.

Lists and records get plain types, with lists and dictionaries for values. Definitions may have others
for them: Twisted's, those of typed commands, or their own. On the wire they are all the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ..commands import arguments, large
from ..commands.arguments import Argument, String, Unicode
from ..commands.lists import AmpList, ListOf

__all__ = [
    "Dictionary",
    "Items",
    "OneRecord",
    "Pairs",
    "described_items",
    "described_pairs",
    "plain_items",
    "plain_pairs",
]

#: The definition of what a box has: names, and their arguments. These may be Twisted's, too.
Pairs = Sequence[tuple[bytes, Any]]


class Items(NamedTuple):
    """The types of the items of a stream in each direction; None for a direction without any."""

    received: Any
    sent: Any


class OneRecord(AmpList):
    """A record of a typed command: a list of exactly one."""


class Dictionary(AmpList):
    """A dictionary of a typed command: a list of records with `key` and `value`."""


_LISTS = {"Record": OneRecord, "DictOf": Dictionary}

# The types of which a name is enough. Any other is bytes, with escapes for what is not text.
_BY_NAME: dict[str, type[Argument]] = {
    **{name: getattr(arguments, name) for name in arguments.__all__ if name != "Argument"},
    **{name: getattr(large, name) for name in large.__all__},
    **dict.fromkeys(("Text", "TimeDelta"), Unicode),
}


def _plain(argument: Any) -> Any:
    """Return what stands for an argument of a definition."""
    optional = bool(getattr(argument, "optional", False))
    if hasattr(argument, "elementType"):
        return ListOf(_plain(argument.elementType), optional)
    if hasattr(argument, "subargs"):
        return _list_type(type(argument))(plain_pairs(argument.subargs), optional)
    return argument


def plain_pairs(pairs: Pairs) -> Pairs:
    """Return the same for each pair of a definition."""
    return [(name, _plain(argument)) for name, argument in pairs]


def plain_items(command: Any) -> Items | None:
    """Return the items of a command, which may be Twisted's; None if it opens no stream."""
    definition = getattr(command, "__amp__", None)
    if definition is None or not definition.opens_stream:
        return None
    return Items(*(None if each is None else _plain(each) for each in definition.items))


def _list_type(kind: type) -> type[AmpList]:
    for each in kind.__mro__:
        if each.__name__ in _LISTS:
            return _LISTS[each.__name__]
    return AmpList


def described_pairs(described: Sequence[Mapping[str, Any]]) -> Pairs:
    """Return the pairs that a peer has described; raises `LookupError` or `TypeError` if it has not."""
    return [(_bytes(each["name"]), _described(each)) for each in described]


def described_items(described: Mapping[str, Any]) -> Items | None:
    """Return the items of a command that a peer has described; raises as `described_pairs` does."""
    items = described.get("items")
    if items is None:
        return None
    received, sent = items["received"], items["sent"]
    return Items(*(None if each is None else _described(each) for each in (received, sent)))


def _described(each: Mapping[str, Any]) -> Argument:
    name, optional, of = str(each["type"]), bool(each["optional"]), each.get("of")
    if isinstance(of, Mapping):
        return ListOf(_described(of), optional)
    if of is not None:
        return _LISTS.get(name, AmpList)(described_pairs(of), optional)
    return _BY_NAME.get(name, String)(optional)


def _bytes(name: str) -> bytes:
    return name.encode("ascii", "backslashreplace")
