"""What the tests of the command line share: servers in the background, and running the program.

The program runs in the process of the tests, with a loop of its own, so the servers that it asks run in
a thread.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import pytest
import shop
from pki import issue

from amp_asyncio import AMP, AmpBox, BoxParser, Certificate, PrivateCertificate, serve, unix_serve
from amp_asyncio.cli import main

_T = TypeVar("_T")


class Background:
    """An event loop in a thread, and the servers in it."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        self.closing: list[Callable[[], Awaitable[Any]]] = []

    def do(self, work: Coroutine[Any, Any, _T]) -> _T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    def serve(self, factory: Callable[[], AMP] = shop.Shop, **options: Any) -> str:
        """Serve AMP over TCP, and return the address."""
        return self.do(self._serve(factory, **options))

    async def _serve(self, factory: Callable[[], AMP], **options: Any) -> str:
        server = await serve(factory, "127.0.0.1", 0, **options)
        self.closing.append(lambda: server.close(0.1))
        return f"127.0.0.1:{server.sockets[0].getsockname()[1]}"

    def serve_unix(self, path: Path, **options: Any) -> str:
        self.do(self._serve_unix(path, **options))
        return str(path)

    async def _serve_unix(self, path: Path, **options: Any) -> None:
        server = await unix_serve(shop.Shop, path, **options)
        self.closing.append(lambda: server.close(0.1))

    def serve_bytes(self, handler: Callable[..., Awaitable[None]], **options: Any) -> str:
        """Serve a byte stream, and return the address."""
        return self.do(self._serve_bytes(handler, **options))

    async def _serve_bytes(self, handler: Callable[..., Awaitable[None]], **options: Any) -> str:
        tasks = set()

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            tasks.add(task)
            with suppress(ConnectionError, asyncio.CancelledError):
                await handler(reader, writer)
            writer.close()
            with suppress(OSError, asyncio.CancelledError):
                await writer.wait_closed()

        server = await asyncio.start_server(handle, "127.0.0.1", 0, **options)

        async def close() -> None:
            server.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        self.closing.append(close)
        return f"127.0.0.1:{server.sockets[0].getsockname()[1]}"

    def clear(self) -> None:
        while self.closing:
            close: Any = self.closing.pop()()
            self.do(close)

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


@pytest.fixture(scope="session")
def loop_in_thread() -> Iterator[Background]:
    background = Background()
    yield background
    background.stop()


@pytest.fixture
def background(loop_in_thread: Background) -> Iterator[Background]:
    yield loop_in_thread
    loop_in_thread.clear()


def answering(
    answers: dict[bytes, dict[bytes, bytes]], asked: list[AmpBox] | None = None
) -> Callable[..., Awaitable[None]]:
    """Return what serves these answers, by the names of the commands; errors have their codes in them.

    What is not there is not answered at all, as with some peers. For answers that depend on the
    question, there is a key of the name, an equals sign and its argument `service`. What is asked is
    added to `asked`.
    """

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        parser = BoxParser()
        while data := await reader.read(65536):
            parser.feed(data)
            while (box := parser.next_box()) is not None:
                if asked is not None:
                    asked.append(box)
                name = box[b"_command"]
                if b"service" in box:
                    name += b"=" + box[b"service"]
                answer = answers.get(name)
                if answer is not None:
                    kind = b"_error" if b"_error_code" in answer else b"_answer"
                    writer.write(AmpBox({kind: box[b"_ask"], **answer}).serialize())

    return handle


class Ended:
    """How a run of the program ended."""

    def __init__(self, status: int, out: str, err: str) -> None:
        self.status = status
        self.out = out
        self.err = err

    @property
    def printed(self) -> tuple[int, str]:
        """The status and the output of a run that reported no error."""
        assert self.err == ""
        return self.status, self.out

    @property
    def failed(self) -> tuple[int, str]:
        """The status and the error, which is one line, of a run that printed nothing."""
        assert self.out == ""
        assert self.err.endswith("\n")
        assert self.err.count("\n") == 1
        return self.status, self.err[:-1].removeprefix("amp-asyncio: ")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """Return what runs the program with these arguments."""

    def run(*arguments: str | Path) -> Ended:
        capsys.readouterr()
        try:
            status = main([str(each) for each in arguments])
        except SystemExit as end:
            assert isinstance(end.code, int)
            status = end.code
        return Ended(status, *capsys.readouterr())

    return run


class Certificates:
    """An authority, a server and a client that it vouches for, and a stranger, each in a PEM file."""

    def __init__(self, folder: Path) -> None:
        authority = issue("authority", authority=True)
        self.authority = authority.certificate
        self.server = issue("server", authority, names=["127.0.0.1", "shop.example"])
        self.ca = self._write(folder / "ca.pem", authority.certificate.to_pem())
        self.client = self._write(folder / "client.pem", issue("client", authority).to_pem())
        self.server_file = self._write(folder / "server.pem", self.server.to_pem())
        stranger = PrivateCertificate.self_signed("stranger")
        self.stranger = self._write(folder / "stranger.pem", stranger.to_pem())
        self.key = self._write(folder / "key.pem", stranger.to_pem())

    @staticmethod
    def _write(path: Path, pem: bytes) -> Path:
        path.write_bytes(pem)
        return path

    def context(self, authorities: list[Certificate] | None = None) -> ssl.SSLContext:
        return self.server.ssl_context(server_side=True, authorities=authorities)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))
