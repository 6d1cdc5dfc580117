"""Children: a pool of child processes, as the endpoints of a client.

Each child is a place of its own, so that one that does not start does not keep the others from it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from os import PathLike
from typing import Any, ClassVar

from ..amp import AMP
from ..processes import Child, spawn
from ..serving.closing import leave_in_time
from .addresses import Endpoint, Opened
from .policy import Backoff

__all__ = ["Children", "children"]

# A process that ends early is a fault of a call rather than of the machine that it runs on.
_BACKOFF = Backoff(first=0.01, most=1.0, steady=1.0)


class Children:
    """Child processes for a `Client`, which starts and ends them; `children` makes it.

    Attributes:
        fixed: whether their number never changes.
        connections: how many run.
        backoff: how long one is not started again when it has ended early.
    """

    fixed = True
    backoff = _BACKOFF

    def __init__(
        self,
        command: tuple[Any, ...],
        count: int,
        max_calls: int | None,
        grace: float,
        options: dict[str, Any],
    ) -> None:
        self._program = command[0]
        self.connections = count
        self._places = [
            _Place(command, number, max_calls, grace, options) for number in range(1, count + 1)
        ]

    async def endpoints(self) -> Sequence[Endpoint]:
        return self._places

    def __repr__(self) -> str:
        return f"children({self._program!r}, count={self.connections})"


class _Place:
    """One child of a pool, and the one that takes its place."""

    listens: ClassVar[bool] = False

    def __init__(
        self,
        command: tuple[Any, ...],
        number: int,
        max_calls: int | None,
        grace: float,
        options: dict[str, Any],
    ) -> None:
        self._command = command
        self._number = number
        self._max_calls = max_calls
        self._grace = grace
        self._options = options

    async def open(self, make: Callable[[], AMP]) -> Opened:
        child = await spawn(*self._command, protocol_factory=make, **self._options)
        return _OpenChild(child, self._max_calls, self._grace)

    def __str__(self) -> str:
        return f"child {self._number} of {self._command[0]!r}"


class _OpenChild:
    """A child that runs."""

    def __init__(self, child: Child[Any], max_calls: int | None, grace: float) -> None:
        self._child = child
        self.amp = child.amp
        self.max_calls = max_calls
        self._grace = grace

    def abandoned(self, answer: asyncio.Future[Any]) -> None:
        """Kill the child if it does not end in time a call that the caller has abandoned."""
        asyncio.get_running_loop().call_later(self._grace, self._check, answer)

    def _check(self, answer: asyncio.Future[Any]) -> None:
        if self.amp.__amp__.calls.table.awaits(answer):
            self._child.kill()

    async def close(self, timeout: float | None) -> None:
        await self._child.close(timeout)

    async def leave(self) -> None:
        await leave_in_time(self.amp)
        await self._child.close(0)


def children(
    program: str | bytes | PathLike[str],
    *args: str | bytes | PathLike[str],
    count: int = 4,
    max_calls: int | None = None,
    grace: float = 3.0,
    **options: Any,
) -> Children:
    """Return a pool of `count` child processes for a `Client`: `Client(children(program, ...))`.

    The client starts `program` with `args` as `spawn` does, and `options` are those of `spawn`. It asks
    the child that has the fewest open questions. A child that ends is replaced, and so is one that was
    asked `max_calls` questions, as soon as it has answered them.

    When a call is cancelled, or its timeout passes, the child is told. If it has not ended the call
    within `grace` seconds, it is killed; its other questions fail with `ConnectionLost`.
    """
    for name, value, least in (("count", count, 1), ("max_calls", max_calls, 1), ("grace", grace, 0)):
        if value is not None and value < least:
            raise ValueError(f"children({name}=...) must be at least {least}, not {value!r}")
    return Children((program, *args), count, max_calls, grace, options)
