"""Refusals: what becomes of an error that a responder raises.

A declared error goes to the peer with its code and its text. Any other is this side's own: it is logged
here, and the peer gets no detail of it but a reference that leads to the log.
"""

from __future__ import annotations

import asyncio
import os
from traceback import clear_frames
from typing import TYPE_CHECKING, Any

from ..commands.definitions import alone
from ..errors import (
    BadArguments,
    ConnectionLost,
    OnlyOneTLS,
    RemoteAmpError,
    UnknownRemoteError,
    shortened,
    text_of,
)
from ..wire.boxes import (
    COMMAND,
    ERROR,
    ERROR_CODE,
    ERROR_DESCRIPTION,
    MAX_VALUE_LENGTH,
    UNHANDLED_ERROR_CODE,
    UNKNOWN_ERROR_CODE,
    AmpBox,
    QuitBox,
)
from ..wire.costs import PAIR_OVERHEAD, box_cost

if TYPE_CHECKING:
    from .locators import Responder
    from .session import Session

__all__ = ["Failing", "is_loss", "is_refusal", "refusal", "unhandled"]

# By how much an error with an empty text counts more than its bytes: the lengths of three pairs, and of
# one piece more of each.
_DESCRIPTION_COST = PAIR_OVERHEAD + len(ERROR_DESCRIPTION) + 3 * 6 + 2


def unhandled(box: AmpBox) -> AmpBox:
    """Refuse a command that has no responder.

    The error is made when it is the command's turn: a thousand of them may wait.
    """
    text = f"Unhandled Command: {shortened(box[COMMAND])}"
    raise RemoteAmpError(UNHANDLED_ERROR_CODE, text)


class Failing:
    """A responder that raises `error`, which a locator has raised."""

    __slots__ = ("_error",)

    def __init__(self, error: BaseException) -> None:
        # Without the frame that called the locator, and what was in the others: the command may wait.
        error.__traceback__ = error.__traceback__ and error.__traceback__.tb_next
        clear_frames(error.__traceback__)
        self._error = error

    def __call__(self, box: AmpBox) -> AmpBox:
        raise self._error


def is_refusal(responder: Responder) -> bool:
    """Return whether this stands in for a responder that was not found."""
    return responder is unhandled or isinstance(responder, Failing)


def is_loss(error: BaseException) -> bool:
    """Return whether a responder ended with `error` because its connection is lost."""
    kinds = (asyncio.CancelledError, ConnectionLost)
    if isinstance(error, BaseExceptionGroup):
        return error.split(kinds)[1] is None
    return isinstance(error, kinds)


def refusal(
    session: Session, command: bytes, tag: bytes | None, error: BaseException
) -> tuple[AmpBox, bool]:
    """Return the box that says that a command failed, and whether the connection ends.

    What is this side's own fault is logged.
    """
    code, description, fatal = _verdict(session, command, tag, error)
    reply = QuitBox() if fatal else AmpBox()
    reply[ERROR], reply[ERROR_CODE] = tag or b"", _as_value(code)
    # The text is cut to fit: too long a text must not cost the connection.
    room = session.limits.max_box_size - box_cost(reply) - _DESCRIPTION_COST
    reply[ERROR_DESCRIPTION] = _as_value(description, room)
    only = alone(error)
    if isinstance(only, RemoteAmpError) and only.failure is not None:
        _add_fields(session, reply, only)
    return reply, fatal


def _add_fields(session: Session, reply: AmpBox, error: RemoteAmpError) -> None:
    """Add the fields of the exception to its box, as far as they can be sent."""
    room = session.limits.max_box_size - box_cost(reply)
    try:
        strings, problems = error.failure.strings(error.local, session.owner, room)
    except NameError as unresolved:
        strings, problems = {}, {"any": unresolved}
    reply.update(strings)
    for name, problem in problems.items():
        message = "%r: %s was sent without its field %s: %r"
        session.lines.warning(message, session, type(error.local).__name__, name, problem)


def _verdict(
    session: Session, command: bytes, tag: bytes | None, error: BaseException
) -> tuple[bytes, Any, bool]:
    """Return the code and the text for the peer, and whether the connection ends."""
    name = shortened(command)
    only = alone(error)
    if isinstance(only, RemoteAmpError) and not isinstance(only, UnknownRemoteError):
        if tag is None:
            message = "%r: %s failed, and wanted no answer: %s"
            session.lines.warning(message, session, name, only)
        return only.errorCode, only.description, only.fatal
    if isinstance(error, BadArguments):
        session.lines.warning("%r: %s", session, error)
        return UNKNOWN_ERROR_CODE, "Unknown Error", session.close_on_unknown_error
    if isinstance(error, OnlyOneTLS):
        session.lines.warning("%r: %s was refused: %s", session, name, error)
        return UNKNOWN_ERROR_CODE, "Unknown Error", session.close_on_unknown_error
    if isinstance(error, ConnectionLost) and session.calls.over is not None:
        # The peer hung up, at least on its side, while a responder asked it something.
        session.lines.warning("%r: the responder of %s gave up: %s", session, name, error)
        return UNKNOWN_ERROR_CODE, "Unknown Error", session.close_on_unknown_error
    # The peer gets this and no more: it leads from the log of either side to that of the other.
    reference = os.urandom(4).hex()
    message = "%r: the responder of %s failed (reference %s)"
    session.lines.error(message, session, name, reference, error=error)
    description = f"Unknown Error (reference {reference})"
    return UNKNOWN_ERROR_CODE, description, session.close_on_unknown_error


def _as_value(description: Any, room: int = MAX_VALUE_LENGTH) -> bytes:
    """Return as much of an error's text as a value holds, and in `room` bytes."""
    if not isinstance(description, bytes):
        description = text_of(description).encode("utf-8", "replace")
    most = max(0, min(room, MAX_VALUE_LENGTH))
    if len(description) <= most:
        return bytes(description)
    return bytes(description[:most].decode("utf-8", "ignore").encode("utf-8"))
