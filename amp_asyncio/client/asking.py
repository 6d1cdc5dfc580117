"""Asking: one question, on any connection of the client, until it is answered or fails.

The caller has one future. Each time that the question is asked, the connection makes another one. It is
asked again when its connection was lost before it was sent, or if its command says `idempotent`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from ..commands.definitions import raisable
from ..errors import ConnectionLost

if TYPE_CHECKING:
    from .links import Link
    from .pool import Pool

__all__ = ["Ask", "Question", "unsent"]

# What asks it of an AMP, with so many seconds left, and returns the future of the answer.
Ask: TypeAlias = "Callable[[Any, float | None], asyncio.Future[Any]]"


def unsent(why: str, cause: BaseException | None = None) -> ConnectionLost:
    """Return the error of a question that was not sent."""
    error = ConnectionLost(why)
    error.sent = False
    error.__cause__ = cause
    return error


class Question:
    """A question of a client, which `ask` asks of a connection.

    Attributes:
        future: what the caller waits for.
        idempotent: whether it may be asked again though it may have been answered already.
        keeps: whether it can be asked later, or a second time. Descriptors are not kept.
    """

    __slots__ = ("_asked", "_deadline", "_pool", "_timer", "ask", "future", "idempotent", "keeps")

    def __init__(
        self, pool: Pool, ask: Ask, *, idempotent: bool, keeps: bool, timeout: float | None
    ) -> None:
        loop = asyncio.get_running_loop()
        self._pool = pool
        self.ask = ask
        self.idempotent = idempotent
        self.keeps = keeps
        self.future: asyncio.Future[Any] = loop.create_future()
        self._deadline = None if timeout is None else loop.time() + timeout
        self._asked: asyncio.Future[Any] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def left(self) -> float | None:
        """Return how many seconds are left; None for no limit."""
        if self._deadline is None:
            return None
        return max(0.0, self._deadline - self.future.get_loop().time())

    def send(self, link: Link) -> None:
        """Ask it on this connection; raises what is wrong with it."""
        asked = self.ask(link.amp, self.left())
        self.stop_timer()
        self._asked = asked
        link.asked(asked)
        asked.add_done_callback(self._answered)

    def send_later(self, link: Link) -> None:
        """Ask it on this connection; its future says what is wrong with it."""
        try:
            self.send(link)
        except Exception as error:
            self.fail(raisable(error))

    def wait(self, patience: float, late: Callable[[Question], None]) -> None:
        """Have `late` called if it is not asked within its time, or `patience` if it has no limit."""
        left = self.left()
        delay = patience if left is None else left
        self._timer = self.future.get_loop().call_later(delay, late, self)

    def stop_timer(self) -> None:
        """It no longer waits."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def fail(self, error: Exception) -> None:
        """It fails: it will not be asked again."""
        self.stop_timer()
        if not self.future.done():
            self.future.set_exception(error)

    def _answered(self, asked: asyncio.Future[Any]) -> None:
        if self.future.done():
            if not asked.cancelled():
                asked.exception()  # It is retrieved: the caller has cancelled.
            return
        if asked.cancelled():
            self.future.cancel()
            return
        error = asked.exception()
        if error is None:
            self.future.set_result(asked.result())
        elif not (isinstance(error, ConnectionLost) and self._pool.ask_again(self, error)):
            self.future.set_exception(error)

    def ended(self, future: asyncio.Future[Any]) -> None:
        """The caller has the answer, or has cancelled; this is a callback of its future."""
        if self._timer is not None:
            self.stop_timer()
            self._pool.forget(self)
        if self._asked is not None and future.cancelled():
            self._asked.cancel()
