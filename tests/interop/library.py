"""The AMP library that this process speaks with, and all that differs between the two.

It is amp_asyncio in the tests, and Twisted in the process that they talk to, where the environment
says AMP_LIBRARY=twisted. Definitions and scenarios import it, and are the same source for both.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import count, takewhile
from pathlib import Path as SourcePath
from types import ModuleType
from typing import Any

__all__ = [
    "TWISTED",
    "BigString",
    "BigString0",
    "Lost",
    "Path",
    "amp",
    "attempt",
    "fingerprint",
    "ported",
    "reading_slowly",
    "start",
    "tls_arguments",
    "turn",
]

#: The library's public names.
amp: Any
#: The argument for values over 65,535 bytes, and the same in Flocker's layout, which counts from 0.
BigString: Any
BigString0: Any
#: What its `Path` argument takes and gives.
Path: Any
#: The exceptions that say that the connection was lost.
Lost: tuple[type[Exception], ...]
#: The function that begins a coroutine, and returns what waits for its end.
start: Any
#: The function that calls another, and returns what waits for what comes of it, be it an exception.
attempt: Any

TWISTED = os.environ.get("AMP_LIBRARY") == "twisted"

if TWISTED:
    from OpenSSL.SSL import Error as TLSError
    from twisted.internet import reactor, ssl
    from twisted.internet.defer import ensureDeferred as start
    from twisted.internet.defer import maybeDeferred as attempt
    from twisted.internet.error import CertificateError, ConnectionClosed, PeerVerifyError
    from twisted.internet.task import deferLater
    from twisted.protocols import amp
    from twisted.python.filepath import FilePath as Path

    Lost = (ConnectionClosed, PeerVerifyError, TLSError)

    class BigString(amp.Argument):  # type: ignore[misc,no-redef]
        """Splits a value, as programs do that were written for Twisted: it has no such type itself."""

        def keys(self, name: bytes) -> Iterator[bytes]:
            yield name
            yield from (b"%b.%d" % (name, number) for number in count(2))

        def toBox(self, name: bytes, strings: Any, objects: Any, proto: Any) -> None:
            value, keys = objects.pop(name.decode()), self.keys(name)
            while len(value) > 65_535:
                strings[next(keys)], value = value[:65_535], value[65_535:]
            strings[next(keys)] = value

        def fromBox(self, name: bytes, strings: Any, objects: Any, proto: Any) -> None:
            found = takewhile(strings.__contains__, self.keys(name))
            objects[name.decode()] = b"".join(strings.pop(key) for key in found)

    class BigString0(BigString):  # type: ignore[misc,no-redef]
        def keys(self, name: bytes) -> Iterator[bytes]:
            return (b"%b.%d" % (name, number) for number in count())

    def turn() -> Any:
        """Return what waits until the event loop has looked at its sockets."""
        return deferLater(reactor, 0)

    def tls_arguments(
        certificate: str | None, authorities: Iterable[str], **ours: Any
    ) -> dict[str, Any]:
        """Return the arguments of `StartTLS` from PEMs; Twisted has none of those that are ours."""
        arguments: dict[str, Any] = {}
        if certificate is not None:
            arguments["tls_localCertificate"] = ssl.PrivateCertificate.loadPEM(certificate)
        if authorities:
            arguments["tls_verifyAuthorities"] = [ssl.Certificate.loadPEM(pem) for pem in authorities]
        return arguments

    def fingerprint(peer: Any) -> str | None:
        """Return the SHA-256 of the certificate that the other side presented, if it did."""
        try:
            return hashlib.sha256(peer.peerCertificate.dump()).hexdigest()
        except CertificateError:
            return None

    @contextmanager
    def reading_slowly(peer: Any) -> Iterator[None]:
        """Have the bytes of a connection read one by one.

        Twisted takes all that it reads in one piece with an answer to `StartTLS` for AMP, also where
        it is the first of the TLS handshake already.
        """
        transport = peer.transport
        transport.bufferSize = 1
        try:
            yield
        finally:
            del transport.bufferSize

else:
    from asyncio import ensure_future as start
    from asyncio import sleep
    from contextlib import nullcontext
    from pathlib import Path

    import amp_asyncio as amp

    BigString = BigString0 = amp.BigString
    Lost = (amp.ConnectionLost,)

    def attempt(function: Any, *arguments: Any, **keywords: Any) -> Any:
        return function(*arguments, **keywords)

    def turn() -> Any:
        return sleep(0)

    def tls_arguments(
        certificate: str | None, authorities: Iterable[str], **ours: Any
    ) -> dict[str, Any]:
        arguments: dict[str, Any] = {}
        if certificate is not None:
            arguments["tls_localCertificate"] = amp.PrivateCertificate.from_pem(certificate.encode())
        if authorities:
            found = [amp.Certificate.from_pem(pem.encode()) for pem in authorities]
            arguments["tls_verifyAuthorities"] = found
        return arguments | ours

    def fingerprint(peer: Any) -> str | None:
        return peer.peerCertificate and peer.peerCertificate.fingerprint

    def reading_slowly(peer: Any) -> Any:
        return nullcontext()


def ported(name: str) -> ModuleType:
    """Return a module that was written for Twisted, with its import lines changed to this library."""
    if TWISTED:
        return importlib.import_module(name)
    # Looked for by its path, lest the packages around it be imported, and Twisted with them.
    package, *rest = name.split(".")
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    path = SourcePath(spec.origin).parent.joinpath(*rest).with_suffix(".py")
    source = path.read_text()
    source = source.replace("from twisted.protocols import amp\n", "import amp_asyncio as amp\n")
    source = source.replace("from twisted.protocols.amp import", "from amp_asyncio import")
    assert "import twisted" not in source
    assert "from twisted" not in source
    module = ModuleType(name)
    exec(compile(source, path, "exec"), vars(module))
    return module
