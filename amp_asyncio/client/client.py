"""Client: a connection that stays, and a service on many machines."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from enum import Enum
from ssl import SSLContext
from types import TracebackType
from typing import Any, Generic, ParamSpec, Self, TypeVar, overload

from ..amp import AMP
from ..commands.command import Command, CommandType, not_a_question, question_of
from ..commands.exchange import DescriptorSchema
from ..commands.streams import Stream, StreamCommand
from ..limits import Limits
from ..logs import logger
from ..serving.acceptor import limited
from ..serving.checks import check_factory, check_limits
from ..session.changes import ChangingCommand
from ..session.interceptors import Interceptor, checked
from ..session.outbox import Outbox
from ..wire.boxes import COMMAND
from .addresses import source_of
from .asking import Ask, Question, unsent
from .keeping import Keepers
from .links import Link
from .policy import Backoff, Budget, Places
from .pool import Pool
from .resolving import Directory

__all__ = ["Client", "ClientState"]

_A = TypeVar("_A", bound=AMP)
_P = ParamSpec("_P")
_R = TypeVar("_R")
_In = TypeVar("_In")
_Out = TypeVar("_Out")

# How many seconds a call without a timeout waits for a connection.
_PATIENCE = 30.0

# How many seconds closing may take, and leaving after an error.
_CLOSING = 10.0
_LEAVING = 1.0


class ClientState(Enum):
    """What a `Client` is at the moment."""

    #: Not connected: the client is connecting, or waits to try again.
    CONNECTING = "connecting"
    #: At least one connection is open.
    CONNECTED = "connected"
    #: `on_connect` has raised `GiveUp`: every call fails with that error.
    FAILED = "failed"
    #: `close` was called.
    CLOSED = "closed"


class Client(Generic[_A]):
    """Connects, keeps connected, and spreads its questions over its connections.

    `target` is where the service is: an address, a list of addresses, an async function that returns
    such a list (a resolver), a `Server`, or what `children` returns. An address is `(host, port)`,
    `"host:port"`, or the path of a UNIX socket. The name of a host stands for all its addresses.

    The client begins when it is made, or, if no event loop runs then, at its first use. It ends with
    `async with`, or by `await client.close()`.

    Attributes:
        state: a `ClientState`; `on_state` is called with it when it changes.
    """

    def __init__(
        self,
        target: Any,
        # mypy wants a default to fit every `_A`; without this argument, a caller gets a Client[AMP].
        protocol_factory: Callable[[], _A] = AMP,  # type: ignore[assignment]
        *,
        connections: int | None = None,
        on_connect: Callable[[_A], Awaitable[object] | object] | None = None,
        on_state: Callable[[ClientState], object] | None = None,
        connect_timeout: float = 10.0,
        refresh: float | None = 30.0,
        backoff: Backoff | None = None,
        budget: Budget | None = None,
        max_waiting: int = 1_000,
        ssl: SSLContext | None = None,
        limits: Limits | None = None,
        interceptors: Sequence[Interceptor] = (),
        **options: Any,
    ) -> None:
        check_factory("Client(address, protocol_factory)", protocol_factory)
        check_limits("Client(address, protocol_factory)", limits)
        interceptors = checked(interceptors, "Client(address): interceptors")
        if ssl is not None:
            options["ssl"] = ssl
        source = source_of(target, options)
        backoff = backoff or source.backoff
        self._target = target
        self._connections = source.connections if connections is None else connections
        if self._connections < 1:
            raise ValueError(f"Client(connections=...) must be at least 1, not {connections!r}")
        self._refresh = None if source.fixed and self._connections == 1 else refresh
        self._on_state = on_state
        self._pool = Pool(self, _PATIENCE, max_waiting, budget or Budget())
        self._directory = Directory(
            source, Places(backoff, random.random), backoff, random.random, connect_timeout, self
        )
        self._keepers = Keepers(
            self,
            self._pool,
            self._directory,
            lambda: limited(protocol_factory, limits, interceptors),
            on_connect,
            connect_timeout,
            backoff.slow,
            self._give_up,
            self._changed,
        )
        self._directory.changed = self._keepers.balance
        # It never connects: it checks questions before the client has a connection for them.
        kind: Any = protocol_factory if isinstance(protocol_factory, type) else AMP
        self._stand_in = AMP(version=kind.protocol_version)
        self._stand_in.limits = limits or kind.limits
        self._started = False
        self.state = ClientState.CONNECTING
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return
        self._start()

    def _start(self) -> None:
        if not self._started and self.state is ClientState.CONNECTING:
            self._started = True
            self._keepers.start(self._connections, self._refresh)

    @property
    def connections(self) -> list[_A]:
        """The connections that are in use now, each an instance of what `protocol_factory` makes."""
        return [link.amp for link in self._pool.links]

    def __repr__(self) -> str:
        return f"<Client of {self._target!r}, {self.state.value}>"

    # --- asking ---

    def call(
        self,
        question: Command[_R],
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> asyncio.Future[_R]:
        """Ask as `AMP.call` does, on the connection with the fewest open questions.

        While the client is not connected, the question waits: for its timeout, or for 30 seconds
        without one. Then it fails with a `ConnectionLost` whose `sent` is false. What is wrong with a
        question is raised at once.

        A question whose connection is lost is asked again if it was not sent, or if its command says
        `idempotent`: within its timeout, and within the budget of the client. Any other fails with
        `ConnectionLost`. Cancelling the future does what it does with `AMP.call`.
        """
        if not isinstance(question, Command):
            raise not_a_question(question)
        link = self._pick(type(question))
        if link is None:
            self._check(question)

        def ask(amp: AMP, left: float | None) -> asyncio.Future[Any]:
            return AMP.call(amp, question, timeout=left, metadata=metadata)

        return self._ask(type(question), ask, link, timeout)

    @overload
    def callRemote(
        self, commandType: type[Command[dict[str, Any]]], *a: Any, **kw: Any
    ) -> asyncio.Future[dict[str, Any]]: ...
    @overload
    def callRemote(
        self, commandType: Callable[_P, Command[_R]], *a: _P.args, **kw: _P.kwargs
    ) -> asyncio.Future[_R]: ...
    def callRemote(self, commandType: Any, *a: Any, **kw: Any) -> asyncio.Future[Any]:
        """Ask as `AMP.callRemote` does; all else is as with `call`."""
        link = self._pick(commandType) if isinstance(commandType, CommandType) else None
        if link is None:
            self._check(question_of(commandType, a, kw))

        def ask(amp: AMP, left: float | None) -> asyncio.Future[Any]:
            return AMP.callRemote(amp, commandType, *a, **kw)

        command: Any = commandType
        return self._ask(command, ask, link, None)

    @asynccontextmanager
    async def stream(
        self,
        question: StreamCommand[_In, _Out, _R],
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> AsyncIterator[Stream[_In, _Out, _R]]:
        """Open a stream as `AMP.stream` does, on the connection with the fewest open questions.

        `async with` waits for a connection as `call` does, within the timeout. A stream stays on its
        connection, and ends with it: it is not asked again.
        """
        loop = asyncio.get_running_loop()

        def ask(amp: AMP, left: float | None) -> asyncio.Future[Any]:
            ready: asyncio.Future[Any] = loop.create_future()
            ready.set_result((amp, left))
            return ready

        self._start()
        waiting = Question(self._pool, ask, idempotent=False, keeps=True, timeout=timeout)
        found: Any = await self._pool.ask(waiting, self._pool.pick())
        amp, left = found
        ended: asyncio.Future[None] = loop.create_future()
        for link in self._pool.links:
            if link.amp is amp:
                link.asked(ended)  # It counts as an open question.
        try:
            async with AMP.stream(amp, question, timeout=left, metadata=metadata) as stream:
                yield stream
        finally:
            ended.set_result(None)

    def _pick(self, command: Any) -> Link | None:
        """Return the connection to ask, or None while the client is not connected."""
        if issubclass(command, ChangingCommand):
            raise TypeError(
                f"{command.__name__} changes one connection, and a Client may have many: do it in "
                "on_connect"
            )
        self._start()
        return self._pool.pick()

    def _ask(
        self, command: type[Command[Any]], ask: Ask, link: Link | None, timeout: float | None
    ) -> asyncio.Future[Any]:
        keeps = not isinstance(command.__amp__.arguments, DescriptorSchema)
        question = Question(
            self._pool, ask, idempotent=command.idempotent, keeps=keeps, timeout=timeout
        )
        return self._pool.ask(question, link)

    def _check(self, question: Command[Any]) -> None:
        """Raise what is wrong with a question that has no connection; it is encoded again for one."""
        box = question.makeArguments(question.structured, self._stand_in)
        box[COMMAND] = question.commandName
        limits = self._stand_in.limits
        question.__amp__.arguments.in_lists(box, limits.max_box_size)
        outbox = Outbox()
        outbox.version = self._stand_in.protocol_version
        outbox.max_box_size = limits.max_box_size
        outbox.serialize(box)

    # --- the state ---

    def _changed(self) -> None:
        self._set_state(ClientState.CONNECTED if self._pool.links else ClientState.CONNECTING)

    def _set_state(self, state: ClientState) -> None:
        if state is self.state:
            return
        self.state = state
        logger.info("%r", self)
        if self._on_state is not None:
            try:
                self._on_state(state)
            except Exception:
                logger.exception("%r: on_state() failed", self)

    def _give_up(self, error: Exception) -> None:
        logger.error("%r: giving up: %s", self, error)
        self._pool.end(error)
        self._keepers.drop(_CLOSING)
        self._set_state(ClientState.FAILED)

    # --- the end ---

    async def close(self, timeout: float | None = 10.0) -> None:
        """Close in order, and return when all connections are gone.

        The calls that wait for a connection fail; those that are open get their answers. All that may
        take `timeout` seconds (None: as long as it takes); then the connections are aborted. Cancelling
        it aborts them.
        """
        await self._close(timeout, leave=False)

    async def _close(self, timeout: float | None, leave: bool) -> None:
        if self._pool.over is None:
            self._pool.end(unsent(f"the client of {self._target!r} is closed"))
        try:
            await self._keepers.close(timeout, leave)
        finally:
            self._set_state(ClientState.CLOSED)

    async def __aenter__(self) -> Self:
        self._start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._close(_CLOSING if kind is None else _LEAVING, leave=kind is not None)
