"""Checks of how a connection begins, carries bytes, and controls their flow."""

from __future__ import annotations

from functools import partial

from .bench import MUCH, Bench, Body, pattern

__all__ = ["BODIES"]


# --- beginning ---


async def begins(bench: Bench) -> None:
    first, second = bench.recorder(), bench.recorder()
    async with bench.joined(first, second) as (one, _):
        assert first.events == ["made"], f"connection_made comes first, and once: {first.events}"
        assert one.get_protocol() is first, "get_protocol() returns the protocol"
        assert not one.is_closing(), "a new transport is not closing"
        assert one.is_reading(), "a new transport is reading"
        assert one.get_write_buffer_size() == 0, "a new transport has an empty buffer"
        assert one.get_extra_info("no such thing", 5) == 5, "get_extra_info() returns the default"


async def may_be_closed_as_it_begins(bench: Bench) -> None:
    first, second = bench.recorder(), bench.recorder()
    first.on["made"] = lambda: first.transport.close()
    async with bench.joined(first, second):
        await bench.until(lambda: first.lost, "connection_lost is called after close()")
        await bench.until(lambda: "eof" in second.events or second.lost, "the peer sees the end")
        assert first.error is None, f"close() is not an error: {first.error!r}"


async def may_pause_as_it_begins(bench: Bench) -> None:
    first, second = bench.recorder(), bench.recorder()
    second.on["made"] = lambda: second.transport.pause_reading()
    async with bench.joined(first, second) as (_, other):
        written = await bench.fill(first)
        assert not second.data, "nothing arrives after pause_reading() in connection_made"
        other.resume_reading()
        await bench.until(lambda: len(second.data) == written, "what waited arrives")


async def may_be_written_to_as_it_begins(bench: Bench) -> None:
    first, second = bench.recorder(), bench.recorder()
    first.on["made"] = lambda: first.transport.write(b"hello")
    async with bench.joined(first, second):
        await bench.until(lambda: second.data == b"hello", "what connection_made wrote arrives")


async def may_get_another_protocol_as_it_begins(bench: Bench) -> None:
    first, second, heir = bench.recorder(), bench.recorder(), bench.recorder()
    second.on["made"] = lambda: heir.take_over(second)
    async with bench.joined(first, second) as (one, other):
        one.write(b"data")
        await bench.until(lambda: heir.data == b"data", "the new protocol gets the bytes")
        other.close()
        await bench.until(lambda: heir.lost, "the new protocol is told of the end")
        assert second.events == ["made"], f"the old protocol is told nothing: {second.events}"


# --- bytes ---


async def carries_bytes_in_order(bench: Bench) -> None:
    first, second = bench.recorder(), bench.recorder()
    async with bench.joined(first, second) as (one, other):
        one.write(b"bytes ")
        one.write(b"")
        one.write(bytearray(b"bytearray "))
        one.write(memoryview(b"memoryview "))
        one.writelines([b"several ", bytearray(b"pieces")])
        expected = b"bytes bytearray memoryview several pieces"
        await bench.until(lambda: second.data == expected, "the bytes arrive in order")
        other.write(b"back")
        await bench.until(lambda: first.data == b"back", "bytes go the other way, too")


async def carries_much_both_ways(bench: Bench) -> None:
    data = pattern(MUCH)
    first, second = bench.recorder(), bench.recorder()
    async with bench.joined(first, second) as (one, other):
        one.write(data)
        other.write(data)
        for end in (first, second):
            await bench.until(partial(end.has, len(data)), "all bytes arrive")
            assert end.data == data, "the bytes arrive as they were written"


async def never_calls_the_peer_from_write(bench: Bench) -> None:
    first, second = bench.recorder(), bench.recorder()
    async with bench.joined(first, second) as (one, _):
        one.write(b"data")
        assert not second.data, "what is written arrives in a later turn of the event loop"
        await bench.until(lambda: second.data == b"data", "the bytes arrive")


async def refuses_what_is_not_bytes(bench: Bench) -> None:
    first, second = bench.recorder(), bench.recorder()
    async with bench.joined(first, second) as (one, _):
        try:
            one.write("text")
        except TypeError:
            return
        raise AssertionError("write() raises TypeError for a str")


async def loses_a_buffered_protocol_without_room(bench: Bench) -> None:
    first, second = bench.recorder(), bench.recorder(room=0)
    async with bench.joined(first, second) as (one, _):
        one.write(b"data")
        await bench.until(lambda: second.lost, "an empty buffer ends the connection")
        assert isinstance(second.error, RuntimeError), f"with RuntimeError: {second.error!r}"
        assert second.error in bench.reported, "the event loop's exception handler is told"


async def fills_the_buffers_of_a_buffered_protocol(bench: Bench) -> None:
    data = pattern(4_000)
    first, second = bench.recorder(), bench.recorder(room=1_000)
    async with bench.joined(first, second) as (one, _):
        one.write(data)
        one.close()
        await bench.until(lambda: "eof" in second.events, "the end arrives after the bytes")
        assert second.data == data, "a BufferedProtocol gets the bytes as they were written"


# --- flow control of the writer ---


async def pauses_and_resumes_the_writer(bench: Bench) -> None:
    first, second = bench.recorder(), bench.recorder()
    async with bench.joined(first, second) as (one, other):
        one.set_write_buffer_limits(high=20_000, low=5_000)
        other.pause_reading()
        sizes: list[int] = []
        for event in ("pause", "resume"):
            first.on[event] = lambda: sizes.append(one.get_write_buffer_size())
        written = await bench.fill(first)
        assert sizes[-1] > 20_000, f"pause_writing is called above the high limit, not at {sizes[-1]}"
        other.resume_reading()
        await bench.until(lambda: first.events[-1] == "resume", "resume_writing is called")
        assert sizes[-1] <= 5_000, f"resume_writing is called at the low limit, not at {sizes[-1]}"
        await bench.until(lambda: len(second.data) == written, "all bytes arrive")
        assert one.get_write_buffer_size() == 0, "the buffer is empty when everything has arrived"


async def lets_the_writer_write_when_it_resumes(bench: Bench) -> None:
    first, second = bench.recorder(), bench.recorder()
    async with bench.joined(first, second) as (one, other):
        first.on["resume"] = lambda: one.write(b"the last")
        other.pause_reading()
        await bench.fill(first)
        other.resume_reading()
        await bench.until(lambda: second.data.endswith(b"the last"), "what was written then arrives")


async def pauses_at_once_without_a_buffer(bench: Bench) -> None:
    first, second = bench.recorder(), bench.recorder()
    async with bench.joined(first, second) as (one, other):
        one.set_write_buffer_limits(high=0)
        other.pause_reading()
        written = await bench.fill(first)
        sizes: list[int] = []
        first.on["resume"] = lambda: sizes.append(one.get_write_buffer_size())
        other.resume_reading()
        await bench.until(lambda: len(second.data) == written, "all bytes arrive")
        await bench.until(lambda: first.events[-1] == "resume", "resume_writing is called")
        assert sizes[-1] == 0, f"resume_writing is called when the buffer is empty, not at {sizes[-1]}"


async def resumes_the_writer_after_write_eof(bench: Bench) -> None:
    first, second = bench.recorder(), bench.recorder()
    async with bench.joined(first, second) as (one, other):
        if not one.can_write_eof():
            return
        other.pause_reading()
        written = await bench.fill(first)
        one.write_eof()
        other.resume_reading()
        await bench.until(lambda: first.events[-1] == "resume", "resume_writing is called")
        await bench.until(lambda: "eof" in second.events, "the end arrives")
        assert len(second.data) == written, "the end arrives after all bytes"


async def checks_the_limits_of_its_buffer(bench: Bench) -> None:
    first, second = bench.recorder(), bench.recorder()
    async with bench.joined(first, second) as (one, _):
        one.set_write_buffer_limits(high=1_000)
        low, high = one.get_write_buffer_limits()
        assert 0 <= low <= high == 1_000, f"the limits are those that were set, not {(low, high)}"
        try:
            one.set_write_buffer_limits(high=1, low=2)
        except ValueError:
            return
        raise AssertionError("set_write_buffer_limits(high=1, low=2) raises ValueError")


# --- flow control of the reader ---


async def gives_nothing_to_a_reader_that_pauses(bench: Bench) -> None:
    first, second = bench.recorder(), bench.recorder()
    async with bench.joined(first, second) as (_, other):
        other.pause_reading()
        assert not other.is_reading(), "is_reading() is false after pause_reading()"
        written = await bench.fill(first)
        assert not second.data, "nothing arrives while reading is paused"
        other.resume_reading()
        assert other.is_reading(), "is_reading() is true after resume_reading()"
        await bench.until(lambda: len(second.data) == written, "what waited arrives after it")


async def may_pause_in_the_middle(bench: Bench) -> None:
    data = pattern(MUCH)
    first, second = bench.recorder(), bench.recorder()
    async with bench.joined(first, second) as (one, other):
        second.on["data"] = other.pause_reading
        one.write(data)
        for _ in range(3):
            await bench.until(partial(second.has, len(second.data) + 1), "bytes arrive")
            after = len(second.data)
            await bench.turns()
            assert len(second.data) == after, "nothing arrives while reading is paused"
            other.resume_reading()
        del second.on["data"]
        other.resume_reading()
        await bench.until(lambda: len(second.data) >= len(data), "all bytes arrive")
        assert second.data == data, "no byte is lost or doubled by a pause"


async def holds_the_end_back_from_a_reader_that_pauses(bench: Bench) -> None:
    first, second = bench.recorder(), bench.recorder()
    async with bench.joined(first, second) as (one, other):
        other.pause_reading()
        written = await bench.fill(first)
        one.close()
        other.resume_reading()
        second.on["data"] = other.pause_reading
        await bench.until(lambda: second.data, "bytes arrive")
        await bench.turns()
        assert "eof" not in second.events, "the end does not arrive before the bytes"
        del second.on["data"]
        other.resume_reading()
        await bench.until(lambda: "eof" in second.events, "the end arrives after resume_reading()")
        assert len(second.data) == written, "the end arrives after all bytes"


BODIES: tuple[Body, ...] = (
    begins,
    may_be_closed_as_it_begins,
    may_pause_as_it_begins,
    may_be_written_to_as_it_begins,
    may_get_another_protocol_as_it_begins,
    carries_bytes_in_order,
    carries_much_both_ways,
    never_calls_the_peer_from_write,
    refuses_what_is_not_bytes,
    loses_a_buffered_protocol_without_room,
    fills_the_buffers_of_a_buffered_protocol,
    pauses_and_resumes_the_writer,
    lets_the_writer_write_when_it_resumes,
    pauses_at_once_without_a_buffer,
    resumes_the_writer_after_write_eof,
    checks_the_limits_of_its_buffer,
    gives_nothing_to_a_reader_that_pauses,
    may_pause_in_the_middle,
    holds_the_end_back_from_a_reader_that_pauses,
)
