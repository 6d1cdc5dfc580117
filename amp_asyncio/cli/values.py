"""Values as text: what a person types for an argument, and how an answer is shown.

An argument type itself says which text it takes: what it reads from a box. A few are easier than that:
bytes have escapes and files, lists and records are JSON.
"""

from __future__ import annotations

import datetime
import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from ..commands.lists import AmpList, ListOf
from ..commands.names import python_name
from .sources import read_bytes
from .text import escaped, unescaped
from .types import Dictionary, OneRecord, Pairs

__all__ = [
    "Given",
    "from_json",
    "from_text",
    "objects_of",
    "parse_json",
    "shown_record",
    "to_json",
]


def parse_json(text: str) -> Any:
    """Return what `text` stands for; its numbers stay text, so that no digit is lost."""
    try:
        return json.loads(text, parse_int=str, parse_float=str, parse_constant=str)
    except ValueError as error:
        raise ValueError(f"this is not JSON ({error}): {text}") from None


def from_text(argument: Any, text: str, *, files: bool = True) -> Any:
    """Return the value of the text for an argument; raise `ValueError` if it does not fit.

    `files` says whether `@FILE` stands for what is in a file.
    """
    if isinstance(argument, ListOf | AmpList):
        return from_json(argument, parse_json(text))
    return _plain(argument, text, files=files)


def from_json(argument: Any, value: Any) -> Any:
    """Return the value of the JSON for an argument; raise `ValueError` if it does not fit."""
    if value is None:
        return None
    if not isinstance(argument, ListOf | AmpList):
        if isinstance(value, list | dict):
            raise ValueError(f"one value is needed, not {json.dumps(value)}")
        return _plain(argument, str(value), files=False)
    if isinstance(argument, OneRecord):
        value = [value]
    elif isinstance(argument, Dictionary):
        if not isinstance(value, dict):
            raise ValueError(f'an object is needed, such as {{"name": 1}}, not {json.dumps(value)}')
        value = [{"key": key, "value": each} for key, each in value.items()]
    if not isinstance(value, list):
        raise ValueError(f"a list is needed, such as [1, 2], not {json.dumps(value)}")
    if isinstance(argument, ListOf):
        return [from_json(argument.elementType, each) for each in value]
    return [_record(argument.subargs, each) for each in value]


def _record(pairs: Pairs, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f'an element is an object, such as {{"name": 1}}, not {json.dumps(value)}')
    return dict(_converted(pairs, value, from_json))


def _plain(argument: Any, text: str, *, files: bool) -> Any:
    if argument is None:  # The name is unknown: one error names all of them later.
        return text
    try:
        value = argument.fromString(text.encode("utf-8", "surrogateescape"))
        if not isinstance(value, bytes):
            return value
    except Exception as error:
        with suppress(ValueError, KeyError):  # The first error is the one to report.
            return _lenient(argument, text)
        kind = type(argument).__name__
        raise ValueError(f'"{escaped(text)}" does not fit {kind}: {error}') from None
    data = read_bytes(text[1:]) if files and text.startswith("@") else unescaped(text)
    return argument.fromString(data)


def _lenient(argument: Any, text: str) -> Any:
    """Return the value of what people write in other ways than AMP does."""
    kinds = {each.__name__ for each in type(argument).__mro__}
    if "Boolean" in kinds:
        return {"true": True, "false": False}[text.lower()]
    if "DateTime" in kinds:
        return datetime.datetime.fromisoformat(text)
    raise ValueError


def to_json(argument: Any, value: Any) -> Any:
    """Return what stands for `value` in JSON."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, bytes):
        return escaped(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, datetime.datetime):
        return value.isoformat()
    if isinstance(argument, ListOf):
        return [to_json(argument.elementType, each) for each in value]
    if isinstance(argument, AmpList):
        records = [shown_record(argument.subargs, each) for each in value]
        if isinstance(argument, Dictionary):
            return {each["key"]: each.get("value") for each in records}
        return records[0] if isinstance(argument, OneRecord) and len(records) == 1 else records
    try:
        return escaped(argument.toString(value))
    except Exception:
        return escaped(str(value))


def shown_record(pairs: Pairs, objects: Mapping[str, Any]) -> dict[str, Any]:
    """Return objects, by their Python names, as JSON writes them; None is left out."""
    return {
        escaped(name): to_json(argument, value)
        for name, argument in pairs
        if (value := objects.get(python_name(name))) is not None
    }


#: What was given for an argument, and what reads it: `from_text` or `from_json`.
Given = tuple[Callable[[Any, Any], Any], Any]


def objects_of(pairs: Pairs, given: Mapping[str, Given]) -> dict[str, Any]:
    """Return the objects, by their Python names, for what was given by any names.

    Raises `ValueError` for what does not fit its argument.
    """
    return dict(_converted(pairs, given, lambda argument, each: each[0](argument, each[1])))


def _converted(
    pairs: Pairs, given: Mapping[str, Any], read: Callable[[Any, Any], Any]
) -> Iterator[tuple[str, Any]]:
    """Yield what `read` makes of what is given by any names, by its Python name."""
    known = {python_name(name): argument for name, argument in pairs}
    names = {name.decode("utf-8", "surrogateescape"): python_name(name) for name, _ in pairs}
    for given_name, value in given.items():
        name = names.get(given_name, given_name)
        try:
            yield name, read(known.get(name), value)
        except ValueError as error:
            raise ValueError(f"{given_name}: {error}") from None
