"""The limit: bare `asyncio.Protocol`s that exchange the bytes of AMP, and look at none of them.

What they do: send the very bytes of the question, and of the answer, that AMP has for the same call
(with a tag of five digits, as calls 65,536 to 1,048,575 have). Each call has a future that its caller
awaits, resolved when as many bytes have come as an answer has; one with a timeout has a timer of the
loop. Items are sent while the transport takes them. So they pay for the loop, the sockets, and callers
that wait.

What they do not do: parse, encode, find or run a responder, tell one answer from another, watch how
much is under way, or notice an error.

There are two. `Bare`, the limit in all ratios, writes each message as it comes, which is what one
writes who has a protocol and nothing else. `Coalescing` leaves all messages of a turn of the loop to
one write. With one question at a time, or large values, there is no difference; with 100 in flight it
does a hundredth of the system calls, and what is left are the futures and tasks of the callers.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from peers import HOST, TIMEOUT, VALUE, Connection, Peer

TAG = b"186a0"
#: A question for so many items is that number, in as many digits.
DIGITS = 9


def box(**pairs: bytes) -> bytes:
    parts = []
    for key, value in sorted(pairs.items()):
        parts += [len(key).to_bytes(2, "big"), key.encode(), len(value).to_bytes(2, "big"), value]
    return b"".join(parts) + b"\0\0"


def question(what: str) -> bytes:
    if what == "echo":
        return box(_ask=TAG, _command=b"Echo", data=b"x" * VALUE)
    return box(_ask=TAG, _command=b"Sum", a=b"13", b=b"81")


def answer(what: str) -> bytes:
    if what == "echo":
        return box(_answer=TAG, data=b"x" * VALUE)
    if what == "items":
        return box(_command=b"_item", answer=TAG, item=b"12345")
    return box(_answer=TAG, total=b"94")


class Answering(asyncio.Protocol):
    """Writes an answer for each question's length of bytes."""

    def __init__(self, what: str) -> None:
        self.question = len(question(what))
        self.answer = answer(what)
        self.received = 0

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        whole, self.received = divmod(self.received + len(data), self.question)
        self.write(whole)

    def write(self, whole: int) -> None:
        for _ in range(whole):
            self.transport.write(self.answer)


class AnsweringTogether(Answering):
    def write(self, whole: int) -> None:
        if whole:
            self.transport.write(self.answer * whole)


class Sending(asyncio.Protocol):
    """Writes as many items as it is asked for, while the transport takes them."""

    def __init__(self, what: str) -> None:
        self.item = answer(what)
        self.left = 0
        self.paused = False

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.left += int(data)
        self.write()

    def write(self) -> None:
        while self.left and not self.paused:
            self.left -= 1
            self.transport.write(self.item)

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        self.write()


class Asking(asyncio.Protocol):
    """Resolves the oldest future for each answer's length of bytes."""

    def __init__(self, what: str) -> None:
        self.question = question(what)
        self.answer = len(answer(what))
        self.received = 0
        self.futures: deque[asyncio.Future[None]] = deque()

    def connection_made(self, transport: Any) -> None:
        self.loop = asyncio.get_running_loop()
        self.transport = transport
        self.lost = self.loop.create_future()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(None)

    def ask(self) -> asyncio.Future[None]:
        future = self.loop.create_future()
        self.futures.append(future)
        self.transport.write(self.question)
        return future

    async def ask_timed(self) -> None:
        future = self.ask()
        timer = self.loop.call_later(TIMEOUT, future.cancel)
        try:
            await future
        finally:
            timer.cancel()

    def data_received(self, data: bytes) -> None:
        whole, self.received = divmod(self.received + len(data), self.answer)
        for _ in range(whole):
            self.futures.popleft().set_result(None)

    async def close(self) -> None:
        self.transport.close()
        await self.lost


class Taking(Asking):
    """Waits until as many items have come as it has asked for."""

    def take(self, count: int = 1) -> asyncio.Future[None]:
        self.question = b"%0*d" % (DIGITS, count)
        self.answer = count * len(answer("items"))
        return self.ask()


class AskingTogether(Asking):
    unsent = 0

    def ask(self) -> asyncio.Future[None]:
        future = self.loop.create_future()
        self.futures.append(future)
        if not self.unsent:
            self.loop.call_soon(self.flush)
        self.unsent += 1
        return future

    def flush(self) -> None:
        self.transport.write(self.question * self.unsent)
        self.unsent = 0


class Bare(Peer):
    answering = Answering
    asking = Asking

    async def serve(self, what: str, tls: bool) -> int:
        loop = asyncio.get_running_loop()
        context = self.server_context(tls)
        factory: Any = Sending if what == "items" else self.answering
        server = await loop.create_server(lambda: factory(what), HOST, 0, ssl=context)
        self.servers.append(server)
        port: int = server.sockets[0].getsockname()[1]
        return port

    async def connect(self, port: int, what: str, tls: bool) -> Connection:
        loop = asyncio.get_running_loop()
        options = self.client_options(tls)
        if what == "items":
            _, taking = await loop.create_connection(lambda: Taking(what), HOST, port, **options)
            return Connection(taking.take, taking.close)
        _, asking = await loop.create_connection(lambda: self.asking(what), HOST, port, **options)
        return Connection(asking.ask_timed if what == "timed" else asking.ask, asking.close)


class Coalescing(Bare):
    """The same with one write for all messages of a turn of the loop."""

    answering = AnsweringTogether
    asking = AskingTogether
