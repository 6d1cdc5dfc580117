"""Stand-ins for what a peer talks to: a transport and protocols that take notes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from amp_asyncio import AmpBox, parseString


def plain(boxes: list[AmpBox]) -> list[AmpBox]:
    """Return boxes without what only peers of this package look at in a first question."""
    for box in boxes:
        box.pop(b"_offer", None)
    return boxes


class Watched:
    """Lets a test wait until something is so; `check` is called when something has happened."""

    def __init__(self) -> None:
        super().__init__()
        self.waiters: list[tuple[Callable[[], Any], asyncio.Future[None]]] = []

    def check(self) -> None:
        for condition, future in self.waiters:
            if not future.done() and condition():
                future.set_result(None)

    async def until(self, condition: Callable[[], Any]) -> None:
        future = asyncio.get_running_loop().create_future()
        self.waiters.append((condition, future))
        self.check()
        await future


class Transport(Watched, asyncio.Transport):
    """Writes down what is done to it; `buffered` bytes are still to be sent."""

    def __init__(self, eof: bool = True) -> None:
        super().__init__()
        self.eof = eof
        self.written: list[bytes] = []
        self.done: list[str] = []
        self.protocol: Any = None
        self.get_protocol = lambda: self.protocol  # type: ignore[method-assign]
        self.buffered = 0
        self.reading = True

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def boxes(self) -> list[AmpBox]:
        """Return the boxes that were written, without the offers in them."""
        return plain(parseString(b"".join(self.written)))

    def note(self, what: str) -> None:
        self.done.append(what)
        self.check()

    def write(self, data: Any) -> None:
        self.written.append(data)
        self.check()

    def can_write_eof(self) -> bool:
        return self.eof

    def write_eof(self) -> None:
        self.note("write_eof")

    def is_reading(self) -> bool:
        return self.reading

    def pause_reading(self) -> None:
        self.reading = False
        self.check()

    def resume_reading(self) -> None:
        self.reading = True
        self.check()

    def get_write_buffer_size(self) -> int:
        return self.buffered

    def is_closing(self) -> bool:
        return "close" in self.done

    def close(self) -> None:
        self.note("close")

    def abort(self) -> None:
        self.note("abort")


class Notes(Watched, asyncio.BaseProtocol):
    """Writes down what happens to it."""

    #: Whether it keeps its own side open when its peer has closed the other one.
    stays_open = False

    def __init__(self) -> None:
        super().__init__()
        self.transport: Any = None
        self.data = b""
        self.events: list[str] = []

    def note(self, event: str) -> None:
        self.events.append(event)
        self.check()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.note("made")

    def received(self, data: bytes) -> None:
        self.data += data
        self.check()

    def eof_received(self) -> bool:
        self.note("eof")
        return self.stays_open

    def pause_writing(self) -> None:
        self.note("pause")

    def resume_writing(self) -> None:
        self.note("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.note("lost")


class Recorder(Notes, asyncio.Protocol):
    def data_received(self, data: bytes) -> None:
        self.received(data)


class BufferedRecorder(Notes, asyncio.BufferedProtocol):
    """Gets its data through the other interface; its buffers have room for three bytes."""

    def get_buffer(self, sizehint: int) -> bytearray:
        self.buffer = bytearray(3)
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.received(bytes(self.buffer[:nbytes]))


class Sender:
    """A box sender as Twisted defines it: these two methods, and no more."""

    def __init__(self) -> None:
        self.sent: list[AmpBox] = []
        self.errors: list[BaseException] = []

    def sendBox(self, box: AmpBox) -> None:
        self.sent.append(box)

    def unhandledError(self, error: BaseException) -> None:
        self.errors.append(error)

    def __repr__(self) -> str:
        return "the sender"
