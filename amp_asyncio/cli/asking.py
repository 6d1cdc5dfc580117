"""Asking: a question by its name, and what a peer says of its commands."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..amp import AMP
from ..commands.command import session_of
from ..commands.definitions import ByName
from ..commands.streams import Stream
from ..errors import AmpError, ConnectionLost, MalformedAmpBox, RemoteAmpError, StreamsUnsupported
from ..session.describing import read_description
from ..wire.boxes import UNHANDLED_ERROR_CODE, AmpBox
from ..wire.extensions import DESCRIBE, STREAM
from .failures import Failure, Status
from .schemas import command_of_peer
from .types import Items

__all__ = ["ask", "described", "failures_of", "stream"]


class _AsItCame(ByName):
    """Takes an error as it came, and not as the exception that it stands for."""

    def translated(self, error: RemoteAmpError, session: Any) -> Exception:
        return error


_AS_IT_CAME = _AsItCame()


async def ask(amp: AMP, name: bytes, box: AmpBox, requires_answer: bool = True) -> AmpBox | None:
    """Ask for the command `name`, and return the box of the answer, or None without `requires_answer`.

    Raises `Failure` for an error that came, and for a box that cannot be sent.
    """
    asked = _AS_IT_CAME if requires_answer else None
    with failures_of(name):
        answer: AmpBox | None = await session_of(amp).calls.ask(name, box, asked)
    return answer


def stream(amp: AMP, name: bytes, box: AmpBox, items: Items) -> Stream[Any, Any, AmpBox]:
    """Return the stream that the question `box` opens; its errors are to become `failures_of` it."""
    session = session_of(amp)

    def opened(asked: ByName) -> asyncio.Future[Any]:
        box[STREAM] = b"%d" % session.limits.stream_window
        future: asyncio.Future[Any] = session.calls.ask(name, box, asked)
        return future

    channel = session.streams.asking(opened, _AS_IT_CAME)
    return Stream(channel, *items, amp, name.decode("utf-8", "replace"))


@contextmanager
def failures_of(name: bytes) -> Iterator[None]:
    """Raise `Failure` for what is wrong with a question for the command `name`, or with its answer."""
    try:
        yield
    except ConnectionLost:
        raise
    except RemoteAmpError as error:
        code = error.errorCode.decode("utf-8", "backslashreplace")
        text = str(error.description)
        if error.errorCode == UNHANDLED_ERROR_CODE:
            shown = name.decode("utf-8", "replace")
            # So say peers of this package.
            is_stream = " is a stream" in text
            text = f"the peer has no command {shown}"
            if is_stream:
                text = f"{shown} is a stream, which needs its types: name the module with --commands"
        raise Failure(Status.REFUSED, text, code) from None
    except (MalformedAmpBox, StreamsUnsupported) as error:
        raise Failure(Status.REFUSED, str(error)) from None
    except AmpError as error:
        raise Failure(Status.USAGE, str(error)) from None


async def described(amp: AMP) -> list[dict[str, Any]]:
    """Return what the peer says of its commands; raises `Failure` if it does not say it."""
    box = await ask(amp, DESCRIBE, AmpBox())
    try:
        found = read_description(box or {})
        for each in found:
            command_of_peer([each], str(each["name"]), bool(each["doc"]))
            ", ".join(each["errors"])
    except (AttributeError, LookupError, TypeError, ValueError):
        raise Failure(Status.REFUSED, "the peer's description of its commands does not parse") from None
    return found
