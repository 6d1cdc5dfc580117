"""Closing a connection in time, whatever its class overrides."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

from ..amp import AMP
from ..composed import connection_of
from ..connection.ending import close
from ..errors import ConnectionLost
from ..logs import logger

__all__ = ["close_in_time", "leave_in_time"]

# How many seconds it may take to leave a connection after an error.
_LEAVING = 1.0


async def close_in_time(amp: AMP, timeout: float | None = 10.0) -> None:
    """Close a connection as its class does it, but within `timeout` seconds whatever the class does."""
    connection = connection_of(amp)
    if type(amp).close is AMP.close:
        await close(connection, timeout)
        return
    try:
        async with asyncio.timeout(timeout):
            closing: Any = amp.close()
            if inspect.isawaitable(closing):
                await closing
                await connection.wait_closed()
    except Exception as error:
        if not isinstance(error, TimeoutError):
            logger.exception("%r: close() failed", connection)
    finally:
        connection.abort()
    await connection.wait_closed()


async def leave_in_time(amp: AMP) -> None:
    """Close a connection whose user has failed: give up its questions, and take a second at most."""
    session: Any = amp.__amp__
    session.calls.give_up(ConnectionLost("the connection was left while this question was open"))
    await close_in_time(amp, _LEAVING)
