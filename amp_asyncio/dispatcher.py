"""BoxDispatcher: a conversation over any sender of boxes, as people see it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ParamSpec, TypeVar, cast, overload

from .commands.command import Command, CommandType, not_a_question, question_of
from .commands.definitions import ByName
from .commands.streams import Stream, StreamCommand
from .composed import Composed
from .errors import ConnectionLost, NotServing, ProtocolSwitched, shortened
from .session.asking import ask, ask_description, ask_health, stream
from .session.at_once import ask_at_once
from .session.describing import read_description
from .session.interceptors import Interceptor, checked
from .session.locators import ResponderLocator
from .session.session import Session
from .wire.boxes import AmpBox, BoxSender

__all__ = ["BoxDispatcher"]

_BY_NAME = ByName()

_P = ParamSpec("_P")
_R = TypeVar("_R")
_In = TypeVar("_In")
_Out = TypeVar("_Out")


class BoxDispatcher(Composed):
    """Asks, answers, and keeps the two apart; `locator` finds the responders."""

    #: Whether the connection closes after an error that the command does not declare, as in Twisted.
    closeOnUnknownError: bool = False

    #: Whether an `async def` responder is cancelled when its caller gives up, or the connection is
    #: lost. A command overrides this with its own `cancellable`.
    cancellable: bool = True

    #: What surrounds each call, in both directions: async functions `around(call, proceed)`, the first
    #: one outermost. It is looked at when the connection is made.
    interceptors: Sequence[Interceptor] = ()

    #: Whether a peer has to say who it is first: until `identity` is set on this object, it finds only
    #: commands with `public = True`, `StartTLS` among them. All others are answered as unknown ones.
    identified_only: bool = False

    #: Who the peer is, as this side has found out: any object but None. A class that is not
    #: `identified_only` may use the name for something else.
    identity: Any = None

    #: Whether peers of this package speak with each other as such, with timeouts, cancelling and pings.
    #: None for yes, unless user code handles the boxes: a `boxReceiver`, or an override of
    #: `ampBoxReceived` or `sendBox`.
    extensions: bool | None = None

    #: Whether a peer may ask for the list of commands, with the names and types of their arguments.
    describable: bool = False

    def __init_subclass__(cls, **kw: Any) -> None:
        super().__init_subclass__(**kw)
        if not isinstance(cls.interceptors, property):
            checked(cls.interceptors, f"{cls.__name__}.interceptors")
        if cls.identified_only and cls.identity is not None:
            raise TypeError(
                f"{cls.__name__} is identified_only, and so its identity is set on each instance when "
                f"the peer is known: the class must not have one, but it has {cls.identity!r}"
            )
        chosen = vars(cls).get("extensions")
        if not isinstance(chosen, bool | None):
            raise TypeError(
                f"{cls.__name__}.extensions must be True, False or None, not {chosen!r}: it says "
                "whether the class speaks with peers of amp_asyncio as such"
            )

    def __init__(self, locator: ResponderLocator) -> None:
        self.locator = locator

    @property
    def locator(self) -> ResponderLocator:
        """What finds the responders."""
        locator = self.__amp__.locator
        # None stands for the object itself, which is a locator where its class (AMP) is one.
        return cast(ResponderLocator, self) if locator is None else locator

    @locator.setter
    def locator(self, locator: Any) -> None:
        self.__amp__.locator = None if locator is self else locator

    @property
    def boxSender(self) -> BoxSender | None:
        """What boxes are sent through, or None before `startReceivingBoxes`."""
        return self.__amp__.sender

    @overload
    def callRemote(
        self, commandType: type[Command[dict[str, Any]]], *a: Any, **kw: Any
    ) -> asyncio.Future[dict[str, Any]]: ...
    @overload
    def callRemote(
        self, commandType: Callable[_P, Command[_R]], *a: _P.args, **kw: _P.kwargs
    ) -> asyncio.Future[_R]: ...
    def callRemote(self, commandType: Any, *a: Any, **kw: Any) -> asyncio.Future[Any]:
        """Ask the peer to do a command, and return the future of its answer.

        The answer is a dictionary, or what a typed command says: an instance of a class, a value, None.

        The question is on its way when this returns, unless the peer does not keep up; questions
        leave in the order in which they were asked, but those of responders do not wait for the window.
        The future may be awaited at any time, or never.
        For a command whose `requiresAnswer` is false it gives None once the transport takes more data.

        Cancelling the future drops the answer when it comes. A peer of this package cancels its
        responder; any other does the command all the same, unless the question was still waiting to be
        sent.

        Raises, and then nothing was sent: `InvalidSignature` for missing or unknown arguments,
        `TooLong` for one that no box can hold, or for more than `Limits.max_box_size` of them, the
        error of an argument that does not encode, or `RuntimeError` before the connection is made.

        The future raises: one of the command's `errors`; `UnhandledCommand` if the peer has no
        responder; `UnknownRemoteError` if that failed otherwise; `MalformedAmpBox` if the answer does
        not parse; `ConnectionLost` and `ProtocolSwitched` if no answer can come. While the connection
        is closing, only responders may ask; all others get `ConnectionLost`.
        """
        if not a and type(commandType) is CommandType:
            definition = commandType.__amp__
            template = definition.template
            if template is not None:
                future = ask_at_once(self.__amp__.calls, template, definition, kw)
                if future is not None:
                    return future
        question = question_of(commandType, a, kw)
        # (Twisted's name for it. Commands may override it.)
        asked: asyncio.Future[Any] = question._doCommand(self)
        return asked

    def call(
        self,
        question: Command[_R],
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> asyncio.Future[_R]:
        """Ask the peer `question`, such as `Sum(a=13, b=81)`; all else is as with `callRemote`.

        After `timeout` seconds the future raises `DeadlineExceeded`, which is a `TimeoutError`. A peer
        of this package is told how long its answer is waited for, and also when the future is
        cancelled: it then cancels its responder. Without `timeout`, `Limits.default_timeout` counts.
        What a responder asks is never waited for longer than its own answer is.

        `metadata` goes along, for `current_call().metadata` of the responder.

        Raises `TypeError` or `ValueError` for a timeout or metadata that cannot be.
        """
        # Most metaclasses are this one, and `isinstance` takes more time.
        if type(type(question)) is not CommandType and not isinstance(question, Command):
            raise not_a_question(question)
        return ask(self.__amp__, question, timeout, metadata)

    def callRemoteString(
        self, command: bytes | str, requiresAnswer: bool = True, **kw: bytes
    ) -> asyncio.Future[Any]:
        """Ask for a command by its name, with bytes for arguments, and without any schema.

        The future gives the answer's `AmpBox`, or raises `RemoteAmpError` with the code and the text
        of the error that came. All else is as with `callRemote`.
        """
        name = command.encode("ascii") if isinstance(command, str) else command
        if not isinstance(name, bytes):
            raise TypeError(
                f"callRemoteString takes the name of a command, not {shortened(command)}: write "
                "callRemote(...) for a command class"
            )
        asked = _BY_NAME if requiresAnswer else None
        try:
            return self.__amp__.ask(name, AmpBox(kw), asked, question=kw, amp=self)
        except TypeError as error:
            wrong = {key: value for key, value in kw.items() if not isinstance(value, bytes)}
            raise TypeError(
                f"callRemoteString({name!r}, ...) takes bytes for arguments, not {shortened(wrong)}"
            ) from error

    def stream(
        self,
        question: StreamCommand[_In, _Out, _R],
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Stream[_In, _Out, _R]:
        """Return a stream of `question`, which is asked when the stream is opened: see `Stream`.

        The stream ends after `timeout` seconds, which count from when it is opened; `metadata` goes
        along as with `call`.
        """
        return stream(self.__amp__, question, timeout, metadata)

    async def health(self, service: str | None = None, *, timeout: float | None = None) -> bool:
        """Ask whether the peer serves, or serves this service; see `Server.health`.

        A peer that is not of this package raises `UnhandledCommand`. Cancelling it only ends the wait.
        """
        try:
            await ask_health(self.__amp__, service, timeout)
        except NotServing:
            return False
        return True

    async def describe(self, *, timeout: float | None = None) -> list[dict[str, Any]]:
        """Ask the peer which commands it answers, with the names and types of their arguments.

        Raises `UnhandledCommand` unless its class is `describable`. Cancelling it only ends the wait.
        """
        return read_description(await ask_description(self.__amp__, timeout))

    @property
    def latency(self) -> float | None:
        """How many seconds the peer took to answer the last ping; None before that."""
        pinging = self.__amp__.pinging
        return None if pinging is None else pinging.latency

    # --- what a connection calls ---

    def startReceivingBoxes(self, boxSender: BoxSender) -> None:
        """Take `boxSender` for the way back."""
        sender: Any = boxSender
        session = getattr(sender, "__amp__", None)
        outlet = session.outlet if isinstance(session, Session) else None
        self.__amp__.start(boxSender, outlet)

    def ampBoxReceived(self, box: AmpBox) -> None:
        """Take a box to where it belongs.

        Raises `MalformedAmpBox` for an answer to no question and an error without its code, and
        `NoEmptyBoxes` for a box that is neither an answer nor an error nor a command.
        """
        self.__amp__.receive(box)

    def stopReceivingBoxes(self, reason: BaseException) -> None:
        """Fail every question that has no answer yet, and every later one.

        Responders are cancelled, unless their commands want no answer or are not `cancellable`.
        """
        if not isinstance(reason, ConnectionLost | ProtocolSwitched):
            lost = ConnectionLost("the connection was lost")
            lost.__cause__ = reason
            reason = lost
        self.__amp__.end(reason, keep_backlog=True)

    def pause_sending(self) -> None:
        """Let the questions wait from now on."""
        self.__amp__.hold()

    def resume_sending(self) -> None:
        """Send what waited, in order, until all is sent or sending pauses again."""
        self.__amp__.release()
