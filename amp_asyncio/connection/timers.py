"""Timers: what is looked at again and again, until it is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from typing import Any

from ..clock import Alarm, call_later

__all__ = ["Timer"]


class Timer:
    """Something that is looked at again and again, until it is cancelled.

    It is looked at in `context`; None for the one in which it is said when.
    """

    __slots__ = ("_context", "_handle", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop, context: Context | None = None) -> None:
        self._loop = loop
        self._context = context
        self._handle: Alarm | None = None

    def later(self, delay: float, callback: Callable[..., None], *arguments: Any) -> None:
        """Call `callback` in so many seconds."""
        self._handle = call_later(self._loop, delay, callback, *arguments, context=self._context)

    def soon(self, callback: Callable[..., None], *arguments: Any) -> None:
        """Call `callback` in the next turn of the loop."""
        self._handle = self._loop.call_soon(callback, *arguments, context=self._context)

    def cancel(self) -> None:
        """Do not call it."""
        if self._handle is not None:
            self._handle.cancel()
