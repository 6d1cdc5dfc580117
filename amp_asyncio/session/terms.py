"""Terms: what a question is asked with, beside its arguments: its deadline, and its metadata.

What a responder asks is to be answered within the time that is left to the responder itself, and is
cancelled with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from math import inf
from time import monotonic
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

from ..errors import BadArguments
from ..wire.boxes import ASK, COMMAND, MAX_KEY_LENGTH, MAX_VALUE_LENGTH, AmpBox
from ..wire.costs import PAIR_OVERHEAD, box_cost
from ..wire.extensions import METADATA, OFFER, TIMEOUT, take_keys
from .current import NO_METADATA, Call
from .deadlines import deadline_of, digits, milliseconds
from .negotiation import offer_received

if TYPE_CHECKING:
    from ..limits import Limits
    from .session import Session

__all__ = [
    "BEYOND",
    "NO_PAIRS",
    "TIMEOUT_COST",
    "Terms",
    "call_received",
    "deadline_for",
    "pairs_of",
    "suffix",
]

_PREFIX: Final = len(METADATA)

#: No metadata.
NO_PAIRS: Final[Mapping[bytes, bytes]] = MappingProxyType({})

#: What a pair counts beyond its bytes: the lengths in it are not counted.
BEYOND: Final = PAIR_OVERHEAD - 4

#: What the time that is left counts at most, as a pair of a box.
TIMEOUT_COST: Final = PAIR_OVERHEAD + len(TIMEOUT) + 15


class Terms(NamedTuple):
    """What the caller has said about one question.

    Attributes:
        deadline: when its caller stops waiting; infinity for never, None if the caller says nothing.
        metadata: its metadata, as pairs of its box.
    """

    deadline: float | None
    metadata: Mapping[bytes, bytes] = NO_PAIRS

    def named(self) -> dict[str, str]:
        """Return the metadata by its names."""
        return {key[_PREFIX:].decode(): value.decode() for key, value in self.metadata.items()}


def pairs_of(metadata: Mapping[str, str] | None, limits: Limits) -> Mapping[bytes, bytes]:
    """Return the pairs of metadata; `TypeError` or `ValueError` for metadata that cannot be sent."""
    if not metadata:
        return NO_PAIRS
    most = limits.max_metadata
    pairs: dict[bytes, bytes] = {}
    size = 0
    for name, value in metadata.items():
        if not (isinstance(name, str) and isinstance(value, str)):
            raise TypeError(f"metadata has str for names and values, not {name!r}: {value!r}")
        key, data = METADATA + name.encode(), value.encode()
        if not _PREFIX < len(key) <= MAX_KEY_LENGTH:
            raise ValueError(f"a name of metadata has 1 to {MAX_KEY_LENGTH - _PREFIX} bytes: {name!r}")
        if len(data) > MAX_VALUE_LENGTH:
            raise ValueError(f"metadata {name!r} has {len(data)} bytes: a value has {MAX_VALUE_LENGTH}")
        size += len(key) - _PREFIX + len(data)
        pairs[key] = data
    if size > most:
        raise ValueError(f"metadata of {size} bytes: Limits.max_metadata is {most}")
    return pairs


def deadline_for(given: float | None, asking: Call | None, default: float | None) -> float | None:
    """Return the deadline of a question; None for no timeout.

    `given` is that of its caller, `default` the timeout of those that give none, and `asking` the call
    whose responder asks it, if one does.
    """
    if given is not None:
        deadline = given if given != inf else None
    else:
        deadline = None if default is None else monotonic() + default
    if asking is not None:
        own = asking.deadline
        if own is not None and (deadline is None or own < deadline):
            return own
    return deadline


def suffix(left: float | None, metadata: Mapping[bytes, bytes]) -> tuple[bytes, int]:
    """Return the pairs of a question about its terms as bytes, and what they count beyond these."""
    if not metadata:
        return (b"", 0) if left is None else (_timeout(milliseconds(left)), BEYOND)
    pairs = [] if left is None else [(TIMEOUT, digits(milliseconds(left)))]
    pairs += metadata.items()
    data = [b"\0%c%b%b%b" % (len(key), key, len(value).to_bytes(2), value) for key, value in pairs]
    return b"".join(data), len(data) * BEYOND


@lru_cache(maxsize=64)  # Most calls have one of a few timeouts.
def _timeout(left: int) -> bytes:
    value = digits(left)
    return b"\0\x08_timeout\0%c%b" % (len(value), value)


def call_received(session: Session, box: AmpBox, pairs: int) -> tuple[Call | None, int]:
    """Take the terms out of a command that came; return its call, and what it counts with them.

    A command without terms gives None and 0. `pairs` is how many pairs it has without terms; 0 if that
    is not known. Raises `BadArguments` for more metadata than the limits allow.
    """
    if len(box) == pairs + 1 and (value := box.pop(TIMEOUT, None)) is not None:
        deadline = deadline_of(value) if ASK in box else None
        if deadline is None:
            return None, 0
        return Call("answering", box[COMMAND], session.owner, None, NO_METADATA, deadline), 0
    if (offer := box.pop(OFFER, None)) is not None:
        offer_received(session, offer, box.get(ASK))
    keys = take_keys(box)
    if not keys:
        return None, 0
    cost = box_cost(box) + box_cost(keys)
    deadline = deadline_of(keys.pop(TIMEOUT, b"")) if ASK in box else None
    named = [(key[_PREFIX:], value) for key, value in keys.items() if key.startswith(METADATA)]
    if deadline is None and not named:
        return None, 0
    most = session.limits.max_metadata
    size = sum(len(name) + len(value) for name, value in named)
    if size > most:
        raise BadArguments(f"metadata of {size} bytes: Limits.max_metadata is {most}")
    metadata = {name.decode(errors="replace"): value.decode(errors="replace") for name, value in named}
    owner = session.owner
    return Call("answering", box[COMMAND], owner, None, metadata or NO_METADATA, deadline), cost
