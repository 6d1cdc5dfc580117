"""A pool of child processes as the endpoints of a client."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import pytest
from support import at_any_pace
from worker import WORKER, Exit, Hang, HangOn, Ready, Stubborn, Where

from amp_asyncio import AMP, Client, ConnectionLost, children

pytestmark = pytest.mark.slow  # A Python takes a while to start.


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


class ParentOfOne(AMP):
    """Told by a child that it hangs."""

    hanging = 0

    @Ready.responder
    def is_ready(self) -> dict[str, Any]:
        ParentOfOne.hanging += 1
        return {}


def pool(**options: Any) -> Any:
    return children(*WORKER, "0,1", "asyncio", **options)


async def pids(client: Client[Any], count: int) -> set[int]:
    return {(await client.callRemote(Where))["pid"] for _ in range(count)}


async def test_each_child_is_asked_and_one_that_dies_is_replaced() -> None:
    async with Client(pool(count=2)) as client:
        await until(lambda: len(client.connections) == 2)
        before = await pids(client, 4)
        assert len(before) == 2
        killed = next(iter(before))
        os.kill(killed, signal.SIGKILL)
        alive = client.connections
        await until(lambda: len(client.connections) == 2 and client.connections != alive)
        after = await pids(client, 4)
        assert len(after) == 2
        assert killed not in after
        with pytest.raises(ConnectionLost, match="ended with exit status 3") as lost:
            await client.callRemote(Exit, status=3)
        assert lost.value.sent
    assert repr(client) == f"<Client of children({sys.executable!r}, count=2), closed>"


async def test_a_child_is_replaced_after_so_many_calls() -> None:
    async with Client(pool(count=1, max_calls=2)) as client:
        calls = await asyncio.gather(*(client.callRemote(Where) for _ in range(5)))
        by_pid = [answer["pid"] for answer in calls]
        assert by_pid[0] == by_pid[1] != by_pid[2] == by_pid[3] != by_pid[4]


@at_any_pace
async def test_a_child_that_does_not_end_a_cancelled_call_is_killed(pace: float) -> None:
    ParentOfOne.hanging = 0
    async with Client(pool(count=1, grace=0.05 * pace), ParentOfOne) as client:
        [before] = await pids(client, 1)
        # A call that can be cancelled ends in time.
        call = client.callRemote(Hang)
        await until(lambda: ParentOfOne.hanging == 1)
        call.cancel()
        assert await pids(client, 1) == {before}
        call = client.callRemote(HangOn)
        await until(lambda: ParentOfOne.hanging == 2)
        call.cancel()
        other = client.callRemote(HangOn)
        with pytest.raises(ConnectionLost, match="was ended by SIGKILL"):
            await other
        assert await pids(client, 1) != {before}
        # A call that has ended in time does no harm.
        [now] = await pids(client, 1)
        quick = client.callRemote(Where)
        quick.cancel()
        await asyncio.sleep(0.1 * pace)
        assert await pids(client, 1) == {now}


async def test_leaving_by_an_exception_ends_the_children() -> None:
    with pytest.raises(KeyError):
        async with Client(pool(count=1)) as client:
            [pid] = await pids(client, 1)
            call = client.callRemote(Hang)
            raise KeyError
    with pytest.raises(ConnectionLost, match="was left while this question was open"):
        await call
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_a_child_that_does_not_end_is_not_waited_for() -> None:
    client = Client(pool(count=1))
    [pid] = await pids(client, 1)
    await client.callRemote(Stubborn)
    await client.close(timeout=0.05)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_a_program_that_does_not_start(caplog: pytest.LogCaptureFixture) -> None:
    async with Client(children("/no/such/program", count=1)):
        await until(lambda: "cannot connect to child 1 of '/no/such/program'" in caplog.text)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"count": 0}, "count=...\\) must be at least 1, not 0"),
        ({"max_calls": 0}, "max_calls=...\\) must be at least 1, not 0"),
        ({"grace": -1}, "grace=...\\) must be at least 0, not -1"),
    ],
)
def test_pools_that_cannot_be(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        children("x", **wrong)


async def test_options_of_a_connection_do_not_fit() -> None:
    with pytest.raises(TypeError, match="takes no options of a connection: local_addr"):
        Client(children("x"), local_addr=("127.0.0.1", 0))
