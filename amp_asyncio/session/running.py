"""Which responder runs: what a conversation knows of an `async def` responder while it has not
ended."""

from __future__ import annotations

from contextvars import ContextVar
from enum import Enum
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from .responders import Responders

__all__ = ["RUNNING", "Running", "Status", "current"]


class Status(Enum):
    """What an `async def` responder is at the moment."""

    RUNNING = "running"
    #: It waits itself until the others are done, because it closes the connection.
    EXEMPT = "exempt"
    #: Its answer is not wanted any more.
    ABANDONED = "abandoned"
    ENDED = "ended"


RUNNING: Final[Literal[Status.RUNNING]] = Status.RUNNING


class Running:
    """An `async def` responder of `responders`, from its beginning to its end."""

    __slots__ = ("responders", "status")

    def __init__(self, responders: Responders) -> None:
        self.responders = responders
        self.status: Status = RUNNING

    def end(self) -> None:
        """Note that it has ended; if its answer was not sent for some other reason, that stays."""
        if self.status is RUNNING:
            self.status = Status.ENDED

    def is_inside(self, responders: Responders) -> bool:
        """Return whether it runs for `responders`, and has not ended."""
        return self.responders is responders and self.status is not Status.ENDED


#: In an `async def` responder, and in the tasks that it starts: which one it is.
current: ContextVar[Running | None] = ContextVar("amp_asyncio.running", default=None)
