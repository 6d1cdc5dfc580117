"""Interceptors that services usually want: a log line for each call, and metrics of all calls.

How interceptors are called is in `session/interceptors.py`.
"""

from __future__ import annotations

import asyncio
import logging
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from time import perf_counter
from typing import Any, Final

from .session.current import Call
from .session.interceptors import Proceed

__all__ = ["CallLog", "CallMetrics", "Histogram"]

# In seconds. AMP's calls often take less than a millisecond.
_BOUNDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

# How many kinds of calls are told apart. A peer can write the name of a method `amp_NAME` in many ways.
_MOST_KINDS: Final = 1000


def _name(call: Call) -> str:
    return call.command.decode("ascii", "backslashreplace")


def _outcome(error: BaseException) -> str:
    """Return how a call ended that raised `error`, in a word."""
    return "cancelled" if isinstance(error, asyncio.CancelledError) else type(error).__name__


class CallLog:
    """An interceptor that logs a line for each call when it ends: which, how, and after how long.

    The lines contain the name of the command, and the class of its error, but no values and no text of
    the peer. They go to `logger` at `level`.
    """

    def __init__(self, logger: logging.Logger | None = None, level: int = logging.INFO) -> None:
        self._logger = logging.getLogger("amp_asyncio.calls") if logger is None else logger
        self._level = level

    async def __call__(self, call: Call, proceed: Proceed) -> Any:
        """Surround a call."""
        address = call.peer.address  # Known now: the connection may be lost in the end.
        began = perf_counter()
        outcome = "ok"
        try:
            return await proceed()
        except BaseException as error:
            outcome = _outcome(error)
            raise
        finally:
            self._logger.log(
                self._level,
                "asked %s of %r: %s after %.1f ms"
                if call.direction == "asking"
                else "answered %s for %r: %s after %.1f ms",
                _name(call),
                address,
                outcome,
                (perf_counter() - began) * 1000,
            )


class Histogram:
    """How many durations were not longer than each of `bounds`, in seconds.

    Attributes:
        bounds: the upper bounds, in order.
        counts: how many durations are above the bound before and not above this one; the last number is
            that of the durations above all bounds.
        sum: all durations together.
    """

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, seconds: float) -> None:
        """Add a duration."""
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.sum += seconds


class CallMetrics:
    """An interceptor that counts calls, and measures how long they take.

    One object serves any number of connections, all of one event loop. Calls are told apart by their
    direction, by the name of their command, and by their outcome: "ok", "cancelled", or the class of
    the error. After a thousand directions and commands, the others have the name "other".

    Attributes:
        calls: how many calls have ended, by direction, command and outcome.
        running: how many have not ended, by direction and command.
        durations: how long the ended ones took, by direction and command.
    """

    def __init__(self, bounds: Sequence[float] = _BOUNDS) -> None:
        self._bounds = tuple(sorted(map(float, bounds)))
        self.calls: Counter[tuple[str, str, str]] = Counter()
        self.running: Counter[tuple[str, str]] = Counter()
        self.durations: dict[tuple[str, str], Histogram] = {}

    async def __call__(self, call: Call, proceed: Proceed) -> Any:
        """Surround a call."""
        kind = (call.direction, _name(call))
        durations = self.durations.get(kind)
        if durations is None:
            if len(self.durations) >= _MOST_KINDS:
                kind = (call.direction, "other")
            durations = self.durations.setdefault(kind, Histogram(self._bounds))
        self.running[kind] += 1
        began = perf_counter()
        outcome = "ok"
        try:
            return await proceed()
        except BaseException as error:
            outcome = _outcome(error)
            raise
        finally:
            durations.observe(perf_counter() - began)
            self.running[kind] -= 1
            self.calls[*kind, outcome] += 1

    def render(self) -> str:
        """Return all numbers in the text format of Prometheus, version 0.0.4."""
        lines = [
            "# HELP amp_calls_total Calls that have ended.",
            "# TYPE amp_calls_total counter",
        ]
        for (direction, command, outcome), count in sorted(self.calls.items()):
            labels = _labels(direction=direction, command=command, outcome=outcome)
            lines.append(f"amp_calls_total{labels} {count}")
        lines += [
            "# HELP amp_calls_running Calls that have not ended.",
            "# TYPE amp_calls_running gauge",
        ]
        for (direction, command), count in sorted(self.running.items()):
            lines.append(f"amp_calls_running{_labels(direction=direction, command=command)} {count}")
        lines += [
            "# HELP amp_call_seconds How long the calls took that have ended.",
            "# TYPE amp_call_seconds histogram",
        ]
        for (direction, command), durations in sorted(self.durations.items()):
            given = {"direction": direction, "command": command}
            count = 0
            for bound, added in zip((*durations.bounds, "+Inf"), durations.counts, strict=True):
                count += added
                lines.append(f"amp_call_seconds_bucket{_labels(**given, le=str(bound))} {count}")
            lines.append(f"amp_call_seconds_sum{_labels(**given)} {durations.sum!r}")
            lines.append(f"amp_call_seconds_count{_labels(**given)} {count}")
        return "\n".join([*lines, ""])


def _labels(**values: str) -> str:
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in values.items()) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
