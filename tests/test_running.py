"""A service as a process: the signals that end it, and what systemd passes and wants to know."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from support import Math, Patient, Sum, Wait, at_any_pace, turns

from amp_asyncio import (
    AMP,
    ConnectionLost,
    PrivateCertificate,
    connect,
    listen_fds,
    run,
    sd_notify,
    serve,
    unix_connect,
    unix_serve,
)


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


class Notified:
    """A socket for messages such as systemd has one."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(path)
        self._socket.setblocking(False)

    def messages(self) -> list[str]:
        found = []
        with contextlib.suppress(BlockingIOError):
            while True:
                found.append(self._socket.recv(1_000).decode())
        return found

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def notified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    path = str(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", path)
    messages = Notified(path)
    yield messages
    messages.close()


@asynccontextmanager
async def running(
    notified: Notified, *services: Any, **options: Any
) -> AsyncIterator[asyncio.Task[None]]:
    """Run services, as soon as they are ready; they must have ended at the end."""
    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    task = asyncio.ensure_future(run(*services, **options))
    try:
        said: list[str] = []
        while not said:
            await asyncio.sleep(0)
            said = notified.messages()
        assert said == ["READY=1"]
        yield task
        await task
    finally:
        task.cancel()
        await asyncio.wait([task])
    assert {each: signal.getsignal(each) for each in before} == before


class Old(AMP):
    """A peer that knows no extensions."""

    extensions = False


def tell(number: int) -> None:
    os.kill(os.getpid(), number)


# --- ending ---


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@at_any_pace
async def test_it_ends_in_order(number: int, notified: Notified, tmp_path: Path, pace: float) -> None:
    path = tmp_path / "amp"
    amps: list[Patient] = []

    def factory() -> Patient:
        amps.append(Patient())
        return amps[-1]

    async with running(notified, unix_serve(factory, path), grace=0.05 * pace) as task:
        async with unix_connect(path, Old) as amp:
            call = amp.callRemote(Wait, name="x")
            await until(lambda: amps and amps[0].started.qsize())
            tell(number)
            await until(lambda: notified.messages() == ["STOPPING=1"])
            # It goes on accepting and answering.
            async with unix_connect(path) as late:
                assert await late.callRemote(Sum, a=13, b=81) == {"total": 94}
            assert await amp.callRemote(Sum, a=13, b=81) == {"total": 94}
            assert not task.done()
            await until(lambda: not path.exists() or not _listens(path))
            assert not task.done()
            amps[0].let("x")
            assert await call == {"name": "x"}


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.setblocking(False)
        try:
            sock.connect(str(path))
        except OSError:
            return False
        return True


async def test_a_second_signal_ends_it_at_once(notified: Notified) -> None:
    reloaded = asyncio.Event()
    service = serve(Math, "127.0.0.1", 0)
    async with running(notified, service, grace=1_000, reload=reloaded.set):
        tell(signal.SIGHUP)
        await reloaded.wait()
        tell(signal.SIGTERM)
        await turns()
        tell(signal.SIGTERM)


async def test_several_services(notified: Notified, tmp_path: Path) -> None:
    paths = [tmp_path / "a", tmp_path / "b"]
    async with running(notified, *(unix_serve(Math, path) for path in paths), grace=0.001):
        for path in paths:
            await until(path.exists)
            async with unix_connect(path) as amp:
                assert await amp.callRemote(Sum, a=13, b=81) == {"total": 94}
        tell(signal.SIGTERM)


async def test_one_that_cannot_listen(tmp_path: Path) -> None:
    missing = tmp_path / "missing" / "amp"
    with pytest.raises(OSError):
        await run(unix_serve(Math, tmp_path / "amp"), unix_serve(Math, missing))
    wrong: Any = Math
    with pytest.raises(TypeError, match=r"run\(\) takes what serve\(...\) returns"):
        await run(wrong)


async def test_a_cancelled_run_closes_its_servers(tmp_path: Path) -> None:
    path = tmp_path / "amp"
    task = asyncio.ensure_future(run(unix_serve(Math, path)))
    await until(path.exists)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not _listens(path)


PROGRAM = """
import asyncio
from amp_asyncio import AMP, run, unix_serve
import sys
asyncio.run(run(unix_serve(AMP, sys.argv[1]), grace=0.05))
"""


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_its_exit_status_is_0(number: int, tmp_path: Path) -> None:
    path = tmp_path / "amp"
    with subprocess.Popen([sys.executable, "-c", PROGRAM, path], stderr=subprocess.PIPE) as process:
        while not path.exists():
            assert process.poll() is None
        process.send_signal(number)
        assert process.wait(60) == 0
        assert process.stderr is not None
        assert process.stderr.read() == b""


# --- reloading ---


def context_of(certificate: PrivateCertificate) -> ssl.SSLContext:
    return certificate.ssl_context(server_side=True)


async def fingerprint(port: int) -> str:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    async with connect("127.0.0.1", port, ssl=context) as amp:
        await amp.callRemote(Sum, a=1, b=1)
        assert amp.peerCertificate is not None
        return amp.peerCertificate.fingerprint


async def test_certificates_are_reloaded(notified: Notified, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "amp_asyncio")
    made = [PrivateCertificate.self_signed("127.0.0.1") for _ in range(2)]
    outcomes: list[Any] = [context_of(made[1]), LookupError("no such file"), None]

    async def reload() -> Any:
        await asyncio.sleep(0)
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    serving = serve(Math, "127.0.0.1", port, ssl=context_of(made[0]))
    async with running(notified, serving, grace=0.001, reload=reload):
        first = await fingerprint(port)
        for words in ("reloaded", "reloading failed", "reloaded"):
            caplog.clear()
            tell(signal.SIGHUP)
            await until(lambda words=words: words in caplog.text)  # type: ignore[misc]
            assert await fingerprint(port) != first
        tell(signal.SIGTERM)


async def test_a_reload_that_hangs_ends_with_the_service(notified: Notified) -> None:
    begun = asyncio.Event()

    async def reload() -> None:
        begun.set()
        await asyncio.get_running_loop().create_future()

    async with running(notified, serve(Math, "127.0.0.1", 0), grace=0.001, reload=reload):
        tell(signal.SIGHUP)
        await begun.wait()
        tell(signal.SIGTERM)


async def test_what_cannot_take_the_place_of_a_context() -> None:
    context: Any = ssl.create_default_context()
    async with serve(AMP, "127.0.0.1", 0) as server:
        with pytest.raises(TypeError, match=r"only an ssl.SSLContext can replace another one"):
            server.ssl = context
        assert server.ssl is None


# --- systemd ---


def test_sockets_of_systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """(`deploy/test_engines.py` has a program that systemd's own tool starts.)"""
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    monkeypatch.setenv("LISTEN_FDS", "2")

    def found(*names: str) -> list[str]:
        sockets = listen_fds(*names)
        assert not any(sock.get_inheritable() for sock in sockets)
        names_found = [os.path.basename(sock.getsockname()) for sock in sockets]
        for sock in sockets:
            sock.detach()
        return names_found

    with contextlib.ExitStack() as stack:
        start = 200
        for at, each in enumerate("ab"):
            sock = stack.enter_context(socket.socket(socket.AF_UNIX))
            sock.bind(str(tmp_path / each))
            os.dup2(sock.fileno(), start + at)
            stack.callback(os.close, start + at)
        monkeypatch.setattr("amp_asyncio.running.LISTEN_FDS_START", start)
        assert found() == ["a", "b"]
        monkeypatch.setenv("LISTEN_FDNAMES", "one:two")
        assert found() == ["a", "b"]
        assert found("two") == ["b"]
        assert found("three") == []
        monkeypatch.setenv("LISTEN_FDNAMES", "one")
        assert found("one") == ["a"]
        assert found("") == ["b"]


def test_sockets_that_are_for_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    assert listen_fds() == []
    monkeypatch.setenv("LISTEN_PID", "1")
    monkeypatch.setenv("LISTEN_FDS", "1")
    assert listen_fds() == []


def test_messages_to_systemd(
    notified: Notified, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert sd_notify("STATUS=thinking")
    assert notified.messages() == ["STATUS=thinking"]
    monkeypatch.delenv("NOTIFY_SOCKET")
    assert not sd_notify("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", f"@amp_asyncio-{os.getpid()}")
    assert not sd_notify("READY=1")
    assert "systemd cannot be told" in caplog.text
    abstract = Notified(f"\0amp_asyncio-{os.getpid()}")
    assert sd_notify("READY=1")
    assert abstract.messages() == ["READY=1"]
    abstract.close()


# --- leaving ---


async def test_a_server_that_leaves_goes_on_accepting_and_answering() -> None:
    async with serve(Math, "127.0.0.1", 0) as server:
        server.health["db"] = True
        async with connect(server) as amp, connect(server.address, Old) as old:
            assert await amp.health()
            assert await amp.health("db")
            server.leave()
            # A peer of this package asks no more.
            with pytest.raises(ConnectionLost, match="the peer takes no new questions") as lost:
                while True:
                    await amp.callRemote(Sum, a=13, b=81)
            assert not lost.value.sent
            # Any other does, and whoever comes anew gets an answer.
            for _ in range(3):
                assert await old.callRemote(Sum, a=13, b=81) == {"total": 94}
            async with connect(server) as late:
                assert await late.callRemote(Sum, a=13, b=81) == {"total": 94}
            for service in (None, "db"):
                async with connect(server) as check:
                    assert not await check.health(service)
