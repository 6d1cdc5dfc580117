"""Answers: what goes back for a command, and what becomes of an answer that cannot be sent."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from ..commands.definitions import ENDING, raisable
from ..commands.exchange import drop
from ..errors import BadLocalReturn, ConnectionLost, ProtocolSwitched, TooLong, shortened
from ..wire.boxes import ANSWER, AmpBox
from .changes import ChangeBox
from .locators import MethodResponder, Responder
from .outlets import changeable
from .refusals import refusal

if TYPE_CHECKING:
    from .session import Session

__all__ = ["answer", "refuse"]

logger = logging.getLogger("amp_asyncio")


def answer(
    session: Session, command: bytes, tag: bytes | None, responder: Responder, objects: Any
) -> None:
    """Send what `responder` has returned for `command`, if that asked for an answer, with its tag."""
    try:
        if not isinstance(responder, MethodResponder):
            reply = _checked(responder, objects)
        elif (
            tag is not None
            and session.outlet.takes_bytes
            and (data := responder.written(objects, tag, session.limits.max_box_size)) is not None
        ):
            session.outbox.send(data, later=len(session.responders.tasks.all) > 1)
            return
        else:
            reply = responder.box(objects, session.limits.max_box_size)
        if tag is None:
            drop(reply)
        else:
            reply[ANSWER] = tag
            _send(session, reply)
    except (ConnectionLost, ProtocolSwitched) as error:
        logger.debug("%r: an answer was dropped: %s", session, error)
    except BaseException as error:
        refuse(session, command, tag, responder, error)
        if isinstance(error, ENDING):
            raise
        return
    session.responders.settle(responder)


def refuse(
    session: Session, command: bytes, tag: bytes | None, responder: Responder, error: BaseException
) -> None:
    """Say that a command failed: to the peer, and to the log if it is our fault."""
    try:
        reply, fatal = refusal(session, command, tag, error)
    except Exception as broken:  # A subclass of `RemoteAmpError` may lack what makes one.
        reply, fatal = refusal(session, command, tag, broken)
    try:
        if tag is not None:
            _send(session, reply)
        elif fatal:
            session.outlet.finish_writing()
    except (ConnectionLost, ProtocolSwitched) as lost:
        logger.debug("%r: an error was dropped: %s", session, lost)
    except BaseException as broken:
        # Nothing else can tell the peer, which would wait for ever.
        if not isinstance(broken, TooLong):
            session.lines.error("%r: an error could not be sent", session, error=broken)
        session.outlet.give_up(raisable(broken).with_traceback(None))
        if isinstance(broken, ENDING):
            raise
    session.responders.settle(responder)


def _send(session: Session, reply: AmpBox) -> None:
    """Send an answer, or an error; one that agrees to a change has it begin."""
    try:
        if isinstance(reply, ChangeBox):
            if session.outlet.locked:
                raise RuntimeError("both sides want to change the connection at once")
            reply.change.check(changeable(session.outlet))
        session.send(reply)
    except BaseException:
        drop(reply)
        raise
    if isinstance(reply, ChangeBox):
        reply.change.agreed(changeable(session.outlet))


def _checked(responder: Responder, returned: Any) -> AmpBox:
    """Return what a responder without a schema returned, which must be a box."""
    if not isinstance(returned, AmpBox):
        raise BadLocalReturn(
            f"{responder!r} returned {shortened(returned)}", TypeError("a responder returns an AmpBox")
        )
    return returned
