"""Services: what the conversations of one server have in common."""

from __future__ import annotations

from typing import Final

from ..logs import Lines

__all__ = ["NO_SERVICE", "Service"]


class Service:
    """What the conversations of one server have in common.

    Attributes:
        health: whether each service is served, by its name.
        lines: the log lines that all its clients can cause; None where each peer counts alone.
    """

    __slots__ = ("health", "lines")

    def __init__(self, lines: Lines | None) -> None:
        self.health: dict[str, bool] = {}
        self.lines = lines


#: What a conversation has that belongs to no server.
NO_SERVICE: Final = Service(None)
