"""AMP: a connection, a dispatcher and the locators in one class, the one that people subclass.

It has public names and nothing else; what it is made of is in `composed.py`.
"""

from __future__ import annotations

from typing import Any

from .composed import connection_of
from .connection.ending import close
from .dispatcher import BoxDispatcher
from .protocol import BinaryBoxProtocol
from .session.locators import (
    CommandLocator,
    MethodResponder,
    Responder,
    ResponderLocator,
    SimpleStringLocator,
)
from .session.starttls import StartTLS
from .wire.boxes import BoxReceiver

__all__ = ["AMP"]


class AMP(BinaryBoxProtocol, BoxDispatcher, CommandLocator, SimpleStringLocator):
    """One side of an AMP connection.

    Subclass it, and declare responders with `Command.responder` (or name them `amp_NAME`). It is an
    `asyncio.Protocol`, so that `loop.create_server(MyAMP, ...)` works; `serve` and `connect` add what
    is usually needed. A server makes an instance for each connection, and a client makes one for its
    own.

    A subclass may have any attribute that is not documented here. It may override any method without
    calling `super()`: the connection does its own work in any case, and calls `connection_made`,
    `connection_lost`, `eof_received`, `pause_writing` and `resume_writing` to tell of it.

    `boxReceiver` gets the boxes in place of this object; `locator` is asked for the responders in
    place of it.

    `version` is that of AMP, 1 or 2, and both sides must have agreed on it beforehand: nothing in the
    bytes says which it is. In version 2, a value may have more than 65,535 bytes. A subclass may set
    `protocol_version` instead. Raises `ValueError` for any other version.
    """

    def __init_subclass__(cls, **kw: Any) -> None:
        super().__init_subclass__(**kw)
        for name in sorted(_PUBLIC):
            if getattr(vars(cls).get(name), "__amp_answers__", None):
                raise TypeError(
                    f"{cls.__name__}.{name} is a responder and has the name of a method of AMP: "
                    "give the responder another name"
                )

    def __init__(
        self,
        boxReceiver: BoxReceiver | None = None,
        locator: ResponderLocator | None = None,
        version: int | None = None,
    ) -> None:
        if version is not None:
            if version not in (1, 2):
                raise ValueError(f"AMP has the versions 1 and 2, not {version!r}")
            self.protocol_version = version
        if boxReceiver is not None:
            self.boxReceiver = boxReceiver
        if locator is not None:
            self.locator = locator

    def locateResponder(self, name: bytes) -> Responder | None:
        """Return a declared responder of the command `name`, or else a method `amp_NAME`.

        Without one for `StartTLS`, the connection is secured against eavesdroppers only: this side
        neither proves its identity nor verifies the peer's.
        """
        responder = CommandLocator.locateResponder(self, name)
        if responder is None:
            responder = SimpleStringLocator.locateResponder(self, name)
        if responder is None and name == StartTLS.commandName:
            responder = MethodResponder(StartTLS, dict, self)
        return responder

    async def close(self, timeout: float | None = 10.0) -> None:
        """Close the connection in order, and return when it is gone.

        From now on, this side asks only from inside responders. Questions that are open get their
        answers, and the responders that run finish; both may still ask, on both sides. Then what was
        sent is written, and the connection closes. All that may take `timeout` seconds (None: as long
        as it takes); then the responders that still run are cancelled, and the connection is aborted.

        A responder may close its own connection; its own answer is dropped then.

        Cancelling it aborts the connection.
        """
        await close(connection_of(self), timeout)


# Names that classes of older programs may have for something else, a responder for instance.
_FREE = frozenset(("call", "describe", "health", "identity", "latency", "peer"))

# What a responder cannot be called.
_PUBLIC = frozenset(name for name in dir(AMP) if not name.startswith("_")) - _FREE
