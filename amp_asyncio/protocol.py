"""BinaryBoxProtocol: a connection that can change into something else.

StartTLS puts a layer below the connection, and a switch puts another protocol in its place. Both need
the same of it: that nothing more is written until the change is done or refused, that not one byte
behind the last box is looked at, and that those bytes can be given to whom they belong. `tls.py` and
`switching.py` say when.
"""

from __future__ import annotations

import asyncio
import logging
import os
from typing import TYPE_CHECKING, cast

from .commands.exchange import Exchange
from .connection import BoxConnection
from .errors import ConnectionLost, ProtocolSwitched
from .transports.feeding import feed

if TYPE_CHECKING:
    from .tls.certificates import Certificate

__all__ = ["BinaryBoxProtocol"]

logger = logging.getLogger("amp_asyncio")


class BinaryBoxProtocol(BoxConnection):
    """Sends and receives boxes; can be secured, and handed over to another protocol.

    Attributes:
        transport: the transport, or None before there is one and once it is gone or handed over.
        innerProtocol: the protocol that the transport was handed over to, or None.
        hostCertificate: the certificate that this side presented when StartTLS was done, or None.
    """

    hostCertificate: Certificate | None = None

    # Whether the change that is under way, if any, is StartTLS.
    _securing = False
    _changing_task: asyncio.Task[asyncio.Transport] | None = None

    @property
    def peerCertificate(self) -> Certificate | None:
        """The certificate that the peer presented, verified or not, or None without TLS or one."""
        ssl_object = self.transport and self.transport.get_extra_info("ssl_object")
        der = ssl_object and ssl_object.getpeercert(binary_form=True)
        if not der:
            return None
        from .tls.certificates import Certificate  # It takes a while, and few need it.

        return Certificate.from_der(der)

    def descriptor_received(self, descriptor: int) -> None:
        """Keep a descriptor for the box that will name it; too many of them abort the connection."""
        if self._finished:
            os.close(descriptor)
            return
        if self._exchange is None:
            self._exchange = Exchange()
        try:
            self._exchange.receive(descriptor)
        except ConnectionLost as error:
            self.give_up(error)

    def _sending_exchange(self) -> Exchange | None:
        """Return what takes descriptors for the peer, or None where there is no way to send them.

        While StartTLS is under way there is none either: what is sent next would go over TLS.
        """
        if self.transport is None:
            if self._exchange is None:
                self._exchange = Exchange()
            self._exchange.close()
        elif self._securing or not hasattr(self.transport, "send_descriptor"):
            return None
        elif self._exchange is None:
            self._exchange = Exchange()
        return self._exchange

    def _lock(self, change: object, securing: bool = False) -> None:
        """Write what was sent, and let all later boxes wait until `change` is done or refused."""
        self._flush()
        self._securing = securing
        self._change = change
        self.boxReceiver.pause_sending()

    def _unlock(self) -> None:
        """Send the boxes that waited, in order, and go on."""
        self._change = None
        self._securing = False
        self._flush()
        if self._finish_after_change:
            self.finish_writing()
        else:
            self._resume_sending()

    def _unlock_secured(self, transport: asyncio.Transport) -> None:
        """Go on with a new transport on top of the old one; its own buffer is empty."""
        self.transport = transport
        logger.info("%r: secured by TLS", self)
        self._congested = False
        self._change = None
        # Before the questions that waited are sent: one of them may be the next change.
        self.resume_receiving()
        self._unlock()

    async def _finish_change(self) -> None:
        """Wait for the TLS handshake that is under way, if any."""
        if self._changing_task is not None and not self._changing_task.done():
            await asyncio.wait([self._changing_task])

    def _take_bytes(self) -> bytes:
        """Return the bytes behind the last box, and give out no more boxes."""
        self._pauses += 1
        return self._parser.take_rest()

    def _switchTo(self, inner: asyncio.BaseProtocol) -> None:
        """Hand the transport over to `inner`, with the bytes behind the last box.

        What `inner` raises meanwhile aborts the connection: it is its own from here on.
        """
        transport = self.transport
        assert transport is not None, "the answer that switches comes, or goes, over the transport"
        self._flush()
        self._empty_outbox()
        rest = self._take_bytes()
        self._read(True)
        logger.info("%r: handed over to %r", self, inner)
        self._cancel_timers()
        self.innerProtocol = inner
        self.transport = None
        self._finished = True
        transport.set_protocol(inner)
        self.boxReceiver.stopReceivingBoxes(
            ProtocolSwitched(f"the connection was handed over to {inner!r}")
        )
        for event in (self._closed, self._drained):
            if event is not None:
                event.set()
        try:
            inner.connection_made(transport)
            if self._exchange is not None:
                self._exchange.hand_over(getattr(inner, "descriptor_received", None))
            if self._congested:
                inner.pause_writing()
            feed(inner, rest)
            if self._peer_finished and not cast(asyncio.Protocol, inner).eof_received():
                transport.close()
        except Exception:
            logger.exception("%r failed when it was handed the connection", inner)
            transport.abort()
        finally:
            if self._exchange is not None:
                self._exchange.close()

    def _lose(self, error: Exception) -> None:
        """Give up a connection on which a change failed."""
        transport, self._error = self.transport, self._error or error
        logger.warning("%r: closing the connection: %s", self, error)
        self.connection_lost(error)
        if transport is not None:
            transport.close()
