"""Overrides that Twisted calls and this package does not.

A class that was written for Twisted can still be defined, and what it overrides would silently never
be called. So its definition warns, and the warning names what takes the place of the method.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from types import FunctionType
from typing import Final

from ..commands.warning import stack_depth

__all__ = ["OF_CONNECTIONS", "OF_LOCATORS", "warn_of_overrides"]

_PACKAGE: Final = __name__.partition(".")[0]

# For each method of Twisted: what to override in its place, and perhaps why.
OF_LOCATORS: Final = {
    "lookupFunction": ("locateResponder", "override locateResponder(name)"),
    "_wrapWithSerialization": (
        "locateResponder",
        "override locateResponder(name), and wrap what it returns",
    ),
}
OF_CONNECTIONS: Final = {
    "makeConnection": ("connection_made", "override connection_made(transport)"),
    "connectionMade": ("connection_made", "override connection_made(transport)"),
    "connectionLost": ("connection_lost", "override connection_lost(exc)"),
    "readConnectionLost": ("eof_received", "override eof_received()"),
    "dataReceived": ("data_received", "override data_received(data)"),
    "stringReceived": ("data_received", "override data_received(data), or ampBoxReceived(box)"),
    "lengthLimitExceeded": (
        "connection_lost",
        "the limit is Limits.max_box_size; override connection_lost(exc)",
    ),
    "dispatchCommand": ("locateResponder", "override locateResponder(name), and wrap what it returns"),
    "_commandReceived": ("ampBoxReceived", "override ampBoxReceived(box)"),
    "_answerReceived": ("ampBoxReceived", "override ampBoxReceived(box)"),
    "_errorReceived": ("ampBoxReceived", "override ampBoxReceived(box)"),
    "_sendBoxCommand": ("sendBox", "override sendBox(box), or callRemote"),
    "_safeEmit": ("sendBox", "override sendBox(box)"),
    "failAllOutgoing": ("stopReceivingBoxes", "override stopReceivingBoxes(reason)"),
}


def warn_of_overrides(cls: type, root: type, names: Mapping[str, tuple[str, str]]) -> None:
    """Warn of each method in `names` that the new class `cls` defines, itself or in a mixin.

    `root` is the class of this package that those derive from which were looked at before. A method is
    left alone if the class also overrides what takes its place, and so may call the method itself.
    """
    known = {known for base in cls.__bases__ if issubclass(base, root) for known in base.__mro__}
    for base in cls.__mro__:
        if base in known:
            continue
        for name in sorted(names.keys() & vars(base).keys()):
            instead, advice = names[name]
            is_method = isinstance(vars(base)[name], FunctionType)
            if is_method and hasattr(cls, instead) and not _overrides(cls, instead):
                warnings.warn(
                    f"{cls.__name__}.{name}() will never be called: {advice} instead",
                    stacklevel=stack_depth(),
                )


def _overrides(cls: type, name: str) -> bool:
    """Return whether a class outside of this package defines the method `name` of `cls`."""
    return any(
        name in vars(base) and base.__module__.partition(".")[0] not in (_PACKAGE, "asyncio")
        for base in cls.__mro__
    )
