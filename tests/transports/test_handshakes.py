"""The number of TLS handshakes at the same time."""

from __future__ import annotations

import asyncio
import ssl

import pytest
from fakes import Transport

from amp_asyncio.tls.alerts import Alerts
from amp_asyncio.transports.handshakes import Handshakes
from amp_asyncio.transports.securing import secured


async def test_closed_while_it_waits_for_its_turn() -> None:
    loop = asyncio.get_running_loop()
    handshakes = Handshakes.of(loop)
    others = [loop.create_task(asyncio.Event().wait()) for _ in range(100)]
    for other in others:
        handshakes.begin(other)
    raw, protocol = Transport(), asyncio.Protocol()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    waiting = asyncio.ensure_future(secured(raw, protocol, context, b"", Alerts(raw), server_side=True))
    await asyncio.sleep(0)
    raw.close()
    for other in others:
        other.cancel()
    await asyncio.wait(others)
    with pytest.raises(ConnectionAbortedError, match="before the TLS handshake"):
        await waiting
