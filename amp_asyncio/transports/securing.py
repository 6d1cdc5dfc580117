"""TLS on top of a transport that is in use already.

`loop.start_tls` expects that no byte was read that its caller did not mean to read. `secured` gives the
bytes that were read to the TLS layer all the same.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Any, Protocol

from .feeding import feed
from .handshakes import Handshakes

__all__ = ["Alerts", "secured"]


class Alerts(Protocol):
    """What sends the alerts of a handshake; see `tls/alerts.py`."""

    def begin(self) -> None:
        """The next `SSLObject` that is made is the one of this handshake, unless it has one."""

    def end(self) -> None:
        """The next one is not."""


async def secured(
    raw: asyncio.Transport,
    protocol: asyncio.BaseProtocol,
    context: ssl.SSLContext,
    early: bytes | bytearray,
    alerts: Alerts,
    *,
    server_side: bool,
    **options: Any,
) -> asyncio.Transport:
    """Return the transport that `loop.start_tls` puts on top of `raw`, after the handshake.

    It may be closing already.

    `early` is what was read already; nothing may wait to be written on `raw`. `alerts` is told when the
    handshake begins. The `options` are those of `loop.start_tls`.

    Raises `OSError`, such as `ssl.SSLError` and `ConnectionError`, if the handshake fails.

    `early` must reach the TLS layer after its `connection_made`, and before the next byte of the
    socket. `start_tls` pauses reading, installs its protocol, and has both `connection_made` and
    `resume_reading` called in the next turn of the loop, all before it waits for the first time. So
    what is scheduled then runs in that same turn, after these two; the loop does not look at the socket
    before the turn is over.
    """
    loop = asyncio.get_running_loop()
    handshakes = Handshakes.of(loop)
    if server_side:
        await handshakes.turn()
        if raw.is_closing():
            raise ConnectionAbortedError("the connection was lost before the TLS handshake")
    before = raw.get_protocol()

    async def start() -> asyncio.Transport | None:
        # asyncio makes the `SSLObject` here, and uvloop in `connection_made`, in the next turn.
        alerts.begin()
        loop.call_soon(alerts.begin)
        return await loop.start_tls(raw, protocol, context, server_side=server_side, **options)

    # Not eagerly, whatever the loop's task factory: it has to run in the turn in which this goes on.
    starting = asyncio.Task(start(), loop=loop)
    if server_side:
        handshakes.begin(starting)
    try:
        await asyncio.sleep(0)
        alerts.end()
        layer: Any = raw.get_protocol()
        if layer is not before:
            loop.call_soon(_feed_unless_closing, layer, raw, bytes(early))
        transport = await starting
    except asyncio.CancelledError:
        current = asyncio.current_task()
        if starting.cancelled() and current is not None and not current.cancelling():
            raise ConnectionAbortedError("it was slow, and others waited for their turn") from None
        raise
    finally:
        starting.cancel()
        alerts.end()
    if transport is None:
        raise ConnectionAbortedError("the connection was lost during the TLS handshake")
    return transport


def _feed_unless_closing(layer: Any, raw: asyncio.Transport, early: bytes) -> None:
    # uvloop's layer raises an error if it has to write to a transport that was lost in this turn.
    if not raw.is_closing():
        feed(layer, early)
