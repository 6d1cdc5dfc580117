"""Who is at the other end of a connection, as its transport knows it."""

from __future__ import annotations

import asyncio
import socket
import ssl
from struct import Struct
from typing import TYPE_CHECKING, Final

from ..session.peers import Credentials, Peer

if TYPE_CHECKING:
    from ..tls.certificates import Certificate
    from .connection import Connection

__all__ = ["peer_of", "presented_certificate"]

_UCRED: Final = Struct("3i")


def peer_of(connection: Connection) -> Peer:
    """Return who is at the other end: what was set on the owner, or what the transport knows.

    What the transport knew is remembered after the connection is gone, if it was looked up before.
    """
    given = None if connection.owner is None else vars(connection.owner).get("peer")
    if isinstance(given, Peer):
        return given
    transport = connection.transport
    if connection.seen is None and transport is not None:
        connection.seen = Peer(
            address=connection.seen_as or transport.get_extra_info("peername"),
            certificate=presented_certificate(transport) if _verifies(transport) else None,
            credentials=_credentials(transport),
        )
    return connection.seen or Peer()


def presented_certificate(transport: asyncio.BaseTransport) -> Certificate | None:
    """Return the certificate that the peer has presented, verified or not."""
    ssl_object = transport.get_extra_info("ssl_object")
    der = ssl_object and ssl_object.getpeercert(binary_form=True)
    if not der:
        return None
    from ..tls.certificates import Certificate  # Slow to import, and seldom needed.

    return Certificate.from_der(der)


def _verifies(transport: asyncio.BaseTransport) -> bool:
    """Return whether a certificate that was not accepted would have ended the handshake."""
    context: ssl.SSLContext | None = transport.get_extra_info("sslcontext")
    return context is not None and context.verify_mode is not ssl.CERT_NONE


def _credentials(transport: asyncio.BaseTransport) -> Credentials | None:
    sock = transport.get_extra_info("socket")
    if sock is None or sock.family != socket.AF_UNIX or not hasattr(socket, "SO_PEERCRED"):
        return None
    found = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    return Credentials(*_UCRED.unpack(found))
