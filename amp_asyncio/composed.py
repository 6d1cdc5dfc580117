"""Objects that are put together from parts: what AMP and the classes below it have in common.

The parts, a session and perhaps a connection, are made before the constructor runs, and are kept in one
reserved slot, `__amp__`. So a subclass may have any other attribute, need not call the constructor, and
may override any method without calling `super()`.
"""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar, Self

from .connection.connection import Connection
from .limits import Limits
from .session.ported import OF_CONNECTIONS, warn_of_overrides
from .session.session import Session

__all__ = ["Composed", "connection_of", "is_of_this_package"]

_OWN = frozenset(f"{__package__}.{name}" for name in ("amp", "composed", "dispatcher", "protocol"))

# What a subclass may override of what is done for each piece of the stream, or for each box. It is
# found out once, when the class is defined, so that those who override nothing pay nothing.
_PER_BOX = (
    "data_received",
    "sendBox",
    "ampBoxReceived",
    "locateResponder",
    "startReceivingBoxes",
    "stopReceivingBoxes",
)


class Composed:
    """A base that makes the parts of an object before its constructor runs."""

    __slots__ = ("__amp__",)

    __amp__: Session
    __amp_overrides__: ClassVar[frozenset[str]] = frozenset()

    def __new__(cls, *args: Any, **kw: Any) -> Self:
        self = super().__new__(cls)
        self.__amp__ = Session(self)
        return self

    def __init_subclass__(cls, **kw: Any) -> None:
        super().__init_subclass__(**kw)
        if "__amp__" in vars(cls):
            raise TypeError(
                f"{cls.__name__}.__amp__ is reserved: the parts of the object are kept there"
            )
        if is_of_this_package(cls):
            return
        cls.__amp_overrides__ = frozenset(name for name in _PER_BOX if _is_overridden(cls, name))
        limits = getattr(cls, "limits", Limits())
        if not isinstance(limits, Limits) and not hasattr(limits, "__get__"):
            raise TypeError(f"{cls.__name__}.limits must be a Limits(...), not {limits!r}")
        warn_of_overrides(cls, Composed, OF_CONNECTIONS)


def is_of_this_package(cls: type) -> bool:
    """Return whether `cls` is AMP or one of the classes below it, and not a subclass of theirs."""
    return cls.__module__ in _OWN


def _is_overridden(cls: type, name: str) -> bool:
    for base in cls.__mro__:
        if name in vars(base):
            return not is_of_this_package(base) and base is not asyncio.Protocol
    return False


def connection_of(proto: Any) -> Connection:
    """Return the connection of an AMP or a `BinaryBoxProtocol`; `TypeError` for anything else."""
    session = getattr(proto, "__amp__", None)
    if isinstance(session, Session) and isinstance(session.outlet, Connection):
        return session.outlet
    raise TypeError(f"{type(proto).__name__} has no connection: its boxes go through another sender")
