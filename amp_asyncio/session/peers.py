"""Who asks: what is known of the other end of a connection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from ..tls.certificates import Certificate

__all__ = ["Credentials", "Peer"]


class Credentials(NamedTuple):
    """The process at the other end of a UNIX socket, as the kernel knows it (`SO_PEERCRED`).

    They are those of the moment at which that process connected, or began to listen.
    """

    pid: int
    uid: int
    gid: int


@dataclass(frozen=True, kw_only=True)
class Peer:
    """The other end of a connection; `amp.peer` is one.

    Attributes:
        address: what the transport calls it: (host, port), the path of a UNIX socket, or None. If a
            proxy that the server trusts connects for a client, it is what the proxy says.
        certificate: the certificate that it proved in the TLS handshake to be its own. None without
            TLS, and for one that was not verified: see `peerCertificate`.
        credentials: its process, over a UNIX socket; None over anything else.
    """

    address: Any = None
    certificate: Certificate | None = None
    credentials: Credentials | None = None
