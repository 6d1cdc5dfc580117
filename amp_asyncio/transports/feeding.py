"""Giving bytes to a protocol as its transport does, whichever of asyncio's two kinds it is."""

from __future__ import annotations

import asyncio
from typing import Any

__all__ = ["feed"]


def feed(protocol: Any, data: bytes) -> None:
    """Give `data` to a protocol as its transport would, whichever of asyncio's two kinds it is."""
    if isinstance(protocol, asyncio.Protocol):
        if data:
            protocol.data_received(data)
        return
    unread = memoryview(data)
    while unread:
        buffer = memoryview(protocol.get_buffer(len(unread)))
        if not buffer:
            raise RuntimeError(f"get_buffer() of {protocol!r} returned an empty buffer")
        size = min(len(buffer), len(unread))
        buffer[:size] = unread[:size]
        protocol.buffer_updated(size)
        unread = unread[size:]
