"""Questions: those that wait to be sent, and what becomes of those that are open.

`calls.py` has the table of those that are open.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from typing import Any, TypeAlias

from ..commands.definitions import raisable
from ..errors import AmpError, ConnectionLost, MalformedAmpBox, RemoteAmpError, shortened
from ..wire.boxes import ASK, ERROR, ERROR_CODE, ERROR_DESCRIPTION, AmpBox, Box
from ..wire.parser import BoxParser
from .outbox import Outbox, again

__all__ = ["Queue", "dropped", "fail", "remote_error"]

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

        Those that no longer wait are removed from `questions`. Return whether one passes now.
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


def fail(asked: object, future: asyncio.Future[Any], reason: BaseException, sent: bool = False) -> None:
    """Resolve the future of a question that will have no answer; `asked` is None if it wants no answer.

    `sent` says whether it was handed to the transport.

    A command that wants no answer is not told that the connection was lost. That the connection was
    handed over before the command was sent is an error for it, too.
    """
    if future.done():
        return
    if asked is None and isinstance(reason, ConnectionLost):
        future.set_result(None)
    else:
        error = again(reason) if isinstance(reason, AmpError) else raisable(reason)
        if sent and isinstance(error, ConnectionLost):
            error.sent = True
        future.set_exception(error)


def dropped(outbox: Outbox) -> set[bytes]:
    """Return the tags of the questions that were sent, but never handed to the transport."""
    if not outbox.dropped:
        return set()
    parser = BoxParser(version=outbox.version)
    parser.feed(outbox.dropped)
    outbox.dropped = b""
    tags = set()
    while (box := parser.next_box()) is not None:
        tags.add(box.get(ASK, b""))
    return tags
