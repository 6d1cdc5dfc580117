"""StartTLS: a connection that is secured in mid-stream.

The two sides agree in the clear, and the first byte after the agreement belongs to TLS. Bytes that an
attacker on the path adds there must never be taken for AMP, and bytes that we write there must never
leave in the clear. So each side stops looking at bytes at the box that starts TLS, gives everything
after it to the TLS layer, and holds its own boxes back from the moment when it sent that box until the
handshake is done.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from ..commands.arguments import Argument
from ..errors import OnlyOneTLS, RemoteAmpError
from ..wire.boxes import UNHANDLED_ERROR_CODE, AmpBox
from .changes import Change, ChangeBox, ChangingCommand

if TYPE_CHECKING:
    from ..tls.certificates import Certificate, PrivateCertificate
    from .outlets import ChangeableOutlet

__all__ = ["StartTLS"]


class _LocalArgument(Argument):
    """An argument for this side alone: it is not sent."""

    def __init__(self) -> None:
        super().__init__(optional=True)

    def fromBox(
        self, name: bytes, strings: MutableMapping[bytes, bytes], objects: dict[str, Any], proto: Any
    ) -> None:
        pass

    def toBox(
        self, name: bytes, strings: MutableMapping[bytes, bytes], objects: dict[str, Any], proto: Any
    ) -> None:
        pass


_ARGUMENTS = [
    (b"tls_localCertificate", _LocalArgument()),
    (b"tls_verifyAuthorities", _LocalArgument()),
    (b"tls_context", _LocalArgument()),
    (b"tls_serverHostname", _LocalArgument()),
    (b"tls_serverSide", _LocalArgument()),
]


class StartTLS(ChangingCommand):
    """Start TLS on this connection; `callRemote(StartTLS, ...)` gives `{}` when it is secured.

    Both sides say what they want, the caller with the arguments, the responder with the same keys in
    what it returns. These values are not sent.

    Args:
        tls_localCertificate: the `PrivateCertificate` to present. Without one a TLS client presents
            none, and a TLS server presents a temporary one that it signed itself.
        tls_verifyAuthorities: the `Certificate` objects to trust. The peer must present a certificate
            that is one of them, or was issued by one. **Without any, nothing is verified**: the
            connection is safe from eavesdroppers, but the peer may be anyone. An empty list is
            a `ValueError`.
        tls_serverHostname: on the TLS client's side, the name or address that the peer's certificate
            must be for. It needs authorities, and must not be empty.
        tls_context: an `ssl.SSLContext` in place of certificate and authorities. It decides what is
            verified; `tls_serverHostname` is then checked only if its `check_hostname` is set.
        tls_serverSide: whether this side is the TLS server. By default the caller is the client and the
            responder the server. (Twisted goes by who opened the TCP connection.)

    The call raises, at once, `OnlyOneTLS` on a connection that has TLS or is about to, and `TypeError`
    on one over pipes, which cannot have it. The future raises `PeerVerifyError` if a certificate was
    not accepted, `ConnectionLost` if the handshake failed otherwise, both from the `ssl.SSLError`; the
    connection is closed then. If the peer refuses, the future raises what it answered, and the
    connection goes on in the clear.

    With TLS 1.3 a client is done before the server has looked at the client's certificate: if the
    server rejects it, the call has succeeded already, and the next question fails.

    Cancelling the call does not stop what is under way: the connection goes on, secured or refused.
    """

    public = True  # What a peer has to say to be identified may be a secret.
    arguments = _ARGUMENTS
    response = _ARGUMENTS

    @classmethod
    def makeResponse(cls, objects: Mapping[str, Any], proto: Any) -> AmpBox:
        box = cast(ChangeBox, super().makeResponse(objects, proto))
        box.change = _Securing(cls, objects, server_side=True)
        return box

    def _change(self, outlet: ChangeableOutlet) -> Change:
        securing = _Securing(type(self), self.structured, server_side=False)
        securing.check(outlet)
        return securing


class _Securing(Change):
    """What one side wants of the TLS handshake, made from the `tls_` values that it gave.

    Raises `ValueError` or `TypeError` if they contradict each other, before anything is sent.
    """

    securing = True

    def __init__(self, command: type[StartTLS], given: Mapping[str, Any], *, server_side: bool) -> None:
        super().__init__(command)
        self._asking = not server_side
        self.certificate: PrivateCertificate | None = given.get("tls_localCertificate")
        authorities: Sequence[Certificate] | None = given.get("tls_verifyAuthorities")
        context: ssl.SSLContext | None = given.get("tls_context")
        asked_side: bool | None = given.get("tls_serverSide")
        hostname: str | None = given.get("tls_serverHostname")
        self.server_side = server_side if asked_side is None else asked_side
        if self.server_side and hostname is not None:
            raise ValueError("tls_serverHostname is for the TLS client; this side is the server")
        if hostname is not None and not hostname:
            raise ValueError("tls_serverHostname is empty; to verify no name, leave it out")
        if context is None:
            from ..tls.certificates import make_ssl_context  # Slow to import, and seldom needed.

            context = make_ssl_context(
                self.certificate,
                server_side=self.server_side,
                authorities=authorities,
                check_hostname=hostname is not None,
            )
        elif self.certificate is not None or authorities is not None:
            raise ValueError("tls_context takes the place of certificate and authorities")
        elif context.check_hostname and hostname is None and not self.server_side:
            raise ValueError("the tls_context checks the host name: tls_serverHostname is missing")
        self.context = context
        self.hostname = hostname

    def check(self, outlet: ChangeableOutlet) -> None:
        if outlet.secured:
            raise OnlyOneTLS(f"{outlet!r} has TLS, or is about to; it can be started only once")
        if outlet.over_pipes:
            if self._asking:
                raise TypeError(f"TLS cannot be started on {outlet!r}: it is over pipes")
            raise RemoteAmpError(UNHANDLED_ERROR_CODE, "TLS cannot be started over pipes")

    def begin(self, outlet: ChangeableOutlet, future: asyncio.Future[Any] | None, answer: Any) -> None:
        def done(error: Exception | None) -> None:
            if future is None or future.done():
                return
            if error is None:
                future.set_result(answer)
            else:
                future.set_exception(error)

        outlet.secure(self, done)

    def cancelled(self, outlet: ChangeableOutlet) -> None:
        """Do nothing: the connection goes on, secured or refused."""
