"""Fixtures for pytest; it needs pytest and pytest-asyncio, and is loaded only where it is named.

In a `conftest.py`, or in a test module: `pytest_plugins = ["amp_asyncio.testing.plugin"]`. On the
command line: `pytest -p amp_asyncio.testing.plugin`.

- `amp_pair` makes pairs that end with the test.
- `scripted_peer` is a `ScriptedPeer` that is verified at the end of the test.
- `faults` are the lines of one connection.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
import pytest_asyncio

from ..amp import AMP
from .pairs import Faults, PairMaker, pair
from .scripted import ScriptedPeer

__all__ = ["amp_pair", "faults", "scripted_peer"]


@pytest_asyncio.fixture
async def amp_pair() -> AsyncIterator[PairMaker]:
    """Connect pairs with `server, client = await amp_pair(Server, Client)`; the arguments are `pair`'s.

    At the end of the test, they end in the reverse order, as `pair` does.
    """
    async with AsyncExitStack() as stack:

        async def connect(server: Any, client: Any = AMP, **options: Any) -> tuple[Any, Any]:
            return await stack.enter_async_context(pair(server, client, **options))

        yield connect


@pytest.fixture
def scripted_peer() -> Iterator[ScriptedPeer]:
    """A peer that expects commands in order; the test fails unless they have come."""
    peer = ScriptedPeer()
    yield peer
    peer.verify()


@pytest.fixture
def faults() -> Faults:
    """The lines of one connection, to be given to `pair`."""
    return Faults()
