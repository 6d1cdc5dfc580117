"""The decisions of a client, without asyncio: they are told what time it is, and draw no lots.

- `Backoff`: how long to wait before the next attempt.
- `Places`: the addresses that are known, and which one is connected to next.
- `Budget`: how many questions may be asked a second time.
- `fewest`: which connection is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol, TypeVar

__all__ = ["Backoff", "Budget", "Place", "Places", "fewest"]

# 2.0 to this power is more than any limit, and no overflow.
_MOST_DOUBLINGS = 60

# Connections that were closed in order, but early, count as so many failures at most.
_LEAVES = 3


@dataclass(frozen=True, kw_only=True)
class Backoff:
    """How long a client waits before it tries an address again, in seconds, with full jitter.

    Attributes:
        first: the shortest wait. After the first failure it is up to twice that long, and after each
            further one up to twice as long as before.
        most: the longest wait.
        slow: an attempt that takes longer does not hold up the others: one is made elsewhere, too.
        steady: a connection that lived for so long makes its loss the first failure again.
    """

    first: float = 0.1
    most: float = 30.0
    slow: float = 1.0
    steady: float = 10.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, int | float):
                raise TypeError(f"{field.name} must be a number, not {value!r}")
            if not value > 0:
                raise ValueError(f"{field.name} must be positive, not {value!r}")
        if self.first > self.most:
            raise ValueError(f"a first wait of {self.first} s is longer than the longest: {self.most}")

    def delay(self, failures: int, chance: float) -> float:
        """Return how long to wait after so many failures in a row; `chance` is from 0 to 1.

        After none, when a connection was closed in order, it is between 0 and `first`: a server that
        goes tells all its clients at once.
        """
        if not failures:
            return chance * self.first
        longest = min(self.most, self.first * 2.0 ** min(failures, _MOST_DOUBLINGS))
        return self.first + chance * (longest - self.first)


class Place:
    """An address that a client knows, and how it fares there.

    Attributes:
        endpoint: what connects to it.
        used: how many connections are open or being made.
        trying: how many are being made.
        failures: how many attempts have failed in a row; a connection that did not last is one.
        due: when the next attempt may be made.
        gone: whether the resolver has stopped giving the address.
        ours: whether the peer is believed to use this package, since one there did. The next one then
            has to answer a ping before it is asked anything else: see `introduce`.
        unanswered_since: since when such pings had no answer; None if the last one had.
    """

    def __init__(self, endpoint: Any) -> None:
        self.endpoint: Any = endpoint
        self.used = self.trying = self.failures = 0
        self.due = 0.0
        self.gone = self.ours = False
        self.unanswered_since: float | None = None

    @property
    def works(self) -> bool:
        """Whether it is believed to work: it has connections, or no attempt has failed yet."""
        return not self.failures or self.used > self.trying

    def may_try(self, now: float) -> bool:
        """Return whether to connect now. One attempt at a time shows whether it works again."""
        return self.due <= now and not (self.failures and self.trying)


class _Placed(Protocol):
    @property
    def place(self) -> Place: ...


_P = TypeVar("_P", bound=_Placed)


class Places:
    """The addresses that a client knows; `chance` gives random numbers from 0 to 1."""

    def __init__(self, backoff: Backoff, chance: Callable[[], float]) -> None:
        self._backoff = backoff
        self._chance = chance
        self._known: dict[Any, Place] = {}
        self._gone: dict[Any, Place] = {}

    def __len__(self) -> int:
        return len(self._known)

    def update(self, endpoints: Iterable[Any]) -> bool:
        """Take the present addresses; return whether they have changed."""
        before, self._known = self._known, {}
        all_before = self._gone | before
        for endpoint in endpoints:
            place = all_before.get(endpoint) or self._known.get(endpoint) or Place(endpoint)
            place.gone = False
            self._known[endpoint] = place
        # One that is in use may come back: a resolver may be wrong for a moment.
        self._gone = {
            endpoint: place
            for endpoint, place in all_before.items()
            if endpoint not in self._known and place.used
        }
        for place in self._gone.values():
            place.gone = True
        return before.keys() != self._known.keys()

    def take(self, now: float, instead_of: Place | None = None, other: bool = False) -> Place | None:
        """Return where to connect now: the place with the fewest connections, or None.

        If a connection to `instead_of` is to be replaced, there must be a reason for it still. With
        `other`, it is a place to which nothing is being made.
        """
        able = [place for place in self._known.values() if place.may_try(now)]
        if other:
            able = [place for place in able if not place.trying]
        if instead_of is not None and not instead_of.gone:
            able = [place for place in able if place.used + 2 <= instead_of.used]
        if not able:
            return None
        # The chance comes last: clients that start together go to different places.
        place = min(able, key=lambda place: (place.used, place.failures > 0, self._chance()))
        place.used += 1
        place.trying += 1
        return place

    def due(self) -> float | None:
        """Return when the next attempt may be made; None while others are awaited that are made."""
        waiting = (each for each in self._known.values() if not (each.failures and each.trying))
        return min((place.due for place in waiting), default=None)

    def connected(self, place: Place) -> None:
        """An attempt has succeeded."""
        place.trying -= 1

    def failed(self, place: Place, now: float, in_order: bool = False) -> float:
        """An attempt has failed, or the server left meanwhile; return how long it is left alone."""
        place.trying -= 1
        return self.ended(place, now, 0.0, in_order)

    def given_back(self, place: Place) -> None:
        """An attempt was given up, which says nothing about the place."""
        place.trying -= 1
        place.used -= 1

    def ended(self, place: Place, now: float, lived: float, in_order: bool) -> float:
        """A connection has ended after so many seconds; return how long the place is left alone."""
        place.used -= 1
        steady = lived >= self._backoff.steady
        failures = 0 if steady else place.failures
        if not in_order:
            failures += 1
        elif not steady:
            # A load balancer may lead to the server that is about to end for a while, and to the next
            # one that is restarted after that: do not wait long because of that.
            failures = max(failures, min(failures + 1, _LEAVES))
        return self._postpone(place, now, failures)

    def moved(self, place: Place, now: float, lived: float) -> None:
        """A connection was closed because another one has taken its part."""
        place.used -= 1
        if lived >= self._backoff.steady:
            place.failures = 0

    def _postpone(self, place: Place, now: float, failures: int) -> float:
        place.failures = failures
        delay = self._backoff.delay(failures, self._chance())
        place.due = max(place.due, now + delay)
        return delay

    def moves(self, links: Iterable[_P], now: float) -> list[_P]:
        """Return which of `links` should be replaced by connections to other places.

        They are those to places that are gone, and enough of the others that no place has two more
        than another. To a place that has failed only one is moved, which shows whether it works again.
        """
        able = {place: place.used for place in self._known.values() if place.works or place.due <= now}
        moving: list[_P] = []
        by_place: dict[Place, list[_P]] = {}
        for link in links:
            by_place.setdefault(link.place, []).append(link)
        gone = [link for place in by_place if place.gone for link in by_place[place]]
        while able:
            least = min(able, key=able.__getitem__)
            if gone:
                moving.append(gone.pop())
            else:
                most = max(able, key=lambda place: able[place] if by_place.get(place) else 0)
                if able[most] < able[least] + 2 or not by_place.get(most):
                    break
                able[most] -= 1
                moving.append(by_place[most].pop())
            able[least] += 1
            if not least.works:
                del able[least]
        return moving


class Budget:
    """How many questions may be asked again: a share of those that were asked, and a few each second.

    So repeated questions do not make an outage worse, and a client that asks little may still repeat.
    `most` is what can be saved up, and what a client begins with.
    """

    def __init__(self, share: float = 0.2, per_second: float = 10.0, most: float = 1_000.0) -> None:
        self._share = share
        self._per_second = per_second
        self._most = self._left = most
        self._then: float | None = None

    def asked(self) -> None:
        """A question was asked for the first time."""
        if self._left < self._most:
            self._left += self._share

    def take(self, now: float) -> bool:
        """Return whether a question may be asked again now; it is counted then."""
        if self._then is not None:
            self._left = min(self._most, self._left + (now - self._then) * self._per_second)
        self._then = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class _Asked(Protocol):
    @property
    def questions(self) -> int: ...


_L = TypeVar("_L", bound=_Asked)


def fewest(links: Sequence[_L], first: int) -> _L:
    """Return the one with the fewest open questions; looks at the one at `first` before the others."""
    best = links[first]
    count = best.questions
    if count:
        for link in links:
            if link.questions < count:
                best, count = link, link.questions
                if not count:
                    break
    return best
