"""Questions: those that wait to be sent, and what becomes of those that are open.

`calls.py` has the table of those that are open.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any, Final, TypeAlias

from ..commands.definitions import raisable
from ..errors import AmpError, ConnectionLost, MalformedAmpBox, RemoteAmpError, shortened
from ..wire.boxes import ERROR, ERROR_CODE, ERROR_DESCRIPTION, AmpBox, Box
from .outbox import again

__all__ = ["MOST_CANCELLED", "Queue", "Watch", "fail", "free", "remote_error"]

#: With this many questions that were cancelled and are not answered, a connection is given up.
MOST_CANCELLED: Final = 10_000


_Entry: TypeAlias = tuple[Any, AmpBox, int]


class Queue:
    """The questions that wait to be sent, each with what takes its answer, its box and its size.

    Those that pass the window are sent first; they wait only while no question may be sent.
    """

    __slots__ = ("_others", "_passing")

    def __init__(self) -> None:
        self._passing: OrderedDict[asyncio.Future[Any], _Entry] = OrderedDict()
        self._others: OrderedDict[asyncio.Future[Any], _Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._passing) + len(self._others)

    def add(self, future: asyncio.Future[Any], entry: _Entry, passes: bool) -> None:
        """Let a question wait, after the others of its kind."""
        (self._passing if passes else self._others)[future] = entry

    def first(self) -> tuple[asyncio.Future[Any], _Entry, bool]:
        """Return the question that is to be sent next, and whether it passes the window."""
        future, entry = next(iter((self._passing or self._others).items()))
        return future, entry, bool(self._passing)

    def remove(self, future: asyncio.Future[Any]) -> _Entry | None:
        """Remove a question, and return it if it has waited."""
        return self._passing.pop(future, None) or self._others.pop(future, None)

    def let_pass(self, questions: deque[asyncio.Future[Any]], asking: int) -> bool:
        """Let the first of `questions` pass the window, if none of a responder's `asking` is sent.

        Those that do not wait any more are removed from `questions`. Return whether one passes now.
        """
        while questions and questions[0] not in self._others:
            questions.popleft()
        if not questions or asking > len(questions):
            return False
        future = questions.popleft()
        self._passing[future] = self._others.pop(future)
        return True

    def all(self) -> list[tuple[asyncio.Future[Any], _Entry]]:
        """Return all of them."""
        return [*self._passing.items(), *self._others.items()]


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
    error = RemoteAmpError(box[ERROR_CODE], description)
    if len(box) > 3:
        known = (ERROR, ERROR_CODE, ERROR_DESCRIPTION)
        error.fields = {key: value for key, value in box.items() if key not in known}
    return error


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
