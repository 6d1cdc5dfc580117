"""Shapes: what the values of a box are in Python, where a class says it.

A schema without a shape converts between a box and a dictionary. With one, it goes on to an instance of
a class (a question, an answer, a record in a list), to one value, or to None.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Mapping
from operator import attrgetter
from typing import Any

from ..errors import MalformedAmpBox, cut, shortened
from .fields import Field, culprit

__all__ = ["Nothing", "OfQuestion", "OfRecord", "OneValue", "Shape"]


class Shape:
    """What all shapes are made from: see `schemas.Shape`.

    `wanted` says in errors what is to be given.
    """

    __slots__ = ("identifiers", "nullable", "wanted")

    def __init__(self, identifiers: Collection[str], nullable: Container[str], wanted: str) -> None:
        self.identifiers = tuple(identifiers)
        self.nullable = nullable
        self.wanted = wanted


class OfRecord(Shape):
    """The values are the fields of an attrs class or a dataclass."""

    __slots__ = ("_defaults", "_fields", "_get", "_keywords", "kind")

    def __init__(
        self, kind: type, fields: list[Field], nullable: Container[str], wanted: str | None = None
    ) -> None:
        names = [field.name for field in fields]
        given = ", ".join(f"{field.keyword}=..." for field in fields)
        super().__init__(names, nullable, wanted or f"{kind.__name__}({given})")
        self.kind: Any = kind
        self._fields = fields
        self._get = attrgetter(*names) if len(names) > 1 else None
        # Those for which the constructor has to use the default when nothing came.
        self._defaults = [each.name for each in fields if each.has_default and each.default is not None]
        self._defaults += [each.name for each in fields if each.make is not None]
        self._keywords = [(each.name, each.keyword) for each in fields if each.name != each.keyword]

    def unpack(self, objects: Any) -> dict[str, Any] | None:
        if not isinstance(objects, self.kind):
            return None
        names = self.identifiers
        if self._get is not None:
            return dict(zip(names, self._get(objects), strict=True))
        return {name: getattr(objects, name) for name in names}

    def pack(self, values: dict[str, Any], strings: Mapping[bytes, bytes], what: str) -> Any:
        for name in self._defaults:
            if values[name] is None:
                del values[name]
        keywords = values
        if self._keywords:
            keywords = values.copy()
            for name, keyword in self._keywords:
                if name in keywords:
                    keywords[keyword] = keywords.pop(name)
        try:
            return self.kind(**keywords)
        except Exception as error:
            raise MalformedAmpBox(f"{what}: {self._problem(values, error)}") from error

    def _problem(self, values: dict[str, Any], error: Exception) -> str:
        """Return what is wrong with the values that the class refuses."""
        name = culprit(self.kind, self._fields, values)
        if not name:
            return cut(f"{type(error).__name__}: {error}")
        return f"{name} is {shortened(values[name])}: {cut(str(error))}"


class OfQuestion(OfRecord):
    """The values are the arguments of a typed command: a dictionary, which its class may have to check.

    `checked` says whether the class does more than to keep them.
    """

    __slots__ = ("_constants", "_made", "checked")

    def __init__(
        self, kind: type, fields: list[Field], nullable: Container[str], checked: bool
    ) -> None:
        super().__init__(kind, fields, nullable, "a dictionary of the arguments")
        self.checked = checked
        constants = [field for field in fields if field.has_default and field.make is None]
        self._constants = [(each.name, each.default) for each in constants if each.default is not None]
        self._made = [(field.name, field.make) for field in fields if field.make is not None]

    def unpack(self, objects: Any) -> dict[str, Any] | None:
        if isinstance(objects, self.kind):
            return super().unpack(objects)
        if not isinstance(objects, Mapping):
            return None
        if not self.checked and len(objects) == len(self.identifiers):
            return {name: objects[name] for name in self.identifiers}
        return super().unpack(self.kind(**objects))

    def pack(self, values: dict[str, Any], strings: Mapping[bytes, bytes], what: str) -> Any:
        if self.checked:
            return super().unpack(super().pack(values, strings, what))
        for name, default in self._constants:
            if values[name] is None:
                values[name] = default
        for name, make in self._made:
            if values[name] is None:
                values[name] = make()
        return values


class OneValue(Shape):
    """The only value."""

    __slots__ = ("_name",)

    def __init__(self, name: str, nullable: bool) -> None:
        super().__init__([name], (name,) if nullable else (), "a value")
        self._name = name

    def unpack(self, objects: Any) -> dict[str, Any] | None:
        return {self._name: objects}

    def pack(self, values: dict[str, Any], strings: Mapping[bytes, bytes], what: str) -> Any:
        return values[self._name]


class Nothing(Shape):
    """There are no values: None."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__((), (), "None")

    def unpack(self, objects: Any) -> dict[str, Any] | None:
        return {} if objects is None else None

    def pack(self, values: dict[str, Any], strings: Mapping[bytes, bytes], what: str) -> Any:
        return None
