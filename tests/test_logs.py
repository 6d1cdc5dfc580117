"""What a peer can write into the log, and how much of it."""

from __future__ import annotations

import contextlib
import logging
import re
from types import SimpleNamespace
from typing import Any

import pytest
from support import Math, Sum, listening, raw_client, raw_pair, reach, turns

from amp_asyncio import AMP, AmpBox, Command, String, UnknownRemoteError
from amp_asyncio.logs import Lines

EVIL = "evil\n2026-01-01 CRITICAL forged\r\x1b[31m\u202e\x9b" * 2000


class Odd(String):
    """Reads nothing, and says what it got."""

    def fromString(self, inString: bytes) -> Any:
        raise ValueError(inString.decode())


class Fail(Command):
    arguments = [(b"data", String())]
    errors = {ValueError: b"VALUE"}
    requiresAnswer = False


class Crash(Command):
    arguments = [(b"data", String())]


class Read(Command):
    arguments = [(b"data", Odd())]


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class Failing(AMP):
    """Fails with the text that it gets, in each way that there is."""

    @Fail.responder
    def fail(self, data: bytes) -> dict[str, Any]:
        raise ValueError(data.decode())

    @Crash.responder
    async def crash(self, data: bytes) -> dict[str, Any]:
        text = data.decode()
        try:
            raise KeyError(text)
        except KeyError as first:
            group = ExceptionGroup(text, [OSError(text), Unprintable()])
            group.add_note(text)
            if text == "suppressed":
                raise group from None
            raise group from first

    @Read.responder
    def read(self, data: Any) -> dict[str, Any]:
        raise AssertionError


def box(called: bytes, **values: bytes) -> AmpBox:
    return AmpBox(_command=called, **values)


def lines(caplog: pytest.LogCaptureFixture, level: int = logging.WARNING) -> list[logging.LogRecord]:
    return [each for each in caplog.records if each.levelno >= level]


def left_out(caplog: pytest.LogCaptureFixture) -> int:
    return sum(int(number) for number in re.findall(r"(\d+) lines before this one", caplog.text))


# --- text ---


@pytest.mark.parametrize("name", [b"Fail", b"Crash", b"Read", EVIL.encode()[:200]])
async def test_the_text_of_a_peer_is_escaped_and_shortened(
    name: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with raw_pair(Failing) as (_, peer):
        peer.send(box(name, data=EVIL.encode()[:60_000]))
        await turns()
    assert len(lines(caplog)) == 1
    assert "evil" in caplog.text
    assert not re.search(r"[\x1b\x9b\r\u202e]|^\s*2026-01-01", caplog.text, re.MULTILINE)
    assert len(caplog.text) < 6000


async def test_a_traceback_says_what_python_says(caplog: pytest.LogCaptureFixture) -> None:
    async with raw_pair(Failing) as (_, peer):
        peer.send(box(b"Crash", data=b"text"), box(b"Crash", data=b"suppressed"))
        await turns()
    first, second = lines(caplog)
    assert first.exc_info
    assert first.exc_text
    assert re.findall(r"^(?:  \| )?[\w.]*(?:Error|Group|Unprintable): .*$", first.exc_text, re.M) == [
        "KeyError: 'text'",
        "ExceptionGroup: text (2 sub-exceptions)",
        "  | OSError: text",
        "  | test_logs.Unprintable: <its str() failed>",
    ]
    assert "\ntext\n" in first.exc_text, "the note"
    assert first.exc_text.count("Traceback (most recent call last)") == 2
    assert second.exc_text
    assert "KeyError: " not in second.exc_text


async def test_a_long_chain_of_errors_is_cut(caplog: pytest.LogCaptureFixture) -> None:
    error: Exception = ExceptionGroup("x", [OSError(str(number)) for number in range(100)])
    for number in range(100):
        error.__context__, error = KeyError(number), error
        error.__context__.__context__ = None
    chain = error
    for number in range(100):
        later = KeyError(number)
        later.__cause__ = chain
        chain = later
    Lines().error("%r", "this", error=chain)
    Lines().error("%r", "this", error=error)
    loop = OSError("loop")
    loop.__context__ = KeyError("other")
    loop.__context__.__context__ = loop
    Lines().error("%r", "this", error=loop)
    Lines().error("%r has no error", "this")
    for record, most in zip(caplog.records, (11, 11, 2, 0), strict=True):
        assert (record.exc_text or "").count("Error: ") <= most


# --- how many lines ---


@pytest.mark.parametrize("name", [b"Unheard", b"Fail", b"Crash", b"Read"])
async def test_a_peer_cannot_cause_many_lines(name: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async with raw_pair(Failing) as (_, peer):
        for _ in range(10):
            peer.send(*50 * [box(name, data=b"x")])
            await turns()
    written = [each for each in lines(caplog) if "were left out" not in each.getMessage()]
    assert len(written) < 60
    assert len(written) + left_out(caplog) == 500
    assert "were left out" in lines(caplog)[-1].getMessage()


def test_there_are_some_lines_again_after_a_while(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 10.0
    monkeypatch.setattr("amp_asyncio.logs.time", SimpleNamespace(monotonic=lambda: now))
    whole = Lines(at_once=3, per_second=1)
    parts = [Lines(whole, at_once=2, per_second=1) for _ in range(2)]
    for now in (10.0, 11.0, 100.0):
        for part in parts:
            for _ in range(5):
                part.warning("%r: a line", now)
        for part in parts:
            part.warning("%r: another line", now)
            part.end(now)  # There may be no more lines now: this is said later.
    counts = [caplog.text.count(f"{now}: a line") for now in (10.0, 11.0, 100.0)]
    assert counts == [3, 1, 2]
    now = 200.0
    for _ in range(2):
        for part in parts:
            part.end("the end")
    assert sum(counts) + left_out(caplog) + caplog.text.count("another line") == 36


async def test_many_connections_cannot_cause_many_lines(caplog: pytest.LogCaptureFixture) -> None:
    async with listening(Failing) as server, reach(server) as other:
        for _ in range(25):
            async with raw_client(server) as (reader, writer):
                writer.write(box(b"Unheard").serialize() * 30)
                writer.write_eof()
                await reader.read()
        with pytest.raises(UnknownRemoteError):
            await other.callRemote(Crash, data=b"x")
    assert 200 <= len(lines(caplog)) < 300


async def test_connecting_again_and_again_cannot_cause_many_lines(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with listening(Failing) as server:
        for _ in range(60):
            async with raw_client(server) as (reader, writer):
                writer.write(b"GET / HTTP/1.0\r\n\r\n")
                with contextlib.suppress(ConnectionError):
                    await reader.read()
    assert 20 <= len(lines(caplog)) < 40
    assert "this looks like HTTP" in caplog.text


# --- errors that are the peer's ---


async def test_a_peer_that_hangs_up_while_it_is_asked_causes_no_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Asking(Math):
        @Crash.responder
        async def crash(self, data: bytes) -> dict[str, Any]:
            await self.callRemote(Sum, a=1, b=1)
            raise AssertionError

    async with raw_pair(Asking) as (_, peer):
        peer.send(box(b"Crash", _ask=b"1", data=b""))
        await turns()
        peer.transport.write_eof()
        await peer.until(lambda: "eof" in peer.events)
        assert peer.boxes()[-1][b"_error_code"] == b"UNKNOWN"
    (record,) = lines(caplog)
    assert record.levelno == logging.WARNING
    assert not record.exc_info
    assert "the responder of b'Crash' gave up" in record.getMessage()


async def test_starttls_inside_tls_causes_no_error(caplog: pytest.LogCaptureFixture) -> None:
    async with raw_pair(extra={"sslcontext": True}) as (_, peer):
        peer.send(box(b"StartTLS", _ask=b"1"))
        await turns()
        assert peer.boxes()[0][b"_error_code"] == b"UNKNOWN"
        (record,) = lines(caplog)
        assert record.levelno == logging.WARNING
        assert not record.exc_info
        assert "it can be started only once" in record.getMessage()
        peer.send(box(b"Sum", _ask=b"2", a=b"1", b=b"1"))
        await turns()
        assert peer.boxes()[1][b"total"] == b"2"


def test_a_record_of_somebody_else(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("amp_asyncio").warning("%(what)s and %(more)d", {"what": "this", "more": 2})
    assert "this and 2" in caplog.text
