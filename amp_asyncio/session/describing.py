"""Describing: the commands that a peer could ask, as text, for tools that do not have the definitions.

A peer learns the names and types of all arguments, so a class has to say that it is `describable`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from inspect import cleandoc
from typing import Any

from ..commands.arguments import Argument
from ..commands.command import Command
from ..commands.large import BigUnicode
from ..commands.lists import AmpList, ListOf
from ..commands.names import python_name
from .locators import CommandLocator

__all__ = ["description", "read_description"]

_TEXT = BigUnicode()
_KEY = b"commands"


def description(locator: Any, hides: Callable[[Any], bool]) -> dict[bytes, bytes] | None:
    """Return the pairs of the answer that describes what `locator` finds; None if it says nothing.

    Commands that this side `hides` are left out.
    """
    if getattr(locator, "describable", False) is not True or not isinstance(locator, CommandLocator):
        return None
    described = [
        _command(command)
        for command, method, _ in type(locator).__amp_commands__.values()
        if getattr(locator, method, None) is not None and not hides(command)
    ]
    pairs: dict[bytes, bytes] = {}
    _TEXT.toBox(_KEY, pairs, {_KEY.decode(): json.dumps(described)}, None)
    return pairs


def read_description(box: dict[bytes, bytes]) -> list[dict[str, Any]]:
    """Return what a peer has said of its commands."""
    objects: dict[str, Any] = {}
    _TEXT.fromBox(_KEY, dict(box), objects, None)
    described: list[dict[str, Any]] = json.loads(objects[_KEY.decode()])
    return described


def _command(command: type[Command]) -> dict[str, Any]:
    definition = command.__amp__
    items = {}
    if definition.opens_stream:
        # As the side sees it that asks; None for a direction without any.
        both = zip(("received", "sent"), definition.items, strict=True)
        items["items"] = {key: None if item is None else _argument(item) for key, item in both}
    return {
        "name": command.commandName.decode("ascii", "backslashreplace"),
        "arguments": _pairs(definition.arguments.pairs),
        "response": _pairs(definition.response.pairs),
        **items,
        "errors": {
            code.decode("ascii", "backslashreplace"): error.__name__
            for error, code in command.allErrors.items()
        },
        "requires_answer": bool(command.requiresAnswer),
        "doc": _first_line(command),
    }


def _pairs(pairs: list[tuple[bytes, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "name": name.decode("ascii", "backslashreplace"),
            "python_name": python_name(name),
            **_argument(argument),
        }
        for name, argument in pairs
    ]


def _argument(argument: Argument) -> dict[str, Any]:
    described: dict[str, Any] = {
        "type": type(argument).__name__,
        "optional": bool(getattr(argument, "optional", False)),
    }
    if isinstance(argument, ListOf):
        described["of"] = _argument(argument.elementType)
    elif isinstance(argument, AmpList):
        described["of"] = _pairs(argument.subargs)
    return described


def _first_line(command: type[Command]) -> str:
    """Return the first line of the docstring that the class itself has."""
    doc = vars(command).get("__doc__") or ""
    return cleandoc(doc).partition("\n")[0]
