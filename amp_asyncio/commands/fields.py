"""Fields: what a class that was made with attrs, or is a dataclass, consists of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

__all__ = ["ABSENT", "Field", "culprit", "fields_of", "is_record"]

#: The default of a field without a default.
ABSENT: Final = object()


class Field:
    """A field of such a class.

    Attributes:
        name: its name, and `keyword` that of the constructor's parameter for it.
        hint: its annotation, as it was written.
        default: its default, or `ABSENT`. `make` makes one that is new each time, or is None.
        init: whether the constructor has a parameter for it, and `kw_only` whether by name only.
        attribute: what attrs knows about it; None in a dataclass.
    """

    __slots__ = ("attribute", "default", "hint", "init", "keyword", "kw_only", "make", "name")

    def __init__(self, name: str, keyword: str, hint: Any, default: Any, init: bool) -> None:
        self.name = name
        self.keyword = keyword
        self.hint = hint
        self.default = default
        self.make: Callable[[], Any] | None = None
        self.init = init
        self.kw_only = False
        self.attribute: Any = None

    @property
    def is_checked(self) -> bool:
        """Whether attrs looks at a value, or changes it, or needs the others for the default."""
        attribute = self.attribute
        if attribute is None:
            return False
        takes_self = getattr(attribute.default, "takes_self", False)
        return bool(attribute.validator or attribute.converter or takes_self)

    @property
    def has_default(self) -> bool:
        return self.default is not ABSENT

    def check(self, value: Any, instance: Any) -> Any:
        """Convert and validate a value as the constructor does; return what it becomes."""
        attribute = self.attribute
        converter = attribute.converter
        if converter is not None:
            if hasattr(converter, "takes_self"):
                value = converter.__call__(value, instance, attribute)
            else:
                value = converter(value)
        if attribute.validator is not None:
            object.__setattr__(instance, self.name, value)
            attribute.validator(instance, attribute, value)
        return value


def is_record(kind: Any) -> bool:
    """Return whether `kind` is an attrs class or a dataclass."""
    return isinstance(kind, type) and (
        hasattr(kind, "__attrs_attrs__") or hasattr(kind, "__dataclass_fields__")
    )


def fields_of(kind: Any) -> list[Field]:
    """Return the fields of an attrs class or a dataclass."""
    return [*(_of_attrs(kind) if hasattr(kind, "__attrs_attrs__") else _of_dataclass(kind))]


def _of_attrs(kind: Any) -> Iterator[Field]:
    import attrs

    factory: Any = attrs.Factory  # For type checkers it is a function, in truth a class.
    for attribute in attrs.fields(kind):
        default = attribute.default
        field = Field(
            attribute.name, attribute.alias or attribute.name, attribute.type, ABSENT, attribute.init
        )
        field.attribute = attribute
        field.kw_only = bool(attribute.kw_only)
        if isinstance(default, factory):
            field.default = None
            field.make = default.factory
        elif default is not attrs.NOTHING:
            field.default = default
        yield field


def _of_dataclass(kind: Any) -> Iterator[Field]:
    import dataclasses

    for each in dataclasses.fields(kind):
        field = Field(each.name, each.name, each.type, ABSENT, each.init)
        field.kw_only = each.kw_only is True
        if each.default is not dataclasses.MISSING:
            field.default = each.default
        elif each.default_factory is not dataclasses.MISSING:
            field.default = None
            field.make = each.default_factory
        yield field


def culprit(kind: Any, fields: list[Field], values: Mapping[str, Any]) -> str:
    """Return the name of the field whose value the constructor of `kind` refuses, or "".

    `values` are those that it was called with, by the names of the fields.
    """
    name = ""
    try:
        instance = kind.__new__(kind)
        for field in fields:
            if field.name in values:
                object.__setattr__(instance, field.name, values[field.name])
        for field in fields:
            if field.name in values and field.attribute is not None:
                name = field.name
                field.check(values[name], instance)
    except Exception:
        return name
    return ""
