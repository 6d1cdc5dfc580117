"""How streams share a connection: with each other in bytes, and with calls in time."""

from __future__ import annotations

import asyncio
from collections import deque

import pytest
from support import turns

from amp_asyncio.session.pace import Mark, Pace
from amp_asyncio.session.sharing import Sharing


class Stream:
    """Sends pieces of `size` without end, unless `pieces` says how many."""

    share = 0
    in_line = False

    def __init__(self, sharing: Sharing, size: int, pieces: int | None = None) -> None:
        self.sharing, self.size, self.pieces = sharing, size, pieces
        self.sent = 0

    def pump(self) -> bool:
        while self.pieces != 0:
            if self.share <= 0 or self.sharing.held:
                return True
            self.sharing.sent(self, self.size)
            self.sent += self.size
            if self.pieces is not None:
                self.pieces -= 1
        return False


class Line:
    """Answers the pings of a sharing when it is told to."""

    def __init__(self, full: bool = False) -> None:
        self.sharing = Sharing(full, self.ping)
        self.marks: deque[Mark] = deque()
        self.answers_at_once = False
        self.knows_pings = True

    def ping(self, mark: Mark) -> bool:
        self.marks.append(mark)
        if self.answers_at_once:
            asyncio.get_running_loop().call_soon(self.answer)
        return self.knows_pings

    def answer(self) -> None:
        if self.marks:
            self.sharing.answered(self.marks.popleft())


async def test_streams_get_the_same_in_bytes_whatever_their_items_are_like() -> None:
    line = Line()
    line.answers_at_once = True
    streams = [Stream(line.sharing, size) for size in [400, 3000, 20_000, 70_000] * 3]
    for stream in streams:
        line.sharing.begin(stream)
    for _ in range(150):
        await asyncio.sleep(0)
    sent = [stream.sent for stream in streams]
    assert min(sent) > 300_000
    assert max(sent) - min(sent) < 2 * 70_000 + 2 * 16 * 1024
    for stream in streams:
        line.sharing.leave(stream)
        line.sharing.leave(stream)
    before = sent
    await turns()
    assert before == [stream.sent for stream in streams], "those that are over send nothing"
    line.marks.clear()


async def test_one_turn_has_room_for_so_much_only() -> None:
    line = Line()
    line.answers_at_once = True
    stream = Stream(line.sharing, 1000)
    line.sharing.begin(stream)
    for _ in range(20):
        before = stream.sent
        await asyncio.sleep(0)
        assert stream.sent - before < 250_000
    assert stream.sent > 500_000
    line.sharing.leave(stream)


async def test_a_stream_alone_sends_at_once_and_again_in_the_next_turn() -> None:
    line = Line()
    line.answers_at_once = True
    stream = Stream(line.sharing, 1000, pieces=0)
    for _ in range(300):
        stream.pieces = 1
        line.sharing.begin(stream)
        if stream.pieces:
            await turns()
        assert stream.pieces == 0
    await turns()


@pytest.mark.parametrize("full", [False, True])
async def test_nothing_is_sent_while_the_transport_takes_no_more(full: bool) -> None:
    line = Line(full)
    line.answers_at_once = True
    if not full:
        line.sharing.hold()
    streams = [Stream(line.sharing, 1000, pieces=10) for _ in range(3)]
    for stream in streams:
        line.sharing.begin(stream)
    await turns()
    assert not any(stream.sent for stream in streams)
    line.sharing.release()
    line.sharing.release()
    await turns()
    assert [stream.sent for stream in streams] == [10_000] * 3


async def test_nothing_is_sent_before_the_peer_has_read_what_was_sent() -> None:
    line = Line()
    streams = [Stream(line.sharing, 1000) for _ in range(3)]
    for stream in streams:
        line.sharing.begin(stream)
    await turns()
    sent = sum(stream.sent for stream in streams)
    assert 90_000 < sent < 200_000
    assert line.sharing.held
    line.answer()
    await turns()
    assert sum(stream.sent for stream in streams) > sent
    line.sharing.hold()
    sent = sum(stream.sent for stream in streams)
    for _ in range(10):
        line.answer()
    await turns()
    assert sum(stream.sent for stream in streams) == sent, "the transport is full"
    for stream in streams:
        line.sharing.leave(stream)


async def test_a_peer_that_does_not_know_pings_is_not_waited_for() -> None:
    line = Line()
    line.knows_pings = False
    stream = Stream(line.sharing, 1000, pieces=1000)
    line.sharing.begin(stream)
    while stream.pieces:
        await asyncio.sleep(0)
    await turns()


def throughput(rate: float, delay: float, seconds: float, size: int) -> tuple[float, float]:
    """Return how many bytes a second cross a line, and how long the last pings took.

    The line has a queue that is emptied at `rate`, and takes `delay` there and back.
    """
    pace = Pace()
    now = free_at = 0.0
    waiting: deque[tuple[float, Mark]] = deque()
    sent, took = 0, 0.0
    while now < seconds:
        while pace.left > 0:
            sent += size
            free_at = max(free_at, now) + size / rate
            if pace.sent(size):
                waiting.append((free_at + delay, pace.mark(now)))
        now, mark = waiting.popleft()
        pace.read(mark, now)
        if now > seconds / 2:
            took = max(took, now - mark.at)
    return sent / seconds, took


@pytest.mark.parametrize(
    ("rate", "delay", "size"),
    [(20e6, 0.001, 2000), (20e6, 0.05, 8000), (500e6, 0.01, 60_000), (1e6, 0.01, 500)],
)
def test_the_line_is_filled_and_no_more(rate: float, delay: float, size: int) -> None:
    achieved, took = throughput(rate, delay, 4, size)
    assert achieved > 0.5 * rate
    # (A slow line has a fixed part on its way in any case.)
    assert took < delay + max(0.04, 2 * 96 * 1024 / rate)


def test_there_is_a_most_that_may_be_on_its_way() -> None:
    pace = Pace()
    for now in range(1000):
        while not pace.sent(30_000):
            pass
        pace.read(pace.mark(float(now)), now + 0.001)
    assert pace.left == 8 * 1024 * 1024
