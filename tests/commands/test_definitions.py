"""Wrong definitions: what is said where a class is defined, or where its annotations are resolved."""

from __future__ import annotations

import datetime
import enum
import uuid
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Annotated, Any, ClassVar, Generic, Literal, TypeVar

import pytest
from attrs import field, frozen
from attrs.validators import ge, instance_of

from amp_asyncio import AMP, Argument, Command, Descriptor, Integer, Unicode, Wire
from amp_asyncio.testing import pair

T = TypeVar("T")


@frozen
class Total:
    total: int


class Bare:
    """Neither an attrs class nor a dataclass."""


class Mixed(enum.Enum):
    ONE = 1
    TWO = "two"


class Other(enum.Enum):
    ONE = 1


@frozen
class Node:
    children: list[Node]


@frozen
class Outer:
    inner: list[Any]


@frozen
class Pages(Generic[T]):
    items: list[T]


@frozen
class Fixed:
    number: int = field(init=False, default=3)


CASES: list[tuple[Any, str]] = [
    (Bare, "Bare has no argument: decorate the class with attrs.frozen, or write Annotated"),
    (Any, r"Any has no argument: write its type, or Annotated\[.*Any, SomeArgument"),
    (list, r"list has no argument: write list\[...\] with the type of its elements, or Annotated"),
    (
        dict[int, str],
        r"dict\[int, str\] has no argument: write dict\[str, ...\], or a class with fields",
    ),
    (tuple[int, ...], r"tuple\[int, ...\] has no argument: write list\[...\], or"),
    (Sequence[int], r"write list\[...\], or"),
    (Mapping[str, int], r"write dict\[str, ...\], or"),
    (datetime.date, "date has no argument: write datetime.datetime, or str, or"),
    (int | str, r"int \| str has no argument: write Annotated\[int \| str, SomeArgument\(\)\]"),
    (Callable[[], int], "has no argument: write Annotated"),
    (list[int | None], "an element of a list cannot be None: leave it out"),
    (list[Any], "Any has no argument"),
    (Outer, "Outer.inner: .*Any has no argument"),
    (Node, "Node contains itself, and a record may not"),
    (Pages, "Pages.items: nothing is said of the type variable ~T: write the type"),
    (Fixed, "Fixed.number has init=False: a value that comes could not be set"),
    (Mixed, "the values of Mixed must be all int, or all str, or all bytes; or write Annotated"),
    (Literal[1, "a"], "the values of a Literal must be all int, or all str, or all bytes"),
    (Literal[Mixed.ONE, Other.ONE], "the values of a Literal must have one type"),
    (Annotated[int, Integer], r"an Argument is an instance: write Integer\(\)"),
]


@pytest.mark.parametrize(("annotation", "message"), CASES)
def test_types_without_an_argument(annotation: Any, message: str) -> None:
    where = "" if annotation in (Outer, Node, Pages, Fixed) else "Ask.it: "
    with pytest.raises(TypeError, match=f"^{where}.*{message}"):

        class Ask(Command[None]):
            it: annotation  # type: ignore[valid-type]

    where = "" if where == "" else "the answer to Ask: "
    with pytest.raises(TypeError, match=f"^{where}.*{message}"):

        class Ask(Command[annotation], answer="it"):  # type: ignore[valid-type, no-redef]
            pass


DEFAULTS: list[tuple[Any, Any, type[Exception], str]] = [
    (int, None, TypeError, r"Ask.it defaults to None: write `... \| None` for its type"),
    (int | None, 3, TypeError, "Ask.it: a type with None in it may default to None only, not to 3"),
    (int, "x", TypeError, "Ask.it: the default 'x' is refused: an Integer is an int"),
    (
        int,
        field(default=-1, validator=ge(0)),
        ValueError,
        "Ask.it: the default -1 is refused: 'it' must",
    ),
    (str, field(default=1, validator=instance_of(str)), TypeError, "Ask.it: the default 1 is refused"),
    (int, field(default="x", converter=int), ValueError, "Ask.it: the default 'x' is refused: invalid"),
    (int, field(init=False, default=1), TypeError, "Ask.it has init=False"),
    (int, field(alias="other"), TypeError, r"Ask.it: a field of a command has no alias"),
    (Annotated[int, Wire("_ask")], 3, ValueError, "the command Ask: b'_ask' is one of AMP's own keys"),
    (Annotated[int, Wire("größe")], 3, ValueError, "the command Ask: a name is ASCII, not 'größe'"),
]


@pytest.mark.parametrize(("annotation", "default", "error", "message"), DEFAULTS)
def test_defaults_and_names(
    annotation: Any, default: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):

        class Ask(Command[None]):
            it: annotation = default  # type: ignore[valid-type]


def test_defaults_that_look_at_other_fields() -> None:
    class Range(Command[None]):
        low: int
        high: int = field(default=3)
        file: Annotated[int, Descriptor()] = 0

        @high.validator
        def _above(self, attribute: Any, value: int) -> None:
            if value < self.low:
                raise ValueError("below")

    assert Range(low=1).high == 3


BODIES: list[tuple[dict[str, Any], str]] = [
    (
        {"self": int},
        r"Ask.self: a field cannot have a name of AMP's own: write another name, such as self_",
    ),
    ({"commandType": int}, "Ask.commandType: a field cannot have a name of AMP's own"),
    ({"structured": int}, "Ask.structured: a field cannot have a name"),
    ({"responder": int}, "Ask.responder: a field cannot have a name"),
    ({"_hidden": int}, r"Ask._hidden: .*: write hidden: Annotated\[..., Wire\('_hidden'\)\]"),
]


@pytest.mark.parametrize(("annotations", "message"), BODIES)
def test_names_of_amps_own(annotations: dict[str, Any], message: str) -> None:
    from types import new_class

    with pytest.raises(TypeError, match=message):
        new_class("Ask", (Command[None],), {}, lambda body: body.update(__annotations__=annotations))


def test_attributes_of_the_command() -> None:
    with pytest.raises(TypeError, match=r"Ask.errors: .*: write errors = ... without an annotation"):

        class Ask(Command[None]):
            errors: dict[type[Exception], bytes] = {KeyError: b"KEY"}  # type: ignore[misc]

    class Right(Command[None]):
        errors: ClassVar[Any] = {KeyError: b"KEY"}
        fatalErrors: "ClassVar[dict[type[Exception], bytes]]" = {}  # noqa: UP037

    assert Right.allErrors == {KeyError: b"KEY"}
    for name in ("arguments", "response"):
        with pytest.raises(TypeError, match=rf"Ask.{name}: .*write class Ask\(Command\) for pairs"):
            type(Command)("Ask", (Right,), {name: [(b"a", Integer())]})
    with pytest.raises(TypeError, match="Ask: a field needs an annotation: .*a"):

        class Ask(Command[None]):  # type: ignore[no-redef]
            a = field()

    with pytest.raises(TypeError, match="Ask.__init__ is made by attrs"):

        class Ask(Command[None]):  # type: ignore[no-redef]
            def __init__(self) -> None: ...


def test_two_fields_of_one_name() -> None:
    with pytest.raises(ValueError, match="the command Ask: two fields have the name b'a' on the wire"):

        class Ask(Command[None]):
            a: int
            b: Annotated[int, Wire("a")]


def test_answers() -> None:
    with pytest.raises(TypeError, match="the answer to Ask is one value, and needs a name on the wire"):

        class Ask(Command[int]):
            pass

    with pytest.raises(TypeError, match="Ask has no answer, and so no name for it: leave out answer="):

        class Ask(Command[None], answer="x"):  # type: ignore[no-redef]
            pass

    with pytest.raises(TypeError, match=r"Ask: answer= names an answer of one value: write Command\["):

        class Ask(Command, answer="x"):  # type: ignore[no-redef]
            pass

    with pytest.raises(TypeError, match=r"Ask.requiresAnswer is false, .* write Command\[None\]"):

        class Ask(Command[Total]):  # type: ignore[no-redef]
            requiresAnswer = False

    with pytest.raises(TypeError, match="Ask: a command cannot be generic"):

        class Ask(Command[T], Generic[T]):  # type: ignore[no-redef]
            pass

    with pytest.raises(
        TypeError, match=r"Ask.number is a field, .* write class Ask\(Command\[None\]\)"
    ):

        class Ask(Command):  # type: ignore[no-redef]
            number: int

    with pytest.raises(TypeError, match="Ask.it: None has no argument"):

        class Ask(Command[None]):  # type: ignore[no-redef]
            it: None

    with pytest.raises(TypeError, match="Wire takes the name of a field on the wire, not 3"):
        Wire(3)  # type: ignore[arg-type]


def test_old_commands_may_have_annotations() -> None:
    class Old(Command):
        arguments: list[tuple[bytes, Argument]] = [(b"a", Integer())]  # type: ignore[misc]
        since: str = "1.0"
        cache: ClassVar[dict[str, int]]
        argument: str = "an attribute of the user's own"

        def error(self) -> None: ...

    assert Old.makeArguments({"a": 1}, None) == {b"a": b"1"}


@pytest.mark.parametrize(
    ("name", "value", "meant"),
    [
        ("argument", [], "arguments"),
        ("Arguments", [], "arguments"),
        ("responses", [], "response"),
        ("error", {}, "errors"),
        ("fatal_errors", {}, "fatalErrors"),
        ("requires_answer", False, "requiresAnswer"),
        ("requireAnswer", False, "requiresAnswer"),
        ("command_name", b"x", "commandName"),
    ],
)
@pytest.mark.parametrize("base", [Command, Command[None]])
def test_misspelt_attributes(base: Any, name: str, value: Any, meant: str) -> None:
    from types import new_class

    with pytest.raises(TypeError, match=f"Ask.{name} has no effect: it is spelled {meant}"):
        new_class("Ask", (base,), {}, lambda body: body.update({name: value}))


# --- responders ---


class Sum(Command[Total]):
    a: int
    b: int = 0


class OldSum(Command):
    commandName = b"Sum"
    arguments = [(b"a", Integer()), (b"b", Integer())]


def test_two_responders_for_one_command() -> None:
    with pytest.raises(TypeError, match="Math has two responders for Sum: one and two"):

        class Math(AMP):
            @Sum.responder
            def one(self, a: int, b: int = 0) -> Total: ...

            @Sum.responder
            def two(self, a: int, b: int = 0) -> Total: ...

    with pytest.raises(TypeError, match="Math answers two commands called b'Sum', with one and two"):

        class Math(AMP):  # type: ignore[no-redef]
            @Sum.responder
            def one(self, a: int, b: int = 0) -> Total: ...

            @OldSum.responder
            def two(self, a: int, b: int) -> None: ...

    class Fine(AMP):
        @Sum.responder
        def one(self, a: int, b: int = 0) -> Total: ...

        also = one

    class Newer(Fine):
        @OldSum.responder
        def two(self, a: int, b: int) -> None: ...


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("lambda self, a: None", "it lacks b"),
        ("lambda self, a, b, c: None", "it needs c, which the command does not have"),
        ("lambda self, x, b: None", "it lacks a; it needs x, which the command does not have"),
        ("lambda self, a, /, b: None", "it lacks a"),
        ("lambda self, *, a, c: None", "it lacks b; it needs c, which the command does not have"),
        ("lambda a, b: None", "it lacks a"),
        ("staticmethod(lambda self, a, b: None)", "it needs self, which the command does not have"),
        ("classmethod(lambda cls, a: None)", "it lacks b"),
    ],
)
@pytest.mark.parametrize("command", [Sum, OldSum])
def test_parameters_that_do_not_fit(command: Any, source: str, problem: str) -> None:
    method = eval(source)
    command.responder(getattr(method, "__func__", method))
    message = f"Math.answer does not fit {command.__name__}: {problem}$"
    with pytest.raises(TypeError, match=message):
        type("Math", (AMP,), {"answer": method})


def test_an_override_that_does_not_fit() -> None:
    class Math(AMP):
        @Sum.responder
        def sum(self, a: int, b: int = 0) -> Total: ...

    with pytest.raises(TypeError, match="Worse.sum does not fit Sum: it lacks b"):

        class Worse(Math):
            def sum(self, a: int) -> Total: ...  # type: ignore[override]

    class Without(Math):
        sum = None  # type: ignore[assignment]


def test_parameters_that_fit() -> None:
    def wrapped(method: Any) -> Any:
        @wraps(method)
        def around(*a: Any, **kw: Any) -> Any: ...

        return around

    class Own(OldSum):
        @classmethod
        def parseArguments(cls, box: Any, proto: Any) -> Any: ...

    for method in (
        lambda self, a, b, c=1, *, d=2: None,
        lambda self, /, **kw: None,
        lambda self, a, b, *more: None,
        wrapped(lambda self: None),
        staticmethod(lambda a, b: None),
        classmethod(lambda cls, a, b: None),
    ):
        function: Any = getattr(method, "__func__", method)
        OldSum.responder(function)
        type("Math", (AMP,), {"answer": method})

    class Math(AMP):
        @Own.responder
        def answer(self, anything: int) -> None: ...


# --- annotations that are resolved later ---


class Ahead(Command["Later"]):
    it: Later
    others: list[Later]


class Beyond(AMP):
    @Ahead.responder
    def ahead(self, it: Later, others: list[Later]) -> Later:
        return it


def test_before_they_are_resolved() -> None:
    class Unknown(Command["Nowhere"]):  # type: ignore[name-defined]
        it: Somewhere  # type: ignore[name-defined]  # noqa: F821

    for use in (
        lambda: Unknown.arguments,
        lambda: Unknown(it=1)._doCommand(AMP()),
        lambda: AMP().callRemote(Unknown, it=1),
        lambda: Unknown.parseArguments({}, None),
    ):
        with pytest.raises(NameError, match=r"Unknown.it: name 'Somewhere' is not defined"):
            use()
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        Unknown.__amp__.nothing  # noqa: B018


@frozen
class Later:
    number: int


async def test_they_are_resolved_when_they_are_used() -> None:
    async with pair(Beyond) as (_, client):
        assert await client.call(Ahead(it=Later(number=3), others=[])) == Later(number=3)
    assert repr(Ahead.response) == "[(b'number', Integer())]"


async def test_in_a_function() -> None:
    @frozen
    class Local:
        number: int

    class Ask(Command["Local"]):
        it: Local
        late: Late | None = None

    @frozen
    class Late:
        text: Annotated[str, Unicode()]

    class Here(AMP):
        @Ask.responder
        def ask(self, it: Local, late: Late | None = None) -> Local:
            return it

    async with pair(Here) as (_, client):
        assert await client.call(Ask(it=Local(number=1), late=Late(text="x"))) == Local(number=1)


def test_in_a_class_and_behind_a_hook() -> None:
    class Base(Command[None]):
        class Kind(enum.Enum):
            ONE = 1

        kind: Kind

        def __init_subclass__(cls, **kw: Any) -> None:
            super().__init_subclass__(**kw)

    Here = uuid.UUID

    class Ask(Base):
        it: Here

    value = Ask(kind=Base.Kind.ONE, it=Here(int=1))
    box = Ask.makeArguments(value.structured, None)
    assert Ask.parseArguments(box, None) == value.structured


def test_in_a_module_that_is_being_imported() -> None:
    import sys
    from types import ModuleType

    module = ModuleType("half_imported")
    sys.modules["half_imported"] = module
    names: dict[str, Any] = {"__name__": "half_imported", "half": module}
    vars(module).update(names)
    source = """
from __future__ import annotations
from amp_asyncio import Command
class Ask(Command[None]):
    it: half.Thing
"""
    try:
        exec(source, vars(module))
        with pytest.raises(NameError, match="has no attribute 'Thing'"):
            vars(module)["Ask"].arguments  # noqa: B018
        vars(module)["Thing"] = int
        assert repr(vars(module)["Ask"].arguments) == "[(b'it', Integer())]"
    finally:
        del sys.modules["half_imported"]


def test_in_a_namespace_that_is_no_module() -> None:
    source = """
from __future__ import annotations
from attrs import frozen
from amp_asyncio import Command
class Ask(Command[None]):
    it: Inner
@frozen
class Inner:
    number: int
"""
    names: dict[str, Any] = {"__name__": "nowhere"}
    exec(source, names)
    assert names["Ask"].makeArguments({"it": names["Inner"](1)}, None) == {
        b"it": b"\0\6number\0\x011\0\0"
    }


def test_names_of_another_module_come_first_there() -> None:
    source = """
from __future__ import annotations
from attrs import frozen
Later = int
@frozen
class Elsewhere:
    number: Later
"""
    import sys
    from types import ModuleType

    module = sys.modules["elsewhere"] = ModuleType("elsewhere")
    try:
        exec(source, vars(module))

        class Ask(Command[vars(module)["Elsewhere"]]):  # type: ignore[misc]
            pass

        assert repr(Ask.response) == "[(b'number', Integer())]"
    finally:
        del sys.modules["elsewhere"]


def test_without_the_import_from_the_future() -> None:
    source = """
from typing import Annotated
from attrs import frozen
from amp_asyncio import Command, Wire
def make():
    @frozen
    class Total:
        total: int
    class Sum(Command[Total]):
        a: Annotated[int, Wire("A")]
        b: "list[Total] | None" = None
    return Sum
Sum = make()
"""
    names: dict[str, Any] = {"__name__": __name__}
    exec(source, names)
    assert names["Sum"].makeArguments({"a": 1}, None) == {b"A": b"1"}
    assert [name for name, _ in names["Sum"].arguments] == [b"A", b"b"]
