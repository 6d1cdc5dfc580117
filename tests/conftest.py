"""What all tests share: both event loops, and the check that nothing is left behind."""

from __future__ import annotations

import asyncio
import gc
import inspect
import os
import weakref
from collections.abc import AsyncIterator, Callable, Mapping
from time import perf_counter
from typing import Any

import hypothesis
import pytest
import pytest_asyncio
import support
import uvloop

hypothesis.settings.register_profile("tests", deadline=None, derandomize=True)
hypothesis.settings.load_profile("tests")


# What feeds boxes without a turn of the loop in between. They are taken in one go, then, however long
# the machine stands still.
_FAKES = {"Transport", "limited", "on_transport"}


class RecordingLoop:
    """A mixin for event loops that remembers the futures they make, to see what becomes of them."""

    def create_future(self) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = super().create_future()  # type: ignore[misc]
        made: list[weakref.ref[asyncio.Future[Any]]] = self.__dict__.setdefault("made", [])
        made.append(weakref.ref(future))
        return future


class AsyncioLoop(RecordingLoop, asyncio.SelectorEventLoop):
    pass


class UvLoop(RecordingLoop, uvloop.Loop):
    pass


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"asyncio": AsyncioLoop, "uvloop": UvLoop}


def pytest_xdist_auto_num_workers() -> int:
    """Use one process more than there are cores: many tests wait for processes and timers."""
    return (os.cpu_count() or 1) + 1


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test that serves by means of `support` over TCP and over UNIX sockets."""
    if {"connected", "listening"} & {*inspect.unwrap(metafunc.function).__code__.co_names}:
        metafunc.fixturenames.append("transport")
        metafunc.parametrize("transport", ["tcp", "unix"], indirect=True)


@pytest.fixture
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(support, "over_unix", request.param == "unix")


@pytest.fixture
def endless_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a connection use as much of a turn of the loop as it needs, however slow the machine is."""
    now = perf_counter()
    for module in ("connection.inbox", "session.backlog"):
        monkeypatch.setattr(f"amp_asyncio.{module}.perf_counter", lambda: now)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Whole services take longest: the other workers do the rest meanwhile.
    items.sort(key=lambda item: item.get_closest_marker("system") is None)
    for item in items:
        if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj):
            # pytest has dropped what no function names; several items may share this list.
            parameters = item.callspec.params if hasattr(item, "callspec") else {}
            wanted = ["nothing_leaks"] + ["transport"] * ("transport" in parameters)
            if vars(item.module).keys() & _FAKES and not item.get_closest_marker("real_turns"):
                wanted.append("endless_turns")
            item.fixturenames[:0] = [name for name in wanted if name not in item.fixturenames]


@pytest_asyncio.fixture
async def nothing_leaks() -> AsyncIterator[None]:
    """Fail a test that leaves a task, an unresolved future or an error that nobody retrieved."""
    loop: Any = asyncio.get_running_loop()
    before = asyncio.all_tasks()
    complaints: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda loop, context: complaints.append(context))
    # The collection below then looks only at what the test has made, and takes less than 1 ms, not 20.
    gc.freeze()
    yield
    tasks = asyncio.all_tasks() - before - {asyncio.current_task()}
    assert not tasks, f"tasks left: {tasks}"
    gc.collect()
    gc.unfreeze()
    await asyncio.sleep(0)
    futures = [future for ref in getattr(loop, "made", ()) if (future := ref()) is not None]
    unresolved = [future for future in futures if not future.done()]
    assert not unresolved, f"futures left: {unresolved}"
    assert not complaints, f"the event loop was told: {complaints}"
