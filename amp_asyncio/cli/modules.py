"""Modules that are named on the command line: what is served, and the commands of an old peer."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

from .failures import Failure, Status

__all__ = ["commands_in", "load"]


def _import(name: str) -> ModuleType:
    if "" not in sys.path:  # The script has the folder of scripts there, and not the current one.
        sys.path.insert(0, "")
    try:
        return import_module(name)
    except Exception as error:
        raise Failure(Status.USAGE, f"cannot import {name}: {type(error).__name__}: {error}") from None


def load(path: str) -> Any:
    """Return the object that `module:name` names."""
    module, colon, name = path.partition(":")
    if not (module and colon and name):
        raise Failure(Status.USAGE, f"{path}: write module:Class")
    found: Any = _import(module)
    for each in name.split("."):
        if not hasattr(found, each):
            raise Failure(Status.USAGE, f"{module} has no {name}")
        found = getattr(found, each)
    return found


def commands_in(module: str) -> dict[str, Any]:
    """Return the command classes in a module, by their names on the wire, or else in Python.

    They may be Twisted's: their arguments do the same under the same names.
    """
    classes = [each for each in vars(_import(module)).values() if _is_command(each)]
    by_class = {each.__name__: each for each in classes}
    return by_class | {each.commandName.decode("utf-8", "replace"): each for each in classes}


def _is_command(found: Any) -> bool:
    return (
        isinstance(found, type)
        and isinstance(getattr(found, "commandName", None), bytes)
        and hasattr(found, "arguments")
        and hasattr(found, "response")
        # What the module has imported to make its own.
        and found.__module__.partition(".")[0] not in ("amp_asyncio", "twisted")
    )
