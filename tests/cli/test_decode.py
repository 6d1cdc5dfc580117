"""decode: boxes as a person reads them, and where the bytes stop being AMP."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amp_asyncio import AmpBox, BoxParser, TooLong
from amp_asyncio.cli.boxes import NotAmp, boxes_of

Run = Callable[..., Any]


def box(**pairs: bytes) -> bytes:
    return AmpBox(pairs).serialize()


SUM = box(_command=b"Sum", _ask=b"1", a=b"13", b=b"81")
EVERY_KIND = (
    SUM
    + box(_answer=b"1", total=b"94")
    + box(_error=b"a", _error_code=b"ZERO_DIVISION", _error_description=b"by zero")
    + box(_command=b"Notify", longer="grün\n".encode(), x=b"\0\xff" + b"y" * 68)
)
EVERY_KIND_SHOWN = """\
0: question "Sum", tag "1"
    a  "13"
    b  "81"
40: answer to "1"
    total  "94"
65: error for "a": "ZERO_DIVISION" "by zero"
135: question "Notify", no answer wanted
    longer  "grün\\n"
    x       "\\x00\\xff{}"... (70 bytes)
"""


@pytest.fixture
def decode(run: Run, tmp_path: Path) -> Run:
    """Return what runs decode on a file of these bytes."""

    def decode(data: bytes, *options: str) -> Any:
        (tmp_path / "recorded").write_bytes(data)
        return run("decode", tmp_path / "recorded", *options)

    return decode


def test_every_kind_of_box(decode: Run) -> None:
    assert decode(EVERY_KIND).printed == (0, EVERY_KIND_SHOWN.format("y" * 56))
    assert "y" * 68 in decode(EVERY_KIND, "--full").out
    assert "bytes)" not in decode(EVERY_KIND, "--full").out


def test_json(decode: Run) -> None:
    status, lines = decode(EVERY_KIND, "--json").printed
    assert status == 0
    question, answer, error, notification = map(json.loads, lines.splitlines())
    assert question == {
        "offset": 0,
        "kind": "question",
        "command": "Sum",
        "tag": "1",
        "values": {"a": "13", "b": "81"},
    }
    assert answer == {"offset": 40, "kind": "answer", "tag": "1", "values": {"total": "94"}}
    assert (error["code"], error["description"]) == ("ZERO_DIVISION", "by zero")
    assert notification["tag"] is None
    assert notification["values"]["x"] == r"\x00\xff" + "y" * 68


def test_no_bytes(decode: Run) -> None:
    assert decode(b"").printed == (0, "")


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"\0\0", ["0: box", "    !! an empty box"]),
        (
            box(x=b"1"),
            ["0: box", '    x  "1"', "    !! neither a question nor an answer nor an error"],
        ),
        (
            box(_error=b"1"),
            [
                '0: error for "1"',
                "    !! an error without _error_code",
                "    !! an error without _error_description",
            ],
        ),
        (
            b"\0\1x\0\1a\0\1x\0\1b" + box(_answer=b"1"),
            [
                '0: answer to "1"',
                '    x  "a"',
                '    x  "b"',
                "    !! x came twice; the later value counts",
            ],
        ),
    ],
)
def test_faults_are_marked(decode: Run, data: bytes, lines: list[str]) -> None:
    assert decode(data + SUM).printed == (
        1,
        "\n".join([*lines, f'{len(data)}: question "Sum", tag "1"', '    a  "13"', '    b  "81"', ""]),
    )
    marks = [line.removeprefix("    !! ") for line in lines if "!!" in line]
    assert json.loads(decode(data, "--json").out)["faults"] == marks


@pytest.mark.parametrize(
    ("data", "offset", "why"),
    [
        (
            b"HTTP/1.1 400 Bad Request\r\n",
            0,
            r"a key of 18516 bytes, .*: b'HTTP/1.1 400 Bad' \(this looks like HTTP\)$",
        ),
        (b"\x16\x03\x01\0\5", 0, "a key of 5635 bytes, .*looks like a TLS ClientHello"),
        (b"\x15\x03\x03\0\2", 0, "a key of 5379 bytes, .*looks like TLS"),
        (b"\0", 1, "the bytes end in the middle of a box"),
        (b"\0\4_as", 5, "the bytes end in the middle of a key: 3 of 4 bytes are there"),
        (b"\0\4_ask", 6, "the bytes end in the middle of the value of b'_ask'$"),
        (b"\0\4_ask\0\5abc", 11, "in the middle of the value of b'_ask': 3 of 5 bytes are there"),
        (
            b"\0\1x\xff\xff" + b"y" * 65535 + b"\1\0abc",
            65540,
            "a key of 256 bytes.*it has 65535 bytes, and in version 2 of AMP it would go on here",
        ),
    ],
)
def test_where_the_bytes_stop_being_amp(decode: Run, data: bytes, offset: int, why: str) -> None:
    ended = decode(SUM + data, "--raw")
    assert ended.status == 1
    before, _, last = ended.out.rstrip("\n").rpartition("\n")
    assert before.startswith('0: question "Sum", tag "1"')
    assert last.startswith(f"{len(SUM) + offset}: not AMP: ")
    assert re.search(why, last)


def test_what_came_of_a_box_that_does_not_end(decode: Run) -> None:
    cut = SUM + SUM[:-4]
    why = "the bytes end in the middle of the value of b'b': 0 of 2 bytes are there"
    status, text = decode(cut).printed
    assert status == 1
    assert text.splitlines()[3:] == [
        "40: a box that does not end",
        '    _ask      "1"',
        '    _command  "Sum"',
        '    a         "13"',
        f"{len(cut)}: not AMP: {why}",
    ]
    assert json.loads(decode(cut, "--json").out.splitlines()[1]) == {
        "offset": len(cut),
        "kind": "not AMP",
        "why": why,
        "begun": {"_ask": "1", "_command": "Sum", "a": "13"},
    }


def test_version_2(decode: Run) -> None:
    data = AmpBox(_answer=b"1", x=b"y" * 70000, z=b"").serialize(2)
    assert decode(data).status == 1
    status, text = decode(data, "--amp-version", "2").printed
    assert status == 0
    assert text.splitlines() == [
        '0: answer to "1"',
        f'    x  "{"y" * 64}"... (70000 bytes)',
        '    z  ""',
    ]


HEXADECIMAL = {
    "digits": SUM.hex(),
    "groups": SUM.hex(" ", 2).upper() + "\n",
    "colons": SUM.hex(":"),
    "lines": "\n".join(SUM[start : start + 7].hex() for start in range(0, len(SUM), 7)),
    "C": ", ".join(f"0x{byte:02x}" for byte in SUM),
    "escapes": "".join(f"\\x{byte:02x}" for byte in SUM),
    "python": repr(SUM[:20]) + "\n  " + repr(SUM[20:]) + "\n\n",
    "xxd": """\
00000000: 0004 5f61 736b 0001 3100 085f 636f 6d6d  .._ask..1.._comm
00000010: 616e 6400 0353 756d 0001 6100 0231 3300  and..Sum..a..13.
00000020: 0162 0002 3831 0000                      .b..81..
""",
    "hexdump": """\
00000000  00 04 5f 61 73 6b 00 01  31 00 08 5f 63 6f 6d 6d  |.._ask..1.._comm|
00000010  61 6e 64 00 03 53 75 6d  00 01 61 00 02 31 33 00  |and..Sum..a..13.|
00000020  01 62 00 02 38 31 00 00                           |.b..81..|
00000028
""",
}


@pytest.mark.parametrize("form", HEXADECIMAL)
def test_hexadecimal_in_the_forms_that_people_have(decode: Run, form: str) -> None:
    assert decode(HEXADECIMAL[form].encode(), "--json").printed == decode(SUM, "--json").printed
    assert decode(HEXADECIMAL[form].encode(), "--hex").out.startswith('0: question "Sum"')


def test_a_dump_of_one_line(decode: Run) -> None:
    dump = "00000000: 0004 5f61 736b 0001 3100 00              .._ask..1..."
    assert decode(dump.encode()).out.splitlines()[:2] == ["0: box", '    _ask  "1"']


@pytest.mark.parametrize(
    "text", ["abc", "xy", "b'x", "b'x' + 1", "b'x'\n'y'", "00000000: 0004  ..\n0010: xx", ""]
)
def test_what_is_not_hexadecimal(decode: Run, text: str) -> None:
    assert decode(text.encode(), "--hex").failed == (2, "these are not hexadecimal digits in pairs")
    if text:
        assert "not AMP" in decode(text.encode()).out


def test_a_dump_that_leaves_out_lines(decode: Run) -> None:
    lines = HEXADECIMAL["hexdump"].splitlines()
    dump = "\n".join([lines[0], "*", *lines[1:]])
    status, line = decode(dump.encode()).failed
    assert status == 2
    assert line.startswith("the dump leaves out lines that repeat (*): make it with hexdump -v -C")


def test_bytes_that_look_like_digits_can_be_raw(decode: Run) -> None:
    assert decode(b"00045f61", "--raw").out.startswith("0: not AMP: a key of 12336 bytes")


def test_stdin(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for arguments in ([], ["-"]):
        monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(SUM)))
        assert run("decode", *arguments).printed[1].startswith('0: question "Sum"')


def test_a_file_that_is_not_there(run: Run) -> None:
    assert run("decode", "/no/such").failed == (2, "cannot read /no/such: No such file or directory")


_KEYS = st.sampled_from([b"_ask", b"_command", b"_answer", b"x", b"y" * 255])
_VALUES = st.binary(max_size=8) | st.sampled_from([b"x" * 65534, b"x" * 65535, b"x" * 131070])


@settings(max_examples=30)
@given(
    st.lists(st.dictionaries(_KEYS, _VALUES, max_size=3), max_size=3),
    st.binary(max_size=8),
    st.sampled_from([1, 2]),
)
def test_it_sees_what_the_parser_sees(
    boxes: list[dict[bytes, bytes]], rest: bytes, version: int
) -> None:
    if version == 1:
        boxes = [{key: value[:65535] for key, value in each.items()} for each in boxes]
    data = b"".join(AmpBox(each).serialize(version) for each in boxes) + rest
    parser = BoxParser(version=version)
    parser.feed(data)
    found, parsed, stopped, broken = [], [], False, False
    try:
        found += [dict(each.pairs) for each in boxes_of(data, version)]
    except NotAmp:
        stopped = True
    try:
        while (each := parser.next_box()) is not None:
            parsed.append(dict(each))
    except TooLong:
        broken = True
    assert stopped == (broken or parser.in_box)
    if not stopped:
        assert found == parsed
