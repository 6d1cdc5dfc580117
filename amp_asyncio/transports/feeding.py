"""Passing bytes to a protocol in place of its transport, if they were read before it was ready.

asyncio's two kinds of protocols, `Protocol` and `BufferedProtocol`, receive data differently.
"""

from __future__ import annotations

import asyncio
from typing import Any

__all__ = ["feed"]


def feed(protocol: Any, data: bytes) -> None:
    """Pass `data` to a protocol of either kind, as its transport would.

    Raises what the protocol raises, and `RuntimeError` if its `get_buffer` returns an empty buffer.
    """
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
