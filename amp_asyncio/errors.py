"""Every exception of the package, so that a caller finds in one place what there is to catch.

All of them are `AmpError`. Those that stand for a lost connection are `ConnectionError` too, and
those that stand for bytes with no meaning are `ValueError` too, because that is what code which
knows nothing of AMP will try to catch.
"""

from __future__ import annotations

import reprlib
import ssl

__all__ = [
    "AmpError",
    "BadLocalReturn",
    "ConnectionLost",
    "IncompatibleVersions",
    "InvalidSignature",
    "MalformedAmpBox",
    "NoEmptyBoxes",
    "OnlyOneTLS",
    "PeerVerifyError",
    "ProtocolSwitched",
    "RemoteAmpError",
    "TooLong",
    "UnhandledCommand",
    "UnknownRemoteError",
]

# What a peer sent goes into messages and logs, so that its length must not be the peer's to choose.
_short = reprlib.Repr()
_short.maxother = _short.maxstring = 80
_short.maxdict = 20
shortened = _short.repr


def cut(text: str) -> str:
    """Return the beginning of a text that may be long."""
    return text if len(text) <= 400 else f"{text[:400]}..."


class AmpError(Exception):
    """What every error of this package is."""


class ConnectionLost(AmpError, ConnectionError):
    """The connection is gone, or going, so no answer can come any more.

    Its `__cause__` is what ended the connection, where that is known.
    """


class ProtocolSwitched(AmpError):
    """The connection was handed over to another protocol: it carries no boxes any more."""


class OnlyOneTLS(AmpError):
    """TLS was to be started on a connection that has it already, or is just starting it."""


class PeerVerifyError(ConnectionLost):
    """The TLS handshake failed because a certificate was not accepted, by us or by the peer."""


class NoEmptyBoxes(AmpError):
    """A box that is empty, or that is neither a command nor an answer nor an error."""


class MalformedAmpBox(AmpError, ValueError):
    """Bytes that are no AMP, or a value that is not of its argument's type."""


class BadArguments(MalformedAmpBox):
    """A command whose arguments do not parse: the peer's fault, and so no error of ours."""


class InvalidSignature(AmpError):
    """The names given to a command, or to its answer, are not those of its schema."""


class TooLong(AmpError):
    """A key or a value is longer than the two bytes of its length can say, or a box than its limit.

    Attributes:
        isKey: true for a key (1 to 255 bytes), false for a value (0 to 65,535 bytes) and for a box.
        isLocal: true if it was to be sent, false if it was received.
        value: the bytes themselves; of a key that was received, the first of those that came; of a
            box, none.
        keyName: the key that the value was for, None for a key and for a box.
    """

    def __init__(self, isKey: bool, isLocal: bool, value: bytes, keyName: bytes | None = None) -> None:
        super().__init__(isKey, isLocal, value, keyName)
        self.isKey = isKey
        self.isLocal = isLocal
        self.value = value
        self.keyName = keyName

    def __str__(self) -> str:
        side = "local" if self.isLocal else "remote"
        if not self.isKey:
            return (
                f"{side} value of {self.keyName!r} too long: "
                f"{len(self.value)} bytes, and 65535 are the most"
            )
        if self.isLocal:
            return f"local key too long: {len(self.value)} bytes, and 255 are the most"
        length = int.from_bytes(self.value[:2], "big")
        return (
            f"remote key too long: {length} bytes, and 255 are the most; "
            f"what came is {shortened(self.value)}{resemblance(self.value)}"
        )

    __repr__ = __str__


class BoxTooLong(TooLong):
    """A box is longer than the limit for boxes; one that is received need not be whole for that."""

    def __init__(self, limit: int, pairs: int, isLocal: bool = False) -> None:
        super().__init__(False, isLocal, b"")
        self.args = (limit, pairs, isLocal)

    def __str__(self) -> str:
        limit, pairs, _ = self.args
        side = "local" if self.isLocal else "remote"
        return f"{side} box too long: {pairs} pairs are over max_box_size, the limit of {limit} bytes"

    __repr__ = __str__


class BadLocalReturn(AmpError):
    """A responder returned what its command's `response` cannot encode.

    Attributes:
        message: which responder it was, and what it returned.
        enclosed: the error of the encoding.
    """

    def __init__(self, message: str, enclosed: BaseException) -> None:
        super().__init__(message, enclosed)
        self.message = message
        self.enclosed = enclosed

    def __str__(self) -> str:
        return f"{self.message}: {type(self.enclosed).__name__}: {self.enclosed}"


class RemoteAmpError(AmpError):
    """An error that crossed the wire; a responder raises one to choose the code itself.

    Attributes:
        errorCode: the code on the wire.
        description: the text that goes with it.
        fatal: whether the connection closes behind it.
        local: the exception that it was made from, on the side that made it.
    """

    def __init__(
        self,
        errorCode: bytes,
        description: str | bytes,
        fatal: bool = False,
        local: BaseException | None = None,
    ) -> None:
        super().__init__(errorCode, description, fatal, local)
        if not isinstance(errorCode, bytes):
            raise TypeError(f"an error code is bytes, not {errorCode!r}")
        self.errorCode = errorCode
        self.description = description
        self.fatal = fatal
        self.local = local

    def __str__(self) -> str:
        where = " (local)" if self.local is not None else ""
        code = self.errorCode.decode("ascii", "backslashreplace")
        return f"Code<{code}>{where}: {self.description!s}"


class UnknownRemoteError(RemoteAmpError):
    """The peer failed in a way that the command's `errors` do not name."""

    def __init__(self, description: str | bytes) -> None:
        super().__init__(b"UNKNOWN", description)
        self.args = (description,)


class UnhandledCommand(AmpError):
    """The peer has no responder for the command."""


class IncompatibleVersions(AmpError):
    """The two sides cannot agree on a version of the protocol."""


def certificate_error(error: BaseException | None) -> PeerVerifyError | None:
    """Return a `PeerVerifyError` from an `ssl.SSLError` that is about a certificate; else None.

    OpenSSL says so in the exception's class where we rejected the peer's certificate, and only in the
    name of the alert where the peer rejected ours.
    """
    reason = str(getattr(error, "reason", ""))
    if not isinstance(error, ssl.SSLCertVerificationError) and not (
        isinstance(error, ssl.SSLError) and ("CERTIFICATE" in reason or "UNKNOWN_CA" in reason)
    ):
        return None
    rejected = PeerVerifyError(f"a certificate was not accepted: {error}")
    rejected.__cause__ = error
    return rejected


def resemblance(data: bytes) -> str:
    """Say which well-known protocol `data` begins like, in words to end a message with."""
    if data[:2] == b"\x16\x03":
        return " (this looks like a TLS ClientHello)"
    if data.split(b" ", 1)[0] in _HTTP_WORDS or data[:5] == b"HTTP/":
        return " (this looks like HTTP)"
    return ""


_HTTP_WORDS = frozenset(b"GET HEAD POST PUT DELETE CONNECT OPTIONS TRACE PATCH PRI".split())
