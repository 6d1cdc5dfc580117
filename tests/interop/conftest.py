"""The fixtures of the conversations with Twisted: the process, who asks, and the connection."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from .conversations import Conversation, TwistedProcess, conversing


@pytest.fixture(scope="session")
def processes() -> Iterator[list[TwistedProcess]]:
    """The Twisted processes that were started: one for all tests, unless one breaks it."""
    started: list[TwistedProcess] = []
    yield started
    for process in started:
        process.close()


@pytest.fixture
def twisted(
    processes: list[TwistedProcess], tmp_path_factory: pytest.TempPathFactory
) -> TwistedProcess:
    if not processes or processes[-1].process.poll() is not None:
        processes.append(TwistedProcess(tmp_path_factory.mktemp("twisted")))
    return processes[-1]


@pytest.fixture(params=["ours", "twisted"])
def asker(request: pytest.FixtureRequest) -> str:
    """Who asks in a scenario."""
    return str(request.param)


@pytest_asyncio.fixture(params=["tcp-ours", "tcp-twisted"])
async def conversation(
    request: pytest.FixtureRequest, twisted: TwistedProcess, tmp_path: Path
) -> AsyncIterator[Conversation]:
    """A connection, its transport and its server as the parameter says."""
    transport, server = request.param.split("-")
    async with conversing(twisted, transport, server, tmp_path) as conversation:
        yield conversation
