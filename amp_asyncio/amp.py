"""AMP: the connection, the dispatcher and the locators in one class, the one that people subclass.

A server makes an instance for each connection and a client makes one for its own; both sides can
ask and answer. What is here beyond the sum of the parts is the end of a conversation: closing and
half-closing need to know both the connection and the questions that are still open on it.
"""

from __future__ import annotations

import asyncio
from typing import Any

from .errors import ConnectionLost
from .protocol import BinaryBoxProtocol
from .session.dispatcher import BoxDispatcher
from .session.locators import CommandLocator, Responder, ResponderLocator, SimpleStringLocator
from .session.starttls import StartTLS
from .wire.boxes import BoxReceiver

__all__ = ["AMP"]


class AMP(BinaryBoxProtocol, BoxDispatcher, CommandLocator, SimpleStringLocator):
    """One side of an AMP connection.

    Subclass it, and declare responders with `Command.responder` (or name them `amp_NAME`). It is an
    `asyncio.Protocol`, so that `loop.create_server(MyAMP, ...)` works, and `serve` and `connect` do
    what else is usually wanted.

    `boxReceiver` gets the boxes in place of this object; `locator` is asked for the responders in
    place of it.

    `version` is that of AMP, 1 or 2, and both sides must have agreed on it beforehand: nothing in the
    bytes says which it is. In version 2, a value may have more than 65,535 bytes. A subclass may set
    `protocol_version` instead. Raises `ValueError` for any other version.
    """

    _initialized = False
    _ending: asyncio.Task[None] | None = None

    def __init__(
        self,
        boxReceiver: BoxReceiver | None = None,
        locator: ResponderLocator | None = None,
        version: int | None = None,
    ) -> None:
        self._initialized = True
        if version is not None:
            self.protocol_version = version
        BinaryBoxProtocol.__init__(self, self if boxReceiver is None else boxReceiver)
        BoxDispatcher.__init__(self, self if locator is None else locator)

    def locateResponder(self, name: bytes) -> Responder | None:
        """Return a declared responder of the command `name`, or else a method `amp_NAME`."""
        responder = CommandLocator.locateResponder(self, name)
        if responder is None:
            responder = SimpleStringLocator.locateResponder(self, name)
        return responder

    @StartTLS.responder
    def _start_tls(self) -> dict[str, Any]:
        """Secure the connection against who only listens: no certificate of our own, none asked for.

        Override it, with any name, to return certificates: see `StartTLS`.
        """
        return {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start: the transport is connected."""
        if not self._initialized:
            # Classes written for Twisted need not call the constructor, and many do not.
            AMP.__init__(self)
        super().connection_made(transport)

    def eof_received(self) -> bool:
        """Answer the commands that came before the end, then close.

        Our own questions fail: nothing comes any more that could answer them. Over TLS, where one
        side cannot be closed alone, the connection closes at once.
        """
        super().eof_received()
        transport = self.transport
        if self._finished or self.boxReceiver is not self:
            return False
        if transport is None or self._change is not None or not transport.can_write_eof():
            return False
        why = f": {self._error}" if self._error else ""
        lost = ConnectionLost(f"the peer closed its side of the connection{why}")
        lost.__cause__ = self._error
        self._give_up_questions(lost)
        self._ending = self._loop.create_task(self._answer_and_finish())
        return True

    async def _answer_and_finish(self) -> None:
        await self._finish_responders()
        self.finish_writing()

    async def close(self, timeout: float | None = 10.0) -> None:
        """Close the connection in order, and return when it is gone.

        No new question is accepted; those that are open get their answers, the commands that were
        read get theirs. That may take `timeout` seconds (None: as long as it takes); whoever still
        waits then gets `ConnectionLost`. What is written by then is sent in any case, unless the peer
        does not take it within ten seconds more.

        A responder may close its own connection; its own answer then goes nowhere.

        Cancelling it aborts the connection.
        """
        if self.transport is None:
            return
        try:
            try:
                async with asyncio.timeout(timeout):
                    await self._finish_questions(ConnectionLost("the connection is closing"))
                    await self._finish_change()
                    # What is not read now is not answered; the peer learns that it was not.
                    self.pause_receiving()
                    await self._finish_responders()
            except TimeoutError:
                pass
            if self._change is None:
                self.finish_writing()
            else:
                self.abort()  # Nobody knows what may be written, nor when that will be known.
            await self.wait_closed()
        except asyncio.CancelledError:
            self.abort()
            raise
