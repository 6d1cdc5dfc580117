"""Costs: what a box counts against the limits, and the limits where nobody has set any.

Apart from `limits.py`, because that needs attrs, and to import attrs takes as long as to import all of
this package: it has time until there is a connection.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..limits import Limits

__all__ = ["PAIR_OVERHEAD", "DefaultLimits", "box_cost"]

#: What a pair of a box counts in addition to its bytes, as HTTP/2 counts 32 bytes for each header
#: (RFC 9113, 6.5.2). In CPython it is two objects and their place in a dictionary.
PAIR_OVERHEAD = 128


def box_cost(box: Mapping[bytes, bytes]) -> int:
    """Return what a question or a command counts, on the side that asks and on the one that answers.

    It has to be the same on both, or a window of small questions would be more than a backlog.
    """
    return sum(map(len, box)) + sum(map(len, box.values())) + PAIR_OVERHEAD * len(box)


class DefaultLimits:
    """Stands for `Limits()` in a class until it is looked at."""

    def __get__(self, instance: object, owner: type) -> Limits:
        return _default_limits()


@cache
def _default_limits() -> Limits:
    from ..limits import Limits

    return Limits()
