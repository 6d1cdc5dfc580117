"""Links: the connections of a client that may be asked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from ..composed import connection_of
from .addresses import Opened
from .policy import Place

__all__ = ["Link", "has_left"]


def has_left(amp: Any) -> bool:
    """Return whether the peer has said that it will close the connection."""
    leaving = amp.__amp__.leaving
    return leaving is not None and leaving.heard


class Link:
    """A connection that is in use; `worn` is called when it was asked as often as it may be.

    Attributes:
        amp: our side of it.
        opened: what closes it.
        place: where it goes to.
        since: when it was made.
        questions: how many questions of the client are open on it.
        over: set when another one is to replace it.
        ended: whether it takes no more questions.
    """

    def __init__(
        self, opened: Opened, place: Place, since: float, worn: Callable[[Link], None]
    ) -> None:
        self.opened = opened
        self.amp: Any = opened.amp
        self.place = place
        self.since = since
        self.questions = 0
        self._asked = 0
        self._worn = worn
        self.over = asyncio.Event()
        self.ended = False

    def when_left(self, call: Callable[[Link], None]) -> None:
        """Have `call` called when the peer says that it will close the connection."""
        session: Any = self.amp.__amp__
        session.peer_left = lambda: call(self)

    @property
    def may_be_asked(self) -> bool:
        """Whether a question may be asked now."""
        session: Any = self.amp.__amp__
        return session.calls.over is None and session.refusal() is None

    @property
    def peer_is_ours(self) -> bool:
        """Whether the peer has announced that it uses this package."""
        return bool(self.amp.__amp__.peer_is_ours)

    def asked(self, answer: asyncio.Future[Any]) -> None:
        """A question was asked, whose answer is awaited."""
        self.questions += 1
        self._asked += 1
        answer.add_done_callback(self._answered)
        if self._asked == self.opened.max_calls:
            self._worn(self)

    def _answered(self, answer: asyncio.Future[Any]) -> None:
        self.questions -= 1
        if answer.cancelled() or isinstance(answer.exception(), TimeoutError):
            self.opened.abandoned(answer)

    async def wait_lost(self) -> None:
        """Wait until the connection is gone."""
        await connection_of(self.amp).wait_closed()
