"""call, for commands that open a stream: what is printed and sent, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import conftest
import feed
import pytest

Run = Callable[..., Any]
Typed = Callable[..., None]


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Typed]:
    """Return what gives the program these bytes as stdin, which stays open if it is said so."""
    opened: list[Any] = []

    def typed(data: bytes, stays_open: bool = False) -> None:
        reading, writing = os.pipe()
        opened.append(os.fdopen(reading))
        monkeypatch.setattr(sys, "stdin", opened[-1])
        end = os.fdopen(writing, "wb", buffering=0)
        opened.append(end)
        end.write(data)
        if not stays_open:
            end.close()

    yield typed
    # The end of a pipe that is written to comes first: a thread may still wait for it.
    for each in reversed(opened):
        each.close()


@pytest.mark.parametrize("known", [["--commands", "feed"], []])
def test_items_are_lines(run: Run, background: Any, typed: Typed, known: list[str]) -> None:
    """The types are known from the module, or because the peer describes them."""
    call = ("call", background.serve(feed.Feed), *known)
    rows = [{"number": 1, "text": "grün"}, {"number": 2}]
    status, text = run(*call, "Rows", "table=guests").printed
    assert (status, text.splitlines()) == (0, [json.dumps(row, ensure_ascii=False) for row in rows])
    status, text = run(*call, "Rows", "table=guests", "--json").printed
    assert (status, text.splitlines()) == (0, [json.dumps(row) for row in rows])
    # What comes before an error is printed.
    ended = run(*call, "Rows", "table=x")
    assert (ended.status, len(ended.out.splitlines())) == (1, 2)
    assert ended.err == "amp-asyncio: NO_SUCH_TABLE: x\n"
    typed(b"a\\x00\n@/etc/passwd\n\nlast")
    assert run(*call, "Upload").printed == (0, "size: 18\nlast: last\n")
    typed(rb'"a\\x00"')
    assert run(*call, "Upload", "--json").printed == (0, '{"size": 2, "last": "a\\\\x00"}\n')
    typed(b"[1, 2]\n[3]\n")
    assert run(*call, "Double").printed == (0, "[2, 4]\n[6]\n")
    # Other commands of the same peer are asked as always.
    assert run(*call, "Greet", "name=Ada").printed == (0, "text: Hello, Ada!\n")


def test_stdin_may_stay_open_or_be_closed(
    run: Run, background: Any, typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = ("call", background.serve(feed.Feed), "Upload")
    typed(b"abcd\n", stays_open=True)
    assert run(*call, "most=4").printed == (0, "size: 4\nlast: abcd\n")
    monkeypatch.setattr(sys, "stdin", None)
    assert run(*call).printed == (0, "size: 0\nlast: \n")
    with open(os.devnull) as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)
        assert run(*call).printed == (0, "size: 0\nlast: \n")


def test_an_answer_that_comes_while_there_are_items(run: Run, background: Any, typed: Typed) -> None:
    typed(b"x\n" * 10000)
    assert run("call", background.serve(feed.Feed), "Upload", "most=0").printed == (
        0,
        "size: 0\nlast: \n",
    )


@pytest.mark.parametrize(
    ("arguments", "given", "status", "problem"),
    [
        (["Double"], b"[1]\nx", 2, "line 2 of stdin: this is not JSON (Expecting value: line 1"),
        (["Double", "--json"], b"null", 2, "line 1 of stdin: "),
        (["Double", "--json"], b'"x"', 2, "line 1 of stdin: a list is needed, such as [1, 2], not "),
        (["Double"], b"[]\n", 1, "UNKNOWN: Unknown Error"),
        (["Double", "--no-answer"], b"", 2, "Double is a stream, and cannot be without an answer"),
        (["Upload", "-"], b"{}", 2, "stdin has the items of the stream: give the arguments as"),
        (["Upload"], b"x" * (2**22 + 1), 2, "line 1 of stdin: "),
        (["Rows", "x=1"], b"", 2, "the command Rows: missing table; unknown x"),
    ],
)
def test_what_goes_wrong(
    run: Run,
    background: Any,
    tmp_path: Any,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    given: bytes,
    status: int,
    problem: str,
) -> None:
    (tmp_path / "given").write_bytes(given)
    with open(tmp_path / "given") as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        ended = run("call", background.serve(feed.Feed), *arguments)
    assert ended.status == status
    assert problem in ended.err
    assert ended.err.count("\n") == 1


def test_stdin_that_cannot_be_read(
    run: Run, background: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Folder:
        def fileno(self) -> int:
            return folder

    folder = os.open(tmp_path, os.O_RDONLY)
    monkeypatch.setattr(sys, "stdin", Folder())
    problem = (2, "cannot read stdin: Is a directory")
    assert run("call", background.serve(feed.Feed), "Upload").failed == problem
    os.close(folder)


def test_a_peer_without_streams(run: Run, background: Any) -> None:
    call = ("call", "--commands", "feed", "Rows", "table=guests")
    status, line = run(*call[:3], background.serve(feed.Old), *call[3:]).failed
    assert status == 1
    assert line.startswith("the peer does not know this stream: ")
    plain = background.serve_bytes(conftest.answering({b"Rows": {}}))
    problem = "the peer has answered it as a plain command"
    assert run(*call[:3], plain, *call[3:]).failed == (1, problem)


def test_a_stream_of_which_nothing_is_known(run: Run, background: Any) -> None:
    call = ("call", background.serve(feed.Silent))
    problem = "UNHANDLED: Rows is a stream, which needs its types: name the module with --commands"
    assert run(*call, "Rows", "table=guests").failed == (1, problem)
    assert run(*call, "X").failed == (1, "UNHANDLED: the peer has no command X")


# --- the end from this side ---


class Output:
    """Stands for stdout; `event` is set when the second line is printed."""

    def __init__(self) -> None:
        self.text = ""
        self.event = threading.Event()

    def write(self, text: str) -> None:
        self.text += text
        if self.text.count("\n") == 2:
            self.event.set()

    def flush(self) -> None:
        pass


def test_ctrl_c_ends_it(run: Run, background: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Items are printed when they come, and so before the stream ends."""
    output = Output()
    feed.Feed.ended.clear()
    address = background.serve(feed.Feed)

    def interrupt() -> None:
        assert output.event.wait(20)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    monkeypatch.setattr(sys, "stdout", output)
    assert run("call", address, "Follow").printed == (130, "")
    thread.join()
    assert output.text == "first\nsecond\\n\\x1b[2J\n"
    background.clear()
    assert feed.Feed.ended == ["follow"]


def test_a_timeout_ends_it(run: Run, background: Any, typed: Typed) -> None:
    ended = run("call", background.serve(feed.Feed), "Follow", "--timeout", "0.2")
    assert (ended.status, ended.err) == (4, "amp-asyncio: no answer within 0.2 seconds\n")
    # What has come before is printed: on a slow machine, nothing may come within so short a time.
    for timeout in ("0.1", "1", "10"):
        typed(b"[1]\n", stays_open=True)
        ended = run("call", background.serve(feed.Feed), "Double", "--timeout", timeout)
        assert ended.status == 4
        if ended.out:
            break
    assert ended.out == "[2]\n"


def test_a_reader_that_goes_ends_it(run: Run, background: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    address = background.serve(feed.Feed)
    with os.fdopen(writing, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        assert run("call", address, "Follow").printed == (141, "")


def test_a_connection_that_is_lost_ends_it(run: Run, background: Any, typed: Typed) -> None:
    async def handle(reader: Any, writer: Any) -> None:
        await reader.readuntil(b"Upload")

    typed(b"", stays_open=True)
    address = background.serve_bytes(handle)
    status, line = run("call", "--commands", "feed", address, "Upload").failed
    assert status == 3
    assert line.startswith(f"{address}: ")


# --- describe ---


def test_describe_says_what_the_items_are(run: Run, background: Any) -> None:
    address = background.serve(feed.Feed)
    status, text = run("describe", address).printed
    assert status == 0
    assert text.splitlines() == [
        "Rows(table: Unicode) -> nothing",
        "    Read a table.",
        "    items received: Record[number: Integer, text: Unicode?]",
        "    errors: NO_SUCH_TABLE",
        "Upload(most: Integer?) -> size: Integer, last: String",
        "    items sent: String",
        "Double() -> nothing",
        "    items received: ListOf[Integer]",
        "    items sent: ListOf[Integer]",
        "Follow() -> nothing",
        "    items received: Unicode",
        "Greet(name: Unicode) -> text: Unicode",
    ]
    _, line = run("describe", address, "Upload", "--json").printed
    assert json.loads(line)[0]["items"] == {
        "received": None,
        "sent": {"type": "String", "optional": False},
    }
    _, line = run("describe", address, "Greet", "--json").printed
    assert "items" not in json.loads(line)[0]


@pytest.mark.parametrize(
    "wrong",
    [
        {"items": {}},
        {"items": []},
        {"items": {"received": {}, "sent": None}},
        {"items": {"received": 1, "sent": 2}},
        {"arguments": [1]},
        {"response": [{"name": 1, "type": "Unicode", "optional": False}]},
        {"errors": 5},
    ],
)
def test_a_part_of_a_description_that_does_not_parse(
    run: Run, background: Any, wrong: dict[str, Any]
) -> None:
    told = {"name": "X", "arguments": [], "response": [], "errors": {}, "requires_answer": True}
    described = json.dumps([{**told, "doc": "", **wrong}]).encode()
    handle = conftest.answering({b"_describe": {b"commands": described}, b"X": {}})
    address = background.serve_bytes(handle)
    problem = "the peer's description of its commands does not parse"
    assert run("describe", address).failed == (1, problem)
    # It can be asked as one that is not described.
    assert run("call", address, "X").printed == (0, "")
