"""Mistakes in the body of a class, which would otherwise be found out late, or never."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterable
from types import FunctionType
from typing import Any, ClassVar, get_origin

__all__ = ["check_parameters", "check_spelling", "is_class_variable", "takes_stream"]

# What a command may set in its body, as it is spelled, and what may be meant by something similar.
_ATTRIBUTES = """commandName arguments response errors fatalErrors requiresAnswer cancellable
    commandType responseType""".split()


def _plainly(name: str) -> str:
    """Return a name without what is easily confused: capitals, underscores and plurals."""
    return name.lower().replace("_", "").replace("s", "")


_MEANT = {_plainly(name): name for name in _ATTRIBUTES}


def check_spelling(cls: type) -> None:
    """Raise `TypeError` for an attribute of a command that is misspelt, such as `argument`."""
    annotated = vars(cls).get("__annotations__", {})
    for name, value in vars(cls).items():
        meant = _MEANT.get(_plainly(name))
        if meant in (None, name) or name in annotated:
            continue
        # A method, a property or a class of the same name is something else.
        if not (callable(value) or hasattr(value, "__get__")):
            raise TypeError(f"{cls.__name__}.{name} has no effect: it is spelled {meant}")


def is_class_variable(hint: Any) -> bool:
    """Return whether an annotation is that of no field, but of the class."""
    if isinstance(hint, str):
        return hint.strip("'\"").partition("[")[0].rpartition(".")[2] == "ClassVar"
    return get_origin(hint) is ClassVar or hint is ClassVar


def check_parameters(
    method: Any, names: Iterable[str], where: str, command: str, opens_stream: bool = False
) -> None:
    """Raise `TypeError` unless a responder can be called with these arguments, by keyword.

    `method` is what the class has: only functions are looked at, with what is around them in a class.
    Its first parameter may be the stream, if it answers one.
    """
    bound = not isinstance(method, staticmethod)
    if isinstance(method, staticmethod | classmethod):
        method = method.__func__
    if not isinstance(method, FunctionType):
        return
    code = method.__code__
    positional = code.co_varnames[: code.co_argcount]
    given = set(names)
    first = int(bound)
    if opens_stream and not given.issuperset(positional[first : first + 1]):
        first += 1
    by_name = {
        *positional[max(code.co_posonlyargcount, first) :],
        *code.co_varnames[code.co_argcount :][: code.co_kwonlyargcount],
    }
    optional = {*positional[len(positional) - len(method.__defaults__ or ()) :]}
    optional |= {*(method.__kwdefaults__ or {})}
    takes_all = bool(code.co_flags & 0x08)  # It has **kwargs.
    missing = [] if takes_all else sorted(given - by_name)
    extra = sorted(by_name - given - optional)
    problems = []
    if missing:
        problems.append(f"it lacks {', '.join(missing)}")
    if extra:
        problems.append(f"it needs {', '.join(extra)}, which the command does not have")
    if problems:
        raise TypeError(f"{where} does not fit {command}: {'; '.join(problems)}")


def takes_stream(method: Any, names: Collection[str]) -> bool:
    """Return whether the first parameter of a responder is the stream, and none of the arguments."""
    function = getattr(method, "__func__", method)
    first = int(function is not method)
    # A decorator that passes on whatever it gets says nothing itself.
    while isinstance(function, FunctionType):
        code = function.__code__
        positional = code.co_varnames[first : code.co_argcount]
        if positional or not code.co_flags & inspect.CO_VARARGS:
            return bool(positional) and positional[0] not in names
        function = getattr(function, "__wrapped__", None)
    return True
