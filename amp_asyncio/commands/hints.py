"""Hints: from the type in an annotation to the `Argument` that converts it.

What is found out about a class is found out once. A name that means nothing yet raises `NameError`, and
everything else that is wrong raises `TypeError`, which names the class and the field.
"""

from __future__ import annotations

import copy
import enum
import types
from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from . import arguments, values
from .arguments import Argument
from .fields import Field, fields_of, is_record
from .lists import ListOf
from .schemas import Schema
from .scopes import Scope
from .shapes import OfRecord

__all__ = ["Hint", "Typed", "Wire", "fields_in", "hint_of", "optional", "record_schema"]


class Wire:
    """The name on the wire of a field: `Annotated[datetime, Wire("from")]`."""

    __slots__ = ("name",)

    def __init__(self, name: str | bytes) -> None:
        if not isinstance(name, str | bytes):
            raise TypeError(f"Wire takes the name of a field on the wire, not {name!r}")
        self.name = name

    def __repr__(self) -> str:
        return f"Wire({self.name!r})"


def _text(*names: str, grammar: str | None = None) -> Callable[[tuple[type, ...]], Argument]:
    return lambda kinds: values.Text(*kinds, grammar=grammar)


_UUID = "[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
_ADDRESSES = "Address Network Interface".split()

# By their names, so that nothing has to be imported for it.
_SIMPLE: dict[str, Callable[[tuple[type, ...]], Argument]] = {
    "builtins.int": lambda kinds: arguments.Integer(),
    "builtins.float": lambda kinds: arguments.Float(),
    "builtins.bool": lambda kinds: arguments.Boolean(),
    "builtins.str": lambda kinds: arguments.Unicode(),
    "builtins.bytes": lambda kinds: arguments.String(),
    "datetime.datetime": lambda kinds: arguments.DateTime(),
    "datetime.timedelta": lambda kinds: values.TimeDelta(),
    "decimal.Decimal": lambda kinds: arguments.Decimal(),
    "pathlib.Path": lambda kinds: arguments.Path(),
    "pathlib._local.Path": lambda kinds: arguments.Path(),  # Where Python 3.13 says that it is.
    "uuid.UUID": _text(grammar=_UUID),
    **{f"ipaddress.IPv{version}{kind}": _text() for version in (4, 6) for kind in _ADDRESSES},
}

# What to write in place of some that are tried.
_INSTEAD = {
    "builtins.list": "list[...] with the type of its elements",
    "builtins.dict": "dict[str, ...], or a class with fields",
    "builtins.tuple": "list[...]",
    "builtins.set": "list[...]",
    "builtins.frozenset": "list[...]",
    "collections.abc.Sequence": "list[...]",
    "collections.abc.Iterable": "list[...]",
    "collections.abc.Mapping": "dict[str, ...]",
    "builtins.bytearray": "bytes",
    "datetime.date": "datetime.datetime, or str",
    "pathlib.PurePath": "pathlib.Path",
    "typing.Any": "its type",
}


class Hint:
    """What an annotation says: the argument, whether None is allowed, and a name on the wire."""

    __slots__ = ("argument", "nullable", "wire")

    def __init__(self, argument: Argument, nullable: bool, wire: str | bytes | None) -> None:
        self.argument = argument
        self.nullable = nullable
        self.wire = wire


class Typed:
    """The fields of a class, with what their annotations say, in the same order."""

    __slots__ = ("fields", "hints", "kind")

    def __init__(self, kind: type, fields: list[Field], hints: list[Hint]) -> None:
        self.kind = kind
        self.fields = fields
        self.hints = hints

    @property
    def pairs(self) -> list[tuple[bytes | str, Argument]]:
        """The pairs of a schema."""
        each = zip(self.fields, self.hints, strict=True)
        return [(hint.wire or field.name, hint.argument) for field, hint in each]

    @property
    def nullable(self) -> frozenset[str]:
        """The names of the fields that may be None."""
        each = zip(self.fields, self.hints, strict=True)
        return frozenset(field.name for field, hint in each if hint.nullable)


def fields_in(scope: Scope, within: tuple[type, ...] = ()) -> Typed:
    """Return the fields of the class that a scope belongs to; `within` are the records around it."""
    kind = scope.owner
    if kind in within:
        raise TypeError(f"{kind.__name__} contains itself, and a record may not: send a list of ids")
    fields = fields_of(kind)
    hints = []
    for field in fields:
        where = f"{kind.__name__}.{field.name}"
        if not field.init:
            raise TypeError(f"{where} has init=False: a value that comes could not be set")
        try:
            hint = hint_of(field.hint, scope.base(field.name), where, (*within, kind))
        except NameError as error:
            raise NameError(f"{where}: {error}", name=error.name) from error
        if hint.nullable or field.has_default:
            hint.argument = optional(hint.argument)
        _check_default(field, hint, kind, where)
        hints.append(hint)
    return Typed(kind, fields, hints)


def hint_of(hint: Any, scope: Scope, where: str, within: tuple[type, ...] = ()) -> Hint:
    """Return what an annotation says; `where` names it in errors."""
    hint = scope.evaluated(hint)
    if get_origin(hint) is Annotated:
        inner, *notes = get_args(hint)
        wires = [note.name for note in notes if isinstance(note, Wire)]
        given = [note for note in notes if _is_argument(note, where)]
        if given:
            found = Hint(given[0], _split(scope.evaluated(inner), scope)[1], None)
        else:
            found = hint_of(inner, scope, where, within)
        found.wire = wires[0] if wires else found.wire
        return found
    inner, nullable = _split(hint, scope)
    if get_origin(inner) is Annotated and nullable:
        found = hint_of(inner, scope, where, within)
        found.nullable = True
        return found
    return Hint(_argument(inner, scope, where, within), nullable, None)


def _split(hint: Any, scope: Scope) -> tuple[Any, bool]:
    """Return a type without its None, and whether it had one."""
    if get_origin(hint) not in (Union, types.UnionType):
        return hint, hint is None
    members = [scope.evaluated(each) for each in get_args(hint)]
    rest = [each for each in members if each is not type(None)]
    if len(rest) == len(members):
        return hint, False
    # ruff advises `X | Y`, but that does not take the members as a tuple.
    inner = rest[0] if len(rest) == 1 else Union[tuple(rest)]  # noqa: UP007
    return inner, True


def _is_argument(note: Any, where: str) -> bool:
    if isinstance(note, type) and issubclass(note, Argument):
        raise TypeError(f"{where}: an Argument is an instance: write {note.__name__}()")
    return hasattr(note, "toBox") and hasattr(note, "fromBox")


def _argument(hint: Any, scope: Scope, where: str, within: tuple[type, ...]) -> Argument:
    """Return the argument for a type that is not optional."""
    hint = scope.evaluated(hint)
    # What a `NewType` stands for, and what an alias of Python 3.12 does.
    other = getattr(hint, "__supertype__", getattr(hint, "__value__", None))
    if other is not None:
        return _argument(other, scope, where, within)
    origin, inside = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return hint_of(hint, scope, where, within).argument
    if origin is list:
        return _list_of(inside[0], scope, where, within)
    if origin is dict and scope.evaluated(inside[0]) is str:
        element = hint_of(inside[1], scope, where, within)
        return values.DictOf(optional(element.argument) if element.nullable else element.argument)
    if origin is Literal:
        return _choice(inside, where)
    if origin in (Union, types.UnionType):
        kinds = [_name(each) for each in inside]
        if all(kind.startswith("ipaddress.") for kind in kinds):
            return _SIMPLE[kinds[0]](inside)
    elif isinstance(hint, type) and issubclass(hint, enum.Enum):
        return values.Member(hint, _of_values([each.value for each in hint], where, hint.__name__))
    elif is_record(origin or hint):
        return values.Record(record_schema(scope.of(hint), within))
    elif (make := _SIMPLE.get(_name(hint))) is not None:
        return make((hint,))
    raise TypeError(f"{where}: {_unknown(hint)}")


def _list_of(hint: Any, scope: Scope, where: str, within: tuple[type, ...]) -> Argument:
    element = hint_of(hint, scope, where, within)
    if element.nullable:
        raise TypeError(f"{where}: an element of a list cannot be None: leave it out, or use a record")
    if type(element.argument) is values.Record:
        return values.RecordList(element.argument.schema)
    return ListOf(element.argument)


def record_schema(scope: Scope, within: tuple[type, ...] = ()) -> Schema:
    """Return the schema of a record, which is not a whole box."""
    typed = fields_in(scope, within)
    shape = OfRecord(typed.kind, typed.fields, typed.nullable)
    return Schema(typed.pairs, typed.kind.__name__, (), shape)


def _choice(choices: tuple[Any, ...], where: str) -> Argument:
    if any(isinstance(each, enum.Enum) for each in choices):
        kinds = {type(each) for each in choices}
        if len(kinds) > 1:
            raise TypeError(f"{where}: the values of a Literal must have one type")
        kind: Any = kinds.pop()
        inner = values.Member(kind, _of_values([each.value for each in kind], where, kind.__name__))
        return values.Choice(choices, inner)
    return values.Choice(choices, _of_values(list(choices), where, "a Literal"))


def _of_values(found: list[Any], where: str, what: str) -> Argument:
    """Return the argument for the values of an enumeration or a literal."""
    kinds = {type(each) for each in found}
    name = _name(kinds.pop()) if len(kinds) == 1 else ""
    if name not in ("builtins.int", "builtins.str", "builtins.bytes", "builtins.bool"):
        raise TypeError(
            f"{where}: the values of {what} must be all int, or all str, or all bytes; or write "
            "Annotated[..., SomeArgument()]"
        )
    return _SIMPLE[name](())


def optional(argument: Argument) -> Argument:
    """Return an argument that may be absent; the one that was given may be in use elsewhere."""
    if argument.optional:
        return argument
    argument = copy.copy(argument)
    argument.optional = True
    return argument


def _check_default(field: Field, hint: Hint, kind: Any, where: str) -> None:
    """Raise `TypeError` or `ValueError` for a default that no value may be."""
    if not field.has_default or field.make is not None:
        return
    default = field.default
    if default is None:
        if not hint.nullable:
            raise TypeError(f"{where} defaults to None: write `... | None` for its type")
        return
    if hint.nullable:
        raise TypeError(f"{where}: a type with None in it may default to None only, not to {default!r}")
    try:
        if field.is_checked:
            default = field.check(default, kind.__new__(kind))
        if not hint.argument.carries_descriptors:
            hint.argument.toStringProto(default, None)
    except AttributeError:
        pass  # Its validator looks at another field.
    except Exception as error:
        kind_of = TypeError if isinstance(error, TypeError) else ValueError
        raise kind_of(f"{where}: the default {field.default!r} is refused: {error}") from error


def _name(hint: Any) -> str:
    return f"{getattr(hint, '__module__', '')}.{getattr(hint, '__qualname__', '')}"


def _unknown(hint: Any) -> str:
    """Return why a type cannot be an argument, and what to write instead."""
    if isinstance(hint, TypeVar):
        return f"nothing is said of the type variable {hint}: write the type"
    shown = hint.__qualname__ if isinstance(hint, type) and not get_args(hint) else str(hint)
    name = _name(get_origin(hint) or hint)
    instead = _INSTEAD.get(name)
    advice = f"write {instead}, or" if instead else "decorate the class with attrs.frozen, or write"
    if not instead and not isinstance(hint, type):
        advice = "write"
    return f"{shown} has no argument: {advice} Annotated[{shown}, SomeArgument()]"
