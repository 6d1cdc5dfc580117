"""Changes: commands that turn the connection into something else, TLS or another protocol.

All of them go the same way. One side asks, and holds everything back from the moment when the question
was sent. The other side looks at no byte after the question until it has answered. The answer is the
last box: what comes after it, in either direction, belongs to the new state of the connection. If the
peer refuses with an error instead, what was held back is sent, and AMP goes on.

What is done at that moment is up to the two kinds of `Change`: see `starttls.py` and `switching.py`.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from ..commands.command import Command, session_of, terms_of
from ..commands.definitions import raisable
from ..errors import ConnectionLost, MalformedAmpBox, RemoteAmpError
from ..wire.boxes import AmpBox
from .outlets import changeable

if TYPE_CHECKING:
    from .outlets import ChangeableOutlet

__all__ = ["Change", "ChangeBox", "ChangingCommand"]


class Change(ABC):
    """A change that is being asked for, or agreed to, on one side.

    `command` is the command that asks for it. `securing` says whether the change is TLS.
    """

    securing = False
    counted = True
    # A protocol that takes over may take descriptors.
    may_claim = True
    # The peer is not told when the caller no longer waits.
    tells_cancelled = False

    def __init__(self, command: type[Command[Any]]) -> None:
        self.command = command

    @abstractmethod
    def check(self, outlet: ChangeableOutlet) -> None:
        """Raise an error if the connection cannot be changed in this way; nothing was sent yet."""

    @abstractmethod
    def begin(self, outlet: ChangeableOutlet, future: asyncio.Future[Any] | None, answer: Any) -> None:
        """Change the connection: the last box was sent, or received.

        On the side that asked, `future` is to be resolved with `answer` when the change is done.
        """

    @abstractmethod
    def cancelled(self, outlet: ChangeableOutlet) -> None:
        """The side that asked has cancelled, and it is not known whether the peer will agree."""

    def sent(self, outlet: ChangeableOutlet, future: asyncio.Future[Any]) -> None:
        """The question was sent: hold everything back until the answer comes."""
        outlet.lock(self.securing)

        def in_doubt(future: asyncio.Future[Any]) -> None:
            if future.cancelled() and outlet.locked:
                self.cancelled(outlet)

        future.add_done_callback(in_doubt)

    def agreed(self, outlet: ChangeableOutlet) -> None:
        """The answer was sent: change the connection."""
        outlet.lock(self.securing)
        self.begin(outlet, None, {})

    # As a `Definition` has them:

    def answered(self, box: AmpBox, session: Any, future: asyncio.Future[Any]) -> None:
        try:
            answer = self.command.parseResponse(box, session.owner)
        except MalformedAmpBox as error:
            # The peer has agreed, and changes the connection; we cannot.
            if not future.done():
                future.set_exception(error)
            session.outlet.give_up(error)
        else:
            self.begin(session.outlet, future, answer)

    def failed(self, error: RemoteAmpError, session: Any, future: asyncio.Future[Any]) -> None:
        self.command.__amp__.failed(error, session, future)
        session.outlet.settle()


class ChangeBox(AmpBox):
    """The answer that agrees to a change."""

    change: Change


class ChangingCommand(Command):
    """The base of the commands that change the connection."""

    responseType = ChangeBox

    def __init_subclass__(cls, **kw: Any) -> None:
        super().__init_subclass__(**kw)
        if not cls.requiresAnswer:
            raise TypeError(f"{cls.__name__} changes the connection, and so requires an answer")

    @abstractmethod
    def _change(self, outlet: ChangeableOutlet) -> Change:
        """Return the change that is asked for; raises if it cannot be."""

    def _doCommand(self, proto: Any) -> Any:
        session = session_of(proto)
        if not session.started:
            raise RuntimeError("not connected yet: ask after connection_made")
        change = self._change(changeable(session.outlet))
        box = self.makeArguments(self.structured, proto)
        terms = terms_of(self)
        return session.ask(self.commandName, box, change, terms=terms, question=self, amp=proto)


def lost(why: str, cause: BaseException) -> ConnectionLost:
    """Return a `ConnectionLost` from `cause`."""
    error = ConnectionLost(f"{why}: {cause!r}")
    error.__cause__ = raisable(cause)
    return error
