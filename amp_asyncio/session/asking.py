"""Asking: a question that is an instance of its command, with what its caller says about it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..commands.command import Command

if TYPE_CHECKING:
    from .session import Session

__all__ = ["ask"]


def ask(
    session: Session,
    question: Command[Any],
    timeout: float | None = None,
    metadata: Mapping[str, str] | None = None,
) -> asyncio.Future[Any]:
    """Ask `question`, and return the future of its answer; raises as `callRemote` does."""
    definition = question.__amp__
    template = definition.question_template
    future: Any = None
    if template is not None:
        values: Any = question.__dict__
        future = session.calls.ask_at_once(template, definition, values)
    if future is None:
        future = question._doCommand(session.owner or _Forgotten(session))
    if timeout is not None:
        timer = asyncio.get_running_loop().call_later(timeout, _expire, future, timeout)
        future.add_done_callback(lambda future: timer.cancel())
    asked: asyncio.Future[Any] = future
    return asked


class _Forgotten:
    """Stands for the owner of a session that is over: it says why nothing can be asked."""

    __slots__ = ("__amp__",)

    def __init__(self, session: Session) -> None:
        self.__amp__ = session


def _expire(future: asyncio.Future[Any], timeout: float) -> None:
    if not future.done():
        future.set_exception(TimeoutError(f"no answer within {timeout} s"))
