"""Open questions: how they fail, and how it is noticed that they were cancelled.

`calls.py` has the table of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from ..commands.definitions import raisable
from ..errors import AmpError, ConnectionLost, MalformedAmpBox, RemoteAmpError, shortened
from ..wire.boxes import ERROR_CODE, ERROR_DESCRIPTION, Box
from .outbox import again

__all__ = ["MOST_CANCELLED", "Watch", "fail", "free", "remote_error"]

#: With this many questions that were cancelled and are not answered, a connection is given up.
MOST_CANCELLED: Final = 10_000


class Watch:
    """Calls `cancelled` in the next turn of the loop when questions that are watched were cancelled."""

    __slots__ = ("_cancelled", "_last", "_soon")

    def __init__(self, cancelled: Callable[[], None]) -> None:
        self._cancelled = cancelled
        self._last = 0  # The number of the last question that is watched.
        self._soon = False  # Whether `cancelled` will be called: many are often cancelled in one turn.

    def add(self, questions: dict[bytes, tuple[Any, asyncio.Future[Any], int]]) -> None:
        """Watch those of `questions` that are not watched yet; they are in the order of their tags."""
        last = self._last
        for tag, (_, future, _) in reversed(questions.items()):
            number = int(tag, 16)
            if number <= last:
                break
            self._last = max(self._last, number)
            future.add_done_callback(self._done)

    def _done(self, future: asyncio.Future[Any]) -> None:
        if future.cancelled() and not self._soon:
            self._soon = True
            asyncio.get_running_loop().call_soon(self._tell)

    def _tell(self) -> None:
        self._soon = False
        self._cancelled()


def free(questions: dict[bytes, tuple[Any, asyncio.Future[Any], int]]) -> tuple[int, int]:
    """Have questions that were cancelled count nothing; return how many there are, and their size."""
    cancelled = total = 0
    for tag, (asked, future, size) in questions.items():
        if future.done():
            cancelled += 1
            total += size
            questions[tag] = (asked, future, 0)
    return cancelled, total


def remote_error(box: Box) -> RemoteAmpError:
    """Return what an error box says; `MalformedAmpBox` for one without its code."""
    if ERROR_CODE not in box:
        raise MalformedAmpBox(f"an error without its code: {shortened(dict(box))}")
    description = box.get(ERROR_DESCRIPTION, b"").decode("utf-8", "replace")
    return RemoteAmpError(box[ERROR_CODE], description)


def fail(asked: object, future: asyncio.Future[Any], reason: BaseException) -> None:
    """Resolve the future of a question that will have no answer; `asked` is None if it wants none.

    A command that wants no answer is not told that the connection was lost. That the connection was
    handed over before the command was sent is an error for it, too.
    """
    if future.done():
        return
    if asked is None and isinstance(reason, ConnectionLost):
        future.set_result(None)
    else:
        future.set_exception(again(reason) if isinstance(reason, AmpError) else raisable(reason))
