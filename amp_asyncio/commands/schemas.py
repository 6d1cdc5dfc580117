"""Schemas: the names and types of the values in a box.

A command has two, one for its arguments and one for its answer, and every `AmpList` has one. Only this
module converts between objects and boxes, so it is also where errors get the names of the command and
of the argument.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Container, Iterable, Mapping, Set
from typing import Any, TypeAlias, TypeVar

from ..errors import BoxTooLong, InvalidSignature, MalformedAmpBox, cut, shortened
from ..wire.boxes import ANSWER, ASK, COMMAND, ERROR, MAX_KEY_LENGTH, AmpBox
from ..wire.costs import PAIR_OVERHEAD, box_cost

__all__ = ["PYTHON_KEYWORDS", "Schema", "python_name", "wire_name"]

# The words that Twisted capitalises: the keywords of Python 2, and no others. A definition that is
# shared with Twisted must give an argument the same Python name on both sides.
PYTHON_KEYWORDS = frozenset(
    "and assert break class continue def del elif else except exec finally for from global if import "
    "in is lambda not or pass print raise return try while yield".split()
)

#: The keys that mark a box as a question, an answer or an error; arguments cannot have these names.
RESERVED = frozenset((ASK, ANSWER, COMMAND, ERROR))

_PAIRS = "a list of pairs is needed, such as [(b'name', Integer())]"

_Box = TypeVar("_Box", bound=AmpBox)
_Codec: TypeAlias = tuple[bytes, str, bool, Callable[[Any], bytes], Callable[[bytes], Any]]


def wire_name(name: object, what: str) -> bytes:
    """Return `name`, which is bytes or an ASCII str, as bytes.

    `what` says in errors what is being named. Raises `TypeError` for a name of another type and
    `ValueError` for a str that is not ASCII.
    """
    if isinstance(name, str):
        try:
            return name.encode("ascii")
        except UnicodeEncodeError:
            raise ValueError(f"{what}: a name is ASCII, not {name!r}") from None
    if isinstance(name, bytes):
        return name
    raise TypeError(f"{what}: a name is bytes or str, not {name!r}")


def python_name(name: bytes) -> str:
    """Return the Python identifier for a name on the wire: `-` becomes `_`, keywords get a capital.

    An `Argument` that overrides `toBox` or `fromBox` finds its value in the objects under this name.
    """
    identifier = name.replace(b"-", b"_").decode("ascii")
    return identifier.title() if identifier in PYTHON_KEYWORDS else identifier


class Schema:
    """Pairs of a name on the wire and an `Argument`, checked once, then used for every box.

    `pairs` is the definition of a `Command` or an `AmpList`, `what` names it in errors, and `reserved`
    contains the names that it must not use.

    Attributes:
        pairs: the names, as bytes, and the arguments.
        names: the names in Python, in the same order.
        lists: those of the pairs whose values consist of many: what these become counts as well.
        codecs: for each argument its name on the wire, its name in Python, whether it is optional, its
            `toString` and its `fromString`. None if an argument overrides a hook above these two, or
            does not derive from `Argument`: then `toBox` and `fromBox` of all arguments are called.

    Raises `TypeError` or `ValueError` for a schema that cannot work: a name that is empty, too long,
    reserved, repeated (also if it is repeated in Python only), or the key of a piece of a large value
    (see `large.py`); or a value that is not an `Argument`.
    """

    __slots__ = ("_names", "_required", "_what", "codecs", "lists", "names", "pairs")

    def __init__(
        self,
        pairs: Iterable[tuple[bytes | str, Any]],
        what: str,
        reserved: Container[bytes] = RESERVED,
    ) -> None:
        self.pairs: list[tuple[bytes, Any]] = []
        self._what = what
        self.codecs: list[_Codec] | None = []
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
                raise TypeError(
                    f"{what}: {pair!r} is not a pair of a name and an Argument: {_PAIRS}"
                ) from None
            name = wire_name(given, what)
            if not 0 < len(name) <= MAX_KEY_LENGTH:
                raise ValueError(f"{what}: {name!r} must have 1 to {MAX_KEY_LENGTH} bytes")
            if name in reserved:
                raise ValueError(f"{what}: {name!r} is one of AMP's own keys")
            if isinstance(argument, type) or not (
                hasattr(argument, "toBox") and hasattr(argument, "fromBox")
            ):
                hint = f": write {argument.__name__}()" if hasattr(argument, "toBox") else ""
                raise TypeError(
                    f"{what}: {name!r} must be an Argument instance, not {argument!r}{hint}"
                )
            identifier = python_name(name)
            if identifier in names:
                raise ValueError(
                    f"{what}: {name!r} and {names[identifier]!r} are both {identifier} in Python"
                )
            names[identifier] = name
            if not getattr(argument, "optional", False):
                required.add(identifier)
            self.pairs.append((name, argument))
            hooks = argument._plain_hooks() if hasattr(argument, "_plain_hooks") else None
            if hooks is None:
                self.codecs = None
            elif self.codecs is not None:
                self.codecs.append((name, identifier, argument.optional, *hooks))
        for name, argument in self.pairs:
            if getattr(argument, "in_pieces", False):
                for other in names.values():
                    if other.startswith(name + b".") and other[len(name) + 1 :].isdigit():
                        raise ValueError(f"{what}: {other!r} is a piece of the large value {name!r}")
        self.names = tuple(names)
        self.lists = [pair for pair in self.pairs if getattr(pair[1], "is_list", False)]
        self._names = frozenset(names)
        self._required = frozenset(required)

    @property
    def has_optional(self) -> bool:
        """Whether any argument may be left out."""
        return self._required != self._names

    @property
    def may_claim(self) -> bool:
        """Whether any argument sees more than its own value: it may be a descriptor."""
        return self.codecs is None

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
        if missing := self._required - given:
            problems.append(f"missing {', '.join(sorted(missing))}")
        if unknown:
            problems.append(f"unknown {', '.join(sorted(map(str, unknown)))}")
            problems.append(f"it has {', '.join(self.names) or 'no values'}")
        if problems:
            raise InvalidSignature(f"{self._what}: {'; '.join(problems)}")

    def encode(self, objects: Mapping[str, Any], box: _Box, proto: Any) -> _Box:
        """Put `objects` into `box`, and return it.

        Raises `InvalidSignature` like `check`, `TypeError` if `objects` is not a mapping, and what an
        argument raises for a value that it cannot encode, with a note that names the argument.
        """
        if type(objects) is not dict and not isinstance(objects, Mapping):
            raise TypeError(f"{self._what}: {objects!r} is not a mapping of names to values")
        self.check(objects)
        name = b""
        try:
            if self.codecs is not None:
                for name, identifier, optional, to_string, _ in self.codecs:
                    value = objects.get(identifier)
                    if value is not None or not optional:
                        box[name] = to_string(value)
            else:
                remaining = dict(objects)
                for name, argument in self.pairs:
                    argument.toBox(name, box, remaining, proto)
        except Exception as error:
            error.add_note(f"{self._what}: {name!r} could not be encoded{_if_none(objects, name)}")
            raise
        return box

    def decode(self, strings: Mapping[bytes, bytes], proto: Any) -> dict[str, Any]:
        """Return the objects in a box; keys that are not in the schema are ignored.

        Raises `MalformedAmpBox`, which names the argument, for a value that is missing or that its
        argument rejects. The argument's own error is the `__cause__`.
        """
        objects: dict[str, Any] = {}
        name = b""
        try:
            if self.codecs is not None:
                for name, identifier, optional, _, from_string in self.codecs:
                    absent = optional and name not in strings
                    objects[identifier] = None if absent else from_string(strings[name])
            else:
                remaining = dict(strings)
                for name, argument in self.pairs:
                    argument.fromBox(name, remaining, objects, proto)
        except Exception as error:
            if name in strings:
                problem = f"{name!r} is {shortened(strings[name])}: {cut(str(error))}"
            elif isinstance(error, KeyError):
                problem = f"{error} is missing"
            else:
                problem = f"{name!r}: {cut(str(error))}"
            raise MalformedAmpBox(f"{self._what}: {problem}") from error
        return objects

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


def _if_none(objects: Mapping[str, Any], name: bytes) -> str:
    """Return the end of an error message about a value that is None, where that was not allowed."""
    if objects.get(python_name(name), "") is None:
        return "; only an argument with optional=True may be None"
    return ""
