"""Alerts: telling the peer why a TLS handshake fails.

OpenSSL writes an alert for the peer when it rejects its certificate. The event loop aborts the
connection before that leaves (https://github.com/python/cpython/issues/98078), so that the peer only
sees that the connection is gone. A handshake with an `AlertingContext` sends the alert before the event
loop learns of the failure, if the transport below it is known.
"""

from __future__ import annotations

import os
import ssl
from contextlib import suppress
from typing import Any

__all__ = ["AlertingContext", "Alerts"]


class Alerts:
    """The alerts of the handshake that begins next, over `transport`, which is below TLS."""

    _next: Alerts | None = None

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self._taken = False

    def begin(self) -> None:
        """The next `SSLObject` that is made is the one of this handshake, unless it has one."""
        if not self._taken:
            Alerts._next = self

    def end(self) -> None:
        """The next one is not."""
        if Alerts._next is self:
            Alerts._next = None

    @classmethod
    def take(cls) -> Alerts | None:
        """Return those of the handshake that begins now; None if they cannot be sent."""
        alerts, cls._next = cls._next, None
        if alerts is not None:
            alerts._taken = True
        return alerts

    def send(self, alert: bytes) -> None:
        """Send an alert past the transport, which is about to be aborted, and so would drop it."""
        sock = self._transport.get_extra_info("socket")
        if sock is not None and not self._transport.get_write_buffer_size():
            with suppress(OSError):  # The peer may be gone.
                os.write(sock.fileno(), alert)


class _AlertingObject(ssl.SSLObject):
    """One side of TLS; `below` is where its alerts go, and what it sends, until it is established."""

    below: tuple[Alerts, ssl.MemoryBIO] | None = None

    def do_handshake(self) -> None:
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError:
            if self.below is not None:
                alerts, outgoing = self.below
                alerts.send(outgoing.read())
            raise
        self.below = None


class AlertingContext(ssl.SSLContext):
    """A context whose handshakes send their alerts."""

    sslobject_class = _AlertingObject

    def wrap_bio(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, *a: Any, **kw: Any) -> Any:
        wrapped: Any = super().wrap_bio(incoming, outgoing, *a, **kw)
        if (alerts := Alerts.take()) is not None:
            wrapped.below = (alerts, outgoing)
        return wrapped
