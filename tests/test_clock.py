"""Timers: when they ring, in which order, and what is left when none waits any more."""

from __future__ import annotations

import asyncio
import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import Context, ContextVar
from typing import Any

import pytest
from support import at_any_pace

from amp_asyncio.clock import Alarm, call_later


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@contextmanager
def nothing_left() -> Iterator[None]:
    before = descriptors()
    yield
    assert descriptors() == before


@at_any_pace
async def test_alarms_ring_in_the_order_of_their_times(pace: float) -> None:
    loop = asyncio.get_running_loop()
    rung: list[str] = []
    done = asyncio.Event()
    with nothing_left():
        call_later(loop, 0.03 * pace, done.set)
        call_later(loop, 0.02 * pace, rung.append, "later")
        call_later(loop, 0.001 * pace, rung.append, "first")
        call_later(loop, 0.001 * pace, rung.append, "second")
        call_later(loop, 0, rung.append, "at once")
        await done.wait()
        assert rung == ["at once", "first", "second", "later"]
        await asyncio.sleep(0)  # The last one gives the kernel's timer back when it has been called.


async def test_a_cancelled_alarm_does_not_ring() -> None:
    loop = asyncio.get_running_loop()
    rung: list[int] = []
    done = asyncio.Event()
    with nothing_left():
        first = call_later(loop, 0.001, rung.append, 1)
        call_later(loop, 0.002, done.set)
        first.cancel()
        first.cancel()
        await done.wait()
        await asyncio.sleep(0)
        assert rung == []


async def test_one_that_is_due_may_be_cancelled_by_another() -> None:
    loop = asyncio.get_running_loop()
    rung: list[int] = []
    done = asyncio.Event()
    alarms = []
    call_later(loop, 0.001, lambda: [alarm.cancel() for alarm in alarms])
    alarms.append(call_later(loop, 0.001, rung.append, 1))
    call_later(loop, 0.002, done.set)
    # Both are due when the loop looks.
    os.sched_yield()
    await done.wait()
    assert rung == []


async def test_an_alarm_may_cancel_itself_and_set_another() -> None:
    loop = asyncio.get_running_loop()
    times = 0
    done = asyncio.Event()

    def ring() -> None:
        nonlocal times, alarm
        times += 1
        alarm.cancel()
        if times < 5:
            alarm = call_later(loop, 0, ring)
        else:
            done.set()

    with nothing_left():
        alarm = call_later(loop, 0, ring)
        await done.wait()
        await asyncio.sleep(0)
    assert times == 5


async def test_thousands_that_are_cancelled_are_not_kept() -> None:
    loop = asyncio.get_running_loop()
    rung: list[int] = []
    done = asyncio.Event()

    class Owner:
        alive = 0

        def __init__(self) -> None:
            Owner.alive += 1

        def __del__(self) -> None:
            Owner.alive -= 1

        def late(self) -> None:
            raise AssertionError

    kept = call_later(loop, 3600, rung.append, 1)
    for _ in range(2000):
        call_later(loop, 3600, Owner().late).cancel()
    assert Owner.alive == 0
    call_later(loop, 0, done.set)
    await done.wait()
    kept.cancel()


async def test_an_error_is_told_to_the_loop_and_the_others_ring() -> None:
    loop = asyncio.get_running_loop()
    told: list[BaseException] = []
    loop.set_exception_handler(lambda _, context: told.append(context["exception"]))
    done = asyncio.Event()
    error = RuntimeError("late")

    def fail() -> None:
        raise error

    with nothing_left():
        call_later(loop, 0, fail)
        call_later(loop, 0.001, done.set)
        await done.wait()
        await asyncio.sleep(0)
    assert told == [error]


async def test_an_alarm_rings_in_the_context_in_which_it_was_set_or_in_another() -> None:
    loop = asyncio.get_running_loop()
    variable = ContextVar("variable", default="nothing")
    found: list[str] = []
    done = asyncio.Event()

    def look() -> None:
        found.append(variable.get())
        variable.set("by an alarm")

    with nothing_left():
        variable.set("first")
        call_later(loop, 0, look)
        variable.set("second")
        call_later(loop, 0, look)
        call_later(loop, 0, look, context=Context())
        call_later(loop, 0.001, done.set)
        await done.wait()
        await asyncio.sleep(0)
    assert found == ["first", "second", "nothing"]
    assert variable.get() == "second"


def test_a_loop_that_was_closed_with_alarms_gives_its_descriptor_back() -> None:
    async def leave() -> Alarm:
        return call_later(asyncio.get_running_loop(), 3600, print)

    async def other() -> None:
        call_later(asyncio.get_running_loop(), 3600, print).cancel()

    with nothing_left():
        left = asyncio.run(leave())
        asyncio.run(other())
        left.cancel()


def test_a_loop_that_does_not_run_at_the_moment_keeps_its_alarms() -> None:
    async def leave(done: asyncio.Event) -> None:
        call_later(asyncio.get_running_loop(), 0, done.set)

    async def other() -> None:
        call_later(asyncio.get_running_loop(), 3600, print).cancel()

    with nothing_left(), asyncio.Runner() as first:
        done = asyncio.Event()
        first.run(leave(done))
        asyncio.run(other())
        first.run(done.wait())
        first.run(asyncio.sleep(0))


class Set(asyncio.SelectorEventLoop):
    """A loop whose time is set."""

    now = 0.0

    def time(self) -> float:
        return self.now


def test_a_loop_with_a_time_of_its_own_keeps_the_alarms() -> None:
    async def ring() -> None:
        done = asyncio.Event()
        call_later(loop, 3600, done.set)
        loop.now = 3600.0
        await done.wait()

    with asyncio.Runner(loop_factory=Set) as runner:
        loop: Any = runner.get_loop()
        runner.run(ring())


class NoTimers:
    """A C library that has none."""

    def __init__(self, name: None) -> None:
        pass


class NoDescriptors(NoTimers):
    """One that gives none, because the process has no descriptors left."""

    def timerfd_create(self, clock: int, flags: int) -> int:
        return -1

    def timerfd_settime(self, *arguments: object) -> int:
        raise AssertionError("there is no timer")


@pytest.mark.parametrize("library", [NoTimers, NoDescriptors])
def test_without_a_timer_of_the_kernel_the_loop_keeps_the_alarms(
    library: type[NoTimers], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ctypes, "CDLL", library)

    async def ring() -> None:
        done = asyncio.Event()
        call_later(asyncio.get_running_loop(), 0, done.set)
        await done.wait()

    asyncio.run(ring())
