"""ProtocolSwitchCommand: a connection that is handed over to another protocol.

The side that asks does not know whether the switch will happen until the answer is there, and
whatever it wrote meanwhile would reach either AMP or the new protocol. So it writes nothing while the
switch is in doubt. When the answer comes, the byte behind it is the new protocol's: the transport
gets the new protocol, and the new protocol gets the bytes that had been read already, in one turn of
the loop, before anything else can happen.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from ..commands.command import Command
from ..errors import ConnectionLost, RemoteAmpError
from ..protocol import BinaryBoxProtocol
from ..wire.boxes import AmpBox, BoxSender

__all__ = ["ProtocolSwitchCommand"]

logger = logging.getLogger("amp_asyncio")


class _AskingBox(AmpBox):
    """The question: behind it, everything waits for the answer."""

    def _sendTo(self, boxSender: BoxSender) -> None:
        super()._sendTo(boxSender)
        _connection(boxSender)._lock(self)


class _SwitchBox(AmpBox):
    """The answer: behind it, the connection is the new protocol's."""

    inner: asyncio.BaseProtocol

    def _sendTo(self, boxSender: BoxSender) -> None:
        super()._sendTo(boxSender)
        _connection(boxSender)._switchTo(self.inner)


class ProtocolSwitchCommand(Command):
    """Subclass it, to hand a connection over to another protocol once the peer has agreed.

    `await amp.callRemote(SwitchToX, protocol_factory, **arguments)` asks for it. `protocol_factory` is
    called, without arguments, when the peer has acknowledged; it returns an `asyncio.Protocol` or an
    `asyncio.BufferedProtocol`. The responder returns the protocol instance for its own side, not a
    dictionary. Each then gets `connection_made(transport)` and, as its first data, every byte that
    came behind the acknowledgement. (Over TLS, `get_buffer` of a `BufferedProtocol` is to return a
    `memoryview`: asyncio fills a `bytearray` wrongly there.)

    From the question to the answer, nothing is sent on this side. If the peer refuses, by an error,
    what waited is sent, the future raises the error, and AMP goes on. If it agrees, the future gives
    `{}`, `amp.innerProtocol` is the new protocol, and every other question, open or later, raises
    `ProtocolSwitched`. The connection is then the new protocol's to close.

    If `protocol_factory` raises, the future raises that error; the peer has switched by then, so the
    connection is aborted. Cancelling the future while the answer is awaited also aborts the connection,
    for nobody knows what it carries; cancelling it before the question was sent only forgets it.
    """

    commandType = _AskingBox
    responseType = _SwitchBox

    def __init_subclass__(cls, **kw: Any) -> None:
        super().__init_subclass__(**kw)
        if not cls.requiresAnswer:
            raise TypeError(f"{cls.__name__} changes the connection, and so requires an answer")

    def __init__(
        self, _protoToSwitchToFactory: Callable[[], asyncio.BaseProtocol], /, **kw: Any
    ) -> None:
        if not callable(_protoToSwitchToFactory):
            raise TypeError(f"{_protoToSwitchToFactory!r} is no factory of protocols")
        super().__init__(**kw)
        self._factory = _protoToSwitchToFactory

    @classmethod
    def makeResponse(cls, innerProto: Any, proto: Any) -> AmpBox:
        """Return the box that agrees, and that hands the connection to `innerProto` when sent."""
        if not isinstance(innerProto, asyncio.BaseProtocol):
            raise TypeError(f"{innerProto!r} is no asyncio.BaseProtocol")
        box = _SwitchBox()
        box.inner = innerProto
        return box

    def _doCommand(self, proto: Any) -> asyncio.Future[Any]:
        connection = _connection(proto._sender())
        box = self.makeArguments(self.structured, proto)
        future: asyncio.Future[Any] = proto._sendBoxCommand(
            self.commandName, box, self.requiresAnswer, self
        )

        def in_doubt(future: asyncio.Future[Any]) -> None:
            if future.cancelled() and connection._change is box:
                self._give_up(connection)

        future.add_done_callback(in_doubt)
        return future

    def _answered(self, box: AmpBox, proto: Any, future: asyncio.Future[Any]) -> None:
        connection = _connection(proto.boxSender)
        if future.done():
            self._give_up(connection)
            return
        try:
            answer = self.parseResponse(box, proto)
            inner = self._factory()
        except Exception as error:
            stopped = isinstance(error, StopIteration)  # No future can raise it.
            future.set_exception(RuntimeError(repr(error)) if stopped else error)
            connection.give_up(ConnectionLost(f"no protocol to switch to: {error!r}"))
        else:
            future.set_result(answer)
            connection._switchTo(inner)

    def _failed(self, error: RemoteAmpError, proto: Any, future: asyncio.Future[Any]) -> None:
        super()._failed(error, proto, future)
        _connection(proto.boxSender)._unlock()

    def _give_up(self, connection: BinaryBoxProtocol) -> None:
        name = type(self).__name__
        connection.give_up(ConnectionLost(f"the call of {name} was cancelled while it was in doubt"))


def _connection(boxSender: BoxSender | None) -> BinaryBoxProtocol:
    if not isinstance(boxSender, BinaryBoxProtocol):
        raise TypeError(f"a BinaryBoxProtocol such as AMP can be switched, not {boxSender!r}")
    return boxSender
