"""Calls that end before their answers: timeouts, cancelling, and what a responder has asked."""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import random
import tracemalloc
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import Echo, Math, Notify, Patient, Sum, SwitchTo, at_any_pace, raw_pair, turns

from amp_asyncio import (
    AMP,
    AmpBox,
    CallCancelled,
    Command,
    ConnectionLost,
    DeadlineExceeded,
    Integer,
    Limits,
    RemoteAmpError,
    StartTLS,
    UnknownRemoteError,
    current_call,
    parseString,
    remaining,
)
from amp_asyncio.testing import pair


class Nap(Command):
    """Waits for ever, or for `seconds`."""

    arguments = [(b"seconds", Integer(optional=True))]


class Stubborn(Nap):
    cancellable = False


class Clean(Command):
    """Goes on when it is cancelled, and answers."""

    response = [(b"number", Integer())]


class Relay(Command):
    """Asks the next one."""

    arguments = [(b"way", Integer())]


class Sleepy(Patient):
    """Says what becomes of its responders."""

    next: AMP | None = None

    def __init__(self) -> None:
        super().__init__()
        self.events: asyncio.Queue[str] = asyncio.Queue()
        self.left: list[float | None] = []
        self.running = 0
        self.tasks: list[asyncio.Task[Any]] = []

    async def sleep(self) -> None:
        self.running += 1
        self.left.append(remaining())
        self.events.put_nowait("began")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.events.put_nowait("cancelled")
            raise
        finally:
            self.running -= 1

    @Nap.responder
    async def nap(self, seconds: int | None) -> None:
        await self.sleep()

    @Stubborn.responder
    async def stubborn(self, seconds: int | None) -> None:
        self.events.put_nowait("began")
        await self.gate("stubborn")

    @Clean.responder
    async def clean(self) -> dict[str, int]:
        try:
            await self.sleep()
        except asyncio.CancelledError:
            await asyncio.sleep(0)
        return {"number": 7}

    @Relay.responder
    async def relay(self, way: int) -> None:
        assert self.next is not None
        self.events.put_nowait("began")
        if way == 0:
            await self.next.callRemote(Nap)
        elif way == 1:
            # It does not wait for the answer itself.
            self.asked = self.next.callRemote(Nap)
            await asyncio.Event().wait()
        else:
            self.tasks.append(asyncio.ensure_future(self.helper()))
            await asyncio.wait(self.tasks)

    async def helper(self) -> None:
        assert self.next is not None
        await self.next.callRemote(Nap)


async def met(client: AMP) -> None:
    """Have both sides know each other."""
    await client.callRemote(Sum, a=1, b=2)
    await turns()


# --- timeouts ---


@at_any_pace
async def test_the_caller_gets_a_timeout_error_and_the_responder_is_cancelled(
    caplog: Any, pace: float
) -> None:
    async with pair(Sleepy) as (server, client):
        with pytest.raises(DeadlineExceeded) as caught:
            await client.call(Nap(), timeout=0.02 * pace)
        assert isinstance(caught.value, TimeoutError)
        assert not isinstance(caught.value, asyncio.CancelledError)
        assert [await server.events.get(), await server.events.get()] == ["began", "cancelled"]
        assert server.left[0] is not None
        assert 0 < server.left[0] <= 0.02 * pace
        assert await client.callRemote(Sum, a=1, b=2) == {"total": 3}
    assert [each for each in caplog.records if each.levelno > logging.DEBUG and each.exc_info] == []


async def test_the_peer_is_told_how_long_it_has() -> None:
    async with raw_pair() as (amp, peer):
        asked = [
            amp.call(Sum(a=1, b=2), timeout=5),
            amp.call(Sum(a=1, b=2), timeout=0.0001),
            amp.call(Sum(a=1, b=2), timeout=1e30),
            amp.call(Sum(a=1, b=2), timeout=math.inf),
        ]
        await turns()
        told = [box.get(b"_timeout") for box in parseString(peer.data)]
        first, *others = told
        assert first is not None
        assert 0 < int(first) <= 5000
        assert others == [b"1", b"9" * 15, None]
        with pytest.raises(TimeoutError):
            await asked[1]
        for each in asked:
            each.cancel()


@pytest.mark.parametrize("timeout", [0, 0.0])
async def test_without_any_time_nothing_is_sent(timeout: float) -> None:
    async with raw_pair() as (amp, peer):
        with pytest.raises(DeadlineExceeded):
            await amp.call(Sum(a=1, b=2), timeout=timeout)
        await turns()
        assert peer.boxes() == []


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"timeout": -1}, ValueError),
        ({"timeout": math.nan}, ValueError),
        ({"timeout": "5"}, TypeError),
        ({"metadata": {"a": 1}}, TypeError),
        ({"metadata": {"": "x"}}, ValueError),
        ({"metadata": {"n" * 253: "x"}}, ValueError),
        ({"metadata": {"a": "x" * 8192}}, ValueError),
        ({"metadata": {"a": "x" * 70_000}}, ValueError),
    ],
)
async def test_what_cannot_be_is_refused_at_once(options: Any, error: type[Exception]) -> None:
    async with raw_pair() as (amp, peer):
        with pytest.raises(error):
            amp.call(Sum(a=1, b=2), **options)
        await turns()
        assert peer.boxes() == []


async def test_call_when_the_connection_is_gone() -> None:
    async with raw_pair() as (amp, _):
        pass
    with pytest.raises(ConnectionLost):
        await amp.call(Sum(a=1, b=2), timeout=5)


async def test_the_default_is_for_every_call_with_an_answer() -> None:
    async with raw_pair(default_timeout=0.02) as (amp, peer):
        asked = [
            amp.callRemote(Sum, a=1, b=2),
            amp.callRemoteString("X"),
            amp.callRemote(Sum, a=1, b=2),
        ]
        assert await amp.callRemote(Notify, data=b"") is None
        longer = amp.call(Sum(a=1, b=2), timeout=60)
        for each in asked:
            with pytest.raises(DeadlineExceeded):
                await each
        told = [box.get(b"_timeout") for box in parseString(peer.data)]
        assert told.pop(3) is None
        assert all(0 < int(left) <= 20 for left in told[:3])
        assert 20 < int(told[3]) <= 60_000
        assert not longer.done()
        longer.cancel()
        starting = amp.callRemote(StartTLS)
        await turns()
        assert b"_timeout" not in parseString(peer.data)[-1], "it has a timeout of its own"
        peer.send(AmpBox(_error=b"6", _error_code=b"NO", _error_description=b""))
        with pytest.raises(UnknownRemoteError):
            await starting


async def test_a_question_that_waits_has_the_time_that_is_left() -> None:
    async with raw_pair(window=500, max_box_size=5000) as (amp, peer):
        first = amp.callRemote(Sum, a=1, b=2)
        late, patient = amp.call(Sum(a=1, b=2), timeout=0.02), amp.call(Sum(a=3, b=4), timeout=60)
        with pytest.raises(DeadlineExceeded):
            await late
        assert len(peer.boxes()) == 1, "it waited for the window"
        peer.send(AmpBox(_answer=b"1", total=b"3"))
        await first
        await peer.until(lambda: len(peer.boxes()) == 2)
        assert peer.boxes()[1][b"a"] == b"3"
        assert 0 < int(peer.boxes()[1][b"_timeout"]) < 60_000
        patient.cancel()


@at_any_pace
async def test_many_deadlines(pace: float) -> None:
    """Each is over in its own time, also where a later one was known first."""
    async with raw_pair() as (amp, _):
        over: list[int] = []
        asked = []
        for number, timeout in enumerate((0.03, 0.01, 60, 0.02)):
            future = amp.call(Sum(a=1, b=2), timeout=timeout * pace)
            future.add_done_callback(lambda _, number=number: over.append(number))
            asked.append(future)
        await asyncio.gather(asked[0], asked[1], asked[3], return_exceptions=True)
        await turns()
        assert over == [1, 3, 0]
        asked[2].cancel()


@at_any_pace
async def test_the_answering_side_has_its_own_clock(pace: float) -> None:
    async with raw_pair(Sleepy) as (server, peer):
        peer.send(
            AmpBox(_command=b"Nap", _ask=b"1", _timeout=b"%d" % (20 * pace)),
            AmpBox(_command=b"Sum", _ask=b"2", a=b"1", b=b"2", _timeout=b"0"),
            AmpBox(_command=b"Clean", _ask=b"3", _timeout=b"%d" % (20 * pace)),
            AmpBox(_command=b"Notify", data=b"x", _timeout=b"0"),
        )
        await peer.until(lambda: len(peer.boxes()) == 3)
        assert peer.boxes() == [
            AmpBox(
                _error=b"2",
                _error_code=b"_DEADLINE",
                _error_description=b"the time of the call is over",
            ),
            AmpBox(
                _error=b"1",
                _error_code=b"_DEADLINE",
                _error_description=b"the time of the call is over",
            ),
            AmpBox(_answer=b"3", number=b"7"),
        ]
        assert await server.notified.get() == b"x", "nobody waits for it in any case"


async def test_a_command_that_waits_for_its_turn_runs_out_of_time() -> None:
    async with raw_pair(Sleepy, max_concurrent_responders=1) as (server, peer):
        peer.send(
            AmpBox(_command=b"Wait", _ask=b"1", name=b"a"),
            AmpBox(_command=b"Nap", _ask=b"2", _timeout=b"1"),
        )
        await server.started.get()
        await asyncio.sleep(0.002)
        server.let("a")
        await peer.until(lambda: len(peer.boxes()) == 2)
        assert peer.boxes()[1][b"_error_code"] == b"_DEADLINE"
        assert server.events.empty()


async def test_errors_of_the_protocol_are_exceptions_of_their_own() -> None:
    async with raw_pair() as (amp, peer):
        for tag, code, kind in ((1, b"_DEADLINE", DeadlineExceeded), (2, b"_CANCELLED", CallCancelled)):
            asked = amp.callRemote(Sum, a=1, b=2)
            await turns()
            peer.send(AmpBox(_error=b"%d" % tag, _error_code=code, _error_description=b"why"))
            with pytest.raises(kind, match="^why$") as caught:
                await asked
            assert not isinstance(caught.value, asyncio.CancelledError | RemoteAmpError)


async def test_the_time_of_a_switch_is_over() -> None:
    async with raw_pair() as (amp, _):
        with pytest.raises(DeadlineExceeded):
            await amp.call(SwitchTo(Math, name="x"), timeout=0.01)
        await amp.wait_closed()


# --- cancelling ---


@at_any_pace
async def test_the_responder_is_cancelled_with_its_caller(caplog: Any, pace: float) -> None:
    async with pair(Sleepy) as (server, client):
        for _ in range(2):
            asking = asyncio.ensure_future(client.callRemote(Nap))
            assert await server.events.get() == "began"
            asking.cancel()
            assert await server.events.get() == "cancelled"
            with pytest.raises(asyncio.CancelledError):
                await asking
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01 * pace):
                await client.callRemote(Nap)
        assert [await server.events.get(), await server.events.get()] == ["began", "cancelled"]
        assert await client.callRemote(Sum, a=1, b=2) == {"total": 3}
    assert [each for each in caplog.records if each.levelno > logging.INFO] == []


async def test_each_tag_gets_one_box_when_its_responder_has_ended() -> None:
    async with raw_pair(Sleepy, max_concurrent_responders=3) as (server, peer):
        peer.send(AmpBox(_command=b"Sum", _ask=b"f", a=b"1", b=b"2", _offer=b"f cancel"))
        for tag, name in (
            (b"1", b"Nap"),
            (b"2", b"Clean"),
            (b"3", b"Stubborn"),
            (b"4", b"Nap"),
            (b"5", b"Nap"),
        ):
            peer.send(AmpBox(_command=name, _ask=tag))
        for _ in range(3):
            assert await server.events.get() == "began"
        for tag in (b"3", b"5", b"2", b"1", b"1", b"9"):
            peer.send(AmpBox(_command=b"_cancel", ask=tag))
        await peer.until(lambda: len(peer.boxes()) == 5)
        boxes = peer.boxes()[2:]
        assert [box.get(b"_error_code") for box in boxes] == [b"_CANCELLED", b"_CANCELLED", None]
        assert [box.get(b"_error", box.get(b"_answer")) for box in boxes] == [b"5", b"1", b"2"]
        server.let("stubborn")
        await peer.until(lambda: len(peer.boxes()) == 6)
        assert peer.boxes()[5] == AmpBox(_answer=b"3")
        peer.send(AmpBox(_command=b"_cancel", ask=b"4"))
        await peer.until(lambda: len(peer.boxes()) == 7)


async def test_a_future_of_a_plain_responder_is_not_cancelled() -> None:
    class Shared(Sleepy):
        @Nap.responder
        def nap(self, seconds: int | None) -> Any:  # type: ignore[override]
            self.events.put_nowait("began")
            return self.gate("shared")

    async with pair(Shared) as (server, client):
        asked = client.callRemote(Nap)
        assert await server.events.get() == "began"
        await met(client)
        asked.cancel()
        await client.close()
        assert not server.gate("shared").done()
        server.let("shared")


async def test_a_responder_that_fails_while_it_is_cancelled(caplog: Any) -> None:
    class Failing(Sleepy):
        async def sleep(self) -> None:
            try:
                await super().sleep()
            finally:
                raise ValueError("in the cleanup")

    async with pair(Failing) as (server, client):
        asked = client.callRemote(Nap)
        assert await server.events.get() == "began"
        asked.cancel()
        await client.close()
    assert "in the cleanup" in caplog.text


async def test_what_an_old_peer_answers_late_is_dropped() -> None:
    async with raw_pair(window=600, max_box_size=5000) as (amp, peer):
        first = amp.callRemote(Sum, a=1, b=2)
        second = amp.callRemote(Sum, a=3, b=4)
        await turns()
        assert len(peer.boxes()) == 1
        first.cancel()
        await peer.until(lambda: len(peer.boxes()) == 2)
        peer.send(AmpBox(_answer=b"1", total=b"3"), AmpBox(_answer=b"2", total=b"7"))
        assert await second == {"total": 7}
        assert all(box[b"_command"] == b"Sum" for box in peer.boxes())


async def test_what_a_peer_of_ours_still_does_counts_against_the_window() -> None:
    async with raw_pair(window=600, max_box_size=5000) as (amp, peer):
        peer.send(AmpBox(_command=b"Sum", _ask=b"1", a=b"1", b=b"2", _offer=b"1 cancel"))
        await peer.until(lambda: len(peer.boxes()) == 2)
        first = amp.callRemote(Sum, a=1, b=2)
        second = amp.callRemote(Sum, a=3, b=4)
        await turns()
        first.cancel()
        await peer.until(lambda: len(peer.boxes()) == 4)
        assert peer.boxes()[3] == AmpBox(_command=b"_cancel", ask=b"1")
        peer.send(AmpBox(_error=b"1", _error_code=b"_CANCELLED", _error_description=b""))
        await peer.until(lambda: len(peer.boxes()) == 5)
        peer.send(AmpBox(_answer=b"2", total=b"7"))
        assert await second == {"total": 7}


@pytest.mark.slow
async def test_ten_thousand_cancelled_calls() -> None:
    """Each ends once, no tag stays open, and as many again take no more memory."""
    chance = random.Random(7)
    loop: Any = asyncio.get_running_loop()
    ends: Counter[asyncio.Future[Any]] = Counter()

    async def ten_thousand(client: AMP) -> None:
        for _ in range(10):
            asked = [client.callRemote(Nap) for _ in range(700)]
            asked += [client.callRemote(Sum, a=1, b=n) for n in range(300)]
            for future in asked:
                future.add_done_callback(lambda future: ends.update([future]))
            in_any_order = chance.sample(asked, 1000)
            for future in in_any_order:
                if chance.random() < 0.02:
                    await asyncio.sleep(0)
                future.cancel()
            await asyncio.wait(asked)
            await turns()
            assert [ends[future] for future in asked] == [1] * 1000
            ends.clear()

    async def held(server: Sleepy, client: AMP) -> tuple[int, int]:
        """Return the bytes and objects that are held when the server has said all about these calls."""
        while server.running or not server.events.empty():
            await server.events.get()
        await client.callRemote(Sum, a=1, b=2)
        server.left.clear()
        loop.made[:] = [each for each in loop.made if each() is not None]
        gc.collect()
        return tracemalloc.get_traced_memory()[0], len(gc.get_objects())

    async with pair(Sleepy, limits=Limits(window=4_000_000)) as (server, client):
        await met(client)
        tracemalloc.start()
        try:
            await ten_thousand(client)
            before = await held(server, client)
            await ten_thousand(client)
            after = await held(server, client)
        finally:
            tracemalloc.stop()
        # A tag for each of them would take 800,000 bytes; dictionaries grow and shrink by half of that.
        assert after[0] - before[0] < 600_000
        assert after[1] - before[1] < 2_000
        await client.close()
        assert server.running == 0


@given(
    st.lists(
        st.tuples(
            st.sampled_from([Nap, Clean, Sum, Relay]),
            st.sampled_from([None, 0.001, 0.003]),
            st.integers(0, 6),
            st.integers(0, 3),
        ),
        max_size=8,
    ),
    st.integers(0, 8),
    st.sampled_from(["leave", "lost", "both leave"]),
)
@settings(max_examples=25, deadline=None)
def test_races(calls: list[tuple[Any, Any, int, int]], end_at: int, end: str) -> None:
    """Answers, cancellations, timeouts and the end of the connection, in any order: each call ends."""

    async def run() -> None:
        async with pair(Sleepy) as (further, toward_it), pair(Sleepy, Sleepy) as (server, client):
            server.next = toward_it
            arguments: Any = {Sum: {"a": 1, "b": 2}, Relay: {"way": 0}}
            asked = []
            ending: list[Any] = []
            for number, (command, timeout, cancel_after, pause) in enumerate(calls):
                if number == end_at:
                    if end == "lost":
                        client.abort()
                    else:
                        ending = [server, client] if end == "both leave" else [server]
                        ending = [asyncio.ensure_future(each.close(timeout=0.05)) for each in ending]
                future = client.call(command(**arguments.get(command, {})), timeout=timeout)
                loop = asyncio.get_running_loop()
                if cancel_after:
                    loop.call_later(cancel_after / 2000, future.cancel)
                elif timeout is None and command is not Sum:
                    loop.call_later(0.01, future.cancel)
                asked.append(future)
                for _ in range(pause):
                    await asyncio.sleep(0)
            await asyncio.wait([*asked, asyncio.ensure_future(asyncio.sleep(0))])
            for future in asked:
                if not future.cancelled():
                    error = future.exception()
                    assert error is None or isinstance(error, DeadlineExceeded | ConnectionLost), error
            await asyncio.gather(*ending, client.close(timeout=1))
            await turns()
            assert server.running == 0
            await toward_it.close(timeout=1)
            assert further.running == 0

    asyncio.run(run())


# --- what a responder asks ---


@pytest.mark.parametrize("way", [0, 1, 2])
@pytest.mark.parametrize("how", ["cancel", "timeout", "lost"])
@at_any_pace
async def test_what_a_responder_asks_is_cancelled_with_it(way: int, how: str, pace: float) -> None:
    async with pair(Sleepy) as (end, toward_end), pair(Sleepy) as (middle, client):
        await met(toward_end)
        await met(client)
        middle.next = toward_end
        asked = client.call(Relay(way=way), timeout=0.05 * pace if how == "timeout" else None)
        assert await end.events.get() == "began"
        if how == "cancel":
            asked.cancel()
        elif how == "lost":
            client.abort()
        assert await end.events.get() == "cancelled"
        await asyncio.wait([asked])
        if how == "timeout":
            assert isinstance(asked.exception(), DeadlineExceeded)
            assert end.left[0] is not None
            assert end.left[0] <= 0.05 * pace
        elif how == "lost":
            assert isinstance(asked.exception(), ConnectionLost)
        if middle.tasks:
            await asyncio.wait(middle.tasks)
            middle.tasks[0].cancelled() or middle.tasks[0].exception()


async def test_what_is_asked_when_the_responder_has_ended_has_no_deadline() -> None:
    class Leaving(Sleepy):
        @Relay.responder
        async def relay(self, way: int) -> None:
            self.tasks.append(asyncio.ensure_future(self.later()))

        @Sum.responder
        def sum(self, a: int, b: int) -> dict[str, int]:  # type: ignore[override]
            self.told = self.callRemote(Echo, data=b"")
            self.callRemote(Notify, data=b"")
            self.left.append(remaining())
            return {"total": a + b}

        async def later(self) -> None:
            await self.gate("later")
            self.later_left = remaining()
            await self.callRemote(Echo, data=b"later")

    async with raw_pair(Leaving) as (amp, peer):
        peer.send(
            AmpBox(_command=b"Relay", _ask=b"1", way=b"0", _timeout=b"60000"),
            AmpBox(_command=b"Sum", _ask=b"2", a=b"1", b=b"2", _timeout=b"60000"),
        )
        await peer.until(lambda: len(peer.boxes()) == 4)
        asked = [box for box in peer.boxes() if b"_command" in box]
        assert [0 < int(box.get(b"_timeout", 0)) <= 60_000 for box in asked] == [True, False]
        assert 0 < amp.left[0] <= 60
        amp.let("later")
        await peer.until(lambda: len(peer.boxes()) == 5)
        assert b"_timeout" not in peer.boxes()[4]
        assert amp.later_left is None
        amp.told.cancel()
        amp.abort()
        await asyncio.wait(amp.tasks)
        assert isinstance(amp.tasks[0].exception(), ConnectionLost)


@at_any_pace
async def test_a_call_without_time_left_is_not_asked(pace: float) -> None:
    class Late(Sleepy):
        @Relay.responder
        async def relay(self, way: int) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                self.late = self.callRemote(Echo, data=b"late")

    async with raw_pair(Late) as (amp, peer):
        peer.send(AmpBox(_command=b"Relay", _ask=b"1", way=b"0", _timeout=b"%d" % (10 * pace)))
        await peer.until(lambda: len(peer.boxes()) == 1)
        assert peer.boxes()[0][b"_error_code"] == b"_DEADLINE"
        with pytest.raises(DeadlineExceeded):
            await amp.late


async def test_an_error_from_further_down_is_this_sides_own(caplog: Any) -> None:
    class Middle(Sleepy):
        @Relay.responder
        async def relay(self, way: int) -> None:
            await self.next.call(Nap(), timeout=0.01)  # type: ignore[union-attr]

    async with pair(Sleepy) as (_, toward_end), pair(Middle) as (middle, client):
        middle.next = toward_end
        with pytest.raises(UnknownRemoteError):
            await client.call(Relay(way=0), timeout=60)
        assert "no answer came within the timeout" in caplog.text


async def test_a_connection_that_a_responder_makes_is_no_part_of_its_call() -> None:
    class Connecting(Sleepy):
        @Relay.responder
        async def relay(self, way: int) -> None:
            async with pair(Asking) as (server, client):
                await client.callRemote(Sum, a=1, b=2)
                self.left.append(server.left)

    class Asking(AMP):
        left: Any = ""

        @Sum.responder
        def sum(self, a: int, b: int) -> dict[str, int]:
            self.left = remaining()
            return {"total": 0}

    async with pair(Connecting) as (server, client):
        await client.call(Relay(way=0), timeout=60)
        assert server.left == [60] or 59 < (server.left[0] or 0) <= 60


# --- metadata ---


async def test_metadata_goes_along() -> None:
    class Traced(Sleepy):
        @Sum.responder
        def sum(self, a: int, b: int) -> dict[str, int]:  # type: ignore[override]
            self.call_seen = current_call()
            return {"total": a + b}

    async with pair(Traced) as (server, client):
        for metadata in ({"trace": "1", "Mieter": "Ü"}, {}, {"a": ""}):
            for timeout in (None, 60):
                question: Any = Sum(a=1, b=2)
                assert await client.call(question, metadata=metadata, timeout=timeout) == {"total": 3}
                assert server.call_seen is not None
                assert server.call_seen.metadata == metadata
                assert (server.call_seen.deadline is None) == (timeout is None)


async def test_too_much_metadata_is_refused(caplog: Any) -> None:
    async with raw_pair(max_metadata=10) as (_, peer):
        peer.send(
            AmpBox(
                {b"_command": b"Sum", b"_ask": b"1", b"a": b"1", b"b": b"2", b"_m.x": b"12345678901"}
            ),
            AmpBox({b"_command": b"Sum", b"_ask": b"2", b"a": b"1", b"b": b"2", b"_m.x": b"\xff"}),
        )
        await peer.until(lambda: len(peer.boxes()) == 2)
        assert peer.boxes()[0][b"_error_code"] == b"UNKNOWN"
        assert peer.boxes()[1] == AmpBox(_answer=b"2", total=b"3")
    assert "metadata of 12 bytes: Limits.max_metadata is 10" in caplog.text


# --- a question that was never sent ---


async def test_the_error_says_whether_the_question_was_sent() -> None:
    async with raw_pair(window=500, max_box_size=5000) as (amp, peer):
        sent, waiting = amp.callRemote(Sum, a=1, b=2), amp.callRemote(Sum, a=1, b=2)
        await peer.until(lambda: peer.boxes())
        amp.abort()
        outcomes = await asyncio.gather(
            sent, waiting, amp.callRemote(Sum, a=1, b=2), return_exceptions=True
        )
        assert [error.sent for error in outcomes] == [True, False, False]


async def test_what_the_transport_was_never_given_was_not_sent() -> None:
    class Asking(Math):
        @Notify.responder
        def notify(self, data: bytes) -> None:
            self.asked = self.callRemote(Sum, a=1, b=2)

    async with raw_pair(Asking) as (amp, peer):
        peer.transport.write(AmpBox(_command=b"Notify", data=b"").serialize() + b"\xff" * 10)
        await amp.wait_closed()
        with pytest.raises(ConnectionLost) as caught:
            await amp.asked
        assert not caught.value.sent
        assert peer.boxes() == []
