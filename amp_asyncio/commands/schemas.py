"""Schemas: the names and types of the values in a box.

A command has two, one for its arguments and one for its answer, and every `AmpList` has one. Only this
module converts between objects and boxes, so it is also where errors get the names of the command and
of the argument.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Container, Iterable, Mapping, Set
from typing import Any, NamedTuple, Protocol, TypeVar

from ..errors import BoxTooLong, InvalidSignature, MalformedAmpBox, cut, shortened
from ..wire.boxes import ANSWER, ASK, COMMAND, ERROR, MAX_KEY_LENGTH, AmpBox
from ..wire.compiling import caused
from ..wire.costs import PAIR_OVERHEAD, box_cost
from ..wire.extensions import is_key
from .arguments import plain_hooks
from .names import python_name, wire_name
from .warning import warn_of_name

__all__ = ["RESERVED", "Codec", "Schema", "Shape", "may_claim"]

#: The keys that mark a box as a question, an answer or an error; arguments cannot have these names.
RESERVED = frozenset((ASK, ANSWER, COMMAND, ERROR))

_PAIRS = "a list of pairs is needed, such as [(b'name', Integer())]"

_Box = TypeVar("_Box", bound=AmpBox)


class Codec(NamedTuple):
    """How a schema converts one value: its name on the wire and in Python, and what to call.

    `optional` says whether it may be absent in a box that comes, and `default` what it is then;
    `nullable` whether it may be None, or be left out, in a box that is made.
    """

    name: bytes
    identifier: str
    optional: bool
    nullable: bool
    to_string: Callable[[Any], bytes]
    from_string: Callable[[bytes], Any]
    default: Any


class Shape(Protocol):
    """What the values of a box are in Python, where that is not a dictionary: see `shapes.py`.

    Attributes:
        identifiers: the names of the values in Python, in the order of the pairs.
        nullable: those of them that may be None.
        defaults: what those are that did not come; None for all others.
        plain: whether the values are a dictionary after all, and `pack` returns it unchanged.
        quick: what `pack` calls with the values in their order, or None if it does more.
        wanted: what `unpack` takes, in words.
    """

    identifiers: tuple[str, ...]
    nullable: Container[str]
    defaults: dict[str, Any]
    plain: bool
    quick: Callable[..., Any] | None
    wanted: str

    def unpack(self, objects: Any) -> dict[str, Any] | None:
        """Return the values of `objects`, or None if that is something else."""

    def pack(self, values: dict[str, Any], strings: Mapping[bytes, bytes], what: str) -> Any:
        """Return what the values are in Python; `strings` is the box that they came in.

        Raises `MalformedAmpBox` if its class refuses them; `what` names the schema in that.
        """


def may_claim(argument: Any) -> bool:
    """Return whether `argument` may be a descriptor: it sees more than its own value.

    A list knows it of its elements.
    """
    known: bool | None = getattr(argument, "may_claim", None)
    if known is not None:
        return known
    return plain_hooks(argument) is None


class Schema:
    """Pairs of a name on the wire and an `Argument`, checked once, then used for every box.

    `pairs` is the definition of a `Command` or an `AmpList`, `what` names it in errors, and `reserved`
    contains the names that it must not use. If it is not empty, names that this package uses are
    refused, too, and others that begin with `_` warn. `shape` says what the values are in Python;
    without one, they are a dictionary.

    Attributes:
        pairs: the names, as bytes, and the arguments.
        names: the names in Python, in the same order.
        lists: those of the pairs whose values consist of many: what these become counts as well.
        codecs: how each value is converted. None if an argument overrides a hook above `toString` and
            `fromString`, or does not derive from `Argument`: then `toBox` and `fromBox` of all
            arguments are called.
        shape: as it was given.

    Raises `TypeError` or `ValueError` for a schema that cannot work: a name that is empty, too long,
    reserved, repeated (also if it is repeated in Python only), or the key of a piece of a large value
    (see `large.py`); or a value that is not an `Argument`.
    """

    __slots__ = (
        "_names",
        "_pack",
        "_quick",
        "_reads",
        "_required",
        "_what",
        "codecs",
        "lists",
        "names",
        "pairs",
        "shape",
    )

    def __init__(
        self,
        pairs: Iterable[Any],
        what: str,
        reserved: Collection[bytes] = RESERVED,
        shape: Shape | None = None,
    ) -> None:
        self.pairs: list[tuple[bytes, Any]] = []
        self._what = what
        self.shape = shape
        self._pack = None if shape is None or shape.plain else shape.pack
        self._quick = None if shape is None else shape.quick
        self.codecs: list[Codec] | None = []
        names: dict[str, bytes] = {}
        required = set()
        if isinstance(pairs, Mapping | str | bytes) or not isinstance(pairs, Iterable):
            raise TypeError(f"{what}: {_PAIRS}, not {pairs!r}")
        for pair in pairs:
            try:
                if isinstance(pair, str | bytes):
                    raise TypeError
                given, argument = pair
            except (TypeError, ValueError):
                raise caused(
                    TypeError(f"{what}: {pair!r} is not a pair of a name and an Argument: {_PAIRS}"),
                    None,
                )
            name = wire_name(given, what)
            if not 0 < len(name) <= MAX_KEY_LENGTH:
                raise ValueError(f"{what}: {name!r} must have 1 to {MAX_KEY_LENGTH} bytes")
            if reserved:
                if name in reserved:
                    raise ValueError(f"{what}: {name!r} is one of AMP's own keys")
                warn_of_name(name, what, is_key(name))
            if isinstance(argument, type) or not (
                hasattr(argument, "toBox") and hasattr(argument, "fromBox")
            ):
                hint = f": write {argument.__name__}()" if hasattr(argument, "toBox") else ""
                raise TypeError(
                    f"{what}: {name!r} must be an Argument instance, not {argument!r}{hint}"
                )
            identifier = python_name(name) if shape is None else shape.identifiers[len(names)]
            if identifier in names:
                raise ValueError(
                    f"{what}: {name!r} and {names[identifier]!r} are both {identifier} in Python"
                )
            if shape is not None and name in names.values():
                raise ValueError(f"{what}: two fields have the name {name!r} on the wire")
            names[identifier] = name
            optional = bool(getattr(argument, "optional", False))
            if not optional:
                required.add(identifier)
            self.pairs.append((name, argument))
            hooks = plain_hooks(argument)
            if hooks is None:
                self.codecs = None
            elif self.codecs is not None:
                nullable = optional if shape is None else identifier in shape.nullable
                default = None if shape is None else shape.defaults.get(identifier)
                self.codecs.append(
                    Codec(name, identifier, optional, nullable, hooks[0], hooks[1], default)
                )
        for name, argument in self.pairs:
            if getattr(argument, "in_pieces", False):
                for other in names.values():
                    if other.startswith(name + b".") and other[len(name) + 1 :].isdigit():
                        raise ValueError(f"{what}: {other!r} is a piece of the large value {name!r}")
        # What of the codecs reads a value: it takes longer to unpack all of a codec.
        self._reads = [
            (each.name, each.identifier, each.optional, each.from_string, each.default)
            for each in self.codecs or ()
        ]
        self.names = tuple(names)
        self.lists = [pair for pair in self.pairs if getattr(pair[1], "is_list", False)]
        self._names = frozenset(names)
        self._required = frozenset(required)

    @property
    def may_claim(self) -> bool:
        """Whether any argument may be a descriptor."""
        return self.codecs is None and any(may_claim(argument) for _, argument in self.pairs)

    def check(self, objects: Mapping[str, Any]) -> None:
        """Raise `InvalidSignature` unless `objects` has all required names and no unknown ones.

        The error names everything that is missing and everything that is unknown.
        """
        given = objects.keys()
        if given != self._names:
            self._check(given, given - self._names)

    def check_missing(self, objects: Mapping[str, Any]) -> None:
        """Raise `InvalidSignature` unless `objects` has all required names; it may have others."""
        self._check(objects.keys(), ())

    def _check(self, given: Set[str], unknown: Collection[str]) -> None:
        problems = []
        if missing := self._required.difference(given):
            problems.append(f"missing {', '.join(sorted(missing))}")
        if unknown:
            problems.append(f"unknown {', '.join(sorted(map(str, unknown)))}")
            problems.append(f"it has {', '.join(self.names) or 'no values'}")
        if problems:
            raise InvalidSignature(f"{self._what}: {'; '.join(problems)}")

    def encode(self, objects: Any, box: _Box, proto: Any) -> _Box:
        """Put `objects` into `box`, and return it.

        Raises `InvalidSignature` like `check`, `TypeError` if `objects` is not a mapping, or not what
        the shape takes, and what an argument raises for a value that it cannot encode, with a note that
        names the argument.
        """
        values: Mapping[str, Any]
        if self.shape is not None:
            unpacked = self.shape.unpack(objects)
            if unpacked is None:
                wanted = self.shape.wanted
                raise TypeError(f"{self._what}: {wanted} is needed, not {shortened(objects)}")
            values = unpacked
        elif type(objects) is not dict and not isinstance(objects, Mapping):
            raise TypeError(f"{self._what}: {objects!r} is not a mapping of names to values")
        else:
            self.check(objects)
            values = objects
        name = b""
        try:
            if self.codecs is not None:
                for name, identifier, _, nullable, to_string, _, _ in self.codecs:
                    value = values.get(identifier)
                    if value is not None or not nullable:
                        box[name] = to_string(value)
            elif self.shape is None:
                remaining = dict(values)
                for name, argument in self.pairs:
                    argument.toBox(name, box, remaining, proto)
            else:
                for identifier, (name, argument) in zip(self.names, self.pairs, strict=True):
                    value = values[identifier]
                    if value is None and identifier not in self.shape.nullable:
                        raise TypeError(f"{identifier} is None")
                    argument.toBox(name, box, {python_name(name): value}, proto)
        except Exception as error:
            error.add_note(f"{self._what}: {name!r} could not be encoded{self._if_none(values, name)}")
            raise
        return box

    def _if_none(self, values: Mapping[str, Any], wire: bytes) -> str:
        """Return the end of an error message about a value that must not be None."""
        for identifier, (name, _) in zip(self.names, self.pairs, strict=True):
            if name == wire and identifier in values and values[identifier] is None:
                allowed = "an argument with optional=True"
                if self.shape is not None:
                    allowed = "a field whose type is `... | None`"
                return f"; only {allowed} may be None"
        return ""

    def decode(self, strings: Mapping[bytes, bytes], proto: Any) -> Any:
        """Return the objects in a box; keys that are not in the schema are ignored.

        Raises `MalformedAmpBox`, which names the argument, for a value that is missing or that its
        argument rejects. The argument's own error is the `__cause__`.
        """
        objects: dict[str, Any] = {}
        name = b""
        try:
            if self.codecs is not None:
                for name, identifier, optional, from_string, default in self._reads:
                    absent = optional and name not in strings
                    objects[identifier] = default if absent else from_string(strings[name])
            else:
                remaining = dict(strings)
                for identifier, (name, argument) in zip(self.names, self.pairs, strict=True):
                    found = objects if self.shape is None else {}
                    argument.fromBox(name, remaining, found, proto)
                    if self.shape is not None:
                        value = found.get(python_name(name))
                        default = self.shape.defaults.get(identifier)
                        objects[identifier] = default if value is None else value
        except Exception as error:
            if name in strings:
                problem = f"{name!r} is {shortened(strings[name])}: {cut(str(error))}"
            elif isinstance(error, KeyError):
                problem = f"{error} is missing"
            else:
                problem = f"{name!r}: {cut(str(error))}"
            raise caused(MalformedAmpBox(f"{self._what}: {problem}"), error)
        if self._pack is None:
            return objects
        if self._quick is not None:
            try:
                return self._quick(*objects.values())
            except Exception:
                pass  # It is said by `pack` what is wrong.
        return self._pack(objects, strings, self._what)

    def in_lists(self, strings: Mapping[bytes, bytes], most: int | None, isLocal: bool = True) -> int:
        """Return what the elements of the lists in a box count in addition to its pairs.

        Raises `BoxTooLong` if box and elements together count more than `most`.
        """
        if not self.lists:
            return 0
        room = sys.maxsize if most is None else most - box_cost(strings)
        cost = 0
        for name, argument in self.lists:
            cost += argument.elements_cost(strings.get(name, b""), room - cost)
        if cost > room:
            raise BoxTooLong(most or 0, len(strings) + cost // PAIR_OVERHEAD, isLocal)
        return cost

    def discard(self, strings: Mapping[bytes, bytes], proto: Any) -> None:
        """Dispose of a box whose values are not needed; a schema with descriptors closes them here."""
