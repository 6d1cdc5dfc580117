"""Checks of how a connection is closed on one side, gets another protocol, and ends."""

from __future__ import annotations

import asyncio

from .bench import MUCH, Bench, Body, pattern

__all__ = ["BODIES"]


# --- half-close ---


async def closes_one_side_alone(bench: Bench) -> None:
    first, second = bench.recorder(), bench.recorder()
    async with bench.joined(first, second) as (one, other):
        if not one.can_write_eof():
            return
        one.write(b"the last")
        one.write_eof()
        await bench.until(lambda: "eof" in second.events, "eof_received is called")
        assert second.data == b"the last", "the end arrives after the bytes"
        other.write(b"still here")
        await bench.until(lambda: first.data == b"still here", "the other side may still write")
        assert not one.is_closing(), "write_eof() does not close the transport"
        other.close()
        await bench.until(lambda: second.lost, "connection_lost is called after close()")


async def ends_after_what_waits(bench: Bench) -> None:
    data = pattern(MUCH)
    first, second = bench.recorder(), bench.recorder()
    async with bench.joined(first, second) as (one, other):
        if not one.can_write_eof():
            return
        other.pause_reading()
        one.write(data)
        one.write_eof()
        other.resume_reading()
        await bench.until(lambda: "eof" in second.events, "eof_received is called")
        assert second.data == data, "write_eof() lets everything arrive that was written before"


async def refuses_to_write_after_write_eof(bench: Bench) -> None:
    first, second = bench.recorder(), bench.recorder()
    async with bench.joined(first, second) as (one, _):
        if not one.can_write_eof():
            return
        one.write_eof()
        try:
            one.write(b"more")
        except RuntimeError:
            return
        raise AssertionError("write() raises RuntimeError after write_eof()")


async def closes_at_the_end_unless_kept_open(bench: Bench) -> None:
    first, second = bench.recorder(), bench.recorder(keep_open=False)
    async with bench.joined(first, second) as (one, other):
        one.write(b"data")
        if one.can_write_eof():
            one.write_eof()
        else:
            one.close()
        await bench.until(lambda: second.lost, "the end closes what eof_received does not keep open")
        assert second.events == ["made", "data", "eof", "lost"], f"and in order: {second.events}"
        assert other.is_closing(), "is_closing() is true after the end"
        await bench.until(lambda: "eof" in first.events or first.lost, "the peer sees the end")


async def writes_after_the_peers_end(bench: Bench) -> None:
    data = pattern(MUCH)
    first, second = bench.recorder(), bench.recorder()
    async with bench.joined(first, second) as (one, other):
        if not one.can_write_eof():
            return
        one.pause_reading()
        other.write(data)
        one.write_eof()
        await bench.until(lambda: "eof" in second.events, "eof_received is called")
        other.close()
        one.resume_reading()
        await bench.until(lambda: second.lost, "connection_lost is called after close()")
        await bench.until(lambda: "eof" in first.events, "the end arrives")
        assert first.data == data, "what was written before and after the peer's end arrives"
        assert second.error is None, f"this is not an error: {second.error!r}"


# --- another protocol ---


async def gives_what_comes_to_a_new_protocol(bench: Bench) -> None:
    first, second, heir = bench.recorder(), bench.recorder(), bench.recorder()
    async with bench.joined(first, second) as (one, other):
        one.write(b"before")
        await bench.until(lambda: second.data == b"before", "the bytes arrive")
        heir.take_over(second)
        assert other.get_protocol() is heir, "get_protocol() returns the new protocol"
        one.write(b"after")
        await bench.until(lambda: heir.data == b"after", "the new protocol gets what comes")
        assert second.data == b"before", "the old protocol gets nothing more"
        one.close()
        await bench.until(lambda: "eof" in heir.events, "the new protocol gets the end")


async def loses_nothing_to_a_new_protocol(bench: Bench) -> None:
    data = pattern(MUCH)
    first, second, heir = bench.recorder(), bench.recorder(), bench.recorder(room=1_000)
    async with bench.joined(first, second) as (one, other):
        other.pause_reading()
        one.write(data)
        await bench.turns()
        second.on["data"] = lambda: heir.take_over(second)
        other.resume_reading()
        await bench.until(lambda: len(second.data) + len(heir.data) >= len(data), "all bytes arrive")
        assert second.data + heir.data == data, "the old and the new protocol have all bytes together"


async def gives_what_waited_to_a_new_protocol(bench: Bench) -> None:
    first, second, heir = bench.recorder(), bench.recorder(), bench.recorder()
    async with bench.joined(first, second) as (_, other):
        other.pause_reading()
        written = await bench.fill(first)
        heir.take_over(second)
        other.resume_reading()
        await bench.until(lambda: len(heir.data) == written, "what waited goes to the new protocol")
        assert not second.data, "the old protocol gets nothing of it"


async def resumes_a_new_protocol(bench: Bench) -> None:
    first, second, heir = bench.recorder(), bench.recorder(), bench.recorder()
    async with bench.joined(first, second) as (_, other):
        other.pause_reading()
        await bench.fill(first)
        heir.note("made")
        heir.take_over(first)
        heir.pause_writing()
        other.resume_reading()
        await bench.until(lambda: heir.events[-1] == "resume", "the new protocol is told to resume")


async def tells_a_new_protocol_of_the_end(bench: Bench) -> None:
    first, second, heir = bench.recorder(), bench.recorder(), bench.recorder()
    async with bench.joined(first, second) as (one, _):
        one.close()
        heir.note("made")
        heir.take_over(first)
        await bench.until(lambda: heir.lost, "the new protocol is told of the end")
        assert not first.lost, "the old protocol is not told"


# --- ending ---


async def closes_after_what_was_written(bench: Bench) -> None:
    first, second = bench.recorder(), bench.recorder(keep_open=False)
    async with bench.joined(first, second) as (one, other):
        other.pause_reading()
        written = await bench.fill(first)
        one.write(b"the last")
        one.close()
        assert one.is_closing(), "is_closing() is true after close()"
        assert not one.is_reading(), "is_reading() is false after close()"
        await bench.turns()
        early = first.lost
        other.resume_reading()
        await bench.until(lambda: first.lost and second.lost, "both are told that they are closed")
        got = len(second.data)
        assert second.data.endswith(b"the last"), f"close() drops nothing: {got} of {written + 8} came"
        assert not early, "connection_lost is called after everything was written"
        assert first.error is None, f"close() is not an error: {first.error!r}"


async def closes_though_reading_is_paused(bench: Bench) -> None:
    first, second = bench.recorder(), bench.recorder()
    async with bench.joined(first, second) as (one, _):
        one.pause_reading()
        one.close()
        await bench.until(lambda: first.lost, "connection_lost is called after close()")
        await bench.until(lambda: "eof" in second.events or second.lost, "the peer sees the end")


async def closes_after_write_eof(bench: Bench) -> None:
    data = pattern(MUCH)
    first, second = bench.recorder(), bench.recorder(keep_open=False)
    async with bench.joined(first, second) as (one, _):
        if not one.can_write_eof():
            return
        one.write(data)
        one.write_eof()
        one.write_eof()
        one.close()
        await bench.until(lambda: first.lost and second.lost, "both are told that they are closed")
        got = len(second.data)
        assert second.data == data, f"close() drops nothing: {got} of {len(data)} bytes came"


async def may_be_aborted_by_its_protocol(bench: Bench) -> None:
    first, second = bench.recorder(), bench.recorder()
    second.on["data"] = lambda: second.transport.abort()
    async with bench.joined(first, second) as (one, _):
        one.write(pattern(MUCH))
        await bench.until(lambda: second.lost, "connection_lost is called after abort()")
        assert second.events == ["made", "data", "lost"], f"nothing comes after it: {second.events}"


async def aborts_at_once(bench: Bench) -> None:
    first, second = bench.recorder(), bench.recorder(keep_open=False)
    async with bench.joined(first, second) as (one, other):
        other.pause_reading()
        written = await bench.fill(first)
        one.abort()
        assert one.is_closing(), "is_closing() is true after abort()"
        assert not first.lost, "abort() does not call connection_lost itself"
        await bench.until(lambda: first.lost, "abort() does not wait for the peer")
        assert first.error is None, f"abort() is not an error: {first.error!r}"
        other.resume_reading()
        await bench.until(lambda: second.lost, "the peer is told")
        assert len(second.data) <= written, "the peer gets nothing that was not written"


async def gives_nothing_after_close(bench: Bench) -> None:
    first, second = bench.recorder(), bench.recorder()
    async with bench.joined(first, second) as (one, other):
        second.on["data"] = lambda: second.transport.close()
        one.write(pattern(MUCH))
        await bench.until(lambda: second.lost, "connection_lost is called after close()")
        await bench.until(lambda: first.lost or "eof" in first.events, "the peer is told")
        assert second.events == ["made", "data", "lost"], f"nothing comes after it: {second.events}"
        assert other.is_closing(), "is_closing() is true after close()"


async def gives_nothing_after_connection_lost(bench: Bench) -> None:
    first, second = bench.recorder(), bench.recorder()
    async with bench.joined(first, second) as (one, other):
        one.write(pattern(MUCH))
        other.write(pattern(MUCH))
        await bench.until(lambda: second.data, "bytes arrive")
        other.abort()
        await bench.until(lambda: second.lost, "connection_lost is called after abort()")
        await bench.turns()
        assert second.events[-1] == "lost", f"nothing happens after it: {second.events}"


async def may_be_ended_again(bench: Bench) -> None:
    first, second = bench.recorder(), bench.recorder()
    async with bench.joined(first, second) as (one, _):
        one.close()
        one.close()
        one.abort()
        await bench.until(lambda: first.lost, "connection_lost is called")
        one.close()
        one.abort()
        await bench.turns()
        assert first.events == ["made", "lost"], f"connection_lost is called once: {first.events}"


async def notices_that_the_peer_is_gone(bench: Bench) -> None:
    first, second = bench.recorder(), bench.recorder()
    async with bench.joined(first, second) as (one, other):
        other.abort()
        await bench.until(lambda: second.lost, "connection_lost is called after abort()")

        async def write() -> None:
            while not first.lost:
                one.write(b"x" * 1_000)
                await asyncio.sleep(0)

        writing = asyncio.ensure_future(write())
        try:
            await bench.until(lambda: first.lost, "writing to a peer that is gone ends the connection")
        finally:
            writing.cancel()
        assert isinstance(first.error, OSError | None), f"with an OSError, or none: {first.error!r}"


def _fail() -> None:
    raise LookupError("raised by the protocol")


async def loses_a_protocol_that_raises(bench: Bench) -> None:
    first, second = bench.recorder(), bench.recorder()
    second.on["data"] = _fail
    async with bench.joined(first, second) as (one, _):
        one.write(b"data")
        await bench.until(lambda: second.lost, "an error of data_received ends the connection")
        assert isinstance(second.error, LookupError), f"connection_lost gets it: {second.error!r}"
        assert second.error in bench.reported, "the event loop's exception handler is told"


async def loses_a_protocol_that_raises_at_the_end(bench: Bench) -> None:
    first, second = bench.recorder(), bench.recorder()
    second.on["eof"] = _fail
    async with bench.joined(first, second) as (one, _):
        one.close()
        await bench.until(lambda: second.lost, "an error of eof_received ends the connection")
        assert isinstance(second.error, LookupError), f"connection_lost gets it: {second.error!r}"
        assert second.error in bench.reported, "the event loop's exception handler is told"


async def loses_a_buffered_protocol_that_raises(bench: Bench) -> None:
    first, second = bench.recorder(), bench.recorder(room=1_000)
    second.on["data"] = _fail
    async with bench.joined(first, second) as (one, _):
        one.write(b"data")
        await bench.until(lambda: second.lost, "an error of buffer_updated ends the connection")
        assert isinstance(second.error, LookupError), f"connection_lost gets it: {second.error!r}"


async def goes_on_when_pause_writing_raises(bench: Bench) -> None:
    first, second = bench.recorder(), bench.recorder()
    first.on["pause"] = first.on["resume"] = _fail
    async with bench.joined(first, second) as (_, other):
        other.pause_reading()
        written = await bench.fill(first)
        other.resume_reading()
        await bench.until(lambda: first.events[-1] == "resume", "resume_writing is called")
        await bench.until(lambda: len(second.data) == written, "all bytes arrive")
        assert len(bench.reported) > 1, "the event loop's exception handler is told of both errors"


BODIES: tuple[Body, ...] = (
    closes_one_side_alone,
    ends_after_what_waits,
    refuses_to_write_after_write_eof,
    closes_at_the_end_unless_kept_open,
    writes_after_the_peers_end,
    gives_what_comes_to_a_new_protocol,
    loses_nothing_to_a_new_protocol,
    gives_what_waited_to_a_new_protocol,
    resumes_a_new_protocol,
    tells_a_new_protocol_of_the_end,
    closes_after_what_was_written,
    closes_though_reading_is_paused,
    closes_after_write_eof,
    may_be_aborted_by_its_protocol,
    aborts_at_once,
    gives_nothing_after_close,
    gives_nothing_after_connection_lost,
    may_be_ended_again,
    notices_that_the_peer_is_gone,
    loses_a_protocol_that_raises,
    loses_a_protocol_that_raises_at_the_end,
    loses_a_buffered_protocol_that_raises,
    goes_on_when_pause_writing_raises,
)
