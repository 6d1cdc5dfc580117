"""A file that is sent with its progress, and checked by its hash.

The client sends pieces; sending waits while the server does not keep up, so neither side has more of
the file in memory than `Limits.stream_window`. The answer comes after the last piece. An error of the
server ends the sending.

Run it: python examples/upload.py
"""

import asyncio
import hashlib
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Never

from attrs import frozen

from amp_asyncio import AMP, Stream, StreamCommand, connect, serve

HOST = "127.0.0.1"
PIECE = 60_000


@frozen
class Receipt:
    size: int
    sha256: str


class TooLarge(Exception):
    pass


class Upload(StreamCommand[Never, bytes, Receipt]):
    """The client sends `bytes` and gets nothing but the receipt at the end."""

    name: str
    errors = {TooLarge: b"TOO_LARGE"}


class Store(AMP):
    """Keeps files in `folder`, each of at most `largest` bytes."""

    largest = 3_000_000

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    @Upload.responder
    async def upload(self, stream: Stream[bytes, Never], name: str) -> Receipt:
        path = self.folder / Path(name).name
        digest = hashlib.sha256()
        size = 0
        try:
            with path.open("wb") as file:
                async for piece in stream:
                    size += len(piece)
                    if size > self.largest:
                        raise TooLarge(f"{name} has more than {self.largest} bytes")
                    digest.update(piece)
                    file.write(piece)
        except BaseException:
            # The client has left, the connection is lost, or the file is too large.
            path.unlink(missing_ok=True)
            raise
        return Receipt(size=size, sha256=digest.hexdigest())


async def upload(peer: AMP, path: Path, size: int) -> Receipt:
    digest = hashlib.sha256()
    shown = sent = 0
    async with peer.stream(Upload(name=path.name), timeout=60) as stream:
        with path.open("rb") as file:
            while piece := file.read(PIECE):
                await stream.send(piece)
                digest.update(piece)
                sent += len(piece)
                if sent * 4 // size > shown:
                    shown = sent * 4 // size
                    print(f"client: {shown * 25} % of {path.name}")
        await stream.finish()
        receipt = await stream.answer()
    if receipt.sha256 != digest.hexdigest():
        raise ValueError(f"{path.name} has arrived damaged")
    return receipt


def file_with(content: bytes, path: Path) -> Path:
    path.write_bytes(content)
    return path


async def main() -> None:
    with TemporaryDirectory() as ours, TemporaryDirectory() as theirs:
        small = file_with(bytes(range(256)) * 8000, Path(ours, "small"))
        large = file_with(bytes(4_000_000), Path(ours, "large"))
        async with serve(lambda: Store(Path(theirs)), HOST, 0) as server, connect(server) as peer:
            receipt = await upload(peer, small, 2_048_000)
            print("client: the server has", receipt.size, "bytes of it")
            try:
                await upload(peer, large, 4_000_000)
            except TooLarge as error:
                print("client:", error)
        print("stored:", *os.listdir(theirs))


if __name__ == "__main__":
    asyncio.run(main())
