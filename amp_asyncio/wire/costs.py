"""Costs: what a box counts against the limits."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["PAIR_OVERHEAD", "box_cost"]

#: What a pair of a box counts in addition to its bytes, as HTTP/2 counts 32 bytes for each header
#: (RFC 9113, 6.5.2). In CPython it is two objects and their place in a dictionary. An element of a list
#: counts the same, because it may be empty, and so does each value of such an element.
PAIR_OVERHEAD = 128


def box_cost(box: Mapping[bytes, bytes]) -> int:
    """Return what a question or a command counts, on the side that asks and on the one that answers.

    Both sides must count the same, or a window of small questions would exceed a backlog.
    """
    return sum(map(len, box)) + sum(map(len, box.values())) + PAIR_OVERHEAD * len(box)
