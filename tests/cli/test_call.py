"""call, ping and health: what they ask, what they print, and how they end."""

from __future__ import annotations

import asyncio
import io
import json
import re
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import conftest
import pytest
import shop

from amp_asyncio import AmpBox

Run = Callable[..., Any]


# --- values ---


def test_without_a_schema_values_are_text(run: Run, background: Any) -> None:
    address = background.serve()
    assert run("call", address, "Sum", "a=13", "b=81").printed == (0, "total: 94\n")
    # Options may stand anywhere.
    assert run("call", address, "Sum", "--json", "a=1", "b=2").printed == (0, '{"total": "3"}\n')
    assert run("call", address, "every-thing", r"data=a\x00 \\").printed == (0, "data: a\\x00 \\\\\n")


@pytest.mark.parametrize(
    ("typed", "shown", "value"),
    [
        ("number=-5", "-5", -5),
        ("text=hello there", "hello there", "hello there"),
        (r"text=C:\new", r"C:\new", r"C:\new"),
        ("text=two\nlines", r"two\nlines", "two\nlines"),
        ("text=", "", ""),
        (r"data=\x00\xff\n\\ grün", r"\x00\xff\n\\ grün", r"\x00\xff\n\\ grün"),
        ("share=0.1", "0.1", 0.1),
        ("share=inf", "inf", "inf"),
        ("truth=true", "true", True),
        ("truth=False", "false", False),
        ("price=1.50", "1.50", "1.50"),
        ("when=2024-02-29T12:00Z", "2024-02-29T12:00:00+00:00", "2024-02-29T12:00:00+00:00"),
        ("path=/tmp/x", "/tmp/x", "/tmp/x"),
        ("point=1:2", "1:2", "1:2"),
        ("numbers=[1, -2, 3]", "[1, -2, 3]", [1, -2, 3]),
        ('nested=[["a", "b"], []]', '[["a", "b"], []]', [["a", "b"], []]),
        (
            'from=[{"the-name": "Ada", "age": 36}, {"the_name": "ü\\u009b"}]',
            '[{"the-name": "Ada", "age": 36}, {"the-name": "\\u00fc\\u009b"}]',
            [{"the-name": "Ada", "age": 36}, {"the-name": "ü\x9b"}],
        ),
        ("from=[]", "[]", []),
    ],
)
def test_with_a_schema_values_have_their_types(
    run: Run, background: Any, typed: str, shown: str, value: object
) -> None:
    call = ("call", background.serve(), "every-thing", typed, "--commands", "shop")
    name = typed.partition("=")[0]
    assert run(*call).printed == (0, f"{name}: {shown}\n")
    status, line = run(*call, "--json").printed
    assert (status, json.loads(line)) == (0, {name: value})


def test_bytes_may_be_in_a_file(run: Run, background: Any, tmp_path: Path) -> None:
    content = b"x" * 70000 + bytes(range(256))
    (tmp_path / "file").write_bytes(content)
    call = ("call", "--commands", "shop", "--json", background.serve(), "Everything")
    status, line = run(*call, f"large=@{tmp_path / 'file'}").printed
    assert status == 0
    # What was printed stands for the same bytes.
    again = json.dumps({"large": json.loads(line)["large"]})
    assert run(*call, again).printed == (0, line)
    assert run(*call, "data=@/no/such/file").failed == (
        2,
        '{"error": "cannot read /no/such/file: No such file or directory"}',
    )


def test_arguments_as_json(run: Run, background: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    call = ("call", "--commands", "shop", "--json", background.serve())
    given = {"number": 1, "price": 1.5, "share": 1, "truth": True, "text": "@file", "numbers": None}
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(given)))
    _, line = run(*call, "every-thing", "-", "number=2").printed
    assert json.loads(line) == {
        "number": 2,
        "price": "1.5",
        "share": 1.0,
        "truth": True,
        "text": "@file",
    }
    assert run(*call, "Sum", '{"a": 1}', "b=2").printed == (0, '{"total": 3}\n')


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["Sum"], "the command Sum: missing a"),
        (["Sum", "a=1", "c=2"], "the command Sum: unknown c; it has a, b"),
        (["Sum", "a=x"], 'a: "x" does not fit Integer: not an integer in decimal digits'),
        (["Sum", "a"], "a: write an argument as name=value"),
        (["Sum", "=1"], "=1: write an argument as name=value"),
        (["Sum", "{"], "this is not JSON (Expecting property name enclosed in double quotes: line 1 "),
        (["Sum", '{"a": [1]}'], 'a: one value is needed, not ["1"]'),
        (["Sum", '{"a": null}'], "b'a' could not be encoded; only an argument with optional=True"),
        (["Sum", "-"], 'the arguments are a JSON object, such as {"name": 1}'),
        (["every-thing", "numbers=1"], 'numbers: a list is needed, such as [1, 2], not "1"'),
        (["every-thing", "numbers=x"], "numbers: this is not JSON ("),
        (["every-thing", "from=[1]"], 'from: an element is an object, such as {"name": 1}, not "1"'),
        (["every-thing", r"data=\q"], r"data: \q is not an escape: write \\ for a backslash, or \n"),
        (["every-thing", "truth=perhaps"], 'truth: "perhaps" does not fit Boolean: neither'),
        (["every-thing", "when=2024-02-29T12:00"], "a DateTime needs a time zone"),
        (["every-thing", "data=@"], "cannot read : No such file or directory"),
        (["every-thing", "data=@\0"], "cannot read \\x00: embedded null byte"),
        (
            ["Nope"],
            "shop has no command Nope; it has Complex, Divide, Hang, Introduce, Notify, Slow",
        ),
    ],
)
def test_arguments_that_do_not_fit(
    run: Run,
    background: Any,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    problem: str,
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("[]"))
    status, line = run("call", "--commands", "shop", background.serve(), *arguments).failed
    assert status == 2
    assert problem in line


def test_arguments_that_do_not_fit_without_a_schema(run: Run, background: Any) -> None:
    address = background.serve()
    for argument, problem in {
        r"a=\q": r"a: \q is not an escape",
        f"a={'x' * 65536}": "local value of b'a' too long",
        '{"a": {}}': "a: one value is needed, not {}",
        f"{'k' * 256}=": "local key too long: 256 bytes",
    }.items():
        status, line = run("call", address, "Sum", argument).failed
        assert status == 2
        assert line.startswith(problem)


# --- answers ---


def test_a_record(run: Run, background: Any) -> None:
    call = ("call", background.serve(), "Introduce", 'who={"name": "Ada"}', "--commands", "shop")
    assert run(*call).printed == (0, 'who: {"name": "Ada"}\n')


def test_a_command_that_wants_no_answer(run: Run, background: Any) -> None:
    address = background.serve()
    assert run("call", address, "Notify", "text=one", "--commands", "shop").printed == (0, "")
    assert run("call", address, "Notify", "text=two", "--no-answer").printed == (0, "")
    assert shop.Shop.notified == ["one", "two"]


def test_an_answer_without_values(run: Run, background: Any) -> None:
    call = ("call", background.serve(), "every-thing")
    assert run(*call).printed == (0, "")
    assert run(*call, "--json").printed == (0, "{}\n")


@pytest.mark.parametrize("options", [[], ["--commands", "shop"]])
def test_an_error_of_the_peer(run: Run, background: Any, options: list[str]) -> None:
    call = ("call", background.serve(), "Divide", "a=1.0", "b=0.0", *options)
    assert run(*call).failed == (1, "ZERO_DIVISION: float division by zero")
    _, line = run(*call, "--json").failed
    assert json.loads(line) == {"error": "float division by zero", "code": "ZERO_DIVISION"}


def test_a_command_that_the_peer_does_not_have(run: Run, background: Any) -> None:
    address = background.serve()
    assert run("call", address, "Nope").failed == (1, "UNHANDLED: the peer has no command Nope")


def test_an_answer_that_does_not_fit(run: Run, background: Any) -> None:
    call = ("call", "--commands", "shop", background.serve())
    assert run(*call, "Wrong").failed == (
        1,
        "the answer to Wrong: b'number' is b'x': not an integer in decimal digits",
    )
    assert run(*call, "Complex").printed == (0, "number: 1j\n")


def test_text_of_the_peer_moves_no_cursor(run: Run, background: Any) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        error = AmpBox(_error=b"1", _error_code=b"\x1b[2J", _error_description=b"\xff\n\x1b]0;x\x07")
        await reader.readuntil(b"\0\0")
        writer.write(error.serialize())
        await reader.read()

    status, line = run("call", background.serve_bytes(answer), "Sum", "--raw").failed
    assert status == 1
    assert line.isprintable()


# --- peers that are not AMP ---


async def http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    await reader.read()


async def half_a_box(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\0\0")
    writer.write(AmpBox(_answer=b"1", total=b"3").serialize()[:-3])


async def leaving(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\0\0")


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def tls_alert(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\0\0")
    writer.write(b"\x15\x03\x01\0\x02\x02\x46")
    await reader.read()


@pytest.mark.parametrize(
    ("handler", "problem"),
    [
        (http, "(this looks like HTTP)"),
        (tls_alert, "(this looks like TLS)"),
        (half_a_box, "the peer ended the connection in the middle of a box"),
        (leaving, "the peer closed its side of the connection"),
    ],
)
def test_a_peer_that_does_not_answer_as_amp(
    run: Run, background: Any, handler: Any, problem: str
) -> None:
    address = background.serve_bytes(handler)
    status, line = run("call", address, "Sum", "a=1").failed
    assert status == 3
    assert line.startswith(f"{address}: ")
    assert problem in line


@pytest.mark.parametrize("options", [[], ["--tls", "--insecure"], ["--starttls", "--insecure"]])
def test_a_peer_that_says_nothing(run: Run, background: Any, options: list[str]) -> None:
    call = ("call", background.serve_bytes(silent), "Sum", "a=1", "--timeout", "0.05", *options)
    assert run(*call).failed == (4, "no answer within 0.05 seconds")


def test_a_tls_port_that_is_asked_in_the_clear(run: Run, background: Any, certificates: Any) -> None:
    address = background.serve_bytes(silent, ssl=certificates.context())
    status, _ = run("call", address, "Sum", "a=1").failed
    assert status == 3


def test_where_nobody_listens(run: Run, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert run("call", address, "Sum").failed == (3, f"{address}: Connection refused")
    path = str(tmp_path / "none")
    assert run("call", path, "Sum").failed == (3, f"{path}: No such file or directory")
    status, line = run("ping", "host.invalid:1").failed
    assert (status, line.partition(":")[0]) == (3, "host.invalid")


def test_a_connection_that_takes_too_long_to_be_made(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*arguments: object, **options: object) -> None:
        raise TimeoutError(110, "Connect call failed")

    monkeypatch.setattr(asyncio.SelectorEventLoop, "create_connection", fail)
    assert run("ping", "[::1]:1").failed == (3, "[::1]:1: Connection timed out")
    monkeypatch.setattr(asyncio.SelectorEventLoop, "create_connection", lambda *a, **kw: fail2())
    assert run("ping", ":1").failed == (3, ":1: the peer has reset the connection")


async def fail2() -> None:
    raise ConnectionResetError


@pytest.mark.parametrize(
    "address", ["localhost", "localhost:", "localhost:x", "::1:80", "localhost:65536", "a b"]
)
def test_what_is_not_an_address(run: Run, address: str) -> None:
    status, line = run("call", address, "Sum").failed
    assert status == 2
    assert line.startswith(f"{address} is not an address: write host:port, [::1]:port, or a path")


# --- UNIX sockets and TLS ---


def test_a_unix_socket(run: Run, background: Any, tmp_path: Path, certificates: Any) -> None:
    path = background.serve_unix(tmp_path / "clear")
    assert run("call", path, "Sum", "a=1", "b=2").printed == (0, "total: 3\n")
    path = background.serve_unix(tmp_path / "tls", ssl=certificates.context())
    call = ("call", path, "Sum", "a=1", "--tls")
    verified = ("--cafile", certificates.ca, "--servername", "shop.example")
    assert run(*call, "--insecure").printed == (0, "total: 1\n")
    assert run(*call, *verified).printed == (0, "total: 1\n")
    assert run(*call, *verified[:2]).failed == (
        2,
        "a UNIX socket has no host name to verify: give --servername NAME or --insecure",
    )


@pytest.mark.parametrize("how", ["--tls", "--starttls"])
def test_tls(run: Run, background: Any, certificates: Any, how: str) -> None:
    if how == "--tls":
        address = background.serve(ssl=certificates.context())
    else:
        tls = {"tls_localCertificate": certificates.server}
        address = background.serve(type("Peer", (shop.Secured,), {"tls": tls}))
    call = ("call", address, "Sum", "a=1", how)
    ca = ("--cafile", certificates.ca)
    assert run(*call, *ca).printed == (0, "total: 1\n")
    assert run(*call, *ca, "--servername", "shop.example").printed == (0, "total: 1\n")
    assert run(*call, "--insecure").printed == (0, "total: 1\n")
    for options in ([], [*ca, "--servername", "other.example"], ["--cafile", certificates.stranger]):
        status, line = run(*call, *options).failed
        assert status == 3
        assert line.startswith(f"{address}: the certificate was not accepted: ")


@pytest.mark.parametrize("how", ["--tls", "--starttls"])
def test_client_certificates(run: Run, background: Any, certificates: Any, how: str) -> None:
    authorities = [certificates.authority]
    if how == "--tls":
        address = background.serve(ssl=certificates.context(authorities))
    else:
        tls = {"tls_localCertificate": certificates.server, "tls_verifyAuthorities": authorities}
        address = background.serve(type("Peer", (shop.Secured,), {"tls": tls}))
    call = ("call", address, "Sum", "a=1", how, "--cafile", certificates.ca)
    assert run(*call, "--cert", certificates.client).printed == (0, "total: 1\n")
    key = ("--key", certificates.client)
    assert run(*call, "--cert", certificates.client, *key).printed == (0, "total: 1\n")
    for options in ([], ["--cert", certificates.stranger]):
        status, _ = run(*call, *options).failed
        assert status == 3


def test_what_is_wrong_with_certificates(run: Run, certificates: Any, tmp_path: Path) -> None:
    call = ("call", "localhost:1", "Sum", "--tls")
    none = tmp_path / "none.pem"
    for options, problem in (
        (["--cafile", none], f"cannot read {none}: No such file or directory"),
        (["--cert", none], f"cannot read {none}: No such file or directory"),
        (["--cert", certificates.ca], "no PEM private key in"),
        (["--cert", certificates.client, "--key", certificates.stranger], "the private key does not"),
        (["--key", certificates.client], "--key belongs to a certificate: give --cert, too"),
        (["--insecure", "--cafile", certificates.ca], "--insecure verifies nothing, so --cafile has"),
        (["--starttls"], "amp-asyncio call: argument --starttls: not allowed with argument --tls"),
    ):
        status, line = run(*call, *options).failed
        assert status == 2
        assert line.startswith(problem)


def test_a_peer_that_refuses_tls(run: Run, background: Any) -> None:
    call = ("call", background.serve(shop.Refusing), "Sum", "--starttls", "--insecure")
    assert run(*call).failed == (3, "the peer refuses StartTLS: not today")
    status, _ = run("call", background.serve(), "Sum", "--tls", "--insecure").failed
    assert status == 3


def test_the_authorities_of_the_system_are_trusted(
    run: Run, background: Any, certificates: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ssl.get_default_verify_paths().openssl_cafile_env, str(certificates.ca))
    address = background.serve(ssl=certificates.context())
    assert run("call", address, "Sum", "a=1", "--tls").printed == (0, "total: 1\n")


# --- ping and health ---


def test_ping(run: Run, background: Any) -> None:
    address = background.serve()
    status, line = run("ping", address).printed
    assert status == 0
    assert line.startswith("answered in ")
    status, line = run("ping", address, "--json").printed
    assert 0 < json.loads(line)["seconds"] < 30
    # Any answer counts, but nothing that is not one.
    assert run("ping", background.serve_bytes(conftest.answering({b"_ping": {}}))).status == 0
    assert run("ping", background.serve_bytes(http)).status == 3


NOT_SERVING = {b"_error_code": b"_NOT_SERVING", b"_error_description": b"not serving"}
UNHANDLED = {b"_error_code": b"UNHANDLED", b"_error_description": b"Unhandled Command"}


def test_health(run: Run, background: Any) -> None:
    answers = {b"_health": NOT_SERVING, b"_health=db": {}}
    address = background.serve_bytes(conftest.answering(answers))
    assert run("health", address).printed == (1, "not serving\n")
    assert run("health", address, "--json").printed == (1, '{"serving": false}\n')
    assert run("health", address, "db").printed == (0, "serving\n")
    assert run("health", address, "db", "--json").printed == (0, '{"serving": true}\n')
    old = background.serve_bytes(conftest.answering({b"_health": UNHANDLED}))
    assert run("health", old).failed == (1, "UNHANDLED: the peer has no command _health")


# --- what a peer says of its commands ---


def argument(name: str, kind: str, optional: bool = False, of: Any = None) -> dict[str, Any]:
    described = {"name": name, "python_name": name, "type": kind, "optional": optional}
    return described if of is None else {**described, "of": of}


BOOK = {
    "name": "Book",
    "arguments": [
        argument("guest", "Unicode"),
        argument("data", "OurOwn", True),
        argument("seats", "ListOf", True, {"type": "Integer", "optional": False}),
        argument("people", "AmpList", True, [argument("age", "Integer", True)]),
        argument("one", "Record", True, [argument("age", "Integer")]),
        argument("ages", "DictOf", True, [argument("key", "Unicode"), argument("value", "Integer")]),
        argument("whole", "Boolean", True),
    ],
    "response": [
        argument("price", "Decimal"),
        argument("one", "Record", True, [argument("age", "Integer")]),
        argument("ages", "DictOf", True, [argument("key", "Unicode"), argument("value", "Integer")]),
    ],
    "errors": {"TAKEN": "Taken", "FULL": "Full"},
    "requires_answer": True,
    "doc": "Book seats.",
}
LEAVE = {"name": "Leave", "arguments": [], "response": [], "errors": {}, "doc": ""}
COMMANDS = [BOOK, {**LEAVE, "requires_answer": False}, {**LEAVE, "name": "X", "requires_answer": True}]
DESCRIBED = {b"commands": json.dumps(COMMANDS).encode()}


def test_describe(run: Run, background: Any) -> None:
    address = background.serve_bytes(conftest.answering({b"_describe": DESCRIBED}))
    status, text = run("describe", address).printed
    assert status == 0
    assert text.splitlines() == [
        "Book(guest: Unicode, data: OurOwn?, seats: ListOf[Integer]?, people: AmpList[age: Integer?]?, "
        "one: Record[age: Integer]?, ages: DictOf[key: Unicode, value: Integer]?, whole: Boolean?) -> "
        "price: Decimal, one: Record[age: Integer]?, ages: DictOf[key: Unicode, value: Integer]?",
        "    Book seats.",
        "    errors: TAKEN, FULL",
        "Leave() -> no answer",
        "X() -> nothing",
    ]
    assert run("describe", address, "X").printed == (0, "X() -> nothing\n")
    status, line = run("describe", address, "Book", "--json").printed
    assert json.loads(line) == [BOOK]
    assert run("describe", address, "Y").failed == (1, "the peer describes no command Y")
    old = background.serve_bytes(conftest.answering({b"_describe": UNHANDLED}))
    assert run("describe", old).failed == (1, "UNHANDLED: the peer has no command _describe")


@pytest.mark.parametrize(
    "description", [{}, {b"commands": b"x"}, {b"commands": b"[1]"}, {b"commands": b'[{"name": "x"}]'}]
)
def test_a_description_that_does_not_parse(
    run: Run, background: Any, description: dict[bytes, bytes]
) -> None:
    address = background.serve_bytes(conftest.answering({b"_describe": description}))
    problem = "the peer's description of its commands does not parse"
    assert run("describe", address).failed == (1, problem)


def test_values_have_the_types_that_the_peer_describes(run: Run, background: Any) -> None:
    ages = AmpBox(key=b"Ada", value=b"36").serialize() + AmpBox(key=b"Grace", value=b"85").serialize()
    answer = {b"price": b"1.50", b"one": AmpBox(age=b"36").serialize(), b"ages": ages}
    answers = {b"_describe": DESCRIBED, b"Book": answer}
    asked: list[AmpBox] = []
    handle = conftest.answering(answers, asked)
    call = ("call", background.serve_bytes(handle), "Book", "guest=Ada", "--json")
    given = ["seats=[1]", r"data=\x00", 'people=[{}, {"age": 3}]', 'one={"age": 1}', "whole=true"]
    _, line = run(*call, *given, 'ages={"Ada": 36, "Grace": 85}').printed
    assert json.loads(line) == {
        "price": "1.50",
        "one": {"age": 36},
        "ages": {"Ada": 36, "Grace": 85},
    }
    box = asked[-1]
    assert box[b"seats"] == b"\0\x011"
    assert box[b"data"] == b"\0"
    assert box[b"people"] == b"\0\0" + AmpBox(age=b"3").serialize()
    assert box[b"one"] == AmpBox(age=b"1").serialize()
    assert box[b"ages"] == ages
    assert box[b"whole"] == b"True"
    for text, problem in {
        "seats=[true]": 'seats: "True" does not fit Integer: not an integer in decimal digits',
        "one=[]": 'one: an element is an object, such as {"name": 1}, not []',
        "ages=[]": 'ages: an object is needed, such as {"name": 1}, not []',
        "none=1": "the command Book: unknown none; it has guest, data, seats, people, one, ages, whole",
    }.items():
        _, line = run(*call[:-1], text).failed
        assert line == problem
    assert run("call", call[1], "Leave").printed == (0, "")
    # A command that is not described is asked all the same.
    assert run("call", call[1], "Hm", "--no-answer").printed == (0, "")
    assert (asked[-1][b"_command"], len(asked[-1])) == (b"Hm", 1)


def test_a_record_that_is_none_or_many_is_shown_as_a_list(run: Run, background: Any) -> None:
    answers = {b"_describe": DESCRIBED, b"Book": {b"price": b"1", b"one": b""}}
    address = background.serve_bytes(conftest.answering(answers))
    assert run("call", address, "Book", "guest=Ada").printed == (0, "price: 1\none: []\n")


@pytest.mark.slow
def test_a_peer_that_does_not_answer_what_it_does_not_know(run: Run, background: Any) -> None:
    address = background.serve_bytes(conftest.answering({b"Sum": {b"total": b"3"}}))
    assert run("call", address, "Sum").printed == (0, "total: 3\n")


# --- the rest ---


def test_verbose_prints_the_boxes(run: Run, background: Any) -> None:
    ended = run("call", background.serve(), "Sum", "a=1", "--raw", "--verbose")
    assert (ended.status, ended.out) == (0, "total: 1\n")
    assert re.search("sent {.*b'_command': b'Sum'", ended.err)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["call", "--nope", "x:1", "Sum"], "unrecognized arguments: --nope"),
        (["decode", "a", "b"], "unrecognized arguments: b"),
        (["call", "x:1", "Sum", "--timeout", "-1"], "invalid number of seconds value: '-1'"),
        (["call", "x:1", "Sum", "--commands", "no_such_module"], "cannot import no_such_module: Mod"),
    ],
)
def test_usage(run: Run, arguments: list[str], problem: str) -> None:
    status, line = run(*arguments).failed
    assert status == 2
    assert problem in line


def test_a_timeout_of_zero_is_no_limit(run: Run, background: Any) -> None:
    assert run("ping", background.serve(), "--timeout", "0").status == 0


@pytest.mark.parametrize("command", ["call", "ping", "health", "serve", "decode", "dissector"])
def test_help_has_examples(run: Run, command: str) -> None:
    status, text = run(command, "--help").printed
    assert status == 0
    assert f"\n  amp-asyncio {command} " in text.partition("example")[2]
