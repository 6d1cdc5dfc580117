"""Failures: declared errors that are attrs classes or dataclasses, and whose fields arrive.

The fields are more keys of the error's box. A peer that does not know them ignores them, and one that
does not send them still gets its error through: what is wrong with a field concerns that field alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from ..errors import TooLong
from ..wire.boxes import ERROR_CODE, ERROR_DESCRIPTION, MAX_VALUE_LENGTH, AmpBox
from ..wire.costs import box_cost
from .fields import Field
from .hints import fields_in
from .schemas import RESERVED, Schema
from .scopes import Scope
from .shapes import OfRecord, OneValue

__all__ = ["Failure"]

_KEYS = RESERVED | {ERROR_CODE, ERROR_DESCRIPTION}


class Failure:
    """How the fields of the exceptions of one class are sent, and how such an exception is made.

    `names` are those that its annotations may use beside those of its module. Raises `TypeError` or
    `ValueError` for a class whose fields cannot be sent.
    """

    __slots__ = ("_each", "_kind", "_names")

    def __init__(self, kind: type[Exception], names: Mapping[str, Any]) -> None:
        self._kind: Any = kind
        self._names = names
        # Each field, whether it may be None, and its schema: they are sent and read one by one.
        self._each: list[tuple[Field, bool, Schema]] | None = None
        with contextlib.suppress(NameError):  # It is tried again when such an error is on its way.
            self._resolved()

    def _resolved(self) -> list[tuple[Field, bool, Schema]]:
        if self._each is None:
            what = f"the error {self._kind.__name__}"
            typed = fields_in(Scope(self._kind, self._names))
            shape = OfRecord(self._kind, typed.fields, typed.nullable)
            pairs = Schema(typed.pairs, what, _KEYS, shape).pairs
            if any(argument.carries_descriptors for _, argument in pairs):
                raise TypeError(f"{what} has a Descriptor, and no error can carry one")
            self._each = [
                (field, nullable, Schema([pair], what, (), OneValue(field.name, nullable)))
                for field, pair in zip(typed.fields, pairs, strict=True)
                for nullable in (field.name in typed.nullable,)
            ]
            self._names = {}
        return self._each

    def strings(
        self, error: BaseException, proto: Any, room: int
    ) -> tuple[dict[bytes, bytes], dict[str, Exception]]:
        """Return the fields of `error` that count at most `room`, and why others cannot be sent."""
        strings: dict[bytes, bytes] = {}
        problems: dict[str, Exception] = {}
        for field, _, schema in self._resolved():
            if not hasattr(error, field.name):
                continue  # It came without this field.
            try:
                box = schema.encode(getattr(error, field.name), AmpBox(), proto)
                cost = box_cost(box)
                cost += schema.in_lists(box, room)
                if cost > room or any(len(value) > MAX_VALUE_LENGTH for value in box.values()):
                    raise TooLong(False, True, b"".join(box.values()), schema.pairs[0][0])
            except Exception as problem:
                problems[field.name] = problem
            else:
                room -= cost
                strings |= box
        return strings, problems

    def made(
        self, description: Any, strings: Mapping[bytes, bytes], proto: Any, most: int
    ) -> Exception:
        """Return the exception that an error box with these other keys means.

        What is missing, or does not decode, takes its default, or else is not set.
        """
        values: dict[str, Any] = {}
        missing = False
        for field, nullable, schema in self._resolved():
            value = None
            with contextlib.suppress(Exception):  # What does not decode takes its default.
                # A few bytes may be a list of many objects, and an error may have many lists.
                most -= schema.in_lists(strings, most, isLocal=False)
                value = schema.decode(strings, proto)
            if value is not None:
                values[field.name] = value
            elif nullable and not field.has_default:
                values[field.name] = None
            missing = missing or not (field.name in values or field.has_default)
        if strings and not missing:
            given = {
                field.keyword: values[field.name]
                for field, *_ in self._resolved()
                if field.name in values
            }
            with contextlib.suppress(Exception):  # A user's constructor may refuse what came.
                made: Exception = self._kind(**given)
                return made
        made = self._kind.__new__(self._kind, description)
        for field, *_ in self._resolved():
            if field.name in values:
                object.__setattr__(made, field.name, values[field.name])
            elif field.has_default:
                object.__setattr__(made, field.name, field.make() if field.make else field.default)
        return made
