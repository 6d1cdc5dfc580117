"""Asking: a question by its name, and what a peer says of its commands."""

from __future__ import annotations

import json
from typing import Any

from ..amp import AMP
from ..commands.command import session_of
from ..commands.definitions import ByName
from ..commands.large import BigUnicode
from ..errors import AmpError, ConnectionLost, RemoteAmpError
from ..wire.boxes import UNHANDLED_ERROR_CODE, AmpBox
from .failures import Failure, Status

__all__ = ["ask", "described"]


class _AsItCame(ByName):
    """Takes an error as it came, and not as the exception that it stands for."""

    def translated(self, error: RemoteAmpError, session: Any) -> Exception:
        return error


_AS_IT_CAME = _AsItCame()


async def ask(amp: AMP, name: bytes, box: AmpBox, requires_answer: bool = True) -> AmpBox | None:
    """Ask for the command `name`, and return the box of the answer, or None if none is wanted.

    Raises `Failure` for an error that came, and for a box that cannot be sent.
    """
    asked = _AS_IT_CAME if requires_answer else None
    try:
        answer: AmpBox | None = await session_of(amp).calls.ask(name, box, asked)
    except ConnectionLost:
        raise
    except RemoteAmpError as error:
        code = error.errorCode.decode("utf-8", "backslashreplace")
        text = str(error.description)
        if error.errorCode == UNHANDLED_ERROR_CODE:
            text = f"the peer has no command {name.decode('utf-8', 'replace')}"
        raise Failure(Status.REFUSED, text, code) from None
    except AmpError as error:
        raise Failure(Status.USAGE, str(error)) from None
    return answer


async def described(amp: AMP) -> list[dict[str, Any]]:
    """Return what the peer says of its commands; raises `Failure` if it does not say it."""
    box = await ask(amp, b"_describe", AmpBox())
    objects: dict[str, Any] = {}
    try:
        BigUnicode().fromBox(b"commands", dict(box or {}), objects, None)
        found: list[dict[str, Any]] = json.loads(objects["commands"])
        for each in found:
            for key in ("name", "arguments", "response", "errors", "requires_answer", "doc"):
                each[key]
    except (LookupError, TypeError, ValueError):
        raise Failure(Status.REFUSED, "the peer's description of its commands does not parse") from None
    return found
