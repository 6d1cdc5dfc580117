"""What modules need that may be compiled by mypyc, and do the same either way."""

from __future__ import annotations

from typing import TypeVar

__all__ = ["caused", "derivable"]

_Kind = TypeVar("_Kind", bound=type)
_Error = TypeVar("_Error", bound=BaseException)


def derivable(kind: _Kind) -> _Kind:
    """Have mypyc compile the methods of a class, and leave the class itself one of Python's.

    Modules that are not compiled could not derive from a class of mypyc's. It makes none of a class
    that has a decorator.
    """
    return kind


def caused(error: _Error, cause: BaseException | None) -> _Error:
    """Return `error` as `raise error from cause` raises it: mypyc leaves out the `from`."""
    error.__cause__ = cause
    return error
