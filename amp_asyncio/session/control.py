"""Control: the commands that peers of this package ask each other beside the user's own.

They pass the window and the backlog. Those that want an answer are answered at once, to any peer; the
others count only if the peer has announced that it knows them.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from ..errors import ConnectionLost, ProtocolSwitched, shortened
from ..wire.boxes import (
    ANSWER,
    ASK,
    COMMAND,
    ERROR,
    ERROR_CODE,
    ERROR_DESCRIPTION,
    UNHANDLED_ERROR_CODE,
    AmpBox,
)
from ..wire.extensions import (
    ACCEPT,
    CANCEL,
    CREDIT,
    DESCRIBE,
    HEALTH,
    ITEM,
    LEAVE,
    NOT_SERVING_ERROR_CODE,
    PING,
)
from .describing import description
from .leaving import peer_leaves
from .negotiation import CANCEL as CANCEL_NAME
from .negotiation import accepted

if TYPE_CHECKING:
    from .session import Session

__all__ = ["CONTROLS", "may_answer"]

# How many of them are answered while the peer does not take what is written, or as many as streams may
# be open: a peer of this package may open that many at once.
_MOST: Final = 1000


def _accept(session: Session, box: AmpBox) -> None:
    accepted(session, box.get(b"ask"), box.get(b"names", b""))


def _cancel(session: Session, box: AmpBox) -> None:
    if session.knows(CANCEL_NAME):
        session.responders.cancel(box.get(b"ask", b""))


def _leave(session: Session, box: AmpBox) -> None:
    peer_leaves(session, b"heard" in box)


def _ping(session: Session, box: AmpBox) -> None:
    session.outlet.overlook()
    _reply(session, box, AmpBox())


def _health(session: Session, box: AmpBox) -> None:
    service = box.get(b"service")
    known = session.service.health
    if service is None:
        serves = all(known.values())
    else:
        serves = bool(known.get(service.decode(errors="replace"), False))
    if serves and not session.closing and not session.retiring:
        _reply(session, box, AmpBox())
    else:
        _refuse(session, box, NOT_SERVING_ERROR_CODE, b"not serving")


def _describe(session: Session, box: AmpBox) -> None:
    text = description(session.locator or session.owner, session.hides)
    if text is None:
        _refuse(session, box, UNHANDLED_ERROR_CODE, b"Unhandled Command: this peer is not describable")
    else:
        _reply(session, box, AmpBox(text))


def _item(session: Session, box: AmpBox) -> None:
    session.streams.item_received(box)


def _credit(session: Session, box: AmpBox) -> None:
    session.streams.credit_received(box)


def may_answer(session: Session, box: AmpBox) -> bool:
    """Return whether a command that does not wait for its turn may be answered.

    Otherwise the connection is aborted: the peer sends such commands and takes no answers.
    """
    if not session.outbox.is_held:
        session.controls = 0
        return True
    session.controls += 1
    most = max(_MOST, session.limits.max_streams)
    if session.controls <= most:
        return True
    why = f"{most} commands such as {shortened(box[COMMAND])} came, and no answer was taken"
    session.outlet.give_up(ConnectionLost(why))
    return False


def _reply(session: Session, box: AmpBox, answer: AmpBox) -> None:
    """Answer a command with `answer`, if it wants an answer."""
    tag = box.get(ASK)
    if tag is None or not may_answer(session, box):
        return
    if ERROR not in answer:
        answer[ANSWER] = tag
    with suppress(ConnectionLost, ProtocolSwitched):  # The peer no longer waits for an answer.
        session.send(answer)


def _refuse(session: Session, box: AmpBox, code: bytes, description: bytes) -> None:
    if ASK in box:
        error = {ERROR: box[ASK], ERROR_CODE: code, ERROR_DESCRIPTION: description}
        _reply(session, box, AmpBox(error))


#: What is done about each, by its name.
CONTROLS: Final[dict[bytes, Callable[[Session, AmpBox], None]]] = {
    ACCEPT: _accept,
    CANCEL: _cancel,
    PING: _ping,
    LEAVE: _leave,
    HEALTH: _health,
    DESCRIBE: _describe,
    ITEM: _item,
    CREDIT: _credit,
}
