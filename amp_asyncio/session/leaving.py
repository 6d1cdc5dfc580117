"""Leaving: how two peers of this package end a connection without failing a question.

One that is about to close says so: from then on it asks only from inside responders. The other one says
the same, so that each has all questions of the other, and when these are answered, no more can come.
Each side closes when both have said it, and no tag is open either way.

Both may say it at the same time. One that says it in reply says so (`heard`): it has read all that was
sent before, and the other one need not wait for it to close its side as well.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from ..wire.boxes import COMMAND, AmpBox
from ..wire.extensions import LEAVE
from .negotiation import LEAVE as KNOWS

if TYPE_CHECKING:
    from .session import Session

__all__ = ["Leaving", "Watched", "leave", "peer_leaves", "retire"]

_BOX: Final = AmpBox({COMMAND: LEAVE}).serialize()
_REPLY: Final = AmpBox({COMMAND: LEAVE, b"heard": b"True"}).serialize()


class Leaving:
    """What both sides of one conversation have said about it.

    Attributes:
        heard: whether the peer has said it.
    """

    __slots__ = ("_replied", "_said", "_session", "_then", "heard")

    def __init__(self, session: Session) -> None:
        self._session = session
        self._said = False
        self._then: tuple[int, int] | None = None  # What had been done when it was said.
        self._replied = False  # Whether the peer has said it in reply.
        self.heard = False

    def say(self) -> None:
        """Say it, if that was not done, when no question waits to be sent."""
        session = self._session
        if not self._said and not session.calls.has_waiting():
            self._said = session.send_control(_REPLY if self.heard else _BOX)
            self._then = self._done()

    def hear(self, replies: bool) -> None:
        """The peer says it, perhaps in reply."""
        self.heard, self._replied = True, replies

    def waits(self) -> bool:
        """Return whether the connection may not be closed yet: it was not said, or a tag is open.

        Neither matters once the connection is gone, or once the peer has closed its side.
        """
        calls = self._session.calls
        return calls.over is None and (not (self._said and self.heard) or calls.table.has_tags())

    def has_read_all(self) -> bool:
        """Return whether the peer has read all that was sent.

        It has replied, and nothing was asked or answered since this side said it.
        """
        return self._replied and self._then == self._done()

    def _done(self) -> tuple[int, int]:
        """Return what grows with each command that is asked, begun or finished."""
        return self._session.calls.counter, self._session.progress()


def leave(session: Session) -> None:
    """Say, once no question waits to be sent, that this side asks only from inside responders."""
    if session.leaving is None and session.knows(KNOWS):
        session.leaving = Leaving(session)
    if session.leaving is not None:
        session.leaving.say()


def peer_leaves(session: Session, replies: bool) -> None:
    """The peer asks only from inside responders now, and so does this side."""
    if session.knows(KNOWS):
        session.closing = True
        session.watch()
        session.calls.update()
        if session.leaving is None:
            session.leaving = Leaving(session)
        session.leaving.hear(replies)
        session.moved()
        if session.peer_left is not None:
            session.peer_left()


def retire(session: Session) -> None:
    """Leave as soon as the peer can be told, and go on answering: it will ask elsewhere."""
    session.retiring = True
    if session.knows(KNOWS):
        session.refuse_calls()


class Watched:
    """What waits until all is done.

    Attributes:
        finishing: whether the peer sends no more, so that the connection ends when all is answered.
        moved: is set whenever something is done.
    """

    def __init__(self) -> None:
        self.finishing = False
        self.moved = asyncio.Event()
