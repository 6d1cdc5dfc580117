"""Shapes: what the values of a box are in Python, where a class says it.

A schema without a shape converts between a box and a dictionary. With one, it goes on to an instance of
a class (a question, an answer, a record in a list), to one value, or to None.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Mapping
from operator import attrgetter
from typing import Any

from ..errors import MalformedAmpBox, cut, shortened
from .fields import Field, culprit

__all__ = ["Nothing", "OfQuestion", "OfRecord", "OneValue", "Shape"]


class Shape:
    """What all shapes are made from: see `schemas.Shape`."""

    __slots__ = ("defaults", "identifiers", "nullable", "plain", "quick", "wanted")

    def __init__(self, identifiers: Collection[str], nullable: Container[str], wanted: str) -> None:
        self.identifiers = tuple(identifiers)
        self.nullable = nullable
        self.wanted = wanted
        self.defaults: dict[str, Any] = {}
        self.plain = False
        self.quick: Callable[..., Any] | None = None


class OfRecord(Shape):
    """The values are the fields of an attrs class or a dataclass."""

    __slots__ = ("_fields", "_get", "_keywords", "_made", "_only", "kind")

    def __init__(
        self, kind: type, fields: list[Field], nullable: Container[str], wanted: str | None = None
    ) -> None:
        names = [field.name for field in fields]
        given = ", ".join(f"{field.keyword}=..." for field in fields)
        super().__init__(names, nullable, wanted or f"{kind.__name__}({given})")
        self.kind: Any = kind
        self._fields = fields
        self._get = attrgetter(*names) if len(names) > 1 else None
        self._only = names[0] if len(names) == 1 else ""
        constants = [field for field in fields if field.has_default and field.make is None]
        self.defaults = {each.name: each.default for each in constants if each.default is not None}
        # What the constructor has to make itself when nothing came.
        self._made = [field.name for field in fields if field.make is not None]
        self._keywords = {field.name: field.keyword for field in fields if field.name != field.keyword}
        # To call it without names takes less time.
        if not self._made and not any(field.kw_only for field in fields):
            self.quick = self.kind

    def unpack(self, objects: Any) -> dict[str, Any] | None:
        if not isinstance(objects, self.kind):
            return None
        if self._only:
            return {self._only: getattr(objects, self._only)}
        return dict(zip(self.identifiers, self._get(objects), strict=True)) if self._get else {}

    def pack(self, values: dict[str, Any], strings: Mapping[bytes, bytes], what: str) -> Any:
        try:
            for name in self._made:
                if values[name] is None:
                    del values[name]
            renamed = self._keywords
            given = {renamed.get(name, name): value for name, value in values.items()}
            return self.kind(**given)
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

    __slots__ = ("checked",)

    def __init__(
        self, kind: type, fields: list[Field], nullable: Container[str], checked: bool
    ) -> None:
        super().__init__(kind, fields, nullable, "a dictionary of the arguments")
        self.checked = checked
        self.plain = not checked and not self._made

    def unpack(self, objects: Any) -> dict[str, Any] | None:
        if isinstance(objects, self.kind):
            return super().unpack(objects)
        if not isinstance(objects, Mapping):
            return None
        if not self.checked and len(objects) == len(self.identifiers):
            return {name: objects[name] for name in self.identifiers}
        return super().unpack(self.kind(**objects))

    def pack(self, values: dict[str, Any], strings: Mapping[bytes, bytes], what: str) -> Any:
        return super().unpack(super().pack(values, strings, what))


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
    """Without values: the object is None."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__((), (), "None")

    def unpack(self, objects: Any) -> dict[str, Any] | None:
        return {} if objects is None else None

    def pack(self, values: dict[str, Any], strings: Mapping[bytes, bytes], what: str) -> Any:
        return None
