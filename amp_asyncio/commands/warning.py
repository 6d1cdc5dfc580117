"""Warnings about definitions: they point to the class statement of the user."""

from __future__ import annotations

import inspect
import warnings
from typing import Final

__all__ = ["stack_depth", "warn_of_name"]

_PACKAGE: Final = __name__.partition(".")[0]


def stack_depth() -> int:
    """Return the `stacklevel` of the class statement, for a warning in the function that calls this."""
    level = 0  # That of this function itself, which is the first one to be skipped.
    frame = inspect.currentframe()
    while frame and frame.f_back and frame.f_globals.get("__name__", "").startswith(f"{_PACKAGE}."):
        frame = frame.f_back
        level += 1
    return level


def warn_of_name(name: bytes, what: str, taken: bool) -> None:
    """Refuse a name on the wire that is `taken` by this package; warn of one that may be, one day."""
    if taken:
        raise ValueError(f"{what}: {name!r} is a name that this package uses itself: take another")
    if name.startswith(b"_"):
        warnings.warn(
            f"{what}: names that begin with an underscore are AMP's own; {name!r} may get a meaning",
            stacklevel=stack_depth(),
        )
