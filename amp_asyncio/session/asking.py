"""Asking: a question that has its own class, with what its caller says about it."""

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
    future: asyncio.Future[Any] = question._doCommand(session.owner)
    if timeout is not None:
        timer = asyncio.get_running_loop().call_later(timeout, _expire, future, timeout)
        future.add_done_callback(lambda future: timer.cancel())
    return future


def _expire(future: asyncio.Future[Any], timeout: float) -> None:
    if not future.done():
        future.set_exception(TimeoutError(f"no answer within {timeout} s"))
