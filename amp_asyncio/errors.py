"""All exceptions of the package, in one place so that callers can see what to catch.

They all derive from `AmpError`. Errors about a lost connection also derive from `ConnectionError`, and
errors about malformed bytes from `ValueError`, because code that does not know AMP catches these.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

__all__ = [
    "AmpError",
    "BadLocalReturn",
    "CallCancelled",
    "ConnectionLost",
    "DeadlineExceeded",
    "GiveUp",
    "IncompatibleVersions",
    "InvalidSignature",
    "MalformedAmpBox",
    "NoEmptyBoxes",
    "NotServing",
    "OnlyOneTLS",
    "PeerVerifyError",
    "ProtocolSwitched",
    "RemoteAmpError",
    "StreamEnded",
    "StreamsUnsupported",
    "TooLong",
    "TooManyStreams",
    "UnhandledCommand",
    "UnknownRemoteError",
]

# Data from a peer appears in messages and logs, so the peer must not be able to choose its length.
_short = reprlib.Repr()
_short.maxother = _short.maxstring = 80
_short.maxdict = 20
shortened = _short.repr


def cut(text: str) -> str:
    """Return `text`, or its first 400 characters and `...` if it is longer."""
    return text if len(text) <= 400 else f"{text[:400]}..."


def text_of(value: object) -> str:
    """Return `str(value)`, or the name of its class if its own `__str__` fails."""
    try:
        return str(value)
    except Exception:
        return type(value).__name__


class AmpError(Exception):
    """The base class of all errors of this package."""


class ConnectionLost(AmpError, ConnectionError):
    """The connection is closed or closing, so no answer can arrive.

    `__cause__` is the error that ended the connection, if it is known.

    Attributes:
        sent: whether the question was handed to the transport. If not, the peer cannot have begun to
            answer it.
    """

    sent = False


class CallCancelled(AmpError):
    """The responder was cancelled, and not by the caller that gets this error."""


class DeadlineExceeded(AmpError, TimeoutError):
    """The timeout of a call has passed, on this side or on the one that answers."""


class NotServing(AmpError):
    """The peer does not serve, or not the service that it was asked about."""


class ProtocolSwitched(AmpError):
    """The connection was handed over to another protocol and carries no more boxes."""


class OnlyOneTLS(AmpError):
    """TLS cannot be started: the connection uses it already, or is just starting it."""


class PeerVerifyError(ConnectionLost):
    """The TLS handshake failed because one side rejected the other's certificate."""


class GiveUp(AmpError):
    """Raised by a client's `on_connect`: it connects no more, and every call fails with this error.

    A wrong password is a reason, for example: it will not be right at the next attempt.
    """


class NoEmptyBoxes(AmpError):
    """A box is empty, or it is not a command, an answer or an error."""


class MalformedAmpBox(AmpError, ValueError):
    """Received bytes are not AMP, or a value does not match the type of its argument."""


class BadArguments(MalformedAmpBox):
    """The arguments of a received command do not parse, which is the peer's fault and not ours."""


class InvalidSignature(AmpError):
    """The names of the arguments or of the answer do not match the command's schema."""


class TooLong(AmpError):
    """A key, a value or a box is longer than AMP or `Limits.max_box_size` allows.

    Attributes:
        isKey: true for a key (1 to 255 bytes), false for a value (0 to 65,535 bytes) or a box.
        isLocal: true if it was about to be sent, false if it was received.
        value: the key or the value; for a received key, the first bytes that arrived, starting with
            its length; empty for a box.
        keyName: the key of the value; None for a key or a box.
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
                f"{len(self.value)} bytes, the limit is 65535"
            )
        if self.isLocal:
            return f"local key too long: {len(self.value)} bytes, the limit is 255"
        length = int.from_bytes(self.value[:2], "big")
        return (
            f"remote key too long: {length} bytes, the limit is 255; "
            f"received {shortened(self.value)}{resemblance(self.value)}"
        )

    __repr__ = __str__


class KeyAfterFullValue(TooLong):
    """A received key is too long, and the value before it has 65,535 bytes: it may go on here."""

    def __init__(self, value: bytes) -> None:
        super().__init__(True, False, value)
        self.args = (value,)

    def __str__(self) -> str:
        return (
            f"{super().__str__()}, after a value of 65535 bytes: if the peer uses version 2 of AMP, "
            "this side must as well (protocol_version = 2)"
        )

    __repr__ = __str__


class BoxTooLong(TooLong):
    """A box is longer than `Limits.max_box_size`; for a received box, this is known before its end."""

    def __init__(self, limit: int, pairs: int, isLocal: bool = False) -> None:
        super().__init__(False, isLocal, b"")
        self.args = (limit, pairs, isLocal)

    def __str__(self) -> str:
        limit, pairs, _ = self.args
        side = "local" if self.isLocal else "remote"
        return (
            f"{side} box too long: {pairs} pairs and elements of lists exceed max_box_size, "
            f"the limit of {limit} bytes"
        )

    __repr__ = __str__


class BadLocalReturn(AmpError):
    """A responder returned something that its command's `response` cannot encode.

    Attributes:
        message: names the responder and what it returned.
        enclosed: the error raised by the encoding.
    """

    def __init__(self, message: str, enclosed: BaseException) -> None:
        super().__init__(message, enclosed)
        self.message = message
        self.enclosed = enclosed

    def __str__(self) -> str:
        return f"{self.message}: {type(self.enclosed).__name__}: {self.enclosed}"


class RemoteAmpError(AmpError):
    """An error from the peer's responder; a responder raises it to choose the code itself.

    Attributes:
        errorCode: the code on the wire.
        description: the text sent with it.
        fatal: whether the responder's side closes the connection after sending it.
        local: on the side that sends the error, the exception that it was made from; else None.
        fields: on the side that receives it, the other keys of its box, such as the fields of the
            exception, as bytes.
    """

    fields: Mapping[bytes, bytes] = MappingProxyType({})
    # On the side that sends it, how the fields of `local` are sent.
    failure: Any = None

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
    """The peer answered with an error that the command's `errors` do not list."""

    def __init__(self, description: str | bytes) -> None:
        super().__init__(b"UNKNOWN", description)
        self.args = (description,)


class UnhandledCommand(AmpError):
    """The peer has no responder for the command."""


class StreamsUnsupported(AmpError):
    """The peer does not know streams, or has no stream of that name."""


class StreamEnded(AmpError):
    """The peer has answered, and takes no more items of the stream."""


class TooManyStreams(AmpError):
    """As many streams are open as `Limits.max_streams` allows."""


class IncompatibleVersions(AmpError):
    """The two sides cannot agree on a version of the protocol."""


def resemblance(data: bytes) -> str:
    """Return the end of an error message that names the protocol that `data` resembles, if any."""
    if data[:2] == b"\x16\x03":
        return " (this looks like a TLS ClientHello)"
    if data[:2] in _TLS_RECORDS:
        return " (this looks like TLS)"
    if data.split(b" ", 1)[0] in _HTTP_WORDS or data[:5] == b"HTTP/":
        return " (this looks like HTTP)"
    return ""


# Those other than a handshake: change of ciphers, alert, data.
_TLS_RECORDS = (b"\x14\x03", b"\x15\x03", b"\x17\x03")
_HTTP_WORDS = frozenset(b"GET HEAD POST PUT DELETE CONNECT OPTIONS TRACE PATCH PRI".split())
