"""The flow of a stream: credit, pieces and ends, against a model, and what a peer may not do."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amp_asyncio import AmpBox, MalformedAmpBox, TooLong
from amp_asyncio.session.flow import MORE, VALUE, Incoming, Outgoing, credit_in, overhead
from amp_asyncio.wire.costs import box_cost

OVERHEAD = overhead(b"answer", b"a")
MOST = 60_000


class Direction:
    """Both ends of one direction of a stream, and the two lines between them."""

    def __init__(self, window: int, most: int = MOST) -> None:
        self.outgoing, self.incoming = Outgoing(most), Incoming(OVERHEAD, window, most)
        self.window, self.most = window, most
        self.outgoing.overhead = OVERHEAD
        self.outgoing.grant(window)
        self.pieces: deque[tuple[bytes | None, bool]] = deque()
        self.credits: deque[int] = deque()
        self.numbers = count()
        self.sent: list[bytes] = []
        self.taken: list[bytes] = []
        self.done: set[int] = set()
        self.came = self.given = 0

    def send(self, size: int) -> int:
        """Send an item, at once if that may be; return its number."""
        number = next(self.numbers)
        item = (b"%d-" % number * (size // 2 + 1))[:size]
        self.sent.append(item)
        if cost := self.outgoing.pass_by(item):
            self.outgoing.credit -= cost
            pieces = [(bytes(piece), more) for piece, more in self.outgoing.cut(item)]
            assert cost == sum(box_cost(box_of(piece, more)) for piece, more in pieces)
            self.pieces += pieces
            self.done.add(number)
        else:
            self.outgoing.put(item, number)
        return number

    def pump(self) -> None:
        while self.outgoing.is_ready():
            cost, data, more, waiter = self.outgoing.take()
            piece = data if data is None else bytes(data)
            if piece is not None:
                assert cost == box_cost(box_of(piece, more)) <= self.window // 3
            self.pieces.append((piece, more))
            if waiter is not None:
                self.done.add(waiter)

    def arrive(self) -> None:
        if self.pieces:
            data, more = self.pieces.popleft()
            if data is None:
                self.incoming.end()
            else:
                self.came += box_cost(box_of(data, more))
                self.incoming.piece(data, more)
            self.give_back()

    def take(self) -> None:
        if self.incoming:
            self.taken.append(self.incoming.take())
            self.give_back()

    def give_back(self) -> None:
        if credit := self.incoming.due():
            assert credit >= self.window * 2 // 3, "it is given back in bulk"
            self.given += credit
            self.credits.append(credit)

    def learn(self) -> None:
        if self.credits:
            self.outgoing.grant(self.credits.popleft())

    def check(self) -> None:
        assert self.outgoing.credit >= 0
        assert self.taken == self.sent[: len(self.taken)]
        waiting = sum(map(len, self.sent[len(self.taken) : len(self.taken) + len(self.incoming)]))
        assert waiting <= self.window + self.most

    def settle(self) -> None:
        """Do all that can be done."""
        while self.outgoing.is_ready() or self.pieces or self.credits or self.incoming:
            self.pump()
            self.arrive()
            self.learn()
            self.take()
            self.check()


def box_of(data: bytes, more: bool) -> AmpBox:
    box = AmpBox(_command=b"_item", answer=b"a")
    box[VALUE] = data
    if more:
        box[MORE] = b""
    return box


STEPS = st.one_of(
    st.integers(0, MOST),
    st.integers(0, 500),
    st.sampled_from(["pump", "arrive", "take", "learn", "settle"]),
)


@settings(max_examples=30)
@given(st.sampled_from([1700, 4096, 65_536]), st.lists(STEPS, max_size=60))
def test_whatever_both_ends_do_each_item_comes_once_in_order_and_none_waits_for_ever(
    window: int, steps: list[int | str]
) -> None:
    direction = Direction(window)
    for step in steps:
        if isinstance(step, int):
            direction.send(step)
        else:
            getattr(direction, step)()
        direction.check()
    direction.outgoing.put(None, "end")
    direction.settle()
    assert direction.taken == direction.sent
    assert direction.done == {*range(len(direction.sent)), "end"}
    assert direction.incoming.ended
    assert not direction.outgoing.is_ready()


@pytest.mark.parametrize("size", [0, 100, 50_000])
def test_a_consumer_that_takes_nothing_stops_its_producer_within_the_window(size: int) -> None:
    direction = Direction(8192)
    for _ in range(50):
        direction.send(size)
    while direction.outgoing.is_ready() or direction.pieces or direction.credits:
        direction.pump()
        direction.arrive()
        direction.learn()
    # A large item comes whole, so that it does not wait for ever; what follows it stays within.
    assert direction.came <= direction.window + direction.given
    assert len(direction.incoming) <= max(1, 8192 // (OVERHEAD + size))
    assert 0 < len(direction.done) < 50
    direction.settle()
    assert direction.taken == direction.sent


def test_an_item_that_was_withdrawn_is_not_sent_unless_it_was_begun() -> None:
    direction = Direction(4096)
    begun, whole = direction.send(10_000), direction.send(10)
    direction.pump()
    direction.outgoing.withdraw(begun)
    direction.outgoing.withdraw(whole)
    del direction.sent[whole]
    direction.outgoing.withdraw("never put")
    direction.settle()
    assert direction.taken == direction.sent
    assert direction.done == {begun}


def test_what_waits_can_be_dropped() -> None:
    direction = Direction(4096)
    numbers = [direction.send(10_000), direction.send(10)]
    direction.pump()
    assert direction.outgoing.drop() == numbers
    assert not direction.outgoing.is_ready()
    direction.arrive()
    assert direction.incoming.in_item
    direction.incoming.drop()
    assert not direction.incoming.in_item


def test_an_item_that_the_peer_would_not_take_is_refused() -> None:
    Outgoing(100).check(bytes(100))
    with pytest.raises(TooLong, match="max_box_size, the limit of 100 bytes"):
        Outgoing(100).check(bytes(101))


def test_nothing_is_sent_before_the_first_credit() -> None:
    outgoing = Outgoing(MOST)
    outgoing.overhead = OVERHEAD
    assert not outgoing.pass_by(b"")
    outgoing.put(b"", 1)
    assert not outgoing.is_ready()
    outgoing.grant(4096)
    assert outgoing.take() == (OVERHEAD, b"", False, 1)


def beyond(incoming: Incoming) -> None:
    for _ in range(20):
        incoming.piece(b"", False)


def after_the_end(incoming: Incoming) -> None:
    incoming.end()
    incoming.piece(b"", False)


def end_twice(incoming: Incoming) -> None:
    incoming.end()
    incoming.end()


def end_within_an_item(incoming: Incoming) -> None:
    incoming.piece(b"", True)
    incoming.end()


def too_long(incoming: Incoming) -> None:
    while True:
        incoming.piece(bytes(500), True)
        incoming.due()


@pytest.mark.parametrize(
    ("act", "problem"),
    [
        (beyond, r"an item of \d+ bytes, \d+ more than the credit"),
        (after_the_end, "an item after the end"),
        (end_twice, "ended twice"),
        (end_within_an_item, "ended in the middle of an item"),
        (too_long, "remote box too long"),
    ],
)
def test_what_a_peer_may_not_send(act: Callable[[Incoming], None], problem: str) -> None:
    with pytest.raises((MalformedAmpBox, TooLong), match=problem):
        act(Incoming(OVERHEAD, 4096, MOST))


@pytest.mark.parametrize(
    "value", [None, b"", b"0", b"-1", b" 1", b"1_0", b"x", b"2147483648", b"9" * 30]
)
def test_what_is_no_credit(value: bytes | None) -> None:
    with pytest.raises(MalformedAmpBox, match="a credit of"):
        credit_in(value)


def test_what_credit_may_be() -> None:
    assert credit_in(b"2147483647") == 2**31 - 1
    outgoing = Outgoing(MOST)
    outgoing.overhead = OVERHEAD
    with pytest.raises(MalformedAmpBox, match="a first credit of 100, which is too little"):
        outgoing.grant(100)
    outgoing.grant(2**31 - 1)
    with pytest.raises(
        MalformedAmpBox, match="a credit of 1 in addition to 2147483647: it is too much"
    ):
        outgoing.grant(1)
