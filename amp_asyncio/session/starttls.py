"""StartTLS: a connection that is secured in mid-stream.

The two sides agree in the clear, and the first byte behind the agreement belongs to TLS. Whatever an
attacker on the path adds there must never be taken for AMP, and whatever we write there must never
go out in the clear. So each side stops looking at bytes at the very box that starts TLS, feeds all
that came behind it to the TLS layer, and holds its own boxes back from the moment it sent that box
until the handshake is over.

`loop.start_tls` does the handshake. It expects that no byte was read beyond what its caller meant
to read; `_handshake` below explains how the bytes that were read get to it all the same.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from ..commands.arguments import Argument
from ..commands.command import Command
from ..errors import (
    ConnectionLost,
    MalformedAmpBox,
    OnlyOneTLS,
    RemoteAmpError,
    certificate_error,
)
from ..protocol import BinaryBoxProtocol
from ..transports.adoption import native_transport
from ..transports.feeding import feed
from ..transports.unix import DescriptorTransport
from ..wire.boxes import UNHANDLED_ERROR_CODE, AmpBox, BoxSender

if TYPE_CHECKING:
    from ..tls.certificates import Certificate, PrivateCertificate

__all__ = ["StartTLS"]


class _LocalArgument(Argument):
    """An argument that is for this side alone: nothing of it crosses the wire."""

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


class _Terms:
    """What one side wants of the handshake, made from the `tls_` values that it gave.

    Raises `ValueError` or `TypeError` where they contradict each other: before anything is sent.
    """

    def __init__(self, given: Mapping[str, Any], *, server_side: bool) -> None:
        self.certificate: PrivateCertificate | None = given.get("tls_localCertificate")
        authorities: Sequence[Certificate] | None = given.get("tls_verifyAuthorities")
        context: ssl.SSLContext | None = given.get("tls_context")
        asked_side: bool | None = given.get("tls_serverSide")
        hostname: str | None = given.get("tls_serverHostname")
        self.server_side = server_side if asked_side is None else asked_side
        if self.server_side and hostname is not None:
            raise ValueError("tls_serverHostname is for the TLS client; this side is the server")
        if context is None:
            from ..tls.certificates import make_ssl_context  # It takes a while, and few need it.

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


class _AskingBox(AmpBox):
    """The question: behind it, everything waits for the answer."""

    def _sendTo(self, boxSender: BoxSender) -> None:
        connection = _connection(boxSender)
        _check_only_one(connection)
        super()._sendTo(boxSender)
        connection._lock(self, securing=True)


class _TLSBox(AmpBox):
    """The answer: behind it, the handshake begins."""

    terms: _Terms

    def _sendTo(self, boxSender: BoxSender) -> None:
        connection = _connection(boxSender)
        _check_only_one(connection)
        if _over_pipes(connection):
            raise RemoteAmpError(UNHANDLED_ERROR_CODE, "TLS cannot be started over pipes")
        super()._sendTo(boxSender)
        connection._lock(self, securing=True)
        _secure(connection, self.terms, None, {})


_ARGUMENTS = [
    (b"tls_localCertificate", _LocalArgument()),
    (b"tls_verifyAuthorities", _LocalArgument()),
    (b"tls_context", _LocalArgument()),
    (b"tls_serverHostname", _LocalArgument()),
    (b"tls_serverSide", _LocalArgument()),
]


class StartTLS(Command):
    """Start TLS on this connection; `callRemote(StartTLS, ...)` gives `{}` when it is secured.

    Both sides say what they want, the caller with the arguments, the responder with the same keys in
    what it returns. None of it is sent.

    Args:
        tls_localCertificate: the `PrivateCertificate` to present. Without one a TLS client presents
            none, and a TLS server presents a temporary one that it signed itself.
        tls_verifyAuthorities: the `Certificate` objects to trust. The peer must present a certificate
            that is one of them, or was issued by one. **Without any, nothing is verified**: nobody can
            read along, but it may be anybody who is at the other end.
        tls_serverHostname: on the TLS client's side, the name or address that the peer's certificate
            must be for. It needs authorities.
        tls_context: an `ssl.SSLContext` in place of certificate and authorities. It decides what is
            verified; `tls_serverHostname` is then checked only if its `check_hostname` is set.
        tls_serverSide: whether this side is the TLS server. By default the caller is the client and the
            responder the server. (Twisted goes by who opened the TCP connection.)

    The call raises, at once, `OnlyOneTLS` on a connection that has TLS or is about to, and `TypeError`
    on one over pipes, where there can be none. The future raises `PeerVerifyError` where a certificate
    was not accepted, `ConnectionLost` where the handshake failed otherwise, both from the
    `ssl.SSLError`; the connection is closed then. If the peer refuses, the future raises what it
    answered, and the connection goes on in the clear.

    With TLS 1.3 a client is done before the server has looked at the client's certificate: if the
    server rejects it, the call has succeeded already, and the next question fails.

    Cancelling the call does not stop what is under way: the connection goes on, secured or refused.
    """

    arguments = _ARGUMENTS
    response = _ARGUMENTS
    commandType = _AskingBox
    responseType = _TLSBox

    def __init_subclass__(cls, **kw: Any) -> None:
        super().__init_subclass__(**kw)
        if not cls.requiresAnswer:
            raise TypeError(f"{cls.__name__} changes the connection, and so requires an answer")

    @classmethod
    def makeResponse(cls, objects: Mapping[str, Any], proto: Any) -> AmpBox:
        box = cast(_TLSBox, super().makeResponse(objects, proto))
        box.terms = _Terms(objects, server_side=True)
        return box

    def _doCommand(self, proto: Any) -> asyncio.Future[Any]:
        connection = _connection(proto._sender())
        _check_only_one(connection)
        if _over_pipes(connection):
            raise TypeError(f"TLS cannot be started on {connection!r}: it is over pipes")
        self._terms = _Terms(self.structured, server_side=False)
        return super()._doCommand(proto)

    def _answered(self, box: AmpBox, proto: Any, future: asyncio.Future[Any]) -> None:
        connection = _connection(proto.boxSender)
        try:
            answer = self.parseResponse(box, proto)
        except MalformedAmpBox as error:
            # It begins TLS all the same, and we cannot.
            if not future.done():
                future.set_exception(error)
            connection.give_up(error)
        else:
            _secure(connection, self._terms, future, answer)

    def _failed(self, error: RemoteAmpError, proto: Any, future: asyncio.Future[Any]) -> None:
        super()._failed(error, proto, future)
        _connection(proto.boxSender)._unlock()


def _connection(boxSender: BoxSender | None) -> BinaryBoxProtocol:
    if not isinstance(boxSender, BinaryBoxProtocol):
        raise TypeError(f"TLS is started on a BinaryBoxProtocol such as AMP, not on {boxSender!r}")
    return boxSender


def _check_only_one(connection: BinaryBoxProtocol) -> None:
    transport = connection.transport
    starting = isinstance(connection._change, _AskingBox | _TLSBox)
    if starting or (transport is not None and transport.get_extra_info("sslcontext") is not None):
        raise OnlyOneTLS(f"{connection!r} has TLS, or is about to; it can be started only once")


def _over_pipes(connection: BinaryBoxProtocol) -> bool:
    """Return whether there is no socket below, without which `loop.start_tls` cannot do anything."""
    transport = connection.transport
    return transport is not None and transport.get_extra_info("pipe") is not None


def _secure(
    connection: BinaryBoxProtocol, terms: _Terms, future: asyncio.Future[Any] | None, answer: Any
) -> None:
    """Begin the handshake, now that the last byte in the clear was written and read.

    `future`, if any, is given `answer` when it is done.
    """
    early = connection._take_bytes()
    # TLS has the transport's bytes from now on, but asyncio gives it them only a turn later.
    connection._read(False)
    shaking = connection._loop.create_task(_handshake(connection, terms, early))

    def done(shaking: asyncio.Task[asyncio.Transport]) -> None:
        failure = None
        if shaking.cancelled():
            failure = ConnectionLost("the TLS handshake was cancelled")
        elif (error := shaking.exception()) is not None:
            failure = certificate_error(error) or ConnectionLost(
                f"the TLS handshake failed: {str(error) or type(error).__name__}"
            )
            failure.__cause__ = failure.__cause__ or error
        if failure is None:
            connection.hostCertificate = terms.certificate
            if future is not None and not future.done():
                future.set_result(answer)
            connection._unlock_secured(shaking.result())
        else:
            # Whether asyncio tells a protocol of the loss depends on how far the handshake was.
            connection._lose(failure)
            if future is not None and not future.done():
                future.set_exception(failure)

    shaking.add_done_callback(done)
    connection._changing_task = shaking


async def _handshake(connection: BinaryBoxProtocol, terms: _Terms, early: bytes) -> asyncio.Transport:
    """Return the transport that `loop.start_tls` puts on top of the connection's own.

    `early` is what was read from the wire already. It must reach the TLS layer behind its
    `connection_made`, and before the next byte of the socket. `start_tls` pauses reading, installs
    its protocol, and has both `connection_made` and `resume_reading` called in the next turn of the
    loop, all before it waits for the first time. So in that same turn, behind these two, comes ours;
    the loop does not look at the socket before the turn is over.
    """
    if isinstance(connection.transport, DescriptorTransport):
        connection.transport.set_write_buffer_limits(0)  # It is congested until all is written.
    while connection._congested and connection.transport is not None:
        await connection._room()  # A TLS layer that begins on a full buffer may not notice it empty.
    loop, raw = connection._loop, connection.transport
    if raw is None or raw.is_closing():
        raise ConnectionLost("the connection was closed before the TLS handshake")
    if isinstance(raw, DescriptorTransport):
        raw, more = await native_transport(raw)  # The TLS of the event loop takes no other.
        connection.transport = raw
        early += more
    start_tls = loop.start_tls(
        raw,
        connection,
        terms.context,
        server_side=terms.server_side,
        server_hostname=terms.hostname,
    )
    # Not eagerly, whatever the loop's task factory: it has to run in the turn in which we go on.
    starting = asyncio.Task(start_tls, loop=loop)
    try:
        await asyncio.sleep(0)
        layer: Any = raw.get_protocol()
        if layer is not connection:
            loop.call_soon(feed, layer, early)
        secured = await starting
    finally:
        starting.cancel()
    if secured is None or secured.is_closing():
        raise ConnectionLost("the connection was lost during the TLS handshake")
    return secured
