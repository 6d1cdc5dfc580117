"""serve: what is served, and how it ends.

The program has the main thread, as in a process of its own, and a client in another thread talks to it.
"""

from __future__ import annotations

import io
import logging
import os
import re
import signal
import socket
import ssl
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from amp_asyncio import AmpBox, parseString
from amp_asyncio.cli import main

Run = Callable[..., Any]


class Output(io.StringIO):
    """What the program prints, line by line, for a thread that waits for it."""

    def __init__(self) -> None:
        super().__init__()
        self.printed = threading.Event()

    def write(self, text: str) -> int:
        written = super().write(text)
        if "\n" in text:
            self.printed.set()
        return written


def serve_while(
    monkeypatch: pytest.MonkeyPatch,
    use: Callable[[str], None],
    *arguments: str | Path,
    ends_with: int | None = signal.SIGINT,
) -> int:
    """Run `serve` with these arguments, `use` the address that it prints, and interrupt it."""
    output = Output()
    monkeypatch.setattr(sys, "stdout", output)
    failures: list[BaseException] = []
    at_work, running = threading.Lock(), [True]

    def client() -> None:
        try:
            assert output.printed.wait(20)
            found = re.match(r"listening on (.*)\n", output.getvalue())
            assert found is not None
            use(found[1])
        except BaseException as failure:
            failures.append(failure)
        if ends_with is not None or failures:
            with at_work:
                if running:
                    os.kill(os.getpid(), ends_with or signal.SIGINT)

    thread = threading.Thread(target=client)
    thread.start()
    try:
        status = main(["serve", *map(str, arguments)])
    finally:
        with at_work:
            running.clear()
        output.printed.set()
        thread.join()
    if failures:
        raise failures[0]
    return status


def ask(stream: socket.socket, command: bytes, **values: bytes) -> AmpBox:
    stream.sendall(AmpBox(_command=command, _ask=b"1", **values).serialize())
    (answer,) = parseString(stream.recv(1000))
    return answer


def open_tcp(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    return socket.create_connection((host.strip("[]"), int(port)), 20)


@pytest.mark.parametrize("ends_with", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("address", [[], ["127.0.0.1:0"], [":0"]])
def test_over_tcp(monkeypatch: pytest.MonkeyPatch, address: list[str], ends_with: int) -> None:
    def use(where: str) -> None:
        with open_tcp(where) as client:
            assert ask(client, b"Sum", a=b"1", b=b"2") == {b"_answer": b"1", b"total": b"3"}

    assert serve_while(monkeypatch, use, "shop:Shop", *address, ends_with=ends_with) == 0


def test_over_a_unix_socket(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "socket"

    def use(where: str) -> None:
        assert where == str(path)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(where)
            assert ask(client, b"Sum", a=b"1") == {b"_answer": b"1", b"total": b"1"}

    assert serve_while(monkeypatch, use, "shop:Shop", path) == 0
    assert not path.exists()


@pytest.mark.parametrize("verifies", [False, True])
def test_over_tls(monkeypatch: pytest.MonkeyPatch, certificates: Any, verifies: bool) -> None:
    context = ssl.create_default_context(cafile=certificates.ca)
    if verifies:
        context.load_cert_chain(certificates.client)

    def use(where: str) -> None:
        with context.wrap_socket(open_tcp(where), server_hostname="shop.example") as client:
            assert ask(client, b"Sum", a=b"1") == {b"_answer": b"1", b"total": b"1"}

    options = ["--cafile", certificates.ca] if verifies else []
    tls = ("--tls", "--cert", certificates.server_file, *options)
    assert serve_while(monkeypatch, use, "shop:Shop", "127.0.0.1:0", *tls) == 0


def interrupt_and_wait(address: str) -> None:
    """Interrupt the program, and return when it listens no more: it has taken the signal."""
    os.kill(os.getpid(), signal.SIGINT)
    with suppress(ConnectionError):
        while True:
            open_tcp(address).close()


@pytest.mark.slow
def test_what_is_being_answered_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    def use(where: str) -> None:
        with open_tcp(where) as client:
            question = ask(client, b"Slow")
            assert question[b"_command"] == b"Continue"
            interrupt_and_wait(where)
            client.sendall(AmpBox(_answer=question[b"_ask"]).serialize())
            assert parseString(client.recv(1000)) == [{b"_answer": b"1", b"finished": b"True"}]

    assert serve_while(monkeypatch, use, "shop:Slowly", "127.0.0.1:0", ends_with=None) == 0


@pytest.mark.slow
def test_a_second_signal_aborts(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = []

    def use(where: str) -> None:
        client = open_tcp(where)
        kept.append(client)
        client.sendall(AmpBox(_command=b"Hang", _ask=b"2").serialize())
        assert ask(client, b"Sum", a=b"1")[b"total"] == b"1"
        interrupt_and_wait(where)

    assert serve_while(monkeypatch, use, "shop:Shop", "127.0.0.1:0") == 130
    kept[0].close()


def test_it_logs_what_goes_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    levels = [logging.getLogger(name).level for name in ("amp_asyncio", "asyncio")]

    def use(where: str) -> None:
        with open_tcp(where) as client:
            client.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert client.recv(1000) == b""

    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    assert serve_while(monkeypatch, use, "shop:Shop", "127.0.0.1:0") == 0
    assert stream.getvalue().startswith("WARNING <Shop")
    assert "this looks like HTTP" in stream.getvalue()
    assert levels == [logging.getLogger(name).level for name in ("amp_asyncio", "asyncio")]


def test_what_cannot_be_served(run: Run, tmp_path: Path, certificates: Any) -> None:
    broken = tmp_path / "broken_module.py"
    broken.write_text("1 / 0")
    sys.path.insert(0, str(tmp_path))
    try:
        for arguments, problem in (
            (["shop"], "shop: write module:Class"),
            (["shop:"], "shop:: write module:Class"),
            (["shop:Nothing"], "shop has no Nothing"),
            (["shop:Shop.nothing"], "shop has no Shop.nothing"),
            (["shop:NOT_A_FACTORY"], "serve(protocol_factory, host, port): protocol_factory must be"),
            (["no_such:Shop"], "cannot import no_such: ModuleNotFoundError"),
            (
                ["broken_module:Shop"],
                "cannot import broken_module: ZeroDivisionError: division",
            ),
            (["shop:Shop", "nowhere"], "nowhere is not an address"),
            (["shop:Shop", "--tls"], "--tls needs the certificate of the server: give --cert"),
            (["shop:Shop", "--cert", "x"], "--cert, --key and --cafile are for --tls"),
        ):
            status, line = run("serve", *arguments).failed
            assert (status, line[: len(problem)]) == (2, problem)
    finally:
        sys.path.remove(str(tmp_path))


def test_an_address_that_is_taken(run: Run, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        status, line = run("serve", "shop:Shop", address).failed
        assert status == 3
        assert line == f"cannot listen on {address}: Address already in use"
    path = tmp_path / "missing" / "socket"
    status, line = run("serve", "shop:Shop", path).failed
    assert (status, line) == (3, f"cannot listen on {path}: No such file or directory")
