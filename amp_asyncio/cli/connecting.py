"""Connecting: from the options of the command line to a connection that can be asked."""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from argparse import Namespace
from collections.abc import Awaitable, Callable
from typing import Any

from ..amp import AMP
from ..endpoints import connect, unix_connect
from ..errors import AmpError, ConnectionLost, PeerVerifyError
from ..session.starttls import StartTLS
from .addresses import parse_address
from .failures import Failure, Status
from .logs import logs

__all__ = ["Work", "authorities_of", "certificate_of", "lines_of", "with_peer"]

#: What is done with a connection.
Work = Callable[[AMP], Awaitable[Status]]

# How many seconds it may take to close a connection whose peer does not close its side.
_CLOSING = 1.0


def with_peer(options: Namespace, work: Work) -> Status:
    """Connect as the options say, `work`, and close in order, all within `options.timeout`."""
    address = parse_address(options.address)
    if not isinstance(address, str):
        address = (address[0] or "localhost", address[1])
    context = _context(options) if options.tls or options.starttls else None
    name = options.servername or (None if isinstance(address, str) else address[0])
    if context is not None and context.check_hostname and name is None:
        raise Failure(
            Status.USAGE,
            "a UNIX socket has no host name to verify: give --servername NAME or --insecure",
        )
    with logs(logging.DEBUG if options.verbose else None):
        return asyncio.run(_work_in_time(options, address, context, name, work))


async def _work_in_time(
    options: Namespace,
    address: str | tuple[str, int],
    context: ssl.SSLContext | None,
    name: str | None,
    work: Work,
) -> Status:
    timeout = options.timeout or None
    limit = asyncio.timeout(timeout)
    try:
        async with limit:
            amp = await _connected(options, address, context, name)
            try:
                status = await work(amp)
                await amp.close(_CLOSING)
            finally:
                amp.abort()
                await amp.wait_closed()
        return status
    except TimeoutError as error:
        if not limit.expired():
            raise _lost(options.address, error) from None
        raise Failure(Status.TIMEOUT, f"no answer within {timeout:g} seconds") from None
    except OSError as error:
        raise _lost(options.address, error) from None


async def _connected(
    options: Namespace,
    address: str | tuple[str, int],
    context: ssl.SSLContext | None,
    name: str | None,
) -> AMP:
    tls: dict[str, Any] = {}
    if options.tls:
        tls = {"ssl": context, "server_hostname": name or ""}
    if isinstance(address, str):
        amp = await unix_connect(address, AMP, **tls)
    else:
        amp = await connect(*address, AMP, **tls)
    if options.starttls:
        assert context is not None
        verified = name if context.check_hostname else None
        try:
            await amp.callRemote(StartTLS, tls_context=context, tls_serverHostname=verified)
        except BaseException as error:
            amp.abort()
            await amp.wait_closed()
            if isinstance(error, AmpError) and not isinstance(error, ConnectionLost):
                why = getattr(error, "description", error)
                raise Failure(Status.CONNECTION, f"the peer refuses StartTLS: {why}") from None
            raise
    return amp


def _lost(address: str, error: OSError) -> Failure:
    return Failure(Status.CONNECTION, f"{address}: {'; '.join(lines_of(error))}")


def lines_of(error: BaseException) -> list[str]:
    """Return the texts of an error and of its causes, each unless one before has it."""
    texts: list[str] = []
    link: BaseException | None = error
    while link is not None:
        text = _text(link)
        # That a certificate was not accepted is said better by what it comes from.
        if not isinstance(link, PeerVerifyError) and not any(text in other for other in texts):
            texts.append(text)
        link = link.__cause__
    return texts


def _text(error: BaseException) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate was not accepted: {error.verify_message}"
    if isinstance(error, ssl.SSLError) and error.reason:
        return f"TLS failed: {error.reason.lower().replace('_', ' ')}"
    if isinstance(error, OSError) and error.errno is not None:
        # asyncio has put the address in its place.
        return os.strerror(error.errno) if error.errno > 0 else str(error.strerror)
    return str(error) or _SILENT.get(type(error), type(error).__name__)


# What asyncio and uvloop raise without a text.
_SILENT: dict[type, str] = {ConnectionResetError: "the peer has reset the connection"}


def certificate_of(options: Namespace) -> Any:
    """Return the `PrivateCertificate` to present, or None."""
    if options.cert is None:
        if options.key is not None:
            raise Failure(Status.USAGE, "--key belongs to a certificate: give --cert, too")
        return None
    from ..tls.certificates import PrivateCertificate  # Slow to import, and seldom needed.

    return _read(PrivateCertificate.from_pem, options.cert, key=options.key)


def authorities_of(options: Namespace) -> Any:
    """Return the certificates to trust, or None."""
    if options.cafile is None:
        return None
    from ..tls.certificates import Certificate

    return _read(Certificate.list_from_pem, options.cafile)


def _read(load: Callable[..., Any], path: str, **options: Any) -> Any:
    try:
        return load(path, **options)
    except OSError as error:
        raise Failure(Status.USAGE, f"cannot read {error.filename}: {error.strerror}") from None
    except ValueError as error:
        raise Failure(Status.USAGE, str(error)) from None


def _context(options: Namespace) -> ssl.SSLContext:
    """Return what verifies the peer: by `--cafile`, or else by the authorities of the system."""
    if options.insecure and options.cafile is not None:
        raise Failure(Status.USAGE, "--insecure verifies nothing, so --cafile has no use")
    from ..tls.certificates import make_ssl_context

    context = make_ssl_context(
        certificate_of(options),
        server_side=False,
        authorities=authorities_of(options),
        check_hostname=options.cafile is not None,
    )
    if not options.insecure and options.cafile is None:
        context.load_default_certs()
        context.verify_mode = ssl.CERT_REQUIRED
        context.check_hostname = True
    return context
