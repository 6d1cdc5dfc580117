"""Limits: how much of our memory and patience one connection may take.

The numbers fit together. A peer of ours has at most `window` bytes of questions under way, which is
less than the `max_backlog` of commands that we let wait: so its questions alone never make us stop
reading, its answers always come through, and two peers that flood each other drain each other.
"""

from __future__ import annotations

from typing import Any

import attrs

__all__ = ["Limits"]


def _positive(instance: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    if value is not None and not value > 0:
        raise ValueError(f"{attribute.name} must be positive, not {value!r}")


@attrs.frozen(kw_only=True)
class Limits:
    """The limits of one connection; sizes are in bytes, times in seconds.

    Attributes:
        max_box_size: the most that a box may have, each pair counted with `PAIR_OVERHEAD` more. One
            that is received and has more aborts the connection, with `TooLong`. One that we would send
            is taken for a mistake, since the peer will have the same limits: for a question
            `callRemote` raises `TooLong`, an answer fails as one that does not encode.
        window: the most that questions may have that were sent and are not answered yet, each pair
            counted with `PAIR_OVERHEAD` more. At it, later questions wait on our side. (A single larger
            one may go alone.)
        max_concurrent_responders: how many `async def` responders run at once. At it, later commands
            wait.
        max_backlog: the most that commands may have that wait to begin, counted as the window counts
            them. At it, reading pauses until they are half of it. Also the most that may be written
            and not taken by the transport yet; at it, no further command begins.
        stall_timeout: how long reading may be paused without any progress, before the connection is
            aborted.
        idle_timeout: how long no complete box may arrive, before the connection is aborted; None for
            ever.

    Raises `ValueError` for a limit that is not positive, and for a window that is larger than the
    backlog: two peers with such limits could wait on each other for ever.
    """

    max_box_size: int = attrs.field(default=4 * 1024 * 1024, validator=_positive)
    window: int = attrs.field(default=1024 * 1024, validator=_positive)
    max_concurrent_responders: int = attrs.field(default=1000, validator=_positive)
    max_backlog: int = attrs.field(default=4 * 1024 * 1024, validator=_positive)
    stall_timeout: float = attrs.field(default=60.0, validator=_positive)
    idle_timeout: float | None = attrs.field(default=None, validator=_positive)

    def __attrs_post_init__(self) -> None:
        if self.window > self.max_backlog:
            raise ValueError(
                f"a window of {self.window} bytes is larger than the backlog of {self.max_backlog}"
            )
