"""Typed commands: what annotations say about a question and its answer.

The class of such a command is made with attrs, and its instances are the questions. All that is known
of it is found out when it is defined, or, where an annotation names what is not defined yet, when the
command is first used.

This module is imported when the first typed command is defined, and attrs with it.
"""

from __future__ import annotations

import contextlib
from collections import ChainMap
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Never, NoReturn, get_args, get_origin

import attrs

from .arguments import Argument
from .definitions import Definition
from .exchange import schema_for
from .fields import fields_of, is_record
from .hints import fields_in, hint_of, optional
from .mistakes import is_class_variable
from .schemas import Schema
from .scopes import Scope
from .shapes import Nothing, OfQuestion, OfRecord, OneValue
from .templates import Template

if TYPE_CHECKING:
    from .command import Command

__all__ = ["TypedDefinition", "define"]

_HOOKS = ("__attrs_pre_init__", "__attrs_post_init__")

# Found out when the annotations are resolved.
_RESOLVED = frozenset(
    "arguments check items keys pairs question_template read_answer read_question response "
    "response_template template whole_answers".split()
)

# What says that a stream has no items in a direction.
_NO_ITEMS = (Never, NoReturn)


class TypedDefinition(Definition):
    """What is known of a typed command.

    Attributes:
        answer: the annotation of its answer, the name if that is one value, and where it was written.
        items: what converts the items of a stream, received and sent, as the side sees it that asks;
            None for a direction without any. None for a command that opens no stream.
    """

    __slots__ = ("_names", "answer", "items")

    def __init__(
        self,
        command: type[Any],
        inherits: Callable[..., bool],
        answer: tuple[Any, str | None, type],
        names: ChainMap[str, Any],
    ) -> None:
        super().__init__(command, inherits)
        self.answer = answer
        self._names: ChainMap[str, Any] | None = names

    is_typed = True

    @property
    def parameters(self) -> tuple[str, ...] | None:
        # Known before the annotations are resolved.
        fields = fields_of(self.command)
        return tuple(field.name for field in fields) if self.inherits("parseArguments") else None

    def try_to_resolve(self, names: ChainMap[str, Any]) -> None:
        if self._names is not None:
            with contextlib.suppress(NameError):  # It is tried again when the command is used.
                self.resolve(names)

    def resolve(self, names: ChainMap[str, Any]) -> None:
        """Find out what the annotations say; `names` are more names that they may use.

        Raises `NameError` if an annotation names what does not exist yet, and `TypeError` or
        `ValueError` if no command can be made of what they say.
        """
        known = ChainMap(*(self._names or ChainMap()).maps, *names.maps)
        command = self.command
        typed = fields_in(Scope(command, known))
        checked = any(field.is_checked for field in typed.fields)
        checked = checked or any(hasattr(command, hook) for hook in _HOOKS)
        question = OfQuestion(command, typed.fields, typed.nullable, checked)
        arguments = schema_for(typed.pairs, f"the command {command.__name__}", question)
        response = self._response(known)
        self.items = self._items(known)
        self.use(arguments, response)
        type.__setattr__(command, "arguments", arguments.pairs)
        type.__setattr__(command, "response", response.pairs)
        self._names = None
        # pyright warns because a subclass would lose its methods; the only one is `_Unresolved`.
        self.__class__ = TypedDefinition  # pyright: ignore[reportAttributeAccessIssue]

    def _response(self, known: ChainMap[str, Any]) -> Schema:
        command = self.command
        name = command.__name__
        what = f"the answer to {name}"
        hint, single, owner = self.answer
        scope = Scope(owner, known)
        hint = scope.evaluated(hint)
        if hint is None or hint is type(None):
            if single is not None:
                raise TypeError(f"{name} has no answer, and so no name for it: leave out answer=")
            return schema_for([], what, Nothing())
        if not command.requiresAnswer:
            raise TypeError(
                f"{name}.requiresAnswer is false, and so the answer is None: write Command[None]"
            )
        if single is not None:
            found = hint_of(hint, scope, what)
            argument = optional(found.argument) if found.nullable else found.argument
            return schema_for(
                [(found.wire or single, argument)], what, OneValue(single, found.nullable)
            )
        kind = get_origin(hint) or hint
        if not is_record(kind):
            raise TypeError(
                f"{what} is one value, and needs a name on the wire: write "
                f'class {name}(Command[...], answer="value"); or decorate {kind!r} with attrs.frozen'
            )
        typed = fields_in(scope.of(hint))
        return schema_for(typed.pairs, what, OfRecord(typed.kind, typed.fields, typed.nullable))

    def question(self, arguments: dict[str, Any]) -> Command[Any]:
        return self.command(**arguments)

    def _items(self, known: Mapping[str, Any]) -> tuple[Argument | None, Argument | None] | None:
        owner = self.answer[2]
        for base in vars(owner)["__orig_bases__"]:
            received, sent, *_ = (*get_args(base), None, None)
            if len(get_args(base)) > 1:
                scope = Scope(owner, known)
                return self._item(received, scope), self._item(sent, scope)
        return None

    def _item(self, hint: Any, scope: Scope) -> Argument | None:
        hint = scope.evaluated(hint)
        if hint in _NO_ITEMS:
            return None
        what = f"an item of {self.command.__name__}"
        found = hint_of(hint, scope, what)
        if found.nullable:
            raise TypeError(f"{what} cannot be None: send a record in which a field may be None")
        if found.argument.carries_descriptors:
            raise TypeError(f"{what} cannot be a descriptor: send it with a plain command")
        return found.argument

    def use_template(self, template: Template | None) -> None:
        self.question_template = template
        shape = self.arguments.shape
        assert isinstance(shape, OfQuestion)
        self.template = None if shape.checked else template


class _Unresolved(TypedDefinition):
    """A typed command until its annotations are resolved: what needs them has them resolved.

    (It is a class of its own because a class with `__getattr__` makes each of its attributes slower.)
    """

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        if name in _RESOLVED:
            self.resolve(ChainMap())
            return getattr(self, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


class _Late:
    """The pairs of a typed command, until its annotations are resolved."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, instance: Any, owner: Any) -> Any:
        return getattr(owner.__amp__, self._name).pairs


def define(
    cls: type[Any],
    answer: tuple[Any, str | None, type],
    inherits: Callable[..., bool],
    reserved: frozenset[str],
    names: ChainMap[str, Any],
) -> TypedDefinition:
    """Make the class of a typed command, whose fields cannot have the names in `reserved`."""
    _check_names(cls, reserved)
    try:
        attrs.define(cls, slots=False, frozen=True, kw_only=True, auto_attribs=True)
    except attrs.exceptions.UnannotatedAttributeError as error:
        raise TypeError(f"{cls.__name__}: a field needs an annotation: {error}") from None
    for field in fields_of(cls):
        if field.keyword != field.name:
            raise TypeError(
                f"{cls.__name__}.{field.name}: a field of a command has no alias and no `_` at the "
                f"beginning: write {field.name.lstrip('_')}: Annotated[..., Wire({field.name!r})]"
            )
    cls.structured = property(_structured)
    cls.arguments, cls.response = _Late("arguments"), _Late("response")
    return _Unresolved(cls, inherits, answer, names)


def _structured(question: Any) -> dict[str, Any]:
    """The arguments of the question, by their names."""
    return {name: getattr(question, name) for name in question.__amp__.arguments.names}


def _check_names(cls: type[Any], reserved: frozenset[str]) -> None:
    """Raise `TypeError` for what cannot be in the body of a typed command."""
    name = cls.__name__
    own = vars(cls)
    if "__init__" in own:
        raise TypeError(f"{name}.__init__ is made by attrs: write __attrs_post_init__ for more checks")
    for attribute in ("arguments", "response"):
        if attribute in own:
            raise TypeError(
                f"{name}.{attribute}: a typed command has fields and a type of the answer in place of "
                f"pairs: write class {name}(Command) for pairs"
            )
    for field, hint in own.get("__annotations__", {}).items():
        if field not in reserved or is_class_variable(hint):
            continue
        if field in own and not isinstance(own[field], type(attrs.field())):
            advice = f"write {field} = ... without an annotation for what AMP calls so, or "
        else:
            advice = ""
        raise TypeError(
            f"{name}.{field}: a field cannot have a name of AMP's own: {advice}"
            f"write another name, such as {field}_: Annotated[..., Wire({field!r})]"
        )
