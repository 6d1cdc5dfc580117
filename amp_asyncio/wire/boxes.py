"""Boxes, the messages of AMP: what is in one, how it is written, and who passes them around.

On the wire a box is a run of pairs, each `<2-byte length><key><2-byte length><value>`, ended by an
empty key. The lengths are big-endian; a key has 1 to 255 bytes, a value 0 to 65,535. A handful of
reserved keys says what a box is: a command, its answer, or its error.

In version 2 of AMP, a value may be longer. It is then a run of pieces, each behind its length; the one
that has less than 65,535 bytes is the last, and may be empty.

A box knows how it is sent (`_sendTo`). That is what lets a command change the connection at exactly
the right byte: `QuitBox` closes it, and the boxes of `tls.py` and `switching.py` do more.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol, TypeVar

from ..errors import MalformedAmpBox, TooLong

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
    """What boxes are sent through: a connection, seen from the dispatcher."""

    def sendBox(self, box: AmpBox) -> None:
        """Send `box` behind the boxes sent before it.

        Raises `ConnectionLost` or `ProtocolSwitched` where it can go nowhere, and `TooLong`,
        `NoEmptyBoxes`, `MalformedAmpBox` or `TypeError` where it is no box that could be sent.
        """

    def serialize(self, box: AmpBox) -> bytes:
        """Return the bytes that `sendBox` would send; raises the same where that is up to the box."""

    @property
    def takes_bytes(self) -> bool:
        """Whether a plain box may be sent by its bytes alone; asked once, before anything is sent."""

    def send_bytes(self, data: bytes) -> None:
        """Send the bytes of a plain box, as `sendBox` sends the box."""

    def unhandledError(self, error: BaseException) -> None:
        """Log an error that nobody handles, and close the connection."""

    def finish_writing(self) -> None:
        """Send no more after what was sent before, and close the connection."""

    def pause_receiving(self, before_change: bool = False) -> None:
        """Give out no box, and look at no byte, behind the box that was given out last.

        With `before_change`, because that box may change the connection: raises `MalformedAmpBox`
        where such a change is under way from this side.
        """

    def resume_receiving(self) -> None:
        """Take one pause back; after the last, go on with the bytes behind that box.

        Does nothing where the connection is no longer AMP's.
        """

    def unsent(self) -> int:
        """Return how many bytes were sent that the network has not taken yet."""

    def give_up(self, error: Exception) -> None:
        """Abort the connection because of `error`."""


class BoxReceiver(Protocol):
    """What received boxes are given to: a dispatcher, seen from the connection."""

    def startReceivingBoxes(self, boxSender: BoxSender) -> None:
        """Boxes are about to come; `boxSender` takes those that go back."""

    def ampBoxReceived(self, box: AmpBox) -> None:
        """`box` came. An `AmpError` raised here aborts the connection."""

    def stopReceivingBoxes(self, reason: BaseException) -> None:
        """No box comes any more, because of `reason`."""

    def pause_sending(self) -> None:
        """The connection would rather be sent no new questions for now."""

    def resume_sending(self) -> None:
        """The connection takes questions again."""


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
        `MalformedAmpBox` for an empty key (on the wire it would end the box), and `TypeError` for what
        is no bytes.
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
        """Send the box; subclasses add what is to happen behind its last byte."""
        boxSender.sendBox(self)

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}({super().__repr__()})"


Box = AmpBox


def pieces(value: bytes) -> Iterator[bytes]:
    """Yield what is written for a value in version 2: each piece behind its length."""
    for start in range(0, len(value) + 1, MAX_VALUE_LENGTH):
        piece = value[start : start + MAX_VALUE_LENGTH]
        yield len(piece).to_bytes(2, "big")
        yield piece


class QuitBox(AmpBox):
    """A box that closes the connection behind it."""

    __slots__ = ()

    def _sendTo(self, boxSender: BoxSender) -> None:
        super()._sendTo(boxSender)
        boxSender.finish_writing()
