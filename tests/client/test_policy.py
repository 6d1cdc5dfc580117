"""The decisions of a client: they are told what time it is, and the test moves the clock."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amp_asyncio import Backoff, Budget
from amp_asyncio.client.policy import Place, Places, fewest


def half() -> float:
    return 0.5


@dataclass(eq=False)
class Link:
    place: Place
    questions: int = 0


# --- how long to wait ---


@pytest.mark.parametrize(
    ("failures", "shortest", "longest"),
    [(0, 0, 0.1), (1, 0.1, 0.2), (2, 0.1, 0.4), (5, 0.1, 3.2), (9, 0.1, 30), (10_000, 0.1, 30)],
)
def test_full_jitter(failures: int, shortest: float, longest: float) -> None:
    backoff = Backoff()
    assert backoff.delay(failures, 0) == shortest
    assert backoff.delay(failures, 1) == pytest.approx(longest)
    assert backoff.delay(failures, 0.5) == pytest.approx((shortest + longest) / 2)


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"first": 0}, "first must be positive, not 0"),
        ({"most": "long"}, "most must be a number, not 'long'"),
        ({"first": 31}, "a first wait of 31 s is longer than the longest: 30.0"),
    ],
)
def test_a_backoff_that_cannot_be(wrong: dict[str, Any], error: str) -> None:
    with pytest.raises((TypeError, ValueError), match=error):
        Backoff(**wrong)


def test_the_attempts_of_a_long_absence() -> None:
    """None is early, each waits longer, and within 10 minutes there are not more than a few dozen."""
    places = Places(Backoff(), half)
    places.update(["a"])
    now, attempts = 0.0, []
    while now < 600:
        place = places.take(now)
        if place is None:
            due = places.due()
            assert due is not None
            assert due > now
            now = due
            continue
        attempts.append(now)
        places.failed(place, now)
    waits = [later - earlier for earlier, later in pairwise(attempts)]
    assert waits == pytest.approx(sorted(waits))
    assert waits[0] == pytest.approx(0.15)
    assert waits[-1] == pytest.approx(15.05)
    assert len(attempts) < 60


def test_a_thousand_clients_come_back_spread_over_seconds() -> None:
    chance = random.Random(16).random
    back = []
    for _ in range(1_000):
        places = Places(Backoff(), chance)
        places.update(["a"])
        now = 0.0
        while (place := places.take(now)) is None or now < 30:
            if place is not None:
                places.failed(place, now)
            due = places.due()
            assert due is not None
            now = due
        back.append(now - 30)
    each_second = Counter(map(int, back))
    assert max(each_second.values()) < 150, each_second
    assert max(back) < 30


# --- where to connect ---


def test_a_place_that_does_not_work_is_left_alone_and_tried_once_at_a_time() -> None:
    places = Places(Backoff(), half)
    places.update(["a", "b"])
    first, second = places.take(0), places.take(0)
    assert first is not None
    assert second is not None
    assert {first.endpoint, second.endpoint} == {"a", "b"}
    assert places.failed(first, 0) == pytest.approx(0.15)
    places.connected(second)
    third = places.take(0.1)
    assert third is second, "the other one is not due"
    places.connected(third)
    again = places.take(0.2)
    assert again is first, "it has fewer connections"
    places.given_back(third)
    fourth = places.take(0.2)
    assert fourth is second, "one attempt at a time shows whether it works again"
    places.failed(again, 0.2)
    assert places.due() == 0.0


def test_an_attempt_that_is_awaited_is_not_a_question_of_time() -> None:
    places = Places(Backoff(), half)
    assert places.due() is None
    places.update(["a"])
    place = places.take(0)
    assert place is not None
    places.failed(place, 0)
    assert places.due() == pytest.approx(0.15)
    assert places.take(1) is place
    assert places.take(1) is None
    assert places.due() is None


@pytest.mark.parametrize(
    ("lived", "in_order", "failures"),
    [(0.5, False, 4), (0.5, True, 3), (10, False, 1), (10, True, 0), (1_000, False, 1)],
)
def test_ten_seconds_of_life_are_a_new_start(lived: float, in_order: bool, failures: int) -> None:
    places = Places(Backoff(), half)
    places.update(["a"])
    now = 0.0
    for _ in range(3):
        now += 100
        place = places.take(now)
        assert place is not None
        places.failed(place, now)
    now += 100
    place = places.take(now)
    assert place is not None
    places.connected(place)
    places.ended(place, now + lived, lived, in_order)
    assert place.failures == failures
    assert place.used == 0


def test_servers_that_leave_one_after_the_other_are_no_reason_to_wait_for_long() -> None:
    places = Places(Backoff(), half)
    places.update(["a"])
    now, waits = 0.0, []
    for _ in range(8):
        place = places.take(now)
        assert place is not None
        places.connected(place)
        waits.append(places.ended(place, now + 1, 1, in_order=True))
        now += 10
    # The next one leaves while it is connected to.
    place = places.take(now)
    assert place is not None
    waits.append(places.failed(place, now, in_order=True))
    assert waits == pytest.approx([0.15, 0.25, *[0.45] * 7])


def test_ties_are_broken_by_chance() -> None:
    """Clients that start together go to different places."""
    chance = random.Random(16).random
    chosen: Counter[str] = Counter()
    for _ in range(300):
        places = Places(Backoff(), chance)
        places.update(["a", "b", "c"])
        place = places.take(0)
        assert place is not None
        chosen[place.endpoint] += 1
    assert all(60 < count < 140 for count in chosen.values())


# --- what moves when the addresses change ---


def links_of(places: Places, count: int) -> list[Link]:
    links = []
    for _ in range(count):
        place = places.take(0)
        assert place is not None
        places.connected(place)
        links.append(Link(place))
    return links


def counts(links: list[Link]) -> dict[str, int]:
    return dict(Counter(link.place.endpoint for link in links))


@given(
    st.integers(1, 20),
    st.sets(st.sampled_from("abcdef"), min_size=1),
    st.sets(st.sampled_from("abcdef"), min_size=1),
)
def test_after_a_change_the_connections_are_spread(
    count: int, before: set[str], after: set[str]
) -> None:
    places = Places(Backoff(), half)
    assert places.update(sorted(before))
    links = links_of(places, count)
    assert places.update(sorted(after)) is (before != after)
    moving = places.moves(links, 0)
    for link in moving:
        # The new one first, then the old one.
        place = places.take(0, link.place)
        assert place is not None
        places.connected(place)
        places.moved(link.place, 0, 0)
        link.place = place
    spread = counts(links)
    assert spread.keys() <= after
    assert sum(spread.values()) == count
    assert places.moves(links, 0) == []
    # No more than necessary.
    assert len(moving) <= count
    if before == after:
        assert moving == []


def test_one_connection_shows_whether_a_place_works_again() -> None:
    places = Places(Backoff(), half)
    places.update(["a"])
    links = links_of(places, 8)
    places.update(["a", "b"])
    place = places.take(0)
    assert place is not None
    assert place.endpoint == "b"
    places.failed(place, 0)
    assert places.moves(links, 0) == [], "it is not due"
    assert len(places.moves(links, 1)) == 1
    moving = places.take(1, links[0].place)
    assert moving is place
    assert places.take(1, links[0].place) is None, "one at a time"
    places.connected(place)
    places.moved(links[0].place, 1, 1)
    links[0].place = place
    assert len(places.moves(links, 1)) == 3


def test_what_works_is_kept_until_something_else_does() -> None:
    places = Places(Backoff(), half)
    places.update(["a"])
    links = links_of(places, 2)
    places.update(["b"])
    place = places.take(0)
    assert place is not None
    places.failed(place, 0)
    assert places.moves(links, 0) == []
    assert len(places.moves(links, 1)) == 1
    places.update(["a", "b"])
    assert places.moves(links, 0) == []
    assert places.take(0, links[0].place) is None, "there is no reason any more"


def test_a_move_after_a_long_life_forgets_the_failures() -> None:
    places = Places(Backoff(), half)
    places.update(["a"])
    place = places.take(0)
    assert place is not None
    places.failed(place, 0)
    assert places.take(10) is place
    places.connected(place)
    places.moved(place, 30, 20)
    assert (place.used, place.failures) == (0, 0)


# --- how many are asked again ---


def test_the_budget() -> None:
    budget = Budget(share=0.25, per_second=2, most=3)
    assert [budget.take(0) for _ in range(4)] == [True, True, True, False]
    for _ in range(4):
        budget.asked()
    assert [budget.take(0) for _ in range(2)] == [True, False]
    assert [budget.take(0.5) for _ in range(2)] == [True, False]
    assert [budget.take(1_000) for _ in range(4)] == [True, True, True, False]
    budget = Budget(most=1)
    budget.asked()
    assert [budget.take(0) for _ in range(2)] == [True, False]


# --- which connection is asked ---


@given(st.lists(st.integers(0, 3), min_size=1, max_size=8), st.integers(0, 7))
def test_the_fewest_questions(questions: list[int], first: int) -> None:
    links = [Link(Place("a"), count) for count in questions]
    first %= len(links)
    chosen = fewest(links, first)
    assert chosen.questions == min(questions)
    if links[first].questions == min(questions):
        assert chosen is links[first]
