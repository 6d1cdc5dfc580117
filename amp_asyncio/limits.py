"""Limits: how much memory and patience one connection may take.

The numbers depend on each other. A peer of ours has at most `window` bytes of unanswered questions,
which is less than the `max_backlog` of commands that may wait on our side. So its questions alone never
stop us from reading, its answers always arrive, and two peers that flood each other drain each other.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

__all__ = ["Limits"]


_LEAST_STREAM_WINDOW = 4096


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The limits of one connection; sizes are in bytes, times in seconds.

    Attributes:
        max_box_size: the most that a box may have, with `PAIR_OVERHEAD` more for each pair. A larger
            one that is received aborts the connection, with `TooLong`. A larger one that would be sent
            counts as a mistake, since the peer will have the same limits: for a question `callRemote`
            raises `TooLong`, an answer fails as one that does not encode. What lists become counts as
            well: each element of a `ListOf` and each value of an element of an `AmpList` counts as
            another pair, and each such element as two, unless the list is short. A command that is
            received with more than that is refused, and an answer fails with `TooLong`.
        window: the most that unanswered questions may have, counted in the same way. At the limit,
            later questions wait on our side. (A single larger one may go alone. Cancelled ones do not
            count, and the only question of a responder does not wait.)
        max_concurrent_responders: how many `async def` responders run at once, with those whose answers
            wait to be sent: make it smaller if your answers are large. At the limit, later commands
            wait. One that waits for an answer of its own peer does not count meanwhile, since that
            answer may depend on a command that waits.
        max_backlog: the most that waiting commands may have, with `PAIR_OVERHEAD` for each pair. At the
            limit, reading pauses until half of it is left. Also the most that the commands of running
            `async def` responders may have, counted as the window counts them; that those may have
            whose responders wait for answers of the peer; and that may be written without the transport
            having taken it. At each of these limits, no further command begins. At the last one, the
            answers of `async def` responders wait, too.
        stall_timeout: how long commands or answers may be held up by `max_backlog` without any progress
            before the connection is aborted.
        idle_timeout: how long no complete box may arrive while no work is being done in either
            direction, before the connection is aborted; None for no limit.
        eof_timeout: how long a peer that closed its sending side is served: the connection is aborted
            when the last answer was written that long ago; None for no limit.
        handshake_timeout: how long a TLS handshake that `StartTLS` began may take, with what has to be
            written before; after that, the connection is lost. `serve` takes it for `ssl=`, too.
        descriptor_timeout: how long a descriptor that came may wait for the box that names it, before
            it is closed; None for no limit.
        default_timeout: how long a call without a timeout may take; None for no limit.
        max_metadata: the most bytes that the metadata of a question may have, names and values. A call
            with more raises `ValueError`, and a command that is received with more is refused.
        ping_interval: after how long without a byte of the peer it is asked whether it is there; None
            to never ask. Only peers that know the question are asked, and none over pipes.
        ping_timeout: how long after that nothing may come before the connection is aborted; None to
            never ask.
        ping_anyone: whether all peers are asked, also those that are not of this package. (Any answer
            will do, but some never answer a command that they do not know.)
        max_connection_age: after how long the connection is closed in order, give or take a tenth, so
            that clients spread over new servers; None for no limit.
        stream_window: the most that the items of one stream may have, in one direction, that its
            consumer has not taken; at least 4096. Each piece of an item counts as its box does. At the
            limit, the producer waits. (A single item may be larger, up to `max_box_size`.)
        max_streams: how many streams may be open at once that this side asked for, and how many that
            the peer asked for.

    Raises `TypeError` for a limit that is not a number, and `ValueError` for one that is not positive,
    for a `stream_window` that is too small, or for a window that is larger than the backlog: two peers
    with such limits could wait for each other forever.
    """

    max_box_size: int = 4 * 1024 * 1024
    window: int = 1024 * 1024
    max_concurrent_responders: int = 1000
    max_backlog: int = 4 * 1024 * 1024
    stall_timeout: float = 60.0
    idle_timeout: float | None = None
    eof_timeout: float | None = 30.0
    handshake_timeout: float = 10.0
    descriptor_timeout: float | None = 10.0
    default_timeout: float | None = None
    max_metadata: int = 8192
    ping_interval: float | None = 30.0
    ping_timeout: float | None = 60.0
    ping_anyone: bool = False
    max_connection_age: float | None = None
    stream_window: int = 256 * 1024
    max_streams: int = 64

    def __post_init__(self) -> None:
        for field in fields(self):
            name, value = field.name, getattr(self, field.name)
            if value is None and field.type == "float | None":
                continue
            if field.type == "bool":
                if not isinstance(value, bool):
                    raise TypeError(f"{name} must be True or False, not {value!r}")
                continue
            whole = field.type == "int"
            if not isinstance(value, int if whole else (int, float)):
                kind = "an integer" if whole else "a number"
                raise TypeError(f"{name} must be {kind}, not {value!r}")
            if not value > 0:
                raise ValueError(f"{name} must be positive, not {value!r}")
        if self.stream_window < _LEAST_STREAM_WINDOW:
            raise ValueError(
                f"stream_window must be at least {_LEAST_STREAM_WINDOW}, not {self.stream_window!r}: "
                "a third of it has to hold a piece of an item"
            )
        if self.window > self.max_backlog:
            raise ValueError(
                f"a window of {self.window} bytes is larger than the backlog of {self.max_backlog}"
            )
