"""call, ping, health: what is asked of a peer, and what is printed of its answer."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Mapping
from contextlib import suppress
from time import perf_counter
from typing import Any

from ..amp import AMP
from ..commands.command import session_of
from ..commands.definitions import ByName
from ..errors import AmpError, ConnectionLost, RemoteAmpError, UnhandledCommand
from ..wire.boxes import AmpBox
from .connecting import ask_peer
from .failures import Failure, Status
from .output import say, say_json
from .schemas import AnyCommand, find_command
from .text import printable
from .values import Given, from_json, from_text, parse_json

__all__ = ["call", "health", "ping"]

_BY_NAME = ByName()


def call(options: Namespace) -> Status:
    """Ask one question, and print the answer."""
    given = _given(options.arguments)
    command = find_command(options)

    async def ask(amp: AMP) -> Status:
        box = await _asked(amp, command, given)
        if box is not None:
            answer = command.answer(box, amp)
            if options.json:
                say_json(answer)
            else:
                _say_answer(answer)
        return Status.DONE

    return ask_peer(options, ask)


def _given(arguments: list[str]) -> dict[str, Given]:
    """Return what was given: as `name=value`, as a JSON object, or in stdin for `-`."""
    given: dict[str, Given] = {}
    for text in arguments:
        if text == "-" or text.startswith("{"):
            try:
                found = parse_json(sys.stdin.read() if text == "-" else text)
            except ValueError as error:
                raise Failure(Status.USAGE, str(error)) from None
            if not isinstance(found, dict):
                raise Failure(Status.USAGE, 'the arguments are a JSON object, such as {"name": 1}')
            given.update({name: (from_json, value) for name, value in found.items()})
        else:
            name, equals, value = text.partition("=")
            if not (name and equals):
                raise Failure(Status.USAGE, f"{text}: write an argument as name=value")
            given[name] = (from_text, value)
    return given


async def _asked(amp: AMP, command: AnyCommand, given: Mapping[str, Given]) -> AmpBox | None:
    """Ask, and return the box of the answer."""
    box = command.question(given, amp)
    asked = _BY_NAME if command.requires_answer else None
    try:
        answer: AmpBox | None = await session_of(amp).calls.ask(command.name, box, asked)
    except ConnectionLost:
        raise
    except RemoteAmpError as error:
        code = error.errorCode.decode("utf-8", "backslashreplace")
        raise Failure(Status.REFUSED, _text(error.description), code) from None
    except UnhandledCommand:
        name = command.name.decode("utf-8", "replace")
        raise Failure(Status.REFUSED, f"the peer has no command {name}", "UNHANDLED") from None
    except (AmpError, TypeError, ValueError) as error:
        raise Failure(Status.USAGE, str(error)) from None
    return answer


def _text(description: str | bytes) -> str:
    return description if isinstance(description, str) else description.decode("utf-8", "replace")


def _say_answer(answer: Mapping[str, Any]) -> None:
    for name, value in answer.items():
        if not isinstance(value, str):
            text = json.dumps(value, ensure_ascii=False)
            value = text if text.isprintable() else json.dumps(value)
        say(f"{name}: {printable(value)}")


def ping(options: Namespace) -> Status:
    """Ask whether the peer is there, and print how long it took to answer."""

    async def ask(amp: AMP) -> Status:
        begun = perf_counter()
        # Any answer is one, also that of a peer without extensions.
        with suppress(Failure):
            await _asked(amp, AnyCommand(b"_ping"), {})
        taken = perf_counter() - begun
        if options.json:
            say_json({"seconds": round(taken, 6)})
        else:
            say(f"answered in {taken * 1000:.2f} ms")
        return Status.DONE

    return ask_peer(options, ask)


def health(options: Namespace) -> Status:
    """Ask whether the peer serves, and print it."""
    given = {} if options.service is None else {"service": (from_text, options.service)}

    async def ask(amp: AMP) -> Status:
        serving = True
        try:
            await _asked(amp, AnyCommand(b"_health"), given)
        except Failure as failure:
            if failure.code != "_NOT_SERVING":
                raise
            serving = False
        if options.json:
            say_json({"serving": serving})
        else:
            say("serving" if serving else "not serving")
        return Status.DONE if serving else Status.REFUSED

    return ask_peer(options, ask)
