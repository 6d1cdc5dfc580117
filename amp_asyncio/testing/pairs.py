"""Pairs: two AMPs that talk to each other in memory."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, overload

from ..amp import AMP
from ..transports.memory import Line, MemoryTransport, memory_pair
from .scripted import ScriptedPeer

if TYPE_CHECKING:
    from ..limits import Limits
    from ..tls.certificates import Certificate

__all__ = ["Faults", "Identity", "PairMaker", "pair"]

#: What the fixture `amp_pair` is: an `async def` with the arguments of `pair`.
PairMaker: TypeAlias = Callable[..., Awaitable[tuple[Any, Any]]]

_S = TypeVar("_S", bound=AMP)
_C = TypeVar("_C", bound=AMP)

# How many turns of the event loop in which nothing crosses are the end of a conversation, and how many
# turns it may go on after the test is done with it.
_QUIET = 5
_PATIENCE = 1_000


@dataclass(frozen=True)
class Faults:
    """The two lines of a connection, for `pair`; each carries one connection only.

    Attributes:
        to_server: what the client sends.
        to_client: what the server sends.
    """

    to_server: Line = field(default_factory=Line)
    to_client: Line = field(default_factory=Line)


@dataclass(frozen=True)
class Identity:
    """Who one side of a pair is, as the other side sees it.

    Attributes:
        address: what `get_extra_info("peername")` gives to the other side, and "sockname" to this one.
        certificate: what `amp.peer.certificate` and `amp.peerCertificate` are on the other side, as if
            it had been presented, and verified, in a TLS handshake. TLS is not used: bytes cross in the
            clear. Where either side has a certificate, both see a connection that has TLS already.
        extra: what else `get_extra_info` gives to the other side, by name.
    """

    address: Any
    certificate: Certificate | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


class _Presented:
    """In place of an `ssl.SSLObject`: the certificate of a peer."""

    def __init__(self, certificate: Certificate | None) -> None:
        self._certificate = certificate

    def getpeercert(self, binary_form: bool = False) -> bytes | dict[str, Any] | None:
        """Return the certificate as `ssl` does for one that was not verified."""
        if self._certificate is None:
            return None
        return self._certificate.to_der() if binary_form else {}


_SERVER = Identity(("127.0.0.1", 7001))
_CLIENT = Identity(("127.0.0.1", 50_001))


@overload
def pair(
    server: _S | Callable[[], _S],
    *,
    limits: Limits | None = ...,
    faults: Faults | None = ...,
    server_identity: Identity = ...,
    client_identity: Identity = ...,
) -> AbstractAsyncContextManager[tuple[_S, AMP]]: ...
@overload
def pair(
    server: _S | Callable[[], _S],
    client: _C | Callable[[], _C],
    *,
    limits: Limits | None = ...,
    faults: Faults | None = ...,
    server_identity: Identity = ...,
    client_identity: Identity = ...,
) -> AbstractAsyncContextManager[tuple[_S, _C]]: ...
@asynccontextmanager
async def pair(
    server: AMP | Callable[[], AMP],
    client: AMP | Callable[[], AMP] = AMP,
    *,
    limits: Limits | None = None,
    faults: Faults | None = None,
    server_identity: Identity = _SERVER,
    client_identity: Identity = _CLIENT,
) -> AsyncIterator[tuple[Any, Any]]:
    """Connect two AMPs in memory: `async with pair(Server, Client) as (server, client)`.

    It is a real connection: the bytes of AMP cross it, with flow control, and each side may close it.
    It needs no sockets and no threads. StartTLS works on asyncio's own event loop, and not on uvloop.

    `server` and `client` are each an AMP class, another factory, or an AMP that is not connected yet.
    `limits` takes the place of the limits of both classes. `faults` has the lines that the connection
    goes over: see `Line`. The identities are what each side is told of the other.

    Leaving the block delivers what is on its way, without waiting for time to pass, and then aborts the
    connection on both sides. To test how a connection closes, call `close` inside. Then a
    `ScriptedPeer` is verified. Where an exception leaves the block, only commands that were not
    expected are reported, by an `AssertionError` with that exception as its context.

    Raises what a factory raises, and `RuntimeError` where `faults` were used before. Cancelling it
    aborts the connection; nothing is verified then.
    """
    server_amp, client_amp = _made(server, limits), _made(client, limits)
    lines = faults or Faults()
    transports = memory_pair(
        server_amp,
        client_amp,
        lines=(lines.to_client, lines.to_server),
        extra=_extra(server_identity, client_identity),
    )
    scripted = [end for end in (server_amp, client_amp) if isinstance(end, ScriptedPeer)]
    try:
        await asyncio.sleep(0)
        yield server_amp, client_amp
        await _let_arrive(lines)
    except Exception:
        await _end(server_amp, client_amp, *transports)
        for peer in scripted:
            peer.verify(complete=False)
        raise
    except BaseException:
        # A cancellation, which nothing may replace.
        await _end(server_amp, client_amp, *transports)
        raise
    await _end(server_amp, client_amp, *transports)
    for peer in scripted:
        peer.verify()


def _made(end: AMP | Callable[[], AMP], limits: Limits | None) -> AMP:
    amp = end if isinstance(end, AMP) else end()
    if limits is not None:
        amp.limits = limits
    return amp


def _extra(server: Identity, client: Identity) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what `get_extra_info` is to give to the server, and to the client."""
    secured: dict[str, Any] = {}
    if server.certificate is not None or client.certificate is not None:
        secured["sslcontext"] = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return _seen(server, client, secured), _seen(client, server, secured)


def _seen(this: Identity, other: Identity, secured: dict[str, Any]) -> dict[str, Any]:
    extra = {"sockname": this.address, "peername": other.address, **secured, **other.extra}
    if secured:
        extra["ssl_object"] = _Presented(other.certificate)
    return extra


async def _let_arrive(lines: Faults) -> None:
    """Wait until nothing crosses the lines without a wait for time or for the test."""
    quiet = 0
    for _ in range(_PATIENCE):
        busy = lines.to_server.busy or lines.to_client.busy
        quiet = 0 if busy else quiet + 1
        if quiet == _QUIET:
            return
        await asyncio.sleep(0)


async def _end(server: AMP, client: AMP, *transports: MemoryTransport) -> None:
    """Abort both sides, and wait until they know; another protocol may have the transports by now."""
    for amp in (server, client):
        amp.abort()
    for transport in transports:
        transport.abort()
    for transport in transports:
        await transport.wait_closed()
    for amp in (server, client):
        await amp.wait_closed()
