"""A stream: the items that come are printed, and lines of stdin are the items that are sent."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from threading import Thread
from typing import Any

from ..amp import AMP
from ..commands.streams import Stream
from ..errors import ConnectionLost, RemoteAmpError, StreamEnded, StreamsUnsupported
from ..wire.boxes import AmpBox
from .asking import failures_of, stream
from .failures import Failure, Status
from .output import say, say_json, written
from .types import Items
from .values import from_json, from_text, parse_json, to_json

__all__ = ["converse"]

# How many bytes are read at once.
_CHUNK = 65536

# What ends a stream; who receives, or waits for the answer, is told as well.
_ENDS = (ConnectionLost, RemoteAmpError, StreamEnded, StreamsUnsupported)


async def converse(amp: AMP, name: bytes, box: AmpBox, items: Items, as_json: bool) -> AmpBox:
    """Open the stream that the question `box` asks for, and return the box of its answer.

    Until the answer comes, print the items that come, and send lines of stdin, if it takes any.
    """
    with failures_of(name):
        try:
            async with stream(amp, name, box, items) as opened, asyncio.TaskGroup() as group:
                sending = None
                if items.sent is not None:
                    sending = group.create_task(_send(opened, items.sent, as_json))
                if items.received is not None:
                    async for item in opened:
                        shown = to_json(items.received, item)
                        if as_json:
                            say_json(shown)
                        else:
                            say(written(shown))
                answer = await opened.answer()
                if sending is not None:
                    sending.cancel()
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
    return answer


async def _send(opened: Stream[Any, Any, Any], argument: Any, as_json: bool) -> None:
    number = 0
    with suppress(*_ENDS):  # The answer of the stream reports it.
        async for line in _lines():
            number += 1
            try:
                if as_json:
                    item = from_json(argument, parse_json(line))
                else:
                    # What is in stdin may come from anywhere: it cannot name a file to be sent.
                    item = from_text(argument, line, files=False)
                await opened.send(item)
            except Exception as error:
                wrong = Failure(Status.USAGE, f"line {number} of stdin: {error}")
                raise (error if isinstance(error, _ENDS) else wrong) from None
        await opened.finish()


async def _lines() -> AsyncIterator[str]:
    """Yield the lines of stdin."""
    begun: list[bytes] = []  # The parts of a line whose end has not come.
    while chunk := await _read():
        first, *others = chunk.split(b"\n")
        begun.append(first)
        for other in others:
            yield _text(begun)
            begun = [other]
    if line := _text(begun):
        yield line


def _text(parts: list[bytes]) -> str:
    return b"".join(parts).decode("utf-8", "surrogateescape")


async def _read() -> bytes:
    """Return bytes of stdin, or none at its end.

    It may be a file, which no event loop can wait for, or a terminal, which others would find changed
    if it were made non-blocking. So a thread waits. The program can end before it, and before any lock
    of `sys.stdin` is free: it uses neither that nor the executor.
    """
    if sys.stdin is None:  # It was closed before the program began.
        return b""
    loop = asyncio.get_running_loop()
    found: asyncio.Queue[bytes | OSError] = asyncio.Queue()
    number = sys.stdin.fileno()

    def read() -> None:
        data: bytes | OSError
        try:
            data = os.read(number, _CHUNK)
        except OSError as error:
            data = error
        with suppress(RuntimeError):  # The loop is closed, so the data is dropped.
            loop.call_soon_threadsafe(found.put_nowait, data)

    Thread(target=read, daemon=True).start()
    data = await found.get()
    if isinstance(data, OSError):
        raise Failure(Status.USAGE, f"cannot read stdin: {data.strerror}")
    return data
