"""Checks of what asyncio's documentation, and asyncio's own TCP transport, promise of a transport.

`check_transport` runs all of them on a transport of yours; `TRANSPORT_CHECKS` has each alone. asyncio's
TCP transport passes all of them. uvloop's passes all but `may_pause_as_it_begins`: it starts to read
after `connection_made`, even if that has called `pause_reading`.

Three things are not asked for, because the two loops differ. On uvloop, writing to a transport that is
closed raises `RuntimeError`. uvloop, and asyncio from Python 3.12 on, do not copy a `bytearray` that is
written. And `abort()` of asyncio's transport may raise `AttributeError` once `connection_lost` was
called.
"""

from __future__ import annotations

from collections.abc import Collection

from . import ending, flowing
from .bench import Bench, Body, Connect

__all__ = ["TRANSPORT_CHECKS", "Check", "Connect", "check_transport"]


class Check:
    """One check of a transport; `name` says what it checks.

    `await check(connect)` raises `AssertionError` where the transport fails it. `connect` is an
    `async def` that takes two protocols and connects them by the transport; its transports call
    `connection_made` of both. What has to happen must happen within `timeout` seconds. Cancelling the
    check aborts the connection.
    """

    def __init__(self, body: Body) -> None:
        self.name = body.__name__
        self._body = body

    async def __call__(self, connect: Connect, *, timeout: float = 10.0) -> None:
        await self._body(Bench(connect, timeout))

    def __repr__(self) -> str:
        return f"<Check {self.name}>"


async def check_transport(
    connect: Connect, *, timeout: float = 10.0, skip: Collection[str] = ()
) -> None:
    """Run every check of `TRANSPORT_CHECKS`, each on a new connection.

    `skip` has the names of checks that are left out; the other arguments are those of `Check`. Raises
    `AssertionError`, which lists every check that failed and why, and `ValueError` for a name in `skip`
    that no check has. The checks are `assert` statements: `python -O` removes them.
    """
    if unknown := set(skip) - {check.name for check in TRANSPORT_CHECKS}:
        raise ValueError(f"unknown checks: {sorted(unknown)}")
    failures = []
    for check in TRANSPORT_CHECKS:
        if check.name in skip:
            continue
        try:
            await check(connect, timeout=timeout)
        except AssertionError as error:
            failures.append(f"{check.name}: {error}")
        except Exception as error:
            failures.append(f"{check.name}: {error!r}")
    assert not failures, "\n".join(["the transport fails these checks:", *failures])


#: Every check.
TRANSPORT_CHECKS: tuple[Check, ...] = tuple(Check(body) for body in flowing.BODIES + ending.BODIES)
