"""Bytes as text: what is shown can be typed again, and moves no cursor."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amp_asyncio.cli.text import cut_text, escaped, printable, unescaped


@settings(max_examples=50)
@given(st.binary() | st.text().map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_what_is_shown_stands_for_the_same_bytes(value: bytes) -> None:
    text = escaped(value)
    assert text.isprintable()
    assert unescaped(text) == value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (b"", ""),
        ("Grüße 🐍".encode(), "Grüße 🐍"),
        (b"a\\b", r"a\\b"),
        (b"\r\n\t\x1b[0m\x7f", r"\r\n\t\x1b[0m\x7f"),
        (b"\xff\xc3", r"\xff\xc3"),
        ("\x9b", r"\xc2\x9b"),
        ("\ud800\udfff", r"\xed\xa0\x80\xed\xbf\xbf"),
        ("\udcff", r"\xff"),
    ],
)
def test_escaped(value: bytes | str, text: str) -> None:
    assert escaped(value) == text


def test_printable() -> None:
    assert printable("a\\b") == "a\\b"
    assert printable("a\\b\n") == r"a\\b\n"


@pytest.mark.parametrize("text", [r"\q", r"\x1", "\\", r"\xzz", "a\\\nb"])
def test_what_is_not_an_escape(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not an escape: write \\\\ for a backslash"):
        unescaped(text)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (b"abcd", '"abcd"'),
        (b"abcde", '"abcd"... (5 bytes)'),
        ("äöüäö", '"äöüä"... (10 bytes)'),
        (b"\xff", r'"\xff"'),
        # An escape is shown whole, or not at all.
        (b"\xff\xff", r'"\xff"... (2 bytes)'),
        (b"a\xff", r'"a"... (2 bytes)'),
        (b"abc\xff", r'"abc"... (4 bytes)'),
        (b"abc\n", r'"abc"... (4 bytes)'),
        (b"ab\\x", r'"ab\\"... (4 bytes)'),
        # Nor is a character cut that takes more than one byte.
        ("aaaäb".encode(), '"aaaä"... (6 bytes)'),
    ],
)
def test_cut(value: bytes | str, shown: str) -> None:
    assert cut_text(value, 4) == shown
    assert cut_text(value, None) == f'"{escaped(value)}"'
