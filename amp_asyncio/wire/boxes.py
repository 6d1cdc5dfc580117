"""Boxes, the messages of AMP: what is in one, how it is written, and who passes them around.

On the wire a box is a run of pairs, each `<2-byte length><key><2-byte length><value>`, ended by an
empty key. The lengths are big-endian; a key has 1 to 255 bytes, a value 0 to 65,535. A few reserved
keys say what a box is: a command, its answer, or its error.

In version 2 of AMP, a value may be longer. It is then a run of pieces, each after its length; the first
one that has less than 65,535 bytes, and may be empty, is the last.

A box decides how it is sent (`_sendTo`), so that a command can act on the connection at exactly the
right byte: `QuitBox` closes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol, TypeVar

from ..errors import AmpError, MalformedAmpBox, TooLong

__all__ = [
    "ANSWER",
    "ASK",
    "COMMAND",
    "ERROR",
    "ERROR_CODE",
    "ERROR_DESCRIPTION",
    "MAX_KEY_LENGTH",
    "MAX_VALUE_LENGTH",
    "UNHANDLED_ERROR_CODE",
    "UNKNOWN_ERROR_CODE",
    "AmpBox",
    "Box",
    "BoxReceiver",
    "BoxSender",
    "QuitBox",
]

ASK = b"_ask"
ANSWER = b"_answer"
COMMAND = b"_command"
ERROR = b"_error"
ERROR_CODE = b"_error_code"
ERROR_DESCRIPTION = b"_error_description"
UNKNOWN_ERROR_CODE = b"UNKNOWN"
UNHANDLED_ERROR_CODE = b"UNHANDLED"

MAX_KEY_LENGTH = 0xFF
MAX_VALUE_LENGTH = 0xFFFF

_END_OF_BOX = b"\0\0"


class BoxSender(Protocol):
    """What boxes are sent through: a connection, as a dispatcher sees it."""

    def sendBox(self, box: AmpBox) -> None:
        """Send `box` after the boxes sent before it.

        Raises `ConnectionLost` or `ProtocolSwitched` if it can go nowhere, and `TooLong`,
        `NoEmptyBoxes`, `MalformedAmpBox` or `TypeError` if it cannot be sent as a box.
        """

    def unhandledError(self, error: BaseException) -> None:
        """Log an error that was not handled, and close the connection."""


class BoxReceiver(Protocol):
    """What received boxes are given to: a dispatcher, as a connection sees it.

    It may also have `pause_sending()` and `resume_sending()`, which are called, without arguments, when
    the connection takes no new questions and when it takes them again.
    """

    def startReceivingBoxes(self, boxSender: BoxSender) -> None:
        """Boxes are about to come; `boxSender` takes those that go back."""

    def ampBoxReceived(self, box: AmpBox) -> None:
        """`box` came. An error that is raised here aborts the connection."""

    def stopReceivingBoxes(self, reason: BaseException) -> None:
        """No more boxes come, because of `reason`."""


_Self = TypeVar("_Self", bound="AmpBox")


class AmpBox(dict[bytes, bytes]):
    """One message: a `dict` of bytes to bytes.

    It is made like a `dict`. Keys that are `str`, as those given by keyword are, become ASCII bytes;
    `UnicodeEncodeError` is raised for those that cannot.
    """

    __slots__ = ()

    def __init__(self, /, *args: Any, **kw: Any) -> None:
        super().__init__(*args, **kw)
        names: list[Any] = [key for key in self if isinstance(key, str)]
        for name in names:
            self[name.encode("ascii")] = self.pop(name)

    def copy(self: _Self) -> _Self:
        """Return another box of the same class with the same pairs."""
        twin = self.__class__.__new__(self.__class__)
        twin.update(self)
        return twin

    def serialize(self, version: int = 1) -> bytes:
        """Return the box as it goes over the wire, its keys in order, as Twisted writes them.

        In `version` 2 of AMP, a value may have any length.

        Raises `TooLong` for a key of over 255 bytes or, in version 1, a value of over 65,535,
        `MalformedAmpBox` for an empty key (on the wire it would end the box), and `TypeError` for keys
        and values that are not bytes.
        """
        parts: list[bytes] = []
        for key, value in sorted(self.items()):
            if not isinstance(key, bytes):
                raise TypeError(f"a box's keys are bytes, not {key!r}")
            if not isinstance(value, bytes):
                raise TypeError(f"a box's values are bytes; that of {key!r} is {value!r}")
            if not 0 < len(key) <= MAX_KEY_LENGTH:
                if not key:
                    raise MalformedAmpBox(f"a box's key cannot be empty; its value is {value!r}")
                raise TooLong(True, True, key)
            if len(value) < MAX_VALUE_LENGTH or version == 1:
                if len(value) > MAX_VALUE_LENGTH:
                    raise TooLong(False, True, value, key)
                parts += (b"\0%c" % len(key), key, len(value).to_bytes(2, "big"), value)
            else:
                parts += (b"\0%c" % len(key), key, *pieces(value))
        parts.append(_END_OF_BOX)
        return b"".join(parts)

    def _sendTo(self, boxSender: BoxSender) -> None:
        """Send the box; subclasses add what is to happen after its last byte."""
        boxSender.sendBox(self)

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}({super().__repr__()})"


Box = AmpBox


def pieces(value: bytes) -> Iterator[bytes]:
    """Yield what is written for a value in version 2: each piece after its length."""
    for start in range(0, len(value) + 1, MAX_VALUE_LENGTH):
        piece = value[start : start + MAX_VALUE_LENGTH]
        yield len(piece).to_bytes(2, "big")
        yield piece


class QuitBox(AmpBox):
    """A box after which the connection closes."""

    __slots__ = ()

    def _sendTo(self, boxSender: BoxSender) -> None:
        super()._sendTo(boxSender)
        finish = getattr(boxSender, "finish_writing", None)
        if finish is not None:
            finish()
        else:
            boxSender.unhandledError(AmpError("the connection ends after this box"))
