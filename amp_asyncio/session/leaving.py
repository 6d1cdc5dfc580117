"""Leaving: how two peers of this package end a connection without failing a question.

One that is about to close says so: from then on it asks only from inside responders. The other one says
the same, so that each has all questions of the other, and when these are answered there are no more.
Each side closes when both have said it, and no tag is open either way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..wire.boxes import COMMAND, AmpBox
from ..wire.extensions import LEAVE

if TYPE_CHECKING:
    from .session import Session

__all__ = ["Leaving"]


class Leaving:
    """What both sides of one conversation have said about it.

    Attributes:
        heard: whether the peer has said it.
    """

    __slots__ = ("_said", "_session", "heard")

    def __init__(self, session: Session) -> None:
        self._session = session
        self._said = False
        self.heard = False

    def say(self) -> None:
        """Say it, if that was not done, when no question waits to be sent."""
        session = self._session
        if not self._said and not session.calls.has_waiting():
            self._said = session.send_control(AmpBox({COMMAND: LEAVE}))

    def waits(self) -> bool:
        """Return whether the connection may not be closed yet: it was not said, or a tag is open.

        That does not matter any more when the connection is gone, or the peer sends no more.
        """
        calls = self._session.calls
        return calls.over is None and (not (self._said and self.heard) or calls.has_tags())
