"""The current call: what a responder can learn about its call, and interceptors about any call.

Nothing is made for a call until it is asked for here.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from ..wire.boxes import COMMAND
from .running import current, desk

if TYPE_CHECKING:
    from .outlets import Outlet
    from .peers import Peer

__all__ = ["NO_METADATA", "Call", "current_call", "remaining"]

Direction: TypeAlias = Literal["asking", "answering"]

#: The metadata of a call without metadata.
NO_METADATA: Final[Mapping[str, str]] = MappingProxyType({})


class Call:
    """A call, as the side sees it that asks or that answers.

    Attributes:
        direction: "asking" or "answering".
        command: the name of the command on the wire.
        question: what is asked, for interceptors: the instance of the command; without a class for it,
            the arguments by name, or the box that came. None where it was not kept.
        amp: the `AMP`, or the dispatcher, over which it is asked or answered.
        metadata: what goes with the question, by name.
        deadline: when the time of the call is over, on the clock of `time.monotonic()`; None without a
            timeout.
    """

    __slots__ = ("amp", "command", "deadline", "direction", "metadata", "question")

    def __init__(
        self,
        direction: Direction,
        command: bytes,
        amp: Any,
        question: Any = None,
        metadata: Mapping[str, str] = NO_METADATA,
        deadline: float | None = None,
    ) -> None:
        self.direction: Direction = direction
        self.command = command
        self.amp = amp
        self.question = question
        self.metadata = metadata
        self.deadline = deadline

    @property
    def peer(self) -> Peer:
        """Who is at the other end of the connection."""
        outlet: Outlet = self.amp.__amp__.outlet
        return outlet.peer

    def remaining(self) -> float | None:
        """Return how many seconds are left, 0 if none are; None without a timeout."""
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())

    def __repr__(self) -> str:
        return f"<Call {self.direction} {self.command.decode('ascii', 'backslashreplace')}>"


def current_call() -> Call | None:
    """Return the call that is being answered here, or None outside of responders.

    Tasks that an `async def` responder starts see it as well, until the responder has ended.
    """
    at = desk()
    if at.now is not None:
        responders, box, call = at.now
        if call is None:
            call = Call("answering", box[COMMAND], responders.amp)
            at.now = responders, box, call
        return call
    running = current.get()
    if running is None or running.ended:
        return None
    if running.call is None:
        running.call = Call("answering", running.command, running.responders.amp)
    return running.call


def remaining() -> float | None:
    """Return how many seconds the caller of this responder still waits; 0 if it no longer does.

    None if it gave no timeout, and outside of responders.
    """
    call = current_call()
    return None if call is None else call.remaining()
