"""call, describe, ping, health: what is asked of a peer, and what is printed of its answer."""

from __future__ import annotations

import asyncio
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from contextlib import suppress
from time import perf_counter
from typing import Any

from ..amp import AMP
from ..wire.boxes import AmpBox
from ..wire.extensions import HEALTH, PING
from .asking import ask, described
from .connecting import with_peer
from .failures import Failure, Status
from .output import say, say_json, written
from .schemas import AnyCommand, command_in_module, command_of_peer
from .streaming import converse
from .text import printable
from .values import Given, from_json, from_text, parse_json

__all__ = ["call", "describe", "health", "ping"]

# How many seconds a peer has to describe its commands, before it is taken for one that does not.
_PATIENCE = 2.0


def call(options: Namespace) -> Status:
    """Ask one question, and print the items that come, if it opens a stream, and the answer."""
    given = _given(options.arguments)
    command: AnyCommand | None = None
    if options.commands is not None:
        command = command_in_module(options.commands, options.command, not options.no_answer)
    elif options.raw:
        command = command_of_peer([], options.command, not options.no_answer)

    async def work(amp: AMP) -> Status:
        asked = command or await _described(amp, options)
        question = asked.question(given, amp)
        box: AmpBox | None
        if asked.items is not None:
            _check_stream(asked, options)
            box = await converse(amp, asked.name, question, asked.items, options.json)
        else:
            box = await ask(amp, asked.name, question, asked.requires_answer)
        if box is not None and (asked.items is None or asked.has_values):
            answer = asked.answer(box, amp)
            if options.json:
                say_json(answer)
            else:
                _say_answer(answer)
        return Status.DONE

    return with_peer(options, work)


def _check_stream(asked: AnyCommand, options: Namespace) -> None:
    if not asked.requires_answer:
        raise Failure(Status.USAGE, f"{options.command} is a stream, and cannot be without an answer")
    if asked.items is not None and asked.items.sent is not None and "-" in options.arguments:
        raise Failure(
            Status.USAGE, "stdin has the items of the stream: give the arguments as name=value"
        )


async def _described(amp: AMP, options: Namespace) -> AnyCommand:
    """Return the command as the peer describes it, or with text for values if it does not.

    A few kinds of peers do not answer what they do not know.
    """
    try:
        async with asyncio.timeout(_PATIENCE):
            commands = await described(amp)
    except (Failure, TimeoutError):
        commands = []
    return command_of_peer(commands, options.command, not options.no_answer)


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


def _say_answer(answer: Mapping[str, Any]) -> None:
    for name, value in answer.items():
        say(f"{name}: {written(value)}")


def describe(options: Namespace) -> Status:
    """Print the commands that the peer answers."""

    async def work(amp: AMP) -> Status:
        commands = await described(amp)
        if options.command is not None:
            commands = [each for each in commands if each["name"] == options.command]
            if not commands:
                raise Failure(Status.REFUSED, f"the peer describes no command {options.command}")
        if options.json:
            say_json(commands)
        else:
            for each in commands:
                _say_command(each)
        return Status.DONE

    return with_peer(options, work)


def _say_command(command: Mapping[str, Any]) -> None:
    answer = "no answer"
    if command["requires_answer"]:
        answer = _written(command["response"]) or "nothing"
    say(printable(f"{command['name']}({_written(command['arguments'])}) -> {answer}"))
    if command["doc"]:
        say(printable(f"    {command['doc']}"))
    for direction, item in command.get("items", {}).items():
        if item is not None:
            say(printable(f"    items {direction}: {_type(item)}"))
    if command["errors"]:
        say(printable(f"    errors: {', '.join(command['errors'])}"))


def _written(pairs: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(f"{each['name']}: {_type(each)}" for each in pairs)


def _type(each: Mapping[str, Any]) -> str:
    of = each.get("of")
    inner = "" if of is None else f"[{_type(of) if isinstance(of, Mapping) else _written(of)}]"
    return f"{each['type']}{inner}{'?' if each['optional'] else ''}"


def ping(options: Namespace) -> Status:
    """Ask whether the peer is there, and print how long it took to answer."""

    async def work(amp: AMP) -> Status:
        begun = perf_counter()
        with suppress(Failure):  # An error is an answer, too: a peer without extensions sends one.
            await ask(amp, PING, AmpBox())
        taken = perf_counter() - begun
        if options.json:
            say_json({"seconds": round(taken, 6)})
        else:
            say(f"answered in {taken * 1000:.2f} ms")
        return Status.DONE

    return with_peer(options, work)


def health(options: Namespace) -> Status:
    """Ask whether the peer serves, and print it."""
    question = AmpBox() if options.service is None else AmpBox(service=options.service.encode())

    async def work(amp: AMP) -> Status:
        serving = True
        try:
            await ask(amp, HEALTH, question)
        except Failure as failure:
            if failure.code != "_NOT_SERVING":
                raise
            serving = False
        if options.json:
            say_json({"serving": serving})
        else:
            say("serving" if serving else "not serving")
        return Status.DONE if serving else Status.REFUSED

    return with_peer(options, work)
