"""Pings: the question whether the peer is there, and how long its answer takes.

When one is sent, and what becomes of a peer that does not answer, is in `connection/keepalive.py`.
`introduce` asks before a new connection is used.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING, Any

from ..commands.definitions import ByName
from ..errors import RemoteAmpError
from ..wire.boxes import COMMAND, AmpBox, Box
from ..wire.extensions import PING

if TYPE_CHECKING:
    from .session import Session

__all__ = ["Ping", "Pong", "introduce", "ping"]


class Pong(ByName):
    """What takes the answer to a ping, or an error: either says that the peer has read the ping."""

    __slots__ = ()

    tells_cancelled = False

    @property
    def may_claim(self) -> bool:
        return False

    def answered(self, box: Box, session: Any, future: Any) -> None:
        """Resolve `future`, whatever the answer is. A ping does not count as work."""
        session.outlet.overlook()
        if not future.done():
            future.set_result(None)

    def failed(self, error: RemoteAmpError, session: Any, future: Any) -> None:
        self.answered(Box(), session, future)


class Ping(Pong):
    """Asks the peer of a conversation whether it is there; one question at a time.

    Attributes:
        latency: how many seconds the last answer took; None before the first one.
    """

    __slots__ = ("_sent_at", "_session", "latency")

    def __init__(self, session: Session) -> None:
        self._session = session
        self.latency: float | None = None
        self._sent_at: float | None = None

    def send(self) -> None:
        """Ask, unless an answer is awaited already."""
        if self._sent_at is None:
            self._sent_at = monotonic()
            self._session.calls.ask_beside(AmpBox({COMMAND: PING}), self)

    def answered(self, box: Box, session: Any, future: Any) -> None:
        """Note how long it took."""
        if self._sent_at is not None:
            self.latency = monotonic() - self._sent_at
            self._sent_at = None
        super().answered(box, session, future)


async def introduce(session: Session) -> None:
    """Wait until it is known what the peer knows; cancelling this only ends the wait.

    The kernel of a server makes connections that the server may never accept, because it is closing. A
    peer of this package that has answered says that it leaves before it closes.

    Raises `ConnectionLost`.
    """
    if not session.peer_is_known():
        answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        session.calls.ask_beside(AmpBox({COMMAND: PING}), Pong(), answered)
        await answered


def ping(session: Session) -> None:
    """Ask the peer of a conversation whether it is there, unless it was asked and has not answered."""
    if session.pinging is None:
        session.pinging = Ping(session)
    session.pinging.send()
