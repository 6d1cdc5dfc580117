"""ProtocolSwitchCommand: a connection that is handed over to another protocol.

The side that asks does not know whether the switch will happen until the answer comes, and whatever it
wrote meanwhile would reach either AMP or the new protocol. So it writes nothing while the switch is in
doubt. The bytes after the answer are the new protocol's: it gets the transport, and those bytes that
had been read already, in the same turn of the loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import CoroutineType
from typing import TYPE_CHECKING, Any

from ..commands.definitions import ENDING, raisable
from ..errors import ConnectionLost
from ..wire.boxes import AmpBox
from .changes import Change, ChangeBox, ChangingCommand, lost

if TYPE_CHECKING:
    from .outlets import ChangeableOutlet

__all__ = ["ProtocolSwitchCommand"]


class ProtocolSwitchCommand(ChangingCommand):
    """Subclass it, to hand a connection over to another protocol once the peer has agreed.

    `await amp.callRemote(SwitchToX, protocol_factory, **arguments)` asks for it. `protocol_factory` is
    called, without arguments, when the peer has acknowledged; it returns an `asyncio.Protocol` or an
    `asyncio.BufferedProtocol`. The responder returns the protocol instance for its own side, not a
    dictionary. Each then gets `connection_made(transport)` and, as its first data, every byte that
    came after the acknowledgement. (Over TLS, `get_buffer` of a `BufferedProtocol` must return a
    `memoryview`: asyncio fills a `bytearray` wrongly there.)

    From the question to the answer, nothing is sent on this side. If the peer refuses, by an error,
    what waited is sent, the future raises the error, and AMP goes on. If it agrees, the future gives
    `{}`, `amp.innerProtocol` is the new protocol, and every other question, open or later, raises
    `ProtocolSwitched`. The new protocol then has to close the connection.

    If `protocol_factory` raises, the future raises that error; the peer has switched by then, so the
    connection is aborted. Cancelling the future while the answer is awaited also aborts the connection,
    because it is not known what the connection carries; cancelling it before the question was sent
    only forgets the question.
    """

    def __init__(
        self, _protoToSwitchToFactory: Callable[[], asyncio.BaseProtocol] | None = None, /, **kw: Any
    ) -> None:
        if not callable(_protoToSwitchToFactory):
            name = type(self).__name__
            right = ", ".join([name, "protocol_factory", *(f"{each}=..." for each in kw)])
            raise TypeError(
                f"{name} needs a protocol factory, not {_protoToSwitchToFactory!r}: write "
                f"callRemote({right})"
            )
        super().__init__(**kw)
        # For type checkers a question is frozen; this one is not made with attrs.
        self._factory = _protoToSwitchToFactory  # pyright: ignore[reportAttributeAccessIssue]

    @classmethod
    def makeResponse(cls, objects: Any, proto: Any) -> AmpBox:
        """Return the box that agrees, and that hands the connection to the protocol `objects`."""
        if not isinstance(objects, asyncio.BaseProtocol):
            raise TypeError(f"{objects!r} is not an asyncio.BaseProtocol")
        box = ChangeBox()
        box.change = _Switch(cls, lambda: objects)
        return box

    def _change(self, outlet: ChangeableOutlet) -> Change:
        return _Switch(type(self), self._factory)


class _Switch(Change):
    """A switch to the protocol that `factory` makes."""

    def __init__(
        self, command: type[ProtocolSwitchCommand], factory: Callable[[], asyncio.BaseProtocol]
    ) -> None:
        super().__init__(command)
        self._factory = factory

    def check(self, outlet: ChangeableOutlet) -> None:
        """Do nothing: any connection can be handed over."""

    def begin(self, outlet: ChangeableOutlet, future: asyncio.Future[Any] | None, answer: Any) -> None:
        if future is not None and future.done():
            self.cancelled(outlet)
            return
        try:
            inner = self._factory()
            if isinstance(inner, CoroutineType):
                inner.close()
                raise TypeError("the factory is an `async def`: a plain `def` returns the protocol")
            if not isinstance(inner, asyncio.BaseProtocol):
                raise TypeError(f"the factory returned {inner!r}, which is not an asyncio.BaseProtocol")
        except BaseException as error:
            assert future is not None, "a responder has made its protocol before it answers"
            future.set_exception(raisable(error))
            outlet.give_up(lost("no protocol to switch to", error))
            if isinstance(error, ENDING):
                raise
            return
        if future is not None:
            future.set_result(answer)
        outlet.switch(inner)

    def cancelled(self, outlet: ChangeableOutlet) -> None:
        name = self.command.__name__
        outlet.give_up(ConnectionLost(f"the call of {name} was cancelled while it was in doubt"))
