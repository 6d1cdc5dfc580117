"""Timers: what is looked at again and again, until it is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from ..clock import Alarm, call_later

__all__ = ["Timer"]


class Timer:
    """Something that is looked at again and again, until it is cancelled."""

    __slots__ = ("_handle", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._handle: Alarm | None = None

    def later(self, delay: float, callback: Callable[..., None], *arguments: Any) -> None:
        """Call `callback` in so many seconds."""
        self._handle = call_later(self._loop, delay, callback, *arguments)

    def soon(self, callback: Callable[..., None], *arguments: Any) -> None:
        """Call `callback` in the next turn of the loop."""
        self._handle = self._loop.call_soon(callback, *arguments)

    def cancel(self) -> None:
        """Do not call it."""
        if self._handle is not None:
            self._handle.cancel()
